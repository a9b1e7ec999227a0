"""Digests of a checkpoint's weight files: what an audit was of."""

import os
from pathlib import Path
from typing import Any

from memorization.results.folder import digest_of

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


def weight_digests(model: Any) -> dict[str, str] | None:
    """SHA-256 of each weight file, by its name, of a model that is or was opened from a folder; None of any other."""
    record = getattr(model, "record", None)  # of an OpenModel
    if isinstance(record, dict):
        model = record.get("name")
    if not isinstance(model, (str, os.PathLike)) or not Path(model).is_dir():
        return None
    found = {}
    for path in sorted(Path(model).iterdir()):
        if path.suffix in _WEIGHTS and path.is_file():
            with path.open("rb") as file:
                found[path.name] = digest_of(file)
    return found or None
