"""The table of the records: its columns, and its rows as a page can sort and filter them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.report.html.hidden import Texts
from memorization.report.html.shown import UNKNOWN, figure, p_value, shown

if TYPE_CHECKING:
    import pandas as pd

    from memorization.auditing import Audit

__all__ = ["MOST_ROWS", "Column", "Records", "records_of"]

MOST_ROWS = 100  # that stand in the page at a time
_NAME = 120


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table.

    Attributes:
        name: as in `Audit.records`.
        label: at its head.
        told: what it holds, in a sentence.
        kind: "text", "bits" (one digit after the point), "count", "chance" (a probability), or "flag" (yes or no).
    """

    name: str
    label: str
    told: str
    kind: str


_COLUMNS = (
    Column("bits", "memU", "bits memorized", "bits"),
    Column("signed_bits", "signed", "memU, below 0 where the target needs more bits than the oracle", "bits"),
    Column("target_bits", "target", "bits under the target", "bits"),
    Column("oracle_bits", "oracle", "bits under the oracle", "bits"),
    Column("p_value", "p", "how often an unseen record looks as memorized", "chance"),
    Column("q_value", "q", "lowest false discovery rate at which it is selected", "chance"),
    Column("memorized", "memorized", "selected at the false discovery rate of the audit", "flag"),
    Column("extracted", "extracted", "given back word for word by greedy decoding", "flag"),
    Column("extraction_bits", "extraction bits", "10 are 1 in 1,024 tries", "bits"),
    Column("n_duplicates", "copies", "times that it stands in the data", "count"),
    Column("exact_duplicates", "copies", "times that it stands in the data", "count"),
    Column("near_duplicates", "near copies", "records that resemble it, itself included", "count"),
    Column("tfidf_bits", "TF-IDF", "how rare its tokens are, bits a token", "bits"),
    Column("n_tokens", "tokens", "of the target", "count"),
    Column("target_n_tokens", "tokens", "of the target", "count"),
)
# What is kept out of the table: it says the same again, or is for those who read records.parquet.
_INNER = {
    *("sample", "id", "preview", "text", "ideal_bits", "ideal_signed_bits", "joint_bits", "mem_bits"),
    *("intended_bits", "oracle_n_tokens", "n_bytes"),
}


@dataclass(frozen=True, slots=True)
class Records:
    """The table: columns, and rows with the most memorized record first.

    Attributes:
        columns: in their order.
        rows: of each record its values: text, number, true or false; None where unknown, "never" where endless.
    """

    columns: list[Column]
    rows: list[list[Any]]

    def cells(self, row: list[Any]) -> list[str]:
        """A row in words."""
        return [in_words(value, column.kind) for value, column in zip(row, self.columns, strict=True)]


def records_of(audit: "Audit", texts: Texts) -> Records:
    """Every record."""
    table = audit.records().sort_values("signed_bits", ascending=False, kind="stable").reset_index(drop=True)
    columns, values = _first(audit, table, texts)
    taken = set[str]()
    for column in _COLUMNS:
        if column.name in table and column.label not in taken and table[column.name].notna().any():
            taken.add(column.label)
            columns.append(column)
            values.append(_numbers(table[column.name], column.kind))
    for name in table.columns:
        if name in _INNER or any(name == one.name for one in _COLUMNS):
            continue
        own = table[name]
        is_number = own.dtype.kind in "iuf"
        told = "from the file of the records"
        columns.append(Column(str(name), shown(str(name), 40), told, "number" if is_number else "text"))
        values.append(_numbers(own, "number") if is_number else [_word(one, texts) for one in own])
    return Records(columns, [list(row) for row in zip(*values, strict=True)])


def _first(audit: "Audit", table: "pd.DataFrame", texts: Texts) -> tuple[list[Column], list[list[Any]]]:
    """Row, id and preview, where they are known."""
    columns, values = (
        [Column("sample", "row", "in the file of the records, from 0", "count")],
        [table["sample"].tolist()],
    )
    if "id" in table and table["id"].notna().any():
        columns.append(Column("id", "id", "of the record", "text"))
        values.append([None if one is None or one != one else shown(str(one), _NAME) for one in table["id"]])
    previews = _previews(audit, table)
    if previews is not None:
        columns.append(Column("preview", "begins", "first words of the record", "text"))
        values.append([texts.preview(one) for one in previews])
    return columns, values


def _previews(audit: "Audit", table: "pd.DataFrame") -> list[str | None] | None:
    """How each record begins, from the first place that knows it."""
    for name in ("preview", "text"):
        if name in table and table[name].notna().any():
            return [one if isinstance(one, str) else None for one in table[name]]
    known: dict[int, str] = {}
    if audit.rarity is not None:
        known = dict(zip(audit.rarity.index.tolist(), audit.rarity.previews, strict=True))
    known |= {int(row.sample): str(row.text) for row in audit.texts.itertuples()}
    return [known.get(sample) for sample in table["sample"].tolist()] if known else None


def _word(value: Any, texts: Texts) -> str | None:
    return None if value is None or value != value else texts.column(str(value))


def _numbers(column: "pd.Series", kind: str) -> list[Any]:
    """Values for JSON, with six digits."""
    if kind == "flag":
        return [None if unknown else bool(one) for one, unknown in zip(column, column.isna(), strict=True)]
    found: list[Any] = []
    for value in column.to_numpy(np.float64, na_value=np.nan).tolist():
        if np.isnan(value):
            found.append(None)
        elif np.isinf(value):
            found.append("never")
        else:
            found.append(int(value) if value == int(value) and abs(value) < 2**53 else float(f"{value:.6g}"))
    return found


def in_words(value: Any, kind: str) -> str:
    """A value of the table as it is shown."""
    if value is None:
        return UNKNOWN if kind != "text" else ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if kind == "chance":
        return p_value(value)
    return figure(value, {"bits": 1, "number": 3 if value != int(value) else 0}.get(kind, 0))
