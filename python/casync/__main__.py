"""`python -m casync app.py [args]` runs a program on casync's event loop, and so does
`python -m casync -m module [args]`.

The program gets a casync.EventLoop when it asks asyncio for a new loop, and also when it makes an
asyncio.EventLoop or an asyncio.SelectorEventLoop.
"""

from __future__ import annotations

import asyncio
import runpy
import sys
from pathlib import Path

import casync

USAGE = "usage: python -m casync [-m module | script.py] [argument ...]"


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["-m"]:
        module, rest = arguments[1:2], arguments[2:]
    else:
        module, rest = [], arguments
    if arguments[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return
    if not module and not rest:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    if not module and not Path(rest[0]).exists():
        print(f"python -m casync: there is no file {rest[0]!r}\n{USAGE}", file=sys.stderr)
        sys.exit(2)
    casync.install()
    for name in {"EventLoop", "SelectorEventLoop"} & set(
        vars(asyncio)
    ):  # uvicorn, say, makes the latter
        setattr(asyncio, name, casync.EventLoop)
    if module:
        sys.argv = [module[0], *rest]
        runpy.run_module(module[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = rest
        if not (
            sys.flags.isolated or getattr(sys.flags, "safe_path", False)
        ):  # else it is not the program's
            sys.path[0] = str(Path(rest[0]).resolve().parent)
        runpy.run_path(rest[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
