"""The nouns of envbuilder, as frozen values without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from envbuilder.accelerators import INDEX
from envbuilder.errors import Problem

# The name of a remote's default branch, where a source names no ref.
DEFAULT_BRANCH = "HEAD"


@dataclass(frozen=True)
class GitSource:
    """Code in a git repository, at a tag, a commit (`rev`) or the tip of a branch.

    Attributes:
        url: the canonical address; mirrors are applied where it is fetched, never here.
        ref_kind: ``tag``, ``rev`` or ``branch``.
        ref: the tag's or branch's name, or the commit's 40 hexadecimal digits.
        subdirectory: where in the repository the package is; empty for its root.
        lfs: whether what it keeps in Git LFS is fetched.
    """

    url: str
    ref_kind: str
    ref: str
    subdirectory: str = ""
    lfs: bool = False

    @property
    def kind(self) -> str:
        return f"git-{self.ref_kind}"

    def __str__(self) -> str:
        place = f"#{self.subdirectory}" if self.subdirectory else ""
        return f"{self.url} {self.ref_kind} {self.ref}{place}"


@dataclass(frozen=True)
class PypiSource:
    """A release from the package index; `specifier` is ``==1.2.3``, or a range."""

    specifier: str
    exact: bool

    @property
    def kind(self) -> str:
        return "pypi-exact" if self.exact else "pypi-range"

    def __str__(self) -> str:
        return f"pypi {self.specifier}"


@dataclass(frozen=True)
class PathSource:
    """An editable checkout; `path` is relative to the workspace."""

    path: str

    @property
    def kind(self) -> str:
        return "path"

    def __str__(self) -> str:
        return f"path {self.path}"


Source = GitSource | PypiSource | PathSource


@dataclass(frozen=True)
class Entry:
    """A registry entry as one profile sees it; the fields are those of the file (docs/reference/files.md).

    `where` is the place of its name, `places` that of each of its keys: a source may stand in the overlay.
    """

    name: str
    kind: str
    source: Source
    where: str
    stage: str | None = None
    entry: str | None = None
    command: tuple[str, ...] = ()
    core: str | None = None
    python: str | None = None
    extras: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    no_build_isolation: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    align: tuple[str, ...] = ()
    torch: str | None = None
    provided: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def is_plugin(self) -> bool:
        return self.kind == "plugin"

    def at(self, key: str) -> str:
        """The place of one of the entry's keys, or of its name."""
        return self.places.get(key, self.where)


@dataclass(frozen=True)
class Registry:
    """All entries of a workspace, seen through one profile; `entries` is sorted by name."""

    entries: tuple[Entry, ...]

    @property
    def plugins(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.is_plugin)

    def get(self, name: str) -> Entry | None:
        """The entry of that (normalised) name."""
        return next((entry for entry in self.entries if entry.name == name), None)


@dataclass(frozen=True)
class Profile:
    """Which sources are allowed and which settings hold; `index_mirrors` are the workspace's and the profile's own."""

    name: str
    python: str
    sources: tuple[str, ...]
    exclude_newer: str | None = None
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    index_mirrors: Mapping[str, str] = field(default_factory=dict)
    build_constraints: tuple[str, ...] = ()
    require_signed_tags: bool = False
    torch_backends: tuple[str, ...] = ("default",)
    torch_index_url: str = INDEX
    compile_bytecode: bool = False


