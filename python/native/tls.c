/* TLS: asyncio's SSLProtocol and its transport, with their hot paths in C. What Python sees of them
   is in tls_tables.c.

   Idea: casync/tls.py derives its SSLProtocol from TLSProtocol here and from asyncio's own. What a
   message takes is here: bytes from the socket into the incoming BIO, decrypted ones to the
   application, written ones through the SSLObject to the transport underneath. All else (handshake,
   shutdown, timeouts, errors) is asyncio's code of the interpreter at hand. Both work on one state:
   the attributes that asyncio's code sets are members of the struct, so each side finds what the
   other left.

   Reading takes as many SSLObject.read calls as there are records. asyncio reads until
   SSLWantReadError, and each time into a buffer of 256 KiB; here a `record_counter` follows the
   record headers (RFC 8446, 5.1) of what came in, so that it is known when nothing more can come
   and how long it is at most. OpenSSL judges a header before the rest of the record has come. So
   one that is not that of application data as they ordinarily are is shown to it at once: its
   verdict may be the end.

   Invariants: `records.complete` is never less than the number of whole records that OpenSSL has
   not consumed; it may be more (handshake records are counted, too, and headers that OpenSSL is to
   judge), until a read that finds nothing sets it right. A stream that does not look like records,
   or an SSLObject that is not the ssl module's own, is read by asyncio's own methods.

   Costs: a message of one record read is three calls (BIO write, SSL read, BIO read), one written
   two, and that of the transport. Data of several records is decrypted into one bytes object. */

#define RECORD_HEADER 5
#define RECORD_MAX 16384 /* bytes that one decrypts to */
#define RECORD_EXPANSION                                                                           \
    256 /* what encryption may add to them (RFC 8446, 5.2; RFC 5246, 6.2.3 allows more) */

/* Which asyncio state (SSLProtocolState) it is; the order of st->tls_states. */
enum { TLS_WRAPPED, TLS_DO_HANDSHAKE, TLS_FLUSHING, TLS_SHUTDOWN, TLS_STATES };

typedef struct {
    uint8_t header[RECORD_HEADER];
    uint8_t header_size; /* of it, what has come */
    bool lost;           /* this is not a sequence of records */
    bool shown;          /* the record under way is counted already, for OpenSSL to judge its
                            header */
    size_t length;       /* of the record under way */
    size_t missing;      /* of these bytes, what has not come */
    size_t complete;     /* records that have come and were not read */
    size_t size;         /* of them, in bytes: at least what they decrypt to */
} record_counter;

typedef struct tls {
    PyObject ob_base;
    state *st;
    /* asyncio's attributes of the same names: */
    PyObject *loop, *ssl_state, *sslobj, *incoming, *outgoing, *transport, *app_protocol, *backlog;
    Py_ssize_t backlog_size, outgoing_high_water, outgoing_low_water, incoming_high_water,
        incoming_low_water;
    char ssl_writing_paused, ssl_reading_paused, app_writing_paused, app_reading_paused;
    /* and ours: */
    PyObject *connection; /* has read and write: what is inside of sslobj, or sslobj itself */
    bool counts_records;  /* it is the ssl module's own, which keeps nothing of the memory it is
                             given */
    bool app_is_buffered;
    reader_feed feed;
    record_counter records;
} tls;

#ifdef Py_GIL_DISABLED

/* It is under the lock of its loop, if that is one of ours. */
static void lock_tls(held_lock *lock, tls *self) {
    bool ours = self->loop != NULL && PyObject_TypeCheck(self->loop, self->st->loop_type);
    lock_loop(lock, ours ? (loop *)self->loop : NULL);
}

#endif

#define LOCK_TLS(self) LOCK(lock_tls, self)

/* ---- records ---- */

static bool is_record_header(const uint8_t *header) {
    return header[0] >= 20 && header[0] <= 24 && header[1] == 3; /* content type; major version */
}

/* Is it what application data have nowadays? OpenSSL finds no fault with that alone. */
static bool is_ordinary_header(const record_counter *self) {
    return self->header[0] == 23 && self->header[1] == 3 && self->header[2] == 3 &&
           self->length <= RECORD_MAX + RECORD_EXPANSION;
}

static void count_record(record_counter *self) {
    self->complete++;
    self->size += self->length;
    self->header_size = 0;
    self->shown = false;
}

