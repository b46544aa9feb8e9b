/* Awaitables: coroutines in C.

   Idea: what an async method of ours returns is an object with all that makes a coroutine (send,
   throw, close, __await__), so that `await`, create_task() and iscoroutine() take it for one. Its
   body is a function that goes as far as it can each time it is stepped. The struct of each type
   begins with an `awaitable`, whose `kind` is that function and what it takes to end early.

   Invariants: nothing happens before the first step. One that waits has `waiting`, and is stepped
   again when that future is done. Whatever the end is (a result, an exception, throw, close, the
   collector), finish() is called, once or more; before it abandon(), if the body waits and will not
   be stepped again. One that was never awaited warns, as a coroutine does.

   Costs: one object, known to the collector; no frame. Those that end are kept for reuse. */

typedef struct awaitable awaitable;

typedef struct {
    const char *owner, *name; /* of the method: "StreamReader", "read" */
    /* Goes on: PYGEN_NEXT and what `waiting` yielded, PYGEN_RETURN and the result, or PYGEN_ERROR.
       In the first step there is no `waiting`. */
    PySendResult (*step)(awaitable *self, PyObject **result);
    /* It waits, and will not be stepped again. NULL: that changes nothing. */
    void (*abandon)(awaitable *self);
    /* Lets go of all it has. Called with no exception set. */
    void (*finish)(awaitable *self);
} awaitable_kind;

enum { AWAITABLE_CREATED, AWAITABLE_RUNNING, AWAITABLE_WAITING, AWAITABLE_FINISHED };

/* Of what type an awaitable is: of which method's. */
enum awaitable_type { AWAITABLE_READ, AWAITABLE_DRAIN, AWAITABLE_SOCK };

struct awaitable {
    PyObject ob_base;
    const awaitable_kind *kind;
    PyObject *waiting; /* the iterator of the future that is awaited, or NULL; the next spare one */
    uint8_t type;      /* enum awaitable_type */
    uint8_t progress;
};

static state *awaitable_state(awaitable *self) {
    return (state *)PyType_GetModuleState(Py_TYPE(self));
}

/* An object that the collector does not track yet. What follows its `awaitable` is not zeroed. */
static awaitable *new_awaitable(state *st, enum awaitable_type type, const awaitable_kind *kind) {
    PyTypeObject *types[] = {st->operation_type, st->drain_type, st->sock_operation_type};
    awaitable *self = st->spare_awaitables[type];
    if (self != NULL) {
        st->spare_awaitables[type] = (awaitable *)self->waiting;
        st->spare_awaitable_counts[type]--;
        PyObject_Init((PyObject *)self, types[type]);
    } else {
        self = PyObject_GC_New(awaitable, types[type]);
        if (self == NULL) return NULL;
    }
    self->kind = kind;
    self->waiting = NULL;
    self->type = (uint8_t)type;
    self->progress = AWAITABLE_CREATED;
    return self;
}

/* Shows a new awaitable, whose struct is filled, to the collector and to debuggers. */
static void track_awaitable(state *st, awaitable *self) {
    ((coroutine_layout *)self)->state = st->closed_state;
    PyObject_GC_Track(self);
}

/* Keeps an awaitable for reuse, or frees it. One that was finalized is not used again: it would
   not be finalized a second time. */
static void free_awaitable(state *st, awaitable *self) {
    if (PyObject_GC_IsFinalized((PyObject *)self) ||
        st->spare_awaitable_counts[self->type] == SPARE_AWAITABLES) {
        PyObject_GC_Del(self);
        return;
    }
    self->waiting = (PyObject *)st->spare_awaitables[self->type];
    st->spare_awaitables[self->type] = self;
    st->spare_awaitable_counts[self->type]++;
}

static void free_spare_awaitables(state *st) {
    for (size_t type = 0; type < Py_ARRAY_LENGTH(st->spare_awaitables); type++) {
        while (st->spare_awaitables[type] != NULL) {
            awaitable *self = st->spare_awaitables[type];
            st->spare_awaitables[type] = (awaitable *)self->waiting;
            PyObject_GC_Del(self);
        }
        st->spare_awaitable_counts[type] = 0;
    }
}

static void awaitable_abandon(awaitable *self) {
    if (self->progress == AWAITABLE_WAITING && self->kind->abandon != NULL)
        self->kind->abandon(self);
}

static void awaitable_finish(awaitable *self) {
    awaitable_abandon(self);
    self->progress = AWAITABLE_FINISHED;
    Py_CLEAR(self->waiting);
    self->kind->finish(self);
}

/* Raises if it is being stepped: nothing may happen to it then. */
static int awaitable_check_idle(awaitable *self) {
    if (self->progress != AWAITABLE_RUNNING) return 0;
    PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    return -1;
}

