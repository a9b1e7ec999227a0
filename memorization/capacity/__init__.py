"""How many bits a model can hold: bits per parameter from training runs, by named estimators with intervals."""

from memorization.capacity.comparison import CapacityComparison
from memorization.capacity.estimators import PLATEAU_INFORMATION
from memorization.capacity.fit import fit_capacity
from memorization.capacity.growth import MORE_STEPS, Growth, growth, longer, series
from memorization.capacity.result import Capacity
from memorization.capacity.runs import EXPECTED_BITS_PER_PARAM, Convention, Estimator, information_ceiling_bits

__all__ = [
    "EXPECTED_BITS_PER_PARAM",
    "MORE_STEPS",
    "PLATEAU_INFORMATION",
    "Capacity",
    "CapacityComparison",
    "Convention",
    "Estimator",
    "Growth",
    "fit_capacity",
    "growth",
    "information_ceiling_bits",
    "longer",
    "series",
]
