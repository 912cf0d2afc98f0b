"""CTC decoding on matrices small enough to check by hand."""

import itertools
import math

import numpy as np
import pytest
from ocr_crnn.alphabet import ALPHABET, BLANK, CLASSES, decode, encode
from ocr_crnn.decode import beam_search, greedy


def matrix(*frames: dict[str, float]) -> np.ndarray:
    """Return log probabilities (T, CLASSES) of frames that map a character, or "" for the blank, to its probability."""
    values = np.full((len(frames), CLASSES), 1e-12, dtype=np.float32)
    for row, frame in zip(values, frames, strict=True):
        for character, probability in frame.items():
            row[encode(character)[0] if character else BLANK] = probability
    return np.log(values)


def probability(frames: np.ndarray, text: str) -> float:
    """Return the probability of a text, summed over every path that spells it."""
    classes = [BLANK, *sorted(set(encode("ab")))]
    total = 0.0
    for path in itertools.product(classes, repeat=len(frames)):
        if decode(index for index, _ in itertools.groupby(path) if index != BLANK) == text:
            total += math.exp(sum(float(frame[index]) for frame, index in zip(frames, path, strict=True)))
    return total


def test_alphabet_goes_there_and_back() -> None:
    """Every character has one class, and none of them is the blank."""
    assert len(set(ALPHABET)) == len(ALPHABET) == CLASSES - 1
    assert decode(encode(ALPHABET)) == ALPHABET
    assert BLANK not in encode(ALPHABET)


def test_greedy_joins_repeats_and_drops_blanks() -> None:
    """Two equal frames are one character; with a blank between they are two."""
    frames = matrix({"a": 0.9}, {"a": 0.9}, {"": 0.9}, {"a": 0.9}, {"b": 0.9})
    assert greedy(frames).text == "aab"


def test_beam_search_finds_the_likelier_text() -> None:
    """Where two paths spell one text, their sum beats the single best path that greedy decoding takes."""
    frames = matrix({"a": 0.4, "": 0.6}, {"a": 0.4, "": 0.6})
    assert greedy(frames).text == ""
    reading = beam_search(frames, width=4)
    assert reading.text == "a"
    assert math.exp(reading.log_probability) == pytest.approx(0.64, abs=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_beam_search_is_at_least_as_good_as_greedy(seed: int) -> None:
    """On random matrices its text is at least as probable, and its probability is the true one."""
    chances = np.random.default_rng(seed).dirichlet([0.5, 0.5, 0.5], size=5)
    frames = matrix(*({"": row[0], "a": row[1], "b": row[2]} for row in chances))
    reading = beam_search(frames, width=50)
    true = probability(frames, reading.text)
    assert true >= probability(frames, greedy(frames).text) - 1e-9
    assert math.exp(reading.log_probability) == pytest.approx(true, rel=0.02, abs=1e-4)


def test_no_frames_spell_nothing() -> None:
    """A line without frames is an empty text with full confidence."""
    empty = np.zeros((0, CLASSES), dtype=np.float32)
    assert greedy(empty).text == beam_search(empty, width=3).text == ""
