"""What can go wrong, said so that it can be mended.

An error is raised where a request cannot be served; a `Problem` is a value, for what is expected to fail and is
reported with everything else that does.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130


# In an address: who asks, and with which password; over ssh a name alone is no secret.
_LOGIN = re.compile(r"(?i)\b(https?://|[a-z][a-z0-9+.-]*://(?=[^\s/@]*:))[^\s/'\"<>]*@")
_QUERY = re.compile(r"(?i)([?&][\w.-]*(?:token|secret|password|signature|api[_-]?key)[\w.-]*=)[^\s&#'\"]+")


def redacted(text: str) -> str:
    """A text whose addresses hold no password and no token any more."""
    return _QUERY.sub(r"\1***", _LOGIN.sub(r"\1***@", text)) if "://" in text else text


# What moves a terminal's cursor, colours it, ends a line in secret, or has text read in another order than it stands in:
# C0 but for tab and newline, DEL, C1; marks, overrides and isolates of direction, separators of lines, annotations, tags.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def visible(text: str, *, line: bool = False) -> str:
    """A text as it can be printed: what would act on a terminal, or is no character, stands there as an escape.

    Args:
        text: from wherever; file names may hold anything.
        line: whether it is part of a line, and newlines and tabs are escaped too.
    """
    shown = _INVISIBLE.sub(_escape, text)
    return shown.replace("\n", "\\n").replace("\t", "\\t") if line else shown


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def visible_json(text: str) -> str:
    """JSON of the same values that can be printed: what would act on a terminal stands there as JSON's own escapes."""
    return _INVISIBLE.sub(lambda found: json.dumps(found[0])[1:-1], text)


# Limits of the system, each with a command that shows or raises it.
_LIMITS = {
    errno.EMFILE: "ulimit -n 4096  # more open files for this shell; ulimit -Hn tells the most",
    errno.ENFILE: "sysctl fs.file-nr fs.file-max  # open files of the whole machine, and the most",
    errno.ENOMEM: "free -h",
    errno.EAGAIN: "ulimit -u && ps -u $(id -u) -L --no-headers | wc -l  # processes allowed, and there",
    errno.E2BIG: "env | wc -c  # the environment and the arguments are too long together",
}


def remedy(error: OSError) -> str | None:
    """Return the hint for a limit of the system that an error tells of; None if it tells of something else."""
    return _LIMITS.get(error.errno or 0)


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known word that a mistyped one most looks like; None where none comes near.

    Args:
        word: what was written.
        known: what could have been meant.
        cutoff: how alike two words must be, from 0 to 1.
    """
    import difflib  # Only when something is wrong already: every command begins without it.

    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)


def counted(number: int, noun: str, nouns: str = "") -> str:
    """A number with its noun: ``1 file``, ``2 files``; `nouns` is the plural where an ``s`` does not make it."""
    return f"{number} {noun if number == 1 else nouns or noun + 's'}"


@dataclass(frozen=True)
class Problem:
    """Something checked, built or run that is not as it should be.

    Attributes:
        code: stable name of what is wrong, such as ``tag-missing``.
        message: what was found, against what was required.
        entry: the registry entry or plugin concerned.
        where: file, with line and column where known, address or path.
        hint: a command to run or an edit to make.
        severity: ``error`` or ``warning``; a warning does not change the exit status.

    Passwords and tokens in addresses are left out, whoever told of them.
    """

    code: str
    message: str
    entry: str | None = None
    where: str | None = None
    hint: str | None = None
    severity: str = "error"

    def __post_init__(self) -> None:
        for name in ("message", "where", "hint"):
            if text := getattr(self, name):
                object.__setattr__(self, name, redacted(text))


class EnvbuilderError(Exception):
    """The root of all errors of both packages; `code`, `exit_status` and `hint` are part of the contract."""

    code = "error"
    exit_status = EXIT_UNUSABLE

    def __init__(self, message: str, *, hint: str | None = None, where: str | None = None, code: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
        if code is not None:
            self.code = code

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The error as values, one for each thing that is wrong."""
        return (Problem(self.code, self.message, where=self.where, hint=self.hint),)


class SeveralProblems(EnvbuilderError):  # noqa: N818 - the root of errors that hold more than one
    """An error that holds everything that is wrong."""

    def __init__(self, problems: Iterable[Problem]):
        self._problems = tuple(problems)
        first = self._problems[0]
        super().__init__(first.message, hint=first.hint, where=first.where, code=first.code)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything that is wrong, in the order in which it was found."""
        return self._problems


class ConfigError(SeveralProblems):
    """Files or settings that cannot be used."""

    code = "config-invalid"


class BuildError(SeveralProblems):
    """Environments that could not be built."""

    code = "build-failed"
    exit_status = EXIT_FAILED


class UsageError(EnvbuilderError):
    """A request that makes no sense here: an unknown plugin, no workspace."""

    code = "usage"


class ToolError(EnvbuilderError):
    """A tool that is missing, too old, or failed in a way that is nobody's configuration."""

    code = "tool-failed"


class Interrupted(EnvbuilderError):  # noqa: N818 - not an error of anybody's
    """Ctrl-C, or a polite request to end."""

    code = "interrupted"
    exit_status = EXIT_INTERRUPTED

    def __init__(self, message: str = "interrupted", *, hint: str | None = None):
        super().__init__(message, hint=hint)
