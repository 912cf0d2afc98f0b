"""`sbom`: bills that CycloneDX's schema accepts, with digests, commits and licences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from local_index import Index, make_wheel
from workshop import PYTHON, Workshop

from envbuilder.lock.sbom import licences


def message(**headers: str | list[str]) -> Message:
    """Core metadata with some headers; underscores are dashes."""
    made = Message()
    for name, values in headers.items():
        for value in [values] if isinstance(values, str) else values:
            made[name.replace("_", "-")] = value
    return made


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"License_Expression": "mit or apache-2.0", "License": "x"}, [{"expression": "MIT OR Apache-2.0"}]),
        ({"License": "BSD-3-Clause"}, [{"expression": "BSD-3-Clause"}]),
        (
            {"License": "see file", "Classifier": ["License :: OSI Approved :: MIT License", "Topic :: X"]},
            [{"license": {"name": "MIT License"}}],
        ),
        ({"License": "House rules"}, [{"license": {"name": "House rules"}}]),
        ({"License": "Copyright (c)\nall of it\n"}, []),
        ({"License": "UNKNOWN"}, []),
        ({"Classifier": "License :: OSI Approved"}, []),
        ({}, []),
    ],
)
def test_licences_are_read_where_metadata_names_them(headers: dict[str, str], expected: list[object]) -> None:
    """An expression comes first, then classifiers, then a short name; whole texts and nothing are unknown."""
    assert licences(message(**headers)) == expected


@pytest.fixture
def shop(workshop: Workshop, tmp_path: Path) -> Iterator[Workshop]:
    """Two plugins from git that share a wheel with a licence; one of them has a checkout of its own, too."""
    make_wheel(tmp_path / "wheels", "thing", headers=("License: MIT",))
    make_wheel(tmp_path / "wheels", "winter", requires=("thing",))
    with Index(tmp_path / "wheels") as index:
        workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        workshop.plugin("alpha", dependencies=("thing", "winter; sys_platform == 'win32'"))
        workshop.plugin("beta", dependencies=("thing",))
        assert workshop.within("lock", "-q").status == 0
        yield workshop


def bill_of(text: str) -> dict[str, dict[str, object]]:
    """The components of a bill that the schema accepts, by name."""
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    bill = json.loads(text)
    assert not {"serialNumber", "timestamp"} & {*bill, *bill["metadata"]}
    return {each["name"]: each for each in bill["components"]}


def test_bills_are_valid_complete_and_the_same_each_time(shop: Workshop, tmp_path: Path) -> None:
    """A file per plugin and a merged one; versions, digests, commits; licences once the environment is built."""
    folder = tmp_path / "bills"
    ran = shop.within("sbom", "--output", str(folder), "--merged")
    assert (ran.status, "licence-unknown" in ran.err) == (0, True)
    first = bill_of((folder / "alpha.cdx.json").read_text())
    assert first["thing"]["properties"] == [{"name": "envbuilder:licence", "value": "unknown"}]
    assert shop.within("build", "-q").status == 0
    assert shop.within("sbom", "--output", str(folder), "--merged").status == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(before) == ["alpha.cdx.json", "beta.cdx.json", "merged.cdx.json"]
    built = bill_of(before["alpha.cdx.json"].decode())
    assert built["thing"]["licenses"] == [{"expression": "MIT"}]
    commit = shop.git("-C", str(shop.remotes / "alpha.git"), "rev-parse", "HEAD")
    url = "https://git.example.org/alpha.git"
    assert built["alpha"]["pedigree"] == {"commits": [{"uid": commit, "url": url}]}
    assert "sha256" in str(built["thing"]["externalReferences"]).lower().replace("-", "")
    whole = bill_of(before["merged.cdx.json"].decode())
    assert sorted(whole) == ["alpha", "beta", "envbuilder-env-alpha", "envbuilder-env-beta", "thing", "winter"]
    assert shop.within("sbom", "--output", str(folder), "--merged").status == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_bill_goes_to_stdout_and_into_the_envelope(shop: Workshop) -> None:
    """One plugin's bill, or the merged one; a stamp is there only where it was asked for."""
    assert set(bill_of(shop.within("sbom", "beta").out)) == {"beta", "thing"}
    assert "envbuilder-env-alpha" in bill_of(shop.within("sbom").out)
    result = shop.within("sbom", "beta", "--stamped", "--format", "json").json["result"]
    assert isinstance(result, dict)
    assert result["bill"]["serialNumber"].startswith("urn:uuid:")
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(json.dumps(result["bill"])) is None
