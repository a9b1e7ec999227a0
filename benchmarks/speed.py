"""What exact code lengths cost over a cross-entropy. Prints ratios taken in one process, the two sides in turn.

    python benchmarks/speed.py            # all
    python benchmarks/speed.py peers      # a part: models, peers, growth, logits, coder

Seconds are those of the processor, of one thread, so what else the machine does counts little. Models are opened, and other tools are
set up, before the clock starts; what opening and trying a model costs once is a figure of its own. Least work: one pass over the logits, which a cross-entropy needs as well (maximum, exponential, sum). What comes on top is
O(sqrt V) arithmetic a token, about 0.1 us in the range coder, and the Python of a batch.
"""

import contextlib
import logging
import os
import sys
import time

import constriction
import numpy as np
import torch
from figures import figure
from transformers import GPT2Config, GPT2LMHeadModel

from memorization import compress_bits
from memorization.coding.coder import coded_bits
from memorization.coding.intervals import code_tokens
from memorization.measure import open_model

os.environ["TQDM_DISABLE"] = "1"  # bars of lm-eval
torch.set_num_threads(1)  # with more, whatever else the machine does to one of them holds up the others
ROUNDS = 9
_TIMES = 100


def taken(sides, rounds=ROUNDS):
    """Seconds of each side, a row a round, all sides in turn."""
    times = np.empty((rounds + 1, len(sides)))
    for row in times:  # the first round warms up
        for k, side in enumerate(sides.values()):
            started = time.process_time()
            side()
            row[k] = time.process_time() - started
    return times[1:]


def seconds(sides, rounds=ROUNDS):
    """Median seconds of each of two sides, and the median of the ratio of the first to the second, round by round."""
    ours, theirs = taken(sides, rounds).T
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


def texts_and_tokenizer(n, low, high):
    """Texts of `low` to `high` tokens, and the byte-level tokenizer made of the text they are cut from."""
    from memorization.lab.text.documents import byte_level_bpe, documents_of, with_end_of_text

    documents = documents_of(None)
    tokenizer = with_end_of_text(byte_level_bpe(documents, 2_000), 64)
    tokens = tokenizer(" ".join(documents)[:400_000], add_special_tokens=False, verbose=False)["input_ids"]
    rng = np.random.default_rng(0)
    starts = rng.integers(0, len(tokens) - high, size=n)
    return [
        tokenizer.decode(tokens[a : a + m]) for a, m in zip(starts, rng.integers(low, high + 1, size=n), strict=True)
    ], tokenizer


