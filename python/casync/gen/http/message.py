"""The client and the server share this: headers, bodies, and messages between h11 and a stream."""

from __future__ import annotations

import asyncio
import json
import types
from collections.abc import Generator, Iterable, Iterator, Mapping
from email.message import Message
from typing import Any

import h11

READ_SIZE = 1 << 16

Pairs = Mapping[str, str] | Iterable[tuple[str, str]]


class MultiDict(Mapping[str, str]):
    """A mapping of names to values in which a name may occur more than once. [name] returns its
    first value.
    """

    def __init__(self, pairs: Pairs = ()) -> None:
        if isinstance(pairs, MultiDict):
            pairs = pairs.pairs()
        elif isinstance(pairs, Mapping):
            pairs = pairs.items()
        self._pairs = list(pairs)

    @staticmethod
    def _key(name: str) -> str:
        return name

    def __getitem__(self, name: str) -> str:
        for value in self.get_all(name):
            return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter({self._key(name): None for name, _ in self._pairs})

    def __len__(self) -> int:
        return len({self._key(name) for name, _ in self._pairs})

    def get_all(self, name: str) -> list[str]:
        """Returns all values of a name, in their order."""
        key = self._key(name)
        return [value for other, value in self._pairs if self._key(other) == key]

    def pairs(self) -> list[tuple[str, str]]:
        """Returns all names and values, in their order."""
        return list(self._pairs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._pairs!r})"


class Headers(MultiDict):
    """The headers of a message. The case of a name does not matter. Values travel in ISO-8859-1."""

    @staticmethod
    def _key(name: str) -> str:
        return name.lower()

    @classmethod
    def received(cls, event: h11.Request | h11.Response) -> Headers:
        return cls((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers)

    def encoded(self) -> list[tuple[bytes, bytes]]:
        """Returns the headers for h11, which checks them. Raises UnicodeEncodeError."""
        return [
            (str.encode(name, "ascii"), str.encode(value, "latin-1")) for name, value in self._pairs
        ]


def charset(content_type: str | None) -> str:
    """Returns the encoding that a Content-Type names, or UTF-8."""
    message = Message()
    message["Content-Type"] = content_type or ""
    return message.get_content_charset("utf-8")


def encode(body: Any, json_value: Any) -> tuple[Any, str | None]:
    """Returns a body as bytes, or as an iterable of bytes if it is one, and the Content-Type that
    fits it.
    """
    if json_value is not None:
        if body:
            raise ValueError("a message has one body: give either json or the other")
        return json.dumps(json_value).encode(), "application/json"
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    if body is None:
        return b"", None
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), None
    if isinstance(body, Iterable) and not isinstance(body, Mapping):
        return body, None
    raise TypeError(
        f"a body is bytes, text or an iterable of bytes, not {body!r}; for JSON give json="
    )


@types.coroutine
def next_event(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> Generator[Any, Any, Any]:
    """Waits for h11's next event. Raises h11.RemoteProtocolError and OSError."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data((yield from reader.read(READ_SIZE)))
    return event


def write(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    head: h11.Request | h11.Response,
    body: bytes,
) -> None:
    """Sends a message without waiting."""
    events = [head, h11.Data(data=body), h11.EndOfMessage()] if body else [head, h11.EndOfMessage()]
    pieces = [connection.send(event) for event in events]
    if len(body) < READ_SIZE:
        pieces = [b"".join(pieces)]  # one system call, and one packet
    for (
        piece
    ) in pieces:  # not writelines(): asyncio's, in 3.12 and 3.13, does not make drain() wait
        writer.write(piece)


class BodyError(Exception):
    """send() raises this error if an iterable body raised. So the body's OSErrors differ from the
    connection's.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


def _chunks(body: Iterable[bytes]) -> Iterator[h11.Data]:
    try:
        for chunk in body:
            yield h11.Data(data=chunk)
    except Exception as error:
        raise BodyError(error) from error


@types.coroutine
def send(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    head: h11.Request | h11.Response,
    body: Any,
) -> Generator[Any, Any, None]:
    """Sends a message. It takes the next chunk of an iterable body when the peer has room for it.

    Raises BodyError and OSError.
    """
    if isinstance(body, bytes):
        write(connection, writer, head, body)
    else:
        writer.write(connection.send(head))
        for data in _chunks(body):
            writer.write(connection.send(data))
            yield from writer.drain()
        writer.write(connection.send(h11.EndOfMessage()))
    yield from writer.drain()
