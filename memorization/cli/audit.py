"""The command that audits a checkpoint: one measurement, a report, and an exit code for pipelines."""

import dataclasses
from typing import Annotated

import typer

from memorization.cli.options import (
    Address,
    AllowPickle,
    BatchSize,
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
    one_of,
    read_batch_size,
    read_data,
    token,
)
from memorization.cli.output import TYPED, claim_for_shards, draw, only_a_share, settled
from memorization.cli.spans import check_span_column, spans_asked
from memorization.errors import InputError

POLICY_FAILED = 3


def audit(
    target: Target,
    oracle: Annotated[str, typer.Option("--oracle", help="Best model of such text that has not seen the records.")],
    samples: Seen,
    control: NeededControl,
    output: Output,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            metavar="CONDITION",
            help="What must not be so, such as 'extracted > 0' or 'memorized_share > 0.01'; several times. Exit code 3 "
            "where it is, or where it cannot be told. The docs list the figures.  [default: nothing is checked]",
        ),
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Texts appear nowhere in the reports, nor in the tables of texts.")
    ] = False,
    span: Annotated[
        list[str] | None,
        typer.Option(
            "--span", metavar="NAME=REGEX", help="A part of the texts to measure apart; several times.  [default: none]"
        ),
    ] = None,
    span_column: Annotated[
        str | None,
        typer.Option("--span-column", help="Column of lists of name, start, end, in characters.  [default: none]"),
    ] = None,
    joint: Annotated[
        str,
        typer.Option(
            help="max (the paper's, clipped at 0), or a proper code: mixture, or switch.",
            autocompletion=one_of("max", "mixture", "switch"),
        ),
    ] = "max",
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
    limit: Limit = None,
    groups: Groups = None,
    id_column: IdColumn = None,
    keep: Keep = None,
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
    """What a checkpoint has memorized of its data and what comes out of it: one measurement, a report, an exit code."""
    from memorization import audit as audited
    from memorization.auditing import FIGURES, read_policy

    read_policy(fail_on or [], FIGURES)
    asked = spans_asked(span or [], span_column) if span or span_column is not None else None
    if asked is not None and (prompt_column is not None or messages):
        raise InputError("--span measures parts of whole texts: leave out --prompt-column and --messages.")
    check_span_column(span_column, id_column, keep)
    claim_for_shards(output, overwrite)
    (seen, unseen), groups = read_data(
        [samples, control], text_column, prompt_column, messages, limit, groups, id_column, keep, in_shards=True
    )
    with only_a_share():
        result = audited(
            target,
            oracle,
            seen,
            unseen,
            spans=asked,
            fail_on=fail_on or (),
            redact=redact,
            joint=joint,  # type: ignore[arg-type]  # checked there
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
    result = dataclasses.replace(result, settings={**result.settings, "command": TYPED.get()})
    print(result)
    result.save(output, overwrite=True, csv=csv)
    result = settled(type(result).load(output), output, csv=False)
    draw(result, output)
    from memorization.report.html import write_report

    write_report(result, output)
    print(f"report: {output / 'report.html'}, also as report.md")
    if result.passed is False:
        raise typer.Exit(POLICY_FAILED)
