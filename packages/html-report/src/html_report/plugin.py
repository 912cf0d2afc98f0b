"""The plugin class."""

from __future__ import annotations

import os
from pathlib import Path

from vlm_core import Context, ReportDocument

from html_report.page import write_page
from html_report.params import Params, read_params
from html_report.view import build_view


class HtmlReport:
    """Writes a report as one HTML file."""

    def __init__(self) -> None:
        self._params = Params()
        self._output: Path | None = None

    def load(self, context: Context) -> None:
        """Take the parameters and the output path.

        Args:
            context: its ``params`` may hold ``examples``; its ``output`` is the file to write.

        Raises:
            ParameterError: a parameter is unknown or has a value that can't be used.
            ValueError: the context names no output.
        """
        self._params = read_params(context.params)
        if context.output is None:
            raise ValueError("the context names no output: there is no file to write the report to")
        self._output = context.output

    def render(self, report: ReportDocument) -> None:
        """Write the report; what stood in the file before is replaced at once or not at all.

        Args:
            report: everything to show. Images that it names are embedded; those that can't be read are left out.

        Raises:
            OSError: the file can't be written.
            RuntimeError: `load` was not called.
        """
        if self._output is None:
            raise RuntimeError("render was called before load")
        page = write_page(build_view(report, self._params))
        unfinished = self._output.with_name(f".{self._output.name}.part")
        # Lone surrogates, which some tokenisers make, can't be encoded: they are shown as question marks.
        unfinished.write_bytes(page.encode("utf-8", errors="replace"))
        os.replace(unfinished, self._output)  # noqa: PTH105 - the name says what it does
