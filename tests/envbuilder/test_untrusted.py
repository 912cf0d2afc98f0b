"""Registries and repositories of strangers: each trick is refused in words of its own, and nothing of it runs."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from workshop import Ran, Workshop

from envbuilder.documents import parse_yaml
from envbuilder.errors import ConfigError
from envbuilder.registry import EntryDocument, SourceDocument, parse


def refused(ran: Ran) -> tuple[str, str]:
    """Code and message of the one problem of a command that failed; its place and hint are there."""
    problems = ran.json["problems"]
    assert isinstance(problems, list)
    (problem,) = problems
    assert ran.status in {1, 2}
    assert problem["where"]
    assert problem["hint"]
    return problem["code"], problem["message"]


def lock(workshop: Workshop) -> Ran:
    """Lock prod."""
    return workshop.within("lock", "--format", "json")


TRICKS = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{n}: &{n} [{','.join([f'*{b}'] * 9)}]\n" for b, n in zip("abcdefg", "bcdefgh", strict=True)),
    "object": "name: !!python/object/apply:os.system ['touch {mark}']\n",
    "new object": "!!python/object/new:subprocess.Popen [['touch', '{mark}']]\n",
    "scalar": f"name: {'x' * 10_000_000}\n",
    "name that climbs": 'name: "../../x"\nstage: eval\nentry: a:b\nsource: {{path: a}}\n',
    "name that is an option": 'name: "-o"\nstage: eval\nentry: a:b\nsource: {{path: a}}\n',
    "ext": 'name: bad\nstage: eval\nentry: a:b\nsource: {{git: "ext::sh -c touch% {mark}", tag: v1}}\n',
    "upload pack": 'name: bad\nstage: eval\nentry: a:b\nsource: {{git: "--upload-pack=touch {mark}", tag: v1}}\n',
    "upload pack of ssh": 'name: bad\nstage: eval\nentry: a:b\nsource: {{git: "ssh://-oProxyCommand=touch%20{mark}/a", tag: v1}}\n',
    "tag as option": 'name: bad\nstage: eval\nentry: a:b\nsource: {{git: "https://a.example/b", tag: "--upload-pack=touch {mark}"}}\n',
    "tag with control characters": 'name: bad\nstage: eval\nentry: a:b\nsource: {{git: "https://a.example/b", tag: "v1\\e[2J"}}\n',
    "subdirectory": 'name: bad\nstage: eval\nentry: a:b\nsource: {{git: "https://a.example/b", tag: v1, subdirectory: ../../x}}\n',
}
WORDS = {
    "aliases": "too large or too deeply nested",
    "object": "could not determine a constructor",
    "new object": "could not determine a constructor",
    "scalar": "it has 10.0 MB, expected at most 4",
    "name that climbs": "expected a distribution name",
    "name that is an option": "expected a distribution name",
    "ext": "expected a git address",
    "upload pack": "expected a git address",
    "upload pack of ssh": "expected a git address",
    "tag as option": "expected a name that git accepts",
    "tag with control characters": "expected a name that git accepts",
    "subdirectory": "expected a relative path that stays inside",
}


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("command", ["lock", "check"])
def test_an_entry_that_tries_something(workshop: Workshop, trick: str, command: str) -> None:
    """Lock and check refuse the file before git, uv or the shell hear of it; the message holds no control character."""
    mark = workshop.root / "ran"
    text = TRICKS[trick]
    (workshop.registry / "bad.yaml").write_text(text.format(mark=mark) if len(text) < 1000 else text)
    ran = workshop.within(command, "--format", "json")
    code, message = refused(ran)
    assert (ran.status, code) == (2, "config-invalid")
    assert WORDS[trick] in message
    assert "\x1b" not in message
    assert not mark.exists()


def test_folders_of_this_machine_are_no_place_of_prod(workshop: Workshop) -> None:
    """A file:// address out of the workspace holds nowhere else: prod does not even look at it, dev may."""
    workshop.plugin("alpha", keys={"source": {"git": f"file://{workshop.remotes}/alpha.git", "tag": "v0.1.0"}})
    assert refused(lock(workshop))[0] == "source-not-allowed"
    assert workshop.within("check", "--format", "json").codes == ["lock-missing", "source-not-allowed"]
    assert not list((workshop.work / ".envbuilder").glob("git/*"))
    assert workshop.within("lock", "-q", "--profile", "dev").status == 0
    workshop.remotes.rename(workshop.work / "remotes")
    inside = {"git": f"file://{workshop.work}/remotes/alpha.git", "tag": "v0.1.0"}
    workshop.entry("alpha", source=inside)
    assert workshop.within("lock", "-q").status == 0
    inside["git"] = f"file://{workshop.work}/remotes/../../away/alpha.git"
    workshop.entry("alpha", source=inside)
    assert workshop.within("lock", "--check", "--format", "json").codes == ["source-not-allowed"]


