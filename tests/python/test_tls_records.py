"""TLS in records, by asyncio's SSLProtocol of 3.11 and later, which native/tls.c drives.

3.10 has another, which stays asyncio's own; test_tls.py runs there, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from asyncio import sslproto
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import Buffered, Contexts, Loop, Recorder, errors_of, pattern, turns, until
from tls_support import close_all, connect_tls, connect_tls_peer

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 has another SSLProtocol")


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
        accepted, client = await connect_tls(contexts)
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
        server, client = await connect_tls(contexts)
        server.transport.write(b"hello")
        assert await client.received(5) == b"hello"
        protocol = client.transport._ssl_protocol
        assert type(protocol) is sslproto.SSLProtocol
        assert protocol in calls or protocol._sslobj in calls
        await close_all(server, client)

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
    server, client = await connect_tls(contexts)
    client.transport.write(pattern(300_000))
    assert await server.received(300_000) == pattern(300_000)
    server.transport.write(b"hello")
    assert await client.received(5) == b"hello"
    assert min(counts) > 0
    await close_all(server, client)


# -- records --


@pytest.mark.parametrize("piece", [1, 3, 7, 50])
async def test_records_in_pieces(loop: Loop, tls_versions: Contexts, piece: int) -> None:
    server, peer = await connect_tls_peer(tls_versions)
    await peer.send(b"one", b"two", b"", b"three", piece=piece)
    assert await server.received(11) == b"onetwothree"
    await peer.send(b"four" * 10, piece=piece)
    assert (await server.received(51))[11:] == b"four" * 10
    server.transport.write(b"answer")
    assert await peer.receive(6) == b"answer"
    server.transport.abort()
    peer.sock.close()


async def test_records_that_come_together_are_received_together(
    loop: Loop, tls_versions: Contexts
) -> None:
    class Chunks(Recorder):
        def data_received(self, data: bytes) -> None:
            chunks.append(data)
            super().data_received(data)

    chunks: list[bytes] = []
    server, peer = await connect_tls_peer(tls_versions, Chunks)
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
async def test_messages_of_every_size(loop: Loop, tls_versions: Contexts, size: int) -> None:
    server, client = await connect_tls(tls_versions)
    data = pattern(size)
    for one, other in (server, client), (client, server):
        one.transport.write(data)
        one.transport.writelines([b"", data, bytearray(data), memoryview(data)])
        assert await other.received(4 * size) == 4 * data
    await close_all(server, client)


async def test_broken_records_end_the_connection(loop: Loop, tls_versions: Contexts) -> None:
    errors = errors_of(loop)
    server, peer = await connect_tls_peer(tls_versions)
    peer.tls.write(b"to be damaged")
    data = bytearray(peer.outgoing.read())
    data[-1] ^= 1
    await loop.sock_sendall(peer.sock, data)
    await server.lost
    assert isinstance(server.error, ssl.SSLError)
    assert errors == []  # it is an OSError
    assert server.events == ["made", "lost"]
    peer.sock.close()


async def test_bytes_that_are_no_records_end_the_connection(
    loop: Loop, tls_versions: Contexts
) -> None:
    server, peer = await connect_tls_peer(tls_versions)
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
    loop: Loop, tls_versions: Contexts, header: bytes, minimum: int, piece: int, protocol: Any
) -> None:
    """At once: the rest of the record never comes, unless OpenSSL sees only then what is wrong."""
    server, peer = await connect_tls_peer(tls_versions, protocol)
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
    server, peer = await connect_tls_peer(contexts)
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
    server, client = await connect_tls(contexts)
    tls = server.transport.get_extra_info("ssl_object")
    tls.verify_client_post_handshake()
    server.transport.write(b"who are you?")
    await client.received(12)
    client.transport.write(b"this one")
    assert await server.received(8) == b"this one"
    assert tls.getpeercert()["subjectAltName"]
    await close_all(server, client)
