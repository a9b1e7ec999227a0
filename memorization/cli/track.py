"""The command that measures the checkpoints of a training run."""

from typing import Annotated, Any

import typer

from memorization.cli.options import (
    AllowPickle,
    BatchSize,
    Control,
    Csv,
    Data,
    Device,
    Dtype,
    FirstToken,
    Groups,
    IdColumn,
    Keep,
    Limit,
    MaxBatchTokens,
    MaxLength,
    Messages,
    OracleRevision,
    OracleTokenizer,
    Output,
    Overwrite,
    PromptColumn,
    Quiet,
    SkipLossy,
    Stride,
    TargetTokenizer,
    TextColumn,
    TrustRemoteCode,
    one_of,
    read_batch_size,
    read_data,
    token,
)
from memorization.cli.output import KEPT, claim, draw, holds_result, save
from memorization.errors import InputError


def track(
    oracle: Annotated[
        str,
        typer.Option(
            "--oracle",
            help="Best model of such text that has not seen it, mostly the one that was fine-tuned: folder, hub id, a "
            "folder of saved code lengths or of the command measure; base-of-target: the base of an adapter.",
        ),
    ],
    samples: Data,
    output: Output,
    run: Annotated[
        str | None,
        typer.Option(
            "--run", help="Folder with checkpoint-N folders, as a Trainer writes it, or a glob.  [default: by --target]"
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="A checkpoint: folder or hub id; several times.  [default: by --run]"),
    ] = None,
    control: Control = None,
    joint: Annotated[
        str,
        typer.Option(
            help="max (the paper's, clipped at 0), or a proper code: mixture, or switch.",
            autocompletion=one_of("max", "mixture", "switch"),
        ),
    ] = "max",
    target_tokenizer: TargetTokenizer = None,
    oracle_tokenizer: OracleTokenizer = None,
    oracle_revision: OracleRevision = None,
    first_token: FirstToken = "auto",
    max_length: MaxLength = None,
    stride: Stride = None,
    batch_size: BatchSize = "auto",
    max_batch_tokens: MaxBatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    text_column: TextColumn = "text",
    prompt_column: PromptColumn = None,
    messages: Messages = False,
    limit: Limit = None,
    groups: Groups = None,
    id_column: IdColumn = None,
    keep: Keep = None,
    on_lossy_text: SkipLossy = False,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
    overwrite: Overwrite = False,
    csv: Csv = False,
    quiet: Quiet = False,
) -> None:
    """memU at each checkpoint of a training run, the oracle run once; the same command goes on with new checkpoints."""
    from memorization import track as tracked

    if (run is None) == (not target):
        raise InputError("name the checkpoints by --run, or by --target, several times; one of the two.")
    # A trajectory that is there goes on; `track` itself refuses one of other samples, and other results.
    claim(output, overwrite or holds_result(output))
    KEPT.set(f"measured checkpoints are kept in {output / 'checkpoints'}, and the same command goes on from there")
    (seen, unseen), groups = read_data(
        [samples, control], text_column, prompt_column, messages, limit, groups, id_column, keep
    )
    checkpoints: Any = run if target is None or run is not None else target
    result = tracked(
        checkpoints,
        oracle,
        seen,
        unseen,
        output=output,
        overwrite=overwrite,
        joint=joint,  # type: ignore[arg-type]  # checked there
        target_tokenizer=target_tokenizer,
        oracle_tokenizer=oracle_tokenizer,
        oracle_revision=oracle_revision,
        first_token=token(first_token),
        max_length=max_length,
        stride=stride,
        batch_size=read_batch_size(batch_size),
        max_batch_tokens=max_batch_tokens,
        device=device,
        dtype=dtype,
        text_column=text_column,
        limit=limit,
        groups=groups,
        on_lossy_text="skip" if on_lossy_text else "raise",
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        progress=not quiet,
    )
    print(result)
    save(result, output, csv=csv)
    draw(result, output)
