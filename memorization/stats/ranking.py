"""How well scores rank one set above another: F1 at the pooled median, AUC, TPR at small FPR, best accuracy."""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int64

from memorization.stats.binomial import share_above, share_below
from memorization.stats.bootstrap import n_resamples
from memorization.stats.levels import Interval

_RESAMPLES = 1_999
_BATCH_DRAWS = 1_000_000  # held in memory at a time

Counts: TypeAlias = Float64[np.ndarray, "resample place"]

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


def _count(places: Int64[np.ndarray, "resample sample"], n_places: int) -> Counts:
    """How many scores of each row stand at each place."""
    flat = places + n_places * np.arange(len(places))[:, None]
    counts = np.bincount(flat.ravel(), minlength=n_places * len(places)).reshape(len(places), n_places)
    return counts.astype(np.float64)


def f1_of(members: Counts, nonmembers: Counts) -> Float64[np.ndarray, " resample"]:
    """Share of the n members among the n highest scores of n members and n non-members.

    Of those tied at the edge, members count in proportion.
    """
    at_place, n = members + nonmembers, members[0].sum()
    # The place that fills up: the first at which n scores stand at or above. It holds scores itself.
    edge = (np.cumsum(at_place, axis=1) < n).sum(axis=1)
    rows = np.arange(len(members))
    above = np.where(np.arange(at_place.shape[1]) < edge[:, None], 1.0, 0.0)
    left = n - (above * at_place).sum(axis=1)
    found = (above * members).sum(axis=1) + left * members[rows, edge] / at_place[rows, edge]
    return np.asarray(found / n)


def auc_of(members: Counts, nonmembers: Counts) -> Float64[np.ndarray, " resample"]:
    """Share of pairs in which the member ranks above the non-member, ties counting half."""
    below = nonmembers.sum(axis=1, keepdims=True) - np.cumsum(nonmembers, axis=1)
    pairs = members[0].sum() * nonmembers[0].sum()
    return np.asarray((members * (below + nonmembers / 2)).sum(axis=1) / pairs)


def best_accuracy_of(members: Counts, nonmembers: Counts) -> Float64[np.ndarray, " resample"]:
    """Accuracy on equally many of both at the threshold that is best for these very scores."""
    gain = np.cumsum(members, axis=1) / members[0].sum() - np.cumsum(nonmembers, axis=1) / nonmembers[0].sum()
    return np.asarray(0.5 + np.maximum(gain.max(axis=1), 0) / 2)  # 0: nobody is taken for a member


def resampled_statistic(
    statistic: Statistic, places: tuple[np.ndarray, np.ndarray], draws: np.random.Generator
) -> tuple[float, Float64[np.ndarray, " resample"]]:
    """A statistic of two sets, and of resamples of each set."""
    counts = counts_of(places)
    n_values = sum(len(place) for place in places)
    n_rows = n_resamples(n_values, _RESAMPLES)
    batch = max(1, _BATCH_DRAWS // n_values)
    resampled = []
    for start in range(0, n_rows, batch):
        rows = min(batch, n_rows - start)
        drawn = [place[draws.integers(0, len(place), (rows, len(place)))] for place in places]
        resampled.append(statistic(*(_count(place, counts[0].shape[1]) for place in drawn)))
    return float(statistic(*counts)[0]), np.concatenate(resampled)


def logit_interval(
    value: float, resampled: Float64[np.ndarray, " resample"], n: int, level: float, stretch: float = 1.0
) -> Interval:
    """Normal interval of log(value / (1 - value)), with the standard error of resamples times `stretch`.

    At 0 and 1 resamples do not differ; there the end is Clopper and Pearson's for n of n independent pairs.
    """
    from scipy.special import expit, logit, ndtri

    surely = ((1 - level) / 2) ** (1 / n)
    if value in (0, 1):
        return Interval(surely, 1.0) if value else Interval(0.0, 1 - surely)
    stderr = stretch * float(resampled.std(ddof=1)) / (value * (1 - value))
    if not stderr:  # all scores are equal, which says nothing of how the next would differ
        return Interval.unknown()
    ends = expit(logit(value) + ndtri((1 + level) / 2) * stderr * np.array([-1, 1]))
    return Interval(float(ends[0]), float(ends[1]))


def best_accuracy_interval(best: float, n: int, level: float) -> Interval:
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
    members: Float64[np.ndarray, " member"], nonmembers: Float64[np.ndarray, " nonmember"], fpr: float, level: float
) -> Interval:
    """Interval of a TPR at a given FPR.

    Half of each tail goes to the threshold, which order statistics bracket, and half to the members above it.
    """
    from scipy.stats import binom

    n, m, quarter = len(members), len(nonmembers), (1 - level) / 4
    if not _allowed(m, fpr):
        return Interval.unknown()
    # The k-th highest non-member is above the population's threshold where at least k of m are: binomial.
    least, most = int(binom.ppf(quarter, m, fpr)), int(binom.ppf(1 - quarter, m, fpr))
    few = int((members > nonmembers[-least]).sum()) if least else 0
    many = int((members > nonmembers[-1 - most]).sum()) if most < m else n
    return Interval(share_above(few, n, quarter), share_below(many, n, quarter))


def auc_with_interval(
    member_scores: Float64[np.ndarray, " member"],
    nonmember_scores: Float64[np.ndarray, " nonmember"],
    *,
    level: float,
    stretch: float,
    seed: int,
) -> tuple[float, Interval]:
    """AUC, and its bootstrap interval with the standard error times `stretch`."""
    places = places_of(np.sort(member_scores), np.sort(nonmember_scores))
    auc, resampled = resampled_statistic(auc_of, places, np.random.default_rng(seed))
    n_each = min(len(member_scores), len(nonmember_scores))
    return auc, logit_interval(auc, resampled, n_each, level, stretch)
