"""Bits of every byte: which bytes of a text its tokens cover, so that figures compare across tokenizers.

A byte belongs to one token: the first that makes the text, decoded so far, hold it. Byte-level tokens may cut a
character in two, so places are counted in bytes.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from memorization.errors import InputError
from memorization.results import ReadOnly
from memorization.samples import Samples
from memorization.samples.round_trip import decode

if TYPE_CHECKING:
    pass

__all__ = [
    "BYTE_COLUMNS",
    "BitsOfBytes",
    "byte_bits",
    "character_edges",
    "coded_bytes",
    "shared_pieces",
    "token_edges",
]

BYTE_COLUMNS = ("start_byte", "end_byte")  # of saved tokens

_CONTEXT = 8  # pieces of text that are decoded together with a token whose own text depends on those before it
_CUT = "\N{REPLACEMENT CHARACTER}"  # what decoders write for a part of a character
_UNKNOWN = -1


class BitsOfBytes(ReadOnly):
    """What `CodeLengths` knows of the bytes of its texts."""

    __slots__ = ()

    token_bits: Float64[np.ndarray, " token"]
    token_offsets: Int64[np.ndarray, " edge"]
    token_bytes: Int64[np.ndarray, "token 2"] | None
    n_bytes: Int64[np.ndarray, " sample"]

    @property
    def index(self) -> Int64[np.ndarray, " sample"]:
        """Position of each sample in the input, which differs from its place here where samples were skipped."""
        raise NotImplementedError

    def bits_by_byte(self, i: int) -> Float64[np.ndarray, " byte"]:
        """Ideal bits of each UTF-8 byte of the i-th sample here, counted from 0.

        The bits of a token are spread equally over the bytes that it covers. One that covers none gives its bits to the
        next that does, or where none follows to the one before. NaN where a byte is not coded, as under
        first_token="skip". All others add up to the ideal bits of the sample.

        Raises:
            InputError: there is no such sample; or it is not known which bytes the tokens cover.
        """
        n = len(self.n_bytes)
        if not 0 <= i < n:
            raise InputError(f"sample {i} was asked for, and there are {n}, counted from 0.")
        if self.token_bytes is None:
            raise InputError(
                "it is not known which bytes the tokens cover: the samples came as token ids or conversations, or "
                "these CodeLengths were saved by an earlier version. Measure the texts again."
            )
        own = slice(int(self.token_offsets[i]), int(self.token_offsets[i + 1]))
        places = self.token_bytes[own]
        if len(places) and int(places.min()) < 0:
            raise InputError(
                f"it is not known which bytes the tokens of sample {self.index[i]} cover: the tokenizer does not give "
                "its text back piece by piece."
            )
        return byte_bits(self.token_bits[own], places, int(self.n_bytes[i]))

    def _byte_columns(self) -> dict[str, np.ndarray]:
        return {} if self.token_bytes is None else dict(zip(BYTE_COLUMNS, self.token_bytes.T, strict=True))


def shared_pieces(
    target: BitsOfBytes, oracle: BitsOfBytes, i: int
) -> tuple[Float64[np.ndarray, " piece"], Float64[np.ndarray, " piece"], Int64[np.ndarray, " edge"]]:
    """Bits of one sample under two models with tokens of their own, piece by piece.

    A piece lies between two places where both have an edge. Tokens that cover no byte count to what stands before them.

    Returns:
        Bits of the pieces under either model, and the first byte of each, with the end of the text.

    Raises:
        InputError: it is not known which bytes the tokens cover; or one of the models has not coded all of the text.
    """
    ends = []
    for lengths in (target, oracle):
        if np.isnan(lengths.bits_by_byte(i)).any():
            raise InputError(f"a part of sample {lengths.index[i]} is not coded: a comparison needs all of both.")
        assert lengths.token_bytes is not None
        end = lengths.token_bytes[lengths.token_offsets[i] : lengths.token_offsets[i + 1], 1].copy()
        end[-1] = lengths.n_bytes[i]
        ends.append(end)
    shared = np.intersect1d(*ends)
    bits = [
        np.bincount(
            np.searchsorted(shared, end),
            weights=lengths.token_bits[lengths.token_offsets[i] : lengths.token_offsets[i + 1]],
            minlength=len(shared),
        )
        for lengths, end in zip((target, oracle), ends, strict=True)
    ]
    return bits[0], bits[1], np.concatenate([[0], shared])


def byte_bits(
    token_bits: Float64[np.ndarray, " token"], token_bytes: Int64[np.ndarray, "token 2"], n_bytes: int
) -> Float64[np.ndarray, " byte"]:
    """Bits of each byte of a text, from those of its tokens.

    Args:
        token_bits: of each token.
        token_bytes: first byte of each token, and the byte after its last; tokens in the order of the text.
        n_bytes: of the text.

    Returns:
        Bits a byte, as `CodeLengths.bits_by_byte` says.

    Examples:
        The second token covers nothing, and nobody has coded the last byte:

        >>> import numpy as np
        >>> byte_bits(np.array([4.0, 1.0, 2.0]), np.array([[0, 2], [2, 2], [2, 3]]), 4).tolist()
        [2.0, 2.0, 3.0, nan]
    """
    found = np.full(n_bytes, np.nan)
    starts, sizes = token_bytes[:, 0], token_bytes[:, 1] - token_bytes[:, 0]
    covering = np.flatnonzero(sizes > 0)
    if not len(covering):  # tokens without a text of their own make up all that is coded
        return np.full(n_bytes, token_bits.sum() / n_bytes) if len(sizes) and n_bytes else found
    heir = np.minimum(np.searchsorted(covering, np.arange(len(sizes))), len(covering) - 1)
    sizes, starts = sizes[covering], starts[covering]
    rates = np.bincount(heir, weights=token_bits, minlength=len(covering)) / sizes
    first = np.cumsum(sizes) - sizes
    found[np.arange(int(sizes.sum())) + np.repeat(starts - first, sizes)] = np.repeat(rates, sizes)
    return found


def character_edges(text: str) -> Int64[np.ndarray, " edge"]:
    """Bytes before each character of a text, and those of all of it.

    Examples:
        >>> character_edges("aé雪").tolist()
        [0, 1, 3, 6]
    """
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    sizes = 1 + (points > 0x7F).astype(np.int64) + (points > 0x7FF) + (points > 0xFFFF)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])


def coded_bytes(samples: Samples, coded: Sequence[np.ndarray], tokenizer: Any) -> Int64[np.ndarray, "token 2"] | None:
    """First byte and byte after the last of every coded token, all samples one after the other.

    Args:
        samples: tokenized.
        coded: of each sample the ids that are coded: the last ones of those that are counted.
        tokenizer: that made the ids.

    Returns:
        None where the samples came as ids, or as conversations; -1 for the tokens of a text whose bytes cannot be told
        apart.
    """
    if samples.texts is None or tokenizer is None or samples.conditional == "messages":
        return None  # of conversations more is coded than their texts: what ends a turn
    rows = samples.counted_ids  # a text is what is counted; prompts are not part of it
    assert rows is not None
    found = []
    for edges, ids, own in zip(token_edges(samples.texts, rows, tokenizer), rows, coded, strict=True):
        edges = np.full(len(ids) + 1, _UNKNOWN, dtype=np.int64) if edges is None else edges
        found.append(np.stack([edges[:-1], edges[1:]], axis=1)[len(ids) - len(own) :])
    return np.concatenate(found)


def token_edges(
    texts: Sequence[str], rows: Sequence[np.ndarray], tokenizer: Any
) -> list[Int64[np.ndarray, " edge"] | None]:
    """Bytes of each text before each of its tokens, and those of all of it; None where they cannot be told apart.

    Several ways are tried, and one is believed for a text only where the pieces, one after the other, are the text.

    Args:
        texts: that the tokenizer gives back.
        rows: their token ids.
        tokenizer: of transformers, or wrapped.

    Returns:
        Of each text int64, one edge more than tokens; or None.

    Examples:
        >>> class Letters:
        ...     def decode(self, ids, **_):
        ...         return "".join(chr(97 + i) for i in ids)
        >>> token_edges(["abc"], [np.arange(3)], Letters())[0].tolist()
        [0, 1, 2, 3]
    """
    found: list[Int64[np.ndarray, " edge"] | None] = [None] * len(texts)
    left = list(range(len(texts)))
    for own_bytes in _ways(tokenizer):
        pieces = {int(i): own_bytes(int(i)) for i in np.unique(np.concatenate([rows[k] for k in left]))}
        for k in left:
            found[k] = _joined(texts[k].encode(), [pieces[i] for i in rows[k].tolist()])
        left = [k for k in left if found[k] is None]
        if not left:
            return found
    for k in left:
        found[k] = _edges_by_decoding(texts[k], rows[k].tolist(), tokenizer)
    return found


def _joined(text: bytes, pieces: Sequence[bytes | None]) -> np.ndarray | None:
    """The edges of pieces that make up the text; a space in front that the tokenizer put there counts for nothing."""
    known = [piece for piece in pieces if piece is not None]
    whole = b"".join(known)
    if len(known) < len(pieces) or whole not in (text, b" " + text):
        return None
    edges = np.cumsum([0, *map(len, known)], dtype=np.int64)
    return edges if whole == text else np.maximum(edges - 1, 0)


def _ways(tokenizer: Any) -> list[Callable[[int], bytes | None]]:
    """How the bytes of a token may be written in its name; and last, its text by itself."""
    added: dict[str, int] = getattr(tokenizer, "get_added_vocab", dict)()

    def named(read: Callable[[str], bytes | None]) -> Callable[[int], bytes | None]:
        def own_bytes(number: int) -> bytes | None:
            try:
                name = tokenizer.convert_ids_to_tokens(number)
            except Exception:  # as a decoder may on a part of a character
                return None
            if isinstance(name, str) and name in added:
                return name.encode()
            return read(name) if isinstance(name, str) else name if isinstance(name, bytes) else None

        return own_bytes

    def alone(number: int) -> bytes | None:
        said = _decoded(tokenizer, [number])
        return None if said is None else said.encode("utf-8", "surrogatepass")

    by_name = [_byte_level, _latin_1, _sentencepiece] if hasattr(tokenizer, "convert_ids_to_tokens") else []
    return [*map(named, by_name), alone]


def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others are moved behind them."""
    itself = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in itself]
    return {chr(byte): byte for byte in itself} | {chr(256 + k): byte for k, byte in enumerate(moved)}


