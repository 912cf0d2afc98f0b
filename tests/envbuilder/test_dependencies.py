"""Git sources that packages name themselves: judged, pinned and fetched as those of entries."""

from __future__ import annotations

import shlex
import shutil

import pytest
from workshop import Workshop

HOST = "git+https://git.example.org"
BACKED = '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n'


def settings(name: str, needs: str, source: str) -> str:
    """The `pyproject.toml` of a package whose own uv settings say where a dependency is from."""
    project = f'[project]\nname = "{name}"\nversion = "0.1.0"\ndependencies = ["{needs}"]\n'
    return f"{BACKED}{project}[tool.uv.sources]\n{needs} = {source}\n"


def lock(workshop: Workshop, *arguments: str) -> None:
    """Lock, which must succeed."""
    ran = workshop.within("lock", "-q", *arguments)
    assert ran.status == 0, ran.err


def problems(workshop: Workshop, *arguments: str) -> list[dict[str, str]]:
    """What check reports."""
    found = workshop.within("check", "--format", "json", *arguments).json["problems"]
    assert isinstance(found, list)
    return found


def retag(workshop: Workshop, name: str, tag: str, commit: str | None = None) -> None:
    """Remove a tag at the remote, or put it on another commit."""
    repository = str(workshop.remotes / f"{name}.git")
    workshop.git("-C", repository, "tag", "--delete", tag)
    if commit:
        workshop.git("-C", repository, "tag", "--annotate", "--message", tag, tag, commit)


def told(workshop: Workshop, *arguments: str) -> list[tuple[str, str]]:
    """Code and message of every error that check reports."""
    return [(each["code"], each["message"]) for each in problems(workshop, *arguments)]


def chain(workshop: Workshop, of_lib: str = "@v0.1.0", of_dep: str = "@v0.2.0") -> None:
    """Plugin `alpha`, which needs `lib` by git, which needs `dep` by git."""
    workshop.release("dep", "v0.2.0", version="0.2.0")
    workshop.release("lib", "v0.1.0", dependencies=(f"dep @ {HOST}/dep.git{of_dep}",))
    workshop.plugin("alpha", dependencies=(f"lib @ {HOST}/lib.git{of_lib}",))


@pytest.mark.parametrize("ref", ["", "@main"])
def test_a_branch_below_a_plugin_is_dev_s_alone(workshop: Workshop, ref: str) -> None:
    """A branch two levels down is refused in prod with the way to it; the hint makes it an entry; dev takes it."""
    chain(workshop, of_dep=ref)
    lock(workshop)
    (problem,) = problems(workshop)
    assert (problem["code"], problem["entry"]) == ("source-not-allowed", "alpha")
    assert problem["where"] == "profiles/prod/alpha/uv.lock"
    assert problem["message"].startswith("alpha → lib → dep: source is git-branch (https://git.example.org/dep.git")
    lock(workshop, "--profile", "dev")
    assert told(workshop, "--profile", "dev") == []
    assert problem["hint"].endswith("--git https://git.example.org/dep.git --tag v0.2.0")
    program, *words = shlex.split(problem["hint"])
    assert program == "envbuilder"
    assert workshop.within(*words).status == 0
    lock(workshop)
    assert told(workshop) == []


@pytest.mark.parametrize("source", ['branch = "main"', "", 'rev = "main"'])
def test_a_branch_in_uv_s_own_settings_is_one_too(workshop: Workshop, source: str) -> None:
    """What a package's `[tool.uv.sources]` name is judged as what its requirements name."""
    workshop.release("lib", "v0.1.0")
    table = ", ".join(filter(None, ('git = "https://git.example.org/lib.git"', source)))
    workshop.plugin("alpha", pyproject=settings("alpha", "lib", f"{{{table}}}"), dependencies=("lib",))
    lock(workshop)
    assert [code for code, _ in told(workshop)] == ["source-not-allowed"]


def test_a_tag_below_a_plugin_is_pinned_and_watched(workshop: Workshop) -> None:
    """A tag that a dependency names is in the pins; moved, recreated or deleted it is told; `--repin` takes it anew."""
    chain(workshop)
    lock(workshop)
    assert told(workshop) == []
    pins = workshop.work / "profiles" / "prod" / "pins.toml"
    assert '[dependencies."https://git.example.org/dep.git tag v0.2.0"]' in pins.read_text()
    retag(workshop, "dep", "v0.2.0", workshop.release("dep", "later", version="0.2.0", code="x = 1"))
    ((code, message),) = told(workshop)
    assert (code, message.partition(":")[0]) == ("tag-moved", "alpha → lib → dep")
    before = pins.read_bytes()
    lock(workshop)
    assert pins.read_bytes() == before
    lock(workshop, "--repin")
    assert told(workshop) == []
    assert pins.read_bytes() != before
    retag(workshop, "dep", "v0.2.0")
    assert [code for code, _ in told(workshop)] == ["tag-deleted"]


def test_a_lock_from_nothing_has_the_same_pins(workshop: Workshop) -> None:
    """Pins and lock are the same bytes from a fresh state folder and a fresh cache of uv's."""
    chain(workshop)
    lock(workshop)
    folder = workshop.work / "profiles" / "prod"
    files = [folder / "pins.toml", folder / "alpha" / "uv.lock"]
    before = [file.read_bytes() for file in files]
    shutil.rmtree(workshop.work / ".envbuilder")
    for file in files:
        file.unlink()
    env = {"UV_CACHE_DIR": str(workshop.root / "second")}
    assert workshop.within("lock", "-q", env=env).status == 0
    assert [file.read_bytes() for file in files] == before


