/* The loop: scheduling and running. What it holds, and how it ends, is in loop_life.c.

   Idea: asyncio's run_forever (which differs by version) is inherited and calls _run_once; ours
   runs casync turns until `_stopping` is set, so there is one Python call a run and none a turn. In
   debug mode, and while the loop is observed (casync/trace.py), call_soon and its like go to the
   inherited methods, so real asyncio.Handles with tracebacks are made, and come back through
   `_enqueue` wrapped in a native handle.

   A program may replace what a turn is made of (nest_asyncio: _run_once; looptime: time() and the
   selector's select()). Then the turns are asyncio's own, BaseEventLoop._run_once over a deque and
   a heap, and the native queue is one more source of events there: _poll() waits, _run_ready() runs
   what came.

   Invariants: an exception that must end the run (KeyboardInterrupt, SystemExit, one raised by an
   exception handler) is kept in `error`, and casync_break() ends the turn at once; what has not run
   stays queued, as in asyncio. A loop visits and clears what its queued handles hold.

   Costs: a turn is casync's own; a poll, one check for Python's signal handlers (a load) beside it,
   and one before it if it waits. The GIL, or the loop's lock, is dropped only if the system call
   really waits. */

/* Ends the run with an exception, whose reference is taken; the first one counts. */
static void loop_end_run(loop *self, PyObject *exception) {
    if (self->error == NULL)
        self->error = exception;
    else
        Py_XDECREF(exception);
    casync_break(&self->casync);
}

/* loop.call_exception_handler(context). In there sys.exc_info() is the exception (NULL: none), as
   it is where asyncio calls it, in an except clause. */
static PyObject *loop_call_exception_handler(loop *self, PyObject *context, PyObject *exception) {
    PyObject *type, *value, *traceback, *result;
    if (exception != NULL) {
        PyErr_GetExcInfo(&type, &value, &traceback);
        PyErr_SetExcInfo(Py_NewRef((PyObject *)Py_TYPE(exception)), Py_NewRef(exception),
                         PyException_GetTraceback(exception));
    }
    result = PyObject_CallMethodOneArg((PyObject *)self,
                                       self->state->names[NAME_CALL_EXCEPTION_HANDLER], context);
    if (exception != NULL) PyErr_SetExcInfo(type, value, traceback);
    return result;
}

/* loop.call_exception_handler({...}). Takes the references of message (NULL, with an exception set,
   if making it failed) and exception (may be NULL), borrows the values. Raises nothing. */
static void loop_report(loop *self, PyObject *message, PyObject *exception, enum name key,
                        PyObject *value, enum name key2, PyObject *value2) {
    PyObject *const *names = self->state->names;
    PyObject *context = message == NULL ? NULL : PyDict_New(), *result = NULL;
    if (context != NULL && PyDict_SetItem(context, names[NAME_MESSAGE], message) == 0 &&
        (exception == NULL || PyDict_SetItem(context, names[NAME_EXCEPTION], exception) == 0) &&
        (value == NULL || PyDict_SetItem(context, names[key], value) == 0) &&
        (value2 == NULL || PyDict_SetItem(context, names[key2], value2) == 0))
        result = loop_call_exception_handler(self, context, exception);
    if (result == NULL) loop_end_run(self, take_exception());
    Py_XDECREF(result);
    Py_XDECREF(context);
    Py_XDECREF(message);
    Py_XDECREF(exception);
}

/* As above for the exception that is set, which ends the run if it is one that ends the program. */
static void loop_report_current(loop *self, const char *message, enum name key, PyObject *value) {
    PyObject *exception = take_exception();
    if (ends_program(exception))
        loop_end_run(self, exception);
    else
        loop_report(self, PyUnicode_FromString(message), exception, key, value, NAME_COUNT, NULL);
}

/* With virtual time: a wait without end and with nothing outside to end it ends the run. */
static void loop_check_deadlock(loop *self, int64_t timeout) {
    if (timeout != CASYNC_FOREVER || self->casync.fds_active > 0) return;
    self->deadlocked = true;
    casync_break(&self->casync);
    casync_wake(&self->casync);
}

