"""`audit`: what one checkpoint has memorized of its data, each model loaded and run once."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Literal, cast

import numpy as np

from memorization.auditing.figures import FIGURES
from memorization.auditing.policy import read_policy
from memorization.auditing.result import Audit, texts_of
from memorization.coding.joint import JointCode
from memorization.errors import InputError, MeasurementWarning, UnequalSetsWarning, warn
from memorization.extraction.passes import TokensGiven, examples_of
from memorization.extraction.stored import FEWEST_TOKENS, PREFIXES, extraction_of
from memorization.integers import check_seed
from memorization.measure.base_of_target import with_base_of_target
from memorization.measure.batches import check_batch_size
from memorization.measure.code_lengths import CodeLengths, tokenize
from memorization.measure.context import FirstToken, Sequences, sequences_of
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike, OpenModel
from memorization.measure.pair import Pair, measure_pair
from memorization.measure.tokenizers import TokenizerLike
from memorization.measure.weights import weight_digests
from memorization.membership import MembershipAudit
from memorization.membership.audit import attacks_on
from memorization.rarity import Rarity, which_samples
from memorization.results import versions
from memorization.samples import (
    GroupsLike,
    Samples,
    SamplesLike,
    check_disjoint,
    groups_of_both,
    read_samples,
)
from memorization.spans import spans_of
from memorization.spans.finding import SpansLike, as_columns
from memorization.stats.levels import check_level
from memorization.unintended import Memorization
from memorization.unintended.measure import memorization_of

__all__ = ["audit"]

_N_TEXTS = 50  # records that are kept in full


@with_base_of_target
def audit(
    target: ModelLike,
    oracle: ModelLike,
    samples: SamplesLike,
    control: SamplesLike,
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
    of = groups_of_both(groups)
    sources = [samples, control] if spans is None else [as_columns(samples), as_columns(control)]
    sets = [
        read_samples(part, text_column=text_column, limit=limit, groups=own)
        for part, own in zip(sources, of, strict=True)
    ]
    sets = [replace(part, hidden=bool(redact)) for part in sets]
    check_disjoint(*sets)
    asked = _Asked(on_lossy_text)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pairs = measure_pair(
            target,
            oracle,
            sets,
            tokenizers=(target_tokenizer, oracle_tokenizer),
            revisions=(target_revision, oracle_revision),
            first_token=first_token,
            max_length=max_length,
            stride=stride,
            batch_size=check_batch_size(batch_size, max_batch_tokens),
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            on_lossy_text=on_lossy_text,
            progress=progress,
            allow_pickle=allow_pickle,
            with_target=lambda opened, lengths: asked.of(opened, lengths[0], sets[0]),
        )
        parts = _Parts(asked, redact, level, seed)
        parts.work_out(pairs, sets, joint)
        if spans is not None:
            found = spans_of(
                parts.memorization, sources[0], spans, control=sources[1], text_column=text_column, limit=limit
            )
            parts.found["spans"] = found
    settings = {
        "policy": policy,
        "redacted": bool(redact),
        "warnings": _told(said),
        "weights": {"target": weight_digests(target), "oracle": weight_digests(oracle)},
        "level": level,
        "seed": seed,
    }
    return parts.audit(settings)


def _listed(fail_on: Any) -> list[Any]:
    return [fail_on] if isinstance(fail_on, str) else list(fail_on)


def _attacks(
    lengths: list[CodeLengths], memorization: Memorization, sets: list[Samples], level: float, seed: int
) -> MembershipAudit:
    fewest = min(map(len, lengths))
    if fewest < 2:
        raise InputError(f"attacks rank samples against control samples, at least two of each; there is {fewest}")
    with warnings.catch_warnings():  # of F1 on equally many, which is no figure of an audit
        warnings.simplefilter("ignore", UnequalSetsWarning)
        return attacks_on(lengths, memorization, sets, [], level=level, seed=seed)


def _rarity(memorization: Memorization, samples: Samples, tokenizer: Any, redact: bool) -> Rarity:
    found = which_samples(memorization, samples, tokenizer=tokenizer)
    none = [""] * len(found.previews)
    return replace(found, previews=none, about=samples.about) if redact else found


@dataclass(slots=True)
class _Asked:
    """What else is asked of the target while it is open."""

    on_lossy_text: Literal["raise", "skip"]
    tokenizer: Any = None
    examples: list[dict[str, Any]] = field(default_factory=list)

    def of(self, model: OpenModel, lengths: CodeLengths, samples: Samples) -> None:
        """The tokenizer, and how the target goes on from the first tokens of the records that come out most easily."""
        self.tokenizer, self.examples = model.tokenizer, []
        first = FirstToken.from_record(lengths.settings["first_token"])
        keep = np.flatnonzero(lengths.n_tokens >= FEWEST_TOKENS).tolist()
        if first.rule == "skip" or not keep or lengths.token_greedy is None:
            return
        read = tokenize(samples, model.tokenizer, on_lossy_text=self.on_lossy_text).as_measured(
            lengths.settings["samples"]
        )
        whole = sequences_of(read, first)
        own = Sequences(*([part[k] for k in keep] for part in whole))
        tokens = np.repeat(lengths.n_tokens >= FEWEST_TOKENS, lengths.n_tokens)
        given = TokensGiven(lengths.token_greedy[tokens], lengths.token_bits[tokens])
        self.examples = examples_of(model, own, lengths.index[keep], given, PREFIXES[0], None)


@dataclass(slots=True)
class _Parts:
    """Parts of an audit, and why some of them are wanting."""

    asked: _Asked
    redact: bool
    level: float
    seed: int
    found: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    texts: Any = None

    @property
    def memorization(self) -> Memorization:
        """The part that is never wanting."""
        return cast(Memorization, self.found["memorization"])

    def work_out(self, pairs: list[Pair], sets: list[Samples], joint: JointCode) -> None:
        """All parts that come from what was measured, but for spans."""
        measured = [part.as_measured(pair[0].settings["samples"]) for part, pair in zip(sets, pairs, strict=True)]
        memorization = memorization_of(pairs, joint=joint, groups=[part.groups for part in measured])
        self.found["memorization"] = memorization
        lengths, tokenizer = [pair[0] for pair in pairs], self.asked.tokenizer
        examples = [] if self.redact else self.asked.examples
        self._add("membership", lambda: _attacks(lengths, memorization, sets, self.level, self.seed))
        self._add("extraction", lambda: extraction_of(memorization, level=self.level, examples=examples))
        self._add("rarity", lambda: _rarity(memorization, sets[0], tokenizer, self.redact))
        decode = None if tokenizer is None else tokenizer.decode
        self.texts = texts_of(memorization, measured[0].texts, decode, 0 if self.redact else _N_TEXTS)

    def _add(self, name: str, work: Callable[[], Any]) -> None:
        try:
            self.found[name] = work()
        except InputError as error:
            self.missing[name] = str(error).rstrip(".")

    def audit(self, settings: dict[str, Any]) -> Audit:
        """The result."""
        return Audit(
            memorization=self.memorization,
            membership=self.found.get("membership"),
            extraction=self.found.get("extraction"),
            rarity=self.found.get("rarity"),
            spans=self.found.get("spans"),
            texts=self.texts,
            settings={
                "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                **settings,
                "missing": self.missing,
                "versions": versions(),
            },
        )


def _told(said: Sequence[warnings.WarningMessage]) -> list[tuple[str, str]]:
    """Warnings of the measurement, each once; they are given on to the caller."""
    kept = []
    for one in said:
        kind, told = one.category, str(one.message)
        if issubclass(kind, MeasurementWarning) and (kind.__name__, told) not in kept:
            kept.append((kind.__name__, told))
        warn(told, kind)
    return kept