/* Counts the record under way before it is complete, once, if its header alone may be wrong. */
static void show_header(record_counter *self) {
    if (self->lost || self->shown || self->header_size < RECORD_HEADER || is_ordinary_header(self))
        return;
    self->shown = true;
    self->complete++;
}

static void count_records(record_counter *self, const uint8_t *data, size_t size) {
    while (size > 0 && !self->lost) {
        size_t taken = 1;
        if (self->header_size < RECORD_HEADER) {
            self->header[self->header_size++] = *data;
            if (self->header_size == RECORD_HEADER) {
                self->lost = !is_record_header(self->header);
                self->length = self->missing = (size_t)self->header[3] << 8 | self->header[4];
                if (self->missing == 0) count_record(self);
            }
        } else {
            taken = self->missing < size ? self->missing : size;
            self->missing -= taken;
            if (self->missing == 0) count_record(self);
        }
        data += taken;
        size -= taken;
    }
    show_header(self);
}

/* A read gave `size` bytes where `wanted` fitted: if less, it gave the rest of a record. */
static void records_read(record_counter *self, size_t size, size_t wanted) {
    if (size < wanted && self->complete > 0) self->complete--;
    if (self->complete == 0)
        self->size = 0;
    else
        self->size = self->size > size ? self->size - size : RECORD_MAX; /* they were compressed */
}

/* A read found nothing. */
static void records_all_read(record_counter *self) { self->complete = self->size = 0; }

/* ---- calls ---- */

