"""`release`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Open, Settings, common, plugins_argument
from envbuilder.errors import EnvbuilderError, Interrupted, Problem, SeveralProblems, UsageError, visible

if TYPE_CHECKING:
    from envbuilder.models import Entry
    from envbuilder.render import Outcome, Table
    from envbuilder.workflow.releasing import Plan, Releaser


class _Stopped(SeveralProblems):
    """A step that failed."""


@click.command()
@plugins_argument
@click.option(
    "--bump", type=click.Choice(["patch", "minor", "major"]), help="The part of the released version to count up."
)
@click.option("--version", "version", metavar="V", help="The new version itself.")
@click.option("--all", "every", is_flag=True, help="All that changed since their pinned tags, the core first.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@common
def release(  # noqa: PLR0913 - one parameter for each option
    settings: Settings,
    plugins: tuple[str, ...],
    bump: str | None,
    version: str | None,
    every: bool,
    yes: bool,
    dry_run: bool,
) -> Outcome:
    """Release a plugin or library from its checkout: version, commit, tag, push; then pin, lock and check it for prod.

    Its tests must pass. Nothing is pushed before the plan was shown and agreed to. One commit is left in the workspace;
    where a step fails, the workspace and, before the push, the checkout are as they were. A tag that was pushed stays.
    """
    from envbuilder.render import Outcome
    from envbuilder.workflow.releasing import Releaser, Wish

    if (bump is None) == (version is None) or (every and (plugins or version)) or (version and len(plugins) > 1):
        message = "expected one of --bump and --version; --version for one plugin alone, and --all without names"
        raise UsageError(message, hint="envbuilder release PLUGIN --bump patch")
    if not (every or plugins):
        raise UsageError("expected a plugin, or --all", hint="envbuilder release --all --bump patch --dry-run")
    prod, dev = (replace(settings, profile=name).open() for name in ("prod", "dev"))
    releaser = Releaser(prod.workspace, prod.profile)
    names = _changed(releaser, prod, dev) if every else [_entry(prod, name).name for name in plugins]
    wish = Wish(bump, version)
    plans = [releaser.plan(_entry(prod, name), _entry(dev, name), wish) for name in _ordered(dev, names)]
    result: dict[str, object] = {"releases": [_plain(plan) for plan in plans], "released": False}
    if not plans:
        return Outcome("release", "prod", result=result, text=("nothing has changed since it was tagged",))
    releaser.refuse_unclean(plans)
    text = _table(prod, plans)
    if dry_run:
        return Outcome("release", "prod", result=result, text=(text, "nothing was done"))
    if not _agree(settings, text, yes=yes):
        return Outcome("release", "prod", result=result, text=("nothing was done",))
    try:
        notes = _make(settings, releaser, plans, prod, dev)
    except _Stopped as stopped:
        return Outcome("release", "prod", result=result, problems=stopped.problems)
    done = ", ".join(f"{plan.entry.name} {plan.new}" for plan in plans)
    said = f"released {done}: pushed, pinned, locked and committed in the workspace"
    return Outcome("release", "prod", result={**result, "released": True}, problems=tuple(notes), text=(said,))


def _make(settings: Settings, releaser: Releaser, plans: Sequence[Plan], prod: Open, dev: Open) -> list[Problem]:
    """Carry plans out; what is worth a warning comes back.

    Raises:
        _Stopped: a step failed, and what could be put back was.
    """
    import tempfile

    _test(settings, dev, plans)
    before = _wrong(prod)
    pushed: list[Plan] = []
    with tempfile.TemporaryDirectory(prefix="envbuilder-release-") as folder:
        places = {plan.tag + plan.entry.name: Path(folder) / plan.entry.name for plan in plans}
        try:
            for plan in plans:
                releaser.prepare(plan, places[plan.tag + plan.entry.name])
            notes = []
            for plan in plans:
                _say(settings, f"pushing {plan.entry.name} {plan.tag} to {plan.url}")
                releaser.push(plan, places[plan.tag + plan.entry.name])
                pushed.append(plan)
                notes += _followed(releaser, plan, places[plan.tag + plan.entry.name])
            with releaser.kept(plans):
                _pin(settings, releaser, plans, before)
        except (Interrupted, KeyboardInterrupt):
            for plan in pushed:
                _say(settings, _stays(prod, plan).message)
            raise
        except EnvbuilderError as error:
            raise _Stopped([*error.problems, *(_stays(prod, plan) for plan in pushed)]) from error
    return notes


def _followed(releaser: Releaser, plan: Plan, place: Path) -> list[Problem]:
    try:
        releaser.follow(plan, place)
    except EnvbuilderError as error:
        message = f"the checkout did not follow to {plan.tag}: {error.message}"
        hint = f"git -C {plan.top} pull --rebase"
        return [Problem("checkout-behind", message, plan.entry.name, str(plan.top), hint, severity="warning")]
    return []


def _stays(prod: Open, plan: Plan) -> Problem:
    """What to do about a tag that is pushed and not pinned."""
    name, shown = plan.entry.name, prod.workspace.show(plan.top)
    return Problem(
        "release-unpinned",
        f"{plan.tag} of {name} is pushed and stays there; the workspace is as it was. Mend what failed and pin it "
        f"(source.tag in profiles/registry/{name}.yaml, then envbuilder lock), or take it back, if nobody has it yet",
        name,
        plan.url,
        f"git -C {shown} push origin :refs/tags/{plan.tag} && git -C {shown} tag --delete {plan.tag}  # takes it back",
    )


def _test(settings: Settings, dev: Open, plans: Sequence[Plan]) -> None:
    from envbuilder.render import Progress
    from envbuilder.store.environments import Store
    from envbuilder.workflow.testing import Options, Tester

    store = Store(dev.workspace.shared).folder
    tester = Tester(dev.workspace, dev.profile, Options(), built={}, store=store)
    entries = [_entry(dev, plan.entry.name) for plan in plans]
    with Progress("test", [entry.name for entry in entries], silent=settings.quiet) as progress:
        tested = tester.test(entries, progress.report, jobs=2)
    problems = [problem for each in tested for problem in each.problems if problem.severity == "error"]
    if problems:
        raise _Stopped(problems)


def _pin(settings: Settings, releaser: Releaser, plans: Sequence[Plan], before: set[tuple[str, str | None]]) -> None:
    """Pin the tags, lock what follows from them, see that nothing new is wrong, and commit."""
    from envbuilder.lock import files, locker, locking
    from envbuilder.render import Progress

    for plan in plans:
        releaser.pin(plan)
    here = replace(settings, profile="prod").open()
    pins = files.read_pins(here.workspace, here.profile)
    found = locking.find_stale(here.workspace, here.profile, here.registry, here.registry.plugins, pins)
    names = {plan.entry.name for plan in plans}
    stale = [
        plugin
        for plugin in here.registry.plugins
        if plugin.name in names
        or (isinstance(problem := found[plugin.name], Problem) and (problem.code, plugin.name) not in before)
    ]
    with Progress("lock", [plugin.name for plugin in stale], silent=settings.quiet) as progress:
        outcomes = locking.lock_plugins(
            here.workspace, here.profile, here.registry, stale, request=locker.Request(), report=progress.report
        )
    if failed := [problem for each in outcomes for problem in each.problems if problem.severity == "error"]:
        raise _Stopped(failed)
    known = {item for item in before if item[1] not in names}
    if wrong := [problem for problem in _problems(here) if (problem.code, problem.entry) not in known]:
        raise _Stopped(wrong)
    releaser.commit(plans)


def _problems(here: Open) -> list[Problem]:
    from envbuilder.lock import checking

    report = checking.check(here.workspace, here.profile, here.registry, here.registry.plugins, checking.Question())
    return [problem for problem in report.problems if problem.severity == "error"]


def _wrong(here: Open) -> set[tuple[str, str | None]]:
    """What is wrong before the release, and none of its making."""
    return {(problem.code, problem.entry) for problem in _problems(here)}


def _agree(settings: Settings, plan: Table, *, yes: bool) -> bool:
    """Show the plan, and ask.

    Raises:
        UsageError: there is nobody to ask.
    """
    from envbuilder.render import Outcome, show

    if not yes and (settings.output == "json" or not sys.stdin.isatty()):
        message = "there is nobody to ask: this is no terminal"
        raise UsageError(message, code="unconfirmed", hint="envbuilder release … --dry-run  # then with --yes")
    if settings.output != "json":
        show(Outcome("release", "prod", text=(plan,)), output="text", quiet=settings.quiet and yes)
    return yes or click.confirm("Commit, tag and push?", err=True)


def _say(settings: Settings, text: str) -> None:
    if not settings.quiet:
        click.echo(visible(text), err=True)


def _changed(releaser: Releaser, prod: Open, dev: Open) -> list[str]:
    from envbuilder.lock.files import read_pins

    pins = read_pins(prod.workspace, prod.profile).entries
    entries = ((entry, dev.registry.get(entry.name)) for entry in prod.registry.entries)
    return [base.name for base, own in entries if own and releaser.has_changed(base, own, pins.get(base.name))]


def _ordered(dev: Open, names: Sequence[str]) -> list[str]:
    from envbuilder.workflow.matrix import View, asked
    from envbuilder.workflow.releasing import ordered

    view = View(dev.workspace, dev.profile, dev.registry)
    return ordered(names, {name: asked(view, _entry(dev, name)) for name in names}, list(dev.workspace.core))


def _entry(here: Open, name: str) -> Entry:
    from packaging.utils import canonicalize_name

    return here.registry.get(str(canonicalize_name(name))) or here.select([name])[0]


def _plain(plan: Plan) -> dict[str, object]:
    return {
        "plugin": plan.entry.name,
        "old": str(plan.old) if plan.old else None,
        "new": str(plan.new),
        "tag": plan.tag,
        "signed": plan.signed,
        "branch": plan.branch,
        "edits": list(plan.edits),
        "url": plan.url,
    }


def _table(prod: Open, plans: Sequence[Plan]) -> Table:
    from envbuilder.render import Table

    rows = []
    for plan in plans:
        edits = ", ".join(plan.edits) or "nothing"
        tag = f"{plan.tag} ({'signed' if plan.signed else 'annotated'})"
        push = f"{plan.branch} and {plan.tag} to {plan.url}"
        versions = f"{plan.old or 'none'} to {plan.new}"
        rows.append((plan.entry.name, versions, prod.workspace.show(plan.top), edits, tag, push))
    title = "after each one's tests; then the tags are pinned, prod is locked and checked, and one commit is made"
    return Table(("release", "version", "checkout", "edits", "tag", "pushes"), tuple(rows), title=title)
