# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy==2.4.6", "pillow==13.0.0", "scikit-learn==1.9.1"]
# ///
"""Write the data set `digits`: scans of handwritten digits, from scikit-learn's copy of the UCI collection.

    uv run --script scripts/make_digits.py [FOLDER]

writes `annotation.csv` and `images/` to FOLDER, profiles/runs/data/digits where none is given: the last 300 of the
1,797 scans, in their order. The OCR plugin trains on the first 1,200, and on none of the rest. The scans are 8x8
pixels of 17 greys (E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, 1998, CC BY 4.0); here they
are dark on light and blown up eightfold, with a margin.
"""

from __future__ import annotations

import argparse
import csv
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

TRAINING_COUNT = 1200
HELD_OUT_COUNT = 300
COLUMNS = ("data_index", "image_path", "question", "answer", "doc_class", "question_type")
QUESTION = "Which digit is this?"
SIDE = 64
MARGIN = 8


@lru_cache(maxsize=1)
def scans() -> tuple[npt.NDArray[np.float64], list[int]]:
    """Return all scans (1797, 8, 8), 0 paper to 16 ink, and the digits they show."""
    collection = load_digits()
    return collection.images, [int(digit) for digit in collection.target]


def draw(scan: npt.NDArray[np.float64], side: int = SIDE) -> Image.Image:
    """Return a scan (8, 8) as a smooth grey picture with `side` pixels a side and a margin."""
    paper = Image.fromarray((255 - scan * 255 / 16).round().astype(np.uint8))
    margin = side * MARGIN // SIDE
    picture = Image.new("L", (side + 2 * margin, side + 2 * margin), 255)
    picture.paste(paper.resize((side, side), Image.Resampling.BICUBIC), (margin, margin))
    return picture


def write_data_set(folder: Path) -> int:
    """Write the annotation table and its pictures; return how many there are."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    pictures, digits = scans()
    held_out = list(zip(pictures, digits, strict=True))[-HELD_OUT_COUNT:]
    with (folder / "annotation.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter=";", lineterminator="\n")
        table.writerow(COLUMNS)
        for index, (scan, digit) in enumerate(held_out, start=1):
            draw(scan).save(images / f"{index:04}.png", optimize=True)
            table.writerow((index, f"images/{index:04}.png", QUESTION, digit, "digit", "transcription"))
    return len(held_out)


def main(arguments: list[str]) -> int:
    """Write the data set to the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Write the data set of handwritten digits.")
    default = Path(__file__).resolve().parents[1] / "profiles/runs/data/digits"
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    folder: Path = parser.parse_args(arguments).folder
    print(f"{write_data_set(folder)} digits in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
