/* Streams: asyncio's StreamReader and StreamWriter, fed, read and written natively. Here are the
   reader and its reads; the writer, and how both are adopted, is in streams_adopt.c. How bytes come
   in is in streams_feed.c.

   Idea: where a transport's protocol is asyncio's own StreamReaderProtocol with asyncio's own
   StreamReader, neither patched nor derived from, bytes go from the socket to the reader without a
   Python call, and the reader is adopted: its class becomes a subclass without slots, whose read
   methods give a `read_operation`, an awaitable in C, in place of a coroutine, and whose `_buffer`,
   `_waiter` and so on are those of a struct, `reader`, which the object keeps as `_native`. So
   whoever looks at these attributes, and asyncio's own methods, find what they expect. The
   StreamWriter that a server's callback gets is adopted likewise, for write() and drain(). (That of
   open_connection() is not: asyncio makes it where no loop can see it.)

   What a program patches later has its way. In asyncio's classes: then all methods here, and the
   feed, leave it to asyncio's functions (method.c), for as long. In an object that is adopted: then
   it is released, and has asyncio's methods from then on. In a protocol, which stays as it is: it
   is asked for its data_received at each feed.

   Invariants: what feeds a reader has a reference to it, as long as the StreamReader has one, too,
   and the reader knows its feed. What a read() waits for is kept beside the buffer, as the object
   that it will return: to all others these bytes are the beginning of the buffer, which whoever
   looks at it puts them into.

   Costs: a read that waits is one object and one handle; a message is copied once if a read() waits
   for it, else twice. A drain() that need not wait is one object. */

enum read_kind { READ_SOME, READ_EXACTLY, READ_UNTIL, READ_LINE };

/* What asyncio keeps in a StreamReader's attributes of these names. */
typedef struct reader {
    PyObject ob_base;
    PyObject *buffer;                         /* a bytearray */
    PyObject *handed;                         /* bytes before those; or NULL */
    PyObject *waiter, *exception, *transport; /* None if there is none */
    loop *loop;
    struct read_operation *operation; /* borrowed: whose future `waiter` is; or NULL */
    reader_feed *feed;                /* what feeds it natively, borrowed, or NULL */
    Py_ssize_t limit;
    bool eof, paused;
} reader;

typedef struct read_operation {
    awaitable awaitable;
    PyObject *stream; /* the StreamReader: it must live */
    reader *reader;
    PyObject *separator; /* bytes; of READ_UNTIL and READ_LINE */
    uint8_t kind;
    uint8_t unused[2];
    int8_t state; /* see private_cpython.c */
    Py_ssize_t size;
    Py_ssize_t scanned; /* bytes of the buffer where no separator begins */
} read_operation;

ASSERT_STATE_PLACE(read_operation);

static state *reader_state(reader *self) { return self->loop->state; }

#define LOCK_READER(self) LOCK_LOOP((self) == NULL ? NULL : (self)->loop)

static Py_ssize_t reader_size(reader *self) { return PyByteArray_GET_SIZE(self->buffer); }

static const char *reader_bytes(reader *self) { return PyByteArray_AS_STRING(self->buffer); }

static void reader_set_waiter(reader *self, PyObject *waiter) {
    self->operation = NULL;
    Py_XSETREF(self->waiter, Py_NewRef(waiter));
}

/* Removes the first bytes of the buffer: 0, or -1 with an exception set. */
static int reader_drop(reader *self, Py_ssize_t size) {
    PyObject *buffer;
    int result;
    if (size == reader_size(self)) return PyByteArray_Resize(self->buffer, 0);
    buffer = Py_NewRef(self->buffer); /* of a derived class, maybe */
    result = PySequence_DelSlice(buffer, 0, size);
    Py_DECREF(buffer);
    return result;
}

/* Puts what was handed to a read() into the buffer: 0, or -1 with an exception set. */
static int reader_take_back(reader *self) {
    PyObject *handed = self->handed, *buffer;
    int result;
    if (handed == NULL) return 0;
    self->handed = NULL;
    buffer = Py_NewRef(self->buffer);
    result = PySequence_SetSlice(buffer, 0, 0, handed);
    Py_DECREF(buffer);
    if (result < 0 && self->handed == NULL)
        self->handed = handed; /* someone holds a view of the buffer, say */
    else
        Py_DECREF(handed);
    return result;
}

