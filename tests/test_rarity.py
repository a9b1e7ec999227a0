"""TF-IDF by hand and by counting; duplicates against all pairs; rank correlations from scratch; what intervals cover; refusals."""

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from saved_folders import as_saved_by_0_1_0

from memorization import UniformModel, compress_bits, unintended_memorization
from memorization.errors import InputError, LossyTextError, ResultError
from memorization.rarity import Rarity, deduplicate, duplicate_counts, tfidf_bits, which_samples
from memorization.rarity.duplicates import _shingle_sets, bands_and_rows
from memorization.report.rarity import plot_rarity
from memorization.stats.ranks import partial_spearman, spearman

SETS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=1, max_size=12)


def runs(tokens, n: int) -> set[tuple[int, ...]]:
    """A sample's shingles, as tuples of tokens."""
    n = min(n, len(tokens))
    return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}


def similarity(first, second, n: int) -> float:
    a, b = runs(first, n), runs(second, n)
    return len(a & b) / len(a | b)


def near_by_all_pairs(samples, training, near: float, n: int) -> list[int]:
    return [sum(similarity(sample, other, n) >= near for other in training) for sample in samples]


def different(n_samples: int, n_tokens: int, seed: int = 0) -> np.ndarray:
    """Samples of random tokens, none of which comes twice in a sample."""
    draws = np.random.default_rng(seed)
    return np.array([draws.permutation(10_000)[:n_tokens] for _ in range(n_samples)])


def planted(n_samples: int = 40, noise: float = 0.0, seed: int = 0, n_tokens: int = 16):
    """memU that grows with TF-IDF, and its samples."""
    draws = np.random.default_rng(seed)
    samples = draws.zipf(1.5, (n_samples, n_tokens)) % 500
    memu = np.exp(tfidf_bits(samples)) + noise * draws.normal(size=n_samples)
    return memu, samples


def row(result: Rarity, of: str, other: str):
    table = result.correlations
    return table[(table["of"] == of) & (table["with"] == other)].iloc[0]


# --- TF-IDF


def test_tfidf_by_hand():
    # Of 4 samples: token 1 comes 4 times, 2 twice, 3 once, 9 five times.
    samples = [[1, 1, 1, 3], [2, 1], [2, 9], [9, 9, 9, 9]]
    log = math.log2
    expected = [
        (3 * log(4 / 4) + log(4 / 1)) / 4,
        (log(4 / 2) + log(4 / 4)) / 2,
        (log(4 / 2) + log(4 / 5)) / 2,
        log(4 / 5),
    ]
    np.testing.assert_allclose(tfidf_bits(samples), expected, rtol=1e-15)
    assert tfidf_bits(samples)[3] < 0  # more often than once a sample


def test_tfidf_in_another_training_set():
    # |D| is its number of samples, and token 7, which it lacks, counts as if it came once.
    training = [[1, 1, 2], [2], [1, 1]] + [[3]] * 5
    np.testing.assert_allclose(tfidf_bits([[1], [2, 3], [7], [7, 1]], training), [1, (2 + math.log2(8 / 5)) / 2, 3, 2])
    assert tfidf_bits([[2]], training)[0] < tfidf_bits([[7]], training)[0]
    assert tfidf_bits([[7]], [[7], *training])[0] == tfidf_bits([[8]], [[7], *training])[0] == math.log2(9)


@given(samples=SETS, training=SETS, order=st.randoms(use_true_random=False))
def test_tfidf_by_counting(samples, training, order):
    count = Counter(token for ids in training for token in ids)
    expected = [sum(math.log2(len(training) / max(count[token], 1)) for token in ids) / len(ids) for ids in samples]
    found = tfidf_bits(samples, training)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    places = order.sample(range(len(samples)), len(samples))
    shuffled = order.sample(training, len(training))
    assert (tfidf_bits([samples[i] for i in places], shuffled) == found[places]).all()
    np.testing.assert_array_equal(tfidf_bits(samples), tfidf_bits(samples, samples))


