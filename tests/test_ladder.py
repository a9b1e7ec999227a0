"""The oracle ladder: built-in codes by brute force, the rule case by case, and verdicts over planted truths."""

import dataclasses
import json
import math
import re
import warnings
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from planted import (
    Iid,
    Markov,
    Memorizer,
    blended,
    drawn_generic,
    drawn_oracle,
    drawn_source,
    mean_bits,
    trained,
    zipf,
)

from memorization import Memorization, UniformModel, compress_bits, unintended_memorization
from memorization.errors import InputError, MeasurementWarning, ResultError, SeenByOracleWarning, WeakOracleWarning
from memorization.stats.levels import Interval
from memorization.unintended.ngram import Tokens, best_weights, mixture_bits, ngram_bits
from memorization.unintended.verdict import Evidence, Step, judge

pytestmark = pytest.mark.usefixtures("no_type_checker")  # which takes longer than the simulations

V, S = 64, 32
SOURCE = Iid(zipf(V))


def tokens_of(samples) -> Tokens:
    return Tokens(np.concatenate(samples).astype(np.int64), np.cumsum([0, *map(len, samples)]))


def planted_result(oracles, *, seed=0, source=SOURCE, n=64, n_control=64, generic=None, share=0.98, **options):
    """A target that has memorized its samples, measured; and the bits a sample that it truly holds of them."""
    rng = np.random.default_rng(seed)
    members, unseen = source.draw(n, S, rng), source.draw(n_control, S, rng)
    target = Memorizer(members, generic or source, share)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        result = unintended_memorization(target, oracles, members, control=unseen, first_token=0, **options)
    return result, mean_bits(source, members) - float(result.target.ideal_bits.mean())


def strong_pair(source=SOURCE, seed=100):
    rng = np.random.default_rng(seed)
    return [trained(source, 256, S, rng, order=int(isinstance(source, Markov))) for _ in range(2)]


# --- built-in codes


def witten_bell(counted, sample, vocab_size):
    """By dictionaries and the definition: p(w | uv) = (c(uvw) + T(uv) p(w | v)) / (c(uv) + T(uv)), and so on down."""
    counts = defaultdict(Counter)
    for one in counted:
        padded = ["start", "start", *one]
        for t, token in enumerate(one):
            for order in range(3):
                counts[tuple(padded[t + 2 - order : t + 2])][token] += 1
    bits, padded = [], ["start", "start", *sample]
    for t, token in enumerate(sample):
        p = 1 / vocab_size
        for order in range(3):
            seen = counts[tuple(padded[t + 2 - order : t + 2])]
            if seen:
                p = (seen[token] + len(seen) * p) / (seen.total() + len(seen))
        bits.append(-math.log2(p))
    return bits


def test_ngram_code_by_brute_force():
    rng = np.random.default_rng(0)
    control = [rng.integers(0, 5, rng.integers(1, 9)).tolist() for _ in range(13)]
    samples = [rng.integers(0, 6, rng.integers(1, 9)).tolist() for _ in range(7)]
    theirs, ours = ngram_bits(tokens_of(control), tokens_of(samples), 6)
    for coded, found in ((control, theirs), (samples, ours)):
        expected = []
        for i, one in enumerate(coded):  # by the control without the fold of this number
            counted = [other for k, other in enumerate(control) if k % 5 != i % 5]
            expected += witten_bell(counted, one, 6)
        np.testing.assert_allclose(found, expected)


def test_ngram_code_is_a_code():
    """Each context's probabilities sum to 1, over tokens never seen as well."""
    control = tokens_of([[0, 1, 2], [1, 2, 0, 1], [2]])
    folds_apart = [ngram_bits(control, tokens_of([[0, 1, w]] * 3), 4)[1][2::3] for w in range(4)]
    np.testing.assert_allclose(np.exp2(-np.array(folds_apart)).sum(axis=0), 1)


def test_best_weights_find_the_planted_mixture():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(20), size=3)
    truth = np.array([0.6, 0.3, 0.1])
    drawn = rng.choice(20, size=40_000, p=truth @ p)
    codes = [-np.log2(p[k][drawn]) for k in range(3)]
    weights = best_weights(codes)
    np.testing.assert_allclose(weights, truth, atol=0.06)
    mixed = mixture_bits(codes, weights)
    np.testing.assert_allclose(mixed, -np.log2(weights @ p[:, drawn]))
    assert mixed.mean() < min(code.mean() for code in codes)


