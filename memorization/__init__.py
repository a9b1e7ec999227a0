"""How much do language models memorize? Exact bits of samples, memU against an oracle, and what stands behind them."""

from importlib.metadata import PackageNotFoundError, version

from memorization.compression import CodeLengths, compress_bits
from memorization.models import UniformModel
from memorization.significance import Control
from memorization.unintended import Memorization, unintended_memorization

try:
    __version__ = version("lm-memorization")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"

__all__ = ["CodeLengths", "Control", "Memorization", "UniformModel", "compress_bits", "unintended_memorization"]
