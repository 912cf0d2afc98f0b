"""Indexes asked elsewhere than at their canonical address, without a trace in the lock.

A lock names indexes (`registry`, and `index` where a source names one) and files (`url`). While uv resolves, both lead to the mirror, and are led back after;
while it installs, only the files do: the index's address is then but the name of a drawer in uv's cache, which thereby
stays the same with and without a mirror. Hashes stand in the lock, whoever serves the file.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import tomlkit

from envbuilder.errors import EnvbuilderError
from envbuilder.uv import default_index

_ADDRESS = re.compile(r'\b(?P<key>url|registry|index) = "(?P<address>[^"]*)"')
_RELATIVE = re.compile(r'\b(?P<key>editable|directory|path) = "(?P<path>\.\.?/[^"]*)"')


class UnmappedError(EnvbuilderError):
    """A mirror that serves files from an address of which nothing says what it mirrors."""

    code = "mirror-unmapped"


class IndexMirrors:
    """Leads canonical addresses to mirrors and back; of several prefixes that fit, the longest counts.

    Args:
        mirrors: prefix of a canonical address to what replaces it.
    """

    def __init__(self, mirrors: Mapping[str, str]):
        self._there = dict(mirrors)
        self._back = {mirror: canonical for canonical, mirror in mirrors.items()}
        self._hosts = {urlsplit(mirror).netloc for mirror in self._back}

    def __bool__(self) -> bool:
        return bool(self._there)

    def there(self, address: str) -> str:
        """Where to ask for a canonical address."""
        return _led(address, self._there)

    def back(self, address: str) -> str:
        """The canonical address of what a mirror serves.

        Raises:
            UnmappedError: a mirror serves it, and no line tells what it stands for.
        """
        canonical = _led(address, self._back)
        if canonical == address and urlsplit(address).netloc in self._hosts:
            place = f"{address.rpartition('/')[0]}/"
            raise UnmappedError(
                f"the mirror serves files below {place}, and no line of index-mirrors leads from there to what they "
                "are called in locks",
                where=place,
                hint='${EDITOR:-vi} pyproject.toml  # [tool.envbuilder.index-mirrors] "<canonical files>" = "<these>"',
            )
        return canonical

    def project(self, text: str) -> str:
        """A generated project whose indexes are the mirrors; uv's own default counts too."""
        if not self:
            return text
        document = tomlkit.parse(text)
        settings = document["tool"]["uv"]
        array = tomlkit.aot()
        for table in self.tables(settings.get("index") or []):
            array.append(tomlkit.item(table))
        if len(array):
            settings["index"] = array
        return tomlkit.dumps(document)

    def tables(self, indexes: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
        """``[[tool.uv.index]]`` tables that lead to the mirrors; of uv's own default too, where none is named."""
        led = [{**table, "url": self.there(str(table["url"]))} for table in indexes]
        if self and not any(table.get("default") for table in led) and self.there(default_index()) != default_index():
            led.append({"name": "mirror-of-pypi", "url": self.there(default_index()), "default": True})
        return led

    def lock_there(self, text: str) -> str:
        """A lock as it looks to a uv that resolves with the mirrors."""
        return _replaced(text, self.there)

    def lock_back(self, text: str) -> str:
        """A lock that was made with the mirrors, with its canonical addresses."""
        return _replaced(text, self.back)

    @contextlib.contextmanager
    def installable(self, project: Path) -> Iterator[Path]:
        """The folder of a project and its lock whose files come from the mirrors: its own where there are none.

        Raises:
            OSError: the copy cannot be written.
        """
        if not self:
            yield project
            return
        with tempfile.TemporaryDirectory(prefix="envbuilder-mirrored-") as scratch:
            # Folders of the same names, which errors and prompts tell.
            copy = Path(scratch) / project.parent.name / project.name
            copy.mkdir(parents=True)
            for name, change in (("pyproject.toml", self.project), ("uv.lock", self._files_there)):
                text = (project / name).read_text(encoding="utf-8")
                (copy / name).write_text(_absolute(change(text), project), encoding="utf-8")
            yield copy

    def _files_there(self, text: str) -> str:
        return _replaced(text, self.there, only="url")


def _led(address: str, prefixes: Mapping[str, str]) -> str:
    prefix = max((key for key in prefixes if _begins(address, key)), key=len, default=None)
    return address if prefix is None else prefixes[prefix] + address[len(prefix) :]


def _begins(address: str, prefix: str) -> bool:
    # https://a/simple is no prefix of https://a/simpler.
    rest = address[len(prefix) :]
    return address.startswith(prefix) and (not rest or prefix.endswith("/") or rest.startswith("/"))


def _replaced(text: str, lead: Callable[[str], str], only: str = "") -> str:
    def one(found: re.Match[str]) -> str:
        if only and found["key"] != only:
            return found[0]
        return f'{found["key"]} = "{lead(found["address"])}"'

    return _ADDRESS.sub(one, text)


def _absolute(text: str, project: Path) -> str:
    return _RELATIVE.sub(lambda found: f'{found["key"]} = "{(project / found["path"]).resolve()}"', text)
