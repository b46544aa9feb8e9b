"""asyncio's streams, and the readers and writers that casync adopts to read and write natively."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from support import (
    TIMEOUT,
    Loop,
    Recorder,
    collect_garbage,
    echo,
    once_fed,
    pattern,
    turns,
    unix_pair,
    until,
)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connection(serve: Serve, **options: object) -> AsyncIterator[Streams]:
    served = asyncio.get_running_loop().create_future()

    async def serve_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            served.set_result(None)

    async with await asyncio.start_server(serve_once, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, **options)
        try:
            yield reader, writer
        finally:
            writer.close()
            await writer.wait_closed()
            await served


async def test_echo(loop: Loop) -> None:
    async with connection(echo) as (reader, writer):
        for size in 1, 1000, 100_000:
            writer.write(pattern(size))
            await writer.drain()
            assert await reader.readexactly(size) == pattern(size)


async def test_megabytes_with_back_pressure(loop: Loop) -> None:
    data = pattern(10_000_000)
    async with connection(echo) as (reader, writer):

        async def send() -> None:
            for start in range(0, len(data), 50_000):
                writer.write(data[start : start + 50_000])
                await writer.drain()
            writer.write_eof()

        _, received = await asyncio.gather(send(), reader.read())
        assert received == data
        assert reader.at_eof()


async def test_every_way_to_read(loop: Loop) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"line one\nline two\nexactlyuntil;iterated\nand again\nthe rest")
        writer.close()

    async with connection(serve) as (reader, _):
        assert await reader.readline() == b"line one\n"
        assert await reader.readuntil(b"\n") == b"line two\n"
        assert await reader.readexactly(7) == b"exactly"
        assert await reader.readuntil(b";") == b"until;"
        assert [line async for line in reader] == [b"iterated\n", b"and again\n", b"the rest"]
        assert await reader.read(10) == b""
        assert reader.at_eof()


async def test_the_end_inside_what_was_asked_for(loop: Loop) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"short")
        writer.close()

    async with connection(serve) as (reader, _):
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(10)
        assert (caught.value.partial, caught.value.expected) == (b"short", 10)
    async with connection(serve) as (reader, _):
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readuntil(b"\n")
    async with connection(serve) as (reader, _):
        assert await reader.readline() == b"short"


async def test_a_line_longer_than_the_limit(loop: Loop) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 1000 + b"\nnext\n")
        writer.close()

    async with connection(serve, limit=100) as (reader, _):
        with pytest.raises(asyncio.LimitOverrunError):
            await reader.readuntil(b"\n")
        with pytest.raises(ValueError):
            await reader.readline()


async def test_a_limit_pauses_the_transport(loop: Loop) -> None:
    data = pattern(3_000_000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.write_eof()
        await reader.read()
        writer.close()

    async with connection(serve, limit=1000) as (reader, writer):
        await turns()
        assert len(reader._buffer) < len(data)
        assert await reader.read() == data
        writer.close()


async def test_waiting_for_data_can_be_cancelled_and_repeated(loop: Loop) -> None:
    async with connection(echo) as (reader, writer):
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.001)
        writer.write(b"x")
        assert await reader.read(1) == b"x"


async def test_a_reset_reaches_reader_and_writer(loop: Loop) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionResetError):
            writer.write(b"x")
            await writer.drain()
        writer.close()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()


async def test_a_writers_other_methods(loop: Loop) -> None:
    async with connection(echo) as (reader, writer):
        writer.writelines([b"one ", b"two ", b"three"])
        assert await reader.readexactly(13) == b"one two three"
        assert writer.can_write_eof()
        assert not writer.is_closing()
        assert writer.get_extra_info("peername") == writer.transport.get_extra_info("peername")
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert writer.is_closing()


async def test_a_transports_own_write_is_called(loop: Loop) -> None:
    """A program may put another write() into a transport, also of a writer that a server got
    before.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transport = writer.transport
        write = transport.write
        transport.write = lambda data: write(data.upper())  # type: ignore[method-assign]
        await echo(reader, writer)

    async with connection(serve) as (reader, writer):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"HELLO"


