"""What stands beside a number: versions, descriptions in words, and results saved as folders of parquet and JSON."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization.errors import ResultError

if TYPE_CHECKING:
    import pandas as pd

_FORMAT = 1


def describe_first_token(record: Mapping[str, Any]) -> str:
    """A first-token record in words."""
    name = f"{record['token']!r} (id {record['id']})" if record["token"] is not None else f"id {record['id']}"
    return {
        "bos": f"bos: given {name}, which is not coded",
        "token": f"given {name}, which is not coded",
        "uniform": "uniform: log2 of the vocabulary size",
        "skip": "skip: left out of the code",
    }[record["rule"]]


def describe_model(record: Mapping[str, Any]) -> str:
    """A model record in words."""
    facts = [record["class"]] if record["class"] not in record["name"] else []
    facts += [f"{record['n_params']:,} parameters"] if record["n_params"] is not None else []
    facts += [str(record[key]) for key in ("dtype", "device") if record[key]]
    return f"{record['name']} ({', '.join(facts)})"


@lru_cache(maxsize=1)
def _installed() -> dict[str, str]:
    names = ("torch", "numpy", "constriction", "transformers")
    found = {"python": platform.python_version()}
    for name in ("lm-memorization", *names):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return dict(_installed())


def write_tables(folder: str | os.PathLike[str], tables: "Mapping[str, pd.DataFrame]") -> None:
    """Parquet files in a folder; each appears whole or not at all."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        temporary = Path(folder) / f".{name}.parquet.tmp"
        table.to_parquet(temporary, index=False)
        os.replace(temporary, Path(folder) / f"{name}.parquet")


def write_json(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    """A JSON file of a result of this kind, which appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(
        json.dumps({"kind": kind, "format": _FORMAT, **content}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    os.replace(temporary, path)


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """The settings of a saved result of this kind."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path.parent} holds no saved {kind}: {path.name} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ResultError(f"{path.parent} holds no saved {kind}: {path.name} holds no object")
    if content.get("kind") != kind:
        raise ResultError(f"{path.parent} holds a {content.get('kind', 'file of something else')}, not a {kind}")
    if content.pop("format", None) != _FORMAT:
        raise ResultError(f"{path} has a format that this version does not read (it reads {_FORMAT}); measure again")
    return {key: value for key, value in content.items() if key != "kind"}


def read_table(folder: str | os.PathLike[str], name: str, columns: Sequence[str]) -> "pd.DataFrame":
    """These columns of a parquet file of a saved result."""
    import pandas as pd

    path = Path(folder) / f"{name}.parquet"
    try:
        return pd.read_parquet(path, columns=list(columns))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} cannot be read: {error}") from error
