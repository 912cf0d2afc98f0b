"""Whether this machine and a workspace's state have what they need: one finding for each thing looked at."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from envbuilder import accelerators, git, gpus, uv, variables
from envbuilder.config import python_specifier
from envbuilder.errors import EnvbuilderError, counted
from envbuilder.fs import held_by_nobody
from envbuilder.models import Profile, Registry, Workspace
from envbuilder.places import ELSEWHERE
from envbuilder.store.collecting import human
from envbuilder.store.environments import Store
from envbuilder.store.syncing import LINK_NOTES, try_links

# Less than this free in the state folder, and one torch environment does not fit.
_LOW_BYTES = 6 * 2**30
# How long to add up what a folder weighs; uv's cache may hold millions of files.
_WEIGH_S = 2.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what, ``ok``, ``warn`` or ``fail``, what was found, and a command that helps."""

    what: str
    state: str
    found: str
    remedy: str | None = None


@dataclass(frozen=True)
class View:
    """A workspace as one profile sees it."""

    profile: Profile
    registry: Registry


def tools(views: Sequence[View]) -> Iterator[Finding]:
    """Which uv and which git there are, whether they answer, and whether they are of a version that will do."""
    try:
        path = uv.find_uv()
        version = uv.version_of(path)
        shown = f"{_dotted(version) or 'does not answer'} ({path}); expected {_dotted(uv.OLDEST)} or later"
        other = _other_uv(path, version)
        yield Finding("uv", "ok" if version >= uv.OLDEST else "fail", shown + other, "python -m pip install -U uv")
    except EnvbuilderError as error:
        yield Finding("uv", "fail", error.message, error.hint)
    try:
        version = git.version()
    except EnvbuilderError as error:
        yield Finding("git", "fail", error.message, error.hint)
        return
    signed = any(view.profile.require_signed_tags for view in views)
    oldest = git.OLDEST_SIGNED if signed else git.OLDEST
    state = "ok" if version >= oldest else "fail"
    shown = f"{_dotted(version) or 'does not answer'} ({shutil.which('git')}); expected {_dotted(oldest)} or later"
    yield Finding("git", state, shown + (", for signed tags" if signed else ""), "git --version")


def surroundings() -> Iterator[Finding]:
    """What is set for uv, git and builds, and does not reach them: profiles and entries decide that."""
    for file, names in uv.settings_left_out().items():
        yield Finding("settings", "ok", f"{file}: {', '.join(names)}; not taken, profiles decide that")
    if names := variables.left_out(os.environ):
        yield Finding("variables", "ok", f"{', '.join(names)}; not passed to uv, git and builds: profiles decide that")


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _other_uv(used: Path, version: Sequence[int]) -> str:
    on_path = shutil.which("uv")
    if on_path is None or Path(on_path).resolve() == used.resolve():
        return ""
    found = uv.version_of(Path(on_path))
    why = "is not newer" if found[:2] == tuple(version[:2]) else "is of another series"
    return f"; {on_path} {_dotted(found)} {why}, and is left alone"


def interpreters(views: Sequence[View]) -> Iterator[Finding]:
    """A Python for each request of a profile or an entry, and who asks for it."""
    wanted: dict[str, dict[str, list[str]]] = {}
    for view in views:
        for plugin in view.registry.plugins:
            request = python_specifier(plugin.python or view.profile.python)
            wanted.setdefault(request, {}).setdefault(view.profile.name, []).append(plugin.name)
        if not view.registry.plugins:
            wanted.setdefault(python_specifier(view.profile.python), {}).setdefault(view.profile.name, [])
    for request, askers in sorted(wanted.items()):
        others = {name for each in wanted.values() if each is not askers for name in each}
        who = ", ".join(f"{name}{_named(plugins) if name in others else ''}" for name, plugins in askers.items())
        try:
            found = uv.find_python(request, offline=True)
            yield Finding(f"python {request}", "ok", f"{found.version} ({found.path}), for {who}")
        except EnvbuilderError as error:
            yield Finding(f"python {request}", "warn", f"none yet, for {who}; build fetches it", error.hint)


