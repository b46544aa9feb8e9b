"""loop.sock_*: receiving, sending, accepting and connecting by socket objects."""

from __future__ import annotations

import array
import asyncio
import collections.abc
import contextlib
import errno
import gc
import inspect
import os
import re
import socket
import ssl
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import AsyncMock, Mock, create_autospec, patch

import pytest
from support import (
    Loop,
    Recorder,
    finish,
    pattern,
    receive_all,
    receive_exactly,
    run_turns,
    tcp_pair,
    turns,
    unix_pair,
    until,
    within,
)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def tcp() -> Iterator[Pair]:
    ours, theirs = tcp_pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def unix() -> Iterator[Pair]:
    ours, theirs = unix_pair()
    with ours, theirs:
        yield ours, theirs


def udp_socket(family: int = socket.AF_INET, host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.setblocking(False)
    return sock


def fill(sock: socket.socket) -> int:
    """Sends zeros until the socket takes no more; how many."""
    size = 0
    with pytest.raises(BlockingIOError):
        while True:
            size += sock.send(bytes(65536))
    return size


async def waits(loop: Loop, operation: Any) -> asyncio.Task[Any]:
    """A task that waits for something that cannot be done now."""
    task = loop.create_task(operation)
    await turns()
    assert not task.done()
    return task


# ---- receiving ----


async def test_recv_takes_what_is_there(loop: Loop, tcp: Pair) -> None:
    ours, theirs = tcp
    theirs.send(b"hello")
    assert await loop.sock_recv(ours, 2) == b"he"
    assert await loop.sock_recv(ours, 100) == b"llo"


async def test_recv_waits_for_what_is_to_come(loop: Loop, tcp: Pair) -> None:
    ours, theirs = tcp
    for message in b"first", b"second", b"third":
        receiving = await waits(loop, loop.sock_recv(ours, 100))
        theirs.send(message)
        assert await receiving == message


async def test_recv_at_the_end_of_the_stream(loop: Loop, tcp: Pair) -> None:
    ours, theirs = tcp
    receiving = await waits(loop, loop.sock_recv(ours, 100))
    theirs.shutdown(socket.SHUT_WR)
    assert await receiving == b""
    assert await loop.sock_recv(ours, 100) == b""


async def test_recv_of_nothing(loop: Loop, tcp: Pair) -> None:
    assert await loop.sock_recv(tcp[0], 0) == b""
    assert await loop.sock_recv_into(tcp[0], bytearray()) == 0


@pytest.mark.parametrize("size", [1000, 65536, 1_000_000])
async def test_recv_of_much(loop: Loop, tcp: Pair, size: int) -> None:
    ours, theirs = tcp
    data = pattern(3_000_000)
    sending = loop.create_task(loop.sock_sendall(theirs, data))
    received = bytearray()
    while len(received) < len(data):
        chunk = await loop.sock_recv(ours, size)
        assert type(chunk) is bytes and 0 < len(chunk) <= size
        received += chunk
    assert received == data
    await sending
    theirs.send(b"small again")
    assert await loop.sock_recv(ours, size) == b"small again"


@pytest.mark.parametrize(
    ("size", "error"),
    [(-1, ValueError), ("10", TypeError), (1.5, TypeError), (1 << 100, OverflowError)],
)
async def test_recv_of_no_size(loop: Loop, tcp: Pair, size: Any, error: type[Exception]) -> None:
    tcp[1].send(b"still there")
    with pytest.raises(error):
        await loop.sock_recv(tcp[0], size)
    assert await loop.sock_recv(tcp[0], 100) == b"still there"


async def test_recv_size_of_another_integer_type(loop: Loop, tcp: Pair) -> None:
    class Size:
        def __index__(self) -> int:
            return 3

    tcp[1].send(b"hello")
    assert await loop.sock_recv(tcp[0], Size()) == b"hel"  # type: ignore[arg-type]
    assert await loop.sock_recv(tcp[0], True) == b"l"


@pytest.mark.parametrize(
    "make", [bytearray, lambda n: memoryview(bytearray(n)), lambda n: array.array("h", bytes(n))]
)
async def test_recv_into_any_writable_buffer(
    loop: Loop, tcp: Pair, make: Callable[[int], Any]
) -> None:
    ours, theirs = tcp
    buffer = make(10)
    receiving = await waits(loop, loop.sock_recv_into(ours, buffer))
    theirs.send(b"hello")
    assert await receiving == 5
    assert bytes(buffer)[:5] == b"hello"
    theirs.send(b"more than fits")
    assert await loop.sock_recv_into(ours, memoryview(buffer)) == 10
    assert bytes(buffer) == b"more than "


@pytest.mark.parametrize(
    "buffer",
    [b"read-only", memoryview(b"read-only"), b"", "text", None, memoryview(bytearray(10))[::2]],
)
async def test_recv_into_what_is_no_buffer(loop: Loop, tcp: Pair, buffer: Any) -> None:
    ours, theirs = tcp
    with pytest.raises((TypeError, BufferError)) as caught:
        ours.recv_into(buffer)
    expected = caught.value
    theirs.send(b"still there")
    with pytest.raises(type(expected), match=f"^{re.escape(str(expected))}$"):
        await loop.sock_recv_into(ours, buffer)
    assert await loop.sock_recv(ours, 100) == b"still there"


async def test_a_buffer_may_change_while_recv_into_waits(loop: Loop, tcp: Pair) -> None:
    buffer = bytearray(1)
    receiving = await waits(loop, loop.sock_recv_into(tcp[0], buffer))
    buffer.extend(bytes(9))
    tcp[1].send(b"hello")
    assert await receiving == 5
    assert buffer == b"hello" + bytes(5)


# ---- sending ----


@pytest.mark.parametrize(
    "make", [bytes, bytearray, memoryview], ids=["bytes", "bytearray", "memoryview"]
)
async def test_sendall_to_a_slow_reader(
    loop: Loop, tcp: Pair, make: Callable[[bytes], Any]
) -> None:
    ours, theirs = tcp
    data = pattern(8_000_000)
    sending = await waits(loop, loop.sock_sendall(ours, make(data)))
    received = bytearray()
    while len(received) < len(data):
        received += await loop.sock_recv(theirs, 100_000)
        await asyncio.sleep(0)
    assert received == data
    assert await sending is None


def test_sendall_of_items_that_are_no_bytes(casync: ModuleType) -> None:
    """asyncio's own counts items, and never ends."""
    items = array.array("Q", range(1_000_000))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = tcp_pair()
        with ours, theirs:
            sending = await waits(loop, loop.sock_sendall(ours, items))
            assert await receive_exactly(theirs, len(items) * 8) == items.tobytes()
            await sending

    casync.run(main())


async def test_sendall_of_nothing(loop: Loop, tcp: Pair) -> None:
    assert await loop.sock_sendall(tcp[0], b"") is None
    fill(tcp[0])
    assert await loop.sock_sendall(tcp[0], b"") is None


@pytest.mark.parametrize("data", ["text", None, 5, memoryview(b"abcdef")[::2]])
async def test_sendall_of_no_bytes(loop: Loop, tcp: Pair, data: Any) -> None:
    with pytest.raises((TypeError, BufferError)):
        await loop.sock_sendall(tcp[0], data)


async def test_what_is_being_sent_cannot_be_resized(loop: Loop, tcp: Pair) -> None:
    ours, theirs = tcp
    data = bytearray(8_000_000)
    sending = await waits(loop, loop.sock_sendall(ours, data))
    with pytest.raises(BufferError):
        data.extend(b"more")
    await receive_exactly(theirs, len(data))
    await sending
    await turns()
    data.extend(b"more")


async def test_a_cancelled_sendall_lets_the_data_go(loop: Loop, unix: Pair) -> None:
    fill(unix[0])  # TCP takes more 40 ms later, when the delayed acknowledgement comes
    data = bytearray(10)
    sending = await waits(loop, loop.sock_sendall(unix[0], data))
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    del sending
    gc.collect()  # a traceback may hold a memoryview
    data.extend(b"more")
    assert not loop.remove_writer(unix[0])


async def test_one_sends_while_another_receives(loop: Loop, tcp: Pair) -> None:
    ours, theirs = tcp
    data = pattern(4_000_000)
    receiving = await waits(loop, receive_exactly(ours, len(data)))
    await asyncio.gather(
        loop.sock_sendall(ours, data),
        receive_exactly(theirs, len(data)),
        loop.sock_sendall(theirs, data),
    )
    assert await receiving == data


# ---- datagrams ----


@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")],
    ids=["IPv4", "IPv6"],
)
async def test_datagrams(loop: Loop, family: int, host: str) -> None:
    with udp_socket(family, host) as one, udp_socket(family, host) as two:
        receiving = await waits(loop, loop.sock_recvfrom(two, 100))
        assert await loop.sock_sendto(one, b"hello", two.getsockname()) == 5
        assert await receiving == (b"hello", one.getsockname())
        buffer = bytearray(100)
        for size in (), (0,), (100,):
            receiving = await waits(loop, loop.sock_recvfrom_into(one, buffer, *size))
            await loop.sock_sendto(two, b"back", one.getsockname())
            assert await receiving == (4, two.getsockname())
            assert buffer[:4] == b"back"
        await loop.sock_sendto(two, b"too much", one.getsockname())
        assert await loop.sock_recvfrom_into(one, buffer, nbytes=3) == (3, two.getsockname())


