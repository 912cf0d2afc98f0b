"""The bare clone of one address, filled ref by ref."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from envbuilder import process
from envbuilder.errors import EnvbuilderError, ToolError
from envbuilder.fs import locked, unwritable
from envbuilder.git.preloading import LARGEST, looked_at, small_blob, texts
from envbuilder.git.running import PACKED, TIMEOUT_S, git, trust_hint
from envbuilder.models import DEFAULT_BRANCH
from envbuilder.variables import GIT_SETTINGS

COMMIT = re.compile(r"[0-9a-f]{40}")
# A listing is short; who has not given it by then is not there, in seconds.
LISTING_S = 60.0
# What a remote's tags are, beside the clone's own.
_LISTED_TAGS = "+refs/tags/*:refs/listed/tags/*"


class RemoteError(EnvbuilderError):
    """A remote that cannot be reached or does not answer as a git repository."""

    code = "remote-unreachable"


class OddFileError(EnvbuilderError):
    """A file of a repository that is not read: too large, or a symbolic link that leads out of the repository."""

    code = "metadata-unreadable"
    exit_status = 1


@dataclass(frozen=True)
class Resolved:
    """What a ref is: the tag's object (the commit itself where the tag is lightweight), its commit and tree."""

    object: str
    commit: str
    tree: str


def mirrored(url: str, mirrors: Mapping[str, str]) -> str:
    """Where to fetch a canonical address from: the longest matching prefix is replaced.

    The outcome may be an address, a repository or a bundle; ``<name>.bundle`` is tried where neither ``<name>.git`` nor
    ``<name>`` is there.
    """
    prefix = max((key for key in mirrors if url.startswith(key)), key=len, default=None)
    if prefix is None:
        return url
    target = mirrors[prefix] + url[len(prefix) :]
    bare = target.rstrip("/").removesuffix(".git")
    if "://" in target:
        return target
    return next((place for place in (target, f"{bare}.git", bare, f"{bare}.bundle") if Path(place).exists()), target)


