"""Figures of benchmarks: printed as they are taken, and kept where `scoring.py` collects them."""

import json
import os

__all__ = ["KEEP", "figure"]

KEEP = "BENCHMARK_FIGURES"  # the environment's name for the file that figures are appended to


def figure(what: str, value: float, goal: str, *, of: str = "ratio") -> None:
    """Print one, with what it is to reach, and keep it.

    Args:
        what: was measured.
        value: what came.
        goal: such as "<= 1.05".
        of: what kind of number it is.
    """
    value = float(value)
    print(f"    {of} {value:.3g} (to reach: {goal})", flush=True)
    if path := os.environ.get(KEEP):
        with open(path, "a", encoding="utf-8") as file:
            file.write(
                json.dumps({"what": what, "of": of, "value": value, "goal": goal, "reached": _holds(value, goal)})
                + "\n"
            )


def _holds(value: float, goal: str) -> bool:
    if goal.startswith("<= "):
        return value <= float(goal[3:])
    if goal.startswith(">= "):
        return value >= float(goal[3:])
    low, high = map(float, goal.split(" to "))
    return low <= value <= high