def _named(plugins: Sequence[str]) -> str:
    if not plugins:
        return ""
    return f" ({', '.join(plugins[:4])}{f' and {len(plugins) - 4} more' if len(plugins) > 4 else ''})"


def graphics(views: Sequence[View]) -> Iterator[Finding]:
    """The GPUs with their driver, and which builds of torch it can run."""
    try:
        driver = gpus.read()
    except EnvbuilderError as error:
        yield Finding("gpu", "warn", error.message, error.hint)
        return
    if driver is None:
        given = gpus.hiding(None)
        yield Finding("gpu", "ok", f"no NVIDIA driver{f'; {given.text}' if given else ''}")
    else:
        names = ", ".join(gpu.name for gpu in driver.gpus) or "no GPU"
        found = f"{names} (driver {driver.version}, CUDA {_dotted(driver.cuda)})"
        if (hiding := gpus.hiding(driver)) is None:
            yield Finding("gpu", "ok", found)
        else:
            cpu = "; gpus: auto takes the CPU" if not hiding.left else ""
            state = "ok" if hiding.meant else "warn"
            yield Finding("gpu", state, f"{found}; {hiding.text}{cpu}", f"unset {gpus.VISIBLE}")
    for backends in dict.fromkeys(view.profile.torch_backends for view in views):
        yield _torch(backends, driver)


def _torch(backends: tuple[str, ...], driver: gpus.Driver | None) -> Finding:
    if backends == (accelerators.DEFAULT,):
        series = accelerators.series(driver) if driver else ()
        runs = f"runs builds for CUDA {', '.join(map(str, series))}" if series else "computes on the CPU"
        return Finding("torch", "ok", f"as the package index serves it; this machine {runs}")
    notes = [f"{name}: {_unfit(name, driver) or 'ok'}" for name in backends]
    try:
        chosen = accelerators.choose(backends, driver)
    except accelerators.UnfitError as error:
        return Finding("torch", "warn", f"{error.message} ({'; '.join(notes)})", error.hint)
    return Finding("torch", "ok", f"auto takes {chosen} ({'; '.join(notes)})")


def _unfit(name: str, driver: gpus.Driver | None) -> str | None:
    if driver is None and accelerators.cuda(name):
        return "no NVIDIA driver, would compute on the CPU"
    return accelerators.unfit(name, driver, every=True)


def disks(shared: Path) -> Iterator[Finding]:
    """The state folder: whether it can be written, on which file system, with how much room; and how files get there."""
    place = shared
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        usage = shutil.disk_usage(place)
    except OSError as error:
        yield Finding("state", "fail", f"{shared}: {error.strerror}", ELSEWHERE)
        return
    writable = place.is_dir() and os.access(place, os.W_OK)
    on = f", on {_file_system(place)}" if writable else " cannot be written"
    yield Finding("state", "ok" if writable else "fail", f"{shared}{on}", ELSEWHERE)
    cache = uv.cache_folder()
    low = usage.free < _LOW_BYTES
    yield Finding(
        "disk", "warn" if low else "ok", f"{human(usage.free)} free", "envbuilder gc --keep 1" if low else None
    )
    if writable:
        mode = try_links(cache, place)
        remedy = f"export ENVBUILDER_HOME={cache.parent / 'envbuilder'}" if mode == "copy" else None
        note = f"{LINK_NOTES[mode]} (cache on {_file_system(cache)})"
        yield Finding("links", "warn" if mode == "copy" else "ok", note, remedy)


