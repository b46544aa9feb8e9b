/* How bytes from the socket reach an adopted reader: to the read() that waits, or to the buffer. */

/* Pauses the transport, if it can be, when the reader has more than it wants. */
static int reader_pause_if_full(reader *self) {
    Py_ssize_t half = (reader_size(self) + 1) / 2; /* twice the limit may be more than a
                                                      Py_ssize_t holds */
    if (half <= self->limit || self->paused || self->transport == Py_None) return 0;
    if (reader_call_transport(self, NAME_PAUSE_READING) == 0) {
        self->paused = true;
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_NotImplementedError)) return -1;
    PyErr_Clear();
    Py_XSETREF(self->transport, Py_NewRef(Py_None));
    return 0;
}

/* Keeps what read() waits for, without a way through the buffer: how many bytes, or -1 with an
   exception set. */
static Py_ssize_t reader_hand(reader *self, casync_span span, PyObject *whole) {
    Py_ssize_t wanted = self->operation->size;
    Py_ssize_t size = wanted < (Py_ssize_t)span.len ? wanted : (Py_ssize_t)span.len;
    if (whole != NULL && size == (Py_ssize_t)span.len)
        self->handed = Py_NewRef(whole);
    else
        self->handed = PyBytes_FromStringAndSize((const char *)span.ptr, size);
    return self->handed == NULL ? -1 : size;
}

/* Hands the bytes to the read() that waits, and puts what it does not take into the buffer: how
   many it takes, or -1 with an exception set and nothing changed. */
static Py_ssize_t reader_keep_bytes(reader *self, casync_span span, PyObject *whole, bool waits) {
    read_operation *op = self->operation;
    bool hands = waits && op != NULL && op->kind == READ_SOME && self->handed == NULL &&
                 reader_size(self) == 0;
    Py_ssize_t handed = hands ? reader_hand(self, span, whole) : 0;
    if (handed < 0) return -1;
    if (reader_append(self, (const char *)span.ptr + handed, (Py_ssize_t)span.len - handed) == 0)
        return handed;
    if (hands) Py_CLEAR(self->handed);
    return -1;
}

/* asyncio's StreamReader.feed_data. `whole` (or NULL) is the bytes object that they are all of. */
static int reader_feed_bytes(reader *self, casync_span span, PyObject *whole) {
    state *st = reader_state(self);
    PyObject *waiter = Py_NewRef(self->waiter);
    int result = waiter == Py_None ? 0 : waiter_is_pending(st, waiter);
    bool waits = result > 0;
    Py_ssize_t handed = result < 0 ? -1 : reader_keep_bytes(self, span, whole, waits);
    if (handed >= 0) {
        reader_set_waiter(self, Py_None);
        result = waits ? set_waiter(st, waiter, NAME_SET_RESULT, Py_None) : 0;
    } /* else who waits goes on waiting, for the transport's end */
    Py_DECREF(waiter);
    if (handed < 0 || result < 0) return -1;
    return handed == (Py_ssize_t)span.len ? 0 : reader_pause_if_full(self);
}

/* As above, where asking the waiter may run any code: after that the memory of the bytes may be
   gone, so they are copied. */
static int reader_feed_copy(reader *self, casync_span span) {
    PyObject *copy = PyBytes_FromStringAndSize((const char *)span.ptr, (Py_ssize_t)span.len);
    int result;
    if (copy == NULL) return -1;
    span.ptr = PyBytes_AS_STRING(copy);
    result = reader_feed_bytes(self, span, copy);
    Py_DECREF(copy);
    return result;
}

static bool waiter_is_plain(reader *self) {
    return self->waiter == Py_None ||
           (PyObject *)Py_TYPE(self->waiter) == reader_state(self)->future_type;
}

/* Bytes for the protocol's adopted reader, as above. 1: it has them; 0: they must go by
   protocol.data_received; -1: an exception is set. */
static int feed_bytes(reader_feed *feed, PyObject *protocol, casync_span span, PyObject *whole) {
    reader *self = feed->reader;
    int result;
    if (self != NULL && Py_REFCNT((PyObject *)self) == 1) { /* its StreamReader has gone */
        feed_close(feed);
        return 0;
    }
    if (self == NULL || self->eof) return 0;
    if (streams_changed(reader_state(self), WATCHED_PROTOCOL) ||
        !feeds_reader(reader_state(self), protocol))
        return 0;
    Py_INCREF((PyObject *)self);
    if (whole != NULL || waiter_is_plain(self))
        result = reader_feed_bytes(self, span, whole);
    else
        result = reader_feed_copy(self, span);
    Py_DECREF((PyObject *)self);
    return result < 0 ? -1 : 1;
}

/* Bytes for the transport's reader. False if they must go by protocol.data_received. */
static bool transport_feed(transport *self, loop *lp, casync_span span) {
    int result = feed_bytes(&self->feed, self->protocol, span, NULL);
    if (result < 0) transport_fatal(self, lp, "Fatal error: protocol.data_received() call failed.");
    return result != 0;
}
