"""Train many small models of one architecture at once, as a single stacked model."""

import copy
import itertools
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from memorization.errors import InputError, ModelError
from memorization.lab.training import fraction_of_peak

__all__ = ["StackTraining", "train_stack"]

# Batches are drawn, moved to the device, and losses looked at, once in so many steps: each look makes a GPU wait.
_STEPS_A_LOOK = 50
_WARNINGS = threading.Lock()  # filters of warnings are of the process, not of a thread
# What vmap and a loop over the models may differ by, as a share of the logits' largest magnitude: both are float32 sums.
_SAME_LOGITS = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class StackTraining:
    """What training a stack of models showed.

    Attributes:
        bits_per_token: mean bits per token of each model's batches in the last tenth of its steps, before each step's update,
            float64; NaN where training diverged.
        diverged_at: the step at which a model's bits per token were first seen not finite; -1 where they stayed finite.
        stacked: the models ran as one (torch.func.vmap); False: one after another, because vmap cannot run them.
    """

    bits_per_token: Float64[Tensor, " model"]
    diverged_at: Int[Tensor, " model"]
    stacked: bool


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
    betas: tuple[float, float] = (0.9, 0.99),
    autocast: torch.dtype | None = None,
    on_steps: Callable[[int], object] | None = None,
) -> StackTraining:
    r"""Train models of one architecture in place, each on its own samples and at its own learning rate, all at once.

    Each model reads `[context, x_1, ..., x_(S-1)]` and predicts `x_1, ..., x_S`. AdamW without weight decay; the learning
    rate rises linearly over the warm-up, then falls linearly and would be zero one step after the last. The forward pass
    runs the stacked weights through `torch.func.vmap`; where an architecture cannot be run like that, the models take
    turns, with the same result. What one model does never touches another: a model that diverges does so alone.

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
        betas: of AdamW.
        autocast: run forward passes under torch.autocast with this dtype; None: in the weights' own.
        on_steps: called with the number of steps done since the last call, about every 50 steps.

    Returns:
        Bits per token at the end, and what diverged.

    Raises:
        InputError: the lists differ in length, samples differ in theirs, or a number is out of range.
        ModelError: a model is random in training mode, or its logits have another shape than expected.

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
    _check(models, data, steps, batch_size, peak_lrs, seeds)
    device = next(models[0].parameters()).device
    # Models of one rate lie side by side: each rate is one parameter group of the optimizer.
    order = sorted(range(len(models)), key=lambda index: peak_lrs[index])
    rates = sorted(set(peak_lrs))
    groups = [[models[index] for index in order if peak_lrs[index] == rate] for rate in rates]
    draws = _Draws([data[index] for index in order], [seeds[index] for index in order], context, batch_size, device)
    around = torch.autocast(device.type, autocast) if autocast is not None else nullcontext()
    rise = min(warmup_steps, steps // 2)
    bits = torch.full((len(models), steps), math.nan, device=device)
    diverged_at = torch.full((len(models),), -1)
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.train()
    try:
        with around, _WARNINGS:
            forward = _runner(groups, draws.some())
        optimizer = torch.optim.AdamW(
            [{"params": parameters} for parameters in forward.leaves], betas=betas, weight_decay=0.0, fused=True
        )
        for begin in range(0, steps, _STEPS_A_LOOK):
            end = min(begin + _STEPS_A_LOOK, steps)
            for step, (inputs, targets) in enumerate(draws.batches(end - begin), begin):
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * fraction_of_peak(step, steps, rise)
                with around:
                    logits = forward(inputs)
                nats = nn.functional.cross_entropy(logits.flatten(0, 2).float(), targets.flatten(), reduction="none")
                nats = nats.view(len(models), -1).mean(1)
                optimizer.zero_grad()
                nats.sum().backward()
                optimizer.step()
                bits[:, step] = nats.detach() / math.log(2)
            broken = ~torch.isfinite(bits[:, begin:end]).cpu()
            new = broken.any(1) & (diverged_at < 0)
            diverged_at[new] = begin + broken[new].int().argmax(1)
            if on_steps is not None:
                on_steps(end - begin)
            if bool((diverged_at >= 0).all()):
                break
        optimizer.zero_grad()
        if isinstance(forward, _Vmapped):
            forward.give_back()
    finally:
        for module, training in modes:
            module.training = training
    last = bits[:, steps - max(1, steps // 10) :].cpu().double().mean(1)
    last[diverged_at >= 0] = math.nan
    back = torch.tensor(order).argsort()
    return StackTraining(last[back], diverged_at[back], isinstance(forward, _Vmapped))


class _Draws:
    """Batches of all models' samples: each model's own shuffles of its own set, from one generator a model."""

    def __init__(
        self,
        data: Sequence[Int[Tensor, "_ position"]],
        seeds: Sequence[int],
        context: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        together = torch.cat([ids.to(device) for ids in data])
        self._rows = torch.cat([torch.full_like(together[:, :1], context), together], dim=1)
        self._sizes = [len(ids) for ids in data]
        self._firsts = torch.tensor([0, *self._sizes]).cumsum(0)[:-1, None]
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._waiting = [torch.empty(0, dtype=torch.int64) for _ in seeds]
        self._batch_size = batch_size

    def some(self) -> Int[Tensor, "model sample position"]:
        """Inputs for a trial: the first two samples of each model, or its one sample twice."""
        seconds = self._firsts + torch.tensor(self._sizes)[:, None].clamp(max=2) - 1
        return self._rows[torch.cat([self._firsts, seconds], dim=1).to(self._rows.device)][..., :-1]

    def batches(
        self, n_batches: int
    ) -> Iterator[tuple[Int[Tensor, "model sample position"], Int[Tensor, "model sample position"]]]:
        """Inputs and targets of the next batches."""
        n_drawn = n_batches * self._batch_size
        chosen = torch.stack([self._draw(index, n_drawn) for index in range(len(self._sizes))]) + self._firsts
        for rows in chosen.to(self._rows.device).split(self._batch_size, dim=1):
            batch = self._rows[rows]
            yield batch[..., :-1], batch[..., 1:]

    def _draw(self, index: int, n_drawn: int) -> Int[Tensor, " drawn"]:
        n_missing = max(0, n_drawn - len(self._waiting[index]))
        size, generator = self._sizes[index], self._generators[index]
        shuffles = [torch.randperm(size, generator=generator) for _ in range(-(-n_missing // size))]
        waiting = torch.cat([self._waiting[index], *shuffles])
        self._waiting[index] = waiting[n_drawn:]
        return waiting[:n_drawn]


class _Vmapped:
    """The stacked models as one function; the weights of one learning rate are one set of stacked parameters."""

    def __init__(self, groups: list[list[nn.Module]]) -> None:
        self._groups = groups
        # A copy: a call puts stacked weights into it for a moment, and stacks in other threads may share modules with these.
        self._template = copy.deepcopy(groups[0][0])
        fixed = {name for name, parameter in groups[0][0].named_parameters() if not parameter.requires_grad}
        self._weights: list[dict[str, nn.Parameter]] = []
        self._fixed: list[dict[str, Tensor]] = []
        for models in groups:
            parameters, buffers = stack_module_state(list(models))
            self._weights.append({n: nn.Parameter(p.detach()) for n, p in parameters.items() if n not in fixed})
            self._fixed.append(buffers | {name: parameters[name].detach() for name in fixed})
        self._fixed_together = _side_by_side(self._fixed)
        self._run = vmap(self._one)

    def _one(self, weights: dict[str, Tensor], ids: Int[Tensor, "sample position"]) -> Tensor:
        return _logits(functional_call(self._template, weights, (ids,)))

    @property
    def leaves(self) -> list[list[nn.Parameter]]:
        return [list(weights.values()) for weights in self._weights]

    def __call__(self, inputs: Int[Tensor, "model sample position"]) -> Float[Tensor, "model sample position vocab"]:
        return self._run(_side_by_side(self._weights) | self._fixed_together, inputs)

    @torch.no_grad()
    def give_back(self) -> None:
        """Write the trained weights into the modules."""
        for models, weights in zip(self._groups, self._weights, strict=True):
            for index, model in enumerate(models):
                for name, parameter in model.named_parameters():
                    if name in weights:
                        parameter.copy_(weights[name][index])


class _InTurn:
    """The models one after another: for architectures that vmap cannot run."""

    def __init__(self, groups: list[list[nn.Module]]) -> None:
        self._models = [model for models in groups for model in models]
        self.leaves = [
            [parameter for model in models for parameter in model.parameters() if parameter.requires_grad]
            for models in groups
        ]

    def __call__(self, inputs: Int[Tensor, "model sample position"]) -> Float[Tensor, "model sample position vocab"]:
        return torch.stack([_logits(model(ids)) for model, ids in zip(self._models, inputs, strict=True)])


def _side_by_side(groups: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    if len(groups) == 1:
        return dict(groups[0])
    return {name: torch.cat([group[name] for group in groups]) for name in groups[0]}


def _runner(groups: list[list[nn.Module]], trial: Int[Tensor, "model sample position"]) -> "_Vmapped | _InTurn":
    """The stack as one function where vmap can run it, with the logits that the models give one by one; else in turn."""
    in_turn = _InTurn(groups)
    with torch.no_grad():
        expected, again = in_turn(trial), in_turn(trial)
    if not torch.allclose(expected, again, rtol=0, atol=0, equal_nan=True):
        raise ModelError("the model gives other logits each time it runs in training mode; set its dropout to 0")
    if sum(map(len, groups)) == 1:
        return in_turn
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # vmap warns where it only loops, slower than in turn
            stacked = _Vmapped(groups)
            logits = stacked(trial)
            logits.sum().backward()
    except Exception:
        # Whatever an architecture does that vmap cannot: control flow that depends on data, writing in place, ...
        return in_turn
    for parameter in itertools.chain(*stacked.leaves):
        parameter.grad = None
    largest = float(expected.nan_to_num(posinf=0.0, neginf=0.0).abs().max())
    same = torch.allclose(logits, expected, rtol=0, atol=_SAME_LOGITS * largest, equal_nan=True)
    return stacked if same else in_turn


def _logits(output: Any) -> Tensor:
    return output.logits if hasattr(output, "logits") else output


def _check(
    models: Sequence[nn.Module],
    data: Sequence[Int[Tensor, "_ position"]],
    steps: int,
    batch_size: int,
    peak_lrs: Sequence[float],
    seeds: Sequence[int],
) -> None:
    lengths = {"models": len(models), "data": len(data), "peak_lrs": len(peak_lrs), "seeds": len(seeds)}
    if not models or len(set(lengths.values())) > 1:
        raise InputError(f"models, data, peak_lrs and seeds need one entry a model, and at least one; got {lengths}")
    if steps < 1 or batch_size < 1:
        raise InputError(f"training needs at least one step and one sample a step; got {steps=}, {batch_size=}")
    shapes = [tuple(ids.shape) for ids in data]
    if min(map(min, shapes)) < 1 or len({length for _, length in shapes}) > 1:
        raise InputError(f"each model needs samples, all of one length of at least a token; got the shapes {shapes}")
    if not all(rate > 0 and math.isfinite(rate) for rate in peak_lrs):
        raise InputError(f"learning rates must be above 0; got {list(peak_lrs)}")
