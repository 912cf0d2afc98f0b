"""The commits of the repository that a folder of this machine is in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from envbuilder import process
from envbuilder.errors import ToolError
from envbuilder.git.preloading import LARGEST, looked_at, small_blob, texts
from envbuilder.git.repository import COMMIT, OddFileError
from envbuilder.git.running import TIMEOUT_S, trust_hint


class History:
    """The commits of the repository that a folder is in; read only, nothing is checked out.

    Args:
        folder: the folder; paths are relative to it.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def commit(self, revision: str) -> str | None:
        """The commit that a revision names; None where it names none, or there is no repository.

        Raises:
            ToolError: git does not read a repository of this owner.
        """
        done = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if hint := trust_hint(done.stderr):
            message = "the repository belongs to somebody else, and git does not read it"
            raise ToolError(message, where=str(self._folder), hint=hint)
        found = done.stdout.strip()
        return found if done.ok and COMMIT.fullmatch(found) else None

    def files(self, commit: str, below: str) -> list[str]:
        """The files below a folder at a commit."""
        done = self._git("ls-tree", "-r", "-z", "--name-only", commit, "--", below)
        return [name for name in done.stdout.split("\0") if name]

    def texts(self, commit: str, paths: Sequence[str], largest: int = LARGEST) -> dict[str, str]:
        """The texts of files at a commit, of those that are there.

        Raises:
            OddFileError: one has more bytes than that.
        """
        place = ("-C", str(self._folder))
        told = looked_at(place, [f"{commit}:./{path}" for path in paths])
        blobs = dict(zip(paths, (small_blob(each, largest) for each in told.values()), strict=False))
        for path, said in zip(paths, told.values(), strict=False):
            if blobs[path] is None and said.partition(" ")[2].startswith("blob "):
                size = int(said.rpartition(" ")[2]) / 1e6
                message = f"{path} has {size:.1f} MB at {commit[:12]}, expected at most {largest / 1e6:g}"
                raise OddFileError(message, code="config-invalid", where=path, hint=f"git log --oneline -- {path}")
        read = texts(place, list({blob for blob in blobs.values() if blob}))
        return {path: read[blob] for path, blob in blobs.items() if blob in read}

    def worked_on(self) -> list[str]:
        """The files below the folder that git tracks, or would if it were asked to; none in no repository."""
        done = self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".")
        return sorted({name for name in done.stdout.split("\0") if name}) if done.ok else []

    def changed(self, commit: str) -> list[str]:
        """Those of them that are other than in a commit, new or gone."""
        done = self._git("diff", "--name-only", "-z", "--no-renames", "--relative", commit, "--", ".")
        new = self._git("ls-files", "-z", "--others", "--exclude-standard", "--", ".")
        return sorted({name for name in (done.stdout + new.stdout).split("\0") if name})

    def _git(self, *arguments: str) -> process.Completed:
        env = process.tool_environment({"LC_ALL": "C"})
        return process.run(["git", "-C", self._folder, *arguments], env=env, timeout_s=TIMEOUT_S)
