"""What plugins may rely on."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import vlm_core
from vlm_core import Answer, Context, Evaluation, InferencePlugin, Item, Record, ReportPlugin


class Echo:
    """A model that answers with the question."""

    def load(self, context: Context) -> None:
        self.prefix = str(context.params.get("prefix", ""))

    def predict(self, batch):
        return [Answer(self.prefix + item.question) for item in batch]


def test_plugin_is_recognised_by_its_methods() -> None:
    """A plugin inherits from nothing: having the methods is enough."""
    assert isinstance(Echo(), InferencePlugin)
    assert not isinstance(Echo(), ReportPlugin)


def test_plugin_answers_in_order() -> None:
    """The smallest plugin there is, used as the runner uses it."""
    plugin = Echo()
    plugin.load(Context(params={"prefix": "> "}))
    assert [a.text for a in plugin.predict([Item("1", question="a"), Item("2", question="b")])] == ["> a", "> b"]


@pytest.mark.parametrize("value", [Item("1"), Answer("x"), Record(Item("1"), ("x",)), Context(), Evaluation({})])
def test_data_cannot_be_changed(value: object) -> None:
    """Data classes are frozen: a plugin cannot change what another one sees."""
    name = dataclasses.fields(value)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)


def test_package_needs_nothing_but_the_standard_library() -> None:
    """Importing the contract in an isolated interpreter works: it has no dependencies."""
    source = Path(vlm_core.__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(source)!r}); import vlm_core; print(vlm_core.__version__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == vlm_core.__version__


def test_contract_is_typed(tmp_path: Path) -> None:
    """A plugin's types are checked against the protocols: a wrong return type is refused."""
    pytest.importorskip("mypy")
    example = tmp_path / "example.py"
    example.write_text(
        "from typing import Sequence\n"
        "from vlm_core import Context, InferencePlugin, Item\n"
        "class Good:\n"
        "    def load(self, context: Context) -> None: ...\n"
        "    def predict(self, batch: Sequence[Item]) -> Sequence[str]: return [i.question for i in batch]\n"
        "class Bad(Good):\n"
        "    def predict(self, batch: Sequence[Item]) -> int: return 1  # type: ignore[override]\n"
        "good: InferencePlugin = Good()\n"
        "bad: InferencePlugin = Bad()\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", str(example)], capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, done.stdout
    assert "example.py:9: error" in errors[0]
