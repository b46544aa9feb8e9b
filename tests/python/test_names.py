"""Names and addresses: loop.getaddrinfo() answers as socket.getaddrinfo() does, and needs no thread
for what is in numbers.
"""

from __future__ import annotations

import itertools
import socket
from types import ModuleType
from typing import Any

import pytest
from casync.names import numeric_addresses

HOSTS = ["127.0.0.1", "0.0.0.0", "255.255.255.255", "::1", "::", "::ffff:1.2.3.4", "fe80:0:0::1"]
OTHERS = ["localhost", "", "1.2.3", "01.2.3.4", "127.0.0.1\0", "::1%lo", "1:2", b"127.0.0.1", None]
QUESTIONS = {
    "family": [0, socket.AF_INET, socket.AF_INET6],
    "type": [0, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW],
    "proto": [0, socket.IPPROTO_TCP, socket.IPPROTO_UDP],
    "flags": [0, socket.AI_PASSIVE, socket.AI_NUMERICHOST, socket.AI_CANONNAME],
}


def asked(host: Any, port: Any, question: dict[str, int]) -> Any:
    try:
        return socket.getaddrinfo(host, port, **question)
    except OSError as error:
        return error


def test_numbers_are_answered_as_the_c_library_answers() -> None:
    answered = 0
    for values in itertools.product(*QUESTIONS.values()):
        question: dict[str, Any] = dict(zip(QUESTIONS, values, strict=True))
        for host, port in itertools.product(HOSTS, [0, 80, 65535]):
            found = numeric_addresses(host, port, *values)
            if found is not None:
                assert found == asked(host, port, question), (host, port, question)
                answered += 1
    assert answered > 500


@pytest.mark.parametrize("host", OTHERS)
def test_what_is_no_number_is_left_to_the_c_library(host: Any) -> None:
    assert numeric_addresses(host, 80, 0, 0, 0, 0) is None


@pytest.mark.parametrize("port", [-1, 65536, "80", None, True, 80.0])
def test_what_is_no_port_is_left_to_the_c_library(port: Any) -> None:
    assert numeric_addresses("127.0.0.1", port, 0, 0, 0, 0) is None


def test_numbers_need_no_thread(casync: ModuleType) -> None:
    loop = casync.new_event_loop()
    question = loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    found = loop.run_until_complete(question)
    assert found == socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert loop._default_executor is None
    loop.close()


@pytest.mark.parametrize("debug", [False, True])
def test_a_name_is_asked_for_in_a_thread(loop: Any, debug: bool) -> None:
    loop.set_debug(debug)
    found = loop.run_until_complete(loop.getaddrinfo("localhost", 80))
    assert found == socket.getaddrinfo("localhost", 80)
    assert loop._default_executor is not None


def test_a_function_in_the_place_of_socket_getaddrinfo_is_asked(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ["patched"])
    assert loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80)) == ["patched"]


def test_a_question_that_fails_raises_what_the_c_library_says(loop: Any) -> None:
    with pytest.raises(socket.gaierror):
        loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80, family=socket.AF_INET6))
