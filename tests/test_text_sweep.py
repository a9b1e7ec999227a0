"""The sweep over text: against models trained and scored anew, oracles that have and have not seen, resuming, what is read off it."""

import dataclasses
import itertools
import math
import warnings
import zlib
from types import SimpleNamespace

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from saved_folders import as_saved_by_0_1_0

from memorization import UniformModel, fit_capacity
from memorization.data import addresses
from memorization.errors import InputError, MeasurementWarning, ModelError, NotIdentifiedWarning, ResultError
from memorization.lab import cells as lab_cells
from memorization.lab.architectures import Architecture, ParamCounts
from memorization.lab.builders import KnownBuilder, build_seeded, stream
from memorization.lab.stack import train_stack
from memorization.lab.text import oracles, text_sweep
from memorization.lab.text import runs as text_runs
from memorization.lab.text.documents import byte_level_bpe, documents_of, fixed_length, with_end_of_text
from memorization.lab.text.result import TextSweep, cell_columns
from memorization.lab.text.split import folds_of, split_documents
from memorization.measure import opening
from memorization.membership import membership_metrics
from memorization.report.text_sweep import plot_bits_per_token, plot_extraction_rates, plot_f1, plot_memu
from memorization.stats.means import mean_interval

SEQ_LEN, VOCAB = 8, 300
BUILDS = [Architecture("gpt2", width=8), Architecture("gpt2", width=12)]
OPTIONS = {
    "seq_len": SEQ_LEN,
    "vocab_size": VOCAB,
    "n_samples": [16, 64, 256],
    "n_test": 96,
    "steps": 120,
    "batch_size": 16,
    "peak_lr": 0.03,
    "prefix_tokens": [2, 4],
    "oracle_epochs": 0.2,
    "progress": False,
}


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return list(itertools.chain(*addresses()))[:300]


@pytest.fixture(scope="module")
def few(documents) -> list[str]:
    """For what needs many trainings, and no result that says something about text."""
    return documents[:40]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def sweep(documents, place) -> TextSweep:
    return text_sweep(BUILDS, documents, store=place, **OPTIONS)


