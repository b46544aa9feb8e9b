/* DatagramTransport: asyncio's transport for UDP and Unix datagrams, over casync_datagram.

   Idea: the transport of transport.c with a casync_datagram in place of the stream. Addresses of
   IPv4, IPv6 and Unix sockets are turned from Python's to the kernel's form and back here; a host
   name is looked up by Python's getaddrinfo, which blocks, as socket.sendto() does. Sockets of
   other families are left to asyncio's own transport.

   Invariants: what the protocol raises is reported, and the socket stays open (asyncio's
   _SelectorDatagramTransport in asyncio/selector_events.py). The kernel's errors go to
   protocol.error_received.

   Costs: a datagram received is one bytes object, one address and one call; up to 16 come by one
   system call. A datagram sent is one system call. */

static transport *transport_of_datagram(casync_datagram *datagram) {
    return (transport *)(void *)((char *)datagram - offsetof(transport, datagram));
}

/* ---- addresses ---- */

static int parse_unix_address(PyObject *object, casync_address *address) {
    struct sockaddr_un un = {AF_UNIX, {0}};
    PyObject *path = PyObject_CheckBuffer(object) ? PyBytes_FromObject(object) : NULL;
    size_t size;
    if (path == NULL && (PyErr_Occurred() || !PyUnicode_FSConverter(object, &path))) return -1;
    size = (size_t)PyBytes_GET_SIZE(path);
    if (size >= sizeof un.sun_path) {
        PyErr_SetString(PyExc_OSError, "AF_UNIX path too long");
        Py_DECREF(path);
        return -1;
    }
    memcpy(un.sun_path, PyBytes_AS_STRING(path), size);
    /* An abstract name is as long as given; a path ends in a zero. */
    address->size =
        (uint32_t)(offsetof(struct sockaddr_un, sun_path) + size + (un.sun_path[0] != '\0'));
    memcpy(address->storage.bytes, &un, sizeof un);
    Py_DECREF(path);
    return 0;
}

/* A numeric host: 1; 0 if it is a name. */
static int parse_host(int family, const char *host, inet_address *inet) {
    inet->any.sa_family = (sa_family_t)family;
    if (family == AF_INET6) return inet_pton(AF_INET6, host, &inet->in6.sin6_addr);
    if (strcmp(host, "<broadcast>") == 0) {
        inet->in.sin_addr.s_addr = INADDR_BROADCAST;
        return 1;
    }
    if (*host == '\0') return 1;
    return inet_pton(AF_INET, host, &inet->in.sin_addr);
}

/* (host, port) or (host, port, flowinfo, scope_id). */
static int parse_inet_tuple(int family, PyObject *tuple, inet_address *inet, int *numeric) {
    const char *host;
    int port;
    unsigned flowinfo = 0, scope = 0;
    memset(inet, 0, sizeof *inet);
    if (!PyTuple_Check(tuple)) {
        PyErr_Format(PyExc_TypeError, "the address must be a tuple (host, port), not %s",
                     Py_TYPE(tuple)->tp_name);
        return -1;
    }
    if (!PyArg_ParseTuple(tuple, family == AF_INET6 ? "si|II:sendto" : "si:sendto", &host, &port,
                          &flowinfo, &scope))
        return -1;
    if (port < 0 || port > 65535) {
        PyErr_SetString(PyExc_OverflowError, "sendto(): port must be 0-65535.");
        return -1;
    }
    *numeric = parse_host(family, host, inet);
    if (family == AF_INET6) {
        inet->in6.sin6_port = htons((uint16_t)port);
        inet->in6.sin6_flowinfo = htonl(flowinfo);
        inet->in6.sin6_scope_id = scope;
    } else {
        inet->in.sin_port = htons((uint16_t)port);
    }
    return 0;
}

/* socket.getaddrinfo(host, port, family, SOCK_DGRAM)[0][4] */
static PyObject *look_up(int family, PyObject *tuple) {
    PyObject *getaddrinfo = import_attribute("socket", "getaddrinfo"), *found = NULL,
             *address = NULL;
    if (getaddrinfo != NULL)
        found = PyObject_CallFunction(getaddrinfo, "OOii", PyTuple_GET_ITEM(tuple, 0),
                                      PyTuple_GET_ITEM(tuple, 1), family, SOCK_DGRAM);
    if (found != NULL) {
        PyObject *first = PySequence_GetItem(found, 0);
        address = first == NULL ? NULL : PySequence_GetItem(first, 4);
        Py_XDECREF(first);
    }
    Py_XDECREF(getaddrinfo);
    Py_XDECREF(found);
    return address;
}

