"""The engine "ray": stacks of cells as tasks of a Ray cluster (extra `ray`), which retries those whose worker dies.

This process decides what is run, claims it, and keeps what comes back, as the local engine does: the store may be a
folder that no worker sees, and a sweep that one engine began another goes on with.
"""

from collections.abc import Sequence

import torch

from memorization.lab.cells import Cell, OnSteps, Outcome, Work
from memorization.lab.engines.engine import Engine
from memorization.lab.engines.on_worker import requirements
from memorization.lab.options import check_positive
from memorization.sharing.on_ray import answers, at_once, join, pickled, ray_of, task_of
from memorization.sharing.shard import Shard

__all__ = ["RayEngine"]


class RayEngine(Engine):
    """Stacks of cells as tasks of a Ray cluster.

    Args:
        address: of the cluster, as `ray.init` takes it ("auto", "10.0.0.1:6379", "ray://host:10001"); None: the one
            that this process has joined, or that RAY_ADDRESS names, else the cores and GPUs of this machine.
        cpus_a_stack: cores of a task, and threads of its torch.
        gpus_a_stack: GPUs of a task where the device is one; 0.25 puts four on each.
        retries: how often a task is made again whose worker died.
        shard: the cells that are run, of all.

    Raises:
        InputError: the extra `ray` is not installed, or an option cannot be used.

    Guarantees:
        A stack of cells gives the same result as with the local engine to the last bit, on the same kind of machine
        and with as many threads.
    """

    name = "ray"

    def __init__(
        self,
        address: str | None = None,
        *,
        cpus_a_stack: int = 1,
        gpus_a_stack: float = 1.0,
        retries: int = 3,
        shard: Shard | None = None,
    ) -> None:
        super().__init__(shard=shard)
        self.address = address
        self.cpus_a_stack = int(check_positive("cpus_a_stack", cpus_a_stack))
        self.gpus_a_stack = check_positive("gpus_a_stack", gpus_a_stack)
        self.retries = int(check_positive("retries", retries, or_zero=True))
        ray_of()

    def at_once(self, device: torch.device) -> int:
        """As many stacks as the cluster has cores, or GPUs, for.

        Args:
            device: "cpu" or "cuda", without a number.

        Returns:
            The number of stacks.

        Raises:
            InputError: the cluster has no such device, or there is no cluster.
        """
        return at_once(join(self.address), device, self.cpus_a_stack, self.gpus_a_stack)

    def run(
        self, work: Work, cells: Sequence[Cell], device: torch.device, on_steps: OnSteps
    ) -> tuple[Sequence[Outcome], dict[str, str]]:
        """Train and measure one stack somewhere in the cluster, while this thread waits.

        Args:
            work: trains cells as one stack and measures each.
            cells: the stack.
            device: where it runs.
            on_steps: called with the number of steps when the stack is done, and with 0 meanwhile.

        Returns:
            What came of each cell, and the versions of the packages that made it.

        Raises:
            InputError: the builder cannot be sent, or the worker lacks this package or has another torch.
            ModelError: workers died more often than `retries`.
        """
        task = join(self.address).remote(task_of("memorization.lab.engines.on_worker"))
        sent = pickled(
            (work, list(cells)),
            [work],
            "the builder",
            "Make it a function or a small class at the top of a file, without open files, locks or generators in it.",
        )
        begun = task.options(
            num_cpus=self.cpus_a_stack,
            num_gpus=self.gpus_a_stack if device.type != "cpu" else 0,
            max_retries=self.retries,
            name=f"{cells[0].n_params:,} parameters, {cells[0].steps:,} steps",
        ).remote(sent, requirements(), self.cpus_a_stack)
        died = (
            f"a Ray worker died {self.retries + 1} times while it trained {len(cells)} models of "
            f"{cells[0].n_params:,} parameters. Often its memory was too small: give a stack more of the machine "
            "(cpus_a_stack, gpus_a_stack), or look into Ray's logs."
        )
        ((outcomes, there),) = answers([begun], lambda: on_steps(0), died=died)  # raises where another stack has failed
        on_steps(cells[0].steps)
        return outcomes, there