def scored(model: torch.nn.Module, ids: np.ndarray, context: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bits of each token in float64, and whether it is the arg max: one sample at a time, by torch's log-softmax."""
    bits, first = [], []
    for row in torch.from_numpy(ids):
        with torch.no_grad():
            logits = model(torch.cat([torch.tensor([context]), row[:-1]])[None])[0].double()
        bits.append((-logits.log_softmax(-1)[range(len(row)), row] / math.log(2)).numpy())
        first.append((logits.argmax(-1) == row).numpy())
    return np.array(bits), np.array(first)


def standardised(model: torch.nn.Module, ids: np.ndarray) -> np.ndarray:
    """The least log p of a sample's tokens, standardised by what the model expects there: 20 % of 8 tokens is one."""
    least = []
    for row in torch.from_numpy(ids):
        with torch.no_grad():
            log_p = model(torch.cat([torch.zeros(1, dtype=torch.int64), row[:-1]])[None])[0].double().log_softmax(-1)
        mean = (log_p.exp() * log_p).sum(-1)
        sd = (log_p.exp() * (log_p - mean[:, None]) ** 2).sum(-1).sqrt()
        least.append(float(((log_p[range(len(row)), row] - mean) / sd).min()))
    return np.array(least)


def split_again(cut) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the test samples and of all others of their documents: whole documents at random, then samples of them."""
    draws = np.random.default_rng(stream("split", 0))
    names = np.unique(cut.document)
    held = names[draws.permutation(len(names))[: -(-len(names) // 10)]]
    out = draws.permutation(np.flatnonzero(np.isin(cut.document, held)))
    return out[: OPTIONS["n_test"]], out[OPTIONS["n_test"] :]


def uneven(ids: torch.Tensor) -> torch.Tensor:
    """An oracle that finds some tokens likelier than others, whatever stands before them."""
    return (torch.arange(VOCAB).float() * 7 % 13 / 4).expand(*ids.shape, VOCAB)


def greedy(model: torch.nn.Module, row: np.ndarray, prefix: int) -> bool:
    """Token by token, as a decoder does it."""
    ids = [0, *row[:prefix].tolist()]
    while len(ids) <= len(row):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[1:] == row.tolist()


def test_a_row_a_run(sweep):
    assert len(sweep.cells) == 2 * 3 * 2
    assert sweep.cells.notna().all().all()
    assert len(sweep.samples) == 2 * 2 * (16 + 64 + 256)
    assert sweep.to_pandas() is sweep.cells


@pytest.mark.usefixtures("no_type_checker")
# Of the first everything is learned, so that there is something to extract; of the others half, so that no attack finds everybody.
@pytest.mark.parametrize(("build", "n_samples", "seed", "steps"), [(0, 16, 0, 120), (1, 64, 1, 15), (1, 256, 0, 60)])
def test_every_figure_is_that_of_a_model_trained_and_scored_anew(documents, build, n_samples, seed, steps):
    from sklearn.metrics import roc_auc_score

    options = {**OPTIONS, "n_samples": [n_samples], "seeds": [seed], "oracle": uneven, "steps": steps}
    found = text_sweep(BUILDS[build], documents, **options)
    run = found.cells.iloc[0]
    table = found.members(int(run.n_params), n_samples, seed)
    members = found.ids[table["sample"].to_numpy()]
    model = build_seeded(BUILDS[build], VOCAB, SEQ_LEN, seed)
    train_stack(
        [model],
        [torch.from_numpy(members)],
        context=0,
        steps=steps,
        batch_size=OPTIONS["batch_size"],
        peak_lrs=[OPTIONS["peak_lr"]],
        seeds=[stream("order", seed)],
    )
    cut = fixed_length(documents, seq_len=SEQ_LEN, vocab_size=VOCAB)
    test, _ = split_again(cut)
    test, of_test = cut.ids[test], cut.document[test]
    own, own_first = scored(model, members)
    others, _ = scored(model, test)
    # The coder's truncation is at most 0.006 bits a token.
    np.testing.assert_allclose(table["target_bits"], own.sum(1), atol=0.06)
    assert run.train_bits_per_token == pytest.approx(own.mean(), abs=0.002)
    assert run.test_bits_per_token == pytest.approx(others.mean(), abs=0.002)
    by_oracle, by_oracle_test = scored(uneven, members)[0].sum(1), scored(uneven, test)[0].sum(1)
    assert np.ptp(by_oracle) > 10  # or the reference attack would be the loss attack
    np.testing.assert_allclose(table["oracle_bits"], by_oracle, atol=0.06)
    assert run.data_bits == pytest.approx(by_oracle.sum(), rel=1e-3)
    assert run.data_per_capacity == pytest.approx(run.data_bits / 3.6 / run.n_params)
    signed, null = by_oracle - own.sum(1), by_oracle_test - others.sum(1)
    assert run.memu_signed_bits == pytest.approx(signed.sum(), abs=0.05 * n_samples)
    assert run.memu_bits == pytest.approx(signed.clip(0).sum(), abs=0.05 * n_samples)
    assert run.test_memu_signed_bits_a_sample == pytest.approx(null.mean(), abs=0.05)
    assert run.test_memu_bits_a_sample == pytest.approx(null.clip(0).mean(), abs=0.05)

    k = min(n_samples, len(test))
    label = np.repeat([1, 0], k)
    mine, theirs = own[:k], others[:k]
    pooled = np.concatenate([mine.sum(1), theirs.sum(1)])
    texts = found.tokenizer.batch_decode([*members[:k].tolist(), *test[:k].tolist()])
    packed = np.array([len(zlib.compress(text.encode(), 9)) for text in texts])
    dearer = {
        "loss": -pooled,
        "reference": np.concatenate([signed[:k], null[:k]]),
        "zlib": -pooled / packed,
        "min_k_plus_plus": np.concatenate([standardised(model, members[:k]), standardised(model, test[:k])]),
    }
    assert steps == 120 or 0.55 < run.auc_loss < 0.97
    for name, scores in dearer.items():
        assert run[f"auc_{name}"] == pytest.approx(roc_auc_score(label, scores), abs=2e-3), name
        taken = np.argsort(-scores)[:k]  # the k highest of 2k
        assert run[f"f1_{name}"] == pytest.approx(np.mean(taken < k), abs=1.1 / k), name
    gap, sds = theirs.sum(1).mean() - mine.sum(1).mean(), (mine.sum(1).std(ddof=1), theirs.sum(1).std(ddof=1))
    assert run.n_attacked == k
    assert (run.gap_bits, run.member_sd_bits, run.test_sd_bits) == pytest.approx((gap, *sds), abs=1e-3)
    of_members = table["document"].to_numpy()[:k]
    assert not set(of_test) & set(of_members)
    groups = of_members, of_test[:k]
    for name in ("loss", "reference"):
        expected = membership_metrics(dearer[name][:k], dearer[name][k:], groups=groups)
        for metric, ends in (("f1", expected.f1_interval), ("auc", expected.auc_interval)):
            found_ends = run[f"{metric}_{name}_low"], run[f"{metric}_{name}_high"]
            np.testing.assert_allclose(found_ends, ends, atol=0.02, err_msg=f"{metric} of {name}")  # other draws
    for name, values in (("test_bits_per_token", others.mean(1)), ("test_memu_signed_bits_a_sample", null)):
        expected = mean_interval(values, groups=of_test)
        assert (run[f"{name}_low"], run[f"{name}_high"]) == pytest.approx(tuple(expected), abs=0.05)
    dearest = np.concatenate([mine, theirs]).max(1)  # 20 % of 8 tokens is one
    assert run.auc_min_k == pytest.approx(roc_auc_score(label, -dearest), abs=2e-3)
    for prefix in (2, 4):
        rate = np.mean([greedy(model, row, prefix) for row in members[:k]])
        assert run[f"extracted_{prefix}"] == pytest.approx(rate)
        assert run[f"extracted_{prefix}"] == pytest.approx(own_first[:k, prefix:].all(1).mean())
        assert run[f"extracted_test_{prefix}"] == np.mean([greedy(model, row, prefix) for row in test[:k]])


def test_memu_is_bits_of_the_oracle_less_bits_of_the_target(sweep):
    for run in sweep.cells.itertuples():
        found = sweep.members(run.n_params, run.n_samples, run.seed)
        assert len(found) == run.n_samples
        assert run.train_bits_per_token == pytest.approx(found["target_bits"].mean() / SEQ_LEN)
        assert run.data_bits == pytest.approx(found["oracle_bits"].sum())
        for name, oracle in (("memu", "oracle_bits"), ("memu_seen", "oracle_seen_bits")):
            signed = found[oracle] - found["target_bits"]
            assert getattr(run, f"{name}_signed_bits") == pytest.approx(signed.sum())
            assert getattr(run, f"{name}_bits") == pytest.approx(signed[signed > 0].sum())
        np.testing.assert_allclose(found["signed_bits"], found["oracle_bits"] - found["target_bits"])
        np.testing.assert_allclose(found["seen_signed_bits"], found["oracle_seen_bits"] - found["target_bits"])


def test_small_sets_are_known_by_heart_and_large_ones_are_not(sweep):
    means = sweep.cells.groupby("n_samples").mean(numeric_only=True)
    assert means["f1_loss"].is_monotonic_decreasing
    assert means.loc[16, "f1_loss"] > 0.95
    assert means["train_bits_per_token"].is_monotonic_increasing
    assert (sweep.cells["train_bits_per_token"] < sweep.cells["test_bits_per_token"]).all()
    # What was memorized cannot be more than there was.
    assert (sweep.cells["memu_signed_bits"] < sweep.cells["data_bits"]).all()


def test_data_sets_are_nested_and_no_document_is_on_both_sides(sweep, documents):
    cut = fixed_length(documents, seq_len=SEQ_LEN, vocab_size=VOCAB)
    test, left_out = split_again(cut)
    held_out = set(cut.document[test]) | set(cut.document[left_out])
    assert sweep.settings["n_documents_held_out"] == len(held_out) == -(-sweep.settings["n_documents_cut"] // 10)
    assert sweep.settings["n_left_out"] == len(left_out)
    assert sweep.settings["n_pool"] == len(cut.ids) - len(test) - len(left_out)
    n_params = int(sweep.cells["n_params"].iloc[0])
    where = {tuple(row): k for k, row in enumerate(cut.ids.tolist())}
    drawn = {}
    for seed in (0, 1):
        tables = [sweep.members(n_params, n, seed) for n in (16, 64, 256)]
        small, middle, large = (table["sample"].tolist() for table in tables)
        assert large[:64] == middle
        assert middle[:16] == small
        assert len(set(large)) == 256
        rows = [where[tuple(row)] for row in sweep.ids[large].tolist()]
        assert tables[-1]["document"].tolist() == cut.document[rows].tolist()
        assert not held_out & set(tables[-1]["document"])
        drawn[seed] = large
    assert drawn[0] != drawn[1]
    assert sweep.members(n_params, 16).equals(sweep.members(n_params, 16, 0))


def test_siblings_were_what_a_split_of_samples_left_among_the_members(sweep, documents):
    """With samples dealt at random most test samples would have one: here none has."""
    cut = fixed_length(documents, seq_len=SEQ_LEN, vocab_size=VOCAB)
    order = np.random.default_rng(0).permutation(len(cut.ids))
    test, members = order[:96], order[96 : 96 + 256]
    assert np.isin(cut.document[test], cut.document[members]).mean() > 0.4
    own = sweep.members(int(sweep.cells["n_params"].iloc[0]), 256)["document"]
    assert not np.isin(cut.document[split_again(cut)[0]], own).any()


@pytest.mark.parametrize("sizes", [[1] * 40, [3, 1, 8, 2] * 10, [200, 1, 1, 1, 50] * 4])
def test_a_split_holds_out_whole_documents(sizes):
    document = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)) * 7, sizes))
    for seed in range(20):
        n_test = 3
        found = split_documents(document, n_test, np.random.default_rng(seed))
        test, pool = set(document[found.test]), set(document[found.pool])
        assert not test & pool
        assert len(found.test) == n_test
        assert len({*found.test, *found.pool}) == n_test + len(found.pool)
        assert len(found.test) + len(found.pool) + found.n_left_out == len(document)
        assert len(pool) == len(sizes) - found.n_documents_held_out  # all of their samples are in the pool
        assert found.n_left_out + n_test == (~np.isin(document, list(pool))).sum()
        assert found.n_documents_held_out >= len(sizes) / 10


def test_test_samples_are_drawn_as_the_pool_is():
    """A sample of a long document is as likely to be a test sample as one of a short one."""
    document = np.repeat(np.arange(600), [1, 2, 12] * 200)
    times = np.zeros(len(document))
    for seed in range(500):
        times[split_documents(document, 80, np.random.default_rng(seed)).test] += 1
    by_size = [times[np.isin(document, np.arange(k, 600, 3))].mean() for k in range(3)]
    print("times a sample of a document of 1, 2, 12 samples was drawn:", np.round(by_size, 2))
    assert max(by_size) < 1.15 * min(by_size)


def test_folds_are_of_whole_documents_and_about_as_large():
    document = np.random.default_rng(0).permutation(np.repeat(np.arange(50), np.arange(1, 51)))
    fold = folds_of(document, 3)
    for name in range(50):
        assert len(set(fold[document == name])) == 1
    sizes = np.bincount(fold)
    assert len(sizes) == 3
    assert np.ptp(sizes) <= 2


KNOWN = KnownBuilder(BUILDS[0], "a model", ParamCounts(1, 1, 1))


class Remembers(torch.nn.Module):
    """One bit a token for the samples of its training set, five for any other."""

    def __init__(self, seen: torch.Tensor, vocab_size: int):
        super().__init__()
        self.seen, self.vocab_size = {tuple(row) for row in seen.tolist()}, vocab_size

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = [row for row in self.seen if True]
        logits = torch.zeros(*ids.shape, self.vocab_size)
        starts = {row[:k]: row for row in rows for k in range(len(row))}
        for i, row in enumerate(ids.tolist()):
            for j in range(len(row)):
                known = starts.get(tuple(row[1 : j + 1]))
                if known is not None and len(known) > j:
                    logits[i, j, known[j]] = math.log(self.vocab_size - 1)  # half of the probability: one bit
        return logits


def test_each_sample_is_asked_of_an_oracle_that_has_not_seen_it(monkeypatch, tmp_path):
    """Samples that begin with tokens of their own, so that whoever has seen them knows all that follows."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat([torch.arange(40)[:, None], torch.randint(40, (40, 3), generator=generator)], dim=1)
    pool, test = rows[:30], rows[30:]
    trained = []

    def remember(cells, data, *, vocab_size, **_):
        trained.append((data[0], cells[0].steps))
        return [Remembers(data[0], vocab_size)], SimpleNamespace(bits_per_token=torch.ones(1))

    monkeypatch.setattr(oracles, "train_cells", remember)
    made = oracles.TrainedOracles(
        of=KNOWN,
        folds=3,
        epochs=1.0,
        batch_size=10,
        vocab_size=40,
        context=0,
        device=torch.device("cpu"),
        store=oracles.Store(None, {}),
        progress=False,
    )
    bits = made.bits(pool, test, np.arange(30) // 2)
    # The first token of any sample has many continuations, so it costs about log2 40; the three after it one bit each, where seen.
    assert (bits.pool_seen < 9.5).all()
    assert (bits.pool > 15).all()
    assert (bits.test > 15).all()
    assert bits.bits_per_token == pytest.approx(bits.test.mean() / 4)
    # One pass each over what an oracle is trained on.
    sizes = sorted((len(seen), steps) for seen, steps in trained[len(oracles.PILOT_RATES) :])
    assert sizes == [(20, 2), (20, 2), (20, 2), (30, 3)]
    folds = [set(map(tuple, seen.tolist())) for seen, _ in trained[len(oracles.PILOT_RATES) :] if len(seen) == 20]
    for i, row in enumerate(map(tuple, pool.tolist())):
        assert sum(row in fold for fold in folds) == 2, i  # in all folds' training sets but one
    for i in range(0, 30, 2):  # as is the other sample of its document: the oracle it is asked of has seen neither
        one, other = (tuple(row) for row in pool[i : i + 2].tolist())
        assert [one in fold for fold in folds] == [other in fold for fold in folds]
    n_trained = len(trained)
    again = made.bits(pool, test, np.arange(30) // 2)
    assert len(trained) == n_trained
    np.testing.assert_array_equal(again.pool, bits.pool)


class Constant(torch.nn.Module):
    """As many bits a token for any sample without token 0."""

    def __init__(self, bits: float, vocab_size: int):
        super().__init__()
        self.others = torch.zeros(vocab_size)
        self.others[0] = math.log(2**bits - (vocab_size - 1))  # what is left of the probability

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.others.expand(*ids.shape, -1)


def test_each_oracle_says_its_own_of_its_fold_and_of_as_many_test_samples(monkeypatch):
    pool, test = torch.arange(1, 37).reshape(12, 3), torch.arange(1, 22).reshape(7, 3)

    def constant(cells, data, **_):
        """More bits for the oracle that lacks the first sample, then the second, the third; fewest for the one that lacks none."""
        lacks = [i for i in range(3) if not (data[0] == pool[i]).all(1).any()]
        return [Constant(7.0 + lacks[0] if lacks else 6.0, 40)], SimpleNamespace(bits_per_token=torch.ones(1))

    monkeypatch.setattr(oracles, "train_cells", constant)
    made = oracles.TrainedOracles(KNOWN, 3, 1.0, 4, 40, 0, torch.device("cpu"), oracles.Store(None, {}), False)
    bits = made.bits(pool, test, np.arange(12))
    np.testing.assert_allclose(bits.pool, [21.0, 24.0, 27.0] * 4, atol=0.05)
    np.testing.assert_allclose(bits.test, [21.0, 24.0, 27.0] * 2 + [21.0], atol=0.05)
    np.testing.assert_allclose(bits.pool_seen, 18.0, atol=0.05)


@pytest.mark.usefixtures("no_type_checker")
def test_an_oracle_that_has_seen_the_samples_hides_memorization(documents):
    """Trained long enough to memorize its pool, the seen oracle is better on members than those that have not seen them."""
    ids = fixed_length(documents, seq_len=SEQ_LEN, vocab_size=VOCAB).ids[:250]
    found = text_sweep(
        BUILDS[1],
        ids,
        **{
            **OPTIONS,
            "vocab_size": VOCAB,
            "n_samples": [64],
            "n_test": 50,
            "oracle_epochs": 60,
            "oracle_batch_size": 25,
        },
    )
    assert (found.samples["oracle_seen_bits"].mean() + 5) < found.samples["oracle_bits"].mean()
    assert (found.cells["memu_seen_bits"] < found.cells["memu_bits"]).all()


def test_a_given_oracle_stands_alone(few):
    found = text_sweep(BUILDS[0], few, **{**OPTIONS, "n_samples": [16], "seeds": [3], "oracle": UniformModel(VOCAB)})
    run = found.cells.iloc[0]
    assert run.data_bits == pytest.approx(16 * SEQ_LEN * math.log2(VOCAB), abs=0.5)
    assert math.isnan(run.memu_seen_bits)
    assert "given, UniformModel(300)" in repr(found)
    found.plot()


def test_a_measured_capacity_is_each_sizes_own(documents, place, sweep):
    sizes = sorted(set(sweep.cells["n_params"].tolist()))
    capacity = fit_capacity([sizes[0], 10**6], [2.0 * sizes[0], 3e6], estimator="mean")
    with pytest.warns(
        MeasurementWarning,
        match=rf"of {sizes[0]}, 1000000 parameters, and of {sizes[1]} it says",
    ):
        again = text_sweep(BUILDS, documents, store=place, bits_per_param=capacity, **OPTIONS)
    first = again.cells.groupby("n_params")["capacity_bits"].first()
    assert first[sizes[0]] == 2.0 * sizes[0]
    assert first[sizes[1]] == pytest.approx(2.5 * sizes[1])
    np.testing.assert_allclose(
        again.cells["data_per_capacity"], again.cells["data_bits"] / again.cells["capacity_bits"]
    )
    assert "2, 2.5 bits x parameters" in repr(again)


def test_finished_runs_are_not_trained_again(sweep, documents, place, monkeypatch):
    monkeypatch.setattr(lab_cells, "train_stack", lambda *_, **__: pytest.fail("trained again"))
    again = text_sweep(BUILDS, documents, store=place, **OPTIONS)
    pd.testing.assert_frame_equal(again.cells, sweep.cells)
    pd.testing.assert_frame_equal(again.samples, sweep.samples)


@pytest.mark.usefixtures("no_type_checker")
def test_a_sweep_that_was_cut_short_goes_on(few, tmp_path, monkeypatch):
    options = {**OPTIONS, "n_samples": [16, 64], "seeds": [0], "peak_lr": "auto", "steps": 24}
    whole = text_sweep(BUILDS[0], few, **options)
    calls = []

    def dies(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return lab_cells.train_cells(*args, **kwargs)

    monkeypatch.setattr(text_runs, "train_cells", dies)
    with pytest.raises(KeyboardInterrupt):
        text_sweep(BUILDS[0], few, store=tmp_path, **options)
    resumed = text_sweep(BUILDS[0], few, store=tmp_path, **options)
    pd.testing.assert_frame_equal(resumed.cells.drop(columns="seconds"), whole.cells.drop(columns="seconds"))


@pytest.mark.usefixtures("no_type_checker")
def test_a_store_gives_what_a_fresh_one_would_whatever_oracle_came_before(few, tmp_path, monkeypatch):
    options = {**OPTIONS, "n_samples": [64], "seeds": [0]}
    first = text_sweep(BUILDS[0], few, store=tmp_path, **options)
    monkeypatch.setattr(text_runs, "train_cells", lambda *_, **__: pytest.fail("targets do not depend on the oracle"))
    for change in (
        {"oracle": uneven},
        {"oracle_epochs": 0.4},
        {"build_oracle": BUILDS[1]},
        {"folds": 3},
        {"seeds": [0]},
    ):
        again = text_sweep(BUILDS[0], few, store=tmp_path, **{**options, **change})
        with monkeypatch.context() as patch:
            patch.setattr(text_runs, "train_cells", lab_cells.train_cells)
            fresh = text_sweep(BUILDS[0], few, **{**options, **change})
        pd.testing.assert_frame_equal(again.cells.drop(columns="seconds"), fresh.cells.drop(columns="seconds"))
        assert again.settings == fresh.settings
        same = again.cells["memu_bits"].equals(first.cells["memu_bits"])
        assert same == (change == {"seeds": [0]})


def test_the_token_before_each_sample_is_the_tokenizers_own(documents, monkeypatch):
    """A tokenizer whose BOS is not token 0."""
    tokenizer = with_end_of_text(byte_level_bpe(documents, VOCAB), SEQ_LEN)
    tokenizer.bos_token = tokenizer.convert_ids_to_tokens(5)
    seen = []

    def oracle(ids: torch.Tensor) -> torch.Tensor:
        seen.extend(ids[:, 0].tolist())
        return uneven(ids)

    trained = []

    def train(models, *args, **options):
        trained.extend((model, options["context"]) for model in models)
        return train_stack(models, *args, **options)

    monkeypatch.setattr(lab_cells, "train_stack", train)
    options = {**OPTIONS, "vocab_size": None, "n_samples": [16], "seeds": [0], "oracle": oracle}
    found = text_sweep(BUILDS[0], documents, tokenizer=tokenizer, **options)
    assert found.settings["context"] == 5
    [(model, context)] = trained
    assert context == 5
    table = found.members(int(found.cells["n_params"].iloc[0]), 16, 0)
    own = scored(model, found.ids[table["sample"].to_numpy()], context=5)[0].sum(1)
    np.testing.assert_allclose(table["target_bits"], own, atol=0.06)
    assert seen.count(5) >= 16 + OPTIONS["n_test"]


@pytest.mark.usefixtures("no_type_checker")
def test_numpy_numbers_and_short_samples_of_plain_modules(documents):
    class Plain(torch.nn.Module):
        """A table of positions that ends at 4, and nothing that says so."""

        def __init__(self, vocab_size: int):
            super().__init__()
            self.token, self.position = torch.nn.Embedding(vocab_size, 4), torch.nn.Embedding(4, 4)
            self.head = torch.nn.Linear(4, vocab_size)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.token(ids) + self.position(torch.arange(ids.shape[1])))

    ids = fixed_length(documents, seq_len=4, vocab_size=VOCAB).ids
    options = {**OPTIONS, "seq_len": 4, "n_samples": 2 ** np.arange(4, 6), "seeds": np.arange(1), "steps": 5}
    found = text_sweep(lambda v, s: Plain(v), ids, **{**options, "prefix_tokens": np.array([2])})
    assert found.cells["n_samples"].tolist() == [16, 32]
    assert found.cells["auc_min_k_plus_plus"].notna().all()
    assert found.cells["f1_zlib"].isna().all()  # token ids


def test_each_trained_model_is_opened_once_and_a_given_oracle_too(few, monkeypatch):
    """For code lengths, moments of tokens and extraction; looked at by the probes that opening makes."""
    probed = []

    def counting(forward, place, declared, shortest, name):
        probed.append(name)
        return probe(forward, place, declared, shortest, name)

    probe = opening.probe
    monkeypatch.setattr(opening, "probe", counting)
    options = {**OPTIONS, "n_samples": [16], "steps": 2, "oracle": UniformModel(VOCAB)}
    counts = []
    for seeds in ([0], [0, 1, 2]):
        probed.clear()
        text_sweep(BUILDS[0], few, **{**options, "seeds": seeds})
        assert probed.count(f"UniformModel({VOCAB})") == 1
        counts.append(len(probed))
    assert counts[1] - counts[0] == 2  # a probe for each model more


@pytest.mark.usefixtures("no_type_checker")
def test_a_wider_oracle_is_one_with_padded_embeddings(few):
    class Wide(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pad(uneven(ids), (0, 20), value=-30.0)

    options = {**OPTIONS, "n_samples": [16], "seeds": [0]}
    narrow = text_sweep(BUILDS[0], few, **options, oracle=uneven).cells["data_bits"]
    wide = text_sweep(BUILDS[0], few, **options, oracle=Wide()).cells["data_bits"]
    np.testing.assert_allclose(wide, narrow, rtol=1e-3)


def test_a_store_of_other_samples_is_refused(sweep, documents, place):
    with pytest.raises(ResultError, match="belongs to another experiment: n_test is 96 there and 97 here"):
        text_sweep(BUILDS, documents, store=place, **{**OPTIONS, "n_test": 97})


@pytest.mark.usefixtures("no_type_checker")
def test_the_pilot_finds_a_rate_inside_its_range(few):
    found = text_sweep(BUILDS[0], few, **{**OPTIONS, "n_samples": [64], "seeds": [0], "peak_lr": "auto"})
    assert 0.002 < found.cells["peak_lr"].iloc[0] < 0.2


def test_a_run_that_diverges_is_nan_and_said(few):
    with pytest.warns(
        MeasurementWarning,
        match=r"2 of 2 runs failed.* on 16 samples: diverged at a rate of 1e\+30: give a lower",
    ):
        found = text_sweep(
            BUILDS[0], few, **{**OPTIONS, "n_samples": [16], "peak_lr": 1e30, "oracle": UniformModel(VOCAB)}
        )
    assert found.cells["train_bits_per_token"].isna().all()
    assert found.cells["data_bits"].notna().all()


def test_saved_and_loaded(sweep, tmp_path):
    sweep.save(tmp_path / "whole")
    back = TextSweep.load(tmp_path / "whole")
    pd.testing.assert_frame_equal(back.cells, sweep.cells)
    pd.testing.assert_frame_equal(back.samples, sweep.samples)
    np.testing.assert_array_equal(back.ids, sweep.ids)
    assert back.tokenizer.decode(sweep.ids[0]) == sweep.tokenizer.decode(sweep.ids[0])
    assert back.settings == sweep.settings
    assert repr(back) == repr(sweep)
    for large in ("samples", "ids"):
        (tmp_path / "whole" / f"{large}.parquet").unlink()
    small = TextSweep.load(tmp_path / "whole")
    pd.testing.assert_frame_equal(small.cells, sweep.cells)
    assert len(small.samples) == 0
    with pytest.raises(InputError, match=r"a result loaded without samples\.parquet has none"):
        small.members(int(sweep.cells["n_params"].iloc[0]), 16)
    with pytest.raises(InputError, match="there is no model size of 3 parameters; there are"):
        small.members(3, 16)
    small.save(tmp_path / "small")
    assert TextSweep.load(tmp_path / "small").ids.shape == (0, SEQ_LEN)
    old = sweep.cells[cell_columns(sweep.settings, all_of_them=False)]  # as saved before there were intervals
    as_saved_by_0_1_0(tmp_path / "whole")
    old.to_parquet(tmp_path / "whole" / "cells.parquet")
    sweep.samples.drop(columns="document").to_parquet(tmp_path / "whole" / "samples.parquet")
    older = TextSweep.load(tmp_path / "whole")
    pd.testing.assert_frame_equal(older.cells[old.columns], old)
    assert list(older.cells) == list(sweep.cells)
    assert older.cells[["gap_bits", "f1_loss_low"]].isna().all().all()
    assert (older.samples["document"] == -1).all()
    (tmp_path / "whole" / "cells.parquet").write_bytes(b"no table")
    with pytest.raises(ResultError, match=r"cells\.parquet cannot be read"):
        TextSweep.load(tmp_path / "whole")


def planted(test_bits: list[float], f1: list[float] | None = None) -> TextSweep:
    sizes = [2 ** (4 + k) for k in range(len(test_bits))]
    cells = pd.DataFrame(
        {
            "n_params": 1000,
            "n_non_embedding_params": 250,
            "n_samples": sizes,
            "seed": 0,
            "test_bits_per_token": test_bits,
            "data_bits": [100.0 * n for n in sizes],
            "capacity_bits": 3600.0,
            "data_per_capacity": [100.0 * n / 3600 for n in sizes],
            "f1_loss": f1 if f1 is not None else np.linspace(1, 0.5, len(sizes)),
            "memu_bits": 1.0,
            "test_memu_bits_a_sample": 0.0,
        }
    )
    settings = {
        "seq_len": 8,
        "vocab_size": 64,
        "seeds": [0],
        "oracle": {"given": "a model", "bits_per_token": 4.0},
        "prefix_tokens": [2],
    }
    return TextSweep(cells, pd.DataFrame(), np.zeros((0, 8), dtype=np.int64), None, settings)


def test_a_planted_peak_is_found_and_its_units_are_right():
    peak = planted([6.0, 7.0, 9.0, 5.0, 4.0]).peaks().iloc[0]
    assert peak.n_samples == 64
    assert peak.data_per_capacity == pytest.approx(6400 / 3600)
    assert peak.uniform_data_per_capacity == pytest.approx(64 * 8 * 6 / 3600)
    assert peak.data_bits_per_param == pytest.approx(6.4)
    assert peak.data_bits_per_non_embedding_param == pytest.approx(25.6)
    assert (peak.rise_bits_per_token, peak.fall_bits_per_token) == (3.0, 5.0)


@pytest.mark.parametrize("bits", [[9.0, 8.0, 7.0], [7.0, 8.0, 9.0]])
def test_an_end_is_no_peak(bits):
    peak = planted(bits).peaks().iloc[0]
    assert math.isnan(peak.n_samples)
    assert math.isnan(peak.data_per_capacity)


def test_the_law_of_planted_runs_comes_back():
    sizes = 2.0 ** (4 + np.arange(9))
    f1 = 0.5 * (1 + 1.1 / (1 + np.exp(8 * (sizes / 1000 - 0.3))))
    law = planted([5.0] * 9, f1.tolist()).law()
    assert (law.c1, law.c2, law.c3) == pytest.approx((1.1, -8, -0.3), rel=1e-3)
    assert law.dataset_unit == "samples of 8 tokens"
    assert law.capacity_unit == "parameters"


def test_only_two_data_sets_that_are_stuck_at_1_go_into_the_law():
    f1 = [1.0, 1.0, 1.0, 0.996, 0.9, 0.7, 0.55, 0.51]
    law = planted([5.0] * 8, f1).law(covariate="capacity/data")
    assert law.points is not None
    assert sorted(law.points["f1"], reverse=True) == [1.0, 0.996, 0.9, 0.7, 0.55, 0.51]


def test_both_ratios_and_both_capacities_are_tried(monkeypatch):
    """F1 planted in capacity/data, of two sizes that hold the same bits although one has twice the parameters."""
    sizes = 2.0 ** (4 + np.arange(9))
    f1 = 0.5 * (1 + 0.98 / (1 + np.exp(-0.2 * (1000 / sizes - 12))))
    one = planted([5.0] * 9, f1.tolist()).cells
    both = pd.concat([one, one.assign(n_params=2000)], ignore_index=True)
    laws = dataclasses.replace(planted([5.0] * 9), cells=both).laws().set_index(["n_params", "capacity", "covariate"])
    assert len(laws) == 8
    found = laws.loc[(0, "memorized", "capacity/data")]
    assert found.residual < 1e-6
    assert (found.c1, found.c2 / 1000, found.c3 * 1000) == pytest.approx((0.98, 0.2, -12), rel=1e-3)
    assert laws.loc[(0, "parameters", "capacity/data")].residual > 0.02
    assert laws.loc[(1000, "parameters", "capacity/data")].residual < 1e-6
    assert laws.loc[(2000, "parameters", "capacity/data")].residual < 1e-6
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types are executed in the tests only
    with pytest.raises(InputError, match='capacity must be "parameters" or "memorized"'):
        dataclasses.replace(planted([5.0] * 9), cells=both).law(capacity="bits")


def test_what_test_samples_show_too_counts_as_no_capacity():
    """memU of 500 bits on 64 samples, and of 900 on 256, of which as many test samples show 600."""
    sweep = planted([5.0] * 6, [0.98, 0.95, 0.85, 0.65, 0.52, 0.5])
    cells = sweep.cells.assign(
        memu_bits=[1.0, 1.0, 500.0, 1.0, 900.0, 1.0], test_memu_bits_a_sample=[0.0] * 4 + [600 / 256, 0.0]
    )
    law = dataclasses.replace(sweep, cells=cells).law(capacity="memorized")
    assert law.points is not None
    assert set(law.points["capacity"]) == {500.0}
    assert law.capacity_unit == "bits of memU at most"


def test_pictures_show_what_they_say(sweep):
    ax = plot_bits_per_token(sweep)
    assert any(list(line.get_xdata()) == [1.0, 1.0] for line in ax.lines)
    tested = (
        sweep.cells[sweep.cells["n_params"] == sweep.cells["n_params"].max()]
        .groupby("n_samples")
        .mean(numeric_only=True)
    )
    assert any(
        len(line.get_ydata()) == 3 and np.allclose(line.get_ydata(), tested["test_bits_per_token"]) for line in ax.lines
    )
    ax = plot_memu(sweep)
    assert any(
        len(line.get_ydata()) == 3
        and np.allclose(line.get_ydata(), tested["memu_bits"] / sweep.cells["n_params"].max())
        for line in ax.lines
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotIdentifiedWarning)
        plot_f1(sweep)
    ax = plot_extraction_rates(sweep)
    assert any(len(line.get_ydata()) == 3 and np.allclose(line.get_ydata(), tested["extracted_4"]) for line in ax.lines)


def test_which_members_are_memorized(sweep):
    n_params = int(sweep.cells["n_params"].max())
    found = sweep.rarity(n_params, 256)
    assert len(found.to_pandas()) == 256
    there = sweep.members(n_params, 256)
    np.testing.assert_array_equal(found.signed_bits, there["signed_bits"])
    first = sweep.tokenizer.decode(sweep.ids[there["sample"].iloc[0]])
    assert found.previews[0].removesuffix(" ...") in first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"n_test": 10**6},
            r"n_test=1000000 test samples of documents of their own would take all 270 documents, of \d+ samples in all",
        ),
        ({"n_test": 1}, "n_test must be an integer of at least 2; it is 1"),
        ({"n_samples": [10**6]}, "a data set of 1000000 samples was asked for, and the pool holds"),
        ({"n_samples": [1, 16]}, "integers of at least 2"),
        ({"n_samples": []}, "integers of at least 2"),
        ({"seeds": []}, "seeds must be different integers, at least one"),
        ({"seeds": [1, 1]}, "seeds must be different integers"),
        ({"steps": 0}, "steps must be an integer of at least 1; it is 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"folds": 1}, "folds must be an integer of at least 2; it is 1"),
        ({"oracle_epochs": 0.0}, "oracle_epochs must be a number above 0"),
        ({"oracle_epochs": math.inf}, "oracle_epochs must be a number above 0"),
        ({"oracle_batch_size": 0}, "oracle_batch_size must be an integer of at least 1; it is 0"),
        ({"n_samples": "all"}, "n_samples must be \"auto\" or integers of at least 2, at least one; got 'all'"),
        ({"peak_lr": -1.0}, "peak_lr must be"),
        ({"prefix_tokens": [8]}, r"prefix_tokens must lie in \[1, seq_len - 1\] = \[1, 7\]"),
        ({"prefix_tokens": []}, "at least one"),
        ({"bits_per_param": 0.0}, "bits_per_param must be a number above 0"),
        (
            {"oracle": UniformModel(VOCAB - 1)},
            f"has a vocabulary of {VOCAB - 1} tokens, and the samples one of {VOCAB}",
        ),
        ({"seq_len": 100_000}, r"all 300 documents are shorter than seq_len=100000 tokens, the longest has \d+"),
        ({"seq_len": 1}, "seq_len must be an integer of at least 2; it is 1"),
        ({"vocab_size": 256}, "vocab_size must be at least 257"),
    ],
)
def test_what_cannot_be_is_said_before_training(documents, monkeypatch, change, message):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types are executed in the tests only
    monkeypatch.setattr(lab_cells, "train_stack", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(InputError, match=message):
        text_sweep(BUILDS, documents, **{**OPTIONS, **change})


def test_builders_of_one_size_cannot_be_told_apart(documents):
    with pytest.raises(InputError, match="a number of parameters of its own"):
        text_sweep([BUILDS[0], BUILDS[0]], documents, **OPTIONS)
    with pytest.raises(InputError, match="build_models is an empty list"):
        text_sweep([], documents, **OPTIONS)


def test_a_model_of_another_shape_is_named(documents):
    with pytest.raises(ModelError, match=r"to logits of shape \(2, 8, 300\)"):
        text_sweep(lambda v, s: Architecture("gpt2", width=8)(v + 1, s), documents, **OPTIONS)


# --- documents


def test_documents_are_cut_into_consecutive_samples():
    made = fixed_length([[1, 2, 3, 4, 5], [1, 2], [9], [3, 4, 1, 2]], seq_len=2)
    assert made.ids.tolist() == [[1, 2], [3, 4]]
    assert (made.n_documents, made.n_short, made.n_duplicates, made.vocab_size) == (4, 1, 3, 10)
    assert made.document.tolist() == [0, 0]


def test_a_document_may_be_several_texts_and_may_give_one_sample():
    texts = [[1, 2, 3, 4], [5, 6], [1, 2, 7, 8], [9, 9, 9]]
    made = fixed_length(texts, seq_len=2, groups=["b", "a", "b", "c"])
    assert made.ids.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 9]]
    assert made.document.tolist() == [1, 1, 0, 1, 2]
    assert made.n_documents == 3
    one = fixed_length(texts, seq_len=2, samples_per_document=1)
    assert one.ids.tolist() == [[1, 2], [5, 6], [7, 8], [9, 9]]  # of equal samples the first stands
    assert one.document.tolist() == [0, 1, 2, 3]
    two = fixed_length(texts, seq_len=2, groups=["b", "a", "b", "c"], samples_per_document=2)
    assert two.ids.tolist() == [[1, 2], [3, 4], [5, 6], [9, 9]]
    with pytest.raises(InputError, match="samples_per_document must be None or an integer of at least 1; it is 0"):
        fixed_length(texts, seq_len=2, samples_per_document=0)
    with pytest.raises(InputError, match="one label for each of the 4 rows; it holds 3"):
        fixed_length(texts, seq_len=2, groups=[1, 2, 3])


