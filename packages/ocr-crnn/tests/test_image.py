"""From pictures to strips of ink."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Draw
from ocr_crnn.image import HEIGHT, LONGEST, WIDTH_STEP, prepare, read_line
from PIL import Image


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3), (640, 480), (20_000, 30)])
def test_prepared_lines_have_the_height_and_step(size: tuple[int, int]) -> None:
    """A picture of any size becomes a strip that the network takes."""
    noise = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    strip = prepare(Image.fromarray(noise))
    assert strip.shape[0] == HEIGHT
    assert strip.shape[1] % WIDTH_STEP == 0
    assert 0 < strip.shape[1] <= LONGEST


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F"])
def test_every_mode_shows_the_same_ink(draw: Draw, mode: str) -> None:
    """Colour, palette, depth and transparency do not change what is read."""
    grey = Image.open(draw("Sixteen modes"))
    expected = prepare(grey).astype(float)
    strip = prepare(grey.convert(mode)).astype(float)
    assert strip.shape == expected.shape
    assert np.abs(strip - expected).mean() < 25


def test_transparent_paper_is_white(draw: Draw, tmp_path: Path) -> None:
    """Black letters on a transparent ground are letters, not a black box."""
    grey = Image.open(draw("See through"))
    clear = Image.new("RGBA", grey.size, (0, 0, 0, 0))
    clear.putalpha(Image.eval(grey, lambda value: 255 - value))
    clear.save(tmp_path / "clear.png")
    assert np.abs(read_line(tmp_path / "clear.png").astype(float) - prepare(grey)).mean() < 8


@pytest.mark.parametrize("degrees", [-2.5, 2.5])
def test_a_turned_line_is_straightened(draw: Draw, degrees: float) -> None:
    """A long line that was turned comes out about as high as one that was not."""
    straight = Image.open(draw("A rather long line of text that was turned on its way"))
    turned = straight.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=255)
    assert prepare(turned).shape[1] == pytest.approx(prepare(straight).shape[1], rel=0.2)


def test_contrast_and_shading_are_evened_out(draw: Draw) -> None:
    """Pale letters on paper that darkens along the line become the ink that black on white does."""
    grey = np.asarray(Image.open(draw("Light falls off along the line")), dtype=float)
    pale = 120 + grey * 0.35 - np.linspace(0, 40, grey.shape[1])
    strip = prepare(Image.fromarray(pale.astype(np.uint8)))
    assert np.abs(strip.astype(float) - prepare(Image.fromarray(grey.astype(np.uint8)))).mean() < 20
