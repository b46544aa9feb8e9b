"""A loop's life: made, run, stopped, run again, closed."""

from __future__ import annotations

import asyncio
import textwrap
from types import ModuleType

import pytest
from support import Loop, finish, run_script, run_turns


def test_a_loop_runs_many_times(loop: Loop) -> None:
    for i in range(100):
        assert loop.run_until_complete(asyncio.sleep(0, i)) == i


def test_is_running_only_while_it_runs(loop: Loop) -> None:
    states: list[bool] = []
    assert not loop.is_running()
    loop.call_soon(lambda: states.append(loop.is_running()))
    run_turns(loop)
    assert states == [True]
    assert not loop.is_running()


def test_run_until_complete_returns_and_raises(loop: Loop) -> None:
    future = loop.create_future()
    loop.call_soon(future.set_result, "result")
    assert loop.run_until_complete(future) == "result"
    future = loop.create_future()
    loop.call_soon(future.set_exception, LookupError("of the future"))
    with pytest.raises(LookupError, match="of the future"):
        loop.run_until_complete(future)


def test_run_until_complete_says_when_it_was_stopped_before(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        loop.run_until_complete(loop.create_future())


def test_a_loop_cannot_run_inside_itself_or_another(loop: Loop, loop_module: ModuleType) -> None:
    other = loop_module.new_event_loop()

    async def main() -> None:
        for inner in loop, other:
            coroutine = asyncio.sleep(0)
            with pytest.raises(RuntimeError):
                inner.run_until_complete(coroutine)
            coroutine.close()

    loop.run_until_complete(main())
    other.close()


def test_two_loops_take_turns_in_one_thread(loop: Loop, loop_module: ModuleType) -> None:
    other = loop_module.new_event_loop()
    for i in range(10):
        assert loop.run_until_complete(asyncio.sleep(0, i)) == i
        assert other.run_until_complete(asyncio.sleep(0, i)) == i
    finish(other)


def test_get_running_loop(loop: Loop) -> None:
    async def main() -> Loop:
        return asyncio.get_running_loop()

    assert loop.run_until_complete(main()) is loop
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_a_loop_that_could_not_start_runs_again(casync: ModuleType) -> None:
    """What asyncio does before a run fails once, as by Ctrl-C or for want of memory. Asyncio's own
    loop counts as running for ever then, but for Pythons up to 3.13.0.
    """
    output = run_script(
        casync,
        """
        def fail(event, _):
            if fails and event.startswith("sys.set_asyncgen_hook"):
                fails.pop()
                raise MemoryError
        fails = []
        sys.addaudithook(fail)
        loop = new_event_loop()
        for _ in range(2):
            fails.append(True)
            try:
                loop.run_until_complete(asyncio.Event().wait())
            except MemoryError:
                print(loop.is_running(), asyncio._get_running_loop(), *sys.get_asyncgen_hooks())
            print(loop.run_until_complete(asyncio.sleep(0, "again")))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        """,
    )
    assert output == "False None None None\nagain\n" * 2


def test_a_running_loop_cannot_be_closed(loop: Loop) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="running"):
            loop.close()

    loop.run_until_complete(main())


def test_a_closed_loop_stays_closed(loop_module: ModuleType) -> None:
    loop = loop_module.new_event_loop()
    assert not loop.is_closed()
    loop.close()
    loop.close()
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_forever()
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_until_complete(coroutine)
    coroutine.close()
    loop.stop()


def test_a_loop_is_made_and_closed_without_being_run(loop_module: ModuleType) -> None:
    for _ in range(100):
        loop_module.new_event_loop().close()


def test_async_generators_are_closed(loop: Loop) -> None:
    closed: list[str] = []

    async def generator():  # noqa: ANN202
        try:
            yield 1
        finally:
            closed.append("closed")

    async def main() -> None:
        await kept.__anext__()

    kept = generator()
    loop.run_until_complete(main())
    assert not closed
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert closed == ["closed"]


@pytest.mark.skipif(not hasattr(asyncio, "Runner"), reason="new in Python 3.11")
def test_asyncio_runner_with_a_loop_factory(loop_module: ModuleType) -> None:
    with asyncio.Runner(loop_factory=loop_module.new_event_loop) as runner:
        assert runner.run(asyncio.sleep(0, 1)) == 1
        assert runner.run(asyncio.sleep(0, 2)) == 2
        loop = runner.get_loop()
    assert loop.is_closed()


ENDINGS = {
    "a loop nobody closed": "",
    "a loop in a cycle": "loop.cycle = loop",
    "a loop with a transport and a server": """
        async def main():
            server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x" * 10_000_000)
            return server, reader, writer
        kept = loop.run_until_complete(main())
    """,
    "a loop that is closed while a connection is open": """
        async def main():
            server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
            return server, await asyncio.open_connection(*server.sockets[0].getsockname())
        kept = loop.run_until_complete(main())
        loop.close()
    """,
    "a loop closed by atexit": "import atexit; atexit.register(loop.close)",
    "a loop running in a daemon thread": """
        running = threading.Event()
        loop.call_soon(running.set)
        threading.Thread(target=loop.run_forever, daemon=True).start()
        running.wait()
    """,
    "a busy loop in a daemon thread": """
        running = threading.Event()
        loop.call_soon(running.set)
        def again(): loop.call_soon(again)
        again()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        running.wait()
    """,
    "sys.exit in a callback": """
        loop.call_soon(sys.exit, 0)
        loop.run_forever()
    """,
    "an interpreter that ends inside the loop": """
        loop.call_soon(os._exit, 0)
        loop.run_forever()
    """,
}


@pytest.mark.parametrize("code", ENDINGS.values(), ids=ENDINGS.keys())
def test_the_interpreter_ends_well_with(loop_module: ModuleType, code: str) -> None:
    start = """
        async def forever(): await asyncio.Event().wait()
        loop = new_event_loop()
        loop.call_later(1000, print)
        watched, other = socket.socketpair()
        loop.add_reader(watched, print)
        task = loop.create_task(forever())
        loop.run_until_complete(asyncio.sleep(0))
    """
    code = textwrap.dedent(start) + textwrap.dedent(code)
    output = run_script(loop_module, code, "-W", "ignore")
    assert "Fatal" not in output and "Traceback" not in output


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("second", [0, 1, 2])
@pytest.mark.parametrize("flags", [[], ["-X", "dev"]], ids=["", "dev"])
def test_a_loop_that_nobody_closes(
    loop_module: ModuleType, first: int, second: int, flags: list[str]
) -> None:
    """The garbage collector ends objects in the order of their generations. Whatever that is, the
    loop closes itself, and a warning says so."""
    output = run_script(
        loop_module,
        f"""
        import gc, warnings
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: print(str(message).split(" <")[0])
        sys.unraisablehook = lambda error: print("unraisable", error.exc_value)
        gc.collect()
        gc.disable()
        loop = new_event_loop()
        gc.collect({first})
        loop.run_until_complete(asyncio.sleep(0))
        loop.add_signal_handler(signal.SIGUSR1, print)
        gc.collect({second})
        thread = loop.run_until_complete(loop.run_in_executor(None, threading.current_thread))
        del loop
        gc.collect()
        thread.join()
        print(signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, signal.set_wakeup_fd(-1))
        """,
        *flags,
    )
    assert output.splitlines() == ["unclosed event loop", "True -1"]
