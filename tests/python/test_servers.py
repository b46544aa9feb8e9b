"""Servers, connections made to them by address, and the look-up of addresses."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import inspect
import os
import socket
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import Contexts, Loop, Recorder, receive_all, run_script, turns, unix_pair, within

needs_ipv6 = pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def echo_server(loop: Loop, **options: Any) -> tuple[asyncio.Server, tuple[Any, ...]]:
    server = await loop.create_server(Echo, "127.0.0.1", 0, **options)
    return server, server.sockets[0].getsockname()


async def check_echo(loop: Loop, *address: Any, **options: Any) -> None:
    transport, protocol = await loop.create_connection(Recorder, *address, **options)
    transport.write(b"hello")
    assert await protocol.received(5) == b"hello"
    transport.close()
    await protocol.lost


async def test_a_server_serves_until_it_is_closed(loop: Loop) -> None:
    server, address = await echo_server(loop)
    assert server.is_serving()
    assert server.get_loop() is loop
    assert isinstance(server.sockets, tuple)
    for _ in range(3):
        await check_echo(loop, *address)
    server.close()
    server.close()
    assert not server.is_serving()
    assert server.sockets == ()
    await server.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await loop.create_connection(Recorder, *address)


async def test_a_server_may_start_later(loop: Loop) -> None:
    server, address = await echo_server(loop, start_serving=False)
    assert not server.is_serving()
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    await check_echo(loop, *address)
    server.close()
    await server.wait_closed()


async def test_serve_forever_ends_with_its_task(loop: Loop) -> None:
    server, address = await echo_server(loop, start_serving=False)
    task = loop.create_task(server.serve_forever())
    await turns()
    with pytest.raises(RuntimeError, match="already"):
        await server.serve_forever()
    await check_echo(loop, *address)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not server.is_serving()


async def test_closing_a_server_ends_serve_forever(loop: Loop) -> None:
    server, _ = await echo_server(loop)
    task = loop.create_task(server.serve_forever())
    await turns()
    server.close()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_peers_name_of_a_client_that_has_gone(loop: Loop) -> None:
    """It is told when the connection is accepted; later nobody knows it any more."""
    made: asyncio.Queue[Any] = asyncio.Queue()

    class Names(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            made.put_nowait(transport.get_extra_info("peername"))

    async with await loop.create_server(Names, "127.0.0.1", 0) as server:
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            name = client.getsockname()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert await made.get() == name


@pytest.mark.skipif(sys.version_info < (3, 12, 1), reason="wait_closed did not wait before 3.12.1")
async def test_a_cancelled_serve_forever_waits_for_its_clients(loop: Loop) -> None:
    """Asyncio closes them since 3.14; before, it waits until they go."""
    server, address = await echo_server(loop)
    task = loop.create_task(server.serve_forever())
    transport, protocol = await loop.create_connection(Recorder, *address)
    transport.write(b"1")
    await protocol.received(1)
    task.cancel()
    await turns()
    assert protocol.lost.done() is (sys.version_info >= (3, 14))
    transport.close()
    with pytest.raises(asyncio.CancelledError):
        await task
    await protocol.lost
    assert not server.is_serving()


async def test_a_server_is_an_async_context_manager(loop: Loop) -> None:
    server, address = await echo_server(loop)
    async with server:
        await check_echo(loop, *address)
    assert not server.is_serving()


async def test_connections_outlive_their_server(loop: Loop) -> None:
    server, address = await echo_server(loop)
    transport, protocol = await loop.create_connection(Recorder, *address)
    transport.write(b"1")
    await protocol.received(1)
    server.close()
    transport.write(b"2")
    assert await protocol.received(2) == b"12"
    transport.close()
    await protocol.lost


@pytest.mark.skipif(sys.version_info < (3, 12, 1), reason="wait_closed did not wait before 3.12.1")
async def test_wait_closed_waits_for_the_connections(loop: Loop) -> None:
    server, address = await echo_server(loop)
    transport, protocol = await loop.create_connection(Recorder, *address)
    transport.write(b"1")
    await protocol.received(1)
    server.close()
    waiting = loop.create_task(server.wait_closed())
    await turns()
    assert not waiting.done()
    transport.close()
    await waiting
    await protocol.lost


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in Python 3.13")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
async def test_clients_can_be_closed_with_their_server(loop: Loop, method: str) -> None:
    server, address = await echo_server(loop)
    transport, protocol = await loop.create_connection(Recorder, *address)
    transport.write(b"1")
    await protocol.received(1)
    server.close()
    getattr(server, method)()
    await server.wait_closed()
    await protocol.lost


async def test_a_server_on_a_socket_of_ones_own(loop: Loop) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    server = await loop.create_server(Echo, sock=sock)
    assert server.sockets[0].fileno() == sock.fileno()
    await check_echo(loop, *address)
    server.close()
    await server.wait_closed()


@needs_ipv6
async def test_ipv6(loop: Loop) -> None:
    try:
        server = await loop.create_server(Recorder, "::1", 0)
    except OSError as error:
        pytest.skip(str(error))
    transport, _ = await loop.create_connection(Recorder, *server.sockets[0].getsockname()[:2])
    assert transport.get_extra_info("peername")[0] == "::1"
    transport.close()
    server.close()
    await turns()


async def test_by_name_with_every_option(loop: Loop) -> None:
    server = await loop.create_server(Echo, "localhost", 0, backlog=5, family=socket.AF_INET)
    port = server.sockets[0].getsockname()[1]
    await check_echo(loop, "localhost", port)
    await check_echo(loop, "localhost", port, happy_eyeballs_delay=0.25, interleave=1)
    await check_echo(loop, "127.0.0.1", port, local_addr=("127.0.0.1", 0), family=socket.AF_INET)
    server.close()
    await server.wait_closed()


async def test_an_address_that_is_taken(loop: Loop) -> None:
    server, address = await echo_server(loop)
    with pytest.raises(OSError) as caught:
        await loop.create_server(Echo, *address)
    assert caught.value.errno == errno.EADDRINUSE
    await check_echo(loop, *address)
    server.close()
    await server.wait_closed()


async def test_reuse_port_shares_an_address(loop: Loop) -> None:
    server, address = await echo_server(loop, reuse_port=True)
    other = await loop.create_server(Echo, *address, reuse_port=True)
    for _ in range(5):
        await check_echo(loop, *address)
    server.close()
    other.close()
    await server.wait_closed()


async def test_bad_arguments(loop: Loop) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        with pytest.raises(ValueError):
            await loop.create_server(Echo, sock=datagram)
        with pytest.raises(ValueError):
            await loop.create_connection(Echo, sock=datagram)
    with pytest.raises(ValueError):
        await loop.create_server(Echo)
    with pytest.raises(ValueError):
        await loop.create_connection(Echo)
    with pytest.raises(OSError):
        await loop.create_connection(Echo, "127.0.0.1", 1, local_addr=("192.0.2.1", 0))


def test_a_protocol_factory_that_fails_costs_one_connection(casync: ModuleType) -> None:
    # asyncio's own loop leaves the accepted socket to the garbage collector.
    fail = True

    def factory() -> Echo:
        if fail:
            raise LookupError("of the factory")
        return Echo()

    async def main() -> None:
        nonlocal fail
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        server = await loop.create_server(factory, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        _, protocol = await loop.create_connection(Recorder, *address)
        await protocol.lost
        fail = False
        await check_echo(loop, *address)
        server.close()

    casync.run(within(main()))


@pytest.mark.parametrize("tls", [False, True], ids=["", "tls"])
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_what_a_protocol_factory_raises_is_reported(
    casync: ModuleType, contexts: Contexts, debug: bool, tls: bool
) -> None:
    """asyncio's own loop tells of it in debug mode alone."""
    reports: list[dict[str, Any]] = []

    def factory() -> Echo:
        raise LookupError(variable.get())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context))
        variable.set("of the server's context")
        server = await loop.create_server(
            factory, "127.0.0.1", 0, ssl=contexts.server if tls else None
        )
        variable.set("of another")
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.setblocking(False)
            assert await receive_all(client) == b""
        server.close()
        await server.wait_closed()

    variable = contextvars.ContextVar[str]("variable")
    casync.run(within(main()), debug=debug)
    [report] = reports
    assert report["message"] == "Error on transport creation for incoming connection"
    assert str(report["exception"]) == "of the server's context"
    assert set(report) == {"message", "exception"}


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_what_is_no_protocol_costs_one_connection(casync: ModuleType, debug: bool) -> None:
    """asyncio's own loop leaves the accepted socket to the garbage collector."""
    reports: list[dict[str, Any]] = []
    nonsense = object()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context))
        protocols = iter([None, nonsense, Echo()])
        server = await loop.create_server(lambda: next(protocols), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(2):
            with socket.create_connection(address) as client:
                client.setblocking(False)
                assert await receive_all(client) == b""
        await check_echo(loop, *address)
        server.close()

    casync.run(within(main()), debug=debug)
    assert [type(report["exception"]) for report in reports] == [AttributeError] * 2
    assert [report.get("protocol") for report in reports] == [None, nonsense]


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
def test_what_a_protocol_factory_raises_to_end_the_program(
    loop_module: ModuleType, error: str, debug: bool
) -> None:
    output = run_script(
        loop_module,
        f"""
        def factory(): raise {error}("of the factory")
        async def main():
            server = await loop.create_server(factory, "127.0.0.1", 0)
            global client
            client = socket.create_connection(server.sockets[0].getsockname())
            await asyncio.Event().wait()
        loop = new_event_loop()
        loop.set_exception_handler(lambda _, context: print(context))
        loop.set_debug({debug})
        try:
            loop.run_until_complete(main())
        except {error} as error:
            print(error)
        os._exit(0)
        """,
    )
    assert output == "of the factory\n"


async def test_connecting_can_be_cancelled(loop: Loop) -> None:
    with socket.socket() as listener:  # its queue is full: whoever connects has to wait
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [
            loop.create_task(loop.create_connection(Recorder, *listener.getsockname()))
            for _ in range(10)
        ]
        await turns()
        for task in waiting:
            task.cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        for result in results:
            if isinstance(result, tuple):
                result[0].abort()
        assert any(isinstance(result, asyncio.CancelledError) for result in results)
    await turns()


async def test_hundreds_of_clients_at_once(loop: Loop) -> None:
    server, address = await echo_server(loop)
    await asyncio.gather(*(check_echo(loop, *address) for _ in range(300)))
    server.close()
    await server.wait_closed()


async def test_connect_accepted_socket(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        client = loop.create_task(loop.create_connection(Recorder, *listener.getsockname()))
        sock, _ = await loop.sock_accept(listener)
        transport, server = await loop.connect_accepted_socket(Recorder, sock)
        client_transport, client_protocol = await client
        transport.write(b"hello")
        assert await client_protocol.received(5) == b"hello"
        client_transport.close()
        await server.lost
        await client_protocol.lost


def test_a_server_survives_running_out_of_descriptors(loop_module: ModuleType) -> None:
    run_script(
        loop_module,
        """
        import resource
        class Echo(asyncio.Protocol):
            def connection_made(self, transport): self.transport = transport
            def data_received(self, data): self.transport.write(data)
        async def main():
            loop = asyncio.get_running_loop()
            complained = asyncio.Event()
            def handler(loop, context):
                assert context["exception"].errno in (23, 24), context
                complained.set()
            loop.set_exception_handler(handler)
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            client = socket.socket()
            client.setblocking(False)
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, limits[1]))
            await loop.sock_connect(client, server.sockets[0].getsockname())
            await complained.wait()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await loop.sock_sendall(client, b"hello")
            assert await loop.sock_recv(client, 100) == b"hello"
            client.close()
            server.close()
            await server.wait_closed()
        loop = new_event_loop()
        loop.run_until_complete(asyncio.wait_for(main(), 60))
        loop.close()
        """,
    )


async def check_unix_echo(loop: Loop, path: Any) -> None:
    transport, protocol = await loop.create_unix_connection(Recorder, path)
    transport.write(b"hello")
    assert await protocol.received(5) == b"hello"
    assert transport.get_extra_info("peername") == transport.get_extra_info("socket").getpeername()
    transport.close()
    await protocol.lost


@pytest.mark.parametrize("kind", [str, os.fsencode, Path], ids=["str", "bytes", "Path"])
async def test_unix_paths(loop: Loop, tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "socket"
    server = await loop.create_unix_server(Echo, kind(path))
    await check_unix_echo(loop, kind(path))
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("kind", [str, str.encode], ids=["str", "bytes"])
async def test_abstract_unix_addresses(loop: Loop, kind: Any) -> None:
    name = kind(f"\0casync-test-{os.getpid()}")
    server = await loop.create_unix_server(Echo, name)
    await check_unix_echo(loop, name)
    server.close()
    await server.wait_closed()


async def test_a_stale_unix_socket_is_replaced_but_not_a_file(loop: Loop, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    server = await loop.create_unix_server(Echo, path)
    await check_unix_echo(loop, path)
    server.close()
    await server.wait_closed()
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(OSError) as caught:
        await loop.create_unix_server(Echo, str(file))
    assert caught.value.errno == errno.EADDRINUSE
    assert file.read_text() == "precious"


async def test_unix_errors(loop: Loop, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await loop.create_unix_connection(Recorder, str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError):
        await loop.create_unix_server(Recorder, str(tmp_path / "missing" / "socket"))
    with pytest.raises(OSError):
        await loop.create_unix_server(Recorder, str(tmp_path / ("long" * 50)))
    with pytest.raises(ValueError):
        await loop.create_unix_connection(Recorder)


async def test_unix_sockets_of_ones_own(loop: Loop, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    server = await loop.create_unix_server(Echo, sock=listener)
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    await loop.sock_connect(client, path)
    transport, protocol = await loop.create_unix_connection(Recorder, sock=client)
    transport.write(b"hello")
    assert await protocol.received(5) == b"hello"
    transport.close()
    server.close()
    await protocol.lost


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in Python 3.13")
async def test_a_closed_server_removes_its_unix_socket(loop: Loop, tmp_path: Path) -> None:
    for keep in False, True:
        path = tmp_path / "socket"
        server = await loop.create_unix_server(Echo, str(path), cleanup_socket=not keep)
        assert path.exists()
        server.close()
        await server.wait_closed()
        assert path.exists() is keep


async def test_credentials_and_buffers_of_a_socketpair(loop: Loop) -> None:
    ours, theirs = unix_pair()
    transport, protocol = await loop.create_unix_connection(Recorder, sock=ours)
    sock = transport.get_extra_info("socket")
    assert sock.family == socket.AF_UNIX
    assert int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
    theirs.close()
    await protocol.lost


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


def backlog_of(sock: Any) -> int:
    """The length of a listening socket's queue: of struct tcp_info (linux/tcp.h), tcpi_sacked."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    return int.from_bytes(info[28:], sys.byteorder)


@pytest.mark.parametrize("backlog", [-1, 0, 1, 1000])
async def test_the_backlog_is_what_was_asked_for(
    loop_module: ModuleType, loop: Loop, backlog: int
) -> None:
    server, address = await echo_server(loop, backlog=backlog)
    assert backlog_of(server.sockets[0]) == max(backlog, 0)
    accepts = backlog + (sys.version_info >= (3, 14))  # asyncio, in a turn
    if loop_module is not asyncio or accepts > 0:
        await check_echo(loop, *address)
    server.close()


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


def test_getaddrinfo_and_getnameinfo(loop: Loop) -> None:
    async def main() -> None:
        infos = await loop.getaddrinfo("127.0.0.1", 80, type=1)
        assert infos[0][4] == ("127.0.0.1", 80)
        host, _ = await loop.getnameinfo(("127.0.0.1", 80), 1)
        assert host == "127.0.0.1"

    loop.run_until_complete(main())
