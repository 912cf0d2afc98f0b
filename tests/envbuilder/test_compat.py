"""Versions, tags and requirements: the rules of PEP 440 and PEP 508 as this project applies them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from envbuilder.compat import accepts, python_possible, requested, requirement_on, tag_fits, tag_version


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("v0.0.1-dev0", "0.0.1.dev0"),
        ("0.1.0", "0.1"),
        ("v1.0", "1.0.0"),
        ("V1.0", "1.0"),
        ("v1.0.0-rc.1", "1.0rc1"),
        ("1.0-1", "1.0.post1"),
        ("v1.0.post2", "1.0.post2"),
        ("v1!2.0", "1!2.0"),
        ("v1.0+cu121", "1.0+cu121"),
        ("v2026.01.05", "2026.1.5"),
        ("vlm-ocr-v1.0", "1.0"),
        ("vlm_ocr-1.0", "1.0"),
        ("vlm.ocr/v1.0", "1.0"),
        ("VLM-OCR@1.0", "1.0"),
        ("vlm-ocr==1.0", "1.0"),
    ],
)
def test_tag_fits_the_version_that_it_names(tag: str, version: str) -> None:
    """Spellings of one version are one version; v and the package's name may stand before it."""
    assert tag_fits(tag, version, "vlm-ocr")


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("v0.1.0", "0.1.1"),
        ("v1.0", "1.0+cu121"),
        ("v1.0", "1.0rc1"),
        ("v1.0", "1!1.0"),
        ("stable", "1.0"),
        ("vv1.0", "1.0"),
        ("other-1.0", "1.0"),
        ("release-1.0", "1.0"),
        ("v1.0", "not a version"),
        ("v", "0"),
        ("vlm-ocr-", "0"),
    ],
)
def test_tag_does_not_fit_another_version(tag: str, version: str) -> None:
    """Another release, another local label, another package's name, or no version at all do not fit."""
    assert not tag_fits(tag, version, "vlm-ocr")


VERSIONS = st.builds(
    "{}{}{}{}{}{}".format,
    st.sampled_from(["", "1!"]),
    st.lists(st.integers(0, 99), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts))),
    st.sampled_from(["", "a1", "b2", "rc3"]),
    st.sampled_from(["", ".post1"]),
    st.sampled_from(["", ".dev4"]),
    st.sampled_from(["", "+local.7"]),
)
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,4}){0,2}", fullmatch=True)


@given(VERSIONS, NAMES, st.sampled_from(["", "v", "V"]), st.sampled_from(["", "-", "/", "@", "=="]))
def test_tag_version_round_trips(version: str, name: str, letter: str, mark: str) -> None:
    """Whatever PEP 440 calls a version comes back from a tag made of it."""
    prefix = f"{name}{mark}" if mark else ""
    assert tag_version(f"{prefix}{letter}{version}", name) == Version(version)
    assert tag_fits(f"{prefix}{letter}{version}", str(Version(version)), name)


@given(st.text(max_size=20), NAMES)
def test_tag_version_never_fails(tag: str, name: str) -> None:
    """A tag is free text; what is no version is None."""
    found = tag_version(tag, name)
    assert found is None or isinstance(found, Version)


@pytest.mark.parametrize(
    ("specifier", "version", "fits"),
    [
        (">=0.2,<0.3", "0.2.0", True),
        (">=0.2,<0.3", "0.3.0", False),
        (">=0.2", "0.3.0rc1", True),
        (">=0.2,<0.3", "0.3.0rc1", False),
        (">=0.3", "0.3.0rc1", False),
        ("<0.3", "0.3.0.dev0", False),
        ("<=0.3", "0.3.0.dev0", True),
        ("==0.2.*", "0.2.0.dev1", True),
        ("~=0.2.0", "0.2.9", True),
        ("~=0.2.0", "0.3.0", False),
        (">0.2", "0.2.post1", False),
        ("==0.2.0", "0.2.0+local", True),
        ("==0.2.0+local", "0.2.0", False),
        ("!=0.2.1", "0.2.1", False),
        ("===0.2", "0.2.0", False),
        ("", "9!9", True),
    ],
)
def test_accepts_judges_what_is_in_hand(specifier: str, version: str, fits: object) -> None:
    """A pre-release that is there counts by its order, as PEP 440 orders it."""
    assert accepts(specifier, version) is fits


