"""casync.gen.gensocket: sockets that wait with `yield from`."""

from __future__ import annotations

import errno
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from casync import gen
from casync.gen.gensocket import GenSocket
from gen_support import Steps, by_yield, pair
from support import Loop, pattern

BIG = 1_000_000  # more than the kernel takes at once


def listener(host: str = "127.0.0.1", **options: Any) -> GenSocket:
    sock = GenSocket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind((host, 0))
    sock.listen(**options)
    return sock


def receive(sock: GenSocket, size: int) -> Steps:
    data = bytearray()
    while len(data) < size:
        chunk = yield from sock.recv(1 << 16)
        assert chunk, f"end of stream after {len(data)} of {size} bytes"
        data += chunk
    return bytes(data)


def receive_all(sock: GenSocket) -> Steps:
    data = bytearray()
    while chunk := (yield from sock.recv(1 << 16)):
        data += chunk
    return bytes(data)


def turns(count: int = 10) -> Steps:
    for _ in range(count):
        yield from gen.sleep(1e-6)


# -- connections --


@by_yield
def test_tcp_echo_by_name(loop: Loop) -> Steps:
    def serve() -> Steps:
        sock, address = yield from server.accept()
        with sock:
            assert isinstance(sock, GenSocket) and address == sock.getpeername()
            while data := (yield from sock.recv(100)):
                yield from sock.sendall(data.upper())

    with listener() as server, GenSocket(socket.AF_INET, socket.SOCK_STREAM) as client:
        serving = gen.create_task(serve())
        yield from client.connect(("localhost", server.getsockname()[1]))
        client.send(b"hello")
        assert (yield from client.recv(100)) == b"HELLO"
        client.shutdown(socket.SHUT_WR)
        assert (yield from client.recv(100)) == b""
        yield from serving


