"""Commands that train models: sweeps over text, the quickstart; and the examination of this machine."""

from pathlib import Path
from typing import Annotated

import typer

from memorization.cli.options import (
    Address,
    Arch,
    Documents,
    EngineName,
    GpusAStack,
    Layers,
    Output,
    OutputWithRuns,
    OverwriteKeepingRuns,
    Quiet,
    Seeds,
    SeqLen,
    ShardOf,
    Store,
    TextColumn,
    TrainingDevice,
    read_engine,
)
from memorization.cli.output import KEPT, NOT_WRITTEN, claim, draw, only_a_share, save


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
    device: TrainingDevice = None,
    store: Store = None,
    engine: EngineName = "local",
    address: Address = None,
    gpus_a_stack: GpusAStack = 1.0,
    shard: ShardOf = None,
    overwrite: OverwriteKeepingRuns = False,
    quiet: Quiet = False,
) -> None:
    """Train on more and more text: double descent, memU, membership, extraction. About 15 minutes on two cores."""
    from memorization import Capacity
    from memorization.lab.architectures import Architecture
    from memorization.lab.text import text_sweep as sweep
    from memorization.lab.text.documents import grouped_documents_of

    claim(output, overwrite, keeps=f"finished runs are kept in {store or output / 'runs'}")
    widths = sorted(width or [16, 32, 64])
    texts, labels = grouped_documents_of(documents, text_column, groups)
    with only_a_share():
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
            store=store or output / "runs",
            engine=read_engine(engine, address, gpus_a_stack, shard),
            progress=not quiet,
        )
    print(result)
    save(result, output)
    draw(result, output)
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
    from memorization.results import check_free

    check_free(output, overwrite=True)
    KEPT.set(f"a model that is trained is kept in {output}, and the same command goes on from there")
    result = run_quickstart(output, seed=seed, progress=not quiet)
    print(result)
    print()
    save(result, output)
    draw(result, output)
    print(f"{result.seconds:.0f} s in all")


def doctor() -> None:
    """Versions, devices, threads, and a self-test of a few seconds."""
    from memorization.lab.doctor import examine

    examination = examine()
    print(examination)
    if not examination.healthy:
        raise typer.Exit(NOT_WRITTEN)
