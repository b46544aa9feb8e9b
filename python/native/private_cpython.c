/* What the package takes from CPython beyond its documented C API: layouts and private functions.

   Idea: each piece is faster, or smaller, than the documented way to the same end, and that way
   stays beside it. A probe, run when the module is imported, finds out whether this interpreter is
   what the piece expects; if it is not, or the version is not among those that were tried, the
   documented way is taken. The gain in each comment is what pays for the piece: it was measured on
   the rows of bench/run with CPython 3.13, without the piece and with it by turns. What gained less
   than 3 % of a row is not here any more (a StopIteration made by the type's __new__: 1.6 % of a
   read(); _PyType_Lookup for a socket's methods: 1.5 % of an echo by sock_*).

   Invariants: no other file knows a layout of CPython's, or calls a function of a private name. */

/* ---- contexts ---- */

/* What asyncio copies for every callback, without the copy.

   asyncio gives each callback a copy of the context it was scheduled in. What a copy shares with
   its original is one immutable mapping, `vars`; so a handle, and a transport at rest, keeps just
   that (a reference), and is given a context around it when it runs, mostly the one that the
   callback before it has left. A context is used again only if nobody else holds it.

   Expects: the layout of struct _pycontextobject (Include/internal/pycore_context.h) of 3.10 to
   3.15, and the present context in the thread's state. Else: PyContext_CopyCurrent.
   Gain: 28 % of a call_soon, 12 % of a call_later with its cancel, 4 % of a task's switch; 64 bytes
   (10 %) of an idle connection. Without a GIL no context is used again, and a transport keeps its
   own. The gain there: 30 % of a call_soon with two loops in two threads, since copies that wait in
   queues make the collector run, which stops all threads. */

typedef struct {
    PyObject ob_base;
    PyObject *previous;
    PyObject *vars; /* an immutable mapping, type "hamt" */
    PyObject *weakrefs;
    int entered;
} context_layout;

#if PY_VERSION_HEX < 0x03100000

static context_layout *layout_of(PyObject *context) { return (context_layout *)context; }

/* The variables of the present context; NULL, without an exception, if there is none or it cannot
   be known. */
static PyObject *snapshot_context(state *st) {
    PyObject *context = PyThreadState_Get()->context;
    return st->knows_contexts && context != NULL ? Py_NewRef(layout_of(context)->vars) : NULL;
}

/* Is the context held by nobody but the caller, who has `references` to it? */
static bool is_only_ours(PyObject *context, Py_ssize_t references) {
    return Py_REFCNT(context) == references && layout_of(context)->weakrefs == NULL;
}

/* The variables of a context that is not entered. NULL, without an exception: somebody else holds
   the context, or its variables cannot be known, or there is no GIL, where each context is new. */
static PyObject *snapshot_of(state *st, PyObject *context, Py_ssize_t references) {
    bool known = SPARE_CONTEXTS && st->knows_contexts && is_only_ours(context, references);
    return known ? Py_NewRef(layout_of(context)->vars) : NULL;
}

/* A context with these variables, whose reference is taken. */
static PyObject *make_context(state *st, PyObject *vars) {
    PyObject *context = SPARE_CONTEXTS ? st->spare_context : NULL;
    if (context != NULL)
        st->spare_context = NULL;
    else
        context = PyContext_New();
    if (context == NULL)
        Py_DECREF(vars);
    else
        Py_XSETREF(layout_of(context)->vars, vars);
    return context;
}

/* Takes the reference of a context that make_context gave, or a copy of one. It is not entered. */
static void return_context(state *st, PyObject *context) {
    if (!SPARE_CONTEXTS || !st->knows_contexts || st->spare_context != NULL ||
        !is_only_ours(context, 1)) {
        Py_DECREF(context);
    } else {
        st->spare_context = context;
        Py_SETREF(layout_of(context)->vars, Py_NewRef(st->no_vars)); /* their values may go */
    }
}

/* Of a context that is entered, and a copy of it that is not. */
static bool contexts_are_known(PyObject *entered, PyObject *copy) {
    return PyThreadState_Get()->context == entered && layout_of(entered)->entered == 1 &&
           layout_of(copy)->entered == 0 && layout_of(entered)->vars == layout_of(copy)->vars &&
           strcmp(Py_TYPE(layout_of(copy)->vars)->tp_name, "hamt") == 0;
}

static int probe_contexts(state *st) {
    PyObject *context, *copy;
    int result = -1;
    if (PyContext_Type.tp_basicsize != sizeof(context_layout)) return 0;
    context = PyContext_New();
    copy = context == NULL ? NULL : PyContext_Copy(context);
    if (copy != NULL && PyContext_Enter(context) == 0) {
        st->knows_contexts = contexts_are_known(context, copy);
        if (st->knows_contexts) st->no_vars = Py_NewRef(layout_of(copy)->vars);
        result = PyContext_Exit(context);
    }
    Py_XDECREF(context);
    Py_XDECREF(copy);
    return result;
}

