/* What threads share, where there is no GIL (PEP 703).

   Idea: each loop has a lock, which stands for the GIL. It is a critical section on an object of
   its own (Python C API, "Critical Section API"). The thread that runs the loop enters it when the
   run begins, and leaves it when the run ends. CPython leaves it for the thread wherever a thread
   with a GIL would let go of that (around the wait in the kernel, and where a callback waits for
   anything), and also where the thread waits for a lock of CPython's own; and it enters it again
   when no section inside of it is left. So a call into Python may have let other threads at the
   loop, as it may with a GIL. But a callback that computes keeps the lock: nobody asks the thread
   for it, as the interpreter asks for the GIL. Between callbacks a loop that never waits offers it
   now and then (offer_lock).

   So what asyncio allows other threads does not take it: call_soon_threadsafe() posts (loop_post),
   and what tells of the loop's state reads one word. A handle of call_soon_threadsafe() has a lock
   of its own (handle.c). All else that is called from another thread waits for the loop's lock.

   Invariants: what embeds a part of a casync_loop (loops, handles, transports, the native halves of
   readers) is touched with the lock of its loop. A function that Python calls takes that by
   LOCK_LOOP and its like, before it touches one; words that only tell (is it closing?) are read as
   they are. Nothing that is freed is kept for reuse, since objects are freed in any thread;
   CPython's allocator keeps memory for each.

   Costs: in a thread that has the lock, a call that asks CPython for its innermost section.
   Elsewhere four atomic instructions; for a transport twice as many. With a GIL nothing: the macros
   are empty. */

#ifdef Py_GIL_DISABLED

/* The loop that runs in this thread, the innermost. */
static _Thread_local loop *running_here;

typedef struct {
    PyCriticalSection section;
    PyObject *object; /* what is locked, a reference; NULL: this thread has the lock already */
} held_lock;

static void lock_object(held_lock *lock, PyObject *object) {
    lock->object = NULL;
    if (object == NULL || is_in_section(object)) return;
    lock->object = Py_NewRef(object);
    PyCriticalSection_Begin(&lock->section, object);
}

static void lock_loop(held_lock *lock, loop *self) {
    lock_object(lock, self == NULL ? NULL : self->lock);
}

static void unlock(held_lock *lock) {
    if (lock->object == NULL) return;
    PyCriticalSection_End(&lock->section);
    Py_DECREF(lock->object);
}

/* The lock is held to the end of the block. */
#define LOCK(function, object)                                                                     \
    held_lock lock __attribute__((cleanup(unlock)));                                               \
    function(&lock, object)

/* Does another thread run the loop? */
static bool runs_elsewhere(loop *self) { return LOAD(self->running) && self != running_here; }

/* Is a call to be posted, since another thread may hold the loop's lock for long? A thread may
   begin to run the loop at any moment, so what must not wait is posted before a run, too. */
static bool must_post(loop *self, bool threadsafe) {
    return self != running_here && (threadsafe || LOAD(self->running));
}

/* For a poll that does not wait: other threads get the lock after the time for which the
   interpreter leaves a thread the GIL (sys.getswitchinterval()). */
#define LOCK_INTERVAL CASYNC_MS(5)

static void offer_lock(loop *self) {
    struct timespec time;
    int64_t now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
    now = time.tv_sec * CASYNC_SECONDS(1) + time.tv_nsec;
    if (now - self->offered < LOCK_INTERVAL) return;
    self->offered = now;
    PyEval_RestoreThread(PyEval_SaveThread());
}

static int make_lock(loop *self) {
    self->lock = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    return self->lock == NULL ? -1 : 0;
}

static void free_lock(loop *self) { Py_XDECREF(self->lock); }

static void lock_classes(state *st) { PyMutex_Lock(&st->looking); }

static void unlock_classes(state *st) { PyMutex_Unlock(&st->looking); }

/* What a run changes, as it was before. */
typedef struct {
    loop *here;
    bool running;
} run_scope;

/* With the loop's lock. If another thread ran it, that was before a fork. */
static run_scope begin_run(loop *self) {
    run_scope before = {running_here, self->running && self == running_here};
    running_here = self;
    STORE(self->running, true);
    return before;
}

static void end_run(loop *self, run_scope before) {
    running_here = before.here;
    STORE(self->running, before.running);
}

/* Keeps loop_close waiting while a thread posts to the loop; false if the loop is closed. Between
   the two a thread comes to no point where another could stop it, to fork, say. */
static bool begin_post(loop *self) {
    __atomic_fetch_add(&self->posting, 1, __ATOMIC_SEQ_CST);
    return !__atomic_load_n(&self->closed, __ATOMIC_SEQ_CST);
}

static void end_post(loop *self) { __atomic_fetch_sub(&self->posting, 1, __ATOMIC_SEQ_CST); }

/* Waits for threads that are between the two, which are a few instructions. */
static void set_closed(loop *self, bool closed) {
    __atomic_store_n(&self->closed, closed, __ATOMIC_SEQ_CST);
    while (closed && __atomic_load_n(&self->posting, __ATOMIC_SEQ_CST) > 0) sched_yield();
}

#else

#define LOCK(function, object) (void)(object)

static void lock_classes(state *Py_UNUSED(st)) {}

static void unlock_classes(state *Py_UNUSED(st)) {}

typedef char run_scope;

static bool runs_elsewhere(loop *Py_UNUSED(self)) { return false; }

static bool must_post(loop *Py_UNUSED(self), bool Py_UNUSED(threadsafe)) { return false; }

static int make_lock(loop *Py_UNUSED(self)) { return 0; }

static void free_lock(loop *Py_UNUSED(self)) {}

static run_scope begin_run(loop *Py_UNUSED(self)) { return 0; }

static void end_run(loop *Py_UNUSED(self), run_scope Py_UNUSED(before)) {}

static void set_closed(loop *self, bool closed) { self->closed = closed; }

static void offer_lock(loop *Py_UNUSED(self)) {}

#endif

#define LOCK_LOOP(self) LOCK(lock_loop, self)
