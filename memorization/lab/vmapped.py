"""Many models of one architecture as one function, by `torch.func.vmap`, or in turn where vmap cannot run them."""

import copy
import itertools
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from memorization.errors import ModelError
from memorization.lab.builders import logits_of

__all__ = ["InTurn", "Vmapped", "can_stack", "check_repeatable"]

# What vmap and a loop over the models may differ by, as a share of the logits' largest magnitude: both are float32
# sums.
_SAME_LOGITS = 1e-3
_SLOW = "performance drop"  # what torch warns of where vmap only loops, slower than in turn
_TINY = 1e-6  # as torch.nn.utils.clip_grad_norm_ has it


class Vmapped:
    """The stacked models as one function; the weights of one learning rate are one set of stacked parameters."""

    def __init__(self, groups: Sequence[Sequence[nn.Module]]) -> None:
        self._groups = groups
        # A copy: a call puts stacked weights into it for a moment, and stacks in other threads may share modules with
        # these.
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
        return logits_of(functional_call(self._template, weights, (ids,)))

    @property
    def leaves(self) -> list[list[nn.Parameter]]:
        """What is trained, a list for each learning rate."""
        return [list(weights.values()) for weights in self._weights]

    def __call__(self, inputs: Int[Tensor, "model sample position"]) -> Float[Tensor, "model sample position vocab"]:
        """Logits of all models, each on its own samples."""
        return self._run(_side_by_side(self._weights) | self._fixed_together, inputs)

    @torch.no_grad()
    def clip(self, max_norm: float) -> None:
        """Scale the gradients of each model down to this norm, where they are larger."""
        for leaves in self.leaves:
            gradients = [parameter.grad for parameter in leaves if parameter.grad is not None]
            norms = torch.stack([gradient.flatten(1).float().norm(dim=1) for gradient in gradients]).norm(dim=0)
            scale = (max_norm / (norms + _TINY)).clamp(max=1)
            for gradient in gradients:
                gradient.mul_(scale.to(gradient.dtype).view(-1, *[1] * (gradient.dim() - 1)))

    @torch.no_grad()
    def give_back(self) -> None:
        """Write the trained weights into the modules."""
        for models, weights in zip(self._groups, self._weights, strict=True):
            for index, model in enumerate(models):
                for name, parameter in model.named_parameters():
                    if name in weights:
                        parameter.copy_(weights[name][index])


class InTurn:
    """The models one after another: for a single one, and for architectures that vmap cannot run."""

    def __init__(self, groups: Sequence[Sequence[nn.Module]]) -> None:
        self._models = [model for models in groups for model in models]
        self.leaves = [
            [parameter for model in models for parameter in model.parameters() if parameter.requires_grad]
            for models in groups
        ]

    def __call__(self, inputs: Int[Tensor, "model sample position"]) -> Float[Tensor, "model sample position vocab"]:
        """Logits of all models, each on its own samples."""
        if len(self._models) == 1:
            return logits_of(self._models[0](inputs[0]))[None]
        return torch.stack([logits_of(model(ids)) for model, ids in zip(self._models, inputs, strict=True)])

    def clip(self, max_norm: float) -> None:
        """Scale the gradients of each model down to this norm, where they are larger."""
        for model in self._models:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)

    def give_back(self) -> None:
        """The weights are in the modules already."""


def _side_by_side(groups: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    if len(groups) == 1:
        return dict(groups[0])
    return {name: torch.cat([group[name] for group in groups]) for name in groups[0]}


@torch.no_grad()
def check_repeatable(
    models: Sequence[nn.Module], inputs: Int[Tensor, "model sample position"]
) -> Float[Tensor, "model sample position vocab"]:
    """Logits of models in training mode, which must be the same a second time.

    Raises:
        ModelError: they are not: the models are random in training mode.
    """
    in_turn = InTurn([models])
    first, second = in_turn(inputs), in_turn(inputs)
    if not torch.allclose(first, second, rtol=0, atol=0, equal_nan=True):
        raise ModelError("the model gives other logits each time it runs in training mode; set its dropout to 0.")
    return first


def can_stack(
    models: Sequence[nn.Module], inputs: Int[Tensor, "model sample position"], autocast: torch.dtype | None = None
) -> bool:
    """Whether vmap runs these models, forward and backward and no slower, with the logits that they give one by one.

    To be asked in the main thread, with no other one at work: it listens to torch's warnings, which are of the process.

    Args:
        models: of one architecture, in training mode.
        inputs: token ids for each of them.
        autocast: dtype of forward passes, if any.

    Raises:
        ModelError: the models are random in training mode.
    """
    around = torch.autocast(inputs.device.type, autocast) if autocast is not None else nullcontext()
    with around:
        expected = check_repeatable(models, inputs)
        try:
            # Heard, not raised: what a model itself has to say does not decide.
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                stacked = Vmapped([models])
                logits = stacked(inputs)
                logits.sum().backward()
        except Exception:
            # Whatever an architecture does that vmap cannot: control flow that depends on data, writing in place, ...
            return False
    if any(_SLOW in str(warning.message) for warning in heard):
        return False
    for parameter in itertools.chain(*stacked.leaves):
        parameter.grad = None
    largest = float(expected.nan_to_num(posinf=0.0, neginf=0.0).abs().max())
    return torch.allclose(logits, expected, rtol=0, atol=_SAME_LOGITS * largest, equal_nan=True)
