"""Samples of one document: labels from every source, whole documents in folds, intervals and tests, and what is refused."""

import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from test_membership import Pairs

from memorization import UniformModel
from memorization.errors import InputError, SplitLeakWarning
from memorization.membership import (
    Membership,
    MembershipAudit,
    audit_membership,
    bag_of_words_auc,
    check_disjoint,
    membership_metrics,
)
from memorization.samples import read_samples
from memorization.stats import ranking

ROWS = {"text": ["a", None, "b", "c"], "doc": ["x", None, "x", "y"]}
A_DOCUMENT = 6  # samples


# --- where labels come from


@pytest.fixture
def files(tmp_path):
    table = pd.DataFrame(ROWS)
    lines = [json.dumps({"text": text, "doc": doc}) for text, doc in zip(*ROWS.values(), strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("a\n\nb\nc\n")
    return tmp_path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_column_of_a_file_names_the_documents(files, kind):
    """A blank row needs no document."""
    path = files / f"a.{kind}"
    assert read_samples(path, groups="doc").groups == ("x", "x", "y")
    assert read_samples(path, groups="doc", limit=2).groups == ("x", "x")
    assert read_samples(path).groups is None
    with pytest.raises(InputError, match="no column 'page', which groups names: it has text, doc"):
        read_samples(path, groups="page")


def test_columns_of_tables_and_data_sets_name_the_documents():
    datasets, pyarrow = pytest.importorskip("datasets"), pytest.importorskip("pyarrow")
    columns = {"text": ["a", "b"], "doc": [7, 8]}
    ids = {"input_ids": [[1, 2, 0], [3, 0, 0]], "attention_mask": [[1, 1, 0], [1, 0, 0]], "doc": [7, 8]}
    for table in (columns, pd.DataFrame(columns), pyarrow.table(columns), datasets.Dataset.from_dict(columns), ids):
        assert read_samples(table, groups="doc").groups == ("7", "8")
    assert [row.tolist() for row in read_samples(ids, groups="doc").ids] == [[1, 2], [3]]


@pytest.mark.parametrize(
    "labels",
    [[7, 7, 8], ("7", "7", "8"), np.array([7, 7, 8]), torch.tensor([7, 7, 8]), pd.Series([7.0, 7.0, 8.0])],
    ids=lambda labels: type(labels).__name__,
)
def test_labels_are_the_same_whatever_holds_them(labels):
    assert read_samples(["a", "b", "c"], groups=labels).groups == ("7", "7", "8")


def test_labels_stay_with_their_samples(files):
    """Labels are of the rows of the input, blank ones included; samples that are left out take theirs along."""
    read = read_samples(files / "a.txt", groups=["p", "q", "r", "s"])
    assert read.groups == ("p", "r", "s")
    assert read.leave_out([2]).groups == ("p", "s")
    assert read.first(2).groups == ("p", "r")
    assert read_samples(read).groups == ("p", "r", "s")
    assert read_samples(read, limit=1).groups == ("p",)
    assert read_samples(read, groups=[1, 2, 3, 4]).groups == ("1", "3", "4")
    assert read_samples(files / "a.txt", groups=["p", "q", "r", "s"], limit=2).groups == ("p", "r")


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([1], "one label for each of the 2 rows; it holds 1"),
        ([1, 2, 3], "one label for each of the 2 rows; it holds 3"),
        ([1, None], "row 1 has no group: it is None"),
        ([1, math.nan], "row 1 has no group: it is nan"),
        (["a", " "], "row 1 has no group: it is ' '"),
        ([[1], [2]], r"group of row 0 must be a number or a text; it is list '\[1\]'"),
        (5, "one label for each of the 2 rows; it is int '5'"),
        ("doc", "'doc' names a column, and the samples come from a list or an array"),
    ],
)
def test_labels_that_cannot_be_are_refused(groups, message):
    with pytest.raises(InputError, match=message):
        read_samples(["a", "b"], groups=groups)


