"""asyncio's streams (StreamReader, StreamWriter, open_connection, start_server)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support import Loop, pattern, turns

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


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
