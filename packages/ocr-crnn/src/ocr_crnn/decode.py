"""From log probabilities per frame to text: CTC decoding, greedy and by prefix beam search."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ocr_crnn.alphabet import BLANK, decode

LogProbabilities = npt.NDArray[np.float32]
"""(T, CLASSES): the natural logarithm of each class's probability in each frame."""

_NEVER = -np.inf
# A class this unlikely in a frame is left out of the beam search: e**-9 is about one in ten thousand.
_NEGLIGIBLE = -9.0


@dataclass(frozen=True)
class Reading:
    """A decoded text and the natural logarithm of its probability (of its best path, where decoded greedily)."""

    text: str
    log_probability: float

    @property
    def confidence(self) -> float:
        """The probability per character, as a geometric mean."""
        return float(np.exp(self.log_probability / max(1, len(self.text))))


def greedy(frames: LogProbabilities) -> Reading:
    """Take each frame's likeliest class, join repeats and drop blanks."""
    best = frames.argmax(axis=1)
    changes = np.flatnonzero(np.diff(best, prepend=BLANK))
    classes = [int(index) for index in best[changes] if index != BLANK]
    return Reading(decode(classes), float(frames.max(axis=1).sum()))


def beam_search(frames: LogProbabilities, width: int) -> Reading:
    """Sum over paths that spell the same text, and keep the `width` likeliest prefixes at each frame.

    Source: A. Hannun et al., First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional
    Recurrent DNNs (2014), algorithm 1, without the language model.
    """
    # Prefix to the log probabilities of its paths that end in a blank and in its last character.
    beams: list[tuple[tuple[int, ...], tuple[float, float]]] = [((), (0.0, _NEVER))]
    for frame in frames:
        likely = [int(index) for index in np.flatnonzero(frame > _NEGLIGIBLE)] or [int(frame.argmax())]
        scores: defaultdict[tuple[int, ...], tuple[float, float]] = defaultdict(lambda: (_NEVER, _NEVER))
        for prefix, (in_blank, in_character) in beams:
            for index in likely:
                _extend(scores, prefix, in_blank, in_character, index, float(frame[index]))
        beams = sorted(scores.items(), key=lambda beam: -np.logaddexp(*beam[1]))[:width]
    prefix, ends = beams[0]
    return Reading(decode(prefix), float(np.logaddexp(*ends)))


def _extend(
    scores: defaultdict[tuple[int, ...], tuple[float, float]],
    prefix: tuple[int, ...],
    in_blank: float,
    in_character: float,
    index: int,
    log_probability: float,
) -> None:
    """Add to `scores` what becomes of one prefix when the frame holds the class `index`."""

    def add(longer: tuple[int, ...], blank: float, character: float) -> None:
        old_blank, old_character = scores[longer]
        scores[longer] = (float(np.logaddexp(old_blank, blank)), float(np.logaddexp(old_character, character)))

    either = float(np.logaddexp(in_blank, in_character))
    if index == BLANK:
        add(prefix, either + log_probability, _NEVER)
    elif prefix and prefix[-1] == index:
        # The same character again: part of the last one, unless a blank stood between.
        add(prefix, _NEVER, in_character + log_probability)
        add((*prefix, index), _NEVER, in_blank + log_probability)
    else:
        add((*prefix, index), _NEVER, either + log_probability)
