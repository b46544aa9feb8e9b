"""Back-pressure.

Run it from the repository's root:   python3 examples/study/14_back_pressure.py

Whoever produces faster than somebody else consumes fills a buffer in between, and if nobody says
stop, this buffer is all of your memory. Blocking programs have back-pressure for nothing: a full
socket makes send() wait. In asyncio write() never waits, it queues. So the writer has to ask:

- streams: `await writer.drain()` after each write. It returns at once while less than the
  high-water mark is queued (64 KiB), and else waits until the other side has read so much that the
  low-water mark is reached.
- protocols: pause_writing() and resume_writing() are called at the two marks.
- readers: a reader that does not read holds up the other side, through both kernels' buffers.
- between tasks: a Queue with a maxsize, whose put() waits while it is full.
"""

import asyncio
import socket

CHUNK, CHUNKS = 100_000, 100
HIGH_WATER = 64 * 1024


async def pair() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.StreamWriter]:
    """The reader at one end, the writer at the other (and the first end's writer, to close)."""
    ours, theirs = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=ours)
    reader, other = await asyncio.open_connection(sock=theirs)
    return reader, writer, other


async def read_all(reader: asyncio.StreamReader) -> int:
    size = 0
    while data := await reader.read(CHUNK):
        size += len(data)
        await asyncio.sleep(0)  # a reader that has other things to do
    return size


async def send(drain: bool) -> None:
    reader, writer, other = await pair()
    reading = asyncio.create_task(read_all(reader))
    most = 0
    for _ in range(CHUNKS):
        writer.write(bytes(CHUNK))
        most = max(most, writer.transport.get_write_buffer_size())
        if drain:
            await writer.drain()
    writer.close()
    size = await reading
    other.close()
    print("with drain:" if drain else "without drain:", size, "bytes arrived;")
    print("  queued was at most a chunk above the mark:", most <= HIGH_WATER + CHUNK)
    print("  queued was nearly everything:", most > CHUNK * CHUNKS * 0.8)


async def bounded_queue() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)

    async def produce() -> None:
        for number in range(4):
            if queue.full():
                print("  the queue is full: the producer waits")
            await queue.put(number)
            print("  put", number)

    producer = asyncio.create_task(produce())
    await asyncio.sleep(0)
    for _ in range(4):
        print("  got", await queue.get())
    await producer


async def main() -> None:
    await send(drain=False)
    await send(drain=True)
    print("a queue of two:")
    await bounded_queue()


asyncio.run(main())

# Prints:
#   without drain: 10000000 bytes arrived;
#     queued was at most a chunk above the mark: False
#     queued was nearly everything: True
#   with drain: 10000000 bytes arrived;
#     queued was at most a chunk above the mark: True
#     queued was nearly everything: False
#   a queue of two:
#     put 0
#     put 1
#     the queue is full: the producer waits
#     got 0
#     got 1
#     put 2
#     put 3
#     got 2
#     got 3
