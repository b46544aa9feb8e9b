"""A GenSocket is a non-blocking socket. A generator waits for its operations with `yield from`.

Each operation calls the kernel at once. If the kernel answers EAGAIN, the operation waits until the
loop finds the socket ready, and tries again. Only send() does not wait: the GenSocket queues the
bytes that the kernel does not take.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import types
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

_NOT_READY = (BlockingIOError, InterruptedError)


class _Direction:
    """The tasks that wait until a socket can be read, or until it can be written."""

    def __init__(self, sock: socket.socket, add: str, remove: str) -> None:
        self._sock = sock
        self._add = add
        self._remove = remove
        self._waiters: list[asyncio.Future[None]] = []
        self._loop: Any = None

    @types.coroutine
    def ready(self) -> Generator[Any, Any, None]:
        self._loop = asyncio.get_running_loop()
        waiter = self._loop.create_future()
        if not self._waiters:
            getattr(self._loop, self._add)(self._sock, self._wake)
        self._waiters.append(waiter)
        try:
            yield from waiter
        finally:
            if (
                waiter in self._waiters
            ):  # else stop() was called, and the descriptor may be another's now
                self._waiters.remove(waiter)
                if not self._waiters:
                    getattr(self._loop, self._remove)(self._sock)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def stop(self) -> None:
        """Ends the watch, which must be before the descriptor is closed, and wakes all."""
        if self._waiters:
            getattr(self._loop, self._remove)(self._sock)
        self._wake()
        self._waiters.clear()


class _Unsent:
    """The rest of one send()."""

    __slots__ = ("address", "data", "flags", "future", "size")

    def __init__(self, data: Any, flags: int, address: Any) -> None:
        self.data = memoryview(data).cast("B")
        self.flags = flags
        self.address = address
        self.size = len(self.data)
        self.future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def send(self, sock: socket.socket) -> bool:
        """Sends what the kernel takes. Is that all?"""
        try:
            if self.address is None:
                sent = sock.send(self.data, self.flags)
            else:
                sent = sock.sendto(self.data, self.flags, self.address)
        except _NOT_READY:
            return False
        self.data = self.data[sent:]
        return not self.data

    def end(self, error: OSError | None) -> None:
        if self.future.done():  # whoever waited was cancelled
            return
        if error is None:
            self.future.set_result(self.size)
        else:
            self.future.set_exception(error)


class _Sender:
    """The queue of what the kernel did not take yet. It outlives its GenSocket until that is
    sent.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._queue: deque[_Unsent] = deque()
        self._held = False
        self._at_end: list[Callable[[], None]] = []

    def send(self, data: Any, flags: int = 0, address: Any = None) -> asyncio.Future[int]:
        unsent = _Unsent(data, flags, address)
        if not self._queue and not self._held and unsent.send(self._sock):
            unsent.end(None)
            return unsent.future
        unsent.data = memoryview(bytes(unsent.data))  # the caller may change its buffer
        self._queue.append(unsent)
        if len(self._queue) == 1 and not self._held:
            self._watch()
        return unsent.future

    def hold(self) -> None:
        """Queues all, until resume(): connect() needs the watch for itself."""
        self._held = True

    def resume(self) -> None:
        self._held = False
        if self._queue:
            self._watch()

    def at_end(self, action: Callable[[], None]) -> None:
        """Calls it when all is sent; at once, if all is."""
        if self._queue:
            self._at_end.append(action)
        else:
            action()

    def close(self) -> None:
        """Closes the socket when all is sent; the GenSocket's own object is closed at once."""
        if self._queue:
            self._sock = socket.socket(fileno=self._sock.detach())
        self.at_end(self._sock.close)

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_writer(self._sock, self._flush, loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._queue:
            error = None
            try:
                if not self._queue[0].send(self._sock):
                    return
            except OSError as caught:
                error = caught
            self._queue.popleft().end(error)
        loop.remove_writer(self._sock)
        for action in self._at_end:
            with contextlib.suppress(OSError):  # the peer has gone, which those who sent were told
                action()
        self._at_end.clear()


class GenSocket:
    """A GenSocket is a non-blocking socket. Its arguments are those of socket.socket.

    Wait for recv, recv_into, recvfrom, accept, connect, sendto and sendall with `yield from`.
    send() sends when you call it. The other methods are those of socket.socket. All of them raise
    OSError, as there. If a task closes the socket while another waits for it, the other gets
    EBADF. Use a GenSocket in one loop's thread only.
    """

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
    ) -> None:
        self._socket = sock = socket.socket(family, type, proto, fileno)
        sock.setblocking(False)
        self._readable = _Direction(sock, "add_reader", "remove_reader")
        self._writable = _Direction(sock, "add_writer", "remove_writer")
        self._sender = _Sender(sock)

    # -- connections --

    @types.coroutine
    def connect(self, address: Any) -> Generator[Any, Any, None]:
        """Connects to `address`. The host may be a name; looking it up does not block the loop.

        Raises OSError. A Unix socket raises BlockingIOError if its listener's queue is full: the
        kernel does not say when to try again.
        """
        address = yield from self._resolve(address)
        error = self._socket.connect_ex(address)
        if error in (errno.EINPROGRESS, errno.EINTR):  # connect(2): it goes on in the background
            self._sender.hold()
            try:
                yield from self._writable.ready()
                error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            finally:
                self._sender.resume()
        if error:
            raise OSError(error, f"cannot connect to {address}: {os.strerror(error)}")

    @types.coroutine
    def accept(self) -> Generator[Any, Any, tuple[GenSocket, Any]]:
        """Waits for a connection, and returns its GenSocket, which the caller must close, and the
        peer's address.
        """
        sock, address = yield from self._when_readable(self._socket.accept)
        return GenSocket(fileno=sock.detach()), address

    @types.coroutine
    def _resolve(self, address: Any) -> Generator[Any, Any, Any]:
        if self.family not in (socket.AF_INET, socket.AF_INET6):
            return address
        host, port = address[:2]
        if host in ("", "<broadcast>") or _is_numeric(self.family, host):
            return address
        loop = asyncio.get_running_loop()
        found = yield from loop.getaddrinfo(
            host, port, family=self.family, type=self.type, proto=self.proto
        )
        return found[0][4]

    # -- receiving --

    @types.coroutine
    def _when_readable(
        self, operation: Callable[..., Any], *arguments: Any
    ) -> Generator[Any, Any, Any]:
        while True:
            try:
                return operation(*arguments)
            except _NOT_READY:
                yield from self._readable.ready()

    def recv(self, size: int, flags: int = 0) -> Generator[Any, Any, bytes]:
        """Waits for data, and returns at most `size` bytes. b"" means the end of the stream."""
        return self._when_readable(self._socket.recv, size, flags)

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> Generator[Any, Any, int]:
        """Waits for data, writes at most `size` bytes into `buffer`, and returns their number. A
        `size` of 0 means the size of the buffer.
        """
        return self._when_readable(self._socket.recv_into, buffer, size, flags)

    def recvfrom(self, size: int, flags: int = 0) -> Generator[Any, Any, tuple[bytes, Any]]:
        """Waits for a datagram, and returns it and the sender's address. The bytes after the first
        `size` are lost.
        """
        return self._when_readable(self._socket.recvfrom, size, flags)

    # -- sending --

    def send(self, data: Any, flags: int = 0) -> asyncio.Future[int]:
        """Sends `data` now, without waiting, and returns a future.

        The GenSocket queues the bytes that the kernel does not take, and sends them later, in
        order. The queue has no limit, so a task that sends much should wait for the future with
        `yield from`. The future's result is the number of bytes, once the kernel has all of them.
        An error now is raised by this call; a later one is raised by the future. The caller may
        change its buffer after the call.
        """
        self._check_open()
        return self._sender.send(data, flags)

    @types.coroutine
    def sendall(self, data: Any, flags: int = 0) -> Generator[Any, Any, None]:
        """Sends `data`, and waits until the kernel has taken all of it."""
        yield from self.send(data, flags)

    @types.coroutine
    def sendto(self, data: Any, address: Any) -> Generator[Any, Any, int]:
        """Sends a datagram to `address`, whose host may be a name. Returns the number of bytes."""
        address = yield from self._resolve(address)
        self._check_open()
        return (yield from self._sender.send(data, 0, address))

    def _check_open(self) -> None:
        """The queue outlives the socket: what comes after close() must not get into it."""
        if self._socket.fileno() == -1:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    # -- the end --

    def shutdown(self, how: int) -> None:
        """Does what socket.shutdown() does. The stream ends after the bytes that are queued."""
        self._check_open()
        if how == socket.SHUT_RD:
            self._socket.shutdown(how)
        else:
            self._sender.at_end(lambda: self._socket.shutdown(how))

    def close(self) -> None:
        """Closes the socket. The loop still sends the bytes that are queued."""
        self._readable.stop()
        self._writable.stop()
        self._sender.close()

    def __enter__(self) -> GenSocket:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- what does not wait is socket.socket's --

    @property
    def family(self) -> int:
        return self._socket.family

    @property
    def type(self) -> int:
        return self._socket.type

    @property
    def proto(self) -> int:
        return self._socket.proto

    def fileno(self) -> int:
        return self._socket.fileno()

    def bind(self, address: Any) -> None:
        self._socket.bind(address)

    def listen(self, backlog: int = socket.SOMAXCONN) -> None:
        self._socket.listen(backlog)

    def getsockname(self) -> Any:
        return self._socket.getsockname()

    def getpeername(self) -> Any:
        return self._socket.getpeername()

    def getsockopt(self, *arguments: Any) -> Any:
        return self._socket.getsockopt(*arguments)

    def setsockopt(self, *arguments: Any) -> None:
        self._socket.setsockopt(*arguments)

    def setblocking(self, flag: bool) -> None:
        """Does nothing, or raises ValueError: a GenSocket is always non-blocking."""
        if flag:
            raise ValueError("a GenSocket never blocks; wait with `yield from`")

    def settimeout(self, seconds: float | None) -> None:
        """Does nothing, or raises ValueError: a GenSocket is always non-blocking."""
        if seconds != 0:
            raise ValueError("a GenSocket has no timeout; use casync.gen.wait_for()")

    def gettimeout(self) -> float:
        return 0.0

    def __repr__(self) -> str:
        return f"<GenSocket of {self._socket!r}>"


def _is_numeric(family: int, host: Any) -> bool:
    try:
        socket.inet_pton(family, host)
    except (OSError, TypeError):
        return False
    return True
