"""Structured concurrency.

Run it from the repository's root:   python3 examples/study/15_structured_concurrency.py

create_task is like goto: it starts something that goes on after the function that started it has
returned. Who waits for it? Who sees its error? Who ends it, if the rest fails? A task group ties
the tasks to a block:

    async with TaskGroup() as group:
        group.create_task(one())
        group.create_task(two())
    # here all of them have ended

- The block ends when the last task has ended. No task outlives it, so what they use may be closed
  after it.
- If a task fails, the others (and the block's body) are cancelled, awaited, and then the error
  comes out.
- If the block itself is cancelled, so are its tasks.

So a function that uses a group inside is, from outside, an ordinary function again: it returns, or
raises. Python 3.11 has asyncio.TaskGroup. This one is simpler: of several errors the first alone
comes out, and it does not count cancellations (Task.uncancel), by which nested groups and timeouts
tell whose each was.
"""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any


class TaskGroup:
    async def __aenter__(self) -> "TaskGroup":
        self.tasks: set[asyncio.Task[Any]] = set()
        self.error: BaseException | None = None
        self.body = asyncio.current_task()
        self.in_body = True
        return self

    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.one_is_done)
        return task

    def one_is_done(self, task: "asyncio.Task[Any]") -> None:
        self.tasks.discard(task)
        if task.cancelled() or task.exception() is None or self.error:
            return
        self.error = task.exception()
        self.cancel_all()
        if self.in_body and self.body:
            self.body.cancel()  # it may wait for something that now never comes

    def cancel_all(self) -> None:
        for task in self.tasks:
            task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.in_body = False
        if error:
            self.cancel_all()
        while self.tasks:
            try:
                await asyncio.wait(self.tasks)
            except asyncio.CancelledError as cancelled:  # of the block, while it waits for its end
                error = error or cancelled
                self.cancel_all()
        if self.error:
            raise self.error  # in place of the body's own cancellation, if there was one
        if error:
            raise error


async def worker(name: str, steps: int) -> str:
    try:
        for _ in range(steps):
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        print(f"  {name} is cancelled")
        raise
    print(f"  {name} has ended")
    return name


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("one of them failed")


async def main() -> None:
    print("all is well:")
    async with TaskGroup() as group:
        short, long = group.create_task(worker("short", 1)), group.create_task(worker("long", 5))
    print("after the block:", short.result(), "and", long.result())

    print("one fails:")
    try:
        async with TaskGroup() as group:
            group.create_task(worker("sibling", 1_000_000))
            group.create_task(fail())
            await worker("body", 1_000_000)
    except ValueError as error:
        print("out of the block comes:", error)

    print("the block is cancelled:")

    async def block() -> None:
        async with TaskGroup() as group:
            group.create_task(worker("child", 1_000_000))

    task = asyncio.create_task(block())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    print("cancelled:", task.cancelled())
    print("tasks left over:", len(asyncio.all_tasks()) - 1)


asyncio.run(main())

# Prints:
#   all is well:
#     short has ended
#     long has ended
#   after the block: short and long
#   one fails:
#     body is cancelled
#     sibling is cancelled
#   out of the block comes: one of them failed
#   the block is cancelled:
#     child is cancelled
#   cancelled: True
#   tasks left over: 0