def peers(name, n_texts, rounds, **shape):
    """Short texts by three tools; of the others the better of two batch sizes counts."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from minicons.scorer import IncrementalLMScorer

    logging.disable(logging.WARNING)
    model, _ = model_and_samples(n_samples=1, low=64, high=64, **shape)
    texts, tokenizer = texts_and_tokenizer(n_texts, 6, 36)
    requests = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
    scorer = IncrementalLMScorer(model, "cpu", tokenizer=tokenizer)
    rolling = {
        size: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, device="cpu", logits_cache=False)
        for size in (8, 32)
    }
    found = {}

    def ours():
        found["ours"] = compress_bits(opened, texts, first_token="bos", progress=False).ideal_bits

    def lm_eval(batch_size):
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # its bars
            nats = rolling[batch_size].loglikelihood_rolling(requests, disable_tqdm=True)
        found["lm-eval"] = -np.array(nats) / np.log(2)

    def minicons(batch_size):
        rows = []
        for start in range(0, len(texts), batch_size):
            some = texts[start : start + batch_size]
            rows += scorer.token_score(some, surprisal=True, base_two=True, bos_token=True)
        found["minicons"] = np.array([sum(bits for _, bits in row[1:]) for row in rows])

    sides = {"compress_bits": ours}
    for size in (8, 32):
        sides |= {
            f"lm-eval, {size}": lambda size=size: lm_eval(size),
            f"minicons, {size}": lambda size=size: minicons(size),
        }
    with open_model(model, tokenizer=tokenizer) as opened:
        times = np.median(taken(sides, rounds), axis=0)
    off = {tool: float(np.abs(found[tool] - found["ours"]).max()) for tool in ("lm-eval", "minicons")}
    print(
        f"{name}, {n_texts} texts of 6-36 tokens, seconds: "
        + ", ".join(f"{side} {t:.2f}" for side, t in zip(sides, times, strict=True))
    )
    for k, tool in enumerate(off, start=1):
        ratio = min(times[k::2]) / times[0]
        print(f"    {tool}: bits of a text differ by up to {off[tool]:.1e}")
        figure(f"{name}, short texts: {tool} over ours, seconds", ratio, ">= 1.2")


def growth():
    """How the seconds grow with tokens, vocabulary, length and batch, beside those of forward pass and cross-entropy."""
    shape = {"n_layer": 2, "n_embd": 64, "n_head": 2, "vocab_size": 2_048}
    model, samples = model_and_samples(**shape, n_samples=1_600, low=6, high=64)
    sizes = [100, 200, 400, 800, 1_600]
    with open_model(model) as opened:
        sides = {n: lambda n=n: compress_bits(opened, samples[:n], first_token=0, progress=False) for n in sizes}
        times = np.median(taken(sides, 5), axis=0)
    tokens = [sum(map(len, samples[:n])) for n in sizes]
    print(f"2 layers, d = 64: {tokens[0]:,} to {tokens[-1]:,} tokens")
    figure(
        "growth of seconds with tokens", np.polyfit(np.log(tokens), np.log(times), 1)[0], "0.95 to 1.05", of="exponent"
    )
    of_vocabulary = [({**shape, "vocab_size": size}, 64, 64) for size in (2_048, 8_192, 32_768)]
    of_length = [(shape, length, 32) for length in (32, 128, 512)]
    of_batch = [(shape, 64, batch) for batch in (4, 16, 64)]
    for name, rows in (("vocabulary", of_vocabulary), ("length", of_length), ("batch", of_batch)):
        ratios = []
        for own, length, batch in rows:
            model, samples = model_and_samples(**own, n_samples=max(64, 4_096 // length), low=length, high=length)
            ratios.append(over_plain(model, samples, batch, 5)[2])
        print(f"over forward + cross_entropy, {name} growing: " + ", ".join(f"{ratio:.3f}" for ratio in ratios))
        figure(
            f"the ratio to forward + cross_entropy as the {name} grows, last over first",
            ratios[-1] / ratios[0],
            "<= 1.05",
        )


def over_plain(model, samples, batch_size, rounds=ROUNDS):
    """Seconds of an open model, of forward pass and cross-entropy, and their ratio."""
    with open_model(model) as opened:
        how = {"first_token": 0, "batch_size": batch_size, "progress": False}
        sides = {
            "compress_bits": lambda: compress_bits(opened, samples, **how),
            "forward + cross_entropy": lambda: plain(model, samples, batch_size),
        }
        return seconds(sides, rounds)


def whole_measurement(name, target, batch_size, **shape):
    model, samples = model_and_samples(**shape)
    ours, theirs, ratio = over_plain(model, samples, batch_size)
    tokens = sum(map(len, samples))
    print(
        f"{name}: compress_bits {ours / tokens * 1e6:.1f} us a token, forward + cross_entropy {theirs / tokens * 1e6:.1f}"
    )
    figure(f"{name.split(', V')[0]}: over forward + cross_entropy", ratio, f"<= {target}")
    lengths = np.array([len(ids) for ids in samples])
    few = [samples[i] for i in np.argsort(lengths)[[0, len(lengths) // 2]]]  # two lengths: what a trial takes

    def opened_anew():
        with open_model(model) as opened:
            compress_bits(opened, few, first_token=0, progress=False)

    def one_token():
        with torch.no_grad():
            model(torch.zeros((1, 1), dtype=torch.int64))

    anew, one, _ = seconds({"opened anew": opened_anew, "one token": one_token}, 5)
    print(
        f"    once: opening and trying the model, with two samples {anew:.3f} s; a forward pass of one token {one:.3f}"
    )


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
    print(f"torch's cross_entropy {theirs / n_tokens * 1e6:.1f}")
    figure("intervals and ideal bits of given logits, over cross_entropy", ratio, "<= 1.2")


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

    many = [code] * _TIMES  # one is over before the clock has moved
    theirs, ours, ratio = seconds({"full tables": full_tables, "intervals": lambda: coded_bits(many)})
    ours, ratio = ours / _TIMES, ratio * _TIMES
    ideal = code.ideal_bits.sum()
    print(f"the coder alone, V = {vocab_size:,}: full tables {theirs / n_tokens * 1e6:.1f} us a token, ", end="")
    print(f"intervals {ours / n_tokens * 1e6:.3f} ({len(code.left) / n_tokens:.2f} steps a token)")
    coded = coded_bits([code])[0]
    print(f"    bits over ideal, a token: {(coded - ideal) / n_tokens:.5f}; ", end="")
    print(f"full tables, in whole words: {(full_tables() - ideal) / n_tokens:.5f}")
    figure("constriction with full tables over our intervals, seconds", ratio, ">= 50")
    figure("coding a token, one sample of 256", ours / n_tokens * 1e6, "<= 0.3", of="microseconds")
    figure("coded over ideal bits", coded / ideal, "<= 1.001")
    starts = range(0, n_tokens, 64)
    short = [code_tokens(logits[a : a + 64], torch.arange(64), ids[a : a + 64]) for a in starts] * _TIMES
    sides = {"ours": lambda: coded_bits(short), "Python": lambda: [in_python(one) for one in short]}
    ours, theirs, ratio = seconds(sides)
    figure("coding a token, samples of 64", ours / n_tokens / _TIMES * 1e6, "<= 0.3", of="microseconds")
    figure("a range coder in pure Python over ours, samples of 64, seconds", 1 / ratio, ">= 1")


def in_python(code):
    """Bits of the same intervals by a range coder of a few lines: 64 bits of state, in Python's integers."""
    low, size, bits = 0, 1 << 64, 0
    for left, frequency in zip(code.left.tolist(), code.frequency.tolist(), strict=True):
        low, size = low + (size >> 24) * left, (size >> 24) * frequency
        while size < 1 << 32:
            low, size, bits = low << 32, size << 32, bits + 32
    return bits + 65 - size.bit_length()


GPT2_SMALL = {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50_257}
SMALL = {"n_layer": 2, "n_embd": 64, "n_head": 2, "vocab_size": 2_048}


def models():
    name = "GPT-2-small shape, V = 50,257, 48 samples of 15-93 tokens"
    whole_measurement(name, 1.05, 16, **GPT2_SMALL, n_samples=48, low=15, high=93)
    name = "2 layers, d = 64, V = 2,048, 512 samples of 64 tokens"
    whole_measurement(name, 1.03, 64, **SMALL, n_samples=512, low=64, high=64)


def all_peers():
    peers("GPT-2-small shape", 48, 3, **GPT2_SMALL)
    peers("2 layers, d = 64, V = 2,048", 200, 7, **SMALL)


PARTS = {"models": models, "peers": all_peers, "growth": growth, "logits": logits_given, "coder": constriction_call}

if __name__ == "__main__":
    print(f"torch {torch.__version__}, 1 thread, medians of {ROUNDS} rounds in turn, of CPU seconds")
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
