"""What protocols and streams see of TLS, by asyncio's SSLProtocol of 3.11 and later."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from types import ModuleType
from typing import Any

import pytest
from support import Buffered, Contexts, Loop, Recorder, errors_of, pattern, turns, until, within
from tls_support import close_all, connect_tls

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 has another SSLProtocol")


async def test_back_pressure(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect_tls(contexts)
    transport = client.transport
    server.transport.pause_reading()
    low, high = transport.get_write_buffer_limits()
    assert transport.get_write_buffer_size() == 0
    sent = b""
    while "pause" not in client.events:
        transport.write(pattern(100_000))
        sent += pattern(100_000)
        await turns(2)
    assert transport.get_write_buffer_size() >= high
    assert server.data == b""
    server.transport.resume_reading()
    assert await server.received(len(sent)) == sent
    await until(lambda: client.events[-1] == "resume")
    assert transport.get_write_buffer_size() <= low
    assert client.events == ["made", "pause", "resume"]
    await close_all(server, client)


async def test_write_buffer_limits(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect_tls(contexts)
    transport = client.transport
    transport.set_write_buffer_limits(high=40_000)
    assert transport.get_write_buffer_limits() == (10_000, 40_000)
    transport.set_write_buffer_limits(low=10)
    assert transport.get_write_buffer_limits() == (10, 40)
    with pytest.raises(ValueError):
        transport.set_write_buffer_limits(high=1, low=2)
    transport.set_write_buffer_limits(high=1e6, low=100.0)
    assert transport.get_write_buffer_limits() == (100, 1_000_000)
    transport.set_write_buffer_limits(high=2**70, low=7)
    assert transport.get_write_buffer_limits()[0] == 7
    assert transport.get_write_buffer_limits()[1] >= sys.maxsize
    transport.set_write_buffer_limits(high=0)
    await until(lambda: client.events[-1] == "pause")  # nothing is never below nothing
    transport.write(b"hello")
    assert await server.received(5) == b"hello"
    await close_all(server, client)


async def test_pause_reading(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect_tls(contexts)
    server.transport.pause_reading()
    assert not server.transport.is_reading()
    client.transport.write(b"first")
    client.transport.write(pattern(500_000))
    await turns()
    assert server.data == b""
    server.transport.resume_reading()
    assert server.transport.is_reading()
    assert await server.received(500_005) == b"first" + pattern(500_000)
    await close_all(server, client)


async def test_reading_may_be_paused_by_data_received(loop: Loop, contexts: Contexts) -> None:
    class Pausing(Recorder):
        def data_received(self, data: bytes) -> None:
            assert self.transport.is_reading()
            super().data_received(data)
            self.transport.pause_reading()
            loop.call_soon(self.transport.resume_reading)

    server, client = await connect_tls(contexts, Pausing)
    data = pattern(1_000_000)
    client.transport.write(data)
    assert await server.received(len(data)) == data
    await close_all(server, client)


@pytest.mark.parametrize("size", [1, 100, 16384, 1_000_000])
async def test_buffered_protocols(loop: Loop, tls_versions: Contexts, size: int) -> None:
    server, client = await connect_tls(tls_versions, lambda: Buffered(size))
    data = pattern(min(size * 1000, 3_000_000))
    client.transport.write(data)
    await until(lambda: len(server.data) == len(data))
    assert server.data == data
    client.transport.write(b"more")
    client.transport.close()
    await server.lost
    assert server.data == data + b"more"
    assert server.events == ["eof"]
    assert server.error is None
    await client.lost


@pytest.mark.parametrize("method", ["get_buffer", "buffer_updated"])
async def test_buffered_protocols_that_raise(loop: Loop, contexts: Contexts, method: str) -> None:
    errors = errors_of(loop)
    kind = type("Bad", (Buffered,), {method: lambda *_: 1 // 0})
    server, client = await connect_tls(contexts, lambda: kind(100))
    client.transport.write(b"x")
    await server.lost
    assert isinstance(server.error, ZeroDivisionError)
    assert [context["message"] for context in errors] == ["Fatal error on SSL protocol"]
    await client.lost


@pytest.mark.parametrize("method", ["data_received", "eof_received", "connection_lost"])
async def test_protocols_that_raise(loop: Loop, contexts: Contexts, method: str) -> None:
    def fail(self: Any, *args: Any) -> None:
        if method == "connection_lost":
            Recorder.connection_lost(self, *args)
        raise LookupError(method)

    errors = errors_of(loop)
    server, client = await connect_tls(contexts, type("Bad", (Recorder,), {method: fail}))
    client.transport.write(b"x")
    client.transport.close()
    await server.lost
    await client.lost
    await until(lambda: errors)
    assert [str(context["exception"]) for context in errors] == [method]
    assert isinstance(server.error, LookupError) == (method != "connection_lost")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_protocol_leaves_the_loop(
    loop: Loop, contexts: Contexts, error: Any
) -> None:
    class Interrupting(Recorder):
        def data_received(self, data: bytes) -> None:
            raise error

    server, client = loop.run_until_complete(within(connect_tls(contexts, Interrupting)))
    client.transport.write(b"x")
    with pytest.raises(error):
        loop.run_forever()
    server.transport.abort()
    client.transport.abort()
    loop.run_until_complete(asyncio.wait([server.lost, client.lost]))


async def test_an_exception_in_pause_or_resume_writing_is_reported(
    loop: Loop, contexts: Contexts
) -> None:
    class Failing(Recorder):
        def pause_writing(self) -> None:
            raise LookupError("pause")

        def resume_writing(self) -> None:
            raise LookupError("resume")

    errors = errors_of(loop)
    server, client = await connect_tls(contexts, Recorder, Failing)
    server.transport.pause_reading()
    sent = 0
    while not errors:
        client.transport.write(bytes(500_000))
        sent += 500_000
        await turns(2)
    server.transport.resume_reading()
    await server.received(sent)
    await until(lambda: len(errors) == 2)
    assert [str(context["exception"]) for context in errors] == ["pause", "resume"]
    await close_all(server, client)


async def test_the_protocol_can_be_changed_while_it_receives(
    loop: Loop, contexts: Contexts
) -> None:
    class Changing(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.set_protocol(second)
            second.connection_made(self.transport)

    second = Recorder()
    server, client = await connect_tls(contexts, Changing)
    assert server.transport.get_protocol() is server
    client.transport.write(b"for the first")
    await second.made
    assert server.transport.get_protocol() is second
    client.transport.write(b"for the second")
    assert await second.received(14) == b"for the second"
    await close_all(second, client)


async def test_from_a_protocol_to_a_reader_and_back(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect_tls(contexts)
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    protocol.connection_made(server.transport)
    server.transport.set_protocol(protocol)
    client.transport.write(b"a line\nand more")
    assert await reader.readline() == b"a line\n"
    assert await reader.read(8) == b"and more"
    server.transport.set_protocol(server)
    client.transport.write(b"rest")
    assert await server.received(4) == b"rest"
    await close_all(server, client)


async def test_callbacks_run_in_the_context_of_the_connection(
    loop: Loop, contexts: Contexts
) -> None:
    class Looking(Recorder):
        def data_received(self, data: bytes) -> None:
            seen.append(variable.get())
            super().data_received(data)

    variable = contextvars.ContextVar("variable", default="outside")
    seen: list[str] = []
    variable.set("connection")
    server, client = await connect_tls(contexts, Looking)
    variable.set("later")
    client.transport.write(b"x")
    await server.received(1)
    assert seen == ["connection"]
    await close_all(server, client)


async def test_only_bytes_can_be_written(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect_tls(contexts)
    for wrong in "text", 1, None, [b"x"]:
        with pytest.raises(TypeError, match="expecting a bytes-like instance"):
            client.transport.write(wrong)
    for nothing in b"", bytearray(), memoryview(b""):
        client.transport.write(nothing)
    assert not client.transport.can_write_eof()
    with pytest.raises(NotImplementedError):
        client.transport.write_eof()
    client.transport.write(data=memoryview(b"a text")[2:])
    assert await server.received(4) == b"text"
    await close_all(server, client)


async def test_writes_in_connection_made_and_after_close(
    loop: Loop, contexts: Contexts, caplog: pytest.LogCaptureFixture
) -> None:
    class Greeting(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"hello")
            transport.writelines([b", ", b"world"])

    server, client = await connect_tls(contexts, Greeting)
    assert await client.received(12) == b"hello, world"
    server.transport.close()
    assert server.transport.is_closing()
    with caplog.at_level(logging.WARNING, "asyncio"):
        for _ in range(10):
            server.transport.write(b"ignored")
            server.transport.writelines([b"ignored"])
    assert caplog.messages[0] == "SSL connection is closed"
    await close_all(server, client)
    assert client.data == b"hello, world"
    assert client.error is server.error is None


async def test_what_is_written_before_close_arrives(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect_tls(contexts)
    data = pattern(5_000_000)
    client.transport.write(data)
    client.transport.close()
    assert await server.received(len(data)) == data
    await client.lost
    await server.lost
    assert server.events == ["made", "data", "eof", "lost"]
    assert server.error is client.error is None


async def stream_pair(contexts: Contexts, limit: int = 65536) -> tuple[Any, ...]:
    """Reader and writer of both ends, the server's first."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result((reader, writer))

    accepted = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=contexts.server, limit=limit)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(*address, ssl=contexts.client, limit=limit)
    pair = (*await accepted, reader, writer)
    server.close()
    return pair


