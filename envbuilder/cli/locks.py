"""`lock` and `check`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Open, Settings, common, offline_option, plain, plugins_argument, summary
from envbuilder.cli.comparing import changes_table, plain_change
from envbuilder.cli.inquiry import holders, lock_file, locked_names
from envbuilder.errors import ConfigError, Problem, UsageError, counted, nearest

if TYPE_CHECKING:
    from envbuilder.lock.comparing import Change
    from envbuilder.lock.fitting import Core, Row
    from envbuilder.models import Entry, PluginOutcome
    from envbuilder.render import Outcome, Table


@click.command()
@plugins_argument
@click.option("--check", is_flag=True, help="Only say whether the locks are as they should be; no network.")
@click.option("--upgrade", is_flag=True, help="Take the newest versions that fit.")
@click.option(
    "--upgrade-package",
    "packages",
    multiple=True,
    metavar="NAME",
    help="Take the newest version of this package alone, where it is locked; NAME==VERSION for that one.",
)
@click.option("--repin", is_flag=True, help="Ask the remotes for every tag anew, and accept where one has moved to.")
@click.option("-j", "--jobs", type=click.IntRange(1), default=4, show_default=True, help="How many at a time.")
@offline_option
@common
def lock(  # noqa: PLR0913 - one parameter for each option
    settings: Settings,
    plugins: tuple[str, ...],
    check: bool,
    upgrade: bool,
    packages: tuple[str, ...],
    repin: bool,
    jobs: int,
    offline: bool,
) -> Outcome:
    """Write one uv.lock per plugin, and pins.toml."""
    is_plain = not (plugins or upgrade or packages or repin)
    if is_plain and (quick := _nothing_to_do(settings, check=check)):
        return quick
    from envbuilder.lock import locker, locking
    from envbuilder.render import Outcome, Progress

    since_ns = time.time_ns()
    here = settings.open()
    chosen = here.select(plugins)
    if check:
        outcome = _lock_check(here, chosen)
        if is_plain and outcome.ok:
            locking.note_current(here.workspace, here.profile, here.registry, since_ns=since_ns)
        return outcome
    before = _lock_texts(here, chosen)
    _refuse_unlocked(here, packages, chosen)
    request = locker.Request(offline=offline, upgrade=upgrade, packages=packages, repin=repin, jobs=jobs)
    with Progress("lock", [plugin.name for plugin in chosen], silent=settings.quiet) as progress:
        outcomes = locking.lock_plugins(
            here.workspace, here.profile, here.registry, chosen, request=request, report=progress.report
        )
    if is_plain and all(outcome.state == "unchanged" for outcome in outcomes):
        locking.note_current(here.workspace, here.profile, here.registry, since_ns=since_ns)
    changed = _changes(here, before, [plugin for plugin in chosen if plugin.name in _locked(outcomes)])
    return Outcome(
        "lock",
        here.profile.name,
        result={
            "plugins": [plain(outcome) for outcome in outcomes],
            "changes": [plain_change(each) for each in changed],
        },
        problems=tuple(problem for outcome in outcomes for problem in outcome.problems),
        text=(*changes_table(changed, "was", "is"), summary(outcomes, f"profiles/{here.profile.name}")),
    )


def _nothing_to_do(settings: Settings, *, check: bool) -> Outcome | None:
    """The outcome of a `lock` that a stamp proves to be a no-op; reads neither registry nor locks."""
    from envbuilder.places import candidates, state_folders
    from envbuilder.render import Outcome
    from envbuilder.store import stamps

    root = next(candidates(settings.folder), None)
    names = stamps.meant(stamps.stamp_path(state_folders(root)[1], settings.profile, "lock")) if root else None
    if not names:
        return None
    if check:
        plugins: list[dict[str, object]] = [{"plugin": name, "state": "ok"} for name in names]
        text = f"{len(names)} of {len(names)} locks are up to date"
        return Outcome("lock", settings.profile, {"plugins": plugins}, text=(text,))
    if not settings.quiet:
        for name in names:
            click.echo(f"= lock {name}  unchanged", err=True)
    plugins = [{"plugin": name, "state": "unchanged", "seconds": 0.0, "detail": None} for name in names]
    text = f"{len(names)} unchanged: profiles/{settings.profile}"
    return Outcome("lock", settings.profile, {"plugins": plugins, "changes": []}, text=(text,))


def _locked(outcomes: Sequence[PluginOutcome]) -> set[str]:
    return {outcome.plugin for outcome in outcomes if outcome.state == "locked"}


def _lock_texts(here: Open, chosen: Sequence[Entry]) -> dict[str, str]:
    from envbuilder.lock.files import lock_text

    texts = {}
    for plugin in chosen:
        with contextlib.suppress(ConfigError):
            texts[plugin.name] = lock_text(lock_file(here, plugin).parent, plugin.name)
    return texts


def _changes(here: Open, before: Mapping[str, str], chosen: Sequence[Entry]) -> list[Change]:
    """What locking changed in locks that were there before, and could be read."""
    from envbuilder.lock import graph
    from envbuilder.lock.comparing import changes, of_graphs

    after = _lock_texts(here, chosen)
    old = {}
    for name in before.keys() & after.keys():
        with contextlib.suppress(ConfigError):
            old[name] = graph.parse(before[name], name)
    new = {name: graph.parse(after[name], name) for name in old}
    return changes(of_graphs("was", old), of_graphs("is", new))


def _refuse_unlocked(here: Open, packages: Sequence[str], chosen: Sequence[Entry]) -> None:
    """Refuse a package that no chosen plugin has: it is a typo, or there is nothing to upgrade."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    for package in packages:
        try:
            name = str(canonicalize_name(Requirement(package).name))
        except InvalidRequirement as error:
            message = f"--upgrade-package {package}: expected a package's name, or NAME==VERSION"
            raise UsageError(message, hint="envbuilder lock --help") from error
        held = {name for plugin in chosen for name in locked_names(here, plugin)}
        if name not in held:
            raise _unlocked(here, name, chosen, held)


