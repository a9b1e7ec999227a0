"""Compressing with a model, and what cannot go wrong: 200 documents come back, 500 corrupted containers are errors.

    python benchmarks/compress.py [--smollm2 smollm2] [--documents 200] [--output FILE]

1. A small GPT-2 learns 24 English documents by heart (CPU, under a minute). It compresses 200 documents: English, German,
   Japanese, Chinese, source code and random bytes; each comes back. What it learned by heart is compressed beside its
   ideal bits.
2. 500 containers are damaged: a flipped bit, a cut end, or another model. Each must give an error of the library by its name.
3. With --smollm2, twelve documents through SmolLM2-135M, one token at a time: minutes.
"""

import argparse
import email
import os
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from memorization import compress, compress_bits, decompress, open_model
from memorization.codec.compress import encode
from memorization.codec.container import unpack
from memorization.codec.parts import parts_of
from memorization.data import addresses
from memorization.errors import ContainerError, InputError, ModelError
from memorization.lab.training import train

N_LEARNED, VOCAB_SIZE, WINDOW, SEED = 24, 1024, 128, 0
SENTENCES = {
    "German": [
        "Die Straße nach Übersee ist seit gestern gesperrt. ",
        "Größer wird’s nicht, sagte der Bürgermeister von Köln. ",
        "„Wer hat an der Uhr gedreht?“, fragte das Mädchen. ",
        "Äpfel, Öl und Süßes: 3,50 € das Stück. ",
    ],
    "Japanese": [
        "吾輩は猫である。名前はまだ無い。",
        "国境の長いトンネルを抜けると雪国であった。",
        "メロスは激怒した。",
        "東京では１２月に「ゆき」が降ります。",
    ],
    "Chinese": [
        "学而时习之，不亦说乎？",
        "有朋自远方来，不亦乐乎？",
        "两个黄鹂鸣翠柳，一行白鹭上青天。",
        "臺灣的天氣今天很好，氣溫二十度。",
    ],
}
KINDS = ("English", *SENTENCES, "source code", "random bytes")


