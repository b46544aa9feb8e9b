"""Programs whose threads are greenlets: gevent and eventlet, which replace the standard library's
functions ("monkeypatching").

asyncio's own loop runs there, as it waits in a replaced select(). casync's waits in the kernel, so
it refuses to be made, and says why.
"""

from __future__ import annotations

import asyncio
import importlib.util
import textwrap
from types import ModuleType

import pytest
from support import run_script

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "gevent, threads alone": "from gevent import monkey; monkey.patch_thread()",
    "gevent, select alone": "from gevent import monkey; monkey.patch_select()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
    "eventlet, threads alone": "import eventlet; eventlet.monkey_patch(thread=True)",
    "eventlet, select alone": "import eventlet; eventlet.monkey_patch(select=True)",
}
MAKE = """
def told(make):
    try:
        make()
    except RuntimeError as error:
        print(error)
import casync
told(casync.new_event_loop)
casync.install()
told(asyncio.new_event_loop)
async def main():
    return await asyncio.get_running_loop().run_in_executor(None, sum, [1, 2])
loop = asyncio.SelectorEventLoop()
print(loop.run_until_complete(main()))
loop.close()
"""


def needs(patch: str) -> str:
    """The package's name. Skips the test where it is not installed."""
    package = patch.partition(",")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    return package


@pytest.mark.parametrize("patch", PATCHES)
def test_a_loop_is_refused_where_threads_or_select_are_patched(
    casync: ModuleType, patch: str
) -> None:
    package = needs(patch)
    refusal, by_policy, result = run_script(
        asyncio, f"{PATCHES[patch]}{MAKE}", "-W", "ignore"
    ).splitlines()
    assert refusal == by_policy
    assert refusal.startswith(f"{package} has replaced threads or select() in this process")
    assert "use asyncio.SelectorEventLoop() here" in refusal
    assert result == "3"


@pytest.mark.parametrize(
    "package",
    [
        "import gevent; from gevent import monkey; monkey.patch_socket()",
        "import eventlet; eventlet.monkey_patch(socket=True)",
    ],
)
def test_a_loop_runs_beside_other_patches(casync: ModuleType, package: str) -> None:
    """What these replace is called with sockets that do not block."""
    needs(package.removeprefix("import ").partition(";")[0])
    code = """
        async def main():
            async def answer(reader, writer):
                writer.write(await reader.read())
                writer.close()
            async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
                port = server.sockets[0].getsockname()[1]
                reader, writer = await asyncio.open_connection("localhost", port)
                writer.write(b"hello")
                writer.write_eof()
                print(await reader.read())
                writer.close()
                await writer.wait_closed()
        loop = new_event_loop()
        loop.run_until_complete(main())
        loop.close()
    """
    program = f"{package}\n{textwrap.dedent(code)}"
    assert run_script(casync, program, "-W", "ignore") == "b'hello'\n"
