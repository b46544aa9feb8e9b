"""Frameworks and servers on the loop: pytest-asyncio, gunicorn, hypercorn, granian, tornado,
grpc.aio, watchfiles, Jupyter's kernel.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import os
import re
import signal
import socket
import ssl
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import tornado.gen
import tornado.httpclient
import tornado.httpserver
import tornado.ioloop
import tornado.netutil
import tornado.process
import tornado.util
import tornado.web
import tornado.websocket
import trustme
import watchfiles
from support import (
    REPOSITORY,
    TIMEOUT,
    Loop,
    ended,
    finish,
    pattern,
    printed,
    python,
    run_script,
    runs_on,
    within,
)

BIG = pattern(3_000_000)


# --- pytest-asyncio ------------------------------------------------------------------------------

PYTEST_ASYNCIO_TESTS = """
import asyncio
import pytest
import pytest_asyncio
from {name} import EventLoop

@pytest_asyncio.fixture
async def server():
    assert type(asyncio.get_running_loop()) is EventLoop
    async def echo(reader, writer):
        writer.write(await reader.read())
        writer.close()
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]

async def test_a_fixture_and_its_test_run_on_one_loop(server):
    assert type(asyncio.get_running_loop()) is EventLoop
    reader, writer = await asyncio.open_connection("127.0.0.1", server)
    writer.write(b"hello")
    writer.write_eof()
    assert await reader.read() == b"hello"
    writer.close()
    await writer.wait_closed()

async def test_fails():
    assert type(asyncio.get_running_loop()) is EventLoop
    await asyncio.sleep(0)
    raise ZeroDivisionError

@pytest.mark.asyncio(loop_scope="class")
class TestClass:
    async def test_makes_a_task(self):
        type(self).loop = asyncio.get_running_loop()
        type(self).task = asyncio.create_task(asyncio.sleep(0, "done"))

    async def test_awaits_it(self):
        assert type(self.loop) is EventLoop
        assert asyncio.get_running_loop() is self.loop
        assert await self.task == "done"
"""
# What a project's conftest.py says to have its tests on casync's loop.
LOOP_FACTORIES = """
from {name} import new_event_loop

def pytest_asyncio_loop_factories(config, item):
    return {{"{name}": new_event_loop}}
"""
EVENT_LOOP_POLICY = """
import casync
import pytest

@pytest.fixture(scope="session")
def event_loop_policy():
    return casync.EventLoopPolicy()
"""


def run_pytest_asyncio(directory: Path, name: str, conftest: str) -> None:
    (directory / "conftest.py").write_text(conftest.format(name=name))
    (directory / "test_it.py").write_text(PYTEST_ASYNCIO_TESTS.format(name=name))
    (directory / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "no:anyio"]
    output = ended(python(*words, cwd=str(directory)), status=1)
    assert "1 failed, 3 passed" in output, output
    assert "test_fails" in output and "ZeroDivisionError" in output


def test_pytest_asyncio_with_a_loop_factory(loop_module: ModuleType, tmp_path: Path) -> None:
    run_pytest_asyncio(tmp_path, loop_module.__name__, LOOP_FACTORIES)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="3.14 deprecates policies")
def test_pytest_asyncio_with_a_policy(casync: ModuleType, tmp_path: Path) -> None:
    run_pytest_asyncio(tmp_path, "casync", EVENT_LOOP_POLICY)


# --- servers -------------------------------------------------------------------------------------

# Answers with the loop's module and what it got; the first half before the request has come as a
# whole.
ASGI_APP = """
import asyncio, hashlib

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                # one string: several processes write to one pipe
                print(f"lifespan ended on {loop_name()}")
                return
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    name = f"{loop_name()} ".encode()
    await send({"type": "http.response.body", "body": name, "more_body": True})
    digest, more = hashlib.sha1(), True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.body", "body": digest.hexdigest().encode()})

