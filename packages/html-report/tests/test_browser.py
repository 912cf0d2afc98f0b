"""The page in a real browser, with the network off."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import Render
from documents import evaluation, eventful, realistic, record, run, small, task
from playwright.sync_api import Browser, Page, sync_playwright
from vlm_core import ReportDocument

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",  # Chromium refuses to run as root with one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")]


@dataclass
class Visit:
    """An open page and what it did.

    Attributes:
        page: the page itself.
        requests: addresses that it asked for, its own file excepted.
        complaints: errors and warnings of its console, and uncaught exceptions.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start one browser for all tests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def visit(browser: Browser, path: Path, scheme: str = "light", width: int = 1360) -> Visit:
    """Open a file offline and wait until its charts are drawn."""
    context = browser.new_context(
        offline=True,
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": width, "height": 850},
    )
    found = Visit(context.new_page())
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.on("console", lambda said: found.complaints.append(f"{said.type}: {said.text}"))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.on("dialog", lambda dialog: found.complaints.append(f"dialog: {dialog.message}"))
    found.page.goto(path.as_uri())
    found.page.wait_for_selector("html[data-charts=drawn]")
    found.requests.remove(path.as_uri())
    return found


def drawn(page: Page, chart: str) -> list[str]:
    """List the marks of a chart: paths that Plotly drew for data and that have a size on the screen."""
    script = """id => [...document.querySelectorAll(`#${id} svg.main-svg .trace path`)]
        .filter(path => { const box = path.getBoundingClientRect(); return box.width + box.height > 1; })
        .map(path => path.getAttribute("d"))"""
    marks: list[str] = page.evaluate(script, chart)
    return marks


def wait_until(page: Page, expression: str, value: object) -> None:
    """Wait until an expression has a value; the page's policy rules out Playwright's own way, which needs eval."""
    for _ in range(100):
        if page.evaluate(expression) == value:
            return
        page.wait_for_timeout(50)
    pytest.fail(f"{expression} is {page.evaluate(expression)!r}, not {value!r}")


@pytest.fixture
def document(tmp_path: Path) -> ReportDocument:
    """Describe a real run."""
    return realistic(tmp_path)


def test_charts_are_drawn_offline(browser: Browser, render: Render, document: ReportDocument) -> None:
    """Every chart has its marks, and the page asked for nothing and complained of nothing."""
    found = visit(browser, render(document))
    assert len(drawn(found.page, "class-0")) >= 9
    assert len(drawn(found.page, "trade")) >= 6
    assert len(drawn(found.page, "latency")) == 3
    charts = found.page.evaluate("[...document.querySelectorAll('.plot')].map(chart => chart.id)")
    assert all(drawn(found.page, chart) for chart in charts)
    assert found.requests == []
    assert found.complaints == []


def test_images_of_examples_are_shown(browser: Browser, render: Render, document: ReportDocument) -> None:
    """Embedded images are pictures that the browser can decode."""
    found = visit(browser, render(document))
    widths = found.page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) > 10
    assert all(width > 20 for width in widths)


def test_first_screen_decides(browser: Browser, render: Render, document: ReportDocument) -> None:
    """On a laptop's screen, leaders, table and first charts are seen without scrolling."""
    found = visit(browser, render(document))
    bottom = (
        "selector => Math.max(...[...document.querySelectorAll(selector)].map(e => e.getBoundingClientRect().bottom))"
    )
    assert found.page.evaluate(bottom, ".decision") < 300
    assert found.page.evaluate(bottom, ".results") < 500
    assert found.page.evaluate(bottom, "#class-0, #trade") <= 850


def test_scheme_is_followed(browser: Browser, render: Render) -> None:
    """In the dark scheme the page is dark and chart text is light, and both follow a change."""
    found = visit(browser, render(small()), scheme="dark")
    tick = "getComputedStyle(document.querySelector('#latency .xtick text')).fill"
    paper = "getComputedStyle(document.body).backgroundColor"
    assert found.page.evaluate(paper) == "rgb(20, 23, 27)"
    assert found.page.evaluate(tick) == "rgb(154, 164, 176)"
    found.page.emulate_media(color_scheme="light")
    wait_until(found.page, tick, "rgb(92, 101, 112)")
    assert found.page.evaluate(paper) == "rgb(255, 255, 255)"


