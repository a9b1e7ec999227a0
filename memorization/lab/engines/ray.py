"""The engine "ray": stacks of cells as tasks of a Ray cluster (extra `ray`), which retries those whose worker dies.

This process decides what is run, claims it, and keeps what comes back, as the local engine does: the store may be a
folder that no worker sees, and a sweep that one engine began another goes on with.
"""

import functools
import pickle
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from memorization.errors import InputError, ModelError
from memorization.lab.cells import Cell, OnSteps, Outcome, Work
from memorization.lab.engines.engine import Engine, Shard
from memorization.lab.engines.on_worker import requirements
from memorization.lab.options import check_positive

__all__ = ["RayEngine"]

_sending = threading.Lock()  # what is sent whole is registered for the whole process
_LOOK_SECONDS = 1.0  # between looks whether another stack has failed, which ends this one


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
        self._task: Any = None
        self._joining = threading.Lock()
        _ray()

    def at_once(self, device: torch.device) -> int:
        """As many stacks as the cluster has cores, or GPUs, for.

        Args:
            device: "cpu" or "cuda", without a number.

        Returns:
            The number of stacks.

        Raises:
            InputError: the cluster has no such device, or there is no cluster.
        """
        if device.index is not None:
            raise InputError(f"on a cluster a device has no number, and {device} came: Ray chooses among its GPUs.")
        self._join()
        there = _ray().cluster_resources()
        kind, each = ("CPU", self.cpus_a_stack) if device.type == "cpu" else ("GPU", self.gpus_a_stack)
        if there.get(kind, 0) < min(each, 1):
            raise InputError(
                f"the Ray cluster has {there.get(kind, 0):g} {kind}s, and a run on {device} needs {each:g}: start "
                f"workers that have some, or pass another device."
            )
        return max(1, int(there[kind] / each))

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
        self._join()
        ray = _ray()
        task = self._task.options(
            num_cpus=self.cpus_a_stack,
            num_gpus=self.gpus_a_stack if device.type != "cpu" else 0,
            max_retries=self.retries,
            name=f"{cells[0].n_params:,} parameters, {cells[0].steps:,} steps",
        ).remote(_pickled(work, cells), requirements(), self.cpus_a_stack)
        try:
            while not ray.wait([task], timeout=_LOOK_SECONDS)[0]:
                on_steps(0)  # raises where another stack has failed
            answer, found = ray.get(task)
        except ray.exceptions.WorkerCrashedError as error:
            raise ModelError(
                f"a Ray worker died {self.retries + 1} times while it trained {len(cells)} models of "
                f"{cells[0].n_params:,} parameters. Often its memory was too small: give a stack more of the machine "
                "(cpus_a_stack, gpus_a_stack), or look into Ray's logs."
            ) from error
        except BaseException:
            ray.cancel(task, force=True)
            raise
        if answer == "cannot":
            raise InputError(f"a Ray worker cannot do this: {found}")
        if answer == "raised":
            raise pickle.loads(found)
        outcomes, there = pickle.loads(found)
        on_steps(cells[0].steps)
        return outcomes, there

    def _join(self) -> None:
        ray = _ray()
        with self._joining:
            if not ray.is_initialized():
                _init(self.address)
            if self._task is None:
                self._task = ray.remote(_task())


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise InputError('engine "ray" needs the extra: pip install "lm-memorization[ray]".') from error
    return ray


def _init(address: str | None) -> None:
    try:
        _ray().init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except Exception as error:  # of Ray's many kinds, some are plain Exception
        why = str(error).strip().splitlines()
        raise InputError(
            f"no Ray cluster answers at {address or 'the default address'} "
            f"({why[0] if why else type(error).__name__}). Start one with `ray start --head` and pass the "
            "address that it prints; without an address, Ray starts on this machine."
        ) from error


def _task() -> Callable[..., tuple[str, Any]]:
    """The task: a function within one, which Ray sends whole, so that it can say that the package is missing."""

    def do(pickled: bytes, needed: dict[str, Any], n_threads: int) -> tuple[str, Any]:
        import socket

        here = socket.gethostname()
        try:
            from memorization.lab.engines import on_worker
        except ImportError as error:
            return "cannot", f"on {here} this package cannot be imported ({error}). Install lm-memorization there."
        answer: tuple[str, Any] = on_worker.do(here, pickled, needed, n_threads)
        return answer

    return do


def _pickled(work: Work, cells: Sequence[Cell]) -> bytes:
    """The work and its cells, with the source of a builder that lies in a file of the user's."""
    from ray import cloudpickle

    try:
        with _sent_whole(_modules_of(work)):
            pickled: bytes = cloudpickle.dumps((work, list(cells)))
    except Exception as error:
        raise InputError(
            f"the builder cannot be sent to Ray's workers ({type(error).__name__}: {error}). Make it a function or a "
            "small class at the top of a file, without open files, locks or generators in it."
        ) from error
    return pickled


def _modules_of(work: Any) -> list[ModuleType]:
    """The modules of a call and its arguments that no worker is likely to have: files of nobody's package."""
    if isinstance(work, functools.partial):
        return [module for part in (work.func, *work.args, *work.keywords.values()) for module in _modules_of(part)]
    name = getattr(work, "__module__", None) or type(work).__module__
    module = sys.modules.get(name)
    path = getattr(module, "__file__", None)
    installed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sysconfig.get_path("stdlib")]
    own = name.split(".")[0] in ("memorization", "__main__")
    is_local = path is not None and not own and not any(path.startswith(each) for each in installed)
    return [module] if module is not None and is_local else []


@contextmanager
def _sent_whole(modules: Sequence[ModuleType]) -> Iterator[None]:
    from ray import cloudpickle

    with _sending:
        for module in set(modules):
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in set(modules):
                cloudpickle.unregister_pickle_by_value(module)
