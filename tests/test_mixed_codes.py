"""Several models as one code, token by token: against all paths, decoded for real, and as oracles of memU."""

import itertools
import math
import warnings

import constriction
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import Iid, Memorizer, mean_bits, zipf
from test_ladder import S, V, strong_pair
from test_unintended import train_bpe
from torch import Tensor

import memorization
from memorization import UniformModel, compress_bits, unintended_memorization
from memorization.coding.joint import SWITCH_RATES, joint_bits, mixed_token_bits
from memorization.errors import InputError, MeasurementWarning, SeenByOracleWarning
from memorization.report.code_lengths import plot_token_bits
from memorization.unintended.joint import tokens_for

pytestmark = pytest.mark.usefixtures("no_type_checker")

tables = st.integers(1, 4).flatmap(
    lambda k: st.lists(st.lists(st.floats(0, 60), min_size=k, max_size=k), min_size=1, max_size=12)
)


def sums(bits, offsets):
    return np.add.reduceat(bits, offsets[:-1])


def over_all_paths(bits: np.ndarray, code: str) -> float:
    """-log2 of the mean over every sequence of models, with the prior that the docstring states."""
    k, n = bits.shape
    if code == "mixture":
        return -math.log2(sum(2.0 ** -bits[m].sum() for m in range(k)) / k)
    p = 0.5 * sum(2.0 ** -bits[m].sum() for m in range(k)) / k
    for rate in SWITCH_RATES:
        for path in itertools.product(range(k), repeat=n):
            prior = 1 / k
            for a, b in itertools.pairwise(path):
                prior *= 1 - rate if a == b else rate / (k - 1)
            p += 0.5 / len(SWITCH_RATES) * prior * 2.0 ** -bits[path, range(n)].sum()
    return -math.log2(p)


@pytest.mark.parametrize("code", ["mixture", "switch"])
@pytest.mark.parametrize("k", [2, 3])
def test_every_path_by_brute_force(code, k):
    rng = np.random.default_rng(k)
    lengths = [1, 5, 3, 6]
    offsets = np.cumsum([0, *lengths])
    bits = rng.exponential(4, (k, offsets[-1]))
    found = mixed_token_bits(list(bits), offsets, code)
    for i, (a, b) in enumerate(itertools.pairwise(offsets)):
        for n in range(1, b - a + 1):  # what the first n tokens cost knows nothing of the next
            expected = over_all_paths(bits[:, a : a + n], code)
            assert found[a : a + n].sum() == pytest.approx(expected, rel=1e-12), (i, n)


