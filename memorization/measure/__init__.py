"""A model and samples to code lengths: the only wing that runs a model to measure it."""

from memorization.measure.code_lengths import CodeLengths, compress_bits
from memorization.measure.opening import CausalModel, UniformModel, opened_model

__all__ = ["CausalModel", "CodeLengths", "UniformModel", "compress_bits", "opened_model"]
