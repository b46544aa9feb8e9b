"""Runs CPython's own asyncio tests (Lib/test/test_asyncio of this interpreter; see
asyncio_source.py) on casync's loop.

    python tests/python/asyncio_suite.py [-k PATTERN] [--module NAME] [--loop casync] [--debug]

Every class of tests runs in a process of its own (asyncio_worker.py), two at a time; a test that
hangs or crashes costs itself only. A test that failed is run once again, alone; if it fails again
it is run on asyncio's own loop, and does not count if that fails too. A test in which a TCP, Unix,
UDP or pipe transport was not the loop's own has failed. Tests that never make a loop are not
counted. `asyncio_expected.txt` lists what is known to fail, with the reason; see there.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import asyncio_source

HERE = Path(__file__).resolve().parent
EXPECTED = HERE / "asyncio_expected.txt"
# Not here: tests of other loops (test_proactor_events, test_windows_*), and test_selector_events,
# which tests the insides of asyncio's own loop through mocks. What an interpreter does not have is
# passed over.
MODULES = [
    "test_base_events",
    "test_buffered_proto",
    "test_context",
    "test_eager_task_factory",
    "test_events",
    "test_free_threading",
    "test_futures",
    "test_futures2",
    "test_graph",
    "test_locks",
    "test_pep492",
    "test_protocols",
    "test_queues",
    "test_runners",
    "test_sendfile",
    "test_server",
    "test_server_context",
    "test_sock_lowlevel",
    "test_ssl",
    "test_sslproto",
    "test_staggered",
    "test_streams",
    "test_subprocess",
    "test_taskgroups",
    "test_tasks",
    "test_threads",
    "test_timeouts",
    "test_tools",
    "test_transports",
    "test_unix_events",
    "test_waitfor",
]
WORKERS = 2
TEST_TIMEOUT = 40  # seconds: only a hang takes that long, and it may have to hang three times
START_TIMEOUT = 120  # seconds for a process to start, import, and end
SHOWN_LINES = 40  # of the output of a test that failed


@dataclass
class Outcome:
    """How one test ended. verdict: ok, fail, skip (by itself), expected, noisy, unfair or
    loopless.
    """

    name: str  # module.Class.test
    verdict: str
    detail: str = ""
    made: int = 0  # loops
    foreign: Sequence[str] = ()  # transports that were not the loop's own


@dataclass
class Expectation:
    """A line of asyncio_expected.txt."""

    pattern: str
    reason: str
    failed: int = 0
    passed: int = 0


@dataclass
class Runner:
    loop: str
    debug: bool

    def on(self, loop: str) -> Runner:
        return Runner(loop, self.debug)

    def work(self, module: str, names: Iterable[str]) -> tuple[list[dict], str]:
        """Runs one worker process to its end; gives its events, and what it printed."""
        with tempfile.TemporaryDirectory() as directory:
            events, output = Path(directory, "events"), Path(directory, "output")
            events.touch()
            names = list(names)
            command = [sys.executable, *(["-X", "dev"] if self.debug else [])]
            command += [
                str(HERE / "asyncio_worker.py"),
                str(events),
                self.loop,
                module,
                str(TEST_TIMEOUT),
            ]
            with output.open("wb") as out:
                process = subprocess.Popen(
                    [*command, *names],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
                try:
                    status = process.wait(START_TIMEOUT + TEST_TIMEOUT * max(1, len(names)))
                except subprocess.TimeoutExpired:
                    status = "did not end"
                kill_session(process)
            printed = output.read_text(errors="replace")
            if status != 0:
                printed += f"\n(the test process ended with status {status})"
            return [json.loads(line) for line in events.read_text().splitlines()], printed

    def list(self, module: str) -> list[str]:
        events, printed = self.work(module, [])
        if not events:
            raise SystemExit(f"{module} cannot be loaded:\n{printed}")
        return [event["test"] for event in events]

    def run(self, module: str, names: list[str]) -> dict[str, Outcome]:
        """Runs tests of one module, in as many processes as crashes and hangs make necessary."""
        outcomes: dict[str, Outcome] = {}
        while left := [name for name in names if name not in outcomes]:
            events, printed = self.work(module, left)
            started, rest = None, ("fail", f"did not run\n{printed}")
            for event in events:
                if "start" in event:
                    started = event["start"]
                elif "stop" in event:
                    name, started = event["stop"], None
                    rests = event["outcome"], event["detail"], event["made"], event["foreign"]
                    outcomes[name] = Outcome(f"{module}.{name}", *rests)
                else:
                    rest = (event["all"], event["detail"])
            if started is not None:  # the process died in it: go on with those behind it
                outcomes[started] = Outcome(f"{module}.{started}", "fail", printed, made=1)
                continue
            for name in left:
                outcomes.setdefault(name, Outcome(f"{module}.{name}", *rest))
        return outcomes

    def judge(self, module: str, names: list[str], expected: list[Expectation]) -> list[Outcome]:
        """Runs tests and decides what each outcome means."""
        outcomes = self.run(module, names)
        for short, outcome in outcomes.items():
            if outcome.verdict == "ok":
                judge_success(outcome, expected)
            elif outcome.verdict == "fail":
                self.judge_failure(module, short, outcome, expected)
        return list(outcomes.values())

    def judge_failure(
        self, module: str, short: str, outcome: Outcome, expected: list[Expectation]
    ) -> None:
        known = find(expected, outcome.name)
        if known:
            known.failed += 1
            outcome.verdict, outcome.detail = "expected", known.reason
        elif self.run(module, [short])[short].verdict == "ok":
            outcome.verdict = "noisy"
        elif self.on("asyncio").run(module, [short])[short].verdict != "ok":
            outcome.verdict = "unfair"


def judge_success(outcome: Outcome, expected: list[Expectation]) -> None:
    known = find(expected, outcome.name)
    if known:
        known.passed += 1
    if outcome.made == 0:
        outcome.verdict = "loopless"
    for transport in outcome.foreign:
        known = find(expected, transport)
        if known:
            known.failed += 1
            outcome.verdict, outcome.detail = "expected", known.reason
        else:
            outcome.verdict, outcome.detail = "fail", f"not native: {transport}"
            return


def kill_session(process: subprocess.Popen) -> None:
    """Ends what the worker left behind: itself if it hangs, and children its tests forgot."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_expected(path: Path) -> list[Expectation]:
    expected = []
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            pattern, _, reason = line.partition(" = ")
            if not reason.strip():
                raise SystemExit(f"{path.name}: a reason is missing: {line}")
            expected.append(Expectation(pattern.strip(), reason.strip()))
    return expected


