/* The loop: scheduling, running, and what the garbage collector and close() need to know.

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
   and one before it if it waits. The GIL is dropped only if the system call really waits. */

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
    if (self->error != NULL || self->stopping || casync__has_work(&self->casync))
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
    result = loop_init(self, CASYNC_CLOCK_MONOTONIC, metrics);
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

/* Queues a new handle for the next turn: a reference for the queue, one for the caller. */
static PyObject *loop_queue(loop *self, handle *h) {
    int64_t result;
    if (h == NULL) return NULL;
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
    if (self->calls_python)
        return call_base(self->state->base_call_soon, (PyObject *)self, args, count, keywords);
    if (!parse_schedule(1, count, args, keywords, self->state, &context))
        return call_by_keyword(self, "call_soon", args, count, keywords);
    if (self->closed) return raise_closed();
    return loop_queue(self, handle_new(self->state, false, args[0], args + 1, count - 1, context));
}

/* Ends the wait of the thread that runs the loop. Who has the GIL knows whether it waits; if it
   does not, it looks at the native queue before it will, but not at that of asyncio's turns. */
static void loop_wake(loop *self) {
    if (self->waiting != NULL || self->asyncio_turns) casync_wake(&self->casync);
}

/* The GIL makes queueing safe; what remains is to wake the loop. */
static PyObject *loop_call_soon_threadsafe(loop *self, PyObject *const *args, Py_ssize_t count,
                                           PyObject *keywords) {
    PyObject *context, *h;
    if (self->calls_python)
        return call_base(self->state->base_call_soon_threadsafe, (PyObject *)self, args, count,
                         keywords);
    if (!parse_schedule(1, count, args, keywords, self->state, &context))
        return call_by_keyword(self, "call_soon_threadsafe", args, count, keywords);
    if (self->closed) return raise_closed();
    h = loop_queue(self, handle_new(self->state, false, args[0], args + 1, count - 1, context));
    if (h != NULL) loop_wake(self);
    return h;
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
    h = handle_new(self->state, true, args[1], args + 2, count - 2, context);
    if (h == NULL) return NULL;
    ((timer_handle *)h)->when = when;
    result = casync_call_at(&self->casync, timer_of(h), deadline, handle_run, h);
    if (result < 0) {
        Py_DECREF(h);
        return raise_os_error(result);
    }
    return Py_NewRef((PyObject *)h);
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
                                 casync__add_time(now, nanoseconds_of(delay)), args, count,
                                 context);
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
static handle *wrap_handle(loop *self, bool timer, PyObject *method, PyObject *item) {
    handle *h = handle_alloc(self->state, timer);
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
    return loop_queue(self, wrap_handle(self, false, args[0], args[1]));
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
    h = wrap_handle(self, true, args[1], args[2]);
    if (h == NULL) return NULL;
    ((timer_handle *)h)->when = when;
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
    PyObject *type = PyDict_GetItemWithError(module_names, name);
    if (type == NULL && !PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, name);
    return Py_XNewRef(type);
}

/* {"loop": self}, which a call with keywords would make anew each time. It is a cycle, which
   close() ends. */
static PyObject *loop_keywords(loop *self) {
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
    bool deadlocked = self->deadlocked;
    self->deadlocked = false;
    return PyBool_FromLong(deadlocked);
}

/* Runs turns by one of casync's functions. A forked child that runs the loop it inherited gets its
   own kernel objects. */
static PyObject *loop_run_by(loop *self, int64_t (*run)(casync_loop *)) {
    PyObject *error;
    int64_t result = run(&self->casync);
    if (result == -ECHILD) {
        result = casync_loop_fork(&self->casync);
        if (result >= 0) result = run(&self->casync);
    }
    error = self->error;
    self->error = NULL;
    if (error != NULL) {
        raise_exception(error);
        return NULL;
    }
    if (result == -EBUSY)
        return PyErr_Format(PyExc_RuntimeError, "This event loop is already running");
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
    casync_loop *casync = &self->casync, *outer = casync->outer;
    casync_task *outer_task = casync->outer_task;
    bool within = casync->state == CASYNC_LOOP_RUNNING;
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
    if (self->closed) return raise_closed();
    result = casync_call_later(&self->casync, &timer, nanoseconds_of(seconds), loop_pass, NULL);
    if (result < 0) return raise_os_error(result);
    polled = loop_run_within(self, loop_poll_once);
    casync_timer_stop(&timer);
    if (polled == NULL) return NULL;
    Py_DECREF(polled);
    return PyBool_FromLong(casync__has_work(&self->casync));
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
    if (self->closed) return raise_closed();
    Py_RETURN_NONE;
}

