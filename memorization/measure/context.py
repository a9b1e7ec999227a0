"""What stands before the first token of a sample, and what that token costs."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from memorization.errors import FirstTokenWarning, InputError
from memorization.samples import Samples

if TYPE_CHECKING:
    pass


FirstTokenRule = Literal["bos", "uniform", "skip", "token"]


def resolve_first_token(asked: str | int, tokenizer: Any) -> dict[str, Any]:
    """What `first_token` comes to with this tokenizer: the record {asked, rule, id, token} that stands in the settings.

    Raises:
        InputError: bos without a BOS, or a name that is no token.
    """
    if isinstance(asked, bool):
        raise InputError(f"first_token must be auto, bos, uniform, skip, a token or its id; it is {asked}")
    bos = getattr(tokenizer, "bos_token_id", None)
    rule: FirstTokenRule
    token_id: int | None = None
    if asked == "auto":
        rule, token_id = ("uniform", None) if bos is None else ("bos", bos)
    elif asked == "bos":
        if bos is None:
            raise InputError(
                'first_token="bos" needs a tokenizer that has a BOS token; '
                + ("none is at hand" if tokenizer is None else "this one has none")
                + '. Name a context token (such as "<|endoftext|>"), or pass "uniform".'
            )
        rule, token_id = "bos", bos
    elif asked in ("uniform", "skip"):
        rule = "uniform" if asked == "uniform" else "skip"
    elif isinstance(asked, int):
        rule, token_id = "token", asked
    else:
        vocabulary = tokenizer.get_vocab() if tokenizer is not None else {}
        if asked not in vocabulary:
            raise InputError(
                f"first_token={asked!r} is neither a rule (auto, bos, uniform, skip) nor a token of "
                + ("a tokenizer: none is at hand, pass the id" if tokenizer is None else "the tokenizer")
            )
        rule, token_id = "token", vocabulary[asked]
    token = tokenizer.convert_ids_to_tokens(token_id) if tokenizer is not None and token_id is not None else None
    return {"asked": asked, "rule": rule, "id": token_id, "token": token}


def warn_of_chat_marker(first_token: Mapping[str, Any], tokenizer: Any) -> None:
    """Warn where the context is a BOS that the chat template uses."""
    token = first_token["token"]
    if (
        first_token["rule"] == "bos"
        and token is not None
        and token in str(getattr(tokenizer, "chat_template", None) or "")
    ):
        warnings.warn(
            f"the BOS {token!r} is the chat template's marker, a poor context for plain text: with SmolLM2 it costs 30 of 119 bits on "
            'a text of 140 bytes. Pass first_token="<|endoftext|>", or the token that separated documents in training.',
            FirstTokenWarning,
            stacklevel=3,
        )


def sequences_of(samples: Samples, first_token: Mapping[str, Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each sample what the model reads, context token included, and what of it is coded."""
    assert samples.ids is not None
    rule, context = first_token["rule"], first_token["id"]
    sequences, coded = [], []
    for i, ids in zip(samples.index, samples.ids, strict=True):
        # Ids that begin with the BOS bring their own context. A named context token is no such mark: random ids may begin with it.
        own_context = samples.texts is None and rule == "bos" and ids[0] == context
        sequences.append(ids if context is None or own_context else np.concatenate([[context], ids]))
        coded.append(ids[1:] if own_context or rule == "skip" else ids)
        if not len(coded[-1]):
            why = "it is the BOS" if own_context else 'first_token="skip" leaves it out'
            raise InputError(
                f"sample {i} has a single token and {why}: nothing is left to code. Leave the sample out, or pass "
                'first_token="uniform".'
            )
    return sequences, coded
