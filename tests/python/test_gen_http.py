"""casync.gen.http: the client, the server, and each with others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from casync import gen
from casync.gen.gensocket import GenSocket
from casync.gen.http import ClientRequest, ClientResponse, Headers, HTTPError, MultiDict, Server
from casync.gen.http.server import Request, Response
from gen_support import Steps, by_yield
from support import Contexts, Loop, ended, python, start_script

GET = b"GET / HTTP/1.1\r\nHost: test\r\n"

BIG = 50_000_000  # more than the kernel takes of what a peer does not read


def make_app(**options: Any) -> Server:
    app = Server(**options)

    @app.router.get("/")
    @app.router.post("/")
    def echo(request: Request) -> Steps:
        body = yield from request.read()
        return Response(status=200, body=body, content_type=request.content_type)

    return app


class Served:
    """A server that is started in `with`, and closed after it."""

    def __init__(self, app: Server | None = None, **options: Any) -> None:
        self.app = app or make_app()
        self.options = options

    def begin(self) -> Steps:
        yield from self.app.start("127.0.0.1", 0, **self.options)
        self.address = self.app.sockets[0].getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        return self

    def end(self) -> Steps:
        self.app.close()
        yield from self.app.wait_closed()

    def connect(self) -> Steps:
        sock = GenSocket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            yield from sock.connect(self.address)
        except BaseException:
            sock.close()
            raise
        return sock

    def raw(self, *parts: bytes) -> Steps:
        """Sends that and gives what comes until the server ends the connection."""
        sock = yield from self.connect()
        with sock:
            for part in parts:
                sock.send(part)
            return (yield from receive_all(sock))

    def request(self, path: str, method: str = "GET", **options: Any) -> Steps:
        return ClientRequest(self.url + path, method, **options).send()


def serving(app: Server | None = None, **options: Any) -> Steps:
    return (yield from Served(app, **options).begin())


def receive_all(sock: GenSocket) -> Steps:
    data = bytearray()
    while chunk := (yield from sock.recv(1 << 16)):
        data += chunk
    return bytes(data)


def receive_until(sock: GenSocket, end: bytes) -> Steps:
    data = bytearray()
    while not data.endswith(end):
        chunk = yield from sock.recv(1 << 16)
        assert chunk, f"end of stream after {bytes(data)!r}"
        data += chunk
    return bytes(data)


def received_until_the_end(sock: GenSocket) -> Steps:
    """How much comes until the peer closes the connection, in whatever way."""
    size = 0
    with contextlib.suppress(ConnectionResetError):
        while chunk := (yield from sock.recv(1 << 16)):
            size += len(chunk)
    return size


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer.split()[1])


# -- requests and responses --


@by_yield
def test_an_echo_server_and_its_client(loop: Loop) -> Steps:
    served = yield from serving()
    request = ClientRequest(f"{served.url}/", "GET", json={"one": "two"})
    response = yield from request.send()
    assert response.status == 200 and response.reason == "OK"
    assert response.body == b'{"one": "two"}' and response.json() == {"one": "two"}
    assert response.content_type == response.headers["content-type"] == "application/json"
    assert "200 OK" in str(response) and "application/json" in str(response)
    assert served.url in str(request)
    yield from served.end()


@by_yield
def test_bodies(loop: Loop) -> Steps:
    served = yield from serving()
    for data, body, kind in (
        (b"bytes\0", b"bytes\0", "application/octet-stream"),
        ("täxt", "täxt".encode(), "text/plain; charset=utf-8"),
        ({"form": "a&b"}, b"form=a%26b", "application/x-www-form-urlencoded"),
        ((b"in ", b"", b"chunks"), b"in chunks", "application/octet-stream"),
        (None, b"", "application/octet-stream"),
    ):
        response = yield from served.request("/", "POST", data=data)
        assert (response.body, response.content_type) == (body, kind)
    response = yield from served.request(
        "/",
        data="täxt".encode("latin-1"),
        headers={"content-type": "text/plain; charset=iso-8859-1"},
    )
    assert response.text == "täxt"
    with pytest.raises(ValueError):
        response.json()
    yield from served.end()


@by_yield
def test_what_a_handler_knows_of_a_request(loop: Loop) -> Steps:
    app = Server()

    @app.router.put("/users/{name}/posts/{number}")
    def handler(request: Request) -> Steps:
        seen.append(request)
        return Response(201, json=(yield from request.json()), headers={"X-Seen": "yes"})

    seen: list[Request] = []
    served = yield from serving(app)
    response = yield from served.request(
        "/users/J%C3%B6rg%2FM/posts/7?a=1&b=%26&a=2&empty=",
        "PUT",
        json=[1, None],
        headers=[("X-One", "1"), ("X-One", "2")],
    )
    assert (
        response.status == 201
        and response.json() == [1, None]
        and response.headers["x-seen"] == "yes"
    )
    request = seen[0]
    assert request.method == "PUT" and request.path == "/users/Jörg/M/posts/7"
    assert request.path_params == {"name": "Jörg/M", "number": "7"}
    assert dict(request.query) == {"a": "1", "b": "&", "empty": ""}
    assert request.query.get_all("a") == ["1", "2"]
    assert request.headers.get_all("x-one") == ["1", "2"]
    assert request.headers["host"] == served.url.partition("//")[2]
    assert request.content_type == "application/json" and "PUT" in repr(request)
    yield from served.end()


@by_yield
def test_routes(loop: Loop) -> Steps:
    app = Server()
    for method in "get", "post", "put", "patch", "delete":

        @getattr(app.router, method)("/all")
        def handler(request: Request) -> Steps:
            yield
            return Response(body=request.method)

    @app.router.get("/a/fixed")
    def fixed(request: Request) -> Response:
        return Response(body="fixed")

    @app.router.get("/a/{parameter}")
    async def parameter(request: Request) -> Response:
        await gen.sleep(0)
        return Response(body=request.path_params["parameter"])

    served = yield from serving(app)
    for method in "GET", "POST", "PUT", "PATCH", "DELETE":
        assert (yield from served.request("/all", method)).text == method
    for path, text in ("/a/fixed", "fixed"), ("/a/other", "other"), ("/a/%7Bx%7D", "{x}"):
        assert (yield from served.request(path)).text == text
    for path in "/", "/a", "/a/", "/a/b/c", "/all/", "//a/fixed":
        assert (yield from served.request(path)).status == 404
    response = yield from served.request("/all", "OPTIONS")
    assert response.status == 405 and response.headers["Allow"] == "GET, POST, PUT, PATCH, DELETE"
    response = yield from served.request("/a/fixed", "POST")
    assert response.status == 405 and response.headers["Allow"] == "GET"
    absolute = b"GET http://test/a/fixed HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    assert (yield from served.raw(absolute)).endswith(b"fixed")
    yield from served.end()


def test_routes_that_cannot_be() -> None:
    router = Server().router
    for path in "no-slash", "/{a}/{a}", "/a{b}", "/{not a name}", "/{":
        with pytest.raises(ValueError):
            router.get(path)


@by_yield
def test_head_has_gets_headers_and_no_body(loop: Loop) -> Steps:
    served = yield from serving()
    response = yield from served.request("/", "HEAD", data=b"12345")
    assert (
        response.status == 200
        and response.body == b""
        and response.headers["Content-Length"] == "5"
    )
    answer = yield from served.raw(b"HEAD / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n") and status_of(answer) == 200
    answer = yield from served.raw(
        b"HEAD / HTTP/1.1\r\nHost: test\r\nContent-Length: 9999999\r\n\r\n"
    )
    assert answer.endswith(b"\r\n\r\n") and status_of(answer) == 413
    yield from served.end()


@by_yield
def test_responses_without_a_body(loop: Loop) -> Steps:
    app = Server()

    @app.router.delete("/")
    def delete(request: Request) -> Response:
        return Response(204)

    served = yield from serving(app)
    response = yield from served.request("/", "DELETE")
    assert (
        response.status == 204 and response.body == b"" and "content-length" not in response.headers
    )
    with pytest.raises(ValueError, match="no body"):
        Response(204, "body")
    yield from served.end()


@by_yield
def test_what_has_no_body_does_not_shift_the_responses_after_it(loop: Loop) -> Steps:
    app = make_app()

    @app.router.get("/{status}")
    def bodiless(request: Request) -> Response:
        return Response(int(request.path_params["status"]), headers={"ETag": '"1"'})

    @app.router.get("/in/chunks")
    def chunks(request: Request) -> Response:
        return Response(body=(b"not sent", b"for HEAD"))

    served = yield from serving(app)
    heads = b"GET /204", b"GET /304", b"HEAD /304", b"HEAD /", b"HEAD /in/chunks", b"HEAD /no/such"
    last = GET + b"Content-Length: 4\r\nConnection: close\r\n\r\nlast"
    answer = yield from served.raw(
        *(b"%s HTTP/1.1\r\nHost: test\r\n\r\n" % head for head in heads), last
    )
    *bodiless_answers, end = answer.split(b"\r\n\r\n")
    assert [status_of(head) for head in bodiless_answers] == [204, 304, 304, 200, 200, 404, 200]
    assert end == b"last"
    yield from served.end()


@by_yield
def test_a_folded_header_is_one_value(loop: Loop) -> Steps:
    """RFC 9112, 5.2: what a proxy may take for a part of X must not be a Content-Length here."""
    served = yield from serving()
    answer = yield from served.raw(GET + b"X: a\r\n Content-Length: 9\r\nConnection: close\r\n\r\n")
    assert status_of(answer) == 200 and answer.endswith(b"\r\n\r\n")
    yield from served.end()


def test_headers_are_found_in_any_case_and_all() -> None:
    headers = Headers([("Set-Cookie", "a"), ("set-cookie", "b"), ("Other", "c")])
    assert headers["SET-COOKIE"] == "a" and headers.get_all("Set-Cookie") == ["a", "b"]
    assert "other" in headers and "missing" not in headers and headers.get("missing") is None
    assert dict(headers) == {"set-cookie": "a", "other": "c"} and len(headers) == 2
    assert MultiDict({"a": "1"}).get("A") is None
    assert Headers(headers).pairs() == headers.pairs()
    with pytest.raises(KeyError):
        headers["missing"]


# -- connections --


@by_yield
def test_connections_are_kept_and_requests_may_be_sent_ahead(loop: Loop) -> Steps:
    served = yield from serving()
    sock = yield from served.connect()
    with sock:
        post = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n"
        for body in b"one", b"two":
            sock.send(post + body)
            assert status_of((yield from receive_until(sock, b"\r\n\r\n" + body))) == 200
        sock.send(post + b"aaa" + post + b"bbb" + GET + b"Connection: close\r\n\r\n")
        answers = yield from receive_all(sock)
        assert answers.count(b"HTTP/1.1 200") == 3
        assert answers.index(b"aaa") < answers.index(b"bbb")
    answer = yield from served.raw(b"GET / HTTP/1.0\r\n\r\n")
    assert status_of(answer) == 200 and b"Connection: close" in answer
    yield from served.end()


@by_yield
def test_a_request_in_pieces(loop: Loop) -> Steps:
    served = yield from serving()
    sock = yield from served.connect()
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n12345":
            sock.send(bytes([byte]))
            yield from gen.sleep(1e-6)
        assert (yield from receive_until(sock, b"12345"))
    yield from served.end()


@by_yield
def test_chunked_bodies(loop: Loop) -> Steps:
    app = make_app()

    @app.router.get("/chunks")
    def chunks(request: Request) -> Response:
        return Response(body=(b"x" * size for size in (1, 0, 100_000)), content_type="text/x")

    served = yield from serving(app)
    answer = yield from served.raw(
        b"POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5;extension=1\r\nhello\r\n",
        b"6\r\n world\r\n0\r\nTrailer: x\r\n\r\n",
    )
    assert answer.endswith(b"\r\n\r\nhello world")
    response = yield from served.request("/chunks")
    assert response.headers["transfer-encoding"] == "chunked" and response.body == b"x" * 100_001
    answer = yield from served.raw(b"GET /chunks HTTP/1.0\r\n\r\n")
    assert b"chunked" not in answer and answer.endswith(b"\r\n\r\n" + b"x" * 100_001)
    yield from served.end()


@by_yield
def test_a_client_may_ask_before_it_sends_a_body(loop: Loop) -> Steps:
    served = yield from serving()
    sock = yield from served.connect()
    head = b"POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: "
    with sock:
        sock.send(head + b"5\r\n\r\n")
        assert status_of((yield from receive_until(sock, b"\r\n\r\n"))) == 100
        sock.send(b"hello")
        assert status_of((yield from receive_until(sock, b"hello"))) == 200
    assert status_of((yield from served.raw(head + b"999999999\r\n\r\n"))) == 413
    yield from served.end()


# -- what is refused --

MALFORMED = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "target": b"GET /a b HTTP/1.1\r\nHost: test\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "header": GET + b"no colon\r\n\r\n",
    "header name": GET + b"bad name: x\r\n\r\n",
    "header value": GET + b"X: \x00\r\n\r\n",
    "negative length": GET + b"Content-Length: -1\r\n\r\n",
    "no length": GET + b"Content-Length: many\r\n\r\n",
    "endless length": GET + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "length and chunks": GET
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + GET
    + b"\r\n",
    "absolute target": b"GET http://[/ HTTP/1.1\r\nHost: test\r\n\r\n",
    "two hosts": GET + b"Host: test\r\n\r\n",
    "space before colon": GET + b"Content-Length : 5\r\n\r\nabcde",
    "end of chunk": GET + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n" + GET + b"\r\n",
    "requests after it": GET + b"no colon\r\n\r\n" + GET + b"\r\n",
    "two lengths": GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "chunk": GET + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n",
}


@by_yield
def refused(loop: Loop, request: bytes) -> Steps:
    served = yield from serving()
    answer = yield from served.raw(request)
    assert status_of(answer) == 400 and b"Connection: close" in answer and b"malformed" in answer
    assert answer.count(b"HTTP/1.1 ") == 1, "what follows is not taken for a request"
    assert (yield from served.request("/")).status == 200, "others are served"
    yield from served.end()


@pytest.mark.parametrize("what", MALFORMED)
async def test_malformed_requests_get_400_and_a_closed_connection(loop: Loop, what: str) -> None:
    await refused(loop, MALFORMED[what])


@by_yield
def test_requests_that_end_early(loop: Loop) -> Steps:
    served = yield from serving()
    for request in b"GET / HT", GET + b"Content-Length: 5\r\n\r\nabc":
        sock = yield from served.connect()
        with sock:
            sock.send(request)
            sock.shutdown(socket.SHUT_WR)
            assert status_of((yield from receive_all(sock))) == 400
    sock = yield from served.connect()
    sock.close()
    assert (yield from served.request("/")).status == 200
    yield from served.end()


@by_yield
def test_headers_without_end_are_refused(loop: Loop) -> Steps:
    served = yield from serving()
    answer = yield from served.raw(GET, *[b"X-Long: %s\r\n" % (b"x" * 1000)] * 100)
    assert status_of(answer) == 431
    yield from served.end()


@by_yield
def test_other_versions_of_http_are_refused(loop: Loop) -> Steps:
    served = yield from serving()
    for version in b"2.0", b"0.9", b"9.9":
        answer = yield from served.raw(b"GET / HTTP/%s\r\nHost: test\r\n\r\n" % version)
        assert status_of(answer) == 505
    yield from served.end()


@by_yield
def test_bodies_that_are_too_large_get_413(loop: Loop) -> Steps:
    served = yield from serving(make_app(max_body_size=1000))
    response = yield from served.request("/", "POST", data=bytes(1000))
    assert response.status == 200 and len(response.body) == 1000
    for data in (
        bytes(1001),
        bytes(5_000_000),
        (bytes(100) for _ in range(11)),
        (bytes(10_000),) * 500,
    ):
        response = yield from served.request("/", "POST", data=data)
        assert response.status == 413 and "1000 bytes" in response.text
        assert response.headers["Connection"] == "close"
    yield from served.end()


@by_yield
def test_requests_that_do_not_come_get_408(loop: Loop) -> Steps:
    served = yield from serving(make_app(request_timeout=0.01))
    assert status_of((yield from served.raw(GET))) == 408
    assert status_of((yield from served.raw(GET + b"Content-Length: 5\r\n\r\nabc"))) == 408
    yield from served.end()


@by_yield
def test_connections_without_requests_are_closed(loop: Loop) -> Steps:
    served = yield from serving(make_app(keep_alive_timeout=0.01))
    assert (yield from served.raw()) == b""
    assert status_of((yield from served.raw(GET + b"\r\n"))) == 200
    yield from served.end()


# -- handlers that fail --


def failing_app() -> Server:
    app = make_app()

    @app.router.get("/raises")
    def raises(request: Request) -> Steps:
        yield
        raise LookupError("of the handler")

    @app.router.get("/none")
    def none(request: Request) -> Steps:
        yield

    @app.router.get("/header")
    def header(request: Request) -> Response:
        return Response(headers={"X": "a\r\nInjected: b"})

    @app.router.get("/status")
    def status(request: Request) -> Response:
        return Response(status=99)

    @app.router.get("/error")
    def error(request: Request) -> Steps:
        yield
        raise HTTPError(409, "because", headers={"X-Why": "it is so"})

    @app.router.get("/cancelled")
    def cancelled(request: Request) -> Steps:
        task = gen.create_task(gen.sleep(3600))
        task.cancel()
        yield from task

    @app.router.get("/body")
    def body(request: Request) -> Response:
        def chunks() -> Iterator[bytes]:
            yield b"begun"
            raise ConnectionError("of the body")

        return Response(body=chunks())

    @app.router.post("/json")
    def post(request: Request) -> Steps:
        return Response(json=(yield from request.json()))

    return app


@by_yield
def test_errors_of_handlers_are_logged_and_get_500(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> Steps:
    served = yield from serving(failing_app())
    for path, logged in (
        ("/raises", "of the handler"),
        ("/none", "must return a Response"),
        ("/header", "header"),
        ("/status", "status"),
    ):
        caplog.clear()
        answer = yield from served.raw(
            b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n" % path.encode(),
            GET + b"Connection: close\r\n\r\n",
        )
        assert status_of(answer) == 500 and logged.encode() not in answer, (
            "what failed is not the client's"
        )
        assert b"HTTP/1.1 200" in answer, "the connection goes on"
        (record,) = caplog.records
        assert record.name == "casync.gen.http" and record.levelno == logging.ERROR
        assert path in record.getMessage() and logged in caplog.text
    yield from served.end()


@by_yield
def test_a_handlers_cancellation_is_an_error_too(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> Steps:
    served = yield from serving(failing_app())
    assert (yield from served.request("/cancelled")).status == 500
    assert "/cancelled" in caplog.text
    yield from served.end()


@by_yield
def test_http_errors_are_answers(loop: Loop, caplog: pytest.LogCaptureFixture) -> Steps:
    served = yield from serving(failing_app())
    response = yield from served.request("/error")
    assert (response.status, response.text, response.headers["x-why"]) == (
        409,
        "because\n",
        "it is so",
    )
    for data in b"{", b"\xff", b"", b"[" * 100_000:
        response = yield from served.request("/json", "POST", data=data)
        assert response.status == 400 and "not JSON" in response.text
    assert not caplog.records
    yield from served.end()


@by_yield
def test_a_body_that_fails_does_not_look_complete(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> Steps:
    served = yield from serving(failing_app())
    with pytest.raises(ConnectionError, match="not a complete"):
        yield from served.request("/body")
    (record,) = caplog.records
    assert (
        record.levelno == logging.ERROR
        and "/body" in record.getMessage()
        and "of the body" in caplog.text
    )
    yield from served.end()


@by_yield
def test_a_request_cannot_forge_lines_of_the_log(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> Steps:
    app = Server()

    @app.router.get("/{name}")
    def fail(request: Request) -> Response:
        raise LookupError(repr(request))

    served = yield from serving(app)
    assert (yield from served.request("/a%0D%0Aforged")).status == 500
    (record,) = caplog.records
    assert "\n" not in record.getMessage() and "/a%0D%0Aforged" in record.getMessage()
    yield from served.end()


def test_what_a_response_cannot_be() -> None:
    bad_headers = {"Content-Length": "5"}
    for arguments in (
        {"body": 5},
        {"body": {"a": 1}},
        {"body": b"x", "json": 1},
        {"headers": bad_headers},
    ):
        with pytest.raises((TypeError, ValueError)):
            Response(**arguments)


@by_yield
def test_a_client_that_leaves_does_not_matter(loop: Loop) -> Steps:
    app = make_app()

    @app.router.get("/endless")
    def endless(request: Request) -> Response:
        def chunks() -> Iterator[bytes]:
            try:
                while True:
                    yield bytes(100_000)
            finally:
                left.set()

        return Response(body=chunks())

    left = gen.Event()
    served = yield from serving(app)
    sock = yield from served.connect()
    sock.send(b"GET /endless HTTP/1.1\r\nHost: test\r\n\r\n")
    assert (yield from sock.recv(100))
    sock.close()
    yield from left.wait()
    assert (yield from served.request("/")).status == 200
    yield from served.end()


# -- stopping --


def slow_app(**options: Any) -> tuple[Server, gen.Event, gen.Event]:
    app = make_app(**options)
    started, finish = gen.Event(), gen.Event()

    @app.router.get("/slow")
    def slow(request: Request) -> Steps:
        started.set()
        yield from finish.wait()
        return Response(body="finished")

    return app, started, finish


@by_yield
def test_close_finishes_requests_and_closes_idle_connections(loop: Loop) -> Steps:
    app, started, finish = slow_app()
    running = gen.create_task(app.run("127.0.0.1", 0))
    while not app.sockets:
        yield
    served = Served(app)
    served.address = app.sockets[0].getsockname()
    idle = yield from served.connect()
    idle.send(GET + b"\r\n")
    yield from receive_until(idle, b"\r\n\r\n")
    asking = gen.create_task(served.raw(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n"))
    yield from started.wait()
    app.close()
    assert (yield from receive_all(idle)) == b""
    idle.close()
    with pytest.raises(ConnectionRefusedError):
        yield from served.connect()
    assert not running.done()
    finish.set()
    answer = yield from asking
    assert answer.endswith(b"finished") and b"Connection: close" in answer
    yield from running
    assert app.sockets == ()


@by_yield
def test_requests_that_take_too_long_to_finish_are_cancelled(loop: Loop) -> Steps:
    app, started, _ = slow_app(shutdown_timeout=0.001)
    served = yield from serving(app)
    asking = gen.create_task(served.request("/slow"))
    yield from started.wait()
    yield from served.end()
    assert (yield from asking).status == 500


@by_yield
def test_a_client_that_does_not_read_is_not_waited_for_when_the_server_stops(loop: Loop) -> Steps:
    app = make_app(shutdown_timeout=0.001)

    @app.router.get("/big")
    def big(request: Request) -> Response:
        answering.set()
        return Response(body=bytes(BIG))

    answering = gen.Event()
    served = yield from serving(app)
    sock = yield from served.connect()
    with sock:
        sock.send(b"GET /big HTTP/1.1\r\nHost: test\r\n\r\n")
        yield from answering.wait()
        yield from served.end()
        assert (yield from received_until_the_end(sock)) < BIG


@by_yield
def test_cancelling_run_stops_gracefully(loop: Loop) -> Steps:
    app, started, finish = slow_app()
    running = gen.create_task(app.run("127.0.0.1", 0))
    while not app.sockets:
        yield
    url = f"http://127.0.0.1:{app.sockets[0].getsockname()[1]}/slow"
    asking = gen.create_task(ClientRequest(url).send())
    yield from started.wait()
    running.cancel()
    yield from gen.sleep(0.001)
    finish.set()
    assert (yield from asking).text == "finished"
    with pytest.raises(gen.GenCancelledError):
        yield from running


@by_yield
def test_a_server_can_be_started_again(loop: Loop) -> Steps:
    app = make_app()
    for _ in range(2):
        served = yield from serving(app)
        with pytest.raises(RuntimeError, match="started already"):
            yield from app.start()
        assert (yield from served.request("/")).status == 200
        yield from served.end()


@by_yield
def test_an_address_in_use(loop: Loop) -> Steps:
    served = yield from serving()
    with pytest.raises(OSError, match="in use"):
        yield from make_app().run("127.0.0.1", served.address[1])
    yield from served.end()


PROGRAM = """
import logging
from casync import gen
from casync.gen.http import Server
from casync.gen.http.server import Response
app = Server()
@app.router.get("/")
def index(request):
    print("working", flush=True)
    yield from gen.sleep(0.1)
    return Response(body="finished")
