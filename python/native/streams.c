/* Streams: asyncio's StreamReader, fed and read natively.

   Idea: where a transport's protocol is asyncio's own StreamReaderProtocol with asyncio's own
   StreamReader, neither patched nor derived from, bytes go from the socket to the reader without a
   Python call, and the reader is adopted: its class becomes a subclass without slots, whose read
   methods give a `read_operation`, an awaitable in C, in place of a coroutine. The reader's state stays
   where asyncio has it, in the object's own attributes; so whoever looks at these, and asyncio's own
   methods, find what they expect.

   Invariants: a transport's feed knows the operation that waits for it (both borrowed; whoever goes first
   tells the other), and may hand it bytes that never were in the buffer. An operation that is cancelled
   before it could return them puts them back.

   Costs: a read that waits is one operation, one future and one handle; a message is copied once if a
   read() waits for it, else twice. */

enum read_kind { READ_SOME, READ_EXACTLY, READ_UNTIL, READ_LINE };

static const char *const read_names[] = {"read", "readexactly", "readuntil", "readline"};

typedef struct read_operation {
    awaitable awaitable;
    PyObject *reader;
    PyObject *separator; /* bytes; of READ_UNTIL and READ_LINE */
    Py_ssize_t size;
    Py_ssize_t scanned; /* bytes of the buffer where no separator begins */
    PyObject *handed;   /* bytes that the feed gave, or NULL */
    reader_feed *feed;  /* that may hand bytes over, or NULL */
    uint8_t kind;
    bool woken; /* by the feed, which has reset `_waiter` */
} read_operation;

/* The attributes of a reader that an operation looks at again and again. */
typedef struct {
    PyObject *buffer; /* a new reference to a bytearray */
    bool eof;
} reader_view;

static int get_flag(PyObject *object, PyObject *name) {
    PyObject *value = PyObject_GetAttr(object, name);
    int truth = value == NULL ? -1 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    return truth;
}

static int view_reader(state *st, PyObject *reader, reader_view *view) {
    int eof = get_flag(reader, st->names[NAME_EOF]);
    view->buffer = eof < 0 ? NULL : PyObject_GetAttr(reader, st->names[NAME_BUFFER]);
    if (view->buffer == NULL) return -1;
    if (!PyByteArray_Check(view->buffer)) {
        PyErr_Format(PyExc_TypeError, "StreamReader._buffer is %s, not bytearray",
                     Py_TYPE(view->buffer)->tp_name);
        Py_CLEAR(view->buffer);
        return -1;
    }
    view->eof = eof;
    return 0;
}

static Py_ssize_t reader_limit(state *st, PyObject *reader) {
    PyObject *value = PyObject_GetAttr(reader, st->names[NAME_LIMIT]);
    Py_ssize_t limit = value == NULL ? -1 : PyNumber_AsSsize_t(value, NULL);
    Py_XDECREF(value);
    return limit;
}

/* Removes the first bytes of a bytearray: 0, or -1 with an exception set. */
static int drop_front(PyObject *buffer, Py_ssize_t size) {
    if (size == PyByteArray_GET_SIZE(buffer)) return PyByteArray_Resize(buffer, 0);
    return PySequence_DelSlice(buffer, 0, size);
}

static int append_bytes(PyObject *buffer, const char *data, size_t size) {
    Py_ssize_t old = PyByteArray_GET_SIZE(buffer);
    if (PyByteArray_Resize(buffer, old + (Py_ssize_t)size) < 0) return -1;
    memcpy(PyByteArray_AS_STRING(buffer) + old, data, size);
    return 0;
}

