"""Nothing is left behind: objects, memory, references, descriptors are flat over many rounds of
each feature.

FEATURES is a table of async generators: each runs one round of a feature, yields, and runs the
next. After a warm-up `rounds` of them must leave nothing. A default run makes a tenth of the rounds
in the table; CASYNC_LEAKS=all, or `tests/run python --row leaks`, makes all; CASYNC_LEAKS=few some
for memory checkers.

A feature that grows is run on asyncio's loop too: what leaks there as well is not casync's.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import ctypes
import functools
import gc
import inspect
import io
import itertools
import os
import signal
import socket
import ssl
import struct
import sys
import tempfile
import threading
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from growth import SHARED, Growth, growth
from support import (
    FREE_THREADED,
    Loop,
    Recorder,
    collect_garbage,
    echo,
    finish,
    tcp_pair,
    turns,
    unix_pair,
    until,
)

Rounds = Any  # an async generator, for features of a loop; a generator, for loops themselves


@dataclass(frozen=True)
class Feature:
    name: str
    rounds: int
    make: Callable[[Any], Rounds]
    python: tuple[int, int]  # the first version that has it
    casync_only: bool


FEATURES: list[Feature] = []


def feature(
    rounds: int, python: tuple[int, int] = (3, 10), casync_only: bool = False
) -> Callable[[Callable[[Any], Rounds]], Callable[[Any], Rounds]]:
    """A row of the table: 100,000 rounds if they cost up to 20 us each, else as many as take some
    seconds.
    """

    def add(make: Callable[[Any], Rounds]) -> Callable[[Any], Rounds]:
        FEATURES.append(Feature(make.__name__, rounds, make, python, casync_only))
        return make

    return add


# -- what is shared by all rounds: nobody may keep a reference to it --


def callback(*args: object) -> None:
    pass


def fails(*args: object) -> None:
    raise LookupError("in a callback")


class Argument:
    pass


argument = Argument()
context = contextvars.copy_context()
variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")
payload = bytes(200_000)  # more than a socket takes at once
address = ("127.0.0.1", 9)
SHARED += [
    callback,
    fails,
    argument,
    context,
    variable,
    payload,
    address,
    Argument,
    Recorder,
    None,
    True,
]


# -- callbacks and timers --


@feature(100_000)
async def call_soon(loop: Loop) -> Rounds:
    while True:
        loop.call_soon(callback)
        loop.call_soon(callback, argument, object())
        loop.call_soon(callback, 1, 2, 3, argument, object())
        await asyncio.sleep(0)
        yield


@feature(100_000)
async def call_soon_in_a_context(loop: Loop) -> Rounds:
    while True:
        loop.call_soon(callback, context=context)
        loop.call_soon(callback, context=contextvars.copy_context())
        variable.set(object())
        loop.call_soon(variable.set, argument)
        await asyncio.sleep(0)
        yield


@feature(100_000)
async def call_soon_with_wrong_arguments(loop: Loop) -> Rounds:
    while True:
        with contextlib.suppress(TypeError):
            loop.call_soon(callback, argument, contxt=context)
        with contextlib.suppress(TypeError):
            loop.call_later(None, callback, argument)
        loop.call_at(float("nan"), callback, argument).cancel()
        yield


@feature(100_000)
async def call_soon_cancelled(loop: Loop) -> Rounds:
    while True:
        loop.call_soon(callback, argument).cancel()
        handle = loop.call_soon(callback, argument, object(), object(), object())
        loop.call_soon(handle.cancel)
        handle.cancel()
        await asyncio.sleep(0)
        yield


@feature(100_000)
async def handles_looked_at(loop: Loop) -> Rounds:
    while True:
        soon, later = loop.call_soon(callback, argument), loop.call_later(1000, callback, argument)
        reference = weakref.ref(later)
        assert later.when() and later == later and hash(later) and not later.cancelled()
        assert "callback" in repr(soon) and "callback" in repr(reference())
        later.cancel()
        await asyncio.sleep(0)
        yield


@feature(100_000)
async def call_later_that_fires(loop: Loop) -> Rounds:
    while True:
        loop.call_later(0, callback, argument)
        loop.call_at(loop.time() - 1, callback, argument, object(), object(), object())
        await turns(1)
        yield


@feature(100_000)
async def call_later_cancelled(loop: Loop) -> Rounds:
    while True:
        loop.call_later(1000, callback, argument).cancel()
        loop.call_at(loop.time() + 1e-3, callback, argument, object()).cancel()
        loop.call_later(float("inf"), callback, argument).cancel()
        yield


@feature(100_000)
async def call_soon_threadsafe(loop: Loop) -> Rounds:
    while True:
        loop.call_soon_threadsafe(callback, argument, object())
        loop.call_soon_threadsafe(callback, argument).cancel()
        await asyncio.sleep(0)
        yield


@feature(10_000)
async def call_soon_from_a_thread(loop: Loop) -> Rounds:
    while True:
        woken = loop.create_future()
        thread = threading.Thread(
            target=loop.call_soon_threadsafe, args=(woken.set_result, argument)
        )
        thread.start()
        await woken
        thread.join()
        yield


@feature(100_000)
async def callbacks_that_raise(loop: Loop) -> Rounds:
    loop.set_exception_handler(callback)
    while True:
        loop.call_soon(fails, argument)
        loop.call_later(0, fails, argument, object())
        await turns(1)
        yield


@feature(100_000)
async def exception_handlers_that_raise(loop: Loop) -> Rounds:
    import logging

    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    loop.set_exception_handler(fails)
    try:
        while True:
            loop.call_soon(fails, argument)
            loop.call_exception_handler({"message": "of the test", "argument": argument})
            await asyncio.sleep(0)
            yield
    finally:
        logging.getLogger("asyncio").setLevel(logging.NOTSET)


@feature(10_000)
async def debug_mode(loop: Loop) -> Rounds:
    loop.slow_callback_duration = 1e9
    while True:
        loop.set_debug(True)
        loop.call_soon(callback, argument)
        loop.call_later(0, callback, argument)
        loop.call_later(1000, callback, argument).cancel()
        loop.call_soon_threadsafe(callback, argument)
        await turns(1)
        loop.set_debug(False)
        yield


# -- futures and tasks --


@feature(100_000)
async def create_future(loop: Loop) -> Rounds:
    while True:
        done, failed, cancelled = loop.create_future(), loop.create_future(), loop.create_future()
        loop.call_soon(done.set_result, argument)
        assert await done is argument
        failed.set_exception(LookupError())
        failed.add_done_callback(callback)
        with contextlib.suppress(LookupError):
            await failed
        cancelled.cancel()
        yield


async def nothing() -> None:
    pass


async def sleeps() -> object:
    await asyncio.sleep(0)
    return argument


async def raises() -> None:
    await asyncio.sleep(0)
    raise LookupError


@feature(100_000)
async def tasks_that_end(loop: Loop) -> Rounds:
    while True:
        await loop.create_task(nothing())
        await loop.create_task(sleeps(), name="named")
        yield


@feature(100_000, python=(3, 11))
async def tasks_in_a_context(loop: Loop) -> Rounds:
    while True:
        await loop.create_task(sleeps(), context=context)
        await loop.create_task(sleeps(), name="named", context=contextvars.copy_context())
        yield


@feature(100_000)
async def tasks_that_fail(loop: Loop) -> Rounds:
    while True:
        with contextlib.suppress(LookupError):
            await loop.create_task(raises())
        yield


@feature(100_000)
async def tasks_cancelled(loop: Loop) -> Rounds:
    while True:
        task = loop.create_task(asyncio.sleep(1000))
        loop.create_task(nothing()).cancel()
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        yield


@feature(20_000)
async def tasks_nobody_awaits(loop: Loop) -> Rounds:
    loop.set_exception_handler(callback)
    while True:
        loop.create_task(raises())
        loop.create_task(sleeps())
        await turns(2)
        yield


@feature(100_000, python=(3, 12))
async def eager_tasks(loop: Loop) -> Rounds:
    loop.set_task_factory(asyncio.eager_task_factory)
    while True:
        await loop.create_task(nothing())
        await loop.create_task(sleeps())
        yield


@feature(100_000)
async def task_factories(loop: Loop) -> Rounds:
    def factory(loop: Loop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coroutine, loop=loop, **options)

    while True:
        loop.set_task_factory(factory)
        await loop.create_task(sleeps())
        loop.set_task_factory(None)
        yield


@feature(100_000)
async def sleep(loop: Loop) -> Rounds:
    while True:
        await asyncio.sleep(0)
        await asyncio.sleep(1e-9, argument)
        yield


@feature(50_000)
async def wait_for(loop: Loop) -> Rounds:
    while True:
        await asyncio.wait_for(sleeps(), 1000)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(loop.create_future(), 1e-9)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(loop.create_future()), 0)
        yield


@feature(20_000)
async def gather(loop: Loop) -> Rounds:
    while True:
        await asyncio.gather(*(sleeps() for _ in range(10)))
        await asyncio.gather(raises(), sleeps(), return_exceptions=True)
        with contextlib.suppress(LookupError):
            await asyncio.gather(raises(), sleeps())
        await asyncio.sleep(0)
        yield


@feature(50_000)
async def wait(loop: Loop) -> Rounds:
    while True:
        tasks = [loop.create_task(sleeps()) for _ in range(3)]
        await asyncio.wait(tasks, timeout=1000, return_when=asyncio.FIRST_COMPLETED)
        for each in asyncio.as_completed(tasks):
            await each
        yield


@feature(50_000, python=(3, 11))
async def task_groups(loop: Loop) -> Rounds:
    while True:
        async with asyncio.TaskGroup() as group:
            group.create_task(sleeps())
            group.create_task(sleeps())
        try:
            async with asyncio.timeout(1000), asyncio.TaskGroup() as group:
                group.create_task(raises())
                group.create_task(asyncio.sleep(1000))
        except Exception:
            pass
        yield


@feature(100_000)
async def async_generators(loop: Loop) -> Rounds:
    async def numbers() -> AsyncGenerator[int, None]:
        for i in range(10):
            yield i

    while True:
        async for number in numbers():
            if number == 3:
                break
        await turns(1)
        yield


@feature(100_000)
async def queues_and_locks(loop: Loop) -> Rounds:
    while True:
        queue: asyncio.Queue[object] = asyncio.Queue(1)
        putting = loop.create_task(queue.put(argument))
        assert await queue.get() is argument
        await putting
        async with asyncio.Lock():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 1e-9)
        yield


# -- threads, signals, names, programs --


@feature(20_000)
async def run_in_executor(loop: Loop) -> Rounds:
    while True:
        await loop.run_in_executor(None, callback, argument)
        with contextlib.suppress(LookupError):
            await loop.run_in_executor(None, fails, argument)
        yield


@feature(20_000)
async def getaddrinfo(loop: Loop) -> Rounds:
    while True:
        await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        yield


@feature(10_000)
async def signal_handlers(loop: Loop) -> Rounds:
    while True:
        caught = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, caught.set_result, argument)
        os.kill(os.getpid(), signal.SIGUSR1)
        await caught
        loop.remove_signal_handler(signal.SIGUSR1)
        yield


@feature(400)
async def subprocesses(loop: Loop) -> Rounds:
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    while True:
        process = await asyncio.create_subprocess_exec("cat", **pipes)
        output, _ = await process.communicate(b"hello")
        assert output == b"hello"
        with contextlib.suppress(FileNotFoundError):
            await asyncio.create_subprocess_exec("/nowhere/program", **pipes)
        await turns(2)
        yield


# -- watchers and sock_* --


@feature(100_000)
async def readers_and_writers(loop: Loop) -> Rounds:
    ours, theirs = unix_pair()
    with ours, theirs:
        while True:
            readable, writable = loop.create_future(), loop.create_future()
            loop.add_reader(ours, callback, argument)
            loop.add_reader(ours, lambda future: future.done() or future.set_result(None), readable)
            loop.add_writer(ours, lambda future: future.done() or future.set_result(None), writable)
            theirs.send(b"x")
            await readable
            await writable
            assert ours.recv(1) == b"x"
            loop.remove_reader(ours)
            loop.remove_writer(ours)
            yield


@feature(50_000)
async def descriptors_watched_once(loop: Loop) -> Rounds:
    while True:
        reading, writing = os.pipe()
        loop.add_reader(reading, callback, argument)
        loop.add_writer(writing, callback, argument)
        with contextlib.suppress(OSError, ValueError):
            loop.add_reader(-1, callback, argument)
        with contextlib.suppress(OSError), open("/proc/self/stat") as file:
            loop.add_reader(file, callback, argument)  # epoll takes no files
        await asyncio.sleep(0)
        loop.remove_reader(reading)
        loop.remove_writer(writing)
        os.close(reading)
        os.close(writing)
        yield


@feature(50_000)
async def sock_recv_and_sendall(loop: Loop) -> Rounds:
    ours, theirs = unix_pair()
    buffer = bytearray(100)
    with ours, theirs:
        while True:
            receiving = loop.create_task(loop.sock_recv(ours, 10))
            await asyncio.sleep(0)
            await loop.sock_sendall(theirs, b"x")
            await receiving
            receiving = loop.create_task(loop.sock_recv_into(ours, buffer))
            await asyncio.sleep(0)
            theirs.send(b"y")
            await receiving
            yield


@feature(20_000)
async def sock_methods_cancelled(loop: Loop) -> Rounds:
    while True:
        ours, theirs = unix_pair()
        with ours, theirs:
            receiving = loop.create_task(loop.sock_recv(ours, 10))
            sending = loop.create_task(loop.sock_sendall(ours, payload * 3))
            await asyncio.sleep(0)
            receiving.cancel()
            sending.cancel()
            await asyncio.wait([receiving, sending])
        yield


@feature(10_000)
async def sock_accept_and_connect(loop: Loop) -> Rounds:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as refusing:
        listener.setblocking(False)
        refusing.bind(("127.0.0.1", 0))
        while True:
            with socket.socket() as client:
                client.setblocking(False)
                accepting = loop.create_task(loop.sock_accept(listener))
                await loop.sock_connect(client, listener.getsockname())
                (await accepting)[0].close()
            with socket.socket() as client, contextlib.suppress(ConnectionRefusedError):
                client.setblocking(False)
                await loop.sock_connect(client, refusing.getsockname())
            yield


@feature(100_000, python=(3, 11))
async def sock_datagrams(loop: Loop) -> Rounds:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as ours,
        socket.socket(type=socket.SOCK_DGRAM) as theirs,
    ):
        for sock in ours, theirs:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        while True:
            receiving = loop.create_task(loop.sock_recvfrom(ours, 10))
            await asyncio.sleep(0)
            await loop.sock_sendto(theirs, b"x", ours.getsockname())
            await receiving
            yield


@feature(10_000)
async def sock_sendfile(loop: Loop) -> Rounds:
    with tempfile.TemporaryFile() as file:
        file.write(payload)
        while True:
            ours, theirs = unix_pair()
            with ours, theirs:
                sending = loop.create_task(loop.sock_sendfile(ours, file))
                left = len(payload)
                while left > 0:
                    left -= len(await loop.sock_recv(theirs, 1 << 16))
                await sending
            yield


# -- stream transports and protocols --


async def connect(
    loop: Loop, sock: socket.socket, protocol: Callable[[], Any] = Recorder
) -> tuple[Any, Any]:
    return await loop.create_connection(protocol, sock=sock)


@contextlib.asynccontextmanager
async def connected(loop: Loop, sock: socket.socket) -> AsyncGenerator[tuple[Any, Any], None]:
    transport, protocol = await connect(loop, sock)
    try:
        yield transport, protocol
    finally:
        transport.set_protocol(protocol)
        transport.abort()
        await protocol.lost


async def exchange(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    (one, first), (two, second) = await connect(loop, pair[0]), await connect(loop, pair[1])
    one.write(b"x" * 10)
    await second.received(10)
    two.writelines([payload, bytearray(10)])
    await first.received(len(payload) + 10)
    two.close()
    await first.lost
    await second.lost


@feature(4_000)
async def tcp_connections(loop: Loop) -> Rounds:
    while True:
        await exchange(loop, tcp_pair())
        yield


@feature(10_000)
async def unix_connections(loop: Loop) -> Rounds:
    while True:
        await exchange(loop, unix_pair())
        yield


class Buffered(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self.buffer = bytearray(100)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        pass

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(None)


@feature(20_000)
async def buffered_protocols(loop: Loop) -> Rounds:
    while True:
        ours, theirs = unix_pair()
        _, protocol = await connect(loop, ours, Buffered)
        theirs.send(bytes(1000))
        theirs.close()
        await protocol.lost
        yield


@feature(100_000)
async def messages(loop: Loop) -> Rounds:
    ours, theirs = unix_pair()
    async with connected(loop, ours) as (one, _), connected(loop, theirs) as (_, second):
        while True:
            one.write(b"x" * 10)
            one.write(bytearray(10))
            one.write(memoryview(payload)[:5000])
            await second.received(5020)
            second.data.clear()
            second._wanted.clear()
            yield


@feature(5_000)
async def large_writes_to_a_slow_reader(loop: Loop) -> Rounds:
    ours, theirs = unix_pair()
    with theirs:
        async with connected(loop, ours) as (transport, protocol):
            while True:
                for data in payload, memoryview(payload), bytearray(payload):
                    transport.write(data)
                transport.writelines([payload, bytearray(10)])
                left = 4 * len(payload) + 10
                while left > 0:
                    left -= len(await loop.sock_recv(theirs, 1 << 17))
                await asyncio.sleep(0)
                protocol.events.clear()
                yield


@feature(20_000)
async def aborted_connections(loop: Loop) -> Rounds:
    while True:
        ours, theirs = unix_pair()
        with theirs:
            transport, protocol = await connect(loop, ours)
            transport.pause_reading()
            for data in payload, bytearray(1000), memoryview(payload), payload:
                transport.write(data)
            transport.abort()
            await protocol.lost
        yield


def reset(sock: socket.socket) -> None:
    """Closes a TCP connection by RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@feature(5_000)
