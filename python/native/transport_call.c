/* Calls of a transport's protocol, and what becomes of an exception that it raises.

   Idea: a protocol is called in the context in which its transport was made. While the transport
   rests, it keeps of that context no more than the variables (see private_cpython.c).

   Invariants: a callback of a stream holds the transport and the loop while it calls. The calls
   that are going on are on the loop's list, innermost first; if the loop is run inside of one, the
   transports of that list are not read. */

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

/* As transport_enter; if the context cannot be entered, what follows runs in the present one. An
   exception that is set stays so, here and in transport_try_leave. */
static bool transport_try_enter(transport *self, loop *lp, running_call *call) {
    PyObject *exception = take_exception();
    bool entered = transport_enter(self, lp, call) > 0;
    if (!entered) forget_exception(PyExc_Exception, (PyObject *)self);
    if (exception != NULL) raise_exception(exception);
    return entered;
}

static void transport_try_leave(loop *lp, running_call *call) {
    PyObject *exception = take_exception();
    if (transport_leave(lp, call) < 0) PyErr_WriteUnraisable((PyObject *)lp);
    if (exception != NULL) raise_exception(exception);
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
                                 : handle_new(lp, HANDLE_PLAIN, callback, &argument,
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
    h->job.loop = &lp->casync;
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
   method. Since 3.12 the handler runs in the context of what failed. */
static void transport_report_method(transport *self, loop *lp, const char *name,
                                    PyObject *argument) {
    running_call call;
    bool entered = PY_VERSION_HEX >= 0x030C0000 && transport_try_enter(self, lp, &call);
    transport_report_callback(lp, asyncio_method(self, name), argument);
    if (entered) transport_try_leave(lp, &call);
}

/* asyncio's _fatal_error for the exception that is set; socket errors are not worth a report. False
   if it is one that ends the program: then it ends the run, and the connection stays open. */
static bool transport_fatal_here(transport *self, loop *lp, const char *message) {
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

/* The same, of what the stream tells: in the transport's context. */
static bool transport_fatal(transport *self, loop *lp, const char *message) {
    running_call call;
    bool entered = transport_try_enter(self, lp, &call);
    bool ends = transport_fatal_here(self, lp, message);
    if (entered) transport_try_leave(lp, &call);
    return ends;
}
