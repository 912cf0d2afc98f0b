"""Index mirrors: other addresses to ask, the same lock, the same hashes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

from envbuilder.lock.mirrors import IndexMirrors, UnmappedError
from envbuilder.uv import default_index


@dataclass
class Site:
    """A workspace that knows a canonical index, which may be off, and a mirror of it."""

    workshop: Workshop
    canonical: str
    mirror: Index

    def run(self, *arguments: str, cache: str = "cache") -> Ran:
        """Run a command with a uv cache of that name."""
        return self.workshop.within(*arguments, env={"UV_CACHE_DIR": str(self.workshop.root / cache)})

    def succeed(self, *arguments: str, cache: str = "cache") -> Ran:
        """Run a command, which must succeed."""
        ran = self.run(*arguments, cache=cache)
        assert ran.status == 0, ran.out + ran.err
        return ran

    def mirrored(self, lines: str | None = None) -> None:
        """Have the settings name the mirror."""
        host = self.mirror.url.removesuffix("simple")
        lines = lines or f'"{self.canonical.removesuffix("simple")}" = "{host}"\n'
        self.workshop.settings(core={}, extra=f"[tool.envbuilder.index-mirrors]\n{lines}")

    @property
    def files(self) -> dict[str, bytes]:
        """What a lock writes."""
        folder = self.workshop.work / "profiles" / "prod"
        return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def site(workshop: Workshop) -> Iterator[Site]:
    """A plugin with a dependency, and an editable library beside it; locked from the canonical index, which is off since."""
    folder = workshop.root / "wheels"
    make_wheel(folder, "common", "1.0", requires=["third"])
    make_wheel(folder, "third", "1.0")
    workshop.package(workshop.work / "packages" / "lib", name="lib")
    workshop.entry("lib", kind="library", source={"path": "packages/lib"})
    workshop.plugin("alpha", dependencies=("common", "lib"))
    with Index(folder) as mirror:
        with Index(folder) as canonical:
            sources = 'sources = ["git-tag", "path"]\n'
            workshop.write(
                "profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{canonical.url}"\n{sources}'
            )
            made = Site(workshop, canonical.url, mirror)
            made.succeed("lock")
        yield made


def test_a_lock_through_a_mirror_is_the_same_lock(site: Site) -> None:
    """With the canonical index off, a lock from nothing by the mirror has the very bytes; so has one that goes on."""
    before = site.files
    for name in ("uv.lock", "pyproject.toml"):
        (site.workshop.work / "profiles/prod/alpha" / name).unlink()
    assert site.run("lock", cache="other").status == 1
    site.mirrored()
    site.succeed("lock", cache="other")
    assert site.files == before
    site.succeed("lock", "--upgrade", cache="third")
    assert site.files == before
    assert ("metadata", "common-1.0-py3-none-any.whl") in site.mirror.asked


def test_a_build_through_a_mirror(site: Site) -> None:
    """Files come from the mirror, hashes hold, editable code stays where it is, and uv's cache is the one without mirrors."""
    site.mirrored()
    assert site.succeed("lock", "--check").status == 0
    site.succeed("build")
    assert site.mirror.whole == {"common-1.0-py3-none-any.whl": 1, "third-1.0-py3-none-any.whl": 1}
    shown = site.workshop.run("exec", "alpha", "--", "python", "-c", "import lib; print(lib.__file__)").out
    assert shown.strip() == str(site.workshop.work / "packages/lib/src/lib/__init__.py")
    shutil.rmtree(site.workshop.work / ".envbuilder" / "store")
    site.workshop.settings(core={})
    site.succeed("build", "--offline")


def test_a_mirror_with_other_bytes_is_found_out(site: Site) -> None:
    """What a mirror serves under the right name and is not what was locked is not installed."""
    site.mirrored()
    make_wheel(site.mirror.folder, "common", "1.0", requires=["third"], files={"common/__init__.py": b"evil = 1\n"})
    ran = site.run("build", "--format", "json")
    assert (ran.status, ran.codes) == (1, ["sync-failed"])
    assert "hash" in ran.out.lower()


