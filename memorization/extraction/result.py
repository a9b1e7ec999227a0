"""The result of extraction: which tokens greedy decoding gets right, and the rates that follow for any prefix."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int64

from memorization.errors import InputError
from memorization.integers import check_integer, edges_of
from memorization.results import ReadOnly, Result, Saved, describe_model
from memorization.samples import left_out, positions_measured
from memorization.stats.binomial import clopper_pearson, newcombe
from memorization.stats.levels import Interval, with_interval
from memorization.stats.significance import conformal_p_values, q_of_p_values

if TYPE_CHECKING:
    import pandas as pd

NAMES = {"members": "sample", "heldout": "control sample"}
SETS = {"members": "samples", "heldout": "control"}


@dataclass(frozen=True, slots=True)
class ExtractionRate(ReadOnly):
    """Share of the samples that a prefix of one length extracts.

    Rates and their intervals are NaN where there are no samples.

    Attributes:
        prefix_tokens: length of the prefix.
        n_members: samples of the training data.
        member_rate: share of them extracted, from 0 to 1.
        member_interval: its lower and upper end.
        n_heldout: samples that the model has not seen; 0 where none were given.
        heldout_rate: share of them that come out all the same: generalization, not memorization.
        heldout_interval: its ends.
        excess: member_rate - heldout_rate, from -1 to 1.
        excess_interval: its ends.
    """

    prefix_tokens: int
    n_members: int
    member_rate: float
    member_interval: Interval
    n_heldout: int
    heldout_rate: float
    heldout_interval: Interval
    excess: float
    excess_interval: Interval


@dataclass(frozen=True, slots=True, eq=False)
class Extraction(Result):
    """Which samples a model gives back from their first tokens, and how many, of members and of held-out samples.

    A saved folder holds rates.parquet (a row a prefix length), samples.parquet (a row a sample), tokens.parquet (a row
    a token) and settings.json.

    Attributes:
        member_correct: of each token of each member, whether it is the arg max given the true tokens before it; all
            members in turn.
        member_offsets: member i owns member_correct[member_offsets[i]:member_offsets[i + 1]], int64 (n_members + 1).
        heldout_correct: the same of the held-out samples; empty where none were given.
        heldout_offsets: the same of heldout_correct.
        settings: what was decided, by the caller or for the caller: prefix_tokens (those reported), suffix_tokens,
            interval_level, first_token; fingerprints and versions.
    """

    member_correct: Bool[np.ndarray, " member_token"]
    member_offsets: Int64[np.ndarray, " member_edge"]
    heldout_correct: Bool[np.ndarray, " heldout_token"]
    heldout_offsets: Int64[np.ndarray, " heldout_edge"]
    settings: dict[str, Any]

    @property
    def prefix_needed(self) -> Int64[np.ndarray, " member"]:
        """Of each member the fewest leading tokens from which all later ones come out right: 0 to its length, int64."""
        return _prefix_needed(self.member_correct, self.member_offsets)

    @property
    def heldout_prefix_needed(self) -> Int64[np.ndarray, " heldout"]:
        """The same of each held-out sample."""
        return _prefix_needed(self.heldout_correct, self.heldout_offsets)

    @property
    def rates(self) -> list[ExtractionRate]:
        """Rates at each prefix length of the settings, ascending."""
        return [self.rate(prefix) for prefix in self.settings["prefix_tokens"]]

    def extracted(self, prefix_tokens: int) -> Bool[np.ndarray, " member"]:
        """Of each member, whether a prefix of this length gives back the suffix.

        Raises:
            InputError: a prefix that is not an integer of at least 1, or for which a member is too short.
        """
        return self._extracted("members", prefix_tokens)

    def heldout_extracted(self, prefix_tokens: int) -> Bool[np.ndarray, " heldout"]:
        """The same of each held-out sample."""
        return self._extracted("heldout", prefix_tokens)

    def rate(self, prefix_tokens: int) -> ExtractionRate:
        """Rates at any prefix length, not only those that were asked for; no model is needed.

        Raises:
            InputError: a prefix that is not an integer of at least 1, or for which a sample is too short.
        """
        members, heldout = self.extracted(prefix_tokens), self.heldout_extracted(prefix_tokens)
        level = self.settings["interval_level"]
        (rate, ends), (heldout_rate, heldout_ends) = (_rate(part, level) for part in (members, heldout))
        return ExtractionRate(
            prefix_tokens=int(prefix_tokens),
            n_members=len(members),
            member_rate=rate,
            member_interval=ends,
            n_heldout=len(heldout),
            heldout_rate=heldout_rate,
            heldout_interval=heldout_ends,
            excess=rate - heldout_rate,
            excess_interval=newcombe(rate, ends, heldout_rate, heldout_ends),
        )

    def to_pandas(self) -> "pd.DataFrame":
        """One row a prefix length: the fields of `ExtractionRate`, with each interval in two columns, low and high."""
        import pandas as pd

        rows = [
            {
                "prefix_tokens": found.prefix_tokens,
                "n_members": found.n_members,
                "member_rate": found.member_rate,
                "member_low": found.member_interval[0],
                "member_high": found.member_interval[1],
                "n_heldout": found.n_heldout,
                "heldout_rate": found.heldout_rate,
                "heldout_low": found.heldout_interval[0],
                "heldout_high": found.heldout_interval[1],
                "excess": found.excess,
                "excess_low": found.excess_interval[0],
                "excess_high": found.excess_interval[1],
            }
            for found in self.rates
        ]
        return pd.DataFrame(rows)

    def samples_to_pandas(self) -> "pd.DataFrame":
        """One row a sample, members first: member, sample (its position in the input), n_tokens, prefix_needed.

        And p_value, the share of held-out samples, the member itself counted, of which as many last tokens or more come
        out right (n_tokens - prefix_needed), with q_value, the lowest false discovery rate at which it is selected. NaN
        for held-out samples, which members are compared with, and where there are none.
        """
        import pandas as pd

        sets = zip(("members", "heldout"), (self.prefix_needed, self.heldout_prefix_needed), strict=True)
        tables = []
        for which, needed in sets:
            offsets = self._part(which)[1]
            columns = {"sample": self._index(which), "n_tokens": np.diff(offsets), "prefix_needed": needed}
            tables.append(pd.DataFrame({"member": np.full(len(needed), which == "members"), **columns}))
        recited = [(table["n_tokens"] - table["prefix_needed"]).to_numpy(np.float64) for table in tables]
        none = np.full(len(recited[1]), math.nan)
        p = conformal_p_values(*recited) if len(none) else np.full(len(recited[0]), math.nan)
        q = q_of_p_values(p) if len(none) else p
        p_and_q = {"p_value": np.concatenate([p, none]), "q_value": np.concatenate([q, none])}
        return pd.concat(tables, ignore_index=True).assign(**p_and_q)

    def tokens_to_pandas(self) -> "pd.DataFrame":
        """One row a token, members first: member, sample (position in the input), position (in the sample), correct."""
        import pandas as pd

        tables = []
        for which in NAMES:
            correct, offsets = self._part(which)
            n_tokens = np.diff(offsets)
            position = np.arange(len(correct)) - np.repeat(offsets[:-1], n_tokens)
            columns = {"sample": np.repeat(self._index(which), n_tokens), "position": position, "correct": correct}
            tables.append(pd.DataFrame({"member": np.full(len(correct), which == "members"), **columns}))
        return pd.concat(tables, ignore_index=True)

    def _tables(self) -> "dict[str, pd.DataFrame]":
        return {"rates": self.to_pandas(), "samples": self.samples_to_pandas(), "tokens": self.tokens_to_pandas()}

    def _facts(self) -> dict[str, Any]:
        return self.settings

    @classmethod
    def _from_saved(cls, saved: Saved) -> "Extraction":
        """The rates are worked out again from the tokens."""
        settings = saved.need(
            *("prefix_tokens", "suffix_tokens", "interval_level", "first_token", "model", "members", "heldout")
        )
        samples = saved.table("samples", ("member", "n_tokens"))
        correct = saved.table("tokens", ("correct",))["correct"].to_numpy(bool)
        n_tokens, member = samples["n_tokens"].to_numpy(np.int64), samples["member"].to_numpy(bool)
        if (n_tokens < 1).any() or int(n_tokens.sum()) != len(correct):
            raise saved.damaged(f"its samples have {n_tokens.sum()} tokens, tokens.parquet holds {len(correct)}")
        n_members = settings["members"]["n_samples"]
        n_samples = n_members + (settings["heldout"] or {"n_samples": 0})["n_samples"]
        if not np.array_equal(member, np.arange(n_samples) < n_members):
            raise saved.damaged(
                f"samples.parquet should hold {n_members} members and then {n_samples - n_members} held-out samples"
            )
        n_member_tokens = int(n_tokens[member].sum())
        return cls(
            member_correct=correct[:n_member_tokens],
            member_offsets=edges_of(n_tokens[member]),
            heldout_correct=correct[n_member_tokens:],
            heldout_offsets=edges_of(n_tokens[~member]),
            settings=settings,
        )

    def __repr__(self) -> str:
        n_members, n_heldout = len(self.member_offsets) - 1, len(self.heldout_offsets) - 1
        sets = f"{n_members:,} members" + (f" and {n_heldout:,} held-out samples" if n_heldout else "")
        level = f"{100 * self.settings['interval_level']:g} % intervals"
        lines = [f"Extraction of {sets}: share given back exactly by greedy decoding; {level}"]
        lines.append(f"  {'prefix':<13}{'members':<28}" + (f"{'held-out':<28}excess" if n_heldout else ""))
        for row in self.rates:
            line = (
                f"  {f'{row.prefix_tokens} tokens':<13}{with_interval(row.member_rate, row.member_interval, '.3g'):<28}"
            )
            if n_heldout:
                line += f"{with_interval(row.heldout_rate, row.heldout_interval, '.3g'):<28}"
                line += with_interval(row.excess, row.excess_interval, ".3g")
            lines.append(line.rstrip())
        if not n_heldout:
            lines.append("  held-out     no held-out samples: some of this may be generalization")
        suffix, first = self.settings["suffix_tokens"], self.settings["first_token"]
        n_cut = sum(self.settings.get("n_cut", {}).values())
        if n_cut:
            lines.append(
                f"  cut          {n_cut:,} samples are longer than the model's window, which holds their beginning"
            )
        lines.append(f"  suffix       {'the whole rest of each sample' if suffix is None else f'{suffix} tokens'}")
        context = "none" if first["id"] is None else f"id {first['id']}"
        context = context if first["token"] is None else f"{first['token']!r} ({context})"
        lines.append(f"  context      {context} before the first token")
        lines.append(f"  model        {describe_model(self.settings['model'])}")
        lines += left_out({"members": self.settings["members"], "held-out samples": self.settings["heldout"]})
        return "\n".join(line.rstrip() for line in lines)

    def _part(self, which: str) -> tuple[Bool[np.ndarray, " token"], Int64[np.ndarray, " edge"]]:
        if which == "members":
            return self.member_correct, self.member_offsets
        return self.heldout_correct, self.heldout_offsets

    def _index(self, which: str) -> Int64[np.ndarray, " sample"]:
        """Position of each sample in the input."""
        return positions_measured(len(self._part(which)[1]) - 1, self.settings[which] or {"lossy_skipped": ()})

    def _extracted(self, which: str, prefix_tokens: int) -> Bool[np.ndarray, " sample"]:
        prompted = (self.settings["members"] or {}).get("conditional") is not None
        prefix = check_integer("prefix_tokens", prefix_tokens, at_least=0 if prompted else 1)
        suffix = self.settings["suffix_tokens"]
        correct, offsets = self._part(which)
        check_long_enough(which, self._index(which), np.diff(offsets), prefix, suffix)
        start = offsets[:-1] + prefix
        stop = offsets[1:] if suffix is None else start + suffix
        n_wrong_before = np.concatenate([[0], np.cumsum(~correct)])
        return np.asarray(n_wrong_before[stop] == n_wrong_before[start])


def _prefix_needed(
    correct: Bool[np.ndarray, " token"], offsets: Int64[np.ndarray, " edge"]
) -> Int64[np.ndarray, " sample"]:
    """1 + the position of the last token that is wrong, 0 where none is."""
    if len(offsets) == 1:  # no sample: reduceat wants one
        return np.zeros(0, dtype=np.int64)
    position = np.arange(len(correct)) - np.repeat(offsets[:-1], np.diff(offsets))
    return np.maximum.reduceat(np.where(correct, 0, position + 1), offsets[:-1]).astype(np.int64)


def check_long_enough(which: str, index: np.ndarray, n_tokens: np.ndarray, prefix: int, suffix: int | None) -> None:
    """Refuse a prefix that leaves a sample without the suffix, naming the first one."""
    short = np.flatnonzero(n_tokens < prefix + (suffix or 1))
    if len(short):
        rest = "a suffix" if suffix is None else f"a suffix of {suffix}"
        raise InputError(
            f"{NAMES[which]} {index[short[0]]} has {n_tokens[short[0]]} tokens, too few for a prefix of {prefix} and "
            f"{rest} ({len(short)} of {len(n_tokens)} samples are as short). Pass a smaller prefix_tokens"
            f"{'' if suffix is None else ' or suffix_tokens'}, or leave short samples out."
        )


def _rate(extracted: Bool[np.ndarray, " sample"], level: float) -> tuple[float, Interval]:
    """Share of the samples, with Clopper and Pearson's interval."""
    n, k = len(extracted), int(extracted.sum())
    return (k / n if n else math.nan), clopper_pearson(k, n, level)
