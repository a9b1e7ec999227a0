"""Attacks against arithmetic by hand; metrics against counting pairs and thresholds one by one; what intervals cover; refusals."""

import dataclasses
import math
import sys
import warnings
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from saved_folders import as_saved_by_0_1_0
from scipy.stats import false_discovery_control
from torch import Tensor

from memorization import CodeLengths, UniformModel, compress_bits, unintended_memorization
from memorization.data import addresses
from memorization.errors import InputError, MeasurementWarning, ResultError, SplitLeakWarning, UnequalSetsWarning
from memorization.membership import (
    BagOfWords,
    Membership,
    bag_of_words_auc,
    check_disjoint,
    loss_attack,
    membership_metrics,
    min_k_attack,
    min_k_plus_plus_attack,
    reference_attack,
    token_moments,
    zlib_attack,
    zlib_bits,
)
from memorization.stats.levels import Interval

IDS = [[1, 2, 3, 4, 5, 6, 7], [8, 9, 2], [4], [5, 5, 5, 5, 1, 0, 3, 2, 9, 9, 1]]
SCORES = st.lists(st.integers(-4, 4).map(float), min_size=2, max_size=12)


class Pairs:
    """A bigram model with random logits."""

    def __init__(self, seed: int, vocab_size: int = 10):
        generator = np.random.default_rng(seed)
        self.logits = torch.from_numpy(generator.normal(scale=1.5, size=(vocab_size, vocab_size))).float()

    def __call__(self, ids: Tensor) -> Tensor:
        return self.logits[ids]


def rows(lengths: CodeLengths) -> list[np.ndarray]:
    return np.split(lengths.token_bits, lengths.token_offsets[1:-1])


