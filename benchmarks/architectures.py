"""Bits per parameter of five architectures with equally many parameters, each at its own best learning rate.

    python benchmarks/architectures.py --store architectures-store

Every model sees the same number of tokens of the same uniform random data, twice what 3.6 bits per parameter hold. Rates
are tried in factors of two until the best one has a worse neighbour on either side. Prints a table, draws
docs/img/architectures.png, and writes benchmarks/results/architectures.json. About an hour on one core; goes on where
it was when started again.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import torch
from scipy.stats import t as student

from memorization import compress_bits
from memorization.lab.architectures import Architecture, count_params, solve_width
from memorization.lab.random_tokens import random_tokens
from memorization.lab.stack import train_stack
from memorization.lab.store import Store

FAMILIES = ("gpt2", "llama", "mamba", "lstm", "moe")
N_PARAMS = (2_100, 4_200)
SEEDS = (0, 1, 2)
RATES = (0.16, 0.08, 0.04, 0.02, 0.01)
VOCAB_SIZE, SEQ_LEN, STEPS = 128, 32, 2_000
RESULTS = Path(__file__).parent / "results" / "architectures.json"


def runs_of(store: Store, architecture: Architecture, n_params: int, n_samples: int, rates: list[float]) -> list[dict]:
    """Memorized bits of one architecture at these rates, three seeds each, trained at once."""
    batch_size = n_samples // 4
    cells = [
        {"model": repr(architecture), "n_params": n_params, "n_samples": n_samples, "peak_lr": rate, "seed": seed}
        for rate in rates
        for seed in SEEDS
    ]
    new = [cell for cell in cells if store.get(cell) is None]
    if new:
        models = []
        for cell in new:
            torch.manual_seed(1_000 + cell["seed"])
            models.append(architecture(VOCAB_SIZE, SEQ_LEN))
        data = [random_tokens(n_samples, SEQ_LEN, VOCAB_SIZE, cell["seed"]) for cell in new]
        begin = time.perf_counter()
        done = train_stack(
            models,
            data,
            context=0,
            steps=STEPS,
            batch_size=batch_size,
            peak_lrs=[cell["peak_lr"] for cell in new],
            seeds=[cell["seed"] for cell in new],
        )
        seconds = (time.perf_counter() - begin) / len(new)
        for cell, model, ids, diverged_at in zip(new, models, data, done.diverged_at.tolist(), strict=True):
            total = ids.numel() * math.log2(VOCAB_SIZE)
            bits = (
                total - compress_bits(model, ids, first_token=0, progress=False).total_bits if diverged_at < 0 else None
            )
            store.put(cell, {"memorized_bits": bits, "diverged_at": diverged_at, "seconds": seconds})
    return [{**cell, **store.get(cell)} for cell in cells]


def best_of(store: Store, family: str, target: int) -> dict:
    """The best rate of one architecture, widening the range of rates until it lies inside."""
    heads = 2 if family in ("gpt2", "llama", "moe") else None  # one head holds less than two, whatever else differs
    architecture = solve_width(family, target, vocab_size=VOCAB_SIZE, seq_len=SEQ_LEN, heads=heads)
    n_params = count_params(architecture(VOCAB_SIZE, SEQ_LEN)).total
    n_samples = round(2 * 3.6 * target / (SEQ_LEN * math.log2(VOCAB_SIZE)))  # one number of tokens for all families
    rates, runs = sorted(RATES), []
    while True:
        runs += runs_of(
            store, architecture, n_params, n_samples, [r for r in rates if r not in {x["peak_lr"] for x in runs}]
        )
        held = {r: [x["memorized_bits"] for x in runs if x["peak_lr"] == r] for r in rates}
        mean = {r: -math.inf if None in bits else statistics.fmean(bits) for r, bits in held.items()}
        best = max(mean, key=lambda r: mean[r])
        if best == rates[0]:
            rates = [best / 2, *rates]
        elif best == rates[-1]:
            rates = [*rates, best * 2]
        else:
            break
    per_param = [bits / n_params for bits in held[best]]
    half = student.ppf(0.975, len(SEEDS) - 1) * statistics.stdev(per_param) / math.sqrt(len(SEEDS))
    middle = statistics.fmean(per_param)
    return {
        "architecture": repr(architecture),
        "n_params": n_params,
        "n_samples": n_samples,
        "tokens_trained": STEPS * (n_samples // 4) * SEQ_LEN,
        "bits_per_param": middle,
        "interval": [middle - half, middle + half],
        "peak_lr": best,
        "by_rate": {f"{r:g}": mean[r] / n_params if math.isfinite(mean[r]) else None for r in rates},
        "seconds_a_model": statistics.fmean(x["seconds"] for x in runs),
    }


def draw(rows: list[dict], picture: Path) -> None:
    """Points with intervals, an architecture a line, the larger models filled."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7.0, 2.9), layout="constrained")
    order = sorted(
        FAMILIES, key=lambda family: max(r["bits_per_param"] for r in rows if f"'{family}'" in r["architecture"])
    )
    for row in rows:
        family = next(family for family in FAMILIES if f"'{family}'" in row["architecture"])
        larger = row["n_params"] > statistics.fmean(N_PARAMS)
        middle, (low, high) = row["bits_per_param"], row["interval"]
        ax.errorbar(
            middle,
            order.index(family) + (0.13 if larger else -0.13),
            xerr=[[middle - low], [high - middle]],
            fmt="o",
            color="#0072B2",
            markerfacecolor="#0072B2" if larger else "white",
            capsize=3,
        )
        ax.annotate(f"{row['n_params']:,}", (high, order.index(family) + (0.13 if larger else -0.13)), (6, 0),
                    textcoords="offset points", va="center", fontsize=8, color="#6B6B6B")  # fmt: skip
    ax.set_yticks(
        range(len(order)),
        [{"gpt2": "GPT-2", "moe": "mixture of experts", "lstm": "LSTM"}.get(f, f.capitalize()) for f in order],
    )
    ax.set_xlabel(f"bits per parameter after {STEPS:,} steps, 95 % interval over {len(SEEDS)} seeds")
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="architectures-store", help="folder that keeps finished runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(
        arguments.store,
        {"measures": "architectures", "steps": STEPS, "vocab_size": VOCAB_SIZE, "seq_len": SEQ_LEN},
    )
    rows = []
    print(f"{'architecture':<62}{'n_params':>9}{'bits/param':>11}{'95 % interval':>17}{'peak_lr':>9}", flush=True)
    for target in N_PARAMS:
        for family in FAMILIES:
            row = best_of(store, family, target)
            rows.append(row)
            low, high = row["interval"]
            print(
                f"{row['architecture']:<62}{row['n_params']:>9,}{row['bits_per_param']:>11.3f}"
                f"{f'[{low:.2f}, {high:.2f}]':>17}{row['peak_lr']:>9g}",
                flush=True,
            )
    draw(rows, Path(__file__).parents[1] / "docs" / "img" / "architectures.png")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"command": "python benchmarks/architectures.py", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