def test_a_sweep_of_larger_documents_holds_out_whole_ones(few):
    labels = [f"address {k // 8}" for k in range(len(few))]
    options = {**OPTIONS, "n_samples": [64], "seeds": [0], "steps": 2, "oracle": UniformModel(VOCAB)}
    found = text_sweep(BUILDS[0], few, groups=labels, samples_per_document=60, **options)
    assert found.settings["n_documents"] == 5
    assert set(found.samples["document"]) <= {0, 1, 2, 3, 4}
    assert found.settings["n_documents_held_out"] == 2  # 96 test samples
    assert found.samples["document"].nunique() <= 3
    assert found.settings["n_pool"] <= 180
    with pytest.raises(InputError, match=r"all \d+ samples are of one document"):
        text_sweep(BUILDS[0], few, groups=["one"] * len(few), **options)
    with pytest.raises(InputError, match="take all 2 documents"):
        text_sweep(BUILDS[0], few, groups=[1] + [2] * (len(few) - 1), **{**options, "n_test": 10**6})
    with pytest.raises(InputError, match="5 folds of whole documents need as many documents; the pool holds 4"):
        text_sweep(BUILDS[0], few, groups=labels, **{**options, "oracle": None, "folds": 5})


def test_texts_are_cut_where_their_tokens_are(documents):
    made = fixed_length(documents, seq_len=16, vocab_size=400)
    assert made.ids.shape[1] == 16
    assert made.vocab_size == 400
    rows = set(map(tuple, made.ids.tolist()))
    assert len(rows) == len(made.ids)
    for document in documents[:20]:
        ids = made.tokenizer(document)["input_ids"]
        assert made.tokenizer.decode(ids) == document
        for start in range(0, len(ids) - 15, 16):
            assert tuple(ids[start : start + 16]) in rows
    given = fixed_length(documents, seq_len=16, tokenizer=made.tokenizer)
    np.testing.assert_array_equal(given.ids, made.ids)


