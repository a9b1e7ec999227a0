"""Names, sizes and options of the families; the width at which a family has a given number of parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from memorization.errors import InputError
from memorization.integers import check_integer
from memorization.lab.architectures.counting import count_params
from memorization.lab.architectures.gpt2 import GPT2
from memorization.lab.architectures.llama import Llama
from memorization.lab.architectures.mamba import Mamba
from memorization.lab.architectures.mixer import CausalMixer
from memorization.lab.architectures.moe import MixtureOfExperts
from memorization.lab.architectures.recurrent import GRU, LSTM
from memorization.lab.architectures.rwkv import RWKV

_OPTIONS = ("heads", "experts", "top_k", "state")


def _heads(width: int, multiple: int = 1) -> int:
    """A number of heads near four that divides the width into 4 to 64 channels each, a multiple of `multiple`.

    Width 8 gets two heads of 4. Four instead of one at width 16 held 18 % more bits per parameter in a trial.
    """
    wanted = max(4, width // 64)
    divisors = [h for h in range(1, width + 1) if width % h == 0 and width // h % multiple == 0]
    return min((h for h in divisors if width // h >= 4 or h == 2), key=lambda h: abs(h - wanted), default=1)


def _even_heads(width: int) -> int:
    """As _heads, with an even number of channels each: rotary positions turn them in pairs."""
    return _heads(width, 2)


def _state(width: int) -> int:
    """Mamba's 16, or the width if less: the state's matrices then never outnumber the others of a block."""
    return min(16, width)


@dataclass(frozen=True)
class _Family:
    """A model class, and the options it takes besides layers and width, each with its default by width."""

    model: Callable[..., nn.Module]
    options: Mapping[str, Callable[[int], int]] = field(default_factory=dict)
    channels_per_head: int = 1  # a multiple of it


_FAMILIES = {
    "gpt2": _Family(GPT2, {"heads": _heads}),
    "llama": _Family(Llama, {"heads": _even_heads}, channels_per_head=2),
    "moe": _Family(MixtureOfExperts, {"heads": _heads, "experts": lambda _: 4, "top_k": lambda _: 2}),
    "mamba": _Family(Mamba, {"state": _state}),
    "rwkv": _Family(RWKV),
    "lstm": _Family(LSTM),
    "gru": _Family(GRU),
    "mlp": _Family(CausalMixer),
}

NAMES = tuple(_FAMILIES)


@dataclass(frozen=True, slots=True, repr=False)
class Architecture:
    """A family of models at one size: call it with a vocabulary size and a length, and it builds one.

    Every model maps int64 ids (batch, position) to logits (batch, position, vocab), is causal, draws nothing at random
    once built, and ties the output head to the token embedding. Weights are drawn from torch's global generator, by the
    family's usual rule. Models of one architecture stack: torch.func.stack_module_state, functional_call and vmap.

    Args:
        name: one of NAMES: "gpt2", "llama", "moe", "mamba", "rwkv", "lstm", "gru", "mlp".
        layers: number of blocks.
        width: of the residual stream, of the embedding, or of a recurrent state.
        heads: of "gpt2", "llama" and "moe"; divides width. None: about four, with at least 4 channels each, or two.
        experts: of "moe"; None: 4.
        top_k: experts that each token of "moe" uses; None: 2.
        state: numbers that "mamba" keeps for each channel; None: 16, or the width if less.

    Raises:
        InputError: no such family; an option that the family does not have, or a size it cannot be built at.

    Guarantees:
        The repr names every size that was chosen, given or not: two architectures with the same repr build the same
        models from the same seed. It is an expression that makes the architecture again.

    Examples:
        >>> small = Architecture("gpt2", width=8)
        >>> small
        Architecture('gpt2', layers=1, width=8, heads=2)
        >>> model = small(vocab_size=128, seq_len=32)
        >>> sum(p.numel() for p in model.parameters())
        2168
    """

    name: str
    layers: int = 1
    width: int = 8
    heads: int | None = None
    experts: int | None = None
    top_k: int | None = None
    state: int | None = None

    def __post_init__(self) -> None:
        family = _family(self.name)
        for size in ("layers", "width"):  # whole numbers of any library, and plain ones in the repr
            object.__setattr__(self, size, check_integer(size, getattr(self, size)))
        for option in _OPTIONS:
            given = getattr(self, option)
            if option not in family.options:
                if given is not None:
                    takes = ", ".join(family.options) or "none"
                    raise InputError(f"{self.name!r} has no option {option} (got {given}); its options: {takes}.")
            elif given is None:
                object.__setattr__(self, option, family.options[option](self.width))
            else:
                object.__setattr__(self, option, check_integer(option, given, besides="None"))
        if self.heads is not None:
            self._check_heads(self.heads, family.channels_per_head)
        if self.top_k is not None and self.experts is not None and self.top_k > self.experts:
            raise InputError(f"top_k must be at most experts; top_k={self.top_k}, experts={self.experts}.")

    def _check_heads(self, heads: int, multiple: int) -> None:
        """Heads of equal size, and of pairs of channels where positions turn them."""
        if self.width % (heads * multiple):
            even = " into heads of an even size (rotary positions turn channels in pairs)" if multiple == 2 else ""
            fit = [h for h in range(1, self.width + 1) if self.width % (h * multiple) == 0]
            hint = f"heads that divide it: {', '.join(map(str, fit))}." if fit else f"try width={self.width + 1}."
            raise InputError(f"heads={heads} does not divide width={self.width}{even}; {hint}")

    def __call__(self, vocab_size: int, seq_len: int) -> nn.Module:
        """A new model with weights drawn from torch's global generator.

        Args:
            vocab_size: number of tokens.
            seq_len: longest input, in tokens, of families that have a parameter for each position ("gpt2", "moe",
                "mlp"); the others take any length.
        """
        vocab_size, seq_len = check_integer("vocab_size", vocab_size), check_integer("seq_len", seq_len)
        build = _FAMILIES[self.name].model
        return build(vocab_size=vocab_size, seq_len=seq_len, layers=self.layers, width=self.width, **self._options())

    def _options(self) -> dict[str, int]:
        """The options of this family, by name."""
        return {option: getattr(self, option) for option in _FAMILIES[self.name].options}

    def __repr__(self) -> str:
        sizes = {"layers": self.layers, "width": self.width, **self._options()}
        return f"Architecture({self.name!r}, {', '.join(f'{name}={value}' for name, value in sizes.items())})"


def solve_width(
    name: str,
    n_params: int,
    *,
    vocab_size: int,
    seq_len: int,
    layers: int = 1,
    heads: int | None = None,
    experts: int | None = None,
    top_k: int | None = None,
    state: int | None = None,
) -> Architecture:
    """The width at which a family's total number of parameters is nearest to `n_params`.

    Widths go in steps of `heads` (twice that for "llama"); of 2 where a family has heads and none are given, so that
    few widths leave one head only; else of 1.

    Args:
        name: one of NAMES.
        n_params: wanted number of parameters in all, embeddings included.
        vocab_size: number of tokens.
        seq_len: longest input, in tokens.
        layers: number of blocks.
        heads: as of Architecture; so are `experts`, `top_k` and `state`.
        experts: of "moe".
        top_k: of "moe".
        state: of "mamba".

    Returns:
        The architecture; of two equally near, the narrower.

    Raises:
        InputError: the narrowest model has more than n_params already, or Architecture refuses the options.

    Examples:
        >>> solve_width("lstm", 5000, vocab_size=128, seq_len=32)
        Architecture('lstm', layers=1, width=18)
    """
    step, n_params = _width_step(name, heads), check_integer("n_params", n_params)

    def sized(k: int) -> tuple[Architecture, int]:
        found = Architecture(name, layers, k * step, heads=heads, experts=experts, top_k=top_k, state=state)
        with torch.device("meta"):  # shapes only: nothing is allocated, no generator moves
            return found, count_params(found(vocab_size, seq_len)).total

    narrowest, count = sized(1)
    if count > n_params:
        raise InputError(
            f"the narrowest {narrowest!r} has {count:,} parameters already, more than n_params={n_params:,}; "
            "ask for more, or for a smaller vocab_size, seq_len or layers."
        )
    high = 2
    while sized(high)[1] <= n_params:
        high *= 2
    low = high // 2  # at most n_params here, more at high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sized(middle)[1] <= n_params else (low, middle)
    return min((sized(low), sized(high)), key=lambda candidate: abs(candidate[1] - n_params))[0]


def _width_step(name: str, heads: int | None) -> int:
    family = _family(name)
    if "heads" not in family.options:
        return 1
    if heads is None:
        return 2
    return check_integer("heads", heads, besides="None") * family.channels_per_head


def _family(name: str) -> _Family:
    if name not in _FAMILIES:
        raise InputError(f"no architecture is called {name!r}; there are {', '.join(NAMES)}.")
    return _FAMILIES[name]
