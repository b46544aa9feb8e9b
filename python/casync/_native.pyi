"""The part of the loop that is written in C (native/*.c): an implementation detail of EventLoop."""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import Context
from typing import Any, ClassVar, TypeVar, final

from typing_extensions import TypeVarTuple, Unpack

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_turn_names: frozenset[str]
_functions: object  # a capsule: casync.h's functions

def _future_loop(address: int, /) -> Any: ...

class Loop:
    """The part of EventLoop that is written in C. Its attributes mean what those of the same names
    mean in asyncio.BaseEventLoop.
    """

    _asyncio_turns: bool
    _closed: bool
    _debug: bool
    _observed: bool
    _stopping: bool
    _task_factory: Callable[..., asyncio.Future[Any]] | None
    _thread_id: int | None

    def call_soon(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> asyncio.Handle: ...
    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> asyncio.Handle: ...
    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def time(self) -> float: ...
    def create_future(self) -> asyncio.Future[Any]: ...
    def create_task(
        self,
        coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[_T]: ...
    def is_closed(self) -> bool: ...
    def is_running(self) -> bool: ...
    def get_debug(self) -> bool: ...
    def metrics(self) -> dict[str, float]: ...
    def sock_recv(self, sock: Any, n: int) -> SocketOperation[bytes]: ...
    def sock_recv_into(self, sock: Any, buf: Any) -> SocketOperation[int]: ...
    def sock_recvfrom(self, sock: Any, bufsize: int) -> SocketOperation[tuple[bytes, Any]]: ...
    def sock_recvfrom_into(
        self, sock: Any, buf: Any, nbytes: int = 0
    ) -> SocketOperation[tuple[int, Any]]: ...
    def sock_accept(self, sock: Any) -> SocketOperation[tuple[Any, Any]]: ...
    def sock_sendall(self, sock: Any, data: Any) -> SocketOperation[None]: ...
    def sock_sendto(self, sock: Any, data: Any, address: Any) -> SocketOperation[int]: ...
    def sock_connect(self, sock: Any, address: Any) -> SocketOperation[None]: ...
    def _use_virtual_time(self, forced: bool, /) -> None: ...
    def _deadlocked(self) -> bool: ...
    def _run(self) -> None: ...
    def _poll(self, timeout: float | None, /) -> bool: ...
    def _run_ready(self) -> None: ...
    def _take_ready(self) -> list[asyncio.Handle]: ...
    def _close(self) -> None: ...
    def _queued(self) -> tuple[list[asyncio.Handle], list[asyncio.TimerHandle]]: ...
    def _descriptors(self) -> list[tuple[int, int]]: ...
    def _watched(
        self, file: Any, /
    ) -> tuple[Any, int, asyncio.Handle | None, asyncio.Handle | None] | None: ...
    def _enqueue(self, run: Callable[[Any], object], handle: Any) -> asyncio.Handle: ...
    def _enqueue_at(
        self, when: float, run: Callable[[Any], object], handle: Any
    ) -> asyncio.TimerHandle: ...
    def _watch_future(self, address: int, callback: Callable[[], object]) -> asyncio.Handle: ...
    def _cancel_future(self, address: int, /) -> int: ...
    def _end_future(self, address: int, result: int) -> None: ...
    def _future_result(self, address: int, /) -> int | None: ...
    def _write_to_self(self) -> None: ...
    def _check_closed(self) -> None: ...
    def _ensure_fd_no_transport(self, fd: Any, /) -> None: ...
    def _add_reader(
        self, fd: Any, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle: ...
    def _add_writer(
        self, fd: Any, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle: ...
    def _remove_reader(self, fd: Any, /) -> bool: ...
    def _remove_writer(self, fd: Any, /) -> bool: ...
    def _make_socket_transport(
        self,
        sock: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        context: Context | None = None,
    ) -> SocketTransport: ...
    def _make_datagram_transport(
        self,
        sock: Any,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> DatagramTransport: ...
    def _make_read_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> ReadPipeTransport: ...
    def _make_write_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> WritePipeTransport: ...
    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: Any,
        sslcontext: Any = None,
        server: asyncio.AbstractServer | None = None,
        backlog: int = 100,
        *timeouts: float | None,
        context: Context | None = None,
    ) -> None: ...

@final
class Handle(asyncio.Handle):
    """The handle that call_soon returns. isinstance takes it for an asyncio.Handle, which it does
    not derive from.
    """

@final
class TimerHandle(asyncio.TimerHandle):
    """The handle that call_later and call_at return. isinstance takes it for an
    asyncio.TimerHandle, which it does not derive from.
    """

@final
class SocketTransport(asyncio.Transport):
    """The stream transport of TCP and Unix sockets."""

    _sendfile_compatible: ClassVar[Any]
    _start_tls_compatible: ClassVar[bool]
    _sock: Any
    _sock_fd: int
    _loop: Any
    _protocol: asyncio.BaseProtocol | None
    _server: Any
    def _force_close(self, exc: BaseException | None, /) -> None: ...
    def _make_empty_waiter(self) -> asyncio.Future[None]: ...
    def _make_lost_waiter(self) -> asyncio.Future[None]: ...
    def _reset_empty_waiter(self) -> None: ...

@final
class DatagramTransport(asyncio.DatagramTransport):
    """The transport of UDP and Unix datagrams."""

    _sock: Any
    _address: Any
    def is_reading(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def get_write_buffer_limits(self) -> tuple[int, int]: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

@final
class ReadPipeTransport(asyncio.ReadTransport):
    """The reading end of a pipe."""

@final
class WritePipeTransport(asyncio.WriteTransport):
    """The writing end of a pipe."""

@final
class Method:
    """A method in C that looks like asyncio's of the same name. If a program replaces that one,
    its replacement is called.
    """

    def __call__(self, *args: Any, **keywords: Any) -> Any: ...

class ReleasedStreamReader(asyncio.StreamReader):
    """The class of an adopted StreamReader whose methods a program has replaced: its methods are
    asyncio's again, its attributes are still native.
    """

@final
class StreamReader(ReleasedStreamReader):
    """The class of an adopted StreamReader: an asyncio.StreamReader that a native transport
    feeds.
    """

@final
class Reader:
    """The attributes of an adopted StreamReader, kept in C."""

@final
class StreamWriter(asyncio.StreamWriter):
    """The class of an adopted asyncio.StreamWriter, whose transport is native."""

@final
class Clients:
    """The transports of a server, as its attribute Server._clients."""

    def add(self, transport: asyncio.BaseTransport, /) -> None: ...
    def discard(self, transport: asyncio.BaseTransport, /) -> None: ...
    def copy(self) -> list[asyncio.BaseTransport]: ...
    def __iter__(self) -> Iterator[asyncio.BaseTransport]: ...
    def __len__(self) -> int: ...

@final
class ReadOperation(Coroutine[Any, Any, bytes]):
    """The awaitable that the read methods of an adopted StreamReader return."""

    def send(self, value: None, /) -> Any: ...
    def throw(self, *exception: Any) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any, bytes]: ...

@final
class DrainOperation(Coroutine[Any, Any, None]):
    """The awaitable that drain() of an adopted StreamWriter returns."""

    def send(self, value: None, /) -> Any: ...
    def throw(self, *exception: Any) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any]: ...

@final
class SocketOperation(Coroutine[Any, Any, _T]):
    """The awaitable that the loop's sock_* methods return."""

    def send(self, value: None, /) -> Any: ...
    def throw(self, *exception: Any) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any, _T]: ...

class TLSProtocol:
    """The part of tls.SSLProtocol that is written in C. The module has it since Python 3.11, if
    asyncio's SSLProtocol has what it needs.
    """

    def data_received(self, data: Any, /) -> None: ...

class TLSTransport:
    """The part of the application's transport over TLS that is written in C."""

    def write(self, data: Any) -> None: ...
