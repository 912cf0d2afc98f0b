"""`verify`, `generations`, `rollback` and `gc`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Open, Settings, common, offline_option, plugins_argument
from envbuilder.cli.environments import build_environments
from envbuilder.errors import Problem

if TYPE_CHECKING:
    from envbuilder.models import Entry
    from envbuilder.render import Outcome
    from envbuilder.store.generations import Generations


@click.command()
@plugins_argument
@click.option("--full", is_flag=True, help="Every byte, not only sizes, times and modes.")
@click.option("--repair", is_flag=True, help="Build anew what is damaged, from wheels that are proved first.")
@offline_option
@common
def verify(settings: Settings, plugins: tuple[str, ...], full: bool, repair: bool, offline: bool) -> Outcome:
    """Compare environments with their seals: a line for each thing that is not as it was sealed."""
    from envbuilder.render import Outcome

    here = settings.open()
    chosen = here.select(plugins)
    problems = examine(here, chosen, full=full)
    damaged = {problem.entry for problem in problems}
    mended: list[str] = []
    if repair and damaged:
        wanted = [plugin for plugin in chosen if plugin.name in damaged]
        _, outcomes = build_environments(
            settings, here, wanted, jobs=2, offline=offline, mend=[plugin.name for plugin in wanted]
        )
        mended = [outcome.plugin for outcome in outcomes if outcome.ok]
        failed = [problem for outcome in outcomes for problem in outcome.problems]
        problems = [*failed, *examine(here, chosen, full=full)]
    text = (
        f"verified {len(chosen)} environments: {len(problems)} findings"
        if problems
        else (f"verified {len(chosen)} environments: all as they were sealed")
    )
    if mended:
        text += f"; mended {', '.join(mended)}"
    result = {"environments": len(chosen), "findings": len(problems), "mended": mended}
    return Outcome("verify", here.profile.name, result=result, problems=tuple(problems), text=(text,))


def examine(here: Open, chosen: Sequence[Entry], *, full: bool) -> list[Problem]:
    """What is not as it was sealed in the environments of some plugins, each finding a problem."""
    from envbuilder.build import Builder

    builder = Builder(here.workspace, here.profile, here.registry, offline=True)
    known: dict[tuple[int, int], str] | None = {} if full else None
    problems = []
    for plugin in chosen:
        key = builder.key_of(plugin)
        if isinstance(key, Problem):
            problems.append(key)
            continue
        findings = builder.store.verify(key, known=known)
        sharing = builder.store.sharing(key, [each.path for each in findings if each.kind in {"changed", "content"}])
        hint = f"envbuilder verify --repair --profile {here.profile.name} {plugin.name}"
        where = here.workspace.show(builder.store.path(key))
        for finding in findings:
            also = sharing.get(finding.path)
            message = f"{finding}{f'; shared with {chr(44).join(also)}' if also else ''}"
            problems.append(Problem(f"environment-{finding.kind}", message, plugin.name, where, hint))
    return problems


def _generations(here: Open) -> Generations:
    from envbuilder.store.environments import Store
    from envbuilder.store.generations import Generations

    return Generations(here.workspace.own, here.profile.name, Store(here.workspace.shared).folder)


@click.command()
@common
def generations(settings: Settings) -> Outcome:
    """List the generations of the profile, the newest last."""
    from envbuilder.render import Outcome, Table

    here = settings.open()
    known = _generations(here)
    current = known.current()
    rows, plain = [], []
    for each in known.all():
        is_current = current is not None and each.number == current.number
        mark = "current, held" if is_current and known.held else "current" if is_current else ""
        rows.append((str(each.number), each.created, str(len(each.keys)), mark))
        plain.append(
            {"number": each.number, "created": each.created, "current": is_current, "environments": dict(each.keys)}
        )
    table = Table(("generation", "created", "environments", ""), tuple(rows), frozenset({"environments"}))
    text: tuple[Table | str, ...] = (table,) if rows else ("no generations yet",)
    return Outcome("generations", here.profile.name, result={"generations": plain}, text=text)


@click.command()
@click.argument("number", required=False, type=click.IntRange(1))
@common
def rollback(settings: Settings, number: int | None) -> Outcome:
    """Point the profile at an earlier generation; `build` returns to what is locked."""
    from envbuilder.render import Outcome

    here = settings.open()
    chosen = _generations(here).roll_back(number)
    text = f"{here.profile.name} is at generation {chosen.number} of {chosen.created}; envbuilder build returns to the locks"
    return Outcome("rollback", here.profile.name, result={"number": chosen.number}, text=(text,))


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--keep", type=click.IntRange(1), help="Forget all but the newest N generations of the profile first.")
@common
def gc(settings: Settings, dry_run: bool, keep: int | None) -> Outcome:
    """Remove environments that no generation and no run under way needs."""
    from envbuilder.render import Outcome
    from envbuilder.store import collecting
    from envbuilder.store.environments import Store
    from pipeline.cli import live_environments

    here = settings.open()
    store = Store(here.workspace.shared)
    known = _generations(here)
    with collecting.alone(store):
        forgotten = known.forget(keep, dry_run=dry_run) if keep else []
        still = collecting.reachable(store.shared, without=[known.folder / f"{each.number}.json" for each in forgotten])
        kept = still | live_environments(here.workspace.own)
        garbage = (collecting.find if dry_run else collecting.collect)(store, kept)
    verb = "would remove" if dry_run else "removed"
    weight = f"{collecting.human(garbage.apparent)} apparent, {collecting.human(garbage.freed)} freed"
    text = f"{verb} {len(garbage.keys)} environments: {weight}"
    if forgotten:
        text += f"; {'would forget' if dry_run else 'forgot'} generations {', '.join(str(e.number) for e in forgotten)}"
    result = {
        "dry-run": dry_run,
        "environments": list(garbage.keys),
        "apparent-bytes": garbage.apparent,
        "freed-bytes": garbage.freed,
        "generations": [each.number for each in forgotten],
    }
    return Outcome("gc", here.profile.name, result=result, text=(text,))
