#!/usr/bin/env python3
"""The limits that casync.h keeps, and where said the native module's C files too.

tests/run holds them as a row of its style group. `tests/header_style.py` prints what it finds in
every file, and how many forward declarations there are. A finding is a line of its own,
`file:line: what is wrong and what to do`. test_header_style.py has an example of each.

The scanner knows of C what it needs: comments, strings, preprocessor lines, and what stands at the
top level of a file. It knows nothing of types, and does not expand macros: a function that a macro
makes is not seen.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_LINES = 50  # of a function
MOST_COLUMNS = 100
MOST_FORWARD_DECLARATIONS = 20
MOST_GLOSSARY_WORDS = 40

# --- the scanner ---------------------------------------------------------------------------------

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
TOKEN = re.compile(
    r"(?P<directive>^[ \t]*\#(?:\\\n|[^\n])*)|(?P<bracket>[][(){};])|[^][(){};\s]+", re.M
)
ATTRIBUTE = re.compile(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)|__asm__\s*\([^()]*\)")
FUNCTION = re.compile(r"(?P<result>[^=({]*[\s*])(?P<name>\w+)\s*\((?!\s*\*)[^={]*\)", re.DOTALL)
INVOCATION = re.compile(r"[A-Z][A-Z0-9_]*\s*\(")
LINKAGE = re.compile(r'extern\s*"\s*"')  # with the C blanked
STORAGE = re.compile(r"\b(?:CASYNC_API|CASYNC_WAITS|CASYNC__LINKAGE|static|inline|extern)\b")
END_OF_API = "#endif /* CASYNC_H */"


@dataclass(frozen=True)
class Item:
    """Something at the top level of a file."""

    kind: str  # comment, directive, function, prototype, or other: types, variables, invocations
    start: int
    end: int
    text: str  # of code with comments and strings blanked; of comments as it stands
    name: str = ""  # of functions and prototypes
    result: str = ""  # their type


@dataclass(frozen=True)
class Finding:
    line: int
    text: str


class Source:
    """A C file in pieces. A ValueError says that it is not C as this scanner knows it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.code = COMMENT.sub(lambda match: blanked(match[0]), text)
        if "/*" in self.code:
            raise ValueError(f"line {self.line(self.code.index('/*'))}: a comment without an end")
        code = Walk(self).items
        self.items = sorted([*code, *self.comments(code)], key=lambda item: item.start)
        end = text.find(END_OF_API)
        self.implementation = end if end >= 0 else len(text)  # where it begins

    def line(self, offset: int) -> int:
        return self.text.count("\n", 0, offset) + 1

    def finding(self, offset: int, text: str) -> Finding:
        return Finding(self.line(offset), text)

    def comments(self, code: Sequence[Item]) -> Iterator[Item]:
        """Those at the top level that have their lines for themselves."""
        ends = iter([*((item.start, item.end) for item in code), (len(self.text), 0)])
        start, end = next(ends)
        for match in COMMENT.finditer(self.text):
            while start < match.start() and end <= match.start():
                start, end = next(ends)
            line_start = self.text.rfind("\n", 0, match.start()) + 1
            alone = not self.text[line_start : match.start()].strip()
            if alone and match[0].startswith("/") and match.start() < start:
                yield Item("comment", *match.span(), match[0])

    def half(self, implementation: bool) -> list[Item]:
        return [
            item for item in self.items if (item.start >= self.implementation) == implementation
        ]


def blanked(text: str) -> str:
    """A comment as spaces; of a string the quotes stay."""
    inside = re.sub(r"[^\n]", " ", text)
    return inside if text.startswith("/") else text[0] + inside[1:-1] + text[-1]


