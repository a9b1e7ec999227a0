"""Extraction by sampling: probabilities against tables, samplers and draws; tries, worst windows, an oracle."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from torch import Tensor

from memorization import UniformModel, cli, compress_bits
from memorization.errors import InputError
from memorization.extraction import Extraction, extract, tries, worst_windows
from memorization.extraction.decoding import Decoding, least_bits
from memorization.lab.architectures import Architecture
from memorization.lab.stack import train_stack
from memorization.stats.binomial import korn_graubard

P = np.array([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.1, 0.1]])
WAYS = [
    (1.0, None, 1.0),
    (0.5, None, 1.0),
    (2.0, 3, 1.0),
    (1.0, 1, 1.0),
    (1.0, None, 0.6),
    (1.3, 3, 0.8),
    (0.0, None, 1.0),
]


def table(ids: Tensor) -> Tensor:
    return torch.from_numpy(np.log(P)).float()[ids]


def by_hand(row: np.ndarray, temperature: float, top_k: int | None, top_p: float) -> np.ndarray:
    """What is drawn with which probability, in plain Python over one row of probabilities."""
    n = len(row)
    if temperature == 0:
        return np.eye(n)[int(np.argmax(row))]
    p = row ** (1 / temperature)
    if top_k is not None:
        p = np.where(p >= sorted(p)[-min(top_k, n)] * (1 - 1e-7), p, 0)
    p = p / p.sum()
    if top_p < 1:
        out, so_far = [], 0.0
        for i in sorted(range(n), key=lambda i: (p[i], i))[:-1]:
            so_far += p[i]
            if so_far <= 1 - top_p + 1e-7:
                out.append(i)
        p[out] = 0
    return p / p.sum()


@pytest.mark.parametrize("way", WAYS)
def test_a_table_gives_the_probability_of_every_continuation(way):
    temperature, top_k, top_p = way
    samples = [[a, b, c, d] for a in range(4) for b in range(4) for c in range(4) for d in range(4)]
    found = extract(
        table,
        samples,
        prefix_tokens=(1, 2),
        first_token=0,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        progress=False,
    )
    drawn = np.array([by_hand(row, *way) for row in P])
    for prefix in (1, 2):
        expected = [math.prod(drawn[s[i - 1], s[i]] for i in range(prefix, 4)) for s in samples]
        np.testing.assert_allclose(np.exp2(-found.suffix_bits(prefix)), expected, rtol=1e-6, atol=1e-12)
    if temperature == 0:
        assert (found.suffix_bits(1) == 0).tolist() == found.extracted(1).tolist()


def test_cold_sampling_is_greedy():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(8, 8))).float()
    best = logits.argmax(dim=1).tolist()
    samples = [*rng.integers(0, 8, (60, 4)).tolist(), *([0, a, best[a], best[best[a]]] for a in range(8))]
    cold = extract(
        lambda ids: logits[ids], samples, prefix_tokens=(2,), first_token=0, temperature=1e-4, progress=False
    )
    assert (cold.suffix_bits(2) < 1).tolist() == cold.extracted(2).tolist()
    assert cold.rate(2, 1).member_rate == cold.rate(2).member_rate > 0


@pytest.mark.parametrize("way", WAYS[:-1])
def test_the_probabilities_are_those_of_transformers_samplers(way):
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    temperature, top_k, top_p = way
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(scale=3, size=(50, 40)).round(1))  # with ties
    scores = TemperatureLogitsWarper(temperature)(None, logits.clone())
    scores = scores if top_k is None else TopKLogitsWarper(top_k)(None, scores)
    scores = scores if top_p == 1 else TopPLogitsWarper(top_p)(None, scores)
    expected = -scores.log_softmax(-1).numpy() / math.log(2)
    ways = Decoding(temperature, top_k, top_p)
    found = np.stack([ways.token_bits(logits, np.arange(50), np.full(50, v)) for v in range(40)], axis=1)
    # Where equal ones stand at the edge of the nucleus, which of them is left is the sorting's.
    same = np.isfinite(found) == np.isfinite(expected)
    assert same.mean() > 0.99
    both = np.isfinite(found) & np.isfinite(expected)
    np.testing.assert_allclose(found[both], expected[both], atol=1e-6)
    np.testing.assert_allclose(np.exp2(-found).sum(axis=1), 1)


@pytest.mark.parametrize("way", [(1.0, None, 1.0), (1.3, 3, 0.8)])
def test_a_hundred_thousand_draws_agree(way):
    rng = np.random.default_rng(2)
    drawn, n = np.array([by_hand(row, *way) for row in P]), 100_000
    samples = [[0, 1, 3, 0], [1, 3, 0, 0], [2, 0, 0, 0], [3, 0, 0, 1], [0, 2, 1, 1]]
    found = extract(
        table,
        samples,
        prefix_tokens=(1,),
        first_token=0,
        temperature=way[0],
        top_k=way[1],
        top_p=way[2],
        progress=False,
    )
    p_z = np.exp2(-found.suffix_bits(1))
    for sample, p in zip(samples, p_z, strict=True):
        last, right = np.full(n, sample[0]), np.ones(n, dtype=bool)
        for true in sample[1:]:
            last = (rng.random((n, 1)) > drawn[last].cumsum(axis=1)).sum(axis=1).clip(max=3)
            right &= last == true
        low, high = binom.interval(1 - 1e-5, n, p)
        assert low <= right.sum() <= high
        if p > 1e-3:  # in n tries it comes out with probability 1/2
            k = round(float(tries(np.array([-math.log2(p)]))[0]))
            blocks = right[: n // k * k].reshape(-1, k).any(axis=1)
            low, high = binom.interval(1 - 1e-5, len(blocks), 1 - (1 - p) ** k)
            assert low <= blocks.sum() <= high


@given(st.floats(0, 900), st.floats(0.01, 0.99))
def test_tries_and_bits_are_each_others_inverse(bits, p):
    n = float(tries(np.array([bits]), p)[0])
    assert n >= 1
    if n > 1:
        assert least_bits(n, p) == pytest.approx(bits, rel=1e-6, abs=1e-6)
    assert 1 - (1 - 2**-bits) ** n >= p - 1e-6 or bits > 50


def test_the_worst_window_by_brute_force():
    rng = np.random.default_rng(3)
    lengths = [1, 4, 5, 30]
    offsets = np.cumsum([0, *lengths])
    bits = rng.exponential(2, offsets[-1])
    bits[offsets[3] + 7] = math.inf
    for n in (1, 3, 5):
        start, found = worst_windows(bits, offsets, n)
        for i, length in enumerate(lengths):
            sums = [bits[offsets[i] + a : offsets[i] + a + n].sum() for a in range(length - n + 1)]
            assert (start[i], found[i]) == (
                (int(np.argmin(sums)), pytest.approx(min(sums))) if sums else (-1, math.inf)
            )
    # Stored bits of tokens are enough, and say what a pass over the samples says.
    samples = rng.integers(0, 4, (6, 12))
    stored = compress_bits(table, samples, first_token=0, progress=False)
    by_pass = extract(table, samples, prefix_tokens=(4,), first_token=0, progress=False)
    for ours, theirs in zip(
        worst_windows(stored.token_bits, stored.token_offsets, 5), by_pass.worst_windows(5), strict=True
    ):
        np.testing.assert_allclose(ours, theirs)


@pytest.fixture(scope="module")
def trained():
    """A model that has seen its members a few times, and one that has seen others like them."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 32, (480, 12))
    torch.manual_seed(0)
    models = [Architecture("gpt2", width=24)(32, 12) for _ in range(2)]
    train_stack(
        models,
        [torch.from_numpy(tokens[:64]), torch.from_numpy(tokens[64:400])],
        context=0,
        steps=44,
        batch_size=64,
        peak_lrs=[0.02, 0.02],
        seeds=[0, 1],
    )
    return models, tokens[:64], tokens[400:]


