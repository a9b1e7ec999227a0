"""Commands of the membership law: fit and predict."""

import math
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memorization.cli.options import Output, Overwrite, one_of
from memorization.cli.output import claim, draw, save
from memorization.errors import ExtrapolationWarning, InputError

if TYPE_CHECKING:
    import pandas as pd

    from memorization.scaling_law import MIScalingLaw


def fit(
    runs: Annotated[
        Path, typer.Option(help="CSV, a row a model: capacity, dataset_size, f1, optionally weight, n_evaluated.")
    ],
    output: Output,
    covariate: Annotated[
        str,
        typer.Option(
            help="x of the law: data/capacity or capacity/data.",
            autocompletion=one_of("data/capacity", "capacity/data"),
        ),
    ] = "data/capacity",
    capacity_unit: Annotated[str, typer.Option(help="Of the column capacity, such as parameters.")] = "bits",
    dataset_unit: Annotated[
        str, typer.Option(help='Of the column dataset_size, such as "samples of 64 tokens".')
    ] = "samples",
    errors: Annotated[
        str,
        typer.Option(
            help="linearised, or bootstrap where F1 scatters more at some points.",
            autocompletion=one_of("linearised", "bootstrap"),
        ),
    ] = "linearised",
    form: Annotated[
        str,
        typer.Option(
            help="Of the curve: logistic (the published one), hill or probit.",
            autocompletion=one_of("logistic", "hill", "probit"),
        ),
    ] = "logistic",
    overwrite: Overwrite = False,
) -> None:
    """The law's constants with errors from F1 of your own models; writes tables, settings.json and law.png."""
    from memorization import fit_mi_scaling_law

    table = _read_csv(runs, ("capacity", "dataset_size", "f1"))
    claim(output, overwrite)
    law = fit_mi_scaling_law(
        table["capacity"],
        table["dataset_size"],
        table["f1"],
        covariate=covariate,  # type: ignore[arg-type]  # checked there
        capacity_unit=capacity_unit,
        dataset_unit=dataset_unit,
        weights=table.get("weight"),
        errors=errors,  # type: ignore[arg-type]
        form=form,  # type: ignore[arg-type]
        n_evaluated=table.get("n_evaluated"),
    )
    print(law)
    used = ("capacity", "dataset_size", "f1", "weight", "n_evaluated")
    unused = [str(name) for name in table.columns if name not in used]
    if unused:
        print(f"  not used     columns {', '.join(unused)}")
    save(law, output)
    draw(law, output)


def predict(
    params: Annotated[float, typer.Option(help="Parameters of the model, as in 7e9.")],
    tokens: Annotated[float, typer.Option(help="Tokens of its training set, as in 2e12.")],
    law: Annotated[Path | None, typer.Option(help="Folder of a fit.  [default: the published law]")] = None,
    bits_per_param: Annotated[float, typer.Option(help="That the ceiling takes a parameter to hold.")] = 3.6,
) -> None:
    """F1 of a loss-threshold attack on a model, the ceiling of any, and the sizes at which F1 is 0.55 to 0.95."""
    from memorization import MIScalingLaw
    from memorization.results import counted

    for name, value in (("--params", params), ("--tokens", tokens)):
        if not 0 < value < math.inf:
            raise InputError(f"{name} must be a finite number above 0, such as 7e9; it is {value:g}.")
    used = MIScalingLaw.published() if law is None else MIScalingLaw.load(law)
    per_sample = _tokens_a_sample(used, law)
    size = tokens / per_sample
    words = _f1_in_words(used, params, size)
    ceiling = _ceiling_in_words(params, size, bits_per_param)
    print(f"law          {law or used.settings['source']}")
    print(f"model        {params:,.0f} parameters")
    print(f"data         {tokens:,.0f} tokens, taken as {size:,.0f} samples of {counted(per_sample, 'token')}")
    print(f"F1           {words}")
    if "not_identified" in used.settings:
        print(f"             NOT IDENTIFIED: {used.settings['not_identified']}")
    print(f"ceiling      {ceiling}")
    for wanted in (0.55, 0.75, 0.95):
        try:
            there = used.dataset_size(params, wanted).item()
        except InputError as error:
            print(f"F1 of {wanted}   at no data-set size: {error}")
        else:
            beyond = "" if used.within_points(params, there) else " (beyond the law's points)"
            print(f"F1 of {wanted}   at {there:,.0f} samples, {there * per_sample:,.0f} tokens{beyond}")


def _read_csv(path: Path, needed: tuple[str, ...]) -> "pd.DataFrame":
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' own errors of bad or empty files are ValueErrors
        raise InputError(f"{path} cannot be read as a CSV file: {error}.") from error
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise InputError(
            f"{path} needs the columns {', '.join(needed)} (and may have weight and n_evaluated); it lacks "
            f"{', '.join(missing)} and has {', '.join(map(str, table.columns))}."
        )
    return table


def _tokens_a_sample(law: "MIScalingLaw", folder: Path | None) -> int:
    """Tokens of a sample in the law's unit of data; refuses a law in units other than parameters and such samples."""
    found = re.fullmatch(r"samples of ([1-9]\d*) tokens", law.dataset_unit)
    if law.capacity_unit != "parameters" or found is None:
        raise InputError(
            f'the law in {folder} takes capacity in "{law.capacity_unit}" and data in "{law.dataset_unit}", but '
            f"--params and --tokens "
            'are for "parameters" and "samples of N tokens". Fit with such units, or use '
            "MIScalingLaw.load(folder).predict in Python."
        )
    return int(found[1])


def _f1_in_words(law: "MIScalingLaw", params: float, n_samples: float) -> str:
    """F1 to four digits where the law has points. Elsewhere its end is no measurement, and 0.5000 no finding."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)  # said in other words below
        f1 = law.predict(params, n_samples).item()
    if law.within_points(params, n_samples):
        return f"{f1:.4f} (0.5 is chance)"
    low, high = sorted(law.ratios) if law.covariate == "data/capacity" else sorted(1 / end for end in law.ratios)
    points = "nobody knows where its points lie" if math.isnan(low) else f"its points lie at {low:.3g} to {high:.3g}"
    where = f"{n_samples / params:.3g} samples a parameter"
    return f"unknown: the law would say {f1:.1f}, but {where} is extrapolated; {points}"


def _ceiling_in_words(params: float, n_samples: float, bits_per_param: float) -> str:
    from memorization.scaling_law import attack_ceiling

    if not 0 < bits_per_param < math.inf:
        raise InputError(f"--bits-per-param must be above 0, such as 3.6; it is {bits_per_param:g}.")
    ceiling = attack_ceiling(params * bits_per_param, n_samples).item()
    return (
        f"{ceiling:.3f} is the most that any attack's mean accuracy can be, if a parameter holds {bits_per_param:g} "
        f"bits ({params * bits_per_param / n_samples:.3g} bits a sample)"
    )
