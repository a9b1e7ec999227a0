"""Training of many models at once: each gets what it would get alone, and what it learns is known in closed form."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from memorization import compress_bits
from memorization.errors import InputError, ModelError
from memorization.lab.architectures import Architecture
from memorization.lab.cells import Cell, train_cells
from memorization.lab.random_tokens import random_tokens
from memorization.lab.stack import RECIPE, train_stack
from memorization.lab.training import train

pytestmark = pytest.mark.kernels

VOCAB_SIZE, SEQ_LEN = 5, 6
FIGURES = [
    [3.6219, 3.7957],
    [570.04, 576.22],
]  # of RECIPE 1: bits per token of the last step, and coded bits of the whole set after it


class Bigram(nn.Module):
    """Logits that depend on the last token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(VOCAB_SIZE, VOCAB_SIZE))

    def forward(self, ids):
        return self.table[ids]


class Tied(nn.Module):
    """One tensor under two names, as output heads often are."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 4)
        self.head = nn.Linear(4, VOCAB_SIZE, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.embedding(ids))


class Adapted(nn.Module):
    """A frozen base and a buffer, different in each model, under a small adapter that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Embedding(VOCAB_SIZE, VOCAB_SIZE).requires_grad_(False)
        self.register_buffer("scale", torch.rand(VOCAB_SIZE) + 0.5)
        self.adapter = nn.Linear(VOCAB_SIZE, VOCAB_SIZE)

    def forward(self, ids):
        return self.adapter(self.base(ids)) * self.scale


class Broken(Bigram):
    """NaN once a weight exceeds 4, as at too high a rate; from the start if it begins like that."""

    def forward(self, ids):
        return torch.where(self.table.abs().max() > 4, torch.nan, self.table)[ids]


class LooksAtItsData(Bigram):
    """Bigram, with a Python branch on values, which vmap cannot follow."""

    def forward(self, ids):
        return super().forward(ids) if ids.min() >= 0 else super().forward(ids * 0)


