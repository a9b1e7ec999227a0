"""Tokenizers of other libraries (tokenizers, tiktoken, your own) behind the few methods that measuring uses."""

import operator
import string
from collections.abc import Callable, Sequence
from typing import Any

from memorization.errors import InputError

_EXPECTED = (
    "expected is a name, a folder, a tokenizer of transformers, tokenizers or tiktoken, an object with encode(text) "
    "and decode(ids), or the pair (encode, decode)"
)


def is_of_transformers(tokenizer: Any) -> bool:
    """Whether a tokenizer has the methods that measuring uses already. For samples that are ids it need not encode."""
    return hasattr(tokenizer, "get_vocab") and not hasattr(tokenizer, "token_to_id")  # as tokenizers.Tokenizer has


def adopted(tokenizer: Any) -> Any:
    """A transformers tokenizer as it is; others wrapped.

    Raises:
        InputError: it is none.
    """
    if is_of_transformers(tokenizer):
        return tokenizer
    if isinstance(tokenizer, tuple) and len(tokenizer) == 2 and all(callable(part) for part in tokenizer):
        return ForeignTokenizer(*tokenizer, kind="pair of functions")
    encode, decode = getattr(tokenizer, "encode", None), getattr(tokenizer, "decode", None)
    if not (callable(encode) and callable(decode)) or isinstance(tokenizer, type):
        came = (
            "a function, which cannot decode"
            if callable(tokenizer) and not isinstance(tokenizer, type)
            else f"{tokenizer!r:.40}"
            if isinstance(tokenizer, type)
            else f"a {type(tokenizer).__name__}"
        )
        raise InputError(f"a tokenizer must encode and decode: {_EXPECTED}; {came} came.")
    kind = f"{type(tokenizer).__module__.split('.')[0]}.{type(tokenizer).__name__}"
    if hasattr(tokenizer, "token_to_id") and hasattr(tokenizer, "get_vocab"):  # tokenizers.Tokenizer
        return ForeignTokenizer(
            lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
            lambda ids: tokenizer.decode(ids, skip_special_tokens=False),
            kind=kind,
            vocab=tokenizer.get_vocab(with_added_tokens=True),
        )
    if hasattr(tokenizer, "encode_ordinary") and hasattr(tokenizer, "token_byte_values"):  # tiktoken.Encoding
        return ForeignTokenizer(
            tokenizer.encode_ordinary, decode, kind=kind, name=tokenizer.name, vocab=_vocab_of_tiktoken(tokenizer)
        )
    return ForeignTokenizer(encode, decode, kind=kind, size=_size(tokenizer))


def _vocab_of_tiktoken(encoding: Any) -> dict[str, int]:
    """Tokens are bytes: each byte stands as the character of its number, so that no two tokens are written alike."""
    tokens = {value.decode("latin-1"): encoding.encode_single_token(value) for value in encoding.token_byte_values()}
    return {**tokens, **{name: encoding.encode_single_token(name) for name in encoding.special_tokens_set}}


def _size(tokenizer: Any) -> int | None:
    for name in ("vocab_size", "n_vocab"):
        value = getattr(tokenizer, name, None)
        value = value() if callable(value) else value
        if isinstance(value, int) and value > 0:
            return value
    return len(tokenizer) if hasattr(tokenizer, "__len__") else None


class ForeignTokenizer:
    """Two functions behind the methods of a transformers tokenizer that measuring uses. No BOS, no limit of length."""

    bos_token_id = None
    chat_template = None
    model_max_length = None

    def __init__(
        self,
        encode: Callable[[str], Any],
        decode: Callable[[list[int]], str],
        *,
        kind: str,
        name: str = "",
        vocab: dict[str, int] | None = None,
        size: int | None = None,
    ):
        self._encode, self._decode, self._vocab, self._size = encode, decode, vocab or {}, size
        self._names = {number: token for token, number in self._vocab.items()}
        self.kind, self.name_or_path = kind, name

    def __call__(self, texts: str | Sequence[str], **_: Any) -> dict[str, Any]:
        """Token ids of texts, no special tokens added; the options of transformers change nothing."""
        if isinstance(texts, str):
            return {"input_ids": self.encode(texts)}
        return {"input_ids": [self.encode(text) for text in texts]}

    def encode(self, text: str, **_: Any) -> list[int]:
        """Token ids of a text.

        Raises:
            InputError: encode() failed, or returned something else than integers.
        """
        try:
            return [operator.index(number) for number in self._encode(text)]
        except Exception as error:
            shown = text if len(text) <= 80 else text[:77] + "..."
            raise InputError(
                f"the tokenizer ({self.kind}) cannot encode {shown!r} to a list of token ids: {type(error).__name__}: "
                f"{error}. Leave the text out, or hand over token ids."
            ) from error

    def decode(self, ids: Any, **_: Any) -> str:
        """The text of token ids."""
        return self._decode([operator.index(number) for number in ids])

    def batch_decode(self, rows: Any, **_: Any) -> list[str]:
        """The texts of rows of token ids."""
        return [self.decode(ids) for ids in rows]

    def get_vocab(self) -> dict[str, int]:
        """Tokens and their ids; empty where the tokenizer does not tell."""
        return dict(self._vocab)

    def convert_ids_to_tokens(self, number: int) -> str:
        """The token of an id."""
        return self._names[number] if number in self._names else self.decode([number])

    def __len__(self) -> int:
        return self._size or len(self._vocab)

    @property
    def identity(self) -> str:
        """What tells it from others where the vocabulary does not: how it encodes the characters of ASCII."""
        told = []
        for character in string.printable:
            try:
                told.append(self.encode(character))
            except InputError:
                told.append([])
        return repr(told)

    def __repr__(self) -> str:
        return f"ForeignTokenizer({self.kind}, {len(self)} tokens)"
