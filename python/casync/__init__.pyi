from typing import Any

from .executor import cpu_executor as cpu_executor
from .futures import chain_future as chain_future
from .futures import wrap_future as wrap_future
from .loop import EventLoop as EventLoop
from .loop import install as install
from .loop import is_installed as is_installed
from .loop import new_event_loop as new_event_loop
from .loop import run as run
from .policy import EventLoopPolicy as EventLoopPolicy
from .tasks import dump_tasks as dump_tasks

__version__: str

def get_include() -> str: ...

ffi: Any  # cffi's FFI object, for lib
lib: Any  # casync.h's functions and constants; see the header for what may be called from where
