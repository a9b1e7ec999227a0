"""Canaries: random samples of known information, hidden in a training set, and their memU after training."""

from memorization.lab.canaries.experiment import canary_dose_response, dose_response
from memorization.lab.canaries.making import insert_canaries, make_canaries
from memorization.lab.canaries.result import DoseResponse

__all__ = ["DoseResponse", "canary_dose_response", "dose_response", "insert_canaries", "make_canaries"]
