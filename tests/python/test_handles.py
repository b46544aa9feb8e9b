"""asyncio.Handle and asyncio.TimerHandle: what call_soon, call_later and call_at give back."""

from __future__ import annotations

import asyncio
import contextvars
import math
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support import Loop, collect_garbage, run_turns

MAKERS: dict[str, Callable[..., asyncio.Handle]] = {
    "call_soon": lambda loop, *args, **kwargs: loop.call_soon(*args, **kwargs),
    "call_soon_threadsafe": lambda loop, *args, **kwargs: loop.call_soon_threadsafe(
        *args, **kwargs
    ),
    "call_later": lambda loop, *args, **kwargs: loop.call_later(0, *args, **kwargs),
    "call_at": lambda loop, *args, **kwargs: loop.call_at(loop.time(), *args, **kwargs),
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
every_debug = pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])


class Thing:
    """Something that can be referenced weakly."""


def callback(*args: object) -> None:
    pass


def type_of_handle(make: Any) -> str:
    if make is MAKERS["call_soon_threadsafe"] and sys.version_info >= (3, 14):
        return "_ThreadSafeHandle"
    return (
        "Handle" if make in (MAKERS["call_soon"], MAKERS["call_soon_threadsafe"]) else "TimerHandle"
    )


@every_maker
@every_debug
def test_it_is_a_handle(loop: Loop, make: Any, debug: bool) -> None:
    loop.set_debug(debug)
    handle = make(loop, callback)
    assert isinstance(handle, asyncio.Handle)
    assert isinstance(handle, getattr(asyncio.events, type_of_handle(make)))
    assert handle.__class__.__name__ == type_of_handle(make)


def test_a_timer_is_a_timer_handle(loop: Loop) -> None:
    for delay in 1, 0, -1:
        assert isinstance(loop.call_later(delay, callback), asyncio.TimerHandle)
    assert isinstance(loop.call_at(1, callback), asyncio.TimerHandle)
    assert not isinstance(loop.call_soon(callback), asyncio.TimerHandle)


@every_maker
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 50])
def test_the_callback_gets_its_arguments(loop: Loop, make: Any, count: int) -> None:
    got: list[tuple[object, ...]] = []
    arguments = [Thing() for _ in range(count)]
    make(loop, lambda *args: got.append(args), *arguments)
    run_turns(loop)
    assert got == [tuple(arguments)]


@every_maker
def test_keyword_arguments_are_refused(loop: Loop, make: Any) -> None:
    with pytest.raises(TypeError):
        make(loop, callback, keyword=1)


@every_maker
def test_a_cancelled_callback_does_not_run(loop: Loop, make: Any) -> None:
    ran: list[int] = []
    handle = make(loop, ran.append, 1)
    assert not handle.cancelled()
    assert handle.cancel() is None
    assert handle.cancelled()
    handle.cancel()
    run_turns(loop)
    assert not ran


@every_maker
def test_cancel_after_the_run_changes_nothing_but_cancelled(loop: Loop, make: Any) -> None:
    ran: list[int] = []
    handle = make(loop, ran.append, 1)
    run_turns(loop)
    assert ran == [1]
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()
    run_turns(loop)
    assert ran == [1]


@every_maker
def test_a_callback_may_cancel_its_own_handle(loop: Loop, make: Any) -> None:
    handle = make(loop, lambda: handle.cancel())
    run_turns(loop)
    assert handle.cancelled()


@every_maker
@every_debug
def test_a_cancelled_handle_drops_callback_and_arguments(
    loop: Loop, make: Any, debug: bool
) -> None:
    loop.set_debug(debug)
    thing = Thing()
    alive = weakref.ref(thing)
    handle = make(loop, callback, thing)
    del thing
    handle.cancel()
    run_turns(loop)
    collect_garbage()
    assert debug or alive() is None
    assert handle.cancelled()


@every_maker
def test_a_handle_drops_callback_and_arguments_after_the_run(casync: Any, make: Any) -> None:
    loop = casync.new_event_loop()
    thing = Thing()
    alive = weakref.ref(thing)
    handle = make(loop, callback, thing)
    del thing
    run_turns(loop)
    assert alive() is None
    assert not handle.cancelled()
    loop.close()


@every_maker
def test_the_loop_drops_a_handle_after_the_run(loop: Loop, make: Any) -> None:
    thing = Thing()
    alive = weakref.ref(thing)
    make(loop, callback, thing)
    del thing
    run_turns(loop)
    collect_garbage()
    assert alive() is None


@every_maker
def test_closing_the_loop_drops_what_did_not_run(loop: Loop, make: Any) -> None:
    thing = Thing()
    alive = weakref.ref(thing)
    make(loop, callback, thing)
    del thing
    loop.close()
    collect_garbage()
    assert alive() is None


@every_maker
def test_a_handle_may_outlive_its_loop(loop_module: Any, make: Any) -> None:
    loop = loop_module.new_event_loop()
    handle = make(loop, callback, 1)
    loop.close()
    del loop
    collect_garbage()
    assert "Handle" in repr(handle)
    handle.cancel()
    assert handle.cancelled()
    assert "cancelled" in repr(handle)


@every_maker
def test_a_cycle_through_a_queued_callback_is_collected_with_the_loop(
    loop_module: Any, make: Any
) -> None:
    loop = loop_module.new_event_loop()
    thing = Thing()
    thing.loop, thing.handle = loop, make(loop, callback, thing)
    alive = weakref.ref(thing)
    loop.close()
    del thing, loop
    collect_garbage()
    assert alive() is None


