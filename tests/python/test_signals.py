"""Signals, and KeyboardInterrupt wherever Ctrl-C may strike."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from types import ModuleType
from typing import Any

import pytest
from support import TIMEOUT, Loop, ended, run_script, start_script, within

IDLE = """
    loop = new_event_loop()
    loop.call_soon(print, "ready")
    try:
        loop.run_forever()
    except KeyboardInterrupt:
        print("interrupted")
    print(loop.run_until_complete(asyncio.sleep(0, "still works")))
    loop.close()
"""

BUSY_CALLBACK = """
    def busy():
        print("ready")
        while True: pass
    loop = new_event_loop()
    loop.call_soon(busy)
    loop.call_soon(print, "the turn goes on")
    try:
        loop.run_forever()
    except KeyboardInterrupt:
        print("interrupted")
    print(loop.run_until_complete(asyncio.sleep(0, "still works")))
    loop.close()
"""

BUSY_LOOP = """
    def again(): loop.call_soon(again)
    loop = new_event_loop()
    loop.call_soon(print, "ready")
    again()
    try:
        loop.run_forever()
    except KeyboardInterrupt:
        print("interrupted")
    loop.close()
"""

BUSY_TASK = """
    async def main():
        try:
            print("ready")
            while True: pass
        except KeyboardInterrupt:
            print("seen by the task")
            raise
    loop = new_event_loop()
    try:
        loop.run_until_complete(main())
    except KeyboardInterrupt:
        print("interrupted")
    print(loop.run_until_complete(asyncio.sleep(0, "still works")))
    loop.close()
"""

WAITING_TASK = """
    async def main():
        try:
            print("ready")
            await asyncio.Event().wait()
        finally:
            print("cleaned up")
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(main())
    except KeyboardInterrupt:
        print("interrupted")
"""

WAITING_IN_A_THREAD = """
    loop, stopped = new_event_loop(), threading.Event()
    def work():
        loop.run_forever()
        stopped.set()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        print("ready")
        stopped.wait()
    except KeyboardInterrupt:
        print("interrupted")
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    loop.close()
"""


def interrupt(process: Any, loop_module: ModuleType) -> None:
    """Sends SIGINT. asyncio's own loop sleeps on if it comes just before a wait: a stop ends that."""
    process.send_signal(signal.SIGINT)
    for _ in range(TIMEOUT * 10 if loop_module is asyncio else 0):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            return
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(IDLE, ["interrupted", "still works"], id="idle loop"),
        pytest.param(BUSY_CALLBACK, ["interrupted", "the turn goes on", "still works"], id="callback"),
        pytest.param(BUSY_LOOP, ["interrupted"], id="busy loop"),
        pytest.param(BUSY_TASK, ["seen by the task", "interrupted", "still works"], id="busy task"),
        pytest.param(WAITING_IN_A_THREAD, ["interrupted"], id="loop in a thread"),
        pytest.param(
            WAITING_TASK,
            ["cleaned up", "interrupted"],
            id="waiting task",
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.Runner is new in 3.11"),
        ),
    ],
)
@pytest.mark.parametrize("flags", [[], ["-X", "dev"]], ids=["", "dev"])
def test_ctrl_c(loop_module: ModuleType, code: str, expected: list[str], flags: list[str]) -> None:
    process = start_script(loop_module, code, *flags)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    interrupt(process, loop_module)
    assert ended(process).splitlines() == expected


def test_ctrl_c_that_nobody_catches_ends_the_program(loop_module: ModuleType) -> None:
    process = start_script(
        loop_module,
        """
        loop = new_event_loop()
        loop.call_soon(print, "ready")
        loop.run_forever()
        """,
        "-W",
        "ignore",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    interrupt(process, loop_module)
    assert "KeyboardInterrupt" in ended(process, status=-signal.SIGINT)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


async def test_a_signal_handler_is_a_callback_of_the_loop(loop: Loop) -> None:
    got = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, got.set_result, "argument")
    send(signal.SIGUSR1)
    assert await got == "argument"
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


async def test_a_signal_wakes_a_loop_that_waits(loop: Loop) -> None:
    got = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, got.set)
    thread = threading.Thread(target=send, args=(signal.SIGUSR1,))
    thread.start()
    await got.wait()
    thread.join()
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_many_signals_and_replaced_handlers(loop: Loop) -> None:
    got: list[str] = []
    loop.add_signal_handler(signal.SIGUSR1, got.append, "replaced")
    loop.add_signal_handler(signal.SIGUSR1, got.append, "one")
    loop.add_signal_handler(signal.SIGUSR2, got.append, "two")
    for number in signal.SIGUSR1, signal.SIGUSR2:
        send(number)
    while len(got) < 2:
        await asyncio.sleep(0)
    assert sorted(got) == ["one", "two"]
    loop.remove_signal_handler(signal.SIGUSR1)
    loop.remove_signal_handler(signal.SIGUSR2)


