"""Programs in which something goes wrong, run on asyncio's own loop and on casync's: what they
print, their exit status, and what reaches the exception handler must be the same."""

from __future__ import annotations

import asyncio
import re
import sys
import textwrap
from types import ModuleType

import pytest
from support import ended, run_script, start_script

# What the programs share. Each may define more; `loop` is new, and `show` prints what went wrong.
HEAD = """
import atexit, collections, contextlib, faulthandler, gc, multiprocessing, time, warnings
warnings.simplefilter("ignore", ResourceWarning)
warnings.simplefilter("ignore", DeprecationWarning)
faulthandler.dump_traceback_later(50, exit=True)
loop = new_event_loop()

def show(loop, context):
    "A message names functions, and native code has others: but then there is an exception."
    error = context.get("exception")
    print("handler:", repr(error) if error else context["message"], sys.exc_info()[1] is error)

loop.set_exception_handler(show)

def close_loop():
    if not loop.is_running(): loop.close()

atexit.register(close_loop) # else debug mode complains while the interpreter ends

@contextlib.contextmanager
def told(*kinds):
    "Prints what the block raises."
    try:
        yield
    except BaseException as error:
        print("raised:", type(error).__name__, error)
    else:
        print("nothing raised")

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Base(BaseException):
    pass

def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs

class Protocol(asyncio.Protocol):
    "Prints what it is told; each method may be replaced by one that raises."
    def connection_made(self, transport): print("made")
    def data_received(self, data): print("data", data)
    def eof_received(self): print("eof")
    def pause_writing(self): print("pause")
    def resume_writing(self): print("resume")
    def connection_lost(self, exc): print("lost", repr(exc))

def raiser(error):
    def method(self, *args):
        raise error
    return method

async def turns(count=10):
    for _ in range(count):
        await asyncio.sleep(0.001)
"""

