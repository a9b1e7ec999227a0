"""Checkpoints that are measured already: each a saved `Memorization` in checkpoints/NAME, found again by its files."""

import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization.errors import InputError, ResultError
from memorization.results import Saved, plain
from memorization.results.kinds import SETTINGS
from memorization.tracking.checkpoints import Checkpoint
from memorization.unintended import Memorization

__all__ = ["FOLDER", "Kept"]

FOLDER = "checkpoints"
_NOTE = "track.json"
_KIND = "Trajectory"


@dataclass(frozen=True, slots=True)
class _Note:
    """What stands beside a kept measurement."""

    checkpoint: Checkpoint
    files: dict[str, str] | None
    question: dict[str, Any]
    warnings: list[tuple[str, str]]


class Kept:
    """Measurements of one question in an output folder; without a folder, nothing is kept."""

    def __init__(self, output: str | os.PathLike[str] | None, question: dict[str, Any], overwrite: bool) -> None:
        self.folder = None if output is None else Path(output)
        self.question = plain(question)
        self._notes: dict[str, _Note] = {}
        if self.folder is None:
            return
        _check_kind(self.folder, overwrite)
        for path in sorted((self.folder / FOLDER).glob(f"*/{_NOTE}")):
            note = _read(path)
            if note is None:
                continue
            differs = [key for key, value in self.question.items() if note.question.get(key) != value]
            if not differs:
                self._notes[path.parent.name] = note
            elif overwrite:
                shutil.rmtree(path.parent)
            else:
                raise InputError(
                    f"{self.folder} holds a trajectory that was measured with other {' and '.join(differs)}, so its "
                    "checkpoints and these would not compare. Name another output, or pass overwrite=True to measure "
                    "all again."
                )

    def find(
        self, checkpoint: Checkpoint, files: dict[str, str] | None
    ) -> tuple[Memorization, list[tuple[str, str]]] | None:
        """The measurement of a checkpoint and its warnings, where it is there and the files are the same.

        What is not in a folder, such as a name on the hub, is measured anew: nothing says whether it has changed.
        """
        note = self._notes.get(checkpoint.folder_name)
        if note is None or files is None or note.files != files:
            return None
        return self._load(checkpoint.folder_name, note)

    def gone(self, asked: list[Checkpoint]) -> list[tuple[Checkpoint, Memorization, list[tuple[str, str]]]]:
        """What was measured of checkpoints whose folders are not there any more, and which is not asked for by name."""
        names = {one.folder_name for one in asked}
        found = []
        for name, note in self._notes.items():
            if name not in names and note.checkpoint.is_gone:
                loaded = self._load(name, note)
                if loaded is not None:
                    found.append((note.checkpoint, *loaded))
        return found

    def keep(
        self,
        checkpoint: Checkpoint,
        files: dict[str, str] | None,
        found: Memorization,
        said: list[tuple[str, str]],
    ) -> None:
        """Save a measurement, in place of an earlier one of the checkpoint."""
        if self.folder is None:
            return
        place = self.folder / FOLDER / checkpoint.folder_name
        (place / _NOTE).unlink(missing_ok=True)  # killed from here on, it is measured again
        found.save(place, overwrite=True)
        note = {
            "name": checkpoint.name,
            "source": checkpoint.source,
            "place": checkpoint.place,
            "step": checkpoint.step,
            "files": files,
            "question": self.question,
            "warnings": said,
        }
        waiting = place / f".{_NOTE}-{uuid.uuid4().hex}"
        waiting.write_text(json.dumps(plain(note), indent=1) + "\n", encoding="utf-8")
        waiting.replace(place / _NOTE)

    def _load(self, name: str, note: _Note) -> tuple[Memorization, list[tuple[str, str]]] | None:
        assert self.folder is not None
        try:
            return Memorization.load(self.folder / FOLDER / name), note.warnings
        except ResultError:  # damaged: it is measured again
            return None


def _check_kind(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds a result of another kind."""
    if overwrite or not (folder / SETTINGS).is_file():
        return
    try:
        kind = Saved.open(folder).kind
    except ResultError:
        return  # cut short by a kill: saving replaces it
    if kind != _KIND:
        raise InputError(f"{folder} holds a {kind}: name another output, or pass overwrite=True.")


def _read(path: Path) -> _Note | None:
    try:
        content: Any = json.loads(path.read_bytes())
        step = float("nan") if content["step"] is None else float(content["step"])
        place = content["place"]
        checkpoint = Checkpoint(str(content["name"]), str(content["source"]), step, place and str(place))
        pairs = [(str(kind), str(text)) for kind, text in content["warnings"]]
        return _Note(checkpoint, content["files"], dict(content["question"]), pairs)
    except (OSError, ValueError, KeyError, TypeError):
        return None
