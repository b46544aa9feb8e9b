"""Programs that reach into the loop (nest_asyncio, aiodebug and their kind), and classes derived
from it.

Where a program replaces what a turn is made of, the turns are asyncio's own (see
EventLoop._run_once).
"""

from __future__ import annotations

import asyncio
import collections
import heapq
import selectors
import socket
import sys
import textwrap
import threading
from types import ModuleType
from typing import Any

import pytest
from support import NEST_ASYNCIO, Loop, finish, run_script, run_turns, unix_pair, within


def run_nested(loop_module: ModuleType, code: str) -> str:
    head = """
if sys.version_info >= (3, 14):  # before a task of C's is the current one
    loop = new_event_loop()
    apply_nest_asyncio(loop)
    loop.close()

async def slept(number):
    await asyncio.sleep(0.001 * number)
    return number

async def echo():
    async def serve(reader, writer):
        writer.write(await reader.readline())
        writer.close()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\\n")
        answer = await reader.read()
        writer.close()
        return answer

def run(coroutine):
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    result = loop.run_until_complete(asyncio.wait_for(coroutine, 60))
    loop.close()
    return result
"""
    return run_script(loop_module, NEST_ASYNCIO + head + textwrap.dedent(code), "-W", "ignore")


NESTED = {
    "applied before the loop runs": """
        loop = new_event_loop()
        asyncio.set_event_loop(loop)
        apply_nest_asyncio(loop)
        async def main():
            loop = asyncio.get_event_loop()
            return loop.run_until_complete(slept(1)), asyncio.run(slept(2)), await slept(3)
        assert asyncio.run(main()) == (1, 2, 3)
        assert asyncio.run(echo()) == b"hello\\n"
        loop.close()
    """,
    "applied while the loop runs": """
        async def main():
            tasks = [asyncio.create_task(slept(number)) for number in range(5)]
            apply_nest_asyncio()
            loop = asyncio.get_running_loop()
            assert loop.run_until_complete(slept(1)) == 1
            assert asyncio.run(echo()) == b"hello\\n"
            assert asyncio.get_running_loop() is loop and loop.is_running()
            assert await asyncio.gather(*tasks) == list(range(5))
            return await echo()
        assert run(main()) == b"hello\\n"
    """,
    "several levels": """
        async def level(number):
            await asyncio.sleep(0.001)
            if number == 0:
                return 0
            if number % 2:
                return 1 + asyncio.run(level(number - 1))
            return 1 + asyncio.get_running_loop().run_until_complete(level(number - 1))
        async def main():
            apply_nest_asyncio()
            return await asyncio.gather(*(level(number) for number in (5, 10, 20)))
        assert run(main()) == [5, 10, 20]
    """,
    "tasks outside go on meanwhile": """
        async def main():
            apply_nest_asyncio()
            counted = 0
            async def count():
                nonlocal counted
                while True:
                    counted += 1
                    await asyncio.sleep(0)
            task = asyncio.create_task(count())
            asyncio.run(slept(5))
            task.cancel()
            await asyncio.wait([task])
            assert counted > 3
        run(main())
    """,
    "in callbacks of every kind": """
        async def main():
            apply_nest_asyncio()
            loop = asyncio.get_running_loop()
            results = []
            done = asyncio.Event()
            def callback(name):
                results.append((name, loop.run_until_complete(slept(1))))
                if len(results) == 3:
                    done.set()
            loop.call_soon(callback, "soon")
            loop.call_later(0.001, callback, "later")
            threading.Thread(target=loop.call_soon_threadsafe, args=(callback, "thread")).start()
            await done.wait()
            assert sorted(results) == [(name, 1) for name in ("later", "soon", "thread")]
        run(main())
    """,
    "exceptions, executors and children": """
        async def main():
            apply_nest_asyncio()
            loop = asyncio.get_running_loop()
            async def fail():
                raise LookupError("of the nested run")
            for nested in asyncio.run, loop.run_until_complete:
                try:
                    nested(fail())
                except LookupError as error:
                    assert str(error) == "of the nested run"
                else:
                    raise AssertionError
            async def threads():
                return await loop.run_in_executor(None, sum, range(10))
            async def child():
                process = await asyncio.create_subprocess_exec("/bin/echo", "hello", stdout=-1)
                return (await process.communicate())[0]
            assert asyncio.run(threads()) == 45
            assert asyncio.run(child()) == b"hello\\n"
            await loop.shutdown_default_executor()
        run(main())
    """,
    "Ctrl-C in a nested run": """
        async def main():
            apply_nest_asyncio()
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
            asyncio.run(asyncio.sleep(1000))
        logging.disable(logging.CRITICAL)  # that nobody asks the task for the exception
        try:
            run(main())
        except KeyboardInterrupt:
            print("interrupted")
    """,
}


