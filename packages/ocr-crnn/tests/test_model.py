"""The network's promise: a line's frames do not depend on what it is batched with."""

import pytest
import torch
from ocr_crnn.alphabet import CLASSES
from ocr_crnn.image import HEIGHT, WIDTH_STEP
from ocr_crnn.model import Crnn, collate
from ocr_crnn.plugin import WEIGHTS, load_model


def test_frames_do_not_depend_on_padding() -> None:
    """A short line gives the same log probabilities alone and beside a long one."""
    model = load_model(WEIGHTS)
    torch.manual_seed(0)
    short, long = (torch.randint(0, 256, (HEIGHT, width), dtype=torch.uint8) for width in (60, 400))
    with torch.inference_mode():
        alone, _ = model(*collate([short]))
        together, counts = model(*collate([short, long]))
    assert counts.tolist() == [60 // WIDTH_STEP, 400 // WIDTH_STEP]
    torch.testing.assert_close(together[0, : counts[0]], alone[0], atol=1e-4, rtol=1e-4)


def test_frames_are_log_probabilities() -> None:
    """Each frame's probabilities add up to one."""
    frames, counts = Crnn().eval()(*collate([torch.zeros(HEIGHT, 32, dtype=torch.uint8)]))
    assert frames.shape == (1, int(counts[0]), CLASSES)
    torch.testing.assert_close(frames.exp().sum(2), torch.ones(1, int(counts[0])))


def test_collate_refuses_odd_widths() -> None:
    """A width that the stride does not divide would shift the frames of a padded line."""
    with pytest.raises(ValueError, match="multiples of 4"):
        collate([torch.zeros(HEIGHT, 30, dtype=torch.uint8)])