#else

static PyObject *snapshot_context(state *Py_UNUSED(st)) { return NULL; }

static PyObject *snapshot_of(state *Py_UNUSED(st), PyObject *Py_UNUSED(context),
                             Py_ssize_t Py_UNUSED(references)) {
    return NULL;
}

/* Not called, for there are no snapshots. */
static PyObject *make_context(state *Py_UNUSED(st), PyObject *vars) { return vars; }

static void return_context(state *Py_UNUSED(st), PyObject *context) { Py_DECREF(context); }

static int probe_contexts(state *Py_UNUSED(st)) { return 0; }

#endif

/* ---- versions of types ---- */

/* Whether a class is as it was when it was looked at last, by one comparison.

   Expects: CPython gives a type another `tp_version_tag` for every change of it or its bases, and
   none (0) until an attribute is looked up. Else: the version is never known, and whoever asks
   looks at the class itself.
   Gain: 17 % of a call_soon, by handle.c alone. */
static inline unsigned type_version(state *st, PyTypeObject *type) {
    return st->knows_versions ? __atomic_load_n(&type->tp_version_tag, __ATOMIC_ACQUIRE) : 0;
}

/* The same, of a type that may have no version yet. */
static unsigned new_type_version(state *st, PyTypeObject *type) {
#if PY_VERSION_HEX >= 0x030C0000
    (void)PyUnstable_Type_AssignVersionTag(type);
#else
    (void)PyObject_HasAttr((PyObject *)type, st->names[NAME_WRITE]); /* gives it one */
#endif
    return type_version(st, type);
}

static int probe_type_versions(state *st) {
    PyObject *make = (PyObject *)&PyType_Type, *derived = NULL;
    PyObject *base = PyObject_CallFunction(make, "s(){}", "Base");
    int result = -1;
    if (base != NULL) derived = PyObject_CallFunction(make, "s(O){}", "Derived", base);
    if (derived != NULL) {
        unsigned before, after;
        st->knows_versions = true;
        before = new_type_version(st, (PyTypeObject *)derived);
        result = PyObject_SetAttr(base, st->names[NAME_WRITE], Py_None);
        after = new_type_version(st, (PyTypeObject *)derived);
        st->knows_versions = before != 0 && after != 0 && before != after;
    }
    Py_XDECREF(base);
    Py_XDECREF(derived);
    return result;
}

/* ---- methods ---- */

/* Is object.name this function, by its class and not by an attribute of its own?

   Expects: _PyObject_GetMethod, which gives a method as the function that it is, with the result 1;
   it has been exported in every version so far. Else: the bound method that everybody gets.
   Gain: 4 % of an echo by streams, of which the server's half is 6 %. */

#if PY_VERSION_HEX < 0x03100000

#if PY_VERSION_HEX >= 0x030D0000 /* declared among what is internal */
PyAPI_FUNC(int) _PyObject_GetMethod(PyObject *object, PyObject *name, PyObject **method);
#endif

static bool is_unbound_function(PyObject *object, PyObject *name, PyObject *function) {
    PyObject *found = NULL;
    bool same = _PyObject_GetMethod(object, name, &found) == 1 && found == function;
    if (found == NULL) forget_exception(PyExc_AttributeError, object);
    Py_XDECREF(found);
    return same;
}

#else

static bool is_unbound_function(PyObject *Py_UNUSED(object), PyObject *Py_UNUSED(name),
                                PyObject *Py_UNUSED(function)) {
    return false;
}

#endif

static bool is_bound_function(PyObject *object, PyObject *name, PyObject *function) {
    PyObject *found = PyObject_GetAttr(object, name);
    bool same = found != NULL && PyMethod_Check(found) && PyMethod_GET_FUNCTION(found) == function;
    if (found == NULL) forget_exception(PyExc_AttributeError, object);
    Py_XDECREF(found);
    return same;
}

static bool has_function(state *st, PyObject *object, PyObject *name, PyObject *function) {
    return st->knows_methods ? is_unbound_function(object, name, function)
                             : is_bound_function(object, name, function);
}

static int probe_methods(state *st) {
    PyObject *type = import_attribute("asyncio.protocols", "Protocol");
    PyObject *object = type == NULL ? NULL : PyObject_CallNoArgs(type);
    PyObject *name = st->names[NAME_DATA_RECEIVED], *function = NULL;
    if (object != NULL) function = PyObject_GetAttr(type, name);
    if (function != NULL) st->knows_methods = is_unbound_function(object, name, function);
    Py_XDECREF(type);
    Py_XDECREF(object);
    Py_XDECREF(function);
    return function == NULL ? -1 : 0;
}