@pytest.mark.parametrize("abstract", [False, True])
async def test_unix_datagrams(loop: Loop, tmp_path: Path, abstract: bool) -> None:
    def bound(name: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(f"\0{tmp_path}/{name}" if abstract else str(tmp_path / name))
        sock.setblocking(False)
        return sock

    with bound("one") as one, bound("two") as two:
        sent = 0
        with pytest.raises(BlockingIOError):  # the queue of a Unix socket is short
            while True:
                one.sendto(b"x", two.getsockname())
                sent += 1
        sending = await waits(loop, loop.sock_sendto(one, b"last", two.getsockname()))
        for _ in range(sent):
            assert await loop.sock_recvfrom(two, 10) == (b"x", one.getsockname())
        assert await sending == 4
        assert await loop.sock_recvfrom(two, 10) == (b"last", one.getsockname())


# ---- accepting and connecting ----


@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")],
    ids=["IPv4", "IPv6"],
)
async def test_connect_and_accept(loop: Loop, family: int, host: str) -> None:
    with socket.create_server((host, 0), family=family) as listener:
        listener.setblocking(False)
        for _ in range(3):
            accepting = await waits(loop, loop.sock_accept(listener))
            with socket.socket(family) as client:
                client.setblocking(False)
                assert await loop.sock_connect(client, listener.getsockname()) is None
                accepted, address = await accepting
                with accepted:
                    assert address == client.getsockname()
                    assert not accepted.getblocking()


async def test_connect_by_name(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("localhost", listener.getsockname()[1]))
        assert client.getpeername() == listener.getsockname()