def test_files_that_no_line_leads_back_are_told(site: Site) -> None:
    """A mirror whose files stand elsewhere than its line says would put its own address into the lock: refused."""
    before = site.files
    site.mirrored(f'"{site.canonical}" = "{site.mirror.url}"\n')
    ran = site.run("lock", "--upgrade", "--format", "json", cache="other")
    assert (ran.status, ran.codes) == (1, ["mirror-unmapped"])
    assert site.mirror.url.replace("simple", "files/") in ran.out
    assert site.files == before
    host = site.mirror.url.removesuffix("simple")
    files = f'"{site.canonical.removesuffix("simple")}files/" = "{host}files/"\n'
    site.mirrored(f'"{site.canonical}" = "{site.mirror.url}"\n{files}')
    site.succeed("lock", "--upgrade", cache="other")
    assert site.files == before


def test_a_person_s_own_index_does_not_show_in_a_lock(site: Site) -> None:
    """Uv's variables for indexes, which hold for whatever a person does, change neither what is asked nor the lock."""
    before = site.files
    site.mirrored()
    elsewhere = "http://robot:secret@127.0.0.1:1/simple"
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")
    env = {"UV_CACHE_DIR": str(site.workshop.root / "other"), "UV_NO_INDEX": "1", **dict.fromkeys(names, elsewhere)}
    ran = site.workshop.within("lock", "--upgrade", env=env)
    assert ran.status == 0, ran.err
    assert site.files == before


def test_the_profile_s_own_mirrors_come_first(site: Site) -> None:
    """`mirrors` in a profile is laid over those of the workspace."""
    site.mirrored(f'"{site.canonical.removesuffix("simple")}" = "http://127.0.0.1:1/"\n')
    assert site.run("lock", "--upgrade", cache="other").status == 1
    file = site.workshop.work / "profiles/prod/profile.toml"
    host = site.mirror.url.removesuffix("simple")
    file.write_text(f'{file.read_text()}[mirrors]\n"{site.canonical.removesuffix("simple")}" = "{host}"\n')
    site.succeed("lock", "--upgrade", cache="other")


def test_the_public_index_is_mirrored_too(workshop: Workshop) -> None:
    """Where a profile names no index, uv's default is what the mirror stands for."""
    make_wheel(workshop.root / "wheels", "common", "1.0")
    workshop.plugin("alpha", dependencies=("common",))
    with Index(workshop.root / "wheels") as mirror:
        files = mirror.url.replace("simple", "files/")
        lines = f'"{default_index()}" = "{mirror.url}"\n"https://files.example.org/packages/" = "{files}"\n'
        workshop.settings(core={}, extra=f"[tool.envbuilder.index-mirrors]\n{lines}")
        env = {"UV_CACHE_DIR": str(workshop.root / "cache")}
        assert workshop.within("lock", env=env).status == 0
        text = (workshop.work / "profiles/prod/alpha/uv.lock").read_text()
        assert f'source = {{ registry = "{default_index()}" }}' in text
        assert '"https://files.example.org/packages/common-1.0-py3-none-any.whl"' in text
        assert "127.0.0.1" not in text + (workshop.work / "profiles/prod/alpha/pyproject.toml").read_text()
        assert workshop.within("build", env=env).status == 0


def test_prefixes_lead_there_and_back() -> None:
    """The longest counts, a prefix ends where a part of an address ends, and what is no mirror's stays."""
    lines = {"https://a/": "https://m/all/", "https://a/simple": "https://m/index", "https://f": "https://m/f"}
    mirrors = IndexMirrors(lines)
    pairs = {
        "https://a/simple": "https://m/index",
        "https://a/simple/x/": "https://m/index/x/",
        "https://a/simpler": "https://m/all/simpler",
        "https://f/x.whl": "https://m/f/x.whl",
        "https://other/x": "https://other/x",
    }
    assert {mirrors.there(address): address for address in pairs} == {
        there: address for address, there in pairs.items()
    }
    assert {there: mirrors.back(there) for there in pairs.values()} == {
        there: address for address, there in pairs.items()
    }
    with pytest.raises(UnmappedError):
        mirrors.back("https://m/elsewhere/x.whl")