/* ---- the class of an object ---- */

/* object.__class__ = type, for a type that adds nothing to the object's own.

   Without a GIL that statement stops all threads, since another one may be about to look at the
   class (object_set_class in Objects/typeobject.c). It need not for an object that asyncio has just
   made in this thread, and of which `owners` and the caller have the only references. (Nor is there
   an audit event then, or a check that the types fit: they do.)

   Expects: the layout of PyObject without a GIL (Include/object.h), and that an object whose
   __dict__ was set keeps no attribute outside of it. Else: the statement.
   Gain: two threads that each accept connections for streams: 412 a second with the statement,
   where one thread has 8,718. */

#ifdef Py_GIL_DISABLED

static bool is_shared(PyObject *object, uint32_t owners) {
    return LOAD(object->ob_tid) != _Py_ThreadId() || LOAD(object->ob_ref_local) > owners + 1 ||
           LOAD(object->ob_ref_shared) >> _Py_REF_SHARED_SHIFT != 0;
}

static int set_class(state *st, PyObject *object, PyTypeObject *type, uint32_t owners) {
    PyTypeObject *before = Py_TYPE(object);
    PyObject *dict, *copy;
    int result;
    if (is_shared(object, owners))
        return PyObject_SetAttr(object, st->names[NAME_CLASS], (PyObject *)type);
    dict = PyObject_GetAttr(object, st->names[NAME_DICT]);
    copy = dict == NULL ? NULL : PyDict_Copy(dict);
    result = copy == NULL ? -1 : PyObject_SetAttr(object, st->names[NAME_DICT], copy);
    Py_XDECREF(dict);
    Py_XDECREF(copy);
    if (result < 0) return -1;
    Py_SET_TYPE(object, (PyTypeObject *)Py_NewRef((PyObject *)type));
    Py_DECREF((PyObject *)before);
    return 0;
}

#else

static int set_class(state *st, PyObject *object, PyTypeObject *type, uint32_t Py_UNUSED(owners)) {
    return PyObject_SetAttr(object, st->names[NAME_CLASS], (PyObject *)type);
}

#endif

/* ---- critical sections ---- */

#ifdef Py_GIL_DISABLED

/* Is this thread in a critical section on the object, the innermost, and has not left it for a
   while? Of those around that one nobody can say so: CPython enters a section again that it has
   left when it is the innermost.

   Expects: a thread's `critical_section` of 3.13 (Include/internal/pycore_critical_section.h),
   whose low bits say that the section was left (1), or is one on two objects (2). Else: to enter it
   a second time, which makes the thread wait for itself until CPython has left the first.
   Gain: a turn of asyncio's kind beside two busy threads: 24 us, not 246 ms. */
static bool is_in_section(PyObject *object) {
    uintptr_t innermost = PyThreadState_Get()->critical_section;
    return innermost != 0 && (innermost & 3) == 0 &&
           ((PyCriticalSection *)innermost)->_cs_mutex == &object->ob_mutex;
}

#endif

/* ---- types that threads share ---- */

/* Keeps threads from counting references to a type in one word: without a GIL each object that is
   made and freed counts one. CPython 3.13 does so to a program's classes when the first thread
   starts, and to types of extension modules not; from 3.14 on each thread counts on its own.

   Expects: what 3.13 takes for an immortal object (_Py_IsImmortal in Include/object.h). Else:
   nothing. Such a type never goes, and so its module does not: their memory outlives an
   interpreter.
   Gain: with two threads, 88 % of handle_dealloc's time was the wait for that word (perf). */

#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX < 0x030E0000

static void share_type(PyTypeObject *type) {
    PyObject *object = (PyObject *)type;
    object->ob_tid = _Py_UNOWNED_TID;
    object->ob_ref_shared = 0;
    STORE(object->ob_ref_local, _Py_IMMORTAL_REFCNT_LOCAL);
}

#else

static void share_type(PyTypeObject *Py_UNUSED(type)) {}

#endif

/* ---- a socket's number ---- */

/* Expects: the head of PySocketSockObject (Modules/socketmodule.h), so far the same in all
   versions. Else: sock.fileno().
   Gain: 10 % of an echo by sock_*. */

typedef struct {
    PyObject ob_base;
    int fd; /* -1 if closed, and at first */
} socket_layout;

/* Is the descriptor of this object known? Then it is *fd, or -1 if the socket is closed. */
static bool read_socket_number(state *st, PyObject *sock, int *fd) {
    if (!st->knows_sockets || (PyObject *)Py_TYPE(sock) != st->socket_type) return false;
    *fd = ((socket_layout *)sock)->fd;
    return true;
}

