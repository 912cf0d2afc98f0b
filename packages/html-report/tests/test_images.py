"""Thumbnails."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from html_report.images import LARGEST, thumbnail


def decoded(source: str) -> Image.Image:
    """Read a data URI back."""
    head, data = source.split(",", 1)
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_images_of_every_mode_are_shown(tmp_path: Path, mode: str) -> None:
    """Any image that Pillow reads becomes a small picture of its own shape."""
    path = tmp_path / "image.tiff"
    Image.new("L", (1440, 100), 200).convert("RGB" if mode in {"P", "CMYK"} else "L").convert(mode).save(path)
    found = thumbnail(str(path))
    assert found is not None
    assert (found.width, found.height) == (LARGEST[0], 50)
    assert decoded(found.source).size == (LARGEST[0], 50)


def test_deep_grey_is_not_clipped(tmp_path: Path) -> None:
    """A scan of 16 bits keeps its shades."""
    Image.new("I;16", (20, 20), 0x8000).save(tmp_path / "deep.png")
    found = thumbnail(str(tmp_path / "deep.png"))
    assert found is not None
    shade = decoded(found.source).convert("L").getpixel((10, 10))
    assert shade == pytest.approx(128, abs=4)


def test_small_images_are_not_blown_up(tmp_path: Path) -> None:
    """A digit of 28 pixels stays one."""
    Image.new("L", (28, 28)).save(tmp_path / "digit.png")
    found = thumbnail(str(tmp_path / "digit.png"))
    assert found is not None
    assert (found.width, found.height) == (28, 28)


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    """A missing file, a folder, something else and a cut-off image give nothing, and no error."""
    (tmp_path / "text.png").write_text("no image")
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:600])
    for name in ("missing.png", "", "text.png", "cut.png"):
        assert thumbnail(str(tmp_path / name)) is None, name
    assert thumbnail(None) is None


def test_image_bombs_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image with far more pixels than a scan has isn't unpacked."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("1", (15, 10)).save(tmp_path / "warned.png")
    Image.new("1", (50, 50)).save(tmp_path / "refused.png")
    assert thumbnail(str(tmp_path / "warned.png")) is None
    assert thumbnail(str(tmp_path / "refused.png")) is None
