"""`lock` and `check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Open, Settings, common, offline_option, plain, plugins_argument, summary
from envbuilder.errors import Problem

if TYPE_CHECKING:
    from envbuilder.models import Entry
    from envbuilder.render import Outcome


@click.command()
@plugins_argument
@click.option("--check", is_flag=True, help="Only say whether the locks are as they should be; no network.")
@click.option("--upgrade", is_flag=True, help="Take the newest versions that fit.")
@click.option("--repin", is_flag=True, help="Ask the remotes for every tag anew, and accept where one has moved to.")
@click.option("-j", "--jobs", type=click.IntRange(1), default=4, show_default=True, help="How many at a time.")
@offline_option
@common
def lock(  # noqa: PLR0913 - one parameter for each option
    settings: Settings, plugins: tuple[str, ...], check: bool, upgrade: bool, repin: bool, jobs: int, offline: bool
) -> Outcome:
    """Write one uv.lock per plugin, and pins.toml."""
    from envbuilder.lock import locking
    from envbuilder.render import Outcome, Progress

    here = settings.open()
    chosen = here.select(plugins)
    if check:
        return _lock_check(here, chosen)
    request = locking.Request(offline=offline, upgrade=upgrade, repin=repin, jobs=jobs)
    with Progress("lock", [plugin.name for plugin in chosen], silent=settings.quiet) as progress:
        outcomes = locking.lock_plugins(
            here.workspace, here.profile, here.registry, chosen, request=request, report=progress.report
        )
    return Outcome(
        "lock",
        here.profile.name,
        result={"plugins": [plain(outcome) for outcome in outcomes]},
        problems=tuple(problem for outcome in outcomes for problem in outcome.problems),
        text=(summary(outcomes, f"profiles/{here.profile.name}"),),
    )


def _lock_check(here: Open, chosen: Sequence[Entry]) -> Outcome:
    from envbuilder.lock import locking
    from envbuilder.render import Outcome

    pins = locking.read_pins(here.workspace, here.profile)
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
@offline_option
@common
def check(settings: Settings, plugins: tuple[str, ...], offline: bool) -> Outcome:
    """Prove that pins, locks, core and Pythons fit together."""
    from envbuilder.lock import checking
    from envbuilder.render import Outcome

    here = settings.open()
    chosen = here.select(plugins)
    report = checking.check(here.workspace, here.profile, here.registry, chosen, offline=offline)
    counts = f"{report.entries} entries, {len(chosen)} locks, {report.remotes} remotes"
    count = len(report.problems)
    verdict = f"{count} problem{'s' if count > 1 else ''}" if count else "all as it should be"
    return Outcome(
        "check",
        here.profile.name,
        result={"entries": report.entries, "locks": len(chosen), "remotes": report.remotes},
        problems=report.problems,
        text=(f"checked {counts}: {verdict}",),
    )
