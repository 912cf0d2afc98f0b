"""The registry's schema, and entries as a profile sees them. Pure: files come in as trees, entries go out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Annotated, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from envbuilder import accelerators
from envbuilder.config import PythonRequest, address, canonical_address, requirement
from envbuilder.documents import Document, Located, merge, slashed, validate
from envbuilder.errors import ConfigError, Problem
from envbuilder.models import Entry, GitSource, PathSource, PypiSource, Registry, Source

# PEP 508's rule for names, to the end of the text.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_ENTRY_POINT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The transports that git speaks itself. What is left out runs programs (ext::) or inherits descriptors (fd::). A host
# or user that starts with a dash would be an option of ssh's.
_GIT_URL = re.compile(
    r"(https?|ssh|git)://(?![^/]*@-)[A-Za-z0-9_\[][^\s\x00-\x20\x7f#]*|file:///[^\s\x00-\x20\x7f#]+", re.ASCII
)
_SCP_LIKE = re.compile(r"([\w.-]+@[\w.-]+):(?!//)(\S+)")
# What git check-ref-format refuses, and a leading dash, which git would read as an option.
_BAD_REF = re.compile(r"^-|^/|(^|/)\.|\.\.|[\x00-\x20~^:?*\[\\\x7f]|@\{|//|[/.]$|\.lock(/|$)|^@$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("expected a distribution name: letters, digits, and -_. between them")
    return text


def _entry_point(text: str) -> str:
    if not _ENTRY_POINT.fullmatch(text):
        raise ValueError("expected module:attribute, such as ocr_crnn:CrnnOcr")
    return text


def _specifier(text: str) -> str:
    try:
        return str(SpecifierSet(text))
    except InvalidSpecifier as error:
        raise ValueError(f"expected a version specifier such as >=0.2,<0.3 ({error})") from error


def _git_url(text: str) -> str:
    slashed(text)
    if found := _SCP_LIKE.fullmatch(text):
        raise ValueError(f"expected a git address with its scheme, which uv needs: ssh://{found[1]}/{found[2]}")
    if not _GIT_URL.fullmatch(text):
        raise ValueError("expected a git address: https://, ssh://, git:// or file:///, with a host and no spaces or #")
    return canonical_address(address(text))


def _ref(text: str) -> str:
    if _BAD_REF.search(text):
        raise ValueError("expected a name that git accepts for a tag or branch")
    return text


def _commit(text: str) -> str:
    if not _COMMIT.fullmatch(text):
        raise ValueError("expected a commit as 40 hexadecimal digits; a tag goes under tag:")
    return text


def _inside(text: str) -> str:
    path = PurePosixPath(slashed(text))
    if not path.parts or text.startswith(("/", "~", "-")) or ".." in path.parts or _CONTROL.search(text):
        raise ValueError("expected a relative path that stays inside")
    return str(path)


def _plain(text: str) -> str:
    if "\0" in text:
        raise ValueError("expected text that a program can be given, without a NUL character")
    return text


def _variable(text: str) -> str:
    if not _ENV_NAME.fullmatch(text):
        raise ValueError("expected the name of an environment variable")
    return text


def _torch(text: str) -> str:
    try:
        return text if text == accelerators.AUTO else accelerators.backend(text)
    except ValueError as error:
        raise ValueError(f"{error}; or auto") from error


def _with_torch(value: object) -> object:
    # What all who forget to declare a build requirement forget.
    named = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return {name: ["torch"] for name in value} if named else value  # type: ignore[attr-defined]


Specifier = Annotated[str, AfterValidator(_specifier)]
Ref = Annotated[str, AfterValidator(_ref)]
Plain = Annotated[str, AfterValidator(_plain)]
Inside = Annotated[str, AfterValidator(_inside)]
Name = Annotated[str, AfterValidator(_name)]
BuildTogether = Annotated[
    dict[Name, Annotated[tuple[Annotated[str, AfterValidator(requirement)], ...], Field(min_length=1)]],
    BeforeValidator(_with_torch, json_schema_input_type=list[str] | dict[str, list[str]]),
]


class SourceDocument(Document):
    """Where the code comes from: exactly one of ``git`` (with ``tag``, ``rev`` or ``branch``), ``pypi`` and ``path``."""

    git: Annotated[str, AfterValidator(_git_url)] | None = Field(
        default=None, description="a repository's address: https://, ssh://, git:// or file:///"
    )
    tag: Ref | None = Field(default=None, description="the tag to pin")
    rev: Annotated[str, AfterValidator(_commit)] | None = Field(
        default=None, description="the commit to pin, in place of a tag: 40 hexadecimal digits"
    )
    branch: Ref | None = Field(default=None, description="a branch, whose tip is taken; in dev only")
    subdirectory: Inside | None = Field(default=None, description="where in the repository the package is")
    lfs: bool | None = Field(default=None, description="whether what a git source keeps in Git LFS is fetched")
    pypi: Specifier | None = Field(default=None, description="a version specifier: ==1.2.3, or a range in dev")
    path: Inside | None = Field(default=None, description="an editable checkout, relative to the workspace")

    @model_validator(mode="after")
    def _one_kind(self) -> SourceDocument:
        kinds = [name for name in ("git", "pypi", "path") if getattr(self, name) is not None]
        refs = [name for name in ("tag", "rev", "branch") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"expected exactly one of git, pypi, path; found {', '.join(kinds) or 'none'}")
        if kinds == ["git"] and len(refs) != 1:
            raise ValueError(f"a git source needs exactly one of tag, rev, branch; found {', '.join(refs) or 'none'}")
        beside = [name for name in ("subdirectory", "lfs") if getattr(self, name) is not None]
        if kinds != ["git"] and (refs or beside):
            raise ValueError(f"{(refs or beside)[0]} belongs to a git source, not to {kinds[0]}")
        return self

    def source(self) -> Source:
        """The source as a value."""
        if self.git is not None:
            kind, ref = next((k, r) for k in ("tag", "rev", "branch") if (r := getattr(self, k)) is not None)
            return GitSource(self.git, kind, ref, self.subdirectory or "", bool(self.lfs))
        if self.pypi is not None:
            specifiers = list(SpecifierSet(self.pypi))
            exact = len(specifiers) == 1 and specifiers[0].operator in {"==", "==="} and "*" not in str(specifiers[0])
            return PypiSource(self.pypi, exact=exact)
        return PathSource(str(self.path))


class EntryDocument(Document):
    """A registry entry, base and overlay together."""

    name: Annotated[str, AfterValidator(_name)] = Field(
        description="the distribution's name; the file is named after it"
    )
    kind: Literal["plugin", "library"] = Field(
        default="plugin", description="a library is what plugins depend on, and gets no environment"
    )
    stage: Literal["inference", "eval", "report"] | None = Field(
        default=None, description="what a plugin does in a run; required of a plugin"
    )
    entry: Annotated[str, AfterValidator(_entry_point)] | None = Field(
        default=None, description="the plugin's class as module:attribute; a plugin has this or command"
    )
    command: tuple[Plain, ...] = Field(default=(), description="a program and its arguments, in place of a class")
    source: SourceDocument = Field(description="where the code comes from; an overlay replaces it whole")
    core: Specifier | None = Field(
        default=None, description="which core versions it fits, where that is less than its own metadata says"
    )
    python: PythonRequest | None = Field(
        default=None, description="a version or a specifier, in place of the profile's: 3.11 or ==3.11.*"
    )
    extras: tuple[Annotated[str, AfterValidator(_name)], ...] = Field(
        default=(), description="extras of the package to install"
    )
    requires: tuple[Annotated[str, AfterValidator(requirement)], ...] = Field(
        default=(), description="requirements that the package's own metadata leaves out"
    )
    exclude: tuple[Annotated[str, AfterValidator(_name)], ...] = Field(
        default=(), description="distributions that the package's own metadata asks for and that are left out"
    )
    env: dict[Annotated[str, AfterValidator(_variable)], Plain] = Field(
        default_factory=dict, description="environment variables of its worker, and of the builds of its packages"
    )
    torch: Annotated[str, AfterValidator(_torch)] | None = Field(
        default=None, description="which of the profile's torch-backends; auto lets the machine's driver decide"
    )
    provided: dict[Annotated[str, AfterValidator(_name)], Specifier] = Field(
        default_factory=dict, description="distributions that the base interpreter supplies: not locked, not installed"
    )
    no_build_isolation: BuildTogether = Field(
        default_factory=dict,
        description="packages built with what they import and do not declare, at the versions of the environment; a "
        "list of packages means torch",
    )
    align: tuple[Name, ...] = Field(
        default=(), description="groups whose plugins lock the same versions of what they share"
    )

    @model_validator(mode="after")
    def _plugin_or_library(self) -> EntryDocument:
        if self.kind == "library":
            extra = [
                name for name in ("stage", "entry", "command", "torch", "provided", "align") if getattr(self, name)
            ]
            if extra:
                raise ValueError(f"a library has no {extra[0]}; expected kind: plugin, or the key left out")
            return self
        if self.stage is None:
            raise ValueError("a plugin needs stage: inference, eval or report")
        if (self.entry is None) == (not self.command):
            raise ValueError("a plugin needs either entry: module:attribute or command: [...]")
        return self


def parse(
    trees: Iterable[tuple[Located, Located | None]], torch_backends: Collection[str] = (accelerators.DEFAULT,)
) -> Registry:
    """Make the registry of base entries and the overlays that count.

    Args:
        trees: each base with its overlay.
        torch_backends: what the profile lists, one of which an entry may ask for.

    Raises:
        ConfigError: with everything that is wrong in all files.
    """
    problems: list[Problem] = []
    entries: dict[str, Entry] = {}
    for base, overlay in trees:
        stem = PurePosixPath(base.file).stem
        tree = base if overlay is None else merge(base, overlay, whole=frozenset({"source"}))
        try:
            document = validate(tree, EntryDocument, entry=stem)
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        name = str(canonicalize_name(document.name))
        place = str(tree.place(("name",)))
        if name != canonicalize_name(stem):
            message = f"name: {document.name!r} in a file named {stem}.yaml; expected the same name"
            hint = f"mv {base.file} {PurePosixPath(base.file).with_name(name + '.yaml')}"
            problems.append(Problem("config-invalid", message, entry=stem, where=place, hint=hint))
        elif name in entries:
            message = f"name: {document.name!r} stands in {entries[name].where} already"
            hint = f"diff {entries[name].where.partition(':')[0]} {base.file}  # one of them has to go"
            problems.append(Problem("config-invalid", message, entry=stem, where=place, hint=hint))
        else:
            entries[name] = _entry(document, name, tree)
            problems.extend(_torch_problems(entries[name], torch_backends))
    if problems:
        raise ConfigError(problems)
    return Registry(tuple(entries[name] for name in sorted(entries)))


def _torch_problems(entry: Entry, listed: Collection[str]) -> Iterator[Problem]:
    file, _, rest = entry.at("torch").partition(":")
    hint = f"${{EDITOR:-vi}} +{rest.split(':')[0] or 1} {file}"
    if entry.torch not in {None, accelerators.AUTO, *listed}:
        message = (
            f"torch: expected auto or one of the profile's torch-backends, {', '.join(listed)}; found {entry.torch!r}"
        )
        yield Problem("config-invalid", message, entry=entry.name, where=entry.at("torch"), hint=hint)
    elif entry.torch not in {None, accelerators.AUTO} and "torch" in entry.provided:
        message = f"torch: {entry.torch!r} beside a provided torch, which the base interpreter alone decides on"
        yield Problem("config-invalid", message, entry=entry.name, where=entry.at("torch"), hint=hint)


def _entry(document: EntryDocument, name: str, tree: Located) -> Entry:
    return Entry(
        name=name,
        kind=document.kind,
        source=document.source.source(),
        where=str(tree.place(("name",))),
        stage=document.stage,
        entry=document.entry,
        command=document.command,
        core=document.core,
        python=document.python,
        extras=document.extras,
        requires=document.requires,
        exclude=document.exclude,
        no_build_isolation={str(canonicalize_name(key)): value for key, value in document.no_build_isolation.items()},
        align=tuple(sorted({str(canonicalize_name(group)) for group in document.align})),
        torch=document.torch,
        provided={str(canonicalize_name(key)): value for key, value in document.provided.items()},
        env=dict(document.env),
        places={key: str(tree.place((key,))) for key in tree.value},
    )
