"""Tokenizers: from a name or a folder, or as they came; and what is recorded of them.

Beside `loading.py` the only file below the lab that imports transformers: a tokenizer is often loaded where no model is.
"""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from memorization.errors import ModelError
from memorization.measure.failures import load_failure

_TOKENIZER_FILES = ("tokenizer", "vocab", "merges")  # how the names of a tokenizer's files begin


@runtime_checkable
class EncodesAndDecodes(Protocol):
    """What every tokenizer can do."""

    def encode(self, text: Any, /) -> Any:
        """A text to token ids."""

    def decode(self, ids: Any, /) -> Any:
        """Token ids to a text."""


if TYPE_CHECKING:
    TokenizerLike: TypeAlias = str | os.PathLike[str] | EncodesAndDecodes
else:
    TokenizerLike = Any  # what lacks a method is refused where the method is needed, in words


def load_tokenizer(
    tokenizer: Any, *, required: bool = True, revision: str | None = None, trust_remote_code: bool = False
) -> Any:
    """A tokenizer object as it is; a name or folder loaded. None stays None; a folder without one gives None when not `required`."""
    if tokenizer is None or not isinstance(tokenizer, (str, os.PathLike)):
        return tokenizer
    from transformers import AutoTokenizer

    folder = Path(tokenizer)
    if folder.is_dir() and not any(
        file.name.startswith(_TOKENIZER_FILES) or file.suffix == ".model" for file in folder.iterdir()
    ):
        # transformers would make up an empty tokenizer of the model's type.
        if not required:
            return None
        raise ModelError(f"{folder} holds no tokenizer: expected is a folder made by the tokenizer's save_pretrained()")
    try:
        return AutoTokenizer.from_pretrained(str(tokenizer), revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:
        if not required and folder.is_dir():
            return None
        raise ModelError(load_failure(str(tokenizer), f"the tokenizer: {error}")) from error


def tokenizer_record(tokenizer: Any) -> dict[str, Any] | None:
    """Class, name, size and fingerprint of the vocabulary of a tokenizer."""
    if tokenizer is None:
        return None
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    digest = hashlib.sha256(repr(vocab).encode("utf-8", "surrogatepass"))
    return {
        "class": type(tokenizer).__name__,
        "name": str(getattr(tokenizer, "name_or_path", "")),
        "vocab_size": len(tokenizer),
        "vocab_sha256": digest.hexdigest(),
    }
