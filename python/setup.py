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
    MODULE,
    OPTIONS,
    REQUIRES,
    WHAT_TO_INSTALL,
    generate,
    missing_tools,
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
        self.write_source()
        try:
            super().run()
        except Exception:
            print(f"casync could not be compiled. It needs:\n{WHAT_TO_INSTALL}", file=sys.stderr)
            raise

    def write_source(self) -> None:
        """Makes the C file of the one extension."""
        path = Path(self.build_temp, "casync", "_casync.c")
        path.parent.mkdir(parents=True, exist_ok=True)
        generate(path)
        self.extensions[0].sources = [str(path)]


setup(
    setup_requires=REQUIRES,
    install_requires=REQUIRES,
    ext_modules=[Extension(MODULE, [], **OPTIONS)],
    cmdclass={"build_py": BuildPython, "build_ext": BuildExtension},
)
