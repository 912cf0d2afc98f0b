"""Git repositories as envbuilder sees them: one bare clone for each address, filled ref by ref.

The clone is also what uv fetches from (`uv_settings`), so that what was proved is what is installed, each object
crosses the network once, and a mirror or bundle serves uv too without a trace in the lock.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from envbuilder import process
from envbuilder.errors import EnvbuilderError, ToolError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_S = 600.0


class RemoteError(EnvbuilderError):
    """A remote that cannot be reached or does not answer as a git repository."""

    code = "remote-unreachable"


@dataclass(frozen=True)
class Resolved:
    """What a ref is: the tag's object (the commit itself where the tag is lightweight), its commit and tree."""

    object: str
    commit: str
    tree: str


def mirrored(url: str, mirrors: Mapping[str, str]) -> str:
    """Where to fetch a canonical address from: the longest matching prefix is replaced.

    The outcome may be an address, a repository or a bundle; ``<name>.bundle`` is tried where ``<name>.git`` or
    ``<name>`` is no folder.
    """
    prefix = max((key for key in mirrors if url.startswith(key)), key=len, default=None)
    if prefix is None:
        return url
    target = mirrors[prefix] + url[len(prefix) :]
    if "://" in target or Path(target).exists():
        return target
    bundle = f"{target.removesuffix('.git')}.bundle"
    return bundle if Path(bundle).is_file() else target


