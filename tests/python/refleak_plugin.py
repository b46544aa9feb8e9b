"""A plugin that makes pytest hunt for leaked references, as `python -m test -R 3:3` does.

    PYTHONPATH=tests/python python -m pytest -p refleak_plugin tests/python/test_streams.py

Each test runs three times to warm up and three times counted, with every cache emptied in between,
and then once more for its outcome. It fails if references or memory blocks grew in each of the
counted rounds, or if descriptors did in any: libregrtest's own rule, by its own code. So it needs
an interpreter built with Py_DEBUG, and CPython's tests.
"""

from __future__ import annotations

import tempfile

import pytest
from _pytest.runner import runtestprotocol
from test.libregrtest.refleak import runtest_refleak
from test.libregrtest.runtests import HuntRefleak

WARM_UPS, COUNTED = 3, 3
FOUND = pytest.StashKey[str]()  # what leaked, and how rounds failed


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    item.stash[FOUND] = ""

    def one_round() -> None:
        # Fixtures of all scopes end with it: those that live on keep a reference for each that
        # asked for them.
        for report in runtestprotocol(item, log=False, nextitem=None):
            if report.failed and not item.stash[FOUND]:  # the first round that fails
                item.stash[FOUND] = report.longreprtext
        item._report_sections.clear()

    with tempfile.NamedTemporaryFile("r") as leaks:
        hunt = HuntRefleak(WARM_UPS, COUNTED, leaks.name)
        runtest_refleak(item.nodeid, one_round, hunt, quiet=True)
        item.stash[FOUND] += leaks.read()


@pytest.hookimpl(trylast=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    if item.stash[FOUND]:
        pytest.fail(item.stash[FOUND], pytrace=False)
