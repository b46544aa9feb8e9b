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


def interrupt(process: Any) -> None:
    """Sends SIGINT. A loop sleeps on if it comes just before a wait: a stop ends that."""
    process.send_signal(signal.SIGINT)
    for _ in range(TIMEOUT * 10):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            return
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(IDLE, ["interrupted", "still works"], id="idle loop"),
        pytest.param(
            BUSY_CALLBACK, ["interrupted", "the turn goes on", "still works"], id="callback"
        ),
        pytest.param(BUSY_LOOP, ["interrupted"], id="busy loop"),
        pytest.param(BUSY_TASK, ["seen by the task", "interrupted", "still works"], id="busy task"),
        pytest.param(WAITING_IN_A_THREAD, ["interrupted"], id="loop in a thread"),
        pytest.param(
            WAITING_TASK,
            ["cleaned up", "interrupted"],
            id="waiting task",
            marks=pytest.mark.skipif(
                sys.version_info < (3, 11), reason="asyncio.Runner is new in 3.11"
            ),
        ),
    ],
)
@pytest.mark.parametrize("flags", [[], ["-X", "dev"]], ids=["", "dev"])
def test_ctrl_c(loop_module: ModuleType, code: str, expected: list[str], flags: list[str]) -> None:
    process = start_script(loop_module, code, *flags)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    interrupt(process)
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
    interrupt(process)
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


def send_until(happened: threading.Event) -> threading.Thread:
    """Sends signals from another thread. One that comes just before a wait does not end it: the
    next does.
    """

    def send_some() -> None:
        while not happened.is_set():
            send(signal.SIGUSR1)
            happened.wait(0.1)

    thread = threading.Thread(target=send_some)
    thread.start()
    return thread


def test_a_plain_signal_handler_runs_while_the_loop_waits(
    loop_module: ModuleType, plain_handler: Any
) -> None:
    async def main() -> None:
        loop, got, happened = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def handler(*_: object) -> None:
            loop.call_soon_threadsafe(got.set)
            happened.set()

        plain_handler(handler)
        thread = send_until(happened)
        await got.wait()
        thread.join()

    for _ in range(20):
        loop = loop_module.new_event_loop()
        loop.run_until_complete(within(main()))
        loop.close()


def test_an_exception_in_a_plain_signal_handler_leaves_the_loop(
    loop_module: ModuleType, plain_handler: Any
) -> None:
    loop = loop_module.new_event_loop()
    for _ in range(20):
        happened, threads = threading.Event(), []

        def handler(*_: object, happened: threading.Event = happened) -> None:
            if not happened.is_set():
                happened.set()
                raise KeyboardInterrupt(
                    "of the handler"
                )  # an Exception might end with a callback it strikes

        plain_handler(handler)
        loop.call_soon(
            lambda happened=happened, threads=threads: threads.append(send_until(happened))
        )
        with pytest.raises(KeyboardInterrupt, match="of the handler"):
            loop.run_forever()
        happened.wait()
        for thread in threads:
            thread.join()
    assert loop.run_until_complete(asyncio.sleep(0, "still works")) == "still works"
    loop.close()


@pytest.mark.parametrize("thread", [False, True], ids=["main thread", "thread"])
def test_the_wakeup_descriptor_is_the_programs_own(loop_module: ModuleType, thread: bool) -> None:
    """Without signal handlers the loop does not even set it anew, which would change its other
    parameter.
    """
    output = run_script(
        loop_module,
        f"""
        ours, theirs = socket.socketpair()
        ours.setblocking(False); theirs.setblocking(False)
        async def main():
            print("found", set_wakeup_fd(theirs.fileno()))
            signal.set_wakeup_fd = None  # whoever calls it fails
            await asyncio.sleep(0)
            await asyncio.get_running_loop().run_in_executor(None, int)
        def run_thread():
            loop = new_event_loop()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
        set_wakeup_fd = signal.set_wakeup_fd
        loop = new_event_loop()
        loop.run_until_complete(main())
        if {thread}:
            other = threading.Thread(target=run_thread)
            other.start()
            other.join()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        print("kept", set_wakeup_fd(-1) == theirs.fileno())
        """,
    )
    assert output.splitlines() == ["found -1", "kept True"]


def test_a_full_wakeup_descriptor_of_the_programs_own_warns_as_it_asked(
    loop_module: ModuleType,
) -> None:
    output = run_script(
        loop_module,
        """
        signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        try:
            while True: theirs.send(bytes(4096))
        except BlockingIOError: pass
        loop = new_event_loop()
        for warn in False, True:
            signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=warn)
            loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
            loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        """,
    )
    assert output.splitlines().count("handled") == 2
    assert output.count("to write to the signal wakeup fd") == 1


@pytest.mark.parametrize("debug", [False, True])
def test_the_wakeup_descriptor_while_there_are_handlers(
    loop_module: ModuleType, debug: bool
) -> None:
    output = run_script(
        loop_module,
        f"""
        loop = new_event_loop()
        loop.set_debug({debug})
        def found():
            before = signal.set_wakeup_fd(-1)
            signal.set_wakeup_fd(before)
            return before != -1
        print(found())
        loop.add_signal_handler(signal.SIGUSR1, int)
        print(found())
        loop.run_until_complete(asyncio.sleep(0))
        print(found())
        loop.remove_signal_handler(signal.SIGUSR1)
        print(found())
        loop.add_signal_handler(signal.SIGUSR1, int)
        loop.close()
        print(found())
        """,
    )
    assert output.split() == ["False", "True", "True", "False", "False"]


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
