"""The telling lines of a failed build's output: compilers, CMake, Rust, Python. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

# gcc and clang ("a.c:1:10: fatal error: …"), rustc ("error[E0425]: …"), nvcc, setuptools ("error: …").
_COMPILER = re.compile(
    r"(?:^|\s)(?:fatal )?error(?:\[E\d+\])?: (?!command |subprocess|Failed to build|metadata-generation)"
)
# Of linkers, whose callers say only that they failed.
_LINKER = re.compile(r"^\s*(?:\S*\bld(?:\.\w+)?: (?!warning)|\S+: undefined reference to |undefined reference to )")
_CMAKE = re.compile(r"^\s*CMake Error\b")
_EXCEPTION = re.compile(r"^\s*(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|NotFound)\b(?::.*)?$")
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)\s*$')
# A wrapper's own exception says less than what the program that it ran has printed.
_WRAPPED = re.compile(r"^\s*(?:[\w.]+\.)?(?:CalledProcessError|BackendUnavailable|SystemExit)\b")
_MOST_CHARS = 400


def reason(lines: Sequence[str]) -> str:
    """Return the line of a build's output that says why it failed; empty if none has words.

    The first error of a compiler or of CMake counts most, since the others follow from it; then the exception that ended
    the build, with file and line of a syntax error; then the last line with words.

    Args:
        lines: of the output, in their order.
    """
    kept = [line.rstrip() for line in lines if re.search(r"\w", line)]
    found = _of_compiler(kept) or _of_python(kept) or (kept[-1] if kept else "")
    return found.strip()[:_MOST_CHARS]


def _of_compiler(lines: Sequence[str]) -> str | None:
    for number, line in enumerate(lines):
        if _CMAKE.match(line):
            more = next((each.strip() for each in lines[number + 1 : number + 2] if each.startswith(" ")), "")
            return f"{line.strip()} {more}"
        if _COMPILER.search(line) or _LINKER.match(line):
            return line
    return None


def _of_python(lines: Sequence[str]) -> str | None:
    places = [number for number, line in enumerate(lines) if _EXCEPTION.match(line)]
    told = [number for number in places if not _WRAPPED.match(lines[number])] or places
    if not told:
        return None
    number = told[-1]
    text = lines[number].strip()
    if not text.startswith(("SyntaxError", "IndentationError", "TabError")):
        return text
    frame = next((match for line in reversed(lines[:number]) if (match := _FRAME.match(line))), None)
    code = lines[number - 1].strip()
    if frame is None:
        return text
    return f"{frame['file']}:{frame['line']}: {text}: {code}"