class Recurrent(nn.Module):
    """nn.LSTM, or the same computation step by step, which vmap can run."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(VOCAB_SIZE, 3), nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, VOCAB_SIZE)
        self.fused = fused

    def forward(self, ids):
        inputs = self.embedding(ids)
        if self.fused:
            return self.head(self.lstm(inputs)[0])
        hidden = cell = inputs.new_zeros(len(ids), 4)
        states = []
        for one in inputs.unbind(1):
            gates = nn.functional.linear(one, self.lstm.weight_ih_l0, self.lstm.bias_ih_l0)
            gates = gates + nn.functional.linear(hidden, self.lstm.weight_hh_l0, self.lstm.bias_hh_l0)
            into, forget, new, out = gates.chunk(4, dim=-1)
            cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
            hidden = out.sigmoid() * cell.tanh()
            states.append(hidden)
        return self.head(torch.stack(states, dim=1))


def built(build, n_models: int) -> list[nn.Module]:
    models = []
    for seed in range(n_models):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            models.append(build())
    return models


def gpt2() -> nn.Module:
    return Architecture("gpt2", width=8)(VOCAB_SIZE, SEQ_LEN)


def random_ids(n_samples: int, seed: int, vocab_size: int = VOCAB_SIZE) -> torch.Tensor:
    return torch.randint(vocab_size, (n_samples, SEQ_LEN), generator=torch.Generator().manual_seed(seed))


# Of different sizes, two of them smaller than a batch.
DATA = [random_ids(n_samples, seed) for seed, n_samples in enumerate((12, 3, 30, 1, 8))]
EVERY_TOKEN = torch.stack([torch.arange(SEQ_LEN) * step % VOCAB_SIZE for step in range(VOCAB_SIZE)])
RATES = [0.02, 0.05, 0.01, 0.05, 0.02]


def trained(models, data=DATA, rates=RATES, *, first: int = 0, **options):
    """The models trained on the sets from `first` on; with what came of it."""
    n = len(models)
    seeds = options.pop("seeds", list(range(first, first + n)))
    options = {"context": 0, "steps": 40, "batch_size": 8, "warmup_steps": 10, **options}
    some = slice(first, first + n)
    return train_stack(models, data[some], peak_lrs=rates[some], seeds=seeds, **options)


def same_weights(one: nn.Module, other: nn.Module, tolerance: float) -> None:
    mine, its = one.state_dict(), other.state_dict()
    assert list(mine) == list(its)
    for name in mine:
        torch.testing.assert_close(mine[name], its[name], atol=tolerance, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def apart(one: nn.Module, other: nn.Module) -> float:
    """Largest difference of the logits. Weights can differ where nothing depends on them: Adam blows rounding up to whole steps."""
    with torch.no_grad():
        return float((one(EVERY_TOKEN) - other(EVERY_TOKEN)).abs().max())


# --- what a model gets does not depend on the others


@pytest.mark.parametrize("build", [gpt2, Bigram, Tied, Adapted])
def test_a_model_gets_what_it_gets_alone(build):
    """Alone: `train`, which shares with the stack neither its batches nor its forward pass; a set smaller than the batch by itself."""
    together = built(build, 5)
    start = built(build, 5)
    done = trained(together)
    assert done.stacked
    for index, model in enumerate(built(build, 5)):
        by_itself = trained([model], first=index)
        assert not by_itself.stacked
        torch.testing.assert_close(by_itself.bits_per_token[0], done.bits_per_token[index], atol=1e-4, rtol=0)
        assert apart(model, together[index]) < 2e-3
        assert apart(model, start[index]) > 0.1
    alone = built(build, 5)[2]
    options = {"steps": 40, "batch_size": 8, "warmup_steps": 10}
    bits = train(alone, DATA[2], context=0, peak_lr=RATES[2], seed=2, progress=False, **options)
    assert float(bits[-4:].mean()) == pytest.approx(float(done.bits_per_token[2]), abs=1e-4)
    assert apart(alone, together[2]) < 2e-3


def test_a_model_gets_the_same_to_the_bit_in_another_stack():
    """Sizes are multiples of 8, so that no model meets another path through vector instructions."""

    def build() -> nn.Module:
        return Architecture("gpt2", width=8)(16, 8)

    data = [torch.randint(16, (9, 8), generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    large, small = built(build, 5), built(build, 5)[1:3]
    in_large = trained(large, data)
    in_small = trained(small, data, first=1)
    assert in_large.bits_per_token[1:3].tolist() == in_small.bits_per_token.tolist()
    for one, other in zip(large[1:3], small, strict=True):
        same_weights(one, other, 0)


def test_rates_of_the_others_do_not_matter():
    one, other = built(gpt2, 5), built(gpt2, 5)
    first = trained(one)
    second = trained(other, rates=[0.2, 0.05, 0.003, 0.01, 0.02])
    for index, unchanged in enumerate([False, True, False, False, True]):
        near = abs(float(first.bits_per_token[index] - second.bits_per_token[index])) < 1e-4
        assert near == unchanged
        assert (apart(one[index], other[index]) < 2e-3) == unchanged


def test_results_come_in_the_order_of_the_models():
    """Data of known entropy, and rates that put the models in another order: sets of one, two and four equal tokens."""
    tables = [torch.arange(n).repeat_interleave(4 // n)[:, None] for n in (4, 1, 2)]
    done = train_stack(
        built(lambda: Architecture("gpt2", width=4)(4, 1), 3),
        tables,
        context=0,
        steps=150,
        batch_size=4,
        peak_lrs=[0.05, 0.1, 0.02],
        seeds=[0, 1, 2],
    )
    assert done.stacked
    assert [round(bits, 1) for bits in done.bits_per_token.tolist()] == [2.0, 0.0, 1.0]


def test_seeds_order_the_samples():
    one, other = built(gpt2, 1) * 2, built(gpt2, 1) * 2
    models = [one[0], other[0]]
    train_stack(models, [DATA[2]] * 2, context=0, steps=20, batch_size=4, peak_lrs=[0.05] * 2, seeds=[0, 1])
    assert apart(*models) > 1e-3


# --- closed forms


def test_a_bigram_model_learns_the_conditional_entropy():
    """A chain that stays with 3/4 or moves on with 1/4: 0.811 bits a token, the first one after token 0 like any other."""
    draw = torch.Generator().manual_seed(0)
    moves = (torch.rand(400, SEQ_LEN, generator=draw) < 0.25).long()
    ids = moves.cumsum(1) % VOCAB_SIZE
    pairs = torch.stack([torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], dim=1), ids], dim=-1)
    counts = torch.bincount((pairs[..., 0] * VOCAB_SIZE + pairs[..., 1]).flatten(), minlength=25).double().view(5, 5)
    shares = counts / counts.sum(1, keepdim=True)
    entropy = -float((counts * shares.log2().nan_to_num(neginf=0.0)).sum() / counts.sum())
    assert entropy == pytest.approx(0.811, abs=0.01)
    done = train_stack(
        built(Bigram, 2), [ids, ids], context=0, steps=300, batch_size=400, peak_lrs=[1.0, 0.5], seeds=[0, 1]
    )
    for bits in done.bits_per_token.tolist():
        assert entropy < bits < entropy + 0.01  # pairs that never come approach probability 0 without end


def test_small_sets_are_memorized_whole():
    done = trained(built(gpt2, 5), steps=100, rates=[0.05] * 5)
    assert done.bits_per_token[3] < 0.01  # one sample
    assert done.bits_per_token[1] < 0.5 < done.bits_per_token[2]


def test_bits_are_those_of_the_last_tenth_before_each_update():
    """One step: the untrained model's own bits of its batch, which is the whole set."""
    models = built(Bigram, 2)
    expected = []
    for model, ids in zip(models, [DATA[4], DATA[0][:8]], strict=True):
        inputs = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], dim=1)
        nats = nn.functional.cross_entropy(model(inputs).double().flatten(0, 1), ids.flatten())
        expected.append(nats.item() / math.log(2))
    done = trained(models, [DATA[4], DATA[0][:8]], steps=1)
    assert done.bits_per_token.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_recipe_is_the_one_that_its_number_stands_for():
    """If you changed these figures, runs that stores keep no longer go with new ones: add 1 to RECIPE, and tell the changelog."""
    assert RECIPE == 1
    cells = [Cell("gpt2", 0, 20, seed, 0.05, steps=12, batch_size=8) for seed in (0, 1)]
    data = [random_tokens(20, 8, 16, seed) for seed in (0, 1)]
    options = {"build": Architecture("gpt2", width=8), "vocab_size": 16, "context": 0, "device": torch.device("cpu")}
    models, done = train_cells(cells, data, stacked=True, on_steps=None, **options)
    assert done.step_bits[:, -1].tolist() == pytest.approx(FIGURES[0], rel=1e-3)
    lengths = [
        compress_bits(model, ids, first_token=0, progress=False) for model, ids in zip(models, data, strict=True)
    ]
    assert [one.total_bits for one in lengths] == pytest.approx(FIGURES[1], rel=1e-3)


