"""The command that measures identifiers: hashes, UUIDs, keys, numbers, whose oracle is exact."""

from typing import Annotated

import typer

from memorization.cli.options import (
    AllowPickle,
    BatchSize,
    Csv,
    Data,
    Device,
    Dtype,
    FirstToken,
    IdColumn,
    Keep,
    Limit,
    MaxBatchTokens,
    MaxLength,
    Output,
    Overwrite,
    Quiet,
    SkipLossy,
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


def identifiers(
    target: Target,
    samples: Data,
    output: Output,
    format: Annotated[
        list[str],
        typer.Option(
            "--format",
            help="hex40, HEX40, uuid4, UUID4, digits16 (any number in place of these), card, phone, tokens:16x512 (16 "
            "ids of 512), or a template such as 'sk-[A-Za-z0-9]{20}'; several times.",
            autocompletion=one_of("hex40", "HEX40", "uuid4", "UUID4", "digits16", "card", "phone"),
        ),
    ],
    n_draws: Annotated[
        int, typer.Option("--draws", help="Fresh draws measured in place of each, for its rank; 99 to select by it.")
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    tokenizer: TargetTokenizer = None,
    revision: TargetRevision = None,
    first_token: FirstToken = "auto",
    max_length: MaxLength = None,
    batch_size: BatchSize = "auto",
    max_batch_tokens: MaxBatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    text_column: TextColumn = "text",
    limit: Limit = None,
    id_column: IdColumn = None,
    keep: Keep = None,
    on_lossy_text: SkipLossy = False,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
    csv: Csv = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Hashes, UUIDs, keys, numbers in texts: the bits that the target has memorized of each, and evidence for it."""
    from memorization.identifiers import audit_identifiers

    claim(output, overwrite)
    (read,), _ = read_data([samples], text_column, None, False, limit, None, id_column, keep)
    result = audit_identifiers(
        target,
        read,
        format[0] if len(format) == 1 else format,
        n_draws=n_draws,
        seed=seed,
        tokenizer=tokenizer,
        revision=revision,
        first_token=token(first_token),
        max_length=max_length,
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
    )
    print(result)
    save(result, output, csv=csv)
    draw(result, output)
