/* The module: what it takes from asyncio, and its types.

   Idea: multi-phase initialisation with a state of its own for each interpreter; types are heap
   types, which lead from an object to that state.

   Invariants: the state is whole as long as the module is there: the collector may find the module
   and its types in garbage together with loops and transports, whose ends need it. So m_clear does
   nothing; it is the types that end their cycles with the module. A loop holds the module beside
   its type, which may have let go of it by then. */

/* As asyncio's of this version. */
#if PY_VERSION_HEX >= 0x030E0000
#define CREATE_TASK_SIGNATURE "create_task($self, coro, **kwargs)"
#elif PY_VERSION_HEX >= 0x030D0300
#define CREATE_TASK_SIGNATURE "create_task($self, coro, *, name=None, context=None, **kwargs)"
#elif PY_VERSION_HEX >= 0x030B0000
#define CREATE_TASK_SIGNATURE "create_task($self, coro, *, name=None, context=None)"
#else
#define CREATE_TASK_SIGNATURE "create_task($self, coro, *, name=None)"
#endif

static PyMethodDef loop_methods[] = {
    {"call_soon", FASTCALL(loop_call_soon), METH_FASTCALL | METH_KEYWORDS,
     "call_soon($self, callback, *args, context=None)\n--\n\nQueues callback(*args) for the "
     "loop's next turn, and returns an asyncio.Handle, which can cancel the call. The loop "
     "runs callbacks in the order in which they were queued. It runs this one in `context`, "
     "by default a copy of the caller's (PEP 567). Call this in the loop's thread; other "
     "threads use call_soon_threadsafe(). Raises RuntimeError if the loop is closed; in "
     "debug mode also in another thread (Lib/asyncio/base_events.py)."},
    {"call_soon_threadsafe", FASTCALL(loop_call_soon_threadsafe), METH_FASTCALL | METH_KEYWORDS,
     "call_soon_threadsafe($self, callback, *args, context=None)\n--\n\nDoes what "
     "call_soon() does, and wakes the loop if it waits. Any thread may call it. Raises "
     "RuntimeError if the loop is closed."},
    {"call_later", FASTCALL(loop_call_later), METH_FASTCALL | METH_KEYWORDS,
     "call_later($self, delay, callback, *args, context=None)\n--\n\nCalls callback(*args) "
     "once, `delay` seconds from now, never earlier, and returns an asyncio.TimerHandle, "
     "which can cancel the call. Calls that are due at the same time run in the order in "
     "which they were made. `context` is that of call_soon(). Call this in the loop's "
     "thread. Raises TypeError if `delay` is not a number, and RuntimeError if the loop is "
     "closed."},
    {"call_at", FASTCALL(loop_call_at), METH_FASTCALL | METH_KEYWORDS,
     "call_at($self, when, callback, *args, context=None)\n--\n\nDoes what call_later() "
     "does, at the time `when`, in seconds as time() tells them."},
    {"time", (PyCFunction)loop_time, METH_NOARGS,
     "time($self)\n--\n\nReturns the loop's time in seconds, as a float. It is "
     "CLOCK_MONOTONIC, except on a loop with virtual time. Any thread may call it."},
    {"create_future", (PyCFunction)loop_create_future, METH_NOARGS,
     "create_future($self)\n--\n\nReturns a new asyncio.Future of this loop. Call this in "
     "the loop's thread."},
    {"create_task", FASTCALL(loop_create_task), METH_FASTCALL | METH_KEYWORDS,
     CREATE_TASK_SIGNATURE
     "\n--\n\nSchedules a coroutine as a task, and returns the task. Keep a reference to it "
     "until it is done. Call this in the loop's thread. Raises RuntimeError if the loop is "
     "closed."},
    {"is_closed", (PyCFunction)loop_is_closed, METH_NOARGS,
     "is_closed($self)\n--\n\nReturns whether the loop was closed."},
    {"is_running", (PyCFunction)loop_is_running, METH_NOARGS,
     "is_running($self)\n--\n\nReturns whether the loop runs."},
    {"get_debug", (PyCFunction)loop_get_debug, METH_NOARGS,
     "get_debug($self)\n--\n\nReturns whether the loop is in debug mode."},
    {"metrics", (PyCFunction)loop_metrics, METH_NOARGS,
     "metrics($self)\n--\n\nReturns a dict of numbers.\n\nThese count since the loop was "
     "made. `turns` is the number of the loop's turns. `polls` is the number of turns that "
     "asked the kernel; after 16 polls in a row that found nothing, some turns with "
     "callbacks ready do not. `events` is the number of times that a descriptor was found "
     "ready. `callbacks` is the number of callbacks that ran.\n\nThese are in seconds. They "
     "are 0.0 unless the loop was made with metrics=True. `idle_time` was spent waiting, "
     "`busy_time` in callbacks. `longest_turn` is the longest time that the callbacks of one "
     "turn took; a callback may have been that late.\n\nThese tell what there is now. "
     "`ready` is the number of callbacks that wait to run, `timers` that of timers, "
     "`watchers` that of watched descriptors, `transports` and `servers` those of open ones. "
     "`unsent_bytes` is the number of bytes that the transports have not sent yet.\n\nThe "
     "call walks over all of these objects. Call it in the loop's thread. After close() all "
     "numbers are 0."},
    {"_use_virtual_time", (PyCFunction)loop_use_virtual_time, METH_O, NULL},
    {"_deadlocked", (PyCFunction)loop_was_deadlocked, METH_NOARGS, NULL},
    {"_check_closed", (PyCFunction)loop_check_closed, METH_NOARGS, NULL},
    {"_run", (PyCFunction)loop_run, METH_NOARGS, NULL},
    {"_poll", (PyCFunction)loop_poll, METH_O, NULL},
    {"_run_ready", (PyCFunction)loop_run_ready, METH_NOARGS, NULL},
    {"_take_ready", (PyCFunction)loop_take_ready, METH_NOARGS, NULL},
    {"_close", (PyCFunction)loop_close, METH_NOARGS, NULL},
    {"_queued", (PyCFunction)loop_queued, METH_NOARGS, NULL},
    {"_watched", (PyCFunction)loop_watched, METH_O, NULL},
    {"_descriptors", (PyCFunction)loop_descriptors, METH_NOARGS, NULL},
    {"_enqueue", FASTCALL(loop_enqueue), METH_FASTCALL, NULL},
    {"_enqueue_at", FASTCALL(loop_enqueue_at), METH_FASTCALL, NULL},
    {"_write_to_self", (PyCFunction)loop_write_to_self, METH_NOARGS, NULL},
#if PY_VERSION_HEX < 0x030B0000 /* else they are among sock_methods: see sock.c */
    {"sock_recvfrom", FASTCALL(loop_sock_recvfrom), METH_FASTCALL | METH_KEYWORDS,
     "sock_recvfrom($self, sock, bufsize)\n--\n\nWaits for a datagram of at most `bufsize` "
     "bytes, and returns (bytes, address). Raises OSError."},
    {"sock_recvfrom_into", FASTCALL(loop_sock_recvfrom_into), METH_FASTCALL | METH_KEYWORDS,
     "sock_recvfrom_into($self, sock, buf, nbytes=0)\n--\n\nWaits for a datagram, writes it "
     "into `buf`, and returns (size, address). Raises OSError."},
    {"sock_sendto", FASTCALL(loop_sock_sendto), METH_FASTCALL | METH_KEYWORDS,
     "sock_sendto($self, sock, data, address)\n--\n\nSends a datagram, and returns the "
     "number of bytes that were sent. Raises OSError."},
#endif
    {"_add_reader", FASTCALL(loop_add_reader), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_add_writer", FASTCALL(loop_add_writer), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_remove_reader", (PyCFunction)loop_remove_reader, METH_O, NULL},
    {"_remove_writer", (PyCFunction)loop_remove_writer, METH_O, NULL},
    {"_watch_future", FASTCALL(loop_watch_future), METH_FASTCALL, NULL},
    {"_cancel_future", (PyCFunction)loop_cancel_future, METH_O, NULL},
    {"_end_future", (PyCFunction)loop_end_future, METH_VARARGS, NULL},
    {"_future_result", (PyCFunction)loop_future_result, METH_O, NULL},
    {"_ensure_fd_no_transport", (PyCFunction)loop_ensure_fd_no_transport, METH_O, NULL},
    {"_make_socket_transport", FASTCALL(loop_make_socket_transport), METH_VARARGS | METH_KEYWORDS,
     NULL},
    {"_make_datagram_transport", FASTCALL(loop_make_datagram_transport),
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"_make_read_pipe_transport", FASTCALL(loop_make_read_pipe_transport),
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"_make_write_pipe_transport", FASTCALL(loop_make_write_pipe_transport),
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"_start_serving", FASTCALL(loop_start_serving), METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, "This class is the native half of casync.EventLoop."},
    {Py_tp_new, loop_new},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_methods, loop_methods},
    {Py_tp_getset, loop_getsets},
    {Py_tp_setattro, loop_setattro},
    {0, NULL},
};

