"""uv as a subprocess: which one, with which arguments, and what its answers mean."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from packaging.utils import canonicalize_name

from envbuilder import build_errors, process, variables
from envbuilder.errors import EnvbuilderError, Problem, ToolError
from envbuilder.fs import write_atomically
from envbuilder.models import Interpreter, Profile
from envbuilder.places import refuse_unusable

# A lock or a cold sync of a torch environment moves gigabytes over slow lines.
_TIMEOUT_S = 3 * 3600.0

# uv reads what these name also where it stays offline: a fifth of a small sync.
_CERTIFICATES = frozenset({"SSL_CERT_DIR", "SSL_CERT_FILE"})

# The first that knows all that is asked of it here.
OLDEST = (0, 9, 0)

# Where a uv to come says it otherwise, what is damaged so is not mended, but told.
_TORN = re.compile(
    r"Failed to install: \S+ \(([A-Za-z0-9][A-Za-z0-9._-]*)==[^)]*\) cause: .*/archive-v\d+/.*\(os error 2\)"
)

# ENOSPC, EDQUOT and EFBIG, as uv writes them.
_NO_ROOM = re.compile(r"\(os error (28|122|27)\)")

_OTHER_CACHE = "export UV_CACHE_DIR=/var/tmp/uv-cache"

# Asked of every interpreter; the answer is part of an environment's key.
_IDENTITY = """
import json, platform, sys, sysconfig
print(json.dumps([sys.implementation.name, platform.python_version(),
                  sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag, sysconfig.get_platform()]))
"""


@cache
@functools.cache
def default_index() -> str:
    """Where uv looks when nobody names an index, as that index's own client spells it."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    return PYPI_SIMPLE_ENDPOINT.rstrip("/")


def find_uv() -> Path:
    """The uv to use: the one that came with envbuilder, or a newer one on PATH of the same minor series.

    uv's minor releases may change what a lock holds, so one of another series is left alone.

    Raises:
        ToolError: there is none.
    """
    bundled = _bundled()
    on_path = shutil.which("uv")
    if bundled is None:
        if on_path is None:
            raise ToolError("uv is not there", code="tool-missing", hint="python -m pip install uv")
        return Path(on_path)
    if on_path is None or Path(on_path).resolve() == bundled.resolve():
        return bundled
    ours, theirs = version_of(bundled), version_of(Path(on_path))
    fits = theirs[:2] == ours[:2] and theirs > ours
    return Path(on_path) if fits else bundled


def _bundled() -> Path | None:
    try:
        from uv import find_uv_bin
    except ImportError:
        return None
    try:
        return Path(find_uv_bin())
    except FileNotFoundError:
        beside = Path(sys.executable).with_name("uv")
        return beside if beside.exists() else None


@cache
def version_of(uv: Path) -> tuple[int, ...]:
    """A uv's version as numbers; empty where it does not answer."""
    done = process.run([uv, "--version"], timeout_s=60)
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(int(part) for part in found.groups()) if found else ()


def lock(
    project: Path, interpreter: Path, env: Mapping[str, str], *, offline: bool, upgrade: Sequence[str] = ()
) -> process.Completed:
    """``uv lock`` in a project's folder; `upgrade` are the flags that let it leave the versions of the old lock."""
    arguments: list[str | Path] = ["lock", "--project", project, "--python", interpreter, "--no-progress"]
    return _run([*arguments, *_flags(offline=offline), *upgrade], env, cwd=project)


def venv(folder: Path, interpreter: Path, *, prompt: str) -> process.Completed:
    """``uv venv --relocatable``: what is made here may be renamed later."""
    arguments: list[str | Path] = ["venv", "--relocatable", "--no-project", "--clear", "--quiet", "--prompt", prompt]
    return _run([*arguments, "--python", interpreter, folder], {}, cwd=folder.parent, offline=True)


