"""All attacks at once: each is the attack alone; controls find nobody; what is left out, and why."""

import itertools
import sys
import warnings

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st

from memorization import UniformModel, compress_bits, unintended_memorization
from memorization.data import addresses
from memorization.errors import InputError, ResultError, SameModelWarning, SplitLeakWarning, UnequalSetsWarning
from memorization.lab.architectures import Architecture
from memorization.lab.random_tokens import random_tokens
from memorization.lab.stack import train_stack
from memorization.measure import open_model
from memorization.membership import (
    MembershipAudit,
    audit_membership,
    bag_of_words_auc,
    f1_and_auc,
    loss_attack,
    membership_metrics,
    min_k_attack,
    min_k_plus_plus_attack,
    reference_attack,
    token_moments,
    zlib_attack,
    zlib_bits,
)
from memorization.samples import read_samples

VOCAB, SEQ_LEN = 64, 16
SCORES = st.lists(st.integers(-4, 4).map(float), min_size=2, max_size=10)


@pytest.fixture(scope="module")
def sets():
    """Random tokens, of which nothing is known beforehand: members and others differ in nothing but having been seen."""
    ids = random_tokens(240, SEQ_LEN, VOCAB, seed=5)
    return ids[:80], ids[80:160], ids[160:]


def trained_on(ids: torch.Tensor) -> torch.nn.Module:
    torch.manual_seed(0)
    model = Architecture("gpt2", width=16)(VOCAB, SEQ_LEN)
    train_stack([model], [ids], context=0, steps=12, batch_size=40, peak_lrs=[0.02], seeds=[0])
    return model


@pytest.fixture(scope="module")
def model(sets):
    return trained_on(sets[0])


@pytest.fixture(scope="module")
def audit(model, sets) -> MembershipAudit:
    return audit_membership(model, sets[0], sets[1], oracle=UniformModel(VOCAB), first_token=0, progress=False)


