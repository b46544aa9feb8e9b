/* What Python sees of transports: their attributes, and the tables of their types.

   Invariants: the tables of all kinds are made from the macros here, in this file, pipe.c and
   datagram.c. Names that begin with an underscore are those that asyncio's own code and tests
   read. */

/* ---- attributes ---- */

static PyObject *transport_get_sock(transport *self, void *Py_UNUSED(closure)) {
    LOCK_TRANSPORT(self);
    PyObject *sock;
    if (self->fd < 0) Py_RETURN_NONE;
    sock = transport_socket(self, (state *)PyType_GetModuleState(Py_TYPE(self)));
    return sock == NULL && !PyErr_Occurred() ? Py_NewRef(Py_None) : sock;
}

static PyObject *transport_get_sock_fd(transport *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLong(self->sock_fd);
}

static PyObject *transport_get_loop(transport *self, void *Py_UNUSED(closure)) {
    LOCK_TRANSPORT(self);
    return Py_NewRef(self->loop == NULL ? Py_None : (PyObject *)self->loop);
}

static PyObject *transport_get_protocol_attribute(transport *self, void *Py_UNUSED(closure)) {
    return transport_get_protocol(self, NULL);
}

static PyObject *transport_get_server(transport *self, void *Py_UNUSED(closure)) {
    LOCK_TRANSPORT(self);
    return Py_NewRef(self->server == NULL ? Py_None : self->server);
}

static PyObject *transport_get_extra(transport *self, void *Py_UNUSED(closure)) {
    LOCK_TRANSPORT(self);
    if (self->extra == NULL)
        PyErr_Format(PyExc_AttributeError, "'%s' object has no attribute '_extra'",
                     Py_TYPE(self)->tp_name);
    return Py_XNewRef(self->extra);
}

static int transport_set_extra(transport *self, PyObject *value, void *Py_UNUSED(closure)) {
    LOCK_TRANSPORT(self);
    Py_XSETREF(self->extra, Py_XNewRef(value));
    return 0;
}

static PyObject *transport_get_flag(transport *self, void *flag) {
    return PyBool_FromLong(self->flags & (uint16_t)(uintptr_t)flag);
}

static PyObject *transport_get_conn_lost(transport *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLong(self->lost_writes);
}

static PyObject *transport_get_limit(transport *self, void *which) {
    PyObject *limits = transport_get_write_buffer_limits(self, NULL), *limit;
    if (limits == NULL) return NULL;
    limit = Py_NewRef(PyTuple_GET_ITEM(limits, (Py_ssize_t)(uintptr_t)which));
    Py_DECREF(limits);
    return limit;
}

/* As asyncio's _SelectorTransport.__repr__, with `size` bytes to send. */
static PyObject *polling_repr(transport *self, size_t size) {
    LOCK_TRANSPORT(self);
    const char *state_text = self->fd < 0                    ? " closed"
                             : transport_shows_closing(self) ? " closing"
                                                             : "";
    bool reads =
        self->flags & TRANSPORT_STARTED && !(self->flags & (TRANSPORT_CLOSING | TRANSPORT_PAUSED));
    if (self->loop == NULL || !(self->flags & TRANSPORT_OPEN)) /* or its loop is closed */
        return PyUnicode_FromFormat("<%s%s fd=%d>", Py_TYPE(self)->tp_name, state_text,
                                    self->sock_fd);
    return PyUnicode_FromFormat("<%s%s fd=%d read=%s write=<%s, bufsize=%zu>>",
                                Py_TYPE(self)->tp_name, state_text, self->sock_fd,
                                reads ? "polling" : "idle", size > 0 ? "polling" : "idle", size);
}

static PyObject *transport_repr(transport *self) {
    return polling_repr(self, self->fd < 0 ? 0 : self->stream.out.size);
}

/* ---- methods ---- */

