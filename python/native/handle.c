/* Handles: asyncio.Handle and asyncio.TimerHandle around casync_job and casync_timer.

   Idea: a handle is queued by linking the job inside it, and freed handles are reused, so that
   call_soon is a few stores. The garbage collector does not know handles: a handle holds a
   callback, arguments and a context only while it is queued (or watches a descriptor), and then the
   loop visits these for it. The loop is borrowed: only a queued handle uses it, and a loop drops
   its queue first.

   Invariants: a queued handle has one reference from the queue, and its loop is there; of no other
   handle is that known (but of a watcher's). callback == NULL means it has run or was cancelled,
   and holds nothing. While it runs, cancelling only sets the flag, and so does running it again in
   there: the vector of a call must not change under the callee. Who began to run it first lets go
   of what it holds. From Python 3.14 on, and without a GIL, a handle of call_soon_threadsafe is
   locked while it runs, is cancelled or is asked whether it was, as asyncio's _ThreadSafeHandle is;
   but not while what it had is let go of, for that may cancel others. Without a GIL it is locked
   whatever it is asked, and a thread that does not run its loop cannot take it out of the queue:
   cancelled, it stays there, empty, until it is its turn.

   Costs: no allocation while spare handles last, but for the context's copy when none is given. */

/* asyncio has its own type for them, _ThreadSafeHandle, since 3.14. */
#if PY_VERSION_HEX >= 0x030E0000 || defined(Py_GIL_DISABLED)
#define HAS_THREADSAFE_HANDLES 1
#else
#define HAS_THREADSAFE_HANDLES 0
#endif

typedef enum {
    HANDLE_PLAIN,
    HANDLE_TIMER,     /* a TimerHandle */
    HANDLE_THREADSAFE /* of call_soon_threadsafe */
} handle_kind;

enum {
    HANDLE_CANCELLED = 1,
    HANDLE_RUNNING = 2,
    HANDLE_KEPT = 4,      /* a watcher's: runs many times */
    HANDLE_TUPLE = 8,     /* the arguments are in the tuple vector[1] */
    HANDLE_SNAPSHOT = 16, /* `context` is the variables of one: see private_cpython.c */
    HANDLE_LENT = 32,     /* `context` is to be returned */
    HANDLE_WRAPPER = 64,  /* its argument is an asyncio.Handle, cancelled with it */
    HANDLE_TAKEN = 128    /* in the queue loop->taken */
};

typedef struct handle {
    PyObject ob_base;
    PyObject *callback;
    PyObject *context;                 /* NULL: called in the loop's own */
    PyObject *vector[1 + INLINE_ARGS]; /* the arguments, behind the slot that vectorcall wants */
    PyObject *weakrefs;
    uint8_t kind; /* a handle_kind; handle_alloc sets it, so it is read without a lock */
    uint8_t flags;
    uint8_t count; /* of arguments in vector */
#if HAS_THREADSAFE_HANDLES
    PyMutex mutex;  /* of a thread-safe one; it and the next fill what was padding */
    uint32_t owner; /* the thread that has the mutex, or 0 */
#endif
#ifdef Py_GIL_DISABLED
    PyObject *lock; /* its loop's */
#endif
    casync_job job;
} handle;

/* A handle whose job is the first member of a timer. */
typedef struct {
    handle head;
    int64_t deadline, repeat;
    double when; /* as given, or as call_later computed it */
} timer_handle;

/* Of loop.c, which comes next. */
static void loop_end_run(loop *self, PyObject *exception);
static void loop_report(loop *self, PyObject *message, PyObject *exception, enum name key,
                        PyObject *value, enum name key2, PyObject *value2);

static casync_timer *timer_of(handle *self) { return (casync_timer *)(void *)&self->job; }

static_assert(sizeof(casync_timer) == sizeof(casync_job) + 2 * sizeof(int64_t) &&
                  offsetof(timer_handle, deadline) ==
                      offsetof(handle, job) + offsetof(casync_timer, deadline),
              "a timer_handle's tail is a casync_timer");

#ifdef Py_GIL_DISABLED

static void handle_keep_lock(handle *self, loop *lp) { self->lock = Py_NewRef(lp->lock); }

static void handle_free_lock(handle *self) { Py_DECREF(self->lock); }

#else