def measured(members, nonmembers, **options) -> Membership:
    """Without the warning that the sets differ in size, which has its own test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnequalSetsWarning)
        return membership_metrics(members, nonmembers, **options)


# --- attacks


def test_loss_is_minus_bits_per_token():
    lengths = compress_bits(Pairs(1), IDS)
    np.testing.assert_allclose(loss_attack(lengths), [-row.mean() for row in rows(lengths)])
    assert loss_attack(compress_bits(UniformModel(16), [[1], [2, 3]])).tolist() == [-4, -4]


def test_reference_is_signed_memu():
    target, oracle = compress_bits(Pairs(1), IDS), compress_bits(Pairs(2), IDS)
    expected = unintended_memorization(Pairs(1), Pairs(2), IDS).ideal_signed_bits
    np.testing.assert_allclose(reference_attack(target, oracle), expected)
    np.testing.assert_allclose(
        reference_attack(target, oracle), [o.sum() - t.sum() for t, o in zip(rows(target), rows(oracle), strict=True)]
    )
    assert (reference_attack(oracle, target) == -reference_attack(target, oracle)).all()  # signed, never clipped
    assert reference_attack(target, target).tolist() == [0] * 4
    with pytest.raises(ResultError, match="the oracle's CodeLengths are of other samples"):
        reference_attack(target, compress_bits(Pairs(2), IDS[::-1]))
    with pytest.raises(InputError, match="code the samples in different tokens"):
        reference_attack(target, dataclasses.replace(oracle, n_tokens=oracle.n_tokens - 1))


def test_zlib_bits_are_those_of_its_highest_level():
    text = " ".join(addresses()[5])
    assert zlib_bits([text]) == 8 * len(zlib.compress(text.encode(), 9)) < 8 * len(zlib.compress(text.encode(), 6))


def test_zlib_divides_by_compressed_bits(bpe_tokenizer):
    texts = ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "The house met and adjourned.", "naïve — 雪"]
    lengths = compress_bits(UniformModel(300), texts, tokenizer=bpe_tokenizer)
    packed = [len(zlib.compress(text.encode(), 9)) for text in texts]
    np.testing.assert_allclose(zlib_attack(lengths, texts), -lengths.ideal_bits / (8 * np.array(packed)))
    with pytest.raises(ResultError, match=r"the CodeLengths are of other samples: 3 from .* were measured, and 2 from"):
        zlib_attack(lengths, texts[:2])
    with pytest.raises(ResultError, match="order included"):
        zlib_attack(lengths, texts[::-1])
    with pytest.raises(InputError, match="these samples are token ids"):
        zlib_attack(lengths, IDS)


@given(k_percent=st.integers(1, 100))
def test_min_k_by_sorting(k_percent):
    lengths = compress_bits(Pairs(1), IDS)
    expected = []
    for row in rows(lengths):
        k = max(1, len(row) * k_percent // 100)
        expected.append(-np.mean(sorted(row, reverse=True)[:k]))
    np.testing.assert_allclose(min_k_attack(lengths, k_percent=float(k_percent)), expected)


def test_min_k_at_its_ends():
    lengths = compress_bits(Pairs(1), IDS)
    np.testing.assert_allclose(min_k_attack(lengths, k_percent=100.0), loss_attack(lengths))
    # int(1 x 20 %) is 0: one token counts all the same.
    np.testing.assert_allclose(min_k_attack(lengths, k_percent=0.001), [-row.max() for row in rows(lengths)])
    assert min_k_attack(lengths)[2] == pytest.approx(-rows(lengths)[2][0])
    # 20 % of 10 are 2, of 11 still.
    eleven = rows(lengths)[3]
    assert min_k_attack(lengths)[3] == pytest.approx(-np.sort(eleven)[-2:].mean())
    for k_percent in (0.0, -1.0, 100.5, math.nan):
        with pytest.raises(InputError, match="k_percent must lie above 0 and at most at 100"):
            min_k_attack(lengths, k_percent=k_percent)


def test_moments_of_a_bigram_model_by_hand():
    model = Pairs(3)
    lengths = compress_bits(model, IDS)
    mean_bits, sd_bits = token_moments(model, lengths)
    share = np.exp(model.logits.double().numpy())
    share /= share.sum(axis=1, keepdims=True)
    entropy = -(share * np.log2(share)).sum(axis=1)
    spread = np.sqrt((share * (np.log2(share) + entropy[:, None]) ** 2).sum(axis=1))
    for ids, start in zip(IDS, lengths.token_offsets, strict=False):
        assert mean_bits[start] == pytest.approx(math.log2(10))  # a uniform first token
        assert sd_bits[start] == 0
        np.testing.assert_allclose(mean_bits[start + 1 : start + len(ids)], entropy[ids[:-1]], rtol=1e-5)
        np.testing.assert_allclose(sd_bits[start + 1 : start + len(ids)], spread[ids[:-1]], rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"first_token": 3}, {"max_length": 4, "stride": 2}, {"max_length": 3, "stride": 3}]
)
def test_moments_follow_windows_and_the_first_token(tiny_gpt2, options):
    """What the model sees is what it saw: the tokens' own bits come out again, or ResultError would."""
    ids = [np.random.default_rng(0).integers(0, 300, n).tolist() for n in (11, 1, 4)]
    lengths = compress_bits(tiny_gpt2, ids, **options)
    mean_bits, sd_bits = token_moments(tiny_gpt2, lengths)
    assert mean_bits.shape == sd_bits.shape == lengths.token_bits.shape
    whole = compress_bits(tiny_gpt2, ids, first_token=options.get("first_token", "auto"))
    moved = token_moments(tiny_gpt2, whole)[0] != mean_bits
    assert moved.any() == ("stride" in options)


def test_moments_of_masked_tokens_are_finite():
    class Masked(Pairs):
        def __call__(self, ids: Tensor) -> Tensor:
            logits = self.logits[ids].clone()
            logits[..., 7] = -math.inf
            return logits

    ids = [[1, 2, 3, 4]]
    mean_bits, sd_bits = token_moments(Masked(3), compress_bits(Masked(3), ids))
    assert np.isfinite(mean_bits).all()
    assert np.isfinite(sd_bits).all()


