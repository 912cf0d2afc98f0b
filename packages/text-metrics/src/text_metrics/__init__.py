"""Eval plugin that measures how far answers are from their references.

CER, WER, ANLS and exact match; by item, by document class and overall.
"""

from text_metrics.params import ParameterError
from text_metrics.plugin import TextMetrics

__version__ = "0.1.0"

__all__ = ["ParameterError", "TextMetrics", "__version__"]
