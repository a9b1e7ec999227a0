"""The joint code length H(x | oracle, target), in bits a sample, from two models' code lengths."""

from typing import Literal

import numpy as np
from jaxtyping import Float64

JointCode = Literal["max", "mixture"]


def joint_bits(
    target_bits: Float64[np.ndarray, " sample"], oracle_bits: Float64[np.ndarray, " sample"], code: JointCode
) -> Float64[np.ndarray, " sample"]:
    """Bits of each sample for a coder that may use both models.

    Args:
        target_bits: bits of each sample under the target, float64.
        oracle_bits: under the oracle, float64.
        code: "max" takes the better model for each whole sample, -log2 max(p_t, p_o): the paper's bound, which leaves
            out the bit that tells the decoder which. "mixture" is a code, -log2((p_t + p_o) / 2), which costs at most 1
            bit more.

    Examples:
        >>> import numpy as np
        >>> joint_bits(np.array([3.0]), np.array([3.0]), "mixture").tolist()
        [3.0]

    Source:
        arXiv:2505.24832, section 2.3.
    """
    if code == "max":
        return np.asarray(np.minimum(target_bits, oracle_bits))
    return np.asarray(1.0 - np.logaddexp2(-target_bits, -oracle_bits))
