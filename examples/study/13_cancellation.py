"""Cancellation.

Run it from the repository's root:   python3 examples/study/13_cancellation.py

A thread cannot be stopped from outside in a way that is safe: it may hold a lock, or be half
through. A task stands at an await whenever others run, so there it can be told: task.cancel() makes
that await raise CancelledError. The task then unwinds like from any error, through its `finally`
and `async with`.

- cancel() is a request. It takes effect when the task's step runs next; await the task to know it
  has ended.
- Clean up in `finally`. Who catches CancelledError should raise it again, for the canceller relies
  on it. It is a BaseException, so `except Exception` lets it pass.
- What a task awaits is cancelled with it: the request goes down the chain of awaits to what really
  waits. shield() keeps it from going further down.
- A timeout is a timer that cancels, and turns the CancelledError into a TimeoutError: wait_for,
  timeout.
- A thread that was started with to_thread goes on: only its awaiting ends.
"""

import asyncio
import contextlib


async def worker(name: str) -> None:
    print(f"  {name} begins")
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        print(f"  {name} is cancelled where it stands")
        raise
    finally:
        print(f"  {name} cleans up")


async def outer() -> None:
    await worker("inner")


async def stubborn() -> str:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(3600)
    return "went on"


async def save(done: asyncio.Event) -> str:
    await done.wait()
    return "saved"


async def started(task: "asyncio.Task[object]") -> "asyncio.Task[object]":
    await asyncio.sleep(0)
    return task


async def main() -> None:
    task = await started(asyncio.create_task(outer()))
    print("cancel() says:", task.cancel())
    try:
        await task
    except asyncio.CancelledError:
        print("the one who awaits it sees it, too; cancelled:", task.cancelled())
    print("once it is done there is nothing to cancel:", task.cancel())

    task = asyncio.create_task(worker("never begun"))
    task.cancel()  # before its first step: then not a line of it runs
    await asyncio.wait([task])  # wait() looks at no result, so it raises none
    print("cancelled before it began:", task.cancelled())

    task = await started(asyncio.create_task(stubborn()))
    task.cancel()
    print("one that swallows it:", await task)

    try:
        await asyncio.wait_for(worker("slow"), 0.01)
    except asyncio.TimeoutError:
        print("a timeout is a timer that cancels")

    done = asyncio.Event()
    saving = asyncio.create_task(save(done))

    async def impatient() -> str:
        return await asyncio.shield(saving)

    task = await started(asyncio.create_task(impatient()))
    task.cancel()
    await asyncio.wait([task])
    print("who waits before the shield is cancelled:", task.cancelled())
    done.set()
    print("what was behind the shield:", await saving)


asyncio.run(main())

# Prints:
#     inner begins
#   cancel() says: True
#     inner is cancelled where it stands
#     inner cleans up
#   the one who awaits it sees it, too; cancelled: True
#   once it is done there is nothing to cancel: False
#   cancelled before it began: True
#   one that swallows it: went on
#     slow begins
#     slow is cancelled where it stands
#     slow cleans up
#   a timeout is a timer that cancels
#   who waits before the shield is cancelled: True
#   what was behind the shield: saved
