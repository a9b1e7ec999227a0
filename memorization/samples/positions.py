"""Where in the input the samples stand that were measured, and how many were left out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from memorization.results.words import counted

__all__ = ["GIVEN", "counted_by", "left_out", "part_in_words", "positions_kept", "positions_measured"]

# What is read and not counted, by what says so (`Samples.conditional`).
GIVEN = {"prompt": "the prompts", "messages": "the other turns", "labels": "the tokens labelled -100"}


def counted_by(record: Mapping[str, Any]) -> str | None:
    """What says which tokens are counted, in the record of samples (`Samples.conditional`); None where all are."""
    found = record.get("conditional") or {}
    return found.get("by")


def left_out(records: Mapping[str, Mapping[str, Any] | None], width: int = 13) -> list[str]:
    """Lines that say how many texts of each of these sets were left out, and what of them was read and not counted."""
    counts = {name: (len(record["lossy_skipped"]), record["n_samples"]) for name, record in records.items() if record}
    given = {name: record.get("conditional") for name, record in records.items() if record}
    parts = {name: record for name, record in records.items() if record and "part_of" in record}
    return (
        [
            f"  {'part':<{width}}{part['n_samples']:,} of {part['part_of']['n_samples']:,} {name}"
            for name, part in parts.items()
        ]
        + [
            f"  {'given':<{width}}{GIVEN[found['by']]} of the {name} ({_read(found['n_tokens_read'])}not counted)"
            for name, found in given.items()
            if found
        ]
        + [
            f"  {'left out':<{width}}{n:,} of {counted(n + n_measured, 'text')} of the {name}: they do not survive "
            "the tokenizer"
            for name, (n, n_measured) in counts.items()
            if n
        ]
        + [
            f"  {'left out':<{width}}{n:,} of {n + record['n_samples']:,} {name}: too short to ask"
            for name, record in records.items()
            if record and (n := len(record.get("too_short", ())))
        ]
    )


def part_in_words(record: Mapping[str, Any]) -> str:
    """In brackets, that the record is of a part of what was measured; empty where it is of all."""
    return f" (a part of {record['part_of']['n_samples']}: pass the whole)" if "part_of" in record else ""


def _read(n_tokens: int | None) -> str:
    return "" if n_tokens is None else f"{counted(n_tokens, 'token')}, "


def positions_measured(n_samples: int, record: Mapping[str, Any]) -> Int64[np.ndarray, " sample"]:
    """Positions in the input of the samples of a measurement with this record (`Samples.record`)."""
    if "rows" in record:  # a part of what was measured
        return np.array(record["rows"], dtype=np.int64)
    left_out = [*record.get("blank_skipped", ()), *record["lossy_skipped"], *record.get("too_short", ())]
    return positions_kept(n_samples, left_out)


def positions_kept(n_samples: int, skipped: Sequence[int]) -> Int64[np.ndarray, " sample"]:
    """Positions in the input of the samples that are left, where those at `skipped` were left out."""
    return np.delete(np.arange(n_samples + len(skipped), dtype=np.int64), np.asarray(skipped, dtype=np.int64))