def test_slope_is_one_on_the_planted_ladder():
    for oracles in ([blended(SOURCE, share) for share in (0, 0.25, 0.5, 0.75, 1)], SOURCE):
        result, _ = planted_result(oracles, generic=Iid(np.ones(V)), n=128, n_control=256)
        assert result.ladder.slope == pytest.approx(1, abs=0.05)
    table = result.ladder.to_pandas()
    assert table["control_bits"].is_monotonic_decreasing
    uniform = table[table["rung"] == "uniform code"].iloc[0]
    assert uniform["control_bits"] == pytest.approx(S * 6)
    assert uniform["control_bits_per_token"] == pytest.approx(6)
    given = table[table["kind"] == "given"].iloc[0]
    assert given["net_bits"] == pytest.approx(result.control.net_bits / 128, abs=0.05)
    assert given["signed_bits"] == pytest.approx(result.mean_signed_bits, abs=0.05)
    assert math.isnan(table[table["rung"] == "best mixture, target included"].iloc[0]["mean_bits"])
    assert set(table["kind"]) == {"given", "built-in", "mixture"}


# --- the rule, case by case

LONGER = Interval(20.0, 30.0)
SOUND = Evidence(
    oracle="a",
    n_samples=64,
    n_control=64,
    unit="samples",
    net=100.0,
    net_interval=Interval(95.0, 105.0),
    gap=Interval(140.0, 160.0),
    spreads=(20.0, 1.0),
    target=Step("target", -50.0, Interval(-60.0, -40.0), 30.0),
    over_built_in=(Step("uniform code", 25.0, LONGER, 20.0), Step("n-gram code of the control", 25.0, LONGER, 20.0)),
    last_step=Step("b", 1.0, Interval(-1.0, 3.0), 8.0),
    continued=Step("line from b through the oracle", 0.1, Interval(-0.2, 0.4), 2.0),
    mixture=Step("best mixture", 0.5, Interval(0.1, 0.9), 2.0),
    seen=Interval(-0.1, 0.1),
    copies=(),
)


def test_all_conditions_together_are_validated():
    verdict, reason = judge(SOUND)
    assert verdict == "validated"
    assert "no stronger code was found among those looked for" in reason
    assert "4.75" in reason  # 5 % of the lower end of net memU


def test_a_step_that_logits_are_not_exact_to_is_not_weak():
    """The target, or a built-in rung, shorter by 0.009 bits beyond all chance: not weak; by 0.011: weak."""
    for bits, weak in ((0.009, False), (0.011, True)):
        target = Step("target", bits, Interval(bits, bits), 0.0)
        assert (judge(dataclasses.replace(SOUND, target=target))[0] == "weak") == weak
        built_in = (Step("n-gram code of the control", -bits, Interval(-bits, -bits), 0.0),)
        assert (judge(dataclasses.replace(SOUND, over_built_in=built_in))[0] == "weak") == weak


UNKNOWN = Interval.unknown()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_control": 15}, "64 samples and 15 control samples are too few"),
        ({"n_samples": 15}, "15 samples and 64 control samples are too few"),
        ({"net": 2.0, "net_interval": Interval(-1.0, 5.0)}, "net memU is not told from 0; it is at most 5.00 bits"),
        ({"net_interval": UNKNOWN}, "net memU is not told from 0"),
        ({"last_step": None}, "one oracle was given, and a stronger one could lower memU"),
        (
            {"last_step": Step("b", 6.0, Interval(5.0, 7.0), 8.0)},
            r"from the next oracle \(b\) to the best one it falls by 6",
        ),
        ({"last_step": Step("b", 1.0, Interval(-4.0, 6.0), 20.0)}, "About 110 control samples would tell"),
        ({"last_step": Step("b", 1.0, UNKNOWN, 8.0)}, "from the next oracle"),
        (
            {"mixture": Step("best mixture", 0.8, Interval(0.6, 1.0), 1.0)},
            "from the oracle to the best mixture it falls",
        ),
        (
            {"continued": Step("line from b through the oracle", 2.0, Interval(1.5, 2.5), 1.0)},
            "along the line from b through the oracle it falls by 2.00",
        ),
        ({"mixture": None}, "no mixture could be tried"),
        ({"seen": Interval(-0.3, -0.1)}, "differ between samples and control by"),
        ({"seen": Interval(0.1, 0.3)}, "differ between samples and control by"),
        ({"seen": UNKNOWN}, "by an unknown amount"),
        (
            {"over_built_in": (SOUND.over_built_in[0], Step("n-gram code", 1.0, Interval(-1.0, 3.0), 8.0))},
            "not clearly better than the n-gram code",
        ),
        (
            {"over_built_in": (Step("uniform code", 0.0, Interval(0.0, 0.0), 0.0), SOUND.over_built_in[1])},
            "no code beats the uniform one",
        ),
    ],
)
def test_one_condition_that_fails_cannot_be_told(change, words):
    verdict, reason = judge(dataclasses.replace(SOUND, **change))
    assert verdict == "cannot tell"
    assert re.search(words, reason), reason


