"""The results of membership inference: metrics of one set of scores, and of each attack on a model."""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from memorization.membership.split import BagOfWords
from memorization.results import About, Result, Saved, counted, describe_first_token, describe_model, number, with_about
from memorization.samples import left_out
from memorization.stats.levels import Interval, with_interval
from memorization.stats.ranking import counts_of, places_of
from memorization.stats.significance import conformal_p_values, least_permutation_p_value, q_of_p_values

if TYPE_CHECKING:
    import pandas as pd


FPRS = (0.001, 0.01, 0.05)


@dataclass(frozen=True, slots=True, eq=False)
class Membership(Result):
    """How well scores tell members from non-members. Intervals hold at the level settings["interval_level"].

    A saved folder holds metrics.parquet (a row a metric), scores.parquet (a row a sample) and settings.json.

    Attributes:
        f1: at the pooled-median threshold on equally many of both, where F1 = precision = recall = accuracy; 0.5 at
            chance.
        f1_interval: its lower and upper end.
        auc: probability that a member ranks above a non-member, ties counting half.
        auc_interval: its ends.
        auc_p_value: how often sets made at random of the same samples, or whole documents, have as high an AUC. NaN
            where an earlier version saved the result.
        best_accuracy: at the threshold that is best for these very samples, on equally many of both: optimistic, above
            0.5 at chance.
        best_accuracy_interval: its ends, wide enough for that optimism.
        tpr: share of members found where the share of non-members taken for members is at most the key: 0.001, 0.01,
            0.05. NaN with fewer than 1 / key non-members.
        tpr_interval: its ends, by key; they allow for the threshold being set on these non-members.
        member_scores: ascending, float64, higher = more likely a member.
        nonmember_scores: the same of non-members.
        member_index: position of each of them in the input, int64: the `sample` of other tables. -1 where a result that
            version 0.1.0 saved does not say.
        nonmember_index: the same of non-members.
        member_p_values: of each member against the non-members, float64 (`stats.significance.conformal_p_values`); NaN
            where an earlier version saved a result with documents.
        settings: what was decided for the caller.
        member_about: how each member begins, its id and the columns that were kept, laid out like member_scores; None
            of scores without samples, and of what an earlier version saved.
        nonmember_about: the same of non-members.

    Examples:
        >>> from memorization.membership import membership_metrics
        >>> membership_metrics([3.0, 2.0, 4.0], [0.0, 1.0, 0.5]).auc
        1.0
    """

    f1: float
    f1_interval: Interval
    auc: float
    auc_interval: Interval
    auc_p_value: float
    best_accuracy: float
    best_accuracy_interval: Interval
    tpr: dict[float, float]
    tpr_interval: dict[float, Interval]
    member_scores: Float64[np.ndarray, " member"]
    nonmember_scores: Float64[np.ndarray, " nonmember"]
    member_index: Int64[np.ndarray, " member"]
    nonmember_index: Int64[np.ndarray, " nonmember"]
    member_p_values: Float64[np.ndarray, " member"]
    settings: dict[str, Any]
    member_about: About | None = None
    nonmember_about: About | None = None

    def roc(self) -> tuple[Float64[np.ndarray, " threshold"], Float64[np.ndarray, " threshold"]]:
        """Shares of members and of non-members at or above each threshold, from (0, 0) down the scores to (1, 1)."""
        found, mistaken = (
            np.cumsum(count[0]) for count in counts_of(places_of(self.member_scores, self.nonmember_scores))
        )
        return np.append(0.0, found / found[-1]), np.append(0.0, mistaken / mistaken[-1])

    def to_pandas(self) -> "pd.DataFrame":
        """One row a metric: metric, value, low, high. No row of auc_p_value where it is not known."""
        import pandas as pd

        rows = [("f1", self.f1, *self.f1_interval), ("auc", self.auc, *self.auc_interval)]
        if not math.isnan(self.auc_p_value):
            rows.append(("auc_p_value", self.auc_p_value, math.nan, math.nan))
        rows.append(("best_accuracy", self.best_accuracy, *self.best_accuracy_interval))
        rows += [(f"tpr_at_fpr_{fpr:g}", value, *self.tpr_interval[fpr]) for fpr, value in self.tpr.items()]
        return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])

    def samples_to_pandas(self) -> "pd.DataFrame":
        """One row a sample: member, sample (its position in the input), score, p_value, q_value and preview.

        The p-value of a member is the share of non-members, itself counted, that score as high, and its q-value the
        lowest false discovery rate at which it is selected as one that the model tells from unseen samples. Non-members
        are what members are compared with, and have neither: NaN. Where `read_samples` was told of them, id stands
        behind sample, and the columns that were kept at the end.
        """
        import pandas as pd

        counts = [len(self.member_scores), len(self.nonmember_scores)]
        p = self.member_p_values
        none = np.full(counts[1], math.nan)
        columns = {
            "member": np.repeat([True, False], counts),
            "sample": np.concatenate([self.member_index, self.nonmember_index]),
            "score": np.concatenate([self.member_scores, self.nonmember_scores]),
            "p_value": np.concatenate([p, none]),
            "q_value": np.concatenate([np.where(np.isnan(p), math.nan, q_of_p_values(p)), none]),
        }
        return with_about(pd.DataFrame(columns), About.joined((self.member_about, self.nonmember_about), counts))

    _row_tables: ClassVar[tuple[str, ...]] = ("scores",)

    def _tables(self) -> "dict[str, pd.DataFrame]":
        return {"metrics": self.to_pandas(), "scores": self.samples_to_pandas()}

    def _facts(self) -> dict[str, Any]:
        return self.settings

    @classmethod
    def _from_saved(cls, saved: Saved) -> "Membership":
        metrics = saved.table("metrics", ("metric", "value", "low", "high")).set_index("metric")
        names = ["f1", "auc", "best_accuracy", *(f"tpr_at_fpr_{fpr:g}" for fpr in FPRS)]
        missing = sorted(set(names) - set(metrics.index))
        if missing:
            raise saved.damaged(f"metrics.parquet lacks {', '.join(missing)}")
        columns = ("member", "score") if saved.format == 1 else ("member", "sample", "score")
        scores = saved.table("scores", columns, optional=("p_value",))
        index = scores["sample"].to_numpy(np.int64) if "sample" in scores else np.full(len(scores), -1)
        values, member = scores["score"].to_numpy(np.float64), scores["member"].to_numpy(bool)
        settings = saved.need("interval_level", "n_each")
        if "p_value" in scores:
            p_values = scores["p_value"].to_numpy(np.float64)[member]
        elif settings.get("n_documents") is None:
            p_values = conformal_p_values(values[member], values[~member])
        else:
            p_values = np.full(member.sum(), math.nan)
        p_value = float(metrics["value"].get("auc_p_value", math.nan))
        about = saved.about("scores")
        value = {name: float(metrics.loc[name, "value"]) for name in names}
        ends = {name: Interval(float(metrics.loc[name, "low"]), float(metrics.loc[name, "high"])) for name in names}
        return cls(
            f1=value["f1"],
            f1_interval=ends["f1"],
            auc=value["auc"],
            auc_interval=ends["auc"],
            auc_p_value=p_value,
            best_accuracy=value["best_accuracy"],
            best_accuracy_interval=ends["best_accuracy"],
            tpr={fpr: value[f"tpr_at_fpr_{fpr:g}"] for fpr in FPRS},
            tpr_interval={fpr: ends[f"tpr_at_fpr_{fpr:g}"] for fpr in FPRS},
            member_scores=values[member],
            nonmember_scores=values[~member],
            member_index=index[member],
            nonmember_index=index[~member],
            member_p_values=p_values,
            settings=settings,
            member_about=None if about is None else about.take(np.flatnonzero(member)),
            nonmember_about=None if about is None else about.take(np.flatnonzero(~member)),
        )

    def _p_in_words(self) -> str:
        """The p-value of the AUC; that nothing can be told by it where none can be small."""
        if math.isnan(self.auc_p_value):
            return ""
        n_each = self.settings.get("n_documents") or (len(self.member_scores), len(self.nonmember_scores))
        least = least_permutation_p_value(*n_each)
        if least > 1 - self.settings["interval_level"]:
            return f"; cannot tell whether by chance: with so few no p-value is below {least:.2g}"
        return f"; p = {self.auc_p_value:.2g}"

    def __repr__(self) -> str:
        n_members, n_nonmembers = len(self.member_scores), len(self.nonmember_scores)
        n_each = self.settings["n_each"]
        balanced = "" if n_members == n_nonmembers else f" ({n_each:,} of each)"
        lines = [
            f"Membership of {counted(n_members, 'member')} and {counted(n_nonmembers, 'non-member')}; "
            f"{_intervals(self.settings)}",
            f"  F1           {with_interval(self.f1, self.f1_interval)}: threshold at the pooled median{balanced}; "
            "chance is 0.5",
            f"  AUC          {with_interval(self.auc, self.auc_interval)}" + self._p_in_words(),
        ]
        for fpr, value in self.tpr.items():
            unknown = f"unknown: needs {math.ceil(1 / fpr):,} non-members"
            known = unknown if math.isnan(value) else with_interval(value, self.tpr_interval[fpr])
            lines.append(f"  TPR          {known} at FPR {100 * fpr:g} %")
        best = with_interval(self.best_accuracy, self.best_accuracy_interval)
        lines.append(f"  accuracy     {best}: threshold chosen on the same samples, optimistic{balanced}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, eq=False)
class MembershipAudit(Result):
    """What each attack achieves on one model.

    A saved folder holds a folder for each attack, as `Membership` has it, metrics.parquet (all of them) and
    settings.json.

    Attributes:
        attacks: `Membership` by the attack's name: loss, reference (with an oracle), zlib (of texts), min_k,
            min_k_plus_plus.
        bag_of_words: how well word counts alone tell members from non-members; None where it was not computed.
        settings: what was decided for the caller; why_no_bag_of_words where there is none.

    Examples:
        >>> from memorization.membership import MembershipAudit, membership_metrics
        >>> audit = MembershipAudit({"loss": membership_metrics([3.0, 2.0], [0.0, 1.0])}, None, {})
        >>> audit.attacks["loss"].auc
        1.0
    """

    attacks: dict[str, Membership]
    bag_of_words: BagOfWords | None
    settings: dict[str, Any]

    def to_pandas(self) -> "pd.DataFrame":
        """A row an attack and metric: attack, metric, value, low, high."""
        import pandas as pd

        tables = [found.to_pandas().assign(attack=name) for name, found in self.attacks.items()]
        return pd.concat(tables, ignore_index=True)[["attack", "metric", "value", "low", "high"]]

    def _tables(self) -> "dict[str, pd.DataFrame]":
        return {"metrics": self.to_pandas()}

    def _facts(self) -> dict[str, Any]:
        words = None if self.bag_of_words is None else asdict(self.bag_of_words)
        return {"attacks": list(self.attacks), "bag_of_words": words, "settings": self.settings}

    def _parts(self) -> dict[str, Membership]:
        return self.attacks

    @classmethod
    def _from_saved(cls, saved: Saved) -> "MembershipAudit":
        facts = saved.need("attacks", "bag_of_words", "settings")
        words = facts["bag_of_words"]
        if words is not None:
            words = BagOfWords(**{**words, "auc_interval": Interval(*map(number, words["auc_interval"]))})
        attacks = {name: saved.part(name, Membership) for name in facts["attacks"]}
        return cls(attacks=attacks, bag_of_words=words, settings=facts["settings"])

    def __repr__(self) -> str:
        some = next(iter(self.attacks.values()))
        n_members, n_nonmembers = len(some.member_scores), len(some.nonmember_scores)
        lines = [
            f"MembershipAudit of {counted(n_members, 'member')} and {counted(n_nonmembers, 'non-member')}; "
            f"{_intervals(some.settings)}",
            f"  {'attack':<17}{'AUC':<25}{'F1, chance is 0.5':<25}TPR at FPR 1 %",
        ]
        for name, found in self.attacks.items():
            few = np.isnan(found.tpr[0.01])
            tpr = "unknown: needs 100 non-members" if few else _short(found.tpr[0.01], found.tpr_interval[0.01])
            lines.append(
                f"  {name:<17}{_short(found.auc, found.auc_interval):<25}{_short(found.f1, found.f1_interval):<25}{tpr}"
            )
        records = {"members": self.settings["members"], "non-members": self.settings["nonmembers"]}
        lines += left_out(records, 17)
        if self.bag_of_words is None:
            lines.append(f"  split            not checked: {self.settings['why_no_bag_of_words']}")
        else:
            auc = with_interval(self.bag_of_words.auc, self.bag_of_words.auc_interval)
            verdict = "IT LEAKS: attacks may find this" if self.bag_of_words.leaks else "no leak found: 0.5 is chance"
            lines.append(f"  split            AUC of word counts alone {auc}; {verdict}")
        lines.append(f"  target           {describe_model(self.settings['target'])}")
        oracle = self.settings["oracle"]
        lines.append(
            f"  oracle           {'none, so no reference attack' if oracle is None else describe_model(oracle)}"
        )
        first_token = describe_first_token(self.settings["first_token"], self.settings["members"])
        lines.append(f"  first token      {first_token}")
        return "\n".join(lines)


def _intervals(settings: dict[str, Any]) -> str:
    """What the intervals are of, in words; results of version 0.1.0 know nothing of documents."""
    words, documents = f"{100 * settings['interval_level']:g} % intervals", settings.get("n_documents")
    if documents is None:
        return words
    unit = "different samples, equal ones counted once" if settings.get("equal_samples") else "whole documents"
    return f"{words} of {documents[0]:,} and {documents[1]:,} {unit}"


def _short(value: float, ends: tuple[float, float]) -> str:
    return with_interval(value, ends, ".3f")
