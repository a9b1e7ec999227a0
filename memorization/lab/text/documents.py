"""Documents cut into samples of equal length, none twice, by a given tokenizer or a byte-level one trained here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from memorization.data import addresses
from memorization.errors import InputError
from memorization.integers import check_integer
from memorization.measure.tokenizers import TokenizerLike, load_tokenizer
from memorization.samples import GroupsLike, SamplesLike, check_unconditional, codes_of, read_samples

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

__all__ = [
    "END_OF_TEXT",
    "FixedLength",
    "byte_level_bpe",
    "documents_of",
    "fixed_length",
    "grouped_documents_of",
    "with_end_of_text",
]

END_OF_TEXT = "<|endoftext|>"  # id 0


@dataclass(frozen=True, slots=True, eq=False)
class FixedLength:
    """Samples of one length.

    Attributes:
        ids: int64 token ids, a row a sample; no two rows are equal.
        document: int64, the document of each sample: a number that its samples share.
        tokenizer: what made them of texts, or came with the ids; None where ids came without one.
        vocab_size: tokens there are.
        n_documents: documents that came.
        n_short: texts (or lists of ids) shorter than a sample, left out.
        n_duplicates: samples left out because an earlier one is the same.
    """

    ids: Int64[np.ndarray, "sample position"]
    document: Int64[np.ndarray, " sample"]
    tokenizer: Any
    vocab_size: int
    n_documents: int
    n_short: int
    n_duplicates: int


def fixed_length(
    documents: SamplesLike,
    *,
    seq_len: int,
    vocab_size: int | None = None,
    tokenizer: TokenizerLike | None = None,
    text_column: str = "text",
    groups: GroupsLike | None = None,
    samples_per_document: int | None = None,
) -> FixedLength:
    """Distinct samples of `seq_len` tokens: documents cut into consecutive runs; a shorter rest is dropped.

    Args:
        documents: texts or token ids, as `compress_bits` takes them; a document is one of them.
        seq_len: tokens of a sample.
        vocab_size: of a byte-level BPE that is trained on the texts, at least 257, where no tokenizer is given (None:
            512); of token ids (None: the largest id and one more).
        tokenizer: of transformers: an object, or the folder or name to load one from. Token ids need none.
        text_column: of a file.
        groups: where a document is more than one text: a column of the file that names it, or a label a text.
        samples_per_document: only the first so many samples of each document; None: all.

    Returns:
        The samples in the order of the documents, and what was left out.

    Raises:
        InputError: no document is long enough, ids outside the vocabulary, or options that do not go together.

    Examples:
        >>> fixed_length([[1, 2, 3, 4, 5], [1, 2, 6]], seq_len=2).ids.tolist()
        [[1, 2], [3, 4]]
        >>> fixed_length([[1, 2, 3, 4], [5, 6], [7, 8]], seq_len=2, groups=["a", "a", "b"]).document.tolist()
        [0, 0, 0, 1]

    Source: de-duplication after cutting follows Morris et al., arXiv:2505.24832, section 4.
    """
    seq_len = check_integer("seq_len", seq_len, at_least=2)
    vocab_size = None if vocab_size is None else check_integer("vocab_size", vocab_size, besides="None")
    if samples_per_document is not None:
        samples_per_document = check_integer("samples_per_document", samples_per_document, besides="None")
    read = read_samples(documents, text_column=text_column, groups=groups)
    check_unconditional(read, "fixed_length")
    given: Any = None
    if tokenizer is not None:
        given = load_tokenizer(tokenizer)
        if not hasattr(given, "save_pretrained"):  # a result keeps its tokenizer
            raise InputError(
                f"tokenizer must be one of transformers, or the name of one; it is a {given.kind}. Wrap it: "
                "transformers.PreTrainedTokenizerFast(tokenizer_object=...)."
            )
    if read.texts is not None:
        if given is None:
            given = with_end_of_text(byte_level_bpe(read.texts, vocab_size or 512), seq_len)
        elif vocab_size is not None:
            raise InputError(
                "vocab_size is for a tokenizer that is trained here; a tokenizer was given: leave one out."
            )
        rows = given(read.texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        vocab_size = len(given)
    else:
        rows = [ids.tolist() for ids in read.ids or []]
        largest = max(max(row) for row in rows)
        vocab_size = largest + 1 if vocab_size is None else vocab_size
        if min(min(row) for row in rows) < 0 or largest >= vocab_size:
            raise InputError(
                f"token ids must lie in [0, {vocab_size}); they reach from {min(map(min, rows))} to {largest}."
            )
    lengths = np.array([len(row) for row in rows])
    n_short = int((lengths < seq_len).sum())
    if n_short == len(rows):
        raise InputError(
            f"all {len(rows)} documents are shorter than seq_len={seq_len} tokens, the longest has {lengths.max()}: "
            "take a smaller seq_len, or longer documents (a line of a .txt file is one)."
        )
    document = np.arange(len(rows)) if read.groups is None else codes_of(read.groups)
    kept: dict[tuple[int, ...], int] = {}  # the document of each sample; of equal samples the first stands
    n_duplicates, n_of = 0, [0] * (1 + int(document.max()))
    for row, of in zip(rows, document.tolist(), strict=True):
        for start in range(0, len(row) - seq_len + 1, seq_len):
            sample = tuple(row[start : start + seq_len])
            if sample in kept:
                n_duplicates += 1
            elif samples_per_document is None or n_of[of] < samples_per_document:
                kept[sample] = of
                n_of[of] += 1
    return FixedLength(
        ids=np.array(list(kept), dtype=np.int64),
        document=np.array(list(kept.values()), dtype=np.int64),
        tokenizer=given,
        vocab_size=vocab_size,
        n_documents=len(n_of),
        n_short=n_short,
        n_duplicates=n_duplicates,
    )


def documents_of(files: Sequence[Path] | None, text_column: str = "text") -> list[str]:
    """Texts of several files in order; without files, the paragraphs of the addresses that the package carries.

    Args:
        files: .txt (one text a line), .jsonl, .csv or .parquet; None is the package's own text.
        text_column: column of a file that holds the texts.

    Returns:
        The texts.

    Raises:
        InputError: a file that cannot be read, or that holds token ids.

    Examples:
        >>> len(documents_of(None)) > 1_000
        True
    """
    return grouped_documents_of(files, text_column)[0]


def grouped_documents_of(
    files: Sequence[Path] | None, text_column: str = "text", groups: str | None = None
) -> tuple[list[str], list[str] | None]:
    """Texts as of `documents_of`, and the label of each in the column `groups`; None without such a column.

    A label that comes in several files is one document.

    Args:
        files: as for `documents_of`.
        text_column: as for `documents_of`.
        groups: column that names the document of each text; None: each text is one.

    Returns:
        The texts and their labels.

    Raises:
        InputError: as for `documents_of`, or a file without the column.

    Examples:
        >>> texts, labels = grouped_documents_of(None)
        >>> len(texts) == len(documents_of(None)), labels
        (True, None)
    """
    if not files:
        if groups is not None:
            raise InputError(
                f"groups={groups!r} names a column, and the addresses that come with the package have none."
            )
        return [paragraph for address in addresses() for paragraph in address], None
    texts: list[str] = []
    labels: list[str] = []
    for file in files:
        read = read_samples(file, text_column=text_column, groups=groups)
        if read.texts is None:
            raise InputError(
                f"{file} holds token ids in {text_column!r}, and texts are expected; name another --text-column."
            )
        texts += read.texts
        labels += read.groups or ()
    return texts, None if groups is None else labels


def byte_level_bpe(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """A byte-level BPE tokenizer of these texts, `END_OF_TEXT` being id 0. It gives every text back.

    Args:
        texts: that it is trained on.
        vocab_size: tokens, at least 257.

    Returns:
        A tokenizer of the package tokenizers.

    Raises:
        InputError: a vocabulary that does not hold the 256 bytes and END_OF_TEXT.

    Examples:
        >>> bpe = byte_level_bpe(["the house", "the senate"], vocab_size=260)
        >>> bpe.decode(bpe.encode("the").ids), bpe.get_vocab_size()
        ('the', 260)
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab_size < 257:
        raise InputError(f"vocab_size must be at least 257, the bytes and {END_OF_TEXT}; it is {vocab_size}.")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


def with_end_of_text(bpe: "Tokenizer", max_length: int) -> "PreTrainedTokenizerFast":
    """The tokenizer as transformers takes it, END_OF_TEXT being what begins and ends a text.

    Args:
        bpe: what `byte_level_bpe` returns.
        max_length: tokens that a model takes.

    Returns:
        A tokenizer of transformers, with BOS and EOS.

    Examples:
        >>> tokenizer = with_end_of_text(byte_level_bpe(["the house"], vocab_size=258), max_length=8)
        >>> tokenizer.bos_token_id, tokenizer.model_max_length
        (0, 8)
    """
    from transformers import PreTrainedTokenizerFast

    # clean_up_tokenization_spaces would turn "is n't" into "isn't": decode(encode(text)) must be the text.
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
