"""TLS connections in detail, by asyncio's SSLProtocol of 3.11 and later; native/tls.c drives it.

3.10 has another, which stays asyncio's own; test_tls.py runs there, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import socket
import ssl
import sys
import weakref
from asyncio import sslproto
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import (
    Buffered,
    Contexts,
    Loop,
    Recorder,
    collect_garbage,
    errors_of,
    pattern,
    turns,
    unix_pair,
    until,
    within,
)

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 has another SSLProtocol")


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def versions(request: pytest.FixtureRequest) -> Contexts:
    """The same of either version: they differ in what handshake records follow the handshake."""
    contexts = Contexts()
    contexts.server.maximum_version = ssl.TLSVersion[request.param]
    return contexts


async def connect(
    contexts: Contexts,
    server: Callable[[], Any] = Recorder,
    client: Callable[[], Any] = Recorder,
    **timeouts: float,
) -> tuple[Any, Any]:
    """The protocols of a connection's two ends, the server's first; each has its transport."""
    loop = asyncio.get_running_loop()
    ours, theirs = unix_pair()
    accepted = loop.connect_accepted_socket(server, ours, ssl=contexts.server, **timeouts)
    created = loop.create_connection(
        client, sock=theirs, ssl=contexts.client, server_hostname="localhost", **timeouts
    )
    (_, one), (_, two) = await asyncio.gather(accepted, created)
    return one, two


async def close(*protocols: Any) -> None:
    for protocol in protocols:
        protocol.transport.close()
    for protocol in protocols:
        await protocol.lost


class Peer:
    """An end that is driven by hand: in what pieces its bytes leave, and when, is the test's."""

    def __init__(self, context: ssl.SSLContext, sock: socket.socket) -> None:
        self.loop = asyncio.get_running_loop()
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    async def flush(self, piece: int = 1 << 20) -> None:
        data = self.outgoing.read()
        for start in range(0, len(data), piece):
            await self.loop.sock_sendall(self.sock, data[start : start + piece])
            if piece < 100:
                await turns(2)  # so that it is read alone

    async def until_done(self, action: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            try:
                return action(*arguments)
            except ssl.SSLWantReadError:
                await self.flush()
                data = await self.loop.sock_recv(self.sock, 65536)
                assert data, "end of stream"
                self.incoming.write(data)
            finally:
                await self.flush()

    async def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += await self.until_done(self.tls.read, size - len(data))
        return data

    async def send(self, *messages: bytes, piece: int = 1 << 20) -> None:
        """Each message is a record."""
        for message in messages:
            self.tls.write(message)
        await self.flush(piece)

    async def close_notify(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        await self.flush()


async def connect_peer(
    contexts: Contexts, server: Callable[[], Any] = Recorder, **options: Any
) -> tuple[Any, Peer]:
    """A protocol of the server's end, and the client by hand."""
    ours, theirs = unix_pair()
    peer = Peer(contexts.client, theirs)
    loop = asyncio.get_running_loop()
    accepted = loop.connect_accepted_socket(server, ours, ssl=contexts.server, **options)
    (_, protocol), _ = await asyncio.gather(accepted, peer.until_done(peer.tls.do_handshake))
    return protocol, peer


@pytest.mark.parametrize("kind", ["server", "client", "start_tls", "unix", "accepted"])
def test_every_way_to_tls_is_native(
    casync: ModuleType, contexts: Contexts, tmp_path: Path, kind: str
) -> None:
    from casync import tls

    async def transport_of(kind: str) -> Any:
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "socket")
        options: Any = {"ssl": contexts.client, "server_hostname": "localhost"}
        if kind == "unix":
            server = await loop.create_unix_server(Recorder, path, ssl=contexts.server)
            transport, _ = await loop.create_unix_connection(Recorder, path, **options)
            server.close()
            return transport
        if kind == "server":
            made = loop.create_future()
            made_by = type(
                "Server", (Recorder,), {"connection_made": lambda _, it: made.set_result(it)}
            )
            server = await loop.create_server(made_by, "127.0.0.1", 0, ssl=contexts.server)
            transport, _ = await loop.create_connection(
                Recorder, *server.sockets[0].getsockname(), ssl=contexts.client
            )
            server.close()
            transport.abort()
            return await made
        accepted, client = await connect(contexts)
        if kind == "start_tls":
            upgraded = [
                loop.start_tls(accepted.transport, accepted, contexts.server, server_side=True),
                loop.start_tls(
                    client.transport, client, contexts.client, server_hostname="localhost"
                ),
            ]
            return (await asyncio.gather(*upgraded))[0]
        return client.transport if kind == "client" else accepted.transport

    async def main() -> None:
        transport = await transport_of(kind)
        assert type(transport._ssl_protocol) is tls.ssl_protocol_class() is not sslproto.SSLProtocol
        transport.abort()
        await turns()

    casync.run(main())


@pytest.mark.parametrize(
    ("patched", "name"), [(sslproto.SSLProtocol, "_do_read"), (ssl.SSLObject, "read")]
)
def test_patched_methods_are_called(
    casync: ModuleType, contexts: Contexts, monkeypatch: pytest.MonkeyPatch, patched: Any, name: str
) -> None:
    calls = []

    def method(self: Any, *args: Any) -> Any:
        calls.append(self)
        return original(self, *args)

    async def main() -> None:
        server, client = await connect(contexts)
        server.transport.write(b"hello")
        assert await client.received(5) == b"hello"
        protocol = client.transport._ssl_protocol
        assert type(protocol) is sslproto.SSLProtocol
        assert protocol in calls or protocol._sslobj in calls
        await close(server, client)

    original = getattr(patched, name)
    monkeypatch.setattr(patched, name, method)
    casync.run(main())


async def test_an_ssl_object_of_the_programs_own(loop: Loop) -> None:
    class Own(ssl.SSLObject):
        def read(self, *args: Any) -> Any:
            counts[0] += 1
            return super().read(*args)

        def write(self, data: Any) -> int:
            counts[1] += 1
            return super().write(data)

    counts = [0, 0]
    contexts = Contexts()
    contexts.server.sslobject_class = Own
    server, client = await connect(contexts)
    client.transport.write(pattern(300_000))
    assert await server.received(300_000) == pattern(300_000)
    server.transport.write(b"hello")
    assert await client.received(5) == b"hello"
    assert min(counts) > 0
    await close(server, client)


# -- records --


@pytest.mark.parametrize("piece", [1, 3, 7, 50])
async def test_records_in_pieces(loop: Loop, versions: Contexts, piece: int) -> None:
    server, peer = await connect_peer(versions)
    await peer.send(b"one", b"two", b"", b"three", piece=piece)
    assert await server.received(11) == b"onetwothree"
    await peer.send(b"four" * 10, piece=piece)
    assert (await server.received(51))[11:] == b"four" * 10
    server.transport.write(b"answer")
    assert await peer.receive(6) == b"answer"
    server.transport.abort()
    peer.sock.close()


async def test_records_that_come_together_are_received_together(
    loop: Loop, versions: Contexts
) -> None:
    class Chunks(Recorder):
        def data_received(self, data: bytes) -> None:
            chunks.append(data)
            super().data_received(data)

    chunks: list[bytes] = []
    server, peer = await connect_peer(versions, Chunks)
    await peer.send(*(b"%d" % number for number in range(100)))
    expected = b"".join(b"%d" % number for number in range(100))
    await server.received(len(expected))
    assert chunks == [expected]
    await peer.send(pattern(16384), pattern(16384), pattern(10))
    await server.received(len(expected) + 32778)
    assert b"".join(chunks[1:]) == 2 * pattern(16384) + pattern(10)
    server.transport.abort()
    peer.sock.close()


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 100_000, 1_000_000])
async def test_messages_of_every_size(loop: Loop, versions: Contexts, size: int) -> None:
    server, client = await connect(versions)
    data = pattern(size)
    for one, other in (server, client), (client, server):
        one.transport.write(data)
        one.transport.writelines([b"", data, bytearray(data), memoryview(data)])
        assert await other.received(4 * size) == 4 * data
    await close(server, client)


