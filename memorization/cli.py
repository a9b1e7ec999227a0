"""The command line: parse, call one public function, print and write."""

import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memorization.errors import InputError, MeasurementWarning, ModelError, ResultError

if TYPE_CHECKING:
    from memorization.compression import CodeLengths
    from memorization.unintended import Memorization

BAD_INPUT, NOT_WRITTEN, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    help="Say in exact bits what a language model knows about a text, and what of that it merely memorized.",
    epilog="--debug, anywhere on the line, shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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


@app.command()
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

    _claim(output, overwrite)
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
        first_token=_token(first_token),
        max_length=max_length,
        stride=stride,
        batch_size=_batch_size(batch_size),
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
    _save(result, output)


@app.command()
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
        _claim(output, overwrite)
    result = compress_bits(
        model,
        data,
        tokenizer=tokenizer,
        first_token=_token(first_token),
        max_length=max_length,
        stride=stride,
        batch_size=_batch_size(batch_size),
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
        _save(result, output)


@app.command()
def quickstart(
    output: Output = Path("quickstart"),
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the batches.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Offline demonstration: train a target that memorizes and an oracle that has not seen, and measure both. 3 minutes."""
    from memorization.lab.quickstart import run_quickstart
    from memorization.report.plots import plot_quickstart

    result = run_quickstart(output, seed=seed, progress=not quiet)
    print(result)
    picture = output / "quickstart.png"
    plot_quickstart(result, picture)
    print(f"\nPicture: {picture}   ({result.seconds:.0f} s in all)")


@app.command()
def doctor() -> None:
    """Versions, devices, threads, and a self-test of a few seconds."""
    from memorization.lab.doctor import examine

    examination = examine()
    print(examination)
    if not examination.healthy:
        raise typer.Exit(NOT_WRITTEN)


def _model_or_lengths(name: str) -> "str | CodeLengths":
    from memorization import CodeLengths

    return CodeLengths.load(name) if (Path(name) / "tokens.parquet").is_file() else name


def _token(first_token: str) -> str | int:
    return int(first_token) if first_token.isdecimal() else first_token


def _batch_size(batch_size: str) -> Any:
    if batch_size == "auto":
        return "auto"
    if not batch_size.isdecimal():
        raise InputError(f"--batch-size must be auto or a number; it is {batch_size!r}")
    return int(batch_size)


def _claim(output: Path, overwrite: bool) -> None:
    """Find out before measuring whether the results can be written."""
    if (output / "settings.json").exists() and not overwrite:
        raise InputError(f"{output} holds the results of an earlier run: name another --output, or pass --overwrite")
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise InputError(f"--output {output} cannot be written to: {error.strerror or error}") from error


def _save(result: "Memorization | CodeLengths", output: Path) -> None:
    """Write to the output folder; where that fails, to a temporary one, and say so."""
    try:
        result.save(output)
    except OSError as error:
        rescue = Path(tempfile.mkdtemp(prefix="memorization-"))
        result.save(rescue)
        _complain(f"could not write to {output} ({error.strerror or error}); what was measured is in {rescue}")
        raise typer.Exit(NOT_WRITTEN) from error
    print(f"written to {output}")


def _most_memorized(result: "Memorization", n_shown: int = 5) -> str:
    table = result.to_pandas().nlargest(n_shown, "signed_bits")
    rows = [
        f"    sample {row.sample:>7}: memU {row.bits:>9.2f} bits; {row.target_bits:>9.2f} under the target, "
        f"{row.oracle_bits:>9.2f} under the oracle"
        for row in table.itertuples()
    ]
    return "\n".join(["  most memorized (samples counted from 0, blank rows left out)", *rows])


def _complain(message: str) -> None:
    print(f"memorization: {message}", file=sys.stderr)


@contextmanager
def _readable_errors(debug: bool) -> Iterator[None]:
    """One line and an exit code in place of a traceback."""
    try:
        yield
    except (InputError, ModelError, ResultError) as error:
        if debug:
            raise
        _complain(str(error))
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        _complain(f"{type(error).__name__}: {error} (unexpected: run again with --debug, and report it)")
        sys.exit(NOT_WRITTEN)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the arguments are the process's own where none are given."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    with _readable_errors(debug), warnings.catch_warnings():
        warnings.simplefilter("always", MeasurementWarning)
        warnings.showwarning = lambda message, *_, **__: _complain(f"warning: {message}")
        app([argument for argument in arguments if argument != "--debug"], prog_name="memorization")


if __name__ == "__main__":
    main()
