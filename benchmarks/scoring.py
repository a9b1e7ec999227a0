"""All benchmarks of scoring, in one run: time, other tools, growth, the coder, batches, memory, start-up.

    python benchmarks/scoring.py              # some 40 minutes on two cores
    python benchmarks/scoring.py startup memory

Each part is a script of its own, run in a process of its own, one after the other. Writes benchmarks/results/scoring.json, and
prints the table of what is to be reached. What another part of the machine does counts little: times are CPU seconds, and ratios are of
sides that take turns.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from figures import KEEP

PARTS = {
    "time": ["speed.py", "models", "logits"],
    "coder": ["speed.py", "coder"],
    "growth": ["speed.py", "growth"],
    "peers": ["speed.py", "peers"],
    "memory": ["memory.py"],
    "corpus": ["corpus_memory.py"],
    "startup": ["startup.py"],
    "batches": ["batching.py"],
}
HERE = Path(__file__).parent
TABLE = HERE / "results" / "scoring.json"


def main() -> None:
    asked = sys.argv[1:] or list(PARTS)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "figures.jsonl"
        for part in asked:
            print(f"\n== {part}", flush=True)
            script, *more = PARTS[part]
            environment = {**os.environ, KEEP: str(kept), "OMP_NUM_THREADS": "1"}
            if subprocess.run([sys.executable, str(HERE / script), *more], env=environment).returncode:
                raise SystemExit(f"{script} failed: nothing was written.")
        found = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    if asked == list(PARTS):
        about = {"torch": torch.__version__, "python": platform.python_version(), "processor": _processor()}
        TABLE.write_text(json.dumps({**about, "figures": found}, indent=1) + "\n", encoding="utf-8")
    print("\n| what | | to reach |\n|---|---|---|")
    for one in found:
        print(
            f"| {one['what']} | {one['of']} {one['value']:.3g}{'' if one['reached'] else ' (missed)'} | {one['goal']} |"
        )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
