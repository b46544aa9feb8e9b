"""I/O-bound beside CPU-bound, measured.

Run it from the repository's root:   python3 examples/study/03_io_bound_cpu_bound.py

I/O-bound work waits for others: a network, a disk, a child process. Its time does not depend on
your CPU, and any number of waits can go on at once. CPU-bound work computes: at once it can only be
done as often as there are CPUs, and in Python code only in as many processes (page 2).

    work        threads                     tasks (asyncio)             processes
    I/O-bound   at once; a stack each       at once; some 2 KiB each    at once; each an interpreter
    CPU-bound   one at a time, by the GIL   one at a time, and the      at once, a CPU each
                                            loop stands still

Modules in C may release the GIL while they compute (hashlib, zlib, numpy): then threads do help.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

JOBS = 8


def io_bound(seconds: float = 0.02) -> int:
    time.sleep(seconds)  # stands for an answer from the network
    return 1


def cpu_bound(n: int = 300_000) -> int:
    total = 0
    for number in range(n):
        total += number & 1
    return total


async def io_bound_task() -> int:
    await asyncio.sleep(0.02)
    return 1


async def cpu_bound_task() -> int:
    return cpu_bound()  # `async` in front makes it no faster, and nothing here awaits


def one_by_one(work: Callable[[], int]) -> Sequence[int]:
    return [work() for _ in range(JOBS)]


def with_pool(pool: Executor, work: Callable[[], int]) -> Sequence[int]:
    return [job.result() for job in [pool.submit(work) for _ in range(JOBS)]]


def with_tasks(work: Callable[[], object]) -> Sequence[int]:
    async def main() -> Sequence[int]:
        return await asyncio.gather(*(work() for _ in range(JOBS)))

    return asyncio.run(main())


def timed(name: str, how: Callable[..., Sequence[int]], *args: object) -> None:
    start = time.perf_counter()
    results = how(*args)
    print(f"{name}: {(time.perf_counter() - start) * 1000:.0f} ms, {len(results)} results")


def main() -> None:
    threads = ThreadPoolExecutor(JOBS)
    processes = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    with threads, processes:
        with_pool(processes, io_bound)  # they start with the first work: not in the times below
        timed("I/O, one by one", one_by_one, io_bound)
        timed("I/O, threads", with_pool, threads, io_bound)
        timed("I/O, tasks", with_tasks, io_bound_task)
        timed("CPU, one by one", one_by_one, cpu_bound)
        timed("CPU, threads", with_pool, threads, cpu_bound)
        timed("CPU, tasks", with_tasks, cpu_bound_task)
        timed("CPU, two processes", with_pool, processes, cpu_bound)


if __name__ == "__main__":  # the processes import this file, and must not run it
    main()

# Prints:
#   I/O, one by one: 161 ms, 8 results
#   I/O, threads: 22 ms, 8 results
#   I/O, tasks: 21 ms, 8 results
#   CPU, one by one: 183 ms, 8 results
#   CPU, threads: 182 ms, 8 results
#   CPU, tasks: 186 ms, 8 results
#   CPU, two processes: 103 ms, 8 results
