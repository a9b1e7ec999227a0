"""The compiled trainer: torch's gradients, torch's trainings, and only where it knows the model; and SOAP by its closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from memorization.lab.architectures import Architecture
from memorization.lab.builders import build_seeded
from memorization.lab.capacity.sizes import size_of
from memorization.lab.compiled import can_compile, training
from memorization.lab.compiled.training import train_compiled
from memorization.lab.random_tokens import random_tokens
from memorization.lab.soap import OneSidedSOAP, turned_to_new_basis
from memorization.lab.stack import train_stack

# Layers, width, heads, tokens, positions, samples: heads of one, five and eight channels, tiles that are full, short and several,
# chunks of the head that do not come out even, one position.
SHAPES = [
    (1, 8, 2, 128, 32, 24),
    (2, 5, 1, 7, 9, 100),
    (3, 12, 12, 300, 3, 3),
    (1, 16, 2, 11, 1, 50),
    (2, 9, 3, 2, 40, 1),
]


def moved(layers: int, width: int, heads: int, vocab_size: int, seq_len: int) -> nn.Module:
    """A model off its start, where gradients of all parameters are far from 0."""
    torch.manual_seed(0)
    model = Architecture("gpt2", layers=layers, width=width, heads=heads)(vocab_size, seq_len)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(("layers", "width", "heads", "vocab_size", "seq_len", "batch"), SHAPES)
def test_gradients_are_torchs(layers, width, heads, vocab_size, seq_len, batch):
    from memorization.lab.compiled import gpt2

    model = moved(layers, width, heads, vocab_size, seq_len)
    theta = np.concatenate([parameter.detach().numpy().ravel() for parameter in model.parameters()])
    ids = torch.randint(vocab_size, (batch, seq_len + 1), generator=torch.Generator().manual_seed(1))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    model.double()
    loss = nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    loss.backward()
    expected = np.concatenate([parameter.grad.numpy().ravel() for parameter in model.parameters()])
    found = np.full_like(theta, np.nan)
    arrays = [np.ascontiguousarray(part.numpy().T) for part in (inputs, targets)]
    nats = gpt2.nats_and_gradients(theta, found, *arrays, vocab_size, width, layers, heads)
    assert nats == pytest.approx(loss.item(), rel=1e-6)
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    begin = 0
    for name, parameter in model.named_parameters():
        part = slice(begin, begin + parameter.numel())
        begin = part.stop
        assert np.abs(found[part] - expected[part]).max() < 1e-5 * max(np.abs(expected).max(), 1e-3), name


@pytest.mark.parametrize(("layers", "width", "vocab_size", "batch_size"), [(1, 8, 128, 18), (2, 12, 50, 70)])
def test_a_training_is_torchs(layers, width, vocab_size, batch_size):
    """The same batches, start, steps and bases; what Adam makes of rounding is 1e-3 after two turns of the bases."""
    build, seq_len = Architecture("gpt2", layers=layers, width=width), 9
    ids = random_tokens(40, seq_len, vocab_size, 0)
    options = {"context": 0, "steps": 110, "batch_size": batch_size, "weight_decay": 0.5}
    fast, slow, beside, other = (build_seeded(build, vocab_size, seq_len, seed) for seed in (0, 0, 0, 1))
    looked: list[int] = []
    done = train_compiled(fast, ids, peak_lr=0.03, seed=3, on_steps=looked.append, **options)
    alone = train_stack([slow], [ids], peak_lrs=[0.03], seeds=[3], soap=True, **options)
    stack = train_stack([other, beside], [ids, ids], peak_lrs=[0.05, 0.03], seeds=[4, 3], soap=True, **options)
    assert stack.stacked
    assert looked == [50, 50, 10]
    np.testing.assert_allclose(done.step_bits[0, :60], alone.step_bits[0, :60], rtol=1e-4)
    np.testing.assert_allclose(done.step_bits[0], alone.step_bits[0], rtol=3e-3)
    np.testing.assert_allclose(stack.step_bits[1], alone.step_bits[0], rtol=3e-3)
    assert done.bits_per_token.tolist() == pytest.approx(alone.bits_per_token.tolist(), rel=1e-3)
    assert done.bits_per_token[0] < 0.8 * math.log2(vocab_size)  # something was learned
    everything = torch.arange(seq_len) % vocab_size
    with torch.no_grad():
        torch.testing.assert_close(fast(everything[None]), slow(everything[None]), rtol=0.02, atol=0.05)


def test_divergence_is_seen():
    model = build_seeded(Architecture("gpt2", width=4), 8, 5, 0)
    done = train_compiled(
        model, random_tokens(6, 5, 8, 0), context=0, steps=120, batch_size=4, peak_lr=1e30, seed=0, warmup_steps=0
    )
    assert 0 < done.diverged_at[0] < 50
    assert math.isnan(done.bits_per_token[0])
    assert torch.isnan(done.step_bits[0, 50:]).all()


def test_only_what_is_known_is_compiled(monkeypatch):
    gpt2 = Architecture("gpt2", width=4)
    assert can_compile(gpt2(8, 5))
    assert not can_compile(Architecture("llama", width=4)(8, 5))
    assert not can_compile(Architecture("moe", width=4)(8, 5))  # GPT-2 with another feed-forward part
    assert not can_compile(gpt2(8, 5).double())
    frozen = gpt2(8, 5)
    frozen.token.weight.requires_grad_(False)
    assert not can_compile(frozen)

    class Other(type(gpt2(8, 5))):
        pass

    assert not can_compile(Other(vocab_size=8, seq_len=5, layers=1, width=4, heads=1))
    on_cpu = (16, 8, "auto", "auto", (1, 2), torch.device("cpu"))
    assert size_of(gpt2, *on_cpu, "float32").compiled
    assert not size_of(gpt2, *on_cpu, "bfloat16").compiled
    assert not size_of(gpt2, *on_cpu, "autocast").compiled
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    without = size_of(gpt2, *on_cpu, "float32")
    assert (without.compiled, without.stacked) == (False, True)


def test_exponentials():
    from memorization.lab.compiled.loops import exp

    x = np.concatenate([np.linspace(-87, 87, 4001), [-1e30, 1e30, -0.0]]).astype(np.float32)
    found = np.array([exp(each) for each in x], dtype=np.float64)
    np.testing.assert_allclose(found, np.exp(np.clip(x.astype(np.float64), -87, 87)), rtol=3e-7)


# --- SOAP


def quadratic(parameters, centres) -> torch.Tensor:
    return sum(((p - c) ** 2).sum() for p, c in zip(parameters, centres, strict=True))


def test_soap_of_long_sides_and_vectors_is_adam():
    generator = torch.Generator().manual_seed(0)
    shapes = [(7,), (41, 42), (2, 3, 4)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    centres = [torch.randn(shape, generator=generator) for shape in shapes]
    mine, its = ([nn.Parameter(each.clone()) for each in start] for _ in range(2))
    soap = OneSidedSOAP(mine, stacked=False)
    adam = torch.optim.AdamW(its, lr=0.1, betas=(0.95, 0.98), weight_decay=0.3)
    soap.param_groups[0].update(lr=0.1, weight_decay=0.3)
    for _ in range(120):
        for optimizer, parameters in ((soap, mine), (adam, its)):
            optimizer.zero_grad()
            quadratic(parameters, centres).backward()
            optimizer.step()
    for a, b, first in zip(mine, its, start, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(a, first, atol=0.5)


def test_a_new_basis_nears_the_eigenvectors_and_turns_the_moments_with_it():
    generator = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(1, 6, 6, generator=generator))[0]
    gram = q @ torch.diag(2.0 ** torch.arange(6)) @ q.mT
    basis, first = torch.eye(6)[None].clone(), torch.randn(1, 6, 3, generator=generator)
    second, before = torch.rand(1, 6, 3, generator=generator), first.clone()
    largest = second.sum()
    for _ in range(40):
        turned_to_new_basis(gram, basis, first, second, 1)
    torch.testing.assert_close(basis @ first, before, rtol=1e-4, atol=1e-4)  # the same matrix in another basis
    diagonal = basis.mT @ gram @ basis
    torch.testing.assert_close(diagonal[0], torch.diag(2.0 ** torch.arange(5.0, -1, -1)), rtol=1e-3, atol=1e-2)
    assert second.sum() == pytest.approx(float(largest))
    right, columns = torch.eye(3)[None].clone(), first.clone()
    turned_to_new_basis(torch.diag(torch.tensor([1.0, 3.0, 2.0]))[None], right, columns, second, 2)
    torch.testing.assert_close(columns @ right.mT, first, rtol=1e-5, atol=1e-5)
    assert right[0].abs().argmax(0).tolist() == [1, 2, 0]  # the largest first


def test_a_basis_of_a_model_that_broke_is_left():
    gram = torch.full((1, 2, 2), torch.nan)
    basis, moment = torch.eye(2)[None].clone(), torch.ones(1, 2, 2)
    turned_to_new_basis(gram, basis, moment, moment, 1)
    assert torch.equal(basis, torch.eye(2)[None])
