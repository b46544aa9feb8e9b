/* How a StreamReader and a StreamWriter of asyncio's become casync's, and how they are released
   again; the writer's methods. What they are made of is in streams.c. */

/* ---- adopting ---- */

static bool reader_is_asyncios(state *st, PyObject *stream) {
    if ((PyObject *)Py_TYPE(stream) != st->asyncio_reader) return false;
    for (int kind = 0; kind <= READ_LINE; kind++)
        if (!has_function(st, stream, st->names[NAME_READ + kind], st->reader_functions[kind]))
            return false;
    return has_function(st, stream, st->names[NAME_FEED_DATA], st->reader_feed_data) &&
           has_function(st, stream, st->names[NAME_WAIT_FOR_DATA], st->reader_wait_for_data) &&
           has_function(st, stream, st->names[NAME_MAYBE_RESUME], st->reader_maybe_resume) &&
           has_function(st, stream, st->names[NAME_EXCEPTION], st->reader_exception);
}

/* Makes the class of a StreamReader ours, and gives it a native half: this, a new reference; NULL,
   maybe with an exception, if it is not asyncio's own. */
static reader *adopt_reader(state *st, PyObject *stream) {
    reader *self;
    if (Py_TYPE(stream) == st->stream_type) return reader_of(st, stream);
    self = reader_is_asyncios(st, stream) ? reader_new(st, stream) : NULL;
    if (self == NULL || PyObject_SetAttr(stream, st->names[NAME_NATIVE], (PyObject *)self) < 0 ||
        set_class(st, stream, st->stream_type, 1) < 0) /* the protocol has it, or open_connection */
        Py_CLEAR(self);
    return self;
}

/* From now on its methods are asyncio's, and so is its feed's way. */
static int release_reader(state *st, PyObject *stream) {
    reader *self = reader_of(st, stream);
    LOCK_READER(self);
    if (self != NULL && self->feed != NULL) feed_close(self->feed);
    Py_XDECREF((PyObject *)self);
    return self == NULL
               ? -1
               : PyObject_SetAttr(stream, st->names[NAME_CLASS], (PyObject *)st->released_type);
}

/* A program has given it another class: asyncio's attributes are the object's own again. */
static int abandon_reader(state *st, PyObject *stream) {
    reader *self = reader_of(st, stream);
    LOCK_READER(self);
    int result = self == NULL ? -1 : 0;
    if (self != NULL && self->feed != NULL) feed_close(self->feed);
    for (int i = NAME_READER_BUFFER; i <= NAME_READER_PAUSED && result == 0; i++) {
        PyObject *value = reader_get(self, (enum name)i);
        result = value == NULL ? -1 : PyObject_SetAttr(stream, st->names[i], value);
        Py_XDECREF(value);
    }
    Py_XDECREF((PyObject *)self);
    return result;
}

/* What a class has of its own: a new reference. */
static PyObject *class_dict(PyTypeObject *type) {
#if PY_VERSION_HEX >= 0x030C0000
    return PyType_GetDict(type);
#else
    return Py_XNewRef(type->tp_dict);
#endif
}

/* Does an object of this type have the name from asyncio's class: a method, say? */
static bool is_inherited(PyTypeObject *type, PyObject *name) {
    PyObject *found = NULL;
    bool inherited;
    for (Py_ssize_t i = 0; found == NULL && i < PyTuple_GET_SIZE(type->tp_mro); i++) {
        PyObject *dict = class_dict((PyTypeObject *)PyTuple_GET_ITEM(type->tp_mro, i));
        if (dict != NULL) found = get_item(dict, name);
        Py_XDECREF(dict);
    }
    inherited = found != NULL && !Py_IS_TYPE(found, &PyGetSetDescr_Type);
    Py_XDECREF(found);
    return inherited;
}

static int stream_setattro(PyObject *stream, PyObject *name, PyObject *value) {
    state *st = stream_state(stream);
    bool patches = Py_IS_TYPE(stream, st->stream_type) && is_inherited(Py_TYPE(stream), name);
    if (PyObject_GenericSetAttr(stream, name, value) < 0) return -1;
    if (patches) return release_reader(st, stream);
    return Py_IS_TYPE(stream, st->stream_type) || Py_IS_TYPE(stream, st->released_type)
               ? 0
               : abandon_reader(st, stream);
}

/* ---- an adopted writer ---- */

/* The native transport that an object is; NULL if it is none of sockets, or has attributes of its
   own: one may be a write() that a program has put there. */
static transport *plain_transport(state *st, PyObject *object) {
    if (!Py_IS_TYPE(object, st->transport_types[TRANSPORT_SOCKET])) return NULL;
    return ((transport *)object)->dict == NULL ? (transport *)object : NULL;
}

