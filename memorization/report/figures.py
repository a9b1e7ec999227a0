"""The figures of a result by name, as JSON and as Markdown tables."""

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from memorization.results import plain
from memorization.results.kinds import kind_of
from memorization.stats.levels import Interval

if TYPE_CHECKING:
    import pandas as pd

    from memorization.results import Result

__all__ = ["as_json", "as_markdown", "figures"]

_TABLE = "table"
_UNKNOWN = "unknown"
_INTERVAL = "interval"
# What a figure may be declared as; arrays, code lengths and settings are none.
_SCALAR = re.compile(r"\b(bool|int|float|str|Literal|Interval|BagOfWords)\b")
_NOT_SCALAR = re.compile(r"ndarray|tuple|list|DataFrame")
# Figures that say again what others say.
_AGAIN = {"constants", "ratio_in_words", "interval_level"}

# Figures whose names say too little outside Python, in the order in which a paper would give them.
_WORDS: dict[str, dict[str, str]] = {
    "Memorization": {
        "n_samples": "samples",
        "mean_bits": "memU, bits a sample",
        "total_bits": "memU, bits in all",
        "mean_signed_bits": "signed memU, bits a sample",
        "control_n_samples": "control samples",
        "control_mean_bits": "memU of the control, bits a sample",
        "control_mean_signed_bits": "signed memU of the control, bits a sample",
        "net_bits": "net memU, bits in all",
        "bracket": "net memU, bracket, bits a sample",
        "verdict": "verdict on the oracle",
        "verdict_reason": "why",
        "set_p_value": "p that nothing was memorized",
        "target_bits_per_token": "target, bits a token",
        "oracle_bits_per_token": "oracle, bits a token",
        "capacity_share": "share of 3.6 bits x parameters",
    },
}

# Columns of tables that are too wide for a page.
_COLUMNS = {
    "TextSweep": re.compile(
        r"n_params|n_samples|seed|data_per_capacity|(train|test)_bits_per_token|memu_bits|(f1|auc)_loss|extracted_.*"
    ),
    "MIScalingLaw": re.compile(r"constant|value|stderr|low|high"),
}
_ABBREVIATED = {
    "auc": "AUC",
    "f1": "F1",
    "tpr": "TPR",
    "fpr": "FPR",
    "memu": "memU",
    "param": "parameter",
    "params": "parameters",
    "stderr": "standard error",
    "seq len": "tokens of a sample",
    "vocab size": "tokens of the vocabulary",
}


def figures(result: "Result") -> dict[str, Any]:
    """The figures of a result by name, as JSON takes them: an interval is a pair, what is unknown None.

    Arrays, with a number for each sample or token, are left out: they are in the tables of the saved folder. Where the
    result's own table has a row for a model size, an attack or a prefix, its rows are there as `table`.

    Args:
        result: of any kind.

    Returns:
        `kind`, the figures (units are in their names), and perhaps `table`, a list of rows.
    """
    found: dict[str, Any] = {"kind": kind_of(result)}
    summary = getattr(result, "summary", None)
    found |= summary() if callable(summary) else dict(_declared(result))
    more = _MORE.get(found["kind"])
    found |= {} if more is None else more(result)
    table = _table_of(result)
    if table is not None:
        found[_TABLE] = [dict(zip(table.columns, row, strict=True)) for row in table.astype(object).to_numpy().tolist()]
    return {name: plain(_without_missing(value)) for name, value in found.items()}


def as_json(result: "Result") -> str:
    """`figures` as JSON text, with null for what is unknown."""
    return json.dumps(figures(result), indent=1, ensure_ascii=False, allow_nan=False)


def as_markdown(result: "Result") -> str:
    """`figures` as tables in Markdown, with an interval beside its figure: for a paper, or a pull request."""
    result = getattr(result, "members", result) if type(result).__name__ == "Quickstart" else result
    named = figures(result)
    kind, table = named.pop("kind"), named.pop(_TABLE, None)
    level = getattr(result, "settings", {}).get("interval_level", 0.95)
    words = _WORDS.get(kind)
    rows = list(_rows(named, None if words is None else list(words)))
    lines = [f"**{_escaped(str(result).splitlines()[0])}**"]
    head = ["figure", "value", f"{100 * level:g} % interval"]
    cells = [[(words or {}).get(name, _in_words(name)), value, interval] for name, value, interval in rows]
    if not any(interval for *_, interval in cells):
        head, cells = head[:2], [row[:2] for row in cells]
    if cells:
        lines += ["", *_markdown_table(head, cells)]
    if table and kind != "Membership":  # whose table has the figures above
        lines += ["", *_markdown_table(*_short(kind, table, level))]
    return "\n".join(lines)