def _unlocked(here: Open, name: str, chosen: Sequence[Entry], held: Collection[str]) -> UsageError:
    """What there is in place of a package that no chosen plugin's lock holds."""
    profile = here.profile.name
    whole = len(chosen) == len(here.registry.plugins)
    message = f"no lock of {profile if whole else ', '.join(plugin.name for plugin in chosen)} holds {name}"
    command = f"envbuilder lock --profile {profile}"
    if others := holders(here, name):
        return UsageError(
            f"{message}; {', '.join(others)} has it" if len(others) == 1 else f"{message}; {', '.join(others)} have it",
            code="package-not-locked",
            hint=f"{command} --upgrade-package {name} {' '.join(others)}",
        )
    near = nearest(name, held)
    hint = f"{command} --upgrade-package {near}" if near else f"grep -h '^name' profiles/{profile}/*/uv.lock | sort -u"
    return UsageError(f"{message}{f'; nearest: {near}' if near else ''}", code="package-not-locked", hint=hint)


def _lock_check(here: Open, chosen: Sequence[Entry]) -> Outcome:
    from envbuilder.lock import files, locking
    from envbuilder.render import Outcome

    pins = files.read_pins(here.workspace, here.profile)
    found = locking.find_stale(here.workspace, here.profile, here.registry, chosen, pins)
    problems = tuple(item for item in found.values() if isinstance(item, Problem))
    states = {name: item.code if isinstance(item, Problem) else "ok" for name, item in found.items()}
    return Outcome(
        "lock",
        here.profile.name,
        result={"plugins": [{"plugin": name, "state": state} for name, state in states.items()]},
        problems=problems,
        text=(f"{len(found) - len(problems)} of {len(found)} locks are up to date",),
    )


@click.command()
@plugins_argument
@click.option(
    "--core",
    "cores",
    multiple=True,
    metavar="VERSION",
    help="Judge by this core version too, such as one that is not out yet; NAME==VERSION where there are several.",
)
@click.option("--all-tags", is_flag=True, help="Show which core versions each tag of each plugin accepts.")
@offline_option
@common
def check(
    settings: Settings, plugins: tuple[str, ...], cores: tuple[str, ...], all_tags: bool, offline: bool
) -> Outcome:
    """Prove that pins, locks, core and Pythons fit together."""
    from envbuilder.lock import checking
    from envbuilder.render import Outcome

    if all_tags and offline:
        raise UsageError("--all-tags asks the remotes, which --offline forbids", hint="envbuilder check --all-tags")
    here = settings.open()
    chosen = here.select(plugins)
    question = checking.Question(offline=offline, cores=cores, all_tags=all_tags)
    report = checking.check(here.workspace, here.profile, here.registry, chosen, question)
    counts = ", ".join(
        (counted(report.entries, "entry", "entries"), counted(len(chosen), "lock"), counted(report.remotes, "remote"))
    )
    count = len(report.problems)
    verdict = f"{count} problem{'s' if count > 1 else ''}" if count else "all as it should be"
    return Outcome(
        "check",
        here.profile.name,
        result={
            "entries": report.entries,
            "locks": len(chosen),
            "remotes": report.remotes,
            "core": [_plain_core(core) for core in report.cores],
            "matrix": [_plain_row(row) for row in report.rows],
        },
        problems=report.problems,
        text=(*([_matrix(report.cores, report.rows)] if report.rows else []), f"checked {counts}: {verdict}"),
    )


def _plain_core(core: Core) -> dict[str, object]:
    return {"name": core.name, "version": core.version, "asked": core.asked}


def _plain_row(row: Row) -> dict[str, object]:
    fits = [
        {"core": fit.core.name, "version": fit.core.version, "fits": fit.fits, "tag": fit.tag, "command": fit.command}
        for fit in row.fits
    ]
    return {"entry": row.entry, "place": row.place, "locked": row.locked, "accepts": dict(row.accepts), "fits": fits}


def _matrix(cores: Sequence[Core], rows: Sequence[Row]) -> Table:
    from envbuilder.render import Table

    words = {True: "yes", False: "no", None: "not known"}
    columns = ("entry", "at", "accepts", *(f"{core}{'?' if core.asked else ''}" for core in cores))
    several = len({core.name for core in cores}) > 1
    cells = []
    for row in rows:
        accepts = [
            f"{name if several else ''} {'not known' if said is None else said or 'any'}".strip()
            for name, said in row.accepts.items()
        ]
        fits = [words[fit.fits] + (f", {fit.tag} does" if fit.tag else "") for fit in row.fits]
        place = f"{row.place} *" if row.locked and not all(other.locked for other in rows) else row.place
        cells.append((row.entry, place, "; ".join(accepts), *fits))
    return Table(columns, tuple(cells))