async def test_removing_the_sigint_handler_brings_keyboard_interrupt_back(loop: Loop) -> None:
    before = signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, int)
    assert loop.remove_signal_handler(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


async def test_bad_signal_handlers_are_refused(loop: Loop) -> None:
    async def coroutine_function() -> None:
        pass

    with pytest.raises(TypeError):
        loop.add_signal_handler("SIGUSR1", int)
    with pytest.raises(TypeError):
        loop.add_signal_handler(signal.SIGUSR1, coroutine_function)
    with pytest.raises(ValueError):
        loop.add_signal_handler(signal.NSIG + 1, int)
    for number in signal.SIGKILL, signal.SIGSTOP:
        with pytest.raises((RuntimeError, OSError)):
            loop.add_signal_handler(number, int)


def test_signal_handlers_need_the_main_thread(loop: Loop) -> None:
    errors: list[Exception] = []

    def other_thread() -> None:
        try:
            loop.add_signal_handler(signal.SIGUSR1, int)
        except (ValueError, RuntimeError) as error:
            errors.append(error)

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
    assert len(errors) == 1


def test_closing_the_loop_removes_its_signal_handlers(loop: Loop) -> None:
    loop.add_signal_handler(signal.SIGUSR1, int)
    assert signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@pytest.fixture
def plain_handler() -> Any:
    """Sets a handler by signal.signal, and restores the old one."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGUSR1, before)


# asyncio's own loop sleeps on if the signal comes to another thread, or just before the wait begins.
def test_a_plain_signal_handler_runs_while_the_loop_waits(casync: ModuleType, plain_handler: Any) -> None:
    async def main() -> None:
        loop, got = asyncio.get_running_loop(), asyncio.Event()
        plain_handler(lambda *_: loop.call_soon_threadsafe(got.set))
        thread = threading.Thread(target=send, args=(signal.SIGUSR1,))
        thread.start()
        await got.wait()
        thread.join()

    for _ in range(20):
        casync.run(within(main()))


def test_an_exception_in_a_plain_signal_handler_leaves_the_loop(
    casync: ModuleType, plain_handler: Any
) -> None:
    def handler(*_: object) -> None:
        raise KeyboardInterrupt("of the signal handler")  # an Exception might end with a callback it strikes

    plain_handler(handler)
    loop = casync.new_event_loop()
    for _ in range(20):
        running = threading.Event()
        loop.call_soon(running.set)
        thread = threading.Thread(target=lambda running=running: (running.wait(), send(signal.SIGUSR1)))
        thread.start()
        with pytest.raises(KeyboardInterrupt, match="of the signal handler"):
            loop.run_forever()
        thread.join()
    assert loop.run_until_complete(asyncio.sleep(0, "still works")) == "still works"
    loop.close()


def test_the_wakeup_descriptor_is_restored_after_a_run(casync: ModuleType) -> None:
    run_script(
        casync,
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False); theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        loop = new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert signal.set_wakeup_fd(-1) == theirs.fileno()
        """,
    )


def test_a_wakeup_descriptor_of_the_programs_own_is_told_meanwhile(loop_module: ModuleType) -> None:
    output = run_script(
        loop_module,
        """
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        loop = new_event_loop()
        came = loop.create_future()
        signal.signal(signal.SIGUSR1, lambda *_: came.set_result("came"))
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
        print(loop.run_until_complete(came), ours.recv(10) == bytes([signal.SIGUSR1]))
        loop.close()
        """,
    )
    assert output == "came True\n"


def test_signals_keep_working_from_run_to_run_and_loop_to_loop(loop_module: ModuleType) -> None:
    run_script(
        loop_module,
        """
        async def main():
            loop, got = asyncio.get_running_loop(), asyncio.Event()
            loop.add_signal_handler(signal.SIGUSR1, got.set)
            os.kill(os.getpid(), signal.SIGUSR1)
            await got.wait()
        for _ in range(3):
            loop = new_event_loop()
            for _ in range(3):
                loop.run_until_complete(main())
            loop.close()
        """,
    )


def test_a_graceful_shutdown(loop_module: ModuleType) -> None:
    process = start_script(
        loop_module,
        """
        async def main():
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            for number in signal.SIGINT, signal.SIGTERM:
                loop.add_signal_handler(number, stop.set)
            async with await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0):
                print("ready")
                await stop.wait()
            print("stopped")
        loop = new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        """,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process) == "stopped\n"
