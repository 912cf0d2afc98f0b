"""Bills of materials (CycloneDX 1.5): uv's own export, completed with licences and commits, and merged. Pure.

The same lock and environment give the same bytes: no serial number, no time, and references that name packages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from email.message import Message
from typing import TypeAlias

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from envbuilder.lock.graph import Graph

# JSON as it was read; uv gives it its shape, and the schema holds it to it.
Bill: TypeAlias = dict[str, object]

_LONGEST_NAME = 100
_MARKER = "uv:package:marker"
UNKNOWN = "envbuilder:licence"


def complete(bill: Bill, graph: Graph, metadata: Mapping[str, Message]) -> Bill:
    """A plugin's bill with licences, commits and lasting references.

    Args:
        bill: what uv exported.
        graph: the lock, for commits.
        metadata: core metadata of what is installed, by name; licences of the rest are unknown.
    """
    commits = {package.name: package for package in graph.packages if package.commit}
    refs: dict[str, str] = {}
    components = []
    for each in _tables(bill.get("components")):
        found = dict(each)
        name, version = str(found["name"]), str(found.get("version", ""))
        refs[str(each["bom-ref"])] = found["bom-ref"] = str(found.get("purl") or f"{name}@{version}")
        message = metadata.get(name)
        known = licences(message) if message is not None and message["Version"] == version else []
        if known:
            found["licenses"] = known
        else:
            found["properties"] = [*_tables(found.get("properties")), {"name": UNKNOWN, "value": "unknown"}]
        if package := commits.get(name):
            url = package.source["git"].partition("?")[0].partition("#")[0]
            found["pedigree"] = {"commits": [{"uid": package.commit, "url": url}]}
            found["externalReferences"] = [*_tables(found.get("externalReferences")), {"type": "vcs", "url": url}]
        components.append(found)
    root = _root(bill)
    refs[str(root["bom-ref"])] = str(root["name"])
    root |= {"type": "application", "bom-ref": str(root["name"])}
    links = {
        refs[str(each["ref"])]: {refs[str(ref)] for ref in _list(each.get("dependsOn"))}
        for each in _tables(bill.get("dependencies"))
    }
    return _bill(bill, root, components, links)


def together(bills: Sequence[Bill]) -> Bill:
    """One plugin's bill of those for each of its torch backends: what any machine gets of its lock."""
    components: dict[str, Bill] = {}
    links: dict[str, set[str]] = {}
    for bill in bills:
        for each in _tables(bill["components"]):
            components.setdefault(str(each["bom-ref"]), each)
        for each in _tables(bill["dependencies"]):
            links.setdefault(str(each["ref"]), set()).update(map(str, _list(each.get("dependsOn"))))
    return _bill(bills[0], _root(bills[0]), components.values(), links)


def _root(bill: Bill) -> Bill:
    head = bill["metadata"]
    root = head["component"] if isinstance(head, Mapping) else {}
    return dict(root)


def merge(bills: Mapping[str, Bill], name: str) -> Bill:
    """One bill over all plugins: each package once, and under `name` the plugins' projects.

    A package that two plugins hold at one version depends on what it has in either.
    """
    components: dict[str, Bill] = {}
    links: dict[str, set[str]] = {name: {str(_root(bill)["bom-ref"]) for bill in bills.values()}}
    for bill in bills.values():
        for each in (_root(bill), *_tables(bill["components"])):
            ref = str(each["bom-ref"])
            components[ref] = _together(components.get(ref, each), each)
        for each in _tables(bill["dependencies"]):
            links.setdefault(str(each["ref"]), set()).update(map(str, _list(each.get("dependsOn"))))
    root: Bill = {"type": "application", "bom-ref": name, "name": name}
    return _bill(next(iter(bills.values())), root, list(components.values()), links)


def _together(one: Bill, other: Bill) -> Bill:
    # Conditions differ from plugin to plugin; a licence may be known through one environment alone.
    best = dict(one if "licenses" in one else other)
    if one.get("properties") != other.get("properties") and "properties" in best:
        best["properties"] = [each for each in _tables(best["properties"]) if each["name"] != _MARKER]
    if not best.get("properties", True):
        del best["properties"]
    return best


def _bill(base: Bill, root: Bill, components: Iterable[Bill], links: Mapping[str, set[str]]) -> Bill:
    head = base["metadata"]
    tools = head.get("tools", []) if isinstance(head, Mapping) else []
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"tools": tools, "component": root},
        "components": sorted(components, key=lambda each: str(each["bom-ref"])),
        "dependencies": [
            {"ref": ref, **({"dependsOn": sorted(targets)} if targets else {})}
            for ref, targets in sorted(links.items())
        ],
    }


def unknown_licences(bill: Bill) -> list[str]:
    """The packages whose licence nobody at hand knows, by name and version."""
    return [
        f"{each['name']} {each.get('version', '')}".rstrip()
        for each in _tables(bill["components"])
        if any(note.get("name") == UNKNOWN for note in _tables(each.get("properties")))
    ]


def licences(message: Message) -> list[Bill]:
    """The licences that core metadata names, as CycloneDX writes them; empty where it names none.

    ``License-Expression`` comes first, then a ``License`` that is an SPDX expression, classifiers, and a short text.
    """
    free = str(message["License"] or "").strip()
    for text in (str(message["License-Expression"] or ""), free):
        try:
            return [{"expression": str(canonicalize_license_expression(text))}]
        except InvalidLicenseExpression:
            continue
    classifiers = (str(each).split(" :: ") for each in message.get_all("Classifier") or ())
    named = [
        parts[-1] for parts in classifiers if parts[0] == "License" and len(parts) > 1 and parts[-1] != "OSI Approved"
    ]
    if not named and free and "\n" not in free and len(free) <= _LONGEST_NAME and free.upper() != "UNKNOWN":
        named = [free]
    return [{"license": {"name": each}} for each in dict.fromkeys(named)]


def _tables(value: object) -> list[Bill]:
    return [each for each in _list(value) if isinstance(each, dict)]


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
