"""The tamper table: what is found of each kind of damage, by which tier, and what uv alone says to the same."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

from envbuilder.errors import counted
from envbuilder.store import seals, stamps, verify
from envbuilder.store.digests import Digests
from envbuilder.store.seals import Seal
from envbuilder.uv import find_uv

TIERS = ("glance", "fast", "full")
# Rounded, so that a time that is put back is the same to the last digit.
MOMENT_NS = 1_767_225_600_000_000_000
TOOL = {
    "tool/__init__.py": b"def main():\n    print('tool')\n",
    "tool/data.py": b"VALUE = 1\n",
    "tool/sub/__init__.py": b"",
}


@dataclass(frozen=True)
class Site:
    """A workspace with one built plugin, which brings a package of its own and one from an index.

    Attributes:
        workshop: the workspace.
        index: serves the package ``tool``; it has a script.
        env: variables that envbuilder and uv are run with.
    """

    workshop: Workshop
    index: Index
    env: dict[str, str]

    @property
    def state(self) -> Path:
        return self.workshop.work / ".envbuilder"

    @property
    def project(self) -> Path:
        return self.workshop.work / "profiles" / "prod" / "alpha"

    @property
    def place(self) -> Path:
        """The environment."""
        return (self.state / "envs" / "prod" / "alpha").resolve()

    @property
    def packages(self) -> Path:
        return next(self.place.glob("lib/python*/site-packages"))

    @property
    def head(self) -> Path:
        return self.state / "store" / f"{self.place.name}.json"

    @property
    def listing(self) -> Path:
        return self.state / "store" / f"{self.place.name}.files.json"

    def run(self, *arguments: str) -> Ran:
        """Run envbuilder."""
        return self.workshop.within(*arguments, env=self.env)

    def states(self) -> list[str]:
        """Build, and tell what became of each plugin."""
        ran = self.run("build", "--format", "json")
        assert ran.status == 0, ran.err + ran.out
        return [each["state"] for each in ran.json["result"]["environments"]]  # type: ignore[index]

    def uv_check(self) -> int:
        """The exit status of uv's own check of the environment."""
        env = self.workshop.environment({**self.env, "UV_PROJECT_ENVIRONMENT": str(self.place)})
        argv = [str(find_uv()), "sync", "--frozen", "--check", "--offline", "--no-default-groups"]
        return subprocess.run(argv, cwd=self.project, env=env, capture_output=True, check=False).returncode