def test_narrow_screens_do_not_scroll_sideways(browser: Browser, render: Render, document: ReportDocument) -> None:
    """On a phone, wide tables scroll by themselves and the page doesn't."""
    found = visit(browser, render(document), width=400)
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 400


def test_report_prints(browser: Browser, render: Render, document: ReportDocument) -> None:
    """On paper, charts fit the page's width and are dark on white, also from a dark screen."""
    found = visit(browser, render(document), scheme="dark")
    found.page.emulate_media(media="print")
    wait_until(found.page, "document.querySelector('#class-0 svg').getBoundingClientRect().width", 680)
    assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(found.page.pdf(format="A4")) > 20_000


def test_hostile_answers_do_nothing(browser: Browser, render: Render) -> None:
    """Markup and scripts in names and answers are shown, in charts too, and neither run nor fetch anything."""
    hostile = "<img src='http://example.org/x' onerror=alert(1)><script>alert(2)</script>"
    by_item = [{"item": "1", hostile: 0.5}]
    found = visit(
        browser,
        render(
            small(
                run=run(name=hostile),
                tasks=[task("ocr-a", plugin=hostile)],
                records=[record("1", hostile, "x", doc_class=hostile)],
                evaluations=[evaluation("ocr-a", {hostile: 1.0}, by_class={hostile: {hostile: 1.0}}, by_item=by_item)],
            )
        ),
    )
    assert drawn(found.page, "class-0")
    assert hostile in found.page.inner_text("h1")
    assert found.page.evaluate("document.images.length") == 0
    assert found.requests == []
    assert found.complaints == []


def test_timeline_is_drawn_without_scripts(browser: Browser, render: Render, tmp_path: Path) -> None:
    """Bars, curves and their scales are there with JavaScript off, each bar inside its row and each label in its bar."""
    context = browser.new_context(offline=True, java_script_enabled=False, viewport={"width": 1360, "height": 850})
    page = context.new_page()
    page.goto(render(eventful(tmp_path)).as_uri())
    lanes = page.locator("svg.lane")
    assert lanes.count() == 3
    for lane in lanes.all():
        around = lane.bounding_box()
        assert around is not None
        for bar in lane.locator(".edge").all():
            box = bar.bounding_box()
            assert box is not None
            assert box["width"] > 2
            assert around["x"] - 2 <= box["x"]
            assert box["x"] + box["width"] <= around["x"] + around["width"] + 2
        for label in lane.locator("svg").all():
            box, text = label.bounding_box(), label.locator("text").bounding_box()
            assert box is not None
            assert text is not None
            assert text["width"] < lane.bounding_box()["width"]  # type: ignore[index]
    curves = [curve.bounding_box() for curve in page.locator("polyline").all()]
    assert len(curves) == 8
    assert all(curve and curve["width"] > 50 for curve in curves)
    assert page.locator("svg.plot-lines text.tick").count() == 8


def test_evidence_opens_without_scripts(browser: Browser, render: Render, tmp_path: Path) -> None:
    """What made a chart's figures unfolds, and a reference leads to its task."""
    context = browser.new_context(offline=True, java_script_enabled=False, viewport={"width": 1360, "height": 850})
    page = context.new_page()
    page.goto(render(eventful(tmp_path)).as_uri())
    page.locator("details.made summary").first.click()
    assert page.locator("details.made li").first.is_visible()
    page.locator(".results a.ref").first.click()
    assert page.url.endswith("#made-2")
    assert page.locator("#made-2").is_visible()


def test_timeline_follows_the_scheme_and_narrow_screens(browser: Browser, render: Render, tmp_path: Path) -> None:
    """In the dark its words are light; on a phone the timeline scrolls, and the page does not."""
    found = visit(browser, render(eventful(tmp_path)), scheme="dark", width=400)
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert found.page.evaluate("getComputedStyle(document.querySelector('.lane text')).fill") == "rgb(231, 234, 238)"
    assert found.complaints == []
    assert found.requests == []
