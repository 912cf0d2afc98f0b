"""Which core versions plugins fit: the matrix, questions about versions to come, other tags, releases of an index."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

BOUNDS = {"v0.1.0": "<0.2", "v0.2.0": ">=0.2,<0.3", "v0.3.0": ">=0.3rc1,<0.4", "v0.4.0rc1": ">=0.3"}


@pytest.fixture
def cored(workshop: Workshop) -> Workshop:
    """A core at 0.2.0 and a plugin whose tags fit different versions of it, locked at the second."""
    workshop.settings(core={"vlm-core": '"0.2.0"'})
    workshop.release("vlm-core", "v0.2.0", version="0.2.0")
    workshop.entry("vlm-core", kind="library", tag="v0.2.0")
    for tag, bound in BOUNDS.items():
        workshop.release("alpha", tag, version=tag[1:], dependencies=(f"vlm-core{bound}",), code=f"x = '{tag}'")
    workshop.entry("alpha", tag="v0.2.0")
    assert workshop.within("lock", "-q").status == 0
    return workshop


def told(ran: Ran) -> list[tuple[str, str]]:
    """Entry and code of every problem."""
    problems = ran.json["problems"]
    assert isinstance(problems, list)
    assert all(each["where"] and each["hint"] for each in problems)
    return [(each["entry"], each["code"]) for each in problems]


def matrix(ran: Ran) -> dict[tuple[str, str], dict[str, bool | None]]:
    """Entry and place to core version and whether it fits."""
    result = ran.json["result"]
    assert isinstance(result, dict)
    return {
        (row["entry"], row["place"]): {fit["version"]: fit["fits"] for fit in row["fits"]} for row in result["matrix"]
    }


def ask(workshop: Workshop, *arguments: str) -> Ran:
    """Check with an envelope."""
    return workshop.within("check", "--format", "json", *arguments)


def test_a_question_about_a_version_to_come(cored: Workshop) -> None:
    """`--core` adds a column, judges by it, and names the tag to take; the current core stays content."""
    assert matrix(ask(cored)) == {("alpha", "v0.2.0"): {"0.2.0": True}}
    ran = ask(cored, "--core", "0.3.0", "--core", "vlm-core==0.3.0rc1", "--core", "9")
    assert (ran.status, told(ran)) == (1, [("alpha", "core-incompatible")] * 3)
    assert matrix(ran) == {("alpha", "v0.2.0"): {"0.2.0": True, "0.3.0": False, "0.3.0rc1": False, "9": False}}
    (row,) = ran.json["result"]["matrix"]  # type: ignore[index]
    assert [fit["tag"] for fit in row["fits"]] == [None, "v0.3.0", "v0.3.0", "v0.4.0rc1"]
    assert row["accepts"] == {"vlm-core": "<0.3,>=0.2"}
    command = row["fits"][1]["command"]
    assert command in {each["hint"] for each in ran.json["problems"]}  # type: ignore[attr-defined]
    program = " ".join(cored.argv())
    subprocess.run(
        ["sh", "-c", f'envbuilder() {{ {program} "$@"; }}; {command}'],
        cwd=cored.work,
        env=cored.environment(),
        check=True,
        capture_output=True,
    )
    assert matrix(ask(cored, "--core", "0.3.0")) == {("alpha", "v0.3.0"): {"0.2.0": False, "0.3.0": True}}


def test_the_matrix_as_people_see_it(cored: Workshop) -> None:
    """A table of entries, what they accept, and each version; the asked ones carry a question mark."""
    ran = cored.within("check", "--core", "0.3.0")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert "entry at accepts vlm-core 0.2.0 vlm-core 0.3.0?" in lines
    assert "alpha v0.2.0 <0.3,>=0.2 yes no, v0.3.0 does" in lines
    assert "with vlm-core 0.3.0, as asked: the package at" in ran.err


def test_all_tags(cored: Workshop) -> None:
    """Every tag of a plugin's repository, newest first, with what it accepts; what cannot be read is not known."""
    cored.release("alpha", "v0.5.0", pyproject="[project\n")
    cored.release("alpha", "nightly")
    ran = ask(cored, "--all-tags", "--core", "0.3.0")
    found = matrix(ran)
    assert list(found) == [("alpha", tag) for tag in ("v0.5.0", "v0.3.0", "v0.2.0", "v0.1.0", "v0.4.0rc1")]
    assert found["alpha", "v0.5.0"] == {"0.2.0": None, "0.3.0": None}
    assert found["alpha", "v0.3.0"] == {"0.2.0": False, "0.3.0": True}
    assert found["alpha", "v0.4.0rc1"] == {"0.2.0": False, "0.3.0": True}
    lines = [" ".join(line.split()) for line in cored.within("check", "--all-tags").out.splitlines()]
    assert "alpha v0.2.0 * <0.3,>=0.2 yes" in lines
    assert "alpha v0.1.0 <0.2 no" in lines
    assert cored.within("check", "--all-tags", "--offline").status == 2


