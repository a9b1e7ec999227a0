"""Real text: models trained on nested data sets of growing size, and all that the paper reads off them."""

from memorization.lab.text.result import TextSweep
from memorization.lab.text.sweep import text_sweep

__all__ = ["TextSweep", "text_sweep"]