/* `_maybe_resume_transport` if `unless_full`, else what `_wait_for_data` does. */
static int reader_resume(state *st, PyObject *reader, bool unless_full) {
    int paused = get_flag(reader, st->names[NAME_PAUSED]);
    PyObject *transport_object, *result = NULL;
    if (paused <= 0) return paused;
    if (unless_full) {
        reader_view view;
        Py_ssize_t limit = reader_limit(st, reader), size;
        if ((limit == -1 && PyErr_Occurred()) || view_reader(st, reader, &view) < 0) return -1;
        size = PyByteArray_GET_SIZE(view.buffer);
        Py_DECREF(view.buffer);
        if (size > limit) return 0;
    }
    if (PyObject_SetAttr(reader, st->names[NAME_PAUSED], Py_False) < 0) return -1;
    transport_object = PyObject_GetAttr(reader, st->names[NAME_TRANSPORT_ATTRIBUTE]);
    if (transport_object != NULL)
        result = PyObject_CallMethodNoArgs(transport_object, st->names[NAME_RESUME_READING]);
    Py_XDECREF(transport_object);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The first bytes of the buffer, taken out of it. */
static PyObject *reader_take(state *st, PyObject *reader, PyObject *buffer, Py_ssize_t size) {
    PyObject *data = PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), size);
    if (data != NULL && (drop_front(buffer, size) < 0 || reader_resume(st, reader, true) < 0)) Py_CLEAR(data);
    return data;
}

/* ---- operations ---- */

static state *reader_state(PyObject *reader) { return (state *)PyType_GetModuleState(Py_TYPE(reader)); }

/* The feed will hand this operation nothing more. */
static void operation_detach(read_operation *op) {
    if (op->feed != NULL) op->feed->operation = NULL;
    op->feed = NULL;
}

static void feed_close(reader_feed *feed) {
    if (feed->operation != NULL) operation_detach(feed->operation);
    Py_CLEAR(feed->reader);
}

/* The feed behind a reader's `_transport`; NULL if that has none. */
static reader_feed *find_feed(state *st, PyObject *object) {
    return Py_IS_TYPE(object, st->transport_types[TRANSPORT_SOCKET]) ? &((transport *)object)->feed : NULL;
}

/* If the reader is fed natively, its feed may hand bytes to the operation. */
static void operation_attach(read_operation *op, state *st) {
    PyObject *object = PyObject_GetAttr(op->reader, st->names[NAME_TRANSPORT_ATTRIBUTE]);
    reader_feed *feed = object == NULL ? NULL : find_feed(st, object);
    if (feed != NULL && feed->reader != NULL && feed->operation == NULL) {
        PyObject *fed = follow(feed->reader);
        if (fed == op->reader) {
            feed->operation = op;
            op->feed = feed;
        }
        Py_XDECREF(fed);
    }
    Py_XDECREF(object);
    PyErr_Clear();
}

static void operation_finish(awaitable *self) {
    read_operation *op = (read_operation *)self;
    operation_detach(op);
    Py_CLEAR(op->handed);
    Py_CLEAR(op->separator);
    Py_CLEAR(op->reader);
}

/* The end of a wait that brought nothing: bytes that were handed over go back to the buffer. */
static int operation_abandon(awaitable *self) {
    read_operation *op = (read_operation *)self;
    state *st = awaitable_state(self);
    int result = 0;
    if (self->waiting != NULL) {
        Py_CLEAR(self->waiting);
        result = PyObject_SetAttr(op->reader, st->names[NAME_WAITER], Py_None);
    }
    if (op->handed != NULL) {
        PyObject *buffer = PyObject_GetAttr(op->reader, st->names[NAME_BUFFER]);
        if (buffer == NULL || PySequence_SetSlice(buffer, 0, 0, op->handed) < 0) result = -1;
        Py_XDECREF(buffer);
    }
    return result;
}

/* asyncio's IncompleteReadError for all that is in the buffer, which is emptied. */
static int raise_incomplete(state *st, PyObject *buffer, PyObject *expected) {
    PyObject *partial =
        PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), PyByteArray_GET_SIZE(buffer));
    PyObject *error = NULL;
    if (partial != NULL && PyByteArray_Resize(buffer, 0) == 0)
        error = PyObject_CallFunctionObjArgs(st->incomplete_read_error, partial, expected, NULL);
    if (error != NULL) PyErr_SetObject(st->incomplete_read_error, error);
    Py_XDECREF(partial);
    Py_XDECREF(error);
    return -1;
}

