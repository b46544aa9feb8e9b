/* casync._native: the hot path of casync.EventLoop, as glue over casync.h.

   Idea: the loop, its handles and its transports are Python objects that embed casync.h's own
   structs: a Loop a casync_loop, a Handle a casync_job, a TimerHandle a casync_timer, a transport a
   casync_stream. casync.h queues, sorts, polls and buffers; what is here turns its callbacks into
   Python calls and Python calls into its functions. What asyncio already does well in Python (and
   differently in each version) is inherited there: casync/loop.py.

   Invariants: whoever touches a casync_loop holds the GIL, which is dropped around the waiting
   system call alone (loop.c), so other threads may queue calls directly. Where there is no GIL, the
   loop has a lock in its place (lock.c). The glue calls casync.h's public functions. Of what is
   private there it uses lists, takes what was posted before its time, and asks whether a loop is a
   forked one and (is_drained) what the kernel watches. Nothing here is global but what a thread
   knows of itself: each interpreter's module has a `state`. No exception stays set while casync.h
   runs: one that must end the run waits in loop->error.

   The rule of what is borrowed. A call into Python may do anything: end the connection, close the
   loop, run it (nest_asyncio), cancel the handle, replace the attribute. Such a call is every one
   of a method or a callback, every look-up of an attribute of a foreign object, comparison, truth,
   length, iteration, number or buffer that such an object gives (and takes back), every report;
   every DECREF of what may be foreign, and every new object that the collector is shown (before
   Python 3.12 it may run there). So:
   - Nothing borrowed crosses it. What is in a struct and used in the call, or after it, is held
     before it: the transport and its loop by every callback of a stream (transport_hold), the
     protocol, context, buffer, waiter, socket by a reference of their own. (The arguments of a
     method, and its self, the caller holds; what a running operation has, nobody takes away: see
     awaitable.c; so it is with a running handle.)
   - A sequence from outside is copied (copy_sequence) before it is walked. A list of the loop's own
     that is walked with such calls in between is collected first, or looked through anew after
     each.
   - After it nothing is known that was looked up before: is the stream open, is there a loop, is
     this still the watch of that descriptor? It is asked again, or the callee's struct is not
     touched.
   - What ends something first takes it out of its struct, then lets go of it, so that whoever comes
     there meanwhile finds the end, not a half of it.
   - Memory of casync.h or of a caller's buffer is shown only to code of CPython's own that is known
     to keep nothing (the BIO and the connection of the module _ssl). Others get a copy. And what
     casync.h refers to until it is sent are exact bytes objects, whose end runs no code.
   - An object that dies gives nobody a reference to itself (loop->dying).

   Read on in: private_cpython.c, lock.c, handle.c, loop.c and loop_life.c, watcher.c, future.c,
   addresses.c, transport.c and those that begin with transport_, pipe.c, datagram.c,
   awaitable.c, method.c, streams.c and those that begin with streams_, sock.c, tls.c and
   tls_tables.c, server.c, module.c. */
#include <Python.h>
#include <frameobject.h>
#include <structmember.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define INLINE_ARGS 3 /* of a callback; more go into a tuple */

/* Freed contexts, handles (of each type) and awaitables that are kept for reuse: none without a GIL
   (see lock.c). */
#ifdef Py_GIL_DISABLED
#define SPARE_CONTEXTS 0
#define SPARE_HANDLES 0
#define SPARE_AWAITABLES 0
#else
#define SPARE_CONTEXTS 1
#define SPARE_HANDLES 32768
#define SPARE_AWAITABLES 16
#endif

/* Reads of BULK_BEGIN bytes or more make those that follow go to a bytes object of BULK_SIZE (as
   long as casync.h's own buffer: below malloc's threshold for mmap), until one brings less than
   BULK_END. */
#define BULK_SIZE CASYNC_READ_SIZE
#define BULK_BEGIN 65536
#define BULK_END 32768

/* bytearray.take_bytes (Python 3.15) gives bytes without a copy. For fewer the call costs more than
   that: 1 % of what a read of 100 executes; 8 % less with 4 KiB; 40 % of the time with 64. */
#define TAKE_SIZE (PY_VERSION_HEX < 0x030F0000 ? PY_SSIZE_T_MAX : 4096)

/* Interned names: NAME_CONTEXT is "context", and so on. (A name that is made for one look-up costs
   more than that: CPython's cache of type attributes, which all code shares, keeps an entry for
   each.) The four from NAME_READ on are in the order of streams.c's enum read_kind, and the eight
   from NAME_READER_BUFFER on are the attributes of a StreamReader. */
