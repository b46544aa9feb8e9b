"""EventLoop is asyncio's selector loop, with the queue, timers, watchers and streams of casync.h.

The native base class (native/loop.c) has the methods that programs call often. asyncio's
SelectorEventLoop (Lib/asyncio/unix_events.py), which differs in each version of Python, provides
the others: signals, subprocesses, executors, getaddrinfo, happy eyeballs (RFC 8305), sendfile and
debug mode. This class joins the two. compat.py has what stands in it for asyncio's private parts.
"""

# Much of this is about asyncio's private names, which typeshed does not have:
# mypy: disable-error-code="arg-type, assignment, attr-defined, misc, override, return-value"

from __future__ import annotations

import asyncio
import collections
import inspect
import operator
import selectors
import socket
import sys
from asyncio import base_events, events, format_helpers, selector_events
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

from ._extension import native
from .compat import (
    Queue,
    Selector,
    SelfPipe,
    TimerHandle,
    run_before_311,
    warn_of_slow,
    who_has_greenlets,
)
from .names import numeric_addresses
from .tls import give_read_ahead, ssl_protocol_class, take_over_reader

_T = TypeVar("_T")

# (callback, its arguments, function, its arguments): calls the function, which calls the callback.
_Observer = Callable[..., Any]


class EventLoop(native.Loop, asyncio.SelectorEventLoop):
    """This is an asyncio event loop that runs on casync.h.

    `selector` is there because asyncio may pass one: the loop needs none, and closes it. If
    `metrics` is true, the loop measures the times that metrics() returns. This costs two readings
    of the clock in each turn.

    The loop belongs to the thread that runs it. Other threads may call only call_soon_threadsafe().
    The code that makes a loop must close() it. The methods do, and raise, what asyncio documents
    for its AbstractEventLoop.
    """

    # What asyncio keeps in a loop's __dict__. As slots they leave that empty, and then the
    # interpreter finds loop.call_soon without a look into it: 10 to 20 % of a call_soon.
    __slots__ = (
        "_asyncgens",
        "_asyncgens_shutdown_called",
        "_clock_resolution",
        "_coroutine_origin_tracking_enabled",
        "_coroutine_origin_tracking_saved_depth",
        "_csock",
        "_current_handle",
        "_default_executor",
        "_deque",
        "_exception_handler",
        "_executor_shutdown_called",
        "_heap",
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

    def __init__(
        self, selector: selectors.BaseSelector | None = None, *, metrics: bool = False
    ) -> None:
        if selector is not None:
            selector.close()
        self._observer: _Observer | None = None  # see trace.py; _observed tells the native half
        super().__init__(Selector(self))
        if type(self) is not EventLoop:
            self._look_for_patches()
        if (package := who_has_greenlets()) is not None:
            self.close()
            raise RuntimeError(
                f"{package} has replaced threads or select() in this process, and greenlets "
                "cannot run while a casync loop waits: use asyncio.SelectorEventLoop() here, "
                f"or casync in a process that {package} has not patched"
            )

    def close(self) -> None:
        super().close()
        self._close()

    # -- what asyncio's code finds in place of its own queue --

    @property
    def _ready(self) -> Any:
        self._look_for_patches()
        return self._deque if self._asyncio_turns else Queue(self, "_ready")

    @_ready.setter
    def _ready(self, queue: collections.deque[asyncio.Handle]) -> None:
        if hasattr(self, "_deque"):  # not asyncio's __init__, but a program
            self._use_asyncio_turns()
        self._deque = queue

    @property
    def _scheduled(self) -> Any:
        self._look_for_patches()
        return self._heap if self._asyncio_turns else Queue(self, "_scheduled")

    @_scheduled.setter
    def _scheduled(self, heap: list[asyncio.TimerHandle]) -> None:
        self._heap = heap

    # -- turns: native ones, or asyncio's own --

    def _run_once(self) -> None:
        """Runs native turns until stop(), so asyncio's run_forever() calls this method once. If the
        turns are asyncio's own, it runs one turn.
        """
        self._look_for_patches()
        if self._asyncio_turns:
            super()._run_once()
        else:
            self._run_turns()

    def _run_turns(self) -> None:
        self._run()

    def _look_for_patches(self) -> None:
        """Has a program replaced what a turn is made of: in a class, or in the selector? (Setting
        one of native._turn_names in the loop itself calls _use_asyncio_turns, setting its __class__
        this.)"""
        if not self._asyncio_turns and (
            _turn_methods(type(self)) != _TURN_METHODS
            or type(self._selector) is not Selector
            or "select" in vars(self._selector)
        ):
            self._use_asyncio_turns()

    def _use_asyncio_turns(self) -> None:
        """From now on a turn is asyncio's own BaseEventLoop._run_once, over a deque and a heap, so
        that all it calls and all that calls it may be replaced. I/O stays native: it is what
        _selector.select() finds, and so do timers that are set already."""
        if not self._asyncio_turns:
            self._asyncio_turns = True
            self._deque.extend(self._take_ready())

    if sys.version_info >= (3, 13):

        def _run_forever_setup(self) -> None:
            """asyncio (but for 3.13.0) calls this outside of the try that calls
            _run_forever_cleanup(). If it failed halfway (for want of memory, or by Ctrl-C), the
            loop would be running for ever.
            """
            self._check_closed()
            self._check_running()
            try:
                super()._run_forever_setup()
            except BaseException:
                self._run_forever_cleanup()
                raise

    def _make_self_pipe(self) -> None:
        """Called by __init__. The native wakeup needs no pipe; add_signal_handler makes one when it
        needs it. Who never calls that keeps signal.set_wakeup_fd to himself."""
        self._ssock = self._csock = None
        self._internal_fds += 1  # that of the native wakeup

    def _open_self_pipe(self) -> None:
        ours, theirs = socket.socketpair()
        self._ssock, self._csock = (SelfPipe(fileno=end.detach()) for end in (ours, theirs))
        self._ssock.setblocking(False)
        self._csock.setblocking(False)
        self._internal_fds += 1
        self._add_reader(self._ssock.fileno(), self._read_from_self)

    def _close_self_pipe(self) -> None:
        self._internal_fds -= 1
        if self._csock is not None:
            super()._close_self_pipe()

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        self._check_closed()
        if self._csock is None:
            self._open_self_pipe()
        super().add_signal_handler(sig, callback, *args)

    def _call_by_keyword(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """call_soon and its like with callback= and so on, or with arguments that are wrong."""
        call = inspect.signature(getattr(base_events.BaseEventLoop, name)).bind(
            self, *args, **kwargs
        )
        return getattr(native.Loop, name)(*call.args, **call.kwargs)

    if sys.version_info < (3, 11):
        # Not asyncio's of this version, whose functions the native methods would pass for.

        async def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> tuple[bytes, Any]:
            return await super().sock_recvfrom(sock, bufsize)

        async def sock_recvfrom_into(
            self, sock: socket.socket, buf: Any, nbytes: int = 0
        ) -> tuple[int, Any]:
            return await super().sock_recvfrom_into(sock, buf, nbytes)

        async def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> int:
            return await super().sock_sendto(sock, data, address)

    # -- debug mode, and while observed: asyncio's own handles, in the native queue --

    def _run_handle(self, handle: Any) -> None:
        """Does what BaseEventLoop._run_once does with a handle."""
        try:
            if handle._cancelled:
                return
            if self._observer is None:
                self._run_now(handle)
                return
            args, callback = handle._args, handle._callback
            if callback is not None:  # another thread may have cancelled it meanwhile
                self._observer(callback, args, self._run_now, handle)
        finally:
            # An exception that a task keeps leads by its frames to this one, and would keep the
            # task.
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
                warn_of_slow(base_events._format_handle(handle), duration)
        finally:
            self._current_handle = handle = None  # as above

    def _call_at_python(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> asyncio.TimerHandle:
        if self._debug:
            self._check_thread()
            self._check_callback(callback, "call_at")
        handle = TimerHandle(when, callback, args, self, context)
        if handle._source_traceback:
            del handle._source_traceback[-1]
        handle._native = self._enqueue_at(when, self._run_handle, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio counts these; in the native queue a cancelled timer is gone."""
        if self._asyncio_turns:
            super()._timer_handle_cancelled(handle)

    def _python_reader(
        self, watched: tuple[Any, ...], context: Context | None
    ) -> tuple[Callable[[asyncio.Handle], None], asyncio.Handle]:
        return self._python_watch(self._remove_reader, context, *watched)

    def _python_writer(
        self, watched: tuple[Any, ...], context: Context | None
    ) -> tuple[Callable[[asyncio.Handle], None], asyncio.Handle]:
        return self._python_watch(self._remove_writer, context, *watched)

    def _python_watch(
        self,
        remove: Callable[[int], bool],
        context: Context | None,
        fd: int,
        callback: Callable[..., object],
        *args: Any,
    ) -> tuple[Callable[[asyncio.Handle], None], asyncio.Handle]:
        def run(handle: asyncio.Handle) -> None:
            if handle._cancelled:
                remove(fd)
            else:
                self._run_handle(handle)

        return run, events.Handle(callback, args, self, context)

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
                warn_of_slow(format_helpers._format_callback_source(callback, args), duration)

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
        context: Context | None = None,
        **timeouts: float | None,
    ) -> asyncio.Transport:
        """Does what asyncio's method does, with the native transport underneath. asyncio gives a
        context since 3.15.
        """
        self._ensure_fd_no_transport(rawsock)
        ssl_protocol = ssl_protocol_class()(
            self, protocol, sslcontext, waiter, server_side, server_hostname, **timeouts
        )
        options: dict[str, Any] = {} if context is None else {"context": context}
        self._make_socket_transport(rawsock, ssl_protocol, extra=extra, server=server, **options)
        return ssl_protocol._app_transport

    if sys.version_info >= (3, 11):

        async def start_tls(
            self,
            transport: asyncio.WriteTransport,
            protocol: asyncio.BaseProtocol,
            sslcontext: Any,
            *,
            server_side: bool = False,
            server_hostname: str | None = None,
            ssl_handshake_timeout: float | None = None,
            ssl_shutdown_timeout: float | None = None,
        ) -> asyncio.Transport | None:
            return await self._start_tls(
                transport,
                protocol,
                sslcontext,
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
            )

    else:

        async def start_tls(
            self,
            transport: asyncio.WriteTransport,
            protocol: asyncio.BaseProtocol,
            sslcontext: Any,
            *,
            server_side: bool = False,
            server_hostname: str | None = None,
            ssl_handshake_timeout: float | None = None,
        ) -> asyncio.Transport | None:
            return await self._start_tls(
                transport,
                protocol,
                sslcontext,
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
            )

    async def _start_tls(
        self,
        transport: Any,
        protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        *,
        server_side: bool,
        **options: Any,
    ) -> asyncio.Transport | None:
        """Does what start_tls() of 3.14 does. asyncio's own method reports wrong arguments."""
        if not isinstance(sslcontext, base_events.ssl.SSLContext) or not getattr(
            transport, "_start_tls_compatible", False
        ):
            return await super().start_tls(
                transport, protocol, sslcontext, server_side=server_side, **options
            )
        waiter = self.create_future()
        ssl_protocol = ssl_protocol_class()(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side=server_side,
            call_connection_made=False,
            **options,
        )
        # What comes before connection_made is called must wait in the kernel.
        transport.pause_reading()
        read_ahead = take_over_reader(protocol, transport, ssl_protocol, server_side)
        transport.set_protocol(ssl_protocol)
        handles = [
            self.call_soon(ssl_protocol.connection_made, transport),
            self.call_soon(give_read_ahead, ssl_protocol, read_ahead),
            self.call_soon(transport.resume_reading),
        ]
        try:
            await waiter
        except BaseException:
            transport.close()
            for handle in handles:
                handle.cancel()
            raise
        return ssl_protocol._app_transport

    def _serve(
        self,
        conn: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sslcontext: Any,
        server: asyncio.AbstractServer | None,
        *timeouts: float | None,
    ) -> None:
        """A connection for asyncio's own way of accepting: with TLS, and in debug mode. The present
        context is a copy of the server's. Since 3.15 the task and the transport share one.
        """
        try:
            address = conn.getpeername()
        except OSError:  # it is gone again
            address = None
        if self._debug:
            selector_events.logger.debug(
                "%r got a new connection from %r: %r", server, address, conn
            )
        extra = {"peername": address}
        options = {"context": copy_context()} if sys.version_info >= (3, 15) else {}
        accept = self._accept_connection2(
            protocol_factory, conn, extra, sslcontext, server, *timeouts, **options
        )
        self.create_task(accept, **options)

    async def _accept_connection2(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        conn: socket.socket,
        extra: dict[str, Any],
        sslcontext: Any = None,
        server: asyncio.AbstractServer | None = None,
        *timeouts: float | None,
        **options: Context | None,
    ) -> None:
        """Does what asyncio's method does. But if no transport could be made of a connection, it
        closes the connection at once, and reports the error without debug mode too.
        """
        protocol = transport = waiter = None
        try:
            protocol = protocol_factory()
            waiter = self.create_future()
            if sslcontext:
                options |= dict(
                    zip(("ssl_handshake_timeout", "ssl_shutdown_timeout"), timeouts, strict=False)
                )
                transport = self._make_ssl_transport(
                    conn,
                    protocol,
                    sslcontext,
                    waiter,
                    server_side=True,
                    extra=extra,
                    server=server,
                    **options,
                )
            else:
                transport = self._make_socket_transport(
                    conn, protocol, waiter, extra=extra, server=server, **options
                )
            await waiter
        except BaseException as error:
            waiter = None  # it has the exception, whose traceback has this frame
            (conn if transport is None else transport).close()
            if isinstance(error, (SystemExit, KeyboardInterrupt)):
                raise
            if transport is None or self._debug:
                context = {
                    "message": "Error on transport creation for incoming connection",
                    "exception": error,
                }
                found = {"protocol": protocol, "transport": transport}
                context.update((name, value) for name, value in found.items() if value is not None)
                self.call_exception_handler(context)

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Does what asyncio's method does, but needs no thread for a host and a port in numbers."""
        if not self._debug:  # in debug mode asyncio logs each call
            found = numeric_addresses(host, port, family, type, proto, flags)
            if found is not None:
                return found
        return await super().getaddrinfo(
            host, port, family=family, type=type, proto=proto, flags=flags
        )

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: int | None) -> int:
        """Does what asyncio's method does, through a second descriptor, because the stream keeps
        watching the first. It also ends when the connection ends.
        """
        reading = transp.is_reading()
        transp.pause_reading()
        try:
            await transp._make_empty_waiter()
            lost = transp._make_lost_waiter()
            sock = transp._sock.dup()
            sock.setblocking(False)
            sending = asyncio.Task(
                self.sock_sendfile(sock, file, offset, count, fallback=False), loop=self
            )
            sending.add_done_callback(lambda _: sock.close())
            try:
                await asyncio.wait((sending, lost), return_when=asyncio.FIRST_COMPLETED)
                return sending.result() if sending.done() else lost.result()
            finally:
                for future in sending, lost:
                    if not future.cancel() and not future.cancelled():
                        future.exception()  # nobody else asks for it
        finally:
            transp._reset_empty_waiter()
            if reading:
                transp.resume_reading()


# What a native turn is made of. A class where any of these is another has turns of asyncio's kind.
_turn_methods = operator.attrgetter(*native._turn_names)
_TURN_METHODS = _turn_methods(EventLoop)


def new_event_loop() -> EventLoop:
    """Returns a new event loop, which the caller must close.

    asyncio.Runner and anyio take this function as a loop_factory. It does not make the loop the
    current one. Any thread may call it. Raises OSError if the loop gets no descriptors from the
    kernel, and RuntimeError where gevent or eventlet has patched threads or select().
    """
    return EventLoop()


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """Runs a coroutine on a new casync event loop, and returns its result.

    It does what asyncio.run() does. At the end it cancels the tasks that are left, shuts down
    asynchronous generators and the default executor, and closes the loop. `debug` sets the loop's
    debug mode; None leaves the interpreter's default. Raises RuntimeError if a loop runs in this
    thread already, and the errors of asyncio.Runner.run() (Lib/asyncio/runners.py).
    """
    if events._get_running_loop() is not None:
        raise RuntimeError("casync.run() cannot be called from a running event loop")
    if sys.version_info >= (3, 11):
        with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
            return runner.run(main)
    return run_before_311(main, debug, new_event_loop)
