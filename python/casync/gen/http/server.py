"""The HTTP server routes requests to generator functions, and runs a task for each connection."""

from __future__ import annotations

import asyncio
import contextlib
import http
import inspect
import json
import logging
import signal
import ssl as tls
import threading
import types
from collections.abc import Callable, Generator
from email.utils import formatdate
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from ..sync import Event
from ..task import GenCancelledError, create_task, wait_for
from .message import (
    READ_SIZE,
    BodyError,
    Headers,
    MultiDict,
    Pairs,
    encode,
    next_event,
    send,
    write,
)

_logger = logging.getLogger("casync.gen.http")

Handler = Callable[["Request"], Any]
H = TypeVar("H", bound=Handler)

_WITHOUT_BODY = (204, 304)  # RFC 9110, 6.4.1

_CLIENT_GONE = (ConnectionError, TimeoutError, tls.SSLError)  # TimeoutError: the kernel's ETIMEDOUT

LINGER = 2.0  # seconds in which a client that is refused can read why


class Response:
    """A handler returns a Response.

    The body is bytes, text or an iterable of bytes, or `json`, a value that is encoded as JSON. The
    server sends an iterable in chunks, and then calls its close() if it has one, as a generator
    has. Without a `content_type`, the body decides it.
    """

    def __init__(
        self,
        status: int = 200,
        body: Any = b"",
        content_type: str | None = None,
        headers: Pairs = (),
        *,
        json: Any = None,
    ) -> None:
        self.status = status
        self.body, suggested = encode(body, json)
        self.content_type = content_type or suggested or "application/octet-stream"
        self.headers = Headers(headers)
        for name in ("Connection", "Content-Length", "Content-Type", "Transfer-Encoding"):
            if name in self.headers:
                raise ValueError(
                    f"the header {name} follows from the other arguments; leave it out"
                )
        if self.body and status in _WITHOUT_BODY:
            raise ValueError(f"a response of status {status} has no body")

    def _head(self, close: bool) -> h11.Response:
        """Returns the head for h11. Raises h11.LocalProtocolError or UnicodeEncodeError if a header
        is not allowed.
        """
        headers = [("Date", formatdate(usegmt=True)), *self.headers.pairs()]
        if self.status not in _WITHOUT_BODY:
            headers.append(("Content-Type", self.content_type))
            if isinstance(self.body, bytes):
                headers.append(("Content-Length", str(len(self.body))))
        if close:
            headers.append(("Connection", "close"))
        encoded = Headers(headers).encoded()
        return h11.Response(status_code=self.status, headers=encoded, reason=_phrase(self.status))

    def __repr__(self) -> str:
        return f"<Response {self.status} {_phrase(self.status)}>"


class HTTPError(Exception):
    """If a handler raises this error, the client gets its status, and its reason as the text."""

    def __init__(self, status: int, reason: str = "", headers: Pairs = ()) -> None:
        super().__init__(status, reason or _phrase(status))
        self.status = status
        self.reason = reason or _phrase(status)
        self.headers = headers

    def _response(self) -> Response:
        body = b"" if self.status in _WITHOUT_BODY else f"{self.reason}\n"
        return Response(self.status, body, headers=self.headers)


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


class Request:
    """The server calls a handler with a Request."""

    def __init__(self, event: h11.Request) -> None:
        """Raises HTTPError 400."""
        target = event.target.decode("ascii")
        if not target.startswith("/"):  # as proxies get it: http://host/path (RFC 9112, 3.2.2)
            try:
                parts = urlsplit(target)
            except ValueError as error:
                raise HTTPError(400, f"malformed request: {error}") from error
            target = (parts.path or "/") + ("?" if parts.query else "") + parts.query
        self._path, _, query = target.partition("?")
        self.method = event.method.decode("ascii")
        self.headers = Headers.received(event)
        self.query = MultiDict(parse_qsl(query, keep_blank_values=True))
        self.path_params: dict[str, str] = {}
        self._body = b""

    @property
    def path(self) -> str:
        """The decoded path of the URL."""
        return unquote(self._path)

    @property
    def content_type(self) -> str | None:
        """The value of the header Content-Type, or None."""
        return self.headers.get("Content-Type")

    @types.coroutine
    def read(self) -> Generator[Any, Any, bytes]:
        """Returns the body, or b"" if the request has none."""
        return self._body
        yield

    @types.coroutine
    def json(self) -> Generator[Any, Any, Any]:
        """Returns the value of the body, which is JSON. Raises HTTPError 400 if it is not."""
        try:
            return json.loads((yield from self.read()))
        except (ValueError, RecursionError) as error:  # the latter for what is nested too deep
            raise HTTPError(400, f"the body is not JSON: {error}") from error

    def __repr__(self) -> str:
        return f"<Request {self.method} {self._path}>"