def test_members_come_out_with_tries_and_nothing_else_does(trained, tmp_path):
    (model, other), members, heldout = trained
    found = extract(model, members, heldout, prefix_tokens=(4,), first_token=0, oracle=other, progress=False)
    greedy, many = found.rate(4), found.rate(4, 10_000)
    assert many.member_rate > greedy.member_rate + 0.2  # greedy decoding misses most of it
    assert many.heldout_rate == 0
    assert many.excess_interval.low > 0.2
    assert found.rate(4, 10_000, 0.9).member_rate <= many.member_rate <= found.rate(4, 10_000, 0.1).member_rate
    assert found.rate(4, 1e6).member_rate >= many.member_rate
    assert found.rate(4, 10_000, beyond_oracle=True).member_rate == many.member_rate
    assert found.rate(4, 1e30, beyond_oracle=True).member_rate == 0  # so often everything comes out of everything

    untrained = extract(Architecture("gpt2", width=24)(32, 12), members, heldout, prefix_tokens=(4,), first_token=0)
    assert untrained.rate(4, 10_000).member_rate == 0
    itself = extract(model, members, heldout, prefix_tokens=(4,), first_token=0, oracle=model, progress=False)
    assert itself.rate(4, 10_000, beyond_oracle=True).member_rate == 0

    found.save(tmp_path / "kept")
    again = Extraction.load(tmp_path / "kept")
    assert again.suffix_bits(4).tolist() == found.suffix_bits(4).tolist()
    assert again.rate(4, 100, beyond_oracle=True) == found.rate(4, 100, beyond_oracle=True)
    kept = pd.read_parquet(tmp_path / "kept" / "tries.parquet")
    assert len(kept) == 21
    assert kept["beyond_oracle"].max() > 0.5
    examples = [json.loads(line) for line in (tmp_path / "kept" / "examples.jsonl").read_text().splitlines()]
    assert len(examples) == 10
    for one in examples:
        assert one["prefix"] + one["suffix"] == members[one["sample"]].tolist()
        assert one["log2_probability"] == pytest.approx(-found.suffix_bits(4)[one["sample"]])
        assert (one["greedy"] == one["suffix"]) == bool(found.extracted(4)[one["sample"]])
        assert len(one["greedy"]) == 8
    words = repr(found)
    assert "sampled at temperature 1, from 4 tokens" in words
    assert "10,000 tries" in words
    assert "and not of the oracle" in words
    assert found.plot(against="tries").get_xscale() == "log"


