"""What a worker of a cluster does: unpack a stack of cells, run it, and send back what came of it."""

import pickle
from importlib.util import find_spec
from typing import Any

import torch

from memorization.lab.stack import RECIPE
from memorization.results import versions
from memorization.sharing.answers import Answer, answer, dumped

__all__ = ["do", "requirements"]


def requirements() -> dict[str, Any]:
    """What this process has, and a worker must have too, or its numbers would be others."""
    release = ".".join(torch.__version__.split("+")[0].split(".")[:2])
    return {"torch": release, "recipe of training": RECIPE, "numba": find_spec("numba") is not None}


def do(here: str, pickled: bytes, needed: dict[str, Any], n_threads: int) -> Answer:
    """Run a stack.

    Args:
        here: the name of this machine, for messages.
        pickled: the work, and its cells.
        needed: `requirements` of the process that sent it.
        n_threads: of torch.

    Returns:
        As of `answer`: the outcomes, with the versions of packages.
    """
    return answer(here, pickled, needed, requirements(), n_threads, _outcomes)


def _outcomes(work: Any, cells: Any) -> tuple[list[Any], dict[str, str]]:
    found = work(cells, lambda n_steps: None)
    return [pickle.loads(dumped(each)) if isinstance(each, Exception) else each for each in found], versions()
