"""Tries an installed casync with nothing but the standard library: `python -m casync smoke.py`.

python/wheels runs it with every wheel in a fresh environment, where there is no pytest. It prints a
line for each test and the closing line.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import casync

try:
    import ssl
except ImportError:  # of an interpreter built without OpenSSL
    ssl = None  # type: ignore[assignment]

LINE = b"hello\n" * 20_000 + b"\0"  # more than a socket takes at once


class Skip(Exception):
    """The interpreter lacks what the test needs; the message says what."""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.readuntil(b"\0")).upper())
    await writer.drain()
    writer.close()


async def answer(
    server_tls: ssl.SSLContext | None = None, client_tls: ssl.SSLContext | None = None
) -> bytes:
    """What a server that echoes says to LINE."""
    made = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_tls, limit=2**20)
    async with made:
        address = made.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, ssl=client_tls)
        writer.write(LINE)
        said = await reader.read()
        writer.close()
        return said


def anonymous(protocol: int) -> ssl.SSLContext:
    """A context whose cipher needs no certificate; TLS 1.3 has none of these."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    return context


def the_installed_version_is_imported() -> None:
    assert casync.__version__ == version("casync"), casync.__version__


def the_loop_of_asyncio_run_is_casyncs() -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert casync.is_installed()
    for run in asyncio.run, casync.run:
        assert isinstance(run(loop()), casync.EventLoop), run


def a_server_echoes() -> None:
    assert casync.run(answer()) == LINE.upper()


def a_server_echoes_by_tls() -> None:
    if ssl is None:
        raise Skip("this Python has no module ssl")
    contexts = anonymous(ssl.PROTOCOL_TLS_SERVER), anonymous(ssl.PROTOCOL_TLS_CLIENT)
    assert casync.run(answer(*contexts)) == LINE.upper()


def a_subprocess_is_read_to_its_end() -> None:
    async def main() -> tuple[bytes, int | None]:
        command = "read line; echo got $line; exit 3"
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_shell(command, stdin=pipe, stdout=pipe)
        said, _ = await process.communicate(b"it\n")
        return said, process.returncode

    assert casync.run(main()) == (b"got it\n", 3)


def a_thread_ends_a_wait() -> None:
    async def main() -> int:
        return await asyncio.get_running_loop().run_in_executor(None, sum, (1, 2))

    assert casync.run(main()) == 3


def the_headers_are_installed() -> None:
    include = Path(casync.get_include())
    assert "#define CASYNC_IMPORT_STAMP 0x" in (include / "casync_import.h").read_text()
    assert "CASYNC_IMPORT" in (include / "casync.h").read_text()


def cffi_calls_the_c_functions() -> None:
    assert casync.ffi.string(casync.lib.casync_strerror(-110)).decode()


TESTS: list[Callable[[], None]] = [
    the_installed_version_is_imported,
    the_loop_of_asyncio_run_is_casyncs,
    a_server_echoes,
    a_server_echoes_by_tls,
    a_subprocess_is_read_to_its_end,
    a_thread_ends_a_wait,
    the_headers_are_installed,
    cffi_calls_the_c_functions,
]


def main() -> int:
    passed = failed = skipped = 0
    for test in TESTS:
        try:
            test()
        except Skip as skip:
            skipped += 1
            print(f"skip {test.__name__}: {skip}")
        except Exception:
            failed += 1
            print(f"FAIL {test.__name__}\n{traceback.format_exc()}")
        else:
            passed += 1
            print(f"pass {test.__name__}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
