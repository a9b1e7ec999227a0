"""A folder that holds a model: what is in it, what is damaged, and what is missing. Nothing is loaded."""

import json
import os
import re
from pathlib import Path
from typing import Any

from memorization.errors import ModelError
from memorization.measure.failures import is_a_path, no_folder

ADAPTER = "adapter_config.json"
_POINTER = b"version https://git-lfs"
_SOME = 5  # checkpoints that a message lists
_HOLD = (
    "Pickled ones can run code when they are loaded, so they are refused; if you trust their source, pass "
    "allow_pickle=True."
)


def source_of(model: str | os.PathLike[str]) -> str:
    """The name or folder of a model, a leading ~ resolved.

    Raises:
        ModelError: it names a folder that is not there; what may be a name on the hub is left to the hub.
    """
    name = os.path.expanduser(str(model))
    if not os.path.exists(name) and (is_a_path(str(model)) or not isinstance(model, str)):
        raise ModelError(no_folder(name))
    return name


def check_folder(folder: Path) -> None:
    """Refuse what is no folder of one model, in words that say what it is.

    Raises:
        ModelError: with the checkpoints inside, where a Trainer wrote it.
    """
    if has(folder / "config.json") or has(folder / ADAPTER):
        return
    checkpoints = _checkpoints(folder)
    if checkpoints:
        more = f" and {len(checkpoints) - _SOME} older ones" if len(checkpoints) > _SOME else ""
        raise ModelError(
            f"{folder} holds no model itself, but {len(checkpoints)} of a training's checkpoints, newest first: "
            f"{', '.join(checkpoints[:_SOME])}{more}. Pass one of them, such as {folder / checkpoints[0]}."
        )
    if has(folder / "settings.json"):
        raise ModelError(
            f"{folder} is no model folder: it has no config.json, but settings.json, as a saved result has. Load "
            "that with memorization.load, and pass the CodeLengths; or pass the folder of the model."
        )
    raise ModelError(
        f"{folder} is no model folder: it has no config.json. Expected is a folder made by save_pretrained(); for the "
        "file of a torch module, build the module, load the file into it and pass the module."
    )


def _checkpoints(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    numbered = [(int(match[1]), entry.name) for entry in folder.iterdir() if (match := _NUMBERED.match(entry.name))]
    return [name for _, name in sorted(numbered, reverse=True)]


_NUMBERED = re.compile(r"checkpoint-(\d+)$")


def check_weights(folder: Path, *, allow_pickle: bool) -> None:
    """Refuse a model folder whose weights are not all there, before anything reads them.

    Raises:
        ModelError: naming the file: missing, empty, cut off, or a pointer of git-lfs.
    """
    read_json(folder / "config.json")
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    found = sorted(folder.glob("*.safetensors"))
    pickled = sorted(folder.glob("*.bin"))
    if has(whole):
        check_safetensors(whole)
    elif has(index):
        shards = _shards(index)
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            raise ModelError(
                f"{folder} lacks {len(missing)} of the {len(shards)} files that {index.name} names, the first is "
                f"{missing[0]}: an interrupted download? Download the model again, or copy the missing files."
            )
        for shard in shards:
            check_safetensors(folder / shard)
    elif any(re.match(r"model-\d+-of-\d+\.safetensors$", file.name) for file in found):
        raise ModelError(
            f"{folder} holds {len(found)} files of a sharded model, and not {index.name}, which says what is in them. "
            "Download the model again, or copy the missing file."
        )
    elif pickled and not allow_pickle:
        raise ModelError(f"{folder} holds no .safetensors weights. {_HOLD}")
    elif found and not pickled:
        raise ModelError(
            f"{folder} holds {found[0].name}, and no model.safetensors, which is the name that is looked for. Rename "
            "it, if these are the model's weights."
        )
    elif not pickled:
        raise ModelError(f"{folder} holds no .safetensors weights. Expected is a folder made by save_pretrained().")
    for file in pickled if allow_pickle and not found else []:
        check_start(file)


def _shards(index: Path) -> list[str]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(shard, str) for shard in places.values()):
        raise ModelError(f"{index} is damaged: its weight_map does not say which file each weight is in. {_AGAIN}")
    return sorted(set(places.values()))


def has(file: Path) -> bool:
    """Whether a folder has an entry of this name, though it may be a link to nothing: reading it then says so."""
    return os.path.lexists(file)


def check_safetensors(file: Path) -> None:
    """Refuse a file that is not all there: its header says how long it has to be."""
    start = check_start(file)
    size, n_header = file.stat().st_size, int.from_bytes(start[:8], "little")
    try:
        with file.open("rb") as content:
            content.seek(8)
            header = json.loads(content.read(n_header)) if 8 + n_header <= size else {}
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} is damaged: it does not begin as a safetensors file does. {_AGAIN}") from error
    expected = 8 + n_header + max(ends, default=0)
    if size < expected:
        raise ModelError(f"{file} is cut off: it has {size:,} bytes of at least {expected:,}. {_AGAIN}")


_AGAIN = "Download or save it again."


def check_start(file: Path) -> bytes:
    """How a file begins, refused where it is empty, a link to nothing, a pointer of git-lfs, or cannot be read."""
    if not file.is_file():
        what = f"a link to {os.readlink(file)}, which is not there" if file.is_symlink() else "no file"
        raise ModelError(f"{file} is {what}. {_AGAIN}")
    try:
        with file.open("rb") as content:
            start = content.read(len(_POINTER))
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}.") from error
    if not start:
        raise ModelError(f"{file} is empty. {_AGAIN}")
    if start == _POINTER:
        raise ModelError(
            f"{file} is a pointer of git-lfs, not the file itself. Run git lfs pull in its folder, or download it "
            "from the hub."
        )
    return start


def read_json(file: Path) -> dict[str, Any]:
    """What a JSON file of a model folder holds.

    Raises:
        ModelError: it holds no JSON object.
    """
    check_start(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is damaged: it is not JSON ({error}). {_AGAIN}") from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{file} is damaged: it holds a {type(content).__name__} where an object is expected. {_AGAIN}"
        )
    return content


def base_of(folder: Path) -> str:
    """The base model that an adapter's folder names.

    Raises:
        ModelError: it names none.
    """
    base = read_json(folder / ADAPTER).get("base_model_name_or_path")
    if not base:
        raise ModelError(
            f"{folder} holds an adapter (PEFT), and its {ADAPTER} names no base model. Write the base's place into it."
        )
    return str(base)
