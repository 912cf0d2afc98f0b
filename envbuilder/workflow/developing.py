"""`dev`: a plugin as a checkout that its overlay names, and back; nothing that exists only there is lost."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from envbuilder import editing, templates
from envbuilder.documents import parse_yaml, read_toml, subtree
from envbuilder.errors import ConfigError, Problem, UsageError
from envbuilder.fs import unwritable, write_atomically
from envbuilder.lock import metadata
from envbuilder.models import Entry, GitSource, PathSource, Pin, Workspace
from envbuilder.workflow import versions
from envbuilder.workflow.checkout import Checkout, Standing, clone, exclude, named
from envbuilder.workflow.losses import losses, refs_in, refuse_foreign

_REMARK = "Dev takes the checkout, whatever the base entry names."

_SAID = {
    "uncommitted": "not committed: {}",
    "unpushed": "committed, and not pushed: {}",
    "stashed": "stashed: {}",
    "elsewhere": "checked out elsewhere from this clone: {}",
    "reflog": "commits that only the reflog leads to: {}",
    "ignored": "ignored by git, and nothing that is made again: {}",
    "hidden": "edited, and hidden from git status by assume-unchanged or skip-worktree: {}",
    "under-way": "git is in the middle of {}",
    "settings": "given to this clone alone: {}",
}
# How each is looked at, or made safe; {} is the clone.
_HINTS = {
    "uncommitted": "git -C {} status",
    "unpushed": "git -C {} push origin HEAD:refs/heads/BRANCH",
    "stashed": "git -C {} stash list",
    "elsewhere": "git -C {} worktree list",
    "reflog": "git -C {} reflog expire --expire=now --all  # if nobody needs them",
    "ignored": "git -C {} clean -ndX  # move what is needed, then: git clean -fdX",
    "hidden": "git -C {} ls-files -v | grep '^[a-zS]'  # git update-index --no-assume-unchanged --no-skip-worktree FILE",
    "under-way": "git -C {} status",
    "settings": "git -C {} config --local --list && ls {}/.git/hooks",
}


@dataclass(frozen=True)
class Record:
    """What `dev on` did for a plugin, for `dev off` to undo.

    Attributes:
        folder: the clone, relative to the workspace.
        cloned: whether it was made, not found.
        before: the overlay's text; None where there was none.
        written: its text since.
        tags: those that the remote had, name to object.
    """

    folder: str
    cloned: bool
    before: str | None
    written: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """How one entry stands in dev.

    Attributes:
        entry: as dev sees it.
        state: ``checkout``, ``missing`` (the overlay names a folder that is not there), or ``tag``, ``branch``, …
        standing: of the checkout, where it is in a repository.
        becomes: the tag that a release of it now would have; empty where there is nothing to release.
    """

    entry: Entry
    state: str
    standing: Standing | None = None
    becomes: str = ""


class Desk:
    """Where somebody works on the plugins of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._records = workspace.own / "dev"

    def overlay(self, name: str) -> Path:
        """The overlay's file."""
        return self._workspace.root / "profiles" / "registry" / f"{name}.dev.yaml"

    def take(
        self, base: Entry, dev: Entry, pin: Pin | None, *, path: Path | None, default_branch: bool, editor_line: bool
    ) -> tuple[Path, str]:
        """Have a checkout of an entry, and an overlay that names it; its folder, and ``cloned``, ``found`` or ``kept``.

        Args:
            base, dev: the entry as prod and as dev see it.
            pin: prod's, where it is locked.
            path: where the checkout is, or is to be.
            default_branch: whether to clone the tip of the default branch, not what is pinned.
            editor_line: whether a new overlay begins with the line by which editors find its schema.

        Raises:
            UsageError: the folder is something else, or there is no repository to clone.
            ToolError: it cannot be cloned.
        """
        source = base.source
        inner = source.subdirectory if isinstance(source, GitSource) else ""
        if path is None and isinstance(dev.source, PathSource):
            folder = self._workspace.root / dev.source.path
            top = self._without(folder, inner)
        else:
            top = self._inside(path) if path else self._workspace.root / "packages" / base.name
            folder = top / inner
        record = self.record(base.name)
        if folder.exists():
            self._refuse_another(folder, base)
            state, cloned = ("kept", True) if record and record.cloned else ("found", False)
        elif top.exists() and any(top.iterdir()):
            shown = self._workspace.show(top)
            raise UsageError(f"{shown} is there, and holds no package at {inner}", code="exists", hint=f"ls {shown}")
        else:
            with contextlib.suppress(FileNotFoundError):
                top.rmdir()
            self._clone(base, pin, top, default_branch=default_branch)
            state, cloned = "cloned", True
        text = self._overlay_text(base.name, self._workspace.show(folder), editor_line=editor_line)
        self._note(base.name, top, cloned=cloned, text=text)
        return folder, state

    def _clone(self, base: Entry, pin: Pin | None, top: Path, *, default_branch: bool) -> None:
        source = base.source
        if not isinstance(source, GitSource):
            raise UsageError(
                f"{base.name} comes from {source}: there is no repository to clone",
                code="no-repository",
                where=base.at("source"),
                hint=f"envbuilder dev on {base.name} --path packages/{base.name}  # with a checkout there",
            )
        pinned = pin if pin and (pin.url, pin.ref) == (source.url, source.ref) else None
        commit = pinned.commit if pinned else source.ref if source.ref_kind == "rev" else ""
        tag = source.ref if source.ref_kind == "tag" and not commit else ""
        try:
            if default_branch:
                clone(source.url, top, self._workspace.git_mirrors)
            else:
                clone(source.url, top, self._workspace.git_mirrors, commit=commit, tag=tag)
            self._refuse_another(top / source.subdirectory, base)
        except (ConfigError, UsageError):
            shutil.rmtree(top, ignore_errors=True)
            raise
        except OSError as error:
            raise unwritable(top, error) from error

    def _inside(self, path: Path) -> Path:
        folder = (self._workspace.root / path).resolve() if not path.is_absolute() else path.resolve()
        if not folder.is_relative_to(self._workspace.root) or folder == self._workspace.root:
            message = f"--path: expected a folder inside the workspace; found {path}"
            raise UsageError(message, hint="envbuilder dev on PLUGIN --path packages/PLUGIN")
        return folder

    def _without(self, folder: Path, inner: str) -> Path:
        return Path(str(folder).removesuffix(f"/{inner}")) if inner else folder

    def _refuse_another(self, folder: Path, base: Entry) -> None:
        shown = self._workspace.show(folder)
        file = folder / "pyproject.toml"
        told = (
            subtree(read_toml(file, self._workspace.show(file)), ("project", "name")).value if file.exists() else None
        )
        if not folder.is_dir() or not (file.exists() or (folder / "setup.py").exists()):
            raise UsageError(f"{shown} is no Python package", code="exists", hint=f"ls -la {shown}")
        if isinstance(told, str) and canonicalize_name(told) != base.name:
            message = f"{shown} holds {told}, not {base.name}"
            raise UsageError(message, code="name-mismatch", hint=f"envbuilder dev on {base.name} --path packages/…")

    def _overlay_text(self, name: str, path: str, *, editor_line: bool) -> str:
        """The overlay's text with the checkout for its source."""
        file = self.overlay(name)
        if not file.exists():
            text = templates.entry_text({"source": {"path": path}}, (_REMARK,), schema="overlay")
            return text if editor_line else text.partition("\n")[2]
        text = file.read_bytes().decode()
        shown = self._workspace.show(file)
        found = parse_yaml(text, shown).value
        if isinstance(found, Mapping) and found.get("source") == {"path": path}:
            return text
        return editing.set_in_yaml(text, ("source",), {"path": path}, shown)

    def _note(self, name: str, top: Path, *, cloned: bool, text: str) -> None:
        file = self.overlay(name)
        before = file.read_bytes().decode() if file.exists() else None
        old = self.record(name)
        if old is not None:
            before = old.before
        elif before == text and not cloned:
            return  # Nothing was done that could be undone.
        tags = Checkout(top, {}).tags() if cloned and old is None else (old.tags if old else {})
        record = Record(self._workspace.show(top), cloned, before, text, tags)
        # The record first: what it says is true of nothing yet, and `dev off` can undo nothing without it.
        write_atomically(self._record_path(name), json.dumps(asdict(record), indent=2))
        if cloned:
            exclude(top, self._workspace.root, hide=True)
        write_atomically(file, text)

    def record(self, name: str) -> Record | None:
        """What `dev on` did; None where it did nothing."""
        try:
            return Record(**json.loads(self._record_path(name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _record_path(self, name: str) -> Path:
        return self._records / f"{name}.json"

    def losses(self, name: str, *, offline: bool) -> list[Problem]:
        """What would be lost with a plugin's clone; nothing where it was not `dev on` that made it."""
        record = self.record(name)
        if record is None or not record.cloned:
            return []
        folder = self._workspace.root / record.folder
        checkout = Checkout(folder, self._workspace.git_mirrors)
        if not folder.exists() or not any(folder.iterdir()):
            return []
        refuse_foreign(checkout)
        remote = {f"refs/tags/{tag}": value for tag, value in record.tags.items()}
        if not offline:
            remote |= refs_in(checkout.ask("ls-remote", "origin"))
        return [
            Problem(f"work-{kind}", _SAID[kind].format(named(lines)), name, record.folder, _hint(kind, record.folder))
            for kind, lines in losses(checkout, remote).items()
        ]

    def leave(self, name: str) -> tuple[str, bool]:
        """Put the overlay back as it was, and remove the clone that `dev on` made: its folder, and whether it is gone.

        Raises:
            UsageError: the overlay names no checkout, or somebody wrote it by hand.
        """
        record = self.record(name)
        file = self.overlay(name)
        text = file.read_bytes().decode() if file.exists() else None
        if record is None:
            raise self._not_ours(name, file, text)
        self._restore(file, text, record)
        folder = self._workspace.root / record.folder
        if record.cloned:
            try:
                if folder.exists():
                    shutil.rmtree(folder)
            except OSError as error:
                raise unwritable(folder, error) from error
            exclude(folder, self._workspace.root, hide=False)
        self._record_path(name).unlink(missing_ok=True)
        return record.folder, record.cloned

    def _not_ours(self, name: str, file: Path, text: str | None) -> UsageError:
        """Why there is nothing to undo: it was not `dev on` that wrote the overlay, or there is none."""
        shown = self._workspace.show(file)
        found = parse_yaml(text, shown).value if text is not None else None
        source = found.get("source") if isinstance(found, Mapping) else None
        if not isinstance(source, Mapping) or "path" not in source:
            return UsageError(f"{name} is not in dev", code="not-in-dev", hint="envbuilder dev status")
        message = f"it was not written by envbuilder dev on, and is left alone; it takes {name} from {source['path']}"
        return UsageError(message, code="overlay-by-hand", where=shown, hint=f"rm {shown}  # if nobody needs it")

    def _restore(self, file: Path, text: str | None, record: Record) -> None:
        if text is None:
            return
        if text == record.written:
            restored = record.before
        else:  # Somebody edited it since, or wrote it: only the source goes back.
            shown = self._workspace.show(file)
            before = parse_yaml(record.before, shown).value if record.before else None
            source = before.get("source") if isinstance(before, Mapping) else None
            if source is not None:
                restored = editing.set_in_yaml(text, ("source",), source, shown)
            else:
                restored = editing.drop_in_yaml(text, "source", shown)
        if restored is None:
            file.unlink()
        else:
            write_atomically(file, restored)

    def row(self, base: Entry, dev: Entry, pin: Pin | None, *, fetch: bool) -> Row:
        """How an entry stands in dev; with `fetch`, after its remote was asked."""
        if not isinstance(dev.source, PathSource):
            return Row(dev, dev.source.kind.partition("-")[2])
        folder = self._workspace.root / dev.source.path
        if not folder.is_dir():
            return Row(dev, "missing")
        checkout = Checkout(folder, self._workspace.git_mirrors)
        if fetch and checkout.is_repository:
            checkout.fetch()
        standing = checkout.standing()
        tag = base.source.ref if isinstance(base.source, GitSource) and base.source.ref_kind == "tag" else None
        moved = bool(pin and checkout.is_repository and standing and standing.commit != pin.commit)
        changed = moved or bool(standing and standing.dirty)
        becomes = versions.would_become(_declared(folder), tag, base.name, changed=changed)
        return Row(dev, "checkout", standing, becomes)


def _declared(folder: Path) -> str | None:
    file = folder / "pyproject.toml"
    if not file.is_file():
        return None
    with contextlib.suppress(metadata.MetadataError, ConfigError):
        return metadata.static(file.read_text("utf-8", "replace"), str(file)).version
    return None


def _hint(kind: str, folder: str) -> str:
    return _HINTS[kind].replace("{}", shlex.quote(folder))