class Repository:
    """The bare clone of one canonical address.

    Args:
        url: the canonical address.
        clones: the folder of all clones.
        mirrors: prefixes to replace when fetching.
    """

    def __init__(self, url: str, clones: Path, mirrors: Mapping[str, str]):
        self.url = url
        self.remote = mirrored(url, mirrors)
        self.path = clones / f"{_slug(url)}-{hashlib.sha256(url.encode()).hexdigest()[:12]}.git"

    def remote_refs(self) -> dict[str, Resolved]:
        """Every tag and branch at the remote, ``refs/…`` to what it is; trees are not told by a listing.

        Raises:
            RemoteError: the remote cannot be reached.
        """
        if Path(self.remote).is_file():
            return self._bundle_refs()
        done = self._git("ls-remote", "--heads", "--tags", "--", self.remote)
        if not done.ok:
            raise self._unreachable(done)
        refs: dict[str, Resolved] = {}
        for line in done.stdout.splitlines():
            digest, _, ref = line.partition("\t")
            if ref.endswith("^{}"):  # What an annotated tag points at follows the tag itself.
                name = ref.removesuffix("^{}")
                refs[name] = Resolved(refs[name].object, digest, "")
            else:
                refs[ref] = Resolved(digest, digest, "")
        return refs

    def _bundle_refs(self) -> dict[str, Resolved]:
        # A bundle's own listing does not tell what annotated tags point at.
        self._prepare()
        done = self._fetch("+refs/tags/*:refs/listed/tags/*", "+refs/heads/*:refs/listed/heads/*", prune=True)
        if not done.ok:
            raise self._unreachable(done)
        refs = self._in_clone("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)", "refs/listed")
        rows = (line.split() for line in refs.stdout.splitlines())
        return {name.replace("refs/listed/", "refs/", 1): Resolved(found[0], found[-1], "") for name, *found in rows}

    def fetch(self, kind: str, ref: str) -> Resolved | None:
        """Bring one tag, branch or commit into the clone and say what it is; None where the remote has no such ref.

        Raises:
            RemoteError: the remote cannot be reached.
        """
        self._prepare()
        spec = {"tag": f"+refs/tags/{ref}:refs/tags/{ref}", "branch": f"+refs/heads/{ref}:refs/heads/{ref}"}.get(kind)
        if spec is None:
            return self._fetch_commit(ref)
        done = self._fetch(spec)
        if done.ok:
            return self.resolve(kind, ref)
        if "couldn't find remote ref" in done.stderr:
            return None
        raise self._unreachable(done)

    def _fetch_commit(self, commit: str) -> Resolved | None:
        if self.has(commit):
            return self.resolve("rev", commit)
        # Asking for a bare commit is a server's favour, and a bundle cannot do it: fall back to everything.
        done = self._fetch(f"+{commit}:refs/pinned/{commit}")
        if not done.ok:
            done = self._fetch("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            if not done.ok:
                raise self._unreachable(done)
        return self.resolve("rev", commit) if self.has(commit) else None

    def ensure(self, kind: str, ref: str, commit: str, *, offline: bool) -> bool:
        """Bring a pinned commit into the clone where it is not there; whether it is there now.

        Raises:
            RemoteError: it is not there, and the remote cannot be reached.
        """
        if self.has(commit):
            return True
        if not offline:
            self.fetch(kind, ref)
            if not self.has(commit):
                self._fetch_commit(commit)
        return self.has(commit)

    def resolve(self, kind: str, ref: str) -> Resolved | None:
        """What a ref is in the clone, without touching the network."""
        name = {"tag": f"refs/tags/{ref}", "branch": f"refs/heads/{ref}"}.get(kind, ref)
        done = self._in_clone("rev-parse", name, f"{name}^{{commit}}", f"{name}^{{tree}}")
        lines = done.stdout.split()
        return Resolved(*lines) if done.ok and len(lines) == 3 else None

    def has(self, commit: str) -> bool:
        """Whether the clone holds a commit."""
        return bool(_COMMIT.fullmatch(commit)) and self._in_clone("cat-file", "-e", f"{commit}^{{commit}}").ok

    def tags_of(self, commit: str) -> tuple[str, ...]:
        """The tags in the clone that point at a commit."""
        return tuple(self._in_clone("tag", "--points-at", commit).stdout.split())

    def read(self, commit: str, path: str) -> str | None:
        """The text of a file at a commit; None where there is none."""
        done = self._in_clone("cat-file", "blob", f"{commit}:{path}")
        return done.stdout if done.ok else None

    def checkout(self, commit: str, folder: Path) -> None:
        """A work tree at a commit, with its tags, for builds that ask git for their version."""
        for arguments in (
            ("clone", "--quiet", "--no-checkout", "--shared", "--", str(self.path), str(folder)),
            ("-C", str(folder), "checkout", "--quiet", "--detach", commit, "--"),
        ):
            done = self._git(*arguments)
            if not done.ok:
                raise ToolError(f"cannot check out {commit[:12]} of {self.url}: {_last_line(done)}")

    def _prepare(self) -> None:
        if (self.path / "HEAD").exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        done = self._git("init", "--quiet", "--bare", "--", str(self.path))
        # uv asks for a locked commit by its digest; a clone serves that only when told to.
        allowed = self._in_clone("config", "uploadpack.allowAnySHA1InWant", "true")
        if not (done.ok and allowed.ok):
            raise ToolError(f"cannot make {self.path}: {_last_line(done if not done.ok else allowed)}")

    def _fetch(self, *specs: str, prune: bool = False) -> process.Completed:
        flags = ["--quiet", "--no-tags", "--no-write-fetch-head", *(["--prune"] if prune else [])]
        return self._in_clone("fetch", *flags, "--", self.remote, *specs)

    def _in_clone(self, *arguments: str) -> process.Completed:
        return self._git("--git-dir", str(self.path), *arguments)

    @staticmethod
    def _git(*arguments: str) -> process.Completed:
        # Never a prompt, never a helper program from an address, never large files that nobody asked for.
        settings = ("-c", "protocol.ext.allow=never", "-c", "gc.auto=0", "-c", "advice.detachedHead=false")
        env = process.clean_environment({"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C"})
        return process.run(["git", *settings, *arguments], env=env, timeout_s=_TIMEOUT_S)

    def _unreachable(self, done: process.Completed) -> RemoteError:
        via = "" if self.remote == self.url else f" (through the mirror {self.remote})"
        return RemoteError(
            f"cannot reach {self.url}{via}: {_last_line(done)}",
            where=self.url,
            hint=f"git ls-remote {self.remote}",
        )


def uv_settings(repositories: Iterable[Repository]) -> dict[str, str]:
    """Environment variables that make git, as uv runs it, fetch canonical addresses from the clones."""
    pairs = [(f"url.{repository.path.as_uri()}.insteadOf", repository.url) for repository in repositories]
    inherited = os.environ.get("GIT_CONFIG_COUNT", "")
    first = int(inherited) if inherited.isdigit() else 0
    settings = {"GIT_CONFIG_COUNT": str(first + len(pairs)), "UV_NO_GITHUB_FAST_PATH": "1", "GIT_TERMINAL_PROMPT": "0"}
    for number, (key, value) in enumerate(pairs, first):
        settings[f"GIT_CONFIG_KEY_{number}"] = key
        settings[f"GIT_CONFIG_VALUE_{number}"] = value
    return settings


def _slug(url: str) -> str:
    return (
        re.sub(r"[^A-Za-z0-9._-]+", "-", url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")).strip("-.") or "repo"
    )


def _last_line(done: process.Completed) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (fatal or lines or [f"git exited with {done.returncode}"])[0]
