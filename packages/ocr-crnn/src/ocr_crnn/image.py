"""From an image file to the strip of ink that the network reads."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

HEIGHT = 32
"""Height of a prepared line in pixels."""
WIDTH_STEP = 4
"""Prepared widths are multiples of this, the network's horizontal stride."""
STRETCH = 1.25
"""Lines are widened by this much: two narrow letters in a row need three frames of 4 pixels to be told apart."""
LONGEST = 4096
"""Widest prepared line in pixels; a longer one is squeezed."""

_WORKING_HEIGHT = 96
_SKEW = np.tan(np.radians(np.arange(-4, 4.01, 0.25)))

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def read_line(path: str | Path) -> Bytes:
    """Open an image and prepare it; raises PIL's `UnidentifiedImageError` for what is no image."""
    with Image.open(path) as image:
        return prepare(image)


def prepare(image: Image.Image) -> Bytes:
    """Return the line as (HEIGHT, W) bytes, 255 for ink and 0 for paper, straight, cropped and W a multiple of 4."""
    ink = _straighten(_ink(_grey(image)))
    top, bottom = _text_rows(ink)
    strip = Image.fromarray((ink[top:bottom] * 255).astype(np.uint8))
    width = round(strip.width * STRETCH * HEIGHT / strip.height / WIDTH_STEP) * WIDTH_STEP
    width = min(max(width, 2 * WIDTH_STEP), LONGEST)
    return np.asarray(strip.resize((width, HEIGHT), Image.Resampling.BILINEAR))


def _grey(image: Image.Image) -> Floats:
    """Return the image as (H, W) in [0, 1], on white paper where it is transparent, at most twice working height."""
    if image.mode.startswith(("I", "F")):
        deep = np.asarray(image, dtype=np.float32)
        low, high = float(deep.min()), float(deep.max())
        image = Image.fromarray(((deep - low) / max(high - low, 1e-6) * 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L")
    if image.height > 2 * _WORKING_HEIGHT:
        size = (max(1, round(image.width * _WORKING_HEIGHT / image.height)), _WORKING_HEIGHT)
        image = image.resize(size, Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _ink(grey: Floats) -> Floats:
    """Return how inked each pixel is, 0 to 1, whatever the polarity, the shading along the line and the contrast."""
    low, middle, high = np.percentile(grey, (1, 50, 99))
    if middle < (low + high) / 2:
        grey = 1 - grey
    # One strip as wide as the line is high holds a few letters: enough paper to know its shade.
    strips = max(1, round(grey.shape[1] / grey.shape[0]))
    edges = np.linspace(0, grey.shape[1], strips + 1).round().astype(int)
    centres = (edges[:-1] + edges[1:]) / 2
    columns = np.arange(grey.shape[1])

    def along(values: list[float]) -> Floats:
        interpolated: Floats = np.interp(columns, centres, values).astype(np.float32)
        return interpolated

    paper = along([float(np.percentile(grey[:, a:b], 80)) for a, b in pairwise(edges)])
    ink = np.maximum(paper - grey, 0)
    strongest = np.array([float(np.percentile(ink[:, a:b], 97)) for a, b in pairwise(edges)])
    # A strip of bare paper must not have its grain blown up to ink, hence half of the whole line's strength at least.
    whole = max(float(np.percentile(ink, 97)), 0.02)
    inkiness: Floats = np.clip(ink / along(np.maximum(strongest, whole / 2).tolist()), 0, 1)
    return inkiness


def _straighten(ink: Floats) -> Floats:
    """Shear a long line (H, W) so that its rows of ink are as peaked as can be."""
    height, width = ink.shape
    if width < 3 * height / 2:
        return ink
    rows, columns = np.nonzero(ink > 0.5)
    if rows.size == 0:
        return ink
    offsets = columns - width / 2
    margin = int(np.ceil(np.abs(_SKEW).max() * width / 2)) + 1
    peaks = []
    for slope in _SKEW:
        profile = np.bincount((rows - slope * offsets).round().astype(int) + margin, minlength=height + 2 * margin)
        peaks.append(float((profile.astype(float) ** 2).sum()))
    slope = float(_SKEW[int(np.argmax(peaks))])
    if slope == 0:
        return ink
    # Output pixel (x, y) is taken from (x, y + slope * (x - width / 2)).
    matrix = (1, 0, 0, slope, 1, -slope * width / 2)
    sheared = Image.fromarray(ink).transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(sheared)


def _text_rows(ink: Floats) -> tuple[int, int]:
    """Return the first row of text and the row after its last, with a little air; all rows where no text stands out."""
    profile = (ink > 0.5).sum(axis=1).astype(float)
    floor, peak = float(np.percentile(profile, 5)), float(profile.max())
    inked = np.flatnonzero(profile > floor + max(1.5, 0.03 * (peak - floor)))
    if inked.size < 3:
        return 0, ink.shape[0]
    air = round(0.06 * (inked[-1] - inked[0]))
    # Below there may be a lone comma or tail that is too thin to count.
    return max(0, int(inked[0]) - 1 - air), min(ink.shape[0], int(inked[-1]) + 2 + 2 * air)
