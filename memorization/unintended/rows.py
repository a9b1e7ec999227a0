"""`Memorization` by rows: the most memorized ones, means by a column that was kept, one sample token by token."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from memorization.errors import InputError
from memorization.integers import as_integer, check_integer
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.rows import places_by
from memorization.results import About, Pictured, visible
from memorization.results.rows import Rows
from memorization.stats.levels import Interval
from memorization.stats.means import difference_interval, mean_interval
from memorization.stats.significance import selected
from memorization.unintended.means import labels_of_both
from memorization.unintended.selection import Selection

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from memorization.unintended.control import Control

__all__ = ["RowsOfMemorization", "TokenBits"]

_FDR = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class TokenBits(Pictured):
    """One sample token by token under two models, to be drawn.

    Attributes:
        target: code lengths under the target.
        oracle: under the oracle.
        place: of the sample among those measured.
        tokens: texts of the coded tokens; None numbers them.
        title: which sample it is.
    """

    target: CodeLengths
    oracle: CodeLengths
    place: int
    tokens: list[str] | None
    title: str


class RowsOfMemorization(Selection, Rows):
    """What `Memorization` says of single samples, and of parts of them."""

    __slots__ = ()

    oracle: CodeLengths
    control: "Control | None"

    def _rows_at(self, places: range | Int64[np.ndarray, " some"]) -> "pd.DataFrame":
        """These rows of `to_pandas`, whose names are their places."""
        raise NotImplementedError

    def top(self, n: int = 10, *, repeats: bool = False) -> "pd.DataFrame":
        """The n most memorized samples by signed memU, in bits a sample, highest first.

        Args:
            n: rows; fewer come where there are fewer samples.
            repeats: False shows equal samples once, by the first of them; True shows each.

        Returns:
            The columns of `to_pandas`, and copies: how many samples here are equal to it, itself counted. The rows'
            names are their places in this result, as `plot_tokens` and `result[i]` take them.

        Raises:
            InputError: n is no integer of at least 1.

        Examples:
            >>> import torch
            >>> from memorization import UniformModel, unintended_memorization
            >>> counts = lambda ids: 9 * torch.nn.functional.one_hot((ids + 1) % 16, 16).float()
            >>> found = unintended_memorization(counts, UniformModel(16), [[1, 9, 3], [1, 2, 3], [1, 2, 3]])
            >>> found.top(2)[["sample", "copies"]].values.tolist()
            [[1, 2], [0, 1]]
        """
        n = check_integer("n", n)
        equal = self.equal
        order = np.argsort(-self.signed_bits, kind="stable")
        if not repeats:
            order = order[np.isin(order, self.first_of_each)]
        counts = np.bincount(equal)[equal]
        table = self._rows_at(order[:n])
        table.insert(list(table.columns).index("bits"), "copies", counts[order[:n]])
        return table

    def by(self, column: str) -> "pd.DataFrame":
        """memU of the samples by a column that was kept, in bits a sample, the most memorized first.

        Args:
            column: kept by `read_samples(..., keep=[...])`; or "group", where documents are known.

        Returns:
            One row a value of the column, one of which may be missing: the value; n, samples; mean_bits, mean memU,
            with low and high, its 95 % interval; mean_signed_bits. With a control net_bits, mean memU over the
            control's, with net_low and net_high; and memorized_share, the share of these samples that `memorized`
            selects among all samples at a false discovery rate of 5 %, NaN where so few controls could not select any.
            Intervals are of documents where these are known, and NaN of one sample or document.

        Raises:
            InputError: no such column was kept.

        Examples:
            >>> from memorization import UniformModel, read_samples, unintended_memorization
            >>> rows = [{"input_ids": [1, 2], "source": "a"}, {"input_ids": [3, 4], "source": "b"}]
            >>> seen = read_samples(rows, keep=["source"])
            >>> found = unintended_memorization(UniformModel(16), UniformModel(16), seen)
            >>> found.by("source")[["source", "n", "mean_signed_bits"]].values.tolist()
            [['a', 1, 0.0], ['b', 1, 0.0]]
        """
        import pandas as pd

        sets = places_by(self.target, self.groups, column)
        rows = [{column: value, **self._figures_of(places)} for value, places in sets]
        return pd.DataFrame(rows).sort_values("mean_bits", ascending=False, kind="stable", ignore_index=True)

    def _figures_of(self, places: Int64[np.ndarray, " member"]) -> dict[str, Any]:
        bits, documents = self.bits[places], self.documents
        own = None if documents is None else documents[places]
        low, high = mean_interval(bits, groups=own)
        figures = {
            "n": len(places),
            "mean_bits": float(bits.mean()),
            "low": max(low, 0.0) if bits.min() >= 0 else low,
            "high": high,
            "mean_signed_bits": float(self.signed_bits[places].mean()),
        }
        control = self.control
        if control is None:
            return figures
        net = _over(control.bits, control.documents, bits, own)
        chosen = self._selected
        return figures | {
            "net_bits": float(bits.mean() - control.bits.mean()),
            "net_low": net.low,
            "net_high": net.high,
            "memorized_share": math.nan if chosen is None else float(chosen[places].mean()),
        }

    @property
    def _selected(self) -> np.ndarray | None:
        """What is selected at 5 %; None where that nothing is shows nothing."""
        if self._too_few(_FDR):
            return None
        chosen = selected(self.q_values, _FDR)
        return None if not chosen.any() and self._unseen(_FDR) else np.asarray(chosen)

    def plot_tokens(
        self, i: int, ax: "Axes | None" = None, *, tokens: list[str] | None = None, tokenizer: Any = None
    ) -> "Axes":
        """Draw the ideal bits of each token of one sample under target and oracle.

        Args:
            i: place of the sample in this result, counted from 0: the name of its row in `to_pandas` and `top`.
            ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.
            tokens: text of each coded token, for the x-axis; None numbers them.
            tokenizer: gives these texts, where target and oracle have the same tokens: any object with `decode`.

        Returns:
            The Axes.

        Raises:
            InputError: there is no such sample; or the tokens of the two models cannot be compared.
        """
        place = as_integer(i)
        if place is None or not -len(self) <= place < len(self):
            raise InputError(f"sample {i!r} was asked for, and there are {len(self)}, counted from 0.")
        place %= len(self)
        ids, others = (one._window(place, place + 1).token_ids for one in (self.target, self.oracle))
        if tokens is None and tokenizer is not None and np.array_equal(ids, others):
            tokens = [str(tokenizer.decode([one])) for one in ids.tolist()]
        about: About | None = self.target._about_at(range(place, place + 1))
        named = "" if about is None or about.row_ids is None else f", id {visible(about.row_ids[0], 60)}"
        title = f"sample {self.target.index[place]}{named}"
        return TokenBits(self.target, self.oracle, place, tokens, title).plot(ax)

    def _first_shown(self) -> tuple[str, "pd.DataFrame"]:
        return "the most memorized samples", self.top()


def _over(
    control_bits: Float64[np.ndarray, " control"],
    control_documents: Shaped[np.ndarray, " control"] | None,
    bits: Float64[np.ndarray, " member"],
    documents: Shaped[np.ndarray, " member"] | None,
) -> Interval:
    """Interval of the mean of bits over that of the control."""
    groups = labels_of_both(documents, control_documents, (len(bits), len(control_bits)))
    return difference_interval(bits, control_bits, groups=groups)
