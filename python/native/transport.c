/* SocketTransport: asyncio's stream transport around casync_stream.

   Idea: casync.h reads, buffers, sends and counts; its protocol callbacks become calls of the
   Python protocol, in the context in which the transport was made. Flow control is the stream's.
   The type still derives from asyncio's _FlowControlMixin, for asyncio asks for that: see
   transport_base in private_cpython.c.

   Invariants: an open stream holds one reference to its transport (it is on loop->transports),
   until connection_lost or the loop's close. The descriptor is closed here, never by casync.h
   (keep_fd): by the Python socket object if there is one, which is made on demand for accepted
   connections. `exception` is what connection_lost gets if this side ended the stream.

   What pipes do otherwise than sockets is in pipe.c, what datagrams do in datagram.c: all kinds
   share this struct. Writing is in transport_write.c, get_extra_info() in transport_info.c, what
   Python sees in transport_tables.c.

   Costs: a message read is one bytes object and one method call. */

enum {
    TRANSPORT_OPEN = 1, /* on loop->transports */
    TRANSPORT_CLOSING = 2,
    TRANSPORT_EOF = 4,
    TRANSPORT_PAUSED = 8,   /* pause_reading() was called */
    TRANSPORT_STARTED = 16, /* connection_made was called */
    TRANSPORT_PROTOCOL_PAUSED = 32,
    TRANSPORT_EMPTYING = 64,    /* an empty waiter waits */
    TRANSPORT_FLUSHING = 128,   /* close() was called, with bytes still to send */
    TRANSPORT_CONNECTED = 256,  /* of datagrams: there is a peer */
    TRANSPORT_COPY = 512,       /* of pipes: fd is a duplicate of the file's descriptor, and ours
                                  to close */
    TRANSPORT_LEFT = 1024,      /* its loop was closed while it was open; for asyncio it is
                                  neither then */
    TRANSPORT_CALLED = 2048,    /* in a method that raises what ends the program: see
                                  transport_flow */
    TRANSPORT_IP4 = 4096,       /* its names are IPv4's */
    TRANSPORT_SUSPENDED = 8192, /* a loop runs inside a call of its protocol: see transport_enter */
    TRANSPORT_SNAPSHOT = 16384  /* `context` is the variables of one: see private_cpython.c */
};

enum transport_kind {
    TRANSPORT_SOCKET,
    TRANSPORT_READ_PIPE,
    TRANSPORT_WRITE_PIPE,
    TRANSPORT_DATAGRAM
};

/* Where the bytes for a StreamReader go without a Python call: see streams.c. */
typedef struct reader_feed {
    struct reader *reader; /* borrowed: it knows this feed; or NULL */
} reader_feed;

/* When writing is paused and resumed. */
typedef struct {
    size_t high, low;
    PyObject *given; /* (low, high), which may be fractions; or NULL */
} write_limits;

/* Small, for a connection at rest takes little more than this: what only datagrams have comes last,
   and the types of streams end before it. */
typedef struct transport {
    transport_base base;
    loop *loop;         /* until connection_lost */
    PyObject *protocol; /* also */
    PyObject *sock;     /* the socket, or the pipe's file object: closes the descriptor */
    PyObject *server, *extra;
    PyObject *dict, *weakrefs;
    struct transport *next, *previous;
    PyObject *context, *exception, *empty_waiter;
    reader_feed feed;
    write_limits *limits; /* or NULL: those that asyncio has */
    int fd;               /* -1 once closed, then sock_fd still tells */
    int sock_fd;
    uint16_t flags;
    uint8_t kind;
    uint8_t lost_writes; /* asyncio's _conn_lost, as far as it goes */
    socket_names names;
    union {
        casync_stream stream;
        struct { /* of TRANSPORT_DATAGRAM */
            casync_datagram datagram;
            PyObject *address; /* where they go, if to one address alone; or NULL */
            int family;
        };
    };
} transport;

enum { STREAM_TRANSPORT_SIZE = offsetof(transport, stream) + sizeof(casync_stream) };

static_assert(STREAM_TRANSPORT_SIZE <= 488, "a connection at rest takes more than README says");

static transport *transport_of(casync_stream *stream) {
    return (transport *)(void *)((char *)stream - offsetof(transport, stream));
}

