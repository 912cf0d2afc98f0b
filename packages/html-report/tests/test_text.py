"""Figures, times and marked texts as they are written."""

import pytest

from html_report.marks import LONGEST, Mark, mark, nearest
from html_report.text import NOTHING, duration, figure, metric_name, moment, rate, seconds, size


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, NOTHING),
        (float("nan"), NOTHING),
        (0.0, "0 µs"),
        (0.000_25, "250 µs"),
        (0.0183, "18.3 ms"),
        (0.5, "500 ms"),
        (1.25, "1.25 s"),
        (61.04, "61.0 s"),
        (192.4, "3 min 12 s"),
        (9000.0, "2 h 30 min"),
    ],
)
def test_seconds_are_written_in_a_fitting_unit(value: float | None, written: str) -> None:
    """Times have three digits and the unit that people would use."""
    assert seconds(value) == written


def test_figures_are_written_with_three_decimals() -> None:
    """Metrics line up, large ones lose decimals, and no figure is a dash."""
    assert [figure(value) for value in (0.0, 0.04167, 1.2, 123.456, None, float("inf"))] == [
        "0.000",
        "0.042",
        "1.200",
        "123.5",
        NOTHING,
        NOTHING,
    ]


def test_sizes_and_rates_have_units() -> None:
    """Bytes are written in MiB or GiB, and speeds per second."""
    assert [size(412 * 2**20), size(6 * 2**30), size(None)] == ["412 MiB", "6.00 GiB", NOTHING]
    assert [rate(57.21), rate(None)] == ["57.2/s", NOTHING]


def test_moments_are_written_in_utc() -> None:
    """Times of any zone are written in UTC, and what is no time stays as it is."""
    assert moment("2026-11-03T12:12:07+03:00") == "2026-11-03 09:12:07 UTC"
    assert moment("2026-11-03T09:12:07.25Z") == "2026-11-03 09:12:07 UTC"
    assert moment("2026-11-03T09:12:07") == "2026-11-03 09:12:07 UTC"
    assert moment("yesterday") == "yesterday"
    assert duration("2026-11-03T09:00:00Z", "2026-11-03T10:00:00+00:00") == "60 min 0 s"
    assert duration("2026-11-03T09:00:00Z", None) == NOTHING


def test_metric_names_are_spelled() -> None:
    """Abbreviations are capitals; an unknown metric keeps its name."""
    assert [metric_name(name) for name in ("cer", "anls", "exact", "bleu-4")] == [
        "CER",
        "ANLS",
        "Exact match",
        "bleu-4",
    ]


def test_marks_show_what_differs() -> None:
    """Each text is split where the other one lacks something."""
    reference, answer = mark("kitten", "kitchen")
    assert reference == (Mark("kit", differs=False), Mark("t", differs=True), Mark("en", differs=False))
    assert answer == (Mark("kit", differs=False), Mark("ch", differs=True), Mark("en", differs=False))


def test_marks_show_white_space() -> None:
    """A space or line break that differs gets a sign; one that doesn't stays as it is."""
    assert mark("one two", "onetwo")[0][1] == Mark("␣", differs=True)
    assert mark("one\ntwo", "one two")[0][1] == Mark("⏎\n", differs=True)
    assert mark("a b", "a b")[0] == (Mark("a b", differs=False),)


def test_marks_of_nothing() -> None:
    """An empty text has no stretches, and the other one is all different."""
    assert mark("", "") == ((), ())
    assert mark("", "x") == ((), (Mark("x", differs=True),))


def test_marks_put_together_are_the_text() -> None:
    """No character gets lost, up to the length that is shown."""
    for one in mark("Съешь же ещё", "Cъешь жe ещё!"):
        assert "".join(stretch.text for stretch in one).replace("␣", " ") in {"Съешь же ещё", "Cъешь жe ещё!"}
    long = "".join(stretch.text for stretch in mark("x" * 5000, "x" * 5000)[0])
    assert long == "x" * LONGEST + "…"


def test_nearest_reference_is_shown() -> None:
    """Of several references the one most like the answer is compared with it."""
    assert nearest(["Pepsi", "Coca Cola", "Coca Cola Company"], "Coca Cole") == "Coca Cola"
    assert nearest(["first", "second"], None) == "first"
    assert nearest([], "x") == ""