async def connections_reset_by_the_peer(loop: Loop) -> Rounds:
    while True:
        ours, theirs = tcp_pair()
        transport, protocol = await connect(loop, ours)
        transport.write(payload)
        reset(theirs)
        await protocol.lost
        for _ in range(3):
            transport.write(payload)
        protocol.error = None
        yield


@feature(20_000)
async def connections_refused(loop: Loop) -> Rounds:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                await loop.create_connection(Recorder, *unused.getsockname())
            yield


@feature(20_000)
async def half_closed_connections(loop: Loop) -> Rounds:
    class KeepsOpen(Recorder):
        def eof_received(self) -> bool:
            super().eof_received()
            return True

    while True:
        ours, theirs = unix_pair()
        with theirs:
            transport, protocol = await connect(loop, ours, KeepsOpen)
            theirs.shutdown(socket.SHUT_WR)
            await protocol.got_eof
            transport.write(b"x")
            transport.write_eof()
            transport.close()
            await protocol.lost
        yield


@feature(50_000)
async def transports_looked_at(loop: Loop) -> Rounds:
    ours, theirs = tcp_pair()
    with theirs:
        async with connected(loop, ours) as (transport, _):
            while True:
                for name in "socket", "sockname", "peername", "other":
                    transport.get_extra_info(name, argument)
                transport.set_write_buffer_limits(high=1000)
                transport.pause_reading()
                transport.resume_reading()
                transport.set_protocol(Buffered())
                transport.set_protocol(Recorder())
                transport.attribute = argument
                del transport.attribute
                with contextlib.suppress(TypeError):
                    transport.write(argument)
                with contextlib.suppress(TypeError):
                    transport.writelines([b"", argument])
                with contextlib.suppress(RuntimeError):
                    loop.add_reader(theirs if transport.is_closing() else ours, callback)
                reference = weakref.ref(transport)
                assert reference() is transport and repr(transport)
                assert (
                    transport.get_write_buffer_size() == 0 and transport.get_write_buffer_limits()
                )
                yield