PROGRAMS = {
    # -- what ends the program, wherever it is raised --
    "SystemExit in a callback": """
        loop.call_soon(sys.exit, 7)
        loop.run_forever()
    """,
    "SystemExit in a task": """
        async def main(): sys.exit(8)
        loop.run_until_complete(main())
    """,
    "SystemExit in a task that somebody awaits": """
        async def child(): sys.exit(9)
        async def main():
            with told(): await asyncio.create_task(child())
        with told(): loop.run_until_complete(main())
        with told(): loop.run_until_complete(asyncio.sleep(0, "goes on"))
    """,
    "SystemExit in a done callback": """
        future = loop.create_future()
        future.add_done_callback(lambda _: sys.exit(6))
        loop.call_soon(future.set_result, 1)
        with told(): loop.run_until_complete(future)
        print(loop.run_until_complete(asyncio.sleep(0, "goes on")), loop.is_running())
    """,
    "SystemExit in a signal handler of the loop": """
        loop.add_signal_handler(signal.SIGUSR1, sys.exit, 5)
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
        loop.run_forever()
    """,
    "SystemExit in a plain signal handler": """
        signal.signal(signal.SIGUSR1, lambda *_: sys.exit(4))
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
        loop.run_forever()
    """,
    "SystemExit in a reader": """
        ours, theirs = pair()
        loop.add_reader(ours, sys.exit, 3)
        theirs.send(b"x")
        with told(): loop.run_forever()
        loop.remove_reader(ours)
        print(loop.run_until_complete(asyncio.sleep(0, "goes on")))
    """,
    "SystemExit in the exception handler": """
        loop.set_exception_handler(lambda *_: sys.exit(2))
        loop.call_soon(divmod, 1, 0)
        loop.run_forever()
    """,
    "SystemExit in a timer, others due at the same time": """
        now = loop.time()
        loop.call_at(now, print, "before")
        loop.call_at(now + 0.001, sys.exit, 3)
        loop.call_at(now + 0.002, print, "after")
        with told(): loop.run_forever()
        loop.call_later(0.005, loop.stop)
        loop.run_forever()
    """,
    "KeyboardInterrupt raised by callbacks one after the other": """
        def fail(): raise KeyboardInterrupt("by a callback")
        for _ in range(3): loop.call_soon(fail)
        loop.call_soon(print, "the rest")
        for _ in range(4):
            loop.call_soon(loop.stop)
            with told(): loop.run_forever()
    """,
    "a BaseException of one's own in a callback": """
        def fail(): raise Base("by a callback")
        loop.call_soon(fail)
        loop.call_soon(print, "the rest")
        loop.call_soon(loop.stop)
        with told(): loop.run_forever()
    """,
    "a BaseException of one's own in a task": """
        async def main(): raise Base("by a task")
        with told(): loop.run_until_complete(main())
    """,
    "a BaseException in the exception handler": """
        import logging
        class Log(logging.Handler):
            def emit(self, record):
                error = record.exc_info[1]
                print(record.getMessage().splitlines()[0], repr(error), repr(error.__context__))
        asyncio.log.logger.addHandler(Log())
        def handler(*_): raise Base("by the handler")
        loop.set_exception_handler(handler)
        loop.call_soon(divmod, 1, 0)
        loop.call_soon(loop.stop)
        with told(): loop.run_forever()
    """,
    "an exception in a handler that replaced call_exception_handler": """
        def handler(context): raise LookupError("by the method")
        loop.call_exception_handler = handler
        loop.call_soon(divmod, 1, 0)
        loop.call_soon(print, "the rest")
        loop.call_soon(loop.stop)
        with told(): loop.run_forever()
    """,
    "GeneratorExit and StopIteration in callbacks": """
        def fail(error): raise error
        loop.call_soon(fail, GeneratorExit("g"))
        loop.call_soon(fail, StopIteration("s"))
        loop.call_soon(fail, asyncio.CancelledError("c"))
        loop.call_soon(loop.stop)
        with told(): loop.run_forever()
        with told(): loop.create_future().set_exception(StopIteration("into a future"))
    """,
    # -- Ctrl-C --
    "Ctrl-C in a callback that sends it": """
        loop.call_soon(interrupt)
        loop.call_soon(print, "the turn goes on or not")
        with told(): loop.run_forever()
        print(loop.is_running(), loop.is_closed())
    """,
    "Ctrl-C between two runs": """
        loop.run_until_complete(asyncio.sleep(0))
        with told(): interrupt()
        print(loop.run_until_complete(asyncio.sleep(0, "goes on")))
    """,
    "Ctrl-C while a thread has work for the loop": """
        def work():
            time.sleep(0.02) # likely the loop waits by then, but main() has begun in any case
            interrupt()
        async def main():
            loop.call_soon(threading.Thread(target=work).start)
            try: await asyncio.sleep(1000)
            finally: print("main ends")
        task = loop.create_task(main())
        with told(): loop.run_until_complete(task)
        task.cancel()
        with told(): loop.run_until_complete(task)
    """,
    "Ctrl-C ignored, or handled by the loop": """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        loop.call_soon(interrupt)
        loop.run_until_complete(asyncio.sleep(0.01))
        got = loop.create_future()
        loop.add_signal_handler(signal.SIGINT, lambda: got.done() or got.set_result("got"))
        loop.call_soon(interrupt)
        print(loop.run_until_complete(got))
        loop.remove_signal_handler(signal.SIGINT)
        with told():
            loop.call_soon(interrupt)
            loop.run_forever()
    """,
    "Ctrl-C in a data_received that computes": """
        class Busy(Protocol):
            def data_received(self, data):
                interrupt()
                for _ in range(1000): pass
        ours, theirs = pair()
        loop.run_until_complete(loop.create_connection(Busy, sock=ours))
        theirs.send(b"x")
        with told(): loop.run_forever()
        theirs.close()
        loop.run_until_complete(turns())
    """,
    "Ctrl-C while a runner waits": """
        loop.close()
        async def main():
            threading.Timer(0.02, interrupt).start()
            try: await asyncio.sleep(1000)
            except asyncio.CancelledError as error:
                print("cancelled", error)
                raise
        if sys.version_info >= (3, 11):
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                for _ in range(2):
                    with told(): runner.run(main())
                print(runner.run(asyncio.sleep(0, "the runner goes on")))
    """,
    # -- protocols that raise --
    **{
        f"{error} in {method}": f"""
            class Failing(Protocol):
                {method} = raiser({error}("of {method}"))
            ours, theirs = pair()
            async def main():
                transport, _ = await loop.create_connection(Failing, sock=ours)
                await turns(3)
                with contextlib.suppress(OSError): theirs.send(b"hello")
                await turns(3)
                with contextlib.suppress(OSError): theirs.shutdown(socket.SHUT_WR)
                await turns(3)
                print(transport.is_closing())
                transport.abort()
                await turns(3)
            task = loop.create_task(main())
            while not task.done():
                with told(): loop.run_until_complete(task)
        """
        for method in ("connection_made", "data_received", "eof_received", "connection_lost")
        for error in ("LookupError", "SystemExit", "KeyboardInterrupt", "Base")
        # After one that ends the program asyncio calls eof_received again, if there is another run.
        if (method, error)
        not in (("eof_received", "SystemExit"), ("eof_received", "KeyboardInterrupt"))
    },
    "pause_writing and resume_writing that raise": """
        class Failing(Protocol):
            pause_writing = raiser(LookupError("of pause_writing"))
            resume_writing = raiser(LookupError("of resume_writing"))
        ours, theirs = pair()
        async def main():
            transport, _ = await loop.create_connection(Failing, sock=ours)
            transport.write(bytes(10_000_000))
            left = 10_000_000
            while left: left -= len(await loop.sock_recv(theirs, 1 << 20))
            await turns()
            transport.close()
            await turns()
        loop.run_until_complete(main())
    """,
    **{
        f"SystemExit in {method}": f"""
        class Failing(Protocol):
            {method} = raiser(SystemExit(5))
        ours, theirs = pair()
        async def main():
            transport, _ = await loop.create_connection(Failing, sock=ours)
            transport.write(bytes(10_000_000))
            while True: await loop.sock_recv(theirs, 1 << 20)
        loop.run_until_complete(main())
        """
        for method in ("pause_writing", "resume_writing")
    },
    # Not writelines(), which in asyncio 3.12.0 and 3.13.0 pauses nobody.
    **{
        f"{error} raised by pause_writing to who writes": f"""
        class Failing(Protocol):
            pause_writing = raiser({error}("of pause_writing"))
        async def main():
            for write in [
                lambda transport: transport.write(bytes(10_000_000)),
                lambda transport: transport.write(bytearray(10_000_000)),
                lambda transport: transport.write(memoryview(bytes(10_000_000))),
                lambda transport: transport.set_write_buffer_limits(0),
            ]:
                ours, theirs = pair()
                transport, _ = await loop.create_connection(Failing, sock=ours)
                while not transport.get_write_buffer_size(): transport.write(bytes(1024))
                with told(): write(transport)
                print(transport.get_write_buffer_size() > 0, transport.is_closing())
                with told(): transport.write(b"more")
                await turns()
                transport.abort()
                await turns()
                theirs.close()
        loop.run_until_complete(main())
        """
        for error in ("SystemExit", "KeyboardInterrupt", "LookupError")
    },
    "SystemExit raised by pause_writing of who writes in there": """
        class Failing(Protocol):
            def pause_writing(self):
                print("pause")
                self.transport.write(b"from pause_writing")
                raise SystemExit(5)
        async def main():
            ours, theirs = pair()
            transport, protocol = await loop.create_connection(Failing, sock=ours)
            protocol.transport = transport
            with told(): transport.write(bytes(10_000_000))
            await turns()
            transport.abort()
            await turns()
        loop.run_until_complete(main())
    """,
    "SystemExit raised by pause_writing of datagrams": """
        class Failing(asyncio.DatagramProtocol):
            pause_writing = raiser(SystemExit(5))
        ours, theirs = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
        theirs.bind("\\0" + f"casync-{os.getpid()}")  # asyncio sends only to who has a name
        ours.connect(theirs.getsockname())
        async def main():
            transport, _ = await loop.create_datagram_endpoint(Failing, sock=ours)
            transport.set_write_buffer_limits(0)
            while not transport.get_write_buffer_size():
                try: transport.sendto(bytes(1000))
                except SystemExit as error: print("raised:", repr(error))
            transport.sendto(bytes(1000))
            await turns()
            transport.abort()
            await turns()
        loop.run_until_complete(main())
    """,
    "a server's protocol factory that raises": """
        async def main():
            def factory(): raise LookupError("of the factory")
            server = await loop.create_server(factory, "127.0.0.1", 0)
            client = socket.create_connection(server.sockets[0].getsockname())
            await turns()
            server.close()
            client.close()
            await turns()
        with told(): loop.run_until_complete(main())
    """,
    "datagram_received and error_received that raise": """
        class Failing(asyncio.DatagramProtocol):
            datagram_received = raiser(LookupError("of datagram_received"))
            connection_lost = lambda self, exc: print("lost", exc)
        async def main():
            transport, _ = await loop.create_datagram_endpoint(Failing, local_addr=("127.0.0.1", 0))
            with socket.socket(type=socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x", transport.get_extra_info("sockname"))
                await turns()
            print(transport.is_closing())
            transport.close()
            await turns()
        with told(): loop.run_until_complete(main())
    """,
    # -- use after close --
    "addresses asked for after the end": """
        def ended(transport):
            return [transport.get_extra_info(name) for name in ("sockname", "peername", "nothing")]
        async def one(family, address):
            made, gone = [], asyncio.Event()
            class Kept(asyncio.Protocol):
                def connection_made(self, transport):
                    made.append(transport)
                    transport.close()
                def connection_lost(self, exc):
                    if len(made) == 2: gone.set()
            listener = socket.socket(family)
            listener.bind(address)
            expected = listener.getsockname()
            async with await loop.create_server(Kept, sock=listener):
                with socket.socket(family) as client:
                    client.setblocking(False)
                    await loop.sock_connect(client, expected)
                    client_name = client.getsockname()
                    transport, _ = await loop.create_connection(Kept, sock=client)
                    while len(made) < 2: await turns(1)
                    await gone.wait()
                    await turns()
            own, other = sorted(made, key=lambda one: one is not transport)
            print(ended(own) == [client_name, expected, None])
            print(ended(other) == [expected, client_name, None])
        async def main():
            await one(socket.AF_INET, ("127.0.0.1", 0))
            await one(socket.AF_INET6, ("::1", 0))
            await one(socket.AF_UNIX, f"\\0casync-{os.getpid()}")
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, ("127.0.0.1", 0))
            name = transport.get_extra_info("socket").getsockname()
            transport.close()
            await turns()
            print(ended(transport) == [name, None, None])
        loop.run_until_complete(main())
    """,
    "addresses of a socket that the protocol closes, and another's that has its number": """
        class Closes(asyncio.Protocol):
            def connection_lost(self, exc):
                number = ours.fileno()
                ours.close()
                self.other = socket.socket()
                self.other.bind(("127.0.0.1", 0))
                print(self.other.fileno() == number)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            names = [ours.getsockname(), ours.getpeername(), 1]
            ours.setblocking(False)
            async def main():
                transport, protocol = await loop.create_connection(Closes, sock=ours)
                transport.close()
                await turns()
                asked = "sockname", "peername", "nothing"
                print([transport.get_extra_info(name, 1) for name in asked] == names)
                protocol.other.close()
            loop.run_until_complete(main())
    """,
    "addresses asked for in __del__": """
        class Kept(asyncio.Protocol):
            def connection_made(self, transport): self.transport = transport
            def __del__(self):
                found = {name: self.transport.get_extra_info(name) for name in names}
                print([found[name] == names[name] for name in names])
        async def connect(family, address):
            with socket.socket(family) as listener:
                listener.bind(address)
                listener.listen()
                ours = socket.socket(family)
                ours.connect(listener.getsockname())
                names.update(sockname=ours.getsockname(), peername=ours.getpeername())
                ours.setblocking(False)
                return (await loop.create_connection(Kept, sock=ours))[0]
        for family, address in [
            (socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0)), (socket.AF_UNIX, "")
        ]:
            names = {}
            transport = loop.run_until_complete(connect(family, address))
            transport.abort()
            del transport
            loop.run_until_complete(turns())
            gc.collect()
        names = {}
        transport = loop.run_until_complete(connect(socket.AF_INET, ("127.0.0.1", 0)))
        loop.close()
        del transport
        gc.collect()
    """,
    "an _extra of another kind": """
        async def main():
            for extra in collections.ChainMap({"a": 1}), None, ["a"]:
                ours, theirs = pair()
                transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
                transport._extra = extra
                info = transport.get_extra_info
                with told(): print(info("a", 2), info("b", 2))
                transport.close()
                await turns()
                theirs.close()
        loop.run_until_complete(main())
    """,
    "what never was watched": """
        for number in 1000, 1 << 40, 1 << 1000, -1, "no file":
            with told(): print(loop.remove_reader(number), loop.remove_writer(number))
    """,
    "everything after close": """
        ours, theirs = pair()
        async def nothing(): pass
        loop.run_until_complete(nothing())
        loop.close()
        loop.close()
        for call in [
            lambda: loop.call_soon(print),
            lambda: loop.call_soon_threadsafe(print),
            lambda: loop.call_later(1, print),
            lambda: loop.call_at(1, print),
            lambda: loop.run_forever(),
            lambda: loop.run_until_complete(loop.create_future()),
            lambda: loop.add_reader(ours, print),
            lambda: loop.add_writer(ours, print),
            lambda: loop.remove_reader(ours),
            lambda: loop.remove_writer(ours),
            lambda: loop.run_in_executor(None, print),
            lambda: loop.add_signal_handler(signal.SIGUSR1, print),
            lambda: loop.remove_signal_handler(signal.SIGUSR1),
            lambda: loop.stop(),
            lambda: loop.set_debug(True),
            lambda: loop.get_debug(),
            lambda: loop.is_running(),
            lambda: loop.call_exception_handler({"message": "after close"}),
            lambda: loop.set_task_factory(None),
            lambda: type(loop.time()),
            lambda: loop.create_future().done(),
        ]:
            with told(): print(call())
        coroutine = nothing()
        with told(): loop.create_task(coroutine)
        coroutine.close()
        print(repr(loop).split(" ", 1)[1])
    """,
    "transports after their loop was closed": """
        ours, theirs = pair()
        transport, _ = loop.run_until_complete(loop.create_connection(Protocol, sock=ours))
        server = loop.run_until_complete(loop.create_server(Protocol, "127.0.0.1", 0))
        loop.close()
        with told(): print(transport.get_write_buffer_size())
        with told(): print(transport.get_protocol().__class__.__name__)
        with told(): server.close()
        with told(): print(server.is_serving())
        del transport, server
        gc.collect()
    """,
    "close in a callback": """
        def callback():
            with told(): loop.close()
            loop.stop()
        loop.call_soon(callback)
        loop.run_forever()
        print(loop.is_closed())
        loop.close()
    """,
    "closing while a task waits": """
        async def waits():
            try: await asyncio.Event().wait()
            finally: print("never, or when it is collected")
        task = loop.create_task(waits())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        with told(): task.cancel()
        print(task.cancelled(), task.done())
        os._exit(0)
    """,
    "stopping more than once": """
        loop.stop()
        loop.stop()
        loop.call_soon(print, "in the first turn")
        loop.run_forever()
        loop.call_soon(lambda: (loop.stop(), loop.stop(), loop.call_soon(print, "in the next run")))
        loop.run_forever()
        loop.stop()
        loop.run_forever()
    """,
    # -- loops in loops, and in the wrong thread --
    "a loop in a loop": """
        other = new_event_loop()
        async def inner(): return 1
        async def main(run):
            coroutine = inner()
            with told(): run(coroutine)
            coroutine.close()
        for each in loop, other:
            loop.run_until_complete(main(each.run_until_complete))
            loop.run_until_complete(main(lambda _: each.run_forever()))
        loop.run_until_complete(main(asyncio.run))
        with told(): loop.run_until_complete(other.create_future())
        other.close()
    """,
    "calls from the wrong thread in debug mode": """
        loop.set_debug(True)
        def work():
            with told(): loop.call_soon(print)
            with told(): loop.call_later(1, print)
            with told(): loop.call_at(1, print)
            with told(): asyncio.get_running_loop()
            with told(): loop.call_soon_threadsafe(called.append, "thread safe")
        called = []
        async def main():
            await loop.run_in_executor(None, work)
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
        print(called)
    """,
    "deep recursion in a callback": """
        def deeper(): deeper()
        loop.call_soon(deeper)
        loop.call_soon(print, "the rest")
        loop.call_soon(loop.stop)
        loop.set_exception_handler(lambda _, context: print(type(context["exception"]).__name__))
        loop.run_forever()
    """,
    "deep recursion of data_received and write": """
        class Echo(Protocol):
            def connection_made(self, transport): self.transport = transport
            def data_received(self, data):
                def deeper(level):
                    if level == 0: self.transport.write(data)
                    else: deeper(level - 1)
                deeper(800)
        ours, theirs = pair()
        async def main():
            transport, _ = await loop.create_connection(Echo, sock=ours)
            for _ in range(20):
                await loop.sock_sendall(theirs, b"x")
                print(await loop.sock_recv(theirs, 10))
            transport.abort()
            await turns()
        loop.run_until_complete(main())
    """,
    # -- fork and processes --
    "a fork in a task, and the child ends at once": """
        async def main():
            pid = os.fork()
            if pid == 0: os._exit(3)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            await turns()
            print("the parent goes on")
        loop.run_until_complete(main())
    """,
    "a fork in a task, and a new loop in the child": """
        async def child(): await turns(); print("the child's loop"); return 4
        async def main():
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                with told(): asyncio.get_running_loop()
                asyncio._set_running_loop(None)
                other = new_event_loop()
                status = other.run_until_complete(child())
                other.close()
                sys.stdout.flush()
                os._exit(status)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            await turns()
        loop.run_until_complete(main())
        loop.close()
    """,
    "processes by every start method": """
        import concurrent.futures
        async def main(method):
            context = multiprocessing.get_context(method)
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
                print(method, await loop.run_in_executor(executor, pow, 2, 10))
        if __name__ == "__main__":
            for method in "fork", "spawn", "forkserver":
                loop.run_until_complete(main(method))
    """,
    # -- the end of the interpreter --
    "the end with everything open": """
        async def main():
            server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
            kept = [server, await asyncio.open_connection(*server.sockets[0].getsockname())]
            process = await asyncio.create_subprocess_exec("sleep", "1000")
            kept += [process, loop.create_task(turns(1000))]
            kept += [loop.run_in_executor(None, print, "executor")]
            await kept[-1] # its thread may stall longer than all of this takes
            await turns()
            process.kill()
            await process.wait()
            return kept
        loop.set_exception_handler(None)
        import logging
        logging.disable()
        kept = loop.run_until_complete(main())
        atexit.unregister(close_loop)
        print("the end")
    """,
    "the end in a daemon thread": """
        atexit.unregister(close_loop)
        def work():
            other = new_event_loop()
            other.call_soon(started.set)
            other.run_forever()
        started = threading.Event()
        for _ in range(5): threading.Thread(target=work, daemon=True).start()
        started.wait()
        print("the end")
    """,
    "the end in atexit": """
        def at_exit():
            print(loop.run_until_complete(asyncio.sleep(0.001, "run at exit")))
        atexit.register(at_exit)
        loop.run_until_complete(asyncio.sleep(0))
    """,
    "the end in a finalizer": """
        class Last:
            def __init__(self): self.new = new_event_loop
            def __del__(self):
                other = self.new()
                other.call_soon(other.stop)
                other.run_forever()
                other.close()
                os.write(1, b"run by a finalizer\\n")
        last = Last()
        del last
        gc.collect()
    """,
    "asyncio.run again and again": """
        loop.close()
        for number in range(3):
            if sys.version_info >= (3, 11):
                with asyncio.Runner(loop_factory=new_event_loop) as runner:
                    print(runner.run(asyncio.sleep(0, number)))
                    print(runner.run(asyncio.sleep(0, -number)))
                with told(): runner.get_loop()
    """,
}