static int parse_datagram_address(int family, PyObject *object, casync_address *address) {
    inet_address inet;
    int numeric, result;
    if (family == AF_UNIX) return parse_unix_address(object, address);
    result = parse_inet_tuple(family, object, &inet, &numeric);
    if (result == 0 && numeric <= 0) {
        PyObject *found = look_up(family, object);
        result = found == NULL ? -1 : parse_inet_tuple(family, found, &inet, &numeric);
        Py_XDECREF(found);
    }
    if (result < 0) return -1;
    address->size = family == AF_INET6 ? sizeof inet.in6 : sizeof inet.in;
    memcpy(address->storage.bytes, &inet, sizeof inet);
    return 0;
}

/* ---- what the socket tells ---- */

/* protocol.method(first[, second]), in the transport's context; what it raises is reported. */
static void datagram_call(transport *self, loop *lp, enum name method, PyObject *first,
                          PyObject *second) {
    PyObject *result = NULL;
    running_call call;
    int entered = transport_enter(self, lp, &call);
    if (entered == 0) return;
    if (entered > 0) {
        PyObject *protocol = Py_NewRef(self->protocol); /* it may be replaced meanwhile */
        PyObject *bound = PyObject_GetAttr(protocol, lp->state->names[method]);
        if (bound != NULL && lp->calls_python)
            result = PyObject_CallMethodObjArgs((PyObject *)lp, lp->state->names[NAME_PYTHON_CALL],
                                                bound, first, second, NULL);
        else if (bound != NULL)
            result = PyObject_CallFunctionObjArgs(bound, first, second, NULL);
        Py_XDECREF(bound);
        Py_DECREF(protocol);
        if (transport_leave(lp, &call) < 0) Py_CLEAR(result);
    }
    if (result == NULL) transport_report_method(self, lp, "_read_ready", NULL);
    Py_XDECREF(result);
}

static void on_datagram_received(casync_datagram *datagram, casync_span span,
                                 const casync_address *from) {
    transport *self = transport_of_datagram(datagram);
    loop *lp = transport_hold(self);
    PyObject *data = PyBytes_FromStringAndSize((const char *)span.ptr, (Py_ssize_t)span.len);
    PyObject *address = data == NULL ? NULL : make_address(from);
    if (address != NULL)
        datagram_call(self, lp, NAME_DATAGRAM_RECEIVED, data, address);
    else
        pipe_report(self, lp, "Fatal read error on datagram transport");
    Py_XDECREF(data);
    Py_XDECREF(address);
    transport_let_go(self, lp);
}

static void on_datagram_error(casync_datagram *datagram, int64_t error) {
    transport *self = transport_of_datagram(datagram);
    loop *lp = transport_hold(self);
    PyObject *exception = make_os_error(error);
    if (exception == NULL)
        pipe_report(self, lp, "Fatal error on datagram transport");
    else
        datagram_call(self, lp, NAME_ERROR_RECEIVED, exception, NULL);
    Py_XDECREF(exception);
    transport_let_go(self, lp);
}

static void on_datagram_pause(casync_datagram *datagram) {
    transport *self = transport_of_datagram(datagram);
    loop *lp = transport_hold(self);
    self->flags |= TRANSPORT_PROTOCOL_PAUSED;
    transport_flow(self, lp, NAME_PAUSE_WRITING, "protocol.pause_writing() failed");
    transport_let_go(self, lp);
}

static void on_datagram_resume(casync_datagram *datagram) {
    transport *self = transport_of_datagram(datagram);
    loop *lp = transport_hold(self);
    self->flags &= (uint16_t)~TRANSPORT_PROTOCOL_PAUSED;
    transport_flow(self, lp, NAME_RESUME_WRITING, "protocol.resume_writing() failed");
    transport_let_go(self, lp);
}

static void on_datagram_lost(casync_datagram *datagram, int64_t error) {
    transport_lost(transport_of_datagram(datagram), error);
}

