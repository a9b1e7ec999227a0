"""Any causal language model, opened to be measured and left as it came. The only file of the core that imports transformers."""

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from memorization.errors import InputError, ModelError, NotCausalError

_UNLIMITED = 1_000_000  # tokenizers without a limit say 1e30
_PROBE_LENGTH = 8
_TOKENIZER_FILES = ("tokenizer", "vocab", "merges")  # how the names of a tokenizer's files begin
_FINGERPRINT_VALUES = (
    4096  # of each tensor, evenly spread: reading all of a large model would take longer than a measurement
)


class UniformModel:
    """The model that gives every token the same probability: log2(vocab_size) bits a token, exactly.

    Args:
        vocab_size: number of tokens, at least 1.

    Examples:
        >>> from memorization import UniformModel, compress_bits
        >>> compress_bits(UniformModel(256), [[3, 1, 4, 1, 5]]).ideal_bits.tolist()
        [40.0]
    """

    def __init__(self, vocab_size: int):
        if vocab_size < 1:
            raise InputError(f"vocab_size must be at least 1; it is {vocab_size}")
        self.vocab_size = vocab_size

    def __call__(self, ids: Int64[Tensor, "batch position"]) -> Float[Tensor, "batch position vocab"]:
        """Logits of 0, without the memory that they would take."""
        return torch.zeros((1, 1, 1), device=ids.device).expand(*ids.shape, self.vocab_size)

    def __repr__(self) -> str:
        return f"UniformModel({self.vocab_size})"


@dataclass(frozen=True, slots=True, eq=False)
class CausalModel:
    """A loaded model, ready to be scored with.

    Attributes:
        logits: int64 ids (batch, position) to logits (batch, position, vocab) on `device`.
        vocab_size: width of the logits.
        max_length: inputs the model (or its tokenizer) takes at most; None if nothing says so.
        tokenizer: None where none is at hand.
        record: name, class, fingerprint, parameter counts, dtype, device: what goes into a result's settings.
    """

    logits: Callable[[Tensor], Tensor]
    vocab_size: int
    max_length: int | None
    device: torch.device
    tokenizer: Any
    record: dict[str, Any]


@contextlib.contextmanager
def opened_model(
    model: Any,
    *,
    tokenizer: Any = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    max_length: int | None = None,
    progress: bool = True,
) -> Iterator[CausalModel]:
    """Load or adopt a model, check that it is causal, and leave it as it came.

    Args:
        model: hub id or folder, a transformers model, a torch module or callable from ids to logits, or `UniformModel`.
        tokenizer: object, name or folder; None is the model's own where the model is named.
        device: where to measure; None is where the model lies, or for models loaded here a GPU if there is one.
        dtype: of the weights of models loaded here; None is the checkpoint's own.
        revision: of a hub model.
        trust_remote_code: run code that the checkpoint brings.
        allow_pickle: load pickled weights, which can run code.
        max_length: inputs that the check for causality may use.
        progress: let transformers show its bars while it loads.

    Raises:
        ModelError: it cannot be loaded, or returns something else than logits.
        NotCausalError: a later token moved an earlier logit.
    """
    source = None
    if isinstance(model, (str, os.PathLike)):
        source = str(model)
        model = _load(source, dtype, revision, trust_remote_code, allow_pickle, progress)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    elif dtype is not None:
        raise InputError(
            f"dtype={dtype!r} applies to models loaded by name; this {type(model).__name__} is in memory already. "
            "Convert it yourself (model.to(dtype)) and leave dtype out."
        )
    if not callable(model):
        raise ModelError(
            f"a model must be a name, a folder, a torch module or a callable from ids to logits; a {type(model).__name__} came"
        )
    tokenizer = load_tokenizer(
        tokenizer if tokenizer is not None else source,
        required=tokenizer is not None,
        trust_remote_code=trust_remote_code,
        revision=None if tokenizer is not None else revision,
    )
    is_module = isinstance(model, nn.Module)
    tensors = [*model.parameters(), *model.buffers()] if is_module else []
    home = tensors[0].device if tensors else torch.device("cpu")
    place = _device(device) if device is not None else home
    modes = [(m, m.training) for m in model.modules()] if is_module else []
    try:
        if is_module:
            model.eval()
            if place != home:
                model.to(place)
        with torch.no_grad():
            forward = _forward(model)
            record = _record(model, source, revision, place)
            limit = _max_length(model, tokenizer)
            shortest = limit if max_length is None else min(limit or max_length, max_length)
            record["vocab_size"] = _probe(forward, place, _declared_vocab_size(model), shortest, record["name"])
            yield CausalModel(forward, record["vocab_size"], limit, place, tokenizer, record)
    finally:
        for module, training in modes:
            module.training = training
        if is_module and place != home:
            model.to(home)


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={str(name)!r} cannot be used here: {first_line(error)}") from error
    return device


