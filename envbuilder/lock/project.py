"""The uv project that stands for one plugin: its text, and the digest of everything that its lock follows from. Pure."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import parse_qsl

import tomlkit
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from envbuilder import accelerators
from envbuilder.compat import accepts, requested, requirement_on
from envbuilder.config import python_specifier
from envbuilder.models import DEFAULT_BRANCH, Entry, GitSource, Metadata, PathSource, Pin, Profile, PypiSource, Registry
from envbuilder.uv import default_index, index_tables
from envbuilder.variables import for_builds

# Changes when a lock of an earlier envbuilder has to be written anew.
_FORMAT = 1


@dataclass(frozen=True)
class Member:
    """A registry entry in a plugin's closure.

    Attributes:
        entry: the entry.
        metadata: what its package declares.
        pin: what a git entry was resolved to.
        code: digest of a path entry's ``pyproject.toml``; its lock follows from that file.
        extras: the extras that the registry or another member asks of it.
    """

    entry: Entry
    metadata: Metadata
    pin: Pin | None = None
    code: str | None = None
    extras: frozenset[str] = frozenset()


def closure(
    plugin: Entry, registry: Registry, member: Callable[[Entry], Member], also: Iterable[Entry] = ()
) -> tuple[Member, ...]:
    """The plugin and those registry entries that it depends on, directly or through one another; plugin first.

    Args:
        plugin: whose closure.
        registry: all entries.
        member: makes an entry definite.
        also: entries known to be in it, which no metadata at hand names.
    """
    found: dict[str, Member] = {}
    queue: list[tuple[str, frozenset[str]]] = [(entry.name, frozenset()) for entry in (plugin, *also)]
    while queue:
        name, asked = queue.pop(0)
        entry = registry.get(name)
        if entry is None or (name in found and asked <= found[name].extras):
            continue
        base = found.get(name) or member(entry)
        found[name] = replace(base, extras=base.extras | asked | set(entry.extras))
        # What another entry `requires` counts in its own environment only.
        wanted = (*(base.metadata.dependencies or ()), *(entry.requires if name == plugin.name else ()))
        queue.extend(requested(wanted, found[name].extras))
    siblings = sorted((item for name, item in found.items() if name != plugin.name), key=lambda item: item.entry.name)
    return (found[plugin.name], *siblings)


def contradictions(members: tuple[Member, ...], python: str, core: Mapping[str, str]) -> Iterator[str]:
    """Where a member's package asks for another version of a sibling than the one that the registry names.

    A git or path source has one version, and uv drops what is said of it once it is overridden.
    """
    for sibling in members[1:]:
        version = sibling.metadata.version
        if sibling.entry.name in core or version is None:
            continue
        for item in members:
            lines = (*(item.metadata.dependencies or ()), *(item.entry.requires if item is members[0] else ()))
            wanted = requirement_on(sibling.entry.name, lines, extras=item.extras, python=python)
            if wanted and not accepts(wanted, version):
                yield f"{item.entry.name} needs {sibling.entry.name} {wanted}, the registry has {version}"


@dataclass(frozen=True)
class Settled:
    """What a project says that neither registry nor metadata tell.

    Attributes:
        backends: the versions of build backends that were current when the plugin was locked.
        torch: those packages in the closure that come from an index for each of the plugin's torch backends.
        aligned: what the plugin's align groups agreed on.
        built: those packages in the closure that are built, members left out.
    """

    backends: Sequence[str] = ()
    torch: Collection[str] = ()
    aligned: Sequence[str] = ()
    built: Collection[str] = ()


def render(
    members: tuple[Member, ...],
    profile: Profile,
    folder: str,
    core: Mapping[str, str],
    settled: Settled,
) -> str:
    """The text of the generated ``pyproject.toml``.

    Args:
        members: the closure, plugin first.
        profile: the profile.
        folder: where the project will stand, relative to the workspace.
        core: the core distributions; what the members say of them is judged by `check`, not by the resolver.
        settled: what is known besides.
    """
    plugin, torch = members[0].entry, settled.torch
    offered = torch_backends(plugin, profile) if torch else ()
    document = tomlkit.document()
    document.add(tomlkit.comment("Generated by `envbuilder lock` from profiles/registry; do not edit."))
    document.add(tomlkit.nl())
    document["project"] = {
        # Not a distribution's name: uv refuses a project that depends on itself.
        "name": f"envbuilder-env-{plugin.name}",
        "version": "0",
        "requires-python": python_specifier(plugin.python or profile.python),
        **_dependencies([_dependency(members[0]), *plugin.requires], offered, torch),
    }
    settings: dict[str, object] = {"package": False}
    if profile.exclude_newer:
        settings["exclude-newer"] = profile.exclude_newer
    if overrides := [_dependency(item) for item in members[1:]]:
        # A sibling's source is the registry's, whatever another package's own metadata says.
        settings["override-dependencies"] = _lines(overrides)
    if constraints := [*_sibling_constraints(members, core), *settled.aligned]:
        settings["constraint-dependencies"] = _lines(constraints)
    if excluded := [*plugin.exclude, *sorted(plugin.provided)]:
        settings["exclude-dependencies"] = _lines(excluded)
    settings |= _build_settings(members, profile, settled)
    if len(offered) > 1:
        settings["conflicts"] = [_lines(_inline({"extra": name}) for name in offered)]
    sources: dict[str, object] = {item.entry.name: table for item in members if (table := _source(item.entry, folder))}
    if sources | (chosen := _torch_sources(offered, torch)):
        settings["sources"] = sources | chosen
    if tables := [*index_tables(profile), *_torch_indexes(offered, profile)]:
        settings["index"] = _tables(tables)
    document["tool"] = {"uv": settings}
    return tomlkit.dumps(document)


def _build_settings(members: tuple[Member, ...], profile: Profile, settled: Settled) -> dict[str, object]:
    """What a generated project says of builds: constraints, requirements that packages forget, variables."""
    plugin = members[0].entry
    settings: dict[str, object] = {}
    if build_constraints := [*profile.build_constraints, *settled.backends]:
        settings["build-constraint-dependencies"] = _lines(build_constraints)
    if plugin.no_build_isolation:
        settings["extra-build-dependencies"] = {
            name: [_build_requirement(text) for text in texts] for name, texts in plugin.no_build_isolation.items()
        }
    if named := build_variables(members, settled.built):
        settings["extra-build-variables"] = {name: dict(each) for name, each in named.items()}
    return settings


def _dependencies(wanted: list[str], offered: Collection[str], torch: Collection[str]) -> dict[str, object]:
    if not offered:
        return {"dependencies": _lines(wanted)}
    # All behind the extras, so that nothing is resolved that no backend asks for.
    extras = {name: _lines([*wanted, *(() if name == accelerators.DEFAULT else sorted(torch))]) for name in offered}
    return {"dependencies": _lines([]), "optional-dependencies": extras}


def _build_requirement(text: str) -> object:
    # uv takes the environment's own version of what is named without one.
    if Requirement(text).specifier:
        return text
    return _inline({"requirement": text, "match-runtime": True})


def build_variables(members: tuple[Member, ...], built: Collection[str]) -> dict[str, dict[str, str]]:
    """The variables that entries add to builds, by package: a member gets its own entry's, what else is built the plugin's.

    uv keeps what it built with some variables apart from what it built with others, or none.
    """
    plugin = members[0].entry
    known = {item.entry.name for item in members if not isinstance(item.entry.source, PypiSource)}
    others = {*built, *plugin.no_build_isolation} - known
    envs = {item.entry.name: item.entry.env for item in members if item.entry.name in known}
    found = {name: for_builds(env) for name, env in {**envs, **dict.fromkeys(others, plugin.env)}.items()}
    return {name: found[name] for name in sorted(found) if found[name]}


def built_from_source(packages: Iterable[LockedPackage]) -> frozenset[str]:
    """The packages of a lock that are built: without a wheel, or from a git or a folder."""
    return frozenset(each.name for each in packages if not each.wheels and "virtual" not in each.source)


def missing_at_build(plugin: Entry, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Which packages are to be built with something, at the environment's version, that the environment lacks."""
    for built, texts in plugin.no_build_isolation.items():
        for needed in map(Requirement, texts):
            if built in names and not needed.specifier and canonicalize_name(needed.name) not in names:
                yield built, needed.name


