"""Settings of the process that would move the numbers, put aside while a model is open."""

import contextlib
import logging
from collections.abc import Iterator

import torch

_KINDS = ("cpu", "cuda", "mps", "xpu", "hpu")  # of devices that torch.autocast knows
# The ids of a batch are padded on the right with a token that may be the model's padding token. A causal model cannot
# see them.
_NO_MASK = "We strongly recommend passing in an `attention_mask`"


def default_device() -> torch.device:
    """Where torch puts a new tensor if nobody says so."""
    return torch.empty(0).device


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """No autocast, no inference mode; float32 and the CPU as defaults. All of it comes back afterwards.

    Only what differs is touched: the default dtype is of the whole process, and other threads may be at work.
    """
    log = logging.getLogger("transformers.modeling_utils")
    with contextlib.ExitStack() as stack:
        if torch.is_inference_mode_enabled():  # a module moved in it could never be trained again
            stack.enter_context(torch.inference_mode(False))
        for kind in _KINDS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        before = torch.get_default_dtype()
        if before != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, before)
        if _is_news not in log.filters:
            log.addFilter(_is_news)
            stack.callback(log.removeFilter, _is_news)
        yield


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_NO_MASK)
