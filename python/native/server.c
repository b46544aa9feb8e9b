/* Serving: asyncio's Server stays Python's; what it starts for each of its sockets is a casync_server.

   Idea: casync.h accepts and hands over descriptors; each becomes a transport at once, without the
   socket object, the task and the future that asyncio makes a connection. With TLS, and in debug mode,
   the descriptor becomes a socket and goes asyncio's way: EventLoop._serve.

   Invariants: the listening socket object keeps its descriptor (keep_fd). _remove_reader(fd) is what
   ends it, as asyncio's _stop_serving expects.

   Costs: accept4, two calls for the addresses' sake at most, and casync_stream_open's. */

typedef struct {
    casync_server server; /* first: its watcher leads here */
    loop *loop;           /* borrowed: a loop drops its servers when it goes */
    PyObject *factory, *sock, *context;
    PyObject *arguments; /* (sslcontext, server, *timeouts) */
} serving;

static void on_accepted(casync_server *server, int fd, const casync_address *peer);

/* The serving around a watcher, or NULL if it is none of this file's. */
static serving *serving_of(casync_watcher *watcher) {
    if (watcher == NULL || watcher->kind != CASYNC__WATCHER_SERVER) return NULL;
    if (((casync_server *)(void *)watcher)->desc.accepted != on_accepted) return NULL;
    return (serving *)(void *)watcher;
}

static void serving_free(serving *self) {
    Py_XDECREF(self->factory);
    Py_XDECREF(self->sock);
    Py_XDECREF(self->context);
    Py_XDECREF(self->arguments);
    PyMem_Free(self);
}

static void serving_stop(serving *self) {
    casync_server_close(&self->server);
    serving_free(self);
}

static bool stop_serving(casync_watcher *watcher) {
    serving *self = serving_of(watcher);
    if (self != NULL) serving_stop(self);
    return self != NULL;
}

/* asyncio's words for a server that cannot accept (_accept_connection in asyncio/selector_events.py) */
static void server_report(loop *lp, casync_server *server, const char *message, int64_t error) {
    bool exhausted = error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM;
    PyObject *sock = ((serving *)(void *)server)->sock;
    PyObject *shown = PyObject_CallOneArg(lp->state->transport_socket, sock);
    PyObject *text = PyUnicode_FromString(exhausted ? "socket.accept() out of system resource" : message);
    if (shown == NULL) Py_CLEAR(text);
    loop_report(lp, text, make_os_error(error), NAME_SOCKET, shown, NAME_COUNT, NULL);
    Py_XDECREF(shown);
}

