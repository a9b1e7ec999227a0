"""Writing results into folders: the old files stay until the new settings.json names the new ones.

A folder holds tables (parquet), parts (results in folders of their own) and settings.json, which holds the SHA-256
digest of each table and of the settings.json of each part. New files wait under names that hold their digest until
settings.json, replaced in one step, speaks for them; only then do they take their plain names. Killed at any moment, a
save leaves the old result or the new one.
"""

import hashlib
import io
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from memorization.errors import ResultError, warn
from memorization.results.chunks import Chunks, write_csv, write_parquet
from memorization.results.kinds import DRAWN, FILES_OF_0_1_0, KINDS, SETTINGS
from memorization.results.words import plain

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DIGESTS", "FORMAT", "Contents", "check_free", "digest_at", "digest_of", "waiting_path", "write"]

FORMAT = 2  # 1, of version 0.1.0, has no digests
DIGESTS = "digests"
_LEFT_BEHIND_SECONDS = 24 * 3600  # from this age on a file that waits belongs to a save that was killed


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into a folder: facts (settings.json), tables (files), parts (folders of their own), and other files."""

    kind: str
    facts: Mapping[str, Any]
    tables: "Callable[[], Mapping[str, pd.DataFrame | Chunks]]"  # made when written
    parts: "Mapping[str, Contents]"
    write_more: Callable[[Path], None]  # into an empty folder
    as_csv: tuple[str, ...] = ()  # tables that are written as .csv, too, for other programs: they are not read back


def folder_path(folder: Any) -> Path:
    """The path of a folder that was named, refused where nothing can have that name.

    Raises:
        ResultError: it is no str or path, holds a NUL, or is longer than a name may be.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise ResultError(f"a folder must be a str or a path; a {type(folder).__name__} came.")
    path = Path(folder)
    if "\0" in str(path) or any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise ResultError(f"no folder can have the name {str(path)[:40]!r}...: it is too long, or holds a NUL.")
    return path


def _check_no_file(folder: Path) -> None:
    for place in (folder, *folder.parents):
        if place.is_dir():
            return
        if os.path.lexists(place):
            raise ResultError(f"{place} is a file, so no folder can be made there. Save into another folder.")


def write(contents: Contents, folder: Path, overwrite: bool | None) -> None:
    """Write a result in place of what the folder holds; see `Result.save`."""
    _check_no_file(folder)
    check_free(folder, overwrite)
    before, drawn = set(_files_of(folder)), _drawn_in(folder)
    waiting = _Waiting(folder)
    try:
        text = waiting.write(contents, "")
        _write_whole(folder / SETTINGS, text)
    except BaseException:
        waiting.remove()
        raise
    if waiting.settle(hashlib.sha256(text).hexdigest()):
        for name in (before | drawn) - set(waiting.digests):
            (folder / name).unlink(missing_ok=True)
            _remove_empty(folder, (folder / name).parent)
        _remove_left_behind(folder)


def check_free(folder: Path, overwrite: bool | None) -> None:
    """Refuse a folder that a result cannot be saved into.

    Raises:
        ResultError: it holds a saved result and is not to be overwritten, or a settings.json that no result has
            written.
    """
    path = folder / SETTINGS
    if not path.exists():
        return
    if overwrite is False:
        raise ResultError(
            f"{folder} holds a saved result, or what is left of one ({SETTINGS}): pass overwrite=True to replace it, "
            "or another folder."
        )
    try:
        content: Any = json.loads(path.read_bytes())
    except ValueError:  # cut short, by a disk that was full: nothing that could be lost
        return
    if not isinstance(content, dict) or "kind" not in content:
        raise ResultError(f"{path} was not written by this library, and saving would replace it: pass another folder.")
    if overwrite is None:
        warn(
            f"the {content['kind']} that {folder} holds is replaced. Pass overwrite=True to say so: the next version "
            "refuses otherwise.",
            FutureWarning,
        )


