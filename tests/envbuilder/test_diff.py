"""`diff`: profiles, commits, generations and runs against one another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

WORKER = """
class Model:
    def load(self, context):
        pass
    def predict(self, batch):
        return [item.question for item in batch]
"""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An index with one package, in one version so far."""
    make_wheel(tmp_path / "wheels", "thing", "1.0")
    with Index(tmp_path / "wheels") as served:
        yield served


@pytest.fixture
def shop(workshop: Workshop, index: Index) -> Workshop:
    """Two plugins that need `thing`, and a library whose checkout dev uses; locked in prod and dev, under git."""
    for profile in ("prod", "dev"):
        workshop.write(f"profiles/{profile}/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
    workshop.release("lib", "v0.1.0")
    workshop.entry("lib", kind="library")
    workshop.write("profiles/registry/lib.dev.yaml", "source: {path: packages/lib}\n")
    workshop.package(workshop.work / "packages" / "lib", name="lib")
    workshop.plugin("alpha", dependencies=("thing", "lib"), code=WORKER)
    workshop.plugin("beta", dependencies=("thing",))
    workshop.write(".gitignore", ".envbuilder\n")
    workshop.git("init", "--quiet", "--initial-branch", "main", str(workshop.work))
    for profile in ("prod", "dev"):
        assert workshop.within("lock", "-q", "--profile", profile).status == 0
    commit(workshop, "first")
    return workshop


def commit(workshop: Workshop, message: str) -> None:
    """Commit the workspace."""
    workshop.git("-C", str(workshop.work), "add", "--all")
    workshop.git("-C", str(workshop.work), "commit", "--quiet", "--message", message)


def upgrade(workshop: Workshop, index: Index) -> str:
    """Publish `thing` 1.1, move alpha to another tag, lock; returns alpha's commit."""
    make_wheel(index.folder, "thing", "1.1")
    moved = workshop.plugin("alpha", tag="v0.1.0.post1", dependencies=("thing", "lib"), code=WORKER)
    assert workshop.within("lock", "-q", "--upgrade").status == 0
    return moved


def changed(ran: Ran) -> list[tuple[str, str, str, str, str]]:
    """The changes of an envelope as plugin, package, what happened, old and new."""
    assert ran.status == 0, ran.out + ran.err
    result = ran.json["result"]
    assert isinstance(result, dict)
    return [(each["plugin"], each["package"], each["change"], each["old"], each["new"]) for each in result["changes"]]


def diff(workshop: Workshop, *words: str) -> Ran:
    """Compare, as JSON."""
    return workshop.within("diff", "--format", "json", *words)


def test_profiles_differ_by_where_a_package_comes_from(shop: Workshop) -> None:
    """The library of one version is a git commit in prod and a checkout in dev, which is a change; the rest is equal."""
    ran = diff(shop, "prod", "dev")
    assert changed(ran) == [("alpha", "lib", "changed", "0.1.0", "0.1.0")]
    text = shop.within("diff", "prod", "dev").out
    assert "0.1.0 (path)" in text
    assert "1 of 2 plugins differ: 1 changed" in text
    assert "the same packages in 2 plugins" in shop.within("diff", "prod", "prod").out


def test_commits_are_compared_without_a_checkout(shop: Workshop, index: Index) -> None:
    """What changed between two commits, and since the last one, is read from git's objects."""
    moved = upgrade(shop, index)
    expected = [
        ("alpha", "alpha", "changed", "0.1.0", "0.1.0.post1"),
        ("alpha", "thing", "changed", "1.0", "1.1"),
        ("beta", "thing", "changed", "1.0", "1.1"),
    ]
    assert changed(diff(shop)) == expected
    commit(shop, "second")
    assert changed(diff(shop)) == []
    ran = diff(shop, "HEAD~1", "HEAD")
    assert changed(ran) == expected
    result = ran.json["result"]
    assert isinstance(result, dict)
    assert result["changes"][0]["new-commit"] == moved
    assert result["summary"][0] == {"package": "thing", "old": "1.0", "new": "1.1", "plugins": ["alpha", "beta"]}
    assert changed(diff(shop, "main", "HEAD", "--profile", "dev")) == []


def test_a_commit_alone_shows_where_the_version_stays(shop: Workshop) -> None:
    """A tag that was moved and accepted changes a commit and no version."""
    repository = str(shop.remotes / "beta.git")
    shop.git("-C", repository, "tag", "--delete", "v0.1.0")
    moved = shop.release("beta", "v0.1.0", dependencies=("thing",), code="class Model:\n    other = 1\n")
    assert shop.within("lock", "-q", "--repin").status == 0
    assert changed(diff(shop)) == [("beta", "beta", "changed", "0.1.0", "0.1.0")]
    assert f"0.1.0 ({moved[:12]})" in shop.within("diff").out


def test_runs_and_generations_are_compared_by_what_was_installed(shop: Workshop, index: Index) -> None:
    """Two runs, two generations, and each against a lock; what the lock holds for other machines does not count."""
    shop.write("data.csv", "id;question;answer\n1;a;a\n")
    shop.write("run.yaml", "{name: small, data: {few: {path: data.csv}}, inference: [{plugin: alpha}]}\n")
    shop.entry("alpha", requires=["thing ; sys_platform == 'win32'", "elsewhere ; sys_platform == 'win32'"])
    make_wheel(index.folder, "elsewhere", "3.0")
    assert shop.within("lock", "-q").status == 0
    assert shop.within("build", "-q").status == 0
    assert shop.within("run", "-q", "run.yaml").status == 0
    first = min(path.name for path in (shop.work / ".envbuilder" / "runs").iterdir())
    assert changed(diff(shop, first, "prod")) == []
    assert "only in prod, not compared: beta" in shop.within("diff", first, "prod").out
    assert changed(diff(shop, "1")) == []
    upgrade(shop, index)
    assert shop.within("run", "-q", "run.yaml").status == 0
    expected = [
        ("alpha", "alpha", "changed", "0.1.0", "0.1.0.post1"),
        ("alpha", "thing", "changed", "1.0", "1.1"),
    ]
    assert changed(diff(shop, first, "run:latest")) == expected
    assert changed(diff(shop, "1", "gen:2")) == expected
    assert changed(diff(shop, "gen:1", "run:latest")) == expected


def test_a_word_that_may_be_two_things_is_refused(shop: Workshop) -> None:
    """A branch named as a profile makes the word ambiguous; the error names both ways to write it, and both work."""
    shop.git("-C", str(shop.work), "branch", "dev")
    ran = shop.within("diff", "dev", "prod", "--format", "json")
    assert (ran.status, ran.codes) == (2, ["usage"])
    assert "write profile:dev or rev:dev" in str(ran.json["problems"])
    assert changed(diff(shop, "rev:dev", "prod")) == []
    assert len(changed(diff(shop, "profile:dev", "prod"))) == 1


@pytest.mark.parametrize("word", ["nothing", "gen:7", "run:x", "rev:nothing", "profile:staging", "7", "rev:", "run:"])
def test_a_word_that_names_nothing_is_refused(shop: Workshop, word: str) -> None:
    """What names nothing is an error with a listing to look at, also as the second word."""
    for words in ([word], ["prod", word]):
        ran = shop.within("diff", *words)
        assert ran.status == 2
        assert "hint: " in ran.err


def test_a_number_is_never_taken_for_the_beginning_of_a_run(shop: Workshop) -> None:
    """Every run's id begins with the year: a generation that is not there is not some run."""
    (shop.work / ".envbuilder" / "runs" / "20260102T030405Z-demo-abc123").mkdir(parents=True)
    ran = shop.within("diff", "HEAD", "2")
    assert (ran.status, "no generation" in ran.err) == (2, True)


def test_a_lock_that_is_none_is_told(shop: Workshop) -> None:
    """A broken uv.lock is one error that names it, not an empty side."""
    shop.write("profiles/prod/alpha/uv.lock", "version = 1\n")
    ran = shop.within("diff", "HEAD", "prod")
    assert ran.status == 2
    assert "prod/alpha/uv.lock" in ran.err
