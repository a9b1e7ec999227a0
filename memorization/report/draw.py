"""The pictures of each result: found by the name of its class, imported when drawn."""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from memorization.errors import InputError

if TYPE_CHECKING:
    from memorization.results import Result

__all__ = ["PICTURES", "draw", "pictures"]

PICTURES: dict[str, tuple[str, str]] = {
    "Audit": ("audit", "plot_audit"),
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
    "TokenBits": ("code_lengths", "plot_tokens"),
    "Trajectory": ("trajectory", "plot_trajectory"),
}

# Files of pictures that do not go by the name of the module that draws them.
_FILES = {
    "CapacityComparison": "capacity",
    "MIScalingLaw": "law",
    "Membership": "roc",
    "MembershipAudit": "roc",
    "TextSweep": "sweep",
}


def draw(result: "Result", *args: Any, **options: Any) -> Any:
    """The picture of a result, or of one derived from its class; what `result.plot` does.

    Raises:
        InputError: results of this class have no picture.
    """
    module, function = PICTURES[_kind(result)]
    return getattr(importlib.import_module(f"memorization.report.{module}"), function)(result, *args, **options)


def pictures(result: "Result") -> dict[str, Callable[[], Any]]:
    """What draws each picture of a result and returns its Axes or Figure, by the name of the file without ending.

    Raises:
        InputError: results of this class have no picture.
    """
    kind = _kind(result)
    found = {_FILES.get(kind, PICTURES[kind][0]): partial(draw, result)}
    return found | dict(_MORE[kind](result) if kind in _MORE else ())


def _kind(result: Any) -> str:
    for cls in type(result).__mro__:
        if cls.__name__ in PICTURES:
            return cls.__name__
    raise InputError(f"there is no picture of a {type(result).__name__}; there is one of {', '.join(PICTURES)}.")


_Named = Iterator[tuple[str, Callable[[], Any]]]


def _of_capacity(result: Any) -> _Named:
    steps = result.curve["steps"]
    if steps.nunique() > 1 and not steps.isna().any():
        yield "rounds", partial(draw, result, against="steps")


def _of_extraction(result: Any) -> _Named:
    if len(result.tries_to_pandas()):
        yield "tries", partial(draw, result, against="tries")


def _of_memorization(result: Any) -> _Named:
    if result.ladder is not None:
        yield "ladder", partial(draw, result.ladder)


def _of_quickstart(result: Any) -> _Named:
    if (result.target_dir / "tokenizer.json").is_file() and result.members_path.is_file():
        # In place of the plain one: with the tokens of the most memorized sample, whose text is in these files.
        yield "quickstart", partial(_quickstart, result)
    yield from _of_memorization(result.members)


def _quickstart(result: Any) -> Any:
    from memorization.report.quickstart import quickstart_figure

    return quickstart_figure(result)


def _of_spans(result: Any) -> _Named:
    yield "spans_per_byte", partial(draw, result, per_byte=True)


def _of_trajectory(result: Any) -> _Named:
    yield "trajectory_samples", partial(draw, result, against="samples")


# The pictures of a kind beside its first.
_MORE: dict[str, Callable[[Any], _Named]] = {
    "Capacity": _of_capacity,
    "Extraction": _of_extraction,
    "Memorization": _of_memorization,
    "Quickstart": _of_quickstart,
    "SpanMemorization": _of_spans,
    "Trajectory": _of_trajectory,
}