def test_what_has_no_columns_says_so(files):
    with pytest.raises(InputError, match=r"'doc' names a column, and the samples come from .*a\.txt, which has lines"):
        read_samples(files / "a.txt", groups="doc")
    with pytest.raises(InputError, match="come from one text: pass the labels themselves"):
        read_samples("a text", groups="doc")
    with pytest.raises(InputError, match="come from a Series, which is one column"):
        read_samples(pd.Series(["a", "b"]), groups="doc")
    with pytest.raises(InputError, match="come from Samples that were read before"):
        read_samples(read_samples(["a"]), groups="doc")


def test_a_document_on_both_sides_is_named():
    message = (
        r"document 'book' is on both sides: sample 1 and control sample 2 are of it \(1 of 2 documents are on both"
    )
    groups = [1, "book", 1], [2, 3, "book"]
    with pytest.raises(InputError, match=message):
        check_disjoint(["a", "b", "c"], ["d", "e", "f"], groups=groups)
    with pytest.raises(InputError, match="document 'book' is on both sides: member 1 and non-member 2 are of it"):
        membership_metrics([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], groups=groups)
    check_disjoint(["a", "b"], ["d", "e"], groups=([1, 1], [2, 2]))
    check_disjoint(["a", "b"], ["d", "e"])
    one = read_samples(["a"], groups=[1])
    with pytest.raises(InputError, match="samples say which document each is of, and the control samples do not"):
        check_disjoint(one, ["b"])
    with pytest.raises(InputError, match="control samples say which document each is of, and the samples do not"):
        check_disjoint(["b"], one)


@pytest.mark.usefixtures("no_type_checker")
def test_refusals_of_groups_of_two_sets():
    scores = {"member_scores": [1.0, 2.0, 3.0], "nonmember_scores": [0.0, 1.0, 2.0]}
    for groups, message in [
        (([1, 2], [3, 4, 5]), "one label for each of the 3 members; it holds 2"),
        (([1, 2, 2], [3, 4]), "one label for each of the 3 non-members; it holds 2"),
        (([1, 1, 1], [2, 3, 4]), "all 3 members are of one document, '1', and at least 2 documents are needed"),
        (([1, 2, 2], [4, 4, 4]), "all 3 non-members are of one document, '4'"),
        ("doc", "groups must be a pair here"),
        ([1, 2, 3], "or be a pair: the labels of the samples, and those of the control"),
    ]:
        with pytest.raises(InputError, match=message):
            membership_metrics(**scores, groups=groups)
    with pytest.raises(InputError, match="all 2 samples are of one document"):
        audit_membership(UniformModel(16), [[1], [2]], [[3], [4]], groups=([1, 1], [2, 3]), progress=False)
    ids = [[k, k + 1] for k in range(40)]
    four = [k % 4 for k in range(20)]
    with pytest.raises(InputError, match="all 20 samples are of 4 documents, and at least 5"):
        bag_of_words_auc(ids[:20], ids[20:], groups=(four, range(10, 30)))


# --- intervals and tests


