"""Attacks: a score for each sample from the bits of its tokens; higher means more likely a member."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64

from memorization.errors import InputError, ResultError
from memorization.integers import as_number
from memorization.measure.batches import check_batch_size
from memorization.measure.code_lengths import CodeLengths, tokenize
from memorization.measure.context import FirstToken, sequences_of
from memorization.measure.opening import ModelLike, open_model
from memorization.measure.pair import check_measured, check_same_samples, differ_in_tokens, ideal_signed_bits
from memorization.measure.passes import Window, read_windows
from memorization.renamed import renamed_keywords
from memorization.samples import Samples, SamplesLike, read_samples

_OTHER_MODEL_BITS = 0.1  # mean difference a token; the same model in another batch, dtype or device stays below 0.05
_ROWS = 64  # of logits turned to float64 at a time


def loss_attack(target: CodeLengths) -> Float64[np.ndarray, " sample"]:
    """Minus the ideal bits per token of each sample: the paper's attack, by which a low loss speaks for a member.

    Args:
        target: code lengths under the model under audit.

    Returns:
        Minus bits per token, float64, in the order of the samples. A member costs fewer bits, so it ranks higher.

    Examples:
        >>> from memorization import UniformModel, compress_bits
        >>> loss_attack(compress_bits(UniformModel(16), [[1, 2], [3, 4, 5]])).tolist()
        [-4.0, -4.0]

    Source:
        Morris et al., arXiv:2505.24832; Yeom et al., arXiv:1709.01604.
    """
    return np.asarray(-target.ideal_bits / target.n_tokens)


def reference_attack(target: CodeLengths, oracle: CodeLengths) -> Float64[np.ndarray, " sample"]:
    """H(x | oracle) - H(x | target) of each sample in ideal bits, which is signed memU.

    Text that is easy for any model is then no sign of membership.

    Args:
        target: code lengths under the model under audit.
        oracle: code lengths of the same tokens under a model that has not seen the samples.

    Returns:
        Bits a sample, float64.

    Raises:
        ResultError: the two are of other samples.
        InputError: they code the samples in different tokens.

    Examples:
        >>> from memorization import UniformModel, compress_bits
        >>> reference_attack(*(compress_bits(UniformModel(size), [[1, 2]]) for size in (16, 64))).tolist()
        [4.0]

    Source:
        Carlini et al., arXiv:2112.03570, difficulty calibration.
    """
    check_same_samples(oracle, target, "the oracle's CodeLengths")
    if differ_in_tokens(target, oracle) or not np.array_equal(target.n_tokens, oracle.n_tokens):
        raise InputError(
            "target and oracle code the samples in different tokens, so their bits lack the code of the token "
            "counts. Take ideal_signed_bits of unintended_memorization(target, oracle, samples), which has it."
        )
    return ideal_signed_bits(target, oracle)


def zlib_attack(target: CodeLengths, samples: SamplesLike) -> Float64[np.ndarray, " sample"]:
    """Minus the ratio of ideal bits under the target to bits after zlib (level 9).

    Repetitive text is then no sign of membership.

    Args:
        target: code lengths of texts under the model under audit.
        samples: the same texts, as `compress_bits` takes them.

    Returns:
        Minus a ratio of bits, float64.

    Raises:
        InputError: the samples are token ids.
        ResultError: the code lengths are of other texts.

    Examples:
        >>> from memorization import UniformModel, compress_bits
        >>> letters = (lambda text: list(text.encode()), lambda ids: bytes(ids).decode())
        >>> texts = ["to be"]  # 5 tokens of 8 bits, and 104 bits after zlib
        >>> zlib_attack(compress_bits(UniformModel(256), texts, tokenizer=letters), texts).round(3).tolist()
        [-0.385]

    Source:
        Carlini et al., arXiv:2012.07805, which divides the loss *per token* by zlib's *total* and so favours long
        samples.
    """
    record = target.settings["samples"]
    read = read_samples(samples)
    if read.texts is None:
        raise InputError("zlib compresses text, and these samples are token ids: pass the texts that were measured.")
    read = read.as_measured(record)
    check_measured(record, read, "the CodeLengths are")
    assert read.texts is not None
    return np.asarray(-target.ideal_bits / zlib_bits(read.texts))


def zlib_bits(texts: Sequence[str]) -> Float64[np.ndarray, " sample"]:
    """Bits of each text after zlib (level 9), header and checksum included.

    Args:
        texts: any.

    Returns:
        Bits, float64, one a text.

    Examples:
        >>> zlib_bits([""]).tolist()
        [64.0]
    """
    import zlib

    return np.array([8 * len(zlib.compress(text.encode(), 9)) for text in texts], dtype=np.float64)


def min_k_attack(target: CodeLengths, *, k_percent: float = 20.0) -> Float64[np.ndarray, " sample"]:
    """Minus the mean ideal bits of each sample's k % most surprising tokens: text never seen has outliers.

    Args:
        target: code lengths under the model under audit.
        k_percent: share of tokens, above 0 and at most 100; rounded down, at least one token.

    Returns:
        Minus bits per token, float64. With k_percent = 100 it is `loss_attack`.

    Raises:
        InputError: k_percent outside (0, 100].

    Examples:
        >>> from memorization import UniformModel, compress_bits
        >>> min_k_attack(compress_bits(UniformModel(16), [[1, 2], [3, 4, 5]]), k_percent=50.0).tolist()
        [-4.0, -4.0]

    Source:
        Shi et al., arXiv:2310.16789.
    """
    return _mean_of_lowest(-target.token_bits, target.token_offsets, k_percent)


def min_k_plus_plus_attack(
    target: CodeLengths,
    mean_bits: Float64[np.ndarray, " token"],
    sd_bits: Float64[np.ndarray, " token"],
    *,
    k_percent: float = 20.0,
) -> Float64[np.ndarray, " sample"]:
    """Min-k % of log p, standardised by its mean and standard deviation over the vocabulary.

    It asks whether each token is a mode of its distribution.

    Args:
        target: code lengths under the model under audit.
        mean_bits: of each coded token, the expected bits of a token drawn from the model there (its entropy).
        sd_bits: their standard deviation; 0 where all tokens cost the same, whose standardised log p is 0.
            `token_moments` gives both.
        k_percent: as for `min_k_attack`.

    Returns:
        Mean standardised log p of the lowest k %, float64; no unit.

    Raises:
        InputError: arrays of another length, or values that are negative or not finite.

    Examples:
        A token of 4 bits where 6 are expected, with a standard deviation of 1, is 2 above the mean.

        >>> import numpy as np
        >>> from memorization import UniformModel, compress_bits
        >>> lengths = compress_bits(UniformModel(16), [[3]])
        >>> min_k_plus_plus_attack(lengths, np.array([6.0]), np.array([1.0])).tolist()
        [2.0]

    Source:
        Zhang et al., arXiv:2404.02936.
    """
    for name, values in (("mean_bits", mean_bits), ("sd_bits", sd_bits)):
        if values.shape != target.token_bits.shape:
            raise InputError(
                f"{name} holds one entry a coded token, {len(target.token_bits)} in all; its shape is "
                f"{list(values.shape)}."
            )
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(wrong):
            raise InputError(f"{name} must be finite and at least 0; entry {wrong[0]} is {values[wrong[0]]:g}.")
    standardised = np.zeros(len(target.token_bits))
    np.divide(mean_bits - target.token_bits, sd_bits, out=standardised, where=sd_bits > 0)
    return _mean_of_lowest(standardised, target.token_offsets, k_percent)


@renamed_keywords(device="", dtype="", revision="", trust_remote_code="", allow_pickle="")
def token_moments(
    model: ModelLike,
    lengths: CodeLengths,
    *,
    samples: SamplesLike | None = None,
    batch_size: int | Literal["auto"] = "auto",
    max_batch_tokens: int | None = None,
    progress: bool = True,
) -> tuple[Float64[np.ndarray, " token"], Float64[np.ndarray, " token"]]:
    """Mean and standard deviation, in bits, of -log2 p over the vocabulary, at each coded token's place.

    One more pass of the model over the tokens, for `min_k_plus_plus_attack`.

    Args:
        model: the one that `lengths` were measured with, as for `compress_bits`; one that needs options to be loaded
            comes from `open_model`.
        lengths: code lengths, with the tokens, windows and first-token rule that they were measured with.
        samples: those that were measured; needed where not all of them is counted, since code lengths hold no prompts.
        batch_size: as for `compress_bits`.
        max_batch_tokens: as for `compress_bits`.
        progress: a bar on stderr.

    Returns:
        mean_bits and sd_bits, laid out like `lengths.token_bits`. A uniform first token has sd 0.

    Raises:
        InputError: lengths with first_token="skip", or of samples with prompts that did not come, which lack tokens
            that the model read.
        ResultError: the model gives the tokens other bits: it is not the one that was measured; or other samples came.
        ModelError: the model cannot be loaded.

    Examples:
        Under a uniform model all tokens cost the same.

        >>> from memorization import UniformModel, compress_bits
        >>> model = UniformModel(16)
        >>> mean, sd = token_moments(model, compress_bits(model, [[1, 2]]), progress=False)
        >>> mean.tolist(), sd.tolist()
        ([4.0, 4.0], [0.0, 0.0])
    """
    batches = check_batch_size(batch_size, max_batch_tokens)
    first = FirstToken.from_record(lengths.settings["first_token"])
    if first.rule == "skip":
        raise InputError(
            'first_token="skip" leaves the first token out of the CodeLengths, and the model cannot be asked again '
            'without it. Measure with first_token="uniform".'
        )
    conditional = lengths.settings["samples"].get("conditional")
    if conditional and samples is None:
        raise InputError(
            "not all of these samples was counted, and CodeLengths hold what was counted alone: pass samples= (those "
            "that were measured), so that the model can read the rest again."
        )
    moments = np.zeros((3, len(lengths.token_bits)))

    def keep(i: int, parts: list[Float64[np.ndarray, "3 _"]]) -> None:
        n_coded = places[i].stop - places[i].start
        moments[:, places[i]] = np.concatenate(parts, axis=1)[:, -n_coded:]

    with open_model(model, max_length=lengths.settings["max_length"], progress=progress) as opened:
        if conditional and samples is not None:
            places, sequences, scored = _with_prompts(lengths, first, read_samples(samples), opened.tokenizer, moments)
        else:
            places, sequences = _again(lengths, first, moments)
            scored = None
        read_windows(
            opened,
            sequences,
            max_length=lengths.settings["max_length"],
            stride=lengths.settings["stride"],
            batch_size=batches,
            read=_moments_of_windows,
            on_read=keep,
            progress=progress,
            later_context=first.context if first.every_window else None,
            scored=scored,
        )
    difference = float(np.abs(moments[0] - lengths.token_bits).mean())
    if not difference <= _OTHER_MODEL_BITS:
        raise ResultError(
            f"under {opened.record['name']} the tokens cost other bits than in the CodeLengths, by {difference:.3g} a "
            f"token in the mean: they were measured with {lengths.settings['model']['name']}, or with other weights. "
            "Pass that model, or measure again."
        )
    return moments[1], moments[2]


def _again(
    lengths: CodeLengths, first: FirstToken, moments: Float64[np.ndarray, "3 token"]
) -> tuple[list[slice], list[np.ndarray]]:
    """What the model reads again, and where the moments of each go; those of uniform first tokens are filled in."""
    are_ids = lengths.settings["samples"]["texts_sha256"] is None
    places, sequences, token_ids = [], [], lengths.token_ids
    for start, stop in pairwise(lengths.token_offsets):
        ids = token_ids[start:stop]
        own = are_ids and first.charge == "uniform" and int(ids[0]) == first.context  # it brought its BOS
        if first.charge == "uniform":
            bits = math.log2(lengths.settings["uniform_vocab_size"])
            moments[:, start] = bits, bits, 0
            start += 1
        elif first.context is None:  # the first token is given the context alone, and the others are not
            places.append(slice(start, start + 1))
            sequences.append(np.array([first.id, ids[0]]))
            start += 1
        if start < stop:
            places.append(slice(start, stop))
            sequences.append(ids if first.context is None or own else np.concatenate([[first.context], ids]))
    return places, sequences


def _with_prompts(
    lengths: CodeLengths,
    first: FirstToken,
    samples: Samples,
    tokenizer: Any,
    moments: Float64[np.ndarray, "3 token"],
) -> tuple[list[slice], list[np.ndarray], list[np.ndarray]]:
    """The same of samples that were not counted whole, and which tokens of each are."""
    samples = samples.as_measured(lengths.settings["samples"])
    check_measured(lengths.settings["samples"], samples, "the CodeLengths are")
    found = sequences_of(tokenize(samples, tokenizer, on_lossy_text="raise"), first)
    places: list[slice] = []
    sequences, scored, token_ids = list[np.ndarray](), list[np.ndarray](), lengths.token_ids
    for (start, stop), read, apart, mask in zip(
        pairwise(lengths.token_offsets), found.read, found.apart, found.scored, strict=True
    ):
        if apart and first.charge == "uniform":
            bits = math.log2(lengths.settings["uniform_vocab_size"])
            moments[:, start] = bits, bits, 0
        elif apart:  # given the context alone
            places.append(slice(start, start + 1))
            sequences.append(np.array([first.id, token_ids[start]]))
            scored.append(np.array([False, True]))
        if mask.any():
            places.append(slice(start + apart, stop))
            sequences.append(read)
            scored.append(mask)
    return places, sequences, scored


def _moments_of_windows(
    logits: torch.Tensor, rows: np.ndarray, ids: np.ndarray, batch: list[Window]
) -> list[Float64[np.ndarray, "3 _"]]:
    """Bits of the tokens themselves, and mean and standard deviation of bits under the model."""
    parts = []
    tokens = torch.from_numpy(ids).to(logits.device)
    for some, own in zip(torch.from_numpy(rows).split(_ROWS), tokens.split(_ROWS), strict=True):
        rows_here = logits[some.to(logits.device)]
        exact = (rows_here.cpu() if rows_here.device.type == "mps" else rows_here).double()  # mps has no float64
        bits = -exact.log_softmax(-1) / math.log(2)
        share = torch.exp2(-bits)
        own_bits = bits.gather(1, own.to(bits.device)[:, None])[:, 0]
        bits = torch.where(share > 0, bits, 0.0)  # 0 x inf is 0: such a token is never drawn
        mean = (share * bits).sum(-1)
        sd = (share * (bits - mean[:, None]) ** 2).sum(-1).sqrt()
        parts.append(torch.stack([own_bits, mean, sd]))
    edges = np.cumsum([n_new for *_, n_new in batch])[:-1]
    return np.split(torch.cat(parts, dim=1).cpu().numpy(), edges, axis=1)


def check_k_percent(k_percent: Any) -> float:
    """The share as a float, refused outside (0, 100].

    Args:
        k_percent: what came.

    Returns:
        The share in percent.

    Raises:
        InputError: it is no number above 0 and at most 100.

    Examples:
        >>> check_k_percent(20)
        20.0
    """
    share = as_number(k_percent)
    if not 0 < share <= 100:
        raise InputError(f"k_percent must lie above 0 and at most at 100; it is {k_percent!r}.")
    return share


def _mean_of_lowest(
    values: Float64[np.ndarray, " token"], offsets: Int64[np.ndarray, " edge"], k_percent: float
) -> Float64[np.ndarray, " sample"]:
    k_percent = check_k_percent(k_percent)
    means = np.empty(len(offsets) - 1)
    for i, (start, stop) in enumerate(pairwise(offsets)):
        k = max(1, math.floor(k_percent * (stop - start) / 100))
        means[i] = np.partition(values[start:stop], k - 1)[:k].mean()
    return means
