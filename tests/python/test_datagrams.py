"""create_datagram_endpoint: UDP over IPv4 and IPv6, and Unix datagrams."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import Loop, collect_garbage, turns, until

HAS_IPV6 = socket.has_ipv6 and os.path.exists("/proc/net/if_inet6")


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.lost = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


async def test_udp(loop: Loop) -> None:
    server, received = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    address = server.get_extra_info("sockname")
    client, answers = await loop.create_datagram_endpoint(Datagrams, remote_addr=address)
    client.sendto(b"to the connected address")
    await until(lambda: received.received)
    data, client_address = received.received[0]
    assert data == b"to the connected address"
    server.sendto(b"answer", client_address)
    await until(lambda: answers.received)
    assert answers.received == [(b"answer", address)]
    for transport, protocol in (server, received), (client, answers):
        transport.close()
        assert await protocol.lost is None


async def test_a_udp_port_where_nobody_listens(loop: Loop) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = nobody.getsockname()
    client, protocol = await loop.create_datagram_endpoint(Datagrams, remote_addr=address)
    while not protocol.errors:
        client.sendto(b"x")
        await asyncio.sleep(0)
    assert isinstance(protocol.errors[0], ConnectionRefusedError)
    client.close()
    await protocol.lost


async def end(*transports: Any) -> None:
    for transport in transports:
        transport.close()
        await transport.get_protocol().lost


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not HAS_IPV6, reason="no IPv6"))],
)
async def test_addresses(loop: Loop, host: str) -> None:
    server, received = await loop.create_datagram_endpoint(Datagrams, local_addr=(host, 0))
    address = server.get_extra_info("sockname")
    client, answers = await loop.create_datagram_endpoint(Datagrams, local_addr=(host, 0))
    client.sendto(b"all of it", address)
    client.sendto(b"host and port", address[:2])
    await until(lambda: len(received.received) == 2)
    assert received.received[0] == (b"all of it", client.get_extra_info("sockname"))
    server.sendto(b"answer", received.received[1][1])
    await until(lambda: answers.received)
    assert answers.received == [(b"answer", address)]
    assert client.get_extra_info("peername") is None
    await end(client, server)


async def test_names_of_hosts_are_looked_up(loop: Loop) -> None:
    server, received = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    client, _ = await loop.create_datagram_endpoint(Datagrams, family=socket.AF_INET)
    client.sendto(b"x", ("localhost", server.get_extra_info("sockname")[1]))
    await until(lambda: received.received)
    await end(client, server)


async def test_unix_datagrams(loop: Loop, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("server", "client")]
    server, received = await loop.create_datagram_endpoint(
        Datagrams, local_addr=paths[0], family=socket.AF_UNIX
    )
    client, answers = await loop.create_datagram_endpoint(
        Datagrams, local_addr=paths[1], family=socket.AF_UNIX
    )
    nameless, _ = await loop.create_datagram_endpoint(Datagrams, family=socket.AF_UNIX)
    client.sendto(b"to a path", paths[0])
    await until(lambda: received.received)
    assert received.received == [(b"to a path", paths[1])]
    server.sendto(b"back", paths[1])
    await until(lambda: answers.received)
    nameless.sendto(b"from nobody", paths[0])
    await until(lambda: len(received.received) == 2)
    assert received.received[1] == (b"from nobody", None)
    await end(nameless, client, server)


async def test_datagrams_arrive_whole_and_in_order(loop: Loop) -> None:
    server, received = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    client, _ = await loop.create_datagram_endpoint(
        Datagrams, remote_addr=server.get_extra_info("sockname")
    )
    sent = [
        bytes([i % 256]) * size
        for i, size in enumerate([1, 60_000, 2, 3, 9000, 65_507] + [50] * 60)
    ]
    for i in range(0, len(sent), 3):
        for data in sent[i : i + 3]:
            client.sendto(bytearray(data) if i % 2 else memoryview(data))
        await until(lambda i=i: len(received.received) >= min(len(sent), i + 3))
    assert [data for data, _ in received.received] == sent
    await end(client, server)


async def test_only_the_address_of_the_endpoint_may_be_given(loop: Loop) -> None:
    server, received = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    address = server.get_extra_info("sockname")
    client, _ = await loop.create_datagram_endpoint(Datagrams, remote_addr=address)
    client.sendto(b"x", address)
    with pytest.raises(ValueError, match="Invalid address"):
        client.sendto(b"x", ("127.0.0.1", 1))
    with pytest.raises(TypeError, match="bytes-like"):
        client.sendto("text")
    await until(lambda: received.received)
    await end(client, server)


async def test_a_datagram_that_is_too_long_is_an_error_of_its_own(loop: Loop) -> None:
    server, received = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    client, protocol = await loop.create_datagram_endpoint(
        Datagrams, remote_addr=server.get_extra_info("sockname")
    )
    client.sendto(bytes(100_000))
    assert isinstance(protocol.errors[0], OSError)
    client.sendto(b"goes on")
    await until(lambda: received.received)
    assert received.received[0][0] == b"goes on"
    await end(client, server)


async def test_an_address_that_makes_no_sense_ends_the_transport(loop: Loop) -> None:
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    client, protocol = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    client.sendto(b"x", "no tuple")
    assert isinstance(await protocol.lost, TypeError)
    assert [context["transport"] for context in errors] == [client]


class Failing(asyncio.DatagramProtocol):
    count = 0

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.count += 1
        raise ZeroDivisionError


async def test_an_exception_in_datagram_received_leaves_the_socket_open(loop: Loop) -> None:
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    server, failing = await loop.create_datagram_endpoint(Failing, local_addr=("127.0.0.1", 0))
    client, _ = await loop.create_datagram_endpoint(
        Datagrams, remote_addr=server.get_extra_info("sockname")
    )
    for number in range(1, 3):
        client.sendto(b"x")
        await until(lambda number=number: failing.count == number)
    await until(lambda: len(errors) == 2)
    assert all(isinstance(context["exception"], ZeroDivisionError) for context in errors)
    server.close()
    await end(client)


class Flow(Datagrams):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")


async def send_to(loop: Loop, path: Path, protocol: type[Any]) -> tuple[socket.socket, Any, Any]:
    """A Unix socket, which loses nothing, and the endpoint that sends there."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(path))
    receiver.setblocking(False)
    sender = await loop.create_datagram_endpoint(
        protocol, remote_addr=str(path), family=socket.AF_UNIX
    )
    return receiver, *sender


