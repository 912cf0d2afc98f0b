"""Filling a staging folder from a lock: which link mode, what first, who waits for whom."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from envbuilder import uv
from envbuilder.errors import EnvbuilderError
from envbuilder.fs import locked, unwritable, write_atomically
from envbuilder.models import Interpreter
from envbuilder.store.records import site_packages
from envbuilder.store.skeletons import Skeleton, Skeletons

# From linux/fs.h.
_FICLONE = 0x40049409

# Python run by hand in a sealed environment must not write bytecode into it. The environment's own name keeps apart
# what is kept beside it; workers, whose PYTHONPYCACHEPREFIX is set, are left alone.
_BYTECODE = (
    "import os, sys; _place = os.path.realpath(sys.prefix); sys.pycache_prefix = sys.pycache_prefix or "
    "os.path.join(os.path.dirname(os.path.dirname(_place)), 'pycache', os.path.basename(_place)); del _place\n"
)


class TornError(EnvbuilderError):
    """A package that uv's cache holds only parts of."""

    code = "sync-failed"

    def __init__(self, package: str, message: str, *, hint: str):
        super().__init__(message, hint=hint)
        self.package = package


@dataclass(frozen=True)
class Recipe:
    """How to fill a staging folder.

    Attributes:
        project: the folder of the generated project and its lock.
        staging: the folder to fill.
        interpreter: the Python to make it with.
        env: variables for uv.
        skeletons: where empty virtual environments come from.
        prepare: has what uv builds from at hand (git objects), and says by which further variables uv finds it; called once
            uv's cache turned out to lack something.
        extra: which of the project's extras; its torch backend.
        open_to_base: whether the base interpreter's packages are to be seen inside.
        sites: folders of a base that is a virtual environment, whose packages are to be seen inside.
        offline: whether the network is out of bounds.
        suspects: packages that uv's cache held damaged: they are fetched and unpacked anew.
        since_ns: when that cache was read, as `time.time_ns` tells it.
        hear: called with each line that uv says while it fetches.
        log: the file for all that a failed build wrote.
    """

    project: Path
    staging: Path
    interpreter: Interpreter
    env: Mapping[str, str]
    skeletons: Skeletons
    prepare: Callable[[], Mapping[str, str]]
    extra: str | None = None
    open_to_base: bool = False
    sites: tuple[Path, ...] = ()
    offline: bool = False
    suspects: Collection[str] = ()
    since_ns: int = 0
    hear: Callable[[str], None] | None = None
    log: Path | None = None


def sync(recipe: Recipe, shared: Path, waiting: Callable[[], None]) -> set[str]:
    """Make a virtual environment and install the lock's packages into it; what it held before they came.

    First with what uv's cache has, side by side with others, and without a look at git: what was built from a commit
    once is in the cache. Then with what it can build; what it lacks, online, one environment at a time on this machine,
    since cold syncs at once would each fetch, and keep, the wheels that they share.

    Args:
        recipe: what to make.
        shared: the state folder that holds the network's lock.
        waiting: called where another environment is being fetched.

    Raises:
        EnvbuilderError: uv cannot do it, or what it builds from is not to be had.
    """
    if recipe.suspects and not recipe.offline:
        recipe = replace(recipe, env={**recipe.env, **recipe.prepare()})
        with locked(shared / "locks" / "network", waiting=waiting):
            _forget(recipe, shared)
            with contextlib.suppress(EnvbuilderError):
                return _attempt(recipe, offline=True)
            return _attempt(recipe, offline=False)
    with contextlib.suppress(EnvbuilderError):
        return _attempt(recipe, offline=True)
    recipe = replace(recipe, env={**recipe.env, **recipe.prepare()})
    try:
        return _attempt(recipe, offline=True)
    except EnvbuilderError:
        if recipe.offline:
            raise
    waited = False

    def wait() -> None:
        nonlocal waited
        waited = True
        waiting()

    with locked(shared / "locks" / "network", waiting=wait):
        # Whoever was waited for may have fetched all that is needed here.
        if waited:
            with contextlib.suppress(EnvbuilderError):
                return _attempt(recipe, offline=True)
        return _online(recipe, shared)


def _online(recipe: Recipe, shared: Path) -> set[str]:
    """Install with the network at hand; what uv's cache holds only parts of is fetched anew."""
    forgotten: set[str] = set()
    while True:
        start = time.time_ns()
        try:
            return _attempt(recipe, offline=False)
        except TornError as error:
            if error.package in forgotten:
                raise
            forgotten.add(error.package)
            _forget(replace(recipe, suspects={error.package}, since_ns=start), shared)


