# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy==2.4.6", "pillow==13.0.0"]
# ///
"""Render document lines in Russian and English: the data set `lines`, and the lines that the OCR plugin trains on.

    uv run --script scripts/make_lines.py [FOLDER]

writes `annotation.csv` and `images/` to FOLDER, profiles/runs/data/lines where none is given. One seed gives the same
lines, always. The fonts are those of the Debian packages fonts-liberation, fonts-dejavu and fonts-paratype.

The data set is held out from training in three ways: its texts (`line_texts.py`), its typefaces (`HELD_OUT_FONTS`;
training has whole other families) and its noise (`HELD_OUT_NOISE`; training has other kinds in `TRAINING_NOISE`).
What both have is the layout of one line on paper, turned by a few degrees, and JPEG compression.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from line_texts import LANGUAGES, held_out_text, training_text
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Grey = npt.NDArray[np.float32]
"""A line (H, W), 0 black to 255 white."""
Noise = Callable[[Grey, random.Random, np.random.Generator], Grey]

PER_LANGUAGE = 150
SEED = 20240917
COLUMNS = ("data_index", "image_path", "question", "answer", "doc_class", "question_type")
QUESTION = "What is written in this line?"

FONT_FOLDER = Path("/usr/share/fonts/truetype")
HELD_OUT_FONTS = (
    *(f"paratype/PT{name}F.ttf" for name in ("F55", "F75", "F56", "F76", "M55", "M75", "Z55", "Z56")),
    *(f"liberation/LiberationSansNarrow-{style}.ttf" for style in ("Regular", "Bold")),
)
"""PT Serif, PT Serif Caption, PT Mono and Liberation Sans Narrow."""
_DEJAVU = ("Sans", "Sans-Bold", "Sans-Oblique", "SansCondensed", "SansCondensed-Bold", "Serif", "Serif-Bold")
_DEJAVU += ("Serif-Italic", "SerifCondensed", "SerifCondensed-Italic", "SansMono", "SansMono-Bold")
TRAINING_FONTS = (
    *(
        f"liberation/Liberation{family}-{style}.ttf"
        for family in ("Sans", "Serif", "Mono")
        for style in ("Regular", "Regular", "Bold", "Italic", "BoldItalic")
    ),
    *(f"dejavu/DejaVu{name}.ttf" for name in _DEJAVU),
    *(f"paratype/PT{name}F.ttf" for name in ("S55", "S75", "S56", "C55", "N57", "N77")),
)
"""Liberation Sans, Serif and Mono; DejaVu Sans, Serif and Sans Mono; PT Sans, Caption and Narrow."""


@dataclass(frozen=True)
class Style:
    """How a text is set: the font file, its size in pixels, the degrees it is turned by, the greys 0 to 255."""

    font: str
    size: int
    angle: float
    ink: int
    paper: int
    margin: int


@lru_cache(maxsize=512)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT_FOLDER / name), size, layout_engine=ImageFont.Layout.BASIC)


def render(text: str, style: Style) -> Grey:
    """Set a text in one line and turn it; the picture is as large as it needs to be."""
    font = _font(style.font, style.size)
    left, top, right, bottom = font.getbbox(text)
    size = (round(right - left) + 2 * style.margin, round(bottom - top) + 2 * style.margin)
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).text((style.margin - left, style.margin - top), text, fill=255, font=font)
    if style.angle:
        mask = mask.rotate(style.angle, Image.Resampling.BICUBIC, expand=True)
    coverage = np.asarray(mask, dtype=np.float32) / 255
    return style.paper + (style.ink - style.paper) * coverage


def _gaussian(low: float, high: float) -> Noise:
    """Grain of a camera; `low` and `high` bound its standard deviation in grey levels."""

    def apply(grey: Grey, rng: random.Random, numbers: np.random.Generator) -> Grey:
        return grey + numbers.normal(0, rng.uniform(low, high), grey.shape).astype(np.float32)

    return apply


def _salt_and_pepper(grey: Grey, rng: random.Random, numbers: np.random.Generator) -> Grey:
    dots = numbers.random(grey.shape)
    share = rng.uniform(0.003, 0.015)
    return np.where(dots < share, 0, np.where(dots > 1 - share, 255, grey)).astype(np.float32)


def _speckle(grey: Grey, rng: random.Random, numbers: np.random.Generator) -> Grey:
    return grey * numbers.normal(1, rng.uniform(0.02, 0.12), grey.shape).astype(np.float32)


def _blur(grey: Grey, rng: random.Random, _: np.random.Generator) -> Grey:
    image = Image.fromarray(_bytes(grey)).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    return np.asarray(image, dtype=np.float32)


def _motion(grey: Grey, rng: random.Random, _: np.random.Generator) -> Grey:
    """The smear of a page that moved by two or three pixels while it was scanned."""
    axis = rng.choice((0, 1))
    steps = range(rng.choice((2, 3)) if axis else 2)
    return np.mean([np.roll(grey, step, axis) for step in steps], axis=0, dtype=np.float32)


def _jpeg(low: int, high: int) -> Noise:
    """JPEG at a quality between `low` and `high`."""

    def apply(grey: Grey, rng: random.Random, _: np.random.Generator) -> Grey:
        file = io.BytesIO()
        Image.fromarray(_bytes(grey)).save(file, "JPEG", quality=rng.randint(low, high))
        return np.asarray(Image.open(file), dtype=np.float32)

    return apply


def _gradient(grey: Grey, rng: random.Random, _: np.random.Generator) -> Grey:
    """Light that falls off from one side to the other."""
    rows, columns = (np.linspace(-1, 1, n, dtype=np.float32) for n in grey.shape)
    return grey + rng.uniform(-35, 35) * columns[None, :] + rng.uniform(-15, 15) * rows[:, None]


def _smooth_field(shape: tuple[int, int], cells: int, numbers: np.random.Generator) -> Grey:
    """A field (H, W) in [0, 1] that changes slowly: random cells, as high as the line, blown up."""
    small = numbers.random((2, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(small).resize(shape[::-1], Image.Resampling.BICUBIC)).clip(0, 1)


def _stains(grey: Grey, rng: random.Random, numbers: np.random.Generator) -> Grey:
    """Paper that has aged in blotches."""
    return grey - rng.uniform(15, 60) * _smooth_field((grey.shape[0], grey.shape[1]), rng.randint(4, 9), numbers)


def _fading(grey: Grey, rng: random.Random, numbers: np.random.Generator) -> Grey:
    """Ink that is paler here and there along the line."""
    paper = float(np.median(grey))
    field = _smooth_field((grey.shape[0], grey.shape[1]), rng.randint(3, 7), numbers)
    return paper + (grey - paper) * (1 - rng.uniform(0.3, 0.65) * field)


def _strokes(grey: Grey, rng: random.Random, _: np.random.Generator) -> Grey:
    """A pen that is thicker or thinner than the font's."""
    image = Image.fromarray(_bytes(grey))
    other = image.filter(ImageFilter.MinFilter(3) if rng.random() < 0.6 else ImageFilter.MaxFilter(3))
    return np.asarray(Image.blend(image, other, rng.uniform(0.1, 0.5)), dtype=np.float32)


