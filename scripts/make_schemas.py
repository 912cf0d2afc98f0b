"""Write the JSON Schemas of the files that people write, for editors, to docs/schemas/.

Usage: uv run python scripts/make_schemas.py
"""

from __future__ import annotations

from pathlib import Path

from envbuilder.cli.schemas import texts
from envbuilder.fs import write_atomically

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        write_atomically(FOLDER / name, text)


if __name__ == "__main__":
    main()
