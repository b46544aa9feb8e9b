"""Builds casync's one extension module: casync.h, the native part of the loop, and cffi's bindings.

All three are one translation unit, so calls between them are inlined, and one shared object, which
exports two modules: cffi's (casync.lib and casync.ffi, the C API) and _native (the loop's hot path).
The declarations that cffi needs are read out of casync.h, so that they are written once.
"""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
HEADER = HERE / "casync.h"
NATIVE = sorted((HERE / "native").glob("*.c"))

SOURCE = """
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define CASYNC_STATIC
#define CASYNC_IMPLEMENTATION
#include "casync.h"
#include "native.c"
"""


def api_half(header: str) -> str:
    """What lies between the include guard's two ends, without comments, each macro on one line."""
    guarded = re.search(r"^#define CASYNC_H\n(.*?)^#endif /\* CASYNC_H \*/", header, re.S | re.M)
    if guarded is None:
        raise ValueError(f"{HEADER}: the include guard CASYNC_H was not found")
    return re.sub(r"/\*.*?\*/", "", guarded[1], flags=re.S).replace("\\\n", " ")


def constants(api: str) -> list[str]:
    """Object-like macros, as cffi wants them: numbers it must know, numbers it may ask for, strings."""
    found = []
    for name, value in re.findall(r"^#define (CASYNC_\w+)[ \t]+(\S.*?)[ \t]*$", api, re.M):
        if name == "CASYNC_API":
            continue
        if value.startswith('"'):
            found.append(f"static char *const {name};")
        else:
            found.append(f"#define {name} {value if value.isdigit() else '...'}")
    return found


def declarations(header: str) -> str:
    """The API half as cffi.cdef() takes it."""
    api = api_half(header)
    code = re.sub(r"^#ifdef __cplusplus\n.*?^#endif[^\n]*\n", "", api, flags=re.S | re.M)
    code = re.sub(r"^#.*\n?", "", code, flags=re.M)
    code = re.sub(r"\bCASYNC_API\b", "", code)
    return "\n".join(constants(api)) + "\n" + code


builder = FFI()
builder.cdef(declarations(HEADER.read_text()))
builder.set_source(
    "casync._casync",
    SOURCE,
    py_limited_api=False,
    include_dirs=[str(HERE), str(HERE / "native")],
    depends=[str(HEADER), *map(str, NATIVE)],
    extra_compile_args=["-O3", "-fvisibility=hidden", "-DNDEBUG"],
    libraries=["pthread"],
)
