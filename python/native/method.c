/* Methods: functions in C that stand, in a class of ours, for asyncio's of the same name; and
   whether asyncio's classes of streams are still asyncio's.

   Idea: to look at, a method is the function that it stands for. It answers with that one's
   signature, text and code object, so `inspect` and unittest.mock take it for a coroutine function
   where that is one. What is called is C. Where a program has replaced anything in asyncio's
   classes (a test that patches StreamReader.read), a method is what super() gives, so the patch has
   its way also with objects that were adopted before; and so it is for the time of the patch alone.

   Invariants: streams_changed() is asked before anything is done natively for an object of those
   classes. What they have is compared only when a type's version (private_cpython.c) is another
   than the last time.

   Costs: a method is called as CPython calls its own, without an object for the binding. The
   question costs a comparison for each class that it is about. */

typedef PyObject *method_function(PyObject *self, PyObject *const *args, Py_ssize_t count,
                                  PyObject *keywords);

typedef struct {
    PyObject ob_base;
    vectorcallfunc vectorcall;
    method_function *function;
    state *st;
    PyTypeObject *owner; /* in whose dict it is */
    PyObject *name;
    PyObject *original; /* asyncio's function */
    int watched;        /* it gives way to what a program puts into these classes; or
                           WATCHED_NONE */
} method;

/* ---- are asyncio's streams as they were? ---- */

/* Is the value of a class's dict its own: no function or property of another module? */
static bool is_own_value(PyObject *value, PyObject *module) {
    PyObject *function, *name;
    bool own;
    if (PyObject_TypeCheck(value, &PyProperty_Type))
        function = PyObject_GetAttrString(value, "fget");
    else
        function = Py_NewRef(value);
    name = function != NULL && PyFunction_Check(function)
               ? PyDict_GetItemString(PyFunction_GET_GLOBALS(function), "__name__")
               : NULL;
    own = name != NULL ? PyUnicode_Check(name) && PyUnicode_Compare(name, module) == 0
                       : function != NULL && !PyCallable_Check(function);
    Py_XDECREF(function);
    return own;
}

/* Is nothing in asyncio's class a program's? */
static bool is_own_class(PyTypeObject *type) {
    PyObject *module = PyDict_GetItemString(type->tp_dict, "__module__"), *name, *value;
    Py_ssize_t position = 0;
    while (module != NULL && PyDict_Next(type->tp_dict, &position, &name, &value))
        if (!is_own_value(value, module)) return false;
    return module != NULL;
}

/* Keeps what the class and its bases have: a tuple (class, its MRO, its dict) for each. */
static int keep_class(PyObject *list, PyTypeObject *type) {
    Py_ssize_t bases = PyTuple_GET_SIZE(type->tp_mro) - 1; /* object cannot be changed */
    for (Py_ssize_t i = 0; i < bases; i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(type->tp_mro, i);
        PyObject *dict = PyDict_Copy(base->tp_dict);
        PyObject *kept =
            dict == NULL ? NULL : PyTuple_Pack(3, (PyObject *)base, base->tp_mro, dict);
        int result = kept == NULL ? -1 : PyList_Append(list, kept);
        Py_XDECREF(dict);
        Py_XDECREF(kept);
        if (result < 0) return -1;
    }
    return 0;
}

/* The same values under the same names? `__annotations__` is made when somebody asks for it. */
static bool has_kept_dict(state *st, PyTypeObject *type, PyObject *kept) {
    PyObject *name, *value;
    Py_ssize_t position = 0, known = 0;
    bool same = true;
    Py_BEGIN_CRITICAL_SECTION(type->tp_dict);
    while (same && PyDict_Next(type->tp_dict, &position, &name, &value)) {
        if (PyUnicode_Compare(name, st->names[NAME_ANNOTATIONS]) == 0) continue;
        same = PyDict_GetItemWithError(kept, name) == value;
        known++;
    }
    Py_END_CRITICAL_SECTION();
    return same && known == PyDict_GET_SIZE(kept) -
                                (PyDict_Contains(kept, st->names[NAME_ANNOTATIONS]) > 0);
}

static bool are_kept(state *st) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(st->kept_classes); i++) {
        PyObject *kept = PyList_GET_ITEM(st->kept_classes, i);
        PyTypeObject *type = (PyTypeObject *)PyTuple_GET_ITEM(kept, 0);
        if (type->tp_mro != PyTuple_GET_ITEM(kept, 1) ||
            !has_kept_dict(st, type, PyTuple_GET_ITEM(kept, 2)))
            return false;
    }
    return true;
}

/* The versions are asked for first, and kept last: a change that comes meanwhile shows by them. */
static bool look_at_classes(state *st) {
    unsigned versions[WATCHED_CLASSES];
    bool changed;
    lock_classes(st);
    for (int i = 0; i < WATCHED_CLASSES; i++) versions[i] = new_type_version(st, st->watched[i]);
    changed = !st->streams_own || !are_kept(st);
    STORE(st->streams_changed, changed);
    for (int i = 0; i < WATCHED_CLASSES; i++) STORE(st->versions[i], versions[i]);
    unlock_classes(st);
    return changed;
}

/* Has a program put anything into these classes, the first of those of watch_classes(), that was
   not there when this module was loaded? */
static inline bool streams_changed(state *st, enum watched_class last) {
    for (int i = 0; i <= (int)last; i++) {
        unsigned version = type_version(st, st->watched[i]);
        if (version != LOAD(st->versions[i]) || version == 0) return look_at_classes(st);
    }
    return LOAD(st->streams_changed);
}

