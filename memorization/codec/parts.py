"""What came as data: bytes, texts or token ids, one or several; and how each is written as ids or as bytes."""

import lzma
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from memorization.codec.container import Entry, digest, varint, varints
from memorization.errors import ContainerError, InputError
from memorization.samples.round_trip import decode, encode_exactly
from memorization.samples.token_ids import id_array, is_int, is_tensor, kind_of, to_numpy

if TYPE_CHECKING:
    import torch

__all__ = ["Data", "DataLike", "One", "Part", "back", "data_digest", "pack_raw", "parts_of", "unpack_raw"]

# One sample, and what `compress` takes and `decompress` gives back: one, or a list of them.
One: TypeAlias = bytes | str | list[int]
Data: TypeAlias = One | list[One]
# What `compress` takes: arrays of ids, too.
if TYPE_CHECKING:
    _OneLike: TypeAlias = bytes | str | Sequence[int] | np.ndarray[Any, Any] | torch.Tensor
    DataLike: TypeAlias = _OneLike | Sequence[_OneLike]
else:
    DataLike = Any  # what else comes is refused in words
_PRESET = lzma.PRESET_EXTREME | 6  # a dictionary of 8 MB; the 64 MB of 9 take 40 ms to lay out


@dataclass(frozen=True, slots=True)
class Part:
    """One sample.

    Attributes:
        kind: "bytes", "str" or "ids".
        value: the sample.
        ids: its token ids; None where it cannot be coded as such.
    """

    kind: str
    value: One
    ids: list[int] | None

    @property
    def as_bytes(self) -> bytes:
        """What is stored where it is not coded: UTF-8 of a text, LEB128 of ids."""
        return _as_bytes(self.value)


def parts_of(data: Any, tokenizer: Any, vocab_size: int) -> tuple[list[Part], bool]:
    """The samples of what came, and whether it was a list of them.

    Raises:
        InputError: something else than bytes, texts and ids; ids that the model does not have; texts, and no tokenizer.
    """
    several = not _is_one(data)
    ones = list(data) if several else [data]
    return [_part(one, i, tokenizer, vocab_size) for i, one in enumerate(ones)], several


def _is_one(data: Any) -> bool:
    if isinstance(data, (bytes, bytearray, memoryview, str)):
        return True
    if is_tensor(data) or isinstance(data, np.ndarray):
        return bool(data.ndim == 1)
    if not isinstance(data, Sequence):
        raise InputError(f"data must be bytes, a text, token ids, or a list of these; a {kind_of(data)} came.")
    return len(data) > 0 and is_int(data[0])


def _part(one: Any, i: int, tokenizer: Any, vocab_size: int) -> Part:
    if isinstance(one, (bytes, bytearray, memoryview)):
        value = bytes(one)
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            return Part("bytes", value, None)
        return Part("bytes", value, _ids_of(text, i, tokenizer, vocab_size))
    if isinstance(one, str):
        return Part("str", one, _ids_of(one, i, tokenizer, vocab_size))
    row = to_numpy(one) if is_tensor(one) else one
    ids = [] if isinstance(row, (Sequence, np.ndarray)) and not len(row) else id_array(row, i).tolist()
    bad = [(k, token) for k, token in enumerate(ids) if not 0 <= token < vocab_size]
    if bad:
        raise InputError(
            f"token ids must lie in [0, {vocab_size}); {len(bad)} do not, the first is {bad[0][1]} in sample {i} at "
            f"position {bad[0][0]}. Were they made with another model's tokenizer?"
        )
    return Part("ids", ids, ids)


def _ids_of(text: str, i: int, tokenizer: Any, vocab_size: int) -> list[int] | None:
    """Ids that give the text back; None where there are none."""
    if not text:
        return None
    if tokenizer is None:
        raise InputError(
            f"sample {i} is a text, or bytes that are one, and no tokenizer is at hand: pass tokenizer= (the object, "
            "or the folder or name it can be loaded from), or hand over lists of token ids."
        )
    try:
        rows, lossy = encode_exactly(tokenizer, [text], "sample")
    except UnicodeError:  # a lone surrogate
        return None
    ids = [int(token) for token in rows[0]]
    return None if lossy or max(ids) >= vocab_size else ids


def back(kind: str, ids: list[int], tokenizer: Any) -> One:
    """The sample of decoded ids."""
    if kind == "ids":
        return ids
    text = decode(tokenizer, ids)
    return text if kind == "str" else text.encode("utf-8", "surrogatepass")


def data_digest(values: Sequence[One], several: bool) -> bytes:
    """Digest of what was compressed: kind, length and bytes of each sample."""
    told = [bytes([several])]
    for value in values:
        stored = _as_bytes(value)
        told += [b"bsi"[_kind(value) :][:1], varint(len(stored)), stored]
    return digest(b"".join(told))


def _kind(value: One) -> int:
    return 0 if isinstance(value, bytes) else 1 if isinstance(value, str) else 2


def _as_bytes(value: One) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return b"".join(varint(token) for token in value)


def pack_raw(raw: bytes) -> tuple[str, bytes]:
    """The shortest of plain bytes, zlib's and lzma's, and its name."""
    ways = {
        "plain": raw,
        "zlib": zlib.compress(raw, 9),
        "lzma": lzma.compress(raw, lzma.FORMAT_ALONE, preset=_PRESET),
    }
    name = min(ways, key=lambda way: len(ways[way]))
    return name, ways[name]


def unpack_raw(packing: str, packed: bytes, entries: Sequence[Entry]) -> list[One]:
    """The raw samples, in order.

    Raises:
        ContainerError: what is packed is no packed data.
    """
    found: list[One] = []
    at = 0
    try:
        whole = packed
        if packing == "zlib":
            whole = zlib.decompress(packed)
        elif packing == "lzma":
            whole = lzma.decompress(packed, lzma.FORMAT_ALONE)
        for entry in entries:
            if entry.raw:
                part, at = whole[at : at + entry.count], at + entry.count
                if entry.kind == "ids":
                    found.append(varints(part))
                else:
                    found.append(part if entry.kind == "bytes" else part.decode("utf-8", "surrogatepass"))
    except (zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise ContainerError(
            f"the compressed data hold samples that cannot be unpacked ({error}), though their checksum is sound: who "
            "wrote them did not write what compress writes."
        ) from error
    return found