class Repository:
    """The bare clone of one canonical address.

    Args:
        url: the canonical address.
        clones: the folder of all clones.
        mirrors: prefixes to replace when fetching.
    """

    def __init__(self, url: str, clones: Path, mirrors: Mapping[str, str]):
        self.url = url
        self.mirrors = mirrors
        self.remote = mirrored(url, mirrors)
        self.path = clones / f"{_slug(url)}-{hashlib.sha256(url.encode()).hexdigest()[:12]}.git"
        self._held: set[str] = set()
        # What was looked at, by name, and the texts of files, by digest: see `preload`.
        self.looked: dict[str, str] = {}
        self.texts: dict[str, str] = {}

    @property
    def place(self) -> tuple[str, str]:
        """The option by which git finds the clone."""
        return "--git-dir", str(self.path)

    @property
    def is_there(self) -> bool:
        """Whether anything was fetched from this address yet."""
        return (self.path / "HEAD").exists()

    def remote_refs(self) -> dict[str, Resolved]:
        """Every tag and branch at the remote, ``refs/…`` to what it is; trees are not told by a listing.

        Raises:
            RemoteError: the remote cannot be reached.
        """
        if Path(self.remote).is_file():
            return self._bundle_refs()
        try:
            done = git("ls-remote", "--heads", "--tags", "--", self.remote, timeout_s=LISTING_S)
        except process.OverdueError:
            raise self._no_answer(f"no answer within {LISTING_S:g} s") from None
        if not done.ok:
            raise self._unreachable(done)
        return _listed(done.stdout)

    def silent(self, timeout_s: float) -> str | None:
        """Why the remote cannot be reached, in a line; None where it answers as a repository."""
        try:
            done = git("ls-remote", "--quiet", "--", self.remote, "HEAD", timeout_s=timeout_s)
        except ToolError as error:
            return error.message
        return None if done.ok else _last_line(done)

    def _bundle_refs(self) -> dict[str, Resolved]:
        # A bundle's own listing does not tell what annotated tags point at.
        with self._alone():
            done = self._fetch(_LISTED_TAGS, "+refs/heads/*:refs/listed/heads/*", prune=True)
            if not done.ok:
                raise self._unreachable(done)
            shown = self._in_clone("show-ref", "--dereference").stdout
        listed = (line for line in shown.splitlines() if " refs/listed/" in line)
        return _listed("\n".join(line.replace(" refs/listed/", " refs/", 1) for line in listed))

    def fetch(self, kind: str, ref: str) -> Resolved | None:
        """Bring one tag, branch or commit into the clone and say what it is; None where the remote has no such ref.

        Raises:
            RemoteError: the remote cannot be reached.
        """
        place = {"tag": "tags", "branch": "heads"}.get(kind)
        with self._alone():
            if place is None:
                return self._fetch_commit(ref)
            # A source without a ref means the remote's default branch, which goes by the name HEAD here.
            theirs = DEFAULT_BRANCH if (kind, ref) == ("branch", DEFAULT_BRANCH) else f"refs/{place}/{ref}"
            done = self._fetch(f"+{theirs}:refs/{place}/{ref}")
            if "cannot lock ref" in done.stderr:
                # Where the remote had a ref `a` once and has `a/b` now; objects stay, so pins lose nothing.
                done = self._fetch(f"+refs/{place}/*:refs/{place}/*", prune=True)
        if "couldn't find remote ref" in done.stderr:
            return None
        if not done.ok:
            raise self._unreachable(done)
        return self.resolve(kind, ref)

    def fetch_together(self, refs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Resolved | None]:
        """Bring several refs, each a kind and a name, with one command; as `fetch`, one by one, where one is not there.

        Raises:
            RemoteError: the remote cannot be reached.
        """
        wanted = sorted(set(refs))
        if len(wanted) > 1:
            places = {"tag": "refs/tags/", "branch": "refs/heads/"}
            names = [f"{places[kind]}{ref}" for kind, ref in wanted if kind in places]
            specs = [f"+{DEFAULT_BRANCH if name == f'refs/heads/{DEFAULT_BRANCH}' else name}:{name}" for name in names]
            commits = [ref for kind, ref in wanted if kind not in places]
            specs += [f"+{commit}:refs/fetched/{commit}" for commit in commits] + ([_LISTED_TAGS] if commits else [])
            with self._alone():
                done = self._fetch(*specs)
                if done.ok:
                    self._name_ancestors(commits)
            if done.ok:
                return {(kind, ref): self.resolve(kind, ref) for kind, ref in wanted}
        return {(kind, ref): self.fetch(kind, ref) for kind, ref in wanted}

    def fetch_abbreviated(self, digits: str) -> Resolved | None:
        """Bring all of the remote, and say which commit has these first digits; None where there is no single one.

        Raises:
            RemoteError: the remote cannot be reached.
        """
        with self._alone():
            done = self._fetch("+refs/heads/*:refs/listed/heads/*", _LISTED_TAGS, prune=True)
        if not done.ok:
            raise self._unreachable(done)
        return self.resolve("rev", digits)

    def fetch_every_tag(self) -> None:
        """Bring what every tag of the remote names, and leave the clone's own tags as they are.

        Raises:
            RemoteError: the remote cannot be reached.
        """
        with self._alone():
            done = self._fetch(_LISTED_TAGS, prune=True)
        if not done.ok:
            raise self._unreachable(done)

    def _fetch_commit(self, commit: str) -> Resolved | None:
        if self._has_ancestors(commit):
            return self.resolve("rev", commit)
        # Asking for a bare commit is a server's favour, and a bundle cannot do it: fall back to everything.
        done = self._fetch(f"+{commit}:refs/fetched/{commit}", _LISTED_TAGS, prune=True)
        if not done.ok:
            done = self._fetch("+refs/heads/*:refs/listed/heads/*", _LISTED_TAGS, prune=True)
            if not done.ok:
                raise self._unreachable(done)
        if not self.has(commit):
            return None
        self._name_ancestors([commit])
        return self.resolve("rev", commit)

    def _name_ancestors(self, commits: Iterable[str]) -> None:
        """Have the clone's tags name what the remote's name up to these commits: a build may ask git for its version.

        Tags that the clone has stay as they are. The caller holds the clone.
        """
        for commit in commits:
            form = "--format=%(refname) %(objectname)"
            told = self._in_clone("for-each-ref", f"--merged={commit}", form, "refs/listed/tags").stdout.splitlines()
            there = set(self._in_clone("for-each-ref", "--format=%(refname)", "refs/tags").stdout.split())
            tags = [line.replace("refs/listed/", "refs/", 1) for line in told]
            lines = [f"create {line}\n" for line in tags if line.partition(" ")[0] not in there]
            if not self._in_clone("update-ref", "--stdin", feed="".join(lines)).ok:
                for line in lines:  # One that stands in the way of a folder of that name stops all of them.
                    self._in_clone("update-ref", "--stdin", feed=line)
            self._in_clone("update-ref", f"refs/pinned/{commit}", commit)

    def _has_ancestors(self, commit: str) -> bool:
        """Whether the clone holds a commit and the tags up to it."""
        return self.has(commit) and self._in_clone("show-ref", "--verify", "--quiet", f"refs/pinned/{commit}").ok

    def ensure(self, kind: str, ref: str, commit: str, *, offline: bool) -> bool:
        """Bring a pinned commit into the clone where it is not there; whether it is there now.

        Raises:
            RemoteError: it is not there, and the remote cannot be reached.
        """
        if (self._has_ancestors if kind == "rev" else self.has)(commit):
            return True
        if not offline:
            self.fetch(kind, ref)
            if not self.has(commit):
                self.fetch("rev", commit)
        return self.has(commit)

    def point(self, kind: str, ref: str, target: str) -> None:
        """Make a tag or branch of the clone name a pinned object: uv asks for the name, whatever it became since.

        Raises:
            ToolError: the clone cannot be written.
        """
        place = {"tag": "tags", "branch": "heads"}.get(kind)
        if place is None and COMMIT.fullmatch(ref):
            return
        # An abbreviated commit is looked for on branches.
        name = f"refs/{place}/{ref}" if place else f"refs/heads/pinned-{ref}"
        is_default = place is None or (kind, ref) == ("branch", DEFAULT_BRANCH)
        if self._in_clone("rev-parse", "--verify", "--quiet", name).stdout.strip() == target and not is_default:
            return
        with self._alone():
            done = self._in_clone("update-ref", name, target)
            if done.ok and is_default:
                done = self._in_clone("symbolic-ref", "HEAD", name)
        if not done.ok:
            message = f"cannot make {name} of {self.path} name {target[:12]}: {_last_line(done)}"
            raise ToolError(message, hint=_look_at(self.path.parent, done))

    def resolve(self, kind: str, ref: str) -> Resolved | None:
        """What a ref is in the clone, without touching the network."""
        name = {"tag": f"refs/tags/{ref}", "branch": f"refs/heads/{ref}"}.get(kind, ref)
        done = self._in_clone("rev-parse", name, f"{name}^{{commit}}", f"{name}^{{tree}}")
        lines = done.stdout.split()
        return Resolved(*lines) if done.ok and len(lines) == 3 else None

    def has(self, commit: str) -> bool:
        """Whether the clone holds a commit; what was there once in this process is not asked for again."""
        if commit not in self._held and COMMIT.fullmatch(commit):
            self._held |= {commit} if self._in_clone("cat-file", "-e", f"{commit}^{{commit}}").ok else set()
        return commit in self._held

    def read(self, commit: str, path: str) -> str | None:
        """The text of a file at a commit, through links inside of the repository; None where there is none.

        Raises:
            OddFileError: it is larger than a file that people wrote, or a link leads out of the repository.
        """
        told = self._look(f"{commit}:{path}")
        name, _, rest = told.partition(" ")
        if name == "symlink":
            target = rest.partition("\n")[2].strip()
            raise OddFileError(f"{path} is reached by a symbolic link that leaves the repository, to {target!r}")
        kind, _, size = rest.partition(" ")
        if kind != "blob":
            return None  # The commit may yet be fetched.
        if int(size) > LARGEST:
            raise OddFileError(f"{path} has {int(size) / 1e6:.1f} MB, expected at most {LARGEST / 1e6:g}")
        if name not in self.texts:
            self.texts |= texts(self.place, [name])
        return self.texts.get(name)

    def tree_and_tagged(self, commit: str, tag_object: str) -> tuple[str | None, str | None]:
        """The tree of a commit, and the commit that a tag's object names; each None where it is not here."""
        tree, tagged = (self._look(name).partition(" ")[0] for name in facts_of(commit, tag_object))
        return (tree if COMMIT.fullmatch(tree) else None), (tagged if COMMIT.fullmatch(tagged) else None)

    def _look(self, name: str) -> str:
        """Digest, kind and size in bytes of an object; or how it cannot be reached. What is there is asked for once."""
        if name not in self.looked:
            told = looked_at(self.place, [name]).get(name, "") if self.is_there else ""
            if not _is_found(told):
                return told
            self.looked[name] = told
        return self.looked[name]

    def links_out(self, commit: str, below: str, mount: str = "") -> list[tuple[str, str]]:
        """The symbolic links below a folder at a commit that lead out of the checkout, with what they name.

        Args:
            commit: which commit.
            below: the folder; empty for all.
            mount: where in the checkout of another repository this one is, as a submodule.
        """
        done = self._in_clone("ls-tree", "-r", "-z", commit, "--", *([below] if below else []))
        lines = (line.partition("\t") for line in done.stdout.split("\0"))
        links = [path for facts, _, path in lines if facts.startswith("120000 ")]
        targets = ((path, self._in_clone("cat-file", "blob", f"{commit}:{path}").stdout) for path in links)
        placed = ((posixpath.join(mount, path), target) for path, target in targets)
        return [(path, target) for path, target in placed if _leaves(path, target)]

    def files(self, commit: str, below: str = "") -> list[tuple[str, str, int]]:
        """Path, digest and size in bytes of every file below a folder at a commit."""
        done = self._in_clone("ls-tree", "-r", "-l", "-z", commit, "--", *([below] if below else []))
        lines = (line.partition("\t") for line in done.stdout.split("\0"))
        split = ((facts.split(), path) for facts, _, path in lines)
        return [(path, facts[2], int(facts[3])) for facts, path in split if facts[1:2] == ["blob"]]

    def setting(self, commit: str, file: str, key: str) -> str:
        """The value of a key in a file of git's settings at a commit; empty where there is none."""
        return self._in_clone("config", "--blob", f"{commit}:{file}", "--get", key).stdout.strip()

    def submodules(self, commit: str) -> list[tuple[str, str, str]]:
        """Path, address as it is written, and commit of every submodule at a commit."""
        keys = ("config", "--blob", f"{commit}:.gitmodules", "--null", "--get-regexp", r"^submodule\..*\.(path|url)$")
        pairs = (item.partition("\n")[::2] for item in self._in_clone(*keys).stdout.split("\0") if item)
        told = {key.removeprefix("submodule."): value for key, value in pairs}
        found = []
        for key, path in told.items():
            name, _, kind = key.rpartition(".")
            pinned = self._in_clone("rev-parse", "--verify", "--quiet", f"{commit}:{path}").stdout.strip()
            if kind == "path" and pinned:
                found.append((path, told.get(f"{name}.url", ""), pinned))
        return found

    def tag_text(self, name: str) -> str | None:
        """The text of an annotated tag's object; None where it is no such object."""
        done = self._in_clone("cat-file", "tag", name)
        return done.stdout if done.ok else None

    def verify_tag(self, name: str, settings: Mapping[str, str], env: Mapping[str, str]) -> process.Completed:
        """``git verify-tag --raw`` of a tag object, under git settings and variables of the caller's."""
        words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return git(*words, "--git-dir", str(self.path), "verify-tag", "--raw", name, env=env)

    def checkout(self, commit: str, folder: Path, submodules: Mapping[str, str] | None = None) -> None:
        """A work tree at a commit, with its tags, for builds that ask git for their version.

        Args:
            commit: which commit.
            folder: where to make it.
            submodules: where there are submodules, variables by which git finds them.
        """
        within = ("-C", str(folder))
        steps: list[tuple[str, ...]] = [
            ("clone", "--quiet", "--no-checkout", "--shared", "--", str(self.path), str(folder)),
            (*within, "checkout", "--quiet", "--detach", commit, "--"),
        ]
        if submodules:
            steps.append((*within, "config", "remote.origin.url", self.url))
            steps.append((*within, "submodule", "update", "--quiet", "--init", "--recursive"))
        for arguments in steps:
            done = git(*arguments, env=submodules)
            if not done.ok:
                message = f"cannot check out {commit[:12]} of {self.url}: {_last_line(done)}"
                raise ToolError(message, hint=_look_at(folder.parent, done))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the clone, made where it is not there: git's own locks make a second writer fail, not wait."""
        try:
            with locked(self.path.with_suffix(".lock")):
                self._prepare()
                yield
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _prepare(self) -> None:
        if self.is_there:
            return
        # Made beside its place, so that a clone that was killed while it was made is none.
        fresh = self.path.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        done = git("init", "--quiet", "--bare", "--", str(fresh))
        if done.ok:
            # uv asks for a locked commit by its digest; a clone serves that only when told to.
            done = git("--git-dir", str(fresh), "config", "uploadpack.allowAnySHA1InWant", "true")
        if not done.ok:
            shutil.rmtree(fresh, ignore_errors=True)
            raise ToolError(f"cannot make {self.path}: {_last_line(done)}", hint=_look_at(self.path.parent, done))
        shutil.rmtree(self.path, ignore_errors=True)
        fresh.rename(self.path)

    def _fetch(self, *specs: str, prune: bool = False) -> process.Completed:
        flags = ["--quiet", "--no-tags", "--no-write-fetch-head", *(["--prune"] if prune else [])]
        done = self._from_remote("fetch", *flags, "--", self.remote, *specs)
        if not done.ok and ".lock': File exists" in done.stderr:
            # Left by a git that was killed; whoever calls holds the clone, so nobody is at it.
            for stale in self.path.rglob("*.lock"):
                stale.unlink(missing_ok=True)
            done = self._from_remote("fetch", *flags, "--", self.remote, *specs)
        return done

    def _from_remote(self, *arguments: str) -> process.Completed:
        try:
            return self._in_clone(*arguments)
        except process.OverdueError:
            raise self._no_answer(f"it did not end within {TIMEOUT_S:g} s") from None

    def _in_clone(self, *arguments: str, feed: str | None = None) -> process.Completed:
        return git("--git-dir", str(self.path), *arguments, feed=feed)

    def _unreachable(self, done: process.Completed) -> RemoteError:
        return self._no_answer(_last_line(done))

    def _no_answer(self, reason: str) -> RemoteError:
        via = "" if self.remote == self.url else f" (through the mirror {self.remote})"
        return RemoteError(
            f"cannot reach {self.url}{via}: {reason}",
            where=self.url,
            hint=trust_hint(reason) or f"git ls-remote {shlex.quote(self.remote)}",
        )