static PyType_Spec loop_spec = {"casync._native.Loop", sizeof(loop), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                                loop_slots};

static struct PyModuleDef native_module;

#if PY_VERSION_HEX >= 0x030B0000

static PyObject *find_module(PyTypeObject *type) {
    return PyType_GetModuleByDef(type, &native_module);
}

#else

static PyObject *find_module(PyTypeObject *type) {
    PyObject *mro = type->tp_mro;
    for (Py_ssize_t i = 0; mro != NULL && i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
        PyObject *module = NULL;
        if (PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE)) module = PyType_GetModule(base);
        if (module != NULL && PyModule_GetDef(module) == &native_module) return module;
        if (module == NULL) forget_exception(PyExc_TypeError, (PyObject *)base); /* it has none */
    }
    PyErr_Format(PyExc_TypeError, "%s does not derive from casync's Loop", type->tp_name);
    return NULL;
}

#endif

static state *find_state(PyTypeObject *type) {
    PyObject *module = find_module(type);
    return module == NULL ? NULL : (state *)PyModule_GetState(module);
}

/* What is imported of asyncio and its like, and where a state keeps it. */
static const struct {
    size_t offset;
    const char *module, *path;
} wanted_imports[] = {
    {offsetof(state, asyncio_handle), "asyncio.events", "Handle"},
    {offsetof(state, asyncio_timer_handle), "asyncio.events", "TimerHandle"},
    {offsetof(state, asyncio_threadsafe_handle), "asyncio.events",
     PY_VERSION_HEX >= 0x030E0000 ? "_ThreadSafeHandle" : "Handle"},
    {offsetof(state, futures), "asyncio.futures", "__dict__"},
    {offsetof(state, tasks), "asyncio.tasks", "__dict__"},
    {offsetof(state, events), "asyncio.events", "__dict__"},
    {offsetof(state, base_call_soon), "asyncio.base_events", "BaseEventLoop.call_soon"},
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX < 0x030E0000
    {offsetof(state, base_call_soon_threadsafe), "casync.compat", "call_soon_threadsafe"},
#else
    {offsetof(state, base_call_soon_threadsafe), "asyncio.base_events",
     "BaseEventLoop.call_soon_threadsafe"},
#endif
    {offsetof(state, base_create_task), "asyncio.base_events", "BaseEventLoop.create_task"},
    {offsetof(state, base_call_later), "asyncio.base_events", "BaseEventLoop.call_later"},
    {offsetof(state, base_call_at), "asyncio.base_events", "BaseEventLoop.call_at"},
    {offsetof(state, base_make_socket_transport), "asyncio.selector_events",
     "BaseSelectorEventLoop._make_socket_transport"},
    {offsetof(state, base_ensure_fd_no_transport), "asyncio.selector_events",
     "BaseSelectorEventLoop._ensure_fd_no_transport"},
    {offsetof(state, base_make_datagram_transport), "asyncio.selector_events",
     "BaseSelectorEventLoop._make_datagram_transport"},
    {offsetof(state, base_make_pipe_transport[0]), "asyncio.unix_events",
     "_UnixSelectorEventLoop._make_read_pipe_transport"},
    {offsetof(state, base_make_pipe_transport[1]), "asyncio.unix_events",
     "_UnixSelectorEventLoop._make_write_pipe_transport"},
    {offsetof(state, asyncio_reader), "asyncio.streams", "StreamReader"},
    {offsetof(state, asyncio_reader_protocol), "asyncio.streams", "StreamReaderProtocol"},
    {offsetof(state, reader_functions[READ_SOME]), "asyncio.streams", "StreamReader.read"},
    {offsetof(state, reader_functions[READ_EXACTLY]), "asyncio.streams",
     "StreamReader.readexactly"},
    {offsetof(state, reader_functions[READ_UNTIL]), "asyncio.streams", "StreamReader.readuntil"},
    {offsetof(state, reader_functions[READ_LINE]), "asyncio.streams", "StreamReader.readline"},
    {offsetof(state, asyncio_writer), "asyncio.streams", "StreamWriter"},
    {offsetof(state, writer_write), "asyncio.streams", "StreamWriter.write"},
    {offsetof(state, writer_drain), "asyncio.streams", "StreamWriter.drain"},
    {offsetof(state, reader_feed_data), "asyncio.streams", "StreamReader.feed_data"},
    {offsetof(state, reader_wait_for_data), "asyncio.streams", "StreamReader._wait_for_data"},
    {offsetof(state, reader_exception), "asyncio.streams", "StreamReader.exception"},
    {offsetof(state, reader_maybe_resume), "asyncio.streams",
     "StreamReader._maybe_resume_transport"},
    {offsetof(state, protocol_drain_helper), "asyncio.streams",
     "StreamReaderProtocol._drain_helper"},
    {offsetof(state, protocol_data_received), "asyncio.streams",
     "StreamReaderProtocol.data_received"},
    {offsetof(state, incomplete_read_error), "asyncio.exceptions", "IncompleteReadError"},
    {offsetof(state, limit_overrun_error), "asyncio.exceptions", "LimitOverrunError"},
    {offsetof(state, asyncio_server), "asyncio.base_events", "Server"},
    {offsetof(state, format_callback_source), "asyncio.format_helpers", "_format_callback_source"},
    {offsetof(state, buffered_protocol), "asyncio.protocols", "BufferedProtocol"},
    {offsetof(state, transport_socket), "asyncio.trsock", "TransportSocket"},
    {offsetof(state, socket_type), "socket", "socket"},
    {offsetof(state, socket_recv), "socket", "socket.recv"},
    {offsetof(state, socket_recv_into), "socket", "socket.recv_into"},
    {offsetof(state, socket_send), "socket", "socket.send"},
    {offsetof(state, check_ssl_socket), "asyncio.base_events", "_check_ssl_socket"},
    {offsetof(state, invalid_state_error), "asyncio.exceptions", "InvalidStateError"},
};

