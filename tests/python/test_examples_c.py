"""The C examples that serve, with real clients. (examples/run shows all, and checks what they
print.)
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import REPOSITORY, TIMEOUT, c_command, ended, printed

PAGE = 16 << 20  # bytes that graceful_tasks.c answers with

Server = subprocess.Popen[str]


@contextlib.contextmanager
def serving(name: str, directory: Path, *arguments: str) -> Iterator[tuple[Server, int]]:
    """An example, run as its first comment says, and the port that it listens on."""
    command = [*c_command(REPOSITORY / "examples" / f"{name}.c", directory), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            yield server, int(printed(server, r"listening on .*:(\d+)")[1])
        finally:
            server.kill()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), TIMEOUT)


def received(client: socket.socket) -> int:
    """How many bytes come up to the end."""
    count = 0
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(1 << 16):
            count += len(data)
    return count


def test_a_graceful_end_serves_everybody(tmp_path: Path) -> None:
    with (
        serving("graceful_tasks", tmp_path, "0", str(TIMEOUT)) as (server, port),
        connected(port) as answered,
        connected(port) as working,
        connected(port) as silent,
    ):
        answered.sendall(b"first\n")
        printed(
            server, "answered a request"
        )  # its task is over; most of the page cannot be on its way yet
        working.sendall(b"second\n")
        printed(server, "working on a request")
        server.send_signal(signal.SIGTERM)
        printed(server, "stopping")
        with pytest.raises(ConnectionRefusedError):
            connected(port)
        silent.shutdown(socket.SHUT_WR)  # it wants nothing, after all
        assert [received(client) for client in (silent, working, answered)] == [0, PAGE, PAGE]
        assert ended(server) == "answered a request\nall were served\n"


def test_who_does_not_read_cannot_delay_the_end_for_ever(tmp_path: Path) -> None:
    with serving("graceful_tasks", tmp_path, "0", "0") as (server, port), connected(port) as client:
        client.sendall(b"question\n")
        printed(server, "answered a request")
        server.send_signal(signal.SIGINT)
        printed(server, "stopping")
        assert ended(server) == "aborted: 1\n"
        assert received(client) < PAGE
