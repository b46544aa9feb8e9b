"""EventLoopPolicy, for programs that choose their loop by asyncio's policy (deprecated since 3.14)."""

from __future__ import annotations

import asyncio

from .loop import EventLoop


class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
    """asyncio's policy, child watchers and all, with casync's loop."""

    _loop_factory = EventLoop
