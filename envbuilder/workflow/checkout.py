"""A checkout that somebody works in: where it stands against its remote, and what would be lost with it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from envbuilder import process
from envbuilder.errors import Problem, ToolError
from envbuilder.fs import drafted_folder, write_atomically
from envbuilder.git import mirrored
from envbuilder.models import Entry, PathSource, Workspace

_TIMEOUT_S = 600.0

# Untracked, and nobody's work; most repositories ignore them.
_LEFT_BEHIND = re.compile(r"\?\? (.*/)?(__pycache__|\.(pytest|mypy|ruff)_cache|[^/]+\.egg-info)/")


@dataclass(frozen=True)
class Standing:
    """Where a checkout is.

    Attributes:
        commit: what is checked out; empty before the first commit.
        branch: empty where none is.
        upstream: the remote's branch that it is compared with; empty where there is none.
        ahead, behind: commits that only one of both has.
        dirty: files that are other than in the commit, or new, as ``git status --short`` shows them.
    """

    commit: str
    branch: str
    upstream: str
    ahead: int
    behind: int
    dirty: tuple[str, ...]


class Checkout:
    """A folder in a work tree of git.

    Args:
        folder: the folder.
        mirrors: prefixes of addresses to replace, when fetching and when pushing.
        shown: the folder that errors and hints name instead of a scratch clone, which is gone by then.
    """

    def __init__(self, folder: Path, mirrors: Mapping[str, str], *, shown: Path | None = None):
        self.folder = folder
        self._mirrors = mirrors
        self._shown = shown

    @property
    def is_repository(self) -> bool:
        """Whether the folder is a repository of its own, not one of another's folders."""
        return (self.folder / ".git").exists()

    def standing(self) -> Standing | None:
        """Where it is; None where it is in no repository."""
        if not self.ask("rev-parse", "--is-inside-work-tree"):
            return None
        upstream = self.ask("rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
        if not upstream and self.is_repository:
            upstream = self.default_branch()
        counts = self.ask("rev-list", "--left-right", "--count", f"{upstream}...HEAD").split() if upstream else []
        behind, ahead = map(int, counts) if len(counts) == 2 else (0, 0)
        return Standing(
            commit=self.ask("rev-parse", "--verify", "--quiet", "HEAD"),
            branch=self.ask("symbolic-ref", "--quiet", "--short", "HEAD"),
            upstream=upstream,
            ahead=ahead,
            behind=behind,
            dirty=self.dirty(),
        )

    def default_branch(self) -> str:
        """The remote's own branch, such as ``origin/main``; empty where it names none."""
        return self.ask("rev-parse", "--abbrev-ref", "--verify", "--quiet", "refs/remotes/origin/HEAD")

    def dirty(self) -> tuple[str, ...]:
        """What is not committed, but for what tools leave behind."""
        done = self._git("status", "--short", "--untracked-files=all", "--ignore-submodules=none", "--", ".")
        return tuple(line for line in done.stdout.splitlines() if line and not _LEFT_BEHIND.match(line))

    def tags(self) -> dict[str, str]:
        """The tags that are here, name to object."""
        lines = self.ask("for-each-ref", "--format=%(refname:short) %(objectname)", "refs/tags").splitlines()
        return dict(line.rsplit(" ", 1) for line in lines)

    def at(self, name: str) -> Checkout:
        """The checkout of a submodule."""
        return Checkout(self.folder / name, self._mirrors)

    def fetch(self) -> None:
        """Ask the remote for its branches and tags.

        Raises:
            ToolError: it does not answer.
        """
        self.do("fetch", "--quiet", "--tags", "origin")

    def ask(self, *arguments: str) -> str:
        """What git prints; empty where it refuses."""
        done = self._git(*arguments)
        return done.stdout.strip() if done.ok else ""

    def do(self, *arguments: str, env: Mapping[str, str] | None = None, feed: str | None = None) -> str:
        """Have git do something, and return what it prints.

        Args:
            arguments: the command.
            env: variables beside the usual ones.
            feed: what git reads from its standard input.

        Raises:
            ToolError: it refuses.
        """
        done = self._git(*arguments, env=env, feed=feed)
        if not done.ok:
            lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            fatal = [line for line in lines if line.startswith(("fatal:", "error:", " ! "))] or lines
            place = self._shown or self.folder
            message = f"git {arguments[0]} failed in {place}: {'; '.join(fatal[:3])}"
            look = ["push", "--dry-run", "origin", "HEAD"] if arguments[0] == "push" else ["status"]
            mirrored = _settings(self._address(), self._mirrors) if arguments[0] == "push" else []
            hint = shlex.join(["git", "-C", str(place), *mirrored, *look])
            raise ToolError(message, code="git-failed", where=str(place), hint=hint)
        return done.stdout.strip()

    def _git(self, *arguments: str, env: Mapping[str, str] | None = None, feed: str | None = None) -> process.Completed:
        address = self._address() if arguments[0] in {"fetch", "ls-remote", "push", "submodule"} else ""
        words = ["git", *_PLAIN, "-C", str(self.folder), *_settings(address, self._mirrors), *arguments]
        return process.run(words, env={**_environment(), **(env or {})}, timeout_s=_TIMEOUT_S, feed=feed)

    def _address(self) -> str:
        done = process.run(["git", "-C", self.folder, "config", "remote.origin.url"], timeout_s=_TIMEOUT_S)
        return done.stdout.strip()


# What is read must not be coloured, set in columns or have signatures between its lines, as a person may like it.
_PLAIN = ("-c", "color.ui=false", "-c", "column.ui=never", "-c", "log.showSignature=false")


def _environment() -> dict[str, str]:
    return process.clean_environment({"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_EDITOR": "true"})


def _settings(address: str, mirrors: Mapping[str, str]) -> list[str]:
    """Git's settings by which an address is fetched from its mirror."""
    place = mirrored(address, mirrors)
    if place == address:
        return []
    return ["-c", f"url.{place}.insteadOf={address}", "-c", "protocol.file.allow=always"]


def clone(url: str, folder: Path, mirrors: Mapping[str, str], *, commit: str = "", tag: str = "") -> Checkout:
    """Clone a repository through the mirrors; its origin is the address itself.

    Args:
        url: the canonical address.
        folder: where to; whole, or not there at all.
        mirrors: prefixes of addresses to replace.
        commit: what to check out: the default branch, where that is at it; else detached.
        tag: likewise, where the commit is not known; where neither is given, the default branch.

    Raises:
        ToolError: it cannot be cloned, or has no such commit.
    """
    with drafted_folder(folder) as staging:
        made = Checkout(staging, mirrors)
        words = ["git", *_settings(url, mirrors), "clone", "--quiet", "--no-checkout", "--", url, str(staging)]
        done = process.run(words, env=_environment(), timeout_s=_TIMEOUT_S)
        if not done.ok:
            reason = next((line for line in done.stderr.splitlines() if line.startswith("fatal:")), "git failed")
            raise ToolError(f"cannot clone {url}: {reason}", code="remote-unreachable", hint=f"git ls-remote {url}")
        made.do("remote", "set-url", "origin", url)
        _check_out(made, commit or (f"refs/tags/{tag}" if tag else ""))
        if (staging / ".gitmodules").exists():
            made.do("submodule", "update", "--quiet", "--init", "--recursive")
    return Checkout(folder, mirrors)


def _check_out(made: Checkout, wanted: str) -> None:
    default = made.default_branch()
    at = made.ask("rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}") if wanted else ""
    if wanted and not at:
        raise ToolError(f"the repository has no {wanted.removeprefix('refs/tags/')}", code="tag-missing")
    if default and at in {"", made.ask("rev-parse", f"{default}^{{commit}}")}:
        made.do("checkout", "--quiet", default.partition("/")[2])
    elif at:
        made.do("checkout", "--quiet", "--detach", at)
    else:
        raise ToolError("the repository names no default branch", code="tag-missing")


def exclude(folder: Path, root: Path, *, hide: bool) -> None:
    """Hide a clone in a workspace from the workspace's own repository, or no longer: ``git add`` would take it for a submodule.

    It is written where git looks for one person alone, not into a file that is committed.
    """
    outer = Checkout(root, {})
    file = outer.ask("rev-parse", "--git-path", "info/exclude")
    if not file or not folder.is_relative_to(root):
        return
    line = f"/{outer.ask('rev-parse', '--show-prefix')}{folder.relative_to(root)}/"
    path = root / file
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [each for each in lines if each != line]
    write_atomically(path, "\n".join([*kept, *([line] if hide else []), ""]))


def missing(workspace: Workspace, entry: Entry) -> Problem | None:
    """A warning where an entry's overlay names a checkout that is not there; None elsewhere."""
    if not isinstance(entry.source, PathSource) or (workspace.root / entry.source.path).is_dir():
        return None
    message = f"its overlay names {entry.source}, which is not there"
    hint = f"envbuilder dev on {entry.name}"
    return Problem("checkout-missing", message, entry.name, entry.at("source"), hint, severity="warning")


def named(lines: Collection[str], most: int = 5) -> str:
    """The first of some lines, and how many more there are."""
    shown = [" ".join(line.split()) for line in lines]
    return "; ".join(shown[:most]) + (f"; and {len(shown) - most} more" if len(shown) > most else "")
