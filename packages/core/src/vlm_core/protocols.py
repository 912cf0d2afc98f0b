"""What the runner calls, stage by stage. Each class is created without arguments."""

from __future__ import annotations

from typing import Protocol, Sequence, Union, runtime_checkable

from vlm_core.data import Answer, Context, Evaluation, Item, Record
from vlm_core.documents import ReportDocument


@runtime_checkable
class InferencePlugin(Protocol):
    """A model."""

    def load(self, context: Context) -> None:
        """Load weights onto ``context.device``; called once, before any batch."""

    def predict(self, batch: Sequence[Item]) -> Sequence[Union[str, Answer]]:
        """Answer every item of the batch, in its order.

        An exception fails the whole batch; the runner then offers its items one by one, so that one bad image
        costs one item.
        """


@runtime_checkable
class ImageQuestionPlugin(Protocol):
    """A model in the style of many existing benchmarks; works unchanged, without `load`."""

    def predict_on_image(self, image: str, question: str) -> str:
        """Answer a question about the image at that path."""


@runtime_checkable
class EvalPlugin(Protocol):
    """A judge of answers."""

    def load(self, context: Context) -> None:
        """Take the parameters; called once."""

    def evaluate(self, records: Sequence[Record]) -> Evaluation:
        """Judge one inference task's answers on one data set; a record without an answer counts as wrong."""


@runtime_checkable
class ReportPlugin(Protocol):
    """A writer of reports."""

    def load(self, context: Context) -> None:
        """Take the parameters and the output path; called once."""

    def render(self, report: ReportDocument) -> None:
        """Write ``context.output``."""
