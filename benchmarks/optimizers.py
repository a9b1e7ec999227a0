"""Which optimizer, rate, weight decay and batch fill a small GPT-2 soonest: a controlled comparison, four seeds a row.

    python benchmarks/optimizers.py

Prints bits per parameter of each row (mean, standard deviation between seeds, each seed), and seconds a model, on one thread.
SOAP trains in compiled code where numba is installed, Adam as a stack of torch: compare steps, not seconds, between the two.
"""

import math
import statistics
import time

import torch

from memorization import compress_bits
from memorization.lab.architectures import Architecture, count_params
from memorization.lab.builders import build_seeded, stream
from memorization.lab.compiled import can_compile, train_compiled
from memorization.lab.random_tokens import random_tokens
from memorization.lab.stack import train_stack

torch.set_num_threads(1)
BUILD, VOCAB_SIZE, SEQ_LEN, N_SAMPLES, STEPS, SEEDS = Architecture("gpt2", width=8), 128, 32, 139, 3_000, range(4)
# Optimizer, peak rate, weight decay, batch.
ROWS = [
    ("Adam", 0.05, 0.0, 16),
    ("Adam", 0.05, 0.0, 32),
    ("Adam", 0.12, 0.0, 32),
    ("Adam", 0.12, 0.05, 32),
    ("SOAP", 0.06, 0.05, 32),
    ("SOAP", 0.12, 0.0, 32),
    ("SOAP", 0.12, 0.05, 32),
    ("SOAP", 0.24, 0.02, 32),
    ("SOAP", 0.24, 0.0, 32),
    ("SOAP", 0.24, 0.05, 32),
    ("SOAP", 0.12, 0.05, 16),
    ("SOAP", 0.12, 0.05, 64),
]


def trained(soap, rate, weight_decay, batch_size):
    """The four models of a row, and their data."""
    models = [build_seeded(BUILD, VOCAB_SIZE, SEQ_LEN, seed) for seed in SEEDS]
    data = [random_tokens(N_SAMPLES, SEQ_LEN, VOCAB_SIZE, seed) for seed in SEEDS]
    orders = [stream("order", seed) for seed in SEEDS]
    options = {"context": 0, "steps": STEPS, "batch_size": batch_size, "weight_decay": weight_decay}
    if soap and can_compile(models[0]):
        for model, ids, order in zip(models, data, orders, strict=True):
            train_compiled(model, ids, peak_lr=rate, seed=order, **options)
    else:
        train_stack(models, data, peak_lrs=[rate] * len(models), seeds=orders, soap=soap, **options)
    return models, data


def held(model, ids):
    """Bits per parameter."""
    coded = compress_bits(model, ids, first_token=0, max_length=SEQ_LEN, progress=False).total_bits
    return (ids.numel() * math.log2(VOCAB_SIZE) - coded) / count_params(model).total


def main():
    print(f"{BUILD}, {N_SAMPLES} samples, {STEPS:,} steps; bits per parameter")
    print(
        f"{'optimizer':<10}{'rate':>6}{'decay':>7}{'batch':>7}{'mean':>8}{'sd':>7}   {'seeds':<26}{'seconds a model':>16}"
    )
    for name, rate, weight_decay, batch_size in ROWS:
        begin = time.perf_counter()
        models, data = trained(name == "SOAP", rate, weight_decay, batch_size)
        seconds = (time.perf_counter() - begin) / len(models)
        bits = [held(*one) for one in zip(models, data, strict=True)]
        mean, sd, each = statistics.fmean(bits), statistics.stdev(bits), " ".join(f"{one:.3f}" for one in bits)
        print(
            f"{name:<10}{rate:>6g}{weight_decay:>7g}{batch_size:>7}{mean:>8.3f}{sd:>7.3f}   {each:<26}{seconds:>16.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
