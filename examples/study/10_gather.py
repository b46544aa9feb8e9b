"""Gather: wait for many.

Run it from the repository's root:   python3 examples/study/10_gather.py

It starts a task for each coroutine and counts them down. When the last is done the future it gave
is done, too. So it takes as long as the slowest, and the results have the order of the arguments,
whoever ended first.

The first error is passed on at once, and the other tasks just go on: nobody waits for them any
more. That is asyncio's choice; a task group ends them (page 15). With return_exceptions=True errors
count as results. What this one lacks: who cancels asyncio's gather cancels its tasks, too.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any


def gather(*coroutines: Coroutine[Any, Any, Any]) -> "asyncio.Future[list[Any]]":
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    everything = asyncio.get_running_loop().create_future()
    left = len(tasks)

    def one_is_done(task: "asyncio.Task[Any]") -> None:
        nonlocal left
        left -= 1
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if everything.done():
            return
        if error:
            everything.set_exception(error)
        elif left == 0:
            everything.set_result([task.result() for task in tasks])

    for task in tasks:
        task.add_done_callback(one_is_done)
    if not tasks:
        everything.set_result([])
    return everything


async def fetch(name: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    print(f"  {name} is there")
    return name.upper()


async def fail() -> str:
    raise ValueError("no such page")


async def wait(task: "asyncio.Task[str]") -> str:
    return await task


async def patient(error_was_seen: asyncio.Event) -> str:
    await error_was_seen.wait()
    return "the other task went on"


async def main() -> None:
    for name, function in ("ours", gather), ("asyncio's", asyncio.gather):
        print(name)
        print("  results:", await function(fetch("slow", 0.1), fetch("fast", 0.02)))
        error_was_seen = asyncio.Event()
        other = asyncio.create_task(patient(error_was_seen))
        try:
            await function(wait(other), fail())
        except ValueError as error:
            print("  error:", error)
        error_was_seen.set()
        print(" ", await other)
    print(
        "errors as results:",
        await asyncio.gather(fetch("fast", 0.01), fail(), return_exceptions=True),
    )


asyncio.run(main())

# Prints:
#   ours
#     fast is there
#     slow is there
#     results: ['SLOW', 'FAST']
#     error: no such page
#     the other task went on
#   asyncio's
#     fast is there
#     slow is there
#     results: ['SLOW', 'FAST']
#     error: no such page
#     the other task went on
#     fast is there
#   errors as results: ['FAST', ValueError('no such page')]
