"""The context variables that callbacks, tasks and protocols run with."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from support import (
    Buffered,
    Contexts,
    Loop,
    Recorder,
    errors_of,
    receive_exactly,
    run_turns,
    turns,
    unix_pair,
    until,
)

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")


@pytest.mark.parametrize("how", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_a_context_that_is_none_is_found_when_the_callback_is_called(loop: Loop, how: str) -> None:
    class Runs:
        def run(self, function: Any, *args: Any) -> Any:
            ran.append("by its own run()")
            return function(*args)

    errors, ran = errors_of(loop), []
    before = (0,) if how in ("call_later", "call_at") else ()
    for context in 1, Runs():
        getattr(loop, how)(*before, ran.append, "the callback", context=context)
    getattr(loop, how)(*before, lambda *args: ran.extend(args), 1, 2, 3, 4, context=Runs())
    run_turns(loop, 2)
    assert [type(context["exception"]) for context in errors] == [AttributeError]
    assert ran == ["by its own run()", "the callback", "by its own run()", 1, 2, 3, 4]


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("how", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_a_callback_runs_in_a_copy_of_the_context_it_was_queued_in(
    loop: Loop, how: str, debug: bool
) -> None:
    loop.set_debug(debug)
    seen: list[str] = []

    def callback() -> None:
        seen.append(variable.get())
        variable.set("changed by the callback")

    def queue(**options: Any) -> None:
        arguments = {"call_later": (0, callback), "call_at": (loop.time(), callback)}.get(
            how, (callback,)
        )
        getattr(loop, how)(*arguments, **options)

    variable.set("when queued")
    own = contextvars.copy_context()
    own.run(variable.set, "own context")
    queue()
    queue(context=own)
    variable.set("when run")
    run_turns(loop, 2)
    assert seen == ["when queued", "own context"]
    assert variable.get() == "when run"
    assert own[variable] == "changed by the callback"


def test_a_watchers_callback_runs_in_the_context_it_was_added_in(loop: Loop) -> None:
    ours, theirs = unix_pair()
    seen: list[str] = []
    with ours, theirs:
        variable.set("when added")
        loop.add_reader(ours, lambda: (ours.recv(1), seen.append(variable.get())))
        variable.set("when run")
        theirs.send(b"x")
        run_turns(loop, 2)
        loop.remove_reader(ours)
    assert seen == ["when added"]


async def test_every_task_has_a_context_of_its_own(loop: Loop) -> None:
    async def task(name: str) -> str:
        variable.set(name)
        await turns()
        return variable.get()

    variable.set("outer")
    assert await asyncio.gather(*(task(name) for name in "abc")) == ["a", "b", "c"]
    assert variable.get() == "outer"


async def test_protocol_callbacks_run_in_the_context_the_transport_was_made_in(loop: Loop) -> None:
    seen: dict[str, str] = {}

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            seen["made"] = variable.get()

        def data_received(self, data: bytes) -> None:
            seen["data"] = variable.get()

        def connection_lost(self, exc: BaseException | None) -> None:
            lost.set_result(None)

    lost = loop.create_future()
    ours, theirs = unix_pair()
    with theirs:
        variable.set("when made")
        await loop.create_connection(Protocol, sock=ours)
        variable.set("later")
        theirs.send(b"x")
        await turns()
        theirs.close()
        await lost
    assert seen == {"made": "when made", "data": "when made"}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
async def test_create_task_with_a_context(loop: Loop) -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="outside")
    context = contextvars.copy_context()

    async def task() -> None:
        variable.set("inside")

    await loop.create_task(task(), name="named", context=context)
    assert (variable.get(), context[variable]) == ("outside", "inside")


# -- one context for all of a connection's callbacks, as asyncio does since 3.15 --

since_315 = pytest.mark.skipif(sys.version_info < (3, 15), reason="new in Python 3.15")
either_mode = pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
trail: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("trail", default=())


class Trail(asyncio.Protocol):
    """Each callback looks for what those before it left in the context, and leaves its own name.
    The first find what `begin` says.
    """

    def __init__(self, begin: str, *names: str) -> None:
        self.strange: list[Any] = []
        self.names = [begin, *names]
        self.received = 0
        self.paused = False
        self.made = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()

    def note(self, name: str) -> None:
        if trail.get() != tuple(self.names):
            self.strange.append((name, trail.get(), tuple(self.names)))
        self.names.append(name)
        trail.set(tuple(self.names))

    def connection_made(self, transport: Any) -> None:
        self.note("made")
        self.transport = transport
        transport.set_write_buffer_limits(high=1)
        self.made.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.note("data")
        self.received += len(data)

    def eof_received(self) -> None:
        self.note("eof")

    def pause_writing(self) -> None:
        self.paused = True  # in the writer's context

    def resume_writing(self) -> None:
        self.paused = False
        self.note("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.note("lost")
        self.lost.set_result(None)


class BufferedTrail(Trail, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint: int) -> bytearray:
        if not self.transport.is_closing():  # else sslproto asks in the context of who closes
            self.note("buffer")
        # Never full: what does not fit sslproto reads in the next turn, in a copy of the context.
        self.buffer = bytearray(1 << 20)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.note("data")
        self.received += nbytes


def served(begin: str, kind: type[Trail], served_ones: list[Trail]) -> Trail:
    """A server's protocol, whose factory leaves its name, too."""
    protocol = kind(begin)
    protocol.note("factory")
    served_ones.append(protocol)
    return protocol


