"""Reading saved results: facts, tables and parts of a folder, each file checked against its digest."""

import difflib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from memorization.errors import ResultError
from memorization.results.about import About
from memorization.results.column_files import ColumnFiles
from memorization.results.folder import DIGESTS, FORMAT, digest_of, waiting_path
from memorization.results.kinds import KINDS, SETTINGS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Saved"]

T = TypeVar("T")


class Saved:
    """A saved result in its folder: facts, tables and parts, each file checked against its digest when read."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder = folder
        self.kind: str = content.pop("kind")
        self.format: int = content.pop("format")
        self.digests: dict[str, str] | None = content.pop(DIGESTS, None)
        self.facts = content

    @classmethod
    def open(cls, folder: Path, kind: str | None = None) -> "Saved":
        """The saved result of a folder, of this kind where one is named."""
        return cls._parse(folder, _read_settings(folder, kind or "result"), kind)

    @classmethod
    def _parse(cls, folder: Path, text: bytes, kind: str | None) -> "Saved":
        nothing = f"{folder} holds no saved {kind or 'result'}: {SETTINGS}"
        try:
            content: Any = json.loads(text)
        except ValueError as error:
            raise ResultError(f"{nothing} cannot be read ({error}).") from error
        if not isinstance(content, dict):
            raise ResultError(f"{nothing} holds no object.")
        found = content.get("kind") if isinstance(content.get("kind"), str) else None
        if kind is not None and found != kind:
            a_what = "file of something else" if found is None else found
            hint = f". Read it with memorization.load or {found}.load" if found in KINDS else ""
            raise ResultError(f"{folder} holds a {a_what}, not a {kind}{hint}.")
        if kind is None and found not in KINDS:
            raise ResultError(f"{nothing} is of kind {found!r}; known are {', '.join(sorted(KINDS))}.")
        if content.get("format") not in (1, FORMAT):
            raise ResultError(
                f"{folder / SETTINGS} has format {content.get('format')!r}, a format that this version does not read "
                f"(it reads 1 and {FORMAT}): load it with the version that saved it, or measure again."
            )
        if content["format"] != 1 and not isinstance(content.get(DIGESTS), dict):
            raise ResultError(f"{folder} is damaged: {SETTINGS} lacks {DIGESTS}.")
        return cls(folder, content)

    def read(self, cls: type[T]) -> T:
        """The result itself.

        Raises:
            ResultError: it is damaged.
        """
        try:
            result: T = cast(Any, cls)._from_saved(self)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ResultError):
                raise
            raise self.damaged(f"{type(error).__name__}: {error}") from error
        for name in self.digests or ():  # what was not needed belongs to it all the same, .csv aside
            if not name.endswith((f"/{SETTINGS}", ".csv")) and (self.folder / name).exists():
                self._open(name).close()
        return result

    def need(self, *names: str) -> dict[str, Any]:
        """The facts, where all of these are among them."""
        missing = sorted(set(names) - set(self.facts))
        if missing:
            raise self.damaged(f"{SETTINGS} lacks {', '.join(missing)}")
        return self.facts

    def damaged(self, why: str) -> ResultError:
        """The error that says so."""
        return ResultError(f"{self.folder} is damaged: {why}.")

    def holds(self, name: str) -> bool:
        """Whether this file belongs to the result and is there."""
        listed = self.digests is None or name in self.digests
        return listed and any(path.exists() for path in self._candidates(name))

    def holds_folder(self, name: str) -> bool:
        """Whether this folder, which is neither table nor part, belongs to the result and is there."""
        listed = self.digests is None or any(one.startswith(f"{name}/") for one in self.digests)
        return listed and (self.folder / name).is_dir()

    def table(self, name: str, columns: Sequence[str], optional: Sequence[str] = ()) -> "pd.DataFrame":
        """These columns of a table, and of the optional ones, which an earlier version did not write, those it has."""
        import pandas as pd
        import pyarrow.parquet as parquet

        with self._open(f"{name}.parquet") as file:
            try:
                names = parquet.read_schema(file).names if optional else []
                more = [name for name in optional if name in names and name not in columns]
                return pd.read_parquet(file, columns=[*columns, *more])
            except (OSError, ValueError) as error:
                raise ResultError(f"{self.folder / name}.parquet cannot be read: {error}.") from error

    def about(self, name: str) -> About | None:
        """What a table says of each sample beside its numbers; None where an earlier version wrote it."""
        import pyarrow.parquet as parquet

        with self._open(f"{name}.parquet") as file:
            try:
                names = parquet.read_schema(file).names
            except (OSError, ValueError) as error:
                raise ResultError(f"{self.folder / name}.parquet cannot be read: {error}.") from error
        if "preview" not in names:
            return None
        own = [one for one in ("id", "preview") if one in names]
        return About.of_table(self.table(name, [*own, *names[names.index("preview") + 1 :]]))

    def columns(self, name: str) -> ColumnFiles:
        """A table that is read some rows at a time, after a check of its file."""
        with self._open(f"{name}.parquet") as file:
            return ColumnFiles([Path(file.name)])

    def part(self, name: str, cls: type[T]) -> T:
        """A result in a folder of its own."""
        folder = self.folder / name
        if self.digests is None:
            return Saved.open(folder, cls.__name__).read(cls)
        if not folder.is_dir():
            raise ResultError(f"{folder} holds no saved {cls.__name__}: there is no such folder.")
        if not self.holds(f"{name}/{SETTINGS}"):
            raise ResultError(f"{folder} holds no saved {cls.__name__}: {SETTINGS} is missing.")
        with self._open(f"{name}/{SETTINGS}") as file:
            return Saved._parse(folder, file.read(), cls.__name__).read(cls)

    def copy_folder(self, name: str, to: Path) -> None:
        """Copy all files of a folder that is neither table nor part."""
        inside = f"{name}/"
        if self.digests is None:
            shutil.copytree(self.folder / name, to, dirs_exist_ok=True)
        for file_name in self.digests or ():
            if file_name.startswith(inside):
                with self._open(file_name) as file:
                    path = to / file_name.removeprefix(inside)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(file.read())

    def _candidates(self, name: str) -> list[Path]:
        path = self.folder / name
        return [path] if self.digests is None else [path, waiting_path(path, self.digests[name])]

    def _open(self, name: str) -> BinaryIO:
        """A file of the result, opened after a check against its digest."""
        path = self.folder / name
        if self.digests is not None and name not in self.digests:
            raise self.damaged(f"{SETTINGS} names no {name}")
        problem: OSError | None = None
        for candidate in self._candidates(name):
            try:
                file = candidate.open("rb")
            except OSError as error:
                problem = problem or error
                continue
            if self.digests is None or digest_of(file) == self.digests[name]:
                file.seek(0)
                return file
            file.close()
        if problem is not None and not path.exists():
            raise ResultError(f"{path} cannot be read: {problem.strerror or problem}.") from problem
        raise ResultError(
            f"{path} cannot be read as part of {self.folder}: it is not the file that {self.folder / SETTINGS} was "
            "saved with. It was changed, or comes from another result. Put the right file back, or save again with "
            "overwrite=True."
        )


def _read_settings(folder: Path, what: str) -> bytes:
    path = folder / SETTINGS
    try:
        return path.read_bytes()
    except OSError as error:
        inside, hint = [], "."
        if folder.is_dir():
            inside = sorted(one.parent.name for one in folder.glob(f"*/{SETTINGS}"))
        elif folder.parent.is_dir():
            names = [one.name for one in folder.parent.iterdir() if one.is_dir()]
            inside = difflib.get_close_matches(folder.name, names)
            hint = ". There is no such folder."
        if inside:
            near = folder if folder.is_dir() else folder.parent
            hint += f" Did you mean {' or '.join(str(near / one) for one in inside[:5])}?"
        elif folder.is_dir():
            hint += " Expected is a folder that the save() of a result, or a command's --output, has made."
        raise ResultError(
            f"{folder} holds no saved {what}: {SETTINGS} cannot be read ({error.strerror or error}){hint}"
        ) from error