static int reader_append(reader *self, const char *data, Py_ssize_t size) {
    Py_ssize_t old = reader_size(self);
    if (size == 0) return 0;
    if (PyByteArray_Resize(self->buffer, old + size) < 0) return -1;
    memcpy(PyByteArray_AS_STRING(self->buffer) + old, data, (size_t)size);
    return 0;
}

static int reader_call_transport(reader *self, enum name method) {
    PyObject *called = Py_NewRef(self->transport);
    PyObject *result = PyObject_CallMethodNoArgs(called, reader_state(self)->names[method]);
    Py_XDECREF(result);
    Py_DECREF(called);
    return result == NULL ? -1 : 0;
}

static int reader_resume(reader *self) {
    if (!self->paused) return 0;
    self->paused = false;
    return reader_call_transport(self, NAME_RESUME_READING);
}

/* asyncio's _maybe_resume_transport */
static int reader_resume_if_not_full(reader *self) {
    return reader_size(self) > self->limit ? 0 : reader_resume(self);
}

/* All of the buffer becomes a bytes object, without a copy. */
static PyObject *reader_take_all(reader *self) {
    PyObject *buffer = Py_NewRef(self->buffer);
    PyObject *data = PyObject_CallMethodNoArgs(buffer, reader_state(self)->names[NAME_TAKE_BYTES]);
    Py_DECREF(buffer);
    return data;
}

static PyObject *reader_copy(reader *self, Py_ssize_t size) {
    PyObject *data = PyBytes_FromStringAndSize(reader_bytes(self), size);
    if (data != NULL && reader_drop(self, size) < 0) Py_CLEAR(data);
    return data;
}

/* The first bytes of the buffer, taken out of it. */
static PyObject *reader_take(reader *self, Py_ssize_t size) {
    bool whole = size == reader_size(self) && PyByteArray_CheckExact(self->buffer);
    PyObject *data = whole && size >= TAKE_SIZE ? reader_take_all(self) : reader_copy(self, size);
    if (data != NULL && reader_resume_if_not_full(self) < 0) Py_CLEAR(data);
    return data;
}

/* asyncio's IncompleteReadError for all that is in the buffer, which is emptied. Takes the
   reference of `expected`, which is NULL after a failure. */
static int reader_raise_incomplete(reader *self, PyObject *expected) {
    PyObject *type = reader_state(self)->incomplete_read_error, *error = NULL;
    PyObject *partial =
        expected == NULL ? NULL : PyBytes_FromStringAndSize(reader_bytes(self), reader_size(self));
    if (partial != NULL && PyByteArray_Resize(self->buffer, 0) == 0)
        error = PyObject_CallFunctionObjArgs(type, partial, expected, NULL);
    if (error != NULL) PyErr_SetObject(type, error);
    Py_XDECREF(expected);
    Py_XDECREF(partial);
    Py_XDECREF(error);
    return -1;
}

/* ---- operations ---- */

/* It waits no longer. */
static void operation_leave(read_operation *op) {
    if (op->reader->operation == op) reader_set_waiter(op->reader, Py_None);
}

static void operation_abandon(awaitable *self) {
    LOCK_READER(((read_operation *)self)->reader);
    operation_leave((read_operation *)self);
}

static void operation_finish(awaitable *self) {
    read_operation *op = (read_operation *)self;
    Py_CLEAR(op->separator);
    Py_CLEAR(op->reader);
    Py_CLEAR(op->stream);
}

/* asyncio's LimitOverrunError; of readline its ValueError, after the line is dropped. */
static int raise_overrun(read_operation *op, const char *message, Py_ssize_t consumed, bool found) {
    PyObject *type = reader_state(op->reader)->limit_overrun_error, *error;
    if (op->kind == READ_LINE) {
        Py_ssize_t dropped = found ? consumed + 1 : reader_size(op->reader);
        if (reader_drop(op->reader, dropped) == 0 && reader_resume_if_not_full(op->reader) == 0)
            PyErr_SetString(PyExc_ValueError, message);
        return -1;
    }
    error = PyObject_CallFunction(type, "sn", message, consumed);
    if (error != NULL) PyErr_SetObject(type, error);
    Py_XDECREF(error);
    return -1;
}

/* The attempts: 1 and a result, 0 if more must come first, -1 and an exception. */

static int attempt_some(read_operation *op, reader *from, PyObject **result) {
    Py_ssize_t size = reader_size(from);
    if (size == 0 && !from->eof) return 0;
    *result = reader_take(from, size < op->size ? size : op->size);
    return *result == NULL ? -1 : 1;
}

