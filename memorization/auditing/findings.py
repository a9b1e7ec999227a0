"""What the figures and sentences of an audit are made of: its parts, by name."""

from typing import Any

from memorization.extraction import Extraction
from memorization.membership import MembershipAudit
from memorization.results import ReadOnly, visible
from memorization.unintended import Memorization

__all__ = ["Findings"]


class Findings(ReadOnly):
    """The parts of an audit."""

    __slots__ = ()

    memorization: Memorization
    membership: MembershipAudit | None
    extraction: Extraction | None
    settings: dict[str, Any]

    @property
    def missing(self) -> dict[str, str]:
        """What was not measured, by name, and why."""
        return dict(self.settings["missing"])

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """Kind and sentence of each warning of the measurement."""
        return [(kind, told) for kind, told in self.settings["warnings"]]

    @property
    def redacted(self) -> bool:
        """Whether texts are hidden."""
        return bool(self.settings["redacted"])

    def name_of(self, k: int) -> str:
        """What the k-th record here is called: its id where it has one, else its row in the data, from 0."""
        table = self._once("samples", self.memorization.to_pandas)
        if "id" in table:
            return f"record {visible(table['id'][k])}"
        return f"record {table['sample'][k]} (counted from 0)"
