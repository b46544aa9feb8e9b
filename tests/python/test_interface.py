"""The loop, its transports, servers and handles have the public interface of asyncio's, to the last
name, keyword and type of attribute.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
from support import Loop, finish, tcp_pair, turns, until

# What asyncio's objects have beside their documented interface.
PRIVATE_AFTER_ALL = {"max_size"}  # how much asyncio's transports read at once


class Objects:
    """One of everything that a loop makes."""

    def __init__(self, loop: Loop, directory: Path) -> None:
        self.loop = loop
        self.directory = directory
        self.found: dict[str, Any] = {"loop": loop}
        self.left_open: list[Any] = []

    async def make(self) -> dict[str, Any]:
        loop, found = self.loop, self.found
        ours, theirs = tcp_pair()
        found["socket transport"], _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        found["server"] = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        path = str(self.directory / type(loop).__module__)
        found["Unix server"] = await loop.create_unix_server(asyncio.Protocol, path)
        found["datagram transport"], _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        reading, writing = os.pipe()
        ends = os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)
        found["read pipe"], _ = await loop.connect_read_pipe(asyncio.Protocol, ends[0])
        found["write pipe"], _ = await loop.connect_write_pipe(asyncio.BaseProtocol, ends[1])
        found["subprocess"], _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "cat")
        found["its pipe"] = found["subprocess"].get_pipe_transport(0)
        reader, writer = await asyncio.open_unix_connection(path)
        found["stream reader"], found["stream writer"] = reader, writer
        found["handle"] = loop.call_soon(int)
        found["timer handle"] = loop.call_later(1000, int)
        found["future"] = loop.create_future()
        found["task"] = loop.create_task(asyncio.sleep(0))
        self.left_open.append(theirs)
        return found

    async def close(self) -> None:
        self.found["timer handle"].cancel()
        for one in self.left_open + list(self.found.values()):
            if one is not self.loop and hasattr(one, "close"):
                one.close()
        await self.found["task"]
        await until(lambda: self.found["subprocess"].get_returncode() is not None)
        await turns()


@pytest.fixture
def both(casync: ModuleType, tmp_path: Path) -> Iterator[dict[str, tuple[Any, Any]]]:
    """By name: asyncio's object and casync's."""
    loops = [asyncio.SelectorEventLoop(), casync.EventLoop()]
    if sys.version_info < (3, 12):
        asyncio.get_event_loop_policy().get_child_watcher()
    objects = [Objects(loop, tmp_path) for loop in loops]
    theirs, ours = (
        loop.run_until_complete(one.make()) for loop, one in zip(loops, objects, strict=True)
    )
    yield {name: (theirs[name], ours[name]) for name in theirs}
    for loop, one in zip(loops, objects, strict=True):
        loop.run_until_complete(one.close())
        finish(loop)


def public_names(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")} - PRIVATE_AFTER_ALL


def test_every_public_name_is_there(both: dict[str, tuple[Any, Any]]) -> None:
    missing = {
        kind: public_names(theirs) - public_names(ours) for kind, (theirs, ours) in both.items()
    }
    assert not {kind: names for kind, names in missing.items() if names}
    loop = both["loop"][1]
    assert public_names(asyncio.AbstractEventLoop) <= public_names(loop)


def test_every_attribute_is_of_asyncios_type(both: dict[str, tuple[Any, Any]]) -> None:
    for kind, (theirs, ours) in both.items():
        for name in public_names(theirs):
            one, other = getattr(theirs, name), getattr(ours, name)
            if callable(one):
                assert callable(other), (kind, name)
            else:
                assert type(one) is type(other) or bases(one) & bases(other), (kind, name)


def bases(thing: Any) -> set[type]:
    """asyncio's public classes that it is an instance of."""
    names = set(asyncio.__all__) - {"SelectorEventLoop", "EventLoop"}
    classes = {
        getattr(asyncio, name) for name in names if inspect.isclass(getattr(asyncio, name, None))
    }
    return {cls for cls in classes if isinstance(thing, cls)}


def test_everything_is_an_instance_of_what_asyncios_is(both: dict[str, tuple[Any, Any]]) -> None:
    assert {kind: bases(theirs) - bases(ours) for kind, (theirs, ours) in both.items()} == {
        kind: set() for kind in both
    }


def parameters(method: Any) -> list[tuple[str, Any, Any]] | None:
    try:
        signature = inspect.signature(method)
    except ValueError:  # a native method without a text signature
        return None
    return [(one.name, one.kind, one.default) for one in signature.parameters.values()]


def test_every_signature_is_asyncios(both: dict[str, tuple[Any, Any]]) -> None:
    """But those of transports' native methods may be unknown: what they take is tried below."""
    for kind, (theirs, ours) in both.items():
        for name in public_names(theirs):
            one, other = getattr(theirs, name), getattr(ours, name)
            if not inspect.isroutine(one) or (expected := parameters(one)) is None:
                continue
            found = parameters(other)
            native = type(other) is type(len)
            assert found == expected or (native and kind != "loop"), (kind, name, found)


