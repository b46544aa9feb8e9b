"""The examples of casync.gen print what they should."""

from __future__ import annotations

import runpy
import socket
from types import ModuleType

import pytest
from casync import gen
from gen_support import Steps, by_yield, pair
from support import REPOSITORY, Loop, ended, python

EXPECTED = {
    "gen_chat": [
        "anna hears: welcome",
        "ben hears: welcome",
        "anna hears: ben came",
        "cleo hears: welcome",
        "anna hears: cleo came",
        "ben hears: cleo came",
        "anna hears: ben: hello, is somebody here?",
        "cleo hears: ben: hello, is somebody here?",
        "ben hears: anna left",
        "cleo hears: anna left",
        "the room is closed",
    ],
    "gen_http": [
        "<ClientResponse 201 Created: 15 bytes of application/json>",
        '200 {"text": "buy milk"}',
        "404 there is no note 17",
        "request 0",
        "request 1",
        "request 2",
        "the server has stopped",
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_examples(casync: ModuleType, name: str) -> None:
    program = str(REPOSITORY / "examples" / f"{name}.py")
    environment = {"PYTHONASYNCIODEBUG": ""}  # else asyncio logs too
    lines = ended(python("-W", "error", program, env=environment)).splitlines()
    assert [line for line in lines if not line.startswith("listening on")] == EXPECTED[name]


@by_yield
def test_the_chat_room_keeps_nobody_who_left(loop: Loop) -> Steps:
    room = runpy.run_path(str(REPOSITORY / "examples" / "gen_chat.py"))["Room"]()
    for said, error in (
        (b"", None),
        (b"no end of line", None),
        (b"name\n\xff\n", UnicodeDecodeError),
    ):
        guest, other = pair()
        with other:
            other.send(said)
            other.shutdown(socket.SHUT_WR)
            (result,) = yield from gen.gather(room.serve(guest), return_exceptions=True)
            assert result is None if error is None else isinstance(result, error)
            assert not room.guests and guest.fileno() == -1
