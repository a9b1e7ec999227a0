"""SOAP (Vyas et al., 2024) that turns only short sides: Adam in a basis in which gradients are less correlated."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["LONGEST_SIDE", "STEPS_A_BASIS", "OneSidedSOAP", "turned_to_new_basis"]

# A longer side keeps its axes: those of tokens, whose gradients are of one token each, gain nothing by being mixed, and
# a basis costs the square of the side.
LONGEST_SIDE = 40
STEPS_A_BASIS = 50
BETAS = (0.95, 0.98)
_TINY = 1e-8


@dataclass(slots=True)
class _State:
    """Of one parameter of a stack of models; moments are kept in the bases."""

    shape: tuple[int, ...]  # models first
    sides: tuple[int, ...]  # of a matrix, which are turned
    first: Tensor
    second: Tensor
    grams: dict[int, Tensor]
    bases: dict[int, Tensor]


class OneSidedSOAP(torch.optim.Optimizer):
    """Adam in the eigenbases of the moving averages of G G^T and G^T G, where a matrix's side has at most 40 entries.

    The bases begin as the axes and are turned every 50 steps by one power iteration and a QR decomposition.

    Args:
        params: parameters or groups of them, as of any optimizer; a group's "lr" and "weight_decay" may be changed
            between steps.
        stacked: parameters have the models of a stack as their first dimension, and each is optimized for itself.

    Source: arXiv:2409.11321, algorithm 3; moments are kept in the basis, which is the same between two turns.
    """

    def __init__(self, params: Iterable[Any], *, stacked: bool) -> None:
        super().__init__(params, {"lr": 0.0, "weight_decay": 0.0})
        self._stacked = stacked
        self._steps = 0
        self._states = {id(p): self._begun(p) for group in self.param_groups for p in group["params"]}

    def _begun(self, parameter: Tensor) -> _State:
        shape = tuple(parameter.shape) if self._stacked else (1, *parameter.shape)
        sides = tuple(side for side in (1, 2) if shape[side] <= LONGEST_SIDE) if len(shape) == 3 else ()
        first = torch.zeros(shape, dtype=torch.float32, device=parameter.device)
        axes = {side: torch.eye(shape[side], device=parameter.device).repeat(shape[0], 1, 1) for side in sides}
        return _State(
            shape,
            sides,
            first,
            torch.zeros_like(first),
            {side: torch.zeros_like(basis) for side, basis in axes.items()},
            axes,
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of all parameters that have a gradient."""
        self._steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group["lr"], group["weight_decay"])

    def _step(self, parameter: Tensor, rate: float, decay: float) -> None:
        state = self._states[id(parameter)]
        gradient = parameter.grad.view(state.shape).float()  # type: ignore[union-attr]
        for side in state.sides:
            gram = gradient @ gradient.mT if side == 1 else gradient.mT @ gradient
            state.grams[side].lerp_(gram, 1 - BETAS[1])
        gradient = _turned(gradient, state.bases, forth=True)
        state.first.lerp_(gradient, 1 - BETAS[0])
        state.second.lerp_(gradient.square(), 1 - BETAS[1])
        scale = (state.second / (1 - BETAS[1] ** self._steps)).sqrt_().add_(_TINY)
        update = _turned(state.first / (1 - BETAS[0] ** self._steps) / scale, state.bases, forth=False)
        parameter.mul_(1 - rate * decay).sub_((rate * update).view_as(parameter).to(parameter.dtype))
        if self._steps % STEPS_A_BASIS == 0:
            for side in state.sides:
                turned_to_new_basis(state.grams[side], state.bases[side], state.first, state.second, side)


def _turned(matrix: Tensor, bases: dict[int, Tensor], *, forth: bool) -> Tensor:
    """A matrix in the bases of its sides, or back."""
    if 1 in bases:
        matrix = (bases[1].mT if forth else bases[1]) @ matrix
    if 2 in bases:
        matrix = matrix @ (bases[2] if forth else bases[2].mT)
    return matrix


@torch.no_grad()
def turned_to_new_basis(
    gram: Float[Tensor, "model side side"],
    basis: Float[Tensor, "model side side"],
    first: Float[Tensor, "model row column"],
    second: Float[Tensor, "model row column"],
    side: int,
) -> None:
    """Turn the basis of one side, in place, and the moments with it: 1, the rows; 2, the columns.

    Second moments cannot be turned: they go with their axes, which stay close to what they were, in the order of size.
    """
    if not bool(gram.isfinite().all()):
        return  # a model that has diverged; LAPACK would fail for all of the stack
    order = (basis * (gram @ basis)).sum(1).argsort(dim=1, descending=True)
    chosen = basis.gather(2, order[:, None, :].expand_as(basis))
    new = torch.linalg.qr(gram @ chosen)[0]
    between = new.mT @ basis
    if side == 1:
        first.copy_(between @ first)
        second.copy_(second.gather(1, order[:, :, None].expand_as(second)))
    else:
        first.copy_(first @ between.mT)
        second.copy_(second.gather(2, order[:, None, :].expand_as(second)))
    basis.copy_(new)
