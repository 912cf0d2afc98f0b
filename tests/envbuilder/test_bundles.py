"""Bundles: what is packed builds elsewhere with nothing else at hand, and what is damaged changes nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

from envbuilder.bundles import archive, creating
from envbuilder.errors import EnvbuilderError

Members = list[tuple[tarfile.TarInfo, bytes]]
PACKAGED = ("alpha", "beta")


class Travel:
    """A workspace with a bundle of it, and the means to be a machine that has nothing but both."""

    def __init__(self, root: Path) -> None:
        self.home = Workshop(root / "here")
        self.file = root / "all.bundle"
        self.home.git("init", "--quiet", str(self.home.work))  # As workspaces mostly are.
        make_wheel(
            root / "wheels", "wheely", files={"wheely/__init__.py": b"VALUE = 7\n", "wheely/data": bytes(700_000)}
        )
        with Index(root / "wheels") as index:
            self.home.write("profiles/prod/profile.toml", f'python = "3.11"\nindex-url = "{index.url}"\n')
            self.home.plugin("alpha", dependencies=("wheely",), code="import wheely\nclass Model: pass\n")
            self.home.plugin("beta")
            env = {"UV_CACHE_DIR": str(root / "cache")}
            ran = self.home.within("lock", env=env)
            assert ran.status == 0, ran.err
            self.created = self.home.within("bundle", "create", str(self.file), "--format", "json", env=env)
        assert self.created.status == 0, self.created.out
        # The index is closed now; neither remotes, nor clones, nor caches are left.
        for gone in (self.home.remotes, self.home.work / ".envbuilder", root / "cache", root / "wheels"):
            shutil.rmtree(gone)


class There:
    """Another machine: a copy of the workspace, an empty uv cache, no state."""

    def __init__(self, travel: Travel, root: Path) -> None:
        self.workshop = Workshop.__new__(Workshop)
        self.workshop.root, self.workshop.work = root, root / "elsewhere" / "work"
        shutil.copytree(travel.home.work, self.workshop.work)
        self.cache, self.state = root / "uv-cache", root / "state"
        self.env = {"UV_CACHE_DIR": str(self.cache), "ENVBUILDER_HOME": str(self.state)}

    def run(self, *arguments: str) -> Ran:
        """Run envbuilder there."""
        return self.workshop.within(*arguments, env=self.env)

    def restore(self, file: Path) -> Ran:
        """Restore a bundle there."""
        return self.run("bundle", "restore", str(file), "--format", "json")

    @property
    def untouched(self) -> bool:
        """Whether neither cache nor state holds anything of a bundle."""
        return not list(self.cache.glob("*-v*/**/wheely*")) and not (self.state / "git").exists()


@pytest.fixture(scope="module")
def travel(tmp_path_factory: pytest.TempPathFactory) -> Travel:
    """A bundle of two plugins, one of which needs a wheel from an index."""
    return Travel(tmp_path_factory.mktemp("travel"))


@pytest.fixture
def there(travel: Travel, tmp_path: Path) -> There:
    """A machine that the bundle comes to."""
    return There(travel, tmp_path)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder: inode and mtime."""
    paths = [path for path in folder.rglob("*") if not path.is_dir() and not path.name.startswith(".envbuilder")]
    return {str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in paths}


