"""How well scores rank one set above another: F1 at the pooled median, AUC, TPR at small FPR, best accuracy."""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int64

from memorization.stats.binomial import share_above, share_below
from memorization.stats.levels import Interval

_RESAMPLES = 1_999
_FEWEST_RESAMPLES = 199
# a bootstrap of more draws than this takes over a second, and resamples of large sets scatter little anyway
_DRAWS = 50_000_000
_BATCH_DRAWS = 1_000_000  # held in memory at a time

Counts: TypeAlias = Float64[np.ndarray, "resample place"]

Documents: TypeAlias = tuple[np.ndarray, np.ndarray]  # of each member and non-member the number of its document

Statistic: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]  # counts of members and of non-members


def places_of(
    members: Float64[np.ndarray, " member"], nonmembers: Float64[np.ndarray, " nonmember"]
) -> tuple[Int64[np.ndarray, " member"], Int64[np.ndarray, " nonmember"]]:
    """Place of each score among the different scores of both sets, 0 the highest: all that a metric depends on."""
    places = np.unique(-np.concatenate([members, nonmembers]), return_inverse=True)[1].astype(np.int64)
    return places[: len(members)], places[len(members) :]


def counts_of(places: tuple[np.ndarray, np.ndarray]) -> tuple[Counts, Counts]:
    """How many of either set stand at each place, a single row each."""
    n_places = 1 + max(int(place.max()) for place in places)
    return _count(places[0][None], n_places), _count(places[1][None], n_places)


def _count(
    places: Int64[np.ndarray, "resample sample"],
    n_places: int,
    times: Int64[np.ndarray, "resample sample"] | None = None,
) -> Counts:
    """How many scores of each row stand at each place, each counted so many times."""
    flat = places + n_places * np.arange(len(places))[:, None]
    weights = None if times is None else times.ravel()
    counts = np.bincount(flat.ravel(), weights, minlength=n_places * len(places)).reshape(len(places), n_places)
    return counts.astype(np.float64)


def f1_of(members: Counts, nonmembers: Counts) -> Float64[np.ndarray, " resample"]:
    """Share of the n members among the n highest scores of n members and n non-members.

    Of those tied at the edge, members count in proportion. Where the sets differ in size, as resamples of documents
    do, each set counts as much as the other.
    """
    n, m = members.sum(axis=1, keepdims=True), nonmembers.sum(axis=1, keepdims=True)
    members, half = m * members, (n * m)[:, 0]  # integers, so that no sum is rounded
    at_place = members + n * nonmembers
    # The place that fills up: the first at which half of all stand at or above. It holds scores itself.
    edge = (np.cumsum(at_place, axis=1) < half[:, None]).sum(axis=1)
    rows = np.arange(len(members))
    above = np.where(np.arange(at_place.shape[1]) < edge[:, None], 1.0, 0.0)
    left = half - (above * at_place).sum(axis=1)
    found = (above * members).sum(axis=1) + left * members[rows, edge] / at_place[rows, edge]
    return np.asarray(found / half)


def auc_of(members: Counts, nonmembers: Counts) -> Float64[np.ndarray, " resample"]:
    """Share of pairs in which the member ranks above the non-member, ties counting half."""
    below = nonmembers.sum(axis=1, keepdims=True) - np.cumsum(nonmembers, axis=1)
    pairs = members.sum(axis=1) * nonmembers.sum(axis=1)
    return np.asarray((members * (below + nonmembers / 2)).sum(axis=1) / pairs)


def best_accuracy_of(members: Counts, nonmembers: Counts) -> Float64[np.ndarray, " resample"]:
    """Accuracy on equally many of both at the threshold that is best for these very scores."""
    gain = np.cumsum(members, axis=1) / members[0].sum() - np.cumsum(nonmembers, axis=1) / nonmembers[0].sum()
    return np.asarray(0.5 + np.maximum(gain.max(axis=1), 0) / 2)  # 0: nobody is taken for a member


