"""All attacks on one model, and what each achieves: members against non-members, with the control of the split beside it."""

import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float64

from memorization.compression import compress_bits
from memorization.errors import InputError, ResultError, UnequalSetsWarning
from memorization.membership.attacks import (
    check_k_percent,
    loss_attack,
    min_k_attack,
    min_k_plus_plus_attack,
    token_moments,
    zlib_attack,
)
from memorization.membership.metrics import Membership, check_level, membership_metrics, with_interval
from memorization.membership.split import BagOfWords, bag_of_words_auc, check_disjoint
from memorization.records import describe_first_token, describe_model, read_json, versions, write_json, write_tables
from memorization.samples import read_samples
from memorization.unintended import unintended_memorization

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_SHORT = 10  # of a kind: fewer cannot be split into folds for the control of the split, which then says nothing


@dataclass(frozen=True, slots=True, eq=False)
class MembershipAudit:
    """What each attack achieves on one model.

    Attributes:
        attacks: `Membership` by the attack's name: loss, reference (with an oracle), zlib (of texts), min_k, min_k_plus_plus.
        bag_of_words: how well word counts alone tell members from non-members; None where it was not computed.
        settings: what was decided for the caller; why_no_bag_of_words where there is none.
    """

    attacks: dict[str, Membership]
    bag_of_words: BagOfWords | None
    settings: dict[str, Any]

    def to_pandas(self) -> "pd.DataFrame":
        """A row an attack and metric: attack, metric, value, low, high."""
        import pandas as pd

        tables = [found.to_pandas().assign(attack=name) for name, found in self.attacks.items()]
        return pd.concat(tables, ignore_index=True)[["attack", "metric", "value", "low", "high"]]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder: a folder for each attack as `Membership.save` does, metrics.parquet (all of them), settings.json."""
        for name, found in self.attacks.items():
            found.save(Path(folder) / name)
        write_tables(folder, {"metrics": self.to_pandas()})
        words = None if self.bag_of_words is None else asdict(self.bag_of_words)
        facts = {"attacks": list(self.attacks), "bag_of_words": words, "settings": self.settings}
        write_json(Path(folder) / "settings.json", "MembershipAudit", facts)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "MembershipAudit":
        """Read what `save` wrote.

        Raises:
            ResultError: the folder holds no MembershipAudit, or a damaged one.
        """
        saved = read_json(Path(folder) / "settings.json", "MembershipAudit")
        missing = sorted({"attacks", "bag_of_words", "settings"} - set(saved))
        if missing:
            raise ResultError(f"{folder} is damaged: settings.json lacks {', '.join(missing)}")
        words = saved["bag_of_words"]
        return cls(
            attacks={name: Membership.load(Path(folder) / name) for name in saved["attacks"]},
            bag_of_words=None
            if words is None
            else BagOfWords(**{**words, "auc_interval": tuple(words["auc_interval"])}),
            settings=saved["settings"],
        )

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Members found against non-members mistaken, a line an attack; see `memorization.report.plots.plot_membership_audit`."""
        from memorization.report.plots import plot_membership_audit

        return plot_membership_audit(self, ax)

    def __repr__(self) -> str:
        some = next(iter(self.attacks.values()))
        n_members, n_nonmembers = len(some.member_scores), len(some.nonmember_scores)
        lines = [
            f"MembershipAudit of {n_members:,} members and {n_nonmembers:,} non-members; "
            f"{100 * some.settings['interval_level']:g} % intervals",
            f"  {'attack':<17}{'AUC':<25}{'F1, chance is 0.5':<25}TPR at FPR 1 %",
        ]
        for name, found in self.attacks.items():
            few = np.isnan(found.tpr[0.01])
            tpr = "unknown: needs 100 non-members" if few else _short(found.tpr[0.01], found.tpr_interval[0.01])
            lines.append(
                f"  {name:<17}{_short(found.auc, found.auc_interval):<25}{_short(found.f1, found.f1_interval):<25}{tpr}"
            )
        if self.bag_of_words is None:
            lines.append(f"  split            not checked: {self.settings['why_no_bag_of_words']}")
        else:
            auc = with_interval(self.bag_of_words.auc, self.bag_of_words.auc_interval)
            verdict = "IT LEAKS: attacks may find this" if self.bag_of_words.leaks else "sound: 0.5 is chance"
            lines.append(f"  split            AUC of word counts alone {auc}; {verdict}")
        lines.append(f"  target           {describe_model(self.settings['target'])}")
        oracle = self.settings["oracle"]
        lines.append(
            f"  oracle           {'none, so no reference attack' if oracle is None else describe_model(oracle)}"
        )
        lines.append(f"  first token      {describe_first_token(self.settings['first_token'])}")
        return "\n".join(lines)


