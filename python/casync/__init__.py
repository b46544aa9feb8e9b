"""casync runs asyncio on casync.h, the event loop in one C header:

    import casync
    casync.run(main())

A program that is not yours runs on it by `python -m casync app.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

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
    "ffi",
    "get_include",
    "install",
    "is_installed",
    "lib",
    "new_event_loop",
    "run",
    "wrap_future",
]
__version__ = "0.1.0"


_functions = _native._functions  # a capsule: what casync_import.h imports


def get_include() -> str:
    """Returns the directory of casync.h and casync_import.h, which extension modules include that
    work on casync's loops.
    """
    return str(Path(__file__).resolve().parent / "include")


def install() -> None:
    """Makes casync's the event loop of everything that asks asyncio's policy for a new one."""
    from . import policy

    policy.set_event_loop_policy(policy.EventLoopPolicy())


def is_installed() -> bool:
    """Returns whether install() was called, and was not undone since."""
    policy = sys.modules.get("casync.policy")
    return policy is not None and isinstance(policy.get_event_loop_policy(), policy.EventLoopPolicy)


def __getattr__(name: str) -> object:
    """Imports what few programs need and costs something: the policy (deprecated since 3.14),
    processes, and the C API.
    """
    if name == "EventLoopPolicy":
        from .policy import EventLoopPolicy

        return EventLoopPolicy
    if name == "cpu_executor":
        from .executor import cpu_executor

        return cpu_executor
    if name in ("ffi", "lib"):
        from . import _casync

        return getattr(_casync, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
