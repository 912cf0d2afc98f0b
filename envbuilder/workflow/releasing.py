"""`release`: a plugin's next tag, from its checkout to the pin in the workspace; whole, or as it was.

Commit and tag are made in a scratch clone, and the checkout follows once they are pushed: whatever stops a release before
that, the checkout knows nothing of it.
"""

from __future__ import annotations

import contextlib
import graphlib
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from envbuilder import compat, editing, uv
from envbuilder.config import python_specifier
from envbuilder.errors import ToolError, UsageError, counted
from envbuilder.fs import write_atomically
from envbuilder.git import mirrored
from envbuilder.lock import metadata
from envbuilder.lock.files import read_pins
from envbuilder.models import Entry, GitSource, PathSource, Pin, Profile, Workspace
from envbuilder.variables import for_builds
from envbuilder.workflow import numbering, versions
from envbuilder.workflow.checkout import Checkout, Standing, named


@dataclass(frozen=True)
class Wish:
    """What version somebody wants: the part to count up (``patch``, ``minor`` or ``major``), or the version itself."""

    bump: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Plan:
    """One release to be made.

    Attributes:
        entry: as prod sees it.
        top: the checkout; `inner` is where in it the package is.
        branch: the remote's, to which it is pushed.
        commit: what is checked out.
        old: what is released now; None where nothing is.
        new, tag: what is to be.
        says: where the package keeps its version.
        signed: whether the tag is.
    """

    entry: Entry
    top: Path
    inner: str
    branch: str
    commit: str
    old: Version | None
    new: Version
    tag: str
    says: numbering.Numbering
    signed: bool

    @property
    def url(self) -> str:
        return self.entry.source.url if isinstance(self.entry.source, GitSource) else ""

    @property
    def edits(self) -> tuple[str, ...]:
        """The files that get another version."""
        return () if self.says.version == self.new else self.says.files


