"""casync.dump_tasks() and the metrics of a loop."""

from __future__ import annotations

import asyncio
import io
import sys
from types import ModuleType

import casync as package
from support import Loop, Recorder, unix_pair


async def test_dump_tasks_shows_every_coroutine_of_every_task(loop: Loop) -> None:
    async def inner() -> None:
        await loop.create_future()

    async def outer() -> None:
        await inner()

    task = loop.create_task(outer(), name="the task")
    await asyncio.sleep(0)
    text = io.StringIO()
    package.dump_tasks(file=text)
    lines = text.getvalue().splitlines()
    start = lines.index("the task (pending)")
    assert [line.split(" at ")[0].split(".")[-1] for line in lines[start + 1 : start + 3]] == [
        "outer",
        "inner",
    ]
    assert f"{__file__}:" in lines[start + 1]
    assert "waits for <Future pending" in lines[start + 3]
    task.cancel()
    package.dump_tasks(loop, text)
    if sys.version_info >= (3, 11):
        assert "the task (cancelling)" in text.getvalue()


async def test_dump_tasks_shows_what_reads_a_stream(loop: Loop) -> None:
    ours, theirs = unix_pair()
    reader, writer = await asyncio.open_connection(sock=ours)

    async def read() -> None:
        await reader.readline()

    task = loop.create_task(read())
    await asyncio.sleep(0)
    text = io.StringIO()
    package.dump_tasks(file=text)
    assert "StreamReader.readline" in text.getvalue()
    task.cancel()
    writer.close()
    theirs.close()
    await writer.wait_closed()


def test_metrics(casync: ModuleType) -> None:
    loop = casync.new_event_loop()
    assert set(loop.metrics().values()) == {0}

    async def main() -> None:
        server = await loop.create_server(Recorder, "127.0.0.1", 0)
        ours, theirs = unix_pair()
        transport, _ = await loop.create_connection(Recorder, sock=ours)
        udp, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        timer = loop.call_later(1000, int)
        loop.call_soon(int)
        loop.add_reader(theirs, int)
        transport.write(bytes(10_000_000))
        metrics = loop.metrics()
        assert metrics["turns"] >= metrics["polls"] > 0 and metrics["callbacks"] > 0
        assert (metrics["ready"], metrics["timers"], metrics["servers"]) == (1, 1, 1)
        assert metrics["transports"] == 2 and metrics["watchers"] >= 1
        assert metrics["unsent_bytes"] == transport.get_write_buffer_size() > 0
        assert metrics["idle_time"] == metrics["busy_time"] == metrics["longest_turn"] == 0
        timer.cancel()
        loop.remove_reader(theirs)
        transport.abort()
        udp.close()
        theirs.close()
        server.close()

    loop.run_until_complete(main())
    loop.close()
    assert loop.metrics()["transports"] == 0


def test_metrics_with_times(casync: ModuleType) -> None:
    loop = casync.EventLoop(metrics=True)
    while loop.metrics()["idle_time"] == 0:
        loop.run_until_complete(asyncio.sleep(0.001))
    metrics = loop.metrics()
    assert metrics["busy_time"] >= metrics["longest_turn"] > 0
    loop.close()
