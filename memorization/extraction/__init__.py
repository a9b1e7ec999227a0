"""Extraction: does a model that reads a sample's first tokens give back the rest, word for word?"""

from memorization.extraction.measure import extract
from memorization.extraction.result import Extraction, ExtractionRate

__all__ = ["Extraction", "ExtractionRate", "extract"]
