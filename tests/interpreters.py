#!/usr/bin/env python3
"""Finds the interpreters that the tests run on, and brings those that are not installed.

tests/interpreters.py 3.14      print its path; fetch or build it first if it is not here
tests/interpreters.py           print what is here, and what can be had

3.14, 3.15, and 3.14d and 3.15d (built with Py_DEBUG) come as packages of the Debian release named
by SUITE. They are not installed, but unpacked under tests/.cache/forky with all they depend on, the
C library too, and changed to run from there. So they leave the system as it is, and need no root.

3.13t (without a GIL) is compiled from the sources of an older release, into
tests/.cache/python-3.13t, which takes five minutes. So is 3.13t-tsan, with ThreadSanitizer in it,
which takes nine.

Each is made aside under a lock and then renamed: a directory that is there is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import glob
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CACHE = (Path(__file__).resolve().parent / ".cache").resolve()
SUITE = "forky"
FETCHED = {
    "3.15": "python3.15",
    "3.14": "python3.14",
    "3.15d": "python3.15d",
    "3.14d": "python3.14d",
}
PACKAGES = [
    package.format(version)
    for version in ("3.14", "3.15")
    for package in (
        "python{0}",
        "python{0}-dbg",
        "python{0}-dev",
        "python{0}-venv",
        "libpython{0}-testsuite",
    )
]
ROOT = CACHE / "forky"
# What is left out of the packages: symbols for debuggers are half of it all.
LEFT_OUT = ("./usr/lib/debug", "./usr/share/doc", "./usr/share/man", "./usr/share/fonts", "./etc")

SOURCE_SUITE = "trixie"
SOURCE = "python3.13"
BUILT: dict[str, list[str]] = {  # what configure is told, beside --disable-gil
    "3.13t": [],
    "3.13t-tsan": ["--with-thread-sanitizer", "CC=clang"],
}
# The races that are CPython's own, as its sources list them. 3.13t-tsan keeps the file.
SUPPRESSIONS = Path("Tools/tsan/suppressions_free_threading.txt")
BUILD_NEEDS = [
    *("gcc", "make", "libc6-dev", "libssl-dev", "libffi-dev", "zlib1g-dev", "libbz2-dev"),
    *("liblzma-dev", "libsqlite3-dev", "libreadline-dev", "uuid-dev"),
]

# Two rows may install at the same time.
APT_INSTALL = (
    *("apt-get", "install", "-y", "-qq", "--no-install-recommends"),
    *("-o", "DPkg::Lock::Timeout=300"),
)
WANTED = (*FETCHED, *BUILT)
ADDR_NO_RANDOMIZE = 0x0040000  # personality(2); setarch -R sets it
DEFAULT_MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Prints the version as it is written here: 3.13, 3.13t, 3.14d.
WHO = "import sys; print('%d.%d' % sys.version_info[:2] + sys.abiflags)"


class Missing(Exception):
    """The interpreter cannot be had here; the message says why."""


failures: dict[Path, Missing] = {}  # what was tried once need not be tried for every row


# --- what is here --------------------------------------------------------------------------------


def find(version: str) -> str | None:
    """The path of this version's interpreter, if it is here: installed, or brought before."""
    path = installed(version) if version else None
    return path or (str(cached_path(version)) if is_complete(version) else None)


@functools.cache
def installed(version: str) -> str | None:
    """The path of this version's interpreter, if the system or pyenv has it."""
    name = f"python{version}"
    paths = [
        *glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version.rstrip('td')}.*/bin/{name}")),
        f"/usr/bin/{name}",
        shutil.which(name),
    ]
    # A pyenv shim is there for versions that are not: it has to run.
    return next((path for path in paths if path and says(path) == version), None)


