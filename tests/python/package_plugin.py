"""A plugin that makes pytest run a package's tests on a given loop; `package_suites.py` starts it.

The environment says what to do:
CASYNC_SUITE_LOOP    the module whose loop every way to get asyncio's loop gives
CASYNC_SUITE_FILTER  a text that the names of the tests to run contain
CASYNC_SUITE_TESTS   a file with the tests to run, a node id a line; if it is empty, all
CASYNC_SUITE_EVENTS  a file that gets one JSON object a line: {"tests": [node id, ...]}, the tests
there are;
                     {"start": node id} and {"stop": node id, "outcome": "ok" | "fail" | "skip",
                     "detail", "made", "foreign"} (how many loops it made, which transports should
                     have been native)
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from asyncio_worker import Probe, bind

probe = Probe()
bind(os.environ["CASYNC_SUITE_LOOP"], probe)  # before anything that is tested has been imported
outcome, detail = "ok", ""


def emit(**event: Any) -> None:
    with open(os.environ["CASYNC_SUITE_EVENTS"], "a") as events:
        events.write(json.dumps(event) + "\n")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    text = os.environ["CASYNC_SUITE_FILTER"]
    names = set(Path(os.environ["CASYNC_SUITE_TESTS"]).read_text().splitlines())
    items[:] = [
        item for item in items if text in item.nodeid and (not names or item.nodeid in names)
    ]
    emit(tests=[item.nodeid for item in items])


def pytest_runtest_logstart(nodeid: str) -> None:
    global outcome, detail
    outcome, detail = "ok", ""
    probe.reset()
    emit(start=nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    global outcome, detail
    if report.failed:
        outcome, detail = "fail", detail + report.longreprtext
    elif report.skipped and outcome == "ok":
        outcome = "skip"


def pytest_runtest_logfinish(nodeid: str) -> None:
    emit(
        stop=nodeid, outcome=outcome, detail=detail, made=probe.made, foreign=sorted(probe.foreign)
    )
