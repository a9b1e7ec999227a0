"""Commands that measure existing models: memU, code lengths."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memorization.cli.options import (
    Address,
    AllowPickle,
    BatchSize,
    Control,
    Csv,
    Data,
    Device,
    Dtype,
    EngineName,
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
    ShardOf,
    SkipLossy,
    Stride,
    Target,
    TargetRevision,
    TargetTokenizer,
    TextColumn,
    TrustRemoteCode,
    one_of,
    read_batch_size,
    read_data,
    token,
)
from memorization.cli.output import claim_for_shards, draw, most_memorized, only_a_share, settled
from memorization.errors import InputError

if TYPE_CHECKING:
    pass

# Parameters are called as Python's arguments are: messages that name one are put into the words of the command by that
# name.

if TYPE_CHECKING:
    from memorization.measure.code_lengths import CodeLengths


def measure(
    target: Annotated[
        str, typer.Option(help="Checkpoint under audit: folder, hub id, or a folder of saved code lengths.")
    ],
    oracle: Annotated[
        list[str],
        typer.Option(
            "--oracle",
            help="Best model of such text that has not seen it: the same; base-of-target: the base of an adapter. "
            "Several, with --control: a ladder.",
        ),
    ],
    samples: Data,
    output: Output,
    control: Control = None,
    joint: Annotated[
        str,
        typer.Option(
            help="max (the paper's, clipped at 0), or a proper code: mixture, or switch, which may change models at "
            "every token.",
            autocompletion=one_of("max", "mixture", "switch"),
        ),
    ] = "max",
    combine: Annotated[
        str,
        typer.Option(
            help="What several oracles come to: best (on the control), or all as one code: mixture, or switch.",
            autocompletion=one_of("best", "mixture", "switch"),
        ),
    ] = "best",
    target_tokenizer: TargetTokenizer = None,
    oracle_tokenizer: OracleTokenizer = None,
    target_revision: TargetRevision = None,
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
    id_column: IdColumn = None,
    keep: Keep = None,
    limit: Limit = None,
    groups: Groups = None,
    on_lossy_text: SkipLossy = False,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
    csv: Csv = False,
    shard: ShardOf = None,
    engine: EngineName = "local",
    address: Address = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Unintended memorization of the samples: target against oracle, bits a sample and a token."""
    from memorization import unintended_memorization

    claim_for_shards(output, overwrite)
    under_audit, oracles = _model_or_lengths(target), [_model_or_lengths(one) for one in oracle]
    named = {"--target": [under_audit], "--oracle": oracles}
    saved = [option for option, models in named.items() if not all(isinstance(model, str) for model in models)]
    if saved and control is not None:
        raise InputError(
            f"--control is measured under both models, and {' and '.join(saved)} came as saved code lengths. "
            "Name the models, or leave --control out."
        )
    (seen, unseen), groups = read_data(
        [samples, control], text_column, prompt_column, messages, limit, groups, id_column, keep, in_shards=True
    )
    with only_a_share():
        result = unintended_memorization(
            under_audit,
            oracles if len(oracles) > 1 else oracles[0],
            seen,
            joint=joint,  # type: ignore[arg-type]  # checked there
            combine=combine,  # type: ignore[arg-type]  # checked there
            control=unseen,
            target_tokenizer=target_tokenizer,
            oracle_tokenizer=oracle_tokenizer,
            target_revision=target_revision,
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
            store=output,
            overwrite=overwrite,
            shard=shard,
            engine=engine,  # type: ignore[arg-type]  # checked there
            address=address,
        )
    print(result)
    print(most_memorized(result))
    result = settled(result, output, csv=csv)
    draw(result, output)


def bits(
    model: Target,
    samples: Data,
    output: Annotated[Path | None, typer.Option(help="Folder for the results.  [default: only print]")] = None,
    tokenizer: TargetTokenizer = None,
    revision: TargetRevision = None,
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
    id_column: IdColumn = None,
    keep: Keep = None,
    limit: Limit = None,
    on_lossy_text: SkipLossy = False,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
    csv: Csv = False,
    shard: ShardOf = None,
    engine: EngineName = "local",
    address: Address = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Exact code length of the samples under one model, bits a sample and a token."""
    from memorization import compress_bits

    if output is not None:
        claim_for_shards(output, overwrite)
    (read,), _ = read_data(
        [samples], text_column, prompt_column, messages, limit, None, id_column, keep, in_shards=output is not None
    )
    with only_a_share():
        result = compress_bits(
            model,
            read,
            tokenizer=tokenizer,
            revision=revision,
            first_token=token(first_token),
            max_length=max_length,
            stride=stride,
            batch_size=read_batch_size(batch_size),
            max_batch_tokens=max_batch_tokens,
            device=device,
            dtype=dtype,
            text_column=text_column,
            limit=limit,
            on_lossy_text="skip" if on_lossy_text else "raise",
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            progress=not quiet,
            store=output,
            overwrite=overwrite,
            shard=shard,
            engine=engine,  # type: ignore[arg-type]  # checked there
            address=address,
        )
    print(result)
    if output is not None:
        result = settled(result, output, csv=csv)
        draw(result, output)


def _model_or_lengths(name: str) -> "str | CodeLengths":
    from memorization import CodeLengths

    return CodeLengths.load(name) if (Path(name) / "tokens.parquet").is_file() else name