static PyObject *loop_is_closed(loop *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(self->closed);
}

static PyObject *loop_get_debug(loop *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(self->debug);
}

static PyObject *loop_is_running(loop *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(self->thread_id != NULL);
}

/* ---- what is queued ---- */

static handle *handle_of_job(casync_job *job) {
    return job->callback == handle_run ? (handle *)job->arg : NULL;
}

typedef struct {
    PyObject *ready, *timers;
    bool failed;
} queued_handles;

static void collect_handle(int kind, void *object, void *arg) {
    queued_handles *found = (queued_handles *)arg;
    bool timer = kind == CASYNC_KIND_TIMER;
    handle *h = timer || kind == CASYNC_KIND_JOB ? handle_of_job((casync_job *)object) : NULL;
    if (h != NULL && PyList_Append(timer ? found->timers : found->ready, (PyObject *)h) < 0)
        found->failed = true;
}

/* ([handles for the next turn], [timer handles]) */
static PyObject *loop_queued(loop *self, PyObject *Py_UNUSED(ignored)) {
    queued_handles found = {PyList_New(0), PyList_New(0), false};
    PyObject *pair = NULL;
    if (found.ready != NULL && found.timers != NULL) {
        casync_walk(&self->casync, collect_handle, &found);
        if (!found.failed) pair = PyTuple_Pack(2, found.ready, found.timers);
    }
    Py_XDECREF(found.ready);
    Py_XDECREF(found.timers);
    return pair;
}

/* _take_ready(): the handles for the next turn, which are the caller's to run from now on. They
   move to a queue that no turn runs: so they are the loop's to cancel and to visit still. */
static PyObject *loop_take_ready(loop *self, PyObject *Py_UNUSED(ignored)) {
    PyObject *pair = loop_queued(self, NULL), *ready;
    if (pair == NULL) return NULL;
    ready = Py_NewRef(PyTuple_GET_ITEM(pair, 0));
    Py_DECREF(pair);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(ready); i++) {
        handle *h = (handle *)PyList_GET_ITEM(ready, i);
        if (casync_job_cancel(&h->job) == 0) continue;
        h->flags |= HANDLE_TAKEN;
        casync__list_append(&self->taken, &h->job.link);
    }
    return ready;
}

typedef struct {
    size_t of_kind[CASYNC_KIND_SERVER + 1];
    size_t datagram_sockets, unsent;
} live_objects;

static void count_object(int kind, void *object, void *arg) {
    live_objects *live = (live_objects *)arg;
    if (kind <= CASYNC_KIND_SERVER) live->of_kind[kind]++;
    if (kind == CASYNC_KIND_STREAM) live->unsent += ((casync_stream *)object)->out.size;
    if (kind == CASYNC_KIND_DATAGRAM) {
        live->datagram_sockets++;
        live->unsent += ((casync_datagram *)object)->queued;
    }
}

static PyObject *loop_metrics(loop *self, PyObject *Py_UNUSED(ignored)) {
    live_objects live = {{0}, 0};
    casync_metrics m = {0};
    if (!self->closed) {
        casync_walk(&self->casync, count_object, &live);
        casync_loop_metrics(&self->casync, &m);
    }
    return Py_BuildValue("{sK sK sK sK sd sd sd sn sn sn sn sn sn}",                             //
                         "turns", (unsigned long long)m.turns,                                   //
                         "polls", (unsigned long long)m.polls,                                   //
                         "events", (unsigned long long)m.events,                                 //
                         "callbacks", (unsigned long long)m.callbacks,                           //
                         "idle_time", (double)m.idle_time / 1e9,                                 //
                         "busy_time", (double)m.busy_time / 1e9,                                 //
                         "longest_turn", (double)m.longest_turn / 1e9,                           //
                         "ready", live.of_kind[CASYNC_KIND_JOB],                                 //
                         "timers", live.of_kind[CASYNC_KIND_TIMER],                              //
                         "watchers", live.of_kind[CASYNC_KIND_WATCHER],                          //
                         "transports", live.of_kind[CASYNC_KIND_STREAM] + live.datagram_sockets, //
                         "servers", live.of_kind[CASYNC_KIND_SERVER], "unsent_bytes", live.unsent);
}

