"""casync.wrap_future and casync.chain_future: C futures in Python, and awaitables in C."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from growth import assert_flat
from support import REPOSITORY, build_extension, ended, python

# Futures that Python makes, ends and looks at by their number.
EXTENSION = r"""
#define CASYNC_IMPORT
#include <Python.h>
#include "casync.h"

static casync_future futures[16];

#define NUMBER_AND(type, name, letter)                                                            \
    int number;                                                                                   \
    type name;                                                                                    \
    if (!PyArg_ParseTuple(args, "i" letter, &number, &name)) return NULL

static PyObject *init(PyObject *module, PyObject *args) {
    NUMBER_AND(PyObject *, object, "O");
    casync_loop *loop = casync_python_loop(object);
    (void)module;
    if (loop == NULL) return NULL;
    casync_future_init(loop, &futures[number]);
    return PyLong_FromVoidPtr(&futures[number]);
}

static PyObject *set_result(PyObject *module, PyObject *args) {
    NUMBER_AND(long long, result, "L");
    (void)module;
    return PyLong_FromLongLong(casync_future_set_result(&futures[number], result, NULL));
}

static PyObject *cancel(PyObject *module, PyObject *number) {
    (void)module;
    return PyLong_FromLongLong(casync_future_cancel(&futures[PyLong_AsLong(number)]));
}

static PyObject *close_future(PyObject *module, PyObject *number) {
    (void)module;
    casync_future_close(&futures[PyLong_AsLong(number)]);
    Py_RETURN_NONE;
}

static PyObject *result(PyObject *module, PyObject *number) {
    (void)module;
    return PyLong_FromLongLong(casync_future_result(&futures[PyLong_AsLong(number)]));
}

static PyObject *wrap(PyObject *module, PyObject *number) {
    (void)module;
    return casync_python_wrap_future(&futures[PyLong_AsLong(number)]);
}

