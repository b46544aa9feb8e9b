"""Stream transports and protocols, over TCP and over Unix sockets.

Most tests have a transport at one end and a plain socket, `peer`, at the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
import socket
import struct
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import ModuleType
from typing import Any

import pytest
from growth import malloced_bytes
from support import (
    FREE_THREADED,
    Buffered,
    Loop,
    Recorder,
    collect_garbage,
    ended,
    errors_of,
    pattern,
    python,
    receive_all,
    receive_exactly,
    tcp_pair,
    turns,
    unix_pair,
    until,
    within,
)

MEBI = 1 << 20


@pytest.fixture(params=[tcp_pair, unix_pair], ids=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The socket to make a transport of, and its peer."""
    ours, peer = request.param()
    yield ours, peer
    ours.close()
    peer.close()


Pair = tuple[socket.socket, socket.socket]


async def connect(
    loop: Loop, sock: socket.socket, protocol: Callable[[], Any] = Recorder
) -> tuple[Any, Any]:
    return await loop.create_connection(protocol, sock=sock)


async def fill(transport: Any) -> int:
    """Writes until the kernel takes no more and the transport has to keep the rest. Returns how
    much.
    """
    written = 0
    while transport.get_write_buffer_size() < 1000:
        transport.write(bytes(MEBI))
        written += MEBI
    return written


async def test_a_protocol_hears_all_in_order(loop: Loop, pair: Pair) -> None:
    ours, peer = pair
    transport, protocol = await connect(loop, ours)
    assert protocol.transport is transport
    peer.send(b"hello")
    peer.close()
    await protocol.lost
    assert protocol.events == ["made", "data", "eof", "lost"]
    assert protocol.data == b"hello"
    assert protocol.error is None
    assert transport.is_closing()


@pytest.mark.parametrize("size", [1, 1000, 65536, 65537, 262144, 5 * MEBI])
async def test_what_is_written_arrives_exactly(loop: Loop, pair: Pair, size: int) -> None:
    ours, peer = pair
    transport, protocol = await connect(loop, ours)
    data = pattern(size)
    transport.write(data)
    assert await receive_exactly(peer, size) == data
    await loop.sock_sendall(peer, data)
    assert await protocol.received(size) == data
    transport.close()
    await protocol.lost


async def test_many_writes_of_every_kind_arrive_in_order(loop: Loop, pair: Pair) -> None:
    ours, peer = pair
    transport, protocol = await connect(loop, ours)
    whole = pattern(4 * MEBI)
    kinds: list[Callable[[bytes], Any]] = [bytes, bytearray, memoryview]
    start, number = 0, 0
    while start < len(whole):
        size = (1, 7, 100, 4095, 4096, 4097, 70_000, 300_000)[number % 8]
        piece = whole[start : start + size]
        if number % 5 == 4:
            transport.writelines([piece[:10], bytearray(piece[10:20]), memoryview(piece)[20:]])
        else:
            transport.write(kinds[number % 3](piece))
        start, number = start + size, number + 1
    transport.write(b"")
    transport.writelines([])
    received = await receive_exactly(peer, len(whole))
    assert hashlib.sha1(received).digest() == hashlib.sha1(whole).digest()
    transport.close()
    await protocol.lost


async def test_both_ends_write_megabytes_at_once(loop: Loop, pair: Pair) -> None:
    (one, first), (two, second) = [await connect(loop, sock) for sock in pair]
    data = pattern(4 * MEBI)
    one.write(data)
    two.write(data[::-1])
    assert await second.received(len(data)) == data
    assert await first.received(len(data)) == data[::-1]
    one.close()
    await first.lost
    await second.lost


async def test_only_bytes_can_be_written(loop: Loop, pair: Pair) -> None:
    transport, protocol = await connect(loop, pair[0])
    for bad in "text", 1, None, [b"x"]:
        with pytest.raises(TypeError):
            transport.write(bad)
    with pytest.raises(TypeError):
        transport.writelines(["text"])
    assert not transport.is_closing()
    transport.close()
    await protocol.lost


def test_the_written_object_may_be_changed_afterwards(casync: Any) -> None:
    # asyncio's own loop (3.12 and later) sends the changed bytes, or complains of an exported
    # buffer.
    async def main() -> None:
        ours, peer = unix_pair()
        with peer:
            transport, protocol = await connect(asyncio.get_running_loop(), ours)
            written = await fill(transport)
            data = bytearray(b"before" * 10_000)
            transport.write(data)
            data[:] = b"after!" * 10_000
            data.clear()
            transport.close()
            assert (await receive_all(peer))[written:] == b"before" * 10_000
            await protocol.lost

    casync.run(within(main()))


async def test_flow_control_of_writes(loop: Loop, pair: Pair) -> None:
    ours, peer = pair
    transport, protocol = await connect(loop, ours)
    transport.set_write_buffer_limits(high=100_000, low=1_000)
    assert transport.get_write_buffer_limits() == (1_000, 100_000)
    assert transport.get_write_buffer_size() == 0
    total = await fill(transport)
    while "pause" not in protocol.events:
        transport.write(bytes(10_000))
        total += 10_000
    assert transport.get_write_buffer_size() > 100_000
    transport.write(bytes(10_000))
    await turns()
    assert protocol.events == ["made", "pause"]
    await receive_exactly(peer, total + 10_000)
    await until(lambda: "resume" in protocol.events)
    assert protocol.events == ["made", "pause", "resume"]
    assert transport.get_write_buffer_size() <= 1_000
    transport.abort()
    await protocol.lost


