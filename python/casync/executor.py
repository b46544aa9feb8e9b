"""cpu_executor(): where run_in_executor computes.

What blocks without computing (a file, a name look-up, a C library that drops the GIL) is fine in
the loop's own executor, of threads: run_in_executor(None, ...). What computes in Python is not. One
thread at a time has the GIL, and one that computes gives it up every 5 ms (sys.getswitchinterval)
when others ask for it: nothing gets faster, and every turn of the loop may come 5 ms later. That
needs processes, or an interpreter without a GIL.

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
    """Returns an executor for calls that compute.

    It runs `workers` calls at a time, by default as many as this process has CPUs. If `threads` is
    true, it uses threads instead of processes; by default it does so only if this interpreter runs
    without a GIL. `with`, or shutdown(), closes it, and waits for the calls that run.

    For processes, the function, its arguments and its result are pickled: the function must be one
    that a module has by name, and what is large costs a copy each way. A program's main module is
    imported by each worker, so what it does belongs behind `if __name__ == "__main__"`. Workers
    start with the first call, by multiprocessing's fork server: a fork of this process would
    inherit its threads, locks and loop. They ignore Ctrl-C, which is this process's to handle. A
    worker that dies (by a signal, or for want of memory) makes its calls, and all later ones, raise
    BrokenExecutor: make a new executor then.

    As everywhere with run_in_executor, cancelling what awaits a call does not stop one that runs.
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
