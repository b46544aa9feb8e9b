/* The loop's sock_* methods: what asyncio/selector_events.py has as coroutines, as awaitables in C.

   Idea: each method is attempted at once; if the socket says "not now", the operation watches the
   socket by a handle of its own (in the table that add_reader uses), awaits a future, and is
   attempted again when it is stepped after that. sock_recv, sock_recv_into and sock_sendall of a
   plain socket.socket are system calls on the descriptor; whatever else they are given (a class of
   one's own, a mock), and all other methods, go by the socket object's methods, so addresses are
   what these make of them.

   Invariants: bytes are read, and connections accepted, in the step of who awaits them, never
   before: an operation that is cancelled takes nothing with it. As in asyncio the last who waits
   for a direction of a descriptor replaces the one before, who is not woken any more. The system
   calls never wait, also if the socket is a blocking one. A connect() that the kernel does not go
   on with (EAGAIN) is tried again, or fails: it is no connection.

   Costs: an operation that need not wait is one object and the system call. One that waits adds a
   future, its iterator and two handles (the watcher's, the task's). A request and its answer by
   sock_recv and sock_sendall are three system calls with the wait: after a short read the socket is
   not asked in vain whether there is more already (but now and then, and on if that was not in
   vain), and the kernel goes on watching it (watcher.c). Small messages are received to a buffer of
   the loop's and copied to a bytes object of their size; after one that filled half of what was
   asked for, the next goes to a bytes object at once. */

#define RECEIVE_SIZE 65536 /* the loop's buffer; who asks for more gets an object of that size */

/* A Unix socket that finds the queue of who listens full knocks again after so long, and twice
   that. */
#define CONNECT_PAUSE CASYNC_MS(1)
#define CONNECT_PAUSE_MAX CASYNC_MS(64)

typedef struct sock_operation sock_operation;

typedef struct {
    awaitable_kind awaitable; /* first: the operation's `kind` */
    const char *parameters[4];
    Py_ssize_t required; /* of these */
    /* 1 and a result, 0 if the socket must get ready first, -1 with an exception set */
    int (*attempt)(sock_operation *op, PyObject **result);
    bool writing; /* which readiness it waits for */
} sock_kind;

struct sock_operation {
    awaitable awaitable;
    loop *loop;
    handle *handle;    /* the watcher's, or NULL */
    handle *timer;     /* that ends a pause, or NULL */
    bool woken;        /* the future's result is set */
    bool connecting;   /* connect() has begun */
    bool drained;      /* the socket had less than was asked for */
    int8_t state;      /* see private_cpython.c */
    bool tried;        /* there was an attempt */
    bool sent_some;    /* of the data */
    bool misled;       /* the last one was in vain, though an event had come */
    int fd;            /* that the handle watches */
    PyObject *args[3]; /* by kind->parameters */
    int64_t pause;     /* 0: the kernel will tell when to try again */
    PyObject *future;  /* that is awaited while the handle waits */
    Py_buffer data;    /* of sock_sendall, once begun: `obj` is NULL before */
    Py_ssize_t sent;   /* bytes of it */
};

ASSERT_STATE_PLACE(sock_operation);

static const sock_kind *sock_kind_of(sock_operation *op) {
    return (const sock_kind *)(const void *)op->awaitable.kind;
}

static PyObject *sock_name(sock_operation *op, enum name name) {
    return op->loop->state->names[name];
}

/* ---- attempts ---- */

/* What came of a socket's method, whose reference is taken: that was not possible now, or it is
   done. */
static int attempted(PyObject *value, PyObject **result) {
    *result = value;
    if (value != NULL) return 1;
    if (!PyErr_ExceptionMatches(PyExc_BlockingIOError) &&
        !PyErr_ExceptionMatches(PyExc_InterruptedError))
        return -1;
    PyErr_Clear();
    return 0;
}

