from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentsError
from pipeline.models import (
    AnswerLine,
    Environment,
    answer_line_from_json,
    chunked,
    environments_from_json,
    environments_to_json,
)

ENVIRONMENT = Environment(
    "ocr",
    "inference",
    Path("/store/abc"),
    Path("/store/abc/bin/python"),
    "abc",
    Path("/cache"),
    entry="ocr:Model",
    env={"A": "b"},
    versions={"python": "3.11.7", "torch": "2.9.0"},
    lock_digest="d" * 64,
    source={"git": "https://git.example.org/ocr.git", "tag": "v1"},
)


def test_environments_survive_the_way_through_a_file() -> None:
    """What envbuilder writes is what a run reads."""
    command = Environment("tool", "eval", Path("/e"), Path("/e/bin/python"), "k", Path("/c"), command=("tool", "--x"))
    document = json.loads(json.dumps(environments_to_json([ENVIRONMENT, command])))
    assert document["schema"] == "envbuilder/environments/1"
    assert environments_from_json(document) == (ENVIRONMENT, command)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([], "expected schema"),
        ({"schema": "envbuilder/environments/2"}, "found 'envbuilder/environments/2'"),
        ({"schema": "envbuilder/environments/1"}, "environments"),
        ({"schema": "envbuilder/environments/1", "environments": [{"plugin": "x"}]}, "environments.0.stage"),
    ],
)
def test_other_documents_are_refused(document: object, text: str) -> None:
    """A file that is no list of environments is refused with what was found."""
    with pytest.raises(EnvironmentsError, match=text):
        environments_from_json(document)


def test_environment_needs_one_way_to_start() -> None:
    """A plugin has an entry or a command, not both, not neither."""
    facts = {"plugin": "x", "stage": "eval", "path": Path(), "python": Path(), "key": "k", "cache_dir": Path()}
    for more in ({}, {"entry": "a:b", "command": ("c",)}):
        with pytest.raises(ValueError, match="either an entry or a command"):
            Environment(**{**facts, **more})  # type: ignore[arg-type]


def test_extra_facts_never_replace_known_ones() -> None:
    """A plugin's extra facts stand beside the known keys of an answer and cannot forge them."""
    line = AnswerLine("1", "t", "t.1", "text", extra={"item": "2", "sure": 0.5})
    assert line.to_json()["item"] == "1"
    again = answer_line_from_json(line.to_json())
    assert (again.item, again.extra) == ("1", {"sure": 0.5})


def test_chunked_tells_how_many_are_left_out() -> None:
    """A long list in a message ends with the number of those not named."""
    assert chunked(["a", "b"]) == "a, b"
    assert chunked(list("abcdefg")) == "a, b, c, d, e and 2 more"
