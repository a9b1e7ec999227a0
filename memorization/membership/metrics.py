"""What scores of members and non-members are worth: F1, AUC, TPR at small FPR, best accuracy, each with an interval."""

import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Float64, Int64

from memorization.errors import InputError, ResultError, UnequalSetsWarning
from memorization.records import read_json, read_table, versions, write_json, write_tables

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

FPRS = (0.001, 0.01, 0.05)
_RESAMPLES = 1_999
_DRAWS = 50_000_000  # a bootstrap of more draws than this takes over a second, and resamples of large sets scatter little anyway
_BATCH_DRAWS = 1_000_000  # held in memory at a time

Counts: TypeAlias = Float64[np.ndarray, "resample place"]
Statistic: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]  # counts of members and of non-members


@dataclass(frozen=True, slots=True, eq=False)
class Membership:
    """How well scores tell members from non-members. Intervals hold at the level settings["interval_level"].

    Attributes:
        f1: at the pooled-median threshold on equally many of both, where F1 = precision = recall = accuracy; 0.5 at chance.
        f1_interval: its lower and upper end.
        auc: probability that a member ranks above a non-member, ties counting half.
        auc_interval: its ends.
        best_accuracy: at the threshold that is best for these very samples, on equally many of both: optimistic, above 0.5 at chance.
        best_accuracy_interval: its ends, wide enough for that optimism.
        tpr: share of members found where the share of non-members taken for members is at most the key: 0.001, 0.01, 0.05. NaN with fewer
            than 1 / key non-members.
        tpr_interval: its ends, by key; they allow for the threshold being set on these non-members.
        member_scores: ascending, float64, higher = more likely a member.
        nonmember_scores: likewise.
        settings: what was decided for the caller.
    """

    f1: float
    f1_interval: tuple[float, float]
    auc: float
    auc_interval: tuple[float, float]
    best_accuracy: float
    best_accuracy_interval: tuple[float, float]
    tpr: dict[float, float]
    tpr_interval: dict[float, tuple[float, float]]
    member_scores: Float64[np.ndarray, " member"]
    nonmember_scores: Float64[np.ndarray, " nonmember"]
    settings: dict[str, Any]

    def roc(self) -> tuple[Float64[np.ndarray, " threshold"], Float64[np.ndarray, " threshold"]]:
        """Shares of members and of non-members at or above each threshold, from (0, 0) down the scores to (1, 1)."""
        found, mistaken = (np.cumsum(count[0]) for count in _counts(_places(self.member_scores, self.nonmember_scores)))
        return np.append(0.0, found / found[-1]), np.append(0.0, mistaken / mistaken[-1])

    def to_pandas(self) -> "pd.DataFrame":
        """One row a metric: metric, value, low, high."""
        import pandas as pd

        rows = [("f1", self.f1, *self.f1_interval), ("auc", self.auc, *self.auc_interval)]
        rows.append(("best_accuracy", self.best_accuracy, *self.best_accuracy_interval))
        rows += [(f"tpr_at_fpr_{fpr:g}", value, *self.tpr_interval[fpr]) for fpr, value in self.tpr.items()]
        return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder: metrics.parquet (a row a metric), scores.parquet (a row a sample), settings.json."""
        import pandas as pd

        counts = [len(self.member_scores), len(self.nonmember_scores)]
        values = np.concatenate([self.member_scores, self.nonmember_scores])
        scores = pd.DataFrame({"member": np.repeat([True, False], counts), "score": values})
        write_tables(folder, {"metrics": self.to_pandas(), "scores": scores})
        write_json(Path(folder) / "settings.json", "Membership", self.settings)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Membership":
        """Read what `save` wrote.

        Raises:
            ResultError: the folder holds no Membership, or a damaged one.
        """
        settings = read_json(Path(folder) / "settings.json", "Membership")
        metrics = read_table(folder, "metrics", ("metric", "value", "low", "high")).set_index("metric")
        names = ["f1", "auc", "best_accuracy", *(f"tpr_at_fpr_{fpr:g}" for fpr in FPRS)]
        missing = sorted(set(names) - set(metrics.index))
        if missing:
            raise ResultError(f"{folder} is damaged: metrics.parquet lacks {', '.join(missing)}")
        scores = read_table(folder, "scores", ("member", "score"))
        values, member = scores["score"].to_numpy(np.float64), scores["member"].to_numpy(bool)
        value = {name: float(metrics.loc[name, "value"]) for name in names}
        ends = {name: (float(metrics.loc[name, "low"]), float(metrics.loc[name, "high"])) for name in names}
        return cls(
            f1=value["f1"],
            f1_interval=ends["f1"],
            auc=value["auc"],
            auc_interval=ends["auc"],
            best_accuracy=value["best_accuracy"],
            best_accuracy_interval=ends["best_accuracy"],
            tpr={fpr: value[f"tpr_at_fpr_{fpr:g}"] for fpr in FPRS},
            tpr_interval={fpr: ends[f"tpr_at_fpr_{fpr:g}"] for fpr in FPRS},
            member_scores=values[member],
            nonmember_scores=values[~member],
            settings=settings,
        )

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Members found against non-members mistaken; see `memorization.report.plots.plot_membership`."""
        from memorization.report.plots import plot_membership

        return plot_membership(self, ax)

    def __repr__(self) -> str:
        n_members, n_nonmembers = len(self.member_scores), len(self.nonmember_scores)
        n_each = self.settings["n_each"]
        balanced = "" if n_members == n_nonmembers else f" ({n_each:,} of each)"
        lines = [
            f"Membership of {n_members:,} members and {n_nonmembers:,} non-members; "
            f"{100 * self.settings['interval_level']:g} % intervals",
            f"  F1           {with_interval(self.f1, self.f1_interval)}: threshold at the pooled median{balanced}; chance is 0.5",
            f"  AUC          {with_interval(self.auc, self.auc_interval)}",
        ]
        for fpr, value in self.tpr.items():
            unknown = f"unknown: needs {math.ceil(1 / fpr):,} non-members"
            known = unknown if math.isnan(value) else with_interval(value, self.tpr_interval[fpr])
            lines.append(f"  TPR          {known} at FPR {100 * fpr:g} %")
        best = with_interval(self.best_accuracy, self.best_accuracy_interval)
        lines.append(f"  accuracy     {best}: threshold chosen on the same samples, optimistic{balanced}")
        return "\n".join(lines)


