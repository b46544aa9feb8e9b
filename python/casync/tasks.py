"""dump_tasks(): what every task waits for."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Iterator
from typing import Any, TextIO


def dump_tasks(loop: asyncio.AbstractEventLoop | None = None, file: TextIO | None = None) -> None:
    """Writes to `file`, by default stderr, what every task of a loop waits for.

    The loop is the running one if none is given. Of each task that is not done this writes the name
    and state, where each of its coroutines stands, the outermost first, and what the innermost
    awaits. (Task.print_stack() shows the outermost coroutine alone.) It works on any asyncio loop,
    and also from a signal handler, so that a program that hangs can be asked what it does:

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
    """One task: a line with its name and state, and a line for each coroutine it is in."""
    state = "cancelling" if getattr(task, "cancelling", int)() else "pending"
    lines = [f"{task.get_name()} ({state})"]
    lines += [f"    {place_of(awaitable)}" for awaitable in await_chain(task.get_coro())]
    waiter = getattr(task, "_fut_waiter", None)
    lines.append(
        f"    waits for {waiter!r}" if waiter is not None else "    is ready to run, or running"
    )
    return "\n".join(lines)


def await_chain(awaitable: Any) -> Iterator[Any]:
    """A coroutine (or generator), what it awaits, what that awaits, and so on, as far as it can be
    seen.
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
    if frame is None:
        return name
    return f"{name} at {frame.f_code.co_filename}:{frame.f_lineno}"