static write_limits limits_of(const transport *self) {
    static const write_limits asyncios = {65536, 16384, NULL};
    return self->limits == NULL ? asyncios : *self->limits;
}

static void transport_free_limits(transport *self) {
    if (self->limits != NULL) Py_XDECREF(self->limits->given);
    PyMem_Free(self->limits);
}

/* In debug mode, and observed: EventLoop._python_call(method, *arguments), which reports slow
   ones. */
static PyObject *transport_call_python(loop *lp, PyObject *protocol, enum name method,
                                       PyObject *argument) {
    PyObject *const *names = lp->state->names;
    PyObject *bound = PyObject_GetAttr(protocol, names[method]), *result;
    if (bound == NULL) return NULL;
    result =
        PyObject_CallMethodObjArgs((PyObject *)lp, names[NAME_PYTHON_CALL], bound, argument, NULL);
    Py_DECREF(bound);
    return result;
}

static PyObject *call_method(loop *lp, PyObject *object, enum name method, PyObject *argument) {
    PyObject *vector[3] = {NULL, object, argument};
    size_t count = argument == NULL ? 1 : 2;
    return PyObject_VectorcallMethod(lp->state->names[method], vector + 1,
                                     count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

/* What the protocol does in a call may end the connection, for the loop may be run in there
   (nest_asyncio). So every callback of a stream holds the transport, and the loop, which is the
   transport's no longer once connection_lost was called. */
static loop *transport_hold(transport *self) {
    Py_INCREF((PyObject *)self);
    return (loop *)Py_NewRef((PyObject *)self->loop);
}

static void transport_let_go(transport *self, loop *lp) {
    Py_DECREF((PyObject *)self);
    Py_DECREF((PyObject *)lp);
}

/* A call of a protocol in its transport's context, which runs: of the loop's `calls`. The caller
   holds the transport and the loop. */
typedef struct running_call {
    struct running_call *outer;
    transport *transport;
    PyObject *context;
} running_call;

static void transport_clear_context(transport *self) {
    self->flags &= (uint16_t)~TRANSPORT_SNAPSHOT;
    Py_CLEAR(self->context);
}

/* Makes the context of a transport that has a snapshot. */
static int transport_make_context(transport *self, state *st) {
    PyObject *context;
    if (!(self->flags & TRANSPORT_SNAPSHOT)) return 0;
    context = make_context(st, Py_NewRef(self->context)); /* may run the collector */
    if (context == NULL) return -1;
    if (!(self->flags & TRANSPORT_SNAPSHOT)) { /* and that have made it, or ended the transport */
        return_context(st, context);
        return 0;
    }
    self->flags &= (uint16_t)~TRANSPORT_SNAPSHOT;
    Py_SETREF(self->context, context);
    return 0;
}

/* The transport's context, entered; if the call is inside of another one of the same transport, a
   copy of it, for a context is entered once. */
static PyObject *transport_entered_context(transport *self, state *st) {
    PyObject *context;
    if (transport_make_context(self, st) < 0) return NULL;
    context = Py_XNewRef(self->context);
    if (context == NULL) return PyErr_Format(PyExc_RuntimeError, "the transport is closed");
    if (PyContext_Enter(context) == 0) return context;
    if (clear_exception(PyExc_RuntimeError)) {
        Py_SETREF(context, PyContext_Copy(context));
        if (context != NULL && PyContext_Enter(context) == 0) return context;
    }
    Py_XDECREF(context);
    return NULL;
}

/* Enters the context: 1; 0 if the connection has ended since the stream's callback began; -1 with
   an exception set. */
static int transport_enter(transport *self, loop *lp, running_call *call) {
    PyObject *context = self->loop == NULL ? NULL : transport_entered_context(self, lp->state);
    if (self->loop == NULL && context != NULL) PyContext_Exit(context);
    if (self->loop == NULL || context == NULL) {
        Py_XDECREF(context);
        return self->loop == NULL ? 0 : -1;
    }
    call->transport = self;
    call->context = context;
    call->outer = lp->calls;
    lp->calls = call;
    return 1;
}

/* The transport keeps the context that it has left as a snapshot, unless somebody else keeps the
   context itself: the token of a variable does. */
static void transport_keep_snapshot(transport *self, state *st, PyObject *context) {
    PyObject *vars = self->context == context ? snapshot_of(st, context, 2) : NULL;
    if (vars == NULL) return;
    self->context = vars;
    self->flags |= TRANSPORT_SNAPSHOT;
    Py_DECREF(context);
}

/* -1 with an exception set if what was called has left the context in another state. */
static int transport_leave(loop *lp, running_call *call) {
    int result = PyContext_Exit(call->context);
    lp->calls = call->outer;
    if (result < 0) {
        Py_DECREF(call->context);
        return result;
    }
    transport_keep_snapshot(call->transport, lp->state, call->context);
    return_context(lp->state, call->context);
    return 0;
}

/* protocol.method(argument), or without one if it is NULL, in the transport's context. None if the
   connection has ended since the stream's callback began. */
static PyObject *transport_call(transport *self, loop *lp, enum name method, PyObject *argument) {
    PyObject *protocol, *result;
    running_call call;
    int entered = transport_enter(self, lp, &call);
    if (entered <= 0) return entered < 0 ? NULL : Py_NewRef(Py_None);
    protocol = Py_NewRef(self->protocol); /* it may be replaced meanwhile */
    result = lp->calls_python ? transport_call_python(lp, protocol, method, argument)
                              : call_method(lp, protocol, method, argument);
    if (transport_leave(lp, &call) < 0) Py_CLEAR(result);
    Py_DECREF(protocol);
    return result;
}

/* Shall the stream be read now? */
static bool transport_reads(const transport *self) {
    const uint16_t states =
        TRANSPORT_STARTED | TRANSPORT_CLOSING | TRANSPORT_PAUSED | TRANSPORT_SUSPENDED;
    return (self->flags & states) == TRANSPORT_STARTED && self->fd >= 0;
}

static void transport_stop_reading(transport *self) {
    if (self->kind == TRANSPORT_DATAGRAM)
        casync_datagram_pause_reading(&self->datagram);
    else
        casync_pause_reading(&self->stream);
}

static void transport_begin_reading(transport *self) {
    if (!transport_reads(self)) return;
    if (self->kind == TRANSPORT_DATAGRAM)
        casync_datagram_resume_reading(&self->datagram);
    else
        casync_resume_reading(&self->stream);
}

/* Before the loop runs inside calls of protocols: their transports are not read in there, so no
   protocol is called inside its own call, as in asyncio, whose reader cannot enter its context a
   second time. Returns the first call that is suspended already, by a run further out. */
static running_call *suspend_calls(loop *lp) {
    running_call *call = lp->calls;
    for (; call != NULL && !(call->transport->flags & TRANSPORT_SUSPENDED); call = call->outer) {
        call->transport->flags |= TRANSPORT_SUSPENDED;
        transport_stop_reading(call->transport);
    }
    return call;
}

/* After it. `end` is what suspend_calls has returned. */
static void resume_calls(loop *lp, const running_call *end) {
    for (running_call *call = lp->calls; call != end; call = call->outer) {
        call->transport->flags &= (uint16_t)~TRANSPORT_SUSPENDED;
        transport_begin_reading(call->transport);
    }
}

static void transport_count_lost_write(transport *self) {
    if (self->lost_writes < UINT8_MAX) self->lost_writes++;
}

/* asyncio's _force_close: connection_lost(exception) follows soon. Takes the exception's
   reference. */
static void transport_force_close(transport *self, PyObject *exception) {
    if (self->lost_writes > 0 || self->fd < 0) {
        Py_XDECREF(exception);
        return;
    }
    self->flags |= TRANSPORT_CLOSING;
    self->lost_writes = 1;
    self->exception = exception == NULL ? Py_NewRef(Py_None) : exception;
    casync_abort(&self->stream);
}

/* Tells of an exception, whose reference is taken. */
static void transport_report(transport *self, loop *lp, const char *message, PyObject *exception) {
    PyObject *protocol = Py_XNewRef(self->protocol); /* NULL: the connection has ended */
    loop_report(lp, PyUnicode_FromString(message), exception, NAME_TRANSPORT, (PyObject *)self,
                NAME_PROTOCOL, protocol);
    Py_XDECREF(protocol);
}

/* Tells of the exception that is set as asyncio does where a callback of the loop's raises it:
   callback is that (its reference is taken; NULL if making it failed), argument what it is called
   with, or NULL. */
static void transport_report_callback(loop *lp, PyObject *callback, PyObject *argument) {
    PyObject *exception = take_exception();
    handle *h = callback == NULL ? NULL
                                 : handle_new(lp->state, false, callback, &argument,
                                              argument == NULL ? 0 : 1, NULL);
    Py_XDECREF(callback);
    if (h == NULL) {
        forget_exception(PyExc_Exception, (PyObject *)lp); /* the other one is worth more */
        loop_report(lp, PyUnicode_FromString("Exception in callback"), exception, NAME_COUNT, NULL,
                    NAME_COUNT, NULL);
        return;
    }
    raise_exception(exception);
    h->flags |= HANDLE_RUNNING; /* as one that the loop runs */
    handle_report(lp, h);
    h->flags &= (uint8_t)~HANDLE_RUNNING;
    handle_drop(h, lp->state);
    Py_DECREF(h);
}

/* The method that asyncio's own transport of this kind has. */
static PyObject *asyncio_method(transport *self, const char *name) {
    static const struct {
        const char *module, *type;
    } asyncios[] = {
        [TRANSPORT_SOCKET] = {"asyncio.selector_events", "_SelectorSocketTransport"},
        [TRANSPORT_READ_PIPE] = {"asyncio.unix_events", "_UnixReadPipeTransport"},
        [TRANSPORT_WRITE_PIPE] = {"asyncio.unix_events", "_UnixWritePipeTransport"},
        [TRANSPORT_DATAGRAM] = {"asyncio.selector_events", "_SelectorDatagramTransport"}};
    PyObject *exception = take_exception(), *function, *method;
    char path[64];
    snprintf(path, sizeof path, "%s.%s", asyncios[self->kind].type, name);
    function = import_attribute(asyncios[self->kind].module, path);
    method = function == NULL ? NULL : PyMethod_New(function, (PyObject *)self);
    Py_XDECREF(function);
    forget_exception(PyExc_Exception, (PyObject *)self); /* the caller's is worth more */
    raise_exception(exception);
    return method;
}

/* What a protocol raised where asyncio's transport leaves it to the loop, which names that one's
   method. */
static void transport_report_method(transport *self, loop *lp, const char *name,
                                    PyObject *argument) {
    transport_report_callback(lp, asyncio_method(self, name), argument);
}

/* asyncio's _fatal_error for the exception that is set; socket errors are not worth a report. False
   if it is one that ends the program: then it ends the run, and the connection stays open. */
static bool transport_fatal(transport *self, loop *lp, const char *message) {
    PyObject *exception = take_exception();
    if (ends_program(exception)) {
        loop_end_run(lp, exception);
        return false;
    }
    if (!PyErr_GivenExceptionMatches(exception, PyExc_OSError))
        transport_report(self, lp, message, Py_NewRef(exception));
    transport_force_close(self, exception);
    return true;
}

/* The end of close(), when all is sent. */
static void transport_finish_stream(transport *self) {
    transport_count_lost_write(self);
    casync_finish_start(&self->stream);
}

/* close(): reading ends; what is queued, and what the protocol still writes meanwhile, is sent
   first. */
static void transport_begin_close(transport *self) {
    if (self->flags & TRANSPORT_CLOSING) return;
    self->flags |= TRANSPORT_CLOSING;
    if (self->stream.out.size == 0) {
        transport_finish_stream(self);
    } else {
        self->flags |= TRANSPORT_FLUSHING;
        casync_pause_reading(&self->stream);
        casync_set_write_limits(&self->stream, 0, 0);
    }
}

/* 0, or -1 with an exception set. */
static int transport_keep_names(transport *self, const casync_address *own,
                                const casync_address *peer) {
    int ip4 = keep_names(&self->names, own, peer);
    if (ip4 > 0) self->flags |= TRANSPORT_IP4;
    return ip4 < 0 ? -1 : 0;
}

static void transport_free_names(transport *self) {
    if (!(self->flags & TRANSPORT_IP4)) PyMem_Free(self->names.other);
}

static casync_address transport_name(const transport *self, int which) {
    return kept_name(&self->names, self->flags & TRANSPORT_IP4, which);
}

/* ---- what the stream tells ---- */

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

/* eof_received ended the run: as asyncio finds the socket ready again, it is called once more in
   the next. */
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
    } else if (!keep_open)
        transport_begin_close(self);
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

/* A protocol may answer resume_writing() with more to send, also after close(): sslproto does. */
static void on_resume_writing(casync_stream *stream) {
    transport *self = transport_of(stream);
    loop *lp = transport_hold(self);
    if (self->flags & TRANSPORT_EMPTYING) transport_emptied(self, lp);
    if (self->flags & TRANSPORT_PROTOCOL_PAUSED && self->protocol != NULL) {
        self->flags &= (uint16_t)~TRANSPORT_PROTOCOL_PAUSED;
        transport_flow(self, lp, NAME_RESUME_WRITING, "protocol.resume_writing() failed");
    }
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
    Py_CLEAR(self->loop);
    transport_let_go(self, lp);
}

/* _tell_eof(): see transport_tell_again. */
static PyObject *transport_tell_eof(transport *self, PyObject *Py_UNUSED(ignored)) {
    if (self->loop != NULL && !(self->flags & TRANSPORT_CLOSING))
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

/* ---- making ---- */

static const casync_protocol *pipe_protocol(enum transport_kind kind, int fd);
static const casync_protocol tls_protocol;
static bool is_tls(state *st, PyObject *protocol);

/* The table for a protocol, or NULL with an exception set. */
static const casync_protocol *protocol_table(state *st, enum transport_kind kind, int fd,
                                             PyObject *protocol) {
    int buffered;
    if (kind != TRANSPORT_SOCKET) return pipe_protocol(kind, fd);
    if (is_tls(st, protocol)) return &tls_protocol;
    buffered = PyObject_IsInstance(protocol, st->buffered_protocol);
    return buffered < 0 ? NULL : buffered ? &buffered_protocol : &data_protocol;
}

static int transport_schedule(transport *self, PyObject *waiter) {
    state *st = self->loop->state;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *made = PyObject_GetAttr(protocol, st->names[NAME_CONNECTION_MADE]);
    PyObject *start = PyObject_GetAttr((PyObject *)self, st->names[NAME_START]), *first = NULL,
             *second = NULL;
    if (made != NULL && start != NULL) {
        PyObject *made_args[2] = {made, (PyObject *)self}, *start_args[2] = {start, waiter};
        first = loop_call_soon(self->loop, made_args, 2, NULL);
        if (first != NULL) second = loop_call_soon(self->loop, start_args, 2, NULL);
    }
    Py_DECREF(protocol);
    Py_XDECREF(made);
    Py_XDECREF(start);
    Py_XDECREF(first);
    Py_XDECREF(second);
    return second == NULL ? -1 : 0;
}

/* Ends what is underneath at once: no word to the protocol, nor, as in asyncio, of what is not
   sent. */
static void transport_close_native(transport *self) {
    if (self->kind == TRANSPORT_DATAGRAM) {
        casync_datagram_abort(&self->datagram);
        casync_datagram_close(&self->datagram);
    } else {
        casync_abort(&self->stream);
        casync_close(&self->stream);
    }
}

/* If making failed, with the exception that is set: the descriptor goes back to the caller.
   NULL. */
static transport *transport_undo(transport *self) {
    PyObject *exception = take_exception();
    transport_close_native(self);
    transport_forget_fd(self);
    Py_CLEAR(self->sock);
    transport_finish(self, self->loop->state);
    transport_unlink(self);
    Py_DECREF(self);
    raise_exception(exception);
    return NULL;
}

static int64_t datagram_open(transport *self, int fd);

static int64_t stream_open(transport *self, int fd) {
    casync_stream_options options = {0};
    const casync_protocol *table =
        protocol_table(self->loop->state, self->kind, fd, self->protocol);
    if (table == NULL) return 1;
    options.keep_fd = true;
    options.start_paused = true;
    return casync_stream_open(&self->loop->casync, &self->stream, fd, table, &options);
}

/* A transport with an open stream over the descriptor, on the loop's list; nothing is scheduled
   yet. sock (or NULL) is the object that owns the descriptor. On failure the descriptor stays the
   caller's, and *error is casync's (or 0). */
static transport *transport_open(loop *lp, enum transport_kind kind, int fd, PyObject *sock,
                                 PyObject *protocol, PyObject *extra, int64_t *error) {
    PyTypeObject *type = lp->state->transport_types[kind];
    transport *self = (transport *)type->tp_alloc(type, 0);
    *error = 0;
    if (self == NULL) return NULL;
    self->kind = (uint8_t)kind;
    self->fd = self->sock_fd = -1;
    self->loop = (loop *)Py_NewRef((PyObject *)lp);
    self->protocol = Py_NewRef(protocol);
    self->extra = Py_XNewRef(extra == Py_None ? NULL : extra);
    self->context = snapshot_context(lp->state);
    if (self->context != NULL)
        self->flags |= TRANSPORT_SNAPSHOT;
    else
        self->context = PyContext_CopyCurrent();
    if (self->context != NULL)
        *error = kind == TRANSPORT_DATAGRAM ? datagram_open(self, fd) : stream_open(self, fd);
    if (self->context == NULL || *error != 0) {
        if (*error < 0) raise_os_error(*error); /* else an exception is set */
        Py_DECREF(self);
        return NULL;
    }
    self->fd = self->sock_fd = fd;
    self->sock = Py_XNewRef(sock);
    self->next = lp->transports;
    if (self->next != NULL) self->next->previous = self;
    lp->transports = self;
    self->flags |= TRANSPORT_OPEN;
    Py_INCREF(self);
    transport_adopt_reader(self);
    return self;
}

/* Queues connection_made. If that fails, the transport is undone, and NULL returned. */
static transport *transport_begin(transport *self, PyObject *waiter) {
    return transport_schedule(self, waiter) == 0 ? self : transport_undo(self);
}

/* A transport for a connected socket. sock (or NULL) is the socket object that owns it, peer (or
   NULL) the other side's address. */
static transport *transport_new(loop *lp, int fd, PyObject *sock, PyObject *protocol,
                                PyObject *waiter, PyObject *extra, PyObject *server,
                                const casync_address *peer) {
    state *st = lp->state;
    casync_address own, asked;
    int64_t error;
    transport *self = transport_open(lp, TRANSPORT_SOCKET, fd, sock, protocol, extra, &error);
    if (self == NULL) return NULL;
    own = read_address(fd, getsockname);
    if (peer == NULL) asked = read_address(fd, getpeername);
    if (transport_keep_names(self, &own, peer == NULL ? &asked : peer) < 0)
        return transport_undo(self);
    if (server != NULL && server != Py_None) {
        self->server = Py_NewRef(server);
        if (transport_tell_server(self, st, server, NAME_ATTACH) < 0) {
            Py_CLEAR(self->server);
            return transport_undo(self);
        }
    }
    return transport_begin(self, waiter);
}

/* _start(waiter): connection_made was called; reading begins, and who waits for the connection is
   told. */
static PyObject *transport_start(transport *self, PyObject *waiter) {
    self->flags |= TRANSPORT_STARTED;
    transport_begin_reading(self);
    if (waiter != Py_None && wake_waiter((state *)PyType_GetModuleState(Py_TYPE(self)), waiter,
                                         NAME_SET_RESULT, Py_None) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Has it a number for a descriptor? What only behaves like a socket (a mock) has not, and asyncio's
   own code talks to that by its methods. */
static bool has_descriptor(PyObject *file) {
    if (PyObject_AsFileDescriptor(file) >= 0) return true;
    if (clear_exception(PyExc_TypeError)) return false;
    forget_exception(PyExc_Exception, file); /* parse_fd will raise it */
    return true;
}

/* function(self, *args, **kwargs) */
static PyObject *call_base_method(PyObject *function, PyObject *self, PyObject *args,
                                  PyObject *kwargs) {
    PyObject *method = PyMethod_New(function, self), *result;
    if (method == NULL) return NULL;
    result = PyObject_Call(method, args, kwargs);
    Py_DECREF(method);
    return result;
}

/* The open transport that has this watcher, or NULL. */
static transport *transport_of_watcher(loop *lp, const casync_watcher *watcher) {
    transport *t = watcher == NULL ? NULL : lp->transports;
    while (t != NULL && &t->stream.endpoint.watcher != watcher) t = t->next;
    return t;
}

/* Who watches the descriptor without a transport gives way to a transport or a server that comes to
   it: as asyncio's readers do, and what watched it before may be a file that is closed. -1, and
   RuntimeError, if a transport has it. */
static int loop_make_way(loop *self, int fd, PyObject *file) {
    casync_watcher *found = casync_watcher_find(&self->casync, fd);
    watch *w = watch_of(found);
    transport *t;
    if (w != NULL) watch_end(w);
    if (found == NULL || w != NULL || stop_serving(found)) return 0;
    t = transport_of_watcher(self, found);
    PyErr_Format(PyExc_RuntimeError, "File descriptor %R is used by transport %R", file,
                 t == NULL ? Py_None : (PyObject *)t);
    return -1;
}

/* _make_socket_transport(sock, protocol, waiter=None, *, extra=None, server=None), of the loop */
static PyObject *loop_make_socket_transport(loop *self, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"sock", "protocol", "waiter", "extra", "server", NULL};
    PyObject *sock, *protocol, *waiter = Py_None, *extra = Py_None, *server = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O$OO:_make_socket_transport", keywords,
                                     &sock, &protocol, &waiter, &extra, &server))
        return NULL;
    if (self->closed) return raise_closed();
    if (!has_descriptor(sock))
        return call_base_method(self->state->base_make_socket_transport, (PyObject *)self, args,
                                kwargs);
    int fd = parse_fd(sock);
    if (fd < 0) return NULL;
    if (loop_make_way(self, fd, sock) < 0) return NULL;
    return (PyObject *)transport_new(self, fd, sock, protocol, waiter, extra, server, NULL);
}

/* _ensure_fd_no_transport(fd): raises if an open transport has the descriptor. Only what is watched
   can belong to one. What has no descriptor is left to asyncio's own: it knows the transports of
   what is no kernel's socket, and finds none for a file that is closed. */
static PyObject *loop_ensure_fd_no_transport(loop *self, PyObject *file) {
    casync_watcher *found = NULL;
    transport *t;
    int fd = PyObject_AsFileDescriptor(file);
    if (fd >= 0) {
        found = self->closed ? NULL : casync_watcher_find(&self->casync, fd);
        if (found == NULL) Py_RETURN_NONE;
    } else if (!clear_exception(PyExc_Exception)) {
        return NULL;
    }
    t = transport_of_watcher(self, found);
    if (t == NULL)
        return PyObject_CallFunctionObjArgs(self->state->base_ensure_fd_no_transport, self, file,
                                            NULL);
    if (t->flags & TRANSPORT_CLOSING) Py_RETURN_NONE;
    Py_INCREF((PyObject *)t);
    PyErr_Format(PyExc_RuntimeError, "File descriptor %R is used by transport %R", file, t);
    Py_DECREF((PyObject *)t);
    return NULL;
}

/* ---- reading and ending ---- */

static PyObject *transport_pause_reading(transport *self, PyObject *Py_UNUSED(ignored)) {
    if (self->flags & (TRANSPORT_CLOSING | TRANSPORT_PAUSED)) Py_RETURN_NONE;
    self->flags |= TRANSPORT_PAUSED;
    transport_stop_reading(self);
    Py_RETURN_NONE;
}

static PyObject *transport_resume_reading(transport *self, PyObject *Py_UNUSED(ignored)) {
    if (self->flags & TRANSPORT_CLOSING || !(self->flags & TRANSPORT_PAUSED)) Py_RETURN_NONE;
    self->flags &= (uint16_t)~TRANSPORT_PAUSED;
    transport_begin_reading(self);
    Py_RETURN_NONE;
}

static PyObject *transport_is_reading(transport *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(!(self->flags & (TRANSPORT_CLOSING | TRANSPORT_PAUSED)));
}

static bool transport_shows_closing(const transport *self) {
    return (self->flags & (TRANSPORT_CLOSING | TRANSPORT_LEFT)) == TRANSPORT_CLOSING;
}

static PyObject *transport_is_closing(transport *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(transport_shows_closing(self));
}

static PyObject *transport_close(transport *self, PyObject *Py_UNUSED(ignored)) {
    transport_begin_close(self);
    Py_RETURN_NONE;
}

static PyObject *transport_abort(transport *self, PyObject *Py_UNUSED(ignored)) {
    transport_force_close(self, NULL);
    Py_RETURN_NONE;
}

static PyObject *transport_force_close_method(transport *self, PyObject *exception) {
    transport_force_close(self, Py_NewRef(exception));
    Py_RETURN_NONE;
}

static PyObject *transport_set_protocol(transport *self, PyObject *protocol) {
    state *st = (state *)PyType_GetModuleState(Py_TYPE(self));
    const casync_protocol *table = protocol_table(st, self->kind, self->fd, protocol);
    if (table == NULL) return NULL;
    if (self->fd >= 0) casync_set_protocol(&self->stream, table);
    Py_XSETREF(self->protocol, Py_NewRef(protocol));
    if (self->loop != NULL) transport_adopt_reader(self);
    Py_RETURN_NONE;
}

static PyObject *transport_get_protocol(transport *self, PyObject *Py_UNUSED(ignored)) {
    return Py_NewRef(self->protocol == NULL ? Py_None : self->protocol);
}

/* ---- life ---- */

static int transport_visit_all(loop *lp, visitproc visit, void *arg) {
    for (transport *t = lp->transports; t != NULL; t = t->next) Py_VISIT(t);
    return 0;
}

static int transport_traverse(transport *self, visitproc visit, void *arg) {
    int result = transport_base_visit(&self->base, visit, arg);
    if (result != 0) return result;
    Py_VISIT(self->extra);
    Py_VISIT(self->dict);
    Py_VISIT(self->loop);
    Py_VISIT(self->protocol);
    Py_VISIT(self->server);
    Py_VISIT(self->sock);
    if (self->kind == TRANSPORT_DATAGRAM) Py_VISIT(self->address);
    Py_VISIT(self->context);
    Py_VISIT(self->exception);
    Py_VISIT(self->empty_waiter);
    return 0;
}

static int transport_clear(transport *self) {
    transport_base_clear(&self->base);
    Py_CLEAR(self->extra);
    Py_CLEAR(self->dict);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->server);
    Py_CLEAR(self->sock);
    feed_close(&self->feed);
    if (self->kind == TRANSPORT_DATAGRAM) Py_CLEAR(self->address);
    transport_clear_context(self);
    Py_CLEAR(self->exception);
    Py_CLEAR(self->empty_waiter);
    return 0;
}

