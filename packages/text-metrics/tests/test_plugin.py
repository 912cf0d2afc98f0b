"""What the plugin does with records and parameters."""

import pytest
from vlm_core import Context, EvalPlugin, Item, Record

from text_metrics import ParameterError, TextMetrics


def loaded(**params: object) -> TextMetrics:
    """Make a plugin with these parameters."""
    plugin = TextMetrics()
    plugin.load(Context(params=params))
    return plugin


def record(answer: str | None, *references: str, item: str = "1", doc_class: str = "") -> Record:
    """Make a record."""
    return Record(Item(item, doc_class=doc_class), references, answer, None if answer is not None else "broke")


def test_plugin_fits_the_contract() -> None:
    """The class is an eval plugin by its methods."""
    assert isinstance(TextMetrics(), EvalPlugin)


def test_overall_is_weighted_by_length() -> None:
    """CER overall is edits by lengths of all items, while the items keep their own figures."""
    found = loaded().evaluate([record("x", "a", item="short"), record("abcdefghi", "abcdefghi", item="long")])
    assert found.overall["cer"] == pytest.approx(1 / 10)
    assert [(row["item"], row["cer"]) for row in found.by_item] == [("short", 1.0), ("long", 0.0)]
    assert found.overall["exact"] == pytest.approx(1 / 2)


def test_classes_are_summed_up_apart() -> None:
    """Each class has its own figures, in a stable order; an item without a class is in none."""
    found = loaded().evaluate(
        [record("ab", "ab", doc_class="line-ru"), record("xb", "ab", doc_class="digits"), record("zz", "ab")]
    )
    assert list(found.by_class) == ["digits", "line-ru"]
    assert found.by_class["digits"]["cer"] == 0.5
    assert found.by_class["line-ru"] == {"cer": 0.0, "wer": 0.0, "anls": 1.0, "exact": 1.0}
    assert found.overall["cer"] == pytest.approx(3 / 6)


def test_missing_answer_is_wrong() -> None:
    """Without an answer all of the reference counts as deleted, and nothing scores."""
    found = loaded().evaluate([record(None, "three short words")])
    assert found.overall == {"cer": 1.0, "wer": 1.0, "anls": 0.0, "exact": 0.0}


def test_missing_answer_is_as_bad_as_an_empty_one() -> None:
    """A crash is neither cheaper nor dearer than an empty answer."""
    fine = record("fine", "fine", item="2")
    missing = loaded().evaluate([record(None, "lost"), fine])
    empty = loaded().evaluate([record("", "lost"), fine])
    assert missing.overall == empty.overall
    assert missing.overall["cer"] == 0.5


def test_missing_answer_to_nothing_is_wrong() -> None:
    """Where the reference is empty, answering nothing is right and not answering is wrong."""
    assert loaded().evaluate([record("", "")]).overall == {"cer": 0.0, "wer": 0.0, "anls": 1.0, "exact": 1.0}
    assert loaded().evaluate([record(None, "")]).overall == {"cer": 1.0, "wer": 1.0, "anls": 0.0, "exact": 0.0}


def test_missing_answer_is_measured_by_a_reference_with_text() -> None:
    """An empty reference among others doesn't make a missing answer cheaper."""
    found = loaded().evaluate([record(None, "", "abcd"), record("abcd", "abcd")])
    assert found.overall["cer"] == pytest.approx(4 / 8)


def test_empty_reference_counts_insertions() -> None:
    """What is answered to an empty reference is all wrong, at its length, as in jiwer."""
    found = loaded().evaluate([record("abd", "")])
    assert found.overall == {"cer": 3.0, "wer": 1.0, "anls": 0.0, "exact": 0.0}


def test_best_reference_counts() -> None:
    """With several references the nearest one gives the edits and the length."""
    found = loaded().evaluate([record("Coca Cola", "Pepsi", "Coca-Cola", "Coca Cola Company")])
    assert found.overall["cer"] == pytest.approx(1 / 9)
    assert found.overall["exact"] == 0.0
    assert loaded().evaluate([record("b", "a", "b")]).overall["exact"] == 1.0


def test_composition_and_spaces_do_not_count() -> None:
    """By default the two ways to write й are one, and so are a space and a line break."""
    found = loaded().evaluate([record("  зеле\u043d\u044b\u0438\u0306\nчай ", "зелены\u0439 чай")])
    assert found.overall["exact"] == 1.0


def test_case_counts_unless_folded() -> None:
    """Case is compared by default and ignored on request, by Unicode's rules."""
    pair = [record("STRASSE", "Straße")]
    assert loaded().evaluate(pair).overall["exact"] == 0.0
    assert loaded(normalise={"casefold": True}).evaluate(pair).overall["exact"] == 1.0


def test_normalisation_can_be_turned_off() -> None:
    """Texts can be compared code point by code point."""
    raw = loaded(metrics=["cer"], normalise={"unicode": "none", "whitespace": "keep"})
    assert raw.evaluate([record("a  b", "a b")]).overall["cer"] == pytest.approx(1 / 3)
    assert raw.evaluate([record("\u0438\u0306", "\u0439")]).overall["cer"] == 2.0
    assert loaded(normalise={"unicode": "NFKC"}).evaluate([record("1", "①")]).overall["exact"] == 1.0


def test_metrics_are_chosen_and_ordered() -> None:
    """Only what was asked for is measured, once each, in the order asked."""
    found = loaded(metrics=["exact", "cer", "exact"]).evaluate([record("a", "a", doc_class="x")])
    assert list(found.overall) == ["exact", "cer"]
    assert list(found.by_item[0]) == ["item", "exact", "cer"]
    assert list(found.lower_is_better) == ["cer"]
    assert loaded().evaluate([]).lower_is_better == ["cer", "wer"]


def test_nothing_to_judge_gives_no_figures() -> None:
    """Over no records there is no figure, rather than a perfect one."""
    found = loaded().evaluate([])
    assert (dict(found.overall), dict(found.by_class), list(found.by_item)) == ({}, {}, [])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"metrics": ["cer", "anlss"]}, r"unknown metric 'anlss'; known: cer, wer, anls, exact; did you mean 'anls'\?"),
        ({"metrics": ["bleu"]}, "unknown metric 'bleu'; known: cer, wer, anls, exact$"),
        ({"metrics": []}, "metrics: expected a list"),
        ({"metrics": "cer"}, "metrics: expected a list"),
        ({"metric": ["cer"]}, "unknown parameter 'metric'.*did you mean 'metrics'"),
        ({"normalise": "casefold"}, "normalise: expected a mapping"),
        ({"normalise": {"case": True}}, "unknown normalise option 'case'"),
        ({"normalise": {"casefold": "yes"}}, "normalise.casefold: expected true or false"),
        ({"normalise": {"unicode": "NFX"}}, "normalise.unicode: expected one of NFC, NFKC, none"),
        ({"normalise": {"whitespace": ["keep"]}}, "normalise.whitespace: expected one of collapse, keep"),
    ],
)
def test_wrong_parameters_are_refused(params: dict[str, object], message: str) -> None:
    """A parameter that can't be taken is named with what is known, before anything is measured."""
    with pytest.raises(ParameterError, match=message):
        loaded(**params)


def test_record_without_references_is_refused() -> None:
    """An item with nothing to compare with is named instead of counted."""
    with pytest.raises(ValueError, match="'7' has no references"):
        loaded().evaluate([record("a", item="7")])