#define NAMES(X)                                                                                   \
    X(CONTEXT, "context")                                                                          \
    X(LOOP, "loop")                                                                                \
    X(NAME, "name")                                                                                \
    X(MESSAGE, "message")                                                                          \
    X(EXCEPTION, "exception")                                                                      \
    X(HANDLE, "handle")                                                                            \
    X(TRANSPORT, "transport")                                                                      \
    X(PROTOCOL, "protocol")                                                                        \
    X(SOCKET, "socket")                                                                            \
    X(PIPE, "pipe")                                                                                \
    X(SOCKNAME, "sockname")                                                                        \
    X(PEERNAME, "peername")                                                                        \
    X(CALL_EXCEPTION_HANDLER, "call_exception_handler")                                            \
    X(CALL_AT_PYTHON, "_call_at_python")                                                           \
    X(PYTHON_READER, "_python_reader")                                                             \
    X(PYTHON_WRITER, "_python_writer")                                                             \
    X(PYTHON_CALL, "_python_call")                                                                 \
    X(SERVE, "_serve")                                                                             \
    X(CONNECTION_MADE, "connection_made")                                                          \
    X(DATA_RECEIVED, "data_received")                                                              \
    X(DATAGRAM_RECEIVED, "datagram_received")                                                      \
    X(ERROR_RECEIVED, "error_received")                                                            \
    X(GET_BUFFER, "get_buffer")                                                                    \
    X(BUFFER_UPDATED, "buffer_updated")                                                            \
    X(EOF_RECEIVED, "eof_received")                                                                \
    X(CONNECTION_LOST, "connection_lost")                                                          \
    X(PAUSE_WRITING, "pause_writing")                                                              \
    X(RESUME_WRITING, "resume_writing")                                                            \
    X(TELL_EOF, "_tell_eof")                                                                       \
    X(START, "_start")                                                                             \
    X(ATTACH, "_attach")                                                                           \
    X(DETACH, "_detach")                                                                           \
    X(CLOSE, "close")                                                                              \
    X(NATIVE, "_native")                                                                           \
    X(CLIENT_CONNECTED, "_client_connected_cb")                                                    \
    X(WRITE, "write")                                                                              \
    X(PAUSE_READING, "pause_reading")                                                              \
    X(RESUME_READING, "resume_reading")                                                            \
    X(SSLOBJ, "_sslobj")                                                                           \
    X(SSL_PROTOCOL, "_ssl_protocol")                                                               \
    X(DO_READ, "_do_read")                                                                         \
    X(DO_HANDSHAKE, "_do_handshake")                                                               \
    X(DO_FLUSH, "_do_flush")                                                                       \
    X(DO_SHUTDOWN, "_do_shutdown")                                                                 \
    X(CALL_EOF_RECEIVED, "_call_eof_received")                                                     \
    X(START_SHUTDOWN, "_start_shutdown")                                                           \
    X(FATAL_ERROR, "_fatal_error")                                                                 \
    X(CONTROL_APP_WRITING, "_control_app_writing")                                                 \
    X(CONTROL_SSL_READING, "_control_ssl_reading")                                                 \
    X(PYTHON_DO_READ, "_python_do_read")                                                           \
    X(PYTHON_WRITE_APPDATA, "_python_write_appdata")                                               \
    X(PENDING, "pending")                                                                          \
    X(APPEND, "append")                                                                            \
    X(SETBLOCKING, "setblocking")                                                                  \
    X(SET_RESULT, "set_result")                                                                    \
    X(SET_EXCEPTION, "set_exception")                                                              \
    X(DONE, "done")                                                                                \
    X(FUTURE, "Future")                                                                            \
    X(TASK, "Task")                                                                                \
    X(RUN, "_run")                                                                                 \
    X(LOOK_FOR_PATCHES, "_look_for_patches")                                                       \
    X(USE_ASYNCIO_TURNS, "_use_asyncio_turns")                                                     \
    X(CALL_BY_KEYWORD, "_call_by_keyword")                                                         \
    X(TIME, "time")                                                                                \
    X(CALL_AT, "call_at")                                                                          \
    X(CALL_SOON, "_call_soon")                                                                     \
    X(ADD_CALLBACK, "_add_callback")                                                               \
    X(RUN_ONCE, "_run_once")                                                                       \
    X(PROCESS_EVENTS, "_process_events")                                                           \
    X(FILENO, "fileno")                                                                            \
    X(GETTIMEOUT, "gettimeout")                                                                    \
    X(GETSOCKOPT, "getsockopt")                                                                    \
    X(GETSOCKNAME, "getsockname")                                                                  \
    X(GETPEERNAME, "getpeername")                                                                  \
    X(DETACH_SOCKET, "detach")                                                                     \
    X(FAMILY, "family")                                                                            \
    X(TYPE, "type")                                                                                \
    X(PROTO, "proto")                                                                              \
    X(ERRNO, "errno")                                                                              \
    X(ENSURE_RESOLVED, "_ensure_resolved")                                                         \
    X(AWAIT, "__await__")                                                                          \
    X(CALL_SOON_PYTHON, "call_soon")                                                               \
    X(CONTEXT_RUN, "run")                                                                          \
    X(CANCEL, "cancel")                                                                            \
    X(CAST, "cast")                                                                                \
    X(GET, "get")                                                                                  \
    X(RECV, "recv")                                                                                \
    X(RECV_INTO, "recv_into")                                                                      \
    X(RECVFROM, "recvfrom")                                                                        \
    X(RECVFROM_INTO, "recvfrom_into")                                                              \
    X(SEND, "send")                                                                                \
    X(SENDTO, "sendto")                                                                            \
    X(ACCEPT, "accept")                                                                            \
    X(CONNECT, "connect")                                                                          \
    X(READ, "read")                                                                                \
    X(READEXACTLY, "readexactly")                                                                  \
    X(READUNTIL, "readuntil")                                                                      \
    X(READLINE, "readline")                                                                        \
    X(READER_BUFFER, "_buffer")                                                                    \
    X(READER_WAITER, "_waiter")                                                                    \
    X(READER_EXCEPTION, "_exception")                                                              \
    X(READER_TRANSPORT, "_transport")                                                              \
    X(READER_LOOP, "_loop")                                                                        \
    X(READER_LIMIT, "_limit")                                                                      \
    X(READER_EOF, "_eof")                                                                          \
    X(READER_PAUSED, "_paused")                                                                    \
    X(TAKE_BYTES, "take_bytes")                                                                    \
    X(FEED_DATA, "feed_data")                                                                      \
    X(WAIT_FOR_DATA, "_wait_for_data")                                                             \
    X(STREAM_READER_REFERENCE, "_stream_reader_wr")                                                \
    X(DRAIN, "drain")                                                                              \
    X(CLIENTS, "_clients")                                                                         \
    X(CLASS, "__class__")                                                                          \
    X(DICT, "__dict__")                                                                            \
    X(DOC, "__doc__")                                                                              \
    X(MODULE, "__module__")                                                                        \
    X(ANNOTATIONS, "__annotations__")                                                              \
    X(WRITER_PROTOCOL, "_protocol")                                                                \
    X(WRITER_READER, "_reader")                                                                    \
    X(MAYBE_RESUME, "_maybe_resume_transport")                                                     \
    X(DRAIN_HELPER, "_drain_helper")

