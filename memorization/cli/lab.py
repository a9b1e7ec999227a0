"""Commands that train models: capacity, sweeps over text, the quickstart; and the examination of this machine."""

import ast
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memorization.cli.options import (
    Arch,
    ArchOrFile,
    Device,
    Documents,
    Layers,
    Output,
    OutputWithRuns,
    OverwriteKeepingRuns,
    Quiet,
    Seeds,
    SeqLen,
    TextColumn,
    one_of,
    read_batch_size,
)
from memorization.cli.output import KEPT, NOT_WRITTEN, claim, save, save_picture
from memorization.errors import InputError

if TYPE_CHECKING:
    from memorization import Capacity

_ESTIMATORS = ("max", "plateau", "slope", "slope_origin", "mean")


def capacity(
    output: OutputWithRuns,
    arch: ArchOrFile = "gpt2",
    argument: Annotated[
        list[str] | None,
        typer.Option("--arg", metavar="NAME=VALUE", help="For your own builder; several times.  [default: none]"),
    ] = None,
    layers: Layers = 1,
    width: Annotated[
        list[int] | None, typer.Option(help="Of the model; several times: several model sizes.  [default: 8]")
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
    device: Device = None,
    anchor: Annotated[
        bool, typer.Option("--anchor", help="Measure GPT-2 of equal size by the same protocol, too, and compare.")
    ] = False,
    overwrite: OverwriteKeepingRuns = False,
    quiet: Quiet = False,
) -> None:
    """How many bits an architecture holds per parameter: trained on random tokens until it holds no more."""
    from memorization import capacity_bits_per_param
    from memorization.lab.architectures import Architecture, solve_width
    from memorization.lab.architectures.named import builder_named
    from memorization.lab.capacity.experiment import MULTIPLES, PAPER_ROWS, QUICK_STEPS

    claim(output, overwrite, keeps_runs=True)
    if (budget_seconds is not None) + (steps is not None) + quick > 1:
        raise InputError("give one of --quick, --budget and --steps: each says how long to train.")
    widths = width or [8]
    if paper_row is not None:
        layers, one_width = _paper_row(paper_row, list(PAPER_ROWS))
        arch, widths, vocab_size, seq_len = "gpt2", [one_width], 2048, 64
    if ":" in arch:
        builders: list[Any] = [builder_named(arch, _arguments(argument or []))]
        if width or layers != 1:
            raise InputError("--layers and --width are of the built-in architectures; pass yours with --arg.")
    else:
        if argument:
            raise InputError(
                f"--arg is for a builder of your own (file.py:function); {arch} takes --layers and --width."
            )
        builders = [Architecture(arch, layers=layers, width=each) for each in widths]
    measure = partial(
        capacity_bits_per_param,
        vocab_size=vocab_size,
        seq_len=seq_len,
        data_multiples=data_multiples or (MULTIPLES[:-1] if quick else MULTIPLES),
        seeds=range(seeds),
        steps=QUICK_STEPS if quick else "auto" if steps is None else steps,
        dtype=dtype,  # type: ignore[arg-type]
        device=device,
        store=output / "runs",
        progress=not quiet,
        budget_seconds=None if budget_seconds is None else _seconds(budget_seconds),
        peak_lr="auto" if peak_lr is None else peak_lr,
        batch_size=read_batch_size(batch_size),
        estimator=estimator,  # type: ignore[arg-type]
        convention=convention,  # type: ignore[arg-type]
    )
    result = measure(builders)
    print(result)
    if anchor:
        equal = solve_width("gpt2", int(result.n_params[-1]), vocab_size=vocab_size, seq_len=seq_len)
        beside = measure([equal])
        print(_compared(result, beside))
        save(beside, output / "anchor")
    if paper_row is not None:
        in_float32, in_bfloat16 = PAPER_ROWS[layers, widths[0]]
        tokens = result.settings["tokens_trained_a_run"][0]
        print(
            f"  the paper    {in_float32} in float32, {in_bfloat16} in bfloat16, 1.3e11 tokens a run; here "
            f"{result.bits_per_param:.2f} in {dtype}, {tokens:.1e} tokens"
        )
    save(result, output)
    save_picture(result.plot().figure, output / "capacity.png")


def text_sweep(
    output: OutputWithRuns,
    documents: Documents = None,
    arch: Arch = "gpt2",
    layers: Layers = 1,
    width: Annotated[
        list[int] | None, typer.Option(help="Of a model; several times: several sizes.  [default: 16 32 64]")
    ] = None,
    seq_len: SeqLen = 32,
    vocab_size: Annotated[
        int | None, typer.Option(help="Of the byte-level BPE that is trained on the texts.  [default: 512]")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or hub id, in place of one that is trained.")] = None,
    n_samples: Annotated[
        list[int] | None,
        typer.Option(
            "--size", help="A data set, in samples; several times.  [default: powers of two around the capacity]"
        ),
    ] = None,
    n_test: Annotated[int, typer.Option("--test-samples", help="Samples that no model is trained on.")] = 1024,
    seeds: Seeds = 2,
    steps: Annotated[int, typer.Option(help="Of each run.")] = 3000,
    batch_size: Annotated[int, typer.Option(help="Samples a step.")] = 32,
    peak_lr: Annotated[
        float | None, typer.Option(help="Learning rate.  [default: found by a pilot for each size]")
    ] = None,
    oracle: Annotated[str | None, typer.Option(help="Model of the same tokenizer, in place of trained ones.")] = None,
    oracle_layers: Annotated[
        int | None, typer.Option(help="Of the trained oracles.  [default: as many as the models']")
    ] = None,
    oracle_width: Annotated[
        int | None, typer.Option(help="Of the trained oracles.  [default: the largest model's]")
    ] = None,
    oracle_epochs: Annotated[float, typer.Option(help="Passes of an oracle over its samples.")] = 2.0,
    folds: Annotated[int, typer.Option(help="Cross-fitted oracles.")] = 2,
    bits_per_param: Annotated[float, typer.Option(help="Capacity of a parameter, for data/capacity.")] = 3.6,
    capacity_of: Annotated[
        Path | None,
        typer.Option(
            "--capacity", help="Folder of `memorization capacity` with these models, in place of --bits-per-param."
        ),
    ] = None,
    prefix_tokens: Annotated[
        list[int] | None, typer.Option("--prefix", help="Tokens given for extraction; several times.  [default: 8 16]")
    ] = None,
    text_column: TextColumn = "text",
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column that names the document of each text.  [default: each text is one]"
        ),
    ] = None,
    samples_per_document: Annotated[
        int | None, typer.Option(help="Only the first so many samples of each document.  [default: all]")
    ] = None,
    device: Device = None,
    overwrite: OverwriteKeepingRuns = False,
    quiet: Quiet = False,
) -> None:
    """Train on more and more text: double descent, memU, membership, extraction. About 15 minutes on two cores."""
    from memorization import Capacity
    from memorization.lab.architectures import Architecture
    from memorization.lab.text import text_sweep as sweep
    from memorization.lab.text.documents import grouped_documents_of

    claim(output, overwrite, keeps_runs=True)
    widths = sorted(width or [16, 32, 64])
    texts, labels = grouped_documents_of(documents, text_column, groups)
    result = sweep(
        [Architecture(arch, layers=layers, width=each) for each in widths],
        texts,
        groups=labels,
        samples_per_document=samples_per_document,
        seq_len=seq_len,
        vocab_size=vocab_size,
        tokenizer=tokenizer,
        n_samples=n_samples or "auto",
        n_test=n_test,
        seeds=range(seeds),
        steps=steps,
        batch_size=batch_size,
        peak_lr="auto" if peak_lr is None else peak_lr,
        oracle=oracle,
        build_oracle=Architecture(arch, layers=oracle_layers or layers, width=oracle_width or widths[-1]),
        oracle_epochs=oracle_epochs,
        folds=folds,
        bits_per_param=bits_per_param if capacity_of is None else Capacity.load(capacity_of),
        prefix_tokens=prefix_tokens or (8, 16),
        device=device,
        store=output / "runs",
        progress=not quiet,
    )
    print(result)
    save(result, output)
    save_picture(result.plot(), output / "sweep.png")
    result.cells.to_csv(output / "cells.csv", index=False)
    laws = result.laws()
    if len(laws):
        laws.to_csv(output / "laws.csv", index=False)
        print("membership laws of F1 (n_params 0: all sizes)")
        print(laws.to_string(index=False, float_format=lambda number: f"{number:.4g}"))


