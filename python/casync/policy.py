"""EventLoopPolicy is for programs that choose their loop by asyncio's event loop policy.

Python 3.14 deprecates policies, and Python 3.16 removes them. In 3.14 the public names of the
policy cause a warning, and asyncio's own code (Lib/asyncio/events.py) uses the same names with an
underscore in front. This module uses those too. So install() and `python -m casync` work there as
elsewhere, without a warning that their user could do nothing about.
"""

from __future__ import annotations

from asyncio import events, unix_events
from typing import TYPE_CHECKING, Any

from .loop import EventLoop


def quiet_name(module: Any, name: str) -> Any:
    """Returns what a module of asyncio calls `name`, or, since 3.14, `_name`."""
    return getattr(module, f"_{name}", None) or getattr(module, name)


get_event_loop_policy = quiet_name(events, "get_event_loop_policy")
set_event_loop_policy = quiet_name(events, "set_event_loop_policy")

if TYPE_CHECKING:
    from asyncio import DefaultEventLoopPolicy
else:
    DefaultEventLoopPolicy = quiet_name(unix_events, "DefaultEventLoopPolicy")


class EventLoopPolicy(DefaultEventLoopPolicy):
    """This is asyncio's default policy, with its child watchers, but it makes casync's loops."""

    _loop_factory = EventLoop
