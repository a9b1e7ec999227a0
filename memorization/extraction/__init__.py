"""Extraction: does a model that reads a sample's first tokens give back the rest, word for word?"""

from memorization.extraction.decoding import tries, worst_windows
from memorization.extraction.measure import extract
from memorization.extraction.rates import ExtractionRate
from memorization.extraction.result import Extraction

__all__ = ["Extraction", "ExtractionRate", "extract", "tries", "worst_windows"]
