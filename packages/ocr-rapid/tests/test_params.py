"""Parameters of the run file."""

import pytest

from ocr_rapid.params import ParameterError, Params, read_params


def test_defaults_leave_everything_open() -> None:
    """Without parameters the plugin decides by itself."""
    assert read_params({}) == Params(detect=None, threads=None, min_confidence=0.5)


def test_parameters_are_taken() -> None:
    """Every parameter reaches its attribute."""
    assert read_params({"detect": True, "threads": 3, "min-confidence": 0}) == Params(
        detect=True, threads=3, min_confidence=0.0
    )
    assert read_params({"detect": "auto"}).detect is None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"detects": True}, "unknown parameter 'detects'; known: detect, threads, min-confidence"),
        ({"detect": "yes"}, "detect: expected auto, true or false; found 'yes'"),
        ({"threads": 0}, "threads: expected a whole number from 1; found 0"),
        ({"threads": True}, "threads: expected a whole number"),
        ({"threads": 1.5}, "threads: expected a whole number"),
        ({"min-confidence": 2}, "min-confidence: expected a number from 0 to 1; found 2"),
        ({"min-confidence": "high"}, "min-confidence: expected a number"),
    ],
)
def test_wrong_parameters_are_refused(params: dict[str, object], message: str) -> None:
    """A parameter that can't be taken is named with what was expected."""
    with pytest.raises(ParameterError, match=message):
        read_params(params)