async def test_write_buffer_limits(loop: Loop, pair: Pair) -> None:
    transport, protocol = await connect(loop, pair[0])
    assert transport.get_write_buffer_limits() == (16384, 65536)
    transport.set_write_buffer_limits(high=1000)
    assert transport.get_write_buffer_limits() == (250, 1000)
    transport.set_write_buffer_limits(low=1000)
    assert transport.get_write_buffer_limits() == (1000, 4000)
    assert (transport._low_water, transport._high_water) == (1000, 4000)
    transport.set_write_buffer_limits(high=0)
    assert transport.get_write_buffer_limits() == (0, 0)
    for bad in {"high": 1, "low": 2}, {"low": -1}, {"high": -1}:
        with pytest.raises(ValueError):
            transport.set_write_buffer_limits(**bad)
    transport.close()
    await protocol.lost


async def test_a_high_water_mark_of_zero_pauses_whenever_something_is_left(
    loop: Loop, pair: Pair
) -> None:
    ours, peer = pair
    transport, protocol = await connect(loop, ours)
    transport.set_write_buffer_limits(high=0)
    transport.write(b"small")
    assert protocol.events == ["made"]
    total = 5 + await fill(transport)
    assert protocol.events == ["made", "pause"]
    await receive_exactly(peer, total)
    await until(lambda: "resume" in protocol.events)
    assert transport.get_write_buffer_size() == 0
    transport.close()
    await protocol.lost


async def test_pause_reading(loop: Loop, pair: Pair) -> None:
    ours, peer = pair
    transport, protocol = await connect(loop, ours)
    assert transport.is_reading()
    for _ in range(2):
        transport.pause_reading()
        assert not transport.is_reading()
    peer.send(b"while paused")
    await turns()
    assert protocol.data == b""
    for _ in range(2):
        transport.resume_reading()
        assert transport.is_reading()
    assert await protocol.received(12) == b"while paused"
    transport.close()
    assert not transport.is_reading()
    transport.pause_reading()
    transport.resume_reading()
    assert not transport.is_reading()
    await protocol.lost