def test_scores_join_back_to_the_rows_of_the_input(tmp_path):
    """Blank rows counted, in memory and when saved; the smallest score first. Larger ids are likelier here."""

    def model(ids: torch.Tensor) -> torch.Tensor:
        return torch.arange(16.0).expand(*ids.shape, 16)

    paths = []
    for name, rows in (("seen", ["1", None, "7, 7", "3"]), ("unseen", ["4", "6, 6", "5"])):
        paths.append(tmp_path / f"{name}.jsonl")
        lines = ("" if row is None else f'{{"text": [{row}]}}' for row in rows)
        paths[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        audit = audit_membership(model, *paths, first_token=0, progress=False)
    audit.save(tmp_path / "audit")
    for found in (audit.attacks["loss"], MembershipAudit.load(tmp_path / "audit").attacks["loss"]):
        assert (np.diff(found.member_scores) > 0).all()
        assert found.member_index.tolist() == [0, 3, 2]
        assert found.nonmember_index.tolist() == [0, 2, 1]


def test_each_is_the_attack_alone(audit, model, sets):
    members, nonmembers = (compress_bits(model, ids, first_token=0, progress=False) for ids in sets[:2])
    memorized = unintended_memorization(
        model, UniformModel(VOCAB), sets[0], control=sets[1], first_token=0, progress=False
    )
    alone = {
        "loss": (loss_attack(members), loss_attack(nonmembers)),
        "reference": (memorized.ideal_signed_bits, memorized.control.ideal_signed_bits),
        "min_k": (min_k_attack(members), min_k_attack(nonmembers)),
        "min_k_plus_plus": tuple(
            min_k_plus_plus_attack(part, *token_moments(model, part)) for part in (members, nonmembers)
        ),
    }
    assert list(audit.attacks) == list(alone)
    for name, scores in alone.items():
        there, here = audit.attacks[name], membership_metrics(*scores)
        assert there.to_pandas().equals(here.to_pandas()), name
        np.testing.assert_array_equal(there.member_scores, here.member_scores)
    assert 0.6 < audit.attacks["loss"].auc < 1  # 12 steps: some of it, or the test would show nothing
    assert audit.bag_of_words is not None
    assert not audit.bag_of_words.leaks


# Of eighteen 95 % intervals one leaves chance out; so the next two tests ask for 99.9 %.


def test_a_target_that_has_seen_neither_shows_no_excess(sets):
    other = audit_membership(
        trained_on(sets[2]), sets[0], sets[1], oracle=UniformModel(VOCAB), first_token=0, progress=False, level=0.999
    )
    for name, attack in other.attacks.items():
        low, high = attack.auc_interval
        assert low < 0.5 < high, name
        low, high = attack.f1_interval
        assert low < 0.5 < high, name


def test_random_labels_are_at_chance(model, sets):
    """Members and non-members dealt into two hands: no attack tells the hands apart."""
    both = torch.cat(sets[:2])[torch.randperm(160, generator=torch.Generator().manual_seed(1))]
    dealt = audit_membership(model, both[:80], both[80:], first_token=0, progress=False, level=0.999)
    for name, attack in dealt.attacks.items():
        assert attack.auc_interval[0] < 0.5 < attack.auc_interval[1], name
        assert attack.f1_interval[0] < 0.5 < attack.f1_interval[1], name


@pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")  # an oracle of random weights
def test_texts_are_attacked_with_zlib_too_and_names_are_loaded(model_folder):
    texts = list(dict.fromkeys(text[:50] for text in itertools.chain(*addresses()) if len(text) > 100))[:24]
    with pytest.warns(SameModelWarning):
        found = audit_membership(str(model_folder), texts[:12], texts[12:], oracle=str(model_folder), progress=False)
    assert list(found.attacks) == ["loss", "reference", "zlib", "min_k", "min_k_plus_plus"]
    assert found.attacks["reference"].auc == 0.5  # the target is its own oracle: all differences are 0
    scores = [
        zlib_attack(compress_bits(str(model_folder), part, progress=False), part) for part in (texts[:12], texts[12:])
    ]
    np.testing.assert_array_equal(found.attacks["zlib"].member_scores, np.sort(scores[0]))
    assert "zlib" in repr(found)
    assert "IT LEAKS" not in repr(found)


def test_zlib_bits_are_bytes_of_the_stream():
    import zlib

    texts = ["", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "Bürger"]
    assert zlib_bits(texts).tolist() == [8 * len(zlib.compress(text.encode("utf-8"), 9)) for text in texts]


def test_sets_of_other_sizes_are_said_once(model, sets):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = audit_membership(model, sets[0], sets[1][:50], first_token=0, progress=False)
    assert [w.category for w in caught] == [UnequalSetsWarning]
    assert "80 members and 50 non-members" in str(caught[0].message)
    assert all(attack.settings["n_each"] == 50 for attack in found.attacks.values())


def test_a_split_that_leaks_is_said():
    members, nonmembers = [[1, 2, k] for k in range(3, 33)], [[40, 41, k] for k in range(3, 33)]
    with pytest.warns(SplitLeakWarning, match="the split leaks"):
        found = audit_membership(UniformModel(VOCAB), members, nonmembers)
    assert "IT LEAKS" in repr(found)
    assert found.attacks["loss"].auc == 0.5


def test_the_first_sample_in_both_is_named(model, sets):
    both = torch.cat([sets[1], sets[0][3:5]])
    with pytest.raises(InputError, match=r"sample 3 is also control sample 80: .* \(2 of 80 samples are in both\)"):
        audit_membership(model, sets[0], both, first_token=0, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"k_percent": 0.0}, "k_percent must lie above 0"), ({"level": 1.0}, "level must be a number between 0 and 1")],
)
def test_options_are_checked_before_anything_is_measured(sets, change, message):
    def never(ids):
        pytest.fail("measured")

    with pytest.raises(InputError, match=message):
        audit_membership(never, sets[0], sets[1], first_token=0, progress=False, **change)
    with pytest.raises(InputError, match=r"at least two control samples, to rank them .*; there is 1"):
        audit_membership(never, sets[0], sets[1][:1], first_token=0, progress=False)