# --- architectures


def test_what_is_frozen_stays_and_what_is_not_is_trained():
    models, before = built(Adapted, 3), built(Adapted, 3)
    assert trained(models).stacked
    for model, start in zip(models, before, strict=True):
        assert torch.equal(model.base.weight, start.base.weight)
        assert torch.equal(model.scale, start.scale)
        assert not torch.equal(model.adapter.weight, start.adapter.weight)
        assert not model.base.weight.requires_grad


def test_tied_weights_are_stacked_and_stay_tied():
    models = built(Tied, 3)
    assert trained(models).stacked
    assert all(model.head.weight is model.embedding.weight for model in models)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("awkward", "twin"),
    [(LooksAtItsData, Bigram), (lambda: Recurrent(fused=True), lambda: Recurrent(fused=False))],
    ids=["branch", "LSTM"],
)
def test_what_vmap_cannot_run_takes_turns_with_the_same_result(awkward, twin):
    turns, stacked = built(awkward, 5), built(twin, 5)
    in_turn, at_once = trained(turns), trained(stacked)
    assert (in_turn.stacked, at_once.stacked) == (False, True)
    torch.testing.assert_close(in_turn.bits_per_token, at_once.bits_per_token, atol=1e-4, rtol=0)
    for one, other in zip(turns, stacked, strict=True):
        assert apart(one, other) < 2e-3


