from __future__ import annotations

import itertools
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.models import AnswerLine, DataItem
from pipeline.protocol import Decoder, Message, record_documents


def _line(sequence: int, kind: str = "log", *, attempt: str = "a", version: int = 1, **body: object) -> bytes:
    return json.dumps({"v": version, "seq": sequence, "attempt": attempt, "type": kind, **body}).encode() + b"\n"


def _decode(stream: bytes, decoder: Decoder, cuts: list[int]) -> list[Message]:
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    blocks = [stream[start:end] for start, end in itertools.pairwise(places)]
    found = [message for block in blocks for message in decoder.feed(block)]
    decoder.finish()
    return found


@given(st.lists(st.text(), max_size=8), st.lists(st.integers(0, 10_000), max_size=10))
def test_messages_do_not_depend_on_how_bytes_come(texts: list[str], cuts: list[int]) -> None:
    """However the stream is cut, each message comes once, in order, and nothing is counted as odd."""
    decoder = Decoder("a")
    stream = b"".join(b"\n" + _line(number, text=text) for number, text in enumerate(texts, 1))
    assert [message.text("text") for message in _decode(stream, decoder, cuts)] == texts
    assert not decoder.anomalies


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(0, 10_000), max_size=10))
def test_rubbish_between_messages_costs_none(blobs: list[bytes], cuts: list[int]) -> None:
    """Whatever stands between messages, every message comes, for each begins with a line end."""
    decoder = Decoder("a")
    stream = b"".join(blob + b"\n" + _line(number) for number, blob in enumerate(blobs, 1))
    assert [message.sequence for message in _decode(stream, decoder, cuts)] == list(range(1, len(blobs) + 1))


def test_odd_lines_are_counted_by_kind() -> None:
    """Torn lines, stale attempts, other versions, unknown types and gaps are each counted."""
    decoder = Decoder("a")
    stream = b"".join(
        [
            b"{half\n[1]\n",
            _line(1, attempt="b"),
            _line(1, version=2),
            _line(1, "surprise"),
            _line(1),
            _line(4),
            b"\n\n  \n",
            b'{"v": 1',
        ]
    )
    assert [message.sequence for message in _decode(stream, decoder, [])] == [1, 4]
    assert decoder.anomalies == {"torn": 3, "stale": 1, "unknown": 2, "missing": 2}


def test_line_without_end_is_dropped_and_what_follows_comes() -> None:
    """A flood without a line end is not kept in memory, and the next line is read again."""
    decoder = Decoder("a", longest=1000)
    for _ in range(100):
        assert not list(decoder.feed(b"x" * 100))
        assert len(decoder._rest) <= 1000
    assert [message.sequence for message in decoder.feed(b"\n" + _line(1))] == [1]
    assert decoder.anomalies == {"too-long": 1}


def test_deeply_nested_line_is_torn() -> None:
    """Brackets without end are rubbish, not a crash."""
    decoder = Decoder("a")
    assert not list(decoder.feed(b"[" * 200_000 + b"\n"))
    assert decoder.anomalies == {"torn": 1}


def test_fields_of_a_message_are_what_they_should_be_or_none() -> None:
    """A field of another type than expected is as good as absent."""
    message = Message("answer", 1, {"item": 3, "latency_s": True, "load_s": 2})
    assert (message.text("item"), message.number("latency_s"), message.number("load_s")) == (None, None, 2)


def test_records_hold_answers_errors_and_what_is_absent() -> None:
    """Each item comes with its answer, with its error, or with the remark that there is neither."""
    items = [DataItem("1", ("x",), image=Path("/i.png")), DataItem("2", ("y",)), DataItem("3", ("z",))]
    answers = {"1": AnswerLine("1", "t", "a", "hi", latency_s=0.5), "2": AnswerLine("2", "t", "a", error="bad")}
    first, second, third = record_documents(items, answers)
    assert (first["answer"], first["error"], first["latency_s"]) == ("hi", None, 0.5)
    assert (second["answer"], second["error"]) == (None, "bad")
    assert str(third["error"]).startswith("no-answer")
    assert isinstance(first["item"], dict)
    assert first["item"]["image"] == "/i.png"