static int import_asyncio(state *st) {
    for (size_t i = 0; i < sizeof wanted_imports / sizeof *wanted_imports; i++) {
        PyObject **slot = (PyObject **)(void *)((char *)st + wanted_imports[i].offset);
        *slot = import_attribute(wanted_imports[i].module, wanted_imports[i].path);
        if (*slot == NULL) return -1;
    }
    st->attach_takes_transport =
        PyObject_HasAttrString(st->asyncio_server, "close_clients"); /* both came with 3.13 */
    return 0;
}

/* The attributes that a turn is made of. */
static PyObject *make_turn_names(PyObject *const *names) {
    PyObject *tuple =
        PyTuple_Pack(6, names[NAME_TIME], names[NAME_CALL_AT], names[NAME_CALL_SOON],
                     names[NAME_ADD_CALLBACK], names[NAME_RUN_ONCE], names[NAME_PROCESS_EVENTS]);
    PyObject *set = tuple == NULL ? NULL : PyFrozenSet_New(tuple);
    Py_XDECREF(tuple);
    return set;
}

static int make_names(state *st) {
    PyObject *const *names = st->names;
    for (int i = 0; i < NAME_COUNT; i++) {
        st->names[i] = PyUnicode_InternFromString(name_texts[i]);
        if (st->names[i] == NULL) return -1;
    }
    st->no_args = PyTuple_New(0);
    st->task_keywords[0] = PyTuple_Pack(2, names[NAME_LOOP], names[NAME_NAME]);
    st->task_keywords[1] = PyTuple_Pack(3, names[NAME_LOOP], names[NAME_NAME], names[NAME_CONTEXT]);
    st->context_keyword = PyTuple_Pack(1, names[NAME_CONTEXT]);
    st->turn_names = make_turn_names(names);
    return st->no_args == NULL || st->task_keywords[0] == NULL || st->task_keywords[1] == NULL ||
                   st->context_keyword == NULL || st->turn_names == NULL
               ? -1
               : 0;
}

