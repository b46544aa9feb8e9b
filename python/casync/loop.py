"""EventLoop: asyncio's selector loop, whose queue, timers, watchers and streams are casync.h's.

The native base class (native/loop.c) has what is called often. asyncio's SelectorEventLoop, which is
different in each version of Python, brings the rest: signals, subprocesses, executors, getaddrinfo,
happy eyeballs, sendfile, debug mode. This class joins the two.
"""

# Much of this is about asyncio's private names, which typeshed does not have:
# mypy: disable-error-code="arg-type, assignment, attr-defined, misc, override, return-value"

from __future__ import annotations

import asyncio
import selectors
import signal
import socket
import sys
import threading
from asyncio import base_events, events, format_helpers, selector_events, sslproto
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from typing import Any, TypeVar

from ._extension import native

_T = TypeVar("_T")

# (callback, its arguments, function, its arguments): calls the function, which calls the callback.
_Observer = Callable[..., Any]


def _warn_of_slow(source: str, duration: float) -> None:
    # By asyncio's name for the logger, which programs replace.
    base_events.logger.warning("Executing %s took %.3f seconds", source, duration)


class _Queue:
    """`_ready` and `_scheduled`, as asyncio's own code uses them: a view of the native queue."""

    def __init__(self, loop: EventLoop, side: int) -> None:
        self._loop = loop
        self._side = side

    def __len__(self) -> int:
        return len(self._loop._queued()[self._side])

    def __iter__(self) -> Iterator[asyncio.Handle]:
        return iter(self._loop._queued()[self._side])

    def append(self, handle: asyncio.Handle) -> None:
        self._loop._enqueue(self._loop._run_handle, handle)

    def clear(self) -> None:
        for handle in self:
            handle.cancel()


class _Selector(selectors.BaseSelector):
    """`_selector`, as asyncio's own code uses it: a view of the native watchers."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        handles = self._loop._watched(fd)
        if handles is None:
            raise KeyError(f"{fileobj!r} is not registered")
        mask = selectors.EVENT_READ * (handles[0] is not None) | selectors.EVENT_WRITE * (
            handles[1] is not None
        )
        return selectors.SelectorKey(fileobj, fd, mask, handles)

    def get_map(self) -> Any:
        raise NotImplementedError("the descriptors of a casync loop are in its native table")

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        raise NotImplementedError("use loop.add_reader() and loop.add_writer()")

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        raise NotImplementedError("use loop.remove_reader() and loop.remove_writer()")

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        raise NotImplementedError("a casync loop waits natively")

    def close(self) -> None:
        pass


class _TimerHandle(asyncio.TimerHandle):
    """In debug mode, and observed: asyncio's TimerHandle; a native one stands for it in the timer wheel."""

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


_TimerHandle.__name__ = "TimerHandle"  # for its repr


