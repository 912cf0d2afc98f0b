"""Finds the images that a table names, and says of those that are not there why, how many, and what to do about it."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from envbuilder.errors import Problem, nearest
from pipeline.config.tables import Table
from pipeline.models import chunked

Kind = Literal[
    "base64", "address", "backslashes", "unicode", "name", "home", "absolute", "elsewhere", "unusable", "gone"
]

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_BASE64 = re.compile(
    r"data:[\w.+/-]*[;,]|[A-Za-z0-9+/\s]{100,}={0,2}\s*\Z"
    r"|(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)[A-Za-z0-9+/\s]{20,}={0,2}\s*\Z"
)
_LONGEST_SHOWN = 60
_EXAMPLES = 3
# So many commands stand in one hint; the next look at the plan has those for the rest.
_MOST_COMMANDS = 8
_WORDS: dict[Kind, str] = {
    "base64": "hold base64 data, not a path; expected image files",
    "address": "are addresses; expected paths of files, for nothing is fetched during a run",
    "backslashes": "have backslashes; expected / between folders",
    "unicode": "are on disk in another Unicode form (NFC against NFD): the names look the same, and are not",
    "name": "are on disk under a slightly different name (case, ending, %20)",
    "home": "begin with ~, which no table expands; expected whole paths",
    "absolute": "begin with /, and are beside the table",
    "elsewhere": "are relative to another folder than the table's",
    "unusable": "are there, and are no files that can be read",
    "gone": "are not there",
}
_DECODE = (
    "import base64,os,re,sys; f=sys.argv[1]; d=os.path.dirname(f); n=iter(range(1,10**9)); "
    'k={"iV":"png","/9":"jpg","R0":"gif","Uk":"webp"}; os.makedirs(os.path.join(d,"decoded"),exist_ok=True); '
    'w=lambda m:(b:=m[1] or m[2],p:=f"decoded/{next(n)}.{k.get(b[:2],chr(105)+chr(109)+chr(103))}",'
    'open(os.path.join(d,p),"wb").write(base64.b64decode(b)))[1]; '
    't=open(f,encoding="utf-8",newline="").read(); '
    't=re.sub(r"data:image/[\\w.+-]+;base64,([A-Za-z0-9+/=]+)|((?:[A-Za-z0-9+/]{100,}|(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)[A-Za-z0-9+/]{20,})={0,2})",w,t); '
    'open(f,"w",encoding="utf-8",newline="").write(t)'
)
_RENAME = (
    "import os,sys,unicodedata as u; d,f=sys.argv[1:]; "
    "[os.rename(os.path.join(d,n),os.path.join(d,u.normalize(f,n))) for n in os.listdir(d)]"
)


@dataclass(frozen=True)
class _Fault:
    """An image that cannot be offered.

    Attributes:
        kind: the kind of cause.
        line: of the row.
        written: what the table has.
        text: the cause, of this one.
        found: where it is, where that is known.
    """

    kind: Kind
    line: int
    written: str
    text: str
    found: Path | None = None


class Images:
    """The images of one table.

    Args:
        table: the table.
        path: where it is.
        others: folders that paths may have been meant to be relative to.
    """

    def __init__(self, table: Table, path: Path, others: Sequence[Path]) -> None:
        self._table = table
        self._folder = path.parent
        self._others = others
        self._faults: list[_Fault] = []
        self._listings: dict[Path, list[str]] = {}
        self._named = 0
        self.digests: dict[Path, str] = {}

    def find(self, written: str, line: int) -> tuple[Path, str | None]:
        """An image's absolute path, and why it cannot be offered, if it cannot."""
        self._named += 1
        path = self._folder / shortened(written)
        if not (_BASE64.match(written) or _ADDRESS.match(written)):
            path = self._folder / written
            try:
                path = path.resolve()
                if path not in self.digests and path.is_file():
                    self.digests[path] = _file_digest(path)
            except (OSError, ValueError, RuntimeError):
                pass  # No permission, a NUL in the name, links in a circle: told below.
            if path in self.digests:
                return path, None
        fault = self._fault(written, line)
        self._faults.append(fault)
        return path, f"image-missing: {fault.text}"

    def problems(self, column: str) -> tuple[Problem, ...]:
        """One warning for each kind of cause: how many, the first of them with their lines, and a command that helps."""
        found = []
        for kind, words in _WORDS.items():
            faults = [fault for fault in self._faults if fault.kind == kind]
            if faults:
                some = [f"{shortened(fault.written)!r} (line {fault.line})" for fault in faults]
                told = f"{len(faults)} of {self._named} images {words}: {chunked(some, _EXAMPLES)}"
                if kind in {"unusable", "gone", "name", "elsewhere"}:
                    told += f"; first: {faults[0].text}"
                where = f"{self._table.shown}:{faults[0].line}"
                hint = self._hint(kind, faults)
                text = f"column {column!r}: {told}"
                found.append(Problem("images-missing", text, where=where, hint=hint, severity="warning"))
        return tuple(found)

    def _fault(self, written: str, line: int) -> _Fault:
        shown = shortened(written)
        if _BASE64.match(written):
            text = f"{shown} is base64 data of {len(written):,} characters, not a path"
            return _Fault("base64", line, written, text)
        if _ADDRESS.match(written):
            return _Fault("address", line, written, f"{shown} is an address, not a path")
        for kind, guess in self._guesses(written):
            if _is_file(guess):
                return _Fault(kind, line, written, f"no file {shown}; there is {guess}", guess)
        path = self._folder / written
        if "\\" in written:
            return _Fault("backslashes", line, written, f"no file {self._folder / shown}: backslashes are no /")
        reason = _unusable(path)
        if reason:
            return _Fault("unusable", line, written, f"cannot read {self._folder / shown}: {reason}")
        near = nearest(Path(written).name, self._listed(path.parent))
        text = f"no file {self._folder / shown}" + (f"; nearest: {near}" if near else "")
        return _Fault("gone", line, written, text)

    def _guesses(self, written: str) -> Iterator[tuple[Kind, Path]]:
        """Where an image could be that is not where the table says."""
        if "\\" in written:
            yield "backslashes", self._folder / written.replace("\\", "/")
            return
        if written.startswith("~"):
            yield "home", Path(os.path.expanduser(written))  # noqa: PTH111 - of an unknown user it stays as it is.
        if written.startswith("/"):
            yield "absolute", self._folder / written.lstrip("/")
        yield from self._alike("unicode", written, lambda name: unicodedata.normalize("NFC", name))
        yield from self._alike("name", written, lambda name: unicodedata.normalize("NFC", unquote(name)).casefold())
        yield from self._alike("name", written, lambda name: Path(unquote(name)).stem.casefold())
        for folder in (*self._others, *self._folder.parents[:1]):
            yield "elsewhere", folder / written
        for name in ("images", "imgs", "img", "image", "data"):
            yield "elsewhere", self._folder / name / written

    def _alike(self, kind: Kind, written: str, form: Callable[[str], str]) -> Iterator[tuple[Kind, Path]]:
        """The file whose name and folders have the same form, going down from the table's folder."""
        path = Path("/") if written.startswith("/") else self._folder
        for part in Path(written).parts[written.startswith("/") :]:
            if (path / part).exists() or part == "..":
                path /= part
                continue
            same = [name for name in self._listed(path) if form(name) == form(part)]
            if len(same) != 1:
                return
            path /= same[0]
        yield kind, path

    def _listed(self, folder: Path) -> list[str]:
        if folder not in self._listings:
            try:
                self._listings[folder] = os.listdir(folder)  # noqa: PTH208 - names, not paths
            except (OSError, ValueError):
                self._listings[folder] = []
        return self._listings[folder]

    def _hint(self, kind: Kind, faults: Sequence[_Fault]) -> str:
        """The command that mends, or shows, faults of one kind."""
        made: dict[Kind, Callable[[Sequence[_Fault]], str]] = {
            "base64": self._decode,
            "address": self._fetch,
            "backslashes": self._turn,
            "home": lambda _: self._edit({"~/": f"{Path.home()}/"}),
            "absolute": lambda faults: self._edit({f"/{part}": part for part in map(_top, faults)}),
            "unicode": self._rename,
            "name": self._links,
            "elsewhere": self._links,
        }
        if kind in made:
            return made[kind](faults)
        at = self._beside / shortened(faults[0].written)
        if kind == "unusable":
            return f"ls -ldL {shlex.quote(str(at))}; chmod u+r {shlex.quote(str(at))}"
        return f"ls {shlex.quote(str(at.parent))}"

    @property
    def _beside(self) -> Path:
        """The table's folder as commands name it."""
        return Path(self._table.shown).parent

    def _decode(self, _: Sequence[_Fault]) -> str:
        target = self._beside / "decoded"
        return f"python3 -c {shlex.quote(_DECODE)} {shlex.quote(self._table.shown)}  # writes them to {target}"

    def _turn(self, faults: Sequence[_Fault]) -> str:
        folders = dict.fromkeys(fault.written[: fault.written.rindex("\\") + 1] for fault in faults)
        return self._edit({folder: folder.replace("\\", "/") for folder in folders})

    def _links(self, faults: Sequence[_Fault]) -> str:
        return _chained(self._link(fault) for fault in faults)

    def _edit(self, replaced: dict[str, str]) -> str:
        """The command that replaces beginnings of cells in the table, and keeps the table as it was beside it."""
        separator = re.escape(self._table.delimiter) if self._table.delimiter else ""
        is_json = not self._table.delimiter
        words = []
        for old, new in list(replaced.items())[:_MOST_COMMANDS]:
            written = old.replace("\\", "\\\\") if is_json else old
            pattern = re.sub(r"([][\\.*^$+?(){}|#])", r"\\\1", written)
            target = re.sub(r"([\\&#])", r"\\\1", new)
            script = rf's#(^|[{separator}" ]){pattern}#\1{target}#g'
            words.append(f"-e {shlex.quote(script)}")
        return f"sed -E -i.bak {' '.join(words)} {shlex.quote(self._table.shown)}"

    def _fetch(self, faults: Sequence[_Fault]) -> str:
        file = shlex.quote(self._table.shown)
        addresses = [fault.written for fault in faults]
        if all(each.startswith("file://") for each in addresses):
            return self._edit({"file://": ""})
        if not all(each.lower().startswith(("http://", "https://")) for each in addresses):
            line = faults[0].line
            return f"${{EDITOR:-vi}} +{line} {file}  # fetch them, and name the files"
        folders = dict.fromkeys(each[: each.rindex("/") + 1] for each in addresses)
        images = shlex.quote(str(self._beside / "images"))
        ends = self._table.delimiter + '"[:space:]'
        kinds = "|".join(re.sub(r"([][\\.*^$+?(){}|])", r"\\\1", each) for each in folders)
        listed = f"grep -ohE {shlex.quote(f'({kinds})[^{ends}/]+')} {file} | sort -u"
        fetched = f"mkdir -p {images} && {listed} | (cd {images} && xargs -n 1 curl -fsSLO)"
        return f"{fetched} && {self._edit(dict.fromkeys(folders, 'images/'))}"

    def _rename(self, faults: Sequence[_Fault]) -> str:
        """The command that gives names the form that the table has."""
        commands: dict[str, None] = {}
        for fault in faults:
            form = "NFC" if unicodedata.is_normalized("NFC", fault.written) else "NFD"
            folder = self._beside
            for part in Path(fault.written).parts:
                if not part.isascii():
                    quoted = shlex.quote(str(folder))
                    commands[f"python3 -c {shlex.quote(_RENAME)} {quoted} {form}"] = None
                folder /= part
        return _chained(commands)

    def _link(self, fault: _Fault) -> str:
        """The command that links what the table names to what is there."""
        wanted, found = Path(fault.written), fault.found or Path(fault.written)
        if fault.kind == "elsewhere" and len(wanted.parts) > 1:
            # The folder as a whole.
            found = Path(str(found).removesuffix(str(Path(*wanted.parts[1:]))))
            wanted = Path(wanted.parts[0])
        at = self._beside / wanted
        target = os.path.relpath(found, self._folder / wanted.parent)
        made = f"mkdir -p {shlex.quote(str(at.parent))} && " if not (self._folder / wanted.parent).is_dir() else ""
        return f"{made}ln -s {shlex.quote(target)} {shlex.quote(str(at))}"


def _chained(commands: Iterator[str] | dict[str, None]) -> str:
    found = list(dict.fromkeys(commands))
    rest = len(found) - _MOST_COMMANDS
    return " && ".join(found[:_MOST_COMMANDS]) + (f"  # {rest} more stay" if rest > 0 else "")


def shortened(text: str) -> str:
    """A cell as messages show it: the beginning of what is long."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"


def _top(fault: _Fault) -> str:
    return Path(fault.written).parts[1]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.R_OK)
    except (OSError, ValueError):
        return False


def _unusable(path: Path) -> str:
    """Why what is there is no file that can be read; empty where nothing is there."""
    try:
        if path.is_symlink() and not path.exists():
            return f"it is a link to {os.readlink(path)}, which is not there"  # noqa: PTH115 - as it is written
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            with path.open("rb"):
                return "it changes while it is looked at"
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        return f"it is {kinds.get(stat.S_IFMT(status.st_mode), 'a device')}, no file"
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return error.strerror or type(error).__name__
    except (ValueError, RuntimeError) as error:
        return str(error)


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
