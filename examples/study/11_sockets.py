"""Sockets and selectors: how one thread serves many.

Run it from the repository's root:   python3 examples/study/11_sockets.py

A socket can be told not to block. Then a call that would have to wait raises BlockingIOError
(EAGAIN) instead, and one needs to know when to try again. That is the selector's work: it is given
any number of sockets and waits until at least one is ready. select(2) and poll(2) are given the
list at each call; epoll(7) keeps it in the kernel, so that a call costs what is ready, not what is
watched.

"Ready" means: a read would not wait. There may be one byte only, or the end of the stream (b""), or
an error. In rare cases what was ready is so no more when you read (select(2), "BUGS"; or another
process was faster): so the sockets do not block either way.

This is a server with any number of clients in one thread, without any framework. It lacks what page
14 is about: it believes that send() takes everything.
"""

import asyncio
import selectors
import socket


def serve(selector: selectors.BaseSelector, listener: socket.socket, clients: int) -> None:
    """Answers until so many clients have come and gone."""
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    while clients:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if sock is listener:
                connection, _ = listener.accept()
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ)
            elif data := sock.recv(1024):
                sock.send(data.upper())
            else:  # the end of the stream
                selector.unregister(sock)
                sock.close()
                clients -= 1


def by_selector() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        selectors.DefaultSelector() as selector,
    ):
        clients = [socket.create_connection(listener.getsockname()) for _ in range(2)]
        clients[0].setblocking(False)
        try:
            clients[0].recv(1)
        except BlockingIOError:
            print("nothing to read yet: BlockingIOError")
        clients[0].setblocking(True)
        for number, client in enumerate(clients):
            client.send(f"hello from {number}".encode())
            client.shutdown(socket.SHUT_WR)  # the end of what we send; we still read
        serve(selector, listener, clients=2)
        for client in clients:
            print("answer:", client.recv(1024).decode())
            client.close()


async def by_asyncio() -> None:
    """The same server; asyncio has the selector, and calls back when a socket is ready."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1024):
            writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello from a stream")
    writer.write_eof()
    print("answer:", (await reader.read()).decode())
    writer.close()
    server.close()


by_selector()
asyncio.run(by_asyncio())

# Prints:
#   nothing to read yet: BlockingIOError
#   answer: HELLO FROM 0
#   answer: HELLO FROM 1
#   answer: HELLO FROM A STREAM
