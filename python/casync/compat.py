"""What asyncio's own code, and programs, find in a loop in place of asyncio's private parts.

The queue of callbacks and the heap of timers are views of the native ones, and so is the selector.
In debug mode the handles are asyncio's own. What Python 3.10 lacks is here, too.
"""

# Much of this is about asyncio's private names, which typeshed does not have:
# mypy: disable-error-code="arg-type, attr-defined, misc, override"

from __future__ import annotations

import asyncio
import selectors
import socket
from asyncio import base_events, events
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .loop import EventLoop

_T = TypeVar("_T")


def warn_of_slow(source: str, duration: float) -> None:
    """Logs it by asyncio's name for the logger, which programs replace."""
    base_events.logger.warning("Executing %s took %.3f seconds", source, duration)


class Queue(Sequence[asyncio.Handle]):
    """`_ready` and `_scheduled` of a loop whose turns are native: a view of the native queue, or of
    the timers by their time. What else one does to a deque or a list makes the turns asyncio's own,
    and is done to the loop's real ones."""

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
    """`_selector`, as asyncio's own code uses it: a view of the native watchers. select() is for
    turns that are asyncio's own: all native work there is makes one event."""

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
        """A copy, by descriptor. Transports and servers have no handles here."""
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
    """In debug mode, and observed: asyncio's TimerHandle; a native one stands for it in the timer
    wheel.
    """

    __slots__ = ("_native",)
    _native: asyncio.TimerHandle

    @property
    def _scheduled(self) -> bool:
        return self._native._scheduled

    @_scheduled.setter
    def _scheduled(self, value: bool) -> None:
        """The native one knows."""

    def cancel(self) -> None:
        super().cancel()
        self._native.cancel()


class SelfPipe(socket.socket):
    """An end of the pipe by which signals wake the loop. It is younger than the loop: if nobody
    closes that, the garbage collector may come here first, and must leave it for loop.close()."""

    def __del__(self) -> None:
        pass


def run_before_311(
    main: Coroutine[Any, Any, _T],
    debug: bool | None,
    new_event_loop: Callable[[], asyncio.AbstractEventLoop],
) -> _T:
    """asyncio/runners.py of 3.10, which takes its loop from the policy."""
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