def write(path: Path, data: bytes, *, restore: bool = False) -> None:
    """Give a file other bytes, and only here: what other environments and uv's cache hold stays. Then put times back."""
    status = path.stat()
    fresh = path.with_name(f"{path.name}.fresh")
    fresh.write_bytes(data)
    fresh.chmod(status.st_mode)
    moment = status.st_mtime_ns if restore else MOMENT_NS
    os.utime(fresh, ns=(moment, moment))
    fresh.replace(path)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A workspace that is built once; tests break copies of it."""
    with prepared(tmp_path_factory.mktemp("template")) as site:
        yield site


class prepared:  # noqa: N801 - used like a function
    """Make a workspace with an index of its own, a Python of its own and a cache of its own, lock and build it."""

    def __init__(self, root: Path) -> None:
        self._index = Index(root / "wheels")
        self._root = root

    def __enter__(self) -> Site:
        root, index = self._root, self._index.__enter__()
        make_wheel(index.folder, "tool", files=TOOL, scripts={"tool": "tool:main"})
        workshop = Workshop(root)
        workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        workshop.plugin("alpha", dependencies=("tool",))
        workshop.write("data.csv", "id,question,answer\n1,q,a\n")
        workshop.write("run.yaml", "{name: few, data: {few: {path: data.csv}}, inference: [{plugin: alpha}]}\n")
        path = f"{own_python(root)}{os.pathsep}{os.environ['PATH']}"
        site = Site(workshop, index, {"PATH": path, "UV_CACHE_DIR": str(root / "cache")})
        assert site.run("lock").status == 0
        assert site.states() == ["built"]
        return site

    def __exit__(self, *_: object) -> None:
        self._index.__exit__()


def own_python(root: Path) -> Path:
    """A folder with an interpreter that a test may replace: a copy, beside links to the libraries of this one."""
    real = Path(os.path.realpath(sys.executable))
    binaries = root / "base" / "bin"
    binaries.mkdir(parents=True)
    shutil.copy2(real, binaries / f"python{PYTHON}")
    (root / "base" / "lib").symlink_to(real.parents[1] / "lib")
    return binaries


@pytest.fixture
def site(template: Site, tmp_path: Path) -> Site:
    """A copy of the built workspace, which shares no file with it."""
    workshop = Workshop.__new__(Workshop)
    workshop.root, workshop.work, workshop.remotes = tmp_path, tmp_path / "work", template.workshop.remotes
    workshop.registry = workshop.work / "profiles" / "registry"
    subprocess.run(["cp", "-a", template.workshop.work, workshop.work], check=True)
    copied = Site(workshop, template.index, template.env)
    assert copied.run("verify", "--full").status == 0
    return copied


Damage = Callable[[Site], None]


def _edit(site: Site) -> None:
    write(site.packages / "tool" / "data.py", b"VALUE = 2\n")


def _edit_quietly(site: Site) -> None:
    write(site.packages / "tool" / "data.py", b"VALUE = 2\n", restore=True)


def _truncate(site: Site) -> None:
    write(site.packages / "tool" / "data.py", b"")


def _append(site: Site) -> None:
    write(site.packages / "tool" / "data.py", b"VALUE = 1\nimport os\n", restore=True)


def _delete_file(site: Site) -> None:
    (site.packages / "tool" / "data.py").unlink()


def _delete_package(site: Site) -> None:
    shutil.rmtree(site.packages / "tool")


def _delete_dist_info(site: Site) -> None:
    shutil.rmtree(site.packages / "tool-1.0.dist-info")


def _delete_record(site: Site) -> None:
    (site.packages / "tool-1.0.dist-info" / "RECORD").unlink()


def _stray_pth(site: Site) -> None:
    (site.packages / "stray.pth").write_text("import os\n")


def _stray_module(site: Site) -> None:
    (site.packages / "stray.py").write_text("")


def _stray_inside(site: Site) -> None:
    (site.packages / "tool" / "stray.py").write_text("")


def _stray_folder(site: Site) -> None:
    (site.packages / "tool" / "empty").mkdir()


def _stray_script(site: Site) -> None:
    (site.place / "bin" / "git").write_text("#!/bin/sh\n")


def _swap_wheel(site: Site) -> None:
    folder = site.workshop.root / "elsewhere"
    make_wheel(folder, "tool", files={**TOOL, "tool/data.py": b"VALUE = 'other'\n"}, scripts={"tool": "tool:main"})
    pip_install(site, "--reinstall", "--no-index", "--find-links", str(folder), "tool==1.0")


def pip_install(site: Site, *what: str) -> None:
    """Install into the environment behind our back."""
    pip = [str(find_uv()), "pip", "install", "--no-deps", "--python", str(site.place / "bin" / "python"), *what]
    env = site.workshop.environment({"UV_CACHE_DIR": str(site.workshop.root / "cache")})
    subprocess.run(pip, env=env, check=True, capture_output=True)


def _shebang(site: Site) -> None:
    write(
        site.place / "bin" / "tool", (site.place / "bin" / "tool").read_bytes().replace(b"#!/bin/sh", b"#!/bin/ksh", 1)
    )


def _chmod(site: Site) -> None:
    (site.place / "bin" / "tool").chmod(0o644)


def _other_python(site: Site) -> None:
    python = site.place / "bin" / "python"
    python.unlink()
    python.symlink_to(os.path.realpath(sys.executable))


def _other_link(site: Site) -> None:
    link = site.place / "bin" / "python3"
    target = site.place / "bin" / "python"
    link.unlink()
    link.symlink_to(target)  # The same interpreter by another way.


def _lib64(site: Site) -> None:
    (site.place / "lib64").unlink()
    (site.place / "lib64").symlink_to("/usr/lib")


def _edit_head(site: Site) -> None:
    document = json.loads(site.head.read_text())
    document["distributions"]["tool"] = "2.0"
    site.head.write_text(json.dumps(document))


def _edit_list(site: Site) -> None:
    site.listing.write_text(site.listing.read_text().replace("sha256:", "sha256:0", 1))


def _delete_seal(site: Site) -> None:
    site.head.unlink()


def _delete_environment(site: Site) -> None:
    shutil.rmtree(site.place)


def _other_home(site: Site) -> None:
    file = site.place / "pyvenv.cfg"
    write(file, file.read_bytes().replace(b"home = /", b"home = /.", 1))


def _other_home_quietly(site: Site) -> None:
    file = site.place / "pyvenv.cfg"
    first, _, rest = file.read_bytes().partition(b"\n")
    write(file, first[:-1] + b"X\n" + rest, restore=True)


def _replace_interpreter(site: Site) -> None:
    base = Path(os.path.realpath(site.place / "bin" / "python"))
    shutil.copy2(base, base.with_name("fresh"))
    os.utime(base.with_name("fresh"))
    base.with_name("fresh").replace(base)


# Damage, the tier that finds it first, and what `uv sync --frozen --check` exits with.
TABLE: list[tuple[Damage, str, int]] = [
    (_edit, "fast", 0),
    (_edit_quietly, "full", 0),
    (_truncate, "fast", 0),
    (_append, "fast", 0),
    (_delete_file, "fast", 0),
    (_delete_package, "glance", 0),
    (_delete_dist_info, "glance", 1),
    (_delete_record, "glance", 0),
    (_stray_pth, "glance", 0),
    (_stray_module, "glance", 0),
    (_stray_inside, "fast", 0),
    (_stray_folder, "fast", 0),
    (_stray_script, "fast", 0),
    (_swap_wheel, "glance", 0),
    (_shebang, "fast", 0),
    (_chmod, "fast", 0),
    (_other_python, "glance", 0),
    (_other_link, "fast", 0),
    (_lib64, "fast", 0),
    (_edit_head, "glance", 0),
    (_edit_list, "fast", 0),
    (_delete_seal, "glance", 0),
    (_delete_environment, "glance", 1),
    (_other_home, "glance", 0),
    (_other_home_quietly, "full", 0),
]


@pytest.mark.parametrize(("damage", "first", "uv_says"), TABLE, ids=[row[0].__name__.strip("_") for row in TABLE])
def test_damage_is_found_and_mended(site: Site, damage: Damage, first: str, uv_says: int) -> None:
    """Each kind of damage is found by its tier and those above it, refused by `run`, and mended by `verify --repair`."""
    damage(site)
    assert found_by(site) == list(TIERS[TIERS.index(first) :])
    assert site.uv_check() == uv_says
    if first == "fast":
        ran = site.run("run", "run.yaml")
        assert (ran.status, "error[environment-" in ran.err) == (1, True), ran.err
        assert not (site.state / "runs").exists()
    mends(site, *(["--full"] if first == "full" else []))


def found_by(site: Site) -> list[str]:
    """The tiers that find something; each finding is one line, and where there is one the exit status is 1."""
    # A plain build would mend what a glance tells; `status` only looks.
    status = site.run("status", "--format", "json")
    found = [] if status.json["result"]["plugins"][0]["state"] == "ready" else ["glance"]  # type: ignore[index]
    for tier, flags in (("fast", ()), ("full", ("--full",))):
        ran = site.run("verify", *flags)
        lines = [line for line in ran.err.splitlines() if not line.startswith("  hint: ") and line.strip()]
        assert all(line.startswith("error[environment-") for line in lines), ran.err
        assert counted(len(lines), "finding") in ran.out or not lines
        assert ran.status == (1 if lines else 0)
        found += [tier] if lines else []
    return found


def mends(site: Site, *flags: str) -> None:
    """`verify --repair` mends, so that `verify --full` finds nothing, and the plugin and its dependency work."""
    ran = site.run("verify", "--repair", *flags)
    assert ran.status == 0, ran.err
    assert "mended alpha" in ran.out
    ran = site.run("verify", "--full")
    assert ran.status == 0, ran.err
    done = subprocess.run([site.place / "bin" / "tool"], capture_output=True, text=True, check=True)
    assert done.stdout == "tool\n"


@pytest.mark.parametrize(
    ("damage", "first"), [row[:2] for row in TABLE], ids=[row[0].__name__.strip("_") for row in TABLE]
)
def test_build_mends_what_a_glance_tells_and_no_more(site: Site, damage: Damage, first: str) -> None:
    """A plain build builds anew what it sees at a glance to be damaged, whole; the rest it calls unchanged."""
    damage(site)
    assert site.states() == ["built" if first == "glance" else "unchanged"]
    assert (site.run("verify", "--full").status == 0) == (first == "glance")


@pytest.mark.parametrize("damage", [row[0] for row in TABLE], ids=[row[0].__name__.strip("_") for row in TABLE])
def test_quick_way_to_the_keys_changes_no_finding(site: Site, damage: Damage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a stamp of the last build tells the keys, `verify` says what it says when it reads registry and locks."""
    assert site.states() == ["unchanged"]
    stamp = stamps.stamp_path(site.state, "prod")
    damage(site)
    monkeypatch.setattr(os, "environ", site.workshop.environment(site.env))
    assert stamps.meant(stamp) == {"alpha": site.place.name}
    monkeypatch.undo()
    ways = (["verify"], ["verify", "--full"], ["verify", "--full", "alpha", "--format", "json"])
    quick = [site.run(*way) for way in ways]
    stamp.unlink()
    assert quick == [site.run(*way) for way in ways]
    assert quick[-1].status == 1


