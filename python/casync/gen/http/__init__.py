"""HTTP/1.1 for generators: a client (ClientRequest) and a server (Server). The package h11 parses
the messages.

request = ClientRequest("http://localhost:8080/", "POST", json={"one": 1})
response = yield from request.send()
print(response, response.body)
"""

from __future__ import annotations

try:
    import h11  # noqa: F401
except ImportError as error:
    raise ImportError("casync.gen.http needs h11: pip install 'casync[gen]'") from error

from .client import ClientRequest, ClientResponse
from .message import Headers, MultiDict
from .server import HTTPError, Request, Response, Router, Server

__all__ = [
    "ClientRequest",
    "ClientResponse",
    "HTTPError",
    "Headers",
    "MultiDict",
    "Request",
    "Response",
    "Router",
    "Server",
]