def sync(  # noqa: PLR0913 - uv's own
    project: Path,
    folder: Path,
    interpreter: Path,
    env: Mapping[str, str],
    *,
    offline: bool,
    extra: str | None = None,
    hear: Callable[[str], None] | None = None,
) -> process.Completed:
    """``uv sync --frozen`` of a project's lock, with one of its extras, into a folder; `hear` gets what it says."""
    arguments: list[str | Path] = ["sync", "--frozen", "--no-default-groups", "--no-progress", "--project", project]
    arguments += ["--extra", extra] if extra else []
    place = {"UV_PROJECT_ENVIRONMENT": str(folder)}
    flags = _flags(offline=offline)
    words = [*arguments, "--python", interpreter, *flags]
    return _run(words, {**env, **place}, cwd=project, offline=offline, hear=hear)


def download_of(line: str) -> tuple[str, str | None] | None:
    """What a line that uv says tells of a download: the package, with its size as it begins; None for other lines.

    Good for showing, and for nothing else: a uv to come may say it otherwise.
    """
    found = re.fullmatch(r"\s*Download(?:ing (\S+) \((.+)\)|ed (\S+))\s*", line)
    if found is None:
        return None
    return (found[1], found[2]) if found[1] else (found[3], None)


def forget(names: Collection[str], *, cwd: Path) -> process.Completed:
    """``uv cache clean`` of some packages: they are fetched, or built, anew when next wanted.

    Nothing less does: measured, ``--refresh --reinstall`` leaves what was built from git, and wheels that their index
    calls immutable, as they are in the cache. Forced, since a ``uv run`` that envbuilder may itself have been started
    by holds the cache's lock; only archives that no package but these refers to go.
    """
    return _run(["cache", "clean", "--force", *sorted(names)], {}, cwd=cwd)


def build_wheel(
    source: Path, out: Path, interpreter: Path, env: Mapping[str, str], *, offline: bool
) -> process.Completed:
    """``uv build --wheel``: how a package with dynamic metadata tells what it is."""
    arguments: list[str | Path] = [
        "build",
        "--wheel",
        "--no-progress",
        "--python",
        interpreter,
        "--out-dir",
        out,
        *_flags(offline=offline),
    ]
    return _run([*arguments, source], env, cwd=source)


@dataclass(frozen=True)
class Package:
    """A package's source: its distribution name, its folder, and what it is built with beyond what it declares."""

    name: str
    folder: Path
    together: tuple[str, ...]


def install_package(
    package: Package, target: Path, interpreter: Path, env: Mapping[str, str], *, offline: bool
) -> process.Completed:
    """``uv pip install --no-deps`` of a package's source into an empty folder, built with what it does not declare.

    Of ``uv build``, which would leave a wheel, no package without a ``pyproject.toml`` has a name to set this by.
    """
    # Beside the target, where pip's interface of uv reads no other project's settings.
    settings = target.with_name(f"{target.name}.toml")
    lines = ", ".join(json.dumps(each) for each in package.together)
    settings.write_text(f"[extra-build-dependencies]\n{json.dumps(package.name)} = [{lines}]\n", encoding="utf-8")
    arguments: list[str | Path] = ["pip", "install", "--no-deps", "--no-progress", "--config-file", settings]
    # What a setup.py reads from elsewhere may have changed; offline, uv looks at the usual files alone.
    arguments += [] if offline else ["--refresh-package", package.name]
    arguments += ["--python", interpreter, "--target", target]
    try:
        source = f"{package.name} @ {package.folder.resolve().as_uri()}"
        return _run([*arguments, *_flags(offline=offline), source], env, cwd=target)
    finally:
        settings.unlink()


def missing_module(done: process.Completed) -> str | None:
    """Return the distribution that a failed build imports and lacks, as a build requirement; None where it lacks none."""
    found = re.findall(r"(?:ModuleNotFoundError|ImportError): No module named '?([A-Za-z0-9_]+)", done.stderr)
    if not found:
        return None
    # Removed from setuptools 81, and from Python 3.12.
    return "setuptools<81" if found[-1] in {"pkg_resources", "distutils"} else str(canonicalize_name(found[-1]))


