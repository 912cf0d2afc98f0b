"""The file itself: a compressed tar whose first member, the manifest, tells size and digest of every other.

Members are ``cache/<bucket>-v<N>/…``, parts of uv's cache folder, and ``git/<name>.bundle``, one git bundle for each
address. Nothing that comes from such a file is trusted: names, links, sizes and digests are proved by `scan`.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Literal

from packaging.tags import platform_tags
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from envbuilder.errors import EnvbuilderError, remedy
from envbuilder.store.digests import sha256_of

MANIFEST = "manifest.json"

# Far more than a bundle of a hundred thousand files needs; a damaged size must not eat the memory.
_MANIFEST_LIMIT = 256 << 20
_CHUNK = 1 << 20
# A bundle ends with an empty gzip member that carries, as an extra field of the name "eb", the digest of all before it:
# gzip's own checksum covers what comes out, and more than one deflate stream gives the same.
_SEAL_HEAD = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + b"\x24\0" + b"eb" + b"\x20\0"
_SEAL_TAIL = b"\x03\0" + bytes(8)
_PLATFORM = re.compile(r"(many|musl)?linux[a-z0-9_]*")
_SEAL_SIZE = len(_SEAL_HEAD) + 32 + len(_SEAL_TAIL)
_NAME = re.compile(r"cache/[a-z-]+-v[0-9]+(/[^/\0]+)+|git/[0-9a-f]{12}\.bundle|lfs/[0-9a-f]{64}")


class DamagedError(EnvbuilderError):
    """A file that is no bundle, or not the one that was made."""

    code = "bundle-damaged"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class File(_Strict):
    """A regular file: size in bytes, digest, permissions."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    mode: int = Field(ge=0, le=0o777)


class Link(_Strict):
    """A symbolic link to a folder of unpacked files, relative to where it stands."""

    link: str


class Git(_Strict):
    """The git bundle of an address, and the objects that are to be had from it."""

    file: str
    objects: tuple[str, ...] = Field(strict=False)


class Python(_Strict):
    """The interpreter that a plugin's environment was built with."""

    implementation: str
    version: str
    abi: str
    platform: str


class Manifest(_Strict):
    """What a bundle holds, and where it fits.

    Attributes:
        schema_: the format's name.
        profile, plugins: what it serves.
        uv: the version whose cache it holds.
        machine: the platform tag of where it was made, such as ``manylinux_2_36_x86_64``: C library, its version, CPU.
        python: plugin to interpreter.
        locks: plugin to the digest of its ``uv.lock``.
        git: canonical address to git bundle.
        files: every other member of the tar.
    """

    schema_: Literal["envbuilder/bundle/1"] = Field(alias="schema")
    profile: str
    plugins: tuple[str, ...] = Field(strict=False)
    uv: str
    machine: str = Field(pattern=r"^[a-z0-9_]+$")
    python: Mapping[str, Python]
    locks: Mapping[str, str]
    git: Mapping[str, Git]
    files: Mapping[str, File | Link]

    @property
    def platform(self) -> str:
        """The machine that it was made on, such as ``linux-x86_64``."""
        return ", ".join(sorted({python.platform for python in self.python.values()}))

    def asked_of_platform(self) -> dict[str, tuple[str, ...]]:
        """The platform tags, of which a machine must have one, of each compiled wheel: read off the cache's names.

        What was built where the bundle was made may need that machine's C library.
        """
        wheels = {}
        for name in self.files:
            tags = name.rpartition("/")[2].removesuffix(".whl").split("-")
            platforms = tags[-1].split(".")
            if name.startswith("cache/") and len(tags) > 3 and all(_PLATFORM.fullmatch(each) for each in platforms):
                wheels[name] = tuple(self.machine if each.startswith("linux") else each for each in platforms)
        return wheels


def machine_tags() -> list[str]:
    """The platform tags that this machine serves, the most demanding first; they tell its C library and CPU."""
    tags = list(platform_tags())
    return [tag for tag in tags if not tag.startswith("linux")] or tags


def hex_of(file: Path) -> str:
    """A file's SHA-256 as a manifest writes it."""
    return sha256_of(file).removeprefix("sha256:")


def archive_of(name: str) -> str | None:
    """The folder of unpacked files that a member belongs to, which is whole or not there; None for other members."""
    parts = name.split("/")
    return "/".join(parts[:3]) if len(parts) > 3 and parts[1].startswith("archive-v") else None


