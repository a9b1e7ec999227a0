"""A model from a name on the hub or from a folder.

Beside `tokenizers.py` the only file below the lab that imports transformers.
"""

import importlib.util
import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from memorization.errors import InputError, MeasurementWarning, ModelError, warn
from memorization.measure.adapter_folders import load_adapter
from memorization.measure.failures import load_failure
from memorization.measure.folders import check_folder, check_weights, has


class Loaded(NamedTuple):
    """A model, and what its files held beside it."""

    model: nn.Module
    unexpected: dict[str, Any] | None  # weights that it has no place for: their number, and the first one's name
    adapter: dict[str, Any] | None = None  # what was found when an adapter was put on its base


def load_model(
    name: str,
    *,
    dtype: str | torch.dtype | None,
    revision: str | None,
    trust_remote_code: bool,
    allow_pickle: bool,
    progress: bool,
    spread_with: str | None = None,
) -> Loaded:
    """The model of a hub id or folder, on the CPU; the base with its adapter where the folder holds an adapter.

    `spread_with` has it placed by accelerate over all GPUs, main memory and disk, where it fits. It is a folder for
    what has to be written to that end; it has to stay as long as the model.

    Raises:
        ModelError: it cannot be loaded, lacks weights, or would run code that was not asked for; accelerate is missing.
    """
    if isinstance(dtype, str) and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise InputError(f"dtype must be a torch dtype or its name, such as float32 or bfloat16; it is {dtype!r}.")
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code, "dtype": dtype or "auto"}
    if not allow_pickle:
        options["use_safetensors"] = True
    if spread_with is not None:
        if importlib.util.find_spec("accelerate") is None:
            raise ModelError(
                f'device="auto" places {name} over several devices with accelerate, which is not installed: pip '
                "install accelerate. Or name one device."
            )
        options |= {"device_map": "auto", "offload_folder": spread_with}
    folder = Path(name)
    if os.path.exists(name):
        check_folder(folder)
        if not has(folder / "config.json"):
            load = partial(_load, progress=progress)
            return Loaded(*load_adapter(folder, lambda *of: load(*of)[:2], options, allow_pickle=allow_pickle))
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
