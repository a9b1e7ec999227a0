"""`compress` and `decompress`: the two sides of one code, which read the model in the same steps."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from memorization.codec.container import Container, Entry, pack, unpack
from memorization.codec.first_token import context_of
from memorization.codec.marks import NO_TOKENIZER, check_model, here, model_mark, tokenizer_mark, why_not_reproduced
from memorization.codec.parts import Data, DataLike, One, Part, back, data_digest, pack_raw, parts_of, unpack_raw
from memorization.coding.streams import Reader, interval_bits, write
from memorization.coding.tables import Interval, NoCodeError, Tables
from memorization.errors import InputError, NotReproducedError
from memorization.measure.incremental import LONGEST_PREFIX, Reading, way_of
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike, OpenModel, open_model
from memorization.measure.passes import check_windows, window_of
from memorization.measure.tokenizers import TokenizerLike
from memorization.progress import progress_bar

__all__ = ["compress", "decompress", "encode"]


def compress(
    model: ModelLike,
    data: DataLike,
    *,
    tokenizer: TokenizerLike | None = None,
    first_token: str | int = "auto",
    max_length: int | None = None,
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    progress: bool = True,
) -> bytes:
    """Data as the bytes of a container that the same model decodes, in about their code length under the model.

    Args:
        model: as for `compress_bits`.
        data: bytes, a text, token ids (a list, or a one-dimensional array of integers), or a list of these: several
            samples in one stream, each read by the model on its own.
        tokenizer: object, name or folder; None is the model's own where the model is named.
        first_token: what stands in front of each sample: "bos", a token or its id; "uniform": nothing, and the first
            token costs log2 of the vocabulary size. "auto" tries the BOS, the EOS, "<|endoftext|>" and nothing on the
            first samples, and takes what needs the fewest bits.
        max_length: inputs a window holds, the context token included; None is the model's limit.
        device: None is where the model lies; a GPU if there is one for models loaded here.
        dtype: of the weights of models loaded here; None is the checkpoint's own.
        revision: of a hub model.
        trust_remote_code: run code that the checkpoint brings.
        allow_pickle: load pickled weights, which can run code.
        progress: bars on stderr for what takes longer than a second.

    Returns:
        The container, whose format the documentation lists.

    Raises:
        InputError: data or options that cannot be used.
        ModelError: a model that cannot be loaded or returns no logits; NotReproducedError where it does not give the
            same logits twice, so that nothing could be decoded.

    Guarantees:
        What is returned was decoded once, and is the data. A sample that the model codes takes at most 8 bytes more
        than its ideal bits / 8, the header aside. What its tokenizer does not give back (bytes that are no UTF-8, empty
        texts), what has probability 0, and what the model would make longer is stored as it is, packed by zlib or lzma
        where that is shorter.

    Examples:
        >>> import random
        >>> from memorization import UniformModel, compress, decompress
        >>> ids = random.Random(0).choices(range(256), k=500)
        >>> packed = compress(UniformModel(256), ids)  # 8 bits each: 500 bytes, and a header
        >>> 500 < len(packed) < 700, decompress(UniformModel(256), packed) == ids
        (True, True)

    Source:
        Delétang et al., "Language modeling is compression", arXiv:2309.10668; the coder is that of `compress_bits`.
    """
    max_length = check_windows(max_length, None, "auto")[0]
    with open_model(
        model,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        max_length=max_length,
        progress=progress,
    ) as opened:
        parts, several = parts_of(data, opened.tokenizer, opened.vocab_size)
        blob = encode(opened, parts, several, first_token=first_token, max_length=max_length, progress=progress)
        try:
            found = _restore(opened, unpack(blob), "checking", progress)
        except NoCodeError as error:
            raise NotReproducedError(
                f"what {opened.record['name']} compressed it did not decode: its logits are not the same to the last "
                "digit each time. Nothing is returned. Is it on a GPU whose kernels vary, or does it keep a state "
                "between calls?"
            ) from error
        assert found == [part.value for part in parts]  # their digests are equal
        return blob


def decompress(
    model: ModelLike,
    blob: bytes | bytearray | memoryview,
    *,
    tokenizer: TokenizerLike | None = None,
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    progress: bool = True,
) -> Data:
    """What `compress` was given: bytes, a text, a list of token ids, or a list of these.

    Args:
        model: the one that compressed: the same weights in the same dtype, on the same kind of machine.
        blob: what `compress` returned.
        tokenizer: as for `compress`.
        device: as for `compress`.
        dtype: as for `compress`.
        revision: of a hub model.
        trust_remote_code: run code that the checkpoint brings.
        allow_pickle: load pickled weights, which can run code.
        progress: a bar on stderr for what takes longer than a second.

    Returns:
        The data, of the kind that was compressed.

    Raises:
        InputError: the blob is no bytes.
        ContainerError: it is damaged, cut short, of another format version, or was not made by `compress`.
        OtherModelError: the weights, their dtype or the tokenizer are others than those that compressed.
        NotReproducedError: the model gave other logits than it did when it compressed, as it may with other kernels.

    Guarantees:
        What is returned has the digest that was taken of the data. Nothing else is ever returned.

    Examples:
        >>> from memorization import UniformModel, compress, decompress
        >>> decompress(UniformModel(64), compress(UniformModel(64), [[3, 1, 4], [1, 5]]))
        [[3, 1, 4], [1, 5]]
    """
    if not isinstance(blob, (bytes, bytearray, memoryview)):
        raise InputError(f"decompress takes the bytes that compress returned; a {type(blob).__name__} came.")
    held = unpack(bytes(blob))
    with open_model(
        model,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        progress=progress,
    ) as opened:
        check_model(opened, held)
        try:
            values = _restore(opened, held, "decompressing", progress)
        except NoCodeError as error:
            raise NotReproducedError(why_not_reproduced(opened, held)) from error
    return values if held.several else values[0]


def encode(
    model: OpenModel,
    parts: list[Part],
    several: bool,
    *,
    first_token: str | int,
    max_length: int | None,
    progress: bool,
) -> bytes:
    """The container of samples, not checked yet."""
    path = way_of(model)
    window = window_of(max_length, None, model.max_length)[0]
    values, raw = [part.value for part in parts], bytearray()
    held = Container(
        path=path,
        n_threads=torch.get_num_threads(),
        dtype=model.record["dtype"] or "",
        model=model_mark(model),
        tokenizer=NO_TOKENIZER,
        vocab_size=model.vocab_size,
        context=context_of(first_token, model, parts, window),
        max_length=LONGEST_PREFIX if window is None and path == "prefix" else window,
        written_by=here(model),
        several=several,
        entries=(),
        data_digest=data_digest(values, several),
        packing="plain",
        raw=b"",
        stream=b"",
    )
    entries, intervals = [], list[Interval]()
    with progress_bar(_n_tokens(parts), "compressing", unit="tok", shown=progress, delay=1) as bar:
        for part in parts:
            leading = bool(part.ids) and part.ids is not None and part.ids[0] == held.context
            ids = None if part.ids is None else part.ids[leading:]
            own = None if ids is None else _intervals(model, held, ids, bar)
            if own is None or ids is None or interval_bits(own) / 8 > len(pack_raw(part.as_bytes)[1]):
                entries.append(Entry(part.kind, True, False, len(part.as_bytes)))
                raw += part.as_bytes
            else:
                entries.append(Entry(part.kind, False, leading, len(ids)))
                intervals += own
    packing, packed = pack_raw(bytes(raw))
    texts_coded = any(not entry.raw and entry.kind != "ids" for entry in entries)
    return pack(
        replace(
            held,
            tokenizer=tokenizer_mark(model.tokenizer) if texts_coded else NO_TOKENIZER,
            entries=tuple(entries),
            packing=packing,
            raw=packed,
            stream=write(intervals) if intervals else b"",
        )
    )


def _n_tokens(parts: list[Part]) -> int:
    return sum(len(part.ids or ()) for part in parts)


def _intervals(model: OpenModel, held: Container, ids: list[int], bar: Any) -> list[Interval] | None:
    """The intervals of a sample's tokens; None where one has probability 0."""
    found: list[Interval] = []
    reading = Reading(model, held.path, held.context, held.max_length)  # type: ignore[arg-type]
    for token in ids:
        try:
            found += _tables(reading, model.vocab_size).intervals(token)
        except NoCodeError:
            return None
        reading.read(token)
        bar.update()
    return found


