/* ReadPipeTransport and WritePipeTransport: asyncio's transports for pipes, terminals, and the
   like.

   Idea: the transport of transport.c, with the differences that asyncio's pipes have from its
   sockets: what a protocol's data_received raises is reported and the pipe stays open; the end of
   what is read always closes; writes after close() are dropped; and the writing end is closed when
   the reading end goes, which shows as readiness to read (asyncio/unix_events.py).

   Invariants: the file object closes the descriptor. epoll and casync.h know a descriptor number
   once, and asyncio lets one pipe be read by one transport and written by another (a terminal,
   say): the second has a duplicate of the descriptor. What epoll does not take (/dev/null) is left
   to asyncio's own transports, which write to it directly. */

/* Tells of the exception that is set, which ends the run if it ends the program. */
static void pipe_report(transport *self, loop *lp, const char *message) {
    PyObject *exception = take_exception();
    if (ends_program(exception))
        loop_end_run(lp, exception);
    else
        transport_report(self, lp, message, exception);
}

static void on_pipe_data(casync_stream *stream, casync_span span) {
    transport *self = transport_of(stream);
    loop *lp = transport_hold(self);
    PyObject *data = PyBytes_FromStringAndSize((const char *)span.ptr, (Py_ssize_t)span.len);
    PyObject *result = data == NULL ? NULL : transport_call(self, lp, NAME_DATA_RECEIVED, data);
    if (result == NULL) transport_report_method(self, lp, "_read_ready", NULL);
    Py_XDECREF(result);
    Py_XDECREF(data);
    transport_let_go(self, lp);
}

static bool on_pipe_eof(casync_stream *stream) {
    transport *self = transport_of(stream);
    loop *lp = transport_hold(self);
    PyObject *callback = PyObject_GetAttr(self->protocol, lp->state->names[NAME_EOF_RECEIVED]);
    PyObject *result = callback == NULL ? NULL : transport_call(self, lp, NAME_EOF_RECEIVED, NULL);
    if (result == NULL && callback == NULL)
        transport_report_method(self, lp, "_read_ready", NULL);
    else if (result == NULL)
        transport_report_callback(lp, Py_NewRef(callback), NULL);
    Py_XDECREF(callback);
    Py_XDECREF(result);
    transport_begin_close(self);
    transport_let_go(self, lp);
    return true;
}

/* EIO is how the master side of a terminal learns that the other has gone. */
static void on_pipe_lost(casync_stream *stream, int64_t error) {
    transport *self = transport_of(stream);
    loop *lp = transport_hold(self);
    if (error < 0 && error != -EIO && self->exception == NULL)
        transport_report(self, lp, "Fatal read error on pipe transport", make_os_error(error));
    if (self->loop != NULL) transport_lost(self, error);
    transport_let_go(self, lp);
}

/* The reader has gone, or speaks where it should listen. */
static void writer_closed_by_peer(transport *self) {
    if (self->stream.out.size > 0)
        transport_force_close(self, make_os_error(-EPIPE));
    else
        transport_force_close(self, NULL);
}

static void on_writer_data(casync_stream *stream, casync_span Py_UNUSED(span)) {
    writer_closed_by_peer(transport_of(stream));
}

static bool on_writer_eof(casync_stream *stream) {
    writer_closed_by_peer(transport_of(stream));
    return true;
}

static const casync_protocol pipe_reader_protocol = {NULL,        on_pipe_data, NULL, NULL,
                                                     on_pipe_eof, NULL,         NULL, on_pipe_lost};

/* casync.h looks after the reader of a pipe; that of a socket shows in what can be read. */
static const casync_protocol pipe_writer_protocol = {
    NULL, NULL, NULL, NULL, NULL, on_pause_writing, on_resume_writing, on_connection_lost};

static const casync_protocol socket_writer_protocol = {NULL,
                                                       on_writer_data,
                                                       NULL,
                                                       NULL,
                                                       on_writer_eof,
                                                       on_pause_writing,
                                                       on_resume_writing,
                                                       on_connection_lost};

static const casync_protocol *pipe_protocol(enum transport_kind kind, int fd) {
    struct stat status;
    if (kind == TRANSPORT_READ_PIPE) return &pipe_reader_protocol;
    return fd >= 0 && fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode) ? &socket_writer_protocol
                                                                          : &pipe_writer_protocol;
}

/* As transport_open, over a duplicate of the descriptor. */
static transport *pipe_open_copy(loop *lp, enum transport_kind kind, int fd, PyObject *pipe,
                                 PyObject *protocol, PyObject *extra, int64_t *error) {
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    transport *self;
    if (copy < 0) {
        *error = -errno;
        return (transport *)raise_os_error(*error);
    }
    self = transport_open(lp, kind, copy, pipe, protocol, extra, NULL, error);
    if (self == NULL) {
        close(copy);
        return NULL;
    }
    self->flags |= TRANSPORT_COPY;
    self->sock_fd = fd;
    return self;
}

/* As transport_open. Whether programs that are started inherit the descriptor is its owner's
   business. */
static transport *pipe_open(loop *lp, enum transport_kind kind, int fd, PyObject *pipe,
                            PyObject *protocol, PyObject *extra, int64_t *error) {
    int inherited = fcntl(fd, F_GETFD);
    transport *self = transport_open(lp, kind, fd, pipe, protocol, extra, NULL, error);
    if (self == NULL && *error == -EEXIST && clear_exception(PyExc_OSError))
        self = pipe_open_copy(lp, kind, fd, pipe, protocol, extra, error);
    if (inherited >= 0) (void)fcntl(fd, F_SETFD, inherited);
    return self;
}