def while_resolving(text: str, members: tuple[Member, ...]) -> str:
    """A generated project's text as uv resolves it: there are no versions yet for a build to match.

    A package that tells of its dependencies only when it is built is built once for that, with versions that the
    members' own requirements allow.
    """
    plugin = members[0].entry
    if not plugin.no_build_isolation:
        return text
    lines = [line for item in members for line in item.metadata.dependencies or ()] + list(plugin.requires)
    extras = {extra for item in members for extra in item.extras}
    document = tomlkit.parse(text)
    document["tool"]["uv"]["extra-build-dependencies"] = {
        name: [
            text if Requirement(text).specifier else f"{text}{requirement_on(text, lines, extras=extras) or ''}"
            for text in texts
        ]
        for name, texts in plugin.no_build_isolation.items()
    }
    return tomlkit.dumps(document)


def left_out(plugin: Entry) -> frozenset[str]:
    """The distributions that a plugin's lock is not to hold."""
    return frozenset({*map(str, map(canonicalize_name, plugin.exclude)), *plugin.provided})


def torch_backends(plugin: Entry, profile: Profile) -> tuple[str, ...]:
    """The backends that a plugin's lock is to offer if torch is in it; none where torch is locked like the rest."""
    return () if "torch" in left_out(plugin) else accelerators.offered(plugin.torch, profile.torch_backends)


