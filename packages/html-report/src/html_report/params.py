"""A task's parameters, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class ParameterError(ValueError):
    """A parameter of the run file that this plugin can't take."""


@dataclass(frozen=True)
class Params:
    """What the report shows.

    Attributes:
        examples: the most wrong answers that are shown for one model on one data set.
    """

    examples: int = 8


def read_params(raw: Mapping[str, object]) -> Params:
    """Check the parameters of a run file's task.

    Args:
        raw: ``examples``, a whole number from 0; optional.

    Raises:
        ParameterError: a key is unknown or a value can't be used.
    """
    for name in raw:
        if name != "examples":
            raise ParameterError(f"unknown parameter {name!r}; known: examples")
    examples = raw.get("examples", Params.examples)
    # bool is an int: `examples: true` would otherwise mean one example.
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 0:
        raise ParameterError(f"examples: expected a whole number from 0; found {examples!r}")
    return Params(examples)
