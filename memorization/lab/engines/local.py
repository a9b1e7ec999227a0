"""Runs of cells on the cores of this machine, several stacks at once, each kept as soon as it is finished."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch
from tqdm import tqdm

from memorization.lab.cells import Cell, Outcome, Run, Work
from memorization.lab.store import Store
from memorization.progress import progress_bar
from memorization.results import versions

__all__ = ["n_workers", "run_cells", "side_by_side", "stacks_of", "versions_of"]

# Logits of a whole stack, in numbers: beyond this a CPU waits for its memory, and a GPU has none left.
_STACK_LOGITS = {"cpu": 2**21, "cuda": 2**28}

Job = TypeVar("Job")
Done = TypeVar("Done")


class Stopped(Exception):
    """Ends a training because another one failed, or the user interrupted."""


def run_cells(
    cells: Sequence[Cell],
    work: Work,
    store: Store,
    *,
    device: torch.device,
    logits_a_cell: int,
    name: str,
    progress: bool,
    alone: bool = False,
) -> list[Run]:
    """The runs of these cells, in their order: read where the store has them, else trained, measured and kept.

    Where one fails, the others at work are stopped, what was finished is kept, and the first error is raised last.

    Args:
        cells: of one number of steps and one batch size.
        work: trains cells as one stack and measures each. It runs in a thread, one to a core.
        store: keeps results.
        device: where `work` runs.
        logits_a_cell: numbers in the logits of a step of one cell, of which the size of a stack follows.
        name: of the bar.
        progress: a bar on stderr, and a line where some of the runs were found.
        alone: every cell is a stack of its own.
    """
    new = [cell for cell in cells if store.get(cell.record()) is None]
    if progress and len(new) < len(cells):
        tqdm.write(f"{name}: {len(cells) - len(new)} of {len(cells)} runs found", file=sys.stderr)
    stacks = [[cell] for cell in new] if alone else stacks_of(new, logits_a_cell, device)
    errors: list[Exception] = []
    stopped = threading.Event()
    with progress_bar(sum(cell.steps for cell in new), name, unit="step", shown=progress) as bar:
        bar.set_postfix_str(f"{max(map(len, stacks), default=0)} models at once", refresh=False)

        def job(stack: Sequence[Cell]) -> Sequence[Outcome]:
            def on_steps(n_steps: int) -> None:
                if stopped.is_set():
                    raise Stopped
                bar.update(len(stack) * n_steps)

            return work(stack, on_steps)

        for stack, outcomes, seconds in side_by_side(stacks, job, n_workers(device), stopped):
            each = [outcomes] * len(stack) if isinstance(outcomes, Exception) else outcomes
            for cell, outcome in zip(stack, each, strict=True):
                if isinstance(outcome, Exception):
                    errors.append(outcome)
                    stopped.set()
                else:
                    facts = {"seconds": seconds / len(stack), "versions": versions()}
                    store.put(cell.record(), {**outcome, **facts})
    if errors:
        raise errors[0]
    return [{**cell.record(), **(store.get(cell.record()) or {})} for cell in cells]


def versions_of(runs: Sequence[Run]) -> dict[str, str]:
    """Versions of each package that the runs of a store were made with; several where they differ."""
    names = list(dict.fromkeys(name for run in runs for name in run["versions"]))
    return {name: ", ".join(sorted({run["versions"].get(name, "unknown") for run in runs})) for name in names}


def n_workers(device: torch.device) -> int:
    """How many stacks can run at once: one a thread of torch's on a CPU, one on a GPU."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def stacks_of(cells: Sequence[Job], logits_a_cell: int, device: torch.device) -> list[list[Job]]:
    """Cells grouped into stacks: no more than fit on the device, and where there are many, a stack for each worker."""
    most = max(1, _STACK_LOGITS.get(device.type, _STACK_LOGITS["cuda"]) // logits_a_cell)
    n_stacks = max(-(-len(cells) // most), min(n_workers(device), len(cells) // 2))
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
