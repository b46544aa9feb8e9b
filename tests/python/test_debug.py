"""Debug mode: what asyncio checks and reports when asked to."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
from types import ModuleType
from typing import Any

import pytest
from support import TIMEOUT, Loop, collect_garbage, run_script, run_turns, unix_pair


def test_it_is_off_unless_asked_for(loop_module: ModuleType) -> None:
    code = "loop = new_event_loop(); print(loop.get_debug()); loop.close()"
    assert run_script(loop_module, code) == "False\n"
    assert run_script(loop_module, code, "-X", "dev") == "True\n"


def test_the_environment_turns_it_on(
    loop_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    code = "loop = new_event_loop(); print(loop.get_debug()); loop.close()"
    assert run_script(loop_module, code) == "True\n"


def test_slow_callbacks_are_logged(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0

    def slow_callback() -> None:
        pass

    loop.call_soon(slow_callback)
    run_turns(loop)
    [message] = [record.message for record in caplog.records if "slow_callback" in record.message]
    assert message.startswith("Executing <Handle ") and "took" in message


def test_slow_callbacks_are_logged_where_asyncio_says(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    logger = logging.getLogger("test.debug")
    messages: list[str] = []
    monkeypatch.setattr(logger, "warning", lambda text, *args: messages.append(text % args))
    monkeypatch.setattr("asyncio.base_events.logger", logger)
    loop.call_soon(int)
    run_turns(loop)
    assert messages and "took" in messages[0]


@pytest.mark.parametrize("debug", [False, True])
def test_a_failed_task_that_nobody_holds_is_reported_at_once(loop: Loop, debug: bool) -> None:
    """Its exception's traceback leads to the frames that ran it: they must not keep it."""
    loop.set_debug(debug)
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))

    async def failing() -> None:
        raise ZeroDivisionError

    async def failing_later() -> None:
        await asyncio.sleep(0.001)
        raise ZeroDivisionError

    async def main() -> None:
        asyncio.ensure_future(failing())
        await asyncio.sleep(0)
        assert [context["message"] for context in errors] == ["Task exception was never retrieved"]
        asyncio.ensure_future(failing_later())
        while len(errors) < 2:
            await asyncio.sleep(0.001)

    gc.disable()
    try:
        loop.run_until_complete(asyncio.wait_for(main(), TIMEOUT))
    finally:
        gc.enable()


def test_fast_callbacks_are_not_logged(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 1e9
    loop.call_soon(int)
    run_turns(loop)
    assert "Executing" not in caplog.text


def test_slow_task_steps_and_watchers_are_logged(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    ours, theirs = unix_pair()

    async def slow_coroutine() -> None:
        await asyncio.sleep(0)

    def slow_watcher() -> None:
        ours.recv(1)

    with ours, theirs:
        theirs.send(b"x")
        loop.add_reader(ours, slow_watcher)
        loop.run_until_complete(slow_coroutine())
        run_turns(loop)
        loop.remove_reader(ours)
    assert "slow_coroutine" in caplog.text
    assert "slow_watcher" in caplog.text


@pytest.mark.parametrize("how", ["call_soon", "call_later", "call_at"])
def test_calls_from_another_thread_are_refused(loop: Loop, how: str) -> None:
    loop.set_debug(True)
    results: list[object] = []

    def other_thread() -> None:
        try:
            getattr(loop, how)(*(() if how == "call_soon" else (0,)), int)
        except RuntimeError as error:
            results.append(error)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=other_thread)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    [error] = results
    assert "Non-thread-safe operation" in str(error)


@pytest.mark.parametrize("how", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_what_cannot_be_called_is_refused(loop: Loop, how: str) -> None:
    async def coroutine_function() -> None:
        pass

    loop.set_debug(True)
    call = getattr(loop, how)
    first = () if how.startswith("call_soon") else (1,)
    for bad in None, 1, "name", coroutine_function:
        with pytest.raises(TypeError):
            call(*first, bad)
    coroutine = coroutine_function()
    with pytest.raises(TypeError):
        call(*first, coroutine)
    coroutine.close()


def test_errors_come_with_the_place_where_the_call_was_made(loop: Loop) -> None:
    loop.set_debug(True)
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))

    def queue_the_failing_call() -> None:
        loop.call_soon(lambda: 1 / 0)

    queue_the_failing_call()
    run_turns(loop)
    [context] = errors
    assert "queue_the_failing_call" in [frame.name for frame in context["source_traceback"]]


def test_coroutines_remember_their_origin_while_the_loop_runs(loop: Loop) -> None:
    depths: list[int] = []
    loop.set_debug(True)
    loop.call_soon(lambda: depths.append(sys.get_coroutine_origin_tracking_depth()))
    run_turns(loop)
    assert depths[0] > 0
    assert sys.get_coroutine_origin_tracking_depth() == 0


def test_it_can_be_turned_on_and_off_while_callbacks_are_queued(loop: Loop) -> None:
    order: list[int] = []
    for i in range(6):
        loop.set_debug(i % 2 == 0)
        loop.call_soon(order.append, i)
        loop.call_at(0, order.append, 10 + i)
    run_turns(loop)
    assert order[:6] == [0, 1, 2, 3, 4, 5]
    assert sorted(order[6:]) == [10, 11, 12, 13, 14, 15]


def test_closing_a_loop_that_was_never_closed_warns(loop_module: ModuleType) -> None:
    loop = loop_module.new_event_loop()
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        collect_garbage()