/* Calls the handlers of signals that came since the last bytecode: without a handler of the loop's
   own nothing would end the wait for them. What they queue ends it. (One that comes between this
   and the system call is handled when the wait ends by itself, as in asyncio, where that time is
   longer.) */
static void loop_run_signal_handlers(loop *self) {
    if (PyErr_CheckSignals() < 0) loop_end_run(self, take_exception());
    if (self->error != NULL || self->stopping || casync_loop_ready(&self->casync))
        casync_wake(&self->casync);
}

static void loop_before_wait(void *arg, int64_t timeout) {
    loop *self = (loop *)arg;
    if (timeout == 0) return;
    loop_run_signal_handlers(self);
    if (self->virtual_time) loop_check_deadlock(self, timeout);
    self->waiting = PyThreadState_Get(); /* to be seen by whoever gets the GIL next */
    PyEval_SaveThread();
}

/* Python's signal handlers run between bytecodes, and here, where a signal has ended the wait. */
static void loop_after_wait(void *arg, int64_t timeout) {
    loop *self = (loop *)arg;
    if (timeout != 0) {
        PyEval_RestoreThread(self->waiting);
        self->waiting = NULL;
    } else {
        offer_lock(self);
    }
    if (PyErr_CheckSignals() < 0) loop_end_run(self, take_exception());
}

static bool server_report(loop *self, casync_server *server, const char *message, int64_t error);

static void loop_exception(casync_loop *casync, const casync_exception *exception,
                           void *Py_UNUSED(arg)) {
    loop *self = loop_of(casync);
    bool reported = exception->server != NULL &&
                    server_report(self, exception->server, exception->message, exception->error);
    if (!reported)
        loop_report(self, PyUnicode_FromString(exception->message), make_os_error(exception->error),
                    NAME_COUNT, NULL, NAME_COUNT, NULL);
}

static int64_t loop_init(loop *self, int clock, bool metrics) {
    casync_loop_desc desc = {0};
    desc.clock = clock;
    desc.metrics = metrics;
    desc.guest = true;
    desc.locked = true; /* by the GIL */
    desc.exception_handler = loop_exception;
    desc.before_wait = loop_before_wait;
    desc.after_wait = loop_after_wait;
    desc.arg = self;
    return casync_loop_init(&self->casync, &desc);
}

/* Looks at metrics= alone; __init__ checks the arguments. */
static PyObject *loop_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *kwargs) {
    int64_t result;
    PyObject *wanted = Py_XNewRef(kwargs == NULL ? NULL : PyDict_GetItemString(kwargs, "metrics"));
    int metrics = wanted == NULL ? 0 : PyObject_IsTrue(wanted);
    state *st = metrics < 0 ? NULL : find_state(type);
    loop *self = st == NULL ? NULL : (loop *)type->tp_alloc(type, 0);
    Py_XDECREF(wanted);
    if (self == NULL) return NULL;
    self->state = st;
    self->module = Py_NewRef(find_module(type));
    casync__list_init(&self->taken);
    casync__list_init(&self->doubted);
    result = make_lock(self) < 0 ? -ENOMEM : loop_init(self, CASYNC_CLOCK_MONOTONIC, metrics);
    if (result < 0) {
        self->closed = true; /* for __del__ */
        Py_DECREF(self);
        return raise_os_error(result);
    }
    return (PyObject *)self;
}

static PyObject *raise_closed(void) {
    PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
    return NULL;
}

/* ---- scheduling ---- */

/* function(self, *args, **keywords), for a method of a base class. */
static PyObject *call_base(PyObject *function, PyObject *self, PyObject *const *args,
                           Py_ssize_t count, PyObject *keywords) {
    Py_ssize_t total = count + (keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords));
    PyObject **vector = PyMem_New(PyObject *, total + 1), *result;
    if (vector == NULL) return PyErr_NoMemory();
    vector[0] = self;
    if (total > 0) memcpy(vector + 1, args, (size_t)total * sizeof *vector);
    result = PyObject_Vectorcall(function, vector, (size_t)count + 1, keywords);
    PyMem_Free(vector);
    return result;
}

/* Do call_soon and its like have their `required` arguments by position, and no keyword but
   context=? */
