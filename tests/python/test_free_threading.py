"""Loops in several threads at once: each its own, and each other's by what asyncio allows. What is
here holds with a GIL, too; without one the threads really run side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

import pytest
from support import FREE_THREADED, TIMEOUT, Loop, ended, errors_of, finish, python

T = TypeVar("T")

THREADS = 4
HANDLES_HAVE_LOCKS = FREE_THREADED or sys.version_info >= (3, 14)


@pytest.fixture(autouse=True)
def frequent_switches() -> Any:
    """With a GIL, threads change often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(
    loop_module: ModuleType, main: Callable[[int], Coroutine[Any, Any, T]], count: int = THREADS
) -> list[T]:
    """Runs main(number) on a loop of its own in each of `count` threads, all at once."""
    begin = threading.Barrier(count)

    def run(number: int) -> T:
        loop = loop_module.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            begin.wait(TIMEOUT)
            return loop.run_until_complete(asyncio.wait_for(main(number), TIMEOUT))
        finally:
            finish(loop)
            asyncio.set_event_loop(None)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.mark.skipif(not FREE_THREADED, reason="this interpreter has a GIL")
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="casync turns the GIL on there")
def test_importing_casync_leaves_the_gil_off(casync: ModuleType) -> None:
    code = "import sys, casync; print(sys._is_gil_enabled())"
    unset = {"PYTHON_GIL": ""}  # which would leave it off in any case
    assert ended(python("-W", "error", "-c", code, env=unset)) == "False\n"


@pytest.mark.skipif(
    not FREE_THREADED or sys.version_info >= (3, 14), reason="cffi supports this Python"
)
def test_without_cffi_the_c_api_is_not_there(casync: ModuleType) -> None:
    exec("from casync import *", {})
    with pytest.raises(ImportError, match="needs cffi, which does not support this Python"):
        _ = casync.lib


# --- each its own ---------------------------------------------------------------------------------


