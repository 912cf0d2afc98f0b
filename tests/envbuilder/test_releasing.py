"""`release`: from a checkout to a tag at the remote and a pin in the workspace; whole, or as it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_wheel, repack
from packaging.version import Version
from workshop import PYTHON, READS, Ran, Workshop

from envbuilder.errors import UsageError
from envbuilder.workflow import numbering
from envbuilder.workflow.releasing import ordered

TESTS = '[dependency-groups]\ndev = ["pytest"]\n'


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An index that holds pytest, as it is installed here, and the library that alpha by itself takes from there."""
    folder = tmp_path_factory.mktemp("wheels")
    repack(folder, "pytest")
    make_wheel(folder, "lib", "0.1.0")
    with Index(folder) as served:
        yield served


class Shop:
    """A workspace with a library and two plugins as checkouts, whose remotes can be pushed to."""

    def __init__(self, workshop: Workshop, index: Index) -> None:
        self.workshop = workshop
        self.work = workshop.work
        config = workshop.root / "gitconfig"
        # The workspace's mirror alone leads to the remotes, for pushes, too.
        config.write_text("[user]\nname = a\nemail = a@example.org\n")
        self.env = {"GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_SYSTEM": os.devnull}
        for profile in ("prod", "dev"):
            workshop.write(f"profiles/{profile}/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        workshop.settings(core={"lib": '"0.1.0"'})
        for name, needs in {"lib": (), "alpha": ("lib",), "beta": ()}.items():
            self._remote(name, needs)
            workshop.entry(name, kind="library" if name == "lib" else "plugin")
            path = workshop.registry / f"{name}.yaml"
            path.write_text(f"# why {name} is here\n{path.read_text()}\n")
        assert workshop.within("lock").status == 0
        workshop.write(".gitignore", ".envbuilder/\n/packages/\n")
        for words in (("init", "--quiet", "--initial-branch", "main"), ("add", "--all"), ("commit", "-qm", "all")):
            workshop.git("-C", str(self.work), *words)

    def _remote(self, name: str, needs: tuple[str, ...]) -> None:
        repository = self.workshop.remotes / f"{name}.git"
        code = '__version__ = "0.1.0"\nclass Model:\n    pass\n'
        git = self.workshop.git
        git("init", "--quiet", "--initial-branch", "main", str(repository))
        facts = {"dependencies": needs, "requires_python": ">=3.10", "code": code}
        self.workshop.package(repository, name=name, backend=READS, **facts)  # type: ignore[arg-type]
        project = repository / "pyproject.toml"
        project.write_text(f"# ours\n{project.read_text()}{TESTS}")
        (repository / ".gitignore").write_text("__pycache__/\n.pytest_cache/\n")
        (repository / "tests").mkdir()
        (repository / "tests" / "test_it.py").write_text(f"import {name}\ndef test_it():\n    pass\n")
        git("-C", str(repository), "add", "--all")
        git("-C", str(repository), "commit", "--quiet", "--message", "first")
        git("-C", str(repository), "tag", "--annotate", "--message", "first", "v0.1.0")
        git("-C", str(repository), "config", "receive.denyCurrentBranch", "updateInstead")

    def on(self, name: str) -> Path:
        """Check a package out."""
        url, folder = f"https://git.example.org/{name}.git", self.work / "packages" / name
        rewrite = f"url.{self.workshop.remotes}/.insteadOf=https://git.example.org/"
        self.workshop.git("-c", rewrite, "clone", "--quiet", url, str(folder))
        self.workshop.write(f"profiles/registry/{name}.dev.yaml", f"source: {{path: packages/{name}}}\n")
        self.git(".", "add", "--all")
        self.git(".", "commit", "--quiet", "--message", f"{name} in dev")
        return folder

    def git(self, folder: str, *arguments: str) -> str:
        """Run git in a folder of the workspace."""
        return self.workshop.git("-C", str(self.work / folder), *arguments)

    def remote(self, name: str, *arguments: str) -> str:
        """Run git in a remote."""
        return self.workshop.git("-C", str(self.workshop.remotes / f"{name}.git"), *arguments)

    def change(self, name: str, file: str = "notes.txt", text: str = "more\n") -> None:
        """Commit a change in a checkout."""
        (self.work / "packages" / name / file).write_text(text)
        self.git(f"packages/{name}", "add", "--all")
        self.git(f"packages/{name}", "commit", "--quiet", "--message", f"change {file}")

    def release(self, *arguments: str) -> Ran:
        """Run `release`."""
        return self.workshop.within("release", *arguments, "--format", "json", env=self.env)

    def state(self) -> dict[str, str]:
        """Everything that a release may change: refs and status here and there."""
        found = {"work": self.git(".", "rev-parse", "HEAD") + self.git(".", "status", "--porcelain")}
        for folder in sorted(self.work.glob("packages/*")):
            place = f"packages/{folder.name}"
            refs = self.git(place, "for-each-ref", "refs/heads", "refs/tags")
            found[folder.name] = refs + self.git(place, "status", "--porcelain") + self.git(place, "rev-parse", "HEAD")
            found[f"{folder.name} there"] = self.remote(folder.name, "for-each-ref")
        return found


@pytest.fixture
def shop(workshop: Workshop, index: Index) -> Shop:
    """A workspace whose packages can be released."""
    return Shop(workshop, index)


def test_release_goes_from_checkout_to_pin(shop: Shop) -> None:
    """Version, commit, tag, push, pin, locks, one commit; a dry run, and a run that nobody agreed to, do nothing."""
    folder = shop.on("alpha")
    shop.change("alpha")
    before, commit = shop.state(), shop.git(".", "rev-parse", "HEAD")
    dry = shop.release("alpha", "--bump", "minor", "--dry-run")
    assert dry.status == 0, dry.out
    planned = dry.json["result"]["releases"][0]  # type: ignore[index]
    assert (planned["old"], planned["new"], planned["tag"]) == ("0.1.0", "0.2.0", "v0.2.0")
    assert planned["edits"] == ["pyproject.toml", "src/alpha/__init__.py"]
    assert shop.release("alpha", "--bump", "minor").codes == ["unconfirmed"]
    assert shop.state() == before
    ran = shop.release("alpha", "--bump", "minor", "--yes")
    assert ran.status == 0, ran.out
    assert (folder / "pyproject.toml").read_text().startswith("# ours\n")
    assert 'version = "0.2.0"' in (folder / "pyproject.toml").read_text()
    assert '__version__ = "0.2.0"' in (folder / "src" / "alpha" / "__init__.py").read_text()
    tagged = shop.remote("alpha", "rev-parse", "v0.2.0^{commit}")
    assert tagged == shop.remote("alpha", "rev-parse", "main") == shop.git("packages/alpha", "rev-parse", "HEAD")
    assert shop.remote("alpha", "cat-file", "-t", "v0.2.0") == "tag"
    assert not shop.git("packages/alpha", "status", "--porcelain")
    assert shop.git("packages/alpha", "rev-parse", "origin/main") == tagged
    assert shop.git(".", "rev-list", "--count", f"{commit}..HEAD") == "1"
    assert shop.git(".", "log", "-1", "--format=%s") == "Release alpha 0.2.0"
    assert not shop.git(".", "status", "--porcelain")
    entry = (shop.workshop.registry / "alpha.yaml").read_text()
    assert entry.startswith("# why alpha is here\n")
    assert tagged in (shop.work / "profiles" / "prod" / "alpha" / "uv.lock").read_text()
    assert shop.workshop.within("check").status == 0


def test_what_cannot_be_released_is_refused(shop: Shop) -> None:
    """Dirty, behind, on no branch, no checkout, released already, not newer: each says so, and nothing is changed."""
    assert shop.release("alpha", "--bump", "patch").codes == ["not-in-dev"]
    folder = shop.on("alpha")

    def refused(*arguments: str) -> list[str]:
        before = shop.state()
        ran = shop.release("alpha", *arguments, "--yes")
        assert ran.status == 2, ran.out
        assert shop.state() == before
        return ran.codes

    assert refused() == refused("--bump", "patch", "--version", "1.0") == ["usage"]
    assert refused("--version", "0.1.0") == refused("--version", "0.0.9") == ["version-not-newer"]
    assert refused("--version", "one") == ["usage"]
    (folder / ".git").rename(folder / "git")  # A folder of the workspace's own repository, as far as git can see.
    ran = shop.release("alpha", "--bump", "patch", "--yes")
    assert (ran.status, ran.codes) == (2, ["no-repository"])
    assert "mv packages/alpha packages/alpha.old && envbuilder dev on alpha --branch" in ran.out
    (folder / "git").rename(folder / ".git")
    (folder / "new.txt").write_text("x")
    assert refused("--bump", "patch") == ["work-uncommitted"]
    (folder / "new.txt").unlink()
    shop.git("packages/alpha", "switch", "--quiet", "--detach")
    assert refused("--bump", "patch") == ["no-branch"]
    shop.git("packages/alpha", "switch", "--quiet", "main")
    shop.change("alpha", "src/alpha/__init__.py", '__version__ = "0.9.0"\n')
    shop.git(".", "rm", "--quiet", "--cached", "profiles/registry/beta.yaml")  # Of no concern.
    shop.workshop.write(
        "profiles/prod/profile.toml", (shop.work / "profiles/prod/profile.toml").read_text() + "# mine\n"
    )
    assert refused("--bump", "patch") == ["workspace-dirty"]
    shop.git(".", "checkout", "--quiet", "HEAD", "--", ".")
    shop.remote("alpha", "commit", "--quiet", "--allow-empty", "--message", "of others")
    assert refused("--bump", "patch") == ["checkout-behind"]


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_tags_are_signed_where_the_profile_wants_it(shop: Shop) -> None:
    """With `require-signed-tags` the tag is signed with the person's own key, and `check` takes it."""
    shop.on("alpha")
    shop.change("alpha")
    key = shop.workshop.root / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    config = Path(shop.env["GIT_CONFIG_GLOBAL"])
    config.write_text(f"{config.read_text()}[user]\nsigningkey = {key}\n[gpg]\nformat = ssh\n")
    profile = shop.work / "profiles" / "prod" / "profile.toml"
    profile.write_text(profile.read_text() + "require-signed-tags = true\n")
    shop.workshop.write("signers", f"a@example.org {key.with_suffix('.pub').read_text()}")
    project = shop.work / "pyproject.toml"
    project.write_text(f'[tool.envbuilder]\nallowed-signers = "signers"\n{project.read_text()}')
    shop.git(".", "add", "--all")
    shop.git(".", "commit", "--quiet", "--message", "signed from now on")
    ran = shop.release("alpha", "--bump", "patch", "--yes")
    assert ran.status == 0, ran.out
    assert ran.json["result"]["releases"][0]["signed"]  # type: ignore[index]
    assert "BEGIN SSH SIGNATURE" in shop.remote("alpha", "cat-file", "tag", "v0.1.1")
    wrong = shop.workshop.within("check", "--format", "json").json["problems"]
    assert {problem["entry"] for problem in wrong} == {"beta", "lib"}  # type: ignore[attr-defined]


def test_failing_tests_stop_a_release(shop: Shop) -> None:
    """Nothing is committed, tagged or pushed where the plugin's own tests fail."""
    shop.on("alpha")
    shop.change("alpha", "tests/test_it.py", "def test_it():\n    assert 0\n")
    before = shop.state()
    ran = shop.release("alpha", "--bump", "patch", "--yes")
    assert ran.status == 1
    assert ran.codes == ["tests-failed"]
    assert shop.state() == before


def test_refused_pushes_leave_all_as_it_was(shop: Shop) -> None:
    """A remote that takes no tag gets no commit either, and the checkout has neither."""
    shop.on("alpha")
    shop.change("alpha")
    hook = shop.workshop.remotes / "alpha.git" / ".git" / "hooks" / "update"
    hook.write_text('#!/bin/sh\ncase "$1" in refs/tags/*) exit 1 ;; esac\n')
    hook.chmod(0o755)
    before = shop.state()
    ran = shop.release("alpha", "--bump", "patch", "--yes")
    assert ran.status == 1
    assert ran.codes == ["git-failed"]
    assert shop.state() == before
    (problem,) = _problems(ran)
    assert "envbuilder-release-" not in json.dumps(problem)
    assert Path(problem["where"]).is_dir()
    hook.unlink()
    subprocess.run(["bash", "-c", problem["hint"]], env=shop.workshop.environment(shop.env), check=True)


def _problems(ran: Ran) -> list[dict[str, str]]:
    found = ran.json["problems"]
    assert isinstance(found, list)
    return found


def test_killed_releases_leave_nothing(shop: Shop) -> None:
    """Whoever is killed while pushing leaves neither commit nor tag in the checkout, and nothing in the workspace."""
    shop.on("alpha")
    shop.change("alpha")
    number = shop.workshop.root / "number"
    hook = shop.workshop.remotes / "alpha.git" / ".git" / "hooks" / "pre-receive"
    hook.write_text(f"#!/bin/sh\nkill -9 $(cat {number})\nexit 1\n")
    hook.chmod(0o755)
    before = shop.state()
    words = shop.workshop.argv("release", "alpha", "--bump", "patch", "--yes", "-q")
    with subprocess.Popen(words, cwd=shop.work, env=shop.workshop.environment(shop.env)) as process:
        number.write_text(str(process.pid))
        assert process.wait(120) == -signal.SIGKILL
    assert shop.state() == before


def test_failures_after_the_push_put_the_workspace_back(shop: Shop) -> None:
    """A tag that is pushed stays and is told of, with what to do; the workspace is as it was."""
    shop.on("alpha")
    shop.change("alpha")
    hook = shop.work / ".git" / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    before = shop.state()
    ran = shop.release("alpha", "--bump", "patch", "--yes")
    assert ran.status == 1
    assert ran.codes == ["git-failed", "release-unpinned"]
    assert "push origin :refs/tags/v0.1.1" in ran.out
    assert shop.state()["work"] == before["work"]
    assert shop.remote("alpha", "tag", "--list", "v0.1.1")
    assert shop.workshop.within("check").status == 0


def test_all_that_changed_is_released_in_order(shop: Shop) -> None:
    """`--all` takes what changed since its tag, the core first, and leaves one commit."""
    for name in ("alpha", "beta", "lib"):
        shop.on(name)
    assert shop.release("--all", "--bump", "patch").json["result"]["releases"] == []  # type: ignore[index]
    shop.change("alpha")
    shop.change("lib")
    commit = shop.git(".", "rev-parse", "HEAD")
    ran = shop.release("--all", "--bump", "patch", "--yes")
    assert ran.status == 0, ran.out
    assert [each["plugin"] for each in ran.json["result"]["releases"]] == ["lib", "alpha"]  # type: ignore[index]
    assert shop.git(".", "rev-list", "--count", f"{commit}..HEAD") == "1"
    lock = (shop.work / "profiles" / "prod" / "alpha" / "uv.lock").read_text()
    assert shop.remote("lib", "rev-parse", "v0.1.1^{commit}") in lock
    assert shop.workshop.within("check").status == 0
    assert shop.release("--all", "--bump", "patch").json["result"]["releases"] == []  # type: ignore[index]


def test_order_is_by_dependency_and_core_first() -> None:
    """What others ask for comes before them, the core before all; a circle is no obstacle."""
    asked = {"a": {"b"}, "b": {"c", "elsewhere"}, "c": set(), "core": set()}
    assert ordered(["a", "b", "c", "core"], asked, ["core"]) == ["core", "c", "b", "a"]
    assert ordered(["a", "b"], {"a": {"b"}, "b": {"a"}}, []) == ["a", "b"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"pyproject.toml": '[project]\nname = "x"\nversion = "1.0"  # now\n'}, ["pyproject.toml"]),
        ({"pyproject.toml": '[tool.poetry]\nname = "x"\nversion = "1.0"\n'}, ["pyproject.toml"]),
        ({"pyproject.toml": "", "setup.cfg": "[metadata]\nname = x\nversion = 1.0\n"}, ["setup.cfg"]),
        ({"setup.py": 'from setuptools import setup\nsetup(name="x", version="1.0")\n'}, ["setup.py"]),
        (
            {
                "pyproject.toml": '[project]\nname = "x"\ndynamic = ["version"]\n[tool.hatch.version]\npath = "src/x/about.py"\n',
                "src/x/about.py": "VERSION = 'v1.0'\n",
            },
            ["src/x/about.py"],
        ),
        (
            {
                "pyproject.toml": '[project]\nname = "x"\nversion = "1.0"\n',
                "src/x/__init__.py": "import a\n__version__: str = '1.0'\nother = '1.0'\n",
                "uv.lock": '[[package]]\nname = "x"\nversion = "1.0"\nsource = { editable = "." }\n\n'
                '[[package]]\nname = "y"\nversion = "1.0"\n',
                "src/z/__init__.py": "__version__ = '0.9'\n",
            },
            ["pyproject.toml", "src/x/__init__.py", "uv.lock"],
        ),
        (
            {
                "pyproject.toml": '[project]\nname = "x"\ndynamic = ["version"]\n'
                '[tool.setuptools.dynamic]\nversion = {file = ["VERSION"]}\n',
                "VERSION": "1.0\n",
            },
            ["VERSION"],
        ),
    ],
)
def test_versions_are_written_where_they_stand(tmp_path: Path, files: dict[str, str], expected: list[str]) -> None:
    """Only the version changes, wherever the package keeps it; what has another version, or is another's, stays."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = numbering.find(tmp_path, "x")
    assert (found.version, list(found.files)) == (Version("1.0"), expected)
    numbering.write(tmp_path, found, Version("1.1rc1"))
    for name, text in files.items():
        changed = (tmp_path / name).read_text()
        if name == "uv.lock":
            assert changed == text.replace('name = "x"\nversion = "1.0"', 'name = "x"\nversion = "1.1rc1"')
        elif name in expected:
            assert changed in {text.replace("1.0", "1.1rc1"), text.replace("'1.0'\n", "'1.1rc1'\n", 1)}
        else:
            assert changed == text


def test_versions_that_tags_tell_are_left_to_them(tmp_path: Path) -> None:
    """setuptools-scm and its like read the tag; where nothing says a version, that is told."""
    project = tmp_path / "pyproject.toml"
    lines = '[build-system]\nrequires = ["hatchling", "hatch-vcs>=0.4"]\n[project]\nname = "x"\ndynamic = ["version"]\n'
    project.write_text(lines)
    assert numbering.find(tmp_path, "x") == numbering.Numbering(None, ())
    project.write_text(textwrap.dedent('[project]\nname = "x"\ndynamic = ["version"]\n'))
    with pytest.raises(UsageError, match="stands neither"):
        numbering.find(tmp_path, "x")


def test_what_cannot_be_pushed_to_is_named(shop: Shop) -> None:
    """A clone without a remote gets one by its hint; a mirror that is a bundle is refused before anything is done."""
    assert shop.workshop.within("dev", "on", "beta", "--branch", env=shop.env).status == 0
    shop.git("packages/beta", "remote", "remove", "origin")
    ran = shop.release("beta", "--bump", "patch", "--yes")
    assert (ran.status, ran.codes) == (2, ["no-repository"])
    assert "git -C packages/beta remote add origin https://git.example.org/beta.git" in ran.out
    shop.git("packages/beta", "remote", "add", "origin", "https://git.example.org/beta.git")
    folder = shop.workshop.remotes / "beta.git"
    shop.remote("beta", "bundle", "create", str(folder.with_suffix(".bundle")), "--all")
    folder.rename(folder.with_suffix(".old"))
    ran = shop.release("beta", "--bump", "patch", "--yes")
    assert (ran.status, ran.codes) == (2, ["no-repository"])
    assert "is a bundle, and nothing can be pushed to one" in ran.out
