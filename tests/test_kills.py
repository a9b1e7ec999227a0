"""kill -9 at random moments of a sweep, by the script of benchmarks/, twice: 20 times there."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Small trainings of torch's, in stacks of three, without what a capacity measurement does before its first cell.
SWEEP = """
import sys, time
import torch
from memorization.lab.cells import Cell
from memorization.lab.engines.runs import run_cells
from memorization.lab.store import Store

def work(stack, on_steps):
    torch.manual_seed(sum(cell.seed for cell in stack))  # what comes of a cell depends on its stack
    weights = torch.randn(len(stack), 8, 8)
    for _ in range(stack[0].steps):
        weights = torch.tanh(weights @ weights) + 0.1
        on_steps(1)
        time.sleep(0.001)
    return [{"bits": float(each.sum())} for each in weights]

cells = [Cell("a model", 64, 10, seed, 0.1, 40, 4) for seed in range(36)]
run_cells(
    cells, work, Store(sys.argv[1], {}), device=torch.device("cpu"), logits_a_cell=2**21 // 3, name="", progress=False
)
"""


def test_what_was_killed_goes_on_as_if_it_had_not_been(tmp_path):
    """Five processes that import torch: ten seconds."""
    script = tmp_path / "sweep.py"
    script.write_text(SWEEP, encoding="utf-8")
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--kills", "2"]
    command += ["--command", f"{sys.executable} {script} {{folder}}", "--compare", "cells/*", "--kept", "cells/*"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "36 files to compare" in done.stdout
    assert done.stdout.endswith("\n2 of 2 as if never killed\n")
    assert done.stdout.count("yes\n") == 2
