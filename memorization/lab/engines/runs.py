"""Runs of cells by an engine: each is claimed, run, kept as soon as it is finished, and never run by two processes."""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from tqdm import tqdm

from memorization.errors import UnfinishedError
from memorization.lab.cells import Cell, Run, Work
from memorization.lab.engines.engine import Engine
from memorization.lab.engines.local import Stopped, side_by_side, stacks_of
from memorization.lab.store import Store
from memorization.progress import Bar, log, progress_bar

__all__ = ["each_share", "run_cells", "until_finished", "versions_of"]

# Between looks at what other processes have done: the first, and the longest.
_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.1, 5.0
# So long after others were last seen at work a shard takes them for absent. Enough for what lies between two parts.
GRACE_SECONDS = 30.0

Done = TypeVar("Done")


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
    engine: Engine | None = None,
) -> list[Run]:
    """The runs of these cells, in their order: read where the store has them, else trained, measured and kept.

    Where one fails, the others at work are stopped, what was finished is kept, and the first error is raised last. What
    another process is at work on is waited for. How cells are grouped into stacks is kept too, so that whoever goes on
    after an interruption trains the same stacks, with the same results to the last bit.

    Args:
        cells: of one number of steps and one batch size.
        work: trains cells as one stack and measures each. It runs in a thread, one to a core.
        store: keeps results.
        device: where `work` runs.
        logits_a_cell: numbers in the logits of a step of one cell, of which the size of a stack follows.
        name: of the bar.
        progress: a bar on stderr, and a line where some of the runs were found.
        alone: every cell is a stack of its own.
        engine: runs them; None: the threads of this process.

    Raises:
        UnfinishedError: the cells of this shard are done, and others are missing.
    """
    engine = engine or Engine()
    new = [cell for cell in cells if not store.holds(cell.record())]
    if progress and len(new) < len(cells) and store.is_news(f"{name} {len(cells)}"):
        tqdm.write(f"{name}: {len(cells) - len(new)} of {len(cells)} runs found", file=sys.stderr)
    own = engine.shard.of(cells)
    stacks = _stacks(own, store, device, logits_a_cell, alone, engine)
    with progress_bar(sum(map(_steps, stacks)), name, unit="step", shown=progress) as bar:
        bar.set_postfix_str(f"{max(map(len, stacks), default=0)} models at once", refresh=False)
        _Runs(work, store, device, engine, bar).finish(stacks)
    missing = sum(not store.holds(cell.record()) for cell in new) if engine.shard.n > 1 else 0
    if missing:
        shard = engine.shard
        raise UnfinishedError(
            f"{name}: shard {shard.index}/{shard.n} has all of its {len(own)} runs; {missing} of the other shards' are "
            "missing, and what comes next depends on them. Run the other shards on the same store and then this one "
            "again, or everything that is missing at once: the same call without a shard."
        )
    return [{**cell.record(), **(store.get(cell.record()) or {})} for cell in cells]


def _stacks(
    cells: Sequence[Cell], store: Store, device: torch.device, logits_a_cell: int, alone: bool, engine: Engine
) -> list[list[Cell]]:
    """The stacks of which a cell is missing."""
    new = [index for index, cell in enumerate(cells) if not store.holds(cell.record())]
    if not new:
        return []
    if alone:
        return [[cells[index]] for index in new]

    def decide() -> list[list[int]]:
        return stacks_of(new, logits_a_cell, device, engine.at_once(device))

    listed = json.dumps([cell.record() for cell in cells], sort_keys=True)
    kept = store.once(f"stacks/{hashlib.sha256(listed.encode()).hexdigest()[:32]}", decide)
    known = {index for stack in kept for index in stack}
    others = [index for index in new if index not in known]  # whose files were deleted since
    chosen = [stack for stack in kept if set(stack) & set(new)] + stacks_of(others, logits_a_cell, device)
    return [[cells[index] for index in stack] for stack in chosen]


