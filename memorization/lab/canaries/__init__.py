"""Canaries: random samples whose information is known to the bit, hidden in a training set, and memU of them after training."""

from memorization.lab.canaries.experiment import canary_dose_response, dose_response, insert_canaries, make_canaries
from memorization.lab.canaries.result import DoseResponse

__all__ = ["DoseResponse", "canary_dose_response", "dose_response", "insert_canaries", "make_canaries"]
