"""A TCP echo server and its client, with asyncio's streams, on the casync loop.

Run it from the repository's root, after `pip install ./python`:   python examples/echo_streams.py
"""

import asyncio

import casync


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()  # waits while the client does not read
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for text in ("one", "two", "three"):
            writer.write(f"{text}\n".encode())
            answer = await asyncio.wait_for(reader.readline(), timeout=5)
            print("echoed:", answer.decode().strip())
        writer.write_eof()
        print("and then:", await reader.read() or "the end")
        writer.close()
        await writer.wait_closed()


if __name__ == "__main__":
    casync.run(main())
