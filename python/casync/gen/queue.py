"""A queue for `yield from`. It is a subclass of asyncio's, so generators and coroutines can share
one.
"""

# A generator that may also be awaited is, to typeshed, no coroutine:
# mypy: disable-error-code="override"

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Queue(asyncio.Queue[T]):
    """get() returns the items in the order of put(). If `maxsize` is above 0, the queue holds at
    most `maxsize` items.
    """

    @types.coroutine
    def get(self) -> Generator[Any, Any, T]:
        """Waits while the queue is empty, and returns the next item."""
        return (yield from super().get())

    @types.coroutine
    def put(self, item: T) -> Generator[Any, Any, None]:
        """Waits while the queue is full, and adds an item."""
        return (yield from super().put(item))

    @types.coroutine
    def join(self) -> Generator[Any, Any, None]:
        """Waits until task_done() was called once for each item that put() added."""
        return (yield from super().join())