/* A word that other threads read, or write, without a lock. */
#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#define STORE(word, value) __atomic_store_n(&(word), value, __ATOMIC_RELEASE)

#define FASTCALL(function) ((PyCFunction)(void (*)(void))(function))

#define ENUMERATE(name, text) NAME_##name,
enum name { NAMES(ENUMERATE) NAME_COUNT };

#define NAME_TEXT(name, text) text,
static const char *const name_texts[NAME_COUNT] = {NAMES(NAME_TEXT)};

/* Of method.c: classes that programs patch. */
enum watched_class {
    WATCHED_NONE = -1,
    WATCHED_READER,
    WATCHED_PROTOCOL,
    WATCHED_WRITER,
    WATCHED_TRANSPORT,
    WATCHED_CLASSES
};

/* What the module has of its own in each interpreter. */
typedef struct {
    /* References, for the collector to visit: */
    PyTypeObject *loop_type, *handle_type, *timer_type;
    PyTypeObject *transport_types[4]; /* by enum transport_kind */
    PyTypeObject *method_type;        /* see method.c */
    PyObject *kept_classes;           /* also */
    /* see streams.c */
    PyTypeObject *operation_type, *drain_type, *stream_type, *reader_type, *writer_type;
    PyTypeObject *released_type; /* also */
    /* see server.c */
    PyTypeObject *clients_type;
    PyTypeObject *sock_operation_type; /* see sock.c, and of it: */
    PyObject *sock_ready, *socket_recv, *socket_recv_into, *socket_send, *check_ssl_socket;
    PyObject *invalid_state_error;
    PyObject *no_args;                           /* () */
    PyTypeObject *tls_type, *tls_transport_type; /* see tls.c; NULL: this asyncio has not what
                                                    they need */
    PyObject *names[NAME_COUNT];
    PyObject *task_keywords[2];          /* ("loop", "name"), ("loop", "name", "context") */
    PyObject *context_keyword;           /* ("context",) */
    PyObject *asyncio_server;            /* asyncio.Server */
    PyObject *asyncio_handle;            /* asyncio.Handle: what a Handle's __class__ says */
    PyObject *asyncio_timer_handle;      /* asyncio.TimerHandle */
    PyObject *asyncio_threadsafe_handle; /* asyncio.events._ThreadSafeHandle; Handle before 3.14 */
    PyObject *futures, *tasks, *events;  /* the names in asyncio's modules, which programs may
                                           replace */
    PyObject *base_call_soon, *base_call_soon_threadsafe, *base_create_task; /* of BaseEventLoop */
    PyObject *base_call_later, *base_call_at;
    PyObject *turn_names; /* a frozenset: see EventLoop._look_for_patches */
    /* of BaseSelectorEventLoop */
    PyObject *base_make_socket_transport, *base_ensure_fd_no_transport;
    PyObject *base_make_datagram_transport;
    PyObject *base_make_pipe_transport[2];                  /* to read, to write */
    PyObject *asyncio_reader, *asyncio_reader_protocol;     /* StreamReader, StreamReaderProtocol */
    PyObject *reader_functions[4];                          /* by enum read_kind */
    PyObject *asyncio_writer, *writer_write, *writer_drain; /* StreamWriter */
    PyObject *reader_feed_data, *reader_wait_for_data, *reader_exception, *protocol_data_received;
    PyObject *reader_maybe_resume, *protocol_drain_helper;
    PyObject *incomplete_read_error, *limit_overrun_error;
    PyObject *newline;                                            /* b"\n" */
    PyObject *ssl_object_type, *ssl_again_errors, *tls_states[4]; /* by what tls.c enumerates */
    PyObject *ssl_connection_type, *memory_bio_type;              /* of the module _ssl */
    PyObject *future_type;                                        /* asyncio's in C, or NULL */
    PyObject *format_callback_source;
    PyObject *buffered_protocol, *transport_socket, *socket_type;
    PyObject *spare_context, *no_vars; /* see private_cpython.c */
    /* and the rest: */
    struct handle *spare_handles, *spare_timers; /* freed, without a reference to their type */
    uint32_t spare_handle_count, spare_timer_count;
    struct awaitable *spare_awaitables[3]; /* the same, by enum awaitable_type */
    uint32_t spare_awaitable_counts[3];
    uint32_t unpatched_version;  /* that of asyncio.TimerHandle when _run was asyncio's
                                          own; or 0 */
    bool attach_takes_transport; /* Server._attach(transport), since 3.13 */
    /* what private_cpython.c knows of this interpreter */
    bool knows_contexts, knows_versions, knows_methods, knows_sockets;
    int8_t closed_state;
    bool streams_own, streams_changed;      /* see method.c */
    PyTypeObject *watched[WATCHED_CLASSES]; /* borrowed; see method.c */
    unsigned versions[WATCHED_CLASSES];     /* of these, when they were looked at last */
#ifdef Py_GIL_DISABLED
    PyMutex looking; /* a thread is looking at them */
#endif
} state;

