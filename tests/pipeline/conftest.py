from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from pipeline_bench import Bench

if TYPE_CHECKING:
    from pathlib import Path

# A busy machine is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """An empty workbench on a machine without GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path)
