/* Serving: asyncio's Server stays Python's; what it starts for each of its sockets is a
   casync_server.

   Idea: casync.h accepts and hands over descriptors; each becomes a transport at once, without the
   socket object, the task and the future that asyncio makes a connection. With TLS, and in debug
   mode, the descriptor becomes a socket and goes asyncio's way: EventLoop._serve.

   Invariants: the listening socket object keeps its descriptor (keep_fd). _remove_reader(fd) is
   what ends it, as asyncio's _stop_serving expects.

   A Server of asyncio (since 3.13) keeps a WeakSet of its transports, 145 bytes and two Python
   calls for each. The loop knows them anyway: so `_clients` becomes a view of the loop's list,
   which keeps a count alone.

   Costs: accept4, two calls for the addresses' sake at most, and casync_stream_open's. */

/* Do all calls for a connection share one context, as in asyncio since then? */
enum { SHARES_CONTEXT = PY_VERSION_HEX >= 0x030F0000 };

typedef struct {
    casync_server server; /* first: its watcher leads here */
    loop *loop;           /* borrowed: a loop drops its servers when it goes */
    PyObject *factory, *sock, *context;
    PyObject *arguments; /* (sslcontext, server, *timeouts) */
} serving;

static void on_accepted(casync_server *server, int fd, const casync_address *peer);

