"""Which document each sample is of: samples of one document are no independent draws."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.errors import InputError
from memorization.results import counted
from memorization.samples.tables import is_blank
from memorization.samples.token_ids import is_tensor, kind_of, shorten, to_numpy

if TYPE_CHECKING:
    from typing import TypeAlias

    import torch

    # The name of a column, or a label a sample.
    GroupsLike: TypeAlias = "str | Sequence[Any] | np.ndarray[Any, Any] | torch.Tensor"
else:
    GroupsLike = Any  # what else comes is refused by `labels_of`, in words

__all__ = ["GroupsLike", "check_apart", "check_documents", "codes_of", "groups_of_both", "label_of", "labels_of"]


def groups_of_both(groups: Any) -> tuple[Any, Any]:
    """What `groups` of a function of samples and control says of each: a column of both, or a pair of labels.

    Raises:
        InputError: it is neither.

    Examples:
        >>> groups_of_both("document")
        ('document', 'document')
    """
    if groups is None or isinstance(groups, str):
        return groups, groups
    if isinstance(groups, (tuple, list)) and len(groups) == 2 and not any(isinstance(part, str) for part in groups):
        return groups[0], groups[1]
    raise InputError(
        "groups must name a column of both files, or be a pair: the labels of the samples, and those of the control "
        f"samples; it is {kind_of(groups)}."
    )


def labels_of(groups: Any, n_rows: int, *, at_least: bool = False, of: str = "rows") -> tuple[str, ...]:
    """The label of each row as a str.

    Args:
        groups: a label a row.
        n_rows: rows there are.
        at_least: more labels than that are cut: rows after the last one that was read.
        of: what has labels, for messages.

    Raises:
        InputError: another number of labels, or one that is none.
    """
    if is_tensor(groups):
        groups = to_numpy(groups)
    elif hasattr(groups, "to_list"):  # a column of pandas or polars
        groups = groups.to_list()
    labels = groups.tolist() if isinstance(groups, np.ndarray) else groups
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Iterable):
        raise InputError(f"groups must be one label for each of the {n_rows} {of}; it is {kind_of(groups)}.")
    labels = list(labels)
    if len(labels) != n_rows and not (at_least and len(labels) > n_rows):
        raise InputError(
            f"groups must hold one label for each of the {n_rows} {of}; it holds {len(labels)}. Samples of one "
            "document have the same label."
        )
    return tuple(label_of(label, i) for i, label in enumerate(labels[:n_rows]))


def label_of(label: Any, i: int) -> str:
    """A label as a str, the same for 7, 7.0 and "7".

    Raises:
        InputError: it is missing, or no label.
    """
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if is_blank(label):
        raise InputError(
            f"row {i} has no group: it is {label!r}. Each sample is of one document; give a sample that stands alone a "
            "label of its own."
        )
    if isinstance(label, (list, dict, set, np.ndarray)):
        raise InputError(f"the group of row {i} must be a number or a text; it is {kind_of(label)}.")
    return str(label)


def codes_of(labels: Sequence[str]) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Labels as numbers from 0, in the order of the labels."""
    return np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int64)


def check_documents(labels: Sequence[str], of: str, *, at_least: int = 2) -> None:
    """Refuse samples of too few documents: nothing can be said of how the next document would differ."""
    names = set(labels)
    if len(names) < at_least:
        which = f"one document, {shorten(repr(min(names)))}" if len(names) == 1 else f"{len(names)} documents"
        raise InputError(
            f"all {len(labels)} {of} are of {which}, and at least {counted(at_least, 'document')} are needed to say "
            "how sure a result is: bring more documents, or leave groups out if these samples are independent draws."
        )


def check_apart(
    ours: Sequence[str],
    theirs: Sequence[str],
    names: tuple[str, str] = ("sample", "control sample"),
    rows: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Refuse a document that is on both sides, by its name; `rows` are the positions in the input."""
    both = sorted({*ours} & {*theirs})
    if both:
        k, other = ours.index(both[0]), theirs.index(both[0])
        k, other = (k, other) if rows is None else (rows[0][k], rows[1][other])
        raise InputError(
            f"document {shorten(repr(both[0]))} is on both sides: {names[0]} {k} and {names[1]} {other} are of it "
            f"({len(both)} of {len({*ours})} documents are on both sides). Keep whole documents on one side: a model "
            "that has seen a part knows something of the rest."
        )