def membership_metrics(
    member_scores: Any, nonmember_scores: Any, *, interval: float = 0.95, seed: int = 0
) -> Membership:
    """How well scores tell members from non-members: F1, AUC, TPR at small FPR, best accuracy, each with an interval.

    F1 takes the n highest-ranked of n members and n non-members for members, n being where the pooled median lies. As many are taken as
    there are members, so precision = recall = accuracy = F1, and chance is 0.5 (a threshold that maximises F1 gives 0.667 at
    chance). Among equal scores at the threshold as many are taken as places are left, members in proportion: the mean over all orders.

    Args:
        member_scores: one a member, finite, higher = more likely a member.
        nonmember_scores: one a non-member, drawn like the members.
        interval: level of the intervals.
        seed: of the bootstrap, and of the choice of samples where the sets differ in size.

    Returns:
        The metrics.

    Raises:
        InputError: fewer than two of either, or scores that are not finite.

    Warns:
        UnequalSetsWarning: the sets differ in size; F1 and best accuracy are computed on all of the smaller and a random part of the
            larger. AUC and TPR, which need no balance, use all.

    Guarantees:
        Increasing transforms of the scores and the order of either set change nothing, to the last bit. F1 and AUC have the bootstrap's
        standard error on the logit scale; where the sets separate perfectly, as every resample then does, the end is Clopper and
        Pearson's for n of n. 95 % intervals covered in 93 to 98 % of trials (30 to 1,000 of each, AUC 0.5 to 0.9998). TPR has order
        statistics of the non-members and Clopper and Pearson's interval of the members, best accuracy Smirnov's bound: both hold
        whatever the distribution, and are wide for it. The lower end of TPR is 0 where the non-members are too few to tell.

    Examples:
        >>> result = membership_metrics([3.0, 2.0, 2.0, 0.0], [2.0, 1.0, 0.0, 0.0])
        >>> result.f1, result.auc  # of the four highest, 3, 2, 2 and 2, three are members
        (0.75, 0.75)

    Source:
        Morris et al., arXiv:2505.24832 (F1); Carlini et al., arXiv:2112.03570 (TPR at small FPR).
    """
    check_level(interval)
    # Sorted, so that neither the bootstrap nor the choice below depends on the order of the input.
    everything = _scores("member_scores", member_scores), _scores("nonmember_scores", nonmember_scores)
    draws = np.random.default_rng(seed)
    n_each = min(len(scores) for scores in everything)
    if len(everything[0]) != len(everything[1]):
        warnings.warn(
            f"there are {len(everything[0])} members and {len(everything[1])} non-members: F1 and best accuracy are computed on {n_each} "
            "of each, chosen at random; AUC and TPR use all.",
            UnequalSetsWarning,
            stacklevel=2,
        )
    balanced = [s if len(s) == n_each else np.sort(draws.choice(s, n_each, replace=False)) for s in everything]
    f1, resampled = _bootstrap(_f1, _places(*balanced), draws)
    best = float(_best_accuracy(*_counts(_places(*balanced)))[0])
    f1_ends = _logit_interval(f1, resampled, n_each, interval)
    auc, resampled = _bootstrap(_auc, _places(*everything), draws)
    tpr = {fpr: _tpr(*everything, fpr) for fpr in FPRS}
    return Membership(
        f1=f1,
        f1_interval=f1_ends,
        auc=auc,
        auc_interval=_logit_interval(auc, resampled, n_each, interval),
        best_accuracy=best,
        best_accuracy_interval=_best_accuracy_interval(best, n_each, interval),
        tpr=tpr,
        tpr_interval={fpr: _tpr_interval(*everything, fpr, interval) for fpr in FPRS},
        member_scores=everything[0],
        nonmember_scores=everything[1],
        settings={"interval_level": interval, "seed": seed, "n_each": n_each, "versions": versions()},
    )