static PyObject *chain(PyObject *module, PyObject *args) {
    NUMBER_AND(PyObject *, awaitable, "O");
    (void)module;
    if (casync_python_chain_future(awaitable, &futures[number]) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"init", init, METH_VARARGS, NULL},   {"set_result", set_result, METH_VARARGS, NULL},
    {"cancel", cancel, METH_O, NULL},     {"close", close_future, METH_O, NULL},
    {"result", result, METH_O, NULL},     {"wrap", wrap, METH_O, NULL},
    {"chain", chain, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "c_futures", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_c_futures(void) {
    return casync_import() < 0 ? NULL : PyModule_Create(&module);
}
"""


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    import casync

    directory = tmp_path_factory.mktemp("c_futures")
    output = build_extension("c_futures", EXTENSION, directory, Path(casync.get_include()))
    spec = importlib.util.spec_from_file_location("c_futures", output)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_c_future_is_awaited(casync: ModuleType, c: ModuleType) -> None:
    pytest.importorskip("cffi")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        address = c.init(0, loop)
        pointer = casync.ffi.cast("casync_future *", address)
        futures = casync.wrap_future(address), casync.wrap_future(pointer), c.wrap(0)
        loop.call_soon(c.set_result, 0, 1 << 40)
        for future in futures:
            assert isinstance(future, asyncio.Future)
            assert await future == 1 << 40
        assert await casync.wrap_future(address) == 1 << 40  # one that is done already
        c.close(0)

    casync.run(main())


def test_failures_and_cancelling_reach_python(casync: ModuleType, c: ModuleType) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for error, kind in (
            (errno.ECONNRESET, ConnectionResetError),
            (errno.ETIMEDOUT, TimeoutError),
            (errno.ENOMEM, MemoryError),
            (errno.ENOSPC, OSError),
        ):
            future = casync.wrap_future(c.init(0, loop))
            c.set_result(0, -error)
            with pytest.raises(kind):
                await future
            c.close(0)
        future = casync.wrap_future(c.init(0, loop))
        c.cancel(0)
        with pytest.raises(asyncio.CancelledError):
            await future
        c.close(0)

    casync.run(main())


def test_cancelling_in_python_cancels_the_c_future(casync: ModuleType, c: ModuleType) -> None:
    async def main() -> None:
        address = c.init(0, asyncio.get_running_loop())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(casync.wrap_future(address), 0.001)
        await asyncio.sleep(0)
        assert c.result(0) == -errno.ECANCELED
        c.close(0)

    casync.run(main())


def test_an_awaitable_ends_a_c_future(casync: ModuleType, c: ModuleType) -> None:
    async def give(result: object) -> object:
        await asyncio.sleep(0)
        if isinstance(result, BaseException):
            raise result
        return result

    async def main() -> None:
        loop = asyncio.get_running_loop()
        told: list[dict[str, object]] = []
        loop.set_exception_handler(lambda _, context: told.append(context))
        for outcome, expected in (
            (7, 7),
            (None, 0),
            (True, 1),
            (ConnectionResetError(errno.ECONNRESET, "gone"), -errno.ECONNRESET),
            (TimeoutError(), -errno.ETIMEDOUT),
            (asyncio.TimeoutError(), -errno.ETIMEDOUT),
            (MemoryError(), -errno.ENOMEM),
            (asyncio.CancelledError(), -errno.ECANCELED),
        ):
            done = casync.wrap_future(c.init(0, loop))
            c.chain(0, give(outcome))
            await asyncio.wait([done])
            assert c.result(0) == expected, outcome
            assert done.cancelled() or done.exception() or done.result() == expected
            c.close(0)
        assert told == []
        for outcome, kind in (
            (ValueError(), ValueError),
            (OSError("no number"), OSError),
            ("text", TypeError),
            (-1, TypeError),
            (1 << 63, TypeError),
        ):
            done = casync.wrap_future(c.init(0, loop))
            c.chain(0, give(outcome))
            await asyncio.wait([done])
            assert done.exception() is not None and c.result(0) == -errno.EPROTO
            assert isinstance(told.pop()["exception"], kind) and told == []
            c.close(0)

    casync.run(main())


def test_c_cancels_what_it_awaits_and_may_forget_it(casync: ModuleType, c: ModuleType) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        tasks = []
        for number in range(3):
            tasks.append(asyncio.ensure_future(asyncio.sleep(3600)))
            casync.chain_future(tasks[-1], c.init(number, loop))
        await asyncio.sleep(0)
        assert c.cancel(0) == 1  # before the task has ended
        tasks[1].cancel()
        c.cancel(2)
        tasks[2].cancel()  # both in one turn
        await asyncio.wait(tasks)
        await asyncio.sleep(0)
        assert all(task.cancelled() for task in tasks)
        for number in range(3):
            assert c.result(number) == -errno.ECANCELED
            c.close(number)

    casync.run(main())


def test_what_is_no_c_future_is_refused(casync: ModuleType, c: ModuleType) -> None:
    pytest.importorskip("cffi")

    async def main() -> None:
        address = c.init(0, asyncio.get_running_loop())
        c.close(0)
        with pytest.raises(ValueError, match="closed"):
            casync.wrap_future(address)
        with pytest.raises(ValueError, match="NULL"):
            casync.wrap_future(casync.ffi.NULL)
        for wrong in (
            object(),
            None,
            "text",
            casync.ffi.new("casync_future[1]")[0],
            casync.ffi.cast("int", 1),
        ):
            with pytest.raises(TypeError, match="pointer"):
                casync.wrap_future(wrong)

    casync.run(main())


def test_nothing_leaks(casync: ModuleType, c: ModuleType) -> None:
    async def one_round() -> None:
        loop = asyncio.get_running_loop()
        wrapped = casync.wrap_future(c.init(0, loop))
        c.chain(0, asyncio.sleep(0))
        await wrapped
        cancelled = casync.wrap_future(c.init(1, loop))
        task = asyncio.ensure_future(asyncio.sleep(3600))
        c.chain(1, task)
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled, task])
        assert task.cancelled()
        for number in range(2):
            c.close(number)

    loop = casync.new_event_loop()
    assert_flat(lambda: loop.run_until_complete(one_round()), rounds=2_000)
    loop.close()


def test_the_example(casync: ModuleType) -> None:
    pytest.importorskip("cffi")
    example: Path = REPOSITORY / "examples" / "c_future.py"
    assert ended(python("-W", "error", str(example))).splitlines()[-1] == "100"
