"""dump_tasks() writes what every task of a loop waits for."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Iterator
from typing import Any, TextIO


def dump_tasks(loop: asyncio.AbstractEventLoop | None = None, file: TextIO | None = None) -> None:
    """Writes to `file`, by default stderr, what every task of a loop waits for.

    For each task that is not done it writes the name, the state, the place where each of the task's
    coroutines stands (the outermost first), and the object that the innermost one awaits.
    (Task.print_stack() shows only the outermost coroutine.)

    `loop` may be any asyncio loop; by default it is the running one. Raises RuntimeError if none is
    given and none runs in this thread. Call this in the loop's thread. A signal handler may call it
    too, so you can ask a program that hangs what it does:

        signal.signal(signal.SIGUSR1, lambda *_: casync.dump_tasks(loop))
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    print(
        f"{len(tasks)} tasks of {loop!r}",
        *map(describe_task, tasks),
        sep="\n",
        file=file or sys.stderr,
    )


def describe_task(task: asyncio.Task[Any]) -> str:
    """Returns a line with the task's name and state, a line for each of its coroutines, and a line
    with what it waits for.
    """
    state = "cancelling" if getattr(task, "cancelling", int)() else "pending"
    lines = [f"{task.get_name()} ({state})"]
    lines += [f"    {place_of(awaitable)}" for awaitable in await_chain(task.get_coro())]
    waiter = getattr(task, "_fut_waiter", None)
    lines.append(
        f"    waits for {waiter!r}" if waiter is not None else "    is ready to run, or running"
    )
    return "\n".join(lines)


def await_chain(awaitable: Any) -> Iterator[Any]:
    """Yields a coroutine or generator, then the one that it awaits, and so on, as far as Python
    shows them.
    """
    while awaitable is not None and not asyncio.isfuture(awaitable):
        if not (inspect.isawaitable(awaitable) or inspect.isgenerator(awaitable)):
            return  # the iterator of a future
        yield awaitable
        awaitable = next(
            (
                getattr(awaitable, name)
                for name in ("cr_await", "gi_yieldfrom", "ag_await")
                if hasattr(awaitable, name)
            ),
            None,
        )


def place_of(awaitable: Any) -> str:
    name = getattr(awaitable, "__qualname__", type(awaitable).__qualname__)
    frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
    if frame is None or getattr(awaitable, "cr_code", frame) is None:  # in C there is no place
        return name
    return f"{name} at {frame.f_code.co_filename}:{frame.f_lineno}"
