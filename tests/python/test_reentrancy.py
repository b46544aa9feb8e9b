"""Programs that do what nobody should inside the calls that the package makes.

They run the loop, end the connection, close the loop, change the list that is being read. They get
asyncio's answer, and no memory error. Each is a process of its own, for a crash would end the
tests; the row "ASan native" runs them on a build with sanitizers and assertions.
"""

from __future__ import annotations

import sys
import textwrap
from types import ModuleType

import pytest
from support import NEST_ASYNCIO, run_script

HAS_BUFFER_METHOD = sys.version_info >= (3, 12)  # __buffer__ in Python classes
HAS_NATIVE_TLS = sys.version_info >= (3, 11)

HEAD = """
import ctypes, errno, gc, ssl, weakref
logging.disable(logging.CRITICAL)  # what asyncio logs beside its reports

async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(1e-6)

async def until(condition):
    while not condition():
        await asyncio.sleep(0)

def run(main):
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(lambda loop, context: reports.append(context["message"]))
    try:
        return loop.run_until_complete(asyncio.wait_for(main, 60))
    finally:
        asyncio.set_event_loop(None)
        loop.close()

reports = []
"""


def output_of(loop_module: ModuleType, code: str) -> list[str]:
    code = HEAD + NEST_ASYNCIO + textwrap.dedent(code)
    return run_script(loop_module, code, "-W", "ignore").splitlines()


# -- a protocol that runs the loop inside its callbacks --

NESTING = """
loop = new_event_loop()
asyncio.set_event_loop(loop)
apply_nest_asyncio(loop)
loop.set_exception_handler(lambda loop, context: None)
events, buffers = [], []

async def end(transport):
    getattr(transport, ENDING)()
    await until(lambda: "connection_lost" in events)

async def more(transport):
    send(b"second")
    await turns()

class Nesting:
    def happened(self, name):
        events.append(name)
        if name == CALLBACK and events.count(name) == 1:
            loop.run_until_complete(inside(self.transport))
            events.append("inside")

    def connection_made(self, transport):
        self.transport = transport
        self.happened("connection_made")

    def connection_lost(self, error):
        self.happened("connection_lost")

    def data_received(self, data):
        if inside is more:
            events.append(data.decode())
        self.happened("data_received")

    def eof_received(self):
        self.happened("eof_received")

    def pause_writing(self):
        self.happened("pause_writing")

    def resume_writing(self):
        self.happened("resume_writing")

    def get_buffer(self, size):
        self.happened("get_buffer")
        self.buffer = bytearray(6)
        buffers.append(self.buffer)
        return self.buffer

    def buffer_updated(self, size):
        if inside is more:
            events.append(self.buffer[:size].decode())
        self.happened("buffer_updated")

    def datagram_received(self, data, address):
        if inside is more:
            events.append(data.decode())
        self.happened("datagram_received")

    def error_received(self, error):
        self.happened("error_received")

class Stream(Nesting, asyncio.Protocol):
    pass

class Buffered(Nesting, asyncio.BufferedProtocol):
    pass

class Datagrams(Nesting, asyncio.DatagramProtocol):
    pass

def kept(protocol):
    kept.protocol = protocol
    return protocol

async def stream(factory):
    global send
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    send = theirs.send
    transport, _ = await loop.connect_accepted_socket(factory, ours)
    return transport, theirs

async def until_paused(write):
    while "pause_writing" not in events:
        try:
            write(bytes(4096))
        except AttributeError:
            assert "connection_lost" in events  # asyncio's own write() goes on with what is gone
        await asyncio.sleep(0)

async def until_resumed(read):
    while "resume_writing" not in events:
        try:
            read(65536)
        except BlockingIOError:
            pass
        await asyncio.sleep(0)

async def socket_main():
    transport, theirs = await stream(Buffered if "buffer" in CALLBACK else Stream)
    if CALLBACK in ("data_received", "get_buffer", "buffer_updated"):
        theirs.send(b"hello")
    elif CALLBACK == "eof_received":
        theirs.shutdown(socket.SHUT_WR)
    elif CALLBACK in ("pause_writing", "resume_writing"):
        await until_paused(transport.write)
        if CALLBACK == "resume_writing":
            await until_resumed(theirs.recv)
    else:
        transport.abort()
    await until(lambda: "inside" in events)
    return transport

async def pipe_main():
    global send
    readable, writable = os.pipe()
    send = lambda data: os.write(writable, data)
    if CALLBACK in ("pause_writing", "resume_writing"):
        os.set_blocking(readable, False)
        transport, _ = await loop.connect_write_pipe(Stream, open(writable, "wb", 0))
        await until_paused(transport.write)
        if CALLBACK == "resume_writing":
            await until_resumed(lambda size: os.read(readable, size))
    else:
        transport, _ = await loop.connect_read_pipe(Stream, open(readable, "rb", 0))
        if CALLBACK == "data_received":
            os.write(writable, b"hello")
        elif CALLBACK == "eof_received":
            os.close(writable)
        else:
            transport.close()
    await until(lambda: "inside" in events)
    return transport

async def datagram_main():
    global send
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.setblocking(False)
    send = theirs.send
    if CALLBACK == "error_received":
        with socket.socket(type=socket.SOCK_DGRAM) as unused:
            unused.bind(("127.0.0.1", 0))
            address = unused.getsockname()
        transport, _ = await loop.create_datagram_endpoint(Datagrams, remote_addr=address)
        transport.sendto(b"refused")
    else:
        transport, _ = await loop.create_datagram_endpoint(Datagrams, sock=ours)
        transport.set_write_buffer_limits(high=0)
        if CALLBACK == "datagram_received":
            for number in range(3):
                theirs.send(b"hello")
        elif CALLBACK in ("pause_writing", "resume_writing"):
            await until_paused(transport.sendto)
            if CALLBACK == "resume_writing":
                await until_resumed(theirs.recv)
        else:
            transport.abort()
    await until(lambda: "inside" in events)
    return transport

async def tls_main():
    global send
    import trustme
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client = ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    ours, theirs = socket.socketpair()
    protocol = Buffered if "buffer" in CALLBACK else Stream
    accepted = loop.connect_accepted_socket(protocol, ours, ssl=server)
    connected = loop.create_connection(
        asyncio.Protocol, sock=theirs, ssl=client, server_hostname="localhost")
    (transport, _), (other, _) = await asyncio.gather(accepted, connected)
    send = other.write
    if CALLBACK in ("data_received", "get_buffer", "buffer_updated"):
        other.write(b"hello")
    elif CALLBACK == "eof_received":
        other.close()
    else:
        transport.abort()
    await until(lambda: "inside" in events)
    return transport
"""

