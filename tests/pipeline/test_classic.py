"""Classes in the style of ``predict_on_image(image, prompt)``: constructed by name, asked about one image or several."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from pipeline.bootstrap import Context, FailureError, Item, create
from pipeline.cli import execute_run

if TYPE_CHECKING:
    from pipeline_bench import Bench

# As real ones are.
MODEL = """
class Plugin:
    def __init__(self, model_name, system_prompt="", cache_dir=None, device_map="auto", *, device="?", seed=-1):
        self.told = [model_name, system_prompt, device_map, device, seed, type(cache_dir).__name__]

    def predict_on_image(self, image, prompt):
        return f"{self.told} {prompt}"

    def predict_on_images(self, images, prompt):
        return f"{len(images)} {prompt}"
"""
CONTEXT = Context(device="cuda", seed=3, cache_dir=Path("/cache"))


class Base:
    """Keeps what it was constructed with."""

    def predict_on_image(self, image: str, prompt: str) -> str:
        return f"{image} {prompt} {vars(self)}"


class Named(Base):
    """Takes arguments by name."""

    def __init__(self, model_name: str, device: str = "cpu", cache_dir: str = "") -> None:
        self.model_name, self.device, self.cache_dir = model_name, device, cache_dir


class Open(Base):
    """Takes whatever it gets."""

    def __init__(self, model_name: str = "small", **more: object) -> None:
        self.model_name, self.more = model_name, more


class Placed(Base):
    """Takes arguments by place."""

    def __init__(self, model_name: str, beams: int = 1, /, device_map: str = "auto") -> None:
        self.model_name, self.beams, self.device_map = model_name, beams, device_map


class Mapped(Base):
    """Needs a device map."""

    def __init__(self, device_map: object) -> None:
        self.device_map = device_map


class Loaded(Base):
    """Reads parameters on loading."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def load(self, context: Context) -> None:
        self.params = context.params


class LoadedAlone(Base):
    """Loads without a context."""

    def load(self) -> None:
        self.loaded = True


class Several(Base):
    """Takes one image or several."""

    def predict_on_images(self, images: list[str], prompt: str) -> str:
        return f"{images} {prompt}"


class OnlySeveral:
    """Takes several images."""

    def predict_on_images(self, images: list[str], prompt: str) -> str:
        return f"{images} {prompt}"


def make(model_name: str, device: str = "cpu") -> Named:
    """A function that makes a model."""
    return Named(model_name, device)


def _create(factory: object, params: dict[str, object] | None = None) -> Any:
    context = Context(params or {}, CONTEXT.device, CONTEXT.seed, cache_dir=CONTEXT.cache_dir)
    return create(factory, "inference", context)._model


def _item(*images: str) -> Item:
    """An item of a contract to come, which has several images."""
    return cast("Item", SimpleNamespace(id="1", images=tuple(map(Path, images)), image=None, question="what"))


@pytest.mark.parametrize(
    ("factory", "params", "held"),
    [
        (Named, {"model_name": "m"}, {"model_name": "m", "device": "cuda", "cache_dir": "/cache"}),
        (Named, {"model_name": "m", "device": "cpu", "cache_dir": None}, {"device": "cpu", "cache_dir": None}),
        (Open, {"model_name": "m", "top-p": 1, "beams": 2}, {"model_name": "m", "more": {"top-p": 1, "beams": 2}}),
        (Open, {}, {"model_name": "small", "more": {}}),
        (Placed, {"model_name": "m"}, {"model_name": "m", "beams": 1, "device_map": "auto"}),
        (Placed, {"model_name": "m", "beams": 4, "device_map": "cpu"}, {"beams": 4, "device_map": "cpu"}),
        (Mapped, {}, {"device_map": "cuda"}),
        (Mapped, {"device_map": {"": 0}}, {"device_map": {"": 0}}),
        (Loaded, {"beams": 2}, {"seed": 3, "params": {"beams": 2}}),
        (LoadedAlone, {}, {"loaded": True}),
        (make, {"model_name": "m"}, {"model_name": "m", "device": "cuda", "cache_dir": ""}),
    ],
)
def test_params_reach_the_constructor_by_name(
    factory: object, params: dict[str, object], held: dict[str, object]
) -> None:
    """What its signature names comes from `params`, or from the context where it has it; its defaults stand otherwise."""
    assert vars(_create(factory, params)).items() >= held.items()


@pytest.mark.parametrize(
    ("factory", "params", "said"),
    [
        (
            Named,
            {"modle_name": "m"},
            "Named() needs model_name, which params do not give; add to its task in the run file",
        ),
        (Named, {}, "params: {model_name: ...}"),
        (Named, {"model_name": "m", "modle": "x"}, "params.modle: Named() takes no argument of that name"),
        (Named, {"model_name": "m", "devise": "x"}, "nearest: device"),
        (Named, {"model_name": "m", "beams": 2}, "it takes model_name, device, cache_dir"),
        (Base, {"beams": 2}, "params.beams: Base() takes no argument of that name; it takes no arguments"),
        (make, {"model_name": "m", "beams": 2}, "params.beams: make() takes no argument of that name"),
        (make, {}, "make() needs model_name"),
    ],
)
def test_params_that_do_not_fit_are_refused(factory: object, params: dict[str, object], said: str) -> None:
    """What is lacking, and what is not known, is named before the model is made."""
    with pytest.raises(FailureError) as caught:
        _create(factory, params)
    assert caught.value.code == "plugin-invalid"
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("factory", "images", "answer"),
    [
        (Several, ("/a.png",), "/a.png what {}"),
        (Several, ("/a.png", "/b.png"), "['/a.png', '/b.png'] what"),
        (Several, (), " what {}"),
        (OnlySeveral, ("/a.png",), "['/a.png'] what"),
        (OnlySeveral, (), "[] what"),
        (Base, ("/a.png",), "/a.png what {}"),
    ],
)
def test_images_reach_the_method_that_takes_them(factory: object, images: tuple[str, ...], answer: str) -> None:
    """One image goes to the method for one where there is one, several to the other."""
    assert create(factory, "inference", CONTEXT).predict([_item(*images)]) == [answer]


def test_several_images_for_a_model_of_one_are_refused() -> None:
    """No image is left out in silence."""
    with pytest.raises(FailureError, match="item '1' has 2 images, and Base has no predict_on_images"):
        create(Base, "inference", CONTEXT).predict([_item("/a.png", "/b.png")])


def test_a_real_class_runs_unchanged(bench: Bench) -> None:
    """Through a whole run: parameters of the run file, device and seed of the task, one image at a time."""
    bench.plugin("model", MODEL)
    text = "seed: 5\ninference: [{plugin: model, batch: 2, params: {model_name: tiny, system_prompt: be brief}}]"
    outcome = execute_run(bench.request(text))
    (task,) = outcome.tasks
    assert task.ok, task.error
    lines = Path(outcome.paths["answers"], "model@lines.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["answer"] == "['tiny', 'be brief', 'auto', 'cpu', 5, 'str'] one"
    outcome = execute_run(bench.request("inference: [{plugin: model, params: {model: tiny}}]"))
    assert (outcome.tasks[0].code, len(outcome.tasks[0].attempts)) == ("plugin-invalid", 1)
    assert "add to its task in the run file: params: {model_name: ...}" in outcome.problems[0].message
