"""The public interface of the loop, its transports, servers and handles is asyncio's of this
interpreter: every name, every keyword, every type of attribute; and what the options that no other
file tests do."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import subprocess
import sys
import textwrap
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
from support import Loop, finish, receive_exactly, tcp_pair, turns, unix_pair, until, within

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
READY.accept.return_value = Mock(), None

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


# -- what options do --


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
async def test_create_task_with_a_context(loop: Loop) -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="outside")
    context = contextvars.copy_context()

    async def task() -> None:
        variable.set("inside")

    await loop.create_task(task(), name="named", context=context)
    assert (variable.get(), context[variable]) == ("outside", "inside")


async def open_udp(loop: Loop, **options: Any) -> socket.socket:
    """The socket of an endpoint with these options, which is closed with the test's loop."""
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, **options)
    loop.call_soon(transport.close)
    return transport.get_extra_info("socket")


async def test_every_option_of_datagram_endpoints(loop: Loop) -> None:
    local = ("127.0.0.1", 0)
    sock = await open_udp(loop, local_addr=local, reuse_port=True, allow_broadcast=True)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
    sock = await open_udp(loop, local_addr=sock.getsockname(), reuse_port=True)
    assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
    remote = sock.getsockname()
    sock = await open_udp(loop, local_addr=local, remote_addr=remote, family=socket.AF_INET)
    assert sock.getpeername() == remote and sock.getsockname()[0] == "127.0.0.1"
    sock = await open_udp(
        loop, remote_addr=remote, proto=socket.IPPROTO_UDP, flags=socket.AI_NUMERICHOST
    )
    assert (sock.getpeername(), sock.proto) == (remote, socket.IPPROTO_UDP)
    mine = socket.socket(type=socket.SOCK_DGRAM)
    assert (await open_udp(loop, sock=mine)).fileno() == mine.fileno()
    sock = await open_udp(loop, family=socket.AF_INET)
    assert sock.family == socket.AF_INET
    await turns()


async def test_options_of_datagram_endpoints_that_exclude_each_other(loop: Loop) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock, socket.socket() as stream:
        for error, options in [
            (ValueError, {"sock": sock, "local_addr": ("127.0.0.1", 0)}),
            (ValueError, {"sock": sock, "reuse_port": True}),
            (ValueError, {"sock": stream}),
            (ValueError, {}),
            (ValueError, {"local_addr": ("127.0.0.1", 0), "remote_addr": ("::1", 1)}),
            (socket.gaierror, {"remote_addr": ("localhost", 1), "flags": socket.AI_NUMERICHOST}),
            (TypeError, {"local_addr": 1, "family": socket.AF_UNIX}),
        ]:
            with pytest.raises(error):
                await loop.create_datagram_endpoint(asyncio.DatagramProtocol, **options)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
async def test_all_errors_of_a_connection(loop: Loop) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = ("localhost", unused.getsockname()[1])
        with pytest.raises(BaseExceptionGroup) as caught:  # noqa: F821
            await loop.create_connection(
                asyncio.Protocol, *address, family=socket.AF_INET, all_errors=True
            )
        assert [type(error) for error in caught.value.exceptions] == [ConnectionRefusedError]
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(asyncio.Protocol, *address, family=socket.AF_INET)


@pytest.mark.skipif(
    "keep_alive" not in inspect.signature(asyncio.AbstractEventLoop.create_server).parameters,
    reason="not in this Python",
)
async def test_keep_alive_of_servers(loop: Loop) -> None:
    for wanted in True, False:
        async with await loop.create_server(
            asyncio.Protocol, "127.0.0.1", 0, keep_alive=wanted
        ) as server:
            sock = server.sockets[0]
            assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is wanted


async def test_reuse_address_and_backlog_of_servers(loop: Loop) -> None:
    for wanted in True, False:
        async with await loop.create_server(
            asyncio.Protocol, ["127.0.0.1"], 0, reuse_address=wanted, backlog=1
        ) as server:
            sock = server.sockets[0]
            assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) is wanted


@pytest.mark.skipif(sys.version_info < (3, 13), reason="3.12's waits for the executor all the same")
def test_shutdown_default_executor_with_a_timeout(loop: Loop) -> None:
    import threading

    release = threading.Event()

    async def main() -> None:
        blocked = loop.run_in_executor(None, release.wait)
        with pytest.warns(RuntimeWarning, match="did not finish"):
            await loop.shutdown_default_executor(timeout=0.01)
        release.set()
        await blocked

    loop.run_until_complete(main())


async def run_child(code: str, **options: Any) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(code), stdout=PIPE, **options
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output


