"""kill -9 at random moments: is a command that was killed and started again as good as one that was left alone?

A command is run once in peace; then again and again, each time in a fresh folder, killed at a random moment of its
duration and started again until it ends. What it writes must be equal to the last bit, and what it had finished when it
was killed must not be written again.

    python benchmarks/kills.py                      # the sweep below, 20 kills
    python benchmarks/kills.py --kills 2 --command 'memorization capacity --output {folder} ...' --compare 'capacity.csv'

Any command will do that writes into {folder} and goes on there when it is started again. `--compare` names what of it
is compared (files, by pattern, byte for byte; .json without what tells of time), `--kept` what must not be written twice.
"""

import argparse
import fnmatch
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SWEEP = (
    f"{shlex.quote(sys.executable)} -m memorization capacity --output {{folder}} --arch gru --width 4 --vocab-size 16 "
    "--seq-len 8 --multiple 1 --multiple 2 --multiple 4 --steps 240 --device cpu --overwrite --quiet"
)
OF_TIME = ("seconds", "begun_with")  # keys that tell how long something took


def start(command: str, folder: Path) -> subprocess.Popen:
    filled = [part.replace("{folder}", str(folder)) for part in shlex.split(command)]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(filled, env=environment, start_new_session=True, **quiet)


def finish(command: str, folder: Path) -> float:
    """Seconds until it ended well."""
    begin = time.perf_counter()
    with start(command, folder) as process:
        _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}:\n{said.decode()[-2000:]}")
    return time.perf_counter() - begin


def timeless(value):
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in OF_TIME}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def files(folder: Path, patterns: list[str]) -> dict[str, Path]:
    every = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in sorted(every.items()) if any(fnmatch.fnmatch(name, each) for each in patterns)}


def contents(folder: Path, patterns: list[str]) -> dict[str, bytes]:
    read = {name: path.read_bytes() for name, path in files(folder, patterns).items()}
    return {
        name: json.dumps(timeless(json.loads(content))).encode() if name.endswith(".json") else content
        for name, content in read.items()
    }


def kill_at(command: str, folder: Path, seconds: float) -> bool:
    """Whether it was still at work when it was killed."""
    with start(command, folder) as process:
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
            process.communicate()
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", default=SWEEP, help="with {folder} where its results go")
    parser.add_argument("--compare", nargs="+", default=["runs/cells/*.json", "capacity.csv"])
    parser.add_argument("--kept", nargs="+", default=["runs/cells/*.json"])
    options = parser.parse_args()
    random_moment = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        (peace := Path(place) / "peace").mkdir()
        seconds = finish(options.command, peace)
        wanted = contents(peace, options.compare)
        if not wanted:
            raise SystemExit(f"{options.compare} names nothing of what the command wrote into its folder")
        print(f"{len(wanted)} files to compare, {seconds:.1f} s in peace\n")
        print("  kill  at share of time  files kept  written again  equal to the last bit")
        failed = 0
        for kill in range(1, options.kills + 1):
            folder = Path(place) / f"{kill}"
            folder.mkdir()
            share = random_moment.random()
            while not kill_at(options.command, folder, share * seconds):
                share *= 0.8  # the machine was faster this time
                for path in sorted(folder.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()
            kept = {name: path.stat().st_mtime_ns for name, path in files(folder, options.kept).items()}
            finish(options.command, folder)
            now = {name: path.stat().st_mtime_ns for name, path in files(folder, options.kept).items()}
            again = sum(now.get(name, when) != when for name, when in kept.items())  # a run over shards takes them away
            equal = contents(folder, options.compare) == wanted
            failed += not equal or again > 0
            print(f"  {kill:4}  {share:16.2f}  {len(kept):10}  {again:13}  {'yes' if equal else 'NO'}", flush=True)
    print(f"\n{options.kills - failed} of {options.kills} as if never killed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
