# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.13.0", "safetensors==0.8.0", "numpy==2.4.6", "pillow==13.0.0", "scikit-learn==1.9.1"]
# ///
# ruff: noqa: S311 - nothing secret hangs on these random numbers
"""Train the OCR plugin's network on two CPU cores in under an hour, and measure it on the held-out data sets.

    uv run --script scripts/train_crnn.py [--cache FOLDER]      train, write the weights, measure
    uv run --script scripts/train_crnn.py --evaluate            measure the weights that are there

First a pool of lines is rendered and prepared as the plugin prepares them, with digits among them, and kept in the
cache folder; then the network goes over the pool several times, each time in new distortions. A training that was
stopped goes on from its last checkpoint in the cache folder. Needs the fonts that make_lines.py names.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from make_digits import TRAINING_COUNT, draw, scans
from make_lines import LANGUAGES, training_line
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "packages/ocr-crnn/src"), str(ROOT / "packages/core/src")]

from ocr_crnn.alphabet import BLANK, encode  # noqa: E402 - found on the path set above
from ocr_crnn.decode import greedy  # noqa: E402
from ocr_crnn.image import HEIGHT, WIDTH_STEP, prepare  # noqa: E402
from ocr_crnn.model import Crnn, collate  # noqa: E402
from ocr_crnn.plugin import WEIGHTS, CrnnOcr  # noqa: E402
from vlm_core import Context, Item  # noqa: E402

DATA = ROOT / "profiles/runs/data"
CHUNK = 500
DIGIT_SHARE = 0.12
BATCH_PIXELS = 64 * 448
"""Widths of one batch, summed: short lines come in larger batches than long ones."""
LARGEST_BATCH = 192


@dataclass(frozen=True)
class Pool:
    """Prepared lines: their bytes end to end, the first byte of each, and their texts."""

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    texts: list[str]

    def line(self, index: int) -> Tensor:
        """Return one line (HEIGHT, W) of bytes."""
        return torch.from_numpy(np.array(self.data[self.starts[index] : self.starts[index + 1]]).reshape(HEIGHT, -1))

    def widths(self) -> npt.NDArray[np.int64]:
        """Return every line's width (N,) in pixels."""
        return np.diff(self.starts) // HEIGHT


