"""`test`: each package's own tests, several at once, none of them able to touch what is sealed.

A checkout is tested as ``cd packages/x && uv sync && uv run pytest`` would, in an environment of its own. What has a tag
is tested in its sealed environment, with the tests of that tag. What they need besides (pytest, the test groups) is
installed elsewhere and only looked at after all that is sealed.
"""

from __future__ import annotations

import csv
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.utils import canonicalize_name

from envbuilder import process, uv
from envbuilder.build import Built, worker_environment
from envbuilder.config import python_specifier
from envbuilder.documents import read_toml, subtree
from envbuilder.errors import EnvbuilderError, Problem, ToolError, UsageError
from envbuilder.fs import locked
from envbuilder.lock.files import read_pins
from envbuilder.lock.sources import Sources, index_settings
from envbuilder.models import Entry, PathSource, Pin, PluginOutcome, Profile, PypiSource, Workspace
from envbuilder.store import verify
from envbuilder.store.records import site_packages
from envbuilder.threads import at_once
from envbuilder.workflow.junit import Counts, read_counts

# What test groups and extras are called; uv takes the default groups by itself.
_GROUPS = ("test", "tests", "testing", "dev")

# pytest's own: no test was collected.
_NO_TESTS = 5

# The environment's packages come first and its support after them, where no file of it may stand: not in the
# environment, and not on PYTHONPATH, which would come before.
_BESIDE = """
import runpy, site, sys
sys.path.remove("")
site.addsitedir(sys.argv.pop(1))
runpy.run_module("pytest", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Tested:
    """How one package's tests went.

    Attributes:
        name: the registry entry's, or ``integration``.
        state: ``passed``, ``failed``, ``no tests``, or ``skipped`` where there is nothing to test.
        python: the interpreter's version; empty where none was found.
        seconds: from the start to the end, environment included.
        counts: of the tests; None where they did not run.
        log: what uv and pytest wrote.
        junit: pytest's own report.
        problems: why it is not as it should be.
    """

    name: str
    state: str
    log: Path
    junit: Path
    python: str = ""
    seconds: float = 0.0
    counts: Counts | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Options:
    """What a person asked of `test`: arguments of pytest's, another Python than the profile's, whether to stay offline."""

    words: tuple[str, ...] = ()
    python: str | None = None
    offline: bool = False


class Tester:
    """Runs tests in a workspace.

    Args:
        workspace, profile: where.
        options: how.
        built: the sealed environments of what has no checkout, by plugin.
        store: the folder of environments.
    """

    def __init__(
        self, workspace: Workspace, profile: Profile, options: Options, *, built: Mapping[str, Built], store: Path
    ) -> None:
        self._workspace = workspace
        self._profile = profile
        self._options = options
        self._built = built
        self._store = store
        self._folder = workspace.own / "tests" / profile.name
        self._pins = read_pins(workspace, profile)
        self._sources = Sources(workspace, profile, self._pins, offline=options.offline, frozen=True)

    def test(self, entries: Sequence[Entry], report: Callable[[PluginOutcome], None], *, jobs: int) -> list[Tested]:
        """Test packages, several at a time; `report` is called as each one starts and ends."""

        def one(entry: Entry) -> Tested:
            report(PluginOutcome(entry.name, "testing"))
            tested = self._one(entry.name, lambda: self._package(entry))
            report(PluginOutcome(entry.name, tested.state, tested.seconds, str(tested.counts or "")))
            return tested

        return list(at_once(one, entries, jobs, name="test"))

    def test_together(self, entries: Sequence[Entry], folder: Path) -> Tested:
        """The workspace's own tests in `folder`, in the host's environment with packages added."""
        return self._one("integration", lambda: self._together(entries, folder))

    def _one(self, name: str, test: Callable[[], Tested]) -> Tested:
        start = time.monotonic()
        place = self._place(name)
        with locked(place.with_name(f"{name}.lock")):
            place.mkdir(parents=True, exist_ok=True)
            blank = self._blank(name)
            for old in (blank.log, blank.junit):
                old.unlink(missing_ok=True)
            try:
                tested = test()
            except EnvbuilderError as error:
                problems = tuple(replace(problem, entry=name) for problem in error.problems)
                tested = replace(blank, state="failed", problems=problems)
        return replace(tested, seconds=time.monotonic() - start)

    def _place(self, name: str) -> Path:
        return self._folder / name

    def _blank(self, name: str) -> Tested:
        place = self._place(name)
        return Tested(name, "skipped", place / "log.txt", place / "junit.xml")

    def _package(self, entry: Entry) -> Tested:
        if isinstance(entry.source, PathSource):
            return self._checkout(entry, self._workspace.root / entry.source.path)
        if isinstance(entry.source, PypiSource) or not entry.is_plugin:
            return self._blank(entry.name)
        return self._sealed(entry, self._built[entry.name])

    def _checkout(self, entry: Entry, package: Path) -> Tested:
        blank = self._blank(entry.name)
        request = self._options.python or entry.python or self._profile.python
        interpreter = uv.find_python(python_specifier(request), offline=self._options.offline)
        environment = blank.log.parent / "environment"
        lock = package / "uv.lock"
        has_lock = lock.exists()
        extras, groups = _test_sets(package)
        done = uv.sync_package(
            package,
            environment,
            interpreter.path,
            {} if has_lock else index_settings(self._profile, blank.log.parent),
            groups=groups,
            extras=sorted({*extras, *entry.extras}),
            offline=self._options.offline,
        )
        if not has_lock:
            lock.unlink(missing_ok=True)  # A checkout is left as it was found.
        _note(blank.log, done)
        if not done.ok:
            hint = f"cd {self._workspace.show(package)} && uv sync"
            problem = uv.explain(done, entry.name, "test-environment", hint=hint)
            return replace(blank, state="failed", python=interpreter.version, problems=(problem,))
        program = environment / "bin" / "pytest"
        if not program.exists():
            hint = f"uv add --project {self._workspace.show(package)} --group dev pytest"
            message = "its environment has no pytest: no test group asks for one"
            raise UsageError(message, code="no-pytest", where=self._workspace.show(package), hint=hint)
        env = worker_environment(environment, blank.log.parent / "bytecode", entry.env, blank.log.parent / "compiled")
        ran = self._pytest([program], blank, cwd=package, env=env)
        return self._judged(replace(blank, python=interpreter.version), ran)

    def _sealed(self, entry: Entry, built: Built) -> Tested:
        blank = replace(self._blank(entry.name), python=built.versions["python"])
        place = blank.log.parent
        tree = self._tree(entry, place / "tag")
        _leave_out_code(tree, built)
        support = self._support(entry, built, tree, blank)
        words: list[str | Path] = [built.python, "-c", _BESIDE, site_packages(support)]
        env = worker_environment(built.path, place / "bytecode", entry.env, place / "compiled")
        tested = self._judged(blank, self._pytest(words, blank, cwd=tree, env=env))
        if findings := verify.find(self._store, [built.key], full=False)[built.key]:
            problem = Problem(
                "environment-touched",
                f"its sealed environment is not as it was: {findings[0]}",
                entry.name,
                self._workspace.show(built.path),
                f"envbuilder verify --repair --profile {self._profile.name} {entry.name}",
            )
            return replace(tested, state="failed", problems=(*tested.problems, problem))
        return tested

    def _tree(self, entry: Entry, folder: Path) -> Path:
        """The package's files at its pinned commit."""
        pin = self._pins.entries[entry.name]
        if not self._sources.bring(pin, offline=self._options.offline):
            message = f"{pin.url} has no commit {pin.commit[:12]} any more"
            raise ToolError(message, code="tag-missing", hint=f"envbuilder check --profile {self._profile.name}")
        shutil.rmtree(folder, ignore_errors=True)
        self._sources.checkout(self._sources.repository(pin.url), pin.commit, folder)
        return folder / pin.subdirectory

    def _support(self, entry: Entry, built: Built, tree: Path, blank: Tested) -> Path:
        """An environment with pytest and what the package's test groups name, less all that the sealed one has."""
        place = blank.log.parent
        support, excludes = place / "support", place / "excludes.txt"
        done = uv.venv(support, built.python.resolve(), prompt=f"{entry.name} tests")
        if done.ok:
            excludes.write_text("\n".join([*(name for name in built.versions if name != "python"), ""]), "utf-8")
            extras, groups = _test_sets(tree)
            wanted = ["pytest", *(line for name in extras for line in _extra(tree, name))]
            done = uv.install_beside(
                support,
                wanted,
                index_settings(self._profile, place),
                groups=[(tree / "pyproject.toml", name) for name in groups],
                excludes=excludes,
                offline=self._options.offline,
            )
        _note(blank.log, done)
        if not done.ok:
            hint = f"less {self._workspace.show(blank.log)}"
            raise ToolError(uv.explain(done, entry.name, "", hint=hint).message, code="test-environment", hint=hint)
        return support

    def _together(self, entries: Sequence[Entry], folder: Path) -> Tested:
        blank = self._blank("integration")
        pins = self._pins.entries
        words: list[str | Path] = []
        named: list[Pin] = []
        for entry in entries:
            extras = f"[{','.join(entry.extras)}]" if entry.extras else ""
            if isinstance(entry.source, PathSource):
                words += ["--with-editable", f"{self._workspace.root / entry.source.path}{extras}"]
            elif isinstance(entry.source, PypiSource):
                words += ["--with", f"{entry.name}{extras}{entry.source.specifier}"]
            elif pin := pins.get(entry.name):
                place = f"#subdirectory={pin.subdirectory}" if pin.subdirectory else ""
                words += ["--with", f"{entry.name}{extras} @ git+{pin.url}@{pin.commit}{place}"]
                self._sources.bring(pin, offline=self._options.offline)
                named.append(pin)
            else:
                hint = f"envbuilder lock --profile {self._profile.name} {entry.name}"
                raise UsageError(f"{entry.name} is not locked", code="lock-missing", hint=hint)
        if self._options.python:
            words += ["--python", python_specifier(self._options.python)]
        root = self._workspace.root
        # Else the pytest of whatever stands on PATH would run, in an environment without these plugins.
        words += [] if _has_pytest(root) else ["--with", "pytest"]
        words += ["pytest", folder, *self._words(blank)]
        env = self._sources.git_settings(named) if named else {}
        ran = uv.run_with(root, words, env, offline=self._options.offline, log=blank.log)
        return self._judged(blank, ran)

    def _words(self, blank: Tested) -> list[str]:
        return [f"--junit-xml={blank.junit}", "--color=no", *self._options.words]

    def _pytest(
        self, program: Sequence[str | Path], blank: Tested, *, cwd: Path, env: Mapping[str, str]
    ) -> process.Completed:
        return process.run([*program, *self._words(blank)], cwd=cwd, env=env, log=blank.log)

    def _judged(self, tested: Tested, done: process.Completed) -> Tested:
        counts = read_counts(tested.junit)
        tested = replace(tested, counts=counts)
        hint = f"less {self._workspace.show(tested.log)}"
        if done.ok and counts is not None and counts.tests and not counts.bad:
            return replace(tested, state="passed")
        if done.returncode == _NO_TESTS or (done.ok and counts is not None and not counts.tests):
            problem = Problem("no-tests", "pytest found no tests", tested.name, hint=hint, severity="warning")
            return replace(tested, state="no tests", problems=(problem,))
        if done.ok and counts is None:
            message = f"pytest ended with 0 and left no report at {tested.junit}: no test is known to have passed"
        elif counts is None or not counts.bad:
            message = f"pytest ended with {done.returncode}: {_last_words(tested.log)}"
        else:
            names = ", ".join(counts.bad[:3]) + (f" and {len(counts.bad) - 3} more" if len(counts.bad) > 3 else "")
            message = f"{len(counts.bad)} of {counts.tests} tests failed: {names}"
        return replace(tested, state="failed", problems=(Problem("tests-failed", message, tested.name, hint=hint),))


