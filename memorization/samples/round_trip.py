"""What a tokenizer makes of texts: token ids, the text they give back, and where the two differ."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from memorization.errors import InputError
from memorization.results import counted
from memorization.samples.token_ids import quote

_SHOWN = 20  # characters on each side of a difference


def encode(tokenizer: Any, texts: list[str]) -> tuple[list[list[int]], dict[int, str]]:
    """The token ids of each text, and by position why the tokenizer refuses some of them."""

    def ids_of(part: list[str]) -> list[list[int]]:
        rows = tokenizer(part, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        return list(rows)

    try:
        return ids_of(texts), {}
    except Exception as error:
        rows: list[list[int]] = []
        failed: dict[int, str] = {}
        for k, text in enumerate(texts):  # one by one, to find those to which it is due
            try:
                rows += ids_of([text])
            except Exception as own:
                rows.append([])
                failed[k] = f"{type(own).__name__}: {own}"
        if len(failed) == len(texts) and len(texts) > 1:  # not the texts, but the tokenizer
            raise InputError(
                f"the tokenizer {type(tokenizer).__name__} refuses each of the {counted(len(texts), 'text')}; of "
                "the first it "
                f"says {failed[0].rstrip('.')}."
            ) from error
        return rows, failed


class Lossy(NamedTuple):
    """A text that does not survive its tokenizer: what comes back, or why nothing does."""

    name: str  # what it is: a sample, or the prompt of one
    text: str
    back: str | None
    why: str = ""

    def told(self) -> str:
        """The text, and what becomes of it."""
        if self.back is None:
            return f"{quote(self.text)}, and the tokenizer refuses it ({self.why})"
        return f"{around(self.text, first_difference(self.text, self.back))}, and {difference(self.text, self.back)}"


def encode_exactly(tokenizer: Any, texts: list[str], name: str) -> tuple[list[list[int]], dict[int, Lossy]]:
    """The token ids of each text; by position those that do not come back byte for byte."""
    rows, failed = encode(tokenizer, texts)
    lossy = {k: Lossy(name, texts[k], None, why) for k, why in failed.items()}
    for k, (text, row) in enumerate(zip(texts, rows, strict=True)):
        if k in failed or not text:  # a prompt may be empty
            continue
        back = decode(tokenizer, row)
        if not row or back != text:
            lossy[k] = Lossy(name, text, back)
    return rows, lossy


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of token ids, special tokens and spaces as they are."""
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def first_difference(text: str, other: str) -> int:
    """Position of the first character in which two texts differ; the shorter's length where it begins the other."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(text), len(other)))


def difference(text: str, back: str) -> str:
    """What the tokenizer makes of a text, and where the two part."""
    at = first_difference(text, back)
    return (
        f"decode(encode(it)) is {around(back, at)} (they differ from character {at} on: "
        f"{_characters(text[at:])} came, {_characters(back[at:])} comes back)"
    )


def _characters(text: str) -> str:
    return " ".join(f"U+{ord(c):04X}" for c in text[:3]) or "no character"


def around(text: str, at: int) -> str:
    """A text in quotes about a position. From there on it is escaped: characters that look alike may differ."""
    start, stop = max(0, at - _SHOWN), at + _SHOWN
    shown = repr(text[start:at])[1:-1] + ascii(text[at:stop])[1:-1]
    return f"{'...' if start else ''}'{shown}'{'...' if stop < len(text) else ''}"
