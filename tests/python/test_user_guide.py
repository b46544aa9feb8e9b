"""python/README.md, the page for users: its tests exist, its programs are Python."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from support import REPOSITORY

GUIDE = (REPOSITORY / "python" / "README.md").read_text()
HERE = Path(__file__).parent


def uvloop_rows() -> list[list[str]]:
    """The cells of the rows of the table that compares with uvloop."""
    section = GUIDE.partition("## What differs from uvloop")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line[:1] == "|"]
    return rows[2:]


def named_tests(cell: str) -> list[tuple[str, str]]:
    return re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", cell)


def test_each_answer_to_users_of_uvloop_is_a_test() -> None:
    rows = uvloop_rows()
    assert len(rows) > 20
    for asked, issues, _, tests in rows:
        assert re.fullmatch(r" \d+(, \d+)* ", issues), asked
        assert named_tests(tests), asked


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("file, name", sorted(set(named_tests(GUIDE))))
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    assert (HERE / file).exists()
    assert not name or name in functions_of(HERE / file)


@pytest.mark.parametrize("program", re.findall(r"^```python\n(.*?)^```$", GUIDE, re.M | re.S))
def test_programs_compile(program: str) -> None:
    compile(program, "python/README.md", "exec")


def test_links_within_the_page_and_to_files_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.*)$", GUIDE, re.M)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for link in re.findall(r"\]\(([^)]+)\)", GUIDE):
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif not link.startswith("https:"):
            assert (REPOSITORY / "python" / link.partition("#")[0]).exists(), link