static int attempt_exactly(read_operation *op, reader *from, PyObject **result) {
    if (reader_size(from) < op->size)
        return from->eof ? reader_raise_incomplete(from, PyLong_FromSsize_t(op->size)) : 0;
    *result = reader_take(from, op->size);
    return *result == NULL ? -1 : 1;
}

static int attempt_until(read_operation *op, reader *from, PyObject **result) {
    const char *separator = PyBytes_AS_STRING(op->separator);
    Py_ssize_t length = PyBytes_GET_SIZE(op->separator), size = reader_size(from);
    if (size - op->scanned >= length) {
        const char *start = reader_bytes(from);
        const char *found = (const char *)memmem(start + op->scanned, (size_t)(size - op->scanned),
                                                 separator, (size_t)length);
        if (found != NULL) {
            if (found - start > from->limit)
                return raise_overrun(op, "Separator is found, but chunk is longer than limit",
                                     found - start, true);
            *result = reader_take(from, found - start + length);
            return *result == NULL ? -1 : 1;
        }
        op->scanned = size + 1 - length;
        if (op->scanned > from->limit)
            return raise_overrun(op, "Separator is not found, and chunk exceed the limit",
                                 op->scanned, false);
    }
    if (!from->eof) return 0;
    if (op->kind == READ_UNTIL) return reader_raise_incomplete(from, Py_NewRef(Py_None));
    *result = PyBytes_FromStringAndSize(reader_bytes(from), size);
    return *result == NULL || PyByteArray_Resize(from->buffer, 0) < 0 ? -1 : 1;
}

static int operation_attempt(read_operation *op, PyObject **result) {
    reader *from = op->reader;
    if (from->handed != NULL && op->kind == READ_SOME &&
        PyBytes_GET_SIZE(from->handed) <= op->size) {
        *result = from->handed;
        from->handed = NULL;
        return reader_resume_if_not_full(from) < 0 ? -1 : 1;
    }
    if (reader_take_back(from) < 0) return -1;
    if (op->kind == READ_SOME) return attempt_some(op, from, result);
    if (op->kind == READ_EXACTLY) return attempt_exactly(op, from, result);
    return attempt_until(op, from, result);
}

/* asyncio's checks before anything is done: 1 and a result, 0 to go on, -1 and an exception. */
static int operation_begin(read_operation *op, PyObject **result) {
    if (op->kind == READ_EXACTLY && op->size < 0) {
        PyErr_SetString(PyExc_ValueError, "readexactly size can not be less than zero");
        return -1;
    }
    if (op->separator != NULL && PyBytes_GET_SIZE(op->separator) == 0) {
        PyErr_SetString(PyExc_ValueError, "Separator should be at least one-byte string");
        return -1;
    }
    if (op->reader->exception != Py_None) {
        PyObject *exception = Py_NewRef(op->reader->exception);
        raise_object(exception);
        Py_DECREF(exception);
        return -1;
    }
    if (op->separator != NULL || op->size != 0) return 0;
    *result = PyBytes_FromStringAndSize(NULL, 0);
    return *result == NULL ? -1 : 1;
}

/* asyncio's _wait_for_data: sets `waiting`. */
static int operation_wait(read_operation *op) {
    reader *from = op->reader;
    PyObject *future;
    if (from->waiter != Py_None) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s() called while another coroutine is already waiting for incoming data",
                     op->kind == READ_LINE ? "readuntil" : op->awaitable.kind->name);
        return -1;
    }
    if (reader_resume(from) < 0) return -1;
    future = loop_create_future(from->loop, NULL);
    if (future == NULL) return -1;
    reader_set_waiter(from, future);
    from->operation = op;
    op->awaitable.waiting = PyObject_GetIter(future);
    Py_DECREF(future);
    if (op->awaitable.waiting != NULL) return 0;
    operation_leave(op);
    return -1;
}

/* The future that is awaited is asked: what follows from its answer. */
static PySendResult operation_waited(read_operation *op, PyObject **result) {
    PySendResult answer = PyIter_Send(op->awaitable.waiting, Py_None, result);
    if (answer == PYGEN_NEXT) return answer;
    operation_leave(op);
    Py_CLEAR(op->awaitable.waiting);
    if (answer == PYGEN_RETURN) Py_CLEAR(*result);
    return answer;
}