@dataclass(frozen=True)
class Workspace:
    """A folder whose ``pyproject.toml`` has ``[tool.envbuilder]``, and where its state lives.

    Attributes:
        root: the folder.
        shared: state that several workspaces may share: store, git clones, locks, bytecode.
        own: state of this workspace alone: which environment each plugin has, and its runs.
        default_run: the run file that `run` takes where none is given, relative to the root.
        core: distribution name to version, or to the package folder to read it from.
        git_mirrors: prefix of a canonical address to what replaces it.
        index_mirrors: canonical index to mirror.
        allowed_signers: ssh's list of those whose signatures count.
        allowed_keys: a keyring, or a folder of keys, of those whose GPG signatures count.
    """

    root: Path
    shared: Path
    own: Path
    default_run: str | None = None
    core: Mapping[str, str | Path] = field(default_factory=dict)
    git_mirrors: Mapping[str, str] = field(default_factory=dict)
    index_mirrors: Mapping[str, str] = field(default_factory=dict)
    allowed_signers: Path | None = None
    allowed_keys: Path | None = None

    def show(self, path: Path) -> str:
        """The path as people write it here: relative to the workspace where it is inside."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


@dataclass(frozen=True)
class Metadata:
    """What a package says of itself; `version` and `dependencies` are None where only a build can tell."""

    name: str | None
    version: str | None
    requires_python: str | None = None
    dependencies: tuple[str, ...] | None = ()


@dataclass(frozen=True)
class Pin:
    """What a git entry was when it was locked; one table of ``pins.toml``.

    `tag_object` is the annotated tag's own object, equal to `commit` for a lightweight tag and for a bare commit.
    `requires` are the package's own dependencies, as declared at the commit, what it asks of the core among them.
    `signature` is what was known of the tag's when it was locked: ``ssh:<fingerprint> <principal>`` or
    ``gpg:<fingerprint> <user>`` where an allowed signer made it, else ``none``, ``unknown`` or ``bad``.
    `variables` is a digest of those that its entry adds to builds, which its metadata may follow from; else empty.
    """

    url: str
    ref_kind: str
    ref: str
    subdirectory: str
    tag_object: str
    commit: str
    tree: str
    name: str
    version: str
    requires_python: str | None = None
    requires: tuple[str, ...] = ()
    signature: str = "none"
    lfs: bool = False
    variables: str = ""

    @property
    def source(self) -> GitSource:
        return GitSource(self.url, self.ref_kind, self.ref, self.subdirectory, self.lfs)


@dataclass(frozen=True)
class Release:
    """What a release of the index declares, which its lock does not hold; `requires` is None where it cannot be read."""

    version: str
    requires_python: str | None = None
    requires: tuple[str, ...] | None = None


@dataclass(frozen=True)
class LockRecord:
    """What a plugin's lock was made from and is: digests of its inputs and of ``uv.lock`` itself.

    `backends` are the constraints under which its packages are built: the backends' versions when it was locked.
    """

    inputs: str
    lock: str
    backends: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupRecord:
    """What the plugins of an align group have in common: digest of what it was made from, and requirements."""

    inputs: str
    constraints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pins:
    """``pins.toml``: git entries and releases by name, locks by plugin, align groups.

    `edited` are git entries that are not as `lock` wrote them; of releases, such are not there. `dependencies` are
    git sources that no entry names but packages themselves, by what they are (`str` of the source).
    """

    entries: Mapping[str, Pin] = field(default_factory=dict)
    locks: Mapping[str, LockRecord] = field(default_factory=dict)
    edited: frozenset[str] = frozenset()
    releases: Mapping[str, Release] = field(default_factory=dict)
    groups: Mapping[str, GroupRecord] = field(default_factory=dict)
    dependencies: Mapping[str, Pin] = field(default_factory=dict)


@dataclass(frozen=True)
class Interpreter:
    """A Python to build with.

    Attributes:
        path: its real executable, absolute.
        implementation: ``cpython``.
        version: in full, such as ``3.11.7``.
        abi: the ABI and its flags, such as ``cpython-311-x86_64-linux-gnu``.
        platform: such as ``linux-x86_64``.
    """

    path: Path
    implementation: str
    version: str
    abi: str
    platform: str


@dataclass(frozen=True)
class PluginOutcome:
    """What a command did for one plugin; `state` is a word such as ``locked``, ``unchanged``, ``built``, ``failed``."""

    plugin: str
    state: str
    seconds: float = 0.0
    detail: str = ""
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        return not any(problem.severity == "error" for problem in self.problems)
