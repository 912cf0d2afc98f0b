"""The network: convolutions shrink a line to a row of features, two BiLSTM layers read it, CTC spells it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ocr_crnn.alphabet import CLASSES
from ocr_crnn.image import HEIGHT, WIDTH_STEP


class Convolution(nn.Module):
    """A 3x3 convolution with batch norm and ReLU that leaves nothing beyond each line's own width."""

    def __init__(self, channels_in: int, channels_out: int, stride: tuple[int, int]) -> None:
        """Set the channels and the (vertical, horizontal) stride."""
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, features: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (N, C, H, W) of valid widths (N,) to smaller ones, and give their widths."""
        features = torch.relu(self.norm(self.convolution(features)))
        widths = widths // self.stride[1]
        # Zeros beyond the line are what the next convolution pads with anyway, so that a line's features are the
        # same alone and beside a longer one.
        inside = torch.arange(features.shape[3], device=features.device) < widths[:, None]
        return features * inside[:, None, None, :].to(features.dtype), widths


class Crnn(nn.Module):
    """A reader of single lines."""

    def __init__(self, hidden: int = 128, classes: int = CLASSES) -> None:
        """Build the layers; `hidden` is the size of each LSTM direction."""
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                Convolution(1, 24, (2, 2)),
                Convolution(24, 48, (2, 2)),
                Convolution(48, 96, (2, 1)),
                Convolution(96, 96, (1, 1)),
                Convolution(96, 128, (2, 1)),
            ]
        )
        self.dropout = nn.Dropout(0.1)
        self.rnn = nn.LSTM(128 * HEIGHT // 16, hidden, num_layers=2, bidirectional=True, batch_first=True, dropout=0.1)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, lines: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """Read lines.

        Args:
            lines: (N, 1, HEIGHT, W) with ink 1 and paper 0, each line padded on its right with 0.
            widths: (N,) valid widths in pixels, multiples of `WIDTH_STEP`.

        Returns:
            Log probabilities (N, T, CLASSES) and the valid frames (N,) of each line.
        """
        features = lines
        for convolution in self.convolutions:
            features, widths = convolution(features, widths)
        rows = self.dropout(features.permute(0, 3, 1, 2).flatten(2).float())
        return self.head(self._read(rows, widths)).log_softmax(2), widths

    def _read(self, rows: Tensor, frames: Tensor) -> Tensor:
        """Run the LSTM over rows (N, T, features)."""
        if self.training:
            # Batches of near-equal widths hardly have padding, and unpacked sequences run several times faster.
            return cast("Tensor", self.rnn(rows)[0])
        packed = pack_padded_sequence(rows, frames.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=rows.shape[1])[0]


def collate(lines: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad lines (HEIGHT, W) of bytes to one batch (N, 1, HEIGHT, widest) of floats in [0, 1], and give their widths."""
    widths = torch.tensor([line.shape[1] for line in lines])
    if bool((widths % WIDTH_STEP).any()):
        raise ValueError(f"line widths must be multiples of {WIDTH_STEP}, not {widths.tolist()}")
    batch = torch.zeros(len(lines), 1, HEIGHT, int(widths.max()))
    for row, line in zip(batch, lines, strict=True):
        row[0, :, : line.shape[1]] = line.float() / 255
    return batch, widths
