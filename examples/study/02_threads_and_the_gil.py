"""Threads and the GIL.

Run it from the repository's root:   python3 examples/study/02_threads_and_the_gil.py

CPython has one lock, the global interpreter lock, that a thread must hold to run Python code. A
thread gives it up when it waits (for a socket, a lock, a sleep), and otherwise every 5 ms
(sys.getswitchinterval) if another wants it. So:

- threads wait at the same time, but compute one at a time: for pure Python they do not make sums
  faster;
- a thread can lose the lock at almost any call and in any round of a loop, so between reading a
  variable and writing it, too. What it writes then is made of an old value. The GIL keeps the
  interpreter's data whole, not yours.

An event loop has one thread. Tasks change places at `await` and nowhere else (`async for` and
`async with` await, too), so between two awaits no lock is needed. Across an await the old danger is
back: you can see it, though, because it says so.

(Python 3.13 can be built without the GIL, "free-threaded": then the first point falls, the second
stays. Since 3.12 a process may hold several interpreters, each with a GIL of its own.)
"""

import asyncio
import threading
import time
from collections.abc import Callable

N = 1_000_000


def compute() -> None:
    for _ in range(N):
        pass


def wait() -> None:
    time.sleep(0.05)


def timed(name: str, work: Callable[[], object]) -> None:
    start = time.perf_counter()
    work()
    print(f"{name}: {(time.perf_counter() - start) * 1000:.0f} ms")


def two_threads(work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Account:
    """Two customers pay in 1 each. It should hold 2 then."""

    def __init__(self) -> None:
        self.balance = 0
        self.both_have_read = threading.Barrier(2)

    def pay_in_as_thread(self) -> None:
        old = self.balance
        self.both_have_read.wait()  # the unlucky moment, made certain
        self.balance = old + 1

    async def pay_in_as_task(self) -> None:
        old = self.balance
        self.balance = old + 1  # no await in between: nobody else has run

    async def pay_in_with_an_await(self) -> None:
        old = self.balance
        await asyncio.sleep(0)  # here others run
        self.balance = old + 1


async def two_tasks(work: Callable[[], object]) -> None:
    await asyncio.gather(work(), work())


timed("compute twice, one after the other", lambda: (compute(), compute()))
timed("compute twice, in two threads", lambda: two_threads(compute))
timed("wait twice, one after the other", lambda: (wait(), wait()))
timed("wait twice, in two threads", lambda: two_threads(wait))

account = Account()
two_threads(account.pay_in_as_thread)
print("two threads paid in 1 each:", account.balance)
account = Account()
asyncio.run(two_tasks(account.pay_in_as_task))
print("two tasks paid in 1 each:", account.balance)
account = Account()
asyncio.run(two_tasks(account.pay_in_with_an_await))
print("two tasks with an await between reading and writing:", account.balance)

# Prints:
#   compute twice, one after the other: 34 ms
#   compute twice, in two threads: 37 ms
#   wait twice, one after the other: 100 ms
#   wait twice, in two threads: 50 ms
#   two threads paid in 1 each: 1
#   two tasks paid in 1 each: 2
#   two tasks with an await between reading and writing: 1
