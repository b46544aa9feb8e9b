"""Loads `_native` out of the shared object that cffi built, which holds both modules."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING


def _load() -> ModuleType:
    shared = importlib.util.find_spec("casync._casync")
    if shared is None or shared.origin is None:
        raise ImportError("casync's extension module is not built; install the package with pip")
    name = "casync._native"
    spec = importlib.util.spec_from_file_location(name, shared.origin)
    if spec is None or spec.loader is None:
        raise ImportError(f"{shared.origin} cannot be loaded as {name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return module


if TYPE_CHECKING:
    from . import _native as native
else:
    native = _load()

__all__ = ["native"]