@pytest.mark.parametrize(
    ("core", "declared", "entry", "fits"),
    [
        ("0.3.0rc1", ">=0.2,<0.3", None, False),  # PEP 440: an exclusive bound leaves its pre-releases out.
        ("0.3.0rc1", ">=0.2", None, True),
        ("0.3.0rc1", ">=0.3", None, False),
        ("0.3.0rc1", ">=0.3rc1,<0.4", None, True),
        ("0.3.0.dev0", ">=0.2,<=0.3", None, True),
        ("0.2.1.post1", ">=0.2,<0.3", None, True),
        ("0.3.0+local", "==0.3.0", None, True),
        ("0.2.5", ">=0.2,<0.3", ">=0.2.6", False),
        ("0.2.5", ">=0.2,<0.3", ">=0.2.5", True),
        ("0.2.5", "", "<0.2", False),
    ],
)
def test_package_and_entry_must_both_hold(
    workshop: Workshop, core: str, declared: str, entry: str | None, fits: object
) -> None:
    """A core version, pre-releases included, fits where the package's word and the entry's word both take it."""
    workshop.settings(core={"vlm-core": '"0.2.0"'})
    workshop.plugin("alpha", dependencies=(f"vlm-core{declared}",), keys={"core": entry})
    workshop.release("vlm-core", "v0.2.0", version="0.2.0")
    workshop.entry("vlm-core", kind="library", tag="v0.2.0")
    found = matrix(ask(workshop, "--core", core))
    assert found["alpha", "v0.1.0"][core] is fits


def test_a_tag_that_says_another_version_is_not_advised(cored: Workshop) -> None:
    """A newer tag that fits the core but declares another version, or another name, would only be the next problem."""
    cored.release("alpha", "v0.9.0", version="0.1.0", dependencies=("vlm-core>=0.3",))
    cored.release("alpha", "v0.9.1", version="0.9.1", pyproject='[project]\nname = "other"\nversion = "0.9.1"\n')
    (row,) = ask(cored, "--core", "0.3.0").json["result"]["matrix"]  # type: ignore[index]
    assert row["fits"][1]["tag"] == "v0.3.0"


def test_where_package_and_entry_refuse_one_command_tells_of_both(cored: Workshop) -> None:
    """Taking the tag is not enough where the entry refuses, too: its line is opened on the way, whichever one reads."""
    cored.entry("alpha", tag="v0.2.0", core="<0.3")
    ran = ask(cored, "--core", "0.3.0")
    problems = ran.json["problems"]
    assert isinstance(problems, list)
    (hint,) = {each["hint"] for each in problems if each["code"] == "core-incompatible"}
    assert "v0\\.2\\.0/v0.3.0/" in hint
    assert hint.endswith(
        "&& ${EDITOR:-vi} +1 profiles/registry/alpha.yaml && envbuilder lock --profile prod"
        "  # v0.3.0 is the newest tag that fits; the entry's core has to take 0.3.0, too"
    )


def test_two_cores(workshop: Workshop) -> None:
    """Each core package has its column; a version without a name is no question then."""
    workshop.settings(core={"vlm-core": '"0.2.0"', "vlm-data": '"1.0"'})
    workshop.plugin("alpha", dependencies=("vlm-core<0.3", "vlm-data>=2"))
    for name in ("vlm-core", "vlm-data"):
        workshop.release(name, "v0.1.0")
        workshop.entry(name, kind="library")
    ran = ask(workshop, "--core", "vlm-data==2.1")
    assert matrix(ran)["alpha", "v0.1.0"] == {"0.2.0": True, "1.0": False, "2.1": True}
    assert ask(workshop, "--core", "2.1").status == 2


@pytest.mark.parametrize("text", ["x.y", "other==1.0", "vlm-core==", "vlm-core==*", ""])
def test_questions_that_make_no_sense(cored: Workshop, text: str) -> None:
    """What is no version, or not of a core package, is an error of the request's with a hint."""
    ran = ask(cored, "--core", text)
    assert (ran.status, ran.codes) == (2, ["usage"])


def test_a_question_without_a_core(workshop: Workshop) -> None:
    """A workspace that names no core cannot be asked about one, and has no matrix."""
    workshop.plugin("alpha")
    assert ask(workshop, "--core", "1.0").status == 2
    assert matrix(ask(workshop)) == {}