class Failing(Recorder):
    """Raises in the one method that is chosen."""

    failing = "data_received"

    def raise_in(self, method: str) -> None:
        if method == self.failing:
            raise LookupError(method)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.raise_in("connection_made")

    def data_received(self, data: bytes) -> None:
        self.raise_in("data_received")

    def eof_received(self) -> None:
        self.raise_in("eof_received")

    def pause_writing(self) -> None:
        self.raise_in("pause_writing")

    def resume_writing(self) -> None:
        self.raise_in("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(None)
        self.raise_in("connection_lost")


@feature(1_000)
async def protocols_that_raise(loop: Loop) -> Rounds:
    methods = [
        name for name in vars(Failing) if name in dir(asyncio.Protocol) and not name.startswith("_")
    ]
    loop.set_exception_handler(callback)
    while True:
        for method in methods:
            Failing.failing = method
            ours, theirs = unix_pair()
            with theirs:
                transport, protocol = await connect(loop, ours, Failing)
                transport.write(payload * 2)
                theirs.send(b"x")
                theirs.shutdown(socket.SHUT_WR)
                await turns(2)
                theirs.close()
                await protocol.lost
        yield


class FailingBuffers(Buffered):
    def get_buffer(self, sizehint: int) -> Any:
        return argument


class FailingUpdates(Buffered):
    def buffer_updated(self, nbytes: int) -> None:
        raise LookupError


class EmptyBuffers(Buffered):
    def get_buffer(self, sizehint: int) -> bytearray:
        return bytearray()


@feature(4_000)
async def buffered_protocols_that_raise(loop: Loop) -> Rounds:
    loop.set_exception_handler(callback)
    while True:
        for kind in FailingBuffers, FailingUpdates, EmptyBuffers:
            ours, theirs = unix_pair()
            with theirs:
                _, protocol = await connect(loop, ours, kind)
                theirs.send(b"x")
                await protocol.lost
        yield


@feature(5_000)
async def sendfile(loop: Loop) -> Rounds:
    with tempfile.TemporaryFile() as file:
        file.write(payload)
        while True:
            ours, theirs = unix_pair()
            (one, first), (_, second) = await connect(loop, ours), await connect(loop, theirs)
            await loop.sendfile(one, file)
            one.close()
            await second.lost
            await first.lost
            yield


# -- the streams API --


@contextlib.asynccontextmanager
async def stream(
    sock: socket.socket, **options: Any
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter], None]:
    reader, writer = await asyncio.open_connection(sock=sock, **options)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@feature(100_000)
