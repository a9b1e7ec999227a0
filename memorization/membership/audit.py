"""`audit_membership`: all attacks on one model, samples against control samples, with a check of the split."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from memorization.errors import InputError
from memorization.integers import check_seed
from memorization.measure.base_of_target import with_base_of_target
from memorization.measure.code_lengths import CodeLengths, measure_sets
from memorization.measure.compress import score_in_shards
from memorization.measure.near_copies import warn_of_near_copies
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike, OpenModel, open_model
from memorization.measure.passes import check_windows
from memorization.measure.scans import Scan, check_apart_in_shards, survey
from memorization.measure.shard_files import free_folder, save_measured
from memorization.measure.shared import Sharing
from memorization.measure.tokenizers import TokenizerLike
from memorization.membership.attacks import check_k_percent
from memorization.membership.measured import MOST_FOR_WORDS, Scores, attacks_on, scores_of
from memorization.membership.result import MembershipAudit
from memorization.renamed import renamed_keywords
from memorization.samples import (
    GroupsLike,
    Samples,
    SampleShards,
    SamplesLike,
    check_disjoint,
    check_documents,
    groups_of_both,
    read_samples,
    scan_samples,
)
from memorization.stats.levels import check_level
from memorization.unintended.measure import memorization_of
from memorization.unintended.pairs import Models


@renamed_keywords(members="samples", nonmembers="control", interval="level")
@with_base_of_target
def audit_membership(
    target: ModelLike,
    samples: SamplesLike | SampleShards,
    control: SamplesLike | SampleShards,
    *,
    oracle: ModelLike | None = None,
    target_tokenizer: TokenizerLike | None = None,
    oracle_tokenizer: TokenizerLike | None = None,
    target_revision: str | None = None,
    oracle_revision: str | None = None,
    first_token: str | int = "auto",
    max_length: int | None = None,
    stride: int | None = None,
    batch_size: int | Literal["auto"] = "auto",
    max_batch_tokens: int | None = None,
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    trust_remote_code: bool = False,
    text_column: str = "text",
    groups: str | tuple[GroupsLike, GroupsLike] | None = None,
    limit: int | None = None,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    allow_pickle: bool = False,
    k_percent: float = 20.0,
    level: float = 0.95,
    seed: int = 0,
    store: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    shard: str | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
) -> MembershipAudit:
    """AUC, F1 and TPR of every attack on one model: can its samples be told from a control it has not seen?

    Args:
        target: the model under audit, as for `compress_bits`. It is loaded once, and so is the oracle.
        samples: of its training data: the members.
        control: samples drawn like `samples` that it has not seen: the non-members.
        oracle: a model that has seen neither, for the reference attack, or "base-of-target", as for
            `unintended_memorization`; None leaves that attack out.
        target_tokenizer: this and all that follow, up to `allow_pickle`, are as for `unintended_memorization`.
        oracle_tokenizer: None is the oracle's own where it is named.
        target_revision: of a hub model.
        oracle_revision: of a hub model.
        first_token: what stands before the first token; with "auto" the samples decide for the control as well. With
            "skip" min_k_plus_plus is left out.
        max_length: inputs a window holds.
        stride: new tokens of each window after the first.
        batch_size: samples a forward pass.
        max_batch_tokens: tokens a forward pass, padding counted, at most.
        device: where to measure.
        dtype: of the weights of models loaded here.
        trust_remote_code: run code that a checkpoint brings.
        text_column: column of a file or data set.
        groups: which document each sample is of: a column of both, or a pair of labels: those of the samples, and those
            of the control. Intervals and folds are then of whole documents, since samples of one document are no
            independent draws. None: what `Samples` carry, else each sample is on its own.
        limit: only the first so many samples, and control samples.
        on_lossy_text: "raise" or "skip" texts that a tokenizer does not give back.
        progress: a bar on stderr.
        allow_pickle: load pickled weights, which can run code.
        k_percent: of min_k and min_k_plus_plus: share of each sample's tokens.
        level: of the intervals.
        seed: of bootstraps and folds.
        store: folder to measure into, shard by shard, as for `compress_bits`: resumable, and of any size. The result is
            saved there. The check of the split then asks 5,000 samples of each kind, evenly spread.
        overwrite: whether what is there may be replaced,
        shard: what share of it this process measures,
        engine: who measures into the `store`,
        address: and of which Ray cluster: as for `compress_bits`.

    Returns:
        What each attack achieves. The check of the split needs scikit-learn (extra `audit`) and 10 samples of each
        kind.

    Raises:
        InputError: a sample that is also a control sample, a document on both sides, only one document, or options that
            cannot be used together.
        ModelError: as for `compress_bits`.

    Warns:
        NearCopiesWarning: control samples are nearly copies of samples.
        SplitLeakWarning: word counts alone tell samples from control samples.
        UnequalSetsWarning: the sets differ in size, so F1 is computed on equally many of both.

    Guarantees:
        Each model is loaded once, and comes back as it was: mode, device, weights.

    Examples:
        A model that knows nothing finds nobody.

        >>> from memorization import UniformModel
        >>> audit = audit_membership(UniformModel(16), [[1, 2], [3, 4]], [[5, 6], [7, 8]])
        >>> {name: found.auc for name, found in audit.attacks.items()}
        {'loss': 0.5, 'min_k': 0.5, 'min_k_plus_plus': 0.5}

    Source: Morris et al., arXiv:2505.24832, section 5; the attacks' own papers stand with each of them.
    """
    level, seed = check_level(level), check_seed(seed)
    max_length, stride, batches = check_windows(max_length, stride, batch_size, max_batch_tokens)
    if isinstance(oracle, CodeLengths):
        raise InputError(
            "oracle must be a model here: CodeLengths are of one set, and an attack needs both. Pass the model."
        )
    sharing = Sharing.of(shard, engine, address, store)
    models = Models(
        target,
        [oracle],
        (target_tokenizer, oracle_tokenizer),
        (target_revision, oracle_revision),
        {
            "first_token": first_token,
            "max_length": max_length,
            "stride": stride,
            "batch_size": batches,
            "device": device,
            "dtype": dtype,
            "trust_remote_code": trust_remote_code,
            "on_lossy_text": on_lossy_text,
            "progress": progress,
            "allow_pickle": allow_pickle,
        },
    )
    attack = _Attack(models, {"k_percent": check_k_percent(k_percent), "level": level, "seed": seed})
    read: dict[str, Any] = {"text_column": text_column, "limit": limit}
    parts = list(zip((samples, control), groups_of_both(groups), strict=True))
    if store is None:
        return attack.at_once([read_samples(cast(SamplesLike, part), groups=of, **read) for part, of in parts])
    folder = free_folder(store, overwrite=overwrite)
    shards = [scan_samples(part, groups=of, **read) for part, of in parts]
    scans = [survey(name, part) for name, part in zip(("samples", "control"), shards, strict=True)]
    if sharing.share.n > 1 or any(len(scan.digests) > 1 for scan in scans):
        attack.in_shards(scans, folder, overwrite, sharing)
        return MembershipAudit.load(folder)
    found = attack.at_once([part.only() for part in shards])
    save_measured(found, folder, overwrite=overwrite)
    return found


@dataclass(frozen=True, slots=True)
class _Attack:
    """What is attacked with what.

    Attributes:
        models: the target, and the oracle, which may be None.
        options: of `attacks_on`.
    """

    models: Models
    options: Mapping[str, Any]

    def at_once(self, sets: list[Samples]) -> MembershipAudit:
        """The attacks on samples that are in memory."""
        _check_sizes([(len(part), part.groups) for part in sets])
        check_disjoint(*sets)
        scores: list[Scores] = []

        def ask(model: OpenModel, lengths: list[CodeLengths]) -> None:
            progress = self.models.how["progress"]
            scores[:] = [
                self._scores(model, part, own, progress=progress) for part, own in zip(lengths, sets, strict=True)
            ]

        if self._has_oracle:
            measured: Any = [self.models.pairs(sets, with_target=ask)[0]]
        else:
            with open_model(self.models.target, **self._opening()) as opened:
                measured = measure_sets(opened, sets, **self._how(), progress=self.models.how["progress"])
                ask(opened, measured)
        lengths = self._of_target(measured)  # of the samples that were measured: a tokenizer may have left some out
        documents = [own.as_measured(part.settings["samples"]).groups for part, own in zip(lengths, sets, strict=True)]
        return self._found(measured, scores, documents, sets)

    def in_shards(self, scans: list[Scan], folder: Path, overwrite: bool, sharing: Sharing) -> None:
        """The same of samples that need not fit into memory, saved in the folder."""
        _check_sizes([(sum(scan.n_samples), scan.groups) for scan in scans])
        check_apart_in_shards(*scans)

        def concluded(measured: Any, scores: list[Scores]) -> MembershipAudit:
            lengths = self._of_target(measured)
            documents = [scan.documents(part) for scan, part in zip(scans, lengths, strict=True)]
            return self._found(measured, scores, documents, [scan.spread(MOST_FOR_WORDS) for scan in scans])

        asked: dict[str, Any] = {"sharing": sharing, "beside": self._scores, "further": self.options}
        if self._has_oracle:
            self.models.pairs_in_shards(scans, folder, concluded, overwrite=overwrite, **asked)
        else:
            target, opening, how = self.models.target, self._opening(), self._how()
            score_in_shards(folder, overwrite, target, scans, opening, how, concluded, **asked)

    def _scores(self, model: OpenModel, lengths: CodeLengths, own: Samples, *, progress: bool = False) -> Scores:
        k_percent, batches = self.options["k_percent"], self.models.how["batch_size"]
        return scores_of(lengths, own, k_percent=k_percent, model=model, batches=batches, progress=progress)

    def _found(
        self, measured: Any, scores: list[Scores], documents: Sequence[Any], words: list[Samples]
    ) -> MembershipAudit:
        memorized, lengths = None, self._of_target(measured)
        if self._has_oracle:
            memorized = memorization_of(measured[0], joint="max")
        else:
            warn_of_near_copies(*lengths)
        return attacks_on(lengths, memorized, scores, documents, words, **self.options)

    @property
    def _has_oracle(self) -> bool:
        return self.models.oracles[0] is not None

    def _of_target(self, measured: Any) -> list[CodeLengths]:
        return [pair[0] for pair in measured[0]] if self._has_oracle else list(measured)

    def _opening(self) -> dict[str, Any]:
        names = ("device", "dtype", "trust_remote_code", "allow_pickle", "max_length", "progress")
        own = {"tokenizer": self.models.tokenizers[0], "revision": self.models.revisions[0]}
        return {name: self.models.how[name] for name in names} | own

    def _how(self) -> dict[str, Any]:
        names = ("first_token", "max_length", "stride", "batch_size", "on_lossy_text")
        return {name: self.models.how[name] for name in names}


def _check_sizes(sets: Sequence[tuple[int, tuple[str, ...] | None]]) -> None:
    """Refuse too few samples, or documents, to rank."""
    for name, (n, documents) in zip(("samples", "control samples"), sets, strict=True):
        if n < 2:
            raise InputError(
                f"membership needs at least two {name}, to rank them and to say how sure that is; there is {n}."
            )
        if documents is not None:
            check_documents(documents, name)