static const casync_datagram_protocol datagram_protocol = {on_datagram_received, on_datagram_error,
                                                           on_datagram_pause, on_datagram_resume,
                                                           on_datagram_lost};

/* ---- methods ---- */

/* asyncio's _fatal_error for the exception that is set. */
static void datagram_fatal(transport *self, const char *message, PyObject *exception) {
    loop *lp = transport_hold(self);
    transport_report(self, lp, message, Py_NewRef(exception));
    if (self->loop != NULL) {
        self->flags |= TRANSPORT_CLOSING;
        transport_count_lost_write(self);
        Py_XSETREF(self->exception, Py_NewRef(exception));
        casync_datagram_abort(&self->datagram);
    }
    transport_let_go(self, lp);
}

/* protocol.error_received(exception) inside the call of sendto. */
static PyObject *datagram_send_failed(transport *self, PyObject *exception) {
    PyObject *protocol = Py_NewRef(self->protocol), *result;
    result = PyObject_CallMethodOneArg(protocol, self->loop->state->names[NAME_ERROR_RECEIVED],
                                       exception);
    Py_DECREF(protocol);
    return result;
}

/* An address that cannot be used: OSErrors are the protocol's, others end the socket, as in
   asyncio. */
static PyObject *datagram_bad_address(transport *self) {
    PyObject *exception = take_exception(), *result = NULL;
    if (ends_program(exception)) {
        raise_exception(exception);
        return NULL;
    }
    if (self->loop == NULL) { /* the look-up has ended it */
        result = Py_NewRef(Py_None);
    } else if (PyErr_GivenExceptionMatches(exception, PyExc_OSError)) {
        result = datagram_send_failed(self, exception);
    } else {
        datagram_fatal(self, "Fatal write error on datagram transport", exception);
        result = Py_NewRef(Py_None);
    }
    Py_DECREF(exception);
    return result;
}

/* Data for a socket that is closing, or closed. */
static PyObject *datagram_drop(transport *self) {
    if (transport_drop_write(self) < 0) return NULL;
    Py_RETURN_NONE;
}

static bool datagram_drops(const transport *self) {
    return self->flags & TRANSPORT_CLOSING || self->fd < 0;
}

static PyObject *datagram_send(transport *self, PyObject *data, PyObject *target) {
    casync_address address;
    Py_buffer view;
    int64_t result;
    PyObject *exception, *answer;
    if (target != NULL && parse_datagram_address(self->family, target, &address) < 0)
        return datagram_bad_address(self);
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
    if (datagram_drops(self)) { /* by now: the look-up may have ended it */
        PyBuffer_Release(&view);
        return datagram_drop(self);
    }
    self->flags |= TRANSPORT_CALLED;
    result = view.len == 0 && PY_VERSION_HEX < 0x030D0000
                 ? 0 /* asyncio's own sends no empty ones there */
                 : casync_datagram_write(&self->datagram, view.buf, (size_t)view.len,
                                         target == NULL ? NULL : &address);
    PyBuffer_Release(&view);
    if (result == -ENOMEM) PyErr_NoMemory();
    if (result >= 0 || result == -ENOMEM) return transport_return(self, 0);
    self->flags &= (uint16_t)~TRANSPORT_CALLED;
    exception = make_os_error(result);
    if (exception == NULL || self->loop == NULL) {
        Py_XDECREF(exception);
        return exception == NULL ? NULL : Py_NewRef(Py_None);
    }
    answer = datagram_send_failed(self, exception);
    Py_DECREF(exception);
    return answer;
}

/* sendto(data, addr=None) */
static PyObject *datagram_sendto(transport *self, PyObject *args, PyObject *kwargs) {
    LOCK_TRANSPORT(self);
    static char *keywords[] = {"data", "addr", NULL};
    PyObject *data, *target = Py_None;
    bool connected = self->flags & TRANSPORT_CONNECTED;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:sendto", keywords, &data, &target))
        return NULL;
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        raise_unwritable(data);
        return NULL;
    }
    if (self->address != NULL) {
        int same = target == Py_None ? 1 : PyObject_RichCompareBool(target, self->address, Py_EQ);
        if (same < 0) return NULL;
        if (!same)
            return PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S",
                                self->address);
        target = self->address;
    }
    if (datagram_drops(self)) return datagram_drop(self);
    return datagram_send(self, data, connected ? NULL : target);
}

