"""Capacities of several architectures, measured by one protocol: one table."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memorization.capacity.result import Capacity
from memorization.results import Result, Saved

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class CapacityComparison(Result):
    """Bits per parameter of several architectures, by one protocol.

    A saved folder holds comparison.parquet (a row an architecture), settings.json, and the capacity of each
    architecture in a folder of its own, architecture-0, architecture-1, ...

    Attributes:
        capacities: by the name of the architecture.
        anchors: the name of the GPT-2 style model of equal size that each name is compared with; empty without anchor.
        settings: what was decided for the caller.

    Examples:
        >>> from memorization import CapacityComparison, fit_capacity
        >>> mine, theirs = (fit_capacity([1_000], [bits]) for bits in (3_000.0, 3_600.0))
        >>> both = CapacityComparison({"mine": mine, "GPT-2": theirs}, {"mine": "GPT-2", "GPT-2": "GPT-2"})
        >>> round(both.ratio("mine")[0], 3)
        0.833
    """

    capacities: Mapping[str, Capacity]
    anchors: Mapping[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Capacity:
        return self.capacities[name]

    def ratio(self, name: str) -> tuple[float, float]:
        """Bits per parameter over those of GPT-2 of equal size, and the standard error of that, between seeds.

        NaN where there is no anchor, one holds nothing, or one seed leaves the scatter unknown.

        Args:
            name: of the architecture, as in the table.

        Returns:
            The ratio and its standard error.
        """
        beside = self.anchors.get(name)
        if beside is None:
            return math.nan, math.nan
        mine, theirs = self.capacities[name], self.capacities[beside]
        if theirs.bits_per_param <= 0:
            return math.nan, math.nan
        ratio = mine.bits_per_param / theirs.bits_per_param
        if beside == name:
            return ratio, 0.0
        # Of a quotient of two independent means: runs of two architectures share data only where their sets are equal.
        return ratio, math.hypot(mine.stderr, ratio * theirs.stderr) / theirs.bits_per_param

    def to_pandas(self) -> "pd.DataFrame":
        """One row an architecture, as in `capacities`.

        Columns: name, n_params, n_non_embedding_params, steps, bits_per_param, stderr, low, high, gain_per_doubling,
        converged, gpt2 (the name of its anchor), ratio, ratio_stderr.
        """
        import pandas as pd

        table = pd.DataFrame([self._row(name, found) for name, found in self.capacities.items()])
        return table.astype({"steps": "Int64"})

    def _row(self, name: str, found: Capacity) -> dict[str, Any]:
        ratio, ratio_stderr = self.ratio(name)
        return {
            "name": name,
            "n_params": int(found.n_params[-1]),
            "n_non_embedding_params": float(found.n_non_embedding_params[-1]),
            "steps": found.curve["steps"].max(),
            "bits_per_param": found.bits_per_param,
            "stderr": found.stderr,
            "low": found.interval[0],
            "high": found.interval[1],
            "gain_per_doubling": found.gain_per_doubling,
            "converged": found.converged,
            "gpt2": self.anchors.get(name),
            "ratio": ratio,
            "ratio_stderr": ratio_stderr,
        }

    def _tables(self) -> "dict[str, pd.DataFrame]":
        return {"comparison": self.to_pandas()}

    def _parts(self) -> dict[str, Capacity]:
        return {f"architecture-{k}": found for k, found in enumerate(self.capacities.values())}

    def _facts(self) -> dict[str, Any]:
        return {"names": list(self.capacities), "anchors": dict(self.anchors), "settings": self.settings}

    @classmethod
    def _from_saved(cls, saved: Saved) -> "CapacityComparison":
        facts = saved.need("names", "anchors", "settings")
        capacities = {name: saved.part(f"architecture-{k}", Capacity) for k, name in enumerate(facts["names"])}
        return cls(capacities=capacities, anchors=facts["anchors"], settings=facts["settings"])

    def __repr__(self) -> str:
        import pandas as pd

        table = self.to_pandas()
        wide = max(12, *(len(name) for name in table["name"])) + 2
        some = next(iter(self.capacities.values()))
        level = f"{100 * some.settings.get('interval_level', 0.95):g} %"
        ratio = "of GPT-2 of equal size" if self.anchors else ""
        lines = [
            f"Capacities of {len(table)} architectures by one protocol ({some.convention} convention; {level} "
            "intervals are between seeds)",
            f"  {'architecture':<{wide}}{'n_params':>10}{'steps':>9}  {'bits/param':<28}"
            f"{'a doubling':<12}{ratio}".rstrip(),
        ]
        for row in table.itertuples():
            found = f"{'' if row.converged else 'at least '}{row.bits_per_param:.3f}"
            found += "" if math.isnan(row.stderr) else f" [{row.low:.2f}, {row.high:.2f}]"
            gain = "unknown" if math.isnan(row.gain_per_doubling) else f"{100 * row.gain_per_doubling:+.1f} %"
            steps = "unknown" if pd.isna(row.steps) else f"{row.steps:,}"
            share = _in_words(row.ratio, row.ratio_stderr)
            lines.append(f"  {row.name:<{wide}}{row.n_params:>10,}{steps:>9}  {found:<28}{gain:<12}{share}".rstrip())
        if not table["converged"].all():
            lines.append("  after so many steps: an architecture that learns more slowly may hold as much in the end")
        return "\n".join(lines)


def _in_words(ratio: float, stderr: float) -> str:
    if math.isnan(ratio):
        return ""
    if stderr == 0.0:
        return "1 (itself)"
    return f"{ratio:.3f}" + ("" if math.isnan(stderr) else f" \N{PLUS-MINUS SIGN} {stderr:.3f}")
