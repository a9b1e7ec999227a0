"""The checkpoints of a training run: which there are, in which order, and whether they are still the same files."""

import difflib
import glob
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from memorization.errors import InputError
from memorization.measure.weights import weight_digests
from memorization.results import counted
from memorization.results.folder import digest_of

__all__ = ["Checkpoint", "RunLike", "files_of", "find_checkpoints"]

# A Trainer's output folder, a glob, or checkpoints one by one.
RunLike: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_OF_TRAINER = re.compile(r"checkpoint-(\d+)")
# A number is a step where a word says so: that of "gpt2" or "llama-7" is none.
_STEP = re.compile(r"(?:checkpoint|ckpt|step|iter|iteration)s?[-_=]?(\d+)$", re.IGNORECASE)
_STATE = "trainer_state.json"
_MODEL = ("config.json", "adapter_config.json")
_SHOWN = 8  # names in a message
# What a checkpoint computes depends on these beside its weights.
_ALSO = (*_MODEL, "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One model of a training run.

    Attributes:
        name: of its folder, or its name on the hub.
        source: the folder as it was named, or the name on the hub.
        step: of the training; NaN where neither trainer_state.json nor the name says it.
        place: the folder, from the root; None of a name on the hub.
    """

    name: str
    source: str
    step: float
    place: str | None = None

    @property
    def folder_name(self) -> str:
        """A name that a folder can have, another one for each checkpoint of a run."""
        return re.sub(r"[^\w.=-]", "--", self.name)

    @property
    def is_gone(self) -> bool:
        """Whether its folder was there and is not any more; False of a name on the hub."""
        return self.place is not None and not os.path.isdir(self.place)


def find_checkpoints(run: RunLike) -> list[Checkpoint]:
    """The checkpoints of a run, by step where all steps are known, else in the order in which they were named.

    Args:
        run: the output folder of a transformers Trainer, with folders checkpoint-N in it; a glob of folders, such as
            "runs/*/step_*"; or a list of folders and names on the hub.

    Raises:
        InputError: there is none, or two have one name.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for step in (100, 20):
        ...         (Path(folder) / f"checkpoint-{step}").mkdir()
        ...     [checkpoint.name for checkpoint in find_checkpoints(folder)]
        ['checkpoint-20', 'checkpoint-100']
    """
    if isinstance(run, (str, os.PathLike)):
        found = _in_order(_of_one(str(run)))
    else:
        named: list[Any] = list(run)
        wrong = next((one for one in named if not isinstance(one, (str, os.PathLike)) or not str(one)), None)
        if wrong is not None or not named:
            came = "an empty list" if not named else repr(wrong) if isinstance(wrong, str) else type(wrong).__name__
            raise InputError(
                f"run must name checkpoints: a Trainer's output folder, a glob, or a list of folders and hub ids; it "
                f"held {came}." + ("" if not named else " Models in memory are followed by MemorizationCallback.")
            )
        found = _in_order([_named(str(one)) for one in named])
    by_name: dict[str, Checkpoint] = {}
    for one in found:
        other = by_name.setdefault(one.folder_name, one)
        if other is not one:
            raise InputError(
                f"two checkpoints are called {one.name} ({other.source} and {one.source}): one trajectory is of one "
                "run. Name one of them, or track each run into an output folder of its own."
            )
    return found


def files_of(source: Any) -> dict[str, str] | None:
    """SHA-256 of what a checkpoint computes with, by file name: weights, settings, tokenizer. None of no folder."""
    digests = weight_digests(source)
    if digests is None:
        return None
    for name in _ALSO:
        path = Path(source) / name
        if path.is_file():
            with path.open("rb") as file:
                digests[name] = digest_of(file)
    return digests


def _in_order(found: list[Checkpoint]) -> list[Checkpoint]:
    if any(math.isnan(one.step) for one in found):
        return found
    return sorted(found, key=lambda one: one.step)


def _named(source: str) -> Checkpoint:
    path = Path(os.path.expanduser(source))
    if not path.is_dir():
        if path.is_absolute() or source.startswith((".", "~")) or path.exists():
            raise InputError(f"checkpoint {source} is not there, or is no folder{_near(path)}.")
        match = _STEP.search(source)
        return Checkpoint(source, source, float(match[1]) if match else math.nan)
    inside = _checkpoints_in(path)
    if inside and not _is_model(path):
        raise InputError(
            f"{source} is the folder of a run ({', '.join(one.name for one in inside[:_SHOWN])}), not a checkpoint: "
            "pass it by itself, as run, or name its checkpoints."
        )
    place = path.resolve()
    return Checkpoint(place.name, str(path), _step_of(place), str(place))


def _step_of(folder: Path) -> float:
    """The step by the Trainer's own record, else by the name."""
    try:
        step = json.loads((folder / _STATE).read_bytes())["global_step"]
        if isinstance(step, int):
            return float(step)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    match = _STEP.search(folder.name)
    return float(match[1]) if match else math.nan


def _of_one(run: str) -> list[Checkpoint]:
    path = Path(os.path.expanduser(run))
    if path.is_dir():
        found = _checkpoints_in(path)
        if not found:
            raise InputError(f"{run} holds no checkpoint: looked for folders checkpoint-N in it; {_inside(path)}")
        return [_named(str(one)) for one in found]
    if glob.has_magic(run):
        matches = [Path(one) for one in glob.glob(os.path.expanduser(run), recursive=True)]
        folders = sorted((one for one in matches if one.is_dir()), key=lambda one: _natural(str(one)))
        if not folders:
            which = f"matches {counted(len(matches), 'file')} and no folder" if matches else "matches nothing"
            raise InputError(f"run={run!r} {which}: expected is a glob of folders, such as 'finetune/checkpoint-*'.")
        return [_named(str(one)) for one in folders]
    what = "is a file" if path.exists() else "is not there"
    raise InputError(
        f"run={run!r} {what}{_near(path)}: expected is the output folder of a Trainer, or a glob of folders. A single "
        "checkpoint is passed in a list (on the command line, as --target)."
    )


def _checkpoints_in(folder: Path) -> list[Path]:
    found = [one for one in folder.iterdir() if _OF_TRAINER.fullmatch(one.name) and one.is_dir()]
    return sorted(found, key=lambda one: _natural(one.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """By which checkpoint-20 comes before checkpoint-100."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _MODEL)


def _inside(folder: Path) -> str:
    if _is_model(folder):
        return (
            "it is itself a model. Were no checkpoints saved (save_strategy), or are they elsewhere? To measure this "
            "one model, pass it in a list (on the command line, as --target), or use unintended_memorization."
        )
    names = sorted(one.name for one in folder.iterdir())
    models = [name for name in names if (folder / name).is_dir() and _is_model(folder / name)]
    if models:
        return f"it holds the models {_some(models)}. Name these by a glob: run='{folder}/*'."
    return f"there is {_some(names)}." if names else "it is empty."


def _near(path: Path) -> str:
    parent = path.parent
    names = [one.name for one in parent.iterdir() if one.is_dir()] if parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names) or sorted(names)
    return f" (in {parent} there is {_some(near)})" if near else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
