"""Finds CPython's own asyncio tests for this interpreter.

Debian's libpython3.11-stdlib has of the package `test` only what supports tests. The tests are in
libpython3.11-testsuite, which need not be installed: it is downloaded and unpacked under
tests/.cache, next to a copy of the part that is here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache"
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
DEBIAN_PACKAGE = f"libpython{VERSION}-testsuite"
APT_OPTIONS = ["-qq", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20"]
TIMEOUT = 120  # seconds for a command of apt's


class Missing(Exception):
    """There are no such tests here; the message says why."""


def provide() -> None:
    """Makes test.test_asyncio importable, here and in the processes that are started from here."""
    if is_there():
        return
    directory = str(unpacked())
    sys.path.insert(0, directory)
    path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{directory}:{path}" if path else directory
    sys.modules.pop("test", None)
    importlib.invalidate_caches()
    if not is_there():
        raise Missing(f"{DEBIAN_PACKAGE} has no test.test_asyncio")


def is_there() -> bool:
    if importlib.util.find_spec("test") is None:
        return False
    return importlib.util.find_spec("test.test_asyncio") is not None


def unpacked() -> Path:
    """The directory with the whole package `test`, which is made unless it is there."""
    directory = CACHE / DEBIAN_PACKAGE
    if directory.exists():
        return directory
    stdlib = Path(sysconfig.get_path("stdlib"))
    if stdlib.parent != Path("/usr/lib") or not shutil.which("apt-get"):
        raise Missing(f"{sys.executable} comes without them, and is not Debian's")
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        package = download(Path(temporary))
        files = Path(temporary, "files")
        run(["dpkg", "-x", str(package), str(files)], package.parent)
        whole = Path(temporary, "whole")
        no_objects = shutil.ignore_patterns("__pycache__")
        shutil.copytree(stdlib / "test", whole / "test", ignore=no_objects)
        tests = files / str(stdlib).lstrip("/") / "test"
        shutil.copytree(tests, whole / "test", dirs_exist_ok=True)
        try:
            whole.rename(directory)
        except OSError:
            if not directory.exists():  # or another row was faster
                raise
    return directory


def download(directory: Path) -> Path:
    """The package's file, in the directory. If apt's lists are missing or old, only root can bring
    them up to date.
    """
    words = ["apt-get", "download", *APT_OPTIONS, DEBIAN_PACKAGE]
    try:
        run(words, directory)
    except Missing:
        if os.getuid() != 0:
            raise
        run(["apt-get", "update", *APT_OPTIONS], directory)
        run(words, directory)
    return next(directory.glob("*.deb"))


def run(words: list[str], directory: Path) -> None:
    try:
        done = subprocess.run(
            words,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Missing(f"{' '.join(words[:2])}: no end after {TIMEOUT} seconds") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["failed"])[-1]
        raise Missing(f"{' '.join(words[:2])} {DEBIAN_PACKAGE}: {last}")
