"""Files that people write: YAML and TOML with the place of every value, checked against a schema.

A file is read into a `Located` tree, trees may be merged (an overlay over its base), and the result is validated
into a `Document`. What is wrong is told all at once, each with file, line and column, what was found, what was
expected, and the nearest known key.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from envbuilder.encodings import foreign
from envbuilder.errors import ConfigError, Problem, nearest, redacted, remedy

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# A file of a person has some hundred nodes; aliases that multiply are an attack or an accident.
LARGEST = 4_000_000  # bytes
_MOST_NODES = 100_000
_DEEPEST = 64
_PLAIN_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_TOO_MUCH = "too large or too deeply nested for a file of this kind"

_MARK = "\ufeff"

_SLASHES = "in double quotes a backslash begins an escape; write paths with /"

# What the schema library calls things, in the words of who wrote the file.
_EXPECTED = {
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "dict_type": "expected a mapping of keys",
    "model_type": "expected a mapping of keys",
    "string_type": "expected text",
    "bool_type": "expected true or false",
}

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Where in which file; lines and columns count from 1, 0 where unknown.

    `text` is what stands there, of a scalar: 3.10 is another text than 3.1, but the same number. `plain` says that it
    stands there without quotes.
    """

    file: str
    line: int = 0
    column: int = 0
    text: str = ""
    plain: bool = False

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Located:
    """Plain data (what JSON knows, and dates) and the place of each of its parts."""

    value: Any  # A tree that no schema has seen yet.
    file: str
    places: Mapping[Path_, Place] = field(default_factory=dict)

    def place(self, path: Path_) -> Place:
        """The place of a part, or of the nearest part around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return Place(self.file)


class Document(BaseModel):
    """The base of every schema: frozen, keys in kebab-case, unknown keys refused."""

    model_config = ConfigDict(
        defer_build=True,  # Most commands read only some of the kinds of files.
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_alias=True,  # One spelling of each key: `exclude_newer` is a typo.
        serialize_by_alias=True,
    )


D = TypeVar("D", bound=Document)

_DRIVE = re.compile(r"[A-Za-z]:(?![^\\/]*//)")


def slashed(text: str) -> str:
    """A path, or an address, that reads the same on every machine.

    Raises:
        ValueError: it is one of Windows: with a drive, or with backslashes.
    """
    if "\\" in text or _DRIVE.match(text):
        raise ValueError(
            "expected a path with forward slashes and no drive, such as data/lines.csv, not one of Windows"
        )
    return text


def read_yaml(path: Path, shown: str) -> Located:
    """Read a YAML file; `shown` is how messages name it.

    Raises:
        ConfigError: it is not there, too large, no UTF-8, no YAML, or repeats a key.
    """
    return parse_yaml(read_text(path, shown), shown)


def parse_yaml(text: str, shown: str) -> Located:
    """Parse YAML with the safe loader, keeping line and column of every node."""
    try:
        _refuse_depth(text, shown)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return Located(None, shown)
            places: dict[Path_, Place] = {}
            value = _Builder(loader, shown, places).build(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(shown, mark.line + 1, mark.column + 1) if mark else Place(shown)
        remark = _SLASHES if "escape" in str(error.problem) else None
        message = f"not valid YAML: {error.problem or error.context or error}"
        raise ConfigError([_problem(place, message, remark=remark)]) from error
    except yaml.reader.ReaderError as error:
        place = Place(shown, text[: error.position].count("\n") + 1)
        raise ConfigError([_problem(place, f"not valid YAML: character {error.character!r} is not allowed")]) from error
    except yaml.YAMLError as error:
        raise ConfigError([_problem(Place(shown), f"not valid YAML: {error}")]) from error
    except (ValueError, RecursionError) as error:  # A date such as 2026-13-45, or brackets without end.
        raise ConfigError([_problem(Place(shown), f"not valid YAML: {error}")]) from error
    return Located(value, shown, places)


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _refuse_depth(text: str, shown: str) -> None:
    # The C library composes nodes by recursion without a limit: some 20,000 brackets end the process.
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            mark = event.start_mark
            raise ConfigError(
                [_problem(Place(shown, mark.line + 1, mark.column + 1) if mark else Place(shown), _TOO_MUCH)]
            )


class _Builder:
    """Turns a node tree into data, noting places."""

    def __init__(self, loader: Any, shown: str, places: dict[Path_, Place]):  # PyYAML's two loaders share no type.
        self._loader = loader
        self._shown = shown
        self._places = places
        self._nodes = 0

    def build(self, node: yaml.Node, path: Path_) -> Any:
        self._nodes += 1
        if self._nodes > _MOST_NODES or len(path) > _DEEPEST:
            raise ConfigError([_problem(self._at(node), _TOO_MUCH)])
        self._places.setdefault(path, self._at(node))
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
            message = f"not valid YAML here: could not determine a constructor for the tag {_cut(node.tag)!r}"
            raise ConfigError([_problem(self._at(node), message)])
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        self._places[path] = replace(
            self._places[path], text=node.value, plain=isinstance(node, yaml.ScalarNode) and not node.style
        )
        try:
            return self._loader.construct_object(node)
        except yaml.constructor.ConstructorError as error:
            raise ConfigError([_problem(self._at(node), f"not valid YAML here: {error.problem}")]) from error
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            # The safe loader's own constructors fail so on text that is not of its tag: `!!bool maybe`, 2026-13-45.
            tag = node.tag.removeprefix("tag:yaml.org,2002:")
            raise ConfigError(
                [_problem(self._at(node), f"not valid YAML here: {_cut(node.value)} is no {tag}")]
            ) from error

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                raise ConfigError([_problem(self._at(key_node), "a key must be plain text")])
            inner = (*path, key)
            if key in result:
                first = self._places[inner]
                raise ConfigError([_problem(self._at(key_node), f"key {key!r} stands here again; first at {first}")])
            self._places[inner] = self._at(key_node)
            result[key] = self.build(value_node, inner)
        return result

    def _at(self, node: yaml.Node) -> Place:
        return Place(self._shown, node.start_mark.line + 1, node.start_mark.column + 1)


def read_toml(path: Path, shown: str, *, largest: int = LARGEST) -> Located:
    """Read a TOML file of at most so many bytes; `shown` is how messages name it.

    Raises:
        ConfigError: it is not there, too large, no UTF-8, or no TOML.
    """
    return parse_toml(read_text(path, shown, largest=largest), shown)


def parse_toml(text: str, shown: str) -> Located:
    """Parse TOML, with the line of every key that stands alone on one."""
    if text.startswith(_MARK):
        message = "begins with a byte order mark (U+FEFF), which TOML does not allow"
        hint = f"sed -i '1s/^\\xEF\\xBB\\xBF//' {shlex.quote(shown)}"
        raise ConfigError([Problem("config-invalid", message, where=f"{shown}:1:1", hint=hint)])
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+), column (\d+)", str(error))
        place = Place(shown, int(found[1]), int(found[2])) if found else Place(shown)
        remark = _SLASHES if "\\" in str(error) else None
        raise ConfigError([_problem(place, f"not valid TOML: {error}", remark=remark)]) from error
    except (ValueError, RecursionError) as error:  # A number of 5,000 digits, or brackets without end.
        raise ConfigError([_problem(Place(shown), f"not valid TOML: {error}")]) from error
    return Located(value, shown, dict(_toml_places(text, shown)))


_TOML_TABLE = re.compile(r"^\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_TOML_KEY = re.compile(r"^(\s*)((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"|'[^']*'))*)\s*=")
_TOML_PART = re.compile(r"[\w-]+|\"[^\"]*\"|'[^']*'")


def _toml_places(text: str, shown: str) -> Iterator[tuple[Path_, Place]]:
    # No parser for TOML keeps places; reading line by line finds those of every key that matters.
    table: Path_ = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TOML_TABLE.match(line):
            table = tuple(part.strip("\"'") for part in _TOML_PART.findall(header[1]))
            yield table, Place(shown, number, 1)
        elif key := _TOML_KEY.match(line):
            parts = tuple(part.strip("\"'") for part in _TOML_PART.findall(key[2]))
            yield (*table, *parts), Place(shown, number, len(key[1]) + 1, line[key.end() :].split("#")[0].strip())


def subtree(tree: Located, path: Path_) -> Located:
    """A part of a tree as a tree of its own; None where there is no such part."""
    value = tree.value
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    depth = len(path)
    places = {inner[depth:]: place for inner, place in tree.places.items() if inner[:depth] == path}
    return Located(value, tree.file, places)


def merge(base: Located, overlay: Located, *, whole: frozenset[str] = frozenset()) -> Located:
    """Lay one tree over another: mappings key by key, everything else, and the top-level keys in `whole`, replaced."""
    if not (isinstance(base.value, Mapping) and isinstance(overlay.value, Mapping)):
        return overlay if overlay.value is not None else base
    value = dict(base.value)
    places = dict(base.places)
    for key, new in overlay.value.items():
        if key not in whole and isinstance(value.get(key), Mapping) and isinstance(new, Mapping):
            inner = merge(subtree(base, (key,)), subtree(overlay, (key,)))
            value[key] = inner.value
            replaced = {(key, *path): place for path, place in inner.places.items()}
        else:
            value[key] = new
            replaced = {path: place for path, place in overlay.places.items() if path[:1] == (key,)}
        places = {path: place for path, place in places.items() if path[:1] != (key,)}
        places.update(replaced)
    return Located(value, overlay.file, places)


def validate(tree: Located, schema: type[D], *, entry: str | None = None) -> D:
    """Check a tree against a schema.

    Raises:
        ConfigError: with one problem for each thing that is wrong.
    """
    value = {} if tree.value is None else tree.value
    if not isinstance(value, Mapping):
        raise ConfigError([_problem(tree.place(()), f"expected a mapping of keys, found {_kind(value)}", entry=entry)])
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        problems = [_explain(tree, schema, detail, entry) for detail in error.errors(include_url=False)]
        raise ConfigError(problems) from error


def _explain(tree: Located, schema: type[Document], detail: ErrorDetails, entry: str | None) -> Problem:
    path = _real_path({} if tree.value is None else tree.value, detail["loc"])
    name = ".".join(str(step) for step in path) or "the file"
    place = tree.place(path)
    found = detail["input"]
    if detail["type"] == "extra_forbidden":
        known = _known_keys(schema, path[:-1])
        text = f"{name}: unknown key {path[-1]!r}; expected one of {', '.join(known)}"
        return _problem(place, text, entry=entry, remark=_nearest(str(path[-1]), known))
    if detail["type"] == "missing":
        return _problem(place, f"{name}: required, not there", entry=entry)
    remark = None
    if detail["type"] == "literal_error":
        text = f"expected {detail['ctx']['expected']}"
        remark = _nearest(str(found), re.findall(r"'([^']*)'", text))
    else:
        text = _EXPECTED.get(detail["type"]) or re.sub(r"^(Value error|Assertion failed), ", "", detail["msg"])
    if detail["type"] == "string_type" and found is not None and not isinstance(found, Mapping | list):
        # Unquoted, 3.10 is the number 3.1, and 2026-11-01 a date: what was written is in the place alone.
        written = (place.text if path in tree.places else "") or str(found)
        text = f"{name}: {text}; found {_cut(written)} ({_type(found)})"
        return _problem(place, text, entry=entry, remark=f'quote it: "{_cut(written)}"')
    shown = "" if isinstance(found, Mapping) and detail["type"] == "value_error" else f"; found {_kind(found)}"
    return _problem(place, f"{name}: {text}{shown}", entry=entry, remark=remark)


def _real_path(value: Any, location: tuple[int | str, ...]) -> Path_:
    """Where in the file an error is: without the steps that only the schema has, such as a union's branches."""
    path: list[str | int] = []
    for number, step in enumerate(location):
        inside = step in value if isinstance(value, Mapping) else isinstance(value, list) and isinstance(step, int)
        if inside:
            value = value[step]
        elif number < len(location) - 1 or not isinstance(value, Mapping) or "[" in str(step) or "(" in str(step):
            continue
        path.append(step)
    return tuple(path)