class Walk:
    """Goes through the code once, and cuts it into items. Of the branches of an #if each begins at
    the depth at which the first did.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.items: list[Item] = []
        self.start = -1  # of the item that is open
        self.is_function = False  # is it the body of one that is open?
        self.depth = 0
        self.depths: list[int] = []  # at each #if
        for token in TOKEN.finditer(source.code):
            if token["directive"]:
                self.directive(token)
            elif token["bracket"]:
                self.bracket(token)
            elif self.start < 0:
                self.start = token.start()
        if self.depth or self.start >= 0:
            self.fail(max(self.start, 0), "what begins here has no end")

    def fail(self, offset: int, text: str) -> None:
        raise ValueError(f"line {self.source.line(offset)}: {text}")

    def directive(self, token: re.Match[str]) -> None:
        word = token[0].strip(" \t#").split(maxsplit=1)[0] if token[0].strip(" \t#") else ""
        if word.startswith("if"):
            self.depths.append(self.depth)
        elif word.startswith("el") and self.depths:
            self.depth = self.depths[-1]
        elif word == "endif" and self.depths:
            self.depths.pop()
        if self.start < 0:
            self.items.append(Item("directive", token.start(), token.end(), token[0]))

    def bracket(self, token: re.Match[str]) -> None:
        opens, closes = token[0] in "([{", token[0] in ")]}"
        if self.start < 0 and not opens:
            return  # the end of an extern "C", or a semicolon too many
        if self.start < 0:
            self.start = token.start()
        if token[0] == "{" and self.depth == 0:
            head = self.source.code[self.start : token.start()].strip()
            if LINKAGE.fullmatch(head):
                self.close(token.end())
                return
            self.is_function = parse_function(head) is not None
        self.depth += opens - closes
        if self.depth < 0:
            self.fail(token.start(), f"a {token[0]} that nothing opens")
        if self.depth == 0 and self.ends(token):
            self.close(token.end())

    def ends(self, token: re.Match[str]) -> bool:
        """At depth 0: does the item end with this bracket?"""
        if token[0] == ")":  # a macro's invocation that needs no semicolon
            code = self.source.code
            after = code[token.end() : token.end() + 200].lstrip()[:1]
            words = code[self.start : token.end()]
            return bool(INVOCATION.match(words)) and after not in (";", "{", "(")
        return token[0] == ";" or (token[0] == "}" and self.is_function)

    def close(self, end: int) -> None:
        text = self.source.code[self.start : end]
        kind, name, result = "other", "", ""
        head = text.partition("{")[0] if self.is_function else text.removesuffix(";")
        function = parse_function(head.strip())
        if function:
            kind = "function" if self.is_function else "prototype"
            name, result = function
        self.items.append(Item(kind, self.start, end, text, name, result))
        self.start, self.is_function = -1, False


def parse_function(head: str) -> tuple[str, str] | None:
    """The name and the type of the result, if that is a function's head."""
    found = FUNCTION.fullmatch(without_directives(ATTRIBUTE.sub(" ", head)).strip())
    if not found or found["result"].split()[0] == "typedef":
        return None
    return found["name"], " ".join(STORAGE.sub(" ", found["result"]).split())


def without_directives(code: str) -> str:
    return TOKEN.sub(lambda token: "" if token["directive"] else token[0], code)


# --- functions -----------------------------------------------------------------------------------


def check_length(source: Source) -> Iterator[Finding]:
    for item in source.items:
        lines = source.text.count("\n", item.start, item.end) + 1
        if item.kind == "function" and lines > MOST_LINES:
            yield source.finding(
                item.start, f"{item.name} has {lines} lines: split it (at most {MOST_LINES})"
            )


def forward_declarations(source: Source) -> list[Item]:
    """Prototypes of what the implementation itself defines, which is static or stands below."""
    items = source.half(implementation=True)
    defined = {item.name for item in items if item.kind == "function"}
    return [
        item
        for item in items
        if item.kind == "prototype" and (item.name in defined or "static" in item.text.split())
    ]


def check_forward_declarations(source: Source) -> Iterator[Finding]:
    found = forward_declarations(source)
    if len(found) <= MOST_FORWARD_DECLARATIONS:
        return
    for number, item in enumerate(found, 1):
        yield source.finding(
            item.start,
            f"forward declaration {number} of {len(found)} (at most {MOST_FORWARD_DECLARATIONS}): "
            f"define {item.name} before what uses it",
        )


# --- sections ------------------------------------------------------------------------------------

BANNER = re.compile(r"/\* >> (?P<name>\S.*) \((?P<half>API|implementation)\) -+ \*/")


@dataclass(frozen=True)
class Section:
    name: str
    start: int


def sections(source: Source, half: str) -> list[Section]:
    banners = (
        (item, BANNER.fullmatch(item.text)) for item in source.items if item.kind == "comment"
    )
    return [
        Section(banner["name"], item.start)
        for item, banner in banners
        if banner and banner["half"] == half
    ]


