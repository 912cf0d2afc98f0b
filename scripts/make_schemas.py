"""Write the JSON Schemas of the files that people write, for editors, to docs/schemas/.

Usage: uv run python scripts/make_schemas.py
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from envbuilder.config import ProfileDocument, SettingsDocument
from envbuilder.registry import EntryDocument
from pipeline.config import RunFile

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"
SCHEMAS: dict[str, type[BaseModel]] = {
    "entry": EntryDocument,
    "profile": ProfileDocument,
    "run": RunFile,
    "settings": SettingsDocument,
}


def texts() -> dict[str, str]:
    """Each schema's file name and text."""
    documents = {name: document.model_json_schema() for name, document in SCHEMAS.items()}
    # An overlay sets any of an entry's keys, and needs none.
    documents["overlay"] = {key: value for key, value in documents["entry"].items() if key != "required"}
    return {
        f"{name}.schema.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for name, document in documents.items()
    }


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
