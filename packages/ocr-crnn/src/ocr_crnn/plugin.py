"""The plugin: lines of text, and single digits, read on CPU or GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from vlm_core import Answer, Context, Item

from ocr_crnn.decode import LogProbabilities, Reading, beam_search, greedy
from ocr_crnn.image import read_line
from ocr_crnn.model import Crnn, collate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WEIGHTS = Path(__file__).parent / "weights.safetensors"


class CrnnOcr:
    """Reads the line of Russian or English text that an image shows, whatever the question."""

    def __init__(self) -> None:
        """Hold nothing until `load`."""
        self._model: Crnn | None = None
        self._device = "cpu"
        self._beam = 1

    def load(self, context: Context) -> None:
        """Put the network on ``context.device``.

        The only parameter is ``beam``: 1 decodes greedily, more is the width of a prefix beam search.
        """
        self._beam = _beam(context.params)
        self._device = context.device
        self._model = load_model(WEIGHTS).to(context.device)

    def predict(self, batch: Sequence[Item]) -> list[Answer]:
        """Read every item's image; ``extra`` has the confidence per character, from 0 to 1."""
        return [Answer(reading.text, {"confidence": round(reading.confidence, 4)}) for reading in self._read(batch)]

    def _read(self, batch: Sequence[Item]) -> list[Reading]:
        if self._model is None:
            message = "load() comes before predict()"
            raise RuntimeError(message)
        if not batch:
            return []
        strips = [read_line(_image(item)) for item in batch]
        lines, widths = collate([torch.from_numpy(strip.copy()) for strip in strips])
        with torch.inference_mode():
            frames, counts = self._model(lines.to(self._device), widths.to(self._device))
        matrices = [matrix[:count].numpy() for matrix, count in zip(frames.float().cpu(), counts.tolist(), strict=True)]
        # The network learned from text alone: what it says to bare paper means nothing.
        return [
            self._decode(matrix) if strip.any() else Reading("", 0.0)
            for matrix, strip in zip(matrices, strips, strict=True)
        ]

    def _decode(self, frames: LogProbabilities) -> Reading:
        return greedy(frames) if self._beam == 1 else beam_search(frames, self._beam)


def load_model(weights: Path) -> Crnn:
    """Return the network with weights from a file, in 32-bit floats and ready to read."""
    model = Crnn()
    # Half floats halve the file; they are read as full ones, since a CPU computes in those.
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    return model.eval()


def _beam(params: Mapping[str, object]) -> int:
    unknown = sorted(set(params) - {"beam"})
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}; ocr-crnn knows 'beam'")
    beam = params.get("beam", 1)
    if not isinstance(beam, int) or isinstance(beam, bool) or beam < 1:
        raise ValueError(f"beam must be a whole number of at least 1, not {beam!r}")
    return beam


def _image(item: Item) -> Path:
    if item.image is None:
        raise ValueError(f"item {item.id!r} has no image")
    return item.image