def declared_torch(members: tuple[Member, ...], python: str) -> frozenset[str]:
    """Of the packages that torch's indexes serve, those that a closure's metadata names."""
    return frozenset(
        name
        for name in accelerators.PACKAGES
        for item in members
        for lines in [(*(item.metadata.dependencies or ()), *(item.entry.requires if item is members[0] else ()))]
        if requirement_on(name, lines, extras=item.extras, python=python) is not None
    )


def _torch_sources(offered: Collection[str], torch: Collection[str]) -> dict[str, object]:
    """Each package from the index of the extra that is asked for."""
    served = [name for name in offered if name != accelerators.DEFAULT]
    rows = [{"index": f"pytorch-{name}", "extra": name} for name in served]
    return {package: _lines(map(_inline, rows)) for package in sorted(torch)} if rows else {}


def _torch_indexes(offered: Collection[str], profile: Profile) -> Iterator[dict[str, object]]:
    for name in offered:
        if name != accelerators.DEFAULT:
            url = accelerators.index_url(name, profile.torch_index_url)
            yield {"name": f"pytorch-{name}", "url": url, "explicit": True}


def _tables(tables: Iterable[Mapping[str, object]]) -> tomlkit.items.AoT:
    array = tomlkit.aot()
    for table in tables:
        array.append(tomlkit.item(dict(table)))
    return array


def _inline(table: Mapping[str, object]) -> tomlkit.items.InlineTable:
    inline = tomlkit.inline_table()
    inline.update(dict(table))
    return inline


def reusing_answers(text: str, hold_s: int) -> str:
    """A generated project's text that lets uv reuse an index's answers for some seconds; none where 0.

    Only while resolving: the setting changes nothing of what a lock holds, and would age in a committed file.
    """
    if not hold_s:
        return text
    table = "[[tool.uv.index]]\n"
    setting = f'cache-control = {{ api = "max-age={hold_s}" }}\n'
    if "default = true" not in text:
        text += f'\n{table}url = "{default_index()}"\ndefault = true\n'
    return text.replace(table, table + setting)


def _lines(values: object) -> tomlkit.items.Array:
    array = tomlkit.array()
    array.extend(values)  # type: ignore[arg-type]
    return array.multiline(len(array) > 1)


def _dependency(item: Member) -> str:
    entry = item.entry
    # An override drops the extras that dependents ask for, so it has to name them all.
    shown = f"[{','.join(sorted(item.extras))}]" if item.extras else ""
    return f"{entry.name}{shown}{entry.source.specifier if isinstance(entry.source, PypiSource) else ''}"


def _sibling_constraints(members: tuple[Member, ...], core: Mapping[str, str]) -> list[str]:
    # An override drops what dependents say of a sibling's version; this puts it back.
    siblings = {item.entry.name for item in members[1:]} - set(core)
    found: set[str] = set()
    for item in members:
        for text in item.metadata.dependencies or ():
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue
            name = str(canonicalize_name(requirement.name))
            if name in siblings and requirement.specifier and "extra" not in str(requirement.marker or ""):
                marker = f" ; {requirement.marker}" if requirement.marker else ""
                found.add(f"{name}{requirement.specifier}{marker}")
    return sorted(found)


def _source(entry: Entry, folder: str) -> dict[str, object] | None:
    match entry.source:
        case GitSource(url, kind, ref, subdirectory):
            table: dict[str, object] = {"git": url, kind: ref}
            if subdirectory:
                table["subdirectory"] = subdirectory
            if entry.source.lfs:
                table["lfs"] = True
        case PathSource(path):
            relative = PurePosixPath(os.path.relpath(path, folder))
            table = {"path": str(relative), "editable": True}
        case PypiSource():
            return None
    return _inline(table)