@pytest.fixture
def indexed(workshop: Workshop, tmp_path: Path) -> Iterator[Workshop]:
    """A core, and a plugin whose releases are on an index."""
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "vlm-core", "0.2.0")
    make_wheel(wheels, "alpha", "1.0", requires=("vlm-core>=0.1,<0.2",), headers=("Requires-Python: >=3.8",))
    make_wheel(wheels, "alpha", "1.1", requires=("vlm-core>=0.1,<0.3",))
    workshop.settings(core={"vlm-core": '"0.2.0"'})
    workshop.release("vlm-core", "v0.2.0", version="0.2.0")
    workshop.entry("vlm-core", kind="library", tag="v0.2.0")
    with Index(wheels) as index:
        for profile in ("prod", "dev"):
            text = f'python = "{PYTHON}"\nindex-url = "{index.url}"\n'
            workshop.write(f"profiles/{profile}/profile.toml", text)
        yield workshop


def test_a_release_of_an_index_is_judged(indexed: Workshop) -> None:
    """What a release asks of the core is recorded by lock, and judged by check without the index."""
    indexed.entry("alpha", source={"pypi": "==1.0"})
    ran = ask(indexed)
    assert told(ran) == [("alpha", "core-unknown"), ("alpha", "lock-missing")]
    assert matrix(ran) == {("alpha", "==1.0"): {"0.2.0": None}}
    # The core is overridden, so that uv locks what does not fit.
    assert indexed.within("lock", "-q").status == 0
    pins = (indexed.work / "profiles" / "prod" / "pins.toml").read_text()
    assert '[releases.alpha]\nversion = "1.0"\nrequires-python = ">=3.8"\nrequires = ["vlm-core>=0.1,<0.2"]' in pins
    before = pins
    ran = ask(indexed, "--offline", "--core", "0.1.5")
    assert told(ran) == [("alpha", "core-incompatible")]
    assert matrix(ran) == {("alpha", "==1.0"): {"0.2.0": False, "0.1.5": True}}
    assert indexed.within("lock", "-q").status == 0
    assert (indexed.work / "profiles" / "prod" / "pins.toml").read_text() == before
    hint = ask(indexed).json["problems"][0]["hint"]  # type: ignore[index]
    assert hint.endswith("# 1.1 is the newest release that fits")
    assert "sed -i '/pypi/s/==1\\.0/==1.1/'" in hint
    subprocess.run(["sh", "-c", hint.partition(" && ")[0]], cwd=indexed.work, check=True)
    assert ("alpha", "core-unknown") in told(ask(indexed))
    assert indexed.within("lock", "-q").status == 0
    assert told(ask(indexed)) == []


def test_a_range_of_releases_is_judged_by_the_locked_one(indexed: Workshop, tmp_path: Path) -> None:
    """In dev a range is what the lock holds of it, also after an upgrade."""
    indexed.entry("alpha", source={"pypi": "<1.1"})
    assert indexed.within("lock", "-q", "--profile", "dev").status == 0
    assert told(ask(indexed, "--profile", "dev")) == [("alpha", "core-incompatible")]
    make_wheel(tmp_path / "wheels", "alpha", "1.0.5", requires=("vlm-core",))
    assert indexed.within("lock", "-q", "--profile", "dev", "--upgrade").status == 0
    assert told(ask(indexed, "--profile", "dev")) == []


def test_an_edited_release_is_not_believed(indexed: Workshop) -> None:
    """A record of a release that was edited counts as none, and lock makes it anew."""
    indexed.entry("alpha", source={"pypi": "==1.0"})
    indexed.within("lock", "-q")
    file = indexed.work / "profiles" / "prod" / "pins.toml"
    text = file.read_text()
    file.write_text(text.replace("vlm-core>=0.1,<0.2", "vlm-core"))
    assert told(ask(indexed)) == [("alpha", "core-unknown")]
    assert indexed.within("lock", "-q").status == 0
    assert file.read_text() == text


@pytest.mark.parametrize("fault", ["gone", "rubbish", "dynamic"])
def test_a_core_that_cannot_be_read_hides_nothing_else(cored: Workshop, fault: str) -> None:
    """It is one problem beside the others; of the rest of the core, and of remotes, all is told; no lock is called stale."""
    cored.settings(core={"vlm-core": '"0.3.0"', "other-core": '{path = "packages/other"}'})
    if fault != "gone":
        cored.write(
            "packages/other/pyproject.toml", "= [" if fault == "rubbish" else '[project]\nname = "other-core"\n'
        )
    repository = str(cored.remotes / "alpha.git")
    cored.git("-C", repository, "tag", "--force", "-a", "-m", "v", "v0.2.0", "HEAD")
    ran = ask(cored)
    assert ran.status == 1
    found = ran.json["problems"]
    assert isinstance(found, list)
    assert [each["code"] for each in found if each["severity"] == "error"] == [
        "config-invalid",
        "core-incompatible",
        "tag-moved",
    ]
    assert found[0]["message"].startswith("tool.envbuilder.core.other-core: ")
