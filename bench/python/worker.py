"""A loop under measurement: `python worker.py asyncio|uvloop|rloop|casync`.

Reads lines "row n" from stdin and answers each with a line of JSON: "ops" done, the nanoseconds
("time") they took together, and a "check" that must be the same for every loop. The rows of SERVERS
answer with the port and serve until the process is ended.
"""

import asyncio
import gc
import importlib
import json
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

Loop = asyncio.AbstractEventLoop
Result = dict[str, int]
Batch = Callable[[], int]  # does the operations, and returns the check

BACKLOG = 4096
KEEP_ALIVE = 3600  # seconds: connections outlive the turns of the other loops
CERTIFICATE = Path(__file__).resolve().parents[1] / ".cache" / "certificate"


def timed(ops: int, batch: Batch) -> Result:
    """Time one batch of `ops` operations; batch() returns the check.

    CPU time, since batches never sleep: other processes do not count in it.
    """
    gc.collect()
    start = time.thread_time_ns()
    check = batch()
    return {"ops": ops, "time": time.thread_time_ns() - start, "check": check}


def call_soon(loop: Loop, n: int) -> Result:
    seen: list[int] = []

    def batch() -> int:
        seen.clear()
        for i in range(n):
            loop.call_soon(seen.append, i)
        loop.call_soon(loop.stop)
        loop.run_forever()
        return sum(seen)

    return timed(n, batch)


def call_soon_chained(loop: Loop, n: int) -> Result:
    left = 0

    def step() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            loop.stop()

    def batch() -> int:
        nonlocal left
        left = n
        loop.call_soon(step)
        loop.run_forever()
        return n - left

    return timed(n, batch)


def task_switch(loop: Loop, n: int) -> Result:
    return timed(n, task_switch_batch(loop, n))


def task_switch_batch(loop: Loop, n: int) -> Batch:
    async def switch() -> int:
        done = 0
        for _ in range(n):
            await asyncio.sleep(0)
            done += 1
        return done

    return lambda: loop.run_until_complete(switch())


def call_later_cancel(loop: Loop, n: int) -> Result:
    fired: list[int] = []

    async def start_and_cancel() -> int:
        for i in range(n):
            loop.call_later(60, fired.append, i).cancel()
        await asyncio.sleep(0)  # loops may clean up in their next turn
        return n - len(fired)

    return timed(n, lambda: loop.run_until_complete(start_and_cancel()))


def gather(loop: Loop, n: int) -> Result:
    async def child(i: int) -> int:
        return i

    async def parent() -> int:
        return sum(await asyncio.gather(*(child(i) for i in range(n))))

    return timed(n, lambda: loop.run_until_complete(parent()))


def call_soon_threadsafe(loop: Loop, n: int) -> Result:
    """Called from the loop's own thread: from another, the GIL's switches are all one would
    measure.
    """
    seen: list[int] = []

    async def post() -> int:
        seen.clear()
        last: asyncio.Future[None] = loop.create_future()
        for i in range(n):
            loop.call_soon_threadsafe(seen.append, i)
        loop.call_soon_threadsafe(last.set_result, None)
        await last
        return sum(seen)

    return timed(n, lambda: loop.run_until_complete(post()))


def loop_creation(loop: Loop, n: int) -> Result:
    make = type(loop)

    def batch() -> int:
        for _ in range(n):
            make().close()
        return n

    return timed(n, batch)


