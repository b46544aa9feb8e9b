"""loop.sock_sendfile and loop.sendfile."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from support import Loop, Recorder, pattern, receive_all, receive_exactly, tcp_pair


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