static inline bool parse_schedule(Py_ssize_t required, Py_ssize_t count, PyObject *const *args,
                                  PyObject *keywords, state *st, PyObject **context) {
    *context = NULL;
    if (count < required) return false;
    if (keywords == NULL) return true;
    if (PyTuple_GET_SIZE(keywords) != 1) return false;
    *context = args[count];
    /* Two interned strings of the same text may differ: CPython's own code has some that are
       static. */
    return PyTuple_GET_ITEM(keywords, 0) == st->names[NAME_CONTEXT] ||
           PyUnicode_Compare(PyTuple_GET_ITEM(keywords, 0), st->names[NAME_CONTEXT]) == 0;
}

/* Any other call of them: EventLoop._call_by_keyword(function, *args, **keywords). */
static PyObject *call_by_keyword(loop *self, const char *function, PyObject *const *args,
                                 Py_ssize_t count, PyObject *keywords) {
    PyObject *method = PyObject_GetAttr((PyObject *)self, self->state->names[NAME_CALL_BY_KEYWORD]);
    PyObject *name = PyUnicode_FromString(function), *result = NULL;
    if (method != NULL && name != NULL) result = call_base(method, name, args, count, keywords);
    Py_XDECREF(method);
    Py_XDECREF(name);
    return result;
}

#ifdef Py_GIL_DISABLED

/* As loop_queue, to a loop whose lock another thread may have. It is woken. */
static PyObject *loop_post(loop *self, handle *h) {
    int64_t result = -EINVAL;
    Py_INCREF((PyObject *)h); /* first, since the loop may let go of its reference at once */
    if (begin_post(self))
        result = casync_call_soon_threadsafe(&self->casync, &h->job, handle_run, h);
    end_post(self);
    if (result == 0) return (PyObject *)h;
    Py_DECREF((PyObject *)h);
    Py_DECREF((PyObject *)h);
    return raise_closed();
}

static void loop_wake_other(loop *self) {
    /* One that begins to run looks for posts before it waits, but not at what asyncio's turns
       have. */
    if (!LOAD(self->running) && !LOAD(self->asyncio_turns)) return;
    if (begin_post(self)) casync_wake(&self->casync);
    end_post(self);
}

/* What was posted to a loop that does not run comes before what is queued now. */
static void loop_take_posts(loop *self) {
    if (!self->running) casync__posts_take(&self->casync);
}

#else

static PyObject *loop_post(loop *Py_UNUSED(self), handle *h) { return (PyObject *)h; }

static void loop_wake_other(loop *Py_UNUSED(self)) {}

static void loop_take_posts(loop *Py_UNUSED(self)) {}

#endif

/* Queues a new handle for the next turn: a reference for the queue, one for the caller. */
static PyObject *loop_queue(loop *self, handle *h) {
    int64_t result;
    if (h == NULL) return NULL;
    if (must_post(self, h->kind == HANDLE_THREADSAFE)) return loop_post(self, h);
    LOCK_LOOP(self);
    loop_take_posts(self);
    result = casync_call_soon(&self->casync, &h->job, handle_run, h);
    if (result < 0) {
        Py_DECREF(h);
        return raise_closed();
    }
    return Py_NewRef((PyObject *)h);
}

static PyObject *loop_call_soon(loop *self, PyObject *const *args, Py_ssize_t count,
                                PyObject *keywords) {
    PyObject *context;
    if (LOAD(self->calls_python))
        return call_base(self->state->base_call_soon, (PyObject *)self, args, count, keywords);
    if (!parse_schedule(1, count, args, keywords, self->state, &context))
        return call_by_keyword(self, "call_soon", args, count, keywords);
    if (LOAD(self->closed)) return raise_closed();
    return loop_queue(self, handle_new(self, HANDLE_PLAIN, args[0], args + 1, count - 1, context));
}

/* Ends the wait of the thread that runs the loop. Who has the GIL, or runs the loop, knows whether
   it waits; if it does not, it looks at the native queue before it will, but not at that of
   asyncio's turns. */
static void loop_wake(loop *self) {
    if (must_post(self, true))
        loop_wake_other(self);
    else if (self->waiting != NULL || LOAD(self->asyncio_turns))
        casync_wake(&self->casync);
}