def test_what_is_left_out_has_its_reason(model, sets, monkeypatch):
    few = audit_membership(model, sets[0][:9], sets[1][:9], first_token="skip", progress=False)
    assert list(few.attacks) == ["loss", "min_k"]
    assert few.bag_of_words is None
    assert "not checked: it needs 10 samples of each kind, and there are 9" in repr(few)
    assert "none, so no reference attack" in repr(few)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    without = audit_membership(model, sets[0], sets[1], first_token=0, progress=False)
    assert 'pip install "lm-memorization[audit]"' in repr(without)


def test_saved_and_loaded(audit, model, sets, tmp_path):
    audit.save(tmp_path / "audit")
    back = MembershipAudit.load(tmp_path / "audit")
    assert repr(back) == repr(audit)
    assert back.to_pandas().equals(audit.to_pandas())
    assert back.bag_of_words == audit.bag_of_words
    few = audit_membership(model, sets[0][:9], sets[1][:9], first_token=0, progress=False)
    few.save(tmp_path / "few")
    assert MembershipAudit.load(tmp_path / "few").bag_of_words is None
    settings = tmp_path / "few" / "settings.json"
    settings.write_text(settings.read_text().replace('"attacks"', '"other"'))
    with pytest.raises(ResultError, match=r"is damaged: settings\.json lacks attacks"):
        MembershipAudit.load(tmp_path / "few")


def test_a_line_an_attack(audit):
    ax = audit.plot()
    labels = [line.get_label() for line in ax.lines]
    assert labels[:-1] == [f"{name}: AUC {attack.auc:.3f}" for name, attack in audit.attacks.items()]
    assert labels[-1] == "chance"


@given(SCORES, SCORES)
def test_f1_and_auc_without_intervals_are_the_same(members, nonmembers):
    from sklearn.metrics import roc_auc_score

    n = min(len(members), len(nonmembers))
    members, nonmembers = members[:n], nonmembers[:n]
    f1, auc = f1_and_auc(members, nonmembers)
    assert auc == pytest.approx(roc_auc_score([1] * n + [0] * n, members + nonmembers))
    # Brute force: of all ways to break ties at the edge, the mean.
    edge = sorted(members + nonmembers, reverse=True)[n - 1]
    above = sum(s > edge for s in members), sum(s > edge for s in nonmembers)
    tied = members.count(edge), nonmembers.count(edge)
    assert f1 == pytest.approx((above[0] + (n - sum(above)) * tied[0] / sum(tied)) / n)


def test_f1_needs_as_many_of_both():
    with pytest.raises(InputError, match="as many members as non-members; there are 3 and 2"):
        f1_and_auc([1.0, 2.0, 3.0], [1.0, 2.0])


@pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")  # an oracle of random weights
@pytest.mark.filterwarnings("ignore::memorization.errors.NearCopiesWarning")
def test_each_checkpoint_is_loaded_once(monkeypatch, model_folder, tmp_path):
    """With the real loader, counted; and the scores are those of the attacks called one by one."""
    import transformers

    oracle = tmp_path / "oracle"
    torch.manual_seed(9)
    config = transformers.AutoConfig.from_pretrained(model_folder)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(oracle)
    loaded: list[str] = []
    real = transformers.AutoModelForCausalLM.from_pretrained

    def load(name, *args, **options):
        loaded.append(str(name))
        return real(name, *args, **options)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    samples, control = ([f"{word} met again in the year {year}." for year in range(5)] for word in ("Ann", "Ben"))
    options = {"first_token": 0, "progress": False}
    for other, expected in ((None, [str(model_folder)]), (oracle, [str(model_folder), str(oracle)])):
        loaded.clear()
        found = audit_membership(model_folder, samples, control, oracle=other, oracle_tokenizer=model_folder, **options)
        assert loaded == expected
    lengths = [compress_bits(model_folder, part, **options) for part in (samples, control)]
    under = [compress_bits(oracle, part, tokenizer=model_folder, **options) for part in (samples, control)]
    expected = [np.sort(reference_attack(ours, theirs)) for ours, theirs in zip(lengths, under, strict=True)]
    scores = found.attacks["reference"]
    np.testing.assert_array_equal(scores.member_scores, expected[0])  # ideal bits, in the audit as in the attack
    np.testing.assert_array_equal(scores.nonmember_scores, expected[1])