async def test_unix_streams(loop: Loop, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with await asyncio.start_unix_server(echo, path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()


async def test_a_failing_client_callback_is_reported(loop: Loop) -> None:
    errors: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        raise LookupError("of the callback")

    async with connection(serve) as (reader, _):
        assert await reader.read() == b""
    await turns()
    assert [type(context["exception"]) for context in errors] == [LookupError]


async def test_a_client_callback_that_raises_is_reported_in_asyncios_words(loop: Loop) -> None:
    """A callback that is no coroutine function is part of connection_made. Asyncio of 3.14 closes
    the connection then; others leave it to the loop, as what any connection_made raises.
    """
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    writers: list[asyncio.StreamWriter] = []

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        raise LookupError("of the callback")

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await until(lambda: errors)
        await turns()
        [context], [served] = errors, writers
        assert type(context["exception"]) is LookupError
        if sys.version_info[:2] == (3, 14):
            assert context["message"] == "Unhandled exception in client_connected_cb"
            assert context["transport"] is served.transport and served.transport.is_closing()
            assert await reader.read() == b""
        else:
            assert context["message"].startswith("Exception in callback StreamReaderProtocol.conn")
            assert not served.transport.is_closing()
        served.transport.abort()
        writer.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio reports it since 3.12")
async def test_a_client_task_that_fails_or_is_cancelled_closes_its_connection(loop: Loop) -> None:
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    transports: list[asyncio.BaseTransport] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transports.append(writer.transport)
        if await reader.read(1) == b"f":
            raise LookupError("of the task")
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    # If the task was cancelled, the callback of 3.12.1's asyncio fails, and leaves it open.
    commands = (b"f", b"c") if sys.version_info >= (3, 13) else (b"f",)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        for command in commands:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(command)
            assert await reader.read() == b""
            writer.close()
    [context] = errors
    assert context["message"] == "Unhandled exception in client_connected_cb"
    assert type(context["exception"]) is LookupError and context["transport"] is transports[0]


async def test_hundreds_of_conversations_at_once(loop: Loop) -> None:
    async def converse(number: int) -> None:
        reader, writer = await asyncio.open_connection(*address)
        for i in range(5):
            writer.write(b"%d %d\n" % (number, i))
            assert await reader.readline() == b"%d %d\n" % (number, i)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        await asyncio.gather(*(converse(number) for number in range(200)))


async def stream_pair(limit: int = 65536) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Any]:
    """A reader and a writer of one end, and the transport of the other."""
    ours, theirs = unix_pair()
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(sock=ours, limit=limit)
    other, _ = await loop.create_connection(Recorder, sock=theirs)
    return reader, writer, other


async def end(writer: asyncio.StreamWriter, other: Any) -> None:
    other.abort()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_reads_are_awaitables_like_coroutines(loop: Loop) -> None:
    reader, writer, other = await stream_pair()
    other.write(b"xxxxc\n")
    for read in reader.read(1), reader.readexactly(1), reader.readuntil(b"c"), reader.readline():
        assert asyncio.iscoroutine(read)
        await read
    other.write(b"abcdefgh\nij")
    with pytest.warns(RuntimeWarning, match="never awaited"):
        reader.read(1)
        collect_garbage()
    assert [await read for read in (reader.read(1), reader.readexactly(n=1))] == [b"a", b"b"]
    assert await asyncio.wait_for(reader.readuntil(separator=b"d"), TIMEOUT) == b"cd"
    assert await loop.create_task(reader.readline()) == b"efgh\n"
    assert await asyncio.gather(reader.read(n=1), reader.read(0)) == [b"i", b""]
    again = reader.read(1)
    assert await again == b"j"
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await again
    await end(writer, other)


async def test_a_read_that_was_closed_or_cancelled_loses_nothing(loop: Loop) -> None:
    reader, writer, other = await stream_pair()
    reader.read(10).close()
    for size in 3, 10:
        task = loop.create_task(reader.read(size))
        await turns(2)
        other.write(b"12345")
        # type: ignore[attr-defined]
        while task._fut_waiter is not None and not task._fut_waiter.done():
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert await task == b"12345"[:size]
            other.write(b"12345"[:size])
        assert await reader.readexactly(5) in (b"12345", b"45123")
    await end(writer, other)


async def test_bytes_are_in_the_buffer_until_a_read_returns_them(loop: Loop) -> None:
    ours, theirs = unix_pair()
    reader, writer = await asyncio.open_connection(sock=ours)
    found: list[object] = []
    for look in lambda: None, lambda: found.append(bytes(reader._buffer)):
        reading = loop.create_task(reader.read(100))
        await turns()
        once_fed(reader, look)
        theirs.send(b"data")
        assert await reading == b"data" and reader._buffer == b""
    assert found == [b"data"]
    reading = loop.create_task(reader.read(100))
    await turns()
    once_fed(reader, lambda: reader._buffer.__delitem__(slice(2)))
    theirs.send(b"data")
    assert await reading == b"ta"
    theirs.close()
    writer.close()


@pytest.mark.parametrize(
    "call", ["read(5)", "readexactly(5)", "readuntil(b'x')", "readline()", "read()"]
)
async def test_a_second_read_at_the_same_time_is_refused(loop: Loop, call: str) -> None:
    reader, writer, other = await stream_pair()
    first = loop.create_task(reader.read(1))
    await turns(2)
    with pytest.raises(RuntimeError, match="while another coroutine is already waiting"):
        await eval(f"reader.{call}")
    other.write(b"x")
    assert await first == b"x"
    await end(writer, other)


async def test_what_the_end_of_the_stream_does_to_each_read(loop: Loop) -> None:
    for call, outcome in [
        ("read(5)", b"abc"),
        ("read()", b"abc"),
        ("readline()", b"abc"),
        ("readexactly(4)", asyncio.IncompleteReadError(b"abc", 4)),
        ("readuntil(b'x')", asyncio.IncompleteReadError(b"abc", None)),
    ]:
        for before in True, False:
            reader, writer, other = await stream_pair()
            if before:
                other.write(b"abc")
                other.write_eof()
                await until(lambda reader=reader: reader._eof)
            task = loop.create_task(eval(f"reader.{call}"))
            await turns(2)
            if not before:
                other.write(b"abc")
                other.write_eof()
            [result] = await asyncio.gather(task, return_exceptions=True)
            if isinstance(outcome, bytes):
                assert result == outcome
            else:
                assert isinstance(result, asyncio.IncompleteReadError)
                assert (result.partial, result.expected) == (outcome.partial, outcome.expected)
            await until(reader.at_eof)
            assert await reader.read(1) == b""
            await end(writer, other)


async def test_lines_longer_than_the_limit(loop: Loop) -> None:
    reader, writer, other = await stream_pair(limit=10)
    other.write(b"x" * 15 + b"\nshort\n")
    with pytest.raises(asyncio.LimitOverrunError) as caught:
        await reader.readuntil()
    assert caught.value.consumed >= 10
    with pytest.raises(ValueError):
        await reader.readline()
    rest = await reader.readuntil(b"t\n")
    assert rest.endswith(b"short\n")
    await end(writer, other)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("readexactly(-1)", ValueError),
        ("readuntil(b'')", ValueError),
        ("read('1')", TypeError),
        ("readexactly(None)", TypeError),
        ("read(1, 2)", TypeError),
        ("read(m=1)", TypeError),
    ],
)
async def test_bad_arguments(loop: Loop, call: str, error: type[Exception]) -> None:
    reader, writer, other = await stream_pair()
    assert not reader.at_eof()
    with pytest.raises(error):
        await eval(f"reader.{call}")
    await end(writer, other)