static int probe_sockets(state *st) {
    PyTypeObject *type = (PyTypeObject *)st->socket_type;
    PyObject *blank = type->tp_new(type, st->no_args, NULL);
    if (blank == NULL) return -1;
    st->knows_sockets = type->tp_basicsize >= (Py_ssize_t)sizeof(socket_layout) &&
                        ((socket_layout *)blank)->fd == -1;
    Py_DECREF(blank);
    return 0;
}

/* ---- the state of a coroutine ---- */

/* What another process reads of a task's coroutine, whatever that is: `python -m asyncio ps`
   (Modules/_remote_debugging/asyncio.c, since 3.14) takes it for one of the interpreter's own. At
   the place of such a one's state an awaitable has what a closed coroutine has there, so nothing
   else of it is read.

   Expects: the head of struct _PyGenObject (Include/internal/pycore_interpframe_structs.h) of 3.14
   and 3.15. Else: `ps` fails if a task's coroutine is an awaitable, as it does with any object.
   Gain: `python -m asyncio ps` and `pstree`. */
typedef struct {
    PyObject ob_base;
    PyObject *weakrefs, *name, *qualname, *exc_state[2], *origin;
    char flags[3];
    int8_t state;
} coroutine_layout;

/* Of an awaitable's struct, which has an int8_t `state` there. */
#define ASSERT_STATE_PLACE(type)                                                                   \
    static_assert(offsetof(type, state) == offsetof(coroutine_layout, state), #type ".state")

static int probe_coroutines(state *st) {
    PyObject *sleep = import_attribute("asyncio.tasks", "sleep"), *closed = NULL;
    PyObject *coroutine = sleep == NULL ? NULL : PyObject_CallFunction(sleep, "i", 0);
    int result = coroutine == NULL ? -1 : 0;
    if (coroutine != NULL && PyCoro_CheckExact(coroutine)) { /* a program may replace sleep() */
        closed = PyObject_CallMethodNoArgs(coroutine, st->names[NAME_CLOSE]);
        if (closed == NULL) result = -1;
        if (PyCoro_Type.tp_basicsize >= (Py_ssize_t)sizeof(coroutine_layout))
            st->closed_state = ((coroutine_layout *)coroutine)->state;
    }
    Py_XDECREF(sleep);
    Py_XDECREF(coroutine);
    Py_XDECREF(closed);
    return result;
}

/* ---- the base of transports ---- */

/* asyncio's _FlowControlMixin, of which asyncio wants every transport to be that it writes a file
   to. Its five slots stand at the head of an instance. Nothing here uses them: transports have
   attributes of the same names, which hide them; but what a program puts there by the slots' own
   descriptors is theirs to keep.

   Expects: instances of asyncio's class are no larger than this. Else: the public class, without
   the mixin (and sendfile(), where the system's does not do, raises TypeError).
   Gain: loop.sendfile() over TLS, and from what is no regular file. */
typedef struct {
    PyObject ob_base;
    PyObject *slots[5];
} transport_base;

static int transport_base_visit(transport_base *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    for (int i = 0; i < 5; i++) Py_VISIT(self->slots[i]);
    return 0;
}

static void transport_base_clear(transport_base *self) {
    for (int i = 0; i < 5; i++) Py_CLEAR(self->slots[i]);
}

static bool fits_transport_base(PyObject *type) {
    return ((PyTypeObject *)type)->tp_basicsize <= (Py_ssize_t)sizeof(transport_base);
}

/* The bases of a type of transports, as a tuple: the public class of asyncio's that it stands for,
   and before it the mixin, if it `writes` a stream or datagrams. */
static PyObject *transport_bases(const char *public_class, bool writes) {
    PyObject *mixin = import_attribute("asyncio.transports", "_FlowControlMixin");
    PyObject *type = import_attribute("asyncio.transports", public_class), *bases = NULL;
    if (mixin != NULL && type != NULL && !fits_transport_base(type))
        PyErr_Format(PyExc_ImportError, "casync does not know this asyncio: %s has grown",
                     public_class);
    else if (mixin != NULL && type != NULL)
        bases = writes && fits_transport_base(mixin) ? PyTuple_Pack(2, mixin, type)
                                                     : PyTuple_Pack(1, type);
    Py_XDECREF(mixin);
    Py_XDECREF(type);
    return bases;
}

static int probe_cpython(state *st) {
    return probe_contexts(st) < 0 || probe_type_versions(st) < 0 || probe_methods(st) < 0 ||
                   probe_sockets(st) < 0 || probe_coroutines(st) < 0
               ? -1
               : 0;
}
