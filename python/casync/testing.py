"""A loop for tests, whose time jumps.

    from casync.testing import VirtualTimeLoop
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(asyncio.sleep(3600))  # ends at once

With pytest, `from casync.testing import virtual_time_loop` (in conftest.py, say) gives a fixture.
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
    """A loop with virtual time raises this where it would have waited for ever: nothing is ready,
    no timer is set, and nothing from outside is awaited. The message tells what each task waits
    for."""


class VirtualTimeLoop(EventLoop):
    """This event loop starts at time 0 and jumps to the next timer when there is nothing to do.

    Time jumps only while nothing from outside is awaited: a descriptor (of a connection, a server,
    a pipe, a signal handler), a job of run_in_executor, a child. As long as something is, time
    passes as it does in reality, so real I/O works. With `forced=True` time jumps all the same:
    timeouts then win against any I/O that is not there already; good for a server under test that
    is always listening.

    A run that would never end raises DeadlockError. What threads of your own will do through
    call_soon_threadsafe cannot be known: a loop that only waits for that counts as deadlocked,
    unless this happens inside `with loop.awaiting_outside():`.
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
        """Tells the loop that something from outside is awaited as long as this block lasts: time
        does not jump (unless it is forced to), and waiting is no deadlock."""
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
        """Gives a test a VirtualTimeLoop, which is the current loop. At the end it is closed, with
        what is left of its tasks.
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
