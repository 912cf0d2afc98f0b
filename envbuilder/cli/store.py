"""`verify`, `generations`, `rollback` and `gc`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Open, Settings, common, offline_option, plugins_argument
from envbuilder.cli.environments import build_environments
from envbuilder.errors import Problem, counted

if TYPE_CHECKING:
    from envbuilder.models import Entry
    from envbuilder.render import Outcome
    from envbuilder.store.generations import Generations
    from envbuilder.store.verify import Found


@click.command()
@plugins_argument
@click.option("--full", is_flag=True, help="Every byte, not only sizes, times and modes.")
@click.option("--repair", is_flag=True, help="Build anew what is damaged, from wheels that are proved first.")
@offline_option
@common
def verify(settings: Settings, plugins: tuple[str, ...], full: bool, repair: bool, offline: bool) -> Outcome:
    """Compare environments with their seals: a line for each thing that is not as it was sealed."""
    found = _by_stamp(settings, plugins, full=full)
    if found is not None and not any(found.values()):
        return _verdict(settings, len(found), [])
    here = settings.open()
    chosen = here.select(plugins)
    # What was never built is damaged only to who asked for it by name.
    unbuilt = [] if plugins else _unbuilt(here, chosen)
    chosen = [plugin for plugin in chosen if plugin.name not in unbuilt]

    def look(found: Found) -> list[Problem]:
        keys, unknown = _keys(here, chosen)
        return [*unknown, *examine(here, keys, full=full, found=found)]

    problems = look(found or {})
    damaged = {problem.entry for problem in problems}
    mended: list[str] = []
    if repair and damaged:
        wanted = [plugin for plugin in chosen if plugin.name in damaged]
        _, outcomes = build_environments(
            settings, here, wanted, jobs=2, offline=offline, mend=[plugin.name for plugin in wanted]
        )
        mended = [outcome.plugin for outcome in outcomes if outcome.ok]
        failed = [problem for outcome in outcomes for problem in outcome.problems]
        problems = [*failed, *look({})]
    return _verdict(settings, len(chosen), problems, mended, unbuilt)


def _unbuilt(here: Open, chosen: Sequence[Entry]) -> list[str]:
    """The plugins of which there is neither an environment nor a seal, and none in the current generation."""
    from envbuilder.store.environments import Store

    store = Store(here.workspace.shared)
    keys, _ = _keys(here, chosen)
    current = _generations(here).current()
    promised = set(current.keys.values()) if current else set()
    gone = {name: key for name, key in keys.items() if key not in promised}
    return [name for name, key in gone.items() if not store.path(key).exists() and not store.head_path(key).exists()]


def _verdict(
    settings: Settings,
    count: int,
    problems: Sequence[Problem],
    mended: Sequence[str] = (),
    unbuilt: Sequence[str] = (),
) -> Outcome:
    from envbuilder.render import Outcome

    if unbuilt and not count and not problems:
        hint = f"envbuilder build --profile {settings.profile}"
        problems = [Problem("nothing-verified", "no environment is built, so nothing was verified", hint=hint)]
    whole = {0: "there is nothing to verify", 1: "as it was sealed"}.get(count, "all as they were sealed")
    said = counted(len(problems), "finding") if problems else whole
    text = f"verified {counted(count, 'environment')}: {said}{'; mended ' + ', '.join(mended) if mended else ''}"
    text += f"; not built: {', '.join(unbuilt)}" if unbuilt else ""
    result = {"environments": count, "findings": len(problems), "mended": list(mended), "not-built": list(unbuilt)}
    return Outcome("verify", settings.profile, result=result, problems=tuple(problems), text=(text,))


def _by_stamp(settings: Settings, plugins: Sequence[str], *, full: bool) -> Found | None:
    """What is found by keys that a stamp proves, without reading registry and locks; None where it proves none."""
    from envbuilder.places import candidates, state_folders
    from envbuilder.store import stamps, verify

    root = next(candidates(settings.folder), None)
    if root is None:
        return None
    shared, own = state_folders(root)
    keys = stamps.meant(stamps.stamp_path(own, settings.profile))
    if not keys or not keys.keys() >= set(plugins):
        return None
    return verify.find(shared / "store", [keys[name] for name in plugins or keys], full=full)


def _keys(here: Open, chosen: Sequence[Entry]) -> tuple[dict[str, str], list[Problem]]:
    """The key of each plugin's environment, by name, and why some have none."""
    from envbuilder.build import Builder

    builder = Builder(here.workspace, here.profile, here.registry, offline=True)
    keys = {plugin.name: builder.key_of(plugin) for plugin in chosen}
    unknown = [key for key in keys.values() if isinstance(key, Problem)]
    return {name: key for name, key in keys.items() if isinstance(key, str)}, unknown


