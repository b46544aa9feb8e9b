/* What a stream tells its transport: bytes, their end, the marks of its queue, its own end. Each
   becomes a call of the protocol; bytes may go to its StreamReader instead (streams_feed.c). */

static const casync_protocol data_protocol, bulk_protocol;

/* protocol.data_received(data); takes the reference of data, NULL with an exception if making it
   failed. */
static void transport_deliver(transport *self, loop *lp, PyObject *data) {
    PyObject *result = data == NULL ? NULL : transport_call(self, lp, NAME_DATA_RECEIVED, data);
    if (result == NULL)
        transport_fatal(self, lp, "Fatal error: protocol.data_received() call failed.");
    Py_XDECREF(result);
    Py_XDECREF(data);
}

static bool transport_feed(transport *self, loop *lp, casync_span span);
static void transport_adopt_reader(transport *self);
static void feed_close(reader_feed *feed);

static void on_data_received(casync_stream *stream, casync_span span) {
    transport *self = transport_of(stream);
    loop *lp = transport_hold(self);
    if (self->feed.reader == NULL || !transport_feed(self, lp, span)) {
        if (span.len >= BULK_BEGIN) casync_set_protocol(stream, &bulk_protocol);
        transport_deliver(self, lp,
                          PyBytes_FromStringAndSize((const char *)span.ptr, (Py_ssize_t)span.len));
    }
    transport_let_go(self, lp);
}

/* Bulk: the kernel writes into the bytes object itself, which is shortened to what came. */
static casync_buffer on_bulk_buffer(casync_stream *stream, int64_t Py_UNUSED(size_hint)) {
    transport *self = transport_of(stream);
    loop *lp = transport_hold(self);
    casync_buffer buffer = {NULL, 0};
    lp->bulk = PyBytes_FromStringAndSize(NULL, BULK_SIZE);
    if (lp->bulk == NULL) {
        transport_fatal(self, lp, "Fatal read error on socket transport");
    } else {
        buffer.ptr = PyBytes_AS_STRING(lp->bulk);
        buffer.len = BULK_SIZE;
    }
    transport_let_go(self, lp);
    return buffer;
}

static void on_bulk_updated(casync_stream *stream, size_t size) {
    transport *self = transport_of(stream);
    loop *lp = transport_hold(self);
    PyObject *data = lp->bulk;
    lp->bulk = NULL;
    if (size < BULK_END) casync_set_protocol(stream, &data_protocol);
    if (size > 0) _PyBytes_Resize(&data, (Py_ssize_t)size); /* on failure data is NULL */
    if (size > 0)
        transport_deliver(self, lp, data);
    else
        Py_XDECREF(data);
    transport_let_go(self, lp);
}

static int check_lent_buffer(const Py_buffer *lent) {
    if (lent->len > 0) return 0;
    PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    return -1;
}

/* Is it a buffer for asyncio, which asks for its length, and does not want it empty? */
static int check_length(PyObject *object) {
    Py_ssize_t length = PyObject_Size(object);
    if (length == 0) PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    return length > 0 ? 0 : -1;
}

/* Exports it; what cannot be written to is refused in the words of recv_into(). */
static int export_to_read(PyObject *object, Py_buffer *lent) {
    PyObject *args;
    int result;
    if (PyObject_GetBuffer(object, lent, PyBUF_WRITABLE) == 0) return check_lent_buffer(lent);
    if (!is_no_buffer()) return -1;
    args = PyTuple_Pack(1, object);
    result =
        args != NULL && PyArg_ParseTuple(args, "w*:recv_into", lent) ? check_lent_buffer(lent) : -1;
    Py_XDECREF(args);
    return result;
}

/* Exports the protocol's buffer until on_buffer_updated, which always follows; an empty one makes
   the stream end after a failure, and with a pointer it means that nothing is to be read before the
   next run. */
