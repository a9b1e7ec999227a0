"""`audit_identifiers`: memU of identifiers, whose oracle is exact, under one model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from memorization.errors import InputError
from memorization.identifiers.charging import Charge, Spans, spans_of_canaries, spans_of_places
from memorization.identifiers.finding import check_drawn, find
from memorization.identifiers.formats import Format, FormatLike, UniformTokens, resolve_formats
from memorization.identifiers.result import OWN_COLUMNS, IdentifierAudit
from memorization.integers import check_integer, check_seed
from memorization.measure.batches import BatchSize
from memorization.measure.code_lengths import tokenize
from memorization.measure.compress import compress_bits
from memorization.measure.context import FirstToken, resolve_first_token
from memorization.measure.evidence import settle_first_token
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike, OpenModel, open_model
from memorization.measure.passes import check_windows, window_of
from memorization.measure.tokenizers import TokenizerLike, tokenizer_record
from memorization.results import check_kept, counted, versions
from memorization.samples import Samples, SamplesLike, check_unconditional, read_samples

__all__ = ["audit_identifiers"]

# A user's canaries may come from default_rng(0): with the same stream, fresh draws would be those, or shifted by a few.
_OWN = int.from_bytes(b"fresh draws", "big")


def audit_identifiers(
    target: ModelLike,
    samples: SamplesLike,
    format: FormatLike,
    *,
    n_draws: int = 1,
    seed: int = 0,
    tokenizer: TokenizerLike | None = None,
    first_token: str | int = "auto",
    max_length: int | None = None,
    batch_size: int | Literal["auto"] = "auto",
    max_batch_tokens: int | None = None,
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    text_column: str = "text",
    limit: int | None = None,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    progress: bool = True,
) -> IdentifierAudit:
    r"""Bits that a model has memorized of each identifier in texts, with evidence that needs no oracle and no control.

    Identifiers are strings drawn uniformly from a known format, such as hashes, UUIDs, keys. Their oracle is exact:
    log2 of the number of strings. What the model needs less, given the text before, it has memorized, and 2 to the bits
    saved is an e-value: over strings that the model has not seen, its expectation is at most 1.

    Args:
        target: the model under audit, as for `compress_bits`.
        samples: texts in which identifiers stand, as for `compress_bits`; token ids for canaries of uniform tokens.
        format: hexN and HEXN (N hexadecimal digits, small or capital), uuid4, UUID4, digitsN, card (its last eight
            digits, the first eight being given), phone (North American; its last four digits), tokens:NxV (each
            sample's last N ids, drawn from V); a template such as `sk-[A-Za-z0-9]{20}`; a `Format`; or a list of them.
        n_draws: fresh draws of the format that are measured in place of each identifier, for its rank among them. Each
            costs as much as the identifier itself. 1 is enough for the level of unseen strings and a test of all
            identifiers together. Selection by rank at an FDR of 5 % takes 20 n / k draws, where k of n identifiers are
            memorized: 199 for a tenth.
        seed: of the draws.
        tokenizer: this, `first_token`, `batch_size` to `text_column`, `on_lossy_text` and `progress` are as for
            `compress_bits`; but the first token is never left out ("skip").
        first_token: what stands before a text.
        max_length: tokens that the model reads at most, of the text up to the end of the identifier.
        batch_size: sequences a forward pass.
        max_batch_tokens: tokens a forward pass, padding counted, at most.
        device: where to measure.
        dtype: of the weights of a model loaded here.
        revision: of a hub model.
        trust_remote_code: run code that the checkpoint brings.
        allow_pickle: load pickled weights, which can run code.
        text_column: column of a file or data set.
        limit: only the first so many samples.
        on_lossy_text: "raise" or "skip" texts that the tokenizer does not give back.
        progress: a bar on stderr for what takes longer than a second.

    Returns:
        A row for each different identifier, at its first place in the texts.

    Raises:
        InputError: no identifier in the texts; strings that are not drawn uniformly, so that no e-value exists;
            identifiers longer than the window; a format that cannot be counted.
        LossyTextError: a text that its tokenizer does not give back.
        ModelError: as for `compress_bits`.

    Guarantees:
        For identifiers drawn uniformly from the format given their text, and a model that has not seen them, the
        expectation of each e-value is at most 1, whatever the model and its tokenizer: see docs/identifiers.md for the
        argument. Tokens that hold other characters beside the identifier's are charged whole, so bits are a lower
        bound. The same seed gives the same draws.

    Examples:
        A model that knows nothing has memorized nothing; one that always counts on knows a canary that counts.

        >>> import torch
        >>> from memorization import UniformModel, audit_identifiers
        >>> canaries = [[5, 9, 2, 11], [3, 4, 5, 6]]
        >>> audit_identifiers(UniformModel(16), canaries, "tokens:4x16").signed_bits.tolist()
        [0.0, 0.0]
        >>> counts = lambda ids: 20 * torch.nn.functional.one_hot((ids + 1) % 16, 16).float()
        >>> audit_identifiers(counts, canaries, "tokens:4x16").bits.round().tolist()
        [0.0, 12.0]

    Source:
        Rossi et al. (natural identifiers); e-values and their selection: Wang and Ramdas, arXiv:2009.02824.
    """
    formats = resolve_formats(format)
    n_draws, seed = check_integer("n_draws", n_draws, at_least=0), check_seed(seed)
    max_length, _, batches = check_windows(max_length, None, batch_size, max_batch_tokens)
    raw = read_samples(samples, text_column=text_column, limit=limit)
    check_unconditional(raw, "audit_identifiers")
    check_kept(raw.about, OWN_COLUMNS, "the table of identifiers")
    with open_model(
        target,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        max_length=max_length,
        progress=progress,
    ) as opened:
        first = _first_token(first_token, opened)
        window, _ = window_of(max_length, None, opened.max_length)
        drawing = {
            "n_draws": n_draws,
            "window": window,
            "generator": np.random.default_rng([seed, _OWN]),
        }
        if isinstance(formats, UniformTokens):
            told, spans = _of_canaries(raw, formats, opened, drawing)
        else:
            told, spans = _of_texts(raw, formats, opened, drawing, on_lossy_text)
        first = settle_first_token(first, opened, told.samples, max_length=window, stride=None, batch_size=batches)
        own_bits, draw_bits, n_tokens = _measured(opened, spans, told, first, batches, progress)
        record = opened.record
        tokenized_by = tokenizer_record(opened.tokenizer)
    return IdentifierAudit(
        index=np.array(told.index, dtype=np.int64),
        start=np.array(told.start, dtype=np.int64),
        found=told.found,
        format_names=told.formats,
        format_bits=told.format_bits,
        n_texts=np.array(told.n_texts, dtype=np.int64),
        n_tokens=n_tokens,
        target_bits=own_bits,
        draw_bits=draw_bits,
        about=told.samples.about.take(np.searchsorted(told.samples.index, np.array(told.index, dtype=np.int64))),
        settings={
            "formats": sorted(set(told.formats)),
            "n_draws": n_draws,
            "seed": seed,
            "n_made_up": told.n_made_up,
            "n_given_away": told.n_given_away,
            "first_token": first.record(),
            "max_length": max_length,
            **batches.record(),
            "samples": told.samples.record(),
            "model": record,
            "tokenizer": tokenized_by,
            "versions": versions(),
        },
    )


def _first_token(asked: str | int, opened: OpenModel) -> FirstToken:
    first = resolve_first_token(asked, opened.tokenizer)
    if first.rule == "skip":
        raise InputError(
            'first_token="skip" leaves a token out, and the e-value of an identifier needs all of its tokens. Pass '
            '"uniform" for no token before a text, or name the token.'
        )
    return first


@dataclass(frozen=True, slots=True)
class _Told:
    """What is known of the identifiers before they are measured."""

    samples: Samples
    index: list[int]
    start: list[int]
    found: list[str]
    formats: list[str]
    format_bits: np.ndarray
    n_texts: list[int]
    n_made_up: int = 0
    n_given_away: int = 0


def _of_texts(
    raw: Samples,
    formats: Sequence[Format],
    opened: OpenModel,
    drawing: dict[str, Any],
    on_lossy_text: Literal["raise", "skip"],
) -> tuple[_Told, list[Spans]]:
    if raw.texts is None:
        raise InputError(
            f"the format {formats[0].name!r} is looked for in texts, and the samples are token ids. Pass texts, or for "
            'canaries of uniform tokens a format such as "tokens:16x512" (16 ids, drawn from 512).'
        )
    samples = tokenize(raw, opened.tokenizer, on_lossy_text=on_lossy_text)
    assert samples.texts is not None
    found = find(samples.texts, formats)
    check_drawn(found.places)
    told = _Told(
        samples=samples,
        index=[int(samples.index[place.row]) for place in found.places],
        start=[place.start for place in found.places],
        found=[place.found for place in found.places],
        formats=[place.format.name for place in found.places],
        format_bits=np.array([place.format.bits for place in found.places]),
        n_texts=found.n_texts,
        n_made_up=found.n_made_up,
        n_given_away=found.n_given_away,
    )
    return told, list(spans_of_places(found.places, opened.tokenizer, **drawing))


def _of_canaries(
    raw: Samples, canaries: UniformTokens, opened: OpenModel, drawing: dict[str, Any]
) -> tuple[_Told, list[Spans]]:
    if raw.ids is None:
        raise InputError(
            f"the format {canaries.name!r} is of token ids, and the samples are texts. Pass lists of ids: the canary "
            "is the last ids of each."
        )
    if canaries.vocab_size > opened.vocab_size:
        raise InputError(
            f"the canaries are drawn from {canaries.vocab_size} ids, and {opened.record['name']} has "
            f"{opened.vocab_size}: no model can code the others."
        )
    first: dict[tuple[int, ...], int] = {}
    n_texts = Counter[tuple[int, ...]]()
    for row, ids in enumerate(raw.ids):
        canary = tuple(ids[len(ids) - canaries.length :].tolist())
        if len(ids) < canaries.length or not all(0 <= one < canaries.vocab_size for one in canary):
            raise InputError(
                f"sample {raw.index[row]} does not end in {counted(canaries.length, 'id')} of [0, "
                f"{canaries.vocab_size}), as the "
                f"format {canaries.name} says. Are these the canaries, and is this what they were drawn from?"
            )
        first.setdefault(canary, row)
        n_texts[canary] += 1
    rows = list(first.values())
    told = _Told(
        samples=raw,
        index=[int(raw.index[row]) for row in rows],
        start=[len(raw.ids[row]) - canaries.length for row in rows],
        found=[" ".join(map(str, canary)) for canary in first],
        formats=[canaries.name] * len(rows),
        format_bits=np.full(len(rows), canaries.bits),
        n_texts=[n_texts[canary] for canary in first],
    )
    return told, list(spans_of_canaries([raw.ids[row] for row in rows], canaries, **drawing))


def _measured(
    opened: OpenModel,
    spans: Sequence[Spans],
    told: _Told,
    first: FirstToken,
    batches: BatchSize,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bits of each identifier and of the draws in its place, NaN where they cannot be told, and charged tokens."""
    sequences: list[np.ndarray] = []
    latest: dict[int, int] = {}  # the sequence that identifiers of one text share, by its sample
    asked: list[tuple[int, int, Charge, int]] = []  # row and column of the result, what is charged, its sequence
    for i, span in enumerate(spans):
        if span.own is not None:
            place = _shared(sequences, latest.get(told.index[i]), span.own.ids)
            latest[told.index[i]] = place
            asked.append((i, 0, span.own, place))
        for j, charge in enumerate(span.draws, start=1):
            if charge is not None:
                asked.append((i, j, charge, len(sequences)))
                sequences.append(charge.ids)
    n_columns = 1 + (len(spans[0].draws) if spans else 0)
    bits = np.full((len(spans), n_columns), np.nan)
    n_tokens = np.zeros(len(spans), dtype=np.int64)
    if sequences:
        lengths = compress_bits(
            opened,
            # Ids that are at hand are not padded, even where one is the tokenizer's pad token.
            Samples(None, sequences, "identifiers", n_padding_removed=0),
            first_token="uniform" if first.id is None else first.id,
            batch_size=batches.windows,
            max_batch_tokens=batches.tokens,
            progress=progress,
        )
        for i, j, charge, place in asked:
            end = lengths.token_offsets[place] + len(charge.ids)
            bits[i, j] = lengths.token_bits[end - charge.n_charged : end].sum()
            if j == 0:
                n_tokens[i] = charge.n_charged
    return bits[:, 0], bits[:, 1:], n_tokens


def _shared(sequences: list[np.ndarray], place: int | None, ids: np.ndarray) -> int:
    """Where a sequence that begins with these ids lies: at `place`, made longer if need be, or new at the end."""
    if place is not None:
        shorter = min(len(sequences[place]), len(ids))
        if np.array_equal(sequences[place][:shorter], ids[:shorter]):
            sequences[place] = max(sequences[place], ids, key=len)
            return place
    sequences.append(ids)
    return len(sequences) - 1