@pytest.mark.parametrize("code", NESTED.values(), ids=NESTED.keys())
def test_nest_asyncio(loop_module: ModuleType, code: str) -> None:
    output = run_nested(loop_module, code)
    assert output == ("interrupted\n" if "SIGINT" in code else "")


# asyncio's own loop calls a reader again in there, while its context is entered, and reports the
# error.
def test_nest_asyncio_in_callbacks_of_descriptors(casync: ModuleType) -> None:
    output = run_nested(
        casync,
        """
        async def main():
            apply_nest_asyncio()
            loop, made = asyncio.get_running_loop(), asyncio.Event()
            class Protocol(asyncio.Protocol):
                def data_received(self, data):
                    print(data, loop.run_until_complete(slept(1)))
                    theirs.send(b"more") if data == b"some" else made.set()
            def readable():
                loop.remove_reader(watched)
                print(watched.recv(5), loop.run_until_complete(slept(2)))
                theirs.send(b"some")
            ours, theirs = socket.socketpair()
            watched, other = socket.socketpair()
            transport, _ = await loop.create_connection(Protocol, sock=ours)
            loop.add_reader(watched, readable)
            other.send(b"x")
            await made.wait()
            transport.close()
        run(main())
        """,
    )
    assert output.splitlines() == ["b'x' 2", "b'some' 1", "b'more' 1"]


def test_nest_asyncio_by_the_policy(casync: ModuleType) -> None:
    run_nested(
        casync,
        """
        import casync
        casync.install()
        async def main():
            assert isinstance(asyncio.get_running_loop(), casync.EventLoop)
            apply_nest_asyncio()
            return asyncio.run(slept(1))
        assert asyncio.run(main()) == 1
        assert asyncio.run(main()) == 1
        assert isinstance(asyncio.get_event_loop(), casync.EventLoop)
        """,
    )


# -- looking --


def test_the_queues_can_be_looked_at(loop: Loop) -> None:
    def callback() -> None:
        seen.append((len(loop._ready), len(loop._scheduled)))

    seen: list[tuple[int, int]] = []
    assert not loop._ready and not loop._scheduled
    handles = [loop.call_soon(callback) for _ in range(3)]
    later = [loop.call_later(delay, print) for delay in (300, 100, 200)]
    assert list(loop._ready) == handles and loop._ready[0] is handles[0]
    assert handles[1] in loop._ready
    assert [handle._callback for handle in loop._ready] == [callback] * 3
    assert heapq.nsmallest(1, loop._scheduled) == [later[1]]
    assert loop._scheduled[0].when() == later[1].when()
    assert sorted(loop._scheduled.copy()) == sorted(later)
    run_turns(loop)
    assert seen == [(2, 3), (1, 3), (0, 3)]
    for handle in later:
        handle.cancel()


def test_the_selector_can_be_looked_at(loop: Loop) -> None:
    ours, theirs = unix_pair()
    with ours, theirs:
        handle = loop._add_reader(ours, print)
        loop.add_writer(theirs, print)
        found = loop._selector.get_map()
        assert {ours.fileno(), theirs.fileno()} <= {key.fd for key in found.values()}
        assert found[ours.fileno()].events == selectors.EVENT_READ
        assert found[theirs.fileno()].events == selectors.EVENT_WRITE
        assert loop._selector.get_key(ours).data == (handle, None)
        loop.remove_reader(ours)
        loop.remove_writer(theirs)
        assert ours.fileno() not in loop._selector.get_map()


# -- replacing --


