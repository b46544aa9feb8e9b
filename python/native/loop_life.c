/* What a loop holds and how it ends: what is queued, close() and the garbage collector, and the
   attributes that asyncio's BaseEventLoop keeps in Python. */

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
    LOCK_LOOP(self);
    queued_handles found = {PyList_New(0), PyList_New(0), false};
    PyObject *pair = NULL;
    if (found.ready != NULL && found.timers != NULL) {
        casync__posts_take(&self->casync); /* which casync_walk shows last first */
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
    LOCK_LOOP(self);
    PyObject *pair = loop_queued(self, NULL), *ready;
    if (pair == NULL) return NULL;
    ready = Py_NewRef(PyTuple_GET_ITEM(pair, 0));
    Py_DECREF(pair);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(ready); i++) {
        handle *h = (handle *)PyList_GET_ITEM(ready, i);
        bool locked;
        if (casync_job_cancel(&h->job) == 0) continue;
        locked = handle_lock(h);
        h->flags |= HANDLE_TAKEN;
        handle_unlock(h, locked);
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
    LOCK_LOOP(self);
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
    while (!casync__list_is_empty(&self->taken))
        handle_discard(handle_of_job(casync__job_of(self->taken.next)), self->state);
}

/* Cancels all that is queued. */
static int loop_drop_queue(loop *self) {
    PyObject *pair = loop_queued(self, NULL);
    if (pair == NULL) return -1;
    for (Py_ssize_t side = 0; side < 2; side++) {
        PyObject *list = PyTuple_GET_ITEM(pair, side);
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++)
            handle_discard((handle *)PyList_GET_ITEM(list, i), self->state);
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
    LOCK_LOOP(self);
    if (self->casync.state == CASYNC_LOOP_RUNNING)
        return PyErr_Format(PyExc_RuntimeError, "Cannot close a running event loop");
    set_closed(self, true);
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
    casync_walk(&self->casync, loop_visit_object, &v);
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
    free_lock(self);
    type->tp_free(self);
    Py_DECREF(type);
    Py_XDECREF(module);
}

/* ---- attributes of BaseEventLoop that live here ---- */

static int set_flag(bool *flag, PyObject *value) {
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0) return -1;
    STORE(*flag, truth);
    return 0;
}

/* None is kept as NULL. Other threads may ask for these while the loop runs a callback, so they are
   under the lock that every object has. */
static int set_object(loop *self, PyObject **slot, PyObject *value) {
    PyObject *before;
    Py_BEGIN_CRITICAL_SECTION(self);
    before = *slot;
    STORE(*slot, Py_XNewRef(value == Py_None ? NULL : value));
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(before);
    return 0;
}

static PyObject *get_object(loop *self, PyObject **slot) {
    PyObject *object;
    Py_BEGIN_CRITICAL_SECTION(self);
    object = Py_NewRef(*slot == NULL ? Py_None : *slot);
    Py_END_CRITICAL_SECTION();
    return object;
}

static PyObject *loop_get_stopping(loop *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(LOAD(self->stopping));
}

static int loop_set_stopping(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    LOCK_LOOP(self);
    if (set_flag(&self->stopping, value) < 0) return -1;
    if (self->stopping) casync_stop(&self->casync);
    return 0;
}

static PyObject *loop_get_closed(loop *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(LOAD(self->closed));
}

static int loop_set_closed(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    bool closed = false;
    if (set_flag(&closed, value) < 0) return -1;
    set_closed(self, closed);
    return 0;
}

static PyObject *loop_get_debug_attribute(loop *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(LOAD(self->debug));
}

/* One of the flags by which Python code is called. */
static int set_python_flag(loop *self, bool *flag, PyObject *value) {
    LOCK_LOOP(self);
    if (set_flag(flag, value) < 0) return -1;
    STORE(self->calls_python, self->debug || self->observed || self->asyncio_turns);
    return 0;
}

static int loop_set_debug(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    return set_python_flag(self, &self->debug, value);
}

static PyObject *loop_get_observed(loop *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(LOAD(self->observed));
}

static int loop_set_observed(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    return set_python_flag(self, &self->observed, value);
}

static PyObject *loop_get_asyncio_turns(loop *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(LOAD(self->asyncio_turns));
}

/* A native run that is going on ends when the present callback returns: run_forever goes on with
   the other kind of turn. */
static int loop_set_asyncio_turns(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    LOCK_LOOP(self);
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
    return get_object(self, &self->thread_id);
}

static int loop_set_thread_id(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    return set_object(self, &self->thread_id, value);
}

static PyObject *loop_get_task_factory(loop *self, void *Py_UNUSED(closure)) {
    return get_object(self, &self->task_factory);
}

static int loop_set_task_factory(loop *self, PyObject *value, void *Py_UNUSED(closure)) {
    return set_object(self, &self->task_factory, value);
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
