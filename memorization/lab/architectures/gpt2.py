"""GPT-2 (Radford et al., 2019): layer norm before each part, learned positions, gelu_new."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from memorization.errors import InputError

_INIT_STD = 0.02
_EXPANSION = 4


class GPT2(nn.Module):
    """GPT-2 without dropout, its output head tied to the token embedding.

    With V tokens, S positions, L layers and width d it has V d + S d + L (12 d^2 + 13 d) + 2 d parameters.
    Initialised as GPT-2: normal of 0.02, what writes to the residual stream of 0.02 / sqrt(2 L), biases 0.

    Args:
        vocab_size: number of tokens.
        seq_len: positions in the table, the longest input.
        layers: number of blocks.
        width: of the residual stream.
        heads: of the attention; divides width.
        feed_forward: builds the second part of a block from the width; None is GPT-2's own.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        seq_len: int,
        layers: int,
        width: int,
        heads: int,
        feed_forward: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        self.token = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(seq_len, width)
        self.blocks = nn.ModuleList(Block(width, heads, (feed_forward or FeedForward)(width)) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                to_residual = name.endswith(("down.weight", "out.weight"))
                nn.init.normal_(parameter, std=_INIT_STD / math.sqrt(2 * layers) if to_residual else _INIT_STD)

    def forward(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position vocab"]:
        """Logits of the token after each position."""
        n_positions = ids.shape[1]
        if n_positions > self.position.num_embeddings:
            raise InputError(
                f"the table of positions, built with seq_len={self.position.num_embeddings}, ends before samples of "
                f"{n_positions} tokens do; build the model with seq_len={n_positions}, or cut the samples."
            )
        x = self.token(ids) + self.position.weight[:n_positions]
        future = future_mask(n_positions, x)
        for block in self.blocks:
            x = block(x, future)
        return F.linear(self.norm(x), self.token.weight)


class Block(nn.Module):
    """Attention, then the feed-forward part; each reads a layer norm of the stream and adds to it."""

    def __init__(self, width: int, heads: int, feed_forward: nn.Module):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = feed_forward

    def forward(
        self, x: Float[Tensor, "batch position width"], future: Float[Tensor, "position position"]
    ) -> Float[Tensor, "batch position width"]:
        """The stream after this block."""
        x = x + self.attention(self.attention_norm(x), future)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Attention(nn.Module):
    """Causal self-attention with queries, keys and values from one matrix."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "batch position width"], future: Float[Tensor, "position position"]
    ) -> Float[Tensor, "batch position width"]:
        """What each position gathers from itself and those before."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        return self.out(attend(q, k, v, future))


class FeedForward(nn.Module):
    """Two matrices with gelu_new (the tanh form) between, four times as wide inside."""

    def __init__(self, width: int):
        super().__init__()
        self.up = nn.Linear(width, _EXPANSION * width)
        self.down = nn.Linear(_EXPANSION * width, width)

    def forward(self, x: Float[Tensor, "batch position width"]) -> Float[Tensor, "batch position width"]:
        """The same function at each position."""
        return self.down(F.gelu(self.up(x), approximate="tanh"))


def future_mask(n_positions: int, like: Tensor) -> Float[Tensor, "position position"]:
    """-inf where the key (column) comes after the query (row), else 0."""
    shape = (n_positions, n_positions)
    return torch.full(shape, -math.inf, dtype=like.dtype, device=like.device).triu(1)


def attend(
    q: Float[Tensor, "batch position head channel"],
    k: Float[Tensor, "batch position head channel"],
    v: Float[Tensor, "batch position head channel"],
    future: Float[Tensor, "position position"],
) -> Float[Tensor, "batch position width"]:
    """Softmax attention of every head, heads side by side."""
    # Under vmap on a CPU this takes 0.7 of the time of scaled_dot_product_attention, forward and backward together.
    scores = torch.einsum("bqhc,bkhc->bhqk", q * q.shape[-1] ** -0.5, k) + future
    return torch.einsum("bhqk,bkhc->bqhc", scores.softmax(-1).to(v.dtype), v).flatten(2)
