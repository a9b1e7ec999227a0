"""Copies and near copies of samples in a training set, and de-duplication."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int64, UInt64

from memorization.errors import InputError
from memorization.integers import as_number, check_integer, check_seed
from memorization.samples import Samples, SamplesLike, read_samples

Shingles: TypeAlias = UInt64[np.ndarray, " _"]

N_PERMUTATIONS, SEED = 128, 0  # of the MinHashes
_RECALL = (
    0.99  # of pairs right at the threshold. What the index offers too many costs 10 us each: it is compared exactly
)
_ABSENT = np.uint64(2**64 - 1)  # in place of the tokens that a shorter shingle lacks
_BATCH = 2**16  # samples whose shingles are hashed in one call


@dataclass(frozen=True, slots=True, eq=False)
class DuplicateCounts:
    """How often each sample occurs in a training set, in the order of the samples.

    Attributes:
        exact: training samples that equal the sample, int64; where the training set is the samples themselves, itself
            included.
        near: training samples that resemble it, those that equal it included, int64.
    """

    exact: Int64[np.ndarray, " sample"]
    near: Int64[np.ndarray, " sample"]


@dataclass(frozen=True, slots=True, eq=False)
class Deduplicated:
    """Samples without repetitions.

    Attributes:
        samples: the first of each kind, in the order of the input: a list of texts, or of int64 arrays; a 2-D array
            where one came.
        index: position of each in the input, int64.
        n_dropped: samples left out.
    """

    samples: Any
    index: Int64[np.ndarray, " sample"]
    n_dropped: int


def duplicate_counts(
    samples: SamplesLike,
    training_set: SamplesLike | None = None,
    *,
    near: float = 0.8,
    shingle_tokens: int = 5,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = SEED,
) -> DuplicateCounts:
    """For each sample the number of training samples that equal it, and the number of those that resemble it.

    Two samples resemble each other where the Jaccard similarity of their sets of shingles is at least `near`: the
    number of shingles in both over the number in either. A shingle is a run of `shingle_tokens` tokens, or for texts of
    words (what white space separates); a sample that is shorter is one shingle, the whole of it. In a sample of 32
    different tokens, one other token in the middle changes 5 of 28 shingles: the similarity is 23 / 33 = 0.70.

    Args:
        samples: as `compress_bits` takes them.
        training_set: texts or ids, as the samples are; None is the samples themselves.
        near: least similarity, above 0 and at most 1.
        shingle_tokens: tokens, or words, of a shingle.
        n_permutations: numbers that a MinHash keeps of each sample.
        seed: of the permutations, in [0, 2^32).

    Returns:
        The counts.

    Raises:
        InputError: an option out of range, texts against ids; or datasketch is not installed.

    Guarantees:
        `exact` is exact: whole samples are compared. `near` counts no pair below the threshold: MinHash and
            locality-sensitive hashing
        only propose pairs, each of which is then compared shingle by shingle (by 64-bit hashes: ten million different
        shingles hold two of the same hash with a probability of 3e-6). It may miss pairs: right at the threshold at
        most 1 % of them in expectation (0.2 % with the defaults), of more similar ones fewer, of exact copies none. The
        counts depend on the seed alone, neither on the process nor on the order of the samples.

    Examples:
        >>> counts = duplicate_counts([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7], [1, 2, 3, 4, 5, 6]], near=0.3)
        >>> (
        ...     counts.exact.tolist(),
        ...     counts.near.tolist(),
        ... )  # of the shingles 12345, 23456 and 23457 each two have one in common: 1/3
        ([2, 1, 2], [3, 3, 3])

    Source:
        Lee et al., arXiv:2107.06499, and Broder, doi:10.1109/SEQUEN.1997.666900, for near duplicates by MinHash.
    """
    shingle_tokens = check_near_options(near, shingle_tokens, n_permutations, seed)
    own = read_samples(samples)
    training = own if training_set is None else read_samples(training_set)
    if (own.texts is None) != (training.texts is None):
        kinds = ["token ids" if part.texts is None else "texts" for part in (own, training)]
        raise InputError(
            f"samples are {kinds[0]} and the training set is {kinds[1]}: pass texts for both, or ids for both."
        )
    return count_duplicates(
        own, training, near=near, shingle_tokens=shingle_tokens, n_permutations=n_permutations, seed=seed
    )


def deduplicate(samples: SamplesLike, *, n_tokens: int | None = None) -> Deduplicated:
    """The samples without those that equal an earlier one, after truncation to `n_tokens`.

    The order matters: of the paper's samples of web text, which had no duplicates, 1 to 2 % became duplicates when they
    were truncated.

    Args:
        samples: as `compress_bits` takes them.
        n_tokens: keep so many tokens of each sample first; shorter samples stay as they are. None keeps all.

    Returns:
        The samples that are left, as they came (an integer array or tensor as an int64 array), their positions, and how
        many were dropped.

    Raises:
        InputError: `n_tokens` for texts, which have no tokens yet, or below 1.

    Guarantees:
        Whole samples are compared, not hashes of them. Doing it again drops nothing.

    Examples:
        >>> left = deduplicate([[1, 2, 3], [4, 5], [1, 2, 6]], n_tokens=2)
        >>> [ids.tolist() for ids in left.samples], left.index.tolist(), left.n_dropped
        ([[1, 2], [4, 5]], [0, 1], 1)

    Source:
        Morris et al., arXiv:2505.24832, section 4.
    """
    read = read_samples(samples)
    if n_tokens is not None and read.texts is not None:
        raise InputError(
            f"n_tokens={n_tokens} truncates token ids, and these samples are texts: tokenize them first and pass the "
            "ids."
        )
    n_tokens = None if n_tokens is None else check_integer("n_tokens", n_tokens, besides="None")
    rows: list[Any] = read.texts if read.texts is not None else [ids[:n_tokens] for ids in read.ids or []]
    first: dict[Any, int] = {}
    for i, key in enumerate(rows if read.texts is not None else map(np.ndarray.tobytes, rows)):
        first.setdefault(key, i)
    kept = [rows[i] for i in first.values()]
    is_array = getattr(samples, "ndim", 0) == 2
    index = np.array(list(first.values()), dtype=np.int64)
    return Deduplicated(np.stack(kept) if is_array else kept, index, len(rows) - len(kept))


def check_near_options(near: float, shingle_tokens: int, n_permutations: int = N_PERMUTATIONS, seed: int = SEED) -> int:
    """Refuse options of `duplicate_counts` that are out of range; `shingle_tokens` as an int."""
    if not 0 < as_number(near) <= 1:
        raise InputError(f"near must be a Jaccard similarity above 0 and at most 1, such as 0.8; it is {near!r}.")
    shingle_tokens = check_integer("shingle_tokens", shingle_tokens)
    check_seed(seed)
    bands_and_rows(near, check_integer("n_permutations", n_permutations, at_least=2))
    return shingle_tokens


def bands_and_rows(near: float, n_permutations: int) -> tuple[int, int]:
    """Bands of the LSH index and numbers in each, chosen to find 99 % of the pairs at the threshold.

    More numbers in a band propose fewer dissimilar pairs.

    The share of equal numbers of two MinHashes is the similarity; a pair is proposed where all numbers of a band are
    equal.
    """
    for rows in range(n_permutations // 2, 0, -1):
        bands = n_permutations // rows
        if 1 - (1 - near**rows) ** bands >= _RECALL:
            return bands, rows
    found = 1 - (1 - near) ** n_permutations
    raise InputError(
        f"with n_permutations={n_permutations} only {100 * found:.0f} % of the pairs of similarity near={near} would "
        "be found: raise either."
    )


def count_duplicates(
    samples: Samples, training: Samples, *, near: float, shingle_tokens: int, n_permutations: int, seed: int
) -> DuplicateCounts:
    """`duplicate_counts` of samples that were read; of their ids where they have some, else of their texts."""
    keys, copies = sample_keys(samples), Counter(sample_keys(training))
    # Copies share their shingles: each different sample is looked at once, so that a thousand copies are not a million
    # pairs.
    distinct = list(dict.fromkeys([*copies, *keys]))
    n_copies, asked = list(copies.values()), set(keys)
    shingles = list(_shingle_sets(distinct, shingle_tokens))
    sketches, index = _index(shingles, len(copies), bands_and_rows(near, n_permutations), n_permutations, seed)
    resembling = {
        key: sum(n_copies[j] for j in index.query(sketch) if i == j or _jaccard(shingles[i], shingles[j]) >= near)
        for i, (key, sketch) in enumerate(zip(distinct, sketches, strict=True))
        if key in asked
    }
    return DuplicateCounts(
        exact=np.array([copies[key] for key in keys], dtype=np.int64),
        near=np.array([resembling[key] for key in keys], dtype=np.int64),
    )


def sample_keys(samples: Samples) -> list[Any]:
    """What is equal for equal samples: bytes of the ids, or without ids the texts."""
    return [ids.tobytes() for ids in samples.ids] if samples.ids is not None else list(samples.texts or ())


def _index(
    shingles: list[Shingles], n_training: int, bands_rows: tuple[int, int], n_permutations: int, seed: int
) -> tuple[list[Any], Any]:
    """The MinHash of each set of shingles, and the LSH index of the first `n_training`."""
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError as error:
        raise InputError(
            f'near duplicates need datasketch, which is not installed ({error}): pip install "lm-memorization[audit]".'
        ) from error
    # MinHash takes 32 bits; these are well mixed already, so they need no other hash.
    upper = ((part >> np.uint64(32)).tolist() for part in shingles)
    sketches = list(MinHash.generator(upper, num_perm=n_permutations, seed=seed, hashfunc=int))
    index = MinHashLSH(num_perm=n_permutations, params=bands_rows)
    for i, sketch in enumerate(sketches[:n_training]):
        index.insert(i, sketch, check_duplication=False)
    return sketches, index


def _jaccard(first: Shingles, second: Shingles) -> float:
    n_shared = len(np.intersect1d(first, second, assume_unique=True))
    return n_shared / (len(first) + len(second) - n_shared)


def _shingle_sets(keys: Sequence[Any], shingle_tokens: int) -> Iterator[Shingles]:
    """The hashes of each sample's different shingles. Python's own hash would be another one in each process."""
    tokens = [_token_numbers(key) for key in keys]
    widest = min(shingle_tokens, max(map(len, tokens)))
    for start in range(0, len(tokens), _BATCH):
        windows = [_windows(ids, shingle_tokens, widest) for ids in tokens[start : start + _BATCH]]
        hashes = _hash_rows(np.concatenate(windows))
        yield from map(np.unique, np.split(hashes, np.cumsum([len(part) for part in windows])[:-1]))


def _token_numbers(key: Any) -> UInt64[np.ndarray, " token"]:
    """A number for each token id, or word."""
    if isinstance(key, bytes):
        return np.frombuffer(key, dtype=np.uint64)
    # A text of white space is its own only word.
    return np.array([_word_number(word) for word in key.split() or [key]], dtype=np.uint64)


@lru_cache(maxsize=2**20)
def _word_number(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")


def _windows(tokens: np.ndarray, shingle_tokens: int, widest: int) -> UInt64[np.ndarray, "shingle token"]:
    """Each run of so many tokens, a row each; all tokens in one row where they are fewer."""
    n = min(shingle_tokens, len(tokens))
    rows = np.lib.stride_tricks.sliding_window_view(tokens, n)
    return rows if n == widest else np.pad(rows, ((0, 0), (0, widest - n)), constant_values=_ABSENT)


def _hash_rows(rows: UInt64[np.ndarray, "row token"]) -> UInt64[np.ndarray, " row"]:
    """A 64-bit hash of each row: the same in every process, and on every machine."""
    import pandas as pd

    hashes: np.ndarray = pd.util.hash_pandas_object(pd.DataFrame(rows), index=False).to_numpy()
    return pd.util.hash_array(hashes)  # once more: MinHash takes the upper half, and it must be well mixed
