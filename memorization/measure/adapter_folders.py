"""An adapter's folder: where its base is, and both put together."""

import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memorization.errors import MeasurementWarning, ModelError, warn
from memorization.measure.adapters import carrier_of, parts_of
from memorization.measure.failures import first_line, is_a_path
from memorization.measure.fingerprint import some_values
from memorization.measure.folders import (
    ADAPTER,
    base_of,
    check_folder,
    check_safetensors,
    check_weights,
    has,
    read_json,
)
from memorization.measure.wrappers import offloaded

_UP = 3  # folders above the adapter's in which a base that was moved with it is looked for


def find_base(folder: Path) -> str:
    """The place of the base that an adapter's folder names: a folder here, or else a name for the hub.

    A folder is looked for where the adapter says, then from the adapter's own folder; one that is not there any more,
    by its name in the adapter's folder and the three above. There it is taken with a warning.

    Raises:
        ModelError: the adapter names a folder that is found nowhere, or none.
    """
    named = base_of(folder)
    given = os.path.expanduser(named)
    inside = folder / given
    for place in (given, inside):
        if os.path.exists(place):
            return str(place)
    if not is_a_path(named):
        return named
    own = folder.resolve()
    above = [own, *own.parents][: _UP + 1]
    last = Path(given.replace("\\", "/")).name
    found = [parent / last for parent in above if (parent / last) != own and has(parent / last / "config.json")]
    if found:
        warn(
            f"{folder} holds an adapter (PEFT) for the base model {named}, which is not there: {found[0]} has the same "
            f"name and is taken for it. If it is another model, write the base's place into {folder / ADAPTER}.",
            MeasurementWarning,
        )
        return str(found[0])
    looked = [given, *([] if os.path.isabs(given) else [str(inside)]), *(str(parent / last) for parent in above)]
    raise ModelError(
        f"{folder} holds an adapter (PEFT) for the base model {named}, and that is not there. Looked for: "
        f"{', '.join(looked)}. Write the base's place, or its name on the hub, into base_model_name_or_path of "
        f"{folder / ADAPTER}."
    )


def load_adapter(
    folder: Path,
    load: Callable[[str, dict[str, Any]], tuple[nn.Module, Any]],
    options: Mapping[str, Any],
    *,
    allow_pickle: bool,
) -> tuple[nn.Module, Any, dict[str, Any]]:
    """The base that an adapter names with the adapter on it, what was unexpected in the base, and what loading found.

    Args:
        folder: with adapter_config.json.
        load: loads a model by its name, with options.
        options: for the base; its revision is the one that the adapter names.
        allow_pickle: load pickled weights.

    Raises:
        ModelError: peft is missing, the base is, or the two do not go together.
    """
    what = f"{folder} holds an adapter (PEFT) for the base model {base_of(folder)}"
    if importlib.util.find_spec("peft") is None:
        raise ModelError(
            f"{what}. To measure both together install peft: pip install 'lm-memorization[peft]'. Or merge the "
            "adapter into its base elsewhere (merge_and_unload()), and save that."
        )
    weights = _weights(folder, what, allow_pickle)
    source, revision = find_base(folder), read_json(folder / ADAPTER).get("revision")
    try:
        if os.path.exists(source):
            check_folder(Path(source))
            check_weights(Path(source), allow_pickle=allow_pickle)
        base, unexpected = load(source, {**options, "revision": revision})
    except ModelError as error:
        raise ModelError(
            f"{what}, and the base cannot be loaded: {error} If the base lies elsewhere, write its place into "
            f"base_model_name_or_path of {folder / ADAPTER}."
        ) from error
    if offloaded(base):  # peft would place it anew, and copy what is on disk into the folder where we are
        raise ModelError(
            f"{what}, and the base does not fit into the memory of the devices here, so a part of it is offloaded: an "
            "adapter cannot be put on that. Merge the two where there is more memory (merge_and_unload()), save that, "
            "and measure it."
        )
    import peft

    held = _Held(weights)
    state = {name: value for name, value in base.state_dict().items() if isinstance(value, Tensor)}
    before = {name: (tuple(value.shape), some_values(value)) for name, value in state.items()}
    copies = {name: value.clone() for name, value in state.items() if name in held.shapes}
    try:
        # New weights are drawn before those of the file take their place. What peft and transformers say of each other
        # is not about the measurement.
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", module="peft")
            held.resize(base)
            model = peft.PeftModel.from_pretrained(base, str(folder), is_trainable=False)
    except Exception as error:
        raise ModelError(f"{what}, and the adapter could not be put on it: {first_line(error).rstrip('.')}.") from error
    held.check(model, what)
    return model, unexpected, {"base": source, "base_revision": revision, **_changed(model, before, copies)}


