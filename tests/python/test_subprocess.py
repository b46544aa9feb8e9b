"""asyncio.subprocess: children of a loop."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import Loop, finish, pattern, receive_exactly, run_script, unix_pair, until, within

CAT = "import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"


async def start(code: str, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", code, *arguments, **options)


async def pipes_ended(process: Any) -> None:
    """From 3.14 on process.wait() does not wait for that (gh-119710)."""
    await until(lambda: process._transport._proc is None)


async def test_exec_with_arguments_and_status(loop: Loop) -> None:
    process = await start("import sys; print(sys.argv[1:]); sys.exit(3)", "a b", "c", stdout=PIPE)
    output, errors = await process.communicate()
    assert output == b"['a b', 'c']\n"
    assert errors is None
    assert process.returncode == 3
    assert await process.wait() == 3


async def test_shell(loop: Loop) -> None:
    process = await asyncio.create_subprocess_shell(
        "echo out; echo err >&2; exit 4", stdout=PIPE, stderr=PIPE
    )
    assert await process.communicate() == (b"out\n", b"err\n")
    assert process.returncode == 4


async def test_megabytes_through_a_child(loop: Loop) -> None:
    data = pattern(3_000_000)
    process = await start(CAT, stdin=PIPE, stdout=PIPE)
    output, _ = await process.communicate(data)
    assert output == data
    assert process.returncode == 0


async def test_a_conversation_by_lines(loop: Loop) -> None:
    code = "import sys\nfor line in sys.stdin: print(line.strip().upper(), flush=True)"
    process = await start(code, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None and process.stdout is not None
    for word in "one", "two", "three":
        process.stdin.write(f"{word}\n".encode())
        await process.stdin.drain()
        assert await process.stdout.readline() == f"{word.upper()}\n".encode()
    process.stdin.close()
    assert await process.stdout.read() == b""
    assert await process.wait() == 0


async def test_kill_terminate_and_send_signal(loop: Loop) -> None:
    for action, number in (
        ("kill", signal.SIGKILL),
        ("terminate", signal.SIGTERM),
        ("", signal.SIGUSR1),
    ):
        process = await start(
            "print('ready', flush=True); import time; time.sleep(1000)", stdout=PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        if action:
            getattr(process, action)()
        else:
            process.send_signal(number)
        assert await process.wait() == -number
        await pipes_ended(process)
        with pytest.raises(ProcessLookupError):
            process.kill()


async def test_a_child_that_does_not_read_its_input(loop: Loop) -> None:
    process = await start("pass", stdin=PIPE, stdout=PIPE)
    assert await process.communicate(pattern(3_000_000)) == (b"", None)
    assert process.returncode == 0


async def test_options_of_popen(loop: Loop, tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ['NAME']); print('err', file=sys.stderr)"
    environment = {**os.environ, "NAME": "value"}
    process = await start(
        code, cwd=tmp_path, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    output, _ = await process.communicate()
    assert sorted(output.decode().splitlines()) == sorted([f"{tmp_path} value", "err"])


async def test_passed_descriptors(loop: Loop) -> None:
    reading, writing = os.pipe()
    process = await start(f"import os; os.write({writing}, b'hello')", pass_fds=[writing])
    os.close(writing)
    assert await process.wait() == 0
    assert os.read(reading, 100) == b"hello"
    os.close(reading)


async def test_a_program_that_does_not_exist(loop: Loop, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await asyncio.create_subprocess_exec(str(tmp_path / "missing"))


async def test_many_children_at_once(loop: Loop) -> None:
    async def child(number: int) -> int:
        process = await asyncio.create_subprocess_shell(f"exit {number}")
        return await process.wait()

    assert await asyncio.gather(*(child(number) for number in range(20))) == list(range(20))


async def test_waiting_for_a_child_can_be_cancelled(loop: Loop) -> None:
    process = await start(CAT, stdin=PIPE, stdout=PIPE)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(process.communicate(), 0.01)
    process.kill()
    assert await process.wait() == -signal.SIGKILL


async def test_the_protocol_is_told_about_pipes_and_exit(loop: Loop) -> None:
    events: list[object] = []
    done = loop.create_future()

    class Protocol(asyncio.SubprocessProtocol):
        def pipe_data_received(self, fd: int, data: bytes) -> None:
            events.append((fd, data))

        def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
            events.append((fd, "lost"))

        def process_exited(self) -> None:
            events.append("exited")

        def connection_lost(self, exc: Exception | None) -> None:
            done.set_result(exc)

    transport, _ = await loop.subprocess_shell(Protocol, "echo hello", stdin=None, stderr=None)
    assert transport.get_pid() > 0
    assert await done is None
    assert transport.get_returncode() == 0
    assert events.index((1, b"hello\n")) < events.index((1, "lost"))
    assert "exited" in events
    transport.close()


def test_children_of_a_loop_in_a_thread(loop_module: ModuleType) -> None:
    results: list[object] = []

    async def main() -> object:
        process = await start("print('hello')", stdout=PIPE)
        return (await process.communicate())[0], process.returncode

    def work() -> None:
        loop = loop_module.new_event_loop()
        results.append(loop.run_until_complete(within(main())))
        finish(loop)

    asyncio.set_event_loop(None)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [(b"hello\n", 0)]


# Without a GIL catch_warnings(), by which asyncio keeps this to itself, does not work in threads.
@pytest.mark.filterwarnings("ignore:'get_child_watcher' is deprecated:DeprecationWarning")
def test_children_of_loops_in_many_threads(loop_module: ModuleType) -> None:
    """Which start them at the same time, and wait for their own alone."""
    start_together = threading.Barrier(8)
    statuses: list[list[int]] = []

    async def main() -> list[int]:
        processes = [await asyncio.create_subprocess_exec("true") for _ in range(10)]
        return [await process.wait() for process in processes]

    def work() -> None:
        loop = loop_module.new_event_loop()
        start_together.wait()
        statuses.append(loop.run_until_complete(within(main())))
        finish(loop)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [[0] * 10] * 8


async def test_sigchld_is_the_programs_own(loop: Loop) -> None:
    """A handler for it may be set, and children that the loop did not start are left alone."""
    told: asyncio.Queue[None] = asyncio.Queue()
    loop.add_signal_handler(signal.SIGCHLD, told.put_nowait, None)
    foreign = subprocess.Popen(["true"])
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0
    await told.get()
    os.waitid(os.P_PID, foreign.pid, os.WEXITED | os.WNOWAIT)
    assert await (await asyncio.create_subprocess_exec("true")).wait() == 0
    assert foreign.wait() == 0  # if somebody else had reaped it, Popen would not know
    assert os.waitstatus_to_exitcode(os.system("exit 3")) == 3
    loop.remove_signal_handler(signal.SIGCHLD)
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL


@pytest.mark.skipif(
    sys.version_info < (3, 13), reason="3.12.1 itself crashes at exit after asyncio in one"
)
def test_a_child_beside_a_subinterpreter(loop_module: ModuleType) -> None:
    output = run_script(
        loop_module,
        """
        import _interpreters as interpreters
        async def main():
            process = await asyncio.create_subprocess_exec("echo", "child", stdout=-1)
            return (await process.communicate())[0]
        one = interpreters.create()
        loop = new_event_loop()
        print(loop.run_until_complete(main()))
        loop.close()
        interpreters.destroy(one)
        """,
    )
    assert output == "b'child\\n'\n"


async def test_a_childs_streams_are_pipes(loop: Loop) -> None:
    """Which a program may open once more, by name."""
    code = """
        import os, stat
        assert all(stat.S_ISFIFO(os.fstat(number).st_mode) for number in range(3))
        with open("/dev/stdin") as source, open("/proc/self/fd/1", "w") as target:
            target.write(source.read().upper())
    """
    process = await start(textwrap.dedent(code), stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert await process.communicate(b"hello") == (b"HELLO", b"")
    transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "cat")
    for number in range(3):
        pipe = transport.get_pipe_transport(number)
        assert pipe is not None and pipe.get_extra_info("pipe").fileno() >= 0
    transport.close()
    await until(lambda: transport.get_returncode() is not None)


async def test_children_inherit_no_blocked_signals(loop: Loop) -> None:
    code = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    loop.add_signal_handler(signal.SIGUSR1, int)
    process = await start(code, stdout=PIPE)
    assert (await process.communicate())[0] == b"set()\n"
    loop.remove_signal_handler(signal.SIGUSR1)


async def run_child(code: str, **options: Any) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(code), stdout=PIPE, **options
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output


CHILD_OPTIONS: list[Any] = [
    pytest.param({"cwd": "/"}, "import os; print(os.getcwd())", "/", id="cwd"),
    pytest.param(
        {"env": {"NAME": "value"}}, "import os; print(os.environ['NAME'])", "value", id="env"
    ),
    pytest.param(
        {"start_new_session": True},
        "import os; print(os.getsid(0) == os.getpid())",
        "True",
        id="session",
    ),
    pytest.param({"umask": 0o27}, "import os; print(oct(os.umask(0)))", "0o27", id="umask"),
    pytest.param(
        {"preexec_fn": lambda: os.environ.update(NAME="of preexec_fn") or os.nice(1)},
        "import os; print(os.nice(0) > 0)",
        "True",
        id="preexec_fn",
    ),
    pytest.param(
        {"restore_signals": False},
        "import signal; print(signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN)",
        "True",
        id="restore_signals",
    ),
    pytest.param(
        {"executable": sys.executable}, "print('executable')", "executable", id="executable"
    ),
    pytest.param({"close_fds": False}, "print('close_fds')", "close_fds", id="close_fds"),
    pytest.param({"pipesize": 65536}, "print('pipesize')", "pipesize", id="pipesize"),
    pytest.param({"bufsize": 0}, "print('bufsize')", "bufsize", id="bufsize"),
    pytest.param(
        {"process_group": 0},
        "import os; print(os.getpgid(0) == os.getpid())",
        "True",
        id="process_group",
        marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11"),
    ),
]


as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may")


CHILD_OPTIONS += [
    pytest.param(
        {"group": 65534}, "import os; print(os.getgid())", "65534", id="group", marks=as_root
    ),
    pytest.param(
        {"extra_groups": [65533]},
        "import os; print(os.getgroups())",
        "[65533]",
        id="extra_groups",
        marks=as_root,
    ),
]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(("options", "code", "expected"), CHILD_OPTIONS)
async def test_every_option_of_popen(
    loop: Loop, options: dict[str, Any], code: str, expected: str
) -> None:
    assert (await run_child(code, **options)).decode().strip() == expected


@as_root
async def test_a_child_of_another_user(loop: Loop) -> None:
    process = await asyncio.create_subprocess_exec("id", "-u", stdout=PIPE, user=65534, cwd="/")
    assert await process.communicate() == (b"65534\n", None)


async def test_options_of_popen_that_asyncio_refuses(loop: Loop) -> None:
    for options in [
        {"universal_newlines": True},
        {"text": True},
        {"encoding": "utf-8"},
        {"errors": "strict"},
        {"shell": True},
        {"bufsize": 1},
    ]:
        with pytest.raises(ValueError):
            await asyncio.create_subprocess_exec("/bin/true", **options)
    with pytest.raises(ValueError):
        await asyncio.create_subprocess_shell("true", shell=False)
    known = set(inspect.signature(subprocess.Popen).parameters)
    tested = {"user", *(name for row in CHILD_OPTIONS for name in row.values[0])}
    refused = {"universal_newlines", "text", "encoding", "errors", "shell"}
    elsewhere = {"args", "stdin", "stdout", "stderr", "pass_fds"}  # in the other tests
    windows = {"startupinfo", "creationflags"}
    assert known <= tested | refused | elsewhere | windows


async def test_a_child_on_sockets_and_files(loop: Loop, tmp_path: Path) -> None:
    ours, theirs = unix_pair()
    theirs.setblocking(True)
    with ours, theirs, (tmp_path / "errors").open("wb") as errors:
        code = "import sys; data = sys.stdin.read(5); "
        code += "print(data.upper(), flush=True); sys.exit(data * 2)"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdin=theirs, stdout=theirs, stderr=errors
        )
        await loop.sock_sendall(ours, b"hello")
        assert await receive_exactly(ours, 6) == b"HELLO\n"
        assert await process.wait() == 1
    assert (tmp_path / "errors").read_text() == "hellohello\n"