async def test_connect_asks_the_loop_for_addresses(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(host: str, port: int, **keywords: Any) -> Any:
        assert (host, port, keywords["family"]) == ("a.name", 80, socket.AF_INET)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listener.getsockname())]

    class Resolving(type(loop)):  # type: ignore[misc]
        pass

    Resolving.getaddrinfo = staticmethod(getaddrinfo)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setblocking(False)
        other = Resolving()
        try:
            await asyncio.to_thread(
                other.run_until_complete,
                other.create_task(other.sock_connect(client, ("a.name", 80))),
            )
        finally:
            other.close()
        assert client.getpeername() == listener.getsockname()


@pytest.mark.parametrize("abstract", [False, True])
async def test_connect_by_path(loop: Loop, tmp_path: Path, abstract: bool) -> None:
    address = f"\0{tmp_path}" if abstract else str(tmp_path / "socket-\N{SNOWMAN}")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(address)
        listener.listen()
        for sock in listener, client:
            sock.setblocking(False)
        await loop.sock_connect(client, address)
        accepted, _ = await loop.sock_accept(listener)
        with accepted:
            await loop.sock_sendall(accepted, b"hello")
            assert await loop.sock_recv(client, 10) == b"hello"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A Unix socket that listens, and its path; its queue is full."""
    path = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as queued:
        listener.bind(path)
        listener.listen(0)
        with pytest.raises(BlockingIOError):
            while True:
                client = queued.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(path)
        yield listener, path


Full = tuple[socket.socket, str]


async def connect_socket(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(client, path)
    except BaseException:
        client.close()
        raise
    return client


async def connect_transport(path: str) -> asyncio.Transport:
    transport, _ = await asyncio.get_running_loop().create_unix_connection(asyncio.Protocol, path)
    return transport


async def connect_streams(path: str) -> asyncio.StreamWriter:
    return (await asyncio.open_unix_connection(path))[1]


connects_to_full = pytest.mark.parametrize(
    "connect", [connect_socket, connect_transport, connect_streams]
)


@connects_to_full
def test_connecting_to_a_full_queue_waits(casync: ModuleType, full: Full, connect: Any) -> None:
    """asyncio's own loop says that it is connected."""
    listener, path = full

    async def main() -> None:
        connecting = await waits(asyncio.get_running_loop(), connect(path))
        listener.accept()[0].close()
        client = await connecting
        sock = client if connect is connect_socket else client.get_extra_info("socket")
        assert sock.getpeername() == path
        client.close()

    casync.run(main())


@connects_to_full
def test_who_waits_for_a_full_queue_can_give_up(
    casync: ModuleType, full: Full, connect: Any
) -> None:
    async def main() -> None:
        connecting = await waits(asyncio.get_running_loop(), connect(full[1]))
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        del connecting
        gc.collect()
        assert asyncio.get_running_loop().metrics()["timers"] == 0

    casync.run(main())


@connects_to_full
def test_who_waits_for_a_full_queue_hears_of_its_end(
    casync: ModuleType, full: Full, connect: Any
) -> None:
    async def main() -> None:
        connecting = await waits(asyncio.get_running_loop(), connect(full[1]))
        full[0].close()
        with pytest.raises(ConnectionRefusedError):
            await connecting

    casync.run(main())


def test_a_connect_that_cannot_begin_is_no_connection(casync: ModuleType) -> None:
    class Exhausted(socket.socket):
        def connect(self, address: object) -> None:
            raise BlockingIOError(errno.EAGAIN, "no port is left")

    async def main() -> None:
        with Exhausted() as client:
            client.setblocking(False)
            with pytest.raises(BlockingIOError, match="no port is left"):
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", 1))

    casync.run(main())


async def test_a_refused_connection(loop: Loop) -> None:
    with socket.socket() as unused, socket.socket() as client:
        unused.bind(("127.0.0.1", 0))
        client.setblocking(False)
        address = unused.getsockname()
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.sock_connect(client, address)
        assert caught.value.errno == errno.ECONNREFUSED
        assert caught.value.strerror == f"Connect call failed {address}"


async def test_connecting_to_no_address(loop: Loop, tmp_path: Path) -> None:
    with socket.socket() as client, socket.socket(socket.AF_UNIX) as local:
        for sock in client, local:
            sock.setblocking(False)
        with pytest.raises((TypeError, ValueError)):
            await loop.sock_connect(client, ("127.0.0.1",))
        with pytest.raises(socket.gaierror):
            await loop.sock_connect(client, ("name.invalid", 80))
        with pytest.raises(FileNotFoundError):
            await loop.sock_connect(local, str(tmp_path / "nobody"))


# ---- another file of the same number ----


def by_dup2(sock: socket.socket, other: socket.socket) -> socket.socket:
    os.dup2(other.fileno(), sock.fileno())
    other.close()
    return sock


def by_init(sock: socket.socket, other: socket.socket) -> socket.socket:
    number = sock.fileno()
    os.dup2(other.fileno(), number)
    other.close()
    sock.detach()
    sock.__init__(fileno=number)  # type: ignore[misc]
    sock.setblocking(False)
    return sock


def by_closing(sock: socket.socket, other: socket.socket) -> socket.socket:
    number = sock.fileno()
    sock.close()
    if other.fileno() != number:
        os.dup2(other.fileno(), number)
        other.close()
        other = socket.socket(fileno=number)
        other.setblocking(False)
    return other


@pytest.fixture(params=[by_dup2, by_init, by_closing])
def put(request: pytest.FixtureRequest) -> Callable[[socket.socket, socket.socket], socket.socket]:
    """Puts the file of a socket in the place of another's: with that number. Gives the socket that
    has it.
    """
    return request.param