def _nearest(word: str, known: list[str]) -> str | None:
    near = nearest(word, known, cutoff=0.5)
    return f"did you mean {near!r}?" if near else None


def _known_keys(schema: type[BaseModel], path: Path_) -> list[str]:
    for step in path:
        inner = next((f.annotation for key, f in schema.model_fields.items() if step in (key, f.alias)), None)
        if inner is None:
            continue  # A step into a list or a mapping of models: its schema is the one already in hand.
        schema = next(_models(inner), schema)
    return [info.alias or name for name, info in schema.model_fields.items()]


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"{_cut(repr(value))} ({_type(value)})"


def _type(value: object) -> str:
    names = {"str": "text", "int": "a number", "float": "a number", "bool": "true or false", "datetime": "a time"}
    name = type(value).__name__
    return names.get(name, f"a {name}")


def _cut(text: str) -> str:
    text = redacted(text)  # Before it is cut: half a token is one too.
    return text if len(text) <= 60 else f"{text[:57]}..."


def _problem(place: Place, message: str, *, entry: str | None = None, remark: str | None = None) -> Problem:
    hint = f"${{EDITOR:-vi}} +{place.line or 1} {place.file}"
    if remark:
        hint += f"  # {remark}"
    return Problem("config-invalid", message, entry=entry, where=str(place), hint=hint)


