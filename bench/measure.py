"""Workers and samples: processes that measure one implementation each, asked in turn."""

import json
import os
import re
import select
import signal
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from install import CACHE

Sample = dict[str, int]
Values = dict[str, list[float]]  # metric: its value an operation, one for each round

TIMEOUT = 120  # seconds for one sample
WARM_UP = 2


class Failed(Exception):
    """An implementation did not answer, or answered something that cannot be right."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name


class Worker:
    """A process that answers each line on its stdin with a line of JSON."""

    def __init__(self, name: str, command: list[str], cpu: int | None = None) -> None:
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        if cpu is not None:
            os.sched_setaffinity(self.process.pid, {cpu})

    def ask(self, line: str) -> Sample:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{line}\n".encode())
        ready, _, _ = select.select([self.process.stdout], [], [], TIMEOUT)
        answer = self.process.stdout.readline() if ready else b""
        if not answer:
            raise Failed(self.name, f"no answer to `{line}` (status {self.process.poll()})")
        sample: Sample = json.loads(answer)
        return sample

    def end(self) -> None:
        """Lets it end in order, as the kill at exit does not."""
        self.process.terminate()
        self.process.wait()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


def proportional_set_size(worker: Worker) -> int:
    """The memory of a process, in bytes; of pages that it shares, its share (proc(5),
    smaps_rollup).
    """
    text = Path(f"/proc/{worker.process.pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    if not found:
        raise Failed(worker.name, "the kernel does not tell its memory")
    return int(found[1]) * 1024


def verify(samples: dict[str, Sample], line: str) -> None:
    """All must have done the same work with the same outcome; a minority is wrong."""
    outcomes = {name: (sample["ops"], sample["check"]) for name, sample in samples.items()}
    usual = Counter(outcomes.values()).most_common(1)[0][0]
    for name, outcome in outcomes.items():
        if outcome != usual:
            raise Failed(name, f"`{line}` gave {outcome}, others {usual}")


def alternate(workers: dict[str, Worker], line: str, rounds: int) -> dict[str, Values]:
    """Asks all in turn, WARM_UP times and then `rounds` times that count, every second one in
    reverse.
    """
    values: dict[str, Values] = {name: {} for name in workers}
    names = list(workers)
    for turn in range(WARM_UP + rounds):
        samples = {name: workers[name].ask(line) for name in names}
        verify(samples, line)
        names.reverse()
        if turn < WARM_UP:
            continue
        for name, sample in samples.items():
            for metric in sample.keys() - {"ops", "check"}:
                values[name].setdefault(metric, []).append(sample[metric] / sample["ops"])
    return values


class Callgrind:
    """Counts the instructions of a C worker inside the functions that are measured."""

    def __init__(self) -> None:
        self.log = CACHE / "callgrind.log"
        counted = ["--toggle-collect=measured", "--toggle-collect=serving"]
        profile = CACHE / "callgrind.out"  # root would replace /dev/null by a file
        output = [f"--callgrind-out-file={profile}", f"--log-file={self.log}"]
        self.command = ["valgrind", "--tool=callgrind", *counted, *output]

    def collected(self) -> int:
        """After the worker's end."""
        found = re.search(r"Collected\s*:\s*(\d+)", self.log.read_text())
        return int(found[1]) if found else 0


def instructions(name: str, command: list[str], line: str) -> float:
    """Instructions an operation."""
    callgrind = Callgrind()
    with Worker(name, [*callgrind.command, *command]) as worker:
        ops = worker.ask(line)["ops"]
        worker.end()
    return callgrind.collected() / ops


def system_calls(server: Worker, load: Worker, count: int) -> float:
    """System calls that the server makes for a message, counted by strace. The connection is made
    before.
    """
    load.ask("1")
    with tempfile.NamedTemporaryFile("r") as summary:
        command = ["strace", "-c", "-f", "-o", summary.name, "-p", str(server.process.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert tracer.stderr
        if "attached" not in tracer.stderr.readline():
            raise Failed(server.name, "strace could not attach")
        load.ask(str(count))
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()
        total = re.search(r"^100\.00\s+\S+\s+\S+\s+(\d+).*total$", summary.read(), re.MULTILINE)
    if not total:
        raise Failed(server.name, "strace gave no total")
    return int(total[1]) / count
