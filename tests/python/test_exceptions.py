"""What becomes of an exception that a callback or a task raises."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from support import Loop, errors_of, run_turns, unix_pair


def fail() -> None:
    raise LookupError("of the callback")


@pytest.mark.parametrize("how", ["call_soon", "call_soon_threadsafe", "call_later"])
def test_an_exception_goes_to_the_exception_handler(loop: Loop, how: str) -> None:
    errors, ran = errors_of(loop), []
    arguments = (0, fail) if how == "call_later" else (fail,)
    handle = getattr(loop, how)(*arguments)
    loop.call_soon(ran.append, 1)
    run_turns(loop, 2)
    assert ran == [1]
    [context] = errors
    assert isinstance(context["exception"], LookupError)
    assert context["handle"] is handle
    assert context["message"].startswith("Exception in callback fail()")


def test_an_exception_in_a_watchers_callback_goes_there_too(loop: Loop) -> None:
    errors = errors_of(loop)
    ours, theirs = unix_pair()

    def readable() -> None:
        ours.recv(1)
        fail()

    with ours, theirs:
        loop.add_reader(ours, readable)
        theirs.send(b"xy")
        run_turns(loop, 2)
        loop.remove_reader(ours)
    assert [type(context["exception"]) for context in errors] == [LookupError, LookupError]


def test_without_a_handler_it_is_logged(loop_module: Any, caplog: pytest.LogCaptureFixture) -> None:
    loop = loop_module.new_event_loop()
    loop.call_soon(fail)
    run_turns(loop)
    loop.close()
    [record] = caplog.records
    assert (record.name, record.levelno) == ("asyncio", logging.ERROR)
    assert "Exception in callback fail()" in record.message
    assert isinstance(record.exc_info[1], LookupError)


def test_an_exception_in_the_handler_is_logged(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    def bad_handler(loop: Loop, context: dict[str, Any]) -> None:
        raise ValueError("of the handler")

    loop.set_exception_handler(bad_handler)
    loop.call_soon(fail)
    run_turns(loop, 2)
    assert "Unhandled error in exception handler" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("how", ["call_soon", "call_soon_threadsafe", "call_later"])
def test_interrupts_leave_the_loop_at_once_and_keep_the_rest(
    loop: Loop, error: Any, how: str
) -> None:
    order: list[str] = []

    def interrupt() -> None:
        order.append("interrupt")
        raise error

    arguments = (0, interrupt) if how == "call_later" else (interrupt,)
    getattr(loop, how)(*arguments)
    for i in range(3):
        loop.call_later(0, order.append, f"later {i}")
    if how != "call_later":
        loop.call_soon(order.append, "soon")
    with pytest.raises(error):
        loop.run_forever()
    assert order == ["interrupt"]
    assert not loop.is_running()
    run_turns(loop, 2)
    expected = ["soon", "later 0", "later 1", "later 2"]
    assert order[1:] == (expected if how != "call_later" else expected[1:])


def test_a_cancelled_error_in_a_callback_is_an_error_like_any_other(loop: Loop) -> None:
    errors = errors_of(loop)

    def cancelled() -> None:
        raise asyncio.CancelledError

    loop.call_soon(cancelled)
    run_turns(loop)
    assert [type(context["exception"]) for context in errors] == [asyncio.CancelledError]


def test_a_task_nobody_awaited_reports_its_exception(loop: Loop) -> None:
    errors = errors_of(loop)

    async def failing() -> None:
        fail()

    task = loop.create_task(failing())
    run_turns(loop, 2)
    del task
    [context] = errors
    assert context["message"] == "Task exception was never retrieved"


def test_the_default_handler_can_be_called_from_ones_own(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.set_exception_handler(lambda loop, context: loop.default_exception_handler(context))
    loop.call_soon(fail)
    run_turns(loop)
    assert "Exception in callback fail()" in caplog.text
    assert loop.get_exception_handler() is not None
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None
