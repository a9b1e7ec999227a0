"""Peak resident memory of compress_bits over that of the forward pass alone, at 1 GB of logits, each in a fresh process.

    python benchmarks/memory.py

Least memory: the model and one batch of logits, which the forward pass makes. On top come one chunk of 8 MiB in float32 and
O(tokens) results.
"""

import resource
import subprocess
import sys

from figures import figure

CHILD = "--child"
POSITIONS, VOCAB_SIZE, LOGITS_BYTES = 1024, 50_257, 1_000_000_000


def child(what, dtype):
    import numpy as np
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from memorization import compress_bits

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB_SIZE, n_positions=POSITIONS, n_embd=128, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config).eval().to(getattr(torch, dtype))
    itemsize = torch.empty(0, dtype=getattr(torch, dtype)).element_size()
    batch = round(LOGITS_BYTES / (POSITIONS * VOCAB_SIZE * itemsize))
    samples = np.random.default_rng(0).integers(1, VOCAB_SIZE, size=(batch, POSITIONS))
    if what == "forward":
        with torch.no_grad():
            model(torch.from_numpy(samples), use_cache=False)
    else:
        compress_bits(model, samples, first_token=0, batch_size=batch, progress=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, batch * POSITIONS * VOCAB_SIZE * itemsize / 1e9)


def peak(what, dtype):
    output = subprocess.run(
        [sys.executable, __file__, CHILD, what, dtype], check=True, capture_output=True, text=True
    ).stdout
    return map(float, output.split())


if __name__ == "__main__":
    if CHILD in sys.argv:
        child(*sys.argv[2:])
    else:
        for dtype in ("float32", "bfloat16"):
            forward, logits = peak("forward", dtype)
            ours, _ = peak("compress_bits", dtype)
            print(f"{dtype}: forward pass {forward:.2f} GB, compress_bits {ours:.2f} GB, logits {logits:.2f} GB")
            figure(f"peak memory over the forward pass, {dtype}", ours / forward, "<= 1.15")
