"""Was a sample in the training data? Attacks that rank samples by their token bits, what they achieve, and a control of the split."""

import math
import os
import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from memorization.compression import CodeLengths
from memorization.errors import InputError, ResultError, SplitLeakWarning, UnequalSetsWarning
from memorization.models import opened_model
from memorization.pairing import check_same_samples, differ_in_tokens
from memorization.records import read_json, read_table, versions, write_json, write_tables
from memorization.samples import Samples, read_samples
from memorization.scoring import windows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

FPRS = (0.001, 0.01, 0.05)
_RESAMPLES = 1_999
_DRAWS = 50_000_000  # a bootstrap of more draws than this takes over a second, and resamples of large sets scatter little anyway
_BATCH_DRAWS = 1_000_000  # held in memory at a time
_FOLDS = 5
_OTHER_MODEL_BITS = 0.1  # mean difference a token; the same model in another batch, dtype or device stays below 0.05
_ROWS = 64  # of logits turned to float64 at a time

Counts: TypeAlias = Float64[np.ndarray, "resample place"]
Statistic: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]  # counts of members and of non-members


# --- attacks: higher = more likely a member


def loss_attack(target: CodeLengths) -> Float64[np.ndarray, " sample"]:
    """Minus the ideal bits per token of each sample: the paper's attack, which takes a sample of low loss for a member.

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
    """H(x | oracle) - H(x | target) of each sample, in ideal bits: signed memU, so that text easy for any model is no sign of membership.

    Args:
        target: code lengths under the model under audit.
        oracle: code lengths of the same tokens under a model that has not seen the samples.

    Returns:
        Bits a sample, float64.

    Raises:
        ResultError: the two are of other samples.
        InputError: they code the samples in different tokens.

    Source:
        Carlini et al., arXiv:2112.03570, difficulty calibration.
    """
    check_same_samples(oracle, target, "the oracle's CodeLengths")
    if differ_in_tokens(target, oracle) or not np.array_equal(target.n_tokens, oracle.n_tokens):
        raise InputError(
            "target and oracle code the samples in different tokens, so their bits lack the code of the token counts. Take "
            "ideal_signed_bits of unintended_memorization(target, oracle, samples), which has it"
        )
    return np.asarray(oracle.ideal_bits - target.ideal_bits)


def zlib_attack(target: CodeLengths, samples: Any) -> Float64[np.ndarray, " sample"]:
    """Minus the ratio of ideal bits under the target to bits after zlib (level 9), so that repetitive text is no sign of membership.

    Args:
        target: code lengths of texts under the model under audit.
        samples: the same texts, as `compress_bits` takes them.

    Returns:
        Minus a ratio of bits, float64.

    Raises:
        InputError: the samples are token ids.
        ResultError: the code lengths are of other texts.

    Source:
        Carlini et al., arXiv:2012.07805, which divides the loss *per token* by zlib's *total* and so favours long samples.
    """
    import zlib

    record = target.settings["samples"]
    read = read_samples(samples)
    if read.texts is None:
        raise InputError("zlib compresses text, and these samples are token ids: pass the texts that were measured")
    read = read.leave_out(record["lossy_skipped"]) if record["lossy_skipped"] else read
    if read.texts_sha256 != record["texts_sha256"]:
        raise ResultError(
            f"these {len(read)} texts are not the {record['n_samples']} that were measured (compared by fingerprint, order included). Pass "
            "the same texts, or measure again"
        )
    assert read.texts is not None
    packed_bits = np.array([8 * len(zlib.compress(text.encode(), 9)) for text in read.texts], dtype=np.float64)
    return np.asarray(-target.ideal_bits / packed_bits)


def min_k_attack(target: CodeLengths, *, k_percent: float = 20.0) -> Float64[np.ndarray, " sample"]:
    """Minus the mean ideal bits of each sample's k % most surprising tokens: text never seen has outliers.

    Args:
        target: code lengths under the model under audit.
        k_percent: share of tokens, above 0 and at most 100; rounded down, at least one token.

    Returns:
        Minus bits per token, float64. With k_percent = 100 it is `loss_attack`.

    Raises:
        InputError: a share that is none.

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
    """Min-k % of log p standardised by its mean and standard deviation over the vocabulary: is the token a mode of its distribution?

    Args:
        target: code lengths under the model under audit.
        mean_bits: of each coded token, the expected bits of a token drawn from the model there (its entropy).
        sd_bits: their standard deviation; 0 where all tokens cost the same, whose standardised log p is 0. `token_moments` gives both.
        k_percent: as for `min_k_attack`.

    Returns:
        Mean standardised log p of the lowest k %, float64; no unit.

    Raises:
        InputError: arrays of another length, or values that are no moments.

    Source:
        Zhang et al., arXiv:2404.02936.
    """
    for name, values in (("mean_bits", mean_bits), ("sd_bits", sd_bits)):
        if values.shape != target.token_bits.shape:
            raise InputError(
                f"{name} holds one entry a coded token, {len(target.token_bits)} in all; its shape is {list(values.shape)}"
            )
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(wrong):
            raise InputError(f"{name} must be finite and at least 0; entry {wrong[0]} is {values[wrong[0]]:g}")
    standardised = np.zeros(len(target.token_bits))
    np.divide(mean_bits - target.token_bits, sd_bits, out=standardised, where=sd_bits > 0)
    return _mean_of_lowest(standardised, target.token_offsets, k_percent)


