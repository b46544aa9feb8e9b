"""loop.sock_* and sendfile."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from support import Loop, Recorder, pattern, receive_all, receive_exactly, tcp_pair, turns, unix_pair


async def test_recv_and_sendall(loop: Loop) -> None:
    ours, theirs = tcp_pair()
    data = pattern(3_000_000)
    with ours, theirs:
        _, received = await asyncio.gather(loop.sock_sendall(ours, data), receive_exactly(theirs, len(data)))
        assert received == data
        await loop.sock_sendall(theirs, bytearray(b"back"))
        buffer = bytearray(10)
        assert await loop.sock_recv_into(ours, buffer) == 4
        assert buffer[:4] == b"back"
        ours.close()
        assert await loop.sock_recv(theirs, 10) == b""


async def test_connect_and_accept(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        client.setblocking(False)
        accepting = loop.create_task(loop.sock_accept(listener))
        await loop.sock_connect(client, listener.getsockname())
        accepted, address = await accepting
        assert address == client.getsockname()
        assert not accepted.getblocking()
        accepted.close()


async def test_a_refused_connection(loop: Loop) -> None:
    with socket.socket() as unused, socket.socket() as client:
        unused.bind(("127.0.0.1", 0))
        client.setblocking(False)
        with pytest.raises(ConnectionRefusedError):
            await loop.sock_connect(client, unused.getsockname())


async def test_a_cancelled_operation_leaves_the_socket_usable(loop: Loop) -> None:
    ours, theirs = unix_pair()
    with ours, theirs:
        for _ in range(3):
            task = loop.create_task(loop.sock_recv(ours, 10))
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        theirs.send(b"hello")
        assert await loop.sock_recv(ours, 10) == b"hello"
        assert not loop.remove_reader(ours)


async def test_blocking_sockets_are_refused_in_debug_mode(loop: Loop) -> None:
    loop.set_debug(True)
    with socket.socket() as sock:
        with pytest.raises(ValueError, match="non-blocking"):
            await loop.sock_recv(sock, 1)
        with pytest.raises(ValueError, match="non-blocking"):
            await loop.sock_connect(sock, ("127.0.0.1", 1))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
async def test_datagrams_by_sock_methods(loop: Loop) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
        for sock in one, two:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        await loop.sock_sendto(one, b"hello", two.getsockname())
        assert await loop.sock_recvfrom(two, 100) == (b"hello", one.getsockname())
        buffer = bytearray(100)
        await loop.sock_sendto(two, b"back", one.getsockname())
        assert await loop.sock_recvfrom_into(one, buffer) == (4, two.getsockname())


@pytest.fixture
def big_file(tmp_path: Path) -> Any:
    path = tmp_path / "file"
    path.write_bytes(pattern(2_000_000))
    with path.open("rb") as file:
        yield file


async def test_sock_sendfile(loop: Loop, big_file: Any) -> None:
    ours, theirs = tcp_pair()
    with ours, theirs:
        sending = loop.create_task(loop.sock_sendfile(ours, big_file, 1000, 1_500_000))
        assert await receive_exactly(theirs, 1_500_000) == pattern(2_000_000)[1000:1_501_000]
        assert await sending == 1_500_000


async def test_sendfile_through_a_transport(loop: Loop, big_file: Any) -> None:
    ours, theirs = tcp_pair()
    with theirs:
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        transport.write(b"head ")
        sending = loop.create_task(loop.sendfile(transport, big_file))
        received = await receive_exactly(theirs, 5 + 2_000_000)
        assert received == b"head " + pattern(2_000_000)
        assert await sending == 2_000_000
        transport.write(b" tail")
        transport.close()
        assert await receive_all(theirs) == b" tail"
        await protocol.lost
