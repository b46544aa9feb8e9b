"""What the tests of the Python package share."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import platform
import re
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
import textwrap
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import trustme

T = TypeVar("T")
Loop = asyncio.AbstractEventLoop

# seconds until something that should have happened is given up; only a failure takes that long
TIMEOUT = 60
CLOSING_TIMEOUT = 5  # the same, for transports that are closing
REPOSITORY = Path(__file__).resolve().parents[2]
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))  # without a GIL


def within(awaitable: Awaitable[T]) -> Awaitable[T]:
    return asyncio.wait_for(awaitable, TIMEOUT)


async def turns(count: int = 20) -> None:
    """Lets the loop turn, so that whatever it has to do already would be done. Each is a turn that
    polls: while callbacks are ready, as after sleep(0), casync skips some polls when many were
    empty."""
    for _ in range(count):
        await asyncio.sleep(1e-6)


async def until(condition: Callable[[], object]) -> None:
    """Lets the loop turn until something is true that no callback tells."""
    while not condition():
        await asyncio.sleep(0)


def once_fed(reader: asyncio.StreamReader, callback: Callable[[], object]) -> None:
    """Calls back when bytes have woken a read of the reader's, before that goes on: each turn's
    callbacks were queued before those of its I/O.
    """
    if reader._waiter is None:  # type: ignore[attr-defined]
        callback()
    else:
        asyncio.get_running_loop().call_soon(once_fed, reader, callback)


def runs_on(loop_module: ModuleType) -> None:
    """The loop that runs is loop_module's, not one that a program made for itself."""
    assert type(asyncio.get_running_loop()) is loop_module.EventLoop


def run_turns(loop: Loop, count: int = 1) -> None:
    """Runs that many turns of a loop that is not running."""
    for _ in range(count):
        loop.stop()
        loop.run_forever()


def finish(loop: Loop) -> None:
    """Closes a loop as asyncio.run does: leftovers are cancelled first."""
    if loop.is_closed():
        return
    loop.run_until_complete(cancel_leftovers())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def cancel_leftovers() -> None:
    leftovers = asyncio.all_tasks() - {asyncio.current_task()}
    for task in leftovers:
        task.cancel()
    await asyncio.gather(*leftovers, return_exceptions=True)
    loop = asyncio.get_running_loop()
    with contextlib.suppress(
        asyncio.TimeoutError
    ):  # those that nobody closed warn when they are collected
        await asyncio.wait_for(until(lambda: not open_transports(loop)), CLOSING_TIMEOUT)
    await turns(2)


def open_transports(loop: Any) -> int:
    """How many transports of a loop connection_lost has not ended; asyncio's own tells of sockets
    alone.
    """
    if hasattr(loop, "metrics"):
        return loop.metrics()["transports"]
    return sum(
        getattr(transport, "_sock", None) is not None for transport in loop._transports.values()
    )


def errors_of(loop: Loop) -> list[dict[str, Any]]:
    """The contexts that the loop's exception handler gets from now on."""
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    return errors


def collect_garbage() -> None:
    for _ in range(3):
        gc.collect()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two TCP sockets connected with each other; non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    for sock in client, server:
        sock.setblocking(False)
    return client, server


def unix_pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for sock in pair:
        sock.setblocking(False)
    return pair


