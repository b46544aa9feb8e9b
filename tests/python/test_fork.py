"""os.fork and multiprocessing in a process that has loops. Each test is a program of its own."""

from __future__ import annotations

from types import ModuleType

from support import run_script

COMMON = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)

async def echo():
    async def serve(reader, writer):
        writer.write(await reader.read(10))
        writer.close()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello")
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()

def in_child(function):
    "Runs a function in a forked child, and checks that it ended well."
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status

def run_echo():
    loop = new_event_loop()
    loop.run_until_complete(asyncio.wait_for(echo(), 60))
    loop.close()
"""


def run(loop_module: ModuleType, code: str) -> str:
    import textwrap

    return run_script(loop_module, COMMON + textwrap.dedent(code))


def test_a_child_makes_a_loop_of_its_own(loop_module: ModuleType) -> None:
    run(
        loop_module,
        """
        loop = new_event_loop()
        loop.run_until_complete(echo())
        in_child(run_echo)
        loop.run_until_complete(echo())
        loop.close()
        """,
    )


def test_a_child_forked_inside_a_callback_makes_a_loop_of_its_own(loop_module: ModuleType) -> None:
    run(
        loop_module,
        """
        def child():
            assert asyncio._get_running_loop() is None
            run_echo()
        async def main():
            await echo()
            in_child(child)
            await echo()
        loop = new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        """,
    )


def test_a_child_may_close_the_inherited_loop(casync: ModuleType) -> None:
    # asyncio's own loop takes the parent's descriptors out of the epoll they share.
    run(
        casync,
        """
        ours, theirs = socket.socketpair()
        loop = new_event_loop()
        got = []
        def readable():
            got.append(ours.recv(1))
            loop.stop()
        loop.add_reader(ours, readable)
        loop.run_until_complete(asyncio.sleep(0))
        def child():
            loop.remove_reader(ours)
            loop.close()
            run_echo()
        in_child(child)
        theirs.send(b"x")
        loop.run_forever()
        assert got == [b"x"]
        loop.remove_reader(ours)
        threading.Timer(0.01, loop.call_soon_threadsafe, (loop.stop,)).start()
        loop.run_forever()
        loop.run_until_complete(echo())
        loop.close()
        """,
    )


def test_a_child_may_drop_the_inherited_loop(casync: ModuleType) -> None:
    run(
        casync,
        """
        import gc
        loop = new_event_loop()
        loop.call_later(1000, print)
        loop.run_until_complete(asyncio.sleep(0))
        def child():
            global loop
            warnings.simplefilter("ignore")
            del loop
            gc.collect()
            run_echo()
        in_child(child)
        threading.Timer(0.01, loop.call_soon_threadsafe, (loop.stop,)).start()
        loop.run_forever()
        loop.run_until_complete(echo())
        loop.close()
        """,
    )


def test_a_child_may_go_on_with_the_inherited_loop(casync: ModuleType) -> None:
    run(
        casync,
        """
        ours, theirs = socket.socketpair()
        loop = new_event_loop()
        loop.run_until_complete(echo())
        def child():
            threading.Timer(0.01, loop.call_soon_threadsafe, (print,)).start()
            loop.run_until_complete(asyncio.wait_for(echo(), 60))
        in_child(child)
        loop.run_until_complete(echo())
        loop.close()
        """,
    )


def test_multiprocessing_by_fork_and_spawn(loop_module: ModuleType) -> None:
    run(
        loop_module,
        """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        async def main(method):
            context = multiprocessing.get_context(method)
            with ProcessPoolExecutor(2, mp_context=context) as pool:
                loop = asyncio.get_running_loop()
                calls = [loop.run_in_executor(pool, pow, 2, n) for n in range(10)]
                powers = await asyncio.gather(*calls)
                assert powers == [2**n for n in range(10)]
        if __name__ == "__main__":
            for method in "fork", "spawn":
                loop = new_event_loop()
                loop.run_until_complete(main(method))
                loop.close()
        """,
    )
