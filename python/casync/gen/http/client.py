"""The HTTP client: one connection for each request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl as tls
import types
from collections.abc import Generator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import h11

from ..task import wait_for
from .message import BodyError, Headers, Pairs, charset, encode, next_event, send

_PORTS = {"http": 80, "https": 443}


class ClientResponse:
    """ClientRequest.send() returns this response, with its whole body."""

    def __init__(self, status: int, reason: str, headers: Headers, body: bytes) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body

    @property
    def content_type(self) -> str | None:
        """The value of the header Content-Type, or None."""
        return self.headers.get("Content-Type")

    @property
    def text(self) -> str:
        """The body as text, decoded as the Content-Type says, or else as UTF-8."""
        return self.body.decode(charset(self.content_type))

    def json(self) -> Any:
        """Returns the value of the body, which is JSON. Raises ValueError if it is not."""
        return json.loads(self.body)

    def __repr__(self) -> str:
        kind = self.content_type or "unknown type"
        return f"<ClientResponse {self.status} {self.reason}: {len(self.body)} bytes of {kind}>"


class ClientRequest:
    """A ClientRequest is an HTTP request. `response = yield from request.send()` sends it.

    The body is `json`, a value that is encoded as JSON, or `data`: bytes, text, a mapping (sent as
    a form) or an iterable of bytes (sent in chunks). `timeout` is the limit in seconds from the
    name look-up to the last byte of the response; None sets no limit. `ssl` is the SSLContext for
    https; by default it is ssl's default context. Redirects are not followed.
    """

    def __init__(
        self,
        url: str,
        method: str = "GET",
        *,
        json: Any = None,
        headers: Pairs = (),
        data: Any = None,
        timeout: float | None = None,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(
                f"the URL must be as http://host/path or https://host/path, not {url!r}"
            )
        if parts.username is not None:
            raise ValueError("a URL with a user's name: pass an Authorization header instead")
        self.url = url
        self.method = method.upper()
        self.timeout = timeout
        self._host = parts.hostname
        self._port = _PORTS[parts.scheme] if parts.port is None else parts.port
        self._ssl = (ssl or tls.create_default_context()) if parts.scheme == "https" else None
        form = isinstance(data, Mapping)
        self._body, content_type = encode(urlencode(data).encode() if form else data, json)
        if form:
            content_type = "application/x-www-form-urlencoded"
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + ("?" if parts.query else "")
        target += quote(parts.query, safe="/%:@!$&'()*+,;=~?")
        try:
            self._head = h11.Request(
                method=self.method,
                target=target,
                headers=self._headers(Headers(headers), parts.netloc, content_type).encoded(),
            )
        except h11.LocalProtocolError as error:
            raise ValueError(f"this cannot be sent as HTTP: {error}") from error

    def _headers(self, given: Headers, host: str, content_type: str | None) -> Headers:
        defaults = {"Host": host.encode("idna").decode(), "Accept": "*/*", "User-Agent": "casync"}
        if content_type:
            defaults["Content-Type"] = content_type
        framing = {"Connection": "close"}
        if not isinstance(self._body, bytes):
            framing["Transfer-Encoding"] = "chunked"
        elif self._body or self.method in ("POST", "PUT", "PATCH"):
            framing["Content-Length"] = str(len(self._body))
        for name in ("Connection", "Content-Length", "Transfer-Encoding"):
            if name in given:
                raise ValueError(
                    f"the header {name} follows from how the request is sent; leave it out"
                )
        merged = [(name, value) for name, value in defaults.items() if name not in given]
        return Headers([*merged, *given.pairs(), *framing.items()])

    @types.coroutine
    def send(self) -> Generator[Any, Any, ClientResponse]:
        """Connects, sends the request, and waits for the whole response.

        Raises OSError, which is a ConnectionError if the response is not HTTP or ends early,
        asyncio.TimeoutError, and the errors of an iterable body.
        """
        return (yield from wait_for(self._exchange(), self.timeout))

    @types.coroutine
    def _exchange(self) -> Generator[Any, Any, ClientResponse]:
        reader, writer = yield from asyncio.open_connection(self._host, self._port, ssl=self._ssl)
        try:
            response = yield from self._converse(reader, writer)
        except BaseException:
            # close() would wait, maybe for ever, until the server takes the rest
            writer.transport.abort()
            raise
        writer.close()
        return response

    @types.coroutine
    def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Generator[Any, Any, ClientResponse]:
        connection = h11.Connection(h11.CLIENT)
        try:
            with contextlib.suppress(
                ConnectionError
            ):  # a server that has refused the body has said why
                yield from send(connection, writer, self._head, self._body)
            return (yield from self._receive(connection, reader))
        except BodyError as error:
            raise error.reason from None
        except h11.RemoteProtocolError as error:
            raise ConnectionError(f"{self.url}: not a complete HTTP response: {error}") from error

    @types.coroutine
    def _receive(
        self, connection: h11.Connection, reader: asyncio.StreamReader
    ) -> Generator[Any, Any, ClientResponse]:
        body = bytearray()
        head: Any = None
        while not isinstance(
            event := (yield from next_event(connection, reader)), h11.EndOfMessage
        ):
            if isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.Response):
                head = event
            elif not isinstance(event, h11.InformationalResponse):
                raise ConnectionError(
                    f"{self.url}: the server closed the connection without a response"
                )
        return ClientResponse(
            head.status_code, head.reason.decode("latin-1"), Headers.received(head), bytes(body)
        )

    def __repr__(self) -> str:
        return f"<ClientRequest {self.method} {self.url}>"
