"""Checks of two sets of samples: both texts or both ids, and none in both sets."""

from collections.abc import Hashable
from typing import Any

from memorization.errors import InputError
from memorization.samples.groups import check_apart, groups_of_both
from memorization.samples.positions import GIVEN
from memorization.samples.reading import SamplesLike, read_samples
from memorization.samples.samples import Samples
from memorization.samples.token_ids import shorten

__all__ = ["check_disjoint", "check_same_kind", "overlap_keys", "sample_keys"]


def check_disjoint(samples: SamplesLike, control: SamplesLike, *, groups: Any = None) -> None:
    """Raise where a sample is also a control sample, or of one document with one: the model has seen it.

    Args:
        samples: as `compress_bits` takes them.
        control: samples that the model has not seen, texts or ids like `samples`.
        groups: which document each sample is of: a column of both, or a pair of labels: those of the samples, and those
            of the control. None: what `Samples` carry, else nothing is asked of documents.

    Raises:
        InputError: naming the first sample, or document, that is in both, and how many are; or texts against ids.

    Examples:
        >>> check_disjoint(["seen"], ["unseen"])
        >>> check_disjoint(["seen"], ["unseen"], groups=(["a book"], ["another book"]))
    """
    of = groups_of_both(groups)
    ours, theirs = read_samples(samples, groups=of[0]), read_samples(control, groups=of[1])
    check_same_kind(ours, theirs)
    _check_documents(ours, theirs)
    where = {key: k for k, key in reversed(list(enumerate(overlap_keys(theirs))))}
    both = [(k, where[key], key) for k, key in enumerate(overlap_keys(ours)) if key in where]
    if both:
        k, other, key = both[0]
        text = "" if ours.hidden else f": {shorten(repr(key))}"
        raise InputError(
            f"sample {ours.index[k]} is also control sample {theirs.index[other]}{text} ({len(both)} of {len(ours)} "
            "samples are in both). Leave such samples out of both sets: the model has seen them, whatever they are "
            "called."
        )


def _check_documents(samples: Samples, control: Samples) -> None:
    """Refuse a document on both sides, and documents on one side alone."""
    if samples.groups is None or control.groups is None:
        if samples.groups is not control.groups:
            having, lacking = ("samples", "control samples")[:: 1 if control.groups is None else -1]
            raise InputError(f"the {having} say which document each is of, and the {lacking} do not: give both groups.")
        return
    check_apart(samples.groups, control.groups, rows=(samples.index, control.index))


def check_same_kind(samples: Samples, control: Samples) -> None:
    """Refuse texts against token ids, and what is counted whole against what is not."""
    if (samples.texts is None) != (control.texts is None):
        kinds = ["token ids" if part.texts is None else "texts" for part in (samples, control)]
        raise InputError(
            f"samples are {kinds[0]} and control samples {kinds[1]}: pass texts for both, or ids for both."
        )
    if samples.conditional != control.conditional:
        told = [
            "whole" if part.conditional is None else f"without {GIVEN[part.conditional]}" for part in (samples, control)
        ]
        raise InputError(
            f"samples are counted {told[0]}, and control samples {told[1]}: their bits are of unlike things. Read both "
            "in one way."
        )


def overlap_keys(samples: Samples) -> list[Hashable]:
    """The same, but that white space makes no difference: who has seen a text has seen it with a space behind it."""
    return [" ".join(key.split()) if isinstance(key, str) else key for key in sample_keys(samples)]


def sample_keys(samples: Samples) -> list[Hashable]:
    """Of each sample what equal samples share: its text, prompt included, or its ids where samples came as ids."""
    if samples.texts is not None:
        prompts = samples.prompts or [""] * len(samples)
        if samples.conditional == "messages":
            return list(prompts)  # which hold the texts
        return [f"{prompt}\n{text}" if prompt else text for prompt, text in zip(prompts, samples.texts, strict=True)]
    return [tuple(ids.tolist()) for ids in samples.ids or ()]
