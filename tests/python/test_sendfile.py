"""loop.sock_sendfile and loop.sendfile."""

from __future__ import annotations

import asyncio
import io
import os
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import (
    Loop,
    Recorder,
    finish,
    pattern,
    receive_all,
    receive_exactly,
    tcp_pair,
    turns,
    until,
    within,
)


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


async def test_sendfile_of_what_has_no_descriptor(loop: Loop) -> None:
    ours, theirs = tcp_pair()
    with theirs:
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        sending = loop.create_task(loop.sendfile(transport, io.BytesIO(pattern(1_000_000)), 10))
        assert await receive_exactly(theirs, 999_990) == pattern(1_000_000)[10:]
        assert await sending == 999_990
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await loop.sendfile(transport, io.BytesIO(b"x"), fallback=False)
        transport.close()
        await protocol.lost


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


# -- what asyncio's own loop does not survive --


async def fill(transport: Any) -> bytes:
    """Writes until the socket takes no more."""
    sent = b""
    while not transport.get_write_buffer_size():
        transport.write(pattern(100_000))
        sent += pattern(100_000)
        await turns(2)
    return sent


def on_a_loop(casync: ModuleType, main: Any) -> None:
    """Runs main(loop, transport, protocol, the other end); nothing may reach the exception
    handler.
    """

    async def run() -> None:
        ours, theirs = tcp_pair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        with theirs:
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            await main(loop, transport, protocol, theirs)
            transport.abort()
            await protocol.lost

    loop = casync.new_event_loop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    loop.run_until_complete(within(run()))
    finish(loop)
    assert not errors


@pytest.mark.parametrize("reading", [True, False])
@pytest.mark.parametrize("before", ["what was written before", "the file"])
def test_sendfile_can_be_cancelled(
    casync: ModuleType, big_file: Any, before: str, reading: bool
) -> None:
    """The transport is as it was, whether the file's turn had come or not."""

    async def main(loop: Loop, transport: Any, protocol: Recorder, theirs: socket.socket) -> None:
        descriptors = len(os.listdir("/proc/self/fd"))
        if not reading:
            transport.pause_reading()
        written = await fill(transport) if before == "what was written before" else b""
        sending = loop.create_task(loop.sendfile(transport, big_file))
        await turns()
        with pytest.raises(RuntimeError, match="sendfile is in progress"):
            transport.write(b"x")
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert transport.is_reading() == reading
        if written:
            transport.write(b"then this")
            assert await receive_exactly(theirs, len(written) + 9) == written + b"then this"
            sending = loop.create_task(loop.sendfile(transport, big_file, 0, 1000))
            assert await receive_exactly(theirs, 1000) == pattern(1000)
            assert await sending == 1000
        transport.resume_reading()
        await loop.sock_sendall(theirs, b"hello")
        assert await protocol.received(5) == b"hello"
        await until(lambda: len(os.listdir("/proc/self/fd")) == descriptors)

    on_a_loop(casync, main)


@pytest.mark.parametrize("end", ["abort", "close"])
@pytest.mark.parametrize("queued", [False, True])
def test_the_end_of_the_connection_ends_sendfile(
    casync: ModuleType, big_file: Any, end: str, queued: bool
) -> None:
    async def main(loop: Loop, transport: Any, protocol: Recorder, theirs: socket.socket) -> None:
        descriptors = len(os.listdir("/proc/self/fd"))
        written = await fill(transport) if queued else b""
        sending = loop.create_task(loop.sendfile(transport, big_file))
        await turns()
        getattr(transport, end)()
        if queued and end == "close":
            assert await receive_exactly(theirs, len(written)) == written
        await protocol.lost
        with pytest.raises(ConnectionError, match="Connection is closed by peer"):
            await sending
        await until(lambda: len(os.listdir("/proc/self/fd")) == descriptors - 1)
        assert len(await receive_all(theirs)) < 1_000_000

    on_a_loop(casync, main)


def test_the_peer_goes_during_sendfile(casync: ModuleType, big_file: Any) -> None:
    async def main(loop: Loop, transport: Any, protocol: Recorder, theirs: socket.socket) -> None:
        sending = loop.create_task(loop.sendfile(transport, big_file))
        await turns()
        theirs.close()
        with pytest.raises(ConnectionError):
            await sending
        await protocol.lost

    on_a_loop(casync, main)
