"""Runs tests that packages publish with their source, on casync's loop and on asyncio's own.

    python tests/python/package_suites.py [--package anyio] [-k TEXT] [--loop casync]

The source distributions of the versions that are installed are downloaded and unpacked into
tests/.cache. Both loops run a package's tests side by side, a process each (package_plugin.py); a
test that crashes or hangs ends its process, and the tests behind it run in another. What fails on
casync's loop and not on asyncio's is run once again, alone, on both; it has failed if it fails
again on casync's alone. A test in which a TCP, Unix, UDP or pipe transport was not the loop's own
has failed too.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache" / "packages"
TEST_TIMEOUT = 60  # seconds: only a hang takes that long
RUN_TIMEOUT = 600  # seconds for one process
SHOWN_LINES = 40  # of the output of a test that failed


@dataclass(frozen=True)
class Suite:
    """Which of a package's tests are run: those of I/O, processes, signals and time."""

    package: str
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()


SUITES = (
    Suite(
        "anyio",
        (
            "tests/streams",
            "tests/test_concurrency_utils.py",
            "tests/test_eventloop.py",
            "tests/test_fileio.py",
            "tests/test_from_thread.py",
            "tests/test_signals.py",
            "tests/test_sockets.py",
            "tests/test_subprocesses.py",
            "tests/test_synchronization.py",
            "tests/test_taskgroups.py",
            "tests/test_to_process.py",
            "tests/test_to_thread.py",
        ),
        ("-p", "no:asyncio", "-k", "not trio and not uvloop"),
    ),
    Suite(
        "aiohttp",
        (
            "tests/test_client_functional.py",
            "tests/test_client_ws_functional.py",
            "tests/test_connector.py",
            "tests/test_loop.py",
            "tests/test_run_app.py",
            "tests/test_tcp_helpers.py",
            "tests/test_test_utils.py",
            "tests/test_web_functional.py",
            "tests/test_web_runner.py",
            "tests/test_web_sendfile_functional.py",
            "tests/test_web_server.py",
            "tests/test_web_websocket_functional.py",
        ),
        (
            "-p",
            "no:asyncio",
            "-m",
            "not dev_mode and not autobahn and not internal",
            "--aiohttp-fast",
        ),
    ),
    Suite(
        "uvicorn",
        ("tests/protocols", "tests/test_lifespan.py", "tests/test_main.py", "tests/test_server.py"),
        ("-p", "no:asyncio"),
    ),
    Suite("hypercorn", ("tests/asyncio",)),
    Suite("aiosqlite", ("aiosqlite/tests/smoke.py",), ("-p", "no:asyncio")),
    Suite(
        "tornado",
        (
            "tornado/test/asyncio_test.py",
            "tornado/test/gen_test.py",
            "tornado/test/httpclient_test.py",
            "tornado/test/httpserver_test.py",
            "tornado/test/ioloop_test.py",
            "tornado/test/iostream_test.py",
            "tornado/test/locks_test.py",
            "tornado/test/process_test.py",
            "tornado/test/queues_test.py",
            "tornado/test/simple_httpclient_test.py",
            "tornado/test/tcpclient_test.py",
            "tornado/test/tcpserver_test.py",
            "tornado/test/websocket_test.py",
        ),
        ("-p", "no:asyncio", "-o", "python_files=*_test.py", "--log-disable", "tornado.access"),
    ),
    Suite("websockets", ("tests/asyncio",), ("-p", "no:asyncio")),
)


@dataclass
class Outcome:
    verdict: str  # ok, fail, skip; then also noisy, unfair
    detail: str = ""
    made: int = 0  # loops


@dataclass
class Report:
    """What came of a suite on casync's loop."""

    suite: Suite
    version: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    reason: str = ""  # why there is nothing

    def count(self, *verdicts: str) -> int:
        return sum(outcome.verdict in verdicts for outcome in self.outcomes.values())


def unpacked(package: str, version: str) -> Path:
    """The directory of the package's source, which is downloaded if it is not there. The tests may
    write there, so each Python has its own.
    """
    directory = CACHE / f"{package}-{version}-python{platform.python_version()}"
    if directory.exists():
        return directory
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        words = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        words += ["--no-binary", package, "--dest", temporary, f"{package}=={version}"]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        [archive] = Path(temporary).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        [source] = (path for path in Path(temporary).iterdir() if path.is_dir())
        source.rename(directory)
    return directory