@pytest.mark.parametrize(
    "change",
    [
        {"target": Step("target", 1.0, Interval(0.2, 2.0), 8.0)},
        {"over_built_in": (SOUND.over_built_in[0], Step("n-gram code", -1.0, Interval(-2.0, -0.2), 8.0))},
        {"over_built_in": (Step("uniform code", -1.0, Interval(-2.0, -0.2), 8.0), SOUND.over_built_in[1])},
    ],
)
def test_what_beats_the_oracle_makes_it_weak(change):
    verdict, reason = judge(dataclasses.replace(SOUND, **change))
    assert verdict == "weak"
    assert "codes unseen text in 1.00 bits a sample fewer than the oracle (95 % interval 0.20 to 2.00)" in reason


# --- verdicts over planted truths


@pytest.mark.parametrize("n_trials", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_the_truth_lies_in_the_bracket_where_validated(n_trials):
    """Sources, targets (overfit ones too) and one to three oracles drawn at random; n_trials of each structure."""
    verdicts, inside = Counter(), []
    for structure in ("iid", "markov"):
        for seed in range(n_trials):
            rng = np.random.default_rng([seed, len(structure)])
            source = drawn_source(structure, rng)
            n, n_control = int(rng.choice([32, 64, 128])), int(rng.choice([16, 32, 64, 128, 256]))
            oracles = [drawn_oracle(source, S, rng) for _ in range(rng.integers(1, 4))]
            generic, share = drawn_generic(source, S, rng), float(rng.choice([0.5, 0.9, 0.98]))
            result, truth = planted_result(
                oracles, seed=seed, source=source, n=n, n_control=n_control, generic=generic, share=share
            )
            verdicts[result.verdict] += 1
            if result.verdict == "validated":
                inside.append(truth in result.ladder.bracket)
                assert len(oracles) > 1
    print(f"{verdicts}; the truth in the bracket: {sum(inside)} of {len(inside)} validated")
    assert np.mean(inside) >= 0.95
    assert min(verdicts.values()) > 0.02 * n_trials
    assert verdicts["validated"] > 0.2 * 2 * n_trials  # not by never saying so


@pytest.mark.parametrize("n_trials", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_a_weak_oracle_beside_an_overfit_target_is_never_validated(n_trials):
    """The case that no control repairs: memU 281 in place of 213 bits a sample, control signed below 0."""
    p = zipf(512)
    very_bad = Iid(0.2 / 512 + 0.8 * p[::-1])
    for seed in range(n_trials):
        rng = np.random.default_rng(seed)
        nearly = Iid(np.ones(512) + 0.1 * rng.random(512))
        oracles = [UniformModel(512), nearly] if seed % 2 else UniformModel(512)
        result, truth = planted_result(oracles, seed=seed, source=Iid(p), n=96, n_control=96, generic=very_bad)
        assert result.mean_bits > truth + 50
        assert result.control.mean_interval.high < 0  # so that the control alone says nothing
        assert result.verdict == "weak"


def test_quickstart_like_oracles_are_told_apart():
    one, _ = planted_result(strong_pair()[0])
    assert one.verdict == "cannot tell"
    assert one.ladder.reason.startswith("one oracle was given, and a stronger one could lower memU: the last step")
    two, truth = planted_result(strong_pair())
    assert two.verdict == "validated"
    assert truth in two.ladder.bracket
    copy = strong_pair()[0]
    same, _ = planted_result([copy, copy])
    assert same.verdict == "cannot tell"
    assert "too like it, or the target, to count" in same.ladder.reason
    near, _ = planted_result([copy, Iid(copy.p * np.exp(0.02 * np.random.default_rng(0).normal(size=V)))])
    assert near.verdict == "cannot tell"
    assert "too like it, or the target, to count" in near.ladder.reason
    small, _ = planted_result(strong_pair(), n_control=12)
    assert small.verdict == "cannot tell"
    assert "12 control samples are too few: 16 of each are the least" in small.ladder.reason


def test_what_two_oracles_lack_alike_shows_where_they_are_continued():
    """Two mixtures with noise agree within 2 % of net memU, and no mixture of them is better; both lack over 5 %."""
    rng = np.random.default_rng(0)
    source = Markov(rng.dirichlet(np.full(V, 0.3), size=V) + 1e-6)
    oracles, noise = [blended(source, 0.4), blended(source, 0.44)], Iid(np.ones(V))
    result, truth = planted_result(oracles, source=source, n=128, n_control=128, generic=noise)
    evidence = result.ladder.evidence
    lacking = evidence.net - truth
    assert lacking > 0.05 * evidence.net
    assert evidence.last_step.interval.high < 0.03 * evidence.net
    assert evidence.mixture.interval.high < 0.01 * evidence.net
    assert evidence.continued.mean == pytest.approx(lacking, rel=0.2)
    assert result.verdict == "cannot tell"


@pytest.mark.parametrize("n_trials", [6, pytest.param(30, marks=pytest.mark.slow)])
def test_structure_that_reaches_further_back_than_an_n_gram(n_trials):
    """Each token depends on the third one before it, and two oracles of pairs of neighbours agree about it."""

    class ThirdBefore(Markov):
        def log_probabilities(self, ids):
            return self.log_rows[torch.cat([torch.zeros_like(ids[:, :2]), ids], dim=1)[:, : ids.shape[1]]]

        def draw(self, n, length, rng):
            out = np.zeros((n, length + 3), dtype=np.int64)
            for t in range(length):
                edges = self.rows.cumsum(axis=1)[out[:, t]]
                out[:, t + 3] = (rng.random((n, 1)) > edges).sum(axis=1).clip(max=len(self.rows) - 1)
            return out[:, 3:]

    for seed in range(n_trials):
        rng = np.random.default_rng(seed)
        source = ThirdBefore(rng.dirichlet(np.full(32, rng.choice([0.1, 0.3])), size=32) + 1e-6)
        oracles = [trained(source, 4096, S, rng) for _ in range(2)]
        result, truth = planted_result(oracles, seed=seed, source=source, generic=Iid(np.ones(32)))
        assert result.mean_bits > 1.05 * truth
        assert result.verdict != "validated"


def test_what_comes_again_in_a_sample_is_seen():
    """The second half of each sample repeats the first, and two good oracles of single tokens agree in not knowing."""

    class Again(Iid):
        def draw(self, n, length, rng):
            return np.tile(super().draw(n, length // 2, rng), 2)

    source = Again(zipf(V))
    result, _ = planted_result(strong_pair(SOURCE), source=source, generic=Iid(np.ones(V)))
    assert result.ladder.evidence.mixture.mean > 0.3 * result.oracle.ideal_bits.mean()
    assert result.ladder.evidence.last_step.within(result.ladder.evidence.tolerance)
    assert result.verdict == "cannot tell"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["one class", "one corpus"])
def test_what_the_verdict_cannot_see(case):
    """Two oracles that lack the same: of 30 such pairs some are validated. How many, and how far off, is documented."""
    inside, too_high = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        if case == "one class":  # tokens depend a little on the one before, and neither oracle looks at it
            rows = np.tile(zipf(128), (128, 1)) * np.exp(0.8 * rng.normal(size=(128, 128)))
            source = Markov(rows)
            oracles = [trained(source, 4096, S, rng, order=0) for _ in range(2)]
        else:  # one has read an eighth less of the same text than the other
            source = Markov(rng.dirichlet(np.full(64, 0.3), size=64) + 1e-6)
            n_read = int(2 ** rng.uniform(7, 10))
            corpus, text = Markov(source.rows), source.draw(n_read, S, rng)
            corpus.draw = lambda n, length, rng, text=text: text[:n]
            oracles = [trained(corpus, n, S, rng) for n in (n_read, n_read - n_read // 8)]
        result, truth = planted_result(
            oracles,
            seed=seed,
            source=source,
            n=96,
            n_control=96,
            generic=Iid(np.ones(len(source.rows))),
        )
        if result.verdict == "validated":
            inside.append(truth in result.ladder.bracket)
            too_high.append(result.control.net_bits / len(result) / truth - 1)
    print(
        f"{case}: {len(inside)} of 30 validated, {len(inside) - sum(inside)} of them outside the bracket, net memU up to "
        f"{100 * max(too_high, default=0):.1f} % too high"
    )
    assert max(too_high, default=0) < 0.15


def test_uniform_samples_cannot_be_told():
    uniform = Iid(np.ones(V))
    result, _ = planted_result(
        [UniformModel(V), trained(uniform, 64, S, np.random.default_rng(0), order=0)], source=uniform
    )
    assert result.verdict == "cannot tell"
    assert "samples are uniform draws by construction" in result.ladder.reason


def test_an_oracle_that_saw_the_samples_is_not_validated():
    """It hides half of what the target holds; both oracles have seen them, and agree."""
    rng = np.random.default_rng(0)
    members, unseen = SOURCE.draw(64, S, rng), SOURCE.draw(64, S, rng)
    oracles = [Memorizer(members[:48], generic, 0.02) for generic in strong_pair()]
    with pytest.warns(SeenByOracleWarning, match=r"bits a token fewer for the samples than for the control \(99 %"):
        result = unintended_memorization(Memorizer(members, SOURCE), oracles, members, control=unseen, first_token=0)
    assert result.verdict == "cannot tell"
    assert "it has seen the ones it needs fewer bits for" in result.ladder.reason


# --- several oracles


def test_the_oracle_is_chosen_on_the_control_and_not_on_the_samples():
    """One has seen the samples, and is a little worse on unseen text: it would hide everything."""
    rng = np.random.default_rng(0)
    members, unseen = SOURCE.draw(32, S, rng), SOURCE.draw(32, S, rng)
    saw, clean = Memorizer(members, SOURCE, 0.9), blended(SOURCE, 0.001)
    target = Memorizer(members, Iid(np.ones(V)))
    for oracles in ([saw, clean], [clean, saw]):
        result = unintended_memorization(target, oracles, members, control=unseen, first_token=0)
        alone = unintended_memorization(target, clean, members, control=unseen, first_token=0)
        assert result.ladder.oracle == "Iid"
        assert result.bits.tolist() == alone.bits.tolist()
        assert result.control.net_interval == alone.control.net_interval
        assert [sets[0].settings["model"]["name"] for sets in result.other_oracles] == ["Memorizer"]


@pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")
def test_the_target_among_the_oracles_is_not_chosen(tiny_gpt2):
    rng = np.random.default_rng(0)
    samples, unseen = rng.integers(0, 300, (20, 12)), rng.integers(0, 300, (20, 12))
    oracles = [tiny_gpt2, Iid(np.exp(5 * rng.normal(size=300)))]
    with pytest.warns(WeakOracleWarning):  # not that target and oracle are one: another oracle is taken
        result = unintended_memorization(tiny_gpt2, oracles, samples, control=unseen, first_token=0)
    assert result.ladder.oracle == "Iid"
    assert result.ladder.evidence.copies == ("GPT2LMHeadModel",)


def test_the_base_of_the_target_is_no_copy_of_it():
    """On unseen text a light fine-tune is its base; on the samples it is not, and the base is the best oracle there is."""
    rng = np.random.default_rng(0)
    members, unseen = SOURCE.draw(48, S, rng), SOURCE.draw(48, S, rng)

    class FineTuned(Memorizer):  # what it knows of its members changes nothing elsewhere
        def __call__(self, ids):
            known = (ids[:, None, 1:] == self.members[None, :, : ids.shape[1] - 1]).all(dim=2).any(dim=1)
            return torch.where(known[:, None, None], super().__call__(ids), self.generic(ids))

    target, weak = FineTuned(members, SOURCE), blended(SOURCE, 0.5)
    for oracles in ([SOURCE, weak], [weak, SOURCE]):
        result = unintended_memorization(target, oracles, members, control=unseen, first_token=0)
        assert result.ladder.evidence.copies == ()
        assert result.oracle.ideal_bits.mean() == pytest.approx(mean_bits(SOURCE, members), rel=1e-4)
        assert result.verdict != "weak"


def test_net_memu_of_nothing_beside_a_gap_is_not_nothing():
    """A target that is worse than the oracle by more than it has memorized: net memU 0, and the gap says otherwise."""
    verdict, reason = judge(
        dataclasses.replace(SOUND, net=0.0, net_interval=Interval(0.0, 0.0), gap=Interval(20.0, 40.0))
    )
    assert verdict == "cannot tell"
    assert "Yet the target knows them better than the control, by 20.00 to 40.00 bits a sample" in reason
    assert "something is memorized" in reason
    assert "Yet" not in judge(dataclasses.replace(SOUND, net_interval=Interval(0, 1), gap=Interval(-1.0, 40.0)))[1]


def test_a_target_that_has_seen_the_control_is_one_reason_for_a_weak_oracle():
    rng = np.random.default_rng(0)
    members, unseen = SOURCE.draw(40, S, rng), SOURCE.draw(40, S, rng)
    with pytest.warns(WeakOracleWarning, match="Or the target has seen the control, which is then none"):
        unintended_memorization(
            Memorizer(np.concatenate([members, unseen]), SOURCE), SOURCE, members, control=unseen, first_token=0
        )


def test_save_and_load_with_several_oracles(tmp_path):
    result, _ = planted_result([*strong_pair(), UniformModel(V)])
    result.save(tmp_path / "r")
    loaded = Memorization.load(tmp_path / "r")
    assert repr(loaded) == repr(result)
    assert repr(loaded.ladder) == repr(result.ladder)
    assert loaded.settings == result.settings
    assert len(loaded.other_oracles) == 2
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["verdict"] == result.verdict
    assert summary["verdict_reason"] == result.ladder.reason
    assert summary["bracket"] == list(result.ladder.bracket)
    (tmp_path / "r" / "other_oracles" / "1" / "tokens.parquet").unlink()
    with pytest.raises(ResultError, match=r"tokens\.parquet"):
        Memorization.load(tmp_path / "r")


def test_code_lengths_of_several_oracles():
    rng = np.random.default_rng(0)
    members, unseen = SOURCE.draw(24, S, rng), SOURCE.draw(24, S, rng)
    models = [Memorizer(members, SOURCE), *strong_pair()]
    saved = [[compress_bits(model, part, first_token=0) for model in models] for part in (members, unseen)]
    live = unintended_memorization(models[0], models[1:], members, control=unseen, first_token=0)
    given = unintended_memorization(saved[0][0], saved[0][1:], members, control=saved[1])
    assert repr(given.ladder) == repr(live.ladder)
    assert given.bits.tolist() == live.bits.tolist()
    with pytest.raises(
        InputError, match=r"under the target and each of the 2 oracles: \(target, oracle, ...\), 3 in all"
    ):
        unintended_memorization(saved[0][0], saved[0][1:], members, control=saved[1][:2])
    with pytest.raises(InputError, match=r"sample 0 is also in the control \(24 of 24 samples are\)"):
        unintended_memorization(saved[0][0], saved[0][1], members, control=saved[0][:2])


def test_named_oracles_and_a_uniform_one_of_texts(model_folder, tmp_path):
    texts, unseen = ["The house met again.", "How many bits?"] * 2, ["Nobody wrote this", "citizens of"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        result = unintended_memorization(
            str(model_folder), [UniformModel(300), str(model_folder)], texts, control=unseen, progress=False
        )
    assert result.ladder.oracle == "UniformModel(300)"
    assert result.settings["n_repeated"] == 2
    assert "2 of 4 samples are the same as an earlier one" in repr(result)


def test_two_tokenizers_leave_out_the_mixture_with_the_target(bpe_tokenizer, model_folder):
    from test_unintended import TEXTS, UNSEEN, Pairs, train_bpe

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        result = unintended_memorization(
            Pairs(290, 1),
            [Pairs(262, 2), Pairs(262, 3)],
            TEXTS,
            control=UNSEEN,
            target_tokenizer=train_bpe(290),
            oracle_tokenizer=train_bpe(262),
        )
    assert result.ladder.settings["left_out"] == {
        "best mixture, target included": "the target has other tokens than the oracle"
    }
    assert "best mixture" not in result.ladder.to_pandas()["rung"].tolist()
    assert "left out     best mixture" in repr(result.ladder)
    given = result.ladder.to_pandas().set_index("rung").loc[result.ladder.oracle]
    assert given["mean_bits"] == pytest.approx(result.mean_bits, abs=0.1)


@pytest.mark.parametrize(
    ("oracle", "control", "message"),
    [
        ([], [[4, 5]], "oracle is an empty list: pass at least one model"),
        (
            [UniformModel(8), UniformModel(9)],
            None,
            "2 oracles came and no control, by which the best of them is chosen",
        ),
    ],
)
def test_lists_that_cannot_be_used(oracle, control, message):
    with pytest.raises(InputError, match=message):
        unintended_memorization(UniformModel(8), oracle, [[1, 2, 3]], control=control)


def test_ids_under_an_oracle_of_another_tokenizer_are_refused():
    from test_unintended import Pairs, train_bpe

    ids, unseen = [[1, 2, 3]], [[4, 5, 6]]
    saved = compress_bits(Pairs(262, 2), ids, tokenizer=train_bpe(262))
    with pytest.raises(InputError, match="different tokenizers: ids mean other texts"):
        unintended_memorization(
            Pairs(290, 1),
            [Pairs(290, 2), saved],
            ids,
            target_tokenizer=train_bpe(290),
            oracle_tokenizer=train_bpe(290),
            control=(saved, saved, saved),
        )
    assert unseen


def test_a_list_of_one_is_one_oracle():
    one, _ = planted_result(strong_pair()[0])
    listed, _ = planted_result(strong_pair()[:1])
    assert repr(listed) == repr(one)
    assert unintended_memorization(UniformModel(8), [UniformModel(8)], [[1, 2]]).ladder is None
    assert unintended_memorization(UniformModel(8), [UniformModel(8)], [[1, 2]]).verdict is None


def test_a_sample_in_both_sets_is_refused_by_name():
    with pytest.raises(InputError, match=r"sample 1 is also control sample 0: .*1 of 2 samples"):
        unintended_memorization(UniformModel(8), UniformModel(8), [[1, 2, 3], [4, 5]], control=[[4, 5], [6]])


@pytest.mark.parametrize("n_control", [1, 2, 5])
def test_small_controls_say_how_many_are_needed(n_control):
    result, _ = planted_result(strong_pair(), n_control=n_control)
    assert result.verdict != "validated"
    assert "16 of each are the least" in result.ladder.reason or result.verdict == "weak"
    assert "verdict" in repr(result)
    assert repr(result.ladder)


def test_a_uniform_first_token_costs_every_rung_the_same():
    """Else the n-gram code would know first tokens that no model here is asked for."""
    rng = np.random.default_rng(0)
    samples, unseen = rng.integers(0, V, (20, 6)), rng.integers(0, V, (20, 6))
    samples[:, 0] = unseen[:, 0] = 3
    target, oracle = (Iid(np.exp(0.1 * rng.normal(size=V))) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        result = unintended_memorization(target, oracle, samples, control=unseen, first_token="uniform")
    rung = next(rung for rung in result.ladder.rungs if rung.name == "n-gram code of the control")
    assert (rung.control_bits > 6 * 6 - 0.5).all()  # 6 bits a token, the first one too


def test_the_ladder_is_drawn():
    result, _ = planted_result([*strong_pair(), blended(SOURCE, 0.5)])
    ax = result.ladder.plot()
    assert "verdict: validated" in ax.get_title(loc="right")
    shown = [tuple(line.get_xdata()) for line in ax.lines]
    table = result.ladder.to_pandas()
    assert any(np.isin(table["control_bits"].round(6), np.round(one, 6)).sum() >= 8 for one in shown)
    names = " ".join(text.get_text() for text in ax.texts)
    assert all(name in names for name in table.loc[table["kind"] != "mixture", "rung"])


def test_a_uniform_oracle_among_others_of_a_folder_without_tokenizer(tiny_gpt2, tmp_path):
    """Samples are ids, so no tokenizer is needed: not for one oracle, and not for several."""
    tiny_gpt2.save_pretrained(tmp_path)
    size = tiny_gpt2.config.vocab_size
    samples, control = np.random.default_rng(0).integers(size, size=(2, 4, 9)).tolist()
    how = {"control": control, "first_token": "uniform", "progress": False}
    alone = unintended_memorization(tmp_path, UniformModel(size), samples, **how)
    both = unintended_memorization(tmp_path, [UniformModel(size), UniformModel(size)], samples, **how)
    np.testing.assert_array_equal(both.signed_bits, alone.signed_bits)