/* The GIL makes queueing safe; what remains is to wake the loop. A post has woken it. */
static PyObject *loop_call_soon_threadsafe(loop *self, PyObject *const *args, Py_ssize_t count,
                                           PyObject *keywords) {
    PyObject *context, *result;
    handle *h;
    bool posts;
    if (LOAD(self->calls_python))
        return call_base(self->state->base_call_soon_threadsafe, (PyObject *)self, args, count,
                         keywords);
    if (!parse_schedule(1, count, args, keywords, self->state, &context))
        return call_by_keyword(self, "call_soon_threadsafe", args, count, keywords);
    if (LOAD(self->closed)) return raise_closed();
    h = handle_new(self, HAS_THREADSAFE_HANDLES ? HANDLE_THREADSAFE : HANDLE_PLAIN, args[0],
                   args + 1, count - 1, context);
    posts = must_post(self, true);
    result = loop_queue(self, h);
    if (result != NULL && !posts) loop_wake(self);
    return result;
}

/* Seconds as nanoseconds, rounded up (never early) and saturated. */
static int64_t nanoseconds_of(double seconds) {
    double nanoseconds = seconds * 1e9;
    int64_t whole;
    if (nanoseconds != nanoseconds)
        return 0; /* NaN is due at once: so asyncio's comparisons
                                                 find */
    if (nanoseconds >= 9223372036854775807.0) return CASYNC_FOREVER;
    if (nanoseconds <= -9223372036854775807.0) return -CASYNC_FOREVER;
    whole = (int64_t)nanoseconds;
    return whole + ((double)whole < nanoseconds);
}

/* A time or delay: -1.0 with an exception set if it is none. */
static double parse_seconds(PyObject *value, const char *name) {
    double seconds;
    if (PyFloat_CheckExact(value)) {
        seconds = PyFloat_AS_DOUBLE(value);
    } else if (value == Py_None) {
        PyErr_Format(PyExc_TypeError,
                     strcmp(name, "when") == 0 ? "%s cannot be None" : "%s must not be None", name);
        return -1.0;
    } else {
        seconds = PyFloat_AsDouble(value);
        if (seconds == -1.0 && PyErr_Occurred()) return -1.0;
    }
    return seconds;
}

/* In debug mode, and observed: EventLoop._call_at_python(when, callback, args, context) makes an
   asyncio.TimerHandle. */
static PyObject *loop_call_at_python(loop *self, double when, PyObject *const *args,
                                     Py_ssize_t count, PyObject *context) {
    PyObject *number = PyFloat_FromDouble(when), *tuple = PyTuple_New(count - 2), *result = NULL;
    if (number != NULL && tuple != NULL) {
        for (Py_ssize_t i = 2; i < count; i++) PyTuple_SET_ITEM(tuple, i - 2, Py_NewRef(args[i]));
        result = PyObject_CallMethodObjArgs(
            (PyObject *)self, self->state->names[NAME_CALL_AT_PYTHON], number, args[1], tuple,
            context == NULL ? Py_None : context, NULL);
    }
    Py_XDECREF(number);
    Py_XDECREF(tuple);
    return result;
}

/* A TimerHandle due at `when` (in seconds, for when()), which is `deadline` in nanoseconds. */
static PyObject *loop_call_at_deadline(loop *self, double when, int64_t deadline,
                                       PyObject *const *args, Py_ssize_t count, PyObject *context) {
    int64_t result;
    handle *h;
    if (self->calls_python) return loop_call_at_python(self, when, args, count, context);
    h = handle_new(self, HANDLE_TIMER, args[1], args + 2, count - 2, context);
    if (h == NULL) return NULL;
    ((timer_handle *)h)->when = when;
    LOCK_LOOP(self);
    result = casync_call_at(&self->casync, timer_of(h), deadline, handle_run, h);
    if (result < 0) {
        Py_DECREF(h);
        return raise_os_error(result);
    }
    return Py_NewRef((PyObject *)h);
}

