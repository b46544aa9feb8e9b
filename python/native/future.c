/* casync.h's futures beside asyncio's: what casync/futures.py is made of.

   Idea: a handle waits in the future's list of callbacks as any other waits in the loop's queue.
   Futures go by their address, which Python code cannot check: casync/futures.py says what callers
   promise. All of this is in the loop's thread. */

static int parse_address(PyObject *object, void *result) {
    void *address = PyLong_AsVoidPtr(object);
    if (address == NULL && !PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "a pointer to a casync_future is needed, not NULL");
    *(void **)result = address;
    return address != NULL;
}

/* The Python loop that the future is of. */
static loop *future_loop(casync_future *future) {
    if (future->loop == NULL || future->loop->before_wait != loop_before_wait) {
        PyErr_SetString(PyExc_ValueError, "the C future is closed, or not of a casync.EventLoop");
        return NULL;
    }
    return loop_of(future->loop);
}

/* _future_loop(address): the loop of a C future. */
static PyObject *get_future_loop(PyObject *Py_UNUSED(module), PyObject *address) {
    casync_future *future;
    return parse_address(address, &future) ? Py_XNewRef((PyObject *)future_loop(future)) : NULL;
}

/* _watch_future(address, callback): calls it once the future is done. */
static PyObject *loop_watch_future(loop *self, PyObject *const *args, Py_ssize_t count) {
    LOCK_LOOP(self);
    casync_future *future;
    handle *h;
    int64_t result;
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "_watch_future() takes 2 arguments (%zd given)",
                            count);
    if (!parse_address(args[0], &future)) return NULL;
    h = handle_new(self, HANDLE_PLAIN, args[1], NULL, 0, NULL);
    if (h == NULL) return NULL;
    result = casync_future_add_done_callback(future, &h->job, handle_run, h);
    if (result < 0) {
        Py_DECREF(h);
        return raise_os_error(result);
    }
    return Py_NewRef((PyObject *)h);
}

static PyObject *loop_cancel_future(loop *self, PyObject *address) {
    LOCK_LOOP(self);
    casync_future *future;
    if (!parse_address(address, &future)) return NULL;
    return PyLong_FromLongLong(casync_future_cancel(future));
}

/* _end_future(address, result): nothing happens if it is done. */
static PyObject *loop_end_future(loop *self, PyObject *args) {
    LOCK_LOOP(self);
    casync_future *future;
    long long result;
    if (!PyArg_ParseTuple(args, "O&L:_end_future", parse_address, &future, &result)) return NULL;
    (void)casync_future_set_result(future, result, NULL);
    Py_RETURN_NONE;
}

/* _future_result(address): the result of a future that is done, None if it was cancelled; or
   raises. */
static PyObject *loop_future_result(loop *self, PyObject *address) {
    LOCK_LOOP(self);
    casync_future *future;
    int64_t result;
    if (!parse_address(address, &future)) return NULL;
    result = casync_future_result(future);
    if (future->state == CASYNC_FUTURE_CANCELLED) Py_RETURN_NONE;
    return result < 0 ? raise_os_error(result) : PyLong_FromLongLong(result);
}

/* casync.futures.name(object, address of the future), or without an object if it is NULL. */
static PyObject *call_futures(const char *name, PyObject *object, casync_future *future) {
    PyObject *function = import_attribute("casync.futures", name),
             *address = PyLong_FromVoidPtr(future);
    PyObject *result = NULL;
    if (function != NULL && address != NULL)
        result = object == NULL ? PyObject_CallOneArg(function, address)
                                : PyObject_CallFunctionObjArgs(function, object, address, NULL);
    Py_XDECREF(function);
    Py_XDECREF(address);
    return result;
}

/* For other extension modules: see casync_import.h. */
static PyObject *casync_python_wrap_future(casync_future *future) {
    return call_futures("wrap_future", NULL, future);
}

static int casync_python_chain_future(PyObject *awaitable, casync_future *future) {
    PyObject *result = call_futures("chain_future", awaitable, future);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}
