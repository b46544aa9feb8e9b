"""What the tests of casync.gen share."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from casync import gen
from casync.gen.gensocket import GenSocket

Steps = Generator[Any, Any, Any]


def by_yield(test: Callable[..., Steps]) -> Callable[..., Coroutine[Any, Any, None]]:
    """A test that is a generator function: it runs as a task on its `loop`, of casync or
    asyncio.
    """

    @functools.wraps(test)
    async def run(*arguments: Any, **options: Any) -> None:
        await gen.create_task(test(*arguments, **options))

    return run


def pair() -> tuple[GenSocket, GenSocket]:
    one, two = socket.socketpair()
    return GenSocket(fileno=one.detach()), GenSocket(fileno=two.detach())