def test_a_pin_holds_for_plugins_that_are_locked_later(workshop: Workshop) -> None:
    """A moved tag is taken by no plugin before somebody asks for it anew."""
    chain(workshop)
    lock(workshop)
    retag(workshop, "dep", "v0.2.0", workshop.release("dep", "later", version="0.2.0", code="x = 1"))
    workshop.plugin("beta", dependencies=(f"dep @ {HOST}/dep.git@v0.2.0",))
    env = {"UV_CACHE_DIR": str(workshop.root / "second")}
    assert workshop.within("lock", "-q", env=env).status == 0
    assert [code for code, _ in told(workshop)] == ["tag-moved", "tag-moved"]


def test_version_mismatch_and_edits_below_a_plugin(workshop: Workshop) -> None:
    """A dependency's tag whose package says another version is told; so are an edited pin and an edited commit."""
    workshop.release("lib", "v0.3.0", version="0.1.9")
    workshop.plugin("alpha", dependencies=(f"lib @ {HOST}/lib.git@v0.3.0",))
    lock(workshop)
    assert told(workshop) == [
        ("version-mismatch", "alpha → lib: tag 'v0.3.0' holds a package that declares version 0.1.9")
    ]
    pins = workshop.work / "profiles" / "prod" / "pins.toml"
    whole = pins.read_text()
    pins.write_text(whole.replace('name = "lib"', 'name = "other"'))
    assert {"pin-edited", "lock-stale"} <= {code for code, _ in told(workshop)}
    pins.write_text(whole)
    file = workshop.work / "profiles" / "prod" / "alpha" / "uv.lock"
    commit = workshop.git("-C", str(workshop.remotes / "lib.git"), "rev-parse", "HEAD")
    file.write_text(file.read_text().replace(commit, "1" * 40))
    assert {"lock-off-tag", "lock-stale"} <= {code for code, _ in told(workshop)}


def test_signed_tags_are_wanted_below_a_plugin(workshop: Workshop) -> None:
    """Where a profile wants signed tags, it wants them of dependencies too."""
    chain(workshop)
    profile = workshop.work / "profiles" / "prod" / "profile.toml"
    profile.write_text(profile.read_text() + "require-signed-tags = true\n")
    lock(workshop)
    messages = [message for code, message in told(workshop) if code == "tag-unsigned"]
    assert [message.partition(": ")[0] for message in messages] == [
        "alpha → lib → dep",
        "alpha → lib",
        "tag 'v0.1.0'",
    ]


def test_a_package_beside_the_plugin_is_judged_with_it(workshop: Workshop) -> None:
    """What comes from the plugin's own commit may have another version than the tag, and is the entry's affair."""
    inner = workshop.remotes / "alpha.git" / "libs" / "inner"
    workshop.git("init", "--quiet", "--initial-branch", "main", str(workshop.remotes / "alpha.git"))
    workshop.package(inner, name="inner", version="7.0")
    text = settings("alpha", "inner", '{path = "libs/inner"}')
    workshop.plugin("alpha", pyproject=text, dependencies=("inner",))
    lock(workshop)
    assert told(workshop) == []


def test_paths_below_an_entry(workshop: Workshop) -> None:
    """A folder of this machine is refused in prod, since no other machine has it."""
    folder = workshop.package(workshop.root / "elsewhere" / "lib", name="lib")
    workshop.plugin("alpha", dependencies=(f"lib @ {folder.as_uri()}",))
    lock(workshop)
    ((code, message),) = told(workshop)
    assert code == "source-not-allowed"
    assert message.startswith("alpha → lib: source is a path")


def test_an_abbreviated_commit_is_locked_whole(workshop: Workshop) -> None:
    """A dependency by the first digits of a commit is a commit, not a branch."""
    commit = workshop.release("lib", "v0.1.0")
    workshop.plugin("alpha", dependencies=(f"lib @ {HOST}/lib.git@{commit[:10]}",))
    lock(workshop)
    assert commit in (workshop.work / "profiles" / "prod" / "alpha" / "uv.lock").read_text()
    assert told(workshop) == []


@pytest.mark.parametrize(
    ("line", "table"),
    [
        (f"maker @ {HOST}/maker.git", ""),
        (f"maker @ {HOST}/maker.git@v0.1.0", ""),
        ("maker", 'maker = {git = "https://git.example.org/maker.git", branch = "main"}'),
    ],
)
@pytest.mark.parametrize("below", [False, True])
def test_what_builds_a_package_is_held_by_a_commit(workshop: Workshop, line: str, table: str, *, below: bool) -> None:
    """A build requirement by git is in no lock: prod wants a whole commit of it, also below a plugin; dev does not."""
    commit = workshop.release("maker", "v0.1.0")

    def text(name: str, line: str, table: str) -> str:
        project = f'[project]\nname = "{name}"\nversion = "0.1.0"\n[tool.uv.sources]\n{table}\n'
        return BACKED.replace("requires = []", f'requires = ["{line}"]') + project

    for tag, said in (
        ("v0.1.0", text("lib", line, table)),
        ("v0.1.1", text("lib", f"maker @ {HOST}/maker.git@{commit}", "")),
    ):
        workshop.release("lib", tag, pyproject=said.replace('"0.1.0"', f'"{tag[1:]}"'), version=tag[1:])

    def take(tag: str) -> None:
        if below:
            workshop.plugin("alpha", tag=tag, dependencies=(f"lib @ {HOST}/lib.git@{tag}",))
        else:
            workshop.entry("lib", tag=tag, entry="lib:Model")

    take("v0.1.0")
    lock(workshop)
    ((code, message),) = told(workshop)
    assert code == "source-not-allowed"
    assert message.startswith("alpha → lib: it is built with maker" if below else "it is built with maker")
    lock(workshop, "--profile", "dev")
    assert told(workshop, "--profile", "dev") == []
    take("v0.1.1")
    lock(workshop)
    assert told(workshop) == []
