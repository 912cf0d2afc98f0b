"""Images that travel inside the report."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

LARGEST = (720, 320)
"""Width and height in pixels that a thumbnail keeps at most: twice what is shown, for dense screens."""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture.

    Attributes:
        source: the picture itself, as a data URI.
        width, height: its size in pixels.
    """

    source: str
    width: int
    height: int


def thumbnail(path: str | None) -> Thumbnail | None:
    """Make a picture small enough to be embedded.

    Args:
        path: an image file.

    Returns:
        The picture, or None where there is no file, or none that can be read: a report must not fail over an image.
    """
    if path is None:
        return None
    try:
        # An image so large that Pillow warns of a bomb is left out like one that can't be read.
        with warnings.catch_warnings(), Image.open(Path(path)) as opened:
            warnings.simplefilter("error")
            opened.draft("RGB", LARGEST)
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I"):
                picture = picture.point(lambda value: value / 257).convert("L")  # 16 bits to 8
            picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning):
        return None
    picture.thumbnail(LARGEST)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/webp;base64,{data}", picture.width, picture.height)
