"""This module runs generators as asyncio tasks.

A task's coroutine only delegates to the generator, so steps, wakeups, cancellation and names are
asyncio's own, and as fast. `await` and `yield from` are the same instruction; a flag on the code
object (CO_ITERABLE_COROUTINE, PEP 492) tells them apart. types.coroutine sets the flag. Then both
kinds of function can wait for the object that the generator function returns.
"""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, TypeVar

from .. import loop as casync_loop

T = TypeVar("T")

# asyncio's own: a task that is cancelled looks the same from generators and coroutines.
GenCancelledError = asyncio.CancelledError


class _Awaitable:
    """A generator as the object of an `await`."""

    __slots__ = ("_generator",)

    def __init__(self, generator: Generator[Any, Any, T]) -> None:
        self._generator = generator

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._generator


async def _delegate(generator: Any) -> Any:
    if generator.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE:
        return await generator
    return await _Awaitable(generator)


def _coroutine(function: str, awaitable: Any) -> Coroutine[Any, Any, Any]:
    """Returns a coroutine that does what a generator or coroutine does. An error message names the
    caller, `function`.
    """
    if inspect.iscoroutine(awaitable):
        return awaitable
    if not isinstance(awaitable, types.GeneratorType):
        hint = "; call it first" if inspect.isroutine(awaitable) else ""
        raise TypeError(f"{function}() takes a generator or a coroutine, not {awaitable!r}{hint}")
    coroutine: Any = _delegate(awaitable)
    coroutine.__name__, coroutine.__qualname__ = awaitable.__name__, awaitable.__qualname__
    return coroutine


def _ensure_future(function: str, awaitable: Any) -> asyncio.Future[Any]:
    """The future itself, or a new task for anything else that can be waited for."""
    if asyncio.isfuture(awaitable):
        return awaitable
    if isinstance(awaitable, Awaitable) and not inspect.iscoroutine(awaitable):
        return asyncio.ensure_future(awaitable)
    return asyncio.get_running_loop().create_task(_coroutine(function, awaitable))


def run(main: Generator[Any, Any, T] | Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Runs a generator on a new casync loop, and returns its result.

    It does what asyncio.run() does: it is the entry point of a program, and cancels the tasks that
    are left at the end. Raises RuntimeError if a loop runs in this thread already, and TypeError if
    `main` is neither a generator nor a coroutine.
    """
    coroutine = _coroutine("run", main)
    try:
        return casync_loop.run(coroutine, debug=debug)
    finally:
        coroutine.close()  # for a run that failed before it began


class Loop:
    """A Loop stands for a running event loop, of casync or any other. Its create_task() takes
    generators too. Its other methods are those of the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def create_task(
        self, awaitable: Generator[Any, Any, T] | Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        """Does what casync.gen.create_task() does."""
        return self._loop.create_task(_coroutine("create_task", awaitable), **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def __eq__(self, other: object) -> bool:
        return (other._loop if isinstance(other, Loop) else other) is self._loop

    def __hash__(self) -> int:
        return hash(self._loop)

    def __repr__(self) -> str:
        return f"<casync.gen.Loop of {self._loop!r}>"


def get_running_loop() -> Loop:
    """Returns the loop that runs the caller. Raises RuntimeError if there is none."""
    return Loop(asyncio.get_running_loop())


def create_task(
    awaitable: Generator[Any, Any, T] | Coroutine[Any, Any, T], **options: Any
) -> asyncio.Task[T]:
    """Schedules a generator or a coroutine as a task, which begins in the loop's next turn.

    `yield from task` and `await task` return its result. `options` are those of
    asyncio.create_task(). Keep a reference to the task until it is done, as in asyncio. Raises
    RuntimeError if no loop runs in this thread, and TypeError for any other object.
    """
    return get_running_loop().create_task(awaitable, **options)


@types.coroutine
def sleep(delay: float, result: Any = None) -> Generator[Any, Any, Any]:
    """Waits for `delay` seconds, and returns `result`. A delay of 0 gives up one turn."""
    return (yield from asyncio.sleep(delay, result))


@types.coroutine
def wait_for(awaitable: Any, timeout: float | None) -> Generator[Any, Any, Any]:
    """Waits for a generator, task, future or coroutine for at most `timeout` seconds.

    If it is not done then, this function cancels it and raises asyncio.TimeoutError, which is
    TimeoutError since Python 3.11. A `timeout` of None sets no limit.
    """
    if isinstance(awaitable, types.GeneratorType):
        awaitable = _coroutine("wait_for", awaitable)
    return (yield from asyncio.wait_for(awaitable, timeout))


def gather(*awaitables: Any, return_exceptions: bool = False) -> asyncio.Future[list[Any]]:
    """Runs generators, tasks, futures and coroutines at the same time.

    Returns a future whose result is the list of their results. If one of them raises, the future
    raises that error, and the others go on; with `return_exceptions`, the error is a result
    instead. If one of them is cancelled, its result is a GenCancelledError (in asyncio the whole
    gather() is cancelled then). Cancelling the future cancels all of them; it ends after them.
    """
    return _Gathering(awaitables, return_exceptions)


class _Gathering(asyncio.Future[Any]):
    """gather() returns this future."""

    def __init__(self, awaitables: tuple[Any, ...], return_exceptions: bool) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        futures = {id(awaitable): awaitable for awaitable in awaitables}
        for key, awaitable in futures.items():
            futures[key] = _ensure_future("gather", awaitable)
        self._children: list[asyncio.Future[Any]] = [
            futures[id(awaitable)] for awaitable in awaitables
        ]
        self._pending = dict.fromkeys(self._children)  # as an ordered set
        self._return_exceptions = return_exceptions
        self._cancel_requested = False
        for child in self._pending:
            child.add_done_callback(self._child_done)
        if not self._children:
            self.set_result([])

    def cancel(self, msg: Any = None) -> bool:
        if self.done():
            return False
        cancelled = [child.cancel(msg) for child in self._pending]
        self._cancel_requested |= any(cancelled)
        return any(cancelled)

    def _child_done(self, child: asyncio.Future[Any]) -> None:
        del self._pending[child]
        error = None if child.cancelled() else child.exception()  # which counts as retrieved now
        if self.done():
            return
        if error is not None and not self._return_exceptions:
            self.set_exception(error)
        elif not self._pending and self._cancel_requested:
            super().cancel()
        elif not self._pending:
            self.set_result([_outcome(child) for child in self._children])


def _outcome(future: asyncio.Future[Any]) -> Any:
    """The result of a future that is done, or the exception it ended with."""
    try:
        return future.result()
    except BaseException as error:
        return error
