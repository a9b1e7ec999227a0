"""Commands that measure models which are there: memU, code lengths, membership attacks, extraction."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memorization.cli.options import (
    AllowPickle,
    BatchSize,
    Data,
    Device,
    Dtype,
    FirstToken,
    Limit,
    MaxLength,
    Output,
    Overwrite,
    Quiet,
    SkipLossy,
    Stride,
    TextColumn,
    TrustRemoteCode,
    read_batch_size,
    token,
)
from memorization.cli.output import claim, save, save_picture

if TYPE_CHECKING:
    from memorization.measure.code_lengths import CodeLengths
    from memorization.unintended import Memorization


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

    claim(output, overwrite)
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
        first_token=token(first_token),
        max_length=max_length,
        stride=stride,
        batch_size=read_batch_size(batch_size),
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
    save(result, output)


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
        claim(output, overwrite)
    result = compress_bits(
        model,
        data,
        tokenizer=tokenizer,
        first_token=token(first_token),
        max_length=max_length,
        stride=stride,
        batch_size=read_batch_size(batch_size),
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
        save(result, output)


def attack(
    target: Annotated[str, typer.Option(help="Checkpoint under audit: folder or hub id.")],
    members: Annotated[Path, typer.Option(help="Samples of its training data: .txt, .jsonl, .csv or .parquet.")],
    nonmembers: Annotated[Path, typer.Option(help="Samples drawn like them that it has not seen.")],
    output: Output,
    oracle: Annotated[
        str | None, typer.Option(help="Model that has seen neither, for the reference attack [no such attack].")
    ] = None,
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
    """Membership inference: how well each attack tells members from samples that the model has not seen."""
    from memorization.membership import audit_membership

    claim(output, overwrite)
    result = audit_membership(
        target,
        members,
        nonmembers,
        oracle=oracle,
        target_tokenizer=target_tokenizer,
        oracle_tokenizer=oracle_tokenizer,
        target_revision=target_revision,
        oracle_revision=oracle_revision,
        first_token=token(first_token),
        max_length=max_length,
        stride=stride,
        batch_size=read_batch_size(batch_size),
        device=device,
        dtype=dtype,
        text_column=text_column,
        limit=limit,
        on_lossy_text="skip" if skip_lossy else "raise",
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        progress=not quiet,
    )
    print(result)
    save(result, output)
    save_picture(result.plot().figure, output / "roc.png")


def extract(
    model: Annotated[str, typer.Option(help="Folder or hub id.")],
    data: Annotated[Path, typer.Option(help="Samples of its training data: .txt, .jsonl, .csv or .parquet.")],
    output: Output,
    heldout: Annotated[
        Path | None, typer.Option(help="Samples drawn like them that it has not seen: what it says of itself.")
    ] = None,
    prefix: Annotated[
        list[int] | None, typer.Option(help="Tokens that are given; several times [8 16 32, as samples are long].")
    ] = None,
    suffix: Annotated[int | None, typer.Option(help="Tokens that must come [all that follow].")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or hub id (default: the model's).")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a hub model.")] = None,
    first_token: FirstToken = "auto",
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
    """Extraction: given the first tokens of a sample, does greedy decoding give the rest, word for word?"""
    from memorization.extraction import extract as extraction

    claim(output, overwrite)
    result = extraction(
        model,
        data,
        heldout,
        prefix_tokens=prefix or "auto",
        suffix_tokens=suffix,
        tokenizer=tokenizer,
        revision=revision,
        first_token=token(first_token),
        batch_size=read_batch_size(batch_size),
        device=device,
        dtype=dtype,
        text_column=text_column,
        limit=limit,
        on_lossy_text="skip" if skip_lossy else "raise",
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        progress=not quiet,
    )
    print(result)
    save(result, output)
    save_picture(result.plot().figure, output / "extraction.png")


def _model_or_lengths(name: str) -> "str | CodeLengths":
    from memorization import CodeLengths

    return CodeLengths.load(name) if (Path(name) / "tokens.parquet").is_file() else name


def _most_memorized(result: "Memorization", n_shown: int = 5) -> str:
    table = result.to_pandas().nlargest(n_shown, "signed_bits")
    rows = [
        f"    sample {row.sample:>7}: memU {row.bits:>9.2f} bits; {row.target_bits:>9.2f} under the target, "
        f"{row.oracle_bits:>9.2f} under the oracle"
        for row in table.itertuples()
    ]
    return "\n".join(["  most memorized (samples counted from 0, blank rows left out)", *rows])