/* Cancels what asyncio's turns have not run. */
static void loop_drop_taken(loop *self) {
    while (!casync__list_is_empty(&self->taken)) {
        handle *h =
            (handle *)Py_NewRef((PyObject *)handle_of_job(casync__job_of(self->taken.next)));
        h->flags |= HANDLE_CANCELLED;
        handle_end(h, self->state);
        Py_DECREF(h);
    }
}

/* Cancels all that is queued. */
static int loop_drop_queue(loop *self) {
    PyObject *pair = loop_queued(self, NULL);
    if (pair == NULL) return -1;
    for (Py_ssize_t side = 0; side < 2; side++) {
        PyObject *list = PyTuple_GET_ITEM(pair, side);
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
            PyObject *h = Py_NewRef(PyList_GET_ITEM(list, i));
            handle_cancel_now((handle *)h);
            Py_DECREF(h);
        }
    }
    Py_DECREF(pair);
    loop_drop_taken(self);
    return 0;
}

/* ---- life ---- */

static void loop_drop_watchers(loop *self);
static void loop_drop_servers(loop *self);
static void loop_drop_transports(loop *self);
static void loop_visit_object(int kind, void *object, void *arg);
static int transport_visit_all(loop *self, visitproc visit, void *arg);

/* _close(): drops what is queued, watched and open. EventLoop.close() calls it last. What goes with
   any of it may close the loop, too. */
static PyObject *loop_close(loop *self, PyObject *Py_UNUSED(ignored)) {
    if (self->casync.state == CASYNC_LOOP_RUNNING)
        return PyErr_Format(PyExc_RuntimeError, "Cannot close a running event loop");
    self->closed = true;
    if (self->casync.state == CASYNC_LOOP_CLOSED) Py_RETURN_NONE;
    if (loop_drop_queue(self) < 0) return NULL;
    loop_drop_watchers(self);
    loop_drop_servers(self);
    loop_drop_transports(self);
    if (loop_drop_queue(self) < 0) return NULL; /* what was queued meanwhile */
    Py_CLEAR(self->keywords);
    int64_t result = casync_loop_close(&self->casync);
    if (result < 0) return raise_os_error(result);
    Py_RETURN_NONE;
}

/* What loop_visit_object needs of tp_traverse. */
typedef struct {
    visitproc visit;
    void *arg;
    int result;
} visiting;

/* casync_walk() for the collector, which may come at any time and so must find all, and change
   nothing: that one takes over what other threads have posted, among which is no handle. */
static void loop_visit_objects(loop *self, visiting *v) {
    casync_loop *casync = &self->casync;
    if (casync__is_closed(casync)) return;
    casync__walk_jobs(&casync->running, loop_visit_object, v);
    casync__walk_jobs(&casync->ready, loop_visit_object, v);
    casync__walk_timers(casync, loop_visit_object, v);
    casync__walk_watchers(casync, loop_visit_object, v);
}

static int loop_traverse(loop *self, visitproc visit, void *arg) {
    visiting v = {visit, arg, 0};
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->error);
    Py_VISIT(self->task_factory);
    Py_VISIT(self->keywords);
    for (casync_link *link = self->taken.next; link != &self->taken; link = link->next) {
        int result = handle_visit(handle_of_job(casync__job_of(link)), visit, arg);
        if (result != 0) return result;
    }
    loop_visit_objects(self, &v);
    return v.result ? v.result : transport_visit_all(self, visit, arg);
}

static int loop_clear(loop *self) {
    PyObject *pending = take_exception(), *closed;
    Py_CLEAR(self->error);
    Py_CLEAR(self->task_factory);
    Py_CLEAR(self->keywords);
    Py_CLEAR(self->thread_id);
    closed = loop_close(self, NULL);
    if (closed == NULL) PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(closed);
    if (pending != NULL) raise_exception(pending);
    return 0;
}