@pytest.mark.parametrize(
    ("specifiers", "possible"),
    [
        (["==3.11.*", ">=3.8"], True),
        (["==3.11.*", ">=3.8,<3.11"], False),
        ([">=3.9", "<3.12,!=3.10.*", ">3.9"], True),
        ([">=3.11.9", "==3.11.*", "<3.12"], True),
        (["==3.11.7", "==3.11.8"], False),
        ([">=2.7,<3"], False),
        ([">=4"], False),
        (["", ""], True),
        ([], True),
    ],
)
def test_python_possible_means_one_interpreter_for_all(specifiers: list[str], possible: object) -> None:
    """All requests together leave a release, down to its patch level, or they don't."""
    assert python_possible(specifiers) is possible


@given(st.lists(st.tuples(st.sampled_from([">=", "<", "==", "!=", "<=", ">"]), st.integers(6, 19)), max_size=4))
def test_python_possible_agrees_with_trying_out(parts: list[tuple[str, int]]) -> None:
    """For series alone, trying every series says the same."""
    texts = [f"{sign}3.{minor}{'.*' if sign in {'==', '!='} else ''}" for sign, minor in parts]
    tried = any(
        all(accepts(text, f"3.{minor}.{patch}") for text in texts) for minor in range(6, 20) for patch in (0, 1)
    )
    assert python_possible(texts) == tried


REQUIREMENTS = (
    "Vlm_Core[io]>=0.2",
    "vlm-core<0.4 ; python_version >= '3.10'",
    "vlm-core<0.3 ; python_version < '3.10'",
    "vlm-core>=0.3 ; extra == 'fast'",
    "vlm-core>=9 ; sys_platform == 'win32'",
    "numpy",
    "this is none",
)


@pytest.mark.parametrize(
    ("extras", "python", "expected"),
    [
        ((), "==3.11.*", ">=0.2,<0.4"),
        ((), "==3.9.*", ">=0.2,<0.3"),
        (("fast",), "==3.11.*", ">=0.2,<0.4,>=0.3"),
        (("slow",), "==3.11.*", ">=0.2,<0.4"),
    ],
)
def test_requirement_on_counts_what_binds(extras: tuple[str, ...], python: str, expected: str) -> None:
    """Markers of other Pythons and platforms and extras that nobody asked for do not bind."""
    assert requirement_on("vlm.core", REQUIREMENTS, extras=extras, python=python) == expected


def test_requirement_on_tells_nothing_from_anything() -> None:
    """None where a distribution is not named, empty where any version will do."""
    assert requirement_on("torch", REQUIREMENTS) is None
    assert requirement_on("numpy", REQUIREMENTS) == ""
    assert requirement_on("core", ["core ; python_version < '3'"], python="==3.11.*") is None
    assert requirement_on("core", ["core>=1 ; extra == 'Fast_er'"], extras=["fast-er"]) == ">=1"


@given(st.lists(st.text(max_size=20), max_size=5))
def test_requirements_of_any_text_are_survived(texts: list[str]) -> None:
    """Packages declare the oddest things; what is no requirement says nothing."""
    requirement_on("core", texts, python="==3.11.*")
    assert all(name for name, _ in requested(texts))


def test_requested_follows_extras_and_nothing_else() -> None:
    """A requirement behind an extra counts once the extra is asked for; the extras it asks itself come with it."""
    lines = ["a[x,Y_y]>=1", "b ; extra == 'Big-One'", "c ; extra == 'other'", "d ; sys_platform == 'win32'", "e @"]
    assert list(requested(lines)) == [("a", frozenset({"x", "y-y"})), ("d", frozenset())]
    assert [name for name, _ in requested(lines, ["big_one"])] == ["a", "b", "d"]
