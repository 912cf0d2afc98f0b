"""The contract that plugins of a benchmark are written against.

A plugin is a class that the runner creates without arguments inside the plugin's own environment.
It gets a `Context` once, in `load`, and then does one stage's work:

* inference: `predict(batch)` turns items into answers (`InferencePlugin`);
* eval: `evaluate(records)` turns answers and references into figures (`EvalPlugin`);
* report: `render(report)` turns everything into one file (`ReportPlugin`).

The runner hands over objects with the attributes written here; it does not import this package, and a plugin
needs it only for its types and tests.
"""

from vlm_core.data import Answer, Context, Evaluation, Item, Record
from vlm_core.documents import EvaluationDocument, RecordDocument, ReportDocument, RunDocument, TaskDocument
from vlm_core.protocols import EvalPlugin, ImageQuestionPlugin, InferencePlugin, ReportPlugin

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Context",
    "EvalPlugin",
    "Evaluation",
    "EvaluationDocument",
    "ImageQuestionPlugin",
    "InferencePlugin",
    "Item",
    "Record",
    "RecordDocument",
    "ReportDocument",
    "ReportPlugin",
    "RunDocument",
    "TaskDocument",
    "__version__",
]