async def test_flow_control_and_close_that_sends_what_is_buffered(
    loop: Loop, tmp_path: Path
) -> None:
    theirs, sender, protocol = await send_to(loop, tmp_path / "socket", Flow)
    with theirs:
        sender.set_write_buffer_limits(high=5000, low=1000)
        assert sender.get_write_buffer_limits() == (1000, 5000)
        sent = 0
        while not protocol.events:
            sender.sendto(sent.to_bytes(4, "big") * 100)
            sent += 1
        assert sender.get_write_buffer_size() > 5000
        received = [await loop.sock_recv(theirs, 1000) for _ in range(sent)]
        await until(lambda: protocol.events == ["pause", "resume"])
        while sender.get_write_buffer_size() == 0:
            sender.sendto(sent.to_bytes(4, "big") * 100)
            sent += 1
        sender.close()
        sender.sendto(b"too late")
        received += [await loop.sock_recv(theirs, 1000) for _ in range(sent - len(received))]
        assert received == [number.to_bytes(4, "big") * 100 for number in range(sent)]
        assert await protocol.lost is None


async def test_each_datagram_that_waits_counts_eight_bytes_more_than_it_has(
    loop_module: ModuleType, loop: Loop, tmp_path: Path
) -> None:
    """As in asyncio since 3.14 (3.13 adds the eight, and never subtracts them)."""
    if loop_module is asyncio and sys.version_info < (3, 14):
        pytest.skip("its asyncio counts otherwise")
    theirs, sender, protocol = await send_to(loop, tmp_path / "socket", Flow)
    with theirs:
        sender.set_write_buffer_limits(high=2 * 108, low=9)
        sent = 0
        while sender.get_write_buffer_size() == 0:
            sender.sendto(bytes(100))
            sent += 1
        assert sender.get_write_buffer_size() == 108
        sender.sendto(bytes(100))
        assert sender.get_write_buffer_size() == 2 * 108 and protocol.events == []
        sender.sendto(b"x")
        assert sender.get_write_buffer_size() == 2 * 108 + 9 and protocol.events == ["pause"]
        for _ in range(sent + 2):
            assert protocol.events == ["pause"] or sender.get_write_buffer_size() <= 9
            await loop.sock_recv(theirs, 1000)
            await turns()
        assert sender.get_write_buffer_size() == 0 and protocol.events == ["pause", "resume"]
        sender.close()
        assert await protocol.lost is None