async def test_a_reader_with_too_much_pauses_its_transport(loop: Loop) -> None:
    reader, writer, other = await stream_pair(limit=1000)
    data = pattern(3_000_000)
    other.write(data)
    await turns()
    assert other.get_write_buffer_size() > 0
    assert len(reader._buffer) < 1_000_000  # type: ignore[attr-defined]
    pieces = [await reader.readexactly(10_000), await reader.read(1)]
    pieces.append(await reader.readexactly(len(data) - sum(map(len, pieces))))
    assert b"".join(pieces) == data
    await end(writer, other)


async def test_an_error_of_the_connection_reaches_who_reads(loop: Loop) -> None:
    reader, writer, other = await stream_pair()
    waiting = loop.create_task(reader.read(1))
    await turns(2)
    reader.set_exception(ZeroDivisionError())
    for read in waiting, reader.read(1), reader.readline():
        with pytest.raises(ZeroDivisionError):
            await read
    with pytest.raises(ZeroDivisionError):
        await writer.drain()
    await end(writer, other)


async def test_an_error_may_be_set_as_a_class(loop: Loop) -> None:
    """As `raise` takes one; what is no exception is a TypeError."""
    reader, writer, other = await stream_pair()
    reader.set_exception(ConnectionResetError)  # type: ignore[arg-type]
    for read in reader.read(1), reader.readexactly(1), reader.readuntil(), reader.read():
        with pytest.raises(ConnectionResetError) as caught:
            await read
        assert isinstance(caught.value, ConnectionResetError)
    reader.set_exception("no exception")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="exceptions must derive from BaseException"):
        await reader.read(1)
    await end(writer, other)


