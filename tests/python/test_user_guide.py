"""python/README.md, the page for users: its tests exist, its programs are Python."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import signal
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import REPOSITORY, Recorder, finish, unix_pair, within

GUIDE = (REPOSITORY / "python" / "README.md").read_text()
HERE = Path(__file__).parent


def uvloop_rows() -> list[list[str]]:
    """The cells of the rows of the table that compares with uvloop."""
    section = GUIDE.partition("## What differs from uvloop")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line[:1] == "|"]
    return rows[2:]


def named_tests(cell: str) -> list[tuple[str, str]]:
    return re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", cell)


def test_each_answer_to_users_of_uvloop_is_a_test() -> None:
    rows = uvloop_rows()
    assert len(rows) > 20
    for asked, issues, _, tests in rows:
        assert re.fullmatch(r" \d+(, \d+)* ", issues), asked
        assert named_tests(tests), asked


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("file, name", sorted(set(named_tests(GUIDE))))
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    assert (HERE / file).exists()
    assert not name or name in functions_of(HERE / file)


@pytest.mark.parametrize("program", re.findall(r"^```python\n(.*?)^```$", GUIDE, re.M | re.S))
def test_programs_compile(program: str) -> None:
    compile(program, "python/README.md", "exec")


def test_links_within_the_page_and_to_files_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.*)$", GUIDE, re.M)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for link in re.findall(r"\]\(([^)]+)\)", GUIDE):
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif not link.startswith("https:"):
            assert (REPOSITORY / "python" / link.partition("#")[0]).exists(), link


# -- of what differs from asyncio, that which no test of its subject has --


def run(casync: ModuleType, main: Any) -> None:
    casync.run(within(main()))


def test_the_classes_of_streams_and_awaitables(casync: ModuleType) -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Any] = asyncio.Queue()
        async with await asyncio.start_server(
            lambda *streams: accepted.put_nowait(streams), "127.0.0.1", 0
        ) as server:
            _, client = await asyncio.open_connection(*server.sockets[0].getsockname())
            reader, writer = await accepted.get()
            for stream, cls in (reader, asyncio.StreamReader), (writer, asyncio.StreamWriter):
                assert type(stream) is not cls and isinstance(stream, cls)
            sock = socket.socket()
            loop = asyncio.get_running_loop()
            for awaitable in reader.read(1), writer.drain(), loop.sock_recv(sock, 1):
                assert not inspect.iscoroutine(awaitable)
                assert asyncio.iscoroutine(awaitable) and inspect.isawaitable(awaitable)
                awaitable.close()
            sock.close()
            for stream in writer, client:
                stream.close()
                await stream.wait_closed()

    run(casync, main)


def test_the_size_of_what_is_received(casync: ModuleType) -> None:
    sizes: list[int] = []

    class Sizes(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            sizes.append(len(data))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = unix_pair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sent = theirs.send(bytes(1 << 20))
        transport, protocol = await loop.create_connection(Sizes, sock=ours)
        await protocol.received(sent)
        transport.close()
        await protocol.lost
        theirs.close()

    run(casync, main)
    assert 100_000 < max(sizes) <= 128 * 1024


def test_writelines_pauses_the_protocol(casync: ModuleType) -> None:
    async def main() -> None:
        ours, theirs = unix_pair()
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        transport.writelines([bytes(1_000_000)] * 3)
        assert protocol.events == ["made", "pause"]
        transport.abort()
        await protocol.lost
        theirs.close()

    run(casync, main)


def test_the_descriptors_of_a_loop(casync: ModuleType) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    loop = casync.new_event_loop()
    assert descriptors() == before + 2
    loop.add_signal_handler(signal.SIGUSR1, int)
    assert descriptors() == before + 4
    finish(loop)
    assert descriptors() == before


def test_patched_classes_of_asyncios_are_not_called(
    casync: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("it is called")

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "call_soon", fail)
    monkeypatch.setattr(asyncio.selector_events._SelectorSocketTransport, "write", fail)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        called = loop.create_future()
        loop.call_soon(called.set_result, None)
        await called
        ours, theirs = unix_pair()
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        transport.write(b"hello")
        assert await loop.sock_recv(theirs, 10) == b"hello"
        transport.close()
        await protocol.lost
        theirs.close()

    run(casync, main)