static PySendResult operation_run(read_operation *op, PyObject **result) {
    for (;;) {
        int done = operation_attempt(op, result);
        if (done != 0) return done > 0 ? PYGEN_RETURN : PYGEN_ERROR;
        if (operation_wait(op) < 0) return PYGEN_ERROR;
        PySendResult answer = operation_waited(op, result);
        if (answer != PYGEN_RETURN) return answer;
    }
}

static PySendResult operation_step(awaitable *self, PyObject **result) {
    read_operation *op = (read_operation *)self;
    LOCK_READER(op->reader);
    PySendResult answer = PYGEN_RETURN;
    if (self->waiting == NULL) {
        int done = operation_begin(op, result);
        if (done != 0) return done > 0 ? PYGEN_RETURN : PYGEN_ERROR;
    } else {
        answer = operation_waited(op, result);
    }
    return answer == PYGEN_RETURN ? operation_run(op, result) : answer;
}

static const awaitable_kind read_kinds[] = {
    {"StreamReader", "read", operation_step, operation_abandon, operation_finish},
    {"StreamReader", "readexactly", operation_step, operation_abandon, operation_finish},
    {"StreamReader", "readuntil", operation_step, operation_abandon, operation_finish},
    {"StreamReader", "readline", operation_step, operation_abandon, operation_finish},
};

static int operation_traverse(read_operation *op, visitproc visit, void *arg) {
    Py_VISIT(op->stream);
    Py_VISIT(op->reader);
    return awaitable_visit(&op->awaitable, visit, arg);
}

static PyType_Slot operation_slots[] = {
    {Py_tp_doc, "The read methods of a StreamReader return this awaitable."},
    {Py_tp_traverse, operation_traverse},
    AWAITABLE_SLOTS,
    {0, NULL},
};

static PyType_Spec operation_spec = {"casync._native.ReadOperation", sizeof(read_operation), 0,
                                     AWAITABLE_FLAGS, operation_slots};

/* The native half of an adopted reader: a new reference, or NULL with an exception set. */
static reader *reader_of(state *st, PyObject *stream) {
    PyObject *half = PyObject_GetAttr(stream, st->names[NAME_NATIVE]);
    if (half != NULL && Py_IS_TYPE(half, st->reader_type)) return (reader *)half;
    if (half != NULL) PyErr_SetString(PyExc_TypeError, "StreamReader._native was replaced");
    Py_XDECREF(half);
    return NULL;
}

/* separator: borrowed, or NULL */
static PyObject *new_operation(state *st, PyObject *stream, enum read_kind kind, Py_ssize_t size,
                               PyObject *separator) {
    reader *from = reader_of(st, stream);
    read_operation *op =
        from == NULL ? NULL
                     : (read_operation *)new_awaitable(st, AWAITABLE_READ, &read_kinds[kind]);
    if (op == NULL) {
        Py_XDECREF((PyObject *)from);
        return NULL;
    }
    op->stream = Py_NewRef(stream);
    op->reader = from;
    op->separator = Py_XNewRef(separator);
    op->size = size;
    op->scanned = 0;
    op->kind = (uint8_t)kind;
    track_awaitable(st, &op->awaitable);
    return (PyObject *)op;
}

/* ---- an adopted reader: its methods ---- */

static state *stream_state(PyObject *stream) {
    return (state *)PyType_GetModuleState(Py_TYPE(stream));
}

/* The one argument, by position or by name; NULL if it is not given. What does not fit is left to
   asyncio's own method, which says what is wrong: *fits is false then. */
static PyObject *one_argument(const char *name, PyObject *const *args, Py_ssize_t count,
                              PyObject *keywords, bool *fits) {
    Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords);
    *fits =
        count + named <= 1 &&
        (named == 0 || PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), name) == 0);
    return *fits && count + named == 1 ? args[0] : NULL;
}

static PyObject *stream_read_size(PyObject *stream, enum read_kind kind, PyObject *const *args,
                                  Py_ssize_t count, PyObject *keywords) {
    state *st = stream_state(stream);
    bool fits;
    PyObject *argument;
    Py_ssize_t size = -1;
    argument = one_argument("n", args, count, keywords, &fits);
    if (argument != NULL && PyLong_CheckExact(argument)) size = PyLong_AsSsize_t(argument);
    if (size == -1) (void)clear_exception(PyExc_OverflowError);
    if (!fits || argument == NULL || (size < 0 && kind == READ_SOME) ||
        !PyLong_CheckExact(argument))
        return call_base(st->reader_functions[kind], stream, args, count, keywords);
    return new_operation(st, stream, kind, size, NULL);
}

