"""Conversations: lists of messages, which a tokenizer's chat template turns into ids; the assistant's are counted."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from memorization.errors import InputError, MeasurementWarning, warn
from memorization.samples.round_trip import Lossy, decode
from memorization.samples.token_ids import kind_of

ASSISTANT = "assistant"
_SHAPE = '[{"role": "user", "content": "To be"}, {"role": "assistant", "content": "or not to be"}]'
# How transformers finds out whether a template says what the model writes.
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class Conversation(NamedTuple):
    """All messages as JSON, in one way whatever held them, and the texts of the assistant's turns, joined."""

    told: str
    answers: str


def conversation_of(cell: Any, i: int) -> Conversation:
    """The messages of sample `i`.

    Raises:
        InputError: it is no list of messages, each with a role and a content that are texts; no turn is the
            assistant's, or none of these says anything.
    """
    if isinstance(cell, (str, bytes, Mapping)) or not isinstance(cell, (Sequence, np.ndarray)) or not len(cell):
        raise InputError(f"sample {i} must be a list of messages, such as {_SHAPE}; it is {kind_of(cell)}.")
    for j, message in enumerate(cell):
        if not isinstance(message, Mapping):
            raise InputError(
                f"message {j} of sample {i} must have a role and a content, as in {_SHAPE}; it is {kind_of(message)}."
            )
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                came = f"it is {kind_of(message[key])}" if key in message else f"it has {', '.join(map(str, message))}"
                raise InputError(f"message {j} of sample {i} must have a {key} that is a text; {came}.")
    answers = [message["content"] for message in cell if message["role"] == ASSISTANT]
    if not answers:
        roles = ", ".join(dict.fromkeys(message["role"] for message in cell))
        raise InputError(
            f"sample {i} has no turn of the assistant: its roles are {roles}. Only what the assistant says is counted; "
            "leave the sample out."
        )
    if not any(answers):
        raise InputError(
            f"what the assistant says in sample {i} is empty: a completion of no tokens has no bits to measure. Leave "
            "the sample out."
        )
    try:
        # Tables give each message the keys of all, with nulls, which transformers leaves out as well.
        said = [{key: value for key, value in message.items() if value is not None} for message in cell]
        told = json.dumps(said, ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InputError(f"sample {i} holds messages that JSON has no words for ({error}).") from error
    return Conversation(told, "".join(answers))


def tokens_of_conversations(
    tokenizer: Any, told: Sequence[str], index: np.ndarray
) -> tuple[list[list[int]], list[np.ndarray], dict[int, Lossy]]:
    """Ids of conversations by the chat template, up to the last that is counted; which are; which do not come back.

    Where the template marks what the model writes ({% generation %}), that is counted. Else the tokens that an
    assistant's turn adds to the template's text up to it, end-of-turn marker included: there, the ids of the turns
    before must be where those of the whole begin.

    Raises:
        InputError: the tokenizer has no chat template, the template refuses a conversation, or does not tell what the
            assistant says in it.
    """
    template = _template(tokenizer)
    marked = bool(_GENERATION.search(template)) and bool(getattr(tokenizer, "is_fast", False))
    rows: list[list[int]] = []
    masks: list[np.ndarray] = []
    lossy: dict[int, Lossy] = {}
    for k, (i, one) in enumerate(zip(index.tolist(), told, strict=True)):
        messages = json.loads(one)
        ids, counted = (_by_template if marked else _by_prefixes)(tokenizer, messages, i)
        text = str(_applied(tokenizer, messages, i, tokenize=False))
        if (back := decode(tokenizer, ids)) != text:
            lossy[k] = Lossy("sample", text, back)
        if not counted.any():
            raise InputError(
                f"the chat template counts no token of sample {i} as the assistant's: a completion of no tokens has no "
                "bits to measure. Leave the sample out."
            )
        stop = int(np.flatnonzero(counted)[-1]) + 1  # what stands behind is never read
        rows.append(ids[:stop])
        masks.append(counted[:stop])
    return rows, masks, lossy


def _template(tokenizer: Any) -> str:
    remedy = (
        "Set tokenizer.chat_template to the one that the model was trained with, pass the tokenizer of the chat model, "
        "or write prompts and completions into two columns and name the first with prompt_column."
    )
    if not getattr(tokenizer, "chat_template", None) or not hasattr(tokenizer, "apply_chat_template"):
        name = type(tokenizer).__name__
        raise InputError(f"the samples are messages, and the tokenizer {name} has no chat template. {remedy}")
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:  # several by name, and none is the default
        raise InputError(f"the samples are messages, and {_told(error)}. {remedy}") from error


def _by_template(tokenizer: Any, messages: list[Any], i: int) -> tuple[list[int], np.ndarray]:
    found = _applied(tokenizer, messages, i, return_assistant_tokens_mask=True)
    ids, counted = list(found["input_ids"]), np.asarray(found["assistant_masks"], dtype=bool)
    # transformers ends a run with the first token of its last character, which may have several.
    told = tokenizer(
        str(_applied(tokenizer, messages, i, tokenize=False)), add_special_tokens=False, return_offsets_mapping=True
    )
    if list(told["input_ids"]) == ids:
        for place in np.flatnonzero(counted[:-1] & ~counted[1:]).tolist():
            end = told["offset_mapping"][place][1]
            while place + 1 < len(ids) and told["offset_mapping"][place + 1][0] < end:
                place += 1
                counted[place] = True
    for run in np.split(np.flatnonzero(counted), np.flatnonzero(np.diff(np.flatnonzero(counted)) > 1) + 1):
        if decode(tokenizer, [ids[place] for place in run.tolist()]).endswith("\N{REPLACEMENT CHARACTER}"):
            raise InputError(
                f"what the assistant says in sample {i} ends within a character, by what transformers makes of the "
                "chat template. Close {% generation %} behind an end-of-turn marker or a line end, or write prompts "
                "and completions into two columns and name the first with prompt_column."
            )
    return ids, counted


def _by_prefixes(tokenizer: Any, messages: list[Any], i: int) -> tuple[list[int], np.ndarray]:
    whole = list(_applied(tokenizer, messages, i)["input_ids"])
    counted = np.zeros(len(whole), dtype=bool)
    for k, message in enumerate(messages):
        if message["role"] != ASSISTANT:
            continue
        if k == 0:
            raise InputError(
                f"sample {i} begins with a turn of the assistant, and the chat template does not mark what the model "
                "writes ({% generation %}), so what comes before its first word is not known. Put a turn before it, "
                "or mark the template."
            )
        before = list(_applied(tokenizer, messages[:k], i, add_generation_prompt=True)["input_ids"])
        upto = list(_applied(tokenizer, messages[: k + 1], i)["input_ids"])
        if whole[: len(upto)] != upto or upto[: len(before)] != before:
            raise InputError(
                f"the chat template writes the turns before message {k} of sample {i} in other tokens where that "
                "message follows, so which tokens are the assistant's is not known. Mark them in the template "
                "({% generation %} ... {% endgeneration %}), or write prompts and completions into two columns and "
                "name the first with prompt_column."
            )
        said = decode(tokenizer, upto[len(before) :]).strip()
        if not said.startswith(message["content"].strip()) and before == list(
            _applied(tokenizer, messages[:k], i)["input_ids"]
        ):
            warn(
                "the chat template writes the same with add_generation_prompt and without, so the header of an "
                "assistant's turn is counted as what the assistant says. Mark the template "
                "({% generation %} ... {% endgeneration %}), or let it write the header where that is asked.",
                MeasurementWarning,
            )
        counted[len(before) : len(upto)] = True
    return whole, counted


def _applied(tokenizer: Any, messages: list[Any], i: int, *, tokenize: bool = True, **options: Any) -> Any:
    try:
        return tokenizer.apply_chat_template(messages, tokenize=tokenize, return_dict=tokenize, **options)
    except Exception as error:  # of jinja, or what the template raises
        raise InputError(
            f"the chat template of the tokenizer {type(tokenizer).__name__} refuses sample {i}: {_told(error)}."
        ) from error


def _told(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
