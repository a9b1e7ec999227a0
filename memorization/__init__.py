"""How much do language models memorize? Exact bits of samples, memU against an oracle, and what stands behind them."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from memorization.capacity import Capacity, fit_capacity
from memorization.measure.code_lengths import CodeLengths, compress_bits
from memorization.measure.opening import UniformModel
from memorization.renamed import old_modules_go_on_working
from memorization.scaling_law import MIScalingLaw, fit_mi_scaling_law
from memorization.unintended import Control, Memorization, unintended_memorization

if TYPE_CHECKING:
    from memorization.lab.capacity import capacity_bits_per_param

try:
    __version__ = version("lm-memorization")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"

__all__ = [
    "Capacity",
    "CodeLengths",
    "Control",
    "MIScalingLaw",
    "Memorization",
    "UniformModel",
    "capacity_bits_per_param",
    "compress_bits",
    "fit_capacity",
    "fit_mi_scaling_law",
    "unintended_memorization",
]


old_modules_go_on_working()
del old_modules_go_on_working


def __getattr__(name: str) -> Any:
    # What trains models needs more than what measures them: loaded when first used.
    if name == "capacity_bits_per_param":
        from memorization.lab.capacity import capacity_bits_per_param

        return capacity_bits_per_param
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
