"""What holds for every text."""

import jiwer
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from vlm_core import Item, Record

from text_metrics import TextMetrics
from text_metrics.measures import METRICS
from text_metrics.params import Normaliser

# Few letters make near misses likely; the rest tests what Unicode brings.
TEXTS = st.text(alphabet="abйЁ ,1", max_size=12) | st.text(max_size=8)
RECORDS = st.builds(
    lambda references, answer, doc_class: Record(Item("x", doc_class=doc_class), tuple(references), answer),
    st.lists(TEXTS, min_size=1, max_size=3),
    st.none() | TEXTS,
    st.sampled_from(["", "line", "digits"]),
)


@given(st.lists(RECORDS, max_size=8))
def test_figures_stay_in_bounds(records: list[Record]) -> None:
    """Error rates are never negative, scores are from 0 to 1: overall, by class and by item."""
    found = TextMetrics().evaluate(records)
    rows = [found.overall, *found.by_class.values(), *found.by_item]
    for row in rows:
        for name in row.keys() - {"item"}:
            value = row[name]
            assert isinstance(value, float)
            assert value >= 0.0
            assert name in found.lower_is_better or value <= 1.0


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_reference_as_answer_is_perfect(texts: list[str]) -> None:
    """Whoever answers with the reference makes no error."""
    found = TextMetrics().evaluate([Record(Item("x"), (text,), text) for text in texts])
    assert found.overall == {"cer": 0.0, "wer": 0.0, "anls": 1.0, "exact": 1.0}


@given(st.lists(RECORDS, min_size=1, max_size=8).flatmap(lambda r: st.tuples(st.just(r), st.permutations(r))))
def test_order_of_records_does_not_matter(pair: tuple[list[Record], list[Record]]) -> None:
    """Figures overall and by class are bit for bit the same in every order."""
    first, second = (TextMetrics().evaluate(records) for records in pair)
    assert first.overall == second.overall
    assert first.by_class == second.by_class


@given(RECORDS, TEXTS)
def test_another_reference_never_hurts(record: Record, extra: str) -> None:
    """More acceptable answers can only make an answer better."""
    assume(record.answer is not None)
    few = TextMetrics().evaluate([record]).overall
    more = TextMetrics().evaluate([Record(record.item, (*record.references, extra), record.answer)]).overall
    for name, metric in METRICS.items():
        assert more[name] <= few[name] if metric.lower_is_better else more[name] >= few[name]


@given(RECORDS)
def test_no_answer_is_never_better_than_a_wrong_one(record: Record) -> None:
    """Failing can't beat answering nothing, for any references."""
    missing = TextMetrics().evaluate([Record(record.item, record.references, None)]).overall
    empty = TextMetrics().evaluate([Record(record.item, record.references, "")]).overall
    assert missing["cer"] >= min(empty["cer"], 1.0)
    assert missing["anls"] <= empty["anls"]


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6))
def test_rates_agree_with_jiwer(pairs: list[tuple[str, str]]) -> None:
    """An independent implementation counts the same edits and lengths."""
    clean = [(Normaliser()(reference), Normaliser()(answer)) for reference, answer in pairs]
    found = TextMetrics().evaluate([Record(Item("x"), (reference,), answer) for reference, answer in clean])
    references, answers = [r for r, _ in clean], [a for _, a in clean]
    assert found.overall["cer"] == pytest.approx(jiwer.cer(references, answers))
    assert found.overall["wer"] == pytest.approx(jiwer.wer(references, answers))


@given(TEXTS, st.booleans())
def test_normalising_twice_changes_nothing(text: str, casefold: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
    """What is normalised stays as it is."""
    normalise = Normaliser(casefold=casefold)
    assert normalise(normalise(text)) == normalise(text)