@pytest.mark.parametrize("prepare", ["stamped", "not stamped"])
def test_verify_of_names_that_are_no_plugins_is_refused(site: Site, prepare: str) -> None:
    """An unknown name is an error, with a stamp and without; another spelling of a known one is not."""
    if prepare == "stamped":
        site.states()
    ran = site.run("verify", "alpha", "beta")
    assert (ran.status, "beta is not in the registry" in ran.err) == (2, True), ran.err
    assert site.run("verify", "Alpha").out == "verified 1 environment: as it was sealed\n"


UNREADABLE = """
    import os, sys
    from pathlib import Path
    from envbuilder.store import seals, verify
    if os.geteuid() == 0:
        os.seteuid(65534)  # No folder is closed to root.
    store = Path(sys.argv[1])
    for full in (False, True):
        print(sorted(map(str, verify.find(store, ["key"], full=full)["key"])))
"""


def test_folder_that_cannot_be_read_is_a_finding() -> None:
    """What a closed folder holds cannot be vouched for: a finding, not an end of `verify`."""
    with tempfile.TemporaryDirectory() as folder:  # Not below pytest's own, which is closed to others.
        store = Path(folder)
        store.chmod(0o755)
        for name in ("a", "b"):
            (store / "key" / name).mkdir(parents=True)
            (store / "key" / name / "file").write_text(name)
        (store / "key" / "b").chmod(0)
        with Digests(store / "digests.sqlite") as digests:
            text = seals.list_text(seals.survey(store / "key", digests))
        seal = Seal("key", {}, {}, {}, 4, 2, hashlib.sha256(text.encode()).hexdigest(), "a", "", {})
        seals.write(store / "key.json", store / "key.files.json", seal, text)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(UNREADABLE), folder], capture_output=True, text=True, check=False
        )
        (store / "key" / "b").chmod(0o755)
    said = [
        "changed: b: cannot be read: Permission denied",
        "interpreter: bin/python: its interpreter is gone",
        "missing: b/file: there when it was sealed",
    ]
    assert done.stdout.splitlines() == [str(said)] * 2, done.stderr