class EventLoop(native.Loop, asyncio.SelectorEventLoop):
    """An asyncio event loop over casync.h. `selector` is accepted for asyncio's sake, and closed. With
    `metrics` the loop measures the times that metrics() tells: two readings of the clock a turn."""

    # What asyncio keeps in a loop's __dict__. As slots they leave that empty, and then the interpreter
    # finds loop.call_soon without a look into it: 10 to 20 % of a call_soon.
    __slots__ = (
        "_asyncgens",
        "_asyncgens_shutdown_called",
        "_clock_resolution",
        "_coroutine_origin_tracking_enabled",
        "_coroutine_origin_tracking_saved_depth",
        "_csock",
        "_current_handle",
        "_default_executor",
        "_exception_handler",
        "_executor_shutdown_called",
        "_internal_fds",
        "_observer",
        "_old_agen_hooks",
        "_selector",
        "_signal_handlers",
        "_ssock",
        "_timer_cancelled_count",
        "_transports",
        "_unix_server_sockets",
        "slow_callback_duration",
    )

    def __init__(self, selector: selectors.BaseSelector | None = None, *, metrics: bool = False) -> None:
        if selector is not None:
            selector.close()
        self._observer: _Observer | None = None  # see trace.py; _observed tells the native half
        super().__init__(_Selector(self))

    def close(self) -> None:
        super().close()
        self._close()

    # -- what asyncio's code finds in place of its own queue --

    @property
    def _ready(self) -> _Queue:
        return _Queue(self, 0)

    @_ready.setter
    def _ready(self, queue: object) -> None:
        """BaseEventLoop.__init__ makes a deque: it is not needed."""

    @property
    def _scheduled(self) -> _Queue:
        return _Queue(self, 1)

    @_scheduled.setter
    def _scheduled(self, queue: object) -> None:
        """BaseEventLoop.__init__ makes a list: it is not needed."""

    # -- running; signals --

    def _run_once(self) -> None:
        """Runs until stop(), so asyncio's run_forever calls this once.

        In the main thread Python's signal handlers must be able to end the wait, also when the signal
        came to another thread or just before the wait: the self-pipe is the wakeup fd meanwhile.
        """
        if threading.current_thread() is not threading.main_thread():
            self._run()
            return
        ours = self._open_self_pipe().fileno()
        try:
            before = signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
        except ValueError:  # the main thread of a subinterpreter has no signals
            self._run()
            return
        try:
            self._run()
        finally:
            # Signals that come between runs must reach the handlers of the next run.
            if not self._signal_handlers and before != ours:
                signal.set_wakeup_fd(before)

    def _make_self_pipe(self) -> None:
        """Called by __init__. The native wakeup needs no pipe; signals get one when they need it."""
        self._ssock = self._csock = None
        self._internal_fds += 1  # that of the native wakeup

    def _open_self_pipe(self) -> socket.socket:
        """The end that is written to, of a self-pipe made now if there is none."""
        if self._csock is None:
            super()._make_self_pipe()
        return self._csock

    def _close_self_pipe(self) -> None:
        self._internal_fds -= 1
        if self._csock is not None:
            super()._close_self_pipe()

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        self._check_closed()
        self._open_self_pipe()
        super().add_signal_handler(sig, callback, *args)

    # -- debug mode, and while observed: asyncio's own handles, in the native queue --

    def _run_handle(self, handle: Any) -> None:
        """What BaseEventLoop._run_once does with a handle."""
        try:
            if handle._cancelled:
                return
            if self._observer is not None:
                self._observer(handle._callback, handle._args, self._run_now, handle)
            else:
                self._run_now(handle)
        finally:
            # An exception that a task keeps leads by its frames to this one, and would keep the task.
            handle = None

    def _run_now(self, handle: Any) -> None:
        try:
            if not self._debug:
                handle._run()
                return
            self._current_handle = handle
            start = self.time()
            handle._run()
            duration = self.time() - start
            if duration >= self.slow_callback_duration:
                _warn_of_slow(base_events._format_handle(handle), duration)
        finally:
            self._current_handle = handle = None  # as above

    def _call_at_python(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> asyncio.TimerHandle:
        if self._debug:
            self._check_thread()
            self._check_callback(callback, "call_at")
        handle = _TimerHandle(when, callback, args, self, context)
        if handle._source_traceback:
            del handle._source_traceback[-1]
        handle._native = self._enqueue_at(when, self._run_handle, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio counts these; here a cancelled timer is gone."""

    def _python_reader(
        self, watched: tuple[Any, ...]
    ) -> tuple[Callable[[asyncio.Handle], None], asyncio.Handle]:
        return self._python_watch(self._remove_reader, *watched)

    def _python_writer(
        self, watched: tuple[Any, ...]
    ) -> tuple[Callable[[asyncio.Handle], None], asyncio.Handle]:
        return self._python_watch(self._remove_writer, *watched)

    def _python_watch(
        self, remove: Callable[[int], bool], fd: int, callback: Callable[..., object], *args: Any
    ) -> tuple[Callable[[asyncio.Handle], None], asyncio.Handle]:
        def run(handle: asyncio.Handle) -> None:
            if handle._cancelled:
                remove(fd)
            else:
                self._run_handle(handle)

        return run, events.Handle(callback, args, self, None)

    def _python_call(self, callback: Callable[..., object], *args: Any) -> object:
        """A protocol's callback, which in asyncio is part of a handle's."""
        if self._observer is not None:
            return self._observer(callback, args, self._timed_call, callback, *args)
        return self._timed_call(callback, *args)

    def _timed_call(self, callback: Callable[..., object], *args: Any) -> object:
        if not self._debug:
            return callback(*args)
        start = self.time()
        try:
            return callback(*args)
        finally:
            duration = self.time() - start
            if duration >= self.slow_callback_duration:
                _warn_of_slow(format_helpers._format_callback_source(callback, args), duration)

    # -- transports --

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        waiter: asyncio.Future[None] | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        **timeouts: float | None,
    ) -> asyncio.Transport:
        """As asyncio's, with the native transport underneath."""
        self._ensure_fd_no_transport(rawsock)
        ssl_protocol = sslproto.SSLProtocol(
            self, protocol, sslcontext, waiter, server_side, server_hostname, **timeouts
        )
        self._make_socket_transport(rawsock, ssl_protocol, extra=extra, server=server)
        return ssl_protocol._app_transport

    def _serve(
        self,
        conn: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sslcontext: Any,
        server: asyncio.AbstractServer | None,
        *timeouts: float | None,
    ) -> None:
        """A connection for asyncio's own way of accepting: with TLS, and in debug mode."""
        try:
            address = conn.getpeername()
        except OSError:  # it is gone again
            address = None
        if self._debug:
            selector_events.logger.debug("%r got a new connection from %r: %r", server, address, conn)
        extra = {"peername": address}
        self.create_task(
            self._accept_connection2(protocol_factory, conn, extra, sslcontext, server, *timeouts)
        )

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: int | None) -> int:
        """As asyncio's, through a second descriptor: the stream keeps watching the first."""
        reading = transp.is_reading()
        transp.pause_reading()
        await transp._make_empty_waiter()
        try:
            with transp._sock.dup() as sock:
                sock.setblocking(False)
                return await self.sock_sendfile(sock, file, offset, count, fallback=False)
        finally:
            transp._reset_empty_waiter()
            if reading:
                transp.resume_reading()


def new_event_loop() -> EventLoop:
    """A casync event loop; fits asyncio.Runner(loop_factory=...) and anyio's loop_factory."""
    return EventLoop()


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """asyncio.run() on a casync event loop."""
    if events._get_running_loop() is not None:
        raise RuntimeError("casync.run() cannot be called from a running event loop")
    if sys.version_info >= (3, 11):
        with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
            return runner.run(main)
    return _run_before_311(main, debug)


def _run_before_311(main: Coroutine[Any, Any, _T], debug: bool | None) -> _T:
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


def install() -> None:
    """Makes casync's the event loop of everything that asks asyncio for a new one."""
    from .policy import EventLoopPolicy

    asyncio.set_event_loop_policy(EventLoopPolicy())


def is_installed() -> bool:
    """Was install() called, and not undone since?"""
    policy = sys.modules.get("casync.policy")
    return policy is not None and isinstance(asyncio.get_event_loop_policy(), policy.EventLoopPolicy)
