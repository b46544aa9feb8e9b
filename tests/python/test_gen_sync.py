"""casync.gen: events, locks, semaphores, conditions, queues."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from casync import gen
from gen_support import Steps, by_yield
from support import Loop


def turns(count: int = 5) -> Steps:
    for _ in range(count):
        yield


@by_yield
def test_an_event_wakes_all_who_wait(loop: Loop) -> Steps:
    event = gen.Event()
    waiters = [gen.create_task(event.wait()) for _ in range(3)]
    yield from turns()
    assert not any(waiter.done() for waiter in waiters) and not event.is_set()
    event.set()
    assert (yield from gen.gather(*waiters)) == [True] * 3
    assert (yield from event.wait()) is True
    event.clear()
    assert not event.is_set()


# -- with lock as held: yield from held --


@by_yield
def test_one_task_at_a_time_holds_the_lock_in_the_order_of_asking(loop: Loop) -> Steps:
    lock = gen.Lock()
    order: list[Any] = []

    def worker(name: int) -> Steps:
        with lock as held:
            yield from held
            order.append(name)
            yield from turns()
            order.append(name)

    yield from gen.gather(*(worker(name) for name in range(5)))
    assert order == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert not lock.locked()


@by_yield
def test_an_error_in_the_block_releases_the_lock(loop: Loop) -> Steps:
    lock = gen.Lock()
    with pytest.raises(LookupError):
        with lock as held:
            yield from held
            assert lock.locked()
            raise LookupError
    assert not lock.locked()


@by_yield
def test_a_task_cancelled_while_it_waits_does_not_release_anothers_lock(loop: Loop) -> Steps:
    lock = gen.Lock()

    def wait() -> Steps:
        with lock as held:
            yield from held

    with lock as held:
        yield from held
        waiter = gen.create_task(wait())
        yield from turns()
        waiter.cancel()
        yield from gen.gather(waiter)
        assert waiter.cancelled() and lock.locked()
    assert not lock.locked()


@by_yield
def test_a_lock_given_to_a_task_just_cancelled_goes_to_the_next(loop: Loop) -> Steps:
    lock = gen.Lock()

    def take() -> Steps:
        with lock as held:
            yield from held
        return "had it"

    yield from lock.acquire()
    first, second = gen.create_task(take()), gen.create_task(take())
    yield from turns()
    lock.release()  # wakes the first
    first.cancel()
    assert (yield from second) == "had it"
    yield from gen.gather(first)
    assert not lock.locked()


@by_yield
def test_a_block_that_does_not_acquire_does_not_release(loop: Loop) -> Steps:
    lock = gen.Lock()
    yield from lock.acquire()
    with lock:
        pass
    assert lock.locked()
    lock.release()
    assert not lock.locked()


@by_yield
def test_waiting_for_a_lock_can_have_a_timeout(loop: Loop) -> Steps:
    lock = gen.Lock()
    yield from lock.acquire()
    with pytest.raises(asyncio.TimeoutError):
        with lock as held:
            yield from gen.wait_for(held, 0.001)
    assert lock.locked()
    lock.release()
    with lock as held:
        assert (yield from gen.wait_for(held, 3600)) is True
        assert lock.locked()
    assert not lock.locked()


@by_yield
def test_blocks_of_several_locks_nest(loop: Loop) -> Steps:
    one, two = gen.Lock(), gen.Lock()
    with one as held_one, two as held_two:
        yield from held_two
        yield from held_one
        assert one.locked() and two.locked()
    assert not one.locked() and not two.locked()


@by_yield
def test_a_block_is_left_in_the_task_that_entered_it(loop: Loop) -> Steps:
    lock = gen.Lock()

    def block() -> Steps:
        with lock:
            yield

    entered = block()

    def enter() -> Steps:
        next(entered)
        yield

    yield from gen.create_task(enter())
    with pytest.raises(RuntimeError, match="the task that entered it"):
        entered.close()


@by_yield
def test_acquire_and_release_without_a_block(loop: Loop) -> Steps:
    lock = gen.Lock()
    assert (yield from lock.acquire()) is True
    waiter = gen.create_task(lock.acquire())
    yield from turns()
    assert not waiter.done()
    lock.release()
    assert (yield from waiter) is True
    lock.release()
    with pytest.raises(RuntimeError):
        lock.release()


@by_yield
def test_so_many_tasks_hold_a_semaphore(loop: Loop) -> Steps:
    semaphore = gen.Semaphore(2)
    inside, most = 0, 0

    def worker() -> Steps:
        nonlocal inside, most
        with semaphore as held:
            yield from held
            inside += 1
            most = max(most, inside)
            yield from turns()
            inside -= 1

    yield from gen.gather(*(worker() for _ in range(7)))
    assert most == 2 and not semaphore.locked()


# -- conditions --


@by_yield
def test_a_condition_wakes_who_waits_for_it(loop: Loop) -> Steps:
    condition = gen.Condition()
    items: list[int] = []

    def consumer() -> Steps:
        with condition as held:
            yield from held
            yield from condition.wait_for(lambda: items)
            assert condition.locked()
            return items.pop()

    consumers = [gen.create_task(consumer()) for _ in range(2)]
    yield from turns()
    for number in range(2):
        with condition as held:
            yield from held
            items.append(number)
            condition.notify()
        yield from turns()
    assert sorted((yield from gen.gather(*consumers))) == [0, 1]
    assert not condition.locked()


@by_yield
def test_a_condition_wakes_one_or_all(loop: Loop) -> Steps:
    condition = gen.Condition()
    woken: list[int] = []

    def waiter(name: int) -> Steps:
        with condition as held:
            yield from held
            yield from condition.wait()
            woken.append(name)

    waiters = [gen.create_task(waiter(name)) for name in range(4)]
    yield from turns()
    with condition as held:
        yield from held
        condition.notify()
    yield from turns()
    assert woken == [0]
    with condition as held:
        yield from held
        condition.notify_all()
    yield from gen.gather(*waiters)
    assert woken == [0, 1, 2, 3]


@by_yield
def test_conditions_may_share_a_lock(loop: Loop) -> Steps:
    lock = gen.Lock()
    one, two = gen.Condition(lock), gen.Condition(lock)
    with one as held:
        yield from held
        assert two.locked()
    with pytest.raises(RuntimeError):
        yield from one.wait()


# -- queues --


def test_queues_can_be_annotations() -> None:
    def worker(queue: gen.Queue[float]) -> None: ...

    assert gen.Queue[float].__origin__ is gen.Queue
    assert isinstance(gen.Queue[float](), gen.Queue)


@by_yield
def test_workers_share_a_queue_until_it_is_processed(loop: Loop) -> Steps:
    queue: gen.Queue[int] = gen.Queue()
    done: list[int] = []

    def worker() -> Steps:
        while True:
            number = yield from queue.get()
            yield from turns(number % 3)
            done.append(number)
            queue.task_done()

    for number in range(20):
        queue.put_nowait(number)
    workers = [gen.create_task(worker()) for _ in range(3)]
    yield from queue.join()
    assert sorted(done) == list(range(20)) and queue.empty()
    for task in workers:
        task.cancel()
    yield from gen.gather(*workers)
    with pytest.raises(ValueError):
        queue.task_done()


@by_yield
def test_a_full_queue_makes_put_wait(loop: Loop) -> Steps:
    queue: gen.Queue[int] = gen.Queue(maxsize=1)
    yield from queue.put(1)
    with pytest.raises(gen.QueueFull):
        queue.put_nowait(2)
    putting = gen.create_task(queue.put(2))
    yield from turns()
    assert not putting.done()
    assert (yield from queue.get()) == 1
    yield from putting
    assert queue.get_nowait() == 2
    with pytest.raises(gen.QueueEmpty):
        queue.get_nowait()


@by_yield
def test_a_get_cancelled_when_its_item_comes_loses_nothing(loop: Loop) -> Steps:
    queue: gen.Queue[int] = gen.Queue()
    first, second = gen.create_task(queue.get()), gen.create_task(queue.get())
    yield from turns()
    queue.put_nowait(1)
    first.cancel()
    assert (yield from second) == 1
    yield from gen.gather(first)
