"""How many parameters a model has: all, without embeddings, and trainable."""

from dataclasses import dataclass

from torch import nn

from memorization.measure.parameters import n_non_embedding_params, n_params


@dataclass(frozen=True, slots=True)
class ParamCounts:
    """Numbers of parameters of one model.

    Attributes:
        total: all parameters, a shared one (a tied output head) once.
        non_embedding: total without tables of tokens and positions, nor an output head, tied or not.
        trainable: those with requires_grad: the adapters alone, when the base is frozen.
    """

    total: int
    non_embedding: int
    trainable: int


def count_params(model: nn.Module) -> ParamCounts:
    """Numbers of parameters: in all, without embeddings, and those that training can change.

    Args:
        model: any module. Embeddings are the parameters of its nn.Embedding modules and of the output head that a
            transformers model names.

    Returns:
        The three counts; each parameter counts once, however often the model uses it.

    Examples:
        GPT-2 has V d + S d + L (12 d^2 + 13 d) + 2 d parameters; V d + S d of them are embeddings.

        >>> from memorization.lab.architectures import Architecture
        >>> count_params(Architecture("gpt2", width=8)(vocab_size=128, seq_len=32))
        ParamCounts(total=2168, non_embedding=888, trainable=2168)
    """
    return ParamCounts(
        total=n_params(model),
        non_embedding=n_non_embedding_params(model),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )
