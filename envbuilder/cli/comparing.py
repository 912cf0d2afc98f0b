"""`diff`: two profiles, commits, generations or runs, by the packages that their plugins have."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from envbuilder.cli import words
from envbuilder.cli.base import Open, Settings, common
from envbuilder.errors import EnvbuilderError, Problem, UsageError, counted, nearest

if TYPE_CHECKING:
    from envbuilder.lock.comparing import Change, Snapshot
    from envbuilder.lock.graph import Graph
    from envbuilder.render import Outcome, Table

_PREFIXES = {"profile": "a profile", "gen": "a generation", "run": "a run", "rev": "a git revision"}


@click.command()
@click.argument("old", default="HEAD", shell_complete=words.sides)
@click.argument("new", required=False, shell_complete=words.sides)
@common
def diff(settings: Settings, old: str, new: str | None) -> Outcome:
    """Show what OLD and NEW hold differently: packages added, removed, changed, for each plugin.

    Each is a profile (dev, prod), a number (a generation), a run's id or a git revision of the workspace. A word that
    may be several of these takes a prefix: profile:dev, gen:3, run:latest, rev:HEAD~1. Without NEW: the locks as they
    are now; without OLD: those of the last commit.
    """
    from envbuilder.lock import comparing
    from envbuilder.render import Outcome

    here = settings.open()
    sides = Sides(here)
    # Telling both before reading either: a typo in the second must not wait for the first.
    readers = [sides.find(old), sides.find(new or f"profile:{here.profile.name}")]
    before, after = comparing.alike(*(read() for read in readers))
    found = comparing.changes(before, after)
    return Outcome(
        "diff",
        here.profile.name,
        result={
            "old": before.label,
            "new": after.label,
            "compared": comparing.compared(before, after),
            "changes": [plain_change(each) for each in found],
            "summary": [
                {"package": package, "old": was, "new": now, "plugins": plugins}
                for package, was, now, plugins in comparing.summary(found)
            ],
        },
        problems=tuple(_unknown(side) for side in (before, after) if side.unknown),
        text=_text(before, after, found),
    )


def plain_change(change: Change) -> dict[str, object]:
    """A change as the JSON envelope holds it."""
    old, new = change.old, change.new
    return {
        "plugin": change.plugin,
        "package": change.package,
        "change": change.kind,
        "old": old.version if old else "",
        "new": new.version if new else "",
        "old-commit": old.commit if old else None,
        "new-commit": new.commit if new else None,
        "old-origin": old.origin if old else "",
        "new-origin": new.origin if new else "",
    }


def _unknown(side: Snapshot) -> Problem:
    plugins = ", ".join(sorted(side.unknown))
    message = f"{side.label} cannot be told any more for {plugins}: the environments were collected"
    return Problem("environment-gone", message, where=side.label, hint="envbuilder generations", severity="warning")


def _text(before: Snapshot, after: Snapshot, found: list[Change]) -> tuple[Table | str, ...]:
    from envbuilder.lock.comparing import compared, summary
    from envbuilder.render import Table

    plugins = compared(before, after)
    parts: list[Table | str] = []
    for one, other in ((before, after), (after, before)):
        if lone := sorted({*one.plugins} - {*other.plugins} - {*plugins}):
            parts.append(f"only in {one.label}, not compared: {', '.join(lone)}")
    if not found:
        return (*parts, f"the same packages in {counted(len(plugins), 'plugin')}: {before.label}, {after.label}")
    parts.extend(changes_table(found, before.label, after.label))
    touched = {each.plugin for each in found}
    if len(touched) > 1:
        shown = [
            (package, old, new, str(len(names)), ", ".join(names[:4]) + (", …" if len(names) > 4 else ""))
            for package, old, new, names in summary(found)
        ]
        columns = ("package", before.label, after.label, "plugins", "")
        parts.append(Table(columns, tuple(shown), frozenset({"plugins"}), "over all"))
    kinds = [each.kind for each in found]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("added", "removed", "changed") if kind in kinds)
    parts.append(f"{len(touched)} of {counted(len(plugins), 'plugin differs', 'plugins differ')}: {counts}")
    return tuple(parts)


def changes_table(found: Sequence[Change], old: str, new: str) -> tuple[Table, ...]:
    """Changes for people; nothing where there are none. `old` and `new` head the columns of versions."""
    from envbuilder.render import Table

    rows = [(each.plugin, each.package, str(each.old or ""), str(each.new or ""), each.kind) for each in found]
    return (Table(("plugin", "package", old, new, ""), tuple(rows)),) if rows else ()


class Sides:
    """What the two words of `diff` may name.

    Args:
        here: the workspace; its profile is the one whose generations and commits are meant.
    """

    def __init__(self, here: Open):
        self._here = here
        self._kinds: Mapping[str, Callable[[str], Callable[[], Snapshot] | None]] = {
            "profile": self._profile,
            "gen": self._generation,
            "run": self._run,
            "rev": self._revision,
        }

    def find(self, word: str) -> Callable[[], Snapshot]:
        """What reads the side that a word names.

        Raises:
            UsageError: it names nothing, or more than one thing.
        """
        from envbuilder.config import PROFILES

        prefix, colon, rest = word.partition(":")
        if colon and prefix in self._kinds:
            found = self._kinds[prefix](rest)
            if found is None:
                raise UsageError(f"there is no {_PREFIXES[prefix][2:]} {rest!r}", hint=self._listing(prefix))
            return found
        # Every run's id begins with a digit: a number alone is a generation, or the beginning of a commit.
        kinds = {kind: find for kind, find in self._kinds.items() if kind != "run" or not word.isdigit()}
        meanings = {kind: found for kind, find in kinds.items() if (found := find(word)) is not None}
        if len(meanings) == 1:
            return next(iter(meanings.values()))
        if meanings:
            said = " or ".join(_PREFIXES[kind] for kind in meanings)
            written = " or ".join(f"{kind}:{word}" for kind in meanings)
            hint = f"envbuilder diff {shlex.quote(next(f'{kind}:{word}' for kind in meanings))}"
            raise UsageError(f"{word!r} may be {said}; write {written}", hint=hint)
        message = f"{word!r} is no profile, no generation of {self._here.profile.name}, no run and no git revision"
        if near := nearest(word, PROFILES):
            raise UsageError(f"{message}; nearest: {near}", hint=f"envbuilder diff {near}")
        raise UsageError(message, hint=self._listing("run" if "T" in word else "gen" if word.isdigit() else "rev"))

    def _listing(self, kind: str) -> str:
        name = self._here.profile.name
        root = shlex.quote(str(self._here.workspace.root))
        return {
            "profile": "envbuilder diff dev prod",
            "gen": f"envbuilder generations --profile {name}",
            "run": "envbuilder runs list",
            "rev": f"git -C {root} log --oneline -- profiles/{name}",
        }[kind]

    def _profile(self, word: str) -> Callable[[], Snapshot] | None:
        from envbuilder.config import PROFILES
        from envbuilder.lock.comparing import of_graphs
        from envbuilder.lock.files import lock_text

        def read() -> Snapshot:
            folder = self._here.workspace.root / "profiles" / word
            places = {
                path.parent: f"profiles/{word}/{path.parent.name}/uv.lock" for path in folder.glob("[!.]*/uv.lock")
            }
            texts = {place.name: lock_text(place, shown) for place, shown in sorted(places.items())}
            return of_graphs(word, _graphs(texts, f"profiles/{word}"))

        return read if word in PROFILES else None

    def _revision(self, word: str) -> Callable[[], Snapshot] | None:
        from envbuilder.git import History
        from envbuilder.lock.comparing import of_graphs
        from envbuilder.lock.project import LARGEST_LOCK

        history = History(self._here.workspace.root)
        commit = history.commit(word) if word else None
        if commit is None:
            return None
        profile = self._here.profile.name

        def read() -> Snapshot:
            files = [name for name in history.files(commit, f"profiles/{profile}/") if name.endswith("/uv.lock")]
            texts = {name.split("/")[-2]: text for name, text in history.texts(commit, files, LARGEST_LOCK).items()}
            return of_graphs(f"{profile} at {word}", _graphs(texts, f"{word}:profiles/{profile}"))

        return read

    def _generation(self, word: str) -> Callable[[], Snapshot] | None:
        from envbuilder.lock.comparing import Held, Snapshot
        from envbuilder.store.environments import Store
        from envbuilder.store.generations import Generations
        from envbuilder.store.installed import commits

        store = Store(self._here.workspace.shared)
        known = Generations(self._here.workspace.own, self._here.profile.name, store.folder)
        chosen = next((each for each in known.all() if str(each.number) == word), None)
        if chosen is None:
            return None

        def read() -> Snapshot:
            seals = {plugin: store.seal(key) for plugin, key in chosen.keys.items()}
            there = {plugin: seal for plugin, seal in seals.items() if seal is not None}
            plugins = {}
            for plugin, seal in there.items():
                at = commits(store.path(seal.key))
                plugins[plugin] = {
                    name: Held(value, at.get(name), "git" if name in at else "")
                    for name, value in seal.distributions.items()
                }
            pythons = {plugin: str(seal.inputs.get("python", "")) for plugin, seal in there.items()}
            return Snapshot(f"generation {word}", plugins, pythons=pythons, unknown=frozenset({*seals} - {*there}))

        return read

    def _run(self, word: str) -> Callable[[], Snapshot] | None:
        from pipeline.errors import UnknownRunError
        from pipeline.layout import find_run

        if not word:
            return None
        try:
            layout = find_run(self._here.workspace.own, word)
        except UnknownRunError:
            return None
        return lambda: _snapshot_of_run(self._here, layout.id)


def _snapshot_of_run(here: Open, run: str) -> Snapshot:
    from envbuilder.lock.comparing import Held, Snapshot
    from pipeline.cli import load_outcome
    from pipeline.layout import find_run, read_json

    layout = find_run(here.workspace.own, run)
    versions = {task.plugin: dict(task.versions) for task in load_outcome(layout).tasks}
    pins = read_json(layout.run_json).get("pins")
    pinned = {name: pin.get("commit") for name, pin in pins.items()} if isinstance(pins, dict) else {}
    plugins = {
        plugin: {
            name: Held(version, pinned.get(name), "git" if name in pinned else "")
            for name, version in held.items()
            if name != "python"
        }
        for plugin, held in versions.items()
    }
    pythons = {plugin: held.get("python", "") for plugin, held in versions.items()}
    return Snapshot(run, plugins, pythons=pythons, partial=True)


def _graphs(texts: Mapping[str, str], place: str) -> dict[str, Graph]:
    from envbuilder.errors import SeveralProblems
    from envbuilder.lock import graph

    found: dict[str, Graph] = {}
    problems: list[Problem] = []
    for name, text in texts.items():
        try:
            found[name] = graph.parse(text, f"{place}/{name}/uv.lock")
        except EnvbuilderError as error:
            problems.extend(error.problems)
    if problems:
        raise SeveralProblems(problems)
    return found