def write(stream: IO[bytes], manifest: Manifest, sources: Mapping[str, Path]) -> None:
    """Write a bundle: the same files give the same bytes.

    Args:
        stream: where to; it is read back once.
        manifest: what it holds.
        sources: member to file.
    """
    text = manifest.model_dump_json(by_alias=True, indent=1).encode()
    with (
        gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        head = tarfile.TarInfo(MANIFEST)
        head.size = len(text)
        tar.addfile(head, io.BytesIO(text))
        for name, fact in sorted(manifest.files.items()):
            member = tarfile.TarInfo(name)
            if isinstance(fact, Link):
                member.type, member.linkname = tarfile.SYMTYPE, fact.link
                tar.addfile(member)
                continue
            member.size, member.mode = fact.size, fact.mode
            with sources[name].open("rb") as source:
                tar.addfile(member, source)
    stream.write(_seal(stream, stream.tell()))


def _seal(stream: IO[bytes], size: int) -> bytes:
    """The last bytes of a bundle whose other bytes, so many, are those of a stream."""
    digest = hashlib.sha256()
    stream.seek(0)
    while size and (chunk := stream.read(min(size, _CHUNK))):
        digest.update(chunk)
        size -= len(chunk)
    return _SEAL_HEAD + digest.digest() + _SEAL_TAIL


def scan(file: Path, targets: Mapping[str, Path] | None = None) -> Manifest:
    """Read a bundle to its end and prove every byte of it.

    Args:
        file: the bundle.
        targets: members to write, and where; their folders are made. Nothing else is written.

    Raises:
        DamagedError: something is not as the manifest, or the format, has it.
        OSError: a target cannot be written.
    """
    wanted = targets or {}
    with _opened(file) as tar:
        manifest = _read_manifest(tar, file)
        missing = set(manifest.files)
        while (member := tar.next()) is not None:
            fact = manifest.files.get(member.name)
            if fact is None or member.name not in missing:
                raise _damaged(file, f"{member.name!r} is not in its manifest, or is there twice")
            missing.discard(member.name)
            wrong = _take(tar, member, fact, wanted.get(member.name))
            if wrong:
                raise _damaged(file, f"{member.name} {wrong}")
        if missing:
            raise _damaged(file, f"{len(missing)} of its {len(manifest.files)} files are missing: {min(missing)}")
    return manifest


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, fact: File | Link, target: Path | None) -> str | None:
    """Prove a member, and write it where a target is given; what is wrong with it."""
    if isinstance(fact, Link):
        if not member.issym() or member.linkname != fact.link:
            return "is not the link that its manifest has"
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(fact.link)
        return None
    stream = tar.extractfile(member) if member.isreg() else None
    if stream is None or member.size != fact.size:
        return f"has {member.size} bytes, its manifest says {fact.size}"
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        out = None
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            out = stack.enter_context(target.open("wb"))
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            if out is not None:
                out.write(chunk)
    if target is not None:
        target.chmod(fact.mode)
    return None if digest.hexdigest() == fact.sha256 else "is not what its manifest has: the digests differ"


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        raw = file.open("rb")
    except OSError as error:
        message = f"cannot read {file}: {error.strerror or error}"
        hint = remedy(error) or f"ls -l {file.parent}"
        raise EnvbuilderError(message, code="unreadable", where=str(file), hint=hint) from error
    with raw:
        try:
            size = max(0, raw.seek(0, os.SEEK_END) - _SEAL_SIZE)
            if _seal(raw, size) != raw.read(_SEAL_SIZE + 1):
                raise _damaged(file, "it is cut short or was changed: it does not end with the digest of what it holds")
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw, mode="rb") as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
                yield tar
                # To the very end, where the checksum of the whole stands.
                while chunk := packed.read(_CHUNK):
                    if chunk.strip(b"\0"):
                        raise _damaged(file, "something follows its last member")
        except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
            raise _damaged(file, f"it is cut short or was changed: {error}") from error


def _read_manifest(tar: tarfile.TarFile, file: Path) -> Manifest:
    head = tar.next()
    stream = tar.extractfile(head) if head is not None and head.isreg() else None
    if head is None or stream is None or head.name != MANIFEST or head.size > _MANIFEST_LIMIT:
        raise _damaged(file, f"its first member is not {MANIFEST}")
    try:
        manifest = Manifest.model_validate_json(stream.read())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _damaged(file, f"{MANIFEST}: {place}: {first['msg']}") from error
    for wrong in _wrong(manifest):
        raise _damaged(file, wrong)
    return manifest


def _wrong(manifest: Manifest) -> Iterator[str]:
    """What a manifest must not say: names and links that lead elsewhere, git bundles that are not there."""
    archives = {archive_of(name) for name in manifest.files} - {None}
    for name, fact in manifest.files.items():
        parts = name.split("/")
        if not _NAME.fullmatch(name) or not {".", ".."}.isdisjoint(parts):
            yield f"{name!r} is no name for a file of a bundle"
        if any("/".join(parts[:end]) in manifest.files for end in range(1, len(parts))):
            yield f"{name} stands below a file or a link"
        if isinstance(fact, Link) and (archive_of(name) or _led_to(parts[:-1], fact.link) not in archives):
            yield f"{name} leads to {fact.link!r}, which is no unpacked package of the bundle"
    if set(manifest.locks) != set(manifest.plugins) or set(manifest.python) != set(manifest.plugins):
        yield "its locks or interpreters are not those of its plugins"
    named = {git.file for git in manifest.git.values()}
    if named != {name for name in manifest.files if name.startswith("git/")}:
        yield "its git bundles are not those that it names"
    for git in manifest.git.values():
        if not all(re.fullmatch(r"[0-9a-f]{40}", each) for each in git.objects):
            yield f"{git.file}: no digests of git objects"


def _led_to(folder: list[str], link: str) -> str | None:
    place = list(folder)
    for part in link.split("/"):
        if part == "..":
            if not place:
                return None
            place.pop()
        elif part in {"", "."}:
            return None
        else:
            place.append(part)
    return "/".join(place)


def _damaged(file: Path, message: str) -> DamagedError:
    return DamagedError(f"{file.name} is no whole bundle: {message}", where=str(file), hint=f"sha256sum {file}")
