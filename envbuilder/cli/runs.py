"""`run`, `plan` and `runs`: the pipeline, in environments that are built where they are missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from envbuilder.cli import words
from envbuilder.cli.base import Open, Settings, common, offline_option
from envbuilder.cli.environments import build_environments
from envbuilder.cli.store import examine
from envbuilder.errors import EXIT_FAILED, EXIT_OK, BuildError, Problem, UsageError, counted, visible

if TYPE_CHECKING:
    from envbuilder.build import Builder, Built
    from envbuilder.models import Entry, Workspace
    from envbuilder.render import Outcome, Table
    from envbuilder.store.checkouts import Checkout
    from envbuilder.store.environments import Store
    from pipeline.cli import RunRequest
    from pipeline.models import Environment, RunOutcome, Stage
    from pipeline.models import Table as RunTable

_run_file = click.argument(
    "run_file",
    required=False,
    type=click.Path(path_type=Path),
    metavar="[RUNFILE]",
    shell_complete=words.run_files,
)
_jobs = click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="CPU tasks at a time; more blur latencies.",
)
_fresh = click.option("--fresh", is_flag=True, help="Reuse no results of earlier runs.")
_force = click.option(
    "--force", multiple=True, metavar="NAME", help="Do this task, or all of this plugin's, anew; may be repeated."
)
_retry_failed = click.option(
    "--retry-failed", is_flag=True, help="Ask failed items again, in tasks that ended well too."
)


@click.command()
@_run_file
@_jobs
@_fresh
@_force
@_retry_failed
@offline_option
@common
def run(  # noqa: PLR0913 - a parameter for each option
    settings: Settings,
    run_file: Path | None,
    jobs: int,
    fresh: bool,
    force: tuple[str, ...],
    retry_failed: bool,
    offline: bool,
) -> Outcome:
    """Run a run file from inference to report; without one, the workspace's default.

    What earlier runs have done is not done again where everything that a result depends on is the same.
    """
    from pipeline.cli import Terms, execute_run
    from pipeline.render import make_display

    here = settings.open()
    request = _request(settings, here, run_file, jobs=jobs, offline=offline)
    request = replace(request, terms=Terms(fresh, frozenset(force), retry_failed))
    with make_display(sys.stderr, quiet=settings.quiet) as display:
        outcome = execute_run(request, reporter=display)
    return _shown("run", settings.profile, outcome)


@click.command()
@click.argument("run_id", required=False, metavar="[RUN]", shell_complete=words.runs)
@_jobs
@_retry_failed
@offline_option
@common
def resume(settings: Settings, run_id: str | None, jobs: int, retry_failed: bool, offline: bool) -> Outcome:
    """Go on with a run that was interrupted, was killed or had failures; by default the latest.

    It goes on in its own folder and profile. No item that has an answer is asked again, no task that ended well is
    done again. Items that failed are asked again where their task did not end well. Answers, figures and reports
    that were there and are lost are made again.
    """
    from envbuilder.config import find_workspace
    from pipeline.cli import find_resumable, resume_run, show_run
    from pipeline.render import make_display

    state = find_workspace(settings.folder).own
    found = find_resumable(state, run_id, retry_failed=retry_failed)
    settings = replace(settings, profile=found.profile)
    if found.is_done:
        if not settings.quiet:
            click.echo(f"run {found.id}: nothing is left to do", err=True)
        return _shown("resume", settings.profile, show_run(state, found.id))
    for problem in () if settings.quiet else found.lost:
        click.echo(visible(f"run {found.id}: {problem.message}; that is done again", line=True), err=True)
    request = _request(settings, settings.open(), found.run_file, jobs=jobs, offline=offline)
    with make_display(sys.stderr, quiet=settings.quiet) as display:
        outcome = resume_run(replace(request, terms=found.terms), found.id, reporter=display)
    return _shown("resume", settings.profile, outcome)


@click.command()
@_run_file
@click.option("--why", is_flag=True, help="Say of each task what would be done anew, and why.")
@_fresh
@_force
@_retry_failed
@offline_option
@common
def plan(  # noqa: PLR0913 - a parameter for each option
    settings: Settings,
    run_file: Path | None,
    why: bool,
    fresh: bool,
    force: tuple[str, ...],
    retry_failed: bool,
    offline: bool,
) -> Outcome:
    """Show what a run would do, in environments that are there or would be built; builds nothing, runs nothing."""
    from envbuilder.render import Outcome
    from pipeline.cli import Terms, explain_run, machine_problems, plan_run
    from pipeline.models import to_json
    from pipeline.redaction import clean, hidden
    from pipeline.render import plan_table, why_table

    here = settings.open()
    builder, meant = _meant(here, _resolve(here, run_file), offline=offline)
    missing = [each.plugin.name for each in meant if builder.store.glance(each.key) is not None]
    note = [f"not built yet: {', '.join(missing)}; a run builds them first"] if missing else []
    environments = {
        "environments": [
            {"plugin": each.plugin.name, "key": each.key, "built": each.plugin.name not in missing} for each in meant
        ]
    }
    request = _request_for(here, _resolve(here, run_file), _environments(here, builder, meant), jobs=1)
    if why or fresh or force or retry_failed:
        found = explain_run(replace(request, terms=Terms(fresh, frozenset(force), retry_failed)))
        return Outcome(
            "plan",
            settings.profile,
            {"plan": clean(hidden(to_json(found.tasks))), "why": to_json(found.decisions), **environments},
            (*machine_problems(plan_run(request)), *found.warnings),
            text=(_table(why_table(found.decisions)), *note),
        )
    planned = plan_run(request)
    return Outcome(
        "plan",
        settings.profile,
        result={"plan": clean(hidden(to_json(planned.tasks))), **environments},
        problems=(*machine_problems(planned), *planned.warnings),
        text=(_table(plan_table(planned)), *note),
    )


@click.group()
def runs() -> None:
    """Look at runs that were made."""


@runs.command("list", short_help="List runs, the oldest first.")
@common
def runs_list(settings: Settings) -> Outcome:
    """List runs, the oldest first; with --profile those of one profile."""
    from envbuilder.config import find_workspace
    from envbuilder.render import Outcome
    from pipeline.cli import list_runs
    from pipeline.render import runs_table

    workspace = find_workspace(settings.folder)
    found = list_runs(workspace.own)
    problems = () if found else _left_elsewhere(workspace)
    where = f" in {settings.profile}" if settings.is_named else ""
    if where:
        found = tuple(each for each in found if each.profile in {settings.profile, ""})
    plain = [
        {
            "id": each.id,
            "name": each.name,
            "profile": each.profile,
            "status": each.status,
            "started": each.started,
            "tasks": len(each.tasks),
            "tasks-ok": sum(task.ok for task in each.tasks),
            "failed-items": each.failed_items,
        }
        for each in found
    ]
    return Outcome(
        "runs list",
        settings.profile,
        result={"runs": plain},
        problems=problems,
        text=(_table(runs_table(found)), *_again(found)) if found else (f"no runs{where} yet",),
    )


def _left_elsewhere(workspace: Workspace) -> tuple[Problem, ...]:
    """A warning for each workspace that is gone, and has left runs, which may be those of this one before it was moved."""
    import shlex

    from envbuilder.places import abandoned
    from pipeline.layout import run_ids

    if workspace.own == workspace.shared:
        return ()
    problems = []
    for folder, owner in abandoned(workspace.shared):
        if count := len(run_ids(folder)):
            message = (
                f"{counted(count, 'run')} of a workspace that was at {owner.root}, and is gone; if it was moved here"
            )
            target = f"{workspace.own}/" if workspace.own.exists() else str(workspace.own)
            what = f"{folder}/runs" if workspace.own.exists() else str(folder)
            hint = f"mv {shlex.quote(what)} {shlex.quote(target)}"
            problems.append(Problem("workspace-moved", message, where=str(folder), hint=hint, severity="warning"))
    return tuple(problems)


@runs.command("show", short_help="Show a run, or write its answers as tables.")
@click.argument("run_id", required=False, metavar="[RUN]", shell_complete=words.runs)
@click.option(
    "--export",
    type=click.Choice(["csv", "parquet"]),
    help="Write answers: as id;model_answer tables, or all with the figures as Parquet.",
)
@click.option(
    "--raw", is_flag=True, help="With --export csv: leave cells that a spreadsheet would compute as they are."
)
@click.option("-f", "--follow", is_flag=True, help="Watch a run that goes on elsewhere until it ends.")
@common
def runs_show(settings: Settings, run_id: str | None, export: str | None, raw: bool, follow: bool) -> Outcome:
    """Show a run, by default the latest."""
    from envbuilder.config import find_workspace
    from envbuilder.render import Outcome
    from pipeline.cli import export_csv, export_parquet, follow_run, show_run
    from pipeline.render import make_display

    state = find_workspace(settings.folder).own
    if follow:
        with make_display(sys.stderr, quiet=settings.quiet) as display:
            run_id = follow_run(state, run_id, display).id
    if export:
        exported = export_csv(state, run_id, raw=raw) if export == "csv" else export_parquet(state, run_id)
        written = [str(path) for path in exported.paths]
        return Outcome(
            "runs show", settings.profile, result={"written": written}, problems=exported.problems, text=tuple(written)
        )
    return _shown("runs show", settings.profile, show_run(state, run_id))


@runs.command("diff", short_help="Show why two runs differ.")
@click.argument("old", shell_complete=words.runs)
@click.argument("new", default="latest", shell_complete=words.runs)
@common
def runs_diff(settings: Settings, old: str, new: str) -> Outcome:
    """Show why two runs differ: environments, code, data, devices, parameters, versions; and their figures."""
    from envbuilder.config import find_workspace
    from envbuilder.render import Outcome
    from pipeline.cli import diff_runs
    from pipeline.models import to_json
    from pipeline.render import diff_tables

    found = diff_runs(find_workspace(settings.folder).own, old, new)
    text: list[Table | str] = [_table(table) for table in diff_tables(found)]
    if not found.differences:
        text.insert(0, f"nothing that a result depends on differs between {found.old} and {found.new}")
    document = to_json(found)
    return Outcome("runs diff", settings.profile, document if isinstance(document, dict) else {}, text=tuple(text))


def _request(settings: Settings, here: Open, run_file: Path | None, *, jobs: int, offline: bool) -> RunRequest:
    """The request for a run, its environments built.

    Raises:
        ConfigError: the run file cannot be used.
        BuildError: an environment cannot be built.
    """
    from envbuilder.build import Builder
    from pipeline.cli import weights_memo
    from pipeline.config import load_run

    file = _resolve(here, run_file)
    chosen, stages = _named(here, file)
    builder = Builder(here.workspace, here.profile, here.registry, offline=True)
    if any(isinstance(builder.find(plugin), str) for plugin in chosen):
        load_run(
            file, stages, memo=weights_memo(here.workspace.own)
        )  # What is wrong with the data must not wait for the end of a long build.
    return _request_for(here, file, _ready(settings, here, chosen, offline=offline), jobs=jobs)


def _named(here: Open, file: Path) -> tuple[list[Entry], dict[str, Stage]]:
    """The plugins that a run file names, and the stages of all that there are."""
    from pipeline.cli import plugins_of

    stages = {plugin.name: cast("Stage", plugin.stage) for plugin in here.registry.plugins}
    return here.select(plugins_of(file, stages)), stages


def _meant(here: Open, file: Path, *, offline: bool) -> tuple[Builder, list[Built]]:
    """The environments that a run would have, there or not.

    Raises:
        BuildError: a plugin has no lock to build from.
    """
    from envbuilder.build import Builder

    builder = Builder(here.workspace, here.profile, here.registry, offline=offline)
    found = [builder.meant(plugin) for plugin in _named(here, file)[0]]
    if problems := [each for each in found if isinstance(each, Problem)]:
        raise BuildError(problems)
    return builder, [each for each in found if not isinstance(each, Problem)]


def _request_for(here: Open, file: Path, environments: list[Environment], *, jobs: int) -> RunRequest:
    from envbuilder.cli.keeping import StoreKeeper
    from envbuilder.lock.files import read_pins
    from pipeline.cli import RunRequest
    from pipeline.models import to_json

    pins = read_pins(here.workspace, here.profile)
    return RunRequest(
        run_file=file,
        environments=environments,
        state_dir=here.workspace.own,
        profile=here.profile.name,
        pins={name: to_json(pin) for name, pin in {**pins.entries, **pins.dependencies}.items()},
        jobs=jobs,
        keeper=StoreKeeper(here.workspace, environments),
    )


def _ready(settings: Settings, here: Open, chosen: Sequence[Entry], *, offline: bool) -> list[Environment]:
    """The environments of plugins, built where they are missing, each of them as it was sealed.

    Raises:
        BuildError: one cannot be built, or is not what it was.
    """
    from envbuilder.build import Builder

    builder = Builder(here.workspace, here.profile, here.registry, offline=True)
    found = {plugin.name: builder.find(plugin) for plugin in chosen} if builder.generations.held else {}
    if found and not any(isinstance(each, str) for each in found.values()):
        current = builder.generations.current()
        click.echo(f"using generation {current.number if current else ''}, rolled back to", err=True)
        built = [each for each in found.values() if not isinstance(each, str)]
    else:
        builder, outcomes = build_environments(settings, here, chosen, jobs=2, offline=offline)
        if failed := [problem for outcome in outcomes for problem in outcome.problems]:
            raise BuildError(failed)
        built = [builder.built[plugin.name] for plugin in chosen]
    if problems := examine(here, {each.plugin.name: each.key for each in built}, full=False):
        raise BuildError(problems)
    return _environments(here, builder, built)


def _environments(here: Open, builder: Builder, built: Sequence[Built]) -> list[Environment]:
    """Environments as the pipeline takes them, with what their checkouts hold just now."""
    from envbuilder.store.checkouts import survey

    live = {
        path: survey(path, builder.store.digests)
        for path in dict.fromkeys(path for each in built for path in each.live)
    }
    return [_environment(each, here, builder.store, live) for each in built]


def _resolve(here: Open, run_file: Path | None) -> Path:
    if run_file is None:
        if here.workspace.default_run is None:
            raise UsageError(
                "no run file given, and the workspace names none",
                where="pyproject.toml",
                hint="envbuilder run profiles/runs/NAME.yaml  # or set default-run under [tool.envbuilder]",
            )
        return here.workspace.root / here.workspace.default_run
    inside = here.workspace.root / run_file
    return inside if not run_file.exists() and inside.exists() else run_file


def _environment(built: Built, here: Open, store: Store, live: Mapping[Path, Checkout]) -> Environment:
    """A built environment as the pipeline takes it."""
    from pipeline.models import Code, Environment

    plugin = built.plugin
    return Environment(
        plugin=plugin.name,
        stage=plugin.stage,  # type: ignore[arg-type]  # a plugin has one of the three, the schema sees to it
        path=built.path,
        python=built.python,
        key=built.key,
        cache_dir=here.workspace.shared / "cache" / plugin.name,
        entry=plugin.entry,
        command=plugin.command or None,
        env=plugin.env,
        versions=built.versions,
        lock_digest=built.lock,
        source={"kind": plugin.source.kind, **asdict(plugin.source)},
        pycache=built.pycache,
        code={here.workspace.show(path): Code(**asdict(live[path])) for path in built.live},
        seal=store.seal_digest(built.key),
    )


def _again(outcomes: Sequence[RunOutcome]) -> tuple[str, ...]:
    """The command that asks failed items of the newest such run again, where there are any."""
    found = next((each for each in reversed(outcomes) if each.failed_items and each.status != "running"), None)
    if found is None:
        return ()
    items = counted(found.failed_items, "failed item")
    return (f"next: envbuilder resume {found.id} --retry-failed  # asks {items} again",)


def _shown(command: str, profile: str, outcome: RunOutcome) -> Outcome:
    """A run's outcome as a command's."""
    from envbuilder.render import Outcome
    from pipeline.render import speed_notes

    text: list[Table | str] = [*(_table(table) for table in outcome.tables), *speed_notes(outcome.tasks)]
    for name in ("report", "run"):
        if name in outcome.paths:
            text.append(f"{name}: {os.path.relpath(outcome.paths[name])}")
            break
    status = EXIT_OK if outcome.ok else EXIT_FAILED
    return Outcome(
        command, profile, outcome.to_json(), outcome.problems, (*text, *_again([outcome])), exit_status=status
    )


def _table(table: RunTable) -> Table:
    from envbuilder.render import Table

    wordy = {
        "run",
        "name",
        "profile",
        "started (UTC)",
        "task",
        "plugin",
        "status",
        "data",
        "class",
        "device",
        "stage",
        "what",
        "why",
        "slot",
        "guard",
        "remarks",
        "part",
        "figure",
        "note",
    }
    numeric = frozenset(column for column in table.columns if column not in wordy)
    # The id of a run says when it was, and of what; a digest is for programs.
    return Table(table.columns, table.rows, numeric, table.title, ("started (UTC)", "name", "identity", "guard"))