static PyObject *stream_read(PyObject *stream, PyObject *const *args, Py_ssize_t count,
                             PyObject *keywords) {
    return stream_read_size(stream, READ_SOME, args, count, keywords);
}

static PyObject *stream_readexactly(PyObject *stream, PyObject *const *args, Py_ssize_t count,
                                    PyObject *keywords) {
    return stream_read_size(stream, READ_EXACTLY, args, count, keywords);
}

static PyObject *stream_readuntil(PyObject *stream, PyObject *const *args, Py_ssize_t count,
                                  PyObject *keywords) {
    state *st = stream_state(stream);
    bool fits;
    PyObject *separator;
    separator = one_argument("separator", args, count, keywords, &fits);
    if (!fits || (separator != NULL && !PyBytes_CheckExact(separator)))
        return call_base(st->reader_functions[READ_UNTIL], stream, args, count, keywords);
    return new_operation(st, stream, READ_UNTIL, -1, separator ? separator : st->newline);
}

static PyObject *stream_readline(PyObject *stream, PyObject *const *args, Py_ssize_t count,
                                 PyObject *keywords) {
    state *st = stream_state(stream);
    if (count > 0 || keywords != NULL)
        return call_base(st->reader_functions[READ_LINE], stream, args, count, keywords);
    return new_operation(st, stream, READ_LINE, -1, st->newline);
}

static const method_definition stream_methods[] = {{"read", stream_read},
                                                   {"readexactly", stream_readexactly},
                                                   {"readuntil", stream_readuntil},
                                                   {"readline", stream_readline},
                                                   {NULL, NULL}};

/* ---- an adopted reader: its attributes ---- */

static PyObject *reader_get(reader *self, enum name attribute) {
    switch (attribute) {
    case NAME_READER_BUFFER:
        return reader_take_back(self) < 0 ? NULL : Py_NewRef(self->buffer);
    case NAME_READER_WAITER:
        return Py_NewRef(self->waiter);
    case NAME_READER_EXCEPTION:
        return Py_NewRef(self->exception);
    case NAME_READER_TRANSPORT:
        return Py_NewRef(self->transport);
    case NAME_READER_LOOP:
        return Py_NewRef((PyObject *)self->loop);
    case NAME_READER_LIMIT:
        return PyLong_FromSsize_t(self->limit);
    case NAME_READER_EOF:
        return PyBool_FromLong(self->eof);
    default:
        return PyBool_FromLong(self->paused);
    }
}

static int reader_set_flag(bool *flag, PyObject *value) {
    int truth = PyObject_IsTrue(value);
    if (truth >= 0) *flag = truth;
    return truth < 0 ? -1 : 0;
}

static int reader_set_limit(reader *self, PyObject *value) {
    Py_ssize_t limit = PyNumber_AsSsize_t(value, PyExc_OverflowError);
    if (limit == -1 && PyErr_Occurred()) return -1;
    self->limit = limit;
    return 0;
}

/* A value of the type that it must have; NULL, with an exception set, if it has another. */
static PyObject *reader_require(PyObject *value, PyTypeObject *type, enum name attribute) {
    if (PyObject_TypeCheck(value, type)) return Py_NewRef(value);
    PyErr_Format(PyExc_TypeError, "StreamReader.%s of a casync loop must be a %s, not %s",
                 name_texts[attribute], type->tp_name, Py_TYPE(value)->tp_name);
    return NULL;
}

/* `value` as what asyncio keeps in the attribute: 0, or -1 with an exception set. */
static int reader_set(reader *self, enum name attribute, PyObject *value, state *st) {
    PyObject *checked;
    switch (attribute) {
    case NAME_READER_BUFFER:
        checked = reader_require(value, &PyByteArray_Type, attribute);
        if (checked != NULL) Py_CLEAR(self->handed);
        if (checked != NULL) Py_XSETREF(self->buffer, checked);
        return checked == NULL ? -1 : 0;
    case NAME_READER_WAITER:
        reader_set_waiter(self, value);
        return 0;
    case NAME_READER_EXCEPTION:
        Py_XSETREF(self->exception, Py_NewRef(value));
        return 0;
    case NAME_READER_TRANSPORT:
        Py_XSETREF(self->transport, Py_NewRef(value));
        return 0;
    case NAME_READER_LOOP:
        checked = reader_require(value, st->loop_type, attribute);
        if (checked != NULL) Py_XSETREF(self->loop, (loop *)checked);
        return checked == NULL ? -1 : 0;
    case NAME_READER_LIMIT:
        return reader_set_limit(self, value);
    case NAME_READER_EOF:
        return reader_set_flag(&self->eof, value);
    default:
        return reader_set_flag(&self->paused, value);
    }
}

