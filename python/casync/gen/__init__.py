"""Asynchronous programs written with generators, on casync's event loop: all waiting is `yield
from`.

    from casync import gen

    def greet(name, delay):
        yield from gen.sleep(delay)
        print("hello,", name)

    def main():
        yield from gen.gather(greet("later", 0.2), greet("soon", 0.1))

    gen.run(main())

A task is an asyncio.Task, so the two worlds meet on one loop:

- In a generator: `yield from future`, `yield from create_task(coroutine)`. What asyncio has and
  this module lacks is used so.
- In a coroutine: `await create_task(generator)`, and `await` of whatever this package says to wait
  for with `yield from`: `await lock.acquire()`.
- A generator function decorated with the standard library's types.coroutine may do both: its body
  may `yield from coroutine`, and what it returns may be awaited.

A bare `yield` gives up one turn of the loop. Where nothing else is said here, names mean what they
mean in asyncio. Like asyncio's, these objects belong to one loop and its thread.
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
