"""Why a model or tokenizer could not be loaded, and what to do about it."""

import difflib
import os
from pathlib import Path

_SOME = 3  # names that a message suggests


def first_line(error: object) -> str:
    """The first line of an error that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def load_failure(name: str, reason: str) -> str:
    """The message for a model or tokenizer `name` that could not be loaded for this reason."""
    line = first_line(reason)
    if "trust_remote_code" in reason:
        return (
            f"{name} brings its own Python code, which is not run unless you pass trust_remote_code=True after "
            "reading it."
        )
    if "Weights only load failed" in reason or "failed reading zip archive" in reason:
        return (
            f"{name} could not be loaded: its pickled weights are damaged, or hold other objects than tensors. "
            "Download them again, or save the model with save_pretrained()."
        )
    here = os.path.exists(name)
    if not here and "safetensors" in reason:
        return (
            f"{name} has no safetensors weights. Pickled weights can run code when they are loaded, so they are "
            f"refused; if you trust their source pass allow_pickle=True. ({line})"
        )
    if not here:
        return (
            f"{name!r} is neither a folder here nor a model that the hub delivered: check the spelling and the "
            f"network, or download it elsewhere and pass the folder.{did_you_mean(name)} ({line})"
        )
    return f"{name} could not be loaded: {line.rstrip('.')}."


def is_a_path(name: str) -> bool:
    """Whether a name can only be a folder: hub ids have one slash at most, and begin with a letter or a digit."""
    if name.startswith((".", "~")) or os.path.isabs(name) or "\\" in name or name.count("/") > 1 or name.endswith("/"):
        return True
    parent, slash, last = name.rpartition("/")
    return bool(slash) and bool(_near(Path(parent), last))


def no_folder(name: str) -> str:
    """The message for a path that names nothing."""
    parent = Path(name).parent
    missing = "" if parent.is_dir() else f" Nor is there a folder {parent}."
    return f"there is no folder {name}.{missing}{did_you_mean(name)}"


def did_you_mean(name: str) -> str:
    """A sentence with the folders whose names are near; nothing where there are none."""
    path = Path(name)
    near = _near(path.parent, path.name)
    return f" Did you mean {' or '.join(str(path.parent / other) for other in near)}?" if near else ""


def _near(parent: Path, name: str) -> list[str]:
    try:
        names = [entry.name for entry in os.scandir(parent) if entry.is_dir()]
    except OSError:
        return []
    return difflib.get_close_matches(name, names, n=_SOME, cutoff=0.75)
