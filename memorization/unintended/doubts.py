"""What makes a measured memU doubtful, in warnings: the oracle, what it has seen, and the control."""

import numpy as np

from memorization.errors import LengthMismatchWarning, SeenByOracleWarning, WeakOracleWarning, warn
from memorization.measure.near_copies import warn_of_near_copies
from memorization.unintended.control import Control
from memorization.unintended.joint import is_mixed, names_of
from memorization.unintended.ladder import seen_interval
from memorization.unintended.result import Memorization

__all__ = ["warn_of_doubts"]

_LENGTH_MISMATCH = 0.1  # of the mean length: a difference from which net memU compares unlike things
_TAILS = (0.1, 0.9)
_CHANCE = 0.01


def warn_of_doubts(result: Memorization) -> None:
    """Warn of an oracle that is too weak or has seen the samples, and of a control that is unlike them."""
    control = result.control
    if is_mixed(result.oracle) and (control is None or len(control.bits) < 2):
        warn(
            "several oracles are mixed, and no control tells whether one of them has seen the samples: one is enough "
            "to hide what the target memorized. Pass control= (samples like these that no model here has seen).",
            SeenByOracleWarning,
        )
    if control is None:
        return
    ladder = result.ladder
    assert ladder is not None
    if ladder.verdict == "weak":
        warn(f"the oracle is too weak: {ladder.reason}", WeakOracleWarning)
    _warn_of_what_oracles_have_seen(result, control)
    warn_of_near_copies(result.oracle, control.oracle)
    ours, theirs = result.target.n_tokens, control.target.n_tokens
    if _differ_in_length(ours, theirs):
        warn(
            f"samples have {_lengths(ours)} tokens, control samples {_lengths(theirs)}: net memU and p-values compare "
            "unlike things. Draw the control like the samples, of the same lengths.",
            LengthMismatchWarning,
        )


def _warn_of_what_oracles_have_seen(result: Memorization, control: Control) -> None:
    """In a mixture, one oracle that has seen the samples is enough to hide what the target memorized of them."""
    suspects = [("the oracle", (result.oracle, control.oracle))]
    if is_mixed(result.oracle):
        names = names_of([sets[0].settings["model"] for sets in result.other_oracles])
        suspects += [(f"the oracle {name}", sets) for name, sets in zip(names, result.other_oracles, strict=True)]
    for name, sets in suspects:
        seen = seen_interval(
            sets, result, control, level=0.99
        )  # at 95 %, one innocent oracle in forty would be suspected
        if seen.high < 0:
            warn(
                f"{name} needs {-seen.high:.3f} to {-seen.low:.3f} bits a token fewer for the samples than for the "
                "control (99 % interval): it may have seen them, and then hides what the target memorized; or the "
                "control is harder text.",
                SeenByOracleWarning,
            )


def _differ_in_length(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """In the mean or in their spread, beyond chance: what an oracle lacks adds up with the length."""
    least = _LENGTH_MISMATCH * ours.mean()
    apart = np.abs(np.quantile(ours, _TAILS) - np.quantile(theirs, _TAILS)) > least
    if not (abs(ours.mean() - theirs.mean()) > least or apart.any()):
        return False
    if ours.min() > theirs.max() or theirs.min() > ours.max():  # of a few samples chance could never be excluded
        return True
    from scipy.stats import ks_2samp

    return bool(ks_2samp(ours, theirs).pvalue < _CHANCE)


def _lengths(n_tokens: np.ndarray) -> str:
    low, high = np.quantile(n_tokens, _TAILS)
    return f"{n_tokens.mean():.1f} (most {low:.0f} to {high:.0f})"