def main():
    yield from app.run(host="127.0.0.1", port=0)
    print("stopped", flush=True)
logging.basicConfig(level=logging.INFO, format="%(message)s")
gen.run(main())
"""


# Before 3.11 asyncio.run, and so casync's, cancels all tasks at once when SIGINT comes.
STOPPING_SIGNALS = [signal.SIGTERM, *([signal.SIGINT] if sys.version_info >= (3, 11) else [])]


@pytest.mark.parametrize("number", STOPPING_SIGNALS)
def test_signals_stop_the_program_gracefully(casync: Any, number: signal.Signals) -> None:
    program = start_script(casync, PROGRAM)
    line = next(line for line in program.stdout if "listening on" in line)
    address = ("127.0.0.1", int(line.split()[-1].strip("()")))
    with socket.create_connection(address, timeout=60) as sock:
        sock.sendall(GET + b"\r\n")
        assert "working\n" in program.stdout
        program.send_signal(number)
        answer = b""
        while chunk := sock.recv(1000):
            answer += chunk
    assert answer.endswith(b"finished")
    output = ended(program, status=0 if number == signal.SIGTERM else None)
    assert "stopped" in output if number == signal.SIGTERM else "KeyboardInterrupt" in output


# -- the client alone --


def scripted(answer: bytes, hold: gen.Event | None = None) -> Steps:
    """A server that gives one answer, whatever it is asked; gives its URL and its task."""
    sock = GenSocket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    sock.listen()

    def serve() -> Steps:
        with sock:
            peer, _ = yield from sock.accept()
            with peer:
                request = yield from receive_until(peer, b"\r\n\r\n")
                yield from peer.sendall(answer)
                if hold:
                    yield from hold.wait()
                return request

    yield
    return f"http://127.0.0.1:{sock.getsockname()[1]}/a b?q=ä#part", gen.create_task(serve())


@by_yield
def test_what_the_client_sends(loop: Loop) -> Steps:
    url, serving = yield from scripted(b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok")
    response = yield from ClientRequest(url, headers={"user-agent": "test", "X-Other": "1"}).send()
    assert (response.status, response.reason, response.body) == (200, "Fine", b"ok")
    head = (yield from serving).decode().lower().splitlines()
    assert head[0] == "get /a%20b?q=%c3%a4 http/1.1"
    assert "user-agent: test" in head and "x-other: 1" in head and "connection: close" in head
    assert sum(line.startswith("user-agent:") for line in head) == 1
    assert not any(line.startswith(("content-", "transfer-")) for line in head)


@by_yield
def test_answers_of_all_kinds(loop: Loop) -> Steps:
    for answer, status, body in (
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", 404, b""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            200,
            b"abc",
        ),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n", 302, b""),
    ):
        url, serving = yield from scripted(answer)
        response: ClientResponse = yield from ClientRequest(url).send()
        assert (response.status, response.body) == (status, body)
        yield from serving


@by_yield
def test_answers_that_are_none(loop: Loop) -> Steps:
    for answer in (
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ):
        url, serving = yield from scripted(answer)
        with pytest.raises(ConnectionError):
            yield from ClientRequest(url).send()
        yield from serving


@by_yield
def test_the_clients_timeout(loop: Loop) -> Steps:
    for answer in b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc":
        hold = gen.Event()
        url, serving = yield from scripted(answer, hold)
        with pytest.raises(asyncio.TimeoutError):
            yield from ClientRequest(url, timeout=0.05).send()
        hold.set()
        yield from gen.gather(serving, return_exceptions=True)


@by_yield
def test_a_request_that_is_given_up_is_not_sent_to_its_end(loop: Loop) -> Steps:
    with GenSocket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/"
        with pytest.raises(asyncio.TimeoutError):
            yield from ClientRequest(url, "POST", data=bytes(BIG), timeout=0.05).send()
        peer, _ = yield from sock.accept()
        with peer:
            assert (yield from received_until_the_end(peer)) < BIG


@by_yield
def test_what_a_body_raises_is_raised_by_send(loop: Loop) -> Steps:
    def body() -> Iterator[bytes]:
        yield b"begun"
        raise error

    served = yield from serving()
    for error in LookupError("of the body"), ConnectionError("of the body"):
        with pytest.raises(type(error), match="of the body"):
            yield from served.request("/", "POST", data=body(), timeout=60)
    yield from served.end()


@by_yield
def test_headers_beyond_ascii_are_iso_8859_1(loop: Loop) -> Steps:
    served = yield from serving()
    response = yield from served.request("/", data=b"x", headers={"Content-Type": "text/ü"})
    assert response.status == 200 and response.content_type == "text/ü"
    yield from served.end()


@by_yield
def test_a_server_that_is_not_there(loop: Loop) -> Steps:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(ConnectionError):
        yield from ClientRequest(f"http://127.0.0.1:{port}/", timeout=60).send()


def test_requests_that_cannot_be_sent() -> None:
    for url in "localhost:8080/", "/path", "ftp://host/", "http://", "http://user:password@host/":
        with pytest.raises(ValueError):
            ClientRequest(url, "GET")
    for options in (
        {"method": "BAD METHOD"},
        {"headers": {"X": "a\r\nb"}},
        {"headers": {"X\r\nY": "a"}},
        {"headers": {"X": "\u20ac"}},
        {"method": "GET / HTTP/1.1\r\nX:"},
        {"headers": {"content-length": "5"}},
        {"json": 1, "data": b"x"},
    ):
        with pytest.raises(ValueError):
            ClientRequest("http://host/", **options)
    for options in {"data": 5}, {"json": object()}:
        with pytest.raises(TypeError):
            ClientRequest("http://host/", **options)


# -- with others --


@by_yield
def test_many_requests_at_once(loop: Loop) -> Steps:
    served = yield from serving()
    responses = yield from gen.gather(*(served.request("/", json=number) for number in range(100)))
    assert [response.json() for response in responses] == list(range(100))
    yield from served.end()


@by_yield
def test_https(loop: Loop, contexts: Contexts) -> Steps:
    served = yield from serving(ssl=contexts.server)
    url = f"https://localhost:{served.address[1]}/"
    response = yield from ClientRequest(
        url, "POST", data=bytes(500_000), ssl=contexts.client
    ).send()
    assert response.status == 200 and response.body == bytes(500_000)
    loop.set_exception_handler(
        lambda *_: None
    )  # in debug mode asyncio reports the server's side of this
    with pytest.raises(ssl.SSLError):
        yield from ClientRequest(url).send()
    yield from served.end()


@by_yield
def test_another_client(loop: Loop) -> Steps:
    def fetch(data: bytes) -> Any:
        with urllib.request.urlopen(f"{served.url}/", data, timeout=60) as response:
            return response.status, response.read()

    served = yield from serving()
    assert (yield from loop.run_in_executor(None, fetch, b"data")) == (200, b"data")
    yield from served.end()


@by_yield
def test_another_server(loop: Loop) -> Steps:
    web = pytest.importorskip("aiohttp.web")

    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"got": await request.json()})

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = yield from gen.create_task(start())
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    response = yield from ClientRequest(url, "POST", json=[1, 2]).send()
    assert response.json() == {"got": [1, 2]}
    yield from gen.create_task(runner.cleanup())


async def test_client_and_server_in_coroutines(loop: Loop) -> None:
    app = make_app()
    await app.start("127.0.0.1", 0)
    response = await ClientRequest(
        f"http://127.0.0.1:{app.sockets[0].getsockname()[1]}/", json=1
    ).send()
    assert response.json() == 1
    app.close()
    await app.wait_closed()


def test_without_h11_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['h11'] = None; import casync.gen; import casync.gen.http"
    assert "casync[gen]" in ended(python("-c", code), status=1)
