"""The command that measures how much an architecture holds."""

import ast
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from memorization.cli.options import (
    ARCHITECTURES,
    Address,
    EngineName,
    GpusAStack,
    Layers,
    OutputWithRuns,
    OverwriteKeepingRuns,
    Quiet,
    Seeds,
    SeqLen,
    ShardOf,
    Store,
    TrainingDevice,
    one_of,
    read_batch_size,
    read_engine,
)
from memorization.cli.output import claim, draw, only_a_share, save
from memorization.errors import InputError

_ESTIMATORS = ("max", "plateau", "slope", "slope_origin", "mean")


def capacity(
    output: OutputWithRuns,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join(ARCHITECTURES)}; or your own: file.py:function, package.module:Builder. Several times: "
            "compared in one table.  [default: gpt2]",
            autocompletion=one_of(*ARCHITECTURES),
        ),
    ] = None,
    argument: Annotated[
        list[str] | None,
        typer.Option("--arg", metavar="NAME=VALUE", help="For your own builder; several times.  [default: none]"),
    ] = None,
    layers: Layers = 1,
    width: Annotated[
        list[int] | None, typer.Option(help="Of the model; several times: several model sizes.  [default: 8]")
    ] = None,
    n_params: Annotated[
        int | None,
        typer.Option("--params", help="Parameters of the model, in place of its width.  [default: by the width]"),
    ] = None,
    vocab_size: Annotated[int, typer.Option(help="Tokens to choose from.")] = 128,
    seq_len: SeqLen = 32,
    paper_row: Annotated[
        str | None, typer.Option(help="Layers,width of the paper's Table 1, in place of the five options above: 1,32.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A first answer: 12,000 steps, data to 4 times the expected capacity.")
    ] = False,
    budget_seconds: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="Time for training, in place of steps: 90s, 30m, 2h; these double until it ends.  [default: none]",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Of the last of three rounds.  [default: doubled from 750 to 24,000]")
    ] = None,
    data_multiples: Annotated[
        list[float] | None,
        typer.Option(
            "--multiple",
            help="Data sets, in multiples of the expected capacity; several times.  [default: 0.5 1 2 4 8]",
        ),
    ] = None,
    seeds: Seeds = 2,
    peak_lr: Annotated[
        float | None, typer.Option(help="Hotter rate of the first round.  [default: found by a pilot]")
    ] = None,
    batch_size: Annotated[str, typer.Option(help="Samples a step; auto: as many as fill the capacity.")] = "auto",
    estimator: Annotated[
        str, typer.Option(help=f"{', '.join(_ESTIMATORS)}.", autocompletion=one_of(*_ESTIMATORS))
    ] = "max",
    convention: Annotated[
        str,
        typer.Option(
            help="Which tokens count: start, strict or paper.", autocompletion=one_of("start", "strict", "paper")
        ),
    ] = "start",
    dtype: Annotated[
        str,
        typer.Option(
            help="float32, bfloat16 (the weights too) or autocast.",
            autocompletion=one_of("float32", "bfloat16", "autocast"),
        ),
    ] = "float32",
    device: TrainingDevice = None,
    anchor: Annotated[
        bool, typer.Option("--anchor", help="Measure GPT-2 of equal size by the same protocol, too, and compare.")
    ] = False,
    store: Store = None,
    engine: EngineName = "local",
    address: Address = None,
    gpus_a_stack: GpusAStack = 1.0,
    shard: ShardOf = None,
    overwrite: OverwriteKeepingRuns = False,
    quiet: Quiet = False,
) -> None:
    """How many bits an architecture holds per parameter: trained on random tokens until it holds no more."""
    from memorization import Capacity, capacity_bits_per_param, compare_capacities
    from memorization.lab.capacity.experiment import MULTIPLES, PAPER_ROWS, QUICK_STEPS

    claim(output, overwrite, keeps=f"finished runs are kept in {store or output / 'runs'}")
    if (budget_seconds is not None) + (steps is not None) + quick > 1:
        raise InputError("give one of --quick, --budget and --steps: each says how long to train.")
    names = arch or ["gpt2"]
    if paper_row is not None:
        layers, one_width = _paper_row(paper_row, list(PAPER_ROWS))
        names, width, n_params, vocab_size, seq_len = ["gpt2"], [one_width], None, 2048, 64
    several = len(names) > 1 or anchor
    if several and width is not None and len(width) > 1:
        raise InputError("several --arch, or --anchor, compare one size of each: give one --width, or --params.")
    given = _Given(layers, width, n_params, vocab_size, seq_len, _arguments(argument or []))
    builders = [build for name in names for build in _builders(name, given)]
    options: dict[str, Any] = {
        "vocab_size": vocab_size,
        "seq_len": seq_len,
        "data_multiples": data_multiples or (MULTIPLES[:-1] if quick else MULTIPLES),
        "seeds": range(seeds),
        "steps": QUICK_STEPS if quick else "auto" if steps is None else steps,
        "dtype": dtype,
        "device": device,
        "store": store or output / "runs",
        "engine": read_engine(engine, address, gpus_a_stack, shard),
        "progress": not quiet,
        "budget_seconds": None if budget_seconds is None else _seconds(budget_seconds),
        "peak_lr": "auto" if peak_lr is None else peak_lr,
        "batch_size": read_batch_size(batch_size),
        "estimator": estimator,
        "convention": convention,
    }
    with only_a_share():
        result = (
            compare_capacities(builders, names=names, anchor=anchor, **options)
            if several
            else capacity_bits_per_param(builders, **options)
        )
    print(result)
    if paper_row is not None and isinstance(result, Capacity):
        in_float32, in_bfloat16 = PAPER_ROWS[layers, given.widths[0]]
        tokens = result.settings["tokens_trained_a_run"][0]
        print(
            f"  the paper    {in_float32} in float32, {in_bfloat16} in bfloat16, 1.3e11 tokens a run; here "
            f"{result.bits_per_param:.2f} in {dtype}, {tokens:.1e} tokens"
        )
    save(result, output)
    table = result.curve if isinstance(result, Capacity) else result.to_pandas()
    table.to_csv(output / "capacity.csv", index=False)
    draw(result, output)


