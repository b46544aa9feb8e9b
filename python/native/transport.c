/* SocketTransport: asyncio's stream transport around casync_stream.

   Idea: casync.h reads, buffers, sends and counts; its protocol callbacks become calls of the
   Python protocol, in the context in which the transport was made; or that was given, which asyncio
   does since 3.15 to TCP and Unix transports: then connection_made and resume_writing, too, are
   called in that one. Flow control is the stream's.
   The type still derives from asyncio's _FlowControlMixin, for asyncio asks for that: see
   transport_base in private_cpython.c.

   Invariants: an open stream holds one reference to its transport (it is on loop->transports),
   until connection_lost or the loop's close. The descriptor is closed here, never by casync.h
   (keep_fd): by the Python socket object if there is one, which is made on demand for accepted
   connections. `exception` is what connection_lost gets if this side ended the stream.

   What pipes do otherwise than sockets is in pipe.c, what datagrams do in datagram.c: all kinds
   share this struct. Here is what all of the transport's files use: the struct, what holds it, when
   it reads, how it closes. Read on in: transport_call.c (calls of the protocol), transport_events.c
   (what the stream tells), transport_life.c (making, reading, ending), transport_write.c,
   transport_info.c (get_extra_info()), transport_tables.c (what Python sees).

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
    TRANSPORT_TOLD = 256,       /* of sockets: eof_received kept it open, and is called again after
                                  a pause */
    TRANSPORT_COPY = 512,       /* of pipes: fd is a duplicate of the file's descriptor, and ours
                                  to close */
    TRANSPORT_LEFT = 1024,      /* its loop was closed while it was open; for asyncio it is
                                  neither then */
    TRANSPORT_CALLED = 2048,    /* in a method that raises what ends the program: see
                                  transport_flow */
    TRANSPORT_IP4 = 4096,       /* its names are IPv4's */
    TRANSPORT_SUSPENDED = 8192, /* a loop runs inside a call of its protocol: see transport_enter */
    TRANSPORT_SNAPSHOT = 16384, /* `context` is the variables of one: see private_cpython.c */
    TRANSPORT_GIVEN = 32768     /* `context` was given, for all calls (Python 3.15) */
};

enum transport_kind {
    TRANSPORT_SOCKET,
    TRANSPORT_READ_PIPE,
    TRANSPORT_WRITE_PIPE,
    TRANSPORT_DATAGRAM
};

/* Where the bytes for a StreamReader go without a Python call: see streams_adopt.c. */
typedef struct reader_feed {
    struct reader *reader; /* or NULL */
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

static_assert(STREAM_TRANSPORT_SIZE - sizeof(PyObject) <= 472,
              "a connection at rest takes more than README says");

static transport *transport_of(casync_stream *stream) {
    return (transport *)(void *)((char *)stream - offsetof(transport, stream));
}

#ifdef Py_GIL_DISABLED

/* A transport is under its loop's lock; after connection_lost, when it has no loop, under its own,
   which is also taken to let go of the loop. */
static void lock_transport(held_lock *lock, transport *self) {
    loop *lp = self == NULL ? NULL : LOAD(self->loop);
    if (self == NULL || (lp != NULL && lp == running_here)) {
        lock_loop(lock, lp);
        return;
    }
    for (;;) {
        Py_BEGIN_CRITICAL_SECTION(self);
        lp = (loop *)Py_XNewRef((PyObject *)self->loop);
        Py_END_CRITICAL_SECTION();
        lock_object(lock, lp == NULL ? (PyObject *)self : lp->lock);
        Py_XDECREF((PyObject *)lp);
        if (LOAD(self->loop) == lp) return; /* it has not left its loop meanwhile */
        unlock(lock);
    }
}

#endif

#define LOCK_TRANSPORT(self) LOCK(lock_transport, self)

static void transport_leave_loop(transport *self) {
    loop *lp;
    Py_BEGIN_CRITICAL_SECTION(self);
    lp = self->loop;
    STORE(self->loop, NULL);
    Py_END_CRITICAL_SECTION();
    Py_XDECREF((PyObject *)lp);
}

static write_limits limits_of(const transport *self) {
    static const write_limits asyncios = {65536, 16384, NULL};
    return self->limits == NULL ? asyncios : *self->limits;
}

static void transport_free_limits(transport *self) {
    if (self->limits != NULL) Py_XDECREF(self->limits->given);
    PyMem_Free(self->limits);
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
