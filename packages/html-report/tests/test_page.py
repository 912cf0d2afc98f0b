"""The written page: its structure, and what it says at the edges."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import Render
from documents import evaluation, realistic, record, run, small, task

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\"' &amp; {{ 7 * 7 }}"
VOID = {"br", "img", "link", "meta"}


class Page(HTMLParser):
    """Reads a page and checks on the way that every element is closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last, or fail."""
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        """Keep what people read."""
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All that is read, with single spaces."""
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of a kind."""
        return [attributes for name, attributes in self.found if name == tag]


def test_page_is_well_formed_and_accessible(render: Render, tmp_path: Path) -> None:
    """Elements nest, ids are unique, links lead somewhere, and language, title, captions and alt texts are there."""
    page = Page(render(realistic(tmp_path)))
    assert page.source.startswith("<!DOCTYPE html>")
    assert page.all("html")[0]["lang"] == "en"
    assert "document-lines · 20261103-091207-3f2a · benchmark report" in page.texts
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"] for link in page.all("a")} <= {f"#{name}" for name in ids}
    assert len(page.all("table")) == len(page.all("caption")) >= 6
    assert all(image["alt"] for image in page.all("img"))
    assert all(head.get("scope") for head in page.all("th"))
    charts = [attributes for attributes in page.all("div") if attributes.get("role") == "img"]
    assert len(charts) == 6
    assert all(len(chart["aria-label"] or "") > 40 for chart in charts)


def test_page_asks_for_nothing(render: Render, tmp_path: Path) -> None:
    """Nothing in the page refers to another file or host, and its own policy forbids it."""
    page = Page(render(realistic(tmp_path)))
    assert not page.all("link")
    assert not any("src" in script for script in page.all("script"))
    assert all((image["src"] or "").startswith("data:image/webp;base64,") for image in page.all("img"))
    assert not re.search(r"(?:https?:)?//[\w-]+\.\w", page.source)
    assert "@import" not in page.source
    assert any("default-src 'none'" in (meta.get("content") or "") for meta in page.all("meta"))


def test_page_has_a_sane_size(render: Render, tmp_path: Path) -> None:
    """Charts, styles and images of a real run take little more than 2 MB; without charts, next to nothing."""
    assert render(realistic(tmp_path)).stat().st_size < 2_500_000
    bare = small(records=[], evaluations=[])
    assert render(bare).stat().st_size < 30_000


def test_headline_says_what_ran_where(render: Render) -> None:
    """Name, id, profile, time, host, seed and device can be read at once."""
    text = Page(render(small())).text
    for part in ("document-lines", "20261103-091207-3f2a", "prod", "2026-11-03 09:12:07 UTC", "3 min 12 s", "bench-01"):
        assert part in text
    assert "Seed 0" in text
    assert "Ran on CPU (AMD EPYC 7B13)" in text


def test_gpu_is_called_by_its_name(render: Render) -> None:
    """A model on a GPU shows the GPU's name, one on the processor CPU, and the page says they don't compare."""
    tasks = [task("ocr-a", device="cuda", device_name="NVIDIA H100 80GB HBM3"), task("ocr-b")]
    text = Page(render(small(tasks=tasks))).text
    assert "Ran on NVIDIA H100 80GB HBM3 : ocr-a" in text
    assert "Ran on CPU (AMD EPYC 7B13) : ocr-b" in text
    assert "their latencies do not compare" in text


def test_dev_run_is_called_one(render: Render) -> None:
    """Figures of a development run are not mistaken for a release's; those of a release carry no warning."""
    assert "A dev run" in Page(render(small(run=run(profile="dev")))).text
    assert "not held to released tags" not in Page(render(small())).text


def test_decision_comes_before_everything_else(render: Render, tmp_path: Path) -> None:
    """The leaders in quality, speed and classes stand before the first table, and that before the first chart."""
    source = render(realistic(tmp_path)).read_text(encoding="utf-8")
    body = source[source.index("<main>") :]
    places = [
        body.index(part) for part in ("Lowest CER", "Lowest median latency", "Lowest CER by class", "<table", "<figure")
    ]
    assert places == sorted(places)


def test_hostile_texts_are_shown_and_not_obeyed(render: Render) -> None:
    """Markup in any text of the run ends up as text, also inside scripts and attributes."""
    answers = [
        record("1", HOSTILE, HOSTILE + "x", question=HOSTILE, doc_class=HOSTILE),
        record(HOSTILE, None, error=HOSTILE),
    ]
    document = small(
        run=run(name=HOSTILE, id=HOSTILE, profile=HOSTILE, host={HOSTILE: HOSTILE}),
        tasks=[
            task("ocr-a", plugin=HOSTILE, params={HOSTILE: HOSTILE}, versions={HOSTILE: HOSTILE}, device_name=HOSTILE),
            task("bad", status="failed", error=HOSTILE, environment=HOSTILE),
        ],
        records=answers,
        evaluations=[
            evaluation(
                "ocr-a", {HOSTILE: 1.0}, by_class={HOSTILE: {HOSTILE: 1.0}}, by_item=[{"item": "1", HOSTILE: 0.5}]
            )
        ],
    )
    page = Page(render(document))
    assert len(page.all("script")) == 3
    assert all("onerror" not in attributes for _, attributes in page.found)
    assert "alert(1)" in page.text
    assert "49" not in re.findall(r"\{\{.*?\}\}|\b49\b", page.text)


