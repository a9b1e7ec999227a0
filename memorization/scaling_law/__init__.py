"""The scaling law of membership inference: F1 as a sigmoid of data-set size and capacity, fitted and inverted."""

from memorization.scaling_law.fit import fit_mi_scaling_law
from memorization.scaling_law.law import MIScalingLaw
from memorization.scaling_law.least_squares import Errors
from memorization.scaling_law.points import Covariate

__all__ = ["Covariate", "Errors", "MIScalingLaw", "fit_mi_scaling_law"]
