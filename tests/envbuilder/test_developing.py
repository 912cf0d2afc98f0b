"""`dev`: plugins as checkouts of their repositories, with their overlays, and back without losing anybody's work."""

from __future__ import annotations

import hashlib
import json

import pytest
from workshop import Ran, Workshop

from envbuilder.workflow.versions import bumped, tag_like, would_become


@pytest.fixture
def shop(workshop: Workshop) -> Workshop:
    """A workspace that is a repository, with two releases of alpha and one of beta, locked for prod."""
    workshop.plugin("alpha", code="ANSWER = 1\nclass Model:\n    pass\n")
    workshop.release("alpha", "v0.2.0", version="0.2.0", code="ANSWER = 2\nclass Model:\n    pass\n")
    workshop.plugin("beta")
    assert workshop.within("lock").status == 0
    workshop.write(".gitignore", ".envbuilder/\n")
    for words in (("init", "--quiet", "--initial-branch", "main"), ("add", "--all"), ("commit", "-qm", "all")):
        workshop.git("-C", str(workshop.work), *words)
    return workshop


def git(shop: Workshop, *arguments: str) -> str:
    """Run git in alpha's checkout."""
    return shop.git("-C", str(shop.work / "packages" / "alpha"), *arguments)


def prod(shop: Workshop) -> str:
    """A digest of all that prod is locked to."""
    folder = shop.work / "profiles" / "prod"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def answer(shop: Workshop) -> Ran:
    """What alpha's code says in its dev environment."""
    return shop.run("exec", "--profile", "dev", "alpha", "--", "python", "-c", "import alpha; print(alpha.ANSWER)")


def on(shop: Workshop, *arguments: str) -> dict[str, object]:
    """`dev on alpha`, which must succeed."""
    ran = shop.within("dev", "on", "alpha", "--format", "json", *arguments)
    assert ran.status == 0, ran.out + ran.err
    result = ran.json["result"]
    assert isinstance(result, dict)
    return result


def test_on_clones_the_pinned_tag_and_off_takes_it_away(shop: Workshop) -> None:
    """Clone, overlay, editable environment; then all as it was, prod's locks throughout."""
    before = prod(shop)
    result = on(shop)
    assert (result["path"], result["state"], result["branch"]) == ("packages/alpha", "cloned", None)
    assert git(shop, "rev-parse", "HEAD") == git(shop, "rev-parse", "v0.1.0^{commit}")
    assert git(shop, "remote", "get-url", "origin") == "https://git.example.org/alpha.git"
    assert "source: {path: packages/alpha}" in (shop.registry / "alpha.dev.yaml").read_text()
    assert answer(shop).out == "1\n"
    assert "packages" not in shop.git("-C", str(shop.work), "status", "--short")
    (shop.work / "packages/alpha/src/alpha/__init__.py").write_text("ANSWER = 5\nclass Model:\n    pass\n")
    assert answer(shop).out == "5\n"
    git(shop, "checkout", "--quiet", ".")
    off = shop.within("dev", "off", "alpha")
    assert off.status == 0, off.err
    assert not (shop.work / "packages" / "alpha").exists()
    assert not (shop.registry / "alpha.dev.yaml").exists()
    assert answer(shop).out == "1\n"
    assert "packages" not in (shop.work / ".git" / "info" / "exclude").read_text()
    assert prod(shop) == before
    assert shop.within("dev", "off", "alpha", "--format", "json").codes == ["not-in-dev"]


def test_dependencies_that_are_edited_are_followed(shop: Workshop) -> None:
    """A new dependency is there at the next command in dev, of `exec` too; prod's lock is not touched."""
    before = prod(shop)
    on(shop)
    folder = shop.work / "packages" / "alpha"
    shop.package(
        folder, name="alpha", dependencies=("beta",), code="import beta\nANSWER = beta.__name__\nclass Model: ...\n"
    )
    assert answer(shop).out == "beta\n"
    assert shop.within("build", "--profile", "dev", "--format", "json", "alpha").status == 0
    assert prod(shop) == before