class _Waiting:
    """Files of a result, written under names that hold their digests, until settings.json names them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.digests: dict[str, str] = {}
        self._made: list[Path] = []
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, contents: Contents, inside: str) -> bytes:
        """All files but settings.json itself, whose content this returns."""
        digests: dict[str, str] = {}
        for name, table in contents.tables().items():
            if isinstance(table, Chunks):
                digests |= self._write_chunks(f"{inside}{name}", name, table, as_csv=name in contents.as_csv)
                continue
            buffer = io.BytesIO()
            table.to_parquet(buffer, index=False)
            digests[f"{name}.parquet"] = self._write(f"{inside}{name}.parquet", buffer.getvalue())
            if name in contents.as_csv:
                text = table.to_csv(index=False, lineterminator="\n").encode()
                digests[f"{name}.csv"] = self._write(f"{inside}{name}.csv", text)
        for name, part in contents.parts.items():
            digests[f"{name}/{SETTINGS}"] = self._write(
                f"{inside}{name}/{SETTINGS}", self.write(part, f"{inside}{name}/")
            )
        more = self.folder / f".more-{uuid.uuid4().hex}.tmp"
        more.mkdir()
        try:
            contents.write_more(more)
            for path in sorted(path for path in more.rglob("*") if path.is_file()):
                name = path.relative_to(more).as_posix()
                digests[name] = self._write(f"{inside}{name}", path.read_bytes())
        finally:
            shutil.rmtree(more, ignore_errors=True)
        settings = {"kind": contents.kind, "format": FORMAT, **plain(contents.facts), DIGESTS: digests}
        return (json.dumps(settings, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    def _write(self, name: str, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        path = waiting_path(self.folder / name, digest)
        self.digests[name] = digest
        if (
            digest_at(path) != digest
        ):  # it is there where a save of the same result was killed, which settings.json may speak for
            self._made.append(path)
            _write_whole(path, content)
        return digest

    def _write_chunks(self, path: str, name: str, table: Chunks, *, as_csv: bool) -> dict[str, str]:
        """The files of a table that is never in memory as a whole."""
        files = {"parquet": write_parquet, **({"csv": write_csv} if as_csv else {})}
        digests = {}
        for kind, write in files.items():
            temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
            try:
                write(table, temporary)
                digest = digest_at(temporary)
                assert digest is not None
                waiting = waiting_path(self.folder / f"{path}.{kind}", digest)
                waiting.parent.mkdir(parents=True, exist_ok=True)
                self._made.append(waiting)
                os.replace(temporary, waiting)
            finally:
                temporary.unlink(missing_ok=True)
            digests[f"{name}.{kind}"] = self.digests[f"{path}.{kind}"] = digest
        return digests

    def settle(self, settings_digest: str) -> bool:
        """Give the files their plain names, unless somebody else has saved meanwhile; True if all got theirs."""
        for name, digest in self.digests.items():
            path = self.folder / name
            if digest_at(self.folder / SETTINGS) != settings_digest:
                self.remove()
                return False
            try:
                os.replace(waiting_path(path, digest), path)
            except FileNotFoundError as error:  # somebody who saved the same result has done it
                if digest_at(path) != digest:
                    raise ResultError(
                        f"another process saved into {self.folder} at the same time, and {name} was lost: save again, "
                        "into a folder that no other process writes to."
                    ) from error
        return digest_at(self.folder / SETTINGS) == settings_digest

    def remove(self) -> None:
        """Take back what was written."""
        for path in self._made:
            path.unlink(missing_ok=True)
            _remove_empty(self.folder, path.parent)


def waiting_path(path: Path, digest: str) -> Path:
    """Where a file of this digest waits to become `path`."""
    return path.with_name(f".{path.name}-{digest[:32]}")


def _write_whole(path: Path, content: bytes) -> None:
    """A file that appears whole or not at all, whoever else writes it at the same time."""
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}.tmp")
    try:
        for _ in range(100):
            with suppress(FileNotFoundError):  # whoever else saves has just removed the folder, which was empty
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(content)
                break
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def digest_at(path: Path) -> str | None:
    """SHA-256 of a file; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return digest_of(file)
    except OSError:
        return None


def digest_of(file: BinaryIO) -> str:
    """SHA-256 of what is left to read of a file."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _files_of(folder: Path, inside: str = "") -> Iterator[str]:
    """Paths, within the folder, of the files that belong to the result that it holds; none where there is none."""
    try:
        content: Any = json.loads((folder / inside / SETTINGS).read_bytes())
    except (OSError, ValueError):
        return
    if not isinstance(content, dict) or not (DIGESTS in content or content.get("kind") in list(KINDS)):
        return
    if DIGESTS in content:
        listed = content[DIGESTS] if isinstance(content[DIGESTS], dict) else {}
        names = [name for name in listed if _is_inside(name)]
    else:
        patterns = FILES_OF_0_1_0.get(content["kind"], ())
        names = [
            path.relative_to(folder / inside).as_posix() for one in patterns for path in (folder / inside).glob(one)
        ]
    for name in names:
        if name.endswith(f"/{SETTINGS}"):
            yield from _files_of(folder, inside + name.removesuffix(SETTINGS))
        yield inside + name


def _drawn_in(folder: Path) -> set[str]:
    """Paths, within the folder, of pictures and reports of the result that it holds, and of the results that are parts.

    Files by other names are the user's own.
    """
    if not (folder / SETTINGS).is_file():
        return set()
    places = {"", *(name.removesuffix(SETTINGS) for name in _files_of(folder) if name.endswith(f"/{SETTINGS}"))}
    return {place + name for place in places for name in DRAWN if (folder / place / name).is_file()}


def _is_inside(name: str) -> bool:
    """Whether a path from a settings.json leads to a file below its folder, whoever wrote it."""
    return not {"", ".", ".."} & set(name.split("/")) and not Path(name).is_absolute()


def _remove_empty(folder: Path, inner: Path) -> None:
    """Remove folders that have become empty, from the inside out, but not the result's own."""
    while inner != folder:
        try:
            inner.rmdir()
        except OSError:
            return
        inner = inner.parent


def _remove_left_behind(folder: Path) -> None:
    """Remove what killed saves have left, once it is too old to be still in use."""
    places = {folder, *(folder / name for name in map(os.path.dirname, _files_of(folder)))}
    for path in (path for place in places for path in place.glob(".*-" + 32 * "[0-9a-f]" + "*")):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime <= _LEFT_BEHIND_SECONDS:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