/* Raises if it has ended, or is being stepped. */
static int awaitable_check_live(awaitable *self) {
    if (self->progress != AWAITABLE_FINISHED) return awaitable_check_idle(self);
    PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    return -1;
}

static PySendResult awaitable_am_send(PyObject *object, PyObject *value, PyObject **result) {
    awaitable *self = (awaitable *)object;
    PySendResult answer;
    *result = NULL;
    if (awaitable_check_live(self) < 0) return PYGEN_ERROR;
    if (self->progress == AWAITABLE_CREATED && value != Py_None) {
        PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
        return PYGEN_ERROR;
    }
    self->progress = AWAITABLE_RUNNING;
    answer = self->kind->step(self, result);
    if (answer == PYGEN_ERROR) Py_CLEAR(*result);
    if (answer == PYGEN_NEXT) {
        self->progress = AWAITABLE_WAITING;
    } else {
        PyObject *exception = answer == PYGEN_ERROR ? take_exception() : NULL;
        awaitable_finish(self);
        if (exception != NULL) raise_exception(exception);
    }
    return answer;
}

/* Raises StopIteration(result), whose reference is taken. */
static void awaitable_stop(PyObject *result) {
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
    Py_DECREF(result);
    if (stop != NULL) raise_exception(stop);
}

/* send(value): what is yielded, or NULL with StopIteration(result) or an error set. */
static PyObject *awaitable_send(PyObject *self, PyObject *value) {
    PyObject *result;
    PySendResult answer = awaitable_am_send(self, value, &result);
    if (answer == PYGEN_RETURN) awaitable_stop(result);
    return answer == PYGEN_NEXT ? result : NULL;
}

/* As iterators: what is yielded, or NULL with an error, StopIteration(result), or (if the result is
   None) nothing set. Since 3.12 `await` comes here; before, to awaitable_am_send, where it costs no
   exception. */
static PyObject *awaitable_next(PyObject *self) {
    PyObject *result;
    PySendResult answer = awaitable_am_send(self, Py_None, &result);
    if (answer == PYGEN_NEXT) return result;
    if (answer == PYGEN_RETURN && result != Py_None)
        awaitable_stop(result);
    else
        Py_XDECREF(result);
    return NULL;
}

static PyObject *awaitable_await(PyObject *self) { return Py_NewRef(self); }

/* Ends it before its end: 0, or -1 with an exception set. */
static int awaitable_end(awaitable *self) {
    if (awaitable_check_idle(self) < 0) return -1;
    awaitable_finish(self);
    return 0;
}

/* throw(exception), or as it was before 3.12: throw(type, value=None, traceback=None) */
static PyObject *awaitable_throw(awaitable *self, PyObject *args) {
    PyObject *type, *value = Py_None, *traceback = Py_None;
    if (!PyArg_ParseTuple(args, "O|OO:throw", &type, &value, &traceback)) return NULL;
    if (awaitable_check_live(self) < 0 || awaitable_end(self) < 0) return NULL;
    if (PyExceptionClass_Check(type) && value != Py_None)
        PyErr_SetObject(type, value);
    else
        raise_object(type);
    return NULL;
}

static PyObject *awaitable_close(awaitable *self, PyObject *Py_UNUSED(ignored)) {
    if (awaitable_end(self) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *awaitable_name(awaitable *self, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(self->kind->name);
}

static PyObject *awaitable_qualname(awaitable *self, void *Py_UNUSED(closure)) {
    return PyUnicode_FromFormat("%s.%s", self->kind->owner, self->kind->name);
}

static PyObject *awaitable_repr(awaitable *self) {
    return PyUnicode_FromFormat("<coroutine object %s.%s at %p>", self->kind->owner,
                                self->kind->name, self);
}

/* For the tp_traverse of its type. */
static int awaitable_visit(awaitable *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->waiting);
    return 0;
}

static int awaitable_clear(awaitable *self) {
    awaitable_finish(self);
    return 0;
}

/* As a coroutine's end: one that was never awaited warns, one that waits is closed. */
static void awaitable_finalize(PyObject *object) {
    awaitable *self = (awaitable *)object;
    PyObject *type, *value, *traceback;
    if (self->progress == AWAITABLE_FINISHED) return;
    PyErr_Fetch(&type, &value, &traceback);
    if (self->progress == AWAITABLE_CREATED &&
        PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s.%s' was never awaited",
                         self->kind->owner, self->kind->name) < 0)
        PyErr_WriteUnraisable(object);
    awaitable_abandon(self);
    PyErr_Restore(type, value, traceback);
}