/* The writer's transport, if it is one of those; else NULL, maybe with an exception. */
static transport *writer_transport(state *st, PyObject *writer, PyObject **object) {
    *object = PyObject_GetAttr(writer, st->names[NAME_READER_TRANSPORT]);
    return *object == NULL ? NULL : plain_transport(st, *object);
}

static PyObject *writer_write(PyObject *writer, PyObject *const *args, Py_ssize_t count,
                              PyObject *keywords) {
    state *st = stream_state(writer);
    PyObject *data = only_argument("write", "data", args, count, keywords), *object, *result = NULL;
    if (data == NULL) return NULL;
    transport *t = writer_transport(st, writer, &object);
    if (t != NULL)
        result = transport_write(t, data);
    else if (object != NULL)
        result = PyObject_CallMethodOneArg(object, st->names[NAME_WRITE], data);
    Py_XDECREF(object);
    return result;
}

/* Would asyncio's drain() find nothing to wait for, and no error? What else it looks at (and all
   that does not stand where it stood when the writer was adopted) is left to it. */
static bool writer_is_drained(state *st, PyObject *writer) {
    PyObject *object;
    transport *t = writer_transport(st, writer, &object);
    LOCK_TRANSPORT(t);
    bool drained =
        t != NULL && t->feed.reader != NULL && t->feed.reader->exception == Py_None &&
        !(t->flags & (TRANSPORT_CLOSING | TRANSPORT_PROTOCOL_PAUSED)) &&
        has_function(st, t->protocol, st->names[NAME_DRAIN_HELPER], st->protocol_drain_helper);
    if (object == NULL) forget_exception(PyExc_AttributeError, writer);
    Py_XDECREF(object);
    return drained;
}

typedef struct {
    awaitable awaitable;
    PyObject *writer;
    uint8_t unused[2 * sizeof(PyObject *) + 3];
    int8_t state; /* see private_cpython.c */
} drain_operation;

ASSERT_STATE_PLACE(drain_operation);

static PySendResult drain_step(awaitable *self, PyObject **result) {
    PyObject *writer = ((drain_operation *)self)->writer;
    state *st = awaitable_state(self);
    if (self->waiting == NULL && writer_is_drained(st, writer)) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    if (self->waiting == NULL) self->waiting = PyObject_CallOneArg(st->writer_drain, writer);
    return self->waiting == NULL ? PYGEN_ERROR : PyIter_Send(self->waiting, Py_None, result);
}

static void drain_finish(awaitable *self) { Py_CLEAR(((drain_operation *)self)->writer); }

/* asyncio's coroutine, if it has one, goes with it, and tidies up then. */
static const awaitable_kind drain_kind = {"StreamWriter", "drain", drain_step, NULL, drain_finish};

static int drain_traverse(drain_operation *self, visitproc visit, void *arg) {
    Py_VISIT(self->writer);
    return awaitable_visit(&self->awaitable, visit, arg);
}

static PyType_Slot drain_slots[] = {
    {Py_tp_doc, "StreamWriter.drain() returns this awaitable."},
    {Py_tp_traverse, drain_traverse},
    AWAITABLE_SLOTS,
    {0, NULL},
};

static PyType_Spec drain_spec = {"casync._native.DrainOperation", sizeof(drain_operation), 0,
                                 AWAITABLE_FLAGS, drain_slots};

static PyObject *writer_drain(PyObject *writer, PyObject *const *args, Py_ssize_t count,
                              PyObject *keywords) {
    state *st = stream_state(writer);
    drain_operation *self;
    if (count > 0 || keywords != NULL)
        return call_base(st->writer_drain, writer, args, count, keywords);
    self = (drain_operation *)new_awaitable(st, AWAITABLE_DRAIN, &drain_kind);
    if (self == NULL) return NULL;
    self->writer = Py_NewRef(writer);
    track_awaitable(st, &self->awaitable);
    return (PyObject *)self;
}

static const method_definition writer_methods[] = {
    {"write", writer_write}, {"drain", writer_drain}, {NULL, NULL}};

/* One in which a program puts something in the place of asyncio's is asyncio's again. */
static int writer_setattro(PyObject *writer, PyObject *name, PyObject *value) {
    state *st = stream_state(writer);
    bool patches = is_inherited(Py_TYPE(writer), name) ||
                   PyUnicode_Compare(name, st->names[NAME_WRITER_PROTOCOL]) == 0 ||
                   PyUnicode_Compare(name, st->names[NAME_WRITER_READER]) == 0;
    if (PyObject_GenericSetAttr(writer, name, value) < 0) return -1;
    return patches ? PyObject_SetAttr(writer, st->names[NAME_CLASS], st->asyncio_writer) : 0;
}

