"""`sbom` and `audit`: what is in the locks, for those who must account for it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from envbuilder.cli.base import Open, Settings, common, offline_option, plugins_argument
from envbuilder.cli.inquiry import lock_graph
from envbuilder.errors import Problem, ToolError, counted

if TYPE_CHECKING:
    from envbuilder.lock.sbom import Bill
    from envbuilder.models import Entry
    from envbuilder.render import Outcome

T = TypeVar("T")

# As many as `lock` runs at a time.
_JOBS = 4


@click.command()
@plugins_argument
@click.option(
    "--output", "target", type=click.Path(path_type=Path, file_okay=False), help="Write PLUGIN.cdx.json files there."
)
@click.option("--merged", is_flag=True, help="One bill over all; with --output, beside the others.")
@click.option(
    "--stamped", is_flag=True, help="Give each a serial number and the time, which makes it unlike all others."
)
@common
def sbom(settings: Settings, plugins: tuple[str, ...], target: Path | None, merged: bool, stamped: bool) -> Outcome:
    """Write a bill of materials (CycloneDX 1.5) for each plugin: versions, digests, commits, licences.

    Without --output it goes to stdout: the plugin's, if it is one, else the merged one. Licences are known of packages
    whose environment is built.
    """
    from envbuilder.lock import sbom as bills
    from envbuilder.render import Outcome

    here = settings.open()
    chosen = here.select(plugins)
    made = {
        plugin.name: bill for plugin, bill in zip(chosen, _each(chosen, lambda each: _bill(here, each)), strict=True)
    }
    total = bills.merge(made, f"envbuilder-{here.profile.name}") if made else None
    problems = tuple(_unknown(here, name, bill) for name, bill in made.items() if bills.unknown_licences(bill))
    shown = total if merged or len(made) != 1 else next(iter(made.values()))
    files = {f"{name}.cdx.json": bill for name, bill in made.items()}
    if merged and total is not None:
        files["merged.cdx.json"] = total
    if stamped:
        files = {name: _stamped(bill) for name, bill in files.items()}
        shown = shown and _stamped(shown)
    if target is None:
        text: tuple[str, ...] = (_text(shown),) if shown else ()
        return Outcome("sbom", here.profile.name, {"bill": shown}, problems, text)
    written = _write(target, files)
    return Outcome("sbom", here.profile.name, {"written": written}, problems, tuple(written))


def _each(chosen: Sequence[Entry], job: Callable[[Entry], T]) -> list[T]:
    from envbuilder.threads import at_once

    return list(at_once(job, chosen, _JOBS, name="supply"))


def _bill(here: Open, plugin: Entry) -> Bill:
    from envbuilder.lock import sbom as bills
    from envbuilder.store.installed import metadata

    graph = lock_graph(here, plugin)
    installed = metadata(here.workspace.own / "envs" / here.profile.name / plugin.name)
    return bills.together(
        [bills.complete(_exported(here, plugin, backend), graph, installed) for backend in graph.backends or [""]]
    )


def _exported(here: Open, plugin: Entry, backend: str) -> Bill:
    from envbuilder import uv
    from envbuilder.lock.files import lock_folder

    folder = lock_folder(here.workspace, here.profile, plugin.name)
    done = uv.export_bill(folder, _interpreter(here, plugin), backend)
    try:
        bill = json.loads(done.stdout) if done.ok else None
    except ValueError:
        bill = None
    if not isinstance(bill, dict):
        problem = uv.explain(done, plugin.name, "tool-failed", hint="uv --version")
        raise ToolError(f"uv cannot export the lock of {plugin.name}: {problem.message}", hint=problem.hint)
    return bill


def _interpreter(here: Open, plugin: Entry) -> Path:
    from envbuilder.config import python_specifier
    from envbuilder.store import interpreters

    request = python_specifier(plugin.python or here.profile.python)
    return interpreters.find(here.workspace.shared, request, offline=True).path


def _unknown(here: Open, plugin: str, bill: Bill) -> Problem:
    from envbuilder.lock.sbom import unknown_licences

    names = unknown_licences(bill)
    message = f"what licence {counted(len(names), 'package has', 'packages have')} is unknown: {', '.join(names[:5])}{', …' if names[5:] else ''}"
    link = here.workspace.own / "envs" / here.profile.name / plugin
    hint = f"envbuilder build --profile {here.profile.name} {plugin}  # metadata is read from the environment"
    if link.exists():
        hint = f"head -30 {shlex.quote(here.workspace.show(link))}/lib/python*/site-packages/*.dist-info/METADATA  # they say none"
    return Problem("licence-unknown", message, plugin, hint=hint, severity="warning")


def _stamped(bill: Bill) -> Bill:
    import uuid
    from datetime import datetime, timezone

    head = bill["metadata"]
    time = datetime.now(timezone.utc).isoformat(timespec="seconds")
    stamped = {**(head if isinstance(head, dict) else {}), "timestamp": time}
    return {**bill, "serialNumber": f"urn:uuid:{uuid.uuid4()}", "metadata": stamped}


def _text(bill: Bill) -> str:
    return json.dumps(bill, indent=2, ensure_ascii=False)


def _write(folder: Path, files: Mapping[str, Bill]) -> list[str]:
    from envbuilder.fs import write_atomically

    for name, bill in files.items():
        write_atomically(folder / name, f"{_text(bill)}\n")
    return [str(folder / name) for name in files]


@click.command()
@plugins_argument
@click.option("--ignore", multiple=True, metavar="ID", help="A vulnerability that is known and accepted.")
@click.option("--service-url", metavar="URL", help="Another vulnerability service that speaks as OSV does.")
@offline_option
@common
def audit(
    settings: Settings, plugins: tuple[str, ...], ignore: tuple[str, ...], service_url: str | None, offline: bool
) -> Outcome:
    """Ask a vulnerability database about every locked package; where it cannot be asked, nothing is called fine."""
    from envbuilder.render import Outcome

    here = settings.open()
    chosen = here.select(plugins)
    for plugin in chosen:
        lock_graph(here, plugin)
    found: list[tuple[int | None, list[Problem]]]
    if offline:
        message = "a vulnerability database is asked over the network, which --offline forbids"
        hint = f"envbuilder audit --profile {here.profile.name}"
        found = [(None, [Problem("audit-unknown", message, plugin.name, hint=hint)]) for plugin in chosen]
    else:
        found = _each(chosen, lambda each: _audited(here, each, service_url, ignore))
    problems = _together([problem for _, wrong in found for problem in wrong], here)
    asked = sum(count for count, _ in found if count is not None)
    unknown = sum(count is None for count, _ in found)
    states = {
        plugin.name: "unknown" if count is None else "vulnerable" if wrong else "ok"
        for plugin, (count, wrong) in zip(chosen, found, strict=True)
    }
    verdict = counted(sum(problem.code != "audit-unknown" for problem in problems), "finding")
    text = f"audited {len(chosen) - unknown} of {len(chosen)} locks, {counted(asked, 'package')}: {verdict}"
    result = {"plugins": [{"plugin": name, "state": state} for name, state in states.items()], "packages": asked}
    return Outcome("audit", here.profile.name, result, problems, (text,))


def _together(problems: Sequence[Problem], here: Open) -> tuple[Problem, ...]:
    """Problems with one for all plugins of which nothing is known for the same reason."""
    causes: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.code == "audit-unknown":
            causes.setdefault(problem.message, []).append(problem)
    found = [problem for problem in problems if problem.code != "audit-unknown"]
    for message, alike in causes.items():
        names = [problem.entry or "" for problem in alike]
        if len(names) == 1:
            found += alike
        else:
            hint = f"envbuilder audit --profile {here.profile.name}  # once the service can be reached"
            found.append(Problem("audit-unknown", f"{', '.join(names)}: {message}", hint=hint))
    return tuple(found)


def _audited(here: Open, plugin: Entry, service: str | None, ignore: Sequence[str]) -> tuple[int | None, list[Problem]]:
    """How many packages of a lock were asked about, None where nobody answered, and what is wrong."""
    from envbuilder import uv
    from envbuilder.lock.files import lock_folder

    folder = lock_folder(here.workspace, here.profile, plugin.name)
    done = uv.audit(folder, service=service, ignore=ignore)
    if "unrecognized subcommand" in done.stderr:
        raise ToolError("this uv has no audit", code="tool-missing", hint="python -m pip install -U uv")
    try:
        answer = json.loads(done.stdout if done.returncode in {0, 1} else "")
        findings = [*answer["vulnerabilities"], *answer["adverse_statuses"]]
        return int(answer["summary"]["audited_packages"]), [_finding(here, plugin, each) for each in findings]
    except (ValueError, KeyError, TypeError):
        hint = f"envbuilder audit --profile {here.profile.name} {plugin.name}  # once the service can be reached"
        problem = uv.explain(done, plugin.name, "audit-unknown", hint=hint)
        message = f"nothing is known of its packages: {problem.message}"
        return None, [Problem("audit-unknown", message, plugin.name, hint=hint)]


def _finding(here: Open, plugin: Entry, found: Mapping[str, object]) -> Problem:
    package = found.get("dependency", found)
    named = f"{package.get('name')} {package.get('version')}" if isinstance(package, Mapping) else str(package)
    if "id" not in found:
        status = ": ".join(str(found[key]) for key in ("status", "reason") if found.get(key))
        hint = f"envbuilder why --profile {here.profile.name} {plugin.name} {named.split()[0]}"
        return Problem("package-status", f"{named}: {status}", plugin.name, hint=hint)
    names, fixes = _texts(found.get("aliases")), _texts(found.get("fix_versions"))
    also = f" ({', '.join(names)})" if names else ""
    fixed = f"; fixed in {', '.join(fixes)}" if fixes else "; no fix is out"
    hint = f"envbuilder lock --profile {here.profile.name} --upgrade-package {named.split()[0]} {plugin.name}"
    if not fixes:
        hint = f"envbuilder audit --profile {here.profile.name} --ignore {found['id']}  # if it can be lived with"
    where = str(found["link"]) if found.get("link") else None
    return Problem(
        "vulnerable", f"{named}: {found['id']}{also}: {found.get('summary')}{fixed}", plugin.name, where, hint
    )


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []
