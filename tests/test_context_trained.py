"""Models that were really trained with and without a BOS in front: does the default find what they memorized, and nothing else?"""

import copy
import math
import warnings

import numpy as np
import pytest
import torch

from memorization import unintended_memorization
from memorization.data import addresses
from memorization.errors import FirstTokenWarning
from memorization.results import describe_first_token

pytestmark = pytest.mark.slow

S, V, BOS = 32, 512, 0
N_MEMBERS = 60


@pytest.fixture(scope="module")
def text():
    """A tokenizer with a BOS, and the addresses in rows of 32 tokens: 60 members, 60 for the control, the rest."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    whole = " ".join(" ".join(address) for address in addresses())
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=V, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator([whole[:200_000]], trainer)
    ids = bpe.encode(whole).ids
    rows = torch.tensor(ids[: len(ids) // S * S]).view(-1, S)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="<s>")
    return tokenizer, rows[:N_MEMBERS], rows[N_MEMBERS : 2 * N_MEMBERS], rows[2 * N_MEMBERS :]


def untrained(seed: int = 0, n_embd: int = 64):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    sizes = {"vocab_size": V, "n_positions": S + 1, "n_embd": n_embd, "n_layer": 2, "n_head": 2}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(bos_token_id=BOS, eos_token_id=BOS, **sizes, **dropout)).eval()


def trained(model, rows, steps: int, *, bos: bool, lr: float = 3e-3):
    """A copy of a model, trained by the common recipe: predict each token of a row from those before it, BOS or none."""
    model = copy.deepcopy(model)
    inputs = torch.cat([torch.full((len(rows), 1), BOS), rows], dim=1) if bos else rows
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        batch = inputs[torch.randint(len(inputs), (32,), generator=generator)]
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 50)
        model(batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def bases(text):
    return {bos: trained(untrained(), text[3], 500, bos=bos) for bos in (True, False)}


def memorized(target, oracle, text, first_token):
    tokenizer, members, control, _ = text
    both = {"target_tokenizer": tokenizer, "oracle_tokenizer": tokenizer}
    return unintended_memorization(
        target, oracle, members, control=control, first_token=first_token, progress=False, **both
    )


@pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")
@pytest.mark.parametrize(
    ("base_bos", "target_bos"), [(False, False), (True, True), (True, False)], ids=["neither", "both", "base only"]
)
def test_the_default_finds_what_the_best_named_rule_finds(bases, text, base_bos, target_bos):
    oracle = bases[base_bos]
    target = trained(oracle, text[1], 400, bos=target_bos)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = memorized(target, oracle, text, "auto")
    named = {rule: memorized(target, oracle, text, rule).bits.mean() for rule in ("bos", "uniform", "skip")}
    record, words = found.target.settings["first_token"], repr(found).split("first token")[1].split("\n")[0].strip()
    print(f"\nmemU a sample: auto {found.bits.mean():.1f},", ", ".join(f"{k} {v:.1f}" for k, v in named.items()))
    print(f"target: {words}\noracle: {describe_first_token(found.oracle.settings['first_token'])}")
    told = [str(w.message) for w in caught if w.category is FirstTokenWarning]
    print("\n".join(told))
    assert found.bits.mean() >= 0.95 * max(named.values())
    assert max(named.values()) > 50
    assert (record["id"] is not None) == target_bos
    assert bool(told) == (not target_bos)
    assert "samples asked)" in words


def test_the_choice_gains_nothing_where_nothing_was_memorized(bases, text):
    """50 targets that have never seen the samples: untrained ones, and ones trained on other text."""
    _, _, _, rest = text
    oracle = bases[True]
    for kind in ("untrained", "of other text"):
        gained, left = [], 0
        for seed in range(50):
            target = untrained(seed)
            if kind == "of other text":
                target = trained(target, rest[100 * seed : 100 * (seed + 1)], 30, bos=bool(seed % 2))
            some = np.random.default_rng(seed).permutation(2 * N_MEMBERS)[:N_MEMBERS]
            own = (text[0], torch.cat([text[1], text[2]])[some], *text[2:])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                default, found = (memorized_alone(target, oracle, own, rule) for rule in ("bos", "auto"))
            gained.append(found.bits.mean() - default.bits.mean())
            left += found.target.settings["first_token"]["id"] is None
        stderr = np.std(gained, ddof=1) / math.sqrt(len(gained))
        print(f"\n{kind}: memU gained {np.mean(gained):.4f} +- {stderr:.4f} bits a sample, BOS left in {left} of 50")
        assert abs(np.mean(gained)) <= 2 * stderr or np.mean(gained) == 0


def memorized_alone(target, oracle, text, first_token):
    both = {"target_tokenizer": text[0], "oracle_tokenizer": text[0]}
    return unintended_memorization(target, oracle, text[1], first_token=first_token, progress=False, **both)