def _weights(folder: Path, what: str, allow_pickle: bool) -> Path | None:
    """The adapter's file, checked to be all there; None for a pickled one."""
    weights = folder / "adapter_model.safetensors"
    if weights.is_file():
        check_safetensors(weights)
        return weights
    if not (folder / "adapter_model.bin").is_file():
        raise ModelError(
            f"{what}, but neither adapter_model.safetensors nor adapter_model.bin. Save or download it again."
        )
    if not allow_pickle:
        raise ModelError(
            f"{what}, with pickled weights. They can run code when they are loaded, so they are refused; if you trust "
            "their source, pass allow_pickle=True."
        )
    return None


class _Held:
    """What an adapter's file holds: names, and those of them that the base has too, with their shapes."""

    def __init__(self, file: Path | None):
        from safetensors import safe_open

        self.names: set[str] | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        if file is not None:
            with safe_open(str(file), framework="pt") as content:
                self.names = set(content.keys())
                self.shapes = {
                    name.removeprefix("base_model.model.").replace(".base_layer.", "."): tuple(
                        content.get_slice(name).get_shape()
                    )
                    for name in self.names
                }

    def resize(self, base: Any) -> None:
        """Give the base as many tokens as the adapter was trained with: its embeddings lie in the adapter's file."""
        tables = [base.get_input_embeddings(), base.get_output_embeddings()]
        ours = {id(parameter) for table in tables if table is not None for parameter in table.parameters()}
        for name, value in base.state_dict(keep_vars=True).items():
            shape = self.shapes.get(name)
            if id(value) in ours and shape is not None and shape[0] != value.shape[0]:
                base.resize_token_embeddings(shape[0], mean_resizing=False)
                return

    def check(self, model: Any, what: str) -> None:
        """Refuse an adapter whose file lacks what it should hold: it would be measured with random weights."""
        import peft

        if self.names is None:
            return
        missing = sorted(set(peft.get_peft_model_state_dict(model, save_embedding_layers=False)) - self.names)
        if missing:
            raise ModelError(
                f"{what}, and lacks {len(missing)} of the adapter's weights, the first is {missing[0]}. Is it the "
                "adapter of this base?"
            )


def _changed(
    model: nn.Module, before: Mapping[str, tuple[tuple[int, ...], bytes | None]], copies: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Which weights of the base are others since the adapter is on it, and which its folder brought."""
    after = {name: value for name, value in parts_of(carrier_of(model)).base_state.items() if isinstance(value, Tensor)}
    brought = [
        name
        for name, value in after.items()
        if name not in before
        or before[name][0] != tuple(value.shape)
        or (name in copies and not torch.equal(copies[name], value))
    ]
    moved = [name for name in after if name not in brought and before[name][1] != some_values(after[name])]
    why = None
    if brought:
        why = f"its folder brings {len(brought)} weights of the base itself, the first is {brought[0]} (resized "
        why += "embeddings, or biases that were trained)"
    elif moved:
        why = f"loading it changes {len(moved)} weights of the base itself, the first is {moved[0]} (as PiSSA does)"
    return {"not_base": why, "brought": brought}
