"""A run over shards, as files: what determines it, what it has decided, and the code lengths of each finished shard.

The folder lies inside the one that the result is saved into, and goes when that is done. A shard is finished when its
.json is there, which is written last, in one step; a process that is killed loses the shard it is at.
"""

import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from memorization.errors import NotSavedError, ResultError
from memorization.integers import edges_of
from memorization.measure.result import CodeLengths, StoredLengths
from memorization.results import Claims, Result, about_of, check_free, plain
from memorization.results.column_files import ColumnFiles
from memorization.results.folder import folder_path
from memorization.samples import Samples

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["UNFINISHED", "ShardRun", "free_folder", "is_concluding", "save_measured"]

UNFINISHED = ".unfinished"  # the folder of a run, in the folder of its result
_FORMAT = 1
_CONCLUDING = "concluding.json"
_WAIT_SECONDS = 1.0
_BESIDE = "beside_"  # columns of a shard that neither its samples nor its result have
_OF_READ = ("read_ids", "counted", "prompt_key")  # columns of a shard's samples that its result does not have


def free_folder(folder: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """The folder of a result that is to come.

    Raises:
        ResultError: it holds one, and must not be overwritten.
    """
    path = folder_path(folder)
    check_free(path, overwrite or is_concluding(path))
    return path


def is_concluding(folder: Path) -> bool:
    """Whether a run was stopped while it saved its result into the folder, so that the same call may do it again."""
    return (folder / UNFINISHED / _CONCLUDING).is_file()


def save_measured(result: Result, folder: Path, *, overwrite: bool) -> None:
    """Save into a folder that `free_folder` gave; where that fails, or another result came, into a temporary one.

    Raises:
        NotSavedError: saying where the result is.
    """
    try:
        result.save(folder, overwrite=overwrite)
    except (OSError, ResultError) as error:
        why = getattr(error, "strerror", None) or error
        rescue = tempfile.mkdtemp(prefix="memorization-")
        result.save(rescue, overwrite=True)
        raise NotSavedError(f"could not write to {folder} ({why}); what was measured is in {rescue}") from error


class ShardRun:
    """The files of a run.

    Args:
        folder: of the result.
        identity: what determines the numbers, by names that a message can use.
        overwrite: whether an unfinished run of something else may be thrown away.

    Raises:
        ResultError: the folder holds an unfinished run of something else; it says what differs.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, overwrite: bool) -> None:
        self.root = folder / UNFINISHED
        self._identity = json.loads(json.dumps(plain(identity)))
        found = self._read("run.json")
        if found is not None and (told := self._difference(found)) is not None:
            if not overwrite:
                raise ResultError(
                    f"{folder} holds an unfinished run of something else: {told}. Go on with what was begun there, "
                    "name another folder, or throw it away with overwrite=True."
                )
            shutil.rmtree(self.root)
            found = None
        if found is None:
            self.write("run.json", {"format": _FORMAT, "run": self._identity})

    def _difference(self, found: Any) -> str | None:
        """The first difference between a run that was begun and this one, in words; None where there is none."""
        there = found.get("run") if isinstance(found, dict) and found.get("format") == _FORMAT else None
        if not isinstance(there, dict):
            return "it was begun by another version of this library"
        for name in {**there, **self._identity}:
            ours, theirs = self._identity.get(name), there.get(name)
            if ours != theirs:
                if isinstance(ours, list) and isinstance(theirs, list):
                    k = next((k for k, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
                    return f"{name} differ " + ("in length" if k is None else f"from shard {k} on")
                return f"{name} was {theirs!r} and is now {ours!r}"
        return None

    def once(self, name: str, decided: Any) -> Any:
        """What was decided when the run began; `decided` where this is the beginning."""
        found = self._read(name)
        if found is None:
            self.write(name, decided)
            found = self._read(name)
        return found

    def known(self, name: str) -> Any:
        """What was decided; None where nothing was yet."""
        return self._read(name)

    def is_done(self, of: str, k: int) -> bool:
        """Whether shard k of these samples under this model ("samples/target") is finished and whole."""
        found = self._read(f"{of}/{k:06d}.json")
        return found is not None and all(
            path.is_file() and path.stat().st_size == found["sizes"][name] for name, path in self._files(of, k).items()
        )

    def put(self, of: str, k: int, samples: Samples, lengths: CodeLengths, beside: Mapping[str, Any]) -> None:
        """Keep the code lengths of a shard, and columns beside them."""
        rows = lengths.to_pandas()
        at = list(rows.columns).index("preview")
        for place, (name, column) in enumerate(beside.items()):
            rows.insert(at + place, f"{_BESIDE}{name}", column)
        rows.insert(at, "read_ids", samples.ids)
        if samples.counted is not None:
            rows.insert(at + 1, "counted", samples.counted)
        record = {name: value for name, value in lengths.settings["samples"].items() if name != "rows"}
        if record["conditional"]:
            rows.insert(at, "prompt_key", record["conditional"]["prompts"])
            record["conditional"] = {**record["conditional"], "prompts": None}
        passes = {name: lengths.settings[name] for name in OF_PASSES if name in lengths.settings}
        tables = {"samples": rows, "tokens": lengths.tokens_to_pandas()}
        self.put_tables(of, k, tables, {"samples": record, "passes": passes})

    def put_tables(self, of: str, k: int, tables: "Mapping[str, pd.DataFrame]", record: Mapping[str, Any]) -> None:
        """Keep what was measured of a shard: a table of samples, one of tokens, and what is to be said of them."""
        sizes = {}
        for name, path in self._files(of, k).items():
            temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}.tmp")
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                tables[name].to_parquet(temporary, index=False)
                sizes[name] = temporary.stat().st_size
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        self.write(f"{of}/{k:06d}.json", {"sizes": sizes, **record})

    def columns(self, of: str, n_shards: int, table: str, names: Sequence[str]) -> dict[str, Any]:
        """Columns of the "samples" or "tokens" of all shards."""
        return ColumnFiles([self._files(of, k)[table] for k in range(n_shards)]).read(names)

    def records(self, of: str, n_shards: int) -> list[dict[str, Any]]:
        """What each finished shard says of its samples and passes."""
        return [self._read(f"{of}/{k:06d}.json") for k in range(n_shards)]

    def lengths(self, of: str, n_shards: int, settings: Mapping[str, Any]) -> CodeLengths:
        """The code lengths of all shards as one result with these settings, its tokens left in the files."""
        files = [self._files(of, k) for k in range(n_shards)]
        rows = ColumnFiles([one["samples"] for one in files])
        known: dict[str, Any] = dict(rows.read(("bits", "ideal_bits", "n_tokens", "n_bytes")))
        known |= {"token_offsets": edges_of(known["n_tokens"]), "settings": dict(settings)}
        tokens = ColumnFiles([one["tokens"] for one in files])
        return StoredLengths(tokens, lambda low, high: about_of(rows, low, high), known)

    def read_of(self, of: str, n_shards: int, column: str) -> Iterator[Any]:
        """A column that says what was read of each sample, cell by cell; nothing where there is none."""
        import pyarrow.parquet

        assert column in _OF_READ
        for k in range(n_shards):
            path = self._files(of, k)["samples"]
            if column in pyarrow.parquet.read_schema(path).names:
                yield from pyarrow.parquet.read_table(path, columns=[column]).column(0).to_numpy()

    def beside(self, of: str, n_shards: int) -> dict[str, Any]:
        """The columns that were kept beside the code lengths of all shards."""
        rows = ColumnFiles([self._files(of, k)["samples"] for k in range(n_shards)])
        names = [name for name in rows.names if name.startswith(_BESIDE)]
        return {name.removeprefix(_BESIDE): column for name, column in rows.read(names).items()}

    def claims(self) -> Claims:
        """Who of the processes that share the folder is at what."""
        return Claims(fsspec.filesystem("file"), str(self.root / "claims"))

    def is_gone(self) -> bool:
        """Whether the run was concluded, by this process or another."""
        return not (self.root / "run.json").is_file()

    def conclude(self, result_of: Callable[[], Result]) -> None:
        """Save what came of the run, and take the run away; or wait until another process has.

        Raises:
            NotSavedError: saying how to go on.
        """
        claims = self.claims()
        while not self.is_gone():
            with claims.hold("conclude") as mine:
                if mine and not self.is_gone():
                    result = result_of()
                    with self.kept():
                        self.write(_CONCLUDING, {})
                        result.save(self.root.parent, overwrite=True)
                    self.remove()
                    return
            time.sleep(_WAIT_SECONDS)
        if self.is_gone():  # of claims that came after another had concluded
            self.remove()

    def remove(self) -> None:
        """Take the run away, in one step for whoever looks."""
        away = self.root.with_name(f"{self.root.name}-{uuid.uuid4().hex}")
        try:
            os.replace(self.root, away)
        except OSError:  # open files on Windows
            away = self.root
        shutil.rmtree(away, ignore_errors=True)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Say of a disk that is full what is kept, and how to go on."""
        try:
            yield
        except OSError as error:
            raise NotSavedError(
                f"{self.root.parent} cannot be written to ({error.strerror or error}). Shards that are finished are "
                f"kept in {self.root}: make room, and the same call goes on from there."
            ) from error

    def write(self, name: str, content: Any) -> None:
        """Write a file of the run in one step."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_text(json.dumps(plain(content)), encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def _files(self, of: str, k: int) -> dict[str, Path]:
        return {name: self.root / of / f"{k:06d}.{name}.parquet" for name in ("samples", "tokens")}

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.root / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:  # half-written, by a machine that went down: made again
            return None


# Settings of a pass that differ from shard to shard.
OF_PASSES = ("largest_batch", "batching", "batches")
