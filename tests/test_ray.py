"""The engine "ray": the same cells as tasks, retried when a worker is killed, with the results of the local engine."""

import importlib.util
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from memorization import capacity_bits_per_param
from memorization.errors import InputError, ModelError
from memorization.lab.architectures import Architecture
from memorization.lab.engines import on_worker

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")


def with_ray(script, *arguments, **variables):
    """What a script prints that starts Ray."""
    environment = {
        **os.environ,
        **variables,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Of a machine that is busy with other tests.
        "RAY_agent_register_timeout_ms": "180000",
        "RAY_raylet_start_wait_time_s": "180",
    }
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-W", "ignore", "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


SWEEP = """
import os, signal, sys, threading
from pathlib import Path
import torch
torch.set_num_threads(1)
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
from memorization.errors import InputError
from memorization.lab.architectures import Architecture
from memorization.lab.cells import Cell
from memorization.lab.engines.ray import RayEngine
from memorization.lab.engines.runs import run_cells
from memorization.lab.stack import train_stack
from memorization.lab.random_tokens import random_tokens
from memorization.lab.builders import build_seeded
from memorization.lab.store import Store
sys.path.insert(0, sys.argv[2])
import users_model  # no worker finds it

place = Path(sys.argv[1])

def work(build, stack, on_steps):
    killed = place / "killed"
    if any(cell.seed == 4 for cell in stack) and os.getpid() != DRIVER and not killed.exists():
        killed.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    models = [build_seeded(build, 16, 8, cell.seed) for cell in stack]
    data = [random_tokens(20, 8, 16, cell.seed) for cell in stack]
    train_stack(models, data, context=0, steps=20, batch_size=8, peak_lrs=[0.05] * len(stack), seeds=[c.seed for c in stack])
    return [{"bits": float(sum(each.sum() for each in model.parameters()))} for model in models]

DRIVER = os.getpid()
from functools import partial
cells = [Cell("a model", 64, 10, seed, 0.05, 20, 8) for seed in range(6)]
how = {"device": torch.device("cpu"), "logits_a_cell": 2**20, "name": "", "progress": False}
work_of_theirs = partial(work, users_model.build)
bits = lambda runs: [run["bits"].hex() for run in runs]
# Two stores of the same stacks: one in peace by this process, the other begun here and gone on with by two workers.
local = bits(run_cells(cells, work_of_theirs, Store(place / "local", {}), **how))
store = Store(place / "ray", {})
run_cells(cells, work_of_theirs, store, **how)
for cell in cells[2:]:
    (place / "ray" / "cells" / f"{store.name(cell.record())}.json").unlink()
by_ray = bits(run_cells(cells, work_of_theirs, store, engine=RayEngine(retries=2), **how))
print("killed", (place / "killed").exists(), "equal", by_ray == local, "different", len(set(local)))

def breaks(stack, on_steps):
    raise InputError(f"broken {stack[0].seed}")

for engine, work in ((RayEngine(), breaks), (RayEngine(), partial(print, threading.Lock()))):
    try:
        run_cells(cells[:1], work, Store(None, {}), engine=engine, **how)
    except InputError as error:
        print("InputError", error)
"""


@needs_ray
def test_two_workers_of_which_one_is_killed_give_what_the_local_engine_gives(tmp_path):
    """A real Ray on this machine: ten seconds, most of them until it has started."""
    users = tmp_path / "users"
    users.mkdir()
    (users / "users_model.py").write_text(
        "from memorization.lab.architectures import Architecture\n"
        "def build(vocab_size, seq_len):\n    return Architecture('lstm', width=4)(vocab_size, seq_len)\n",
        encoding="utf-8",
    )
    done = with_ray(SWEEP, str(tmp_path), str(users))
    first, broken, unsendable = done.stdout.splitlines()[-3:]
    assert first == "killed True equal True different 6"
    assert broken == "InputError broken 0"
    assert unsendable.startswith("InputError the builder cannot be sent to Ray's workers (TypeError")