class Echo(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Client(Echo):
    """Sends a message as often as it comes back."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.received = b""
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(b"message")

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.received != b"message":
            return
        self.received = b""
        self.count -= 1
        if self.count:
            self.transport.write(b"message")
        else:
            self.transport.close()

    def connection_lost(self, exception: Exception | None) -> None:
        self.done.set_result(self.count)


def test_protocols(loop_module: ModuleType) -> None:
    async def main(number: int) -> int:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        await loop.create_connection(Echo, sock=left)
        _, client = await loop.create_connection(lambda: Client(500), sock=right)
        return await client.done

    assert in_threads(loop_module, main) == [0] * THREADS


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


def test_streams_and_their_servers(loop_module: ModuleType) -> None:
    async def main(number: int) -> list[bytes]:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        received = []
        for i in range(50):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"%d of %d\n" % (i, number))
            received.append(await reader.readline())
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return received

    wanted = [[b"%d of %d\n" % (i, number) for i in range(50)] for number in range(THREADS)]
    assert in_threads(loop_module, main) == wanted


def test_tls(loop_module: ModuleType, contexts: Any) -> None:
    async def main(number: int) -> bytes:
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=contexts.server)
        address = server.sockets[0].getsockname()
        received = b""
        for _ in range(5):
            reader, writer = await asyncio.open_connection(
                *address, ssl=contexts.client, server_hostname="localhost"
            )
            writer.write(b"x" * 50_000 + b"\n")
            received += await reader.readline()
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return received

    assert in_threads(loop_module, main) == [(b"x" * 50_000 + b"\n") * 5] * THREADS


# asyncio of 3.12 and 3.13 catches this warning, which does not work in several threads at once.
@pytest.mark.filterwarnings("ignore:.*child_watcher:DeprecationWarning")
def test_programs(loop_module: ModuleType) -> None:
    async def main(number: int) -> list[bytes]:
        outputs = []
        for _ in range(5):
            process = await asyncio.create_subprocess_exec(
                "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate(b"of thread %d" % number)
            outputs.append(output)
        return outputs

    outputs = in_threads(loop_module, main)
    assert outputs == [[b"of thread %d" % number] * 5 for number in range(THREADS)]


def test_timers_and_tasks(loop_module: ModuleType) -> None:
    async def main(number: int) -> int:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        last: asyncio.Future[None] = loop.create_future()
        when = loop.time()
        for i in range(2_000):
            timer = loop.call_at(when + i * 1e-6, seen.append, i)
            if i % 2:
                timer.cancel()
            await asyncio.sleep(0)
        loop.call_at(when + 3e-3, last.set_result, None)
        await last
        return sum(seen)

    assert in_threads(loop_module, main) == [sum(range(0, 2_000, 2))] * THREADS


def test_datagrams_and_sock_methods(loop_module: ModuleType) -> None:
    async def main(number: int) -> int:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        received = 0
        with left, right:
            for one in left, right:
                one.setblocking(False)
            for _ in range(500):
                await loop.sock_sendall(left, b"ping")
                received += len(await loop.sock_recv(right, 100))
        return received

    assert in_threads(loop_module, main) == [2_000] * THREADS


# --- each other's ---------------------------------------------------------------------------------


@pytest.fixture(params=["", "debug", "observed", "asyncio's turns"])
def mode(request: pytest.FixtureRequest, loop_module: ModuleType) -> str:
    """How the loop runs its handles, which may be asyncio's own."""
    if loop_module is asyncio and request.param not in ("", "debug"):
        pytest.skip("casync's alone")
    if FREE_THREADED and loop_module is asyncio and sys.version_info < (3, 14):
        pytest.skip("asyncio's handles are not for threads before 3.14")
    return str(request.param)


class Observer:
    def before_call(self, call: Any) -> None:
        assert call.callback is not None

    def after_call(self, call: Any) -> None:
        assert call.callback is not None


@contextlib.contextmanager
def in_mode(loop: Loop, mode: str) -> Iterator[None]:
    loop.set_debug(mode == "debug")
    if mode == "asyncio's turns":
        loop._use_asyncio_turns()
    with contextlib.ExitStack() as stack:
        if mode == "observed":
            from casync import trace

            stack.enter_context(trace.observe(loop, Observer()))
        yield


class Loops:
    """A loop that runs in each of some threads, until the block ends."""

    def __init__(self, loop_module: ModuleType, count: int = THREADS, mode: str = "") -> None:
        self.mode = mode
        self.loops: list[Loop] = [loop_module.new_event_loop() for _ in range(count)]
        self.threads = [threading.Thread(target=self.run, args=(loop,)) for loop in self.loops]

    def run(self, loop: Loop) -> None:
        asyncio.set_event_loop(loop)
        with in_mode(loop, self.mode):
            loop.run_forever()
        finish(loop)

    def __enter__(self) -> list[Loop]:
        for thread in self.threads:
            thread.start()
        return self.loops

    def __exit__(self, *_: object) -> None:
        for loop in self.loops:
            loop.call_soon_threadsafe(loop.stop)
        for thread in self.threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def test_calls_from_every_thread_to_every_loop_keep_their_order(loop_module: ModuleType) -> None:
    count = 1_000
    got: dict[tuple[int, int], list[int]] = {}

    with Loops(loop_module) as loops:

        async def send(number: int) -> None:
            for i in range(count):
                for at, other in enumerate(loops):
                    other.call_soon_threadsafe(got[number, at].append, i)
                if i % 100 == 0:
                    await asyncio.sleep(0)

        got.update({(a, b): [] for a in range(THREADS) for b in range(THREADS)})
        sends = [
            asyncio.run_coroutine_threadsafe(send(number), loop)
            for number, loop in enumerate(loops)
        ]
        for sent in sends:
            sent.result(TIMEOUT)
        for loop in loops:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(TIMEOUT)
    assert all(numbers == list(range(count)) for numbers in got.values())


def test_a_call_from_the_loops_own_thread_is_in_order_with_call_soon(loop: Loop) -> None:
    order: list[int] = []
    loop.call_soon_threadsafe(order.append, 1)
    loop.call_soon(order.append, 2)

    def inside() -> None:
        loop.call_soon_threadsafe(order.append, 3)
        loop.call_soon(order.append, 4)
        loop.call_soon_threadsafe(loop.stop)

    loop.call_soon(inside)
    loop.run_forever()
    assert order == [1, 2, 3, 4]


def test_closing_a_loop_while_others_post_to_it(casync: ModuleType) -> None:
    """Each call runs, or raises, or is dropped with the loop; none is left behind (asyncio leaves
    some).
    """

    class Call:
        def __call__(self) -> None:
            pass

    last: list[weakref.ref[Call]] = []
    for _ in range(20):
        loop = casync.new_event_loop()
        begin = threading.Barrier(3)

        def post(loop: Loop = loop, begin: threading.Barrier = begin) -> None:
            begin.wait(TIMEOUT)
            call = reference = None
            while not loop.is_closed():
                call = Call()
                reference = weakref.ref(call)
                try:
                    loop.call_soon_threadsafe(call)
                except RuntimeError as error:
                    assert "Event loop is closed" in str(error)
            if reference is not None:
                last.append(reference)

        threads = [threading.Thread(target=post) for _ in range(2)]
        for thread in threads:
            thread.start()
        begin.wait(TIMEOUT)
        loop.call_later(1e-3, loop.stop)
        loop.run_forever()
        loop.close()
        for thread in threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
    gc.collect()
    assert last
    assert all(reference() is None for reference in last)


def test_cancelling_in_another_thread(loop_module: ModuleType, mode: str) -> None:
    """A call either runs or was cancelled before; what it holds goes in any case."""

    class Call:
        ran = False

        def __call__(self) -> None:
            self.ran = True

    with Loops(loop_module, 1, mode) as [loop]:
        errors = errors_of(loop)
        for _ in range(2_000):
            call = Call()
            handle = loop.call_soon_threadsafe(call)
            handle.cancel()
            assert handle.cancelled()
            gone = weakref.ref(call)
            del call
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(TIMEOUT)
        del handle
        gc.collect()
        assert gone() is None
        assert errors == [] or not HANDLES_HAVE_LOCKS


@pytest.mark.skipif(not HANDLES_HAVE_LOCKS, reason="handles have locks since 3.14")
def test_cancelling_waits_while_the_callback_runs(loop_module: ModuleType, mode: str) -> None:
    seen: list[bool] = []
    runs, cancels, cancelled = (threading.Event() for _ in range(3))

    def callback() -> None:
        runs.set()
        assert cancels.wait(TIMEOUT)
        seen.append(cancelled.wait(0.1))  # as long as a cancel() that does not wait would need

    with Loops(loop_module, 1, mode) as [loop]:
        handle = loop.call_soon_threadsafe(callback)
        assert runs.wait(TIMEOUT)
        cancels.set()
        handle.cancel()
        cancelled.set()
    assert seen == [False]


def test_a_read_that_has_not_begun_goes_while_the_loop_is_busy(loop_module: ModuleType) -> None:
    async def read_later(sock: socket.socket) -> list[Any]:
        reader, writer = await asyncio.open_connection(sock=sock)
        return [writer, reader.read(1)]

    def compute() -> bool:
        busy.set()
        end = time.monotonic() + TIMEOUT
        while not gone.is_set() and time.monotonic() < end:
            pass
        return gone.is_set()

    async def call(function: Callable[[], T]) -> T:
        return function()

    busy, gone = threading.Event(), threading.Event()
    left, right = socket.socketpair()
    with right, Loops(loop_module, 1) as [loop]:
        kept = asyncio.run_coroutine_threadsafe(read_later(left), loop).result(TIMEOUT)
        computing = asyncio.run_coroutine_threadsafe(call(compute), loop)
        assert busy.wait(TIMEOUT)
        kept.pop().close()
        gone.set()
        assert computing.result(TIMEOUT)
        loop.call_soon_threadsafe(kept.pop().close)


def test_a_cancelled_call_whose_argument_runs_the_loop(loop: Loop) -> None:
    """What lets go of the argument finds the handle in the queue still, without a GIL."""
    ran: list[str] = []

    class Argument:
        def __del__(self) -> None:
            loop.run_until_complete(asyncio.sleep(0))
            ran.append("the loop")

    loop.call_soon_threadsafe(ran.append, Argument()).cancel()
    gc.collect()
    assert ran == ["the loop"]


def test_arguments_that_cancel_each_others_calls(casync: ModuleType) -> None:
    """No handle is locked while what it had is let go of (asyncio's of 3.14 is, and both wait)."""
    loop = casync.new_event_loop()
    handles: list[asyncio.Handle | None] = [None, None]
    together = threading.Barrier(2)

    class Argument:
        other: asyncio.Handle | None = None

        def __del__(self) -> None:
            sum(range(1_000))
            if self.other is not None:
                self.other.cancel()

    def cancel(number: int) -> None:
        for _ in range(200):
            argument = Argument()
            handle = handles[number] = loop.call_soon_threadsafe(print, argument)
            together.wait(TIMEOUT)
            argument.other = handles[1 - number]
            del argument
            together.wait(TIMEOUT)
            handle.cancel()
            together.wait(TIMEOUT)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(cancel, range(2))) == [None, None]
    loop.close()


