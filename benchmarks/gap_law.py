"""Does F1 of a loss threshold follow the gap? Models of two sizes on text, their spreads measured, no constant fitted.

    python benchmarks/gap_law.py

Paragraphs of the addresses that the package carries, whole ones on either side; samples of 32 tokens. Some minutes on
one core. Writes results/gap_law.csv, a row a model, and prints how far F1 lies from Phi(gap / (sd + sd)).
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from memorization import compress_bits, gap_law
from memorization.lab.architectures import Architecture, count_params
from memorization.lab.stack import train_stack
from memorization.lab.text.documents import documents_of, fixed_length

torch.set_num_threads(1)
VOCAB_SIZE, SEQ_LEN, N_TEST, STEPS, BATCH_SIZE = 512, 32, 1024, 2_000, 32
SIZES, RATES = [384, 512, 768, 1024, 1536, 2048, 4096, 8192], {16: 0.02, 32: 0.02}


def texts():
    """Token ids of members, in the order in which sets of them grow, and of test samples of other paragraphs."""
    draw = np.random.default_rng(0)
    paragraphs = documents_of(None)
    order = draw.permutation(len(paragraphs))
    test, train = ([paragraphs[k] for k in part] for part in np.split(order, [len(order) // 5]))
    members = fixed_length(train, seq_len=SEQ_LEN, vocab_size=VOCAB_SIZE)
    others = fixed_length(test, seq_len=SEQ_LEN, tokenizer=members.tokenizer)
    return (torch.from_numpy(draw.permutation(samples.ids)) for samples in (members, others))


def run():
    members, others = texts()
    others = others[:N_TEST]
    rows = []
    for width, rate in RATES.items():
        build = Architecture("gpt2", layers=1, width=width, heads=4)
        torch.manual_seed(0)
        models = [build(VOCAB_SIZE, SEQ_LEN) for _ in SIZES]
        train_stack(
            models,
            [members[:n] for n in SIZES],
            context=0,
            steps=STEPS,
            batch_size=BATCH_SIZE,
            peak_lrs=[rate] * len(SIZES),
            seeds=range(len(SIZES)),
        )
        for n, model in zip(SIZES, models, strict=True):
            each = min(n, N_TEST)
            ours, theirs = (
                compress_bits(model, ids[:each], first_token=0, progress=False).ideal_bits for ids in (members, others)
            )
            called = np.argsort(np.concatenate([ours, theirs]), kind="stable")[:each]
            facts = {"n_params": count_params(model).total, "n_samples": n, "n_evaluated": 2 * each}
            f1, gap_bits, member_sd_bits, test_sd_bits = gap_law(ours, theirs)
            rows.append(
                {
                    **facts,
                    "f1_loss": np.mean(called < each),
                    "f1_of_gap": f1,
                    "gap_bits": gap_bits,
                    "member_sd_bits": member_sd_bits,
                    "test_sd_bits": test_sd_bits,
                }
            )
            rows[-1] = {name: round(float(value), 4) for name, value in rows[-1].items()}
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    table = run()
    table.to_csv(Path(__file__).parent / "results" / "gap_law.csv", index=False)
    free = table[table["f1_loss"] < 0.995]
    off = free["f1_of_gap"] - free["f1_loss"]
    print(f"{len(free)} of {len(table)} models with F1 below 0.995: off by {np.sqrt(np.mean(off**2)):.4f} (rms)")
