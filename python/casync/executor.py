"""cpu_executor() makes an executor for functions that compute.

The loop's own executor, run_in_executor(None, ...), has threads. It suits a function that blocks
without computing: one that reads a file, looks up a name, or calls a C library that releases the
GIL. It does not suit a function that computes in Python. Only one thread at a time holds the GIL,
and a thread that computes gives it up only every 5 ms (sys.getswitchinterval()) when another
thread asks for it. So threads make nothing faster, and they may delay each turn of the loop by
5 ms. Such a function needs another process, or an interpreter without a GIL (PEP 703).

    with casync.cpu_executor() as executor:
        result = await loop.run_in_executor(executor, compute, argument)
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor


def cpu_executor(workers: int | None = None, *, threads: bool | None = None) -> Executor:
    """Returns an executor for functions that compute.

    The executor runs `workers` calls at the same time, by default one for each CPU that this
    process may use (os.sched_getaffinity). It uses threads if `threads` is true, and processes if
    it is false. By default it uses threads only in an interpreter that runs without a GIL. The
    caller owns the executor: leaving its `with` block, or calling shutdown(), waits for the calls
    that run and closes it. Any thread may make and use one. Raises ValueError if `workers` is not
    above 0.

    Worker processes have these rules (see multiprocessing and concurrent.futures):

    - The function, its arguments and its result are pickled, so the function must be one that a
      module has by name. Large values are copied each way.
    - Each worker imports the program's main module, so put what that module does behind
      `if __name__ == "__main__"`.
    - The first call starts the workers, with multiprocessing's fork server. (A fork of this
      process would inherit its threads, its locks and its loop.)
    - Workers ignore SIGINT: Ctrl-C is for this process to handle.
    - If a worker dies, from a signal or for lack of memory, the executor's calls and all later
      ones raise BrokenExecutor. Make a new executor then.

    Cancelling a task that awaits a call does not stop a call that runs, as with any executor of
    run_in_executor().
    """
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    if threads is None:
        threads = not getattr(sys, "_is_gil_enabled", lambda: True)()
    if threads:
        return ThreadPoolExecutor(workers, thread_name_prefix="casync_cpu")
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("forkserver"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