def sync_package(  # noqa: PLR0913 - uv's own
    package: Path,
    folder: Path,
    interpreter: Path,
    env: Mapping[str, str],
    *,
    groups: Sequence[str],
    extras: Sequence[str],
    offline: bool,
) -> process.Completed:
    """``uv sync`` of a package by itself, as in its own folder, into `folder`; it makes a lock where there is none.

    What the person set for uv counts here: it is their project, and none of ours.
    """
    named = [word for name in groups for word in ("--group", name)]
    named += [word for name in extras for word in ("--extra", name)]
    arguments: list[str | Path] = ["sync", "--no-progress", "--python", interpreter, *named, *_flags(offline=offline)]
    return _run(arguments, {**env, "UV_PROJECT_ENVIRONMENT": str(folder)}, cwd=package, persons=True)


def install_beside(
    environment: Path,
    requirements: Sequence[str],
    env: Mapping[str, str],
    *,
    groups: Sequence[tuple[Path, str]],
    excludes: Path,
    offline: bool,
) -> process.Completed:
    """``uv pip install`` of requirements, and of groups of a ``pyproject.toml``, less what a file excludes."""
    named = [word for file, name in groups for word in ("--group", f"{file}:{name}")]
    arguments: list[str | Path] = ["pip", "install", "--no-progress", "--python", environment, *_flags(offline=offline)]
    return _run([*arguments, "--excludes", excludes, *named, *requirements], env, cwd=environment.parent)


def run_with(
    project: Path, words: Sequence[str | Path], env: Mapping[str, str], *, offline: bool, log: Path
) -> process.Completed:
    """``uv run`` in a project's folder, what it says going to a file; the person's own settings of uv count."""
    arguments: list[str | Path] = ["run", "--no-progress", *_flags(offline=offline), *words]
    return _run(arguments, env, cwd=project, persons=True, log=log)


def install_bare(requirement: str, target: Path, interpreter: Path, *, cwd: Path, offline: bool) -> process.Completed:
    """``uv pip install --no-deps`` of one release into a folder of its own; the project in `cwd` names the indexes."""
    arguments: list[str | Path] = ["pip", "install", "--no-deps", "--no-progress", "--target", target]
    return _run([*arguments, "--python", interpreter, *_flags(offline=offline), requirement], {}, cwd=cwd)


def find_python(request: str, *, offline: bool) -> Interpreter:
    """The interpreter for a request such as ``==3.11.*``; uv fetches one where the machine has none.

    Raises:
        ToolError: there is none, and none can be had.
    """
    places = {"PATH": os.pathsep.join(_search_path())}
    outside = process.tool_environment({**_own_settings(), **places}, more=variables.DISCOVERY)

    def ask(*arguments: str) -> process.Completed:
        # At the root: settings of uv's that lie in the workspace, or above it, decide nothing here.
        words: list[str | Path] = [find_uv(), "--color", "never", "python", *arguments, request]
        return process.run(words, cwd=Path("/"), env=outside, timeout_s=_TIMEOUT_S)

    done = ask("find", "--system", "--no-project")
    if not done.ok and not offline:
        fetched = ask("install", "--quiet")
        done = ask("find", "--system", "--no-project") if fetched.ok else done
    if not done.ok:
        # Anything but that there is none, such as a value that uv does not know, is for uv to say.
        unusual = "" if "No interpreter found" in done.stderr else f": {' '.join(done.stderr.split())}"
        raise ToolError(
            f"no Python {request} on this machine, and none could be fetched{unusual}",
            code="python-missing",
            hint=f"uv python install '{request}'",
        )
    return identify(Path(done.stdout.strip()))