def resampled_statistic(
    statistic: Statistic,
    places: tuple[np.ndarray, np.ndarray],
    draws: np.random.Generator,
    documents: Documents | None = None,
) -> tuple[float, Float64[np.ndarray, " resample"]]:
    """A statistic of two sets, and of resamples of each set: of its scores, or of its whole documents.

    Args:
        statistic: of counts.
        places: of either set.
        draws: what is drawn with.
        documents: of each score in either set the number of its document; None: each score on its own.
    """
    counts = counts_of(places)
    n_values = sum(len(place) for place in places)
    n_rows = _n_resamples(n_values)
    batch = max(1, _BATCH_DRAWS // n_values)
    resampled = []
    for start in range(0, n_rows, batch):
        rows = min(batch, n_rows - start)
        n_places = counts[0].shape[1]
        if documents is None:
            drawn = [place[draws.integers(0, len(place), (rows, len(place)))] for place in places]
            both = [_count(place, n_places) for place in drawn]
        else:
            both = [
                _count(np.broadcast_to(place, (rows, len(place))), n_places, _times_drawn(of, rows, draws))
                for place, of in zip(places, documents, strict=True)
            ]
        resampled.append(statistic(*both))
    return float(statistic(*counts)[0]), np.concatenate(resampled)


def _n_resamples(n_values: int) -> int:
    """The number of resamples of so many values: those that take about a second."""
    return int(np.clip(_DRAWS // n_values, _FEWEST_RESAMPLES, _RESAMPLES))


def _times_drawn(
    of: Int64[np.ndarray, " sample"], n_rows: int, draws: np.random.Generator
) -> Int64[np.ndarray, "resample sample"]:
    """How often each score comes in resamples of whole documents, as many as there are."""
    n_documents = 1 + int(of.max())
    return draws.multinomial(n_documents, np.full(n_documents, 1 / n_documents), n_rows)[:, of]


def exchange_p_value(
    places: tuple[np.ndarray, np.ndarray], draws: np.random.Generator, documents: Documents | None = None
) -> float:
    """How often sets that are made at random of the same scores, or whole documents, have as high an AUC.

    One-sided and exact: where members and non-members are drawn alike, it is at most x with probability at most x.
    """
    n_each = [len(place) for place in places]
    of = documents or (np.arange(n_each[0]), np.arange(n_each[1]))
    pooled, n_members = np.concatenate(places), 1 + int(of[0].max())
    document = np.concatenate([of[0], n_members + of[1]])
    is_member = np.arange(1 + document.max()) < n_members
    n_places, n_rows = 1 + int(pooled.max()), _n_resamples(len(pooled))
    found = float(auc_of(*counts_of(places))[0])
    batch = max(1, _BATCH_DRAWS // len(pooled))
    as_high = 0
    for start in range(0, n_rows, batch):
        rows = min(batch, n_rows - start)
        member = draws.permuted(np.tile(is_member, (rows, 1)), axis=1)[:, document].astype(np.int64)
        stand = np.broadcast_to(pooled, member.shape)
        exchanged = auc_of(_count(stand, n_places, member), _count(stand, n_places, 1 - member))
        as_high += int((exchanged >= found - 1e-12).sum())  # the same AUC of other sizes is rounded otherwise
    return (1 + as_high) / (1 + n_rows)


def n_independent(of: Int64[np.ndarray, " sample"]) -> float:
    """Documents of one size that would say as much as these do together, if all samples of a document were alike.

    Examples:
        >>> n_independent(np.array([0, 0, 1, 1]))
        2.0
    """
    n_each = np.bincount(of)
    return float(n_each.sum() ** 2 / (n_each**2).sum())


def logit_interval(
    value: float,
    resampled: Float64[np.ndarray, " resample"],
    n: int | float,
    level: float,
    stretch: float = 1.0,
    *,
    documents: Documents | None = None,
) -> Interval:
    """Normal interval of log(value / (1 - value)), with the standard error of resamples times `stretch`.

    At 0 and 1 resamples do not differ; there the end is Clopper and Pearson's for n of n independent pairs. Where the
    resamples are of documents, of which there may be few, the interval is Student's (Satterthwaite's degrees of
    freedom), and n counts documents.
    """
    from scipy.special import expit, logit, ndtri, stdtrit

    reach = float(ndtri((1 + level) / 2))
    if documents is not None:
        each = np.array([n_independent(of) for of in documents])
        n = float(each.min())
        if n <= 1:
            return Interval.unknown()
        # Resampled n times, a mean scatters by (n - 1) / n too little.
        error = 1 / (each - 1)
        reach = float(stdtrit(error.sum() ** 2 / (error**2 / (each - 1)).sum(), (1 + level) / 2))
        reach *= math.sqrt(error.sum() / (1 / each).sum())
    surely = ((1 - level) / 2) ** (1 / n)
    if value in (0, 1):
        return Interval(surely, 1.0) if value else Interval(0.0, 1 - surely)
    stderr = stretch * float(resampled.std(ddof=1)) / (value * (1 - value))
    if not stderr:  # all scores are equal, which says nothing of how the next would differ
        return Interval.unknown()
    ends = expit(logit(value) + reach * stderr * np.array([-1, 1]))
    return Interval(float(ends[0]), float(ends[1]))


def best_accuracy_interval(best: float, n: int | float, level: float) -> Interval:
    """Interval of the best accuracy, from the critical value of Smirnov's statistic.

    The best accuracy is (1 + D) / 2, D being the one-sided statistic of two samples of n.
    """
    reach = math.sqrt(math.log(2 / (1 - level)) / n) / 2
    return Interval(max(0.5, best - reach), min(1.0, best + reach))


def _allowed(n_nonmembers: int, fpr: float) -> int:
    return math.floor(n_nonmembers * fpr)


def tpr_of(members: Float64[np.ndarray, " member"], nonmembers: Float64[np.ndarray, " nonmember"], fpr: float) -> float:
    """Share of members above the highest threshold that more non-members than allowed would reach."""
    allowed = _allowed(len(nonmembers), fpr)
    return float(np.mean(members > nonmembers[-1 - allowed])) if allowed else math.nan


def tpr_interval(
    members: Float64[np.ndarray, " member"],
    nonmembers: Float64[np.ndarray, " nonmember"],
    fpr: float,
    level: float,
    independent: tuple[float, float] | None = None,
) -> Interval:
    """Interval of a TPR at a given FPR.

    Half of each tail goes to the threshold, which order statistics bracket, and half to the members above it.

    Args:
        members: ascending scores.
        nonmembers: ascending scores.
        fpr: share of non-members above the threshold.
        level: of the interval.
        independent: as many independent draws as either set counts for, where there are documents: shares are then
            bracketed as if all samples of a document were alike. None: each score is one.
    """
    from scipy.stats import binom

    n, m, quarter = len(members), len(nonmembers), (1 - level) / 4
    if not _allowed(m, fpr):
        return Interval.unknown()
    of_n, of_m = (float(n), m) if independent is None else (independent[0], math.floor(independent[1]))
    # The k-th highest non-member is above the population's threshold where at least k of m are: binomial.
    least = math.floor(int(binom.ppf(quarter, of_m, fpr)) * m / of_m)
    most = math.ceil(int(binom.ppf(1 - quarter, of_m, fpr)) * m / of_m)
    few = int((members > nonmembers[-least]).sum()) if least else 0
    many = int((members > nonmembers[-1 - most]).sum()) if most < m else n
    return Interval(share_above(few * of_n / n, of_n, quarter), share_below(many * of_n / n, of_n, quarter))


def auc_with_interval(
    member_scores: Float64[np.ndarray, " member"],
    nonmember_scores: Float64[np.ndarray, " nonmember"],
    *,
    level: float,
    stretch: float,
    seed: int,
    documents: Documents | None = None,
) -> tuple[float, Interval]:
    """AUC, and its bootstrap interval with the standard error times `stretch`; of whole documents where there are."""
    scores = member_scores, nonmember_scores
    order = [np.argsort(each, kind="stable") for each in scores]
    places = places_of(member_scores[order[0]], nonmember_scores[order[1]])
    if documents is not None:
        documents = documents[0][order[0]], documents[1][order[1]]
    auc, resampled = resampled_statistic(auc_of, places, np.random.default_rng(seed), documents)
    n_each = min(map(len, scores))
    return auc, logit_interval(auc, resampled, n_each, level, stretch, documents=documents)