@pytest.fixture(params=[False, True], ids=["", "kept open"])
def keep(request: pytest.FixtureRequest) -> Iterator[Callable[[socket.socket], None]]:
    """Keeps the file of a socket open, or not, when its number goes to another."""
    copies: list[int] = []
    yield lambda sock: copies.append(os.dup(sock.fileno())) if request.param else None
    for copy in copies:
        os.close(copy)


async def rest(loop: Loop, pair: Pair) -> None:
    """Waits for a socket of the pair in both directions, with success."""
    ours, theirs = pair
    receiving = await waits(loop, loop.sock_recv(ours, 100))
    theirs.send(b"first")
    assert await receiving == b"first"
    filled = fill(ours)
    sending = await waits(loop, loop.sock_sendall(ours, b"more"))
    await receive_exactly(theirs, filled + 4)
    await sending


async def receive_new(loop: Loop, sock: socket.socket, peer: socket.socket) -> None:
    receiving = await waits(loop, loop.sock_recv(sock, 100))
    peer.send(b"new")
    assert await receiving == b"new"


async def receive_into_new(loop: Loop, sock: socket.socket, peer: socket.socket) -> None:
    buffer = bytearray(100)
    receiving = await waits(loop, loop.sock_recv_into(sock, buffer))
    peer.send(b"new")
    assert await receiving == 3 and buffer[:3] == b"new"


async def receive_from_new(loop: Loop, sock: socket.socket, peer: socket.socket) -> None:
    receiving = await waits(loop, loop.sock_recvfrom(sock, 100))
    peer.send(b"new")
    assert (await receiving)[0] == b"new"


async def send_to_new(loop: Loop, sock: socket.socket, peer: socket.socket) -> None:
    filled = fill(sock)
    sending = await waits(loop, loop.sock_sendall(sock, b"new"))
    assert (await receive_exactly(peer, filled + 3))[-3:] == b"new"
    await sending


async def read_new(loop: Loop, sock: socket.socket, peer: socket.socket) -> None:
    readable = loop.create_future()
    loop.add_reader(sock, lambda: readable.set_result(sock.recv(100)))
    peer.send(b"new")
    assert await readable == b"new"
    assert loop.remove_reader(sock)


async def write_new(loop: Loop, sock: socket.socket, peer: socket.socket) -> None:
    filled = fill(sock)
    writable = loop.create_future()
    loop.add_writer(sock.fileno(), lambda: writable.done() or writable.set_result(None))
    await receive_exactly(peer, filled)
    await writable
    assert loop.remove_writer(sock.fileno())


async def connect_new(loop: Loop, sock: socket.socket, peer: socket.socket) -> None:
    transport, protocol = await loop.create_connection(Recorder, sock=sock)
    peer.send(b"new")
    assert await protocol.received(3) == b"new"
    transport.write(b"back")
    assert await receive_exactly(peer, 4) == b"back"
    transport.close()
    await protocol.lost


async def pipe_new(loop: Loop, sock: socket.socket, peer: socket.socket) -> None:
    transport, protocol = await loop.connect_read_pipe(Recorder, sock)
    peer.send(b"new")
    assert await protocol.received(3) == b"new"
    transport.close()
    await protocol.lost


uses = [
    receive_new,
    receive_into_new,
    receive_from_new,
    send_to_new,
    read_new,
    write_new,
    connect_new,
    pipe_new,
]


@pytest.mark.parametrize("use", uses)
async def test_a_number_that_was_waited_for_is_another_files(
    loop: Loop, unix: Pair, put: Any, keep: Any, use: Any
) -> None:
    await rest(loop, unix)
    keep(unix[0])
    other, peer = unix_pair()
    with put(unix[0], other) as sock, peer:
        await use(loop, sock, peer)
        if use not in (connect_new, pipe_new):
            await rest(loop, (sock, peer))


@pytest.mark.parametrize(
    "use", [use for use in uses if use is not pipe_new]
)  # a pipe shares its number
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_a_number_that_is_waited_for_is_another_files(
    casync: ModuleType, unix: Pair, put: Any, keep: Any, use: Any, debug: bool
) -> None:
    """asyncio's own loop goes on with a registration that is none any more, and hears nothing."""
    ours, theirs = unix

    async def main() -> None:
        loop = asyncio.get_running_loop()
        fill(ours)
        waiting = [
            await waits(loop, loop.sock_recv(ours, 100)),
            await waits(loop, loop.sock_sendall(ours, b"x")),
        ]
        keep(ours)
        other, peer = unix_pair()
        with put(ours, other) as sock, peer:
            with contextlib.suppress(OSError):
                theirs.send(b"to nobody")
            await use(loop, sock, peer)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    casync.run(within(main()), debug=debug)


async def accept_new(loop: Loop, listener: socket.socket) -> None:
    address = listener.getsockname()
    accepting = await waits(loop, loop.sock_accept(listener))
    with socket.create_connection(address):
        (await accepting)[0].close()


async def serve_new(loop: Loop, listener: socket.socket) -> None:
    address = listener.getsockname()
    server = await loop.create_server(Recorder, sock=listener)
    transport, _ = await loop.create_connection(Recorder, *address)
    transport.close()
    server.close()


