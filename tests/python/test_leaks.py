"""Nothing is left behind: memory, objects and descriptors stay flat over many rounds of everything."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest
from support import Loop, Recorder, finish, tcp_pair, turns, unix_pair, within

WARM_UP = 30  # rounds until caches, pools and free lists have what they need
ROUNDS = 100


def callback(*args: object) -> None:
    pass


async def call_soon(loop: Loop) -> None:
    for _ in range(100):
        loop.call_soon(callback, object(), object())
        loop.call_soon(callback, object()).cancel()
    await turns(2)


async def timers(loop: Loop) -> None:
    for _ in range(100):
        loop.call_later(1000, callback, object()).cancel()
        loop.call_later(0, callback, object())
        loop.call_at(loop.time() - 1, callback)
    await turns(2)


async def threadsafe(loop: Loop) -> None:
    thread = threading.Thread(
        target=lambda: [loop.call_soon_threadsafe(callback, object()) for _ in range(50)]
    )
    thread.start()
    await loop.run_in_executor(None, thread.join)


async def debug_mode(loop: Loop) -> None:
    loop.set_debug(True)
    loop.call_soon(callback, object())
    loop.call_later(0, callback, object())
    loop.call_later(1000, callback, object()).cancel()
    await turns(2)
    loop.set_debug(False)


async def exceptions(loop: Loop) -> None:
    loop.set_exception_handler(callback)
    for _ in range(10):
        loop.call_soon(lambda: 1 // 0)
        loop.call_later(0, lambda: 1 // 0)
    await turns(2)


async def tasks(loop: Loop) -> None:
    await asyncio.gather(*(asyncio.sleep(0) for _ in range(50)))
    forever = loop.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    forever.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await forever
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(loop.create_future(), 0)


async def watchers(loop: Loop) -> None:
    ours, theirs = unix_pair()
    with ours, theirs:
        readable = asyncio.Event()
        loop.add_reader(ours, readable.set)
        loop.add_reader(ours, readable.set)
        loop.add_writer(ours, callback, object())
        theirs.send(b"x")
        await readable.wait()
        loop.remove_reader(ours)
        loop.remove_writer(ours)


async def connection(loop: Loop, pair: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
    (one, first), (two, second) = [await loop.create_connection(Recorder, sock=sock) for sock in pair()]
    one.get_extra_info("socket")
    one.write(b"x" * 10)
    two.writelines([b"x" * 200_000, bytearray(200_000)])
    await second.received(10)
    await first.received(400_000)
    two.close()
    await first.lost
    await second.lost


async def tcp_connection(loop: Loop) -> None:
    await connection(loop, tcp_pair)


async def unix_connection(loop: Loop) -> None:
    await connection(loop, unix_pair)


async def aborted_connection(loop: Loop) -> None:
    ours, theirs = unix_pair()
    with theirs:
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        transport.pause_reading()
        for _ in range(10):
            transport.write(bytes(100_000))
            transport.write(bytearray(1000))
        transport.abort()
        await protocol.lost


class Failing(Recorder):
    def data_received(self, data: bytes) -> None:
        raise LookupError


async def failing_protocol(loop: Loop) -> None:
    loop.set_exception_handler(callback)
    ours, theirs = unix_pair()
    with theirs:
        _, protocol = await loop.create_connection(Failing, sock=ours)
        theirs.send(b"x")
        await protocol.lost
        protocol.error = None  # its traceback holds this frame's callers


class Buffered(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        return bytearray(100)

    def buffer_updated(self, nbytes: int) -> None:
        pass

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(None)


async def buffered_protocol(loop: Loop) -> None:
    ours, theirs = unix_pair()
    _, protocol = await loop.create_connection(Buffered, sock=ours)
    theirs.send(bytes(1000))
    theirs.close()
    await protocol.lost


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def streams(loop: Loop) -> None:
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"line\n" + bytes(100_000))
            assert await reader.readline() == b"line\n"
            await reader.readexactly(100_000)
            writer.close()
            await writer.wait_closed()
    await turns()


async def refused_connection(loop: Loop) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with contextlib.suppress(ConnectionRefusedError):
            await loop.create_connection(Recorder, *unused.getsockname())


async def pipes(loop: Loop) -> None:
    reading, writing = os.pipe()
    _, received = await loop.connect_read_pipe(Recorder, os.fdopen(reading, "rb", 0))
    writer, sent = await loop.connect_write_pipe(Recorder, os.fdopen(writing, "wb", 0))
    writer.write(bytes(100_000))
    await received.received(100_000)
    writer.close()
    await asyncio.wait([received.lost, sent.lost])


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.received, self.lost = loop.create_future(), loop.create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.received.set_result(addr)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(None)


async def datagrams(loop: Loop) -> None:
    server, received = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    client, answered = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    client.sendto(b"question", server.get_extra_info("sockname"))
    server.sendto(b"answer", await received.received)
    await answered.received
    for transport, protocol in (server, received), (client, answered):
        transport.close()
        await protocol.lost


async def sock_methods(loop: Loop) -> None:
    ours, theirs = unix_pair()
    with ours, theirs:
        receiving = loop.create_task(loop.sock_recv(ours, 10))
        await turns(2)
        await loop.sock_sendall(theirs, b"x")
        await receiving
        cancelled = loop.create_task(loop.sock_recv(ours, 10))
        await turns(2)
        cancelled.cancel()
        await asyncio.wait([cancelled])


def blocks() -> int:
    """How many blocks of memory Python's objects take."""
    for _ in range(3):
        gc.collect()
    return sys.getallocatedblocks()


