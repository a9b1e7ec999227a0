"""Whether two models agree on the same samples: in tokens, nearly, or to the last bit."""

import math
from collections.abc import Sequence

import numpy as np

from memorization.errors import SameModelWarning, warn
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.fingerprint import same_model
from memorization.measure.opening import UniformModel
from memorization.measure.rows import in_pieces

__all__ = ["alike", "same_tokens", "warn_of_one_model"]

_SAME_BITS = 1e-5  # a token: what one model differs by from itself; two checkpoints differ by more somewhere


def alike(ours: Sequence[CodeLengths], theirs: Sequence[CodeLengths], bits: float) -> bool:
    """Whether two models differ by less than `bits` a token, root mean square, on each of these sets.

    Only where tokens are not the same, fingerprints decide: those of two callables may agree on the few tokens of a
    probe, as a model and what was made of it do.
    """
    if not all(same_tokens(a, b) for a, b in zip(ours, theirs, strict=True)):
        return same_model(ours[0].settings["model"], theirs[0].settings["model"])
    return all(_apart(a, b) < bits for a, b in zip(ours, theirs, strict=True))


def _apart(ours: CodeLengths, theirs: CodeLengths) -> float:
    """Bits a token that two models with the same tokens differ by, root mean square."""
    squares = sum(float(((a.token_bits - b.token_bits) ** 2).sum()) for _, (a, b) in in_pieces(ours, theirs))
    return math.sqrt(squares / (int(ours.token_offsets[-1]) or math.nan))


def same_tokens(ours: CodeLengths, theirs: CodeLengths) -> bool:
    """Whether two models cut the samples into the same tokens."""
    if ours is theirs:
        return True
    if not np.array_equal(ours.n_tokens, theirs.n_tokens):
        return False
    return all(np.array_equal(a.token_ids, b.token_ids) for _, (a, b) in in_pieces(ours, theirs))


def warn_of_one_model(pairs: Sequence[tuple[CodeLengths, CodeLengths]]) -> None:
    """Warn where target and oracle agree on every token: no two models do, but one model under two names does."""
    target, oracle = pairs[0]
    models = [lengths.settings["model"] for lengths in (target, oracle)]
    if all(model["class"] == UniformModel.__name__ for model in models):
        return
    if all(
        a.token_bits.shape == b.token_bits.shape and np.allclose(a.token_bits, b.token_bits, rtol=0, atol=_SAME_BITS)
        for pair in pairs
        for _, (a, b) in in_pieces(*pair)
    ):
        one, other = models[0]["name"], models[1]["name"]
        same = f"target ({one}) and oracle ({other}) give every token the same bits, so memU is 0"
        warn(
            f"{same}: the adapter changes none of them, switched on or off. Is it saved untrained (LoRA's B is 0 then)?"
            if models[1].get("base_of")
            else f"{same}: they are one model, or differ only where these samples do not look, or behind another first "
            "token. Adapters such as LoRA change their base model in place, so that it is no oracle any more: pass "
            'oracle="base-of-target", or load the base anew.',
            SameModelWarning,
        )
