"""How TLS connections begin and end, by asyncio's SSLProtocol of 3.11 and later."""

from __future__ import annotations

import asyncio
import socket
import sys
import weakref
from types import ModuleType
from typing import Any

import pytest
from support import (
    Buffered,
    Contexts,
    Loop,
    Recorder,
    collect_garbage,
    pattern,
    turns,
    unix_pair,
    until,
)
from tls_support import close_all, connect_tls, connect_tls_peer

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 has another SSLProtocol")


async def test_the_peer_says_close_notify(loop: Loop, tls_versions: Contexts) -> None:
    server, peer = await connect_tls_peer(tls_versions)
    await peer.send(b"goodbye")
    await peer.close_notify()
    await server.lost
    assert server.data == b"goodbye"
    assert server.events == ["made", "data", "eof", "lost"]
    assert server.error is None
    peer.sock.close()


async def test_the_peer_goes_without_close_notify(loop: Loop, tls_versions: Contexts) -> None:
    server, peer = await connect_tls_peer(tls_versions)
    await peer.send(b"goodbye")
    peer.sock.shutdown(socket.SHUT_WR)
    await server.lost
    assert server.data == b"goodbye"
    assert server.events == ["made", "data", "eof", "lost"]
    assert server.error is None
    peer.sock.close()


async def test_the_peer_goes_within_a_record(loop: Loop, tls_versions: Contexts) -> None:
    server, peer = await connect_tls_peer(tls_versions)
    peer.tls.write(pattern(1000))
    await loop.sock_sendall(peer.sock, peer.outgoing.read()[:-1])
    peer.sock.shutdown(socket.SHUT_WR)
    await server.lost
    assert server.data == b""
    assert server.events == ["made", "eof", "lost"]
    peer.sock.close()


async def test_the_end_waits_while_reading_is_paused(loop: Loop, contexts: Contexts) -> None:
    server, peer = await connect_tls_peer(contexts)
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
    server, client = await connect_tls(contexts)
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

    server, client = await connect_tls(contexts, Ending)
    client.transport.write(b"x")
    await server.lost
    await client.lost
    assert server.data == b"x"
    assert server.error is None
    if action == "close":
        assert client.data == b"last words"


async def test_a_peer_that_does_not_answer_close_notify(loop: Loop, contexts: Contexts) -> None:
    server, peer = await connect_tls_peer(contexts, ssl_shutdown_timeout=0.05)
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
    server, client = await connect_tls(contexts)
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


@pytest.mark.parametrize(
    "kind", [Recorder, lambda: Buffered(100)], ids=["Protocol", "BufferedProtocol"]
)
async def test_everything_goes_once_the_connection_is_lost(
    loop: Loop, contexts: Contexts, kind: Any
) -> None:
    server, client = await connect_tls(contexts, kind)
    client.transport.write(b"hello")
    await until(lambda: server.data == b"hello")
    alive = []
    for end in server, client:
        alive += [weakref.ref(thing) for thing in (end, end.transport, end.transport._ssl_protocol)]
    await close_all(server, client)
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

    _, peer = await connect_tls_peer(contexts, Echo)
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
    loop.run_until_complete(connect_tls(contexts))
    with pytest.warns(ResourceWarning, match="unclosed"):
        loop.close()
        collect_garbage()