/* bases: a type, a tuple of types, or NULL */
static int add_type(PyObject *module, PyTypeObject **slot, PyType_Spec *spec, PyObject *bases) {
    *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, bases);
    if (*slot == NULL) return -1;
    share_type(*slot);
    return PyModule_AddType(module, *slot);
}

/* They derive from what asyncio's derive from. */
static int add_transport_type(PyObject *module, PyTypeObject **slot, PyType_Spec *spec,
                              const char *public_class, bool writes) {
    PyObject *bases = transport_bases(public_class, writes);
    int result = bases == NULL ? -1 : add_type(module, slot, spec, bases);
    Py_XDECREF(bases);
    return result;
}

/* What asyncio's code asks the type of stream transports. */
static int mark_compatible(PyObject *type) {
    PyObject *mode = import_attribute("asyncio.constants", "_SendfileMode.TRY_NATIVE");
    int result = mode == NULL ? -1 : PyObject_SetAttrString(type, "_sendfile_compatible", mode);
    Py_XDECREF(mode);
    return result < 0 ? -1 : PyObject_SetAttrString(type, "_start_tls_compatible", Py_True);
}

static int add_transport_types(PyObject *module, state *st) {
    PyTypeObject **types = st->transport_types;
    if (add_transport_type(module, &types[TRANSPORT_SOCKET], &socket_transport_spec, "Transport",
                           true) < 0 ||
        add_transport_type(module, &types[TRANSPORT_DATAGRAM], &datagram_spec, "DatagramTransport",
                           true) < 0 ||
        add_transport_type(module, &types[TRANSPORT_READ_PIPE], &read_pipe_spec, "ReadTransport",
                           false) < 0 ||
        add_transport_type(module, &types[TRANSPORT_WRITE_PIPE], &write_pipe_spec, "WriteTransport",
                           true) < 0)
        return -1;
    return mark_compatible((PyObject *)types[TRANSPORT_SOCKET]);
}