static casync_buffer on_get_buffer(casync_stream *stream, int64_t size_hint) {
    transport *self = transport_of(stream);
    loop *lp = transport_hold(self);
    Py_buffer lent = {0};
    casync_buffer buffer = {NULL, 0};
    PyObject *size = PyLong_FromLongLong(size_hint), *object = NULL;
    if (size != NULL) object = transport_call(self, lp, NAME_GET_BUFFER, size);
    if (object == NULL || check_length(object) < 0) {
        if (!transport_fatal(self, lp, "Fatal error: protocol.get_buffer() call failed."))
            buffer.ptr = CASYNC_NOT_NOW;
    } else if (export_to_read(object, &lent) < 0) {
        PyBuffer_Release(&lent);
        transport_fatal(self, lp, "Fatal read error on socket transport");
    } else if (!(self->flags & TRANSPORT_OPEN)) { /* it has ended in there: nothing follows */
        PyBuffer_Release(&lent);
    } else {
        buffer.ptr = lent.buf;
        buffer.len = (size_t)lent.len;
        lp->reading = lent;
    }
    Py_XDECREF(object);
    Py_XDECREF(size);
    transport_let_go(self, lp);
    return buffer;
}

/* asyncio reads once when the socket is ready, and asks for the next buffer when it is ready
   again. */
static void on_buffer_updated(casync_stream *stream, size_t size) {
    transport *self = transport_of(stream);
    loop *lp = transport_hold(self);
    Py_buffer lent = lp->reading; /* its release may run the loop, which reads to another one */
    lp->reading.obj = NULL;
    stream->more = false;
    PyBuffer_Release(&lent); /* does nothing if there is none */
    if (size > 0) {
        PyObject *count = PyLong_FromSize_t(size), *result = NULL;
        if (count != NULL) result = transport_call(self, lp, NAME_BUFFER_UPDATED, count);
        if (result == NULL)
            transport_fatal(self, lp, "Fatal error: protocol.buffer_updated() call failed.");
        Py_XDECREF(result);
        Py_XDECREF(count);
    }
    transport_let_go(self, lp);
}

/* eof_received is called once more in the next turn, where asyncio finds the socket ready again. */
static void transport_tell_again(transport *self, loop *lp) {
    PyObject *method = PyObject_GetAttr((PyObject *)self, lp->state->names[NAME_TELL_EOF]);
    PyObject *queued = method == NULL ? NULL : loop_call_soon(lp, &method, 1, NULL);
    if (queued == NULL) PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(method);
    Py_XDECREF(queued);
}

/* Returns true in any case: if the protocol does not, it is close() that ends the stream. */
static bool on_eof_received(casync_stream *stream) {
    transport *self = transport_of(stream);
    loop *lp = transport_hold(self);
    PyObject *result = transport_call(self, lp, NAME_EOF_RECEIVED, NULL);
    int keep_open = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    if (keep_open < 0) {
        if (!transport_fatal(self, lp, "Fatal error: protocol.eof_received() call failed."))
            transport_tell_again(self, lp);
    } else if (!keep_open) {
        transport_begin_close(self);
    } else {
        self->flags |= TRANSPORT_TOLD;
    }
    transport_let_go(self, lp);
    return true;
}

/* protocol.pause_writing() or resume_writing(), in the caller's context. What ends the program is
   raised by the transport's method that led here, which TRANSPORT_CALLED announces, or else ends
   the run. */
static void transport_flow(transport *self, loop *lp, enum name method, const char *failure) {
    bool called = self->flags & TRANSPORT_CALLED;
    PyObject *protocol = Py_NewRef(self->protocol), *result;
    self->flags &= (uint16_t)~TRANSPORT_CALLED; /* for what the protocol does in there */
    result = PyObject_CallMethodNoArgs(protocol, lp->state->names[method]);
    if (result == NULL) {
        PyObject *exception = take_exception();
        if (called && ends_program(exception))
            raise_exception(exception);
        else if (ends_program(exception))
            loop_end_run(lp, exception);
        else
            transport_report(self, lp, failure, exception);
    }
    Py_XDECREF(result);
    Py_DECREF(protocol);
}

