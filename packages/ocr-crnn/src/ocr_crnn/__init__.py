"""A small reader of Russian and English document lines: convolutions, BiLSTM and CTC, weights included."""

from ocr_crnn.plugin import CrnnOcr

__version__ = "0.1.0"

__all__ = ["CrnnOcr", "__version__"]
