"""Options that commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from memorization.errors import InputError

Data = Annotated[Path, typer.Option(help="Samples: .txt (one a line), .jsonl, .csv or .parquet.")]
Output = Annotated[Path, typer.Option(help="Folder for the results.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the results of an earlier run in the output folder.")
]
FirstToken = Annotated[
    str, typer.Option(help="What the first token is coded with: auto, bos, uniform, skip, a token, or the id of one.")
]
MaxLength = Annotated[int | None, typer.Option(help="Tokens a window holds (default: the model's limit).")]
Stride = Annotated[
    int | None, typer.Option(help="New tokens of each window after the first (default: half of max-length).")
]
BatchSize = Annotated[str, typer.Option(help="Samples a forward pass; auto fits it to the memory.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... (default: a GPU if there is one).")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 ... (default: the checkpoint's own).")]
TextColumn = Annotated[str, typer.Option(help="Column that holds the texts, or lists of token ids.")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many samples.")]
SkipLossy = Annotated[bool, typer.Option("--skip-lossy", help="Leave out texts the tokenizer does not give back.")]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that a checkpoint brings.")]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights, which can run code.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


def token(first_token: str) -> str | int:
    """A rule or a token; digits are the id of one."""
    return int(first_token) if first_token.isdecimal() else first_token


def read_batch_size(batch_size: str) -> Any:
    """A number, or auto."""
    if batch_size == "auto":
        return "auto"
    if not batch_size.isdecimal():
        raise InputError(f"--batch-size must be auto or a number; it is {batch_size!r}")
    return int(batch_size)