NESTED = {
    "socket": "connection_made data_received get_buffer buffer_updated eof_received pause_writing "
    "resume_writing connection_lost",
    "pipe": "connection_made data_received eof_received pause_writing resume_writing "
    "connection_lost",
    "datagram": "connection_made datagram_received error_received pause_writing resume_writing "
    "connection_lost",
    "tls": "connection_made data_received get_buffer buffer_updated eof_received connection_lost",
}


def skip_tls(kind: str) -> None:
    if kind == "tls" and not HAS_NATIVE_TLS:
        pytest.skip("TLS is asyncio's own there")


def skip_one_context(loop_module: ModuleType) -> None:
    if loop_module.__name__ == "asyncio" and sys.version_info >= (3, 15):
        pytest.skip("asyncio's transport has one context for all callbacks: it is entered already")


@pytest.mark.parametrize("ending", ["abort", "close"])
@pytest.mark.parametrize(
    ("kind", "callback"), [(kind, name) for kind, names in NESTED.items() for name in names.split()]
)
def test_a_connection_that_ends_in_a_run_inside_a_callback(
    loop_module: ModuleType, kind: str, callback: str, ending: str
) -> None:
    """connection_lost comes in there, once, and nothing after it."""
    skip_tls(kind)
    skip_one_context(loop_module)
    if kind == "pipe" and "writing" not in callback:
        ending = "close"  # the reading end has no abort()
    if kind == "tls" or "writing" in callback:
        ending = "abort"  # close() would wait for the other side
    if loop_module.__name__ == "asyncio" and kind == "datagram" and "writing" in callback:
        pytest.skip("asyncio's own transport does not survive that")
    code = f"""
        CALLBACK, ENDING = {callback!r}, {ending!r}
        inside = end
        loop.run_until_complete(asyncio.wait_for({kind}_main(), 60))
        loop.run_until_complete(turns())
        before, after = events[:events.index("inside")], events[events.index("inside") + 1:]
        print(before.count({callback!r}), before.count("connection_lost"), after)
        for buffer in buffers:
            buffer.append(0)  # nobody reads into it any more
        loop.close()
    """
    output = output_of(loop_module, NESTING + textwrap.dedent(code))
    assert output == ["1 1 []"]