@by_yield
def test_names_are_resolved_without_blocking(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Steps:
    loop_runs = threading.Event()
    asked: list[Any] = []
    real = socket.getaddrinfo

    def slow(host: str, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        assert loop_runs.wait(60), "the loop is blocked"
        return real("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with listener() as server, GenSocket(socket.AF_INET, socket.SOCK_STREAM) as client:
        port = server.getsockname()[1]
        connecting = gen.create_task(client.connect(("slow.example", port)))
        while not asked:
            yield
        loop_runs.set()
        yield from connecting
        assert client.getpeername() == ("127.0.0.1", port)
        with GenSocket() as numeric:
            yield from numeric.connect(("127.0.0.1", port))
        assert asked == ["slow.example"], "an address is no name"


@by_yield
def test_a_name_that_is_none(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Steps:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with GenSocket() as sock, pytest.raises(socket.gaierror):
        yield from sock.connect(("name.invalid", 80))


@by_yield
def test_a_connection_that_is_refused(loop: Loop) -> Steps:
    with listener() as server:
        address = server.getsockname()
    with GenSocket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        with pytest.raises(ConnectionRefusedError, match=str(address[1])):
            yield from sock.connect(address)


@by_yield
def test_what_is_sent_while_connecting_is_sent_then(loop: Loop) -> Steps:
    with listener(backlog=0) as server:
        first, second = GenSocket(), GenSocket()
        with first, second:
            yield from first.connect(server.getsockname())  # the listener's queue is full now
            connecting = gen.create_task(second.connect(server.getsockname()))
            yield from turns()
            assert not connecting.done()
            sending = second.send(b"early")
            yield from turns()
            assert not sending.done()
            for _ in range(2):
                sock, _ = yield from server.accept()
                sock.send(b"accepted")
                with sock:
                    if sock.getpeername() == second.getsockname():
                        assert (yield from sock.recv(100)) == b"early"
            yield from connecting
            assert (yield from sending) == 5


@by_yield
def test_closing_while_connecting(loop: Loop) -> Steps:
    """Waiting ends with EBADF; what was sent before still goes out when the connection comes
    about.
    """
    with listener(backlog=0) as server, GenSocket() as first:
        yield from first.connect(server.getsockname())  # the listener's queue is full now
        for sent in b"", b"early":
            sock = GenSocket()
            connecting = gen.create_task(sock.connect(server.getsockname()))
            yield from turns()
            if sent:
                sock.send(sent)
            sock.close()
            with pytest.raises(OSError) as caught:
                yield from connecting
            assert caught.value.errno == errno.EBADF
        received = b""
        while not received:
            peer, address = yield from server.accept()
            with peer:
                if address != first.getsockname():
                    received = yield from receive_all(peer)
        assert received == b"early"


@by_yield
def test_unix_sockets(loop: Loop, tmp_path: Path) -> Steps:
    path = str(tmp_path / "socket")
    with (
        GenSocket(socket.AF_UNIX, socket.SOCK_STREAM) as server,
        GenSocket(socket.AF_UNIX) as client,
    ):
        server.bind(path)
        server.listen()
        yield from client.connect(path)
        peer, _ = yield from server.accept()
        with peer:
            yield from peer.sendall(b"hello")
            assert (yield from client.recv(100)) == b"hello"
            assert client.getpeername() == path
    with GenSocket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        yield from late.connect(path)


@by_yield
def test_udp(loop: Loop) -> Steps:
    with (
        GenSocket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        GenSocket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        receiving = gen.create_task(one.recvfrom(100))
        yield from turns()
        assert (yield from two.sendto(b"by name", ("localhost", one.getsockname()[1]))) == 7
        assert (yield from receiving) == (b"by name", two.getsockname())
        yield from one.connect(two.getsockname())
        for datagram in b"connected", b"", b"datagrams":
            assert (yield from one.send(datagram)) == len(datagram)
            assert (yield from two.recvfrom(100)) == (datagram, one.getsockname())
        with pytest.raises(OSError, match="long"):
            one.send(bytes(100_000))


# -- receiving --


@by_yield
def test_recv_into(loop: Loop) -> Steps:
    one, two = pair()
    with one, two:
        buffer = bytearray(b"........")
        receiving = gen.create_task(one.recv_into(buffer))
        yield from turns()
        two.send(b"abc")
        assert (yield from receiving) == 3 and buffer == b"abc....."
        two.send(b"defgh")
        assert (yield from one.recv_into(memoryview(buffer)[4:], 2)) == 2
        assert buffer == b"abc.de.."


@by_yield
def test_tasks_may_wait_for_one_socket_together(loop: Loop) -> Steps:
    one, two = pair()
    with one, two:
        receiving = [gen.create_task(one.recv(1)) for _ in range(3)]
        yield from turns()
        for byte in b"abc":
            two.send(bytes([byte]))
            yield from turns()
        assert sorted((yield from gen.gather(*receiving))) == [b"a", b"b", b"c"]


@by_yield
def test_a_recv_that_is_cancelled_takes_nothing(loop: Loop) -> Steps:
    one, two = pair()
    with one, two:
        receiving, other = gen.create_task(one.recv(100)), gen.create_task(one.recv(100))
        yield from turns()
        two.send(b"data")
        receiving.cancel()
        yield from gen.gather(receiving)
        assert receiving.cancelled()
        assert (yield from other) == b"data"
        two.send(b"more")
        assert (yield from one.recv(100)) == b"more"


@by_yield
def test_closing_ends_waiting(loop: Loop) -> Steps:
    one, two = pair()
    with two:
        receiving = gen.create_task(one.recv(100))
        yield from turns()
        one.close()
        three, four = pair()  # which may get the number of the descriptor just closed
        with three, four:
            also_receiving = [gen.create_task(sock.recv(100)) for sock in (three, four)]
            yield from turns()
            with pytest.raises(OSError) as caught:
                yield from receiving
            assert caught.value.errno == errno.EBADF
            four.send(b"to three")
            three.send(b"to four")
            assert (yield from gen.gather(*also_receiving)) == [b"to three", b"to four"]
        assert (yield from two.recv(100)) == b""
    one.close()


# -- sending --


def test_send_sends_when_it_is_called(casync: Any) -> None:
    def main() -> Steps:
        one, two = socket.socketpair()
        with GenSocket(fileno=one.detach()) as sock, two:
            two.setblocking(False)
            sock.send(b"now")
            assert two.recv(100) == b"now", "and no turn of the loop between"
            sent = sock.send(memoryview(b"count"))
            assert (yield from sent) == 5

    gen.run(main())


@by_yield
def test_what_a_full_buffer_does_not_take_is_queued_in_order(loop: Loop) -> Steps:
    one, two = pair()
    with one, two:
        data = bytearray(pattern(BIG))
        first = one.send(data)
        data[:] = bytes(BIG)  # the caller may use its buffer again
        second = one.send(b"the end")
        yield from turns()
        assert not first.done() and not second.done()
        assert (yield from receive(two, BIG + 7)) == pattern(BIG) + b"the end"
        assert (yield from first) == BIG and (yield from second) == 7
        one.send(b"at once again")
        assert (yield from two.recv(100)) == b"at once again"


@by_yield
def test_sendall_waits_until_all_is_sent(loop: Loop) -> Steps:
    one, two = pair()
    with one, two:
        sending = gen.create_task(one.sendall(pattern(BIG)))
        yield from turns()
        assert not sending.done()
        assert (yield from receive(two, BIG)) == pattern(BIG)
        assert (yield from sending) is None


@by_yield
def test_a_cancelled_wait_does_not_tear_what_is_sent(loop: Loop) -> Steps:
    one, two = pair()
    with one, two:
        sending = gen.create_task(one.sendall(pattern(BIG)))
        yield from turns()
        sending.cancel()
        yield from gen.gather(sending)
        one.send(b"next")
        assert (yield from receive(two, BIG + 4)) == pattern(BIG) + b"next"


@by_yield
def test_close_and_shutdown_come_after_what_was_sent(loop: Loop) -> Steps:
    for end in (lambda sock: sock.close()), (lambda sock: sock.shutdown(socket.SHUT_WR)):
        one, two = pair()
        one.send(pattern(BIG))
        end(one)
        assert (yield from receive_all(two)) == pattern(BIG)
        one.close()
        two.close()


@by_yield
def test_nothing_is_queued_after_close(loop: Loop) -> Steps:
    one, two = pair()
    with two:
        one.send(pattern(BIG))
        one.close()
        with pytest.raises(OSError) as of_sending:
            one.send(b"late")
        with pytest.raises(OSError) as of_waiting:
            yield from one.sendall(b"late")
        with pytest.raises(OSError) as of_shutdown:
            one.shutdown(socket.SHUT_WR)
        for caught in of_sending, of_waiting, of_shutdown:
            assert caught.value.errno == errno.EBADF
        assert (yield from receive_all(two)) == pattern(BIG)


@by_yield
def test_errors_of_sending(loop: Loop) -> Steps:
    one, two = pair()
    with one:
        queued = one.send(bytes(BIG)), one.send(b"more")
        two.close()
        for sending in queued:
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                yield from sending
        with pytest.raises(BrokenPipeError):
            one.send(b"at once")
        with pytest.raises(TypeError):
            one.send("text")
    with pytest.raises(OSError) as caught:
        one.send(b"closed")
    assert caught.value.errno == errno.EBADF


# -- what is socket.socket's --


def test_it_never_blocks() -> None:
    with GenSocket() as sock:
        assert (sock.family, sock.type, sock.proto) == (socket.AF_INET, socket.SOCK_STREAM, 0)
        assert sock.gettimeout() == 0
        sock.setblocking(False)
        sock.settimeout(0)
        with pytest.raises(ValueError, match="yield from"):
            sock.setblocking(True)
        with pytest.raises(ValueError, match="wait_for"):
            sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        assert "GenSocket" in repr(sock) and sock.fileno() >= 0
    assert sock.fileno() == -1
