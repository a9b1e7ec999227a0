"""How well membership can be inferred: F1 from sizes by a law, from code lengths by their gap, and its ceiling."""

from memorization.scaling_law.ceiling import attack_ceiling
from memorization.scaling_law.checks import LackOfFit
from memorization.scaling_law.fit import fit_mi_scaling_law
from memorization.scaling_law.forms import Form
from memorization.scaling_law.gap import GapLaw, f1_of_gap, gap_law
from memorization.scaling_law.law import MIScalingLaw
from memorization.scaling_law.least_squares import Errors
from memorization.scaling_law.points import Covariate

__all__ = [
    "Covariate",
    "Errors",
    "Form",
    "GapLaw",
    "LackOfFit",
    "MIScalingLaw",
    "attack_ceiling",
    "f1_of_gap",
    "fit_mi_scaling_law",
    "gap_law",
]
