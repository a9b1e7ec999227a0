"""Whole documents on one side: which samples are test samples, which are the pool, and the folds of the oracles."""

import heapq
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from memorization.errors import InputError

__all__ = ["Split", "folds_of", "split_documents"]

# Of all documents, at least this part is held out. Test samples are then drawn thinly from many documents, as members
# are, and few of them share one.
_HELD_OUT = 10


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows of test samples and of the pool, in random order. No document is on both sides.

    Attributes:
        test: samples that no model is trained on.
        pool: samples that data sets are drawn from: all of the documents that are not held out.
        n_documents: documents that gave samples.
        n_documents_held_out: those that test samples are drawn from.
        n_left_out: samples of those documents that are in neither.
    """

    test: Int64[np.ndarray, " test"]
    pool: Int64[np.ndarray, " pool"]
    n_documents: int
    n_documents_held_out: int
    n_left_out: int


def split_documents(document: Int64[np.ndarray, " sample"], n_test: int, draws: np.random.Generator) -> Split:
    """Hold out a tenth of the documents, or as many as hold n_test samples, and draw n_test test samples from them.

    Both sides are drawn alike: documents at random, then samples of them at random.

    Args:
        document: of each sample, a number.
        n_test: test samples.
        draws: what is drawn with.

    Returns:
        Numbers of the test samples and of those of the pool, and how many were left out.

    Raises:
        InputError: all samples are of one document, or the test samples leave no document for the pool.

    Examples:
        >>> found = split_documents(np.array([7, 7, 7, 8, 8, 8]), 2, np.random.default_rng(0))
        >>> len(found.test), len(found.pool), found.n_left_out
        (2, 3, 1)
    """
    names, of, n_each = np.unique(document, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError(
            f"all {len(document)} samples are of one document. Whole documents are held out as test samples, so at "
            "least two are needed: bring more documents, or cut this one into parts that have nothing to do with one "
            "another, such as its chapters."
        )
    order = draws.permutation(len(names))
    enough = int(np.searchsorted(np.cumsum(n_each[order]), n_test)) + 1
    n_held = max(enough, -(-len(names) // _HELD_OUT))
    if n_held >= len(names):
        raise InputError(
            f"n_test={n_test} test samples of documents of their own would take all {len(names)} documents, of "
            f"{len(document)} samples in all: bring more documents, or take a smaller n_test or seq_len."
        )
    held = np.zeros(len(names), dtype=bool)
    held[order[:n_held]] = True
    out = draws.permutation(np.flatnonzero(held[of]))
    pool = draws.permutation(np.flatnonzero(~held[of]))
    return Split(out[:n_test], pool, len(names), n_held, len(out) - n_test)


def folds_of(document: Int64[np.ndarray, " sample"], n_folds: int) -> Int64[np.ndarray, " sample"]:
    """The fold of each sample: whole documents, the largest first, each to the fold that is smallest by then.

    Args:
        document: of each sample, a number.
        n_folds: how many.

    Returns:
        Numbers of folds, from 0, one a sample.

    Raises:
        InputError: fewer documents than folds.

    Examples:
        >>> folds_of(np.array([0, 0, 0, 1, 2, 2]), 2).tolist()
        [0, 0, 0, 1, 1, 1]
    """
    names, of, n_each = np.unique(document, return_inverse=True, return_counts=True)
    if len(names) < n_folds:
        raise InputError(
            f"{n_folds} folds of whole documents need as many documents; the pool holds {len(names)}: bring more "
            "documents, or take fewer folds."
        )
    fold = np.empty(len(names), dtype=np.int64)
    smallest = [(0, k) for k in range(n_folds)]
    for name in np.argsort(-n_each, kind="stable"):
        n_samples, k = heapq.heappop(smallest)
        fold[name] = k
        heapq.heappush(smallest, (n_samples + int(n_each[name]), k))
    return fold[of]