@every_maker
def test_a_handle_can_be_referenced_weakly(loop: Loop, make: Any) -> None:
    handle = make(loop, callback)
    assert weakref.ref(handle)() is handle


@every_maker
@every_debug
def test_repr_names_the_callback_and_its_state(loop: Loop, make: Any, debug: bool) -> None:
    loop.set_debug(debug)
    handle = make(loop, callback)
    kind = type_of_handle(make)
    assert repr(handle).startswith((f"<{kind} callback()", f"<{kind} when="))
    assert "callback() at " in repr(handle)
    assert ("created at" in repr(handle)) == debug
    handle.cancel()
    assert "cancelled" in repr(handle)


@every_maker
@pytest.mark.skipif(not hasattr(asyncio.Handle, "get_context"), reason="new in Python 3.12")
def test_get_context(loop: Loop, make: Any) -> None:

    context = contextvars.copy_context()
    assert make(loop, callback, context=context).get_context() is context


def test_when_is_the_deadline(loop: Loop) -> None:
    before = loop.time()
    assert loop.call_at(12345.678, callback).when() == 12345.678
    later = loop.call_later(1000, callback)
    assert before + 1000 <= later.when() <= loop.time() + 1000
    later.cancel()
    assert later.when() >= before + 1000


def test_timer_handles_are_ordered_by_deadline(loop: Loop) -> None:
    first, second, twin = (loop.call_at(when, callback) for when in (1.0, 2.0, 2.0))
    assert first < second and second > first
    assert first <= second <= twin and twin >= second >= first
    assert first != second
    assert second == twin
    assert sorted([twin, first])[0] is first
    assert len({first, second}) == 2


def test_bad_delays_are_refused(casync: Any) -> None:
    loop = casync.new_event_loop()
    for bad in "1", None, object():
        with pytest.raises(TypeError):
            loop.call_later(bad, callback)
        with pytest.raises(TypeError):
            loop.call_at(bad, callback)
    assert loop.call_later(1, callback).when() > 0
    loop.close()


@every_maker
def test_a_closed_loop_takes_no_callback(loop: Loop, make: Any) -> None:
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        make(loop, callback)


@pytest.mark.parametrize("how", ["call_later", "call_at"])
def test_a_time_that_is_no_number_is_now(loop: Loop, how: str) -> None:
    ran: list[str] = []
    handle = getattr(loop, how)(float("nan"), ran.append, "ran")
    assert isinstance(handle, asyncio.TimerHandle) and math.isnan(handle.when())
    run_turns(loop, 2)
    assert ran == ["ran"]


thread_safe = pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
ASKED: dict[str, Callable[[Any], Any]] = {
    "cancel": lambda handle: handle.cancel(),
    "cancelled": lambda handle: handle.cancelled(),
    "_run": lambda handle: handle._run(),
}


def let_others_run() -> None:
    """Gives up the GIL so often that a thread which does not have to wait has gone on."""
    for _ in range(1000):
        time.sleep(0)


@thread_safe
@every_debug
@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED.keys())
def test_another_thread_waits_while_the_callback_runs(loop: Loop, ask: Any, debug: bool) -> None:
    loop.set_debug(debug)
    started, events = threading.Event(), []

    def slow() -> None:
        started.set()
        let_others_run()
        events.append("ran")
        if len(events) == 1:  # asyncio's _run may run it once more
            loop.call_soon(loop.stop)

    def other_thread() -> None:
        handle = loop.call_soon_threadsafe(slow)
        started.wait()
        try:
            events.append((ask(handle), events[0]))
        except RuntimeError as error:  # ours has run already
            events.append((None, str(error)))

    thread = threading.Thread(target=other_thread)
    thread.start()
    loop.run_forever()
    thread.join()
    assert events[0] == "ran"
    assert events[-1] in [
        (None, "ran"),
        (False, "ran"),
        (None, "the handle has run, or was cancelled"),
    ]


@thread_safe
@every_debug
def test_another_thread_may_cancel_what_has_not_run(loop: Loop, debug: bool) -> None:
    loop.set_debug(debug)
    ran: list[int] = []
    cancelled = threading.Event()

    def other_thread() -> None:
        handle = loop.call_soon_threadsafe(ran.append, 1)
        handle.cancel()
        assert handle.cancelled()
        handle._run()  # does nothing
        cancelled.set()

    thread = threading.Thread(target=other_thread)
    loop.call_soon(cancelled.wait)
    thread.start()
    run_turns(loop, 2)
    thread.join()
    assert cancelled.is_set() and not ran


@thread_safe
@every_debug
def test_the_loop_waits_while_another_thread_runs_a_handle(loop: Loop, debug: bool) -> None:
    """One of the two cancels it in there, so it does not run a second time."""
    loop.set_debug(debug)
    started, events = threading.Event(), []

    def slow() -> None:
        started.set()
        let_others_run()
        events.append("ran")
        handle.cancel()

    handle: Any = loop.call_soon_threadsafe(slow)
    thread = threading.Thread(target=handle._run)
    thread.start()
    started.wait()
    loop.call_soon(events.append, "next")
    run_turns(loop, 2)
    thread.join()
    assert events == ["ran", "next"]


@thread_safe
@every_debug
def test_a_callback_cancels_and_asks_its_own_thread_safe_handle(loop: Loop, debug: bool) -> None:
    loop.set_debug(debug)
    answers: list[bool] = []

    def itself() -> None:
        answers.append(handle.cancelled())
        handle.cancel()
        answers.append(handle.cancelled())

    handle: Any = loop.call_soon_threadsafe(itself)
    run_turns(loop)
    assert answers == [False, True] and handle.cancelled()
