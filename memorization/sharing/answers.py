"""What a worker of a cluster answers: what came of its work, the error that it raised, or why it cannot do it."""

import pickle
from collections.abc import Callable, Mapping
from typing import Any

import torch

from memorization.errors import ModelError

__all__ = ["Answer", "answer", "dumped"]

Answer = tuple[str, Any]


def answer(
    here: str,
    pickled: bytes,
    needed: Mapping[str, Any],
    own: Mapping[str, Any],
    n_threads: int,
    work: Callable[..., Any],
) -> Answer:
    """Do work that was sent.

    Args:
        here: the name of this machine, for messages.
        pickled: the arguments of `work`.
        needed: what the process that sent it has, and a worker must have too, or its numbers would be others.
        own: the same of this process.
        n_threads: of torch.
        work: does it.

    Returns:
        "done" and what came of it, pickled; "raised" and the exception, pickled; or "cannot" and why.
    """
    different = [name for name in needed if needed[name] != own[name]]
    if different:
        name = different[0]
        return "cannot", (
            f"on {here} {name} is {own[name]}, and {needed[name]} where the work was started: install there what is "
            "installed here."
        )
    try:
        arguments = pickle.loads(pickled)
    except ImportError as error:
        return "cannot", (
            f"on {here} what the work needs cannot be imported ({error}). Put it where workers find it, or name it "
            "in the runtime environment of `ray.init`."
        )
    torch.set_num_threads(n_threads)
    try:
        return "done", pickle.dumps(work(*arguments))
    except Exception as error:
        return "raised", dumped(error)


def dumped(error: Exception) -> bytes:
    """An exception as bytes; in words, where it is of a kind that cannot be sent."""
    try:
        found = pickle.dumps(error)
        pickle.loads(found)
    except Exception:
        return pickle.dumps(ModelError(f"{type(error).__name__}: {error}"))
    return found