/* asyncio's LimitOverrunError; of readline its ValueError, after the line is dropped. */
static int raise_overrun(read_operation *op, state *st, PyObject *buffer, const char *message,
                         Py_ssize_t consumed, bool found) {
    PyObject *error;
    if (op->kind == READ_LINE) {
        Py_ssize_t dropped = found ? consumed + 1 : PyByteArray_GET_SIZE(buffer);
        if (drop_front(buffer, dropped) == 0 && reader_resume(st, op->reader, true) == 0)
            PyErr_SetString(PyExc_ValueError, message);
        return -1;
    }
    error = PyObject_CallFunction(st->limit_overrun_error, "sn", message, consumed);
    if (error != NULL) PyErr_SetObject(st->limit_overrun_error, error);
    Py_XDECREF(error);
    return -1;
}

/* The attempts: 1 and a result, 0 if more must come first, -1 and an exception. */

static int attempt_some(read_operation *op, state *st, reader_view *view, PyObject **result) {
    Py_ssize_t size = PyByteArray_GET_SIZE(view->buffer);
    if (size == 0 && !view->eof) return 0;
    *result = reader_take(st, op->reader, view->buffer, size < op->size ? size : op->size);
    return *result == NULL ? -1 : 1;
}

static int attempt_exactly(read_operation *op, state *st, reader_view *view, PyObject **result) {
    if (PyByteArray_GET_SIZE(view->buffer) < op->size) {
        PyObject *expected;
        int failed;
        if (!view->eof) return 0;
        expected = PyLong_FromSsize_t(op->size);
        if (expected == NULL) return -1;
        failed = raise_incomplete(st, view->buffer, expected);
        Py_DECREF(expected);
        return failed;
    }
    *result = reader_take(st, op->reader, view->buffer, op->size);
    return *result == NULL ? -1 : 1;
}

static int attempt_until(read_operation *op, state *st, reader_view *view, PyObject **result) {
    const char *separator = PyBytes_AS_STRING(op->separator);
    Py_ssize_t length = PyBytes_GET_SIZE(op->separator), size = PyByteArray_GET_SIZE(view->buffer);
    Py_ssize_t limit = reader_limit(st, op->reader);
    if (limit == -1 && PyErr_Occurred()) return -1;
    if (size - op->scanned >= length) {
        const char *start = PyByteArray_AS_STRING(view->buffer);
        const char *found = (const char *)memmem(start + op->scanned, (size_t)(size - op->scanned), separator,
                                                 (size_t)length);
        if (found != NULL) {
            if (found - start > limit)
                return raise_overrun(op, st, view->buffer,
                                     "Separator is found, but chunk is longer than limit", found - start,
                                     true);
            *result = reader_take(st, op->reader, view->buffer, found - start + length);
            return *result == NULL ? -1 : 1;
        }
        op->scanned = size + 1 - length;
        if (op->scanned > limit)
            return raise_overrun(op, st, view->buffer, "Separator is not found, and chunk exceed the limit",
                                 op->scanned, false);
    }
    if (!view->eof) return 0;
    if (op->kind == READ_UNTIL) return raise_incomplete(st, view->buffer, Py_None);
    *result = PyBytes_FromStringAndSize(PyByteArray_AS_STRING(view->buffer), size);
    return *result == NULL || PyByteArray_Resize(view->buffer, 0) < 0 ? -1 : 1;
}

static int operation_attempt(read_operation *op, state *st, PyObject **result) {
    reader_view view;
    int done;
    if (op->handed != NULL) {
        *result = op->handed;
        op->handed = NULL;
        return reader_resume(st, op->reader, true) < 0 ? -1 : 1;
    }
    if (view_reader(st, op->reader, &view) < 0) return -1;
    if (op->kind == READ_SOME)
        done = attempt_some(op, st, &view, result);
    else if (op->kind == READ_EXACTLY)
        done = attempt_exactly(op, st, &view, result);
    else
        done = attempt_until(op, st, &view, result);
    Py_DECREF(view.buffer);
    return done;
}

