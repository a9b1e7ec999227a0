"""What is told beside a number, in words and as JSON: models, first tokens, versions."""

import math
import platform
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from typing import Any, SupportsIndex

import numpy as np

__all__ = ["counted", "describe_first_token", "describe_model", "number", "plain", "versions"]


def describe_first_token(record: Mapping[str, Any], samples: Mapping[str, Any] | None = None) -> str:
    """A first-token record in words: what the first token costs, what stands in front, and what else would have.

    Args:
        record: of the first token.
        samples: of the samples; where something is read before all that is counted, no first token is charged.
    """
    name = _token(record) if record["id"] is not None else None
    in_front = name is not None and record.get("in_front", True)
    given = None if samples is None else samples.get("conditional")
    if given and samples is not None and given["n_samples_prompted"] == samples["n_samples"]:
        return f"given what is read before it, with {name if in_front else 'nothing'} in front"
    coded = "not coded" if in_front else "read before the first token alone"
    words = {
        "bos": f"{'eos' if record.get('is_eos') else 'bos'}: given {name}, which is {coded}",
        "token": f"given {name}, which is not coded",
        "uniform": "uniform: log2 of the vocabulary size",
        "skip": "skip: left out of the code",
    }[record["rule"]]
    if record["rule"] in ("uniform", "skip") and in_front:
        words += f", after {name}, which is not coded"
    if record["asked"] == "auto" and record["rule"] == "uniform" and name is None and record.get("evidence") is None:
        words += "; nothing in front (no BOS is known, so none was tried)"
    return "; ".join([words, *_evidence(record, in_front)])


def _evidence(record: Mapping[str, Any], in_front: bool) -> list[str]:
    """What was asked before it was decided what stands in front: of the samples, and of later windows of long ones."""
    told, asked, later = [], record.get("evidence"), record.get("later_windows")
    if asked is not None:
        taken, other = (
            number(asked[f"bits_{way}"]) for way in (("with", "without") if in_front else ("without", "with"))
        )
        where, else_where = ("", "without it") if in_front else ("nothing in front: ", f"after {_token(asked)}")
        told.append(
            f"{where}{taken:.3g} bits a token, {else_where} {other:.3g} ({_asked(asked['n_samples'], 'sample')})"
        )
    if later is not None:
        bits = {way: f"{number(later[f'bits_{way}']):.3g}" for way in ("with", "without")}
        told.append(
            (
                f"in front of later windows: {bits['with']} bits a token, without it {bits['without']}"
                if record["every_window"]
                else f"not in front of later windows: {bits['without']} bits a token, with it {bits['with']}"
            )
            + f" ({_asked(later['n_windows'], 'window')})"
        )
    return told


def _asked(count: int, name: str) -> str:
    return f"{counted(count, name)} asked"


def counted(count: SupportsIndex, name: str) -> str:
    """So many of what is named in the singular.

    Examples:
        >>> counted(1, "sample"), counted(2_000, "sample")
        ('1 sample', '2,000 samples')
    """
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _token(record: Mapping[str, Any]) -> str:
    return f"{record['token']!r} (id {record['id']})" if record["token"] is not None else f"id {record['id']}"


def describe_model(record: Mapping[str, Any]) -> str:
    """A model record in words."""
    facts = [record["class"]] if record["class"] not in record["name"] else []
    facts += [f"{record['n_params']:,} parameters"] if record["n_params"] is not None else []
    facts += [f"{record['n_trained_params']:,} of them trained"] if record.get("n_trained_params") is not None else []
    facts += [str(record[key]) for key in ("dtype", "device") if record[key]]
    return f"{record['name']} ({', '.join(facts)})"


@lru_cache(maxsize=1)
def _installed() -> dict[str, str]:
    names = ("torch", "numpy", "scipy", "constriction", "transformers", "scikit-learn", "datasketch")
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


def plain(value: Any) -> Any:
    """A value as JSON takes it: numpy's numbers and arrays as numbers and lists, what is not finite as null.

    What JSON has no words for (a path, a dtype) becomes its text: a measurement is not lost to one of its settings.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, bool, int)) else str(value)


def number(value: float | None) -> float:
    """A number as JSON gave it back: null is NaN."""
    return math.nan if value is None else float(value)
