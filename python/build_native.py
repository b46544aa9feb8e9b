"""Builds casync's one extension module: casync.h, the native part of the loop, and cffi's bindings.

All three are one translation unit, so calls between them are inlined, and one shared object, which
exports two modules: cffi's (casync.lib and casync.ffi, the C API) and _native (the loop's hot
path). The declarations that cffi needs are read out of casync.h, so that they are written once.

cffi does not support CPython 3.13 without a GIL (cffi/_shimmed_dist_utils.py refuses it). There the
shared object has _native alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

# What the package's table has beside casync.h's own functions: what they return, name, parameters.
PYTHON_FUNCTIONS = [
    ("casync_loop *", "casync_python_loop", "PyObject *loop"),
    ("PyObject *", "casync_python_wrap_future", "casync_future *future"),
    ("int ", "casync_python_chain_future", "PyObject *awaitable, casync_future *future"),
]

HERE = Path(__file__).resolve().parent
HEADER = HERE / "casync.h"
NATIVE = sorted((HERE / "native").glob("*.c"))

SOURCE = """
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <Python.h>
#define CASYNC_STATIC
#define CASYNC_IMPLEMENTATION
#include "casync.h"
{table}
#include "native.c"
"""

# What casync.h includes where CASYNC_IMPORT is defined.
IMPORT_HEADER = """\
/* build_native.py of the Python package casync has made this file from the casync.h beside it. An
   extension module that includes it calls the package's own copy of the library, and so can work on
   the package's loops:

       #define CASYNC_IMPORT
       #include <Python.h>
       #include "casync.h"

   Each C file that includes this file calls casync_import() once before any other casync_ function,
   for example in the module's init function. It returns 0, or -1 with an ImportError if the package
   is not installed, or if its version or configuration differs from that of this file.

   The caller of every casync_ function holds the GIL; code that cffi calls takes it first, by
   PyGILState_Ensure. Without a GIL, call them in the thread that runs the loop; others call
   casync_call_soon_threadsafe and casync_wake alone. The package adds these functions:

       casync_loop *casync_python_loop(PyObject *loop)
           Returns the casync_loop of a casync.EventLoop, which owns it; NULL, with a TypeError, for
           any other object.
       PyObject *casync_python_wrap_future(casync_future *future)
           Returns a new reference to an asyncio.Future that ends as the C future does, or NULL with
           an exception: see casync.wrap_future.
       int casync_python_chain_future(PyObject *awaitable, casync_future *future)
           Lets the C future end as the awaitable does, and returns 0, or -1 with an exception: see
           casync.chain_future. */
#ifndef CASYNC_IMPORT_H
#define CASYNC_IMPORT_H

#include <Python.h>

{struct}
static const casync_functions *casync_imported;

static int casync_import(void) {{
    const casync_functions *found =
        (const casync_functions *)PyCapsule_Import("casync._functions", 0);
    if (found == NULL) return -1;
    if (found->stamp != CASYNC_IMPORT_STAMP || found->size != sizeof(casync_functions) ||
        found->loop_size != sizeof(casync_loop)) {{
        PyErr_Format(PyExc_ImportError,
                     "this module was built for casync %s, or another configuration of it, than "
                     "the package casync %s that is installed: build it again",
                     CASYNC_VERSION, found->version);
        return -1;
    }}
    casync_imported = found;
    return 0;
}}

{names}
#endif
"""


def api_half(header: str) -> str:
    """What lies between the include guard's two ends, without comments, each macro on one line."""
    guarded = re.search(r"^#define CASYNC_H\n(.*?)^#endif /\* CASYNC_H \*/", header, re.S | re.M)
    if guarded is None:
        raise ValueError(f"{HEADER}: the include guard CASYNC_H was not found")
    code = re.sub(r"/\*.*?\*/", "", guarded[1], flags=re.S).replace("\\\n", " ")
    # The package is built without OpenSSL: it has the interpreter's.
    return re.sub(r"^#ifdef CASYNC_OPENSSL\n.*?^#endif[^\n]*\n", "", code, flags=re.S | re.M)


def constants(api: str) -> list[str]:
    """Object-like macros, as cffi wants them: numbers it must know, numbers it may ask for,
    strings.
    """
    found = []
    for name, value in re.findall(r"^#define (CASYNC_\w+)[ \t]+(\S.*?)[ \t]*$", api, re.M):
        if name in ("CASYNC_API", "CASYNC_WAITS"):
            continue
        if value.startswith("((void *)"):
            found.append(f"static void *const {name};")
        elif value.startswith('"'):
            found.append(f"static char *const {name};")
        else:
            found.append(f"#define {name} {value if value.isdigit() else '...'}")
    return found


def declarations(header: str) -> str:
    """The API half as cffi.cdef() takes it."""
    api = api_half(header)
    code = re.sub(r"^#ifdef __cplusplus\n.*?^#endif[^\n]*\n", "", api, flags=re.S | re.M)
    code = re.sub(r"^#.*\n?", "", code, flags=re.M)
    code = re.sub(r"^static inline [^;{]*\{[^}]*\}\n", "", code, flags=re.M)
    code = re.sub(r"\bCASYNC_(API|WAITS)\b", "", code)
    return "\n".join(constants(api)) + "\n" + code


