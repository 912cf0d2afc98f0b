"""Changes in files that people wrote: what is not meant stays as it stands, comments and order included."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any

from envbuilder.documents import parse_toml, parse_yaml
from envbuilder.errors import ToolError

if TYPE_CHECKING:
    from ruamel.yaml import YAML

Path_ = tuple[str, ...]


def set_in_yaml(text: str, path: Path_, value: object, shown: str) -> str:
    """A YAML text in which one key has another value; mappings on the way that are not there are made.

    Args:
        text: of the file.
        path: the keys that lead to the value.
        value: text, numbers, lists and mappings of such.
        shown: how messages name the file.

    Raises:
        ConfigError: the text is no YAML.
        ToolError: the change cannot be made without another.
    """
    before = parse_yaml(text, shown).value
    plain = text.replace("\r\n", "\n")
    yaml = _yaml_as_written(plain)
    document = yaml.load(plain)
    if document is None:
        document = yaml.map()
    inner: Any = document
    for key in path[:-1]:
        inner = _entered(inner, key, shown)
    inner[path[-1]] = _like(inner.get(path[-1]), value)
    stream = StringIO()
    yaml.dump(document, stream)
    changed = stream.getvalue()
    if "\r\n" in text:
        changed = changed.replace("\n", "\r\n")
    _refuse_other_changes(before, parse_yaml(changed, shown).value, path, value, shown)
    return changed


def drop_in_yaml(text: str, key: str, shown: str) -> str | None:
    """A YAML text without one of its top-level keys; None where nothing but comments is left. As `set_in_yaml` otherwise."""
    before = parse_yaml(text, shown).value
    plain = text.replace("\r\n", "\n")
    yaml = _yaml_as_written(plain)
    document = yaml.load(plain)
    if not isinstance(before, Mapping) or not before.keys() - {key}:
        return None
    del document[key]
    stream = StringIO()
    yaml.dump(document, stream)
    changed = stream.getvalue()
    if {name: value for name, value in before.items() if name != key} != parse_yaml(changed, shown).value:
        message = f"{key} cannot be taken out without a change to what else stands there"
        raise ToolError(message, where=shown, hint=f"${{EDITOR:-vi}} {shown}")
    return changed.replace("\n", "\r\n") if "\r\n" in text else changed


def set_in_toml(text: str, path: Path_, value: object, shown: str) -> str:
    """A TOML text in which one key has another value, such as a tomlkit table; as `set_in_yaml` otherwise."""
    import tomlkit

    before = parse_toml(text, shown).value
    document = tomlkit.parse(text)
    inner: Any = document
    for key in path[:-1]:
        if key not in inner:
            inner[key] = tomlkit.table(is_super_table=True)
        inner = _entered(inner, key, shown)
    inner[path[-1]] = value
    changed = document.as_string()
    meant = value.unwrap() if hasattr(value, "unwrap") else value
    _refuse_other_changes(before, parse_toml(changed, shown).value, path, meant, shown)
    return changed


def _entered(inner: Any, key: str, shown: str) -> Any:
    if inner.get(key) is None:
        inner[key] = type(inner)()
    if not isinstance(inner[key], Mapping):
        raise ToolError(f"{key} is no table of keys, and cannot get one", where=shown, hint=f"${{EDITOR:-vi}} {shown}")
    return inner[key]


def _like(old: object, new: object) -> object:
    """A new text in the quotes of the old one."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString, SingleQuotedScalarString

    if not isinstance(new, str):
        return new
    if isinstance(old, DoubleQuotedScalarString):
        return DoubleQuotedScalarString(new)
    return SingleQuotedScalarString(new) if isinstance(old, SingleQuotedScalarString) else new


def _yaml_as_written(text: str) -> YAML:
    """A reader and writer of YAML that indents as a text does."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 4096  # Lines are not broken anew.
    yaml.explicit_start = text.startswith("---")
    nested = re.search(r"^(?: *)[^\s#-][^\n]*:[ ]*(?:#[^\n]*)?\n(?:\s*#[^\n]*\n)*( +)[^\s#-]", text, re.MULTILINE)
    listed = re.search(r"^( *)[^\s#-][^\n]*:[ ]*(?:#[^\n]*)?\n(?:\s*#[^\n]*\n)*( *)-( +)\S", text, re.MULTILINE)
    offset = len(listed[2]) - len(listed[1]) if listed else 2
    yaml.indent(
        mapping=len(nested[1]) if nested and len(nested[1]) <= 8 else 2,
        sequence=offset + 1 + (len(listed[3]) if listed else 1),
        offset=offset,
    )
    return yaml


def _refuse_other_changes(before: object, after: object, path: Path_, value: object, shown: str) -> None:
    if _with(before, path, value) != after:
        message = f"{'.'.join(path)} cannot be set without a change to what else stands there"
        raise ToolError(message, where=shown, hint=f"${{EDITOR:-vi}} {shown}")


def _with(tree: object, path: Path_, value: object) -> object:
    if not path:
        return value
    held = dict(tree) if isinstance(tree, Mapping) else {}
    return {**held, path[0]: _with(held.get(path[0]), path[1:], value)}
