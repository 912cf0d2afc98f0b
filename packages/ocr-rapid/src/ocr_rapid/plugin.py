"""The plugin class."""

from __future__ import annotations

from collections.abc import Sequence

from vlm_core import Answer, Context, Item

from ocr_rapid.engine import Engine, Pixels, load_image
from ocr_rapid.params import Params, read_params
from ocr_rapid.reading import confidence, join, order

LINE_RATIO = 4
"""From this ratio of width to height on, an image is taken for one line."""

LINE_HEIGHT = 48
"""Up to this height in pixels, an image is taken for one line: the recogniser itself scales lines to it."""


def looks_like_line(image: Pixels) -> bool:
    """Tell a line from a page by its shape: much wider than high, or no higher than a line."""
    height, width = image.shape[:2]
    return width >= LINE_RATIO * height or height <= LINE_HEIGHT


class RapidOcr:
    """Reads the text of images; what is asked about them makes no difference."""

    def __init__(self) -> None:
        self._params = Params()
        self._engine: Engine | None = None

    def load(self, context: Context) -> None:
        """Load the models, on the CPU whatever the context's device is.

        Args:
            context: its ``params`` may hold ``detect``, ``threads`` and ``min-confidence``; see
                `ocr_rapid.params.read_params`.

        Raises:
            ParameterError: a parameter is unknown or has a value that can't be used.
        """
        self._params = read_params(context.params)
        self._engine = Engine(self._params)

    def predict(self, batch: Sequence[Item]) -> list[Answer]:
        """Read each image by itself, so that an answer never depends on its neighbours in the batch.

        Args:
            batch: items with images.

        Returns:
            For each item its text, rows of a page as lines, with ``extra``: ``confidence`` (0 to 1), ``pieces`` (how
            many boxes the text was put together from) and ``detected`` (whether boxes were looked for and found).

        Raises:
            OSError: an image is missing, truncated, or none.
            ValueError: an item has no image.
            RuntimeError: `load` was not called.
        """
        if self._engine is None:
            raise RuntimeError("predict was called before load")
        return [self._read(self._engine, item) for item in batch]

    def _read(self, engine: Engine, item: Item) -> Answer:
        if item.image is None:
            raise ValueError(f"item {item.id!r} has no image to read")
        image = load_image(item.image)
        detect = self._params.detect
        if detect is None and not looks_like_line(image):
            # Detection overlooks what fills the image, such as a single digit; one line is the better guess then.
            return self._read_page(engine, image) or self._read_line(engine, image, self._params.min_confidence)
        if detect:
            return self._read_page(engine, image) or _answer("", 0.0, 0, detected=False)
        return self._read_line(engine, image, 0.0)

    @staticmethod
    def _read_page(engine: Engine, image: Pixels) -> Answer | None:
        rows = order(engine.read_boxes(image))
        pieces = [piece for row in rows for piece in row]
        return _answer(join(rows), confidence(pieces), len(pieces), detected=True) if pieces else None

    @staticmethod
    def _read_line(engine: Engine, image: Pixels, least: float) -> Answer:
        piece = engine.read_line(image)
        text = piece.text if piece.confidence >= least else ""
        return _answer(text, piece.confidence, int(bool(text)), detected=False)


def _answer(text: str, sureness: float, pieces: int, *, detected: bool) -> Answer:
    return Answer(text, {"confidence": sureness, "pieces": pieces, "detected": detected})
