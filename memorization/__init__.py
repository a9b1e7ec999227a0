"""How much do language models memorize? Exact bits of samples, memU against an oracle, and what stands behind them."""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from memorization.pictures import pictures_from
from memorization.renamed import old_modules_go_on_working

if TYPE_CHECKING:  # what __getattr__ finds, for readers, editors and type checkers
    from memorization import errors
    from memorization.auditing.measure import audit
    from memorization.auditing.result import Audit
    from memorization.capacity.comparison import CapacityComparison
    from memorization.capacity.fit import fit_capacity
    from memorization.capacity.result import Capacity
    from memorization.codec.compress import compress, decompress
    from memorization.extraction.measure import extract
    from memorization.extraction.result import Extraction
    from memorization.identifiers.measure import audit_identifiers
    from memorization.identifiers.result import IdentifierAudit
    from memorization.lab.canaries.experiment import canary_dose_response
    from memorization.lab.canaries.result import DoseResponse
    from memorization.lab.capacity.comparison import compare_capacities
    from memorization.lab.capacity.experiment import capacity_bits_per_param
    from memorization.lab.quickstart import Quickstart, run_quickstart
    from memorization.lab.text.experiment import text_sweep
    from memorization.lab.text.result import TextSweep
    from memorization.measure.code_lengths import CodeLengths
    from memorization.measure.compress import compress_bits
    from memorization.measure.opening import OpenModel, UniformModel, open_model
    from memorization.membership.audit import audit_membership
    from memorization.membership.result import Membership, MembershipAudit
    from memorization.rarity.measure import which_samples
    from memorization.rarity.result import Rarity
    from memorization.results.result import Result, load
    from memorization.samples import Samples, SampleShards, read_samples, scan_samples
    from memorization.scaling_law.ceiling import attack_ceiling
    from memorization.scaling_law.fit import fit_mi_scaling_law
    from memorization.scaling_law.gap import GapLaw, gap_law
    from memorization.scaling_law.law import MIScalingLaw
    from memorization.spans.measure import measure_spans
    from memorization.spans.result import SpanMemorization
    from memorization.stats.levels import Interval
    from memorization.tracking.callback import MemorizationCallback
    from memorization.tracking.measure import track
    from memorization.tracking.result import Trajectory
    from memorization.unintended.control import Control
    from memorization.unintended.measure import unintended_memorization
    from memorization.unintended.result import Memorization


__version__: str

__all__ = [
    "Audit",
    "Capacity",
    "CapacityComparison",
    "CodeLengths",
    "Control",
    "DoseResponse",
    "Extraction",
    "GapLaw",
    "IdentifierAudit",
    "Interval",
    "MIScalingLaw",
    "Membership",
    "MembershipAudit",
    "Memorization",
    "MemorizationCallback",
    "OpenModel",
    "Quickstart",
    "Rarity",
    "Result",
    "SampleShards",
    "Samples",
    "SpanMemorization",
    "TextSweep",
    "Trajectory",
    "UniformModel",
    "attack_ceiling",
    "audit",
    "audit_identifiers",
    "audit_membership",
    "canary_dose_response",
    "capacity_bits_per_param",
    "compare_capacities",
    "compress",
    "compress_bits",
    "decompress",
    "errors",
    "extract",
    "fit_capacity",
    "fit_mi_scaling_law",
    "gap_law",
    "load",
    "measure_spans",
    "open_model",
    "read_samples",
    "run_quickstart",
    "scan_samples",
    "text_sweep",
    "track",
    "unintended_memorization",
    "which_samples",
]

# Where each public name lives. They are imported when first used: what trains models needs more than what measures
# them.
_HOMES = {
    "Audit": "auditing.result",
    "Capacity": "capacity.result",
    "CapacityComparison": "capacity.comparison",
    "CodeLengths": "measure.code_lengths",
    "Control": "unintended.control",
    "DoseResponse": "lab.canaries.result",
    "Extraction": "extraction.result",
    "GapLaw": "scaling_law.gap",
    "IdentifierAudit": "identifiers.result",
    "Interval": "stats.levels",
    "MIScalingLaw": "scaling_law.law",
    "Membership": "membership.result",
    "MembershipAudit": "membership.result",
    "Memorization": "unintended.result",
    "MemorizationCallback": "tracking.callback",
    "OpenModel": "measure.opening",
    "Quickstart": "lab.quickstart",
    "Rarity": "rarity.result",
    "Result": "results.result",
    "SampleShards": "samples",
    "Samples": "samples",
    "SpanMemorization": "spans.result",
    "TextSweep": "lab.text.result",
    "Trajectory": "tracking.result",
    "UniformModel": "measure.opening",
    "attack_ceiling": "scaling_law.ceiling",
    "audit": "auditing.measure",
    "audit_identifiers": "identifiers.measure",
    "audit_membership": "membership.audit",
    "canary_dose_response": "lab.canaries.experiment",
    "capacity_bits_per_param": "lab.capacity.experiment",
    "compare_capacities": "lab.capacity.comparison",
    "compress": "codec.compress",
    "compress_bits": "measure.compress",
    "decompress": "codec.compress",
    "extract": "extraction.measure",
    "fit_capacity": "capacity.fit",
    "fit_mi_scaling_law": "scaling_law.fit",
    "gap_law": "scaling_law.gap",
    "load": "results.result",
    "measure_spans": "spans.measure",
    "open_model": "measure.opening",
    "read_samples": "samples",
    "scan_samples": "samples",
    "run_quickstart": "lab.quickstart",
    "text_sweep": "lab.text.experiment",
    "track": "tracking.measure",
    "unintended_memorization": "unintended.measure",
    "which_samples": "rarity.measure",
}


def _draw(result: Any, *args: Any, **options: Any) -> Any:
    from memorization.report.draw import draw

    return draw(result, *args, **options)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lm-memorization")
    except PackageNotFoundError:  # a source tree that is not installed
        return "unknown"


old_modules_go_on_working()
pictures_from(_draw)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
        return globals().setdefault(name, getattr(home, name))
    if name == "__version__":  # the libraries that read it cost as much as the rest of this package
        return globals().setdefault(name, _version())
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