def token_moments(
    model: Any,
    lengths: CodeLengths,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[Float64[np.ndarray, " token"], Float64[np.ndarray, " token"]]:
    """Mean and standard deviation, over the vocabulary, of the bits that a token would have cost in each coded token's place.

    One more pass of the model over the tokens, one window at a time, for `min_k_plus_plus_attack`.

    Args:
        model: the one that `lengths` were measured with, as for `compress_bits`.
        lengths: code lengths, with the tokens, windows and first-token rule that they were measured with.
        device: as for `compress_bits`.
        dtype: likewise.
        revision: likewise.
        trust_remote_code: likewise.

    Returns:
        mean_bits and sd_bits, laid out like `lengths.token_bits`. A uniform first token has sd 0.

    Raises:
        InputError: lengths with first_token="skip", which lack a token that the model read.
        ResultError: the model gives the tokens other bits: it is not the one that was measured.
        ModelError: the model cannot be loaded.
    """
    first, rule = lengths.settings["first_token"], lengths.settings["first_token"]["rule"]
    if rule == "skip":
        raise InputError(
            'first_token="skip" leaves the first token out of the CodeLengths, and the model cannot be asked again without it. Measure '
            'with first_token="uniform"'
        )
    moments = np.zeros((3, len(lengths.token_bits)))
    with (
        opened_model(
            model, device=device, dtype=dtype, revision=revision, trust_remote_code=trust_remote_code
        ) as opened,
        torch.no_grad(),
    ):
        for start, stop in pairwise(lengths.token_offsets):
            ids = lengths.token_ids[start:stop]
            if rule == "uniform":
                bits = math.log2(lengths.settings["uniform_vocab_size"])
                moments[:, start] = bits, bits, 0
                start += 1
            sequence = ids if rule == "uniform" else np.concatenate([[first["id"]], ids])
            spans = windows(len(sequence), lengths.settings["max_length"], lengths.settings["stride"])
            for begin, end, n_new in spans if len(sequence) > 1 else []:
                logits = opened.logits(torch.from_numpy(sequence[None, begin:end]).to(opened.device))[0, -n_new:]
                moments[:, start : start + n_new] = _moments_bits(logits, sequence[end - n_new + 1 : end + 1])
                start += n_new
    difference = float(np.abs(moments[0] - lengths.token_bits).mean())
    if not difference <= _OTHER_MODEL_BITS:
        raise ResultError(
            f"under {opened.record['name']} the tokens cost other bits than in the CodeLengths, by {difference:.3g} a token in the mean: "
            f"they were measured with {lengths.settings['model']['name']}, or with other weights. Pass that model, or measure again"
        )
    return moments[1], moments[2]


def _moments_bits(logits: torch.Tensor, ids: np.ndarray) -> Float64[np.ndarray, "3 token"]:
    """Bits of the tokens themselves, and mean and standard deviation of bits under the model."""
    parts = []
    for rows, own in zip(logits.split(_ROWS), torch.from_numpy(ids).split(_ROWS), strict=True):
        bits = -rows.double().log_softmax(-1) / math.log(2)
        share = torch.exp2(-bits)
        own_bits = bits.gather(1, own.to(bits.device)[:, None])[:, 0]
        bits = torch.where(share > 0, bits, 0.0)  # 0 x inf is 0: such a token is never drawn
        mean = (share * bits).sum(-1)
        sd = (share * (bits - mean[:, None]) ** 2).sum(-1).sqrt()
        parts.append(torch.stack([own_bits, mean, sd]))
    return torch.cat(parts, dim=1).cpu().numpy()


def _mean_of_lowest(
    values: Float64[np.ndarray, " token"], offsets: Int64[np.ndarray, " edge"], k_percent: float
) -> Float64[np.ndarray, " sample"]:
    if not 0 < k_percent <= 100:
        raise InputError(f"k_percent must lie above 0 and at most at 100; it is {k_percent}")
    means = np.empty(len(offsets) - 1)
    for i, (start, stop) in enumerate(pairwise(offsets)):
        k = max(1, math.floor(k_percent * (stop - start) / 100))
        means[i] = np.partition(values[start:stop], k - 1)[:k].mean()
    return means


# --- metrics


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
            f"  F1           {_with_interval(self.f1, self.f1_interval)}: threshold at the pooled median{balanced}; chance is 0.5",
            f"  AUC          {_with_interval(self.auc, self.auc_interval)}",
        ]
        for fpr, value in self.tpr.items():
            unknown = f"unknown: needs {math.ceil(1 / fpr):,} non-members"
            known = unknown if math.isnan(value) else _with_interval(value, self.tpr_interval[fpr])
            lines.append(f"  TPR          {known} at FPR {100 * fpr:g} %")
        best = _with_interval(self.best_accuracy, self.best_accuracy_interval)
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
    _check_level(interval)
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