class Router:
    """A Router finds the handler of a request.

        @router.get("/users/{name}")
        def user(request):
            return Response(body=request.path_params["name"])
            yield

    `{name}` stands for one segment of a path, which must not be empty. The router tries routes in
    the order in which they were added. A handler of GET answers HEAD too. A handler is a generator
    function, or another function that returns a Response or an awaitable object.
    """

    def __init__(self) -> None:
        self._routes: list[tuple[str, list[str], Handler]] = []

    def get(self, path: str) -> Callable[[H], H]:
        return self.route("GET", path)

    def post(self, path: str) -> Callable[[H], H]:
        return self.route("POST", path)

    def put(self, path: str) -> Callable[[H], H]:
        return self.route("PUT", path)

    def patch(self, path: str) -> Callable[[H], H]:
        return self.route("PATCH", path)

    def delete(self, path: str) -> Callable[[H], H]:
        return self.route("DELETE", path)

    def route(self, method: str, path: str) -> Callable[[H], H]:
        """Returns a decorator that adds a handler. Raises ValueError if `path` does not begin with
        a slash, or names a parameter twice.
        """
        if not path.startswith("/"):
            raise ValueError(f"a path begins with a slash: {path!r}")
        pattern = path.split("/")
        names = [part[1:-1] for part in pattern if _is_parameter(part)]
        if len(set(names)) < len(names):
            raise ValueError(f"a parameter comes twice: {path!r}")
        if not all(_is_parameter(part) or not set("{}") & set(part) for part in pattern):
            raise ValueError(f"a parameter is a whole segment, as in /users/{{name}}: {path!r}")

        def add(handler: H) -> H:
            self._routes.append((method, pattern, handler))
            return handler

        return add

    def _find(self, request: Request) -> Handler:
        """Finds a request's handler, and sets its path_params. Raises HTTPError 404 or 405."""
        segments = [unquote(segment) for segment in request._path.split("/")]
        allowed: list[str] = []
        for method, pattern, handler in self._routes:
            if not _matches(pattern, segments):
                continue
            if request.method in ([method, "HEAD"] if method == "GET" else [method]):
                request.path_params = {
                    part[1:-1]: segment
                    for part, segment in zip(pattern, segments, strict=True)
                    if _is_parameter(part)
                }
                return handler
            allowed.append(method)
        if allowed:
            raise HTTPError(405, headers={"Allow": ", ".join(dict.fromkeys(allowed))})
        raise HTTPError(404)


def _is_parameter(part: str) -> bool:
    return part[:1] == "{" and part[-1:] == "}" and part[1:-1].isidentifier()


def _matches(pattern: list[str], segments: list[str]) -> bool:
    return len(pattern) == len(segments) and all(
        bool(segment) if _is_parameter(part) else part == segment
        for part, segment in zip(pattern, segments, strict=True)
    )


