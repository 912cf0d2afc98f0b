"""Generations: switching, going back, comparing, and collecting what nothing leads to."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from workshop import Ran, Workshop

SHOW = ["exec", "alpha", "--", "python", "-c", "from importlib.metadata import version as v; print(v('alpha'))"]


@pytest.fixture
def three(workshop: Workshop) -> Workshop:
    """A workspace at its third generation: alpha 0.1.0, then 0.2.0, then 0.2.0 with beta beside it."""
    workshop.plugin("alpha")
    step(workshop)
    workshop.plugin("alpha", tag="v0.2.0")
    step(workshop)
    workshop.plugin("beta")
    step(workshop)
    return workshop


def step(workshop: Workshop, env: Mapping[str, str] | None = None) -> None:
    """Lock and build what the registry says now."""
    assert workshop.within("lock", env=env).status == 0
    assert workshop.within("build", env=env).status == 0


def result(ran: Ran) -> dict[str, object]:
    """What a command's JSON says, where it went well."""
    assert ran.status == 0, ran.err + ran.out
    found = ran.json["result"]
    assert isinstance(found, dict)
    return found


def only(names: object) -> str:
    """The one name in a list."""
    assert isinstance(names, list)
    assert len(names) == 1
    return str(names[0])


def numbers(workshop: Workshop) -> list[tuple[int, bool, int]]:
    """Each generation: its number, whether it is the current one, how many environments it has."""
    listed = result(workshop.within("generations", "--format", "json"))["generations"]
    assert isinstance(listed, list)
    return [(each["number"], each["current"], len(each["environments"])) for each in listed]


def stored(workshop: Workshop) -> set[str]:
    """The environments on disk."""
    folder = workshop.work / ".envbuilder" / "store"
    return {path.name for path in folder.glob("[!.]*") if path.is_dir()}


def test_each_change_is_a_generation_and_a_no_op_is_none(three: Workshop) -> None:
    """Generations count up with what was built; building again adds none; the profile is one link to the newest."""
    assert three.within("build").status == 0
    assert numbers(three) == [(1, False, 1), (2, False, 1), (3, True, 2)]
    assert re.search(r"^ 3 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +2 +current$", three.within("generations").out, re.MULTILINE)
    pointer = three.work / ".envbuilder" / "envs" / "prod"
    assert pointer.readlink().name == "3"
    assert sorted(path.name for path in pointer.iterdir()) == ["alpha", "beta"]


def test_rollback_goes_back_and_build_returns(three: Workshop) -> None:
    """After a rollback the old environment is what `exec` and `verify` use, until the next `build`."""
    assert result(three.within("rollback", "1", "--format", "json")) == {"number": 1}
    assert three.run(*SHOW).out == "0.1.0\n"
    assert three.within("verify", "--full", "alpha").status == 0
    assert numbers(three) == [(1, True, 1), (2, False, 1), (3, False, 2)]
    assert three.within("build").status == 0
    assert three.run(*SHOW).out == "0.2.0\n"
    assert result(three.within("rollback", "--format", "json"))["number"] in {2, 3}


def test_rollback_to_nowhere_is_refused(three: Workshop) -> None:
    """A generation that never was, or whose environments are gone, is no place to go back to; nothing moves."""
    ran = three.within("rollback", "9")
    assert (ran.status, "no generation 9" in ran.err) == (2, True)
    shutil.rmtree(three.work / ".envbuilder" / "store")
    ran = three.within("rollback", "1")
    assert (ran.status, "alpha" in ran.err) == (2, True)
    assert numbers(three)[-1] == (3, True, 2)


def test_verify_tells_what_was_never_built_from_what_is_damaged(workshop: Workshop) -> None:
    """Without names, what is not built is named and no damage; asked for by name it is missing."""
    for name in ("alpha", "beta"):
        workshop.plugin(name)
    assert workshop.within("lock").status == 0
    assert workshop.within("build", "alpha").status == 0
    ran = workshop.within("verify")
    assert (ran.status, ran.out) == (0, "verified 1 environment: as it was sealed; not built: beta\n")
    assert workshop.within("verify", "--format", "json").json["result"] == {
        "environments": 1,
        "findings": 0,
        "mended": [],
        "not-built": ["beta"],
    }
    assert workshop.within("verify", "beta").status == 1


