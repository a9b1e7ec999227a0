"""Opening a causal language model once for all measurements, and leaving it as it came."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from memorization.errors import InputError, ModelError
from memorization.integers import as_integer, check_integer
from memorization.measure.adapters import adapter_record, base_of_carrier, carrier_of, n_trained_params, parts_of
from memorization.measure.failures import first_line
from memorization.measure.fingerprint import weights_of
from memorization.measure.folders import source_of
from memorization.measure.loading import load_model
from memorization.measure.parameters import n_non_embedding_params, n_params, uncounted
from memorization.measure.probe import Forward, probe
from memorization.measure.surroundings import default_device, undisturbed
from memorization.measure.tokenizers import TokenizerLike, load_tokenizer, tokenizer_record
from memorization.measure.weights import weight_digests
from memorization.measure.wrappers import declared_vocab_size, offloaded, position_limit, unwrapped, where_it_lies

BASE_OF_TARGET = "base-of-target"  # an oracle of verbs that have a target: see measure/base_of_target.py
_UNLIMITED = 1_000_000  # tokenizers without a limit say 1e30


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
        self.vocab_size = check_integer("vocab_size", vocab_size)

    def __call__(self, ids: Int64[Tensor, "batch position"]) -> Float[Tensor, "batch position vocab"]:
        """Logits of 0, without the memory that they would take."""
        return torch.zeros((1, 1, 1), device=ids.device).expand(*ids.shape, self.vocab_size)

    def __repr__(self) -> str:
        return f"UniformModel({self.vocab_size})"


@dataclass(frozen=True, slots=True, eq=False)
class OpenModel:
    """A loaded model, ready to be measured with; made by `open_model`, and good until its block ends.

    Attributes:
        logits: int64 ids (batch, position) to logits (batch, position, vocab) on `device`.
        vocab_size: width of the logits.
        max_length: inputs the model (or its tokenizer) takes at most; None if nothing says so.
        tokenizer: None where none is at hand.
        record: name, class, fingerprint of the weights, logits of the probe, parameter counts, dtype, device: what goes
            into a result's settings.
        device: where it lies: what its inputs are moved to.
        indifferent: lengths in inputs of a long and a short window that were found to say in one batch what they say
            alone: see `memorization.measure.batching.Trial`.
    """

    logits: Callable[[Tensor], Tensor]
    vocab_size: int
    max_length: int | None
    device: torch.device
    tokenizer: Any
    record: dict[str, Any]
    indifferent: list[tuple[int, int]] = field(default_factory=list)

    @property
    def fingerprint(self) -> str | None:
        """Digest of the logits of a few tokens, rounded: see `memorization.measure.fingerprint.probe_record`."""
        return self.record["probe"] and self.record["probe"]["sha256"]


DeviceLike: TypeAlias = str | torch.device
DTypeLike: TypeAlias = str | torch.dtype
# What every function of this library takes as a model. A module is a callable, too; it stands here for the reader.
ModelLike: TypeAlias = str | os.PathLike[str] | nn.Module | Callable[[Tensor], Any] | UniformModel | OpenModel


@contextlib.contextmanager
def open_model(
    model: ModelLike,
    *,
    tokenizer: TokenizerLike | None = None,
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    max_length: int | None = None,
    progress: bool = True,
) -> Iterator[OpenModel]:
    """Load or adopt a model, check that it is causal, and leave it as it came.

    Every function that takes a model takes the OpenModel, too, so a model is loaded and checked once for many
    measurements. An OpenModel is handed on as it is; whoever opened it closes it. In the block, autocast is off, and
    float32 and the CPU are torch's defaults.

    Args:
        model: hub id or folder, a transformers model, a torch module or callable from ids to logits, `UniformModel`, or
            an OpenModel.
        tokenizer: object, name or folder; None is the model's own where the model is named.
        device: where to measure; None is where the model lies, or for models loaded here a GPU if there is one. "auto"
            spreads a model loaded here over all GPUs, main memory and disk, as far as it needs them (transformers'
            device_map="auto", with accelerate); a model in memory stays where it lies.
        dtype: of the weights of models loaded here; None is the checkpoint's own.
        revision: of a hub model.
        trust_remote_code: run code that the checkpoint brings.
        allow_pickle: load pickled weights, which can run code.
        max_length: inputs that the check for causality may use.
        progress: let transformers show its bars while it loads.

    Returns:
        A context manager that gives the `OpenModel`.

    Raises:
        InputError: options that do not go with the model, such as another device for one that is open.
        ModelError: it cannot be loaded, or returns something else than logits.
        NotCausalError: a later token moved an earlier logit.

    Examples:
        >>> from memorization import UniformModel, compress_bits
        >>> from memorization.measure import open_model
        >>> with open_model(UniformModel(256)) as model:
        ...     [float(compress_bits(model, [ids]).ideal_bits.sum()) for ids in ([1, 2], [3, 4, 5])]
        [16.0, 24.0]
    """
    if max_length is not None:
        max_length = check_integer("max_length", max_length, besides="None")
    elsewhere = default_device()
    spread = isinstance(device, str) and device == "auto"
    device = None if spread else device
    with undisturbed(), contextlib.ExitStack() as until_closed:
        if isinstance(model, OpenModel):
            yield _as_asked(model, tokenizer, device, dtype, revision)
            return
        source, unexpected, placed = None, None, None
        if isinstance(model, (str, os.PathLike)):
            if str(model) == BASE_OF_TARGET:
                raise InputError(
                    f'"{BASE_OF_TARGET}" is an oracle, beside a target that is a PEFT adapter; here a model is needed.'
                )
            source = source_of(model)
            model, unexpected, placed = load_model(
                source,
                dtype=dtype,
                revision=revision,
                trust_remote_code=trust_remote_code,
                allow_pickle=allow_pickle,
                progress=progress,
                spread_with=until_closed.enter_context(tempfile.TemporaryDirectory()) if spread else None,
            )
            if not spread:
                device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        elif dtype is not None:
            raise InputError(
                f"dtype={dtype!r} applies to models loaded by name; this {type(model).__name__} is in memory already. "
                "Convert it yourself (model.to(dtype)) and leave dtype out."
            )
        _check_callable(model)
        tokenizer = load_tokenizer(
            tokenizer if tokenizer is not None else source,
            required=tokenizer is not None,
            trust_remote_code=trust_remote_code,
            revision=None if tokenizer is not None else revision,
        )
        name = _name_of(model, source)
        with _in_place(model, name, device, bring_back=source is None) as place:
            forward = Forward(model, name, place if elsewhere.type != "cpu" else None)
            declared = model.vocab_size if isinstance(model, UniformModel) else declared_vocab_size(model)
            limit = _max_length(model, tokenizer)
            shortest = limit if max_length is None else min(limit or max_length, max_length)
            with torch.no_grad():
                vocab_size, probed = probe(forward, place, declared, shortest, name)
                record = {
                    **model_record(model, name, revision, place, placed),
                    "unexpected_weights": unexpected,
                    "probe": probed,
                    "vocab_size": vocab_size,
                }
                if record["unread_weights"] is not None and source is not None:
                    record["weight_files"] = _weight_files(source, placed)
            try:
                yield OpenModel(forward, vocab_size, limit, place, tokenizer, record)
            finally:
                forward.is_open = False


def _check_callable(model: Any) -> None:
    """Refuse what is no model."""
    if isinstance(model, contextlib.AbstractContextManager) and not isinstance(model, nn.Module):
        raise InputError("open_model is for a with block: with open_model(...) as model: ..., and pass that model.")
    if not callable(model):
        raise ModelError(
            "a model must be a name, a folder, a torch module or a callable from ids to logits; "
            f"a {type(model).__name__} came."
        )


@contextlib.contextmanager
def _in_place(model: Any, name: str, device: DeviceLike | None, *, bring_back: bool) -> Iterator[torch.device]:
    """A module in eval mode where it is to be measured; in its own mode, and brought back, afterwards."""
    if not isinstance(model, nn.Module):
        yield _device(device) if device is not None else torch.device("cpu")
        return
    home, movable = where_it_lies(model, name)
    place = _device(device) if device is not None else home
    # "cuda" is "cuda:0": no move for what cannot be moved.
    moves = (torch.empty(0, device=place).device if place.index is None else place) != home
    if moves and not movable:
        raise InputError(
            f"device={str(device)!r} came, and {name} lies on several devices or is offloaded, so it cannot be moved "
            "in one piece. Leave device out: it is measured where it lies."
        )
    if moves and place.type == "meta":  # a model that is moved there has lost its weights
        raise InputError("device='meta' cannot be used: it holds no values. Leave device out.")
    modes = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        if moves:
            _move(model, place, name)
        yield place
    finally:
        for module, training in modes:
            module.training = training
        # What was loaded here is dropped, not carried back: that would copy all its weights for nothing.
        if moves and bring_back:
            model.to(home)


def _move(model: nn.Module, place: torch.device, name: str) -> None:
    try:
        model.to(place)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{name} does not fit into the memory of {place}: {first_line(error).rstrip('.')}.") from error
    except ValueError as error:  # quantized models that stay where they were quantized
        raise InputError(
            f"{name} cannot be moved to {place}: {first_line(error).rstrip('.')}. Leave device out."
        ) from error


def _as_asked(
    model: OpenModel,
    tokenizer: TokenizerLike | None,
    device: DeviceLike | None,
    dtype: DTypeLike | None,
    revision: str | None,
) -> OpenModel:
    """An open model, after checking that nothing else is asked for; with the tokenizer where it has none."""
    name = model.record["name"]
    if device is not None and _device(device).type != model.device.type:
        raise InputError(f"device={str(device)!r} came with {name}, which is open on {model.device}. Leave device out.")
    own = model.record["dtype"]
    if dtype is not None and str(dtype).removeprefix("torch.") != own:
        raise InputError(f"dtype={dtype!r} came with {name}, which is open in {own}. Leave dtype out.")
    if revision is not None and revision != model.record["revision"]:
        raise InputError(
            f"revision={revision!r} came with {name}, which is open at revision {model.record['revision']}. Leave "
            "revision out."
        )
    if tokenizer is None or tokenizer is model.tokenizer:
        return model
    loaded = load_tokenizer(tokenizer)
    if model.tokenizer is None:
        return replace(model, tokenizer=loaded, max_length=model.max_length or _max_length(None, loaded))
    ours, theirs = tokenizer_record(model.tokenizer), tokenizer_record(loaded)
    if ours is not None and theirs is not None and ours["vocab_sha256"] != theirs["vocab_sha256"]:
        raise InputError(
            f"a tokenizer {theirs['class']} of {theirs['vocab_size']} tokens came with {name}, which is open with "
            f"another one ({ours['class']} of {ours['vocab_size']} tokens). Leave the tokenizer out, or open the "
            "model with this one."
        )
    return model


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"device={str(name)!r} cannot be used here: {first_line(error).rstrip('.')}.") from error
    return device


def _max_length(model: Any, tokenizer: Any) -> int | None:
    for limit in (position_limit(model), as_integer(getattr(tokenizer, "model_max_length", None))):
        if limit is not None and 0 < limit < _UNLIMITED:
            return limit
    return None


def _weight_files(source: str, placed: Mapping[str, Any] | None) -> dict[str, str] | None:
    """SHA-256 of a folder's weight files, those of the base under an adapter among them; None unless all are here."""
    parts = [weight_digests(folder) for folder in ([source] if placed is None else [placed["base"], source])]
    return None if None in parts else {name: sha for part in parts if part for name, sha in part.items()}


