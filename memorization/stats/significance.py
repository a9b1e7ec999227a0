"""Which samples, or whether any: p-values against a control, e-values of an exact oracle, and false discovery rates."""

import math

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from memorization.errors import InputError
from memorization.integers import as_number, check_integer

__all__ = [
    "PERMUTATIONS",
    "conformal_p_values",
    "controls_needed",
    "fewest_selected",
    "least_permutation_p_value",
    "mean_log2_e_value",
    "p_of_e_values",
    "permutation_p_value",
    "q_of_e_values",
    "q_of_p_values",
    "selected",
]

PERMUTATIONS = 9_999
_FEWEST_PERMUTATIONS = 999
_DRAWS = 100_000_000  # of permutations of large sets: more take seconds
_BATCH_DRAWS = 1_000_000  # held in memory at a time


def conformal_p_values(
    samples: Float64[np.ndarray, " sample"],
    control: Float64[np.ndarray, " control"],
    *,
    groups: tuple[Shaped[np.ndarray, " of_sample"], Shaped[np.ndarray, " of_control"]] | None = None,
) -> Float64[np.ndarray, " sample"]:
    """p-value of each sample: the share of controls, itself counted, that score as high.

    Args:
        samples: scores, high where something is memorized, such as signed bits. Clipped bits tie at 0, and ties count
            against a sample.
        control: scores of samples that neither model has seen, drawn like the others. NaN counts as high.
        groups: labels of the samples and of the controls. Whole groups are independent draws then.

    Returns:
        (1 + controls at or above) / (controls + 1), so never below 1 / (controls + 1). NaN for NaN. With groups the
        larger of two: each group of the control counts once, by the share of its controls that score as high; and each
        control counts once, beside the k samples of the sample's own group: (k + controls at or above) / (k +
        controls). Of groups of one size these are the same.

    Raises:
        InputError: there are not as many labels as samples, or as controls.

    Guarantees:
        Where a sample is exchangeable with the controls, its p-value is at most u with probability at most u, for every
        u. Where the group of a sample is exchangeable with the control's groups, so it is for a sample of it; and of
        all samples of such groups, long and short ones, a share of at most u is at most u in expectation. All share one
        control, so they depend on each other, positively: Benjamini and Hochberg's selection holds (`q_of_p_values`; of
        groups this is simulated, not proven); sums of their logarithms, such as Fisher's, are no chi-square. For all
        samples together take `permutation_p_value`.

    Examples:
        >>> import numpy as np
        >>> conformal_p_values(np.array([9.0, 3.0, 0.0]), np.array([0.0, 1.0, 3.0])).tolist()
        [0.25, 0.5, 1.0]
        >>> of_both = np.array([0, 0]), np.array([0, 0, 1, 1])
        >>> conformal_p_values(np.array([2.0, 0.5]), np.array([0.0, 3.0, 1.0, 1.0]), groups=of_both).round(2).tolist()
        [0.5, 0.83]

    Source:
        Bates, Candes, Lei, Romano and Sesia, arXiv:2104.08279, theorem 2; of groups: Lee, Barber and Willett,
        arXiv:2306.06342 (the one p-value of a new group's sample is at most u with probability at most u).
    """
    ours, theirs = (np.arange(len(one)) for one in (samples, control)) if groups is None else groups
    for name, one, of in (("samples", samples, ours), ("controls", control, theirs)):
        if len(of) != len(one):
            raise InputError(f"groups needs one label for each of the {len(one)} {name}; it has {len(of)}.")
    _, place, counts = np.unique(theirs, return_inverse=True, return_counts=True)
    order = np.argsort(control, kind="stable")
    first = np.searchsorted(control[order], samples, side="left")  # of the controls at or above
    shares = np.append(np.cumsum((1 / counts[place])[order][::-1])[::-1], 0.0)
    by_group = (1 + shares[first]) / (1 + len(counts))
    if groups is None:
        return np.where(np.isnan(samples), math.nan, by_group)
    _, place, counts = np.unique(ours, return_inverse=True, return_counts=True)
    by_sample = (counts[place] + len(control) - first) / (counts[place] + len(control))
    return np.where(np.isnan(samples), math.nan, np.maximum(by_group, by_sample))


def p_of_e_values(log2_e: Float64[np.ndarray, " test"]) -> Float64[np.ndarray, " test"]:
    """p-value of each e-value: 1 / e, and 1 at the most; NaN for NaN.

    Where the oracle is exact, 2^(signed bits) is an e-value: over a string that is drawn as the oracle says, its
    expectation is the sum of the target's probabilities, at most 1 whatever the target. By Markov's inequality it is
    2^b or more with probability at most 2^-b, so that b bits of memU are a p-value without any control.

    Args:
        log2_e: base-2 logarithms, such as signed bits. Clipped ones give the same p-values.

    Examples:
        >>> import numpy as np
        >>> p_of_e_values(np.array([10.0, 1.0, -3.0])).tolist()
        [0.0009765625, 0.5, 1.0]
    """
    return np.exp2(-np.maximum(log2_e, 0.0))


