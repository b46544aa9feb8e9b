"""C futures in Python and the other way round: wrap_future() and chain_future()."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable
from typing import Any

from ._extension import native


def wrap_future(future: Any) -> asyncio.Future[int]:
    """Returns an asyncio.Future that ends as a C future (casync.h) does: with its result, with an
    OSError, or cancelled.

    `future` is the address of a casync_future of a casync.EventLoop, or of what it is the first
    member of (an operation, a task): a pointer that cffi made, or an int. Cancelling the
    asyncio.Future cancels the C future. Call this in the loop's thread. The C future must be there
    until it is done and the loop has turned once since: C code that wants to close it earlier
    cancels it first.
    """
    address = _address_of(future)
    loop = native._future_loop(address)
    wrapped: asyncio.Future[int] = loop.create_future()

    def copy_result() -> None:
        if wrapped.done():
            return
        try:
            result = loop._future_result(address)
        except (OSError, MemoryError) as error:
            wrapped.set_exception(error)
        else:
            if result is None:
                wrapped.cancel()
            else:
                wrapped.set_result(result)

    def cancel(_: asyncio.Future[int]) -> None:
        if wrapped.cancelled() and not _has_run(watch):
            loop._cancel_future(address)

    watch = loop._watch_future(address, copy_result)
    wrapped.add_done_callback(cancel)
    return wrapped


def chain_future(awaitable: Awaitable[int | None], future: Any) -> None:
    """Lets a C future end as an awaitable does (a coroutine becomes a task), so that C code can
    await it.

    `future` is given as to wrap_future, but casync_future_init must have made it. What the
    awaitable returns must be an int >= 0, or None for 0. An OSError that it raises becomes the
    result -errno, TimeoutError -ETIMEDOUT, MemoryError -ENOMEM. Any other exception or result goes
    to the loop's exception handler, and the C future's result is -EPROTO. Cancelling either cancels
    the other.
    """
    address = _address_of(future)
    loop = native._future_loop(address)
    source = asyncio.ensure_future(awaitable, loop=loop)

    def copy_result(_: asyncio.Future[Any]) -> None:
        if _has_run(watch):
            return  # C code cancelled its future, which may be gone
        watch.cancel()
        if source.cancelled():
            loop._cancel_future(address)
        else:
            loop._end_future(address, _result_for_c(source, loop))

    watch = loop._watch_future(address, source.cancel)
    source.add_done_callback(copy_result)


def _address_of(future: Any) -> int:
    if isinstance(future, int):
        return future
    from . import ffi

    if not isinstance(future, ffi.CData) or ffi.typeof(future).kind != "pointer":
        raise TypeError(
            f"a pointer to a casync_future is needed (of cffi, or an int), not {future!r}"
        )
    return int(ffi.cast("uintptr_t", future))


def _has_run(watch: asyncio.Handle) -> bool:
    return watch._callback is None  # type: ignore[attr-defined]


def _result_for_c(source: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> int:
    error = source.exception()
    if (
        isinstance(error, OSError) and error.errno is not None and error.errno > 0
    ):  # a gaierror's is negative
        return -error.errno
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return -errno.ETIMEDOUT
    if isinstance(error, MemoryError):
        return -errno.ENOMEM
    if error is None:
        result = source.result()
        if result is None:
            return 0
        if isinstance(result, int) and 0 <= result < 1 << 63:
            return int(result)
        error = TypeError(f"C code awaits an int >= 0 or None, not {result!r}")
    context = {"message": "what C code awaits failed", "exception": error, "future": source}
    loop.call_exception_handler(context)
    return -errno.EPROTO
