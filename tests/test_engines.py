"""Runs of cells: what was finished is kept whatever happens to the others, nothing is run twice, and warnings stay warnings."""

import os
import re
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import nn

from memorization import capacity_bits_per_param
from memorization.errors import UnfinishedError
from memorization.lab import cells as lab_cells
from memorization.lab.capacity import runs as capacity_runs
from memorization.lab.cells import Cell, measure_each, stackable
from memorization.lab.engines import runs
from memorization.lab.engines.engine import Engine
from memorization.lab.engines.local import n_workers, side_by_side, stacks_of
from memorization.lab.engines.runs import each_share, run_cells, until_finished, versions_of
from memorization.lab.store import Store
from memorization.lab.vmapped import can_stack
from memorization.sharing.shard import Shard

CPU = torch.device("cpu")


def cell(seed: int) -> Cell:
    return Cell("a model", 10, 100, seed, 0.1, steps=100, batch_size=4)


CELLS = [cell(seed) for seed in range(6)]


def ran(work, store=None, cells=CELLS, **options):
    options = {"device": CPU, "logits_a_cell": 1, "name": "here", "progress": False, **options}
    return run_cells(cells, work, store or Store(None, {}), **options)


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def seeds_of(stack, on_steps):
    for _ in range(2):
        on_steps(50)
    return [{"bits": float(each.seed)} for each in stack]


def test_runs_come_in_the_order_of_their_cells_and_are_kept(tmp_path):
    store = Store(tmp_path, {})
    runs = ran(seeds_of, store)
    assert [run["bits"] for run in runs] == [0, 1, 2, 3, 4, 5]
    assert [Cell(**{name: run[name] for name in cell(0).record()}) for run in runs] == CELLS
    assert all(run["seconds"] >= 0 and run["versions"]["torch"] == torch.__version__ for run in runs)
    assert ran(lambda *_: pytest.fail("run again"), store) == runs


@pytest.mark.parametrize(
    ("n_found", "said"), [(0, ""), (4, "here: 4 of 6 runs found\n"), (6, "here: 6 of 6 runs found\n")]
)
def test_what_was_found_is_said(n_found, said, capsys):
    store = Store(None, {})
    ran(seeds_of, store, CELLS[:n_found])
    capsys.readouterr()
    ran(seeds_of, store, progress=True)
    assert "".join(line for line in capsys.readouterr().err.splitlines(keepends=True) if "found" in line) == said
    ran(seeds_of, store)
    assert not capsys.readouterr().err


def test_a_measurement_that_fails_takes_no_other_with_it(two_threads):
    """One model of a stack of three fails; those beside it are kept, and a stack that ends a little later, too."""
    store = Store(None, {})
    both = threading.Barrier(2)

    def measure(each: Cell):
        if each.seed == 2:
            raise ZeroDivisionError("broken")
        return {"bits": float(each.seed)}

    def work(stack, on_steps):
        both.wait(60)
        if cell(1) in stack:
            time.sleep(0.3)  # the other stack has failed by now
        return measure_each(measure, stack)

    with pytest.raises(ZeroDivisionError, match="broken"):
        ran(work, store)
    assert [store.get(each.record()) is not None for each in CELLS] == [True, True, False, True, True, True]


def test_a_failure_stops_what_is_at_work_and_what_has_not_begun(two_threads):
    begun, steps_done = [], []

    def work(stack, on_steps):
        begun.append(stack[0].seed)
        if stack[0].seed == 0:
            raise ZeroDivisionError("broken")
        for _ in range(100_000):
            on_steps(50)
            steps_done.append(50)
            time.sleep(0.001)
        return [{"bits": 0.0}]

    with pytest.raises(ZeroDivisionError, match="broken"):
        ran(work, alone=True)
    assert len(begun) <= 3
    assert len(steps_done) < 50_000
    assert torch.get_num_threads() == 2