async def reads(loop: Loop) -> Rounds:
    ours, theirs = unix_pair()
    with theirs:
        async with stream(ours) as (reader, _):
            while True:
                theirs.send(b"some")
                await reader.read(100)
                theirs.send(b"exactlyline\nuntil;")
                await reader.readexactly(7)
                await reader.readline()
                await reader.readuntil(b";")
                await reader.read(0)
                yield


@feature(40_000)
async def reads_that_wait(loop: Loop) -> Rounds:
    ours, theirs = unix_pair()
    with theirs:
        async with stream(ours) as (reader, _):
            while True:
                for operation in (
                    reader.read(100),
                    reader.readexactly(3),
                    reader.readline(),
                    reader.readuntil(b"\n"),
                ):
                    task = loop.create_task(operation)
                    await asyncio.sleep(0)
                    theirs.send(b"ab\n")
                    await task
                yield


@feature(50_000)
async def reads_cancelled(loop: Loop) -> Rounds:
    ours, theirs = unix_pair()
    with theirs:
        async with stream(ours) as (reader, _):
            while True:
                for read in reader.read, reader.readexactly:
                    task = loop.create_task(read(5))
                    await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait([task])
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(reader.readline(), 1e-9)
                reader.readline().close()
                operation = reader.read(5)
                operation.send(None)
                operation.close()
                yield


