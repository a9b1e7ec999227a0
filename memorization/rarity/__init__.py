"""Which samples are memorized: rare tokens (TF-IDF), exact and near duplicates, and how memU ranks with them."""

from memorization.rarity.duplicates import Deduplicated, DuplicateCounts, deduplicate, duplicate_counts
from memorization.rarity.measure import rarity, which_samples
from memorization.rarity.result import Rarity
from memorization.rarity.tfidf import tfidf_bits

__all__ = [
    "Deduplicated",
    "DuplicateCounts",
    "Rarity",
    "deduplicate",
    "duplicate_counts",
    "rarity",
    "tfidf_bits",
    "which_samples",
]
