/* Writing to a stream transport: write() and writelines(), the limits of flow control, and the
   waiters of sendfile.

   Costs: a write is at most one system call. Bytes objects, and views of them, that the socket does
   not take at once are referenced, not copied. All else is copied: it may change, and to let go of
   it may run code, where a bytes object just goes. */

static void release_bytes(void *bytes) { Py_DECREF((PyObject *)bytes); }

static int raise_unwritable(PyObject *data) {
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(data), "__name__");
    if (name != NULL)
        PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not %R", name);
    Py_XDECREF(name);
    return -1;
}

/* May it be written now? 0: no, it is dropped, as asyncio does after an error; -1: an exception is
   set. */
static int transport_check_write(transport *self, const char *method) {
    if (self->flags & TRANSPORT_EOF) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()", method);
        return -1;
    }
    if (self->empty_waiter != NULL) {
        PyErr_Format(PyExc_RuntimeError, "unable to %s; sendfile is in progress", method);
        return -1;
    }
    return 1;
}

/* Is written data dropped? A socket's protocol may write while close() flushes: sslproto does. */
static bool transport_drops_writes(const transport *self) {
    return self->lost_writes > 0 || self->fd < 0 ||
           (self->kind != TRANSPORT_SOCKET && self->flags & TRANSPORT_CLOSING);
}

/* Data for a connection that is gone: asyncio warns from the fifth on. */
static int transport_drop_write(transport *self) {
    bool warns = self->lost_writes >= 5;
    transport_count_lost_write(self);
    if (!warns) return 0;
    bool pipe = self->kind == TRANSPORT_READ_PIPE || self->kind == TRANSPORT_WRITE_PIPE;
    const char *module = pipe ? "asyncio.unix_events" : "asyncio.selector_events";
    const char *message = pipe ? "pipe closed by peer or os.write(pipe, data) raised exception."
                               : "socket.send() raised exception.";
    PyObject *warning = import_attribute(module, "logger.warning"), *result = NULL;
    if (warning != NULL) result = PyObject_CallFunction(warning, "s", message);
    Py_XDECREF(warning);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* What became of a write of `size` bytes: 0, or -1 with an exception set. After an error the stream
   itself tells connection_lost. */
static int transport_written(transport *self, int64_t result, size_t size) {
    if (result == (int64_t)size) return 0;
    if (result >= 0 || result == -ENOMEM) {
        PyErr_NoMemory();
        if (result >= 0)
            transport_force_close(self, NULL); /* a part was taken: the rest has a gap before it */
        return -1;
    }
    self->flags |= TRANSPORT_CLOSING;
    transport_count_lost_write(self);
    return 0;
}

/* `bytes` (or NULL) is the bytes object that the memory is of. */
static int transport_write_memory(transport *self, const void *memory, size_t size,
                                  PyObject *bytes) {
    int64_t result;
    if (bytes == NULL || size < CASYNC_REFERENCE_MIN)
        return transport_written(self, casync_write(&self->stream, memory, size), size);
    result = casync_write_ref(&self->stream, memory, size, release_bytes, Py_NewRef(bytes));
    if (result < 0) Py_DECREF(bytes);
    return transport_written(self, result, size);
}

/* Data that the system cannot take, a memoryview with gaps, say: for asyncio an error of the
   connection, which is told in the writer's context. */
static int transport_write_failed(transport *self) {
    loop *lp = transport_hold(self);
    bool pipe = self->kind != TRANSPORT_SOCKET;
    transport_fatal_here(self, lp,
                         pipe ? "Fatal write error on pipe transport"
                              : "Fatal write error on socket transport");
    transport_let_go(self, lp);
    return 0;
}

static int transport_write_buffer(transport *self, PyObject *data) {
    Py_buffer view;
    PyObject *base = PyMemoryView_Check(data) ? PyMemoryView_GET_BASE(data) : NULL;
    int result;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return transport_write_failed(self);
    if (base != NULL && !PyBytes_CheckExact(base)) base = NULL;
    result = transport_write_memory(self, view.buf, (size_t)view.len, base);
    PyBuffer_Release(&view);
    return result;
}

static int transport_write_bytes(transport *self, PyObject *data) {
    if (!PyBytes_CheckExact(data)) return transport_write_buffer(self, data);
    return transport_write_memory(self, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data),
                                  data);
}

/* The end of a method in which TRANSPORT_CALLED was set: None, or NULL if it has failed or the
   protocol raised what ends the program. */
