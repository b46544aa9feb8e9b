"""What happens when callbacks raise, and the context they run in."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from typing import Any

import pytest
from support import Loop, run_turns, turns, unix_pair

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")


def fail() -> None:
    raise LookupError("of the callback")


def errors_of(loop: Loop) -> list[dict[str, Any]]:
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    return errors


@pytest.mark.parametrize("how", ["call_later", "call_at"])
def test_a_time_that_is_no_number_is_now(loop: Loop, how: str) -> None:
    ran: list[str] = []
    handle = getattr(loop, how)(float("nan"), ran.append, "ran")
    assert isinstance(handle, asyncio.TimerHandle) and math.isnan(handle.when())
    run_turns(loop, 2)
    assert ran == ["ran"]


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


@pytest.mark.parametrize("how", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_a_context_that_is_none_is_found_when_the_callback_is_called(loop: Loop, how: str) -> None:
    class Runs:
        def run(self, function: Any, *args: Any) -> Any:
            ran.append("by its own run()")
            return function(*args)

    errors, ran = errors_of(loop), []
    before = (0,) if how in ("call_later", "call_at") else ()
    for context in 1, Runs():
        getattr(loop, how)(*before, ran.append, "the callback", context=context)
    getattr(loop, how)(*before, lambda *args: ran.extend(args), 1, 2, 3, 4, context=Runs())
    run_turns(loop, 2)
    assert [type(context["exception"]) for context in errors] == [AttributeError]
    assert ran == ["by its own run()", "the callback", "by its own run()", 1, 2, 3, 4]


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


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("how", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_a_callback_runs_in_a_copy_of_the_context_it_was_queued_in(
    loop: Loop, how: str, debug: bool
) -> None:
    loop.set_debug(debug)
    seen: list[str] = []

    def callback() -> None:
        seen.append(variable.get())
        variable.set("changed by the callback")

    def queue(**options: Any) -> None:
        arguments = {"call_later": (0, callback), "call_at": (loop.time(), callback)}.get(
            how, (callback,)
        )
        getattr(loop, how)(*arguments, **options)

    variable.set("when queued")
    own = contextvars.copy_context()
    own.run(variable.set, "own context")
    queue()
    queue(context=own)
    variable.set("when run")
    run_turns(loop, 2)
    assert seen == ["when queued", "own context"]
    assert variable.get() == "when run"
    assert own[variable] == "changed by the callback"


def test_a_watchers_callback_runs_in_the_context_it_was_added_in(loop: Loop) -> None:
    ours, theirs = unix_pair()
    seen: list[str] = []
    with ours, theirs:
        variable.set("when added")
        loop.add_reader(ours, lambda: (ours.recv(1), seen.append(variable.get())))
        variable.set("when run")
        theirs.send(b"x")
        run_turns(loop, 2)
        loop.remove_reader(ours)
    assert seen == ["when added"]


async def test_every_task_has_a_context_of_its_own(loop: Loop) -> None:
    async def task(name: str) -> str:
        variable.set(name)
        await turns()
        return variable.get()

    variable.set("outer")
    assert await asyncio.gather(*(task(name) for name in "abc")) == ["a", "b", "c"]
    assert variable.get() == "outer"


async def test_protocol_callbacks_run_in_the_context_the_transport_was_made_in(loop: Loop) -> None:
    seen: dict[str, str] = {}

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            seen["made"] = variable.get()

        def data_received(self, data: bytes) -> None:
            seen["data"] = variable.get()

        def connection_lost(self, exc: BaseException | None) -> None:
            lost.set_result(None)

    lost = loop.create_future()
    ours, theirs = unix_pair()
    with theirs:
        variable.set("when made")
        await loop.create_connection(Protocol, sock=ours)
        variable.set("later")
        theirs.send(b"x")
        await turns()
        theirs.close()
        await lost
    assert seen == {"made": "when made", "data": "when made"}


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