async def test_reading_may_be_paused_before_the_first_byte(
    loop: Loop, loop_module: ModuleType, pair: Pair
) -> None:
    if loop_module is asyncio and sys.version_info < (3, 11):
        pytest.skip("asyncio's own loop forgets the pause before Python 3.11")

    class Paused(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    ours, peer = pair
    peer.send(b"early")
    transport, protocol = await connect(loop, ours, Paused)
    await turns()
    assert protocol.data == b""
    transport.resume_reading()
    assert await protocol.received(5) == b"early"
    transport.close()
    await protocol.lost


async def test_reading_may_be_paused_by_data_received(loop: Loop, pair: Pair) -> None:
    class OneAtATime(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.pause_reading()
            super().data_received(data)

    ours, peer = pair
    transport, protocol = await connect(loop, ours, OneAtATime)
    for number in range(5):
        peer.send(b"x")
        await protocol.received(number + 1)
        assert len(protocol.data) == number + 1
        peer.send(b"y")
        await turns()
        assert len(protocol.data) == number + 1
        peer.send(b"z")
        protocol.data.clear()
        transport.resume_reading()
        assert await protocol.received(2) == b"yz"
        protocol.data[:] = bytes(number + 1)
        transport.resume_reading()
    transport.close()
    await protocol.lost


async def test_write_eof_ends_one_direction_after_all_data(loop: Loop, pair: Pair) -> None:
    ours, peer = pair
    transport, protocol = await connect(loop, ours)
    assert transport.can_write_eof()
    data = pattern(3 * MEBI)
    transport.write(data)
    transport.write_eof()
    transport.write_eof()
    with pytest.raises(RuntimeError, match="write_eof"):
        transport.write(b"too late")
    assert await receive_all(peer) == data
    assert not transport.is_closing()
    await loop.sock_sendall(peer, b"answer")
    assert await protocol.received(6) == b"answer"
    peer.close()
    await protocol.lost
    events = [event for event in protocol.events if event not in ("pause", "resume")]
    assert events == ["made", "data", "eof", "lost"]


async def test_eof_closes_unless_the_protocol_wants_to_go_on(loop: Loop, pair: Pair) -> None:
    class HalfOpen(Recorder):
        def eof_received(self) -> bool:
            super().eof_received()
            return True

    ours, peer = pair
    transport, protocol = await connect(loop, ours, HalfOpen)
    peer.shutdown(socket.SHUT_WR)
    await protocol.got_eof
    await turns()
    assert not transport.is_closing()
    transport.write(b"still here")
    assert await receive_exactly(peer, 10) == b"still here"
    transport.close()
    assert await receive_all(peer) == b""
    await protocol.lost
    assert protocol.events == ["made", "eof", "lost"]


async def test_eof_is_told_again_after_a_pause(loop: Loop, pair: Pair) -> None:
    """As to a protocol that takes over meanwhile, which must not wait for bytes for ever."""

    class HalfOpen(asyncio.Protocol):
        def __init__(self, name: str) -> None:
            self.name = name

        def eof_received(self) -> bool:
            told.append(self.name)
            return True

    told: list[str] = []
    ours, peer = pair
    transport, _ = await connect(loop, ours, lambda: HalfOpen("first"))
    peer.shutdown(socket.SHUT_WR)
    await until(lambda: told)
    transport.set_protocol(HalfOpen("second"))
    await turns()
    assert told == ["first"] and transport.is_reading()
    for _ in range(3):
        transport.pause_reading()
        transport.resume_reading()
    await turns()
    assert told == ["first", "second"]
    transport.pause_reading()
    transport.resume_reading()
    transport.pause_reading()
    await turns()
    assert told == ["first", "second"]
    transport.resume_reading()
    await turns()
    assert told == ["first", "second", "second"]
    transport.pause_reading()
    transport.resume_reading()
    transport.abort()
    await turns()
    assert told == ["first", "second", "second"]


async def test_close_flushes_first(loop: Loop, pair: Pair) -> None:
    ours, peer = pair
    transport, protocol = await connect(loop, ours)
    data = pattern(3 * MEBI)
    transport.write(data)
    transport.close()
    transport.close()
    assert transport.is_closing()
    assert not protocol.lost.done()
    assert await receive_all(peer) == data
    await protocol.lost
    assert protocol.error is None
    assert protocol.events[-1] == "lost" and "data" not in protocol.events


async def test_close_ends_reading_at_once(loop: Loop, pair: Pair) -> None:
    ours, peer = pair
    transport, protocol = await connect(loop, ours)
    peer.send(b"unread")
    transport.close()
    await protocol.lost
    assert protocol.events == ["made", "lost"]


async def test_connection_lost_is_never_called_inside_close_or_abort(
    loop: Loop, pair: Pair
) -> None:
    for sock, method in zip(pair, ("close", "abort"), strict=True):
        transport, protocol = await connect(loop, sock)
        getattr(transport, method)()
        assert not protocol.lost.done()
        await protocol.lost


async def test_abort_drops_what_is_not_written(loop: Loop, pair: Pair) -> None:
    ours, peer = pair
    transport, protocol = await connect(loop, ours)
    total = await fill(transport)
    transport.abort()
    transport.abort()
    await protocol.lost
    assert protocol.error is None
    received = 0
    while chunk := await loop.sock_recv(peer, MEBI):
        received += len(chunk)
    assert received < total


async def test_writes_after_close_are_dropped(loop: Loop, pair: Pair) -> None:
    ours, peer = pair
    transport, protocol = await connect(loop, ours)
    transport.close()
    transport.write(b"dropped")
    await protocol.lost
    transport.write(b"dropped as well")
    assert await receive_all(peer) == b""


async def test_a_reset_by_the_peer_is_an_error_of_the_connection(loop: Loop) -> None:
    ours, peer = tcp_pair()
    transport, protocol = await connect(loop, ours)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    await protocol.lost
    assert isinstance(protocol.error, ConnectionResetError)
    assert protocol.events == ["made", "lost"]
    assert transport.is_closing()


async def test_writing_to_a_peer_that_has_gone(loop: Loop, pair: Pair) -> None:
    ours, peer = pair
    transport, protocol = await connect(loop, ours)
    transport.pause_reading()
    peer.close()
    while not protocol.lost.done():
        transport.write(b"x")
        await asyncio.sleep(0)
    assert isinstance(protocol.error, (BrokenPipeError, ConnectionResetError))
    for _ in range(10):
        transport.write(b"ignored")


@pytest.mark.parametrize("where", ["data_received", "eof_received"])
async def test_an_exception_in_the_protocol_ends_the_connection(
    loop: Loop, pair: Pair, where: str
) -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            if where == "data_received":
                raise LookupError(where)

        def eof_received(self) -> None:
            raise LookupError(where)

    errors = errors_of(loop)
    ours, peer = pair
    transport, protocol = await connect(loop, ours, Failing)
    peer.send(b"x")
    peer.shutdown(socket.SHUT_WR)
    await protocol.lost
    assert isinstance(protocol.error, LookupError)
    [context] = errors
    assert context["message"] == f"Fatal error: protocol.{where}() call failed."
    assert context["transport"] is transport and context["protocol"] is protocol
    assert context["exception"] is protocol.error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_protocol_leaves_the_loop(loop: Loop, pair: Pair, error: Any) -> None:
    class Interrupting(Recorder):
        def data_received(self, data: bytes) -> None:
            raise error

    ours, peer = pair
    transport, protocol = loop.run_until_complete(connect(loop, ours, Interrupting))
    peer.send(b"x")
    with pytest.raises(error):
        loop.run_forever()
    transport.abort()
    loop.run_until_complete(protocol.lost)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_get_buffer_leaves_the_connection_open(
    loop: Loop, pair: Pair, error: Any
) -> None:
    class Interrupting(Buffered):
        def get_buffer(self, sizehint: int) -> Any:
            if len(self.hints) < 2:
                self.hints.append(sizehint)
                raise error
            return super().get_buffer(sizehint)

    ours, peer = pair
    transport, protocol = loop.run_until_complete(connect(loop, ours, lambda: Interrupting(100)))
    peer.send(b"hello")
    for _ in range(2):
        with pytest.raises(error):
            loop.run_forever()
        assert not transport.is_closing()
    loop.run_until_complete(within(until(lambda: protocol.data == b"hello")))
    transport.abort()
    loop.run_until_complete(protocol.lost)
    assert protocol.error is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_eof_received_comes_again(loop: Loop, pair: Pair, error: Any) -> None:
    class Interrupting(Recorder):
        def eof_received(self) -> bool:
            self.events.append("eof")
            if self.events.count("eof") < 3:
                raise error
            self.got_eof.set_result(None)
            return True

    ours, peer = pair
    transport, protocol = loop.run_until_complete(connect(loop, ours, Interrupting))
    peer.shutdown(socket.SHUT_WR)
    for _ in range(2):
        with pytest.raises(error):
            loop.run_forever()
        assert not transport.is_closing()
    loop.run_until_complete(within(protocol.got_eof))
    transport.write(b"still open")
    assert loop.run_until_complete(within(receive_exactly(peer, 10))) == b"still open"
    transport.abort()
    loop.run_until_complete(protocol.lost)
    assert protocol.events == ["made", "eof", "eof", "eof", "lost"]


@pytest.mark.parametrize("kind", ["socket", "read pipe", "write pipe", "datagram"])
async def test_an_exception_in_connection_lost_is_reported_as_a_callbacks(
    loop: Loop, kind: str
) -> None:
    class Failing(asyncio.Protocol, asyncio.DatagramProtocol):
        def connection_lost(self, exc: BaseException | None) -> None:
            raise LookupError("in connection_lost")

    errors = errors_of(loop)
    ours, theirs = unix_pair()
    pipe = os.fdopen(os.dup(ours.fileno()), "r+b", buffering=0)
    if kind == "socket":
        transport, _ = await loop.create_connection(Failing, sock=ours)
    elif kind == "read pipe":
        transport, _ = await loop.connect_read_pipe(Failing, pipe)
    elif kind == "write pipe":
        transport, _ = await loop.connect_write_pipe(Failing, pipe)
    else:
        transport, _ = await loop.create_datagram_endpoint(Failing, local_addr=("127.0.0.1", 0))
    transport.close()
    await until(lambda: errors)
    assert not transport._loop
    for file in ours, theirs, pipe:
        file.close()
    [context] = errors
    assert set(context) == {"message", "exception", "handle"}
    assert re.match(
        r"Exception in callback _\w+Transport\._call_connection_lost\(", context["message"]
    )
    context["handle"].cancel()  # it has run


async def test_an_exception_of_a_pipes_or_a_datagrams_protocol_is_reported_as_a_callbacks(
    loop: Loop,
) -> None:
    class Failing(asyncio.Protocol, asyncio.DatagramProtocol):
        def data_received(self, data: bytes) -> None:
            raise LookupError("in data_received")

        def datagram_received(self, data: bytes, addr: Any) -> None:
            raise LookupError("in datagram_received")

        def eof_received(self) -> None:
            raise LookupError("in eof_received")

    errors = errors_of(loop)
    reading, writing = os.pipe()
    pipe, _ = await loop.connect_read_pipe(Failing, os.fdopen(reading, "rb", buffering=0))
    os.write(writing, b"x")
    await until(lambda: len(errors) == 1)
    os.close(writing)
    await until(lambda: len(errors) == 2)
    transport, _ = await loop.create_datagram_endpoint(Failing, local_addr=("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", transport.get_extra_info("sockname"))
        await until(lambda: len(errors) == 3)
    transport.close()
    await until(lambda: not transport._loop and not pipe._loop)
    assert [set(context) for context in errors] == [{"message", "exception", "handle"}] * 3
    assert [context["message"].partition("(")[0].rpartition(" ")[2] for context in errors] == [
        "_UnixReadPipeTransport._read_ready",
        f"{Failing.__qualname__}.eof_received",
        "_SelectorDatagramTransport._read_ready",
    ]


@pytest.mark.parametrize("asked_before", [True, False])
@pytest.mark.parametrize("accepted", [True, False])
async def test_the_socket_is_known_after_the_end(
    loop: Loop, accepted: bool, asked_before: bool
) -> None:
    protocols: list[Recorder] = []

    class Server(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            protocols.append(self)

    server = await loop.create_server(Server, "127.0.0.1", 0)
    _, protocol = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
    await until(lambda: protocols)
    asked, other = (protocols[0], protocol) if accepted else (protocol, protocols[0])
    transport = asked.transport
    if asked_before:
        assert transport.get_extra_info("socket").fileno() >= 0
    transport.close()
    other.transport.close()
    await asked.lost
    await other.lost
    server.close()
    sock = transport.get_extra_info("socket")
    assert isinstance(sock, asyncio.trsock.TransportSocket)
    assert (sock.fileno(), sock.family, sock.type) == (-1, socket.AF_INET, socket.SOCK_STREAM)
    assert sock.proto == socket.IPPROTO_TCP
    assert transport.get_extra_info("socket") is sock
    assert transport._sock is None


async def test_extra_info(loop: Loop) -> None:
    ours, peer = tcp_pair()
    name, peer_name = ours.getsockname(), ours.getpeername()
    number = ours.fileno()
    transport, protocol = await connect(loop, ours)
    assert transport.get_extra_info("sockname") == name
    assert transport.get_extra_info("peername") == peer_name
    sock = transport.get_extra_info("socket")
    assert (sock.fileno(), sock.family, sock.type) == (number, socket.AF_INET, socket.SOCK_STREAM)
    assert sock.getsockname() == name
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert transport.get_extra_info("unknown") is None
    assert transport.get_extra_info("unknown", "default") == "default"
    transport.close()
    await protocol.lost
    assert transport.get_extra_info("peername") == peer_name
    peer.close()


async def test_a_blocking_socket_is_made_non_blocking(loop: Loop, pair: Pair) -> None:
    ours, peer = pair
    ours.setblocking(True)
    transport, protocol = await connect(loop, ours)
    peer.send(b"x")
    assert await protocol.received(1) == b"x"
    transport.close()
    await protocol.lost


async def test_repr_tells_descriptor_and_state(loop: Loop, pair: Pair) -> None:
    ours, _ = pair
    number = ours.fileno()
    transport, protocol = await connect(loop, ours)
    assert f"fd={number}" in repr(transport)
    await fill(transport)
    transport.close()
    assert "closing" in repr(transport)
    transport.abort()
    await protocol.lost
    await turns()
    assert "closed" in repr(transport)


async def test_repr_in_connection_made_says_that_nothing_is_read_yet(
    loop: Loop, pair: Pair
) -> None:
    seen: list[str] = []

    class Shown(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            seen.append(repr(transport))
            super().connection_made(transport)

    transport, protocol = await loop.create_connection(Shown, sock=pair[0])
    await turns()
    assert "read=idle" in seen[0]
    assert "read=polling" in repr(transport)
    transport.close()
    await protocol.lost


def test_a_transport_that_its_loop_left_is_not_closing(loop_module: ModuleType, pair: Pair) -> None:
    loop = loop_module.new_event_loop()
    transport, protocol = loop.run_until_complete(loop.create_connection(Recorder, sock=pair[0]))
    number = pair[0].fileno()
    loop.close()
    assert not transport.is_closing()
    assert repr(transport).endswith(f"Transport fd={number}>")
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport, protocol, loop
        collect_garbage()


async def test_a_buffer_that_cannot_be_sent_ends_the_connection(loop: Loop, pair: Pair) -> None:
    errors = errors_of(loop)
    transport, protocol = await connect(loop, pair[0])
    transport.write(memoryview(bytearray(10))[::2])
    assert transport.is_closing()
    await protocol.lost
    assert isinstance(protocol.error, BufferError)
    assert [context["message"] for context in errors] == ["Fatal write error on socket transport"]


async def test_marks_may_be_any_numbers(loop: Loop, pair: Pair) -> None:
    transport, protocol = await connect(loop, pair[0])
    for high, low, limits in [
        (1e6, 1.0, (1.0, 1e6)),
        (2**70, 1, (1, 2**70)),
        (1.5, None, (0.0, 1.5)),
        (None, 1.5, (1.5, 6.0)),
        (Fraction(7, 2), None, (0, Fraction(7, 2))),
        (float("inf"), 1, (1, float("inf"))),
        (None, None, (16384, 65536)),
    ]:
        transport.set_write_buffer_limits(high=high, low=low)
        transport.write(b"data")
        assert transport.get_write_buffer_limits() == limits
        assert [type(limit) for limit in transport.get_write_buffer_limits()] == [
            *map(type, limits)
        ]
    for high, error in ("much", TypeError), (float("nan"), ValueError), (float("inf"), ValueError):
        with pytest.raises(error):
            transport.set_write_buffer_limits(high=high)
        assert transport.get_write_buffer_limits() == (16384, 65536)
    transport.close()
    await protocol.lost


async def test_a_mark_between_two_sizes(loop: Loop, pair: Pair) -> None:
    ours, _ = pair
    transport, protocol = await connect(loop, ours)
    transport.set_write_buffer_limits(high=1e9)
    await fill(transport)
    transport.set_write_buffer_limits(high=transport.get_write_buffer_size() + 0.5)
    assert protocol.events == ["made"]
    transport.write(b"x")
    assert protocol.events == ["made", "pause"]
    transport.abort()
    await protocol.lost


@pytest.mark.parametrize("high", [-1, -4, -5, -0.5])
async def test_marks_below_zero_are_refused_in_the_same_words(
    loop: Loop, pair: Pair, high: float
) -> None:
    transport, protocol = await connect(loop, pair[0])
    with pytest.raises(
        ValueError, match=rf"high \({high}\) must be >= low \({high // 4}\) must be >= 0"
    ):
        transport.set_write_buffer_limits(high=high)
    transport.close()
    await protocol.lost


async def test_transports_are_ordinary_objects(loop: Loop, pair: Pair) -> None:
    transport, protocol = await connect(loop, pair[0])
    assert isinstance(transport, asyncio.Transport)
    transport.attribute = "value"
    assert transport.attribute == "value"
    assert weakref.ref(transport)() is transport
    assert transport in {transport}
    transport.close()
    await protocol.lost


async def test_the_protocol_can_be_changed_at_any_time(loop: Loop, pair: Pair) -> None:
    ours, peer = pair
    transport, first = await connect(loop, ours)
    assert transport.get_protocol() is first
    peer.send(b"first")
    await first.received(5)
    buffered = Buffered(1000)
    transport.set_protocol(buffered)
    assert transport.get_protocol() is buffered
    peer.send(b"second")
    await until(lambda: len(buffered.data) == 6)
    third = Recorder()
    transport.set_protocol(third)
    peer.send(b"third")
    assert await third.received(5) == b"third"
    assert (first.data, buffered.data) == (b"first", b"second")
    transport.close()
    await third.lost
    assert not first.lost.done()


async def test_the_protocol_can_be_changed_while_it_receives(loop: Loop, pair: Pair) -> None:
    class Handover(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.set_protocol(second)

    ours, peer = pair
    second = Recorder()
    transport, first = await connect(loop, ours, Handover)
    await loop.sock_sendall(peer, b"a")
    await first.received(1)
    await loop.sock_sendall(peer, b"b")
    assert await second.received(1) == b"b"
    assert first.data == b"a"
    transport.close()
    await second.lost


@pytest.mark.parametrize("size", [1, 100, 65536, 1_000_000])
async def test_buffered_protocols_receive_into_their_buffer(
    loop: Loop, pair: Pair, size: int
) -> None:
    ours, peer = pair
    _, protocol = await connect(loop, ours, lambda: Buffered(size))
    data = pattern(min(size * 1000, 3 * MEBI))
    await loop.sock_sendall(peer, data)
    peer.close()
    await protocol.lost
    assert protocol.data == data
    assert protocol.events == ["eof"]
    assert protocol.error is None
    assert all(isinstance(hint, int) for hint in protocol.hints)


async def test_buffered_protocols_are_read_once_when_they_are_ready(loop: Loop, pair: Pair) -> None:
    """Other callbacks come in between."""

    class Noting(Buffered):
        def get_buffer(self, sizehint: int) -> Any:
            order.append("get")
            return super().get_buffer(sizehint)

        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            order.append("updated")
            loop.call_soon(order.append, "a callback")

    order: list[str] = []
    ours, peer = pair
    transport, protocol = await connect(loop, ours, lambda: Noting(10))
    peer.send(pattern(30))
    await until(lambda: len(protocol.data) == 30 and order[-1] == "a callback")
    assert order == ["get", "updated", "a callback"] * 3
    transport.abort()
    await protocol.lost


@pytest.mark.parametrize("kind", ["memoryview", "part of a memoryview", "array"])
async def test_any_writable_buffer_will_do(loop: Loop, pair: Pair, kind: str) -> None:
    import array

    class Other(Buffered):
        def get_buffer(self, sizehint: int) -> Any:
            if kind == "array":
                return array_of_bytes
            return memoryview(self.buffer)[100:] if "part" in kind else memoryview(self.buffer)

    array_of_bytes = array.array("B", bytes(1000))
    ours, peer = pair
    transport, protocol = await connect(loop, ours, lambda: Other(1000))
    peer.send(b"hello")
    await until(lambda: len(protocol.data) == 5)
    source = array_of_bytes.tobytes() if kind == "array" else bytes(protocol.buffer)
    offset = 100 if "part" in kind else 0
    assert source[offset : offset + 5] == b"hello"
    transport.close()
    await protocol.lost


@pytest.mark.parametrize(
    ("method", "bad"),
    [
        ("get_buffer", lambda *_: bytearray()),
        ("get_buffer", lambda *_: b"read-only"),
        ("get_buffer", lambda *_: None),
        ("get_buffer", lambda *_: 1 // 0),
        ("buffer_updated", lambda *_: 1 // 0),
        ("eof_received", lambda *_: 1 // 0),
    ],
)
async def test_bad_buffered_protocols_lose_their_connection(
    loop: Loop, pair: Pair, method: str, bad: Any
) -> None:
    errors = errors_of(loop)
    ours, peer = pair
    kind = type("Bad", (Buffered,), {method: bad})
    _, protocol = await connect(loop, ours, lambda: kind(100))
    peer.send(b"x")
    peer.shutdown(socket.SHUT_WR)
    await protocol.lost
    assert protocol.error is not None
    assert [context["exception"] for context in errors] == [protocol.error]
    assert errors[0]["message"].startswith("Fatal ")


@pytest.mark.parametrize("action", ["close", "abort", "pause_reading"])
async def test_actions_inside_data_received(loop: Loop, pair: Pair, action: str) -> None:
    class Acting(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if len(self.data) == len(data):
                getattr(self.transport, action)()

    ours, peer = pair
    transport, protocol = await connect(loop, ours, Acting)
    peer.send(b"x")
    await protocol.received(1)
    if action == "pause_reading":
        transport.close()
    else:
        assert transport.is_closing()
    await protocol.lost
    assert protocol.error is None


@pytest.mark.parametrize("action", ["close", "abort"])
async def test_actions_inside_connection_made(loop: Loop, pair: Pair, action: str) -> None:
    class Acting(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"hello")
            getattr(transport, action)()

    ours, peer = pair
    _, protocol = await connect(loop, ours, Acting)
    await protocol.lost
    assert await receive_all(peer) == b"hello"
    assert protocol.events == ["made", "lost"]


async def test_actions_inside_connection_lost(loop: Loop, pair: Pair) -> None:
    class Acting(Recorder):
        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            self.transport.write(b"x")
            self.transport.close()
            self.transport.abort()
            self.transport.pause_reading()
            self.transport.resume_reading()

    transport, protocol = await connect(loop, pair[0], Acting)
    transport.close()
    await protocol.lost
    await turns()
    assert protocol.events == ["made", "lost"]


async def test_abort_inside_pause_writing(loop: Loop, pair: Pair) -> None:
    class Acting(Recorder):
        def pause_writing(self) -> None:
            self.transport.abort()

    transport, protocol = await connect(loop, pair[0], Acting)
    transport.set_write_buffer_limits(high=0)
    transport.write(bytes(20 * MEBI))
    await protocol.lost
    assert transport.get_write_buffer_size() == 0


async def test_an_exception_in_pause_or_resume_writing_is_reported(loop: Loop, pair: Pair) -> None:
    class Failing(Recorder):
        def pause_writing(self) -> None:
            raise LookupError("pause")

        def resume_writing(self) -> None:
            raise LookupError("resume")

    errors = errors_of(loop)
    ours, peer = pair
    transport, protocol = await connect(loop, ours, Failing)
    transport.set_write_buffer_limits(high=0)
    total = await fill(transport)
    await receive_exactly(peer, total)
    await until(lambda: len(errors) == 2)
    assert [str(context["exception"]) for context in errors] == ["pause", "resume"]
    assert not transport.is_closing()
    transport.close()
    await protocol.lost


async def test_a_connected_transport_lives_without_being_referenced(loop: Loop, pair: Pair) -> None:
    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    ours, peer = pair
    await connect(loop, ours, Echo)
    collect_garbage()
    await loop.sock_sendall(peer, b"hello")
    assert await receive_exactly(peer, 5) == b"hello"
    peer.close()
    await turns()


async def test_everything_goes_once_the_connection_is_lost(loop: Loop, pair: Pair) -> None:
    class Cyclic(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.cycle = self

    transport, protocol = await connect(loop, pair[0], Cyclic)
    await fill(transport)
    alive = weakref.ref(transport), weakref.ref(protocol)
    transport.abort()
    await protocol.lost
    del transport, protocol
    await turns()
    collect_garbage()
    assert [reference() for reference in alive] == [None, None]


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", "") or FREE_THREADED or not malloced_bytes(),
    reason="the sanitizer, mimalloc and musl do not say how much they gave out",
)
@pytest.mark.parametrize("end", ["the peer closes", "abort"])
async def test_what_was_not_sent_is_freed_with_the_connection(
    loop: Loop, pair: Pair, end: str
) -> None:
    """Also while somebody keeps transport and protocol."""
    ours, peer = pair
    transport, protocol = await connect(loop, ours)
    collect_garbage()  # or what earlier tests left is freed meanwhile
    before = malloced_bytes()
    for _ in range(2):
        transport.write(b"x" * 40_000_000)
    assert malloced_bytes() - before > 60_000_000
    if end == "abort":
        transport.abort()
    else:
        peer.close()
    await protocol.lost
    assert transport.get_write_buffer_size() == 0
    assert malloced_bytes() - before < 20_000_000


async def test_the_descriptor_is_closed_with_the_connection(loop: Loop, pair: Pair) -> None:
    ours, _ = pair
    transport, protocol = await connect(loop, ours)
    sock = transport.get_extra_info("socket")
    transport.close()
    await protocol.lost
    await turns()
    assert sock.fileno() == -1
    assert ours.fileno() == -1


def test_a_transport_that_nobody_closed_warns(loop_module: Any) -> None:
    loop = loop_module.new_event_loop()
    ours, peer = unix_pair()
    transport, protocol = loop.run_until_complete(connect(loop, ours))
    loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del transport, protocol, ours
        collect_garbage()
    assert any("unclosed transport" in str(warning.message) for warning in caught)
    peer.close()


def test_a_loop_may_be_closed_while_connections_are_open(loop_module: Any) -> None:
    loop = loop_module.new_event_loop()
    errors = errors_of(loop)
    ours, peer = unix_pair()
    transport, protocol = loop.run_until_complete(connect(loop, ours))
    loop.run_until_complete(fill(transport))
    loop.close()
    assert not protocol.lost.done() and not errors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del transport, protocol, ours
        collect_garbage()
    peer.close()


async def test_hundreds_of_connections_at_once(loop: Loop) -> None:
    pairs = [unix_pair() for _ in range(200)]
    connections = [await connect(loop, ours) for ours, _ in pairs]
    for number, (_, peer) in enumerate(pairs):
        peer.send(b"%d" % number)
        peer.close()
    for number, (_, protocol) in enumerate(connections):
        await protocol.lost
        assert protocol.data == b"%d" % number


async def test_a_connection_with_much_to_read_does_not_starve_the_loop(loop: Loop) -> None:
    turn = 0

    def count() -> None:
        nonlocal turn
        turn += 1
        if not protocol.lost.done():
            loop.call_soon(count)

    class Flooded(Recorder):
        def data_received(self, data: bytes) -> None:
            seen.append((turn, len(data)))

    seen: list[tuple[int, int]] = []
    ours, peer = unix_pair()
    _, protocol = await connect(loop, ours, Flooded)
    loop.call_soon(count)
    await loop.sock_sendall(peer, bytes(20 * MEBI))
    peer.close()
    await protocol.lost
    per_turn: dict[int, int] = {}
    for number, size in seen:
        per_turn[number] = per_turn.get(number, 0) + size
    assert max(per_turn.values()) <= 4 * MEBI
    assert sum(per_turn.values()) == 20 * MEBI


class Plain(asyncio.Protocol):
    """Receives for another protocol."""

    def __init__(self, owner: Buffered) -> None:
        self.data_received = owner.data.extend
        self.eof_received = owner.eof_received
        self.connection_lost = owner.connection_lost


class HalfOpen(Buffered):
    """Stays open after the other end's last byte."""

    def __init__(self) -> None:
        super().__init__(1000)
        self.plain = Plain(self)

    def eof_received(self) -> bool:
        self.events.append("eof")
        return True


@pytest.mark.parametrize("seed", range(6))
async def test_random_conversations_lose_nothing(loop: Loop, pair: Pair, seed: int) -> None:
    """Both ends write, pause, resume and change protocols at random, then end their direction."""
    choices = random.Random(seed)
    ends = [(await connect(loop, sock, HalfOpen))[1] for sock in pair]
    sent = [bytearray(), bytearray()]
    for _ in range(300):
        number = choices.randrange(2)
        end, transport = ends[number], ends[number].transport
        action = choices.choice(
            ["write", "write", "write", "lines", "pause", "resume", "protocol", "limits"]
        )
        data = choices.randbytes(choices.choice([0, 1, 100, 5_000, 70_000, 300_000]))
        if action == "write":
            transport.write(choices.choice([bytes, bytearray, memoryview])(data))
            sent[number] += data
        elif action == "lines":
            transport.writelines([b"<" + data, bytearray(data + b">")])
            sent[number] += b"<" + data + data + b">"
        elif action == "pause":
            transport.pause_reading()
        elif action == "resume":
            transport.resume_reading()
        elif action == "protocol":
            transport.set_protocol(choices.choice([end, end.plain]))
        else:
            transport.set_write_buffer_limits(high=choices.choice([0, 1000, 1_000_000]))
        if choices.random() < 0.3:
            await asyncio.sleep(0)
    for end in ends:
        end.transport.write_eof()
        end.transport.resume_reading()
    await until(lambda: all(end.events == ["eof"] for end in ends))
    assert [ends[1].data, ends[0].data] == sent
    for end in ends:
        end.transport.close()
        await end.lost
        assert end.error is None


# -- asyncio's base class of transports --


def test_the_slots_of_the_base_class_are_not_the_transports(casync: ModuleType) -> None:
    async def main() -> weakref.ref[Any]:
        loop = asyncio.get_running_loop()
        ours, theirs = unix_pair()
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        mixin = asyncio.transports._FlowControlMixin  # type: ignore[attr-defined]
        for name in mixin.__slots__:
            getattr(mixin, name).__set__(transport, [transport])
        with theirs:
            transport.write(b"hello")
            assert await receive_exactly(theirs, 5) == b"hello"
            assert transport.get_protocol() is protocol and transport._loop is loop
            transport.close()
            await protocol.lost
        return weakref.ref(transport)

    reference = casync.run(main())
    collect_garbage()
    assert reference() is None


LARGER_BASE = """
import asyncio
from asyncio import transports
class Larger(transports._FlowControlMixin):
    __slots__ = ("more",)
transports._FlowControlMixin = Larger
import casync
async def echo(reader, writer):
    writer.write(await reader.read(100))
    writer.close()
async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello")
    print(await reader.read(), type(writer.transport).__name__)
    print(isinstance(writer.transport, (asyncio.Transport, Larger)))
    print(isinstance(writer.transport, Larger))
    writer.close()
casync.run(main())
"""


def test_transports_do_without_a_base_class_that_has_grown(casync: ModuleType) -> None:
    output = ended(python("-W", "ignore", "-c", LARGER_BASE))
    assert output == "b'hello' SocketTransport\nTrue\nFalse\n"