class Recorder(asyncio.Protocol):
    """Writes down what its transport tells it."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.events: list[str] = []
        self.data = bytearray()
        self.error: BaseException | None = None
        self.made = loop.create_future()
        self.got_eof = loop.create_future()
        self.lost = loop.create_future()
        self._wanted: list[tuple[int, asyncio.Future[None]]] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")
        self.made.set_result(transport)

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes and data
        if self.events[-1:] != ["data"]:
            self.events.append("data")
        self.data += data
        for size, future in self._wanted:
            if len(self.data) >= size and not future.done():
                future.set_result(None)

    def eof_received(self) -> bool | None:
        self.events.append("eof")
        self.got_eof.set_result(None)
        return None

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.events.append("lost")
        self.error = exc
        self.lost.set_result(None)

    async def received(self, size: int) -> bytes:
        """Waits until at least that much has come, and gives all that came."""
        if len(self.data) < size:
            future = asyncio.get_running_loop().create_future()
            self._wanted.append((size, future))
            await future
        return bytes(self.data)


class Buffered(asyncio.BufferedProtocol):
    """A protocol with one buffer, which may be smaller than what arrives."""

    def __init__(self, size: int) -> None:
        self.buffer = bytearray(size)
        self.data = bytearray()
        self.events: list[str] = []
        self.hints: list[int] = []
        self.error: BaseException | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> Any:
        self.hints.append(sizehint)
        return memoryview(self.buffer)  # asyncio's sslproto slices it, which would copy a bytearray

    def buffer_updated(self, nbytes: int) -> None:
        assert 0 < nbytes <= len(self.buffer)
        self.data += self.buffer[:nbytes]

    def eof_received(self) -> None:
        self.events.append("eof")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.error = exc
        self.lost.set_result(None)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serves a connection: what comes goes back, until the end of the stream."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def receive_exactly(sock: socket.socket, size: int) -> bytes:
    loop, data = asyncio.get_running_loop(), bytearray()
    while len(data) < size:
        chunk = await loop.sock_recv(sock, min(1 << 16, size - len(data)))
        assert chunk, f"end of stream after {len(data)} of {size} bytes"
        data += chunk
    return bytes(data)


async def receive_all(sock: socket.socket) -> bytes:
    loop, data = asyncio.get_running_loop(), bytearray()
    while chunk := await loop.sock_recv(sock, 1 << 16):
        data += chunk
    return bytes(data)


class Contexts:
    """A certificate for localhost, and its authority: both ends' TLS contexts have it, and trust
    that.
    """

    def __init__(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.client = ssl.create_default_context()
        for context in self.server, self.client:
            certificate.configure_cert(context)
            authority.configure_trust(context)


def pattern(size: int) -> bytes:
    """Bytes in which a piece that is lost, doubled or moved shows."""
    return b"".join(i.to_bytes(4, "big") for i in range(size // 4 + 1))[:size]


def build_extension(name: str, source: str, directory: Path, include: Path) -> Path:
    """Compiles an extension module that uses casync's C API, in `directory`; returns its file."""
    file = directory / f"{name}.c"
    file.write_text(source)
    output = directory / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    headers = [f"-I{include}", f"-I{sysconfig.get_path('include')}"]
    subprocess.run(["gcc", *flags, *headers, "-o", output, file], check=True)
    return output


def python(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Starts this Python with pipes for its output (errors go to the same) and its input."""
    options.setdefault("stderr", subprocess.STDOUT)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def printed(process: subprocess.Popen[str], text: str) -> re.Match[str]:
    """Reads what a program prints until a line matches: how a server says that it listens, and
    where.
    """
    assert process.stdout
    log = []
    for line in process.stdout:
        log.append(line)
        if match := re.search(text, line):
            return match
    raise AssertionError(f"the program ended before it printed {text!r}:\n{''.join(log)}")


def start_script(loop_module: Any, code: str, *flags: str) -> subprocess.Popen[str]:
    """Starts a program in which asyncio and loop_module's new_event_loop are imported already."""
    head = "import asyncio, logging, os, signal, socket, sys, threading\n"
    # On a machine that stalls any callback may be slow: debug mode would log it among what is
    # compared.
    head += "is_fast = lambda record: 'Executing' not in str(record.msg)\n"
    head += "logging.getLogger('asyncio').addFilter(is_fast)\n"
    head += f"from {loop_module.__name__} import new_event_loop\n"
    flags = "-X", "faulthandler", "-W", "error", *flags
    return python(*flags, "-c", head + textwrap.dedent(code))


def ended(process: subprocess.Popen[str], status: int | None = 0) -> str:
    """Waits for a program to end, checks its exit status (None: any), and gives what it printed and
    printed() has not read."""
    assert process.stdout
    kill = threading.Timer(TIMEOUT, process.kill)
    kill.start()
    try:
        with process:
            if process.stdin:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
            output = (
                process.stdout.read()
            )  # communicate() would not have what printed() has read ahead
    finally:
        killed = not kill.is_alive()
        kill.cancel()
    assert not killed, f"the program did not end; its output:\n{output}"
    assert status is None or process.returncode == status, (
        f"exit status {process.returncode}\n{output}"
    )
    return output


# For scripts that run the loop inside a callback. nest_asyncio replaces asyncio's tasks with those
# written in Python. From 3.14 on these have a current_task of their own, which nest_asyncio 1.6
# does not know.
NEST_ASYNCIO = """
def apply_nest_asyncio(loop=None):
    import nest_asyncio
    nest_asyncio.apply(loop)
    if sys.version_info >= (3, 14):
        asyncio.current_task = asyncio.tasks.current_task = asyncio.tasks._py_current_task
"""


def run_script(loop_module: Any, code: str, *flags: str, status: int | None = 0) -> str:
    return ended(start_script(loop_module, code, *flags), status)


def c_command(source: Path, directory: Path) -> list[str]:
    """How a reader runs a C program: by tcc -run; where tcc is missing, a compiler builds it."""
    if shutil.which("tcc") and platform.machine() == "x86_64":
        return ["tcc", f"-I{REPOSITORY}", "-run", str(source)]
    program = str(directory / source.stem)
    build = ["cc", f"-I{REPOSITORY}", str(source), "-o", program, "-lpthread"]
    subprocess.run(build, check=True, timeout=TIMEOUT)
    return [program]
