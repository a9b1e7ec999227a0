"""What stands before the first token of a sample, and what that token costs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from memorization.errors import FirstTokenWarning, InputError, warn
from memorization.integers import as_integer
from memorization.measure.tokenizers import vocabulary_size
from memorization.samples import Samples

FirstTokenRule = Literal["bos", "uniform", "skip", "token"]


@dataclass(frozen=True, slots=True)
class FirstToken:
    """How the first token of each sample is coded.

    Attributes:
        asked: what the caller passed as `first_token`.
        rule: "bos" (given the BOS), "token" (given another token), "uniform" (log2 of the vocabulary size) or "skip"
            (left out).
        id: of the context token, which the model reads and which is not coded; None where there is none.
        token: its name; None where no tokenizer is at hand.
    """

    asked: str | int
    rule: FirstTokenRule
    id: int | None
    token: str | None

    def record(self) -> dict[str, Any]:
        """The fields by name, as they stand in the settings of a result."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "FirstToken":
        """What `record` was made of."""
        return cls(record["asked"], record["rule"], record["id"], record["token"])


def resolve_first_token(asked: str | int, tokenizer: Any) -> FirstToken:
    """What `first_token` comes to with this tokenizer.

    Raises:
        InputError: bos without a BOS, or what is neither a rule nor a token.
    """
    bos: int | None = getattr(tokenizer, "bos_token_id", None)
    if not isinstance(asked, str):
        token_id = as_integer(asked)
        if token_id is None:
            raise InputError(f"first_token must be auto, bos, uniform, skip, a token or its id; it is {asked!r}.")
        return _given(token_id, "token", token_id, tokenizer)
    if asked == "auto":
        return FirstToken(asked, "uniform", None, None) if bos is None else _given(asked, "bos", bos, tokenizer)
    if asked == "bos":
        if bos is None:
            raise InputError(
                'first_token="bos" needs a tokenizer that has a BOS token; '
                + ("none is at hand" if tokenizer is None else "this one has none")
                + '. Name a context token (such as "<|endoftext|>"), or pass "uniform".'
            )
        return _given(asked, "bos", bos, tokenizer)
    if asked in ("uniform", "skip"):
        return FirstToken(asked, "uniform" if asked == "uniform" else "skip", None, None)
    vocabulary = tokenizer.get_vocab() if tokenizer is not None else {}
    if asked not in vocabulary:
        raise InputError(
            f"first_token={asked!r} is neither a rule (auto, bos, uniform, skip) nor a token of "
            + ("a tokenizer: none is at hand, pass the id." if tokenizer is None else "the tokenizer.")
        )
    return _given(asked, "token", vocabulary[asked], tokenizer)


def _given(asked: str | int, rule: FirstTokenRule, token_id: int, tokenizer: Any) -> FirstToken:
    known = tokenizer is not None and 0 <= token_id < (vocabulary_size(tokenizer) or token_id + 1)
    return FirstToken(asked, rule, token_id, tokenizer.convert_ids_to_tokens(token_id) if known else None)


def warn_of_chat_marker(first: FirstToken, tokenizer: Any) -> None:
    """Warn where the context is a BOS that the chat template uses."""
    if (
        first.rule == "bos"
        and first.token is not None
        and first.token in str(getattr(tokenizer, "chat_template", None) or "")
    ):
        warn(
            f"the BOS {first.token!r} is the chat template's marker, a poor context for plain text: with SmolLM2 it "
            "costs 30 of 119 "
            'bits on a text of 140 bytes. Pass first_token="<|endoftext|>", or the token that separated documents in '
            "training.",
            FirstTokenWarning,
        )


def sequences_of(samples: Samples, first: FirstToken) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each sample what the model reads, context token included, and what of it is coded."""
    assert samples.ids is not None
    sequences, coded = [], []
    for i, ids in zip(samples.index, samples.ids, strict=True):
        # Ids that begin with the BOS bring their own context. A named context token is no such mark: random ids may
        # begin with it.
        own_context = samples.texts is None and first.rule == "bos" and ids[0] == first.id
        sequences.append(ids if first.id is None or own_context else np.concatenate([[first.id], ids]))
        coded.append(ids[1:] if own_context or first.rule == "skip" else ids)
        if not len(coded[-1]):
            why = "it is the BOS" if own_context else 'first_token="skip" leaves it out'
            raise InputError(
                f"sample {i} has a single token and {why}: nothing is left to code. Leave the sample out, or pass "
                'first_token="uniform".'
            )
    return sequences, coded
