"""How many more small models a second train as one stack than one by one. Prints ratios taken in turn, on one thread.

    python benchmarks/stacking.py

Least work of a step: 6 x parameters x tokens floating-point operations; what small models really wait for is the start of
each operation, which a stack pays once for all of them.
"""

import time

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from memorization.lab.architectures import Architecture, count_params
from memorization.lab.random_tokens import random_tokens
from memorization.lab.stack import train_stack

torch.set_num_threads(1)
BUILD, VOCAB_SIZE, SEQ_LEN, MODELS, STEPS, ROUNDS = Architecture("gpt2", width=8), 128, 32, 16, 20, 5
QUICK_BATCH = 17  # what `memorization capacity --quick` uses at this size
BATCHES = (4, QUICK_BATCH, 70, 280)


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


def seconds(build, batch_size, n_models):
    """Of a step of one model, when n_models train at once."""
    models = [build(VOCAB_SIZE, SEQ_LEN) for _ in range(n_models)]
    data = [random_tokens(max(70, batch_size), SEQ_LEN, VOCAB_SIZE, seed) for seed in range(n_models)]
    times = []
    for steps in (1, 1 + STEPS):
        begin = time.perf_counter()
        train_stack(
            models,
            data,
            context=0,
            steps=steps,
            batch_size=batch_size,
            peak_lrs=[0.01] * n_models,
            seeds=range(n_models),
        )
        times.append(time.perf_counter() - begin)
    return (times[1] - times[0]) / STEPS / n_models


def main():
    n_params = count_params(BUILD(VOCAB_SIZE, SEQ_LEN)).total
    print(f"{BUILD}, {n_params:,} parameters, V = {VOCAB_SIZE}, S = {SEQ_LEN}; milliseconds of a step of one model")
    print(
        f"{'batch':>6}{f'stack of {MODELS}':>14}{'one by one':>12}{'transformers':>14}"
        f"{'gain':>8}{'on transformers':>17}{'GFLOP/s':>9}"
    )
    for batch_size in BATCHES:
        rounds = []
        for round_ in range(ROUNDS + 1):  # the first warms up
            sides = [(BUILD, MODELS), (BUILD, 1), (transformers_gpt2, 1)]
            times = [seconds(build, batch_size, n_models) for build, n_models in sides]
            if round_:
                rounds.append(times)
        taken = np.array(rounds)
        stack, single, theirs = np.median(taken, axis=0)
        gain, on_theirs = np.median(taken[:, 1] / taken[:, 0]), np.median(taken[:, 2] / taken[:, 0])
        flops = 6 * n_params * batch_size * SEQ_LEN / stack
        print(
            f"{batch_size:>6}{1e3 * stack:>14.2f}{1e3 * single:>12.2f}{1e3 * theirs:>14.2f}"
            f"{gain:>8.2f}{on_theirs:>17.2f}{flops / 1e9:>9.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
