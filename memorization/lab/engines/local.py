"""Trainings that run at once on the cores of this machine, handed over as each is finished."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["counted", "n_workers", "side_by_side", "stacks_of"]

# Logits of a whole stack, in numbers: beyond this a CPU waits for its memory, and a GPU has none left.
_STACK_LOGITS = {"cpu": 2**21, "cuda": 2**28}

Job = TypeVar("Job")
Done = TypeVar("Done")


def n_workers(device: torch.device) -> int:
    """How many trainings can run at once: one a thread of torch's on a CPU, one on a GPU."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def stacks_of(cells: Sequence[Job], logits_a_cell: int, device: torch.device) -> list[list[Job]]:
    """Cells that are trained at once: no more than the device has room for, and a stack for each worker where they are many."""
    most = max(1, _STACK_LOGITS.get(device.type, _STACK_LOGITS["cuda"]) // logits_a_cell)
    n_stacks = max(-(-len(cells) // most), min(n_workers(device), len(cells) // 2))
    return [list(cells[begin::n_stacks]) for begin in range(n_stacks)]


def side_by_side(
    jobs: Sequence[Job],
    work: Callable[[Job, Callable[[], None]], Done],
    most: int,
) -> Iterator[tuple[Job, Done, float]]:
    """Jobs as they are finished, what came of each, and the seconds each took of the time there is.

    A thread a job, and none within its operations: these are short, and threads that wait for each other at the end of each one come to a
    standstill when anything else runs on the machine (a quarter of the speed of one thread was seen).

    Args:
        jobs: whatever `work` is called with.
        work: does a job; its second argument is to be called now and then, and raises where another job failed or the user interrupted.
        most: jobs at once.
    """
    if not jobs:
        return
    n_threads, workers = torch.get_num_threads(), min(most, len(jobs))
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise RuntimeError("another training failed, or the user interrupted")

    def timed(job: Job) -> tuple[Job, Done, float]:
        begin = time.perf_counter()
        done = work(job, check)
        return job, done, (time.perf_counter() - begin) / workers

    torch.set_num_threads(max(1, n_threads // workers))
    try:
        with ThreadPoolExecutor(workers) as pool:
            try:
                for finished in as_completed([pool.submit(timed, job) for job in jobs]):
                    yield finished.result()
            except BaseException:
                stopped.set()
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(n_threads)


def counted(bar: "tqdm[Any]", check: Callable[[], None], n_models: int = 1) -> Callable[[int], None]:
    """What a training calls with the steps it has done: they show in the bar, and it ends where `check` says so."""

    def advance(n_steps: int) -> None:
        check()
        bar.update(n_models * n_steps)

    return advance
