"""What a model was trained to read before a sample: first_token="auto" asks it, with the BOS in front and without."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from memorization.coding.intervals import code_tokens
from memorization.errors import FirstTokenWarning, warn
from memorization.measure.batches import BatchSize
from memorization.measure.context import (
    Charge,
    Evidence,
    FirstToken,
    brings_context,
    eos_in_front,
    sequences_of,
)
from memorization.measure.later_windows import ask_later_windows
from memorization.measure.opening import OpenModel, UniformModel
from memorization.measure.passes import Window, read_windows
from memorization.samples import Samples

__all__ = ["settle_first_token"]

_SAMPLES_ASKED = 64
_TOKENS_ASKED = 128  # the first of each sample
_FEWEST_TOKENS = 16  # fewer give no standard error to go by
_STANDARD_ERRORS = 4  # that the mean difference must lie above 0: in 30,000 models that do not care, one passes
_LEAST_SHARE = 0.005  # of the bits: less is not worth leaving the default for
_TELLING_SHARE = 0.02  # of the bits: that much, if it is no accident, is worth a warning
_TELLING_ERRORS = 2
_STRONG_BITS = 20  # by which a sample speaks for a context on its own: as sure as one in a million


class _Difference(NamedTuple):
    """How much dearer the tokens are one way than another: bits a token, standard error, share of the bits."""

    bits: float
    stderr: float
    share: float

    def beyond(self, errors: int, share: float) -> bool:
        return self.bits > errors * self.stderr and self.share >= share


def settle_first_token(
    first: FirstToken,
    model: OpenModel,
    samples: Samples,
    *,
    charge: Charge | None = None,
    max_length: int | None,
    stride: int | None,
    batch_size: BatchSize,
) -> FirstToken:
    """What `first_token="auto"` comes to with this model and these samples; a named rule comes back as it is.

    The first 128 tokens of up to 64 samples are coded with the BOS in front, with nothing, and with the EOS where that
    is another token. The BOS (without one: nothing) is what the others have to beat:

    - Where samples that are cheaper by 20 bits or more speak for one of the three alone, it is taken: a few memorized
      samples among many hardly move a mean.
    - Else, what is cheaper over tokens 2 to n by more than 4 standard errors and 0.5 % of their bits.

    As a code, the choice costs at most log2 3 bits for all samples together, and that about later windows 1.

    Args:
        first: what `resolve_first_token` gave.
        model: opened.
        samples: tokenized; those under audit, whose choice holds for their control as well.
        charge: of the first token, where it is settled already. None: "given" where a token stands in front, else
            "uniform".
        max_length: inputs a window holds.
        stride: new tokens of a later window; None leaves later windows as they are.
        batch_size: windows a forward pass.

    Warns:
        FirstTokenWarning: another context than the BOS was taken; or it might have to be, or samples speak for several.
    """
    assert samples.ids is not None
    if samples.conditional == "messages" and first.asked == "auto":  # the chat template writes all that a model reads
        by_template = first.rule == "bos" and all(brings_context(samples, first, ids) for ids in samples.ids)
        return first if by_template else FirstToken(first.asked, "uniform", None, None)
    first = eos_in_front(first, model.tokenizer)
    if first.asked != "auto" or first.rule != "bos" or first.id is None or not _in_range(model, samples, first.id):
        return first if charge is None or first.asked != "auto" else first.charged(charge)
    if all(brings_context(samples, first, ids) for ids in samples.ids):
        if charge == "uniform" or charge == "skip":
            return FirstToken(first.asked, charge, None, None)
    elif model.record["class"] != UniformModel.__name__:
        first = _asked(first, model, samples, max_length, batch_size)
    if first.context is not None and max_length is not None and max_length > 1 and stride is not None:
        found = ask_later_windows(model, sequences_of(samples, first).read, first.context, max_length, stride)
        if found is not None:
            first = replace(first, later_windows=found[0], every_window=found[1])
    return first.charged(charge or ("given" if first.in_front else "uniform"))


def _in_range(model: OpenModel, samples: Samples, bos: int) -> bool:
    """Whether the model has all these ids: the measurement itself refuses others, and names them."""
    assert samples.ids is not None
    flat = np.concatenate([[bos], *samples.ids])
    return bool(flat.min() >= 0 and flat.max() < model.vocab_size)


def _asked(
    first: FirstToken, model: OpenModel, samples: Samples, max_length: int | None, batch_size: BatchSize
) -> FirstToken:
    """The context that the model's own bits speak for."""
    assert samples.ids is not None
    assert first.id is not None
    n_most = _TOKENS_ASKED if max_length is None else min(_TOKENS_ASKED, max_length)
    usable = [ids for ids in samples.ids if len(ids) > 1 and not brings_context(samples, first, ids)]
    places = np.unique(np.linspace(0, len(usable) - 1, min(_SAMPLES_ASKED, len(usable))).round().astype(int))
    chosen = [usable[place][:n_most] for place in places]
    if not chosen or n_most < 2:
        return first
    ways = _ways(first, model)
    bits = dict(zip(ways, _bits(model, chosen, [ways[way] for way in ways], max_length, batch_size), strict=True))
    bits = {way: parts for way, parts in bits.items() if all(np.isfinite(part).all() for part in parts)}
    if next(iter(ways)) not in bits or "without" not in bits:
        return first  # a token of probability 0: the measurement says where
    default = "without" if first.is_eos else "with"
    strong, mean = _strong(bits), {way: _mean(parts) for way, parts in bits.items()}
    evidence = Evidence(
        id=first.id,
        token=first.token,
        n_samples=len(chosen),
        n_tokens=sum(len(ids) - 1 for ids in chosen),
        bits_with=mean["eos" if first.is_eos else "with"],
        bits_without=mean["without"],
        bits_eos=mean.get("eos"),
        strong_with=strong.get("with", 0),
        strong_without=strong["without"],
        strong_eos=strong.get("eos", 0),
    )
    taken = _taken(bits, default, strong, evidence.n_tokens)
    settled = replace(first, in_front=taken != "without", evidence=evidence)
    eos = ways.get("eos")
    if taken == "eos" and eos is not None and not first.is_eos:
        settled = replace(_of_eos(first, eos, model), evidence=evidence)
    _warn(settled, model, bits, taken, default)
    return settled


