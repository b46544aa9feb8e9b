"""What header_style.py finds in small inputs, good and bad. tests/run calls check()."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import header_style as style

END_OF_API = f"{style.END_OF_API}\n"
API = "/* >> {} (API) ---- */\n"
IMPLEMENTATION = "/* >> {} (implementation) ---- */\n"


@dataclass(frozen=True)
class Case:
    """A text, and what is found in it: of each finding its line and words of it."""

    what: str
    check: style.Check
    text: str
    findings: tuple[tuple[int, str], ...] = ()


# --- functions -----------------------------------------------------------------------------------


def function(lines: int) -> str:
    return "static int f(\n    int a) {\n" + "    a++;\n" * (lines - 3) + "}\n"


def prototypes(count: int) -> str:
    """That many forward declarations, and one of another library's function."""
    names = range(count)
    return (
        "static void in_the_api(void);\n"
        + END_OF_API
        + "".join(f"static void f{name}(void);\n" for name in names)
        + "void other(void);\n"
        + "".join(f"static void f{name}(void) {{}}\n" for name in names)
    )


BRANCHES = """
static int f(int a) {
#if A
    if (a) {
#else
    if (!a) { /* } */
#endif
        return '{';
    }
    return sizeof("}");
}
INVOKED(f)
static int table[] = {f(1), 2};
"""

FUNCTIONS = (
    Case("a function of 50 lines", style.check_length, function(50)),
    Case("of 51", style.check_length, "\n" + function(51), ((2, "f has 51 lines"),)),
    Case(
        "of 51 behind branches, braces in strings, an invocation and a table",
        style.check_length,
        'extern "C" {\n' + BRANCHES + function(51) + "}\n",
        ((15, "f has 51 lines"),),
    ),
    Case("a long table is no function", style.check_length, "int a[] = {\n" + "1,\n" * 60 + "};\n"),
    Case("20 forward declarations", style.check_forward_declarations, prototypes(20)),
    Case(
        "21 forward declarations",
        style.check_forward_declarations,
        prototypes(21),
        tuple((3 + number, f"{number + 1} of 21") for number in range(21)),
    ),
)

# --- sections ------------------------------------------------------------------------------------


def two_halves(api: str, implementation: str) -> str:
    """Sections named by letters, each a line."""
    first, second = map(API.format, api), map(IMPLEMENTATION.format, implementation)
    return "".join([*first, END_OF_API, *second])


SECTIONS = (
    Case("the same order", style.check_sections, two_halves("abc", "axbyc")),
    Case("another order", style.check_sections, two_halves("abc", "bac"), ((2, "behind a here"),)),
    Case("one is missing", style.check_sections, two_halves("abc", "ac"), ((2, "no section b"),)),
    Case("one twice", style.check_sections, two_halves("a", "aba"), ((5, "a second section a"),)),
    Case(
        "a banner in another form",
        style.check_sections,
        "/* >> a (Api) --- */\n" + END_OF_API,
        ((1, "write the banner"),),
    ),
    Case("no end of the API", style.check_sections, "", ((1, "must end by"),)),
    Case(
        "a section of the API in the implementation",
        style.check_sections,
        END_OF_API + API.format("a") + IMPLEMENTATION.format("a"),
        ((2, "behind its end"),),
    ),
)

# --- documentation -------------------------------------------------------------------------------

GOOD_COMMENT = """/* Starts a thing, and more of
   it. Then it goes on.

   Returns: 1, or an error.
   Errors: -EINVAL.
   Call from: the loop's thread.
   Lifetime: the thing is yours.
   Cost: none. */
"""
START = "CASYNC_API int64_t casync_start(int a);\n"


def documented(text: str, *findings: tuple[int, str], what: str = "") -> Case:
    return Case(what or text, style.check_documentation, text, findings)


DOCUMENTATION = (
    documented(GOOD_COMMENT + START),
    documented("/* Is it? No.\n   Returns: so. */\nCASYNC_API bool casync_is(int a);\n"),
    documented("/* Ends it. */\nCASYNC_API void casync_end(\n    int a);\n"),
    documented("/* Ends it. */\nstatic inline void casync_end(int a) { (void)a; }\n"),
    documented("static inline void casync__private(int a) { (void)a; }\n"),
    documented("/* A callback. */\ntypedef void (*casync_callback)(void *arg);\n"),
    documented(END_OF_API + START, what="the implementation needs no such comments"),
    documented(START, (1, "no comment")),
    documented(GOOD_COMMENT + "\n" + START, (10, "no comment")),
    documented(API.format("a") + START, (2, "no comment"), what="a banner is no comment"),
    documented(
        "/* The end of it. */\nCASYNC_API void casync_end(int a);\n", (1, "begin with what it does")
    ),
    documented(
        "/* This ends it. */\nCASYNC_API void casync_end(int a);\n", (1, "begin with what it does")
    ),
    documented("/* Ends it\n   Cost: none. */\nCASYNC_API void casync_end(int a);\n", (1, "full")),
    documented("/* Is it? */\nCASYNC_API void casync_is(int a);\n", (1, "full stop")),
    documented(
        "/* Starts it. Returns: 1. */\n" + START, (1, "`Returns:`"), (1, "`Errors:`"), what="inline"
    ),
    documented(
        "/* Tells it.\n   Returns: it. */\nCASYNC_API const char *casync_tell(void);\n",
        what="a pointer has no errors",
    ),
    documented(GOOD_COMMENT.replace("Cost:", "Costs:") + START, (1, "`Costs:` is no label")),
    documented(GOOD_COMMENT.replace("Cost:", "Errors:") + START, (1, "more than"), (1, "order")),
    documented(
        "/* Starts it.\n   Errors: none.\n   Returns: 1. */\n" + START, (1, "into their order")
    ),
    documented("/* Starts it.\n   Returns:\n   Errors: none. */\n" + START, (1, "nothing stands")),
    documented(
        GOOD_COMMENT
        + START
        + "CASYNC_API casync_future *casync_start_op(int a);\n"
        + "CASYNC_WAITS int64_t casync_start_timeout(int a);\n",
        what="twins",
    ),
    documented(
        GOOD_COMMENT + START + "CASYNC_API void casync_stop(int a);\n",
        (1, "casync_stop is no twin"),
    ),
    documented(
        GOOD_COMMENT.replace("goes on", "goes on until casync_stop")
        + START
        + "CASYNC_API void casync_stop(int a);\n",
        what="a function that the comment mentions",
    ),
    documented(
        GOOD_COMMENT + START + GOOD_COMMENT + "CASYNC_API casync_future *casync_start_op(int a);\n",
        (18, "is a twin of casync_start"),
    ),
    documented("/* Units. */\n#define CASYNC_US(n) (n)\n#define CASYNC_MS(n) (n)\n"),
    documented(
        "#define CASYNC_MOST 3\n#define CASYNC__PRIVATE(n) (n)\n#define CASYNC_US(n) \\\n   (n)\n",
        (3, "CASYNC_US: no comment"),
    ),
)