def test_the_first_error_is_raised(two_threads):
    def work(stack, on_steps):
        time.sleep(0.2 * stack[0].seed)
        raise ValueError(str(stack[0].seed))

    with pytest.raises(ValueError, match=r"^0$"):
        ran(work, alone=True, cells=CELLS[:2])


def test_an_interrupt_goes_through(two_threads):
    def work(stack, on_steps):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(work)
    assert torch.get_num_threads() == 2


def test_jobs_and_stacks_fill_the_workers(two_threads):
    assert n_workers(CPU) == 2
    assert list(side_by_side([], print, 2)) == []
    assert sorted(done for _, done, _ in side_by_side([1, 2, 3], lambda job: 10 * job, 2)) == [10, 20, 30]
    assert stacks_of([1, 2, 3, 4, 5], 1, CPU) == [[1, 3, 5], [2, 4]]
    assert stacks_of([1, 2, 3], 2**21, CPU) == [[1], [2], [3]]
    assert stacks_of([], 1, CPU) == []


# --- several processes


def of_shard(text: str) -> Engine:
    return Engine(shard=Shard.parse(text))


def test_shards_share_out_all_cells():
    assert [Shard.parse(f"{k}/4").of(CELLS) for k in (1, 2, 3, 4)] == [CELLS[0::4], CELLS[1::4], [CELLS[2]], [CELLS[3]]]
    assert Shard.parse(None).of(CELLS) == CELLS


def test_a_shard_runs_its_share_and_says_what_is_missing(tmp_path):
    store = Store(tmp_path, {})
    with pytest.raises(
        UnfinishedError, match=r"here: shard 2/3 has all of its 2 runs; 4 of the other shards' are missing.* without a"
    ):
        ran(seeds_of, store, engine=of_shard("2/3"))
    assert [store.holds(each.record()) for each in CELLS] == [False, True, False, False, True, False]
    with pytest.raises(UnfinishedError, match="has all of its 2 runs; 4 of"):
        ran(lambda *_: pytest.fail("run again"), store, engine=of_shard("2/3"))
    with pytest.raises(UnfinishedError, match="has all of its 2 runs; 2 of"):
        ran(seeds_of, store, engine=of_shard("1/3"))
    assert [run["bits"] for run in ran(seeds_of, store, engine=of_shard("3/3"))] == [0, 1, 2, 3, 4, 5]


def test_independent_shares_are_all_done_before_one_is_missed():
    done = []

    def job(number, missing):
        done.append(number)
        if missing:
            raise UnfinishedError(str(number))
        return number

    assert each_share([partial(job, 1, False), partial(job, 2, False)]) == [1, 2]
    with pytest.raises(UnfinishedError, match=r"^3$"):
        each_share([partial(job, number, number in (3, 5)) for number in (3, 4, 5, 6)])
    assert done == [1, 2, 3, 4, 5, 6]


def test_shards_that_run_together_wait_for_each_other(tmp_path):
    """Each trains its own cells, and both get everything, in two parts of which the second needs the first."""
    trained = {"1/2": [], "2/2": []}

    def both_parts(shard):
        store, engine = Store(tmp_path, {}), of_shard(shard)

        def work(stack, on_steps):
            trained[shard] += [each.seed for each in stack]
            time.sleep(0.05)
            return seeds_of(stack, on_steps)

        def run():
            first = ran(work, store, engine=engine, cells=CELLS[:3])
            more = [cell(100 + int(sum(each["bits"] for each in first))), cell(200)]
            return first + ran(work, store, engine=engine, cells=more)

        return until_finished(run, store)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(both_parts, trained)
    assert first == second
    assert [run["bits"] for run in first] == [0, 1, 2, 103, 200]
    assert trained == {"1/2": [0, 2, 103], "2/2": [1, 200]}


