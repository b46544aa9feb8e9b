"""Tasks that a loop makes: whose they are, factories, eager tasks, cancelling."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from casync import gen
from support import Loop, turns, unix_pair


def test_futures_and_tasks_belong_to_their_loop(loop: Loop) -> None:
    async def main() -> None:
        future = loop.create_future()
        assert future.get_loop() is loop
        task = loop.create_task(asyncio.sleep(0), name="named")
        assert task.get_loop() is loop and task.get_name() == "named"
        await task

    loop.run_until_complete(main())


def test_task_factories(loop: Loop) -> None:
    made: list[object] = []

    def factory(loop: Loop, coroutine: object, **options: object) -> asyncio.Task:
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    assert loop.run_until_complete(asyncio.sleep(0, 5)) == 5
    assert len(made) == 1
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
def test_eager_tasks(loop: Loop) -> None:
    loop.set_task_factory(asyncio.eager_task_factory)

    async def main() -> None:
        task = loop.create_task(asyncio.sleep(0, "not yet"))
        assert not task.done()

        async def immediate() -> str:
            return "at once"

        eager = loop.create_task(immediate())
        assert eager.done() and await eager == "at once"
        assert await task == "not yet"

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
async def test_eager_start(loop: Loop) -> None:
    begun: list[str] = []

    async def main(name: str) -> str:
        begun.append(name)
        await asyncio.sleep(0)
        return name

    eager = [
        loop.create_task(main("loop's"), eager_start=True),
        asyncio.create_task(main("asyncio's"), eager_start=True, name="named"),
    ]
    assert begun == ["loop's", "asyncio's"]
    lazy = loop.create_task(main("not eager"), eager_start=False)
    assert len(begun) == 2 and eager[1].get_name() == "named"
    assert await asyncio.gather(*eager, lazy) == [*begun[:2], "not eager"]


if sys.version_info >= (3, 15):

    def sleeping_generator() -> Iterator[Any]:
        yield from gen.sleep(1000)

    async def wait_for_a_generator(started: list[asyncio.Task[Any]]) -> None:
        started.append(gen.create_task(sleeping_generator()))
        await started[0]

    async def test_a_cancelled_task_group_ends_all_that_its_tasks_wait_for(loop: Loop) -> None:
        """No exception leaves the group, and what they waited for is there for the next."""
        streamed, received, body = pairs = [unix_pair() for _ in range(3)]
        reader, writer = await asyncio.open_connection(sock=streamed[0])
        generators: list[asyncio.Task[Any]] = []
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(coroutine)
                for coroutine in (
                    reader.readline(),
                    loop.sock_recv(received[0], 100),
                    wait_for_a_generator(generators),
                )
            ]
            await turns()
            loop.call_soon(group.cancel)
            await loop.sock_recv(body[0], 100)
            raise AssertionError("the body of the group goes on")
        assert all(task.cancelled() for task in tasks + generators) and len(generators) == 1
        for _, peer in pairs:
            peer.send(b"later\n")
        assert await reader.readline() == b"later\n"
        for ours in received[0], body[0]:
            assert await loop.sock_recv(ours, 100) == b"later\n"
        writer.transport.abort()
        for pair in pairs:
            for sock in pair:
                sock.close()


def test_timeouts_and_cancellation(loop: Loop) -> None:
    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.create_future(), 0.001)
        task = loop.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(main())
