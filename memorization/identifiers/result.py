"""The result of an audit of identifiers: bits of each, its evidence, and which are memorized."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from memorization.errors import InputError, NothingSelectedWarning, warn
from memorization.results import (
    About,
    Result,
    Saved,
    counted,
    describe_first_token,
    describe_model,
    visible,
    with_about,
)
from memorization.samples import left_out
from memorization.stats.levels import check_level
from memorization.stats.significance import fewest_selected, q_of_e_values, q_of_p_values, selected

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OWN_COLUMNS", "IdentifierAudit"]

# Of the table, beside those that every table of samples may have (`samples.beside`).
OWN_COLUMNS = ("start", "identifier", "format", "n_texts", "format_bits", "e_value", "rank_p_value")

_FDR = 0.05  # at which the printed result selects
_SHOWN = 4  # characters of an identifier that a printed result shows
_PERMUTATIONS = 9_999
_LARGE_DEBT = 10  # bits that a model puts on other strings, from which on the printed result speaks of it


@dataclass(frozen=True, slots=True, eq=False)
class IdentifierAudit(Result):
    """memU of identifiers under one model, with its evidence, a row for each different identifier.

    A saved folder holds identifiers.parquet (a row an identifier, itself included), draws.parquet (a row a fresh draw)
    and settings.json.

    Attributes:
        index: position in the input of the sample in which each identifier stands first, int64.
        start: position of its first character (of texts) or id (of ids) in that sample, int64.
        found: the identifiers themselves. The printed result shows how they begin, the tables show all of them.
        format_names: the format of each.
        format_bits: what the exact oracle needs, log2 of the number of strings of the format, float64.
        n_texts: samples in which it stands, int64.
        n_tokens: tokens it is charged with, int64; 0 where it cannot be told.
        target_bits: what the model needs for these, float64; NaN where the tokens before the identifier depend on it in
            a way that no probe has shown.
        draw_bits: what it needs for fresh draws in the same place, float64 (identifier, draw); NaN likewise.
        settings: what was decided, by the caller or for the caller.
        about: how the sample of each begins, its id and the columns that were kept; None of an earlier version.

    Examples:
        >>> from memorization import UniformModel, audit_identifiers
        >>> found = audit_identifiers(UniformModel(512), [[1, 2, 3, 4]], "tokens:4x512", progress=False)
        >>> found.format_bits.tolist(), found.signed_bits.tolist()
        ([36.0], [0.0])
    """

    index: Int64[np.ndarray, " identifier"]
    start: Int64[np.ndarray, " identifier"]
    found: list[str]
    format_names: list[str]
    format_bits: Float64[np.ndarray, " identifier"]
    n_texts: Int64[np.ndarray, " identifier"]
    n_tokens: Int64[np.ndarray, " identifier"]
    target_bits: Float64[np.ndarray, " identifier"]
    draw_bits: Float64[np.ndarray, "identifier draw"]
    settings: dict[str, Any]
    about: About | None = None

    @property
    def signed_bits(self) -> Float64[np.ndarray, " identifier"]:
        """memU of each identifier in bits, not clipped: log2 of its e-value."""
        return np.asarray(self.format_bits - self.target_bits)

    @property
    def bits(self) -> Float64[np.ndarray, " identifier"]:
        """memU of each identifier in bits, at least 0: a lower bound of what the model holds of it."""
        return np.maximum(self.signed_bits, 0.0)

    @property
    def draw_signed_bits(self) -> Float64[np.ndarray, "identifier draw"]:
        """Bits as of `signed_bits`, of the fresh draws, which no model has seen."""
        return np.asarray(self.format_bits[:, None] - self.draw_bits)

    @property
    def e_value(self) -> Float64[np.ndarray, " identifier"]:
        """2 to the signed bits: at most 1 in expectation for an identifier that the model has not seen."""
        with np.errstate(over="ignore"):
            return np.asarray(np.exp2(self.signed_bits))

    @property
    def p_value(self) -> Float64[np.ndarray, " identifier"]:
        """1 over the e-value, at most 1: the probability that a string not seen has so many bits is no larger."""
        return np.asarray(np.exp2(-self.bits))

    @property
    def rank_p_value(self) -> Float64[np.ndarray, " identifier"]:
        """(k + 1) / (draws + 1), where the model finds k of the fresh draws as likely; exact for strings not seen."""
        n_draws = self.draw_bits.shape[1]
        if not n_draws:
            return np.full(len(self), np.nan)
        draws = np.nan_to_num(self.draw_bits, nan=np.inf)
        as_likely = (draws <= self.target_bits[:, None]).sum(axis=1)
        return np.where(np.isnan(self.target_bits), np.nan, (as_likely + 1) / (n_draws + 1))

    @property
    def mean_e_value(self) -> float:
        """The mean over all identifiers: an e-value for all together, 1 over it a p-value that none is memorized."""
        return float(np.mean(np.nan_to_num(self.e_value, nan=0.0)))

    @property
    def gain_bits(self) -> float:
        """Mean bits that the model saves on an identifier against a fresh draw in its place; NaN without draws."""
        gains = self._gains()
        return float(gains.mean()) if len(gains) else math.nan

    def q_value(self, by: Literal["e_value", "rank"] = "e_value") -> Float64[np.ndarray, " identifier"]:
        """The lowest false discovery rate at which each identifier is selected as memorized.

        Args:
            by: "e_value" for e-BH, under any dependence; "rank" for Benjamini and Hochberg's procedure on the ranks
                among fresh draws, which sees what a model knows of strings that it still finds unlikely.

        Returns:
            Rates between 0 and 1, one an identifier; NaN where nothing is known.

        Raises:
            InputError: ranks without draws, or another word.
        """
        if by == "e_value":
            return q_of_e_values(self.signed_bits)
        if by != "rank":
            raise InputError(f'by must be "e_value" or "rank"; it is {by!r}.')
        if not self.draw_bits.shape[1]:
            raise InputError("there are no fresh draws to rank among. Measure with n_draws=199.")
        return q_of_p_values(self.rank_p_value)

    def memorized(
        self, fdr: float = _FDR, *, min_bits: float | int = 0, by: Literal["e_value", "rank"] = "e_value"
    ) -> Bool[np.ndarray, " identifier"]:
        """Which identifiers are memorized, wrong ones being a share of at most `fdr` of them in expectation.

        Args:
            fdr: false discovery rate.
            min_bits: of these, only those of which at least so many bits are memorized.
            by: as for `q_value`.

        Returns:
            Bool, one an identifier.

        Raises:
            InputError: a rate outside (0, 1); ranks among too few draws to select even if all were memorized.

        Warns:
            NothingSelectedWarning: none is selected, which shows little: few memorized ones never would be, since the
                format has too few bits, or there are too few draws; or an e-value must first pay back a large debt; or
                no identifier could be measured.
        """
        fdr, n_draws = check_level(fdr, "fdr"), self.draw_bits.shape[1]
        q = self.q_value(by)
        if by == "rank" and 1 / (n_draws + 1) > fdr:
            raise InputError(
                f"a rank among {counted(n_draws, 'draw')} is no p-value below 1/{n_draws + 1}, so none can be "
                "selected at a rate "
                f"of {fdr:g}. Measure with n_draws={math.ceil(1 / fdr) - 1} at the least, or 199."
            )
        chosen = selected(q, fdr)
        if not chosen.any() and (why := self._unseen(fdr, by) or self._unpaid(by)):
            warn(
                f"no identifier is selected, which does not show that none is memorized: {why}", NothingSelectedWarning
            )
        return np.asarray(chosen & (np.nan_to_num(self.signed_bits, nan=-np.inf) >= min_bits))

    def _unseen(self, fdr: float, by: Literal["e_value", "rank"] = "e_value") -> str:
        """What a selection of none cannot exclude; empty where a single memorized identifier could be selected."""
        n, n_draws = len(self), self.draw_bits.shape[1]
        by_draws, most_bits = math.log2(n_draws + 1), float(self.format_bits.max(initial=0.0))
        fewest = fewest_selected(n, -(by_draws if by == "rank" else most_bits), fdr=fdr)
        if fewest == 1:
            return ""
        if by == "rank":
            return (
                f"ranks among {counted(n_draws, 'draw')} never select fewer than {fewest:,} memorized ones of {n:,} "
                "at FDR "
                f"{100 * fdr:g} %; measure with n_draws={math.ceil(n / fdr - 1e-9) - 1} to see a single one"
            )
        told = (
            "none can be selected"
            if fewest > n
            else f"fewer than {fewest:,} memorized ones of {n:,} are never selected"
        )
        return (
            f"an e-value is at most 2^{most_bits:.4g}, of an identifier known by heart, so {told} at FDR "
            f"{100 * fdr:g} %; audit fewer identifiers, or rank them among fresh draws"
        )

    def _unpaid(self, by: Literal["e_value", "rank"]) -> str:
        """Why a selection of none shows little although the strings are long enough; empty where it shows something."""
        if np.isnan(self.target_bits).all():
            return "none could be measured, since the tokens before each depend on it"
        debt = self._debt()
        if by == "rank" or debt <= _LARGE_DEBT:
            return ""
        return (
            f"the model puts so much on strings of other formats that {debt:,.0f} bits must be memorized before an "
            'e-value sees any. Ranks see them: measure with n_draws=199, then memorized(by="rank")'
        )

    def set_p_value(self) -> float:
        """A p-value for all identifiers together: are they likelier than the fresh draws in their places?

        Each identifier changes places with one of its draws by chance; the smallest p is 0.0001. NaN without draws.
        """
        values = np.column_stack([self.target_bits, self.draw_bits])
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values) or values.shape[1] < 2:
            return math.nan
        generator = np.random.default_rng(0)
        gains = values.mean(axis=1, keepdims=True) - values  # of each, were it the identifier
        n_times = min(_PERMUTATIONS, max(199, 50_000_000 // len(gains)))
        rows, observed = np.arange(len(gains)), gains[:, 0].sum()
        by_chance = [gains[rows, generator.integers(gains.shape[1], size=len(gains))].sum() for _ in range(n_times)]
        as_large = np.sum(np.array(by_chance) >= observed - 1e-9 * max(1.0, abs(observed)))
        return float((as_large + 1) / (n_times + 1))

    def documents(self) -> "pd.DataFrame":
        """One row a sample that holds identifiers: sample, n_identifiers, e_value (their mean), q_value.

        An average of e-values is an e-value, under any dependence: that of the text having been memorized in any of its
        identifiers. An identifier counts for the first text that holds it.
        """
        import pandas as pd

        table = pd.DataFrame({"sample": self.index, "e_value": np.nan_to_num(self.e_value, nan=0.0)})
        groups = table.groupby("sample", sort=True)["e_value"]
        found = groups.agg(n_identifiers="size", e_value="mean").reset_index()
        with np.errstate(divide="ignore"):
            found["q_value"] = q_of_e_values(np.log2(found["e_value"].to_numpy(np.float64)))
        return found

    def to_pandas(self) -> "pd.DataFrame":
        """One row an identifier: where it stands, itself, bits, evidence, how its sample begins.

        Where `read_samples` was told of them, id stands behind sample, and the columns that were kept at the end.
        """
        import pandas as pd

        table = pd.DataFrame(
            {
                "sample": self.index,
                "start": self.start,
                "identifier": self.found,
                "format": self.format_names,
                "n_texts": self.n_texts,
                "n_tokens": self.n_tokens,
                "format_bits": self.format_bits,
                "target_bits": self.target_bits,
                "signed_bits": self.signed_bits,
                "bits": self.bits,
                "e_value": self.e_value,
                "p_value": self.p_value,
                "q_value": self.q_value(),
                "rank_p_value": self.rank_p_value,
            }
        )
        return with_about(table, self.about)

    _row_tables: ClassVar[tuple[str, ...]] = ("identifiers",)

    def _tables(self) -> "dict[str, pd.DataFrame]":
        import pandas as pd

        n, n_draws = self.draw_bits.shape
        places = np.repeat(np.arange(n, dtype=np.int64), n_draws)
        draws = pd.DataFrame({"identifier": places, "target_bits": self.draw_bits.ravel()})
        return {"identifiers": self.to_pandas(), "draws": draws}

    def _facts(self) -> dict[str, Any]:
        return self.settings

    @classmethod
    def _from_saved(cls, saved: Saved) -> "IdentifierAudit":
        integers, floats = ("sample", "start", "n_texts", "n_tokens"), ("format_bits", "target_bits")
        table = saved.table("identifiers", (*integers, "identifier", "format", *floats))
        settings = saved.need("n_draws", "seed", "formats", "samples", "model")
        draws = saved.table("draws", ("identifier", "target_bits"))["target_bits"].to_numpy(np.float64)
        if len(draws) != len(table) * settings["n_draws"]:
            raise saved.damaged(
                f"draws.parquet has {counted(len(draws), 'row')} for {counted(len(table), 'identifier')}"
            )
        return cls(
            index=table["sample"].to_numpy(np.int64),
            start=table["start"].to_numpy(np.int64),
            found=table["identifier"].tolist(),
            format_names=table["format"].tolist(),
            **{name: table[name].to_numpy(np.float64) for name in floats},
            **{name: table[name].to_numpy(np.int64) for name in ("n_texts", "n_tokens")},
            draw_bits=draws.reshape(len(table), settings["n_draws"]),
            settings=settings,
            about=saved.about("identifiers"),
        )

    def __len__(self) -> int:
        return len(self.target_bits)

    def __repr__(self) -> str:
        settings, n = self.settings, len(self)
        n_texts = len(set(self.index.tolist()))
        formats = ", ".join(settings["formats"])
        chosen = selected(self.q_value(), _FDR)
        lines = [f"IdentifierAudit of {counted(n, 'identifier')} ({formats}) in {counted(n_texts, 'text')}"]
        words = f"{int(chosen.sum()):,} of {n:,} memorized at FDR {100 * _FDR:g} %"
        if chosen.any():
            words += f", {int((chosen & (self.bits >= 20)).sum()):,} of them by at least 20 bits"
        elif self._unseen(_FDR):
            words = f"cannot tell which: {self._unseen(_FDR)}"
        lines.append(f"  e-BH         {words}")
        lines.append(
            f"  memU         {np.nanmean(self.bits):,.2f} bits in the mean, {np.nanmax(self.bits):,.2f} at the most, "
            f"of {self.format_bits.mean():,.4g} (a lower bound)"
            if np.isfinite(self.signed_bits).any()
            else "  memU         cannot be told of any"
        )
        lines += self._draws_in_words()
        unknown = int(np.isnan(self.target_bits).sum())
        if unknown:
            lines.append(f"  cannot tell  {unknown:,}: the tokens before them depend on them")
        for name, key, why in (
            ("made up", "n_made_up", "look like examples, and were left out"),
            ("given away", "n_given_away", "stand in the text before, at least how they begin, and were left out"),
        ):
            if settings.get(key):
                lines.append(f"  {name:<13}{settings[key]:,} {why}")
        lines.append("  most memorized (the rest of each is in to_pandas())")
        order = np.argsort(-np.nan_to_num(self.signed_bits, nan=-np.inf), kind="stable")[:5]
        lines += [
            f"    sample {self.index[i]:>7}, {visible(self.found[i][:_SHOWN])}...: memU {self.bits[i]:>8.2f} of "
            f"{self.format_bits[i]:.4g} bits"
            for i in order
        ]
        lines.append(f"  first token  {describe_first_token(settings['first_token'])}")
        lines.append(f"  model        {describe_model(settings['model'])}")
        lines += left_out({"samples": settings["samples"]})
        return "\n".join(lines)

    def _gains(self) -> np.ndarray:
        gains = self.draw_bits.mean(axis=1) - self.target_bits if self.draw_bits.shape[1] else np.zeros(0)
        return np.asarray(gains[np.isfinite(gains)])

    def _debt(self) -> float:
        """Bits by which fresh draws cost more than the exact oracle needs, in places of identifiers not selected."""
        # Where an identifier is memorized, every other string is dear for that.
        elsewhere = self.draw_signed_bits[~selected(self.q_value(), _FDR)]
        return -float(np.nanmean(elsewhere)) if np.isfinite(elsewhere).any() else 0.0

    def _p_in_words(self) -> str:
        """The p-value of all together; that nothing can be told by it where none can be small."""
        n = int(np.isfinite(np.column_stack([self.target_bits, self.draw_bits])).all(axis=1).sum())
        least = (1 + self.draw_bits.shape[1]) ** -float(n)  # so many ways there are to change places
        if least > _FDR:
            return f"cannot tell whether by chance: with so few no p-value is below {least:.2g}"
        return f"p = {self.set_p_value():.2g}"

    def _draws_in_words(self) -> list[str]:
        """What fresh draws came to, and whether e-values could see little: where draws are far below 0."""
        if not self.draw_bits.shape[1] or not np.isfinite(self.draw_bits).any():
            return ["  fresh draws  none: whether a low memU is the model's debt to the format is unknown"]
        level = float(np.nanmean(self.draw_signed_bits))
        lines = [
            f"  fresh draws  {level:,.2f} bits (signed) in the mean; identifiers {self.gain_bits:,.2f} above them, "
            f"{self._p_in_words()}"
        ]
        debt = self._debt()
        if debt > _LARGE_DEBT:
            lines += [
                f"  debt         of the others {debt:,.0f} bits must be memorized before an e-value sees any: so much",
                "               does the model put on other strings. Ranks see them: measure with n_draws=199, then",
                '               memorized(by="rank")',
            ]
        return lines
