"""A task's parameters, checked."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from text_metrics.measures import METRICS

Form = Literal["NFC", "NFKC"]

_FORMS = ("NFC", "NFKC", "none")
_SPACES = ("collapse", "keep")


class ParameterError(ValueError):
    """A parameter of the run file that this plugin can't take."""


@dataclass(frozen=True)
class Normaliser:
    """What is evened out before texts are compared.

    Attributes:
        form: the Unicode normal form, or None to leave code points as they are.
        collapse: make every run of white space one space, and drop it at both ends.
        casefold: ignore case, as Unicode defines it.
    """

    form: Form | None = "NFC"
    collapse: bool = True
    casefold: bool = False

    def __call__(self, text: str) -> str:
        """Return the text as it is compared."""
        text = self._compose(text)
        if self.casefold:
            # Folding may undo the composition: U+0390 folds to three code points.
            text = self._compose(text.casefold())
        return " ".join(text.split()) if self.collapse else text

    def _compose(self, text: str) -> str:
        return unicodedata.normalize(self.form, text) if self.form else text


@dataclass(frozen=True)
class Params:
    """What to measure and what to even out.

    Attributes:
        metrics: names from `METRICS`, without repetition, in the order to report.
        normalise: applied to references and answers alike.
    """

    metrics: tuple[str, ...] = tuple(METRICS)
    normalise: Normaliser = field(default_factory=Normaliser)


def read_params(raw: Mapping[str, object]) -> Params:
    """Check the parameters of a run file's task.

    Args:
        raw: ``metrics``, a list of names, and ``normalise``, a mapping with ``unicode`` (NFC, NFKC or none),
            ``whitespace`` (collapse or keep) and ``casefold`` (true or false); all optional.

    Raises:
        ParameterError: a key, a metric or a value is unknown; the message names what is known and what is nearest.
    """
    _refuse_unknown("parameter", raw, ("metrics", "normalise"))
    return Params(
        metrics=_read_metrics(raw.get("metrics", list(METRICS))),
        normalise=_read_normaliser(raw.get("normalise", {})),
    )


def _read_metrics(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, (list, tuple)) or not raw:
        raise ParameterError(f"metrics: expected a list of names from {', '.join(METRICS)}; found {raw!r}")
    _refuse_unknown("metric", raw, METRICS)
    return tuple(dict.fromkeys(raw))


def _read_normaliser(raw: object) -> Normaliser:
    if not isinstance(raw, Mapping):
        raise ParameterError(f"normalise: expected a mapping; found {raw!r}")
    _refuse_unknown("normalise option", raw, ("unicode", "whitespace", "casefold"))
    form = _one_of("normalise.unicode", raw.get("unicode", "NFC"), _FORMS)
    spaces = _one_of("normalise.whitespace", raw.get("whitespace", "collapse"), _SPACES)
    casefold = raw.get("casefold", False)
    if not isinstance(casefold, bool):
        raise ParameterError(f"normalise.casefold: expected true or false; found {casefold!r}")
    return Normaliser(
        form=None if form == "none" else cast("Form", form), collapse=spaces == "collapse", casefold=casefold
    )


def _one_of(name: str, value: object, known: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in known:
        raise ParameterError(f"{name}: expected one of {', '.join(known)}; found {value!r}")
    return value


def _refuse_unknown(kind: str, found: Iterable[object], known: Iterable[str]) -> None:
    names = list(known)
    for name in found:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ParameterError(f"unknown {kind} {name!r}; known: {', '.join(names)}{hint}")