static PyObject *datagram_close(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    if (!(self->flags & TRANSPORT_CLOSING)) {
        self->flags |= TRANSPORT_CLOSING;
        casync_datagram_finish_start(&self->datagram);
    }
    Py_RETURN_NONE;
}

static PyObject *datagram_force_close(transport *self, PyObject *exception) {
    LOCK_TRANSPORT(self);
    if (self->fd >= 0 && self->exception == NULL) {
        self->flags |= TRANSPORT_CLOSING;
        self->exception = Py_NewRef(exception);
        casync_datagram_abort(&self->datagram);
    }
    Py_RETURN_NONE;
}

static PyObject *datagram_abort(transport *self, PyObject *Py_UNUSED(ignored)) {
    return datagram_force_close(self, Py_None);
}

static PyObject *datagram_set_protocol(transport *self, PyObject *protocol) {
    LOCK_TRANSPORT(self);
    Py_XSETREF(self->protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

static PyObject *datagram_get_write_buffer_size(transport *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_TRANSPORT(self);
    return PyLong_FromSize_t(self->fd < 0 ? 0 : self->datagram.queued);
}

static PyObject *datagram_set_write_buffer_limits(transport *self, PyObject *args,
                                                  PyObject *kwargs) {
    LOCK_TRANSPORT(self);
    if (parse_write_limits(self, args, kwargs) < 0) return NULL;
    self->flags |= TRANSPORT_CALLED;
    if (self->fd >= 0)
        casync_datagram_set_write_limits(&self->datagram, limits_of(self).high,
                                         limits_of(self).low);
    return transport_return(self, 0);
}

static PyObject *datagram_repr(transport *self) {
    return polling_repr(self, self->fd < 0 ? 0 : self->datagram.queued);
}

/* ---- making ---- */

static int64_t datagram_open(transport *self, int fd) {
    casync_datagram_desc desc = {0};
    desc.fd = fd;
    desc.use_fd = desc.keep_fd = desc.start_paused = true;
    desc.queue_limit = SIZE_MAX;
    desc.protocol = &datagram_protocol;
    return casync_datagram_open(&self->loop->casync, &self->datagram, &desc);
}

/* The family of the sockets that addresses are known of, or AF_UNSPEC. */
static int datagram_family(int fd) {
    int family = AF_UNSPEC;
    socklen_t size = sizeof family;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0) return AF_UNSPEC;
    return family == AF_INET || family == AF_INET6 || family == AF_UNIX ? family : AF_UNSPEC;
}

/* _make_datagram_transport(sock, protocol, address=None, waiter=None, extra=None), of the loop */
static PyObject *loop_make_datagram_transport(loop *self, PyObject *args, PyObject *kwargs) {
    LOCK_LOOP(self);
    static char *keywords[] = {"sock", "protocol", "address", "waiter", "extra", NULL};
    PyObject *sock, *protocol, *address = Py_None, *waiter = Py_None, *extra = Py_None;
    transport *t;
    casync_address own, peer;
    int64_t error;
    int fd = -1, family = AF_UNSPEC;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOO:_make_datagram_transport", keywords,
                                     &sock, &protocol, &address, &waiter, &extra))
        return NULL;
    if (self->closed) return raise_closed();
    if (has_descriptor(sock)) {
        fd = parse_fd(self->state, sock);
        if (fd < 0) return NULL;
        family = datagram_family(fd);
    }
    if (family == AF_UNSPEC)
        return call_base_method(self->state->base_make_datagram_transport, (PyObject *)self, args,
                                kwargs);
    if (loop_make_way(self, fd, sock) < 0) return NULL;
    t = transport_open(self, TRANSPORT_DATAGRAM, fd, sock, protocol, extra, NULL, &error);
    if (t == NULL) return NULL;
    t->family = family;
    t->address = address == Py_None ? NULL : Py_NewRef(address);
    own = read_address(fd, getsockname);
    peer = read_address(fd, getpeername);
    if (peer.size > 0) t->flags |= TRANSPORT_CONNECTED;
    if (transport_keep_names(t, &own, &peer) < 0) return (PyObject *)transport_undo(t);
    return (PyObject *)transport_begin(t, waiter);
}