/* _make_read_pipe_transport(pipe, protocol, waiter=None, extra=None), of the loop; and so for
   writing */
static PyObject *make_pipe_transport(loop *lp, enum transport_kind kind, PyObject *args,
                                     PyObject *kwargs) {
    LOCK_LOOP(lp);
    static char *keywords[] = {"pipe", "protocol", "waiter", "extra", NULL};
    PyObject *pipe, *protocol, *waiter = Py_None, *extra = Py_None, *info;
    PyObject *base = lp->state->base_make_pipe_transport[kind == TRANSPORT_WRITE_PIPE];
    transport *self;
    int64_t error;
    int fd;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OO:_make_pipe_transport", keywords, &pipe,
                                     &protocol, &waiter, &extra))
        return NULL;
    if (lp->closed) return raise_closed();
    if (!has_descriptor(pipe)) return call_base_method(base, (PyObject *)lp, args, kwargs);
    fd = parse_fd(lp->state, pipe);
    if (fd < 0) return NULL;
    info = extra == Py_None ? PyDict_New() : PyDict_Copy(extra);
    if (info == NULL || PyDict_SetItem(info, lp->state->names[NAME_PIPE], pipe) < 0) {
        Py_XDECREF(info);
        return NULL;
    }
    self = pipe_open(lp, kind, fd, pipe, protocol, info, &error);
    Py_DECREF(info);
    if (self == NULL && error == -EPERM && clear_exception(PyExc_OSError))
        return call_base_method(base, (PyObject *)lp, args, kwargs);
    return self == NULL ? NULL : (PyObject *)transport_begin(self, waiter);
}

static PyObject *loop_make_read_pipe_transport(loop *self, PyObject *args, PyObject *kwargs) {
    return make_pipe_transport(self, TRANSPORT_READ_PIPE, args, kwargs);
}

static PyObject *loop_make_write_pipe_transport(loop *self, PyObject *args, PyObject *kwargs) {
    return make_pipe_transport(self, TRANSPORT_WRITE_PIPE, args, kwargs);
}

static PyObject *pipe_get_file(transport *self, void *Py_UNUSED(closure)) {
    LOCK_TRANSPORT(self);
    return Py_NewRef(self->fd < 0 || self->sock == NULL ? Py_None : self->sock);
}

/* `_pipe = None`: the transport forgets the pipe, which its owner closes. asyncio's own tests do
   that. */
static int pipe_set_file(transport *self, PyObject *value, void *Py_UNUSED(closure)) {
    LOCK_TRANSPORT(self);
    if (value != Py_None) {
        PyErr_SetString(PyExc_AttributeError, "_pipe can only be set to None");
        return -1;
    }
    transport_close_stream(self);
    Py_CLEAR(self->sock);
    transport_forget_fd(self);
    return 0;
}

/* <type state fd=number what>; "open" is a pipe that its loop left behind when it was closed */
static PyObject *pipe_repr(transport *self, const char *what) {
    LOCK_TRANSPORT(self);
    bool left = self->fd >= 0 && self->flags & TRANSPORT_LEFT;
    bool closing = transport_shows_closing(self);
    return PyUnicode_FromFormat("<%s%s fd=%d %s>", Py_TYPE(self)->tp_name,
                                self->fd < 0 ? " closed"
                                : closing    ? " closing"
                                             : "",
                                self->sock_fd,
                                self->fd < 0 ? "closed"
                                : left       ? "open"
                                             : what);
}

static PyObject *read_pipe_repr(transport *self) {
    return pipe_repr(self,
                     self->flags & (TRANSPORT_CLOSING | TRANSPORT_PAUSED) ? "idle" : "polling");
}

static PyObject *write_pipe_repr(transport *self) {
    char what[64];
    size_t size = self->fd < 0 ? 0 : self->stream.out.size;
    snprintf(what, sizeof what, "%s bufsize=%zu", size > 0 ? "polling" : "idle", size);
    return pipe_repr(self, what);
}

static PyMethodDef read_pipe_methods[] = {
    BASE_METHODS,
    READ_METHODS,
    {NULL, NULL, 0, NULL},
};

static PyMethodDef write_pipe_methods[] = {
    BASE_METHODS,
    WRITE_METHODS,
    {"write_eof", (PyCFunction)transport_close, METH_NOARGS,
     "Closes the pipe after what is buffered has been sent."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pipe_getsets[] = {
    BASE_GETSETS,
    {"_pipe", (getter)pipe_get_file, (setter)pipe_set_file, NULL, NULL},
    {"_fileno", (getter)transport_get_sock_fd, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot read_pipe_slots[] = {
    BASE_SLOTS,
    {Py_tp_doc, "This transport reads from a pipe through a casync_stream."},
    {Py_tp_repr, read_pipe_repr},
    {Py_tp_methods, read_pipe_methods},
    {Py_tp_getset, pipe_getsets},
    {0, NULL},
};

static PyType_Slot write_pipe_slots[] = {
    BASE_SLOTS,
    {Py_tp_doc, "This transport writes to a pipe through a casync_stream."},
    {Py_tp_repr, write_pipe_repr},
    {Py_tp_methods, write_pipe_methods},
    {Py_tp_getset, pipe_getsets},
    {0, NULL},
};

static PyType_Spec read_pipe_spec =
    TRANSPORT_SPEC("casync._native.ReadPipeTransport", STREAM_TRANSPORT_SIZE, read_pipe_slots);
static PyType_Spec write_pipe_spec =
    TRANSPORT_SPEC("casync._native.WritePipeTransport", STREAM_TRANSPORT_SIZE, write_pipe_slots);