def observed(loop_module: ModuleType, code: str, *flags: str) -> list[str]:
    """What a program does: its exit status and output, without what may differ from run to run."""
    process = start_script(loop_module, HEAD + textwrap.dedent(code), *flags)
    output = ended(process, status=None)
    output = re.sub(r"0x[0-9a-f]+|\bfd=\d+|pid=\d+", "N", output)
    output = re.sub(
        r"_UnixSelectorEventLoop|(?<=<)EventLoop|casync\.loop\.EventLoop", "Loop", output
    )
    output = re.sub(
        r"_SelectorSocketTransport|casync\._native\.SocketTransport", "Transport", output
    )
    lines = [line for line in output.splitlines() if not re.match(r"^\s*(File |\^|~)", line)]
    return [f"status {process.returncode}", *lines]


@pytest.mark.parametrize("flags", [[], ["-X", "dev"]], ids=["", "dev"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_does_the_same(casync: ModuleType, name: str, flags: list[str]) -> None:
    if name == "a server's protocol factory that raises" and not flags:
        pytest.skip("asyncio tells of it in debug mode alone, casync always: test_servers")
    if name.startswith("the end") and flags:
        pytest.skip("what debug mode says while the interpreter ends is not the loop's")
    expected = observed(asyncio, PROGRAMS[name], *flags)
    assert observed(casync, PROGRAMS[name], *flags) == expected
    assert "Timeout" not in "".join(expected)


@pytest.mark.skipif(
    sys.version_info < (3, 13), reason="3.12.1 itself crashes at exit after asyncio in one"
)
def test_a_loop_in_a_subinterpreter(casync: ModuleType) -> None:
    """Of which each has modules of its own; by whatever private module this Python has for that."""
    code = "import asyncio, casync; print(casync.run(asyncio.sleep(0.001, 'in here')), flush=True)"
    program = f"""
        code = {code!r}
        try:
            import _interpreters as interpreters
            run = interpreters.exec
        except ImportError:
            import _xxsubinterpreters as interpreters
            run = interpreters.run_string
        for _ in range(2):
            one = interpreters.create()
            assert run(one, code) is None
            interpreters.destroy(one)
        exec(code)
    """
    assert run_script(casync, program) == "in here\n" * 3


@pytest.mark.skipif(
    sys.version_info < (3, 13), reason="3.12.1 itself crashes at exit after asyncio in one"
)
def test_loops_in_subinterpreters_at_once(casync: ModuleType) -> None:
    """Each in a thread, with a GIL of its own."""
    code = textwrap.dedent("""
        import asyncio, casync
        async def main():
            async def echo(reader, writer):
                while data := await reader.read(100):
                    writer.write(data)
                writer.close()
            async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                for _ in range(500):
                    writer.write(b"x")
                    await reader.readexactly(1)
                await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(100)))
                writer.close()
        casync.run(main())
    """)
    program = f"""
        import _interpreters as interpreters
        code, failed = {code!r}, []
        assert interpreters.new_config("isolated").gil == "own"
        def work():
            one = interpreters.create("isolated")
            failed.append(interpreters.exec(one, code))
            interpreters.destroy(one)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        exec(code)
        for thread in threads: thread.join()
        print(failed)
    """
    assert run_script(casync, program) == "[None, None, None, None]\n"


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="asyncio's own run_forever is not undone there"
)
def test_a_loop_without_memory(casync: ModuleType) -> None:
    """Each allocation in turn fails: a MemoryError somewhere, and the loop goes on."""
    pytest.importorskip("_testcapi")
    output = run_script(
        casync,
        """
        import _testcapi
        loop = new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        failed = 0
        def use():
            loop.call_soon(int)
            loop.call_later(0, int)
            loop.call_soon_threadsafe(max, 1, 2, 3, 4)
            loop.create_future()
            loop.call_soon(loop.stop)
            loop.run_forever()
        use()
        for count in range(200):
            _testcapi.set_nomemory(count, count + 1)
            try:
                use()
            except MemoryError:
                failed += 1
            finally:
                _testcapi.remove_mem_hooks()
        assert failed > 0
        print(loop.run_until_complete(asyncio.sleep(0.001, "goes on")))
        loop.close()
        """,
        "-W",
        "ignore",
    )
    assert output.splitlines()[-1] == "goes on"