/* object.method(first, second), without those that are NULL */
static PyObject *tls_call_with(tls *self, PyObject *object, enum name method, PyObject *first,
                               PyObject *second) {
    PyObject *vector[4] = {NULL, object, first, second}, *result;
    size_t count = first == NULL ? 1 : second == NULL ? 2 : 3;
    if (object == NULL) {
        PyErr_SetString(PyExc_AttributeError, "an attribute of this SSLProtocol is not set");
        return NULL;
    }
    Py_INCREF(object); /* it may be replaced meanwhile */
    result = PyObject_VectorcallMethod(self->st->names[method], vector + 1,
                                       count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(object);
    return result;
}

static PyObject *tls_call(tls *self, PyObject *object, enum name method, PyObject *argument) {
    return tls_call_with(self, object, method, argument, NULL);
}

/* The same where the result says nothing: 0, or -1 with an exception set. */
static int tls_do(tls *self, PyObject *object, enum name method, PyObject *argument) {
    PyObject *result = tls_call(self, object, method, argument);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* bio.pending, or -1 */
static Py_ssize_t bio_pending(tls *self, PyObject *bio) {
    PyObject *held = Py_XNewRef(bio), *value = NULL; /* it may be replaced meanwhile */
    Py_ssize_t size;
    if (held == NULL)
        PyErr_SetString(PyExc_AttributeError, "a BIO of this SSLProtocol is not set");
    else
        value = PyObject_GetAttr(held, self->st->names[NAME_PENDING]);
    size = value == NULL ? -1 : PyLong_AsSsize_t(value);
    Py_XDECREF(value);
    Py_XDECREF(held);
    return size;
}

/* asyncio's `except Exception as exc: self._fatal_error(exc, ...)`, of the exception that is
   set. */
static int tls_fatal(tls *self) {
    PyObject *exception, *message, *result = NULL;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    exception = take_exception();
    message = PyUnicode_FromString("Fatal error on SSL protocol");
    if (message != NULL)
        result = tls_call_with(self, (PyObject *)self, NAME_FATAL_ERROR, exception, message);
    Py_XDECREF(message);
    Py_XDECREF(exception);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Is the exception that is set one of asyncio's SSLAgainErrors? Then it is cleared. */
static bool must_wait(tls *self) {
    if (!PyErr_ExceptionMatches(self->st->ssl_again_errors)) return false;
    PyErr_Clear();
    return true;
}

/* ---- outgoing ---- */

/* asyncio's _control_app_writing, called where it would do something. */
static int tls_control_app_writing(tls *self, Py_ssize_t pending) {
    Py_ssize_t size = pending + self->backlog_size;
    bool changes = self->app_writing_paused ? size <= self->outgoing_low_water
                                            : size >= self->outgoing_high_water;
    return changes ? tls_do(self, (PyObject *)self, NAME_CONTROL_APP_WRITING, NULL) : 0;
}

static int tls_send(tls *self, PyObject *data) {
    transport *under = self->transport == NULL ? NULL : plain_transport(self->st, self->transport);
    PyObject *result;
    if (under == NULL) return tls_do(self, self->transport, NAME_WRITE, data);
    Py_INCREF((PyObject *)under);
    result = transport_write(under, data);
    Py_DECREF((PyObject *)under);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* asyncio's _process_outgoing */
static int tls_process_outgoing(tls *self) {
    PyObject *data;
    Py_ssize_t size, pending;
    int result;
    if (self->ssl_writing_paused) {
        pending = bio_pending(self, self->outgoing);
        return pending < 0 ? -1 : tls_control_app_writing(self, pending);
    }
    data = tls_call(self, self->outgoing, NAME_READ, NULL);
    size = data == NULL ? -1 : PyObject_Size(data);
    result = size > 0 ? tls_send(self, data) : (int)size;
    Py_XDECREF(data);
    return result < 0 ? -1 : tls_control_app_writing(self, 0);
}

/* Does data wait? -1 with an exception set. */
static int has_backlog(tls *self) {
    PyObject *backlog = Py_XNewRef(self->backlog);
    int waits = backlog == NULL ? 0 : PyObject_IsTrue(backlog);
    Py_XDECREF(backlog);
    return waits;
}

static int backlog_append(tls *self, PyObject *data) {
    Py_ssize_t size = PyObject_Size(data);
    if (size < 0 || tls_do(self, self->backlog, NAME_APPEND, data) < 0) return -1;
    self->backlog_size += size;
    return 0;
}

/* What is left of data to encrypt. Only the ssl module's own connection is shown the memory as it
   is: another may keep what it is given. */
static PyObject *rest_to_encrypt(tls *self, PyObject *data, const Py_buffer *view,
                                 Py_ssize_t done) {
    if (done == 0) return Py_NewRef(data);
    if (!self->counts_records) return part_of_bytes(self->st, data, done, view->len);
    return PyMemoryView_FromMemory((char *)view->buf + done, view->len - done, PyBUF_READ);
}

/* Encrypts data: 1 if all of it; 0 if it must wait, *left (a new reference) is what then is left;
   -1 */
static int tls_encrypt(tls *self, PyObject *data, PyObject **left) {
    Py_buffer view;
    Py_ssize_t done = 0;
    int result = 1;
    *left = NULL;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return -1;
    while (result == 1 && done < view.len) { /* OpenSSL takes one record at a time */
        PyObject *rest = rest_to_encrypt(self, data, &view, done);
        PyObject *count = rest == NULL ? NULL : tls_call(self, self->connection, NAME_WRITE, rest);
        Py_ssize_t taken = count == NULL ? -1 : PyLong_AsSsize_t(count);
        Py_XDECREF(rest);
        Py_XDECREF(count);
        if (taken < 0 && PyErr_Occurred()) {
            result = must_wait(self) ? 0 : -1;
        } else if (taken < 0 || taken > view.len - done) {
            PyErr_Format(PyExc_ValueError, "write() of TLS took %zd of %zd bytes", taken,
                         view.len - done);
            result = -1;
        } else {
            done += taken;
        }
    }
    if (result == 0) {
        *left = done == 0 ? Py_NewRef(data)
                          : PyBytes_FromStringAndSize((char *)view.buf + done, view.len - done);
        if (*left == NULL) result = -1;
    }
    PyBuffer_Release(&view);
    return result;
}

/* Encrypts data, or appends what must wait to the backlog, which is empty: 1, 0 or -1 as above. */
static int tls_write_now(tls *self, PyObject *data) {
    PyObject *left;
    int result = tls_encrypt(self, data, &left);
    if (result == 0 && backlog_append(self, left) < 0) result = -1;
    Py_XDECREF(left);
    return result;
}

/* asyncio's _do_write: what waits in the backlog */
/* Encrypts the first of the backlog: 1, 0 or -1 as above. */
static int tls_write_first(tls *self, PyObject *backlog) {
    PyObject *data = PySequence_GetItem(backlog, 0), *left = NULL;
    Py_ssize_t size = data == NULL ? -1 : PyObject_Size(data), left_size = 0;
    int result = size < 0 ? -1 : tls_encrypt(self, data, &left);
    Py_XDECREF(data);
    if (left != NULL) left_size = PyObject_Size(left);
    if (left_size < 0) result = -1;
    if (result == 1 && PySequence_DelItem(backlog, 0) < 0) result = -1;
    if (result == 0 && PySequence_SetItem(backlog, 0, left) < 0) result = -1;
    if (result >= 0) self->backlog_size -= size - left_size;
    Py_XDECREF(left);
    return result;
}

static int tls_do_write(tls *self) {
    int waits = has_backlog(self), result = 1;
    while (waits > 0 && result == 1) {
        PyObject *backlog = Py_NewRef(self->backlog);
        result = tls_write_first(self, backlog);
        Py_DECREF(backlog);
        if (result == 1) waits = has_backlog(self);
    }
    return waits < 0 || result < 0 ? -1 : tls_process_outgoing(self);
}

/* May data go past the backlog? Else asyncio's _write_appdata knows what to do with it. -1: an
   exception is set. */
static int tls_writes_now(tls *self) {
    int waits = self->ssl_state == self->st->tls_states[TLS_WRAPPED] ? has_backlog(self) : 1;
    return waits < 0 ? -1 : !waits;
}

static PyObject *tls_written(tls *self, int result) {
    if (result >= 0) result = tls_process_outgoing(self);
    if (result < 0 && tls_fatal(self) < 0) return NULL;
    Py_RETURN_NONE;
}

/* _write_appdata(list_of_data) */
static PyObject *tls_write_appdata(tls *self, PyObject *list) {
    LOCK_TLS(self);
    PyObject *items;
    int result = tls_writes_now(self);
    if (result < 0) return tls_written(self, result);
    if (result == 0) return tls_call(self, (PyObject *)self, NAME_PYTHON_WRITE_APPDATA, list);
    items = copy_sequence(list);
    if (items == NULL) return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items) && result >= 0; i++) {
        PyObject *data = PyTuple_GET_ITEM(items, i);
        if (result == 1)
            result = tls_write_now(self, data);
        else
            result = backlog_append(self, data);
    }
    Py_DECREF(items);
    return tls_written(self, result);
}

static PyObject *tls_write(tls *self, PyObject *data) {
    LOCK_TLS(self);
    PyObject *list, *result;
    int now = tls_writes_now(self);
    if (now != 0) return tls_written(self, now < 0 ? -1 : tls_write_now(self, data));
    list = PyTuple_Pack(1, data);
    result =
        list == NULL ? NULL : tls_call(self, (PyObject *)self, NAME_PYTHON_WRITE_APPDATA, list);
    Py_XDECREF(list);
    return result;
}

/* ---- incoming ---- */

/* connection.read(size), or read(size, buffer), of the ssl module's own connection. Another may
   have taken its place meanwhile, which knows nothing of what has been read by the first. */
static PyObject *tls_decrypt(tls *self, size_t size, PyObject *buffer) {
    PyObject *wanted = self->counts_records ? PyLong_FromSize_t(size) : NULL, *result;
    if (wanted == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_RuntimeError, "SSLProtocol._sslobj was replaced");
        return NULL;
    }
    result = tls_call_with(self, self->connection, NAME_READ, wanted, buffer);
    Py_DECREF(wanted);
    return result;
}

/* The only record: what it decrypts to, as a bytes object, or NULL without an exception if that is
   nothing. */
static PyObject *tls_read_record(tls *self, bool *eof) {
    size_t wanted = self->records.size + 1; /* never full; and OpenSSL is not asked for 0 bytes */
    PyObject *data = tls_decrypt(self, wanted, NULL);
    if (data == NULL) {
        if (must_wait(self)) records_all_read(&self->records);
        return NULL;
    }
    *eof = PyObject_Size(data) == 0;
    records_read(&self->records, (size_t)PyObject_Size(data), wanted);
    if (*eof) Py_CLEAR(data);
    return data;
}

/* Decrypts records into memory, until it is full. Returns how many bytes, or -1 with an exception
   set. */
static Py_ssize_t tls_read_into(tls *self, char *memory, size_t size, bool *eof) {
    size_t done = 0;
    while (self->records.complete > 0 && done < size && !*eof) {
        PyObject *view =
            PyMemoryView_FromMemory(memory + done, (Py_ssize_t)(size - done), PyBUF_WRITE);
        PyObject *count = view == NULL ? NULL : tls_decrypt(self, size - done, view);
        Py_ssize_t taken = count == NULL ? -1 : PyLong_AsSsize_t(count);
        Py_XDECREF(view);
        Py_XDECREF(count);
        if (taken < 0) {
            if (!must_wait(self)) return -1;
            records_all_read(&self->records);
        } else {
            *eof = taken == 0;
            records_read(&self->records, (size_t)taken, size - done);
            done += (size_t)taken;
        }
    }
    return (Py_ssize_t)done;
}

/* What all records decrypt to, as above. */
static PyObject *tls_read_records(tls *self, bool *eof) {
    size_t wanted = self->records.size + 1;
    PyObject *data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)wanted);
    Py_ssize_t size;
    if (data == NULL) return NULL;
    size = tls_read_into(self, PyBytes_AS_STRING(data), wanted, eof);
    if (size <= 0) {
        Py_DECREF(data);
        return NULL;
    }
    _PyBytes_Resize(&data, size); /* on failure data is NULL */
    return data;
}