def test_overlays_keep_what_people_wrote(shop: Workshop) -> None:
    """Comments and other keys stay; off puts the very text back, or takes the source alone out of what was edited since."""
    text = "# why this one is special\nenv: {A: '1'}  # for the loader\n\nsource:\n  git: https://git.example.org/alpha.git\n"
    text += "  branch: main # the tip\n"
    overlay = shop.write("profiles/registry/alpha.dev.yaml", text)
    on(shop)
    assert "# why this one is special\nenv: {A: '1'}  # for the loader\n" in overlay.read_text()
    assert shop.within("dev", "off", "alpha").status == 0
    assert overlay.read_text() == text
    on(shop)
    overlay.write_text(overlay.read_text() + "python: '>=3.8'  # more\n")
    assert shop.within("dev", "off", "alpha").status == 0
    assert "branch: main" in overlay.read_text()
    assert "python: '>=3.8'  # more" in overlay.read_text()
    overlay.unlink()
    on(shop)
    overlay.write_text(overlay.read_text() + "python: '>=3.8'  # more\n")
    assert shop.within("dev", "off", "alpha").status == 0
    assert "source" not in overlay.read_text()
    assert "python: '>=3.8'  # more" in overlay.read_text()


def test_off_names_what_would_be_lost(shop: Workshop) -> None:
    """New files, commits of no remote, tags and stashes: each is named, and nothing is done until they are safe."""
    on(shop)
    folder = shop.work / "packages" / "alpha"
    (folder / "stashed.txt").write_text("x")
    git(shop, "stash", "push", "--quiet", "--include-untracked")
    git(shop, "switch", "--quiet", "--create", "idea")
    git(shop, "commit", "--quiet", "--allow-empty", "--message", "an idea")
    git(shop, "switch", "--quiet", "--detach")
    git(shop, "tag", "v9.0.0")
    (folder / "new.txt").write_text("x")
    ran = shop.within("dev", "off", "alpha", "--format", "json")
    assert ran.status == 1
    assert ran.codes == ["work-stashed", "work-uncommitted", "work-unpushed"]
    told = json.dumps(ran.json["problems"])
    for word in ("?? new.txt", "an idea", "tag v9.0.0", "stash@{0}"):
        assert word in told
    assert (folder / "new.txt").exists()
    assert "path: packages/alpha" in (shop.registry / "alpha.dev.yaml").read_text()
    (folder / "new.txt").unlink()
    git(shop, "stash", "drop", "--quiet")
    remote = str(shop.remotes / "alpha.git")
    rewrite = f"url.{remote}.insteadOf=https://git.example.org/alpha.git"
    git(shop, "-c", rewrite, "push", "--quiet", "origin", "idea", "v9.0.0")
    assert shop.within("dev", "off", "alpha").status == 0
    assert not folder.exists()


def kept(shop: Workshop) -> tuple[list[str], str]:
    """`dev off alpha`, which must do nothing: its codes, and its problems as text."""
    ran = shop.within("dev", "off", "alpha", "--format", "json")
    assert ran.status in {1, 2}
    assert (shop.work / "packages" / "alpha").exists()
    return ran.codes, json.dumps(ran.json["problems"])