async def test_abort_sends_nothing_more(loop: Loop, tmp_path: Path) -> None:
    theirs, sender, protocol = await send_to(loop, tmp_path / "socket", Datagrams)
    with theirs:
        while sender.get_write_buffer_size() == 0:
            sender.sendto(bytes(100))
        sender.abort()
        assert sender.is_closing()
        assert await protocol.lost is None


async def test_receiving_is_paused_and_resumed(loop: Loop) -> None:
    server, received = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    address = server.get_extra_info("sockname")
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        assert server.is_reading()
        for _ in range(2):
            server.pause_reading()
        assert not server.is_reading() and "read=idle" in repr(server)
        client.sendto(b"while paused", address)
        await turns()
        assert received.received == []
        for _ in range(2):
            server.resume_reading()
        assert server.is_reading() and "read=polling" in repr(server)
        await until(lambda: received.received)
        assert [data for data, _ in received.received] == [b"while paused"]
    server.close()
    assert not server.is_reading()
    server.pause_reading()
    server.resume_reading()
    await received.lost


async def test_what_a_transport_tells_of_itself(loop: Loop) -> None:
    server, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    sock = server.get_extra_info("socket")
    assert server.get_extra_info("sockname") == sock.getsockname()
    assert server.get_extra_info("other", 5) == 5
    assert f"fd={sock.fileno()}" in repr(server)
    assert isinstance(server, asyncio.DatagramTransport)
    other = Datagrams()
    server.set_protocol(other)
    assert server.get_protocol() is other
    server.close()
    server.close()
    assert server.is_closing()
    await other.lost
    assert "closed" in repr(server) and sock.fileno() == -1


def test_a_transport_that_nobody_closed_warns(loop_module: ModuleType) -> None:
    loop = loop_module.new_event_loop()
    pair = loop.run_until_complete(
        loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    )
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del pair
        collect_garbage()


async def test_nothing_is_received_while_connection_made_is_not_called(loop: Loop) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as theirs:
        ours = socket.socket(type=socket.SOCK_DGRAM)
        ours.bind(("127.0.0.1", 0))
        ours.setblocking(False)
        theirs.sendto(b"early", ours.getsockname())
        events: list[str] = []

        class Ordered(Datagrams):
            def connection_made(self, transport: Any) -> None:
                events.append("made")

            def datagram_received(self, data: bytes, addr: Any) -> None:
                events.append(data.decode())

        server, _ = await loop.create_datagram_endpoint(Ordered, sock=ours)
        await until(lambda: len(events) == 2)
        assert events == ["made", "early"]
        await end(server)
        await turns()


def test_the_native_loop_makes_native_transports(casync: ModuleType) -> None:
    async def kind() -> str:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            Datagrams, local_addr=("127.0.0.1", 0)
        )
        transport.close()
        await protocol.lost
        return type(transport).__name__

    assert casync.run(kind()) == "DatagramTransport"


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
