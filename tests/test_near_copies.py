"""Control samples that are nearly copies of samples: found, told, and no false alarm where text is merely alike."""

import warnings

import numpy as np
import pytest
import torch

from memorization import UniformModel, audit, audit_membership, extract, unintended_memorization
from memorization.errors import MeasurementWarning, NearCopiesWarning
from memorization.integers import edges_of
from memorization.measure.near_copies import near_copies

VOCAB = 64


def laid_out(rows):
    return np.concatenate([np.asarray(row, dtype=np.int64) for row in rows]), edges_of([len(row) for row in rows])


def found_in(samples, control, bits_per_token):
    return near_copies(lambda: [laid_out(samples)], laid_out(control), bits_per_token=bits_per_token).tolist()


def changed(row, places):
    return [VOCAB - 1 - token if k in places else token for k, token in enumerate(row)]


SEEN = np.random.default_rng(0).integers(VOCAB, size=(50, 40)).tolist()
UNSEEN = np.random.default_rng(1).integers(VOCAB, size=(50, 40)).tolist()


@pytest.mark.parametrize(
    ("control", "is_copy"),
    [
        (SEEN[3], True),
        (changed(SEEN[3], {20}), True),
        (changed(SEEN[3], {12, 26}), True),
        (SEEN[3][5:25], True),  # a part of one
        ([*SEEN[3][:20], *SEEN[8][10:30]], True),  # put together of two
        ([*SEEN[3][:30], *UNSEEN[0][:10]], False),  # three quarters
        (changed(SEEN[3], {8, 16, 24, 32}), False),
        (UNSEEN[0], False),
        (SEEN[3][:10], False),  # shorter than a run: nothing is said
    ],
)
def test_what_is_a_near_copy(control, is_copy):
    assert found_in(SEEN, [UNSEEN[7], control, UNSEEN[8]], 6.0) == [False, is_copy, False]


def test_runs_do_not_reach_over_the_end_of_a_sample():
    joined = [*SEEN[0][-20:], *SEEN[1][:20]]
    assert found_in([SEEN[0] + SEEN[1]], [joined], 6.0) == [True]
    assert found_in([SEEN[0], SEEN[1]], [SEEN[0][-6:] + SEEN[1][:6] + SEEN[2][:6]], 6.0) == [False]


@pytest.mark.parametrize("n_values", [2, 4, 16, 256])
@pytest.mark.parametrize("n", [50, 2000])
def test_random_text_of_any_entropy_is_no_near_copy(n, n_values):
    draw = np.random.default_rng(n)
    samples, control = draw.integers(n_values, size=(2, n, 64))
    assert sum(found_in(samples, control, float(np.log2(n_values)))) == 0


def test_text_of_a_template_is_no_near_copy():
    """Nine tokens in ten are the same everywhere, and cost a model that knows the template nothing."""
    draw = np.random.default_rng(0)
    rows = np.tile(np.arange(60), (200, 1))
    rows[:, ::10] = draw.integers(60, VOCAB, size=(200, 6))
    assert sum(found_in(rows[:100], rows[100:], 0.1 * 2.0)) == 0
    rows[:, ::10], rows[:, ::30] = rows[0, ::10], rows[:, ::30]
    assert sum(found_in(rows[:100], rows[100:], 6.0)) == 100  # to a model that does not, they are


def test_shards_find_what_one_piece_finds():
    control = [changed(SEEN[k], {20}) if k % 3 == 0 else UNSEEN[k] for k in range(50)]
    in_parts = near_copies(
        lambda: (laid_out(SEEN[k : k + 7]) for k in range(0, 50, 7)), laid_out(control), bits_per_token=6.0
    )
    # The same tokens, so the same length of a run.
    assert in_parts.tolist() == found_in(SEEN, control, 6.0) == [k % 3 == 0 for k in range(50)]


def known_by_heart(rows):
    """A model that gives each token of these rows after its two predecessors, and knows nothing else."""
    after = {(a, b): c for row in rows for a, b, c in zip(row, row[1:], row[2:], strict=False)}

    def model(ids):
        logits = torch.zeros(*ids.shape, VOCAB)
        for at, row in enumerate(ids.tolist()):
            for k in range(1, len(row)):
                if (row[k - 1], row[k]) in after:
                    logits[at, k, after[row[k - 1], row[k]]] = 9.0
        return logits

    return model


@pytest.fixture(scope="module")
def hidden():
    """A target that knows 5 of 100 records by heart, and a control with two nearly like each of them."""
    records = np.random.default_rng(2).integers(VOCAB - 2, size=(100, 24)).tolist()
    unseen = np.random.default_rng(3).integers(VOCAB, size=(800, 24)).tolist()
    copies = [[first, *row[1:]] for row in records[:5] for first in (62, 63)]
    return known_by_heart(records[:5] + copies), records, unseen, copies  # what is known is known of copies as well


def test_what_near_copies_hide_is_not_called_none(hidden):
    target, records, unseen, copies = hidden
    policy = ["memorized > 0"]

    def audited(control):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = audit(target, UniformModel(VOCAB), records, control, fail_on=policy, progress=False)
        return found, any(issubclass(one.category, NearCopiesWarning) for one in said)

    clean, warned = audited(unseen)
    assert not warned
    assert clean.figures()["memorized"] >= 5
    assert clean.checks[0].outcome == "failed"
    fooled, warned = audited(unseen + copies)
    assert warned
    assert not fooled.figures()["memorized"] > 0  # hidden indeed
    assert fooled.checks[0].outcome == "cannot tell"
    assert not fooled.passed
    assert "nearly copies" in fooled.sentences()[0]


@pytest.mark.parametrize("door", ["memU", "attacks", "attacks with an oracle", "extraction"])
def test_every_door_that_takes_a_control_tells(door, hidden):
    target, records, unseen, copies = hidden
    calls = {
        "memU": lambda control: unintended_memorization(target, UniformModel(VOCAB), records, control=control),
        "attacks": lambda control: audit_membership(target, records, control),
        "attacks with an oracle": lambda control: audit_membership(
            target, records, control, oracle=UniformModel(VOCAB)
        ),
        "extraction": lambda control: extract(target, records, control),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        warnings.simplefilter("error", NearCopiesWarning)
        calls[door](unseen[:100])
        with pytest.raises(NearCopiesWarning, match=r"2 control samples of 102 \(rows 100, 101\)"):
            calls[door](unseen[:100] + copies[:2])