/* asyncio's checks before anything is done: 1 and a result, 0 to go on, -1 and an exception. */
static int operation_begin(read_operation *op, state *st, PyObject **result) {
    PyObject *exception;
    if (op->kind == READ_EXACTLY && op->size < 0) {
        PyErr_SetString(PyExc_ValueError, "readexactly size can not be less than zero");
        return -1;
    }
    if (op->separator != NULL && PyBytes_GET_SIZE(op->separator) == 0) {
        PyErr_SetString(PyExc_ValueError, "Separator should be at least one-byte string");
        return -1;
    }
    exception = PyObject_GetAttr(op->reader, st->names[NAME_EXCEPTION_ATTRIBUTE]);
    if (exception == NULL) return -1;
    if (exception != Py_None) {
        raise_exception(exception);
        return -1;
    }
    Py_DECREF(exception);
    if (op->separator != NULL || op->size != 0) return 0;
    *result = PyBytes_FromStringAndSize(NULL, 0);
    return *result == NULL ? -1 : 1;
}

/* asyncio's _wait_for_data: sets `waiting`. */
static int operation_wait(read_operation *op, state *st) {
    PyObject *const *names = st->names;
    PyObject *other = PyObject_GetAttr(op->reader, names[NAME_WAITER]), *lp, *future = NULL;
    if (other == NULL) return -1;
    Py_DECREF(other);
    if (other != Py_None) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s() called while another coroutine is already waiting for incoming data",
                     op->kind == READ_LINE ? "readuntil" : read_names[op->kind]);
        return -1;
    }
    if (reader_resume(st, op->reader, false) < 0) return -1;
    lp = PyObject_GetAttr(op->reader, names[NAME_LOOP_ATTRIBUTE]);
    if (lp != NULL) future = PyObject_CallMethodNoArgs(lp, names[NAME_CREATE_FUTURE]);
    Py_XDECREF(lp);
    if (future != NULL && PyObject_SetAttr(op->reader, names[NAME_WAITER], future) == 0)
        op->awaitable.waiting = PyObject_GetIter(future);
    Py_XDECREF(future);
    if (op->awaitable.waiting == NULL) return -1;
    op->woken = false;
    operation_attach(op, st);
    return 0;
}

/* The future that is awaited was asked: what follows from its answer. */
static PySendResult operation_waited(read_operation *op, state *st, PyObject **result) {
    PySendResult answer = PyIter_Send(op->awaitable.waiting, Py_None, result);
    if (answer == PYGEN_NEXT) return answer;
    operation_detach(op);
    Py_CLEAR(op->awaitable.waiting);
    if (answer == PYGEN_RETURN) Py_CLEAR(*result);
    if (op->woken) return answer;
    PyObject *exception = answer == PYGEN_ERROR ? take_exception() : NULL;
    if (PyObject_SetAttr(op->reader, st->names[NAME_WAITER], Py_None) < 0) answer = PYGEN_ERROR;
    if (exception != NULL) {
        PyErr_Clear();
        raise_exception(exception);
    }
    return answer;
}

static PySendResult operation_run(read_operation *op, state *st, PyObject **result) {
    for (;;) {
        int done = operation_attempt(op, st, result);
        if (done != 0) return done > 0 ? PYGEN_RETURN : PYGEN_ERROR;
        if (operation_wait(op, st) < 0) return PYGEN_ERROR;
        PySendResult answer = operation_waited(op, st, result);
        if (answer != PYGEN_RETURN) return answer;
    }
}

static PySendResult operation_step(awaitable *self, PyObject **result) {
    read_operation *op = (read_operation *)self;
    state *st = awaitable_state(self);
    PySendResult answer = PYGEN_RETURN;
    if (self->waiting == NULL) {
        int done = operation_begin(op, st, result);
        if (done != 0) return done > 0 ? PYGEN_RETURN : PYGEN_ERROR;
    } else {
        answer = operation_waited(op, st, result);
    }
    return answer == PYGEN_RETURN ? operation_run(op, st, result) : answer;
}