def check_sections(source: Source) -> Iterator[Finding]:
    for item in source.items:
        if item.kind == "comment" and is_banner(item) and not BANNER.fullmatch(item.text):
            yield source.finding(
                item.start, "write the banner as /* >> name (API or implementation) ---- */"
            )
    if source.implementation == len(source.text):
        yield Finding(1, f"the API half must end by a line {END_OF_API}")
    api, implementation = sections(source, "API"), sections(source, "implementation")
    for section in api:
        if section.start > source.implementation:
            yield source.finding(section.start, f"section {section.name} of the API behind its end")
    for half in (api, implementation):
        yield from check_names_once(source, half)
    yield from check_order(source, api, implementation)


def check_names_once(source: Source, half: Sequence[Section]) -> Iterator[Finding]:
    seen: set[str] = set()
    for section in half:
        if section.name in seen:
            yield source.finding(section.start, f"a second section {section.name}: join the two")
        seen.add(section.name)


def check_order(
    source: Source, api: Sequence[Section], implementation: Sequence[Section]
) -> Iterator[Finding]:
    """The first that comes too early is told, in each run of such."""
    places = {section.name: place for place, section in enumerate(implementation)}
    latest = Section("", 0)
    for section in api:
        if section.name not in places:
            yield source.finding(section.start, f"no section {section.name} in the implementation")
        elif latest.name and places[section.name] < places[latest.name]:
            yield source.finding(
                section.start,
                f"section {section.name} comes behind {latest.name} here, and before it in the "
                "implementation: put both in the same order",
            )
        else:
            latest = section


def is_banner(item: Item) -> bool:
    return item.text.startswith("/* >> ")


# --- documentation -------------------------------------------------------------------------------

LABELS = ("Returns", "Errors", "Call from", "Lifetime", "Cost")
LABEL = re.compile(rf"^({'|'.join(LABELS)}):", re.M)
NOTHING = re.compile(rf"\s*(?:\Z|(?:{'|'.join(LABELS)}):)")  # behind a label
NEARLY_LABEL = re.compile(
    r"^((?i:returns?|results?|errors?|call(?:s|ed)? from|lifetimes?|costs?|owner(?:ship)?)) ?:",
    re.M,
)
SUFFIX = re.compile(r"_(?:op|timeout|nowait)$")
PUBLIC = re.compile(r"(?i:casync)_(?!_)\w+")
PUBLIC_MACRO = re.compile(rf"[ \t]*#[ \t]*define[ \t]+({PUBLIC.pattern})\(")
NO_VERBS = ("As", "Its", "Less", "Perhaps", "This", "Thus", "Us")
VERB = re.compile(r"[A-Z][a-z]*s(?![\w.:])")


@dataclass(frozen=True)
class Group:
    """Declarations without a blank line between them, and the comment directly above."""

    comment: Item | None
    members: list[Item]

    def functions(self) -> list[Item]:
        return [
            item
            for item in self.members
            if item.kind in ("function", "prototype") and PUBLIC.fullmatch(item.name)
        ]


def groups(source: Source) -> list[Group]:
    found: list[Group] = []
    end = 0
    for item in source.half(implementation=False):
        apart = "\n\n" in re.sub(r"[ \t]+", "", source.text[end : item.start])
        if item.kind == "comment":
            found.append(Group(None if is_banner(item) else item, []))
        elif apart or not found:
            found.append(Group(None, [item]))
        else:
            found[-1].members.append(item)
        end = item.end
    return found


def check_documentation(source: Source) -> Iterator[Finding]:
    found = groups(source)
    for group in found:
        functions = group.functions()
        if functions and group.comment:
            for text in wrong_with_comment(group.comment, functions):
                yield source.finding(group.comment.start, f"{functions[0].name}: {text}")
        elif functions:
            yield source.finding(
                functions[0].start, f"{functions[0].name}: no comment stands directly above"
            )
        yield from check_macros(source, group)
    yield from check_twins_together(source, found)


def check_macros(source: Source, group: Group) -> Iterator[Finding]:
    for item in group.members:
        macro = PUBLIC_MACRO.match(item.text)
        if item.kind == "directive" and macro and not group.comment:
            yield source.finding(
                item.start, f"{macro[1]}: no comment stands directly above its group"
            )
            return


