"""The law itself: constants with errors, predictions of F1, and the inverse."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from memorization.errors import InputError
from memorization.results import Result, Saved, number
from memorization.scaling_law.least_squares import f1_at
from memorization.scaling_law.points import Covariate, numbers_of, ratios_of, sizes_of
from memorization.stats.arrays import ArrayLike

if TYPE_CHECKING:
    import pandas as pd

_CONSTANTS = ("c1", "c2", "c3")
_POINTS = ("capacity", "dataset_size", "f1", "weight")
_FACTS = ("covariate", "capacity_unit", "dataset_unit", "settings")


@dataclass(frozen=True, slots=True, eq=False)
class MIScalingLaw(Result):
    """F1 of membership inference as a law: 1/2 (1 + c1 sigmoid(c2 (x + c3))).

    x is a ratio of data-set size and capacity, in the stated units.

    A saved folder holds law.parquet (a row a constant), points.parquet (a row a point, where fitted) and settings.json
    (the rest).

    Attributes:
        c1: twice the height of F1 above 0.5 where the sigmoid is 1; no unit.
        c2: steepness, in 1 / x. Below 0 for "data/capacity": F1 falls as the data grow.
        c3: minus the ratio at which the sigmoid is 1/2, in x.
        stderr: of c1, c2, c3; NaN where unknown or not identified.
        covariance: of c1, c2, c3; NaN where stderr is NaN.
        covariate: what x is: "data/capacity" or "capacity/data".
        capacity_unit: unit of every capacity handed to this law.
        dataset_unit: unit of every data-set size, handed in or returned.
        residual: standard deviation of F1 around the law, sqrt(sum of w r^2 / (n - 3)) with weights of mean 1; NaN
            where unknown.
        points: what was fitted, a row a point: capacity, dataset_size, f1, weight; None for a law that was not fitted
            here.
        settings: what was decided, by the caller or for the caller.
    """

    c1: float
    c2: float
    c3: float
    stderr: Float64[np.ndarray, " constant"]
    covariance: Float64[np.ndarray, "constant constant"]
    covariate: Covariate
    capacity_unit: str
    dataset_unit: str
    residual: float
    points: "pd.DataFrame | None" = None
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def published(cls) -> "MIScalingLaw":
        """The law of arXiv:2505.24832, corrected: c1 = 1.34, c2 = -33.14, c3 = -0.034.

        x is samples of 64 tokens / parameters.

        The paper prints c2 = -0.034 and c3 = -33.14 and puts capacity / data in the place of x. So read, F1 rises with
        the data-set size, the opposite of what the paper measures and says. And whatever the unit of capacity, its
        limit for large data is 1.006, more than F1 can be, where chance (0.5) belongs. 1.006 is the value of the
        intended law at the *other* end, x = 0, which gives the error away: the ratio is upside down, and the two
        constants have changed places. With data / capacity, and c2 and c3 swapped, the law gives 0.55, 0.75 and 0.95 at
        the six data-set sizes that the paper (table 2) computed from it for two models. Solved for all six at once the
        constants are 1.34048, -33.1363 and -0.033678, which round to the printed ones. The capacity in that ratio is
        the count of parameters, not bits, and the data are counted in samples of 64 tokens.

        The paper prints no errors, so they are NaN here. It clips nothing: near x = 0 the formula exceeds 1, which
        `predict` cuts off.

        Examples:
            >>> law = MIScalingLaw.published()
            >>> law.predict(1_556_075_200, 76_795_021).round(2).item()  # GPT-2 XL, with the rounded constants
            0.75
        """
        unknown = np.full((3, 3), np.nan)
        return cls(
            c1=1.34,
            c2=-33.14,
            c3=-0.034,
            stderr=unknown[0],
            covariance=unknown,
            covariate="data/capacity",
            capacity_unit="parameters",
            dataset_unit="samples of 64 tokens",
            residual=math.nan,
            settings={"source": "arXiv:2505.24832, ratio and constants corrected"},
        )

    def predict(self, capacity: ArrayLike, dataset_size: ArrayLike) -> Float64[np.ndarray, "*shape"]:
        """F1 of a loss-threshold attack, clipped to [0.5, 1].

        Args:
            capacity: in capacity_unit, one or many.
            dataset_size: in dataset_unit, one or many.

        Returns:
            F1, float64, in the common shape.

        Raises:
            InputError: a size that is not positive.
        """
        ratio = ratios_of(sizes_of("capacity", capacity), sizes_of("dataset_size", dataset_size), self.covariate)
        return np.asarray(np.clip(self._f1(ratio), 0.5, 1.0))

    def dataset_size(self, capacity: ArrayLike, f1: ArrayLike) -> Float64[np.ndarray, "*shape"]:
        """Data-set size, in dataset_unit, at which a model of this capacity has this F1; the inverse of `predict`.

        Args:
            capacity: in capacity_unit, one or many.
            f1: above 0.5 and below the law's maximum, one or many.

        Returns:
            Data-set sizes, float64, in the common shape.

        Raises:
            InputError: a capacity that is not positive, or an F1 that the law has at no data-set size, or at more than
                one.

        Examples:
            >>> law = MIScalingLaw.published()
            >>> size = law.dataset_size(123_702_528, 0.95).item()  # the paper, with unrounded constants: 1,498,634
            >>> round(size / 1e6, 2)
            1.53
        """
        size = sizes_of("capacity", capacity)
        wanted = numbers_of("f1", f1)
        lowest, highest = self._range()
        wrong = np.flatnonzero(~((wanted > lowest) & (wanted < highest)))
        if len(wrong):
            raise InputError(
                f"this law has an F1 above {lowest:.4g} and below {highest:.4g} where it can be inverted (0.5 is "
                f"chance, and F1 is clipped at 1); {wanted.flat[wrong[0]]:.6g} came (entry {wrong[0]})."
            )
        share = (2 * wanted - 1) / self.c1
        ratio = np.log(share / (1 - share)) / self.c2 - self.c3
        return np.asarray(size * ratio if self.covariate == "data/capacity" else size / ratio)

    def interval(self, level: float = 0.95) -> Float64[np.ndarray, "constant end"]:
        """Lower and upper ends of the intervals of c1, c2 and c3.

        Student's t with n - 3 degrees of freedom, times stderr; NaN where stderr is NaN.

        Raises:
            InputError: a level outside (0, 1).
        """
        if not 0 < level < 1:
            raise InputError(f"level must lie between 0 and 1, such as 0.95; it is {level}.")
        from scipy.special import stdtrit

        df = 0 if self.points is None else len(self.points) - 3
        half = self.stderr * (stdtrit(df, (1 + level) / 2) if df else math.nan)
        constants = np.array([self.c1, self.c2, self.c3])
        return np.stack([constants - half, constants + half], axis=1)

    def to_pandas(self) -> "pd.DataFrame":
        """One row a constant: its name, value, stderr, 95 % interval (low, high), and covariance with c1, c2, c3."""
        import pandas as pd

        ends = self.interval()
        columns: dict[str, Any] = {
            "constant": list(_CONSTANTS),
            "value": [self.c1, self.c2, self.c3],
            "stderr": self.stderr,
            "low": ends[:, 0],
            "high": ends[:, 1],
        }
        return pd.DataFrame({**columns, **{f"covariance_{c}": self.covariance[:, k] for k, c in enumerate(_CONSTANTS)}})

    def _tables(self) -> "dict[str, pd.DataFrame]":
        return {"law": self.to_pandas()} | ({} if self.points is None else {"points": self.points})

    def _facts(self) -> dict[str, Any]:
        facts = {name: getattr(self, name) for name in _FACTS}
        return {**facts, "residual": self.residual, "has_points": self.points is not None}

    @classmethod
    def _from_saved(cls, saved: Saved) -> "MIScalingLaw":
        facts = saved.need(*_FACTS, "residual", "has_points")
        columns = [f"covariance_{c}" for c in _CONSTANTS]
        table = saved.table("law", ("constant", "value", "stderr", *columns))
        if tuple(table["constant"]) != _CONSTANTS:
            raise saved.damaged(f"law.parquet must have the rows {', '.join(_CONSTANTS)}")
        c1, c2, c3 = (float(value) for value in table["value"])
        return cls(
            c1=c1,
            c2=c2,
            c3=c3,
            stderr=table["stderr"].to_numpy(np.float64),
            covariance=table[columns].to_numpy(np.float64),
            residual=number(facts["residual"]),
            points=saved.table("points", _POINTS) if facts["has_points"] else None,
            **{name: facts[name] for name in _FACTS},
        )

    def __repr__(self) -> str:
        lines = [
            "MIScalingLaw: F1 = 1/2 (1 + c1 sigmoid(c2 (x + c3))), clipped to [0.5, 1]",
            f"  x            {self.ratio_in_words}",
        ]
        ends = self.interval()
        for k, name in enumerate(_CONSTANTS):
            known = f"+- {self.stderr[k]:.2g}; 95 % interval [{ends[k, 0]:.4g}, {ends[k, 1]:.4g}]"
            error = "standard error unknown" if math.isnan(self.stderr[k]) else known
            lines.append(f"  {name}           {getattr(self, name):.5g} ({error})")
        if self.points is not None:
            lines.append(f"  fit          {len(self.points)} points, F1 scatters by {self.residual:.2g} around the law")
        lines += [f"  {name:<13}{self.settings[name]}" for name in ("source", "errors") if name in self.settings]
        if "not_identified" in self.settings:
            lines.append(f"  NOT IDENTIFIED: {self.settings['not_identified']}")
        return "\n".join(lines)

    @property
    def ratio_in_words(self) -> str:
        """What x is, with units."""
        data, capacity = f"data-set size ({self.dataset_unit})", f"capacity ({self.capacity_unit})"
        return f"{data} / {capacity}" if self.covariate == "data/capacity" else f"{capacity} / {data}"

    def _f1(self, ratio: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
        return f1_at(np.array([self.c1, self.c2, self.c3]), ratio)

    def _range(self) -> tuple[float, float]:
        """F1 at ratios of 0 and infinity, lower first, within (0.5, 1)."""
        ends = self._f1(np.array([0.0, np.inf]))
        return max(0.5, float(ends.min())), min(1.0, float(ends.max()))
