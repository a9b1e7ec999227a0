"""A model from a name on the hub or from a folder.

Beside `tokenizers.py` the only file below the lab that imports transformers.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from memorization.errors import InputError, MeasurementWarning, ModelError, warn
from memorization.measure.failures import first_line, load_failure
from memorization.measure.folders import (
    ADAPTER,
    base_of,
    check_folder,
    check_safetensors,
    check_weights,
    has,
    read_json,
    source_of,
)


class Loaded(NamedTuple):
    """A model, and what its files held beside it."""

    model: nn.Module
    unexpected: dict[str, Any] | None  # weights that it has no place for: their number, and the first one's name


def load_model(
    name: str,
    *,
    dtype: str | torch.dtype | None,
    revision: str | None,
    trust_remote_code: bool,
    allow_pickle: bool,
    progress: bool,
) -> Loaded:
    """The model of a hub id or folder, on the CPU; the base with its adapter where the folder holds an adapter.

    Raises:
        ModelError: it cannot be loaded, lacks weights, or would run code that was not asked for.
    """
    if isinstance(dtype, str) and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise InputError(f"dtype must be a torch dtype or its name, such as float32 or bfloat16; it is {dtype!r}.")
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code, "dtype": dtype or "auto"}
    if not allow_pickle:
        options["use_safetensors"] = True
    folder = Path(name)
    if os.path.exists(name):
        check_folder(folder)
        if not has(folder / "config.json"):
            return _load_adapter(folder, options, progress, allow_pickle)
        check_weights(folder, allow_pickle=allow_pickle)
    return _load(name, options, progress)


def _load(name: str, options: dict[str, Any], progress: bool) -> Loaded:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    if not progress:
        logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except Exception as error:
        raise ModelError(load_failure(name, str(error))) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    model: nn.Module = loaded[0]
    missing, unexpected = sorted(loaded[1]["missing_keys"]), sorted(loaded[1]["unexpected_keys"])
    if missing:  # transformers makes them up at random
        raise ModelError(
            f"{name} lacks {len(missing)} of the weights of a {type(model).__name__}, the first is {missing[0]}: it "
            "would be measured with random ones. Is it the checkpoint of a causal language model, output head "
            "included?"
        )
    mismatched = sorted(loaded[1]["mismatched_keys"])
    if mismatched:  # so it does for these, if it is not told to give up without saying which
        weight, theirs, ours = mismatched[0]
        raise ModelError(
            f"{name} holds {len(mismatched)} weights of other sizes than a {type(model).__name__} of its config.json, "
            f"the first is {weight}: {tuple(theirs)} where {tuple(ours)} is expected. Is the config.json that of this "
            "checkpoint?"
        )
    if not unexpected:
        return Loaded(model, None)
    warn(
        f"{name} holds {len(unexpected)} weights that a {type(model).__name__} of its config.json has no place for, "
        f"the first is {unexpected[0]}: it is measured without them. Is the config.json that of this checkpoint?",
        MeasurementWarning,
    )
    return Loaded(model, {"n": len(unexpected), "first": unexpected[0]})


def _load_adapter(folder: Path, options: dict[str, Any], progress: bool, allow_pickle: bool) -> Loaded:
    """The base that an adapter names, and the adapter on it."""
    base = base_of(folder)
    what = f"{folder} holds an adapter (PEFT) for the base model {base}"
    if importlib.util.find_spec("peft") is None:
        raise ModelError(
            f"{what}. To measure both together install peft (pip install 'lm-memorization[peft]'), or merge and save "
            "them."
        )
    weights = folder / "adapter_model.safetensors"
    if weights.is_file():
        check_safetensors(weights)
    elif not (folder / "adapter_model.bin").is_file():
        raise ModelError(
            f"{what}, but neither adapter_model.safetensors nor adapter_model.bin. Save or download it again."
        )
    elif not allow_pickle:
        raise ModelError(
            f"{what}, with pickled weights. They can run code when they are loaded, so they are refused; if you trust "
            "their source, pass allow_pickle=True."
        )
    base_options = {**options, "revision": read_json(folder / ADAPTER).get("revision")}
    try:
        source = source_of(base)
        if os.path.exists(source):
            check_folder(Path(source))
            check_weights(Path(source), allow_pickle=allow_pickle)
        loaded = _load(source, base_options, progress)
    except ModelError as error:
        raise ModelError(
            f"{what}, and the base cannot be loaded: {error} If the base lies elsewhere, write its place into "
            f"base_model_name_or_path of {folder / ADAPTER}."
        ) from error
    import peft

    try:
        model = peft.PeftModel.from_pretrained(loaded.model, str(folder), is_trainable=False)
    except Exception as error:
        raise ModelError(f"{what}, and the adapter could not be put on it: {first_line(error).rstrip('.')}.") from error
    if weights.is_file():
        _check_adapter(model, weights, what)
    return Loaded(model, loaded.unexpected)


def _check_adapter(model: Any, weights: Path, what: str) -> None:
    import peft
    from safetensors import safe_open

    with safe_open(str(weights), framework="pt") as file:
        held = set(file.keys())
    missing = sorted(set(peft.get_peft_model_state_dict(model)) - held)
    if missing:
        raise ModelError(
            f"{what}, and lacks {len(missing)} of the adapter's weights, the first is {missing[0]}. Is it the adapter "
            "of this base?"
        )
