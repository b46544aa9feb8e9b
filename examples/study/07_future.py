"""A future: a result that is not there yet.

Run it from the repository's root:   python3 examples/study/07_future.py

It is the joint between the two worlds: callbacks make it done (set_result), coroutines await it. It
is done once and for ever, with a result or an error; it may be asked any number of times, by any
number of tasks.

Here is one, on asyncio's real loop, and awaited by asyncio's real tasks. Two things are worth a
look:
- its callbacks go through the ready queue. set_result calls nobody: whoever calls it cannot be
  surprised by code that runs inside the call, and a chain of futures does not grow the stack;
- __await__ yields the future itself, up to the task (page 5), whose step asks to be called back
  (page 8).
"""

import asyncio
from collections.abc import Callable, Generator
from typing import Any


class Future:
    _asyncio_future_blocking = (
        False  # how asyncio's Task recognises a future, and that it was awaited
    )

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_done, self.value = False, None
        self.error: BaseException | None = None
        self.callbacks: list[tuple[Callable[[Any], object], Any]] = []

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.loop

    def done(self) -> bool:
        return self.is_done

    def set_result(self, value: Any, error: BaseException | None = None) -> None:
        if self.is_done:
            raise asyncio.InvalidStateError("it is done already")
        self.is_done, self.value, self.error = True, value, error
        for callback, context in self.callbacks:
            self.loop.call_soon(callback, self, context=context)

    def result(self) -> Any:
        if not self.is_done:
            raise asyncio.InvalidStateError("it is not done yet")
        if self.error:
            raise self.error
        return self.value

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Any = None) -> None:
        if self.is_done:
            self.loop.call_soon(callback, self, context=context)
        else:
            self.callbacks.append((callback, context))

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.is_done:
            self._asyncio_future_blocking = True
            yield self
        return self.result()


async def waiter(name: str, future: Future) -> None:
    try:
        print(f"  {name} got {await future}")
    except ValueError as error:
        print(f"  {name} got an error: {error}")


async def main() -> None:
    future = Future()
    try:
        future.result()
    except asyncio.InvalidStateError as error:
        print("too early:", error)

    waiters = [asyncio.create_task(waiter(name, future)) for name in ("ann", "ben")]
    await asyncio.sleep(0)  # they start, and wait
    print("set_result(42)")
    future.set_result(42)
    print("set_result has returned, nobody has run yet")
    await asyncio.gather(*waiters)
    print("awaited once more:", await future)
    try:
        future.set_result(43)
    except asyncio.InvalidStateError as error:
        print("too late:", error)

    failed = Future()
    asyncio.get_running_loop().call_soon(failed.set_result, None, ValueError("no answer"))
    await waiter("eve", failed)


asyncio.run(main())

# Prints:
#   too early: it is not done yet
#   set_result(42)
#   set_result has returned, nobody has run yet
#     ann got 42
#     ben got 42
#   awaited once more: 42
#   too late: it is done already
#     eve got an error: no answer
