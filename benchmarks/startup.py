"""What the command line costs before it does anything: help, version, errors of the parser.

    python benchmarks/startup.py [--rounds 7]

CPU seconds of fresh processes, the calls in turn; of each call the least, so that the figures depend little on how busy
the machine is. The yardsticks are an interpreter, the parser alone and torch alone; lm-eval where it is installed.
"""

import argparse
import importlib.util
import os
import subprocess
import sys

from figures import figure

OURS = [sys.executable, "-m", "memorization"]
CALLS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import typer": [sys.executable, "-c", "import typer"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import memorization": [sys.executable, "-c", "import memorization"],
    "memorization --help": [*OURS, "--help"],
    "memorization --version": [*OURS, "--version"],
    "memorization measure --help": [*OURS, "measure", "--help"],
    "memorization nonsense": [*OURS, "nonsense"],
    "memorization bits --nonsense": [*OURS, "bits", "--nonsense"],
    "memorization bits": [*OURS, "bits"],
    "memorization bits --limit many": [*OURS, "bits", "--target", "model", "--data", "data.txt", "--limit", "many"],
    "lm_eval --help": [sys.executable, "-m", "lm_eval", "--help"],
}


def cpu_seconds(call: list[str]) -> float:
    """Of a fresh process, its threads included."""
    before = os.times()
    subprocess.run(call, capture_output=True, check=False)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    calls = {
        name: call for name, call in CALLS.items() if name != "lm_eval --help" or importlib.util.find_spec("lm_eval")
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(cpu_seconds(call))
    least = {name: min(taken) for name, taken in seconds.items()}
    print(f"Python {sys.version.split()[0]}, CPU seconds, least of {rounds}")
    print(f"{'':32}{'s':>6}{'/ import typer':>16}{'/ import torch':>16}")
    for name, taken in least.items():
        print(f"{name:32}{taken:6.2f}{taken / least['import typer']:16.1f}{taken / least['import torch']:16.2f}")
    slowest = max(least[f"memorization {one}"] for one in ("--help", "--version", "nonsense", "bits"))
    figure("--help, --version, an error of the parser, the slowest", slowest, "<= 0.4", of="CPU seconds")


if __name__ == "__main__":
    main()