/* As above, of a system call's errno, or of what a signal handler raised. */
static int attempt_failed(void) {
    if (PyErr_Occurred()) return -1;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* Was a system call interrupted, and is to be done again (PEP 475)? Not if a signal handler
   raised. */
static bool interrupted(Py_ssize_t result) {
    return result < 0 && errno == EINTR && PyErr_CheckSignals() == 0;
}

/* sock.fileno(): -1 if it is closed, or with an exception set. */
static int sock_fileno(sock_operation *op) {
    state *st = op->loop->state;
    PyObject *sock = op->args[0], *number;
    long fd;
    int known;
    if (read_socket_number(st, sock, &known)) return known;
    number = PyObject_CallMethodNoArgs(sock, st->names[NAME_FILENO]);
    fd = number == NULL ? -1 : PyLong_AsLong(number);
    Py_XDECREF(number);
    return fd > INT_MAX || fd < -1 ? -1 : (int)fd;
}

/* Is it a socket.socket whose method is the one that we know? Instances of that have no attributes
   of their own. */
static bool is_plain_socket(sock_operation *op, enum name name, PyObject *method) {
    PyObject *type = (PyObject *)Py_TYPE(op->args[0]), *found;
    if (type != op->loop->state->socket_type) return false;
    found = PyObject_GetAttr(type, sock_name(op, name));
    if (found == NULL) forget_exception(PyExc_AttributeError, type);
    Py_XDECREF(found);
    return found == method;
}

static Py_ssize_t receive(int fd, void *buffer, size_t size) {
    Py_ssize_t count;
    do count = recv(fd, buffer, size, MSG_DONTWAIT);
    while (interrupted(count));
    return count;
}

static int receive_bytes(int fd, Py_ssize_t size, PyObject **result) {
    Py_ssize_t count;
    *result = PyBytes_FromStringAndSize(NULL, size);
    if (*result == NULL) return -1;
    count = receive(fd, PyBytes_AS_STRING(*result), (size_t)size);
    if (count < 0) {
        int failed = attempt_failed();
        Py_CLEAR(*result);
        return failed;
    }
    return count < size && _PyBytes_Resize(result, count) < 0 ? -1 : 1;
}

static int receive_and_copy(loop *lp, int fd, Py_ssize_t size, PyObject **result) {
    Py_ssize_t count;
    if (lp->received == NULL) lp->received = (char *)PyMem_Malloc(RECEIVE_SIZE);
    if (lp->received == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    count = receive(fd, lp->received, (size_t)size);
    if (count < 0) return attempt_failed();
    *result = PyBytes_FromStringAndSize(lp->received, count);
    return *result == NULL ? -1 : 1;
}

/* sock_recv(sock, n) */
static int attempt_recv(sock_operation *op, PyObject **result) {
    loop *lp = op->loop;
    Py_ssize_t size = PyLong_CheckExact(op->args[1]) ? PyLong_AsSsize_t(op->args[1]) : 0;
    int fd, done;
    if (size == -1) (void)clear_exception(PyExc_OverflowError);
    if (size <= 0 || !is_plain_socket(op, NAME_RECV, lp->state->socket_recv))
        return attempted(
            PyObject_CallMethodOneArg(op->args[0], sock_name(op, NAME_RECV), op->args[1]), result);
    fd = sock_fileno(op);
    if (fd == -1 && PyErr_Occurred()) return -1;
    if (size > RECEIVE_SIZE || lp->receives_bulk)
        done = receive_bytes(fd, size, result);
    else
        done = receive_and_copy(lp, fd, size, result);
    if (done > 0) op->drained = PyBytes_GET_SIZE(*result) < size;
    if (done > 0) lp->receives_bulk = PyBytes_GET_SIZE(*result) > size / 2 && size >= BULK_END;
    return done;
}

static int receive_into_by_method(sock_operation *op, PyObject **result) {
    return attempted(
        PyObject_CallMethodOneArg(op->args[0], sock_name(op, NAME_RECV_INTO), op->args[1]), result);
}

/* sock_recv_into(sock, buf). What is no buffer to write to, the method refuses in its own words. */
static int attempt_recv_into(sock_operation *op, PyObject **result) {
    Py_buffer buffer;
    Py_ssize_t count;
    int fd, failed = 0;
    if (!is_plain_socket(op, NAME_RECV_INTO, op->loop->state->socket_recv_into))
        return receive_into_by_method(op, result);
    if (PyObject_GetBuffer(op->args[1], &buffer, PyBUF_WRITABLE) < 0)
        return is_no_buffer() ? receive_into_by_method(op, result) : -1;
    fd = sock_fileno(op); /* after that, which may close the socket */
    count = buffer.len == 0 ? 0 : receive(fd, buffer.buf, (size_t)buffer.len);
    if (count < 0) failed = attempt_failed();
    PyBuffer_Release(&buffer);
    if (count < 0) return failed;
    op->drained = count < buffer.len;
    *result = PyLong_FromSsize_t(count);
    return *result == NULL ? -1 : 1;
}

/* sock_recvfrom(sock, bufsize) */
static int attempt_recvfrom(sock_operation *op, PyObject **result) {
    return attempted(
        PyObject_CallMethodOneArg(op->args[0], sock_name(op, NAME_RECVFROM), op->args[1]), result);
}

/* sock_recvfrom_into(sock, buf, nbytes=0): 0 for all of the buffer. */
static int attempt_recvfrom_into(sock_operation *op, PyObject **result) {
    int given = op->args[2] == NULL ? 0 : PyObject_IsTrue(op->args[2]);
    if (given < 0) return -1;
    if (!given) {
        Py_ssize_t size = PyObject_Size(op->args[1]);
        PyObject *number = size < 0 ? NULL : PyLong_FromSsize_t(size);
        if (number == NULL) return -1;
        Py_XSETREF(op->args[2], number);
    }
    return attempted(PyObject_CallMethodObjArgs(op->args[0], sock_name(op, NAME_RECVFROM_INTO),
                                                op->args[1], op->args[2], NULL),
                     result);
}

/* What sock_sendall has left to send, as an object: data[sent:] as Python has it, also where a
   socket's send() has said that it sent less than nothing. */
static PyObject *rest_of_data(sock_operation *op) {
    PyObject *slice, *view, *rest = NULL, *begin;
    if (!op->sent_some) return Py_NewRef(op->args[1]);
    begin = PyLong_FromSsize_t(op->sent);
    slice = begin == NULL ? NULL : PySlice_New(begin, NULL, NULL);
    view = slice == NULL ? NULL : part_of_bytes(op->loop->state, op->args[1], 0, PY_SSIZE_T_MAX);
    if (view != NULL) rest = PyObject_GetItem(view, slice);
    Py_XDECREF(begin);
    Py_XDECREF(slice);
    Py_XDECREF(view);
    return rest;
}

static int send_by_method(sock_operation *op, Py_ssize_t *count) {
    PyObject *rest = rest_of_data(op), *sent;
    int done;
    if (rest == NULL) return -1;
    done = attempted(PyObject_CallMethodOneArg(op->args[0], sock_name(op, NAME_SEND), rest), &sent);
    Py_DECREF(rest);
    if (done <= 0) return done;
    *count = PyNumber_AsSsize_t(sent, PyExc_OverflowError);
    Py_DECREF(sent);
    return *count == -1 && PyErr_Occurred() ? -1 : 1;
}

/* How much of the rest the socket took, in *count. */
static int send_rest(sock_operation *op, Py_ssize_t *count) {
    int fd;
    if (op->sent < 0 || op->sent > op->data.len ||
        !is_plain_socket(op, NAME_SEND, op->loop->state->socket_send))
        return send_by_method(op, count);
    fd = sock_fileno(op);
    if (fd == -1 && PyErr_Occurred()) return -1;
    do
        *count = send(fd, (char *)op->data.buf + op->sent, (size_t)(op->data.len - op->sent),
                      MSG_DONTWAIT | MSG_NOSIGNAL);
    while (interrupted(*count));
    return *count < 0 ? attempt_failed() : 1;
}

/* sock_sendall(sock, data): one send for each time the socket is writable. What a socket of another
   class says that it sent is added up as asyncio does, which is done when that is all, and goes on
   if it is more. */
static int attempt_sendall(sock_operation *op, PyObject **result) {
    Py_ssize_t count = 0;
    int done;
    if (op->data.obj == NULL && PyObject_GetBuffer(op->args[1], &op->data, PyBUF_SIMPLE) < 0)
        return -1;
    done = send_rest(op, &count);
    if (done < 0) return -1;
    if (done > 0) {
        if (__builtin_add_overflow(op->sent, count, &op->sent)) {
            PyErr_SetString(PyExc_OverflowError, "send() returned too large a number");
            return -1;
        }
        op->sent_some = true;
    }
    if (op->sent != op->data.len) return 0;
    *result = Py_NewRef(Py_None);
    return 1;
}

/* sock_sendto(sock, data, address) */
static int attempt_sendto(sock_operation *op, PyObject **result) {
    return attempted(PyObject_CallMethodObjArgs(op->args[0], sock_name(op, NAME_SENDTO),
                                                op->args[1], op->args[2], NULL),
                     result);
}

/* sock_accept(sock) */
static int attempt_accept(sock_operation *op, PyObject **result) {
    PyObject *accepted, *blocking;
    int done =
        attempted(PyObject_CallMethodNoArgs(op->args[0], sock_name(op, NAME_ACCEPT)), &accepted);
    if (done <= 0) return done;
    *result = PySequence_Tuple(accepted); /* (conn, address) */
    Py_DECREF(accepted);
    if (*result == NULL) return -1;
    if (PyTuple_GET_SIZE(*result) != 2) {
        PyErr_Format(PyExc_ValueError, "accept() returned %zd values, not 2",
                     PyTuple_GET_SIZE(*result));
        return -1;
    }
    blocking = PyObject_CallMethodOneArg(PyTuple_GET_ITEM(*result, 0),
                                         sock_name(op, NAME_SETBLOCKING), Py_False);
    Py_XDECREF(blocking);
    return blocking == NULL ? -1 : 1;
}

/* What became of a connect() that did not end at once: SO_ERROR. */
static int attempt_connected(sock_operation *op, PyObject **result) {
    PyObject *method = PyObject_GetAttr(op->args[0], sock_name(op, NAME_GETSOCKOPT));
    PyObject *number =
        method == NULL ? NULL : PyObject_CallFunction(method, "ii", SOL_SOCKET, SO_ERROR);
    long error = number == NULL ? -1 : PyLong_AsLong(number);
    PyObject *message, *exception;
    Py_XDECREF(method);
    Py_XDECREF(number);
    if (error == -1 && PyErr_Occurred()) return attempted(NULL, result);
    if (error == EAGAIN || error == EINTR) return 0;
    if (error == 0) {
        *result = Py_NewRef(Py_None);
        return 1;
    }
    message = PyUnicode_FromFormat("Connect call failed %S", op->args[1]);
    exception = message == NULL ? NULL : PyObject_CallFunction(PyExc_OSError, "lO", error, message);
    Py_XDECREF(message);
    if (exception != NULL) raise_exception(exception);
    return -1;
}

/* Does the exception that is set have this errno? */
static bool raised_errno(sock_operation *op, int number) {
    PyObject *exception = take_exception();
    PyObject *value =
        exception == NULL ? NULL : PyObject_GetAttr(exception, sock_name(op, NAME_ERRNO));
    bool same = value != NULL && PyLong_CheckExact(value) && PyLong_AsLong(value) == number;
    Py_XDECREF(value);
    if (!clear_exception(PyExc_OverflowError)) forget_exception(PyExc_AttributeError, exception);
    if (exception != NULL) raise_exception(exception);
    return same;
}

/* connect() was EAGAIN: nothing is in progress, and the socket will not get ready (asyncio takes
   that for a connection). Only for a Unix socket there is hope, as the queue of who listens was
   full (connect(2)): what a blocking one waits for. */
static int pause_connect(sock_operation *op) {
    PyObject *exception = take_exception();
    PyObject *family = PyObject_GetAttr(op->args[0], sock_name(op, NAME_FAMILY));
    long number = family == NULL ? -1 : PyLong_AsLong(family);
    Py_XDECREF(family);
    if (number != AF_UNIX) {
        forget_exception(PyExc_Exception, op->args[0]); /* then it is no socket of the kernel's */
        raise_exception(exception);
        return -1;
    }
    Py_DECREF(exception);
    op->pause = op->pause == 0 ? CONNECT_PAUSE : op->pause * 2;
    if (op->pause > CONNECT_PAUSE_MAX) op->pause = CONNECT_PAUSE_MAX;
    return 0;
}

/* sock_connect(sock, address), of which the address is resolved already. */
static int attempt_connect(sock_operation *op, PyObject **result) {
    PyObject *value;
    if (op->connecting) return attempt_connected(op, result);
    value = PyObject_CallMethodOneArg(op->args[0], sock_name(op, NAME_CONNECT), op->args[1]);
    if (value == NULL && raised_errno(op, EAGAIN)) return pause_connect(op);
    op->connecting = true;
    op->pause = 0;
    return attempted(value, result);
}

static PySendResult sock_step(awaitable *self, PyObject **result);
static void sock_finish(awaitable *self);

#define SOCK_AWAITABLE(name)                                                                       \
    { "EventLoop", name, sock_step, NULL, sock_finish }

static const sock_kind sock_recv_kind = {
    SOCK_AWAITABLE("sock_recv"), {"sock", "n"}, 2, attempt_recv, false};
static const sock_kind sock_recv_into_kind = {
    SOCK_AWAITABLE("sock_recv_into"), {"sock", "buf"}, 2, attempt_recv_into, false};
static const sock_kind sock_recvfrom_kind = {
    SOCK_AWAITABLE("sock_recvfrom"), {"sock", "bufsize"}, 2, attempt_recvfrom, false};
static const sock_kind sock_recvfrom_into_kind = {SOCK_AWAITABLE("sock_recvfrom_into"),
                                                  {"sock", "buf", "nbytes"},
                                                  2,
                                                  attempt_recvfrom_into,
                                                  false};
static const sock_kind sock_accept_kind = {
    SOCK_AWAITABLE("sock_accept"), {"sock"}, 1, attempt_accept, false};
static const sock_kind sock_sendall_kind = {
    SOCK_AWAITABLE("sock_sendall"), {"sock", "data"}, 2, attempt_sendall, true};
static const sock_kind sock_sendto_kind = {
    SOCK_AWAITABLE("sock_sendto"), {"sock", "data", "address"}, 3, attempt_sendto, true};
static const sock_kind sock_connect_kind = {
    SOCK_AWAITABLE("sock_connect"), {"sock", "address"}, 2, attempt_connect, true};

/* ---- waiting ---- */

static int sock_traverse(sock_operation *op, visitproc visit, void *arg);

/* What the watcher's handle calls. The operation goes on in a step of the task that awaits it. */
static PyObject *sock_ready(PyObject *Py_UNUSED(module), PyObject *object) {
    sock_operation *op = (sock_operation *)object;
    PyObject *future, *result, *invalid_state_error;
    if (Py_TYPE(object)->tp_traverse != (traverseproc)(void (*)(void))sock_traverse)
        return PyErr_Format(PyExc_TypeError, "an operation of a socket is needed");
    LOCK_LOOP(op->loop);
    if (op->woken || op->future == NULL) Py_RETURN_NONE;
    op->woken = true;
    future = Py_NewRef(op->future); /* the operation may end meanwhile */
    invalid_state_error = op->loop->state->invalid_state_error;
    result = PyObject_CallMethodOneArg(future, sock_name(op, NAME_SET_RESULT), Py_None);
    Py_DECREF(future);
    if (result != NULL || !PyErr_ExceptionMatches(invalid_state_error)) return result;
    PyErr_Clear(); /* it was cancelled, and the task does not know yet */
    Py_RETURN_NONE;
}

static PyMethodDef sock_ready_method = {"_sock_ready", sock_ready, METH_O, NULL};

/* The watch that has the operation's handle, unless somebody else has come in its place. */
static watch *sock_watch_of(sock_operation *op) {
    watch *w = watch_of(casync_watcher_find(&op->loop->casync, op->fd));
    return w != NULL && *watch_side(w, sock_kind_of(op)->writing) == op->handle ? w : NULL;
}

static void sock_unwatch(sock_operation *op) {
    watch *w;
    if (op->handle == NULL) return;
    w = sock_watch_of(op);
    if (w != NULL && w->socket != NULL) w->drained = op->drained;
    if (w != NULL) watch_stop(w, sock_kind_of(op)->writing);
    Py_CLEAR(op->handle);
}

/* The event was perhaps that of another file. */
static void sock_renew(sock_operation *op) {
    watch *w = sock_watch_of(op);
    if (w != NULL) watch_renew(w);
}

/* asyncio's _ensure_fd_no_transport, for a descriptor that is watched by others than add_reader's
   watch. */
static int sock_ensure_no_transport(sock_operation *op) {
    PyObject *number = PyLong_FromLong(op->fd);
    PyObject *checked = number == NULL ? NULL : loop_ensure_fd_no_transport(op->loop, number);
    Py_XDECREF(number);
    Py_XDECREF(checked);
    return checked == NULL ? -1 : 0;
}

static int sock_watch(sock_operation *op) {
    loop *lp = op->loop;
    PyObject *sock = op->args[0];
    casync_watcher *found;
    bool writing = sock_kind_of(op)->writing;
    int result;
    if (lp->closed) {
        raise_closed();
        return -1;
    }
    op->fd = sock_fileno(op);
    if (op->fd < 0) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %d", op->fd);
        return -1;
    }
    found = casync_watcher_find(&lp->casync, op->fd);
    if (found != NULL && watch_of(found) == NULL && sock_ensure_no_transport(op) < 0) return -1;
    op->handle = wrap_handle(lp, HANDLE_PLAIN, lp->state->sock_ready, (PyObject *)op);
    if (op->handle == NULL) return -1;
    if ((PyObject *)Py_TYPE(sock) == lp->state->socket_type)
        result = watch_socket(lp, op->fd, writing, op->handle, sock, op->tried);
    else
        result = watch_set(lp, op->fd, writing, op->handle, NULL);
    if (result < 0) Py_CLEAR(op->handle);
    return result;
}

static void sock_stop_timer(sock_operation *op) {
    if (op->timer != NULL) handle_cancel_now(op->timer);
    Py_CLEAR(op->timer);
}

/* Starts the timer that ends the pause. */
static int sock_pause(sock_operation *op) {
    loop *lp = op->loop;
    handle *h;
    int64_t result;
    if (lp->closed) {
        raise_closed();
        return -1;
    }
    h = wrap_handle(lp, HANDLE_TIMER, lp->state->sock_ready, (PyObject *)op);
    if (h == NULL) return -1;
    result = casync_call_later(&lp->casync, timer_of(h), op->pause, handle_run, h);
    if (result < 0) {
        Py_DECREF(h);
        raise_os_error(result);
        return -1;
    }
    sock_stop_timer(op);
    op->timer = (handle *)Py_NewRef((PyObject *)h);
    return 0;
}

/* Makes the future that the handle of the watcher, or of the timer, will wake. */
static int sock_wait(sock_operation *op) {
    if (op->pause > 0) {
        if (sock_pause(op) < 0) return -1;
    } else if (op->handle == NULL) {
        if (sock_watch(op) < 0) return -1;
    } else if (op->misled) {
        sock_renew(op);
    }
    op->woken = false;
    Py_XSETREF(op->future, loop_create_future(op->loop, NULL));
    if (op->future != NULL) op->awaitable.waiting = PyObject_GetIter(op->future);
    return op->awaitable.waiting == NULL ? -1 : 0;
}

static void sock_finish(awaitable *self) {
    LOCK_LOOP(((sock_operation *)self)->loop);
    sock_operation *op = (sock_operation *)self;
    Py_buffer data = op->data;
    if (op->loop == NULL) return;
    op->data.obj = NULL; /* its release may come here again */
    sock_unwatch(op);
    sock_stop_timer(op);
    Py_CLEAR(op->future);
    PyBuffer_Release(&data); /* does nothing if there is none */
    for (int i = 0; i < 3; i++) Py_CLEAR(op->args[i]);
    Py_CLEAR(op->loop);
}

/* ---- the body ---- */

/* asyncio's checks of the socket. */
static int sock_check(sock_operation *op) {
    PyObject *sock = op->args[0], *checked, *timeout;
    int blocking;
    if ((PyObject *)Py_TYPE(sock) != op->loop->state->socket_type) {
        checked = PyObject_CallOneArg(op->loop->state->check_ssl_socket, sock);
        if (checked == NULL) return -1;
        Py_DECREF(checked);
    }
    if (!op->loop->debug) return 0;
    timeout = PyObject_CallMethodNoArgs(sock, sock_name(op, NAME_GETTIMEOUT));
    checked = timeout == NULL ? NULL : PyLong_FromLong(0);
    blocking = checked == NULL ? -1 : PyObject_RichCompareBool(timeout, checked, Py_NE);
    Py_XDECREF(timeout);
    Py_XDECREF(checked);
    if (blocking > 0) PyErr_SetString(PyExc_ValueError, "the socket must be non-blocking");
    return blocking == 0 ? 0 : -1;
}

/* sock_connect's address, resolved by asyncio's _ensure_resolved, which is a coroutine:
   `waiting`. */
static int sock_resolve(sock_operation *op) {
    PyObject *sock = op->args[0], *method = NULL, *args = NULL, *keywords = NULL, *coroutine = NULL;
    PyObject *family = PyObject_GetAttr(sock, sock_name(op, NAME_FAMILY));
    PyObject *type = NULL, *protocol = NULL;
    long number = family == NULL ? -1 : PyLong_AsLong(family);
    int result = -1;
    if (number == -1 && PyErr_Occurred()) goto done;
    result = 0;
    if (number != AF_INET && number != AF_INET6) goto done;
    result = -1;
    type = PyObject_GetAttr(sock, sock_name(op, NAME_TYPE));
    if (type != NULL) protocol = PyObject_GetAttr(sock, sock_name(op, NAME_PROTO));
    if (protocol != NULL)
        method = PyObject_GetAttr((PyObject *)op->loop, sock_name(op, NAME_ENSURE_RESOLVED));
    if (method == NULL) goto done;
    args = PyTuple_Pack(1, op->args[1]);
    keywords = Py_BuildValue("{sO sO sO sO}", "family", family, "type", type, "proto", protocol,
                             "loop", (PyObject *)op->loop);
    if (args != NULL && keywords != NULL) coroutine = PyObject_Call(method, args, keywords);
    if (coroutine != NULL)
        op->awaitable.waiting = PyObject_CallMethodNoArgs(coroutine, sock_name(op, NAME_AWAIT));
    if (op->awaitable.waiting != NULL) result = 0;
done:
    Py_XDECREF(family);
    Py_XDECREF(type);
    Py_XDECREF(protocol);
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(keywords);
    Py_XDECREF(coroutine);
    return result;
}

/* The address of the first of getaddrinfo's answers. */
static int sock_resolved(sock_operation *op, PyObject *infos) {
    PyObject *first = PySequence_GetItem(infos, 0);
    PyObject *address = first == NULL ? NULL : PySequence_GetItem(first, 4);
    Py_XDECREF(first);
    if (address == NULL) return -1;
    Py_SETREF(op->args[1], address);
    return 0;
}

static int sock_begin(sock_operation *op) {
    if (sock_check(op) < 0) return -1;
    return sock_kind_of(op) == &sock_connect_kind ? sock_resolve(op) : 0;
}

/* Is it known that an attempt to read would find nothing? */
static bool sock_is_drained(sock_operation *op) {
    PyObject *sock = op->args[0];
    if (sock_kind_of(op)->writing || (PyObject *)Py_TYPE(sock) != op->loop->state->socket_type)
        return false;
    return is_drained(op->loop, sock_fileno(op), sock);
}

static PySendResult sock_step(awaitable *self, PyObject **result) {
    LOCK_LOOP(((sock_operation *)self)->loop);
    sock_operation *op = (sock_operation *)self;
    Py_ssize_t sent;
    int done;
    if (self->waiting == NULL && sock_begin(op) < 0) return PYGEN_ERROR;
    if (self->waiting == NULL && sock_is_drained(op) && sock_wait(op) < 0) return PYGEN_ERROR;
    for (;;) {
        if (self->waiting != NULL) {
            PySendResult answer = PyIter_Send(self->waiting, Py_None, result);
            if (answer == PYGEN_NEXT) return answer;
            Py_CLEAR(self->waiting);
            if (answer == PYGEN_ERROR) return answer;
            if (op->future == NULL && sock_resolved(op, *result) < 0) return PYGEN_ERROR;
            Py_CLEAR(*result);
        }
        op->tried = true;
        sent = op->sent;
        done = sock_kind_of(op)->attempt(op, result);
        op->misled = sent == op->sent;
        if (done != 0) return done > 0 ? PYGEN_RETURN : PYGEN_ERROR;
        if (sock_wait(op) < 0) return PYGEN_ERROR;
    }
}

static int sock_traverse(sock_operation *op, visitproc visit, void *arg) {
    Py_VISIT(op->loop);
    Py_VISIT(op->future);
    Py_VISIT(op->data.obj);
    for (int i = 0; i < 3; i++) Py_VISIT(op->args[i]);
    return awaitable_visit(&op->awaitable, visit, arg);
}

static PyType_Slot sock_slots[] = {
    {Py_tp_doc, "The sock_* methods of the loop return this awaitable."},
    {Py_tp_traverse, sock_traverse},
    AWAITABLE_SLOTS,
    {0, NULL},
};

static PyType_Spec sock_spec = {"casync._native.SocketOperation", sizeof(sock_operation), 0,
                                AWAITABLE_FLAGS, sock_slots};

/* ---- the methods ---- */

/* The place of a keyword argument among the parameters, or -1. */
static int find_parameter(const sock_kind *kind, PyObject *keyword) {
    for (int i = 0; i < 3 && kind->parameters[i] != NULL; i++)
        if (PyUnicode_CompareWithASCIIString(keyword, kind->parameters[i]) == 0) return i;
    return -1;
}

/* Fills op->args: 0, or -1 with a TypeError in Python's words. */
static int sock_parse(sock_operation *op, PyObject *const *args, Py_ssize_t count,
                      PyObject *keywords) {
    const sock_kind *kind = sock_kind_of(op);
    const char *name = kind->awaitable.name;
    Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords), most = 0;
    while (most < 3 && kind->parameters[most] != NULL) most++;
    if (count > most) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments but %zd were given", name, most,
                     count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) op->args[i] = Py_NewRef(args[i]);
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *keyword = PyTuple_GET_ITEM(keywords, i);
        int place = find_parameter(kind, keyword);
        if (place < 0 || op->args[place] != NULL) {
            PyErr_Format(PyExc_TypeError,
                         place < 0 ? "%s() got an unexpected keyword argument '%U'"
                                   : "%s() got multiple values for argument '%U'",
                         name, keyword);
            return -1;
        }
        op->args[place] = Py_NewRef(args[count + i]);
    }
    for (Py_ssize_t i = 0; i < kind->required; i++) {
        if (op->args[i] != NULL) continue;
        PyErr_Format(PyExc_TypeError, "%s() missing required argument: '%s'", name,
                     kind->parameters[i]);
        return -1;
    }
    return 0;
}