static void handle_keep_lock(handle *Py_UNUSED(self), loop *Py_UNUSED(lp)) {}

static void handle_free_lock(handle *Py_UNUSED(self)) {}

#endif

/* A blank handle of either type, for the loop. */
static handle *handle_alloc(loop *lp, handle_kind kind) {
    state *st = lp->state;
    bool timer = kind == HANDLE_TIMER;
    handle **spare = timer ? &st->spare_timers : &st->spare_handles;
    PyTypeObject *type = timer ? st->timer_type : st->handle_type;
    handle *self = *spare;
    if (self == NULL) {
        self = (handle *)PyObject_Malloc((size_t)type->tp_basicsize);
        if (self == NULL) return (handle *)PyErr_NoMemory();
        memset(self, 0, (size_t)type->tp_basicsize);
    } else {
        *spare = (handle *)self->vector[0];
        --*(timer ? &st->spare_timer_count : &st->spare_handle_count);
    }
    PyObject_Init((PyObject *)self, type);
    handle_keep_lock(self, lp);
    self->kind = (uint8_t)kind;
    self->flags = 0;
    return self;
}

/* Keeps the arguments, three in the handle itself. */
static int handle_set_args(handle *self, PyObject *const *args, Py_ssize_t count) {
    if (count <= INLINE_ARGS) {
        for (Py_ssize_t i = 0; i < count; i++) self->vector[1 + i] = Py_NewRef(args[i]);
        self->count = (uint8_t)count;
        return 0;
    }
    PyObject *tuple = PyTuple_New(count);
    if (tuple == NULL) return -1;
    for (Py_ssize_t i = 0; i < count; i++) PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    self->vector[1] = tuple;
    self->count = 1;
    self->flags |= HANDLE_TUPLE;
    return 0;
}

/* The context to call in: a given one, or (None or NULL) what a copy of the present one would
   be. */
static int handle_set_context(handle *self, state *st, PyObject *context) {
    if (context != NULL && context != Py_None) {
        self->context = Py_NewRef(context);
        return 0;
    }
    self->context = snapshot_context(st);
    if (self->context != NULL)
        self->flags |= HANDLE_SNAPSHOT;
    else
        self->context = PyContext_CopyCurrent();
    return self->context == NULL ? -1 : 0;
}

/* Makes the context of a handle that has a snapshot. */
static int handle_make_context(handle *self, state *st) {
    PyObject *context;
    if (!(self->flags & HANDLE_SNAPSHOT)) return 0;
    context = make_context(st, Py_NewRef(self->context)); /* may run the collector */
    if (context == NULL) return -1;
    if (!(self->flags & HANDLE_SNAPSHOT)) { /* and that have made it, or cancelled the handle */
        return_context(st, context);
        return 0;
    }
    Py_SETREF(self->context, context);
    self->flags = (uint8_t)((self->flags & ~HANDLE_SNAPSHOT) | HANDLE_LENT);
    return 0;
}