@pytest.mark.parametrize("call", ["read(3)", "readexactly(5)", "readline()"])
async def test_a_buffer_that_cannot_grow_ends_the_connection_and_who_waits(
    loop: Loop, call: str
) -> None:
    reader, writer, other = await stream_pair()
    loop.set_exception_handler(lambda *_: None)
    reading = loop.create_task(eval(f"reader.{call}"))
    await turns(2)
    with memoryview(reader._buffer):  # type: ignore[attr-defined]
        other.write(b"hello")
        with pytest.raises(BufferError):
            await asyncio.wait_for(reading, TIMEOUT)
    other.abort()
    writer.close()
    with contextlib.suppress(BufferError):
        await writer.wait_closed()


async def test_a_limit_without_bounds_pauses_nothing(loop: Loop) -> None:
    reader, writer, other = await stream_pair(limit=sys.maxsize)
    other.write(b"hello")
    await until(lambda: len(reader._buffer) == 5)  # type: ignore[attr-defined]
    assert not reader._paused  # type: ignore[attr-defined]
    await end(writer, other)


async def test_a_transport_that_cannot_be_paused_is_not(loop: Loop) -> None:
    reader, writer, other = await stream_pair(limit=1)
    reader._transport = asyncio.Transport()  # type: ignore[attr-defined]
    other.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), TIMEOUT) == b"hello"
    other.write(b"hello")
    await until(lambda: len(reader._buffer) == 5)  # type: ignore[attr-defined]
    assert reader._transport is None  # type: ignore[attr-defined]
    await end(writer, other)


async def test_a_read_stepped_by_hand_is_a_coroutine(loop: Loop) -> None:
    reader, writer, other = await stream_pair()
    read: Any = reader.read(1)
    with pytest.raises(TypeError, match="can't send non-None value to a just-started coroutine"):
        read.send(1)
    read.send(None)
    with pytest.raises(KeyError):
        read.throw(KeyError("thrown"))
    assert reader._waiter is None  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        read.throw(KeyError("again"))
    await end(writer, other)


async def test_a_read_dropped_after_it_came_back_leaves_the_reader(loop: Loop) -> None:
    """A coroutine is finalized once: what a __del__ has brought back must let go without that."""
    reader, writer, other = await stream_pair()
    saved: list[Any] = []

    class Saver:
        def __init__(self, read: Any) -> None:
            self.cycle, self.read = self, read

        def __del__(self) -> None:
            saved.append(self.read)

    with pytest.warns(RuntimeWarning, match="never awaited"):
        Saver(reader.read(10))
        collect_garbage()
    saved[0].send(None)
    assert reader._waiter is not None  # type: ignore[attr-defined]
    saved.clear()
    other.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), TIMEOUT) == b"hello"
    await end(writer, other)


async def test_bytes_may_be_fed_by_hand(loop: Loop) -> None:
    reader, writer, other = await stream_pair()
    waiting = loop.create_task(reader.read(100))
    await turns(2)
    reader.feed_data(b"by hand")
    assert await waiting == b"by hand"
    reader.feed_eof()
    assert await reader.read(1) == b""
    await end(writer, other)


async def test_readers_that_are_patched_or_derived_are_used_as_they_are(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reader(asyncio.StreamReader):
        def feed_data(self, data: bytes) -> None:
            super().feed_data(data.upper())

    ours, theirs = unix_pair()
    reader = Reader(loop=loop)
    transport, _ = await loop.create_connection(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop), sock=ours
    )
    theirs.send(b"abc")
    assert await reader.readexactly(3) == b"ABC"
    assert type(reader) is Reader
    transport.close()
    theirs.close()

    calls: list[bytes] = []
    feed_data = asyncio.StreamReader.feed_data

    def noting(self: asyncio.StreamReader, data: bytes) -> None:
        calls.append(data)
        feed_data(self, data)

    monkeypatch.setattr(asyncio.StreamReader, "feed_data", noting)
    plain, writer, other = await stream_pair()
    other.write(b"noted")
    assert await plain.readexactly(5) == b"noted"
    assert b"".join(calls) == b"noted"
    await end(writer, other)


async def test_a_read_tells_its_state_as_a_coroutine(loop: Loop) -> None:
    reader, writer, other = await stream_pair()
    read: Any = reader.read(10)
    assert not read.cr_running
    assert inspect.getcoroutinestate(read) == inspect.CORO_CREATED
    task = loop.create_task(read)
    await turns()
    assert inspect.getcoroutinestate(read) == inspect.CORO_SUSPENDED
    assert read.cr_await is not None
    other.write(b"data")
    assert await task == b"data"
    assert inspect.getcoroutinestate(read) == inspect.CORO_CLOSED
    assert read.cr_frame is None
    await end(writer, other)


