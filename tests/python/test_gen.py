"""casync.gen: generators as tasks, and asyncio beside them."""

from __future__ import annotations

import asyncio
import contextvars
import traceback
import types
from types import ModuleType
from typing import Any

import pytest
from casync import gen
from gen_support import Steps, by_yield
from support import Loop, ended, python, run_script


def returning(value: Any, turns: int = 1) -> Steps:
    for _ in range(turns):
        yield
    return value


def raising(error: BaseException) -> Steps:
    yield
    raise error


def forever(events: list[str] | None = None) -> Steps:
    try:
        yield from gen.Event().wait()
    except gen.GenCancelledError:
        if events is not None:
            events.append("cancelled")
        raise


# -- run --


def test_run_returns_what_the_generator_returns(casync: ModuleType) -> None:
    def main() -> Steps:
        yield
        loop = asyncio.get_running_loop()
        return isinstance(loop, casync.EventLoop), loop.get_debug()

    assert gen.run(main(), debug=False) == (True, False)
    assert gen.run(main(), debug=True) == (True, True)


def test_run_raises_what_the_generator_raises(casync: ModuleType) -> None:
    with pytest.raises(LookupError, match="of main"):
        gen.run(raising(LookupError("of main")))


def test_run_takes_a_coroutine_too(casync: ModuleType) -> None:
    async def main() -> int:
        return await gen.create_task(returning(5))

    assert gen.run(main()) == 5


def test_run_says_what_it_takes(casync: ModuleType) -> None:
    def main() -> Steps:
        yield

    with pytest.raises(TypeError, match="call it first"):
        gen.run(main)
    with pytest.raises(TypeError, match="not None"):
        gen.run(None)


def test_run_refuses_to_run_inside_a_running_loop(casync: ModuleType) -> None:
    def main() -> Steps:
        with pytest.raises(RuntimeError, match="running event loop"):
            gen.run(returning(1))
        yield

    gen.run(main())


def test_run_cancels_leftovers_which_may_wait_while_they_clean_up(casync: ModuleType) -> None:
    events: list[str] = []

    def leftover() -> Steps:
        try:
            yield from gen.Event().wait()
        finally:
            yield from gen.sleep(0)
            events.append("cleaned up")

    def main() -> Steps:
        kept.append(gen.create_task(leftover()))
        yield

    kept: list[Any] = []
    gen.run(main())
    assert events == ["cleaned up"] and kept[0].cancelled()


# -- turns and tasks --


@by_yield
def test_a_bare_yield_gives_up_one_turn(loop: Loop) -> Steps:
    order: list[str] = []

    def worker(name: str) -> Steps:
        for _ in range(3):
            order.append(name)
            yield

    yield from gen.gather(worker("a"), worker("b"))
    assert order == ["a", "b"] * 3


@by_yield
def test_sleep_wakes_in_the_order_of_deadlines(loop: Loop) -> Steps:
    order: list[float] = []

    def sleeper(delay: float) -> Steps:
        order.append((yield from gen.sleep(delay, delay)))

    took = 1.0
    while took > 0.005:  # all begin in one turn: if the machine stalled in it, once more
        order.clear()
        begun, asleep = loop.time(), loop.create_future()
        gathering = gen.gather(*(sleeper(delay) for delay in (0.03, 0.01, 0, 0.02)))
        loop.call_soon(lambda asleep=asleep: asleep.set_result(loop.time()))
        took = (yield from asleep) - begun
        yield from gathering
    assert order == [0, 0.01, 0.02, 0.03]


@by_yield
def test_a_task_runs_beside_its_creator_and_gives_its_result(loop: Loop) -> Steps:
    events: list[str] = []

    def child() -> Steps:
        events.append("child")
        return (yield from returning("result", 3))

    task = gen.create_task(child(), name="the child")
    assert isinstance(task, gen.Task) and task.get_name() == "the child"
    events.append("created")
    assert (yield from task) == "result"
    assert (yield from task) == "result", "waiting does not consume"
    assert events == ["created", "child"]
    assert task.done() and task.result() == "result" and task.exception() is None


@by_yield
def test_the_loop_makes_tasks_too(loop: Loop) -> Steps:
    running = gen.get_running_loop()
    assert running == gen.get_running_loop() == loop and len({running, gen.get_running_loop()}) == 1
    assert (yield from running.create_task(returning(1))) == 1
    called = running.create_future()
    running.call_soon(called.set_result, "called")
    assert (yield from called) == "called"


def test_there_is_no_running_loop_outside() -> None:
    with pytest.raises(RuntimeError):
        gen.get_running_loop()


@by_yield
def test_what_a_task_raises_is_raised_where_it_is_waited_for(loop: Loop) -> Steps:
    task = gen.create_task(raising(LookupError("of the task")))
    with pytest.raises(LookupError) as caught:
        yield from task
    assert caught.value is task.exception()
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "raising"


