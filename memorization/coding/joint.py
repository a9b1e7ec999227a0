"""Several codes of the same tokens as one: the joint code length H(x | oracle, target), and mixtures of models."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float64, Int64

JointCode = Literal["max", "mixture", "switch"]
MixedCode = Literal["mixture", "switch"]
# Bits of the tokens under the target and under the oracle, and where each sample begins.
TokenBits: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
# How likely the next token is another model's. From every other token to one in a thousand; half of the prior is on
# never.
SWITCH_RATES = tuple(2.0**-k for k in (1, 3, 5, 7, 9))


def joint_bits(
    target_bits: Float64[np.ndarray, " sample"],
    oracle_bits: Float64[np.ndarray, " sample"],
    code: JointCode,
    tokens: TokenBits | None = None,
) -> Float64[np.ndarray, " sample"]:
    """Bits of each sample for a coder that may use both models.

    Args:
        target_bits: bits of each sample under the target, float64.
        oracle_bits: under the oracle, float64.
        code: "max" takes the better model for each whole sample, -log2 max(p_t, p_o): the paper's bound, which leaves
            out the bit that tells the decoder which. "mixture" is a code, -log2((p_t + p_o) / 2), which costs at most 1
            bit more. "switch" is a code that may change models at every token, `mixed_token_bits`: at most 1 bit more
            than the mixture, and less than either model where each is the better one in parts.
        tokens: for "switch": ideal bits of the tokens under the target and under the oracle, one sample after the
            other, and the first token's place of each sample, with the end (n_samples + 1). What a sample's bits are
            more than its tokens' stands with its first token.

    Examples:
        >>> import numpy as np
        >>> joint_bits(np.array([3.0]), np.array([3.0]), "mixture").tolist()
        [3.0]

    Source:
        arXiv:2505.24832, section 2.3.
    """
    if code == "max":
        return np.asarray(np.minimum(target_bits, oracle_bits))
    if code == "mixture":
        return np.asarray(1.0 - np.logaddexp2(-target_bits, -oracle_bits))
    assert tokens is not None
    *codes, offsets = (np.array(part) for part in tokens)
    for bits, whole in zip(codes, (target_bits, oracle_bits), strict=True):
        bits[offsets[:-1]] += whole - np.add.reduceat(bits, offsets[:-1])
    return np.add.reduceat(mixed_token_bits(codes, offsets, "switch"), offsets[:-1])


def mixed_token_bits(
    codes: Sequence[Float64[np.ndarray, " token"]], offsets: Int64[np.ndarray, " edge"], code: MixedCode
) -> Float64[np.ndarray, " token"]:
    """Bits of each token under a Bayesian mixture of models, which knows the tokens before it in the same sample.

    Args:
        codes: bits of the tokens under each of k models, float64, one sample after the other.
        offsets: sample i owns the tokens offsets[i] to offsets[i + 1], int64 (n_samples + 1).
        code: "mixture": one of the models codes the whole sample, each with prior 1/k; never more than log2 k bits
            above the best of them. "switch": from token to token the model may change, to any other alike, at a rate
            that is 2^-1, 2^-3, 2^-5, 2^-7 or 2^-9 (prior 1/10 each) or 0 (prior 1/2, which is the mixture); never
            more than 1 bit above the mixture.

    Returns:
        Bits of each token given the ones before it, which add up to -log2 of the sample's probability.

    Guarantees:
        A code: the probabilities of all continuations add up to 1, since the weights of the models are made of what a
        decoder knows. Each sample begins anew.

    Examples:
        Each of two models codes one half of a sample for nothing, and needs 20 bits a token for the other half.

        >>> import numpy as np
        >>> halves = [np.repeat([0.0, 20.0], 10), np.repeat([20.0, 0.0], 10)]
        >>> [round(float(mixed_token_bits(halves, np.array([0, 20]), c).sum()), 1) for c in ("mixture", "switch")]
        [200.0, 9.1]

    Source:
        Herbster and Warmuth, "Tracking the best expert", Machine Learning 32 (1998), for a fixed rate; Volf and
        Willems, "Switching between two universal source coding algorithms", DCC 1998, for mixing over ways to switch.
    """
    bits = np.stack(codes)
    n_models, n_samples = len(bits), len(offsets) - 1
    rates = np.array(SWITCH_RATES if code == "switch" and n_models > 1 else ())
    prior = np.full(len(rates), 0.5 / max(len(rates), 1))
    n_tokens = np.diff(offsets)
    order = np.argsort(-n_tokens, kind="stable")  # the samples that go on, in front
    whole = np.zeros((n_samples, n_models))  # bits so far of the models that code whole samples,
    switching = np.zeros((n_samples, len(rates)))  # and of the codes that change models,
    weights = np.full((n_samples, len(rates), n_models), 1 / n_models)  # which give these weights to the next token's
    told = np.zeros(n_samples)
    out = np.empty(bits.shape[1])
    for place in range(int(n_tokens.max(initial=0))):
        going = int(np.searchsorted(-n_tokens[order], -place))
        token = offsets[order[:going]] + place
        here = bits[:, token].T
        whole[:going] += here
        total = np.logaddexp2.reduce(-whole[:going], axis=1) - np.log2(n_models)
        if len(rates):
            least = here.min(axis=1, keepdims=True)
            share = weights[:going] * np.exp2(least - here)[:, None, :]
            mass = share.sum(axis=2, keepdims=True)
            switching[:going] += least - np.log2(mass[:, :, 0])
            stays = share / mass
            weights[:going] = stays + rates[:, None] * ((1 - stays) / (n_models - 1) - stays)
            total = np.logaddexp2(total - 1, np.logaddexp2.reduce(np.log2(prior) - switching[:going], axis=1))
        out[token] = -total - told[:going]
        told[:going] = -total
    return out