static PyObject *transport_return(transport *self, int result) {
    self->flags &= (uint16_t)~TRANSPORT_CALLED;
    if (result < 0 || PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *transport_write(transport *self, PyObject *data) {
    LOCK_TRANSPORT(self);
    int result;
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        raise_unwritable(data);
        return NULL;
    }
    result = transport_check_write(self, "write");
    if (result < 0) return NULL;
    if (PyObject_Size(data) == 0) Py_RETURN_NONE;
    if (PyErr_Occurred()) return NULL;
    self->flags |= TRANSPORT_CALLED;
    if (transport_drops_writes(self))
        result = transport_drop_write(self);
    else
        result = PyBytes_Check(data) ? transport_write_bytes(self, data)
                                     : transport_write_buffer(self, data);
    return transport_return(self, result);
}

/* In asyncio's words: since Python 3.12 a socket's transport takes views of the items, others join
   them. */
static void raise_unwritable_item(const transport *self, Py_ssize_t index, PyObject *item) {
    if (PY_VERSION_HEX >= 0x030C0000 && self->kind == TRANSPORT_SOCKET)
        PyErr_Format(PyExc_TypeError, "memoryview: a bytes-like object is required, not '%.200s'",
                     Py_TYPE(item)->tp_name);
    else
        PyErr_Format(PyExc_TypeError,
                     "sequence item %zd: expected a bytes-like object, %.80s found", index,
                     Py_TYPE(item)->tp_name);
}

/* Exports every item of a tuple: the number exported so far is in *count even on failure. */
static int export_items(const transport *self, PyObject *items, Py_buffer *views,
                        casync_span *spans, Py_ssize_t *count, size_t *total) {
    *total = 0;
    for (*count = 0; *count < PyTuple_GET_SIZE(items); ++*count) {
        PyObject *item = PyTuple_GET_ITEM(items, *count);
        Py_buffer *view = &views[*count];
        if (!PyObject_CheckBuffer(item)) {
            raise_unwritable_item(self, *count, item);
            return -1;
        }
        if (PyObject_GetBuffer(item, view, PyBUF_SIMPLE) < 0) return -1;
        spans[*count].ptr = view->buf;
        spans[*count].len = (size_t)view->len;
        *total += (size_t)view->len;
    }
    return 0;
}

static int transport_write_items(transport *self, PyObject *items) {
    Py_ssize_t size = PyTuple_GET_SIZE(items), count = 0;
    Py_buffer *views = PyMem_New(Py_buffer, size);
    casync_span *spans = PyMem_New(casync_span, size);
    size_t total = 0;
    int result = -1;
    if (views == NULL || spans == NULL)
        PyErr_NoMemory();
    else if (export_items(self, items, views, spans, &count, &total) == 0) {
        if (total == 0)
            result = 0;
        else if (transport_drops_writes(self))
            result = transport_drop_write(self);
        else
            result =
                transport_written(self, casync_writev(&self->stream, spans, (size_t)count), total);
    }
    while (count > 0) PyBuffer_Release(&views[--count]);
    PyMem_Free(views);
    PyMem_Free(spans);
    return result;
}

static PyObject *transport_writelines(transport *self, PyObject *lines) {
    LOCK_TRANSPORT(self);
    PyObject *items;
    int result = transport_check_write(self, "writelines");
    if (result < 0) return NULL;
    items = copy_sequence(lines);
    if (items == NULL) return NULL;
    self->flags |= TRANSPORT_CALLED;
    result = PyTuple_GET_SIZE(items) == 0 ? 0 : transport_write_items(self, items);
    Py_DECREF(items);
    return transport_return(self, result);
}

static PyObject *transport_write_eof(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    int64_t result;
    if (self->flags & (TRANSPORT_CLOSING | TRANSPORT_EOF)) Py_RETURN_NONE;
    self->flags |= TRANSPORT_EOF;
    result = casync_write_eof(&self->stream);
    if (result < 0) return raise_os_error(result);
    Py_RETURN_NONE;
}

static PyObject *transport_can_write_eof(transport *Py_UNUSED(self), PyObject *Py_UNUSED(ignored)) {
    Py_RETURN_TRUE;
}

static PyObject *transport_get_write_buffer_size(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    return PyLong_FromSize_t(self->fd < 0 ? 0 : self->stream.out.size);
}

static PyObject *transport_get_write_buffer_limits(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    write_limits limits = limits_of(self);
    if (limits.given != NULL) return Py_NewRef(limits.given);
    return Py_BuildValue("nn", (Py_ssize_t)limits.low, (Py_ssize_t)limits.high);
}

/* What is not given follows from the other, as in _FlowControlMixin: (low, high), or NULL with an
   exception set. */
static PyObject *complete_limits(PyObject *high, PyObject *low) {
    PyObject *four = PyLong_FromLong(4), *zero = PyLong_FromLong(0), *limits = NULL;
    int right = -1;
    if (high == Py_None && low == Py_None)
        high = PyLong_FromLong(65536);
    else
        high = high == Py_None ? PyNumber_Multiply(four, low) : Py_NewRef(high);
    if (high != NULL) low = low == Py_None ? PyNumber_FloorDivide(high, four) : Py_NewRef(low);
    if (high != NULL && low != NULL) right = PyObject_RichCompareBool(high, low, Py_GE);
    if (right > 0) right = PyObject_RichCompareBool(low, zero, Py_GE);
    if (right > 0) limits = PyTuple_Pack(2, low, high);
    if (right == 0)
        PyErr_Format(PyExc_ValueError, "high (%R) must be >= low (%R) must be >= 0", high, low);
    Py_XDECREF(four);
    Py_XDECREF(zero);
    if (high != NULL) Py_XDECREF(low);
    Py_XDECREF(high);
    return limits;
}

/* set_write_buffer_limits(high=None, low=None) */
static int parse_write_limits(transport *self, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"high", "low", NULL};
    PyObject *high_object = Py_None, *low_object = Py_None, *given;
    Py_ssize_t high, low;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:set_write_buffer_limits", keywords,
                                     &high_object, &low_object))
        return -1;
    given = complete_limits(high_object, low_object);
    if (given == NULL) return -1;
    if (parse_limit(PyTuple_GET_ITEM(given, 0), &low) < 0 ||
        parse_limit(PyTuple_GET_ITEM(given, 1), &high) < 0) {
        Py_DECREF(given);
        return -1;
    }
    if (self->limits == NULL)
        self->limits = PyMem_New(write_limits, 1);
    else
        Py_DECREF(self->limits->given);
    if (self->limits == NULL) {
        Py_DECREF(given);
        PyErr_NoMemory();
        return -1;
    }
    self->limits->high = (size_t)high;
    self->limits->low = (size_t)low;
    self->limits->given = given;
    return 0;
}