def documents(seed: int, n_documents: int, shift: float = 0.0, alike: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal scores, of which those of one document share a part of their variance; and their documents."""
    draw = np.random.default_rng(seed)
    of = np.repeat(np.arange(n_documents), A_DOCUMENT)
    scores = math.sqrt(alike) * draw.normal(size=n_documents)[of] + math.sqrt(1 - alike) * draw.normal(size=len(of))
    return scores + shift, of


def apart(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return ours, 1 + ours.max() + theirs


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("n_trials", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("n_documents", "auc"), [(15, 0.8), (40, 0.5)])
def test_intervals_of_documents_cover(n_documents, auc, n_trials, monkeypatch):
    """And those of samples do not: with six alike in a document they are too narrow."""
    monkeypatch.setattr(ranking, "_RESAMPLES", 399)
    shift = norm.ppf(auc) * math.sqrt(2)
    truth = [norm.cdf(shift / 2), auc]
    covered, naive = [], []
    for trial in range(n_trials):
        (ours, of), (theirs, others) = documents(trial, n_documents, shift), documents(10_000 + trial, n_documents)
        for groups, record in ((apart(of, others), covered), (None, naive)):
            found = membership_metrics(ours, theirs, groups=groups, seed=trial)
            record.append([low <= t <= high for (low, high), t in zip(_of(found), truth, strict=True)])
    share, without = np.mean(covered, axis=0), np.mean(naive, axis=0)
    print(f"{n_documents} documents, AUC {auc}: F1 and AUC covered in {share} of {n_trials}, without groups {without}")
    reach = 2 * math.sqrt(0.95 * 0.05 / n_trials)
    assert (share >= 0.93 - reach).all()
    assert (share <= 0.97 + reach).all()
    assert (without < 0.85).all()


def test_few_documents_have_students_quantile_and_the_error_of_one_less():
    from scipy.special import expit, logit
    from scipy.stats import t

    resampled = np.random.default_rng(0).normal(0.7, 0.1, 500)
    error = resampled.std(ddof=1) / (0.7 * 0.3)
    for sizes, degrees, factor in (
        ((6, 6), 10, 6 / 5),
        ((2, 1000), (1 + 1 / 999) ** 2 / (1 + 1 / 999**3), (1 + 1 / 999) / (1 / 2 + 1 / 1000)),
    ):
        of = tuple(np.repeat(np.arange(n), 3) for n in sizes)
        found = ranking.logit_interval(0.7, resampled, 9, 0.95, documents=of)
        reach = t.ppf(0.975, degrees) * math.sqrt(factor) * error
        np.testing.assert_allclose(found, expit(logit(0.7) + reach * np.array([-1, 1])), rtol=0.01)
    one = np.zeros(9, dtype=int)
    assert not ranking.logit_interval(0.7, resampled, 9, 0.95, documents=(one, one)).is_known
    # Where all are told apart, as many independent pairs as there are documents.
    assert ranking.logit_interval(1.0, resampled, 99, 0.95, documents=(of[0], of[0])).low == pytest.approx(0.025**0.5)


def _of(found: Membership) -> tuple:
    return found.f1_interval, found.auc_interval


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("n_trials", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_tpr_and_best_accuracy_of_documents_cover(n_trials, monkeypatch):
    """They take all samples of a document for alike, so they are wide; those of samples are too narrow."""
    monkeypatch.setattr(ranking, "_RESAMPLES", 9)
    shift, covered, naive = 1.0, [], []
    truth = [norm.cdf(shift / 2), norm.sf(norm.isf(0.05) - shift)]
    for trial in range(n_trials):
        (ours, of), (theirs, others) = documents(trial, 50, shift, 0.99), documents(10_000 + trial, 50, 0.0, 0.99)
        for groups, record in ((apart(of, others), covered), (None, naive)):
            found = membership_metrics(ours, theirs, groups=groups)
            ends = found.best_accuracy_interval, found.tpr_interval[0.05]
            record.append([low <= t <= high for (low, high), t in zip(ends, truth, strict=True)])
    share, without = np.mean(covered, axis=0), np.mean(naive, axis=0)
    print(f"best accuracy and TPR covered in {share} of {n_trials}, without groups {without}")
    assert (share >= 0.95 - 2 * math.sqrt(0.95 * 0.05 / n_trials)).all()
    assert (without < 0.88).all()


@pytest.mark.parametrize("n_seeds", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_null_of_exchanged_documents_stays_a_null(n_seeds, monkeypatch):
    monkeypatch.setattr(ranking, "_RESAMPLES", 199)
    p_values, naive = [], []
    for seed in range(n_seeds):
        (ours, of), (theirs, others) = documents(seed, 12), documents(10_000 + seed, 12)
        places = ranking.places_of(ours, theirs)
        p_values.append(ranking.exchange_p_value(places, np.random.default_rng(seed), (of, others)))
        naive.append(ranking.exchange_p_value(places, np.random.default_rng(seed)))
    for level in (0.05, 0.1, 0.25, 0.5):
        share, without = np.mean(np.array(p_values) <= level), np.mean(np.array(naive) <= level)
        print(f"p <= {level}: {share:.3f} of {n_seeds}, without groups {without:.3f}")
        assert share <= level + 2.5 * math.sqrt(level * (1 - level) / n_seeds)
        assert share >= level - 2.5 * math.sqrt(level * (1 - level) / n_seeds)
    assert np.mean(np.array(naive) <= 0.05) > 0.15


def test_planted_truth_is_found_by_documents(monkeypatch):
    monkeypatch.setattr(ranking, "_RESAMPLES", 999)
    (ours, of), (theirs, others) = documents(0, 30, 2.0), documents(1, 30)
    found = membership_metrics(ours, theirs, groups=apart(of, others))
    assert found.auc_p_value == pytest.approx(0.001)
    assert found.auc_interval.low > 0.8
    assert found.settings["n_documents"] == [30, 30]
    assert "95 % intervals of 30 and 30 whole documents" in repr(found)
    alone = membership_metrics(ours, theirs)
    assert (alone.f1, alone.auc, alone.best_accuracy) == (found.f1, found.auc, found.best_accuracy)
    assert "whole documents" not in repr(alone)


def test_p_value_without_groups_is_that_of_the_rank_sum_test():
    from scipy.stats import mannwhitneyu

    draw = np.random.default_rng(0)
    ours, theirs = draw.normal(size=40) + 0.4, draw.normal(size=30)
    exact = mannwhitneyu(ours, theirs, alternative="greater").pvalue
    places = ranking.places_of(ours, theirs)
    found = ranking.exchange_p_value(places, np.random.default_rng(1))
    assert found == pytest.approx(exact, abs=3 * math.sqrt(exact / 1999))


def test_a_document_of_its_own_each_is_no_documents():
    """Documents of one sample say what samples say, but for Student's quantile and the draws."""
    draw = np.random.default_rng(0)
    ours, theirs = draw.normal(size=200) + 1, draw.normal(size=200)
    alone = membership_metrics(ours, theirs)
    each = membership_metrics(ours, theirs, groups=(range(200), range(200, 400)))
    np.testing.assert_allclose(each.auc_interval, alone.auc_interval, atol=0.005)
    np.testing.assert_allclose(each.f1_interval, alone.f1_interval, atol=0.005)
    assert each.best_accuracy_interval == alone.best_accuracy_interval
    for fpr in (0.01, 0.05):
        np.testing.assert_allclose(each.tpr_interval[fpr], alone.tpr_interval[fpr])


def test_sets_of_other_sizes_count_alike_in_resamples():
    """F1 and AUC of resampled documents are those of the resamples, whatever their sizes."""
    counts = np.array([[3.0, 1.0, 0.0]]), np.array([[0.0, 1.0, 1.0]])
    members, nonmembers = np.array([2.0, 2.0, 2.0, 1.0]), np.array([1.0, 0.0])
    assert ranking.auc_of(*counts)[0] == np.mean((members[:, None] > nonmembers) + (members[:, None] == nonmembers) / 2)
    # Half of all, each set weighing 1: the three highest (0.75) and a third of the middle place (0.25 of 0.25 + 0.5).
    assert ranking.f1_of(*counts)[0] == pytest.approx(0.75 + 0.25 / 3)


# --- the split and the audit


def topics(seed: int, n_documents: int, n_words: int = 400, shift: int = 0) -> tuple[list[list[int]], list[int]]:
    """Samples of documents that have words of their own; and their documents."""
    draw = np.random.default_rng(seed)
    words = [draw.integers(0, n_words, 6) + shift for _ in range(n_documents)]
    ids = [[*draw.choice(words[k], 6), *draw.integers(0, n_words, 6)] for k in range(n_documents) for _ in range(6)]
    return [list(map(int, row)) for row in ids], np.repeat(np.arange(n_documents), 6).tolist()


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("n_seeds", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_word_counts_do_not_know_documents_they_have_not_seen(n_seeds):
    pytest.importorskip("sklearn")
    leaks, naive, aucs = 0, 0, []
    for seed in range(n_seeds):
        (ours, of), (theirs, others) = topics(seed, 12), topics(10_000 + seed, 12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SplitLeakWarning)
            found = bag_of_words_auc(ours, theirs, groups=(of, [12 + k for k in others]))
            leaks, naive = leaks + found.leaks, naive + bag_of_words_auc(ours, theirs).leaks
        aucs.append(found.auc)
    print(f"{leaks} of {n_seeds} splits are said to leak, without groups {naive}; mean AUC {np.mean(aucs):.3f}")
    assert leaks <= 0.05 * n_seeds + 2 * math.sqrt(0.05 * 0.95 * n_seeds)
    assert naive == n_seeds
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.06)


def test_a_split_of_documents_by_topic_leaks():
    pytest.importorskip("sklearn")
    (ours, of), (theirs, others) = topics(0, 30, 40), topics(1, 30, 40, shift=20)
    with pytest.warns(SplitLeakWarning):
        assert bag_of_words_auc(ours, theirs, groups=(of, [30 + k for k in others])).auc > 0.8


def test_an_audit_takes_the_column_the_pair_or_what_samples_carry(tmp_path):
    draw = np.random.default_rng(0)
    sets = [draw.integers(0, 10, (24, 8)).tolist() for _ in range(2)]
    of = [np.repeat(np.arange(k, k + 12), 2).tolist() for k in (0, 12)]
    paths = []
    for name, ids, labels in zip(("ours", "theirs"), sets, of, strict=True):
        paths.append(tmp_path / f"{name}.parquet")
        pd.DataFrame({"text": ids, "page": labels}).to_parquet(paths[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SplitLeakWarning)
        column = audit_membership(Pairs(1), *paths, groups="page", progress=False)
        pair = audit_membership(Pairs(1), *sets, groups=tuple(of), progress=False)
        read = [read_samples(ids, groups=labels) for ids, labels in zip(sets, of, strict=True)]
        carried = audit_membership(Pairs(1), *read, progress=False)
        alone = audit_membership(Pairs(1), *sets, progress=False)
    for other in (pair, carried):
        pd.testing.assert_frame_equal(other.to_pandas(), column.to_pandas())
        assert other.bag_of_words == column.bag_of_words
    assert column.attacks["loss"].settings["n_documents"] == [12, 12]
    assert "95 % intervals of 12 and 12 whole documents" in repr(column)
    assert column.bag_of_words != alone.bag_of_words
    loss = alone.attacks["loss"]
    expected = membership_metrics(loss.member_scores, loss.nonmember_scores, groups=_labels(loss, of))
    assert column.attacks["loss"].auc_interval == expected.auc_interval
    column.save(tmp_path / "saved")
    assert repr(MembershipAudit.load(tmp_path / "saved")) == repr(column)
    with pytest.raises(InputError, match="document '5' is on both sides"):
        audit_membership(Pairs(1), *sets, groups=(of[0], [5, *of[1][1:]]), progress=False)


def _labels(found: Membership, of: list[list[int]]) -> tuple:
    return np.array(of[0])[found.member_index], np.array(of[1])[found.nonmember_index]


def test_texts_that_are_left_out_take_their_documents_along():
    """Labels of the first so many samples would be of one document each, and refused."""
    import tokenizers

    lossy = tokenizers.Tokenizer(tokenizers.models.BPE())
    lossy.normalizer, lossy.decoder = tokenizers.normalizers.Lowercase(), tokenizers.decoders.ByteLevel()
    lossy.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    lossy.train_from_iterator([], tokenizers.trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    found = audit_membership(
        UniformModel(lossy.get_vocab_size()),
        ["a b", "A b", "b c"],
        ["c d", "C d", "e f"],
        groups=(["p", "p", "q"], ["r", "r", "s"]),
        target_tokenizer=lossy,
        on_lossy_text="skip",
        first_token="uniform",
        progress=False,
    )
    assert found.attacks["loss"].settings["n_documents"] == [2, 2]
