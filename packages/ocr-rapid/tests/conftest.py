"""Images with text on them, drawn with the font that Pillow brings along."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont
from vlm_core import Context

from ocr_rapid import RapidOcr

Draw = Callable[..., Path]


@pytest.fixture(scope="session")
def plugin() -> RapidOcr:
    """Load a plugin as it is by default, on one thread."""
    plugin = RapidOcr()
    plugin.load(Context(params={"threads": 1}))
    return plugin


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Give a function that draws lines of text, black on white, and returns the image's path."""

    def make(*lines: str, size: int = 32, margin: int = 10, gap: int = 20, name: str = "text.png") -> Path:
        font = ImageFont.load_default(size)
        boxes = [font.getbbox(line) for line in lines]
        height = int(max(box[3] for box in boxes))
        width = int(max(box[2] for box in boxes)) + 2 * margin
        image = Image.new("L", (width, 2 * margin + len(lines) * height + (len(lines) - 1) * gap), 255)
        for row, line in enumerate(lines):
            ImageDraw.Draw(image).text((margin, margin + row * (height + gap)), line, font=font, fill=0)
        path = tmp_path / name
        image.save(path)
        return path

    return make
