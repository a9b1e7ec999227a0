"""A causal MLP: MLP-Mixer (Tolstikhin et al., 2021) with token mixing that looks back only."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from memorization.errors import InputError

_EXPANSION = 4


class CausalMixer(nn.Module):
    """Blocks of one lower-triangular matrix over positions, the same for all channels, and an MLP over channels.

    The matrix stands for token mixing, being the one causal map over positions that needs no parameter for the future:
    S (S + 1) / 2 numbers a block, all of them used. There is no table of positions: each row of the matrix is a
    position's own. The output head is tied to the token embedding. Initialised as MLP-Mixer: normal of 1 /
    sqrt(inputs), biases 0; the embedding normal of 0.02 as GPT-2's.

    Args:
        vocab_size: number of tokens.
        seq_len: rows of the triangle, the longest input.
        layers: number of blocks.
        width: of the residual stream.
    """

    def __init__(self, *, vocab_size: int, seq_len: int, layers: int, width: int):
        super().__init__()
        self.token = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(Block(seq_len, width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.token.weight, std=0.02)

    def forward(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position vocab"]:
        """Logits of the token after each position."""
        x = self.token(ids)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.token.weight)


class Block(nn.Module):
    """Token mixing, then the MLP over channels; each reads a layer norm of the stream and adds to it."""

    def __init__(self, seq_len: int, width: int):
        super().__init__()
        self.seq_len = seq_len
        self.token_norm = nn.LayerNorm(width)
        # The triangle's rows one after another, cut into a full rectangle: a matrix, for whoever quantizes matrices.
        self.mixing = nn.Parameter(torch.empty((seq_len + 1) // 2, seq_len + 1 - seq_len % 2))
        self.channel_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, _EXPANSION * width)
        self.down = nn.Linear(_EXPANSION * width, width)
        nn.init.normal_(self.mixing, std=1 / math.sqrt(seq_len))
        for linear in (self.up, self.down):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(linear.in_features))
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "batch position width"]) -> Float[Tensor, "batch position width"]:
        """The stream after this block."""
        x = x + torch.einsum("qk,bkc->bqc", self._triangle(x.shape[1]), self.token_norm(x))
        return x + self.down(F.gelu(self.up(self.channel_norm(x)), approximate="tanh"))

    def _triangle(self, n_positions: int) -> Float[Tensor, "position position"]:
        """Weight of each earlier position (column) at each position (row); 0 above the diagonal."""
        if n_positions > self.seq_len:
            raise InputError(
                f"the mixing over positions, built with seq_len={self.seq_len}, ends before samples of {n_positions} "
                f"tokens do; build the model with seq_len={n_positions}, or cut the samples."
            )
        position = torch.arange(n_positions, device=self.mixing.device)
        row, column = position.unsqueeze(1), position
        place = row * (row + 1) // 2 + column.minimum(row)
        return torch.where(column <= row, self.mixing.flatten()[place], 0.0)
