"""Programs that speak HTTP on the loop, over loopback: aiohttp, uvicorn, websockets, httpx and
anyio.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import anyio
import httpx
import pytest
import websockets
from aiohttp import web
from support import TIMEOUT, Contexts, Loop, ended, finish, pattern, printed, python, within

BIG = pattern(3_000_000)
PATIENT = {"open_timeout": TIMEOUT, "close_timeout": TIMEOUT}  # websockets' own are 10 s


def make_app() -> web.Application:
    async def hello(request: web.Request) -> web.Response:
        return web.json_response(
            {"hello": request.match_info["name"], "query": dict(request.query)}
        )

    async def digest(request: web.Request) -> web.Response:
        return web.Response(text=hashlib.sha1(await request.read()).hexdigest())

    async def big(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(BIG), 100_000):
            await response.write(BIG[start : start + 100_000])
        return response

    async def websocket(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket

    async def fail(request: web.Request) -> web.Response:
        raise web.HTTPConflict(text="no")

    app = web.Application(client_max_size=10_000_000)
    app.router.add_get("/hello/{name}", hello)
    app.router.add_post("/digest", digest)
    app.router.add_get("/big", big)
    app.router.add_get("/websocket", websocket)
    app.router.add_get("/fail", fail)
    app.router.add_static("/files", Path(__file__).parent)
    return app


@asynccontextmanager
async def aiohttp_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    runner = web.AppRunner(make_app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_aiohttp(loop: Loop) -> None:
    async with aiohttp_server() as url, aiohttp.ClientSession(url) as session:
        async with session.get("/hello/world?a=b") as response:
            assert response.status == 200
            assert await response.json() == {"hello": "world", "query": {"a": "b"}}
        async with session.post("/digest", data=io.BytesIO(BIG)) as response:
            assert await response.text() == hashlib.sha1(BIG).hexdigest()
        async with session.get("/big") as response:
            assert await response.read() == BIG
        async with session.get("/fail") as response:
            assert (response.status, await response.text()) == (409, "no")
        async with session.get(f"/files/{Path(__file__).name}") as response:
            assert await response.read() == Path(__file__).read_bytes()


async def test_many_aiohttp_requests_at_once(loop: Loop) -> None:
    async def get(session: aiohttp.ClientSession, number: int) -> None:
        async with session.get(f"/hello/{number}") as response:
            assert (await response.json())["hello"] == str(number)

    async with aiohttp_server() as url, aiohttp.ClientSession(url) as session:
        await asyncio.gather(*(get(session, number) for number in range(300)))


async def test_aiohttp_websockets(loop: Loop) -> None:
    async with aiohttp_server() as url, aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{url}/websocket") as socket:
            for text in "hello", "x" * 100_000:
                await socket.send_str(text)
                assert await socket.receive_str() == text.upper()


async def test_aiohttp_over_tls(loop: Loop, contexts: Contexts) -> None:
    connector = aiohttp.TCPConnector(ssl=contexts.client)
    async with (
        aiohttp_server(contexts.server) as url,
        aiohttp.ClientSession(url, connector=connector) as session,
    ):
        async with session.post("/digest", data=io.BytesIO(BIG)) as response:
            assert await response.text() == hashlib.sha1(BIG).hexdigest()
        async with session.get("/big") as response:
            assert await response.read() == BIG


async def test_httpx_through_anyio(loop: Loop) -> None:
    async with aiohttp_server() as url, httpx.AsyncClient(base_url=url, timeout=TIMEOUT) as client:
        answers = await asyncio.gather(*(client.get(f"/hello/{number}") for number in range(20)))
        assert [answer.json()["hello"] for answer in answers] == [
            str(number) for number in range(20)
        ]
        assert (await client.post("/digest", content=BIG)).text == hashlib.sha1(BIG).hexdigest()
        async with client.stream("GET", "/big") as response:
            assert b"".join([chunk async for chunk in response.aiter_bytes()]) == BIG


def test_anyio(loop_module: ModuleType) -> None:
    async def main() -> bytes:
        async def serve(stream: Any) -> None:
            async with stream:
                async for data in stream:
                    await stream.send(data)

        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(b"hello")
                answer = await stream.receive()
            assert await anyio.to_thread.run_sync(sum, [1, 2]) == 3
            assert (
                await anyio.run_process([sys.executable, "-c", "print('child')"])
            ).stdout == b"child\n"
            with anyio.move_on_after(0.001):
                await anyio.sleep_forever()
            group.cancel_scope.cancel()
        return answer

    options = {"loop_factory": loop_module.new_event_loop}
    assert anyio.run(main, backend_options=options) == b"hello"


async def test_websockets(loop: Loop) -> None:
    async def serve(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    async with websockets.serve(serve, "127.0.0.1", 0, max_size=None, **PATIENT) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with websockets.connect(url, max_size=None, proxy=None, **PATIENT) as connection:
            for message in "text", b"bytes", BIG:
                await connection.send(message)
                assert await connection.recv() == message
            await (await connection.ping())
        async with websockets.connect(url, proxy=None, **PATIENT) as connection:
            await connection.close(code=1001)
            assert connection.close_code == 1001


UVICORN_APP = """
import asyncio, hashlib

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
        return
    digest, more = hashlib.sha1(), True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    loop = type(asyncio.get_running_loop()).__module__.split(".")[0]
    body = f"{loop} {scope['method']} {scope['path']} {digest.hexdigest()}".encode()
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


