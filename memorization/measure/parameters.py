"""How many parameters a model has. The one place that says what counts as an embedding."""

from torch import nn


def n_params(model: nn.Module) -> int:
    """All parameters, a shared one (a tied output head) once."""
    return sum(p.numel() for p in model.parameters())


def n_non_embedding_params(model: nn.Module) -> int:
    """Parameters without those of nn.Embedding modules (tokens, positions) and of the output head that transformers names."""
    embedding = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    find_head = getattr(model, "get_output_embeddings", None)
    head = find_head() if callable(find_head) else None
    if isinstance(head, nn.Module):
        embedding |= {id(p) for p in head.parameters()}
    return sum(p.numel() for p in model.parameters() if id(p) not in embedding)
