"""An SSLProtocol that is asyncio's (Lib/asyncio/sslproto.py), but reads and writes in C
(native/tls.c).
"""

# This is about asyncio's private names, which typeshed does not have:
# mypy: disable-error-code="attr-defined, has-type, misc"

from __future__ import annotations

import asyncio
from asyncio import protocols, sslproto
from typing import Any

from ._extension import native

# What the native half and this module call, set or take the place of in asyncio's SSLProtocol.
_NEEDED = [
    "_call_eof_received",
    "_control_app_writing",
    "_control_ssl_reading",
    "_do_flush",
    "_do_handshake",
    "_do_read",
    "_do_shutdown",
    "_do_write",
    "_fatal_error",
    "_get_app_transport",
    "_process_outgoing",
    "_start_shutdown",
    "_write_appdata",
    "buffer_updated",
    "max_size",
]


def _is_known() -> bool:
    """Is this interpreter's asyncio one that native/tls.c was written for?"""
    return hasattr(native, "TLSProtocol") and all(
        hasattr(sslproto.SSLProtocol, name) for name in _NEEDED
    )


def _make_class() -> type[sslproto.SSLProtocol]:
    class SSLTransport(native.TLSTransport, sslproto._SSLProtocolTransport):
        """The application writes to this transport."""

    class SSLProtocol(native.TLSProtocol, sslproto.SSLProtocol):
        """asyncio's SSLProtocol, which native/tls.c drives."""

        # asyncio's own ways, for what the native ones do not do:
        _python_do_read = sslproto.SSLProtocol._do_read
        _python_write_appdata = sslproto.SSLProtocol._write_appdata

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # asyncio reads into a buffer of max_size bytes, which a native transport needs not;
            # get_buffer() makes it for others.
            self.max_size = 0
            super().__init__(*args, **kwargs)
            del self.max_size

        def _get_app_transport(self) -> sslproto._SSLProtocolTransport:
            if not self._app_transport_created:
                self._app_transport = SSLTransport(self._loop, self)
                self._app_transport_created = True
            return super()._get_app_transport()

        def buffer_updated(self, nbytes: int) -> None:
            self.data_received(self._ssl_buffer_view[:nbytes])

        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            # asyncio keeps these methods, and with them the protocol.
            self._app_protocol_get_buffer = self._app_protocol_buffer_updated = None

    return SSLProtocol


_known: Any = sslproto.SSLProtocol
_native: Any = _make_class() if _is_known() else _known
# Classes whose methods the native half does not always call, each with what it had when this was
# imported.
_passed_by = (
    []
    if _native is _known
    else [(cls, dict(vars(cls))) for cls in (_known, sslproto.ssl.SSLObject)]
)


def ssl_protocol_class() -> Any:
    """Returns the class of SSLProtocol for a new connection.

    It is asyncio's own class if a program has patched that class or SSLObject, or if native/tls.c
    does not know this version of asyncio.
    """
    unpatched = all(vars(cls) == before for cls, before in _passed_by)
    return _native if unpatched and sslproto.SSLProtocol is _known else sslproto.SSLProtocol


def take_over_reader(
    protocol: asyncio.BaseProtocol,
    transport: asyncio.BaseTransport,
    ssl_protocol: Any,
    server_side: bool,
) -> bytes:
    """Connects the protocol's StreamReader, if it has one, to the TLS transport, for start_tls().

    From then on the reader pauses and resumes that transport. On a server, this function removes
    the bytes that the reader has read ahead, and returns them: they are the client's first TLS
    bytes. On a client it returns b"", because a server sends nothing before those.
    """
    reader = getattr(protocol, "_stream_reader", None)
    if not isinstance(protocol, asyncio.StreamReaderProtocol) or reader is None:
        return b""
    if reader._transport is transport:
        has_transport = hasattr(
            ssl_protocol, "_get_app_transport"
        )  # since 3.11 it is made when it is asked for
        reader._transport = (
            ssl_protocol._get_app_transport() if has_transport else ssl_protocol._app_transport
        )
        reader._paused = False  # start_tls resumes the old one
    read_ahead = bytes(reader._buffer) if server_side else b""
    if read_ahead:
        reader._buffer.clear()
    return read_ahead


def give_read_ahead(ssl_protocol: Any, data: bytes) -> None:
    """Passes the bytes of take_over_reader() to the SSLProtocol, once that has its transport."""
    if not data:
        return
    if hasattr(ssl_protocol, "data_received"):
        ssl_protocol.data_received(data)
    else:
        protocols._feed_data_to_buffered_proto(ssl_protocol, data)