def wrong_with_comment(comment: Item, functions: Sequence[Item]) -> Iterator[str]:
    text = comment_text(comment)
    yield from wrong_with_first_paragraph(text)
    labels = list(LABEL.finditer(text))
    yield from wrong_with_labels(text, labels)
    names = {label[1] for label in labels}
    results = {function.name: function.result for function in functions}
    giving = [name for name, result in results.items() if result != "void"]
    failing = [name for name, result in results.items() if result == "int64_t"]
    if giving and "Returns" not in names:
        yield f"say at the start of a line what {giving[0]} gives, by `Returns:`"
    if failing and "Errors" not in names:
        yield f"name the errors of {failing[0]} at the start of a line, by `Errors:`"
    for function in functions[1:]:
        if not is_twin(function.name, functions[0].name, text):
            yield f"{function.name} is no twin of it: mention it in the comment, or give it its own"


def comment_text(comment: Item) -> str:
    inside = comment.text.removeprefix("/*").removesuffix("*/").strip()
    return "\n".join(line.removeprefix("   ").rstrip() for line in inside.split("\n"))


def wrong_with_first_paragraph(text: str) -> Iterator[str]:
    label = LABEL.search(text)
    first = text[: label.start() if label else len(text)].split("\n\n")[0]
    verb = VERB.match(first)
    if not verb or verb[0] in NO_VERBS:
        word = first.split(maxsplit=1)[0] if first.strip() else "a label"
        yield f"begin with what it does, a verb such as Starts, Tells, Is (not with `{word}`)"
    if not re.search(r"\.\)?(?:\s|$)", first):
        yield "end the first sentence with a full stop"


def wrong_with_labels(text: str, labels: Sequence[re.Match[str]]) -> Iterator[str]:
    names = [label[1] for label in labels]
    for nearly in NEARLY_LABEL.finditer(text):
        if nearly[0][:-1] not in LABELS:
            yield f"`{nearly[0]}` is no label: these are {', '.join(LABELS)}"
    for label in labels:
        if NOTHING.match(text, label.end()):
            yield f"nothing stands behind `{label[1]}:`"
    yield from (f"`{name}:` more than once" for name in LABELS if names.count(name) > 1)
    if sorted(names, key=LABELS.index) != names:
        yield f"put the labels into their order: {', '.join(LABELS)}"


def stem(name: str) -> str:
    return SUFFIX.sub("", name)


def is_twin(name: str, first: str, text: str) -> bool:
    """Is it the first but for the suffix, or mentioned, by its name or without the suffix?"""
    mentioned = re.search(rf"\b(?:{name}|{stem(name)})\b", text)
    return stem(name) == stem(first) or mentioned is not None


def check_twins_together(source: Source, found: Sequence[Group]) -> Iterator[Finding]:
    """An x_op that gives a future shares the comment of its x."""
    places = {item.name: place for place, group in enumerate(found) for item in group.functions()}
    for place, group in enumerate(found):
        for item in group.functions():
            base = item.name.removesuffix("_op")
            is_op = base != item.name and item.result == "casync_future *"
            if is_op and places.get(base, place) != place:
                yield source.finding(
                    item.start, f"{item.name} is a twin of {base}: put it into the same group"
                )


# --- glossary ------------------------------------------------------------------------------------

PRIVATE = re.compile(r"\b(?:casync|CASYNC)__([A-Za-z0-9]+)\w*")
ENTRY = re.compile(r"^ {3,}([A-Za-z][A-Za-z0-9]*) {2,}\S", re.M)


def singular(word: str) -> str:
    return re.sub(r"(?<=ss|sh|ch)es$|(?<=x)es$|(?<!s)s$", "", word)


def private_names(source: Source) -> dict[str, dict[str, int]]:
    """By the noun that each begins with, in the singular: the names, and where they stand first."""
    found: dict[str, dict[str, int]] = {}
    for match in PRIVATE.finditer(source.code):
        found.setdefault(singular(match[1].lower()), {}).setdefault(match[0], match.start())
    return found


def section_words(source: Source) -> set[str]:
    """The words of the implementation's banners, in the singular."""
    text = " ".join(section.name for section in sections(source, "implementation")).lower()
    return set(map(singular, re.findall(r"[a-z0-9]+", text)))


