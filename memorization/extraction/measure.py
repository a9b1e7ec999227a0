"""`extract`: one pass over the true tokens in place of greedy decoding."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool

from memorization.errors import ImpossibleTokenError, InputError
from memorization.extraction.result import NAMES, SETS, Extraction, check_long_enough
from memorization.integers import check_integer, edges_of
from memorization.measure.code_lengths import check_ids, tokenize
from memorization.measure.context import FirstToken, Sequences, resolve_first_token, sequences_of, warn_of_chat_marker
from memorization.measure.evidence import settle_first_token
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike, OpenModel, open_model
from memorization.measure.passes import Window, check_batch_size, places_predicted, read_windows
from memorization.measure.probe import remedy_of_nan
from memorization.measure.tokenizers import TokenizerLike, tokenizer_record
from memorization.renamed import renamed_keywords
from memorization.results import versions
from memorization.samples import Samples, SamplesLike, check_disjoint, read_samples
from memorization.stats.levels import check_level

_PAPER_PREFIXES = (8, 16, 32)


@renamed_keywords(model="target", members="samples", heldout="control", interval="level")
def extract(
    target: ModelLike,
    samples: SamplesLike,
    control: SamplesLike | None = None,
    *,
    prefix_tokens: Sequence[int] | Literal["auto"] = "auto",
    suffix_tokens: int | None = None,
    tokenizer: TokenizerLike | None = None,
    first_token: str | int = "auto",
    batch_size: int | Literal["auto"] = "auto",
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    text_column: str = "text",
    limit: int | None = None,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    level: float = 0.95,
    progress: bool = True,
) -> Extraction:
    """Share of samples, from 0 to 1, whose first tokens make a model give back the rest exactly, by greedy decoding.

    No token is generated: the greedy continuation of a prefix is the true suffix if and only if each token of the
    suffix is the arg max given the *true* tokens before it, so one forward pass over each sample answers for every
    prefix length.

    Args:
        target: the model under audit, as for `compress_bits`.
        samples: of the training data, as for `compress_bits`.
        control: samples drawn like `samples` that the model has not seen, texts or ids like them. What the model gives
            back of these is generalization; without them that share of the rate is unknown.
        prefix_tokens: lengths of the prefixes, each shorter than every sample. "auto" is those of the paper's 8, 16 and
            32 that are. Where samples have prompts, prefixes are of what follows the prompt, which is given as well;
            0 is the prompt alone, and the first of "auto".
        suffix_tokens: how many tokens after the prefix must come out right; None is the whole rest of the sample.
        tokenizer: this, `batch_size` to `text_column`, `on_lossy_text` and `progress` are as for `compress_bits`.
        first_token: the context before a sample: "bos", an id or a token; with "uniform" and "skip" none, and the first
            token counts as not predicted. "auto" is bos where the tokenizer has one, unless the model codes the samples
            in clearly fewer bits without. A BOS is no token of the sample, even where ids begin with it.
        batch_size: samples a forward pass.
        device: where to measure.
        dtype: of the weights of a model loaded here.
        revision: of a hub model.
        trust_remote_code: run code that the checkpoint brings.
        allow_pickle: load pickled weights, which can run code.
        text_column: column of a file or data set.
        limit: only the first so many samples, and control samples.
        on_lossy_text: "raise" or "skip" texts that the tokenizer does not give back.
        level: of the intervals.
        progress: a bar on stderr for what takes longer than a second.

    Returns:
        The rates of samples and of control samples at each prefix length, their difference, and of each sample the
        prefix it needs.

    Raises:
        InputError: a sample that is in both sets, or too short for a prefix; with suffix_tokens=None one that is longer
            than the model's window; options that cannot be used.
        LossyTextError: a text that its tokenizer does not give back.
        ModelError: as for `compress_bits`; ImpossibleTokenError for logits without a finite maximum.

    Guarantees:
        Of equal logits the lowest id is taken. The answer is that of a decoder that picks the largest logit, reads back
        what it picked and does not stop at an end-of-text token, up to rounding: where two logits are as close as
        passes in other batches differ, it may differ. A longer prefix never extracts less of the whole rest. With
        suffix_tokens, of samples longer than the window the beginning is read, as much as the window holds;
        settings["n_cut"] says of how many. Intervals of the rates are Clopper and Pearson's, which cover at least at
        their level. Those of the excess are Newcombe's with Clopper and Pearson's limits in place of Wilson's: at 95 %
        they cover 92.6 % at the least, and below 95 % in 0.4 % of cases only (exact sums, 10 to 1,000 samples, rates
        from 0.0003 to 0.9997; with Wilson's limits 85 % at the least). Both take samples for independent draws: copies
        of one sample are not. The model comes back as it was.

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
        Morris et al., arXiv:2505.24832; the definition is that of Carlini et al., arXiv:2202.07646. Newcombe,
        doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I, method 10.
    """
    level = check_level(level)
    suffix = None if suffix_tokens is None else check_integer("suffix_tokens", suffix_tokens, besides="None")
    batch_size = check_batch_size(batch_size)
    given = {"members": samples} | ({} if control is None else {"heldout": control})
    raw = {which: read_samples(part, text_column=text_column, limit=limit) for which, part in given.items()}
    prefixes = _check_prefixes(prefix_tokens, 1 if raw["members"].conditional is None else 0)
    if control is not None:
        check_disjoint(raw["members"], raw["heldout"])
    with open_model(
        target,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        max_length=_fewest_inputs(raw.values()),
        progress=progress,
    ) as opened:
        first = resolve_first_token(first_token, opened.tokenizer)
        auto = _PAPER_PREFIXES if raw["members"].conditional is None else (0, *_PAPER_PREFIXES)
        least = None if suffix is None else (prefixes or auto[:1])[-1] + suffix
        parts = {which: _tokenized(opened, part, first, on_lossy_text, which) for which, part in raw.items()}
        first = settle_first_token(
            first, opened, parts["members"], max_length=opened.max_length, stride=None, batch_size=batch_size
        )
        warn_of_chat_marker(first, opened.tokenizer, parts["members"])
        read = {which: _read(opened, part, first, which, least) for which, part in parts.items()}
        n_tokens = {which: np.array([len(ids) for ids in part.sequences.coded]) for which, part in read.items()}
        lengths = {which: (part.samples.index, n_tokens[which]) for which, part in read.items()}
        used = _usable(prefixes, suffix, lengths, auto)
        correct = {which: _correct(opened, part, which, batch_size, progress and which) for which, part in read.items()}
    no_tokens, no_samples = np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64)
    return Extraction(
        member_correct=correct["members"],
        member_offsets=edges_of(n_tokens["members"]),
        heldout_correct=correct.get("heldout", no_tokens),
        heldout_offsets=edges_of(n_tokens.get("heldout", no_samples)),
        settings={
            "prefix_tokens": list(used),
            "prefix_tokens_left_out": [prefix for prefix in prefixes or auto if prefix not in used],
            "suffix_tokens": suffix,
            "interval_level": level,
            "first_token": first.record(),
            "batch_size": batch_size,
            "n_cut": {which: part.n_cut for which, part in read.items()},
            "members": read["members"].samples.record(),
            "heldout": read["heldout"].samples.record() if control is not None else None,
            "model": opened.record,
            "tokenizer": tokenizer_record(opened.tokenizer),
            "versions": versions(),
        },
    )


def _fewest_inputs(samples: Iterable[Samples]) -> int | None:
    """Inputs that the model must take in any case, for its check: it may take no more. None where texts do not tell."""
    lengths = [len(ids) for part in samples for ids in part.ids or ()]
    return max(1, max(lengths) - 1) if lengths else None


class _Read(NamedTuple):
    samples: Samples
    sequences: Sequences  # what the model reads of each, and what of it is to be given back
    n_cut: int  # samples of which the window holds the beginning alone


def _tokenized(
    model: OpenModel, raw: Samples, first: FirstToken, on_lossy_text: Literal["raise", "skip"], which: str
) -> Samples:
    """The samples in the model's tokens, which it knows."""
    try:
        samples = tokenize(raw, model.tokenizer, on_lossy_text=on_lossy_text)
        check_ids(samples, model.vocab_size, first, model.record["name"])
    except InputError as error:
        raise type(error)(f"{SETS[which]}: {error}") from error
    return samples


def _read(model: OpenModel, samples: Samples, first: FirstToken, which: str, least: int | None) -> _Read:
    """What is read of samples; where `least` tokens of each are enough, those longer than the window are cut to it."""
    try:
        # For "skip" as for "uniform": the first token is there, and nothing before it.
        sequences = sequences_of(samples, first.charged("uniform") if first.charge == "skip" else first)
    except InputError as error:
        raise type(error)(f"{SETS[which]}: {error}") from error
    if model.max_length is None:
        return _Read(samples, sequences, 0)
    window = model.max_length + 1  # the last token is predicted and not read
    whole = [len(ids) for ids in sequences.read]
    for k, i in enumerate(samples.index.tolist()):
        n_needed = whole[k] if least is None else _n_needed(sequences, k, least)
        if whole[k] > window and n_needed > window:
            raise InputError(
                f"{NAMES[which]} {i} needs {n_needed - 1} positions, and {model.record['name']} or its tokenizer takes "
                f"{model.max_length}. "
                + (
                    "Pass suffix_tokens: then the beginning of the sample is enough. Or leave longer samples out."
                    if least is None
                    else "Pass a smaller prefix or suffix."
                )
            )
        if whole[k] > window:
            sequences.read[k], sequences.scored[k] = sequences.read[k][:window], sequences.scored[k][:window]
            n_left = sequences.apart[k] + int(np.count_nonzero(sequences.scored[k]))
            sequences.coded[k] = sequences.coded[k][:n_left]
    return _Read(samples, sequences, sum(n > window for n in whole))


def _n_needed(sequences: Sequences, k: int, least: int) -> int:
    """Tokens of what is read until so many of the sample have come; all of them where it has fewer."""
    places = np.flatnonzero(sequences.scored[k])
    last = least - sequences.apart[k] - 1
    if last < 0:
        return 0
    return int(places[last]) + 1 if last < len(places) else len(sequences.read[k])


def _correct(
    model: OpenModel,
    part: _Read,
    which: str,
    batch_size: int | Literal["auto"],
    progress: bool | str,
) -> Bool[np.ndarray, " token"]:
    """Whether each token is the arg max given the true tokens before it; a token given nothing counts as wrong."""
    sequences = part.sequences
    found = [np.zeros(len(ids), dtype=bool) for ids in sequences.coded]
    asked = [k for k, own in enumerate(sequences.scored) if own.any()]

    def read(logits: torch.Tensor, rows: np.ndarray, ids: np.ndarray, batch: list[Window]) -> list[np.ndarray]:
        largest, greedy = logits.max(dim=-1)  # of equal ones the first, as torch.argmax
        edges = np.cumsum([n_new for *_, n_new in batch])[:-1]
        wrong = np.split(~largest.isfinite().cpu().numpy()[rows], edges)
        for (i, *_), piece, places in zip(batch, wrong, places_predicted(logits, rows, batch), strict=True):
            for j in np.flatnonzero(piece)[:1]:
                k = asked[i]
                position = sequences.apart[k] + int(np.count_nonzero(sequences.scored[k][: places[j]]))
                where = f"position {position} of {NAMES[which]} {part.samples.index[k]}"
                raise ImpossibleTokenError(
                    f"the logits of {model.record['name']} that predict {where} are NaN, +inf, or all -inf: there is "
                    f"no largest one. {remedy_of_nan(logits.element_size() < 4)}"
                )
        return np.split(greedy.cpu().numpy()[rows] == ids, edges)

    def keep(i: int, parts: list[np.ndarray]) -> None:
        k = asked[i]
        found[k][sequences.apart[k] :] = parts[0]  # one window a sample: it fits

    read_windows(
        model,
        [sequences.read[k] for k in asked],
        max_length=None,
        stride=None,
        batch_size=batch_size,
        read=read,
        on_read=keep,
        progress=progress,
        scored=[sequences.scored[k] for k in asked],
    )
    return np.concatenate(found)


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


def _usable(
    prefixes: tuple[int, ...] | None,
    suffix: int | None,
    lengths: Mapping[str, tuple[np.ndarray, np.ndarray]],
    auto: tuple[int, ...],
) -> tuple[int, ...]:
    """The prefixes that every sample is long enough for, where the caller named none; else all of them, checked."""
    shortest = min(int(n_tokens.min()) for _, n_tokens in lengths.values())
    used = prefixes or tuple(prefix for prefix in auto if prefix + (suffix or 1) <= shortest)
    for which, (index, n_tokens) in lengths.items():
        for prefix in used or auto[:1]:
            check_long_enough(which, index, n_tokens, prefix, suffix)
    return used