def render_scratch(requirements: Iterable[str], constraints: Iterable[str], python: str, profile: Profile) -> str:
    """The text of a project that is resolved only to see which versions come out."""
    settings: dict[str, object] = {"package": False, "constraint-dependencies": list(constraints)}
    if profile.exclude_newer:
        settings["exclude-newer"] = profile.exclude_newer
    if tables := index_tables(profile):
        settings["index"] = tables
    project = {"name": "envbuilder-scratch", "version": "0", "requires-python": python}
    return tomlkit.dumps({"project": {**project, "dependencies": list(requirements)}, "tool": {"uv": settings}})


def inputs_digest(
    text: str, members: tuple[Member, ...], core: Mapping[str, str], *, aligned: Mapping[str, bool] | None = None
) -> str:
    """The digest of all that a lock follows from: the generated project, the pins, path metadata, entry, core.

    `aligned` are the plugin's align groups, and whether they have been resolved.
    """
    facts: dict[str, object] = {
        "format": _FORMAT,
        "project": text,
        "core": dict(core),
        "members": [
            [item.entry.name, item.entry.core, item.pin.commit if item.pin else None, item.code] for item in members
        ],
    }
    if aligned:
        facts["align"] = dict(aligned)
    return digest(json.dumps(facts, sort_keys=True).encode())


def digest(data: bytes) -> str:
    """A digest as it is written in files: its kind and the hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def edit_hint(entry: Entry, key: str = "source") -> str:
    """A command that opens an entry's file where one of its keys stands."""
    file, _, rest = entry.at(key).partition(":")
    return f"${{EDITOR:-vi}} +{rest.split(':')[0] or 1} {shlex.quote(file)}"


# Bytes. Locks of the largest closures have some 2 MB.
LARGEST_LOCK = 32_000_000

_LOCKED_GIT = re.compile(r"(?P<url>[^?#]+)(\?(?P<query>[^#]*))?#(?P<commit>[0-9a-f]{40})")


@dataclass(frozen=True)
class LockedPackage:
    """One package of a ``uv.lock``; `commit` for git sources, `version` None where it is dynamic.

    `wheels` tells whether it has any; a package without is built. `hashed` tells whether the lock holds the digest of
    every file of it.
    """

    name: str
    version: str | None
    source: Mapping[str, str]
    wheels: bool = False
    hashed: bool = False

    @property
    def commit(self) -> str | None:
        found = _LOCKED_GIT.fullmatch(self.source.get("git", ""))
        return found["commit"] if found else None

    @property
    def git(self) -> GitSource | None:
        """Its git source; the kind of a ref that is no full commit, and was written as a ``rev``, is not known."""
        found = _LOCKED_GIT.fullmatch(self.source.get("git", ""))
        return git_source(found["url"], dict(parse_qsl(found["query"] or ""))) if found else None

    def names(self, pin: Pin) -> bool:
        """Whether its source is the tag, commit or branch of a pin, whatever that is by now."""
        found = _LOCKED_GIT.fullmatch(self.source.get("git", ""))
        return found is not None and (pin.ref_kind, pin.ref) in parse_qsl(found["query"] or "")


def git_source(url: str, said: Mapping[str, object]) -> GitSource:
    """A git source as uv's tables say it: ``tag``, ``branch`` or ``rev``, else the remote's default branch."""
    kind = next((kind for kind in ("tag", "branch", "rev") if kind in said), None)
    ref = str(said[kind]) if kind else DEFAULT_BRANCH
    return GitSource(url, kind or "branch", ref, str(said.get("subdirectory") or ""), said.get("lfs") in {True, "true"})


def locked_packages(document: Mapping[str, object]) -> tuple[LockedPackage, ...]:
    """The packages of a parsed ``uv.lock``.

    Raises:
        ValueError: it is no lock of uv's.
    """
    packages = document.get("package")
    if not isinstance(packages, list):
        raise ValueError("no packages in it")
    try:
        return tuple(_locked_package(item) for item in packages)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a package in it has an unexpected form: {error!r}") from error


def _locked_package(item: Mapping[str, object]) -> LockedPackage:
    name, version, source = item["name"], item.get("version"), item["source"]
    if not isinstance(name, str) or not isinstance(version, str | None) or not isinstance(source, Mapping):
        raise TypeError(name)
    wheels, sdist = item.get("wheels"), item.get("sdist")
    files = [*(wheels if isinstance(wheels, list) else ()), *([sdist] if isinstance(sdist, Mapping) else ())]
    hashed = bool(files) and all("hash" in file for file in files)
    return LockedPackage(
        name, version, {str(key): str(value) for key, value in source.items()}, "wheels" in item, hashed
    )
