/* add_reader and add_writer: Python callbacks for casync_watcher.

   Idea: a `watch` is a casync_watcher with a handle for each direction. casync.h's table of
   descriptors is the only one: casync_watcher_find() leads from a number to the watch, and removing
   the last direction frees it. A handle that was cancelled by hand is removed when its event comes,
   as in asyncio's _process_events (asyncio/selector_events.py).

   A socket that sock.c waits for has a watch that is kept, in the table `kept`: it rests from one
   wait to the next (casync_watcher_keep), so these need no epoll_ctl.

   A watch is found by its descriptor or, once that is closed, by the object it was first added
   with, as in selectors._fileobj_lookup (CPython's Lib/selectors.py): anyio removes its readers
   that late.

   What the kernel watches is an open file, not a number. Behind our back the number may have become
   another file's: by dup2(), by an __init__ of the same socket object, by a close() of what is
   watched. So a watch that begins, or gets another handle, without a system call is doubted: if no
   event comes for it soon (before the loop would wait, or in so many turns), the kernel is asked,
   and another file is registered in its place. So it is at once where an event was in vain, which
   another file of that number may have caused. What comes to a number as a transport or a server
   ends whatever watched it.

   Invariants: a watch rests for a socket object, of which it has a weak reference, as long as that
   object has that descriptor. A watch that is doubted has a handle.

   Costs: an allocation a descriptor, which those that are kept have until the loop closes; an event
   runs the same path as a queued handle. A doubt that an event ends soon costs no system call, any
   other a poll that does not wait (for all of them) and an epoll_ctl. */

#define SKIPPED_READS 16
#define DOUBT_TURNS 16

typedef struct watch {
    casync_watcher watcher; /* first: what casync_watcher_find returns */
    loop *loop;             /* borrowed: a loop drops its watches when it goes */
    handle *reader, *writer;
    casync_link doubt; /* in loop->doubted, or unlinked */
    uint32_t doubted;  /* in which turn it came there */
    PyObject *file;    /* that it was added with; NULL of those that sock.c made */
    PyObject *socket;  /* of those in loop->kept: a weak reference to the socket it rests for */
    bool drained;      /* of these: the last who read found less than asked for, and */
    uint8_t skips;     /* so many times, then, nobody need try to read before he waits */
} watch;

static void watch_readable(void *arg);
static void watch_writable(void *arg);

/* The watch around a watcher, or NULL if it belongs to a stream or a server. */
static watch *watch_of(casync_watcher *watcher) {
    if (watcher == NULL) return NULL;
    if (watcher->reader.callback != watch_readable && watcher->writer.callback != watch_writable)
        return NULL;
    return (watch *)(void *)watcher;
}

static handle **watch_side(watch *self, bool writing) {
    return writing ? &self->writer : &self->reader;
}

/* Ends a watcher's handle; in debug mode asyncio's too, for who holds it asks whether it was
   cancelled. */
static void handle_release(handle *h) {
    if (h->flags & HANDLE_WRAPPER && h->count > 0) {
        state *st = (state *)PyType_GetModuleState(Py_TYPE(h));
        PyObject *wrapped = Py_NewRef(h->vector[1]),
                 *result = PyObject_CallMethodNoArgs(wrapped, st->names[NAME_CANCEL]);
        if (result == NULL) PyErr_WriteUnraisable((PyObject *)h);
        Py_XDECREF(result);
        Py_DECREF(wrapped);
    }
    handle_cancel_now(h);
    Py_DECREF(h);
}

/* Ends the doubt. */
static void watch_trust(watch *self) {
    if (self->doubt.next != NULL) casync__list_remove(&self->doubt);
}

/* Stops a direction: its handle, or NULL if it was not watched. */
static handle *watch_take(watch *self, bool writing) {
    handle **side = watch_side(self, writing), *h = *side;
    if (writing)
        casync_remove_writer(&self->watcher);
    else
        casync_remove_reader(&self->watcher);
    *side = NULL;
    return h;
}

/* Frees a watch without handles, unless it is kept: the file it was added with, or NULL. */
static PyObject *watch_leave(watch *self) {
    PyObject *file = self->file;
    if (self->reader != NULL || self->writer != NULL) return NULL;
    watch_trust(self);
    if (self->socket != NULL) return NULL;
    PyMem_Free(self);
    return file;
}

