"""`measure_spans`: memU of named parts of texts, from the bits of their bytes under a target and an oracle."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from memorization.coding.joint import JointCode
from memorization.errors import InputError
from memorization.measure.byte_bits import character_edges
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike
from memorization.measure.pair import Pair, check_measured
from memorization.measure.rows import in_pieces
from memorization.measure.tokenizers import TokenizerLike
from memorization.results import check_kept, counted, versions
from memorization.samples import GroupsLike, Samples, SamplesLike, groups_of_both, read_samples
from memorization.spans.fields import Spans
from memorization.spans.finding import (
    REST,
    Place,
    SpansLike,
    as_columns,
    expressions_of,
    find,
    places_of_columns,
)
from memorization.spans.result import OWN_COLUMNS, SpanMemorization
from memorization.unintended import Memorization, unintended_memorization

if TYPE_CHECKING:
    import re

__all__ = ["measure_spans", "spans_of"]


def measure_spans(
    target: ModelLike,
    oracle: ModelLike | Sequence[ModelLike],
    samples: SamplesLike,
    spans: SpansLike,
    *,
    control: SamplesLike | None = None,
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
    progress: bool = True,
    allow_pickle: bool = False,
) -> SpanMemorization:
    r"""Bits of each named part of a text that the target has memorized beyond what the oracle knows of such text.

    A span costs a model the bits of its bytes, given all that stands before it: bits of tokens add up, so this is
    exact, and needs no pass of its own. A token that a span cuts is split by its bytes. What stands in no span is the
    field "rest".

    Args:
        target: the model under audit, as for `compress_bits`.
        oracle: the best available model of such text, which has not seen it; or several, as for
            `unintended_memorization`.
        samples: texts, as for `compress_bits`; or a list of rows, {"text": ..., "spans": [...]}. Of texts with prompts
            (`read_samples(prompt_column=...)`) spans are looked for in what is counted.
        spans: a regular expression by the name of each field, all of whose matches are spans: of a match the group that
            has the field's name, else the only named group, else all. Or the column of samples and control that holds
            a list of {"name", "start", "end"} for each text, in characters.
        control: texts like these that neither model has seen, in which the same fields stand.
        joint: "max" or "mixture", as for `unintended_memorization`, for each span by itself.
        target_tokenizer: this and all that follow are as for `unintended_memorization`.
        oracle_tokenizer: may be another one than the target's.
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
        progress: a bar on stderr.
        allow_pickle: load pickled weights, which can run code.

    Returns:
        memU of each field, beside the control's.

    Raises:
        InputError: samples that are no texts; an expression that is not valid, that matches in no sample, the empty
            string, or the whole of every text; places outside a text; spans of one name that overlap; and as for
            `unintended_memorization`.

    Guarantees:
        Under each model the spans of a partition of a text, the rest among them, add up to its ideal bits within 1e-9.

    Examples:
        >>> from memorization import UniformModel, measure_spans
        >>> letters = (lambda text: list(text.encode()), lambda ids: bytes(ids).decode())
        >>> models = {"target": UniformModel(128), "oracle": UniformModel(256)}  # 7 bits a letter, and 8
        >>> texts = ["id 17, Ann", "id 4, Bo"]
        >>> found = measure_spans(
        ...     **models, samples=texts, spans={"id": r"\d+"}, target_tokenizer=letters, oracle_tokenizer=letters
        ... )
        >>> found.field("id").bits
        1.5
    """
    if joint == "switch":
        raise InputError('spans have no joint="switch": each is coded by itself. Use "mixture".')
    wanted = spans if isinstance(spans, str) else expressions_of(spans)
    for role, model in (("target", target), ("oracle", oracle)):
        if isinstance(model, CodeLengths):
            raise InputError(
                f"the {role} came as CodeLengths: measure with unintended_memorization, and pass its result and the "
                "texts to memorization.spans.spans_of."
            )
    of: tuple[Any, Any] = (groups, None) if control is None else groups_of_both(groups)
    sources = [as_columns(samples)] if control is None else [as_columns(samples), as_columns(control)]
    sets = [
        read_samples(source, text_column=text_column, limit=limit, groups=own)
        for source, own in zip(sources, of, strict=False)
    ]
    places = _places_of_sets(wanted, sources, sets, text_column)
    measured = unintended_memorization(
        target,
        oracle,
        sets[0],
        joint=joint,
        control=None if control is None else sets[1],
        target_tokenizer=target_tokenizer,
        oracle_tokenizer=oracle_tokenizer,
        target_revision=target_revision,
        oracle_revision=oracle_revision,
        first_token=first_token,
        max_length=max_length,
        stride=stride,
        batch_size=batch_size,
        max_batch_tokens=max_batch_tokens,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        on_lossy_text=on_lossy_text,
        progress=progress,
        allow_pickle=allow_pickle,
    )
    return _of_places(measured, sets, places, _asked(spans))


def spans_of(
    measured: Memorization,
    samples: SamplesLike,
    spans: SpansLike,
    *,
    control: SamplesLike | None = None,
    text_column: str = "text",
    limit: int | None = None,
) -> SpanMemorization:
    """The same from what `unintended_memorization` has measured, without running a model.

    Args:
        measured: of these samples, and of this control. Saved results do not hold texts.
        samples: as for `measure_spans`.
        spans: as for `measure_spans`.
        control: texts of the control; needed where the result has one.
        text_column: column of a file or data set.
        limit: only the first so many samples, and control samples.

    Returns:
        As of `measure_spans`.

    Raises:
        InputError: as for `measure_spans`; or a control here and none there.
        ResultError: other samples than those measured.

    Examples:
        >>> from memorization import UniformModel, unintended_memorization
        >>> letters = (lambda text: list(text.encode()), lambda ids: bytes(ids).decode())
        >>> texts, models = ["id 17, Ann", "id 4, Bo"], (UniformModel(128), UniformModel(256))  # 7 bits a letter, and 8
        >>> measured = unintended_memorization(*models, texts, target_tokenizer=letters, oracle_tokenizer=letters)
        >>> spans_of(measured, texts, {"id": r"[0-9]+"}).field("id").bits
        1.5
    """
    wanted = spans if isinstance(spans, str) else expressions_of(spans)
    if (control is None) != (measured.control is None):
        raise InputError(
            "the Memorization has a control: pass its texts, control=, so that each field stands beside its null."
            if control is None
            else "a control came, and the Memorization was measured without one: measure again with control=."
        )
    sources = [as_columns(samples)] if control is None else [as_columns(samples), as_columns(control)]
    sets = [read_samples(source, text_column=text_column, limit=limit) for source in sources]
    records = [pair[0].settings["samples"] for pair in _pairs(measured)]
    for part, record, name in zip(sets, records, ("samples", "control"), strict=False):
        check_measured(record, part.as_measured(record), f"the {name} of the Memorization are")
    places = _places_of_sets(wanted, sources, sets, text_column)
    return _of_places(measured, sets, places, _asked(spans))


def _pairs(measured: Memorization) -> list[Pair]:
    control = measured.control
    own = [(measured.target, measured.oracle)]
    return own if control is None else [*own, (control.target, control.oracle)]


def _asked(spans: SpansLike) -> Any:
    """What was asked for, for the settings."""
    if isinstance(spans, str):
        return spans
    return {name: one if isinstance(one, str) else one.pattern for name, one in spans.items()}


def _places_of_sets(
    spans: "dict[str, re.Pattern[str]] | str", sources: Sequence[Any], sets: Sequence[Samples], text_column: str
) -> list[list[Place]]:
    """The spans of samples and control, of which every name that is asked for stands in a sample."""
    found = []
    for source, part, of in zip(sources, sets, ("samples", "control"), strict=False):
        check_kept(part.about, OWN_COLUMNS, "the table of spans")
        if part.texts is None:
            raise InputError(f"spans are parts of texts, and the {of} are token ids. Pass the texts.")
        if part.conditional == "messages":
            raise InputError(
                f"the {of} are conversations, of which more is coded than their texts. Write prompts and answers into "
                "two columns, and pass what read_samples(..., prompt_column=...) gives."
            )
        found.append(
            places_of_columns(source, spans, text_column, part, of) if isinstance(spans, str) else find(spans, part, of)
        )
    names = {place.name for place in found[0]}
    if isinstance(spans, str):
        if not names:
            raise InputError(f"the column {spans!r} of the samples holds no span: each row of it is empty.")
        return found
    for name, pattern in spans.items():
        if name not in names:
            raise InputError(
                f"the regular expression of the span {name!r} matches in none of the "
                f"{counted(len(sets[0]), 'sample')}: "
                f"{pattern.pattern!r}. Try it on one of them with re.search; capitals and white space count."
            )
    return found


def _of_places(
    measured: Memorization, sets: Sequence[Samples], places: Sequence[list[Place]], asked: Any
) -> SpanMemorization:
    """The result, from what was measured of the samples and where their spans stand."""
    units = [measured.documents, None if measured.control is None else measured.control.documents]
    found = [
        _charged(pair, part, own, unit)
        for pair, part, own, unit in zip(_pairs(measured), sets, places, units, strict=False)
    ]
    names = list(asked) if not isinstance(asked, str) else list(dict.fromkeys(place.name for place in places[0]))
    uncoded = Counter(
        name for name, bits in zip(found[0].names, found[0].target_bits, strict=True) if not np.isfinite(bits)
    )
    ladder = measured.ladder
    return SpanMemorization(
        spans=found[0],
        control=found[1] if len(found) > 1 else None,
        settings={
            # Within a span nothing is switched: what is stored of it is its bits under either model.
            "joint": "mixture" if measured.settings["joint"] == "switch" else measured.settings["joint"],
            "names": [*names, REST] if REST in found[0].names else names,
            "spans": asked,
            "n_uncoded": dict(uncoded),
            "samples": measured.target.settings["samples"],
            "control_samples": None if measured.control is None else measured.control.target.settings["samples"],
            "first_token": measured.target.settings["first_token"],
            "target": measured.target.settings["model"],
            "oracle": measured.oracle.settings["model"],
            "verdict": None if ladder is None else ladder.verdict,
            "verdict_reason": None if ladder is None else ladder.reason,
            "versions": versions(),
        },
    )


@dataclass(slots=True)
class _Rows:
    """Columns of `Spans` in the making."""

    rows: list[tuple[int, str, int, int, int, float, float, bool, int]]

    def spans(self, lengths: CodeLengths) -> Spans:
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * 9
        index, names, start, end, n_bytes, target, oracle, on_edges, unit = columns
        return Spans(
            index=np.array(index, dtype=np.int64),
            names=[str(name) for name in names],
            start=np.array(start, dtype=np.int64),
            end=np.array(end, dtype=np.int64),
            n_bytes=np.array(n_bytes, dtype=np.int64),
            target_bits=np.array(target, dtype=np.float64),
            oracle_bits=np.array(oracle, dtype=np.float64),
            on_edges=np.array(on_edges, dtype=np.bool_),
            unit=np.array(unit, dtype=np.int64),
            about=lengths._about_at(_places_of(index, lengths)),
        )


def _places_of(index: Sequence[int], lengths: CodeLengths) -> np.ndarray:
    """Where the samples of these positions in the input stand among those measured."""
    place_of = {int(i): place for place, i in enumerate(lengths.index)}
    return np.array([place_of[int(i)] for i in index], dtype=np.int64)


def _charged(pair: Pair, samples: Samples, places: Sequence[Place], documents: np.ndarray | None) -> Spans:
    """What each span costs both models, and behind those of a text what the rest of it does."""
    target = pair[0]
    assert samples.texts is not None
    units = np.arange(len(target)) if documents is None else np.unique(documents, return_inverse=True)[1]
    by_row: dict[int, list[Place]] = {}
    for place in places:
        by_row.setdefault(place.row, []).append(place)
    row_of = {int(i): row for row, i in enumerate(samples.index)}  # lossy texts were left out of what was measured
    found = _Rows([])
    for part, pieces in in_pieces(*pair):
        for k, (i, unit) in enumerate(zip(pieces[0].index.tolist(), units[part].tolist(), strict=True)):
            edges = character_edges(samples.texts[row_of[i]])
            bits = [lengths.bits_by_byte(k) for lengths in pieces]
            coded = np.isfinite(bits[0]) & np.isfinite(bits[1])
            rest = coded.copy()
            token_edges = _token_edges(pieces[0], k)
            for place in by_row.get(row_of[i], ()):
                start, end = int(edges[place.start]), int(edges[place.end])
                own = [float(one[start:end].sum()) if coded[start:end].all() else np.nan for one in bits]
                whole = {start, end} <= token_edges
                found.rows.append(
                    (
                        i,
                        place.name,
                        place.start,
                        place.end,
                        end - start,
                        own[0],
                        own[1],
                        whole,
                        unit,
                    )
                )
                rest[start:end] = False
            if rest.any():
                own = [float(one[rest].sum()) for one in bits]
                found.rows.append((i, REST, -1, -1, int(rest.sum()), own[0], own[1], True, unit))
    return found.spans(target)


def _token_edges(lengths: CodeLengths, k: int) -> set[int]:
    """The bytes of a text at which a coded token begins or ends."""
    assert lengths.token_bytes is not None
    first, end = lengths.token_offsets[k : k + 2]
    return set(lengths.token_bytes[first:end].ravel().tolist())