def retagged(workshop: Workshop, tag: str) -> None:
    """Commit what was changed in alpha's repository, and tag it."""
    place = str(workshop.remotes / "alpha.git")
    workshop.git("-C", place, "add", "--all")
    workshop.git("-C", place, "commit", "--quiet", "--message", tag)
    workshop.git("-C", place, "tag", tag)


def test_a_file_too_large_to_be_read(workshop: Workshop) -> None:
    """A pyproject.toml of 200 MB is refused by its size; it never comes into our memory."""
    text = '[project]\nname = "alpha"\nversion = "0.1.0"\n#' + " " * 200_000_000
    workshop.plugin("alpha", pyproject=text)
    code, message = refused(lock(workshop))
    assert code == "metadata-unreadable"
    assert message == "pyproject.toml has 200.0 MB, expected at most 1"


def test_files_of_the_workspace_too_large_to_be_read(workshop: Workshop) -> None:
    """Settings, pins, locks and checkouts of 200 MB are refused by their size, each by every command that reads it."""
    workshop.plugin("alpha")
    workshop.package(workshop.work / "packages" / "alpha", name="alpha")
    workshop.write("profiles/registry/alpha.dev.yaml", "source: {path: packages/alpha}\n")
    assert lock(workshop).status == 0
    git = ("-C", str(workshop.work))
    workshop.git("init", "--quiet", str(workshop.work))
    cases = {
        "pyproject.toml": [["check"], ["status"]],
        "profiles/prod/profile.toml": [["lock"], ["check"]],
        "profiles/prod/pins.toml": [["lock", "--check"], ["check"], ["build"]],
        "profiles/prod/alpha/uv.lock": [["check", "--offline"], ["lock", "--check"], ["build"], ["why", "alpha", "x"]],
        "profiles/prod/alpha/pyproject.toml": [["check", "--offline"], ["build"]],
        "packages/alpha/pyproject.toml": [["lock", "--profile", "dev"], ["check", "--offline", "--profile", "dev"]],
    }
    for name, commands in cases.items():
        file = workshop.work / name
        text = file.read_text()
        with file.open("r+") as stream:
            stream.truncate(200_000_000)
        for command in commands:
            ran = workshop.within(*command, "--format", "json")
            assert (ran.status > 0, "has 200.0 MB, expected at most" in ran.out) == (True, True), (command, ran.out)
        if name.endswith("uv.lock"):
            workshop.git(*git, "add", "--all")
            workshop.git(*git, "commit", "--quiet", "--message", "large")
        file.write_text(text)
    # As it was committed it is not read either.
    code, message = refused(workshop.within("diff", "HEAD", "prod", "--format", "json"))
    assert (code, "200.0 MB" in message) == ("config-invalid", True)
    assert lock(workshop).status == 0
    (workshop.work / "profiles" / "prod" / "profile.toml").unlink()
    (workshop.work / "profiles" / "prod" / "profile.toml").symlink_to("/dev/zero")
    assert "it is a device" in refused(lock(workshop))[1]


@pytest.mark.parametrize(
    ("link", "target", "subdirectory"),
    [
        ("pyproject.toml", "/etc/passwd", None),
        ("plugin", "../../elsewhere", "plugin"),
        ("plugin", "{root}/elsewhere", "plugin"),
        ("src/alpha/data", "/etc", None),
        ("src/alpha/data", "../../../../x", None),
    ],
)
def test_a_link_that_leaves_the_repository(
    workshop: Workshop, link: str, target: str, subdirectory: str | None
) -> None:
    """A link out of the checkout, as metadata, as the package's folder or in its code, is named with where it leads."""
    workshop.plugin("alpha")
    workshop.package(workshop.root / "elsewhere", name="alpha")
    place = workshop.remotes / "alpha.git" / link
    place.unlink(missing_ok=True)
    target = target.format(root=workshop.root)
    place.symlink_to(target)
    retagged(workshop, "v0.2.0")
    source = {"git": "https://git.example.org/alpha.git", "tag": "v0.2.0"}
    workshop.entry("alpha", source=source | ({"subdirectory": subdirectory} if subdirectory else {}))
    code, message = refused(lock(workshop))
    assert code == "metadata-unreadable"
    assert message == f"{link} is a symbolic link that leaves the repository, to {target!r}"


