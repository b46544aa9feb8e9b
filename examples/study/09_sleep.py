"""Sleep: a future and a timer.

Run it from the repository's root:   python3 examples/study/09_sleep.py

Nothing sleeps. The task awaits a future, and the loop has a timer that makes the future done. Any
number of sleepers cost one entry each in the timers' heap; the thread waits once, for the earliest.

- sleep(0) is only a turn for the others: there is no timer in it, its yield goes straight to the
  task.
- A sleep is at least as long as asked for, but how much longer depends on what else the loop has to
  do.
- Whoever is cancelled in its sleep leaves no timer behind: that is what the `finally` is for.
"""

import asyncio


def wake_up(future: "asyncio.Future[None]") -> None:
    if not future.done():  # it may have been cancelled in the very turn in which its time has come
        future.set_result(None)


async def sleep(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    timer = loop.call_later(seconds, wake_up, future)
    try:
        await future
    finally:
        timer.cancel()


async def sleeper(seconds: float) -> None:
    await sleep(seconds)
    print("slept", seconds)


async def polite(name: str) -> None:
    for number in range(2):
        print(name, number)
        await asyncio.sleep(0)


async def main() -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    await asyncio.gather(sleeper(0.15), sleeper(0.05), sleeper(0.1))
    took = loop.time() - start
    print(f"all three: {took:.2f} s, as long as the longest")
    print("never shorter than asked for:", took >= 0.15)

    await asyncio.gather(polite("a"), polite("b"))

    dreamer = asyncio.create_task(sleep(3600))
    await asyncio.sleep(0)
    dreamer.cancel()
    await asyncio.wait([dreamer])
    print("an hour's sleep, cancelled:", dreamer.cancelled())


asyncio.run(main())

# Prints:
#   slept 0.05
#   slept 0.1
#   slept 0.15
#   all three: 0.15 s, as long as the longest
#   never shorter than asked for: True
#   a 0
#   b 0
#   a 1
#   b 1
#   an hour's sleep, cancelled: True
