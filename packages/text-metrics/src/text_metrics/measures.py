"""The measures: pure functions of texts that are already normalised."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

ANLS_THRESHOLD = 0.5
"""From this normalised distance on, ANLS calls an answer wrong; the value that its authors propose."""


@dataclass(frozen=True)
class Share:
    """A part of a whole: edits of a reference's length, or points of one item.

    Every figure here is such a share, so that one rule adds up all of them.

    Attributes:
        part: edits in characters or words, or points from 0 to 1.
        whole: the reference's length in characters or words, or 1 for points.
    """

    part: float
    whole: int

    @property
    def value(self) -> float:
        """The part by the whole; a whole of nothing counts as one, so that it never divides by zero."""
        return self.part / max(self.whole, 1)


def add(shares: Iterable[Share]) -> Share:
    """Add parts and wholes; the value of the sum is the figure over all items, not the mean of their figures."""
    listed = list(shares)
    # fsum is exact: the order of the records can't change the figure.
    return Share(math.fsum(share.part for share in listed), sum(share.whole for share in listed))


@dataclass(frozen=True)
class Metric:
    """A measure and how to read it.

    Attributes:
        score: reference and answer to a share.
        miss: reference to the share of an item that has no answer.
        lower_is_better: whether a smaller figure is the better one.
    """

    score: Callable[[str, str], Share]
    miss: Callable[[str], Share]
    lower_is_better: bool

    def best(self, references: Sequence[str], answer: str | None) -> Share:
        """Score an answer against the reference that suits it best; the first of those that suit equally.

        Args:
            references: acceptable answers, at least one.
            answer: the model's answer, or None where there is none.
        """
        if answer is None:
            # The first text there is: an empty reference would make a missing answer too cheap.
            return self.miss(next((reference for reference in references if reference), references[0]))
        shares = [self.score(reference, answer) for reference in references]
        pick = min if self.lower_is_better else max
        return pick(shares, key=lambda share: share.value)


def character_errors(reference: str, answer: str) -> Share:
    """Count character edits: insertions, deletions and substitutions of Unicode code points (Levenshtein 1966)."""
    return Share(Levenshtein.distance(reference, answer), len(reference))


def word_errors(reference: str, answer: str) -> Share:
    """Count word edits: the same distance over the words between white space."""
    expected, given = reference.split(), answer.split()
    return Share(Levenshtein.distance(expected, given), len(expected))


def anls(reference: str, answer: str) -> Share:
    """Score one answer by normalised Levenshtein similarity.

    1 - NL where NL, the distance by the longer text's length, is below 0.5, else 0: equations 1 and 2 of Biten et
    al., "Scene Text Visual Question Answering", ICCV 2019. Two empty texts are equal.
    """
    distance = Levenshtein.normalized_distance(reference, answer)
    return Share(1.0 - distance if distance < ANLS_THRESHOLD else 0.0, 1)


def exact(reference: str, answer: str) -> Share:
    """Score 1 for the reference itself and 0 for everything else."""
    return Share(float(reference == answer), 1)


def all_characters(reference: str) -> Share:
    """Count every character as deleted; a missing answer to an empty reference is one edit, not none."""
    return Share(max(len(reference), 1), len(reference))


def all_words(reference: str) -> Share:
    """Count every word as deleted; a missing answer to an empty reference is one edit, not none."""
    length = len(reference.split())
    return Share(max(length, 1), length)


def no_points(_reference: str) -> Share:
    """Score nothing."""
    return Share(0.0, 1)


METRICS = {
    "cer": Metric(character_errors, all_characters, lower_is_better=True),
    "wer": Metric(word_errors, all_words, lower_is_better=True),
    "anls": Metric(anls, no_points, lower_is_better=False),
    "exact": Metric(exact, no_points, lower_is_better=False),
}
"""Every metric by the name that a run file uses, in the order they are reported by default."""
