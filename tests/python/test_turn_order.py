"""The order in which a loop runs what it has to run."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import socket
import time
from collections.abc import Callable
from types import ModuleType

import pytest
from support import Loop, receive_all, run_turns, unix_pair


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


# ---- how often a loop with work ready asks the kernel ----

EMPTY_POLLS = 16  # so many in a row find nothing before polls are skipped,
SKIPPED_TURNS = 64  # at most so many turns long


def turns_until_read(loop: Loop, before: int) -> int:
    """Callbacks queue each other; after so many of them a descriptor gets ready. How many more run
    before its reader?"""
    ours, theirs = unix_pair()
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        loop.call_soon(again)
        if count == before:
            theirs.send(b"x")

    with ours, theirs:
        loop.add_reader(ours, loop.stop)
        loop.call_soon(again)
        loop.run_forever()
        loop.remove_reader(ours)
    return count - before


@pytest.mark.parametrize("before", range(1, EMPTY_POLLS))
def test_a_ready_reader_runs_one_turn_later_whatever_else_is_queued(
    loop: Loop, before: int
) -> None:
    assert turns_until_read(loop, before) == 1


@pytest.mark.parametrize("before", [EMPTY_POLLS, 100, 1_000, 10_000])
def test_a_ready_reader_waits_a_bounded_number_of_turns_when_many_polls_were_empty(
    loop: Loop, before: int
) -> None:
    assert 1 <= turns_until_read(loop, before) <= SKIPPED_TURNS + 1


@pytest.mark.parametrize("awaits", range(6))
async def test_an_answer_without_reading_is_no_reset(loop: Loop, awaits: int) -> None:
    """A server that says it is busy, after a lock, a queue, a middleware: the request that nobody
    reads has left the kernel by then, or closing would reset the connection."""

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3 + awaits):
            await asyncio.sleep(0)
        writer.write(b"busy")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(busy, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for _ in range(10):
        with socket.create_connection(address) as client:
            client.sendall(b"request")
            client.setblocking(False)
            assert await receive_all(client) == b"busy"
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"request")
        assert await reader.read() == b"busy"
        writer.close()
        await writer.wait_closed()
    server.close()


class PollCounter:
    """Callbacks that queue each other in a loop of casync's, and what it counts in each turn."""

    def __init__(self, casync: ModuleType) -> None:
        self.loop = casync.new_event_loop()
        self.polled: list[bool] = []  # did the turn ask the kernel?
        self.at: dict[int, Callable[[], object]] = {}  # what is called in which turn
        self._last = self.loop.metrics()

    def _again(self) -> None:
        now = self.loop.metrics()
        assert now["turns"] == self._last["turns"] + 1
        self.polled.append(now["polls"] > self._last["polls"])
        self._last = now
        if act := self.at.pop(len(self.polled), None):
            act()
        self.loop.call_soon(self._again)

    def run(self, turns: int) -> None:
        self.at[turns] = self.loop.stop
        self.loop.call_soon(self._again)
        self.loop.run_forever()
        self.loop.close()


def longest_pause(polled: list[bool]) -> int:
    return max(
        (len(list(group)) for skipped, group in itertools.groupby(polled) if not skipped), default=0
    )


def test_every_turn_polls_until_many_polls_were_empty(casync: ModuleType) -> None:
    counter = PollCounter(casync)
    counter.run(10_000)
    assert all(counter.polled[:EMPTY_POLLS])
    assert sum(counter.polled) < 10_000  # the rule pays
    assert longest_pause(counter.polled) <= SKIPPED_TURNS


def test_a_poll_that_finds_something_makes_every_turn_poll_again(casync: ModuleType) -> None:
    counter = PollCounter(casync)
    ours, theirs = unix_pair()
    found: list[int] = []

    def readable() -> None:
        ours.recv(1)
        found.append(len(counter.polled))

    with ours, theirs:
        counter.loop.add_reader(ours, readable)
        for turn in 1_000, 2_000:
            counter.at[turn] = lambda: theirs.send(b"x")
        counter.run(3_000)
    for turn, began in zip(found, (1_000, 2_000), strict=True):
        assert turn - began <= SKIPPED_TURNS + 1
        assert all(counter.polled[turn - 1 : turn + EMPTY_POLLS])


@pytest.mark.parametrize("watch", ["add_reader", "add_writer"])
def test_what_is_newly_watched_makes_every_turn_poll_again(casync: ModuleType, watch: str) -> None:
    counter = PollCounter(casync)
    ours, theirs = unix_pair()
    with ours, theirs:
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(bytes(65536))  # it is not writable
        counter.at[1_000] = lambda: getattr(counter.loop, watch)(ours, int)
        counter.run(2_000)
    assert all(counter.polled[1_000 : 1_000 + EMPTY_POLLS])
    assert longest_pause(counter.polled) <= SKIPPED_TURNS


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
