"""casync.trace: observers of callbacks and tasks, the slow-callback log, Chrome traces."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import re
import socket
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from growth import assert_flat
from support import Recorder, collect_garbage, tcp_pair, turns

casync_trace = pytest.importorskip("casync.trace")


class Names(casync_trace.Observer):  # type: ignore[misc, name-defined]
    """Writes down the calls, as they begin and as they end."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []

    def before_call(self, call: Any) -> None:
        assert call.duration == 0
        self.begun.append(call.name)

    def after_call(self, call: Any) -> None:
        assert call.duration > 0 and call.start > 0
        self.ended.append(call.name)


def first(*args: object) -> None:
    pass


def second(*args: object) -> None:
    pass


async def pause() -> None:
    await asyncio.sleep(0)


def test_every_kind_of_call_is_seen(casync: ModuleType) -> None:
    async def main() -> None:
        loop, names = asyncio.get_running_loop(), Names()
        ours, theirs = tcp_pair()
        ready, other = socket.socketpair()
        with casync_trace.observe(loop, names):
            loop.call_soon(first, 1)
            loop.call_soon(functools.partial(second, 2))
            loop.call_soon_threadsafe(first)
            loop.call_later(0, second)
            loop.call_at(0, first)
            loop.call_soon(first).cancel()
            loop.add_reader(ready, loop.remove_reader, ready)
            other.send(b"x")
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            theirs.send(b"x")
            await protocol.received(1)
            await loop.create_task(pause(), name="pausing")
            await turns()
            transport.close()
            await protocol.lost
        assert names.begun.count("first") == 3 and names.begun.count("second") == 2
        assert names.begun.count("pause (pausing)") == 2
        assert "Recorder.connection_made" in names.begun and "Recorder.data_received" in names.begun
        assert any("remove_reader" in name for name in names.begun)
        this_step = next(name for name in reversed(names.begun) if "main" in name)  # which goes on
        assert sorted([*names.ended, this_step]) == sorted(names.begun)
        for sock in theirs, ready, other:
            sock.close()

    casync.run(main())


def test_observing_is_no_debug_mode_and_ends(casync: ModuleType) -> None:
    async def main() -> None:
        loop, names = asyncio.get_running_loop(), Names()
        plain = type(loop.call_soon(first))
        with casync_trace.observe(loop, names):
            assert not loop.get_debug()
            handle = loop.call_soon(first)
            assert type(handle) is asyncio.Handle and handle._source_traceback is None
            timer = loop.call_later(3600, first)
            assert isinstance(timer, asyncio.TimerHandle) and timer.when() > loop.time()
            timer.cancel()
            await asyncio.sleep(0)
            late = loop.call_soon(second)  # queued while observed, run after: it runs, unseen
        assert names.begun.count("first") == 1
        assert type(loop.call_soon(first)) is plain
        await turns()
        assert "second" not in names.begun and not late.cancelled()
        assert loop._observer is None

    casync.run(main())


def test_it_adds_to_debug_mode(casync: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop, names = asyncio.get_running_loop(), Names()
        loop.slow_callback_duration = 0
        with casync_trace.observe(loop, names):
            handle = loop.call_soon(first)
            assert handle._source_traceback
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="thread"):
                await asyncio.to_thread(loop.call_soon, first)
        assert names.begun.count("first") == 1
        loop.slow_callback_duration = 3600

    with caplog.at_level(logging.WARNING, "asyncio"):
        casync.run(main(), debug=True)
    assert any("Executing" in message and "first" in message for message in caplog.messages)


def test_calls_from_other_threads_are_taken_without_debug_mode(casync: ModuleType) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        with casync_trace.observe(loop, Names()):
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(done.set_result, 1))
            thread.start()
            assert await done == 1
            thread.join()

    casync.run(main())


def test_several_observers_in_any_order(casync: ModuleType) -> None:
    loop, one, two = casync.new_event_loop(), Names(), Names()
    outer, inner = casync_trace.observe(loop, one), casync_trace.observe(loop, two)

    def run(callback: Callable[..., object]) -> None:
        loop.call_soon(callback)
        loop.call_soon(loop.stop)
        loop.run_forever()

    outer.__enter__()
    run(first)
    inner.__enter__()
    run(second)
    outer.__exit__(None, None, None)
    run(first)
    inner.__exit__(None, None, None)
    run(second)
    assert [name for name in one.begun if "stop" not in name] == ["first", "second"]
    assert [name for name in two.begun if "stop" not in name] == ["second", "first"]
    loop.close()


