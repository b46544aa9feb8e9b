"""Loops and threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from types import ModuleType

import pytest
from support import TIMEOUT, Loop, finish, within


async def test_another_thread_wakes_a_loop_that_waits(loop: Loop) -> None:
    woken = loop.create_future()
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(woken.set_result, "argument"))
    thread.start()
    assert await woken == "argument"
    thread.join()


async def test_ping_pong_with_another_thread(loop: Loop) -> None:
    asked = threading.Semaphore(0)
    answered = asyncio.Semaphore(0)

    def work() -> None:
        for _ in range(1_000):
            asked.acquire()
            loop.call_soon_threadsafe(answered.release)

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(1_000):
        asked.release()
        await answered.acquire()
    thread.join()


async def test_a_wake_while_the_loop_is_busy_is_spent(loop: Loop) -> None:
    for _ in range(10):
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(int,))
        thread.start()
        thread.join()
        # If the loop did not wait now, it would not release the GIL either.
        await loop.run_in_executor(None, sum, range(1_000_000))


async def test_nothing_is_lost_and_every_threads_order_is_kept(loop: Loop) -> None:
    threads, count = 4, 5_000
    got: list[list[int]] = [[] for _ in range(threads)]
    left = threads
    done = loop.create_future()

    def finished() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done.set_result(None)

    def work(number: int) -> None:
        for i in range(count):
            loop.call_soon_threadsafe(got[number].append, i)
        loop.call_soon_threadsafe(finished)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    await done
    for worker in workers:
        worker.join()
    assert got == [list(range(count))] * threads


def test_calls_made_before_the_loop_runs_are_kept(loop: Loop) -> None:
    order: list[int] = []
    for i in range(5):
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(order.append, i))
        thread.start()
        thread.join()
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    assert order == [0, 1, 2, 3, 4]


async def test_it_may_be_called_in_the_loops_own_thread(loop: Loop) -> None:
    got = loop.create_future()
    loop.call_soon_threadsafe(got.set_result, 1)
    assert await got == 1


def test_a_closed_loop_refuses_calls_from_threads(loop_module: ModuleType) -> None:
    loop = loop_module.new_event_loop()
    loop.close()
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        pytest.raises(RuntimeError, match="closed"),
    ):
        pool.submit(loop.call_soon_threadsafe, int).result()


def test_closing_while_a_thread_calls(loop_module: ModuleType) -> None:
    for _ in range(50):
        loop = loop_module.new_event_loop()
        started = threading.Event()

        def work(loop: Loop = loop, started: threading.Event = started) -> None:
            started.set()
            with pytest.raises(RuntimeError, match="closed"):
                while True:
                    loop.call_soon_threadsafe(int)

        thread = threading.Thread(target=work)
        thread.start()
        started.wait()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        thread.join()


async def test_run_coroutine_threadsafe(loop: Loop) -> None:
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    def work() -> int:
        return asyncio.run_coroutine_threadsafe(add(1, 2), loop).result(TIMEOUT)

    assert await loop.run_in_executor(None, work) == 3


async def echo_once() -> bytes:
    served = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()
        await writer.wait_closed()
        served.set_result(None)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        await served
        return answer


def test_loops_in_several_threads_at_once(loop_module: ModuleType) -> None:
    everybody_runs = threading.Barrier(4)

    async def main() -> set[bytes]:
        everybody_runs.wait(TIMEOUT)
        return {await echo_once() for _ in range(20)}

    def work() -> set[bytes]:
        loop = loop_module.new_event_loop()
        try:
            return loop.run_until_complete(within(main()))
        finally:
            finish(loop)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = [pool.submit(work) for _ in range(4)]
        assert [result.result() for result in results] == [{b"hello"}] * 4


def test_a_loop_may_be_made_in_one_thread_and_run_in_another(loop: Loop) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(loop.run_until_complete, within(echo_once())).result() == b"hello"
    assert loop.run_until_complete(within(echo_once())) == b"hello"


def test_a_loop_cannot_run_in_two_threads(loop: Loop) -> None:
    async def main() -> None:
        def work() -> None:
            coroutine = asyncio.sleep(0)
            try:
                loop.run_until_complete(coroutine)
            finally:
                coroutine.close()

        with pytest.raises(RuntimeError, match="already running"):
            await loop.run_in_executor(None, work)

    loop.run_until_complete(main())


def test_get_running_loop_belongs_to_the_thread(loop: Loop) -> None:
    async def main() -> None:
        assert asyncio.get_running_loop() is loop
        with pytest.raises(RuntimeError):
            await loop.run_in_executor(None, asyncio.get_running_loop)

    loop.run_until_complete(main())


def test_the_gil_is_free_while_the_loop_waits(loop: Loop) -> None:
    """A thread that needs the GIL for all it does ends a wait that nothing else would end."""

    def work() -> None:
        total = sum(range(1_000_000))
        loop.call_soon_threadsafe(done.set_result, total)

    done = loop.create_future()
    thread = threading.Thread(target=work)
    loop.call_soon(thread.start)
    assert loop.run_until_complete(within(done)) == sum(range(1_000_000))
    thread.join()


def test_a_loop_dropped_in_another_thread(loop_module: ModuleType) -> None:
    def work(loops: list[Loop]) -> None:
        loops.pop().close()

    thread = threading.Thread(target=work, args=([loop_module.new_event_loop()],))
    thread.start()
    thread.join()