static const awaitable_kind read_kinds[] = {
    {"StreamReader", "read", operation_step, operation_abandon, operation_finish},
    {"StreamReader", "readexactly", operation_step, operation_abandon, operation_finish},
    {"StreamReader", "readuntil", operation_step, operation_abandon, operation_finish},
    {"StreamReader", "readline", operation_step, operation_abandon, operation_finish},
};

static int operation_traverse(read_operation *op, visitproc visit, void *arg) {
    Py_VISIT(op->reader);
    Py_VISIT(op->separator);
    return awaitable_visit(&op->awaitable, visit, arg);
}

static PyType_Slot operation_slots[] = {
    {Py_tp_doc, "What a read method of a stream returns: await it."},
    {Py_tp_traverse, operation_traverse},
    AWAITABLE_SLOTS,
    {0, NULL},
};

static PyType_Spec operation_spec = {"casync._native.ReadOperation", sizeof(read_operation), 0,
                                     AWAITABLE_FLAGS, operation_slots};

/* Takes the reference of the separator. */
static PyObject *new_operation(state *st, PyObject *reader, enum read_kind kind, Py_ssize_t size,
                               PyObject *separator) {
    read_operation *op = (read_operation *)new_awaitable(st->operation_type, &read_kinds[kind]);
    if (op == NULL) {
        Py_XDECREF(separator);
        return NULL;
    }
    op->reader = Py_NewRef(reader);
    op->separator = separator;
    op->size = size;
    op->scanned = 0;
    op->handed = NULL;
    op->feed = NULL;
    op->woken = false;
    op->kind = (uint8_t)kind;
    PyObject_GC_Track(op);
    return (PyObject *)op;
}

/* ---- the methods of an adopted reader ---- */

/* The one argument, by position or by name; NULL if it is not given. What does not fit is left to asyncio's
   own method, which says what is wrong: *fits is false then. */
static PyObject *one_argument(const char *name, PyObject *const *args, Py_ssize_t count, PyObject *keywords,
                              bool *fits) {
    Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords);
    *fits = count + named <= 1 &&
            (named == 0 || PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), name) == 0);
    return *fits && count + named == 1 ? args[0] : NULL;
}

static PyObject *reader_base_call(state *st, PyObject *reader, enum read_kind kind, PyObject *const *args,
                                  Py_ssize_t count, PyObject *keywords) {
    return call_base(st->reader_functions[kind], reader, args, count, keywords);
}

static PyObject *reader_read_size(PyObject *reader, enum read_kind kind, PyObject *const *args,
                                  Py_ssize_t count, PyObject *keywords) {
    state *st = reader_state(reader);
    bool fits;
    PyObject *argument;
    Py_ssize_t size = -1;
    argument = one_argument("n", args, count, keywords, &fits);
    if (argument != NULL && PyLong_CheckExact(argument)) size = PyLong_AsSsize_t(argument);
    if (size == -1) PyErr_Clear(); /* too large */
    if (!fits || argument == NULL || (size < 0 && kind == READ_SOME) || !PyLong_CheckExact(argument))
        return reader_base_call(st, reader, kind, args, count, keywords);
    return new_operation(st, reader, kind, size, NULL);
}

static PyObject *reader_read(PyObject *reader, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
    return reader_read_size(reader, READ_SOME, args, count, keywords);
}

static PyObject *reader_readexactly(PyObject *reader, PyObject *const *args, Py_ssize_t count,
                                    PyObject *keywords) {
    return reader_read_size(reader, READ_EXACTLY, args, count, keywords);
}

static PyObject *reader_readuntil(PyObject *reader, PyObject *const *args, Py_ssize_t count,
                                  PyObject *keywords) {
    state *st = reader_state(reader);
    bool fits;
    PyObject *separator;
    separator = one_argument("separator", args, count, keywords, &fits);
    if (!fits || (separator != NULL && !PyBytes_CheckExact(separator)))
        return reader_base_call(st, reader, READ_UNTIL, args, count, keywords);
    return new_operation(st, reader, READ_UNTIL, -1, Py_NewRef(separator ? separator : st->newline));
}

