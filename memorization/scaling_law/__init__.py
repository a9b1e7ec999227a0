"""How well membership can be inferred from data-set size and capacity: a sigmoidal law of F1, fitted, read and inverted."""

from memorization.scaling_law.fit import fit_mi_scaling_law
from memorization.scaling_law.law import MIScalingLaw
from memorization.scaling_law.least_squares import Errors
from memorization.scaling_law.points import Covariate

__all__ = ["Covariate", "Errors", "MIScalingLaw", "fit_mi_scaling_law"]
