"""What is measured: `Samples`, read from texts, token ids, files, tables and data sets."""

from memorization.samples.disjoint import check_disjoint, check_same_kind, sample_keys
from memorization.samples.samples import (
    Samples,
    SamplesLike,
    left_out,
    positions_kept,
    positions_measured,
    read_samples,
)

__all__ = [
    "Samples",
    "SamplesLike",
    "check_disjoint",
    "check_same_kind",
    "left_out",
    "positions_kept",
    "positions_measured",
    "read_samples",
    "sample_keys",
]
