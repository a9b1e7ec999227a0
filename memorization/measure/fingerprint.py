"""What tells one model from another: a digest of its weights, and what it says of a few tokens."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

_VALUES = 4096  # of each tensor, evenly spread: reading all of a large model would take longer than a measurement
_GOLDEN = (math.sqrt(5) - 1) / 2
# Differences between two runs of one model, in parts of the spread of its logits: kernels sum in another order.
_NOISE = {"full": 1e-3, "half": 3e-2}


class Weights(NamedTuple):
    """The digest of a model's weights, and which of them it could not read: their number and the first one's name."""

    sha256: str
    unread: dict[str, Any] | None


def weights_of(state: Mapping[str, Any], offloaded: Mapping[int, Callable[[], Tensor]] | None = None) -> Weights:
    """Names, shapes, dtypes and an even spread of the values of all parameters and buffers of a state_dict.

    `offloaded` reads the tensors that are not in memory, by their id(). Values that cannot be read (on the meta device
    with nothing that brings them, packed in a class of its own) are left out and counted.
    """
    elsewhere = offloaded or {}
    digest = hashlib.sha256()
    unread = []
    for name, value in _tensors(state):
        if not isinstance(value, Tensor):
            told = repr(value) if isinstance(value, (bool, int, float, str, torch.dtype)) else type(value).__name__
            digest.update(f"{name} {told};".encode())
            if told == type(value).__name__ and value is not None:
                unread.append(name)
            continue
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        values = some_values(value, elsewhere.get(id(value)))
        if values is None:
            unread.append(name)
        else:
            digest.update(values)
    return Weights(digest.hexdigest(), {"n": len(unread), "first": unread[0]} if unread else None)


def _tensors(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in state.items():
        name = name.replace("_orig_mod.", "")  # torch.compile's
        if isinstance(value, (tuple, list)):  # torch's quantized modules: (weight, bias)
            yield from ((f"{name}.{i}", part) for i, part in enumerate(value))
        else:
            yield name, value


def some_values(tensor: Tensor, read: Callable[[], Tensor] | None = None) -> bytes | None:
    """An even spread of a tensor's values; None where they cannot be read. `read` brings those of an offloaded one."""
    if tensor.is_meta:
        with contextlib.suppress(Exception):
            brought = None if read is None else read()
            if brought is not None and not brought.is_meta and brought.shape == tensor.shape:
                return some_values(brought.to(tensor.dtype))
        return None
    for method in ("detach", "dequantize"):
        try:
            flat: Tensor = getattr(tensor, method)().detach().flatten()
            if flat.is_complex():
                flat = torch.view_as_real(flat).flatten()
            step = max(1, len(flat) // _VALUES)
            return flat[::step].to("cpu", torch.float64).numpy().tobytes()
        except Exception:
            continue
    return None


def probe_record(ids: Tensor, logits: Tensor) -> dict[str, Any] | None:
    """A few rounded numbers for each position of the logits (1, position, vocab) that a model gives to some ids.

    For each position the spread of the logits, two weighted sums of all of them, and how many are not finite. A
    constant added to all logits of a position changes nothing, as it changes no probability.

    Guarantees:
        The numbers move as little as the logits do: noise of kernels, of 1e-6 of the spread, moves them by 1e-6 of it.
            `same_model`
        compares them with a tolerance of a thousand times that. `sha256` is of the numbers rounded to thousandths of
        the spread: the same in every process on the same machine and versions, and under noise of 1e-6 in 95 of 100
            models. Models that differ in
        logits of these ids by more than some thousandths of the spread differ in it; what differs elsewhere alone is
        not seen.
    """
    if logits.is_meta:
        return None
    rows = logits[0].to("cpu", torch.float64)
    width = rows.shape[1]
    finite = rows.isfinite()
    count = finite.sum(1, keepdim=True)
    rows = torch.where(finite, rows, 0.0)
    largest = rows.abs().amax(1, keepdim=True)
    rows = torch.where(finite, rows - rows.sum(1, keepdim=True) / count.clamp(min=1), 0.0)
    place = torch.arange(width, dtype=torch.float64)
    weights = torch.stack([torch.cos(2 * math.pi * ((place * step) % 1.0)) for step in (_GOLDEN, _GOLDEN**2 / 2)])
    spread = rows.square().mean(1, keepdim=True).sqrt()
    spread = torch.where(spread > 1e-6 * largest, spread, 0.0)  # less is rounding
    sums = torch.where(spread > 0, rows @ weights.T / math.sqrt(width), 0.0)
    numbers = torch.cat([spread, sums, (width - count).double()], dim=1).tolist()
    rounded = [[f"{s:.4g}", *(round(x / s, 3) + 0.0 if s else 0.0 for x in xs), n] for s, *xs, n in numbers]
    told = f"{width} {ids[0].tolist()} {rounded}"
    return {
        "ids": ids[0].tolist(),
        "vocab_size": width,
        "numbers": numbers,
        "precision": "half" if logits.element_size() < 4 else "full",
        "sha256": hashlib.sha256(told.encode()).hexdigest(),
    }


def same_model(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether two records (`settings["model"]`) are of one model, as far as records tell.

    Models whose logits differ are two. Among those that agree, the digests of the weights decide where both were read
    in full, and those of the files where neither could be; then the logits; and the name where nothing else is known
    (callables in results of version 0.1.0).
    """
    alike = _alike(ours, theirs)
    if alike is False:
        return False
    a, b = ours["fingerprint"], theirs["fingerprint"]
    whole = not (ours.get("unread_weights") or theirs.get("unread_weights"))
    if a and b and whole:
        return bool(a == b)
    files, others = ours.get("weight_files"), theirs.get("weight_files")
    if files and others:
        return bool(files == others)
    if alike is not None:
        return alike
    return bool((a or ours["name"]) == (b or theirs["name"]))


def _alike(ours: dict[str, Any], theirs: dict[str, Any]) -> bool | None:
    """Whether two probes agree where both models read the same ids; None where there is no such position."""
    a, b = ours.get("probe"), theirs.get("probe")
    if not a or not b:
        return None
    if a["vocab_size"] != b["vocab_size"]:
        return False
    tolerance = max(_NOISE[a["precision"]], _NOISE[b["precision"]])
    compared = 0
    for i, j, (s, *xs, n), (t, *ys, m) in zip(a["ids"], b["ids"], a["numbers"], b["numbers"], strict=False):
        if i != j:
            break
        near = tolerance * max(s, t)
        if n != m or abs(s - t) > near or any(abs(x - y) > near for x, y in zip(xs, ys, strict=True)):
            return False
        compared += 1
    return True if compared else None
