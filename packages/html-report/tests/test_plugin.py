"""The plugin as the runner uses it."""

from pathlib import Path

import pytest
from documents import small
from vlm_core import Context, ReportPlugin

from html_report import HtmlReport, ParameterError


def test_plugin_fits_the_contract() -> None:
    """The class is a report plugin by its methods."""
    assert isinstance(HtmlReport(), ReportPlugin)


def test_report_replaces_the_one_before(tmp_path: Path) -> None:
    """Rendering again gives the same bytes in the same file, and leaves nothing else behind."""
    plugin = HtmlReport()
    plugin.load(Context(output=tmp_path / "report.html"))
    plugin.render(small())
    first = (tmp_path / "report.html").read_bytes()
    plugin.render(small())
    assert (tmp_path / "report.html").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_report_that_cannot_be_written_raises(tmp_path: Path) -> None:
    """A folder that isn't there is an error of the task, not a lost report."""
    plugin = HtmlReport()
    plugin.load(Context(output=tmp_path / "missing" / "report.html"))
    with pytest.raises(OSError, match="missing"):
        plugin.render(small())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"example": 3}, "unknown parameter 'example'; known: examples"),
        ({"examples": -1}, "examples: expected a whole number from 0; found -1"),
        ({"examples": True}, "examples: expected a whole number"),
        ({"examples": "8"}, "examples: expected a whole number"),
    ],
)
def test_wrong_parameters_are_refused(tmp_path: Path, params: dict[str, object], message: str) -> None:
    """A parameter that can't be taken is named with what was expected."""
    with pytest.raises(ParameterError, match=message):
        HtmlReport().load(Context(params=params, output=tmp_path / "report.html"))


def test_calls_in_the_wrong_order_are_told() -> None:
    """Rendering needs load, and load needs an output."""
    with pytest.raises(RuntimeError, match="before load"):
        HtmlReport().render(small())
    with pytest.raises(ValueError, match="names no output"):
        HtmlReport().load(Context())
