"""Addresses in numbers, which need no thread to be looked up."""

from __future__ import annotations

import socket
from typing import Any

_STREAM = (socket.SOCK_STREAM, socket.IPPROTO_TCP)
_DATAGRAM = (socket.SOCK_DGRAM, socket.IPPROTO_UDP)
_RAW = (socket.SOCK_RAW, socket.IPPROTO_IP)

# By the type and the protocol that are asked for. (Raw sockets alone have no ports.)
_SOCKETS = {
    (0, 0): (_STREAM, _DATAGRAM, _RAW),
    (0, _STREAM[1]): (_STREAM,),
    (_STREAM[0], 0): (_STREAM,),
    _STREAM: (_STREAM,),
    (0, _DATAGRAM[1]): (_DATAGRAM,),
    (_DATAGRAM[0], 0): (_DATAGRAM,),
    _DATAGRAM: (_DATAGRAM,),
}
_OTHER_FLAGS = ~int(socket.AI_PASSIVE | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
_getaddrinfo = socket.getaddrinfo  # a program may put another in its place


def _sockaddr(host: str, port: int) -> tuple[int, tuple[Any, ...]] | None:
    """Returns the family and the socket's address of a host in numbers; None if it is none."""
    try:
        if ":" not in host:
            socket.inet_pton(socket.AF_INET, host)
            return socket.AF_INET, (host, port)
        packed = socket.inet_pton(socket.AF_INET6, host)
    except (OSError, ValueError):  # a name, or with a zone or a zero byte
        return None
    return socket.AF_INET6, (socket.inet_ntop(socket.AF_INET6, packed), port, 0, 0)


def numeric_addresses(
    host: object, port: object, family: int, type: int, proto: int, flags: int
) -> list[tuple[Any, ...]] | None:
    """Returns what socket.getaddrinfo() returns for a host and a port in numbers.

    None says that socket.getaddrinfo() is to be asked: about anything else, what it refuses, and if
    the program has put another function in its place. Costs a microsecond or two.
    """
    sockets = _SOCKETS.get((type, proto))
    if sockets is None or flags & _OTHER_FLAGS or socket.getaddrinfo is not _getaddrinfo:
        return None
    if host.__class__ is not str or port.__class__ is not int or not 0 <= port <= 65535:
        return None
    found = _sockaddr(host, port)
    if found is None or (family and family != found[0]):
        return None
    return [(found[0], *kind, "", found[1]) for kind in sockets]
