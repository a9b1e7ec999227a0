"""Net memU against planted truths: a known source, a target that memorized known samples, oracles of known strength."""

import math
from functools import cache

import numpy as np
import pytest
from planted import Iid, Memorizer, mean_bits, zipf

from memorization import Memorization, compress_bits, unintended_memorization

pytestmark = pytest.mark.usefixtures("no_type_checker")  # which takes longer than the simulations

V, S, N_MEMBERS, N_CONTROL = 512, 32, 96, 400
ZIPF, UNIFORM = zipf(V), np.full(V, 1 / V)
SOURCES = {
    "T": Iid(ZIPF),
    "half uniform": Iid(0.5 * ZIPF + 0.5 * UNIFORM),
    "uniform": Iid(UNIFORM),
    "very bad": Iid(0.2 * UNIFORM + 0.8 * ZIPF[::-1]),
}
ENTROPY = -S * float(ZIPF @ np.log2(ZIPF))
TRUTH = ENTROPY - math.log2(N_MEMBERS / 0.98)


@cache
def planted_samples() -> tuple[np.ndarray, np.ndarray]:
    """Members and control whose mean bits under T are T's entropy, so that no row moves by the luck of the draw."""
    rng, drawn = np.random.default_rng(0), []
    for n in (N_MEMBERS, N_CONTROL):
        sets = [SOURCES["T"].draw(n, S, rng) for _ in range(100)]
        drawn.append(min(sets, key=lambda samples: abs(mean_bits(SOURCES["T"], samples) - ENTROPY)))
    return drawn[0], drawn[1]


@cache
def lengths_under(role: str, name: str):
    """CodeLengths of members and control: under an oracle, or under the target with this generic part."""
    members, unseen = planted_samples()
    model = SOURCES[name] if role == "oracle" else Memorizer(members, SOURCES[name])
    return [compress_bits(model, part, first_token=0, progress=False) for part in (members, unseen)]


@pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")
@pytest.mark.parametrize(
    ("oracle", "generic", "net_bits", "gap_bits"),
    [
        ("T", "T", 213.4, 219.1),
        ("T", "uniform", 213.3, 287.0),
        ("T", "very bad", 213.2, None),
        ("uniform", "T", 218.8, 218.8),
        ("half uniform", "T", 218.3, 219.0),
        ("uniform", "very bad", 281.4, None),
    ],
)
def test_net_and_gap_of_a_planted_memorizer(oracle, generic, net_bits, gap_bits):
    """In bits a sample: the truth is the source's bits less the log2(96 / 0.98) that the target needs, 213.3."""
    assert pytest.approx(213.3, abs=0.05) == TRUTH
    target, codes = lengths_under("target", generic), lengths_under("oracle", oracle)
    members, _ = planted_samples()
    result = unintended_memorization(target[0], codes[0], members, control=(target[1], codes[1]))
    net = result.control.net_bits / N_MEMBERS
    assert net == pytest.approx(net_bits, abs=0.5)
    assert N_MEMBERS * net <= result.oracle.total_bits
    assert result.control.net_interval[0] / N_MEMBERS <= net <= result.control.net_interval[1] / N_MEMBERS
    if gap_bits is not None:
        assert result.control.gap_bits / N_MEMBERS == pytest.approx(gap_bits, abs=0.5)
    else:
        assert result.control.gap_bits / N_MEMBERS > 320  # more than the oracle needs to write the samples down


@pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")
def test_live_models_say_the_same_as_their_code_lengths():
    members, unseen = planted_samples()
    target, codes = lengths_under("target", "T"), lengths_under("oracle", "half uniform")
    given = unintended_memorization(target[0], codes[0], members, control=(target[1], codes[1]))
    live = unintended_memorization(
        Memorizer(members, SOURCES["T"]), SOURCES["half uniform"], members, control=unseen, first_token=0
    )
    assert live.control.net_bits == given.control.net_bits
    assert live.control.net_interval == given.control.net_interval


@pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")
@pytest.mark.parametrize("uniform_share", [0.3, 0.05])
def test_net_is_zero_where_nothing_was_memorized(uniform_share):
    """A target that is worse than the oracle (0.3), and one that is better; memU of both is above 0 by clipping."""
    target = Iid((1 - uniform_share) * ZIPF + uniform_share * UNIFORM)
    oracle = Iid(0.85 * ZIPF + 0.15 * np.random.default_rng(0).permutation(ZIPF))
    net, shown = {"max": [], "mixture": []}, []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        samples, unseen = (SOURCES["T"].draw(64, S, rng) for _ in range(2))
        pairs = [
            [compress_bits(model, part, first_token=0) for model in (target, oracle)] for part in (samples, unseen)
        ]
        for joint, found in net.items():
            result = unintended_memorization(*pairs[0], samples, control=pairs[1], joint=joint)
            found.append(result.control.net_bits / 64)
        shown.append(unintended_memorization(*pairs[0], samples).mean_bits)
    assert np.mean(shown) > 0.1
    for found in net.values():
        assert abs(np.mean(found)) < 2 * np.std(found, ddof=1) / math.sqrt(len(found))


@pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")
def test_share_of_capacity_is_net_where_there_is_a_control(tiny_gpt2):
    rng = np.random.default_rng(0)
    samples, unseen = (rng.integers(0, 300, (20, 24)) for _ in range(2))
    oracle = Iid(np.exp(5 * rng.normal(size=300)))  # so bad that the control shows memU too
    alone = unintended_memorization(tiny_gpt2, oracle, samples, first_token=0)
    with_control: Memorization = unintended_memorization(tiny_gpt2, oracle, samples, control=unseen, first_token=0)
    n_params = alone.target.settings["model"]["n_params"]
    assert alone.capacity_share == alone.total_bits / (3.6 * n_params)
    assert with_control.control.net_bits < 0.5 * with_control.total_bits
    assert with_control.capacity_share == with_control.control.net_bits / (3.6 * n_params)
    assert "capacity     memU is" in repr(alone)
    assert "capacity     net memU is" in repr(with_control)