def _file_system(path: Path) -> str:
    """The kind of file system that a path is on, such as ``ext4``."""
    real, best, kind = str(path.resolve()), "", "an unknown file system"
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            _, mount, name, *_ = line.split(" ")
            mount = mount.replace("\\040", " ")
            if len(mount) >= len(best) and (real == mount or real.startswith(f"{mount.rstrip('/')}/")):
                best, kind = mount, name
    return kind


def caches(workspace: Workspace | None) -> Finding:
    """What uv's cache and the parts of the state weigh on disk."""
    folders: dict[str, Path] = {"uv's cache": uv.cache_folder()}
    if workspace is not None:
        shared, own = workspace.shared, workspace.own
        folders |= {"environments": shared / "store", "git": shared / "git", "bytecode": shared / "bytecode"}
        folders |= {"runs": own / "runs"}
    told = [f"{name} {_weight(path)}" for name, path in folders.items() if path.is_dir()]
    return Finding("sizes", "ok", ", ".join(told) or "nothing yet")


def _weight(folder: Path) -> str:
    """What the disk holds for a folder; files that are linked several times, in it or elsewhere, count once."""
    until, total, known = time.monotonic() + _WEIGH_S, 0, set()
    stack = [str(folder)]
    while stack:
        if time.monotonic() > until:
            return f"more than {human(total)}"
        with contextlib.suppress(OSError), os.scandir(stack.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                elif status.st_nlink == 1 or status.st_ino not in known:
                    known |= {status.st_ino} if status.st_nlink > 1 else set()
                    total += status.st_blocks * 512
    return human(total)


def state(workspace: Workspace) -> Iterator[Finding]:
    """What killed commands left behind, and whether environments look as they were sealed."""
    store = Store(workspace.shared)
    with contextlib.suppress(EnvbuilderError):  # Of a state folder that cannot be written another line tells.
        left = [str(path.relative_to(workspace.shared)) for path in store.leftovers()]
        locks = _torn_locks(workspace.shared / "git")
        if left:
            yield Finding("leftovers", "warn", _few("left by builds that were killed", left), "envbuilder gc")
        if locks:
            shown = [str(path.relative_to(workspace.shared)) for path in locks]
            remedy = f"rm {' '.join(shlex.quote(str(path)) for path in locks)}"
            yield Finding("leftovers", "warn", _few("of git's locks held by nobody", shown), remedy)
        if not left and not locks:
            yield Finding("leftovers", "ok", "nothing that a killed command left")
    damaged = {key: reason for key in _environments(store) if (reason := store.glance(key)) is not None}
    count = counted(len(_environments(store)), "environment")
    if not damaged:
        yield Finding("seals", "ok", f"{count}, as far as a glance tells")
        return
    reasons = _few(
        "not as sealed", [f"{key}: {'no seal' if why == 'not built' else why}" for key, why in damaged.items()]
    )
    yield Finding("seals", "warn", f"{count}; {reasons}", "envbuilder verify --repair && envbuilder gc")


def _environments(store: Store) -> list[str]:
    return sorted({*store.keys(), *(path.name for path in store.folder.glob("[!.]*") if path.is_dir())})


def _torn_locks(clones: Path) -> list[Path]:
    """Locks of git in clones that no command of ours is at: whoever made them was killed."""
    found: list[Path] = []
    for clone in clones.glob("*.git"):
        with held_by_nobody(clone.with_suffix(".lock")) as free:
            found += [*clone.glob("*.lock"), *clone.glob("refs/**/*.lock")] if free else []
    return found


def _few(what: str, names: Sequence[str], most: int = 3) -> str:
    return f"{len(names)} {what}: {', '.join(names[:most])}{', …' if names[most:] else ''}"


def plain(findings: Sequence[Finding]) -> list[Mapping[str, str | None]]:
    """Findings as the JSON envelope holds them; what is well needs no remedy."""
    return [
        {
            "what": each.what,
            "state": each.state,
            "found": each.found,
            "remedy": None if each.state == "ok" else each.remedy,
        }
        for each in findings
    ]