/* Ends the stream at once, without a word to the protocol. */
static void transport_close_stream(transport *self) {
    if (!(self->flags & TRANSPORT_OPEN)) return;
    Py_INCREF((PyObject *)self);
    self->flags |= self->flags & TRANSPORT_CLOSING ? 0 : TRANSPORT_CLOSING | TRANSPORT_LEFT;
    transport_close_native(self);
    transport_unlink(self);
    Py_DECREF((PyObject *)self);
}

/* Abandoned while open: asyncio's _SelectorTransport.__del__. */
static void transport_finalize(PyObject *object) {
    transport *self = (transport *)object;
    PyObject *type, *value, *traceback;
    state *st = (state *)PyType_GetModuleState(Py_TYPE(self));
    if (self->fd < 0) return;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyErr_ResourceWarning(object, 1, "unclosed transport %R", object) < 0)
        PyErr_WriteUnraisable(object);
    transport_close_stream(self);
    transport_finish(self, st);
    PyErr_Restore(type, value, traceback);
}

static void transport_dealloc(transport *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) return;
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)self);
    feed_close(&self->feed);
    transport_clear(self);
    Py_CLEAR(self->loop);
    transport_free_names(self);
    transport_free_limits(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* For the loop's close: every stream ends; its transport warns if somebody still counts on it. */
static void loop_drop_transports(loop *lp) {
    while (lp->transports != NULL) transport_close_stream(lp->transports);
}
