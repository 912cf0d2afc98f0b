"""The loaded plugin, and pictures of text drawn with the font that Pillow brings along."""

from collections.abc import Callable
from pathlib import Path

import pytest
from ocr_crnn import CrnnOcr
from PIL import Image, ImageDraw, ImageFont
from vlm_core import Context

Draw = Callable[..., Path]


@pytest.fixture(scope="session")
def plugin() -> CrnnOcr:
    """Load a plugin as it is by default."""
    plugin = CrnnOcr()
    plugin.load(Context(device="cpu", batch=8))
    return plugin


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Give a function that draws one line of text and returns the image's path."""

    def make(text: str, *, size: int = 28, ink: int = 0, paper: int = 255) -> Path:
        font = ImageFont.load_default(size)
        left, top, right, bottom = font.getbbox(text)
        image = Image.new("L", (round(right - left) + 20, round(bottom - top) + 16), paper)
        ImageDraw.Draw(image).text((10 - left, 8 - top), text, font=font, fill=ink)
        path = tmp_path / f"{abs(hash((text, size, ink)))}.png"
        image.save(path)
        return path

    return make
