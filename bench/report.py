"""Results: ratios, the Markdown table, JSON."""

import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from measure import Values

OURS = "casync"
NOBODY = ""
FLOOR = "epoll"  # a loop by hand, no peer: nothing could be faster, unless it does less


# What is measured of an operation, in the order of the table.
UNITS = {
    "time": "ns",
    "instructions": "instructions",
    "cpu": "CPU ns",
    "user": "user ns",
    "system": "system ns",
    "calls": "system calls",
    "memory": "bytes",
}
TICKS = (
    "user",
    "system",
)  # estimated by the ticks of the kernel's clock, so that only their mean says anything


@dataclass(frozen=True)
class Goal:
    """casync's value of a metric / that of a peer must be at most `limit`; or the value itself."""

    metric: str
    limit: float
    against: str = "best"  # of all peers, or a peer's name; NOBODY: the value itself
    above_floor: bool = False  # compares what both take above the bare loop


@dataclass
class Line:
    row: str
    metric: str
    values: dict[str, float]
    ratio: float | None = None
    spread: tuple[float, float] | None = None  # the middle half of the rounds' ratios
    against: str | None = None
    goal: float | None = None
    absolute: bool = False  # the goal is one for the value, not for the ratio
    met: bool | None = None
    rounds: dict[str, list[float]] = field(default_factory=dict)


def typical(values: list[float], metric: str) -> float:
    return statistics.fmean(values) if metric in TICKS else statistics.median(values)


def ratio(ours: list[float], peer: list[float], metric: str) -> float | None:
    if metric in TICKS:
        return sum(ours) / sum(peer) if sum(peer) else None
    return statistics.median(a / b for a, b in zip(ours, peer, strict=True)) if all(peer) else None


def middle_half(ours: list[float], peer: list[float]) -> tuple[float, float] | None:
    """The first and the third quartile of the rounds' ratios."""
    if len(ours) < 2 or not all(peer):
        return None
    quartiles = statistics.quantiles(
        (a / b for a, b in zip(ours, peer, strict=True)), n=4, method="inclusive"
    )
    return quartiles[0], quartiles[2]


def above(values: list[float], floor: list[float]) -> list[float]:
    return [value - least for value, least in zip(values, floor, strict=True)]


def make_line(row: str, metric: str, results: dict[str, Values], goal: Goal | None) -> Line:
    rounds = {name: values[metric] for name, values in results.items() if metric in values}
    line = Line(
        row, metric, {name: typical(v, metric) for name, v in rounds.items()}, rounds=rounds
    )
    peers = [name for name in rounds if name not in (OURS, FLOOR)]
    line.goal = goal.limit if goal else None
    line.absolute = goal is not None and goal.against == NOBODY
    line.against = goal.against if goal and not line.absolute else "best"
    if line.against == "best":
        line.against = min(peers, key=line.values.__getitem__, default=None)
    if OURS in rounds and line.against in rounds:
        ours, peer = rounds[OURS], rounds[line.against]
        if goal and goal.above_floor:
            line.against += f", above {FLOOR}"
            ours, peer = above(ours, rounds[FLOOR]), above(peer, rounds[FLOOR])
        line.ratio = ratio(ours, peer, metric)
        line.spread = middle_half(ours, peer)
    judged = line.values.get(OURS) if line.absolute else line.ratio
    if judged is not None and line.goal is not None:
        line.met = judged <= line.goal
    return line


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(lines: list[Line], implementations: list[str]) -> str:
    names = [name for name in implementations if any(name in line.values for line in lines)]
    header = ["row, an operation", "in", *names, "ratio", "middle half", "to", "goal", "met"]
    text = [header, ["---"] * 2 + ["---:"] * (len(names) + 2) + ["---", "---:", "---"]]
    for line in lines:
        values = [number(line.values.get(name)) for name in names]
        met = "" if line.met is None else "yes" if line.met else "NO"
        ratio_text = "-" if line.ratio is None else f"{line.ratio:.2f}"
        spread = "" if line.spread is None else "{:.2f}-{:.2f}".format(*line.spread)
        goal = "" if line.goal is None else f"{line.goal:.2f}"
        if line.absolute:
            goal = f"{number(line.goal)} {UNITS[line.metric]}"
        judged = [ratio_text, spread, line.against or "-", goal, met]
        text.append([line.row, UNITS[line.metric], *values, *judged])
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"
        for cells in text
    )


def write(
    directory: Path, name: str, title: str, lines: list[Line], implementations: list[str]
) -> str:
    """Writes <name>.md and <name>.json; returns the table."""
    directory.mkdir(exist_ok=True)
    when = time.strftime("%Y-%m-%d %H:%M")
    where = f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}"
    where += f", load average {os.getloadavg()[1]:.1f}"
    markdown = table(lines, implementations)
    (directory / f"{name}.md").write_text(f"# {title}\n\n{when}, {where}\n\n{markdown}\n")
    data = {"title": title, "when": when, "where": where, "lines": [asdict(line) for line in lines]}
    (directory / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    return markdown
