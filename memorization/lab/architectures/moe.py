"""Mixture of experts: GPT-2 with feed-forward parts chosen token by token, as in Mixtral (Jiang et al., 2024)."""

import math
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from memorization.lab.architectures.gpt2 import GPT2

_EXPANSION = 4


class MixtureOfExperts(GPT2):
    """GPT-2 with `experts` feed-forward parts a block, of which each token uses its `top_k` best.

    The weights of the chosen are the softmax over their router logits alone. All experts are computed and those not
    chosen multiplied by 0, so that many models train at once; no loss balances the load. Initialised as GPT-2.
    """

    def __init__(self, *, vocab_size: int, seq_len: int, layers: int, width: int, heads: int, experts: int, top_k: int):
        super().__init__(
            vocab_size=vocab_size,
            seq_len=seq_len,
            layers=layers,
            width=width,
            heads=heads,
            feed_forward=partial(Experts, experts=experts, top_k=top_k),
        )


class Experts(nn.Module):
    """Every expert is GPT-2's feed-forward part; `up` and `down` hold them side by side."""

    def __init__(self, width: int, *, experts: int, top_k: int):
        super().__init__()
        self.experts = experts
        self.top_k = top_k
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Linear(width, experts * _EXPANSION * width)
        self.down = nn.Linear(experts * _EXPANSION * width, width, bias=False)
        self.down_bias = nn.Parameter(torch.zeros(experts, width))

    def forward(self, x: Float[Tensor, "batch position width"]) -> Float[Tensor, "batch position width"]:
        """The weighted sum of the chosen experts' outputs."""
        weights = self._weights(self.router(x)).to(x.dtype)
        inside = F.gelu(self.up(x), approximate="tanh").unflatten(-1, (self.experts, -1))
        return self.down((inside * weights.unsqueeze(-1)).flatten(-2)) + weights @ self.down_bias

    def _weights(self, logits: Float[Tensor, "batch position expert"]) -> Float[Tensor, "batch position expert"]:
        """Softmax over the top_k largest logits, 0 elsewhere."""
        best = logits.topk(self.top_k, dim=-1).indices
        # By index and not by value: of equal logits, which bf16 has many of, no more than top_k are taken.
        chosen = (best.unsqueeze(-1) == torch.arange(self.experts, device=logits.device)).any(-2)
        return logits.float().masked_fill(~chosen, -math.inf).softmax(-1)
