"""A slice of the campaign of `scripts/chaos_run.py`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "chaos_run.py"


def _script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("chaos_run", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["chaos_run"] = module
    spec.loader.exec_module(module)
    return module


def _campaign(folder: Path, rounds: int, seed: int, flood_mib: int) -> None:
    chaos = _script()
    campaign = chaos.Campaign(folder, seed, items=40, flood_mib=flood_mib)
    counts = campaign.run(rounds, print)
    assert counts["rounds"] == rounds
    assert {name: counts[name] for name in chaos.WRONG} == dict.fromkeys(chaos.WRONG, 0)
    assert counts["answers"] == rounds * chaos.TASKS * 40
    assert any(name.startswith("misbehaved") for name in counts)


def test_runs_that_go_wrong_are_finished_and_leave_nothing(tmp_path: Path) -> None:
    """Plugins misbehave, the runner is killed: nothing stays alive, resuming finishes, the figures are the same."""
    _campaign(tmp_path, 2, 1, flood_mib=100)


@pytest.mark.slow
def test_runs_that_go_wrong_are_finished_and_leave_nothing_at_length(tmp_path: Path) -> None:
    """The same, forty times."""
    _campaign(tmp_path, 40, 3, flood_mib=1024)