def mean_log2_e_value(log2_e: Float64[np.ndarray, " test"]) -> float:
    """Base-2 logarithm of the mean of e-values, which is an e-value too however they depend on each other.

    Args:
        log2_e: base-2 logarithms: signed bits. The 2^0 of clipped bits is no e-value: its mean is above 1.

    Returns:
        NaN of none, and where one is NaN.

    Examples:
        >>> import numpy as np
        >>> mean_log2_e_value(np.array([9.0, 9.0, -2000.0, -2000.0]))
        8.0

    Source:
        Vovk and Wang, E-values: calibration, combination and applications, arXiv:1912.06116.
    """
    if not len(log2_e) or np.isnan(log2_e).any():
        return math.nan
    return float(np.logaddexp2.reduce(log2_e) - np.log2(len(log2_e)))


def q_of_e_values(log2_e: Float64[np.ndarray, " test"]) -> Float64[np.ndarray, " test"]:
    """The lowest false discovery rate at which e-BH selects each test; 1 at the most, and for NaN.

    Args:
        log2_e: base-2 logarithms of e-values, under any dependence.

    Examples:
        >>> q_of_e_values(np.array([10.0, 5.0, -3.0])).round(3).tolist()
        [0.003, 0.047, 1.0]

    Source:
        Wang and Ramdas, "False discovery rate control with e-values", arXiv:2009.02824.
    """
    return _stepped_up(-np.nan_to_num(log2_e, nan=-np.inf, neginf=-np.inf))


def q_of_p_values(p_values: Float64[np.ndarray, " test"]) -> Float64[np.ndarray, " test"]:
    """The lowest false discovery rate at which Benjamini and Hochberg's procedure selects each test; 1 for NaN.

    Args:
        p_values: independent, or positively dependent as those of `conformal_p_values` are.

    Examples:
        >>> q_of_p_values(np.array([0.01, 0.04, 0.9])).round(3).tolist()
        [0.03, 0.06, 0.9]

    Source:
        Benjamini and Hochberg, doi:10.1111/j.2517-6161.1995.tb02031.x; as scipy.stats.false_discovery_control, which
        has no logarithms for e-values.
    """
    with np.errstate(divide="ignore"):
        return _stepped_up(np.log2(np.nan_to_num(p_values, nan=1.0)))


def selected(q_values: Float64[np.ndarray, " test"], fdr: float) -> Bool[np.ndarray, " test"]:
    """The tests that are selected at a false discovery rate, those at its very edge among them.

    p-values of m controls are multiples of 1 / (m + 1), so that q-values often equal the rate but for rounding.

    Examples:
        >>> selected(q_of_p_values(np.repeat([0.005, 1.0], [20, 180])), 0.05).sum()
        np.int64(20)
    """
    return np.asarray(q_values <= fdr * (1 + 1e-9))


def _stepped_up(log2_p: np.ndarray) -> Float64[np.ndarray, " test"]:
    """min over k >= rank of n p_(k) / k, from base-2 logarithms of p, which may be above 0."""
    n = len(log2_p)
    order = np.argsort(log2_p, kind="stable")
    log2_q = log2_p[order] + np.log2(n) - np.log2(np.arange(1, n + 1))
    q = np.empty(n)
    q[order] = np.exp2(np.minimum(np.minimum.accumulate(log2_q[::-1])[::-1], 0.0))
    return q