def check_level(interval: float) -> None:
    """Refuse an interval level that is none."""
    if not 0 < interval < 1:
        raise InputError(f"interval is a level between 0 and 1, such as 0.95; it is {interval}")


def _scores(name: str, values: Any) -> Float64[np.ndarray, " sample"]:
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a flat array of numbers, one a sample: {error}") from error
    if scores.ndim != 1 or len(scores) < 2:
        raise InputError(
            f"{name} must be a flat array of at least two numbers, one a sample; its shape is {list(scores.shape)}"
        )
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise InputError(
            f"{name} must be finite; entry {wrong[0]} is {scores[wrong[0]]} ({len(wrong)} such). Leave such samples out, or rank them"
        )
    return np.sort(scores)


def _places(
    members: Float64[np.ndarray, " member"], nonmembers: Float64[np.ndarray, " nonmember"]
) -> tuple[Int64[np.ndarray, " member"], Int64[np.ndarray, " nonmember"]]:
    """Place of each score among the different scores of both sets, 0 the highest: all that a metric depends on."""
    places = np.unique(-np.concatenate([members, nonmembers]), return_inverse=True)[1].astype(np.int64)
    return places[: len(members)], places[len(members) :]


def _counts(places: tuple[np.ndarray, np.ndarray]) -> tuple[Counts, Counts]:
    n_places = 1 + max(int(place.max()) for place in places)
    return _count(places[0][None], n_places), _count(places[1][None], n_places)


def _count(places: Int64[np.ndarray, "resample sample"], n_places: int) -> Counts:
    """How many scores of each row stand at each place."""
    flat = places + n_places * np.arange(len(places))[:, None]
    counts = np.bincount(flat.ravel(), minlength=n_places * len(places)).reshape(len(places), n_places)
    return counts.astype(np.float64)


def _f1(members: Counts, nonmembers: Counts) -> Float64[np.ndarray, " resample"]:
    """Share of n members among the n highest of n members and n non-members; of the tied at the edge, members in proportion."""
    at_place, n = members + nonmembers, members[0].sum()
    # The place that fills up: the first at which n scores stand at or above. It holds scores itself.
    edge = (np.cumsum(at_place, axis=1) < n).sum(axis=1)
    rows = np.arange(len(members))
    above = np.where(np.arange(at_place.shape[1]) < edge[:, None], 1.0, 0.0)
    left = n - (above * at_place).sum(axis=1)
    found = (above * members).sum(axis=1) + left * members[rows, edge] / at_place[rows, edge]
    return np.asarray(found / n)


def _auc(members: Counts, nonmembers: Counts) -> Float64[np.ndarray, " resample"]:
    below = nonmembers.sum(axis=1, keepdims=True) - np.cumsum(nonmembers, axis=1)
    pairs = members[0].sum() * nonmembers[0].sum()
    return np.asarray((members * (below + nonmembers / 2)).sum(axis=1) / pairs)


def _best_accuracy(members: Counts, nonmembers: Counts) -> Float64[np.ndarray, " resample"]:
    gain = np.cumsum(members, axis=1) / members[0].sum() - np.cumsum(nonmembers, axis=1) / nonmembers[0].sum()
    return np.asarray(0.5 + np.maximum(gain.max(axis=1), 0) / 2)  # 0: nobody is taken for a member


