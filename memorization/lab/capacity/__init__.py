"""Capacity of an architecture, trained on uniform random tokens to saturation."""

from memorization.lab.capacity.comparison import compare_capacities
from memorization.lab.capacity.experiment import capacity_bits_per_param

__all__ = ["capacity_bits_per_param", "compare_capacities"]
