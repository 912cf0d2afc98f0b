"""`doctor`: whether this machine and this workspace have what they need, each line with its remedy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Open, Settings, common
from envbuilder.errors import EnvbuilderError, Problem
from envbuilder.places import ELSEWHERE

if TYPE_CHECKING:
    from envbuilder.render import Outcome

# Less than this free in the state folder, and one torch environment does not fit.
_LOW_BYTES = 6 * 2**30


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what, ``ok``, ``warn`` or ``fail``, what was found, and a command that helps."""

    what: str
    state: str
    found: str
    remedy: str | None = None


@click.command()
@common
def doctor(settings: Settings) -> Outcome:
    """Look at uv, git, interpreters, GPUs, file systems and state: a line each, with the remedy."""
    from envbuilder.render import Outcome, Table

    here = settings.open()
    findings = [*_tools(), *_interpreters(here), *_gpus(), *_disks(here)]
    severity = {"warn": "warning", "fail": "error"}
    problems = tuple(
        Problem(f"doctor-{each.what.split()[0]}", each.found, hint=each.remedy, severity=severity[each.state])
        for each in findings
        if each.state != "ok"
    )
    rows = tuple((each.state, each.what, each.found) for each in findings)
    plain = [{"what": each.what, "state": each.state, "found": each.found, "remedy": each.remedy} for each in findings]
    return Outcome(
        "doctor",
        here.profile.name,
        result={"findings": plain},
        problems=problems,
        text=(Table(("", "what", "found"), rows),),
    )


def _tools() -> Iterator[Finding]:
    from envbuilder import uv

    try:
        path = uv.find_uv()
        version = ".".join(map(str, uv.version_of(path)))
        yield Finding(
            "uv", "ok" if version else "fail", f"{version or 'does not answer'} ({path})", f"{path} --version"
        )
    except EnvbuilderError as error:
        yield Finding("uv", "fail", error.message, error.hint)
    git = shutil.which("git")
    yield Finding("git", "ok" if git else "fail", git or "not on PATH", "git --version")


def _interpreters(here: Open) -> Iterator[Finding]:
    from envbuilder import uv
    from envbuilder.config import python_specifier

    requests = {python_specifier(plugin.python or here.profile.python) for plugin in here.registry.plugins}
    for request in sorted(requests or {python_specifier(here.profile.python)}):
        try:
            found = uv.find_python(request, offline=True)
            yield Finding(f"python {request}", "ok", f"{found.version} ({found.path})")
        except EnvbuilderError as error:
            yield Finding(f"python {request}", "warn", f"{error.message}; build fetches it", error.hint)


def _gpus() -> Iterator[Finding]:
    from envbuilder import gpus

    try:
        driver = gpus.read()
    except EnvbuilderError as error:
        yield Finding("gpu", "warn", error.message, error.hint)
        return
    if driver is None:
        yield Finding("gpu", "ok", "no NVIDIA driver")
        return
    names = ", ".join(gpu.name for gpu in driver.gpus) or "no GPU"
    yield Finding("gpu", "ok", f"{names} (driver {driver.version}, CUDA {'.'.join(map(str, driver.cuda))})")


def _disks(here: Open) -> Iterator[Finding]:
    from envbuilder import uv
    from envbuilder.store.collecting import human
    from envbuilder.store.syncing import LINK_NOTES, try_links

    shared = here.workspace.shared
    try:
        shared.mkdir(parents=True, exist_ok=True)
        writable = os.access(shared, os.W_OK)
        free = shutil.disk_usage(shared).free
    except OSError as error:
        yield Finding("state", "fail", f"{shared}: {error.strerror}", ELSEWHERE)
        return
    yield Finding("state", "ok" if writable else "fail", str(shared), ELSEWHERE)
    low = free < _LOW_BYTES
    yield Finding("disk", "warn" if low else "ok", f"{human(free)} free", "envbuilder gc --keep 1" if low else None)
    if writable:
        cache = uv.cache_folder()
        mode = try_links(cache, shared)
        remedy = f"export ENVBUILDER_HOME={cache.parent / 'envbuilder'}" if mode == "copy" else None
        yield Finding("links", "warn" if mode == "copy" else "ok", LINK_NOTES[mode], remedy)
