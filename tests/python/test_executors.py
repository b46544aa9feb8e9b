"""Calls in threads and processes: run_in_executor, and casync.cpu_executor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import sys
import threading
from concurrent.futures import BrokenExecutor
from pathlib import Path
from types import ModuleType

import pytest
from support import TIMEOUT, Loop, turns


def compute_until(path: str) -> int:
    """Keeps its thread busy until the file is there."""
    count = 0
    while not os.path.exists(path):
        count += 1
    return os.getpid()


def ignores_interrupts() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("threads", [False, True])
def test_the_loop_goes_on_beside_computing(
    casync: ModuleType, tmp_path: Path, threads: bool
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with casync.cpu_executor(1, threads=threads) as executor:
            call = loop.run_in_executor(executor, compute_until, str(tmp_path / "stop"))
            await turns()
            assert not call.done()
            (tmp_path / "stop").touch()
            assert (await asyncio.wait_for(call, TIMEOUT) == os.getpid()) is threads

    casync.run(main())


def test_workers_are_processes_that_ignore_interrupts_and_tell_errors(casync: ModuleType) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with casync.cpu_executor(threads=False) as executor:
            assert executor._max_workers == len(os.sched_getaffinity(0))
            assert await loop.run_in_executor(executor, ignores_interrupts)
            with pytest.raises(ValueError, match="invalid literal"):
                await loop.run_in_executor(executor, int, "no number")

    casync.run(main())


def test_a_worker_that_dies_is_an_error(casync: ModuleType) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with casync.cpu_executor(1, threads=False) as executor:
            for function in die, os.getpid:
                with pytest.raises(BrokenExecutor):
                    await loop.run_in_executor(executor, function)

    casync.run(main())


def test_threads_have_a_name(casync: ModuleType) -> None:
    with casync.cpu_executor(threads=True) as executor:
        name = executor.submit(lambda: threading.current_thread().name).result()
    assert name.startswith("casync_cpu")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="3.12's waits for the executor all the same")
def test_shutdown_default_executor_with_a_timeout(loop: Loop) -> None:
    import threading

    release = threading.Event()

    async def main() -> None:
        blocked = loop.run_in_executor(None, release.wait)
        with pytest.warns(RuntimeWarning, match="did not finish"):
            await loop.shutdown_default_executor(timeout=0.01)
        release.set()
        await blocked

    loop.run_until_complete(main())


def test_executors(loop: Loop) -> None:
    async def main() -> None:
        main_thread = threading.get_ident()
        assert await loop.run_in_executor(None, threading.get_ident) != main_thread
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert await loop.run_in_executor(pool, sum, [1, 2, 3]) == 6
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 / 0)
        assert await asyncio.to_thread(max, 1, 2) == 2

    loop.run_until_complete(main())


def test_the_default_executor_can_be_set_and_is_shut_down(loop: Loop) -> None:
    pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine")
    loop.set_default_executor(pool)
    name = loop.run_until_complete(
        loop.run_in_executor(None, lambda: threading.current_thread().name)
    )
    assert name.startswith("mine")
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError):
        pool.submit(int)
