"""Inference plugin that reads printed text with RapidOCR, on the CPU."""

from ocr_rapid.params import ParameterError
from ocr_rapid.plugin import RapidOcr

__version__ = "0.1.0"

__all__ = ["ParameterError", "RapidOcr", "__version__"]