class Releaser:
    """Makes releases of what is checked out in a workspace.

    Args:
        workspace, profile: where, and prod.
    """

    def __init__(self, workspace: Workspace, profile: Profile) -> None:
        self._workspace = workspace
        self._profile = profile

    def plan(self, base: Entry, dev: Entry, wish: Wish) -> Plan:
        """What a release of an entry would be.

        Args:
            base, dev: the entry as prod and as dev see it.
            wish: which version.

        Raises:
            UsageError: it has no repository and tag, its checkout is dirty, behind or on no branch, or there is such a tag.
        """
        checkout, inner = self._checkout(base, dev)
        checkout.fetch()
        standing = self._ready(base, checkout)
        package = checkout.folder / inner
        says = numbering.find(package, self._workspace.show(package))
        pinned = base.source.ref if isinstance(base.source, GitSource) else ""
        told = [compat.tag_version(tag, base.name) for tag in {*checkout.tags(), *self._locked(base)}]
        old = max((version for version in told if version is not None), default=None)
        new = self._wanted(base, wish, old, says.version)
        tag = versions.tag_like(pinned, base.name, new)
        if tag in checkout.tags():
            shown = self._workspace.show(checkout.folder)
            raise UsageError(
                f"there is a tag {tag} already", code="tag-exists", where=shown, hint=f"git -C {shown} show {tag}"
            )
        upstream = checkout.ask("rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
        return Plan(
            entry=base,
            top=checkout.folder,
            inner=inner,
            branch=upstream.removeprefix("origin/") if upstream.startswith("origin/") else standing.branch,
            commit=standing.commit,
            old=old,
            new=new,
            tag=tag,
            says=says,
            signed=self._profile.require_signed_tags,
        )

    def _locked(self, base: Entry) -> tuple[str, ...]:
        """The tag that prod is locked to; an entry may name one that is only to come."""
        pin = read_pins(self._workspace, self._profile).entries.get(base.name)
        return (pin.ref,) if pin and pin.ref_kind == "tag" else ()

    def has_changed(self, base: Entry, dev: Entry, pin: Pin | None) -> bool:
        """Whether an entry's checkout holds commits that its pinned tag does not."""
        if not isinstance(dev.source, PathSource) or not isinstance(base.source, GitSource):
            return False
        try:
            checkout, inner = self._checkout(base, dev)
        except UsageError:
            return False
        if pin is None or not checkout.ask("rev-parse", "--verify", "--quiet", f"{pin.commit}^{{commit}}"):
            return True
        return bool(checkout.ask("diff", "--name-only", pin.commit, "HEAD", "--", inner or "."))

    def _checkout(self, base: Entry, dev: Entry) -> tuple[Checkout, str]:
        source = base.source
        if not isinstance(source, GitSource) or source.ref_kind != "tag":
            message = f"prod takes it from {source}, which is no tag that a release could replace"
            raise UsageError(
                message, code="no-repository", where=base.at("source"), hint=f"${{EDITOR:-vi}} {base.at('source')}"
            )
        hint = f"envbuilder dev on {base.name} --branch"
        if not isinstance(dev.source, PathSource):
            raise UsageError(f"{base.name} is not checked out", code="not-in-dev", hint=hint)
        folder = self._workspace.root / dev.source.path
        inner = source.subdirectory
        top = Path(str(folder).removesuffix(f"/{inner}")) if inner else folder
        checkout = Checkout(top, self._workspace.git_mirrors)
        if not checkout.is_repository:
            shown = self._workspace.show(top)
            hint = f"mv {shown} {shown}.old && {hint}  # clones it in its place"
            raise UsageError(f"{shown} is no clone of {source.url}", code="no-repository", where=shown, hint=hint)
        if (origin := checkout.ask("config", "remote.origin.url")) != source.url:
            shown = self._workspace.show(top)
            message = f"{shown} would be pushed to {origin or 'nowhere'}; prod takes it from {source.url}"
            how = "set-url" if checkout.ask("config", "remote.origin.url") else "add"
            hint = f"git -C {shown} remote {how} origin {source.url}"
            raise UsageError(message, code="no-repository", where=shown, hint=hint)
        if Path(place := mirrored(source.url, self._workspace.git_mirrors)).is_file():
            message = f"its mirror {self._workspace.show(Path(place))} is a bundle, and nothing can be pushed to one"
            hint = f"git clone --bare {place} {place.removesuffix('.bundle')}.git && mv {place} {place}.old"
            raise UsageError(message, code="no-repository", where=source.url, hint=hint)
        return checkout, inner

    def _ready(self, base: Entry, checkout: Checkout) -> Standing:
        shown = self._workspace.show(checkout.folder)
        standing = checkout.standing()
        if standing is None or not standing.branch:
            message = "no branch is checked out, and a release is pushed to one"
            raise UsageError(message, code="no-branch", where=shown, hint=f"git -C {shown} switch main")
        if standing.dirty:
            message = f"{base.name} has work that is not committed: {named(standing.dirty)}"
            raise UsageError(message, code="work-uncommitted", where=shown, hint=f"git -C {shown} status")
        if standing.behind:
            message = f"{standing.branch} is {counted(standing.behind, 'commit')} behind {standing.upstream}"
            raise UsageError(message, code="checkout-behind", where=shown, hint=f"git -C {shown} pull --rebase")
        return standing

    def _wanted(self, base: Entry, wish: Wish, old: Version | None, declared: Version | None) -> Version:
        hint = f"envbuilder release {base.name} --version {declared or '0.2.0'}"
        if wish.version is not None:
            try:
                new = Version(wish.version)
            except InvalidVersion as error:
                raise UsageError(f"--version: {error}", hint=hint) from error
        elif old is None and declared is not None:
            new = declared  # The first release is of what was written.
        else:
            new = versions.bumped(old or Version("0"), wish.bump or "patch")
        if old is not None and new <= old:
            message = f"{new} is not newer than {old}, which is released"
            raise UsageError(message, code="version-not-newer", hint=f"envbuilder release {base.name} --bump patch")
        if declared is not None and declared > new:
            message = f"{base.name} says that it is {declared} already, which is newer than {new}"
            raise UsageError(message, code="version-not-newer", hint=hint)
        return new

    def prepare(self, plan: Plan, scratch: Path) -> None:
        """Commit and tag a release in a scratch clone, and prove that the tag says the version.

        Raises:
            ToolError: git refuses.
            UsageError: it says another version.
        """
        checkout = Checkout(plan.top, {})
        config = plan.top / checkout.ask("rev-parse", "--git-path", "config")
        checkout.do("clone", "--quiet", "--shared", "--no-checkout", "--", str(plan.top), str(scratch))
        made = Checkout(scratch, {}, shown=plan.top)
        # The person's own settings of this clone: name, key, credentials, and where it pushes to.
        made.do("remote", "remove", "origin")
        made.do("config", "include.path", str(config.resolve()))
        made.do("checkout", "--quiet", "--detach", plan.commit)
        if plan.edits:
            numbering.write(scratch / plan.inner, plan.says, plan.new)
            made.do("add", "--", *(str(Path(plan.inner) / name) for name in plan.edits))
            made.do("commit", "--quiet", "--message", f"Release {plan.new}")
        kind = "--sign" if plan.signed else "--annotate"
        made.do("tag", kind, "--message", f"{plan.entry.name} {plan.new}", plan.tag)
        self._prove(plan, scratch)

    def _prove(self, plan: Plan, scratch: Path) -> None:
        package = scratch / plan.inner
        file = package / "pyproject.toml"
        where = f"{plan.entry.name} {plan.tag}"
        text = file.read_text(encoding="utf-8") if file.is_file() else None
        found = metadata.static(text, where).version if text is not None else None
        if found is None:
            interpreter = uv.find_python(python_specifier(plan.entry.python or self._profile.python), offline=False)
            with tempfile.TemporaryDirectory(prefix="envbuilder-wheel-") as out:
                env = for_builds(plan.entry.env)
                if together := plan.entry.no_build_isolation.get(plan.entry.name, ()):
                    source = uv.Package(plan.entry.name, package, together)
                    done = uv.install_package(source, Path(out), interpreter.path, env, offline=False)
                else:
                    done = uv.build_wheel(package, Path(out), interpreter.path, env, offline=False)
                if not done.ok:
                    raise ToolError(
                        f"{where} does not build: {uv.backend_words(done)}", code="metadata-unreadable", where=where
                    )
                tell = metadata.of_installed if together else metadata.of_wheel
                found = tell(Path(out), where).version
        if found is None or Version(found) != plan.new:
            shown = self._workspace.show(plan.top / plan.inner)
            message = f"with {plan.new} written to {', '.join(plan.says.files) or 'its tag'}, the package says {found}"
            raise UsageError(
                message, code="version-mismatch", where=shown, hint=f"grep -rn {plan.says.version} {shown}"
            )

    def push(self, plan: Plan, scratch: Path) -> None:
        """Push commit and tag together.

        Raises:
            ToolError: the remote refuses; neither is there.
        """
        made = Checkout(scratch, self._workspace.git_mirrors, shown=plan.top)
        refs = (f"HEAD:refs/heads/{plan.branch}", f"refs/tags/{plan.tag}")
        made.do("push", "--quiet", "--atomic", "origin", *refs)

    def follow(self, plan: Plan, scratch: Path) -> None:
        """Have the checkout follow to what was pushed.

        Raises:
            ToolError: it went elsewhere meanwhile.
        """
        checkout, made = Checkout(plan.top, {}), Checkout(scratch, {}, shown=plan.top)
        spec = f"+refs/tags/{plan.tag}:refs/tags/{plan.tag}"
        checkout.do("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(scratch), spec)
        commit = made.ask("rev-parse", "HEAD")
        checkout.do("merge", "--quiet", "--ff-only", commit)
        checkout.do("update-ref", f"refs/remotes/origin/{plan.branch}", commit)

    def pin(self, plan: Plan) -> None:
        """Have the base entry name the new tag."""
        file = self._workspace.root / "profiles" / "registry" / f"{plan.entry.name}.yaml"
        text = file.read_bytes().decode()
        write_atomically(file, editing.set_in_yaml(text, ("source", "tag"), plan.tag, self._workspace.show(file)))

    def paths(self, plans: Sequence[Plan]) -> list[str]:
        """What a release writes in the workspace, relative to it."""
        return [*(f"profiles/registry/{plan.entry.name}.yaml" for plan in plans), f"profiles/{self._profile.name}"]

    def refuse_unclean(self, plans: Sequence[Plan]) -> None:
        """See that the workspace's files can be put back, and committed alone.

        Raises:
            UsageError: the workspace is in no repository, or those files hold what is not committed.
        """
        outer = Checkout(self._workspace.root, {})
        root = self._workspace.root
        if not outer.ask("rev-parse", "--verify", "--quiet", "HEAD"):
            message = "the workspace is in no repository with a commit, and a release is one"
            raise UsageError(message, code="workspace-dirty", hint=f"git -C {root} init && git -C {root} add --all")
        unclean = outer.ask("status", "--short", "--untracked-files=all", "--", *self.paths(plans))
        if unclean:
            message = f"a release commits these files, which hold other changes: {named(unclean.splitlines())}"
            raise UsageError(message, code="workspace-dirty", hint=f"git -C {root} status")

    def commit(self, plans: Sequence[Plan]) -> None:
        """Commit what the releases wrote in the workspace, and nothing else."""
        outer = Checkout(self._workspace.root, {})
        said = ", ".join(f"{plan.entry.name} {plan.new}" for plan in plans)
        paths = self.paths(plans)
        try:
            outer.do("add", "--", *paths)
            outer.do("commit", "--quiet", "--only", "--message", f"Release {said}", "--", *paths)
        except BaseException:
            outer.ask("reset", "--quiet", "--", *paths)
            raise

    @contextlib.contextmanager
    def kept(self, plans: Sequence[Plan]) -> Iterator[None]:
        """Put the workspace's files back, byte for byte, where the block ends with an error."""
        root = self._workspace.root
        before = {path: path.read_bytes() for path in _files(root, self.paths(plans))}
        try:
            yield
        except BaseException:
            for path in set(_files(root, self.paths(plans))) - before.keys():
                path.unlink()
            for path, data in before.items():
                write_atomically(path, data)
            raise


def _files(root: Path, paths: Sequence[str]) -> list[Path]:
    found = []
    for name in paths:
        place = root / name
        found += [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return found


def ordered(names: Collection[str], asked: Mapping[str, Collection[str]], core: Collection[str]) -> list[str]:
    """Names so that each comes after those that it asks for, the core first.

    Args:
        names: which.
        asked: what each asks for.
        core: the names of the core.
    """
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for name in sorted(names):
        first = set(asked.get(name, ())) & set(names) - {name}
        sorter.add(name, *sorted(first | (set(core) & set(names) if name not in core else set())))
    try:
        return list(sorter.static_order())
    except graphlib.CycleError:
        return sorted(names, key=lambda name: (name not in core, name))
