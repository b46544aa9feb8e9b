"""add_reader, add_writer and their removal."""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import socket
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import Loop, run_turns, turns, unix_pair


async def test_a_reader_is_called_while_there_is_something_to_read(loop: Loop) -> None:
    ours, theirs = unix_pair()
    calls: list[object] = []
    with ours, theirs:
        loop.add_reader(ours, calls.append, "called")
        await turns()
        assert not calls
        theirs.send(b"unread")
        while len(calls) < 5:  # nobody reads: it is called again and again
            await asyncio.sleep(0)
        ours.recv(100)
        count = len(calls)
        await turns()
        assert len(calls) <= count + 1
        loop.remove_reader(ours)


async def test_a_writer_is_called_while_there_is_room_to_write(loop: Loop) -> None:
    ours, theirs = unix_pair()
    calls: list[object] = []
    with ours, theirs:
        loop.add_writer(ours, calls.append, "called")
        while len(calls) < 5:
            await asyncio.sleep(0)
        with pytest.raises(BlockingIOError):
            while True:
                ours.send(b"x" * 65536)
        await turns()
        count = len(calls)
        await turns()
        assert len(calls) == count
        loop.remove_writer(ours)


async def test_reader_and_writer_of_one_descriptor_are_independent(loop: Loop) -> None:
    ours, theirs = unix_pair()
    order: list[str] = []
    with ours, theirs:
        loop.add_writer(ours, order.append, "write")
        loop.add_reader(ours, order.append, "read")
        await turns()
        assert set(order) == {"write"}
        assert loop.remove_writer(ours)
        theirs.send(b"x")
        order.clear()
        await turns()
        assert set(order) == {"read"}
        loop.add_writer(ours, order.append, "write")
        assert loop.remove_reader(ours)
        order.clear()
        await turns()
        assert set(order) == {"write"}
        assert loop.remove_writer(ours)


async def test_adding_again_replaces_the_callback(loop: Loop) -> None:
    ours, theirs = unix_pair()
    calls: list[str] = []
    with ours, theirs:
        theirs.send(b"x")
        loop.add_reader(ours, calls.append, "old")
        loop.add_reader(ours, calls.append, "new")
        await turns()
        assert set(calls) == {"new"}
        loop.remove_reader(ours)


async def test_remove_tells_whether_there_was_something(loop: Loop) -> None:
    ours, theirs = unix_pair()
    with ours, theirs:
        assert loop.remove_reader(ours) is False
        assert loop.remove_writer(ours) is False
        loop.add_reader(ours, int)
        assert loop.remove_writer(ours) is False
        assert loop.remove_reader(ours) is True
        assert loop.remove_reader(ours) is False


async def test_a_removed_watcher_is_not_called_although_its_event_came(loop: Loop) -> None:
    pairs = [unix_pair() for _ in range(10)]
    called: list[int] = []

    def callback(number: int) -> None:
        called.append(number)
        for ours, _ in pairs:
            loop.remove_reader(ours)

    for number, (ours, theirs) in enumerate(pairs):
        loop.add_reader(ours, callback, number)
        theirs.send(b"x")
    await turns()
    assert len(called) == 1
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


async def test_descriptors_are_numbers_or_have_fileno(loop: Loop) -> None:
    reading, writing = os.pipe()
    got = loop.create_future()
    loop.add_reader(reading, lambda: got.done() or got.set_result(os.read(reading, 10)))
    os.write(writing, b"x")
    assert await got == b"x"
    assert loop.remove_reader(reading)
    os.close(reading)
    os.close(writing)


async def test_bad_descriptors_are_refused(loop: Loop) -> None:
    for bad in "1", None, -1, object():
        with pytest.raises((ValueError, TypeError)):
            loop.add_reader(bad, int)
    ours, theirs = unix_pair()
    number = ours.fileno()
    ours.close()
    theirs.close()
    with pytest.raises(OSError):
        loop.add_reader(number, int)
    with pytest.raises(ValueError):
        loop.add_reader(ours, int)
    assert loop.remove_reader(number) is False


