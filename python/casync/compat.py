"""This module replaces private parts of asyncio's loop, for asyncio's own code and for programs
that use them.

The queue of callbacks, the heap of timers and the selector are views of the native ones. In debug
mode the handles are asyncio's own. This module also has what older Pythons lack: a run() that takes
a loop's maker before 3.11, and 3.14's thread-safe handles for 3.13 without a GIL.
"""

# Much of this is about asyncio's private names, which typeshed does not have:
# mypy: disable-error-code="arg-type, attr-defined, misc, override"

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
import threading
from asyncio import base_events, events
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .loop import EventLoop

_T = TypeVar("_T")


def warn_of_slow(source: str, duration: float) -> None:
    """Logs, to asyncio's logger (which programs may replace), that `source` took `duration`
    seconds.
    """
    base_events.logger.warning("Executing %s took %.3f seconds", source, duration)


class Queue(Sequence[asyncio.Handle]):
    """A loop whose turns are native has this object as its `_ready` and `_scheduled`.

    It is a view of the native queue, or of the native timers in the order of their times. If a
    program uses another method of a deque or a list, the loop changes to asyncio's own turns, and
    the method acts on the loop's real deque or list.
    """

    def __init__(self, loop: EventLoop, name: str) -> None:
        self._loop = loop
        self._name = name

    def _handles(self) -> list[asyncio.Handle]:
        ready, timers = self._loop._queued()
        return ready if self._name == "_ready" else sorted(timers, key=lambda handle: handle._when)

    def __len__(self) -> int:
        return len(self._handles())

    def __iter__(self) -> Iterator[asyncio.Handle]:
        return iter(self._handles())

    def __getitem__(self, index: Any) -> Any:
        return self._handles()[index]

    def __repr__(self) -> str:
        return repr(self._handles())

    def append(self, handle: asyncio.Handle) -> None:
        self._loop._enqueue(self._loop._run_handle, handle)

    def copy(self) -> list[asyncio.Handle]:
        return self._handles()

    def clear(self) -> None:
        for handle in self:
            handle.cancel()

    def _real(self) -> Any:
        self._loop._use_asyncio_turns()
        return getattr(self._loop, self._name)

    def __setitem__(self, index: Any, handle: Any) -> None:
        self._real()[index] = handle

    def __delitem__(self, index: Any) -> None:
        del self._real()[index]

    def __iadd__(self, handles: Any) -> Any:
        queue = self._real()
        queue += handles
        return queue

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)


class Selector(selectors.BaseSelector):
    """A loop has this object as its `_selector`: a view of the native watchers.

    select() serves asyncio's own turns. It makes one event of all the native work that is ready.
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        watched = self._loop._watched(fileobj)
        if watched is None:
            raise KeyError(f"{fileobj!r} is not registered")
        file, fd, reader, writer = watched
        mask = selectors.EVENT_READ * (reader is not None) | selectors.EVENT_WRITE * (
            writer is not None
        )
        return selectors.SelectorKey(file, fd, mask, (reader, writer))

    def get_map(self) -> dict[int, selectors.SelectorKey]:
        """Returns a dict from descriptors to keys, which is a copy. The keys of transports and
        servers have no handles.
        """
        keys = {}
        for fd, mask in self._loop._descriptors():
            file, _, reader, writer = self._loop._watched(fd) or (fd, fd, None, None)
            keys[fd] = selectors.SelectorKey(file, fd, mask, (reader, writer))
        return keys

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        raise NotImplementedError("use loop.add_reader() and loop.add_writer()")

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        raise NotImplementedError("use loop.remove_reader() and loop.remove_writer()")

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self._loop
        if loop._deque or (timeout is not None and timeout <= 0):
            is_ready = loop._poll(0)
        else:
            # Another thread's call_soon_threadsafe is an event, too: asyncio reads it from its
            # self-pipe.
            is_ready = loop._poll(timeout) or bool(loop._deque)
        if not is_ready:
            return []
        handle = events.Handle(loop._run_ready, (), loop, None)
        return [
            (
                selectors.SelectorKey(self, -1, selectors.EVENT_READ, (handle, None)),
                selectors.EVENT_READ,
            )
        ]

    def close(self) -> None:
        pass


class TimerHandle(asyncio.TimerHandle):
    """call_at() returns this asyncio.TimerHandle in debug mode and while the loop is observed. A
    native TimerHandle stands for it in the timer wheel.
    """

    __slots__ = ("_native",)
    _native: asyncio.TimerHandle

    @property
    def _scheduled(self) -> bool:
        return self._native._scheduled

    @_scheduled.setter
    def _scheduled(self, value: bool) -> None:
        """Does nothing: the native handle knows whether it is scheduled."""

    def cancel(self) -> None:
        super().cancel()
        self._native.cancel()


class Handle(asyncio.Handle):
    """A handle that other threads may cancel, for Python 3.13 without a GIL.

    It does what 3.14's _ThreadSafeHandle does (Lib/asyncio/events.py): cancel() waits while the
    callback runs. call_soon_threadsafe() below returns it.
    """

    __slots__ = ("_lock",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lock = threading.RLock()

    def cancel(self) -> None:
        with self._lock:
            super().cancel()

    def cancelled(self) -> bool:
        with self._lock:
            return super().cancelled()

    def _run(self) -> None:
        with self._lock:
            if not self._cancelled:
                super()._run()


def call_soon_threadsafe(
    loop: EventLoop,
    callback: Callable[..., object],
    *args: object,
    context: Context | None = None,
) -> asyncio.Handle:
    """Does what BaseEventLoop.call_soon_threadsafe does in 3.14, for 3.13 without a GIL, whose
    handles do not expect that another thread cancels them while they run.
    """
    loop._check_closed()
    if loop._debug:
        loop._check_callback(callback, "call_soon_threadsafe")
    handle = Handle(callback, args, loop, context)
    loop._ready.append(handle)
    if handle._source_traceback:
        del handle._source_traceback[-2:]  # __init__ and this function
    loop._write_to_self()
    return handle


class SelfPipe(socket.socket):
    """A SelfPipe is one end of the pipe by which signals wake the loop.

    It is younger than the loop. If nobody closes the loop, the garbage collector may reach this
    object first, and must leave its descriptor for loop.close().
    """

    def __del__(self) -> None:
        pass


def who_has_greenlets() -> str | None:
    """Returns "gevent" or "eventlet" if that has replaced threads or select().

    What the program takes for threads are greenlets there, which run while others wait in a
    replaced function. A casync loop waits in the kernel: who waits for an executor would hang.
    """
    gevent, eventlet = map(sys.modules.get, ("gevent.monkey", "eventlet.patcher"))
    if gevent and any(map(gevent.is_module_patched, ("threading", "select"))):
        return "gevent"
    if eventlet and any(map(eventlet.is_monkey_patched, ("thread", "select"))):
        return "eventlet"
    return None


def run_before_311(
    main: Coroutine[Any, Any, _T],
    debug: bool | None,
    new_event_loop: Callable[[], asyncio.AbstractEventLoop],
) -> _T:
    """Does what asyncio.run() of Python 3.10 does (Lib/asyncio/runners.py), with a loop that
    new_event_loop() makes. Raises ValueError if `main` is not a coroutine.
    """
    if not asyncio.iscoroutine(main):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    loop = new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        if debug is not None:
            loop.set_debug(debug)
        return loop.run_until_complete(main)
    finally:
        try:
            asyncio.runners._cancel_all_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