/* To the application's reader or protocol. */
static int tls_deliver(tls *self, PyObject *data) {
    casync_span span;
    int fed;
    span.ptr = PyBytes_AS_STRING(data);
    span.len = (size_t)PyBytes_GET_SIZE(data);
    fed = feed_bytes(&self->feed, self->app_protocol, span, data);
    if (fed != 0) return fed < 0 ? -1 : 0;
    return tls_do(self, self->app_protocol, NAME_DATA_RECEIVED, data);
}

/* asyncio's _do_read__copied */
static int tls_read_copied(tls *self, bool *eof) {
    PyObject *data =
        self->records.complete == 1 ? tls_read_record(self, eof) : tls_read_records(self, eof);
    int result;
    if (data == NULL) return PyErr_Occurred() ? -1 : 0;
    result = tls_deliver(self, data);
    Py_DECREF(data);
    return result;
}

/* protocol.get_buffer(bytes that wait), exported */
static int tls_borrow_buffer(tls *self, Py_buffer *lent) {
    Py_ssize_t pending = bio_pending(self, self->incoming);
    PyObject *hint = pending < 0 ? NULL : PyLong_FromSsize_t(pending), *buffer = NULL;
    int result = -1;
    if (hint != NULL) buffer = tls_call(self, self->app_protocol, NAME_GET_BUFFER, hint);
    if (buffer != NULL) result = PyObject_GetBuffer(buffer, lent, PyBUF_WRITABLE);
    Py_XDECREF(hint);
    Py_XDECREF(buffer);
    if (result == 0 && check_lent_buffer(lent) < 0) {
        PyBuffer_Release(lent);
        result = -1;
    }
    return result;
}