def examine(here: Open, keys: Mapping[str, str], *, full: bool, found: Found | None = None) -> list[Problem]:
    """What is not as it was sealed in environments, each finding a problem.

    Args:
        here: where plugins and store are.
        keys: of the environments, by plugin.
        full: whether to read every byte.
        found: findings by key, where environments have been looked at already.
    """
    from envbuilder.store import verify, writers
    from envbuilder.store.environments import Store

    store = Store(here.workspace.shared)
    known = found or {}
    known = {**known, **verify.find(store.folder, [key for key in keys.values() if key not in known], full=full)}
    problems = []
    for name, key in keys.items():
        findings = known[key]
        sharing = store.sharing(key, [each.path for each in findings if each.kind in {"changed", "content"}])
        hint = f"envbuilder verify --repair --profile {here.profile.name} {name}"
        where = here.workspace.show(store.path(key))
        # What came after the seal into a package's own folder was most likely written by it, and would be again.
        written = [each.path for each in findings if each.kind == "stray"]
        by = writers.writers(store.path(key), written)
        wrote = {name: each for each in by for name in each.files}
        for finding in findings:
            also = sharing.get(finding.path)
            message = f"{finding}{f'; shared with {chr(44).join(also)}' if also else ''}"
            writer = next((each for path, each in wrote.items() if f"{path}/".startswith(f"{finding.path}/")), None)
            if finding.kind == "stray" and writer is not None and writer.owners:
                message += f"; written by {writer}; {writer.remedy}"
            problems.append(Problem(f"environment-{finding.kind}", message, name, where, hint))
    return problems


def _generations(here: Open) -> Generations:
    from envbuilder.store.environments import Store
    from envbuilder.store.generations import Generations

    return Generations(here.workspace.own, here.profile.name, Store(here.workspace.shared).folder)


@click.command()
@click.option(
    "--pin", multiple=True, metavar="N|PLUGIN", help="Keep a generation, or the environment a plugin has now."
)
@click.option("--unpin", multiple=True, metavar="N|PLUGIN", help="Keep it no longer.")
@common
def generations(settings: Settings, pin: tuple[str, ...], unpin: tuple[str, ...]) -> Outcome:
    """List the generations of the profile, the newest last, and what is pinned: `gc` leaves that alone."""
    from envbuilder.fs import locked
    from envbuilder.render import Outcome, Table
    from envbuilder.store.environments import Store

    here = settings.open()
    known = _generations(here)
    if pin or unpin:
        # The collector holds this lock alone: what is pinned is there, and stays.
        with locked(Store(here.workspace.shared).usage_path, shared=True):
            known.unpin(unpin)
            known.pin(pin)
    readable, problems = known.look()
    current, pinned = known.pointed(readable), known.pinned
    rows, plain = [], []
    for each in readable:
        is_current = current is not None and each.number == current.number
        marks = {"current": is_current, "held": is_current and known.held, "pinned": each.number in pinned.generations}
        row = ", ".join(mark for mark, holds in marks.items() if holds)
        rows.append((str(each.number), _moment(each.created), str(len(each.keys)), row))
        plain.append(
            {
                "number": each.number,
                "created": each.created,
                "current": is_current,
                "pinned": marks["pinned"],
                "environments": dict(each.keys),
            }
        )
    table = Table(("generation", "created (UTC)", "environments", ""), tuple(rows), frozenset({"environments"}))
    text: list[Table | str] = [table if rows else "no generations yet"]
    if pinned.environments:
        text.append(f"pinned environments: {', '.join(sorted(pinned.environments))}")
    result = {"generations": plain, "pinned-environments": sorted(pinned.environments)}
    return Outcome("generations", here.profile.name, result=result, problems=tuple(problems), text=tuple(text))


def _moment(created: str) -> str:
    return created[:19].replace("T", " ")


@click.command()
@click.argument("number", required=False, type=click.IntRange(1))
@common
def rollback(settings: Settings, number: int | None) -> Outcome:
    """Point the profile at an earlier generation; `build` returns to what is locked."""
    from envbuilder.render import Outcome

    here = settings.open()
    chosen = _generations(here).roll_back(number)
    text = f"{here.profile.name} is at generation {chosen.number} of {_moment(chosen.created)}; envbuilder build returns to the locks"
    return Outcome("rollback", here.profile.name, result={"number": chosen.number}, text=(text,))


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--keep", type=click.IntRange(1), help="Forget all but the newest N generations of the profile first.")
@common
def gc(settings: Settings, dry_run: bool, keep: int | None) -> Outcome:
    """Remove environments that no generation, no pin and no run under way needs, in any workspace that shares them."""
    from envbuilder.render import Outcome
    from envbuilder.store import collecting
    from envbuilder.store.environments import Store
    from pipeline.cli import live_environments

    here = settings.open()
    store = Store(here.workspace.shared)
    known = _generations(here)
    with collecting.alone(store, looking=dry_run):
        # What cannot be read keeps all: nothing is forgotten before it is known.
        collecting.reachable(store.shared)
        live = set().union(*(live_environments(own) for own in collecting.workspaces(store.shared)))
        forgotten = known.forget(keep, dry_run=dry_run) if keep else []
        still = collecting.reachable(store.shared, without=[known.folder / f"{each.number}.json" for each in forgotten])
        kept = still | live
        garbage = (collecting.find if dry_run else collecting.collect)(store, kept)
    verb = "would remove" if dry_run else "removed"
    weight = f"{collecting.human(garbage.apparent)} apparent, {collecting.human(garbage.freed)} freed"
    left = f" and {counted(len(garbage.leftovers), 'leftover')} of killed builds" if garbage.leftovers else ""
    text = f"{verb} {counted(len(garbage.keys), 'environment')}{left}: {weight}"
    if forgotten:
        text += f"; {'would forget' if dry_run else 'forgot'} generation{'s'[: len(forgotten) > 1]} {', '.join(str(e.number) for e in forgotten)}"
    result = {
        "dry-run": dry_run,
        "environments": list(garbage.keys),
        "leftovers": [str(folder) for folder in garbage.leftovers],
        "apparent-bytes": garbage.apparent,
        "freed-bytes": garbage.freed,
        "generations": [each.number for each in forgotten],
    }
    return Outcome("gc", here.profile.name, result=result, text=(text,))
