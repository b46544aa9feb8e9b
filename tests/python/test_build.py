"""The package can be built, and what was built works far from the repository.

The wheel is one built here, or that which the environment's CASYNC_WHEEL names: tests/run has those
of python/wheels tested so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from support import REPOSITORY, build_extension

PROGRAM = """
import asyncio, casync, pathlib

async def main():
    async def serve(reader, writer):
        writer.write((await reader.readline()).upper())
        writer.close()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\\n")
        answer = await reader.read()
        writer.close()
        return answer

assert casync.run(main()) == b"HELLO\\n"
headers = {path.name for path in pathlib.Path(casync.get_include()).iterdir()}
assert headers == {"casync.h", "casync_import.h"}, headers
print(pathlib.Path(casync.__file__).resolve())
"""


# An extension module that can be imported with the package that its headers are of.
EXTENSION = """
#define CASYNC_IMPORT
#include <Python.h>
#include "casync.h"

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "extension", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_extension(void) {
    return casync_import() < 0 ? NULL : PyModule_Create(&module);
}
"""


def run(*command: object, cwd: Path, env: dict[str, str] | None = None, status: int = 0) -> str:
    process = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == status, process.stdout
    return process.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package's source, so that builds leave no trace in the repository. It is not
    optimised, which takes most of a build's time: four are made here, and tests/run installs what
    all other tests are of with the package's own options.
    """
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "*.so", "dist")
    shutil.copytree(REPOSITORY / "python", source / "python", symlinks=True, ignore=ignored)
    for name in "casync.h", "LICENSE":  # python/ has links to them
        if (REPOSITORY / name).exists():
            shutil.copy(REPOSITORY / name, source)
    options = source / "python" / "build_native.py"
    text, count = re.subn(r'"-O3"', '"-O0"', options.read_text())
    assert count == 1
    options.write_text(text)
    return source / "python"


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an sdist, and the wheel built from it."""
    output = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--outdir", output, source, cwd=output)
    return output


@pytest.fixture(scope="module")
def wheel(request: pytest.FixtureRequest) -> Path:
    made = os.environ.get("CASYNC_WHEEL")
    return Path(made) if made else next(request.getfixturevalue("built").glob("casync-*.whl"))


@pytest.fixture(scope="module")
def older_wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of another version, with a module that this one does not have."""
    directory = tmp_path_factory.mktemp("older")
    shutil.copytree(source, directory / "source")
    for name in "pyproject.toml", "casync.h", "casync/__init__.py":
        path = directory / "source" / name
        text, count = re.subn(
            r'(ersion__ = |ersion = |_VERSION )"[^"]*"', r'\1"0.0.1"', path.read_text()
        )
        assert count == 1, name
        path.write_text(text)
    (directory / "source" / "casync" / "retired.py").touch()
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "./source", cwd=directory)
    return next(directory.glob("casync-*.whl"))


def new_environment(directory: Path) -> Path:
    run(sys.executable, "-m", "venv", directory / "venv", cwd=directory)
    return directory / "venv" / "bin" / "python"


def install(python: Path, package: Path, *flags: str) -> None:
    run(python, "-m", "pip", "install", "--quiet", *flags, package, cwd=python.parent)


def check_install(package: Path, directory: Path, *flags: str) -> None:
    python = new_environment(directory)
    install(python, package, *flags)
    assert str(directory) in run(python, "-c", PROGRAM, cwd=directory)
    run(python, "-m", "pip", "check", cwd=directory)


@pytest.mark.slow
def test_without_a_compiler_the_build_says_what_to_install(
    casync: ModuleType, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(source),
    ]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.returncode != 0
    for words in "C compiler", "was not found", "apt install gcc", "dnf install gcc", "apk add gcc":
        assert words in process.stdout, process.stdout


def test_without_headers_too(casync: ModuleType, tmp_path: Path) -> None:
    code = "import sys, build_native; print(build_native.missing_tools(sys.argv[1]))"
    command = [sys.executable, "-c", code]
    output = run(*command, tmp_path, cwd=REPOSITORY / "python")
    assert output == f"the header Python.h was not found in {tmp_path}\n"
    (tmp_path / "Python.h").touch()
    assert run(*command, tmp_path, cwd=REPOSITORY / "python") == "\n"


@pytest.mark.slow
def test_the_sdist_holds_what_the_build_needs(casync: ModuleType, built: Path) -> None:
    [sdist] = built.glob("casync-*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = {member.name.split("/", 1)[-1]: member for member in archive.getmembers()}
    for name in "casync.h", "README.md", "LICENSE", "pyproject.toml":
        assert members[name].isfile(), name
        assert members[name].size > 0, name


@pytest.mark.slow
def test_the_wheel_holds_what_users_need_and_no_more(casync: ModuleType, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        license_lines = [
            line for line in archive.read(metadata).decode().splitlines() if "License" in line[:12]
        ]
    assert license_lines[:2] == ["License-Expression: MIT", "License-File: LICENSE"]
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert {"casync/__init__.py", "casync/py.typed"} <= set(names)
    assert any(name.endswith(".so") for name in names)
    assert {name.split("/")[0].split("-")[0].split(".")[0] for name in names} <= {
        "casync",
        "_casync",
    }
    assert not any(name.endswith((".c", ".o")) for name in names)


@pytest.mark.slow
def test_installing_the_sdist(casync: ModuleType, built: Path, tmp_path: Path) -> None:
    check_install(next(built.glob("casync-*.tar.gz")), tmp_path)


@pytest.mark.slow
def test_installing_the_wheel(
    casync: ModuleType, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no compiler
    check_install(wheel, tmp_path)


@pytest.mark.slow
def test_the_wheel_upgrades_an_older_one(
    casync: ModuleType, wheel: Path, older_wheel: Path, tmp_path: Path
) -> None:
    """What only the older had is gone. A module built for the older is refused, not crashed into;
    built again it works, and one built for this checkout's casync works too.
    """
    python = new_environment(tmp_path)
    show = "import casync, extension; print(casync.__version__)"
    include = "import casync; print(casync.get_include())"
    use = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def build_for(include: str) -> None:
        build_extension("extension", EXTENSION, tmp_path, Path(include.strip()))

    install(python, older_wheel)
    build_for(run(python, "-c", include, cwd=tmp_path))
    assert run(python, "-c", show, cwd=tmp_path, env=use) == "0.0.1\n"
    run(python, "-c", "import casync.retired", cwd=tmp_path)
    install(python, wheel)
    said = run(python, "-c", show, cwd=tmp_path, env=use, status=1)
    assert "ImportError: this module was built for casync 0.0.1" in said, said
    said = run(python, "-c", "import casync.retired", cwd=tmp_path, status=1)
    assert "ModuleNotFoundError: No module named 'casync.retired'" in said, said
    assert str(tmp_path) in run(python, "-c", PROGRAM, cwd=tmp_path)
    for headers in run(python, "-c", include, cwd=tmp_path), casync.get_include():
        build_for(headers)
        assert run(python, "-c", show, cwd=tmp_path, env=use) == f"{casync.__version__}\n"


@pytest.mark.slow
def test_installing_for_development(casync: ModuleType, source: Path, tmp_path: Path) -> None:
    shutil.copytree(source.parent, tmp_path / "source", symlinks=True)
    check_install(tmp_path / "source" / "python", tmp_path, "--editable")
