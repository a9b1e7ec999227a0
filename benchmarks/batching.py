"""What batch_size="auto" costs over the best fixed batch size: CPU seconds of one process, all sizes in turn.

    python benchmarks/batching.py

Two models of random weights, five distributions of lengths. Writes benchmarks/results/batching.csv.
"""

import csv
import sys
import time
from pathlib import Path

import numpy as np
import torch
from figures import figure
from transformers import GPT2Config, GPT2LMHeadModel

from memorization import compress_bits
from memorization.measure import open_model

torch.set_num_threads(1)  # with more, CPU seconds count threads that wait
FIXED = (1, 2, 4, 8, 16, 32, 64)
TABLE = Path(__file__).parent / "results" / "batching.csv"
# Name, layers, width, heads, vocabulary, rounds, and how many times the samples of the small set.
MODELS = (("GPT-2-small shape", 12, 768, 12, 50_257, 3, 1), ("2 layers, d = 64", 2, 64, 2, 2_048, 9, 10))


def lengths_of(name, times, rng):
    """Tokens of each sample."""
    if name == "6-36 tokens":
        return rng.integers(6, 37, size=48 * times)
    if name == "log-normal":
        return np.clip(np.exp(rng.normal(np.log(40), 0.8, size=24 * times)), 4, 400).astype(int)
    if name == "64 tokens each":
        return np.full(16 * times, 64)
    if name == "short, a few long":
        return np.concatenate([rng.integers(6, 37, size=36 * times), rng.integers(200, 401, size=2 * times)])
    return np.array([1_500 * times])


def main():
    rows = []
    print(f"torch {torch.__version__}, 1 thread, medians in CPU seconds; batch sizes and auto in turn")
    print(f"{'':36}" + "".join(f"{size:>8}" for size in FIXED) + f"{'auto':>8}  auto / best  padding")
    for name, layers, width, heads, vocab_size, rounds, times in MODELS:
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=vocab_size, n_positions=1024, n_embd=width, n_layer=layers, n_head=heads, bos_token_id=0,
            eos_token_id=0,
        )  # fmt: skip
        model = GPT2LMHeadModel(config).eval()
        for kind in ("6-36 tokens", "log-normal", "64 tokens each", "short, a few long", "windows of 128"):
            rng = np.random.default_rng(0)
            samples = [rng.integers(1, vocab_size, size=n) for n in lengths_of(kind, times, rng)]
            window = {"max_length": 128} if kind == "windows of 128" else {}
            seconds = {size: [] for size in (*FIXED, "auto")}
            for round_ in range(rounds + 1):  # the first warms up
                for size, taken in seconds.items():
                    with open_model(model) as opened:  # anew: the trial of a batch belongs to what is measured
                        started = time.process_time()
                        found = compress_bits(opened, samples, first_token=0, batch_size=size, progress=False, **window)
                        taken += [time.process_time() - started] if round_ or rounds == 1 else []
            medians = {size: float(np.median(taken)) for size, taken in seconds.items()}
            best, batches = min(medians[size] for size in FIXED), found.settings["batches"]
            padding = batches["n_padding_tokens"] / batches["n_tokens"]
            ratio = medians["auto"] / best
            print(
                f"{name + ', ' + kind:36}"
                + "".join(f"{t:8.2f}" for t in medians.values())
                + f"{ratio:13.3f}{padding:9.1%}  {batches['n_batches']} batches",
                flush=True,
            )
            figure(f"batch_size auto over the best fixed size, {name}, {kind}", ratio, "<= 1.05")
            rows.append({"model": name, "lengths": kind, **medians, "ratio": ratio, "padding": padding})
    if len(sys.argv) == 1:
        with TABLE.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            table.writeheader()
            table.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


if __name__ == "__main__":
    main()
