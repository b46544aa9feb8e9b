"""A loop in 100 lines: a ready queue, a heap of timers, and select.

Run it from the repository's root:   python3 examples/study/06_loop.py

Each turn: wait, if there is nothing to do, until a socket is ready or the earliest timer is due;
queue the callbacks of the sockets that are ready, then those of the timers that are due; run the
queue as it stands. What these callbacks queue waits for the next turn, so that a callback which
queues itself for ever starves neither sockets nor timers. This order is asyncio's, and casync's:
the program runs on asyncio's loop, too.
"""

import asyncio
import heapq
import itertools
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any


class Loop:
    def __init__(self) -> None:
        self.ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.timers: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self.order = itertools.count()  # among equal times the first comes first
        self.selector = selectors.DefaultSelector()  # epoll(7) on Linux
        self.stopping = False

    def time(self) -> float:
        return time.monotonic()  # unlike the wall clock it is never set back

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        self.ready.append((callback, args))

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        heapq.heappush(self.timers, (self.time() + delay, next(self.order), callback, args))

    def add_reader(self, sock: socket.socket, callback: Callable[..., object], *args: Any) -> None:
        self.selector.register(sock, selectors.EVENT_READ, (callback, args))

    def remove_reader(self, sock: socket.socket) -> None:
        self.selector.unregister(sock)

    def stop(self) -> None:
        self.stopping = True

    def run_forever(self) -> None:
        self.stopping = False
        while not self.stopping:
            self.turn()

    def turn(self) -> None:
        for key, _ in self.selector.select(self.timeout()):
            self.ready.append(key.data)
        now = self.time()
        while self.timers and self.timers[0][0] <= now:
            _, _, callback, args = heapq.heappop(self.timers)
            self.ready.append((callback, args))
        for _ in range(len(self.ready)):
            callback, args = self.ready.popleft()
            callback(*args)

    def timeout(self) -> float | None:
        if self.ready or self.stopping:
            return 0  # look, do not wait
        if self.timers:
            return max(0, self.timers[0][0] - self.time())
        return None  # for ever: only a socket can bring news


def program(loop: Any) -> list[str]:
    said: list[str] = []
    ours, theirs = socket.socketpair()

    def readable() -> None:
        said.append(f"read {theirs.recv(100).decode()}")

    def next_turn() -> None:
        said.append("soon, from a callback: the next turn")
        loop.remove_reader(theirs)
        loop.call_later(0.01, said.append, "timer")
        loop.call_later(0.02, loop.stop)

    theirs.setblocking(False)
    ours.send(b"hello")
    loop.call_later(0, said.append, "timer of 0")
    loop.add_reader(theirs, readable)
    loop.call_soon(said.append, "soon")
    loop.call_soon(loop.call_soon, next_turn)
    loop.run_forever()
    ours.close()
    theirs.close()
    return said


ours = program(Loop())
print(*ours, sep="\n")
asyncio_loop = asyncio.new_event_loop()
print("asyncio's loop does the same:", program(asyncio_loop) == ours)
asyncio_loop.close()

# Prints:
#   soon
#   read hello
#   timer of 0
#   soon, from a callback: the next turn
#   timer
#   asyncio's loop does the same: True