def test_moments_of_another_model_are_refused():
    lengths = compress_bits(Pairs(1), IDS)
    with pytest.raises(ResultError, match=r"the tokens cost other bits than in the CodeLengths, by .* a token"):
        token_moments(Pairs(2), lengths)
    with pytest.raises(InputError, match='Measure with first_token="uniform"'):
        token_moments(Pairs(1), compress_bits(Pairs(1), [[1, 2]], first_token="skip"))


def test_min_k_plus_plus_by_hand():
    lengths = compress_bits(Pairs(1), IDS)
    mean_bits, sd_bits = token_moments(Pairs(1), lengths)
    expected = []
    for i, row in enumerate(rows(lengths)):
        places = slice(*lengths.token_offsets[i : i + 2])
        z = [
            (m - b) / s if s else 0.0 for b, m, s in zip(row, mean_bits[places], sd_bits[places], strict=True)
        ]  # -bits + mean
        expected.append(np.mean(sorted(z)[: max(1, len(z) * 40 // 100)]))
    np.testing.assert_allclose(min_k_plus_plus_attack(lengths, mean_bits, sd_bits, k_percent=40.0), expected)


@pytest.mark.usefixtures("no_type_checker")
def test_min_k_plus_plus_refusals():
    lengths = compress_bits(Pairs(1), [[1, 2, 3]])
    good = np.ones(3)
    with pytest.raises(InputError, match=r"sd_bits holds one entry a coded token, 3 in all; its shape is \[2\]"):
        min_k_plus_plus_attack(lengths, good, np.ones(2))
    for name, arrays in (("mean_bits", (good * math.nan, good)), ("sd_bits", (good, -good))):
        with pytest.raises(InputError, match=f"{name} must be finite and at least 0; entry 0"):
            min_k_plus_plus_attack(lengths, *arrays)


def test_a_model_that_memorized_is_found_by_every_attack():
    """Members follow the target's own bigrams; others are uniform."""
    target, oracle, draw = Pairs(5), UniformModel(10), np.random.default_rng(0)
    share = np.exp(target.logits.double().numpy())
    share /= share.sum(axis=1, keepdims=True)

    def walk(own: bool) -> list[int]:
        ids = [int(draw.integers(10))]
        while len(ids) < 40:
            ids.append(int(draw.choice(10, p=share[ids[-1]] if own else None)))
        return ids

    scores = []
    for own in (True, False):
        ids = [walk(own) for _ in range(40)]
        lengths = compress_bits(target, ids)
        moments = token_moments(target, lengths)
        oracle_lengths = compress_bits(oracle, ids)
        scores.append(
            [
                loss_attack(lengths),
                reference_attack(lengths, oracle_lengths),
                min_k_attack(lengths),
                min_k_plus_plus_attack(lengths, *moments),
            ]
        )
    for members, nonmembers in zip(*scores, strict=True):
        assert membership_metrics(members, nonmembers).auc > 0.9


# --- metrics against counting


def auc_by_pairs(members, nonmembers) -> float:
    return float(np.mean([[(m > n) + 0.5 * (m == n) for n in nonmembers] for m in members]))


def f1_by_orders(members, nonmembers) -> float:
    """Mean F1 over random orders of the tied: the n highest of 2n are taken for members."""
    n = len(members)
    labels = np.array([True] * n + [False] * n)
    scores = np.array([*members, *nonmembers])
    edge = np.sort(scores)[::-1][n - 1]
    above, at = scores > edge, scores == edge
    expected = labels[above].sum() + labels[at].mean() * (n - above.sum())
    precision, recall = expected / n, expected / n
    return 2 * precision * recall / (precision + recall) if expected else 0.0


@given(members=SCORES, nonmembers=SCORES)
def test_auc_counts_pairs(members, nonmembers):
    assert measured(members, nonmembers).auc == pytest.approx(auc_by_pairs(members, nonmembers), abs=1e-12)


@given(pairs=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=10))
def test_f1_and_accuracy_by_brute_force(pairs):
    members, nonmembers = ([float(x) for x in side] for side in zip(*pairs, strict=True))
    result = membership_metrics(members, nonmembers)
    assert result.f1 == pytest.approx(f1_by_orders(members, nonmembers))
    thresholds = [*members, *nonmembers, math.inf]
    accuracies = [np.mean([*(m >= t for m in members), *(n < t for n in nonmembers)]) for t in thresholds]
    assert result.best_accuracy == pytest.approx(max(accuracies))


def test_f1_without_ties_is_precision_recall_and_accuracy():
    draw = np.random.default_rng(0)
    members, nonmembers = draw.normal(size=50) + 0.7, draw.normal(size=50)
    threshold = np.median([*members, *nonmembers])
    true, false = (members > threshold).sum(), (nonmembers > threshold).sum()
    f1 = 2 * true / (2 * true + false + (50 - true))
    assert membership_metrics(members, nonmembers).f1 == pytest.approx(f1)
    assert f1 == pytest.approx(true / 50)
    assert f1 == pytest.approx(((members > threshold).sum() + (nonmembers <= threshold).sum()) / 100)


def test_f1_of_the_tied_is_the_mean_over_their_orders():
    members, nonmembers = [3.0, 2, 2, 2, 0], [2.0, 2, 1, 1, 0]
    draw, found = np.random.default_rng(0), []
    for _ in range(4000):
        jitter = draw.uniform(0, 0.1, 10)
        scores = np.array([*members, *nonmembers]) + jitter
        found.append((np.argsort(-scores)[:5] < 5).mean())
    assert membership_metrics(members, nonmembers).f1 == pytest.approx(np.mean(found), abs=0.01)
    assert membership_metrics(members, nonmembers).f1 == pytest.approx((1 + 3 * 4 / 5) / 5)


def test_all_scores_equal_is_chance_with_unknown_error():
    result = membership_metrics([1.0] * 30, [1.0] * 30)
    assert (result.f1, result.auc, result.best_accuracy) == (0.5, 0.5, 0.5)
    assert np.isnan([*result.f1_interval, *result.auc_interval]).all()
    assert result.tpr[0.05] == 0


@pytest.mark.parametrize("n_nonmembers", [20, 60, 100, 2900])
@pytest.mark.parametrize("ties", [False, True])
def test_tpr_by_every_threshold(n_nonmembers, ties):
    draw = np.random.default_rng(n_nonmembers)
    members, nonmembers = draw.normal(size=n_nonmembers) + 1, draw.normal(size=n_nonmembers)
    if ties:
        members, nonmembers = np.round(members, 1), np.round(nonmembers, 1)
    result = membership_metrics(members, nonmembers)
    for fpr, numerator in ((0.001, 1), (0.01, 10), (0.05, 50)):
        if n_nonmembers * numerator < 1000:
            assert math.isnan(result.tpr[fpr])
            assert np.isnan(result.tpr_interval[fpr]).all()
            continue
        thresholds = [*np.unique([*members, *nonmembers]), math.inf]
        legal = [t for t in thresholds if 1000 * int((nonmembers >= t).sum()) <= numerator * n_nonmembers]
        assert result.tpr[fpr] == max(float((members >= t).mean()) for t in legal)
        low, high = result.tpr_interval[fpr]
        assert 0 <= low <= result.tpr[fpr] <= high <= 1


def test_against_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(1)
    for decimals in (0, 1, 8):
        members, nonmembers = np.round(draw.normal(size=200) + 0.5, decimals), np.round(draw.normal(size=300), decimals)
        result = measured(members, nonmembers)
        labels, scores = np.repeat([1, 0], [200, 300]), np.concatenate([members, nonmembers])
        assert result.auc == pytest.approx(metrics.roc_auc_score(labels, scores))
        fpr, tpr, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
        found, mistaken = result.roc()
        np.testing.assert_allclose(found, tpr)
        np.testing.assert_allclose(mistaken, fpr)
        assert result.tpr[0.05] == pytest.approx(tpr[fpr <= 0.05 + 1e-12].max())


TRANSFORMS = [np.exp, lambda s: s**3, lambda s: 5 * s - 3, lambda s: np.searchsorted(np.arange(-4, 5), s) * 1.0]


@given(members=SCORES, nonmembers=SCORES, transform=st.sampled_from(TRANSFORMS), order=st.randoms())
def test_increasing_transforms_and_order_change_nothing(members, nonmembers, transform, order):
    one = measured(members, nonmembers)
    members, nonmembers = list(members), list(nonmembers)
    order.shuffle(members)
    order.shuffle(nonmembers)
    other = measured(transform(np.array(members)), transform(np.array(nonmembers)))
    for name in ("f1", "auc", "best_accuracy", "f1_interval", "auc_interval", "best_accuracy_interval"):
        np.testing.assert_equal(getattr(other, name), getattr(one, name), name)  # NaN equals NaN
    np.testing.assert_equal(other.tpr, one.tpr)
    np.testing.assert_equal(other.tpr_interval, one.tpr_interval)


@given(pairs=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=10))
def test_turned_scores_turn_auc_and_f1(pairs):
    members, nonmembers = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    one, turned = membership_metrics(members, nonmembers), membership_metrics(-members, -nonmembers)
    assert turned.auc == pytest.approx(1 - one.auc)
    assert turned.f1 == pytest.approx(1 - one.f1)


# --- intervals


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("n_trials", [50, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("distance", [0.0, 1.0])
def test_intervals_cover(distance, n_trials):
    """Normal scores, unit variance: F1 = Phi(d / 2), AUC = Phi(d / sqrt 2), TPR = Phi(d - z)."""
    from scipy.stats import norm

    truth = [norm.cdf(distance / 2), norm.cdf(distance / math.sqrt(2)), norm.cdf(distance / 2)]
    at_5 = norm.sf(norm.isf(0.05) - distance)
    covered, values = [], []
    for trial in range(n_trials):
        draw = np.random.default_rng(trial)
        result = membership_metrics(draw.normal(size=40) + distance, draw.normal(size=40), seed=trial)
        intervals = [result.f1_interval, result.auc_interval, result.best_accuracy_interval, result.tpr_interval[0.05]]
        covered.append([low <= t <= high for (low, high), t in zip(intervals, [*truth, at_5], strict=True)])
        values.append([result.f1, result.auc, result.best_accuracy])
    share = np.mean(covered, axis=0)
    print(f"distance {distance}: 95 % intervals of F1, AUC, best accuracy, TPR cover {share} of {n_trials}")
    reach = 2 * math.sqrt(0.95 * 0.05 / n_trials)
    assert (share >= 0.95 - reach).all()
    mean = np.mean(values, axis=0)
    # F1 and AUC of 40 and 40 scores scatter by 0.065 at most.
    np.testing.assert_allclose(mean[:2], truth[:2], atol=2.8 * 0.065 / math.sqrt(n_trials))
    assert mean[2] > truth[2] + 0.02  # optimistic


def test_intervals_narrow_as_samples_grow_and_widen_with_the_level():
    draw = np.random.default_rng(0)
    members, nonmembers = draw.normal(size=800) + 0.5, draw.normal(size=800)
    widths = {}
    for n, level in ((50, 0.95), (800, 0.95), (800, 0.5)):
        result = membership_metrics(members[:n], nonmembers[:n], level=level)
        intervals = [result.f1_interval, result.auc_interval, result.best_accuracy_interval, result.tpr_interval[0.05]]
        widths[n, level] = np.array([high - low for low, high in intervals])
    assert (widths[50, 0.95] > widths[800, 0.95]).all()
    assert (widths[800, 0.95] > widths[800, 0.5]).all()
    # Hanley and McNeil's standard error, to 10 %.
    auc = membership_metrics(members, nonmembers).auc
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    stderr = math.sqrt((auc * (1 - auc) + 799 * (q1 - auc**2 + q2 - auc**2)) / 800**2)
    assert widths[800, 0.95][1] == pytest.approx(2 * 1.96 * stderr, rel=0.1)


def test_perfect_separation_has_an_interval():
    result = membership_metrics([2.0, 3, 4, 5, 6] * 4, [1.0, 0, -1, -2, -3] * 4)
    assert (result.f1, result.auc, result.best_accuracy, result.tpr[0.05]) == (1, 1, 1, 1)
    exact = 0.025 ** (1 / 20)  # Clopper and Pearson, 20 of 20
    assert result.f1_interval == result.auc_interval == (pytest.approx(exact), 1.0)
    assert result.best_accuracy_interval[0] < exact
    turned = membership_metrics([1.0, 0] * 10, [2.0, 3] * 10)
    assert (turned.f1, turned.auc) == (0, 0)
    assert turned.auc_interval == (0.0, pytest.approx(1 - exact))
    assert turned.best_accuracy == 0.5


def test_the_seed_is_all_that_is_random():
    members, nonmembers = np.arange(20.0), np.arange(20.0) - 3.5
    one = membership_metrics(members, nonmembers)
    assert membership_metrics(members, nonmembers).auc_interval == one.auc_interval
    other = membership_metrics(members, nonmembers, seed=1)
    assert other.auc_interval != one.auc_interval
    assert (other.auc, other.f1) == (one.auc, one.f1)


# --- unequal sets


def test_unequal_sets_are_balanced_and_named():
    draw = np.random.default_rng(2)
    members, nonmembers = draw.normal(size=30) + 1, draw.normal(size=150)
    with pytest.warns(UnequalSetsWarning, match=r"30 members and 150 non-members: .* 30 of each, chosen at random"):
        result = membership_metrics(members, nonmembers)
    assert result.settings["n_each"] == 30
    assert result.auc == pytest.approx(auc_by_pairs(members, nonmembers))  # of all
    assert "(30 of each)" in repr(result)
    assert issubclass(UnequalSetsWarning, MeasurementWarning)
    chosen = [measured(members, nonmembers, seed=seed).f1 for seed in range(30)]
    assert len(set(chosen)) > 1
    # Over choices F1 is that of the two distributions: Phi(1/2) = 0.69.
    assert np.mean(chosen) == pytest.approx(0.69, abs=0.08)
    turned = [measured(nonmembers, members, seed=seed).f1 for seed in range(30)]
    assert np.mean(turned) == pytest.approx(1 - np.mean(chosen), abs=0.03)


@pytest.mark.usefixtures("no_type_checker")
def test_random_labels_of_unequal_sets_give_one_half():
    f1 = [
        measured(draw.normal(size=20), draw.normal(size=200)).f1
        for draw in (np.random.default_rng(seed) for seed in range(60))
    ]
    assert np.mean(f1) == pytest.approx(0.5, abs=0.04)


# --- refusals


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"member_scores": [1.0]}, r"member_scores must be a flat array of at least two numbers.*\[1\]"),
        ({"nonmember_scores": []}, r"nonmember_scores must be a flat array of at least two numbers.*\[0\]"),
        ({"nonmember_scores": [[1.0, 2.0]]}, r"its shape is \[1, 2\]"),
        ({"member_scores": [1.0, math.nan, math.inf]}, r"member_scores must be finite; entry 1 is nan \(2 such\)"),
        ({"nonmember_scores": ["a", "b"]}, "nonmember_scores must be a flat array of numbers"),
        ({"level": 95}, "level must be a number between 0 and 1"),
        ({"level": 1.0}, "level must be a number between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        membership_metrics(**{"member_scores": [1.0, 2.0], "nonmember_scores": [0.0, 1.0], **options})


def test_a_sample_on_both_sides_is_named():
    with pytest.raises(InputError, match=r"sample 2 is also control sample 1: 'b' \(2 of 4 samples are in both\)"):
        check_disjoint(["x", "y", "b", "c"], ["a", "b", "c", "b"])
    with pytest.raises(InputError, match=r"sample 1 is also control sample 0: \(1, 2\)"):
        check_disjoint([[1], [1, 2]], [[1, 2], [2, 1]])
    with pytest.raises(InputError, match="samples are texts and control samples token ids"):
        check_disjoint(["a"], [[1, 2]])
    check_disjoint([[1, 2]], [[2, 1], [12]])
    check_disjoint(["ab"], ["a b", "AB"])


# --- the split


def drawn_ids(seed: int, n: int = 40, shift: int = 0) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return (draw.integers(0, 50, (n, 20)) + shift).tolist()


def test_a_split_by_topic_leaks():
    pytest.importorskip("sklearn")
    with pytest.warns(SplitLeakWarning, match=r"word counts alone tell samples .* AUC of .*Draw both from one source"):
        result = bag_of_words_auc(drawn_ids(0), drawn_ids(1, shift=10))
    assert result.leaks
    assert result.auc > 0.9
    assert (result.n_members, result.n_nonmembers, result.n_words) == (40, 40, 60)
    texts = [f"a report of 2023, {i}" for i in range(30)], [f"a report of 2024, {i}" for i in range(100, 140)]
    with pytest.warns(SplitLeakWarning):
        assert bag_of_words_auc(*texts).auc > 0.95


def test_a_random_split_does_not_leak():
    """The classifier is asked about samples it has not seen: otherwise counts of 50 ids would tell 80 samples apart."""
    pytest.importorskip("sklearn")
    results = [bag_of_words_auc(drawn_ids(seed), drawn_ids(1000 + seed)) for seed in range(25)]
    assert sum(result.leaks for result in results) == 0
    assert np.mean([result.auc for result in results]) == pytest.approx(0.5, abs=0.05)
    covered = [result.auc_interval[0] <= 0.5 <= result.auc_interval[1] for result in results]
    assert np.mean(covered) >= 0.9
    again = bag_of_words_auc(drawn_ids(0), drawn_ids(1000))
    assert again == results[0]
    assert again == bag_of_words_auc(np.array(drawn_ids(0)), torch.tensor(drawn_ids(1000)))


def test_words_of_one_letter_count():
    pytest.importorskip("sklearn")
    with pytest.warns(SplitLeakWarning):
        result = bag_of_words_auc([f"a {i}" for i in range(20)], [f"b {i}" for i in range(20)])
    assert result.n_words == 22


def test_refusals_of_the_control():
    pytest.importorskip("sklearn")
    with pytest.raises(InputError, match="at least 5 samples of each kind; there are 4 samples and 40 control samples"):
        bag_of_words_auc(drawn_ids(0, n=4), drawn_ids(1))
    with pytest.raises(InputError, match="sample 0 is also control sample 0"):
        bag_of_words_auc(drawn_ids(0), drawn_ids(0))
    with pytest.raises(InputError, match="level must be a number"):
        bag_of_words_auc(drawn_ids(0), drawn_ids(1), level=2.0)
    with pytest.raises(InputError, match="hold no word"):
        bag_of_words_auc(["!" * i for i in range(1, 7)], ["?" * i for i in range(1, 7)])


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(InputError, match=r'needs scikit-learn.*pip install "lm-memorization\[audit\]"'):
        bag_of_words_auc(drawn_ids(0), drawn_ids(1))


def test_leaks_at_the_boundary():
    assert not BagOfWords(0.6, Interval(0.5, 0.7), 0.95, 10, 10, 5).leaks
    assert BagOfWords(0.6, Interval(0.501, 0.7), 0.95, 10, 10, 5).leaks


# --- the result


@pytest.fixture(scope="module")
def result() -> Membership:
    draw = np.random.default_rng(3)
    return membership_metrics(draw.normal(size=120) + 1, draw.normal(size=120))


def test_repr(result):
    words = repr(result)
    assert "Membership of 120 members and 120 non-members; 95 % intervals" in words
    assert f"F1           {result.f1:.4g} [{result.f1_interval[0]:.4g}, " in words
    assert "unknown: needs 1,000 non-members at FPR 0.1 %" in words
    assert f"{result.tpr[0.05]:.4g} [" in words
    assert "threshold chosen on the same samples, optimistic" in words
    assert "of each" not in words


def test_save_and_load(result, tmp_path):
    result.save(tmp_path)
    loaded = Membership.load(str(tmp_path))
    for field in dataclasses.fields(Membership):
        np.testing.assert_equal(getattr(loaded, field.name), getattr(result, field.name), field.name)
    assert repr(loaded) == repr(result)
    table = result.to_pandas().set_index("metric")
    assert table.loc["tpr_at_fpr_0.05", "value"] == result.tpr[0.05]
    assert tuple(table.loc["auc"]) == (result.auc, *result.auc_interval)
    as_saved_by_0_1_0(tmp_path)
    table.iloc[1:].reset_index().to_parquet(tmp_path / "metrics.parquet")
    with pytest.raises(ResultError, match=r"metrics\.parquet lacks f1"):
        Membership.load(tmp_path)
    with pytest.raises(ResultError, match="holds no saved Membership"):
        Membership.load(tmp_path / "nowhere")


def test_picture(result):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    try:
        assert result.plot(ax) is ax
        found, mistaken = result.roc()
        floor = 0.7 / max(len(result.member_scores), len(result.nonmember_scores))  # a logarithmic axis has no 0
        np.testing.assert_allclose(ax.lines[0].get_ydata(), found)
        np.testing.assert_allclose(ax.lines[0].get_xdata(), np.maximum(mistaken, floor))
        assert ax.get_xscale() == "log"
        assert f"AUC {result.auc:.3f} [" in ax.get_legend().get_texts()[0].get_text()
        figure.canvas.draw()
    finally:
        plt.close(figure)


def test_each_member_has_a_p_value_and_each_non_member_is_what_it_is_compared_with(result, tmp_path):
    """By the definition; saved; and with documents, each of which counts once."""
    table = result.samples_to_pandas()
    ours, theirs = table[table["member"]], table[~table["member"]]
    n = len(theirs)
    expected = [(1 + np.sum(theirs["score"].to_numpy() >= one)) / (1 + n) for one in ours["score"]]
    np.testing.assert_allclose(ours["p_value"], expected)
    np.testing.assert_allclose(ours["q_value"], false_discovery_control(expected))
    assert theirs[["p_value", "q_value"]].isna().all(axis=None)
    result.save(tmp_path / "out")
    pd.testing.assert_frame_equal(Membership.load(tmp_path / "out").samples_to_pandas(), table)

    scores = [3.0, 1.0], [0.0, 2.0, 2.0, 1.0]
    with pytest.warns(UnequalSetsWarning):
        by_document = membership_metrics(*scores, groups=(["a", "b"], ["c", "c", "c", "d"]))
    assert by_document.samples_to_pandas()["p_value"][:2].tolist() == pytest.approx([(1 + 2 / 3 + 1) / 3, 1 / 3])
    by_document.save(tmp_path / "documents")
    np.testing.assert_array_equal(Membership.load(tmp_path / "documents").member_p_values, by_document.member_p_values)