# A socket that can do everything at once.
READY = Mock(spec=socket.socket, family=socket.AF_UNIX)
READY.gettimeout.return_value = 0
READY.send.return_value = 1
ACCEPTED = Mock()
READY.accept.return_value = ACCEPTED, None

NEW_IN_311 = {"sock_recvfrom", "sock_recvfrom_into", "sock_sendto"}

# How a method can be called with all its keywords; (kind of object, name of method): keywords.
CALLS: dict[tuple[str, str], dict[str, Any]] = {
    ("loop", "call_soon"): {"callback": int, "context": None},
    ("loop", "call_soon_threadsafe"): {"callback": int, "context": None},
    ("loop", "call_later"): {"delay": 0, "callback": int, "context": None},
    ("loop", "create_task"): {"coro": None, "name": None},
    ("loop", "call_at"): {"when": 0, "callback": int, "context": None},
    ("loop", "sock_recv"): {"sock": READY, "n": 1},
    ("loop", "sock_recv_into"): {"sock": READY, "buf": bytearray(1)},
    ("loop", "sock_recvfrom"): {"sock": READY, "bufsize": 1},
    ("loop", "sock_recvfrom_into"): {"sock": READY, "buf": bytearray(1), "nbytes": 1},
    ("loop", "sock_sendall"): {"sock": READY, "data": b"x"},
    ("loop", "sock_sendto"): {"sock": READY, "data": b"x", "address": None},
    ("loop", "sock_accept"): {"sock": READY},
    ("loop", "sock_connect"): {"sock": READY, "address": "path"},
    ("socket transport", "get_extra_info"): {"name": "none", "default": None},
    ("socket transport", "set_write_buffer_limits"): {"high": 10, "low": 1},
    ("socket transport", "write"): {"data": b""},
    ("socket transport", "writelines"): {"list_of_data": []},
    ("socket transport", "set_protocol"): {"protocol": asyncio.Protocol()},
    ("datagram transport", "sendto"): {"data": b"x", "addr": ("127.0.0.1", 9)},
    ("datagram transport", "get_extra_info"): {"name": "none", "default": None},
    ("datagram transport", "set_write_buffer_limits"): {"high": 10, "low": 1},
    ("datagram transport", "set_protocol"): {"protocol": asyncio.DatagramProtocol()},
    ("read pipe", "set_protocol"): {"protocol": asyncio.Protocol()},
    ("write pipe", "set_protocol"): {"protocol": asyncio.BaseProtocol()},
    ("write pipe", "write"): {"data": b""},
    ("write pipe", "writelines"): {"list_of_data": []},
    ("write pipe", "set_write_buffer_limits"): {"high": 10, "low": 1},
    ("its pipe", "set_protocol"): {"protocol": asyncio.BaseProtocol()},
    ("its pipe", "write"): {"data": b""},
    ("its pipe", "writelines"): {"list_of_data": []},
    ("its pipe", "set_write_buffer_limits"): {"high": 10, "low": 1},
    ("stream reader", "read"): {"n": 0},
    ("stream reader", "readexactly"): {"n": 0},
    ("stream reader", "readuntil"): {"separator": b";"},
}


def test_every_native_method_takes_asyncios_keywords(both: dict[str, tuple[Any, Any]]) -> None:
    async def call(kind: str, name: str, which: int) -> None:
        keywords = dict(CALLS[kind, name])
        if name == "create_task":
            keywords["coro"] = asyncio.sleep(0)
        elif name == "readuntil":
            both[kind][which].feed_data(b"line;")
        result = getattr(both[kind][which], name)(**keywords)
        if inspect.isawaitable(result):
            await result

    for kind, name in CALLS:
        for which in 0, 1:
            if sys.version_info < (3, 11) and name in NEW_IN_311:
                continue
            both["loop"][which].run_until_complete(call(kind, name, which))
    for mock in READY, ACCEPTED:
        mock.reset_mock()  # it keeps what it was called with
    for kind, (theirs, ours) in both.items():
        for name in public_names(theirs):
            one, other = getattr(theirs, name), getattr(ours, name)
            if type(other) is type(len) and type(one) is not type(other) and parameters(one):
                assert (kind, name) in CALLS, "no row above calls this native method"


def test_wrong_arguments_are_type_errors(loop: Loop) -> None:
    for function in loop.call_soon, loop.call_soon_threadsafe, loop.call_later, loop.call_at:
        for arguments, keywords in [
            ((), {}),
            ((), {"context": None}),
            ((1, int), {"wrong": 1}),
            ((1, int), {"callback": int}),
            ((1, int), {"context": None, "delay": 1}),
        ]:
            with pytest.raises(TypeError):
                function(*arguments, **keywords)
    with pytest.raises(TypeError):
        loop.create_task()
    coroutine = asyncio.sleep(0)
    with pytest.raises(TypeError):
        loop.create_task(coroutine, wrong=1)
    coroutine.close()