def _forget(recipe: Recipe, shared: Path) -> None:
    """Have uv's cache forget the suspects; those that a neighbour had it forget meanwhile are good again."""
    stamps = {name: shared / "forgotten" / name for name in recipe.suspects}
    names = [name for name, stamp in stamps.items() if not stamp.exists() or stamp.stat().st_mtime_ns < recipe.since_ns]
    if names:
        uv.forget(names, cwd=recipe.project)
    for name in names:
        stamps[name].parent.mkdir(parents=True, exist_ok=True)
        stamps[name].touch()


def _attempt(recipe: Recipe, *, offline: bool) -> set[str]:
    plugin = recipe.project.name
    made = recipe.skeletons.of(recipe.interpreter.path)
    if isinstance(made, Skeleton):
        before = _lay(made, recipe)
        made = uv.sync(
            recipe.project,
            recipe.staging,
            recipe.interpreter.path,
            recipe.env,
            offline=offline,
            extra=recipe.extra,
            hear=None if offline else recipe.hear,
        )
        if made.ok:
            return before
    again = f"envbuilder build --profile {recipe.project.parent.name} {plugin}"
    if package := uv.torn_in_cache(made):
        message = uv.explain(made, plugin, "", hint="").message
        raise TornError(package, message, hint=f"uv cache clean {package} && {again}")
    places = f"df -h {shlex.quote(str(recipe.staging.parent))} {shlex.quote(str(uv.cache_folder()))}"
    hint = f"{places}  # envbuilder gc may make room" if uv.found_no_room(made) else again
    problem = uv.explain(made, plugin, "sync-failed", hint=hint, log=recipe.log)
    raise EnvbuilderError(problem.message, code=problem.code, where=problem.where, hint=problem.hint)


def _lay(skeleton: Skeleton, recipe: Recipe) -> set[str]:
    staging = recipe.staging
    try:
        if staging.exists():  # An attempt that failed leaves it half filled.
            shutil.rmtree(staging)
        skeleton.lay(staging, recipe.project.name)
        if recipe.open_to_base:
            _open_to_base(staging / "pyvenv.cfg")
        pth = site_packages(staging) / "_envbuilder_bytecode.pth"
        pth.write_text(_BYTECODE, encoding="utf-8")
        base = site_packages(staging) / "zzz_envbuilder_base.pth"
        if recipe.sites:
            # The last of its kind, so that what others add comes first. A virtual environment's own .pth files count.
            lines = "; ".join(f"site.addsitedir({str(folder)!r})" for folder in recipe.sites)
            base.write_text(f"import site; {lines}\n", encoding="utf-8")
    except OSError as error:
        raise unwritable(staging, error) from error
    return {*skeleton.names, *(str(each.relative_to(staging)) for each in (pth, base))}


def _open_to_base(config: Path) -> None:
    """What ``--system-site-packages`` does: the base's packages come after the environment's own."""
    lines = config.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("include-system-site-packages")]
    config.write_text("\n".join([*kept, "include-system-site-packages = true", ""]), encoding="utf-8")


# What each link mode means for the disk, for people.
LINK_NOTES = {
    "clone": "files share blocks with uv's cache",
    "hardlink": "files are hard links into uv's cache",
    "copy": "files are copied: uv's cache and the store are on different file systems; ENVBUILDER_HOME moves the store",
}


def link_mode(shared: Path) -> tuple[str, bool]:
    """How files get from uv's cache into the store, and whether that was found out just now; tried once, remembered.

    ``clone`` where the file system lets files share blocks, else ``hardlink``, else ``copy``.
    """
    memo = shared / "link-mode"
    about = os.environ.get("UV_CACHE_DIR", "")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        known, _, cache = memo.read_text(encoding="utf-8").rstrip("\n").partition(" ")
        if known in LINK_NOTES and cache == about:
            return known, False
    found = try_links(uv.cache_folder(), shared)
    write_atomically(memo, f"{found} {about}\n")
    return found, True


def try_links(cache: Path, shared: Path) -> str:
    """The best link mode between two folders, by trying."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        shared.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache) as source, tempfile.TemporaryDirectory(dir=shared) as folder:
            source.write(b"x" * 4096)
            source.flush()
            with contextlib.suppress(OSError), (Path(folder) / "clone").open("wb") as target:
                fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
                return "clone"
            with contextlib.suppress(OSError):
                os.link(source.name, Path(folder) / "link")
                return "hardlink"
    except OSError:
        pass
    return "copy"