def _search_path() -> list[str]:
    parts = [os.path.abspath(part) for part in os.environ.get("PATH", "").split(os.pathsep) if part]  # noqa: PTH100 - links stay
    # What stands first on PATH may be the environment that envbuilder itself runs from.
    if sys.prefix != sys.base_prefix:
        own = os.path.realpath(Path(sys.prefix) / "bin")
        parts = [part for part in parts if os.path.realpath(part) != own]
    # pyenv puts one version on PATH at a time; uv does not look at the others by itself.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    # Images show the bin of a virtual environment alone, and keep the interpreter behind it elsewhere.
    behind = [home for part in parts if (home := _home(Path(part).parent / "pyvenv.cfg"))]
    return [*parts, *(str(folder) for folder in sorted(pyenv.glob("versions/*/bin"), reverse=True)), *behind]


def _home(config: Path) -> str | None:
    """Return the folder of the interpreter that a virtual environment was made with."""
    try:
        found = re.search(r"(?m)^home\s*=\s*(/.*?)\s*$", config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return found[1] if found else None


def identify(path: Path) -> Interpreter:
    """What an interpreter is.

    Raises:
        ToolError: it does not run, or does not say what it is.
    """
    done = process.run([path, "-I", "-S", "-c", _IDENTITY], timeout_s=60)
    if not done.ok:
        raise ToolError(f"{path} does not run: {done.stderr.strip()[-200:]}", hint=f"{path} --version")
    told = process.told(done)
    if not isinstance(told, list) or len(told) != 4 or not all(isinstance(each, str) for each in told):
        found = done.stdout.strip()[-200:] or "nothing"
        raise ToolError(f"{path} does not say which Python it is: found {found}", hint=f"{path} --version")
    implementation, version, abi, platform = told
    return Interpreter(path, implementation, version, abi, platform)


def cache_folder() -> Path:
    """Where uv's cache is, absolute: UV_CACHE_DIR, or what uv itself says of this person and machine.

    Raises:
        ToolError: uv knows of none.
        UsageError: git cannot take its path.
    """
    chosen = os.environ.get("UV_CACHE_DIR")
    if chosen:
        refuse_unusable(Path(chosen).absolute(), "UV_CACHE_DIR", _OTHER_CACHE)
        return Path(chosen).absolute()
    steering = (os.environ.get("HOME"), os.environ.get("XDG_CACHE_HOME"))
    for each in filter(None, steering):
        refuse_unusable(Path(each).absolute(), "the path of uv's cache", _OTHER_CACHE)
    return _usual_cache(*steering)


@cache
def _usual_cache(*_steering: str | None) -> Path:
    # At the root: a workspace's own uv settings do not hold for the projects that uv is run on.
    done = process.run([find_uv(), "cache", "dir"], cwd=Path("/"), timeout_s=60)
    if not done.ok:
        raise ToolError(f"uv has no cache folder: {done.stderr.strip()}", hint=_OTHER_CACHE)
    return Path(done.stdout.strip())


def _run(  # noqa: PLR0913 - what the calls differ in
    arguments: list[str | Path],
    env: Mapping[str, str],
    *,
    cwd: Path,
    offline: bool = False,
    persons: bool = False,
    hear: Callable[[str], None] | None = None,
    log: Path | None = None,
) -> process.Completed:
    base = process.clean_environment() if persons else process.tool_environment(_own_settings())
    if offline:
        base = {name: value for name, value in base.items() if name not in _CERTIFICATES}
    cache_dir = str(cache_folder())
    # In a folder that uv, killed, left without its repository, git must not take one around the cache for it.
    ceilings = [cache_dir, *filter(None, [base.get("GIT_CEILING_DIRECTORIES")])]
    own = {
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_ENV_FILE": "1",
        "UV_CACHE_DIR": cache_dir,
        "GIT_CEILING_DIRECTORIES": os.pathsep.join(ceilings),
        **({} if persons else variables.OF_BUILDS),
        **env,
    }
    argv = [find_uv(), "--color", "never", *arguments]
    return process.run(argv, cwd=cwd, env={**base, **own}, timeout_s=_TIMEOUT_S, hear=hear, log=log)


# What uv's own settings files may say here: how the network is reached, where caches and interpreters are. The rest
# would change what is locked or installed.
_SETTINGS = frozenset(
    {
        "allow-insecure-host",
        "cache-dir",
        "concurrent-builds",
        "concurrent-downloads",
        "concurrent-installs",
        "http-proxy",
        "https-proxy",
        "keyring-provider",
        "native-tls",
        "no-cache",
        "no-proxy",
        "offline",
        "pypy-install-mirror",
        "python-downloads",
        "python-downloads-json-url",
        "python-install-mirror",
        "python-preference",
        "system-certs",
    }
)


def settings_left_out() -> dict[Path, list[str]]:
    """The settings of a person's and the machine's ``uv.toml`` that do not count here, by file."""
    found = {file: sorted(said.keys() - _SETTINGS) for file, said in _settings_files().items()}
    return {file: names for file, names in found.items() if names}


def _configured() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _settings_files() -> dict[Path, Mapping[str, object]]:
    """The person's and the machine's ``uv.toml``, the stronger last; one that cannot be read is left to uv to refuse."""
    from envbuilder.documents import parse_toml

    folders = [Path(each) / "uv" for each in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(os.pathsep) if each]
    system = next((each for folder in (*folders, Path("/etc/uv")) if (each := folder / "uv.toml").is_file()), None)
    found = {}
    for file in filter(None, (system, _configured() / "uv" / "uv.toml")):
        with contextlib.suppress(OSError, UnicodeDecodeError, EnvbuilderError):
            found[file] = parse_toml(file.read_text(encoding="utf-8"), str(file)).value
    return found


def _own_settings() -> dict[str, str]:
    """Variables that lead uv past settings of a person or machine that would change what is locked or installed.

    uv takes its settings from where all programs have theirs, so the folder that it is shown has everything else, too;
    git and programs that know passwords look there.
    """
    if not settings_left_out():
        return {}
    import tomlkit

    kept = {key: value for said in _settings_files().values() for key, value in said.items() if key in _SETTINGS}
    text = tomlkit.dumps(kept)
    others = [each for each in _listed(_configured()) if each.name not in {"uv", "pip"}]
    told = "\0".join([text, *map(str, others)])
    place = (
        cache_folder()
        / "envbuilder-settings"
        / hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:20]
    )
    if not (place / "uv" / "uv.toml").is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=place.parent))
        (draft / "uv").mkdir()
        (draft / "uv" / "uv.toml").write_text(text, encoding="utf-8")
        for each in others:
            (draft / each.name).symlink_to(each)
        try:
            draft.rename(place)
        except OSError:  # A neighbour was first.
            shutil.rmtree(draft, ignore_errors=True)
    return {"XDG_CONFIG_HOME": str(place), "UV_NO_SYSTEM_CONFIG": "1"}


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _flags(*, offline: bool) -> list[str]:
    return ["--offline"] if offline else []


