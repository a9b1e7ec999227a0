"""The picture of each result: found by the name of its class, imported when drawn."""

import importlib
from typing import TYPE_CHECKING, Any

from memorization.errors import InputError

if TYPE_CHECKING:
    from memorization.results import Result

__all__ = ["PICTURES", "draw"]

PICTURES: dict[str, tuple[str, str]] = {
    "Capacity": ("capacity", "plot_capacity"),
    "CapacityComparison": ("capacity_comparison", "plot_capacity_comparison"),
    "CodeLengths": ("code_lengths", "plot_code_lengths"),
    "DoseResponse": ("canaries", "plot_dose_response"),
    "Extraction": ("extraction", "plot_extraction"),
    "IdentifierAudit": ("identifiers", "plot_identifiers"),
    "Ladder": ("ladder", "plot_ladder"),
    "MIScalingLaw": ("scaling_law", "plot_scaling_law"),
    "Membership": ("membership", "plot_membership"),
    "MembershipAudit": ("membership", "plot_membership_audit"),
    "Memorization": ("memorization", "plot_memorization"),
    "Quickstart": ("quickstart", "draw_quickstart"),
    "Rarity": ("rarity", "plot_rarity"),
    "SpanMemorization": ("spans", "plot_spans"),
    "TextSweep": ("text_sweep", "plot_text_sweep"),
}


def draw(result: "Result", *args: Any, **options: Any) -> Any:
    """The picture of a result, or of one derived from its class; what `result.plot` does.

    Raises:
        InputError: results of this class have no picture.
    """
    for cls in type(result).__mro__:
        if cls.__name__ in PICTURES:
            module, function = PICTURES[cls.__name__]
            return getattr(importlib.import_module(f"memorization.report.{module}"), function)(result, *args, **options)
    raise InputError(f"there is no picture of a {type(result).__name__}; there is one of {', '.join(PICTURES)}.")
