/* What Python sees of TLS: the types under asyncio's SSLProtocol and its transport, and what they
   need of asyncio. */

/* ---- the protocol's type ---- */

static PyObject *tls_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                         PyObject *Py_UNUSED(kwargs)) {
    state *st = find_state(type);
    tls *self = st == NULL ? NULL : (tls *)type->tp_alloc(type, 0);
    if (self != NULL) self->st = st;
    return (PyObject *)self;
}

/* data_received(data): as buffer_updated, for transports that have the bytes already */
static PyObject *tls_data_received(tls *self, PyObject *data) {
    LOCK_TLS(self);
    Py_buffer view;
    casync_span span;
    int result;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
    span.ptr = view.buf;
    span.len = (size_t)view.len;
    result = tls_receive(self, span);
    PyBuffer_Release(&view);
    if (result < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *none_unless(int failed) {
    if (failed < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *tls_do_read_method(tls *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TLS(self);
    return none_unless(tls_do_read(self));
}

static PyObject *tls_do_write_method(tls *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TLS(self);
    return none_unless(tls_do_write(self));
}

static PyObject *tls_process_outgoing_method(tls *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TLS(self);
    return none_unless(tls_process_outgoing(self));
}

static PyObject *get_attribute(PyObject *value, const char *name) {
    if (value == NULL) PyErr_SetString(PyExc_AttributeError, name);
    return Py_XNewRef(value);
}

static PyObject *tls_get_sslobj(tls *self, void *Py_UNUSED(closure)) {
    LOCK_TLS(self);
    return get_attribute(self->sslobj, "_sslobj");
}

/* Of an ssl.SSLObject, which passes read and write on, the object inside is called directly. */
static int tls_set_sslobj(tls *self, PyObject *value, void *Py_UNUSED(closure)) {
    LOCK_TLS(self);
    PyObject *inside = NULL, *sslobj = self->sslobj, *connection = self->connection;
    if (value != NULL && (PyObject *)Py_TYPE(value) == self->st->ssl_object_type) {
        inside = PyObject_GetAttr(value, self->st->names[NAME_SSLOBJ]);
        if (inside == NULL) return -1;
    }
    self->counts_records =
        inside != NULL && (PyObject *)Py_TYPE(inside) == self->st->ssl_connection_type;
    self->sslobj = Py_XNewRef(value);
    self->connection = inside == NULL ? Py_XNewRef(value) : inside;
    Py_XDECREF(sslobj);
    Py_XDECREF(connection);
    return 0;
}

static PyObject *tls_get_app_protocol(tls *self, void *Py_UNUSED(closure)) {
    LOCK_TLS(self);
    return get_attribute(self->app_protocol, "_app_protocol");
}

/* TLS in TLS: one of ours takes bytes objects, though asyncio's is a BufferedProtocol. */
static int tls_set_app_protocol(tls *self, PyObject *value, void *Py_UNUSED(closure)) {
    LOCK_TLS(self);
    state *st = self->st;
    int buffered =
        value == NULL || is_tls(st, value) ? 0 : PyObject_IsInstance(value, st->buffered_protocol);
    if (buffered < 0) return -1;
    feed_close(&self->feed);
    if (value != NULL && self->loop != NULL && PyObject_TypeCheck(self->loop, st->loop_type))
        feed_open(&self->feed, (loop *)self->loop, value);
    self->app_is_buffered = buffered;
    Py_XSETREF(self->app_protocol, Py_XNewRef(value));
    return 0;
}

static Py_ssize_t *tls_limit(tls *self, void *offset) {
    return (Py_ssize_t *)(void *)((char *)self + (uintptr_t)offset);
}

static PyObject *tls_get_limit(tls *self, void *offset) {
    return PyLong_FromSsize_t(*tls_limit(self, offset));
}

static int tls_set_limit(tls *self, PyObject *value, void *offset) {
    if (value != NULL) return parse_limit(value, tls_limit(self, offset));
    PyErr_SetString(PyExc_AttributeError, "a limit of this SSLProtocol cannot be deleted");
    return -1;
}

static int tls_traverse(tls *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->ssl_state);
    Py_VISIT(self->sslobj);
    Py_VISIT(self->incoming);
    Py_VISIT(self->outgoing);
    Py_VISIT(self->transport);
    Py_VISIT(self->app_protocol);
    Py_VISIT(self->backlog);
    Py_VISIT(self->connection);
    Py_VISIT(self->feed.reader);
    return 0;
}

static int tls_clear(tls *self) {
    feed_close(&self->feed);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->ssl_state);
    Py_CLEAR(self->sslobj);
    Py_CLEAR(self->incoming);
    Py_CLEAR(self->outgoing);
    Py_CLEAR(self->transport);
    Py_CLEAR(self->app_protocol);
    Py_CLEAR(self->backlog);
    Py_CLEAR(self->connection);
    return 0;
}

static void tls_dealloc(tls *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    tls_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef tls_methods[] = {
    {"data_received", (PyCFunction)tls_data_received, METH_O,
     "Takes bytes from the network, decrypts them, and gives the result to the application's "
     "protocol. The transport below calls it in the loop's thread."},
    {"_write_appdata", (PyCFunction)tls_write_appdata, METH_O, NULL},
    {"_do_read", (PyCFunction)tls_do_read_method, METH_NOARGS, NULL},
    {"_do_write", (PyCFunction)tls_do_write_method, METH_NOARGS, NULL},
    {"_process_outgoing", (PyCFunction)tls_process_outgoing_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

#define TLS_MEMBER(name, type, field)                                                              \
    { name, type, offsetof(tls, field), 0, NULL }

static PyMemberDef tls_members[] = {
    TLS_MEMBER("_loop", T_OBJECT_EX, loop),
    TLS_MEMBER("_state", T_OBJECT_EX, ssl_state),
    TLS_MEMBER("_incoming", T_OBJECT_EX, incoming),
    TLS_MEMBER("_outgoing", T_OBJECT_EX, outgoing),
    TLS_MEMBER("_transport", T_OBJECT_EX, transport),
    TLS_MEMBER("_write_backlog", T_OBJECT_EX, backlog),
    TLS_MEMBER("_write_buffer_size", T_PYSSIZET, backlog_size),
    TLS_MEMBER("_ssl_writing_paused", T_BOOL, ssl_writing_paused),
    TLS_MEMBER("_ssl_reading_paused", T_BOOL, ssl_reading_paused),
    TLS_MEMBER("_app_writing_paused", T_BOOL, app_writing_paused),
    TLS_MEMBER("_app_reading_paused", T_BOOL, app_reading_paused),
    {NULL, 0, 0, 0, NULL},
};

#define TLS_LIMIT(name, field)                                                                     \
    { name, (getter)tls_get_limit, (setter)tls_set_limit, NULL, (void *)offsetof(tls, field) }

static PyGetSetDef tls_getsets[] = {
    TLS_LIMIT("_outgoing_high_water", outgoing_high_water),
    TLS_LIMIT("_outgoing_low_water", outgoing_low_water),
    TLS_LIMIT("_incoming_high_water", incoming_high_water),
    TLS_LIMIT("_incoming_low_water", incoming_low_water),
    {"_sslobj", (getter)tls_get_sslobj, (setter)tls_set_sslobj, NULL, NULL},
    {"_app_protocol", (getter)tls_get_app_protocol, (setter)tls_set_app_protocol, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot tls_slots[] = {
    {Py_tp_doc,
     "A subclass of this class and of asyncio.sslproto.SSLProtocol keeps its state in C, and "
     "reads and writes in C."},
    {Py_tp_new, tls_new},
    {Py_tp_dealloc, tls_dealloc},
    {Py_tp_traverse, tls_traverse},
    {Py_tp_clear, tls_clear},
    {Py_tp_methods, tls_methods},
    {Py_tp_members, tls_members},
    {Py_tp_getset, tls_getsets},
    {0, NULL},
};

static PyType_Spec tls_spec = {"casync._native.TLSProtocol", sizeof(tls), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                               tls_slots};

/* ---- the application's transport ---- */

/* write(data) */
static PyObject *tls_transport_write(PyObject *self, PyObject *const *args, Py_ssize_t count,
                                     PyObject *keywords) {
    PyObject *data = only_argument("write", "data", args, count, keywords), *protocol, *result;
    state *st = data == NULL ? NULL : find_state(Py_TYPE(self));
    if (st == NULL) return NULL;
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data))
        return PyErr_Format(PyExc_TypeError, "data: expecting a bytes-like instance, got %s",
                            Py_TYPE(data)->tp_name);
    if (PyObject_Size(data) == 0) Py_RETURN_NONE;
    protocol = PyErr_Occurred() ? NULL : PyObject_GetAttr(self, st->names[NAME_SSL_PROTOCOL]);
    if (protocol == NULL) return NULL;
    if (is_tls(st, protocol))
        result = tls_write((tls *)protocol, data);
    else /* None, if close() was called twice */
        result = PyObject_CallMethod(protocol, "_write_appdata", "((O))", data);
    Py_DECREF(protocol);
    return result;
}

static PyMethodDef tls_transport_methods[] = {
    {"write", FASTCALL(tls_transport_write), METH_FASTCALL | METH_KEYWORDS,
     "write($self, data)\n--\n\nEncrypts `data` and sends it. Never blocks. Raises "
     "TypeError if `data` is not bytes-like."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tls_transport_slots[] = {
    {Py_tp_doc,
     "A subclass of this class and of asyncio.sslproto._SSLProtocolTransport writes in C."},
    {Py_tp_methods, tls_transport_methods},
    {0, NULL},
};

static PyType_Spec tls_transport_spec = {"casync._native.TLSTransport", sizeof(PyObject), 0,
                                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                                         tls_transport_slots};

/* ---- what it needs of asyncio ---- */

static int import_sslproto(state *st) {
    struct {
        PyObject **slot;
        const char *module, *path;
    } wanted[] = {
        {&st->ssl_object_type, "ssl", "SSLObject"},
        {&st->ssl_connection_type, "_ssl", "_SSLSocket"},
        {&st->memory_bio_type, "_ssl", "MemoryBIO"},
        {&st->ssl_again_errors, "asyncio.sslproto", "SSLAgainErrors"},
        {&st->tls_states[TLS_WRAPPED], "asyncio.sslproto", "SSLProtocolState.WRAPPED"},
        {&st->tls_states[TLS_DO_HANDSHAKE], "asyncio.sslproto", "SSLProtocolState.DO_HANDSHAKE"},
        {&st->tls_states[TLS_FLUSHING], "asyncio.sslproto", "SSLProtocolState.FLUSHING"},
        {&st->tls_states[TLS_SHUTDOWN], "asyncio.sslproto", "SSLProtocolState.SHUTDOWN"},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        *wanted[i].slot = import_attribute(wanted[i].module, wanted[i].path);
        if (*wanted[i].slot == NULL) return -1;
    }
    return 0;
}
