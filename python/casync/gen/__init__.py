"""casync.gen is for asynchronous programs that are written with generators: they wait with `yield
from`, on casync's event loop.

    from casync import gen

    def greet(name, delay):
        yield from gen.sleep(delay)
        print("hello,", name)

    def main():
        yield from gen.gather(greet("later", 0.2), greet("soon", 0.1))

    gen.run(main())

A task is an asyncio.Task, so generators and coroutines run on one loop and can wait for each other:

- A generator waits with `yield from future` or `yield from create_task(coroutine)`. This is how it
  uses what asyncio has and this module lacks.
- A coroutine waits with `await create_task(generator)`. It may also await the objects that a
  generator waits for with `yield from`, as in `await lock.acquire()`.
- A generator function that is decorated with types.coroutine (standard library) can do both. Its
  body may `yield from coroutine`, and a caller may await the object that it returns.

A bare `yield` gives up one turn of the loop. Names mean what they mean in asyncio unless their
docstrings say otherwise. Each object belongs to one loop and its thread, as in asyncio.
"""

from __future__ import annotations

import importlib
from asyncio import Future, QueueEmpty, QueueFull, Task
from typing import Any

from .gensocket import GenSocket
from .queue import Queue
from .sync import Condition, Event, Lock, Semaphore
from .task import (
    GenCancelledError,
    Loop,
    create_task,
    gather,
    get_running_loop,
    run,
    sleep,
    wait_for,
)

__all__ = [
    "Condition",
    "Event",
    "Future",
    "GenCancelledError",
    "GenSocket",
    "Lock",
    "Loop",
    "Queue",
    "QueueEmpty",
    "QueueFull",
    "Semaphore",
    "Task",
    "create_task",
    "gather",
    "get_running_loop",
    "run",
    "sleep",
    "wait_for",
]


def __getattr__(name: str) -> Any:
    if name == "http":  # imported when it is asked for, since it needs h11
        return importlib.import_module(".http", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
