"""A slice of the campaign of `scripts/chaos_build.py`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from local_index import Index

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "chaos_build.py"
BROKEN = ("broken after the fault", "broken after the next build", "traceback", "leftovers")


def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("chaos_build", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["chaos_build"] = module
    spec.loader.exec_module(module)
    return module


def campaign(folder: Path, rounds: int, seed: int) -> None:
    """Run rounds of which none may leave anything broken."""
    chaos = script()
    with Index(folder / "wheels") as index, chaos.small_disk(folder / "disk", "tmpfs") as disk:
        counts = chaos.Campaign(folder / "site", index, packages=30, seed=seed, disk=disk).run(rounds, print)
    assert sum(count for name, count in counts.items() if name.startswith("rounds: ")) == rounds
    assert {name: counts[name] for name in BROKEN} == dict.fromkeys(BROKEN, 0)


def test_builds_that_are_broken_leave_nothing_broken(tmp_path: Path) -> None:
    """Killed, crowded, out of space or without a store: the old or the new environment is whole, the next build works."""
    campaign(tmp_path, 6, 1)


@pytest.mark.slow
def test_builds_that_are_broken_leave_nothing_broken_at_length(tmp_path: Path) -> None:
    """The same, a hundred times."""
    campaign(tmp_path, 100, 3)