def url_of(server: Any) -> str:
    return printed(server, r"http://127\.0\.0\.1:\d+").group()


@pytest.mark.parametrize("implementation", ["h11", "httptools"])
def test_uvicorn(loop_module: ModuleType, tmp_path: Path, implementation: str) -> None:
    (tmp_path / "app.py").write_text(UVICORN_APP)
    name = loop_module.__name__
    options = [
        "--port",
        "0",
        "--http",
        implementation,
        "--loop",
        f"{name}:new_event_loop",
        "--lifespan",
        "on",
        "--timeout-keep-alive",
        str(TIMEOUT),
    ]
    with python("-m", "uvicorn", "app:app", *options, cwd=str(tmp_path)) as server:
        url = url_of(server)

        async def requests() -> None:
            empty = hashlib.sha1().hexdigest()
            async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT) as client:
                answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(50)))
                assert [answer.text for answer in answers] == [
                    f"{name} GET /{number} {empty}" for number in range(50)
                ]
                answer = await client.post("/upload", content=BIG)
                assert answer.text == f"{name} POST /upload {hashlib.sha1(BIG).hexdigest()}"
            async with websockets.connect(
                url.replace("http", "ws"), proxy=None, **PATIENT
            ) as connection:
                for text in "hello", "x" * 100_000:
                    await connection.send(text)
                    assert await connection.recv() == text.upper()

        loop = loop_module.new_event_loop()
        loop.run_until_complete(within(requests()))
        finish(loop)
        server.send_signal(signal.SIGTERM)
        assert "Application shutdown complete" in ended(server, status=None)
    assert server.returncode in (0, -signal.SIGTERM)


def test_python_m_casync_runs_uvicorn(casync: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(UVICORN_APP)
    command = ["-m", "casync", "-m", "uvicorn", "app:app", "--port", "0", "--loop", "none"]
    with python(*command, cwd=str(tmp_path)) as server:
        assert httpx.get(url_of(server) + "/path", timeout=TIMEOUT).text.startswith(
            "casync GET /path"
        )
        server.send_signal(signal.SIGINT)
        ended(server, status=None)


@pytest.mark.parametrize(
    "command, loop",
    [(["-m", "casync"], "None"), ([], "casync.new_event_loop()")],
    ids=["python -m casync", "run_app(loop=)"],
)
def test_an_aiohttp_application(
    casync: ModuleType, tmp_path: Path, command: list[str], loop: str
) -> None:
    script = tmp_path / "app.py"
    script.write_text(
        """
import asyncio, casync, socket
from aiohttp import web

async def which(request):
    return web.json_response({"loop": type(asyncio.get_running_loop()).__module__.split(".")[0]})

app = web.Application()
app.router.add_get("/", which)
listener = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
web.run_app(app, loop={loop}, sock=listener, print=None)
""".replace("{loop}", loop)
    )
    with python(*command, str(script)) as server:
        answer = httpx.get(url_of(server) + "/", timeout=TIMEOUT)
        assert answer.json() == {"loop": "casync"}
        server.send_signal(signal.SIGINT)
        ended(server, status=None)
