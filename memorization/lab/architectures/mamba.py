"""Mamba (Gu and Dao, 2023): a short convolution and a selective state-space model instead of attention."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

_EXPANSION = 2
_KERNEL = 4
_NORM_EPS = 1e-5
_INIT_STD = 0.02
_STEP_RANGE = (1e-3, 0.1)  # of the time steps at the start, log-uniform
_CHANNELS_PER_STEP_RANK = 16


class Mamba(nn.Module):
    """Mamba (version 1) with its output head tied to the token embedding.

    Initialised as the authors' code: torch's own for the matrices, output matrices divided by sqrt(layers), embedding
    normal of 0.02, A = -1 .. -state in every channel, time steps log-uniform in [0.001, 0.1].

    Args:
        vocab_size: number of tokens.
        seq_len: not used: the state has no length.
        layers: number of blocks.
        width: of the residual stream; inside a block it is twice that.
        state: numbers kept for each inner channel.
    """

    def __init__(self, *, vocab_size: int, seq_len: int, layers: int, width: int, state: int):
        super().__init__()
        self.token = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(Block(width, state) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=_NORM_EPS)
        nn.init.normal_(self.token.weight, std=_INIT_STD)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("out.weight"):
                    parameter.div_(math.sqrt(layers))

    def forward(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position vocab"]:
        """Logits of the token after each position."""
        x = self.token(ids)
        for block in self.blocks:
            x = x + block(x)
        return F.linear(self.norm(x), self.token.weight)


class Block(nn.Module):
    """What a layer adds to the stream."""

    def __init__(self, width: int, state: int):
        super().__init__()
        inner = _EXPANSION * width
        rank = math.ceil(width / _CHANNELS_PER_STEP_RANK)
        self.sizes = [rank, state, state]
        self.norm = nn.RMSNorm(width, eps=_NORM_EPS)
        self.into = nn.Linear(width, 2 * inner, bias=False)
        self.kernel = nn.Parameter(torch.empty(inner, _KERNEL).uniform_(-(_KERNEL**-0.5), _KERNEL**-0.5))
        self.kernel_bias = nn.Parameter(torch.empty(inner).uniform_(-(_KERNEL**-0.5), _KERNEL**-0.5))
        self.select = nn.Linear(inner, sum(self.sizes), bias=False)
        self.step = nn.Linear(rank, inner)
        self.log_decay = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, width, bias=False)
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():
            low, high = (math.log(step) for step in _STEP_RANGE)
            step = torch.exp(low + (high - low) * torch.rand(inner))
            self.step.bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus gives the step back

    def forward(self, x: Float[Tensor, "batch position width"]) -> Float[Tensor, "batch position width"]:
        """Convolution, state-space model and gate."""
        u, gate = self.into(self.norm(x)).chunk(2, -1)
        u = F.silu(self._convolved(u))
        step, write, read = self.select(u).split(self.sizes, -1)
        return self.out(self._scanned(u, F.softplus(self.step(step)), write, read) * F.silu(gate))

    def _convolved(self, u: Float[Tensor, "batch position inner"]) -> Float[Tensor, "batch position inner"]:
        """Each channel's own weighted sum of the last positions."""
        n_positions = u.shape[1]
        padded = F.pad(u, (0, 0, _KERNEL - 1, 0))
        taps = self.kernel.unbind(-1)
        return sum((padded[:, i : i + n_positions] * tap for i, tap in enumerate(taps)), start=self.kernel_bias)

    def _scanned(
        self,
        u: Float[Tensor, "batch position inner"],
        step: Float[Tensor, "batch position inner"],
        write: Float[Tensor, "batch position state"],
        read: Float[Tensor, "batch position state"],
    ) -> Float[Tensor, "batch position inner"]:
        """The state-space model, in float32 whatever the weights are: the state sums over all positions."""
        with torch.autocast(u.device.type, enabled=False):
            u32, step, write, read = u.float(), step.float(), write.float(), read.float()
            kept = torch.exp(step.unsqueeze(-1) * -torch.exp(self.log_decay.float()))
            states = linear_recurrence(kept, (step * u32).unsqueeze(-1) * write.unsqueeze(2))
            return (torch.einsum("bpis,bps->bpi", states, read) + u32 * self.skip.float()).to(u.dtype)


def linear_recurrence(
    kept: Float[Tensor, "batch position inner state"], added: Float[Tensor, "batch position inner state"]
) -> Float[Tensor, "batch position inner state"]:
    """h[t] = kept[t] * h[t - 1] + added[t] for all t, from h[-1] = 0, in about 2 log2(positions) steps.

    Two positions are one step of a recurrence of half the length, which gives the odd positions; the even ones follow.
    There is no division, and kept <= 1: nothing overflows.
    """
    n_positions = kept.shape[1]
    if n_positions == 1:
        return added
    if n_positions % 2:
        one_more = (0, 0, 0, 0, 0, 1)
        return linear_recurrence(F.pad(kept, one_more), F.pad(added, one_more))[:, :n_positions]
    kept_even, kept_odd = kept.unflatten(1, (-1, 2)).unbind(2)
    added_even, added_odd = added.unflatten(1, (-1, 2)).unbind(2)
    odd = linear_recurrence(kept_odd * kept_even, torch.addcmul(added_odd, kept_odd, added_even))
    before = F.pad(odd[:, :-1], (0, 0, 0, 0, 1, 0))
    return torch.stack([torch.addcmul(added_even, kept_even, before), odd], 2).flatten(1, 2)
