"""The oracle, measured once, and each checkpoint measured as the first one was."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from memorization.errors import InputError
from memorization.measure.base_of_target import with_base_of_target
from memorization.measure.batches import BatchSize
from memorization.measure.code_lengths import CodeLengths, measure, tokenize
from memorization.measure.context import FirstToken
from memorization.measure.opening import OpenModel, open_model
from memorization.measure.pair import Pair, check_measured, measure_pair
from memorization.results import load
from memorization.results.kinds import SETTINGS
from memorization.samples import Samples
from memorization.unintended import Memorization

__all__ = ["first_pairs", "oracle_given", "pairs_like"]


def oracle_given(oracle: Any, *, has_control: bool) -> list[CodeLengths] | None:
    """The code lengths that an oracle came as: of the samples, and of the control; None where it is a model.

    Args:
        oracle: a model; `CodeLengths` of the samples, or a pair of samples' and control's; a `Memorization`, whose
            oracle is taken; or a folder that one of these was saved in.
        has_control: whether there is a control, whose lengths are then needed.

    Raises:
        InputError: those of the control are missing, or it is a result of another kind.
    """
    if isinstance(oracle, (str, os.PathLike)) and (Path(oracle) / SETTINGS).is_file() and _is_result(Path(oracle)):
        oracle = load(oracle)
        if not isinstance(oracle, (CodeLengths, Memorization)):
            raise InputError(
                f"oracle names a saved {type(oracle).__name__}: expected is a model, saved CodeLengths, or a saved "
                "Memorization, whose oracle is taken."
            )
    given: list[CodeLengths]
    if isinstance(oracle, Memorization):
        given = [oracle.oracle] + ([] if oracle.control is None else [oracle.control.oracle])
    elif isinstance(oracle, CodeLengths):
        given = [oracle]
    elif isinstance(oracle, (list, tuple)):
        if not oracle or len(oracle) > 2 or not all(isinstance(one, CodeLengths) for one in oracle):
            raise InputError(
                f"oracle must be one model, or CodeLengths of samples and of control; a list of {len(oracle)} came."
            )
        given = list(oracle)
    else:
        return None
    if has_control and len(given) == 1:
        raise InputError(
            "oracle came as the code lengths of the samples alone, and there is a control: pass the pair (CodeLengths "
            "of the samples, CodeLengths of the control), a saved Memorization that has both, or the model."
        )
    return given[: 1 + has_control]


def _is_result(folder: Path) -> bool:
    try:
        return "kind" in json.loads((folder / SETTINGS).read_bytes())
    except (OSError, ValueError, TypeError):
        return False


@with_base_of_target
def first_pairs(
    target: Any,
    oracle: Any,
    sets: Sequence[Samples],
    *,
    target_tokenizer: Any = None,
    oracle_tokenizer: Any = None,
    oracle_revision: str | None = None,
    first_token: str | int = "auto",
    max_length: int | None = None,
    stride: int | None = None,
    batch_size: BatchSize,
    device: Any = None,
    dtype: Any = None,
    trust_remote_code: bool = False,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    allow_pickle: bool = False,
    given: Sequence[CodeLengths] | None = None,
) -> list[Pair]:
    """Code lengths of samples and control under a first checkpoint and the oracle, which may be `given` already."""
    of_control: list[CodeLengths] = []

    def control_too(opened: OpenModel, lengths: list[CodeLengths]) -> None:
        """The control is read as the samples are."""
        part = sets[1].as_measured(given[1].settings["samples"]) if given else sets[1]
        read = tokenize(part, opened.tokenizer, on_lossy_text=on_lossy_text)
        of_control[:] = [_measured_like(opened, read, lengths[0], batch_size, progress and "control")]

    pairs = measure_pair(
        target,
        given[0] if given else oracle,
        sets[:1] if given else sets,
        tokenizers=(target_tokenizer, oracle_tokenizer),
        revisions=(None, oracle_revision),
        first_token=first_token,
        max_length=max_length,
        stride=stride,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        on_lossy_text=on_lossy_text,
        progress=progress,
        allow_pickle=allow_pickle,
        with_target=control_too if given and len(sets) > 1 else None,
    )
    if of_control and given:
        check_measured(given[1].settings["samples"], sets[1], "the oracle's CodeLengths of the control are")
        pairs.append((of_control[0], given[1]))
    return pairs


def pairs_like(
    target: Any,
    sets: Sequence[Samples],
    like: Sequence[Pair],
    *,
    batch_size: BatchSize,
    progress: bool | str = True,
    **how: Any,
) -> list[Pair]:
    """Code lengths under another checkpoint, read as the first one was, beside those of the same oracle.

    Args:
        target: the checkpoint.
        sets: samples, and perhaps control.
        like: the pairs of a checkpoint that is measured.
        batch_size: samples a forward pass.
        progress: name of the bar.
        how: as `open_model` takes it.

    Raises:
        InputError: this checkpoint's tokenizer makes other tokens.
    """
    pairs: list[Pair] = []
    with open_model(target, progress=bool(progress), **how) as opened:
        for k, (part, (first, oracle)) in enumerate(zip(sets, like, strict=True)):
            record = first.settings["samples"]
            read = tokenize(part.as_measured(record), opened.tokenizer, on_lossy_text="raise")
            if read.ids_sha256 != record["ids_sha256"]:
                raise InputError(
                    f"the tokenizer of {opened.record['name']} makes other tokens of the samples than that of "
                    f"{first.settings['model']['name']}, so the two are no checkpoints of one run, and bits a token do "
                    "not compare. Track them apart, or pass target_tokenizer."
                )
            bar = f"control, {progress}" if k and isinstance(progress, str) else progress
            pairs.append((_measured_like(opened, read, first, batch_size, bar), oracle))
    return pairs


def _measured_like(
    opened: OpenModel, read: Samples, like: CodeLengths, batch_size: BatchSize, progress: bool | str
) -> CodeLengths:
    """Samples measured with the first-token rule and the windows of another measurement."""
    rule = FirstToken.from_record(like.settings["first_token"])
    return measure(
        opened,
        read,
        rule,
        uniform_vocab_size=like.settings["uniform_vocab_size"] if rule.charge == "uniform" else None,
        max_length=like.settings["max_length"],
        stride=like.settings["stride"],
        batch_size=batch_size,
        progress=progress,
    )
