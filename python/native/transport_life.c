/* How a stream transport is made, is told to read or to end, and goes. */

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

/* Queues connection_made in a context that was given, and then _start in one of its own: if a loop
   is run inside connection_made, its context cannot be entered, and reading is to begin. */
static int transport_schedule(transport *self, PyObject *waiter) {
    state *st = self->loop->state;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *made = PyObject_GetAttr(protocol, st->names[NAME_CONNECTION_MADE]);
    PyObject *start =
        made == NULL ? NULL : PyObject_GetAttr((PyObject *)self, st->names[NAME_START]);
    PyObject *first = NULL, *second = NULL;
    if (start != NULL) {
        bool given = self->flags & TRANSPORT_GIVEN;
        PyObject *made_args[3] = {made, (PyObject *)self, given ? self->context : NULL};
        PyObject *start_args[2] = {start, waiter};
        first = loop_call_soon(self->loop, made_args, 2, given ? st->context_keyword : NULL);
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

/* The context for the calls of the protocol: the one that is given, or else (NULL) what a copy of
   the present one would have. It stays NULL, with an exception set, if there is no memory. */
static void transport_set_context(transport *self, state *st, PyObject *context) {
    if (context != NULL) {
        self->context = Py_NewRef(context);
        self->flags |= TRANSPORT_GIVEN;
        return;
    }
    self->context = snapshot_context(st);
    if (self->context != NULL)
        self->flags |= TRANSPORT_SNAPSHOT;
    else
        self->context = PyContext_CopyCurrent();
}

/* A transport with an open stream over the descriptor, on the loop's list; nothing is scheduled
   yet. sock (or NULL) is the object that owns the descriptor, context (or NULL) that of all calls
   of the protocol. On failure the descriptor stays the caller's, and *error is casync's (or 0). */
static transport *transport_open(loop *lp, enum transport_kind kind, int fd, PyObject *sock,
                                 PyObject *protocol, PyObject *extra, PyObject *context,
                                 int64_t *error) {
    PyTypeObject *type = lp->state->transport_types[kind];
    transport *self = (transport *)type->tp_alloc(type, 0);
    *error = 0;
    if (self == NULL) return NULL;
    self->kind = (uint8_t)kind;
    self->fd = self->sock_fd = -1;
    self->loop = (loop *)Py_NewRef((PyObject *)lp);
    self->protocol = Py_NewRef(protocol);
    self->extra = Py_XNewRef(extra == Py_None ? NULL : extra);
    transport_set_context(self, lp->state, context);
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
   NULL) the other side's address, context (or NULL) that of all calls of the protocol. */
static transport *transport_new(loop *lp, int fd, PyObject *sock, PyObject *protocol,
                                PyObject *waiter, PyObject *extra, PyObject *server,
                                PyObject *context, const casync_address *peer) {
    state *st = lp->state;
    casync_address own, asked;
    int64_t error;
    transport *self =
        transport_open(lp, TRANSPORT_SOCKET, fd, sock, protocol, extra, context, &error);
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
    LOCK_TRANSPORT(self);
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

/* _make_socket_transport(sock, protocol, waiter=None, *, extra=None, server=None, context=None), of
   the loop */
static PyObject *loop_make_socket_transport(loop *self, PyObject *args, PyObject *kwargs) {
    LOCK_LOOP(self);
    static char *keywords[] = {"sock", "protocol", "waiter", "extra", "server", "context", NULL};
    PyObject *sock, *protocol, *waiter = Py_None, *extra = Py_None, *server = Py_None;
    PyObject *context = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O$OOO:_make_socket_transport", keywords,
                                     &sock, &protocol, &waiter, &extra, &server, &context))
        return NULL;
    if (self->closed) return raise_closed();
    if (!has_descriptor(sock))
        return call_base_method(self->state->base_make_socket_transport, (PyObject *)self, args,
                                kwargs);
    int fd = parse_fd(self->state, sock);
    if (fd < 0) return NULL;
    if (loop_make_way(self, fd, sock) < 0) return NULL;
    if (context == Py_None) context = NULL;
    return (PyObject *)transport_new(self, fd, sock, protocol, waiter, extra, server, context,
                                     NULL);
}

/* _ensure_fd_no_transport(fd): raises if an open transport has the descriptor. Only what is watched
   can belong to one. What has no descriptor is left to asyncio's own: it knows the transports of
   what is no kernel's socket, and finds none for a file that is closed. */
static PyObject *loop_ensure_fd_no_transport(loop *self, PyObject *file) {
    LOCK_LOOP(self);
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
    LOCK_TRANSPORT(self);
    if (self->flags & (TRANSPORT_CLOSING | TRANSPORT_PAUSED)) Py_RETURN_NONE;
    self->flags |= TRANSPORT_PAUSED;
    transport_stop_reading(self);
    Py_RETURN_NONE;
}

static PyObject *transport_resume_reading(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    if (self->flags & TRANSPORT_CLOSING || !(self->flags & TRANSPORT_PAUSED)) Py_RETURN_NONE;
    self->flags &= (uint16_t)~TRANSPORT_PAUSED;
    transport_begin_reading(self);
    if (self->kind == TRANSPORT_SOCKET && self->flags & TRANSPORT_TOLD) {
        self->flags &= (uint16_t)~TRANSPORT_TOLD;
        transport_tell_again(self, self->loop);
    }
    Py_RETURN_NONE;
}

static PyObject *transport_is_reading(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    return PyBool_FromLong(!(self->flags & (TRANSPORT_CLOSING | TRANSPORT_PAUSED)));
}

static bool transport_shows_closing(const transport *self) {
    return (self->flags & (TRANSPORT_CLOSING | TRANSPORT_LEFT)) == TRANSPORT_CLOSING;
}

static PyObject *transport_is_closing(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    return PyBool_FromLong(transport_shows_closing(self));
}

static PyObject *transport_close(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    transport_begin_close(self);
    Py_RETURN_NONE;
}

static PyObject *transport_abort(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    transport_force_close(self, NULL);
    Py_RETURN_NONE;
}

static PyObject *transport_force_close_method(transport *self, PyObject *exception) {
    LOCK_TRANSPORT(self);
    transport_force_close(self, Py_NewRef(exception));
    Py_RETURN_NONE;
}

static PyObject *transport_set_protocol(transport *self, PyObject *protocol) {
    LOCK_TRANSPORT(self);
    state *st = (state *)PyType_GetModuleState(Py_TYPE(self));
    const casync_protocol *table = protocol_table(st, self->kind, self->fd, protocol);
    if (table == NULL) return NULL;
    if (self->fd >= 0) casync_set_protocol(&self->stream, table);
    Py_XSETREF(self->protocol, Py_NewRef(protocol));
    if (self->loop != NULL) transport_adopt_reader(self);
    Py_RETURN_NONE;
}

static PyObject *transport_get_protocol(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
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
    Py_VISIT(self->feed.reader);
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
    transport_leave_loop(self);
    transport_free_names(self);
    transport_free_limits(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* For the loop's close: every stream ends; its transport warns if somebody still counts on it. */
static void loop_drop_transports(loop *lp) {
    while (lp->transports != NULL) transport_close_stream(lp->transports);
}