def test_posts_keep_their_order_when_the_turns_become_asyncios(casync: ModuleType) -> None:
    loop = casync.new_event_loop()
    ran: list[int] = []

    def post() -> None:
        for i in range(5):
            loop.call_soon_threadsafe(ran.append, i)

    def patch() -> None:
        thread = threading.Thread(target=post)
        thread.start()
        thread.join()
        loop.time = loop.time  # of what a turn is made of
        loop.call_soon(loop.stop)

    loop.call_soon(patch)
    loop.run_forever()
    finish(loop)
    assert ran == [0, 1, 2, 3, 4]


def test_cancelling_calls_that_are_not_thread_safe(casync: ModuleType) -> None:
    """asyncio forbids that in another thread; but it breaks nothing."""
    loop = casync.new_event_loop()
    ran: set[int] = set()
    handles: list[asyncio.Handle] = [loop.call_soon(ran.add, 0)]
    done = threading.Event()

    def cancel() -> None:
        while not done.is_set():
            handles[-1].cancel()

    async def main() -> None:
        for i in range(1, 5_000):
            handles.append(loop.call_soon(ran.add, i))
            await asyncio.sleep(0)

    threads = [threading.Thread(target=cancel) for _ in range(2)]
    for thread in threads:
        thread.start()
    loop.run_until_complete(main())
    done.set()
    for thread in threads:
        thread.join(TIMEOUT)
    finish(loop)
    assert all(i in ran or handle.cancelled() for i, handle in enumerate(handles))


