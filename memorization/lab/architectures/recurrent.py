"""LSTM (Hochreiter and Schmidhuber, 1997) and GRU (Cho et al., 2014), as torch.nn has them but open to vmap."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

_EMBEDDING_RANGE = 0.1


class Recurrent(nn.Module):
    """Layers of cells between a token embedding and the output head tied to it.

    Initialised as torch.nn.LSTM and GRU (uniform in +-1/sqrt(width)), the embedding uniform in +-0.1 as in PyTorch's
    word-level language model. The first state is 0.
    """

    def __init__(self, *, vocab_size: int, layers: list[nn.Module], width: int):
        super().__init__()
        self.token = nn.Embedding(vocab_size, width)
        self.layers = nn.ModuleList(layers)
        nn.init.uniform_(self.token.weight, -_EMBEDDING_RANGE, _EMBEDDING_RANGE)
        for parameter in self.layers.parameters():
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)

    def forward(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position vocab"]:
        """Logits of the token after each position."""
        x = self.token(ids)
        for layer in self.layers:
            x = layer(x)
        return F.linear(x, self.token.weight)


class LSTM(Recurrent):
    """LSTM language model; `seq_len` is not used: the state has no length."""

    def __init__(self, *, vocab_size: int, seq_len: int, layers: int, width: int):
        super().__init__(vocab_size=vocab_size, layers=[LSTMLayer(width) for _ in range(layers)], width=width)


class GRU(Recurrent):
    """GRU language model; `seq_len` is not used: the state has no length."""

    def __init__(self, *, vocab_size: int, seq_len: int, layers: int, width: int):
        super().__init__(vocab_size=vocab_size, layers=[GRULayer(width) for _ in range(layers)], width=width)


class LSTMLayer(nn.Module):
    """Gates in the order input, forget, output, candidate: the sigmoids side by side.

    One bias a gate: torch.nn.LSTM adds two, and the second would count as parameters that can hold nothing.
    """

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.input = nn.Linear(width, 4 * width)
        self.recurrent = nn.Linear(width, 4 * width, bias=False)

    def forward(self, x: Float[Tensor, "batch position width"]) -> Float[Tensor, "batch position width"]:
        """The hidden state at each position."""
        hidden = cell = torch.zeros_like(x[:, 0])
        outputs = []
        for drive in self.input(x).unbind(1):
            gates, candidate = (drive + self.recurrent(hidden)).split([3 * self.width, self.width], -1)
            enter, keep, leave = torch.sigmoid(gates).chunk(3, -1)
            cell = keep * cell + enter * torch.tanh(candidate)
            hidden = leave * torch.tanh(cell)
            outputs.append(hidden)
        return torch.stack(outputs, 1)


class GRULayer(nn.Module):
    """Gates in torch.nn.GRU's order: reset, update, candidate; only the candidate has a second bias."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.input = nn.Linear(width, 3 * width)
        self.recurrent = nn.Linear(width, 3 * width, bias=False)
        self.candidate_bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "batch position width"]) -> Float[Tensor, "batch position width"]:
        """The hidden state at each position."""
        hidden = torch.zeros_like(x[:, 0])
        sizes = [2 * self.width, self.width]
        outputs = []
        for drive in self.input(x).unbind(1):
            drive_gates, drive_candidate = drive.split(sizes, -1)
            gates, candidate = self.recurrent(hidden).split(sizes, -1)
            reset, update = torch.sigmoid(drive_gates + gates).chunk(2, -1)
            fresh = torch.tanh(drive_candidate + reset * (candidate + self.candidate_bias))
            hidden = fresh + update * (hidden - fresh)
            outputs.append(hidden)
        return torch.stack(outputs, 1)
