"""What is measured: `Samples`, read from texts, token ids, files, tables and data sets."""

from memorization.samples.disjoint import check_disjoint, check_same_kind, sample_keys
from memorization.samples.groups import GroupsLike, check_apart, check_documents, codes_of, groups_of_both, labels_of
from memorization.samples.masks import check_same_answers, check_unconditional
from memorization.samples.positions import counted_by, left_out, part_in_words, positions_kept, positions_measured
from memorization.samples.reading import SamplesLike, read_samples
from memorization.samples.samples import Samples
from memorization.samples.shards import SampleShards, scan_samples

__all__ = [
    "GroupsLike",
    "SampleShards",
    "Samples",
    "SamplesLike",
    "check_apart",
    "check_disjoint",
    "check_documents",
    "check_same_answers",
    "check_same_kind",
    "check_unconditional",
    "codes_of",
    "counted_by",
    "groups_of_both",
    "labels_of",
    "left_out",
    "part_in_words",
    "positions_kept",
    "positions_measured",
    "read_samples",
    "sample_keys",
    "scan_samples",
]
