"""RWKV-4 (Peng et al., 2023): each channel averages all earlier values with weights that decay exponentially."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

_EXPANSION = 4
# exp(key) is summed as it is. Up to e^40 times a bonus of up to e^40 stays within float32, and so does its inverse; the
# authors' code cut keys at 60 until it kept a running maximum.
_MAX_EXPONENT = 40.0


class RWKV(nn.Module):
    """RWKV-4 with its output head tied to the token embedding.

    Initialised as the authors' code (decays and mixes by depth and channel; zero where a block writes, and for keys and
    receptances; orthogonal elsewhere). Tied, the embedding starts as their head does: the layer norm that follows it
    takes out its scale. Keys and bonuses count up to +-40.

    Args:
        vocab_size: number of tokens.
        seq_len: not used: the averages have no length.
        layers: number of blocks.
        width: of the residual stream.
    """

    def __init__(self, *, vocab_size: int, seq_len: int, layers: int, width: int):
        super().__init__()
        self.token = nn.Embedding(vocab_size, width)
        self.token_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, depth, layers) for depth in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.orthogonal_(self.token.weight, gain=0.5 * max(1.0, math.sqrt(vocab_size / width)))

    def forward(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position vocab"]:
        """Logits of the token after each position."""
        x = self.token_norm(self.token(ids))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.token.weight)


class Block(nn.Module):
    """Time mixing, then channel mixing; each reads a layer norm of the stream and adds to it."""

    def __init__(self, width: int, depth: int, layers: int):
        super().__init__()
        self.time_norm = nn.LayerNorm(width)
        self.time = TimeMixing(width, depth, layers)
        self.channel_norm = nn.LayerNorm(width)
        self.channel = ChannelMixing(width, depth, layers)

    def forward(self, x: Float[Tensor, "batch position width"]) -> Float[Tensor, "batch position width"]:
        """The stream after this block."""
        x = x + self.time(self.time_norm(x))
        return x + self.channel(self.channel_norm(x))


class TimeMixing(nn.Module):
    """The decaying average of values, gated by the receptance."""

    def __init__(self, width: int, depth: int, layers: int):
        super().__init__()
        late = depth / max(1, layers - 1)  # 0 in the first layer, 1 in the last
        early = 1 - depth / layers  # 1 in the first layer, near 0 in the last
        channel = torch.arange(width, dtype=torch.float32)
        self.log_decay = nn.Parameter(-5 + 8 * (channel / max(1, width - 1)) ** (0.7 + 1.3 * late))
        self.bonus = nn.Parameter(math.log(0.3) + 0.5 * ((channel + 1) % 3 - 1))
        self.mix_key = nn.Parameter((channel / width) ** early)
        self.mix_value = nn.Parameter((channel / width) ** early + 0.3 * late)
        self.mix_receptance = nn.Parameter((channel / width) ** (0.5 * early))
        self.key = zeros(nn.Linear(width, width, bias=False))
        self.value = nn.Linear(width, width, bias=False)
        self.receptance = zeros(nn.Linear(width, width, bias=False))
        self.out = zeros(nn.Linear(width, width, bias=False))
        nn.init.orthogonal_(self.value.weight)

    def forward(self, x: Float[Tensor, "batch position width"]) -> Float[Tensor, "batch position width"]:
        """What each position gathers from itself and those before."""
        before = shifted(x)
        key = self.key(torch.lerp(before, x, self.mix_key))
        value = self.value(torch.lerp(before, x, self.mix_value))
        receptance = self.receptance(torch.lerp(before, x, self.mix_receptance))
        return self.out(torch.sigmoid(receptance) * decaying_average(key, value, self.log_decay, self.bonus))


class ChannelMixing(nn.Module):
    """The feed-forward part: squared ReLU, gated by the receptance."""

    def __init__(self, width: int, depth: int, layers: int):
        super().__init__()
        mix = (torch.arange(width, dtype=torch.float32) / width) ** (1 - depth / layers)
        self.mix_key = nn.Parameter(mix)
        self.mix_receptance = nn.Parameter(mix.clone())
        self.key = nn.Linear(width, _EXPANSION * width, bias=False)
        self.receptance = zeros(nn.Linear(width, width, bias=False))
        self.value = zeros(nn.Linear(_EXPANSION * width, width, bias=False))
        nn.init.orthogonal_(self.key.weight, gain=math.sqrt(_EXPANSION))

    def forward(self, x: Float[Tensor, "batch position width"]) -> Float[Tensor, "batch position width"]:
        """A function of each position and the one before."""
        before = shifted(x)
        key = self.key(torch.lerp(before, x, self.mix_key))
        receptance = self.receptance(torch.lerp(before, x, self.mix_receptance))
        return torch.sigmoid(receptance) * self.value(F.relu(key).square())


def zeros(linear: nn.Linear) -> nn.Linear:
    """The layer with its weights set to 0."""
    nn.init.zeros_(linear.weight)
    return linear


def shifted(x: Float[Tensor, "batch position width"]) -> Float[Tensor, "batch position width"]:
    """Each position holds the one before; the first holds 0."""
    return F.pad(x[:, :-1], (0, 0, 1, 0))


def decaying_average(
    key: Float[Tensor, "batch position channel"],
    value: Float[Tensor, "batch position channel"],
    log_decay: Float[Tensor, " channel"],
    bonus: Float[Tensor, " channel"],
) -> Float[Tensor, "batch position channel"]:
    """Average of the values up to each position, weighted by key and age.

    Weights are exp(key - (age - 1) exp(log_decay)), and exp(key + bonus) for the newest.

    The weights of ages are the same for all samples, so a matrix product for each channel does it: a quarter of the
    time of a softmax over (position, position, channel). In float32 whatever the weights are.
    """
    with torch.autocast(key.device.type, enabled=False):
        position = torch.arange(key.shape[1], device=key.device)
        age = position.unsqueeze(1) - position  # of the column's token, seen from the row
        decayed = torch.exp(-(age - 1).clamp(min=0) * torch.exp(log_decay.float())[:, None, None])
        newest = torch.exp(bonus.float().clamp(-_MAX_EXPONENT, _MAX_EXPONENT))[:, None, None]
        weights = torch.where(age > 0, decayed, torch.where(age == 0, newest, 0.0))
        exp_key = torch.exp(key.float().clamp(-_MAX_EXPONENT, _MAX_EXPONENT))
        total = torch.einsum("cqk,bkc->bqc", weights, exp_key * value.float())
        return (total / torch.einsum("cqk,bkc->bqc", weights, exp_key)).to(value.dtype)
