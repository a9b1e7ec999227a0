"""The kinds of saved results: the module of each one's class, what commands draw of it, what version 0.1.0 saved."""

__all__ = ["DRAWN", "FILES_OF_0_1_0", "KINDS", "SETTINGS", "kind_of"]

SETTINGS = "settings.json"

# The class of each kind of saved result, and its module, which is imported when a result of it is loaded.
KINDS: dict[str, str] = {
    "Audit": "memorization.auditing.result",
    "Capacity": "memorization.capacity.result",
    "CapacityComparison": "memorization.capacity.comparison",
    "CodeLengths": "memorization.measure.result",
    "DoseResponse": "memorization.lab.canaries.result",
    "Extraction": "memorization.extraction.result",
    "IdentifierAudit": "memorization.identifiers.result",
    "MIScalingLaw": "memorization.scaling_law.law",
    "Membership": "memorization.membership.result",
    "MembershipAudit": "memorization.membership.result",
    "Memorization": "memorization.unintended.result",
    "Quickstart": "memorization.lab.quickstart",
    "Rarity": "memorization.rarity.result",
    "SpanMemorization": "memorization.spans.result",
    "TextSweep": "memorization.lab.text.result",
    "Trajectory": "memorization.tracking.result",
}

# Files that commands make of a saved result, beside it: its pictures and its report. They go when it is replaced.
DRAWN: frozenset[str] = frozenset(
    f"{name}.{ending}"
    for name, endings in {
        **dict.fromkeys(
            (
                *("audit", "canaries", "capacity", "code_lengths", "extraction", "identifiers", "ladder", "law"),
                *("memorization", "quickstart", "rarity", "roc", "rounds", "spans", "spans_per_byte", "sweep"),
                *("trajectory", "trajectory_samples", "tries"),
            ),
            ("png", "pdf", "svg"),
        ),
        "report": ("html", "md"),
    }.items()
    for ending in endings
)


def kind_of(result: object) -> str:
    """Name of the kind of a result: of its class, or of the one that it is derived from."""
    return next(cls.__name__ for cls in type(result).__mro__ if cls.__name__ in KINDS)


# Files and parts, as patterns. Folders of that version do not list them.
FILES_OF_0_1_0: dict[str, tuple[str, ...]] = {
    "Capacity": ("capacity.parquet", "curve.parquet"),
    "CodeLengths": ("samples.parquet", "tokens.parquet"),
    "DoseResponse": ("canaries.parquet", "dose_response.parquet"),
    "Extraction": ("rates.parquet", "samples.parquet", "tokens.parquet"),
    "MIScalingLaw": ("law.parquet", "points.parquet"),
    "Membership": ("metrics.parquet", "scores.parquet"),
    "MembershipAudit": ("metrics.parquet", "*/settings.json"),
    "Memorization": (
        *("memorization.parquet", "summary.json", "target/settings.json", "oracle/settings.json"),
        *("control/target/settings.json", "control/oracle/settings.json"),
    ),
    "Rarity": ("rarity.parquet", "correlations.parquet"),
    "TextSweep": ("cells.parquet", "samples.parquet", "ids.parquet", "tokenizer/*"),
}