def _tables(reading: Reading, vocab_size: int) -> Tables:
    """Of what comes next: uniform where nothing was read."""
    row = reading.row()
    return Tables(torch.zeros(vocab_size) if row is None else row)


def _restore(model: OpenModel, held: Container, name: str, progress: bool) -> list[One]:
    """The samples in a container, proved by their digest.

    Raises:
        NoCodeError: they are other data than were compressed.
    """
    raw = iter(unpack_raw(held.packing, held.raw, held.entries))
    reader = Reader(held.stream)
    total = sum(entry.count for entry in held.entries if not entry.raw)
    values: list[One] = []
    with progress_bar(total, name, unit="tok", shown=progress, delay=1) as bar, _threads(held.n_threads):
        for entry in held.entries:
            if entry.raw:
                values.append(next(raw))
                continue
            ids = _decode(model, held, entry, reader, bar)
            try:
                values.append(back(entry.kind, ids, model.tokenizer))
            except Exception as error:  # whatever a tokenizer raises of ids that it did not make
                raise NoCodeError(str(error)) from error
    if data_digest(values, held.several) != held.data_digest:
        raise NoCodeError("the digest of the data is another one")
    return values


def _decode(model: OpenModel, held: Container, entry: Entry, reader: Reader, bar: Any) -> list[int]:
    found: list[int] = []
    reading = Reading(model, held.path, held.context, held.max_length)  # type: ignore[arg-type]
    for _ in range(entry.count):
        token = _tables(reading, model.vocab_size).token(reader.read)
        found.append(token)
        reading.read(token)
        bar.update()
    return [held.context, *found] if entry.leading and held.context is not None else found


@contextlib.contextmanager
def _threads(n: int) -> Iterator[None]:
    """So many threads of torch while the block runs: how a sum is split among threads moves its last digits."""
    before = torch.get_num_threads()
    try:
        if n != before:
            torch.set_num_threads(n)
        yield
    finally:
        if n != before:
            torch.set_num_threads(before)
