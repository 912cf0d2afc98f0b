"""Report plugin that writes one self-contained HTML file."""

from html_report.params import ParameterError
from html_report.plugin import HtmlReport

__version__ = "0.2.4"

__all__ = ["HtmlReport", "ParameterError", "__version__"]
