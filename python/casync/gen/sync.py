"""Locks and events for `yield from`. They are subclasses of asyncio's, so generators and
coroutines can share one.
"""

# A generator that may also be awaited is, to typeshed, no coroutine:
# mypy: disable-error-code="misc, override"

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Generator
from typing import Any


class Event(asyncio.Event):
    """An Event is a flag that tasks wait for, with `yield from event.wait()`. set() wakes them."""

    @types.coroutine
    def wait(self) -> Generator[Any, Any, bool]:
        """Waits until the flag is set."""
        return (yield from super().wait())


class _Block:
    """One `with` block of a task; whether the block has acquired what it is about."""

    __slots__ = ("acquired",)

    def __init__(self) -> None:
        self.acquired = False


class _WithBlock:
    """`with lock as held: yield from held`: waiting acquires, leaving the block releases.

    Many tasks can be inside the block, waiting. One that leaves without having acquired, because it
    was cancelled, must not release what another holds: so each task's open blocks are kept.
    """

    acquire: Callable[[], Generator[Any, Any, bool]]
    release: Callable[[], None]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._blocks: dict[asyncio.Task[Any] | None, list[_Block]] = {}

    def __enter__(self) -> Generator[Any, Any, bool]:
        block = _Block()
        self._blocks.setdefault(asyncio.current_task(), []).append(block)
        return self._acquire(block)

    @types.coroutine
    def _acquire(self, block: _Block) -> Generator[Any, Any, bool]:
        yield from self.acquire()
        block.acquired = True
        return True

    def __exit__(self, *exception: object) -> None:
        task = asyncio.current_task()
        blocks = self._blocks.get(task)
        if blocks is None:
            raise RuntimeError("a block of `with` can be left only in the task that entered it")
        block = blocks.pop()
        if not blocks:
            del self._blocks[task]
        if block.acquired:
            self.release()


class Lock(_WithBlock, asyncio.Lock):
    """A Lock is held by one task at a time. The task that has waited longest gets it next.

    with lock as held:
        yield from held
        ...  # only one task at a time is here
    """

    @types.coroutine
    def acquire(self) -> Generator[Any, Any, bool]:
        """Waits until the lock is free, and takes it. Returns True."""
        return (yield from super().acquire())


class Semaphore(_WithBlock, asyncio.Semaphore):
    """A Semaphore is a lock that several tasks may hold at once. Use `with` as for a Lock."""

    @types.coroutine
    def acquire(self) -> Generator[Any, Any, bool]:
        """Waits until the counter is above zero, and decrements it. Returns True."""
        return (yield from super().acquire())


class Condition(_WithBlock, asyncio.Condition):
    """A Condition is a lock whose holder can wait until another holder notifies it. Use `with` as
    for a Lock.
    """

    def __init__(self, lock: asyncio.Lock | None = None) -> None:
        super().__init__(Lock() if lock is None else lock)

    @types.coroutine
    def wait(self) -> Generator[Any, Any, bool]:
        """Releases the lock, waits for notify(), and takes the lock again. Returns True. Raises
        RuntimeError if the lock is not held.
        """
        return (yield from super().wait())

    @types.coroutine
    def wait_for(self, predicate: Any) -> Generator[Any, Any, Any]:
        """Calls wait() until predicate() is true, and returns the value of predicate()."""
        return (yield from super().wait_for(predicate))
