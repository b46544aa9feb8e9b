"""The study: every page prints what its last comment says, and so does every answer.

The text behind "Prints:" at the end of a page, and the `text` block behind a program in
questions.md, are the expected output. Times and ratios (a number and its unit: "12.5 ms", "3
times") are not compared.
"""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path

import pytest
from support import REPOSITORY, c_command, ended, python

STUDY = REPOSITORY / "examples" / "study"
PYTHON_PAGES = sorted(STUDY.glob("*.py"))
C_PAGES = sorted(STUDY.glob("*.c"))

TIME = re.compile(r"\d+(\.\d+)? (ns|us|ms|s|times)\b")


def without_times(text: str) -> list[str]:
    return [TIME.sub(r"# \2", line).rstrip() for line in text.strip().splitlines()]


def promised(page: Path) -> str:
    """What the page says that it prints."""
    _, found, text = page.read_text().partition("Prints:\n")
    assert found, f"{page.name} does not end in a comment that begins with 'Prints:'"
    text = text.removesuffix("*/\n")
    return textwrap.dedent(re.sub("^#", "", text, flags=re.MULTILINE))


def run_c(source: Path, directory: Path) -> str:
    command = c_command(source, directory)
    return ended(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    )


def name(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=name)
def test_python_page_prints_what_it_promises(page: Path) -> None:
    assert without_times(ended(python(str(page)))) == without_times(promised(page))


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=name)
def test_python_page_prints_the_same_on_casync(page: Path) -> None:
    assert without_times(ended(python("-m", "casync", str(page)))) == without_times(promised(page))


@pytest.mark.parametrize("page", C_PAGES, ids=name)
def test_c_page_prints_what_it_promises(page: Path, tmp_path: Path) -> None:
    assert without_times(run_c(page, tmp_path)) == without_times(promised(page))


@pytest.mark.parametrize("program", ["tiny.py", "tiny.c"])
def test_tiny_is_less_than_420_lines(program: str) -> None:
    assert len((STUDY / program).read_text().splitlines()) < 420


def test_each_page_has_its_counterpart_and_its_place_in_the_table_of_contents() -> None:
    assert len(C_PAGES) == len(PYTHON_PAGES) >= 17
    assert [page.stem for page in C_PAGES] == [page.stem for page in PYTHON_PAGES]
    linked = re.findall(r"\]\(([\w.]+)\)", (STUDY / "README.md").read_text())
    files = {page.name for page in [*C_PAGES, *PYTHON_PAGES]} | {"questions.md"}
    assert sorted(linked) == sorted(files)


def test_the_last_page_goes_through_the_sections_of_casync_h() -> None:
    sections = re.findall(
        r"^/\* >> (.+) \(API\) -", (REPOSITORY / "casync.h").read_text(), re.MULTILINE
    )
    shown = ", ".join(promised(STUDY / "16_casync.c").splitlines()).split(", ")
    assert sections[:2] == [
        "config & compiler",
        "system calls",
    ]  # how it is built, and how the page counts
    missing = [section for section in sections[2:] if section not in shown]
    assert missing == ["TLS"]  # which is there with CASYNC_OPENSSL alone


def questions() -> list[tuple[str, str, str, str]]:
    """Of questions.md: each question, and its programs: language, text, and what it prints."""
    found = []
    _, *sections = re.split(r"^## ", (STUDY / "questions.md").read_text(), flags=re.MULTILINE)
    for section in sections:
        question = section.partition("\n")[0]
        programs = re.findall(r"^```(python|c)\n(.*?)^```\n", section, re.DOTALL | re.MULTILINE)
        outputs = re.findall(r"^```text\n(.*?)^```\n", section, re.DOTALL | re.MULTILINE)
        assert programs, f"no program answers: {question}"
        assert len(programs) == len(outputs), (
            f"a program and what it prints must alternate: {question}"
        )
        found += [
            (question, *program, output) for program, output in zip(programs, outputs, strict=True)
        ]
    return found


@pytest.mark.parametrize(("question", "language", "program", "output"), questions())
def test_answer(question: str, language: str, program: str, output: str, tmp_path: Path) -> None:
    source = tmp_path / f"answer.{'py' if language == 'python' else 'c'}"
    source.write_text(program)
    printed = ended(python(str(source))) if language == "python" else run_c(source, tmp_path)
    assert without_times(printed) == without_times(output), question
