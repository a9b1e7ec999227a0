"""What a worker of a cluster does: unpack a stack of cells, run it, and send back what came of it."""

import pickle
from importlib.util import find_spec
from typing import Any

import torch

from memorization.errors import ModelError
from memorization.lab.stack import RECIPE
from memorization.results import versions

__all__ = ["do", "requirements"]


def requirements() -> dict[str, Any]:
    """What this process has, and a worker must have too, or its numbers would be others."""
    release = ".".join(torch.__version__.split("+")[0].split(".")[:2])
    return {"torch": release, "recipe of training": RECIPE, "numba": find_spec("numba") is not None}


def do(here: str, pickled: bytes, needed: dict[str, Any], n_threads: int) -> tuple[str, Any]:
    """Run a stack.

    Args:
        here: the name of this machine, for messages.
        pickled: the work, and its cells.
        needed: `requirements` of the process that sent it.
        n_threads: of torch.

    Returns:
        "done" and the outcomes with the versions of packages, pickled; "raised" and the exception, pickled; or "cannot"
        and why.
    """
    own = requirements()
    different = [name for name in needed if needed[name] != own[name]]
    if different:
        name = different[0]
        return "cannot", (
            f"on {here} {name} is {own[name]}, and {needed[name]} where the sweep was started: install there what is "
            "installed here."
        )
    try:
        work, cells = pickle.loads(pickled)
    except ImportError as error:
        return "cannot", (
            f"on {here} what the builder needs cannot be imported ({error}). Put it where workers find it, or name it "
            "in the runtime environment of `ray.init`."
        )
    torch.set_num_threads(n_threads)
    try:
        outcomes = work(cells, lambda n_steps: None)
    except Exception as error:
        return "raised", _dumped(error)
    outcomes = [pickle.loads(_dumped(each)) if isinstance(each, Exception) else each for each in outcomes]
    return "done", pickle.dumps((outcomes, versions()))


def _dumped(error: Exception) -> bytes:
    """An exception as bytes; in words, where it is of a kind that cannot be sent."""
    try:
        dumped = pickle.dumps(error)
        pickle.loads(dumped)
    except Exception:
        return pickle.dumps(ModelError(f"{type(error).__name__}: {error}"))
    return dumped
