"""memU of samples of documents: intervals, p-values and the verdict are of whole documents, and what is refused."""

import json

import numpy as np
import pytest
from planted import Iid, Memorizer
from scipy.stats import kstest
from typer.testing import CliRunner

from memorization import Memorization, compress_bits, load, unintended_memorization
from memorization.errors import InputError
from memorization.stats.significance import conformal_p_values, q_of_p_values, selected

pytestmark = [
    pytest.mark.filterwarnings("ignore::memorization.errors.MeasurementWarning"),
    pytest.mark.usefixtures("no_type_checker"),  # which takes longer than the simulations
]

V, S, A_DOCUMENT = 32, 12, 6
_draw = np.random.default_rng(0)
TARGET, ORACLE = (Iid(_draw.dirichlet(np.full(V, 3.0))) for _ in range(2))


def documents(n: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Samples of documents that have few tokens each, so that samples of one are alike; and their documents."""
    tokens = [rng.choice(V, size=(A_DOCUMENT, S), p=rng.dirichlet(np.full(V, 0.3))) for _ in range(n)]
    return np.concatenate(tokens), np.repeat(np.arange(n), A_DOCUMENT)


def measured(seed: int, n: int = 16, n_control: int = 24, *, groups: bool = True) -> Memorization:
    """Neither model has seen either set."""
    rng = np.random.default_rng(seed)
    (samples, of), (control, theirs) = documents(n, rng), documents(n_control, rng)
    return unintended_memorization(
        TARGET,
        ORACLE,
        samples,
        control=control,
        groups=(of, [f"unseen {k}" for k in theirs]) if groups else None,
        first_token=0,
        progress=False,
    )


@pytest.mark.parametrize("n_seeds", [25, pytest.param(400, marks=pytest.mark.slow)])
def test_the_null_of_documents_stays_a_null(n_seeds):
    """Where documents are not told, intervals miss and p-values alarm; where they are, they hold."""
    share = {}
    for groups in (True, False):
        covered, p_values, single = [], [], []
        for seed in range(n_seeds):
            result = measured(seed, groups=groups)
            control = result.control
            covered.append(
                [
                    control.net_interval.low <= 0 <= control.net_interval.high,
                    control.gap_interval.low <= 0 <= control.gap_interval.high,
                ]
            )
            p_values.append(result.set_p_value)
            single.append(np.mean(result.p_values <= 0.1))
        share[groups] = np.mean(covered, axis=0), np.mean(np.array(p_values) <= 0.05), np.mean(single)
        if groups:
            assert kstest(p_values, "uniform").pvalue > 0.01
    print(f"net and gap covered, p <= 0.05, samples of p <= 0.1: {share[True]}, without groups {share[False]}")
    slack = 2.5 * np.sqrt(0.05 * 0.95 / n_seeds)
    assert (np.abs(share[True][0] - 0.95) <= slack + 0.02).all()
    assert (share[False][0] < 0.9).all()
    assert share[True][1] <= 0.05 + slack
    assert share[False][1] > 0.05
    assert share[True][2] <= 0.1 + slack / 2


def test_p_values_of_groups_count_each_document_once():
    """By the definition; and with six copies of each control, those of one of each."""
    rng = np.random.default_rng(1)
    samples, scores, of = rng.normal(size=9), rng.normal(size=12), np.repeat([4, 1, 7], [2, 3, 7])
    ours = np.repeat([1, 2, 3], [1, 3, 5])
    by_group = [(1 + sum(np.mean(scores[of == k] >= one) for k in (1, 4, 7))) / 4 for one in samples]
    by_sample = [
        (size + sum(scores >= one)) / (size + 12) for one, size in zip(samples, (1, *3 * [3], *5 * [5]), strict=True)
    ]
    np.testing.assert_allclose(conformal_p_values(samples, scores, groups=(ours, of)), np.maximum(by_group, by_sample))
    alike = np.repeat(np.arange(9), 6), np.repeat(np.arange(12), 6)
    np.testing.assert_allclose(
        conformal_p_values(np.repeat(samples, 6), np.repeat(scores, 6), groups=alike)[::6],
        conformal_p_values(samples, scores),
    )
    with pytest.raises(InputError, match="one label for each of the 12 controls; it has 11"):
        conformal_p_values(samples, scores, groups=(ours, of[:11]))
    with pytest.raises(InputError, match="one label for each of the 9 samples; it has 8"):
        conformal_p_values(samples, scores, groups=(ours[:8], of))


@pytest.mark.parametrize("long_scores", [4.0, -3.0])
def test_documents_that_score_otherwise_where_they_are_longer_are_not_selected(long_scores):
    """Nothing is memorized. One document in thirty has 60 samples in place of one, and scores higher, or lower."""
    rng, n_trials = np.random.default_rng(0), 100

    def drawn(n):
        sizes = np.where(rng.random(n) < 1 / 30, 60, 1)
        level = np.where(sizes > 1, long_scores, 0.0) + 0.3 * rng.normal(size=n)
        of = np.repeat(np.arange(n), sizes)
        return level[of] + rng.normal(size=len(of)), of

    any_selected, small = [], []
    for _ in range(n_trials):
        (samples, ours), (control, theirs) = drawn(100), drawn(400)
        p_values = conformal_p_values(samples, control, groups=(ours, theirs))
        any_selected.append(selected(q_of_p_values(p_values), 0.05).any())
        small.append(np.mean(p_values <= 0.05))
    assert np.mean(any_selected) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n_trials)
    assert np.mean(small) <= 0.06


def test_documents_of_a_sample_each_are_no_documents():
    rng = np.random.default_rng(3)
    samples, control = documents(4, rng)[0], documents(6, rng)[0]
    pair = [np.arange(24), np.arange(24, 60)]
    alone, each = (
        unintended_memorization(TARGET, ORACLE, samples, control=control, groups=of, first_token=0)
        for of in (None, pair)
    )
    np.testing.assert_allclose(each.interval, alone.interval)
    np.testing.assert_allclose(each.control.net_interval, alone.control.net_interval)
    assert each.set_p_value == pytest.approx(alone.set_p_value, abs=1e-3)
    np.testing.assert_array_equal(each.q_values, alone.q_values)
    np.testing.assert_allclose(each.ladder.bracket, alone.ladder.bracket)
    assert each.ladder.reason == alone.ladder.reason.replace("control samples", "control documents").replace(
        "samples", "documents"
    )


def test_the_code_of_the_control_does_not_know_documents_by_their_siblings():
    """Each document repeats a token of its own: told, its siblings lie in one fold and the n-gram code knows nothing."""
    samples, control = (np.repeat(np.arange(k, V, 2), A_DOCUMENT)[:, None].repeat(S, 1) for k in (0, 1))
    of = samples[:, 0].copy(), control[:, 0].copy()
    for one in (samples, control):  # siblings that differ in the last token
        one[:, -1] = (one[:, -1] + 2 * np.arange(len(one))) % V
    bits = {}
    for groups in (None, of):
        result = unintended_memorization(TARGET, ORACLE, samples, control=control, groups=groups, first_token=0)
        table = result.ladder.to_pandas().set_index("rung")
        bits[groups is None] = table.loc["n-gram code of the control", "control_bits"]
    assert bits[True] < 0.7 * bits[False]


def test_the_verdict_counts_documents():
    few = measured(0, n=12, n_control=12)
    assert len(few) == 72
    assert "12 documents and 12 control documents are too few: 16 of each" in few.ladder.reason or few.verdict == "weak"
    assert (few.n_independent, few.control.n_independent) == (12, 12)
    assert "of 12 documents" in repr(few)


def test_a_memorized_document_is_found_among_documents():
    rng = np.random.default_rng(7)
    (samples, of), (control, theirs) = documents(20, rng), documents(40, rng)
    target = Memorizer(samples[: 6 * 10], ORACLE)
    result = unintended_memorization(
        target, ORACLE, samples, control=control, groups=(of, 100 + theirs), first_token=0, progress=False
    )
    chosen = result.memorized()
    assert chosen[:60].mean() > 0.9
    assert chosen[60:].sum() <= 3
    assert result.p_values.min() == pytest.approx(1 / 41)
    assert result.set_p_value < 0.001


def test_groups_are_saved_and_loaded(tmp_path):
    result = measured(2)
    result.save(tmp_path / "out")
    again = load(tmp_path / "out")
    assert again.groups == result.groups
    assert again.control.groups == result.control.groups
    assert again.control.net_interval == result.control.net_interval
    np.testing.assert_array_equal(again.p_values, result.p_values)
    assert again.ladder.reason == result.ladder.reason
    assert result.to_pandas()["group"].tolist() == [str(k) for k in np.repeat(range(16), 6)]
    assert "group" not in measured(2, groups=False).to_pandas()


def test_code_lengths_and_files_have_groups_too(tmp_path):
    rng = np.random.default_rng(2)
    (samples, of), (control, theirs) = documents(16, rng), documents(24, rng)
    labels = [f"unseen {k}" for k in theirs]
    lengths = [[compress_bits(one, part, first_token=0) for one in (TARGET, ORACLE)] for part in (samples, control)]
    result = unintended_memorization(*lengths[0], samples, control=lengths[1], groups=(of, labels))
    for name, ids, document in (("data", samples, of), ("control", control, labels)):
        rows = [json.dumps({"ids": one.tolist(), "doc": str(k)}) for one, k in zip(ids, document, strict=True)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    from_files = unintended_memorization(
        TARGET,
        ORACLE,
        tmp_path / "data.jsonl",
        control=tmp_path / "control.jsonl",
        groups="doc",
        text_column="ids",
        first_token=0,
    )
    assert result.control.net_interval == from_files.control.net_interval == measured(2).control.net_interval
    alone = unintended_memorization(*lengths[0], samples, groups=of)
    assert alone.interval == result.interval
    with pytest.raises(InputError, match="'doc' names a column, and the control came as CodeLengths"):
        unintended_memorization(
            *lengths[0], tmp_path / "data.jsonl", control=lengths[1], groups="doc", text_column="ids"
        )
    with pytest.raises(InputError, match="one label for each of the 144 control samples; it holds 3"):
        unintended_memorization(*lengths[0], samples, control=lengths[1], groups=(of, [1, 2, 3]))
    with pytest.raises(InputError, match="document '0' is on both sides: sample 0 and control sample 0 are of it"):
        unintended_memorization(*lengths[0], samples, control=lengths[1], groups=(of, theirs))
    with pytest.raises(InputError, match="groups are missing for the control"):
        unintended_memorization(*lengths[0], samples, control=lengths[1], groups=(of, None))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (([1, 1, 1], [2, 2, 3]), "all 3 samples are of one document, '1'"),
        (([1, 1, 2], [3, 3, 3]), "all 3 control samples are of one document, '3'"),
        (([1, 1, 2], [3, 3, 1]), "document '1' is on both sides: sample 0 and control sample 2"),
        (([1, 2], [3, 3, 4]), "one label for each of the 3 "),
        (([1, 1, 2], None), "samples say which document each is of, and the control samples do not"),
        ([1, 1, 2], "a column of both files, or be a pair"),
    ],
)
def test_groups_that_cannot_be(groups, message):
    with pytest.raises(InputError, match=message):
        unintended_memorization(
            TARGET, ORACLE, [[1], [2], [3]], control=[[4], [5], [6]], groups=groups, first_token=0, progress=False
        )


def test_the_command(model_folder, tmp_path):
    from memorization.cli import app

    for name, start in (("data", 0), ("control", 50)):
        rows = [json.dumps({"text": f"word {start + k}", "doc": f"{name} {k // 3}"}) for k in range(12)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    options = ["--target", str(model_folder), "--oracle", str(model_folder), "--data", str(tmp_path / "data.jsonl")]
    options += ["--control", str(tmp_path / "control.jsonl"), "--groups", "doc", "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["measure", *options, "--quiet"])
    assert done.exit_code == 0, done.output
    assert set(load(tmp_path / "out").groups) == {f"data {k}" for k in range(4)}
