"""Reports of tests as JUnit's XML, read and put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from envbuilder.errors import visible

if TYPE_CHECKING:
    from junitparser import JUnitXml


@dataclass(frozen=True)
class Counts:
    """How many tests there were; `bad` names those that failed or could not be run."""

    tests: int
    failures: int
    errors: int
    skipped: int
    bad: tuple[str, ...] = ()

    @property
    def passed(self) -> int:
        return self.tests - self.failures - self.errors - self.skipped

    def __str__(self) -> str:
        kinds = {"passed": self.passed, "failed": self.failures, "errors": self.errors, "skipped": self.skipped}
        return ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count) or "no tests"


def read_counts(report: Path) -> Counts | None:
    """What a report says; None where there is none, or only half of one."""
    suites = _read(report)
    if suites is None:
        return None
    cases = [case for suite in suites for case in suite]
    bad = [case for case in cases if case.is_failure or case.is_error]
    names = dict.fromkeys("::".join(filter(None, (case.classname, case.name))) for case in bad)
    return Counts(
        len(cases),
        sum(case.is_failure for case in bad),
        sum(case.is_error and not case.is_failure for case in bad),
        sum(case.is_skipped for case in cases),
        tuple(names),
    )


def write(place: Path, reports: Mapping[str, Path], failed: Mapping[str, str]) -> None:
    """Put reports in one place: one file where it ends in ``.xml``, else a folder with a file for each.

    Args:
        place: where to.
        reports: by plugin; each one's suite is given its plugin's name.
        failed: why there is no report, by plugin: a suite of one error, so that nobody misses it.
    """
    from junitparser import JUnitXml

    made = {name: _named(name, path) for name, path in reports.items()}
    made |= {name: _of_error(name, message) for name, message in failed.items() if made.get(name) is None}
    suites = {name: each for name, each in made.items() if each is not None}
    if place.suffix == ".xml":
        place.parent.mkdir(parents=True, exist_ok=True)
        _save(place, sum(suites.values(), JUnitXml("envbuilder test")))
        return
    place.mkdir(parents=True, exist_ok=True)
    for name, each in suites.items():
        _save(place / f"{name}.xml", each)


def _save(place: Path, suites: JUnitXml) -> None:
    suites.update_statistics()  # type: ignore[no-untyped-call]
    suites.write(str(place), pretty=True)


def _read(report: Path) -> JUnitXml | None:
    from xml.etree.ElementTree import ParseError

    from junitparser import JUnitXml, JUnitXmlError

    try:
        return JUnitXml.fromfile(str(report))
    except (OSError, ParseError, JUnitXmlError):
        return None


def _named(name: str, report: Path) -> JUnitXml | None:
    suites = _read(report)
    for suite in suites or ():
        suite.name = name
    return suites


def _of_error(name: str, message: str) -> JUnitXml:
    from junitparser import Error, JUnitXml, TestCase, TestSuite

    case = TestCase("environment", name)
    case.result = [Error(visible(message))]
    suite = TestSuite(name)
    suite.add_testcase(case)
    suites = JUnitXml()
    suites.add_testsuite(suite)
    return suites


def tail(log: Path, lines: int) -> Sequence[str]:
    """The last lines of a log."""
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    except OSError:
        return ()
