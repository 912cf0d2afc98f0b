"""What passes between the runner and a plugin."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, Optional, Sequence, Tuple


@dataclass(frozen=True)
class Item:
    """One question about one image.

    Attributes:
        id: unique within its data set.
        image: absolute path of the image, or None for a question without one. The file is there; whether it is
            an image is for the plugin to find out.
        question: what is asked; may be empty.
        doc_class: the class that figures are broken down by, such as ``line-ru``.
        question_type: free text from the annotation table, such as ``transcription``.
        fields: every other column of the annotation table, by name.
    """

    id: str
    image: Optional[Path] = None
    question: str = ""
    doc_class: str = ""
    question_type: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a model says to one item; a plain ``str`` serves where there is nothing to add.

    Attributes:
        text: the answer.
        extra: JSON-serialisable facts worth keeping, such as a confidence.
    """

    text: str
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """An item together with what was expected and what was answered; what an eval plugin judges.

    Attributes:
        item: the item.
        references: acceptable answers, at least one.
        answer: the model's answer, or None where there is none.
        error: why there is no answer, or None.
        latency_s: seconds that the item took; within a batch, its share of the batch.
    """

    item: Item
    references: Tuple[str, ...]
    answer: Optional[str] = None
    error: Optional[str] = None
    latency_s: Optional[float] = None


@dataclass(frozen=True)
class Context:
    """Where and how a plugin works.

    Attributes:
        params: the task's parameters from the run file.
        device: ``cuda`` where the task holds a GPU, else ``cpu``.
        seed: the run's seed.
        batch: the most items that one call of `predict` gets.
        cache_dir: an absolute folder for files worth keeping between runs.
        output: the file that a report plugin writes; None at other stages.
    """

    params: Mapping[str, object] = field(default_factory=dict)
    device: str = "cpu"
    seed: int = 0
    batch: int = 1
    cache_dir: Optional[Path] = None
    output: Optional[Path] = None


@dataclass(frozen=True)
class Evaluation:
    """The figures of one inference task on one data set.

    Attributes:
        overall: metric name to value over all items.
        by_class: `Item.doc_class` to metric name to value.
        by_item: one mapping per record: ``item`` is its id, the rest metric name to value.
        lower_is_better: the metrics for which a smaller value is the better one.
    """

    overall: Mapping[str, float]
    by_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    by_item: Sequence[Mapping[str, object]] = ()
    lower_is_better: Sequence[str] = ()