def test_an_open_model_and_read_samples_are_audited_as_they_are(model, sets):
    oracle = UniformModel(VOCAB)
    with open_model(model) as opened:
        read = [read_samples(part) for part in sets[:2]]
        found = audit_membership(opened, *read, oracle=oracle, first_token=0, progress=False)
    again = audit_membership(model, *sets[:2], oracle=oracle, first_token=0, progress=False)
    for name, metrics in found.attacks.items():
        np.testing.assert_array_equal(metrics.member_scores, again.attacks[name].member_scores)


def test_texts_that_were_left_out_are_counted_and_recorded(tmp_path):
    lossy = tokenizers.Tokenizer(tokenizers.models.BPE())
    lossy.normalizer, lossy.decoder = tokenizers.normalizers.Lowercase(), tokenizers.decoders.ByteLevel()
    lossy.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    lossy.train_from_iterator([], tokenizers.trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    size = lossy.get_vocab_size()
    options = {"target_tokenizer": lossy, "on_lossy_text": "skip", "first_token": "uniform", "progress": False}
    for oracle in (None, UniformModel(size)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = audit_membership(
                UniformModel(size), ["a b", "A b", "b c", "NO"], ["c d", "C d", "e f"], oracle=oracle, **options
            )
        assert found.settings["members"]["lossy_skipped"] == [1, 3]
        assert found.settings["members"]["n_samples"] == 2
        assert found.settings["nonmembers"]["lossy_skipped"] == [1]
        found.save(tmp_path / str(oracle))
        for shown in (found, MembershipAudit.load(tmp_path / str(oracle))):
            text = repr(shown)
            assert "MembershipAudit of 2 members and 2 non-members" in text
            assert "left out         2 of 4 texts of the members" in text
            assert "left out         1 of 3 texts of the non-members" in text


def test_equal_samples_are_one_draw():
    """Twenty texts ten times each say as much as twenty: where nothing is known, AUC is as unsure as of them."""
    rng = np.random.default_rng(0)
    texts = [[int(token) for token in row] for row in rng.integers(16, size=(40, 6))]
    table = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))

    def model(ids: torch.Tensor) -> torch.Tensor:
        return table[ids]

    once = audit_membership(model, texts[:20], texts[20:], first_token=0, progress=False)
    tenfold = [[each for each in part for _ in range(10)] for part in (texts[:20], texts[20:])]
    often = audit_membership(model, *tenfold, first_token=0, progress=False)
    ours, theirs = often.attacks["loss"], once.attacks["loss"]
    assert ours.auc == pytest.approx(theirs.auc)
    width = [np.ptp(np.asarray(found.auc_interval)) for found in (ours, theirs)]
    assert width[0] == pytest.approx(width[1], rel=0.15)
    assert ours.auc_p_value == pytest.approx(theirs.auc_p_value, abs=0.03)
    # The p-value of a sample is that of one of it: a text that repeats is not harder to select.
    by_score = dict(zip(theirs.member_scores.tolist(), theirs.member_p_values.tolist(), strict=True))
    assert [by_score[score] for score in ours.member_scores.tolist()] == pytest.approx(ours.member_p_values.tolist())
    assert "of 20 and 20 different samples, equal ones counted once" in str(often)
    assert "whole" not in str(once)


def test_texts_that_repeat_are_no_leak():
    """Words drawn alike: a text in two folds would be known by its words."""
    rng = np.random.default_rng(1)
    words = [" ".join(f"w{word}" for word in row) for row in rng.integers(2000, size=(40, 12))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = bag_of_words_auc(
            [each for each in words[:20] for _ in range(6)], [each for each in words[20:] for _ in range(6)]
        )
    assert not found.leaks