static PyObject *transport_set_write_buffer_limits(transport *self, PyObject *args,
                                                   PyObject *kwargs) {
    LOCK_TRANSPORT(self);
    if (parse_write_limits(self, args, kwargs) < 0) return NULL;
    self->flags |= TRANSPORT_CALLED;
    if (self->fd >= 0 && !(self->flags & (TRANSPORT_EMPTYING | TRANSPORT_FLUSHING)))
        transport_apply_limits(self);
    return transport_return(self, 0);
}

/* _make_empty_waiter(): a future that is done when nothing is left to send; for sendfile. */
static PyObject *transport_make_empty_waiter(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    state *st = (state *)PyType_GetModuleState(Py_TYPE(self));
    PyObject *waiter;
    if (self->empty_waiter != NULL)
        return PyErr_Format(PyExc_RuntimeError, "Empty waiter is already set");
    if (self->fd < 0) return PyErr_Format(PyExc_RuntimeError, "the transport is closed");
    waiter = loop_create_future(self->loop, NULL);
    if (waiter == NULL) return NULL;
    Py_XSETREF(self->empty_waiter, Py_NewRef(waiter));
    if (self->stream.out.size > 0) {
        self->flags |= TRANSPORT_EMPTYING;
        casync_set_write_limits(&self->stream, 0, 0);
    } else if (wake_waiter(st, waiter, NAME_SET_RESULT, Py_None) < 0) {
        Py_CLEAR(waiter);
    }
    return waiter;
}

/* _make_lost_waiter(): in the empty waiter's place, once that is done, a future that ends when the
   connection does. */
static PyObject *transport_make_lost_waiter(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    PyObject *waiter;
    if (self->loop == NULL) return PyErr_Format(PyExc_ConnectionError, LOST_MESSAGE);
    waiter = loop_create_future(self->loop, NULL);
    if (waiter != NULL) Py_XSETREF(self->empty_waiter, Py_NewRef(waiter));
    return waiter;
}

static PyObject *transport_reset_empty_waiter(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    Py_CLEAR(self->empty_waiter);
    if (self->flags & TRANSPORT_EMPTYING && self->fd >= 0) {
        self->flags &= (uint16_t)~TRANSPORT_EMPTYING;
        if (!(self->flags & TRANSPORT_FLUSHING)) transport_apply_limits(self);
    }
    Py_RETURN_NONE;
}