def facts_of(commit: str, tag_object: str) -> tuple[str, str]:
    """The names by which `Repository.tree_and_tagged` asks."""
    return f"{commit}^{{tree}}", f"{tag_object}^{{commit}}"


def preload(wanted: Iterable[tuple[Repository, str]]) -> None:
    """Look at objects, and read those that are files, of many clones at once; the clones remember what is there.

    Args:
        wanted: clone and name, as `facts_of` or ``<commit>:<path>``.
    """
    asked = [(clone, name) for clone, name in dict.fromkeys(wanted) if name not in clone.looked and clone.is_there]
    if not asked:
        return
    places = list(dict.fromkeys(clone.path for clone, _ in asked))
    told = looked_at(asked[0][0].place, list(dict.fromkeys(name for _, name in asked)), places[1:])
    blobs = [blob for _, name in asked if (blob := small_blob(told.get(name, "")))]
    read = texts(asked[0][0].place, list(dict.fromkeys(blobs)), places[1:]) if blobs else {}
    for clone, name in asked:
        if _is_found(told.get(name, "")):
            clone.looked[name] = told[name]
            blob = small_blob(told[name])
            clone.texts |= {blob: read[blob]} if blob in read else {}


def _is_found(told: str) -> bool:
    return COMMIT.match(told) is not None and not told.endswith((" missing", " ambiguous"))


