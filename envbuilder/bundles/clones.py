"""Git objects in a bundle: pinned commits out of one machine's clones, and into another's."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from envbuilder.errors import ToolError
from envbuilder.git import Repository
from envbuilder.git.running import git


class Clone(Repository):
    """A clone that gives its pinned objects away in a file, and takes them from one."""

    @property
    def member(self) -> str:
        """The name of its file in a bundle."""
        return f"git/{hashlib.sha256(self.url.encode()).hexdigest()[:12]}.bundle"

    def give(self, objects: Collection[str], file: Path) -> None:
        """Write commits, or the annotated tags that name them, with all that they need, into a git bundle.

        Raises:
            ToolError: git cannot do it.
        """
        names = [f"refs/bundled/{each}" for each in sorted(objects)]
        with self._alone():
            tags = [tag for each in sorted(objects) for tag in self._tags_up_to(each)]
            for name in names:  # A git bundle holds what has a name.
                done = self._in_clone("update-ref", name, name.rpartition("/")[2])
                if not done.ok:
                    raise ToolError(f"cannot write {self.path}: {done.stderr.strip()[-200:]}")
            # One thread: the same objects give the same file.
            done = git(
                "-c",
                "pack.threads=1",
                "--git-dir",
                str(self.path),
                "bundle",
                "create",
                "--quiet",
                str(file),
                *names,
                *dict.fromkeys(tags),
            )
        if not done.ok:
            raise ToolError(f"cannot bundle {self.url}: {done.stderr.strip()[-200:]}")

    def _tags_up_to(self, commit: str) -> list[str]:
        """The remote's tags that a build from a commit without a tag of its own may ask git for."""
        if not self._has_ancestors(commit):
            return []
        found = self._in_clone("for-each-ref", f"--merged={commit}", "--format=%(refname)", "refs/listed/tags")
        return found.stdout.split()

    def take(self, file: Path) -> None:
        """Fetch all that a git bundle holds; names of the clone's own stay as they are.

        Raises:
            ToolError: git cannot read it.
        """
        with self._alone():
            done = self._in_clone(
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--",
                str(file),
                "+refs/bundled/*:refs/bundled/*",
                "+refs/listed/tags/*:refs/listed/tags/*",
            )
            if done.ok:
                told = self._in_clone("for-each-ref", "--format=%(objecttype) %(objectname)", "refs/bundled").stdout
                self._name_ancestors(line.split()[1] for line in told.splitlines() if line.startswith("commit "))
        if not done.ok:
            raise ToolError(f"cannot take the objects of {self.url}: {done.stderr.strip()[-200:]}")
