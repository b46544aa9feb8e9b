"""Builds the extension, and casync/include; everything else is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent))

from build_native import WHAT_TO_INSTALL, missing_tools, write_include


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
        try:
            super().run()
        except Exception:
            print(f"casync could not be compiled. It needs:\n{WHAT_TO_INSTALL}", file=sys.stderr)
            raise


setup(
    cffi_modules=["build_native.py:builder"],
    cmdclass={"build_py": BuildPython, "build_ext": BuildExtension},
)
