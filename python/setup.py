"""Builds the extension, and casync/include; everything else is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent))

from build_native import (
    DECLARES_NO_GIL,
    FREE_THREADED,
    GIL_COMES_BACK,
    HAS_CFFI,
    MODULE,
    OPTIONS,
    WHAT_TO_INSTALL,
    missing_tools,
    source,
    write_include,
)


class BuildPython(build_py):
    def run(self) -> None:
        super().run()
        packages = Path(__file__).resolve().parent if self.editable_mode else Path(self.build_lib)
        write_include(packages / "casync" / "include")


class BuildExtension(build_ext):
    def run(self) -> None:
        missing = missing_tools()
        if missing:
            sys.exit(f"casync is compiled when it is installed, and {missing}.\n{WHAT_TO_INSTALL}")
        if FREE_THREADED and not DECLARES_NO_GIL:
            print(GIL_COMES_BACK, file=sys.stderr)
        if not HAS_CFFI:
            self.write_source()
        try:
            super().run()
        except Exception:
            print(f"casync could not be compiled. It needs:\n{WHAT_TO_INSTALL}", file=sys.stderr)
            raise

    def write_source(self) -> None:
        """Does what cffi's own build_ext does: makes the C file of the one extension."""
        path = Path(self.build_temp, "casync", "_casync.c")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source())
        self.extensions[0].sources = [str(path)]


# pip asks setup.py for what it needs, as no marker of pyproject.toml tells that there is no GIL.
CFFI = ["cffi>=1.17"] if HAS_CFFI else []

setup(
    setup_requires=CFFI,
    install_requires=CFFI,
    cffi_modules=["build_native.py:builder"] if HAS_CFFI else [],
    ext_modules=[] if HAS_CFFI else [Extension(MODULE, [], **OPTIONS)],
    cmdclass={"build_py": BuildPython, "build_ext": BuildExtension},
)