CHILD_OPTIONS: list[Any] = [
    pytest.param({"cwd": "/"}, "import os; print(os.getcwd())", "/", id="cwd"),
    pytest.param(
        {"env": {"NAME": "value"}}, "import os; print(os.environ['NAME'])", "value", id="env"
    ),
    pytest.param(
        {"start_new_session": True},
        "import os; print(os.getsid(0) == os.getpid())",
        "True",
        id="session",
    ),
    pytest.param({"umask": 0o27}, "import os; print(oct(os.umask(0)))", "0o27", id="umask"),
    pytest.param(
        {"preexec_fn": lambda: os.environ.update(NAME="of preexec_fn") or os.nice(1)},
        "import os; print(os.nice(0) > 0)",
        "True",
        id="preexec_fn",
    ),
    pytest.param(
        {"restore_signals": False},
        "import signal; print(signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN)",
        "True",
        id="restore_signals",
    ),
    pytest.param(
        {"executable": sys.executable}, "print('executable')", "executable", id="executable"
    ),
    pytest.param({"close_fds": False}, "print('close_fds')", "close_fds", id="close_fds"),
    pytest.param({"pipesize": 65536}, "print('pipesize')", "pipesize", id="pipesize"),
    pytest.param({"bufsize": 0}, "print('bufsize')", "bufsize", id="bufsize"),
    pytest.param(
        {"process_group": 0},
        "import os; print(os.getpgid(0) == os.getpid())",
        "True",
        id="process_group",
        marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11"),
    ),
]

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may")
CHILD_OPTIONS += [
    pytest.param(
        {"group": 65534}, "import os; print(os.getgid())", "65534", id="group", marks=as_root
    ),
    pytest.param(
        {"extra_groups": [65533]},
        "import os; print(os.getgroups())",
        "[65533]",
        id="extra_groups",
        marks=as_root,
    ),
]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(("options", "code", "expected"), CHILD_OPTIONS)
async def test_every_option_of_popen(
    loop: Loop, options: dict[str, Any], code: str, expected: str
) -> None:
    assert (await run_child(code, **options)).decode().strip() == expected


@as_root
async def test_a_child_of_another_user(loop: Loop) -> None:
    process = await asyncio.create_subprocess_exec("id", "-u", stdout=PIPE, user=65534, cwd="/")
    assert await process.communicate() == (b"65534\n", None)


async def test_options_of_popen_that_asyncio_refuses(loop: Loop) -> None:
    for options in [
        {"universal_newlines": True},
        {"text": True},
        {"encoding": "utf-8"},
        {"errors": "strict"},
        {"shell": True},
        {"bufsize": 1},
    ]:
        with pytest.raises(ValueError):
            await asyncio.create_subprocess_exec("/bin/true", **options)
    with pytest.raises(ValueError):
        await asyncio.create_subprocess_shell("true", shell=False)
    known = set(inspect.signature(subprocess.Popen).parameters)
    tested = {"user", *(name for row in CHILD_OPTIONS for name in row.values[0])}
    refused = {"universal_newlines", "text", "encoding", "errors", "shell"}
    elsewhere = {"args", "stdin", "stdout", "stderr", "pass_fds"}  # test_subprocess.py
    windows = {"startupinfo", "creationflags"}
    assert known <= tested | refused | elsewhere | windows


async def test_a_child_on_sockets_and_files(loop: Loop, tmp_path: Path) -> None:
    ours, theirs = unix_pair()
    theirs.setblocking(True)
    with ours, theirs, (tmp_path / "errors").open("wb") as errors:
        code = "import sys; data = sys.stdin.read(5); "
        code += "print(data.upper(), flush=True); sys.exit(data * 2)"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdin=theirs, stdout=theirs, stderr=errors
        )
        await loop.sock_sendall(ours, b"hello")
        assert await receive_exactly(ours, 6) == b"HELLO\n"
        assert await process.wait() == 1
    assert (tmp_path / "errors").read_text() == "hellohello\n"


async def test_happy_eyeballs_try_the_addresses_in_turn(loop: Loop) -> None:
    async with await asyncio.start_server(
        lambda reader, writer: writer.close(), "127.0.0.1", 0
    ) as server:
        port = server.sockets[0].getsockname()[1]
        with socket.socket() as unused:  # bound, but it does not listen
            unused.bind(("127.0.0.2", 0))
            infos = [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", unused.getsockname()[1])),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            ]

            async def getaddrinfo(*args: Any, **options: Any) -> Any:
                return infos

            loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]
            for delay, interleave in (None, None), (0.001, None), (1000, 1), (None, 2):
                transport, _ = await within(
                    loop.create_connection(
                        asyncio.Protocol,
                        "name",
                        port,
                        happy_eyeballs_delay=delay,
                        interleave=interleave,
                    )
                )
                assert transport.get_extra_info("peername") == ("127.0.0.1", port)
                transport.close()
                await turns()
