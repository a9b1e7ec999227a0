"""From a model and samples to code lengths: the only package that runs a model to measure it."""

from memorization.measure.code_lengths import CodeLengths
from memorization.measure.compress import compress_bits
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike, OpenModel, UniformModel, open_model
from memorization.measure.tokenizers import TokenizerLike

__all__ = [
    "CodeLengths",
    "DTypeLike",
    "DeviceLike",
    "ModelLike",
    "OpenModel",
    "TokenizerLike",
    "UniformModel",
    "compress_bits",
    "open_model",
]