/* As asyncio's, by position or by name. */
#define ONE_ARGUMENT_METHOD(function, method, name)                                                \
    static PyObject *function##_method(transport *self, PyObject *const *args, Py_ssize_t count,   \
                                       PyObject *keywords) {                                       \
        PyObject *argument = only_argument(method, name, args, count, keywords);                   \
        return argument == NULL ? NULL : function(self, argument);                                 \
    }

ONE_ARGUMENT_METHOD(transport_write, "write", "data")
ONE_ARGUMENT_METHOD(transport_writelines, "writelines", "list_of_data")
ONE_ARGUMENT_METHOD(transport_set_protocol, "set_protocol", "protocol")

#define BASE_METHODS                                                                               \
    {"_start", (PyCFunction)transport_start, METH_O, NULL},                                        \
        {"is_closing", (PyCFunction)transport_is_closing, METH_NOARGS,                             \
         "Returns whether the transport is closing or closed."},                                   \
        {"close", (PyCFunction)transport_close, METH_NOARGS,                                       \
         "Closes the transport after what is buffered has been sent. Then the loop calls "         \
         "the protocol's connection_lost(None)."},                                                 \
        {"set_protocol", FASTCALL(transport_set_protocol_method), METH_FASTCALL | METH_KEYWORDS,   \
         "set_protocol($self, protocol)\n--\n\nGives the transport another protocol."},            \
    {                                                                                              \
        "get_protocol", (PyCFunction)transport_get_protocol, METH_NOARGS,                          \
            "Returns the transport's protocol."                                                    \
    }

#define READ_METHODS                                                                               \
    {"pause_reading", (PyCFunction)transport_pause_reading, METH_NOARGS,                           \
     "Stops reading, and with it the calls of the protocol's data_received()."},                   \
        {"resume_reading", (PyCFunction)transport_resume_reading, METH_NOARGS,                     \
         "Starts reading again after pause_reading()."},                                           \
    {                                                                                              \
        "is_reading", (PyCFunction)transport_is_reading, METH_NOARGS,                              \
            "Returns whether the transport reads."                                                 \
    }

#define WRITE_METHODS                                                                              \
    {"write", FASTCALL(transport_write_method), METH_FASTCALL | METH_KEYWORDS,                     \
     "write($self, data)\n--\n\nSends `data`. What the kernel does not take now, the "             \
     "transport buffers. Never blocks. Raises TypeError if `data` is not bytes-like, "             \
     "and RuntimeError after write_eof() or during a sendfile."},                                  \
        {"writelines", FASTCALL(transport_writelines_method), METH_FASTCALL | METH_KEYWORDS,       \
         "writelines($self, list_of_data)\n--\n\nDoes what write() does, for each of an "          \
         "iterable of bytes-like objects."},                                                       \
        {"can_write_eof", (PyCFunction)transport_can_write_eof, METH_NOARGS,                       \
         "Returns True: the transport has write_eof()."},                                          \
        {"get_write_buffer_size", (PyCFunction)transport_get_write_buffer_size, METH_NOARGS,       \
         "Returns the number of bytes that are buffered and not sent yet."},                       \
        {"get_write_buffer_limits", (PyCFunction)transport_get_write_buffer_limits, METH_NOARGS,   \
         "Returns (low, high), in bytes: the buffer sizes at which the protocol's "                \
         "resume_writing() and pause_writing() are called."},                                      \
        {"set_write_buffer_limits",                                                                \
         (PyCFunction)(void (*)(void))transport_set_write_buffer_limits,                           \
         METH_VARARGS | METH_KEYWORDS,                                                             \
         "Sets the buffer sizes, in bytes, at which the protocol's pause_writing() (above "        \
         "`high`) and resume_writing() (at `low` or below) are called. Raises ValueError "         \
         "unless high >= low >= 0."},                                                              \
    {                                                                                              \
        "abort", (PyCFunction)transport_abort, METH_NOARGS,                                        \
            "Closes the transport at once, and drops what is buffered. The loop then calls "       \
            "the protocol's connection_lost(None)."                                                \
    }

