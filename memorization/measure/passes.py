"""Running an open model over sequences: windows, batches that fit in memory, and the codes of the tokens."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from memorization.coding.intervals import TokenCode, code_tokens
from memorization.errors import ImpossibleTokenError, InputError, ModelError
from memorization.integers import check_integer
from memorization.measure.batches import BatchSize, Bounds, bounds_of, check_batch_size, n_together
from memorization.measure.batching import Batching, Trial
from memorization.measure.failures import first_line
from memorization.measure.opening import OpenModel
from memorization.measure.probe import remedy_of_nan, wrong_shape
from memorization.progress import progress_bar


def windows(length: int, max_length: int | None, stride: int | None) -> list[tuple[int, int, int]]:
    """How a sequence of `length` tokens (context token included) is cut into inputs of at most `max_length`.

    Returns:
        One (start, stop, n_new) a window: inputs start to stop - 1, of whose predictions the last n_new are new. Every
        token but the first of the sequence is predicted exactly once, the first window `max_length` of them, each later
        one `stride`.

    Examples:
        >>> windows(8, 4, 2)
        [(0, 4, 4), (2, 6, 2), (3, 7, 1)]
    """
    first = length if max_length is None else min(length, max_length + 1)
    spans = [(0, first - 1, first - 1)]
    while max_length is not None and stride is not None and first < length:
        stop = min(first + stride, length)
        spans.append((max(0, stop - 1 - max_length), stop - 1, stop - first))
        first = stop
    return spans


def window_of(
    max_length: int | None, stride: int | None, model_max_length: int | None
) -> tuple[int | None, int | None]:
    """Inputs a window holds and new tokens of a later one, by what was asked and what the model takes."""
    if max_length is not None and model_max_length is not None and max_length > model_max_length:
        raise InputError(
            f"max_length={max_length} is more than the {model_max_length} positions that the model or its tokenizer "
            "takes."
        )
    max_length = model_max_length if max_length is None else max_length
    if stride is None:
        return max_length, None if max_length is None else max(1, max_length // 2)
    if max_length is None:
        raise InputError(f"stride={stride} needs windows, and this model has no length limit: pass max_length as well.")
    if stride > max_length:
        raise InputError(f"stride must lie in [1, max_length] = [1, {max_length}]; it is {stride}.")
    return max_length, stride


def check_windows(
    max_length: Any, stride: Any, batch_size: Any, max_batch_tokens: Any = None
) -> tuple[int | None, int | None, BatchSize]:
    """The options of windows and batches, checked, with numbers of any library as ints."""
    return (
        None if max_length is None else check_integer("max_length", max_length, besides="None"),
        None if stride is None else check_integer("stride", stride, besides="None"),
        check_batch_size(batch_size, max_batch_tokens),
    )


Window: TypeAlias = tuple[int, int, int, int]  # sequence, start, stop, n_new
Result = TypeVar("Result")


class Batches(NamedTuple):
    """How windows were put together: the most that a batch held, what it was allowed to hold, and all of them."""

    largest: int
    batching: Batching
    n_batches: int
    n_tokens: int  # that the model was given
    n_padding: int  # of these

    def record(self) -> dict[str, Any]:
        """For the settings of a result."""
        batches = {"n_batches": self.n_batches, "n_tokens": self.n_tokens, "n_padding_tokens": self.n_padding}
        return {"largest_batch": self.largest, "batching": self.batching, "batches": batches}


def read_windows(
    model: OpenModel,
    sequences: Sequence[np.ndarray],
    *,
    max_length: int | None,
    stride: int | None,
    batch_size: BatchSize,
    read: Callable[[Tensor, np.ndarray, np.ndarray, list[Window]], list[Result]],
    on_read: Callable[[int, list[Result]], None],
    progress: bool | str,
    later_context: int | None = None,
    scored: Sequence[np.ndarray] | None = None,
) -> Batches:
    """Predict every token but the first of each sequence, and hand over what `read` makes of the logits.

    Batches hold windows of similar length, padded on the right, which a causal model cannot see.

    Args:
        model: opened.
        sequences: int64 ids, each at least 2 long.
        max_length: inputs a window holds at most.
        stride: new tokens of the second and later windows.
        batch_size: windows and tokens a batch; "auto" ends it where more would not pay, and halves on out-of-memory.
        read: (logits of a batch, one row a position; the rows that predict new tokens; those tokens; the windows, with
            the number of those tokens as n_new) to one result a window.
        on_read: receives each sequence's number and the results of its windows in order, as soon as all are there.
        progress: a bar on stderr, and its name.
        later_context: a token that takes the place of the first input of each later window.
        scored: of each token of each sequence, whether it is predicted at all; None: every one but the first. Some of
            each sequence are. A window with none is not run.

    Returns:
        What the batches held. Where a model says other things of a window in company, there is none: see `Trial`.

    Raises:
        InputError: a window is longer than the tokens of a batch.
    """
    spans = [(i, *span) for i, ids in enumerate(sequences) for span in windows(len(ids), max_length, stride)]
    if scored is not None:
        spans = [span for span in spans if scored[span[0]][span[2] + 1 - span[3] : span[2] + 1].any()]
    # Longest first: what does not fit in memory fails at once. Python's sort is stable, so the windows of a text stay
    # in order.
    spans.sort(key=lambda span: span[1] - span[2])
    missing = np.bincount([span[0] for span in spans], minlength=len(sequences))
    pieces: dict[int, list[tuple[int, Result]]] = {}
    bounds = bounds_of(model, batch_size)
    if batch_size.tokens is not None and spans and _n_inputs(spans[0]) > batch_size.tokens:
        raise _too_long(_n_inputs(spans[0]), batch_size.tokens)
    trial, done = Trial(model, _logits), Batches(0, "any", 0, 0, 0)
    name = progress if isinstance(progress, str) else "code lengths"
    with progress_bar(sum(s[3] for s in spans), name, unit="tok", shown=bool(progress), delay=1) as bar:
        start = 0
        while start < len(spans):
            batch = _next_batch(spans, start, bounds, trial)
            n_inputs = _n_inputs(batch[0])
            try:
                found = _read_batch(model, sequences, batch, read, later_context, scored, trial)
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                if batch_size.windows != "auto" or len(batch) == 1:
                    raise _too_large(model, len(batch), n_inputs) from error
                bounds, found = bounds._replace(tokens=len(batch) // 2 * n_inputs), None
            if found is None:  # once more: with fewer windows, or in the company that the model bears
                spans[start:] = sorted(spans[start:], key=lambda span: span[1] - span[2])
                continue
            start += len(batch)
            n_tokens = len(batch) * n_inputs
            done = Batches(
                max(done.largest, len(batch)),
                trial.batching,
                done.n_batches + 1,
                done.n_tokens + n_tokens,
                done.n_padding + n_tokens - sum(map(_n_inputs, batch)),
            )
            for (i, _, stop, n_new), result in zip(batch, found, strict=True):
                pieces.setdefault(i, []).append((stop, result))
                missing[i] -= 1
                if not missing[i]:
                    on_read(i, [result for _, result in sorted(pieces.pop(i), key=lambda piece: piece[0])])
                bar.update(n_new)
    return done


def _n_inputs(window: Window) -> int:
    return window[2] - window[1]


def _next_batch(spans: list[Window], start: int, bounds: Bounds, trial: Trial) -> list[Window]:
    """The windows from `start` on that share a batch; the shortest of all is in the first one with several."""
    if trial.batching == "one at a time":
        return spans[start : start + 1]
    if trial.batching == "equal lengths":
        bounds = bounds._replace(padding=0)
    stop = start + n_together((_n_inputs(spans[k]) for k in range(start, len(spans))), bounds)
    if stop - start > 1 and trial.batching == "any" and not trial.has_company:
        # Whether or not the trial is still needed: what shares a batch must not depend on what was measured before.
        trial.has_company = True
        spans.insert(stop - 1, spans.pop())
    return spans[start:stop]


def _read_batch(
    model: OpenModel,
    sequences: Sequence[np.ndarray],
    batch: list[Window],
    read: Callable[[Tensor, np.ndarray, np.ndarray, list[Window]], list[Result]],
    later_context: int | None,
    scored: Sequence[np.ndarray] | None,
    trial: Trial,
) -> list[Result] | None:
    """One result a window; None where the model says other things of the last one than of the same window alone."""
    n_inputs = _n_inputs(batch[0])
    inputs = np.zeros((len(batch), n_inputs), dtype=np.int64)
    for row, (i, start, stop, _) in enumerate(batch):
        inputs[row, : stop - start] = sequences[i][start:stop]
        if start and later_context is not None:
            inputs[row, 0] = later_context
    with torch.no_grad():
        logits = _logits(model, torch.from_numpy(inputs).to(model.device))
        if tuple(getattr(logits, "shape", ())) != (*inputs.shape, model.vocab_size):
            raise wrong_shape(model.record["name"], inputs.shape, logits, model.vocab_size)
        last, begin, end, _ = batch[-1]
        if len(batch) > 1 and not trial.passed(inputs, sequences[last][begin + 1 : end + 1], logits):
            return None
        places = [np.arange(stop - n + 1, stop + 1) for _, _, stop, n in batch]
        if scored is not None:
            places = [own[scored[i][own]] for own, (i, *_) in zip(places, batch, strict=True)]
        rows = np.concatenate(
            [
                own - 1 - start + row * n_inputs
                for row, (own, (_, start, *_)) in enumerate(zip(places, batch, strict=True))
            ]
        )
        ids = np.concatenate([sequences[i][own] for own, (i, *_) in zip(places, batch, strict=True)])
        told = [(i, start, stop, len(own)) for own, (i, start, stop, _) in zip(places, batch, strict=True)]
        return read(logits.flatten(0, 1), rows, ids, told)


def places_predicted(logits: Tensor, rows: np.ndarray, batch: list[Window]) -> list[np.ndarray]:
    """What `read` is handed, as places: of each window, those in its sequence of the tokens that are predicted."""
    row, column = np.divmod(rows, len(logits) // len(batch))
    places = np.array([start for _, start, *_ in batch])[row] + column + 1
    return np.split(places, np.cumsum([n for *_, n in batch])[:-1])


def score(
    model: OpenModel,
    sequences: Sequence[np.ndarray],
    *,
    max_length: int | None,
    stride: int | None,
    batch_size: BatchSize,
    name_token: Callable[[int, int], str],
    on_scored: Callable[[int, TokenCode], None],
    progress: bool | str,
    later_context: int | None = None,
    scored: Sequence[np.ndarray] | None = None,
) -> Batches:
    """Code every token but the first of each sequence, given the ones before it, in the windows of `read_windows`.

    Args:
        model: opened.
        sequences: int64 ids, each at least 2 long.
        max_length: inputs a window holds at most.
        stride: new tokens of the second and later windows.
        batch_size: as for `read_windows`.
        name_token: (sequence, position in it) to words for an error message.
        on_scored: receives each sequence's number and its whole code, as soon as it is complete.
        progress: a bar on stderr, and its name.
        later_context: as for `read_windows`.
        scored: as for `read_windows`; codes are of these tokens.

    Returns:
        What the batches held.
    """

    def codes(logits: Tensor, rows: np.ndarray, ids: np.ndarray, batch: list[Window]) -> list[TokenCode]:
        code = code_tokens(logits, torch.from_numpy(rows), torch.from_numpy(ids))
        pieces = code.split([n for *_, n in batch])
        if not np.isfinite(code.ideal_bits).all():
            for (i, *_), piece, places in zip(batch, pieces, places_predicted(logits, rows, batch), strict=True):
                for j in np.flatnonzero(~np.isfinite(piece.ideal_bits))[:1]:
                    where = name_token(i, int(places[j]))
                    raise _impossible(model.record["name"], where, piece.ideal_bits[j], logits.element_size() < 4)
        return pieces

    return read_windows(
        model,
        sequences,
        max_length=max_length,
        stride=stride,
        batch_size=batch_size,
        read=codes,
        on_read=lambda i, parts: on_scored(i, TokenCode.concatenate(parts) if len(parts) > 1 else parts[0]),
        progress=progress,
        later_context=later_context,
        scored=scored,
    )


def _logits(model: OpenModel, ids: Tensor) -> Tensor:
    try:
        return model.logits(ids)
    except Exception as error:
        if _is_out_of_memory(error):
            raise
        raise ModelError(
            f"{model.record['name']} failed on a batch of {ids.shape[0]} x {ids.shape[1]} token ids: "
            f"{first_line(error).rstrip('.')}. If it takes fewer positions than that, pass max_length: longer texts "
            "are then measured in windows."
            + (" If it takes one sample at a time, pass batch_size=1." if ids.shape[0] > 1 else "")
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "can't allocate memory" in str(error)
        or "not enough memory" in str(error)
    )


def _too_large(model: OpenModel, rows: int, n_inputs: int) -> ModelError:
    gigabytes = rows * n_inputs * model.vocab_size * 4 / 1e9
    return ModelError(
        f"out of memory with {rows} x {n_inputs} tokens in a batch (their logits alone take {gigabytes:.1f} GB in "
        "float32). "
        + (
            'Pass batch_size="auto" or a smaller one.'
            if rows > 1
            else "Pass a smaller max_length: longer texts are then measured in windows."
        )
    )


def _too_long(n_inputs: int, most: int) -> InputError:
    return InputError(
        f"max_batch_tokens={most} is less than one window of {n_inputs} tokens, which a batch must hold. Pass "
        f"{n_inputs} or more, or a max_length of at most {most}: longer texts are then measured in windows."
    )


def _impossible(name: str, where: str, bits: float, half: bool) -> ImpossibleTokenError:
    if math.isnan(bits):
        return ImpossibleTokenError(
            f"the logits of {name} that predict {where} are NaN, +inf, or all -inf: no code length exists. "
            f"{remedy_of_nan(half)}"
        )
    return ImpossibleTokenError(
        f"{name} gives probability 0 to {where}: its code is infinitely long. A model that masks tokens with -inf "
        "cannot code them; leave the sample out."
    )
