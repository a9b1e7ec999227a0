"""The law itself: constants with errors, predictions of F1, and the inverse."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64

from memorization.errors import ExtrapolationWarning, InputError, warn
from memorization.results import Result, Saved, counted, number
from memorization.scaling_law.checks import LackOfFit
from memorization.scaling_law.forms import CURVES, Form, clipped
from memorization.scaling_law.points import Covariate, numbers_of, ratios_of, sizes_of
from memorization.stats.arrays import ArrayLike

if TYPE_CHECKING:
    import pandas as pd

_CONSTANTS = ("c1", "c2", "c3", "r0", "k")  # of all forms
_POINTS = ("capacity", "dataset_size", "f1", "weight")
_FACTS = ("covariate", "capacity_unit", "dataset_unit", "settings")
_ROUNDING = 1e-9  # a ratio as near to the outermost point as this is that point's


@dataclass(frozen=True, slots=True, eq=False)
class MIScalingLaw(Result):
    """F1 of membership inference as a law: 1/2 (1 + c1 sigmoid(c2 (x + c3))), or another form, clipped to [0.5, 1].

    x is a ratio of data-set size and capacity, in the stated units.

    A saved folder holds law.parquet (a row a constant), points.parquet (a row a point, where fitted) and settings.json
    (the rest).

    Attributes:
        c1: twice the height of F1 above 0.5 where the sigmoid is 1; no unit. c1, c2 and c3 are NaN in other forms than
            the logistic.
        c2: steepness, in 1 / x. Below 0 for "data/capacity": F1 falls as the data grow.
        c3: minus the ratio at which the sigmoid is 1/2, in x.
        stderr: of the form's constants, in the order of `constants`; NaN where unknown or not identified.
        covariance: of the same; NaN where stderr is NaN.
        covariate: what x is: "data/capacity" or "capacity/data".
        capacity_unit: unit of every capacity handed to this law.
        dataset_unit: unit of every data-set size, handed in or returned.
        residual: standard deviation of F1 around the law, sqrt(sum of w r^2 / (n - constants)) with weights of
            mean 1; NaN where unknown.
        points: what was fitted, a row a point: capacity, dataset_size, f1, weight, and n_evaluated where given; None
            for a law that was not fitted here.
        settings: what was decided, by the caller or for the caller.
        form: "logistic"; "hill", 1/2 (1 + 1 / (1 + (x / r0)^k)); or "probit", Phi((r0 / x)^k).
        r0: the ratio at which F1 is 3/4 ("hill") or Phi(1) = 0.841 ("probit"), in x; NaN in the logistic form.
        k: exponent, no unit: above 0 for "data/capacity", below 0 for "capacity/data"; NaN in the logistic form.
        left_out_residual: root mean square of F1 around the law fitted without models of the same capacity: what a
            model of a new size is to expect. NaN where all have one size, or where it is unknown.

    Examples:
        >>> from memorization import MIScalingLaw
        >>> law = MIScalingLaw.published()
        >>> round(law.predict(1.5e9, 78_125_000).item(), 4)
        0.7375
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
    form: Form = "logistic"
    r0: float = math.nan
    k: float = math.nan
    left_out_residual: float = math.nan

    @property
    def constants(self) -> dict[str, float]:
        """The form's constants by their names: c1, c2 and c3, or r0 and k."""
        return {name: getattr(self, name) for name in CURVES[self.form].names}

    @property
    def ratios(self) -> tuple[float, float]:
        """The lowest and the highest x at which F1 was measured; NaN where unknown. Beyond them the law is a guess."""
        if self.points is None:
            low, high = self.settings.get("ratios", (math.nan, math.nan))
            return float(low), float(high)
        x = self._ratio(self.points["capacity"].to_numpy(), self.points["dataset_size"].to_numpy())
        return float(x.min()), float(x.max())

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
        `predict` cuts off. Nor does it print the points it was fitted to; `ratios` are those of table 2, at which the
        paper measured what its law predicts.

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
            settings={"source": "arXiv:2505.24832, ratio and constants corrected", "ratios": [0.012, 0.11]},
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

        Warns:
            ExtrapolationWarning: some lie beyond the points of the law, where 0.5000 is how a formula ends and no
                measurement. `attack_ceiling` says what is certain there.
        """
        ratio = self._ratio(sizes_of("capacity", capacity), sizes_of("dataset_size", dataset_size))
        outside = ratio[self._beyond(ratio)]
        if len(outside):
            low, high = self.ratios
            warn(
                f"F1 at a ratio of {outside[0]:.3g}{f' ({len(outside)} such)' if len(outside) > 1 else ''} is "
                f"extrapolated: the law has points from {low:.3g} to {high:.3g}. Its value there, 0.5 included, is no "
                "measurement; attack_ceiling gives the most that any attack can reach.",
                ExtrapolationWarning,
            )
        return self.curve(ratio)

    def curve(self, x: ArrayLike) -> Float64[np.ndarray, "*shape"]:
        """F1 of the formula at ratios x, clipped to [0.5, 1], with or without points near: for pictures.

        Raises:
            InputError: a ratio that is not positive.
        """
        return clipped(self._f1(sizes_of("x", x)))

    def within_points(self, capacity: ArrayLike, dataset_size: ArrayLike) -> Bool[np.ndarray, "*shape"]:
        """Whether F1 of these sizes lies among the points of the law: False where it would be extrapolated.

        False everywhere if the law does not know where its points were.

        Args:
            capacity: in the law's capacity_unit.
            dataset_size: in its dataset_unit.

        Returns:
            Bool, of the shape that both are broadcast to.

        Raises:
            InputError: a size that is not positive.
        """
        ratio = self._ratio(sizes_of("capacity", capacity), sizes_of("dataset_size", dataset_size))
        known = not math.isnan(self.ratios[0])
        return np.asarray(~self._beyond(ratio) & known)

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
        ratio = CURVES[self.form].inverse(self._array(), wanted)
        return np.asarray(size * ratio if self.covariate == "data/capacity" else size / ratio)

    def interval(self, level: float = 0.95) -> Float64[np.ndarray, "constant end"]:
        """Lower and upper ends of the intervals of the form's constants, in the order of `constants`.

        Student's t with n - constants degrees of freedom, times stderr; NaN where stderr is NaN.

        Raises:
            InputError: a level outside (0, 1).
        """
        if not 0 < level < 1:
            raise InputError(f"level must lie between 0 and 1, such as 0.95; it is {level}.")
        from scipy.special import stdtrit

        constants = self._array()
        df = 0 if self.points is None else len(self.points) - len(constants)
        half = self.stderr * (stdtrit(df, (1 + level) / 2) if df else math.nan)
        return np.stack([constants - half, constants + half], axis=1)

    def lack_of_fit(self) -> LackOfFit:
        """Whether the points scatter around this form by more than counting samples explains.

        The noise of each F1 is F1 (1 - F1) / (n_evaluated - 1). The chi-square is the smallest that any constants of
        the form reach, so it speaks of the form: a small p-value says that F1 does not follow this curve in this
        ratio. Points stuck at 1 are left out. chi_square and p_value are NaN where no degree of freedom is left.

        Returns:
            chi_square, df and p_value.

        Raises:
            InputError: the law was fitted without n_evaluated, or not fitted here.

        Guarantees:
            Of 250 simulated truths of each kind, 3.6 to 7.2 % were refused at 5 % (14 points of 400 or 2,048 samples);
            11.6 % of one kind, a logistic that runs into the clip, measured on 400 samples a point: doubt p near 0.05
            there.
        """
        if "lack_of_fit" not in self.settings:
            raise InputError(
                "lack of fit needs the number of samples that each F1 was measured on: pass n_evaluated= (members and "
                "non-members together) to fit_mi_scaling_law, or the column n_evaluated to mi-law fit."
            )
        found = self.settings["lack_of_fit"]
        return LackOfFit(number(found["chi_square"]), int(found["df"]), number(found["p_value"]))

    def to_pandas(self) -> "pd.DataFrame":
        """One row a constant: its name, value, stderr, 95 % interval (low, high), and its covariance with each."""
        import pandas as pd

        ends, names = self.interval(), list(self.constants)
        columns: dict[str, Any] = {
            "constant": names,
            "value": self._array(),
            "stderr": self.stderr,
            "low": ends[:, 0],
            "high": ends[:, 1],
        }
        return pd.DataFrame({**columns, **{f"covariance_{c}": self.covariance[:, k] for k, c in enumerate(names)}})

    def _tables(self) -> "dict[str, pd.DataFrame]":
        return {"law": self.to_pandas()} | ({} if self.points is None else {"points": self.points})

    def _facts(self) -> dict[str, Any]:
        facts = {name: getattr(self, name) for name in (*_FACTS, "form", "residual", "left_out_residual")}
        return {**facts, "has_points": self.points is not None}

    @classmethod
    def _from_saved(cls, saved: Saved) -> "MIScalingLaw":
        facts = saved.need(*_FACTS, "residual", "has_points")
        form = facts.get("form", "logistic")  # the only one of 0.1.0
        if form not in CURVES:
            raise saved.damaged(f"form must be one of {', '.join(CURVES)}; it is {form!r}")
        names = CURVES[form].names
        columns = [f"covariance_{c}" for c in names]
        table = saved.table("law", ("constant", "value", "stderr", *columns))
        if tuple(table["constant"]) != names:
            raise saved.damaged(f"law.parquet must have the rows {', '.join(names)}")
        return cls(
            **constants_by_name(form, table["value"].to_numpy(np.float64)),
            stderr=table["stderr"].to_numpy(np.float64),
            covariance=table[columns].to_numpy(np.float64),
            residual=number(facts["residual"]),
            points=saved.table("points", _POINTS, optional=("n_evaluated",)) if facts["has_points"] else None,
            form=form,
            left_out_residual=number(facts.get("left_out_residual")),
            **{name: facts[name] for name in _FACTS},
        )

    def __repr__(self) -> str:
        lines = [
            f"MIScalingLaw: F1 = {CURVES[self.form].formula}, clipped to [0.5, 1]",
            f"  x            {self.ratio_in_words}",
        ]
        for (name, value), stderr, (low, high) in zip(
            self.constants.items(), self.stderr, self.interval(), strict=True
        ):
            known = f"+- {stderr:.2g}; 95 % interval [{low:.4g}, {high:.4g}]"
            lines.append(f"  {name:<13}{value:.5g} ({'standard error unknown' if math.isnan(stderr) else known})")
        if self.points is not None:
            lines.append(
                f"  fit          {counted(len(self.points), 'point')}, F1 scatters by {self.residual:.2g} around "
                "the law"
            )
        if not math.isnan(self.left_out_residual):
            lines.append(f"  left out     models of a size not fitted lie off by {self.left_out_residual:.2g}")
        if "lack_of_fit" in self.settings:
            chi_square, df, p_value = self.lack_of_fit()
            found = f"chi-square {chi_square:.4g}, {df} degrees of freedom, p = {p_value:.2g}"
            lines.append(f"  lack of fit  {found if df else 'cannot tell: too few samples or points'}")
        lines += [f"  {name:<13}{self.settings[name]}" for name in ("source", "errors") if name in self.settings]
        if "not_identified" in self.settings:
            lines.append(f"  NOT IDENTIFIED: {self.settings['not_identified']}")
        return "\n".join(lines)

    @property
    def ratio_in_words(self) -> str:
        """What x is, with units."""
        data, capacity = f"data-set size ({self.dataset_unit})", f"capacity ({self.capacity_unit})"
        return f"{data} / {capacity}" if self.covariate == "data/capacity" else f"{capacity} / {data}"

    def _array(self) -> Float64[np.ndarray, " constant"]:
        return np.array(list(self.constants.values()))

    def _ratio(
        self, capacity: Float64[np.ndarray, "*shape"], dataset_size: Float64[np.ndarray, "*other"]
    ) -> Float64[np.ndarray, "*common"]:
        return ratios_of(capacity, dataset_size, self.covariate)

    def _beyond(self, ratio: Float64[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
        """Which ratios lie beyond the points; none where these are unknown."""
        low, high = self.ratios
        return np.asarray((ratio < low * (1 - _ROUNDING)) | (ratio > high * (1 + _ROUNDING)))

    def _f1(self, ratio: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
        return CURVES[self.form].f1(self._array(), ratio)

    def _range(self) -> tuple[float, float]:
        """F1 at ratios of 0 and infinity, lower first, within (0.5, 1)."""
        ends = self._f1(np.array([0.0, np.inf]))
        return max(0.5, float(ends.min())), min(1.0, float(ends.max()))


def constants_by_name(form: Form, constants: Float64[np.ndarray, " constant"]) -> dict[str, Any]:
    """The fields of all forms' constants: NaN in the other forms."""
    return dict.fromkeys(_CONSTANTS, math.nan) | dict(zip(CURVES[form].names, constants.tolist(), strict=True))
