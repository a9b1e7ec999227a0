"""What a model reads before a sample (its context), and what the first token of the sample costs (its charge)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from memorization.errors import FirstTokenWarning, InputError, warn
from memorization.integers import as_integer, edges_of
from memorization.measure.tokenizers import vocabulary_size
from memorization.samples import Samples

FirstTokenRule: TypeAlias = Literal["bos", "uniform", "skip", "token"]
Charge: TypeAlias = Literal["given", "uniform", "skip"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a model says of the BOS in front: bits of tokens that it predicts either way, of a few dozen samples.

    Attributes:
        id: of the BOS; of the EOS where there is no BOS, and then bits_with are bits_eos.
        token: its name.
        n_samples: samples asked.
        n_tokens: tokens 2 to n of theirs, the same ones each time.
        bits_with: bits a token with the BOS in front.
        bits_without: bits a token with nothing in front.
        bits_eos: bits a token with the EOS in front; None where it is the BOS, or there is none.
        strong_with: samples that the BOS makes cheaper by 20 bits or more than whatever else was tried.
        strong_without: that nothing in front does.
        strong_eos: that the EOS does.
    """

    id: int
    token: str | None
    n_samples: int
    n_tokens: int
    bits_with: float
    bits_without: float
    bits_eos: float | None = None
    strong_with: int = 0
    strong_without: int = 0
    strong_eos: int = 0


@dataclass(frozen=True, slots=True)
class LaterWindows:
    """The same of windows after the first: bits of the new tokens with and without the context token in front."""

    n_windows: int
    n_tokens: int
    bits_with: float
    bits_without: float


@dataclass(frozen=True, slots=True)
class FirstToken:
    """What a model reads before a sample, and what the first token of the sample costs.

    Attributes:
        asked: what the caller passed as `first_token`.
        rule: what the first token costs: its bits given the BOS ("bos") or given another token ("token"), log2 of the
            vocabulary size ("uniform"), or nothing, for it is left out ("skip").
        id: of the context token, which is read and not coded; None where there is none.
        token: its name; None where no tokenizer is at hand.
        in_front: the context token stands in front of the whole sample. Else only the first token is given it, in a
            pass of its own, and the others are not.
        is_eos: it is the EOS, for want of a BOS or by the evidence.
        every_window: it stands in front of each later window of a long sample as well, in place of a token of the text.
        evidence: by which "auto" decided what stands in front; None where nothing was asked.
        later_windows: by which it decided about later windows; None where nothing was asked.
    """

    asked: str | int
    rule: FirstTokenRule
    id: int | None
    token: str | None
    in_front: bool = True
    every_window: bool = False
    evidence: Evidence | None = None
    later_windows: LaterWindows | None = None
    is_eos: bool = False

    @property
    def context(self) -> int | None:
        """Id of the token that stands in front of each sample; None where nothing does."""
        return self.id if self.in_front else None

    @property
    def charge(self) -> Charge:
        """What the first token costs: its bits "given" the context token, a "uniform" log2 V, or nothing: "skip"."""
        return self.rule if self.rule in ("uniform", "skip") else "given"

    def charged(self, charge: Charge) -> "FirstToken":
        """The same context with another charge of the first token."""
        if charge == self.charge:
            return self
        if charge == "given":
            return replace(self, rule="bos")
        kept = self.in_front and self.id is not None
        return replace(self, rule=charge, id=self.id if kept else None, token=self.token if kept else None)

    def record(self) -> dict[str, Any]:
        """The fields by name, and the charge, as they stand in the settings of a result."""
        return asdict(self) | {"charge": self.charge}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "FirstToken":
        """What `record` was made of. Version 0.1.0 recorded the first four fields."""
        evidence, later = record.get("evidence"), record.get("later_windows")
        return cls(
            asked=record["asked"],
            rule=record["rule"],
            id=record["id"],
            token=record["token"],
            in_front=record.get("in_front", True),
            every_window=record.get("every_window", False),
            evidence=None if evidence is None else Evidence(**evidence),
            later_windows=None if later is None else LaterWindows(**later),
            is_eos=record.get("is_eos", False),
        )


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
                + '. Name a context token (such as "<|endoftext|>"), or leave first_token to "auto".'
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


def eos_in_front(first: FirstToken, tokenizer: Any) -> FirstToken:
    """The rule "auto" of a tokenizer without BOS, with its EOS in front; whatever else comes, as it is."""
    eos = getattr(tokenizer, "eos_token_id", None)
    if first.asked != "auto" or first.rule != "uniform" or first.id is not None or not isinstance(eos, int):
        return first
    return replace(_given("auto", "bos", eos, tokenizer), is_eos=True)