@by_yield
def test_a_tasks_repr_names_its_generator(loop: Loop) -> Steps:
    task = gen.create_task(returning(1))
    assert "returning" in repr(task)
    yield from task


@by_yield
def test_only_generators_and_coroutines_become_tasks(loop: Loop) -> Steps:
    for bad in None, 1, [1], returning:
        with pytest.raises(TypeError, match="generator or a coroutine"):
            gen.create_task(bad)
    with pytest.raises(TypeError):
        gen.gather(1)
    yield


# -- cancellation --


@by_yield
def test_the_generator_sees_the_cancellation(loop: Loop) -> Steps:
    events: list[str] = []
    task = gen.create_task(forever(events))
    yield
    assert task.cancel() is True
    with pytest.raises(gen.GenCancelledError):
        yield from task
    assert task.cancelled() and events == ["cancelled"]
    assert task.cancel() is False


@by_yield
def test_a_task_can_be_cancelled_before_it_starts(loop: Loop) -> Steps:
    events: list[str] = []
    task = gen.create_task(forever(events))
    task.cancel()
    with pytest.raises(gen.GenCancelledError):
        yield from task
    assert task.cancelled() and not events


@by_yield
def test_a_cancellation_can_be_caught(loop: Loop) -> Steps:
    def stubborn() -> Steps:
        try:
            yield from gen.sleep(3600)
        except gen.GenCancelledError:
            return (yield from returning("went on"))

    task = gen.create_task(stubborn())
    yield
    task.cancel()
    assert (yield from task) == "went on"
    assert not task.cancelled()


@by_yield
def test_a_cancellation_reaches_the_task_that_is_waited_for(loop: Loop) -> Steps:
    def outer() -> Steps:
        yield from inner

    inner = gen.create_task(forever())
    task = gen.create_task(outer())
    yield
    task.cancel()
    with pytest.raises(gen.GenCancelledError):
        yield from task
    assert inner.cancelled()


# -- gather --


@by_yield
def test_gather_gives_the_results_in_order(loop: Loop) -> Steps:
    async def coroutine() -> str:
        return "coroutine"

    future = loop.create_future()
    loop.call_soon(future.set_result, "future")
    task = gen.create_task(returning("task"))
    results = yield from gen.gather(returning("generator", 5), task, coroutine(), future, task)
    assert results == ["generator", "task", "coroutine", "future", "task"]
    assert (yield from gen.gather()) == []
    same = returning("same")
    assert (yield from gen.gather(same, same)) == ["same", "same"]


@by_yield
def test_gather_begins_when_it_is_called(loop: Loop) -> Steps:
    started = gen.Event()

    def child() -> Steps:
        started.set()
        return (yield from returning(1))

    gathering = gen.gather(child())
    yield from started.wait()
    assert (yield from gathering) == [1]


@by_yield
def test_gather_raises_the_first_error_and_the_others_go_on(loop: Loop) -> Steps:
    other = gen.create_task(returning("other", 10))
    with pytest.raises(LookupError, match="first"):
        yield from gen.gather(other, raising(LookupError("first")))
    assert not other.done()
    assert (yield from other) == "other"


@by_yield
def test_gather_returns_exceptions_if_asked_to(loop: Loop) -> Steps:
    error = LookupError("a result")
    assert (yield from gen.gather(raising(error), returning(1), return_exceptions=True)) == [
        error,
        1,
    ]


@by_yield
def test_gather_over_tasks_just_cancelled_returns(loop: Loop) -> Steps:
    tasks = [gen.create_task(forever()) for _ in range(3)]
    yield
    for task in tasks:
        task.cancel()
    results = yield from gen.gather(*tasks, returning("not cancelled"))
    assert [type(result) for result in results[:3]] == [gen.GenCancelledError] * 3
    assert results[3] == "not cancelled" and all(task.cancelled() for task in tasks)


@by_yield
def test_a_cancelled_gathering_cancels_and_ends_after_its_children(loop: Loop) -> Steps:
    events: list[str] = []

    def child() -> Steps:
        try:
            yield from gen.Event().wait()
        finally:
            yield from returning(None, 3)
            events.append("child ended")

    def gatherer() -> Steps:
        yield from gen.gather(child(), child())

    task = gen.create_task(gatherer())
    yield
    yield
    task.cancel()
    with pytest.raises(gen.GenCancelledError):
        yield from task
    assert events == ["child ended"] * 2


@by_yield
def test_gather_of_many(loop: Loop) -> Steps:
    results = yield from gen.gather(*(returning(number, number % 3) for number in range(1000)))
    assert results == list(range(1000))


# -- wait_for --