def test_bundle_builds_where_nothing_is(travel: Travel, there: There) -> None:
    """Restored into an empty cache, without index, remotes or clones, it is all that a build needs."""
    assert travel.created.status == 0, travel.created.out
    result = travel.created.json["result"]
    assert isinstance(result, dict)
    assert result["sha256"] == hashlib.sha256(travel.file.read_bytes()).hexdigest()
    assert not [path for path in travel.file.parent.iterdir() if path.name.endswith(".envbuilder-draft")]

    assert there.run("build", "--offline").status == 1
    shutil.rmtree(there.state)
    restored = there.restore(travel.file)
    assert restored.status == 0, restored.out
    assert restored.json["schema"] == "envbuilder/bundle-restore/1"
    built = there.run("build", "--offline")
    assert built.status == 0, built.err
    ask = [
        sys.executable,
        "-m",
        "envbuilder",
        "exec",
        "alpha",
        "--",
        "python",
        "-c",
        "import alpha; print(alpha.wheely.VALUE)",
    ]
    env = there.workshop.environment(there.env)
    done = subprocess.run(ask, cwd=there.workshop.work, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "7", done.stderr
    assert there.run("verify", "--full").status == 0


def test_bundle_restored_again_writes_nothing(travel: Travel, there: There) -> None:
    """The second restore says unchanged, and touches no file."""
    assert there.restore(travel.file).status == 0
    before = tree(there.cache), tree(there.state / "git")
    again = there.restore(travel.file)
    assert again.status == 0
    result = again.json["result"]
    assert isinstance(result, dict)
    assert (result["state"], result["written"], result["repositories"]) == ("unchanged", 0, 0)
    assert (tree(there.cache), tree(there.state / "git")) == before


def test_bundle_mends_what_is_damaged_in_the_cache(travel: Travel, there: There) -> None:
    """A package that is not as it was packed is put in its place anew; the others stay."""
    assert there.restore(travel.file).status == 0
    before = tree(there.cache)
    victim = next(there.cache.glob("archive-v*/*/wheely/data"))
    victim.write_bytes(b"x")
    again = there.restore(travel.file)
    assert again.status == 0
    assert victim.read_bytes() == bytes(700_000)
    changed = {name for name, facts in tree(there.cache).items() if before[name] != facts}
    assert changed
    assert all("/wheely" in name for name in changed)
    assert not (there.cache / ".envbuilder-restore").exists()


def test_bundle_is_the_same_for_the_same_files(travel: Travel) -> None:
    """Order, owners and times of files leave no trace: what is packed again is the same, byte for byte."""
    with tarfile.open(travel.file) as tar:
        members = tar.getmembers()
        names = [member.name for member in members]
        assert names[0] == archive.MANIFEST
    assert names[1:] == sorted(names[1:])
    assert {(member.uid, member.gid, member.mtime, member.uname) for member in members} == {(0, 0, 0, "")}
    manifest = archive.scan(travel.file)
    folder = travel.file.parent / "unpacked"
    sources = {name: folder / name for name in manifest.files}
    archive.scan(travel.file, sources)
    stream = io.BytesIO()
    archive.write(stream, manifest, sources)
    assert stream.getvalue() == travel.file.read_bytes()


def test_bundle_names_no_path_of_the_machine(travel: Travel) -> None:
    """Where the bundle was made stands nowhere in it."""
    with tarfile.open(travel.file) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isreg() else None
            assert stream is None or os.fsencode(travel.file.parent) not in stream.read(), member.name


def test_cut_bundle_is_refused(travel: Travel, there: There, tmp_path: Path) -> None:
    """Wherever a copy was cut short, it is refused, and nothing is written."""
    data = travel.file.read_bytes()
    torn = tmp_path / "torn.bundle"
    for length in (0, 5, 11, 300, len(data) // 3, len(data) // 2, len(data) - 9, len(data) - 1):
        torn.write_bytes(data[:length])
        ran = there.restore(torn)
        assert (ran.status, ran.codes) == (2, ["bundle-damaged"]), (length, ran.out)
    assert there.untouched


def test_bundle_with_a_flipped_byte_is_refused(travel: Travel, there: There, tmp_path: Path) -> None:
    """One byte changed anywhere, the header of the compression included, and nothing is written."""
    data = travel.file.read_bytes()
    torn = tmp_path / "torn.bundle"
    through = {0, 5, len(data) // 2, len(data) - 2}
    for place in sorted({*through, *range(3, len(data), 11), *range(len(data) - 70, len(data))}):
        changed = bytearray(data)
        changed[place] ^= 0x10
        torn.write_bytes(bytes(changed))
        if place not in through:
            with pytest.raises(archive.DamagedError):
                archive.scan(torn)
            continue
        ran = there.restore(torn)
        assert (ran.status, ran.codes) == (2, ["bundle-damaged"]), (place, ran.out)
    torn.write_bytes(data + b"\0")
    assert there.restore(torn).codes == ["bundle-damaged"]
    assert there.untouched


def _member(name: str, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member, data


def _add(name: str, *, told: bool) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members.append(_member(name))
        if told:
            _tell(members, {name: {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest(), "mode": 0o644}})

    return change


def _add_link(name: str, target: str) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.SYMTYPE, target
        members.append((member, b""))
        _tell(members, {name: {"link": target}})

    return change


def _tell(members: Members, files: dict[str, object], **keys: object) -> None:
    manifest = json.loads(members[0][1])
    manifest["files"].update(files)
    members[0] = _member(archive.MANIFEST, json.dumps({**manifest, **keys}).encode())


def _drop(members: Members) -> None:
    del members[len(members) // 2]


def _swap(members: Members) -> None:
    number = next(number for number, (member, _) in enumerate(members) if member.name.endswith("wheely/__init__.py"))
    member, data = members[number]
    members[number] = member, data.replace(b"7", b"8")


CHANGES: dict[str, Callable[[Members], None]] = {
    "a member more": _add("cache/wheels-v9/extra", told=False),
    "a member less": _drop,
    "a member twice": lambda members: members.append(members[-1]),
    "another content": _swap,
    "manifest not first": lambda members: members.append(members.pop(0)),
    "no manifest": lambda members: members.__delitem__(0),
    "a newer schema": lambda members: _tell(members, {}, schema="envbuilder/bundle/9"),
    "a name that climbs": _add("../escape", told=True),
    "a name that climbs from inside": _add("cache/wheels-v9/../../../escape", told=True),
    "an absolute name": _add("/escape", told=True),
    "a name outside of the buckets": _add("cache/uv.toml", told=True),
    "a link out of the cache": _add_link("cache/wheels-v9/link", "../../../escape"),
    "an absolute link": _add_link("cache/wheels-v9/link", "/etc"),
    "a git bundle that nobody named": _add(f"git/{'0' * 12}.bundle", told=True),
}


@pytest.mark.parametrize("what", CHANGES)
def test_forged_bundle_is_refused(travel: Travel, there: There, tmp_path: Path, what: str) -> None:
    """What an archive says of itself is not believed: names, links, digests and the list of members are proved."""
    with tarfile.open(travel.file) as tar:
        members: Members = []
        for member in tar:
            stream = tar.extractfile(member) if member.isreg() else None
            members.append((member, stream.read() if stream else b""))
    CHANGES[what](members)
    forged = tmp_path / "forged.bundle"
    with (
        forged.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    with forged.open("r+b") as whole:  # Whoever forges a bundle can seal it too.
        end = whole.seek(0, os.SEEK_END)
        whole.write(archive._seal(whole, end))
    ran = there.restore(forged)
    assert (ran.status, ran.codes) == (2, ["bundle-damaged"]), ran.out
    assert there.untouched
    assert not list(tmp_path.rglob("escape"))


def test_bundle_does_not_serve_other_locks(travel: Travel, there: There) -> None:
    """Where a lock is another one, or none, each is named, and nothing is written."""
    alpha, beta = (there.workshop.work / "profiles" / "prod" / name / "uv.lock" for name in PACKAGED)
    alpha.write_text(alpha.read_text() + "\n")
    beta.unlink()
    ran = there.restore(travel.file)
    assert (ran.status, ran.codes) == (2, ["bundle-stale", "bundle-stale"])
    problems = ran.json["problems"]
    assert isinstance(problems, list)
    assert [problem["entry"] for problem in problems] == ["alpha", "beta"]
    assert there.untouched


@pytest.mark.parametrize("key", ["uv", "profile", "platform"])
def test_bundle_of_another_machine_is_refused(travel: Travel, there: There, tmp_path: Path, key: str) -> None:
    """Another uv series, profile or platform: said, and nothing is written."""
    manifest = archive.scan(travel.file)
    python = {name: each.model_copy(update={"platform": "linux-riscv64"}) for name, each in manifest.python.items()}
    value = {"uv": "0.1.2", "profile": "dev", "platform": python}[key]
    changed = manifest.model_copy(update={"python" if key == "platform" else key: value})
    sources = {name: tmp_path / "unpacked" / name for name in manifest.files}
    archive.scan(travel.file, sources)
    other = tmp_path / "other.bundle"
    with other.open("w+b") as stream:
        archive.write(stream, changed, sources)
    ran = there.restore(other)
    assert (ran.status, set(ran.codes)) == (2, {"bundle-foreign"})
    assert there.untouched


@pytest.mark.parametrize(
    ("wheel", "fits"),
    [
        ("1.0-cp311-cp311-manylinux_2_99_x86_64", False),
        ("1.0-cp311-cp311-musllinux_9_9_x86_64.manylinux_2_99_x86_64", False),
        ("1.0-cp311-cp311-{here}.manylinux_2_99_x86_64", True),
        ("1.0-cp311-cp311-linux_x86_64", False),
    ],
)
def test_bundle_for_a_newer_c_library_is_refused(
    travel: Travel, there: There, tmp_path: Path, wheel: str, fits: bool
) -> None:
    """A wheel that no C library here serves, or was built where a newer one is: said, and nothing is written."""
    manifest = archive.scan(travel.file)
    here = archive.machine_tags()[0]
    assert manifest.machine == here
    assert re.fullmatch(r"(many|musl)linux_\d+_\d+_\w+", here)
    link = next(name for name, fact in manifest.files.items() if isinstance(fact, archive.Link) and "/wheely/" in name)
    name = f"{link.rpartition('/')[0]}/{wheel.format(here=here)}"
    files = {**manifest.files, name: manifest.files[link]}
    changed = manifest.model_copy(update={"files": files, "machine": "manylinux_2_99_x86_64"})
    sources = {each: tmp_path / "unpacked" / each for each in manifest.files}
    archive.scan(travel.file, sources)
    other = tmp_path / "other.bundle"
    with other.open("w+b") as stream:
        archive.write(stream, changed, sources)
    ran = there.restore(other)
    if fits:
        assert ran.status == 0, ran.out
        return
    assert (ran.status, ran.codes) == (2, ["bundle-foreign"])
    assert "manylinux_2_99_x86_64; this machine is" in ran.out
    assert there.untouched


def test_bundle_is_not_made_of_what_lies_on_this_machine(workshop: Workshop) -> None:
    """Wheels of an index at file:// would not be where the bundle goes: each is named, and nothing is made."""
    wheel = make_wheel(workshop.root / "index" / "wheely", "wheely")
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "file://{wheel.parents[1]}"\n')
    workshop.plugin("alpha", dependencies=("wheely",))
    assert workshop.within("lock").status == 0
    file = workshop.root / "all.bundle"
    ran = workshop.within("bundle", "create", str(file), "--format", "json")
    assert (ran.status, ran.codes) == (2, ["bundle-local"]), ran.out
    assert "wheely" in ran.out
    assert not file.exists()


def test_restore_on_a_full_disk_leaves_nothing_half(travel: Travel, there: There) -> None:
    """A file system that refuses half way costs the restore; afterwards it can be done again."""
    words = " ".join(there.workshop.argv("bundle", "restore", str(travel.file), "--format", "json"))
    done = subprocess.run(  # 512 blocks of 1 KiB: less than the wheel's data.
        ["bash", "-c", f"ulimit -f 512; exec {words}"],
        cwd=there.workshop.work,
        env=there.workshop.environment(there.env),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert json.loads(done.stdout)["problems"][0]["code"] == "disk-full"
    assert there.untouched
    assert not (there.cache / ".envbuilder-restore").exists()
    assert there.restore(travel.file).status == 0
    assert there.run("build", "--offline").status == 0


def test_bundle_is_not_made_of_stale_locks(workshop: Workshop) -> None:
    """A plugin without a lock, or with an old one, is not packed; a bundle that was there stays."""
    workshop.plugin("alpha")
    file = workshop.root / "all.bundle"
    file.write_text("the one before")
    ran = workshop.within("bundle", "create", str(file), "--format", "json")
    assert (ran.status, ran.codes) == (2, ["bundle-stale"])
    assert workshop.within("lock").status == 0
    workshop.entry("alpha", requires=["nowhere-to-be-had==1"])
    ran = workshop.within("bundle", "create", str(file), "--format", "json")
    assert (ran.status, ran.codes) == (2, ["bundle-stale"])
    assert ran.json["schema"] == "envbuilder/bundle-create/1"
    assert file.read_text() == "the one before"


def test_bundle_is_not_made_of_what_does_not_build(workshop: Workshop) -> None:
    """A plugin that cannot be imported is said to be so; neither a bundle nor a leftover appears."""
    workshop.plugin("alpha", code="import a_module_that_is_not_there\n")
    assert workshop.within("lock").status == 0
    file = workshop.root / "all.bundle"
    ran = workshop.within("bundle", "create", str(file), "--format", "json")
    assert (ran.status, ran.codes) == (1, ["plugin-import-failed"])
    assert sorted(path.name for path in workshop.root.iterdir()) == ["remotes", "work"]
    assert not list((workshop.work / ".envbuilder" / "store").glob(".staging/*"))


def test_bundle_whose_folder_is_missing_is_said_at_once(workshop: Workshop) -> None:
    """A place that cannot be written to, and a file that cannot be read, are problems like any other."""
    workshop.plugin("alpha")
    assert workshop.within("lock").status == 0
    nowhere = str(workshop.root / "nowhere" / "all.bundle")
    assert workshop.within("bundle", "create", nowhere, "--format", "json").codes == ["unwritable"]
    ran = workshop.within("bundle", "restore", nowhere, "--format", "json")
    assert (ran.status, ran.codes) == (2, ["unreadable"])


def test_bundle_in_dev_takes_along_what_builds_a_checkout(workshop: Workshop) -> None:
    """Code at a path stays with the workspace: what was built of it here is not packed, and it builds there."""
    workshop.package(workshop.work / "packages" / "alpha", name="alpha")
    workshop.entry("alpha", source={"path": "packages/alpha"})
    workshop.write("profiles/registry/alpha.yaml", (workshop.work / "profiles/registry/alpha.yaml").read_text())
    shutil.move(workshop.work / "profiles/registry/alpha.yaml", workshop.work / "profiles/registry/alpha.dev.yaml")
    workshop.entry("alpha")
    assert workshop.within("lock", "--profile", "dev").status == 0
    file = workshop.root / "dev.bundle"
    ran = workshop.within("bundle", "create", "--profile", "dev", str(file), "--format", "json")
    assert ran.status == 0, ran.out
    assert not [name for name in archive.scan(file).files if "/editable/" in name or "/path/" in name]
    env = {"UV_CACHE_DIR": str(workshop.root / "c"), "ENVBUILDER_HOME": str(workshop.root / "h")}
    assert workshop.within("bundle", "restore", "--profile", "dev", str(file), env=env).status == 0
    assert workshop.within("build", "--profile", "dev", "--offline", env=env).status == 0


def test_proof_finds_what_a_bundle_lacks(travel: Travel, tmp_path: Path) -> None:
    """A bundle that holds everything but one wheel does not pass."""
    from envbuilder import config, registry
    from envbuilder.errors import BuildError

    workspace = config.find_workspace(travel.home.work)
    profile = config.read_profile(workspace, "prod")
    entries = registry.parse(config.read_registry(workspace, overlays=False))
    order = creating.Order(workspace, profile, entries, entries.plugins)
    manifest = archive.scan(travel.file)
    sources = {name: tmp_path / "unpacked" / name for name in manifest.files}
    archive.scan(travel.file, sources)
    kept = {name: fact for name, fact in manifest.files.items() if "/wheely/1.0" not in name}
    assert len(kept) < len(manifest.files)
    poor = manifest.model_copy(update={"files": kept})
    with (tmp_path / "poor.bundle").open("w+b") as stream:
        archive.write(stream, poor, sources)
    with pytest.raises(BuildError) as caught:
        creating._prove(order, tmp_path / "poor.bundle", poor, tmp_path / "proof")
    assert isinstance(caught.value, EnvbuilderError)
    assert {problem.code for problem in caught.value.problems} == {"bundle-unproved"}