@pytest.mark.parametrize("use", [accept_new, serve_new])
@pytest.mark.parametrize("before", ["accepting", "accepted", "serving"])
def test_the_number_of_a_listener_is_another_listeners(
    casync: ModuleType, put: Any, keep: Any, use: Any, before: str
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        other = socket.create_server(("127.0.0.1", 0))
        for sock in listener, other:
            sock.setblocking(False)
        accepting = None
        if before == "serving":
            await loop.create_server(Recorder, sock=listener)
        else:
            accepting = await waits(loop, loop.sock_accept(listener))
        if before == "accepted":
            with socket.create_connection(listener.getsockname()):
                (await accepting)[0].close()
        keep(listener)
        with put(listener, other) as sock:
            await use(loop, sock)
        if before == "accepting":
            accepting.cancel()

    casync.run(within(main()))


async def test_the_number_of_a_transport_is_refused_to_others(loop: Loop, unix: Pair) -> None:
    transport, protocol = await loop.create_connection(Recorder, sock=unix[0])
    other, peer = unix_pair()
    with peer, by_dup2(unix[0], other) as sock:
        for watch in loop.add_reader, loop.add_writer:
            with pytest.raises(RuntimeError, match="is used by transport"):
                watch(sock, int)
        for use in (
            lambda: loop.sock_recv(sock, 10),
            lambda: loop.sock_recv_into(sock, bytearray(10)),
            lambda: loop.sock_recvfrom(sock, 10),
            lambda: loop.create_connection(Recorder, sock=sock),  # since 3.14 it closes the socket
        ):
            with pytest.raises(RuntimeError, match="is used by transport"):
                await use()
        transport.abort()
        await protocol.lost


# ---- cancellation ----


async def test_a_cancelled_operation_leaves_the_socket_usable(loop: Loop, unix: Pair) -> None:
    ours, theirs = unix
    for _ in range(3):
        receiving = await waits(loop, loop.sock_recv(ours, 10))
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
    theirs.send(b"hello")
    assert await loop.sock_recv(ours, 10) == b"hello"
    assert not loop.remove_reader(ours)


def test_what_is_cancelled_once_it_is_ready_loses_nothing(casync: ModuleType) -> None:
    """asyncio's own has read by then, and drops it."""
    loop = casync.new_event_loop()
    ours, theirs = unix_pair()
    with ours, theirs:
        for turn in range(4):  # in one of these it is woken, and has not gone on yet
            receiving = loop.create_task(loop.sock_recv(ours, 10))
            run_turns(loop, 2)
            theirs.send(b"hello")
            run_turns(loop, turn)
            if receiving.done():
                assert receiving.result() == b"hello"
                break
            receiving.cancel()
            run_turns(loop, 3)
            assert receiving.cancelled()
            assert ours.recv(10) == b"hello"
        assert turn > 1
    finish(loop)


def test_an_accept_cancelled_once_it_is_ready_loses_nothing(casync: ModuleType) -> None:
    loop = casync.new_event_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        accepting = loop.create_task(loop.sock_accept(listener))
        run_turns(loop, 2)
        with socket.create_connection(listener.getsockname()) as client:
            run_turns(loop)
            accepting.cancel()
            run_turns(loop, 3)
            assert accepting.cancelled()
            accepted, address = loop.run_until_complete(loop.sock_accept(listener))
            accepted.close()
            assert address == client.getsockname()
    finish(loop)


async def test_a_timeout(loop: Loop, unix: Pair) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(loop.sock_recv(unix[0], 10), 0.001)
    unix[1].send(b"late")
    assert await asyncio.wait_for(loop.sock_recv(unix[0], 10), 60) == b"late"


async def test_a_connect_that_is_cancelled(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setblocking(False)
        connecting = loop.create_task(loop.sock_connect(client, listener.getsockname()))
        await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait([connecting])
        assert not loop.remove_writer(client)


# ---- several users of one descriptor ----


async def test_the_last_reader_replaces_the_one_before(loop: Loop, unix: Pair) -> None:
    ours, theirs = unix
    first = await waits(loop, loop.sock_recv(ours, 10))
    second = await waits(loop, loop.sock_recv(ours, 10))
    theirs.send(b"hello")
    assert await second == b"hello"
    third = await waits(loop, loop.sock_recv(ours, 10))
    first.cancel()  # does not take the third's place away
    await asyncio.wait([first])
    theirs.send(b"again")
    assert await third == b"again"


async def test_a_reader_and_operations_replace_each_other(loop: Loop, unix: Pair) -> None:
    ours, theirs = unix
    called = loop.create_future()
    receiving = await waits(loop, loop.sock_recv(ours, 10))
    loop.add_reader(ours, lambda: called.done() or called.set_result(None))
    theirs.send(b"hello")
    await called
    assert not receiving.done()
    receiving.cancel()
    await asyncio.wait([receiving])
    assert loop.remove_reader(ours)
    assert await loop.sock_recv(ours, 10) == b"hello"


async def test_a_reader_after_operations(loop: Loop, unix: Pair) -> None:
    ours, theirs = unix
    receiving = await waits(loop, loop.sock_recv(ours, 10))
    theirs.send(b"one")
    assert await receiving == b"one"
    calls: list[bytes] = []
    loop.add_reader(ours, lambda: calls.append(ours.recv(10)))
    theirs.send(b"two")
    await until(lambda: calls)
    assert loop.remove_reader(ours)
    theirs.send(b"three")
    await turns()
    assert calls == [b"two"]
    assert await loop.sock_recv(ours, 10) == b"three"


async def test_a_writer_beside_a_waiting_receiver(loop: Loop, unix: Pair) -> None:
    ours, theirs = unix
    written = loop.create_future()
    receiving = await waits(loop, loop.sock_recv(ours, 10))
    loop.add_writer(ours, lambda: written.done() or written.set_result(None))
    await written
    assert loop.remove_writer(ours)
    theirs.send(b"hello")
    assert await receiving == b"hello"


async def test_a_transport_has_its_descriptor_for_itself(loop: Loop, tcp: Pair) -> None:
    ours, _ = tcp
    transport, protocol = await loop.create_connection(Recorder, sock=ours)
    with pytest.raises(RuntimeError, match="is used by transport"):
        await loop.sock_recv(ours, 10)
    transport.close()
    await protocol.lost


async def test_a_transport_after_operations(loop: Loop, tcp: Pair) -> None:
    ours, theirs = tcp
    receiving = await waits(loop, loop.sock_recv(ours, 10))
    theirs.send(b"hello")
    assert await receiving == b"hello"
    transport, protocol = await loop.create_connection(Recorder, sock=ours)
    theirs.send(b"more")
    assert await protocol.received(4) == b"more"
    transport.write(b"answer")
    assert await loop.sock_recv(theirs, 10) == b"answer"
    transport.close()
    await protocol.lost


async def test_a_socket_closed_while_somebody_waits(loop: Loop) -> None:
    ours, theirs = unix_pair()
    receiving = await waits(loop, loop.sock_recv(ours, 10))
    number = ours.fileno()
    ours.close()
    with theirs:
        await turns()
        assert not receiving.done()
        receiving.cancel()
        await asyncio.wait([receiving])
    assert not loop.remove_reader(number)


async def test_sockets_that_get_the_same_number(loop: Loop) -> None:
    """What the loop knew of a closed socket is not true of the next one with its descriptor."""
    numbers = set()
    for _ in range(20):
        ours, theirs = unix_pair()
        with ours, theirs:
            numbers.add(ours.fileno())
            for _ in range(2):
                receiving = await waits(loop, loop.sock_recv(ours, 10))
                theirs.send(b"hello")
                assert await receiving == b"hello"
    assert len(numbers) < 20


async def test_two_objects_of_one_descriptor(loop: Loop, unix: Pair) -> None:
    ours, theirs = unix
    alias = socket.socket(fileno=ours.fileno())
    for sock in ours, alias, ours:
        receiving = await waits(loop, loop.sock_recv(sock, 10))
        theirs.send(b"hello")
        assert await receiving == b"hello"
    alias.detach()


async def test_others_that_get_the_number_of_a_closed_socket(loop: Loop) -> None:
    for _ in range(3):
        ours, theirs = unix_pair()
        with ours, theirs:
            receiving = await waits(loop, loop.sock_recv(ours, 10))
            theirs.send(b"hello")
            assert await receiving == b"hello"
        server = await loop.create_server(Recorder, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname()
        )
        transport.close()
        await protocol.lost
        server.close()
        await turns()


def test_what_comes_while_nobody_receives_does_not_keep_the_loop_busy(casync: ModuleType) -> None:
    loop = casync.new_event_loop()
    ours, theirs = unix_pair()

    async def main() -> None:
        receiving = await waits(loop, loop.sock_recv(ours, 10))
        theirs.send(b"one")
        assert await receiving == b"one"
        theirs.send(b"two")
        before = loop.metrics()["events"]
        await turns(50)
        assert loop.metrics()["events"] <= before + 2
        assert await loop.sock_recv(ours, 10) == b"two"

    with ours, theirs:
        loop.run_until_complete(main())
    finish(loop)


# ---- checks ----


OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 1),
    "sock_recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(1)),
    "sock_recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 1),
    "sock_recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(1)),
    "sock_sendall": lambda loop, sock: loop.sock_sendall(sock, b"x"),
    "sock_sendto": lambda loop, sock: loop.sock_sendto(sock, b"x", ("127.0.0.1", 1)),
    "sock_accept": lambda loop, sock: loop.sock_accept(sock),
    "sock_connect": lambda loop, sock: loop.sock_connect(sock, ("127.0.0.1", 1)),
}
every_operation = pytest.mark.parametrize("start", OPERATIONS.values(), ids=OPERATIONS)