def test_a_shard_whose_partners_are_absent_gives_up(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "GRACE_SECONDS", 0.3)
    store, tries = Store(tmp_path, {}), []

    def run():
        tries.append(time.monotonic())
        return ran(seeds_of, store, engine=of_shard("1/2"))

    with pytest.raises(UnfinishedError, match="shard 1/2 has all of its 3 runs; 3 of"):
        until_finished(run, store)
    assert tries[-1] - tries[0] > 0.3
    assert len(tries) > 2


def test_what_another_process_has_claimed_is_waited_for(tmp_path):
    """Its claim goes stale, as that of a machine that was switched off does, or its result comes: here one each."""
    ours, theirs = Store(tmp_path, {}), Store(tmp_path, {})
    theirs.put(CELLS[0].record(), {"bits": 7.0, "seconds": 0.0, "versions": {}})
    held = threading.Event()

    def other():
        with theirs.claims.hold(theirs.name(CELLS[1].record())) as mine:
            assert mine
            held.set()
            time.sleep(0.5)
            theirs.put(CELLS[1].record(), {"bits": 8.0, "seconds": 0.0, "versions": {}})

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(30)
    trained = []

    def work(stack, on_steps):
        trained.extend(each.seed for each in stack)
        return seeds_of(stack, on_steps)

    assert [run["bits"] for run in ran(work, ours, alone=True)] == [7, 8, 2, 3, 4, 5]
    thread.join()
    assert trained == [2, 3, 4, 5]
    assert not list((tmp_path / "claims").iterdir())


def test_who_is_waited_for_is_said(tmp_path, capsys):
    ours, theirs = Store(tmp_path, {}), Store(tmp_path, {})
    with theirs.claims.hold(*(theirs.name(each.record()) for each in CELLS)):
        thread = threading.Thread(target=ran, args=(seeds_of, ours), kwargs={"progress": True})
        thread.start()
        time.sleep(1.5)
    thread.join()
    assert re.search(rf"waits for 6 runs of .*, process {os.getpid()}", capsys.readouterr().err)