def _of_eos(first: FirstToken, eos: int, model: OpenModel) -> FirstToken:
    """The same with the EOS in front."""
    token = model.tokenizer.convert_ids_to_tokens(eos)
    return replace(first, rule="bos", id=eos, token=token, is_eos=True, in_front=True)


def _ways(first: FirstToken, model: OpenModel) -> dict[str, int | None]:
    """What may stand in front, by name: the BOS, nothing, and the EOS where it is another token."""
    if first.is_eos:
        return {"eos": first.id, "without": None}
    eos = getattr(model.tokenizer, "eos_token_id", None)
    ways: dict[str, int | None] = {"with": first.id, "without": None}
    if isinstance(eos, int) and eos != first.id and 0 <= eos < model.vocab_size:
        ways["eos"] = eos
    return ways


def _strong(bits: dict[str, list[np.ndarray]]) -> dict[str, int]:
    """Of each way, the samples that it makes cheaper than any other does by 20 bits or more."""
    totals = {way: np.array([float(part.sum()) for part in parts]) for way, parts in bits.items()}
    others = {way: np.min([total for other, total in totals.items() if other != way], axis=0) for way in totals}
    return {way: int(np.sum(others[way] - total >= _STRONG_BITS)) for way, total in totals.items()}


def _taken(bits: dict[str, list[np.ndarray]], default: str, strong: dict[str, int], n_tokens: int) -> str:
    """The way that the model's own bits speak for."""
    spoken_for = [way for way, n in strong.items() if n]
    if len(spoken_for) == 1:
        return spoken_for[0]
    if n_tokens < _FEWEST_TOKENS:
        return default
    better = [
        way
        for way in bits
        if way != default and _difference(bits[default], bits[way]).beyond(_STANDARD_ERRORS, _LEAST_SHARE)
    ]
    return min(better, key=lambda way: _mean(bits[way]), default=default)


def _bits(
    model: OpenModel,
    samples: list[np.ndarray],
    ways: list[int | None],
    max_length: int | None,
    batch_size: BatchSize,
) -> list[list[np.ndarray]]:
    """-log2 p of tokens 2 to n of each sample, for each context that stands in front."""
    sequences = [ids if way is None else np.concatenate([[way], ids]) for way in ways for ids in samples]
    found: dict[int, np.ndarray] = {}

    def ideal_bits(logits: Tensor, rows: np.ndarray, ids: np.ndarray, batch: list[Window]) -> list[np.ndarray]:
        bits = code_tokens(logits, torch.from_numpy(rows), torch.from_numpy(ids)).ideal_bits
        return np.split(bits, np.cumsum([n for *_, n in batch])[:-1])

    read_windows(
        model,
        sequences,
        max_length=max_length,
        stride=None,
        batch_size=batch_size,
        read=ideal_bits,
        on_read=lambda k, parts: found.update({k: parts[0]}),
        progress=False,
    )
    n = len(samples)
    return [[found[w * n + k][1 - len(samples[k]) :] for k in range(n)] for w in range(len(ways))]


