"""asyncio.StreamReader as the loop feeds it: whether casync's or asyncio's, the reads behave the same."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
from random import Random
from types import ModuleType
from typing import Any

import pytest
from support import TIMEOUT, Loop, Recorder, collect_garbage, pattern, turns, unix_pair, until


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
        while task._fut_waiter is not None and not task._fut_waiter.done():  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert await task == b"12345"[:size]
            other.write(b"12345"[:size])
        assert await reader.readexactly(5) in (b"12345", b"45123")
    await end(writer, other)


@pytest.mark.parametrize("call", ["read(5)", "readexactly(5)", "readuntil(b'x')", "readline()", "read()"])
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
async def test_a_buffer_that_cannot_grow_ends_the_connection_and_who_waits(loop: Loop, call: str) -> None:
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
    task = loop.create_task(read)
    await turns()
    assert inspect.getcoroutinestate(read) == inspect.CORO_SUSPENDED or sys.version_info < (3, 11)
    assert read.cr_await is not None
    other.write(b"data")
    assert await task == b"data"
    assert inspect.getcoroutinestate(read) == inspect.CORO_CLOSED
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
                received += await asyncio.wait_for(reader.read(100), random.choice([0, 1e-5, TIMEOUT]))
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