@given(tables)
def test_bounds(rows):
    """Switch <= mixture + 1, and mixture <= the best + log2 k: always."""
    bits = np.array(rows).T
    offsets = np.array([0, *sorted({1, len(rows) // 2, len(rows)} - {0})])
    mixture, switch = (sums(mixed_token_bits(list(bits), offsets, code), offsets) for code in ("mixture", "switch"))
    best = np.min([sums(one, offsets) for one in bits], axis=0)
    assert (mixture <= best + math.log2(len(bits)) + 1e-9).all()
    assert (mixture >= best - 1e-9).all()
    assert (switch <= mixture + 1 + 1e-9).all()


@given(tables)
def test_the_joint_code_keeps_the_bound_with_what_the_coder_spends_beside(rows):
    bits = np.array([row[:2] if len(row) > 1 else row * 2 for row in rows]).T
    offsets = np.array([0, len(rows)])
    whole = [sums(one, offsets) + extra for one, extra in zip(bits, (0.7, 0.01), strict=True)]
    switch = joint_bits(*whole, "switch", (*bits, offsets))
    assert switch <= joint_bits(*whole, "mixture") + 1 + 1e-9
    assert whole[1] - switch >= -2 - 1e-9  # memU


@pytest.mark.parametrize("code", ["mixture", "switch"])
def test_a_hundred_thousand_bits_and_one_model(code):
    offsets = np.array([0, 2, 4])
    far = np.array([5e4, 5e4, 0.0, 0.0])
    found = sums(mixed_token_bits([far, far[::-1].copy()], offsets, code), offsets)
    np.testing.assert_allclose(found, 1.0, atol=1.01)
    np.testing.assert_allclose(mixed_token_bits([far], offsets, code), far)
    assert not np.isnan(mixed_token_bits([far, far * 2], offsets, code)).any()
    assert len(mixed_token_bits([np.zeros(0)] * 2, np.array([0]), code)) == 0


def test_a_text_that_each_model_knows_in_parts_costs_less_than_under_either():
    rng = np.random.default_rng(0)
    part = np.repeat(rng.permutation(np.repeat([0, 1], 4)), 16)  # eight parts of 16 tokens
    known, unknown = rng.exponential(0.3, 128), 6 + rng.exponential(2, 128)
    bits = [np.where(part == model, known, unknown) for model in (0, 1)]
    offsets = np.array([0, 128])
    switch, mixture = (mixed_token_bits(bits, offsets, code).sum() for code in ("switch", "mixture"))
    assert switch < 0.25 * min(one.sum() for one in bits) < mixture
    # Two models that differ by noise alone gain by averaging, which the control shows as well.
    noise = [rng.exponential(3, 128) for _ in range(2)]
    assert mixed_token_bits(noise, offsets, "switch").sum() < min(one.sum() for one in noise)


# --- real coding


class Followed:
    """Weights of models in a code, brought up to date as a decoder would: one token at a time, in plain Python."""

    def __init__(self, code: str):
        self.rates = (
            [(0.0, 1.0)] if code == "mixture" else [(0.0, 0.5), *((r, 0.5 / len(SWITCH_RATES)) for r in SWITCH_RATES)]
        )
        self.weights = [[prior / 2, prior / 2] for _, prior in self.rates]

    def next(self, p: np.ndarray) -> np.ndarray:
        """The joint distribution of the next token, from both models' (2, vocab)."""
        total = np.sum(self.weights, axis=0)
        return total @ p / total.sum()

    def see(self, p_of_token: np.ndarray) -> None:
        for i, (rate, _) in enumerate(self.rates):
            a, b = (w * p for w, p in zip(self.weights[i], p_of_token, strict=True))
            self.weights[i] = [(1 - rate) * a + rate * b, (1 - rate) * b + rate * a]
        norm = np.sum(self.weights)
        self.weights = [[w / norm for w in pair] for pair in self.weights]


class Bigram:
    """A bigram model with random logits."""

    def __init__(self, seed: int, vocab_size: int = 24):
        rng = np.random.default_rng(seed)
        self.logits = torch.from_numpy(rng.normal(scale=2, size=(vocab_size, vocab_size))).float()

    def __call__(self, ids: Tensor) -> Tensor:
        return self.logits[ids]

    def probabilities(self, last: int) -> np.ndarray:
        return torch.softmax(self.logits[last].double(), 0).numpy()

    def draw(self, rng: np.random.Generator, n: int, last: int) -> list[int]:
        out = []
        for _ in range(n):
            last = int(rng.choice(len(self.logits), p=self.probabilities(last)))
            out.append(last)
        return out


def family(p: np.ndarray):
    return constriction.stream.model.Categorical(p.astype(np.float32), perfect=False)


@pytest.mark.parametrize("code", ["mixture", "switch"])
def test_the_code_is_written_and_decoded(code):
    rng = np.random.default_rng(3)
    models = Bigram(1), Bigram(2)
    text = []
    for part in range(4):  # each model's own text in turn
        text += models[part % 2].draw(rng, 40, text[-1] if text else 0)

    encoder, followed, last = constriction.stream.queue.RangeEncoder(), Followed(code), 0
    for token in text:
        p = np.array([model.probabilities(last) for model in models])
        encoder.encode(token, family(followed.next(p)))
        followed.see(p[:, token])
        last = token
    words = encoder.get_compressed()

    decoder, followed, last, decoded = constriction.stream.queue.RangeDecoder(words), Followed(code), 0, []
    for _ in text:
        p = np.array([model.probabilities(last) for model in models])
        last = int(decoder.decode(family(followed.next(p))))
        followed.see(p[:, last])
        decoded.append(last)
    assert decoded == text

    lengths = [compress_bits(model, [text], first_token=0, progress=False) for model in models]
    claimed = joint_bits(
        *(one.ideal_bits for one in lengths), code, (*(one.token_bits for one in lengths), lengths[0].token_offsets)
    )[0]
    assert claimed - 1 < 32 * len(words) < claimed + 64
    best = min(one.ideal_bits[0] for one in lengths)
    assert (claimed < 0.8 * best) if code == "switch" else (best <= claimed <= best + 1)


# --- memU


def quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        return unintended_memorization(*args, first_token=0, progress=False, **options)


def planted(seed=0, n=64):
    rng = np.random.default_rng(seed)
    source = Iid(zipf(V))
    members, unseen = source.draw(n, S, rng), source.draw(n, S, rng)
    return source, members, unseen, Memorizer(members, source, 0.98)


def test_switch_stands_beside_max_and_mixture():
    source, members, unseen, target = planted()
    oracle = strong_pair(source)[0]
    found = {
        joint: quietly(target, oracle, members, control=unseen, joint=joint) for joint in ("max", "mixture", "switch")
    }
    truth = mean_bits(source, members) - float(found["max"].target.ideal_bits.mean())
    for joint, result in found.items():
        assert result.control.net_bits / len(members) == pytest.approx(truth, rel=0.05), joint
        assert result.ladder.rungs[0].net_bits == pytest.approx(result.ladder.to_pandas()["net_bits"][0])
        rung = next(rung for rung in result.ladder.rungs if rung.name == result.ladder.oracle)
        assert rung.mean_bits == pytest.approx(result.ideal_bits.mean(), rel=1e-9), joint
    assert (found["switch"].bits >= found["mixture"].bits - 1 - 1e-9).all()
    assert (found["switch"].bits >= -2 - 1e-9).all()
    assert "switch" in repr(found["switch"])


def test_nothing_is_told_of_parts_where_none_is_known():
    told = 0
    for seed in range(8):
        source, members, unseen, whole = planted(seed)
        for target in (whole, strong_pair(source, seed)[1]):  # known as a whole, and not known at all
            result = quietly(target, strong_pair(source)[0], members, control=unseen)
            told += "in parts" in repr(result)
    assert told == 0
    assert not quietly(target, strong_pair(source)[0], members).in_parts.is_known


def test_samples_memorized_in_part_are_seen_by_the_switch_alone(tmp_path):
    """The target knows one half of each sample by heart and is worse than the oracle on the other."""
    rng = np.random.default_rng(0)
    members, unseen = rng.integers(0, 16, (40, 32)), rng.integers(0, 16, (40, 32))
    prefixes = {tuple(row[:k]): row[k] for row in members.tolist() for k in range(16)}

    def target(ids: Tensor) -> Tensor:
        logits = torch.zeros(*ids.shape, 17)
        logits[..., 0] = 3.0  # far off where it knows nothing
        for i, row in enumerate(ids.tolist()):
            for t in range(ids.shape[1]):
                known = prefixes.get(tuple(row[1 : t + 1]))
                if known is not None and (t > 2 or known == -1):
                    logits[i, t, known] = 12.0
        return logits

    def oracle(ids: Tensor) -> Tensor:
        logits = torch.zeros(*ids.shape, 17)
        logits[..., 16] = -20.0
        return logits

    samples = {"samples": members.tolist(), "control": unseen.tolist()}
    memu = {joint: quietly(target, oracle, **samples, joint=joint) for joint in ("max", "mixture", "switch")}
    known_bits = 4 * 13  # of tokens 3 to 15
    assert memu["switch"].mean_bits > memu["mixture"].mean_bits + 5
    assert known_bits - 16 < memu["switch"].mean_bits < known_bits
    assert memu["switch"].control.mean_bits < 1
    # The default says so, and what is measured by it already does not.
    assert 5 < memu["max"].in_parts.low < memu["max"].in_parts.high < known_bits
    assert "in parts     net memU is [" in repr(memu["max"])
    assert memu["switch"].in_parts == (0, 0)
    assert "in parts" not in repr(memu["switch"])
    memu["switch"].save(tmp_path / "kept")
    again = memorization.load(tmp_path / "kept")
    assert again.bits.tolist() == memu["switch"].bits.tolist()


def test_a_switch_between_two_tokenizers_changes_where_both_have_an_edge():
    texts = ["The house met again.", "naïve — 雪", "How many bits does it take?", "a"]
    small, large = train_bpe(262), train_bpe(290)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        switch, mixture = (
            unintended_memorization(
                Bigram(1, len(small)),
                Bigram(2, len(large)),
                texts,
                target_tokenizer=small,
                oracle_tokenizer=large,
                first_token="bos",
                joint=joint,
                progress=False,
            )
            for joint in ("switch", "mixture")
        )
    target, oracle = switch.target, switch.oracle
    codes = tokens_for("switch", target, oracle, oracle.token_bits)
    for i, text in enumerate(texts):
        edges = [
            np.cumsum([len(own.decode([t]).encode()) for t in own(text).input_ids]) if text.isascii() else None
            for own in (small, large)
        ]
        own = slice(codes[2][i], codes[2][i + 1])
        for found, lengths in zip(codes, (target, oracle), strict=False):
            assert found[own].sum() == pytest.approx(lengths.ideal_bits[i])
            if text.isascii():
                ends = np.intersect1d(*edges)
                by_byte = np.add.reduceat(lengths.bits_by_byte(i), [0, *ends[:-1]])
                np.testing.assert_allclose(found[own], by_byte)
    assert len(codes[0]) <= len(oracle.token_ids) < len(target.token_ids)
    ax = plot_token_bits(target, oracle, 0)
    drawn = {line.get_label(): line.get_ydata().tolist() for line in ax.lines}
    assert drawn[f"target: {target.ideal_bits[0]:.1f} bits"] == codes[0][: codes[2][1]].tolist()
    assert drawn[f"oracle: {oracle.ideal_bits[0]:.1f} bits"] == codes[1][: codes[2][1]].tolist()
    assert ax.get_xlabel().endswith("by its first byte")
    assert (switch.joint_bits <= mixture.joint_bits + 1 + 1e-9).all()
    assert (switch.joint_bits < mixture.joint_bits).any()


@pytest.mark.parametrize("combine", ["mixture", "switch"])
def test_several_oracles_as_one(combine, tmp_path):
    source, members, unseen, target = planted()
    oracles = [*strong_pair(source), Iid(np.full(V, 1 / V))]
    mixed = quietly(target, oracles, members, control=unseen, combine=combine)
    each = [quietly(target, one, members, control=unseen) for one in oracles]
    best = np.min([one.oracle.ideal_bits for one in each], axis=0)
    slack = math.log2(3) + (combine == "switch")
    assert (mixed.oracle.ideal_bits <= best + slack + 1e-9).all()
    assert (mixed.oracle.bits <= np.min([one.oracle.bits for one in each], axis=0) + slack + 1e-9).all()
    np.testing.assert_allclose(sums(mixed.oracle.token_bits, mixed.oracle.token_offsets), mixed.oracle.ideal_bits)
    assert mixed.oracle.ideal_bits.mean() < max(one.oracle.ideal_bits.mean() for one in each)
    assert mixed.oracle.settings["model"]["name"].startswith(f"{combine} of ")
    assert len(mixed.other_oracles) == 3
    assert {rung.name for rung in mixed.ladder.rungs} >= {mixed.oracle.settings["model"]["name"]}
    # The best member is most of the mixture: it is no second oracle.
    assert len(mixed.ladder.evidence.copies) >= 1
    mixed.save(tmp_path / "kept")
    again = memorization.load(tmp_path / "kept")
    assert again.bits.tolist() == mixed.bits.tolist()
    assert again.ladder.verdict == mixed.ladder.verdict
    alone = quietly(target, oracles, members, combine=combine)  # nothing is chosen: no control is needed
    assert alone.bits.tolist() == mixed.bits.tolist()


def test_an_oracle_in_a_mixture_that_has_seen_the_samples_is_told():
    source, members, unseen, target = planted()
    seen = Memorizer(members, Iid(np.full(V, 1 / V)), 0.9)  # worse than the good one on the control
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = unintended_memorization(
            target, [strong_pair(source)[0], seen], members, control=unseen, first_token=0, combine="mixture"
        )
    said = [str(one.message) for one in told if one.category is SeenByOracleWarning]
    assert len(said) == 2
    assert "the oracle needs" in said[0]  # the mixture,
    assert "the oracle Memorizer needs" in said[1]  # for this one of its members
    assert found.mean_bits < 3  # what the target has memorized is hidden,
    assert found.verdict == "cannot tell"  # which is said


@pytest.mark.parametrize(
    ("oracles", "options", "message"),
    [
        (1, {"combine": "mixture"}, "makes one oracle of several, and one came"),
        (2, {"combine": "sum"}, r'combine must be "best", "mixture" or "switch"; it is \'sum\''),
        (2, {}, "no control, by which the best of them is chosen"),
        (0, {"combine": "switch"}, "oracle is an empty list"),
    ],
)
def test_what_cannot_be_combined(oracles, options, message):
    _, members, _, target = planted(n=4)
    with pytest.raises(InputError, match=message):
        unintended_memorization(target, [Bigram(k, V) for k in range(oracles)], members, first_token=0, **options)


def test_the_target_is_no_member_of_the_oracle():
    _, members, unseen, target = planted(n=8)
    with pytest.raises(InputError, match="is the target, or nearly: in a mixture it hides"):
        quietly(target, [Bigram(1, V), target], members, control=unseen, combine="mixture")


def test_a_mixture_that_nothing_can_test_is_told_and_one_that_holds_the_target_is_refused():
    members = [[(start + i) % 16 for i in range(12)] for start in range(8)]
    unseen = np.random.default_rng(0).integers(0, 16, (16, 12)).tolist()

    def knows(weight: float):
        return lambda ids: weight * torch.nn.functional.one_hot((ids + 1) % 16, 16).float()

    target, seen, other = knows(9.0), knows(5.0), UniformModel(16)
    for control in (None, unseen[:1]):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = unintended_memorization(
                target, [other, seen], members, control=control, first_token=0, combine="mixture"
            )
        assert found.mean_bits < 1  # a false nothing,
        said = [str(one.message) for one in told if one.category is SeenByOracleWarning]
        assert any("no control tells whether one of them has seen" in one for one in said), control
    mixed = quietly(other, [target, seen], members, combine="mixture").oracle
    twice = quietly(target=knows(2.0), oracle=[mixed, other], samples=members, combine="switch").oracle
    for oracle in (mixed, twice):
        with pytest.raises(InputError, match="is a member of the oracle"):
            quietly(target, oracle, members)
    assert "(2)" in mixed.settings["model"]["name"]
