"""Parts of results, their rows, the most memorized, means by a column, what a notebook shows."""

import math
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from memorization import UniformModel, compress_bits, load, read_samples, unintended_memorization, which_samples
from memorization.errors import InputError, ResultError
from memorization.measure.code_lengths import CodeLengths
from memorization.stats.means import difference_interval, mean_interval
from memorization.unintended import Memorization

matplotlib.use("Agg")
LENGTH, VOCAB = 12, 64


def knows(learned):
    """A model that gives its next token 9 nats more where the prefix is one of a learned sample's."""
    following = {tuple(row[:k]): row[k] for row in learned for k in range(len(row))}

    def model(ids):
        logits = torch.zeros(*ids.shape, VOCAB)
        for row, one in enumerate(ids.tolist()):
            for place in range(len(one)):
                if (found := following.get(tuple(one[: place + 1]))) is not None:
                    logits[row, place, found] = 9.0
        return logits

    return model


def drawn(n, seed):
    return np.random.default_rng(seed).integers(VOCAB, size=(n, LENGTH)).tolist()


SEEN, UNSEEN = drawn(40, 1), drawn(60, 2)
SEEN[7] = SEEN[3]  # a sample that comes again
ROWS = [
    {"input_ids": row, "uid": f"r{i}", "source": "web" if i < 30 else "book" if i < 39 else None, "doc": i // 2}
    for i, row in enumerate(SEEN)
]


@pytest.fixture(scope="module")
def found():
    return measured()


def measured(control=True, groups=False, **options):
    seen = read_samples(ROWS, id_column="uid", keep=["source", "doc"], groups="doc" if groups else None)
    unseen = read_samples(UNSEEN, groups=[100 + i // 2 for i in range(60)] if groups else None)
    return unintended_memorization(
        knows(SEEN[:30]), UniformModel(VOCAB), seen, control=unseen if control else None, progress=False, **options
    )


# --- Parts


def check_is_part(part, whole, places):
    """All figures of a part are those of the samples at these places."""
    for name in ("bits", "signed_bits", "ideal_bits", "ideal_signed_bits", "joint_bits", "mem_bits", "intended_bits"):
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[places], rtol=0, atol=1e-9, err_msg=name)
    for role in ("target", "oracle"):
        ours, theirs = getattr(part, role), getattr(whole, role)
        assert ours.index.tolist() == theirs.index[places].tolist()
        for k, place in enumerate(places):
            own, its = (slice(*one.token_offsets[i : i + 2]) for one, i in ((ours, k), (theirs, place)))
            for name in ("token_bits", "token_ids", "token_greedy"):
                assert getattr(ours, name)[own].tolist() == getattr(theirs, name)[its].tolist()
    assert part.to_pandas()["id"].tolist() == whole.to_pandas()["id"].iloc[places].tolist()


@pytest.mark.parametrize("groups", [False, True])
def test_a_part_is_what_measuring_it_alone_gives(groups):
    whole = measured(groups=groups)
    mask = np.arange(40) % 4 > 1
    places = np.flatnonzero(mask)
    part = whole[mask]
    check_is_part(part, whole, places)
    rows = [ROWS[place] for place in places]
    alone = unintended_memorization(
        knows(SEEN[:30]),
        UniformModel(VOCAB),
        read_samples(rows, id_column="uid", keep=["source"], groups="doc" if groups else None),
        control=read_samples(UNSEEN, groups=[100 + i // 2 for i in range(60)] if groups else None),
        progress=False,
    )
    np.testing.assert_allclose(part.bits, alone.bits, atol=0.05)
    assert part.interval == pytest.approx(alone.interval, abs=0.05)
    assert part.control.net_bits == pytest.approx(alone.control.net_bits, abs=1)
    assert part.control.net_interval == pytest.approx(alone.control.net_interval, abs=1)
    assert part.verdict == alone.verdict
    assert part.q_values.tolist() == pytest.approx(alone.q_values.tolist())
    assert part.groups == alone.groups
    assert part.control.groups == alone.control.groups == whole.control.groups
    assert part.settings["n_repeated"] == alone.settings["n_repeated"] == 1


def test_forms_of_a_part(found):
    table = found.to_pandas()
    web = list(range(30))
    for part in (
        slice(30),
        web,
        np.arange(30),
        table["source"] == "web",
        [i < 30 for i in range(40)],
        np.arange(40) < 30,
    ):
        check_is_part(found[part], found, web)
    check_is_part(found[[5, -1]], found, [5, 39])
    check_is_part(found[2:30][1::2], found, list(range(3, 30, 2)))
    assert found[2:30][1::2].target.settings["samples"] == found[3:30:2].target.settings["samples"]
    assert "part" in repr(found[:10])
    assert "10 of 40 samples" in repr(found[:10])
    assert found[:10].control.signed_bits.tolist() == found.control.signed_bits.tolist()  # all of it
    assert found[:10].p_values.tolist() == found.p_values[:10].tolist()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (slice(5, 5), "none of the 40 samples is left in this part"),
        ([], "none of the 40 samples is left"),
        (np.zeros(40, dtype=bool), "none of the 40 samples is left"),
        ([True] * 39, "a mask must have one truth value for each of the 40 samples; it has 39"),
        ([40], "sample 40 was asked for, and there are 40, counted from 0"),
        (40, "sample 40 was asked for"),
        (-41, "sample -41 was asked for"),
        ([1, 1], "places must differ"),
        ([1, -39], "places must differ"),
        ("r1", "a part of a result is a slice, a mask of truth values or a list of places"),
        ([0.5], "a part of a result is a slice"),
        (pd.Series([True] * 39 + [None], dtype="boolean"), "missing for some: fill it in"),
    ],
)
def test_parts_that_are_none(found, part, message):
    with pytest.raises(InputError, match=message):
        found[part]


def test_a_part_is_saved_and_loaded(found, tmp_path):
    part = found[[3, 9, 20]]
    part.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, Memorization)
    pd.testing.assert_frame_equal(again.to_pandas(), part.to_pandas())
    assert repr(again) == repr(part)
    check_is_part(again, found, [3, 9, 20])
    check_is_part(again[1:], found, [9, 20])


def test_a_part_is_not_taken_for_the_whole(found):
    with pytest.raises(ResultError, match=r"3 from list of 40 \(a part of 40: pass the whole\) were measured"):
        which_samples(found[:3], SEEN)
    with pytest.raises(ResultError):
        unintended_memorization(found.target[:3], found.oracle[1:4], SEEN[:3], progress=False)


def test_parts_of_code_lengths_with_texts_prompts_and_other_oracles(bpe_tokenizer, tiny_gpt2):
    texts = ["the first text", "a second one", "and the third"]
    lengths = compress_bits(tiny_gpt2, texts, tokenizer=bpe_tokenizer, progress=False)
    part = lengths[[2, 0]]
    assert part.bits_by_byte(0).tolist() == lengths.bits_by_byte(2).tolist()
    assert part.bits_by_byte(1).tolist() == lengths.bits_by_byte(0).tolist()
    rows = [{"q": "so", "text": one} for one in texts]
    given = compress_bits(
        tiny_gpt2, read_samples(rows, prompt_column="q"), tokenizer=bpe_tokenizer, first_token="bos", progress=False
    )
    assert "the prompts of the samples (not counted)" in repr(given[:2])
    assert len(given[:2].settings["samples"]["conditional"]["prompts"]) == 2
    both = unintended_memorization(
        knows(SEEN[:30]), [UniformModel(VOCAB), knows(SEEN[30:40])], SEEN, control=UNSEEN, progress=False
    )
    assert both[:5].other_oracles[0][0].bits.tolist() == both.other_oracles[0][0].bits[:5].tolist()
    assert len(both[:5].ladder.rungs) == len(both.ladder.rungs)


# --- Rows


def test_rows_come_one_by_one(found):
    rows = list(found)
    assert len(rows) == len(found) == 40
    assert rows[3] == found[3]
    assert found[-1]["id"] == "r39"
    assert found[-1]["source"] is None
    assert [row["sample"] for row in rows] == list(range(40))
    assert list(rows[0]) == list(found.to_pandas().columns)
    rows[0]["bits"] = -1.0
    assert found[0]["bits"] != -1.0  # a copy
    assert [row["n_tokens"] for row in found.target] == [LENGTH] * 40


def test_the_most_memorized(found):
    table = found.top(4)
    assert table["signed_bits"].is_monotonic_decreasing
    assert set(table["source"]) == {"web"}
    assert table["sample"].tolist() == table.index.tolist()
    every, once = found.top(40, repeats=True), found.top(40)
    assert (len(every), len(once)) == (40, 39)
    assert every.loc[[3, 7], "copies"].tolist() == [2, 2]
    assert 7 not in once.index
    assert once["copies"].sum() == 40
    assert len(found.top(400)) == 39
    assert found[found.top(4).index].bits.tolist() == table["bits"].tolist()
    for n in (0, -1, True):
        with pytest.raises(InputError, match="n must be an integer of at least 1"):
            found.top(n)


# --- Means by a column


@pytest.mark.parametrize("groups", [False, True])
def test_means_by_a_column(groups):
    found = measured(groups=groups)
    table = found.by("source")
    assert table["source"].tolist()[0] == "web"
    assert table["n"].sum() == 40
    assert table["source"].isna().sum() == 1
    row = table.iloc[0]
    bits, control = found.bits[:30], found.control.bits
    labels = np.arange(30) // 2 if groups else np.array([*range(7), 3, *range(8, 30)])
    others = np.arange(60) // 2 if groups else np.arange(60)
    low, high = mean_interval(bits, groups=labels)
    assert row["mean_bits"] == pytest.approx(bits.mean())
    assert (row["low"], row["high"]) == pytest.approx((max(0, low), high))
    assert row["mean_signed_bits"] == pytest.approx(found.signed_bits[:30].mean())
    assert row["net_bits"] == pytest.approx(bits.mean() - control.mean())
    net = difference_interval(bits, control, groups=(labels, others))
    assert (row["net_low"], row["net_high"]) == pytest.approx(tuple(net))
    assert row["memorized_share"] == found.memorized()[:30].mean() == 1
    alone = table[table["source"].isna()].iloc[0]
    assert (alone["n"], math.isnan(alone["low"])) == (1, True)
    if groups:
        assert len(found.by("group")) == 20


def test_means_without_a_control_or_with_too_small_a_one_claim_no_share(found):
    assert list(measured(control=False).by("source").columns) == [
        *("source", "n", "mean_bits", "low", "high", "mean_signed_bits")
    ]
    nothing = unintended_memorization(
        UniformModel(VOCAB), UniformModel(VOCAB), read_samples(ROWS, keep=["source"]), control=UNSEEN, progress=False
    )
    assert nothing.by("source")["memorized_share"].isna().all()  # 60 controls could not select a single one of 40
    assert found.by("source")["memorized_share"].notna().all()


def test_columns_that_were_not_kept_are_refused(found):
    with pytest.raises(InputError, match=r"no kept column 'sourse': it has source, doc. Did you mean 'source'\?"):
        found.by("sourse")
    plain = compress_bits(UniformModel(VOCAB), SEEN, progress=False)
    with pytest.raises(InputError, match=r'none were kept. .*read_samples\(..., keep=\["x"\]\), or --keep x'):
        plain.by("x")


def test_code_lengths_by_a_column(found):
    table = found.target.by("source")
    assert table["source"].tolist()[0] == "web"  # known best
    bits = found.target.bits[:30]
    assert table.iloc[0]["mean_bits"] == pytest.approx(bits.mean())
    assert table.iloc[0]["bits_per_token"] == pytest.approx(bits.sum() / (30 * LENGTH))
    assert (table.iloc[0]["low"], table.iloc[0]["high"]) == pytest.approx(tuple(mean_interval(bits)))


# --- Pictures and pages


def test_tokens_are_drawn(found, bpe_tokenizer):
    import matplotlib.pyplot as plt

    ax = found.plot_tokens(3)
    assert "sample 3, id r3" in ax.get_xlabel()
    target = next(line for line in ax.lines if str(line.get_label()).startswith("target"))
    own = slice(*found.target.token_offsets[3:5])
    assert target.get_ydata().tolist() == found.target.token_bits[own].tolist()
    ax = found.plot_tokens(found.top(1).index[0], tokenizer=bpe_tokenizer)
    assert len(ax.get_xticklabels()) == LENGTH
    assert "sample 20" in found[20:].plot_tokens(-20).get_xlabel()
    for i in (40, -41, True):
        with pytest.raises(InputError, match="was asked for, and there are 40"):
            found.plot_tokens(i)
    plt.close("all")


def test_a_notebook_shows_figures_and_rows_that_can_do_nothing(bpe_tokenizer, tiny_gpt2):
    nasty = ["<script>alert(1)</script> & so on", "\x1b[31m red \u202e back"]
    rows = [{"text": text, "k<b>": text, "uid": text} for text in nasty]
    found = compress_bits(
        tiny_gpt2, read_samples(rows, keep=["k<b>"], id_column="uid"), tokenizer=bpe_tokenizer, progress=False
    )
    page = found._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", page)
    assert "CodeLengths of 2 samples" in page
    assert isinstance(found, CodeLengths)


def test_a_notebook_shows_names_of_models_as_they_are():
    def model(ids):
        return torch.zeros(*ids.shape, VOCAB)

    model.__name__ = model.__qualname__ = "<img src=x>"
    found = compress_bits(model, SEEN[:2], progress=False)
    assert "<img" in repr(found)
    assert "<img" not in found._repr_html_()


def test_a_notebook_shows_the_most_memorized(found):
    page = found._repr_html_()
    assert "the most memorized samples, 10 of 40" in page
    assert page.count("<tr") == 11