static PyObject *new_sock_operation(loop *self, const sock_kind *kind, PyObject *const *args,
                                    Py_ssize_t count, PyObject *keywords) {
    sock_operation *op =
        (sock_operation *)new_awaitable(self->state, AWAITABLE_SOCK, &kind->awaitable);
    if (op == NULL) return NULL;
    memset(&op->loop, 0, sizeof *op - offsetof(sock_operation, loop));
    op->loop = (loop *)Py_NewRef((PyObject *)self);
    track_awaitable(self->state, &op->awaitable);
    if (sock_parse(op, args, count, keywords) == 0) return (PyObject *)op;
    op->awaitable.progress = AWAITABLE_FINISHED; /* it does not warn that nobody awaited it */
    Py_DECREF(op);
    return NULL;
}

#define SOCK_METHOD(name)                                                                          \
    static PyObject *loop_##name(PyObject *self, PyObject *const *args, Py_ssize_t count,          \
                                 PyObject *keywords) {                                             \
        return new_sock_operation((loop *)self, &name##_kind, args, count, keywords);              \
    }

SOCK_METHOD(sock_recv)
SOCK_METHOD(sock_recv_into)
SOCK_METHOD(sock_recvfrom)
SOCK_METHOD(sock_recvfrom_into)
SOCK_METHOD(sock_accept)
SOCK_METHOD(sock_sendall)
SOCK_METHOD(sock_sendto)
SOCK_METHOD(sock_connect)

static const method_definition sock_methods[] = {{"sock_recv", loop_sock_recv},
                                                 {"sock_recv_into", loop_sock_recv_into},
                                                 {"sock_accept", loop_sock_accept},
                                                 {"sock_sendall", loop_sock_sendall},
                                                 {"sock_connect", loop_sock_connect},
#if PY_VERSION_HEX >= 0x030B0000 /* asyncio of 3.10 has not these: see loop_methods */
                                                 {"sock_recvfrom", loop_sock_recvfrom},
                                                 {"sock_recvfrom_into", loop_sock_recvfrom_into},
                                                 {"sock_sendto", loop_sock_sendto},
#endif
                                                 {NULL, NULL}};
