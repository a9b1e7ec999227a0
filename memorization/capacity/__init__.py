"""How many bits a model can hold: memorized bits of training runs to bits per parameter, by named estimators with intervals."""

from memorization.capacity.fit import fit_capacity
from memorization.capacity.result import Capacity
from memorization.capacity.rows import Convention, Estimator, information_ceiling_bits

__all__ = ["Capacity", "Convention", "Estimator", "fit_capacity", "information_ceiling_bits"]
