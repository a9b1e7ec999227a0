"""The command line: parse, call one public function, print and write."""

import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memorization.errors import InputError, MeasurementWarning, ModelError, ResultError

if TYPE_CHECKING:
    import pandas as pd

    from memorization.capacity import Capacity
    from memorization.compression import CodeLengths
    from memorization.scaling_law import MIScalingLaw
    from memorization.unintended import Memorization

BAD_INPUT, NOT_WRITTEN, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    help="Say in exact bits what a language model knows about a text, and what of that it merely memorized.",
    epilog="--debug, anywhere on the line, shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
mi_law = typer.Typer(
    help="How well membership can be inferred from the sizes of data set and model: the scaling law of its F1.",
    no_args_is_help=True,
)
app.add_typer(mi_law, name="mi-law")


Data = Annotated[Path, typer.Option(help="Samples: .txt (one a line), .jsonl, .csv or .parquet.")]
Output = Annotated[Path, typer.Option(help="Folder for the results.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the results of an earlier run in the output folder.")
]
FirstToken = Annotated[
    str, typer.Option(help="What the first token is coded with: auto, bos, uniform, skip, a token, or the id of one.")
]
MaxLength = Annotated[int | None, typer.Option(help="Tokens a window holds (default: the model's limit).")]
Stride = Annotated[
    int | None, typer.Option(help="New tokens of each window after the first (default: half of max-length).")
]
BatchSize = Annotated[str, typer.Option(help="Samples a forward pass; auto fits it to the memory.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... (default: a GPU if there is one).")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 ... (default: the checkpoint's own).")]
TextColumn = Annotated[str, typer.Option(help="Column that holds the texts, or lists of token ids.")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many samples.")]
SkipLossy = Annotated[bool, typer.Option("--skip-lossy", help="Leave out texts the tokenizer does not give back.")]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that a checkpoint brings.")]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights, which can run code.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


@app.command()
def measure(
    target: Annotated[
        str, typer.Option(help="Checkpoint under audit: folder, hub id, or a folder of saved code lengths.")
    ],
    oracle: Annotated[str, typer.Option(help="Best model of such text that has not seen it: the same.")],
    data: Data,
    output: Output,
    control: Annotated[Path | None, typer.Option(help="Samples like the data that neither model has seen.")] = None,
    joint: Annotated[str, typer.Option(help="max (the paper's, clipped at 0) or mixture (a proper code).")] = "max",
    target_tokenizer: Annotated[str | None, typer.Option(help="Folder or hub id (default: the target's).")] = None,
    oracle_tokenizer: Annotated[str | None, typer.Option(help="Folder or hub id (default: the oracle's).")] = None,
    target_revision: Annotated[str | None, typer.Option(help="Of a hub model.")] = None,
    oracle_revision: Annotated[str | None, typer.Option(help="Of a hub model.")] = None,
    first_token: FirstToken = "auto",
    max_length: MaxLength = None,
    stride: Stride = None,
    batch_size: BatchSize = "auto",
    device: Device = None,
    dtype: Dtype = None,
    text_column: TextColumn = "text",
    limit: Limit = None,
    skip_lossy: SkipLossy = False,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Unintended memorization of the samples: target against oracle, bits a sample and a token."""
    from memorization import unintended_memorization

    _claim(output, overwrite)
    result = unintended_memorization(
        _model_or_lengths(target),
        _model_or_lengths(oracle),
        data,
        joint=joint,  # type: ignore[arg-type]  # checked there
        control=control,
        target_tokenizer=target_tokenizer,
        oracle_tokenizer=oracle_tokenizer,
        target_revision=target_revision,
        oracle_revision=oracle_revision,
        first_token=_token(first_token),
        max_length=max_length,
        stride=stride,
        batch_size=_batch_size(batch_size),
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        text_column=text_column,
        limit=limit,
        on_lossy_text="skip" if skip_lossy else "raise",
        progress=not quiet,
        allow_pickle=allow_pickle,
    )
    print(result)
    print(_most_memorized(result))
    _save(result, output)


@app.command()
def bits(
    model: Annotated[str, typer.Option(help="Folder or hub id.")],
    data: Data,
    output: Annotated[Path | None, typer.Option(help="Folder for the results (default: only print).")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or hub id (default: the model's).")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a hub model.")] = None,
    first_token: FirstToken = "auto",
    max_length: MaxLength = None,
    stride: Stride = None,
    batch_size: BatchSize = "auto",
    device: Device = None,
    dtype: Dtype = None,
    text_column: TextColumn = "text",
    limit: Limit = None,
    skip_lossy: SkipLossy = False,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Exact code length of the samples under one model, bits a sample and a token."""
    from memorization import compress_bits

    if output is not None:
        _claim(output, overwrite)
    result = compress_bits(
        model,
        data,
        tokenizer=tokenizer,
        first_token=_token(first_token),
        max_length=max_length,
        stride=stride,
        batch_size=_batch_size(batch_size),
        device=device,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
        text_column=text_column,
        limit=limit,
        on_lossy_text="skip" if skip_lossy else "raise",
        progress=not quiet,
        allow_pickle=allow_pickle,
    )
    print(result)
    if output is not None:
        _save(result, output)


@app.command()
def capacity(
    output: Annotated[Path, typer.Option(help="Folder for the results. Finished runs are kept in its runs/.")],
    arch: Annotated[str, typer.Option(help="gpt2, llama, moe, mamba, rwkv, lstm, gru or mlp.")] = "gpt2",
    layers: Annotated[int, typer.Option(help="Blocks.")] = 1,
    width: Annotated[
        list[int] | None, typer.Option(help="Of the model [8]. Given several times: several model sizes.")
    ] = None,
    vocab_size: Annotated[int, typer.Option(help="Tokens to choose from.")] = 128,
    seq_len: Annotated[int, typer.Option(help="Tokens of a sample.")] = 32,
    paper_row: Annotated[
        str | None, typer.Option(help="Layers,width of the paper's Table 1, in place of the five options above: 1,32.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A first answer: at most 3 minutes, data to 4 times the expected capacity.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(help="Time for training: 90s, 30m, 2h [10m]. Steps double until it ends.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="In place of a budget: of the last of three rounds.")] = None,
    multiple: Annotated[
        list[float] | None,
        typer.Option(help="Data sets, in multiples of the expected capacity; several times [0.5 1 2 4 8]."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each cell.")] = 2,
    peak_lr: Annotated[float | None, typer.Option(help="Hotter rate of the first round [found by a pilot].")] = None,
    batch_size: Annotated[str, typer.Option(help="Samples a step; auto: a quarter of twice the capacity.")] = "auto",
    estimator: Annotated[str, typer.Option(help="max, plateau, slope, slope_origin or mean.")] = "max",
    convention: Annotated[str, typer.Option(help="Which tokens count: start, strict or paper.")] = "start",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 (the weights too) or autocast.")] = "float32",
    device: Device = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results of an earlier call; its finished runs are used.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """How many bits an architecture holds per parameter: trained on random tokens until it holds no more."""
    from memorization import capacity_bits_per_param
    from memorization.lab.architectures import Architecture
    from memorization.lab.synthetic import MULTIPLES, PAPER_ROWS

    _claim(output, overwrite)
    if (budget is not None) + (steps is not None) + quick > 1:
        raise InputError("give one of --quick, --budget and --steps: each says how long to train")
    widths = width or [8]
    if paper_row is not None:
        layers, one_width = _paper_row(paper_row, list(PAPER_ROWS))
        arch, widths, vocab_size, seq_len = "gpt2", [one_width], 2048, 64
    result = capacity_bits_per_param(
        [Architecture(arch, layers=layers, width=each) for each in widths],
        vocab_size=vocab_size,
        seq_len=seq_len,
        data_multiples=multiple or (MULTIPLES[:-1] if quick else MULTIPLES),
        seeds=range(seeds),
        steps="auto" if steps is None else steps,
        dtype=dtype,  # type: ignore[arg-type]
        device=device,
        store=output / "runs",
        progress=not quiet,
        budget_seconds=150.0 if quick else _seconds(budget or "10m"),
        peak_lr="auto" if peak_lr is None else peak_lr,
        batch_size=_batch_size(batch_size),
        estimator=estimator,  # type: ignore[arg-type]
        convention=convention,  # type: ignore[arg-type]
    )
    print(result)
    if paper_row is not None:
        in_float32, in_bfloat16 = PAPER_ROWS[layers, widths[0]]
        tokens = result.settings["tokens_trained_a_run"][0]
        print(
            f"  the paper    {in_float32} in float32, {in_bfloat16} in bfloat16, 1.3e11 tokens a run; here "
            f"{result.bits_per_param:.2f} in {dtype}, {tokens:.1e} tokens"
        )
    picture = output / "capacity.png"
    result.plot().figure.savefig(picture, dpi=150)  # type: ignore[union-attr]
    print(f"picture: {picture}")
    _save(result, output)


@mi_law.command("fit")
def mi_law_fit(
    runs: Annotated[Path, typer.Argument(help="CSV, a row a model: capacity, dataset_size, f1, optionally weight.")],
    output: Output,
    covariate: Annotated[str, typer.Option(help="x of the law: data/capacity or capacity/data.")] = "data/capacity",
    capacity_unit: Annotated[str, typer.Option(help="Of the column capacity, such as parameters.")] = "bits",
    dataset_unit: Annotated[
        str, typer.Option(help='Of the column dataset_size, such as "samples of 64 tokens".')
    ] = "samples",
    errors: Annotated[
        str, typer.Option(help="linearised, or bootstrap where F1 scatters more at some points.")
    ] = "linearised",
    overwrite: Overwrite = False,
) -> None:
    """Three constants with errors from F1 of your own models; writes tables, settings.json and law.png."""
    from memorization import fit_mi_scaling_law

    table = _read_csv(runs, ("capacity", "dataset_size", "f1"))
    _claim(output, overwrite)
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
    picture = output / "law.png"
    law.plot().figure.savefig(picture, dpi=150)  # type: ignore[union-attr]
    print(f"picture: {picture}")
    _save(law, output)


@mi_law.command("predict")
def mi_law_predict(
    params: Annotated[float, typer.Option(help="Parameters of the model, as in 7e9.")],
    tokens: Annotated[float, typer.Option(help="Tokens of its training set, as in 2e12.")],
    law: Annotated[Path | None, typer.Option(help="Folder of a fit (default: the published law).")] = None,
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


@app.command()
def quickstart(
    output: Output = Path("quickstart"),
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the batches.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Offline demonstration: train a target that memorizes and an oracle that has not seen, and measure both. 3 minutes."""
    from memorization.lab.quickstart import run_quickstart
    from memorization.report.plots import plot_quickstart

    result = run_quickstart(output, seed=seed, progress=not quiet)
    print(result)
    picture = output / "quickstart.png"
    plot_quickstart(result, picture)
    print(f"\nPicture: {picture}   ({result.seconds:.0f} s in all)")


@app.command()
def doctor() -> None:
    """Versions, devices, threads, and a self-test of a few seconds."""
    from memorization.lab.doctor import examine

    examination = examine()
    print(examination)
    if not examination.healthy:
        raise typer.Exit(NOT_WRITTEN)


def _model_or_lengths(name: str) -> "str | CodeLengths":
    from memorization import CodeLengths

    return CodeLengths.load(name) if (Path(name) / "tokens.parquet").is_file() else name


def _token(first_token: str) -> str | int:
    return int(first_token) if first_token.isdecimal() else first_token


def _seconds(duration: str) -> float:
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        return float(duration[:-1]) * units[duration[-1:]]
    except (KeyError, ValueError):
        raise InputError(f"--budget must be a number with its unit, as in 90s, 30m or 2h; it is {duration!r}") from None


def _paper_row(row: str, rows: list[tuple[int, int]]) -> tuple[int, int]:
    """Layers and width of a row of the paper's table."""
    layers, _, width = row.partition(",")
    found = [each for each in rows if [str(number) for number in each] == [layers.strip(), width.strip()]]
    if not found:
        known = " ".join(f"{layers},{width}" for layers, width in rows)
        raise InputError(f"--paper-row must be one of {known}; it is {row!r}")
    return found[0]


def _read_csv(path: Path, needed: tuple[str, ...]) -> "pd.DataFrame":
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' own errors of bad or empty files are ValueErrors
        raise InputError(f"{path} cannot be read as a CSV file: {error}") from error
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise InputError(
            f"{path} needs the columns {', '.join(needed)} (and may have weight); it lacks {', '.join(missing)} and has "
            f"{', '.join(map(str, table.columns))}"
        )
    return table


def _tokens_a_sample(law: "MIScalingLaw", folder: Path | None) -> int:
    """Tokens of a sample in the law's unit of data; refuses a law that takes something else than parameters and such samples."""
    found = re.fullmatch(r"samples of ([1-9]\d*) tokens", law.dataset_unit)
    if law.capacity_unit != "parameters" or found is None:
        raise InputError(
            f'the law in {folder} takes capacity in "{law.capacity_unit}" and data in "{law.dataset_unit}", but --params and --tokens '
            'are for "parameters" and "samples of N tokens". Fit with such units, or use MIScalingLaw.load(folder).predict in Python'
        )
    return int(found[1])


def _doubts(law: "MIScalingLaw", data_per_capacity: float) -> list[str]:
    """Why a prediction at this ratio may be worth little."""
    found = [f"NOT IDENTIFIED: {law.settings['not_identified']}"] if "not_identified" in law.settings else []
    if law.points is not None:
        fitted = law.points["dataset_size"] / law.points["capacity"]
        if not fitted.min() <= data_per_capacity <= fitted.max():
            found.append(
                f"extrapolated: {data_per_capacity:.3g} samples a parameter; fitted at {fitted.min():.3g} to {fitted.max():.3g}"
            )
    return found


def _batch_size(batch_size: str) -> Any:
    if batch_size == "auto":
        return "auto"
    if not batch_size.isdecimal():
        raise InputError(f"--batch-size must be auto or a number; it is {batch_size!r}")
    return int(batch_size)


def _claim(output: Path, overwrite: bool) -> None:
    """Find out before measuring whether the results can be written."""
    if (output / "settings.json").exists() and not overwrite:
        raise InputError(f"{output} holds the results of an earlier run: name another --output, or pass --overwrite")
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise InputError(f"--output {output} cannot be written to: {error.strerror or error}") from error


def _save(result: "Memorization | CodeLengths | Capacity | MIScalingLaw", output: Path) -> None:
    """Write to the output folder; where that fails, to a temporary one, and say so."""
    try:
        result.save(output)
    except OSError as error:
        rescue = Path(tempfile.mkdtemp(prefix="memorization-"))
        result.save(rescue)
        _complain(f"could not write to {output} ({error.strerror or error}); what was measured is in {rescue}")
        raise typer.Exit(NOT_WRITTEN) from error
    print(f"written to {output}")


def _most_memorized(result: "Memorization", n_shown: int = 5) -> str:
    table = result.to_pandas().nlargest(n_shown, "signed_bits")
    rows = [
        f"    sample {row.sample:>7}: memU {row.bits:>9.2f} bits; {row.target_bits:>9.2f} under the target, "
        f"{row.oracle_bits:>9.2f} under the oracle"
        for row in table.itertuples()
    ]
    return "\n".join(["  most memorized (samples counted from 0, blank rows left out)", *rows])


def _complain(message: str) -> None:
    print(f"memorization: {message}", file=sys.stderr)


@contextmanager
def _readable_errors(debug: bool) -> Iterator[None]:
    """One line and an exit code in place of a traceback."""
    try:
        yield
    except (InputError, ModelError, ResultError) as error:
        if debug:
            raise
        _complain(str(error))
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        _complain(f"{type(error).__name__}: {error} (unexpected: run again with --debug, and report it)")
        sys.exit(NOT_WRITTEN)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the arguments are the process's own where none are given."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    with _readable_errors(debug), warnings.catch_warnings():
        warnings.simplefilter("always", MeasurementWarning)
        warnings.showwarning = lambda message, *_, **__: _complain(f"warning: {message}")
        app([argument for argument in arguments if argument != "--debug"], prog_name="memorization")


if __name__ == "__main__":
    main()
