"""`test`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Open, Settings, common, offline_option, plugins_argument
from envbuilder.errors import UsageError

if TYPE_CHECKING:
    from envbuilder.build import Built
    from envbuilder.errors import Problem
    from envbuilder.models import Entry, PluginOutcome
    from envbuilder.render import Outcome, Table
    from envbuilder.workflow.testing import Tested

# How much of a failing package's log is printed.
_TAIL = 40


@click.command()
@plugins_argument
@click.option("--integration", is_flag=True, help="The workspace's tests/integration, with these plugins added to it.")
@click.option(
    "--junit", type=click.Path(path_type=Path), metavar="FILE|DIR", help="Write JUnit XML: FILE ends in .xml."
)
@click.option("--python", metavar="VERSION", help="Test checkouts with this Python, not the profile's.")
@click.option("--args", "words", metavar="TEXT", default="", help="Further arguments of pytest: --args '-x -k decode'.")
@click.option("-j", "--jobs", type=click.IntRange(1), default=2, show_default=True, help="How many at a time.")
@offline_option
@common
def test(  # noqa: PLR0913 - one for each option
    settings: Settings,
    plugins: tuple[str, ...],
    integration: bool,
    junit: Path | None,
    python: str | None,
    words: str,
    jobs: int,
    offline: bool,
) -> Outcome:
    """Run packages' own tests: checkouts in environments of their own, tags in their sealed ones.

    Where nothing names a profile, that is dev. With --profile prod, the pinned tags are tested, in the environments that
    runs use, which no test may change.
    """
    from envbuilder.render import Outcome, Progress
    from envbuilder.store.environments import Store
    from envbuilder.workflow.testing import Options, Tester

    here = _settled(settings).open()
    options = Options(_split(words), read_python(python), offline)
    store = Store(here.workspace.shared).folder
    if integration:
        tester = Tester(here.workspace, here.profile, options, built={}, store=store)
        tested = [tester.test_together(tested_entries(here, plugins), _integration(here))]
        unbuilt: list[PluginOutcome] = []
        absent: list[Problem] = []
    else:
        chosen, absent = _there(here, tested_entries(here, plugins), named=bool(plugins))
        built, unbuilt = _sealed(settings, here, chosen, jobs=jobs, offline=offline)
        ready = [entry for entry in chosen if entry.name not in {each.plugin for each in unbuilt}]
        tester = Tester(here.workspace, here.profile, options, built=built, store=store)
        with Progress("test", [entry.name for entry in ready], silent=settings.quiet) as progress:
            tested = tester.test(ready, progress.report, jobs=jobs)
    if junit is not None:
        _write(junit, tested, unbuilt)
    problems = [*absent, *(problem for each in unbuilt for problem in each.problems)]
    problems += [problem for each in tested for problem in each.problems]
    return Outcome(
        "test",
        here.profile.name,
        result={"tests": [_plain(each) for each in tested]},
        problems=tuple(problems),
        text=(*_logs(settings, tested), _table(tested), *_places(here, tested)),
    )


def _settled(settings: Settings) -> Settings:
    """With dev for the profile where nothing names one: what is tested day by day is checkouts."""
    return settings if settings.is_named else replace(settings, profile="dev")


def _split(words: str) -> tuple[str, ...]:
    import shlex

    try:
        return tuple(shlex.split(words))
    except ValueError as error:
        raise UsageError(f"--args: {error}; found {words!r}", hint="envbuilder test --args '-k decode'") from error


def read_python(request: str | None) -> str | None:
    """A Python request as a specifier.

    Raises:
        UsageError: it is none.
    """
    from envbuilder.config import python_specifier

    try:
        return python_specifier(request) if request else None
    except ValueError as error:
        raise UsageError(f"--python: {error}", hint="envbuilder test --python 3.12") from error


def tested_entries(here: Open, names: Sequence[str]) -> list[Entry]:
    """The plugins of those names, and libraries that are checkouts; all of them where none is named."""
    from packaging.utils import canonicalize_name

    from envbuilder.models import PathSource

    libraries = {
        entry.name: entry
        for entry in here.registry.entries
        if not entry.is_plugin and isinstance(entry.source, PathSource)
    }
    if not names:
        return sorted([*here.select(()), *libraries.values()], key=lambda entry: entry.name)
    chosen = [libraries.get(str(canonicalize_name(name))) or here.select([name])[0] for name in names]
    return list({entry.name: entry for entry in chosen}.values())


def _there(here: Open, entries: Sequence[Entry], *, named: bool) -> tuple[list[Entry], list[Problem]]:
    """Those whose checkouts are there, and a warning for each other.

    Raises:
        UsageError: one that is not there was named.
    """
    from envbuilder.workflow.checkout import missing

    absent = {entry.name: problem for entry in entries if (problem := missing(here.workspace, entry))}
    if named and absent:
        first = next(iter(absent.values()))
        message = f"{first.entry}: {first.message}"
        raise UsageError(message, code=first.code, where=first.where, hint=first.hint)
    return [entry for entry in entries if entry.name not in absent], list(absent.values())


def _integration(here: Open) -> Path:
    folder = here.workspace.root / "tests" / "integration"
    if not folder.is_dir():
        raise UsageError("there is no folder tests/integration", code="no-tests", hint=f"mkdir -p {folder}")
    return folder.relative_to(here.workspace.root)


def _sealed(
    settings: Settings, here: Open, chosen: Sequence[Entry], *, jobs: int, offline: bool
) -> tuple[dict[str, Built], list[PluginOutcome]]:
    """The environments of what has no checkout, and what became of those that could not be built."""
    from envbuilder.cli.environments import build_environments
    from envbuilder.models import GitSource

    wanted = [entry for entry in chosen if entry.is_plugin and isinstance(entry.source, GitSource)]
    if not wanted:
        return {}, []
    builder, outcomes = build_environments(settings, here, wanted, jobs=jobs, offline=offline)
    return builder.built, [outcome for outcome in outcomes if not outcome.ok]


def _write(junit: Path, tested: Sequence[Tested], unbuilt: Sequence[PluginOutcome]) -> None:
    from envbuilder.fs import unwritable
    from envbuilder.workflow.junit import write

    failed = {each.name: "; ".join(problem.message for problem in each.problems) for each in tested if each.problems}
    failed |= {each.plugin: "; ".join(problem.message for problem in each.problems) for each in unbuilt}
    try:
        write(junit, {each.name: each.junit for each in tested}, failed)
    except OSError as error:
        raise unwritable(junit, error) from error


def _plain(each: Tested) -> dict[str, object]:
    counts = each.counts
    return {
        "name": each.name,
        "state": each.state,
        "python": each.python or None,
        "seconds": round(each.seconds, 3),
        "tests": counts.tests if counts else None,
        "failed": counts.failures if counts else None,
        "errors": counts.errors if counts else None,
        "skipped": counts.skipped if counts else None,
        "log": str(each.log),
        "junit": str(each.junit) if counts else None,
    }


def _table(tested: Sequence[Tested]) -> Table:
    from envbuilder.render import Table

    rows = []
    for each in tested:
        counts = each.counts
        numbers = (counts.passed, counts.failures, counts.errors, counts.skipped) if counts else ("", "", "", "")
        rows.append((each.name, each.state, each.python, *map(str, numbers), f"{each.seconds:.1f} s"))
    columns = ("package", "tests", "python", "passed", "failed", "errors", "skipped", "time")
    return Table(columns, tuple(rows), numeric=frozenset(columns[3:]))


def _places(here: Open, tested: Sequence[Tested]) -> list[str]:
    """Where the logs are, in a line."""
    shown = [here.workspace.show(each.log) for each in tested if each.log.exists()]
    folder = os.path.commonpath(shown) if shown else ""
    return [f"logs: {folder}/<package>/log.txt" if len(shown) > 1 else f"log: {folder}"] if shown else []


def _logs(settings: Settings, tested: Sequence[Tested]) -> list[str]:
    """What failing packages wrote last; with -v, all that every package wrote."""
    from envbuilder.workflow.junit import tail

    shown = []
    for each in tested:
        if each.state == "failed" or settings.verbose:
            lines = tail(each.log, 1_000_000 if settings.verbose else _TAIL)
            shown += [f"-- {each.name}", *lines, ""] if lines else []
    return shown
