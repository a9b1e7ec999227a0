"""Identifiers: the mean e-value of strings never seen, and what is found of copies planted in a training set.

    python benchmarks/identifiers.py gpt2
    python benchmarks/identifiers.py lstm
    python benchmarks/identifiers.py smollm2 FOLDER     (FOLDER is what `make smollm2` writes)

The first two train a model of some 200,000 parameters on paragraphs of the text of the package, each with a hash of 16
hexadecimal digits behind its first words: 3,000 that come once, and 25 for each of 1, 2, 5, 10, 20, 50, 100
repetitions. 25 more are planted nowhere. Then 20,000 further paragraphs' beginnings with fresh hashes are audited,
which no model has seen. SmolLM2 is asked for 20,000 numbers of 6 digits. Figures go to benchmarks/results/identifiers.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from memorization import audit_identifiers, open_model
from memorization.data import addresses
from memorization.identifiers import Format
from memorization.lab.architectures import Architecture
from memorization.lab.stack import train_stack
from memorization.stats.significance import q_of_e_values, q_of_p_values

RESULTS = Path(__file__).parent / "results" / "identifiers"
REPETITIONS = (0, 1, 2, 5, 10, 20, 50, 100)
N_EACH, N_UNSEEN, N_RANKED, N_DRAWS, N_SIMULATIONS = 25, 20_000, 1_200, 199, 200
SEQ_LEN, VOCAB_SIZE, EPOCHS, BATCH_SIZE, FDR = 40, 1024, 4, 32, 0.05
HASH = Format.of("hex16")


def texts(n, generator):
    """Beginnings of sentences, a hash behind each, and more words."""
    words = " ".join(paragraph for address in addresses() for paragraph in address).split()
    starts = generator.integers(len(words) - 20, size=n)
    return [
        f"{' '.join(words[i : i + 5])} [{HASH.draw('', generator)}] {' '.join(words[i + 5 : i + 9])}" for i in starts
    ]


def tokenizer_of(lines):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def planted(which, generator):
    """A model that has seen some hashes so and so often, its tokenizer, and those texts by repetitions."""
    once = texts(3_000, generator)
    repeated = {n: texts(N_EACH, generator) for n in REPETITIONS}
    lines = once + [text for n, part in repeated.items() for text in part for _ in range(n)]
    tokenizer = tokenizer_of(once)
    rows = [(tokenizer.encode(line) + [0] * SEQ_LEN)[:SEQ_LEN] for line in lines]
    data = torch.tensor(rows)
    torch.manual_seed(0)
    model = Architecture(which, layers=2, width=64)(VOCAB_SIZE, SEQ_LEN)
    steps = EPOCHS * len(data) // BATCH_SIZE
    done = train_stack([model], [data], context=0, steps=steps, batch_size=BATCH_SIZE, peak_lrs=[5e-3], seeds=[0])
    print(f"{which}: {len(data):,} rows, {steps} steps, {float(done.bits_per_token[0]):.2f} bits a token", flush=True)
    return model, tokenizer, repeated


def of_unseen(signed_bits):
    e_values = np.nan_to_num(np.exp2(signed_bits), nan=0.0)
    n = len(e_values)
    figures = {"n": n, "n_cannot_tell": int(np.isnan(signed_bits).sum()), "mean_e_value": e_values.mean()}
    figures["standard_error"] = e_values.std(ddof=1) / np.sqrt(n)
    figures |= {f"mean_of_e_up_to_{cap}": np.minimum(e_values, cap).mean() for cap in (10, 100)}
    figures |= {"largest_e_value": e_values.max(), "mean_bits": np.nanmean(np.maximum(signed_bits, 0))}
    figures["mean_signed_bits"] = np.nanmean(signed_bits)
    figures["share_with_p_below_0.05"] = float((e_values >= 20).mean())
    return {name: value if isinstance(value, int) else round(float(value), 6) for name, value in figures.items()}


def of_planted(repeated, unseen, ranked, model, tokenizer):
    """memU and detection by repetitions, and false discoveries over simulations."""
    every = [text for part in repeated.values() for text in part]
    result = audit_identifiers(
        model, every, "hex16", n_draws=N_DRAWS, tokenizer=tokenizer, first_token=0, max_length=SEQ_LEN, progress=False
    )
    of = np.repeat(REPETITIONS, N_EACH)
    chosen = {by: result.memorized(FDR, by=by) for by in ("e_value", "rank")}
    table = [
        {
            "repetitions": n,
            "mean_bits": round(float(result.bits[of == n].mean()), 2),
            "mean_signed_bits": round(float(result.signed_bits[of == n].mean()), 2),
            "gain_bits": round(float((result.draw_bits.mean(axis=1) - result.target_bits)[of == n].mean()), 2),
            **{f"found_by_{by}": int(one[of == n].sum()) for by, one in chosen.items()},
        }
        for n in REPETITIONS
    ]
    generator = np.random.default_rng(1)
    shares = {"e_value": [], "rank": []}
    power = {"e_value": [], "rank": []}
    for _ in range(N_SIMULATIONS):
        seen = generator.choice(np.flatnonzero(of > 0), size=40, replace=False)
        for by, null, own, q_of in (
            ("e_value", unseen.signed_bits, result.signed_bits, q_of_e_values),
            ("rank", ranked.rank_p_value, result.rank_p_value, q_of_p_values),
        ):
            values = np.concatenate([generator.choice(null, size=160, replace=False), own[seen]])
            found = q_of(values) <= FDR
            shares[by].append(found[:160].sum() / max(1, found.sum()))
            power[by].append(found[160:].mean())
    return {
        "planted": table,
        "fdr_of_40_seen_among_200": {by: round(float(np.mean(one)), 4) for by, one in shares.items()},
        "standard_error": {by: round(float(np.std(one) / np.sqrt(N_SIMULATIONS)), 4) for by, one in shares.items()},
        "power": {by: round(float(np.mean(one)), 4) for by, one in power.items()},
    }


def main(which, folder=None):
    started = time.perf_counter()
    generator = np.random.default_rng(0)
    if which == "smollm2":
        numbers = [f"#{one:06}" for one in generator.choice(10**6, size=N_UNSEEN, replace=False)]
        options = {"n_draws": 0, "first_token": "<|endoftext|>", "batch_size": 64, "progress": False}
        signed_bits = []
        with open_model(folder) as smollm2:
            for start in range(0, N_UNSEEN, 1_000):
                found = audit_identifiers(smollm2, numbers[start : start + 1_000], "digits6", **options)
                signed_bits.append(found.signed_bits)
                print(f"{start + 1_000:,} of {N_UNSEEN:,}", f"{time.perf_counter() - started:.0f} s", flush=True)
        figures = {"unseen": of_unseen(np.concatenate(signed_bits))}
    else:
        model, tokenizer, repeated = planted(which, generator)
        options = {"tokenizer": tokenizer, "first_token": 0, "max_length": SEQ_LEN, "progress": False}
        lines = texts(N_UNSEEN, generator)
        unseen = audit_identifiers(model, lines, "hex16", n_draws=0, **options)
        ranked = audit_identifiers(model, lines[:N_RANKED], "hex16", n_draws=N_DRAWS, **options)
        figures = {"unseen": of_unseen(unseen.signed_bits), **of_planted(repeated, unseen, ranked, model, tokenizer)}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{which}.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1), f"{time.perf_counter() - started:.0f} s", sep="\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
