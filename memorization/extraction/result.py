"""The result of extraction: which tokens greedy decoding gets right, and the rates that follow for any prefix."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Int64

from memorization.errors import InputError
from memorization.extraction.decoding import Decoding, check_probability, least_bits, worst_windows
from memorization.extraction.rates import (
    ExtractionRate,
    check_long_enough,
    check_tries,
    known,
    line_of,
    prefix_needed,
    share,
)
from memorization.extraction.tables import TOKEN_COLUMNS, SampleTables
from memorization.integers import check_integer, edges_of
from memorization.results import About, Saved, counted, describe_model, plain
from memorization.samples import left_out, positions_measured
from memorization.stats.binomial import newcombe
from memorization.stats.levels import with_interval

if TYPE_CHECKING:
    import pandas as pd

_TRIES = tuple(10**k for k in range(7))
_SHOWN_TRIES = (1, 100, 10_000)
_PROBABILITIES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True, eq=False)
class Extraction(SampleTables):
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
            interval_level, decoding, first_token; fingerprints and versions; and "examples", the members that come out
            most easily, which a saved folder has in examples.jsonl too.
        member_bits: -log2 of the probability with which each token of a member is drawn, given the true tokens before
            it, float64; inf where it never is. None in results of version 0.1.0.
        heldout_bits: the same of the held-out samples.
        member_oracle_bits: the same as member_bits under the oracle; None where none was given.
        heldout_oracle_bits: the same of the held-out samples.
        member_groups: the document of each member, or where these are not known and some members are equal, a label
            that equal ones share; None where each is on its own. Intervals and p-values go by them.
        heldout_groups: the same of the held-out samples.
        member_about: how each member begins, its id and the columns that were kept; None of an earlier version.
        heldout_about: the same of the held-out samples.

    Examples:
        >>> import torch, memorization
        >>> counts = lambda ids: torch.eye(8).roll(1, 1)[ids] * 50
        >>> found = memorization.extract(counts, [[0, 1, 2, 3]], prefix_tokens=[1], first_token=0, progress=False)
        >>> found.extracted(1).tolist(), found.rate(1).member_rate
        ([True], 1.0)
    """

    member_correct: Bool[np.ndarray, " member_token"]
    member_offsets: Int64[np.ndarray, " member_edge"]
    heldout_correct: Bool[np.ndarray, " heldout_token"]
    heldout_offsets: Int64[np.ndarray, " heldout_edge"]
    settings: dict[str, Any]
    member_bits: Float64[np.ndarray, " member_token"] | None = None
    heldout_bits: Float64[np.ndarray, " heldout_token"] | None = None
    member_oracle_bits: Float64[np.ndarray, " member_token"] | None = None
    heldout_oracle_bits: Float64[np.ndarray, " heldout_token"] | None = None
    member_groups: tuple[str, ...] | None = None
    heldout_groups: tuple[str, ...] | None = None
    member_about: About | None = None
    heldout_about: About | None = None

    @property
    def prefix_needed(self) -> Int64[np.ndarray, " member"]:
        """Of each member the fewest leading tokens from which all later ones come out right: 0 to its length, int64."""
        return prefix_needed(self.member_correct, self.member_offsets)

    @property
    def heldout_prefix_needed(self) -> Int64[np.ndarray, " heldout"]:
        """The same of each held-out sample."""
        return prefix_needed(self.heldout_correct, self.heldout_offsets)

    @property
    def rates(self) -> list[ExtractionRate]:
        """Rates at each prefix length of the settings, ascending."""
        return [self.rate(prefix) for prefix in self.settings["prefix_tokens"]]

    def extracted(self, prefix_tokens: int) -> Bool[np.ndarray, " member"]:
        """Of each member, whether a prefix of `prefix_tokens` tokens gives back the suffix.

        Raises:
            InputError: a prefix that is not an integer of at least 1, or for which a member is too short.
        """
        return self._extracted("members", prefix_tokens)

    def heldout_extracted(self, prefix_tokens: int) -> Bool[np.ndarray, " heldout"]:
        """As `extracted(prefix_tokens)`, of each held-out sample."""
        return self._extracted("heldout", prefix_tokens)

    def suffix_bits(self, prefix_tokens: int) -> Float64[np.ndarray, " member"]:
        """Of each member -log2 of the probability, in bits, of sampling the suffix after `prefix_tokens` tokens.

        By the decoding of the settings; inf where it never is. `tries` says how often one must sample.

        Raises:
            InputError: as for `extracted`; or the result is one of version 0.1.0, which knows no probabilities.
        """
        return self._suffix_bits("members", prefix_tokens, self.member_bits)

    def heldout_suffix_bits(self, prefix_tokens: int) -> Float64[np.ndarray, " heldout"]:
        """Bits as of `suffix_bits(prefix_tokens)`, of each held-out sample."""
        return self._suffix_bits("heldout", prefix_tokens, self.heldout_bits)

    def worst_windows(self, suffix_tokens: int) -> tuple[Int64[np.ndarray, " member"], Float64[np.ndarray, " member"]]:
        """Where in each member the run of `suffix_tokens` tokens begins that comes out most easily, and its bits.

        All of the member before the run is given. See `memorization.extraction.worst_windows`.
        """
        return worst_windows(known(self.member_bits), self.member_offsets, suffix_tokens)

    def rate(
        self, prefix_tokens: int, n_tries: float | int | None = None, p: float = 0.5, *, beyond_oracle: bool = False
    ) -> ExtractionRate:
        """Rates at any prefix length and any number of tries, not only those reported; no model is needed.

        Args:
            prefix_tokens: length of the prefix.
            n_tries: None counts what greedy decoding gives back; else what comes out at least once in so many sampled
                continuations, with probability p at least.
            p: between 0 and 1.
            beyond_oracle: count only what the oracle does not give within as many tries.

        Returns:
            Shares of members and held-out samples with their intervals.

        Raises:
            InputError: a prefix that is not an integer of at least 1, or for which a sample is too short; fewer tries
                than 1; a probability outside (0, 1); no oracle.
        """
        if n_tries is None and not beyond_oracle:
            members, heldout = self.extracted(prefix_tokens), self.heldout_extracted(prefix_tokens)
        else:
            most = least_bits(check_tries(n_tries), check_probability(p))
            members = self.suffix_bits(prefix_tokens) <= most
            heldout = self.heldout_suffix_bits(prefix_tokens) <= most
            if beyond_oracle:
                if self.member_oracle_bits is None:
                    raise InputError("no oracle was given, beyond which to count: pass oracle= to extract.")
                members &= self._suffix_bits("members", prefix_tokens, self.member_oracle_bits) > most
                heldout &= self._suffix_bits("heldout", prefix_tokens, self.heldout_oracle_bits) > most
        level = self.settings["interval_level"]
        (rate, ends), (heldout_rate, heldout_ends) = (
            share(part, level, groups)
            for part, groups in ((members, self.member_groups), (heldout, self.heldout_groups))
        )
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

    def tries_to_pandas(self) -> "pd.DataFrame":
        """One row a prefix length, number of tries (1 to a million) and probability (0.1, 0.5, 0.9).

        Columns: prefix_tokens, n_tries, p, member_rate, heldout_rate, excess, each with low and high, and where there
        was an oracle beyond_oracle, the share of the members that it does not give, with low and high.
        """
        import pandas as pd

        rows = []
        for prefix in self.settings["prefix_tokens"] if self.member_bits is not None else ():
            for p in _PROBABILITIES:
                for n in _TRIES:
                    found = self.rate(prefix, n, p)
                    row: dict[str, Any] = {"prefix_tokens": prefix, "n_tries": n, "p": p}
                    for name in ("member", "heldout", "excess"):
                        value = found.excess if name == "excess" else getattr(found, f"{name}_rate")
                        low, high = getattr(found, f"{name}_interval")
                        row |= {name if name == "excess" else f"{name}_rate": value}
                        row |= {f"{name}_low": low, f"{name}_high": high}
                    if self.member_oracle_bits is not None:
                        beyond = self.rate(prefix, n, p, beyond_oracle=True)
                        low, high = beyond.member_interval
                        row |= {"beyond_oracle": beyond.member_rate, "beyond_low": low, "beyond_high": high}
                    rows.append(row)
        return pd.DataFrame(rows)

    _row_tables: ClassVar[tuple[str, ...]] = ("samples",)

    def _tables(self) -> "dict[str, pd.DataFrame]":
        tables = {"rates": self.to_pandas(), "samples": self.samples_to_pandas(), "tokens": self.tokens_to_pandas()}
        return tables if self.member_bits is None else {**tables, "tries": self.tries_to_pandas()}

    def _write_more(self, folder: Path) -> None:
        lines = [json.dumps(plain(one), ensure_ascii=False) + "\n" for one in self.settings.get("examples", ())]
        (folder / "examples.jsonl").write_text("".join(lines), encoding="utf-8")

    def _facts(self) -> dict[str, Any]:
        return self.settings

    @classmethod
    def _from_saved(cls, saved: Saved) -> "Extraction":
        """The rates are worked out again from the tokens."""
        settings = saved.need(
            *("prefix_tokens", "suffix_tokens", "interval_level", "first_token", "model", "members", "heldout")
        )
        samples = saved.table("samples", ("member", "n_tokens"), optional=("group",))
        tokens = saved.table("tokens", ("correct",), optional=TOKEN_COLUMNS)
        correct = tokens["correct"].to_numpy(bool)
        n_tokens, member = samples["n_tokens"].to_numpy(np.int64), samples["member"].to_numpy(bool)
        if (n_tokens < 1).any() or int(n_tokens.sum()) != len(correct):
            raise saved.damaged(
                f"its samples have {counted(n_tokens.sum(), 'token')}, tokens.parquet holds {len(correct)}"
            )
        n_members = settings["members"]["n_samples"]
        n_samples = n_members + (settings["heldout"] or {"n_samples": 0})["n_samples"]
        if not np.array_equal(member, np.arange(n_samples) < n_members):
            raise saved.damaged(
                f"samples.parquet should hold {counted(n_members, 'member')} and then "
                f"{counted(n_samples - n_members, 'held-out sample')}"
            )
        n_member_tokens = int(n_tokens[member].sum())
        bits: dict[str, Any] = {}
        if "group" in samples:
            for name, own in (("member_groups", member), ("heldout_groups", ~member)):
                labels = samples["group"][own]
                bits |= {name: tuple(labels) if len(labels) and labels.notna().all() else None}
        if (about := saved.about("samples")) is not None:
            parts = {"member_about": about.take(np.flatnonzero(member))}
            bits |= parts | ({} if member.all() else {"heldout_about": about.take(np.flatnonzero(~member))})
        for name, kind in zip(TOKEN_COLUMNS, ("bits", "oracle_bits"), strict=True):
            if name in tokens:
                values = tokens[name].to_numpy(np.float64)
                bits |= {f"member_{kind}": values[:n_member_tokens], f"heldout_{kind}": values[n_member_tokens:]}
        return cls(
            **bits,
            member_correct=correct[:n_member_tokens],
            member_offsets=edges_of(n_tokens[member]),
            heldout_correct=correct[n_member_tokens:],
            heldout_offsets=edges_of(n_tokens[~member]),
            settings=settings,
        )

    def __repr__(self) -> str:
        n_members, n_heldout = len(self.member_offsets) - 1, len(self.heldout_offsets) - 1
        sets = counted(n_members, "member") + (f" and {counted(n_heldout, 'held-out sample')}" if n_heldout else "")
        level = f"{100 * self.settings['interval_level']:g} % intervals"
        lines = [f"Extraction of {sets}: share given back exactly by greedy decoding; {level}"]
        lines.append(f"  {'prefix':<13}{'members':<28}" + (f"{'held-out':<28}excess" if n_heldout else ""))
        for row in self.rates:
            lines.append(line_of(counted(row.prefix_tokens, "token"), row, bool(n_heldout)).rstrip())
        if not n_heldout:
            lines.append("  held-out     no held-out samples: some of this may be generalization")
        lines += self._tries_lines(bool(n_heldout))
        suffix, first = self.settings["suffix_tokens"], self.settings["first_token"]
        if self.member_groups is not None or self.heldout_groups is not None:
            what = "documents" if self.settings.get("groups") else "equal samples"
            lines.append(f"  intervals    of {what}, which count once")
        n_cut = sum(self.settings.get("n_cut", {}).values())
        if n_cut:
            lines.append(
                f"  cut          {counted(n_cut, 'sample')} {'is' if n_cut == 1 else 'are'} longer than the model's "
                "window, which holds the beginning"
            )
        rest = "the whole rest of each sample" if suffix is None else counted(suffix, "token")
        lines.append(f"  suffix       {rest}")
        number = "none" if first["id"] is None else f"id {first['id']}"
        context = number if first["token"] is None else f"{first['token']!r} ({number})"
        lines.append(f"  context      {context} before the first token")
        lines.append(f"  model        {describe_model(self.settings['model'])}")
        lines += left_out({"members": self.settings["members"], "held-out samples": self.settings["heldout"]})
        return "\n".join(line.rstrip() for line in lines)

    def _tries_lines(self, with_heldout: bool) -> list[str]:
        if self.member_bits is None or not self.settings["prefix_tokens"]:
            return []
        prefix, decoding = self.settings["prefix_tokens"][0], Decoding(**self.settings["decoding"])
        given = counted(prefix, "token") if prefix else "the prompt"
        lines = [f"  sampled at {decoding.describe()}, from {given}: share that comes out with probability 1/2"]
        for n in _SHOWN_TRIES:
            name = "1 try" if n == 1 else f"{n:,} tries"
            lines.append(line_of(name, self.rate(prefix, n), with_heldout))
        if self.member_oracle_bits is not None:
            beyond = self.rate(prefix, n := _SHOWN_TRIES[-1], beyond_oracle=True)
            of_it = with_interval(beyond.member_rate, beyond.member_interval, ".3g")
            lines.append(f"  oracle       {of_it} of the members come out in {n:,} tries, and not of the oracle")
        return lines

    def _bits_of(self, which: str) -> tuple[Float64[np.ndarray, " token"] | None, ...]:
        if which == "members":
            return self.member_bits, self.member_oracle_bits
        return self.heldout_bits, self.heldout_oracle_bits

    def _part(self, which: str) -> tuple[Bool[np.ndarray, " token"], Int64[np.ndarray, " edge"]]:
        if which == "members":
            return self.member_correct, self.member_offsets
        return self.heldout_correct, self.heldout_offsets

    def _index(self, which: str) -> Int64[np.ndarray, " sample"]:
        """Position of each sample in the input."""
        return positions_measured(len(self._part(which)[1]) - 1, self.settings[which] or {"lossy_skipped": ()})

    def _extracted(self, which: str, prefix_tokens: int) -> Bool[np.ndarray, " sample"]:
        correct, (start, stop) = self._part(which)[0], self._suffixes(which, prefix_tokens)
        n_wrong_before = np.concatenate([[0], np.cumsum(~correct)])
        return np.asarray(n_wrong_before[stop] == n_wrong_before[start])

    def _suffix_bits(
        self, which: str, prefix_tokens: int, bits: Float64[np.ndarray, " token"] | None
    ) -> Float64[np.ndarray, " sample"]:
        start, stop = self._suffixes(which, prefix_tokens)
        own = known(bits)
        return np.array([own[a:b].sum() for a, b in zip(start, stop, strict=True)], dtype=np.float64)

    def _suffixes(self, which: str, prefix_tokens: int) -> tuple[Int64[np.ndarray, " sample"], ...]:
        """First token of each sample's suffix, and the token after its last."""
        prompted = (self.settings["members"] or {}).get("conditional") is not None
        prefix = check_integer("prefix_tokens", prefix_tokens, at_least=0 if prompted else 1)
        suffix = self.settings["suffix_tokens"]
        _, offsets = self._part(which)
        check_long_enough(which, self._index(which), np.diff(offsets), prefix, suffix)
        start = offsets[:-1] + prefix
        return start, offsets[1:] if suffix is None else start + suffix
