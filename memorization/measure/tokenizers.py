"""Tokenizers: from a name or a folder, or as they came; and what is recorded of them.

Beside `loading.py` the only file below the lab that imports transformers: a tokenizer is often loaded where no model
is.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from memorization.errors import ModelError
from memorization.measure.adapter_folders import find_base
from memorization.measure.failures import first_line, load_failure
from memorization.measure.folders import ADAPTER, check_folder, check_start, read_json, source_of
from memorization.measure.foreign_tokenizers import ForeignTokenizer, adopted

_TOKENIZER_FILES = ("tokenizer", "vocab", "merges")  # how the names of a tokenizer's files begin
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")


@runtime_checkable
class EncodesAndDecodes(Protocol):
    """What every tokenizer can do."""

    def encode(self, text: Any, /) -> Any:
        """A text to token ids."""

    def decode(self, ids: Any, /) -> Any:
        """Token ids to a text."""


# What every function of this library takes as a tokenizer: a name, a folder, a tokenizer of transformers, tokenizers or
# tiktoken, any object that encodes and decodes, or the pair of functions that do.
if TYPE_CHECKING:
    TokenizerLike: TypeAlias = (
        str | os.PathLike[str] | EncodesAndDecodes | tuple[Callable[[str], Any], Callable[[list[int]], str]]
    )
else:
    TokenizerLike = Any  # what lacks a method is refused where the method is needed, in words


def load_tokenizer(
    tokenizer: TokenizerLike | None,
    *,
    required: bool = True,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """A tokenizer as transformers has them: an object as it is or wrapped, a name or folder loaded. None stays None.

    Args:
        tokenizer: what came.
        required: False where a model is named whose own tokenizer is meant: a folder without one then gives None.
        revision: of a hub id.
        trust_remote_code: run code that the tokenizer brings.

    Raises:
        ModelError: it cannot be loaded. A tokenizer that is there and cannot be read is an error, required or not.
        InputError: an object that is no tokenizer.
    """
    if tokenizer is None:
        return None
    if not isinstance(tokenizer, (str, os.PathLike)):
        return adopted(tokenizer)
    name = source_of(tokenizer)
    folder = Path(name)
    if os.path.exists(name) and not required:
        check_folder(folder)
    if folder.is_dir() and not _files_of(folder):
        # transformers would make up an empty tokenizer of the model's type.
        if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file():
            return load_tokenizer(find_base(folder), required=required, trust_remote_code=trust_remote_code)
        if not required:
            return None
        raise ModelError(
            f"{folder} holds no tokenizer: expected is a folder made by the tokenizer's save_pretrained()."
        )
    for file in _files_of(folder) if folder.is_dir() else []:
        if file.suffix == ".json" or file.is_symlink():
            (read_json if file.suffix == ".json" else check_start)(file)
    from transformers import AutoTokenizer

    try:
        loaded: Any = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:
        if folder.is_dir() and _settings_alone(folder):
            raise _no_vocabulary(folder) from error
        if folder.is_dir() and "trust_remote_code" not in str(error):
            raise ModelError(
                f"the tokenizer in {folder} cannot be read: {first_line(error).rstrip('.:')}. Was it made by a newer "
                "version of transformers or tokenizers than the one here, or is it damaged? Update them, or pass "
                "another tokenizer."
            ) from error
        adapter = None if folder.is_dir() else _adapter_on_hub(name, revision)
        if adapter is not None:
            return load_tokenizer(find_base(adapter), required=required, trust_remote_code=trust_remote_code)
        raise ModelError(load_failure(name, f"the tokenizer: {error}")) from error
    if folder.is_dir() and _settings_alone(folder) and _is_made_up(loaded):
        raise _no_vocabulary(folder)
    return loaded


def _adapter_on_hub(name: str, revision: str | None) -> Path | None:
    """Where an adapter from the hub is kept here; None of what is none, or cannot be reached."""
    from transformers.utils import find_adapter_config_file

    file = find_adapter_config_file(name, revision=revision)
    return None if file is None else Path(file).parent


def _files_of(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if (file.is_file() or (file.is_symlink() and not file.exists()))
        and (file.name.startswith(_TOKENIZER_FILES) or file.suffix == ".model" or file.name in _SETTINGS)
    )


def _settings_alone(folder: Path) -> bool:
    return all(file.name in _SETTINGS for file in _files_of(folder))


def _no_vocabulary(folder: Path) -> ModelError:
    return ModelError(
        f"{folder} holds settings of a tokenizer ({', '.join(file.name for file in _files_of(folder))}) and no "
        "vocabulary, such as tokenizer.json. Save or download the tokenizer again."
    )


def _is_made_up(tokenizer: Any) -> bool:
    """Whether it knows special tokens alone. Tokenizers of bytes need no file for their vocabulary."""
    return len(tokenizer.get_vocab()) <= max(len(tokenizer.all_special_tokens), 16)


def vocabulary_size(tokenizer: Any) -> int | None:
    """Ids that a tokenizer may give: from 0 to this, exclusive. None where it does not say.

    Ids may have holes, and added tokens may lie beyond them, so the number of tokens may be smaller.
    """
    vocab = tokenizer.get_vocab()
    sizes = [len(tokenizer)] if hasattr(tokenizer, "__len__") else []
    if vocab:
        sizes.append(max(vocab.values()) + 1)
    return max(sizes, default=0) or None


def tokenizer_record(tokenizer: Any) -> dict[str, Any] | None:
    """Class, name, size and fingerprint of the vocabulary of a tokenizer."""
    if tokenizer is None:
        return None
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    told = tokenizer.identity if isinstance(tokenizer, ForeignTokenizer) and not vocab else repr(vocab)
    return {
        "class": getattr(tokenizer, "kind", type(tokenizer).__name__),
        "name": str(getattr(tokenizer, "name_or_path", "")),
        "vocab_size": vocabulary_size(tokenizer),
        "vocab_sha256": hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest(),
    }
