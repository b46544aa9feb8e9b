"""The examples of casync.gen print what they should."""

from __future__ import annotations

from types import ModuleType

import pytest
from support import REPOSITORY, ended, python

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
