/* get_extra_info(): a transport's socket object and names, made when they are asked for.

   Invariants: what was made once is kept in _extra. A socket object that was made owns the
   descriptor from then on. */

/* A socket object for a descriptor, in asyncio's non-blocking mode. */
static PyObject *make_socket(state *st, int fd) {
    PyObject *args[4] = {NULL}, *sock, *result;
    for (int i = 0; i < 4; i++) args[i] = PyLong_FromLong(i < 3 ? -1 : fd);
    sock = PyObject_CallFunctionObjArgs(st->socket_type, args[0], args[1], args[2], args[3], NULL);
    for (int i = 0; i < 4; i++) Py_XDECREF(args[i]);
    if (sock == NULL) return NULL;
    result = PyObject_CallMethodOneArg(sock, st->names[NAME_SETBLOCKING], Py_False);
    if (result == NULL) Py_CLEAR(sock);
    Py_XDECREF(result);
    return sock;
}

/* A closed socket object, as that of an accepted connection would be now; NULL without an exception
   if it is none of those. */
static PyObject *make_closed_socket(transport *self, state *st) {
    casync_address own = transport_name(self, OWN_NAME);
    sa_family_t family = family_of(&own);
    PyObject *sock, *closed;
    if (self->kind != TRANSPORT_SOCKET || !is_known_family(family)) return NULL;
    sock = PyObject_CallFunction(st->socket_type, "iii", (int)family, SOCK_STREAM,
                                 family == AF_UNIX ? 0 : IPPROTO_TCP);
    closed = sock == NULL ? NULL : PyObject_CallMethodNoArgs(sock, st->names[NAME_CLOSE]);
    if (closed == NULL) Py_CLEAR(sock);
    Py_XDECREF(closed);
    return sock;
}

/* The socket object, made if there is none: after the end a closed one, or NULL without an
   exception. To make one runs code, which may have made one, too, or closed the descriptor: then it
   has an owner already, or none. */
static PyObject *transport_socket(transport *self, state *st) {
    int fd = self->fd;
    PyObject *made, *detached = NULL;
    if (self->sock != NULL) return Py_NewRef(self->sock);
    if (fd < 0) return make_closed_socket(self, st);
    made = make_socket(st, fd);
    if (made == NULL) return NULL;
    if (self->sock == NULL && self->fd == fd) {
        self->sock = Py_NewRef(made);
        return made;
    }
    detached = PyObject_CallMethodNoArgs(made, st->names[NAME_DETACH_SOCKET]);
    Py_DECREF(made);
    if (detached == NULL) return NULL;
    Py_DECREF(detached);
    return Py_XNewRef(self->sock);
}

/* What sock.getsockname() or getpeername() gave, or None. Of families that are not known here it is
   asked for now. */
static PyObject *make_name(transport *self, state *st, int which) {
    casync_address name = transport_name(self, which);
    PyObject *sock, *asked;
    if (name.size == 0 || is_known_family(family_of(&name))) return make_address(&name);
    sock = transport_socket(self, st);
    if (sock == NULL) return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    asked = PyObject_CallMethodNoArgs(
        sock, st->names[which == OWN_NAME ? NAME_GETSOCKNAME : NAME_GETPEERNAME]);
    Py_DECREF(sock);
    if (asked != NULL || !PyErr_ExceptionMatches(PyExc_OSError)) return asked;
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* "socket", "sockname" or "peername", made now; NULL without an exception for other names. */
static PyObject *make_extra_info(transport *self, state *st, PyObject *name) {
    if (PyUnicode_Compare(name, st->names[NAME_PEERNAME]) == 0)
        return make_name(self, st, PEER_NAME);
    if (PyUnicode_Compare(name, st->names[NAME_SOCKNAME]) == 0)
        return make_name(self, st, OWN_NAME);
    if (PyUnicode_Compare(name, st->names[NAME_SOCKET]) == 0) {
        PyObject *sock = transport_socket(self, st);
        PyObject *shown = sock == NULL ? NULL : PyObject_CallOneArg(st->transport_socket, sock);
        Py_XDECREF(sock);
        return shown;
    }
    return NULL;
}

/* The same, kept in _extra once it is made. */
static PyObject *keep_extra_info(transport *self, state *st, PyObject *name) {
    PyObject *value = make_extra_info(self, st, name), *extra;
    int result = 0;
    if (value == NULL) return NULL;
    if (self->extra == NULL) self->extra = PyDict_New();
    extra = Py_XNewRef(self->extra); /* it may be replaced meanwhile */
    if (extra == NULL)
        result = -1;
    else if (PyDict_Check(extra))
        result = PyDict_SetItem(extra, name, value);
    if (result < 0) Py_CLEAR(value);
    Py_XDECREF(extra);
    return value;
}

/* get_extra_info(name, default=None) */
static PyObject *transport_get_extra_info(transport *self, PyObject *args, PyObject *kwargs) {
    LOCK_TRANSPORT(self);
    static char *keywords[] = {"name", "default", NULL};
    PyObject *name, *value, *extra, *fallback = Py_None;
    state *st = (state *)PyType_GetModuleState(Py_TYPE(self));
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", keywords, &name,
                                     &fallback))
        return NULL;
    extra = Py_XNewRef(self->extra);             /* it may be replaced meanwhile */
    if (extra != NULL && !PyDict_Check(extra)) { /* a program has put that there */
        value = PyObject_CallMethodObjArgs(extra, st->names[NAME_GET], name, fallback, NULL);
    } else {
        value = extra == NULL ? NULL : get_item(extra, name);
        if (value == NULL && !PyErr_Occurred() && PyUnicode_Check(name))
            value = keep_extra_info(self, st, name);
        if (value == NULL && !PyErr_Occurred()) value = Py_NewRef(fallback);
    }
    Py_XDECREF(extra);
    return value;
}
