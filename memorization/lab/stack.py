"""Train models of one architecture, many at once: the one trainer of the lab."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Float64, Int
from torch import Tensor, nn

from memorization.errors import InputError
from memorization.integers import check_integer, check_integers
from memorization.lab.batches import Batches
from memorization.lab.options import check_positive
from memorization.lab.soap import OneSidedSOAP
from memorization.lab.vmapped import InTurn, Vmapped, can_stack, check_repeatable
from memorization.renamed import renamed_keywords

__all__ = ["RECIPE", "RECIPE_IN_WORDS", "StackTraining", "fraction_of_peak", "train_stack", "trained", "training_mode"]

# Stands in every store. Whoever changes a number that comes out of a training or of what is measured after it adds 1,
# so that runs made before the change are not taken for runs made after it; a test holds figures of this recipe.
RECIPE = 1
RECIPE_IN_WORDS = "AdamW 0.9 0.99, 100 steps of warm-up, linear decay to 0, one token before each sample"

_BETAS = (0.9, 0.99)
# Batches are drawn, moved to the device, and bits looked at, once in so many steps: each look makes a GPU wait.
STEPS_A_LOOK = 50


@dataclass(frozen=True, slots=True, eq=False)
class StackTraining:
    """What training a stack of models showed.

    Attributes:
        bits_per_token: mean bits per token of each model's batches in the last tenth of its steps, before each step's
            update, float64; NaN where training diverged.
        diverged_at: the step at which a model's bits per token were first seen not finite; -1 where they stayed finite.
        stacked: the models ran as one (torch.func.vmap); False: one after another, because vmap cannot run them.
        step_bits: mean bits per token of each step's batch, before its update; NaN for steps that were not made any
            more.
    """

    bits_per_token: Float64[Tensor, " model"]
    diverged_at: Int[Tensor, " model"]
    stacked: bool
    step_bits: Float64[Tensor, "model step"]


@renamed_keywords(betas="")
def train_stack(
    models: Sequence[nn.Module],
    data: Sequence[Int[Tensor, "_ position"]],
    *,
    context: int,
    steps: int,
    batch_size: int,
    peak_lrs: Sequence[float],
    seeds: Sequence[int],
    warmup_steps: int = 100,
    max_grad_norm: float | None = None,
    weight_decay: float = 0.0,
    soap: bool = False,
    autocast: torch.dtype | None = None,
    stacked: bool | None = None,
    on_steps: Callable[[int], object] | None = None,
) -> StackTraining:
    r"""Train models of one architecture in place, each on its own samples and at its own learning rate, all at once.

    Each model reads `[context, x_1, ..., x_(S-1)]` and predicts `x_1, ..., x_S`. AdamW; the learning
    rate rises linearly over the warm-up, then falls linearly and would be zero one step after the last. The
    forward pass runs the stacked weights through `torch.func.vmap`; where an architecture cannot be run like that, the
    models take turns, with the same result. What one model does never touches another: a model that diverges does so
    alone.

    Args:
        models: modules of the same structure on one device, which map int64 ids (sample, position) to logits (sample,
            position, vocabulary) or to an object with `.logits`. They must not be random: set dropout to 0.
        data: for each model its int64 samples, (n_samples, S) with one S for all; n_samples may differ.
        context: the token id that stands before each sample, read and not predicted.
        steps: optimizer steps.
        batch_size: samples a step of each model. Samples come in shuffles of a model's whole set, each as often as any
            other, give or take one; a set smaller than the batch is seen more than once a step.
        peak_lrs: learning rate at the end of the warm-up, one for each model.
        seeds: of the order of the samples, one for each model.
        warmup_steps: steps of the linear rise; at most half of `steps` are used.
        max_grad_norm: scale larger gradients of a model down to this norm; None leaves them.
        weight_decay: what a weight loses of itself in a step at the peak, as a share of the learning rate. It falls
            with the square of the rate, and so vanishes before it.
        soap: `OneSidedSOAP` in place of Adam.
        autocast: run forward passes under torch.autocast with this dtype; None: in the weights' own.
        stacked: whether vmap runs the architecture. None finds out, which listens to the warnings of the whole process:
            in a thread beside others, pass what was found before they started.
        on_steps: called with the number of steps done since the last call, about every 50 steps.

    Returns:
        Bits per token of each model at its last steps, and what else is known of the training.

    Raises:
        InputError: the lists differ in length, samples differ in theirs, or a number is out of range.
        ModelError: a model is random in training mode.

    Guarantees:
        The result of a model does not depend on what else is in the stack, up to rounding. The train/eval state of each
        module is as it was; torch's global RNG has not moved.

    Examples:
        Two models that are told nothing learn the entropies of their data: 0.811 bits and 0.

        >>> import torch
        >>> class Unigram(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.logits = torch.nn.Parameter(torch.zeros(2))
        ...
        ...     def forward(self, ids):
        ...         return self.logits.expand(*ids.shape, 2)
        >>> data = [torch.tensor([[0, 0], [0, 1]]), torch.tensor([[1, 1]])]
        >>> done = train_stack(
        ...     [Unigram(), Unigram()], data, context=0, steps=400, batch_size=2, peak_lrs=[0.1, 0.1], seeds=[0, 1]
        ... )
        >>> [round(bits, 2) for bits in done.bits_per_token.tolist()]
        [0.81, 0.0]

    Source: the protocol of Morris et al., arXiv:2505.24832, section 3.1, with the start token of this library and a
    decaying learning rate.
    """
    steps, batch_size = check_integer("steps", steps), check_integer("batch_size", batch_size)
    context = check_integer("context", context, at_least=0)
    warmup_steps = check_integer("warmup_steps", warmup_steps, at_least=0)
    peak_lrs = [check_positive("each of peak_lrs", rate) for rate in peak_lrs]
    seeds = check_integers("seeds", seeds, different=False)
    _check(models, data, peak_lrs, seeds)
    if stacked is None:
        stacked = _asked(models, data, context, autocast)
    return trained(
        models,
        data,
        context=context,
        steps=steps,
        batch_size=batch_size,
        peak_lrs=peak_lrs,
        seeds=seeds,
        warmup_steps=warmup_steps,
        max_grad_norm=max_grad_norm,
        weight_decay=check_positive("weight_decay", weight_decay, or_zero=True),
        soap=soap,
        autocast=autocast,
        stacked=stacked,
        look=None if on_steps is None else lambda n_steps, _: on_steps(n_steps),
    )


def _asked(
    models: Sequence[nn.Module], data: Sequence[Int[Tensor, "_ position"]], context: int, autocast: torch.dtype | None
) -> bool:
    """Whether vmap runs these models; each is tried on two samples, and refused if its logits are random."""
    device = next(models[0].parameters()).device
    inputs = Batches(data, [0] * len(data), context, 1, device).some()
    with training_mode(models):
        if len(models) == 1:
            check_repeatable(models, inputs)
            return False
        return can_stack(models, inputs, autocast)


@contextmanager
def training_mode(models: Sequence[nn.Module]) -> Iterator[None]:
    """Modules in training mode within, and each as it was afterwards."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.train()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def trained(
    models: Sequence[nn.Module],
    data: Sequence[Int[Tensor, "_ position"]],
    *,
    context: int,
    steps: int,
    batch_size: int,
    peak_lrs: Sequence[float],
    seeds: Sequence[int],
    warmup_steps: int,
    max_grad_norm: float | None,
    autocast: torch.dtype | None,
    stacked: bool,
    weight_decay: float = 0.0,
    soap: bool = False,
    look: Callable[[int, Float32[Tensor, "model looked"]], object] | None,
) -> StackTraining:
    """`train_stack` of checked arguments; `look` also gets the bits per token of the steps since its last call."""
    device = next(models[0].parameters()).device
    # Models of one rate lie side by side: each rate is one parameter group of the optimizer.
    order = sorted(range(len(models)), key=lambda index: peak_lrs[index])
    rates = sorted(set(peak_lrs))
    groups = [[models[index] for index in order if peak_lrs[index] == rate] for rate in rates]
    draws = Batches([data[index] for index in order], [seeds[index] for index in order], context, batch_size, device)
    around = torch.autocast(device.type, autocast) if autocast is not None else nullcontext()
    bits = torch.full((len(models), steps), math.nan, device=device)
    diverged_at = torch.full((len(models),), -1)
    with training_mode(models):
        forward = Vmapped(groups) if stacked and len(models) > 1 else InTurn(groups)
        optimizer = _optimizer(forward, soap)
        for begin in range(0, steps, STEPS_A_LOOK):
            end = min(begin + STEPS_A_LOOK, steps)
            for step, (inputs, targets) in enumerate(draws.batches(end - begin), begin):
                fraction = fraction_of_peak(step, steps, min(warmup_steps, steps // 2))
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"], group["weight_decay"] = rate * fraction, weight_decay * fraction
                with around:
                    logits = forward(inputs)
                nats = nn.functional.cross_entropy(logits.flatten(0, 2).float(), targets.flatten(), reduction="none")
                nats = nats.view(len(models), -1).mean(1)
                optimizer.zero_grad()
                nats.sum().backward()
                if max_grad_norm is not None:
                    forward.clip(max_grad_norm)
                optimizer.step()
                bits[:, step] = nats.detach() / math.log(2)
            broken = ~torch.isfinite(bits[:, begin:end]).cpu()
            new = broken.any(1) & (diverged_at < 0)
            diverged_at[new] = begin + broken[new].int().argmax(1)
            if look is not None:
                look(end - begin, bits[:, begin:end])
            if bool((diverged_at >= 0).all()):
                break
        optimizer.zero_grad()
        forward.give_back()
    back = torch.tensor(order).argsort()
    all_bits = bits.cpu().double()[back]
    last = all_bits[:, steps - max(1, steps // 10) :].mean(1)
    last[diverged_at[back] >= 0] = math.nan
    return StackTraining(last, diverged_at[back], isinstance(forward, Vmapped), all_bits)


def _optimizer(forward: Vmapped | InTurn, soap: bool) -> torch.optim.Optimizer:
    parts = [{"params": parameters} for parameters in forward.leaves]
    if soap:
        return OneSidedSOAP(parts, stacked=isinstance(forward, Vmapped))
    return torch.optim.AdamW(parts, betas=_BETAS, weight_decay=0.0, fused=True)


def fraction_of_peak(step: int, steps: int, rise: int) -> float:
    """Learning rate of a step (counted from 0) as a fraction of the peak."""
    return (step + 1) / (rise + 1) if step < rise else (steps - step) / (steps - rise)


def _check(
    models: Sequence[nn.Module],
    data: Sequence[Int[Tensor, "_ position"]],
    peak_lrs: Sequence[float],
    seeds: Sequence[int],
) -> None:
    lengths = {"models": len(models), "data": len(data), "peak_lrs": len(peak_lrs), "seeds": len(seeds)}
    if not models or len(set(lengths.values())) > 1:
        raise InputError(f"models, data, peak_lrs and seeds need one entry a model, and at least one; got {lengths}.")
    shapes = [tuple(ids.shape) for ids in data]
    if min(map(min, shapes)) < 1 or len({length for _, length in shapes}) > 1:
        raise InputError(f"each model needs samples, all of one length of at least a token; got the shapes {shapes}.")
