/* Contexts: what asyncio copies for every callback, without the copy.

   Idea: asyncio gives each callback a copy of the context it was scheduled in. What a copy shares
   with its original is one immutable mapping, `vars`; so a handle keeps just that (a reference),
   and is given a context around it when it runs, mostly the one that the callback before it has
   left. That saves an allocation, and an object for the garbage collector, at each call_soon.

   Invariants: a context is used again only if nobody else holds it. The layout of a context is
   CPython's own (struct _pycontextobject in Include/internal/pycore_context.h), the same in 3.10 to
   3.13; other versions, and any in which check_snapshots() finds something else, copy. */

typedef struct {
    PyObject ob_base;
    PyObject *previous;
    PyObject *vars; /* an immutable mapping, type "hamt" */
    PyObject *weakrefs;
    int entered;
} context_layout;

#if PY_VERSION_HEX < 0x030E0000 && !defined(Py_GIL_DISABLED)

static context_layout *layout_of(PyObject *context) { return (context_layout *)context; }

/* The variables of the present context; NULL, without an exception, if there is none or it cannot
   be known. */
static PyObject *snapshot_context(state *st) {
    PyObject *context = PyThreadState_Get()->context;
    return st->snapshots && context != NULL ? Py_NewRef(layout_of(context)->vars) : NULL;
}

/* A context with these variables, whose reference is taken. */
static PyObject *make_context(state *st, PyObject *vars) {
    PyObject *context = st->spare_context;
    st->spare_context = NULL;
    if (context == NULL) context = PyContext_New();
    if (context == NULL)
        Py_DECREF(vars);
    else
        Py_XSETREF(layout_of(context)->vars, vars);
    return context;
}

/* Takes the reference of a context that make_context gave. */
static void return_context(state *st, PyObject *context) {
    if (Py_REFCNT(context) > 1 || st->spare_context != NULL ||
        layout_of(context)->weakrefs != NULL) {
        Py_DECREF(context);
    } else {
        st->spare_context = context;
        Py_SETREF(layout_of(context)->vars, Py_NewRef(st->no_vars)); /* their values may go */
    }
}

/* Is a context what this file takes it for? */
static int check_snapshots(state *st) {
    PyObject *context = PyContext_New(), *copy = NULL;
    if (context == NULL) return -1;
    if (PyContext_Type.tp_basicsize == sizeof(context_layout)) {
        copy = PyContext_Copy(context);
        if (copy == NULL || PyContext_Enter(context) < 0) {
            Py_DECREF(context);
            Py_XDECREF(copy);
            return -1;
        }
        st->snapshots = PyThreadState_Get()->context == context &&
                        layout_of(context)->entered == 1 && layout_of(copy)->entered == 0 &&
                        layout_of(context)->vars == layout_of(copy)->vars &&
                        strcmp(Py_TYPE(layout_of(copy)->vars)->tp_name, "hamt") == 0;
        PyContext_Exit(context);
        if (st->snapshots) st->no_vars = Py_NewRef(layout_of(copy)->vars);
    }
    Py_DECREF(context);
    Py_XDECREF(copy);
    return 0;
}

#else

static PyObject *snapshot_context(state *Py_UNUSED(st)) { return NULL; }

/* Not called, for there are no snapshots. */
static PyObject *make_context(state *Py_UNUSED(st), PyObject *vars) { return vars; }

static void return_context(state *Py_UNUSED(st), PyObject *context) { Py_DECREF(context); }

static int check_snapshots(state *Py_UNUSED(st)) { return 0; }

#endif