def test_diff_names_what_changed(three: Workshop) -> None:
    """Between two generations each package that came, went or changed is one line."""
    changes = result(three.within("diff", "1", "3", "--format", "json"))["changes"]
    assert isinstance(changes, list)
    assert [{name: each[name] for name in ("plugin", "package", "old", "new")} for each in changes] == [
        {"plugin": "alpha", "package": "alpha", "old": "0.1.0", "new": "0.2.0"},
        {"plugin": "beta", "package": "beta", "old": "", "new": "0.1.0"},
    ]
    assert "the same packages" in three.within("diff", "2", "2").out


def test_gc_keeps_what_generations_lead_to(three: Workshop) -> None:
    """Nothing goes while a generation leads to it; `--keep` forgets the old ones; a dry run only tells the same."""
    before = stored(three)
    assert result(three.within("gc", "--format", "json"))["environments"] == []
    told = result(three.within("gc", "--keep", "2", "--dry-run", "--format", "json"))
    assert (stored(three), len(numbers(three))) == (before, 3)
    done = result(three.within("gc", "--keep", "2", "--format", "json"))
    assert {**told, "dry-run": False} == done
    assert done["generations"] == [1]
    gone = done["environments"]
    assert isinstance(gone, list)
    assert len(gone) == 1
    assert stored(three) == before - set(gone)
    assert [number for number, _, _ in numbers(three)] == [2, 3]
    store = three.work / ".envbuilder" / "store"
    assert not list(store.rglob(f"{gone[0]}*"))
    assert three.within("verify", "--full").status == 0


def test_gc_never_takes_the_current_generation(three: Workshop) -> None:
    """The generation that was rolled back to stays, however old it is and however few are kept."""
    assert three.within("rollback", "1").status == 0
    assert result(three.within("gc", "--keep", "1", "--format", "json"))["generations"] == [2]
    assert three.run(*SHOW).out == "0.1.0\n"


def test_pinned_generation_is_kept(three: Workshop) -> None:
    """Neither `gc` nor `gc --keep` takes a pinned generation, nor what it leads to, until it is unpinned."""
    listed = result(three.within("generations", "--pin", "1", "--format", "json"))["generations"]
    assert isinstance(listed, list)
    assert [each["pinned"] for each in listed] == [True, False, False]
    assert "pinned" in three.within("generations").out
    gone = result(three.within("gc", "--keep", "1", "--format", "json"))
    assert (gone["generations"], gone["environments"]) == ([2], [])
    assert result(three.within("rollback", "1", "--format", "json"))["number"] == 1
    assert three.within("build").status == 0
    assert three.within("generations", "--unpin", "1").status == 0
    gone = result(three.within("gc", "--keep", "1", "--format", "json"))
    assert (gone["generations"], len(stored(three))) == ([1, 3], 2)


def test_pinned_environment_is_kept(three: Workshop) -> None:
    """A plugin's environment, pinned, outlives every generation that led to it, until it is unpinned."""
    assert three.within("rollback", "1").status == 0
    pinned = result(three.within("generations", "--pin", "alpha", "--format", "json"))["pinned-environments"]
    key = only(pinned)
    assert three.within("build").status == 0
    gone = result(three.within("gc", "--keep", "1", "--format", "json"))
    assert (gone["generations"], gone["environments"]) == ([1, 2, 3], [])
    assert key in three.within("generations").out
    assert three.within("generations", "--unpin", "alpha").status == 0
    assert three.within("generations", "--pin", key).status == 0
    assert three.within("generations", "--unpin", key).status == 0
    assert result(three.within("gc", "--format", "json"))["environments"] == [key]


@pytest.mark.parametrize("option", [("--pin", "9"), ("--pin", "gamma"), ("--pin", "../x"), ("--unpin", "1")])
def test_pin_of_what_is_not_there_is_refused(workshop: Workshop, option: tuple[str, str]) -> None:
    """An unknown generation, plugin or key is an error; nothing is pinned."""
    workshop.plugin("alpha")
    ran = workshop.within("generations", *option)
    assert (ran.status, f"{option[1]} " in ran.err or ran.err.count("no generation 9")) == (2, True)
    assert result(workshop.within("generations", "--format", "json"))["pinned-environments"] == []


def test_unreadable_pins_stop_the_collector(three: Workshop) -> None:
    """Where what is pinned cannot be read, nothing is forgotten or collected."""
    (three.work / ".envbuilder" / "generations" / "prod" / "pinned.json").write_text("{")
    ran = three.within("gc", "--keep", "1")
    assert (ran.status, "pinned.json" in ran.err) == (1, True)
    assert len(stored(three)) == 3