async def test_broken_records_end_the_connection(loop: Loop, versions: Contexts) -> None:
    errors = errors_of(loop)
    server, peer = await connect_peer(versions)
    peer.tls.write(b"to be damaged")
    data = bytearray(peer.outgoing.read())
    data[-1] ^= 1
    await loop.sock_sendall(peer.sock, data)
    await server.lost
    assert isinstance(server.error, ssl.SSLError)
    assert errors == []  # it is an OSError
    assert server.events == ["made", "lost"]
    peer.sock.close()


async def test_bytes_that_are_no_records_end_the_connection(loop: Loop, versions: Contexts) -> None:
    server, peer = await connect_peer(versions)
    await loop.sock_sendall(peer.sock, b"220 this is not TLS any more\r\n")
    await server.lost
    assert isinstance(server.error, ssl.SSLError)
    peer.sock.close()


@pytest.mark.parametrize("piece", [3, 5])
@pytest.mark.parametrize(
    ("header", "minimum"),
    [
        (b"\x17\x03\x03\xff\xff", 2),  # a length that no record has
        (b"\x17\x03\x03\x48\x01", 2),  # one byte more than RFC 5246, 6.2.3 allows
        (b"\x17\x03\x03\x41\x01", 3),  # the same of RFC 8446, 5.2
        (b"\x63\x03\x03\x00\x20", 3),  # a type that there is not
        (b"\x16\x03\x03\x00\x20", 3),  # one that must be encrypted
        (b"\x17\x02\x03\x00\x20", 2),  # a version that there is not
        (b"\x17\x03\x01\x00\x20", 2),  # another version than was agreed on
    ],
)
@pytest.mark.parametrize("protocol", [Recorder, lambda: Buffered(100)])
async def test_a_header_that_no_record_can_have_ends_the_connection(
    loop: Loop, versions: Contexts, header: bytes, minimum: int, piece: int, protocol: Any
) -> None:
    """At once: the rest of the record never comes, unless OpenSSL sees only then what is wrong."""
    server, peer = await connect_peer(versions, protocol)
    await peer.send(b"before it")
    await until(lambda: server.data == b"before it")
    if peer.tls.version() < f"TLSv1.{minimum}":
        header += bytes(int.from_bytes(header[3:], "big"))
    for part in filter(None, (header[:piece], header[piece:])):
        await loop.sock_sendall(peer.sock, part)
        await turns(2)
    await server.lost
    assert isinstance(server.error, ssl.SSLError)
    peer.sock.close()


