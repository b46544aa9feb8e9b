"""asyncio, built from nothing: read it from top to bottom, each class rests on those above it.

Run it from the repository's root:   python3 examples/study/tiny.py
What is here: handles, timers, the loop's turn, futures, tasks, sleep, gather, sockets, periodic
work, run. What asyncio has beyond it: threads, signals, processes, streams, TLS. tiny.c is the same
in C.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import selectors
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Callback = Callable[..., object]

# --- handles: a callback that waits for its turn --------------------------------------------------


class Handle:
    """A callback that will be called, unless it is cancelled first."""

    def __init__(self, callback: Callback, args: tuple[Any, ...]) -> None:
        self.callback, self.args, self.cancelled = callback, args, False

    def cancel(self) -> None:
        self.cancelled = True

    def run(self) -> None:
        """An error in a callback is nobody's result: it is reported, and the loop goes on."""
        try:
            if not self.cancelled:
                self.callback(*self.args)
        except Exception:
            traceback.print_exc()


class TimerHandle(Handle):
    """A handle that waits for a time first. Equal times keep the order in which they were asked
    for."""

    def __init__(self, when: float, order: int, callback: Callback, args: tuple[Any, ...]) -> None:
        super().__init__(callback, args)
        self.when, self.order = when, order

    def __lt__(self, other: TimerHandle) -> bool:
        return (self.when, self.order) < (other.when, other.order)


# --- the loop: a ready queue, a heap of timers, a selector ----------------------------------------


class Loop:
    """Calls callbacks one after the other; when none is ready it waits for the next timer or
    socket."""

    def __init__(self) -> None:
        self.ready: deque[Handle] = deque()
        self.timers: list[TimerHandle] = []  # a heap: the earliest is first
        self.selector = selectors.DefaultSelector()
        self.order = itertools.count()
        self.tasks: set[Task] = set()

    def time(self) -> float:
        return time.monotonic()

    def call_soon(self, callback: Callback, *args: Any) -> Handle:
        self.ready.append(handle := Handle(callback, args))
        return handle

    def call_at(self, when: float, callback: Callback, *args: Any) -> TimerHandle:
        heapq.heappush(self.timers, handle := TimerHandle(when, next(self.order), callback, args))
        return handle

    def call_later(self, delay: float, callback: Callback, *args: Any) -> TimerHandle:
        return self.call_at(self.time() + delay, callback, *args)

    def watch(self, sock: socket.socket, event: int, callback: Callback | None) -> None:
        """Calls back in every turn in which the socket is ready for the event (EVENT_READ or
        EVENT_WRITE), until it is watched with None."""
        watched = self.selector.get_map().get(sock)
        callbacks = {**(watched.data if watched else {}), event: callback}
        callbacks = {event: callback for event, callback in callbacks.items() if callback}
        if watched:
            self.selector.unregister(sock)
        if callbacks:
            self.selector.register(sock, sum(callbacks), callbacks)

    def turn(self) -> None:
        """Waits if there is nothing to do; then sockets, then timers, then the queue as it stands:
        what these callbacks queue belongs to the next turn, so that sockets and timers get theirs.
        """
        for key, events in self.selector.select(self.timeout()):
            for event, callback in key.data.items():
                if events & event:
                    self.call_soon(callback)
        now = self.time()
        while self.timers and self.timers[0].when <= now:
            self.ready.append(heapq.heappop(self.timers))
        for _ in range(len(self.ready)):
            self.ready.popleft().run()

    def timeout(self) -> float | None:
        """How long the selector may wait: None is for ever."""
        while self.timers and self.timers[0].cancelled:
            heapq.heappop(self.timers)
        if self.ready:
            return 0
        if self.timers:
            return max(0, self.timers[0].when - self.time())
        if not self.selector.get_map():
            raise RuntimeError("deadlock: no callback, no timer and no socket is left to wait for")
        return None


running: list[Loop] = []  # the loop that runs, if there is one


