"""Loops in threads under measurement: `python threads.py asyncio|casync THREADS`.

Reads lines "row n" from stdin. Each thread does n operations on a loop of its own, all threads at
once. Answers with a line of JSON: "ops" of one thread, the nanoseconds ("time") by the wall from
the first thread's begin to the last one's end, and a "check". So the time is the same for any
number of threads if they do not disturb each other.
"""

import asyncio
import importlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from worker import (
    EchoClient,
    EchoProtocol,
    Loop,
    Result,
    call_soon,
    echo_stream,
    task_switch,
    timed,
)


def echo_protocol(loop: Loop, n: int) -> Result:
    """n round trips of 1 KiB over a socketpair, both ends on this loop."""

    async def exchange() -> int:
        left, right = socket.socketpair()
        done: asyncio.Future[int] = loop.create_future()
        await loop.create_connection(EchoProtocol, sock=left)
        await loop.create_connection(lambda: EchoClient(1024, n, done), sock=right)
        return await done

    return timed(n, lambda: loop.run_until_complete(exchange()))


def echo_streams(loop: Loop, n: int) -> Result:
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

    return timed(n, lambda: loop.run_until_complete(exchange()))


def connections(loop: Loop, n: int) -> Result:
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

    return timed(n, lambda: loop.run_until_complete(exchange()))


ROWS: dict[str, Callable[[Loop, int], Result]] = {
    row.__name__: row for row in (call_soon, task_switch, echo_protocol, echo_streams, connections)
}


def measure(row: str, n: int, loops: list[Loop]) -> Result:
    begin = threading.Barrier(len(loops))

    def run(loop: Loop) -> tuple[int, int, int]:
        asyncio.set_event_loop(loop)
        begin.wait()
        start = time.perf_counter_ns()
        check = ROWS[row](loop, n)["check"]
        return start, time.perf_counter_ns(), check

    with ThreadPoolExecutor(len(loops)) as pool:
        starts, ends, checks = zip(*pool.map(run, loops), strict=True)
    return {"ops": n, "time": max(ends) - min(starts), "check": min(checks)}


def main() -> None:
    make = importlib.import_module(sys.argv[1]).new_event_loop
    loops = [make() for _ in range(int(sys.argv[2]))]
    for line in sys.stdin:
        row, n = line.split()
        print(json.dumps(measure(row, int(n), loops)), flush=True)


main()