/* Stops a direction; true if it was watched. Frees the watch with its last, unless it is kept. */
static bool watch_stop(watch *self, bool writing) {
    handle *h = watch_take(self, writing);
    PyObject *file;
    if (h == NULL) return false;
    file = watch_leave(self);
    handle_release(h);
    Py_XDECREF(file);
    return true;
}

/* Stops both. To release a handle may run Python code, which may end watches: so that comes
   last. */
static void watch_end(watch *self) {
    handle *reader = watch_take(self, false), *writer = watch_take(self, true);
    PyObject *file = watch_leave(self);
    if (reader != NULL) handle_release(reader);
    if (writer != NULL) handle_release(writer);
    Py_XDECREF(file);
}

static void watch_run(watch *self, bool writing) {
    handle *h = *watch_side(self, writing);
    loop *lp = self->loop;
    watch_trust(self);
    lp->polled_in_vain = false;
    if (h->flags & HANDLE_CANCELLED) {
        watch_stop(self, writing);
        return;
    }
    Py_INCREF(h);
    /* may end the watch */
    if (handle_run_now(lp, h, false) && h->flags & HANDLE_CANCELLED) handle_drop(h, lp->state);
    Py_DECREF(h);
}

static void watch_readable(void *arg) { watch_run((watch *)arg, false); }

static void watch_writable(void *arg) { watch_run((watch *)arg, true); }

/* int(object.fileno()) */
static PyObject *ask_fileno(state *st, PyObject *object) {
    PyObject *number = PyObject_CallMethodNoArgs(object, st->names[NAME_FILENO]), *whole = NULL;
    if (number != NULL) whole = PyNumber_Long(number);
    Py_XDECREF(number);
    if (whole == NULL &&
        (PyErr_ExceptionMatches(PyExc_AttributeError) || PyErr_ExceptionMatches(PyExc_TypeError) ||
         PyErr_ExceptionMatches(PyExc_ValueError))) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "Invalid file object: %R", object);
    }
    return whole;
}

/* A descriptor from a number or an object with fileno(), as selectors._fileobj_to_fd; -1 with an
   exception set. */
static int parse_fd(state *st, PyObject *object) {
    PyObject *number = PyLong_Check(object) ? Py_NewRef(object) : ask_fileno(st, object);
    int overflow = 0;
    long fd = number == NULL ? -1 : PyLong_AsLongAndOverflow(number, &overflow);
    if (fd > INT_MAX || overflow > 0)
        PyErr_SetString(PyExc_OverflowError, "no file descriptor has so large a number");
    else if (number != NULL && fd < 0)
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %S", number);
    Py_XDECREF(number);
    return PyErr_Occurred() ? -1 : (int)fd;
}

/* As parse_fd, also for a file that was closed while it is watched: the number is that of its
   watch. */
static int find_fd(loop *self, PyObject *file) {
    int fd = parse_fd(self->state, file);
    if (fd < 0 && PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        return INT_MAX; /* as little a descriptor as the number that was given */
    }
    if (fd >= 0 || !PyErr_ExceptionMatches(PyExc_ValueError)) return fd;
    for (uint32_t i = 0; i < self->casync.fds_size; i++) {
        watch *w = watch_of(casync_watcher_find(&self->casync, (int)i));
        if (w == NULL || w->file != file) continue;
        PyErr_Clear();
        return (int)i;
    }
    return -1;
}

/* The handle for a direction, with a context or NULL. In debug mode, and observed, it calls what
   `_python_reader((fd, callback, *args), context)` returns with the asyncio.Handle that it returns
   too, and that asyncio.Handle is what the caller gets. */
static handle *watch_handle(loop *self, PyObject *const *args, Py_ssize_t count, PyObject *context,
                            bool writing, PyObject **returned) {
    handle *h;
    if (self->calls_python) {
        PyObject *tuple = PyTuple_New(count), *pair;
        if (tuple == NULL) return NULL;
        for (Py_ssize_t i = 0; i < count; i++) PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
        pair = PyObject_CallMethodObjArgs(
            (PyObject *)self, self->state->names[writing ? NAME_PYTHON_WRITER : NAME_PYTHON_READER],
            tuple, context == NULL ? Py_None : context, NULL);
        Py_DECREF(tuple);
        if (pair == NULL) return NULL;
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            Py_DECREF(pair);
            return (handle *)PyErr_Format(PyExc_TypeError, "a method and its handle are needed");
        }
        h = wrap_handle(self, HANDLE_PLAIN, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1));
        *returned = Py_NewRef(PyTuple_GET_ITEM(pair, 1));
        Py_DECREF(pair);
        if (h != NULL) h->flags |= HANDLE_WRAPPER;
    } else {
        h = handle_new(self, HANDLE_PLAIN, args[1], args + 2, count - 2, context);
        *returned = (PyObject *)Py_XNewRef((PyObject *)h);
    }
    if (h == NULL) Py_CLEAR(*returned);
    return h;
}