def native_bytes() -> int:
    """How many bytes malloc has given out."""

    class Mallinfo(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in ["arena", "ordblks", "smblks", "hblks", "hblkhd"]] + [
            (name, ctypes.c_size_t) for name in ["usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]
        ]

    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:  # not glibc 2.33 or newer
        return 0
    mallinfo2.restype = Mallinfo
    info = mallinfo2()
    return info.uordblks + info.hblkhd


def measure() -> tuple[int, int, int]:
    return blocks(), native_bytes(), len(os.listdir("/proc/self/fd"))


def assert_flat(one_round: Callable[[], Any]) -> None:
    """What leaks leaks in every round: at least a block or a descriptor for each of them. What
    grows for another reason (asyncio's tables, malloc's caches) grows slower, or not three times in a row."""

    def growth() -> tuple[int, ...]:
        before = measure()
        for _ in range(ROUNDS):
            one_round()
        return tuple(new - old for new, old in zip(measure(), before, strict=True))

    for _ in range(WARM_UP):
        one_round()
    grown = [growth()]
    while not is_flat(grown) and len(grown) < 3:
        grown.append(growth())
    assert is_flat(grown), f"(blocks of Python's memory, bytes of malloc's, descriptors): {grown}"


def is_flat(grown: list[tuple[int, ...]]) -> bool:
    python_blocks, bytes_of_malloc, descriptors = (min(column) for column in zip(*grown, strict=True))
    return python_blocks < ROUNDS * 0.9 and bytes_of_malloc < ROUNDS * 64 and descriptors == 0


WORK = [
    call_soon,
    timers,
    threadsafe,
    debug_mode,
    exceptions,
    tasks,
    watchers,
    tcp_connection,
    unix_connection,
    aborted_connection,
    failing_protocol,
    buffered_protocol,
    streams,
    refused_connection,
    pipes,
    datagrams,
    sock_methods,
]


@pytest.mark.parametrize("work", WORK, ids=[work.__name__ for work in WORK])
def test_one_loop_many_rounds(loop: Loop, work: Callable[[Loop], Awaitable[None]]) -> None:
    assert_flat(lambda: loop.run_until_complete(within(work(loop))))


@pytest.mark.parametrize("work", [call_soon, timers, watchers, unix_connection, sock_methods])
def test_one_loop_a_round(loop_module: ModuleType, work: Callable[[Loop], Awaitable[None]]) -> None:
    def one_round() -> None:
        loop = loop_module.new_event_loop()
        loop.run_until_complete(work(loop))
        finish(loop)

    assert_flat(one_round)


def test_loops_closed_with_everything_pending(loop_module: ModuleType) -> None:
    async def leave_everything(loop: Loop) -> None:
        loop.call_later(1000, callback, object())
        loop.add_reader(ours, callback, object())
        loop.add_writer(theirs, callback, object())

    ours, theirs = unix_pair()

    def one_round() -> None:
        loop = loop_module.new_event_loop()
        loop.run_until_complete(leave_everything(loop))
        loop.call_soon(callback, object())
        loop.call_soon_threadsafe(callback, object())
        loop.close()

    with ours, theirs:
        assert_flat(one_round)