#define STATE_REFERENCES (offsetof(state, spare_handles) / sizeof(PyObject *))

typedef struct loop {
    PyObject ob_base;
    casync_loop casync;
    state *state;
    PyObject *module;       /* that has the state, and must outlive this; the collector is not
                               shown it */
    PyThreadState *waiting; /* while the GIL is dropped */
    PyObject *error;        /* the exception that ends this run */
    PyObject *thread_id;    /* BaseEventLoop._thread_id */
    PyObject *task_factory; /* BaseEventLoop._task_factory */
    PyObject *keywords;     /* {"loop": this}, for its futures and tasks; or NULL */
    bool stopping, closed, debug, observed;
    bool dying;                   /* it is being deallocated: nobody may get a reference */
    bool asyncio_turns;           /* its turns are BaseEventLoop._run_once's: see casync/loop.py */
    bool calls_python;            /* any of the three before: what is called goes through
                                     casync/loop.py */
    bool virtual_time;            /* its clock is a virtual one */
    bool deadlocked;              /* with it: nothing would ever have ended the last run */
    struct transport *transports; /* those that are open, each with a reference */
    struct running_call *calls;   /* of their protocols, which are running; the innermost first */
    casync_link taken;            /* a queue of handles that asyncio's turns run: see
                                     loop_take_ready */
    Py_buffer reading;            /* what a BufferedProtocol lent for the read that is going on */
    PyObject *bulk;               /* the bytes object that a bulk read goes to */
    struct watch **kept;          /* by descriptor, up to kept_size: see watcher.c */
    uint32_t kept_size;
    casync_link doubted; /* watches that may watch another file than their descriptor's: see
                            watcher.c */
    casync_hook doubts;  /* runs while there may be some */
    bool polled_in_vain; /* since a turn ago no event has ended one, and none has begun */
    char *received;      /* where sock_recv receives small messages, or NULL: see sock.c */
    bool receives_bulk;  /* the last one was no small one */
#ifdef Py_GIL_DISABLED
    PyObject *lock;   /* see lock.c, and of it: */
    bool running;     /* in any thread */
    uint32_t posting; /* threads that are posting to it */
    int64_t offered;  /* when other threads could last have the lock */
#endif
} loop;