@feature(5_000)
async def reads_that_fail(loop: Loop) -> Rounds:
    while True:
        ours, theirs = unix_pair()
        async with stream(ours, limit=10) as (reader, _):
            theirs.send(b"longer than the limit;")
            with contextlib.suppress(ValueError):
                await reader.readline()
            theirs.send(b"longer than the limit;")
            with contextlib.suppress(asyncio.LimitOverrunError):
                await reader.readuntil(b";")
            theirs.close()
            with contextlib.suppress(asyncio.IncompleteReadError):
                await reader.readexactly(100)
            with contextlib.suppress(ValueError):
                await reader.readexactly(-1)
            assert await reader.read() == b""
        yield


@feature(2_000)
async def streams_that_are_reset(loop: Loop) -> Rounds:
    while True:
        ours, theirs = tcp_pair()
        async with stream(ours) as (reader, writer):
            reset(theirs)
            with contextlib.suppress(ConnectionResetError):
                await reader.read(1)
            with contextlib.suppress(ConnectionResetError):
                writer.write(b"x")
                await writer.drain()
        yield


@feature(10_000)
async def drain(loop: Loop) -> Rounds:
    ours, theirs = unix_pair()
    with theirs:
        async with stream(ours) as (_, writer):
            while True:
                writer.write(b"x")
                await writer.drain()
                writer.write(payload * 2)
                draining = loop.create_task(writer.drain())
                left = 1 + 2 * len(payload)
                while left > 0:
                    left -= len(await loop.sock_recv(theirs, 1 << 17))
                await draining
                yield


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"line\n" + bytes(100_000))
    assert await reader.readline() == b"line\n"
    await reader.readexactly(100_000)
    writer.write_eof() if writer.can_write_eof() else writer.close()
    await reader.read()
    writer.close()
    await writer.wait_closed()


@feature(3_000)
async def stream_servers(loop: Loop) -> Rounds:
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        while True:
            await talk(*await asyncio.open_connection(*server.sockets[0].getsockname()))
            await turns(1)
            yield


@feature(3_000)
async def unix_stream_servers(loop: Loop) -> Rounds:
    with tempfile.TemporaryDirectory() as directory:
        async with await asyncio.start_unix_server(echo, f"{directory}/socket") as server:
            while True:
                await talk(*await asyncio.open_unix_connection(server.sockets[0].getsockname()))
                await turns(1)
                yield


# -- servers --


@feature(20_000)
async def servers(loop: Loop) -> Rounds:
    while True:
        server = await loop.create_server(Recorder, "127.0.0.1", 0)
        assert server.sockets and repr(server)
        server.close()
        await server.wait_closed()
        yield


@feature(10_000)
async def connections_dropped_at_once(loop: Loop) -> Rounds:
    made: list[Any] = []

    class Dropping(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            made.append(self)
            transport.abort()

    async with await loop.create_server(Dropping, "127.0.0.1", 0) as server:
        while True:
            _, protocol = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
            await protocol.lost
            await until(lambda: made)
            await made.pop().lost
            protocol.error = None
            yield


@feature(10_000)
async def factories_that_raise(loop: Loop) -> Rounds:
    loop.set_exception_handler(callback)
    async with await loop.create_server(fails, "127.0.0.1", 0) as server:
        while True:
            _, protocol = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
            await protocol.lost
            protocol.error = None
            yield


@feature(1_000, python=(3, 13))
async def servers_that_end_their_clients(loop: Loop) -> Rounds:
    while True:
        for end in asyncio.Server.close_clients, asyncio.Server.abort_clients:
            made: list[Any] = []
            server = await loop.create_server(
                lambda made=made: made.append(Recorder()) or made[0], "127.0.0.1", 0
            )
            _, protocol = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
            await until(lambda made=made: made)
            await made[0].made
            server.close()
            end(server)
            await server.wait_closed()
            await protocol.lost
            await made[0].lost
            protocol.error = None
        yield


@feature(10_000)
async def connect_accepted_socket(loop: Loop) -> Rounds:
    while True:
        ours, theirs = unix_pair()
        with theirs:
            transport, protocol = await loop.connect_accepted_socket(Recorder, ours)
            transport.close()
            await protocol.lost
        yield


# -- TLS --


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    import trustme

    authority = trustme.CA()
    server, client = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@feature(400)
async def tls_streams(loop: Loop) -> Rounds:
    server_context, client_context = tls_contexts()
    async with await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context) as server:
        while True:
            location = server.sockets[0].getsockname()
            await talk(*await asyncio.open_connection(*location, ssl=client_context))
            await turns(3)
            yield