@dataclass(frozen=True)
class Runner:
    suite: Suite
    directory: Path
    loop: str
    filter: str  # only tests whose name contains it

    def work(self, names: list[str]) -> tuple[list[dict], str]:
        """Runs one pytest, of these tests or of all, to its end; gives its events and what it
        printed.
        """
        with tempfile.TemporaryDirectory() as temporary:
            tests, events = Path(temporary, "tests"), Path(temporary, "events")
            tests.write_text("\n".join(names))
            events.touch()
            files = [name for name in self.suite.tests if (self.directory / name).exists()]
            words = [Path(sys.executable).parent / "pytest", "-q", "-p", "package_plugin", *files]
            # Not the package's own options, which measure coverage, or run tests in many processes.
            words += ["-o", "addopts=", "-p", "no:cacheprovider", *self.suite.options]
            words += ["--timeout", str(TEST_TIMEOUT), "--timeout-method", "thread"]
            environment = {
                **os.environ,
                "PYTHONPATH": str(HERE),
                "CASYNC_SUITE_LOOP": self.loop,
                "CASYNC_SUITE_FILTER": self.filter,
                "CASYNC_SUITE_TESTS": str(tests),
                "CASYNC_SUITE_EVENTS": str(events),
            }
            try:
                process = subprocess.run(
                    words,
                    cwd=self.directory,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    timeout=RUN_TIMEOUT,
                )
                printed = process.stdout
            except subprocess.TimeoutExpired as expired:
                printed = f"{expired.stdout}\n(pytest did not end within {RUN_TIMEOUT} s)"
            return [json.loads(line) for line in events.read_text().splitlines()], printed

    def run(self, names: list[str] | None = None) -> dict[str, Outcome]:
        """Runs tests, all if none is named, in as many processes as crashes and hangs make
        necessary.
        """
        outcomes: dict[str, Outcome] = {}
        left = names or []
        while left or names is None:
            events, printed = self.work(left)
            if not events:
                raise SystemExit(
                    f"{self.suite.package}: its tests cannot be loaded:\n{tail(printed)}"
                )
            if names is None:
                left = names = events[0]["tests"]
            started = None
            for event in events[1:]:
                started = event.get("start")
                if "stop" in event:
                    outcomes[event["stop"]] = outcome_of(event)
            if started:  # the process ended in it
                outcomes[started] = Outcome("fail", printed)
            before, left = left, [name for name in left if name not in outcomes]
            if before == left:
                outcomes.update({name: Outcome("fail", f"did not run\n{printed}") for name in left})
                left = []
        return outcomes

    def judge(self, ours: dict[str, Outcome], theirs: dict[str, Outcome]) -> None:
        """Decides what failures on casync's loop mean."""
        failed = [name for name, outcome in ours.items() if outcome.verdict == "fail"]
        for name in failed:
            if theirs[name].verdict == "fail":
                ours[name].verdict = "unfair"
        failed = [name for name in failed if ours[name].verdict == "fail"]
        if not failed:
            return
        again = self.run(failed)
        asyncio_again = replace(self, loop="asyncio").run(failed)
        for name in failed:
            if again[name].verdict == "ok":
                ours[name].verdict = "noisy"
            elif asyncio_again[name].verdict == "fail":
                ours[name].verdict = "unfair"


def outcome_of(event: dict) -> Outcome:
    if event["foreign"]:
        return Outcome("fail", f"not native: {' '.join(event['foreign'])}", event["made"])
    return Outcome(event["outcome"], event["detail"], event["made"])


def run_suite(suite: Suite, loop: str, filter: str) -> Report:
    start = time.monotonic()
    report = Report(suite, importlib.metadata.version(suite.package))
    directory = unpacked(suite.package, report.version)
    if not any((directory / name).exists() for name in suite.tests):
        report.reason = "its source distribution has no tests"
        print(f"{suite.package} {report.version}: skipped: {report.reason}", flush=True)
        return report
    runner = Runner(suite, directory, loop, filter)
    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(Runner.run, (runner, replace(runner, loop="asyncio")))
    runner.judge(ours, theirs)
    report.outcomes = ours
    if not filter and not any(outcome.made for outcome in ours.values()):
        raise SystemExit(f"{suite.package}: no test made {loop}'s loop")
    print(
        f"{suite.package} {report.version}: {len(ours)} tests, {time.monotonic() - start:.0f} s",
        flush=True,
    )
    return report


def tail(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.rstrip().splitlines()[-SHOWN_LINES:])


# `loops` is the number of tests that really made the tested loop; `on both` failed on asyncio's own
# loop too.
COLUMNS = "tests", "loops", "passed", "failed", "on both", "skipped"


def show(reports: list[Report], loop: str) -> int:
    """Prints what needs attention, a table, and the closing line. Returns the number of
    failures.
    """
    for report in reports:
        for name, outcome in report.outcomes.items():
            if outcome.verdict == "noisy":
                print(f"noisy: {report.suite.package} {name}: failed, then passed when run again")
            elif outcome.verdict == "fail":
                print(f"FAIL {report.suite.package} {name}\n{tail(outcome.detail)}")
    title = f"{loop} on {platform.python_version()}"
    print(f"\n{title:24}" + "".join(f"{column:>9}" for column in COLUMNS))
    for report in reports:
        numbers = [
            len(report.outcomes),
            sum(outcome.made > 0 for outcome in report.outcomes.values()),
        ]
        numbers += [report.count("ok", "noisy")]
        numbers += [report.count(verdict) for verdict in ("fail", "unfair", "skip")]
        columns = "".join(f"{number:9}" for number in numbers)
        print(
            f"{report.suite.package + ' ' + report.version:24}{columns}  {report.reason}".rstrip()
        )
    passed = sum(report.count("ok", "noisy") for report in reports)
    failed = sum(report.count("fail") for report in reports)
    skipped = sum(report.count("skip") + bool(report.reason) for report in reports)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description="packages' own tests on casync's loop")
    names = [suite.package for suite in SUITES]
    parser.add_argument("--package", action="append", choices=names, help="default: all")
    parser.add_argument("-k", dest="filter", default="", metavar="TEXT", help="only tests so named")
    parser.add_argument(
        "--loop", default="casync", help="the module whose new_event_loop() is tested"
    )
    arguments = parser.parse_args()
    suites = [suite for suite in SUITES if suite.package in (arguments.package or names)]
    reports = [run_suite(suite, arguments.loop, arguments.filter) for suite in suites]
    return show(reports, arguments.loop) != 0


if __name__ == "__main__":
    sys.exit(main())