def _listed(text: str) -> dict[str, Resolved]:
    refs: dict[str, Resolved] = {}
    for line in text.splitlines():
        digest, _, ref = line.replace("\t", " ", 1).partition(" ")
        if ref.endswith("^{}"):  # What an annotated tag points at follows the tag itself.
            name = ref.removesuffix("^{}")
            refs[name] = Resolved(refs[name].object, digest, "")
        else:
            refs[ref] = Resolved(digest, digest, "")
    return refs


def uv_settings(repositories: Iterable[Repository], more: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """Environment variables that make git, as uv runs it, fetch canonical addresses from the clones.

    What a package itself takes from git, without an entry of its own, comes through the mirrors.

    Args:
        repositories: the clones.
        more: further settings of git.
    """
    clones = list(repositories)
    places = {prefix: target for clone in clones for prefix, target in clone.mirrors.items()}
    places |= {clone.url: clone.path.as_uri() for clone in clones}
    pairs = [PACKED, *GIT_SETTINGS, *((f"url.{target}.insteadOf", prefix) for prefix, target in places.items())]
    inherited = os.environ.get("GIT_CONFIG_COUNT", "")
    first = int(inherited) if inherited.isdigit() else 0
    # A submodule that a mirror serves comes from a folder, which git takes from nobody else's repository by default. What
    # its package's build may do goes far beyond that.
    pairs += [("protocol.file.allow", "always"), *more]
    settings = {"GIT_CONFIG_COUNT": str(first + len(pairs)), "UV_NO_GITHUB_FAST_PATH": "1", "GIT_TERMINAL_PROMPT": "0"}
    for number, (key, value) in enumerate(pairs, first):
        settings[f"GIT_CONFIG_KEY_{number}"] = key
        settings[f"GIT_CONFIG_VALUE_{number}"] = value
    # What `git -c` hands to an alias or a hook that runs us outranks numbered settings; the last one counts.
    if outer := os.environ.get("GIT_CONFIG_PARAMETERS"):
        settings["GIT_CONFIG_PARAMETERS"] = " ".join([outer, *(f"'{key}={value}'" for key, value in GIT_SETTINGS)])
    return settings


def _leaves(path: str, target: str) -> bool:
    place = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return place.startswith("/") or place.split("/")[0] == ".."


def _slug(url: str) -> str:
    return (
        re.sub(r"[^A-Za-z0-9._-]+", "-", url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")).strip("-.") or "repo"
    )


def _look_at(folder: Path, done: process.Completed) -> str:
    """The command that shows why git could not write below a folder: no room, or whose it is."""
    no_room = any(os.strerror(number) in done.stderr for number in (errno.ENOSPC, errno.EDQUOT))
    return f"{'df -h' if no_room else 'ls -ld'} {shlex.quote(str(folder))}"


def _last_line(done: process.Completed) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (fatal or lines or [f"git exited with {done.returncode}"])[0]
