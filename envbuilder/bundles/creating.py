"""`bundle create`: build once from nothing to learn what a build needs, pack that, and prove the pack by a build."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from envbuilder import process, uv
from envbuilder.bundles.archive import File, Git, Link, Manifest, Python, hex_of, machine_tags, write
from envbuilder.bundles.clones import Clone
from envbuilder.bundles.restoring import StaleError, unpack
from envbuilder.errors import BuildError, Problem, SeveralProblems, ToolError, counted
from envbuilder.fs import drafted, locked, unwritable, write_atomically
from envbuilder.git.lfs import Objects, pointers
from envbuilder.lock.files import lock_folder, read_lock, read_pins
from envbuilder.lock.locker import Draft
from envbuilder.lock.locking import find_stale
from envbuilder.lock.sources import Sources, ensure_objects
from envbuilder.models import Entry, Pin, Profile, Registry, Workspace
from envbuilder.places import state_folders
from envbuilder.store.choices import Choices
from envbuilder.store.digests import walk
from envbuilder.store.environments import Store

# The parts of uv's cache that a build from a lock reads. What it knows of interpreters is this machine's; its clones
# serve to build what is built by then.
_BUCKETS = ("archive-v", "wheels-v", "sdists-v", "simple-v", "flat-index-v")
_TIMEOUT_S = 6 * 3600.0


@dataclass(frozen=True)
class Created:
    """A bundle that was proved: its manifest, size in bytes and digest."""

    manifest: Manifest
    size: int
    sha256: str


@dataclass(frozen=True)
class Order:
    """What to bundle: plugins of a workspace in a profile."""

    workspace: Workspace
    profile: Profile
    registry: Registry
    plugins: Sequence[Entry]


def create(file: Path, order: Order, say: Callable[[str], None]) -> Created:
    """Pack all that builds of some plugins need into a file; it appears once a build from it alone has succeeded.

    Args:
        file: the bundle to write; one that is there stays until the new one is proved.
        order: what to bundle.
        say: told what is done now.

    Raises:
        StaleError: a lock is missing or not up to date.
        LocalError: a lock takes packages from a place on this machine.
        BuildError: a plugin cannot be built, or not from the bundle alone.
        ToolError: the file system refuses.
    """
    drafts = _fresh(order)
    _refuse_local(order)
    store = Store(order.workspace.shared)
    # One at a time; what a killed one leaves is swept up by the next build, as it would be for an environment.
    with locked(store.lock_path("bundle"), waiting=lambda: say("waiting for another bundle to be made")):
        scratch = store.staging("bundle")
        try:
            with drafted(file) as draft:
                say(f"building {counted(len(order.plugins), 'plugin')} from nothing, to see what that takes")
                git, sources = _bundle_git(order, drafts, scratch)
                python = _build(order, scratch / "made", sources, git)
                say("packing")
                sources |= {f"cache/{name}": path for name, path in _needed(scratch / "made" / "cache")}
                manifest = _manifest(order, git, python, sources)
                write(draft.stream, manifest, sources)
                draft.stream.flush()
                say("proving it: a build from the bundle alone, without a network")
                _prove(order, draft.path, manifest, scratch / "proof")
                created = Created(manifest, draft.path.stat().st_size, hex_of(draft.path))
        except OSError as error:
            raise unwritable(file, error) from error
        finally:
            store.staging("bundle")
    return created


class LocalError(SeveralProblems):
    """Packages that a lock takes from a place on this machine."""

    code = "bundle-local"


def _refuse_local(order: Order) -> None:
    """Refuse wheels and sdists that lie on this machine: the lock names their place, where another has nothing."""
    profile = f"profiles/{order.profile.name}/profile.toml"
    problems = []
    for plugin in order.plugins:
        for package in read_lock(lock_folder(order.workspace, order.profile, plugin.name)):
            place = next((value for kind, value in package.source.items() if kind in {"registry", "path", "url"}), None)
            if place is not None and ("://" not in place or place.startswith("file:")):
                message = f"the lock takes {package.name} from {place}, which a bundle cannot take along"
                hint = f"grep -n index {profile}  # an index with an address serves"
                problems.append(Problem("bundle-local", message, plugin.name, plugin.where, hint))
    if problems:
        raise LocalError(problems)


def _fresh(order: Order) -> list[Draft]:
    pins = read_pins(order.workspace, order.profile)
    found = find_stale(order.workspace, order.profile, order.registry, order.plugins, pins).values()
    problems = [each for each in found if isinstance(each, Problem)]
    if problems:
        raise StaleError(
            Problem("bundle-stale", f"{each.code}: {each.message}", each.entry, each.where, each.hint)
            for each in problems
        )
    return [each for each in found if isinstance(each, Draft)]


def _bundle_git(order: Order, drafts: Sequence[Draft], scratch: Path) -> tuple[dict[str, Git], dict[str, Path]]:
    """A git bundle for each address: the manifest's entries, and member to file."""
    workspace = order.workspace
    pins = list({pin: None for draft in drafts for pin in draft.every_pin})
    sources = Sources(workspace, order.profile, read_pins(workspace, order.profile), frozen=True)
    ensure_objects(sources, pins, offline=False)
    wanted: dict[str, set[str]] = {}
    for pin in pins:
        # An annotated tag where it is to be had: a package may ask git for its version.
        wanted.setdefault(pin.url, set()).update((pin.tag_object, pin.commit))
        for each in sources.submodules(pin):
            wanted.setdefault(each.repository.url, set()).add(each.commit)
    told, files = {}, {}
    for url, objects in sorted(wanted.items()):
        clone = Clone(url, workspace.shared / "git", workspace.git_mirrors)
        there = {each for each in objects if clone.has(each)}
        file = scratch / clone.member
        file.parent.mkdir(parents=True, exist_ok=True)
        clone.give(there, file)
        told[url] = Git(file=clone.member, objects=tuple(sorted(there)))
        files[clone.member] = file
    return told, files | _bundle_lfs(sources, pins)