async def test_a_protocol_set_later_is_the_one_that_is_fed(loop: Loop) -> None:
    reader, writer, other = await stream_pair()
    other.write(b"first")
    assert await reader.readexactly(5) == b"first"
    recorder = Recorder()
    recorder.transport, recorder.events = writer.transport, ["made"]
    stream_protocol = writer.transport.get_protocol()
    writer.transport.set_protocol(recorder)
    other.write(b"second")
    assert await recorder.received(6) == b"second"
    assert not reader._buffer  # type: ignore[attr-defined]
    writer.transport.set_protocol(stream_protocol)
    other.write(b"third")
    assert await reader.readexactly(5) == b"third"
    await end(writer, other)


@pytest.mark.parametrize("seed", range(5))
async def test_any_mix_of_reads_gives_the_bytes_in_order(loop: Loop, seed: int) -> None:
    random = Random(seed)
    reader, writer, other = await stream_pair(limit=4096)
    data = bytes(random.choices(b"ab\n", weights=[20, 20, 1], k=300_000))

    async def feed() -> None:
        position = 0
        while position < len(data):
            size = random.choice([1, 10, 1000, 30_000])
            other.write(data[position : position + size])
            position += size
            await asyncio.sleep(0)
        other.write_eof()

    feeding = loop.create_task(feed())
    received = bytearray()
    while not reader.at_eof():
        choice = random.randrange(5)
        if choice == 0:
            received += await reader.read(random.choice([1, 7, 5000]))
        elif choice == 1:
            received += await reader.readline()
        elif choice == 2:
            with contextlib.suppress(asyncio.TimeoutError):
                received += await asyncio.wait_for(
                    reader.read(100), random.choice([0, 1e-5, TIMEOUT])
                )
        else:
            read = reader.readexactly(50) if choice == 3 else reader.readuntil(b"ab")
            try:
                received += await read
            except asyncio.IncompleteReadError as error:
                received += error.partial
    await feeding
    assert received == data
    await end(writer, other)


async def test_casync_adopts_asyncios_own_readers(loop: Loop, loop_module: ModuleType) -> None:
    reader, writer, other = await stream_pair()
    adopted = type(reader) is not asyncio.StreamReader
    assert isinstance(reader, asyncio.StreamReader)
    assert adopted == (loop_module.__name__ == "casync")
    await end(writer, other)


async def served_pair() -> tuple[Any, ...]:
    """Reader and writer of a server's connection, both adopted, and those of the client's."""
    accepted = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda *pair: accepted.set_result(pair), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    pair = (*await accepted, reader, writer)
    server.close()
    return pair


