"""Conditions on the figures of an audit, such as "extracted > 0": what must not be so."""

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from memorization.errors import InputError

__all__ = ["Check", "Condition", "check_policy", "read_policy"]

_COMPARISONS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"\s*([A-Za-z_][\w.+-]*)\s*(>=|<=|==|!=|>|<)\s*([^\s].*?)\s*$")


@dataclass(frozen=True, slots=True)
class Condition:
    """A figure, a comparison and a number: what must not be so.

    Attributes:
        figure: its name, as `Audit.figures` has it.
        comparison: ">", ">=", "<", "<=", "==" or "!=".
        limit: the number that it is compared with.
    """

    figure: str
    comparison: str
    limit: float

    def __str__(self) -> str:
        return f"{self.figure} {self.comparison} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Check:
    """What came of a condition.

    Attributes:
        condition: as it was asked.
        value: of the figure; NaN where it is unknown.
        outcome: "passed"; "failed" where the condition holds; "cannot tell" where the figure is unknown or in doubt.
            What cannot be told does not pass.
        why: in words.
    """

    condition: str
    value: float
    outcome: Literal["passed", "failed", "cannot tell"]
    why: str

    @property
    def passed(self) -> bool:
        """Whether it is known that the condition does not hold."""
        return self.outcome == "passed"


def read_policy(conditions: Iterable[object], figures: Iterable[str]) -> list[Condition]:
    """Conditions from words, before anything is measured.

    Args:
        conditions: such as "extracted > 0".
        figures: names that may be used.

    Returns:
        The conditions in their order.

    Raises:
        InputError: a condition that cannot be read, or that names an unknown figure.

    Examples:
        >>> [str(one) for one in read_policy(["memorized_share>0.01"], ["memorized_share"])]
        ['memorized_share > 0.01']
    """
    names = list(figures)
    return [_read(condition, names) for condition in conditions]


def _read(condition: object, names: list[str]) -> Condition:
    found = _CONDITION.fullmatch(condition) if isinstance(condition, str) else None
    if found is None:
        raise InputError(
            f"fail_on must be a figure, a comparison and a number, such as 'extracted > 0'; it is {condition!r}. "
            f"Comparisons are {', '.join(_COMPARISONS)}."
        )
    name, comparison, number = found.groups()
    if name not in names:
        near = get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(names)}."
        raise InputError(f"fail_on names the figure {name!r}, which no audit has. {hint}")
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise InputError(f"fail_on compares {name} with {number!r}, which is no finite number, in {condition!r}.")
    low, high = _range_of(name)
    can_hold = {
        ">": limit < high,
        ">=": limit <= high,
        "<": limit > low,
        "<=": limit >= low,
        "==": low <= limit <= high,
        "!=": True,
    }
    if not can_hold[comparison]:
        raise InputError(
            f"fail_on has the condition {condition!r}, which can never hold, so that it would always pass: {name} lies "
            f"between {low:g} and {high:g}."
            + (f" Is {limit / 100:g} meant, {limit:g} %?" if high == 1 and 1 <= limit <= 100 else "")
        )
    return Condition(name, comparison, limit)


def _range_of(figure: str) -> tuple[float, float]:
    """The least and the most that a figure can be."""
    if (
        figure.startswith("auc_")
        or figure == "set_p_value"
        or (figure.endswith("_share") and figure != "capacity_share")
    ):
        return 0.0, 1.0
    is_any = figure.endswith(("_bits", "_bits_low", "_bits_high")) or figure == "capacity_share"
    return (-math.inf, math.inf) if is_any else (0.0, math.inf)


def check_policy(
    conditions: Sequence[Condition], figures: Mapping[str, float], doubts: Mapping[str, str] | None = None
) -> list[Check]:
    """What came of each condition.

    Args:
        conditions: as `read_policy` gives them.
        figures: the values by name; NaN where unknown.
        doubts: figures that are not to be believed, and why.

    Returns:
        A check a condition. It cannot be told where a figure is unknown, or where one in doubt does not meet the
        condition: its true value may.

    Examples:
        >>> policy = read_policy(["extracted > 0"], ["extracted"])
        >>> [check_policy(policy, {"extracted": value})[0].outcome for value in (3.0, 0.0, math.nan)]
        ['failed', 'passed', 'cannot tell']
        >>> check_policy(policy, {"extracted": 0.0}, {"extracted": "some are too short to ask"})[0].outcome
        'cannot tell'
    """
    return [_check(one, figures[one.figure], (doubts or {}).get(one.figure, "")) for one in conditions]


def _check(condition: Condition, value: float, doubt: str) -> Check:
    told, why = str(condition), f": {doubt}" if doubt else ""
    if math.isnan(value):
        return Check(told, value, "cannot tell", f"{condition.figure} is unknown{why}")
    if _COMPARISONS[condition.comparison](value, condition.limit):
        return Check(told, value, "failed", f"{condition.figure} is {value:g}")
    return Check(told, value, "cannot tell" if doubt else "passed", f"{condition.figure} is {value:g}{why}")
