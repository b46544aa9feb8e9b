"""casync.cpu_executor: calls that compute, beside a loop that goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from concurrent.futures import BrokenExecutor
from pathlib import Path
from types import ModuleType

import pytest
from support import TIMEOUT, turns


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