def test_cancelling_a_task_of_another_loop(loop_module: ModuleType) -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    with Loops(loop_module) as loops:
        futures = [asyncio.run_coroutine_threadsafe(forever(), loop) for loop in loops * 50]
        for future in futures:
            assert future.cancel()
        for loop in loops:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(TIMEOUT)


def test_last_references_in_other_threads(loop_module: ModuleType) -> None:
    """Transports, readers, coroutines and servers of a loop go in a thread that is not its own."""

    async def make() -> list[Any]:
        left, right = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=left)
        other_reader, other_writer = await asyncio.open_connection(sock=right)
        writer.write(b"line\n")
        assert await other_reader.readline() == b"line\n"
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        server.close()
        writer.close()
        other_writer.close()
        await writer.wait_closed()
        unused = reader.read(1)
        unused.close()
        return [reader, writer, other_reader, other_writer, writer.transport, server, unused]

    with Loops(loop_module) as loops:
        for _ in range(20):
            made = [asyncio.run_coroutine_threadsafe(make(), loop) for loop in loops]
            objects = [future.result(TIMEOUT) for future in made]
            # the loop may be at the end of the task that made them
            for loop in loops:
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(TIMEOUT)
            readers = [weakref.ref(each[0]) for each in objects]
            del made
            objects.clear()
            gc.collect()
            assert all(reader() is None for reader in readers)


def test_the_state_of_a_loop_that_runs_elsewhere(loop_module: ModuleType) -> None:
    with Loops(loop_module) as loops:
        for loop in loops:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(TIMEOUT)
            assert loop.is_running()
            assert not loop.is_closed()
            assert loop.time() > 0
            assert "running=True" in repr(loop)
    assert not any(loop.is_running() for loop in loops)


def test_a_callback_that_computes_does_not_keep_others_from_posting(
    loop_module: ModuleType,
) -> None:
    with Loops(loop_module, 1) as [loop]:
        begun, posted = threading.Event(), threading.Event()
        seen: list[bool] = []

        def compute() -> None:
            begun.set()
            while not posted.is_set():
                sum(range(100))
            seen.append(True)

        loop.call_soon_threadsafe(compute)
        assert begun.wait(TIMEOUT)
        loop.call_soon_threadsafe(int)
        assert not loop.is_closed()
        posted.set()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(TIMEOUT)
        assert seen == [True]


def test_a_loop_that_never_waits_does_not_keep_others_from_anything(casync: ModuleType) -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with Loops(casync, 1) as [loop]:
        spinning = asyncio.run_coroutine_threadsafe(spin(), loop)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(TIMEOUT)
        assert loop.metrics()["turns"] > 0
        assert not loop.create_future().done()
        spinning.cancel()


def test_what_asyncio_forbids_harms_nothing(casync: ModuleType) -> None:
    """Methods that are not for other threads, called there: they wait for the loop, at worst."""
    with Loops(casync, 1) as [loop]:
        left, right = socket.socketpair()
        connecting = loop.create_connection(Echo, sock=left)
        transport, _ = asyncio.run_coroutine_threadsafe(connecting, loop).result(TIMEOUT)
        with right:
            right.settimeout(TIMEOUT)
            for i in range(200):
                transport.write(b"%d\n" % i)
                handle = loop.call_later(3600, int)
                repr(handle), repr(transport)
                handle.cancel()
                loop.call_soon(int)
                transport.get_write_buffer_size()
            received = b""
            while not received.endswith(b"199\n"):
                received += right.recv(65536)
            assert received == b"".join(b"%d\n" % i for i in range(200))
            loop.call_soon_threadsafe(transport.close)
            assert right.recv(1) == b""
