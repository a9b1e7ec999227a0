"""Any causal language model to the code of batches of samples. The only file of the measuring core that imports transformers."""

import contextlib
import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from tqdm import tqdm

from memorization.coding.intervals import TokenCode, code_tokens
from memorization.errors import ImpossibleTokenError, InputError, ModelError, NotCausalError

# "auto" batches: logits of at most 256 MiB (CPU) or a tenth of the free memory (GPU), since a forward pass holds a few times as much
# beside them; and so few tokens that the activations of a wide model with a small vocabulary fit as well.
_CPU_LOGITS_BYTES = 1 << 28
_GPU_LOGITS_SHARE = 0.1
_MAX_BATCH_TOKENS = {"cpu": 1 << 14, "cuda": 1 << 17}
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

    Example:
        >>> from memorization import UniformModel, compress_bits
        >>> compress_bits(UniformModel(256), [[3, 1, 4, 1, 5]]).ideal_bits.tolist()
        [40.0]
    """

    def __init__(self, vocab_size: int):
        if vocab_size < 1:
            raise InputError(f"vocab_size must be at least 1; it is {vocab_size}")
        self.vocab_size = vocab_size

    def __call__(self, ids: Int64[Tensor, "batch position"]) -> Float[Tensor, "batch position vocab"]:
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
) -> Iterator[CausalModel]:
    """Load or adopt a model, check that it is causal, and leave it as it came.

    Args:
        model: hub id or folder, a transformers model, a torch module or callable from ids to logits, or `UniformModel`.
        device: where to measure; None is where the model lies, or for models loaded here a GPU if there is one.
        dtype: of the weights of models loaded here; None is the checkpoint's own.
        max_length: inputs that the check for causality may use.

    Raises:
        ModelError: it cannot be loaded, or returns something else than logits.
        NotCausalError: a later token moved an earlier logit.
    """
    source = None
    if isinstance(model, (str, os.PathLike)):
        source = str(model)
        model = _load(source, dtype, revision, trust_remote_code, allow_pickle)
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
    place = torch.device(device) if device is not None else home
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


def windows(length: int, max_length: int | None, stride: int | None) -> list[tuple[int, int, int]]:
    """How a sequence of `length` tokens (context token included) is cut into inputs of at most `max_length`.

    Returns:
        One (start, stop, n_new) a window: inputs start to stop - 1, of whose predictions the last n_new are new. Every token but
        the first of the sequence is predicted exactly once, the first window `max_length` of them, each later one `stride`.

    Example:
        >>> windows(8, 4, 2)
        [(0, 4, 4), (2, 6, 2), (3, 7, 1)]
    """
    first = length if max_length is None else min(length, max_length + 1)
    spans = [(0, first - 1, first - 1)]
    while max_length is not None and stride is not None and first < length:
        stop = min(first + stride, length)
        spans.append((max(0, stop - 1 - max_length), stop - 1, stop - first))
        first = stop
    return spans


def score(
    model: CausalModel,
    sequences: Sequence[np.ndarray],
    *,
    max_length: int | None,
    stride: int | None,
    batch_size: int | Literal["auto"],
    name_token: Callable[[int, int], str],
    on_scored: Callable[[int, TokenCode], None],
    progress: bool,
) -> int:
    """Code every token but the first of each sequence, given the ones before it.

    Batches hold windows of similar length, padded on the right, which a causal model cannot see.

    Args:
        sequences: int64 ids, each at least 2 long.
        max_length: inputs a window holds at most.
        stride: new tokens of the second and later windows.
        batch_size: windows a batch; "auto" fits them to memory and halves on out-of-memory.
        name_token: (sequence, position in it) to words for an error message.
        on_scored: receives each sequence's number and its whole code, as soon as it is complete.

    Returns:
        The largest number of windows that a batch held.
    """
    spans = [(i, *span) for i, ids in enumerate(sequences) for span in windows(len(ids), max_length, stride)]
    # Longest first: what does not fit in memory fails at once. Python's sort is stable, so the windows of a text stay in order.
    spans.sort(key=lambda span: span[1] - span[2])
    missing = np.bincount([span[0] for span in spans], minlength=len(sequences))
    pieces: dict[int, list[tuple[int, TokenCode]]] = {}
    largest, budget = 0, _batch_budget(model)
    with tqdm(
        total=sum(s[3] for s in spans), unit="tok", unit_scale=True, disable=not progress, delay=1, file=sys.stderr
    ) as bar:
        start = 0
        while start < len(spans):
            n_inputs = spans[start][2] - spans[start][1]
            rows = batch_size if batch_size != "auto" else max(1, budget // (n_inputs * _weight(model)))
            batch = spans[start : start + rows]
            try:
                codes = _score_batch(model, sequences, batch, name_token)
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                if batch_size != "auto" or len(batch) == 1:
                    raise _too_large(model, len(batch), n_inputs) from error
                budget = len(batch) // 2 * n_inputs * _weight(model)
                continue
            start += len(batch)
            largest = max(largest, len(batch))
            for (i, _, stop, n_new), code in zip(batch, codes, strict=True):
                pieces.setdefault(i, []).append((stop, code))
                missing[i] -= 1
                if not missing[i]:
                    parts = [code for _, code in sorted(pieces.pop(i), key=lambda piece: piece[0])]
                    on_scored(i, TokenCode.concatenate(parts) if len(parts) > 1 else parts[0])
                bar.update(n_new)
    return largest


def _score_batch(
    model: CausalModel,
    sequences: Sequence[np.ndarray],
    batch: Sequence[tuple[int, int, int, int]],
    name_token: Callable[[int, int], str],
) -> list[TokenCode]:
    n_inputs = max(stop - start for _, start, stop, _ in batch)
    inputs = np.zeros((len(batch), n_inputs), dtype=np.int64)
    for row, (i, start, stop, _) in enumerate(batch):
        inputs[row, : stop - start] = sequences[i][start:stop]
    with torch.no_grad():
        logits = _logits(model, torch.from_numpy(inputs).to(model.device))
        if tuple(logits.shape) != (*inputs.shape, model.vocab_size):
            raise _wrong_shape(model.record["name"], inputs.shape, logits, model.vocab_size)
        rows = np.concatenate(
            [np.arange(n) + row * n_inputs + stop - start - n for row, (_, start, stop, n) in enumerate(batch)]
        )
        ids = np.concatenate([sequences[i][stop - n + 1 : stop + 1] for i, _, stop, n in batch])
        code = code_tokens(logits.flatten(0, 1), torch.from_numpy(rows), torch.from_numpy(ids))
    codes = code.split([n for *_, n in batch])
    if not np.isfinite(code.ideal_bits).all():
        for (i, _, stop, n), piece in zip(batch, codes, strict=True):
            for j in np.flatnonzero(~np.isfinite(piece.ideal_bits))[:1]:
                raise _impossible(model.record["name"], name_token(i, stop - n + 1 + int(j)), piece.ideal_bits[j])
    return codes


def _logits(model: CausalModel, ids: Tensor) -> Tensor:
    try:
        return model.logits(ids)
    except Exception as error:
        if _is_out_of_memory(error):
            raise
        raise ModelError(
            f"{model.record['name']} failed on a batch of {ids.shape[0]} x {ids.shape[1]} token ids: {_first_line(error)}. If it takes "
            "fewer positions than that, pass max_length: longer texts are then measured in windows."
        ) from error


def _weight(model: CausalModel) -> int:
    """Elements that a token of a batch counts as: its logits, or its share of the limit on tokens."""
    most = _MAX_BATCH_TOKENS["cuda" if model.device.type == "cuda" else "cpu"]
    return max(model.vocab_size, math.ceil(_batch_budget(model) / most))


def _batch_budget(model: CausalModel) -> int:
    if model.device.type == "cuda":
        return int(torch.cuda.get_device_properties(model.device).total_memory * _GPU_LOGITS_SHARE) // 4
    return _CPU_LOGITS_BYTES // 4


def _is_out_of_memory(error: BaseException) -> bool:
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "can't allocate memory" in str(error)
        or "not enough memory" in str(error)
    )


def _too_large(model: CausalModel, rows: int, n_inputs: int) -> ModelError:
    gigabytes = rows * n_inputs * model.vocab_size * 4 / 1e9
    return ModelError(
        f"out of memory with {rows} x {n_inputs} tokens in a batch (their logits alone take {gigabytes:.1f} GB in float32). "
        + (
            'Pass batch_size="auto" or a smaller one.'
            if rows > 1
            else "Pass a smaller max_length: longer texts are then measured in windows."
        )
    )


def _impossible(name: str, where: str, bits: float) -> ImpossibleTokenError:
    if math.isnan(bits):
        return ImpossibleTokenError(
            f"the logits of {name} that predict {where} are NaN or +inf: no code length exists. A float16 overflow is a common cause: try dtype='float32'."
        )
    return ImpossibleTokenError(
        f"{name} gives probability 0 to {where}: its code is infinitely long. A model that masks tokens with -inf cannot code them; leave the sample out."
    )


def _forward(model: Any) -> Callable[[Tensor], Tensor]:
    """Ids to logits. transformers models are told not to keep a key-value cache, which would be memory for nothing."""
    transformers = sys.modules.get("transformers")
    options = {"use_cache": False} if transformers and isinstance(model, transformers.PreTrainedModel) else {}

    def logits(ids: Tensor) -> Tensor:
        output = model(ids, **options)
        return getattr(output, "logits", output)

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
            f"{name} failed on {length} token ids of shape {tuple(ids.shape)}: {_first_line(error)}. It must map int64 ids (batch, "
            "position) to logits. If it takes fewer positions than that, pass max_length."
        ) from error
    if (
        not isinstance(first, Tensor)
        or first.dim() != 3
        or first.shape[:2] != ids.shape
        or not first.is_floating_point()
    ):
        raise _wrong_shape(name, tuple(ids.shape), first, declared)
    before, after = first[0, :-1].float(), second[0, :-1].float()
    moved = torch.where(before == after, 0.0, (after - before).abs()).amax(dim=-1)  # -inf twice is no move
    # Kernels may sum in another order when the last token changes (experts, for one): a thousandth of the spread is no dependence.
    spread = float(before[before.isfinite()].std()) if length > 1 else 0.0
    tolerance = (2e-2 if first.element_size() < 4 else 1e-3) * spread + 1e-6
    if bool((moved > tolerance).any()):
        position = int((moved > tolerance).nonzero()[0])
        raise NotCausalError(
            f"{name} is not causal: changing the token at position {length - 1} moved the logits at position {position} by "
            f"{float(moved[position]):.3g}. Its probabilities define no code. Is it a masked language model, or is its causal mask off?"
        )
    return int(first.shape[2])


def _wrong_shape(name: str, ids_shape: Sequence[int], logits: Any, vocab_size: int | None) -> ModelError:
    expected = f"({ids_shape[0]}, {ids_shape[1]}, {vocab_size or 'vocabulary'})"
    got = f"{tuple(logits.shape)} {logits.dtype}" if isinstance(logits, Tensor) else type(logits).__name__
    return ModelError(
        f"{name} must map int64 ids of shape {tuple(ids_shape)} to floating-point logits {expected}, or to an object with .logits; it returned {got}"
    )


def _load(
    name: str, dtype: str | torch.dtype | None, revision: str | None, trust_remote_code: bool, allow_pickle: bool
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

    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code, "dtype": dtype or "auto"}
    if not allow_pickle:
        options["use_safetensors"] = True
    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(name, **options)
        return model
    except Exception as error:
        raise ModelError(_load_failure(name, str(error))) from error


def _load_failure(name: str, reason: str) -> str:
    line = _first_line(reason)
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


def _first_line(error: object) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _declared_vocab_size(model: Any) -> int | None:
    if isinstance(model, UniformModel):
        return model.vocab_size
    config = _text_config(model)
    return getattr(config, "vocab_size", None)


def _text_config(model: Any) -> Any:
    config = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


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
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
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