async def close_streams(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
    for writer in writers:
        await writer.wait_closed()


async def test_every_read_of_a_stream(loop: Loop, contexts: Contexts) -> None:
    reader, ours, _, writer = await stream_pair(contexts)
    writer.writelines([b"a line\n", b"until;", b"exactly", b"some"])
    assert await reader.readline() == b"a line\n"
    assert await reader.readuntil(b";") == b"until;"
    assert await reader.readexactly(7) == b"exactly"
    assert await reader.read(100) == b"some"
    waiting = loop.create_task(reader.read(100))
    await turns(2)
    writer.write(b"awaited")
    assert await waiting == b"awaited"
    cancelled = loop.create_task(reader.read(100))
    await turns(2)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    writer.write(b"kept")
    assert await reader.readexactly(4) == b"kept"
    writer.write(b"the end")
    writer.close()
    assert await reader.read() == b"the end"
    await close_streams(ours, writer)


async def test_a_stream_that_nobody_reads_holds_the_peer_back(
    loop: Loop, contexts: Contexts
) -> None:
    reader, ours, _, writer = await stream_pair(contexts, 1000)
    sent = 0
    while writer.transport.get_write_buffer_size() == 0:
        writer.write(bytes(500_000))
        sent += 500_000
        await turns(2)
    assert not ours.transport.is_reading()
    assert await reader.readexactly(sent) == bytes(sent)
    await writer.drain()
    await close_streams(ours, writer)


async def test_start_tls_on_a_stream_keeps_its_flow_control(loop: Loop, contexts: Contexts) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(contexts.server)
        accepted.set_result((reader, writer))

    accepted = loop.create_future()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1000)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await writer.start_tls(contexts.client, server_hostname="localhost")
    reader, ours = await accepted
    server.close()
    waiting = loop.create_task(reader.read(100))
    await turns(2)
    writer.write(b"awaited")
    assert await waiting == b"awaited"
    sent = 0
    while writer.transport.get_write_buffer_size() == 0:
        writer.write(bytes(500_000))
        sent += 500_000
        await turns(2)
    assert await reader.readexactly(sent) == bytes(sent)
    await close_streams(ours, writer)


def test_readers_are_fed_natively(casync: ModuleType, contexts: Contexts) -> None:
    async def main() -> None:
        reader, ours, other, writer = await stream_pair(contexts)
        assert {type(reader).__module__, type(other).__module__} == {"casync._native"}
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        await close_streams(ours, writer)

    casync.run(main())