def _mean(bits: list[np.ndarray]) -> float:
    return float(np.concatenate(bits).mean())


def _difference(dearer: list[np.ndarray], cheaper: list[np.ndarray]) -> _Difference:
    """By how much one way is dearer than another; the larger of two standard errors, over tokens and over samples."""
    parts = [ours - theirs for ours, theirs in zip(dearer, cheaper, strict=True)]
    each = np.concatenate(parts)
    if len(each) < 2:
        return _Difference(float(each.mean()), math.inf, float(each.mean()) / max(_mean(dearer), 1e-9))
    mean = float(each.mean())
    stderr = float(each.std(ddof=1)) / math.sqrt(len(each))
    if len(parts) > 1:  # tokens of one sample may go together
        off = np.array([float((part - mean).sum()) for part in parts])
        stderr = max(stderr, math.sqrt(float((off**2).sum()) * len(parts) / (len(parts) - 1)) / len(each))
    return _Difference(mean, stderr, mean / max(_mean(dearer), 1e-9))


def _warn(first: FirstToken, model: OpenModel, bits: dict[str, list[np.ndarray]], taken: str, default: str) -> None:
    """Say that another context than the default was taken; or that it might have to be, or that samples disagree."""
    found = first.evidence
    assert found is not None
    named = {"with": f"after the BOS {_name(found)}", "without": "with nothing in front", "eos": _after_eos(model)}
    mean = {way: _mean(parts) for way, parts in bits.items()}
    others = [way for way in bits if way != taken]
    told = (
        f"tokens 2 to n of {found.n_samples} samples cost {mean[taken]:.3g} bits each {named[taken]}, and "
        f"{', '.join(f'{mean[way]:.3g} {named[way]}' for way in others)}"
    )
    pass_others = " or ".join(f"first_token={_rule(way, model)}" for way in others)
    strong = {way: getattr(found, f"strong_{way}") for way in bits}
    if sum(n > 0 for n in strong.values()) > 1:
        each = ", ".join(f"{n} {named[way]}" for way, n in strong.items() if n)
        warn(
            f"cannot tell what stood in front of samples when {model.record['name']} was trained: of {found.n_samples} "
            f"samples asked, some are cheaper by {_STRONG_BITS} bits or more one way, and some another ({each}). What "
            f"is memorized behind another context than the one taken ({named[taken]}) is not seen; measure with "
            f"{pass_others} as well.",
            FirstTokenWarning,
        )
    elif taken == "without" and default != taken:
        warn(
            f"{model.record['name']} was likely trained without a BOS in front of samples: {told}. So nothing is put "
            f"in front of them here; pass {pass_others} if that is wrong.",
            FirstTokenWarning,
        )
    elif taken == "eos":
        warn(
            f"{model.record['name']} was likely trained with the EOS in front of samples: {told}. So it is put in "
            f"front of them here; pass {pass_others} if that is wrong.",
            FirstTokenWarning,
        )
    elif any(_difference(bits[taken], bits[way]).beyond(_TELLING_ERRORS, _TELLING_SHARE) for way in others):
        warn(
            f"cannot tell whether {model.record['name']} was trained with a BOS in front of samples: {told}, and these "
            f"are too few tokens ({found.n_tokens:,}) to go by. They are read {named[taken]}; pass {pass_others} by "
            "what it was trained with.",
            FirstTokenWarning,
        )


def _after_eos(model: OpenModel) -> str:
    eos = getattr(model.tokenizer, "eos_token_id", None)
    return "" if eos is None else f"after the EOS {model.tokenizer.convert_ids_to_tokens(eos)!r}"


def _rule(way: str, model: OpenModel) -> str:
    """What to pass for a way."""
    if way == "eos":
        return f'"{model.tokenizer.convert_ids_to_tokens(model.tokenizer.eos_token_id)}"'
    return '"bos"' if way == "with" else '"uniform"'


def _name(found: Evidence) -> str:
    return repr(found.token) if found.token is not None else f"id {found.id}"