def _note(log: Path, done: process.Completed) -> None:
    with log.open("a", encoding="utf-8") as stream:
        stream.write(done.stdout + done.stderr)


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "fatal"))]
    return (errors or lines or ["it wrote nothing"])[-1]


def _test_sets(package: Path) -> tuple[list[str], list[str]]:
    """The extras and the dependency groups of a package that are for its tests."""
    file = package / "pyproject.toml"
    if not file.is_file():
        return [], []
    tree = read_toml(file, str(file))
    extras = subtree(tree, ("project", "optional-dependencies")).value
    groups = subtree(tree, ("dependency-groups",)).value
    return _named(extras), _named(groups)


def _named(tables: object) -> list[str]:
    held: Collection[str] = tables if isinstance(tables, dict) else ()
    return [name for name in _GROUPS if name in held]


def _extra(package: Path, name: str) -> list[str]:
    tree = read_toml(package / "pyproject.toml", "pyproject.toml")
    return [str(line) for line in subtree(tree, ("project", "optional-dependencies", name)).value or ()]


def _leave_out_code(tree: Path, built: Built) -> None:
    """Take the package's own code from its checkout: what is tested is what was installed."""
    packages = site_packages(built.path)
    name = built.plugin.name
    for info in packages.glob("*.dist-info"):
        if canonicalize_name(info.name.removesuffix(".dist-info").rpartition("-")[0]) != name:
            continue
        with (info / "RECORD").open(newline="", encoding="utf-8") as rows:
            tops = {row[0].split("/")[0] for row in csv.reader(rows) if row}
        for top in tops - {"..", "test", "tests", info.name}:
            for copy in (tree / top, tree / "src" / top):
                if copy.is_dir():
                    shutil.rmtree(copy)
                elif copy.exists():
                    copy.unlink()


def _has_pytest(root: Path) -> bool:
    """Whether a workspace's own environment has pytest, by its lock, or else by what its project asks for."""
    lock = root / "uv.lock"
    if lock.is_file():
        return '\nname = "pytest"\n' in lock.read_text(encoding="utf-8", errors="replace")
    text = (root / "pyproject.toml").read_text(encoding="utf-8", errors="replace")
    return re.search(r"""['"]pytest(?![\w.-])""", text) is not None