# --- glossary ------------------------------------------------------------------------------------

GLOSSARY = """/* Glossary. Words that are no section's:

     op  an operation, or
         what it does
     sys  a system call */
"""


def glossary(names: str, *findings: tuple[int, str], words: str = GLOSSARY, what: str = "") -> Case:
    text = f"{END_OF_API}{words}{IMPLEMENTATION.format('fd watchers & addresses')}{names}\n"
    return Case(what or f"glossary: {names}", style.check_glossary, text, findings)


USED = "int casync__op_a, casync__sys_b"
MANY = "".join(f"   w{number}  a word\n" for number in range(41))

WORDS = (
    glossary(f"{USED}, CASYNC__WATCHERS, casync__watcher, casync__address_of;"),
    glossary(f'{USED}; /* casync__comment */ char *a = "casync__string";'),
    glossary(f"{USED}, casync__fd_of, casync__ops_all;"),
    glossary(f"{USED}, casync__walk_a, CASYNC__WALK_B;", (8, "casync__walk_a, CASYNC__WALK_B")),
    glossary("int casync__op_a;", (6, "no private name begins with sys")),
    glossary("int casync__watcher;", (1, "no comment `/* Glossary.`"), words=""),
    Case(
        "a glossary behind code",
        style.check_glossary,
        f"{END_OF_API}{USED};\n{GLOSSARY}",
        ((3, "before the implementation's code"),),
    ),
    glossary(
        f"{USED};",
        *((7, "a second glossary"), (9, "op has a second"), (11, "sys has a second")),
        words=GLOSSARY * 2,
        what="two glossaries",
    ),
    glossary(
        "int " + ", ".join(f"casync__w{number}" for number in range(41)) + ";",
        (2, "41 words"),
        words=f"/* Glossary.\n{MANY}*/\n",
        what="41 words",
    ),
)

# --- all of it -----------------------------------------------------------------------------------

NOT_C = {
    "int f(void) {": "line 1: what begins here has no end",
    "int a;\nint f(void))": "line 2: a ) that nothing opens",
    "\n/* a": "line 2: a comment without an end",
}


def check_case(case: Case) -> tuple[bool, str]:
    found = sorted(case.check(style.Source(case.text)), key=lambda finding: finding.line)
    ok = len(found) == len(case.findings) and all(
        finding.line == line and words in finding.text
        for finding, (line, words) in zip(found, case.findings, strict=True)
    )
    return ok, f"{case.what}:\nfound {found}\nexpected {case.findings}"


def check_not_c(text: str, expected: str) -> tuple[bool, str]:
    try:
        style.Source(text)
    except ValueError as error:
        return str(error) == expected, f"{text!r}: {error}"
    return False, f"{text!r} passed for C"


def check_columns() -> tuple[bool, str]:
    found = list(style.check_columns("a" * 100 + "\n" + "a" * 101 + "\n"))
    return [finding.line for finding in found] == [2], f"lines of 100 and 101 columns: {found}"


def check_outcome() -> tuple[bool, str]:
    """The form in which a finding is printed."""
    printed = style.outcome("a.h", iter([style.Finding(3, "late"), style.Finding(1, "early")]))
    return printed == (False, "a.h:1: early\na.h:3: late"), f"printed {printed}"


def check() -> Iterator[tuple[bool, str]]:
    """For each test whether it passed, and what to say if it did not."""
    for case in (*FUNCTIONS, *SECTIONS, *DOCUMENTATION, *WORDS):
        yield check_case(case)
    for text, expected in NOT_C.items():
        yield check_not_c(text, expected)
    yield check_columns()
    yield check_outcome()


if __name__ == "__main__":
    results = list(check())
    failures = [text for ok, text in results if not ok]
    print(*failures, sep="\n")
    print(f"{len(results) - len(failures)} passed, {len(failures)} failed, 0 skipped")
    sys.exit(bool(failures))