def glossaries(source: Source) -> list[Item]:
    return [
        item
        for item in source.half(implementation=True)
        if item.kind == "comment" and item.text.startswith("/* Glossary.")
    ]


def check_glossary(source: Source) -> Iterator[Finding]:
    found = glossaries(source)
    words = [word for item in found for word in glossary_words(item)]
    if found:
        yield from check_entries(source, found, words)
    else:
        yield source.finding(
            source.implementation,
            "no comment `/* Glossary.` at the head of the implementation: write it",
        )
    known = section_words(source) | {singular(word) for word, _ in words}
    for noun, names in private_names(source).items():
        if noun not in known:
            yield source.finding(*unknown_noun(noun, names))


def glossary_words(item: Item) -> list[tuple[str, int]]:
    entries = ENTRY.finditer(item.text)
    return [(entry[1].lower(), item.start + entry.start(1)) for entry in entries]


def check_entries(
    source: Source, found: Sequence[Item], words: Sequence[tuple[str, int]]
) -> Iterator[Finding]:
    code = [
        item
        for item in source.half(implementation=True)
        if item.kind not in ("comment", "directive")
    ]
    if code and found[0].start > code[0].start:
        yield source.finding(found[0].start, "put the glossary before the implementation's code")
    for item in found[1:]:
        yield source.finding(item.start, "a second glossary: join the two")
    if len(words) > MOST_GLOSSARY_WORDS:
        yield source.finding(
            found[0].start,
            f"the glossary has {len(words)} words: rename until {MOST_GLOSSARY_WORDS} are enough",
        )
    used, seen = private_names(source), set[str]()
    for word, offset in words:
        if singular(word) not in used:
            yield source.finding(offset, f"no private name begins with {word}: take it out")
        if word in seen:
            yield source.finding(offset, f"{word} has a second entry: join the two")
        seen.add(word)


def unknown_noun(noun: str, names: dict[str, int]) -> tuple[int, str]:
    listed = ", ".join(names)
    return min(names.values()), (
        f"{noun} is neither a section's word nor in the glossary: rename, or explain it there: "
        f"{listed}"
    )


# --- columns -------------------------------------------------------------------------------------


def check_columns(text: str) -> Iterator[Finding]:
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > MOST_COLUMNS:
            yield Finding(number, f"{len(line)} columns: break the line (at most {MOST_COLUMNS})")


# --- all of it -----------------------------------------------------------------------------------

Check = Callable[[Source], Iterator[Finding]]
HEADER_CHECKS: tuple[Check, ...] = (
    check_length,
    check_forward_declarations,
    check_sections,
    check_documentation,
    check_glossary,
)


def outcome(name: str, findings: Iterator[Finding]) -> tuple[bool, str]:
    """Did a check of the file pass? And the findings."""
    found = sorted(findings, key=lambda finding: finding.line)
    return not found, "\n".join(f"{name}:{finding.line}: {finding.text}" for finding in found)


def check_file(
    path: Path, name: str, checks: Sequence[Check] | None = None
) -> Iterator[tuple[bool, str]]:
    """A header is checked by all, another file by its functions' length, or by those given."""
    try:
        source = Source(path.read_text())
    except ValueError as error:
        yield False, f"{name}: {error}: tests/header_style.py cannot read it"
        return
    for check in checks or HEADER_CHECKS:
        yield outcome(name, check(source))


def check(root: Path, sources: Sequence[Path]) -> Iterator[tuple[bool, str]]:
    """Tests all of it, the columns in all the sources: for each test whether it passed, and what it
    found.
    """
    yield from check_file(root / "casync.h", "casync.h")
    for path in sorted((root / "python" / "native").glob("*.c")):
        yield from check_file(path, str(path.relative_to(root)), (check_length,))
    for path in sources:
        yield outcome(str(path.relative_to(root)), check_columns(path.read_text()))


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    header = root / "casync.h"
    results = list(check(root, [header]))
    print(*(text for ok, text in results if not ok), sep="\n")
    print(f"{len(forward_declarations(Source(header.read_text())))} forward declarations")
    failed = sum(not ok for ok, _ in results)
    print(f"{len(results) - failed} passed, {failed} failed, 0 skipped")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