def test_tfidf_of_texts_is_that_of_their_tokens(bpe_tokenizer, model_folder):
    texts = ["The house met.", "A model has seen a sentence, naïve — 雪", "The house"]
    ids = [bpe_tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    expected = tfidf_bits(ids)
    assert (tfidf_bits(texts, tokenizer=bpe_tokenizer) == expected).all()
    assert (tfidf_bits(texts, tokenizer=model_folder) == expected).all()
    assert (tfidf_bits(texts, ids, tokenizer=bpe_tokenizer) == expected).all()  # the same tokens, one way or the other


def test_tfidf_refusals(bpe_tokenizer):
    with pytest.raises(InputError, match="each sample is a text, and the rarity of its tokens needs a tokenizer"):
        tfidf_bits(["a b"])
    with pytest.raises(InputError, match="each training sample is a text"):
        tfidf_bits([[1]], ["a b"])
    with pytest.raises(InputError, match=r"must lie in \[0, 16777216\); that at position 1 of sample 2 is -1"):
        tfidf_bits([[0], [5, 5], [3, -1]])
    with pytest.raises(InputError, match="that at position 0 of training sample 1 is 16777216"):
        tfidf_bits([[0]], [[3], [2**24]])
    assert tfidf_bits([[2**24 - 1], [0]]).tolist() == [1, 1]

    class Deaf:
        def __call__(self, texts, *, add_special_tokens, **_):
            assert not add_special_tokens
            return {"input_ids": [[] if text == "?" else [1] for text in texts]}

        def get_vocab(self):
            return {"a": 1}

    with pytest.raises(InputError, match=r"sample 1 is '\?', of which the tokenizer makes no token; 2 such"):
        tfidf_bits(["a", "?", "?"], tokenizer=Deaf())


# --- duplicates


def test_known_duplicates():
    a, b, c = [1, 2, 3], [1, 2, 4], [5]
    counts = duplicate_counts([a, b, a, c, a])
    assert counts.exact.tolist() == [3, 1, 3, 1, 3]
    assert counts.exact.dtype == counts.near.dtype == np.int64
    # Shorter than a shingle: the whole is one, so nothing resembles but what is equal.
    assert counts.near.tolist() == [3, 1, 3, 1, 3]
    held_out = duplicate_counts([c, [6], a], [a, b, a, [5, 5]])
    assert held_out.exact.tolist() == held_out.near.tolist() == [0, 0, 2]


@pytest.mark.parametrize("n_changed", [1, 2, 3])
def test_planted_near_duplicates(n_changed):
    """Of 64 different tokens k are changed, far from each other and from the ends: 5 k of 60 shingles are others."""
    samples = different(200, 64)
    copies = samples.copy()
    copies[:, 10 : 10 * n_changed + 1 : 10] += 10_000
    jaccard = (60 - 5 * n_changed) / (60 + 5 * n_changed)
    assert similarity(samples[0], copies[0], 5) == jaccard
    for near, found in ((jaccard, 2), (np.nextafter(jaccard, 1), 1)):
        counts = duplicate_counts(np.concatenate([samples, copies]), near=near)
        assert (counts.exact == 1).all()
        assert (counts.near == found).mean() > (0.98 if found == 2 else 0.999)
        assert counts.near.max() == found


@given(samples=SETS, training=SETS, near=st.sampled_from([0.2, 1 / 3, 0.5, 0.8, 1.0]), n=st.integers(1, 4))
def test_duplicates_by_all_pairs(samples, training, near, n):
    counts = duplicate_counts(samples, training, near=near, shingle_tokens=n)
    assert counts.exact.tolist() == [training.count(ids) for ids in samples]
    every = np.array(near_by_all_pairs(samples, training, near, n))
    assert (counts.near <= every).all()  # no false positive
    assert (counts.near >= counts.exact).all()
    if near == 1:  # equal sets of shingles have equal MinHashes: none is missed
        assert (counts.near == every).all()


@given(samples=SETS, order=st.randoms(use_true_random=False))
def test_order_permutes_and_a_copy_counts_one_more(samples, order):
    counts = duplicate_counts(samples, near=0.5, shingle_tokens=2)
    places = order.sample(range(len(samples)), len(samples))
    permuted = duplicate_counts([samples[i] for i in places], near=0.5, shingle_tokens=2)
    assert (permuted.exact == counts.exact[places]).all()
    assert (permuted.near == counts.near[places]).all()
    more = duplicate_counts([*samples, samples[0]], near=0.5, shingle_tokens=2)
    equal = np.array([ids == samples[0] for ids in samples])
    assert (more.exact[:-1] == counts.exact + equal).all()
    assert more.exact[-1] == more.exact[0]
    assert (more.near[:-1][equal] == counts.near[equal] + 1).all()


def test_recall_is_what_is_promised():
    """Pairs right at the threshold, the hardest: 25 of 31 shingles in common."""
    samples = different(1_000, 32)
    copies = samples.copy()
    copies[:, -3:] += 10_000
    near = similarity(samples[0], copies[0], 5)
    assert near == 25 / 31
    missed = []
    for n_permutations, seed in ((128, 0), (90, 0), (90, 1)):
        found = duplicate_counts(samples, copies, near=near, n_permutations=n_permutations, seed=seed).near
        bands, rows = bands_and_rows(near, n_permutations)
        assert abs(found.mean() - (1 - (1 - near**rows) ** bands)) < 0.006
        assert found.mean() > 0.985  # 99.8 and twice 99.2 % are expected
        missed.append(set(np.flatnonzero(found == 0)))
    assert missed[1] != missed[2]  # which are missed is the seed's choice


@pytest.mark.parametrize("near", [0.05, 0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_find_99_percent_and_no_longer_ones_would(near):
    bands, rows = bands_and_rows(near, 128)
    assert bands >= 2
    assert bands * rows <= 128
    assert 1 - (1 - near**rows) ** bands >= 0.99
    longer = rows + 1
    assert longer > 64 or 1 - (1 - near**longer) ** (128 // longer) < 0.99


def test_a_thousand_copies_are_no_million_pairs(monkeypatch):
    from memorization.rarity import duplicates

    compared, jaccard = [], duplicates._jaccard
    monkeypatch.setattr(duplicates, "_jaccard", lambda a, b: compared.append(1) or jaccard(a, b))
    one, other = list(range(32)), [*range(31), 99]
    counts = duplicate_counts([one] * 600 + [other] * 400)
    assert counts.exact.tolist() == [600] * 600 + [400] * 400
    assert counts.near.tolist() == [1000] * 1000
    assert len(compared) == 2


def test_texts_have_shingles_of_words():
    text = "the house met and adjourned and met again"
    other = "the  house\nmet and adjourned and met twice"  # white space is none of the words
    found = duplicate_counts([text, other, text], near=3 / 5)
    assert found.exact.tolist() == [2, 1, 2]
    assert found.near.tolist() == [3, 3, 3]  # three of the four runs of five words, of five in either
    assert duplicate_counts([text, other], near=0.61).near.tolist() == [1, 1]
    assert duplicate_counts([" ", "  ", " "]).near.tolist() == [2, 1, 2]


def test_hashes_are_the_same_in_every_process():
    code = (
        "from memorization.rarity.duplicates import _shingle_sets\nfor part in _shingle_sets({keys!r}, 3): print(*part)"
    )
    keys = [np.array([4, 0, 0, 7, 2**40]).tobytes(), bytes(16), "na\u00efve \u96ea"]
    here = [" ".join(map(str, part.tolist())) for part in _shingle_sets(keys, 3)]
    there = subprocess.run(
        [sys.executable, "-c", code.format(keys=keys)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert there.stdout.splitlines() == here


def test_shingles_differ_where_their_tokens_do(monkeypatch):
    from memorization.rarity import duplicates

    rng = np.random.default_rng(0)
    samples = [rng.integers(0, 40, n) for n in rng.integers(1, 12, 3000)]
    keys = [ids.tobytes() for ids in samples]
    found = list(_shingle_sets(keys, 4))
    spelled, numbers = set(), set()
    for ids, hashes in zip(samples, found, strict=True):
        shingles = {tuple(ids[i : i + 4]) for i in range(max(1, len(ids) - 3))}
        assert len(hashes) == len(shingles)
        spelled |= shingles
        numbers |= set(hashes.tolist())
    assert len(numbers) == len(spelled) > 10_000
    # Zeros only, of different lengths: not the same.
    assert len({hashes[0] for hashes in _shingle_sets([bytes(8 * n) for n in range(1, 6)], 5)}) == 5
    monkeypatch.setattr(duplicates, "_BATCH", 7)  # in whatever company a sample is hashed
    assert all((a == b).all() for a, b in zip(found, _shingle_sets(keys, 4), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"near": 0.0}, "near must be a Jaccard similarity above 0 and at most 1, such as 0.8; it is 0.0"),
        ({"near": 1.001}, "near must be a Jaccard similarity"),
        ({"near": math.nan}, "near must be a Jaccard similarity"),
        ({"shingle_tokens": 0}, "shingle_tokens must be an integer of at least 1; it is 0"),
        (
            {"near": 0.01},
            "with n_permutations=128 only 72 % of the pairs of similarity near=0.01 would be found: raise either",
        ),
    ],
)
def test_options_out_of_range(options, message):
    for call in (lambda: duplicate_counts([[1, 2]], **options), lambda: which_samples([0.0], [[1, 2]], **options)):
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_permutations": 1}, "n_permutations must be an integer of at least 2; it is 1"),
        ({"seed": -1}, r"seed must be an integer of at least 0; it is -1"),
        ({"seed": 2**32}, r"seed must be below 2\^32; it is 4294967296"),
    ],
)
def test_options_of_the_hashes_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        duplicate_counts([[1, 2]], **options)
    with pytest.warns(DeprecationWarning, match="which_samples has no keyword .* any more: it is ignored"):
        which_samples([0.0, 1.0, 2.0], [[1, 2], [2, 1], [1, 1]], **options)


def test_options_at_their_bounds():
    for options in ({"near": 1.0}, {"shingle_tokens": 1}, {"near": 1.0, "n_permutations": 2}, {"seed": 2**32 - 1}):
        assert duplicate_counts([[1, 2], [2, 1], [1, 2]], **options).exact.tolist() == [2, 1, 2]
    assert duplicate_counts([[1, 2], [2, 1]], shingle_tokens=1).near.tolist() == [2, 2]  # the same tokens


def test_texts_against_ids_and_no_datasketch(monkeypatch):
    with pytest.raises(InputError, match="samples are texts and the training set is token ids"):
        duplicate_counts(["a"], [[1]])
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(InputError, match=r'need datasketch, .*: pip install "lm-memorization\[audit\]"'):
        duplicate_counts([[1]])
    assert deduplicate([[1], [1]]).n_dropped == 1  # needs none


# --- de-duplication


def test_deduplicate_keeps_the_first_and_the_kind():
    texts = deduplicate(["b", "a", "b", "B"])
    assert (texts.samples, texts.index.tolist(), texts.n_dropped) == (["b", "a", "B"], [0, 1, 3], 1)

    ragged = deduplicate([[1, 2], [1], [1, 2], [2, 1]])
    assert [ids.tolist() for ids in ragged.samples] == [[1, 2], [1], [2, 1]]
    assert all(ids.dtype == np.int64 for ids in ragged.samples)

    for array in (np.array([[3, 1], [3, 2], [3, 1]], dtype=np.int32), torch.tensor([[3, 1], [3, 2], [3, 1]])):
        square = deduplicate(array)
        assert isinstance(square.samples, np.ndarray)
        assert square.samples.dtype == np.int64
        assert square.samples.tolist() == [[3, 1], [3, 2]]
        assert square.index.tolist() == [0, 1]


def test_deduplicate_after_truncation():
    samples = np.array([[1, 2, 3], [1, 2, 4], [2, 2, 3]])
    assert deduplicate(samples).n_dropped == 0
    cut = deduplicate(samples, n_tokens=2)
    assert cut.samples.tolist() == [[1, 2], [2, 2]]
    assert (cut.index.tolist(), cut.n_dropped) == ([0, 2], 1)
    # What is shorter stays, and is no duplicate of what is longer.
    assert deduplicate([[1], [1, 2, 3], [1, 2, 4], [1, 2]], n_tokens=2).index.tolist() == [0, 1]
    with pytest.raises(InputError, match="n_tokens=2 truncates token ids, and these samples are texts: tokenize them"):
        deduplicate(["ab"], n_tokens=2)
    with pytest.raises(InputError, match="n_tokens must be None or an integer of at least 1; it is 0"):
        deduplicate(samples, n_tokens=0)


@given(samples=SETS, n_tokens=st.none() | st.integers(1, 5))
def test_deduplicate_is_a_set_in_order(samples, n_tokens):
    left = deduplicate(samples, n_tokens=n_tokens)
    kept = [tuple(ids.tolist()) for ids in left.samples]
    assert kept == list(dict.fromkeys(tuple(ids[:n_tokens]) for ids in samples))
    assert [tuple(samples[i][:n_tokens]) for i in left.index] == kept
    assert len(kept) + left.n_dropped == len(samples)
    assert deduplicate(left.samples).n_dropped == 0


# --- rank correlation


def rank(values) -> list[float]:
    """Mean places of each value, ties sharing theirs."""
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


@given(pairs=st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 9)), min_size=4, max_size=25))
def test_rank_correlation_from_scratch(pairs):
    x, y = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    if len(set(x)) == 1 or len(set(y)) == 1:
        return
    a, b = (np.array(rank(side)) - (len(pairs) + 1) / 2 for side in (x, y))
    expected = (a @ b) / math.sqrt((a @ a) * (b @ b))
    rho, (low, high), p_value = spearman(x, y, level=0.95)
    assert rho == pytest.approx(expected, abs=1e-12)
    assert p_value == pytest.approx(scipy.stats.spearmanr(x, y).pvalue if abs(expected) < 1 - 1e-12 else 0, abs=1e-12)
    if abs(expected) > 1 - 1e-12:
        assert math.isnan(low)
        assert math.isnan(high)
    else:
        reach = 1.959963984540054 * math.sqrt((1 + expected**2 / 2) / (len(x) - 3))
        assert low == pytest.approx(math.tanh(math.atanh(expected) - reach), abs=1e-9)
        assert high == pytest.approx(math.tanh(math.atanh(expected) + reach), abs=1e-9)
        assert -1 <= low < rho < high <= 1