static watch *watch_new(loop *self) {
    watch *w = PyMem_New(watch, 1);
    if (w == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memset(w, 0, sizeof *w);
    w->loop = self;
    return w;
}

/* Registers what is watched anew, with the file that has the descriptor now. What cannot be watched
   any more gives up without a word, as a file does that is closed while the kernel watches it. */
static void watch_renew(watch *self) {
    casync_loop *casync = &self->loop->casync;
    casync_watcher *watcher = &self->watcher;
    bool reading = self->reader != NULL, writing = self->writer != NULL;
    int fd = watcher->fd;
    watch_trust(self);
    casync_watcher_keep(watcher, false);
    casync_remove_reader(watcher);
    casync_remove_writer(watcher);
    if (reading) reading = casync_add_reader(casync, watcher, fd, watch_readable, self) < 0;
    if (writing) writing = casync_add_writer(casync, watcher, fd, watch_writable, self) < 0;
    casync_watcher_keep(watcher, self->socket != NULL);
    if (reading && writing)
        watch_end(self);
    else if (reading || writing)
        watch_stop(self, writing);
}

static void watch_ask(watch *self) {
    watch_trust(self);
    if (casync_watcher_check(&self->watcher) != 1) watch_renew(self);
}

/* Before each poll while there are doubts: one that would wait is made one that does not, and if
   that finds nothing the kernel is asked. */
static void loop_settle_doubts(void *arg) {
    loop *self = (loop *)arg;
    bool idle = !casync_loop_ready(&self->casync), all = idle && self->polled_in_vain;
    while (!casync__list_is_empty(&self->doubted)) {
        watch *oldest = casync__container(self->doubted.next, watch, doubt);
        if (!all && (uint32_t)self->casync.turns - oldest->doubted < DOUBT_TURNS) break;
        watch_ask(oldest);
    }
    self->polled_in_vain = idle;
    if (casync__list_is_empty(&self->doubted))
        casync_hook_stop(&self->doubts);
    else if (idle)
        casync_wake(&self->casync);
}

/* Is to be asked for if no event comes soon. */
static void watch_doubt(watch *self) {
    loop *lp = self->loop;
    if (self->doubt.next != NULL) return;
    casync__list_append(&lp->doubted, &self->doubt);
    self->doubted = (uint32_t)lp->casync.turns;
    lp->polled_in_vain = false;
    if (lp->doubts.job.link.next == NULL &&
        casync_hook_start(&lp->casync, &lp->doubts, CASYNC_HOOK_BEFORE_POLL, 0, loop_settle_doubts,
                          lp) < 0)
        watch_ask(self);
}

/* Starts watching a direction, or changes its callback: 0, or -1 with an exception set. */
static int watch_begin(watch *self, int fd, bool writing, handle *h) {
    loop *lp = self->loop;
    handle **side = watch_side(self, writing), *before;
    uint8_t armed = self->watcher.armed;
    int64_t result;
    if (writing)
        result = casync_add_writer(&lp->casync, &self->watcher, fd, watch_writable, self);
    else
        result = casync_add_reader(&lp->casync, &self->watcher, fd, watch_readable, self);
    if (result < 0) {
        raise_os_error(result);
        return -1;
    }
    h->flags |= HANDLE_KEPT;
    h->job.loop = &lp->casync;
    before = *side;
    *side = (handle *)Py_NewRef((PyObject *)h);
    /* Else the kernel is asked now, or before the next wait. */
    if (armed != 0 && armed == self->watcher.wanted) watch_doubt(self);
    if (before != NULL) handle_release(before);
    return 0;
}

static bool stop_serving(casync_watcher *watcher);

/* Watches a direction with a handle, in place of the one before, or of a server (in asyncio that
   has a handle, too). Takes references to the handle and to the file, which may be NULL. */
static int watch_set(loop *self, int fd, bool writing, handle *h, PyObject *file) {
    casync_watcher *found = casync_watcher_find(&self->casync, fd);
    watch *w;
    if (stop_serving(found)) found = NULL;
    w = found == NULL ? watch_new(self) : watch_of(found);
    if (w == NULL) {
        if (found != NULL)
            PyErr_Format(PyExc_RuntimeError, "File descriptor %d is used by a transport", fd);
        return -1;
    }
    if (found == NULL) w->file = Py_XNewRef(file);
    if (watch_begin(w, fd, writing, h) == 0) return 0;
    if (found == NULL) {
        PyMem_Free(w);
        Py_XDECREF(file);
    }
    return -1;
}

/* The place for the watch that is kept for a descriptor. */
static watch **kept_place(loop *self, int fd) {
    if ((uint32_t)fd >= self->kept_size) {
        uint32_t size = self->kept_size ? self->kept_size : 16;
        watch **kept;
        while (size <= (uint32_t)fd) size *= 2;
        kept = PyMem_Resize(self->kept, watch *, size);
        if (kept == NULL) return (watch **)PyErr_NoMemory();
        memset(kept + self->kept_size, 0, (size - self->kept_size) * sizeof *kept);
        self->kept = kept;
        self->kept_size = size;
    }
    return &self->kept[fd];
}

static watch *kept_watch(loop *self, int fd) {
    return (uint32_t)fd < self->kept_size ? self->kept[fd] : NULL;
}

/* Is it the socket that the watch rests for? Its descriptor is the same open file then. */
static bool rests_for(watch *self, PyObject *sock) {
    PyObject *object = follow(self->socket);
    Py_XDECREF(object);
    return object == sock;
}

/* Would reading find nothing, as far as one can tell? Somebody has read all there was, and the
   kernel, which watches on, has told of nothing new; and to try in spite of that was in vain
   lately. */
static bool is_drained(loop *self, int fd, PyObject *sock) {
    watch *w = kept_watch(self, fd);
    if (w == NULL || !w->drained || w->skips == 0) return false;
    if (!(w->watcher.armed & CASYNC__FD_READ) || !rests_for(w, sock)) return false;
    w->skips--;
    return true;
}

/* The watch kept for a descriptor that nobody watches, for this socket from now on. */
static watch *keep_watch(loop *self, int fd, PyObject *sock) {
    watch *w = kept_watch(self, fd), **place;
    PyObject *reference;
    if (w != NULL && rests_for(w, sock)) return w;
    reference = PyWeakref_NewRef(sock, NULL); /* may run the collector, which may change the
                                                 table */
    if (reference == NULL) return NULL;
    place = kept_place(self, fd);
    if (place == NULL) {
        Py_DECREF(reference);
        return NULL;
    }
    w = *place;
    if (w == NULL) {
        w = *place = watch_new(self);
        if (w == NULL) {
            Py_DECREF(reference);
            return NULL;
        }
    } else {
        casync_watcher_keep(&w->watcher, false);
    }
    Py_XSETREF(w->socket, reference);
    return w;
}

/* As watch_set, for a socket that will be watched again: between, its watch rests. `tried` says
   that to read was in vain. */
static int watch_socket(loop *self, int fd, bool writing, handle *h, PyObject *sock, bool tried) {
    watch *w;
    if (casync_watcher_find(&self->casync, fd) != NULL)
        return watch_set(self, fd, writing, h, NULL);
    w = keep_watch(self, fd, sock);
    if (w == NULL || watch_begin(w, fd, writing, h) < 0) return -1;
    casync_watcher_keep(&w->watcher, true);
    if (tried && !writing) w->skips = SKIPPED_READS;
    return 0;
}

/* _add_reader(fd, callback, *args, context=None) and _add_writer: the handle. */
static PyObject *watch_start(loop *self, PyObject *const *args, Py_ssize_t count,
                             PyObject *keywords, bool writing) {
    LOCK_LOOP(self);
    PyObject *returned = NULL, *context;
    handle *h;
    int fd;
    if (!parse_schedule(2, count, args, keywords, self->state, &context))
        return PyErr_Format(PyExc_TypeError,
                            "%s() takes at least 2 arguments (%zd given), and no keyword but "
                            "context",
                            writing ? "_add_writer" : "_add_reader", count);
    if (self->closed) return raise_closed();
    fd = find_fd(self, args[0]);
    if (fd < 0) return NULL;
    h = watch_handle(self, args, count, context, writing, &returned);
    if (h == NULL) return NULL;
    if (watch_set(self, fd, writing, h, args[0]) < 0) Py_CLEAR(returned);
    Py_DECREF(h);
    return returned;
}

static PyObject *loop_add_reader(loop *self, PyObject *const *args, Py_ssize_t count,
                                 PyObject *keywords) {
    return watch_start(self, args, count, keywords, false);
}

static PyObject *loop_add_writer(loop *self, PyObject *const *args, Py_ssize_t count,
                                 PyObject *keywords) {
    return watch_start(self, args, count, keywords, true);
}

/* Also the end of a listening socket, which asyncio's Server takes for a reader. */
static PyObject *watch_remove(loop *self, PyObject *file, bool writing) {
    LOCK_LOOP(self);
    casync_watcher *found;
    watch *w;
    int fd;
    if (self->closed) Py_RETURN_FALSE;
    fd = find_fd(self, file);
    if (fd < 0) return NULL;
    found = casync_watcher_find(&self->casync, fd);
    w = watch_of(found);
    if (w == NULL) return PyBool_FromLong(!writing && stop_serving(found));
    return PyBool_FromLong(watch_stop(w, writing));
}

static PyObject *loop_remove_reader(loop *self, PyObject *file) {
    return watch_remove(self, file, false);
}

static PyObject *loop_remove_writer(loop *self, PyObject *file) {
    return watch_remove(self, file, true);
}

/* _watched(file): None, or (file, descriptor, the handle of reading, that of writing), as a
   selector's key has them. */
static PyObject *loop_watched(loop *self, PyObject *file) {
    LOCK_LOOP(self);
    int fd = find_fd(self, file);
    if (fd < 0) return NULL;
    PyObject *number = PyLong_FromLong(fd), *watched = number == NULL ? NULL : PyTuple_New(4);
    watch *w = self->closed ? NULL : watch_of(casync_watcher_find(&self->casync, fd));
    if (watched != NULL && w != NULL) {
        PyTuple_SET_ITEM(watched, 0, Py_NewRef(w->file ? w->file : number));
        PyTuple_SET_ITEM(watched, 1, Py_NewRef(number));
        PyTuple_SET_ITEM(watched, 2, Py_NewRef(w->reader ? (PyObject *)w->reader : Py_None));
        PyTuple_SET_ITEM(watched, 3, Py_NewRef(w->writer ? (PyObject *)w->writer : Py_None));
    } else if (watched != NULL) {
        Py_SETREF(watched, Py_NewRef(Py_None));
    }
    Py_XDECREF(number);
    return watched;
}

/* _descriptors(): [(descriptor, events as the module selectors has them)], also of transports and
   servers. */
static PyObject *loop_descriptors(loop *self, PyObject *Py_UNUSED(ignored)) {
    LOCK_LOOP(self);
    PyObject *list = PyList_New(0);
    for (uint32_t fd = 0; list != NULL && fd < self->casync.fds_size; fd++) {
        casync_watcher *watcher = casync_watcher_find(&self->casync, (int)fd);
        PyObject *pair;
        if (watcher == NULL || watcher->wanted == 0) continue;
        pair = Py_BuildValue(
            "Ii", fd, (watcher->wanted & EPOLLIN ? 1 : 0) | (watcher->wanted & EPOLLOUT ? 2 : 0));
        if (pair == NULL || PyList_Append(list, pair) < 0) Py_CLEAR(list);
        Py_XDECREF(pair);
    }
    return list;
}

/* Drops every watch, whose table the loop knows by number. What goes with one may end others, so
   each is looked for anew. */
static void loop_drop_watchers(loop *self) {
    for (uint32_t fd = 0; fd < self->casync.fds_size; fd++) {
        watch *w;
        while ((w = watch_of(casync_watcher_find(&self->casync, (int)fd))) != NULL) watch_end(w);
    }
    for (uint32_t fd = 0; fd < self->kept_size; fd++) {
        watch *w = self->kept[fd];
        if (w == NULL) continue;
        casync_watcher_keep(&w->watcher, false);
        Py_DECREF(w->socket);
        PyMem_Free(w);
    }
    PyMem_Free(self->kept);
    self->kept = NULL;
    self->kept_size = 0;
}
