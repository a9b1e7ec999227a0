"""What a model was trained to read before a sample: first_token="auto" asks it, with the BOS in front and without."""

import math
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from memorization.coding.intervals import code_tokens
from memorization.errors import FirstTokenWarning, warn
from memorization.measure.context import (
    Charge,
    Evidence,
    FirstToken,
    brings_context,
    sequences_of,
)
from memorization.measure.later_windows import ask_later_windows
from memorization.measure.opening import OpenModel, UniformModel
from memorization.measure.passes import Window, read_windows
from memorization.samples import Samples

__all__ = ["settle_first_token"]

_SAMPLES_ASKED = 32
_TOKENS_ASKED = 128  # the first of each sample
_FEWEST_TOKENS = 16  # fewer give no standard error to go by
_STANDARD_ERRORS = 4  # that the mean difference must lie above 0: in 30,000 models that do not care, one passes
_LEAST_SHARE = 0.005  # of the bits: less is not worth leaving the default for
_TELLING_SHARE = 0.02  # of the bits: that much, if it is no accident, is worth a warning
_TELLING_ERRORS = 2


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
    batch_size: int | Literal["auto"],
) -> FirstToken:
    """What `first_token="auto"` comes to with this model and these samples; a named rule comes back as it is.

    The first 128 tokens of up to 32 samples are coded with the BOS in front and without. The BOS stays unless tokens 2
    to n are cheaper without it by more than 4 standard errors and 0.5 % of their bits. As a code, the choice costs 1
    bit for all samples together, and so does that about later windows.

    Args:
        first: what `resolve_first_token` gave.
        model: opened.
        samples: tokenized; those under audit, whose choice holds for their control as well.
        charge: of the first token, where it is settled already. None: "given" where the BOS stays, else "uniform".
        max_length: inputs a window holds.
        stride: new tokens of a later window; None leaves later windows as they are.
        batch_size: windows a forward pass.

    Warns:
        FirstTokenWarning: the BOS was left; or it might have to be, or another token taken for it.
    """
    assert samples.ids is not None
    if first.asked != "auto" or first.rule != "bos" or first.id is None or not _in_range(model, samples, first.id):
        return first if charge is None or first.asked != "auto" else first.charged(charge)
    if all(brings_context(samples, first, ids) for ids in samples.ids):
        if charge == "uniform" or charge == "skip":
            return FirstToken(first.asked, charge, None, None)
    elif model.record["class"] != UniformModel.__name__:
        first = _asked(first, model, samples, max_length, batch_size)
    if first.context is not None and max_length is not None and max_length > 1 and stride is not None:
        found = ask_later_windows(model, sequences_of(samples, first)[0], first.context, max_length, stride)
        if found is not None:
            first = replace(first, later_windows=found[0], every_window=found[1])
    return first.charged(charge or ("given" if first.in_front else "uniform"))


def _in_range(model: OpenModel, samples: Samples, bos: int) -> bool:
    """Whether the model has all these ids: the measurement itself refuses others, and names them."""
    assert samples.ids is not None
    flat = np.concatenate([[bos], *samples.ids])
    return bool(flat.min() >= 0 and flat.max() < model.vocab_size)


def _asked(
    first: FirstToken, model: OpenModel, samples: Samples, max_length: int | None, batch_size: int | Literal["auto"]
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
    eos = getattr(model.tokenizer, "eos_token_id", None)
    ways: list[int | None] = [first.id, None]
    if isinstance(eos, int) and eos != first.id and 0 <= eos < model.vocab_size:
        ways.append(eos)
    bits = _bits(model, chosen, ways, max_length, batch_size)
    if not all(np.isfinite(of_sample).all() for way in bits[:2] for of_sample in way):
        return first  # a token of probability 0: the measurement says where
    without = _difference(bits[0], bits[1])
    means = [_mean(way) for way in bits]
    evidence = Evidence(first.id, first.token, len(chosen), sum(len(ids) - 1 for ids in chosen), *means[:2])
    if math.isfinite(means[-1]) and len(means) > 2:
        evidence = replace(evidence, bits_eos=means[2])
    left = evidence.n_tokens >= _FEWEST_TOKENS and without.beyond(_STANDARD_ERRORS, _LEAST_SHARE)
    settled = replace(first, in_front=not left, evidence=evidence)
    _warn(settled, model, without)
    if evidence.bits_eos is not None and all(
        _difference(way, bits[2]).beyond(_STANDARD_ERRORS, _TELLING_SHARE) for way in bits[:2]
    ):
        _warn_of_eos(evidence, model)
    return settled


def _bits(
    model: OpenModel,
    samples: list[np.ndarray],
    ways: list[int | None],
    max_length: int | None,
    batch_size: int | Literal["auto"],
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


def _warn(first: FirstToken, model: OpenModel, without: _Difference) -> None:
    """Say that the BOS was left; or that it might have to be, and that the samples are too few to tell."""
    found = first.evidence
    assert found is not None
    bos = _name(found)
    told = (
        f"tokens 2 to n of {found.n_samples} samples cost {found.bits_without:.3g} bits each with nothing in front, "
        f"and {found.bits_with:.3g} after the BOS {bos}"
    )
    if not first.in_front:
        warn(
            f"{model.record['name']} was likely trained without a BOS in front of samples: {told}. So nothing is put "
            'in front of them here; pass first_token="bos" if that is wrong.',
            FirstTokenWarning,
        )
    elif without.beyond(_TELLING_ERRORS, _TELLING_SHARE):
        warn(
            f"cannot tell whether {model.record['name']} was trained with a BOS in front of samples: {told}, and these "
            f'are too few tokens ({found.n_tokens:,}) to go by. The BOS is put in front; pass first_token="bos" or '
            'first_token="uniform" by what it was trained with.',
            FirstTokenWarning,
        )


def _warn_of_eos(found: Evidence, model: OpenModel) -> None:
    eos = model.tokenizer.convert_ids_to_tokens(model.tokenizer.eos_token_id)
    warn(
        f"{model.record['name']} was likely trained with the EOS {eos!r} in front of samples: tokens 2 to n of "
        f"{found.n_samples} samples cost {found.bits_eos:.3g} bits each after it, {found.bits_with:.3g} after the BOS "
        f'{_name(found)} and {found.bits_without:.3g} with nothing in front. Pass first_token="{eos}".',
        FirstTokenWarning,
    )


def _name(found: Evidence) -> str:
    return repr(found.token) if found.token is not None else f"id {found.id}"
