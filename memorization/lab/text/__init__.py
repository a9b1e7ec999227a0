"""Sweeps over real text: models trained on nested, growing data sets, with the paper's measurements of each."""

from memorization.lab.text.experiment import text_sweep
from memorization.lab.text.result import TextSweep

__all__ = ["TextSweep", "text_sweep"]