@by_yield
def test_wait_for_gives_the_result_in_time(loop: Loop) -> Steps:
    assert (yield from gen.wait_for(returning(1), 3600)) == 1
    assert (yield from gen.wait_for(returning(1), None)) == 1
    assert (yield from gen.wait_for(gen.create_task(returning(2)), 3600)) == 2
    with pytest.raises(LookupError):
        yield from gen.wait_for(raising(LookupError()), 3600)


@by_yield
def test_wait_for_cancels_what_takes_too_long(loop: Loop) -> Steps:
    events: list[str] = []
    with pytest.raises(asyncio.TimeoutError):
        yield from gen.wait_for(forever(events), 0.001)
    task = gen.create_task(forever(events))
    with pytest.raises(asyncio.TimeoutError):
        yield from gen.wait_for(task, 0.001)
    assert task.cancelled() and events == ["cancelled"] * 2


# -- with asyncio --


@by_yield
def test_generators_wait_for_asyncio(loop: Loop) -> Steps:
    async def coroutine() -> str:
        await asyncio.sleep(0)
        return "of the coroutine"

    future = loop.create_future()
    loop.call_soon(future.set_result, "of the future")
    assert (yield from future) == "of the future"
    assert (yield from gen.create_task(coroutine())) == "of the coroutine"
    assert (yield from asyncio.ensure_future(coroutine())) == "of the coroutine"
    assert (yield from coroutine().__await__()) == "of the coroutine"
    assert (yield from gen.wait_for(coroutine(), 3600)) == "of the coroutine"


async def test_coroutines_await_generators(loop: Loop) -> None:
    task = gen.create_task(returning("of the generator"))
    assert await task == "of the generator"
    assert await asyncio.gather(gen.create_task(returning(1)), gen.sleep(0, 2)) == [1, 2]
    assert await gen.gather(returning(1), returning(2)) == [1, 2]
    assert await gen.wait_for(returning(3), 3600) == 3
    with pytest.raises(LookupError):
        await gen.create_task(raising(LookupError()))


async def test_functions_for_both_worlds(loop: Loop) -> None:
    @types.coroutine
    def both() -> Steps:
        first = yield from asyncio.sleep(0, 1)
        second = yield from gen.sleep(0, 2)
        return first + second

    def generator() -> Steps:
        return (yield from both())

    assert await both() == 3
    assert await gen.create_task(both()) == 3
    assert await gen.create_task(generator()) == 3


async def test_coroutines_and_generators_share_what_they_wait_on(loop: Loop) -> None:
    lock, queue, done = gen.Lock(), gen.Queue(1), gen.Event()
    order: list[str] = []

    def generator() -> Steps:
        for number in range(3):
            yield from queue.put(number)
        with lock as held:
            yield from held
            order.append("generator")
        done.set()

    async with lock:
        task = gen.create_task(generator())
        assert [await queue.get() for _ in range(3)] == [0, 1, 2]
        await asyncio.sleep(0)
        order.append("coroutine")
    await done.wait()
    await task
    assert order == ["coroutine", "generator"]


@by_yield
def test_the_current_task_and_its_context(loop: Loop) -> Steps:
    variable = contextvars.ContextVar("variable", default="default")

    def child() -> Steps:
        assert variable.get() == "parent's"
        variable.set("child's")
        yield
        return variable.get(), asyncio.current_task()

    variable.set("parent's")
    task = gen.create_task(child())
    assert (yield from task) == ("child's", task)
    assert variable.get() == "parent's"


def test_every_public_name_is_there(casync: ModuleType) -> None:
    names = {
        "run",
        "sleep",
        "create_task",
        "gather",
        "wait_for",
        "get_running_loop",
        "GenCancelledError",
    }
    names |= {"Event", "Lock", "Semaphore", "Condition", "Queue", "Task", "Future"}
    assert names <= set(gen.__all__)
    assert all(hasattr(gen, name) for name in gen.__all__)


def test_importing_casync_does_not_import_it(casync: ModuleType) -> None:
    ended(python("-c", "import casync, sys; assert 'casync.gen' not in sys.modules"))
    ended(python("-c", "import casync.gen, sys; assert 'h11' not in sys.modules"))


def test_submodules_are_attributes(casync: ModuleType) -> None:
    code = (
        "from casync import gen; gen.http.Server, gen.http.server.Request, gen.gensocket.GenSocket"
    )
    ended(python("-c", code))
    assert gen.GenSocket is gen.gensocket.GenSocket
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        gen.other  # noqa: B018


def test_what_is_not_waited_for_is_reported(casync: ModuleType) -> None:
    """As asyncio does: the error of a task that nobody asks for is logged."""
    output = run_script(
        casync,
        """
        from casync import gen
        def fails():
            yield
            raise LookupError("nobody asks")
        def main():
            gen.create_task(fails())
            yield from gen.sleep(0.001)
        gen.run(main())
        """,
    )
    assert "never retrieved" in output and "nobody asks" in output