ONE_ARGUMENT_METHOD(datagram_set_protocol, "set_protocol", "protocol")

static PyMethodDef datagram_methods[] = {
    {"_start", (PyCFunction)transport_start, METH_O, NULL},
    {"sendto", (PyCFunction)(void (*)(void))datagram_sendto, METH_VARARGS | METH_KEYWORDS,
     "sendto($self, data, addr=None)\n--\n\nSends a datagram to `addr`, by default to the "
     "transport's peer. If the kernel does not take it now, the transport buffers it. Never "
     "blocks. Raises TypeError if `data` is not bytes-like, and ValueError if the transport "
     "has a peer and `addr` is another. Errors of the kernel go to the protocol's "
     "error_received()."},
    {"is_reading", (PyCFunction)transport_is_reading, METH_NOARGS,
     "Returns whether the transport reads datagrams."},
    {"pause_reading", (PyCFunction)transport_pause_reading, METH_NOARGS,
     "Stops reading, and with it the calls of the protocol's datagram_received()."},
    {"resume_reading", (PyCFunction)transport_resume_reading, METH_NOARGS,
     "Starts reading again after pause_reading()."},
    {"close", (PyCFunction)datagram_close, METH_NOARGS,
     "Closes the transport after what is buffered has been sent. Then the loop calls the "
     "protocol's connection_lost(None)."},
    {"abort", (PyCFunction)datagram_abort, METH_NOARGS,
     "Closes the transport at once, and drops what is buffered. The loop then calls "
     "the protocol's connection_lost(None)."},
    {"_force_close", (PyCFunction)datagram_force_close, METH_O, NULL},
    {"is_closing", (PyCFunction)transport_is_closing, METH_NOARGS,
     "Returns whether the transport is closing or closed."},
    {"set_protocol", FASTCALL(datagram_set_protocol_method), METH_FASTCALL | METH_KEYWORDS,
     "set_protocol($self, protocol)\n--\n\nGives the transport another protocol."},
    {"get_protocol", (PyCFunction)transport_get_protocol, METH_NOARGS,
     "Returns the transport's protocol."},
    {"get_write_buffer_size", (PyCFunction)datagram_get_write_buffer_size, METH_NOARGS,
     "Returns the number of bytes that are buffered and not sent yet."},
    {"get_write_buffer_limits", (PyCFunction)transport_get_write_buffer_limits, METH_NOARGS,
     "Returns (low, high), in bytes: the buffer sizes at which the protocol's "
     "resume_writing() and pause_writing() are called."},
    {"set_write_buffer_limits", (PyCFunction)(void (*)(void))datagram_set_write_buffer_limits,
     METH_VARARGS | METH_KEYWORDS,
     "Sets the buffer sizes, in bytes, at which the protocol's pause_writing() (above "
     "`high`) and resume_writing() (at `low` or below) are called. Raises ValueError "
     "unless high >= low >= 0."},
    {"get_extra_info", (PyCFunction)(void (*)(void))transport_get_extra_info,
     METH_VARARGS | METH_KEYWORDS,
     "get_extra_info(name, default=None): returns what the transport knows by that name, "
     "such as 'socket', 'sockname' or 'peername', or else `default`."},
    {NULL, NULL, 0, NULL},
};

static PyObject *datagram_get_address(transport *self, void *Py_UNUSED(closure)) {
    LOCK_TRANSPORT(self);
    return Py_NewRef(self->address == NULL ? Py_None : self->address);
}

static PyGetSetDef datagram_getsets[] = {
    BASE_GETSETS,
    {"_sock", (getter)transport_get_sock, NULL, NULL, NULL},
    {"_sock_fd", (getter)transport_get_sock_fd, NULL, NULL, NULL},
    {"_address", (getter)datagram_get_address, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot datagram_slots[] = {
    BASE_SLOTS,
    {Py_tp_doc, "This transport sends and receives datagrams through a casync_datagram."},
    {Py_tp_repr, datagram_repr},
    {Py_tp_methods, datagram_methods},
    {Py_tp_getset, datagram_getsets},
    {0, NULL},
};

static PyType_Spec datagram_spec =
    TRANSPORT_SPEC("casync._native.DatagramTransport", sizeof(transport), datagram_slots);
