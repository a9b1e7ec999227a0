"""Which optimizer fills a small GPT-2 soonest: stacked Adam against SOAP and Muon, which no library runs on a stack.

    pip install "lm-memorization[optim]"
    python benchmarks/optimizers.py

Prints bits per parameter at the best rate (mean of two seeds), and seconds a model, on one thread.
"""

import math
import statistics
import time

import torch
from pytorch_optimizer import SOAP

from memorization import compress_bits
from memorization.lab.architectures import Architecture, count_params
from memorization.lab.random_tokens import random_tokens
from memorization.lab.stack import fraction_of_peak, train_stack

torch.set_num_threads(1)
BUILD, VOCAB_SIZE, SEQ_LEN, N_SAMPLES, BATCH_SIZE, STEPS, SEEDS = (
    Architecture("gpt2", width=8),
    128,
    32,
    70,
    17,
    3_000,
    (0, 1),
)


def model_and_ids(seed):
    torch.manual_seed(1_000 + seed)
    return BUILD(VOCAB_SIZE, SEQ_LEN), random_tokens(N_SAMPLES, SEQ_LEN, VOCAB_SIZE, seed)


def held(model, ids):
    memorized = (
        ids.numel() * math.log2(VOCAB_SIZE) - compress_bits(model, ids, first_token=0, progress=False).total_bits
    )
    return memorized / count_params(model).total


def adam(rates):
    """Bits per parameter by rate, and seconds a model: all rates and seeds in one stack."""
    cells = [(rate, seed) for rate in rates for seed in SEEDS]
    models, data = zip(*(model_and_ids(seed) for _, seed in cells), strict=True)
    begin = time.perf_counter()
    train_stack(
        models,
        data,
        context=0,
        steps=STEPS,
        batch_size=BATCH_SIZE,
        peak_lrs=[rate for rate, _ in cells],
        seeds=[seed for _, seed in cells],
    )
    seconds = (time.perf_counter() - begin) / len(cells)
    bits = [held(*one) for one in zip(models, data, strict=True)]
    return {
        rate: statistics.fmean(b for b, (r, _) in zip(bits, cells, strict=True) if r == rate) for rate in rates
    }, seconds


def one_by_one(rates, make):
    """The same with a library's optimizer, which knows single models only."""
    bits, begin = {}, time.perf_counter()
    for rate in rates:
        bits[rate] = statistics.fmean(one(make, rate, seed) for seed in SEEDS)
    return bits, (time.perf_counter() - begin) / len(rates) / len(SEEDS)


def one(make, rate, seed):
    model, ids = model_and_ids(seed)
    optimizers = make(model, rate)
    inputs = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], dim=1)
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat(
        [torch.randperm(N_SAMPLES, generator=generator) for _ in range(STEPS * BATCH_SIZE // N_SAMPLES + 1)]
    )
    for step in range(STEPS):
        chosen = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
        nats = torch.nn.functional.cross_entropy(model(inputs[chosen]).flatten(0, 1), ids[chosen].flatten())
        model.zero_grad()
        nats.backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("peak", group["lr"]) * fraction_of_peak(step, STEPS, 100)
            optimizer.step()
    return held(model, ids)


def soap(frequency):
    return lambda model, rate: [
        SOAP(model.parameters(), lr=rate, betas=(0.95, 0.98), weight_decay=0.0, precondition_frequency=frequency)
    ]


def muon(model, rate):
    tables = {id(p) for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    matrices = [p for p in model.parameters() if p.dim() == 2 and id(p) not in tables]
    rest = [p for p in model.parameters() if p.dim() != 2 or id(p) in tables]
    return [torch.optim.Muon(matrices, lr=rate, weight_decay=0.0), torch.optim.Adam(rest, lr=0.12, betas=(0.9, 0.99))]


def main():
    print(f"{BUILD}, {N_SAMPLES} samples, {STEPS:,} steps")
    print(f"{'optimizer':<48}{'bits/param':>11}{'rate':>7}{'seconds a model':>17}")
    sides = {
        "Adam (torch), stacked": lambda: adam((0.03, 0.06, 0.12, 0.24)),
        "SOAP (pytorch-optimizer), basis every 10 steps": lambda: one_by_one((0.025, 0.05, 0.1), soap(10)),
        "SOAP (pytorch-optimizer), basis every 50 steps": lambda: one_by_one((0.025, 0.05, 0.1), soap(50)),
        "Muon (torch) for matrices, Adam for the rest": lambda: one_by_one((0.01, 0.03, 0.1), muon),
    }
    for name, side in sides.items():
        bits, seconds = side()
        best = max(bits, key=lambda rate: bits[rate])
        print(f"{name:<48}{bits[best]:>11.3f}{best:>7g}{seconds:>17.1f}", flush=True)


if __name__ == "__main__":
    main()