def test_stacks_stay_what_they_were(tmp_path, two_threads):
    """Whoever goes on trains the stacks that were begun, whatever his threads: a stack's numbers depend on it."""
    stacks = []

    def work(stack, on_steps):
        stacks.append([each.seed for each in stack])
        return seeds_of(stack, on_steps)

    store = Store(tmp_path, {})
    ran(work, store)
    assert sorted(stacks) == [[0, 2, 4], [1, 3, 5]]
    for seed in (2, 3, 4, 5):
        (tmp_path / "cells" / f"{store.name(CELLS[seed].record())}.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    stacks.clear()
    torch.set_num_threads(1)
    ran(work, Store(tmp_path, {}))
    assert sorted(stacks) == [[0, 2, 4], [1, 3, 5]]
    assert {path: path.stat().st_mtime_ns for path in before} == before  # what was there was not written again
    stacks.clear()
    ran(work, store, cells=[*CELLS, cell(6), cell(7)])
    assert stacks == [[6, 7]]


TOGETHER = """
import sys, time, warnings
import torch
torch.set_num_threads(1)
warnings.simplefilter("ignore")
from memorization import capacity_bits_per_param
from memorization.lab import cells
from memorization.lab.architectures import Architecture
for name in ("train_stack", "train_compiled"):
    def counted(*arguments, train=getattr(cells, name), **options):
        for seed in options.get("seeds") or [options["seed"]]:
            print("trained", options["steps"], seed, len(arguments[1][0]) if name == "train_stack" else len(arguments[1]))
        time.sleep(0.1)
        return train(*arguments, **options)
    setattr(cells, name, counted)
print("ready", flush=True)
sys.stdin.readline()
capacity = capacity_bits_per_param(
    Architecture("lstm", width=4), vocab_size=16, seq_len=8, n_samples=[20, 40, 80], seeds=range(3), steps=12, peak_lr=0.05,
    batch_size=8, store=sys.argv[1], progress=False, device="cpu",
)
print("result", capacity.bits_per_param.hex(), sorted(capacity.curve["memorized_bits"]))
"""


def test_two_processes_train_each_cell_once(tmp_path):
    """Started together on one folder: 54 trainings in all, and the same result in both."""
    command = [sys.executable, "-c", TOGETHER, str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as two:
        for process in (one, two):
            assert process.stdout.readline() == "ready\n"
        for process in (one, two):
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate(timeout=120)[0].splitlines() for process in (one, two)]
    results = [[line for line in lines if line.startswith("result")] for lines in said]
    assert results[0] == results[1] != []
    trained = [line for lines in said for line in lines if line.startswith("trained")]
    assert len(trained) == 3 * 2 * 9  # rounds, rates, and runs of each
    assert len(list((tmp_path / "cells").iterdir())) == len(trained)
    assert not list((tmp_path / "claims").iterdir())


def test_versions_are_those_of_the_runs():
    runs = [{"versions": {"torch": "2.9.1", "numpy": "2"}}, {"versions": {"torch": "2.9.0", "numpy": "2"}}]
    assert versions_of(runs) == {"torch": "2.9.0, 2.9.1", "numpy": "2"}


# --- warnings


class Notes(nn.Module):
    """A module that says something harmless, as several of torch's own do."""

    def __init__(self, vocab_size: int, seq_len: int, when: str = "eval") -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(vocab_size, 6), nn.Linear(6, vocab_size)
        self.when = when

    def forward(self, ids):
        if self.when == "always" or not self.training:
            warnings.warn("harmless note", UserWarning, stacklevel=1)
        return self.head(torch.tanh(self.embed(ids)))


def always(vocab_size: int, seq_len: int) -> nn.Module:
    return Notes(vocab_size, seq_len, "always")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build", [Notes, always])
def test_a_model_that_warns_is_measured_by_two_workers(build, two_threads):
    options = {"vocab_size": 64, "seq_len": 8, "n_samples": [100, 200], "steps": 12, "batch_size": 16}
    capacity = capacity_bits_per_param(build, **options, seeds=range(6), peak_lr=0.05, progress=False, device="cpu")
    assert len(capacity.curve) == 3 * 2 * 6


def test_filters_of_warnings_do_not_change_while_workers_run(monkeypatch, two_threads):
    """They are of the process: what a worker makes an error is one for everybody."""
    before = list(warnings.filters)
    seen = []
    train = lab_cells.train_stack

    def watching(*arguments, **options):
        done = train(*arguments, **{**options, "on_steps": lambda n: seen.append(list(warnings.filters) == before)})
        seen.append(list(warnings.filters) == before)
        return done

    monkeypatch.setattr(lab_cells, "train_stack", watching)
    protocol = capacity_runs.Protocol(64, 8, "float32", "cpu")

    def work(stack, on_steps):
        return capacity_runs.train_and_measure(Notes, True, False, protocol, stack, on_steps)

    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        before[:] = list(warnings.filters)
        ran(work)
    assert len(seen) >= 4
    assert all(seen)


@pytest.mark.filterwarnings("ignore:harmless note")
def test_a_model_that_warns_stacks_all_the_same():
    assert stackable(always, 16, 8, CPU)


class Loops(nn.Module):
    """An operation without a batching rule, of which vmap makes a loop, and says so."""

    def __init__(self, vocab_size: int, seq_len: int) -> None:
        super().__init__()
        self.lstm, self.embed = nn.LSTM(4, 4, batch_first=True), nn.Embedding(vocab_size, 4)
        self.head = nn.Linear(4, vocab_size)

    def forward(self, ids):
        return self.head(self.lstm(self.embed(ids))[0])


@pytest.mark.filterwarnings("error")
def test_what_vmap_would_only_loop_over_is_not_stacked():
    assert not stackable(Loops, 16, 8, CPU)
    models = [Loops(16, 8), Loops(16, 8)]
    assert not can_stack(models, torch.zeros(2, 2, 8, dtype=torch.int64))