@pytest.mark.parametrize("r", [0.0, 0.6, 0.9])
def test_intervals_cover(r):
    """Pairs of normal variables; Pearson's 1907 formula gives their rho."""
    truth = 6 / math.pi * math.asin(r / 2)
    draws = np.random.default_rng(0)
    held = below = 0
    for _ in range(400):
        x = draws.normal(size=40)
        y = r * x + math.sqrt(1 - r**2) * draws.normal(size=40)
        _, (low, high), p_value = spearman(x, y, level=0.9)
        held += low <= truth <= high
        below += p_value < 0.05
    assert abs(held / 400 - 0.9) < 0.045  # three standard errors
    assert below / 400 < 0.083 if r == 0 else below / 400 > 0.9


@given(st.lists(st.tuples(*[st.integers(-4, 4)] * 3), min_size=5, max_size=25))
def test_partial_rank_correlation_from_scratch(triples):
    """By the formula of three correlations, which the code does not use."""
    x, y, z = (np.array(side, dtype=float) for side in zip(*triples, strict=True))
    if min(len(set(side)) for side in (x, y, z)) == 1:
        return
    xy, xz, yz = (np.corrcoef(rank(a), rank(b))[0, 1] for a, b in ((x, y), (x, z), (y, z)))
    found = partial_spearman(x, y, z, level=0.95)
    if max(abs(xz), abs(yz)) > 1 - 1e-9:
        assert math.isnan(found.rho)
        assert math.isnan(found.p_value)
        return
    rho = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    assert found.rho == pytest.approx(rho, abs=1e-6)
    if abs(rho) < 1 - 1e-9:
        t = rho * math.sqrt((len(x) - 3) / (1 - rho**2))
        assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(abs(t), len(x) - 3), abs=1e-6)
        reach = 1.959963984540054 * math.sqrt((1 + rho**2 / 2) / (len(x) - 4))
        assert found.interval == pytest.approx(
            (math.tanh(math.atanh(rho) - reach), math.tanh(math.atanh(rho) + reach)), abs=1e-6
        )