def test_off_names_what_git_does_not_show(shop: Workshop) -> None:
    """Ignored weights, hidden edits, commits of the reflog, a merge under way, hooks and notes: each is named and stays."""
    on(shop)
    folder = shop.work / "packages" / "alpha"
    (folder / ".git" / "info" / "exclude").write_text("*.pt\n__pycache__/\n.venv/\nbuild/\nruns/\n")
    for name in ("src/__pycache__/a.pyc", ".venv/bin/python", "build/lib/a.py", "model.pt", "runs/1/out.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("weights")
    codes, told = kept(shop)
    assert codes == ["work-ignored"]
    assert "model.pt (7 bytes)" in told
    assert "runs/" in told
    assert not any(word in told for word in ("__pycache__", ".venv", "build/"))
    git(shop, "clean", "-fdqX")
    code = folder / "src" / "alpha" / "__init__.py"
    before = code.read_text()
    for flag in ("assume-unchanged", "skip-worktree"):
        git(shop, "update-index", f"--{flag}", "src/alpha/__init__.py")
        code.write_text(before + "# mine\n")
        codes, told = kept(shop)
        assert codes == ["work-hidden"]
        assert "src/alpha/__init__.py" in told
        code.write_text(before)
        git(shop, "update-index", f"--no-{flag}", "src/alpha/__init__.py")
    git(shop, "commit", "--quiet", "--allow-empty", "--message", "thrown away")
    git(shop, "reset", "--quiet", "--hard", "HEAD~1")
    codes, told = kept(shop)
    assert codes == ["work-reflog"]
    assert "thrown away" in told
    git(shop, "reflog", "expire", "--expire=now", "--all")
    (folder / ".git" / "MERGE_HEAD").write_text(git(shop, "rev-parse", "v0.2.0^{commit}") + "\n")
    assert kept(shop)[0] == ["work-under-way"]
    (folder / ".git" / "MERGE_HEAD").unlink()
    (folder / ".git" / "hooks").mkdir(exist_ok=True)
    (folder / ".git" / "hooks" / "pre-commit").write_text("#!/bin/sh\necho mine\n")
    git(shop, "config", "alias.mine", "status")
    codes, told = kept(shop)
    assert codes == ["work-settings"]
    assert "hook pre-commit; setting alias.mine" in told
    (folder / ".git" / "hooks" / "pre-commit").unlink()
    git(shop, "config", "--unset", "alias.mine")
    git(shop, "notes", "add", "--message", "a note", "HEAD")
    codes, told = kept(shop)
    assert codes == ["work-unpushed"]
    assert "notes/commits" in told
    git(shop, "update-ref", "-d", "refs/notes/commits")
    head = (folder / ".git" / "HEAD").read_text()
    (folder / ".git" / "HEAD").write_text("")
    assert kept(shop)[0] == ["work-unknown"]
    (folder / ".git" / "HEAD").write_text(head)
    assert shop.within("dev", "off", "alpha").status == 0
    assert not folder.exists()


def test_on_at_the_default_branch_and_elsewhere(shop: Workshop) -> None:
    """`--branch` is the default branch's tip, `--path` another place; what is there is used, and stays."""
    result = on(shop, "--branch", "--path", "packages/here/alpha")
    assert (result["path"], result["branch"], result["upstream"]) == ("packages/here/alpha", "main", "origin/main")
    assert answer(shop).out == "2\n"
    assert on(shop)["state"] == "kept"
    assert shop.within("dev", "off", "alpha").status == 0
    found = shop.package(shop.work / "mine", name="alpha", code="ANSWER = 7\nclass Model: ...\n")
    assert on(shop, "--path", "mine")["state"] == "found"
    assert answer(shop).out == "7\n"
    assert shop.within("dev", "off", "alpha").status == 0
    assert (found / "pyproject.toml").exists()
    overlay = shop.write("profiles/registry/alpha.dev.yaml", "source: {path: mine}  # by hand\n")
    assert on(shop)["state"] == "found"
    ran = shop.within("dev", "off", "alpha", "--format", "json")
    assert (ran.status, ran.codes) == (2, ["overlay-by-hand"])
    assert overlay.read_text() == "source: {path: mine}  # by hand\n"
    overlay.unlink()
    shop.package(shop.work / "other", name="gamma")
    for path in ("other", "profiles", "../outside", "."):
        assert shop.within("dev", "on", "alpha", "--path", path).status == 2
    assert not (shop.registry / "alpha.dev.yaml").exists()


def test_clones_that_fail_leave_nothing(shop: Workshop) -> None:
    """A remote that is gone, or a release of the index: told, and no folder and no overlay is left."""
    (shop.remotes / "alpha.git").rename(shop.remotes / "away.git")
    ran = shop.within("dev", "on", "alpha", "--format", "json")
    assert ran.status == 2
    assert ran.codes == ["remote-unreachable"]
    shop.entry("beta", source={"pypi": "==1.0"})
    assert shop.within("dev", "on", "beta", "--format", "json").codes == ["no-repository"]
    assert shop.within("dev", "on", "gamma").status == 2
    assert not list((shop.work).glob("packages/*"))
    assert not list(shop.registry.glob("*.dev.yaml"))


def test_committed_overlays_are_filled_with_clones(shop: Workshop) -> None:
    """Where the overlay names a checkout that is not there, it is cloned to that place, and off leaves the overlay."""
    overlay = shop.write("profiles/registry/alpha.dev.yaml", "source: {path: packages/first}\n")
    ran = shop.within("dev", "status", "--format", "json")
    assert ran.codes == ["checkout-missing"]
    assert on(shop)["path"] == "packages/first"
    off = shop.within("dev", "off", "alpha", "--offline", "--format", "json")
    assert (off.status, off.codes) == (0, ["checkout-missing"])
    assert overlay.read_text() == "source: {path: packages/first}\n"
    assert not (shop.work / "packages" / "first").exists()


def test_packages_in_larger_repositories(shop: Workshop) -> None:
    """The clone is the repository, the overlay names the folder in it."""
    shop.release("big", "v0.1.0", subdirectory="parts/alpha", name="alpha")
    source = {"git": "https://git.example.org/big.git", "tag": "v0.1.0", "subdirectory": "parts/alpha"}
    shop.entry("alpha", source=source)
    assert on(shop)["path"] == "packages/alpha/parts/alpha"
    assert on(shop)["state"] == "kept"
    assert shop.within("dev", "off", "alpha").status == 0
    assert not (shop.work / "packages" / "alpha").exists()


def test_status_tells_where_checkouts_are(shop: Workshop) -> None:
    """Branch, ahead and behind, dirty files, and the tag that it would become."""

    def row() -> dict[str, object]:
        ran = shop.within("dev", "status", "--fetch", "--format", "json", "alpha")
        assert ran.status == 0, ran.out
        found = ran.json["result"]["plugins"][0]  # type: ignore[index]
        assert isinstance(found, dict)
        return found

    assert (row()["profile"], row()["would-become"]) == ("prod", None)
    on(shop)
    assert (row()["profile"], row()["branch"], row()["behind"], row()["would-become"]) == ("dev", None, 1, None)
    git(shop, "switch", "--quiet", "main")
    assert (row()["branch"], row()["ahead"], row()["behind"]) == ("main", 0, 0)
    assert row()["would-become"] == "v0.2.0"
    git(shop, "commit", "--quiet", "--allow-empty", "--message", "more")
    shop.release("alpha", "v0.3.0", version="0.3.0")
    (shop.work / "packages/alpha/new.txt").write_text("x")
    now = row()
    assert (now["ahead"], now["behind"], now["dirty"]) == (1, 1, ["?? new.txt"])
    assert "main" in shop.within("dev", "status").out


def test_versions_and_tags_follow_what_was_there() -> None:
    """Bumps by PEP 440; tags written as the pinned one is."""
    from packaging.version import Version

    cases = {("1.2.3", "patch"): "1.2.4", ("1.2.3", "minor"): "1.3.0", ("1.2.3", "major"): "2.0.0"}
    cases |= {("1.2.0rc1", "patch"): "1.2.0", ("1.2.0rc1", "minor"): "1.2.0", ("1.2.0rc1", "major"): "2.0.0"}
    cases |= {("1.2.3.post1", "patch"): "1.2.4", ("1.2", "patch"): "1.2.1", ("2.0.0.dev3", "major"): "2.0.0"}
    for (current, part), expected in cases.items():
        assert str(bumped(Version(current), part)) == expected
    for pinned, expected in {
        "v1.0": "v2.0",
        "1.0": "2.0",
        "alpha-v1.0": "alpha-v2.0",
        "alpha/1.0": "alpha/2.0",
    }.items():
        assert tag_like(pinned, "alpha", Version("2.0")) == expected
    assert tag_like(None, "alpha", Version("2.0")) == tag_like("nightly", "alpha", Version("2.0")) == "v2.0"
    assert would_become("1.1", "v1.0", "alpha", changed=False) == "v1.1"
    assert would_become("1.0", "v1.0", "alpha", changed=True) == "v1.0.1"
    assert not would_become("1.0", "v1.0", "alpha", changed=False)
    assert would_become(None, "v1.0", "alpha", changed=True) == "v1.0.1"


def test_clones_come_from_bundles_too(shop: Workshop) -> None:
    """A mirror that is a bundle serves the clone; its origin is the canonical address all the same."""
    repository = shop.remotes / "alpha.git"
    shop.git("-C", str(repository), "bundle", "create", "--quiet", str(shop.remotes / "alpha.bundle"), "--all")
    repository.rename(shop.root / "away.git")
    on(shop)
    assert git(shop, "remote", "get-url", "origin") == "https://git.example.org/alpha.git"
    assert shop.within("dev", "off", "alpha").status == 0
