"""TLS by the functions of asyncio and its streams, on every Python."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import (
    Contexts,
    Loop,
    Recorder,
    echo,
    once_fed,
    pattern,
    turns,
    unix_pair,
    until,
    within,
)


@pytest.fixture
def socket_path(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "socket")


async def open_echo(contexts: Contexts) -> tuple[Any, asyncio.StreamReader, asyncio.StreamWriter]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=contexts.server)
    address = server.sockets[0].getsockname()
    return server, *await asyncio.open_connection(*address, ssl=contexts.client)


async def close_echo(server: Any, writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()
    server.close()
    await asyncio.gather(
        *(task for task in asyncio.all_tasks() if task.get_coro().__name__ == "echo")
    )


async def test_echo(loop: Loop, contexts: Contexts) -> None:
    server, reader, writer = await open_echo(contexts)
    for size in 1, 1000, 100_000:
        writer.write(pattern(size))
        assert await reader.readexactly(size) == pattern(size)
    await close_echo(server, writer)


async def test_megabytes_both_ways(loop: Loop, contexts: Contexts) -> None:
    server, reader, writer = await open_echo(contexts)
    data = pattern(3_000_000)

    async def send() -> None:
        for start in range(0, len(data), 50_000):
            writer.write(data[start : start + 50_000])
            await writer.drain()

    _, received = await asyncio.gather(send(), reader.readexactly(len(data)))
    assert received == data
    await close_echo(server, writer)


async def test_extra_info(loop: Loop, contexts: Contexts) -> None:
    server, _, writer = await open_echo(contexts)
    assert writer.get_extra_info("peercert")["subjectAltName"]
    assert writer.get_extra_info("cipher")
    assert isinstance(writer.get_extra_info("ssl_object"), ssl.SSLObject)
    assert writer.get_extra_info("sslcontext") is contexts.client
    assert writer.get_extra_info("peername") == server.sockets[0].getsockname()
    await close_echo(server, writer)


async def test_an_untrusted_certificate_is_refused(loop: Loop, contexts: Contexts) -> None:
    loop.set_exception_handler(lambda *_: None)  # the server's side of it
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=contexts.server)
    address = server.sockets[0].getsockname()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(*address, ssl=ssl.create_default_context())
    server.close()


async def test_a_peer_that_does_not_speak_tls(loop: Loop, contexts: Contexts) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 not TLS at all\r\n")
        await reader.read()
        writer.close()
        served.set()

    served = asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection(*address, ssl=contexts.client)
        await served.wait()  # in 3.10 nobody closes the writer of a task that is cancelled


async def test_unix_sockets(loop: Loop, contexts: Contexts, socket_path: str) -> None:
    server = await asyncio.start_unix_server(echo, socket_path, ssl=contexts.server)
    reader, writer = await asyncio.open_unix_connection(
        socket_path, ssl=contexts.client, server_hostname="localhost"
    )
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    await close_echo(server, writer)


async def test_start_tls(loop: Loop, contexts: Contexts) -> None:
    class Server(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.data == b"STARTTLS\n":
                self.transport.pause_reading()  # what follows belongs to TLS
                upgrades.append(loop.create_task(self.upgrade()))
            else:
                self.secure.write(data.upper())

        async def upgrade(self) -> None:
            plain = self.transport
            plain.write(b"go\n")
            self.secure = await loop.start_tls(plain, self, contexts.server, server_side=True)
            assert self.secure is not plain

        def connection_lost(self, exc: BaseException | None) -> None:
            self.secure.close()

    upgrades: list[asyncio.Task[None]] = []
    server = await loop.create_server(Server, "127.0.0.1", 0)
    plain, protocol = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
    plain.write(b"STARTTLS\n")
    assert await protocol.received(3) == b"go\n"
    secure = await loop.start_tls(plain, protocol, contexts.client, server_hostname="localhost")
    await asyncio.gather(*upgrades)
    secure.write(b"hello")
    assert (await protocol.received(8))[3:] == b"HELLO"
    secure.close()
    await protocol.lost
    server.close()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
async def test_start_tls_on_a_stream(loop: Loop, contexts: Contexts) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go\n")
        await writer.start_tls(contexts.server)
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go\n"
        await writer.start_tls(contexts.client, server_hostname="localhost")
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()


class HandMadeClient:
    """A TLS client over a plain socket, whose first words in TLS, `hello`, are there already."""

    def __init__(self, contexts: Contexts) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = contexts.client.wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost"
        )
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.hello = self.outgoing.read()

    async def until_done(self, action: Callable[[], Any], sock: socket.socket) -> Any:
        loop = asyncio.get_running_loop()
        while True:
            try:
                result = action()
                await loop.sock_sendall(sock, self.outgoing.read())
                return result
            except ssl.SSLWantReadError:
                await loop.sock_sendall(sock, self.outgoing.read())
                self.incoming.write(await loop.sock_recv(sock, 65536))

    async def ask(self, sock: socket.socket) -> None:
        """Ends the handshake, and is answered."""
        await self.until_done(self.tls.do_handshake, sock)
        await self.until_done(lambda: self.tls.write(b"hello\n"), sock)
        assert await self.until_done(self.tls.read, sock) == b"HELLO\n"


def skip_lost_bytes(loop_module: ModuleType) -> None:
    if loop_module is asyncio and sys.version_info < (3, 14):
        pytest.skip("its asyncio loses what was read ahead")


async def upgrade_by_loop(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, contexts: Contexts
) -> asyncio.WriteTransport:
    """As a TLS server, over a connection that either end may have opened."""
    protocol = writer.transport.get_protocol()
    secure = await asyncio.get_running_loop().start_tls(
        writer.transport, protocol, contexts.server, server_side=True
    )
    assert secure is not None
    return secure


async def upgrade_by_writer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, contexts: Contexts
) -> asyncio.WriteTransport:
    await writer.start_tls(contexts.server)
    return writer.transport


async def test_start_tls_takes_over_what_was_read_ahead(
    loop_module: ModuleType, loop: Loop, contexts: Contexts
) -> None:
    """As asyncio's does since 3.14: the client's first words in TLS may come with the line before
    them.
    """
    skip_lost_bytes(loop_module)

    async def serve(reader: Any, writer: Any, upgrade: Any) -> None:
        assert await reader.readline() == b"PROXY\n"
        await until(lambda: len(reader._buffer) >= len(client.hello))
        plain = writer.transport
        secure = await upgrade(reader, writer, contexts)
        assert secure is not plain
        secure.write((await reader.readline()).upper())
        secure.close()
        await until(plain.is_closing)

    async def accept(upgrade: Any) -> None:
        served = loop.create_future()

        async def serve_once(*streams: Any) -> None:
            await serve(*streams, upgrade)
            served.set_result(None)

        async with await asyncio.start_server(serve_once, "127.0.0.1", 0) as server:
            await talk(socket.create_connection(server.sockets[0].getsockname()))
            await served

    async def connect() -> None:
        ours, theirs = unix_pair()
        streams = await asyncio.open_connection(sock=ours)
        await asyncio.gather(serve(*streams, upgrade_by_loop), talk(theirs))

    async def talk(sock: socket.socket) -> None:
        sock.setblocking(False)
        with sock:
            await loop.sock_sendall(sock, b"PROXY\n" + client.hello)
            await client.ask(sock)

    client = HandMadeClient(contexts)
    await accept(upgrade_by_loop)
    client = HandMadeClient(contexts)
    await connect()
    if sys.version_info >= (3, 11):
        client = HandMadeClient(contexts)
        await accept(upgrade_by_writer)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks before 3.12")
async def test_start_tls_takes_over_what_a_read_is_about_to_return(
    loop_module: ModuleType, loop: Loop, contexts: Contexts
) -> None:
    """The first words in TLS have woken a read that has not gone on: they are no plain text."""
    if loop_module is asyncio:
        pytest.skip("the read of its asyncio returns b'' then, as at the end of the stream")
    client = HandMadeClient(contexts)
    ours, theirs = unix_pair()
    reader, writer = await asyncio.open_connection(sock=ours)
    reading = loop.create_task(reader.read(1000))
    await turns()
    upgraded = loop.create_future()

    def upgrade() -> None:
        coroutine = upgrade_by_loop(reader, writer, contexts)
        upgraded.set_result(asyncio.Task(coroutine, loop=loop, eager_start=True))

    once_fed(reader, upgrade)
    with theirs:
        await loop.sock_sendall(theirs, client.hello)
        await client.until_done(client.tls.do_handshake, theirs)
        await client.until_done(lambda: client.tls.write(b"hello"), theirs)
        assert await reading == b"hello"
    (await (await upgraded)).abort()


async def test_start_tls_at_the_end_of_the_stream(loop: Loop, contexts: Contexts) -> None:
    """The peer has gone before the handshake, which fails at once."""
    ours, theirs = unix_pair()
    reader, writer = await asyncio.open_connection(sock=ours)
    theirs.close()
    await until(reader.at_eof)
    with pytest.raises((ConnectionError, OSError)):
        await upgrade_by_loop(reader, writer, contexts)


async def test_a_client_keeps_what_it_has_read_before_start_tls(
    loop: Loop, contexts: Contexts
) -> None:
    """As asyncio's: a server says nothing in TLS before the client does."""
    ours, theirs = unix_pair()
    plain, protocol = await loop.connect_accepted_socket(Recorder, theirs)
    reader, writer = await asyncio.open_connection(sock=ours)
    plain.write(b"220 ready\n")
    await until(lambda: reader._buffer)
    secure, served = await asyncio.gather(
        loop.start_tls(
            writer.transport,
            writer.transport.get_protocol(),
            contexts.client,
            server_hostname="localhost",
        ),
        loop.start_tls(plain, protocol, contexts.server, server_side=True),
    )
    served.write(b"250 go on\n")
    assert await reader.readline() == b"220 ready\n"
    assert await reader.readline() == b"250 go on\n"
    secure.close()
    await protocol.lost
    served.close()


def test_a_reader_holds_the_tls_transport_back_after_start_tls(
    casync: ModuleType, contexts: Contexts
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        protocol = writer.transport.get_protocol()
        secure = await loop.start_tls(writer.transport, protocol, contexts.server, server_side=True)
        await until(lambda: reader._paused)
        assert await reader.readexactly(1_000_000) == pattern(1_000_000)
        secure.write(b"all of it")
        secure.close()
        await until(writer.transport.is_closing)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1000)
        plain, protocol = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
        secure = await loop.start_tls(plain, protocol, contexts.client, server_hostname="localhost")
        secure.write(pattern(1_000_000))
        assert await protocol.received(9) == b"all of it"
        secure.close()
        await protocol.lost
        server.close()

    casync.run(within(main()))
