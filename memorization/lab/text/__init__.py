"""Real text: models trained on nested data sets of growing size, and all that the paper reads off them."""

from memorization.lab.text.experiment import text_sweep
from memorization.lab.text.result import TextSweep

__all__ = ["TextSweep", "text_sweep"]
