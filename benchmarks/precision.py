"""What a capacity keeps when weights are rounded, after training and during it, and what adapters on a frozen base hold.

    python benchmarks/precision.py

A GPT-2 style model of 2,168 parameters, twice the data that 3.6 bits per parameter fill, 3,000 steps, four seeds, at the best of
three rates for each way of training. Prints a table and writes benchmarks/results/precision.csv. A quarter of an hour of one core.
"""

import functools
import math
import statistics
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import t as student
from torch import nn

from memorization import compress_bits
from memorization.lab.architectures import Architecture, count_params, quantize_weights
from memorization.lab.builders import build_seeded, stream
from memorization.lab.random_tokens import random_tokens
from memorization.lab.stack import train_stack

torch.set_num_threads(1)
VOCAB_SIZE, SEQ_LEN, STEPS, SEEDS, RATES = 128, 32, 3_000, range(4), (0.24, 0.12, 0.06)
BUILD, BASE, RANK = Architecture("gpt2", width=8), Architecture("gpt2", width=16), 6
RESULTS = Path(__file__).parent / "results" / "precision.csv"


class Float8(torch.autograd.Function):
    """A weight rounded to float8 (4 bits of exponent, 3 of mantissa) in the forward pass; its gradient as if it were not."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight):
        return weight.clamp(-448, 448).to(torch.float8_e4m3fn).to(weight.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class RoundedInForward(nn.Module):
    """All matrices rounded whenever they are used, in units of a 448th of their largest entry."""

    def forward(self, weight):
        unit = weight.detach().abs().amax() / 448
        return Float8.apply(weight / unit) * unit


def in_float8(vocab_size, seq_len):
    model = BUILD(vocab_size, seq_len)
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dim() > 1:
                nn.utils.parametrize.register_parametrization(module, name, RoundedInForward(), unsafe=True)
    return model


class Adapted(nn.Module):
    """A frozen linear map and, beside it, a trained one of low rank (LoRA)."""

    def __init__(self, frozen, rank):
        super().__init__()
        self.frozen = frozen
        self.down = nn.Parameter(torch.randn(rank, frozen.in_features) / frozen.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(frozen.out_features, rank))

    def forward(self, x):
        return self.frozen(x) + x @ self.down.T @ self.up.T


@functools.cache
def pretrained_base():
    """The base: trained on other random tokens."""
    (model,), _ = trained(BASE, 0.06, seeds=[1_000])
    return model.state_dict()


def with_adapters(vocab_size, seq_len):
    model = BASE(vocab_size, seq_len)
    model.load_state_dict(pretrained_base())
    model.requires_grad_(False)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Adapted(child, RANK))
    return model


def n_samples_for(n_params):
    return round(2 * 3.6 * n_params / (SEQ_LEN * math.log2(VOCAB_SIZE)))


def trained(build, rate, seeds=SEEDS, dtype=torch.float32, autocast=None):
    """Models and their data, one for each seed."""
    models = [build_seeded(build, VOCAB_SIZE, SEQ_LEN, seed).to(dtype) for seed in seeds]
    n_samples = n_samples_for(count_params(models[0]).trainable)
    data = [random_tokens(n_samples, SEQ_LEN, VOCAB_SIZE, seed) for seed in seeds]
    train_stack(
        models,
        data,
        context=0,
        steps=STEPS,
        batch_size=8 * round(n_samples / 16),
        peak_lrs=[rate] * len(models),
        seeds=[stream("order", seed) for seed in seeds],
        weight_decay=0.05,
        soap=True,
        autocast=autocast,
    )
    return models, data


def held(model, ids):
    """Bits per trained parameter."""
    coded = compress_bits(model, ids, first_token=0, max_length=SEQ_LEN, progress=False).total_bits
    return (ids.numel() * math.log2(VOCAB_SIZE) - coded) / count_params(model).trainable


def at_best_rate(build, **options):
    """The rate at which most is held, the models and the data."""
    found = []
    for rate in RATES:
        models, data = trained(build, rate, **options)
        found.append((statistics.fmean(map(held, models, data)), rate, models, data))
    return max(found, key=lambda one: one[0])[1:]


def main():
    ways = [
        ("float32", BUILD, {}),
        ("bfloat16 arithmetic (autocast)", BUILD, {"autocast": torch.bfloat16}),
        ("bfloat16 weights", BUILD, {"dtype": torch.bfloat16}),
        ("float8 weights, float32 behind them", in_float8, {}),
        (f"LoRA, rank {RANK}, on a frozen base", with_adapters, {}),
    ]
    rows = []
    print(
        f"{'trained in':<37}{'measured in':<13}{'trained':>8}{'all':>7}{'bits/trained':>14}{'95 % interval':>17}{'rate':>7}"
    )
    for name, build, options in ways:
        rate, models, data = at_best_rate(build, **options)
        for bits in (None, 8, 4, 2) if name == "float32" else (None,):
            measured = [model if bits is None else quantize_weights(model, bits) for model in models]
            each = [held(model.float(), ids) for model, ids in zip(measured, data, strict=True)]
            mean, params = statistics.fmean(each), count_params(models[0])
            half = student.ppf(0.975, len(each) - 1) * statistics.stdev(each) / len(each) ** 0.5
            rows.append(
                {
                    "trained_in": name,
                    "measured_in": "the same" if bits is None else f"{bits} bits",
                    "n_trained_params": params.trainable,
                    "n_params": params.total,
                    "bits_per_trained_param": mean,
                    "low": mean - half,
                    "high": mean + half,
                    "peak_lr": rate,
                    "seeds": " ".join(f"{one:.3f}" for one in each),
                }
            )
            row = rows[-1]
            print(
                f"{name:<37}{row['measured_in']:<13}{params.trainable:>8,}{params.total:>7,}{mean:>14.3f}"
                f"{f'[{mean - half:.2f}, {mean + half:.2f}]':>17}{rate:>7g}",
                flush=True,
            )
    pd.DataFrame(rows).to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
