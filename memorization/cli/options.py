"""Options that commands share: one word for one thing, in every command."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from memorization.errors import InputError

_FILES = ".txt (one a line), .jsonl, .json, .csv, these as .gz, or .parquet; - is standard input, .txt or .jsonl"


def one_of(*words: str) -> Callable[[str], list[str]]:
    """Values of an option that the shell completes."""

    def completions(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return completions


ARCHITECTURES = ("gpt2", "llama", "moe", "mamba", "rwkv", "lstm", "gru", "mlp")

# --- models and samples
Target = Annotated[str, typer.Option("--target", help="Checkpoint under audit: folder or hub id.")]
TargetTokenizer = Annotated[
    str | None, typer.Option("--target-tokenizer", help="Folder or hub id.  [default: the target's]")
]
OfReference = Annotated[
    str | None,
    typer.Option(
        "--oracle",
        help="Model that has seen neither, for the reference attack; base-of-target: the base of an adapter.  "
        "[default: no such attack]",
    ),
]
OracleTokenizer = Annotated[
    str | None, typer.Option("--oracle-tokenizer", help="Folder or hub id.  [default: the oracle's]")
]
TargetRevision = Annotated[str | None, typer.Option("--target-revision", help="Of a target on the hub.")]
OracleRevision = Annotated[str | None, typer.Option("--oracle-revision", help="Of an oracle on the hub.")]
Data = Annotated[Path, typer.Option("--data", help=f"Samples: {_FILES}.")]
Seen = Annotated[Path, typer.Option("--data", help=f"Samples that the target was trained on: {_FILES}.")]
Documents = Annotated[
    list[Path] | None,
    typer.Option("--data", help=f"Documents: {_FILES}; several times.  [default: the text of the package]"),
]
Control = Annotated[Path | None, typer.Option("--control", help="Samples like the data that no model here has seen.")]
NeededControl = Annotated[Path, typer.Option("--control", help="Samples like the data that no model here has seen.")]
TextColumn = Annotated[str, typer.Option("--text-column", help="Column that holds the texts, or lists of token ids.")]
PromptColumn = Annotated[
    str | None,
    typer.Option(
        "--prompt-column",
        metavar="COLUMN",
        help="Column with what stands before each sample: read, and not counted.  [default: all is counted]",
    ),
]
Messages = Annotated[
    bool,
    typer.Option(
        "--messages",
        help="Samples are conversations, lists of role and content in the column messages: what the assistant says is "
        "counted, by the tokenizer's chat template.",
    ),
]
Groups = Annotated[
    str | None,
    typer.Option(
        "--groups",
        metavar="COLUMN",
        help="Column that says which document each sample is of.  [default: each sample is on its own]",
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        "--id-column",
        metavar="COLUMN",
        help="Column with an id of each row, for tables that are joined to your own.  [default: rows have numbers]",
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="A,B",
        help="Columns of the data that every table of samples gets as well, between commas; several times.  [default: "
        "none]",
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", help="Only the first so many samples, and control samples.")]
SkipLossy = Annotated[
    bool, typer.Option("--skip-lossy", help="Leave out, and count, texts that a tokenizer does not give back.")
]

# --- how a model is asked
FirstToken = Annotated[
    str,
    typer.Option(
        "--first-token",
        help="What stands in front of a sample: bos, a token, or the id of one; uniform or skip: nothing, and the "
        "first token costs log2 of the vocabulary size, or nothing; auto: the BOS, unless the model does better "
        "without.",
        autocompletion=one_of("auto", "bos", "uniform", "skip"),
    ),
]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", help="Tokens a window holds.  [default: the model's limit]")
]
Stride = Annotated[
    int | None,
    typer.Option("--stride", help="New tokens of each window after the first.  [default: half of --max-length]"),
]
BatchSize = Annotated[
    str, typer.Option("--batch-size", help="Samples a forward pass; auto: as many as pay, and the memory holds.")
]
MaxBatchTokens = Annotated[
    int | None,
    typer.Option(
        "--max-batch-tokens",
        help="Tokens a forward pass, padding counted, at most.  [default: what the memory holds]",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="cpu, cuda, cuda:1 ...; auto: over all GPUs, main memory and disk.  [default: a GPU if there is one]",
    ),
]
TrainingDevice = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1 ...  [default: a GPU if there is one]")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="float32, bfloat16 ...  [default: the checkpoint's own]",
        autocompletion=one_of("float32", "bfloat16", "float16"),
    ),
]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that a checkpoint brings.")]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights, which can run code.")]

# --- models that are trained
Arch = Annotated[
    str, typer.Option("--arch", help=f"{', '.join(ARCHITECTURES)}.", autocompletion=one_of(*ARCHITECTURES))
]
Layers = Annotated[int, typer.Option("--layers", help="Blocks.")]
SeqLen = Annotated[int, typer.Option("--seq-len", help="Tokens of a sample.")]
Seeds = Annotated[int, typer.Option("--seeds", help="Runs of each cell.", min=1)]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Folder or fsspec URL that keeps finished runs; several processes may share it.  [default: runs/ in the "
        "output folder]",
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="Where the work is done: local, this machine; ray, a Ray cluster (extra ray).",
        autocompletion=one_of("local", "ray"),
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Of the Ray cluster: auto, host:6379 ...  [default: RAY_ADDRESS, else the cores and GPUs of this machine]",
    ),
]
GpusAStack = Annotated[
    float,
    typer.Option("--gpus-per-task", help="Of the Ray cluster, where training is on GPUs: 0.5, two on each."),
]
ShardOf = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="K/N",
        help="Only every N-th run or part of the data, from the K-th on, of a common folder.  [default: all]",
    ),
]

# --- results
Output = Annotated[Path, typer.Option("--output", help="Folder for the results.")]
OutputWithRuns = Annotated[
    Path, typer.Option("--output", help="Folder for the results. Finished runs are kept in its runs/.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the results of an earlier run in the output folder.")
]
Csv = Annotated[bool, typer.Option("--csv", help="Tables of samples as .csv, too, beside the .parquet.")]
OverwriteKeepingRuns = Annotated[
    bool, typer.Option("--overwrite", help="Replace the results of an earlier call; its finished runs are used.")
]
Level = Annotated[float, typer.Option("--level", help="Of the intervals: the share of them that hold the true value.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, nothing but errors and warnings.")]


def read_data(
    files: Sequence[Path | None],
    text_column: str,
    prompt_column: str | None,
    messages: bool,
    limit: int | None,
    groups: str | None = None,
    id_column: str | None = None,
    keep: Sequence[str] | None = None,
    *,
    in_shards: bool = False,
) -> tuple[list[Any], str | None]:
    """Files of samples, and the column of their documents; read, documents and all, where more than texts is asked for.

    - is standard input. `in_shards`: what is read is read some samples at a time.
    """
    streamed = [file for file in files if file is not None and str(file) == "-"]
    if len(streamed) > 1:
        raise InputError("standard input can be read once, and two sets of samples are to come from it: name a file.")
    if prompt_column is None and not messages and id_column is None and not keep and not streamed:
        return list(files), groups
    from memorization import read_samples, scan_samples

    how: dict[str, Any] = {"prompt_column": prompt_column, "messages": messages, "limit": limit, "groups": groups}
    how |= {"text_column": text_column, "id_column": id_column, "keep": named_columns(keep)}
    read = {file: read_samples(sys.stdin.buffer, **how) for file in streamed}
    open_file = scan_samples if in_shards else read_samples
    return [read[file] if file in read else None if file is None else open_file(file, **how) for file in files], None


def named_columns(keep: Sequence[str] | None) -> list[str]:
    """The columns that --keep names, between commas."""
    return [name.strip() for one in keep or () for name in one.split(",") if name.strip()]


def read_engine(engine: str, address: str | None, gpus_a_stack: float, shard: str | None) -> Any:
    """The engine that is named, and its share of the runs."""
    from memorization.lab.engines.chosen import engine_of
    from memorization.sharing.shard import Shard

    if engine == "ray":
        from memorization.lab.engines.ray import RayEngine

        return RayEngine(address, gpus_a_stack=gpus_a_stack, shard=Shard.parse(shard))
    if address is not None:
        raise InputError("--address is of a Ray cluster: pass --engine ray, too.")
    return engine_of(engine, shard)


def token(first_token: str) -> str | int:
    """A rule or a token; digits are the id of one."""
    return int(first_token) if first_token.isdecimal() else first_token


def read_batch_size(batch_size: str) -> Any:
    """A number, or auto."""
    if batch_size == "auto":
        return "auto"
    if not batch_size.isdecimal():
        raise InputError(f"--batch-size must be auto or a number; it is {batch_size!r}.")
    return int(batch_size)
