"""Tests that take `loop` or `loop_module` run on asyncio's own loop (3.13 and later) and on
casync's.

asyncio's run shows that the test asks for asyncio's semantics, casync's that casync has them. Tests
of what only casync promises take `casync` instead. `--loop asyncio` or `--loop casync` chooses one
of the two. An `async def` test runs on the loop of its `loop` fixture.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import ssl
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from support import Contexts, Loop, finish, within

# Before 3.13 asyncio's own loop fails some of these tests, by bugs that were mended since.
LOOP_MODULES = ["asyncio", "casync"] if sys.version_info >= (3, 13) else ["casync"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loop", action="append", default=[], help="a module whose new_event_loop() is tested"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    modules = metafunc.config.getoption("--loop") or LOOP_MODULES
    if "loop_module" in metafunc.fixturenames:
        metafunc.parametrize("loop_module", modules, indirect=True)


def pytest_collection_finish() -> None:
    """Many tests collect garbage: what all their imports made needs not be looked through each
    time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def loop_module(request: pytest.FixtureRequest) -> ModuleType:
    """The module asyncio or casync: whose new_event_loop() the test is to use."""
    return importlib.import_module(request.param)


@pytest.fixture
def casync(request: pytest.FixtureRequest) -> ModuleType:
    modules = request.config.getoption("--loop")
    if modules and "casync" not in modules:
        pytest.skip("casync is not among the loops tested")
    return importlib.import_module("casync")


@pytest.fixture
def loop(loop_module: ModuleType) -> Iterator[Loop]:
    """A new loop. What reaches its exception handler fails the test, unless the test sets its
    own.
    """
    loop = loop_module.new_event_loop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    yield loop
    finish(loop)
    assert not errors


@pytest.fixture(scope="session")
def contexts() -> Contexts:
    return Contexts()


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def tls_versions(request: pytest.FixtureRequest) -> Contexts:
    """The same of either version: they differ in what handshake records follow the handshake."""
    contexts = Contexts()
    contexts.server.maximum_version = ssl.TLSVersion[request.param]
    return contexts


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    loop: asyncio.AbstractEventLoop = pyfuncitem.funcargs["loop"]
    loop.run_until_complete(within(pyfuncitem.obj(**arguments)))
    return True