/* The serving around a watcher, or NULL if it is none of this file's. */
static serving *serving_of(casync_watcher *watcher) {
    if (casync_watcher_kind(watcher) != CASYNC_KIND_SERVER) return NULL;
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

/* asyncio's words for a server that cannot accept (_accept_connection in
   asyncio/selector_events.py). False if the server is none of this file's: other extension modules
   may have some in the loop. */
static bool server_report(loop *lp, casync_server *server, const char *message, int64_t error) {
    bool exhausted = error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM;
    serving *self = serving_of(&server->watcher);
    PyObject *sock, *shown, *text;
    if (self == NULL) return false;
    sock = Py_NewRef(self->sock);
    shown = PyObject_CallOneArg(lp->state->transport_socket, sock);
    text = shown == NULL ? NULL
                         : PyUnicode_FromString(exhausted ? "socket.accept() out of system resource"
                                                          : message);
    loop_report(lp, text, make_os_error(error), NAME_SOCKET, shown, NAME_COUNT, NULL);
    Py_XDECREF(shown);
    Py_DECREF(sock);
    return true;
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

static int serve_as_transport(loop *lp, PyObject *arguments, PyObject *context, int fd,
                              const casync_address *peer, PyObject *protocol) {
    PyObject *server = PyTuple_GET_ITEM(arguments, 1), *number = PyLong_FromLong(fd);
    transport *t = NULL;
    if (number != NULL && loop_make_way(lp, fd, number) == 0)
        t = transport_new(lp, fd, NULL, protocol, Py_None, Py_None, server,
                          SHARES_CONTEXT ? context : NULL, peer);
    Py_XDECREF(number);
    if (t == NULL) {
        close(fd);
        return -1;
    }
    Py_DECREF(t);
    return 0;
}

/* Reports the exception that is set, as _accept_connection2 in asyncio/selector_events.py words
   it. */
static void serve_failed(loop *lp, PyObject *protocol) {
    loop_report_current(lp, "Error on transport creation for incoming connection", NAME_PROTOCOL,
                        protocol);
}

/* Takes the descriptor. The context is the present one. */
static void serve(loop *lp, PyObject *factory, PyObject *arguments, PyObject *context, int fd,
                  const casync_address *peer) {
    PyObject *protocol;
    if (PyTuple_GET_ITEM(arguments, 0) != Py_None || lp->debug) {
        if (serve_as_socket(lp, factory, arguments, fd) < 0) serve_failed(lp, NULL);
        return;
    }
    protocol = PyObject_CallNoArgs(factory);
    if (protocol == NULL) close(fd);
    if (protocol == NULL || serve_as_transport(lp, arguments, context, fd, peer, protocol) < 0)
        serve_failed(lp, protocol == Py_None ? NULL : protocol);
    Py_XDECREF(protocol);
}

/* A connection came. As in asyncio, whose tasks do this, it sees a copy of the server's context
   (which since 3.15 all calls of its protocol share), and a factory that fails costs its connection
   and no more; but the exception handler hears of it without debug mode, too. The factory may end
   the serving. */
static void on_accepted(casync_server *server, int fd, const casync_address *peer) {
    serving *self = (serving *)(void *)server;
    loop *lp = self->loop;
    PyObject *factory = Py_NewRef(self->factory), *arguments = Py_NewRef(self->arguments);
    PyObject *context = PyContext_Copy(self->context);
    if (context != NULL && PyContext_Enter(context) == 0) {
        serve(lp, factory, arguments, context, fd, peer);
        PyContext_Exit(context);
    } else {
        close(fd);
        serve_failed(lp, NULL);
    }
    Py_XDECREF(context);
    Py_DECREF(factory);
    Py_DECREF(arguments);
}

/* context: the server's own, or NULL for a copy of the present one. */
static serving *serving_new(loop *lp, PyObject *const *args, Py_ssize_t count, PyObject *context) {
    serving *self = PyMem_New(serving, 1);
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memset(self, 0, sizeof *self);
    self->loop = lp;
    self->factory = Py_NewRef(args[0]);
    self->sock = Py_NewRef(args[1]);
    self->context = context == NULL ? PyContext_CopyCurrent() : Py_NewRef(context);
    self->arguments = PyTuple_New(count > 5 ? count - 3 : 2);
    if (self->context == NULL || self->arguments == NULL) {
        serving_free(self);
        return NULL;
    }
    PyTuple_SET_ITEM(self->arguments, 0, Py_NewRef(count > 2 ? args[2] : Py_None));
    PyTuple_SET_ITEM(self->arguments, 1, Py_NewRef(count > 3 ? args[3] : Py_None));
    for (Py_ssize_t i = 5; i < count; i++)
        PyTuple_SET_ITEM(self->arguments, i - 3, Py_NewRef(args[i]));
    return self;
}

/* ---- Server._clients ---- */

typedef struct {
    PyObject ob_base;
    loop *loop;
    Py_ssize_t count; /* of the transports that were added and not discarded */
} clients;

/* Only native transports come here, each once: transport_tell_server. */
static PyObject *clients_add(clients *self, PyObject *Py_UNUSED(transport)) {
    LOCK_LOOP(self->loop);
    self->count++;
    Py_RETURN_NONE;
}

static PyObject *clients_discard(clients *self, PyObject *Py_UNUSED(transport)) {
    LOCK_LOOP(self->loop);
    self->count--;
    Py_RETURN_NONE;
}

static Py_ssize_t clients_length(clients *self) { return self->count; }

/* Is the transport one of a server with these clients? -1 with an exception set. */
static int clients_have(clients *self, transport *t) {
    PyObject *server, *other;
    if (t->server == NULL || t->server == Py_None) return 0;
    server = Py_NewRef(t->server);
    other = PyObject_GetAttr(server, self->loop->state->names[NAME_CLIENTS]);
    Py_DECREF(server);
    Py_XDECREF(other);
    return other == NULL ? -1 : other == (PyObject *)self;
}

/* All transports that are open. */
static PyObject *open_transports(loop *lp) {
    PyObject *list = PyList_New(0);
    for (transport *t = lp->transports; list != NULL && t != NULL; t = t->next)
        if (PyList_Append(list, (PyObject *)t) < 0) Py_CLEAR(list);
    return list;
}

/* copy(): a list of the transports, as they are at this moment. To ask whose one is may end others,
   so all are held meanwhile. */
static PyObject *clients_copy(clients *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_LOOP(self->loop);
    PyObject *all = open_transports(self->loop), *list = all == NULL ? NULL : PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(all); i++) {
        PyObject *t = Py_NewRef(PyList_GET_ITEM(all, i));
        int have = clients_have(self, (transport *)t);
        if (have < 0 || (have && PyList_Append(list, t) < 0)) Py_CLEAR(list);
        Py_DECREF(t);
    }
    Py_XDECREF(all);
    return list;
}

static PyObject *clients_iter(clients *self) {
    PyObject *list = clients_copy(self, NULL),
             *iterator = list == NULL ? NULL : PyObject_GetIter(list);
    Py_XDECREF(list);
    return iterator;
}

static int clients_traverse(clients *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    return 0;
}

static int clients_clear(clients *Py_UNUSED(self)) { return 0; /* the loop breaks the cycle */ }

static void clients_dealloc(clients *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->loop);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef clients_methods[] = {
    {"add", (PyCFunction)clients_add, METH_O, "Does what set.add() does."},
    {"discard", (PyCFunction)clients_discard, METH_O, "Does what set.discard() does."},
    {"copy", (PyCFunction)clients_copy, METH_NOARGS,
     "Returns a list of the server's open transports."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot clients_slots[] = {
    {Py_tp_doc, "A server's _clients is this set of the transports of its connections."},
    {Py_tp_dealloc, clients_dealloc},
    {Py_tp_traverse, clients_traverse},
    {Py_tp_clear, clients_clear},
    {Py_tp_iter, clients_iter},
    {Py_sq_length, clients_length},
    {Py_tp_methods, clients_methods},
    {0, NULL},
};

static PyType_Spec clients_spec = {
    "casync._native.Clients", sizeof(clients), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, clients_slots};

/* Gives asyncio's own Server our `_clients` in place of its WeakSet, while that is empty. */
static int adopt_clients(loop *lp, PyObject *server) {
    state *st = lp->state;
    PyObject *set, *ours;
    int result;
    if (!st->attach_takes_transport || (PyObject *)Py_TYPE(server) != st->asyncio_server) return 0;
    set = PyObject_GetAttr(server, st->names[NAME_CLIENTS]);
    if (set == NULL) return -1;
    result = PyObject_Size(set) == 0 && !Py_IS_TYPE(set, st->clients_type);
    Py_DECREF(set);
    if (!result) return PyErr_Occurred() ? -1 : 0;
    ours = st->clients_type->tp_alloc(st->clients_type, 0);
    if (ours == NULL) return -1;
    ((clients *)(void *)ours)->loop = (loop *)Py_NewRef((PyObject *)lp);
    result = PyObject_SetAttr(server, st->names[NAME_CLIENTS], ours);
    Py_DECREF(ours);
    return result;
}

/* _start_serving(protocol_factory, sock, sslcontext=None, server=None, backlog=100, *timeouts,
   context=None) */
static PyObject *loop_start_serving(loop *self, PyObject *const *args, Py_ssize_t count,
                                    PyObject *keywords) {
    LOCK_LOOP(self);
    casync_listen_desc desc = {0};
    PyObject *context;
    int64_t result;
    serving *s;
    if (!parse_schedule(2, count, args, keywords, self->state, &context))
        return PyErr_Format(PyExc_TypeError,
                            "_start_serving() takes at least 2 arguments (%zd given), and no "
                            "keyword but context",
                            count);
    if (self->closed) return raise_closed();
    desc.fd = parse_fd(self->state, args[1]);
    if (desc.fd < 0) return NULL;
    desc.backlog = count > 4 ? (int)PyLong_AsLong(args[4]) : 100;
    if (PyErr_Occurred()) return NULL;
    desc.use_fd = desc.keep_fd = true;
    desc.accepted = on_accepted;
    if (loop_make_way(self, desc.fd, args[1]) < 0) return NULL;
    if (count > 3 && args[3] != Py_None && adopt_clients(self, args[3]) < 0) return NULL;
    s = serving_new(self, args, count, context == Py_None ? NULL : context);
    if (s == NULL) return NULL;
    result = casync_listen(&self->casync, &s->server, &desc);
    if (result < 0) {
        serving_free(s);
        return raise_os_error(result);
    }
    if (desc.backlog <= 0) listen(desc.fd, 0); /* which a description cannot say */
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
    Py_VISIT(self->file);
    return result || self->writer == NULL ? result : handle_visit(self->writer, visit, arg);
}

/* tp_traverse for whatever is in the loop. Other extension modules may have objects in the
   loop. */
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
