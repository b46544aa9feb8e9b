"""What the benchmarks need, installed or built under bench/.cache. What cannot be had is skipped by
name.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
CACHE = BENCH / ".cache"

CFLAGS = ["-O2", "-g", "-DNDEBUG", "-Wall", "-Wextra"]


class Skipped(Exception):
    """Something is not to be had here; the message says what and why."""


def say(what: str) -> None:
    print(f"-- {what}", flush=True)


def run_quietly(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        why = done.stdout.strip()[-2000:]
        raise Skipped(f"`{' '.join(command)}` failed:\n{why}")


def has_package(name: str) -> bool:
    return subprocess.run(["dpkg", "-s", name], capture_output=True).returncode == 0


def debian_package(name: str) -> None:
    if shutil.which("dpkg") and has_package(name):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise Skipped(f"{name} is not installed, and only root on Debian can have it installed")
    say(f"apt-get install {name}")
    run_quietly(["apt-get", "update", "-q"])
    run_quietly(["apt-get", "install", "-y", "-q", "--no-install-recommends", name])


def git_project(url: str) -> Path:
    """A clone under bench/.cache, in which sources may also be put by hand."""
    home = CACHE / url.rsplit("/", 1)[1]
    if not home.exists():
        if not shutil.which("git"):
            raise Skipped(f"git is not installed, and {home} is not there")
        say(f"git clone {url}")
        run_quietly(["timeout", "60", "git", "clone", "-q", "--depth", "1", url, str(home)])
    return home


def compiler() -> str:
    for name in (os.environ.get("CC", "cc"), "gcc", "clang"):
        if shutil.which(name):
            return name
    debian_package("gcc")
    debian_package("libc6-dev")
    return "gcc"


def c_program(name: str, arguments: list[str], program_name: str = "") -> list[str]:
    """Builds bench/c/<name>.c, with libraries or other sources; returns the command that runs
    it.
    """
    program = CACHE / (program_name or name)
    program.parent.mkdir(parents=True, exist_ok=True)
    source = BENCH / "c" / f"{name}.c"
    run_quietly([compiler(), *CFLAGS, str(source), "-o", str(program), *arguments, "-lpthread"])
    return [str(program)]


def find_python() -> str:
    """The interpreter that the targets name, or else the one that runs this."""
    installed = Path.home().glob(".pyenv/versions/3.13*/bin/python")
    for candidate in ("python3.13", *map(str, installed), "python3"):
        if (
            shutil.which(candidate)
            and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0
        ):
            return candidate
    raise Skipped("no Python interpreter works")


def ask_python(python: str, code: str) -> str:
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()


def python_version(python: str) -> str:
    version = ask_python(python, "import sys; print('%d.%d' % sys.version_info[:2] + sys.abiflags)")
    if not version:
        raise Skipped(f"{python} is no Python interpreter that works")
    return version


def complete_python(python: str) -> None:
    """Debian ships Python without what virtual environments and extensions need."""
    version = python_version(python)
    if not ask_python(python, "import ensurepip; print(1)"):
        debian_package(f"python{version}-venv")
    if not ask_python(
        python, "import sysconfig; print(*open(sysconfig.get_path('include') + '/Python.h'))"
    ):
        debian_package(f"python{version}-dev")


def virtual_environment(python: str) -> str:
    """The interpreter of a virtual environment of our own."""
    home = CACHE / f"venv-{python_version(python)}"
    if not (home / "bin" / "pip").exists():
        complete_python(python)
        say(f"making {home.relative_to(ROOT)}")
        run_quietly([python, "-m", "venv", "--clear", str(home)])
    return str(home / "bin" / "python")


def python_package(python: str, name: str) -> None:
    if subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode:
        say(f"pip install {name}")
        run_quietly([python, "-m", "pip", "install", "-q", name])


def certificate(python: str) -> Path:
    """The certificate of an authority; beside it the server's own, server.pem with server.key."""
    authority = CACHE / "certificate" / "client.pem"
    if not authority.exists():
        python_package(python, "trustme")
        authority.parent.mkdir(parents=True, exist_ok=True)
        run_quietly([python, "-m", "trustme", "-q", "-d", str(authority.parent)])
    return authority


def own_package(python: str) -> None:
    """Installs ./python, again whenever its sources changed; built from a copy, not in the
    checkout.
    """
    source = CACHE / "python"
    shutil.rmtree(source, ignore_errors=True)
    built = shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "python", source, ignore=built)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    stamp = Path(python).parents[1] / "casync-installed"
    if stamp.exists() and stamp.read_text() == digest:
        return
    say("pip install ./python")
    run_quietly([python, "-m", "pip", "install", "-q", "--force-reinstall", str(source)])
    stamp.write_text(digest)
