"""wrap_future() lets Python await a C future; chain_future() lets C code await a Python awaitable.

A C future is a casync_future (see casync.h).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable
from typing import Any

from ._extension import native


def wrap_future(future: Any) -> asyncio.Future[int]:
    """Returns an asyncio.Future that ends as a C future (casync.h) ends.

    The asyncio.Future gets the C future's result, an int that is 0 or more. If the C future failed,
    the asyncio.Future gets an OSError with the error number, or a MemoryError. If the C future was
    cancelled, so is the asyncio.Future. Cancelling the asyncio.Future cancels the C future.

    `future` is the address of a casync_future of a casync.EventLoop, or of an object whose first
    member is one (an operation, a task). It is a pointer that cffi made, or an int. Raises
    TypeError if it is neither, and ValueError if it is NULL, or if that future is closed or belongs
    to another kind of loop.

    Call this in the loop's thread. The C code owns the C future and its memory. It must keep both
    until the future is done and the loop has run one more turn. To close the future earlier, the C
    code cancels it first.
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
    """Lets a C future end as a Python awaitable ends, so that C code can await it.

    A coroutine becomes a task. The awaitable must return an int that is 0 or more, or None, which
    counts as 0. If it raises an OSError, the C future's result is -errno; for a TimeoutError it is
    -ETIMEDOUT, and for a MemoryError -ENOMEM. Any other exception or result goes to the loop's
    exception handler, and the C future's result is -EPROTO. Cancelling one of the two cancels the
    other.

    `future` is what wrap_future() takes, and casync_future_init must have initialised it. Raises
    TypeError and ValueError as wrap_future() does, and TypeError if `awaitable` cannot be awaited.
    Call this in the loop's thread. The C code owns the C future and its memory. It must
    keep both until the future is done and the loop has run one more turn.
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
