"""Pages of documentation as a reader meets them: blocks to paste, files to write, output to compare with.

Comments, which readers do not see, say what is not plain from a block's language:

``<!-- workspace: demo -->``
    on top of a page: where its blocks are run (`stand.Stand`). All of a page's shell blocks are run in one shell, in order.
``<!-- no-run: REASON -->``
    the shell block below is not run; the reasons are listed by a test.
``<!-- exit: 1 -->``
    the last command of the shell block below ends so.
``<!-- file: PATH -->``, ``<!-- add: PATH -->``
    the block below is written to a file of the workspace, or added to its end.
``<!-- output -->``
    the block below is what the shell block above prints; ``…`` stands for anything.
``<!-- hidden: COMMAND -->``
    what a reader would do elsewhere, or a file server would; run at this place.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHELL = {"bash", "console", "sh"}
_COMMENT = re.compile(r"<!--\s*([a-z-]+)(?::\s*(.*?))?\s*-->", re.DOTALL)
_FENCE = re.compile(r"^(```+)(\w*)[^\n]*\n(.*?)^\1\s*$", re.DOTALL | re.MULTILINE)
# What is another one each time: times, rates, sizes, ids of runs, commits and digests.
_VARIES = re.compile(
    r"\d{8}T\d{6}Z-[\w-]+|\d{4}-\d\d-\d\dT[\d:.]+Z|\b[0-9a-f]{7,64}\b|\d+(\.\d+)? ?(s|ms|/s|[KMGT]?i?B)(?=[\s,.)]|$)"
)


@dataclass(frozen=True)
class Block:
    """A block of a page: its language, its text, the line that it begins at, and what comments say of it."""

    page: str
    line: int
    language: str
    text: str
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_shell(self) -> bool:
        return self.language in SHELL


@dataclass(frozen=True)
class Page:
    """A page and its blocks; hidden commands are blocks of the language ``hidden``."""

    name: str
    text: str
    blocks: Sequence[Block]

    @property
    def workspace(self) -> str:
        """Where its blocks are run."""
        found = re.match(r"<!-- workspace: (\w+) -->", self.text)
        return found[1] if found else ""


def read(name: str) -> Page:
    """A page by its path in the project."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return Page(name, text, list(_blocks(name, text)))


def every() -> list[Page]:
    """All pages that people write; what scripts write from the code is held to that elsewhere."""
    names = ["README.md", "README.ru.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
    return [read(name) for name in names]


def _blocks(name: str, text: str) -> Iterator[Block]:
    at, marks = 0, dict[str, str]()
    while True:
        fence, comment = _FENCE.search(text, at), _COMMENT.search(text, at)
        first = min((found.start() for found in (fence, comment) if found), default=None)
        if first is None:
            return
        if text[at:first].strip():
            marks = {}  # A comment belongs to the block right below it.
        line = text.count("\n", 0, first) + 1
        if comment and comment.start() == first:
            if comment[1] == "hidden":
                yield Block(name, line, "hidden", comment[2] + "\n")
            else:
                marks[comment[1]] = comment[2] or ""
            at = comment.end()
        elif fence:
            yield Block(name, line, fence[2], fence[3], marks)
            at, marks = fence.end(), {}


def script(page: Page, scratch: Path, words: Mapping[str, str]) -> str:
    """The page as one shell script: what each block prints goes to ``<scratch>/<line>.out``.

    Args:
        page: whose blocks.
        scratch: a folder for the blocks' texts and what they print.
        words: what stands in the pages, and what it is to be here.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    lines = ["set -eu", f"trap 'echo \"stopped in {page.name}:$at\" >&2' EXIT"]
    for block in page.blocks:
        text = block.text
        for word, meant in words.items():
            text = text.replace(word, meant)
        here = scratch / f"{block.line}.in"
        here.write_text(text, encoding="utf-8")
        out = scratch / f"{block.line}.out"
        lines.append(f"at={block.line}")
        if file := block.marks.get("file", block.marks.get("add")):
            lines.append(f"mkdir -p $(dirname {file}) && cat {here} {'>' if 'file' in block.marks else '>>'} {file}")
        elif block.language == "hidden" or (block.is_shell and "no-run" not in block.marks):
            wanted = block.marks.get("exit", "0")
            if wanted == "0":
                lines.append(f". {here} > {out} 2>&1 < /dev/null")
            else:
                lines.append(f"set +e; . {here} > {out} 2>&1 < /dev/null; ended=$?; set -e; [ $ended = {wanted} ]")
    lines.append("trap - EXIT")
    return "\n".join(lines) + "\n"


def play(page: Page, folder: Path, env: Mapping[str, str], words: Mapping[str, str]) -> Path:
    """Run a page's blocks in one shell, and return the folder of what they printed.

    Raises:
        AssertionError: a block did not end as the page says.
    """
    scratch = folder.parent / "printed"
    text = script(page, scratch, words)
    done = subprocess.run(
        ["bash", "-c", text], cwd=folder, env=dict(env), capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        at = re.search(r":(\d+)$", done.stderr.strip())
        printed = (scratch / f"{at[1]}.out").read_text(encoding="utf-8") if at else ""
        raise AssertionError(f"{done.stderr}\n{printed}")
    return scratch


def compare(page: Page, scratch: Path) -> None:
    """Hold output that a page shows to what was printed.

    Raises:
        AssertionError: a line that the page shows was not printed, or not after the one before it.
    """
    before: Block | None = None
    for block in page.blocks:
        if "output" in block.marks:
            assert before is not None
            printed = (scratch / f"{before.line}.out").read_text(encoding="utf-8").splitlines()
            _hold(block, [_plain(line) for line in printed])
        elif block.is_shell:
            before = block


def _hold(block: Block, printed: list[str]) -> None:
    rest = iter(printed)
    for line in block.text.splitlines():
        if line.strip() in {"", "…"}:
            continue
        pattern = ".*".join(re.escape(part) for part in _plain(line).split("…"))
        assert any(re.fullmatch(pattern, each) for each in rest), (block.where, line, printed)


def _plain(line: str) -> str:
    return re.sub(r"\s+", " ", _VARIES.sub("#", re.sub("[─━]+", "-", line))).strip()
