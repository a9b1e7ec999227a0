"""Commands of the membership law: fit and predict."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memorization.cli.options import Output, Overwrite, one_of
from memorization.cli.output import claim, save, save_picture
from memorization.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from memorization.scaling_law import MIScalingLaw


def fit(
    runs: Annotated[Path, typer.Option(help="CSV, a row a model: capacity, dataset_size, f1, optionally weight.")],
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
    overwrite: Overwrite = False,
) -> None:
    """Three constants with errors from F1 of your own models; writes tables, settings.json and law.png."""
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
    )
    print(law)
    unused = [str(name) for name in table.columns if name not in ("capacity", "dataset_size", "f1", "weight")]
    if unused:
        print(f"  not used     columns {', '.join(unused)}")
    save(law, output)
    save_picture(law.plot().figure, output / "law.png")


def predict(
    params: Annotated[float, typer.Option(help="Parameters of the model, as in 7e9.")],
    tokens: Annotated[float, typer.Option(help="Tokens of its training set, as in 2e12.")],
    law: Annotated[Path | None, typer.Option(help="Folder of a fit.  [default: the published law]")] = None,
) -> None:
    """F1 of a loss-threshold attack on a model, and the data-set sizes at which F1 would be 0.55, 0.75 and 0.95."""
    from memorization import MIScalingLaw

    used = MIScalingLaw.published() if law is None else MIScalingLaw.load(law)
    per_sample = _tokens_a_sample(used, law)
    size = tokens / per_sample
    f1 = used.predict(params, size).item()
    print(f"law          {law or used.settings['source']}")
    print(f"model        {params:,.0f} parameters")
    print(f"data         {tokens:,.0f} tokens, taken as {size:,.0f} samples of {per_sample:,} tokens")
    print(f"F1           {f1:.4f} (0.5 is chance)")
    for doubt in _doubts(used, size / params):
        print(f"             {doubt}")
    for wanted in (0.55, 0.75, 0.95):
        try:
            there = used.dataset_size(params, wanted).item()
        except InputError as error:
            print(f"F1 of {wanted}   at no data-set size: {error}")
        else:
            print(f"F1 of {wanted}   at {there:,.0f} samples, {there * per_sample:,.0f} tokens")


def _read_csv(path: Path, needed: tuple[str, ...]) -> "pd.DataFrame":
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' own errors of bad or empty files are ValueErrors
        raise InputError(f"{path} cannot be read as a CSV file: {error}.") from error
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise InputError(
            f"{path} needs the columns {', '.join(needed)} (and may have weight); it lacks {', '.join(missing)} and "
            f"has {', '.join(map(str, table.columns))}."
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


def _doubts(law: "MIScalingLaw", data_per_capacity: float) -> list[str]:
    """Why a prediction at this ratio may be worth little."""
    found = [f"NOT IDENTIFIED: {law.settings['not_identified']}"] if "not_identified" in law.settings else []
    if law.points is not None:
        fitted = law.points["dataset_size"] / law.points["capacity"]
        if not fitted.min() <= data_per_capacity <= fitted.max():
            found.append(
                f"extrapolated: {data_per_capacity:.3g} samples a parameter; fitted at {fitted.min():.3g} to "
                f"{fitted.max():.3g}"
            )
    return found