/* The deadline `delay` after `now`, which is not negative. */
static int64_t deadline_after(int64_t now, int64_t delay) {
    return delay > CASYNC_FOREVER - now ? CASYNC_FOREVER : now + delay;
}

static PyObject *loop_call_later(loop *self, PyObject *const *args, Py_ssize_t count,
                                 PyObject *keywords) {
    PyObject *context;
    double delay;
    int64_t now;
    if (self->asyncio_turns)
        return call_base(self->state->base_call_later, (PyObject *)self, args, count, keywords);
    if (!parse_schedule(2, count, args, keywords, self->state, &context))
        return call_by_keyword(self, "call_later", args, count, keywords);
    delay = parse_seconds(args[0], "delay");
    if (delay == -1.0 && PyErr_Occurred()) return NULL;
    if (self->closed) return raise_closed();
    now = casync_time(&self->casync);
    return loop_call_at_deadline(self, (double)now / 1e9 + delay,
                                 deadline_after(now, nanoseconds_of(delay)), args, count, context);
}

static PyObject *loop_call_at(loop *self, PyObject *const *args, Py_ssize_t count,
                              PyObject *keywords) {
    PyObject *context;
    double when;
    if (self->asyncio_turns)
        return call_base(self->state->base_call_at, (PyObject *)self, args, count, keywords);
    if (!parse_schedule(2, count, args, keywords, self->state, &context))
        return call_by_keyword(self, "call_at", args, count, keywords);
    when = parse_seconds(args[0], "when");
    if (when == -1.0 && PyErr_Occurred()) return NULL;
    if (self->closed) return raise_closed();
    return loop_call_at_deadline(self, when, nanoseconds_of(when), args, count, context);
}

static PyObject *loop_time(loop *self, PyObject *Py_UNUSED(ignored)) {
    return PyFloat_FromDouble((double)casync_time(&self->casync) / 1e9);
}

/* A native handle that calls method(item) in the loop's own context: how asyncio's handles are
   queued. */
static handle *wrap_handle(loop *self, handle_kind kind, PyObject *method, PyObject *item) {
    handle *h = handle_alloc(self, kind);
    if (h == NULL) return NULL;
    h->callback = Py_NewRef(method);
    h->vector[1] = Py_NewRef(item);
    h->count = 1;
    return h;
}

/* _enqueue(run, handle): calls run(handle) in the next turn. */
static PyObject *loop_enqueue(loop *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "_enqueue() takes 2 arguments (%zd given)", count);
    return loop_queue(self, wrap_handle(self, HANDLE_PLAIN, args[0], args[1]));
}

/* _enqueue_at(when, run, handle): calls run(handle) at a time. */
static PyObject *loop_enqueue_at(loop *self, PyObject *const *args, Py_ssize_t count) {
    handle *h;
    double when;
    int64_t result;
    if (count != 3)
        return PyErr_Format(PyExc_TypeError, "_enqueue_at() takes 3 arguments (%zd given)", count);
    when = parse_seconds(args[0], "when");
    if (when == -1.0 && PyErr_Occurred()) return NULL;
    h = wrap_handle(self, HANDLE_TIMER, args[1], args[2]);
    if (h == NULL) return NULL;
    ((timer_handle *)h)->when = when;
    LOCK_LOOP(self);
    result = casync_call_at(&self->casync, timer_of(h), nanoseconds_of(when), handle_run, h);
    if (result < 0) {
        Py_DECREF(h);
        return raise_os_error(result);
    }
    return Py_NewRef((PyObject *)h);
}

/* ---- futures and tasks ---- */

/* A name in one of asyncio's modules: programs (nest_asyncio) put other types of futures and tasks
   there. */
static PyObject *asyncio_type(PyObject *module_names, PyObject *name) {
    PyObject *type = get_item(module_names, name);
    if (type == NULL && !PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, name);
    return type;
}

/* {"loop": self}, which a call with keywords would make anew each time. It is a cycle, which
   close() ends. */
static PyObject *loop_keywords(loop *self) {
    LOCK_LOOP(self);
    PyObject *keywords;
    if (self->keywords != NULL) return Py_NewRef(self->keywords);
    keywords = PyDict_New();
    if (keywords != NULL &&
        PyDict_SetItem(keywords, self->state->names[NAME_LOOP], (PyObject *)self) < 0)
        Py_CLEAR(keywords);
    if (!self->closed) Py_XSETREF(self->keywords, Py_XNewRef(keywords));
    return keywords;
}

