"""Whether a model can be trained in compiled code, and its training."""

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeGuard

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from memorization.lab.architectures.gpt2 import GPT2, Attention, FeedForward
from memorization.lab.batches import Batches
from memorization.lab.soap import LONGEST_SIDE, STEPS_A_BASIS, turned_to_new_basis
from memorization.lab.stack import StackTraining, fraction_of_peak

__all__ = ["can_compile", "train_compiled"]


def can_compile(model: nn.Module) -> TypeGuard[GPT2]:
    """Whether compiled code trains this model: the library's own GPT-2, whole, in float32 on a CPU, and numba is there.

    numba comes with the extra `fast`.
    """
    return (
        type(model) is GPT2
        and sum(type(module) is FeedForward for module in model.modules()) == len(model.blocks)
        and all(p.requires_grad and p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters())
        and find_spec("numba") is not None
    )


def train_compiled(
    model: GPT2,
    ids: Int[Tensor, "sample position"],
    *,
    context: int,
    steps: int,
    batch_size: int,
    peak_lr: float,
    seed: int,
    warmup_steps: int = 100,
    weight_decay: float = 0.0,
    on_steps: Callable[[int], object] | None = None,
) -> StackTraining:
    """`train_stack` of one model that `can_compile`: the same batches, steps and figures, up to rounding.

    One thread trains, without Python's lock, so that several trainings run side by side. The first call on a machine
    compiles, for some ten seconds; later ones, of other processes too, find the code in numba's cache.

    Args:
        model: trained in place.
        ids: int64 samples, (n_samples, S); on the CPU.
        context: as of `train_stack`; so are all others.
        steps: of the optimizer.
        batch_size: samples a step.
        peak_lr: learning rate at the end of the warm-up.
        seed: of the order of the samples.
        warmup_steps: of the linear rise.
        weight_decay: as a share of the learning rate, at the peak.
        on_steps: called with the number of steps done since the last call.
    """
    from memorization.lab.compiled import gpt2

    batches = Batches([ids], [seed], context, batch_size, torch.device("cpu"))
    theta = torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).numpy()
    state, table, turns = _optimizer(model)
    heads = next(module.heads for module in model.modules() if isinstance(module, Attention))
    sizes = (model.token.num_embeddings, model.token.embedding_dim, len(model.blocks), heads)
    rise = min(warmup_steps, steps // 2)
    scale = np.array([fraction_of_peak(step, steps, rise) for step in range(steps)])
    bits, diverged_at = np.full(steps, math.nan), -1
    for begin in range(0, steps, STEPS_A_BASIS):
        here = slice(begin, min(begin + STEPS_A_BASIS, steps))
        tokens = batches.of_one(here.stop - begin)
        inputs, targets = (np.ascontiguousarray(part.numpy()) for part in (tokens[:, :-1], tokens[:, 1:]))
        decays = peak_lr * weight_decay * scale[here] ** 2
        nats = gpt2.steps(theta, state, table, begin, inputs, targets, peak_lr * scale[here], decays, sizes)
        bits[here] = nats / math.log(2)
        for turn in turns:
            turned_to_new_basis(*turn)
        if on_steps is not None:
            on_steps(here.stop - begin)
        if not np.isfinite(bits[here]).all():
            diverged_at = begin + int(np.argmin(np.isfinite(bits[here])))
            break
    with torch.no_grad():
        for parameter, trained in zip(model.parameters(), _split(theta, model), strict=True):
            parameter.copy_(trained)
    last = math.nan if diverged_at >= 0 else float(bits[steps - max(1, steps // 10) :].mean())
    ends = torch.tensor([last], dtype=torch.float64), torch.tensor([diverged_at])
    return StackTraining(*ends, stacked=False, step_bits=torch.from_numpy(bits)[None])


def _optimizer(model: nn.Module) -> tuple[tuple[np.ndarray, ...], np.ndarray, list[tuple[Any, ...]]]:
    """Flat moments, Gram matrices and bases; the table of `compiled.soap`; and for each side what is turned of them."""
    n_params = sum(parameter.numel() for parameter in model.parameters())
    first, second = torch.zeros(n_params), torch.zeros(n_params)
    matrices, begin, end = list[tuple[int, ...]](), 0, 0
    for parameter in model.parameters():
        if parameter.dim() == 2:
            at = [-1, -1]
            for side, length in enumerate(parameter.shape):
                if length <= LONGEST_SIDE:
                    at[side], end = end, end + length**2
            matrices.append((begin, *parameter.shape, *at))
        begin += parameter.numel()
    grams, bases, turns = torch.zeros(end), torch.zeros(end), []
    for start, rows, columns, *at in matrices:
        moments = [moment[start : start + rows * columns].view(1, rows, columns) for moment in (first, second)]
        for side, (place, length) in enumerate(zip(at, (rows, columns), strict=True)):
            if place >= 0:
                gram, basis = (flat[place : place + length**2].view(1, length, length) for flat in (grams, bases))
                basis.copy_(torch.eye(length))
                turns.append((gram, basis, *moments, side + 1))
    state = tuple(flat.numpy() for flat in (first, second, grams, bases))  # the same memory
    return state, np.array(matrices, dtype=np.int64), turns


def _split(theta: np.ndarray, model: nn.Module) -> list[Tensor]:
    shapes = [parameter.shape for parameter in model.parameters()]
    parts = torch.from_numpy(theta).split([shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
