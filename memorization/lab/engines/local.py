"""Jobs side by side in threads of this process, and cells grouped into stacks, each of which is a job."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

from memorization.lab.engines.engine import n_workers

__all__ = ["Stopped", "n_workers", "side_by_side", "stacks_of"]

# Logits of a whole stack, in numbers: beyond this a CPU waits for its memory, and a GPU has none left.
_STACK_LOGITS = {"cpu": 2**21, "cuda": 2**28}

Job = TypeVar("Job")
Done = TypeVar("Done")


class Stopped(Exception):
    """Ends a training because another one failed, or the user interrupted."""


def stacks_of(
    cells: Sequence[Job], logits_a_cell: int, device: torch.device, at_once: int | None = None
) -> list[list[Job]]:
    """Cells grouped into stacks: no more than fit on the device, and where there are many, a stack for each worker."""
    most = max(1, _STACK_LOGITS.get(device.type, _STACK_LOGITS["cuda"]) // logits_a_cell)
    n_stacks = max(-(-len(cells) // most), min(at_once or n_workers(device), len(cells) // 2))
    return [list(cells[begin::n_stacks]) for begin in range(n_stacks)]


def side_by_side(
    jobs: Sequence[Job], work: Callable[[Job], Done], most: int, stopped: threading.Event | None = None
) -> Iterator[tuple[Job, Done | Exception, float]]:
    """Each job as it finishes: its outcome or error, and its wall seconds divided by the number of workers.

    A thread a job, and none within its operations: these are short, and threads that wait for each other at the end of
    each one come to a standstill when anything else runs on the machine (a quarter of the speed of one thread was
    seen).

    Args:
        jobs: whatever `work` is called with.
        work: does a job.
        most: jobs at once.
        stopped: once it is set no job begins, and what raises `Stopped` is left out. The first error sets it.
    """
    if not jobs:
        return
    stop = stopped or threading.Event()
    n_threads, workers = torch.get_num_threads(), min(most, len(jobs))

    def timed(job: Job) -> tuple[Job, Done | Exception, float]:
        if stop.is_set():
            raise Stopped
        begin = time.perf_counter()
        done: Done | Exception
        try:
            done = work(job)
        except Stopped:
            raise
        except Exception as error:
            stop.set()
            done = error
        return job, done, (time.perf_counter() - begin) / workers

    torch.set_num_threads(max(1, n_threads // workers))
    try:
        with ThreadPoolExecutor(workers) as pool:
            try:
                for future in as_completed([pool.submit(timed, job) for job in jobs]):
                    if not isinstance(future.exception(), Stopped):
                        yield future.result()
            finally:
                stop.set()  # ends what is still at work where the user interrupted
    finally:
        torch.set_num_threads(n_threads)