def get_running_loop() -> Loop:
    if not running:
        raise RuntimeError("no loop is running: this is for code that run() has started")
    return running[-1]


# --- futures: a result that is not there yet ------------------------------------------------------


class CancelledError(BaseException):
    """What an await raises in a task that was cancelled. `except Exception` does not swallow it."""


class Future:
    """Pending at first; then it has a result, or an error, for ever. Callbacks go by the ready
    queue."""

    def __init__(self) -> None:
        self.loop = get_running_loop()
        self.callbacks: list[Callback] | None = []  # None once it is done
        self.value: Any = None
        self.error: BaseException | None = None
        self.retrieved = False

    def done(self) -> bool:
        return self.callbacks is None

    def cancel(self) -> bool:
        """Makes it fail with CancelledError. False if it was done before."""
        if self.done():
            return False
        self.set_result(None, CancelledError())
        return True

    def set_result(self, value: Any, error: BaseException | None = None) -> None:
        if self.callbacks is None:
            # it was cancelled in the turn in which its event came; asyncio's own raises here
            return
        callbacks, self.callbacks = self.callbacks, None
        self.value, self.error = value, error
        for callback in callbacks:
            self.loop.call_soon(callback, self)

    def add_done_callback(self, callback: Callback) -> None:
        if self.callbacks is None:
            self.loop.call_soon(callback, self)
        else:
            self.callbacks.append(callback)

    def result(self) -> Any:
        if not self.done():
            raise RuntimeError("the future is not done yet")
        self.retrieved = True
        if self.error is not None:
            raise self.error
        return self.value

    def __del__(self) -> None:
        if isinstance(self.error, Exception) and not self.retrieved:
            print("an error that nobody asked for:", repr(self.error), file=sys.stderr)

    def __await__(self) -> Generator[Future, None, Any]:
        """All that `await future` is: hand the future to the task's step, be resumed, look."""
        if not self.done():
            yield self
        return self.result()


# --- tasks: a coroutine that is driven by the futures it waits for --------------------------------


class Task(Future):
    """Runs a coroutine up to its next await, and goes on when what it awaits is done. It is a
    future itself: of what the coroutine returns."""

    def __init__(self, coroutine: Coroutine[Future, None, Any]) -> None:
        super().__init__()
        self.coroutine = coroutine
        self.waits_for: Future | None = None
        self.must_cancel = False
        self.loop.tasks.add(self)
        self.loop.call_soon(self.step)

    def step(self, _: Future | None = None) -> None:
        self.waits_for = None
        try:
            if self.must_cancel:
                self.must_cancel = False
                waits_for = self.coroutine.throw(CancelledError())
            else:
                waits_for = self.coroutine.send(None)
        except StopIteration as stop:
            self.end(stop.value, None)
        except BaseException as error:
            self.end(None, error)
            if not isinstance(error, Exception | CancelledError):
                raise  # KeyboardInterrupt and SystemExit end the program
        else:
            self.waits_for = waits_for
            waits_for.add_done_callback(self.step)
            if self.must_cancel:  # it has cancelled itself
                self.must_cancel = not waits_for.cancel()

    def end(self, value: Any, error: BaseException | None) -> None:
        self.loop.tasks.discard(self)
        self.set_result(value, error)

    def cancel(self) -> bool:
        """Makes its present await, or its next, raise CancelledError, which it may catch to clean
        up."""
        if self.done():
            return False
        if self.waits_for is None or not self.waits_for.cancel():
            self.must_cancel = True  # it is in the ready queue already: its next step will see
        return True


create_task = Task


# --- what tasks await -----------------------------------------------------------------------------


async def sleep(seconds: float) -> None:
    """A future and a timer that makes it done."""
    future = Future()
    timer = future.loop.call_later(seconds, future.set_result, None)
    try:
        await future
    finally:
        timer.cancel()


