"""Commands that attack existing models: membership inference, extraction."""

from typing import TYPE_CHECKING, Annotated

import typer

from memorization.cli.options import (
    Address,
    AllowPickle,
    BatchSize,
    Control,
    Csv,
    Device,
    Dtype,
    EngineName,
    FirstToken,
    Groups,
    IdColumn,
    Keep,
    Level,
    Limit,
    MaxBatchTokens,
    MaxLength,
    Messages,
    NeededControl,
    OfReference,
    OracleRevision,
    OracleTokenizer,
    Output,
    Overwrite,
    PromptColumn,
    Quiet,
    Seen,
    ShardOf,
    SkipLossy,
    Stride,
    Target,
    TargetRevision,
    TargetTokenizer,
    TextColumn,
    TrustRemoteCode,
    read_batch_size,
    read_data,
    token,
)
from memorization.cli.output import claim_for_shards, draw, only_a_share, settled

if TYPE_CHECKING:
    pass

# Parameters are called as Python's arguments are: messages that name one are put into the words of the command by that
# name.


def attack(
    target: Target,
    samples: Seen,
    control: NeededControl,
    output: Output,
    oracle: OfReference = None,
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
    groups: Groups = None,
    limit: Limit = None,
    on_lossy_text: SkipLossy = False,
    level: Level = 0.95,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
    csv: Csv = False,
    shard: ShardOf = None,
    engine: EngineName = "local",
    address: Address = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Membership inference: how well each attack tells the data from a control that the target has not seen."""
    from memorization.membership import audit_membership

    claim_for_shards(output, overwrite)
    (seen, unseen), groups = read_data(
        [samples, control], text_column, prompt_column, messages, limit, groups, id_column, keep, in_shards=True
    )
    with only_a_share():
        result = audit_membership(
            target,
            seen,
            unseen,
            oracle=oracle,
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
            groups=groups,
            limit=limit,
            on_lossy_text="skip" if on_lossy_text else "raise",
            level=level,
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
    result = settled(result, output, csv=csv)
    draw(result, output)


def extract(
    target: Target,
    samples: Seen,
    output: Output,
    control: Control = None,
    prefix_tokens: Annotated[
        list[int] | None,
        typer.Option("--prefix", help="Tokens that are given; several times.  [default: 8 16 32, as samples are long]"),
    ] = None,
    suffix_tokens: Annotated[
        int | None, typer.Option("--suffix", help="Tokens that must come.  [default: all that follow]")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of sampling; 0 is greedy.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Sample of so many likeliest tokens alone.  [default: all]")] = None,
    top_p: Annotated[
        float, typer.Option(help="Sample of the likeliest tokens alone that reach this probability together.")
    ] = 1.0,
    oracle: Annotated[
        str | None,
        typer.Option(
            help="A model that has not seen the samples: what it gives too can be guessed; base-of-target: the base of "
            "an adapter."
        ),
    ] = None,
    tokenizer: TargetTokenizer = None,
    oracle_tokenizer: OracleTokenizer = None,
    revision: TargetRevision = None,
    first_token: FirstToken = "auto",
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
    level: Level = 0.95,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
    csv: Csv = False,
    shard: ShardOf = None,
    engine: EngineName = "local",
    address: Address = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Extraction: given the first tokens of a sample, does decoding give the rest, word for word?"""
    from memorization.extraction import extract as extraction

    claim_for_shards(output, overwrite)
    (seen, unseen), groups = read_data(
        [samples, control], text_column, prompt_column, messages, limit, groups, id_column, keep, in_shards=True
    )
    with only_a_share():
        result = extraction(
            target,
            seen,
            unseen,
            prefix_tokens=prefix_tokens or "auto",
            suffix_tokens=suffix_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            oracle=oracle,
            oracle_tokenizer=oracle_tokenizer,
            tokenizer=tokenizer,
            revision=revision,
            first_token=token(first_token),
            batch_size=read_batch_size(batch_size),
            max_batch_tokens=max_batch_tokens,
            device=device,
            dtype=dtype,
            text_column=text_column,
            limit=limit,
            groups=groups,
            on_lossy_text="skip" if on_lossy_text else "raise",
            level=level,
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
    result = settled(result, output, csv=csv)
    draw(result, output)
