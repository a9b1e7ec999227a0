"""A model from a name on the hub or from a folder.

Beside `tokenizers.py` the only file below the lab that imports transformers.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from memorization.errors import InputError, ModelError
from memorization.measure.failures import load_failure


def load_model(
    name: str,
    *,
    dtype: str | torch.dtype | None,
    revision: str | None,
    trust_remote_code: bool,
    allow_pickle: bool,
    progress: bool,
) -> nn.Module:
    """The model of a hub id or folder, on the CPU.

    Raises:
        ModelError: it cannot be loaded, lacks weights, or would run code that was not asked for.
    """
    if Path(name).exists() and not (Path(name) / "config.json").is_file():
        raise ModelError(
            f"{name} is no model folder: it has no config.json. Expected is a folder made by save_pretrained(); for the file of a torch "
            "module, build the module, load the file into it and pass the module."
        )
    if Path(name).exists() and not allow_pickle and not any(Path(name).glob("*.safetensors")):
        raise ModelError(
            f"{name} holds no .safetensors weights. "
            + (
                "Pickled ones can run code when they are loaded, so they are refused; if you trust their source, pass allow_pickle=True."
                if any(Path(name).glob("*.bin"))
                else "Expected is a folder made by save_pretrained()."
            )
        )
    if isinstance(dtype, str) and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise InputError(f"dtype must be a torch dtype or its name, such as float32 or bfloat16; it is {dtype!r}")
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code, "dtype": dtype or "auto"}
    if not allow_pickle:
        options["use_safetensors"] = True
    bars = logging.is_progress_bar_enabled()
    if not progress:
        logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **options)
    except Exception as error:
        raise ModelError(load_failure(name, str(error))) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    model: nn.Module = loaded[0]
    missing = sorted(loaded[1]["missing_keys"])
    if missing:  # transformers makes them up at random
        raise ModelError(
            f"{name} lacks {len(missing)} of the weights of a {type(model).__name__}, the first is {missing[0]}: it would be measured "
            "with random ones. Is it the checkpoint of a causal language model, output head included?"
        )
    return model
