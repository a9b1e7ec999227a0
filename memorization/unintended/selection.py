"""Which samples are memorized: p-values against the control, and selection at a false discovery rate."""

import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float64

from memorization.errors import InputError, NothingSelectedWarning, warn
from memorization.integers import as_number
from memorization.results import counted
from memorization.stats.levels import check_level
from memorization.stats.significance import (
    conformal_p_values,
    controls_needed,
    fewest_selected,
    least_permutation_p_value,
    permutation_p_value,
    q_of_p_values,
    selected,
)
from memorization.unintended.means import Means, labels_of_both

if TYPE_CHECKING:
    from memorization.unintended.control import Control
    from memorization.unintended.ladder import Sets

__all__ = ["Selection"]

_FDR = 0.05
_WORTH_TELLING = 20  # bits: as sure as one in a million


class Selection(Means):
    """What a control says of each sample. Scores are signed ideal bits: rounding of the coder is no evidence."""

    __slots__ = ()

    ideal_signed_bits: Float64[np.ndarray, " sample"]
    control: "Control | None"
    other_oracles: tuple["Sets", ...]

    @property
    def p_values(self) -> Float64[np.ndarray, " sample"]:
        """p-value of each sample against the control (`stats.significance.conformal_p_values`); NaN without one."""
        return self._once("p_values", self._p_values)

    def _p_values(self) -> Float64[np.ndarray, " sample"]:
        if self.control is None:
            return np.full(len(self.bits), math.nan)
        scores = self.ideal_signed_bits, self.control.ideal_signed_bits
        return conformal_p_values(*scores, groups=self._groups_of_both())

    def _groups_of_both(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Documents of samples and control. A text that stands in the control twice says as much as one of it."""
        assert self.control is not None
        # A sample that comes again is one text, compared with the control once: so it is no document of equal samples.
        ours = None if self.groups is None else self.documents
        return labels_of_both(ours, self.control.documents, (len(self.bits), len(self.control.bits)))

    @property
    def q_values(self) -> Float64[np.ndarray, " sample"]:
        """The lowest false discovery rate at which each sample is selected as memorized; NaN without a control."""
        return self._once("q_values", self._q_values)

    def _q_values(self) -> Float64[np.ndarray, " sample"]:
        return q_of_p_values(self.p_values) if self.control is not None else self.p_values

    @property
    def set_p_value(self) -> float:
        """One p-value for all samples together, by permutation of samples and control; NaN without a control.

        Small where the target knows the samples better than unseen ones, beyond what the oracle does. It says that
        something was memorized, not how much. Whole documents change sides where `groups` are known; where they are
        not, samples that are parts of one document make it too small. A sample that is the same as an earlier one does
        not count. Of k oracles the one that is best on the control was taken, against which the control looks worse
        than it would against another: so p is k times as large (Bonferroni).
        """
        return self._once("set_p_value", self._set_p_value)

    def _set_p_value(self) -> float:
        if self.control is None:
            return math.nan
        ours, theirs = self.first_of_each, self.control.first_of_each
        scores = self.ideal_signed_bits[ours], self.control.ideal_signed_bits[theirs]
        groups = None
        if self.groups is not None and self.control.groups is not None:
            groups = np.asarray(self.groups)[ours], np.asarray(self.control.groups)[theirs]
        return min(1.0, (1 + len(self.other_oracles)) * permutation_p_value(*scores, groups=groups))

    def _no_set_p_value_below(self, level: float) -> str:
        """Why `set_p_value` cannot be at most `level`, whatever was memorized, in words; empty where it can."""
        if self.control is None:
            return ""
        both = self.n_independent, self.control.n_independent
        least = min(1.0, (1 + len(self.other_oracles)) * least_permutation_p_value(*both))
        if least <= level:
            return ""
        each = [counted(one.n_independent, one.unit.removesuffix("s")) for one in (self, self.control)]
        return f"with {each[0]} and {each[1]} of the control no p-value for all together is below {least:.2g}"

    def memorized(self, fdr: float = _FDR, *, min_bits: float | int = 0) -> Bool[np.ndarray, " sample"]:
        """Which samples are memorized, wrong ones being a share of at most `fdr` of the selection in expectation.

        Args:
            fdr: false discovery rate, between 0 and 1. It holds for the selection without `min_bits`.
            min_bits: of the selected, only those with memU of at least so many bits.

        Returns:
            One truth value a sample, in the order of `bits`.

        Raises:
            InputError: there is no control, or one too small to select anything; a rate outside (0, 1).

        Warns:
            NothingSelectedWarning: none is selected, and with so many controls few memorized ones never would be.

        Source:
            Benjamini and Hochberg on the p-values of Bates et al., arXiv:2104.08279: valid where a sample that was not
            memorized is exchangeable with the control.
        """
        rate, least = check_level(fdr, "fdr"), as_number(min_bits)
        if math.isnan(least):
            raise InputError(f"min_bits must be a number of bits, such as 20; it is {min_bits!r}.")
        if self.control is None:
            raise InputError(
                "there is no control, so nothing says what unseen samples look like. Measure with control=, at least "
                f"{counted(controls_needed(len(self.bits), fdr=rate), 'different control sample')}."
            )
        too_few = self._too_few(rate)
        if too_few:
            raise InputError(f"{too_few}.")
        chosen = selected(self.q_values, rate)
        if not chosen.any() and self._unseen(rate):
            warn(
                f"no sample is selected, which does not show that none is memorized: {self._unseen(rate)}",
                NothingSelectedWarning,
            )
        return np.asarray(chosen & (self.bits >= least))

    def _too_few(self, fdr: float) -> str:
        """Why no sample could be selected however well it is memorized; empty where one could."""
        assert self.control is not None
        n_control, n_needed = self.control.n_independent, controls_needed(len(self.bits), fdr=fdr)
        if n_control >= n_needed:
            return ""
        return (
            f"the control is too small: {self._controls_came()}, so no p-value is below 1/{n_control + 1} and nothing "
            f"can be selected at FDR {100 * fdr:g} %. It takes {counted(n_needed, f'different control {self._unit()}')}"
            " if all samples are memorized, 10 times as many if a tenth is"
        )

    def _unit(self) -> str:
        assert self.control is not None
        return self.control.unit.removesuffix("s")

    def _controls_came(self) -> str:
        """How many came, and how many of them differ."""
        assert self.control is not None
        came, n_control = len(self.control.bits), self.control.n_independent
        if self.control.groups is not None:
            return f"{counted(came, 'control sample')} of {counted(n_control, 'document')} came"
        told = f"{counted(came, 'control sample')} came"
        return told if came == n_control else f"{told}, {n_control:,} of them different"

    def _unseen(self, fdr: float) -> str:
        """What a selection of none cannot exclude; empty where a single memorized sample could be selected."""
        assert self.control is not None
        n, n_control, unit = len(self.bits), self.control.n_independent, f"different control {self._unit()}"
        fewest, n_needed = fewest_selected(n, -math.log2(n_control + 1), fdr=fdr), n / fdr - 1
        told = f"{self._controls_came()}, with which fewer than {fewest:,} memorized ones of {n:,} are never selected"
        if self.groups is not None and self.documents is not None:
            longest, size = int(np.unique(self.documents, return_counts=True)[1].max()), len(self.control.bits)
            of_longest = fewest_selected(n, math.log2(longest / (longest + size)), fdr=fdr)
            if of_longest > fewest:
                fewest, n_needed = of_longest, n_needed * longest * n_control / size
                told += f" (of the longest document, fewer than {fewest:,})"
        if fewest == 1:
            return ""
        return (
            f"{told} at FDR {100 * fdr:g} %; {counted(math.ceil(n_needed - 1e-9), unit)} would let a single one be seen"
        )

    def selection_lines(self, *, is_weak: bool) -> list[str]:
        """What is selected, as lines of a result's table; `is_weak`: the oracle."""
        if self.control is None:
            return []
        too_few = self._too_few(_FDR)
        if too_few:
            return [f"  memorized    cannot tell which samples: {too_few}"]
        chosen = selected(self.q_values, _FDR)
        n, n_far = int(chosen.sum()), int((chosen & (self.bits >= _WORTH_TELLING)).sum())
        told = f"{n:,} of {len(self.bits):,} samples at FDR {100 * _FDR:g} %"
        if n:
            told += f", {n_far:,} of them by at least {_WORTH_TELLING} bits"
            if is_weak:
                told += " (the oracle is weak: it may be generalization)"
        elif self._unseen(_FDR):
            told = f"cannot tell which samples: {self._unseen(_FDR)}"
        together = self._no_set_p_value_below(_FDR)
        p = f"p = {self.set_p_value:.2g}" if not together else f"cannot tell: {together}"
        return [f"  memorized    {told}; for all together {p}"]