def _bundle_lfs(sources: Sources, pins: Sequence[Pin]) -> dict[str, Path]:
    """The Git LFS objects of pinned commits whose sources ask for them: member to file."""
    wanted = (
        pointer
        for pin in pins
        if pin.lfs
        for clone, commit in sources.checked_out(pin)
        for pointer in pointers(clone, commit)
    )
    return {f"lfs/{each.oid}": sources.lfs.place(each.oid) for each in wanted}


def _build(order: Order, home: Path, files: Mapping[str, Path], git: Mapping[str, Git]) -> dict[str, Python]:
    """Build with an empty cache of its own, which then holds what was needed; the interpreters used."""
    for url, each in git.items():
        Clone(url, home / "git", {}).take(files[each.file])
    for name, file in files.items():
        if name.startswith("lfs/"):
            Objects(home / "git" / "lfs").take(name.removeprefix("lfs/"), file)
    keys = _run_build(order, home, {}, ())
    store = Store(home)
    python = {}
    for plugin, key in keys.items():
        seal = store.seal(key)
        inputs = seal.inputs if seal else {}
        facts = {name: str(inputs.get(name, "")) for name in ("implementation", "abi", "platform")}
        python[plugin] = Python(version=str(inputs.get("python", "")), **facts)
    return python


def _prove(order: Order, file: Path, manifest: Manifest, home: Path) -> None:
    cache = home / "cache"
    unpack(file, manifest, cache, home / "git")
    with _no_network() as settings:
        try:
            _run_build(order, home, settings, ("--offline",))
        except BuildError as error:
            raise BuildError(
                Problem("bundle-unproved", f"not from the bundle alone: {each.message}", each.entry, each.where)
                for each in error.problems
            ) from error


