"""The tables of a sweep over text, made of its runs as they are kept: memU, gaps, and intervals of whole documents."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from memorization.errors import MeasurementWarning, warn
from memorization.lab.engines.runs import versions_of
from memorization.lab.text.oracles import OracleBits
from memorization.lab.text.result import ENDS, MEANS, SAMPLE_COLUMNS, WITH_INTERVAL, TextSweep, cell_columns
from memorization.membership import f1_and_auc, f1_and_auc_intervals
from memorization.stats.means import mean_interval

__all__ = ["assemble"]


def assemble(
    runs: list[dict[str, Any]],
    members: dict[int, Int64[np.ndarray, " member"]],
    oracle: OracleBits,
    of: tuple[Int64[np.ndarray, "sample position"], Int64[np.ndarray, " sample"], Int64[np.ndarray, " test"]],
    tokenizer: Any,
    settings: dict[str, Any],
) -> TextSweep:
    """Runs as they are kept to tables: memU comes from the bits of the target and those of the oracles.

    Args:
        runs: as the store keeps them.
        members: of each seed the pool samples in its order.
        oracle: bits of pool and test samples.
        of: the pool, the document of each of its samples, and the document of each test sample.
        tokenizer: of the texts.
        settings: what was decided.

    Warns:
        MeasurementWarning: runs that diverged.
    """
    import pandas as pd

    pool, document, document_of_test = of
    used = np.unique(np.concatenate(list(members.values())))
    tables, rows = [], []
    for run in sorted(runs, key=lambda run: (run["n_params"], run["n_samples"], run["seed"])):
        identity = {name: run[name] for name in ("n_params", "n_samples", "seed")}
        own = members[run["seed"]][: run["n_samples"]]
        row = {
            **{
                name: run[name]
                for name in ("n_params", "n_non_embedding_params", "n_samples", "seed", "steps", "peak_lr")
            },
            "data_bits": float(oracle.pool[own].sum()),
            "capacity_bits": settings["capacity_bits"][str(run["n_params"])],
        }
        row["data_per_capacity"] = row["data_bits"] / row["capacity_bits"]
        if run["member_bits"] is not None:
            row |= _figures(run, own, oracle, (document[own], document_of_test), pool.shape[1])
            row |= {name: run.get(name, np.nan) for name in cell_columns(settings) if name not in row}
            tables.append(
                pd.DataFrame(
                    {
                        **identity,
                        "sample": np.searchsorted(used, own),
                        "document": document[own],
                        "target_bits": np.array(run["member_bits"]),
                        "oracle_bits": oracle.pool[own],
                        "oracle_seen_bits": oracle.pool_seen[own],
                    }
                )
            )
        rows.append(row)
    cells = pd.DataFrame(rows).reindex(columns=cell_columns(settings))
    _warn_of_failures(runs)
    samples = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(SAMPLE_COLUMNS))
    return TextSweep(cells, samples, pool[used], tokenizer, {**settings, "versions": versions_of(runs)})


def _warn_of_failures(runs: list[dict[str, Any]]) -> None:
    failed = [run for run in runs if run["member_bits"] is None]
    if failed:
        first = failed[0]
        warn(
            f"{len(failed)} of {len(runs)} runs failed, their rows are NaN. The first, of {first['n_params']:,} "
            f"parameters on {first['n_samples']:,} samples: {first['failed'].rstrip('.')}.",
            MeasurementWarning,
        )


def _figures(
    run: dict[str, Any],
    own: Int64[np.ndarray, " member"],
    oracle: OracleBits,
    documents: tuple[Int64[np.ndarray, " member"], Int64[np.ndarray, " test"]],
    seq_len: int,
) -> dict[str, float | int]:
    """What follows from the bits of a run and those of the oracles."""
    target, on_test = np.array(run["member_bits"]), np.array(run["test_bits"])
    attacked, tested = map(np.array, run["attacked_ideal_bits"])
    reference = oracle.pool_ideal[own][: len(attacked)] - attacked, oracle.test_ideal[: len(tested)] - tested
    f1, auc = f1_and_auc(*reference)
    return {
        **_measured(target, on_test, oracle.pool[own], oracle.pool_seen[own], oracle.test, seq_len),
        **_intervals_of_test(on_test, oracle.test, seq_len, documents[1]),
        "f1_reference": f1,
        "auc_reference": auc,
        **_attacked(attacked, tested, reference, (documents[0][: len(attacked)], documents[1][: len(tested)])),
    }


def _measured(
    target: Float64[np.ndarray, " member"],
    on_test: Float64[np.ndarray, " test"],
    unseen: Float64[np.ndarray, " member"],
    seen: Float64[np.ndarray, " member"],
    oracle_on_test: Float64[np.ndarray, " test"],
    seq_len: int,
) -> dict[str, float]:
    signed, seen_signed, null = unseen - target, seen - target, oracle_on_test - on_test
    return {
        "train_bits_per_token": float(target.mean()) / seq_len,
        "test_bits_per_token": float(on_test.mean()) / seq_len,
        "memu_bits": float(np.maximum(signed, 0).sum()),
        "memu_signed_bits": float(signed.sum()),
        "memu_seen_bits": float(np.maximum(seen_signed, 0).sum()),
        "memu_seen_signed_bits": float(seen_signed.sum()),
        "test_memu_bits_a_sample": float(np.maximum(null, 0).mean()),
        "test_memu_signed_bits_a_sample": float(null.mean()),
    }


def _intervals_of_test(
    on_test: Float64[np.ndarray, " test"],
    oracle_on_test: Float64[np.ndarray, " test"],
    seq_len: int,
    document: Int64[np.ndarray, " test"],
) -> dict[str, float]:
    """95 % intervals of means over test samples, of whole documents."""
    values = dict(zip(MEANS, (on_test / seq_len, oracle_on_test - on_test), strict=True))
    ends = {name: mean_interval(each, groups=document) for name, each in values.items()}
    return {f"{name}_{end}": getattr(own, end) for name, own in ends.items() for end in ENDS}


def _attacked(
    members: Float64[np.ndarray, " member"],
    tests: Float64[np.ndarray, " member"],
    reference: tuple[Float64[np.ndarray, " member"], Float64[np.ndarray, " member"]],
    documents: tuple[Int64[np.ndarray, " member"], Int64[np.ndarray, " member"]],
) -> dict[str, float | int]:
    """Gap and scatter of the ideal bits of both sides, and 95 % intervals of F1 and AUC, of whole documents."""
    found: dict[str, float | int] = {
        "n_attacked": len(members),
        "gap_bits": float(tests.mean() - members.mean()),
        "member_sd_bits": float(members.std(ddof=1)),
        "test_sd_bits": float(tests.std(ddof=1)),
    }
    for attack, scores in zip(WITH_INTERVAL, ((-members, -tests), reference), strict=True):
        for metric, ends in f1_and_auc_intervals(*scores, groups=documents).items():
            found |= {f"{metric}_{attack}_low": ends.low, f"{metric}_{attack}_high": ends.high}
    return found