/* _do_read in the next turn */
static int tls_read_soon(tls *self) {
    PyObject *method = PyObject_GetAttr((PyObject *)self, self->st->names[NAME_DO_READ]),
             *handle = NULL;
    PyObject *lp = Py_XNewRef(self->loop);
    if (method != NULL)
        handle = PyObject_CallMethodOneArg(lp, self->st->names[NAME_CALL_SOON_PYTHON], method);
    Py_XDECREF(lp);
    Py_XDECREF(method);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* asyncio's _do_read__buffered */
static int tls_read_buffered(tls *self, bool *eof) {
    Py_buffer lent;
    PyObject *count;
    Py_ssize_t size, wanted;
    int result;
    if (tls_borrow_buffer(self, &lent) < 0) return -1;
    wanted = lent.len;
    size = tls_read_into(self, (char *)lent.buf, (size_t)wanted, eof);
    PyBuffer_Release(&lent);
    if (size <= 0) return (int)size;
    if (size == wanted && self->records.complete > 0 && tls_read_soon(self) < 0) return -1;
    count = PyLong_FromSsize_t(size);
    result = count == NULL ? -1 : tls_do(self, self->app_protocol, NAME_BUFFER_UPDATED, count);
    Py_XDECREF(count);
    return result;
}

/* asyncio's _control_ssl_reading, called where it would do something. */
static int tls_control_ssl_reading(tls *self) {
    Py_ssize_t size = bio_pending(self, self->incoming);
    bool changes;
    if (size < 0) return -1;
    changes = self->ssl_reading_paused ? size <= self->incoming_low_water
                                       : size >= self->incoming_high_water;
    return changes ? tls_do(self, (PyObject *)self, NAME_CONTROL_SSL_READING, NULL) : 0;
}

/* May the application have data now? */
static bool tls_is_readable(tls *self) {
    PyObject *const *states = self->st->tls_states;
    return !self->app_reading_paused &&
           (self->ssl_state == states[TLS_WRAPPED] || self->ssl_state == states[TLS_FLUSHING]);
}

/* One read into the protocol's own buffer, or all there is. */
static int tls_read_pending(tls *self) {
    bool eof = false; /* close_notify came */
    do {
        if (self->records.complete == 0) return 0;
        if ((self->app_is_buffered ? tls_read_buffered : tls_read_copied)(self, &eof) < 0)
            return -1;
    } while (!eof && !self->app_is_buffered && tls_is_readable(self));
    if (!eof) return 0;
    if (tls_do(self, (PyObject *)self, NAME_CALL_EOF_RECEIVED, NULL) < 0) return -1;
    return tls_do(self, (PyObject *)self, NAME_START_SHUTDOWN, NULL);
}

static int tls_read_and_answer(tls *self) {
    if (!self->app_reading_paused) {
        if (tls_read_pending(self) < 0) return -1;
        if (tls_do_write(self) < 0) return -1;
    }
    return tls_control_ssl_reading(self);
}

/* asyncio's _do_read */
static int tls_do_read(tls *self) {
    PyObject *const *states = self->st->tls_states;
    if (self->ssl_state != states[TLS_WRAPPED] && self->ssl_state != states[TLS_FLUSHING]) return 0;
    if (!self->counts_records || self->records.lost)
        return tls_do(self, (PyObject *)self, NAME_PYTHON_DO_READ, NULL);
    return tls_read_and_answer(self) < 0 ? tls_fatal(self) : 0;
}

/* asyncio's buffer_updated, of bytes that are anywhere. They may be gone after a call of what is
   not the ssl module's own, and that may keep what it is given. */
static int tls_receive(tls *self, casync_span span) {
    static const enum name steps[TLS_STATES] = {0, NAME_DO_HANDSHAKE, NAME_DO_FLUSH,
                                                NAME_DO_SHUTDOWN};
    bool own =
        self->incoming != NULL && (PyObject *)Py_TYPE(self->incoming) == self->st->memory_bio_type;
    const char *data = (const char *)span.ptr;
    PyObject *bytes =
        own ? PyMemoryView_FromMemory((char *)(uintptr_t)data, (Py_ssize_t)span.len, PyBUF_READ)
            : PyBytes_FromStringAndSize(data, (Py_ssize_t)span.len);
    int result;
    if (bytes == NULL) return -1;
    count_records(&self->records, (const uint8_t *)data, span.len);
    result = tls_do(self, self->incoming, NAME_WRITE, bytes);
    Py_DECREF(bytes);
    if (result < 0) return -1;
    if (self->ssl_state == self->st->tls_states[TLS_WRAPPED]) return tls_do_read(self);
    for (int i = TLS_DO_HANDSHAKE; i < TLS_STATES; i++)
        if (self->ssl_state == self->st->tls_states[i])
            return tls_do(self, (PyObject *)self, steps[i], NULL);
    return 0;
}

/* What a native transport has read, for an SSLProtocol of ours. */
static void on_tls_data(casync_stream *stream, casync_span span) {
    transport *self = transport_of(stream);
    loop *lp = transport_hold(self);
    PyObject *protocol = Py_NewRef(self->protocol); /* it may be replaced meanwhile */
    running_call call;
    int result;
    if (lp->calls_python) {
        transport_deliver(self, lp,
                          PyBytes_FromStringAndSize((const char *)span.ptr, (Py_ssize_t)span.len));
        result = 0;
    } else if ((result = transport_enter(self, lp, &call)) > 0) {
        result = tls_receive((tls *)protocol, span);
        if (transport_leave(lp, &call) < 0) result = -1;
    }
    if (result < 0)
        transport_fatal(self, lp, "Fatal error: protocol.buffer_updated() call failed.");
    Py_DECREF(protocol);
    transport_let_go(self, lp);
}

static const casync_protocol tls_protocol = {NULL,
                                             on_tls_data,
                                             NULL,
                                             NULL,
                                             on_eof_received,
                                             on_pause_writing,
                                             on_resume_writing,
                                             on_connection_lost};

static bool is_tls(state *st, PyObject *protocol) {
    return st->tls_type != NULL && PyObject_TypeCheck(protocol, st->tls_type);
}
