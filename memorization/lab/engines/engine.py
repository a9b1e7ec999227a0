"""Engines: how a stack of cells is run, how many at once, and which share of them is this process's."""

from collections.abc import Sequence

import torch

from memorization.lab.cells import Cell, OnSteps, Outcome, Work
from memorization.results import versions
from memorization.sharing.shard import Shard

__all__ = ["Engine", "n_workers"]


class Engine:
    """Cells on the cores of this machine, or on its GPU: the engine "local", of which others are variants.

    Attributes:
        name: what the engine is called.
        shard: the cells that are run here; of all others only results are read.
    """

    name = "local"

    def __init__(self, *, shard: Shard | None = None) -> None:
        self.shard = shard or Shard()

    def at_once(self, device: torch.device) -> int:
        """How many stacks run side by side on a device."""
        return n_workers(device)

    def run(
        self, work: Work, cells: Sequence[Cell], device: torch.device, on_steps: OnSteps
    ) -> tuple[Sequence[Outcome], dict[str, str]]:
        """Train and measure one stack, in a thread of this process's.

        Args:
            work: trains cells as one stack and measures each.
            cells: the stack.
            device: where it runs.
            on_steps: called with the number of steps that each cell has gone on by; raises where the run must end.

        Returns:
            What came of each cell, and the versions of the packages that made it.
        """
        return work(cells, on_steps), versions()


def n_workers(device: torch.device) -> int:
    """How many stacks can run at once here: one a thread of torch's on a CPU, one on a GPU."""
    return torch.get_num_threads() if device.type == "cpu" else 1
