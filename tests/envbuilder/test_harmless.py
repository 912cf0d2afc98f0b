"""Text that is not ours reaches no terminal, table or spreadsheet as anything but text."""

from __future__ import annotations

import io
import json
import sys

import pytest

from envbuilder.errors import Problem, visible
from envbuilder.models import PluginOutcome
from envbuilder.render import Findings, Outcome, Progress, Table, show

# Clears the screen, sets a title, turns text around, hides it in tags, forges a line, is markup, is no character.
HOSTILE = "[red]\x1b[2J\x1b]0;title\x07\u202egpj\u2066\u200f\x9b1m\u2028\U000e0041\ud800\r[/red]"
ACTING = "\x1b\x07\x9b\r\u202e\u2066\u200f\u2028\U000e0041\ud800"


class Terminal(io.StringIO):
    """A terminal that keeps what it is sent."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def _shown(monkeypatch: pytest.MonkeyPatch, kind: type[io.StringIO], output: str = "text") -> str:
    out, err = kind(), kind()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "300")
    problem = Problem(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    table = Table((HOSTILE, "b"), ((HOSTILE, HOSTILE),), frozenset({"b"}), HOSTILE)
    findings = Findings((("warn", HOSTILE, HOSTILE, HOSTILE),))
    outcome = Outcome("look", "prod", {"text": HOSTILE}, (problem,), (table, findings, HOSTILE))
    show(outcome, output=output, quiet=False)
    if output == "text":
        with Progress("build", (HOSTILE,), silent=False) as progress:
            progress.report(PluginOutcome(HOSTILE, "building", detail=HOSTILE))
            progress.report(PluginOutcome("", "fetching", detail=HOSTILE))
    return out.getvalue() + err.getvalue()


def test_nothing_acts_in_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables, findings, problems, lines and progress in a pipe."""
    shown = _shown(monkeypatch, io.StringIO)
    assert not set(shown) & set(ACTING)
    assert "[red]\\x1b[2J" in shown


def test_nothing_acts_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal only the escapes of the display itself are left, and markup stays text."""
    shown = _shown(monkeypatch, Terminal)
    assert not set(shown) & set(ACTING.replace("\x1b", "").replace("\r", ""))
    assert "\x1b[2J" not in shown
    assert "\x1b]0;" not in shown
    assert "[red]\\x1b[2J" in shown


def test_json_holds_the_values_and_nothing_that_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would act stands there as JSON's own escapes, and reads back as it was."""
    shown = _shown(monkeypatch, io.StringIO, "json")
    assert not set(shown) & set(ACTING)
    assert json.loads(shown)["result"]["text"] == HOSTILE


def test_a_line_stays_one() -> None:
    """Whatever is part of a line cannot begin another."""
    assert visible("a\nerror[x]: b\tc", line=True) == "a\\nerror[x]: b\\tc"
    assert visible("a\nb") == "a\nb"
