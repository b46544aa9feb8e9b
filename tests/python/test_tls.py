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
from support import Contexts, Loop, Recorder, echo, pattern, until, within


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


def test_start_tls_takes_over_what_was_read_ahead(casync: ModuleType, contexts: Contexts) -> None:
    """As asyncio's does since 3.14: the client's first words in TLS may come with the line before
    them.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        assert await reader.readline() == b"PROXY\n"
        await until(lambda: len(reader._buffer) >= len(hello))
        protocol = writer.transport.get_protocol()
        secure = await loop.start_tls(writer.transport, protocol, contexts.server, server_side=True)
        assert reader._transport is secure
        secure.write((await reader.readline()).upper())
        secure.close()
        await until(writer.transport.is_closing)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.setblocking(False)
            await loop.sock_sendall(sock, b"PROXY\n" + hello)
            await until_done(tls.do_handshake, sock)
            tls.write(b"hello\n")
            assert await until_done(tls.read, sock) == b"HELLO\n"
        server.close()

    async def until_done(action: Callable[[], Any], sock: socket.socket) -> Any:
        while True:
            try:
                await asyncio.get_running_loop().sock_sendall(sock, outgoing.read())
                return action()
            except ssl.SSLWantReadError:
                await asyncio.get_running_loop().sock_sendall(sock, outgoing.read())
                incoming.write(await asyncio.get_running_loop().sock_recv(sock, 65536))

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = contexts.client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    casync.run(within(main()))


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