/* type(*args, loop=self). Takes the references of both, which are NULL after a failure. */
static PyObject *call_with_loop(loop *self, PyObject *type, PyObject *args) {
    PyObject *keywords = type == NULL || args == NULL ? NULL : loop_keywords(self);
    PyObject *result = keywords == NULL ? NULL : PyObject_Call(type, args, keywords);
    Py_XDECREF(type);
    Py_XDECREF(args);
    Py_XDECREF(keywords);
    return result;
}

/* asyncio.Future(loop=self) */
static PyObject *loop_create_future(loop *self, PyObject *Py_UNUSED(ignored)) {
    PyObject *type = asyncio_type(self->state->futures, self->state->names[NAME_FUTURE]);
    return call_with_loop(self, type, Py_NewRef(self->state->no_args));
}

/* create_task(coro, *, name=None, context=None): asyncio's own in debug mode, with a factory, and
   with keywords that a later version has. */
static PyObject *loop_create_task(loop *self, PyObject *const *args, Py_ssize_t count,
                                  PyObject *keywords) {
    PyObject *const *names = self->state->names;
    PyObject *vector[4] = {NULL, (PyObject *)self, Py_None, NULL}, *type, *task;
    bool plain = count == 1 && !self->debug && self->task_factory == NULL;
    for (Py_ssize_t i = 0; plain && keywords != NULL && i < PyTuple_GET_SIZE(keywords); i++) {
        PyObject *keyword = PyTuple_GET_ITEM(keywords, i);
        if (keyword == names[NAME_NAME])
            vector[2] = args[1 + i];
        else if (keyword == names[NAME_CONTEXT] && PY_VERSION_HEX >= 0x030B0000)
            vector[3] = args[1 + i];
        else
            plain = false;
    }
    if (!plain)
        return call_base(self->state->base_create_task, (PyObject *)self, args, count, keywords);
    if (self->closed) return raise_closed();
    type = asyncio_type(self->state->tasks, names[NAME_TASK]);
    if (type == NULL) return NULL;
    if (keywords == NULL) return call_with_loop(self, type, PyTuple_Pack(1, args[0]));
    vector[0] = args[0];
    task = PyObject_Vectorcall(type, vector, 1, self->state->task_keywords[vector[3] != NULL]);
    Py_DECREF(type);
    return task;
}

/* ---- running ---- */

/* _use_virtual_time(forced): makes a new loop, which nobody has used, one with a virtual clock. */
static PyObject *loop_use_virtual_time(loop *self, PyObject *forced) {
    LOCK_LOOP(self);
    int truth = PyObject_IsTrue(forced);
    int64_t result = truth < 0 ? 0 : casync_loop_close(&self->casync);
    if (truth < 0) return NULL;
    if (result == 0)
        result = loop_init(self, truth ? CASYNC_CLOCK_VIRTUAL_FORCED : CASYNC_CLOCK_VIRTUAL, false);
    if (result < 0) return raise_os_error(result);
    self->virtual_time = true;
    Py_RETURN_NONE;
}

/* _deadlocked(): did the last run end because nothing could have gone on? Only with virtual
   time. */
static PyObject *loop_was_deadlocked(loop *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_LOOP(self);
    bool deadlocked = self->deadlocked;
    self->deadlocked = false;
    return PyBool_FromLong(deadlocked);
}

static PyObject *raise_running(void) {
    return PyErr_Format(PyExc_RuntimeError, "This event loop is already running");
}

/* Runs turns by one of casync's functions. A forked child that runs the loop it inherited gets its
   own kernel objects. */