def _neighbour(path: Path) -> str:
    """The file beside one that is not there that looks most like it, as words to add."""
    with contextlib.suppress(OSError):
        near = nearest(path.name, [each.name for each in path.parent.iterdir()])
        return f"; nearest: {near}" if near else ""
    return ""


def refuse_large(path: Path, shown: str, largest: int = LARGEST) -> None:
    """Refuse what is too large to be read, in bytes, or has no end.

    Raises:
        ConfigError: it is.
    """
    with contextlib.suppress(OSError):  # Which reading tells better.
        status = path.stat()
        if status.st_size > largest:
            message = f"it has {status.st_size / 1e6:.1f} MB, expected at most {largest / 1e6:g}: {_TOO_MUCH}"
            raise ConfigError([Problem("config-invalid", message, where=shown, hint=f"ls -lL {shown}")])
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):  # /dev/zero has no end.
            raise ConfigError(
                [Problem("config-invalid", "it is a device, no file", where=shown, hint=f"ls -lL {shown}")]
            )


def read_text(path: Path, shown: str, *, largest: int = LARGEST) -> str:
    """The text of a file of at most so many bytes; `shown` is how messages name it.

    Raises:
        ConfigError: it is not there, too large, a device, or no UTF-8.
    """
    refuse_large(path, shown, largest)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        message = f"no such file{_neighbour(path)}"
        raise ConfigError([Problem("config-missing", message, where=shown, hint=f"ls {Path(shown).parent}")]) from None
    except UnicodeDecodeError as error:
        place = Place(shown, error.object[: error.start].count(b"\n") + 1)
        found = foreign(error.object, shown)
        byte = f"byte {error.object[error.start]:#04x}"
        text = f"not UTF-8: {byte if found is None or found.found.startswith('byte') else found.found}"
        hint = found.hint if found else None
        raise ConfigError([Problem("config-invalid", text, where=str(place), hint=hint)]) from error
    except OSError as error:
        text = f"cannot be read: {error.strerror or error}"
        raise ConfigError(
            [Problem("config-invalid", text, where=shown, hint=remedy(error) or f"ls -ld {shown}")]
        ) from error
    if "\0" in text and (found := foreign(text.encode(), shown)):  # UTF-16 without its mark.
        raise ConfigError([Problem("config-invalid", f"not UTF-8: {found.found}", where=shown, hint=found.hint)])
    return text