def there_are() -> list[str]:
    """The modules that this interpreter has."""
    return [name for name in MODULES if importlib.util.find_spec(f"test.test_asyncio.{name}")]


def find(expected: list[Expectation], name: str) -> Expectation | None:
    return next((item for item in expected if fnmatch.fnmatchcase(name, item.pattern)), None)


def by_class(names: Iterable[str]) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = defaultdict(list)
    for name in names:
        classes[name.split(".")[0]].append(name)
    return classes


def tail(text: str) -> str:
    lines = text.rstrip().splitlines()
    return "".join(f"    {line}\n" for line in lines[-SHOWN_LINES:])


def report(outcomes: list[Outcome], expected: list[Expectation], title: str) -> int:
    """Prints what needs attention, a table, and the closing line. Returns the number of
    failures.
    """
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in sorted(outcomes, key=lambda outcome: outcome.name):
        groups[outcome.verdict].append(outcome)
    for outcome in groups["skip"]:
        print(f"skip {outcome.name}: {outcome.detail}")
    for reason, names in by_reason(groups["expected"]).items():
        print(f"expected, {reason}: {' '.join(names)}")
    for outcome in groups["unfair"]:
        print(f"not counted: {outcome.name}: asyncio's own loop fails it here too")
    for outcome in groups["noisy"]:
        print(f"noisy: {outcome.name}: failed, then passed when run again\n{tail(outcome.detail)}")
    for item in expected:
        if item.passed and not item.failed:
            print(f"remove from {EXPECTED.name}: {item.pattern} passes now")
    for outcome in groups["fail"]:
        print(f"FAIL {outcome.name}\n{tail(outcome.detail)}")
    modules = sorted({outcome.name.split(".")[0] for outcome in outcomes})
    print(f"\n{title:32}" + "".join(f"{column:>9}" for column in COLUMNS))
    for module in modules:
        print_line(
            module, [outcome for outcome in outcomes if outcome.name.split(".")[0] == module]
        )
    passed, failed, skipped = print_line("all", outcomes)[2:5]
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed


# `loops` is the number of tests that really made the tested loop. Those that made none and passed
# are in `tests` alone, as are those that asyncio's own loop fails here too.
COLUMNS = "tests", "loops", "passed", "failed", "skipped"


def print_line(name: str, outcomes: list[Outcome]) -> list[int]:
    def count(*verdicts: str) -> int:
        return sum(outcome.verdict in verdicts for outcome in outcomes)

    made = sum(outcome.made > 0 for outcome in outcomes)
    numbers = [len(outcomes), made, count("ok", "noisy"), count("fail"), count("skip", "expected")]
    print(f"{name:32}" + "".join(f"{number:9}" for number in numbers))
    return numbers


def by_reason(outcomes: list[Outcome]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        reasons[outcome.detail].append(outcome.name)
    return reasons


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPython's asyncio tests on casync's loop")
    parser.add_argument(
        "-k", dest="pattern", default="", help="only tests whose name matches or contains it"
    )
    parser.add_argument("--module", action="append", help="of test.test_asyncio; default: all")
    parser.add_argument(
        "--loop", default="casync", help="the module whose new_event_loop() is tested"
    )
    parser.add_argument(
        "--debug", action="store_true", help="with -X dev: every loop is in debug mode"
    )
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    try:
        asyncio_source.provide()
    except asyncio_source.Missing as missing:
        print(f"skip test.test_asyncio: {missing}")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    runner = Runner(arguments.loop, arguments.debug)
    # What is known is known of casync alone.
    expected = read_expected(EXPECTED) if arguments.loop == "casync" else []

    def wanted(name: str) -> bool:
        return arguments.pattern in name or fnmatch.fnmatchcase(name, arguments.pattern)

    def judge_class(module: str, name: str, names: list[str]) -> list[Outcome]:
        start = time.monotonic()
        outcomes = runner.judge(module, names, expected)
        good = sum(outcome.verdict not in ("fail", "expected") for outcome in outcomes)
        seconds = time.monotonic() - start
        print(f"{module}.{name}: {good} of {len(outcomes)} ({seconds:.0f} s)", flush=True)
        return outcomes

    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = []
        for module in arguments.module or there_are():
            names = [name for name in runner.list(module) if wanted(f"{module}.{name}")]
            jobs += [pool.submit(judge_class, module, *item) for item in by_class(names).items()]
        outcomes = [outcome for job in jobs for outcome in job.result()]
    title = f"{arguments.loop} on {platform.python_version()}{', debug mode' * arguments.debug}"
    return 1 if report(outcomes, expected, title) else 0


if __name__ == "__main__":
    sys.exit(main())
