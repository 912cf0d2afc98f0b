"""Digests of many files at once, and what is remembered of them."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from envbuilder.store.digests import Digests, sha256_of, sha256_of_all

# Around the blocks that files are read in, and enough in all that every core takes part.
SIZES = [0, 1, 65_535, 65_536, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 3_000_000, 9_000_000]


def expected(data: bytes) -> str:
    """The digest as seals name it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("cores", [1, None])
def test_many_files_have_the_digests_of_their_bytes(tmp_path: Path, cores: int | None) -> None:
    """Files of all sizes, however many cores there are; what cannot be read says why and stops nothing else."""
    draw = random.Random(0)  # noqa: S311 - bulk, not secrets
    contents = {str(tmp_path / f"{size}-{number}"): draw.randbytes(size) for number in range(3) for size in SIZES}
    for path, data in contents.items():
        Path(path).write_bytes(data)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        wrong = {str(tmp_path / "gone"): 1 << 30, str(tmp_path): 0}
        found = sha256_of_all({**{path: len(data) for path, data in contents.items()}, **wrong})
    finally:
        os.sched_setaffinity(0, allowed)
    reasons = [found.pop(path) for path in wrong]
    assert [type(reason) for reason in reasons] == [FileNotFoundError, IsADirectoryError]
    assert found == {path: expected(data) for path, data in contents.items()}
    assert all(sha256_of(path) == digest for path, digest in found.items())


def test_what_was_hashed_is_remembered_until_it_is_to_be_fresh(tmp_path: Path) -> None:
    """An edit that puts size and time back is not seen by who asks the memory, and is by who does not."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"one")
    link.hardlink_to(file)
    others = {str(tmp_path / f"other-{number}"): f"{number}".encode() for number in range(2000)}
    for path, data in others.items():
        Path(path).write_bytes(data)

    def ask(*, fresh: bool) -> dict[str, str]:
        with Digests(tmp_path / "state" / "digests.sqlite", fresh=fresh) as digests:
            return digests.of_all({path: os.lstat(path) for path in (*others, str(file), str(link))})

    remembered = {path: expected(data) for path, data in others.items()}
    assert ask(fresh=False) == {**remembered, str(file): expected(b"one"), str(link): expected(b"one")}
    status = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ask(fresh=False)[str(link)] == expected(b"one")
    assert ask(fresh=True) == {**remembered, str(file): expected(b"two"), str(link): expected(b"two")}
    assert ask(fresh=False)[str(file)] == expected(b"two")


@pytest.mark.parametrize("state", ["not a database", "a folder"])
def test_a_memory_that_cannot_be_used_costs_time_only(tmp_path: Path, state: str) -> None:
    """Where the database is something else, everything is hashed."""
    database, file = tmp_path / "digests.sqlite", tmp_path / "file"
    database.mkdir() if state == "a folder" else database.write_text("not a database" * 1000)
    file.write_bytes(b"one")
    with Digests(database) as digests:
        assert digests.of_all({str(file): file.lstat()}) == {str(file): expected(b"one")}


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """What goes away between the walk and the hashing is an error, not a seal without it."""
    file = tmp_path / "file"
    file.write_bytes(b"one")
    status = file.lstat()
    file.unlink()
    with Digests(tmp_path / "digests.sqlite") as digests, pytest.raises(FileNotFoundError):
        digests.of_all({str(file): status})