@dataclass(frozen=True, slots=True)
class _Runs:
    """What it takes to run stacks."""

    work: Work
    store: Store
    device: torch.device
    engine: Engine
    bar: Bar

    def finish(self, stacks: list[list[Cell]]) -> None:
        """Run stacks, or wait until others have."""
        left, look = stacks, _LOOK_SECONDS
        most = self.engine.at_once(self.device) if left else 1
        while left:
            ran = self._run_what_is_free(left, most)
            by_others = [stack for stack in left if stack not in ran and not self._missing(stack)]
            self.bar.update(sum(map(_steps, by_others)))
            left = [stack for stack in left if stack not in ran and stack not in by_others]
            look = _LOOK_SECONDS if ran or by_others else min(2 * look, _LONGEST_LOOK_SECONDS)
            if left and not ran:
                self._say_who_is_waited_for(left)
                time.sleep(look)

    def _missing(self, stack: Sequence[Cell]) -> list[Cell]:
        return [cell for cell in stack if not self.store.holds(cell.record())]

    def _run_what_is_free(self, stacks: Sequence[list[Cell]], most: int) -> list[list[Cell]]:
        """Those that were run here; the first error is raised when what was at work has ended."""
        stopped = threading.Event()
        workers = min(most, len(stacks))

        def job(stack: list[Cell]) -> list[Exception] | None:
            names = [self.store.name(cell.record()) for cell in stack]
            with self.store.claims.hold(*names) as mine:
                if not (mine and self._missing(stack)):  # another may just have finished them
                    return None
                errors = self._run(stack, stopped, workers)
                if errors:
                    stopped.set()
                return errors

        ran, errors = list[list[Cell]](), list[Exception]()
        for stack, done, _ in side_by_side(stacks, job, most, stopped):
            if done is not None:
                ran.append(stack)
                errors += [done] if isinstance(done, Exception) else done
        if errors:
            raise errors[0]
        return ran

    def _run(self, stack: list[Cell], stopped: threading.Event, workers: int) -> list[Exception]:
        """Run one stack and keep what came of it."""

        def on_steps(n_steps: int) -> None:
            if stopped.is_set():
                raise Stopped
            self.bar.update(len(stack) * n_steps)

        begin = time.perf_counter()
        outcomes, versions = self.engine.run(self.work, stack, self.device, on_steps)
        facts = {"seconds": (time.perf_counter() - begin) / workers / len(stack), "versions": versions}
        errors = []
        for cell, outcome in zip(stack, outcomes, strict=True):
            if isinstance(outcome, Exception):
                errors.append(outcome)
            elif not self.store.holds(cell.record()):
                self.store.put(cell.record(), {**outcome, **facts})
        return errors

    def _say_who_is_waited_for(self, stacks: Sequence[list[Cell]]) -> None:
        missing = [cell for stack in stacks for cell in self._missing(stack)]
        who = {self.store.claims.holder(self.store.name(cell.record())) for cell in missing} - {None}
        if who:
            said = f"waits for {len(missing)} runs of {'; '.join(sorted(map(str, who)))}"
            self.bar.set_postfix_str(said)
            log.info("%s", said)


def _steps(stack: Sequence[Cell]) -> int:
    return sum(cell.steps for cell in stack)


def each_share(jobs: Iterable[Callable[[], Done]]) -> list[Done]:
    """What independent jobs return: a shard does its share of all of them before it says that one is unfinished.

    Raises:
        UnfinishedError: of the first job that raised it.
    """
    done, unfinished = [], None
    for job in jobs:
        try:
            done.append(job())
        except UnfinishedError as error:
            unfinished = unfinished or error
    if unfinished is not None:
        raise unfinished
    return done


def until_finished(run: Callable[[], Done], store: Store) -> Done:
    """What `run` returns, as soon as the other shards have done what it needs; it goes on where it was.

    Raises:
        UnfinishedError: nobody else has been at work on the store for half a minute.
    """
    last_seen, n_kept, look = time.monotonic(), -1, _LOOK_SECONDS
    while True:
        try:
            return run()
        except UnfinishedError:
            kept = store.n_cells()
            if kept != n_kept or store.claims.others():
                last_seen = time.monotonic()
            if time.monotonic() - last_seen > GRACE_SECONDS:
                raise
            look = _LOOK_SECONDS if kept != n_kept else min(2 * look, _LONGEST_LOOK_SECONDS)
            n_kept = kept
            time.sleep(look)


def versions_of(runs: Sequence[Run]) -> dict[str, str]:
    """Versions of each package that the runs of a store were made with; several where they differ."""
    names = list(dict.fromkeys(name for run in runs for name in run["versions"]))
    return {name: ", ".join(sorted({run["versions"].get(name, "unknown") for run in runs})) for name in names}