def _given(asked: str | int, rule: FirstTokenRule, token_id: int, tokenizer: Any) -> FirstToken:
    known = tokenizer is not None and 0 <= token_id < (vocabulary_size(tokenizer) or token_id + 1)
    return FirstToken(asked, rule, token_id, tokenizer.convert_ids_to_tokens(token_id) if known else None)


def warn_of_chat_marker(first: FirstToken, tokenizer: Any, samples: Samples) -> None:
    """Warn where the context of what is no conversation is a BOS that the chat template uses."""
    if (
        samples.conditional != "messages"
        and first.rule != "token"
        and first.context is not None
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


def brings_context(samples: Samples, first: FirstToken, ids: np.ndarray) -> bool:
    """Whether the ids of a sample begin with the BOS, so that they bring their own context.

    A named context token is no such mark: random ids may begin with it. Nor is a text that begins with it; a chat
    template writes the BOS.
    """
    whole = samples.texts is None or samples.conditional == "messages"
    return whole and first.rule != "token" and first.id is not None and int(ids[0]) == first.id


class Sequences(NamedTuple):
    """What a model reads of samples, and what of it is coded.

    Attributes:
        read: ids of each sample, context and prompt included.
        coded: those of them that are coded.
        apart: 1 where the first coded token is not predicted from what stands before it in the sequence: it costs log2
            of the vocabulary size, or is given the context token in a pass of its own.
        scored: of each id read, whether it is coded as predicted from what stands before it.
    """

    read: list[np.ndarray]
    coded: list[np.ndarray]
    apart: list[int]
    scored: list[np.ndarray]


def sequences_of(samples: Samples, first: FirstToken, max_length: int | None = None) -> Sequences:
    """What the model reads of each sample, context included; what of it is coded; how much of that is coded apart.

    A sample that begins with what is read and not counted has a first coded token like any other: it is given that.

    Raises:
        InputError: a sample of which nothing is left to code; or a prompt that does not fit into a window of
            `max_length` inputs, so that what follows would be given a part of it.
    """
    assert samples.ids is not None
    found = Sequences([], [], [], [])
    masks = samples.counted or [np.ones(len(ids), dtype=bool) for ids in samples.ids]
    for i, ids, counted in zip(samples.index, samples.ids, masks, strict=True):
        own = brings_context(samples, first, ids)
        in_front = [] if first.context is None or own else [first.context]
        coded, apart = counted, 0
        if counted[0]:
            if first.charge == "skip" or (own and first.charge == "given"):
                coded = np.concatenate([[False], counted[1:]])
            apart = int(first.charge == "uniform" or (first.charge == "given" and not first.in_front and not own))
        if not coded.any():
            why = "it is the BOS" if first.charge == "given" else 'first_token="skip" leaves it out'
            raise InputError(
                f"sample {i} has a single token and {why}: nothing is left to code. Leave the sample out, or pass "
                'first_token="uniform".'
            )
        scored = np.concatenate([np.zeros(len(in_front), dtype=bool), coded])
        scored[len(in_front)] &= not apart
        n_before = 0 if counted[0] else int(np.argmax(scored))
        if max_length is not None and n_before > max_length:
            raise InputError(
                f"the prompt of sample {i} takes {n_before} positions, context token included, and the window has "
                f"{max_length}: its completion would be given a part of the prompt. Shorten the prompt from its "
                "beginning, or leave the sample out."
            )
        found.read.append(np.concatenate([in_front, ids]) if in_front else ids)
        found.coded.append(ids[coded])
        found.apart.append(apart)
        found.scored.append(scored)
    return found


def check_ids(samples: Samples, vocab_size: int, first: FirstToken, name: str) -> None:
    """Refuse token ids, and a context token, that the model `name` does not have."""
    if first.id is not None and not 0 <= first.id < vocab_size:
        raise InputError(f"the context token has id {first.id}, outside the model's vocabulary [0, {vocab_size}).")
    assert samples.ids is not None
    flat = np.concatenate(samples.ids)
    bad = np.flatnonzero((flat < 0) | (flat >= vocab_size))
    if len(bad):
        edges = edges_of(np.array([len(ids) for ids in samples.ids]))
        i = int(np.searchsorted(edges, bad[0], side="right")) - 1
        raise InputError(
            f"token ids must lie in [0, {vocab_size}); {len(bad)} do not, the first is {flat[bad[0]]} in sample "
            f"{samples.index[i]} at position {bad[0] - edges[i]}. Were they made with another model's tokenizer? "
            f"The model here is {name}."
        )
