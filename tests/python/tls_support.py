"""Both ends of a TLS connection, for the tests of TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

from support import Contexts, Recorder, turns, unix_pair


async def connect_tls(
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


async def close_all(*protocols: Any) -> None:
    for protocol in protocols:
        protocol.transport.close()
    for protocol in protocols:
        await protocol.lost


class TlsPeer:
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


async def connect_tls_peer(
    contexts: Contexts, server: Callable[[], Any] = Recorder, **options: Any
) -> tuple[Any, TlsPeer]:
    """A protocol of the server's end, and the client by hand."""
    ours, theirs = unix_pair()
    peer = TlsPeer(contexts.client, theirs)
    loop = asyncio.get_running_loop()
    accepted = loop.connect_accepted_socket(server, ours, ssl=contexts.server, **options)
    (_, protocol), _ = await asyncio.gather(accepted, peer.until_done(peer.tls.do_handshake))
    return protocol, peer
