"""The answers that were most wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlm_core import RecordDocument

from html_report.images import Thumbnail, thumbnail
from html_report.marks import Mark, mark, nearest
from html_report.results import Metric, Result
from html_report.text import figure, seconds
from html_report.verdicts import first_metric

OTHERS = 3
"""Other models whose answer to the same item is shown."""


@dataclass(frozen=True)
class Other:
    """What another model made of the same item."""

    model: str
    answer: str
    value: str


@dataclass(frozen=True)
class Example:
    """A wrong answer.

    Attributes:
        record: the item as it was answered.
        reference: the reference nearest to the answer, in stretches.
        answer: the answer, in stretches.
        more_references: how many other references there are.
        value: the item's figure.
        latency: the time that it took.
        image: the item's image, if it has one that can be read.
        others: other models' answers to it.
    """

    record: RecordDocument
    reference: tuple[Mark, ...]
    answer: tuple[Mark, ...]
    more_references: int
    value: str
    latency: str
    image: Thumbnail | None
    others: tuple[Other, ...]


@dataclass(frozen=True)
class Group:
    """The most wrong answers of one model on one data set.

    Attributes:
        model, data: whose they are.
        metric: what they are ranked by.
        wrong: how many answers are wrong in all.
        answered: how many answers there are.
        examples: the worst first.
    """

    model: str
    data: str
    metric: Metric
    wrong: int
    answered: int
    examples: tuple[Example, ...]


def pick_examples(results: Sequence[Result], most: int) -> list[Group]:
    """Pick the most wrong answers of each model.

    Args:
        results: models on data sets; those without figures by item are left out.
        most: the most examples for one of them; with 0 there are no groups.
    """
    if not most:
        return []
    answers = {(result.task["id"], record["item"]): record for result in results for record in result.records}
    groups = []
    for result in results:
        metric = first_metric([result])
        if metric is None or not any(metric in figures for figures in result.by_item.values()):
            continue
        wrong = _rank(result, metric)
        rivals = [other for other in results if other.data == result.data and other is not result]
        groups.append(
            Group(
                model=result.model,
                data=result.data,
                metric=metric,
                wrong=len(wrong),
                answered=sum(record["answer"] is not None for record in result.records),
                examples=tuple(
                    _show(record, result, metric, _others(record["item"], metric, rivals, answers))
                    for record in wrong[:most]
                ),
            )
        )
    return groups


def _rank(result: Result, metric: Metric) -> list[RecordDocument]:
    """Sort the wrong answers, the worst first; what stands in the references or has a perfect figure isn't wrong."""
    wrong = []
    for record in result.records:
        value = result.by_item.get(record["item"], {}).get(metric)
        if record["answer"] is None or value is None or record["answer"] in record["references"]:
            continue
        if not (value <= 0 if metric.lower_is_better else value == 1):
            wrong.append((value, record))
    wrong.sort(key=lambda pair: pair[0], reverse=metric.lower_is_better)
    return [record for _, record in wrong]


def _show(record: RecordDocument, result: Result, metric: Metric, others: Sequence[Other]) -> Example:
    reference, answer = mark(nearest(record["references"], record["answer"]), record["answer"] or "")
    return Example(
        record=record,
        reference=reference,
        answer=answer,
        more_references=len(record["references"]) - 1,
        value=figure(result.by_item[record["item"]][metric]),
        latency=seconds(record["latency_s"]),
        image=thumbnail(record["image"]),
        others=tuple(others[:OTHERS]),
    )


def _others(
    item: str, metric: Metric, rivals: Sequence[Result], answers: Mapping[tuple[str, str], RecordDocument]
) -> list[Other]:
    found = []
    for rival in rivals:
        record = answers.get((rival.task["id"], item))
        if record is not None and record["answer"] is not None:
            found.append(Other(rival.model, record["answer"], figure(rival.by_item.get(item, {}).get(metric))))
    return found
