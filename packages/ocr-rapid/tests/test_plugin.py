"""Reading real images with the real models."""

import difflib
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image, ImageOps
from vlm_core import Context, InferencePlugin, Item

from ocr_rapid import ParameterError, RapidOcr

Draw = Callable[..., Path]


def read(plugin: RapidOcr, path: Path) -> str:
    """Read one image and return its text."""
    return plugin.predict([Item("1", image=path)])[0].text


def loaded(**params: object) -> RapidOcr:
    """Make a plugin with these parameters, on one thread."""
    plugin = RapidOcr()
    plugin.load(Context(params={"threads": 1, **params}))
    return plugin


def alike(first: str, second: str) -> bool:
    """Tell whether texts differ by a character or two: processors round differently, and models waver."""
    return difflib.SequenceMatcher(None, first, second, autojunk=False).ratio() > 0.95


def test_plugin_fits_the_contract() -> None:
    """The class is an inference plugin by its methods."""
    assert isinstance(RapidOcr(), InferencePlugin)


def test_line_is_read_without_detection(plugin: RapidOcr, draw: Draw) -> None:
    """A wide image is one line: nothing is cut out of it, so no word is lost."""
    text = "The quick brown fox jumps over the lazy dog"
    answer = plugin.predict([Item("1", image=draw(text))])[0]
    assert alike(answer.text, text)
    assert answer.extra["detected"] is False
    assert isinstance(answer.extra["confidence"], float)
    assert 0.9 < answer.extra["confidence"] <= 1.0


def test_page_is_read_row_by_row(plugin: RapidOcr, draw: Draw) -> None:
    """Of a page, every row becomes a line of the answer, in reading order."""
    lines = ("Dear Sir or Madam,", "please find the invoice", "attached to this letter.")
    answer = plugin.predict([Item("1", image=draw(*lines))])[0]
    found = answer.text.splitlines()
    assert len(found) == len(lines)
    assert all(map(alike, found, lines))
    assert answer.extra["detected"] is True
    assert isinstance(answer.extra["pieces"], int)
    assert answer.extra["pieces"] >= 3


@pytest.mark.parametrize(("digits", "size"), [("7", 22), ("7", 60), ("0042", 32), ("1250", 20), ("31415926", 90)])
def test_digits_are_read(plugin: RapidOcr, draw: Draw, digits: str, size: int) -> None:
    """Digits are read at any size, also a single one that fills its image and that detection overlooks."""
    assert read(plugin, draw(digits, size=size)) == digits


def test_detection_can_be_forced(draw: Draw) -> None:
    """`detect` overrules the guess from the image's shape, either way."""
    page = draw("first row of text", "second row of text")
    assert loaded(detect=True).predict([Item("1", image=page)])[0].extra["detected"] is True
    answer = loaded(detect=False).predict([Item("1", image=page)])[0]
    assert answer.extra["detected"] is False
    assert not alike(answer.text, "first row of text\nsecond row of text")
    assert read(loaded(detect=True), draw("7", size=60)) == ""


def test_blank_images_have_no_text(plugin: RapidOcr, tmp_path: Path) -> None:
    """A blank page or line is answered with an empty text and no confidence."""
    for name, size in {"line.png": (400, 40), "page.png": (200, 200), "dot.png": (1, 1)}.items():
        Image.new("L", size, 255).save(tmp_path / name)
        answer = plugin.predict([Item("1", image=tmp_path / name)])[0]
        assert (answer.text, answer.extra["pieces"]) == ("", 0), name


def test_every_kind_of_image_is_read(plugin: RapidOcr, draw: Draw, tmp_path: Path) -> None:
    """Two-colour, palette, 16-bit, transparent, CMYK and EXIF-turned images say the same as the grey one."""
    text = "Total amount due"
    grey = Image.open(draw(text))
    turned = Image.Exif()
    turned[0x0112] = 6  # stored lying on its side
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 0x101)
    clear = Image.merge("LA", (Image.new("L", grey.size, 0), ImageOps.invert(grey)))
    images = {
        "bits.png": grey.convert("1"),
        "palette.gif": grey.convert("P"),
        "deep.png": deep,
        "clear.png": clear,
        "print.jpg": grey.convert("RGB").convert("CMYK"),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
    grey.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=turned, quality=95)
    for name in (*images, "turned.jpg"):
        assert read(plugin, tmp_path / name) == text, name


def test_answers_do_not_depend_on_the_batch(plugin: RapidOcr, draw: Draw) -> None:
    """Answers come in the order of the items and are the same in a batch as alone."""
    short = draw("Short line", name="a.png")
    long = draw("A much longer line of text than the other one", name="b.png")
    together = plugin.predict([Item("1", image=long), Item("2", image=short), Item("3", image=long)])
    alone = [plugin.predict([Item("x", image=path)])[0] for path in (long, short, long)]
    assert together == alone


@pytest.mark.parametrize("content", [None, b"", b"this is no image", b"\x89PNG\r\n\x1a\n cut off"])
def test_missing_or_broken_image_raises(plugin: RapidOcr, tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing, empty, something else or cut off is an error that names it, never an answer."""
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OSError, match=r"broken\.png"):
        read(plugin, path)


def test_truncated_image_raises(plugin: RapidOcr, draw: Draw) -> None:
    """An image whose file ends half way is an error, although its size can still be told."""
    path = draw("Total amount due")
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(OSError, match="truncated"):
        read(plugin, path)


def test_item_without_image_raises(plugin: RapidOcr) -> None:
    """An item that has no image is named."""
    with pytest.raises(ValueError, match="item '9' has no image"):
        plugin.predict([Item("9", question="what is it?")])


def test_wrong_parameter_stops_the_load() -> None:
    """Parameters are checked before the models are loaded."""
    with pytest.raises(ParameterError, match="threads"):
        loaded(threads="all")


def test_predict_needs_load() -> None:
    """Calling in the wrong order is told, not guessed around."""
    with pytest.raises(RuntimeError, match="before load"):
        RapidOcr().predict([])


def test_threads_reach_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every session is made with the asked number of threads, or with all cores where more are asked for."""
    seen: list[int] = []
    make = onnxruntime.InferenceSession.__init__

    def spy(self: object, *args: object, sess_options: onnxruntime.SessionOptions, **kwargs: object) -> None:
        seen.append(sess_options.intra_op_num_threads)
        make(self, *args, sess_options=sess_options, **kwargs)

    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", spy)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    loaded(threads=1)
    loaded(threads=64)
    assert set(seen[:3]) == {1}
    assert set(seen[3:]) == {2}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the list of mapped files from /proc")
def test_import_needs_no_display_libraries() -> None:
    """Importing and loading the plugin maps no GL, X11, Qt or GLib library: it works where there are none."""
    code = (
        "from vlm_core import Context; from ocr_rapid import RapidOcr; RapidOcr().load(Context())\n"
        "print(open('/proc/self/maps').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded_files = {Path(line.split()[-1]).name for line in done.stdout.splitlines() if ".so" in line}
    assert any(name.startswith("cv2") for name in loaded_files)
    assert not [name for name in loaded_files if name.startswith(("libGL", "libX11", "libQt", "libglib", "libgthread"))]


def test_numpy_is_of_the_old_line() -> None:
    """The pins hold: this environment can't be shared with packages that need numpy 2."""
    assert version("numpy").startswith("1.")
