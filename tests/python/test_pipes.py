"""connect_read_pipe and connect_write_pipe: pipes, terminals, sockets, and what is none of them."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tty
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import Loop, Recorder, collect_garbage, pattern, turns, until


class Pipe:
    """Both ends of a pipe, each with a Recorder."""

    reader: Any
    writer: Any
    received: Recorder
    sent: Recorder


async def open_pipe(loop: Loop) -> Pipe:
    pipe, (reading, writing) = Pipe(), os.pipe()
    pipe.reader, pipe.received = await loop.connect_read_pipe(Recorder, os.fdopen(reading, "rb", 0))
    pipe.writer, pipe.sent = await loop.connect_write_pipe(Recorder, os.fdopen(writing, "wb", 0))
    return pipe


async def test_what_is_written_is_received(loop: Loop) -> None:
    pipe = await open_pipe(loop)
    data = pattern(1_000_000)
    pipe.writer.write(data[:10])
    pipe.writer.writelines([data[10:20], bytearray(data[20:30]), memoryview(data)[30:]])
    assert await pipe.received.received(len(data)) == data
    pipe.writer.close()
    await pipe.received.lost
    await pipe.sent.lost
    assert pipe.received.events == ["made", "data", "eof", "lost"]
    assert pipe.received.error is pipe.sent.error is None
    assert pipe.reader.is_closing() and pipe.writer.is_closing()


async def test_they_are_asyncios_kinds_of_transports(loop: Loop) -> None:
    pipe = await open_pipe(loop)
    assert isinstance(pipe.reader, asyncio.ReadTransport)
    assert not hasattr(pipe.reader, "write")
    assert isinstance(pipe.writer, asyncio.WriteTransport)
    assert pipe.writer.can_write_eof()
    for transport in pipe.reader, pipe.writer:
        file = transport.get_extra_info("pipe")
        assert file.fileno() >= 0 and f"fd={file.fileno()}" in repr(transport)
        assert transport.get_extra_info("peername", "none") == "none"
        transport.close()
    await pipe.received.lost
    await pipe.sent.lost
    assert "closed" in repr(pipe.reader) and "closed" in repr(pipe.writer)


@pytest.mark.parametrize("how", ["close", "write_eof"])
async def test_close_sends_what_is_buffered_and_drops_what_comes_later(
    loop: Loop, how: str
) -> None:
    pipe = await open_pipe(loop)
    data = pattern(500_000)
    pipe.writer.write(data)
    getattr(pipe.writer, how)()
    pipe.writer.write(b"too late")
    await pipe.received.lost
    assert bytes(pipe.received.data) == data
    await pipe.sent.lost
    assert pipe.sent.error is None


async def test_abort_sends_nothing_more(loop: Loop) -> None:
    pipe = await open_pipe(loop)
    pipe.reader.pause_reading()
    pipe.writer.write(pattern(500_000))
    pipe.writer.abort()
    await pipe.sent.lost
    pipe.reader.resume_reading()
    await pipe.received.lost
    assert len(pipe.received.data) < 500_000


async def test_reading_can_be_paused(loop: Loop) -> None:
    pipe = await open_pipe(loop)
    pipe.reader.pause_reading()
    assert not pipe.reader.is_reading()
    pipe.writer.write(b"x")
    await turns()
    assert not pipe.received.data
    pipe.reader.resume_reading()
    assert pipe.reader.is_reading()
    assert await pipe.received.received(1) == b"x"
    pipe.writer.close()
    await pipe.received.lost


async def test_a_full_pipe_pauses_the_protocol(loop: Loop) -> None:
    pipe = await open_pipe(loop)
    pipe.reader.pause_reading()
    pipe.writer.set_write_buffer_limits(high=1000)
    assert pipe.writer.get_write_buffer_limits() == (250, 1000)
    pipe.writer.write(pattern(500_000))
    assert pipe.sent.events == ["made", "pause"]
    assert pipe.writer.get_write_buffer_size() > 1000
    pipe.reader.resume_reading()
    await until(lambda: pipe.sent.events == ["made", "pause", "resume"])
    pipe.writer.close()
    await pipe.received.lost


async def test_a_reader_that_goes_ends_the_writer(loop: Loop) -> None:
    pipe = await open_pipe(loop)
    pipe.reader.close()
    await pipe.sent.lost
    assert pipe.sent.error is None


async def test_a_reader_that_goes_before_it_had_all_is_an_error(loop: Loop) -> None:
    reading, writing = os.pipe()
    writer, protocol = await loop.connect_write_pipe(Recorder, os.fdopen(writing, "wb", 0))
    writer.write(pattern(1_000_000))
    os.close(reading)
    await protocol.lost
    assert isinstance(protocol.error, BrokenPipeError)
    writer.close()


class Failing(Recorder):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        raise ZeroDivisionError


async def test_an_exception_in_data_received_leaves_the_pipe_open(loop: Loop) -> None:
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    reading, writing = os.pipe()
    _, protocol = await loop.connect_read_pipe(Failing, os.fdopen(reading, "rb", 0))
    for number in range(1, 3):
        os.write(writing, b"x")
        await until(lambda number=number: len(errors) == number)
    assert protocol.data == b"xx"
    assert all(isinstance(context["exception"], ZeroDivisionError) for context in errors)
    os.close(writing)
    await protocol.lost
    assert protocol.error is None


async def test_a_terminal(loop: Loop) -> None:
    master, slave = os.openpty()
    _, received = await loop.connect_read_pipe(Recorder, os.fdopen(os.dup(master), "rb", 0))
    writer, _ = await loop.connect_write_pipe(Recorder, os.fdopen(master, "wb", 0))
    os.write(slave, b"prompt")
    await received.received(6)
    writer.write(b"answer\n")
    assert await loop.run_in_executor(None, os.read, slave, 100) == b"answer\n"
    os.close(slave)
    await received.lost
    assert received.error is None or received.error.errno == 5  # EIO
    writer.close()
    await turns()


@pytest.mark.parametrize("reader_first", [True, False])
async def test_one_descriptor_is_read_and_written(loop: Loop, reader_first: bool) -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    file = os.fdopen(master, "r+b", 0)
    if reader_first:
        reader, received = await loop.connect_read_pipe(Recorder, file)
    writer, sent = await loop.connect_write_pipe(Recorder, file)
    if not reader_first:
        reader, received = await loop.connect_read_pipe(Recorder, file)
    for transport in reader, writer:
        assert transport.get_extra_info("pipe") is file and f"fd={master}" in repr(transport)
    for number in range(1, 4):
        os.write(slave, b"x")
        await received.received(number)
        writer.write(b"answer")
        assert await loop.run_in_executor(None, os.read, slave, 100) == b"answer"
    writer.close()
    await sent.lost
    reader.close()
    await received.lost
    assert file.closed and sent.error is received.error is None
    os.close(slave)


async def test_one_descriptor_opened_again_and_again(loop: Loop) -> None:
    descriptors = set(os.listdir("/proc/self/fd"))
    for _ in range(10):
        ours, theirs = os.openpty()
        file = os.fdopen(ours, "r+b", 0)
        transports = [
            await loop.connect_read_pipe(Recorder, file),
            await loop.connect_write_pipe(Recorder, file),
        ]
        for transport, protocol in transports:
            transport.close()
            await protocol.lost
        os.close(theirs)
    assert set(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("end", ["close", "the other end closes"])
async def test_a_descriptor_is_closed_once(loop: Loop, end: str) -> None:
    """Another file that gets its number stays open, whatever becomes of pipe and transport."""
    reading, writing = os.pipe()
    file = os.fdopen(reading, "rb")
    transport, protocol = await loop.connect_read_pipe(Recorder, file)
    if end == "close":
        transport.close()
    os.close(writing)
    await protocol.lost
    other = os.open("/dev/null", os.O_RDONLY)
    if other != reading:
        os.dup2(other, reading)
        os.close(other)
    file.close()
    del transport, protocol, file
    await turns()
    collect_garbage()
    os.fstat(reading)
    os.close(reading)


async def test_a_socket_may_be_written_as_a_pipe(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    writer, protocol = await loop.connect_write_pipe(Recorder, ours)
    writer.write(b"x")
    assert await loop.run_in_executor(None, theirs.recv, 10) == b"x"
    theirs.close()
    await protocol.lost
    assert protocol.error is None


async def test_dev_null_can_be_written(loop: Loop) -> None:
    file = open("/dev/null", "wb", 0)  # noqa: SIM115
    writer, protocol = await loop.connect_write_pipe(Recorder, file)
    writer.write(pattern(1_000_000))
    assert writer.get_write_buffer_size() == 0
    writer.close()
    await protocol.lost


async def test_a_regular_file_is_no_pipe(loop: Loop, tmp_path: Path) -> None:
    for connect, mode in (loop.connect_read_pipe, "r+b"), (loop.connect_write_pipe, "wb"):
        path = tmp_path / "file"
        path.touch()
        with path.open(mode) as file, pytest.raises(ValueError):
            await connect(Recorder, file)


async def test_children_inherit_a_pipe_that_is_inheritable(loop: Loop) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    reader, protocol = await loop.connect_read_pipe(Recorder, os.fdopen(reading, "rb", 0))
    reader.pause_reading()
    os.write(writing, b"for the child")
    code = f"import os; print(os.read({reading}, 100))"
    run = [sys.executable, "-c", code]
    output = await loop.run_in_executor(
        None, lambda: subprocess.run(run, close_fds=False, stdout=subprocess.PIPE).stdout
    )
    assert output == b"b'for the child'\n"
    os.close(writing)
    reader.resume_reading()
    await protocol.lost


def test_pipes_that_nobody_closed_warn(loop_module: ModuleType) -> None:
    loop = loop_module.new_event_loop()
    pipe = loop.run_until_complete(open_pipe(loop))
    files = [transport.get_extra_info("pipe") for transport in (pipe.reader, pipe.writer)]
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del pipe
        collect_garbage()
    assert all(file.closed for file in files)


def test_the_native_loop_makes_native_pipes(casync: ModuleType) -> None:
    async def types() -> list[str]:
        pipe = await open_pipe(asyncio.get_running_loop())
        pipe.writer.close()
        await pipe.received.lost
        return [type(pipe.reader).__name__, type(pipe.writer).__name__]

    assert casync.run(types()) == ["ReadPipeTransport", "WritePipeTransport"]
