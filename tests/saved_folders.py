"""Saved folders changed on purpose; imports nothing from the library."""

import json
from pathlib import Path


def as_saved_by_0_1_0(folder: Path) -> None:
    """Without the digests, which that version did not write: its damaged tables are found by what they hold."""
    for path in folder.rglob("settings.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("digests", None) is not None:
            path.write_text(json.dumps(content | {"format": 1}), encoding="utf-8")