def test_handles_whose_run_is_replaced(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiodebug measures so."""
    ran: list[Any] = []
    original = asyncio.Handle._run

    def instrumented(self: asyncio.Handle) -> None:
        callback = self._callback
        original(self)
        ran.append(callback)

    async def task() -> str:
        await asyncio.sleep(0)
        return "done"

    loop.call_soon(int)
    run_turns(loop)
    errors: list[Any] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    ours, theirs = unix_pair()
    with ours, theirs, monkeypatch.context() as patch:
        patch.setattr(asyncio.events.Handle, "_run", instrumented)
        loop.call_soon(str)
        loop.call_later(0, float)
        failing = loop.call_soon(divmod, 1, 0)
        theirs.send(b"x")
        loop.add_reader(ours, lambda: (ours.recv(1), loop.remove_reader(ours)))
        run_turns(loop)
        assert [callback for callback in ran if callback in (str, float, divmod)] == [
            str,
            divmod,
            float,
        ]
        assert len(ran) == 4
        assert [type(context["exception"]) for context in errors] == [ZeroDivisionError]
        assert errors[0]["handle"] is failing
        assert loop.run_until_complete(task()) == "done"
        assert len(ran) >= 7
        patch.setattr(
            asyncio.TimerHandle, "_run", lambda self: ran.append("a timer"), raising=False
        )
        loop.call_later(0, float)
        run_turns(loop)
        assert ran[-1] == "a timer"
    count = len(ran)
    loop.call_soon(int)
    run_turns(loop)
    assert len(ran) == count


def test_what_a_replaced_run_raises_ends_the_run(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: asyncio.Handle) -> None:
        raise LookupError("of the patch")

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.Handle, "_run", failing)
        loop.call_soon(int)
        with pytest.raises(LookupError, match="of the patch"):
            run_turns(loop)
    loop._ready.clear()


def loop_class(loop_module: ModuleType) -> Any:
    loop = loop_module.new_event_loop()
    loop.close()
    return type(loop)


def test_turns_can_be_counted(loop_module: ModuleType) -> None:
    base = loop_class(loop_module)

    class Counting(base):
        count = 0

        def _run_once(self) -> None:
            self.count += 1
            super()._run_once()

    loop = Counting()
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
    assert loop.count == 9
    finish(loop)


@pytest.mark.parametrize("where", ["loop", "class"])
def test_run_once_can_be_wrapped(
    loop_module: ModuleType, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    loop = loop_module.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    counted: list[int] = []

    if where == "loop":
        original = loop._run_once
        monkeypatch.setattr(loop, "_run_once", lambda: (counted.append(1), original()))
    else:
        base, original = type(loop), type(loop)._run_once
        monkeypatch.setattr(base, "_run_once", lambda self: (counted.append(1), original(self)))
    ready = loop.create_future()
    ours, theirs = unix_pair()
    with ours, theirs:
        loop.add_reader(ours, lambda: (loop.remove_reader(ours), ready.set_result(ours.recv(5))))
        loop.call_later(0.001, theirs.send, b"hello")
        assert loop.run_until_complete(ready) == b"hello"
    assert len(counted) >= 3
    monkeypatch.undo()
    finish(loop)


class Jumping:
    """A mixin as those that speed tests up: time is what the timers say."""

    now = 0.0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[call-arg]
        self._select = self._selector.select  # type: ignore[attr-defined]
        self._selector.select = self._jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now

    def _jump(self, timeout: float | None) -> Any:
        found = self._select(0)
        if not found and timeout:
            self.now += timeout
        elif not found and timeout is None:
            return self._select(None)
        return found


def test_a_loop_with_a_time_of_its_own(loop_module: ModuleType) -> None:
    cls = type("Loop", (Jumping, loop_class(loop_module)), {})

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        times = [loop.time()]
        await asyncio.sleep(3600)
        times.append(loop.time())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(7200), 1800)
        times.append(loop.time())
        assert loop.call_later(10, int).when() == loop.time() + 10
        assert await loop.run_in_executor(None, threading.get_ident) != threading.get_ident()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            assert await reader.read() == b"hello\n"
            writer.close()
        return times

    loop = cls()
    assert loop.run_until_complete(main()) == [0.0, 3600.0, 5400.0]
    finish(loop)


@pytest.mark.parametrize("how", ["attribute", "class"])
def test_time_can_be_replaced_in_a_loop_that_has_timers(loop_module: ModuleType, how: str) -> None:
    loop = loop_module.new_event_loop()
    start, base, ran = loop.time(), type(loop), []

    class Ahead(base):  # type: ignore[misc, valid-type]
        def time(self) -> float:
            return start + 1000

    if how == "attribute":
        loop.time = lambda: start + 1000
    else:
        loop.__class__ = Ahead
    assert loop.time() == start + 1000
    loop.call_at(start + 999, ran.append, "in the past")
    handle = loop.call_later(1, ran.append, "in the future")
    assert handle.when() == start + 1001
    run_turns(loop)
    assert ran == ["in the past"]
    handle.cancel()
    loop.close()


def test_ready_can_be_worked_off_by_hand(loop: Loop) -> None:
    order: list[str] = []
    for name in "first", "second", "third":
        loop.call_soon(order.append, name)
    handle = loop._ready.popleft()
    handle._run()
    assert order == ["first"]
    loop._ready.rotate(1)
    run_turns(loop)
    assert order == ["first", "third", "second"]


def test_ready_can_be_changed_in_place(loop: Loop) -> None:
    order: list[str] = []
    first, _, third = [loop.call_soon(order.append, name) for name in ("first", "second", "third")]
    del loop._ready[1]
    loop._ready[0], loop._ready[1] = third, first
    loop._ready += [loop._ready.pop()]
    run_turns(loop)
    assert order == ["third", "first"]


def test_ready_can_be_replaced(loop: Loop) -> None:
    class Queue(collections.deque):  # type: ignore[type-arg]
        def popleft(self) -> Any:
            return self.pop()

    order: list[str] = []
    loop.call_soon(order.append, "lost")
    loop._ready = Queue()
    for name in "first", "second":
        loop.call_soon(order.append, name)
    run_turns(loop)
    assert order == ["second", "first"]


def test_methods_of_a_derived_class_are_called(loop_module: ModuleType) -> None:
    called: list[str] = []
    base = loop_class(loop_module)

    def override(name: str) -> Any:
        def method(self: Any, *args: Any, **options: Any) -> Any:
            called.append(name)
            return getattr(base, name)(self, *args, **options)

        return method

    names = [
        "call_soon",
        "call_soon_threadsafe",
        "call_later",
        "call_at",
        "create_task",
        "create_future",
    ]
    names += [
        "run_in_executor",
        "call_exception_handler",
        "default_exception_handler",
        "time",
        "getaddrinfo",
    ]
    loop = type("Derived", (base,), {name: override(name) for name in names})()

    def calls(function: Any) -> set[str]:
        called.clear()
        function()
        return set(called)

    async def wait_in_thread() -> None:
        gate = threading.Event()
        waiting = loop.run_in_executor(None, gate.wait)
        gate.set()
        await waiting

    async def connect() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = ("localhost", listener.getsockname()[1])
            transport, _ = await loop.create_connection(
                asyncio.Protocol, *address, family=socket.AF_INET
            )
            transport.close()
            await asyncio.sleep(0)

    assert calls(lambda: loop.run_until_complete(asyncio.sleep(0.001))) >= {
        "create_task",
        "call_soon",
        "call_later",
        "call_at",
        "time",
        "create_future",
    }
    assert calls(lambda: loop.run_until_complete(wait_in_thread())) >= {
        "run_in_executor",
        "call_soon_threadsafe",
    }
    assert calls(lambda: loop.run_until_complete(connect())) >= {"getaddrinfo", "run_in_executor"}
    logged = calls(lambda: (loop.call_soon(divmod, 1, 0), run_turns(loop)))
    assert logged >= {"call_exception_handler", "default_exception_handler"}
    finish(loop)


def test_tasks_and_futures_of_another_kind(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """nest_asyncio and debuggers put asyncio's Python classes in place of its C ones."""
    monkeypatch.setattr(asyncio.tasks, "Task", asyncio.tasks._PyTask)
    monkeypatch.setattr(asyncio.futures, "Future", asyncio.futures._PyFuture)
    if sys.version_info >= (3, 14):  # each kind tells the current task of its own alone
        monkeypatch.setattr(asyncio.tasks, "current_task", asyncio.tasks._py_current_task)
    assert type(loop.create_future()) is asyncio.futures._PyFuture
    task = loop.create_task(asyncio.sleep(0, "slept"))
    assert type(task) is asyncio.tasks._PyTask
    assert loop.run_until_complete(within(task)) == "slept"


def test_threads_wake_a_loop_whose_turns_are_asyncios(loop: Loop) -> None:
    loop._use_asyncio_turns() if hasattr(loop, "_use_asyncio_turns") else None
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            woken = loop.create_future()
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(woken.set_result, 1))
            loop.call_soon(thread.start)
            assert loop.run_until_complete(within(woken)) == 1
            thread.join()
    finally:
        sys.setswitchinterval(before)