@pytest.mark.parametrize("step", [1, 4, 6, 100])
async def test_records_that_are_not_of_data_come_in_pieces(loop: Loop, step: int) -> None:
    """Their headers are shown to OpenSSL before they are complete."""
    contexts = Contexts()
    contexts.server.maximum_version = ssl.TLSVersion.TLSv1_2
    server, peer = await connect_peer(contexts)
    for message in b"first", b"second":
        peer.tls.write(message)
        if message == b"second":
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.tls.unwrap()  # an alert: close_notify
        await peer.flush(step)
    await server.received(11)
    await server.lost
    assert server.data == b"firstsecond"
    assert server.events == ["made", "data", "eof", "lost"]
    peer.sock.close()


async def test_a_certificate_asked_for_after_the_handshake(loop: Loop) -> None:
    contexts = Contexts()
    contexts.client.post_handshake_auth = True
    contexts.server.verify_mode = ssl.CERT_OPTIONAL
    server, client = await connect(contexts)
    tls = server.transport.get_extra_info("ssl_object")
    tls.verify_client_post_handshake()
    server.transport.write(b"who are you?")
    await client.received(12)
    client.transport.write(b"this one")
    assert await server.received(8) == b"this one"
    assert tls.getpeercert()["subjectAltName"]
    await close(server, client)


# -- flow control --