def loop_name():
    return type(asyncio.get_running_loop()).__module__.split(".")[0]
"""
SHA1_OF_1234567890 = "01b307acba4f54f55aafc33bb06bbbf6ca803e9a"


def requests(loop_module: ModuleType, url: str, http2: bool = False, trust: Any = True) -> None:
    """Many requests at once, and a large one."""

    async def main() -> None:
        options = {"http1": not http2, "http2": http2, "verify": trust, "timeout": TIMEOUT}
        async with httpx.AsyncClient(base_url=url, **options) as client:
            answers = await asyncio.gather(
                *(client.post("/", content=b"1234567890") for _ in range(50))
            )
            expected = f"{loop_module.__name__} {SHA1_OF_1234567890}"
            assert {answer.text for answer in answers} == {expected}
            assert {answer.http_version for answer in answers} == {
                "HTTP/2" if http2 else "HTTP/1.1"
            }
            answer = await client.post("/", content=BIG)
            assert answer.text.startswith(loop_module.__name__)

    loop = loop_module.new_event_loop()
    loop.run_until_complete(within(main()))
    finish(loop)


def terminated_in_a_request(server: Any, url: str, loop_module: ModuleType, log: str) -> None:
    """SIGTERM while a request is being served: the server answers it, then ends."""
    host, port = url.rpartition("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        receive_until(client, loop_module.__name__.encode())
        server.send_signal(signal.SIGTERM)
        printed(server, log)
        client.sendall(b"67890")
        receive_until(client, SHA1_OF_1234567890.encode())


def receive_until(client: socket.socket, text: bytes) -> None:
    data = b""
    while text not in data:
        chunk = client.recv(1000)
        assert chunk, f"the server closed the connection after {data!r}"
        data += chunk


# By default it ends a connection 2 s after an answer: if it stalls as long, a request may be on its
# way.
GUNICORN = "-m", "gunicorn", "--bind", "127.0.0.1:0", "--keep-alive", str(TIMEOUT)
GUNICORN_WORKER = """
from uvicorn_worker import UvicornWorker

class Worker(UvicornWorker):
    CONFIG_KWARGS = {{"loop": "{name}:new_event_loop", "lifespan": "on"}}
"""


def test_gunicorn_with_uvicorns_worker(loop_module: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ASGI_APP)
    (tmp_path / "worker.py").write_text(GUNICORN_WORKER.format(name=loop_module.__name__))
    command = [*GUNICORN, "--workers", "2", "-k", "worker.Worker", "app:app"]
    with python(*command, cwd=str(tmp_path)) as server:
        url = printed(server, r"http://127\.0\.0\.1:\d+").group()
        for _ in range(2):  # a worker that is terminated earlier has no lifespan
            printed(server, "Application startup complete")
        requests(loop_module, url)
        terminated_in_a_request(server, url, loop_module, "Shutting down")
        assert ended(server).count(f"lifespan ended on {loop_module.__name__}") == 2


def test_gunicorns_own_worker(casync: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ASGI_APP)
    (tmp_path / "gunicorn.conf.py").write_text("import casync\ncasync.install()\n")
    command = [*GUNICORN, "-k", "asgi", "--asgi-loop", "asyncio", "app:app"]
    with python(*command, cwd=str(tmp_path)) as server:
        url = printed(server, r"http://127\.0\.0\.1:\d+").group()
        requests(casync, url)
        terminated_in_a_request(server, url, casync, "Handling signal: term")
        assert "lifespan ended on casync" in ended(server)


HYPERCORN = """
import asyncio, signal, sys
import {name}
from app import app
from hypercorn.asyncio import serve
from hypercorn.config import Config

async def main(*certificate):
    stop = asyncio.Event()

    async def stopped():
        await stop.wait()
        print("stopping", flush=True)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    options = {{"bind": ["127.0.0.1:0"], "errorlog": "-"}}
    options |= {{"graceful_timeout": 60, "keep_alive_timeout": 60}}
    for path in certificate:
        options |= {{"certfile": path, "keyfile": path}}
    await serve(app, Config.from_mapping(options), shutdown_trigger=stopped)