/* Without them casync/tls.py takes asyncio's own SSLProtocol. That of 3.10 is of another kind: it
   stays as it is, as there would be little to share. */
static int add_tls_types(PyObject *module, state *st) {
    if (PY_VERSION_HEX < 0x030B0000) return 0;
    if (import_sslproto(st) < 0) /* Python was built without ssl, or has other names there */
        return clear_exception(PyExc_ImportError) || clear_exception(PyExc_AttributeError) ? 0 : -1;
    if (add_type(module, &st->tls_type, &tls_spec, NULL) < 0) return -1;
    return add_type(module, &st->tls_transport_type, &tls_transport_spec, NULL);
}

/* For other extension modules, by the table that build_native.py makes: see casync_import.h. */
static casync_loop *casync_python_loop(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    state *st = PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) ? find_state(type) : NULL;
    if (st != NULL && PyObject_TypeCheck(object, st->loop_type)) return &((loop *)object)->casync;
    if (PyErr_Occurred() && !clear_exception(PyExc_TypeError)) return NULL;
    PyErr_Format(PyExc_TypeError, "%s is no casync.EventLoop", type->tp_name);
    return NULL;
}

static int add_function_table(PyObject *module) {
    PyObject *capsule =
        PyCapsule_New((void *)(uintptr_t)&function_table, "casync._functions", NULL);
    int result = capsule == NULL ? -1 : PyModule_AddObjectRef(module, "_functions", capsule);
    Py_XDECREF(capsule);
    return result;
}

