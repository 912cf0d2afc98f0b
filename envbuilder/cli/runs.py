"""`run`, `plan` and `runs`: the pipeline, in environments that are built where they are missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from envbuilder.cli.base import Open, Settings, common, offline_option
from envbuilder.cli.environments import build_environments
from envbuilder.cli.store import examine
from envbuilder.errors import EXIT_FAILED, EXIT_OK, BuildError, UsageError

if TYPE_CHECKING:
    from envbuilder.build import Built
    from envbuilder.models import Entry
    from envbuilder.render import Outcome, Table
    from pipeline.cli import RunRequest
    from pipeline.models import Environment, RunOutcome, Stage
    from pipeline.models import Table as RunTable

_run_file = click.argument("run_file", required=False, type=click.Path(path_type=Path), metavar="[RUNFILE]")
_jobs = click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="CPU tasks at a time; more blur latencies.",
)


@click.command()
@_run_file
@_jobs
@offline_option
@common
def run(settings: Settings, run_file: Path | None, jobs: int, offline: bool) -> Outcome:
    """Run a run file from inference to report; without one, the workspace's default."""
    from pipeline.cli import execute_run
    from pipeline.render import make_display

    here = settings.open()
    request = _request(settings, here, run_file, jobs=jobs, offline=offline)
    with make_display(sys.stderr, quiet=settings.quiet) as display:
        outcome = execute_run(request, reporter=display)
    return _shown("run", settings.profile, outcome)


@click.command()
@_run_file
@offline_option
@common
def plan(settings: Settings, run_file: Path | None, offline: bool) -> Outcome:
    """Show what a run would do; builds what is missing, runs nothing."""
    from envbuilder.render import Outcome
    from pipeline.cli import plan_run
    from pipeline.models import to_json
    from pipeline.render import plan_table

    here = settings.open()
    planned = plan_run(_request(settings, here, run_file, jobs=1, offline=offline))
    return Outcome(
        "plan", settings.profile, result={"plan": to_json(planned.tasks)}, text=(_table(plan_table(planned)),)
    )


@click.group()
def runs() -> None:
    """Look at runs that were made."""


@runs.command("list")
@common
def runs_list(settings: Settings) -> Outcome:
    """List runs, the oldest first."""
    from envbuilder.config import find_workspace
    from envbuilder.render import Outcome
    from pipeline.cli import list_runs
    from pipeline.render import runs_table

    found = list_runs(find_workspace(settings.folder).own)
    plain = [
        {
            "id": each.id,
            "name": each.name,
            "status": each.status,
            "started": each.started,
            "tasks": len(each.tasks),
            "tasks-ok": sum(task.ok for task in each.tasks),
        }
        for each in found
    ]
    return Outcome(
        "runs list",
        settings.profile,
        result={"runs": plain},
        text=(_table(runs_table(found)),) if found else ("no runs yet",),
    )


@runs.command("show")
@click.argument("run_id", required=False, metavar="[RUN]")
@click.option("--export", type=click.Choice(["csv"]), help="Write the answers as id;model_answer tables.")
@common
def runs_show(settings: Settings, run_id: str | None, export: str | None) -> Outcome:
    """Show a run, by default the latest."""
    from envbuilder.config import find_workspace
    from envbuilder.render import Outcome
    from pipeline.cli import export_csv, show_run

    state = find_workspace(settings.folder).own
    if export:
        exported = export_csv(state, run_id)
        written = [str(path) for path in exported.paths]
        return Outcome(
            "runs show", settings.profile, result={"written": written}, problems=exported.problems, text=tuple(written)
        )
    return _shown("runs show", settings.profile, show_run(state, run_id))


def _request(settings: Settings, here: Open, run_file: Path | None, *, jobs: int, offline: bool) -> RunRequest:
    """The request for a run, its environments built.

    Raises:
        ConfigError: the run file cannot be used.
        BuildError: an environment cannot be built.
    """
    from envbuilder.build import Builder
    from envbuilder.lock.locking import read_pins
    from pipeline.cli import RunRequest, plugins_of
    from pipeline.config import load_run
    from pipeline.models import to_json

    file = _resolve(here, run_file)
    stages = {plugin.name: cast("Stage", plugin.stage) for plugin in here.registry.plugins}
    chosen = here.select(plugins_of(file, stages))
    builder = Builder(here.workspace, here.profile, here.registry, offline=True)
    if any(isinstance(builder.find(plugin), str) for plugin in chosen):
        load_run(file, stages)  # What is wrong with the data must not wait for the end of a long build.
    environments = _ready(settings, here, chosen, offline=offline)
    pins = read_pins(here.workspace, here.profile)
    return RunRequest(
        run_file=file,
        environments=environments,
        state_dir=here.workspace.own,
        profile=here.profile.name,
        pins={name: to_json(pin) for name, pin in pins.entries.items()},
        jobs=jobs,
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
    return [_environment(each, here) for each in built]


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


def _environment(built: Built, here: Open) -> Environment:
    """A built environment as the pipeline takes it."""
    from pipeline.models import Environment

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
        env={"PYTHONPYCACHEPREFIX": str(built.pycache), **plugin.env},
        versions=built.versions,
        lock_digest=built.lock,
        source={"kind": plugin.source.kind, **asdict(plugin.source)},
    )


def _shown(command: str, profile: str, outcome: RunOutcome) -> Outcome:
    """A run's outcome as a command's."""
    from envbuilder.render import Outcome

    text: list[Table | str] = [_table(table) for table in outcome.tables]
    for name in ("report", "run"):
        if name in outcome.paths:
            text.append(f"{name}: {os.path.relpath(outcome.paths[name])}")
            break
    status = EXIT_OK if outcome.ok else EXIT_FAILED
    return Outcome(command, profile, outcome.to_json(), outcome.problems, tuple(text), exit_status=status)


def _table(table: RunTable) -> Table:
    from envbuilder.render import Table

    wordy = {"task", "plugin", "status", "data", "class", "device", "stage"}
    numeric = frozenset(column for column in table.columns if column not in wordy)
    return Table(table.columns, table.rows, numeric, table.title)