async def test_a_regular_file_cannot_be_watched(loop: Loop, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+") as file:
        for add, remove in (
            (loop.add_reader, loop.remove_reader),
            (loop.add_writer, loop.remove_writer),
        ):
            with pytest.raises(PermissionError):
                add(file, int)
            assert remove(file) is False
    await turns()


async def test_end_of_stream_is_readable(loop: Loop) -> None:
    ours, theirs = unix_pair()
    with ours:
        ended = asyncio.Event()
        loop.add_reader(ours, ended.set)
        theirs.close()
        await ended.wait()
        assert ours.recv(1) == b""
        loop.remove_reader(ours)


async def test_a_refused_connection_is_writable(loop: Loop) -> None:
    with socket.socket() as unused, socket.socket() as client:
        unused.bind(("127.0.0.1", 0))
        client.setblocking(False)
        connected = asyncio.Event()
        assert client.connect_ex(unused.getsockname())
        loop.add_writer(client, connected.set)
        await connected.wait()
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
        loop.remove_writer(client)


async def test_a_transports_descriptor_cannot_be_watched(loop: Loop) -> None:
    ours, theirs = unix_pair()
    with theirs:
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        number = transport.get_extra_info("socket").fileno()
        for method in loop.add_reader, loop.add_writer:
            with pytest.raises(RuntimeError, match="is used by transport"):
                method(number, int)
        for method in loop.remove_reader, loop.remove_writer:
            with pytest.raises(RuntimeError, match="is used by transport"):
                method(number)
        transport.close()
        await turns()


async def test_a_number_that_is_used_again_gets_only_its_own_events(loop: Loop) -> None:
    for _ in range(100):
        old, old_peer = unix_pair()
        calls: list[str] = []
        loop.add_reader(old, calls.append, "old")
        old_peer.send(b"x")
        loop.remove_reader(old)
        number = old.fileno()
        duplicate = os.dup(number)
        old.close()
        new, new_peer = unix_pair()
        if new_peer.fileno() == number:
            new, new_peer = new_peer, new
        assert new.fileno() == number
        loop.add_reader(new, calls.append, "new")
        await turns()
        assert calls == []
        new_peer.send(b"y")
        await turns()
        assert set(calls) == {"new"}
        loop.remove_reader(new)
        for sock in old_peer, new, new_peer:
            sock.close()
        os.close(duplicate)


async def test_hundreds_of_descriptors(loop: Loop) -> None:
    pairs = [unix_pair() for _ in range(200)]
    got: set[int] = set()

    def readable(number: int) -> None:
        pairs[number][0].recv(1)
        got.add(number)

    for number, (ours, _) in enumerate(pairs):
        loop.add_reader(ours, readable, number)
    for _, theirs in pairs:
        theirs.send(b"x")
    while len(got) < len(pairs):
        await asyncio.sleep(0)
    for ours, theirs in pairs:
        loop.remove_reader(ours)
        ours.close()
        theirs.close()


def test_a_closed_loop_watches_nothing(loop: Loop) -> None:
    ours, theirs = unix_pair()
    with ours, theirs:
        loop.add_reader(ours, int)
        run_turns(loop)
        loop.close()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            loop.add_reader(ours, int)
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            loop.add_writer(ours, int)


@pytest.mark.parametrize("direction", ["reader", "writer"])
async def test_a_closed_file_is_known_by_its_object(loop: Loop, direction: str) -> None:
    add, remove = getattr(loop, f"add_{direction}"), getattr(loop, f"remove_{direction}")
    ours, theirs = unix_pair()
    other, other_peer = unix_pair()
    calls: list[str] = []
    with theirs, other, other_peer:
        add(other, int)
        add(ours, calls.append, "old")
        ours.close()
        assert remove(ours) is True
        with pytest.raises(ValueError):
            remove(ours)
        with pytest.raises(ValueError):
            add(ours, calls.append, "old")
        await turns()
        assert calls == []
        assert remove(other) is True


async def test_a_closed_files_callback_can_be_replaced(loop: Loop) -> None:
    ours, theirs = unix_pair()
    calls: list[str] = []
    with theirs, socket.socket(fileno=os.dup(ours.fileno())):
        loop.add_reader(ours, calls.append, "old")
        ours.close()
        loop.add_reader(ours, calls.append, "new")
        theirs.send(b"x")
        while not calls:
            await asyncio.sleep(0)
        assert set(calls) == {"new"}
        assert loop.remove_reader(ours) is True


async def test_a_closed_file_is_known_by_the_object_that_came_first(loop: Loop) -> None:
    ours, theirs = unix_pair()
    number = ours.fileno()
    with theirs:
        loop.add_reader(number, int)
        loop.add_reader(ours, int)
        ours.close()
        with pytest.raises(ValueError):
            loop.remove_reader(ours)
        assert loop.remove_reader(number) is True


async def test_a_watched_file_stays_until_it_is_watched_no_more(loop: Loop) -> None:
    ours, theirs = unix_pair()
    weak = weakref.ref(ours)
    number = ours.fileno()
    with theirs:
        loop.add_reader(ours, int)
        loop.add_writer(ours, int)
        ours = None  # type: ignore[assignment]
        gc.collect()
        assert loop.remove_reader(number)
        alive = weak()
        assert alive is not None and alive.fileno() == number
        alive.close()
        assert loop.remove_writer(alive)
        del alive
        gc.collect()
        assert weak() is None


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_that_nobody_closed_goes_with_what_it_watches(loop_module: ModuleType) -> None:
    class File(socket.socket):
        loop: object

    abandoned = loop_module.new_event_loop()
    file = File(socket.AF_UNIX)
    file.loop = abandoned
    abandoned.add_reader(file, int)
    weak = weakref.ref(file)
    del file, abandoned
    gc.collect()
    assert weak() is None


async def test_a_closed_file_whose_number_is_used_again(loop: Loop) -> None:
    old, old_peer = unix_pair()
    calls: list[str] = []
    number = old.fileno()
    loop.add_reader(old, calls.append, "old")
    old.close()
    new, new_peer = unix_pair()
    if new_peer.fileno() == number:
        new, new_peer = new_peer, new
    assert new.fileno() == number
    with old_peer, new, new_peer:
        new_peer.send(b"x")
        await turns()
        assert calls == []
        assert loop.remove_reader(old) is True
        assert loop.remove_reader(new) is False
        loop.add_reader(new, calls.append, "new")
        with pytest.raises(ValueError):
            loop.remove_reader(old)
        await turns()
        assert set(calls) == {"new"}
        assert loop.remove_reader(new) is True


async def test_a_socket_that_was_closed_in_sock_recv_is_known_by_number_only(loop: Loop) -> None:
    ours, theirs = unix_pair()
    number = ours.fileno()
    with theirs:
        for _ in range(2):  # the second time its watch may have been kept
            theirs.send(b"x")
            assert await loop.sock_recv(ours, 1) == b"x"
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 1))
            await turns(2)
            receiving.cancel()
            await asyncio.wait([receiving])
        receiving = asyncio.ensure_future(loop.sock_recv(ours, 1))
        await turns(2)
        ours.close()
        with pytest.raises(ValueError):
            loop.remove_reader(ours)
        assert loop.remove_reader(number) is True
        receiving.cancel()
        await asyncio.wait([receiving])


