"""The ceiling of every attack: what the bits that a model can hold allow at most."""

import math

import numpy as np
from jaxtyping import Float64

from memorization.scaling_law.points import sizes_of
from memorization.stats.arrays import ArrayLike

__all__ = ["attack_ceiling"]


def attack_ceiling(capacity_bits: ArrayLike, n_samples: ArrayLike) -> Float64[np.ndarray, "*shape"]:
    """Highest mean balanced accuracy of any membership attack on a model that holds this many bits of its data.

    With I = capacity_bits / n_samples bits a sample: 1/2 (1 + min(sqrt(I ln 2 / 2), sqrt(1 - 2^-I))).

    Args:
        capacity_bits: the most that the weights can tell of their training set, in bits: bits a parameter times the
            parameters. 3.6 bits a parameter is what GPT-style models were measured to store; the bits of the weights
            as they are saved (16 a parameter) is what nothing can exceed.
        n_samples: of the training set.

    Returns:
        From 0.5 to 1, in the common shape.

    Raises:
        InputError: a size that is not positive.

    Guarantees:
        For samples drawn independently of one another the sum of I(sample; weights) is at most I(all; weights), which
        is at most capacity_bits. An attack that sees one sample and the weights is right more often than chance by
        half the total variation between sample and weights that belong together and such that do not; Pinsker's and
        Bretagnolle and Huber's inequalities bound it by the information, and both bounds are concave, so the mean over
        the samples obeys them too. The attack may know everything about the data but the other members: repeated or
        dependent samples, and an attacker who holds the rest of the training set, are not bounded by it. The mean is
        over all members: single ones may be certain. It holds as far as the capacity does.

    Examples:
        >>> attack_ceiling(3.6 * 7e9, 2e12 / 64).round(3).item()  # a model of 7e9 parameters, 2e12 tokens
        0.764

    Source:
        Pinsker; Bretagnolle and Huber, doi:10.1007/BFb0070862; Yeom et al., arXiv:1709.01604, for accuracy as what an
        attacker gains from a sample's having been seen.
    """
    information = sizes_of("capacity_bits", capacity_bits) / sizes_of("n_samples", n_samples)
    pinsker = np.sqrt(information * (math.log(2) / 2))
    bretagnolle_huber = np.sqrt(-np.expm1(-information * math.log(2)))
    return np.asarray((1 + np.minimum(pinsker, bretagnolle_huber)) / 2)
