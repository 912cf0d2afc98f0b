"""Turns a view into the text of an HTML file that needs nothing else."""

from __future__ import annotations

import base64
import gzip
import json
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from html_report import text
from html_report.view import SHARES, View


def write_page(view: View) -> str:
    """Write the page.

    Everything that comes from the run is escaped, and a content security policy in the page itself forbids every
    request, so that an answer that holds markup is shown and does nothing.

    Args:
        view: what to show.
    """
    charts = [*view.first_charts, *view.class_charts, *filter(None, [view.latency_chart])]
    return (
        _templates()
        .get_template("report.html")
        .render(
            view=view,
            shares=[name for _, name in SHARES],
            charts={chart.id: chart.spec for chart in charts},
            plotly=_packed_plotly() if charts else "",
        )
    )


@lru_cache(maxsize=1)
def _packed_plotly() -> str:
    """Pack plotly.js: 4.8 MB become 2 MB, which browsers unpack by themselves (Chrome 80, Safari 16.4, Firefox 113)."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), compresslevel=9, mtime=0)).decode("ascii")


def _visible(value: object) -> object:
    """Make a value harmless before it is written; markup stays markup."""
    if not isinstance(value, str):
        return value
    shown = text.visible(value)
    return Markup(shown) if isinstance(value, Markup) else shown  # noqa: S704 - it was markup before


def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("html_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    templates.filters |= {
        "figure": text.figure,
        "seconds": text.seconds,
        "size": text.size,
        "rate": text.rate,
        "written": lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True, default=str),
    }
    return templates