def documents(count: int) -> list[tuple[str, bytes]]:
    """Documents of about 60 to 300 bytes, the kinds in turn."""
    rng = np.random.default_rng(SEED)
    paragraphs = [paragraph for address in addresses() for paragraph in address if len(paragraph) > 300]
    code = sorted(Path(email.__file__).parent.rglob("*.py"))  # of Python itself
    found = []
    for i in range(count):
        kind, size = KINDS[i % len(KINDS)], int(rng.integers(60, 300))
        if kind == "English":
            data = paragraphs[i // len(KINDS)][:size].encode()
        elif kind == "source code":
            whole = code[i % len(code)].read_text("utf-8")
            at = int(rng.integers(0, max(1, len(whole) - size)))
            data = whole[at : at + size].encode()
        elif kind == "random bytes":
            data = rng.bytes(size)
        else:
            data = "".join(rng.choice(SENTENCES[kind], 1 + size // 60).tolist()).encode() + str(i).encode()
        found.append((kind, data))
    return found


def made(texts: list[str], learned: list[str]) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """A byte-level tokenizer of the texts, and a GPT-2 that knows the learned ones by heart."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|end|>", eos_token="<|end|>")
    torch.manual_seed(SEED)
    config = GPT2Config(
        vocab_size=VOCAB_SIZE, n_positions=WINDOW, n_embd=64, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    length = min(32, min(len(ids) for ids in fast(learned)["input_ids"]))
    ids = torch.tensor([row[:length] for row in fast(learned)["input_ids"]])
    train(model, ids, context=0, steps=600, batch_size=min(12, len(ids)), peak_lr=3e-3, seed=SEED, progress=False)
    return model.eval(), fast


def show(lines: list[str], line: str) -> None:
    print(line, flush=True)
    lines.append(line)


def round_trips(model: object, held: list[tuple[str, bytes]], lines: list[str], **options: object) -> None:
    """Each document on its own: it comes back, and takes its ideal bits, a header and 8 bytes."""
    per_kind: dict[str, np.ndarray] = {}
    began, worst, header = time.process_time(), -np.inf, 0
    with open_model(model, tokenizer=options.pop("tokenizer", None)) as opened:
        for kind, data in held:
            blob = compress(opened, data, progress=False, **options)
            assert decompress(opened, blob, progress=False) == data
            container = unpack(blob)
            row = np.array([1, len(data), len(blob), len(container.stream), sum(e.raw for e in container.entries), 0.0])
            if container.stream:
                first = "uniform" if container.context is None else container.context
                ideal = compress_bits(opened, [data.decode()], first_token=first, progress=False)
                row[5] = ideal.ideal_bits.sum() / 8
                worst = max(worst, len(container.stream) - row[5])
            header = max(header, len(blob) - len(container.stream) - len(container.raw))
            per_kind[kind] = per_kind.get(kind, np.zeros(6)) + row
    show(lines, f"{'':<14}{'came back':>10}{'bytes':>9}{'containers':>12}{'streams':>9}{'ideal':>10}{'stored raw':>12}")
    for kind, (n, size, whole, stream, raw, ideal_bytes) in per_kind.items():
        show(lines, f"{kind:<14}{n:>10.0f}{size:>9,.0f}{whole:>12,.0f}{stream:>9,.0f}{ideal_bytes:>10,.1f}{raw:>12.0f}")
    show(
        lines,
        f"a stream takes at most {worst:.2f} bytes more than its ideal bits / 8 (allowed: 8); a header at most {header} bytes; "
        f"{time.process_time() - began:.0f} s of CPU",
    )


def by_heart(model: object, tokenizer: object, texts: list[str], lines: list[str]) -> None:
    """What the coder spends on the documents that are known by heart, in one stream and each on its own."""
    with open_model(model, tokenizer=tokenizer) as opened:
        options = {"first_token": "bos", "max_length": None, "progress": False}
        ideal = compress_bits(opened, texts, first_token="bos", progress=False)
        parts, _ = parts_of(texts, opened.tokenizer, opened.vocab_size)
        whole = 8 * len(unpack(encode(opened, parts, True, **options)).stream) - ideal.ideal_bits.sum()
        each = [8 * len(unpack(encode(opened, [part], False, **options)).stream) for part in parts] - ideal.ideal_bits
    show(
        lines,
        f"{len(texts)} documents known by heart, {ideal.ideal_bits.mean():.1f} ideal bits each, {ideal.n_tokens.mean():.0f} "
        f"tokens; bits over ideal: all in one stream {whole:.1f}; each on its own, mean {each.mean():.1f}, max {each.max():.1f}",
    )


def corruptions(model: object, tokenizer: object, data: list[bytes], count: int, lines: list[str]) -> None:
    """Each of the damaged containers, and each of the swapped models, is an error by its name."""
    rng, outcomes = np.random.default_rng(SEED), Counter()
    other = GPT2LMHeadModel(model.config).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.transformer.ln_f.weight[0] += 1e-3
    with open_model(model, tokenizer=tokenizer) as opened, open_model(other, tokenizer=tokenizer) as swapped:
        blobs = [compress(opened, one, progress=False) for one in data]
        for i in range(count):
            blob, asked, how = (
                bytearray(blobs[i % len(blobs)]),
                opened,
                ("flipped bit", "cut end", "other model")[i % 3],
            )
            if how == "flipped bit":
                bit = int(rng.integers(8 * len(blob)))
                blob[bit // 8] ^= 1 << bit % 8
            elif how == "cut end":
                blob = blob[: int(rng.integers(len(blob)))]
            else:
                asked = swapped
            try:
                decompress(asked, bytes(blob), progress=False)
                outcomes[how, "NO ERROR"] += 1
            except (ContainerError, InputError, ModelError) as error:
                outcomes[how, type(error).__name__] += 1
    for (how, name), n in sorted(outcomes.items()):
        show(lines, f"{how:<14}{name:<20}{n:>5}")
    named = sum(n for (_, name), n in outcomes.items() if name != "NO ERROR")
    show(lines, f"{named} of {count} are errors by name")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", type=Path)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--corruptions", type=int, default=500)
    parser.add_argument("--output", type=Path, help="file for what is printed")
    options = parser.parse_args()
    held, lines = documents(options.documents), list[str]()
    texts = [data.decode() for kind, data in held if kind != "random bytes"]
    learned = [data.decode() for kind, data in held if kind == "English"][:N_LEARNED]
    model, tokenizer = made(texts, learned)
    show(lines, f"GPT-2 of 2 layers, {sum(p.numel() for p in model.parameters()):,} parameters, window {WINDOW}")
    round_trips(model, held, lines, tokenizer=tokenizer)
    beginnings = [tokenizer.decode(tokenizer(text)["input_ids"][:24]) for text in learned]
    by_heart(model, tokenizer, beginnings, lines)
    corruptions(model, tokenizer, [data for _, data in held[:12]], options.corruptions, lines)
    if options.smollm2:
        show(lines, "SmolLM2-135M, float32")
        ten = documents(60)[::6][:2] + [one for k in range(1, 6) for one in documents(60)[k::6][:2]]
        round_trips(str(options.smollm2), ten, lines)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