def digit_row(rng: random.Random) -> tuple[Image.Image, str]:
    """Draw one to four handwritten digits in a row, each turned and slanted a little; mostly just one."""
    pictures, digits = scans()
    count = rng.choices((1, 2, 3, 4), (70, 12, 10, 8))[0]
    side = rng.choice((16, 24, 32, 48, 64))
    row = Image.new("L", (count * side * 5 // 4, side * 5 // 4), 255)
    text = ""
    for place in range(count):
        index = rng.randrange(TRAINING_COUNT)
        text += str(digits[index])
        picture = draw(pictures[index], side)
        slant, squeeze, half = rng.uniform(-0.2, 0.2), rng.uniform(0.85, 1.2), picture.width / 2
        matrix = (squeeze, slant, half * (1 - squeeze - slant), 0, squeeze, half * (1 - squeeze))
        picture = picture.transform(
            picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=255
        )
        picture = picture.rotate(rng.uniform(-9, 9), Image.Resampling.BICUBIC, fillcolor=255)
        row.paste(picture, (place * side * 5 // 4, 0))
    strength, grain = (
        rng.uniform(0.4, 1),
        np.random.default_rng(rng.getrandbits(64)).normal(0, rng.uniform(0, 8), row.size[::-1]),
    )
    grey = (255 - strength * (255 - np.asarray(row, dtype=np.float32)) + grain).clip(0, 255)
    return Image.fromarray(grey.astype(np.uint8)), text


def render_chunk(seed: int) -> list[tuple[bytes, str]]:
    """Draw and prepare `CHUNK` training lines; return their bytes and texts."""
    rng = random.Random(seed)
    lines = []
    for _ in range(CHUNK):
        digits = rng.random() < DIGIT_SHARE
        image, text = digit_row(rng) if digits else training_line(rng, rng.choice(LANGUAGES))
        line = prepare(image)
        # CTC needs a frame for each character, and one more between two that are equal.
        if line.shape[1] // WIDTH_STEP >= len(text) + sum(a == b for a, b in pairwise(text)):
            lines.append((line.tobytes(), text))
    return lines


def pool_of(folder: Path, name: str, chunks: int, first_seed: int) -> Pool:
    """Return the pool in a folder, rendering it first where it is not there."""
    data, index = folder / f"{name}.bin", folder / f"{name}.json"
    if not index.is_file():
        starts, texts, began = [0], [], time.monotonic()
        with data.open("wb") as file, multiprocessing.get_context("spawn").Pool(2) as workers:
            for lines in workers.imap(render_chunk, range(first_seed, first_seed + chunks)):
                for line, text in lines:
                    file.write(line)
                    starts.append(starts[-1] + len(line))
                    texts.append(text)
        index.write_text(json.dumps({"starts": starts, "texts": texts}), encoding="utf-8")
        print(f"rendered {len(texts)} lines ({name}) in {time.monotonic() - began:.0f} s", flush=True)
    contents = json.loads(index.read_text(encoding="utf-8"))
    return Pool(np.memmap(data, dtype=np.uint8, mode="r"), np.array(contents["starts"]), contents["texts"])


def batches(pool: Pool, rng: random.Random) -> Iterator[list[int]]:
    """Yield batches of lines of like width for ever, every line once an epoch."""
    widths = pool.widths()
    while True:
        order = list(range(len(pool.texts)))
        rng.shuffle(order)
        made: list[list[int]] = []
        for start in range(0, len(order), 4096):
            batch: list[int] = []
            for index in sorted(order[start : start + 4096], key=lambda i: int(widths[i])):
                if batch and ((len(batch) + 1) * widths[index] > BATCH_PIXELS or len(batch) == LARGEST_BATCH):
                    made.append(batch)
                    batch = []
                batch.append(index)
            made.append(batch)
        rng.shuffle(made)
        yield from made


def distort(lines: Tensor, widths: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Stretch, shift, blur, fade and grain a batch (N, 1, HEIGHT, W) of ink in [0, 1], cheaply."""
    count = lines.shape[0]
    scale = rng.uniform(0.85, 1.2)
    widths = ((widths * scale) / WIDTH_STEP).ceil().long() * WIDTH_STEP
    lines = nn.functional.interpolate(lines, (HEIGHT, int(widths.max())), mode="bilinear", align_corners=False)
    shift = rng.randint(-3, 3)
    lines = torch.roll(lines, shift, 2)
    if shift:
        lines[:, :, slice(0, shift) if shift > 0 else slice(shift, None)] = 0
    if rng.random() < 0.25:
        lines = nn.functional.avg_pool2d(lines, 3, 1, 1)
    lines = lines * torch.empty(count, 1, 1, 1).uniform_(0.6, 1.1) + torch.empty(count, 1, 1, 1).uniform_(0, 0.12)
    lines = lines + torch.randn_like(lines) * torch.empty(count, 1, 1, 1).uniform_(0, 0.13)
    inside = torch.arange(lines.shape[3]) < widths[:, None]
    return lines.clamp(0, 1) * inside[:, None, None, :], widths


def has_fast_bfloat16() -> bool:
    """Tell whether this CPU multiplies 16-bit floats in hardware; elsewhere they are slower than 32-bit ones."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8").split() if info.is_file() else []
    return "avx512_bf16" in flags or "amx_bf16" in flags


def step_loss(model: Crnn, pool: Pool, batch: list[int], rng: random.Random, *, half: bool) -> Tensor:
    """Return the CTC loss of one distorted batch, per character."""
    lines, widths = distort(*collate([pool.line(index) for index in batch]), rng)
    targets = [encode(pool.texts[index]) for index in batch]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        frames, counts = model(lines, widths)
    lengths = torch.tensor([len(target) for target in targets])
    flat = torch.tensor([index for target in targets for index in target])
    loss = nn.functional.ctc_loss(
        frames.float().transpose(0, 1), flat, counts, lengths, BLANK, "sum", zero_infinity=True
    )
    return loss / lengths.sum()


def train(cache: Path, *, steps: int, chunks: int, weights: Path) -> None:
    """Train for a number of steps and write the weights."""
    training = pool_of(cache, f"training-{chunks}", chunks, first_seed=1_000)
    validation = pool_of(cache, "validation", 1, first_seed=900)
    torch.manual_seed(7)
    rng = random.Random(7)
    model = Crnn()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    # The schedule knows how many steps there will be, so a checkpoint goes with that number.
    checkpoint, first = cache / f"checkpoint-{steps}.pt", 0
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        first = int(state["step"])
        rng = random.Random(first)
        for name, part in parts.items():
            part.load_state_dict(state[name])
    half, began, losses = has_fast_bfloat16(), time.monotonic(), deque[float](maxlen=50)
    model.train()
    for step, batch in zip(range(first + 1, steps + 1), batches(training, rng), strict=False):
        loss = step_loss(model, training, batch, rng, half=half)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 0:
            took = time.monotonic() - began
            print(f"step {step}/{steps} loss {np.mean(losses):.4f} {took:.0f} s", flush=True)
        if step % 500 == 0 or step == steps:
            unfinished = checkpoint.with_suffix(".part")
            torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, unfinished)
            unfinished.replace(checkpoint)
            weights.write_bytes(save({name: tensor.half() for name, tensor in model.state_dict().items()}))
            print(f"validation CER {validation_cer(model, validation):.4f}", flush=True)
    print(f"trained in {(time.monotonic() - began) / 60:.1f} minutes")


def validation_cer(model: Crnn, pool: Pool) -> float:
    """Return the CER on lines made like the training lines but of other seeds."""
    model.eval()
    errors = 0
    order = np.argsort(pool.widths())
    with torch.inference_mode():
        for start in range(0, len(order), 50):
            part = order[start : start + 50]
            frames, counts = model(*collate([pool.line(index) for index in part]))
            for index, matrix, count in zip(part, frames.numpy(), counts.tolist(), strict=True):
                errors += distance(greedy(matrix[:count]).text, pool.texts[index])
    model.train()
    return errors / sum(len(text) for text in pool.texts)


def distance(one: str, other: str) -> int:
    """Return the Levenshtein distance."""
    previous = list(range(len(other) + 1))
    for row, a in enumerate(one, start=1):
        current = [row]
        for column, b in enumerate(other, start=1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (a != b)))
        previous = current
    return previous[-1]


def evaluate(*, beam: int, show: bool) -> None:
    """Print the plugin's figures on the held-out data sets: CER by class, and how many answers are exactly right."""
    plugin = CrnnOcr()
    plugin.load(Context(params={"beam": beam}, batch=16))
    errors: dict[str, int] = defaultdict(int)
    letters: dict[str, int] = defaultdict(int)
    exact: dict[str, list[bool]] = defaultdict(list)
    for name in ("lines", "digits"):
        with (DATA / name / "annotation.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
        for start in range(0, len(rows), 16):
            part = rows[start : start + 16]
            items = [Item(row["data_index"], DATA / name / row["image_path"]) for row in part]
            for row, answer in zip(part, plugin.predict(items), strict=True):
                kind = row["doc_class"]
                errors[kind] += distance(answer.text, row["answer"])
                letters[kind] += len(row["answer"])
                exact[kind].append(answer.text == row["answer"])
                if show and answer.text != row["answer"]:
                    print(f"{row['image_path']}: {row['answer']!r} read as {answer.text!r}")
    for kind, right in exact.items():
        print(
            f"{kind}: {len(right)} items, CER {errors[kind] / letters[kind]:.4f}, exact {sum(right) / len(right):.4f}"
        )


def main(arguments: list[str]) -> int:
    """Train and measure, or only measure."""
    parser = argparse.ArgumentParser(description="Train the OCR plugin's network, or measure it.")
    parser.add_argument("--evaluate", action="store_true", help="only measure the weights that are there")
    parser.add_argument("--show", action="store_true", help="print every held-out item that is read wrongly")
    parser.add_argument("--beam", type=int, default=1, help="beam width of the measurement (default: 1)")
    parser.add_argument("--cache", type=Path, help="folder for the pool and checkpoints (default: a temporary one)")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--chunks", type=int, default=120, help=f"size of the pool, in {CHUNK} lines (default: 120)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(2)
    if not options.evaluate:
        with tempfile.TemporaryDirectory() as temporary:
            cache: Path = options.cache or Path(temporary)
            cache.mkdir(parents=True, exist_ok=True)
            train(cache, steps=options.steps, chunks=options.chunks, weights=WEIGHTS)
    evaluate(beam=options.beam, show=options.show)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
