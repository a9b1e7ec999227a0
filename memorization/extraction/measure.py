"""`extract`: one pass over the true tokens in place of greedy decoding."""

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, cast

from memorization.errors import InputError
from memorization.extraction.decoding import Decoding
from memorization.extraction.result import Extraction
from memorization.extraction.work import Work
from memorization.integers import check_integer
from memorization.measure.base_of_target import with_base_of_target
from memorization.measure.batches import check_batch_size
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike
from memorization.measure.scans import survey
from memorization.measure.shard_files import free_folder, save_measured
from memorization.measure.shared import Sharing
from memorization.measure.tokenizers import TokenizerLike
from memorization.renamed import renamed_keywords
from memorization.samples import (
    GroupsLike,
    SampleShards,
    SamplesLike,
    groups_of_both,
    read_samples,
    scan_samples,
)
from memorization.stats.levels import check_level


@renamed_keywords(model="target", members="samples", heldout="control", interval="level")
@with_base_of_target
def extract(
    target: ModelLike,
    samples: SamplesLike | SampleShards,
    control: SamplesLike | SampleShards | None = None,
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
    store: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    shard: str | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
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
        store: folder to ask into, shard by shard, as for `compress_bits`: resumable. The result is saved there, and
            comes from all samples at once: their texts, and some 20 bytes a token, have to fit into memory.
        overwrite: whether what is there may be replaced,
        shard: what share of it this process asks,
        engine: who asks into the `store`,
        address: and of which Ray cluster: as for `compress_bits`.

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
    sharing = Sharing.of(shard, engine, address, store)
    suffix = None if suffix_tokens is None else check_integer("suffix_tokens", suffix_tokens, besides="None")
    opening = {
        "device": device,
        "dtype": dtype,
        "trust_remote_code": trust_remote_code,
        "allow_pickle": allow_pickle,
        "progress": progress,
    }
    given = {"members": samples} | ({} if control is None else {"heldout": control})
    of = (groups, None) if control is None else groups_of_both(groups)
    shards = None
    if store is not None:
        folder = free_folder(store, overwrite=overwrite)
        shards = [
            scan_samples(part, text_column=text_column, limit=limit, groups=own)
            for part, own in zip(given.values(), of, strict=False)
        ]
        scans = [survey(name, part) for name, part in zip(("samples", "control"), shards, strict=False)]
    if shards is None:
        raw = {
            which: read_samples(cast(SamplesLike, part), text_column=text_column, limit=limit, groups=own)
            for (which, part), own in zip(given.items(), of, strict=False)
        }
    else:
        raw = {which: part.first() for which, part in zip(given, shards, strict=True)}
    by_prompts = raw["members"].conditional is not None
    work = Work(
        models={"target": target} | ({} if oracle is None else {"oracle": oracle}),
        tokenizers=(tokenizer, oracle_tokenizer),
        revision=revision,
        opening=opening,
        first_token=first_token,
        on_lossy_text=on_lossy_text,
        prefixes=_check_prefixes(prefix_tokens, 0 if by_prompts else 1),
        suffix=suffix,
        by_prompts=by_prompts,
        decoding=Decoding.checked(temperature, top_k, top_p),
        batches=check_batch_size(batch_size, max_batch_tokens),
        level=check_level(level),
        by_documents=groups is not None,
    )
    if shards is None:
        return work.at_once(raw)
    if sharing.share.n > 1 or any(len(scan.digests) > 1 for scan in scans):
        work.in_shards(scans, folder, overwrite, sharing)
        return Extraction.load(folder)
    found = work.at_once(raw)
    save_measured(found, folder, overwrite=overwrite)
    return found


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