def _check_level(interval: float) -> None:
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


def _with_interval(value: float, ends: tuple[float, float]) -> str:
    return f"{value:.4g} [{ends[0]:.4g}, {ends[1]:.4g}]"


# --- controls of the split


def check_disjoint(members: Any, nonmembers: Any) -> None:
    """Raise where a sample is both a member and a non-member, which no attack can tell apart.

    Args:
        members: samples, as `compress_bits` takes them.
        nonmembers: likewise, texts or ids like the members.

    Raises:
        InputError: naming the first sample that is in both, and how many are.

    Examples:
        >>> check_disjoint(["seen"], ["unseen"])
    """
    _check_disjoint(*_read_both(members, nonmembers))


@dataclass(frozen=True, slots=True)
class BagOfWords:
    """How well word counts alone tell members from non-members.

    Attributes:
        auc: of out-of-fold log odds; 0.5 where the split is sound.
        auc_interval: its lower and upper end, at interval_level.
        interval_level: of auc_interval.
        n_members: samples.
        n_nonmembers: samples.
        n_words: different words, or token ids.
    """

    auc: float
    auc_interval: tuple[float, float]
    interval_level: float
    n_members: int
    n_nonmembers: int
    n_words: int

    @property
    def leaks(self) -> bool:
        """Whether the lower end of the interval is above 0.5."""
        return self.auc_interval[0] > 0.5


