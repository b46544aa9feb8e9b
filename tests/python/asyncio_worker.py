"""Runs tests of one of CPython's own asyncio test modules on a given loop; `asyncio_suite.py`
starts it.

    python asyncio_worker.py EVENTS LOOP MODULE TIMEOUT [Class.test ...]

EVENTS is a file that gets one JSON object a line: {"test": name} for every test of the module if
none was named; else {"start": name} and {"stop": name, "outcome": "ok" | "fail" | "skip", "detail",
"made", "foreign"} (how many loops it made, and which transports that should have been native), or
{"all": outcome, "detail"} for what concerns every test that was to follow (a setUpClass that
failed). A test that takes longer than TIMEOUT seconds ends the process, with a traceback of every
thread on stderr.
"""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import asyncio.unix_events
import faulthandler
import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
import unittest
import unittest.mock
from collections.abc import Iterator
from typing import Any, TextIO

# asyncio's own transports, in whose place the tested loop has its own.
REPLACED_TRANSPORTS = [
    asyncio.selector_events._SelectorSocketTransport,  # type: ignore[attr-defined]
    asyncio.selector_events._SelectorDatagramTransport,  # type: ignore[attr-defined]
    asyncio.unix_events._UnixReadPipeTransport,  # type: ignore[attr-defined]
    asyncio.unix_events._UnixWritePipeTransport,  # type: ignore[attr-defined]
]


class Probe:
    """What the running test made: how many loops, and which transports that the loop should have
    replaced.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.made = 0
        self.foreign: set[str] = set()


def bind(loop_name: str, probe: Probe) -> None:
    """Makes every name by which tests get asyncio's loop give them the loop of module
    `loop_name`.
    """
    base = loop_class(loop_name)
    is_asyncio = base is asyncio.SelectorEventLoop

    class SelectorEventLoop(base):  # type: ignore[misc, valid-type]
        def __init__(self, selector: Any = None) -> None:
            probe.made += 1
            if is_asyncio:
                super().__init__(selector)
                return
            if selector is not None:
                selector.close()
            super().__init__()

    for module in asyncio, asyncio.unix_events:
        for name in "SelectorEventLoop", "EventLoop":
            if hasattr(module, name):
                setattr(module, name, SelectorEventLoop)
    policy: Any = asyncio.unix_events._UnixDefaultEventLoopPolicy  # type: ignore[attr-defined]
    policy._loop_factory = SelectorEventLoop
    if not is_asyncio:
        for transport in REPLACED_TRANSPORTS:
            watch_transport(transport, base, probe)


def loop_class(loop_name: str) -> Any:
    loop = importlib.import_module(loop_name).new_event_loop()
    loop.close()
    return type(loop)


def watch_transport(transport: Any, base: Any, probe: Probe) -> None:
    """Tells the probe of each such transport that is made for the tested loop around something
    real. (One that refuses its file, as a regular one, was not made: the loop's own leave it to
    asyncio's to say so.)
    """
    original = transport.__init__

    def init(self: Any, loop: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        original(self, loop, file, *args, **kwargs)
        if isinstance(loop, base) and not isinstance(file, unittest.mock.NonCallableMock):
            probe.foreign.add(transport.__name__)

    transport.__init__ = init


class Result(unittest.TestResult):
    def __init__(self, events: TextIO, probe: Probe, timeout: float) -> None:
        super().__init__()
        self.events, self.probe, self.timeout = events, probe, timeout
        self.outcome, self.detail = "ok", ""

    def emit(self, **event: Any) -> None:
        self.events.write(json.dumps(event) + "\n")
        self.events.flush()

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.outcome, self.detail = "ok", ""
        self.probe.reset()
        self.emit(start=name_of(test))
        faulthandler.dump_traceback_later(self.timeout, exit=True)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        counted = {"made": self.probe.made, "foreign": sorted(self.probe.foreign)}
        self.emit(stop=name_of(test), outcome=self.outcome, detail=self.detail, **counted)

    def record(self, test: Any, outcome: str, detail: str) -> None:
        if isinstance(test, unittest.TestCase):
            self.outcome, self.detail = outcome, self.detail + detail
        else:
            self.emit(all=outcome, detail=detail)

    def addError(self, test: Any, err: Any) -> None:
        self.record(test, "fail", "".join(traceback.format_exception(*err)))

    addFailure = addError

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.addError(test, err)

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.record(test, "fail", "passed, but is marked as an expected failure")

    def addSkip(self, test: Any, reason: str) -> None:
        self.record(test, "skip", reason)


def name_of(test: unittest.TestCase) -> str:
    return ".".join(test.id().split(".")[-2:])


def flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flatten(item)
        else:
            yield item


def main(events_path: str, loop_name: str, module_name: str, timeout: str, *names: str) -> None:
    # A job in the background is started with SIGINT ignored; tests of interrupts need it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    probe = Probe()
    bind(loop_name, probe)
    module = importlib.import_module(f"test.test_asyncio.{module_name}")
    loader = unittest.defaultTestLoader
    with (
        open(events_path, "a", encoding="utf-8") as events,
        tempfile.TemporaryDirectory() as directory,
    ):
        result = Result(events, probe, float(timeout))
        if not names:
            for test in flatten(loader.loadTestsFromModule(module)):
                result.emit(test=name_of(test))
            return
        os.chdir(directory)  # some tests write files where they are
        loader.loadTestsFromNames(names, module).run(result)
        os.chdir("/")


if __name__ == "__main__":
    main(*sys.argv[1:])
