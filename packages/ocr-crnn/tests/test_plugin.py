"""What the runner and its users get from the plugin."""

import csv
from pathlib import Path

import pytest
import torch
from conftest import Draw
from ocr_crnn import CrnnOcr
from ocr_crnn.alphabet import CLASSES
from ocr_crnn.plugin import WEIGHTS
from PIL import Image, UnidentifiedImageError
from safetensors.torch import load_file
from vlm_core import Answer, Context, InferencePlugin, Item

DATA = Path(__file__).parent / "data"


def samples() -> list[tuple[Item, str]]:
    """Return lines of the held-out data set, and a digit, with their texts."""
    with (DATA / "annotation.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    return [(Item(row["data_index"], (DATA / row["image_path"]).resolve()), row["answer"]) for row in rows]


def distance(one: str, other: str) -> int:
    """Return the Levenshtein distance."""
    previous = list(range(len(other) + 1))
    for row, a in enumerate(one, start=1):
        current = [row]
        for column, b in enumerate(other, start=1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (a != b)))
        previous = current
    return previous[-1]


def test_plugin_fulfils_the_contract(plugin: CrnnOcr) -> None:
    """The class is an inference plugin that gives one answer per item, in order, with a confidence."""
    assert isinstance(plugin, InferencePlugin)
    answers = plugin.predict([item for item, _ in samples()])
    assert len(answers) == len(samples())
    for answer in answers:
        assert isinstance(answer, Answer)
        confidence = answer.extra["confidence"]
        assert isinstance(confidence, float)
        assert 0 <= confidence <= 1


def test_plugin_reads_held_out_samples(plugin: CrnnOcr) -> None:
    """Few characters of the committed samples are read wrongly."""
    answers = plugin.predict([item for item, _ in samples()])
    wrong = sum(distance(answer.text, text) for answer, (_, text) in zip(answers, samples(), strict=True))
    assert wrong / sum(len(text) for _, text in samples()) < 0.05


def test_plugin_reads_an_unknown_font(plugin: CrnnOcr, draw: Draw) -> None:
    """Lines in Pillow's own font, which training never saw, are read too."""
    texts = ["Meeting at 10:45 in room 7", "Total amount: 1,280.50", "The quick brown fox"]
    answers = plugin.predict([Item(text, draw(text)) for text in texts])
    wrong = sum(distance(answer.text, text) for answer, text in zip(answers, texts, strict=True))
    assert wrong / sum(map(len, texts)) < 0.1


def test_plugin_reads_light_on_dark(plugin: CrnnOcr, draw: Draw) -> None:
    """The polarity of a picture makes no difference."""
    dark, light = draw("Summer sale 2024"), draw("Summer sale 2024", ink=255, paper=0)
    first, second = plugin.predict([Item("dark", dark), Item("light", light)])
    assert first.text == second.text


@pytest.mark.parametrize("beam", [1, 4])
def test_batch_and_single_answers_are_equal(beam: int) -> None:
    """An item is read the same alone and padded to the width of a longer one."""
    plugin = CrnnOcr()
    plugin.load(Context(params={"beam": beam}, batch=8))
    items = [item for item, _ in samples()]
    together = plugin.predict(items)
    alone = [plugin.predict([item])[0] for item in items]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.extra["confidence"] == pytest.approx(other.extra["confidence"], abs=1e-3)


def test_what_is_no_image_raises(plugin: CrnnOcr, tmp_path: Path) -> None:
    """A file that is no image is an error of its batch, not an empty answer."""
    path = tmp_path / "not-an-image.png"
    path.write_text("plain text")
    with pytest.raises(UnidentifiedImageError):
        plugin.predict([Item("1", path)])


def test_a_torn_image_raises(plugin: CrnnOcr, draw: Draw, tmp_path: Path) -> None:
    """An image that ends halfway is an error too."""
    whole = draw("A line that is torn").read_bytes()
    path = tmp_path / "torn.png"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match=r"truncated|broken"):
        plugin.predict([Item("1", path)])


def test_an_item_without_an_image_raises(plugin: CrnnOcr) -> None:
    """A question without an image cannot be answered, and the item is named."""
    with pytest.raises(ValueError, match="'17' has no image"):
        plugin.predict([Item("17")])


@pytest.mark.parametrize("colour", ["white", "black", "grey"])
@pytest.mark.parametrize("size", [(1, 1), (300, 40), (5, 200)])
def test_a_blank_image_is_answered(plugin: CrnnOcr, tmp_path: Path, colour: str, size: tuple[int, int]) -> None:
    """A picture of nothing, of any size, gets an empty answer."""
    path = tmp_path / "blank.png"
    Image.new("RGB", size, colour).save(path)
    (answer,) = plugin.predict([Item("1", path)])
    assert answer.text == ""


def test_an_empty_batch_is_answered(plugin: CrnnOcr) -> None:
    """No items, no answers."""
    assert plugin.predict([]) == []


@pytest.mark.parametrize("params", [{"beam": 0}, {"beam": "wide"}, {"beam": True}, {"beams": 2}])
def test_a_bad_parameter_is_refused(params: dict[str, object]) -> None:
    """A parameter that is unknown or out of range is named in the error."""
    with pytest.raises(ValueError, match="beam"):
        CrnnOcr().load(Context(params=params))


def test_predict_needs_load() -> None:
    """Predicting before loading says what is missing."""
    with pytest.raises(RuntimeError, match="load"):
        CrnnOcr().predict([Item("1", DATA / "annotation.csv")])


def test_weights_fit_the_alphabet() -> None:
    """The last layer has one output per character and one for the blank, and the file is small."""
    weights = load_file(WEIGHTS)
    assert weights["head.weight"].shape[0] == CLASSES
    assert weights["head.weight"].dtype == torch.float16
    assert WEIGHTS.stat().st_size < 5_000_000