@dataclass(frozen=True, slots=True)
class _Given:
    """What the command line says of the models, whatever their architecture."""

    layers: int
    width: list[int] | None
    n_params: int | None
    vocab_size: int
    seq_len: int
    arguments: dict[str, Any]

    @property
    def widths(self) -> list[int]:
        return self.width or [8]


def _builders(name: str, given: _Given) -> list[Any]:
    """The builders of an architecture: one for each width."""
    from memorization.lab.architectures import Architecture, solve_width
    from memorization.lab.architectures.named import builder_named

    if ":" in name:
        if given.width or given.n_params or given.layers != 1:
            raise InputError("--layers, --width and --params are of the built-in architectures; pass yours with --arg.")
        return [builder_named(name, given.arguments)]
    if given.arguments:
        raise InputError(f"--arg is for a builder of your own (file.py:function); {name} takes --layers and --width.")
    if given.n_params is None:
        return [Architecture(name, layers=given.layers, width=each) for each in given.widths]
    if given.width:
        raise InputError("give --params or --width: the one is found from the other.")
    return [solve_width(name, given.n_params, vocab_size=given.vocab_size, seq_len=given.seq_len, layers=given.layers)]


def _arguments(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE as keywords; numbers, True, False and None are what they look like, all else is text."""
    found: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (equals and name.isidentifier()):
            raise InputError(f"--arg must be NAME=VALUE; it is {one!r}.")
        if name in found:
            raise InputError(f"--arg {name} is given twice.")
        try:
            found[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            found[name] = value
    return found


def _seconds(duration: str) -> float:
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        seconds = float(duration[:-1]) * units[duration[-1:]]
    except (KeyError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"--budget must be a number above 0 with its unit, as in 90s, 30m or 2h; it is {duration!r}.")
    return seconds


def _paper_row(row: str, rows: list[tuple[int, int]]) -> tuple[int, int]:
    """Layers and width of a row of the paper's table."""
    layers, _, width = row.partition(",")
    found = [each for each in rows if [str(number) for number in each] == [layers.strip(), width.strip()]]
    if not found:
        known = " ".join(f"{layers},{width}" for layers, width in rows)
        raise InputError(f"--paper-row must be one of {known}; it is {row!r}.")
    return found[0]