static PyMethodDef socket_transport_methods[] = {
    BASE_METHODS,
    READ_METHODS,
    WRITE_METHODS,
    {"write_eof", (PyCFunction)transport_write_eof, METH_NOARGS,
     "Ends the sending direction after what is buffered has been sent; the peer then "
     "reads the end of the stream. Raises OSError."},
    {"get_extra_info", (PyCFunction)(void (*)(void))transport_get_extra_info,
     METH_VARARGS | METH_KEYWORDS,
     "get_extra_info(name, default=None): returns what the transport knows by that "
     "name, such as 'socket', 'sockname' or 'peername', or else `default`."},
    {"_tell_eof", (PyCFunction)transport_tell_eof, METH_NOARGS, NULL},
    {"_force_close", (PyCFunction)transport_force_close_method, METH_O, NULL},
    {"_make_empty_waiter", (PyCFunction)transport_make_empty_waiter, METH_NOARGS, NULL},
    {"_make_lost_waiter", (PyCFunction)transport_make_lost_waiter, METH_NOARGS, NULL},
    {"_reset_empty_waiter", (PyCFunction)transport_reset_empty_waiter, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* ---- the type ---- */

#define BASE_GETSETS                                                                               \
    {"_extra", (getter)transport_get_extra, (setter)transport_set_extra, NULL, NULL},              \
        {"_loop", (getter)transport_get_loop, NULL, NULL, NULL},                                   \
        {"_protocol", (getter)transport_get_protocol_attribute, NULL, NULL, NULL},                 \
        {"_closing", (getter)transport_get_flag, NULL, NULL, (void *)TRANSPORT_CLOSING},           \
        {"_paused", (getter)transport_get_flag, NULL, NULL, (void *)TRANSPORT_PAUSED},             \
        {"_protocol_paused", (getter)transport_get_flag, NULL, NULL,                               \
         (void *)TRANSPORT_PROTOCOL_PAUSED},                                                       \
        {"_conn_lost", (getter)transport_get_conn_lost, NULL, NULL, NULL},                         \
        {"_high_water", (getter)transport_get_limit, NULL, NULL, (void *)1},                       \
        {"_low_water", (getter)transport_get_limit, NULL, NULL, (void *)0}, {                      \
        "__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL                   \
    }

static PyGetSetDef socket_transport_getsets[] = {
    BASE_GETSETS,
    {"_sock", (getter)transport_get_sock, NULL, NULL, NULL},
    {"_sock_fd", (getter)transport_get_sock_fd, NULL, NULL, NULL},
    {"_server", (getter)transport_get_server, NULL, NULL, NULL},
    {"_eof", (getter)transport_get_flag, NULL, NULL, (void *)TRANSPORT_EOF},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef transport_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(transport, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(transport, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define BASE_SLOTS                                                                                 \
    {Py_tp_dealloc, transport_dealloc}, {Py_tp_finalize, transport_finalize},                      \
        {Py_tp_traverse, transport_traverse}, {Py_tp_clear, transport_clear}, {                    \
        Py_tp_members, transport_members                                                           \
    }

#define TRANSPORT_SPEC(name, size, slots)                                                          \
    {                                                                                              \
        name, size, 0,                                                                             \
            Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots     \
    }

static PyType_Slot socket_transport_slots[] = {
    BASE_SLOTS,
    {Py_tp_doc, "This transport sends and receives bytes through a casync_stream."},
    {Py_tp_repr, transport_repr},
    {Py_tp_methods, socket_transport_methods},
    {Py_tp_getset, socket_transport_getsets},
    {0, NULL},
};

static PyType_Spec socket_transport_spec =
    TRANSPORT_SPEC("casync._native.SocketTransport", STREAM_TRANSPORT_SIZE, socket_transport_slots);
