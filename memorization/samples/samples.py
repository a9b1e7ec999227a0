"""`Samples`: texts or token ids in the order in which they came, with their byte counts and fingerprints."""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Int64

from memorization.errors import InputError, LossyTextError
from memorization.results.about import About
from memorization.results.visible import preview
from memorization.samples.conversations import tokens_of_conversations
from memorization.samples.positions import positions_kept
from memorization.samples.round_trip import Lossy, encode_exactly
from memorization.samples.token_ids import check_unpadded

Part = TypeVar("Part")

_PREVIEW_IDS = 24  # more than a preview has room for


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples as texts, as token ids, or (after `tokenize`) as both. What is computed from them is computed once.

    Samples are conditional where a model reads more of them than is counted: a prompt before each text, the turns of a
    conversation that are not the assistant's, or ids whose labels are -100. Lengths are then of the counted tokens
    given all that stands before them.

    Attributes:
        texts: one str a sample, of what is counted; None where the samples came as ids.
        ids: one int64 array a sample, of all that is read; None until texts have been tokenized.
        source: what the samples were read from, for the record.
        blank_skipped: positions in the input of the blank and null rows, which were left out.
        lossy_skipped: positions in the input of the texts left out because they do not survive the tokenizer.
        n_padding_removed: ids left out because an attention mask that came with them says that they are padding; None
            where no mask came.
        groups: the document of each sample, by its label; None where nothing was said of documents, and each sample
            counts as one of its own.
        conditional: what says which tokens are read and not counted: "prompt", "messages" or "labels"; None where
            every token is counted.
        prompts: what is read and not counted, as texts: a prompt a sample, or all of a conversation as JSON; None
            where there is none, or the samples came as ids.
        counted: one bool array a sample, laid out like `ids`: whether a token is counted. None where all are, and
            until texts have been tokenized.
        row_ids: the user's id of each sample, int or str, none of them twice (`read_samples(id_column=...)`); None
            where no column of ids was named. (Token ids are `ids`.)
        kept: the user's columns (`read_samples(keep=[...])`) by name, a cell a sample; None where none were named.
        too_short: positions of the samples that were left out because they are too short for what was asked.
        hidden: whether tables are to say nothing of how samples begin.
        rows: position of each sample in the input, int64, where these are some of many samples; None where they are
            all of them, and what was left out tells.
    """

    texts: list[str] | None
    ids: list[np.ndarray] | None
    source: str
    blank_skipped: tuple[int, ...] = ()
    lossy_skipped: tuple[int, ...] = ()
    n_padding_removed: int | None = None
    groups: tuple[str, ...] | None = None
    conditional: Literal["prompt", "messages", "labels"] | None = None
    prompts: list[str] | None = None
    counted: list[np.ndarray] | None = None
    row_ids: tuple[Any, ...] | None = None
    kept: Mapping[str, tuple[Any, ...]] | None = None
    too_short: tuple[int, ...] = ()
    hidden: bool = False
    rows: Int64[np.ndarray, " sample"] | None = None

    def __len__(self) -> int:
        return len(self.texts if self.texts is not None else self.ids or ())

    @property
    def n_blank_skipped(self) -> int:
        """Blank and null rows left out."""
        return len(self.blank_skipped)

    @cached_property
    def index(self) -> Int64[np.ndarray, " sample"]:
        """Position of each sample in the input: its row, counted from 0, with the rows that were left out."""
        if self.rows is not None:
            return self.rows
        return _read_only(positions_kept(len(self), (*self.blank_skipped, *self.lossy_skipped, *self.too_short)))

    @cached_property
    def n_bytes(self) -> Int64[np.ndarray, " sample"]:
        """UTF-8 bytes of each text; -1 where the samples came as ids."""
        if self.texts is None:
            return _read_only(np.full(len(self), -1, dtype=np.int64))
        return _read_only(np.array([len(text.encode()) for text in self.texts], dtype=np.int64))

    @cached_property
    def texts_sha256(self) -> str | None:
        """Fingerprint of the texts, of their prompts and of their order; None where the samples came as ids."""
        return fingerprint_of_texts([self])

    @cached_property
    def ids_sha256(self) -> str | None:
        """Fingerprint of the token ids, of which are counted, and of their order; None before `tokenize`."""
        ids, counted = self.ids, self.counted
        if ids is None:
            return None
        return fingerprint_of_ids(lambda: ids, None if counted is None else lambda: counted, self.conditional)

    @cached_property
    def counted_ids(self) -> list[np.ndarray] | None:
        """Of each sample the ids that are counted; None before `tokenize`."""
        if self.ids is None or self.counted is None:
            return self.ids
        return [ids[own] for ids, own in zip(self.ids, self.counted, strict=True)]

    @property
    def all_prompted(self) -> bool:
        """Whether something is read before the first counted token of each sample; False before `tokenize`."""
        return self.counted is not None and not any(counted[0] for counted in self.counted)

    @cached_property
    def about(self) -> About:
        """What tables say of each sample beside its numbers: its id, how it begins, the columns that are kept."""
        if self.hidden:
            previews = ("",) * len(self)
        elif self.texts is not None:
            previews = tuple(preview(text) for text in self.texts)
        else:
            counted = self.counted_ids or ()
            previews = tuple(preview(" ".join(map(str, ids[:_PREVIEW_IDS].tolist()))) for ids in counted)
        return About(previews, self.row_ids, self.kept or {})

    def record(self) -> dict[str, Any]:
        """Where the samples came from and what they are, for the settings of a result."""
        return {
            "source": self.source,
            "n_samples": len(self),
            "texts_sha256": self.texts_sha256,
            "ids_sha256": self.ids_sha256,
            "n_blank_skipped": self.n_blank_skipped,
            "blank_skipped": list(self.blank_skipped),
            "lossy_skipped": list(self.lossy_skipped),
            "n_padding_removed": self.n_padding_removed,
            "conditional": self._conditional,
        } | ({} if self.rows is None else {"rows": self.rows.tolist()})

    @cached_property
    def _conditional(self) -> dict[str, Any] | None:
        """What says which tokens are counted, how many are not, and what tells the prompts of samples apart."""
        if self.conditional is None or self.ids is None or self.counted is None:
            return None
        both = list(zip(self.ids, self.counted, strict=True))
        return {
            "by": self.conditional,
            "n_tokens_read": sum(int((~counted).sum()) for _, counted in both),
            "n_samples_prompted": sum(not counted[0] for _, counted in both),
            "prompts": [_sha256([ids[~counted].tobytes(), counted.tobytes()])[:16] for ids, counted in both],
        }

    def leave_out(self, lossy: Iterable[int]) -> "Samples":
        """All but the samples at these positions of the input, which are recorded as lossy.

        Raises:
            InputError: none would be left.
        """
        dropped = set(lossy) - set(self.lossy_skipped)
        keep = [k for k, i in enumerate(self.index) if int(i) not in dropped]
        if not keep:
            raise InputError(
                f"none of the {len(self)} texts survives the tokenizer: decode(encode(text)) is not the text."
            )
        if len(keep) == len(self):
            return self
        return replace(self.of_places(keep), lossy_skipped=tuple(sorted({*self.lossy_skipped, *dropped})))

    def leave_out_of_part(self, lossy: Iterable[int]) -> "Samples":
        """The same of a shard, of which nothing may be left and other shards have their own.

        Args:
            lossy: positions in the input.

        Returns:
            Those samples, by the same settings.
        """
        dropped = set(lossy)
        return self.of_places([k for k, row in enumerate(self.index.tolist()) if row not in dropped])

    def without_short(self, positions: Iterable[int]) -> "Samples":
        """All but the samples at these positions of the input, which are recorded as too short."""
        dropped = set(positions)
        keep = [k for k, i in enumerate(self.index.tolist()) if i not in dropped]
        return replace(self.of_places(keep), too_short=tuple(sorted({*self.too_short, *dropped})))

    def of_places(self, keep: Sequence[int]) -> "Samples":
        """The samples at these places, with the record of all.

        Args:
            keep: places among these samples.

        Returns:
            Those samples, by the same settings.
        """

        def of(parts: Sequence[Part] | None) -> list[Part] | None:
            return None if parts is None else [parts[k] for k in keep]

        groups, row_ids = of(self.groups), of(self.row_ids)
        kept = None if self.kept is None else {name: tuple(of(cells) or ()) for name, cells in self.kept.items()}
        return replace(
            self,
            texts=of(self.texts),
            ids=of(self.ids),
            groups=None if groups is None else tuple(groups),
            prompts=of(self.prompts),
            counted=of(self.counted),
            row_ids=None if row_ids is None else tuple(row_ids),
            kept=kept,
            rows=None if self.rows is None else self.rows[np.asarray(keep, dtype=np.int64)],
        )

    def as_measured(self, record: Mapping[str, Any]) -> "Samples":
        """These samples without the lossy ones that a measurement with this record left out.

        Raises:
            InputError: none would be left.
        """
        lossy = record["lossy_skipped"]
        if "blank_skipped" not in record:  # written by version 0.1.0, which did not count blank rows
            rows = positions_kept(len(self) + len(self.lossy_skipped), self.blank_skipped)
            lossy = [int(rows[i]) for i in lossy if i < len(rows)]
        return self.leave_out(lossy)

    def first(self, n_samples: int) -> "Samples":
        """The first `n_samples` of the samples."""
        if n_samples >= len(self):
            return self
        last = int(self.index[n_samples - 1])
        return replace(
            self.of_places(range(n_samples)),
            blank_skipped=tuple(i for i in self.blank_skipped if i < last),
            lossy_skipped=tuple(i for i in self.lossy_skipped if i < last),
        )

    def some(self, keep: Sequence[int]) -> "Samples":
        """The samples at these places, without a word of those that were left out between them.

        Args:
            keep: places among these samples.

        Returns:
            Those samples, by the same settings.
        """
        own = self.index[np.asarray(keep, dtype=np.int64)]
        return replace(self.of_places(keep), blank_skipped=(), lossy_skipped=(), rows=own)

    def part(self, begin: int, end: int) -> "Samples":
        """The samples from place `begin` up to `end`, with what was left out before each of them."""
        low = 0 if begin == 0 else int(self.index[begin - 1])
        high = int(self.index[end - 1]) if end < len(self) else sys.maxsize
        return replace(
            self.some(range(begin, end)),
            blank_skipped=tuple(row for row in self.blank_skipped if low <= row < high),
            lossy_skipped=tuple(row for row in self.lossy_skipped if low <= row < high),
        )

    @classmethod
    def joined(cls, parts: "Sequence[Samples]") -> "Samples":
        """Parts one after the other.

        Args:
            parts: at least one, all of one kind.

        Returns:
            Those samples, by the same settings.
        """
        first = parts[0]

        def of(name: str) -> Any:
            cells = [getattr(part, name) for part in parts]
            return None if cells[0] is None else type(cells[0])(chain.from_iterable(cells))

        kept = None
        if first.kept is not None:
            kept = {name: tuple(cell for part in parts for cell in (part.kept or {})[name]) for name in first.kept}
        fields = {name: of(name) for name in ("texts", "ids", "groups", "prompts", "counted", "row_ids")}
        return replace(first, **fields, kept=kept, rows=np.concatenate([part.index for part in parts]))

    def tokenize(self, tokenizer: Any, *, on_lossy_text: Literal["raise", "skip"] = "raise") -> "Samples":
        """Token ids of the texts, no special tokens added; samples that came as ids are returned as they are.

        A prompt and its text are tokenized each on its own, and their ids put together. A conversation is tokenized by
        the tokenizer's chat template.

        Raises:
            LossyTextError: decode(encode(text)) is not the text, byte for byte, or the tokenizer refuses the text, and
                `on_lossy_text` is "raise".
            InputError: no text survives, or ids begin or end with the tokenizer's pad token; a conversation of which
                the template does not tell what the assistant says.
        """
        if on_lossy_text not in ("raise", "skip"):
            raise InputError(f'on_lossy_text must be "raise" or "skip"; it is {on_lossy_text!r}.')
        if self.texts is None:
            if self.n_padding_removed is None:
                check_unpadded(self.ids or (), self.index, tokenizer)
            return self
        if self.conditional == "messages":
            counted: list[np.ndarray] | None
            rows, counted, lossy = tokens_of_conversations(tokenizer, self.prompts or [], self.index)
        else:
            rows, counted, lossy = _tokens_of_texts(tokenizer, self.texts, self.prompts)
        if lossy and on_lossy_text == "raise":
            first = min(lossy)
            raise LossyTextError(
                f"{len(lossy)} of {len(rows)} texts do not survive the tokenizer "
                f"{type(tokenizer).__name__}: "
                f"{lossy[first].name} {self.index[first]} is {lossy[first].told()}. Bits would be those of another "
                'text. Pass on_lossy_text="skip" to leave such samples out (they are counted), or hand over the token '
                "ids."
            )
        whole = replace(self, ids=[np.asarray(row, dtype=np.int64) for row in rows], counted=counted)
        return whole.leave_out(self.index[sorted(lossy)].tolist())


def _tokens_of_texts(
    tokenizer: Any, texts: list[str], prompts: list[str] | None
) -> tuple[list[list[int]], list[np.ndarray] | None, dict[int, Lossy]]:
    """Ids of texts, prompts in front; which of them are counted; and what does not survive the tokenizer."""
    rows, lossy = encode_exactly(tokenizer, texts, "sample")
    if prompts is None:
        return rows, None, lossy
    before, lossy_too = encode_exactly(tokenizer, prompts, "the prompt of sample")
    counted = [np.repeat([False, True], [len(a), len(b)]) for a, b in zip(before, rows, strict=True)]
    return [[*a, *b] for a, b in zip(before, rows, strict=True)], counted, lossy_too | lossy


def fingerprint_of_texts(parts: "Iterable[Samples]") -> str | None:
    """`Samples.texts_sha256` of these samples one after the other, of which one is in memory at a time."""
    parts = iter(parts)
    first = next(parts)
    if first.texts is None:
        return None

    def told() -> Iterator[bytes]:
        yield from _kind(first.conditional)
        for part in chain([first], parts):
            columns = [part.texts or ()] if part.prompts is None else [part.prompts, part.texts or ()]
            for cells in zip(*columns, strict=True):
                yield from (cell.encode() for cell in cells)

    return _sha256(told())


def fingerprint_of_ids(
    ids: Callable[[], Iterable[np.ndarray]], counted: Callable[[], Iterable[np.ndarray]] | None, conditional: str | None
) -> str:
    """`Samples.ids_sha256` of samples whose ids, and whether each is counted, are read one by one."""

    def told() -> Iterator[bytes]:
        yield from _kind(conditional) if counted is not None else ()
        yield from (one.astype("<i8").tobytes() for one in ids())
        yield from (one.tobytes() for one in counted()) if counted is not None else ()

    return _sha256(told())


def _kind(conditional: str | None) -> list[bytes]:
    """What keeps fingerprints of conditional samples apart from all others."""
    return [] if conditional is None else [f"read and not counted: {conditional}".encode()]


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
