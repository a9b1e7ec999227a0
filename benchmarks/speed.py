"""What exact code lengths cost over a cross-entropy. Prints ratios taken in one process, the two sides in turn.

    python benchmarks/speed.py

Least work: one pass over the logits, which a cross-entropy needs as well (maximum, exponential, sum). What comes on top is
O(sqrt V) arithmetic a token, about 0.1 us in the range coder, and the Python of a batch.
"""

import time

import constriction
import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from memorization import compress_bits
from memorization.coding.coder import coded_bits
from memorization.coding.intervals import code_tokens

torch.set_num_threads(1)  # with more, whatever else the machine does to one of them holds up the others
ROUNDS = 9


def seconds(sides):
    """Median seconds of each side, and the median of the ratio of the first to the second, taken round by round."""
    times = {name: [] for name in sides}
    for round_ in range(ROUNDS + 1):  # the first round warms up
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if round_:
                times[name].append(time.perf_counter() - started)
    ours, theirs = (np.array(t) for t in times.values())
    return np.median(ours), np.median(theirs), np.median(ours / theirs)


def model_and_samples(n_layer, n_embd, n_head, vocab_size, n_samples, low, high):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=high,
        n_embd=n_embd,
        n_layer=n_layer,
        n_head=n_head,
        bos_token_id=0,
        eos_token_id=0,
    )
    lengths = np.random.default_rng(0).integers(low, high + 1, size=n_samples)
    samples = [np.random.default_rng(i).integers(1, vocab_size, size=n) for i, n in enumerate(lengths)]
    return GPT2LMHeadModel(config).eval(), samples


def plain(model, samples, batch_size):
    """The same batches, length-sorted and padded on the right, through the model and torch's cross-entropy."""
    order = sorted(samples, key=len, reverse=True)
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            inputs = torch.zeros((len(batch), len(batch[0])), dtype=torch.int64)
            labels = torch.full_like(inputs, -100)
            for row, ids in enumerate(batch):
                inputs[row, 1 : len(ids)] = torch.from_numpy(ids[:-1])
                labels[row, : len(ids)] = torch.from_numpy(ids)
            logits = model(inputs, use_cache=False).logits
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")


def whole_measurement(name, target, batch_size, **shape):
    model, samples = model_and_samples(**shape)
    ours, theirs, ratio = seconds(
        {
            "compress_bits": lambda: compress_bits(
                model, samples, first_token=0, batch_size=batch_size, progress=False
            ),
            "forward + cross_entropy": lambda: plain(model, samples, batch_size),
        }
    )
    tokens = sum(map(len, samples))
    print(
        f"{name}: compress_bits {ours / tokens * 1e6:.1f} us a token, forward + cross_entropy {theirs / tokens * 1e6:.1f}"
    )
    print(f"    ratio {ratio:.3f} (to reach: {target})")


def logits_given(vocab_size=50_257, n_tokens=1024):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((n_tokens, vocab_size), generator=generator) * 3
    ids, rows = torch.randint(vocab_size, (n_tokens,), generator=generator), torch.arange(n_tokens)
    ours, theirs, ratio = seconds(
        {
            "intervals and ideal bits": lambda: code_tokens(logits, rows, ids),
            "cross_entropy": lambda: torch.nn.functional.cross_entropy(logits, ids, reduction="none"),
        }
    )
    print(
        f"logits given, V = {vocab_size:,}: intervals and ideal bits {ours / n_tokens * 1e6:.1f} us a token, ", end=""
    )
    print(f"torch's cross_entropy {theirs / n_tokens * 1e6:.1f}\n    ratio {ratio:.3f} (to reach: 2.5)")


def constriction_call(vocab_size=50_257, n_tokens=256):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((n_tokens, vocab_size), generator=generator) * 3
    ids = torch.distributions.Categorical(logits=logits).sample()
    code = code_tokens(logits, torch.arange(n_tokens), ids)
    tables, symbols = torch.softmax(logits, dim=-1).numpy(), ids.numpy().astype(np.int32)
    family = constriction.stream.model.Categorical(perfect=False)

    def full_tables():
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(symbols, family, tables)
        return encoder.num_bits()

    theirs, ours, ratio = seconds({"full tables": full_tables, "intervals": lambda: coded_bits([code])})
    ideal = code.ideal_bits.sum()
    print(f"the coder alone, V = {vocab_size:,}: full tables {theirs / n_tokens * 1e6:.1f} us a token, ", end="")
    print(f"intervals {ours / n_tokens * 1e6:.3f} ({len(code.left) / n_tokens:.2f} steps a token)")
    print(f"    intervals are {ratio:.0f} times faster (to reach: 50)")
    print(f"    bits over ideal, a token: {(coded_bits([code])[0] - ideal) / n_tokens:.5f}; ", end="")
    print(f"full tables, in whole words: {(full_tables() - ideal) / n_tokens:.5f}")


if __name__ == "__main__":
    print(f"torch {torch.__version__}, 1 thread, medians of {ROUNDS} rounds in turn")
    whole_measurement(
        "GPT-2-small shape, V = 50,257, 48 samples of 15-93 tokens", 1.10, 16,
        n_layer=12, n_embd=768, n_head=12, vocab_size=50_257, n_samples=48, low=15, high=93,
    )  # fmt: skip
    whole_measurement(
        "2 layers, d = 64, V = 2,048, 512 samples of 64 tokens", 1.5, 64,
        n_layer=2, n_embd=64, n_head=2, vocab_size=2_048, n_samples=512, low=64, high=64,
    )  # fmt: skip
    logits_given()
    constriction_call()