def _declared(result: Any) -> Iterator[tuple[str, Any]]:
    """Fields and properties of a result that are figures by what they are declared as."""
    fields = {field.name: field.type for field in dataclasses.fields(result)}
    names = [name for name in dir(type(result)) if not name.startswith("_") and name not in fields]
    for name in names:
        own = inspect.getattr_static(type(result), name)
        if isinstance(own, property) and own.fget is not None:
            fields[name] = own.fget.__annotations__.get("return", "")
    for name, declared in fields.items():
        if (
            name in _AGAIN
            or name == "settings"
            or not _SCALAR.search(str(declared))
            or _NOT_SCALAR.search(str(declared))
        ):
            continue
        value = getattr(result, name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from ((f"{name}_{inner}", one) for inner, one in _declared(value))
        elif not (isinstance(value, Mapping) and any(map(dataclasses.is_dataclass, value.values()))):
            yield name, value


def _table_of(result: Any) -> "pd.DataFrame | None":
    """The table of a result, unless it has a row a sample: a page of figures has no room for these."""
    own = getattr(result, "correlations", None)
    if own is not None:
        return own
    if not hasattr(result, "to_pandas"):
        return None
    table = result.to_pandas()
    return None if "sample" in table else table


def _of_samples(result: Any) -> dict[str, Any]:
    return {"n_samples": len(result)}


def _of_capacity(result: Any) -> dict[str, Any]:
    exponent, interval = result.exponent()
    return {"exponent": exponent, "exponent_interval": interval}


def _of_identifiers(result: Any) -> dict[str, Any]:
    chosen = result.memorized(0.05)
    return {
        "n_identifiers": len(result),
        "n_samples": len(set(result.index.tolist())),
        "n_memorized_at_fdr_5_percent": int(chosen.sum()),
        "total_bits": float(result.bits[~_isnan(result.bits)].sum()),
        "set_p_value": result.set_p_value(),
    }


def _of_quickstart(result: Any) -> dict[str, Any]:
    return {name: value for name, value in figures(result.members).items() if name != "kind"}


# Figures that a method works out, not a field or a property.
_MORE: dict[str, Callable[[Any], dict[str, Any]]] = {
    "Audit": lambda result: {**result.figures(), "verdict": result.memorization.verdict},
    "Capacity": _of_capacity,
    "CodeLengths": _of_samples,
    "IdentifierAudit": _of_identifiers,
    "Quickstart": _of_quickstart,
    "Rarity": _of_samples,
}


def _isnan(values: Any) -> Any:
    return values != values


def _without_missing(value: Any) -> Any:
    """The value with None for pandas' own sign of what is missing."""
    if isinstance(value, list):
        return [_without_missing(one) for one in value]
    if isinstance(value, dict):
        return {name: _without_missing(one) for name, one in value.items()}
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _rows(named: Mapping[str, Any], order: list[str] | None) -> Iterator[tuple[str, str, str]]:
    """Name, value and interval of each figure; an interval that belongs to none is a value of its own."""
    flat = dict(_flat(named))
    partner = {name: _interval_of(name, flat) for name in flat}
    used = {other for other in partner.values() if other is not None}
    for name in flat if order is None else [name for name in order if name in flat]:
        if name in used:
            continue
        other = partner[name]
        yield name, _said(flat[name]), "" if other is None else _said(flat[other])


def _flat(named: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in named.items():
        if isinstance(value, Mapping):
            stem, end = (
                (name.removesuffix(f"_{_INTERVAL}"), f"_{_INTERVAL}") if name.endswith(_INTERVAL) else (name, "")
            )
            yield from _flat({f"{stem} at {key}{end}": one for key, one in value.items()})
        else:
            yield name, value


def _interval_of(name: str, flat: Mapping[str, Any]) -> str | None:
    """The name of the interval that belongs to a figure."""
    for other in (f"{name}_{_INTERVAL}", f"{name.removesuffix('_bits')}_{_INTERVAL}"):
        if other in flat and other != name:
            return other
    return _INTERVAL if name == "bits_per_param" and _INTERVAL in flat else None


def _short(kind: str, table: list[dict[str, Any]], level: float) -> tuple[list[str], list[list[str]]]:
    """Head and cells of a table, narrow enough to be read: a pair of columns low and high is one."""
    if kind == "MembershipAudit":
        return _by_attack(table)
    names = [name for name in table[0] if kind not in _COLUMNS or _COLUMNS[kind].fullmatch(name)]
    head, columns = list[str](), list[list[str]]()
    for name in names:
        high, values = re.sub(r"low$", "high", name), [row[name] for row in table]
        if name.endswith("low") and high in table[0]:
            stem = _in_words(name.removesuffix("low").removesuffix("_"))
            said = f"{stem} {100 * level:g} % interval".strip()
            values = [[row[name], row[high]] for row in table]
        elif name.endswith("high") and re.sub(r"high$", "low", name) in table[0]:
            continue
        else:
            said = _in_words(name)
        head.append(said)
        columns.append([_said(value) for value in values])
    return head, [list(row) for row in zip(*columns, strict=True)]


def _by_attack(table: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """A row an attack, a column a metric."""
    rows: dict[str, dict[str, str]] = {}
    for row in table:
        interval = "" if row["low"] is None else f" ({_said([row['low'], row['high']])})"
        words = _said(row["value"]) + interval
        rows.setdefault(row["attack"], {})[row["metric"]] = words
    metrics = list(dict.fromkeys(row["metric"] for row in table))
    cells = [[attack, *(one.get(name, _UNKNOWN) for name in metrics)] for attack, one in rows.items()]
    return ["attack", *map(_in_words, metrics)], cells


def _markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *([_escaped(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _escaped(text: str) -> str:
    """Text that neither ends a cell nor becomes markup."""
    plain_text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain_text).replace("<", "&lt;")


def _in_words(name: str) -> str:
    words = name.removeprefix("n_").replace("_", " ").replace("non embedding", "non-embedding")
    for short, long in _ABBREVIATED.items():
        words = re.sub(rf"\b{short}\b", long, words)
    return words


def _said(value: Any) -> str:
    """A figure in words, to four digits."""
    if value is None:
        return _UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, Interval)):
        if len(value) == 2 and all(isinstance(one, (int, float)) for one in value):
            return f"{_said(value[0])} to {_said(value[1])}"
        return _UNKNOWN if set(value) == {None} else ", ".join(map(_said, value))
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