def import_package(loop: Loop, n: int) -> Result:
    """The CPU time of programs that do nothing else, the start of the interpreter included."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    start = used()
    for _ in range(n):
        subprocess.run([sys.executable, "-c", f"import {sys.argv[1]}"], check=True)
    return {"ops": n, "time": int((used() - start) * 1e9), "check": n}


class EchoProtocol(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


class EchoClient(asyncio.Protocol):
    """Sends a message whenever the one before is back, `count` times."""

    def __init__(self, size: int, count: int, done: asyncio.Future[int]) -> None:
        self.message = b"x" * size
        self.missing = size
        self.count = count
        self.verified = 0
        self.done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.message)

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing:
            return
        self.verified += self.message.endswith(data)
        self.missing = len(self.message)
        if self.verified < self.count:
            self.transport.write(self.message)
        else:
            self.transport.close()
            self.done.set_result(self.verified)


def echo_in_process(loop: Loop, n: int) -> Result:
    """Both ends on one loop, over TCP: n round trips of 1 KiB."""

    async def exchange() -> int:
        server = await loop.create_server(EchoProtocol, "127.0.0.1", 0)
        done: asyncio.Future[int] = loop.create_future()
        address = server.sockets[0].getsockname()
        await loop.create_connection(lambda: EchoClient(1024, n, done), *address)
        verified = await done
        server.close()
        await server.wait_closed()
        return verified

    return timed(n, lambda: loop.run_until_complete(exchange()))


async def echo_connection(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with sock:
        while data := await loop.sock_recv(sock, 65536):
            await loop.sock_sendall(sock, data)


def sock_echo_in_process(loop: Loop, n: int) -> Result:
    """The same by sock_*."""

    async def exchange() -> int:
        message, verified = b"x" * 1024, 0
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
            for one in listener, sock:
                one.setblocking(False)
            await loop.sock_connect(sock, listener.getsockname())
            accepted, _ = await loop.sock_accept(listener)
            for one in accepted, sock:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = loop.create_task(echo_connection(accepted))
            for _ in range(n):
                await loop.sock_sendall(sock, message)
                data = await loop.sock_recv(sock, 65536)
                while len(data) < len(message):
                    data += await loop.sock_recv(sock, 65536)
                verified += data == message
        await server
        return verified

    return timed(n, lambda: loop.run_until_complete(exchange()))


def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE / "server.pem", CERTIFICATE / "server.key")
    return context


async def echo_protocol(sock: socket.socket, **options: Any) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(EchoProtocol, sock=sock, backlog=BACKLOG, **options)


async def echo_streams(sock: socket.socket, **options: Any) -> None:
    await asyncio.start_server(echo_stream, sock=sock, backlog=BACKLOG, **options)


async def echo_sock(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    connections: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        while True:
            accepted, _ = await loop.sock_accept(sock)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connections.add(loop.create_task(echo_connection(accepted)))

    sock.setblocking(False)
    sock.listen(BACKLOG)
    connections.add(loop.create_task(accept()))


async def tls_echo_protocol(sock: socket.socket) -> None:
    await echo_protocol(sock, ssl=server_context())


async def tls_echo_streams(sock: socket.socket) -> None:
    await echo_streams(sock, ssl=server_context())


async def aiohttp(sock: socket.socket) -> None:
    """Answers a request with its path, as uvicorn() does."""
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=request.match_info["name"])

    application = web.Application()
    application.router.add_get("/{name}", answer)
    runner = web.AppRunner(application, access_log=None, keepalive_timeout=KEEP_ALIVE)
    await runner.setup()
    await web.SockSite(runner, sock, backlog=BACKLOG).start()


async def uvicorn(sock: socket.socket) -> None:
    from uvicorn import Config, Server

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body = scope["path"][1:].encode()
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    options: dict[str, Any] = {
        "http": "httptools",
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
    }
    config = Config(application, log_config=None, timeout_keep_alive=KEEP_ALIVE, **options)
    server = Server(config)
    asyncio.get_running_loop().create_task(server.serve(sockets=[sock]))
    while not server.started:
        await asyncio.sleep(0.01)


def serve(loop: Loop, start: Callable[[socket.socket], Awaitable[None]]) -> None:
    """Serves as many connections as the system lets it have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # asyncio sets TCP_NODELAY only where the protocol is named.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    loop.run_until_complete(start(sock))
    print(json.dumps({"port": port}), flush=True)
    loop.run_forever()


SERVERS: dict[str, Callable[[socket.socket], Awaitable[None]]] = {
    server.__name__: server
    for server in (
        echo_protocol,
        echo_streams,
        echo_sock,
        tls_echo_protocol,
        tls_echo_streams,
        aiohttp,
        uvicorn,
    )
}

ROWS: dict[str, Callable[[Loop, int], Result]] = {
    row.__name__: row
    for row in (
        call_soon,
        call_soon_chained,
        task_switch,
        call_later_cancel,
        gather,
        call_soon_threadsafe,
        loop_creation,
        import_package,
        echo_in_process,
        sock_echo_in_process,
    )
}


def main() -> None:
    loop: Loop = importlib.import_module(sys.argv[1]).new_event_loop()
    asyncio.set_event_loop(loop)
    for line in sys.stdin:
        row, n = line.split()
        if row in ROWS:
            print(json.dumps(ROWS[row](loop, int(n))), flush=True)
        else:
            serve(loop, SERVERS[row])


if __name__ == "__main__":
    main()
