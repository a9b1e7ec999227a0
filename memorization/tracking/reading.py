"""One point of a trajectory: the figures of a checkpoint, and memU of each sample at it."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from memorization.errors import InputError, MeasurementWarning, NothingSelectedWarning, warn
from memorization.results import counted
from memorization.unintended import Memorization

__all__ = ["COLUMNS", "FDR", "Reading", "read", "told", "warn_once"]

FDR = 0.05
# Of the table of a trajectory, behind step and name; what a control says is unknown without one.
COLUMNS = (
    *("mean_bits", "low", "high", "mean_signed_bits", "net_bits", "net_low", "net_high"),
    *("control_mean_bits", "control_low", "control_high", "control_mean_signed_bits"),
    *("n_memorized", "set_p_value", "verdict", "target_bits_per_token"),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one checkpoint comes to.

    Attributes:
        name: of the checkpoint.
        step: of the training; NaN where it is not known.
        row: its figures, by the names of `COLUMNS`.
        bits: memU of each sample, in bits, float64.
        signed_bits: signed memU of each sample.
        q_values: the lowest false discovery rate at which each is selected; NaN without a control.
        control_bits: memU of each control sample; empty without a control.
        control_signed_bits: signed memU of each control sample.
    """

    name: str
    step: float
    row: dict[str, Any]
    bits: Float64[np.ndarray, " sample"]
    signed_bits: Float64[np.ndarray, " sample"]
    q_values: Float64[np.ndarray, " sample"]
    control_bits: Float64[np.ndarray, " control"]
    control_signed_bits: Float64[np.ndarray, " control"]


def read(found: Memorization, name: str, step: float) -> Reading:
    """The point of a trajectory that a measurement is."""
    control = found.control
    unknown = (math.nan, math.nan)
    values = (
        *(found.mean_bits, *found.interval, found.mean_signed_bits),
        *((math.nan, *unknown) if control is None else (control.net_bits, *control.net_interval)),
        *((math.nan, *unknown, math.nan) if control is None else (control.mean_bits, *control.interval, control.mean)),
        *(_n_memorized(found), found.set_p_value, found.verdict, found.target.bits_per_token),
    )
    none = np.zeros(0)
    return Reading(
        name=name,
        step=step,
        row=dict(zip(COLUMNS, values, strict=True)),
        bits=found.bits,
        signed_bits=found.signed_bits,
        q_values=found.q_values,
        control_bits=none if control is None else control.bits,
        control_signed_bits=none if control is None else control.signed_bits,
    )


def _n_memorized(found: Memorization) -> float:
    """Samples selected at FDR 5 %; NaN where none are and that shows nothing, or where nothing can be selected."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            n_chosen = int(found.memorized(FDR).sum())
    except InputError:
        return math.nan
    unseen = any(issubclass(one.category, NothingSelectedWarning) for one in said)
    return math.nan if unseen and not n_chosen else float(n_chosen)


def told(said: Sequence[warnings.WarningMessage]) -> list[tuple[str, str]]:
    """Warnings of one measurement by kind and text, each once; those that are not of measurements are given on."""
    kept: list[tuple[str, str]] = []
    for one in said:
        pair = (one.category.__name__, str(one.message))
        if not issubclass(one.category, MeasurementWarning):
            warn(pair[1], one.category)
        elif pair not in kept:
            kept.append(pair)
    return kept


def warn_once(said: dict[str, list[tuple[str, str]]]) -> None:
    """Warn of each kind once, in the words of the last checkpoint that it was said of, with how many it holds for."""
    from memorization import errors

    of_kind: dict[str, dict[str, str]] = {}
    for name, pairs in said.items():
        for kind, text in pairs:
            of_kind.setdefault(kind, {})[name] = text
    for kind, texts in of_kind.items():
        last = next(reversed(texts))
        others = (
            f" (The same kind of warning holds for {len(texts)} of {counted(len(said), 'checkpoint')}.)"
            if texts
            else ""
        )
        warn(f"{last}: {texts[last]}{others if len(said) > 1 else ''}", getattr(errors, kind, MeasurementWarning))