def quickstart(
    output: Output = Path("quickstart"),
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the batches.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Offline demonstration: train a target and an oracle, and measure both. About a minute and a half on one core."""
    from memorization.lab.quickstart import run_quickstart
    from memorization.report.quickstart import plot_quickstart

    KEPT.set(f"a model that is trained is kept in {output}, and the same command goes on from there")
    result = run_quickstart(output, seed=seed, progress=not quiet)
    print(result)
    picture = output / "quickstart.png"
    plot_quickstart(result, picture)
    print(f"\nPicture: {picture}   ({result.seconds:.0f} s in all)")


def doctor() -> None:
    """Versions, devices, threads, and a self-test of a few seconds."""
    from memorization.lab.doctor import examine

    examination = examine()
    print(examination)
    if not examination.healthy:
        raise typer.Exit(NOT_WRITTEN)


def _compared(result: "Capacity", beside: "Capacity") -> str:
    """The largest model beside GPT-2 of equal size."""
    mine = float(result.capacity_bits[-1] / result.n_params[-1])
    theirs = beside.bits_per_param
    line = f"  anchor       GPT-2 of {beside.n_params[0]:,} parameters: {theirs:.3f}; yours: {mine:.3f}"
    if theirs <= 0:
        return line
    ratio = mine / theirs
    errors = [result.stderr / mine if len(result.n_params) == 1 else math.nan, beside.stderr / theirs]
    error = abs(ratio) * math.hypot(*errors)
    known = "" if math.isnan(error) else f" \N{PLUS-MINUS SIGN} {error:.3f} (between seeds)"
    return f"{line}; ratio {ratio:.3f}{known}"


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