static PyObject *reader_readline(PyObject *reader, PyObject *Py_UNUSED(ignored)) {
    state *st = reader_state(reader);
    return new_operation(st, reader, READ_LINE, -1, Py_NewRef(st->newline));
}

static PyObject *reader_exception(PyObject *reader, PyObject *Py_UNUSED(ignored)) {
    return PyObject_GetAttr(reader, reader_state(reader)->names[NAME_EXCEPTION_ATTRIBUTE]);
}

static PyMethodDef reader_methods[] = {
    {"read", FASTCALL(reader_read), METH_FASTCALL | METH_KEYWORDS,
     "Read up to n bytes; all until the end if n is negative."},
    {"readexactly", FASTCALL(reader_readexactly), METH_FASTCALL | METH_KEYWORDS, "Read exactly n bytes."},
    {"readuntil", FASTCALL(reader_readuntil), METH_FASTCALL | METH_KEYWORDS,
     "Read up to and with a separator."},
    {"readline", (PyCFunction)reader_readline, METH_NOARGS, "Read up to and with a newline."},
    {"exception", (PyCFunction)reader_exception, METH_NOARGS, "The exception that ended the stream."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, "asyncio.StreamReader, whose read methods are native."},
    {Py_tp_methods, reader_methods},
    {0, NULL},
};

/* Adds nothing to the base, so that an object of that may become one of this. */
static PyType_Spec reader_spec = {"casync._native.StreamReader", 0, 0, Py_TPFLAGS_DEFAULT, reader_slots};

/* ---- adopting ---- */

/* Is object.name asyncio's own function? Anything else (patched, derived, replaced in the object) is not. */
static bool is_unpatched(PyObject *object, const char *name, PyObject *function) {
    PyObject *method = PyObject_GetAttrString(object, name);
    bool same = method != NULL && PyMethod_Check(method) && PyMethod_GET_FUNCTION(method) == function;
    if (method == NULL) PyErr_Clear();
    Py_XDECREF(method);
    return same;
}

/* Makes the reader's class ours; false, without an exception, if it is not asyncio's own. */
static bool adopt_reader(state *st, PyObject *reader) {
    if (Py_TYPE(reader) == st->reader_type) return true;
    if ((PyObject *)Py_TYPE(reader) != st->asyncio_reader) return false;
    for (int kind = 0; kind <= READ_LINE; kind++)
        if (!is_unpatched(reader, read_names[kind], st->reader_functions[kind])) return false;
    if (!is_unpatched(reader, "feed_data", st->reader_feed_data)) return false;
    if (!is_unpatched(reader, "_wait_for_data", st->reader_wait_for_data)) return false;
    if (!is_unpatched(reader, "exception", st->reader_exception)) return false;
    if (PyObject_SetAttrString(reader, "__class__", (PyObject *)st->reader_type) == 0) return true;
    PyErr_Clear();
    return false;
}

/* A weak reference to the reader that bytes for this protocol go to, now adopted; NULL if they go by
   protocol.data_received. Asked for every new protocol of a transport. */
static PyObject *protocol_reader(loop *lp, PyObject *protocol) {
    state *st = lp->state;
    PyObject *reference, *reader, *reader_loop = NULL;
    if (lp->debug || (PyObject *)Py_TYPE(protocol) != st->asyncio_reader_protocol) return NULL;
    if (!is_unpatched(protocol, "data_received", st->protocol_data_received)) return NULL;
    reference = PyObject_GetAttrString(protocol, "_stream_reader_wr");
    reader = reference != NULL && PyWeakref_CheckRef(reference) ? follow(reference) : NULL;
    if (reader != NULL) reader_loop = PyObject_GetAttr(reader, st->names[NAME_LOOP_ATTRIBUTE]);
    if (reader_loop != (PyObject *)lp || !adopt_reader(st, reader)) Py_CLEAR(reference);
    PyErr_Clear();
    Py_XDECREF(reader_loop);
    Py_XDECREF(reader);
    return reference;
}