def test_errors_are_shown_with_their_characters_marked(render: Render) -> None:
    """A wrong answer stands beside its reference, with what differs marked in both."""
    source = render(small()).read_text(encoding="utf-8")
    assert 'wr<mark class="miss">o</mark>ng' in source
    assert 'wr<mark class="extra">0</mark>ng' in source
    assert "1 of 2 answers differ from the reference" in Page(render(small())).text


@pytest.mark.parametrize("most", [0, 1, 3])
def test_number_of_examples_is_limited(render: Render, tmp_path: Path, most: int) -> None:
    """Each model shows as many wrong answers as asked for, the worst first; with none, the section is gone."""
    page = Page(render(realistic(tmp_path), examples=most))
    assert len(page.all("article")) == 3 * most
    assert len(page.all("img")) == 3 * most
    assert ("Error examples" in page.text) == bool(most)


def test_examples_show_what_other_models_made_of_the_item(render: Render, tmp_path: Path) -> None:
    """Beside a wrong answer stand the other models' answers to the same item, with their figures."""
    source = render(realistic(tmp_path), examples=1).read_text(encoding="utf-8")
    card = source[source.rindex("<article") :]
    assert "ocr-crnn (beam=4)" in card
    assert "ocr-crnn (beam=1)" in card


def test_failures_are_shown_with_their_words(render: Render, tmp_path: Path) -> None:
    """Failed tasks and items say with which error, and the first screen says how many."""
    page = Page(render(realistic(tmp_path)))
    assert "1 of 6 tasks did not end well: vlm-large (oom-host)" in page.text
    assert "unable to allocate 14.2 GiB" in page.text
    assert "UnidentifiedImageError" in page.text
    assert "Failures" not in Page(render(small())).text


def test_missing_image_is_mentioned(render: Render) -> None:
    """An item whose image is gone is still shown."""
    records = [record("2", "wr0ng", "wrong", image="/nowhere/2.png")]
    page = Page(render(small(records=records)))
    assert "The image can't be shown." in page.text
    assert not page.all("img")


def test_texts_of_all_scripts_are_kept(render: Render) -> None:
    """Cyrillic, Arabic, emoji and half a surrogate pair get through."""
    text = Page(render(small(records=[record("2", "ёж 🦔 قنفذ", "ёж 🦔 قنفذ!"), record("3", "\ud83e", "x")]))).text
    assert "ёж 🦔 قنفذ" in text
    by_item = [{"item": "3", "cer": 1.0}]
    lone = small(records=[record("3", "\ud83e", "x")], evaluations=[evaluation("ocr-a", {"cer": 1.0}, by_item=by_item)])
    assert "Answer ?" in Page(render(lone)).text


def test_versions_are_listed(render: Render) -> None:
    """The environment that a model ran in is named with its packages' versions."""
    text = Page(render(small())).text
    assert "9c41d07be2" in text
    assert "python 3.11.7" in text


EDGES = {
    "no evaluations": small(evaluations=[]),
    "no answers": small(records=[record("1", None), record("2", None)]),
    "no records": small(records=[]),
    "no tasks": small(tasks=[], records=[], evaluations=[]),
    "only a failed task": small(
        tasks=[task("ocr-a", status="killed", error=None, data=None, load_s=None, wall_s=None, peak_ram_bytes=None)],
        records=[],
        evaluations=[],
    ),
    "no latencies": small(records=[record("1", "x", latency_s=None)]),
    "no by_item": small(evaluations=[evaluation("ocr-a", {"cer": 0.1})]),
    "empty figures": small(evaluations=[evaluation("ocr-a", {})]),
    "figures that are none": small(evaluations=[evaluation("ocr-a", {"cer": float("nan")})]),
    "unknown tasks": small(evaluations=[evaluation("gone", {"cer": 0.1}, eval="gone-too")]),
    "unknown metric": small(evaluations=[evaluation("ocr-a", {"tokens": 12345.678}, lower_is_better=[])]),
    "one item": small(records=[record("1", "x", latency_s=0.0)]),
    "not finished": small(run=run(finished=None)),
    "no host": small(run=run(host={}, started="")),
    "no references": small(records=[record("2", "x") | {"references": []}]),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges_make_a_page(render: Render, name: str) -> None:
    """Whatever a run lacks, its report is a whole page with the headline and the list of tasks."""
    page = Page(render(EDGES[name]))
    assert "document-lines" in page.text
    assert "Everything that the run did" in page.text
    assert not re.search(r"\b(None|nan|inf|Undefined)\b", page.text)


def test_edges_say_what_is_missing(render: Render) -> None:
    """What could not be shown is said in words."""
    assert "nothing was evaluated" in Page(render(EDGES["no evaluations"])).text
    assert "This run has no inference tasks." in Page(render(EDGES["no tasks"])).text
    assert "No latencies were recorded." in Page(render(EDGES["no latencies"])).text
    assert "not finished" in Page(render(EDGES["not finished"])).text