@feature(200)
async def tls_handshakes_that_fail(loop: Loop) -> Rounds:
    server_context, _ = tls_contexts()
    loop.set_exception_handler(callback)
    untrusting = ssl.create_default_context()
    async with await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context) as server:
        while True:
            with contextlib.suppress(ssl.SSLError):
                await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=untrusting)
            with contextlib.suppress(ConnectionError):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"not TLS at all")
                await reader.read()
                writer.close()
                await writer.wait_closed()
            await turns(3)
            yield


@feature(400)
async def start_tls(loop: Loop) -> Rounds:
    server_context, client_context = tls_contexts()
    while True:
        (one, first), (two, second) = [await connect(loop, sock) for sock in tcp_pair()]
        secured = await asyncio.gather(
            loop.start_tls(one, first, server_context, server_side=True),
            loop.start_tls(two, second, client_context, server_hostname="localhost"),
        )
        secured[0].write(b"hello")
        await second.received(5)
        for transport in secured:
            transport.close()
        await first.lost
        await second.lost
        yield


# -- datagrams and pipes --


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.received, self.failed, self.lost = (loop.create_future() for _ in range(3))

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.received.set_result(addr)

    def error_received(self, exc: OSError) -> None:
        if not self.failed.done():
            self.failed.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(None)


@feature(5_000)
async def datagram_endpoints(loop: Loop) -> Rounds:
    local = {"local_addr": ("127.0.0.1", 0)}
    while True:
        server, received = await loop.create_datagram_endpoint(Datagrams, **local)
        client, answered = await loop.create_datagram_endpoint(Datagrams, **local)
        client.sendto(b"question", server.get_extra_info("sockname"))
        server.sendto(b"answer", await received.received)
        await answered.received
        with contextlib.suppress(TypeError):
            client.sendto(argument, address)
        for transport, protocol in (server, received), (client, answered):
            assert repr(transport) and transport.get_extra_info("socket")
            transport.close()
            await protocol.lost
        yield


@feature(100_000)
async def datagrams(loop: Loop) -> Rounds:
    local = {"local_addr": ("127.0.0.1", 0)}
    sender, sends = await loop.create_datagram_endpoint(Datagrams, **local)
    receiver, receives = await loop.create_datagram_endpoint(Datagrams, **local)
    try:
        while True:
            receives.received = loop.create_future()
            sender.sendto(b"x", receiver.get_extra_info("sockname"))
            await receives.received
            yield
    finally:
        sender.close()
        receiver.close()
        await asyncio.wait([sends.lost, receives.lost])


