"""EventLoopPolicy, for programs that choose their loop by asyncio's policy; and asyncio's own names
of that.

Python 3.14 deprecates policies, and Python 3.16 has none. In 3.14 the public names warn where they
are used, and asyncio's own code uses others, with an underscore before them. So does this module:
install() and `python -m casync` mean there what they mean elsewhere, and warn of nothing that their
user could change.
"""

from __future__ import annotations

from asyncio import events, unix_events
from typing import TYPE_CHECKING, Any

from .loop import EventLoop


def quiet_name(module: Any, name: str) -> Any:
    """What a module of asyncio has by that name, or since 3.14 by the same with an underscore."""
    return getattr(module, f"_{name}", None) or getattr(module, name)


get_event_loop_policy = quiet_name(events, "get_event_loop_policy")
set_event_loop_policy = quiet_name(events, "set_event_loop_policy")

if TYPE_CHECKING:
    from asyncio import DefaultEventLoopPolicy
else:
    DefaultEventLoopPolicy = quiet_name(unix_events, "DefaultEventLoopPolicy")


class EventLoopPolicy(DefaultEventLoopPolicy):
    """This policy is asyncio's own, child watchers and all, but makes casync's loops."""

    _loop_factory = EventLoop