def permutation_p_value(
    samples: Float64[np.ndarray, " sample"],
    control: Float64[np.ndarray, " control"],
    *,
    groups: tuple[Shaped[np.ndarray, " of_sample"], Shaped[np.ndarray, " of_control"]] | None = None,
) -> float:
    """One p-value for all samples: how often sets made at random of both have as high a difference of means.

    The difference of means is what net memU is. That samples share one control does not matter, since both sets are
    mixed anew each time.

    Args:
        samples: scores, high where something is memorized.
        control: scores of samples that neither model has seen, drawn like the others.
        groups: labels of the samples and of the controls; whole groups change sides then. A group is of one side: equal
            labels on both sides are two groups.

    Returns:
        One-sided: (1 + mixtures as high) / (1 + mixtures), of which there are 9,999, fewer of large sets, by a fixed
        seed. NaN where a set is empty or a score is not finite.

    Raises:
        InputError: there are not as many labels as scores.

    Guarantees:
        Where samples (or groups) and controls are exchangeable, at most u with probability at most u, for every u.

    Examples:
        >>> import numpy as np
        >>> f"{permutation_p_value(np.array([8.0, 9.0]), np.array([0.0, 1.0, 2.0])):.1f}"  # the highest of 10 pairs
        '0.1'

    Source:
        Phipson and Smyth, doi:10.2202/1544-6115.1585 (the one that is added).
    """
    sets = (samples, control)
    labels = tuple(np.arange(len(one)) for one in sets) if groups is None else groups
    for name, one, of in zip(("samples", "control"), sets, labels, strict=True):
        if len(of) != len(one):
            raise InputError(f"groups needs one label for each of the {len(one)} {name}; it has {len(of)}.")
    if not all(len(one) and np.isfinite(one).all() for one in sets):
        return math.nan
    centre = float(np.concatenate(sets).mean())  # so that large scores are rounded as small ones are
    place = [np.unique(of, return_inverse=True)[1] for of in labels]
    sums = np.concatenate([np.bincount(of, weights=one - centre) for of, one in zip(place, sets, strict=True)])
    counts = np.concatenate([np.bincount(of) for of in place])
    is_ours = np.arange(len(sums)) <= place[0].max()

    n_permutations = int(np.clip(_DRAWS // len(sums), _FEWEST_PERMUTATIONS, PERMUTATIONS))
    batch = max(1, _BATCH_DRAWS // len(sums))
    draws = np.random.default_rng(0)
    observed, slack = _differences(is_ours[None], sums, counts)[0], 1e-9 * np.abs(sums / counts).max()
    as_high = 0
    for begin in range(0, n_permutations, batch):
        rows = min(batch, n_permutations - begin)
        mixed = draws.permuted(np.tile(is_ours, (rows, 1)), axis=1)
        as_high += int(np.sum(_differences(mixed, sums, counts) >= observed - slack))
    return (1 + as_high) / (1 + n_permutations)


def least_permutation_p_value(n_samples: int, n_controls: int) -> float:
    """The least p-value that mixtures of so many samples (or groups) and controls can give: one over their number.

    A p-value that cannot be small shows nothing by being large.

    Args:
        n_samples: samples, or groups of them, that change sides.
        n_controls: the same of the control.

    Returns:
        1 over the number of mixtures, and never less than 1 over the 10,000 that are looked at; 1 where a set is empty.

    Examples:
        >>> least_permutation_p_value(24, 1), least_permutation_p_value(96, 96)
        (0.04, 0.0001)
    """
    n = n_samples + n_controls
    looked_at = 1 + int(np.clip(_DRAWS // max(n, 1), _FEWEST_PERMUTATIONS, PERMUTATIONS))
    return 1 / min(math.comb(n, n_controls), looked_at)


def _differences(
    is_ours: Bool[np.ndarray, "row group"], sums: Float64[np.ndarray, " group"], counts: Shaped[np.ndarray, " group"]
) -> Float64[np.ndarray, " row"]:
    """Mean score of our groups minus that of the others."""
    ours, n_ours = is_ours @ sums, is_ours @ counts
    return np.asarray(ours / n_ours - (sums.sum() - ours) / (counts.sum() - n_ours))


def controls_needed(n_samples: int, *, fdr: float = 0.05, expected_share: float = 1.0) -> int:
    """How many controls it takes until any sample can be selected at a false discovery rate.

    With m controls no p-value is below 1 / (m + 1), and Benjamini and Hochberg select k of n samples where their
    p-values are at most fdr k / n. So this many are needed where a share of the samples scores above every control;
    with fewer nothing can be selected, whatever the scores. Where memorized and unseen samples overlap, it takes more.

    Args:
        n_samples: of which p-values will be taken.
        fdr: the false discovery rate of the selection.
        expected_share: of the samples, expected to be memorized so well that they score above every control; at least
            one sample is.

    Raises:
        InputError: the number is below 1, fdr is not in (0, 1), or the share is not in (0, 1].

    Examples:
        >>> controls_needed(200, fdr=0.05, expected_share=0.1), controls_needed(200), controls_needed(1)
        (199, 19, 19)
    """
    n = check_integer("n_samples", n_samples)
    rate, share = as_number(fdr), as_number(expected_share)
    if not 0 < rate < 1:
        raise InputError(f"fdr must be a number between 0 and 1, such as 0.05; it is {fdr!r}.")
    if not 0 < share <= 1:
        raise InputError(f"expected_share must be a number above 0 and at most 1; it is {expected_share!r}.")
    n_memorized = max(1, math.floor(share * n + 1e-9))  # 0.29 x 100 is 28.999...
    return math.ceil(n / (rate * n_memorized) - 1e-9) - 1


def fewest_selected(n_tests: int, log2_least_p: float, *, fdr: float = 0.05) -> int:
    """How many tests are selected at the least, if any is, where no p-value can be below a given one.

    Benjamini and Hochberg select k of n tests whose p-values are at most fdr k / n, and e-BH those whose e-values are
    at least n / (fdr k). So with m controls (p-values of at least 1 / (m + 1)), or e-values of at most 2^b, fewer
    memorized ones than this are never selected: that none is selected does not show that none is memorized.

    Args:
        n_tests: p-values or e-values.
        log2_least_p: base-2 logarithm of the least p-value there can be, or minus that of the largest e-value.
        fdr: the false discovery rate of the selection.

    Examples:
        >>> import math
        >>> fewest_selected(200, -math.log2(100)), fewest_selected(200, -64.0)
        (40, 1)
    """
    return max(1, math.ceil(n_tests / fdr * 2.0**log2_least_p * (1 - 1e-9)))
