"""The order in which a loop runs what it has to run."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time

from support import Loop, run_turns, unix_pair


def test_a_turn_runs_what_was_ready_then_io_then_timers(loop: Loop) -> None:
    ours, theirs = unix_pair()
    order: list[str] = []

    def readable() -> None:
        loop.remove_reader(ours)
        order.append("io")

    with ours, theirs:
        theirs.send(b"x")
        loop.add_reader(ours, readable)
        loop.call_later(0, order.append, "later")
        loop.call_soon(order.append, "soon")
        loop.call_soon(order.append, "soon")
        run_turns(loop)
    assert order == ["soon", "soon", "io", "later"]


def test_what_a_callback_queues_waits_for_the_next_turn(loop: Loop) -> None:
    order: list[str] = []

    def first() -> None:
        order.append("first")
        loop.call_soon(order.append, "queued by first")
        loop.call_later(0, order.append, "timer of first")

    loop.call_soon(first)
    loop.call_soon(order.append, "second")
    run_turns(loop)
    assert order == ["first", "second"]
    run_turns(loop)
    assert order == ["first", "second", "queued by first", "timer of first"]


def test_stop_lets_the_turn_end(loop: Loop) -> None:
    order: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(order.append, "same turn")
    loop.call_soon(lambda: loop.call_soon(order.append, "next turn"))
    loop.run_forever()
    assert order == ["same turn"]
    run_turns(loop)
    assert order == ["same turn", "next turn"]


def test_stop_before_run_forever_still_delivers_io(loop: Loop) -> None:
    ours, theirs = unix_pair()
    got: list[bytes] = []
    with ours, theirs:
        loop.add_reader(ours, lambda: got.append(ours.recv(1)))
        theirs.send(b"x")
        loop.call_soon(int)
        run_turns(loop)
        loop.remove_reader(ours)
    assert got == [b"x"]


def test_io_does_not_starve_while_callbacks_queue_callbacks(loop: Loop) -> None:
    ours, theirs = unix_pair()
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        loop.call_soon(again)
        if count == 100:
            theirs.send(b"x")

    with ours, theirs:
        loop.add_reader(ours, loop.stop)
        loop.call_soon(again)
        loop.run_forever()
        loop.remove_reader(ours)
    assert count <= 100 + 100


def test_timers_do_not_starve_while_callbacks_queue_callbacks(loop: Loop) -> None:
    def again() -> None:
        loop.call_soon(again)

    loop.call_soon(again)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()


def test_call_soon_is_first_in_first_out(loop: Loop) -> None:
    order: list[int] = []
    for i in range(10_000):
        loop.call_soon(order.append, i)
    run_turns(loop)
    assert order == list(range(10_000))


def test_timers_run_in_the_order_of_their_deadlines_and_never_early(loop: Loop) -> None:
    early: list[float] = []
    order: list[float] = []

    def due(when: float) -> None:
        order.append(when)
        if loop.time() < when:
            early.append(when - loop.time())

    start = loop.time()
    deadlines = [start + random.random() * 0.05 for _ in range(2_000)]
    for when in deadlines:
        loop.call_at(when, due, when)
    loop.call_at(max(deadlines) + 0.001, loop.stop)
    loop.run_forever()
    assert sorted(order) == sorted(deadlines)
    nanosecond = 1e-9  # deadlines closer than that may count as equal
    assert all(one < two + nanosecond for one, two in itertools.pairwise(order))
    assert not early


def test_timers_with_the_same_deadline_run_in_the_order_they_were_made(casync: object) -> None:
    loop = casync.new_event_loop()
    order: list[int] = []
    for when in loop.time() + 0.005, loop.time() - 1:
        for i in range(1_000):
            loop.call_at(when, order.append, i)
    loop.call_at(loop.time() + 0.01, loop.stop)
    loop.run_forever()
    loop.close()
    assert order == list(range(1_000)) * 2


def test_deadlines_in_the_past_are_due_in_the_next_turn(loop: Loop) -> None:
    order: list[str] = []
    loop.call_later(-5, order.append, "five seconds ago")
    loop.call_at(loop.time() - 1, order.append, "a second ago")
    loop.call_later(0, order.append, "now")
    run_turns(loop)
    assert order == ["five seconds ago", "a second ago", "now"]


def test_deadlines_may_be_very_far_away(loop: Loop) -> None:
    for delay in 1e6, 1e12, 1e300, math.inf:
        handle = loop.call_later(delay, loop.stop)
        assert handle.when() >= delay
        run_turns(loop)
        handle.cancel()
    loop.call_later(0.001, loop.stop)
    loop.run_forever()


def test_a_callback_can_cancel_what_is_due_in_the_same_turn(loop: Loop) -> None:
    order: list[str] = []
    now = loop.time()
    loop.call_soon(lambda: [handle.cancel() for handle in doomed])
    loop.call_at(now - 2, lambda: doomed_timer.cancel())
    doomed_timer = loop.call_at(now - 1, order.append, "cancelled timer")
    doomed = [
        loop.call_soon(order.append, "cancelled call"),
        loop.call_at(now - 3, order.append, "cancelled"),
    ]
    loop.call_at(now, order.append, "last")
    run_turns(loop, 2)
    assert order == ["last"]


def test_cancelled_timers_never_run(loop: Loop) -> None:
    ran: list[int] = []
    start = loop.time()
    handles = [loop.call_at(start + i / 100_000, ran.append, i) for i in range(2_000)]
    random.Random(1).shuffle(handles)
    for handle in handles[:1_000]:
        handle.cancel()
    loop.call_at(start + 0.03, loop.stop)
    loop.run_forever()
    assert len(ran) == 1_000
    assert ran == sorted(ran)


def test_time_is_the_monotonic_clock_in_seconds(loop: Loop) -> None:
    before = time.monotonic()
    now = loop.time()
    assert isinstance(now, float)
    assert before <= now <= time.monotonic()


def test_sleep_zero_takes_exactly_one_turn(loop: Loop) -> None:
    order: list[str] = []

    async def task(name: str) -> None:
        for i in range(3):
            order.append(f"{name}{i}")
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(task("a"), task("b"))

    loop.run_until_complete(main())
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]
