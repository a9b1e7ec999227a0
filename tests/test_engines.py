"""Runs of cells: what was finished is kept whatever happens to the others, nothing is run twice, and warnings stay warnings."""

import threading
import time
import warnings

import pytest
import torch
from torch import nn

from memorization import capacity_bits_per_param
from memorization.lab import cells as lab_cells
from memorization.lab.capacity import runs as capacity_runs
from memorization.lab.cells import Cell, measure_each, stackable
from memorization.lab.engines.local import n_workers, side_by_side, stacks_of
from memorization.lab.engines.runs import run_cells, versions_of
from memorization.lab.store import Store
from memorization.lab.vmapped import can_stack

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