def audit_membership(
    target: Any,
    members: Any,
    nonmembers: Any,
    *,
    oracle: Any = None,
    target_tokenizer: Any = None,
    oracle_tokenizer: Any = None,
    target_revision: str | None = None,
    oracle_revision: str | None = None,
    first_token: str | int = "auto",
    max_length: int | None = None,
    stride: int | None = None,
    batch_size: int | Literal["auto"] = "auto",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    trust_remote_code: bool = False,
    text_column: str = "text",
    limit: int | None = None,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    allow_pickle: bool = False,
    k_percent: float = 20.0,
    interval: float = 0.95,
    seed: int = 0,
) -> MembershipAudit:
    """Every attack of this package on one model: AUC, F1 and TPR of telling its members from samples that it has not seen.

    Args:
        target: the model under audit, as for `compress_bits`.
        members: samples of its training data.
        nonmembers: samples drawn like the members that it has not seen.
        oracle: a model that has seen neither, for the reference attack; None leaves that attack out.
        target_tokenizer: as for `unintended_memorization`, as all that follow up to `allow_pickle`.
        oracle_tokenizer: likewise.
        target_revision: likewise.
        oracle_revision: likewise.
        first_token: likewise. With "skip" min_k_plus_plus is left out.
        max_length: likewise.
        stride: likewise.
        batch_size: likewise.
        device: likewise.
        dtype: likewise.
        trust_remote_code: likewise.
        text_column: likewise.
        limit: only the first so many of the members and of the non-members.
        on_lossy_text: likewise.
        progress: likewise.
        allow_pickle: likewise.
        k_percent: of min_k and min_k_plus_plus: share of each sample's tokens.
        interval: level of the intervals.
        seed: of bootstraps and folds.

    Returns:
        What each attack achieves. The control of the split needs scikit-learn (extra `audit`) and 10 samples of each kind.

    Raises:
        InputError: a sample that is both a member and a non-member, or options that cannot be used together.
        ModelError: as for `compress_bits`.

    Warns:
        SplitLeakWarning: word counts alone tell members from non-members.
        UnequalSetsWarning: the sets differ in size, so F1 is computed on as many of both.

    Examples:
        A model that knows nothing finds nobody.

        >>> from memorization import UniformModel
        >>> audit = audit_membership(UniformModel(16), [[1, 2], [3, 4]], [[5, 6], [7, 8]])
        >>> {name: found.auc for name, found in audit.attacks.items()}
        {'loss': 0.5, 'min_k': 0.5, 'min_k_plus_plus': 0.5}

    Source: Morris et al., arXiv:2505.24832, section 5; the attacks' own papers stand with each of them.
    """
    check_level(interval)
    check_k_percent(k_percent)
    ours = read_samples(members, text_column=text_column, limit=limit)
    theirs = read_samples(nonmembers, text_column=text_column, limit=limit)
    sets = [part.texts if part.texts is not None else part.ids for part in (ours, theirs)]
    for name, part in (("members", ours), ("non-members", theirs)):
        if len(part) < 2:
            raise InputError(
                f"membership needs at least two {name}, to rank them and to say how sure that is; there is {len(part)}"
            )
    check_disjoint(*sets)
    reference: list[Float64[np.ndarray, " _"]] | None = None
    if oracle is None:
        lengths = [
            compress_bits(
                target,
                part,
                tokenizer=target_tokenizer,
                revision=target_revision,
                first_token=first_token,
                max_length=max_length,
                stride=stride,
                batch_size=batch_size,
                device=device,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                on_lossy_text=on_lossy_text,
                progress=progress,
                allow_pickle=allow_pickle,
            )
            for part in sets
        ]
        oracle_record = None
    else:
        memorized = unintended_memorization(
            target,
            oracle,
            sets[0],
            control=sets[1],
            target_tokenizer=target_tokenizer,
            oracle_tokenizer=oracle_tokenizer,
            target_revision=target_revision,
            oracle_revision=oracle_revision,
            first_token=first_token,
            max_length=max_length,
            stride=stride,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            on_lossy_text=on_lossy_text,
            progress=progress,
            allow_pickle=allow_pickle,
        )
        assert memorized.control is not None
        lengths = [memorized.target, memorized.control.target]
        reference = [memorized.signed_bits, memorized.control.signed_bits]
        oracle_record = memorized.oracle.settings["model"]
    scores = {"loss": [loss_attack(part) for part in lengths]}
    if reference is not None:
        scores["reference"] = reference
    if ours.texts is not None:
        scores["zlib"] = [zlib_attack(part, own) for part, own in zip(lengths, sets, strict=True)]
    scores["min_k"] = [min_k_attack(part, k_percent=k_percent) for part in lengths]
    if lengths[0].settings["first_token"]["rule"] != "skip":
        scores["min_k_plus_plus"] = [
            min_k_plus_plus_attack(
                part,
                *token_moments(
                    target,
                    part,
                    device=device,
                    dtype=dtype,
                    revision=target_revision,
                    trust_remote_code=trust_remote_code,
                    allow_pickle=allow_pickle,
                    batch_size=batch_size,
                    progress=progress,
                ),
                k_percent=k_percent,
            )
            for part in lengths
        ]
    words, why = _bag_of_words(sets, interval, seed)
    return MembershipAudit(
        attacks=_metrics(scores, interval, seed),
        bag_of_words=words,
        settings={
            "target": lengths[0].settings["model"],
            "oracle": oracle_record,
            "first_token": lengths[0].settings["first_token"],
            "members": ours.record(),
            "nonmembers": theirs.record(),
            "windows": {name: lengths[0].settings[name] for name in ("max_length", "stride", "batch_size")},
            "k_percent": k_percent,
            "seed": seed,
            "why_no_bag_of_words": why,
            "versions": versions(),
        },
    )


def _metrics(scores: dict[str, list[Float64[np.ndarray, " _"]]], interval: float, seed: int) -> dict[str, Membership]:
    """Metrics of each attack; that the sets differ in size is said once."""
    found = {}
    for k, (name, pair) in enumerate(scores.items()):
        with warnings.catch_warnings():
            if k:
                warnings.simplefilter("ignore", UnequalSetsWarning)
            found[name] = membership_metrics(*pair, interval=interval, seed=seed)
    return found


def _bag_of_words(sets: list[Any], interval: float, seed: int) -> tuple[BagOfWords | None, str | None]:
    fewest = min(map(len, sets))
    if fewest < _SHORT:
        return None, f"it needs {_SHORT} samples of each kind, and there are {fewest}"
    try:
        import sklearn  # noqa: F401
    except ImportError:
        return None, 'it needs scikit-learn: pip install "lm-memorization[audit]"'
    try:
        return bag_of_words_auc(*sets, interval=interval, seed=seed), None
    except InputError as error:  # texts without a single word
        return None, str(error)


def _short(value: float, ends: tuple[float, float]) -> str:
    return f"{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"