{name}.run(main(*sys.argv[1:]))
"""


def hypercorn(loop_module: ModuleType, directory: Path, *certificate: str) -> Any:
    (directory / "app.py").write_text(ASGI_APP)
    (directory / "main.py").write_text(HYPERCORN.format(name=loop_module.__name__))
    return python("main.py", *certificate, cwd=str(directory))


def test_hypercorn(loop_module: ModuleType, tmp_path: Path) -> None:
    with hypercorn(loop_module, tmp_path) as server:
        url = printed(server, r"http://127\.0\.0\.1:\d+").group()
        requests(loop_module, url)
        requests(loop_module, url, http2=True)
        terminated_in_a_request(server, url, loop_module, "stopping")
        assert f"lifespan ended on {loop_module.__name__}" in ended(server)


def test_hypercorn_over_tls(loop_module: ModuleType, tmp_path: Path) -> None:
    authority, trust = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trust)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "server.pem"
    )
    with hypercorn(loop_module, tmp_path, "server.pem") as server:
        url = printed(server, r"https://127\.0\.0\.1:\d+").group()
        requests(loop_module, url, trust=trust)
        requests(loop_module, url, http2=True, trust=trust)
        server.send_signal(signal.SIGTERM)
        assert f"lifespan ended on {loop_module.__name__}" in ended(server)


GRANIAN = """
import asyncio
import {name}
from granian import Granian, loops

@loops.register("auto")
def make_loop():
    loop = {name}.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop

if __name__ == "__main__":
    Granian("app:app", interface="asgi", port={port}).serve()
"""


def free_port() -> int:
    """For a server that does not tell which port it got when it asked for any."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_granian(loop_module: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("granian")
    name, port = loop_module.__name__, free_port()
    (tmp_path / "app.py").write_text(ASGI_APP)
    (tmp_path / "main.py").write_text(GRANIAN.format(name=name, port=port))
    with python("main.py", cwd=str(tmp_path)) as server:
        printed(server, "Started worker-1")
        requests(loop_module, f"http://127.0.0.1:{port}")
        server.send_signal(signal.SIGTERM)
        assert f"lifespan ended on {name}" in ended(server)


# --- tornado -------------------------------------------------------------------------------------


async def test_tornado(loop: Loop, loop_module: ModuleType) -> None:
    runs_on(loop_module)

    class Upload(tornado.web.RequestHandler):
        async def post(self) -> None:
            runs_on(loop_module)
            for start in range(0, len(self.request.body), 100_000):
                self.write(self.request.body[start : start + 100_000])
                await self.flush()

    class Echo(tornado.websocket.WebSocketHandler):
        async def on_message(self, message: str | bytes) -> None:
            runs_on(loop_module)
            await self.write_message(message, binary=isinstance(message, bytes))

    application = tornado.web.Application([("/upload", Upload), ("/echo", Echo)])
    [listener] = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server = tornado.httpserver.HTTPServer(application)
    server.add_socket(listener)
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    client = tornado.httpclient.AsyncHTTPClient(force_instance=True)
    headers = {"Content-Type": "application/octet-stream"}
    fetch = functools.partial(
        client.fetch,
        f"http://{address}/upload",
        method="POST",
        headers=headers,
        request_timeout=TIMEOUT,
    )
    assert (await fetch(body=BIG)).body == BIG
    answers = await asyncio.gather(*(fetch(body=str(number)) for number in range(50)))
    assert [answer.body for answer in answers] == [b"%d" % number for number in range(50)]
    connection = await tornado.websocket.websocket_connect(f"ws://{address}/echo")
    for message in "text", b"bytes":
        await connection.write_message(message, binary=isinstance(message, bytes))
        assert await connection.read_message() == message
    connection.close()
    assert await connection.read_message() is None
    client.close()
    server.stop()
    await server.close_all_connections()


