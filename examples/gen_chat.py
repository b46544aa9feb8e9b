"""A chat room with generators: all waiting is `yield from`, on the casync loop.

A server that passes each line on to everybody else, and three guests, in one program. Run it from
the repository's root, after `pip install ./python`:   python examples/gen_chat.py
"""

import contextlib
import socket
from collections.abc import Generator
from typing import Any

from casync import gen
from casync.gen.gensocket import GenSocket

Steps = Generator[
    Any, Any, None
]  # what a task is made of: it yields to the loop, and returns nothing


def lines(sock: GenSocket, queue: gen.Queue[str | None]) -> Steps:
    """Puts the lines that come into a queue; None is the end."""
    rest = b""
    try:
        while data := (yield from sock.recv(4096)):
            *complete, rest = (rest + data).split(b"\n")
            for line in complete:
                queue.put_nowait(line.decode())
    finally:
        queue.put_nowait(None)


class Room:
    def __init__(self) -> None:
        self.guests: set[GenSocket] = set()

    def tell(self, sender: GenSocket, text: str) -> None:
        for guest in self.guests - {sender}:
            with contextlib.suppress(ConnectionError):  # it is gone, which its own task notices
                guest.send(
                    f"{text}\n".encode()
                )  # sends now; what a slow guest does not take is queued

    def serve(self, guest: GenSocket) -> Steps:
        with guest:
            said: gen.Queue[str | None] = gen.Queue()
            reading = gen.create_task(lines(guest, said))
            name = yield from said.get()
            if name is not None:
                yield from self.talk(guest, name, said)
            yield from reading  # which raises the error that ended it, if one did

    def talk(self, guest: GenSocket, name: str, said: gen.Queue[str | None]) -> Steps:
        self.guests.add(guest)
        try:
            guest.send(b"welcome\n")
            self.tell(guest, f"{name} came")
            while (text := (yield from said.get())) is not None:
                self.tell(guest, f"{name}: {text}")
        finally:
            self.guests.remove(guest)
            self.tell(guest, f"{name} left")

    def accept(self, listener: GenSocket) -> Steps:
        while True:
            guest, _ = yield from listener.accept()
            gen.get_running_loop().create_task(self.serve(guest))


class Guest:
    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.sock = GenSocket(socket.AF_INET, socket.SOCK_STREAM)
        self.heard: gen.Queue[str | None] = gen.Queue()

    def enter(self) -> Steps:
        yield from self.sock.connect(("localhost", self.port))
        gen.create_task(lines(self.sock, self.heard))
        self.say(self.name)
        yield from self.hear()

    def say(self, text: str) -> None:
        self.sock.send(f"{text}\n".encode())

    def hear(self) -> Steps:
        text = yield from self.heard.get()
        print(f"{self.name} hears: {text}")

    def leave(self) -> Steps:
        self.sock.shutdown(socket.SHUT_WR)
        while (yield from self.heard.get()) is not None:
            pass
        self.sock.close()


def main() -> Steps:
    with GenSocket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        accepting = gen.create_task(Room().accept(listener))
        anna, ben, cleo = (
            Guest(name, listener.getsockname()[1]) for name in ("anna", "ben", "cleo")
        )
        yield from anna.enter()
        yield from ben.enter()
        yield from anna.hear()
        yield from cleo.enter()
        for guest in anna, ben:
            yield from guest.hear()
        ben.say("hello, is somebody here?")
        for guest in anna, cleo:
            yield from guest.hear()
        yield from anna.leave()
        for guest in ben, cleo:
            yield from guest.hear()
        yield from gen.gather(ben.leave(), cleo.leave())
        accepting.cancel()
        yield from gen.gather(accepting)
    print("the room is closed")


if __name__ == "__main__":
    gen.run(main())