static void transport_apply_limits(transport *self) {
    write_limits limits = limits_of(self);
    casync_set_write_limits(&self->stream, limits.high, limits.low);
}

/* While EMPTYING or FLUSHING the stream's marks are 0, and the protocol's are looked after here. */
static void on_pause_writing(casync_stream *stream) {
    transport *self = transport_of(stream);
    loop *lp;
    if (self->flags & TRANSPORT_PROTOCOL_PAUSED || stream->out.size <= limits_of(self).high) return;
    lp = transport_hold(self);
    self->flags |= TRANSPORT_PROTOCOL_PAUSED;
    transport_flow(self, lp, NAME_PAUSE_WRITING, "protocol.pause_writing() failed");
    transport_let_go(self, lp);
}

/* Not waiter.done(): -1 with an exception set. */
static int waiter_is_pending(state *st, PyObject *waiter) {
    PyObject *done = PyObject_CallMethodNoArgs(waiter, st->names[NAME_DONE]);
    int pending = done == NULL ? -1 : PyObject_Not(done);
    Py_XDECREF(done);
    return pending;
}

/* waiter.set_result(value) or set_exception: 0, or -1 with an exception set. */
static int set_waiter(state *st, PyObject *waiter, enum name method, PyObject *value) {
    PyObject *result = PyObject_CallMethodOneArg(waiter, st->names[method], value);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* As above, unless it is done. */
static int wake_waiter(state *st, PyObject *waiter, enum name method, PyObject *value) {
    int pending = waiter_is_pending(st, waiter);
    return pending > 0 ? set_waiter(st, waiter, method, value) : pending;
}

/* Wakes who waits for the stream to be empty, if anybody does. */
static void transport_wake_empty_waiter(transport *self, loop *lp, enum name method,
                                        PyObject *value) {
    PyObject *waiter = Py_XNewRef(self->empty_waiter);
    if (waiter != NULL && (value == NULL || wake_waiter(lp->state, waiter, method, value) < 0))
        loop_report_current(lp, "the waiter of sendfile failed", NAME_TRANSPORT, (PyObject *)self);
    Py_XDECREF(waiter);
}

static void transport_emptied(transport *self, loop *lp) {
    self->flags &= (uint16_t)~TRANSPORT_EMPTYING;
    if (!(self->flags & TRANSPORT_FLUSHING)) transport_apply_limits(self);
    transport_wake_empty_waiter(self, lp, NAME_SET_RESULT, Py_None);
}

static void transport_resume_protocol(transport *self, loop *lp) {
    running_call call;
    bool entered;
    self->flags &= (uint16_t)~TRANSPORT_PROTOCOL_PAUSED;
    entered = transport_try_enter(self, lp, &call);
    if (self->protocol != NULL) /* to enter may have ended the connection */
        transport_flow(self, lp, NAME_RESUME_WRITING, "protocol.resume_writing() failed");
    if (entered) transport_try_leave(lp, &call);
}

/* A protocol may answer resume_writing() with more to send, also after close(): sslproto does. */
static void on_resume_writing(casync_stream *stream) {
    transport *self = transport_of(stream);
    loop *lp = transport_hold(self);
    if (self->flags & TRANSPORT_EMPTYING) transport_emptied(self, lp);
    if (self->flags & TRANSPORT_PROTOCOL_PAUSED && self->protocol != NULL)
        transport_resume_protocol(self, lp);
    if (self->flags & TRANSPORT_FLUSHING && casync_stream_is_open(stream) && stream->out.size == 0)
        transport_finish_stream(self);
    transport_let_go(self, lp);
}

/* Server._attach and _detach, which take the transport since 3.13. */
static int transport_tell_server(transport *self, state *st, PyObject *server, enum name method) {
    PyObject *result;
    if (st->attach_takes_transport)
        result = PyObject_CallMethodOneArg(server, st->names[method], (PyObject *)self);
    else
        result = PyObject_CallMethodNoArgs(server, st->names[method]);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The descriptor itself is closed by who owns it. */
static void transport_forget_fd(transport *self) {
    if (self->flags & TRANSPORT_COPY) close(self->fd);
    self->flags &= (uint16_t)~TRANSPORT_COPY;
    self->fd = -1;
}

static void transport_close_fd(transport *self, state *st) {
    PyObject *sock, *result;
    int fd = self->fd;
    if (fd < 0) return;
    transport_forget_fd(self);
    if (self->sock == NULL) {
        close(fd);
        return;
    }
    sock = Py_NewRef(self->sock); /* it stays, for get_extra_info() */
    result = PyObject_CallMethodNoArgs(sock, st->names[NAME_CLOSE]);
    if (result == NULL) PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(result);
    Py_DECREF(sock);
}

/* Off the loop's list, with the stream's reference: the caller has one of its own. */
static void transport_unlink(transport *self) {
    if (!(self->flags & TRANSPORT_OPEN)) return;
    self->flags &= (uint16_t)~TRANSPORT_OPEN;
    if (self->previous != NULL)
        self->previous->next = self->next;
    else
        self->loop->transports = self->next;
    if (self->next != NULL) self->next->previous = self->previous;
    Py_DECREF(self);
}

/* The end of a connection: the descriptor is closed and the server told. */
static void transport_finish(transport *self, state *st) {
    PyObject *server;
    transport_close_fd(self, st);
    server = self->server;
    self->server = NULL;
    if (server == NULL) return;
    if (transport_tell_server(self, st, server, NAME_DETACH) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    Py_DECREF(server);
}

/* What sendfile() raises then, as asyncio's. */
#define LOST_MESSAGE "Connection is closed by peer"

static void transport_lost(transport *self, int64_t error) {
    loop *lp = transport_hold(self);
    PyObject *exception = self->exception, *result = NULL;
    self->flags |= TRANSPORT_CLOSING;
    self->exception = NULL;
    if (exception == NULL) exception = error < 0 ? make_os_error(error) : Py_NewRef(Py_None);
    if (exception != NULL) result = transport_call(self, lp, NAME_CONNECTION_LOST, exception);
    if (result == NULL) transport_report_method(self, lp, "_call_connection_lost", exception);
    Py_XDECREF(result);
    Py_XDECREF(exception);
    transport_finish(self, lp->state);
    if (self->empty_waiter != NULL) {
        PyObject *lost = PyObject_CallFunction(PyExc_ConnectionError, "s", LOST_MESSAGE);
        transport_wake_empty_waiter(self, lp, NAME_SET_EXCEPTION, lost);
        Py_XDECREF(lost);
    }
    transport_unlink(self);
    Py_CLEAR(self->protocol);
    feed_close(&self->feed);
    transport_clear_context(self);
    transport_leave_loop(self);
    transport_let_go(self, lp);
}

/* _tell_eof(): see transport_tell_again. */
static PyObject *transport_tell_eof(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    if (self->loop == NULL || self->flags & TRANSPORT_CLOSING) Py_RETURN_NONE;
    if (self->flags & TRANSPORT_PAUSED)
        self->flags |= TRANSPORT_TOLD;
    else
        (void)on_eof_received(&self->stream);
    Py_RETURN_NONE;
}

static void on_connection_lost(casync_stream *stream, int64_t error) {
    transport_lost(transport_of(stream), error);
}

static const casync_protocol data_protocol = {NULL,
                                              on_data_received,
                                              NULL,
                                              NULL,
                                              on_eof_received,
                                              on_pause_writing,
                                              on_resume_writing,
                                              on_connection_lost};

static const casync_protocol bulk_protocol = {NULL,
                                              NULL,
                                              on_bulk_buffer,
                                              on_bulk_updated,
                                              on_eof_received,
                                              on_pause_writing,
                                              on_resume_writing,
                                              on_connection_lost};

static const casync_protocol buffered_protocol = {NULL,
                                                  NULL,
                                                  on_get_buffer,
                                                  on_buffer_updated,
                                                  on_eof_received,
                                                  on_pause_writing,
                                                  on_resume_writing,
                                                  on_connection_lost};
