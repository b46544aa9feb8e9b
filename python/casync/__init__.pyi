from typing import Any

from .executor import cpu_executor
from .futures import chain_future, wrap_future
from .loop import EventLoop, new_event_loop, run
from .policy import EventLoopPolicy
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
__version__: str

def get_include() -> str: ...
def install() -> None: ...
def is_installed() -> bool: ...

ffi: Any  # cffi's FFI object, for lib
lib: Any  # casync.h's functions and constants; see the header for what may be called from where
