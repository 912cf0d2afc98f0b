"""RapidOCR, as this plugin uses it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from rapidocr_onnxruntime import RapidOCR

from ocr_rapid.params import Params
from ocr_rapid.reading import Piece

Pixels = npt.NDArray[np.uint8]


def load_image(path: Path) -> Pixels:
    """Read an image as people see it: turned as its EXIF says, what is transparent on white paper.

    RapidOCR's own loader turns transparent images into their negatives and ignores EXIF.

    Args:
        path: any format that Pillow reads.

    Returns:
        Height x width x 3 bytes, blue first.

    Raises:
        OSError: the file is missing, truncated, or no image.
    """
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened)
        if upright.mode.startswith("I"):
            # Pillow clips 16-bit grey at 255 instead of scaling it, which leaves a white page.
            upright = Image.fromarray((np.asarray(upright).clip(0, 0xFFFF) // 0x101).astype(np.uint8))
        layers = upright.convert("RGBA")
    page = Image.new("RGBA", layers.size, "white")
    page.alpha_composite(layers)
    return np.ascontiguousarray(np.asarray(page.convert("RGB"))[:, :, ::-1])


class Engine:
    """The detection and recognition models that the rapidocr-onnxruntime wheel brings along."""

    def __init__(self, params: Params) -> None:
        """Load the models.

        Args:
            params: threads and the least confidence.
        """
        options: dict[str, Any] = {"text_score": params.min_confidence}
        if params.threads is not None:
            # RapidOCR ignores a number above the count of cores and would then take all of them.
            options["intra_op_num_threads"] = min(params.threads, os.cpu_count() or 1)
            cv2.setNumThreads(params.threads)
        self._rapid = RapidOCR(**options)

    def read_line(self, image: Pixels) -> Piece:
        """Read the whole image as one line."""
        # The recogniser was trained on boxes with air around the text: without it, it drops letters at both ends.
        height, width = image.shape[:2]
        air = height // 2 if width > height else 0  # A single letter would only get smaller.
        padded = cv2.copyMakeBorder(image, 0, 0, air, air, cv2.BORDER_REPLICATE)
        found, _ = self._rapid(padded, use_det=False, use_cls=False, use_rec=True)
        text, confidence = found[0]
        return Piece(text.strip(), float(confidence), bottom=float(image.shape[0]))

    def read_boxes(self, image: Pixels) -> list[Piece]:
        """Look for boxes of text and read each; what is read with too little confidence is left out."""
        found, _ = self._rapid(image, use_det=True, use_cls=False, use_rec=True)
        return [_piece(corners, text, confidence) for corners, text, confidence in found or ()]


def _piece(corners: list[list[float]], text: str, confidence: float) -> Piece:
    across, down = zip(*corners, strict=True)
    return Piece(text, float(confidence), left=min(across), top=min(down), bottom=max(down))