static loop *loop_of(casync_loop *casync) {
    return (loop *)((char *)casync - offsetof(loop, casync));
}

/* The module, borrowed, and its state, for an instance of a type of ours or derived from one. */
static PyObject *find_module(PyTypeObject *type);
static state *find_state(PyTypeObject *type);

/* The exception that is set, as an object, and taken; NULL if none is. */
static PyObject *take_exception(void) {
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL) return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) PyException_SetTraceback(value, traceback);
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

/* Raises an exception object, whose reference is taken. */
static void raise_exception(PyObject *exception) {
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exception);
#else
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exception)), exception,
                  PyException_GetTraceback(exception));
#endif
}

/* Raises an object as a raise statement does: an exception, or a class of them. */
static void raise_object(PyObject *object) {
    if (PyExceptionInstance_Check(object))
        raise_exception(Py_NewRef(object));
    else if (PyExceptionClass_Check(object))
        PyErr_SetNone(object);
    else
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
}

/* An OSError, or the subclass its number asks for, for one of casync's errors. */
static PyObject *make_os_error(int64_t error) {
    return PyObject_CallFunction(PyExc_OSError, "is", (int)-error, casync_strerror(error));
}

/* Raises one of casync's errors; NULL, to return. */
static PyObject *raise_os_error(int64_t error) {
    PyObject *exception;
    if (error == -ENOMEM) return PyErr_NoMemory();
    exception = make_os_error(error);
    if (exception != NULL) raise_exception(exception);
    return NULL;
}

/* Is the exception one that ends the program, which asyncio lets through everywhere? */
static bool ends_program(PyObject *exception) {
    return PyErr_GivenExceptionMatches(exception, PyExc_SystemExit) ||
           PyErr_GivenExceptionMatches(exception, PyExc_KeyboardInterrupt);
}

/* Clears the exception that is set if it is of this type: false if it is another, or none. */
static bool clear_exception(PyObject *type) {
    if (!PyErr_ExceptionMatches(type)) return false;
    PyErr_Clear();
    return true;
}

/* Ends a question to an object to which an exception of this type, if one is set, is an answer. Any
   other has nobody here who could raise it: it is written as unraisable. */
static void forget_exception(PyObject *type, PyObject *object) {
    if (!clear_exception(type) && PyErr_Occurred()) PyErr_WriteUnraisable(object);
}

/* Is the exception that is set one by which an object is, or has, no buffer of the kind that was
   asked for? Then it is cleared. */
static bool is_no_buffer(void) {
    return clear_exception(PyExc_BufferError) || clear_exception(PyExc_TypeError);
}

/* module.attribute.attribute ... */
static PyObject *import_attribute(const char *module, const char *path) {
    PyObject *object = PyImport_ImportModule(module);
    char name[64];
    while (object != NULL && *path != '\0') {
        size_t length = strcspn(path, ".");
        PyObject *next;
        snprintf(name, sizeof name, "%.*s", (int)length, path);
        next = PyObject_GetAttrString(object, name);
        Py_DECREF(object);
        object = next;
        path += length + (path[length] == '.');
    }
    return object;
}

