"""Fixtures that all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from workshop import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """An empty workspace with a place for remotes."""
    return Workshop(tmp_path)
