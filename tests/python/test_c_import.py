"""casync.get_include() and CASYNC_IMPORT: other extension modules on casync's loops."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from support import build_extension, ended, python

EXTENSION = r"""
#define CASYNC_IMPORT
#include <Python.h>
#include "casync.h"

static casync_job job;
static casync_timer timer;
static int calls;

static void called(void *arg) { calls += *(int *)arg; }

static PyObject *start(PyObject *module, PyObject *object) {
    static int one = 1, ten = 10;
    casync_loop *loop = casync_python_loop(object);
    (void)module;
    if (loop == NULL) return NULL;
    if (casync_call_soon(loop, &job, called, &one) < 0) return PyErr_NoMemory();
    if (casync_call_later(loop, &timer, CASYNC_MS(1), called, &ten) < 0) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *count(PyObject *module, PyObject *none) {
    (void)module;
    (void)none;
    return PyLong_FromLong(calls);
}

static PyMethodDef methods[] = {
    {"start", start, METH_O, NULL}, {"count", count, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "extension", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_extension(void) {
    return casync_import() < 0 ? NULL : PyModule_Create(&module);
}
"""

PROGRAM = """
import asyncio, gc, sys
sys.path.insert(0, sys.argv[1])
import casync, extension
loop = casync.new_event_loop()
extension.start(loop)
assert loop.metrics()["timers"] == 1
gc.collect()
while extension.count() < 11:
    loop.run_until_complete(asyncio.sleep(0.001))
loop.close()
for wrong in 1, asyncio.SelectorEventLoop(), object():
    try:
        extension.start(wrong)
    except TypeError as error:
        assert "casync.EventLoop" in str(error)
    else:
        raise AssertionError(wrong)
print("done")
"""


def test_c_code_schedules_on_a_python_loop(casync: ModuleType, tmp_path: Path) -> None:
    build_extension("extension", EXTENSION, tmp_path, Path(casync.get_include()))
    assert ended(python("-W", "ignore", "-c", PROGRAM, str(tmp_path))) == "done\n"


def test_a_module_built_for_another_version_is_refused(casync: ModuleType, tmp_path: Path) -> None:
    include = tmp_path / "include"
    include.mkdir()
    for path in Path(casync.get_include()).iterdir():
        text = path.read_text().replace(
            "#define CASYNC_IMPORT_STAMP 0x", "#define CASYNC_IMPORT_STAMP 1 + 0x"
        )
        (include / path.name).write_text(text)
    build_extension("extension", EXTENSION, tmp_path, include)
    output = ended(python("-c", PROGRAM, str(tmp_path)), status=1)
    assert "ImportError: this module was built for casync" in output and "build it again" in output