/* EventLoop._serve(socket, protocol_factory, sslcontext, server, *timeouts) */
static int serve_as_socket(loop *lp, PyObject *factory, PyObject *arguments, int fd) {
    Py_ssize_t count = PyTuple_GET_SIZE(arguments);
    PyObject *sock = make_socket(lp->state, fd), *method, *all = NULL, *result = NULL;
    if (sock == NULL) {
        close(fd);
        return -1;
    }
    method = PyObject_GetAttr((PyObject *)lp, lp->state->names[NAME_SERVE]);
    if (method != NULL) all = PyTuple_New(2 + count);
    if (all != NULL) {
        PyTuple_SET_ITEM(all, 0, Py_NewRef(sock));
        PyTuple_SET_ITEM(all, 1, Py_NewRef(factory));
        for (Py_ssize_t i = 0; i < count; i++)
            PyTuple_SET_ITEM(all, 2 + i, Py_NewRef(PyTuple_GET_ITEM(arguments, i)));
        result = PyObject_CallObject(method, all);
    }
    Py_DECREF(sock);
    Py_XDECREF(method);
    Py_XDECREF(all);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int serve_as_transport(loop *lp, PyObject *factory, PyObject *arguments, int fd,
                              const casync_address *peer) {
    PyObject *protocol = PyObject_CallNoArgs(factory), *server = PyTuple_GET_ITEM(arguments, 1);
    transport *t = NULL;
    if (protocol != NULL) t = transport_new(lp, fd, NULL, protocol, Py_None, Py_None, server, peer);
    Py_XDECREF(protocol);
    if (t == NULL) {
        close(fd);
        return -1;
    }
    Py_DECREF(t);
    return 0;
}

static int serve(loop *lp, PyObject *factory, PyObject *arguments, int fd, const casync_address *peer) {
    int tls = PyObject_IsTrue(PyTuple_GET_ITEM(arguments, 0));
    if (tls == 0 && !lp->debug) return serve_as_transport(lp, factory, arguments, fd, peer);
    return serve_as_socket(lp, factory, arguments, fd);
}

/* A connection came. As in asyncio, whose tasks do this, it sees a copy of the server's context, and a
   factory that fails costs its connection and no more. The factory may end the serving. */
static void on_accepted(casync_server *server, int fd, const casync_address *peer) {
    serving *self = (serving *)(void *)server;
    loop *lp = self->loop;
    PyObject *factory = Py_NewRef(self->factory), *arguments = Py_NewRef(self->arguments);
    PyObject *context = PyContext_Copy(self->context);
    int result = -1;
    if (context != NULL && PyContext_Enter(context) == 0) {
        result = serve(lp, factory, arguments, fd, peer);
        PyContext_Exit(context);
    } else {
        close(fd);
    }
    Py_XDECREF(context);
    Py_DECREF(factory);
    Py_DECREF(arguments);
    if (result < 0) {
        PyObject *exception = take_exception();
        if (ends_program(exception))
            loop_end_run(lp, exception);
        else
            Py_DECREF(exception);
    }
}

static serving *serving_new(loop *lp, PyObject *const *args, Py_ssize_t count) {
    serving *self = PyMem_New(serving, 1);
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memset(self, 0, sizeof *self);
    self->loop = lp;
    self->factory = Py_NewRef(args[0]);
    self->sock = Py_NewRef(args[1]);
    self->context = PyContext_CopyCurrent();
    self->arguments = PyTuple_New(count > 5 ? count - 3 : 2);
    if (self->context == NULL || self->arguments == NULL) {
        serving_free(self);
        return NULL;
    }
    PyTuple_SET_ITEM(self->arguments, 0, Py_NewRef(count > 2 ? args[2] : Py_None));
    PyTuple_SET_ITEM(self->arguments, 1, Py_NewRef(count > 3 ? args[3] : Py_None));
    for (Py_ssize_t i = 5; i < count; i++) PyTuple_SET_ITEM(self->arguments, i - 3, Py_NewRef(args[i]));
    return self;
}

/* _start_serving(protocol_factory, sock, sslcontext=None, server=None, backlog=100, *timeouts) */
static PyObject *loop_start_serving(loop *self, PyObject *const *args, Py_ssize_t count) {
    casync_listen_desc desc = {0};
    int64_t result;
    serving *s;
    if (count < 2)
        return PyErr_Format(PyExc_TypeError, "_start_serving() takes at least 2 arguments (%zd given)",
                            count);
    if (self->closed) return raise_closed();
    desc.fd = parse_fd(args[1]);
    if (desc.fd < 0) return NULL;
    desc.backlog = count > 4 ? (int)PyLong_AsLong(args[4]) : 100;
    if (PyErr_Occurred()) return NULL;
    desc.use_fd = desc.keep_fd = true;
    desc.accepted = on_accepted;
    s = serving_new(self, args, count);
    if (s == NULL) return NULL;
    result = casync_listen(&self->casync, &s->server, &desc);
    if (result < 0) {
        serving_free(s);
        return raise_os_error(result);
    }
    Py_RETURN_NONE;
}

/* ---- what the loop asks of all its objects ---- */

static void loop_drop_servers(loop *self) {
    for (uint32_t fd = 0; fd < self->casync.fds_size; fd++) {
        serving *s = serving_of(casync_watcher_find(&self->casync, (int)fd));
        if (s != NULL) serving_stop(s);
    }
}

static int serving_visit(serving *self, visitproc visit, void *arg) {
    Py_VISIT(self->factory);
    Py_VISIT(self->sock);
    Py_VISIT(self->context);
    Py_VISIT(self->arguments);
    return 0;
}

static int watch_visit(watch *self, visitproc visit, void *arg) {
    int result = self->reader == NULL ? 0 : handle_visit(self->reader, visit, arg);
    return result || self->writer == NULL ? result : handle_visit(self->writer, visit, arg);
}

/* tp_traverse for whatever casync_walk finds. Other extension modules may have objects in the loop. */
static void loop_visit_object(int kind, void *object, void *arg) {
    visiting *v = (visiting *)arg;
    handle *h;
    watch *w;
    serving *s;
    if (v->result != 0) return;
    switch (kind) {
    case CASYNC_KIND_JOB:
    case CASYNC_KIND_TIMER:
        h = handle_of_job((casync_job *)object);
        if (h != NULL) v->result = handle_visit(h, v->visit, v->arg);
        break;
    case CASYNC_KIND_WATCHER:
        w = watch_of((casync_watcher *)object);
        if (w != NULL) v->result = watch_visit(w, v->visit, v->arg);
        break;
    case CASYNC_KIND_SERVER:
        s = serving_of((casync_watcher *)object);
        if (s != NULL) v->result = serving_visit(s, v->visit, v->arg);
        break;
    default:
        break;
    }
}