async def test_back_pressure(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect(contexts)
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
    await close(server, client)


async def test_write_buffer_limits(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect(contexts)
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
    await close(server, client)


async def test_pause_reading(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect(contexts)
    server.transport.pause_reading()
    assert not server.transport.is_reading()
    client.transport.write(b"first")
    client.transport.write(pattern(500_000))
    await turns()
    assert server.data == b""
    server.transport.resume_reading()
    assert server.transport.is_reading()
    assert await server.received(500_005) == b"first" + pattern(500_000)
    await close(server, client)


async def test_reading_may_be_paused_by_data_received(loop: Loop, contexts: Contexts) -> None:
    class Pausing(Recorder):
        def data_received(self, data: bytes) -> None:
            assert self.transport.is_reading()
            super().data_received(data)
            self.transport.pause_reading()
            loop.call_soon(self.transport.resume_reading)

    server, client = await connect(contexts, Pausing)
    data = pattern(1_000_000)
    client.transport.write(data)
    assert await server.received(len(data)) == data
    await close(server, client)


@pytest.mark.parametrize("size", [1, 100, 16384, 1_000_000])
async def test_buffered_protocols(loop: Loop, versions: Contexts, size: int) -> None:
    server, client = await connect(versions, lambda: Buffered(size))
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
    server, client = await connect(contexts, lambda: kind(100))
    client.transport.write(b"x")
    await server.lost
    assert isinstance(server.error, ZeroDivisionError)
    assert [context["message"] for context in errors] == ["Fatal error on SSL protocol"]
    await client.lost


# -- the protocol's other methods --


@pytest.mark.parametrize("method", ["data_received", "eof_received", "connection_lost"])
async def test_protocols_that_raise(loop: Loop, contexts: Contexts, method: str) -> None:
    def fail(self: Any, *args: Any) -> None:
        if method == "connection_lost":
            Recorder.connection_lost(self, *args)
        raise LookupError(method)

    errors = errors_of(loop)
    server, client = await connect(contexts, type("Bad", (Recorder,), {method: fail}))
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

    server, client = loop.run_until_complete(within(connect(contexts, Interrupting)))
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
    server, client = await connect(contexts, Recorder, Failing)
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
    await close(server, client)


async def test_the_protocol_can_be_changed_while_it_receives(
    loop: Loop, contexts: Contexts
) -> None:
    class Changing(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.set_protocol(second)
            second.connection_made(self.transport)

    second = Recorder()
    server, client = await connect(contexts, Changing)
    assert server.transport.get_protocol() is server
    client.transport.write(b"for the first")
    await second.made
    assert server.transport.get_protocol() is second
    client.transport.write(b"for the second")
    assert await second.received(14) == b"for the second"
    await close(second, client)


async def test_from_a_protocol_to_a_reader_and_back(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect(contexts)
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
    await close(server, client)


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
    server, client = await connect(contexts, Looking)
    variable.set("later")
    client.transport.write(b"x")
    await server.received(1)
    assert seen == ["connection"]
    await close(server, client)


# -- writes that cannot be --


async def test_only_bytes_can_be_written(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect(contexts)
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
    await close(server, client)


async def test_writes_in_connection_made_and_after_close(
    loop: Loop, contexts: Contexts, caplog: pytest.LogCaptureFixture
) -> None:
    class Greeting(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"hello")
            transport.writelines([b", ", b"world"])

    server, client = await connect(contexts, Greeting)
    assert await client.received(12) == b"hello, world"
    server.transport.close()
    assert server.transport.is_closing()
    with caplog.at_level(logging.WARNING, "asyncio"):
        for _ in range(10):
            server.transport.write(b"ignored")
            server.transport.writelines([b"ignored"])
    assert caplog.messages[0] == "SSL connection is closed"
    await close(server, client)
    assert client.data == b"hello, world"
    assert client.error is server.error is None


async def test_what_is_written_before_close_arrives(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect(contexts)
    data = pattern(5_000_000)
    client.transport.write(data)
    client.transport.close()
    assert await server.received(len(data)) == data
    await client.lost
    await server.lost
    assert server.events == ["made", "data", "eof", "lost"]
    assert server.error is client.error is None


# -- ends --


async def test_the_peer_says_close_notify(loop: Loop, versions: Contexts) -> None:
    server, peer = await connect_peer(versions)
    await peer.send(b"goodbye")
    await peer.close_notify()
    await server.lost
    assert server.data == b"goodbye"
    assert server.events == ["made", "data", "eof", "lost"]
    assert server.error is None
    peer.sock.close()


async def test_the_peer_goes_without_close_notify(loop: Loop, versions: Contexts) -> None:
    server, peer = await connect_peer(versions)
    await peer.send(b"goodbye")
    peer.sock.shutdown(socket.SHUT_WR)
    await server.lost
    assert server.data == b"goodbye"
    assert server.events == ["made", "data", "eof", "lost"]
    assert server.error is None
    peer.sock.close()


async def test_the_peer_goes_within_a_record(loop: Loop, versions: Contexts) -> None:
    server, peer = await connect_peer(versions)
    peer.tls.write(pattern(1000))
    await loop.sock_sendall(peer.sock, peer.outgoing.read()[:-1])
    peer.sock.shutdown(socket.SHUT_WR)
    await server.lost
    assert server.data == b""
    assert server.events == ["made", "eof", "lost"]
    peer.sock.close()


async def test_the_end_waits_while_reading_is_paused(loop: Loop, contexts: Contexts) -> None:
    server, peer = await connect_peer(contexts)
    server.transport.pause_reading()
    await peer.send(b"goodbye")
    peer.sock.shutdown(socket.SHUT_WR)
    await turns()
    assert server.events == ["made"]
    server.transport.resume_reading()
    await server.lost
    assert server.events == ["made", "data", "eof", "lost"]
    peer.sock.close()


async def test_abort(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect(contexts)
    client.transport.write(bytes(10_000_000))
    client.transport.abort()
    assert client.transport.is_closing()
    assert client.events[-1] != "lost"  # never inside of abort()
    await client.lost
    await server.lost
    assert client.error is None
    assert len(server.data) < 10_000_000


@pytest.mark.parametrize("action", ["close", "abort"])
async def test_ending_inside_data_received(loop: Loop, contexts: Contexts, action: str) -> None:
    class Ending(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.write(b"last words")
            getattr(self.transport, action)()

    server, client = await connect(contexts, Ending)
    client.transport.write(b"x")
    await server.lost
    await client.lost
    assert server.data == b"x"
    assert server.error is None
    if action == "close":
        assert client.data == b"last words"


async def test_a_peer_that_does_not_answer_close_notify(loop: Loop, contexts: Contexts) -> None:
    server, peer = await connect_peer(contexts, ssl_shutdown_timeout=0.05)
    server.transport.close()
    await server.lost
    assert isinstance(server.error, TimeoutError)
    peer.sock.close()


async def test_a_handshake_that_takes_too_long(loop: Loop, contexts: Contexts) -> None:
    ours, silent = unix_pair()
    with silent, pytest.raises(ConnectionAbortedError, match="handshake is taking longer"):
        await loop.create_connection(
            Recorder,
            sock=ours,
            ssl=contexts.client,
            server_hostname="localhost",
            ssl_handshake_timeout=0.05,
        )
    await until(lambda: ours.fileno() == -1)


async def test_the_handshake_can_be_cancelled(loop: Loop, contexts: Contexts) -> None:
    ours, silent = unix_pair()
    with silent:
        connecting = loop.create_task(
            loop.create_connection(
                Recorder, sock=ours, ssl=contexts.client, server_hostname="localhost"
            )
        )
        assert await loop.sock_recv(silent, 100)  # the client's hello
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await until(lambda: ours.fileno() == -1)


async def test_start_tls_can_be_cancelled(loop: Loop, contexts: Contexts) -> None:
    ours, silent = unix_pair()
    with silent:
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        upgrading = loop.create_task(
            loop.start_tls(transport, protocol, contexts.client, server_hostname="localhost")
        )
        assert await loop.sock_recv(silent, 100)
        upgrading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upgrading
        await until(lambda: ours.fileno() == -1)


async def test_start_tls_with_wrong_arguments(loop: Loop, contexts: Contexts) -> None:
    ours, theirs = unix_pair()
    with theirs:
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        with pytest.raises(TypeError, match=r"expected to be an instance of ssl\.SSLContext"):
            await loop.start_tls(transport, protocol, None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="is not supported by start_tls"):
            await loop.start_tls(asyncio.Transport(), protocol, contexts.client)
        with pytest.raises(ValueError, match="ssl_handshake_timeout should be a positive number"):
            await loop.start_tls(transport, protocol, contexts.client, ssl_handshake_timeout=0)
        transport.close()
        await protocol.lost


async def test_tls_in_tls(loop: Loop, contexts: Contexts) -> None:
    server, client = await connect(contexts)
    inner_server, inner_client = await asyncio.gather(
        loop.start_tls(server.transport, server, contexts.server, server_side=True),
        loop.start_tls(client.transport, client, contexts.client, server_hostname="localhost"),
    )
    data = pattern(1_000_000)
    inner_client.write(data)
    inner_server.write(data)
    assert await server.received(len(data)) == data
    assert await client.received(len(data)) == data
    inner_client.close()
    await client.lost
    await server.lost
    assert server.error is client.error is None


# -- streams --


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


# -- nothing is left --


@pytest.mark.parametrize(
    "kind", [Recorder, lambda: Buffered(100)], ids=["Protocol", "BufferedProtocol"]
)
async def test_everything_goes_once_the_connection_is_lost(
    loop: Loop, contexts: Contexts, kind: Any
) -> None:
    server, client = await connect(contexts, kind)
    client.transport.write(b"hello")
    await until(lambda: server.data == b"hello")
    alive = []
    for end in server, client:
        alive += [weakref.ref(thing) for thing in (end, end.transport, end.transport._ssl_protocol)]
    await close(server, client)
    server = client = end = None
    await turns()
    collect_garbage()
    assert [reference() for reference in alive] == [None] * 6


async def test_a_connected_transport_lives_without_being_referenced(
    loop: Loop, contexts: Contexts
) -> None:
    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    _, peer = await connect_peer(contexts, Echo)
    collect_garbage()
    await peer.send(b"hello")
    assert await peer.receive(5) == b"hello"
    await peer.close_notify()
    await turns()
    peer.sock.close()


def test_a_loop_may_be_closed_while_connections_are_open(
    loop_module: ModuleType, contexts: Contexts
) -> None:
    loop = loop_module.new_event_loop()
    loop.run_until_complete(connect(contexts))
    with pytest.warns(ResourceWarning, match="unclosed"):
        loop.close()
        collect_garbage()
