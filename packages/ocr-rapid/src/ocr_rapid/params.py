"""A task's parameters, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_KNOWN = ("detect", "threads", "min-confidence")


class ParameterError(ValueError):
    """A parameter of the run file that this plugin can't take."""


@dataclass(frozen=True)
class Params:
    """How to read.

    Attributes:
        detect: whether to look for text boxes before reading; None decides image by image.
        threads: threads of onnxruntime and OpenCV; None leaves both at all cores.
        min_confidence: boxes that are read with less (0 to 1) are dropped.
    """

    detect: bool | None = None
    threads: int | None = None
    min_confidence: float = 0.5


def read_params(raw: Mapping[str, object]) -> Params:
    """Check the parameters of a run file's task.

    Args:
        raw: ``detect`` (auto, true or false), ``threads`` (1 or more) and ``min-confidence`` (0 to 1), all optional.

    Raises:
        ParameterError: a key is unknown or a value can't be used.
    """
    for name in raw:
        if name not in _KNOWN:
            raise ParameterError(f"unknown parameter {name!r}; known: {', '.join(_KNOWN)}")
    return Params(
        detect=_read_detect(raw.get("detect", "auto")),
        threads=_read_threads(raw.get("threads")),
        min_confidence=_read_confidence(raw.get("min-confidence", 0.5)),
    )


def _read_detect(value: object) -> bool | None:
    if value == "auto":
        return None
    if not isinstance(value, bool):
        raise ParameterError(f"detect: expected auto, true or false; found {value!r}")
    return value


def _read_threads(value: object) -> int | None:
    if value is None:
        return None
    # bool is an int: `threads: true` would otherwise mean one thread.
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ParameterError(f"threads: expected a whole number from 1; found {value!r}")
    return value


def _read_confidence(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ParameterError(f"min-confidence: expected a number from 0 to 1; found {value!r}")
    return float(value)