def test_a_checkout_that_leaves_the_workspace(workshop: Workshop) -> None:
    """In dev, too: neither a package's folder nor its metadata may be a link out of the workspace; one inside may be."""
    workshop.package(workshop.root / "elsewhere", name="alpha")
    workshop.package(workshop.work / "real", name="alpha")
    folder = workshop.work / "packages" / "alpha"
    folder.parent.mkdir()
    workshop.entry("alpha", source={"path": "packages/alpha"})
    dev = ("--profile", "dev", "--format", "json")
    folder.symlink_to(workshop.root / "elsewhere")
    for command in ("lock", "check"):
        ran = workshop.within(command, *dev)
        assert "source-not-allowed" in ran.codes
        assert f"packages/alpha leads out of the workspace, to {workshop.root / 'elsewhere'}" in ran.out
    folder.unlink()
    folder.symlink_to("../real")
    assert workshop.within("lock", *dev).status == 0
    (workshop.work / "real" / "pyproject.toml").unlink()
    (workshop.work / "real" / "pyproject.toml").symlink_to(workshop.root / "elsewhere" / "pyproject.toml")
    ran = workshop.within("build", *dev)
    assert (ran.status, "source-not-allowed" in ran.codes) == (1, True)


def test_a_link_inside_of_the_repository_is_followed(workshop: Workshop) -> None:
    """A folder's other name, and a link between files, are no trick."""
    workshop.release("alpha", "v0.0.1", subdirectory="packages/alpha", version="0.2.0")
    repository = workshop.remotes / "alpha.git"
    (repository / "plugin").symlink_to("packages/alpha")
    (repository / "packages/alpha/README").symlink_to("../../README")
    (repository / "README").write_text("alpha\n")
    retagged(workshop, "v0.2.0")
    source = {"git": "https://git.example.org/alpha.git", "tag": "v0.2.0", "subdirectory": "plugin"}
    workshop.entry("alpha", source=source)
    ran = lock(workshop)
    assert ran.status == 0, ran.out
    assert workshop.within("check", "--format", "json").codes == []


def test_entries_that_need_one_another_in_a_circle(workshop: Workshop) -> None:
    """The circle is told, from an entry back to it; that a package names itself for an extra's sake is none."""
    workshop.plugin("alpha", dependencies=("lib", "alpha[fast]"))
    workshop.release("lib", "v0.1.0", dependencies=("deep",))
    workshop.entry("lib", kind="library")
    workshop.release("deep", "v0.1.0", dependencies=("lib",))
    workshop.entry("deep", kind="library")
    code, message = refused(lock(workshop))
    assert code == "sibling-cyclic"
    assert "lib → deep → lib" in message
    workshop.release("deep", "v0.2.0", version="0.2.0")
    workshop.entry("deep", kind="library", tag="v0.2.0")
    assert lock(workshop).status == 0
    assert workshop.within("check", "--format", "json").codes == []


def test_one_distribution_under_two_names(workshop: Workshop) -> None:
    """Foo_Bar and foo-bar are one distribution (PEP 503), and so one entry too many."""
    for name in ("Foo_Bar", "foo-bar"):
        workshop.entry(name)
    code, message = refused(lock(workshop))
    assert code == "config-invalid"
    assert "stands in profiles/registry/Foo_Bar.yaml:1:2 already" in message


KEYS = [
    str(field.alias or name) for form in (EntryDocument, SourceDocument) for name, field in form.model_fields.items()
]
TAGS = ["", "!!str ", "!!int ", "!!float ", "!!bool ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "!!pairs "]
TAGS += ["!!null ", "!!map ", "!!seq ", "!!merge ", "!!value ", "!!python/name:os.system ", "!mine ", "&a ", "*a "]
BITS = ["{", "}", "[", "]", ": ", ", ", "- ", "\n", "\n  ", "? ", "|\n ", "'", '"', "<<: ", "#", "---\n", "%YAML 1.1\n"]
WORD = st.sampled_from(
    [*KEYS, "alpha", "v1", "==1", "https://a.example/b", "0o9", "1e999", ".nan", "~", "=", "2026-13-01"]
)
YAML_LIKE = st.lists(st.sampled_from([*TAGS, *BITS]) | WORD | st.text(max_size=3), max_size=25).map("".join)
LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.binary(max_size=4)
    | WORD
    | st.text(max_size=6)
)
DATA = st.dictionaries(
    st.sampled_from(KEYS),
    st.recursive(
        LEAF,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD | LEAF, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=8,
).map(lambda data: yaml.dump(data, allow_unicode=True))


@settings(max_examples=300, deadline=None)
@given(YAML_LIKE | DATA | st.binary(max_size=40).map(lambda data: data.decode("latin-1")))
@example("name: !!binary '\xff'")
@example("source: {git: https://[, tag: v1}\nname: alpha")
@example("!!set {name, stage}")
@example("name: &a [*a]")
@example("<<: {name: alpha}")
@example("? {a: b}\n: c")
def test_no_yaml_brings_another_error_than_ours(text: str) -> None:
    """Whatever stands in an entry's file, reading it gives a registry, or problems that all name that file."""
    found: ConfigError | None = None
    try:
        parse([(parse_yaml(text, "profiles/registry/alpha.yaml"), None)])
    except ConfigError as error:
        found = error
    for problem in found.problems if found else ():
        assert str(problem.where).startswith("profiles/registry/alpha.yaml")
        assert problem.hint
