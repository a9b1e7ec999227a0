"""The store of an experiment's cells: one file a training run, written whole or not at all, and found again later."""

import hashlib
import json
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memorization.errors import ResultError
from memorization.results import Claims, versions

__all__ = ["Store"]

_FORMAT = 2  # 1: of versions that could not tell when a model or its training had changed
_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.02, 1.0  # at what another process decides
# What to do about a difference, beside naming another store.
_REMEDIES = {
    "torch": "Install torch {there} to go on there, or name another store",
    "recipe": "Another version of this library gives other numbers: go on with the one that experiment.json names, "
    "or name another store",
}


class Store:
    """What one experiment has measured so far: a cell that was finished is never run again.

    A cell is a mapping of everything that determines one training run; its file is named after the hash of that and of
    the experiment. Killed at any moment, a run loses the cells in flight and no others. Several processes may share a
    place: `claims` says who is at work on which cell.

    Args:
        place: a folder, or a URL that fsspec can open (s3://..., gs://...); None keeps the results until the Store is
            gone.
        experiment: what all cells have in common, as JSON. A place that holds another experiment is refused.

    Attributes:
        claims: of cells, by `name`.

    Raises:
        ResultError: the place belongs to another experiment; names what differs.

    Examples:
        >>> store = Store(None, {"vocab_size": 2})
        >>> store.get({"seed": 0}) is None
        True
        >>> store.put({"seed": 0}, {"memorized_bits": 8.0})
        >>> store.get({"seed": 0})
        {'memorized_bits': 8.0}
    """

    def __init__(self, place: str | Path | None, experiment: Mapping[str, Any]) -> None:
        import fsspec

        self._experiment = json.loads(json.dumps(dict(experiment)))
        if place is None:
            place = tempfile.mkdtemp(prefix="memorization-")
            weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        self._files, self._root = fsspec.core.url_to_fs(str(place))
        for folder in ("cells", "stacks"):
            self._files.makedirs(f"{self._root}/{folder}", exist_ok=True)
        self.claims = Claims(self._files, f"{self._root}/claims")
        self._news: set[str] = set()
        begun = {"format": _FORMAT, "experiment": self._experiment, "begun_with": versions()}
        self._check_same(str(place), self._made_once("experiment.json", lambda: begun))

    def get(self, cell: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of a cell; None where it has not been run.

        Raises:
            ResultError: its file is damaged.
        """
        name = f"cells/{self.name(cell)}.json"
        found = self._read(name)
        if found is None:
            return None
        result = found.get("result") if isinstance(found, dict) else None
        if not isinstance(result, dict):
            raise self._damaged(name, "it holds no result")
        return result

    def holds(self, cell: Mapping[str, object]) -> bool:
        """Whether a cell has a result; it is not read."""
        self._files.invalidate_cache(f"{self._root}/cells")  # or another process's new file may not be seen
        return bool(self._files.exists(f"{self._root}/cells/{self.name(cell)}.json"))

    def n_cells(self) -> int:
        """Cells that have a result."""
        self._files.invalidate_cache(f"{self._root}/cells")
        return len(self._files.ls(f"{self._root}/cells", detail=False))

    def put(self, cell: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Keep the result of a cell. Numbers in it must be finite: None stands for unknown."""
        self._write(f"cells/{self.name(cell)}.json", {"cell": dict(cell), "result": dict(result)})

    def once(self, name: str, decide: Callable[[], Any]) -> Any:
        """A decision that must not change when the experiment goes on later: made the first time, read afterwards.

        Args:
            name: of the decision.
            decide: makes it, as JSON takes it.

        Returns:
            The decision.
        """
        found = self._made_once(f"{name}.json", lambda: {name: decide()})
        if not isinstance(found, dict) or name not in found:
            raise self._damaged(f"{name}.json", f"it holds no {name}")
        return found[name]

    def name(self, cell: Mapping[str, object]) -> str:
        """What a cell is called here and nowhere else: the hash of it and of the experiment."""
        identity = json.dumps([self._experiment, dict(cell)], sort_keys=True, allow_nan=False)
        return hashlib.sha256(identity.encode()).hexdigest()[:32]

    def is_news(self, this: str) -> bool:
        """Whether this was not said of the store before, by this process."""
        new = this not in self._news
        self._news.add(this)
        return new

    def _made_once(self, name: str, make: Callable[[], Any]) -> Any:
        """What a file holds; made where it is not there, by one process, while the others wait."""
        look = _LOOK_SECONDS
        while (found := self._read(name)) is None:
            with self.claims.hold(name) as mine:
                if mine and self._read(name) is None:  # another may just have finished it
                    self._write(name, make())
            if not mine:
                time.sleep(look)
                look = min(2 * look, _LONGEST_LOOK_SECONDS)
        return found

    def _read(self, name: str) -> Any:
        try:
            content = self._files.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        try:
            found = json.loads(content)
        except ValueError as error:
            raise self._damaged(name, str(error)) from error
        return [] if found is None else found  # null is damage, not absence

    def _damaged(self, name: str, why: str) -> ResultError:
        return ResultError(f"{self._root}/{name} is damaged ({why}); delete it, and it is measured again.")

    def _write(self, name: str, content: Any) -> None:
        # Renaming is atomic; a half-written file has a name that nobody reads.
        unfinished = f"{self._root}/.{uuid.uuid4().hex}.tmp"
        self._files.pipe_file(unfinished, json.dumps(content, indent=1, allow_nan=False).encode())
        self._files.mv(unfinished, f"{self._root}/{name}")

    def _check_same(self, place: str, found: Any) -> None:
        there = found.get("experiment") if isinstance(found, dict) else None
        if not isinstance(there, dict):
            raise ResultError(f"{place} holds no experiment that this version can read; name another store.")
        if found.get("format") != _FORMAT:
            raise ResultError(
                f"{place} was written by another version of this library (format {found.get('format')}, and this one "
                f"has {_FORMAT}), whose runs cannot be told from those of a model or a training that has changed "
                "since; name another store."
            )
        different = [key for key in {**there, **self._experiment} if there.get(key) != self._experiment.get(key)]
        if different:
            key = different[0]
            remedy = _REMEDIES.get(key, "name another store").format(there=there.get(key))
            raise ResultError(
                f"{place} belongs to another experiment: {key} is {there.get(key)!r} there and "
                f"{self._experiment.get(key)!r} here"
                + (f" ({', '.join(different[1:])} differ too)" if len(different) > 1 else "")
                + (f". {remedy}." if key in _REMEDIES else f"; {remedy}.")
            )
