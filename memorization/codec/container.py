"""The container: what a compressed file holds, byte by byte. See docs/compression.md for the table."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from memorization.errors import ContainerError
from memorization.results import counted

__all__ = ["DIGEST_BYTES", "FORMAT_VERSION", "Container", "Entry", "digest", "pack", "unpack", "varint"]

MAGIC = b"\x8aLMZ"
FORMAT_VERSION = 1
DIGEST_BYTES = 16  # of a SHA-256
KINDS = ("bytes", "str", "ids")
_RAW, _LEADING = 4, 8  # bits of an entry's first byte, above its kind
_PATHS, _PACKINGS = ("prefix", "state"), ("plain", "zlib", "lzma")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a container says of one sample.

    Attributes:
        kind: what it is: "bytes", "str" or "ids".
        raw: it is stored as it is, not coded with the model.
        leading: its ids begin with the context token, which is not coded a second time.
        count: coded tokens, or bytes where it is raw.
    """

    kind: str
    raw: bool
    leading: bool
    count: int


@dataclass(frozen=True, slots=True)
class Container:
    """The fields of a container, in the order in which they are written.

    Attributes:
        path: how the model reads: "prefix" or "state".
        n_threads: of torch, on the CPU.
        dtype: of the model's weights; empty where it has none.
        model: 16 bytes that tell it from others.
        tokenizer: 16 bytes, zeros where none is needed.
        vocab_size: width of the logits.
        context: id of the token in front of each sample; None: nothing, and the first token costs log2 of vocab_size.
        max_length: inputs of a window; None for no limit.
        written_by: versions and device, for people.
        several: a list of samples came, not one.
        entries: the samples.
        data_digest: of what was compressed.
        packing: of the raw samples: "plain", "zlib" or "lzma".
        raw: all raw samples, one after the other, packed.
        stream: of the entropy coder; empty where nothing is coded.
    """

    path: str
    n_threads: int
    dtype: str
    model: bytes
    tokenizer: bytes
    vocab_size: int
    context: int | None
    max_length: int | None
    written_by: str
    several: bool
    entries: tuple[Entry, ...]
    data_digest: bytes
    packing: str
    raw: bytes
    stream: bytes


def digest(data: bytes) -> bytes:
    """The first 16 bytes of the SHA-256.

    Examples:
        >>> digest(b"").hex()
        'e3b0c44298fc1c149afbf4c8996fb924'
    """
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


def varint(number: int) -> bytes:
    """A whole number of at least 0 in groups of 7 bits, the lowest first; all but the last have the high bit (LEB128).

    Examples:
        >>> varint(300).hex()
        'ac02'
    """
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def pack(held: Container) -> bytes:
    """The bytes of a container."""
    written_by = held.written_by.encode()
    body = [
        bytes([_PATHS.index(held.path)]),
        varint(held.n_threads),
        varint(len(held.dtype)),
        held.dtype.encode("ascii"),
        held.model,
        held.tokenizer,
        varint(held.vocab_size),
        varint(0 if held.context is None else held.context + 1),
        varint(held.max_length or 0),
        varint(len(written_by)),
        written_by,
        bytes([held.several]),
        varint(len(held.entries)),
        *(_entry(entry) for entry in held.entries),
        held.data_digest,
        bytes([_PACKINGS.index(held.packing)]),
        varint(len(held.raw)),
        held.raw,
        held.stream,
    ]
    rest = b"".join(body)
    start = MAGIC + bytes([FORMAT_VERSION]) + varint(len(rest) + DIGEST_BYTES)
    return start + rest + digest(start + rest)


def _entry(entry: Entry) -> bytes:
    first = KINDS.index(entry.kind) | _RAW * entry.raw | _LEADING * entry.leading
    return bytes([first]) + varint(entry.count)


def unpack(blob: bytes) -> Container:
    """The fields of a container, after its checksum.

    Raises:
        ContainerError: it is none, of another format version, cut short, longer than it says, or damaged.
    """
    n = len(blob)
    if blob[: len(MAGIC)] != MAGIC[:n] or not n:
        raise ContainerError(
            f"these {counted(n, 'byte')} were not made by compress, whose containers begin with {MAGIC.hex(' ')}; "
            "they begin "
            f"with {blob[:4].hex(' ') or 'nothing'}."
        )
    if n <= len(MAGIC):
        raise ContainerError(f"the compressed data are cut short: {counted(n, 'byte')} are left of the head alone.")
    if blob[len(MAGIC)] != FORMAT_VERSION:
        raise ContainerError(
            f"the compressed data say format version {blob[len(MAGIC)]}, and this version of lm-memorization reads "
            f"{FORMAT_VERSION}. Were they written by another version, or damaged?"
        )
    source = _Source(blob, len(MAGIC) + 1)
    expected = source.varint()
    came = n - source.at
    if came != expected:
        what = "cut short" if came < expected else "longer than they say"
        raise ContainerError(
            f"the compressed data are {what}: {counted(expected, 'byte')} should follow, and {came:,} do."
        )
    if expected < DIGEST_BYTES or digest(blob[:-DIGEST_BYTES]) != blob[-DIGEST_BYTES:]:
        raise ContainerError(
            "the compressed data are damaged: their checksum is another one. Copy them again from where they were made."
        )
    return _fields(_Source(blob[:-DIGEST_BYTES], source.at))


def _fields(source: "_Source") -> Container:
    path = source.one_of(_PATHS)
    n_threads, dtype = source.varint(), source.take(source.varint()).decode("ascii", "replace")
    model, tokenizer = source.take(DIGEST_BYTES), source.take(DIGEST_BYTES)
    vocab_size, context, max_length = source.varint(), source.varint(), source.varint()
    written_by = source.take(source.varint()).decode("utf-8", "replace")
    several, n_entries = bool(source.take(1)[0]), source.varint()
    entries = tuple(_read_entry(source) for _ in range(n_entries))
    data_digest, packing = source.take(DIGEST_BYTES), source.one_of(_PACKINGS)
    raw = source.take(source.varint())
    return Container(
        path=path,
        n_threads=n_threads,
        dtype=dtype,
        model=model,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        context=context - 1 if context else None,
        max_length=max_length or None,
        written_by=written_by,
        several=several,
        entries=entries,
        data_digest=data_digest,
        packing=packing,
        raw=raw,
        stream=source.rest(),
    )


def _read_entry(source: "_Source") -> Entry:
    first = source.take(1)[0]
    kind = first & 3
    if kind >= len(KINDS) or first > (kind | _RAW | _LEADING):
        raise _unreadable()
    return Entry(KINDS[kind], bool(first & _RAW), bool(first & _LEADING), source.varint())


class _Source:
    """Bytes that are read from the front."""

    def __init__(self, data: bytes, at: int = 0):
        self._data, self.at = data, at

    def take(self, n: int) -> bytes:
        if self.at + n > len(self._data):
            raise ContainerError("the compressed data are cut short: a field goes on beyond their end.")
        self.at += n
        return self._data[self.at - n : self.at]

    def rest(self) -> bytes:
        return self.take(len(self._data) - self.at)

    def varint(self) -> int:
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number
            if shift > 63:
                raise _unreadable()

    def one_of(self, names: Sequence[str]) -> str:
        number = self.take(1)[0]
        if number >= len(names):
            raise _unreadable()
        return names[number]


def varints(data: bytes) -> list[int]:
    """The numbers that `varint` wrote one after the other."""
    source, found = _Source(data), []
    while source.at < len(data):
        found.append(source.varint())
    return found


def _unreadable() -> ContainerError:
    return ContainerError("the compressed data hold a field that this version of lm-memorization cannot read.")