class Server:
    """A Server is an HTTP server.

        app = Server()

        @app.router.get("/")
        def index(request):
            body = yield from request.read()
            return Response(body=body, content_type=request.content_type)

        gen.run(app.run(host="127.0.0.1", port=8080))

    The server receives a whole request before it calls the handler. It answers 413 to a body of
    more than `max_body_size` bytes, 400 to a malformed request, and 408 to one that takes longer
    than `request_timeout` seconds, and then closes the connection. If a handler raises, the server
    logs the error (logger "casync.gen.http"), and the client gets 500. The server closes a
    connection that has no request for `keep_alive_timeout` seconds.
    """

    def __init__(
        self,
        *,
        max_body_size: int = 1 << 20,
        request_timeout: float | None = 60.0,
        keep_alive_timeout: float | None = 75.0,
        shutdown_timeout: float | None = 10.0,
    ) -> None:
        self.router = Router()
        self.max_body_size = max_body_size
        self.request_timeout = request_timeout
        self.keep_alive_timeout = keep_alive_timeout
        self.shutdown_timeout = shutdown_timeout
        self._server: asyncio.Server | None = None
        self._closing = Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.Task[None]] = set()

    # -- starting and stopping --

    @types.coroutine
    def run(
        self, host: str | None = "127.0.0.1", port: int = 8080, *, ssl: tls.SSLContext | None = None
    ) -> Generator[Any, Any, None]:
        """Serves until close() is called, the task is cancelled, or SIGTERM comes.

        Then it stops gracefully, as close() says. Since Python 3.11, Ctrl-C cancels the task. If
        the program handles SIGTERM itself, that signal does not stop the server. Raises the errors
        of start().
        """
        yield from self.start(host, port, ssl=ssl)
        with _sigterm_calls(self.close):
            try:
                yield from self.wait_closed()
            except GenCancelledError:
                self.close()
                yield from self.wait_closed()
                raise

    @types.coroutine
    def start(
        self, host: str | None = "127.0.0.1", port: int = 8080, *, ssl: tls.SSLContext | None = None
    ) -> Generator[Any, Any, None]:
        """Begins to listen, and returns. The server serves requests from then on.

        A `host` of None means all addresses. A `port` of 0 means a free one, which `sockets` tells.
        Raises OSError, and RuntimeError if the server was started before.
        """
        if self._server is not None:
            raise RuntimeError("this server was started already")
        self._closing = Event()
        self._server = yield from asyncio.start_server(self._accept, host, port, ssl=ssl)
        for sock in self._server.sockets:
            _logger.info("listening on %s", sock.getsockname())

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets, as in `app.sockets[0].getsockname()`."""
        return () if self._server is None else tuple(self._server.sockets)

    def close(self) -> None:
        """Begins a graceful stop, and returns.

        The server stops listening, closes idle connections, and answers the requests that it has.
        wait_closed() waits for the end. Call this in the loop's thread.
        """
        if self._server is not None:
            self._server.close()
        self._closing.set()
        for connection in self._idle:
            connection.cancel()

    @types.coroutine
    def wait_closed(self) -> Generator[Any, Any, None]:
        """Waits until close() is called and the last request is answered.

        The server cancels requests that take longer than `shutdown_timeout` seconds after close().
        """
        yield from self._closing.wait()
        if self._connections:
            _, late = yield from asyncio.wait(self._connections, timeout=self.shutdown_timeout)
            for connection in late:
                connection.cancel()
            if late:
                yield from asyncio.wait(late)
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = create_task(_Connection(self, reader, writer).serve())
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)


class _Connection:
    """A client's connection: requests and their responses, one after the other."""

    def __init__(
        self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(
            0
        )  # a response is served when the kernel has all of it
        self._http = h11.Connection(h11.SERVER)
        self._request: Request | None = None  # the one that is being received or answered

    @types.coroutine
    def serve(self) -> Generator[Any, Any, None]:
        try:
            while (yield from self._request_begins()) and (yield from self._exchange()):
                self._http.start_next_cycle()
                self._request = None
        except _CLIENT_GONE as error:
            _logger.debug("a connection ended: %r", error)
        except Exception:
            _logger.exception("a connection failed")
        finally:
            self._writer.close()

    @types.coroutine
    def _request_begins(self) -> Generator[Any, Any, bool]:
        """Waits for the first bytes of a request. Returns False if none will come."""
        server = self._server
        if server._closing.is_set():
            return False
        if self._http.trailing_data[0]:  # they came together with the request before
            return True
        task = asyncio.current_task()
        assert task is not None
        server._idle.add(task)
        try:
            data = yield from wait_for(self._reader.read(READ_SIZE), server.keep_alive_timeout)
        except asyncio.TimeoutError:
            return False
        finally:
            server._idle.discard(task)
        self._http.receive_data(data)
        return bool(data)

    @types.coroutine
    def _exchange(self) -> Generator[Any, Any, bool]:
        """Serves one request. Returns whether the connection can be used again."""
        try:
            request = yield from wait_for(self._receive(), self._server.request_timeout)
        except asyncio.TimeoutError:
            yield from self._refuse(HTTPError(408))
        except h11.RemoteProtocolError as error:
            yield from self._refuse(
                HTTPError(error.error_status_hint, f"malformed request: {error}")
            )
        except HTTPError as error:
            yield from self._refuse(error)
        else:
            yield from self._respond(request)
        return self._http.our_state is h11.DONE

    @types.coroutine
    def _receive(self) -> Generator[Any, Any, Request]:
        """Receives a request. Raises HTTPError 400, 413 and 505, h11.RemoteProtocolError and
        OSError.
        """
        event = yield from next_event(self._http, self._reader)
        if not event.http_version.startswith(b"1."):
            raise HTTPError(505)
        self._request = request = Request(event)
        if "Content-Length" in request.headers and "Transfer-Encoding" in request.headers:
            # RFC 9112, 6.1: a proxy before this server may see another end of this request than h11
            # does.
            raise HTTPError(400, "malformed request: both Content-Length and Transfer-Encoding")
        limit = self._server.max_body_size
        too_large = HTTPError(413, f"the body of a request has at most {limit} bytes here")
        if int(request.headers.get("Content-Length", 0)) > limit:
            raise too_large
        if self._http.they_are_waiting_for_100_continue:
            self._writer.write(
                self._http.send(h11.InformationalResponse(status_code=100, headers=[]))
            )
        body = bytearray()
        while isinstance(event := (yield from next_event(self._http, self._reader)), h11.Data):
            body += event.data
            if len(body) > limit:
                raise too_large
        request._body = bytes(body)
        return request

    @types.coroutine
    def _respond(self, request: Request) -> Generator[Any, Any, None]:
        """Calls the handler and sends what it returns."""
        try:
            try:
                response = yield from self._handle(request)
            except HTTPError as error:
                response = error._response()
            head = response._head(close=self._server._closing.is_set())
        except GenCancelledError:
            _logger.error("%r: the handler was cancelled", request)
            write(self._http, self._writer, _FAILED._head(close=True), self._body(_FAILED))
            raise
        except Exception:
            _logger.exception("%r: the handler failed", request)
            response, head = _FAILED, _FAILED._head(close=self._server._closing.is_set())
        try:
            yield from send(self._http, self._writer, head, self._body(response))
        except BodyError as error:
            self._writer.transport.abort()  # so the client sees that its response is not complete
            _logger.error("%r: the body of the response failed", request, exc_info=error.reason)
        except BaseException:
            # close() would wait, maybe for ever, until the client reads
            self._writer.transport.abort()
            raise
        finally:
            if hasattr(response.body, "close"):
                response.body.close()

    @types.coroutine
    def _handle(self, request: Request) -> Generator[Any, Any, Response]:
        handler = self._server.router._find(request)
        response = handler(request)
        if inspect.isgenerator(response):
            response = yield from response
        elif inspect.isawaitable(response):
            response = yield from response.__await__()
        if not isinstance(response, Response):
            raise TypeError(f"the handler {handler!r} must return a Response, not {response!r}")
        return response

    def _body(self, response: Response) -> Any:
        """Returns the part of a response's body that the server sends."""
        return (
            b"" if self._request is not None and self._request.method == "HEAD" else response.body
        )

    @types.coroutine
    def _refuse(self, error: HTTPError) -> Generator[Any, Any, None]:
        """Answers a request that was not received, and ends the connection.

        If the server closed the connection while input is unread, the kernel would send a reset,
        and the client might lose the answer (RFC 9112, 9.6).
        """
        response = error._response()
        yield from send(self._http, self._writer, response._head(close=True), self._body(response))
        if self._writer.can_write_eof():
            self._writer.write_eof()
        with contextlib.suppress(asyncio.TimeoutError):
            yield from wait_for(self._discard_input(), LINGER)

    @types.coroutine
    def _discard_input(self) -> Generator[Any, Any, None]:
        while (yield from self._reader.read(READ_SIZE)):
            pass


_FAILED = Response(500, "Internal Server Error\n")


@contextlib.contextmanager
def _sigterm_calls(callback: Callable[[], None]) -> Generator[None, None, None]:
    """In the block, SIGTERM calls `callback`, if this is the main thread and nobody handles it."""
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, callback)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
