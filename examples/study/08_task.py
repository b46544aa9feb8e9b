"""A task: what drives a coroutine.

Run it from the repository's root:   python3 examples/study/08_task.py

A task is a function, called `step` here, that the loop calls like any other callback. It runs the
coroutine up to its next await. Out comes the future that is awaited, and the task asks this future
to call step again. So nobody waits: the coroutine lies still until a callback picks it up.

This one works on asyncio's loop and asyncio's futures. It cannot be cancelled, and is no future
itself: tiny.py adds both. asyncio's own adds to that eagerness, names, context variables and good
error messages.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Task:
    def __init__(self, name: str, coroutine: Coroutine[Any, None, Any]) -> None:
        self.name, self.coroutine = name, coroutine
        self.loop = asyncio.get_running_loop()
        self.result = self.loop.create_future()
        self.loop.call_soon(self.step)  # it starts in the next turn, not now

    def step(self, _: object = None) -> None:
        print(f"  step of {self.name}")
        try:
            future = self.coroutine.send(None)
        except StopIteration as stop:
            self.result.set_result(stop.value)
        except Exception as error:
            self.result.set_exception(error)
        else:
            if future is None:  # a bare yield, as in asyncio.sleep(0)
                self.loop.call_soon(self.step)
            else:
                future._asyncio_future_blocking = False  # says to asyncio: this task has taken it
                future.add_done_callback(self.step)


async def work(name: str, gate: "asyncio.Future[str]") -> str:
    print(f"{name} begins")
    await asyncio.sleep(0)
    print(f"{name} waits")
    value = await gate
    print(f"{name} ends")
    return f"{name} {value}"


async def fail() -> None:
    raise ValueError("a task's error is its future's error")


async def main() -> None:
    gate = asyncio.get_running_loop().create_future()
    a, b = Task("a", work("a", gate)), Task("b", work("b", gate))
    print("the tasks are made, and have not begun")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    print("the gate opens")
    gate.set_result("passed")
    print("results:", [await a.result, await b.result])
    try:
        await Task("c", fail()).result
    except ValueError as error:
        print("error:", error)


asyncio.run(main())

# Prints:
#   the tasks are made, and have not begun
#     step of a
#   a begins
#     step of b
#   b begins
#     step of a
#   a waits
#     step of b
#   b waits
#   the gate opens
#     step of a
#   a ends
#     step of b
#   b ends
#   results: ['a passed', 'b passed']
#     step of c
#   error: a task's error is its future's error
