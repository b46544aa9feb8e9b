"""The module casync: new_event_loop, run, install, the policy, `python -m casync`, type hints."""

from __future__ import annotations

import ast
import asyncio
import importlib.resources
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest
from support import ended, finish, python, run_script

WHICH_LOOP = """
import asyncio, sys
async def main():
    return type(asyncio.get_running_loop()).__module__.split(".")[0]
print(__name__, asyncio.run(main()), sys.argv[1:])
"""


def test_new_event_loop_makes_an_event_loop(casync: ModuleType) -> None:
    loop = casync.new_event_loop()
    assert type(loop) is casync.EventLoop
    assert isinstance(loop, asyncio.SelectorEventLoop)
    assert not loop.is_running() and not loop.is_closed()
    loop.close()
    assert loop.is_closed()


def test_event_loop_is_a_class_to_call_or_derive_from(casync: ModuleType) -> None:
    class Mine(casync.EventLoop):
        extra = 1

    for cls in casync.EventLoop, Mine:
        loop = cls()
        assert type(loop) is cls
        loop.attribute = "value"
        assert loop.run_until_complete(asyncio.sleep(0, "slept")) == "slept"
        loop.close()


def test_repr_tells_the_state(casync: ModuleType) -> None:
    loop = casync.new_event_loop()
    assert "running=False" in repr(loop) and "closed=False" in repr(loop)
    loop.call_soon(lambda: seen.append(repr(loop)))
    seen: list[str] = []
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert "running=True" in seen[0]
    assert "closed=True" in repr(loop)


def test_run_returns_what_the_coroutine_returns(casync: ModuleType) -> None:
    async def main() -> tuple[str, bool, bool]:
        loop = asyncio.get_running_loop()
        return type(loop).__name__, isinstance(loop, casync.EventLoop), loop.get_debug()

    assert casync.run(main()) == ("EventLoop", True, False)
    assert casync.run(main(), debug=True) == ("EventLoop", True, True)


def test_run_raises_what_the_coroutine_raises(casync: ModuleType) -> None:
    async def main() -> None:
        raise LookupError("of main")

    with pytest.raises(LookupError, match="of main"):
        casync.run(main())


def test_run_takes_coroutines_only(casync: ModuleType) -> None:
    for bad in None, 1, lambda: None:
        with pytest.raises((TypeError, ValueError)):
            casync.run(bad)


def test_run_refuses_to_run_inside_a_running_loop(casync: ModuleType) -> None:
    async def main() -> None:
        inner = asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            casync.run(inner)
        inner.close()

    casync.run(main())


def test_run_cancels_leftovers_and_closes_generators_and_the_loop(casync: ModuleType) -> None:
    events: list[str] = []

    async def leftover() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    async def generator():  # noqa: ANN202
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            events.append("closed")

    async def main() -> asyncio.AbstractEventLoop:
        kept.append(asyncio.create_task(leftover()))
        kept.append(generator())
        await kept[1].__anext__()
        return asyncio.get_running_loop()

    kept: list = []
    assert casync.run(main()).is_closed()
    assert events == ["cancelled", "closed"]


def test_install_makes_it_asyncios_default(casync: ModuleType) -> None:
    run_script(
        casync,
        """
        import casync
        from casync.policy import set_event_loop_policy
        async def main(): return asyncio.get_running_loop()
        assert not casync.is_installed()
        assert not isinstance(asyncio.run(main()), casync.EventLoop)
        casync.install()
        assert casync.is_installed()
        assert isinstance(asyncio.run(main()), casync.EventLoop)
        loop = asyncio.new_event_loop()
        assert isinstance(loop, casync.EventLoop)
        loop.close()
        casync.install()
        assert casync.is_installed()
        set_event_loop_policy(None)
        assert not casync.is_installed()
        assert not isinstance(asyncio.run(main()), casync.EventLoop)
        """,
        "-W",
        "ignore:'asyncio.set_event_loop_policy':DeprecationWarning",
    )


