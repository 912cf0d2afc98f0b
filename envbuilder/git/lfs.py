"""Git LFS: the pointers of a commit, and one folder of objects for all clones, which git-lfs uses as its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from envbuilder.errors import EnvbuilderError, ToolError
from envbuilder.fs import drafted, make_folder, write_atomically
from envbuilder.git.preloading import texts
from envbuilder.git.repository import Repository
from envbuilder.git.running import git

# The first line of every pointer (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md).
MARK = "version https://git-lfs.github.com/spec/v1"
# Before it was called so, it wrote these, and it reads them still.
MARKS = (MARK, "version https://hawser.github.com/spec/v1", "version http://git-media.io/v/2")
# Bytes; a pointer without extensions has some 130, and none may have more.
SIZES = range(100, 1025)
# Folders of a repository that are not installed, packages though they may be.
_ASIDE = {"test", "tests", "doc", "docs", "example", "examples"}
_POINTER = re.compile(
    rf"(?:{'|'.join(map(re.escape, MARKS))})\n(?:ext-.*\n)*oid sha256:(?P<oid>[0-9a-f]{{64}})\nsize (?P<size>\d+)\n?"
)


# How problems say it.
POINTERS = "hold Git LFS pointers, not their content"
LFS_REMARK = "# lfs: true, beside git in its source, has it fetched"


def shown_files(paths: Sequence[str]) -> str:
    """The first of some files, and how many more there are."""
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"{', '.join(paths[:3])}{more}"


class LfsError(EnvbuilderError):
    """Files whose content in Git LFS is not to be had."""

    code = "lfs-missing"
    exit_status = 1


@dataclass(frozen=True)
class Pointer:
    """A file of a commit whose content is in Git LFS: path, digest (sha256), size in bytes.

    `is_code` tells whether it lies beside code that is installed: below ``src``, or in an import package that is neither
    tests nor documentation.
    """

    path: str
    oid: str
    size: int
    is_code: bool = False


def pointers(repository: Repository, commit: str, below: str = "") -> list[Pointer]:
    """The LFS pointers below a folder at a commit, sorted by path; looked for once, as a commit never changes."""
    memo = repository.path / "lfs-pointers" / f"{commit}-{hashlib.sha256(below.encode()).hexdigest()[:12]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return [Pointer(*each) for each in json.loads(memo.read_text(encoding="utf-8"))]
    if not repository.has(commit):
        return []
    files = repository.files(commit, below)
    packages = {path.removesuffix("__init__.py") for path, _, _ in files if path.endswith("/__init__.py")}
    small: dict[str, list[str]] = {}
    for path, blob, size in files:
        if size in SIZES:
            small.setdefault(blob, []).append(path)
    found = []
    for blob, text in texts(repository.place, list(small)).items():
        if told := _POINTER.fullmatch(text if text.endswith("\n") else f"{text}\n"):
            found += [
                Pointer(path, told["oid"], int(told["size"]), _is_code(path, below, packages)) for path in small[blob]
            ]
    found.sort(key=lambda pointer: pointer.path)
    with contextlib.suppress(OSError, ToolError):
        write_atomically(memo, json.dumps([astuple(each) for each in found]))
    return found


def _is_code(path: str, below: str, packages: Collection[str]) -> bool:
    top = path.removeprefix(f"{below}/" if below else "").split("/")[0]
    return top == "src" or (top not in _ASIDE and any(path.startswith(package) for package in packages))


class Objects:
    """The LFS objects of all clones.

    Args:
        folder: as git-lfs's ``lfs.storage`` names it.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def place(self, oid: str) -> Path:
        """Where an object is, or would be."""
        return self.folder / "objects" / oid[:2] / oid[2:4] / oid

    def lacking(self, wanted: Iterable[Pointer]) -> list[Pointer]:
        """Those whose objects are not here, or not whole."""
        return [each for each in wanted if not _is_whole(self.place(each.oid), each.size)]

    @property
    def settings(self) -> list[tuple[str, str]]:
        """What makes git and git-lfs, as uv runs them, check these objects out."""
        return [
            ("lfs.storage", str(self.folder)),
            ("filter.lfs.clean", "git-lfs clean -- %f"),
            ("filter.lfs.smudge", "git-lfs smudge -- %f"),
            ("filter.lfs.process", "git-lfs filter-process"),
            ("filter.lfs.required", "true"),
        ]

    def bring(self, repository: Repository, commit: str, *, offline: bool) -> None:
        """Have the objects of a commit here.

        Raises:
            LfsError: some are not to be had.
            ToolError: git-lfs is not there, without which uv checks none out.
        """
        wanted = pointers(repository, commit)
        if not wanted:
            return
        if shutil.which("git-lfs") is None:
            message = f"{repository.url} keeps files in Git LFS, and git-lfs is not there"
            raise ToolError(message, code="tool-missing", hint="apt-get install git-lfs  # or your system's way")
        for folder in _kept_beside(repository.remote):
            self._copy(self.lacking(wanted), folder)
        if self.lacking(wanted) and not offline:
            place = Path(repository.remote)
            remote = place.resolve().as_uri() if place.exists() else repository.remote
            server = repository.setting(commit, ".lfsconfig", "lfs.url")
            named = [f"lfs.url={server}"] if server.startswith(("https://", "http://")) else []
            words = [word for each in (f"lfs.storage={self.folder}", *named) for word in ("-c", each)]
            done = git(*words, "--git-dir", str(repository.path), "lfs", "fetch", remote, commit)
            said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
        else:
            said = "--offline forbids to fetch it" if offline else ""
        if lacking := self.lacking(wanted):
            shown = shown_files([each.path for each in lacking])
            message = f"the Git LFS objects of {shown} are not to be had from {repository.remote}: {said}"
            hint = f"git lfs fetch {shlex.quote(repository.remote)} {commit}  # in a clone, to see why"
            raise LfsError(message.removesuffix(": "), where=repository.url, hint=hint)

    def _copy(self, wanted: Iterable[Pointer], source: Path) -> None:
        for each in wanted:
            file = Objects(source).place(each.oid)
            if _is_whole(file, each.size):
                self.take(each.oid, file)

    def take(self, oid: str, file: Path) -> None:
        """Copy a file that is an object's content; another content is left alone."""
        target = self.place(oid)
        make_folder(target.parent)
        digest = hashlib.sha256()
        with contextlib.suppress(_OtherContentError), drafted(target) as draft:
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
                    draft.stream.write(chunk)
            if digest.hexdigest() != oid:
                raise _OtherContentError


class _OtherContentError(Exception):
    """A file that is not the object that it was taken for."""


def _is_whole(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False


def _kept_beside(remote: str) -> Iterator[Path]:
    """The folders of objects that a repository on this machine has; a bundle's are in ``<name>.lfs`` beside it."""
    place = Path(remote)
    if place.is_dir():
        yield from (place / "lfs", place / ".git" / "lfs")
    elif place.is_file():
        yield place.with_suffix(".lfs")