/* A handle for callback(*args) in a context: None or NULL for a copy of the present one. */
static handle *handle_new(loop *lp, handle_kind kind, PyObject *callback, PyObject *const *args,
                          Py_ssize_t count, PyObject *context) {
    handle *self = handle_alloc(lp, kind);
    if (self == NULL) return NULL;
    self->callback = Py_NewRef(callback);
    if (handle_set_context(self, lp->state, context) < 0 ||
        handle_set_args(self, args, count) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

/* What a handle has had. */
typedef struct {
    PyObject *callback, *context, *args[INLINE_ARGS];
    uint8_t count;
    bool lent;   /* the context */
    bool queued; /* the reference that the queue had */
} handle_contents;

/* Takes out what it has. */
static inline handle_contents handle_take(handle *self) {
    handle_contents taken; /* not zeroed: of `args` the first `count` alone count */
    taken.callback = self->callback;
    taken.context = self->context;
    taken.count = self->count;
    taken.lent = self->flags & HANDLE_LENT;
    taken.queued = false;
    for (uint8_t i = 0; i < taken.count; i++) taken.args[i] = self->vector[1 + i];
    self->count = 0;
    self->callback = self->context = NULL;
    self->flags &= (uint8_t) ~(HANDLE_SNAPSHOT | HANDLE_LENT);
    return taken;
}

/* Lets go of it. What that does in its end finds the handle empty, and may cancel others: no handle
   of this thread is locked. */
static inline void handle_let_go(handle *self, state *st, const handle_contents *taken) {
    for (uint8_t i = 0; i < taken->count; i++) Py_DECREF(taken->args[i]);
    Py_XDECREF(taken->callback);
    if (taken->lent)
        return_context(st, taken->context);
    else
        Py_XDECREF(taken->context);
    if (taken->queued) Py_DECREF(self);
}

static void handle_drop(handle *self, state *st) {
    handle_contents taken = handle_take(self);
    handle_let_go(self, st, &taken);
}

static void handle_dealloc(handle *self) {
    PyTypeObject *type = Py_TYPE(self);
    state *st = (state *)PyType_GetModuleState(type);
    bool timer = self->kind == HANDLE_TIMER;
    uint32_t *count = timer ? &st->spare_timer_count : &st->spare_handle_count;
    if (self->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)self);
    if (self->callback != NULL) handle_drop(self, st);
    handle_free_lock(self);
    if (*count < SPARE_HANDLES) {
        handle **spare = timer ? &st->spare_timers : &st->spare_handles;
        self->vector[0] = (PyObject *)*spare;
        *spare = self;
        ++*count;
    } else {
        PyObject_Free(self);
    }
    Py_DECREF(type);
}

static void free_spare_handles(state *st) {
    handle **lists[2] = {&st->spare_handles, &st->spare_timers};
    for (int i = 0; i < 2; i++) {
        while (*lists[i] != NULL) {
            handle *self = *lists[i];
            *lists[i] = (handle *)self->vector[0];
            PyObject_Free(self);
        }
    }
    st->spare_handle_count = st->spare_timer_count = 0;
}

/* For the loop's tp_traverse. */
static int handle_visit(handle *self, visitproc visit, void *arg) {
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    for (uint8_t i = 1; i <= self->count; i++) Py_VISIT(self->vector[i]);
    return 0;
}

static PyObject *handle_args(handle *self) {
    PyObject *tuple;
    if (self->flags & HANDLE_TUPLE && self->count) return Py_NewRef(self->vector[1]);
    tuple = PyTuple_New(self->count);
    if (tuple == NULL) return NULL;
    for (uint8_t i = 0; i < self->count; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(self->vector[1 + i]));
    return tuple;
}

static PyObject *handle_call_in_context(handle *self) {
    if (self->flags & HANDLE_TUPLE) return PyObject_CallObject(self->callback, self->vector[1]);
    return PyObject_Vectorcall(self->callback, self->vector + 1,
                               self->count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

/* context.run(callback, *arguments), of what is no context: asyncio finds out in this way, too. */
static PyObject *handle_call_by_run(handle *self, state *st) {
    PyObject *run = PyObject_GetAttr(self->context, st->names[NAME_CONTEXT_RUN]), *args,
             *all = NULL, *result = NULL;
    args = run == NULL ? NULL : handle_args(self);
    if (args != NULL) all = PyTuple_Pack(1, self->callback);
    if (all != NULL) Py_SETREF(all, PySequence_Concat(all, args));
    if (all != NULL) result = PyObject_CallObject(run, all);
    Py_XDECREF(run);
    Py_XDECREF(args);
    Py_XDECREF(all);
    return result;
}

/* Calls the callback in its context: its result, or NULL with the exception set. */
static PyObject *handle_call(handle *self, state *st) {
    PyObject *context, *result;
    if (handle_make_context(self, st) < 0) return NULL;
    context = self->context;
    if (context == NULL) return handle_call_in_context(self);
    if (!PyContext_CheckExact(context)) return handle_call_by_run(self, st);
    if (PyContext_Enter(context) < 0) return NULL;
    result = handle_call_in_context(self);
    if (PyContext_Exit(context) < 0) Py_CLEAR(result);
    return result;
}

/* What asyncio calls a callback: a string, or NULL with an exception set. */
static PyObject *handle_source(handle *self, state *st) {
    PyObject *callback = Py_NewRef(self->callback), *args = handle_args(self), *source = NULL;
    if (args != NULL)
        source = PyObject_CallFunctionObjArgs(st->format_callback_source, callback, args, NULL);
    Py_DECREF(callback);
    Py_XDECREF(args);
    return source;
}

/* Tells the loop's exception handler of the exception that is set, in asyncio's words (Handle._run
   in asyncio/events.py). */
static void handle_report(loop *lp, handle *self) {
    PyObject *exception = take_exception(), *source, *message = NULL;
    if (ends_program(exception)) {
        loop_end_run(lp, exception);
        return;
    }
    source = handle_source(self, lp->state);
    if (source != NULL) message = PyUnicode_FromFormat("Exception in callback %U", source);
    loop_report(lp, message, exception, NAME_HANDLE, (PyObject *)self, NAME_COUNT, NULL);
    Py_XDECREF(source);
}

/* Is that function asyncio's own? */
static bool is_of_events(state *st, PyObject *function) {
    return PyFunction_Check(function) && PyFunction_GET_GLOBALS(function) == st->events;
}

/* asyncio.Handle._run, if a program has put another function there (aiodebug measures by it): a new
   reference, or NULL. Asked at every call, so the type's version is remembered. */
static PyObject *find_patched_run(state *st, bool timer) {
    PyTypeObject *type = (PyTypeObject *)st->asyncio_timer_handle;
    PyObject *run, *run_timer;
    unsigned version = type_version(st, type);
    if (version == LOAD(st->unpatched_version) && version != 0) return NULL;
    version = new_type_version(st, type); /* first: a change that comes meanwhile shows by it */
    /* what there is not is none of asyncio's */
    run = PyObject_GetAttr(st->asyncio_handle, st->names[NAME_RUN]);
    if (run == NULL) forget_exception(PyExc_AttributeError, st->asyncio_handle);
    run_timer = PyObject_GetAttr((PyObject *)type, st->names[NAME_RUN]);
    if (run_timer == NULL) forget_exception(PyExc_AttributeError, st->asyncio_handle);
    if (run != NULL && run_timer != NULL && is_of_events(st, run) && is_of_events(st, run_timer))
        STORE(st->unpatched_version, version);
    Py_XSETREF(run, Py_XNewRef(timer ? run_timer : run));
    Py_XDECREF(run_timer);
    if (run != NULL && is_of_events(st, run)) Py_CLEAR(run);
    return run;
}

/* As asyncio: what that function raises ends the run. */
static void handle_run_patched(loop *lp, handle *self, PyObject *run) {
    PyObject *result = PyObject_CallOneArg(run, (PyObject *)self);
    if (result == NULL) loop_end_run(lp, take_exception());
    Py_XDECREF(result);
    Py_DECREF(run);
}

#if HAS_THREADSAFE_HANDLES

/* Makes other threads wait for a thread-safe handle until handle_unlock. False if there is nothing
   to unlock: it is of another kind, or this thread has locked it already. */
static bool handle_lock(handle *self) {
    uint32_t here;
    if (self->kind != HANDLE_THREADSAFE) return false;
    here = (uint32_t)PyThreadState_GetID(PyThreadState_Get());
    if (LOAD(self->owner) == here) return false;
    PyMutex_Lock(&self->mutex); /* a thread that waits here has dropped the GIL */
    STORE(self->owner, here);
    return true;
}

static void handle_unlock(handle *self, bool locked) {
    if (!locked) return;
    STORE(self->owner, 0);
    PyMutex_Unlock(&self->mutex);
}

#else

static bool handle_lock(handle *Py_UNUSED(self)) { return false; }

static void handle_unlock(handle *Py_UNUSED(self), bool Py_UNUSED(locked)) {}

#endif

static bool handle_is_queued(const handle *self) { return casync_job_pending(&self->job); }

/* The loop that runs it, or that it is queued in, or that watches for it, borrowed; NULL if that is
   not known to be there. */
static loop *handle_loop(const handle *self) {
    bool known = self->callback != NULL &&
                 (self->flags & (HANDLE_RUNNING | HANDLE_KEPT) || handle_is_queued(self));
    loop *lp = known ? loop_of(self->job.loop) : NULL;
    return lp == NULL || lp->dying ? NULL : lp;
}

#ifdef Py_GIL_DISABLED

/* Is it a thread-safe one of a loop that does not run in this thread? */
static bool handle_is_others(handle *self) {
    return self->kind == HANDLE_THREADSAFE && loop_of(self->job.loop) != running_here;
}

/* A handle that another thread may have: with its own lock, if it has one, and with that of its
   loop, unless a callback may hold that for long. */
typedef struct {
    handle *handle;
    bool locked;
    held_lock loop;
} held_handle;

static void hold_handle(held_handle *held, handle *self) {
    held->handle = self;
    held->locked = handle_lock(self);
    lock_object(&held->loop, handle_is_others(self) ? NULL : self->lock);
}

static void let_go_of_handle(held_handle *held) {
    unlock(&held->loop);
    handle_unlock(held->handle, held->locked);
}

#define LOCK_HANDLE_STATE(self) LOCK_HANDLE(self)

#else

static bool handle_is_others(handle *Py_UNUSED(self)) { return false; }

typedef struct {
    handle *handle;
    bool locked;
} held_handle;

static void hold_handle(held_handle *held, handle *self) {
    held->handle = self;
    held->locked = handle_lock(self);
}

static void let_go_of_handle(held_handle *held) { handle_unlock(held->handle, held->locked); }

#define LOCK_HANDLE_STATE(self) (void)(self)

#endif

/* The handle is locked to the end of the block. The other macro is for what asyncio does not lock:
   with a GIL it does nothing. */
#define LOCK_HANDLE(self)                                                                          \
    held_handle held __attribute__((cleanup(let_go_of_handle)));                                   \
    hold_handle(&held, self)

/* Runs it: false if this was inside of another run of it, which holds what it has. */
static bool handle_run_locked(loop *lp, handle *self) {
    PyObject *result, *patched;
    bool inside = self->flags & HANDLE_RUNNING;
    self->flags |= HANDLE_RUNNING;
    /* Without a context it only stands for one of asyncio's handles, whose own _run will be
       called. */
    patched =
        self->context == NULL ? NULL : find_patched_run(lp->state, self->kind == HANDLE_TIMER);
    if (patched != NULL) {
        handle_run_patched(lp, self, patched);
    } else {
        result = handle_call(self, lp->state);
        if (result != NULL)
            Py_DECREF(result);
        else
            handle_report(lp, self);
    }
    if (!inside) self->flags &= (uint8_t)~HANDLE_RUNNING;
    return !inside;
}

/* As _run of asyncio's handles. While it waited for a thread-safe one, which is `locked` now,
   another thread may have cancelled it, or run it; and what another thread has cancelled is empty,
   but queued still. */
static bool handle_run_now(loop *lp, handle *self, bool locked) {
    if (self->callback == NULL || (locked && self->flags & HANDLE_CANCELLED)) return true;
    return handle_run_locked(lp, self);
}

/* The callback of every handle's job and timer. */
static void handle_run(void *arg) {
    handle *self = (handle *)arg;
    loop *lp = loop_of(self->job.loop);
    bool locked = handle_lock(self), ends = handle_run_now(lp, self, locked);
    handle_contents taken;
    if (ends) taken = handle_take(self);
    handle_unlock(self, locked);
    if (ends) handle_let_go(self, lp->state, &taken);
    Py_DECREF(self);
}

/* Takes it out of the queue; true if it was in it, and then its reference is the caller's. */
static bool handle_unqueue(handle *self) {
    return (self->kind == HANDLE_TIMER ? casync_timer_stop(timer_of(self))
                                       : casync_job_cancel(&self->job)) > 0;
}

/* Takes it out of the queue, if it is in it, and takes out what it has. */
static handle_contents handle_end(handle *self) {
    bool queued = !handle_is_others(self) && handle_unqueue(self);
    handle_contents taken = handle_take(self);
    taken.queued = queued;
    return taken;
}

/* Cancels it for its loop, which ends. */
static void handle_discard(handle *self, state *st) {
    handle_contents taken = {0};
    bool locked = handle_lock(self);
    self->flags |= HANDLE_CANCELLED;
    if (!(self->flags & HANDLE_RUNNING)) {
        bool queued = handle_unqueue(self);
        taken = handle_take(self);
        taken.queued = queued;
    }
    handle_unlock(self, locked);
    handle_let_go(self, st, &taken);
}

/* What it has is the caller's to let go of, when it is not locked any more. */
static handle_contents handle_cancel_locked(handle *self) {
    bool ended = self->flags & HANDLE_CANCELLED;
    self->flags |= HANDLE_CANCELLED;
    if (ended || self->flags & HANDLE_RUNNING || self->callback == NULL)
        return (handle_contents){0};
    return handle_end(self);
}

static void handle_cancel_now(handle *self) {
    handle_contents taken = handle_cancel_locked(self);
    handle_let_go(self, (state *)PyType_GetModuleState(Py_TYPE(self)), &taken);
}

static handle_contents handle_lock_and_cancel(handle *self) {
    LOCK_HANDLE(self);
    return handle_cancel_locked(self);
}

static PyObject *handle_cancel(handle *self, PyObject *Py_UNUSED(ignored)) {
    handle_contents taken = handle_lock_and_cancel(self);
    handle_let_go(self, (state *)PyType_GetModuleState(Py_TYPE(self)), &taken);
    Py_RETURN_NONE;
}

static PyObject *handle_cancelled(handle *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_HANDLE(self);
    return PyBool_FromLong(self->flags & HANDLE_CANCELLED);
}

static PyObject *handle_get_context(handle *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_HANDLE_STATE(self);
    if (handle_make_context(self, (state *)PyType_GetModuleState(Py_TYPE(self))) < 0) return NULL;
    return Py_NewRef(self->context != NULL ? self->context : Py_None);
}

static PyObject *handle_when(timer_handle *self, PyObject *Py_UNUSED(ignored)) {
    return PyFloat_FromDouble(self->when);
}

/* asyncio.Handle._repr_info and __repr__ */
static PyObject *handle_repr(handle *self) {
    LOCK_HANDLE_STATE(self);
    state *st = (state *)PyType_GetModuleState(Py_TYPE(self));
    bool own_type = PY_VERSION_HEX >= 0x030E0000 && self->kind == HANDLE_THREADSAFE;
    const char *name = self->kind == HANDLE_TIMER ? "TimerHandle"
                       : own_type                 ? "_ThreadSafeHandle"
                                                  : "Handle";
    const char *cancelled = self->flags & HANDLE_CANCELLED ? " cancelled" : "";
    PyObject *when = NULL, *source = NULL, *text = NULL;
    if (self->kind == HANDLE_TIMER) {
        PyObject *number = PyFloat_FromDouble(((timer_handle *)self)->when);
        when = number == NULL ? NULL : PyUnicode_FromFormat(" when=%R", number);
        Py_XDECREF(number);
    } else {
        when = PyUnicode_FromString("");
    }
    if (when != NULL && self->callback != NULL && !(self->flags & HANDLE_CANCELLED)) {
        source = handle_source(self, st);
        if (source != NULL)
            text = PyUnicode_FromFormat("<%s%s%U %U>", name, cancelled, when, source);
    } else if (when != NULL) {
        text = PyUnicode_FromFormat("<%s%s%U>", name, cancelled, when);
    }
    Py_XDECREF(when);
    Py_XDECREF(source);
    return text;
}

/* Takes the references of both, which are NULL after a failure: 1, 0, or -1 with an exception
   set. */
static int equal(PyObject *a, PyObject *b) {
    int same = a == NULL || b == NULL ? -1 : PyObject_RichCompareBool(a, b, Py_EQ);
    Py_XDECREF(a);
    Py_XDECREF(b);
    return same;
}

static PyObject *handle_get_callback(handle *self, void *closure);
static PyObject *handle_get_args(handle *self, void *closure);

/* asyncio.TimerHandle.__eq__: 1, 0, or -1 with an exception set. What is compared may cancel
   both. */
static int timer_equal(handle *a, handle *b) {
    int same;
    if (a == b) return 1;
    if (((timer_handle *)a)->when != ((timer_handle *)b)->when) return 0;
    same = equal(handle_get_callback(a, NULL), handle_get_callback(b, NULL));
    if (same > 0) same = equal(handle_get_args(a, NULL), handle_get_args(b, NULL));
    return same > 0 ? !((a->flags ^ b->flags) & HANDLE_CANCELLED) : same;
}

/* TimerHandle's order is that of its time, as in asyncio. */
static PyObject *timer_richcompare(PyObject *a, PyObject *b, int op) {
    double x, y;
    int same;
    if (Py_TYPE(a) != Py_TYPE(b)) Py_RETURN_NOTIMPLEMENTED;
    x = ((timer_handle *)a)->when;
    y = ((timer_handle *)b)->when;
    if (op == Py_LT) return PyBool_FromLong(x < y);
    if (op == Py_GT) return PyBool_FromLong(x > y);
    same = timer_equal((handle *)a, (handle *)b);
    if (same < 0) return NULL;
    switch (op) {
    case Py_LE:
        return PyBool_FromLong(x < y || same);
    case Py_GE:
        return PyBool_FromLong(x > y || same);
    case Py_EQ:
        return PyBool_FromLong(same);
    default:
        return PyBool_FromLong(!same);
    }
}

static Py_hash_t timer_hash(timer_handle *self) {
    PyObject *when = PyFloat_FromDouble(self->when);
    Py_hash_t hash = when == NULL ? -1 : PyObject_Hash(when);
    Py_XDECREF(when);
    return hash;
}

/* isinstance(handle, asyncio.Handle) asks type(handle) and then this. */
static PyObject *handle_get_class(handle *self, void *Py_UNUSED(closure)) {
    state *st = (state *)PyType_GetModuleState(Py_TYPE(self));
    if (self->kind == HANDLE_THREADSAFE) return Py_NewRef(st->asyncio_threadsafe_handle);
    return Py_NewRef(self->kind == HANDLE_TIMER ? st->asyncio_timer_handle : st->asyncio_handle);
}

static PyObject *handle_get_callback(handle *self, void *Py_UNUSED(closure)) {
    LOCK_HANDLE_STATE(self);
    bool gone = self->callback == NULL || self->flags & HANDLE_CANCELLED;
    return Py_NewRef(gone ? Py_None : self->callback);
}

static PyObject *handle_get_args(handle *self, void *Py_UNUSED(closure)) {
    LOCK_HANDLE_STATE(self);
    if (self->callback == NULL || self->flags & HANDLE_CANCELLED) Py_RETURN_NONE;
    return handle_args(self);
}

static PyObject *handle_get_cancelled(handle *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(self->flags & HANDLE_CANCELLED);
}

static PyObject *handle_get_context_attribute(handle *self, void *Py_UNUSED(closure)) {
    return handle_get_context(self, NULL);
}

/* Native handles are made outside debug mode, where asyncio records no traceback. */
static PyObject *handle_get_none(handle *Py_UNUSED(self), void *Py_UNUSED(closure)) {
    Py_RETURN_NONE;
}

static PyObject *handle_get_loop(handle *self, void *Py_UNUSED(closure)) {
    LOCK_HANDLE_STATE(self);
    loop *lp = handle_loop(self);
    return Py_NewRef(lp == NULL ? Py_None : (PyObject *)lp);
}

static PyObject *handle_get_scheduled(handle *self, void *Py_UNUSED(closure)) {
    LOCK_HANDLE_STATE(self);
    return PyBool_FromLong(casync_timer_remaining(timer_of(self)) >= 0);
}

static PyObject *handle_get_when(timer_handle *self, void *Py_UNUSED(closure)) {
    return PyFloat_FromDouble(self->when);
}

/* What it has had, if it ends, is the caller's to let go of. */
static PyObject *handle_run_early(handle *self, handle_contents *taken) {
    loop *lp = self->flags & (HANDLE_CANCELLED | HANDLE_RUNNING) ? NULL : handle_loop(self);
    /* of a thread-safe one asyncio's _run asks, too */
    if (self->kind == HANDLE_THREADSAFE && self->flags & HANDLE_CANCELLED) Py_RETURN_NONE;
    if (lp == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the handle has run, or was cancelled");
        return NULL;
    }
    Py_INCREF(lp);
    Py_INCREF(self);
    if (self->flags & HANDLE_TAKEN && handle_unqueue(self)) Py_DECREF(self); /* it runs once */
    handle_run_now(lp, self, false);
    /* Nothing will let go of what it has, if it was cancelled meanwhile, or has run for the queue,
       too. */
    if (self->flags & HANDLE_CANCELLED || !(self->flags & HANDLE_KEPT || handle_is_queued(self)))
        *taken = handle_end(self);
    Py_DECREF(self);
    Py_DECREF(lp);
    Py_RETURN_NONE;
}

static PyObject *handle_lock_and_run(handle *self, handle_contents *taken) {
    LOCK_HANDLE(self);
    return handle_run_early(self, taken);
}

/* Runs a queued handle ahead of its time. asyncio's own is the private hook of loops: of turns that
   are asyncio's, and of tests. */
static PyObject *handle_run_method(handle *self, PyObject *Py_UNUSED(ignored)) {
    handle_contents taken = {0};
    PyObject *result = handle_lock_and_run(self, &taken);
    handle_let_go(self, (state *)PyType_GetModuleState(Py_TYPE(self)), &taken);
    return result;
}

static PyMethodDef handle_methods[] = {
    {"cancel", (PyCFunction)handle_cancel, METH_NOARGS,
     "Keeps the callback from being called, unless it has run. Call this in the loop's thread. "
     "Since Python 3.14, and without a GIL, any thread may call it for a handle of "
     "call_soon_threadsafe(); while the callback runs, it waits."},
    {"cancelled", (PyCFunction)handle_cancelled, METH_NOARGS,
     "Returns whether cancel() was called."},
    {"get_context", (PyCFunction)handle_get_context, METH_NOARGS,
     "Returns the contextvars.Context in which the loop runs the callback."},
    {"_run", (PyCFunction)handle_run_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef timer_methods[] = {
    {"cancel", (PyCFunction)handle_cancel, METH_NOARGS,
     "Keeps the callback from being called, unless it has run. Call this in the loop's "
     "thread."},
    {"cancelled", (PyCFunction)handle_cancelled, METH_NOARGS,
     "Returns whether cancel() was called."},
    {"get_context", (PyCFunction)handle_get_context, METH_NOARGS,
     "Returns the contextvars.Context in which the loop runs the callback."},
    {"when", (PyCFunction)(void (*)(void))handle_when, METH_NOARGS,
     "Returns the time at which the call is due, in seconds as loop.time() tells them."},
    {"_run", (PyCFunction)handle_run_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

#define HANDLE_GETSETS                                                                             \
    {"__class__", (getter)handle_get_class, NULL, NULL, NULL},                                     \
        {"_callback", (getter)handle_get_callback, NULL, NULL, NULL},                              \
        {"_args", (getter)handle_get_args, NULL, NULL, NULL},                                      \
        {"_cancelled", (getter)handle_get_cancelled, NULL, NULL, NULL},                            \
        {"_context", (getter)handle_get_context_attribute, NULL, NULL, NULL},                      \
        {"_loop", (getter)handle_get_loop, NULL, NULL, NULL},                                      \
        {"_source_traceback", (getter)handle_get_none, NULL, NULL, NULL}, {                        \
        "_repr", (getter)handle_get_none, NULL, NULL, NULL                                         \
    }

static PyGetSetDef handle_getsets[] = {HANDLE_GETSETS, {NULL, NULL, NULL, NULL, NULL}};

static PyGetSetDef timer_getsets[] = {
    HANDLE_GETSETS,
    {"_scheduled", (getter)handle_get_scheduled, NULL, NULL, NULL},
    {"_when", (getter)(void (*)(void))handle_get_when, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef handle_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(handle, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc,
     "call_soon() and similar methods return this asyncio.Handle, which can cancel the call."},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_repr, handle_repr},
    {Py_tp_methods, handle_methods},
    {Py_tp_getset, handle_getsets},
    {Py_tp_members, handle_members},
    {0, NULL},
};

static PyType_Spec handle_spec = {"casync._native.Handle", sizeof(handle), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION |
                                      Py_TPFLAGS_IMMUTABLETYPE,
                                  handle_slots};

static PyType_Slot timer_slots[] = {
    {Py_tp_doc,
     "call_later() and call_at() return this asyncio.TimerHandle, which can cancel the call."},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_repr, handle_repr},
    {Py_tp_richcompare, timer_richcompare},
    {Py_tp_hash, timer_hash},
    {Py_tp_methods, timer_methods},
    {Py_tp_getset, timer_getsets},
    {Py_tp_members, handle_members},
    {0, NULL},
};

static PyType_Spec timer_spec = {
    "casync._native.TimerHandle", sizeof(timer_handle), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE, timer_slots};