static void transport_adopt_reader(transport *self) {
    Py_CLEAR(self->feed.reader);
    if (self->kind == TRANSPORT_SOCKET) self->feed.reader = protocol_reader(self->loop, self->protocol);
}

/* ---- feeding ---- */

static int reader_wake(state *st, PyObject *reader) {
    PyObject *waiter = PyObject_GetAttr(reader, st->names[NAME_WAITER]);
    int result = waiter == NULL ? -1 : 0;
    if (result == 0 && waiter != Py_None) {
        result = PyObject_SetAttr(reader, st->names[NAME_WAITER], Py_None);
        if (result == 0) result = wake_waiter(st, waiter, NAME_SET_RESULT, Py_None);
    }
    Py_XDECREF(waiter);
    return result;
}

/* Pauses the reader's transport if it has more than it wants. */
static int reader_pause_if_full(state *st, PyObject *reader, PyObject *buffer) {
    Py_ssize_t limit = reader_limit(st, reader);
    PyObject *object, *result = NULL;
    int paused;
    if (limit == -1 && PyErr_Occurred()) return -1;
    if (PyByteArray_GET_SIZE(buffer) <= 2 * limit) return 0;
    paused = get_flag(reader, st->names[NAME_PAUSED]);
    if (paused != 0) return paused < 0 ? -1 : 0;
    object = PyObject_GetAttr(reader, st->names[NAME_TRANSPORT_ATTRIBUTE]);
    if (object == Py_None) {
        Py_DECREF(object);
        return 0;
    }
    if (object != NULL) result = PyObject_CallMethodNoArgs(object, st->names[NAME_PAUSE_READING]);
    Py_XDECREF(object);
    Py_XDECREF(result);
    return result == NULL ? -1 : PyObject_SetAttr(reader, st->names[NAME_PAUSED], Py_True);
}

/* asyncio's StreamReader.feed_data, from where the bytes are. */
static int reader_feed_bytes(state *st, reader_feed *feed, PyObject *reader, PyObject *buffer,
                             casync_span span, PyObject *whole) {
    const char *data = (const char *)span.ptr;
    size_t size = span.len;
    read_operation *op = feed->operation;
    if (op != NULL && op->kind == READ_SOME && PyByteArray_GET_SIZE(buffer) == 0) {
        size_t wanted = (size_t)op->size < size ? (size_t)op->size : size;
        if (wanted == size && whole != NULL)
            op->handed = Py_NewRef(whole);
        else
            op->handed = PyBytes_FromStringAndSize(data, (Py_ssize_t)wanted);
        if (op->handed == NULL) return -1;
        data += wanted;
        size -= wanted;
    }
    if (size > 0 && append_bytes(buffer, data, size) < 0) return -1;
    if (op != NULL) {
        op->woken = true;
        operation_detach(op);
    }
    if (reader_wake(st, reader) < 0) return -1;
    return size > 0 ? reader_pause_if_full(st, reader, buffer) : 0;
}

/* Bytes for an adopted reader; `whole` (or NULL) is the bytes object that they are all of. 1: it has them; 0:
   they must go by protocol.data_received; -1: an exception is set. */
static int feed_bytes(state *st, reader_feed *feed, casync_span span, PyObject *whole) {
    PyObject *reader = feed->reader == NULL ? NULL : follow(feed->reader);
    reader_view view;
    int result = 0;
    if (reader == NULL) return 0;
    if (view_reader(st, reader, &view) < 0) {
        PyErr_Clear();
        Py_DECREF(reader);
        return 0;
    }
    if (!view.eof) result = reader_feed_bytes(st, feed, reader, view.buffer, span, whole) < 0 ? -1 : 1;
    Py_DECREF(view.buffer);
    Py_DECREF(reader);
    return result;
}

/* Bytes for the transport's reader. False if they must go by protocol.data_received. */
static bool transport_feed(transport *self, casync_span span) {
    int result = feed_bytes(self->loop->state, &self->feed, span, NULL);
    if (result < 0) transport_fatal(self, "Fatal error: protocol.data_received() call failed.");
    return result != 0;
}
