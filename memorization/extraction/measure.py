"""`extract`: one pass over the true tokens in place of greedy decoding."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from memorization.errors import InputError
from memorization.extraction.decoding import Decoding
from memorization.extraction.passes import (
    Read,
    TokensGiven,
    asked,
    documents_of,
    examples_of,
    tokenized,
    tokens_given,
    under_oracle,
)
from memorization.extraction.rates import FEWEST_SUFFIX
from memorization.extraction.result import Extraction
from memorization.integers import check_integer, edges_of
from memorization.measure.base_of_target import with_base_of_target
from memorization.measure.batches import check_batch_size
from memorization.measure.context import resolve_first_token, warn_of_chat_marker
from memorization.measure.evidence import settle_first_token
from memorization.measure.near_copies import bits_of_hardest, near_copies, warn_of_near_copies_in
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike, OpenModel, open_model
from memorization.measure.tokenizers import TokenizerLike, tokenizer_record
from memorization.renamed import renamed_keywords
from memorization.results import About, versions
from memorization.samples import (
    GroupsLike,
    Samples,
    SamplesLike,
    check_apart,
    check_disjoint,
    check_documents,
    groups_of_both,
    read_samples,
)
from memorization.stats.levels import check_level

_PAPER_PREFIXES = (8, 16, 32)


@renamed_keywords(model="target", members="samples", heldout="control", interval="level")
@with_base_of_target
def extract(
    target: ModelLike,
    samples: SamplesLike,
    control: SamplesLike | None = None,
    *,
    prefix_tokens: Sequence[int] | Literal["auto"] = "auto",
    suffix_tokens: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    oracle: ModelLike | None = None,
    oracle_tokenizer: TokenizerLike | None = None,
    tokenizer: TokenizerLike | None = None,
    first_token: str | int = "auto",
    batch_size: int | Literal["auto"] = "auto",
    max_batch_tokens: int | None = None,
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    text_column: str = "text",
    limit: int | None = None,
    groups: GroupsLike | tuple[GroupsLike, GroupsLike] | None = None,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    level: float = 0.95,
    progress: bool = True,
) -> Extraction:
    """Share of samples, from 0 to 1, whose first tokens make a model give back the rest exactly, greedily or by tries.

    The greedy continuation of a prefix is the true suffix if and only if each token of the suffix is the arg max given
    the *true* tokens before it, and the probability that a sampled one is the suffix is the product of its tokens'
    probabilities given the true tokens before. So no token is generated for the figures: one forward pass over each
    sample answers for every prefix length and any number of tries.

    Args:
        target: the model under audit, as for `compress_bits`.
        samples: of the training data, as for `compress_bits`.
        control: samples drawn like `samples` that the model has not seen, texts or ids like them. What the model gives
            back of these is generalization; without them that share of the rate is unknown.
        prefix_tokens: lengths of the prefixes. Samples that are too short for the longest of them and a suffix are left
            out and counted: settings["members"]["too_short"]. "auto" leaves out those of fewer than 16 tokens, 8 for a
            prefix (with prompts 0) and 8 for a suffix (or suffix_tokens), and is those of the paper's 8, 16 and 32 that
            suit all others. Where samples have prompts, prefixes are of what follows the prompt, which is given as
            well; 0 is the prompt alone, and the first of "auto".
        suffix_tokens: how many tokens after the prefix must come out right; None is the whole rest of the sample.
        temperature: of sampling, as are the next two, in the order and the meaning that they have in transformers:
            logits are divided by it. 0 is greedy decoding.
        top_k: only so many of the likeliest tokens; None is all.
        top_p: of what is left only the likeliest that reach this probability together; 1 is all.
        oracle: a model of such text that has not seen the samples, in the same tokens: what it gives within as many
            tries can be guessed (`Extraction.rate(..., beyond_oracle=True)`). "base-of-target" as for
            `unintended_memorization`.
        oracle_tokenizer: None is the oracle's own where it is named.
        tokenizer: this, `batch_size` to `text_column`, `on_lossy_text` and `progress` are as for `compress_bits`.
        first_token: the context before a sample: "bos", an id or a token; with "uniform" and "skip" none, and the first
            token counts as not predicted. "auto" is bos where the tokenizer has one, unless the model codes the samples
            in clearly fewer bits without. A BOS is no token of the sample, even where ids begin with it.
        batch_size: samples a forward pass.
        max_batch_tokens: tokens a forward pass, padding counted, at most.
        device: where to measure.
        dtype: of the weights of a model loaded here.
        revision: of a hub model.
        trust_remote_code: run code that the checkpoint brings.
        allow_pickle: load pickled weights, which can run code.
        text_column: column of a file or data set.
        limit: only the first so many samples, and control samples.
        groups: which document each sample is of, as for `unintended_memorization`. Equal samples are one document where
            this is not said.
        on_lossy_text: "raise" or "skip" texts that the tokenizer does not give back.
        level: of the intervals.
        progress: a bar on stderr for what takes longer than a second.

    Returns:
        The rates of samples and of control samples at each prefix length, greedily and by tries, their difference, and
        of each sample the prefix it needs and the bits of its suffix.

    Raises:
        InputError: a sample that is in both sets; none that is long enough; with suffix_tokens=None one that is longer
            than the model's window; options that cannot be used; an oracle that has other tokens.
        LossyTextError: a text that its tokenizer does not give back.
        ModelError: as for `compress_bits`; ImpossibleTokenError for logits without a finite maximum.

    Warns:
        NearCopiesWarning: control samples are nearly copies of samples.

    Guarantees:
        Of equal logits the lowest id is taken. The answer is that of a decoder that picks the largest logit, reads back
        what it picked and does not stop at an end-of-text token, up to rounding: where two logits are as close as
        passes in other batches differ, it may differ. A longer prefix never extracts less of the whole rest. With
        suffix_tokens, of samples longer than the window the beginning is read, as much as the window holds;
        settings["n_cut"] says of how many. Intervals of the rates are Clopper and Pearson's, which cover at least at
        their level. Those of the excess are Newcombe's with Clopper and Pearson's limits in place of Wilson's: at 95 %
        they cover 92.6 % at the least, and below 95 % in 0.4 % of cases only (exact sums, 10 to 1,000 samples, rates
        from 0.0003 to 0.9997; with Wilson's limits 85 % at the least). Where samples are equal or of one document,
        they count as many as they amount to (Korn and Graubard). The model comes back as it was.

    Examples:
        A model that counts on: it gives back 3 4 5 from the 2, and nothing of what does not count on.

        >>> import torch
        >>> counts = lambda ids: torch.nn.functional.one_hot((ids + 1) % 16, 16).float()
        >>> found = extract(counts, [[1, 2, 3, 4, 5], [9, 2, 3, 4, 5]], [[5, 4, 3, 2, 1]], prefix_tokens=(1, 2))
        >>> found.prefix_needed.tolist(), found.heldout_prefix_needed.tolist()
        ([1, 2], [5])
        >>> [row.member_rate for row in found.rates], [row.heldout_rate for row in found.rates]
        ([0.5, 1.0], [0.0, 0.0])

    Source:
        Morris et al., arXiv:2505.24832; the greedy definition is that of Carlini et al., arXiv:2202.07646, that by
        tries of Hayes et al., arXiv:2410.19482. Newcombe,
        doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I, method 10.
    """
    level, decoding = check_level(level), Decoding.checked(temperature, top_k, top_p)
    suffix = None if suffix_tokens is None else check_integer("suffix_tokens", suffix_tokens, besides="None")
    batches = check_batch_size(batch_size, max_batch_tokens)
    raw = _sets(samples, control, groups, text_column, limit)
    prefixes = _check_prefixes(prefix_tokens, 1 if raw["members"].conditional is None else 0)
    opening = partial(
        open_model,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        max_length=_fewest_inputs(raw.values()),
        progress=progress,
    )
    with opening(target, tokenizer=tokenizer, revision=revision) as opened:
        first = resolve_first_token(first_token, opened.tokenizer)
        auto = _PAPER_PREFIXES if raw["members"].conditional is None else (0, *_PAPER_PREFIXES)
        fewest_suffix = suffix or (1 if prefixes or not auto[0] else FEWEST_SUFFIX)  # behind a prompt, one is enough
        least = (prefixes or auto[:1])[-1] + fewest_suffix
        parts = {which: tokenized(opened, part, first, on_lossy_text, which) for which, part in raw.items()}
        first = settle_first_token(
            first, opened, parts["members"], max_length=opened.max_length, stride=None, batch_size=batches
        )
        warn_of_chat_marker(first, opened.tokenizer, parts["members"])
        read = {which: asked(opened, part, first, which, least, suffix) for which, part in parts.items()}
        n_tokens = {which: np.array([len(ids) for ids in part.sequences.coded]) for which, part in read.items()}
        longest = min(int(of.min()) for of in n_tokens.values()) - fewest_suffix
        used = prefixes or tuple(prefix for prefix in auto if prefix <= longest)
        found = {
            which: tokens_given(opened, part, which, decoding, batches, progress and which)
            for which, part in read.items()
        }
        settings = {
            "prefix_tokens": list(used),
            "prefix_tokens_left_out": [prefix for prefix in prefixes or auto if prefix not in used],
            "suffix_tokens": suffix,
            "interval_level": level,
            "decoding": asdict(decoding),
            "first_token": first.record(),
            **batches.record(),
            "n_cut": {which: part.n_cut for which, part in read.items()},
            "members": _record(read["members"]),
            "heldout": _record(read["heldout"]) if control is not None else None,
            "groups": groups is not None,
            "model": opened.record,
            "oracle": None,
            "tokenizer": tokenizer_record(opened.tokenizer),
            "versions": versions(),
            "examples": _examples(opened, read["members"], found["members"], (used or auto[:1])[0], suffix),
        }
        own = oracle_tokenizer is not None or isinstance(oracle, (str, os.PathLike))
        shared = oracle_tokenizer if own else opened.tokenizer
    told: dict[str, TokensGiven] = {}
    if oracle is not None:
        with opening(oracle, tokenizer=shared) as opened:
            settings["oracle"] = opened.record
            how = (first_token, suffix and least, decoding, on_lossy_text, batches, progress)
            told = under_oracle(opened, raw, read, *how)
    if control is not None:
        _warn_of_near_copies(read, found["heldout"].bits)
    abouts = {which: part.samples.about for which, part in read.items()}
    return _assembled(found, told, _documents(read), n_tokens, abouts, settings)


def _warn_of_near_copies(read: Mapping[str, Read], heldout_bits: np.ndarray) -> None:
    ours, theirs = (
        (np.concatenate(part.sequences.coded), edges_of([len(ids) for ids in part.sequences.coded]))
        for part in (read["members"], read["heldout"])
    )
    found = near_copies(lambda: [ours], theirs, bits_per_token=bits_of_hardest(heldout_bits, theirs[1]))
    warn_of_near_copies_in(read["heldout"].samples.index, found)


def _record(part: Read) -> dict[str, Any]:
    return {**part.samples.record(), "too_short": list(part.samples.too_short)}


def _examples(
    model: OpenModel, part: Read, given: TokensGiven, prefix: int, suffix: int | None
) -> list[dict[str, Any]]:
    return examples_of(model, part.sequences, part.samples.index, given, prefix, suffix)


def _sets(samples: Any, control: Any, groups: Any, text_column: str, limit: int | None) -> dict[str, Samples]:
    """Samples and control, read; no sample is in both."""
    given = {"members": samples} | ({} if control is None else {"heldout": control})
    of = (groups, None) if control is None else groups_of_both(groups)
    raw = {
        which: read_samples(part, text_column=text_column, limit=limit, groups=own)
        for (which, part), own in zip(given.items(), of, strict=False)
    }
    if control is not None:
        check_disjoint(raw["members"], raw["heldout"])
    return raw


def _documents(read: Mapping[str, Read]) -> dict[str, tuple[str, ...] | None]:
    """What `documents_of` says of each set, none of them on both sides."""
    ours, theirs = (read[which].samples if which in read else None for which in ("members", "heldout"))
    assert ours is not None
    if ours.groups is not None:
        check_documents(ours.groups, "samples")
        if theirs is not None and theirs.groups is not None:
            check_documents(theirs.groups, "control samples")
            check_apart(ours.groups, theirs.groups)
    return {which: documents_of(part) for which, part in read.items()}


def _assembled(
    found: Mapping[str, TokensGiven],
    by_oracle: Mapping[str, TokensGiven],
    documents: Mapping[str, tuple[str, ...] | None],
    n_tokens: Mapping[str, np.ndarray],
    abouts: Mapping[str, About],
    settings: dict[str, Any],
) -> Extraction:
    nothing = TokensGiven(np.zeros(0, dtype=bool), np.zeros(0))
    members, heldout = found["members"], found.get("heldout", nothing)
    return Extraction(
        member_correct=members.correct,
        member_offsets=edges_of(n_tokens["members"]),
        heldout_correct=heldout.correct,
        heldout_offsets=edges_of(n_tokens.get("heldout", np.zeros(0, dtype=np.int64))),
        member_bits=members.bits,
        heldout_bits=heldout.bits,
        member_oracle_bits=by_oracle["members"].bits if by_oracle else None,
        heldout_oracle_bits=by_oracle.get("heldout", nothing).bits if by_oracle else None,
        member_groups=documents["members"],
        heldout_groups=documents.get("heldout"),
        member_about=abouts["members"],
        heldout_about=abouts.get("heldout"),
        settings=settings,
    )


def _fewest_inputs(samples: Iterable[Samples]) -> int | None:
    """Inputs that the model must take in any case, for its check: it may take no more. None where texts do not tell."""
    lengths = [len(ids) for part in samples for ids in part.ids or ()]
    return max(1, max(lengths) - 1) if lengths else None


def _check_prefixes(asked: Any, at_least: int) -> tuple[int, ...] | None:
    """The prefixes, ascending; None for "auto"."""
    if isinstance(asked, str) and asked == "auto":
        return None
    if isinstance(asked, str) or not isinstance(asked, Sequence) or not len(asked):
        raise InputError(f'prefix_tokens must be "auto" or a list of prefix lengths, such as [8, 16]; it is {asked!r}.')
    prefixes = sorted(check_integer("each of prefix_tokens", prefix, at_least=at_least) for prefix in asked)
    twice = [one for one, other in pairwise(prefixes) if one == other]
    if twice:
        raise InputError(f"prefix_tokens names {twice[0]} twice: each prefix length has one row.")
    return tuple(prefixes)