static PyType_Slot writer_slots[] = {
    {Py_tp_doc, "This asyncio.StreamWriter has write() and drain() in C."},
    {Py_tp_setattro, writer_setattro},
    {0, NULL},
};

static PyType_Spec writer_spec = {"casync._native.StreamWriter", 0, 0, Py_TPFLAGS_DEFAULT,
                                  writer_slots};

/* Makes the class of a StreamWriter ours, if it is asyncio's own and its reader's native: else
   nothing. */
static void adopt_writer(state *st, PyObject *stream, PyObject *writer) {
    if (Py_TYPE(stream) == st->stream_type && (PyObject *)Py_TYPE(writer) == st->asyncio_writer &&
        has_function(st, writer, st->names[NAME_WRITE], st->writer_write) &&
        has_function(st, writer, st->names[NAME_DRAIN], st->writer_drain))
        (void)set_class(st, writer, st->writer_type, 1); /* the protocol has it */
    forget_exception(PyExc_Exception, writer);           /* then it stays as it is */
}

/* Stands for the callback of start_server(): callback(reader, writer), with the writer adopted.
   self: (the type of adopted readers, the callback) */
static PyObject *client_connected(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    state *st = (state *)PyType_GetModuleState((PyTypeObject *)PyTuple_GET_ITEM(self, 0));
    if (count == 2) adopt_writer(st, args[0], args[1]);
    return PyObject_Vectorcall(PyTuple_GET_ITEM(self, 1), args, (size_t)count, NULL);
}

static PyMethodDef client_connected_method = {"client_connected", FASTCALL(client_connected),
                                              METH_FASTCALL,
                                              "Calls the callback of start_server()."};

/* Lets the protocol's connection_made, which makes the writer, hand it to client_connected()
   first. */
static void adopt_callback(state *st, PyObject *protocol) {
    PyObject *callback = PyObject_GetAttr(protocol, st->names[NAME_CLIENT_CONNECTED]), *self,
             *function;
    bool adopted = callback != NULL && PyCFunction_Check(callback) &&
                   PyCFunction_GET_FUNCTION(callback) == client_connected_method.ml_meth;
    if (callback != NULL && callback != Py_None && !adopted) {
        self = PyTuple_Pack(2, st->stream_type, callback);
        function = self == NULL ? NULL : PyCFunction_New(&client_connected_method, self);
        if (function != NULL)
            (void)PyObject_SetAttr(protocol, st->names[NAME_CLIENT_CONNECTED], function);
        Py_XDECREF(function);
        Py_XDECREF(self);
    }
    Py_XDECREF(callback);
}

/* Do bytes for the protocol go to its reader, and nowhere else? */
static bool feeds_reader(state *st, PyObject *protocol) {
    return has_function(st, protocol, st->names[NAME_DATA_RECEIVED], st->protocol_data_received);
}

/* From now on bytes for this protocol go to its reader, if both are asyncio's own; else by its
   data_received. Called for every new protocol of what feeds. */
static void feed_open(reader_feed *feed, loop *lp, PyObject *protocol) {
    state *st = lp->state;
    PyObject *reference, *stream;
    reader *adopted;
    feed_close(feed);
    if (lp->debug || (PyObject *)Py_TYPE(protocol) != st->asyncio_reader_protocol) return;
    if (streams_changed(st, WATCHED_TRANSPORT) || !feeds_reader(st, protocol)) return;
    reference = PyObject_GetAttr(protocol, st->names[NAME_STREAM_READER_REFERENCE]);
    stream = reference != NULL && PyWeakref_CheckRef(reference) ? follow(reference) : NULL;
    adopted = stream == NULL ? NULL : adopt_reader(st, stream);
    if (adopted != NULL && adopted->loop == lp) {
        /* start_tls() puts one above the other */
        if (adopted->feed != NULL) feed_close(adopted->feed);
        feed->reader = (reader *)Py_NewRef((PyObject *)adopted);
        adopted->feed = feed;
        adopt_callback(st, protocol);
    }
    forget_exception(PyExc_Exception, protocol); /* then asyncio's code finds what is wrong */
    Py_XDECREF((PyObject *)adopted);
    Py_XDECREF(stream);
    Py_XDECREF(reference);
}

static void transport_adopt_reader(transport *self) {
    if (self->kind == TRANSPORT_SOCKET) feed_open(&self->feed, self->loop, self->protocol);
}
