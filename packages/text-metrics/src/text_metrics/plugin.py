"""The plugin class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vlm_core import Context, Evaluation, Record

from text_metrics.measures import METRICS, Share, add
from text_metrics.params import Params, read_params

Scores = Mapping[str, Share]


class TextMetrics:
    """Measures answers against references."""

    def __init__(self) -> None:
        self._params = Params()

    def load(self, context: Context) -> None:
        """Take the parameters.

        Args:
            context: its ``params`` may hold ``metrics`` and ``normalise``; see `text_metrics.params.read_params`.

        Raises:
            ParameterError: a parameter is unknown or has a value that can't be used.
        """
        self._params = read_params(context.params)

    def evaluate(self, records: Sequence[Record]) -> Evaluation:
        """Judge one inference task's answers on one data set.

        CER and WER over several items are the edits of all by the reference lengths of all, so a long text weighs
        more than a short one; ANLS and exact match are means over items. A record without an answer is wrong: all
        of its reference deleted, no points. With several references the one that suits the answer best counts.

        Args:
            records: items with references and answers.

        Returns:
            Figures overall (none where there are no records), by class (of the items that have one) and by item.

        Raises:
            ValueError: a record has no references.
        """
        scores = [self._score(record) for record in records]
        by_class: dict[str, list[Scores]] = {}
        for record, score in zip(records, scores, strict=True):
            if record.item.doc_class:
                by_class.setdefault(record.item.doc_class, []).append(score)
        return Evaluation(
            overall=self._sum_up(scores),
            by_class={name: self._sum_up(members) for name, members in sorted(by_class.items())},
            by_item=[
                {"item": record.item.id, **{name: share.value for name, share in score.items()}}
                for record, score in zip(records, scores, strict=True)
            ],
            lower_is_better=[name for name in self._params.metrics if METRICS[name].lower_is_better],
        )

    def _score(self, record: Record) -> Scores:
        if not record.references:
            raise ValueError(f"item {record.item.id!r} has no references: there is nothing to compare its answer with")
        references = [self._params.normalise(reference) for reference in record.references]
        answer = None if record.answer is None else self._params.normalise(record.answer)
        return {name: METRICS[name].best(references, answer) for name in self._params.metrics}

    def _sum_up(self, scores: Iterable[Scores]) -> dict[str, float]:
        listed = list(scores)
        return {name: add(score[name] for score in listed).value for name in self._params.metrics} if listed else {}