async def close_all(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def noting(function: Any, called: list[str]) -> Any:
    """The function, which writes down its name when it is called."""

    async def awaited(*args: Any, **options: Any) -> Any:
        called.append(function.__name__)
        return await function(*args, **options)

    def plain(*args: Any, **options: Any) -> Any:
        called.append(function.__name__)
        return function(*args, **options)

    return awaited if inspect.iscoroutinefunction(function) else plain


PATCHED = [
    (asyncio.StreamReader, "read"),
    (asyncio.StreamReader, "readexactly"),
    (asyncio.StreamReader, "readuntil"),
    (asyncio.StreamReader, "readline"),
    (asyncio.StreamReader, "_wait_for_data"),
    (asyncio.StreamReader, "_wakeup_waiter"),
    (asyncio.StreamReader, "_maybe_resume_transport"),
    (asyncio.StreamReader, "feed_data"),
    (asyncio.StreamReader, "exception"),
    (asyncio.StreamReaderProtocol, "data_received"),
    (asyncio.StreamReaderProtocol, "_drain_helper"),
    (asyncio.StreamWriter, "write"),
    (asyncio.StreamWriter, "drain"),
]


async def talk(reader: Any, writer: Any, other_reader: Any, other_writer: Any) -> None:
    """Uses all that a stream has, also reads that wait."""
    other_writer.write(b"a line\nuntil;exactlysome")
    assert await reader.readline() == b"a line\n"
    assert await reader.readuntil(b";") == b"until;"
    assert await reader.readexactly(7) == b"exactly"
    assert await reader.read(100) == b"some"
    waiting = asyncio.ensure_future(reader.read(100))
    await turns(2)
    other_writer.write(b"awaited")
    assert await waiting == b"awaited"
    writer.write(b"an answer")
    await writer.drain()
    assert await other_reader.readexactly(9) == b"an answer"


@pytest.mark.parametrize("where", ["class", "object"])
@pytest.mark.parametrize(("cls", "name"), PATCHED)
async def test_what_is_patched_while_connected_is_called(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, cls: Any, name: str, where: str
) -> None:
    streams = await served_pair()
    called: list[str] = []
    await talk(*streams)
    with monkeypatch.context() as patch:
        candidates = [*streams[:2], streams[1].transport.get_protocol()]
        target = (
            cls if where == "class" else next(one for one in candidates if isinstance(one, cls))
        )
        patch.setattr(target, name, noting(getattr(target, name), called))
        await talk(*streams)
        assert name in called
    called.clear()
    await talk(*streams)
    assert not called
    await close_all(streams[1], streams[3])


async def test_a_patched_method_is_found_however_it_is_looked_up(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer, _, other_writer = await served_pair()
    with mock.patch.object(asyncio.StreamReader, "read") as patched:
        assert reader.read is patched
        reader.read.return_value = b"the mock's"
        assert await reader.read(5) == b"the mock's"
        reader.read.assert_awaited_once_with(5)
    for value, expected in [
        (property(lambda self: lambda n: ("a property", n)), ("a property", 5)),
        (staticmethod(lambda n: ("static", n)), ("static", 5)),
        (lambda self, n: (self is reader, n), (True, 5)),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.StreamReader, "read", value)
            assert reader.read(5) == expected
    with monkeypatch.context() as patch:
        patch.delattr(asyncio.StreamReader, "read")
        with pytest.raises(AttributeError):
            reader.read(5)
    other_writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    await close_all(writer, other_writer)


async def test_a_read_that_waits_while_the_class_is_patched(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "read", "_wait_for_data", "feed_data":
        reader, writer, _, other_writer = await served_pair()
        called: list[str] = []
        waiting = asyncio.ensure_future(reader.readexactly(10))
        await turns(2)
        other_writer.write(b"12345")
        await until(lambda reader=reader: reader._buffer)
        with monkeypatch.context() as patch:
            patch.setattr(
                asyncio.StreamReader, name, noting(getattr(asyncio.StreamReader, name), called)
            )
            other_writer.write(b"67890")
            assert await waiting == b"1234567890"
        await close_all(writer, other_writer)


async def test_a_reader_that_gets_another_class(loop: Loop) -> None:
    class Marking(asyncio.StreamReader):
        async def read(self, n: int = -1) -> bytes:
            return b"marked " + await super().read(n)

    reader, writer, _, other_writer = await served_pair()
    other_writer.write(b"before")
    await until(lambda: reader._buffer)
    reader.__class__ = Marking
    assert await reader.read(100) == b"marked before"
    waiting = asyncio.ensure_future(reader.read(100))
    await turns(2)
    other_writer.write(b"after")
    assert await waiting == b"marked after"
    other_writer.close()
    assert await reader.read(100) == b"marked "
    assert reader.at_eof()
    await close_all(writer, other_writer)


def coroutine_functions(thing: Any) -> set[str]:
    names = [name for name in dir(thing) if not name.startswith("_")]
    return {name for name in names if inspect.iscoroutinefunction(getattr(thing, name, None))}


async def test_coroutine_functions_are_known_as_such(loop: Loop) -> None:
    """So unittest.mock makes AsyncMocks of them."""
    reader, writer, _, other_writer = await served_pair()
    reads = {"read", "readexactly", "readuntil", "readline"}
    for thing, expected in [(reader, reads), (writer, {"drain", "wait_closed"})]:
        assert coroutine_functions(thing) >= expected
        assert coroutine_functions(thing) == coroutine_functions(type(thing).__mro__[-2])
        assert coroutine_functions(type(thing)) == coroutine_functions(thing)
        for mocked in mock.Mock(spec=thing), mock.create_autospec(thing):
            assert {
                name for name in expected if isinstance(getattr(mocked, name), mock.AsyncMock)
            } == expected
    assert not inspect.iscoroutinefunction(writer.write)
    with mock.patch.object(reader, "read", return_value=b"mocked"):
        assert await reader.read(5) == b"mocked"
    assert inspect.signature(reader.read) == inspect.signature(asyncio.StreamReader(loop=loop).read)
    assert reader.read.__doc__ == asyncio.StreamReader.read.__doc__
    assert reader.read == reader.read
    await close_all(writer, other_writer)
