"""JSON Schemas of the files that people write, for editors."""

from __future__ import annotations

import json


def texts() -> dict[str, str]:
    """Each schema's file name and text."""
    from envbuilder.config import ProfileDocument, SettingsDocument
    from envbuilder.documents import Document
    from envbuilder.registry import EntryDocument
    from pipeline.config import RunFile

    schemas: dict[str, type[Document]] = {
        "entry": EntryDocument,
        "profile": ProfileDocument,
        "run": RunFile,
        "settings": SettingsDocument,
    }
    documents = {name: document.model_json_schema() for name, document in schemas.items()}
    # An overlay sets any of an entry's keys, and needs none.
    documents["overlay"] = {key: value for key, value in documents["entry"].items() if key != "required"}
    return {
        f"{name}.schema.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for name, document in documents.items()
    }
