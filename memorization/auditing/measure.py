"""`audit`: what one checkpoint has memorized of its data, each model loaded and run once."""

import os
from collections.abc import Sequence
from typing import Any, Literal, cast

from memorization.auditing.figures import FIGURES
from memorization.auditing.policy import read_policy
from memorization.auditing.result import Audit
from memorization.auditing.work import Asked, Parts, Spans, Work
from memorization.coding.joint import JointCode
from memorization.errors import InputError
from memorization.integers import check_seed
from memorization.measure.base_of_target import with_base_of_target
from memorization.measure.batches import check_batch_size
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike
from memorization.measure.scans import survey
from memorization.measure.shard_files import free_folder, save_measured
from memorization.measure.shared import Sharing
from memorization.measure.tokenizers import TokenizerLike
from memorization.measure.weights import weight_digests
from memorization.samples import (
    GroupsLike,
    SampleShards,
    SamplesLike,
    groups_of_both,
    read_samples,
    scan_samples,
)
from memorization.spans.finding import SpansLike, as_columns
from memorization.stats.levels import check_level
from memorization.unintended.pairs import Models

__all__ = ["audit"]


@with_base_of_target
def audit(
    target: ModelLike,
    oracle: ModelLike,
    samples: SamplesLike | SampleShards,
    control: SamplesLike | SampleShards,
    *,
    spans: "SpansLike | None" = None,
    fail_on: Sequence[str] = (),
    redact: bool = False,
    joint: JointCode = "max",
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
    limit: int | None = None,
    groups: GroupsLike | tuple[GroupsLike, GroupsLike] | None = None,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
    allow_pickle: bool = False,
    store: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    shard: str | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
) -> Audit:
    """What a checkpoint has memorized of its data, and what of it comes out: one measurement, and sentences about it.

    Each model is loaded once, and runs once over samples and control: memU with a verdict on the oracle, which records
    are memorized, membership attacks, extraction (greedy and by sampling), duplicates and rarity, and named spans all
    come from the bits of that one pass.

    Args:
        target: the checkpoint under audit, as for `compress_bits`.
        oracle: the best available model of such text that has not seen the samples; or "base-of-target", as for
            `unintended_memorization`.
        samples: records of the training data, as for `compress_bits`.
        control: records drawn like them that neither model has seen. Without them nothing tells memorization from
            generalization. A few hundred let single records be selected.
        spans: named parts of the texts, as for `measure_spans`.
        fail_on: conditions that must not hold, such as "extracted > 0" or "memorized_share > 0.01"; the figures are
            those of `Audit.figures`. What cannot be told does not pass.
        redact: keep no texts, previews or examples: neither in reports nor in the saved tables of texts. Token ids,
            from which a tokenizer gives texts back, stay in the folders of the parts.
        joint: as for `unintended_memorization`, as are all that follow, unless something else stands there.
        target_tokenizer: None is the model's own where the model is named.
        oracle_tokenizer: the same for the oracle.
        target_revision: of a hub model.
        oracle_revision: of a hub model.
        first_token: one rule for both models.
        max_length: inputs a window holds.
        stride: new tokens of each window after the first.
        batch_size: samples a forward pass.
        max_batch_tokens: tokens a forward pass, padding counted, at most.
        device: where to measure.
        dtype: of the weights of models loaded here.
        trust_remote_code: run code that a checkpoint brings.
        text_column: column of a file or data set.
        limit: only the first so many samples, and control samples.
        groups: which document each sample is of.
        on_lossy_text: "raise" or "skip" texts that a tokenizer does not give back.
        level: of the intervals of attacks and extraction.
        seed: of bootstraps and folds of the attacks.
        progress: a bar on stderr.
        allow_pickle: load pickled weights, which can run code.
        store: folder to measure into, shard by shard, as for `compress_bits`: resumable. The audit is saved there. What
            is found is found of all samples at once: their texts, and some 20 bytes a token, have to fit into memory.
        overwrite: whether what is there may be replaced,
        shard: what share of it this process measures,
        engine: who measures into the `store`,
        address: and of which Ray cluster: as for `compress_bits`.

    Returns:
        The parts, `figures()`, `sentences()`, and what came of each condition in `checks`.

    Raises:
        InputError: as for `unintended_memorization`; no control; a condition that cannot be read.
        ModelError: as for `compress_bits`.

    Warns:
        What the parts warn of; `Audit.warnings` holds it.

    Examples:
        A target that counts on, and has therefore "memorized" what counts on:

        >>> import torch
        >>> from memorization import UniformModel, audit
        >>> counts = lambda ids: 9 * torch.nn.functional.one_hot((ids + 1) % 64, 64).float()
        >>> data = [[(i + k) % 64 for k in range(20)] for i in range(40)]
        >>> unseen = torch.randint(64, (40, 20), generator=torch.Generator().manual_seed(0)).tolist()
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     found = audit(counts, UniformModel(64), data, unseen, fail_on=["extracted > 0"], progress=False)
        >>> found.figures()["extracted"], found.passed, found.checks[0].outcome
        (40.0, False, 'failed')

    Source: Morris et al., arXiv:2505.24832, sections 2 and 5; the parts name theirs.
    """
    policy = [str(one) for one in read_policy(_listed(fail_on), FIGURES)]
    level, seed = check_level(level), check_seed(seed)
    if control is None:
        raise InputError(
            "an audit needs a control: records like the samples that no model here has seen, such as the held-out "
            "part of the data set. Without them nothing tells memorization from generalization. Pass control=, or "
            "measure memU alone with unintended_memorization."
        )
    sharing = Sharing.of(shard, engine, address, store)
    of = groups_of_both(groups)
    sources = [samples, control] if spans is None else [as_columns(samples), as_columns(control)]
    models = Models(
        target,
        [oracle],
        (target_tokenizer, oracle_tokenizer),
        (target_revision, oracle_revision),
        {
            "first_token": first_token,
            "max_length": max_length,
            "stride": stride,
            "batch_size": check_batch_size(batch_size, max_batch_tokens),
            "device": device,
            "dtype": dtype,
            "trust_remote_code": trust_remote_code,
            "on_lossy_text": on_lossy_text,
            "progress": progress,
            "allow_pickle": allow_pickle,
        },
    )
    asked = Asked(on_lossy_text)
    work = Work(models, asked, Parts(asked, bool(redact), level, seed), joint)
    if spans is not None:
        work.spans = Spans(spans, sources, text_column, limit)
    settings = {
        "policy": policy,
        "redacted": bool(redact),
        "weights": {"target": weight_digests(target), "oracle": weight_digests(oracle)},
        "level": level,
        "seed": seed,
    }
    if store is None:
        sets = [
            read_samples(cast(SamplesLike, part), text_column=text_column, limit=limit, groups=own)
            for part, own in zip(sources, of, strict=True)
        ]
        return work.at_once(sets, settings)
    folder = free_folder(store, overwrite=overwrite)
    shards = [
        scan_samples(part, text_column=text_column, limit=limit, groups=own)
        for part, own in zip(sources, of, strict=True)
    ]
    shards = [part.hidden() for part in shards] if redact else shards
    scans = [survey(name, part) for name, part in zip(("samples", "control"), shards, strict=True)]
    if sharing.share.n > 1 or any(len(scan.digests) > 1 for scan in scans):
        work.in_shards(scans, folder, overwrite, sharing, settings)
        return Audit.load(folder)
    found = work.at_once([part.only() for part in shards], settings)
    save_measured(found, folder, overwrite=overwrite)
    return found


def _listed(fail_on: Any) -> list[Any]:
    return [fail_on] if isinstance(fail_on, str) else list(fail_on)