def test_an_older_result_knows_no_probabilities():
    found = extract(table, [[0, 1, 2]], prefix_tokens=(1,), first_token=0, progress=False)
    old = dataclasses.replace(found, member_bits=None, heldout_bits=None)
    assert "tries" not in repr(old)
    assert len(old.tries_to_pandas()) == 0
    with pytest.raises(InputError, match="saved by an earlier version"):
        old.rate(1, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature must be a number of at least 0; it is -1"),
        ({"temperature": math.nan}, "temperature must be a number of at least 0; it is nan"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"top_k": 0}, "top_k must be"),
        ({"top_k": 2.5}, "top_k must be"),
        ({"top_p": 0}, "top_p must lie above 0 and be 1 at most, 1 for all tokens; it is 0"),
        ({"top_p": 1.5}, "top_p must lie above 0"),
        ({"suffix_tokens": 0}, "suffix_tokens must be"),
    ],
)
@pytest.mark.usefixtures("no_type_checker")
def test_ways_of_sampling_that_do_not_exist(options, message):
    with pytest.raises(InputError, match=message):
        extract(table, [[0, 1, 2]], prefix_tokens=(1,), first_token=0, **options)


@pytest.mark.usefixtures("no_type_checker")
def test_what_cannot_be_asked_of_a_result():
    found = extract(table, [[0, 1, 2]], prefix_tokens=(1,), first_token=0, progress=False)
    for p in (0, 1, -0.5, math.nan, "half"):
        with pytest.raises(InputError, match="p must lie between 0 and 1"):
            found.rate(1, 10, p)
        with pytest.raises(InputError, match="p must lie between 0 and 1"):
            tries(found.suffix_bits(1), p)
    for n in (0, 0.5, math.inf, "many"):
        with pytest.raises(InputError, match="n_tries must be a number of at least 1"):
            found.rate(1, n)
    with pytest.raises(InputError, match="no oracle was given"):
        found.rate(1, 10, beyond_oracle=True)
    with pytest.raises(InputError, match="suffix_tokens must be"):
        found.worst_windows(0)
    with pytest.raises(InputError, match="n_tries must be a number"):
        found.rate(1, beyond_oracle=True)