async def converse(one: Trail, two: Trail) -> None:
    """Both ends write more than the kernel takes, and close; then all of their callbacks were
    called.
    """
    size = 1 << 22
    trail.set(("of who writes",))
    for end in one, two:
        end.transport.write(bytes(size // 2))
        end.transport.write(bytes(size // 2))
    await until(lambda: one.received == two.received == size)
    await until(lambda: not (one.paused or two.paused))
    one.transport.close()
    for end in one, two:
        await end.lost
        assert end.strange == []
        assert {"made", "data", "resume", "lost"} <= set(end.names)


@since_315
@either_mode
@pytest.mark.parametrize("kind", [Trail, BufferedTrail], ids=["", "buffered"])
@pytest.mark.parametrize("tls", [False, True], ids=["", "tls"])
@pytest.mark.parametrize("family", ["tcp", "unix"])
async def test_all_callbacks_of_a_connection_share_a_context(
    loop: Loop,
    contexts: Contexts,
    tmp_path: Path,
    family: str,
    tls: bool,
    kind: type[Trail],
    debug: bool,
) -> None:
    loop.set_debug(debug)
    served_ones: list[Trail] = []
    clients: list[tuple[Any, Any]] = []
    server_tls: Any = {"ssl": contexts.server} if tls else {}
    client_tls: Any = {"ssl": contexts.client, "server_hostname": "localhost"} if tls else {}
    factory = functools.partial(served, "server", kind, served_ones)
    path = str(tmp_path / "socket")
    trail.set(("server",))
    if family == "tcp":
        server = await loop.create_server(
            factory, "127.0.0.1", 0, start_serving=False, **server_tls
        )
        port = server.sockets[0].getsockname()[1]
        connect = functools.partial(loop.create_connection, host="127.0.0.1", port=port)
    else:
        server = await loop.create_unix_server(factory, path, start_serving=False, **server_tls)
        connect = functools.partial(loop.create_unix_connection, path=path)
    trail.set(("who starts the server",))
    async with server:
        await server.start_serving()
        for name in "first client", "second client":
            trail.set((name,))
            clients.append(await connect(functools.partial(kind, name), **client_tls))
            await until(lambda: len(served_ones) == len(clients))
            await served_ones[-1].made
            assert trail.get() == (name,)
            await converse(clients[-1][1], served_ones[-1])


@since_315
@either_mode
@pytest.mark.parametrize("tls", [False, True], ids=["", "tls"])
async def test_all_callbacks_of_an_accepted_socket_share_a_context(
    loop: Loop, contexts: Contexts, tls: bool, debug: bool
) -> None:
    loop.set_debug(debug)
    ours, theirs = unix_pair()
    trail.set(("made here",))
    (_, one), (_, two) = await asyncio.gather(
        loop.connect_accepted_socket(
            lambda: Trail("made here"), ours, ssl=contexts.server if tls else None
        ),
        loop.create_connection(
            lambda: Trail("made here"),
            sock=theirs,
            ssl=contexts.client if tls else None,
            server_hostname="localhost" if tls else None,
        ),
    )
    await converse(one, two)


@since_315
@either_mode
async def test_start_tls_leaves_a_connection_its_context(
    loop: Loop, contexts: Contexts, debug: bool
) -> None:
    loop.set_debug(debug)
    ours, theirs = unix_pair()
    trail.set(("made here",))
    (plain, _), (other_plain, _) = await asyncio.gather(
        loop.connect_accepted_socket(lambda: Trail("made here"), ours),
        loop.create_connection(lambda: Trail("made here"), sock=theirs),
    )
    trail.set(("of who upgrades",))
    one, two = Trail("made here", "made"), Trail("made here", "made")
    one.transport, two.transport = await asyncio.gather(
        loop.start_tls(plain, one, contexts.server, server_side=True),
        loop.start_tls(other_plain, two, contexts.client, server_hostname="localhost"),
    )
    for end in one, two:
        end.transport.set_write_buffer_limits(high=1)
    await converse(one, two)


@since_315
@either_mode
async def test_a_client_connected_callback_sees_its_servers_context(
    loop: Loop, debug: bool
) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(variable.get())
        variable.set("changed by a connection")
        writer.write(await reader.read(1))
        writer.close()
        await writer.wait_closed()

    loop.set_debug(debug)
    seen: list[str] = []
    variable.set("when the server was made")
    server = await asyncio.start_server(connected, "127.0.0.1", 0, start_serving=False)
    async with server:
        variable.set("later")
        await server.start_serving()
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x")
            assert await reader.read() == b"x"
            writer.close()
            await writer.wait_closed()
    assert seen == ["when the server was made"] * 2
    assert variable.get() == "later"


@since_315
@either_mode
def test_a_watcher_takes_a_context(loop: Any, debug: bool) -> None:
    def ready(name: str) -> None:
        seen.append((name, variable.get()))
        variable.set(f"changed by the {name}")

    loop.set_debug(debug)
    ours, theirs = unix_pair()
    seen: list[tuple[str, str]] = []
    own = contextvars.copy_context()
    own.run(variable.set, "own context")
    variable.set("when added")
    with ours, theirs:
        theirs.send(b"x")
        loop._add_reader(ours.fileno(), ready, "reader", context=own)
        run_turns(loop, 2)
        assert loop._remove_reader(ours.fileno())
        loop._add_writer(ours.fileno(), ready, "writer", context=own)
        run_turns(loop, 2)
        assert loop._remove_writer(ours.fileno())
        loop._add_reader(ours.fileno(), ready, "reader", context=None)
        run_turns(loop, 1)
        assert loop._remove_reader(ours.fileno())
    assert seen[0] == ("reader", "own context")
    assert ("writer", "changed by the reader") in seen
    assert seen[-1] == ("reader", "when added")
    assert own[variable] == "changed by the writer"


@either_mode
async def test_datagrams_come_in_the_context_their_transport_was_made_in(
    loop: Loop, debug: bool
) -> None:
    class Protocol(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            seen.append(variable.get())
            variable.set("changed by connection_made")

        def datagram_received(self, data: bytes, addr: Any) -> None:
            seen.append(variable.get())
            received.set_result(None)

    loop.set_debug(debug)
    seen: list[str] = []
    received = loop.create_future()
    variable.set("when made")
    transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
    variable.set("later")
    transport.sendto(b"x", transport.get_extra_info("sockname"))
    await received
    transport.close()
    await turns()
    assert seen == ["when made", "when made"]


@either_mode
@pytest.mark.parametrize(
    "where", ["data_received", "buffer_updated", "eof_received", "connection_lost"]
)
async def test_an_exception_handler_sees_the_context_of_what_failed(
    loop: Loop, where: str, debug: bool
) -> None:
    if where == "connection_lost" and sys.version_info < (3, 12):
        pytest.skip("the loop reports it, which before 3.12 has a context of its own")

    def fail(*args: object) -> None:
        variable.set(f"set by {where}")
        raise LookupError(where)

    loop.set_debug(debug)
    seen: list[str] = []
    loop.set_exception_handler(lambda loop, context: seen.append(variable.get()))
    ours, theirs = unix_pair()
    variable.set("when made")
    with theirs:
        protocol: Any = Buffered(1) if where == "buffer_updated" else Recorder()
        setattr(protocol, where, fail)
        await loop.create_connection(lambda: protocol, sock=ours)
        variable.set("later")
        if where != "eof_received":
            theirs.send(b"x")
        theirs.shutdown(socket.SHUT_WR)
        await until(lambda: seen)
    assert seen == [f"set by {where}"]


@either_mode
async def test_resume_writing_runs_in_the_context_of_the_connection(
    loop: Loop, debug: bool
) -> None:
    class Writer(Recorder):
        def resume_writing(self) -> None:
            seen.append(variable.get())

    loop.set_debug(debug)
    seen: list[str] = []
    ours, theirs = unix_pair()
    variable.set("when made")
    with theirs:
        transport, _ = await loop.create_connection(Writer, sock=ours)
        variable.set("when written")
        transport.write(bytes(1 << 20))
        await receive_exactly(theirs, 1 << 20)
        await until(lambda: seen)
        transport.close()
        await turns()
    asyncio_before_315 = type(loop).__module__.startswith("asyncio") and sys.version_info < (3, 15)
    assert seen == ["when written" if asyncio_before_315 else "when made"]


@since_315
@either_mode
@pytest.mark.parametrize("where", ["made", "data", "eof", "lost", "resume"])
async def test_an_exception_handler_sees_the_context_of_the_connection(
    loop: Loop, where: str, debug: bool
) -> None:
    class Fails(Trail):
        def note(self, name: str) -> None:
            super().note(name)
            if name == where:
                raise LookupError(name)

    def handler(loop: Loop, context: dict[str, Any]) -> None:
        seen.append((type(context["exception"]), trail.get()))

    loop.set_debug(debug)
    loop.set_exception_handler(handler)
    seen: list[Any] = []
    ours, theirs = unix_pair()
    trail.set(("made here",))
    with theirs:
        transport, fails = await loop.create_connection(lambda: Fails("made here"), sock=ours)
        trail.set(("later",))
        transport.set_write_buffer_limits(high=1)
        transport.write(bytes(1 << 20))
        await receive_exactly(theirs, 1 << 20)
        theirs.send(b"x")
        theirs.shutdown(socket.SHUT_WR)
        await until(lambda: "lost" in fails.names)
        await turns()
    assert fails.strange == []
    assert seen == [(LookupError, tuple(fails.names[: fails.names.index(where) + 1]))]