/* When the types have been made. */
static int watch_classes(state *st) {
    st->watched[WATCHED_READER] = (PyTypeObject *)st->asyncio_reader;
    st->watched[WATCHED_PROTOCOL] = (PyTypeObject *)st->asyncio_reader_protocol;
    st->watched[WATCHED_WRITER] = (PyTypeObject *)st->asyncio_writer;
    st->watched[WATCHED_TRANSPORT] = st->transport_types[TRANSPORT_SOCKET];
    st->kept_classes = PyList_New(0);
    if (st->kept_classes == NULL) return -1;
    for (int i = 0; i < WATCHED_CLASSES; i++)
        if (keep_class(st->kept_classes, st->watched[i]) < 0) return -1;
    st->streams_own = is_own_class(st->watched[WATCHED_READER]) &&
                      is_own_class(st->watched[WATCHED_PROTOCOL]) &&
                      is_own_class(st->watched[WATCHED_WRITER]);
    look_at_classes(st);
    return 0;
}

/* ---- methods ---- */

/* super(owner, object).name */
static PyObject *method_of_super(method *self, PyObject *object) {
    PyObject *super = PyObject_CallFunctionObjArgs((PyObject *)&PySuper_Type,
                                                   (PyObject *)self->owner, object, NULL);
    PyObject *found = super == NULL ? NULL : PyObject_GetAttr(super, self->name);
    Py_XDECREF(super);
    return found;
}

static bool method_gives_way(method *self) {
    return self->watched != WATCHED_NONE &&
           streams_changed(self->st, (enum watched_class)self->watched);
}

static PyObject *method_vectorcall(PyObject *callable, PyObject *const *args, size_t flags,
                                   PyObject *keywords) {
    method *self = (method *)callable;
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    PyObject *found, *result;
    /* it says what is wrong, or works on it */
    if (count == 0 || !PyObject_TypeCheck(args[0], self->owner))
        return PyObject_Vectorcall(self->original, args, (size_t)count, keywords);
    if (!method_gives_way(self)) return self->function(args[0], args + 1, count - 1, keywords);
    found = method_of_super(self, args[0]);
    result =
        found == NULL ? NULL : PyObject_Vectorcall(found, args + 1, (size_t)count - 1, keywords);
    Py_XDECREF(found);
    return result;
}

static PyObject *method_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type)) {
    if (object == NULL || object == Py_None) return Py_NewRef(self);
    if (method_gives_way((method *)self)) return method_of_super((method *)self, object);
    return PyMethod_New(self, object);
}

/* What a type of extension modules has anyway, asyncio's function has better. */
static bool is_of_original(state *st, PyObject *name) {
    return PyUnicode_Compare(name, st->names[NAME_DOC]) == 0 ||
           PyUnicode_Compare(name, st->names[NAME_MODULE]) == 0;
}

static PyObject *method_getattro(PyObject *object, PyObject *name) {
    method *self = (method *)object;
    PyObject *value;
    if (is_of_original(self->st, name)) return PyObject_GetAttr(self->original, name);
    value = PyObject_GenericGetAttr(object, name);
    if (value != NULL || !clear_exception(PyExc_AttributeError)) return value;
    return PyObject_GetAttr(self->original, name);
}

static PyObject *method_repr(method *self) {
    return PyUnicode_FromFormat("<native method '%U' of '%s' objects>", self->name,
                                self->owner->tp_name);
}

static int method_traverse(method *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->owner);
    Py_VISIT(self->original);
    return 0;
}

static int method_clear(method *self) {
    Py_CLEAR(self->owner);
    Py_CLEAR(self->original);
    return 0;
}

static void method_dealloc(method *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    method_clear(self);
    Py_XDECREF(self->name);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef method_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(method, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot method_slots[] = {
    {Py_tp_dealloc, method_dealloc},
    {Py_tp_traverse, method_traverse},
    {Py_tp_clear, method_clear},
    {Py_tp_getattro, method_getattro},
    {Py_tp_repr, method_repr},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, method_get},
    {Py_tp_members, method_members},
    {0, NULL},
};

static PyType_Spec method_spec = {"casync._native.Method", sizeof(method), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                      Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
                                      Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                  method_slots};

typedef struct {
    const char *name;
    method_function *function;
} method_definition;

/* Puts methods into a type, each for the function that asyncio's class has by the same name. */
static int add_methods(state *st, PyTypeObject *owner, const method_definition *definitions,
                       PyObject *asyncios, enum watched_class watched) {
    for (const method_definition *one = definitions; one->name != NULL; one++) {
        method *self = (method *)st->method_type->tp_alloc(st->method_type, 0);
        int result;
        if (self == NULL) return -1;
        self->vectorcall = method_vectorcall;
        self->function = one->function;
        self->st = st;
        self->owner = (PyTypeObject *)Py_NewRef((PyObject *)owner);
        self->name = PyUnicode_InternFromString(one->name);
        self->original = self->name == NULL ? NULL : PyObject_GetAttr(asyncios, self->name);
        self->watched = watched;
        result = self->original == NULL
                     ? -1
                     : PyObject_SetAttr((PyObject *)owner, self->name, (PyObject *)self);
        Py_DECREF((PyObject *)self);
        if (result < 0) return -1;
    }
    return 0;
}