static void loop_dealloc(loop *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject *module = self->module;
    PyObject_GC_UnTrack(self);
    self->dying = true;
    loop_clear(self);
    PyMem_Free(self->kept);
    PyMem_Free(self->received);
    type->tp_free(self);
    Py_DECREF(type);
    Py_XDECREF(module);
}

/* ---- attributes of BaseEventLoop that live here ---- */

static int set_flag(bool *flag, PyObject *value) {
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0) return -1;
    *flag = truth;
    return 0;
}

static int set_object(PyObject **slot, PyObject *value) {
    Py_XSETREF(*slot, Py_XNewRef(value == Py_None ? NULL : value));
    return 0;
}

static PyObject *loop_get_stopping(loop *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(self->stopping);
}

static int loop_set_stopping(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    if (set_flag(&self->stopping, value) < 0) return -1;
    if (self->stopping) casync_stop(&self->casync);
    return 0;
}

static PyObject *loop_get_closed(loop *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(self->closed);
}

static int loop_set_closed(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    return set_flag(&self->closed, value);
}

static PyObject *loop_get_debug_attribute(loop *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(self->debug);
}

/* One of the flags by which Python code is called. */
static int set_python_flag(loop *self, bool *flag, PyObject *value) {
    if (set_flag(flag, value) < 0) return -1;
    self->calls_python = self->debug || self->observed || self->asyncio_turns;
    return 0;
}

static int loop_set_debug(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    return set_python_flag(self, &self->debug, value);
}

static PyObject *loop_get_observed(loop *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(self->observed);
}

static int loop_set_observed(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    return set_python_flag(self, &self->observed, value);
}

static PyObject *loop_get_asyncio_turns(loop *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(self->asyncio_turns);
}

/* A native run that is going on ends when the present callback returns: run_forever goes on with
   the other kind of turn. */
static int loop_set_asyncio_turns(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    if (set_python_flag(self, &self->asyncio_turns, value) < 0) return -1;
    if (self->casync.state == CASYNC_LOOP_RUNNING) casync_break(&self->casync);
    return 0;
}

/* Setting what a turn is made of, in the loop itself, calls _use_asyncio_turns(); setting its class
   _look_for_patches(). */
static int loop_setattro(PyObject *self, PyObject *name, PyObject *value) {
    state *st = ((loop *)self)->state;
    PyTypeObject *type = Py_TYPE(self);
    PyObject *result;
    int patched;
    if (PyObject_GenericSetAttr(self, name, value) < 0) return -1;
    patched = PySet_Contains(st->turn_names, name);
    if (patched < 0) return -1;
    if (!patched && Py_TYPE(self) == type) return 0;
    result = PyObject_CallMethodNoArgs(
        self, st->names[patched ? NAME_USE_ASYNCIO_TURNS : NAME_LOOK_FOR_PATCHES]);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *loop_get_thread_id(loop *self, void *Py_UNUSED(closure)) {
    return Py_NewRef(self->thread_id == NULL ? Py_None : self->thread_id);
}

static int loop_set_thread_id(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    return set_object(&self->thread_id, value);
}

static PyObject *loop_get_task_factory(loop *self, void *Py_UNUSED(closure)) {
    return Py_NewRef(self->task_factory == NULL ? Py_None : self->task_factory);
}

static int loop_set_task_factory(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    return set_object(&self->task_factory, value);
}

static PyGetSetDef loop_getsets[] = {
    {"_stopping", (getter)loop_get_stopping, (setter)loop_set_stopping, NULL, NULL},
    {"_closed", (getter)loop_get_closed, (setter)loop_set_closed, NULL, NULL},
    {"_debug", (getter)loop_get_debug_attribute, (setter)loop_set_debug, NULL, NULL},
    {"_observed", (getter)loop_get_observed, (setter)loop_set_observed, NULL, NULL},
    {"_asyncio_turns", (getter)loop_get_asyncio_turns, (setter)loop_set_asyncio_turns, NULL, NULL},
    {"_thread_id", (getter)loop_get_thread_id, (setter)loop_set_thread_id, NULL, NULL},
    {"_task_factory", (getter)loop_get_task_factory, (setter)loop_set_task_factory, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
