"""casync.testing: loops with virtual time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from casync.testing import (
    DeadlockError,
    VirtualTimeLoop,
    virtual_time_loop,  # noqa: F401 (a fixture)
)
from support import Recorder, pattern, unix_pair

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], make: Callable[[], VirtualTimeLoop] = VirtualTimeLoop) -> T:
    loop = make()
    try:
        return loop.run_until_complete(main)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def now_after(*sleeps: float) -> float:
    for seconds in sleeps:
        await asyncio.sleep(seconds)
    return asyncio.get_running_loop().time()


def test_time_starts_at_zero_and_jumps_exactly_to_the_next_timer() -> None:
    assert run(now_after()) == 0
    assert run(now_after(3600, 0.5, 1e6)) == 1003600.5


def test_timers_run_in_the_order_of_their_times() -> None:
    async def main() -> list[tuple[float, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, float]] = []
        for delay in 30, 10, 20, 10:
            loop.call_later(delay, lambda delay=delay: seen.append((delay, loop.time())))
        await asyncio.sleep(100)
        return seen

    assert run(main()) == [(10, 10), (10, 10), (20, 20), (30, 30)]


def test_timeouts_come_when_they_are_due() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.create_future(), 86400)
        assert await asyncio.wait_for(asyncio.sleep(50, "slept"), 60) == "slept"
        return loop.time()

    assert run(main()) == 86450


def test_a_run_that_would_never_end_raises_and_names_the_tasks() -> None:
    async def forgotten() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        await asyncio.gather(asyncio.sleep(1000), forgotten())

    with pytest.raises(DeadlockError, match=r"(?s)forgotten at .*test_virtual_time.py"):
        run(main())


def test_a_loop_that_was_deadlocked_runs_again() -> None:
    loop = VirtualTimeLoop()
    future = loop.create_future()
    with pytest.raises(DeadlockError):
        loop.run_until_complete(future)
    loop.call_later(10, future.set_result, "late")
    assert loop.run_until_complete(future) == "late"
    loop.close()


def test_real_input_and_output_work() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = unix_pair()
        transport, _ = await loop.create_connection(Recorder, sock=ours)
        other, protocol = await loop.create_connection(Recorder, sock=theirs)
        transport.write(pattern(1_000_000))
        transport.close()
        await asyncio.wait_for(protocol.lost, 3600)
        assert protocol.data == pattern(1_000_000)
        assert loop.time() < 3600
        await asyncio.sleep(3600)  # nothing is open any more
        other.close()

    run(main())


def test_forced_time_jumps_although_a_server_listens() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        await asyncio.sleep(3600)
        server.close()
        return loop.time()

    assert run(main(), lambda: VirtualTimeLoop(forced=True)) == 3600


def test_jobs_of_executors_are_waited_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        release = threading.Event()
        job = loop.run_in_executor(None, release.wait)
        thread = threading.Timer(0.01, release.set)
        thread.start()
        assert await asyncio.wait_for(job, 3600) is True
        assert loop.time() < 3600
        assert await now_after(3600) >= 3600
        thread.join()

    run(main())


def test_children_are_waited_for() -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1)
        loop = asyncio.get_running_loop()
        waiting = loop.create_task(process.wait())
        process.stdin.close()
        assert isinstance(await asyncio.wait_for(waiting, 3600), int)
        assert loop.time() < 3600
        assert await now_after(3600) >= 3600

    run(main())


def test_threads_of_ones_own_are_announced() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        future = loop.create_future()
        thread = threading.Timer(
            0.01, loop.call_soon_threadsafe, (future.set_result, "from a thread")
        )
        thread.start()
        with loop.awaiting_outside():
            result: str = await future
        thread.join()
        return result

    assert run(main()) == "from a thread"


def test_signal_handlers_work() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        came = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, came.set_result, None)
        os.kill(os.getpid(), signal.SIGUSR1)
        await came
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


@pytest.mark.parametrize("debug", [False, True])
def test_the_fixture(virtual_time_loop: VirtualTimeLoop, debug: bool) -> None:  # noqa: F811
    virtual_time_loop.set_debug(debug)
    assert virtual_time_loop.run_until_complete(now_after(7200)) == 7200
    virtual_time_loop.create_task(now_after(1))  # which the fixture cancels


def test_the_fixtures_loop_may_be_closed(virtual_time_loop: VirtualTimeLoop) -> None:  # noqa: F811
    virtual_time_loop.close()
    assert virtual_time_loop.is_closed()


def test_closing_with_something_outstanding() -> None:
    loop = VirtualTimeLoop()
    before = len(os.listdir("/proc/self/fd"))
    loop._begin_outside()
    loop.close()
    assert len(os.listdir("/proc/self/fd")) < before
