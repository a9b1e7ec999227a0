"""The result of `measure_spans`: memU of each field of the texts, beside the control's."""

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from memorization.errors import InputError
from memorization.integers import check_integer
from memorization.results import About, Result, Saved, counted, describe_model, with_about
from memorization.samples import left_out
from memorization.spans.fields import Field, Spans, field_of
from memorization.spans.finding import REST
from memorization.stats.levels import Interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OWN_COLUMNS", "SpanMemorization", "Spans"]

# Of the table, beside those that every table of samples may have (`samples.beside`).
OWN_COLUMNS = ("set", "field", "start", "end", "on_edges", "unit")

_TRIES = 1000
_SETS = ("samples", "control")
_INTEGERS, _FLOATS = ("start", "end", "n_bytes", "unit"), ("target_bits", "oracle_bits")


@dataclass(frozen=True, slots=True, eq=False)
class SpanMemorization(Result):
    """memU of named parts of texts, and of the rest of them, each beside the same parts of a control.

    A saved folder holds fields.parquet (a row a name), spans.parquet (a row a span, of samples and control) and
    settings.json.

    Attributes:
        spans: of the samples.
        control: of texts that neither model has seen; None where none were given.
        settings: what was decided, by the caller or for the caller.

    Examples:
        >>> from memorization import UniformModel, measure_spans
        >>> letters = (lambda text: list(text.encode()), lambda ids: bytes(ids).decode())
        >>> texts, models = ["id 17, Ann", "id 4, Bo"], (UniformModel(128), UniformModel(256))  # 7 bits a letter, and 8
        >>> found = measure_spans(
        ...     *models, texts, {"id": r"[0-9]+"}, target_tokenizer=letters, oracle_tokenizer=letters, progress=False
        ... )
        >>> found.names, found.field("id").n_spans
        (['id', 'rest'], 2)
    """

    spans: Spans
    control: Spans | None
    settings: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Of the spans, in the order in which they were asked for; "rest" comes last."""
        return list(self.settings["names"])

    @property
    def fields(self) -> dict[str, Field]:
        """The figures of each name."""
        joint = self.settings["joint"]
        return self._once(
            "fields", lambda: {name: field_of(name, self.spans, self.control, joint) for name in self.names}
        )

    def field(self, name: str) -> Field:
        """The figures of one name.

        Raises:
            InputError: no span has this name.
        """
        if name not in self.fields:
            raise InputError(f"no span is called {name!r}; there are {', '.join(self.names)}.")
        return self.fields[name]

    def to_pandas(self, *, tries: int = _TRIES) -> "pd.DataFrame":
        """One row a name: spans, mean bits a span, memU and net memU with their 95 % intervals, what can be extracted.

        Args:
            tries: extractable is the share of spans with at most log2(tries) bits under the target.

        Returns:
            One row a name.
        """
        import pandas as pd

        check_integer("tries", tries)
        return pd.DataFrame(
            [
                {
                    "field": one.name,
                    "n_spans": one.n_spans,
                    "n_samples": one.n_samples,
                    "n_split": one.n_split,
                    "mean_bytes": one.mean_bytes,
                    "target_bits": one.target_bits,
                    "oracle_bits": one.oracle_bits,
                    "signed_bits": one.signed_bits,
                    "bits": one.bits,
                    "low": one.interval.low,
                    "high": one.interval.high,
                    "control_n_spans": one.control_n_spans,
                    "control_bits": one.control_bits,
                    "net_bits": one.net_bits,
                    "net_low": one.net_interval.low,
                    "net_high": one.net_interval.high,
                    "extractable": one.extractable(tries),
                    "control_extractable": one.control_extractable(tries),
                }
                for one in self.fields.values()
            ]
        )

    def spans_to_pandas(self) -> "pd.DataFrame":
        """One row a span: set ("samples" or "control"), sample (position in the input), field, place, bits, preview.

        The preview is of the sample. Where `read_samples` was told of them, id stands behind sample, and the columns
        that were kept at the end.
        """
        import pandas as pd

        tables = []
        for name, spans in zip(_SETS, (self.spans, self.control), strict=True):
            if spans is None:
                continue
            columns = {
                "set": name,
                "sample": spans.index,
                "field": spans.names,
                **{column: getattr(spans, column) for column in (*_INTEGERS[:3], *_FLOATS, "signed_bits")},
                "bits": spans.bits(self.settings["joint"]),
                "on_edges": spans.on_edges,
                "unit": spans.unit,
            }
            tables.append(pd.DataFrame(columns))
        sets = [spans for spans in (self.spans, self.control) if spans is not None]
        about = About.joined([spans.about for spans in sets], [len(spans) for spans in sets])
        return with_about(pd.concat(tables, ignore_index=True), about)

    _row_tables: ClassVar[tuple[str, ...]] = ("spans",)

    def _tables(self) -> "dict[str, pd.DataFrame]":
        return {"fields": self.to_pandas(), "spans": self.spans_to_pandas()}

    def _facts(self) -> dict[str, Any]:
        return self.settings

    @classmethod
    def _from_saved(cls, saved: Saved) -> "SpanMemorization":
        settings = saved.need("joint", "names", "samples", "control_samples", "target", "oracle")
        table = saved.table("spans", ("set", "sample", "field", *_INTEGERS, *_FLOATS, "on_edges"))

        about = saved.about("spans")

        def part(name: str) -> Spans:
            chosen = table["set"] == name
            rows = table[chosen]
            return Spans(
                index=rows["sample"].to_numpy(np.int64),
                names=rows["field"].tolist(),
                **{column: rows[column].to_numpy(np.int64) for column in _INTEGERS},
                **{column: rows[column].to_numpy(np.float64) for column in _FLOATS},
                on_edges=rows["on_edges"].to_numpy(np.bool_),
                about=None if about is None else about.take(np.flatnonzero(chosen)),
            )

        control = None if settings["control_samples"] is None else part("control")
        return cls(spans=part("samples"), control=control, settings=settings)

    def __len__(self) -> int:
        return len(self.spans)

    def __repr__(self) -> str:
        return self.describe()

    def describe(self, *, tries: int = _TRIES) -> str:
        """What the printed result says, with the share of spans that so many tries extract."""
        check_integer("tries", tries)
        settings, samples, control = self.settings, self.settings["samples"], self.settings["control_samples"]
        unseen = "no control" if control is None else counted(control["n_samples"], "control sample")
        named = [name for name in self.names if name != REST]
        lines = [
            f"SpanMemorization of {', '.join(named)} in {counted(samples['n_samples'], 'sample')}; {unseen}",
            "  mean bits a span; 95 % intervals",
            *_table([_head(tries), *(_row(self.fields[name], tries) for name in self.names)]),
            *self._notes(),
        ]
        if settings["verdict"] is not None:
            told = f"{settings['verdict']}: {settings['verdict_reason']}"
            lines += textwrap.wrap(told, 110, initial_indent="  the oracle   ", subsequent_indent=" " * 15)
        lines += [
            f"  joint code   {settings['joint']}, of each span by itself: signed bits of parts add up, memU need not",
            f"  target       {describe_model(settings['target'])}",
            f"  oracle       {describe_model(settings['oracle'])}",
            *left_out({"samples": samples, "control": control}),
        ]
        return "\n".join(lines)

    def _notes(self) -> list[str]:
        """What a reader of the table must know: what is missing, and what is cut."""
        notes = []
        if self.control is None:
            notes.append("  control      none: pass unseen texts to learn what memU shows where nothing was memorized")
        for name, one in self.fields.items():
            n, n_uncoded = self.settings["samples"]["n_samples"], self.settings["n_uncoded"].get(name, 0)
            if one.n_samples < n and name != REST:
                notes.append(f"  {name}: in {one.n_samples:,} of {counted(n, 'sample')}; nothing is said of the others")
            if n_uncoded:
                notes.append(f"  {name}: {counted(n_uncoded, 'span')} left out, which no code covers wholly")
            if self.control is not None and not one.control_n_spans:
                notes.append(f"  {name}: in no control sample, so its memU has no null")
            if one.n_split:
                notes.append(
                    f"  {name}: {one.n_split:,} of {counted(one.n_spans, 'span')} cut a token of the target, whose "
                    "bits are split by bytes"
                )
        return notes


def _head(tries: int) -> tuple[str, ...]:
    return ("field", "spans", "bytes", "target", "oracle", "memU", "control", "net memU", f"{tries:,} tries", "control")


def _row(one: Field, tries: int) -> tuple[str, ...]:
    return (
        one.name,
        f"{one.n_spans:,}",
        f"{one.mean_bytes:.1f}",
        f"{one.target_bits:,.2f}",
        f"{one.oracle_bits:,.2f}",
        f"{one.bits:,.2f} {_words(one.interval)}",
        f"{one.control_bits:,.2f}" if one.control_n_spans else "none",
        f"{one.net_bits:,.2f} {_words(one.net_interval)}" if one.control_n_spans else "unknown",
        *(
            f"{100 * share:.3g} %" if share == share else ""
            for share in (one.extractable(tries), one.control_extractable(tries))
        ),
    )


def _words(interval: Interval) -> str:
    return f"{interval:,.2f}" if interval.is_known else "[no interval]"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows in columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
