"""What asyncio shows of tasks that wait for casync's loop: their stacks, their call graphs, and, of
another process, `python -m asyncio ps` and `pstree`. This file is that process's program, too.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import io
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from types import ModuleType
from typing import Any

import pytest
from support import TIMEOUT, Loop, ended, printed, python, turns, unix_pair

Tasks = dict[str, "asyncio.Task[Any]"]


async def receive(sock: socket.socket) -> None:
    await asyncio.get_running_loop().sock_recv(sock, 10)


async def accept(sock: socket.socket) -> None:
    await asyncio.get_running_loop().sock_accept(sock)


async def read_line(reader: asyncio.StreamReader) -> None:
    await reader.readline()


async def drain(writer: asyncio.StreamWriter) -> None:
    await writer.drain()


def line_of(function: Any) -> int:
    """The line in which one of these functions waits."""
    return inspect.getsourcelines(function)[1] + 1


WAITING = receive, accept, read_line, drain


@asynccontextmanager
async def waiting_tasks() -> AsyncIterator[Tasks]:
    """A task for each of these functions, and two whose coroutines are the loop's own. All wait for
    what never comes.
    """
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        pairs = [[stack.enter_context(sock) for sock in unix_pair()] for _ in range(4)]
        streams = [await asyncio.open_connection(sock=pair[0]) for pair in pairs[:2]]
        streams[0][1].transport.set_write_buffer_limits(0)
        streams[0][1].write(bytes(10_000_000))
        tasks = {
            coroutine.__name__: loop.create_task(coroutine, name=coroutine.__name__)
            for coroutine in (
                receive(pairs[2][0]),
                accept(listener),
                read_line(streams[0][0]),
                drain(streams[0][1]),
                loop.sock_recv(pairs[3][0], 10),
                streams[1][0].read(10),
            )
        }
        await turns()
        try:
            yield tasks
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            for _, writer in streams:
                writer.transport.abort()


async def test_the_stack_of_a_task_ends_in_its_own_line(loop: Loop) -> None:
    async with waiting_tasks() as tasks:
        for function in WAITING:
            [frame] = tasks[function.__name__].get_stack()
            assert (frame.f_code, frame.f_lineno) == (function.__code__, line_of(function))
        for task in tasks.values():
            output = io.StringIO()
            task.print_stack(file=output)
            assert task.get_name() in output.getvalue()


if sys.version_info >= (3, 14):

    async def wait_for_all(tasks: Tasks) -> None:
        await asyncio.gather(*tasks.values())

    async def test_call_graphs(loop: Loop) -> None:
        async with waiting_tasks() as tasks:
            waiter = loop.create_task(wait_for_all(tasks))
            await turns()
            for function in WAITING:
                graph = asyncio.capture_call_graph(tasks[function.__name__])
                assert graph is not None
                frames = [entry.frame for entry in graph.call_stack]
                assert (frames[-1].f_code, frames[-1].f_lineno) == (
                    function.__code__,
                    line_of(function),
                )
                assert [call.future for call in graph.awaited_by] == [waiter]
                shown = asyncio.format_call_graph(tasks[function.__name__])
                assert (
                    f"{__file__!r}, line {line_of(function)}, in async {function.__name__}" in shown
                )
            for task in tasks.values():
                for limit in -1, 0, 1, None:
                    output = io.StringIO()
                    asyncio.print_call_graph(task, file=output, limit=limit)
                    assert f"Task(name={task.get_name()!r}" in output.getvalue()
            waiter.cancel()
            await asyncio.wait([waiter])
            for task in tasks.values():
                finished = asyncio.capture_call_graph(task)
                assert finished is not None and finished.call_stack == ()

    def may_be_traced() -> bool:
        """May a process read the memory of another one of the same user's (ptrace(2))?"""
        try:
            with open("/proc/sys/kernel/yama/ptrace_scope") as scope:
                return os.geteuid() == 0 or scope.read().strip() == "0"
        except FileNotFoundError:
            return True

    @pytest.mark.skipif(not may_be_traced(), reason="the system forbids to trace other processes")
    def test_ps_and_pstree_show_the_line_that_waits(loop_module: ModuleType) -> None:
        program = python(__file__, loop_module.__name__)
        try:
            printed(program, "all of them wait")
            listed, tree = (
                subprocess.run(
                    [sys.executable, "-m", "asyncio", command, str(program.pid)],
                    capture_output=True,
                    text=True,
                    timeout=TIMEOUT,
                )
                for command in ("ps", "pstree")
            )
            for shown in listed, tree:
                assert shown.returncode == 0, shown.stdout + shown.stderr
                for name in *(function.__name__ for function in WAITING), "sock_recv", "read":
                    assert name in shown.stdout
            for function in WAITING:
                assert f"{function.__name__} {__file__}:{line_of(function)}" in tree.stdout
        finally:
            ended(program)


async def main() -> None:
    async with waiting_tasks():
        print("all of them wait", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    loop = importlib.import_module(sys.argv[1]).new_event_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
