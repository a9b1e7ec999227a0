"""Checks of two sets of samples: both texts or both ids, and none in both sets."""

from collections.abc import Hashable

from memorization.errors import InputError
from memorization.samples.samples import Samples, SamplesLike, read_samples
from memorization.samples.token_ids import shorten

__all__ = ["check_disjoint", "check_same_kind", "sample_keys"]


def check_disjoint(samples: SamplesLike, control: SamplesLike) -> None:
    """Raise where a sample is also a control sample: the model has seen it, whatever it is called.

    Args:
        samples: as `compress_bits` takes them.
        control: samples that the model has not seen, texts or ids like `samples`.

    Raises:
        InputError: naming the first sample that is in both, and how many are; or texts against ids.

    Examples:
        >>> check_disjoint(["seen"], ["unseen"])
    """
    ours, theirs = read_samples(samples), read_samples(control)
    check_same_kind(ours, theirs)
    where = {key: k for k, key in reversed(list(enumerate(sample_keys(theirs))))}
    both = [(k, where[key], key) for k, key in enumerate(sample_keys(ours)) if key in where]
    if both:
        k, other, key = both[0]
        raise InputError(
            f"sample {ours.index[k]} is also control sample {theirs.index[other]}: {shorten(repr(key))} ({len(both)} "
            f"of {len(ours)} samples are in both). Leave such samples out of both sets: the model has seen them, "
            "whatever they are called."
        )


def check_same_kind(samples: Samples, control: Samples) -> None:
    """Refuse texts against token ids."""
    if (samples.texts is None) != (control.texts is None):
        kinds = ["token ids" if part.texts is None else "texts" for part in (samples, control)]
        raise InputError(
            f"samples are {kinds[0]} and control samples {kinds[1]}: pass texts for both, or ids for both."
        )


def sample_keys(samples: Samples) -> list[Hashable]:
    """Of each sample what equal samples share: its text, or its ids where samples came as ids."""
    if samples.texts is not None:
        return list(samples.texts)
    return [tuple(ids.tolist()) for ids in samples.ids or ()]