@pytest.mark.parametrize("r", [0.0, 0.5])
def test_partial_intervals_cover_and_find_nothing_where_nothing_is(r):
    """x and y follow z, and each other beyond it with a correlation of r. The truth is that of 200,000 triples."""
    draws = np.random.default_rng(0)

    def triples(n):
        z, ex, ey = draws.normal(size=(3, n))
        return z + ex, z + r * ex + math.sqrt(1 - r**2) * ey, z

    truth = partial_spearman(*triples(200_000), level=0.9).rho
    assert abs(truth - r) < 0.03
    found = [partial_spearman(*triples(40), level=0.9) for _ in range(400)]
    held = np.mean([low <= truth <= high for _, (low, high), _ in found])
    assert abs(held - 0.9) < 0.045  # three standard errors
    if r == 0:
        assert scipy.stats.kstest([p_value for *_, p_value in found], "uniform").pvalue > 0.01
        x, y, _ = triples(40)
        assert spearman(x, y, level=0.9).p_value < 0.05  # what the partial one has to take out


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("n_trials", [80, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("n_documents", "r"), [(12, 0.0), (60, 0.0), (60, 0.5)])
def test_correlations_of_documents_cover_and_those_of_samples_do_not(n_documents, r, n_trials):
    """Six samples a document, which share two thirds of the variance of either side; what z says is taken out too."""
    draws = np.random.default_rng(n_documents)

    def drawn(n):
        of = np.repeat(np.arange(n), 6)
        x, e, z = (math.sqrt(2) * draws.normal(size=n)[of] + draws.normal(size=len(of)) for _ in range(3))
        return x + z, r * x + math.sqrt(1 - r**2) * e + z, z, of

    x, y, z, _ = drawn(30_000)
    truth = spearman(x - z, y - z, level=0.95).rho, partial_spearman(x, y, z, level=0.95).rho
    held, naive, p_values = [], [], []
    for _ in range(n_trials):
        x, y, z, of = drawn(n_documents)
        for groups, record in ((of, held), (None, naive)):
            both = (
                spearman(x - z, y - z, level=0.95, groups=groups),
                partial_spearman(x, y, z, level=0.95, groups=groups),
            )
            record.append([low <= one <= high for (_, (low, high), _), one in zip(both, truth, strict=True)])
            if groups is not None:
                p_values.append(both[0].p_value)
    share, without = np.mean(held, axis=0), np.mean(naive, axis=0)
    print(f"{n_documents} documents, r = {r}: covered {share} of {n_trials}, without groups {without}")
    assert (share >= 0.93 - 2 * math.sqrt(0.95 * 0.05 / n_trials)).all()
    assert (share <= 0.98 + 2 * math.sqrt(0.95 * 0.05 / n_trials)).all()
    assert (without < 0.88).all()
    if r == 0:
        assert np.mean(np.array(p_values) < 0.05) <= 0.06 + 2 * math.sqrt(0.05 * 0.95 / n_trials)


def test_few_documents_have_no_interval_and_wrong_labels_are_refused():
    x, y = np.arange(9.0), np.array([1.0, 0, 3, 2, 5, 4, 7, 6, 8])
    assert not spearman(x, y, level=0.95, groups=np.repeat([0, 1], [4, 5])).interval.is_known
    with pytest.raises(InputError, match="one label for each of the 9 pairs; it has 8"):
        spearman(x, y, level=0.95, groups=np.arange(8))
    with pytest.raises(InputError, match="all 4 samples are of 2 documents, and at least 3"):
        which_samples([1.0, 2.0, 3.0, 4.0], [[1, 2], [2, 3], [3, 4], [5, 6]], groups=[1, 1, 2, 2])


def test_rarity_of_documents_is_told_by_documents():
    rng = np.random.default_rng(0)
    samples, of = rng.integers(50, size=(60, 4)).tolist(), np.repeat(np.arange(10), 6)
    alone, grouped = (which_samples(rng.normal(size=60).cumsum(), samples, groups=one) for one in (None, of))
    assert grouped.settings["n_documents"] == 10
    assert alone.settings["n_documents"] is None
    low, high = (grouped.correlations[name][0] for name in ("low", "high"))
    bits = grouped.signed_bits
    assert (low, high) == spearman(bits, grouped.tfidf_bits, level=0.95, groups=of).interval
    assert "95 % intervals of 10 documents" in repr(grouped)


# --- rarity


def test_planted_relation_is_recovered():
    memu, samples = planted()
    result = which_samples(memu, samples)
    found = row(result, "signed_bits", "tfidf_bits")
    assert found["rho"] == pytest.approx(1)
    assert found["p_value"] == 0
    assert math.isnan(found["low"])
    assert found["n"] == 40
    assert row(which_samples(-memu, samples), "signed_bits", "tfidf_bits")["rho"] == pytest.approx(-1)
    noisy = row(which_samples(*planted(300, noise=1.0)), "signed_bits", "tfidf_bits")
    assert 0.2 < noisy["low"] < noisy["rho"] < noisy["high"] < 0.999
    assert result.top(3)["sample"].tolist() == np.argsort(-memu)[:3].tolist()


def oracle_of(samples, draws):
    """Bits under an oracle, which rare tokens cost more."""
    return 40 + 12 * tfidf_bits(samples) + 4 * draws.normal(size=len(samples))


def test_where_all_is_memorized_rarity_says_nothing_beyond_the_bits_of_the_oracle():
    """The target spends a few bits on each sample, so memU is the oracle's bits less these."""
    draws = np.random.default_rng(0)
    samples = planted(300)[1]
    oracle = oracle_of(samples, draws)
    result = which_samples(oracle - 8 - draws.normal(size=300), samples, oracle_bits=oracle)
    assert row(result, "signed_bits", "oracle_bits")["rho"] > 0.97
    assert row(result, "signed_bits", "tfidf_bits")["low"] > 0.5
    partial = row(result, "signed_bits_given_oracle_bits", "tfidf_bits")
    assert partial["low"] < 0 < partial["high"]
    assert partial["n"] == 300
    assert "  share        8" in repr(result)
    assert "memU given the oracle's bits with TF-IDF " in repr(result)
    assert not result.correlations.duplicated(["of", "with"]).any()
    assert "memU given the oracle's bits with exact duplicates unknown: no sample has a duplicate" in repr(result)


def test_what_rare_samples_show_beyond_the_bits_of_the_oracle_is_found():
    """The target holds a larger share of the rare ones."""
    draws = np.random.default_rng(1)
    samples = planted(300)[1]
    oracle, rarity = oracle_of(samples, draws), tfidf_bits(samples)
    share = 0.3 + 0.2 * (rarity - rarity.mean()) / rarity.std() + 0.1 * draws.normal(size=300)
    result = which_samples(share * oracle, samples, oracle_bits=oracle)
    np.testing.assert_allclose(result.share_memorized, share)
    partial = row(result, "signed_bits_given_oracle_bits", "tfidf_bits")
    assert partial["low"] > 0.3
    assert row(result, "share_memorized", "tfidf_bits")["low"] > 0.7
    assert list(result.to_pandas()["share_memorized"]) == list(result.share_memorized)


def test_a_share_of_nothing_is_unknown():
    memu, samples = planted(10)
    result = which_samples(memu, samples, oracle_bits=np.array([0, 0, *range(10, 18)]))
    assert np.isnan(result.share_memorized).tolist() == [True] * 2 + [False] * 8
    unknown = row(result, "share_memorized", "tfidf_bits")
    assert unknown["reason"] == "share_memorized is unknown for 2 samples, of which the oracle's bits are 0"
    assert row(result, "signed_bits", "oracle_bits")["reason"] == ""
    exact = which_samples(np.arange(10.0), samples, oracle_bits=10 + np.arange(10.0))
    assert (
        row(exact, "signed_bits_given_oracle_bits", "tfidf_bits")["reason"]
        == "ranks of oracle_bits determine those of one side"
    )


def test_without_the_bits_of_an_oracle_the_share_is_unknown():
    result = which_samples(*planted(10))
    assert np.isnan(result.oracle_bits).all()
    assert np.isnan(result.share_memorized).all()
    assert "share        unknown: bits came without those of the oracle" in repr(result)
    assert len(result.correlations) == 3


def test_what_0_1_0_saved_has_no_bits_of_an_oracle():
    old = Rarity.load(Path(__file__).parent / "fixtures" / "results_0_1_0" / "Rarity")
    assert np.isnan(old.oracle_bits).all()
    assert "share        unknown" in repr(old)


def test_duplicates_are_recovered():
    samples = different(60, 16)
    training = np.concatenate([samples, *[samples[:20]] * 3, samples[20:40], samples[20:40]])
    training[-40:, -1] += 10_000  # copies of 20 to 39 that differ at their end: 11 of 13 shingles
    memu = np.repeat([30.0, 20.0, 1.0], 20) + np.random.default_rng(0).normal(size=60)
    result = which_samples(memu, samples, training)
    assert result.exact_duplicates.tolist() == [4] * 20 + [1] * 40
    assert result.near_duplicates.tolist() == [4] * 20 + [3] * 20 + [1] * 20
    exact, near = (row(result, "signed_bits", f"{kind}_duplicates") for kind in ("exact", "near"))
    assert exact["low"] > 0.6
    assert near["rho"] > exact["rho"]
    assert "20 samples come more than once there; 20 resemble one that differs" in repr(result)


@pytest.mark.parametrize("n_trials", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_memu_at_random_correlates_with_nothing(n_trials):
    """Copies have the same memU, as a model gives them; were each counted, p-values would be too small."""
    below, held = np.zeros(3), np.zeros(3)
    for seed in range(n_trials):
        draws = np.random.default_rng(seed)
        one_of_each = draws.zipf(1.5, (40, 8)) % 300
        drawn = draws.permutation(40)
        copied = np.repeat(drawn, np.where(np.arange(40) < 8, 6, 1))
        near = one_of_each[drawn[-6:]].copy()
        near[:, -1] = 400
        samples = np.concatenate([one_of_each[copied], near])
        memu = np.concatenate([draws.normal(size=40)[copied], draws.normal(size=6)])
        table = which_samples(memu, samples, near=0.6).correlations
        assert set(table["n"]) <= {45, 46}  # near copies may be equal
        below += table["p_value"] < 0.05
        held += (table["low"] <= 0) & (table["high"] >= 0)
    reach = 2 * math.sqrt(0.95 * 0.05 / n_trials) + 0.005
    assert (np.abs(below / n_trials - 0.05) < reach).all()
    assert (held / n_trials > 0.95 - reach).all()


def test_constant_sides_are_unknown_with_a_reason():
    memu, samples = planted()
    result = which_samples(memu, samples)
    for kind, reason in (("exact", "no sample has a duplicate"), ("near", "no sample has a near duplicate")):
        unknown = row(result, "signed_bits", f"{kind}_duplicates")
        assert unknown["reason"] == reason
        assert np.isnan(unknown[["rho", "low", "high", "p_value"]].astype(float)).all()
    assert row(result, "signed_bits", "tfidf_bits")["reason"] == ""
    doubled = which_samples(np.concatenate([memu, memu]), np.concatenate([samples, samples]))
    assert row(doubled, "signed_bits", "exact_duplicates")["reason"] == "every sample comes 2 times"
    assert (
        row(which_samples(np.ones(40), samples), "signed_bits", "tfidf_bits")["reason"]
        == "signed_bits is 1 for every sample"
    )
    same = which_samples(np.arange(6.0), np.arange(6)[:, None])
    assert row(same, "signed_bits", "tfidf_bits")["reason"].startswith("tfidf_bits is 2.58496 for every sample")
    for n, reason in ((3, "there are 3 different samples, and it takes 4"), (4, "")):
        few = row(which_samples(np.arange(float(n)), [[1, 1], [1, 2], [2, 3], [4, 5]][:n]), "signed_bits", "tfidf_bits")
        assert few["reason"] == reason
    assert "memU with exact duplicates         unknown: no sample has a duplicate" in repr(result)
    assert "interval unknown, p < 1e-300" in repr(result)


@pytest.mark.parametrize(("longest", "varies"), [(10, False), (11, False), (12, True)])
def test_bits_a_token_where_lengths_vary_by_more_than_10_percent(longest, varies):
    samples = [ids.tolist() for ids in different(30, 10)]
    samples[3] = list(range(longest))
    result = which_samples(np.arange(30.0), samples)
    assert result.lengths_vary == varies
    assert len(result.correlations) == (8 if varies else 3)
    assert ("read memU a token" in repr(result)) == varies
    assert result.plot().get_ylabel().endswith("token" if varies else "sample")


def test_length_is_told_from_rarity():
    """memU that is the same for each token, whatever the token: bits a sample follow the length, bits a token nothing."""
    draws = np.random.default_rng(0)
    lengths = draws.integers(4, 60, 200)
    # Long samples have the rare tokens, so TF-IDF follows the length and bits a sample follow TF-IDF.
    samples = [draws.integers(0, 20 * n, n).tolist() for n in lengths]
    result = which_samples(lengths * (1 + 0.2 * draws.normal(size=200)), samples)
    assert row(result, "tfidf_bits", "n_tokens")["low"] > 0.3
    assert row(result, "signed_bits", "n_tokens")["low"] > 0.8
    assert row(result, "signed_bits", "tfidf_bits")["low"] > 0.3
    per_token = row(result, "signed_bits_per_token", "tfidf_bits")
    assert per_token["low"] < 0 < per_token["high"]
    np.testing.assert_allclose(result.signed_bits_per_token * lengths, result.signed_bits)


def test_memorization_of_these_samples(bpe_tokenizer, tiny_gpt2):
    texts = ["The house met.", "A model has seen", "The house met.", "How many bits?", "Nobody, naïve — 雪"]
    measured = unintended_memorization(
        tiny_gpt2, UniformModel(300), texts, target_tokenizer=bpe_tokenizer, progress=False
    )
    result = which_samples(measured, texts, tokenizer=bpe_tokenizer)
    assert (result.signed_bits == measured.signed_bits).all()
    assert (result.n_tokens == measured.target.n_tokens).all()
    assert result.exact_duplicates.tolist() == [2, 1, 2, 1, 1]
    assert result.correlations["n"].tolist() == [4] * 15
    assert (result.oracle_bits == measured.oracle.bits).all()
    np.testing.assert_array_equal(result.share_memorized, measured.signed_bits / measured.oracle.bits)
    partial = result.correlations.query("of == 'signed_bits_given_oracle_bits'")
    assert set(partial["reason"]) == {"there are 4 different samples, and it takes 5"}
    with pytest.raises(InputError, match="a Memorization brings its own"):
        which_samples(measured, texts, tokenizer=bpe_tokenizer, oracle_bits=measured.oracle.bits)
    assert result.previews == texts
    assert result.settings["tokenizer"]["vocab_size"] == len(bpe_tokenizer)
    with pytest.raises(
        ResultError, match=r"5 from list of 5 were measured, and 5 from list of 5 came .*order included"
    ):
        which_samples(measured, texts[::-1], tokenizer=bpe_tokenizer)
    with pytest.raises(InputError, match=r"each sample is a text, .* pass tokenizer="):
        which_samples(measured, texts)

    ids = [bpe_tokenizer(text)["input_ids"] for text in texts]
    of_ids = unintended_memorization(UniformModel(300), UniformModel(400), ids, progress=False)
    assert which_samples(of_ids, ids, tokenizer=bpe_tokenizer).previews == texts
    assert which_samples(of_ids, ids).previews[0] == " ".join(map(str, ids[0]))
    with pytest.raises(ResultError, match="texts with texts, ids with ids"):
        which_samples(of_ids, texts, tokenizer=bpe_tokenizer)
    with pytest.raises(ResultError, match="of other samples"):
        which_samples(of_ids, ids[1:])


def test_lossy_texts_stay_left_out():
    class Lowers:
        """Ids of the letters; capitals do not come back."""

        bos_token_id = None

        def __call__(self, texts, **_):
            return {"input_ids": [[ord(c) for c in text.lower()] for text in texts]}

        def decode(self, ids, **_):
            return "".join(map(chr, ids))

        def get_vocab(self):
            return {chr(i): i for i in range(128)}

        def __len__(self):
            return 128

    texts = ["ab", "Ab", "cd", "ef", "gh", "zz"]
    options = {"target_tokenizer": Lowers(), "oracle_tokenizer": Lowers(), "progress": False}
    with pytest.raises(LossyTextError):
        unintended_memorization(UniformModel(128), UniformModel(256), texts, **options)
    measured = unintended_memorization(UniformModel(128), UniformModel(256), texts, on_lossy_text="skip", **options)
    result = which_samples(measured, texts, tokenizer=Lowers())
    assert result.index.tolist() == result.to_pandas()["sample"].tolist() == [0, 2, 3, 4, 5]
    assert result.previews == ["ab", "cd", "ef", "gh", "zz"]
    # A training set may hold such texts: its tokens are counted, not coded.
    assert which_samples(measured, texts, texts, tokenizer=Lowers()).exact_duplicates.tolist() == [2, 1, 1, 1, 1]


@pytest.mark.usefixtures("no_type_checker")
def test_bits_that_are_none():
    samples = [[1], [2], [3]]
    for bits, message in (
        ([1.0, 2.0], r"3 samples came, and bits of shape \[2\]"),
        ([[1.0], [2.0], [3.0]], r"bits of shape \[3, 1\]"),
        ([1.0, math.nan, math.inf], r"bits must be finite; that of sample 1 in memorized is nan \(2 such\)"),
        (["a", "b", "c"], "memorized must be a Memorization, or a flat array of bits"),
        (compress_bits(UniformModel(4), samples), "memorized must be a Memorization, or a flat array of bits"),
    ):
        with pytest.raises(InputError, match=message):
            which_samples(bits, samples)
    for bits, message in (
        ([1.0, 2.0], r"oracle_bits holds bits, one a sample: 3 samples came, and bits of shape \[2\]"),
        ([1.0, math.nan, 2.0], r"bits must be finite; that of sample 1 in oracle_bits is nan \(1 such\)"),
        ([1.0, -0.5, 2.0], r"oracle_bits are code lengths, 0 or more; the least of them is -0\.5"),
        ("bits", "oracle_bits must be a flat array of bits"),
    ):
        with pytest.raises(InputError, match=message):
            which_samples([1.0, 2.0, 3.0], samples, oracle_bits=bits)
    with pytest.raises(InputError, match="level must be a number between 0 and 1"):
        which_samples([1.0, 2.0, 3.0], samples, level=95)
    with pytest.raises(InputError, match="k must be at least 1; it is 0"):
        which_samples([1.0, 2.0, 3.0], samples).top(0)


def test_interval_level():
    memu, samples = planted(100, noise=2.0)
    wide, narrow = (
        row(which_samples(memu, samples, level=level), "signed_bits", "tfidf_bits") for level in (0.99, 0.5)
    )
    assert wide["low"] < narrow["low"] < narrow["rho"] == wide["rho"] < narrow["high"] < wide["high"]


def test_previews_are_cut():
    long, ids = "word " * 30, list(range(20))
    result = which_samples(np.arange(2.0), [ids, ids[:12]])
    assert result.previews == ["0 1 2 3 4 5 6 7 8 9 10 11 ...", "0 1 2 3 4 5 6 7 8 9 10 11"]

    class Words:
        def __call__(self, texts, **_):
            return {"input_ids": [[len(word) for word in text.split()] for text in texts]}

        def decode(self, ids):
            return "xyz" * len(ids)

        def get_vocab(self):
            return {}

        def __len__(self):
            return 0

    assert which_samples(np.arange(2.0), [long, "short"], tokenizer=Words()).previews == [long[:60] + " ...", "short"]
    decoded = which_samples(np.arange(3.0), [[1] * 100, [1] * 20, [1] * 21], tokenizer=Words()).previews
    assert decoded == ["xyz" * 20 + " ...", "xyz" * 20, "xyz" * 20 + " ..."]


def test_top_and_repr():
    bits = [1.0, 5.0, -2.0, 5.0, 0.5, 7.25]
    result = which_samples(bits, [[1, 1], [1, 2], [3, 4], [5, 6], [1, 2], [7, 7]])
    top = result.top(4)
    assert top["sample"].tolist() == [5, 1, 3, 0]  # of equal ones the earlier first
    assert top["signed_bits"].tolist() == [7.25, 5, 5, 1]
    assert top["exact_duplicates"].tolist() == [1, 2, 1, 1]
    assert list(top.columns) == list(result.to_pandas().columns)
    assert len(result.top()) == len(result) == 6
    assert which_samples(np.arange(60) % 2, np.arange(60)[:, None]).top(30)["sample"].tolist() == list(range(1, 60, 2))
    shown = repr(result)
    assert shown.startswith("Rarity of 6 samples in a training set of 6\n")
    assert "2.79 bits a sample in the mean, -2.00 to 7.25 (signed)" in shown
    assert "2 samples come more than once there; 0 resemble one that differs" in shown
    assert "rank correlations (Spearman) of 5 different samples, 95 % intervals" in shown
    assert "sample 1            5.0 bits  TF-IDF   1.08  2 exact, 2 near  '1 2'" in shown
    assert shown.count("    sample ") == 5


def test_saved_and_loaded(tmp_path):
    memu, samples = planted(30, noise=1.0)
    more = {"oracle_bits": 20 + memu**2, "near": 0.5, "level": 0.9}
    result = which_samples(memu, samples, np.concatenate([samples, samples[:5]]), **more)
    result.save(tmp_path)
    loaded = Rarity.load(tmp_path)
    for name in (
        "signed_bits",
        "oracle_bits",
        "tfidf_bits",
        "exact_duplicates",
        "near_duplicates",
        "n_tokens",
        "index",
    ):
        ours, theirs = getattr(result, name), getattr(loaded, name)
        assert ours.dtype == theirs.dtype
        assert (ours == theirs).all()
    assert loaded.previews == result.previews
    assert loaded.settings == json.loads(json.dumps(result.settings))
    assert loaded.correlations.equals(result.correlations)
    assert repr(loaded) == repr(result)


def test_damaged_folders(tmp_path):
    result = which_samples(*planted(10))
    result.save(tmp_path)
    as_saved_by_0_1_0(tmp_path)
    result.to_pandas().iloc[:7].to_parquet(tmp_path / "rarity.parquet")
    with pytest.raises(ResultError, match=r"is damaged: rarity\.parquet has 7 rows for 10 samples"):
        Rarity.load(tmp_path)
    result.to_pandas().drop(columns="tfidf_bits").to_parquet(tmp_path / "rarity.parquet")
    with pytest.raises(ResultError, match=r"rarity\.parquet cannot be read"):
        Rarity.load(tmp_path)
    result.save(tmp_path, overwrite=True)
    (tmp_path / "correlations.parquet").write_bytes(b"PAR1")
    with pytest.raises(ResultError, match=r"correlations\.parquet cannot be read"):
        Rarity.load(tmp_path)
    with pytest.raises(ResultError, match="holds no saved Rarity"):
        Rarity.load(tmp_path / "nowhere")
    compress_bits(UniformModel(4), [[1]]).save(tmp_path, overwrite=True)
    with pytest.raises(ResultError, match="holds a CodeLengths, not a Rarity"):
        Rarity.load(tmp_path)


def test_picture():
    import matplotlib.pyplot as plt

    memu, samples = planted(60, noise=2.0)
    samples[1], samples[2] = samples[0], samples[0]
    samples[2, -1] = 600
    result = which_samples(memu, samples)
    figure, ax = plt.subplots()
    try:
        assert plot_rarity(result, ax) is ax
        dots = {line.get_label(): line for line in ax.lines}
        np.testing.assert_array_equal(dots["2 with exact duplicates"].get_ydata(), memu[:2])
        np.testing.assert_array_equal(dots["1 with near duplicates only"].get_xdata(), result.tfidf_bits[2:3])
        np.testing.assert_array_equal(dots["57 without duplicates"].get_ydata(), memu[3:])
        found = row(result, "signed_bits", "tfidf_bits")
        (median,) = (line for name, line in dots.items() if name.startswith("running median"))
        assert median.get_label() == (
            f"running median; rank correlation {found['rho']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"
        )
        # The first of the places is the ten samples of commonest tokens.
        first = np.argsort(result.tfidf_bits, kind="stable")[:10]
        assert median.get_xydata()[0].tolist() == [np.median(result.tfidf_bits[first]), np.median(memu[first])]
        figure.canvas.draw()
    finally:
        plt.close("all")


def test_picture_of_many_and_of_few():
    import matplotlib.pyplot as plt

    memu, samples = planted(4_001, noise=2.0, n_tokens=6)
    try:
        ax = which_samples(memu, samples).plot()
        assert ax.collections[0].get_array().sum() == 4_001  # cells, not dots
        assert any(line.get_label() == "4,001 samples; darker: more of them" for line in ax.lines)
        ax.figure.canvas.draw()
        few = which_samples(np.ones(19), different(19, 6)).plot()
        assert not any("median" in str(line.get_label()) for line in few.lines)
        constant = which_samples(np.ones(20), different(20, 6)).plot()
        assert any(line.get_label() == "running median; rank correlation unknown" for line in constant.lines)
        assert not any(np.all(line.get_ydata() == 0) for line in constant.lines)  # 0 is far from all dots
        constant.figure.canvas.draw()
    finally:
        plt.close("all")


def test_nothing_heavy_is_imported_early():
    late = ["scipy.stats", "pandas", "datasketch", "sklearn", "matplotlib"]
    code = f"import sys, memorization.rarity; print([name for name in {late} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