def test_the_policy(casync: ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        policy = casync.EventLoopPolicy()
        assert isinstance(policy, asyncio.AbstractEventLoopPolicy)
        asyncio.set_event_loop_policy(policy)
    try:
        loop = asyncio.new_event_loop()
        assert isinstance(loop, casync.EventLoop)
        asyncio.set_event_loop(loop)
        assert policy.get_event_loop() is loop
        asyncio.set_event_loop(None)
        finish(loop)
        assert casync.is_installed()
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop_policy(None)


# As Python 3.14 has it, where asyncio's own code uses the names with an underscore: there as it is,
# before that imitated.
LIKE_314 = """
import asyncio, sys, warnings
from asyncio import events, unix_events
warnings.simplefilter("error")
default = None
"""
IMITATED_314 = """

def deprecate(module, name):
    setattr(module, "_" + name, getattr(module, name))
    delattr(module, name)
    if hasattr(asyncio, name):
        delattr(asyncio, name)
    def public(wanted):
        if wanted != name:
            raise AttributeError(wanted)
        warnings.warn(name, DeprecationWarning, stacklevel=2)
        return getattr(module, "_" + name)
    return public

def later(module, *names):
    publics = [deprecate(module, name) for name in names]
    def __getattr__(wanted):
        for public in publics:
            try:
                return public(wanted)
            except AttributeError:
                pass
        raise AttributeError(wanted)
    module.__getattr__ = __getattr__

default = events.get_event_loop_policy()
events.new_event_loop = lambda: events._get_event_loop_policy().new_event_loop()
events.set_event_loop = lambda loop: events._get_event_loop_policy().set_event_loop(loop)
asyncio.new_event_loop, asyncio.set_event_loop = events.new_event_loop, events.set_event_loop
later(events, "get_event_loop_policy", "set_event_loop_policy")
later(unix_events, "DefaultEventLoopPolicy")
"""
if sys.version_info < (3, 14):
    LIKE_314 += IMITATED_314

# As Python 3.16 is to have it: no policies. What it does in new_event_loop is a guess.
LIKE_316 = """
import asyncio, sys, warnings
from asyncio import events, unix_events
for module in asyncio, events, unix_events:
    for name in list(vars(module)):
        if "EventLoopPolicy" in name or "event_loop_policy" in name:
            delattr(module, name)
    vars(module).pop("__getattr__", None)
def new_event_loop():
    return unix_events.SelectorEventLoop()
events.set_event_loop = asyncio.set_event_loop = lambda loop: None
events.new_event_loop = asyncio.new_event_loop = new_event_loop
warnings.simplefilter("error")
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.run took its loop elsewhere")
def test_policies_where_they_are_deprecated(casync: ModuleType) -> None:
    """A warning is an error in this program; so is the use of a public name where 3.14 is
    imitated.
    """
    run_script(
        asyncio,
        LIKE_314
        + """
import casync
async def main(): return asyncio.get_running_loop()
assert not casync.is_installed()
casync.install()
assert casync.is_installed()
assert isinstance(asyncio.run(main()), casync.EventLoop)
loop = asyncio.new_event_loop()
assert isinstance(loop, casync.EventLoop)
loop.close()
assert issubclass(casync.EventLoopPolicy, unix_events._DefaultEventLoopPolicy)
events._set_event_loop_policy(default)
assert not casync.is_installed()
assert isinstance(casync.run(main()), casync.EventLoop)
""",
    )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.run took its loop elsewhere")
def test_python_m_casync_where_policies_are_deprecated(casync: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LIKE_314)
    script = tmp_path / "script.py"
    script.write_text(WHICH_LOOP)
    output = ended(python("-m", "casync", str(script), env={"PYTHONPATH": str(tmp_path)}))
    assert output == "__main__ casync []\n"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.run took its loop elsewhere")
def test_install_where_there_are_no_policies(casync: ModuleType, tmp_path: Path) -> None:
    run_script(
        asyncio,
        LIKE_316
        + """
import casync
async def main(): return asyncio.get_running_loop()
assert not casync.is_installed()
assert not isinstance(asyncio.run(main()), casync.EventLoop)
assert isinstance(casync.run(main()), casync.EventLoop)
casync.install()
assert casync.is_installed()
assert isinstance(asyncio.run(main()), casync.EventLoop)
loop = asyncio.new_event_loop()
assert isinstance(loop, casync.EventLoop)
loop.close()
assert not hasattr(casync, "EventLoopPolicy")
asyncio.new_event_loop = events.new_event_loop = new_event_loop
assert not casync.is_installed()
""",
    )
    (tmp_path / "sitecustomize.py").write_text(LIKE_316)
    script = tmp_path / "script.py"
    script.write_text(WHICH_LOOP)
    output = ended(python("-m", "casync", str(script), env={"PYTHONPATH": str(tmp_path)}))
    assert output == "__main__ casync []\n"


def test_nothing_warns(casync: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        WHICH_LOOP
        + "import casync\ncasync.run(main())\ncasync.install()\ncasync.EventLoopPolicy()\n"
    )
    flags = "-W", "error"
    assert ended(python(*flags, "-m", "casync", str(script))) == "__main__ casync []\n"
    assert ended(python(*flags, str(script))) == "__main__ asyncio []\n"


def test_python_m_casync_runs_a_script(casync: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(WHICH_LOOP + "import neighbour\nprint(__file__, sys.path[0])\n")
    (tmp_path / "neighbour.py").write_text("print('neighbour')\n")
    output = ended(python("-m", "casync", str(script), "one", "--two"))
    assert output.splitlines() == [
        "__main__ casync ['one', '--two']",
        "neighbour",
        f"{script} {tmp_path}",
    ]


def test_python_m_casync_runs_a_module(casync: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "some_module.py").write_text(WHICH_LOOP)
    output = ended(python("-m", "casync", "-m", "some_module", "-m", "two", cwd=str(tmp_path)))
    assert output == "__main__ casync ['-m', 'two']\n"


def test_python_m_casync_is_for_programs_that_name_asyncios_class_too(
    casync: ModuleType, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        """
import asyncio
for name in "SelectorEventLoop", "EventLoop":  # the latter since Python 3.13
    loop = getattr(asyncio, name, asyncio.SelectorEventLoop)()
    print(type(loop).__module__, isinstance(loop, asyncio.SelectorEventLoop))
    handle = loop.call_soon(callback=print)
    loop.close()
"""
    )
    assert ended(python("-m", "casync", str(script))) == "casync.loop True\n" * 2


def test_python_m_casync_leaves_the_path_alone_where_python_does(
    casync: ModuleType, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sys.path)\n")
    ours, theirs = (ended(python("-I", *words, str(script))) for words in (("-m", "casync"), ()))
    assert ours == theirs


def test_python_m_casync_passes_the_exit_status_on(casync: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nsys.exit(7)\n")
    ended(python("-m", "casync", str(script)), status=7)
    script.write_text("raise LookupError('of the script')\n")
    assert "LookupError: of the script" in ended(python("-m", "casync", str(script)), status=1)


def test_python_m_casync_explains_itself(casync: ModuleType, tmp_path: Path) -> None:
    assert "usage" in ended(python("-m", "casync", "--help")).lower()
    assert "usage" in ended(python("-m", "casync"), status=2).lower()
    missing = ended(python("-m", "casync", str(tmp_path / "missing.py")), status=2)
    assert "there is no file" in missing and "missing.py" in missing and "Traceback" not in missing


def test_type_hints_ship(casync: ModuleType) -> None:
    assert importlib.resources.files("casync").joinpath("py.typed").is_file()


def names_in_stub(body: list[ast.stmt]) -> set[str]:
    """What a stub, or a class in it, defines."""
    names = {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return names | {ast.unparse(node.target) for node in body if isinstance(node, ast.AnnAssign)}


def test_the_stub_names_what_the_native_module_has(casync: ModuleType) -> None:
    native = sys.modules["casync._native"]
    stub = ast.parse(importlib.resources.files("casync").joinpath("_native.pyi").read_text())
    absent = {"TLSProtocol", "TLSTransport"} if sys.version_info < (3, 11) else set()
    assert names_in_stub(stub.body) - absent == {
        name for name in dir(native) if not name.startswith("__")
    }
    for node in stub.body:
        if isinstance(node, ast.ClassDef) and node.name not in absent:
            assert names_in_stub(node.body) <= set(dir(getattr(native, node.name))), node.name
            if node.name == "Loop":
                assert {name for name in vars(native.Loop) if name[:2] != "__"} <= names_in_stub(
                    node.body
                )


def test_everything_public_is_named(casync: ModuleType) -> None:
    names = {"run", "new_event_loop", "EventLoop", "install", "is_installed", "EventLoopPolicy"}
    assert names <= set(casync.__all__)
    assert all(hasattr(casync, name) for name in casync.__all__)
    assert set(casync.__all__) <= set(dir(casync))
    assert casync.__version__


def test_other_platforms_are_told_so(casync: ModuleType) -> None:
    process = python(
        "-c", "import sys; sys.platform = 'darwin'; import casync", stderr=subprocess.STDOUT
    )
    output = ended(process, status=1)
    assert "ImportError" in output and "Linux" in output


def test_importing_it_changes_nothing_in_asyncio(casync: ModuleType) -> None:
    run_script(
        asyncio,
        """
        before = {name: getattr(asyncio, name) for name in dir(asyncio)}
        import casync
        assert {name: getattr(asyncio, name) for name in before} == before
        loop = asyncio.new_event_loop()
        assert not isinstance(loop, casync.EventLoop)
        loop.close()
        """,
    )


def test_it_can_be_imported_in_a_thread(casync: ModuleType) -> None:
    run_script(
        asyncio,
        """
        results = []
        def work():
            import casync
            results.append(casync.run(asyncio.sleep(0, "slept")))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert results == ["slept"]
        """,
    )
