"""casync runs asyncio programs on casync.h, an event loop in one C header.

    import casync
    casync.run(main())

A program that makes its loop elsewhere takes casync.new_event_loop, say as the loop_factory of an
asyncio.Runner. `python -m casync app.py` runs a program on casync without changing it. All names
mean what they mean in asyncio unless their docstrings say otherwise. A loop and its objects belong
to the thread that runs the loop: other threads call only loop.call_soon_threadsafe() and
asyncio.run_coroutine_threadsafe().
"""

from __future__ import annotations

import asyncio
import asyncio.events
import os.path
import sys

if not sys.platform.startswith("linux"):
    raise ImportError(
        f"casync runs on Linux only (its backend is epoll), and this is {sys.platform!r}"
    )

from ._extension import native as _native
from .futures import chain_future, wrap_future
from .loop import EventLoop, new_event_loop, run
from .tasks import dump_tasks

__all__ = [
    "EventLoop",
    "EventLoopPolicy",
    "chain_future",
    "cpu_executor",
    "dump_tasks",
    "get_include",
    "install",
    "is_installed",
    "new_event_loop",
    "run",
    "wrap_future",
]
_HAS_CFFI = sys.version_info >= (3, 14) or "t" not in sys.abiflags  # not 3.13 without a GIL
if _HAS_CFFI:
    __all__ += ["ffi", "lib"]
__version__ = "0.1.0"


_functions = _native._functions  # a capsule: what casync_import.h imports


def get_include() -> str:
    """Returns the directory that holds casync.h and casync_import.h.

    A C extension module that works on casync's loops includes these headers. Any thread may call
    this function.
    """
    here = os.path.dirname(os.path.realpath(__file__))  # pathlib would take long to import
    return os.path.join(here, "include")


def _has_policies() -> bool:
    names = "_get_event_loop_policy", "get_event_loop_policy"  # the latter up to 3.13
    return any(name in vars(asyncio.events) for name in names)


def install() -> None:
    """Makes asyncio create casync's loops, in the whole process.

    After this call, asyncio.run(), asyncio.Runner and asyncio.new_event_loop() make a
    casync.EventLoop. Call it once, before the program makes its first loop; loops that exist
    already stay what they are. Up to Python 3.15 it sets an event loop policy. Python 3.14
    deprecates policies, but this function causes no warning. From Python 3.16 on, which has no
    policies, it puts casync.new_event_loop in the place of asyncio.new_event_loop. New programs
    should call casync.run(), or asyncio.Runner(loop_factory=casync.new_event_loop), instead.
    """
    if _has_policies():
        from . import policy

        policy.set_event_loop_policy(policy.EventLoopPolicy())
    else:
        for module in asyncio, asyncio.events:
            vars(module)["new_event_loop"] = new_event_loop


def is_installed() -> bool:
    """Returns whether asyncio's event loop policy is casync's, or, from Python 3.16 on, whether
    asyncio.new_event_loop is.

    It is so from install() on, until the program sets another. Any thread may call this function.
    """
    if not _has_policies():
        return asyncio.events.new_event_loop is new_event_loop
    policy = sys.modules.get("casync.policy")
    return policy is not None and isinstance(policy.get_event_loop_policy(), policy.EventLoopPolicy)


def __getattr__(name: str) -> object:
    """Imports a name when a program first uses it. Few programs need the policy (deprecated since
    Python 3.14, gone from 3.16), the executor and the C API, and each takes time to import.
    """
    if name == "EventLoopPolicy" and _has_policies():
        from .policy import EventLoopPolicy

        return EventLoopPolicy
    if name == "cpu_executor":
        from .executor import cpu_executor

        return cpu_executor
    if name in ("ffi", "lib"):
        try:
            from . import _casync
        except ImportError as error:
            reason = "is not installed" if _HAS_CFFI else "does not support this Python"
            raise ImportError(f"casync.{name} needs cffi, which {reason}") from error
        return getattr(_casync, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