static int add_all_methods(state *st) {
    PyObject *loop = import_attribute("asyncio.selector_events", "BaseSelectorEventLoop");
    int result =
        loop == NULL ? -1 : add_methods(st, st->loop_type, sock_methods, loop, WATCHED_NONE);
    Py_XDECREF(loop);
    if (result < 0) return -1;
    if (add_methods(st, st->stream_type, stream_methods, st->asyncio_reader, WATCHED_READER) < 0)
        return -1;
    return add_methods(st, st->writer_type, writer_methods, st->asyncio_writer, WATCHED_TRANSPORT);
}

static int native_exec(PyObject *module) {
    state *st = (state *)PyModule_GetState(module);
    if (add_function_table(module) < 0) return -1;
    if (make_names(st) < 0 || PyModule_AddObjectRef(module, "_turn_names", st->turn_names) < 0 ||
        import_asyncio(st) < 0 || probe_cpython(st) < 0)
        return -1;
    if (add_type(module, &st->loop_type, &loop_spec, NULL) < 0) return -1;
    if (add_type(module, &st->method_type, &method_spec, NULL) < 0) return -1;
    if (add_type(module, &st->handle_type, &handle_spec, NULL) < 0) return -1;
    if (add_type(module, &st->timer_type, &timer_spec, NULL) < 0) return -1;
    if (add_type(module, &st->operation_type, &operation_spec, NULL) < 0) return -1;
    if (add_type(module, &st->drain_type, &drain_spec, NULL) < 0) return -1;
    if (add_type(module, &st->reader_type, &reader_spec, NULL) < 0) return -1;
    if (add_type(module, &st->released_type, &released_spec, st->asyncio_reader) < 0) return -1;
    if (add_type(module, &st->stream_type, &stream_spec, (PyObject *)st->released_type) < 0)
        return -1;
    if (add_type(module, &st->writer_type, &writer_spec, st->asyncio_writer) < 0) return -1;
    if (add_type(module, &st->clients_type, &clients_spec, NULL) < 0) return -1;
    if (add_type(module, &st->sock_operation_type, &sock_spec, NULL) < 0) return -1;
    st->sock_ready = PyCFunction_New(&sock_ready_method, NULL);
    if (st->sock_ready == NULL) return -1;
    st->future_type = import_attribute("_asyncio", "Future");
    if (st->future_type == NULL && !clear_exception(PyExc_ImportError) &&
        !clear_exception(PyExc_AttributeError))
        return -1;
    if (add_tls_types(module, st) < 0) return -1;
    st->newline = PyBytes_FromString("\n");
    if (st->newline == NULL) return -1;
    return add_transport_types(module, st) < 0 || add_all_methods(st) < 0 ? -1 : watch_classes(st);
}

static int native_traverse(PyObject *module, visitproc visit, void *arg) {
    PyObject **references = (PyObject **)PyModule_GetState(module);
    for (size_t i = 0; references != NULL && i < STATE_REFERENCES; i++) Py_VISIT(references[i]);
    return 0;
}

static void native_free(void *module) {
    state *st = (state *)PyModule_GetState((PyObject *)module);
    PyObject **references = (PyObject **)st;
    if (st == NULL) return;
    free_spare_handles(st);
    free_spare_awaitables(st);
    for (size_t i = 0; i < STATE_REFERENCES; i++) Py_CLEAR(references[i]);
}

static PyModuleDef_Slot native_slots[] = {
    {Py_mod_exec, native_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef CASYNC_FREE_THREADED /* see build_native.py */
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyMethodDef native_functions[] = {
    {"_future_loop", get_future_loop, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef native_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "casync._native",
    .m_doc = "This module has the parts of casync.EventLoop that are written in C, over casync.h.",
    .m_size = sizeof(state),
    .m_methods = native_functions,
    .m_slots = native_slots,
    .m_traverse = native_traverse,
    .m_free = native_free,
};

PyMODINIT_FUNC PyInit__native(void);
PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&native_module); }