def test_gc_tells_apparent_from_freed_bytes(three: Workshop) -> None:
    """What others link to is counted as apparent and not as freed; both as `du` and `stat` have it."""
    gone = result(three.within("gc", "--keep", "1", "--dry-run", "--format", "json"))
    key = only(gone["environments"])
    files = [path.lstat() for path in (three.work / ".envbuilder" / "store" / key).rglob("*") if not path.is_dir()]
    links = [path.is_symlink() for path in (three.work / ".envbuilder" / "store" / key).rglob("*") if not path.is_dir()]
    plain = [status for status, link in zip(files, links, strict=True) if not link]
    assert gone["apparent-bytes"] == sum(status.st_size for status in plain)
    assert gone["freed-bytes"] == sum(status.st_blocks * 512 for status in plain if status.st_nlink == 1)
    assert any(status.st_nlink > 1 for status in plain)


def test_gc_spares_what_another_workspace_uses(three: Workshop, tmp_path: Path) -> None:
    """With a shared state folder the generations of every workspace count; equal keys are one environment."""
    home = {"ENVBUILDER_HOME": str(tmp_path / "home")}
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", str(three.work), str(other)], check=True)
    assert three.within("build", env=home).status == 0
    built = result(three.within("build", "--format", "json", env=home, cwd=other))["environments"]
    assert isinstance(built, list)
    assert [each["state"] for each in built] == ["unchanged", "unchanged"]
    three.entry("alpha", tag="v0.1.0")
    for command in (("lock",), ("build",), ("gc", "--keep", "1")):
        assert three.within(*command, env=home).status == 0
    assert three.within("verify", "--full", env=home, cwd=other).status == 0
    assert len([path for path in (tmp_path / "home" / "store").glob("[!.]*") if path.is_dir()]) == 3


WORKER = """
import os, pathlib, time

class Model:
    def load(self, context):
        pathlib.Path(os.environ["GATE"], "begun").touch()
        while not pathlib.Path(os.environ["GATE"], "open").exists():
            time.sleep(0.05)
        import late

    def predict(self, batch):
        return [item.question.upper() for item in batch]
"""


def test_gc_spares_the_environments_of_a_run_under_way(workshop: Workshop, tmp_path: Path) -> None:
    """What a run began with stays until it ends, though no generation leads there any more; then it can go.

    Whichever workspace that shares the state collects.
    """
    workshop.release("late", "v0.1.0")
    workshop.entry("late", kind="library")
    gate = {"env": {"GATE": str(tmp_path)}}
    workshop.plugin("alpha", code=WORKER, dependencies=("late",), keys=gate)
    workshop.write("data.csv", "id;question;answer\n1;a;A\n")
    workshop.write("run.yaml", "{name: small, data: {few: {path: data.csv}}, inference: [{plugin: alpha}]}\n")
    home = {"ENVBUILDER_HOME": str(tmp_path / "home")}
    step(workshop, home)
    other = tmp_path / "other"
    shutil.copytree(workshop.work, other)
    argv = workshop.argv("run", "run.yaml")
    with subprocess.Popen(argv, cwd=workshop.work, env=workshop.environment(home), stderr=subprocess.PIPE) as running:
        while not (tmp_path / "begun").exists():
            assert running.poll() is None, running.communicate()
            time.sleep(0.05)
        try:
            workshop.plugin("alpha", tag="v0.2.0", code=WORKER, dependencies=("late",), keys=gate)
            step(workshop, home)
            spared = [
                result(workshop.within("gc", "--keep", "1", "--format", "json", env=home, cwd=folder))["environments"]
                for folder in (workshop.work, other)
            ]
            (listing,) = (tmp_path / "home").glob("workspaces/*/runs/2*/environments.json")
            whole = listing.read_bytes()
            listing.write_bytes(whole[:-20])
            cut = workshop.within("gc", "--keep", "1", "--format", "json", env=home)
            numbers = result(workshop.within("generations", "--format", "json", env=home))["generations"]
            listing.write_bytes(whole)
        finally:
            (tmp_path / "open").touch()
            _, said = running.communicate(timeout=60)
    assert spared == [[], []]
    assert (cut.status > 0, cut.codes, numbers != []) == (True, ["record-unusable"], True)
    assert running.returncode == 0, said
    assert only(result(workshop.within("gc", "--format", "json", env=home))["environments"])


