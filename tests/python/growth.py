"""Measures what many rounds of something leave behind, for the tests of leaks."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from support import FREE_THREADED

WARM_UP = 300  # rounds until caches, pools and free lists have what they need
SHARED: list[object] = []  # objects whose references are counted, too


def native_types() -> list[type]:
    """Of the extension: each instance has a reference to its type, which its end must give back."""
    import casync._native

    return [value for value in vars(casync._native).values() if isinstance(value, type)]


class Measured(NamedTuple):
    objects: int  # that the garbage collector knows
    blocks: int  # of memory, that Python's objects take
    references: int  # to SHARED, and to the types of the extension
    descriptors: int
    malloced: int  # bytes that malloc has given out
    resident: int  # bytes of memory


def malloced_bytes() -> int:
    class Mallinfo(ctypes.Structure):
        _fields_ = [
            (name, ctypes.c_size_t) for name in ["arena", "ordblks", "smblks", "hblks", "hblkhd"]
        ] + [
            (name, ctypes.c_size_t)
            for name in ["usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]
        ]

    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:  # not glibc 2.33 or newer
        return 0
    mallinfo2.restype = Mallinfo
    info = mallinfo2()
    return info.uordblks + info.hblkhd


def resident_bytes() -> int:
    if sys.getallocatedblocks() == 0:
        return 0  # a memory checker's malloc: it keeps what is freed
    if FREE_THREADED:
        return 0  # mimalloc's pages grow with asyncio's own loop, too
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def measure() -> Measured:
    for _ in range(3):
        gc.collect()
    return Measured(
        objects=len(gc.get_objects()),
        blocks=sys.getallocatedblocks(),
        references=sum(sys.getrefcount(each) for each in [*SHARED, *native_types()]),
        descriptors=len(os.listdir("/proc/self/fd")),
        malloced=malloced_bytes(),
        resident=resident_bytes(),
    )


def allowed(rounds: int) -> Measured:
    """Less than what a leak in every second round would be, and never more than caches explain.
    OpenSSL's and malloc's take some thousands of bytes until they are full."""
    some = min(rounds // 2, 100)
    return Measured(some, some, some, 0, min(max(rounds * 32, 1 << 14), 1 << 16), 2 << 20)


@dataclass(frozen=True)
class Growth:
    """What many rounds leave: the least of some measurements. What leaks leaks every time; what
    grows for another reason (asyncio's tables, malloc's caches) grows less each time: with a
    subprocess in each of 100 rounds, under asyncio too, by 160 blocks, then 110, 60, 30."""

    rounds: int
    least: Measured

    def leaks(self) -> set[str]:
        pairs = zip(Measured._fields, self.least, allowed(self.rounds), strict=True)
        return {name for name, number, limit in pairs if number > limit}


def growth(run: Callable[[int], object], rounds: int) -> Growth:
    gc.collect()
    gc.freeze()  # the collector need not look at all that pytest has, again and again
    try:
        run(max(WARM_UP, rounds // 10))
        found = None
        for _ in range(20):
            before = measure()
            run(rounds)
            grown = Measured(*(new - old for new, old in zip(measure(), before, strict=True)))
            found = Growth(rounds, Measured(*map(min, found.least, grown)) if found else grown)
            if not found.leaks():
                break
        return found
    finally:
        gc.unfreeze()


def assert_flat(one_round: Callable[[], object], rounds: int = 200) -> None:
    def run(count: int) -> None:
        for _ in range(count):
            one_round()

    grown = growth(run, rounds)
    assert not grown.leaks(), grown
