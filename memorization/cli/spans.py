"""The command that measures named parts of texts."""

from typing import Annotated

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
    OracleRevision,
    OracleTokenizer,
    Output,
    Overwrite,
    Quiet,
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
from memorization.cli.output import claim, draw, save
from memorization.errors import InputError


def spans(
    target: Target,
    oracle: Annotated[
        list[str],
        typer.Option("--oracle", help="Best model of such text that has not seen it; several, with --control."),
    ],
    samples: Data,
    output: Output,
    span: Annotated[
        list[str] | None,
        typer.Option(
            "--span",
            metavar="NAME=REGEX",
            help="A field, and what it looks like; several times.  [default: by --span-column]",
        ),
    ] = None,
    span_column: Annotated[
        str | None,
        typer.Option("--span-column", help="Column of lists of name, start, end, in characters.  [default: by --span]"),
    ] = None,
    control: Control = None,
    tries: Annotated[
        int, typer.Option("--tries", min=1, help="Extractable are spans of at most log2 of so many bits.")
    ] = 1000,
    joint: Annotated[
        str,
        typer.Option(
            help="max (the paper's, clipped at 0) or mixture (a proper code).", autocompletion=one_of("max", "mixture")
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
    limit: Limit = None,
    groups: Groups = None,
    id_column: IdColumn = None,
    keep: Keep = None,
    on_lossy_text: SkipLossy = False,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
    csv: Csv = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """memU of named parts of texts, such as a secret and the template around it, each beside a control."""
    from memorization.spans import measure_spans

    asked = spans_asked(span or [], span_column)
    check_span_column(span_column, id_column, keep)
    claim(output, overwrite)
    (seen, unseen), groups = read_data([samples, control], text_column, None, False, limit, groups, id_column, keep)
    result = measure_spans(
        target,
        oracle if len(oracle) > 1 else oracle[0],
        seen,
        asked,
        control=unseen,
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
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        progress=not quiet,
    )
    print(result.describe(tries=tries))
    save(result, output, csv=csv)
    draw(result, output)


def check_span_column(column: str | None, id_column: str | None, keep: list[str] | None) -> None:
    """Refuse to look for places in a file whose samples were read with other columns."""
    if column is not None and (id_column is not None or keep):
        raise InputError("--span-column goes without --id-column and --keep: leave these out, or use --span.")


def spans_asked(spans: list[str], column: str | None) -> dict[str, str] | str:
    """The expressions by their names, or the column."""
    if bool(spans) == (column is not None):
        raise InputError(
            "name what to measure by --span NAME=REGEX, or by --span-column where the data say where spans stand; one "
            "of the two."
        )
    if column is not None:
        return column
    found: dict[str, str] = {}
    for one in spans:
        name, sign, expression = one.partition("=")
        if not sign or not name or not expression:
            raise InputError(f"--span must be NAME=REGEX, such as 'phone=\\d{{3}}-\\d{{4}}'; it is {one!r}.")
        if name in found:
            raise InputError(
                f"--span names {name!r} twice, {found[name]!r} and {expression!r}: write one expression, "
                f"'{name}={found[name]}|{expression}', or give one of them another name."
            )
        found[name] = expression
    return found
