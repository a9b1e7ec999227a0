"""`fit_mi_scaling_law`: from F1 of trained models to a law."""

from typing import Any

import numpy as np

from memorization.errors import InputError, NotIdentifiedWarning, warn
from memorization.results import versions
from memorization.scaling_law.checks import lack_of_fit, left_out_residual
from memorization.scaling_law.forms import CURVES, Form
from memorization.scaling_law.law import MIScalingLaw, constants_by_name
from memorization.scaling_law.least_squares import Errors, fit_constants
from memorization.scaling_law.points import Covariate, check_points, ratios_of, read_points
from memorization.stats.arrays import ArrayLike


def fit_mi_scaling_law(
    capacity: ArrayLike,
    dataset_size: ArrayLike,
    f1: ArrayLike,
    *,
    covariate: Covariate = "data/capacity",
    capacity_unit: str = "bits",
    dataset_unit: str = "samples",
    weights: ArrayLike | None = None,
    errors: Errors = "linearised",
    form: Form = "logistic",
    n_evaluated: ArrayLike | None = None,
) -> MIScalingLaw:
    """F1 of membership inference as a function of data-set size and capacity: its constants by least squares.

    What is fitted is clipped to [0.5, 1], as `predict` clips.

    Flat arrays, one row a trained model. F1 is that of a threshold at the median of as many members as non-members: 0.5
    at chance. (The threshold with the highest F1 gives 0.667 at chance, and no fit here.)

    Args:
        capacity: of each model, in capacity_unit, above 0; one number where all are alike.
        dataset_size: of each training set, in dataset_unit, above 0.
        f1: of each model, in [0, 1]; up to 0.1 outside, as F1 simulated from a law with scatter may lie.
        covariate: "data/capacity" (x = dataset_size / capacity) or "capacity/data".
        capacity_unit: recorded, and shown with every result: "bits", "parameters".
        dataset_unit: recorded as well: "samples", "samples of 64 tokens", "bits".
        weights: 1 / variance of each F1, up to a common factor, above 0; for a binomial F1 the number of samples it was
            measured on. None: all alike.
        errors: "linearised" takes the covariance from the Jacobian at the solution and one scatter for all points,
            estimated from the residuals. "bootstrap" refits 400 times with the residuals' signs flipped at random (wild
            bootstrap, leverage corrected, refits that run away left out, fixed seed): for scatter that differs between
            points.
        form: of the curve in x: "logistic", 1/2 (1 + c1 sigmoid(c2 (x + c3))), the paper's; "hill",
            1/2 (1 + 1 / (1 + (x / r0)^k)); "probit", Phi((r0 / x)^k). The last two have two constants and run from 1
            to 0.5 in either ratio; turned over, r0 becomes 1 / r0 and k changes its sign, and nothing else.
        n_evaluated: how many samples each F1 was measured on, members and non-members together; one number where all
            are alike. With it the law says whether its scatter is what counting samples explains
            (`MIScalingLaw.lack_of_fit`). It changes no constant.

    Returns:
        The constants with standard errors, in the units stated.

    Raises:
        InputError: columns that cannot be fitted: fewer points than constants and one more, fewer ratios than
            constants, F1 all equal, sizes that are not positive, n_evaluated below 2.

    Warns:
        NotIdentifiedWarning: many laws fit these points equally well: F1 does not follow the ratio beyond its scatter,
            or the points see only one end of the curve. The constants are those of one such law; stderr and covariance
            are NaN.

    Guarantees:
        95 % intervals covered each constant in 94 to 97 % of 1,000 planted laws (20 ratios from 5e-4 to 0.5, scatter
        0.014 in F1). Where the scatter shrinks towards F1 = 1 as a binomial's does (600 members), "linearised" covers
        86 to 93 %, "bootstrap" 92 to 97 % (of 60).

    Examples:
        >>> import numpy as np
        >>> data = np.geomspace(1e4, 1e7, 12)
        >>> f1 = 0.5 + 0.5 / (1 + np.exp(4 * (data / 1e6 - 0.5)))
        >>> law = fit_mi_scaling_law(1e6, data, f1, capacity_unit="parameters")
        >>> [round(c, 6) for c in (law.c1, law.c2, law.c3)]
        [1.0, -4.0, -0.5]

    Source:
        Morris et al., arXiv:2505.24832, scaling law of membership inference; `MIScalingLaw.published` says what is
        misprinted there.
    """
    if covariate not in ("data/capacity", "capacity/data"):
        raise InputError(f'covariate must be "data/capacity" or "capacity/data"; it is {covariate!r}.')
    if errors not in ("linearised", "bootstrap"):
        raise InputError(f'errors must be "linearised" or "bootstrap"; it is {errors!r}.')
    if form not in CURVES:
        raise InputError(f"form must be one of {', '.join(CURVES)}; it is {form!r}.")
    curve = CURVES[form]
    points = read_points(capacity, dataset_size, f1, weights, n_evaluated)
    x = ratios_of(points["capacity"], points["dataset_size"], covariate)
    check_points(x, points["f1"], len(curve.names))
    fitted = fit_constants(curve, x, points["f1"], points["weight"], errors)
    settings: dict[str, Any] = {"errors": errors, "weighted": weights is not None, "versions": versions()}
    if n_evaluated is not None:
        settings["lack_of_fit"] = lack_of_fit(curve, x, points["f1"], points["n_evaluated"])._asdict()
    if fitted.why_not_identified:
        settings["not_identified"] = fitted.why_not_identified
        warn(
            f"the law is not identified: {fitted.why_not_identified}. Its constants are those of one of many laws "
            "that fit; their errors are unknown. Add data-set sizes on both sides of the fall of F1.",
            NotIdentifiedWarning,
        )
    import pandas as pd

    return MIScalingLaw(
        **constants_by_name(form, fitted.constants),
        stderr=np.sqrt(np.diag(fitted.covariance)),
        covariance=fitted.covariance,
        covariate=covariate,
        capacity_unit=capacity_unit,
        dataset_unit=dataset_unit,
        residual=fitted.residual,
        points=pd.DataFrame(points),
        settings=settings,
        form=form,
        left_out_residual=left_out_residual(curve, points["capacity"], x, points["f1"], points["weight"]),
    )
