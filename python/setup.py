"""Builds the extension, and casync/include; everything else is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent))

from build_native import write_include


class BuildPython(build_py):
    def run(self) -> None:
        super().run()
        write_include(Path(self.build_lib) / "casync" / "include")


setup(cffi_modules=["build_native.py:builder"], cmdclass={"build_py": BuildPython})
