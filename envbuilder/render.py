"""What people and machines see: one envelope, tables, progress. Progress goes to stderr, results to stdout."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from envbuilder.errors import EXIT_FAILED, EXIT_OK, Problem, visible, visible_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text
    from typing_extensions import Self

    from envbuilder.models import PluginOutcome

_MARKS = {
    "locked": ("+", "green"),
    "built": ("+", "green"),
    "passed": ("+", "green"),
    "skipped": ("=", "dim"),
    "no tests": ("=", "yellow"),
    "unchanged": ("=", "dim"),
    "failed": ("x", "red"),
    "waiting": (".", "yellow"),
    "fetched": ("+", "green"),
    "not fetched": ("x", "red"),
}


_WHOLE = re.compile(r"/|^\d{8}T\d{6}Z-")
# A column of words is no narrower, or each of its cells becomes a tower.
_NARROW = 14
# Between two columns, and before the first.
_GAP, _EDGE = 3, 1
# How many downloads at once the live line names.
_SHOWN = 4


@dataclass(frozen=True)
class Table:
    """Rows for people; `numeric` names the columns that align right, `spare` those that narrow terminals do without."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()
    title: str = ""
    spare: tuple[str, ...] = ()


@dataclass(frozen=True)
class Findings:
    """Lines of a look at things: ``ok``, ``warn`` or ``fail``, what, what was found, and what helps where it is not ok."""

    rows: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True)
class Outcome:
    """What a command found or did.

    Attributes:
        command: its name, which names the JSON schema too.
        profile: the profile it worked in, empty where none applies.
        result: plain values, the ``result`` of the envelope.
        problems: what is wrong; an error makes the exit status 1 at least.
        text: what people see on stdout.
        exit_status: what the exit status is, should no problem be an error.
        is_told: whether the text says all that the problems say.
    """

    command: str
    profile: str
    result: Mapping[str, object] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    text: tuple[Table | Findings | str, ...] = ()
    exit_status: int = EXIT_OK
    is_told: bool = False

    @property
    def status(self) -> int:
        """The exit status. Nothing else decides it, and `ok` says the same."""
        if self.exit_status == EXIT_OK and any(problem.severity == "error" for problem in self.problems):
            return EXIT_FAILED
        return self.exit_status

    @property
    def ok(self) -> bool:
        return self.status == EXIT_OK