def test_folder_that_is_gone_or_new_is_one_finding(tmp_path: Path) -> None:
    """However much was, or is, in it; and a name that would end the line or colour the terminal stands there escaped."""
    place = tmp_path / "key"
    for name in ("kept/a", "gone/deep/b", "gone/c", "gone-too"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    with Digests(tmp_path / "digests.sqlite") as digests:
        text = seals.list_text(seals.survey(place, digests))
    stamp = {"interpreter-stamp": None}
    seal = Seal("key", stamp, {}, {}, 4, 2, hashlib.sha256(text.encode()).hexdigest(), "kept", "", {})
    seals.write(tmp_path / "key.json", tmp_path / "key.files.json", seal, text)
    shutil.rmtree(place / "gone")
    (place / "gone-too").unlink()
    (place / "new" / "deep").mkdir(parents=True)
    (place / "new\n\x1b[31m").touch()
    found = [str(each) for each in verify.find(tmp_path, ["key"], full=True)["key"] if each.kind != "interpreter"]
    assert found == [
        "missing: gone: there when it was sealed, with 3 paths in it",
        "missing: gone-too: there when it was sealed",
        "stray: new: not there when it was sealed, with 1 path in it",
        r"stray: new\n\x1b[31m: not there when it was sealed",
    ]


def test_replaced_interpreter_is_found_at_a_glance(tmp_path: Path) -> None:
    """An interpreter that gives way to another at the same path is told by every tier; `uv` does not mind."""
    with prepared(tmp_path) as site:
        base = Path(os.path.realpath(site.place / "bin" / "python"))
        shutil.copyfile(base, base.with_name("fresh"))
        base.with_name("fresh").chmod(0o755)
        base.with_name("fresh").replace(base)
        assert found_by(site) == list(TIERS)
        assert site.uv_check() == 0
        mends(site)


def test_edited_lock_is_refused_until_locked_again(site: Site) -> None:
    """A uv.lock edited by hand is nothing to build, verify or run from; uv takes it. `lock` leads back to what was built."""
    lock = site.project / "uv.lock"
    lock.write_text(lock.read_text().replace("revision = ", "# by hand\nrevision = "))
    for command in (["build"], ["verify"], ["verify", "--repair"], ["run", "run.yaml"]):
        ran = site.run(*command)
        assert (ran.status, "lock-stale" in ran.err) == (1, True), ran.err
    assert site.uv_check() == 0
    assert site.run("lock").status == 0
    assert site.states() == ["unchanged"]
    assert site.run("verify", "--full").status == 0


def poison(site: Site) -> Path:
    """Edit a file of the environment in place: through the hard link, in uv's cache too."""
    file = site.packages / "tool" / "data.py"
    assert file.stat().st_nlink > 1
    status = file.stat()
    file.write_bytes(b"VALUE = 2\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    return file


def test_damage_in_the_cache_is_mended_from_the_index(tmp_path: Path) -> None:
    """What is edited through a hard link is damaged in uv's cache as well: `--repair` fetches it anew, and only that.

    uv builds the next environment from it, and calls both healthy.
    """
    with prepared(tmp_path) as site:
        make_wheel(site.index.folder, "other")
        site.workshop.plugin("beta", dependencies=("tool", "other"))
        assert site.run("lock").status == 0
        assert site.states() == ["unchanged", "built"]
        poison(site)
        beta = (site.state / "envs" / "prod" / "beta").resolve()
        assert (next(beta.glob("lib/python*/site-packages")) / "tool" / "data.py").read_bytes() == b"VALUE = 2\n"
        assert site.uv_check() == 0
        ran = site.run("verify", "--full")
        assert ran.status == 1
        assert f"; shared with {beta.name}" in ran.err
        assert f"; shared with {site.place.name}" in ran.err
        ran = site.run("verify", "--full", "--repair")
        assert ran.status == 0, ran.err
        assert "mended alpha, beta" in ran.out
        assert site.index.whole == {"tool-1.0-py3-none-any.whl": 2, "other-1.0-py3-none-any.whl": 1}
        assert (site.packages / "tool" / "data.py").read_bytes() == b"VALUE = 1\n"
        assert site.run("verify", "--full").status == 0


def test_damaged_cache_of_a_package_from_git_is_mended(tmp_path: Path) -> None:
    """What uv built from a git tag, and keeps, is built anew where it is damaged."""
    with prepared(tmp_path) as site:
        (site.packages / "alpha" / "__init__.py").write_text("class Model: pass\n")
        mends(site)


def test_new_environment_is_not_built_from_a_damaged_cache(tmp_path: Path) -> None:
    """A wheel that was damaged in uv's cache does not get into the next environment: it is fetched anew by itself."""
    with prepared(tmp_path) as site:
        poison(site)
        shutil.rmtree(site.state)
        assert site.states() == ["built"]
        assert (site.packages / "tool" / "data.py").read_bytes() == b"VALUE = 1\n"
        assert site.run("verify", "--full").status == 0


def test_new_environment_is_not_built_from_a_cache_that_lacks_files(tmp_path: Path) -> None:
    """What is gone from the unpacked wheels in uv's cache, from one file to all of one, is missed and fetched anew.

    uv installs what is left, and is content.
    """
    with prepared(tmp_path / ("long-" * 30)) as site:  # uv breaks the lines of long messages.
        for lost in ("tool/data.py", "tool-1.0.dist-info/RECORD", "tool-1.0.dist-info/METADATA", "tool", "."):
            (held,) = Path(site.env["UV_CACHE_DIR"]).glob("archive-v*/*/tool-1.0.dist-info")
            gone = held.parent / lost
            if gone.is_file():
                gone.unlink()
            else:
                shutil.rmtree(gone)
            fetched = site.index.whole["tool-1.0-py3-none-any.whl"]
            shutil.rmtree(site.state)
            assert site.states() == ["built"], lost
            assert site.index.whole["tool-1.0-py3-none-any.whl"] == fetched + 1, lost
            assert (site.packages / "tool" / "data.py").read_bytes() == b"VALUE = 1\n", lost
            assert site.run("verify", "--full").status == 0, lost


def test_damaged_cache_without_a_network_is_told(tmp_path: Path) -> None:
    """With `--offline` what is damaged in the cache cannot be mended: an error names the file and a remedy."""
    with prepared(tmp_path) as site:
        poison(site)
        ran = site.run("verify", "--full", "--repair", "--offline")
        assert ran.status == 1
        assert "tool/data.py has other bytes than RECORD says" in ran.err
        assert "hint: uv cache clean" in ran.err


def test_pip_install_into_an_environment_is_noticed(site: Site) -> None:
    """What an installer adds by hand is seen at a glance, and is gone after the next build."""
    wheel = make_wheel(site.workshop.root / "elsewhere", "guest")
    pip_install(site, str(wheel))
    assert found_by(site) == list(TIERS)
    assert site.states() == ["built"]
    assert not (site.packages / "guest").exists()


def test_repair_takes_the_bytecode_of_damage_along(site: Site) -> None:
    """What was compiled from an edited file whose size and time look right does not outlive the repair of the file."""
    show = [str(site.place / "bin" / "python"), "-c", "import tool.data; print(tool.data.VALUE)"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    for path in (site.state / "pycache").rglob("data.*.pyc"):
        path.unlink()
    _edit_quietly(site)
    assert subprocess.run(show, env=env, capture_output=True, text=True, check=True).stdout == "2\n"
    mends(site, "--full")
    assert subprocess.run(show, env=env, capture_output=True, text=True, check=True).stdout == "1\n"


def test_torn_bytecode_does_not_stop_a_build(site: Site) -> None:
    """Bytecode that a full disk cut off is not what the next build imports."""
    torn = list((site.state / "pycache").rglob("*.pyc"))
    assert torn
    for path in torn:
        os.truncate(path, 20)
    site.head.unlink()
    assert site.states() == ["built"]


def test_python_run_by_hand_leaves_no_bytecode_inside(site: Site) -> None:
    """The environment's own python, without any variable of ours, puts bytecode beside the environment."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    for program in (site.place / "bin" / "python", site.state / "envs" / "prod" / "alpha" / "bin" / "python3"):
        subprocess.run([program, "-c", "import alpha, tool.data"], env=env, check=True)
    assert not list(site.place.rglob("*.pyc"))
    assert list((site.state / "pycache" / site.place.name).rglob("data.*.pyc"))
    assert site.run("verify", "--full").status == 0
