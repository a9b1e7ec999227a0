"""Commands that compress a file with a model, and give it back."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from memorization.cli.options import (
    AllowPickle,
    Device,
    Dtype,
    FirstToken,
    MaxLength,
    Quiet,
    TargetRevision,
    TargetTokenizer,
    TrustRemoteCode,
    token,
)
from memorization.cli.output import complain
from memorization.errors import InputError

By = Annotated[str, typer.Option("--target", help="Model that compresses: folder or hub id.")]
From = Annotated[Path | None, typer.Option("--data", help="File, of any kind.  [default: standard input]")]
To = Annotated[Path | None, typer.Option("--output", help="File for the result.  [default: standard output]")]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace an output file that is there.")]


def compress(
    model: By,
    data: From = None,
    output: To = None,
    tokenizer: TargetTokenizer = None,
    revision: TargetRevision = None,
    first_token: FirstToken = "auto",
    max_length: MaxLength = None,
    device: Device = None,
    dtype: Dtype = None,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
    overwrite: Replace = False,
    quiet: Quiet = False,
) -> None:
    """A file in about its code length under a model; only the same model gives it back."""
    from memorization.codec import compress as compressed
    from memorization.results import counted

    _check_output(output, overwrite, binary=True)
    came = _read(data)
    blob = compressed(
        model,
        came,
        tokenizer=tokenizer,
        revision=revision,
        first_token=token(first_token),
        max_length=max_length,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        progress=not quiet,
    )
    _write(blob, output)
    if not quiet:
        per_byte = f", {8 * len(blob) / len(came):.4g} bits a byte" if came else ""
        complain(f"{counted(len(came), 'byte')} in {len(blob):,}{per_byte}; decoded once, and the same.")


def decompress(
    model: By,
    data: From = None,
    output: To = None,
    tokenizer: TargetTokenizer = None,
    revision: TargetRevision = None,
    device: Device = None,
    dtype: Dtype = None,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
    overwrite: Replace = False,
    quiet: Quiet = False,
) -> None:
    """The file that `compress` was given, with the same model; or an error, never another file."""
    from memorization.codec import decompress as decompressed

    _check_output(output, overwrite, binary=False)
    found = decompressed(
        model,
        _read(data),
        tokenizer=tokenizer,
        revision=revision,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        progress=not quiet,
    )
    if isinstance(found, list):
        raise InputError(
            "the compressed data hold token ids or several samples, which make no file: read them in Python, by "
            "memorization.decompress."
        )
    _write(found if isinstance(found, bytes) else found.encode("utf-8", "surrogatepass"), output)


def _check_output(output: Path | None, overwrite: bool, *, binary: bool) -> None:
    """Refuse what could not be written, before anything is read."""
    if output is None:
        if binary and sys.stdout.isatty():
            raise InputError("compressed data are not written to a terminal: name a file with --output, or a pipe.")
        return
    if output.is_dir():
        raise InputError(f"--output {output} is a folder: name a file.")
    if output.exists() and not overwrite:
        raise InputError(f"--output {output} is there already: name another file, or pass --overwrite.")
    if not output.parent.is_dir():
        raise InputError(f"--output {output} cannot be written: there is no folder {output.parent}.")


def _read(data: Path | None) -> bytes:
    if data is None:
        return sys.stdin.buffer.read()
    try:
        return data.read_bytes()
    except OSError as error:
        raise InputError(f"--data {data} cannot be read: {error.strerror or error}.") from error


def _write(found: bytes, output: Path | None) -> None:
    """To the standard output, or to a file that is whole or not there."""
    if output is None:
        sys.stdout.buffer.write(found)
        sys.stdout.buffer.flush()
        return
    try:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as unfinished:
            whole = Path(unfinished) / output.name
            whole.write_bytes(found)
            os.replace(whole, output)
    except OSError as error:
        raise InputError(f"--output {output} cannot be written: {error.strerror or error}.") from error