async def test_tornados_ioloop_is_the_loop(loop: Loop, loop_module: ModuleType) -> None:
    runs_on(loop_module)
    ioloop = tornado.ioloop.IOLoop.current()
    assert ioloop.asyncio_loop is loop  # type: ignore[attr-defined]
    called: asyncio.Queue[str] = asyncio.Queue()
    ioloop.add_callback(called.put_nowait, "callback")
    assert await called.get() == "callback"
    ioloop.call_later(0.001, called.put_nowait, "later")
    assert await called.get() == "later"
    ioloop.remove_timeout(ioloop.call_later(0.001, called.put_nowait, "never"))
    periodic = tornado.ioloop.PeriodicCallback(lambda: called.put_nowait("periodic"), 1)
    periodic.start()
    assert [await called.get() for _ in range(3)] == ["periodic"] * 3
    periodic.stop()
    assert await ioloop.run_in_executor(None, threading.get_ident) != threading.get_ident()
    with pytest.raises(tornado.util.TimeoutError):
        await tornado.gen.with_timeout(datetime.timedelta(milliseconds=1), asyncio.Future())


async def test_tornado_runs_a_process(loop: Loop, loop_module: ModuleType) -> None:
    runs_on(loop_module)
    code = "import sys; print(sys.stdin.read().upper(), end=''); sys.exit(3)"
    stream = tornado.process.Subprocess.STREAM
    process = tornado.process.Subprocess([sys.executable, "-c", code], stdin=stream, stdout=stream)
    await process.stdin.write(b"hello " * 100_000)
    process.stdin.close()
    assert await process.stdout.read_until_close() == b"HELLO " * 100_000
    assert await process.wait_for_exit(raise_error=False) == 3
    process.uninitialize()


# --- grpc.aio ------------------------------------------------------------------------------------

# In a process of its own, as gRPC has threads and fork handlers for as long as a process lives.
GRPC = """
import grpc

class Service(grpc.GenericRpcHandler):
    cancelled = None

    def service(self, details):
        method = getattr(self, details.method.rpartition("/")[2])
        kinds = {
            "double": grpc.unary_unary_rpc_method_handler,
            "count": grpc.unary_stream_rpc_method_handler,
            "total": grpc.stream_unary_rpc_method_handler,
            "echo": grpc.stream_stream_rpc_method_handler,
            "wait": grpc.unary_unary_rpc_method_handler,
        }
        return kinds[method.__name__](method)

    async def double(self, request, context):
        assert asyncio.get_running_loop() is loop
        if not request:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "nothing to double")
        return request * 2

    async def count(self, request, context):
        for number in range(int(request)):
            yield b"%d" % number

    async def total(self, requests, context):
        total = 0
        async for request in requests:
            total += int(request)
        return b"%d" % total

    async def echo(self, requests, context):
        async for request in requests:
            yield request

    async def wait(self, request, context):
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

async def main():
    service = Service()
    service.waiting, service.cancelled = asyncio.Event(), asyncio.Event()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([service])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    limit = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=limit) as channel:
        await calls(channel, service)
        late = channel.stream_stream("/Service/echo")()
        await late.write(b"before")
        assert await late.read() == b"before"
        stopping = asyncio.create_task(server.stop(grace=60))
        await late.write(b"while it stops")
        assert await late.read() == b"while it stops"
        assert not stopping.done()
        await late.done_writing()
        assert await late.read() is grpc.aio.EOF
        await stopping
    await server.wait_for_termination()

async def calls(channel, service):
    double = channel.unary_unary("/Service/double")
    assert await asyncio.gather(*(double(b"%d" % n) for n in range(1, 100))) == [
        b"%d%d" % (n, n) for n in range(1, 100)
    ]
    big = b"x" * 1_000_000
    assert await double(big) == big * 2
    try:
        await double(b"")
    except grpc.aio.AioRpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "nothing to double"
    else:
        raise AssertionError
    numbers = [int(number) async for number in channel.unary_stream("/Service/count")(b"500")]
    assert numbers == list(range(500))

    async def requests():
        for number in range(500):
            yield b"%d" % number

    assert await channel.stream_unary("/Service/total")(requests()) == b"%d" % sum(range(500))

    echo = channel.stream_stream("/Service/echo")()
    for number in range(200):  # each answer before the next request
        await echo.write(b"%d" % number)
        assert await echo.read() == b"%d" % number
    await echo.done_writing()
    assert await echo.read() is grpc.aio.EOF
    assert await echo.code() == grpc.StatusCode.OK

    wait = channel.unary_unary("/Service/wait")
    try:
        await wait(b"", timeout=0.05)
    except grpc.aio.AioRpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    else:
        raise AssertionError
    service.waiting.clear()
    service.cancelled.clear()
    call = wait(b"")
    await service.waiting.wait()
    call.cancel()
    await service.cancelled.wait()
    assert call.cancelled() and await call.code() == grpc.StatusCode.CANCELLED

loop = new_event_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(asyncio.wait_for(main(), 60))
loop.close()
print("done on", type(loop).__module__.split(".")[0])
"""