SECOND = {
    "socket": ["data_received", "buffer_updated"],
    "pipe": ["data_received"],
    "datagram": ["datagram_received"],
    "tls": ["data_received", "buffer_updated"],
}


@pytest.mark.parametrize(
    ("kind", "callback"), [(kind, name) for kind, names in SECOND.items() for name in names]
)
def test_data_that_comes_in_a_run_inside_a_callback(
    loop_module: ModuleType, kind: str, callback: str
) -> None:
    """It waits for the callback's end: no protocol is called inside its own call. The connection
    goes on.
    """
    skip_tls(kind)
    skip_one_context(loop_module)
    code = f"""
        CALLBACK, ENDING = {callback!r}, "close"
        inside = more
        async def main():
            transport = await {kind}_main()
            await until(lambda: "second" in events)
            send(b"third!")
            await until(lambda: "third!" in events)
            transport.abort() if hasattr(transport, "abort") else transport.close()
        loop.run_until_complete(asyncio.wait_for(main(), 60))
        print(*[event for event in events if event in ("hello", "inside", "second", "third!")])
        loop.close()
    """
    output = output_of(loop_module, NESTING + textwrap.dedent(code))
    hellos = "hello hello hello" if kind == "datagram" else "hello"
    assert output == [hellos.replace("hello", "hello inside", 1) + " second third!"]


def test_datagrams_of_another_socket_in_a_run_inside_a_callback(loop_module: ModuleType) -> None:
    """The rest of a batch is what it was, though another socket has received meanwhile."""
    output = output_of(
        loop_module,
        """
        got = []
        class Protocol(asyncio.DatagramProtocol):
            def __init__(self, name):
                self.name = name
            def datagram_received(self, data, address):
                got.append((self.name, data))
                if data == b"first":
                    other.send(b"of the other socket")
                    asyncio.get_running_loop().run_until_complete(until(lambda: len(got) > 1))
        async def main():
            global other
            loop = asyncio.get_running_loop()
            apply_nest_asyncio(loop)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            watched, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for data in b"first", b"second", b"third":
                theirs.send(data)
            for name, sock in ("a", ours), ("b", watched):
                await loop.create_datagram_endpoint(lambda: Protocol(name), sock=sock)
            await until(lambda: len(got) == 4)
        run(main())
        print(*(data.decode() for name, data in got if name == "a"), sep=", ")
        """,
    )
    assert output == ["first, second, third"]


# -- what else a program may do in there --