def bag_of_words_auc(members: Any, nonmembers: Any, *, interval: float = 0.95, seed: int = 0) -> BagOfWords:
    """AUC of telling members from non-members by word counts alone, without any model: 0.5 where the split is sound.

    Logistic regression (L2, C = 1) on counts of words, or of token ids, in 5-fold stratified cross-validation: each sample is ranked by a
    classifier that was trained without it. Where that works, members and non-members differ in topic, date or source, and an
    attack may find that instead of memorization.

    Args:
        members: samples, as `compress_bits` takes them; at least 5.
        nonmembers: likewise, texts or ids like the members.
        interval: level of the interval.
        seed: of the folds and the bootstrap.

    Returns:
        The AUC and its interval.

    Raises:
        InputError: too few samples, a sample that is in both sets, texts against ids; or scikit-learn is not installed.

    Warns:
        SplitLeakWarning: the lower end of the interval is above 0.5.

    Guarantees:
        Out-of-fold ranks are not independent: each sample also trained the classifiers of four folds. So the bootstrap's standard error is
        multiplied by 1.5 = sqrt(1 + 5/4), Nadeau and Bengio's correction for five folds. Of 200 random splits of one source (20 and
        60 samples of each; 80 of 200), 1 to 1.5 % were warned of; without the correction 5 to 10 %.

    Source:
        Meeus et al., arXiv:2406.17975; Das et al., arXiv:2406.16201; Nadeau and Bengio, doi:10.1023/A:1024068626366.
    """
    _check_level(interval)
    member, counts = _word_counts(*_read_both(members, nonmembers))
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    log_odds = cross_val_predict(
        LogisticRegression(solver="liblinear", random_state=seed),  # quick on sparse counts that are not scaled
        counts,
        member,
        cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=seed),
        method="decision_function",
    )
    n_members = int(member.sum())
    n_nonmembers = len(member) - n_members
    places = _places(np.sort(log_odds[member]), np.sort(log_odds[~member]))
    auc, resampled = _bootstrap(_auc, places, np.random.default_rng(seed))
    stretch = math.sqrt(1 + _FOLDS / (_FOLDS - 1))
    ends = _logit_interval(auc, resampled, min(n_members, n_nonmembers), interval, stretch)
    result = BagOfWords(auc, ends, interval, n_members, n_nonmembers, int(counts.shape[1]))
    if result.leaks:
        warnings.warn(
            f"the split leaks: word counts alone tell members from non-members with an AUC of {_with_interval(auc, ends)}, so an attack "
            "that succeeds may have found the split, not memorization. Draw both from one source at random, or compare with an attack on a "
            "model that has seen neither.",
            SplitLeakWarning,
            stacklevel=2,
        )
    return result


def _word_counts(members: Samples, nonmembers: Samples) -> tuple[Bool[np.ndarray, " sample"], Any]:
    """Which samples are members, and the sparse matrix of counts: a row a sample, a column a word."""
    try:
        from sklearn.feature_extraction.text import CountVectorizer
    except ImportError as error:
        raise InputError(
            f'bag_of_words_auc needs scikit-learn, which is not installed ({error}): pip install "lm-memorization[audit]"'
        ) from error
    _check_disjoint(members, nonmembers)
    sizes = [len(members), len(nonmembers)]
    if min(sizes) < _FOLDS:
        raise InputError(
            f"{_FOLDS} folds need at least {_FOLDS} samples of each kind; there are {sizes[0]} members and {sizes[1]} non-members"
        )
    # Words of one letter count; ids are words as they are.
    is_text = members.texts is not None
    counter = CountVectorizer(token_pattern=r"(?u)\b\w+\b") if is_text else CountVectorizer(analyzer=tuple)
    try:
        counts = counter.fit_transform([*_keys(members), *_keys(nonmembers)])
    except ValueError as error:
        raise InputError(f"the samples hold no word to tell them by ({error})") from error
    return np.repeat([True, False], sizes), counts


def _read_both(members: Any, nonmembers: Any) -> tuple[Samples, Samples]:
    read = read_samples(members), read_samples(nonmembers)
    if (read[0].texts is None) != (read[1].texts is None):
        kinds = ["token ids" if part.texts is None else "texts" for part in read]
        raise InputError(f"members are {kinds[0]} and non-members {kinds[1]}: pass texts for both, or ids for both")
    return read


def _keys(samples: Samples) -> list[Any]:
    """Texts, or tuples of ids."""
    return samples.texts if samples.texts is not None else [tuple(ids.tolist()) for ids in samples.ids or ()]


def _check_disjoint(members: Samples, nonmembers: Samples) -> None:
    where: Mapping[Hashable, int] = {key: i for i, key in reversed(list(enumerate(_keys(nonmembers))))}
    both = [(i, where[key], key) for i, key in enumerate(_keys(members)) if key in where]
    if both:
        i, j, key = both[0]
        raise InputError(
            f"member {i} is also non-member {j}: {repr(key)[:80]} ({len(both)} of {len(members)} members are in both). Leave such samples "
            "out of both sets: the model has seen them, whatever they are called"
        )
