"""The ledger: what a pin holds, that an edit of it is seen, and how often remotes are asked for it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from workshop import Ran, Workshop

from envbuilder.documents import parse_toml
from envbuilder.lock import pins as pins_file
from envbuilder.models import Pins


def ledger(workshop: Workshop) -> Path:
    """Where prod's pins stand."""
    return workshop.work / "profiles" / "prod" / "pins.toml"


def lock(workshop: Workshop, *arguments: str) -> None:
    """Lock, which must succeed."""
    ran = workshop.within("lock", "-q", *arguments)
    assert ran.status == 0, ran.err


def told(ran: Ran) -> list[tuple[str, str]]:
    """Entry and code of every problem."""
    problems = ran.json["problems"]
    assert isinstance(problems, list)
    assert all(each["where"] and each["hint"] for each in problems)
    return [(each["entry"], each["code"]) for each in problems]


@pytest.fixture(scope="module")
def locked_once(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A plugin in a subdirectory, locked; to be copied, not changed."""
    made = Workshop(tmp_path_factory.mktemp("locked"))
    made.settings(core={"vlm-core": '"0.2.0"'})
    made.release("mono", "v0.1.0", subdirectory="plugins/alpha", name="alpha", dependencies=("lib>=0.1",))
    made.entry(
        "alpha", source={"git": "https://git.example.org/mono.git", "tag": "v0.1.0", "subdirectory": "plugins/alpha"}
    )
    made.release("lib", "v0.1.0", annotate=False)
    made.entry("lib", kind="library")
    lock(made)
    return made


@pytest.fixture
def locked(workshop: Workshop, locked_once: Workshop) -> Workshop:
    """A copy of a locked workspace with clones of its own, on the same remotes."""
    shutil.rmtree(workshop.work)
    shutil.copytree(locked_once.work, workshop.work)
    workshop.remotes.rmdir()
    shutil.copytree(locked_once.remotes, workshop.remotes)
    text = (workshop.work / "pyproject.toml").read_text()
    (workshop.work / "pyproject.toml").write_text(text.replace(str(locked_once.remotes), str(workshop.remotes)))
    return workshop


def test_a_pin_holds_what_was_proved(locked_once: Workshop) -> None:
    """Address, tag, tag object, commit, tree, name, version, requirements, signature and digest, as git tells them."""
    document = parse_toml(ledger(locked_once).read_text(), "pins.toml").value
    pin = document["entries"]["alpha"]

    def git(name: str) -> str:
        return locked_once.git("-C", str(locked_once.remotes / "mono.git"), "rev-parse", name)

    assert pin == {
        "url": "https://git.example.org/mono.git",
        "tag": "v0.1.0",
        "subdirectory": "plugins/alpha",
        "tag-object": git("v0.1.0"),
        "commit": git("v0.1.0^{commit}"),
        "tree": git("v0.1.0^{tree}"),
        "name": "alpha",
        "version": "0.1.0",
        "requires-python": ">=3.8",
        "requires": ["lib>=0.1"],
        "signature": "none",
        "digest": pin["digest"],
    }
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", pin["digest"])
    lib = document["entries"]["lib"]
    assert lib["tag-object"] == lib["commit"]  # Lightweight.


def test_pins_round_trip(locked_once: Workshop, tmp_path: Path) -> None:
    """What is read is what is written, byte for byte, and nothing of it is taken for edited."""
    pins = pins_file.read(ledger(locked_once), "pins.toml")
    assert pins.edited == frozenset()
    pins_file.write(tmp_path / "pins.toml", pins)
    assert (tmp_path / "pins.toml").read_bytes() == ledger(locked_once).read_bytes()


EDITS = {
    "version": ('version = "0.1.0"', 'version = "0.2.0"'),
    "requires": ('requires = ["lib>=0.1"]', "requires = []"),
    "tree": ('tree = "', 'tree = "0'),
    "tag object": ('tag-object = "', 'tag-object = "0'),
    "signature": ('signature = "none"', 'signature = "ssh:SHA256:abc friend@example.org"'),
    "python": ('requires-python = ">=3.8"', 'requires-python = ">=3.9"'),
    "digest": ('digest = "', 'digest = "0'),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_pin_is_seen_and_made_anew(locked: Workshop, edit: str) -> None:
    """Whatever value of a pin is edited, every command that uses it says so, and lock puts back what the tag says."""
    before = ledger(locked).read_text()
    old, new = EDITS[edit]
    start = before.index("[entries.alpha]")
    ledger(locked).write_text(before[:start] + before[start:].replace(old, new, 1))
    ran = locked.within("lock", "--check", "--format", "json")
    assert (ran.status, told(ran)) == (1, [("alpha", "lock-stale")])
    assert "the pin of alpha was edited" in ran.out
    assert ("alpha", "pin-edited") in told(locked.within("check", "--format", "json"))
    assert ("alpha", "pin-edited") in told(locked.within("check", "--offline", "--format", "json"))
    assert locked.within("build", "--format", "json").codes == ["lock-stale"]
    lock(locked)
    assert ledger(locked).read_text() == before


def test_an_edited_pin_stays_known_while_others_are_locked(locked: Workshop) -> None:
    """Locking another plugin does not write a good digest under an edited pin."""
    locked.plugin("beta")
    text = ledger(locked).read_text()
    ledger(locked).write_text(text.replace('requires = ["lib>=0.1"]', "requires = []", 1))
    lock(locked, "beta")
    assert told(locked.within("lock", "--check", "--format", "json")) == [("alpha", "lock-stale")]


def test_an_edited_commit_is_never_followed(locked: Workshop) -> None:
    """A pin edited to another commit is neither used nor silently replaced: lock asks for --repin."""
    text = ledger(locked).read_text()
    commit = locked.git("-C", str(locked.remotes / "mono.git"), "rev-parse", "v0.1.0^{commit}")
    ledger(locked).write_text(text.replace(f'commit = "{commit}"', f'commit = "{"1" * 40}"'))
    ran = locked.within("lock", "--format", "json")
    assert told(ran) == [("alpha", "tag-moved")]
    assert commit[:12] in ran.out
    assert "1" * 12 in ran.out
    lock(locked, "--repin")
    assert ledger(locked).read_text() == text


@pytest.mark.parametrize("key", ["version", "requires", "tree", "name", "commit"])
def test_a_pin_with_a_digest_of_its_own_is_held_against_the_commit(locked: Workshop, key: str) -> None:
    """Who edits a pin and makes a digest to match is found out where the objects are at hand."""
    pins = pins_file.read(ledger(locked), "pins.toml")
    other = locked.release("mono", "later", subdirectory="plugins/alpha", name="alpha", code="x = 1")
    values = {
        "version": "0.2.0",
        "requires": (),
        "tree": "2" * 40,
        "name": "beta",
        "commit": other,
    }
    changed = {**vars(pins.entries["alpha"]), key: values[key]}
    forged = Pins({**pins.entries, "alpha": type(pins.entries["alpha"])(**changed)}, pins.locks)
    pins_file.write(ledger(locked), forged)
    if key == "commit":
        locked.git("-C", str(locked.remotes / "mono.git"), "branch", "other", other)
        clone = next((locked.work / ".envbuilder" / "git").glob("mono-*.git"))
        locked.git("--git-dir", str(clone), "fetch", "--quiet", str(locked.remotes / "mono.git"), other)
    ran = locked.within("check", "--offline", "--format", "json")
    assert ("alpha", "pin-edited") in told(ran)


def test_a_tag_made_anew_is_a_warning(locked: Workshop) -> None:
    """The same commit under another tag object is the same code; who made it anew is worth a look, no failure."""
    repository = str(locked.remotes / "mono.git")
    locked.git("-C", repository, "tag", "--force", "--annotate", "--message", "again", "v0.1.0", "v0.1.0^{commit}")
    ran = locked.within("check", "--format", "json")
    assert (ran.status, told(ran)) == (0, [("alpha", "tag-recreated")])
    assert "it names the same commit" in ran.out
    lock(locked, "--repin")
    assert told(locked.within("check", "--format", "json")) == []


def test_lock_names_the_nearest_tag(workshop: Workshop) -> None:
    """A tag that is not there is told with those that look like it, as check does."""
    workshop.release("alpha", "v0.1.0-dev0")
    workshop.entry("alpha", tag="v0.1.0-dev1")
    ran = workshop.within("lock", "--format", "json")
    assert told(ran) == [("alpha", "tag-missing")]
    assert "nearest: v0.1.0-dev0" in ran.out


def fetches(workshop: Workshop, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> int:
    """How many fetches from the remotes a command makes, told by git's own trace."""
    trace = workshop.root / "trace.json"
    trace.touch()
    monkeypatch.setenv("GIT_TRACE2_EVENT", str(trace))
    act()
    monkeypatch.delenv("GIT_TRACE2_EVENT")
    starts = [json.loads(line)["argv"] for line in trace.read_text().splitlines() if '"event":"start"' in line]
    trace.unlink()
    return sum("fetch" in argv and any(str(workshop.remotes) in word for word in argv) for argv in starts)


def test_one_fetch_for_each_repository(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three packages of one repository, each at a tag of its own, come by one fetch; a missing tag spoils none."""
    names = ("alpha", "beta", "gamma")
    for name in names:
        workshop.release("mono", f"{name}-v0.1.0", subdirectory=name, name=name)
        source = {"git": "https://git.example.org/mono.git", "tag": f"{name}-v0.1.0", "subdirectory": name}
        workshop.entry(name, source=source)
    assert fetches(workshop, monkeypatch, lambda: lock(workshop)) == 1
    assert fetches(workshop, monkeypatch, lambda: lock(workshop)) == 0
    source = {"git": "https://git.example.org/mono.git", "tag": "gamma-v0.2.0", "subdirectory": "gamma"}
    workshop.entry("gamma", source=source)
    assert told(workshop.within("lock", "--repin", "--format", "json")) == [("gamma", "tag-missing")]


def test_a_fresh_clone_brings_all_pins_of_a_repository_by_one_fetch(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pins and without a clone, as on another machine, three plugins of one repository are built after one fetch."""
    for name in ("alpha", "beta", "gamma"):
        workshop.release("mono", f"{name}-v0.1.0", subdirectory=name, name=name)
        source = {"git": "https://git.example.org/mono.git", "tag": f"{name}-v0.1.0", "subdirectory": name}
        workshop.entry(name, source=source)
    lock(workshop)
    shutil.rmtree(workshop.work / ".envbuilder")
    monkeypatch.setenv("UV_CACHE_DIR", str(workshop.root / "cache"))

    def build() -> None:
        assert workshop.within("build", "-q").status == 0

    assert fetches(workshop, monkeypatch, build) == 1


def test_a_remote_that_does_not_answer_is_asked_once(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three packages of a repository that cannot be reached are three errors of one fetch."""
    names = ("alpha", "beta", "gamma")
    for name in names:
        workshop.entry(name, source={"git": "https://git.example.org/mono.git", "tag": "v1", "subdirectory": name})
    assert fetches(workshop, monkeypatch, lambda: workshop.within("lock", "-q")) == 1
    ran = workshop.within("lock", "--format", "json")
    assert (ran.status, told(ran)) == (1, [(name, "remote-unreachable") for name in names])