/* A limit in bytes, which is any number for asyncio: of one that is too large, or of a fraction,
   what fits. 0, or -1 with an exception set. */
static int parse_limit(PyObject *value, Py_ssize_t *limit) {
    PyObject *whole;
    if (!PyNumber_Check(value)) {
        PyErr_Format(PyExc_TypeError, "a limit must be a number, not %s", Py_TYPE(value)->tp_name);
        return -1;
    }
    whole = PyNumber_Long(value);
    if (whole == NULL && clear_exception(PyExc_OverflowError)) { /* infinity */
        *limit = PY_SSIZE_T_MAX;
        return 0;
    }
    if (whole == NULL) return -1;
    *limit = PyNumber_AsSsize_t(whole, NULL);
    Py_DECREF(whole);
    return 0;
}

/* What an iterable gives, as a tuple. It is not asked how long it is: that may be a lie. */
static PyObject *copy_sequence(PyObject *object) {
    PyObject *iterator, *list, *item, *copy = NULL;
    if (PyTuple_CheckExact(object)) return Py_NewRef(object);
    if (PyList_CheckExact(object)) return PyList_AsTuple(object);
    iterator = PyObject_GetIter(object);
    list = iterator == NULL ? NULL : PyList_New(0);
    while (list != NULL && (item = PyIter_Next(iterator)) != NULL) {
        if (PyList_Append(list, item) < 0) Py_CLEAR(list);
        Py_DECREF(item);
    }
    if (list != NULL && !PyErr_Occurred()) copy = PyList_AsTuple(list);
    Py_XDECREF(iterator);
    Py_XDECREF(list);
    return copy;
}

/* data[begin:end] in bytes, of any object with a buffer: a new memoryview. */
static PyObject *part_of_bytes(state *st, PyObject *data, Py_ssize_t begin, Py_ssize_t end) {
    PyObject *view = PyMemoryView_FromObject(data);
    PyObject *format = view == NULL ? NULL : PyUnicode_FromString("B");
    PyObject *bytes =
        format == NULL ? NULL : PyObject_CallMethodOneArg(view, st->names[NAME_CAST], format);
    PyObject *part = bytes == NULL ? NULL : PySequence_GetSlice(bytes, begin, end);
    Py_XDECREF(view);
    Py_XDECREF(format);
    Py_XDECREF(bytes);
    return part;
}

/* The only argument of a method, given by position or by name; NULL, with TypeError set, if it is
   another. */
static PyObject *only_argument(const char *method, const char *name, PyObject *const *args,
                               Py_ssize_t count, PyObject *keywords) {
    Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords);
    if (count == 1 && named == 0) return args[0];
    if (count == 0 && named == 1 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), name) == 0)
        return args[0];
    PyErr_Format(PyExc_TypeError, "%s() takes one argument, '%s'", method, name);
    return NULL;
}

/* A new reference to dict[name]; NULL, without an exception, if it is not there. */
static PyObject *get_item(PyObject *dict, PyObject *name) {
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *value;
    (void)PyDict_GetItemRef(dict, name, &value);
    return value;
#else
    return Py_XNewRef(PyDict_GetItemWithError(dict, name));
#endif
}

#if PY_VERSION_HEX < 0x030D0000 /* where an object has no lock */
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

/* A new reference to what a weak reference leads to; NULL, without an exception, if that has
   gone. */
static PyObject *follow(PyObject *reference) {
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *object = NULL;
    if (PyWeakref_GetRef(reference, &object) < 0) PyErr_WriteUnraisable(reference);
    return object;
#else
    PyObject *object = PyWeakref_GetObject(reference);
    return object == Py_None ? NULL : Py_NewRef(object);
#endif
}

#include "private_cpython.c"
#include "lock.c"
#include "handle.c"
#include "loop.c"
#include "loop_life.c"
#include "watcher.c"
#include "future.c"
#include "addresses.c"
#include "transport.c"
#include "transport_call.c"
#include "transport_events.c"
#include "transport_life.c"
#include "transport_write.c"
#include "transport_info.c"
#include "transport_tables.c"
#include "pipe.c"
#include "datagram.c"
#include "awaitable.c"
#include "method.c"
#include "streams.c"
#include "streams_adopt.c"
#include "streams_feed.c"
#include "sock.c"
#include "tls.c"
#include "tls_tables.c"
#include "server.c"
#include "module.c"