static PyObject *stream_get(PyObject *stream, void *attribute) {
    reader *self = reader_of(stream_state(stream), stream);
    LOCK_READER(self);
    PyObject *value = self == NULL ? NULL : reader_get(self, (enum name)(uintptr_t)attribute);
    Py_XDECREF((PyObject *)self);
    return value;
}

static int stream_set(PyObject *stream, PyObject *value, void *attribute) {
    state *st = stream_state(stream);
    reader *self = reader_of(st, stream);
    LOCK_READER(self);
    int result = -1;
    if (self == NULL) return -1;
    if (value == NULL)
        PyErr_SetString(PyExc_AttributeError, "a StreamReader's attributes cannot be deleted");
    else
        result = reader_set(self, (enum name)(uintptr_t)attribute, value, st);
    Py_DECREF((PyObject *)self);
    return result;
}

#define READER_GETSET(name, attribute)                                                             \
    { name, stream_get, stream_set, NULL, (void *)attribute }

static PyGetSetDef stream_getsets[] = {
    READER_GETSET("_buffer", NAME_READER_BUFFER),
    READER_GETSET("_waiter", NAME_READER_WAITER),
    READER_GETSET("_exception", NAME_READER_EXCEPTION),
    READER_GETSET("_transport", NAME_READER_TRANSPORT),
    READER_GETSET("_loop", NAME_READER_LOOP),
    READER_GETSET("_limit", NAME_READER_LIMIT),
    READER_GETSET("_eof", NAME_READER_EOF),
    READER_GETSET("_paused", NAME_READER_PAUSED),
    {NULL, NULL, NULL, NULL, NULL},
};

static int stream_setattro(PyObject *stream, PyObject *name, PyObject *value);

/* One that was released keeps its native half: asyncio's methods work on that by the attributes. */
static PyType_Slot released_slots[] = {
    {Py_tp_doc, "This asyncio.StreamReader keeps its attributes in C."},
    {Py_tp_getset, stream_getsets},
    {Py_tp_setattro, stream_setattro},
    {0, NULL},
};

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, "This asyncio.StreamReader keeps its attributes in C, and reads in C."},
    {0, NULL},
};

/* They add nothing to the base, so that an object of that may become one of them. */
static PyType_Spec released_spec = {"casync._native.ReleasedStreamReader", 0, 0,
                                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, released_slots};
static PyType_Spec stream_spec = {"casync._native.StreamReader", 0, 0, Py_TPFLAGS_DEFAULT,
                                  stream_slots};

/* ---- an adopted reader: its native half ---- */

static void feed_close(reader_feed *feed) {
    reader *self = feed->reader;
    if (self == NULL) return;
    self->feed = NULL;
    feed->reader = NULL;
    Py_DECREF((PyObject *)self);
}

static int reader_traverse(reader *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->waiter);
    Py_VISIT(self->exception);
    Py_VISIT(self->transport);
    Py_VISIT(self->loop);
    return 0;
}

/* What an operation that still waits looks at stays. */
static int reader_clear(reader *self) {
    reader_set_waiter(self, Py_None);
    Py_XSETREF(self->exception, Py_NewRef(Py_None));
    Py_XSETREF(self->transport, Py_NewRef(Py_None));
    return 0;
}

static void reader_dealloc(reader *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->buffer);
    Py_XDECREF(self->handed);
    Py_XDECREF(self->waiter);
    Py_XDECREF(self->exception);
    Py_XDECREF(self->transport);
    Py_XDECREF(self->loop);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, "This object holds the attributes of a StreamReader in C."},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    "casync._native.Reader", sizeof(reader), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, reader_slots};

/* A native half with the values that the attributes have now; NULL, with an exception set, if one
   has a type that it cannot have. */
static reader *reader_new(state *st, PyObject *stream) {
    reader *self = (reader *)st->reader_type->tp_alloc(st->reader_type, 0);
    for (int i = NAME_READER_BUFFER; i <= NAME_READER_PAUSED && self != NULL; i++) {
        PyObject *value = PyObject_GetAttr(stream, st->names[i]);
        if (value == NULL || reader_set(self, (enum name)i, value, st) < 0) Py_CLEAR(self);
        Py_XDECREF(value);
    }
    return self;
}