# Each prints what is expected of it, which is the same on asyncio's loop.
PROGRAMS = {
    "a list that grows while its items are written": """
        async def main():
            ours, theirs = socket.socketpair()
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
            lines = []
            class Growing:
                def __len__(self):
                    return 3
                def __buffer__(self, flags):
                    if len(lines) < 100:
                        lines.extend([b"x" * 10] * 5000)
                    return memoryview(b"abc")
            lines.append(Growing())
            transport.writelines(lines)
            transport.abort()
        run(main())
        print("written")
        """,
    "a list that shrinks while its items are written": """
        async def main():
            ours, theirs = socket.socketpair()
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
            class Shrinking:
                def __len__(self):
                    return 3
                def __buffer__(self, flags):
                    lines.clear()
                    gc.collect()
                    return memoryview(b"abc")
            lines = [Shrinking(), bytes(5000), bytearray(b"x" * 5000), b"q"]
            transport.writelines(lines)
            transport.abort()
        run(main())
        print("written")
        """,
    "a sequence that says that it is longer than memory": """
        class Sequence:
            def __len__(self):
                return 1 << 60
            def __getitem__(self, index):
                if index == 50:
                    raise IndexError
                if index == 10:
                    transport.abort()
                return b"x" * 1000
        async def main():
            global transport
            ours, theirs = socket.socketpair()
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
            transport.writelines(Sequence())
            await turns()
        run(main())
        print("written")
        """,
    "a buffer whose release ends the connection": """
        class Buffer:
            def __len__(self):
                return 10
            def __buffer__(self, flags):
                return memoryview(bytearray(10))
            def __release_buffer__(self, view):
                view.release()
                if "released" not in events:
                    events.append("released")
                    transport.abort()
                    asyncio.get_running_loop().run_until_complete(turns())
                    gc.collect()
        class Protocol(asyncio.BufferedProtocol):
            def get_buffer(self, size):
                return Buffer()
            def buffer_updated(self, size):
                events.append("updated")
            def connection_lost(self, error):
                events.append("lost")
        async def main():
            global transport
            loop = asyncio.get_running_loop()
            apply_nest_asyncio(loop)
            ours, theirs = socket.socketpair()
            transport, _ = await loop.connect_accepted_socket(Protocol, ours)
            theirs.send(b"hello")
            await until(lambda: "lost" in events)
            await turns()
        events = []
        run(main())
        print(events[-1])
        """,
    "comparing timers cancels them": """
        loop = new_event_loop()
        handles = []
        class Callback:
            def __init__(self):
                self.room = [0] * 50
            def __call__(self):
                pass
            def __eq__(self, other):
                for handle in handles:
                    handle.cancel()
                gc.collect()
                return NotImplemented
            __hash__ = None
        when = loop.time() + 100
        handles += [loop.call_at(when, Callback()), loop.call_at(when, Callback())]
        print(handles[0] == handles[1], [handle.cancelled() for handle in handles])
        handles[:] = [loop.call_at(when, print, Callback()), loop.call_at(when, print, Callback())]
        print(handles[0] != handles[1], [handle.cancelled() for handle in handles])
        loop.close()
        """,
    "closing the loop ends a reader whose end ends a writer": """
        loop = new_event_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        class Callback:
            def __call__(self):
                pass
        callback = Callback()
        callback.sending = loop.sock_sendall(ours, bytes(10_000_000))
        loop.add_reader(ours, callback)
        asyncio.events._set_running_loop(loop)
        callback.sending.send(None)
        asyncio.events._set_running_loop(None)
        del callback
        loop.close()
        print("closed")
        """,
    "what ends with the loop closes it once more": """
        loop = new_event_loop()
        ours, theirs = socket.socketpair()
        class Callback:
            def __call__(self):
                pass
            def __del__(self):
                loop.close()
                try:
                    loop.call_soon(print)
                except RuntimeError:
                    print("closed")
        loop.call_soon(Callback())
        loop.call_later(1, Callback())
        loop.add_reader(ours, Callback())
        loop.add_writer(ours, Callback())
        loop.add_reader(theirs, Callback())
        loop.close()
        loop.close()
        print(loop.is_closed())
        """,
    "a handle that runs itself": """
        loop = new_event_loop()
        asyncio.set_event_loop(loop)
        loop.set_exception_handler(lambda loop, context: None)
        def generator():
            loop.call_soon(loop.stop)
            loop.run_forever()
            gc.collect()
            yield
        handle = loop.call_soon(next, generator())
        handle._run()
        del handle
        loop.run_until_complete(turns())
        loop.close()
        print("ran")
        """,
    "a handle that cancels itself while it runs": """
        loop = new_event_loop()
        class Callback:
            def __call__(self, *args):
                handle.cancel()
                gc.collect()
                print(handle.cancelled(), args == (self, 1, 2, 3, 4))
        callback = Callback()
        handle = loop.call_soon(callback, callback, 1, 2, 3, 4)
        del callback
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        """,
    "a reader that ends itself and comes again": """
        loop = new_event_loop()
        ours, theirs = socket.socketpair()
        class Callback:
            count = 0
            def __call__(self, *args):
                Callback.count += 1
                loop.remove_reader(ours)
                gc.collect()
                loop.add_reader(ours, Callback(), *args)
                if Callback.count == 3:
                    print(args)
                    loop.stop()
        loop.add_reader(ours, Callback(), "an argument", 2)
        theirs.send(b"x")
        loop.run_forever()
        loop.close()
        """,
    "the exception of an await": """
        async def main():
            ours, theirs = socket.socketpair()
            reader, writer = await asyncio.open_connection(sock=ours)
            theirs.send(b"abcdef")
            await until(lambda: reader._buffer)
            class Local:
                pass
            def read():
                local = Local()
                seen.append(weakref.ref(local))
                try:
                    next(reader.read(3).__await__())
                except StopIteration as stop:
                    return stop.value, stop.args
            seen = []
            print(*read())
            gc.collect()
            print(seen[0]())
            global kept
            kept = reader.read(3)
            try:
                next(kept.__await__())
            except StopIteration as stop:
                print(stop.value, stop.args)
            writer.close()
        run(main())
        """,
    "a socket whose send() lies": """
        class Lying(socket.socket):
            def send(self, data):
                lie = self.lies.pop(0) if self.lies else None
                self.sent.append(len(data))
                return super().send(data) if lie is None else lie
        async def send_all(lies):
            loop = asyncio.get_running_loop()
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            lying = Lying(fileno=ours.detach())
            lying.lies, lying.sent = lies, []
            task = asyncio.create_task(loop.sock_sendall(lying, b"0123456789"))
            await turns(200)
            print(task.done() and type(task.exception()).__name__, lying.sent[:4])
            task.cancel()
        async def main():
            for lies in [-1], [3, -3], [-20], [1000], [10], [9, 1], [0], [None], ["x"], [2.5]:
                await send_all(lies)
        run(main())
        """,
    "a buffer whose release ends the operation": """
        class Buffer:
            def __len__(self):
                return 10_000_000
            def __buffer__(self, flags):
                return memoryview(b"x" * 10_000_000)
            def __release_buffer__(self, view):
                view.release()
                try:
                    sending.close()
                except ValueError:
                    pass
                gc.collect()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        async def main():
            global sending
            sending = asyncio.get_running_loop().sock_sendall(ours, Buffer())
            sending.send(None)
            sending.close()
            print("closed")
        run(main())
        """,
    "extra information that is replaced while it is read": """
        class Name(str):
            def __hash__(self):
                transport._extra = {}
                gc.collect()
                return hash("peername")
            def __eq__(self, other):
                transport._extra = {}
                gc.collect()
                return False
        async def main():
            global transport
            ours, theirs = socket.socketpair()
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
            transport.get_extra_info("socket")
            print(transport.get_extra_info(Name("unknown"), "none"))
            transport.abort()
        run(main())
        """,
    "eof_received() whose result ends the connection": """
        class Result:
            def __bool__(self):
                events.append("asked")
                transport.abort()
                gc.collect()
                return True
        class Protocol(asyncio.Protocol):
            def eof_received(self):
                return Result()
            def connection_lost(self, error):
                events.append("lost")
        async def main():
            global transport
            ours, theirs = socket.socketpair()
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(Protocol, ours)
            theirs.close()
            await until(lambda: "lost" in events)
        events = []
        run(main())
        print(*events)
        """,
    "a socket whose close() closes the transport": """
        class Sock(socket.socket):
            def close(self):
                transport.abort()
                transport.close()
                super().close()
                gc.collect()
        async def main():
            global transport
            ours, theirs = socket.socketpair()
            lost = asyncio.Event()
            class Protocol(asyncio.Protocol):
                def connection_lost(self, error):
                    lost.set()
            sock = Sock(fileno=ours.detach())
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(Protocol, sock)
            transport.abort()
            await lost.wait()
            await turns()
            print(sock.fileno(), theirs.recv(1))
        run(main())
        """,
    "data whose end aborts the connection": """
        class Data(bytes):
            def __del__(self):
                events.append("gone")
                transport.abort()
        async def main():
            global transport
            ours, theirs = socket.socketpair()
            lost = asyncio.Event()
            class Protocol(asyncio.Protocol):
                def connection_lost(self, error):
                    lost.set()
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(Protocol, ours)
            for _ in range(10):
                transport.write(Data(1_000_000))
                transport.write(memoryview(Data(1_000_000)))
            theirs.setblocking(False)
            for _ in range(100):
                try:
                    theirs.recv(1_000_000)
                except BlockingIOError:
                    pass
                await turns(1)
            transport.abort()
            await lost.wait()
        events = []
        run(main())
        gc.collect()
        print(events[0])
        """,
    "an address whose look-up ends the socket": """
        class Host(str):
            pass
        def getaddrinfo(*args, **kwargs):
            transport.abort()
            loop.run_until_complete(until(lambda: lost.is_set()))
            gc.collect()
            raise OSError("not found")
        async def main():
            global loop, lost, transport
            loop, lost = asyncio.get_running_loop(), asyncio.Event()
            apply_nest_asyncio(loop)
            class Protocol(asyncio.DatagramProtocol):
                def connection_lost(self, error):
                    lost.set()
            transport, _ = await loop.create_datagram_endpoint(
                Protocol, local_addr=("127.0.0.1", 0))
            class Socket(socket.socket):
                def sendto(self, *args):
                    return getaddrinfo()
            socket.getaddrinfo = getaddrinfo
            try:
                transport.sendto(b"x", ("a.name.that.is.none.invalid", 9))
            except (AttributeError, OSError):
                pass
            transport.abort()
            await lost.wait()
        run(main())
        print("ended")
        """,
    "weak references whose callbacks use the loop": """
        async def main():
            loop = asyncio.get_running_loop()
            called = []
            def gone(reference):
                called.append(loop.call_soon(print))
                called[-1].cancel()
            references = [weakref.ref(loop.call_soon(int), gone)]
            references.append(weakref.ref(loop.call_later(0, int), gone))
            ours, theirs = socket.socketpair()
            transport, protocol = await loop.connect_accepted_socket(asyncio.Protocol, ours)
            references.append(weakref.ref(transport, gone))
            transport.abort()
            del transport
            await turns()
            gc.collect()
            print(len(called), [reference() for reference in references])
        run(main())
        """,
}