async def gather(*coroutines: Coroutine[Future, None, Any]) -> list[Any]:
    """Runs all at once. Gives their results in the order of the arguments, or raises the first
    error and cancels the others."""
    tasks = [Task(coroutine) for coroutine in coroutines]
    left, over = set(tasks), Future()

    def one_is_done(task: Task) -> None:
        left.discard(task)
        if task.error or not left:
            over.set_result(None)

    for task in tasks:
        task.add_done_callback(one_is_done)
    try:
        if tasks:
            await over
        return [task.result() for task in tasks if task.done()]  # one that failed raises here
    finally:
        for task in tasks:
            task.cancel()


async def every(seconds: float, callback: Callback, *args: Any) -> None:
    """Periodic work, until the task is cancelled, at multiples from the start: so the time that the
    work takes does not add up. (Page 12 skips periods that were missed; here they are made up for.)
    """
    loop = get_running_loop()
    when = loop.time()
    while True:
        when += seconds
        await sleep(when - loop.time())
        callback(*args)


# --- sockets: wait until ready, then do what does not block ---------------------------------------


async def ready(sock: socket.socket, event: int) -> None:
    """Waits until the socket can be read (EVENT_READ) or written (EVENT_WRITE) without blocking."""
    future = Future()
    future.loop.watch(sock, event, lambda: future.set_result(None))
    try:
        await future
    finally:
        future.loop.watch(sock, event, None)


async def accept(listener: socket.socket) -> socket.socket:
    await ready(listener, selectors.EVENT_READ)
    connection, _ = listener.accept()
    connection.setblocking(False)
    return connection


async def connect(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    error = sock.connect_ex(address)
    if error == errno.EINPROGRESS:  # it is writable once it is connected, or has failed
        await ready(sock, selectors.EVENT_WRITE)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        sock.close()
        raise OSError(error, f"cannot connect to {address}")
    return sock


async def receive(sock: socket.socket, size: int) -> bytes:
    await ready(sock, selectors.EVENT_READ)
    return sock.recv(size)


async def send_all(sock: socket.socket, data: bytes) -> None:
    while data:
        await ready(sock, selectors.EVENT_WRITE)
        data = data[sock.send(data) :]


# --- run: the whole life of a loop ----------------------------------------------------------------


def run(coroutine: Coroutine[Future, None, Any]) -> Any:
    """Runs a coroutine to its end, then cancels what it left behind. Gives its result."""
    if running:
        raise RuntimeError("a loop is running already: await the coroutine instead")
    loop = Loop()
    running.append(loop)
    try:
        main = create_task(coroutine)
        while not main.done():
            loop.turn()
        leftovers = list(loop.tasks)
        for task in leftovers:
            task.cancel()
        while not all(task.done() for task in leftovers):
            loop.turn()
        return main.result()
    finally:
        running.pop()
        loop.selector.close()


# --- a program: a server, three clients and a background task, in one thread ----------------------


async def serve(listener: socket.socket) -> None:
    while True:
        create_task(echo(await accept(listener)))


async def echo(connection: socket.socket) -> None:
    with connection:
        while data := await receive(connection, 1024):
            await send_all(connection, data.upper())


async def client(address: tuple[str, int], text: str) -> str:
    with await connect(address) as sock:
        await send_all(sock, text.encode())
        return (await receive(sock, 1024)).decode()


async def demo() -> str:
    ticks, third = itertools.count(1), Future()

    def tick() -> None:
        if next(ticks) == 3:
            third.set_result(None)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        background = create_task(every(0.01, tick))
        create_task(serve(listener))
        address = listener.getsockname()
        print("gather:", await gather(*(client(address, text) for text in ("one", "two", "three"))))
        await third
        print("the background task ticked, too")
        background.cancel()
        return "goodbye"  # and run() cancels what still runs: the server


if __name__ == "__main__":
    print(run(demo()))

# Prints:
#   gather: ['ONE', 'TWO', 'THREE']
#   the background task ticked, too
#   goodbye