_BYTE_OF = _bytes_of_characters()
_BYTE_NAME = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_level(name: str) -> bytes | None:
    return bytes(_BYTE_OF[c] for c in name) if all(c in _BYTE_OF for c in name) else None


def _latin_1(name: str) -> bytes | None:  # as tiktoken's bytes are named here
    return name.encode("latin-1") if all(ord(c) < 256 for c in name) else None


def _sentencepiece(name: str) -> bytes | None:
    byte = _BYTE_NAME.fullmatch(name)
    return bytes([int(byte[1], 16)]) if byte else name.replace("▁", " ").encode("utf-8", "surrogatepass")


def _edges_by_decoding(text: str, ids: list[int], tokenizer: Any) -> np.ndarray | None:
    """Edges from what each token adds to the decoded text; a part of a character adds nothing until it is whole."""
    edges, before = [0], [0]  # characters before each token; tokens before each piece that is whole
    for k in range(1, len(ids) + 1):
        start = before[max(0, len(before) - 1 - _CONTEXT)]
        said, known = (_decoded(tokenizer, ids[start:end]) for end in (k, before[-1]))
        if said is None or known is None or (said.endswith(_CUT) and k < len(ids)):
            edges.append(edges[-1])
            continue
        piece = said[len(known) :]
        if not said.startswith(known) or not text.startswith(piece, edges[-1]):
            return None
        edges.append(edges[-1] + len(piece))
        before.append(k)
    return character_edges(text)[edges] if edges[-1] == len(text) else None


def _decoded(tokenizer: Any, ids: list[int]) -> str | None:
    """The text of ids; None where the tokenizer fails on a part of a character."""
    if not ids:
        return ""
    try:
        return decode(tokenizer, ids)
    except Exception:
        return None
