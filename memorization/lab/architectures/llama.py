"""Llama (Touvron et al., 2023): RMS norm, rotary positions, SwiGLU, no biases."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from memorization.lab.architectures.gpt2 import attend, future_mask

_INIT_STD = 0.02  # for every matrix, as in transformers' LlamaConfig
_NORM_EPS = 1e-6
_ROTARY_BASE = 10_000.0


class Llama(nn.Module):
    """Llama with its output head tied to the token embedding and as many key heads as query heads.

    The feed-forward part is round(8 width / 3) wide inside, so that a block has about 12 width^2 parameters, as
    GPT-2's.
    """

    def __init__(self, *, vocab_size: int, seq_len: int, layers: int, width: int, heads: int):
        super().__init__()
        self.token = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=_NORM_EPS)
        self.head_size = width // heads
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=_INIT_STD)

    def forward(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position vocab"]:
        """Logits of the token after each position."""
        x = self.token(ids)
        future = future_mask(ids.shape[1], x)
        angles = rotary_angles(ids.shape[1], self.head_size, ids.device)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for block in self.blocks:
            x = block(x, future, cos, sin)
        return F.linear(self.norm(x), self.token.weight)


class Block(nn.Module):
    """Attention with rotated queries and keys, then SwiGLU; each reads an RMS norm of the stream and adds to it."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        inside = round(8 * width / 3)
        self.heads = heads
        self.attention_norm = nn.RMSNorm(width, eps=_NORM_EPS)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.feed_forward_norm = nn.RMSNorm(width, eps=_NORM_EPS)
        self.gate_up = nn.Linear(width, 2 * inside, bias=False)
        self.down = nn.Linear(inside, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch position width"],
        future: Float[Tensor, "position position"],
        cos: Float[Tensor, "position half"],
        sin: Float[Tensor, "position half"],
    ) -> Float[Tensor, "batch position width"]:
        """The stream after this block."""
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        x = x + self.out(attend(rotate(q, cos, sin), rotate(k, cos, sin), v, future))
        gate, up = self.gate_up(self.feed_forward_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def rotary_angles(n_positions: int, head_size: int, device: torch.device) -> Float[Tensor, "position half"]:
    """Angle, in radians, by which each pair of channels is turned at each position."""
    frequencies = _ROTARY_BASE ** (-torch.arange(0, head_size, 2, device=device, dtype=torch.float32) / head_size)
    return torch.outer(torch.arange(n_positions, device=device, dtype=torch.float32), frequencies)


def rotate(
    x: Float[Tensor, "batch position head channel"],
    cos: Float[Tensor, "position half"],
    sin: Float[Tensor, "position half"],
) -> Float[Tensor, "batch position head channel"]:
    """Turn channel i and channel i + half together."""
    first, second = x.chunk(2, -1)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