def test_an_oracle_with_other_tokens_is_refused(bpe_tokenizer):
    letters = (lambda text: list(text.encode()), lambda ids: bytes(ids).decode())
    with pytest.raises(InputError, match="cuts the samples into other tokens than the target"):
        extract(
            UniformModel(300), ["The house met again."], prefix_tokens=(1,), tokenizer=bpe_tokenizer,
            oracle=UniformModel(300), oracle_tokenizer=letters,
        )  # fmt: skip


def test_command_line(tmp_path, tiny_gpt2, bpe_tokenizer, capsys):
    for name in ("target", "oracle"):
        tiny_gpt2.save_pretrained(tmp_path / name)
        bpe_tokenizer.save_pretrained(tmp_path / name)
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in ("The house met again.", "How many bits does it take?"))
    )
    options = [
        "--temperature",
        "0.8",
        "--top-k",
        "50",
        "--top-p",
        "0.9",
        "--oracle",
        str(tmp_path / "oracle"),
        "--quiet",
    ]
    arguments = [
        "--target",
        str(tmp_path / "target"),
        "--data",
        str(data),
        "--prefix",
        "2",
        "--output",
        str(tmp_path / "out"),
    ]
    with pytest.raises(SystemExit) as stop:
        cli.main(["extract", *arguments, *options])
    assert not stop.value.code
    assert "sampled at temperature 0.8, top k 50, top p 0.9, from 2 tokens" in capsys.readouterr().out
    assert (tmp_path / "out" / "examples.jsonl").exists()
    assert Extraction.load(tmp_path / "out").settings["decoding"] == {"temperature": 0.8, "top_k": 50, "top_p": 0.9}


def test_samples_of_one_document_amount_to_fewer_draws(tmp_path):
    rng = np.random.default_rng(0)
    heldout = rng.integers(0, 4, (30, 4))
    heldout[:, 0] = 1
    known = [[0, 0, 0, 0]] * 3 + [[0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 0, 3]]
    options = {"prefix_tokens": (1,), "first_token": 0, "progress": False}
    alone = extract(table, [[0, 0, 0, i] for i in range(4)], heldout, **options)
    assert alone.member_groups is None
    equal = extract(table, known, heldout, **options)
    assert equal.rate(1).member_rate == 0.5
    low, high = equal.rate(1).member_interval
    assert low < 0.1  # three of six, and one of four
    assert high > 0.95
    assert "intervals    of equal samples" in repr(equal)

    documents = extract(table, known, heldout, groups=([1, 1, 1, 2, 2, 2], list(range(10, 40))), **options)
    assert not documents.rate(1).member_interval.low > 0.05
    assert "intervals    of documents" in repr(documents)
    documents.save(tmp_path / "kept")
    assert Extraction.load(tmp_path / "kept").rate(1) == documents.rate(1)
    with pytest.raises(InputError, match="is on both sides"):
        extract(table, known, heldout, groups=([1, 1, 1, 2, 2, 2], list(range(30))), **options)


def test_intervals_of_groups_cover_their_share():
    rng = np.random.default_rng(1)
    for rate, alike in ((0.3, 1.0), (0.1, 0.5)):
        covered = 0
        for _ in range(400):
            of_group = rng.random(40) < rate
            hits = np.where(rng.random((40, 5)) < alike, of_group[:, None], rng.random((40, 5)) < rate)
            covered += rate in korn_graubard(hits.ravel(), np.repeat(np.arange(40), 5), 0.95)
        assert covered / 400 > 0.93, (rate, alike)