static void awaitable_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    state *st = awaitable_state((awaitable *)self);
    if (((awaitable *)self)->progress != AWAITABLE_FINISHED &&
        PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    awaitable_clear((awaitable *)self);
    free_awaitable(st, (awaitable *)self);
    Py_DECREF(type);
}

static PyMethodDef awaitable_methods[] = {
    {"send", awaitable_send, METH_O, "Does what coroutine.send() does (PEP 492)."},
    {"throw", (PyCFunction)awaitable_throw, METH_VARARGS,
     "Does what coroutine.throw() does (PEP 492)."},
    {"close", (PyCFunction)awaitable_close, METH_NOARGS,
     "Does what coroutine.close() does (PEP 492)."},
    {NULL, NULL, 0, NULL},
};

/* cr_running, or cr_suspended: what inspect.getcoroutinestate() asks before 3.15. */
static PyObject *awaitable_get_flag(awaitable *self, void *suspended) {
    return PyBool_FromLong(self->progress == (suspended ? AWAITABLE_WAITING : AWAITABLE_RUNNING));
}

/* cr_state: what it asks since 3.15. */
static PyObject *awaitable_get_state(awaitable *self, void *Py_UNUSED(closure)) {
    static const char *const states[] = {
        [AWAITABLE_CREATED] = "CORO_CREATED",
        [AWAITABLE_RUNNING] = "CORO_RUNNING",
        [AWAITABLE_WAITING] = "CORO_SUSPENDED",
        [AWAITABLE_FINISHED] = "CORO_CLOSED",
    };
    return PyUnicode_InternFromString(states[self->progress]);
}

static PyObject *awaitable_get_await(awaitable *self, void *Py_UNUSED(closure)) {
    return Py_NewRef(self->waiting == NULL ? Py_None : self->waiting);
}

/* cr_frame: a coroutine has one until it ends, and by it getcoroutinestate() tells one that has not
   begun (before 3.11, one that waits, too) from one that has ended. Nothing runs in this one. */
static PyObject *awaitable_get_frame(awaitable *self, void *Py_UNUSED(closure)) {
    PyObject *name, *globals;
    PyCodeObject *code = NULL;
    PyFrameObject *frame = NULL;
    if (self->progress == AWAITABLE_FINISHED) Py_RETURN_NONE;
    name = awaitable_qualname(self, NULL);
    globals = name == NULL ? NULL : PyDict_New();
    if (globals != NULL) code = PyCode_NewEmpty("<casync>", PyUnicode_AsUTF8(name), 1);
    if (code != NULL) frame = PyFrame_New(PyThreadState_Get(), code, globals, NULL);
#if PY_VERSION_HEX < 0x030B0000
    if (frame != NULL) {
        Py_CLEAR(frame->f_back); /* who asks */
        frame->f_lineno = 1;
        if (self->progress != AWAITABLE_CREATED) frame->f_lasti = 0;
    }
#endif
    Py_XDECREF(name);
    Py_XDECREF(globals);
    Py_XDECREF(code);
    return (PyObject *)frame;
}

/* Of code there is none. */
static PyObject *awaitable_get_none(awaitable *Py_UNUSED(self), void *Py_UNUSED(closure)) {
    Py_RETURN_NONE;
}

static PyGetSetDef awaitable_getsets[] = {
    {"__name__", (getter)awaitable_name, NULL, NULL, NULL},
    {"__qualname__", (getter)awaitable_qualname, NULL, NULL, NULL},
    {"cr_running", (getter)awaitable_get_flag, NULL, NULL, (void *)false},
    {"cr_suspended", (getter)awaitable_get_flag, NULL, NULL, (void *)true},
    {"cr_state", (getter)awaitable_get_state, NULL, NULL, NULL},
    {"cr_await", (getter)awaitable_get_await, NULL, NULL, NULL},
    {"cr_frame", (getter)awaitable_get_frame, NULL, NULL, NULL},
    {"cr_code", (getter)awaitable_get_none, NULL, NULL, NULL},
    {"cr_origin", (getter)awaitable_get_none, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define AWAITABLE_FLAGS                                                                            \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION)

/* Of every type of awaitables, beside its own tp_doc and tp_traverse. */
#define AWAITABLE_SLOTS                                                                            \
    {Py_tp_dealloc, awaitable_dealloc}, {Py_tp_finalize, awaitable_finalize},                      \
        {Py_tp_clear, awaitable_clear}, {Py_tp_repr, awaitable_repr},                              \
        {Py_tp_iter, PyObject_SelfIter}, {Py_tp_iternext, awaitable_next},                         \
        {Py_am_await, awaitable_await}, {Py_am_send, awaitable_am_send},                           \
        {Py_tp_methods, awaitable_methods}, {                                                      \
        Py_tp_getset, awaitable_getsets                                                            \
    }
