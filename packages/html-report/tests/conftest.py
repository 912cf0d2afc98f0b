"""Rendering, for all tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from vlm_core import Context, ReportDocument

from html_report import HtmlReport

Render = Callable[..., Path]


@pytest.fixture
def render(tmp_path: Path) -> Render:
    """Give a function that renders a document with parameters and returns the file."""

    def write(document: ReportDocument, **params: object) -> Path:
        plugin = HtmlReport()
        plugin.load(Context(params=params, output=tmp_path / "report.html"))
        plugin.render(document)
        return tmp_path / "report.html"

    return write
