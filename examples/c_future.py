"""C code and Python code that await each other, on one loop: casync.wrap_future and
casync.chain_future.

A task in C adds up prices, each of which it asks a Python coroutine for. Python awaits that task.

    python examples/c_future.py    # needs casync, cffi and a C compiler
"""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import casync
from cffi import FFI

DECLARATIONS = """
typedef struct casync_future casync_future;
casync_future *sum_start(int count);
void sum_free(casync_future *sum);
int load(void);
extern "Python" bool ask_price(int number, casync_future *price);
"""

# cffi drops the GIL around calls of C code, and casync's functions need it. The steps of the task
# are called by the loop, which has it.
SOURCE = r"""
#define CASYNC_IMPORT
#include <Python.h>
#include "casync.h"
#include <errno.h>
#include <stdlib.h>

typedef struct sum {
    casync_task task; /* first: a pointer to a sum is one to its future */
    casync_timer_op pause;
    casync_future price;
    int64_t total;
    int number, count;
} sum;

/* Python's: `price` ends as a coroutine does. */
static bool ask_price(int number, casync_future *price);

static int64_t sum_step(casync_task *task) {
    sum *self = (sum *)task;
    CASYNC_BEGIN(task);
    for (; self->number < self->count; self->number++) {
        int64_t result;
        CASYNC_AWAIT(task, result, casync_sleep_op(task->future.loop, &self->pause, CASYNC_MS(1)));
        if (result < 0) return result;
        casync_future_init(task->future.loop, &self->price);
        if (!ask_price(self->number, &self->price)) return -ECANCELED;
        CASYNC_AWAIT(task, result, &self->price);
        casync_future_close(&self->price);
        if (result < 0) return result;
        self->total += result;
    }
    CASYNC_END(task, self->total);
}

static casync_future *sum_start(int count) {
    PyGILState_STATE gil = PyGILState_Ensure();
    sum *self = (sum *)calloc(1, sizeof *self);
    if (self != NULL) {
        self->count = count;
        if (casync_task_start(casync_get_running_loop(), &self->task, sum_step) < 0) {
            free(self);
            self = NULL;
        }
    }
    PyGILState_Release(gil);
    return (casync_future *)self;
}

static void sum_free(casync_future *future) {
    PyGILState_STATE gil = PyGILState_Ensure();
    casync_future_close(future);
    PyGILState_Release(gil);
    free(future);
}

static int load(void) {
    PyGILState_STATE gil = PyGILState_Ensure();
    int result = casync_import();
    if (result < 0) PyErr_Print();
    PyGILState_Release(gil);
    return result;
}
"""


def build(directory: Path) -> Any:
    """Compiles the extension module and imports it."""
    ffi = FFI()
    ffi.cdef(DECLARATIONS)
    ffi.set_source("c_sum", SOURCE)
    ffi.emit_c_code(str(directory / "c_sum.c"))
    shared = directory / f"c_sum{sysconfig.get_config_var('EXT_SUFFIX')}"
    headers = [f"-I{casync.get_include()}", f"-I{sysconfig.get_path('include')}"]
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O2", *headers, "-o", shared, directory / "c_sum.c"], check=True
    )
    spec = importlib.util.spec_from_file_location("c_sum", shared)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.lib.load() < 0:
        raise SystemExit(1)
    return module


async def price_of(number: int) -> int:
    await asyncio.sleep(0.001)
    return 10 * number


async def sum_of_prices(c_sum: Any, count: int) -> int:
    future = c_sum.lib.sum_start(count)
    if future == c_sum.ffi.NULL:
        raise MemoryError
    try:
        return await casync.wrap_future(future)
    finally:
        c_sum.lib.sum_free(future)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        c_sum = build(Path(directory))

    @c_sum.ffi.def_extern()
    def ask_price(number: int, price: Any) -> bool:
        casync.chain_future(price_of(number), price)
        return True

    print(casync.run(sum_of_prices(c_sum, 5)))


if __name__ == "__main__":
    main()