async def test_the_selectors_key_of_a_closed_file(loop: Any) -> None:
    ours, theirs = unix_pair()
    number = ours.fileno()
    with theirs:
        loop.add_reader(ours, int)
        ours.close()
        key = loop._selector.get_key(ours)
        assert key.fileobj is ours
        assert (key.fd, key.events) == (number, selectors.EVENT_READ)
        assert loop._selector.get_map()[number] == key
        assert loop.remove_reader(ours)
        with pytest.raises(ValueError):
            loop._selector.get_key(ours)


async def test_a_reader_removed_while_its_successor_is_made(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = unix_pair()
    number = ours.fileno()
    removed: list[bool] = []
    calls: list[str] = []

    def remove() -> None:
        if len(removed) == 0:
            removed.append(loop.remove_reader(number))

    class File:
        def fileno(self) -> int:
            remove()
            return number

    class Handle(asyncio.Handle):
        def __init__(self, *args: Any, **options: Any) -> None:
            remove()
            super().__init__(*args, **options)

    with ours, theirs:
        theirs.send(b"x")
        for debug, file in (False, File()), (True, File()), (True, ours):
            loop.set_debug(debug)
            loop.add_reader(ours, calls.append, "old")
            removed.clear()
            with monkeypatch.context() as patched:
                patched.setattr("asyncio.events.Handle", Handle)
                loop.add_reader(file, calls.append, "new")
            assert removed == [True]
            calls.clear()
            await turns()
            assert set(calls) == {"new"}
            assert loop.remove_reader(ours) is True


@pytest.mark.parametrize("debug", [False, True])
async def test_a_reader_removed_while_its_predecessor_goes(loop: Loop, debug: bool) -> None:
    ours, theirs = unix_pair()
    removed: list[bool] = []

    class Argument:
        def __del__(self) -> None:
            removed.append(loop.remove_reader(ours))

    with ours, theirs:
        loop.set_debug(debug)
        loop.add_reader(ours, print, Argument())
        theirs.send(b"x")
        loop.add_reader(ours, removed.append, True)
        assert removed == [True]
        await turns()
        assert removed == [True]
        assert loop.remove_reader(ours) is False
