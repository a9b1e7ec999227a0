"""Small causal language models to measure capacity with: by family, width and depth, or by number of parameters."""

from memorization.lab.architectures.architecture import NAMES, Architecture, solve_width
from memorization.lab.architectures.counting import ParamCounts, count_params
from memorization.lab.architectures.free_logits import FreeLogits, most_saved_bits
from memorization.lab.architectures.quantization import quantize_weights

__all__ = [
    "NAMES",
    "Architecture",
    "FreeLogits",
    "ParamCounts",
    "count_params",
    "most_saved_bits",
    "quantize_weights",
    "solve_width",
]
