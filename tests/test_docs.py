"""What the documentation tells people to paste works, in the order in which they paste it; what it shows is so."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pages
import pytest
import yaml
from local_index import Index
from stand import Stand, wheels

from envbuilder.config import ProfileDocument, SettingsDocument
from envbuilder.documents import Document, parse_toml
from envbuilder.registry import EntryDocument
from pipeline.config import RunFile

ROOT = Path(__file__).resolve().parents[1]
# Pages whose packages are built with what the public index has.
NEED_NETWORK = {"README.md", "docs/tutorial.md"}
# The same commands as in the page of that name.
TRANSLATED = {"README.ru.md": "README.md"}
NOT_RUN = {
    ("README.md", "the gate runs it as the main job"),
    ("README.md", "it is the command that runs this test"),
    ("docs/howto-offline.md", "needs a second machine; the test stands in for it below"),
    ("docs/howto-runs.md", "needs pyarrow, which the extra brings"),
    ("docs/howto-ci.md", "asks a service on the network"),
}


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """The stand-ins, and the index they take wheels from."""
    root = tmp_path_factory.mktemp("stand")
    wheels(root / "wheels")
    with Index(root / "wheels") as index:
        yield Stand(root / "here", index)


def with_commands() -> Iterator[object]:
    """Every page that has commands to be run."""
    for page in pages.every():
        if page.name not in TRANSLATED and any(block.is_shell for block in page.blocks):
            marks = [pytest.mark.network] if page.name in NEED_NETWORK else []
            yield pytest.param(page, id=page.name, marks=marks)


@pytest.mark.parametrize("page", list(with_commands()))
def test_pages_work_as_pasted(page: pages.Page, stand: Stand, tmp_path: Path) -> None:
    """Every command of a page, in one shell from top to bottom, ends as the page says, and prints what it shows."""
    assert page.workspace, f"{page.name} does not say where its commands are run"
    copy = stand.copy(tmp_path, base="$BASE" in page.text)
    scratch = pages.play(page, copy.folder(page.workspace), copy.env, copy.words)
    pages.compare(page, scratch)


def test_pages_say_whose_names_they_take() -> None:
    """How-tos whose commands are run in a stand-in say above all else that the clone lacks some of its names."""
    for page in pages.every():
        if page.workspace == "demo" and page.name.startswith("docs/"):
            top = re.search(r"^# .*\n\n((?:> .*\n)+)\n", page.text, re.MULTILINE)
            assert top, f"{page.name} begins with no note on the names that it takes"
            words = " ".join(top[1].split())
            assert "stand" in words, page.name
            assert "clone of this repository" in words.replace("> ", ""), page.name


def test_translations_have_the_same_commands() -> None:
    """The pages lead to one another, and have the same blocks to paste, word for word but for remarks."""
    for translated, name in TRANSLATED.items():
        pair = [pages.read(name), pages.read(translated)]
        commands = [
            [(bare(each.text), dict(each.marks)) for each in page.blocks if each.language != "text"] for page in pair
        ]
        assert commands[0] == commands[1]
        assert f"]({translated})" in pair[0].text
        assert f"]({name})" in pair[1].text
        headings = [re.findall(r"^#+ ", page.text, re.MULTILINE) for page in pair]
        assert headings[0] == headings[1]


def bare(text: str) -> list[str]:
    """A block's lines without remarks, which are in the page's language."""
    return [re.sub(r"\s+# .*$", "", line) for line in text.splitlines()]


def test_blocks_that_are_not_run_are_few() -> None:
    """Each has its reason; who adds one, adds it here."""
    reasons = {
        (page.name, block.marks["no-run"])
        for page in pages.every()
        for block in page.blocks
        if "no-run" in block.marks and page.name not in TRANSLATED
    }
    assert reasons == NOT_RUN


def schema_of(block: pages.Block) -> tuple[str, type[Document]]:
    """Which file a block of YAML or TOML is from."""
    if block.language == "toml":
        return ("settings", SettingsDocument) if "tool.envbuilder" in block.text else ("profile", ProfileDocument)
    return ("run", RunFile) if re.search(r"^data:", block.text, re.MULTILINE) else ("entry", EntryDocument)


@pytest.mark.parametrize("page", pages.every(), ids=lambda page: page.name)
def test_examples_are_in_the_schemas_words(page: pages.Page) -> None:
    """YAML and TOML that a page shows is what the real schemas take, and what editors are told."""
    jsonschema = importlib.import_module("jsonschema")
    for block in page.blocks:
        if block.language not in {"yaml", "toml"} or block.marks.get("file", "").endswith((".yml", "_.toml")):
            continue
        name, schema = schema_of(block)
        tree = yaml.safe_load(block.text) if block.language == "yaml" else parse_toml(block.text, block.where).value
        tree = tree["tool"]["envbuilder"] if name == "settings" else tree
        if name == "entry" and "name" not in tree:  # An overlay, or a part of an entry.
            name, tree = "overlay", {**WHOLE, **tree}
        schema.model_validate(tree)
        jsonschema.validate(tree, json.loads((ROOT / "docs" / "schemas" / f"{name}.schema.json").read_text()))


WHOLE = {"name": "x", "stage": "eval", "entry": "x:X", "source": {"path": "packages/x"}}


LINKED = ("docs/reference/commands.md", "docs/reference/files.md", "packages/core/README.md")


@pytest.mark.parametrize("page", [*pages.every(), *map(pages.read, LINKED)], ids=lambda page: page.name)
def test_links_lead_somewhere(page: pages.Page) -> None:
    """Every relative link names a file that is there, and a heading that is in it."""
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", page.text):
        name, _, heading = target.partition("#")
        path = (ROOT / page.name).parent / name if name else ROOT / page.name
        assert path.exists(), target
        if heading:
            assert heading in headings(path.read_text(encoding="utf-8")), target


def headings(text: str) -> set[str]:
    """The anchors of a page's headings."""
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in found}


@pytest.mark.parametrize("page", pages.every(), ids=lambda page: page.name)
def test_blocks_fit_a_terminal(page: pages.Page) -> None:
    """No line of a block is wider than a hundred columns."""
    for block in page.blocks:
        for line in block.text.splitlines():
            assert len(line) <= 100 or block.language == "hidden", (block.where, line)


def script(name: str) -> ModuleType:
    """A script of the project, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_is_what_the_code_says() -> None:
    """The pages of docs/reference, and the schemas, are what their scripts write."""
    for name, text in script("make_reference").pages().items():
        assert (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") == text, name
    for name, text in script("make_schemas").texts().items():
        assert (ROOT / "docs" / "schemas" / name).read_text(encoding="utf-8") == text, name


def test_the_gate_runs_the_readmes_main_job() -> None:
    """The README's first line, and its test command, both stand in .ci/run."""
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    main, test = [block.text.strip() for block in pages.read("README.md").blocks if "no-run" in block.marks][:2]
    assert main.endswith("uv run envbuilder run")
    assert '"$uv" run --no-sync envbuilder run\n' in gate
    assert test == ".venv/bin/uv run pytest"
    assert gate.rstrip().endswith('"$uv" run pytest')
