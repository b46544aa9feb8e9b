"""A periodic background task.

Run it from the repository's root:   python3 examples/study/12_periodic.py

A background task is one that nobody awaits: it runs beside the others for as long as the program
does, or until it is cancelled. Three things go wrong with them:

- Drift. `while True: work(); await sleep(1)` takes one second and the work's time a round. Sleep
  until start + n * period instead: then the time that the work takes is not added up.
- A period that is missed altogether: skip it. Catching up makes a late loop later still.
- Errors. Nobody awaits the task, so nobody sees its error, until the task is collected as garbage.
  Keep the task (the loop itself holds it only weakly), and look at its result when you cancel it,
  or report inside.
"""

import asyncio
import math
from collections.abc import Callable

PERIOD, WORK, ROUNDS = 0.02, 0.01, 5


async def naive(work: Callable[[], object]) -> None:
    while True:
        await asyncio.sleep(PERIOD)
        work()
        await asyncio.sleep(WORK)  # the work takes this long


async def every(period: float, work: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    start, n = loop.time(), 0
    while True:
        n = max(
            n + 1, math.ceil((loop.time() - start) / period)
        )  # later than n + 1: periods were missed
        await asyncio.sleep(start + n * period - loop.time())
        work()
        await asyncio.sleep(WORK)


async def time_of(name: str, background: Callable[[Callable[[], object]], object]) -> float:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    enough = asyncio.Event()

    def work() -> None:
        times.append(loop.time())
        if len(times) == ROUNDS:
            enough.set()

    start = loop.time()
    task = asyncio.create_task(background(work))
    await enough.wait()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print(f"{name}: cancelled after {ROUNDS} rounds, {(times[-1] - start) * 1000:.0f} ms")
    return times[-1] - start


async def main() -> None:
    drifted = await time_of("sleep in between", naive)
    print("so long at least:", drifted >= ROUNDS * PERIOD + (ROUNDS - 1) * WORK)
    await time_of("multiples of the period", lambda work: every(PERIOD, work))

    async def fails() -> None:
        raise ValueError("in the background")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    print("the program goes on; the task has ended with", repr(task.exception()))


asyncio.run(main())

# Prints:
#   sleep in between: cancelled after 5 rounds, 143 ms
#   so long at least: True
#   multiples of the period: cancelled after 5 rounds, 101 ms
#   the program goes on; the task has ended with ValueError('in the background')
