"""The result of `audit`: its parts, and what they come to in figures and in sentences."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from memorization.auditing.doubts import doubts_of, figures_in_doubt
from memorization.auditing.figures import figures_of, memorized_of, recited_of
from memorization.auditing.findings import Findings
from memorization.auditing.policy import Check, check_policy, read_policy
from memorization.auditing.sentences import not_shown, sentences_of
from memorization.extraction import Extraction
from memorization.membership import MembershipAudit
from memorization.rarity import Rarity
from memorization.results import Result, Saved, counted, describe_model, plain
from memorization.spans import SpanMemorization
from memorization.unintended import Memorization

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Audit"]

_PARTS: dict[str, type[Result]] = {
    "memorization": Memorization,
    "membership": MembershipAudit,
    "extraction": Extraction,
    "rarity": Rarity,
    "spans": SpanMemorization,
}
_TEXTS = ("sample", "text", "pieces")


@dataclass(frozen=True, slots=True, eq=False)
class Audit(Findings, Result):
    """What one checkpoint has memorized of its data, and what of it comes out: all that the library can say.

    A saved folder holds a folder for each part, records.parquet (a row a record), texts.parquet (the most memorized
    records in full), audit.json (sentences, figures and checks) and settings.json.

    Attributes:
        memorization: memU of the records against the oracle, beside the control's.
        membership: attacks that tell records from unseen ones; None where they could not be made.
        extraction: what comes out of the target, greedily and by sampling; None where it could not be measured.
        rarity: memU beside rare tokens and duplicates; None where it could not be computed.
        spans: memU of named parts of the records; None where none were named.
        texts: of the most memorized records the text and its tokens' pieces, a row a record: sample, text, pieces.
            Empty where texts are hidden.
        settings: what was decided; "date", "versions", "weights" (SHA-256 of the files), "policy", "missing" (what was
            not measured, and why), "warnings", "redacted".
    """

    memorization: Memorization
    membership: MembershipAudit | None
    extraction: Extraction | None
    rarity: Rarity | None
    spans: SpanMemorization | None
    texts: "pd.DataFrame"
    settings: dict[str, Any]

    @property
    def checks(self) -> list[Check]:
        """What came of each condition of the policy, in its order."""
        figures = self.figures()
        return check_policy(read_policy(self.settings["policy"], figures), figures, self.doubts())

    @property
    def passed(self) -> bool | None:
        """Whether every condition is known not to hold; None where there are none."""
        checks = self.checks
        return all(check.passed for check in checks) if checks else None

    def figures(self) -> dict[str, float]:
        """Every figure by name, as a policy uses them; NaN where it is unknown. Bits where the name says so."""
        return dict(figures_of(self))

    def doubts(self) -> dict[str, str]:
        """Figures that are unknown or not to be believed, by name, and why."""
        return dict(figures_in_doubt(self))

    def sentences(self) -> list[str]:
        """The findings in sentences, the most important first."""
        return sentences_of(self)

    def not_shown(self) -> list[str]:
        """What this audit does not show."""
        return not_shown(self)

    def records(self) -> "pd.DataFrame":
        """One row a record: the columns of `Memorization.to_pandas`, and what else is known of it.

        That is memorized (missing where it cannot be told); extracted (greedily, from 8, 16 or 32 tokens, as the record
        is long) and extraction_bits (sampled, from the same); exact_duplicates, near_duplicates and tfidf_bits.
        """
        return self._once("records", self._records).copy()

    def _records(self) -> "pd.DataFrame":
        import pandas as pd

        table = self.memorization.to_pandas()
        chosen = memorized_of(self.memorization) if not doubts_of(self).unlike else None
        table["memorized"] = pd.array([pd.NA] * len(table) if chosen is None else chosen, dtype="boolean")
        came = recited_of(self)
        if self.extraction is not None and came is not None:
            own = pd.DataFrame(
                {
                    "sample": self.extraction._index("members"),
                    "extracted": pd.array(came[0].greedy, dtype="boolean"),
                    "extraction_bits": came[0].bits,
                }
            )
            table = table.merge(own, on="sample", how="left")
        if self.rarity is not None:
            columns = ["sample", "exact_duplicates", "near_duplicates", "tfidf_bits"]
            table = table.merge(self.rarity.to_pandas()[columns], on="sample", how="left")
        return table

    _row_tables: ClassVar[tuple[str, ...]] = ("records",)

    def _tables(self) -> "dict[str, pd.DataFrame]":
        return {"records": self.records(), "texts": self.texts}

    def _facts(self) -> dict[str, Any]:
        return {"settings": self.settings, "parts": list(self._parts())}

    def _parts(self) -> dict[str, Result]:
        parts = {name: getattr(self, name) for name in _PARTS}
        return {name: part for name, part in parts.items() if part is not None}

    def _write_more(self, folder: Path) -> None:
        content = {"kind": "audit", **plain(self._summary())}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "audit.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def _from_saved(cls, saved: Saved) -> "Audit":
        facts = saved.need("settings", "parts")
        parts: dict[str, Any] = {
            name: saved.part(name, kind) if name in facts["parts"] else None for name, kind in _PARTS.items()
        }
        texts = saved.table("texts", _TEXTS)
        return cls(**parts, texts=texts, settings=facts["settings"])

    def _summary(self) -> dict[str, Any]:
        """What audit.json holds: sentences, figures, checks, warnings and settings; unknown figures are None."""
        doubts = self.doubts()
        return {
            "passed": self.passed,
            "sentences": self.sentences(),
            "not_shown": self.not_shown(),
            "figures": {name: None if math.isnan(value) else value for name, value in self.figures().items()},
            "doubts": doubts,
            "verdict": self.memorization.verdict,
            "checks": [
                {"condition": one.condition, "outcome": one.outcome, "why": one.why, "value": one.value}
                for one in self.checks
            ],
            "warnings": [{"kind": kind, "message": told} for kind, told in self.warnings],
            "settings": self.settings,
        }

    def top(self, n: int = 10) -> "pd.DataFrame":
        """The n records with most signed memU, as rows of `records`."""
        return self.records().nlargest(n, "signed_bits")

    def __len__(self) -> int:
        return len(self.memorization)

    def __repr__(self) -> str:
        control = self.memorization.control
        sets = f"{counted(len(self), 'record')} and {counted(len(control.bits) if control else 0, 'unseen one')}"
        lines = [f"Audit of {sets}", *(f"  {one}" for one in self.sentences())]
        if self.checks:
            lines.append("  Policy:")
            lines += [f"    {check.outcome.upper():<12}{check.condition}: {check.why}" for check in self.checks]
        lines.append("  What this does not show:")
        lines += [f"    {one}" for one in self.not_shown()]
        target, oracle = self.memorization.target.settings, self.memorization.oracle.settings
        lines += [f"  target  {describe_model(target['model'])}", f"  oracle  {describe_model(oracle['model'])}"]
        return "\n".join(lines)


def texts_of(memorization: Memorization, texts: Sequence[str] | None, decode: Any, n: int) -> "pd.DataFrame":
    """Of the n records with most memU the text and the pieces that its tokens are of."""
    import pandas as pd

    lengths, order = memorization.target, np.argsort(-memorization.signed_bits, kind="stable")[:n]
    rows: list[dict[str, Any]] = []
    for k in order.tolist():
        one = lengths._window(k, k + 1)
        ids, places = one.token_ids, one.token_bytes
        whole = None if texts is None else texts[k]
        if whole is not None and places is not None and (places >= 0).all():
            encoded = whole.encode()
            pieces = [encoded[a:b].decode(errors="replace") for a, b in places]
        else:
            pieces = [str(i) if decode is None else decode([i]) for i in ids.tolist()]
        text = whole if whole is not None else "".join(pieces) if decode is not None else " ".join(pieces)
        rows.append({"sample": int(lengths.index[k]), "text": text, "pieces": pieces})
    return pd.DataFrame(rows, columns=list(_TEXTS)).astype({"sample": np.int64})