static PyObject *loop_run_by(loop *self, int64_t (*run)(casync_loop *)) {
    PyObject *error;
    LOCK_LOOP(self);
    if (runs_elsewhere(self) && !casync__loop_is_forked(&self->casync)) return raise_running();
    run_scope before = begin_run(self);
    int64_t result = run(&self->casync);
    if (result == -ECHILD) {
        result = casync_loop_fork(&self->casync);
        if (result >= 0) result = run(&self->casync);
    }
    end_run(self, before);
    error = self->error;
    self->error = NULL;
    if (error != NULL) {
        raise_exception(error);
        return NULL;
    }
    if (result == -EBUSY) return raise_running();
    if (result < 0) return raise_os_error(result);
    Py_RETURN_NONE;
}

/* Turns until _stopping. */
static PyObject *loop_run(loop *self, PyObject *Py_UNUSED(ignored)) {
    return loop_run_by(self, casync_run_forever);
}

struct running_call;
static struct running_call *suspend_calls(loop *self);
static void resume_calls(loop *self, const struct running_call *end);

/* As loop_run_by, also inside one of this loop's callbacks (of the native run in which the program
   changed its loop's turns): that run is suspended, and ends when the callback returns. Its queue
   is in order at every call of a callback, so what has not run yet may as well run in here; but the
   transports whose protocols are being called wait. */
static PyObject *loop_run_within(loop *self, int64_t (*run)(casync_loop *)) {
    LOCK_LOOP(self);
    casync_loop *casync = &self->casync, *outer = casync->outer;
    casync_task *outer_task = casync->outer_task;
    bool within = casync->state == CASYNC_LOOP_RUNNING && !runs_elsewhere(self);
    struct running_call *end = NULL;
    PyObject *result;
    if (within) {
        end = suspend_calls(self);
        casync->state = CASYNC_LOOP_STOPPED;
        casync->stopping = casync->breaking = false;
    }
    result = loop_run_by(self, run);
    if (within) {
        casync->state = CASYNC_LOOP_RUNNING;
        casync->outer = outer;
        casync->outer_task = outer_task;
        resume_calls(self, end);
        casync_break(casync);
    }
    return result;
}

static void loop_break(void *casync) { casync_break((casync_loop *)casync); }

static void loop_pass(void *Py_UNUSED(arg)) {}

/* One turn that runs nothing: it ends after the poll. */
static int64_t loop_poll_once(casync_loop *casync) {
    casync_hook hook = {0};
    int64_t result =
        casync_hook_start(casync, &hook, CASYNC_HOOK_AFTER_POLL, INT_MIN, loop_break, casync);
    if (result < 0) return result;
    result = casync_run_once(casync);
    casync_hook_stop(&hook);
    return result;
}

/* _poll(timeout): waits for native work, at most so many seconds (None: without end), and runs none
   of it. Is there some? */
static PyObject *loop_poll(loop *self, PyObject *timeout) {
    casync_timer timer = {0};
    double seconds = timeout == Py_None ? (double)INFINITY : parse_seconds(timeout, "timeout");
    int64_t result;
    PyObject *polled;
    if (seconds == -1.0 && PyErr_Occurred()) return NULL;
    LOCK_LOOP(self);
    if (self->closed) return raise_closed();
    result = casync_call_later(&self->casync, &timer, nanoseconds_of(seconds), loop_pass, NULL);
    if (result < 0) return raise_os_error(result);
    polled = loop_run_within(self, loop_poll_once);
    casync_timer_stop(&timer);
    if (polled == NULL) return NULL;
    Py_DECREF(polled);
    return PyBool_FromLong(casync_loop_ready(&self->casync));
}

/* _run_ready(): runs the native work that there is. */
static PyObject *loop_run_ready(loop *self, PyObject *Py_UNUSED(ignored)) {
    return loop_run_within(self, casync_run_nowait);
}

static PyObject *loop_write_to_self(loop *self, PyObject *Py_UNUSED(ignored)) {
    loop_wake(self);
    Py_RETURN_NONE;
}

static PyObject *loop_check_closed(loop *self, PyObject *Py_UNUSED(ignored)) {
    if (LOAD(self->closed)) return raise_closed();
    Py_RETURN_NONE;
}

static PyObject *loop_is_closed(loop *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(LOAD(self->closed));
}

static PyObject *loop_get_debug(loop *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(LOAD(self->debug));
}

static PyObject *loop_is_running(loop *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(LOAD(self->thread_id) != NULL);
}
