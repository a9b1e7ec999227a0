"""Peak resident memory of unintended_memorization(store=...) by the number of samples, each size in a fresh process.

    python benchmarks/corpus_memory.py
    python benchmarks/corpus_memory.py 10000 1000000

Samples have 16 tokens, the control is 1,000 samples at every size, and the models have two layers, d = 32, V = 512. What grows with the
samples is to be a few numbers a sample, and the ratio 1.05 at the most.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import figure

CHILD = "--child"
SIZES = (10_000, 100_000)
N_CONTROL, N_TOKENS, VOCAB_SIZE = 1_000, 16, 512


def samples_file(path, n, seed):
    import numpy as np

    draws = np.random.default_rng(seed)
    with path.open("w") as file:
        for _ in range(n):
            file.write(json.dumps({"input_ids": draws.integers(1, VOCAB_SIZE, N_TOKENS).tolist()}) + "\n")


def child(samples, control, store):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from memorization import unintended_memorization

    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=VOCAB_SIZE, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
        models.append(GPT2LMHeadModel(config).eval())
    how = {"text_column": "input_ids", "first_token": 0, "progress": False}
    found = unintended_memorization(*models, samples, control=control, store=store, **how)
    repr(found), found.summary(), found.top(3), found[0]
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def peak_mb(n, folder):
    samples, control = folder / f"{n}.jsonl", folder / "control.jsonl"
    samples_file(samples, n, 0)
    samples_file(control, N_CONTROL, 1)
    command = [sys.executable, __file__, CHILD, samples, control, folder / f"{n}"]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


if __name__ == "__main__":
    if CHILD in sys.argv:
        child(*sys.argv[2:])
    else:
        sizes, peaks = [int(one) for one in sys.argv[1:]] or SIZES, []
        with tempfile.TemporaryDirectory() as folder:
            for n in sizes:
                begin = time.monotonic()
                peaks.append(peak_mb(n, Path(folder)))
                print(f"{n:,} samples: peak {peaks[-1]:.0f} MB, {time.monotonic() - begin:.0f} s", flush=True)
        figure(f"peak memory of {sizes[-1]:,} samples over that of {sizes[0]:,}", peaks[-1] / peaks[0], "<= 1.05")
