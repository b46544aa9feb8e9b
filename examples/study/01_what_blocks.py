"""What blocks and what does not.

Run it from the repository's root:   python3 examples/study/01_what_blocks.py

An event loop is one thread that calls your functions one after the other. Nothing else runs while
one of them runs. So a function that waits inside the operating system ("blocks") stops every other
task, however many there are:

    blocks                                   its counterpart that lets the others run
    time.sleep(1)                            await asyncio.sleep(1)
    socket.recv(), requests.get()            await reader.read(), an asynchronous client
    socket.getaddrinfo(): asks a server      await loop.getaddrinfo(): asks in a thread
    threading.Lock().acquire()               await asyncio.Lock().acquire()
    queue.get()                              await asyncio.Queue().get()
    file.read(): is never "not ready"        await asyncio.to_thread(file.read)
    sum(range(10**9)): it computes           a thread, or for pure Python a process: pages 2, 3

`async def` does not change that. It is `await` of something that is not ready that lets others run.
"""

import asyncio
import time
from collections.abc import Awaitable

beats = 0


async def heartbeat() -> None:
    """Some other task, which wants to run every millisecond."""
    global beats
    while True:
        beats += 1
        await asyncio.sleep(0.001)


async def blocks() -> None:
    time.sleep(0.1)


async def awaits() -> None:
    await asyncio.sleep(0.1)


async def uses_a_thread() -> None:
    await asyncio.to_thread(time.sleep, 0.1)


async def watch(name: str, work: Awaitable[None]) -> None:
    before, start = beats, time.monotonic()
    await work
    others = "the other task ran" if beats > before else "nobody else ran"
    print(f"{name}: {others}, {(time.monotonic() - start) * 1000:.0f} ms")


async def main() -> None:
    other = asyncio.create_task(heartbeat())
    await asyncio.sleep(0)  # it starts
    await watch("time.sleep", blocks())
    await watch("asyncio.sleep", awaits())
    await watch("time.sleep in a thread", uses_a_thread())
    other.cancel()


asyncio.run(main())

# Debug mode finds what blocks: `python3 -X dev 01_what_blocks.py` names each step over 100 ms on
# stderr.
#
# Prints:
#   time.sleep: nobody else ran, 100 ms
#   asyncio.sleep: the other task ran, 101 ms
#   time.sleep in a thread: the other task ran, 101 ms
