"""Commands that take saved results: show, plot, and rarity, which asks one which samples are memorized."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memorization.cli.options import (
    AllowPickle,
    BatchSize,
    Csv,
    Data,
    Device,
    Dtype,
    FirstToken,
    Groups,
    IdColumn,
    Keep,
    Level,
    Limit,
    MaxBatchTokens,
    MaxLength,
    Messages,
    OracleTokenizer,
    Output,
    Overwrite,
    PromptColumn,
    Quiet,
    SkipLossy,
    TargetTokenizer,
    TextColumn,
    TrustRemoteCode,
    named_columns,
    one_of,
    read_batch_size,
    token,
)
from memorization.cli.output import FORMATS, claim, draw, holds_result, save
from memorization.errors import InputError

if TYPE_CHECKING:
    from memorization.samples import Samples
    from memorization.unintended import Memorization

_LEVELS, _MOST_FOLDERS = 3, 2000  # of folders that completion looks into: a shell waits for it


def saved_folders(incomplete: str) -> list[str]:
    """Folders that hold a saved result and begin with what was typed, for the shell to complete."""
    typed = Path(incomplete)
    parent, start = (typed, "") if incomplete.endswith("/") or not incomplete else (typed.parent, typed.name)
    looked = islice(_folders_in(parent, start, _LEVELS), _MOST_FOLDERS)
    return [str(folder) for folder in looked if holds_result(folder)]


def _folders_in(parent: Path, start: str, levels: int) -> Iterator[Path]:
    """Folders below, down to so many levels; what lies inside a result are its parts."""
    try:
        inside = sorted(one for one in parent.iterdir() if one.name.startswith(start or "") and one.is_dir())
    except OSError:
        return
    for folder in inside:
        if folder.name.startswith(".") and not start.startswith("."):
            continue
        yield folder
        if levels > 1 and not holds_result(folder):
            yield from _folders_in(folder, "", levels - 1)


Folder = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER", help="The --output of another command, or what save() wrote.", autocompletion=saved_folders
    ),
]


def show(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="The figures by name, as JSON; null is unknown.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="The figures as a table, for a paper or a pull request.")
    ] = False,
) -> None:
    """Print a saved result again: as the command printed it, as JSON, or as a Markdown table."""
    from memorization import load

    if as_json and as_markdown:
        raise InputError("give one of --json and --markdown: one command prints one of the two.")
    result = load(_folder(folder))
    if not (as_json or as_markdown):
        print(result)
        return
    from memorization.report import figures

    print(figures.as_json(result) if as_json else figures.as_markdown(result))


def plot(
    folder: Folder,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="File of the picture, .png, .pdf or .svg, or a folder for all.  [default: the result's folder]",
        ),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="png, pdf or svg; several times.  [default: as the file ends, or all three]",
            autocompletion=one_of(*FORMATS),
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --output.")] = False,
) -> None:
    """Draw every picture of a saved result."""
    from memorization import load

    formats = list(dict.fromkeys(format or ()))
    unknown = [one for one in formats if one not in FORMATS]
    if unknown:
        raise InputError(f"--format must be one of {', '.join(FORMATS)}; it is {unknown[0]!r}.")
    result = load(_folder(folder))
    if output is None or output.suffix == "" or output.is_dir():
        into = folder if output is None else output
        _make(into)
        draw(result, into, formats or FORMATS)
        return
    ending = output.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise InputError(f"--output must end in .png, .pdf or .svg, or be a folder; it is {output}.")
    if formats not in ([], [ending]):
        raise InputError(
            f"--output {output} says {ending}, and --format {' and '.join(formats)}: name a folder, or leave one out."
        )
    if output.exists() and not overwrite:
        raise InputError(f"{output} is there already: name another --output, or pass --overwrite.")
    _make(output.parent)
    draw(result, output.parent, (ending,), named=output.stem)


def _folder(path: Path) -> Path:
    if path.is_file():
        raise InputError(f"{path} is a file: name the folder that holds the saved result, such as {path.parent}.")
    return path


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder} cannot be written to: {error.strerror or error}.") from error


def rarity(
    samples: Data,
    output: Output,
    memorized: Annotated[
        Path | None,
        typer.Option(
            "--measured",
            help="Folder of `memorization measure` of these samples, in place of --target and --oracle.",
            autocompletion=saved_folders,
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Checkpoint under audit, to be measured: folder or hub id.")
    ] = None,
    oracle: Annotated[
        str | None, typer.Option(help="Best model of such text that has not seen it: folder or hub id.")
    ] = None,
    training_set: Annotated[
        Path | None,
        typer.Option(help="What the target was trained on, repeats included.  [default: the samples themselves]"),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or hub id, for the tokens of texts.  [default: the target's]")
    ] = None,
    near: Annotated[
        float, typer.Option(help="Jaccard similarity of token runs from which samples are near duplicates.")
    ] = 0.8,
    shingle_tokens: Annotated[int, typer.Option(help="Tokens of such a run.")] = 5,
    target_tokenizer: TargetTokenizer = None,
    oracle_tokenizer: OracleTokenizer = None,
    first_token: FirstToken = "auto",
    max_length: MaxLength = None,
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
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Which samples are memorized: does memU rank with the rarity of their tokens, or with their duplicates?"""
    from memorization import read_samples, unintended_memorization, which_samples

    if (memorized is None) == (target is None or oracle is None) or (memorized and (target or oracle)):
        raise InputError("name what is memorized by --measured FOLDER, or by --target and --oracle; one of the two.")
    claim(output, overwrite)
    how: dict[str, Any] = {"text_column": text_column, "prompt_column": prompt_column, "messages": messages}
    read = read_samples(samples, limit=limit, groups=groups, id_column=id_column, keep=named_columns(keep), **how)
    training = None if training_set is None else read_samples(training_set, **how)
    if memorized is not None:
        measured = _measured(memorized)
    else:
        measured = unintended_memorization(
            str(target),
            str(oracle),
            read,
            target_tokenizer=target_tokenizer,
            oracle_tokenizer=oracle_tokenizer,
            first_token=token(first_token),
            max_length=max_length,
            batch_size=read_batch_size(batch_size),
            max_batch_tokens=max_batch_tokens,
            device=device,
            dtype=dtype,
            on_lossy_text="skip" if on_lossy_text else "raise",
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            progress=not quiet,
        )
    result = which_samples(
        measured,
        read,
        training,
        tokenizer=tokenizer or target_tokenizer or _tokenizer_of(measured, read),
        near=near,
        shingle_tokens=shingle_tokens,
        level=level,
    )
    print(result)
    save(result, output, csv=csv)
    draw(result, output)


def _measured(folder: Path) -> "Memorization":
    """The saved Memorization, also that of a quickstart."""
    from memorization import Memorization, Quickstart, load

    result = load(_folder(folder))
    result = result.members if isinstance(result, Quickstart) else result
    if not isinstance(result, Memorization):
        raise InputError(
            f"--measured must be the folder of `memorization measure`; {folder} holds a {type(result).__name__}."
        )
    return result


def _tokenizer_of(measured: "Memorization", read: "Samples") -> str | None:
    """Where the target's tokenizer came from; previews of ids can do without one."""
    record = measured.target.settings["tokenizer"]
    return None if record is None or read.texts is None else record["name"]