def _bootstrap(
    statistic: Statistic, places: tuple[np.ndarray, np.ndarray], draws: np.random.Generator
) -> tuple[float, Float64[np.ndarray, " resample"]]:
    """A statistic of two sets, and of resamples of each set."""
    counts = _counts(places)
    n_values = sum(len(place) for place in places)
    n_resamples = int(np.clip(_DRAWS // n_values, 199, _RESAMPLES))
    batch = max(1, _BATCH_DRAWS // n_values)
    resampled = []
    for start in range(0, n_resamples, batch):
        rows = min(batch, n_resamples - start)
        drawn = [place[draws.integers(0, len(place), (rows, len(place)))] for place in places]
        resampled.append(statistic(*(_count(place, counts[0].shape[1]) for place in drawn)))
    return float(statistic(*counts)[0]), np.concatenate(resampled)


def _logit_interval(
    value: float, resampled: Float64[np.ndarray, " resample"], n: int, interval: float, stretch: float = 1.0
) -> tuple[float, float]:
    """Normal interval of log(value / (1 - value)), with the standard error of resamples times `stretch`.

    At 0 and 1 resamples do not differ; there the end is Clopper and Pearson's for n of n independent pairs.
    """
    from scipy.special import expit, logit, ndtri

    surely = ((1 - interval) / 2) ** (1 / n)
    if value in (0, 1):
        return (surely, 1.0) if value else (0.0, 1 - surely)
    stderr = stretch * float(resampled.std(ddof=1)) / (value * (1 - value))
    if not stderr:  # all scores are equal, which says nothing of how the next would differ
        return math.nan, math.nan
    ends = expit(logit(value) + ndtri((1 + interval) / 2) * stderr * np.array([-1, 1]))
    return float(ends[0]), float(ends[1])


def _best_accuracy_interval(best: float, n: int, interval: float) -> tuple[float, float]:
    """best = (1 + D) / 2, D being Smirnov's one-sided statistic of two samples of n: within his critical value of the truth."""
    reach = math.sqrt(math.log(2 / (1 - interval)) / n) / 2
    return max(0.5, best - reach), min(1.0, best + reach)


def _allowed(n_nonmembers: int, fpr: float) -> int:
    return math.floor(n_nonmembers * fpr)


def _tpr(members: Float64[np.ndarray, " member"], nonmembers: Float64[np.ndarray, " nonmember"], fpr: float) -> float:
    """Share of members above the highest threshold that more non-members than allowed would reach."""
    allowed = _allowed(len(nonmembers), fpr)
    return float(np.mean(members > nonmembers[-1 - allowed])) if allowed else math.nan


def _tpr_interval(
    members: Float64[np.ndarray, " member"], nonmembers: Float64[np.ndarray, " nonmember"], fpr: float, interval: float
) -> tuple[float, float]:
    """Each end at half of its tail for the threshold, which order statistics bracket, and half for the members above it."""
    from scipy.special import betaincinv
    from scipy.stats import binom

    n, m, quarter = len(members), len(nonmembers), (1 - interval) / 4
    if not _allowed(m, fpr):
        return math.nan, math.nan
    # The k-th highest non-member is above the population's threshold where at least k of m are: binomial.
    least, most = int(binom.ppf(quarter, m, fpr)), int(binom.ppf(1 - quarter, m, fpr))
    few = int((members > nonmembers[-least]).sum()) if least else 0
    many = int((members > nonmembers[-1 - most]).sum()) if most < m else n
    low = float(betaincinv(few, n - few + 1, quarter)) if few else 0.0
    high = float(betaincinv(many + 1, n - many, 1 - quarter)) if many < n else 1.0
    return low, high


def with_interval(value: float, ends: tuple[float, float]) -> str:
    """A value and its interval in words."""
    return f"{value:.4g} [{ends[0]:.4g}, {ends[1]:.4g}]"


def auc_with_interval(
    member_scores: Float64[np.ndarray, " member"],
    nonmember_scores: Float64[np.ndarray, " nonmember"],
    *,
    interval: float,
    stretch: float,
    seed: int,
) -> tuple[float, tuple[float, float]]:
    """AUC, and its bootstrap interval with the standard error times `stretch`."""
    places = _places(np.sort(member_scores), np.sort(nonmember_scores))
    auc, resampled = _bootstrap(_auc, places, np.random.default_rng(seed))
    n_each = min(len(member_scores), len(nonmember_scores))
    return auc, _logit_interval(auc, resampled, n_each, interval, stretch)


def f1_and_auc(member_scores: Any, nonmember_scores: Any) -> tuple[float, float]:
    """F1 at the pooled median and AUC of as many members as non-members, as `membership_metrics` has them, without the intervals.

    For sweeps over many models, whose scatter between seeds says more.

    Raises:
        InputError: fewer than two of either, unequal numbers, or scores that are not finite.

    Examples:
        >>> f1_and_auc([3.0, 2.0, 2.0, 0.0], [2.0, 1.0, 0.0, 0.0])
        (0.75, 0.75)
    """
    scores = _scores("member_scores", member_scores), _scores("nonmember_scores", nonmember_scores)
    if len(scores[0]) != len(scores[1]):
        raise InputError(f"F1 needs as many members as non-members; there are {len(scores[0])} and {len(scores[1])}")
    counts = _counts(_places(*scores))
    return float(_f1(*counts)[0]), float(_auc(*counts)[0])