def test_a_tokenizer_gives_every_text_back():
    tokenizer = with_end_of_text(byte_level_bpe(["abc abc"], 300), 10)
    for odd in ("is n't , so", "  two  spaces ", "Zeichen: ß 猫\n"):
        assert tokenizer.decode(tokenizer(odd)["input_ids"]) == odd
    assert tokenizer.bos_token_id == 0


def test_ids_and_options_of_documents_are_checked(tmp_path):
    with pytest.raises(InputError, match=r"token ids must lie in \[0, 4\); they reach from 1 to 5"):
        fixed_length([[1, 5]], seq_len=2, vocab_size=4)
    with pytest.raises(InputError, match="a tokenizer was given: leave one out"):
        fixed_length(["text"], seq_len=2, vocab_size=400, tokenizer=with_end_of_text(byte_level_bpe(["a"], 300), 2))
    with pytest.raises(
        InputError, match=r"must be one of transformers, or the name of one; it is a tokenizers\.Tokenizer"
    ):
        fixed_length([[1, 2]], seq_len=2, tokenizer=byte_level_bpe(["a"], 300))
    rows = tmp_path / "ids.jsonl"
    rows.write_text('{"text": [1, 2]}\n')
    with pytest.raises(InputError, match="holds token ids in 'text', and texts are expected"):
        documents_of([rows])


def test_documents_of_files_come_in_order(tmp_path):
    for name, content in (("a", "one\ntwo\n"), ("b", "three\n")):
        (tmp_path / f"{name}.txt").write_text(content)
    assert documents_of([tmp_path / "b.txt", tmp_path / "a.txt"]) == ["three", "one", "two"]
    assert len(documents_of(None)) > 1000


def test_builders_in_any_order_give_the_same(sweep, documents, place):
    again = text_sweep(BUILDS[::-1], documents, store=place, **OPTIONS)
    pd.testing.assert_frame_equal(again.cells, sweep.cells)
    assert dataclasses.replace(again).settings["models"] == sweep.settings["models"]
