"""Token ids: a flat int64 array a sample.

Padding is left out where a mask says which ids are padding, and refused where it can only be guessed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from memorization.errors import InputError, MeasurementWarning, warn

_IGNORED = -100  # what losses leave out, in the labels of transformers and torch
_SOME = 80  # characters of a text that an error message quotes
_REMEDY = (
    'Hand over the ids without their padding, or with the mask: {"input_ids": ids, "attention_mask": mask}. '
    "A mask of ones measures every id."
)


def without_padding(ids: np.ndarray, mask: Any, i: int) -> slice:
    """Where the attention mask of row `i` is 1, which must be in one place.

    Raises:
        InputError: the mask is of another length, holds something else than 0 and 1, or has a gap.
    """
    kept = _beside("attention mask", mask, i)
    if kept.shape != ids.shape:
        raise InputError(
            f"the attention mask of sample {i} has shape {list(kept.shape)}, and its ids {list(ids.shape)}: "
            "each id needs a 1 or a 0."
        )
    if kept.dtype.kind not in "biuf" or not np.isin(kept, (0, 1)).all():
        raise InputError(f"the attention mask of sample {i} must hold 0 and 1; it is {kept.tolist()[:8]}.")
    places = np.flatnonzero(kept)
    if len(places) == 0:
        raise InputError(f"sample {i} is all padding: its attention mask has no 1. Leave it out.")
    first, last = int(places[0]), int(places[-1])
    if last - first + 1 != len(places):
        gap = first + int(np.flatnonzero(kept[first : last + 1] == 0)[0])
        raise InputError(
            f"the attention mask of sample {i} is 0 at position {gap}, between ids at which it is 1: that is no "
            "padding, and what stands on its two sides is not one text. Pass the sides as samples of their own."
        )
    return slice(first, last + 1)


def counted_by_labels(ids: np.ndarray, labels: Any, i: int, kept: slice) -> np.ndarray | None:
    """Which of the kept ids of row `i` its labels count: all but those of -100. None where labels do not tell.

    Labels of another kind, such as the class of a text, hold no -100.

    Args:
        ids: of the row.
        labels: of the row, as a loss of transformers takes them: the ids themselves, or -100.
        i: the row.
        kept: where its attention mask is 1; all of it where none came.

    Raises:
        InputError: labels of -100 beside others than the ids; all are -100; or those at the start may be padding.
    """
    marked = _beside("labels", labels, i)
    if marked.dtype.kind == "f" and (marked == _IGNORED).any():  # what has passed through a column with nulls
        marked = np.where(np.isfinite(marked) & (marked == np.round(marked)), marked, np.iinfo(np.int64).min)
        marked = marked.astype(np.int64)
    if marked.dtype.kind in "OUS" and any(str(label) in (str(_IGNORED), f"{_IGNORED}.0") for label in marked.flat):
        raise InputError(
            f"the labels of sample {i} must be integers, the ids or {_IGNORED}; they are {kind_of(labels)}."
        )
    if marked.dtype.kind in "iu" and marked.shape == ids.shape and _are_ids_or(-1, marked, ids):
        raise InputError(
            f"the labels of sample {i} are its ids and -1: what is not counted has the label {_IGNORED}, as in the "
            "loss of transformers. Replace -1 by it, or leave the labels out."
        )
    if marked.dtype.kind not in "iu" or marked.ndim == 0 or not (marked == _IGNORED).any():
        return None
    if marked.shape != ids.shape:
        raise InputError(
            f"the labels of sample {i} have shape {list(marked.shape)}, and its ids {list(ids.shape)}: each id needs "
            f"a label, its own or {_IGNORED}."
        )
    ids, marked, unpadded = ids[kept], marked[kept], kept != slice(None)
    counted = np.asarray(marked != _IGNORED)
    if not counted.any():
        raise InputError(
            f"the labels of sample {i} are all {_IGNORED}: a completion of no tokens has no bits to measure. Leave the "
            "sample out."
        )
    others = np.flatnonzero(counted & (marked != ids))
    if len(others):
        raise InputError(
            f"the labels of sample {i} mark what is not counted with {_IGNORED}, and others must be the ids "
            f"themselves; at position {others[0]} the label is {marked[others[0]]} and the id {ids[others[0]]}. Were "
            "they shifted by one? Those of transformers are not. If they are of another kind, leave them out."
        )
    at_start = _run(~counted)
    if not unpadded and at_start > 1 and (ids[:at_start] == ids[0]).all():  # or a prompt of one token, repeated
        raise InputError(
            f"sample {i} has labels of {_IGNORED} at its first {at_start} positions, as padding has, and "
            "no attention "
            f"mask. {_REMEDY}"
        )
    return counted


def _are_ids_or(other: int, labels: np.ndarray, ids: np.ndarray) -> bool:
    found = labels == other
    return bool(found.any() and (found | (labels == ids)).all())


def _beside(name: str, values: Any, i: int) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:  # lists within lists, of several lengths
        raise InputError(
            f"the {name} of sample {i} must be a flat list of integers; it is {kind_of(values)}."
        ) from error


def check_ignored(ids: np.ndarray, i: int) -> None:
    """Refuse ids of -100."""
    if (ids == _IGNORED).any():
        raise InputError(
            f"sample {i} holds {_IGNORED} at position {int(np.flatnonzero(ids == _IGNORED)[0])}: that marks what a "
            "loss leaves out, and is no token. Pass the input_ids, not the labels."
        )


def check_unpadded(rows: Sequence[np.ndarray], index: np.ndarray, tokenizer: Any) -> None:
    """Refuse ids that begin or end with the tokenizer's pad token; warn where that token has another meaning too.

    Raises:
        InputError: a row begins or ends with a pad token that is nothing but that.
    """
    pad = getattr(tokenizer, "pad_token_id", None)
    if isinstance(pad, bool) or not isinstance(pad, (int, np.integer)):
        return
    others = [name for name in ("bos", "eos", "unk") if getattr(tokenizer, f"{name}_token_id", None) == pad]
    least = 2 if others else 1  # one such token may be meant: a text begins with its BOS, or ends with its EOS
    runs = [(_run(ids == pad), _run((ids == pad)[::-1])) for ids in rows]
    padded = [k for k, run in enumerate(runs) if max(run) >= least]
    if not padded:
        return
    k = padded[0]
    side, n = ("begins", runs[k][0]) if runs[k][0] >= least else ("ends", runs[k][1])
    found = (
        f"sample {index[k]} {side} with {n} times id {pad}, the tokenizer's pad token "
        f"{getattr(tokenizer, 'pad_token', None)!r} ({len(padded)} of {len(rows)} samples begin or end so)"
    )
    if others:
        warn(
            f"{found}. It is its {' and '.join(name.upper() for name in others)} token too, so it is measured like "
            f"text; if it is padding, the bits are too many. {_REMEDY}",
            MeasurementWarning,
        )
        return
    raise InputError(f"{found}: padding is no text. {_REMEDY}")


def _run(flags: np.ndarray) -> int:
    """How many are true before the first that is not."""
    return len(flags) if flags.all() else int(np.argmin(flags))


def id_array(row: Any, i: int) -> np.ndarray:
    """The token ids of sample `i` as one flat int64 array."""
    if is_tensor(row):
        row = to_numpy(row)
    if not isinstance(row, (Sequence, np.ndarray)):
        raise InputError(f"sample {i} must be a text or a list of token ids; it is {kind_of(row)}.")
    if np.ma.is_masked(row):
        raise InputError(
            f"sample {i} is a masked array, and some of its ids are masked. Pass the ids that are not, as "
            "row.compressed() gives them, or one masked array of all rows."
        )
    if not isinstance(row, np.ndarray):
        for j, x in enumerate(row):
            if not is_int(x):
                raise InputError(f"token ids must be integers; sample {i} has {kind_of(x)} at position {j}.")
    try:
        array = np.asarray(row)
    except OverflowError:
        array = np.asarray(row, dtype=object)
    if array.dtype.kind in "uO" and array.ndim == 1 and len(array) and max(map(int, array)) >= 2**63:
        raise InputError(f"sample {i} holds the number {max(map(int, array))}, which is no token id of any model.")
    if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
        raise InputError(
            f"sample {i} must be a flat list of at least one token id; it is a {array.dtype} array of shape "
            f"{list(array.shape)}."
        )
    array = array.astype(np.int64)
    check_ignored(array, i)
    return array


def is_int(x: Any) -> bool:
    """Whether this is an integer of Python or numpy, and no bool."""
    return isinstance(x, (int, np.integer)) and not isinstance(x, (bool, np.bool_))


def is_tensor(x: Any) -> bool:
    """Whether this is a tensor of torch, which need not have been imported."""
    return hasattr(x, "detach") and hasattr(x, "cpu")


def to_numpy(tensor: Any) -> np.ndarray:
    """A tensor of any dtype and device as an array."""
    try:
        tensor = tensor.detach().cpu()
        array: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # numpy has no bfloat16
    except (TypeError, RuntimeError, NotImplementedError) as error:  # sparse, quantized, without data (meta)
        raise InputError(
            f"a tensor of layout {getattr(tensor, 'layout', None)} on {getattr(tensor, 'device', None)} cannot be "
            f"read as token ids ({shorten(str(error))}). Pass a dense integer tensor, or lists."
        ) from error
    return array


def check_unicode(text: str, i: int, what: str = "sample") -> None:
    """Refuse a text that cannot be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} {i} is not valid Unicode: character {error.start} is the lone surrogate {text[error.start]!r}."
        ) from error


def kind_of(x: Any) -> str:
    """Type and beginning of a value, for messages."""
    return f"{'dict' if isinstance(x, dict) else type(x).__name__} {quote(str(x))}"


def quote(text: str) -> str:
    """The text in quotes, its end left away where it is long."""
    return repr(shorten(text))


def shorten(text: str) -> str:
    """How the text begins. Never of a path: what one looks for is its end."""
    return text if len(text) <= _SOME else text[:_SOME] + "..."
