"""How casync does each of them, under Python.

Run it from the repository's root, after `pip install ./python`:

    python3 examples/study/16_casync.py

casync's loop is a SelectorEventLoop in which the organs that pages 6 to 14 built are those of
casync.h, the same C that 16_casync.c looks into. asyncio's coroutines, tasks, locks and streams
stay as they are, and so do programs: `python -m casync 13_cancellation.py` runs any page of this
study on it.

    page                 asyncio                         casync, by section of casync.h
    6  ready queue       deque of Handle objects         jobs: a linked list of jobs
    6  timers            heapq, O(log n)                 timer wheel: start and stop are O(1)
    6  select            a selector object, each turn    backend: epoll, skipped while busy
    7  future, 8  task   C already (_asyncio)            the same; their call_soon is casync's
    9  sleep             future + call_later             the same, on the wheel
    10 gather, 13, 15    Python, on futures and tasks    the same: cancellation, TaskGroup, timeouts
    11 sockets           Python transports               streams, buffers: transports in C
    14 back-pressure     a bytearray or deque            buffers: small writes are copied, large
                                                         ones referenced; one sendmsg for many
    2  threads           a byte into a socketpair for    posts: an eventfd, written only if the
                         each call                       loop sleeps
    3  run_in_executor   a ThreadPoolExecutor            the same (C programs have the pool's)
    1  what blocks?      debug mode                      the same; metrics: loop.metrics()
"""

import asyncio
import threading
import time
from collections.abc import Callable

import casync

COUNT = 20_000


def nothing() -> None:
    pass


async def many_callbacks() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(COUNT):
        loop.call_soon(nothing)
    await asyncio.sleep(0)


async def many_timers() -> None:
    loop = asyncio.get_running_loop()
    for timer in [loop.call_later(3600, nothing) for _ in range(COUNT)]:
        timer.cancel()


async def many_switches() -> None:
    for _ in range(COUNT):
        await asyncio.sleep(0)


async def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    await work()
    return (time.perf_counter() - start) / COUNT * 1e9


def compare(name: str, work: Callable[[], object]) -> None:
    loop = asyncio.SelectorEventLoop()  # asyncio's own, whatever is installed
    own = min(loop.run_until_complete(timed(work)) for _ in range(3))
    loop.close()
    ours = min(casync.run(timed(work)) for _ in range(3))
    print(f"{name}: asyncio {own:.0f} ns, casync {ours:.0f} ns")


async def post_from_a_thread() -> list[int]:
    loop, got = asyncio.get_running_loop(), []

    def post() -> None:
        for number in range(1000):
            loop.call_soon_threadsafe(got.append, number)

    thread = threading.Thread(target=post)
    thread.start()
    while len(got) < 1000:
        await asyncio.sleep(0.001)
    thread.join()
    return got


async def look() -> None:
    loop = asyncio.get_running_loop()
    print("a loop like asyncio's:", isinstance(loop, asyncio.SelectorEventLoop))
    task = asyncio.current_task()
    print("asyncio's own tasks:", isinstance(task, asyncio.Task))

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        print("transports of C:", type(writer.transport).__module__.startswith("casync"))
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read()
    writer.close()
    server.close()
    print(
        "1000 calls from a thread came in order:", await post_from_a_thread() == list(range(1000))
    )


casync.run(look())
compare("call_soon", many_callbacks)
compare("call_later and cancel", many_timers)
compare("a task's switch", many_switches)

# Prints:
#   a loop like asyncio's: True
#   asyncio's own tasks: True
#   transports of C: True
#   1000 calls from a thread came in order: True
#   call_soon: asyncio 620 ns, casync 125 ns
#   call_later and cancel: asyncio 1105 ns, casync 130 ns
#   a task's switch: asyncio 1512 ns, casync 402 ns