def test_gc_cleans_up_after_killed_builds(three: Workshop) -> None:
    """What lies in staging or trash, and bytecode of environments that are gone, goes with the next collection."""
    state = three.work / ".envbuilder"
    for name in ("store/.staging/gone-1/lib", "store/.trash/gone-2@1/lib", "pycache/gone-3/x"):
        (state / name).mkdir(parents=True)
    (state / "store/.staging/gone-1/lib/large").write_bytes(b"x" * 40_000)
    looked = result(three.within("gc", "--dry-run", "--format", "json"))
    assert (looked["environments"], looked["apparent-bytes"]) == ([], 40_000)
    assert looked["leftovers"] == [str(state / "store/.staging/gone-1"), str(state / "store/.trash/gone-2@1")]
    ran = three.within("gc")
    assert ran.out.startswith("removed 0 environments and 2 leftovers of killed builds: 39.1 KiB apparent, "), ran.err
    assert " 0 B freed" not in ran.out
    assert not [*state.glob("store/.staging/*"), *state.glob("store/.trash/*"), *state.glob("pycache/gone-3")]


def test_a_seal_without_environment_is_garbage_once_nothing_leads_to_it(three: Workshop) -> None:
    """Half of what an environment is made of, left over by a kill in the middle of a collection, is collected too."""
    old = only(result(three.within("gc", "--keep", "1", "--dry-run", "--format", "json"))["environments"])
    shutil.rmtree(three.work / ".envbuilder" / "store" / old)
    assert result(three.within("gc", "--keep", "1", "--format", "json"))["environments"] == [old]
    assert not list((three.work / ".envbuilder" / "store").glob(f"{old}*"))


@pytest.mark.parametrize("cut", ["", '{"number": 3, "cre', "[]", '{"environments": 3}'])
def test_a_damaged_generation_keeps_all_and_is_mended(three: Workshop, cut: str) -> None:
    """Where a generation's file cannot be read, gc removes nothing and says so; the build that its hint names mends it."""
    state = three.work / ".envbuilder"
    kept = stored(three)
    before = numbers(three)
    for number in (3, 1):
        (state / "generations" / "prod" / f"{number}.json").write_text(cut)
    for words in (("gc",), ("gc", "--keep", "1"), ("gc", "--dry-run"), ("generations",)):
        ran = three.within(*words, "--format", "json")
        assert (ran.status, set(ran.codes)) == (1, {"generation-damaged"}), words
        assert "envbuilder build --profile prod" in ran.out
    assert stored(three) == kept
    assert sorted(path.name for path in (state / "generations" / "prod").glob("*.json")) == [
        "1.json",
        "2.json",
        "3.json",
    ]
    ran = three.within("rollback", "1", "--format", "json")
    assert (ran.status, ran.codes) == (1, ["generation-damaged"])
    ran = three.within("verify", "--format", "json")
    assert ran.status == 0 or ran.codes == ["generation-damaged"]
    assert three.within("build").status == 0
    assert numbers(three) == before
    assert three.within("gc").status == 0
    assert stored(three) == kept


def test_pins_that_are_damaged_keep_all(three: Workshop) -> None:
    """Pins that cannot be read keep everything, and the hint helps."""
    kept = stored(three)
    assert three.within("generations", "--pin", "1").status == 0
    file = three.work / ".envbuilder" / "generations" / "prod" / "pinned.json"
    file.write_text(file.read_text()[:10])
    ran = three.within("gc", "--keep", "1", "--format", "json")
    assert (ran.status, ran.codes) == (1, ["generation-damaged"])
    assert stored(three) == kept
    file.unlink()
    assert three.within("gc", "--keep", "1").status == 0


def test_nothing_verified_is_not_all(three: Workshop) -> None:
    """What a generation promises and is gone is missing; where nothing was built, nothing was verified, status 1."""
    state = three.work / ".envbuilder"
    for path in (state / "store").iterdir():
        if path.name.startswith(("alpha", "beta")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    ran = three.within("verify", "--format", "json")
    assert (ran.status, set(ran.codes)) == (1, {"environment-seal"})
    shutil.rmtree(state)
    ran = three.within("verify", "--format", "json")
    assert (ran.status, ran.codes) == (1, ["nothing-verified"])
    assert "as they were sealed" not in three.within("verify").out