def test_an_observer_may_observe_twice(casync: ModuleType) -> None:
    async def main() -> None:
        loop, names = asyncio.get_running_loop(), Names()
        with casync_trace.observe(loop, names):
            with casync_trace.observe(loop, names):
                loop.call_soon(first)
                await asyncio.sleep(0)
            loop.call_soon(second)
            await asyncio.sleep(0)
        assert (names.begun.count("first"), names.begun.count("second")) == (2, 1)

    casync.run(main())


def test_an_observer_that_raises_harms_nobody(casync: ModuleType) -> None:
    class Failing(casync_trace.Observer):  # type: ignore[misc, name-defined]
        def before_call(self, call: Any) -> None:
            raise ZeroDivisionError

    async def main() -> None:
        loop, names = asyncio.get_running_loop(), Names()
        told: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: told.append(context))
        with casync_trace.observe(loop, Failing(), names):
            loop.call_soon(first)
            await asyncio.sleep(0)
        assert "first" in names.ended
        assert told and all(isinstance(context["exception"], ZeroDivisionError) for context in told)
        assert "before_call" in told[0]["message"]

    casync.run(main())


def test_exceptions_pass_and_tasks_are_not_kept(casync: ModuleType) -> None:
    async def fail() -> None:
        raise LookupError("on purpose")

    async def main() -> None:
        loop, names = asyncio.get_running_loop(), Names()
        told: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: told.append(context))
        with casync_trace.observe(loop, names, casync_trace.ChromeTrace()):
            loop.call_soon(int, "no number")
            task = loop.create_task(fail())
            with pytest.raises(LookupError):
                await task
            reference = weakref.ref(task)
            del task
            await asyncio.sleep(0)
            collect_garbage()
            assert reference() is None
        assert [type(context["exception"]) for context in told] == [ValueError]

    casync.run(main())


def test_nothing_leaks(casync: ModuleType) -> None:
    async def one_round() -> None:
        loop = asyncio.get_running_loop()
        with casync_trace.observe(loop, casync_trace.ChromeTrace()):
            loop.call_soon(first, object())
            loop.call_later(0, second, object())
            loop.call_later(3600, first).cancel()
            await loop.create_task(pause())

    loop = casync.new_event_loop()
    assert_flat(lambda: loop.run_until_complete(one_round()), rounds=2_000)
    loop.close()


def test_slow_callbacks_are_logged(casync: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with casync_trace.observe(loop, casync_trace.SlowCallbacks(0)):
            loop.call_soon(first)
            await loop.create_task(pause(), name="pausing")
        with casync_trace.observe(loop, casync_trace.SlowCallbacks(3600)):
            loop.call_soon(second)
            await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING, "casync"):
        casync.run(main())
    assert any(
        re.fullmatch(r"first took \d+\.\d{3} seconds", message) for message in caplog.messages
    )
    assert any(message.startswith("pause (pausing) took") for message in caplog.messages)
    assert not any(message.startswith("second took") for message in caplog.messages)


def test_a_chrome_trace(casync: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with casync_trace.chrome_trace(loop, path):
            loop.call_soon(first)
            await asyncio.gather(*(loop.create_task(pause(), name=f"task {i}") for i in range(2)))

    casync.run(main())
    events = json.loads(path.read_text())["traceEvents"]
    assert all(event["tid"] == threading.get_native_id() and event["ts"] > 0 for event in events)
    calls = [event for event in events if event["ph"] == "X"]
    assert [event["cat"] for event in calls if event["name"] == "first"] == ["callback"]
    for name in "pause (task 0)", "pause (task 1)":
        assert [event["cat"] for event in calls if event["name"] == name] == ["task step"] * 2
        begin, end = (event for event in events if event["cat"] == "task" and event["name"] == name)
        assert (begin["ph"], end["ph"]) == ("b", "e")
        assert begin["id"] == end["id"] and begin["ts"] < end["ts"]


def test_a_trace_keeps_the_last_events(casync: ModuleType) -> None:
    async def main() -> None:
        loop, trace = asyncio.get_running_loop(), casync_trace.ChromeTrace(limit=3)
        with casync_trace.observe(loop, trace):
            for _ in range(10):
                loop.call_soon(first)
            loop.call_soon(second)
            await asyncio.sleep(0)
        events = json.loads(trace.as_json())["traceEvents"]
        assert len(events) == 3 and "second" in [event["name"] for event in events]

    casync.run(main())


def test_only_casyncs_loops_can_be_observed(casync: ModuleType) -> None:
    loop = asyncio.SelectorEventLoop()
    with pytest.raises(TypeError, match=r"casync\.EventLoop"):
        casync_trace.observe(loop, Names()).__enter__()
    loop.close()
