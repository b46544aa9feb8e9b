"""asyncio's queue, for `yield from`: a subclass, so coroutines can share one with generators."""

# A generator that may also be awaited is, to typeshed, no coroutine:
# mypy: disable-error-code="override"

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Queue(asyncio.Queue[T]):
    """What is put first is got first. If `maxsize` is above 0, the queue holds no more items."""

    @types.coroutine
    def get(self) -> Generator[Any, Any, T]:
        """Takes the next item, waiting while there is none."""
        return (yield from super().get())

    @types.coroutine
    def put(self, item: T) -> Generator[Any, Any, None]:
        """Adds an item, waiting while the queue is full."""
        return (yield from super().put(item))

    @types.coroutine
    def join(self) -> Generator[Any, Any, None]:
        """Waits until task_done() was called for each item that was put."""
        return (yield from super().join())
