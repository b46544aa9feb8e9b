"""Loops in threads under measurement: `python threads.py asyncio|casync THREADS`.

Reads lines "row n" from stdin. Each thread does n operations on a loop of its own, all threads at
once. Answers with a line of JSON: "ops" of one thread, the nanoseconds ("time") by the wall from
the first thread's begin to the last one's end, and a "check". So the time is the same for any
number of threads if they do not disturb each other.

The threads stay, since a new one has its memory to get from the kernel, and what was garbage before
is collected before: that stops all threads. Each would be the most of a short measurement.
"""

import asyncio
import gc
import importlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

from worker import (
    Batch,
    EchoClient,
    EchoProtocol,
    Loop,
    Result,
    echo_stream,
    task_switch_batch,
)


def call_soon(loop: Loop, n: int) -> Batch:
    """n calls, 20,000 queued at once. They share one method object: the collector counts those."""

    def batch() -> int:
        seen: list[int] = []
        append = seen.append
        for begin in range(0, n, 20_000):
            for i in range(begin, min(begin + 20_000, n)):
                loop.call_soon(append, i)
            loop.call_soon(loop.stop)
            loop.run_forever()
        return sum(seen)

    return batch


def echo_protocol(loop: Loop, n: int) -> Batch:
    """n round trips of 1 KiB over a socketpair, both ends on this loop."""

    async def exchange() -> int:
        left, right = socket.socketpair()
        done: asyncio.Future[int] = loop.create_future()
        await loop.create_connection(EchoProtocol, sock=left)
        await loop.create_connection(lambda: EchoClient(1024, n, done), sock=right)
        return await done

    return lambda: loop.run_until_complete(exchange())


def echo_streams(loop: Loop, n: int) -> Batch:
    """The same by streams."""

    async def exchange() -> int:
        left, right = socket.socketpair()
        server = loop.create_task(echo_stream(*await asyncio.open_connection(sock=left)))
        reader, writer = await asyncio.open_connection(sock=right)
        message, verified = b"x" * 1024, 0
        for _ in range(n):
            writer.write(message)
            verified += await reader.readexactly(len(message)) == message
        writer.close()
        await server
        return verified

    return lambda: loop.run_until_complete(exchange())


def connections(loop: Loop, n: int) -> Batch:
    """n connections one after another to a server of streams on the same loop, a message each."""

    async def exchange() -> int:
        server = await asyncio.start_server(echo_stream, "127.0.0.1", 0)
        verified = 0
        for _ in range(n):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x")
            verified += await reader.readexactly(1) == b"x"
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return verified

    return lambda: loop.run_until_complete(exchange())


ROWS: dict[str, Callable[[Loop, int], Batch]] = {
    "call_soon": call_soon,
    "task_switch": task_switch_batch,
    "echo_protocol": echo_protocol,
    "echo_streams": echo_streams,
    "connections": connections,
}


def measure(row: str, n: int, threads: dict[Loop, Executor]) -> Result:
    begin = threading.Barrier(len(threads))

    def run(loop: Loop) -> tuple[int, int, int]:
        asyncio.set_event_loop(loop)
        batch = ROWS[row](loop, n)
        begin.wait()
        start = time.perf_counter_ns()
        check = batch()
        return start, time.perf_counter_ns(), check

    gc.collect()
    runs = [thread.submit(run, loop) for loop, thread in threads.items()]
    starts, ends, checks = zip(*(done.result() for done in runs), strict=True)
    return {"ops": n, "time": max(ends) - min(starts), "check": min(checks)}


def main() -> None:
    make = importlib.import_module(sys.argv[1]).new_event_loop
    threads: dict[Loop, Executor] = {make(): ThreadPoolExecutor(1) for _ in range(int(sys.argv[2]))}
    for line in sys.stdin:
        row, n = line.split()
        print(json.dumps(measure(row, int(n), threads)), flush=True)


main()