@feature(10_000)
async def datagrams_that_fail(loop: Loop) -> Rounds:
    loop.set_exception_handler(callback)
    with socket.socket(type=socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.connect(address)  # whatever comes from elsewhere is refused
        while True:
            remote = {"remote_addr": deaf.getsockname()}
            transport, protocol = await loop.create_datagram_endpoint(Datagrams, **remote)
            with contextlib.suppress(ValueError):
                transport.sendto(b"x", address)
            transport.sendto(b"x")
            await protocol.failed
            transport.sendto(bytes(100_000))  # too long
            transport.abort()
            await protocol.lost
            local = {"local_addr": ("127.0.0.1", 0)}
            transport, protocol = await loop.create_datagram_endpoint(Datagrams, **local)
            transport.sendto(b"x", ("127.0.0.1", argument))
            await protocol.lost
            yield


@feature(20_000)
async def unix_datagrams(loop: Loop) -> Rounds:
    while True:
        ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
        ours.setblocking(False)
        with theirs:
            transport, protocol = await loop.create_datagram_endpoint(Datagrams, sock=ours)
            theirs.send(b"x")
            await protocol.received
            transport.sendto(b"y")
            transport.close()
            await protocol.lost
        yield


@feature(20_000)
async def pipes(loop: Loop) -> Rounds:
    while True:
        reading, writing = os.pipe()
        reader, received = await loop.connect_read_pipe(Recorder, os.fdopen(reading, "rb", 0))
        writer, sent = await loop.connect_write_pipe(Recorder, os.fdopen(writing, "wb", 0))
        assert repr(reader) and repr(writer) and reader.get_extra_info("pipe")
        writer.write(bytes(100_000))
        await received.received(100_000)
        writer.close()
        await asyncio.wait([received.lost, sent.lost])
        yield


@feature(40_000)
async def pipes_that_break(loop: Loop) -> Rounds:
    while True:
        reading, writing = os.pipe()
        writer, sent = await loop.connect_write_pipe(Recorder, os.fdopen(writing, "wb", 0))
        writer.write(payload)
        os.close(reading)
        await sent.lost
        sent.error = None
        yield


# -- what only casync has --


@feature(100_000, casync_only=True)
async def metrics(loop: Loop) -> Rounds:
    while True:
        loop.call_soon(callback, argument)
        assert loop.metrics()["ready"]
        await asyncio.sleep(0)
        yield


@feature(40_000, casync_only=True)
async def trace(loop: Loop) -> Rounds:
    import casync.trace

    while True:
        with casync.trace.observe(loop, casync.trace.ChromeTrace(), casync.trace.SlowCallbacks()):
            loop.call_soon(callback, argument)
            loop.call_later(1000, callback, argument).cancel()
            await loop.create_task(sleeps())
        yield


@feature(50_000, casync_only=True)
async def dump_tasks(loop: Loop) -> Rounds:
    import casync

    while True:
        task = loop.create_task(asyncio.sleep(0))
        casync.dump_tasks(file=io.StringIO())
        await task
        yield


@feature(100_000, casync_only=True)
async def generators(loop: Loop) -> Rounds:
    from casync import gen

    def returns() -> Iterator[Any]:
        yield from gen.sleep(0)
        return argument

    def raises() -> Iterator[Any]:
        yield
        raise LookupError

    while True:
        assert await gen.create_task(returns()) is argument
        with contextlib.suppress(LookupError):
            await gen.create_task(raises())
        cancelled = gen.create_task(gen.Event().wait())
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        yield


@feature(20_000, casync_only=True)
async def generator_sockets(loop: Loop) -> Rounds:
    from casync import gen
    from casync.gen.gensocket import GenSocket

    def send(sock: GenSocket) -> Iterator[Any]:
        yield from sock.sendall(b"x" * 10)
        with lock as held:
            yield from held
            yield from queue.put(argument)

    def receive(sock: GenSocket) -> Iterator[Any]:
        assert (yield from sock.recv(100)) == b"x" * 10
        assert (yield from queue.get()) is argument
        yield from sock.recv(100)  # nothing comes

    lock, queue = gen.Lock(), gen.Queue(1)
    while True:
        one, two = (GenSocket(fileno=sock.detach()) for sock in socket.socketpair())
        with one, two:
            receiving = gen.create_task(receive(two))
            await gen.create_task(send(one))
            await turns(2)
            receiving.cancel()
            await asyncio.wait([receiving])
        yield


# -- loops --


@feature(100_000)
def loops_made_and_closed(loop_module: ModuleType) -> Rounds:
    while True:
        loop_module.new_event_loop().close()
        yield


@feature(20_000)
def loops_that_run(loop_module: ModuleType) -> Rounds:
    while True:
        loop = loop_module.new_event_loop()
        assert loop.run_until_complete(sleeps()) is argument
        with contextlib.suppress(LookupError):
            loop.run_until_complete(raises())
        loop.call_soon(sys.exit, 0)
        with contextlib.suppress(SystemExit):
            loop.run_forever()
        loop.close()
        yield


async def leave_connections(loop: Loop) -> object:
    """Everything that a loop may still have when it is closed, or dropped."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(payload)
    ours, theirs = unix_pair()
    transport, protocol = await connect(loop, ours)
    transport.write(payload * 3)
    transport.cycle = protocol.cycle = transport, protocol, loop
    reading, writing = os.pipe()
    pipe, _ = await loop.connect_read_pipe(Recorder, os.fdopen(reading, "rb", 0))
    datagrams, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    loop.add_reader(theirs, callback, transport)
    os.close(writing)
    loop.call_later(1000, callback, loop, transport, server, object(), object())
    loop.call_soon(callback, loop, writer, pipe, datagrams)
    loop.call_soon_threadsafe(callback, loop)
    return theirs


@feature(1_000)
def loops_closed_with_everything_open(loop_module: ModuleType) -> Rounds:
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            loop = loop_module.new_event_loop()
            loop.set_exception_handler(callback)
            kept = loop.run_until_complete(leave_connections(loop))
            loop.close()
            del loop, kept
            gc.collect()
        yield


@feature(1_000)
def loops_dropped_with_everything_open(loop_module: ModuleType) -> Rounds:
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            loop = loop_module.new_event_loop()
            loop.set_exception_handler(callback)
            kept = loop.run_until_complete(leave_connections(loop))
            del loop, kept
            gc.collect()
        yield


@feature(5_000)
def loops_in_threads(loop_module: ModuleType) -> Rounds:
    def run() -> None:
        loop.run_forever()
        loop.close()

    while True:
        loop = loop_module.new_event_loop()
        thread = threading.Thread(target=run)
        thread.start()
        loop.call_soon_threadsafe(callback, argument)
        asyncio.run_coroutine_threadsafe(sleeps(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        yield


@feature(5_000, casync_only=True)
def run(casync: ModuleType) -> Rounds:
    from casync import gen

    def generator() -> Iterator[Any]:
        yield
        return argument

    while True:
        assert casync.run(sleeps()) is argument
        assert gen.run(generator()) is argument
        yield


@feature(20_000, casync_only=True)
def loops_with_virtual_time(casync: ModuleType) -> Rounds:
    from casync.testing import DeadlockError, VirtualTimeLoop

    async def waits_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    while True:
        loop = VirtualTimeLoop()
        loop.run_until_complete(asyncio.sleep(3600))
        task = loop.create_task(waits_for_ever())
        with contextlib.suppress(DeadlockError):
            loop.run_until_complete(task)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()
        yield


# -- every feature --


def growth_of(each: Feature, loop_module: ModuleType) -> Growth:
    """Of the rounds on one loop, in one coroutine; or of those that make loops of their own."""
    rounds = rounds_of(each)
    if not inspect.isasyncgenfunction(each.make):
        generator = each.make(loop_module)
        return growth(
            lambda count: collections.deque(itertools.islice(generator, count), 0), rounds
        )
    loop = loop_module.new_event_loop()
    generator = each.make(loop)

    async def run(count: int) -> None:
        for _ in range(count):
            await generator.__anext__()

    try:
        return growth(lambda count: loop.run_until_complete(run(count)), rounds)
    finally:
        loop.run_until_complete(generator.aclose())
        finish(loop)


def rounds_of(each: Feature) -> int:
    wanted = os.environ.get("CASYNC_LEAKS")
    return (
        each.rounds if wanted == "all" else 50 if wanted == "few" else max(each.rounds // 10, 100)
    )


@pytest.mark.parametrize("each", FEATURES, ids=[each.name for each in FEATURES])
def test_nothing_is_left_of(casync: ModuleType, each: Feature) -> None:
    if sys.version_info < each.python:
        pytest.skip(f"new in Python {each.python[0]}.{each.python[1]}")
    ours = growth_of(each, casync)
    if ours.leaks() and not each.casync_only:
        theirs = growth_of(each, asyncio)
        assert ours.leaks() <= theirs.leaks(), (ours, theirs)
    else:
        assert not ours.leaks(), ours


kept: list[Any] = []
LEAKS: dict[str, Callable[[], object]] = {
    "objects": lambda: kept.append([]),
    "blocks": lambda: kept.append(float(len(kept))),
    "references": lambda: ctypes.pythonapi.Py_IncRef(ctypes.py_object(argument)),
    "descriptors": lambda: kept.append(os.dup(0)),
    "malloced": lambda: kept.append(bytes(1000)),
}


@pytest.mark.parametrize("what", LEAKS)
def test_a_leak_shows(what: str) -> None:
    if what in ("blocks", "malloced") and sys.getallocatedblocks() == 0:
        pytest.skip("a memory checker's malloc does not count")
    if what == "malloced" and FREE_THREADED:
        pytest.skip("Python's memory comes from mimalloc")

    def run(count: int) -> None:
        for _ in range(count):
            LEAKS[what]()

    grown = growth(run, 100)
    if what == "descriptors":
        for descriptor in kept:
            os.close(descriptor)
    kept.clear()
    assert what in grown.leaks(), grown


# -- what nobody closed --


async def open_transport(loop: Loop, kind: str) -> tuple[Any, Any, Any]:
    """A transport of a kind, its protocol, and the other end, all in a cycle."""
    other: Any = None
    if kind == "datagram":
        transport, protocol = await loop.create_datagram_endpoint(
            Datagrams, local_addr=("127.0.0.1", 0)
        )
    elif kind == "read pipe":
        reading, other = os.pipe()
        transport, protocol = await loop.connect_read_pipe(Recorder, os.fdopen(reading, "rb", 0))
    elif kind == "write pipe":
        other, writing = os.pipe()
        transport, protocol = await loop.connect_write_pipe(Recorder, os.fdopen(writing, "wb", 0))
        transport.write(payload)
    elif kind == "TLS":
        server_context, client_context = tls_contexts()
        (one, first), (two, second) = [await connect(loop, sock) for sock in tcp_pair()]
        transport, _ = await asyncio.gather(
            loop.start_tls(one, first, server_context, server_side=True),
            loop.start_tls(two, second, client_context, server_hostname="localhost"),
        )
        protocol = first
    else:
        ours, other = unix_pair()
        transport, protocol = await connect(loop, ours)
        transport.write(payload * 3)
    protocol.cycle = transport, loop
    return transport, protocol, other


def close_other(other: Any) -> None:
    if isinstance(other, int):
        os.close(other)
    elif other is not None:
        other.close()


def take_texts(caught: list[warnings.WarningMessage]) -> list[str]:
    """What the ResourceWarnings said. Each has its source, to which weak references lead until the
    warning goes (since 3.15; before that the collector cleared them before it called __del__).
    """
    texts = [str(warning.message) for warning in caught if warning.category is ResourceWarning]
    caught.clear()
    collect_garbage()
    return texts


@pytest.mark.parametrize("closed", [True, False], ids=["loop closed", "loop dropped"])
@pytest.mark.parametrize("kind", ["stream", "datagram", "read pipe", "write pipe", "TLS"])
def test_a_transport_that_is_dropped_with_its_loop_warns_and_goes(
    loop_module: ModuleType, kind: str, closed: bool
) -> None:
    loop = loop_module.new_event_loop()
    transport, protocol, other = loop.run_until_complete(open_transport(loop, kind))
    alive = [weakref.ref(each) for each in (loop, transport, protocol)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if closed:
            loop.close()
        del loop, transport, protocol
        collect_garbage()
    close_other(other)
    told = take_texts(caught)
    assert [reference() for reference in alive] == [None, None, None]
    assert any("unclosed transport" in message for message in told)
    assert closed != any("unclosed event loop" in message for message in told)


@pytest.mark.parametrize("kind", ["stream", "datagram", "read pipe", "write pipe", "TLS"])
async def test_a_transport_goes_when_its_connection_is_lost(loop: Loop, kind: str) -> None:
    if kind == "TLS" and sys.version_info < (3, 11):
        pytest.skip(
            "asyncio's sslproto of 3.10 warns of the peer's transport, which only we have closed"
        )
    loop.set_exception_handler(callback)
    transport, protocol, other = await open_transport(loop, kind)
    del protocol.cycle
    alive = [weakref.ref(each) for each in (transport, protocol)]
    if kind in ("TLS", "read pipe"):
        transport.close()
    else:
        transport.abort()  # what is written nobody reads
    lost = protocol.lost
    del transport, protocol
    await lost
    await turns()
    close_other(other)
    collect_garbage()
    assert [reference() for reference in alive] == [None, None]


def test_what_a_dropped_loop_has_goes_with_it(loop_module: ModuleType) -> None:
    loop = loop_module.new_event_loop()
    loop.set_exception_handler(callback)
    things = [Argument() for _ in range(8)]
    alive = [weakref.ref(each) for each in [loop, *things]]
    ours, theirs = unix_pair()

    def factory(thing: object, loop: object) -> Recorder:
        return Recorder()

    async def waits(thing: object) -> None:
        await asyncio.sleep(1000, (thing, asyncio.current_task()))

    async def leave(loop: Loop) -> None:
        server = await loop.create_server(
            functools.partial(factory, things[0], loop), "127.0.0.1", 0
        )
        things[1].server = server
        task = loop.create_task(waits(things[2]))
        task.add_done_callback(functools.partial(callback, things[3], task))
        await asyncio.sleep(0)

    loop.run_until_complete(leave(loop))
    things[4].handle = loop.call_later(1000, callback, things[4], loop)
    loop.call_soon(callback, things[5], loop, loop, loop)
    loop.add_reader(ours, callback, things[6], loop)
    things[7].handle = loop.call_soon_threadsafe(things.__len__, context=contextvars.copy_context())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del loop
        things.clear()
        collect_garbage()
    ours.close()
    theirs.close()
    told = take_texts(caught)
    assert [reference() for reference in alive] == [None] * 9
    assert any("unclosed event loop" in message for message in told)
    assert any("unclosed <socket.socket" in message for message in told)