@contextlib.contextmanager
def _no_network() -> Iterator[dict[str, str]]:
    """Variables under which whatever a build tries to reach is refused, should it try in spite of ``--offline``."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # Taken, and nobody listens.
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        proxies = {name: address for upper in names for name in (upper, upper.lower())}
        yield {**proxies, "NO_PROXY": "", "no_proxy": "", "GIT_ALLOW_PROTOCOL": "file"}


def _run_build(order: Order, home: Path, env: Mapping[str, str], options: Sequence[str]) -> dict[str, str]:
    """``envbuilder build`` in a process with a state folder and a uv cache of its own: plugin to key.

    Raises:
        BuildError: a plugin cannot be built.
    """
    own = {"ENVBUILDER_HOME": str(home), "UV_CACHE_DIR": str(home / "cache"), **env}
    base = {name: value for name, value in os.environ.items() if name != "UV_NO_CACHE"}
    _take_choices(order, home)
    # One at a time: from an empty cache, neighbours that share a repository would be in each other's way.
    words = ["build", "--jobs", "1", "--profile", order.profile.name, "--format", "json", *options]
    done = process.run(
        [
            sys.executable,
            "-m",
            "envbuilder",
            *words,
            "-C",
            order.workspace.root,
            "--",
            *(plugin.name for plugin in order.plugins),
        ],
        cwd=Path(__file__).resolve().parents[2],
        env=process.clean_environment(own, base=base),
        timeout_s=_TIMEOUT_S,
    )
    try:
        told = json.loads(done.stdout)
        problems = [Problem(**each) for each in told["problems"]]
        if problems and not told["ok"]:
            raise BuildError(problems)
        keys = {each["plugin"]: each["key"] for each in told["result"]["environments"]}
        return {plugin.name: keys[plugin.name] for plugin in order.plugins}
    except (ValueError, KeyError, TypeError) as error:
        raise ToolError(f"the build ended with {done.returncode}: {done.stderr.strip()[-500:]}") from error


def _take_choices(order: Order, home: Path) -> None:
    """Have the builds in another state folder take the torch backends that were asked for in this one."""
    _, own = state_folders(order.workspace.root, str(home))
    ours, theirs = (Choices(folder, order.profile.name).path for folder in (order.workspace.own, own))
    if ours.exists():
        write_atomically(theirs, ours.read_text(encoding="utf-8"))


def _needed(cache: Path) -> Iterator[tuple[str, Path]]:
    """The files of a cache that go into a bundle, by their names in it."""
    for name, entry in walk(cache):
        if entry.is_dir(follow_symlinks=False):
            continue
        parts = name.split("/")
        kept = len(parts) > 2 and parts[0].startswith(_BUCKETS) and not name.endswith(".lock")
        if parts[0].startswith("sdists-v"):
            # Of packages from source, what was built; of the workspace's own folders nothing, which are built there.
            kept = kept and parts[1] not in {"path", "editable"} and "src" not in parts[4:]
        if kept or parts[0].startswith("archive-v"):
            yield name, Path(entry.path)


def _manifest(
    order: Order, git: Mapping[str, Git], python: Mapping[str, Python], sources: Mapping[str, Path]
) -> Manifest:
    names = tuple(plugin.name for plugin in order.plugins)
    locks = {name: hex_of(lock_folder(order.workspace, order.profile, name) / "uv.lock") for name in names}
    files: dict[str, File | Link] = {}
    for name, path in sorted(sources.items()):
        if path.is_symlink():
            # What the links of a cache say is theirs; where it is absolute, it is made to travel.
            folder = path.parent.resolve()
            files[name] = Link(link=os.path.relpath(path.resolve(), folder))
            continue
        status = path.stat()
        files[name] = File(size=status.st_size, sha256=hex_of(path), mode=status.st_mode & 0o777)
    return Manifest(
        schema="envbuilder/bundle/1",
        profile=order.profile.name,
        plugins=names,
        uv=".".join(map(str, uv.version_of(uv.find_uv()))),
        machine=machine_tags()[0],
        python=python,
        locks=locks,
        git=git,
        files=files,
    )