def envelope(outcome: Outcome) -> str:
    """The one JSON object of `--format json`."""
    document = {
        "schema": f"envbuilder/{outcome.command.replace(' ', '-')}/1",
        "ok": outcome.ok,
        "profile": outcome.profile,
        "result": dict(outcome.result),
        "problems": [asdict(problem) for problem in outcome.problems],
    }
    return visible_json(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def show(outcome: Outcome, *, output: str, quiet: bool) -> None:
    """Print an outcome: results to stdout, problems to stderr."""
    if output == "json":
        print(envelope(outcome))
        return
    if not quiet:
        for part in outcome.text:
            if isinstance(part, Table) and not part.rows:
                continue
            if isinstance(part, Table):
                _show_table(part)
            elif isinstance(part, Findings):
                _show_findings(part)
            else:
                print(visible(part))
    if outcome.problems and (quiet or not outcome.is_told):
        show_problems(outcome.problems)


def _fitted(table: Table, width: int) -> tuple[Table, list[int] | None]:
    """A table with what it can be read with at a width, whole rows before broken cells; None where it cannot be."""
    slims = [table]
    for column in table.spare:
        slims.append(_without(slims[-1], column))
    for slim in slims:
        widths = _widths(slim, None)
        if widths is not None and sum(widths) + _GAP * len(widths) - 1 <= width:
            return slim, widths
    return next(((slim, widths) for slim in slims if (widths := _widths(slim, width))), (table, None))


def _without(table: Table, column: str) -> Table:
    if column not in table.columns:
        return table
    place = table.columns.index(column)
    rows = tuple((*row[:place], *row[place + 1 :]) for row in table.rows)
    return replace(table, columns=(*table.columns[:place], *table.columns[place + 1 :]), rows=rows)


def _show_findings(findings: Findings) -> None:
    from rich.text import Text

    console = _console(stderr=False)
    widest = max((len(what) for _, what, _, _ in findings.rows), default=0)
    widest = min(widest, console.width // 4)
    for state, what, found, remedy in findings.rows:
        line = Text()
        line.append(f"{state:4}  ", style={"ok": "green", "warn": "bold yellow"}.get(state, "bold red"))
        line.append(f"{visible(what, line=True):{widest}}", style="bold")
        line.append(f"  {visible(found)}")
        place = min(8 + max(widest, len(what)), console.width // 2)
        console.print(_broken(line, console.width, place) if console.is_terminal else line, soft_wrap=True)
        if state != "ok" and remedy:
            console.print(Text(f"      hint: {visible(remedy)}", style="dim"), soft_wrap=True)


def _show_table(table: Table) -> None:
    console = _console(stderr=False)
    shown = replace(
        table,
        columns=tuple(visible(name, line=True) for name in table.columns),
        rows=tuple(tuple(visible(cell, line=True) for cell in row) for row in table.rows),
        numeric=frozenset(visible(name, line=True) for name in table.numeric),
        title=visible(table.title, line=True),
    )
    shown, widths = _fitted(shown, console.width) if console.is_terminal else (shown, _widths(shown, None))
    if widths is None:
        console.print(_records(shown, console.width), end="", soft_wrap=True)
        return
    if console.is_terminal:
        console.print(_table(shown, widths))
        return
    # In a pipe or a file a row is a line, however long, and ends with its last word.
    console.width = sum(widths) + _GAP * len(widths) + _EDGE
    with console.capture() as captured:
        console.print(_table(shown, widths))
    print("\n".join(line.rstrip() for line in captured.get().split("\n")), end="")


def show_problems(problems: Sequence[Problem]) -> None:
    """Print problems to stderr: code, entry and place, then what is wrong, then the hint."""
    from rich.text import Text

    console = _console(stderr=True)
    for problem in problems:
        colour = "red" if problem.severity == "error" else "yellow"
        line = Text(f"{problem.severity}", style=f"bold {colour}")
        line.append(f"[{visible(problem.code, line=True)}]", style=colour)
        if problem.entry:
            line.append(f" {visible(problem.entry, line=True)}", style="bold")
        if problem.where:
            line.append(f" {visible(problem.where, line=True)}", style="cyan")
        line.append(f": {visible(problem.message)}")
        console.print(_broken(line, console.width) if console.is_terminal else line, soft_wrap=True)
        if problem.hint:
            console.print(Text(f"  hint: {visible(problem.hint)}", style="dim"), soft_wrap=True)


def _broken(line: Text, width: int, indent: int = 0) -> Text:
    """A text with its lines broken between words; what has none, an address or a path, is the terminal's to break.

    A line that a terminal breaks is copied from it whole.
    """
    from rich.cells import cell_len
    from rich.text import Text

    breaks, column = [], 0
    for found in re.finditer(r"\n|( *)(\S+)", line.plain):
        if found[0] == "\n":
            column = 0
        elif column and column + cell_len(found[0]) > width:
            breaks.append(found.start(2))
            column = indent + cell_len(found[2])
        else:
            column += cell_len(found[0])
    parts = line.divide(breaks)
    for part in parts[:-1]:
        part.rstrip()
    return Text("\n" + " " * indent).join(parts)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class _Plain(Console):
        def on_broken_pipe(self) -> None:
            """Let the command line end as it does; the library would end it with 1, whatever there was to tell."""
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    # Without colours no style at all is left: NO_COLOR (no-color.org) is asked for where escapes only disturb.
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    # Off a terminal a table must not be squeezed into 80 columns: logs and pipes have no width.
    return _Plain(stderr=stderr, width=None if stream.isatty() else 200, highlight=False, color_system=colours)


def _widths(table: Table, available: int | None) -> list[int] | None:
    """How wide each column is to be in a table of a width, however wide for None; None where it cannot be read so.

    Cells may be broken between words, and within names that are long; addresses and paths stay in one piece.
    """
    from rich.cells import cell_len

    columns = [[cell_len(cell) for cell in column] for column in zip(table.columns, *table.rows, strict=True)]
    widths = [max(column) for column in columns]
    if available is None:
        return widths
    least = [
        width if name in table.numeric else min(width, max(_NARROW, *map(cell_len, _whole(cells))))
        for name, width, cells in zip(table.columns, widths, zip(table.columns, *table.rows, strict=True), strict=True)
    ]
    available -= _GAP * len(widths) - 1
    while sum(widths) > available:
        over = [width - floor for width, floor in zip(widths, least, strict=True)]
        if not any(over):
            return None
        widths[max(range(len(over)), key=lambda number: (over[number] > 0, widths[number]))] -= 1
    return widths


def _whole(cells: Sequence[str]) -> list[str]:
    """The words that must not be broken: addresses, paths, and ids of runs."""
    return [word for cell in cells for word in cell.split() if _WHOLE.search(word)] or [""]


def _records(table: Table, width: int) -> Text:
    """A table for narrow terminals: each row by itself, a line for each of its cells that holds something."""
    from rich.text import Text

    widest = max(map(len, table.columns))
    shown = Text()
    if table.title:
        shown.append(_broken(Text(f"{table.title}\n", style="italic"), width))
    for row in table.rows:
        shown.append(f"{row[0]}\n", style="bold")
        for column, cell in zip(table.columns[1:], row[1:], strict=True):
            shown.append(f"  {column:{widest}}  {cell}\n" if cell else "")
    return shown


def _table(table: Table, widths: Sequence[int]) -> RenderableType:
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    shown = RichTable(title=escape(table.title) or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column, width in zip(table.columns, widths, strict=True):
        right = column in table.numeric
        shown.add_column(
            escape(column), justify="right" if right else "left", overflow="fold", no_wrap=right, width=width
        )
    for row in table.rows:
        shown.add_row(*(escape(cell) for cell in row))
    return shown


def _plain(text: str) -> str:
    """A text in a line of the library's markup that means nothing but itself."""
    from rich.markup import escape

    return escape(visible(text, line=True))


class Progress:
    """Tells how plugins get on: a live line each on a terminal, one plain line for each event elsewhere.

    Args:
        verb: what is being done, such as ``lock``.
        plugins: the names.
        silent: whether to say nothing.
    """

    def __init__(self, verb: str, plugins: Sequence[str], *, silent: bool):
        from envbuilder.models import PluginOutcome

        self._verb = verb
        self._width = max((len(name) for name in plugins), default=0)
        self._states: dict[str, PluginOutcome] = {name: PluginOutcome(name, "…") for name in plugins}
        self._started = dict.fromkeys(plugins, time.monotonic())
        self._silent = silent
        self._downloads: dict[str, float] = {}
        self._guard = threading.Lock()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if not self._silent and sys.stderr.isatty():
            from rich.live import Live

            self._live = Live(get_renderable=self._render, console=_console(stderr=True), refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def report(self, outcome: PluginOutcome) -> None:
        """Take note of an event, of no plugin where it is a download; may be called from any thread."""
        with self._guard:
            if outcome.state == "fetching":
                self._downloads[outcome.detail] = time.monotonic()
            elif outcome.state in {"fetched", "not fetched"}:
                self._downloads.pop(outcome.detail, None)
            else:
                self._states[outcome.plugin] = outcome
            if self._live is None and not self._silent:
                print(self._line(outcome), file=sys.stderr, flush=True)

    def _line(self, outcome: PluginOutcome) -> str:
        mark = _MARKS.get(outcome.state, (">", ""))[0]
        seconds = f"  {outcome.seconds:.1f} s" if outcome.seconds >= 0.05 else ""
        detail = f"  ({outcome.detail})" if outcome.detail else ""
        text = f"{mark} {self._verb} {outcome.plugin:{self._width}}  {outcome.state}{seconds}{detail}"
        return visible(text, line=True)

    def _render(self) -> RenderableType:
        from rich.table import Table as RichTable

        grid = RichTable.grid(padding=(0, 2))
        with self._guard:
            for name, outcome in self._states.items():
                style = _MARKS.get(outcome.state, ("", "cyan"))[1]
                busy = outcome.state not in _MARKS or outcome.state == "waiting"
                seconds = time.monotonic() - self._started.get(name, 0) if busy else outcome.seconds
                shown = f"{seconds:.1f} s" if seconds >= 0.05 else ""
                grid.add_row(
                    self._verb, _plain(name), f"[{style}]{_plain(outcome.state)}[/]", shown, _plain(outcome.detail)
                )
            if self._downloads:
                seconds = time.monotonic() - min(self._downloads.values())
                names = "; ".join(list(self._downloads)[:_SHOWN])
                more = f"; and {len(self._downloads) - _SHOWN} more" if len(self._downloads) > _SHOWN else ""
                grid.add_row(self._verb, "", "[cyan]fetching[/]", f"{seconds:.1f} s", _plain(names + more))
        return grid