def says(path: str) -> str:
    """The version that the interpreter says it is; nothing if it does not run."""
    if not os.access(path, os.X_OK):
        return ""
    done = subprocess.run([path, "-c", WHO], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def cached_path(version: str) -> Path | None:
    """Where this version's interpreter is once it has been brought; None if it never is."""
    if version in FETCHED:
        return ROOT / "usr" / "bin" / FETCHED[version]
    return root_of(version) / "bin" / "python3.13" if version in BUILT else None


def root_of(version: str) -> Path:
    """The directory that an interpreter is brought to."""
    return CACHE / f"python-{version}" if version in BUILT else ROOT


def suppressions(version: str) -> Path:
    """The file that tells ThreadSanitizer what to overlook."""
    return root_of(version) / SUPPRESSIONS.name


def is_complete(version: str) -> bool:
    """Has this version been brought, and to where it is now? Paths are compiled in."""
    if version not in WANTED:
        return False
    return is_place(root_of(version))


def is_place(root: Path) -> bool:
    place = root / "place"
    return place.exists() and place.read_text() == str(root.resolve())


def provide(version: str) -> str:
    """The path of this version's interpreter, which is fetched or built unless it is here."""
    if version in BUILT and "--with-thread-sanitizer" in BUILT[version]:
        check_addresses()
    found = find(version)
    if found:
        return found
    path = cached_path(version)
    if path is None:
        raise Missing(f"no python{version} here")
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Missing(f"python{version} comes from Debian's packages, and this is not Debian")
    root = root_of(version)
    if root in failures:
        raise failures[root]
    try:
        with made_aside(root) as aside:
            if aside:
                print(f"python{version}: {'building' if version in BUILT else 'fetching'}")
                sys.stdout.flush()
                if version in BUILT:
                    build(version, aside)
                else:
                    fetch(aside)
    except Missing as missing:
        failures[root] = missing
        raise
    return str(path)


def check_addresses() -> None:
    """Where the kernel randomises more bits of addresses, what it maps lies where ThreadSanitizer
    has its own, which then ends the program (clang before 18).
    """
    if int(Path("/proc/self/personality").read_text(), 16) & ADDR_NO_RANDOMIZE:
        return
    try:
        bits = int(Path("/proc/sys/vm/mmap_rnd_bits").read_text())
    except OSError:  # root alone may read it
        bits = 32
    if bits > 28:
        raise Missing("ThreadSanitizer needs vm.mmap_rnd_bits=28, or this run by setarch -R")


@contextlib.contextmanager
def made_aside(root: Path) -> Iterator[Path | None]:
    """Gives a new directory that becomes `root` at the end; nothing if another process made it."""
    CACHE.mkdir(exist_ok=True)
    with open(CACHE / f"{root.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_place(root):
            yield None
            return
        aside = CACHE / f"{root.name}.new"
        shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
        aside.mkdir()
        try:
            yield aside
            (aside / "place").write_text(str(root))
            shutil.rmtree(root, ignore_errors=True)
            aside.rename(root)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def run(words: list[str | Path], directory: Path, seconds: float = 300) -> str:
    """Runs a command that must succeed, with its output in a message of one line if not."""
    plain = [Path(word).name for word in words if "=" not in str(word) and word != "-o"]
    name = " ".join(plain)[:60]
    try:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Missing(f"{name}: no end after {seconds:.0f} seconds") from error
    if done.returncode:
        lines = done.stdout.strip().splitlines() or [f"status {done.returncode}"]
        errors = [line for line in lines if line.startswith(("E:", "Err:"))]
        raise Missing(f"{name}: {(errors or lines[-1:])[0]}")
    return done.stdout


# --- Debian's packages ---------------------------------------------------------------------------


class Apt:
    """apt for another release, with lists and settings of its own in a directory. It is for this
    machine's packages unless architectures are named, of which the first is the default.
    """

    def __init__(self, directory: Path, kind: str, suite: str, *architectures: str) -> None:
        self.directory = directory
        for name in ("state/lists/partial", "cache/archives/partial"):
            (directory / name).mkdir(parents=True)
        (directory / "status").touch()  # so that nothing is installed, and all is needed
        (directory / "apt.sources").write_text(
            f"Types: {kind}\nURIs: {mirror()}\nSuites: {suite}\nComponents: main\n"
            + (f"Signed-By: {KEYRING}\n" if KEYRING.exists() else "")
        )
        settings = {
            "Dir::State": directory / "state",
            "Dir::State::status": directory / "status",
            "Dir::Cache": directory / "cache",
            "Dir::Etc::sourcelist": directory / "apt.sources",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferences": "-",
            "Dir::Etc::preferencesparts": "-",
            "Dir::Log": directory,
            "Acquire::Check-Valid-Until": "false",  # a mirror that is not kept up to date will do
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "20",
            "APT::Sandbox::User": "root",  # who owns the directory, and not _apt
            "APT::Update::Error-Mode": "any",
            "Debug::NoLocking": "true",
        }
        if architectures:
            settings["APT::Architecture"] = architectures[0]
            settings["APT::Architectures"] = ",".join(architectures)
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        self.words: list[str | Path] = ["apt-get", *options, "-qq"]
        run([*self.words, "update"], directory)

    def fetch(self, packages: list[str]) -> list[Path]:
        """Downloads packages, and all that they depend on."""
        words = [*self.words, "-y", "--download-only", "--no-install-recommends", "install"]
        run([*words, *packages], self.directory)
        return sorted((self.directory / "cache" / "archives").glob("*.deb"))

    def fetch_alone(self, packages: list[str]) -> list[Path]:
        """Downloads packages without what they depend on."""
        run([*self.words, "download", *packages], self.directory)
        return sorted(self.directory.glob("*.deb"))

    def source(self, package: str) -> Path:
        """Downloads a package's sources as their authors published them."""
        run([*self.words, "--download-only", "source", package], self.directory)
        return next(self.directory.glob("*.orig.tar.*z"))


def mirror() -> str:
    """The mirror that the system's apt has Debian's packages from."""
    form = "$(REPO_URI) $(RELEASE)"
    words = ["apt-get", "indextargets", "--format", form, "Created-By: Packages", "Component: main"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        address, _, release = line.partition(" ")
        if address.rstrip("/").endswith("/debian") and "-" not in release:
            return address
    return DEFAULT_MIRROR


def fetch(aside: Path) -> None:
    """Unpacks the interpreters into `aside`, as they must be to run at ROOT."""
    download = aside / "download"
    download.mkdir()
    archives = Apt(download, "deb", SUITE).fetch([*PACKAGES, "patchelf"])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda archive: unpack(archive, aside), archives))
    shutil.rmtree(download)
    relocate(aside)


def unpack(archive: Path, directory: Path) -> None:
    excluded = " ".join(f"--exclude={name}" for name in LEFT_OUT)
    pipe = 'set -o pipefail; dpkg-deb --fsys-tarfile "$0" | tar -x ' + excluded
    run(["bash", "-c", pipe, archive], directory)


def relocate(aside: Path) -> None:
    """Makes the interpreters find at ROOT what is Debian's at /."""
    libraries = one(aside.glob("usr/lib/*/libc.so.6")).parent
    triplet = libraries.name
    loader = one(libraries.glob("ld-linux*.so.*"))
    final = ROOT / libraries.relative_to(aside)
    # The binaries here do not run as they are: their C library is newer than the system's.
    here: list[str | Path] = [loader, "--library-path", libraries]
    for name in FETCHED.values():
        binary = (aside / "usr" / "bin" / name).resolve()
        patchelf = [*here, aside / "usr" / "bin" / "patchelf"]
        # One by one: 0.18 makes a program that crashes of both at once.
        run([*patchelf, "--force-rpath", "--set-rpath", final, binary], aside)
        run([*patchelf, "--set-interpreter", final / loader.name, binary], aside)
    for path in aside.glob("usr/lib/python3.*/_sysconfigdata_*.py"):
        if not path.is_symlink():
            text = path.read_text()
            path.write_text(re.sub(r"(?<=')(?=/usr/(include|lib|share/python))", f"{ROOT}", text))
    for directory in aside.glob("usr/include/python3.*"):
        if not directory.is_symlink():  # where pyconfig.h is looked for by its directory's name
            (directory / triplet).symlink_to(f"../{triplet}")
    for version, name in FETCHED.items():
        said = run([*here, aside / "usr" / "bin" / name, "-c", WHO], aside).strip()
        if said != version:
            raise Missing(f"the {name} of {SUITE} says that it is {said!r}")


def one(paths: Iterator[Path]) -> Path:
    found = next(paths, None)
    if found is None:
        raise Missing(f"{SUITE}'s packages are not laid out as they were in 2026")
    return found


# --- built from source ---------------------------------------------------------------------------


def build(version: str, aside: Path) -> None:
    """Compiles an interpreter of BUILT for its root, into `aside`."""
    root, options = root_of(version), BUILT[version]
    install([*BUILD_NEEDS, *(["clang"] if "CC=clang" in options else [])])
    source = aside / "source"
    (source / "apt").mkdir(parents=True)
    archive = Apt(source / "apt", "deb-src", SOURCE_SUITE).source(SOURCE)
    run(["tar", "-x", "-f", archive, "--strip-components=1"], source)
    words = ["--disable-gil", "--with-ensurepip=install", f"--prefix={root}", *options]
    run(["./configure", "-q", *words], source, 1500)
    run(["make", "-s", f"-j{os.cpu_count() or 2}"], source, 1500)
    run(["make", "-s", "install", f"DESTDIR={aside / 'installed'}"], source, 1500)
    installed = aside / "installed" / root.relative_to("/")
    for path in installed.iterdir():
        path.rename(aside / path.name)
    (source / SUPPRESSIONS).rename(aside / SUPPRESSIONS.name)
    shutil.rmtree(aside / "installed")
    shutil.rmtree(source)
    said = says(str(aside / "bin" / "python3.13"))
    if said != "3.13t":
        raise Missing(f"what was built says that it is {said!r}")


def install(packages: list[str]) -> None:
    """Installs packages of the system; without root they must be there."""
    status = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages]
    done = subprocess.run(status, capture_output=True, text=True, check=False)
    there = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    missing = [name for name in packages if name not in there]
    if not missing:
        return
    if os.getuid() != 0:
        raise Missing(f"the packages {' '.join(missing)} are needed, and this is no root")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run(["apt-get", "update", "-qq"], CACHE)
    run([*APT_INSTALL, *missing], CACHE)


def main() -> int:
    if len(sys.argv) == 1:
        for version in WANTED:
            print(f"{version:10} {find(version) or 'not here; can be brought'}")
        return 0
    try:
        with contextlib.redirect_stdout(sys.stderr):
            paths = [provide(version) for version in sys.argv[1:]]
    except Missing as missing:
        sys.exit(f"{sys.argv[0]}: {missing}")
    print(*paths, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
