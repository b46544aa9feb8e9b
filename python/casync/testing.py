"""VirtualTimeLoop is a loop for tests: its time jumps to the next timer.

    from casync.testing import VirtualTimeLoop
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(asyncio.sleep(3600))  # ends at once

With pytest, import the fixture: `from casync.testing import virtual_time_loop`, for example in
conftest.py.
"""

# Some of this is about asyncio's private names, which typeshed does not have:
# mypy: disable-error-code="attr-defined, misc, override"

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .loop import EventLoop
from .tasks import dump_tasks


class DeadlockError(RuntimeError):
    """A VirtualTimeLoop raises this error instead of waiting for ever.

    It does so when no callback is ready, no timer is set, and the loop awaits nothing from outside.
    The message says what each task waits for.
    """


class VirtualTimeLoop(EventLoop):
    """This event loop starts at time 0 and jumps to the next timer when it has nothing to do.

    Time jumps only while the loop awaits nothing from outside. A watched descriptor (of a
    connection, a server, a pipe or a signal handler), a call in run_in_executor() and a child
    process are outside. While the loop awaits one of these, time passes as in reality, so real I/O
    works. With `forced=True` time jumps even then. A timeout then wins against any I/O that has not
    arrived yet. This suits a test of a server that listens all the time.

    A run that would never end raises DeadlockError. The loop cannot know whether another thread of
    yours will call call_soon_threadsafe(). If it waits only for such a call, it counts as
    deadlocked, unless it waits inside `with loop.awaiting_outside():`. Like any loop, this one
    belongs to the thread that runs it.
    """

    __slots__ = ("_children", "_outside_count", "_outside_fd")

    def __init__(self, *, forced: bool = False) -> None:
        self._use_virtual_time(forced)
        self._outside_count = 0
        self._outside_fd = -1
        self._children: set[int] = set()  # those that have not ended, by pid
        super().__init__()

    @contextmanager
    def awaiting_outside(self) -> Iterator[None]:
        """Tells the loop, while this block lasts, that it awaits something from outside.

        Time then does not jump (unless `forced` is true), and waiting is no deadlock. Enter and
        leave the block in the loop's thread. Blocks may nest.
        """
        self._begin_outside()
        try:
            yield
        finally:
            self._end_outside()

    def _begin_outside(self) -> None:
        """The first of these watches a descriptor on which nothing will come: casync.h understands
        that.
        """
        self._outside_count += 1
        if self._outside_count == 1:
            self._outside_fd = os.eventfd(0)
            self._add_reader(self._outside_fd, int)

    def _end_outside(self) -> None:
        self._outside_count -= 1
        if self._outside_count == 0:
            self._remove_reader(self._outside_fd)
            os.close(self._outside_fd)

    def close(self) -> None:
        if self._outside_count > 0 and not self.is_closed() and not self.is_running():
            self._outside_count = 1
            self._end_outside()
        super().close()

    def _run_turns(self) -> None:
        super()._run_turns()
        if self._deadlocked():
            report = io.StringIO()
            dump_tasks(self, report)
            raise DeadlockError(f"nothing can go on; {report.getvalue()}")

    # -- what threads and children do for asyncio --

    def run_in_executor(
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = super().run_in_executor(executor, func, *args)
        self._begin_outside()
        future.add_done_callback(lambda _: self._outside_done())
        return future

    def _outside_done(self) -> None:
        if not self.is_closed():
            self._end_outside()

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        with self.awaiting_outside():
            await super().shutdown_default_executor(*args, **kwargs)

    async def _make_subprocess_transport(self, *args: Any, **kwargs: Any) -> Any:
        """A child counts until it has ended: before Python 3.12 a thread waits for it."""
        with self.awaiting_outside():
            transport = await super()._make_subprocess_transport(*args, **kwargs)
        if transport.get_returncode() is None:
            self._children.add(transport.get_pid())
            self._begin_outside()
        return transport

    def _child_watcher_callback(self, pid: int, returncode: int, transp: Any) -> None:
        super()._child_watcher_callback(pid, returncode, transp)
        self.call_soon_threadsafe(self._child_ended, pid)

    def _child_ended(self, pid: int) -> None:
        if pid in self._children:
            self._children.remove(pid)
            self._end_outside()


try:
    import pytest
except ImportError:  # the fixture alone needs it
    pass
else:

    @pytest.fixture
    def virtual_time_loop() -> Iterator[VirtualTimeLoop]:
        """Gives a test a VirtualTimeLoop and makes it the current loop. When the test has ended,
        the fixture cancels the tasks that are left and closes the loop.
        """
        loop = VirtualTimeLoop()
        asyncio.set_event_loop(loop)
        try:
            yield loop
        finally:
            asyncio.set_event_loop(None)
            if not loop.is_closed():
                _finish(loop)

    def _finish(loop: VirtualTimeLoop) -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
