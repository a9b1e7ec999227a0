"""How many more small models a second train in compiled code, as one stack, and one by one. Prints ratios taken in turn, on one thread.

    python benchmarks/stacking.py

Least work of a step: 6 x parameters x tokens floating-point operations; the share of the peak is of a product of two
large float32 matrices, measured beside it. What small models really wait for is the start of each operation, which a stack pays once for
all of them, and compiled code not at all.
"""

import time

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from memorization.lab.architectures import Architecture, count_params
from memorization.lab.compiled import can_compile, train_compiled
from memorization.lab.random_tokens import random_tokens
from memorization.lab.stack import train_stack

torch.set_num_threads(1)
BUILD, VOCAB_SIZE, SEQ_LEN, MODELS, STEPS, ROUNDS = Architecture("gpt2", width=8), 128, 32, 16, 20, 3
QUICK_BATCH = 32  # what `memorization capacity --quick` uses at this size
BATCHES = (8, 18, QUICK_BATCH, 35, 64)


def transformers_gpt2(vocab_size, seq_len):
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=seq_len,
        n_embd=8,
        n_layer=1,
        n_head=2,
        attn_pdrop=0,
        embd_pdrop=0,
        resid_pdrop=0,
    )
    return GPT2LMHeadModel(config)


def seconds(build, batch_size, n_models, compiled=False):
    """Of a step of one model, when n_models train at once; all with SOAP."""
    models = [build(VOCAB_SIZE, SEQ_LEN) for _ in range(n_models)]
    data = [random_tokens(max(70, batch_size), SEQ_LEN, VOCAB_SIZE, seed) for seed in range(n_models)]
    times = []
    for steps in (1, 1 + STEPS * (20 if compiled else 1)):
        begin = time.perf_counter()
        options = {"context": 0, "steps": steps, "batch_size": batch_size}
        if compiled:
            train_compiled(models[0], data[0], peak_lr=0.01, seed=0, **options)
        else:
            train_stack(models, data, peak_lrs=[0.01] * n_models, seeds=range(n_models), soap=True, **options)
        times.append(time.perf_counter() - begin)
    return (times[1] - times[0]) / (steps - 1) / n_models


def peak():
    """Floating-point operations a second of one core."""
    matrix = torch.randn(1024, 1024)
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - begin)
    return 2 * 1024**3 / min(times)


def main():
    n_params, most = count_params(BUILD(VOCAB_SIZE, SEQ_LEN)).total, peak()
    known = can_compile(BUILD(VOCAB_SIZE, SEQ_LEN))
    print(f"{BUILD}, {n_params:,} parameters, V = {VOCAB_SIZE}, S = {SEQ_LEN}; milliseconds of a step of one model")
    print(f"least work: 6 x parameters x tokens; this core does {most / 1e9:.0f} GFLOP/s")
    print(
        f"{'batch':>6}{'compiled':>10}{f'stack of {MODELS}':>14}{'one by one':>12}{'transformers':>14}"
        f"{'compiled / stack':>18}{'share of peak':>15}"
    )
    for batch_size in BATCHES:
        rounds = []
        for round_ in range(ROUNDS + 1):  # the first warms up, and compiles
            sides = [(BUILD, MODELS, False), (BUILD, 1, False), (transformers_gpt2, 1, False)]
            times = [seconds(build, batch_size, n_models, compiled) for build, n_models, compiled in sides]
            times.append(seconds(BUILD, batch_size, 1, compiled=True) if known else float("nan"))
            if round_:
                rounds.append(times)
        taken = np.array(rounds)
        stack, single, theirs, compiled = np.median(taken, axis=0)
        gain, best = np.median(taken[:, 0] / taken[:, 3]), np.nanmin([stack, compiled])
        share = 6 * n_params * batch_size * SEQ_LEN / best / most
        print(
            f"{batch_size:>6}{1e3 * compiled:>10.2f}{1e3 * stack:>14.2f}{1e3 * single:>12.2f}{1e3 * theirs:>14.2f}"
            f"{gain:>17.1f}x{100 * share:>13.0f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