def load_tokenizer(
    tokenizer: Any, *, required: bool = True, revision: str | None = None, trust_remote_code: bool = False
) -> Any:
    """A tokenizer object as it is; a name or folder loaded. None stays None; a folder without one gives None when not `required`."""
    if tokenizer is None or not isinstance(tokenizer, (str, os.PathLike)):
        return tokenizer
    from transformers import AutoTokenizer

    folder = Path(tokenizer)
    if folder.is_dir() and not any(
        file.name.startswith(_TOKENIZER_FILES) or file.suffix == ".model" for file in folder.iterdir()
    ):
        # transformers would make up an empty tokenizer of the model's type.
        if not required:
            return None
        raise ModelError(f"{folder} holds no tokenizer: expected is a folder made by the tokenizer's save_pretrained()")
    try:
        return AutoTokenizer.from_pretrained(str(tokenizer), revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:
        if not required and folder.is_dir():
            return None
        raise ModelError(_load_failure(str(tokenizer), f"the tokenizer: {error}")) from error


def tokenizer_record(tokenizer: Any) -> dict[str, Any] | None:
    """Class, name, size and fingerprint of the vocabulary of a tokenizer."""
    if tokenizer is None:
        return None
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    digest = hashlib.sha256(repr(vocab).encode("utf-8", "surrogatepass"))
    return {
        "class": type(tokenizer).__name__,
        "name": str(getattr(tokenizer, "name_or_path", "")),
        "vocab_size": len(tokenizer),
        "vocab_sha256": digest.hexdigest(),
    }


def _forward(model: Any) -> Callable[[Tensor], Tensor]:
    """Ids to logits. transformers models are told not to keep a key-value cache, which would be memory for nothing."""
    transformers = sys.modules.get("transformers")
    options = {"use_cache": False} if transformers and isinstance(model, transformers.PreTrainedModel) else {}

    def logits(ids: Tensor) -> Tensor:
        output = model(ids, **options)
        found: Tensor = getattr(output, "logits", output)
        return found

    return logits


def _probe(
    forward: Callable[[Tensor], Tensor], device: torch.device, declared: int | None, max_length: int | None, name: str
) -> int:
    """Width of the logits, after checking their shape and that they do not depend on later tokens."""
    length = min(_PROBE_LENGTH, max_length or _PROBE_LENGTH)
    ids = torch.randint(declared or 2, (1, length), generator=torch.Generator().manual_seed(0))
    ids[0, -1] = 0
    other = ids.clone()
    other[0, -1] = (declared or 2) - 1
    try:
        first, second = forward(ids.to(device)), forward(other.to(device))
    except Exception as error:
        raise ModelError(
            f"{name} failed on {length} token ids of shape {tuple(ids.shape)}: {first_line(error)}. It must map int64 ids (batch, "
            "position) to logits. If it takes fewer positions than that, pass max_length."
        ) from error
    if (
        not isinstance(first, Tensor)
        or first.dim() != 3
        or first.shape[:2] != ids.shape
        or not first.is_floating_point()
    ):
        raise wrong_shape(name, tuple(ids.shape), first, declared)
    before, after = first[0, :-1].float(), second[0, :-1].float()
    moved = torch.where(before == after, 0.0, (after - before).abs()).amax(dim=-1)  # -inf twice is no move
    # Kernels may sum in another order when the last token changes: a mixture of experts moves by 1.5e-6 of the spread in float32, an
    # untrained bidirectional model by 1e-3 or more.
    spread = float(before[before.isfinite()].std(correction=0)) if length > 1 else 0.0
    tolerance = (2e-2 if first.element_size() < 4 else 1e-4) * spread + 1e-6
    if bool((moved > tolerance).any()):
        position = int((moved > tolerance).nonzero()[0])
        raise NotCausalError(
            f"{name} is not causal: changing the token at position {length - 1} moved the logits at position {position} by "
            f"{float(moved[position]):.3g}. Its probabilities define no code. Is it a masked language model, or is its causal mask off?"
        )
    return int(first.shape[2])


def wrong_shape(name: str, ids_shape: Sequence[int], logits: Any, vocab_size: int | None) -> ModelError:
    """The error for what is not logits."""
    expected = f"({ids_shape[0]}, {ids_shape[1]}, {vocab_size or 'vocabulary'})"
    got = f"{tuple(logits.shape)} {logits.dtype}" if isinstance(logits, Tensor) else type(logits).__name__
    return ModelError(
        f"{name} must map int64 ids of shape {tuple(ids_shape)} to floating-point logits {expected}, or to an object with .logits; "
        f"it returned {got}"
    )


def _load(
    name: str,
    dtype: str | torch.dtype | None,
    revision: str | None,
    trust_remote_code: bool,
    allow_pickle: bool,
    progress: bool,
) -> nn.Module:
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
        raise ModelError(_load_failure(name, str(error))) from error
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


def _load_failure(name: str, reason: str) -> str:
    line = first_line(reason)
    if "trust_remote_code" in reason:
        return f"{name} brings its own Python code, which is not run unless you pass trust_remote_code=True after reading it"
    if "safetensors" in reason:
        return (
            f"{name} has no safetensors weights. Pickled weights can run code when they are loaded, so they are refused; if you trust "
            f"their source pass allow_pickle=True. ({line})"
        )
    if not Path(name).exists():
        return (
            f"{name!r} is neither a folder here nor a model that the hub delivered: check the spelling and the network, or download it "
            f"elsewhere and pass the folder. ({line})"
        )
    return f"{name} could not be loaded: {line}"


def first_line(error: object) -> str:
    """The first line of an error that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _declared_vocab_size(model: Any) -> int | None:
    if isinstance(model, UniformModel):
        return model.vocab_size
    config = _text_config(model)
    return getattr(config, "vocab_size", None)


def _text_config(model: Any) -> Any:
    config = getattr(model, "config", None)
    return config.get_text_config() if config is not None and hasattr(config, "get_text_config") else config


def _max_length(model: Any, tokenizer: Any) -> int | None:
    config = _text_config(model)
    for limit in (getattr(config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)):
        if isinstance(limit, int) and 0 < limit < _UNLIMITED:
            return limit
    return None


def _record(model: Any, source: str | None, revision: str | None, device: torch.device) -> dict[str, Any]:
    is_module = isinstance(model, nn.Module)
    parameters = list(model.parameters()) if is_module else []
    name = source or (
        repr(model) if isinstance(model, UniformModel) else getattr(model, "__qualname__", type(model).__name__)
    )
    config = getattr(model, "config", None)
    return {
        "name": name,
        "class": type(model).__name__,
        "revision": revision or getattr(config, "_commit_hash", None),
        "fingerprint": _fingerprint(model) if is_module else (repr(model) if isinstance(model, UniformModel) else None),
        "n_params": sum(p.numel() for p in parameters) if is_module else None,
        "n_non_embedding_params": _n_non_embedding(model) if is_module else None,
        "dtype": str(parameters[0].dtype).removeprefix("torch.") if parameters else None,
        "device": str(device),
    }


def _n_non_embedding(model: nn.Module) -> int:
    """Parameters without those of nn.Embedding modules (tokens, positions) and of the output head that transformers names."""
    embedding = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    find_head = getattr(model, "get_output_embeddings", None)
    head = find_head() if callable(find_head) else None
    if isinstance(head, nn.Module):
        embedding |= {id(p) for p in head.parameters()}
    return sum(p.numel() for p in model.parameters() if id(p) not in embedding)


def _fingerprint(model: nn.Module) -> str:
    """Names, shapes, dtypes and an even spread of the values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        flat = tensor.detach().flatten()
        step = max(1, len(flat) // _FINGERPRINT_VALUES)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        digest.update(flat[::step].to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()
