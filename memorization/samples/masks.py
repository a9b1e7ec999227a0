"""What is read and not counted: prompts beside samples, and labels and attention masks beside token ids."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from memorization.errors import InputError
from memorization.samples.positions import GIVEN
from memorization.samples.round_trip import decode
from memorization.samples.samples import Samples
from memorization.samples.tables import Row
from memorization.samples.token_ids import check_unicode, counted_by_labels, id_array, kind_of, quote, without_padding

__all__ = ["check_completions", "check_same_answers", "check_unconditional", "with_masks", "with_prompts"]


def check_completions(rows: Sequence[Row], index: Sequence[int]) -> None:
    """Refuse a prompt without a completion, and a completion without a prompt."""
    for i, row in zip(index, rows, strict=True):
        if _is_null(row.cell) or (isinstance(row.cell, (str, Sequence, np.ndarray)) and len(row.cell) == 0):
            raise InputError(
                f"sample {i} has a prompt, and its completion is {'null' if _is_null(row.cell) else 'empty'}: a "
                "completion of no tokens has no bits to measure. Leave the sample out."
            )
        if _is_null(row.prompt):
            raise InputError(f'sample {i} has no prompt: the cell is null. An empty prompt is "".')


def _is_null(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and cell != cell)


def with_prompts(samples: Samples, prompts: Sequence[Any]) -> Samples:
    """Samples with what stands before each: texts before texts, ids before ids.

    Raises:
        InputError: ids before texts, or texts before ids; labels that say which ids are counted came as well.
    """
    if samples.texts is not None:
        for i, prompt in zip(samples.index.tolist(), prompts, strict=True):
            if not isinstance(prompt, str):
                raise InputError(f"sample {i} is a text, so its prompt must be one; it is {kind_of(prompt)}.")
            check_unicode(prompt, i, "the prompt of sample")
        return replace(samples, conditional="prompt", prompts=list(prompts))
    if samples.conditional is not None:
        raise InputError(
            "the samples have prompts in a column of their own and labels of -100: both say which ids are counted. "
            "Leave one of the columns out."
        )
    assert samples.ids is not None
    before = []
    for i, prompt in zip(samples.index.tolist(), prompts, strict=True):
        if isinstance(prompt, str):
            raise InputError(f"sample {i} is a list of token ids, so its prompt must be one; it is {kind_of(prompt)}.")
        empty = isinstance(prompt, (Sequence, np.ndarray)) and len(prompt) == 0
        before.append(np.zeros(0, dtype=np.int64) if empty else id_array(prompt, i))
    return replace(
        samples,
        conditional="prompt",
        ids=[np.concatenate(pair) for pair in zip(before, samples.ids, strict=True)],
        counted=[np.repeat([False, True], [len(a), len(b)]) for a, b in zip(before, samples.ids, strict=True)],
    )


def with_masks(samples: Samples, rows: Sequence[Row]) -> Samples:
    """Samples of ids without what attention masks call padding, and with what labels say is counted.

    What stands behind the last counted token is not read.

    Raises:
        InputError: masks or labels that do not go with the ids.
    """
    assert samples.ids is not None
    masked = any(row.mask is not None for row in rows)
    whole: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    n_removed = 0
    for ids, row, i in zip(samples.ids, rows, samples.index.tolist(), strict=True):
        if row.mask is None and masked:
            raise InputError(f"sample {i} has no attention mask, and others have one: each row needs its own, or none.")
        kept = without_padding(ids, row.mask, i) if masked else slice(None)
        n_removed += len(ids) - len(ids[kept])
        counted = None if row.labels is None else counted_by_labels(ids, row.labels, i, kept)
        if counted is None:
            whole.append(ids[kept])
            masks.append(np.ones(len(ids[kept]), dtype=bool))
        else:
            stop = int(np.flatnonzero(counted)[-1]) + 1
            whole.append(ids[kept][:stop])
            masks.append(counted[:stop])
    told = [row.labels is not None for row in rows]
    if not all(told) and any(not counted.all() for counted in masks):
        i = int(samples.index[told.index(False)])
        raise InputError(
            f"sample {i} has no labels, and others have labels of -100: each row needs its own. The ids themselves "
            "count all of it."
        )
    samples = replace(samples, ids=whole, n_padding_removed=n_removed if masked else None)
    if all(counted.all() for counted in masks):  # labels that leave out padding alone
        return samples
    return replace(samples, conditional="labels", counted=masks)


def check_unconditional(samples: Samples, name: str) -> None:
    """Refuse samples of which not all is counted, where `name` has no meaning for them."""
    if samples.conditional is not None:
        raise InputError(
            f"{name} takes samples that are counted whole, and these are counted without {GIVEN[samples.conditional]}. "
            "Pass the texts alone, or the ids without their labels."
        )


def check_same_answers(parts: Sequence[Samples], tokenizers: Sequence[Any]) -> None:
    """Refuse conversations of which the templates of two tokenizers count different texts.

    Raises:
        InputError: naming the first; or one of the two is not at hand.
    """
    if len(parts) < 2:
        raise InputError(
            "the samples are messages, and saved CodeLengths are of another tokenizer's chat template, so whether both "
            "count the same text is not known. Pass the model in their place."
        )
    counted = [part.counted_ids or [] for part in parts]
    for i, *both in zip(parts[0].index.tolist(), *counted, strict=True):
        ours, theirs = (decode(own, ids.tolist()) for own, ids in zip(tokenizers, both, strict=True))
        if ours != theirs:
            raise InputError(
                f"the chat templates of target and oracle count different texts as the assistant's in sample {i}: "
                f"{quote(ours)} and {quote(theirs)}. Write prompts and completions into two columns and name the first "
                "with prompt_column, or mark what is counted in both templates ({% generation %})."
            )
