"""What an audit costs over `measure` alone: 10,000 records, a pair of 10 M parameters.

    python benchmarks/audit.py [--records 10000] [--control 2000]

CPU seconds of the process, threads included, so that the ratio does not depend on how busy the machine is. The least
that an audit could cost is the measurement itself: what it adds is no pass of a model but ten examples, the attacks'
intervals, duplicates, and rates.
"""

import argparse
import time
import warnings

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from memorization import audit, unintended_memorization

VOCAB, LENGTH = 8192, 48


def model(seed: int) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=64, n_embd=320, n_layer=6, n_head=5, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


def records(n: int, seed: int) -> list[list[int]]:
    """Tokens by Zipf's law, as in text; one in twenty records stands there twice."""
    draw = np.random.default_rng(seed)
    rows = (draw.zipf(1.2, size=(n, LENGTH)) % (VOCAB - 1) + 1).tolist()
    return [rows[i - 1] if i % 20 == 19 else rows[i] for i in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--control", type=int, default=2_000)
    options = parser.parse_args()
    target, oracle = model(0), model(1)
    n_params = sum(one.numel() for one in target.parameters())
    data, control = records(options.records, 2), records(options.control, 3)
    print(
        f"{n_params / 1e6:.1f} M parameters, {len(data):,} records and {len(control):,} unseen ones of {LENGTH} tokens"
    )
    warnings.simplefilter("ignore")
    seconds = {}
    for name, work in (
        ("measure", lambda: unintended_memorization(target, oracle, data, control=control, progress=False)),
        ("audit", lambda: audit(target, oracle, data, control, progress=False)),
    ):
        started = time.process_time()
        result = work()
        repr(result)
        seconds[name] = time.process_time() - started
        print(f"{name:<8} {seconds[name]:8.1f} CPU s")
    print(f"ratio    {seconds['audit'] / seconds['measure']:8.3f}")
    print(f"parts that are missing: {result.missing}")


if __name__ == "__main__":
    main()
