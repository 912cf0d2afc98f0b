"""Terminals of all sorts: narrow ones, ones without colours; and more detail where it is asked for."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping

import pytest
from workshop import Workshop

from envbuilder.render import Outcome, Table, show

URL = "https://git.example.org/ocr-crnn-with-a-long-name.git"


def on_terminal(shop: Workshop, columns: int, *words: str, env: Mapping[str, str] | None = None) -> str:
    """What a command shows on a terminal of that width."""
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    kept = {"TERM": "xterm-256color", **(env or {})}
    environment = {key: value for key, value in shop.environment(kept).items() if key not in {"COLUMNS", "CI"}}
    process = subprocess.Popen(
        shop.argv(*words), cwd=shop.work, env=environment, stdin=other, stdout=other, stderr=other
    )
    os.close(other)
    shown = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:  # Linux says so of a terminal that nobody holds any more.
            break
        if not part:
            break
        shown += part
    process.wait(timeout=60)
    os.close(main)
    return shown.decode().replace("\r\n", "\n")


@pytest.fixture
def shop(workshop: Workshop) -> Workshop:
    """A workspace with two plugins, of which one has a long name."""
    workshop.entry("ocr-crnn-with-a-long-name")
    workshop.entry("tiny", tag="v1")
    return workshop


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_tables_keep_words_whole_on_narrow_terminals(shop: Workshop, columns: int) -> None:
    """Where the columns do not fit, each row stands by itself; addresses stay in one piece."""
    shown = on_terminal(shop, columns, "status", env={"NO_COLOR": "1"})
    assert "ocr-crnn-with-a-long-name\n" in shown
    assert f"  source       {URL} tag v0.1.0\n" in shown
    assert "  environment  lock-missing: no lock\n" in shown


def test_tables_are_tables_where_they_fit(shop: Workshop) -> None:
    """On a wide terminal a row is a line."""
    shown = on_terminal(shop, 160, "status", env={"NO_COLOR": "1"})
    assert any(URL in line and "inference" in line and "no lock" in line for line in shown.splitlines())


@pytest.mark.parametrize("columns", range(70, 130, 6))
def test_no_address_is_broken_at_any_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a terminal where a row is a line and one where it is a block, only words part."""
    table = Table(("plugin", "source", "n", "state"), (("tiny", f"{URL} tag v1", "12", "lock-missing: no lock"),))
    for name, value in {"COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    shown = printed(table, Terminal())
    assert URL in shown
    assert all(len(line) <= columns for line in shown.splitlines())


def test_narrow_terminals_do_without_what_can_be_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """One column after the other, as far as that makes it a table; where it does not, all of them are told."""
    rows = (("20261123T085030Z-demo-012327", "2026-11-23 08:50:30", "ok", "abc"),)
    table = Table(("run", "started", "status", "name"), rows, spare=("started", "name"))
    for name, value in {"TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    shown = {}
    for columns in (70, 58, 47, 30):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown[columns] = printed(table, Terminal()).split()
    assert shown[70][:4] == ["run", "started", "status", "name"]
    assert shown[58][:3] == ["run", "status", "name"]
    assert shown[47][:3] == ["run", "status", "name"]
    assert "started" in shown[30]


def test_tables_in_a_pipe_are_a_line_a_row_without_padding() -> None:
    """However long the row is: `grep` and `awk` see it whole."""
    rows = (("tiny", "word " * 100, "x"), ("b", "", ""))
    lines = printed(Table(("plugin", "source", "n"), rows), io.StringIO()).splitlines()
    assert [line for line in lines if line.startswith(" tiny")] == [f" tiny     {'word ' * 100}   x"]
    assert not [line for line in lines if line != line.rstrip()]


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def printed(table: Table, out: io.StringIO) -> str:
    """What is printed of a table."""
    with contextlib.redirect_stdout(out):
        show(Outcome("x", "", text=(table,)), output="text", quiet=False)
    return out.getvalue()


@pytest.mark.parametrize("words", [["status"], ["lock", "tyni"], ["build"], ["doctor", "--offline"]])
def test_no_color_leaves_no_style(shop: Workshop, words: list[str]) -> None:
    """With NO_COLOR no escape that styles is written; without it, some are."""
    plain = on_terminal(shop, 100, *words, env={"NO_COLOR": "1"})
    assert "\x1b[" not in plain.replace("\x1b[?25l", "").replace("\x1b[?25h", "").replace("\x1b[2K", "").replace(
        "\x1b[1A", ""
    )
    assert "\x1b[1" in on_terminal(shop, 100, *words)


def test_verbose_shows_the_commands_that_are_run(workshop: Workshop) -> None:
    """On stderr, as a shell would take them; results and JSON on stdout are the same; -vv tells the ends."""
    workshop.plugin("alpha")
    ran = workshop.within("lock", "-v", "--format", "json")
    assert ran.status == 0
    assert ran.json["ok"] is True
    lines = [line for line in ran.err.splitlines() if line.startswith("$ ")]
    assert any("git " in line and " fetch " in line for line in lines)
    assert any(" lock " in line and "uv" in line for line in lines)
    assert not any("exit 0" in line for line in lines)
    assert "exit 0, " in workshop.within("lock", "-vv", "--upgrade").err
    assert "$ " not in workshop.within("lock", "--upgrade").err