def functions(header: str) -> list[tuple[str, str, str]]:
    """Every function of the API: what it returns, its name, its parameters."""
    found = []
    for text in re.findall(r"^CASYNC_(?:API|WAITS)\s+(.*?);", api_half(header), re.S | re.M):
        match = re.fullmatch(r"(.*?[\s*])(casync_\w+)\((.*)\)", " ".join(text.split()))
        if match is None:
            raise ValueError(f"{HEADER}: this declaration is not understood: {text}")
        found.append((match[1], match[2], match[3]))
    return found


def function_struct(header: str) -> str:
    """The type of the package's table of functions. The stamp stands for all that it and the API
    half say.
    """
    stamp = hashlib.sha256(f"{api_half(header)}{PYTHON_FUNCTIONS}".encode()).hexdigest()[:16]
    table = [*PYTHON_FUNCTIONS, *functions(header)]
    members = "".join(f"    {result}(*{name})({rest});\n" for result, name, rest in table)
    return (
        f"#define CASYNC_IMPORT_STAMP 0x{stamp}ULL\n"
        "typedef struct casync_functions {\n"
        "    uint64_t stamp;\n    size_t size, loop_size;\n    const char *version;\n"
        f"{members}}} casync_functions;\n"
    )


def function_table(header: str) -> str:
    prototypes = "".join(
        f"static {result}{name}({rest});\n" for result, name, rest in PYTHON_FUNCTIONS
    )
    table = [*PYTHON_FUNCTIONS, *functions(header)]
    names = "".join(f",\n    {name}" for _, name, _ in table)
    return (
        f"{function_struct(header)}"
        f"{prototypes}"
        "static const casync_functions function_table = {\n"
        "    CASYNC_IMPORT_STAMP, sizeof(casync_functions), sizeof(casync_loop), CASYNC_VERSION"
        f"{names}}};\n"
    )


def write_include(directory: Path) -> None:
    """Makes what casync.get_include() names: casync.h, and casync_import.h made from it."""
    header = HEADER.read_text()
    names = [name for _, name, _ in [*PYTHON_FUNCTIONS, *functions(header)]]
    defines = "".join(f"#define {name} (casync_imported->{name})\n" for name in names)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "casync.h").write_text(header)
    text = IMPORT_HEADER.format(struct=function_struct(header), names=defines)
    (directory / "casync_import.h").write_text(text)


WHAT_TO_INSTALL = """\
A C compiler, the C library's headers and Python's are in these packages:
    Debian, Ubuntu    apt install gcc libc6-dev python3-dev
    Fedora, RHEL      dnf install gcc glibc-devel python3-devel
    Alpine            apk add gcc musl-dev python3-dev
(python3-dev is that of the distribution's own Python; others have their headers with them, or in a
package of their version, as python3.12-dev.) Another compiler is chosen by the environment:
CC=clang pip install ...
"""


def missing_tools(include: str | None = None) -> str:
    """What the build would fail for want of, in words; or "". `include`: where Python.h should
    be.
    """
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    program = shlex.split(compiler)[0]
    if not shutil.which(program):
        return f"the C compiler {program!r} was not found"
    directory = include or sysconfig.get_path("include")
    if not Path(directory, "Python.h").is_file():
        return f"the header Python.h was not found in {directory}"
    return ""


# Python's own flags may have -DNDEBUG, or not: CFLAGS=-UNDEBUG is who wants the header's
# assertions.
ASSERTIONS = "-UNDEBUG" if "-UNDEBUG" in shlex.split(os.environ.get("CFLAGS", "")) else "-DNDEBUG"

# Is this an interpreter without a GIL, and does cffi support it?
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
HAS_CFFI = not FREE_THREADED or sys.version_info >= (3, 14)

# Without a GIL casync was tested on 3.13. On a later version its import turns the GIL on, unless
# who builds it takes that upon himself.
DECLARES_NO_GIL = FREE_THREADED and (
    sys.version_info < (3, 14) or os.environ.get("CASYNC_FREE_THREADED") == "1"
)
GIL_COMES_BACK = """\
casync is not tested without a GIL on this version of Python: importing it turns the GIL on. A build
with CASYNC_FREE_THREADED=1 in the environment leaves it off.
"""

# What a build needs beside setuptools, and an installed package has. No marker of pyproject.toml
# tells that there is no GIL.
REQUIRES = ["cffi>=1.17"] if HAS_CFFI else []

MODULE = "casync._casync"
OPTIONS: dict[str, Any] = {
    "py_limited_api": False,
    "include_dirs": [str(HERE), str(HERE / "native")],
    "depends": [str(HEADER), *map(str, NATIVE)],
    # Exceptions would unwind a thread that CPython ends, and release its locks (lock.c).
    "extra_compile_args": ["-O3", "-fvisibility=hidden", "-fno-exceptions", ASSERTIONS],
    "define_macros": [
        ("_CFFI_NO_LIMITED_API", None),  # cffi's headers ask for it
        *([("CASYNC_FREE_THREADED", None)] if DECLARES_NO_GIL else []),
    ],
    "libraries": ["pthread"],
}


def source() -> str:
    """The C file that is compiled, but for what cffi adds to it."""
    return SOURCE.format(table=function_table(HEADER.read_text()))


def generate(path: Path) -> None:
    """Writes the C file that is compiled, with cffi's bindings where cffi is supported."""
    if not HAS_CFFI:
        path.write_text(source())
        return
    from cffi import FFI

    made = FFI()
    made.cdef(declarations(HEADER.read_text()))
    made.set_source(MODULE, source(), **OPTIONS)
    made.emit_c_code(str(path))