def test_logits_may_come_in_an_object():
    class Wrapped(Bigram):
        def forward(self, ids):
            return SimpleNamespace(logits=super().forward(ids))

    plain = trained(built(Bigram, 3))
    for models in (built(Wrapped, 3), built(Wrapped, 1)):
        done = trained(models)
        torch.testing.assert_close(done.bits_per_token, plain.bits_per_token[: len(models)], atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_models", [1, 2])
def test_dropout_is_refused(n_models):
    models = built(lambda: nn.Sequential(Bigram(), nn.Dropout(0.1)), n_models)
    with pytest.raises(ModelError, match="other logits each time it runs in training mode; set its dropout to 0"):
        trained([model.eval() for model in models])


# --- divergence


def test_divergence_stays_with_its_model():
    """Rates that carry a weight past 4 never, in the first look at losses, and in the second."""
    models, whole = built(Broken, 3), built(Bigram, 3)
    options = {"data": [DATA[2], DATA[0], DATA[1]], "rates": [0.05, 1e6, 0.1], "steps": 120, "warmup_steps": 0}
    done, expected = trained(models, **options), trained(whole, **options)
    assert done.stacked
    largest = []
    watched = built(Bigram, 3)[2:]
    watched[0].register_forward_pre_hook(lambda module, _: largest.append(float(module.table.detach().abs().max())))
    trained(watched, data=[DATA[1]], rates=[0.1], steps=120, warmup_steps=0, first=0, seeds=[2])
    first = next(step for step, weight in enumerate(largest[2:]) if weight > 4)  # after two trials
    assert 50 < first < 120
    assert done.diverged_at.tolist() == [-1, 1, first]
    assert done.bits_per_token[0] == pytest.approx(expected.bits_per_token[0])
    assert done.bits_per_token[1:].isnan().all()
    same_weights(models[0], whole[0], 1e-5)


@pytest.mark.parametrize("n_models", [1, 3])
def test_a_model_that_is_broken_from_the_start_says_so(n_models):
    models = built(Broken, n_models)
    with torch.no_grad():
        models[0].table.fill_(5.0)
    steps = []
    done = trained(models, steps=120, on_steps=steps.append)
    assert done.diverged_at.tolist() == [0] + [-1] * (n_models - 1)
    assert done.bits_per_token.isnan().tolist() == [True] + [False] * (n_models - 1)
    assert done.stacked == (n_models > 1)
    assert sum(steps) == (50 if n_models == 1 else 120)  # nothing is left to train after the first look


@pytest.mark.parametrize("build", [gpt2, LooksAtItsData], ids=["stacked", "in turn"])
def test_gradients_are_clipped_model_by_model(build):
    """Each as torch clips it alone: of three models with the same norm allowed, whatever the others' gradients are."""
    clipped, free = built(build, 3), built(build, 3)
    done, without = trained(clipped, max_grad_norm=0.05), trained(free)
    assert (apart(clipped[0], free[0]) > 1e-3) or not torch.equal(done.step_bits, without.step_bits)
    for index, model in enumerate(built(build, 3)):
        bits = train(
            model,
            DATA[index],
            context=0,
            steps=40,
            batch_size=min(8, len(DATA[index])),
            warmup_steps=10,
            peak_lr=RATES[index],
            seed=index,
            max_grad_norm=0.05,
            progress=False,
        )
        if len(DATA[index]) >= 8:  # `train` takes no batch larger than the set
            torch.testing.assert_close(bits, done.step_bits[index], atol=1e-4, rtol=0)


# --- what stays as it was, and what is reported


@pytest.mark.parametrize("build", [Adapted, LooksAtItsData], ids=["stacked", "in turn"])
def test_modes_gradients_and_the_global_rng_are_left_as_they_were(build):
    models = built(lambda: nn.Sequential(build(), nn.Identity()), 3)
    models[0].eval()
    models[1][0].eval()
    before = torch.get_rng_state()
    trained(models)
    assert torch.equal(torch.get_rng_state(), before)
    states = [(model.training, model[0].training, model[1].training) for model in models]
    assert states == [(False, False, False), (True, False, True), (True, True, True)]
    assert all(parameter.grad is None for model in models for parameter in model.parameters())
    assert all(isinstance(parameter, nn.Parameter) for model in models for parameter in model.parameters())
    assert all(torch.isfinite(model(DATA[0])).all() for model in models)


def test_modes_are_left_as_they_were_after_a_failure():
    models = [model.eval() for model in built(Bigram, 2)]
    with pytest.raises(IndexError):
        trained(models, [torch.full((2, SEQ_LEN), VOCAB_SIZE)] * 2)
    assert not any(model.training for model in models)


@pytest.mark.parametrize(("steps", "looks"), [(1, [1]), (50, [50]), (120, [50, 50, 20])])
def test_progress_adds_up_to_the_steps(steps, looks):
    done = []
    trained(built(Bigram, 2), steps=steps, on_steps=done.append)
    assert done == looks


def test_narrow_arithmetic_runs():
    """Autocast keeps float32 weights; both come near what float32 learns."""
    exact = trained(built(gpt2, 2), steps=100)
    mixed = built(gpt2, 2)
    cast = trained(mixed, steps=100, autocast=torch.bfloat16)
    narrow = [model.to(torch.bfloat16) for model in built(gpt2, 2)]
    rounded = trained(narrow, steps=100)
    assert {p.dtype for p in mixed[0].parameters()} == {torch.float32}
    assert {p.dtype for p in narrow[0].parameters()} == {torch.bfloat16}
    assert cast.stacked
    assert rounded.stacked
    for done in (cast, rounded):
        torch.testing.assert_close(done.bits_per_token, exact.bits_per_token, atol=0.2, rtol=0)
        assert not torch.equal(done.bits_per_token, exact.bits_per_token)


# --- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": 0}, "need one entry a model, and at least one; got {'models': 0, 'data': 2"),
        ({"models": 3}, "need one entry a model, and at least one; got {'models': 3, 'data': 2"),
        ({"data": DATA[:1]}, "'data': 1, 'peak_lrs': 2, 'seeds': 2}"),
        ({"peak_lrs": [0.1]}, "'peak_lrs': 1, 'seeds': 2}"),
        ({"seeds": [0, 1, 2]}, "'seeds': 3}"),
        ({"steps": 0}, "steps must be an integer of at least 1; it is 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1; it is 0"),
        (
            {"data": [DATA[0], DATA[1][:0]]},
            r"all of one length of at least a token; got the shapes \[\(12, 6\), \(0, 6\)",
        ),
        ({"data": [DATA[0], DATA[1][:, :5]]}, r"got the shapes \[\(12, 6\), \(3, 5\)\]"),
        ({"data": [DATA[0][:, :0], DATA[1][:, :0]]}, r"got the shapes \[\(12, 0\), \(3, 0\)\]"),
        ({"peak_lrs": [0.1, 0.0]}, r"each of peak_lrs must be a number above 0; it is 0\.0"),
        ({"peak_lrs": [math.nan, 0.1]}, "each of peak_lrs must be a number above 0; it is nan"),
        ({"peak_lrs": [0.1, math.inf]}, "each of peak_lrs must be a number above 0; it is inf"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    call = {"data": DATA[:2], "peak_lrs": [0.1, 0.1], "seeds": [0, 1], "steps": 2, "batch_size": 8, **options}
    models = built(Bigram, call.pop("models", 2))
    with pytest.raises(InputError, match=message):
        train_stack(models, context=0, **call)


def test_what_is_just_legal():
    one = [torch.tensor([[1]])]
    done = train_stack(built(Bigram, 1), one, context=0, steps=1, batch_size=1, peak_lrs=[1e-9], seeds=[0])
    assert done.diverged_at.tolist() == [-1]
