"""Figures that others have published."""

import pytest
from vlm_core import Context, Item, Record

from text_metrics import TextMetrics
from text_metrics.measures import anls, character_errors


def overall(pairs: list[tuple[str, str]], *, casefold: bool = False) -> dict[str, float]:
    """Evaluate (reference, answer) pairs."""
    plugin = TextMetrics()
    plugin.load(Context(params={"normalise": {"casefold": casefold}}))
    records = [Record(Item(str(n)), (reference,), answer) for n, (reference, answer) in enumerate(pairs)]
    return dict(plugin.evaluate(records).overall)


@pytest.mark.parametrize(("first", "second"), [("kitten", "sitting"), ("Saturday", "Sunday")])
def test_distance_of_textbook_words(first: str, second: str) -> None:
    """Wikipedia's examples in "Levenshtein distance" and "Wagner-Fischer algorithm": three edits each."""
    assert character_errors(first, second).part == 3


def test_distance_of_intention_and_execution() -> None:
    """Jurafsky and Martin, "Speech and Language Processing", on minimum edit distance: five edits of cost 1."""
    assert character_errors("intention", "execution").part == 5


@pytest.mark.parametrize(
    ("answer", "to_first", "to_second", "score"),
    [
        ("The Coca", 0.44, 0.29, 0.0),
        ("CocaCola", 0.89, 0.47, 0.89),
        ("Coca cola", 1.0, 0.53, 1.0),
        ("Cola", 0.44, 0.23, 0.0),
    ],
)
def test_anls_of_soft_drink(answer: str, to_first: float, to_second: float, score: float) -> None:
    """The Robust Reading Competition's worked example of ANLS (challenge 11, tasks; Biten et al., ICCV 2019).

    Its table gives similarities before the threshold and the score after it, both to two places, case ignored.
    """
    references = ("Coca Cola", "Coca Cola Company")
    for reference, similarity in zip(references, (to_first, to_second), strict=True):
        edits = character_errors(reference.casefold(), answer.casefold()).part
        assert 1 - edits / max(len(reference), len(answer)) == pytest.approx(similarity, abs=0.006)
    plugin = TextMetrics()
    plugin.load(Context(params={"metrics": ["anls"], "normalise": {"casefold": True}}))
    found = plugin.evaluate([Record(Item("1"), references, answer)]).overall["anls"]
    assert found == pytest.approx(score, abs=0.006)


def test_anls_threshold_is_exclusive() -> None:
    """Biten et al. 2019, equation 2: a distance of exactly 0.5 scores 0, one just below it scores."""
    assert anls("ab", "ax").part == 0.0
    assert anls("abc", "abx").part == pytest.approx(2 / 3)


def test_anls_of_document_questions() -> None:
    """Answers of the "anls" metric card of Hugging Face's evaluate: one wrong digit of eight, one wrong case."""
    pairs = [("Denver Broncos", "Denver Broncos"), ("12/15/88", "12/15/89"), ("Dear Dr. Lobo", "Dear dr. Lobo")]
    assert overall(pairs, casefold=True)["anls"] == pytest.approx((1 + 7 / 8 + 1) / 3)
    assert overall(pairs)["anls"] == pytest.approx((1 + 7 / 8 + 12 / 13) / 3)


def test_wer_of_jiwer_usage() -> None:
    """The usage page of jiwer: one of two words wrong, then two of six over two sentences."""
    assert overall([("hello world", "hello duck")])["wer"] == pytest.approx(1 / 2)
    sentences = [("hello world", "hello duck"), ("i like monthy python", "i like python")]
    assert overall(sentences)["wer"] == pytest.approx(2 / 6)


def test_wer_of_jiwer_alignment() -> None:
    """The alignment page of jiwer prints wer=88.89% for two sentences: eight edits of nine words."""
    sentences = [
        ("short one here", "shoe order one"),
        ("quite a bit of longer sentence", "quite bit of an even longest sentence here"),
    ]
    assert overall(sentences)["wer"] == pytest.approx(0.8889, abs=5e-5)


@pytest.mark.parametrize(
    ("pairs", "cer", "wer"),
    [
        ([("hello world", "hello world"), ("good night moon", "good night moon")], 0.0, 0.0),
        (
            [
                ("this is the reference", "this is the prediction"),
                ("there is another one", "there is an other sample"),
            ],
            0.34146341463414637,
            0.5,
        ),
        ([("gracias", "hello")], 1.0, 1.0),
        ([("hello", "hello world")], 1.2, 1.0),
    ],
)
def test_rates_of_metric_cards(pairs: list[tuple[str, str]], cer: float, wer: float) -> None:
    """The "cer" and "wer" metric cards of Hugging Face's evaluate (values of WER the cards lack follow by hand)."""
    found = overall(pairs)
    assert found["cer"] == pytest.approx(cer, abs=1e-12)
    assert found["wer"] == pytest.approx(wer, abs=1e-12)


def test_wer_of_no_match() -> None:
    """The "wer" metric card of Hugging Face's evaluate: nothing in common is 1.0, here six edits of six words."""
    assert overall([("hi everyone", "hello world"), ("have a great day", "good night moon")])["wer"] == 1.0