def _name_of(model: Any, source: str | None) -> str:
    if source is not None:
        return source
    if isinstance(model, nn.Module):
        return type(unwrapped(model)).__name__
    return repr(model) if isinstance(model, UniformModel) else getattr(model, "__qualname__", type(model).__name__)


def model_record(
    model: Any,
    name: str,
    revision: str | None,
    device: torch.device,
    placed: Mapping[str, Any] | None = None,
    *,
    without_adapters: bool = False,
) -> dict[str, Any]:
    """What is known of a model beside what it says: taken after the probe, which makes the weights of lazy modules.

    `placed`: what loading an adapter from its folder has found. Without adapters it is the base that is described.
    """
    config = getattr(model, "config", None)
    record: dict[str, Any] = {
        "name": name,
        "class": type(model).__name__,
        "revision": revision or getattr(config, "_commit_hash", None),
        "fingerprint": repr(model) if isinstance(model, UniformModel) else None,
        "unread_weights": None,
        "weight_files": None,
        "n_params": None,
        "n_non_embedding_params": None,
        "n_trained_params": None,
        "uncounted": None,
        "dtype": None,
        "device": str(device),
        "adapter": None,
    }
    if not isinstance(model, nn.Module):
        return record
    module, carrier = unwrapped(model), carrier_of(model)
    state, among = module.state_dict(keep_vars=True), None
    if carrier is not None:
        parts = parts_of(carrier)
        if without_adapters:
            module, state, among = base_of_carrier(carrier), parts.base_state, parts.base
        else:
            state, among = {**parts.base_state, **parts.adapter_state}, parts.used
            record["adapter"] = adapter_record(carrier, parts, placed)
    weights, why = weights_of(state, offloaded(module)), uncounted(module)
    first = next(module.parameters(), None)
    return record | {
        "class": type(module).__name__,
        "fingerprint": weights.sha256,
        "unread_weights": weights.unread,
        "n_params": n_params(module, among) if why is None else None,
        "n_non_embedding_params": n_non_embedding_params(module, among) if why is None else None,
        "n_trained_params": None if record["adapter"] is None else n_trained_params(carrier, parts, placed),
        "uncounted": why,
        "dtype": str(first.dtype).removeprefix("torch.") if first is not None else None,
    }