SHARDS = """
import os, signal
from pathlib import Path
import numpy as np
import torch
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
from memorization import unintended_memorization

os.chdir(os.environ["PLACE"])
DRIVER, killed = os.getpid(), Path("killed").resolve()
tables = [torch.randn(300, 300, generator=torch.Generator().manual_seed(seed)) * 2 for seed in (1, 2)]

def target(ids):
    if os.getpid() != DRIVER and len(list(killed.parent.glob("by_ray/.unfinished/*/target/*.json"))) > 1 and not killed.exists():
        killed.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return tables[0][ids]

def oracle(ids):
    return tables[1][ids]

rows = np.random.default_rng(0).integers(1, 300, (3600, 6))
how = {"samples": rows[:2500], "control": rows[2500:], "progress": False}
local = unintended_memorization(target, oracle, **how, store="local")
by_ray = unintended_memorization(target, oracle, **how, store="by_ray", engine="ray")
print("killed", killed.exists(), "left", Path("by_ray/.unfinished").exists())
for name in ("bits", "ideal_bits"):
    print(name, getattr(local, name).tobytes() == getattr(by_ray, name).tobytes(), len(set(local.ideal_bits)) > 1000)

from memorization import audit_membership, extract
few = {"samples": rows[:1300], "control": rows[1300:2600], "progress": False}
attacks = [audit_membership(target, **few, store=f"attacks {e}", engine=e) for e in ("local", "ray")]
print("attacks", attacks[0].to_pandas().equals(attacks[1].to_pandas()), list(attacks[0].attacks))
given = [extract(target, **few, prefix_tokens=[2], store=f"given {e}", engine=e) for e in ("local", "ray")]
print("extraction", given[0].member_bits.tobytes() == given[1].member_bits.tobytes(), repr(given[0]) == repr(given[1]))
"""


@needs_ray
def test_shards_by_two_workers_of_which_one_is_killed_are_those_of_this_process(tmp_path):
    """A real Ray, once more: the results of two runs are equal to the last bit."""
    done = with_ray(SHARDS, PLACE=str(tmp_path))
    assert done.stdout.splitlines()[-5:] == [
        "killed True left False",
        "bits True True",
        "ideal_bits True True",
        "attacks True ['loss', 'min_k', 'min_k_plus_plus']",
        "extraction True True",
    ]


@needs_ray
def test_an_address_where_nobody_is(monkeypatch):
    from memorization.lab.engines.ray import RayEngine

    class Absent(types.ModuleType):
        def is_initialized(self):
            return False

        def init(self, **options):
            raise ConnectionError("Could not connect to 10.0.0.1:6379.\nMore.")

    monkeypatch.setitem(sys.modules, "ray", Absent("ray"))
    message = r"no Ray cluster answers at 10\.0\.0\.1:6379 \(Could not connect to 10\.0\.0\.1:6379\.\)\. Start one with"
    with pytest.raises(InputError, match=message):
        RayEngine("10.0.0.1:6379").at_once(torch.device("cpu"))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'engine "ray" needs the extra: pip install "lm-memorization\[ray\]"'):
        capacity_bits_per_param(Architecture("lstm", width=4), vocab_size=16, seq_len=8, engine="ray")


# --- on a worker


def done(work, needed=None):
    return on_worker.do("host-3", pickle.dumps((work, [1, 2])), needed or on_worker.requirements(), 1)


def echo(cells, on_steps):
    on_steps(1)
    return [{"cell": cells[0]}, ZeroDivisionError("second")]


def broken(cells, on_steps):
    raise ModelError("broken")


class Awkward(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def awkward(cells, on_steps):
    raise Awkward(1, 2)


def test_outcomes_come_back():
    answer, found = done(echo)
    (first, second), versions = pickle.loads(found)
    assert (answer, first, str(second), versions["torch"]) == ("done", {"cell": 1}, "second", torch.__version__)


@pytest.mark.parametrize(("work", "message"), [(broken, "broken"), (awkward, "Awkward: 1 and 2")])
def test_errors_come_back(work, message):
    answer, found = done(work)
    assert answer == "raised"
    with pytest.raises(ModelError, match=f"^{message}$"):
        raise pickle.loads(found)


@pytest.mark.parametrize("name", ["torch", "recipe of training", "numba"])
def test_a_worker_with_something_else_refuses(name):
    answer, why = done(echo, {**on_worker.requirements(), name: "other"})
    assert answer == "cannot"
    assert why.startswith(f"on host-3 {name} is {on_worker.requirements()[name]}, and other where the work was started")


def test_a_worker_that_lacks_a_module_says_which():
    answer, why = on_worker.do("host-3", b"cmodule_of_nobody\nwork\n.", on_worker.requirements(), 1)
    assert answer == "cannot"
    assert "on host-3 what the work needs cannot be imported (No module named 'module_of_nobody')" in why
