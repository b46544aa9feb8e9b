"""The programs of casync.h's manual and of the README, and what they print.

Each must compile under gcc (C99 and C17), clang and tcc without a warning, and print exactly what
the manual says it does.

The implementation takes gcc and clang twenty times as long as a program does, and is the same in
nearly all. So they generate its code once for all programs that begin with it and nothing else, and
check each of these, as it stands, for errors and warnings alone. tcc is fast, and runs all of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# A program is indented by 7 columns or more and begins with a #define; behind it stands a line
# "Prints:" (or "Prints, on standard error:"), and the output, indented in the same way.
LINE = r" {7}.*\n"
PROGRAM = re.compile(
    rf"^(?P<source> {{7}}#define CASYNC_.*\n(?:{LINE}|\n)*)"
    rf" {{3}}Prints.*:\n(?P<output>(?:{LINE})+)",
    re.M,
)
IMPLEMENTATION = re.compile(r"^ *#define CASYNC_IMPLEMENTATION$", re.M)
BEGINNING = '#define CASYNC_IMPLEMENTATION\n#include "casync.h"\n'
CHAPTER = re.compile(r"^   >> \d+\. (.*)$", re.M)
CONTENTS = re.compile(r"^      ( ?\d+\. .*)$", re.M)
README_OUTPUT = "hello, you\nhello, world\n"

Run = Callable[[list[str]], tuple[int, str]]


@dataclass(frozen=True)
class Program:
    path: Path
    output: str


def unindent(text: str) -> str:
    return re.sub(r"^ {7}", "", text, flags=re.M).strip("\n") + "\n"


def write(path: Path, source: str, output: str) -> Program:
    path.write_text(source)
    return Program(path, output)


def manual_programs(header: Path, build: Path) -> list[Program]:
    """Those of the manual, named by their chapters and their numbers in these. None is missed."""
    manual = header.read_text().split("*/", 1)[0]
    programs = []
    for text in re.split(r"^(?=   >> )", manual, flags=re.M):
        title = CHAPTER.match(text)
        found = list(PROGRAM.finditer(text))
        if len(found) != len(IMPLEMENTATION.findall(text)):
            raise RuntimeError(f"a program that does not say what it prints:\n{text}")
        for number, program in enumerate(found):
            name = re.sub(r"\W+", "_", title[1] if title else "front")
            path = build / f"manual_{name}_{number}.c"
            programs.append(write(path, unindent(program["source"]), unindent(program["output"])))
    if not programs:
        raise RuntimeError(f"{header}: the manual has no program")
    return programs


def readme_programs(readme: Path, build: Path) -> list[Program]:
    """The README's complete programs in C, all of which say hello."""
    blocks = re.findall(r"^```c\n(.*?)^```$", readme.read_text(), re.DOTALL | re.M)
    complete = [block for block in blocks if IMPLEMENTATION.search(block)]
    if not complete:
        raise RuntimeError(f"{readme} has no program in C")
    return [
        write(build / f"readme_{number}.c", block, README_OUTPUT)
        for number, block in enumerate(complete)
    ]


def compile_library(compiler: str, build: Path, strict: str, run: Run) -> tuple[bool, str]:
    """The implementation, for the programs that are linked to it."""
    source, library = build / "library.c", build / f"library_{compiler}.o"
    source.write_text(BEGINNING)
    words = [compiler, "-std=c99", *strict.split(), "-I.", "-c", str(source), "-o", str(library)]
    status, output = run(words)
    return status == 0 and not output, f"{' '.join(words)}: status {status}\n{output}"


def linked(source: Path, compiler: str) -> list[str]:
    """What to compile and link instead of a program, where its implementation is the library's."""
    text = source.read_text()
    if not text.startswith(BEGINNING):
        return [str(source)]
    program = source.with_name(f"{source.stem}_linked.c")
    program.write_text(IMPLEMENTATION.sub("", text))
    return [str(program), str(source.with_name(f"library_{compiler}.o"))]


def commands(source: Path, strict: str) -> Iterator[tuple[list[str], bool]]:
    """What is done with a program, in order; True where it runs, and its output counts."""
    name, program = str(source), str(source.with_suffix(""))
    flags = [*strict.split(), "-I."]
    for compiler in ("gcc", "clang"):
        files = [*linked(source, compiler), "-o", program, "-lpthread"]
        yield [compiler, "-std=c99", *flags, *files], False
        yield [program], True
    yield ["gcc", "-std=c17", *flags, "-fsyntax-only", name], False
    yield ["clang", "-std=c99", *flags, "-fsyntax-only", name], False
    yield ["tcc", "-Wall", "-Werror", "-I.", "-run", name], True


def check_program(program: Program, strict: str, run: Run) -> list[tuple[bool, str]]:
    results = []
    for words, runs in commands(program.path, strict):
        status, output = run(words)
        ok = status == 0 and output == (program.output if runs else "")
        said = f"\nit should print:\n{program.output}" if runs else ""
        results.append((ok, f"{' '.join(words)}: status {status}\n{output}{said}"))
        if not ok and not runs:
            break
    return results


def check_contents(header: Path) -> tuple[bool, str]:
    """The list of chapters at the manual's top names them all, in their order."""
    manual = header.read_text().split("*/", 1)[0]
    listed = [line.strip() for line in CONTENTS.findall(manual)]
    titles = [f"{number}. {title}" for number, title in enumerate(CHAPTER.findall(manual), 1)]
    return bool(titles) and listed == titles, f"contents: {listed}\nchapters: {titles}"


def check(root: Path, build: Path, strict: str, run: Run) -> Iterator[tuple[bool, str]]:
    """Tests all of it: for each test whether it passed, and what to say if it did not."""
    header = root / "casync.h"
    yield check_contents(header)
    programs = [*manual_programs(header, build), *readme_programs(root / "README.md", build)]
    hello = programs[0].output
    yield hello == "hello, world\n", f"the manual's first program says {hello}"
    for compiler in ("gcc", "clang"):
        yield compile_library(compiler, build, strict, run)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for results in pool.map(lambda program: check_program(program, strict, run), programs):
            yield from results