# Each noise with how often a line gets it, in the order they are applied.
HELD_OUT_NOISE: tuple[tuple[float, Noise], ...] = (
    (0.30, _fading),
    (0.30, _stains),
    (0.20, _motion),
    (0.30, _gaussian(3, 9)),
    (0.25, _salt_and_pepper),
    (0.35, _jpeg(25, 60)),
)
TRAINING_NOISE: tuple[tuple[float, Noise], ...] = (
    (0.25, _strokes),
    (0.35, _gradient),
    (0.40, _blur),
    (0.40, _speckle),
    (0.30, _gaussian(8, 22)),
    (0.35, _jpeg(40, 90)),
)


def _bytes(grey: Grey) -> npt.NDArray[np.uint8]:
    return grey.clip(0, 255).round().astype(np.uint8)


def draw(text: str, style: Style, noise: tuple[tuple[float, Noise], ...], rng: random.Random) -> Image.Image:
    """Render a text and spoil it."""
    grey = render(text, style)
    numbers = np.random.default_rng(rng.getrandbits(64))
    for chance, apply in noise:
        if rng.random() < chance:
            grey = apply(grey, rng, numbers)
    return Image.fromarray(_bytes(grey))


def held_out_line(rng: random.Random, text: str) -> Image.Image:
    """Draw a line of the data set, small enough for three hundred of them to be kept in git."""
    paper = rng.randint(185, 250)
    style = Style(
        font=rng.choice(HELD_OUT_FONTS),
        size=rng.randint(19, 25),
        angle=rng.uniform(-2.5, 2.5) if rng.random() < 0.6 else 0.0,
        # From fresh ink to pencil: a low contrast of 75 levels at worst.
        ink=rng.randint(10, 90) if rng.random() < 0.75 else paper - rng.randint(75, 110),
        paper=paper,
        margin=rng.randint(4, 9),
    )
    return draw(text, style, HELD_OUT_NOISE, rng)


def training_line(rng: random.Random, language: str) -> tuple[Image.Image, str]:
    """Draw a line to train on; return it with its text."""
    text = training_text(rng, language)
    paper = rng.randint(150, 255)
    style = Style(
        font=rng.choice(TRAINING_FONTS),
        size=rng.randint(15, 38),
        angle=rng.uniform(-3, 3) if rng.random() < 0.5 else 0.0,
        ink=rng.randint(0, paper - 60),
        paper=paper,
        margin=rng.randint(2, 14),
    )
    image = draw(text, style, TRAINING_NOISE, rng)
    return (Image.eval(image, lambda value: 255 - value) if rng.random() < 0.05 else image), text


def write_data_set(folder: Path) -> int:
    """Write the annotation table and its pictures; return how many there are."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)  # noqa: S311 - nothing secret
    rows: list[tuple[object, ...]] = []
    seen: set[str] = set()
    for language in LANGUAGES:
        while len(rows) < PER_LANGUAGE * (1 + LANGUAGES.index(language)):
            text = held_out_text(rng, language)
            if text in seen:
                continue
            seen.add(text)
            name = f"{len(rows) + 1:04}.png"
            held_out_line(rng, text).save(images / name, optimize=True)
            rows.append((len(rows) + 1, f"images/{name}", QUESTION, text, f"line-{language}", "transcription"))
    with (folder / "annotation.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter=";", lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)
    return len(rows)


def main(arguments: list[str]) -> int:
    """Write the data set to the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Write the data set of document lines.")
    default = Path(__file__).resolve().parents[1] / "profiles/runs/data/lines"
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    folder: Path = parser.parse_args(arguments).folder
    missing = [name for name in {*HELD_OUT_FONTS, *TRAINING_FONTS} if not (FONT_FOLDER / name).is_file()]
    if missing:
        print(f"{len(missing)} fonts are missing, such as {FONT_FOLDER / missing[0]}", file=sys.stderr)
        print("hint: apt install fonts-liberation fonts-dejavu fonts-paratype", file=sys.stderr)
        return 2
    print(f"{write_data_set(folder)} lines in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