def test_grpc(loop_module: ModuleType) -> None:
    assert run_script(loop_module, GRPC).endswith(f"done on {loop_module.__name__}\n")


# --- watchfiles ----------------------------------------------------------------------------------


async def test_watchfiles(loop: Loop, loop_module: ModuleType, tmp_path: Path) -> None:
    runs_on(loop_module)
    stop, path = asyncio.Event(), tmp_path / "file"
    changes = watchfiles.awatch(tmp_path, stop_event=stop, step=10)
    for expected in watchfiles.Change.added, watchfiles.Change.modified, watchfiles.Change.deleted:
        change = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)  # the watch is made in the generator's first step
        if (
            expected is watchfiles.Change.added
        ):  # each is one event: a second could come with the next change
            path.touch()
        elif expected is watchfiles.Change.modified:
            os.truncate(path, 5)
        else:
            path.unlink()
        assert await change == {(expected, str(path))}
    stop.set()
    assert [change async for change in changes] == []


# --- Jupyter -------------------------------------------------------------------------------------


def test_jupyters_kernel(casync: ModuleType, tmp_path: Path) -> None:
    """The kernel is that of python/README.md. A program of its own has the client, which leaves
    threads behind."""
    pytest.importorskip("ipykernel")
    directory = tmp_path / "kernels" / "casync"
    directory.mkdir(parents=True)
    guide = (REPOSITORY / "python" / "README.md").read_text()
    [kernel] = re.findall(r"^```json\n(.*?)^```$", guide, re.M | re.S)
    (directory / "kernel.json").write_text(kernel.replace('"python"', f'"{sys.executable}"', 1))
    program = f"""
        os.environ["JUPYTER_PATH"] = {str(tmp_path)!r}
        from jupyter_client.manager import start_new_kernel
        manager, client = start_new_kernel({TIMEOUT}, kernel_name="casync")

        def show(message):
            print(message["content"].get("text", ""), end="")

        def run(code):
            reply = client.execute_interactive(code, timeout={TIMEOUT}, output_hook=show)
            assert reply["content"]["status"] == "ok", reply

        run("import asyncio; print(type(asyncio.get_running_loop()).__module__)")
        run("print(await asyncio.sleep(0.001, 'awaited'))")
        run("task = asyncio.create_task(asyncio.sleep(0.001, 'in the background'))")
        run("print(await task)")
        client.stop_channels()
        manager.shutdown_kernel()
    """
    output = run_script(asyncio, program, "-W", "ignore")
    assert output.splitlines()[-3:] == ["casync.loop", "awaited", "in the background"]
