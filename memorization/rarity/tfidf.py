"""Rarity of a sample's tokens in the training set: the paper's TF-IDF, in bits a token."""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from memorization.errors import InputError
from memorization.integers import edges_of
from memorization.measure.tokenizers import TokenizerLike, load_tokenizer
from memorization.samples import Samples, SamplesLike, read_samples
from memorization.samples.round_trip import encode
from memorization.samples.token_ids import quote

_MOST_IDS = 2**24  # far above any vocabulary, and the table of counts stays below 128 MiB


def tfidf_bits(
    samples: SamplesLike, training_set: SamplesLike | None = None, *, tokenizer: TokenizerLike | None = None
) -> Float64[np.ndarray, " sample"]:
    """How rare the tokens of each sample are in the training set, in bits a token: the paper's TF-IDF.

    TF-IDF(d) = mean over the tokens w of d, each as often as it comes, of log2(|D| / count of w in D). |D| is the
    number of samples of the training set, and the count that of all occurrences in it. A token that comes more than
    once a sample has negative bits. The paper does not name the base of its logarithm; here it is 2. Ranks, and so rank
    correlations, are the same with any base.

    Args:
        samples: as `compress_bits` takes them.
        training_set: what the model was trained on; None is the samples themselves.
        tokenizer: for texts: an object, or the folder or name to load one from. Special tokens are not added.

    Returns:
        Bits a token, float64, in the order of the samples.

    Raises:
        InputError: texts without a tokenizer, a text that becomes no token, or ids outside the range of a tokenizer.

    Guarantees:
        Finite. A token that the training set lacks counts as if it came once: of all counts that the formula knows this
        is the rarest, so held-out samples stay on the scale of the training set, without a pseudo-count that would be
        anyone's choice. The value of a sample depends on its own tokens and on the training set alone, not on the order
        of either.

    Examples:
        Four samples; token 7 comes once in all, token 1 four times.

        >>> tfidf_bits([[7, 1], [1, 1], [2, 2], [1, 2]]).round(
        ...     3
        ... ).tolist()  # the first is (log2(4 / 1) + log2(4 / 4)) / 2
        [1.0, 0.0, 0.415, 0.208]

    Source:
        Morris et al., arXiv:2505.24832, section 4.
    """
    tokenizer = load_tokenizer(tokenizer)
    own = as_tokens(read_samples(samples), tokenizer, "sample")
    training = own if training_set is None else as_tokens(read_samples(training_set), tokenizer, "training sample")
    return mean_bits(own, training)


def mean_bits(samples: Samples, training: Samples) -> Float64[np.ndarray, " sample"]:
    """TF-IDF of samples that have ids."""
    ids, edges = _flat(samples, "sample")
    training_ids = ids if training is samples else _flat(training, "training sample")[0]
    counts = np.bincount(training_ids, minlength=int(ids.max()) + 1)
    rarity = np.log2(len(training) / np.maximum(counts, 1))
    return np.add.reduceat(rarity[ids], edges[:-1]) / np.diff(edges)


def as_tokens(samples: Samples, tokenizer: Any, name: str) -> Samples:
    """The samples with their token ids, without the check that decoding gives the text back: nothing is coded here."""
    if samples.texts is None:
        whole = samples.tokenize(tokenizer)
        return whole if whole.counted is None else replace(whole, ids=whole.counted_ids, counted=None)
    if tokenizer is None:
        raise InputError(
            f"each {name} is a text, and the rarity of its tokens needs a tokenizer: pass tokenizer= (the object, or "
            "the folder or name it can be loaded from; best that of the model), or hand over lists of token ids."
        )
    rows, failed = encode(tokenizer, samples.texts)
    empty = [i for i, row in enumerate(rows) if not row]
    if empty:
        why = f" ({failed[empty[0]]})" if empty[0] in failed else ""
        raise InputError(
            f"{name} {samples.index[empty[0]]} is {quote(samples.texts[empty[0]])}, of which the tokenizer makes no "
            f"token{why}; {len(empty)} such. Leave it out."
        )
    return replace(samples, ids=[np.asarray(row, dtype=np.int64) for row in rows])


def _flat(samples: Samples, name: str) -> tuple[np.ndarray, np.ndarray]:
    """All ids one after the other, and where each sample begins."""
    rows = samples.ids or []
    ids, edges = np.concatenate(rows), edges_of([len(row) for row in rows])
    if ids.min() < 0 or ids.max() >= _MOST_IDS:
        place = int(np.flatnonzero((ids < 0) | (ids >= _MOST_IDS))[0])
        i = int(np.searchsorted(edges, place, side="right")) - 1
        raise InputError(
            f"token ids must lie in [0, {_MOST_IDS}); that at position {place - edges[i]} of {name} "
            f"{samples.index[i]} is {ids[place]}."
        )
    return ids, edges
