"""The context variables that callbacks, tasks and protocols run with."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import Any

import pytest
from support import Loop, errors_of, run_turns, turns, unix_pair

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")


@pytest.mark.parametrize("how", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_a_context_that_is_none_is_found_when_the_callback_is_called(loop: Loop, how: str) -> None:
    class Runs:
        def run(self, function: Any, *args: Any) -> Any:
            ran.append("by its own run()")
            return function(*args)

    errors, ran = errors_of(loop), []
    before = (0,) if how in ("call_later", "call_at") else ()
    for context in 1, Runs():
        getattr(loop, how)(*before, ran.append, "the callback", context=context)
    getattr(loop, how)(*before, lambda *args: ran.extend(args), 1, 2, 3, 4, context=Runs())
    run_turns(loop, 2)
    assert [type(context["exception"]) for context in errors] == [AttributeError]
    assert ran == ["by its own run()", "the callback", "by its own run()", 1, 2, 3, 4]


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("how", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_a_callback_runs_in_a_copy_of_the_context_it_was_queued_in(
    loop: Loop, how: str, debug: bool
) -> None:
    loop.set_debug(debug)
    seen: list[str] = []

    def callback() -> None:
        seen.append(variable.get())
        variable.set("changed by the callback")

    def queue(**options: Any) -> None:
        arguments = {"call_later": (0, callback), "call_at": (loop.time(), callback)}.get(
            how, (callback,)
        )
        getattr(loop, how)(*arguments, **options)

    variable.set("when queued")
    own = contextvars.copy_context()
    own.run(variable.set, "own context")
    queue()
    queue(context=own)
    variable.set("when run")
    run_turns(loop, 2)
    assert seen == ["when queued", "own context"]
    assert variable.get() == "when run"
    assert own[variable] == "changed by the callback"


def test_a_watchers_callback_runs_in_the_context_it_was_added_in(loop: Loop) -> None:
    ours, theirs = unix_pair()
    seen: list[str] = []
    with ours, theirs:
        variable.set("when added")
        loop.add_reader(ours, lambda: (ours.recv(1), seen.append(variable.get())))
        variable.set("when run")
        theirs.send(b"x")
        run_turns(loop, 2)
        loop.remove_reader(ours)
    assert seen == ["when added"]


async def test_every_task_has_a_context_of_its_own(loop: Loop) -> None:
    async def task(name: str) -> str:
        variable.set(name)
        await turns()
        return variable.get()

    variable.set("outer")
    assert await asyncio.gather(*(task(name) for name in "abc")) == ["a", "b", "c"]
    assert variable.get() == "outer"


async def test_protocol_callbacks_run_in_the_context_the_transport_was_made_in(loop: Loop) -> None:
    seen: dict[str, str] = {}

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            seen["made"] = variable.get()

        def data_received(self, data: bytes) -> None:
            seen["data"] = variable.get()

        def connection_lost(self, exc: BaseException | None) -> None:
            lost.set_result(None)

    lost = loop.create_future()
    ours, theirs = unix_pair()
    with theirs:
        variable.set("when made")
        await loop.create_connection(Protocol, sock=ours)
        variable.set("later")
        theirs.send(b"x")
        await turns()
        theirs.close()
        await lost
    assert seen == {"made": "when made", "data": "when made"}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
async def test_create_task_with_a_context(loop: Loop) -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="outside")
    context = contextvars.copy_context()

    async def task() -> None:
        variable.set("inside")

    await loop.create_task(task(), name="named", context=context)
    assert (variable.get(), context[variable]) == ("outside", "inside")