EXPECTED = {
    "a sequence that says that it is longer than memory": ["written"],
    "a buffer whose release ends the connection": ["lost"],
    "a list that grows while its items are written": ["written"],
    "a list that shrinks while its items are written": ["written"],
    "comparing timers cancels them": ["False [True, True]", "True [True, True]"],
    "closing the loop ends a reader whose end ends a writer": ["closed"],
    "what ends with the loop closes it once more": ["closed"] * 5 + ["True"],
    "a handle that runs itself": ["ran"],
    "a handle that cancels itself while it runs": ["True True"],
    "a reader that ends itself and comes again": ["('an argument', 2)"],
    "the exception of an await": ["b'abc' (b'abc',)", "None", "b'def' (b'def',)"],
    "a socket whose send() lies": [
        "NoneType [10, 1, 10]",
        "NoneType [10, 7, 10]",
        "NoneType [10, 10, 10, 10]",
        "False [10, 0, 0, 0]",
        "NoneType [10]",
        "NoneType [10, 1]",
        "NoneType [10, 10]",
        "NoneType [10]",
        "TypeError [10]",
        "TypeError [10]",
    ],
    "a buffer whose release ends the operation": ["closed"],
    "extra information that is replaced while it is read": ["none"],
    "eof_received() whose result ends the connection": ["asked lost"],
    "a socket whose close() closes the transport": ["-1 b''"],
    "data whose end aborts the connection": ["gone"],
    "an address whose look-up ends the socket": ["ended"],
    "weak references whose callbacks use the loop": ["3 [None, None, None]"],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program(loop_module: ModuleType, name: str) -> None:
    code = PROGRAMS[name]
    if "__buffer__" in code and not HAS_BUFFER_METHOD:
        pytest.skip("no __buffer__ in Python classes")
    if name == "a buffer whose release ends the connection":
        skip_one_context(loop_module)
    output = output_of(loop_module, code)
    assert output == EXPECTED[name]


TLS = """
import trustme

async def tls_pair():
    loop = asyncio.get_running_loop()
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client = ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    ours, theirs = socket.socketpair()
    accepted = loop.connect_accepted_socket(Protocol, ours, ssl=server)
    connected = loop.create_connection(
        asyncio.Protocol, sock=theirs, ssl=client, server_hostname="localhost")
    (transport, _), (other, _) = await asyncio.gather(accepted, connected)
    return transport, other

class Protocol(asyncio.Protocol):
    def data_received(self, data):
        received.extend(data)

class Keeping:
    def __init__(self, inside):
        self.inside = inside
    def __getattr__(self, name):
        return getattr(self.inside, name)
    def write(self, data):
        kept.append(memoryview(data))
        return self.inside.write(data)
    def read(self, *args):
        kept.extend(args[1:])
        return self.inside.read(*args)

kept, received = [], bytearray()
"""

TLS_PROGRAMS = {
    "a BIO that keeps what it is given": """
        async def main():
            transport, other = await tls_pair()
            transport._ssl_protocol._incoming = Keeping(transport._ssl_protocol._incoming)
            for size in 10, 100_000, 10:
                other.write(bytes(size))
            await until(lambda: len(received) == 100_020)
            other.abort()
            transport.abort()
        run(main())
        gc.collect()
        print(all(bytes(view) for view in kept))
        """,
    "a TLS object that keeps what it is given": """
        async def main():
            transport, other = await tls_pair()
            protocol, others = transport._ssl_protocol, other._ssl_protocol
            protocol._sslobj = Keeping(protocol._sslobj)
            others._sslobj._sslobj = Keeping(others._sslobj._sslobj)
            others._sslobj = others._sslobj
            for size in 10, 100_000, 10:
                other.write(bytes(size))
            await until(lambda: len(received) == 100_020)
            transport.write(bytes(100_000))
            await turns()
            other.abort()
            transport.abort()
        run(main())
        gc.collect()
        print(all(bytes(view) for view in kept))
        """,
    "a backlog that cannot tell whether it is empty": """
        class Backlog(list):
            def __bool__(self):
                raise LookupError
        async def main():
            transport, other = await tls_pair()
            transport._ssl_protocol._write_backlog = Backlog()
            transport.write(b"x")
            await turns()
            print(transport.is_closing())
            other.abort()
        run(main())
        print(*reports)
        """,
    "a list that changes while it is written": """
        class Changing:
            def __init__(self, change):
                self.change = change
            def __buffer__(self, flags):
                self.change()
                gc.collect()
                return memoryview(b"x" * 100)
            def __len__(self):
                self.change()
                return 100
        async def main():
            transport, other = await tls_pair()
            lines = []
            def grow(): lines.extend([b"y"] * 100 if len(lines) < 1000 else [])
            for change in lines.clear, grow:
                lines[:] = [Changing(change), bytes(5000), Changing(change), b"q"]
                transport.writelines(lines)
            other.abort()
            transport.abort()
        run(main())
        print("written")
        """,
}

TLS_EXPECTED = {
    "a backlog that cannot tell whether it is empty": ["True", "Fatal error on SSL protocol"],
    "a list that changes while it is written": ["written"],
}


@pytest.mark.skipif(not HAS_NATIVE_TLS, reason="TLS is asyncio's own there")
@pytest.mark.parametrize("name", TLS_PROGRAMS)
def test_a_program_of_tls(loop_module: ModuleType, name: str) -> None:
    code = TLS_PROGRAMS[name]
    if "__buffer__" in code and not HAS_BUFFER_METHOD:
        pytest.skip("no __buffer__ in Python classes")
    assert output_of(loop_module, TLS + textwrap.dedent(code)) == TLS_EXPECTED.get(name, ["True"])


# -- of casync's own --

OWN = {
    "a loop that is taken from its handle while it dies": """
        from casync._extension import native
        class Argument:
            def __del__(self):
                for handle in handles:
                    found.append(handle._loop)
                    handle.cancel()
                    try:
                        handle._run()
                    except RuntimeError:
                        pass
        found = []
        loop = native.Loop()
        handles = [loop.call_soon(print, Argument()) for _ in range(3)]
        handles += [loop.call_later(1, print, Argument()) for _ in range(3)]
        del loop
        for loop in found:
            if loop is not None:
                try:
                    loop.call_soon(print)
                except RuntimeError:
                    pass
        print(all(handle.cancelled() for handle in handles))
        """,
    "handles of a loop that has gone": """
        class Callback:
            def __call__(self, *args):
                pass
        loop = new_event_loop()
        handles = [loop.call_soon(Callback(), number) for number in range(5)]
        loop._use_asyncio_turns()
        handles += [loop.call_soon(Callback()), loop.call_later(1, Callback())]
        gone = weakref.ref(loop)
        loop.close()
        del loop
        gc.collect()
        for handle in handles:
            repr(handle), handle._callback, handle._args
            if handle._loop is None:
                try:
                    handle._run()
                except RuntimeError:
                    pass
            handle.cancel()
        del handle
        handles.clear()
        gc.collect()
        print(gone())
        """,
    "handles that asyncio's turns run, cancel and leave behind": """
        loop = new_event_loop()
        ran = []
        handles = [loop.call_soon(ran.append, number) for number in range(5)]
        loop._use_asyncio_turns()
        handles[1].cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        print(ran, [handle._callback for handle in handles])
        handles = [loop.call_soon(ran.append, number) for number in range(5)]
        loop._ready.clear()
        loop.close()
        print(loop.is_closed())
        """,
    "a server whose clients are asked for while they end": """
        class Server:
            @property
            def _clients(self):
                for transport in list(transports):
                    transport._force_close(None)
                transports.clear()
                gc.collect()
            def _attach(self, *args):
                pass
            _detach = _attach
        async def main():
            loop = asyncio.get_running_loop()
            def keep(*streams): kept.extend(streams)
            server = await asyncio.start_server(keep, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await until(lambda: kept)
            for _ in range(3):
                ours, theirs = socket.socketpair()
                ours.setblocking(False)
                protocol, owner = asyncio.Protocol(), Server()
                transports.append(loop._make_socket_transport(ours, protocol, server=owner))
            await turns()
            print(len(list(server._clients)) if hasattr(server, "close_clients") else 1)
            writer.close()
            server.close()
        transports, kept = [], []
        run(main())
        """,
    "what the native module is given by hand": """
        loop = new_event_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        asyncio.events._set_running_loop(loop)
        operation = loop.sock_recv(ours, 1)
        operation.send(None)
        asyncio.events._set_running_loop(None)
        _, _, handle, _ = loop._watched(ours.fileno())
        for wrong in 5, None, loop, handle:
            try:
                handle._callback(wrong)
            except TypeError:
                print("refused")
        operation.close()
        loop.close()
        """,
    "a program that ends with all of it in its globals": """
        async def main():
            global server, reader, writer, transport, waiting, timer
            loop = asyncio.get_running_loop()
            server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            waiting = [asyncio.create_task(loop.sock_recv(ours, 1))]
            waiting.append(asyncio.create_task(reader.read()))
            waiting += [ours, theirs]
            await turns()
            timer = loop.call_later(1000, print, waiting)
        loop = new_event_loop()
        loop.run_until_complete(main())
        loop.itself = loop
        native = sys.modules[loop.__module__].native
        operation = reader.read(5)
        print("end")
        """,
}

OWN_EXPECTED = {
    "a loop that is taken from its handle while it dies": ["True"],
    "handles of a loop that has gone": ["None"],
    "handles that asyncio's turns run, cancel and leave behind": [
        "[0, 2, 3, 4] [None, None, None, None, None]",
        "True",
    ],
    "a server whose clients are asked for while they end": ["1"],
    "what the native module is given by hand": ["refused"] * 4,
    "a program that ends with all of it in its globals": ["end"],
}


@pytest.mark.parametrize("name", OWN)
def test_a_program_of_casyncs_own(casync: ModuleType, name: str) -> None:
    assert output_of(casync, OWN[name]) == OWN_EXPECTED[name]