@every_operation
async def test_blocking_sockets_are_refused_in_debug_mode(
    loop: Loop, start: Callable[..., Any]
) -> None:
    loop.set_debug(True)
    with socket.socket() as sock:
        for timeout in None, 5:
            sock.settimeout(timeout)
            with pytest.raises(ValueError, match="the socket must be non-blocking"):
                await start(loop, sock)


@every_operation
async def test_closed_sockets(loop: Loop, start: Callable[..., Any]) -> None:
    sock = socket.socket()
    sock.setblocking(False)
    sock.close()
    with pytest.raises(OSError) as caught:
        await start(loop, sock)
    assert caught.value.errno == errno.EBADF


@every_operation
async def test_tls_sockets_are_refused(loop: Loop, start: Callable[..., Any]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with context.wrap_socket(socket.socket(), server_hostname="host") as sock:
        sock.setblocking(False)
        with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
            await start(loop, sock)


@every_operation
async def test_what_is_no_socket(loop: Loop, start: Callable[..., Any]) -> None:
    with pytest.raises(AttributeError):
        await start(loop, object())


async def test_errors_are_the_socket_modules(loop: Loop) -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(OSError) as caught:
            await loop.sock_recv(sock, 1)
        assert (caught.value.errno, caught.value.strerror) == (
            errno.ENOTCONN,
            "Transport endpoint is not connected",
        )
        with pytest.raises(BrokenPipeError):
            await loop.sock_sendall(sock, b"x")
        with pytest.raises(OSError) as caught:
            await loop.sock_accept(sock)
        assert caught.value.errno == errno.EINVAL


async def test_a_connection_that_is_reset(loop: Loop, tcp: Pair) -> None:
    ours, theirs = tcp
    receiving = await waits(loop, loop.sock_recv(ours, 10))
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    with pytest.raises(ConnectionResetError):
        await receiving


def test_a_closed_loop(loop_module: ModuleType) -> None:
    ours, theirs = unix_pair()
    loop, other = loop_module.new_event_loop(), loop_module.new_event_loop()
    loop.close()
    with ours, theirs:
        with pytest.raises(RuntimeError, match="closed"):
            other.run_until_complete(loop.sock_recv(ours, 1))
        other.close()


def test_a_blocking_socket_does_not_block_the_loop(casync: ModuleType) -> None:
    """asyncio's own waits in recv() outside of debug mode."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = unix_pair()
        with ours, theirs:
            ours.setblocking(True)
            receiving = await waits(loop, loop.sock_recv(ours, 10))
            theirs.send(b"hello")
            assert await receiving == b"hello"

    casync.run(main())


# ---- sockets of other types ----


class Wrapped(socket.socket):
    """Counts the calls of its methods."""

    calls = 0

    def recv(self, *args: Any) -> bytes:
        self.calls += 1
        return super().recv(*args)

    def recv_into(self, *args: Any) -> int:
        self.calls += 1
        return super().recv_into(*args)

    def send(self, *args: Any) -> int:
        self.calls += 1
        return super().send(*args)


async def test_methods_of_derived_sockets_are_called(loop: Loop, unix: Pair) -> None:
    ours, theirs = unix
    with Wrapped(fileno=ours.detach()) as wrapped:
        receiving = await waits(loop, loop.sock_recv(wrapped, 10))
        theirs.send(b"hello")
        assert await receiving == b"hello"
        assert wrapped.calls == 2
        theirs.send(b"again")
        assert await loop.sock_recv_into(wrapped, bytearray(10)) == 5
        assert wrapped.calls == 3
        data = pattern(3_000_000)
        _, received = await asyncio.gather(
            loop.sock_sendall(wrapped, data), receive_exactly(theirs, len(data))
        )
        assert received == data
        assert wrapped.calls > 4


async def test_methods_that_are_patched_are_called(
    loop: Loop, unix: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "recv", lambda self, size: b"patched")
    assert await loop.sock_recv(unix[0], 10) == b"patched"
    monkeypatch.undo()
    unix[1].send(b"real")
    assert await loop.sock_recv(unix[0], 10) == b"real"


async def test_mocks(loop: Loop, unix: Pair) -> None:
    mock = Mock(unix[0])
    mock.fileno = unix[0].fileno
    mock.gettimeout.return_value = 0
    mock.send.side_effect = [BlockingIOError, 2, InterruptedError, 3]
    assert await loop.sock_sendall(mock, b"hello") is None
    assert [bytes(call.args[0]) for call in mock.send.call_args_list] == [
        b"hello",
        b"hello",
        b"llo",
        b"llo",
    ]
    mock.recv.side_effect = [BlockingIOError, b"hello"]
    receiving = await waits(loop, loop.sock_recv(mock, 10))
    unix[1].send(b"x")
    assert await receiving == b"hello"
    mock.recv.side_effect = [ZeroDivisionError]
    with pytest.raises(ZeroDivisionError):
        await loop.sock_recv(mock, 10)


# ---- awaitables ----


async def test_they_count_as_coroutines(loop: Loop, unix: Pair) -> None:
    operation = loop.sock_recv(unix[0], 10)
    assert asyncio.iscoroutine(operation)
    assert isinstance(operation, collections.abc.Coroutine)
    assert not asyncio.isfuture(operation)
    assert operation.__name__ == "sock_recv"
    assert operation.__qualname__.endswith("EventLoop.sock_recv")
    assert "EventLoop.sock_recv" in repr(operation)
    operation.close()
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await operation


@every_operation
def test_one_that_nobody_awaits_warns(loop: Loop, unix: Pair, start: Callable[..., Any]) -> None:
    with pytest.warns(RuntimeWarning, match=r"coroutine '.*EventLoop\.sock_\w+' was never awaited"):
        start(loop, unix[0])
        gc.collect()


async def test_nothing_is_done_before_it_is_awaited(loop: Loop, unix: Pair) -> None:
    sending = loop.sock_sendall(unix[0], b"hello")
    with pytest.raises(BlockingIOError):
        unix[1].recv(10)
    await sending
    assert unix[1].recv(10) == b"hello"


async def test_steps_by_hand(loop: Loop, unix: Pair) -> None:
    ours, theirs = unix
    receiving = loop.sock_recv(ours, 10)
    future = receiving.send(None)
    assert asyncio.isfuture(future) and not future.done()
    theirs.send(b"hello")
    await until(future.done)
    with pytest.raises(StopIteration) as stopped:
        receiving.send(None)
    assert stopped.value.value == b"hello"
    with pytest.raises(StopIteration) as stopped:
        loop.sock_sendall(ours, b"x").send(None)
    assert stopped.value.value is None


async def test_results_of_steps_by_hand_are_their_own(loop: Loop, unix: Pair) -> None:
    """Since 3.12 `await` steps by __next__, too, and its exception may be shared."""
    caught = []
    for data in b"one", b"two":
        unix[1].send(data)
        stepped = loop.sock_recv(unix[0], 10).__await__()
        with pytest.raises(StopIteration) as stopped:
            next(stepped)
        caught.append(stopped.value)
        del stepped
    assert [exception.value for exception in caught] == [b"one", b"two"]


async def test_an_exception_thrown_into_it(loop: Loop, unix: Pair) -> None:
    receiving = loop.sock_recv(unix[0], 10)
    receiving.send(None)
    with pytest.raises(ZeroDivisionError):
        receiving.throw(ZeroDivisionError())
    unix[1].send(b"hello")
    assert await loop.sock_recv(unix[0], 10) == b"hello"


async def test_one_that_runs_cannot_be_stepped_or_closed(loop: Loop, unix: Pair) -> None:
    errors: list[type[Exception]] = []

    class Closing(socket.socket):
        def recv(self, *args: Any) -> bytes:
            for meddle in receiving.close, lambda: receiving.send(None):
                try:
                    meddle()
                except (RuntimeError, ValueError) as error:
                    errors.append(type(error))
            return b"received"

    with Closing(fileno=unix[0].detach()) as sock:
        receiving = loop.sock_recv(sock, 10)
        assert await receiving == b"received"
    assert errors == [ValueError, ValueError]


async def test_results_are_nobody_elses(loop: Loop, unix: Pair) -> None:
    unix[1].send(b"x" * 1000)
    data = await loop.sock_recv(unix[0], 10_000)
    fresh = bytes(len(data))
    assert sys.getrefcount(data) == sys.getrefcount(fresh)


@pytest.mark.parametrize(
    ("name", "args", "keywords", "message"),
    [
        ("sock_recv", 1, {}, "missing"),
        ("sock_recv", 3, {}, "takes"),
        ("sock_recv", 1, {"size": 1}, "(unexpected keyword|missing)"),
        ("sock_recv", 2, {"n": 1}, "multiple values"),
        ("sock_sendto", 2, {}, "missing"),
        ("sock_accept", 0, {}, "missing"),
        ("sock_recvfrom_into", 4, {}, "takes"),
    ],
)
async def test_wrong_arguments(
    loop: Loop, name: str, args: int, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        getattr(loop, name)(*range(args), **keywords)


async def test_arguments_by_name(loop: Loop, unix: Pair) -> None:
    await loop.sock_sendall(data=b"hello", sock=unix[1])
    assert await loop.sock_recv(unix[0], n=2) == b"he"
    buffer = bytearray(3)
    assert await loop.sock_recvfrom_into(buf=buffer, nbytes=2, sock=unix[0]) == (2, None)
    assert buffer == b"ll\0"


async def test_many_at_once(loop: Loop) -> None:
    async def echo(sock: socket.socket) -> None:
        while data := await loop.sock_recv(sock, 65536):
            await loop.sock_sendall(sock, data)
        sock.shutdown(socket.SHUT_WR)

    async def ask(sock: socket.socket) -> None:
        for i in range(20):
            message = pattern(1 + i * 500)
            await loop.sock_sendall(sock, message)
            assert await receive_exactly(sock, len(message)) == message
        sock.shutdown(socket.SHUT_WR)
        assert await receive_all(sock) == b""

    pairs = [tcp_pair() for _ in range(50)]
    await asyncio.gather(*(ask(one) for one, _ in pairs), *(echo(two) for _, two in pairs))
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_loops_with_waiting_operations_can_be_collected(loop_module: ModuleType) -> None:
    ours, theirs = unix_pair()
    loop = loop_module.new_event_loop()

    async def receive(loop: Loop) -> None:
        await loop.sock_recv(ours, 10)

    task = loop.create_task(receive(loop))
    run_turns(loop, 2)
    gone = weakref.ref(task)
    loop.set_exception_handler(lambda *_: None)
    loop.close()
    with ours, theirs:
        del task, loop
        gc.collect()
        assert gone() is None


async def test_the_methods_are_known_as_coroutine_functions(loop: Loop) -> None:
    """So unittest.mock makes AsyncMocks of them."""
    names = {name for name in dir(loop) if name.startswith("sock_")}
    assert names >= {"sock_recv", "sock_recv_into", "sock_sendall", "sock_accept", "sock_connect"}
    mocked = Mock(spec=loop)
    for name in names:
        assert inspect.iscoroutinefunction(getattr(loop, name)), name
        assert inspect.iscoroutinefunction(getattr(type(loop), name)), name
        assert isinstance(getattr(mocked, name), AsyncMock), name
        assert isinstance(create_autospec(getattr(loop, name)), types.FunctionType), name
    with patch.object(loop, "sock_recv", return_value=b"mocked"):
        assert await loop.sock_recv(None, 5) == b"mocked"


async def test_one_tells_its_state_as_a_coroutine(loop: Loop) -> None:
    ours, other = socket.socketpair()
    with ours, other:
        ours.setblocking(False)
        receives: Any = loop.sock_recv(ours, 10)
        assert inspect.getcoroutinestate(receives) == inspect.CORO_CREATED
        task = asyncio.ensure_future(receives)
        await asyncio.sleep(0.01)
        assert inspect.getcoroutinestate(receives) == inspect.CORO_SUSPENDED
        assert receives.cr_frame.f_code.co_name.endswith("sock_recv")
        other.send(b"data")
        assert await task == b"data"
        assert inspect.getcoroutinestate(receives) == inspect.CORO_CLOSED
        assert receives.cr_frame is None


def forget_attributes() -> None:
    """Empties CPython's cache of type attributes."""
    if sys.version_info >= (3, 13):
        sys._clear_internal_caches()
    else:
        sys._clear_type_cache()


async def test_no_name_is_made_for_one_look_up(loop: Loop) -> None:
    """CPython's cache of type attributes keeps each string that was looked up: of names that are
    made anew it keeps them all, until its 4,096 entries are full."""

    async def one_round() -> None:
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, listener.getsockname())
            loop.add_reader(client, int)
            loop.remove_reader(client)
            listener.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        await one_round()
        forget_attributes()
        for _ in range(100):
            await one_round()
        blocks = sys.getallocatedblocks()
        forget_attributes()
        assert blocks - sys.getallocatedblocks() < 50