def explain(done: process.Completed, plugin: str, code: str, *, hint: str, log: Path | None = None) -> Problem:
    """Return a failed call as a problem: uv's own words, without its progress.

    Of a build's output only the line that says why it failed is in it.

    Args:
        done: the call.
        plugin: the entry concerned.
        code: the problem's code.
        hint: the problem's hint.
        log: a file that gets everything that uv and the build wrote; where the message leaves some out, it names it.
    """
    _, words = _parts(done)
    own, built, after = _build_output(words)
    told = [*own, *([f"  {build_errors.reason(built)}"] if built else []), *after]
    text = "\n".join(told[:_MOST_LINES]) or f"uv exited with {done.returncode}"
    text = _FOREIGN.sub("", text)
    if log is not None and (built or told[_MOST_LINES:]):
        write_atomically(log, done.stderr)
        text += f"\n  all that was written: {log}"
    return Problem(code, text.removeprefix("error: "), entry=plugin, hint=hint)


_MOST_LINES = 25
_SECTION = re.compile(r"^\s*\[std(?:err|out)\]$")


def _build_output(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Split uv's words at the output of a build that it quotes: before, the output, after."""
    start = next((number for number, line in enumerate(words) if _SECTION.match(line)), None)
    if start is None:
        return words, [], []
    indent = len(words[start]) - len(words[start].lstrip())
    end = next(
        (number for number in range(start, len(words)) if len(words[number]) - len(words[number].lstrip()) < indent),
        len(words),
    )
    quoted = [line[indent:] for line in words[start:end] if not _SECTION.match(line)]
    return words[:start], quoted, words[end:]


# What uv advises to set in a project, and no generated one has.
_FOREIGN = re.compile(r" Consider using `exclude-newer-package` [^.\n]*\.")


def found_no_room(done: process.Completed) -> bool:
    """Whether the disk, a quota or a limit on a file's size let uv write no more."""
    return not done.ok and (done.returncode == -signal.SIGXFSZ or _NO_ROOM.search(done.stderr) is not None)


def torn_in_cache(done: process.Completed) -> str | None:
    """The package that uv could not install because files of it are gone from the cache, where it names one."""
    found = _TORN.search(" ".join(done.stderr.split()))  # uv breaks long lines.
    return found[1] if found and not done.ok else None


def backend_words(done: process.Completed) -> str:
    """Return the reason that a build failed: in the words of the build backend if it has any, else in uv's."""
    lines = done.stderr.splitlines()
    ends = [number for number, line in enumerate(lines) if line.startswith("error: Failed to build")]
    end = ends[-1] if ends else len(lines)
    written = [line for line in lines[:end] if not line.startswith("Building ")]
    _, quoted, _ = _build_output(lines[end:])
    own = [line.strip() for line in lines[end:] if line.strip()]
    return (
        build_errors.reason(written if ends else []) or build_errors.reason(quoted) or "; ".join(own[:3] or written[:3])
    )


_OWN_WORDS = re.compile("error:|\\s*(?:\N{MULTIPLICATION SIGN}|x) (?=[A-Z])")


def _parts(done: process.Completed) -> tuple[list[str], list[str]]:
    lines = [line.rstrip() for line in done.stderr.splitlines() if line.strip()]
    start = next((number for number, line in enumerate(lines) if _OWN_WORDS.match(line)), 0)
    return lines[:start], lines[start:]


def index_tables(profile: Profile) -> list[dict[str, object]]:
    """The ``[[tool.uv.index]]`` tables of a generated project; none where uv's own default serves.

    Each has its host's name, by which uv asks the environment for its user and password.
    """
    tables: list[dict[str, object]] = [{"url": url} for url in profile.extra_index_urls]
    if profile.index_url:
        tables.append({"url": profile.index_url, "default": True})
    names: Counter[str] = Counter()
    for number, table in enumerate(tables):
        name = index_name(str(table["url"]))
        names[name] += 1
        again = f"-{names[name]}" if names[name] > 1 else ""
        tables[number] = {"name": f"{name}{again}", **table}
    return tables


def index_name(url: str) -> str:
    """What an index is called in generated projects: its host, and port, in letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", urlsplit(url).netloc.rpartition("@")[2].lower()).strip("-") or "index"


def export_bill(project: Path, interpreter: Path, extra: str = "") -> process.Completed:
    """``uv export`` of a lock, with one of its extras, as CycloneDX; needs no network."""
    arguments: list[str | Path] = ["export", "--format", "cyclonedx1.5", "--frozen", "--offline", "--no-default-groups"]
    preview = ["--preview-features", "sbom-export", "--no-progress", *(["--extra", extra] if extra else [])]
    return _run([*arguments, *preview, "--project", project, "--python", interpreter], {}, cwd=project)


def audit(project: Path, *, service: str | None, ignore: Sequence[str]) -> process.Completed:
    """``uv audit`` of a lock: JSON on stdout; 0 where nothing is known of its packages, 1 where something is."""
    arguments: list[str | Path] = ["audit", "--frozen", "--no-default-groups", "--output-format", "json"]
    preview = ["--preview-features", "audit-command,json-output", "--no-progress"]
    named = [word for each in ignore for word in ("--ignore", each)]
    address = ["--service-url", service] if service else []
    return _run([*arguments, *preview, *named, *address, "--project", project], {}, cwd=project)
