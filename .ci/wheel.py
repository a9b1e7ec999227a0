"""Builds the sdist, the wheel from that sdist, and runs the wheel where no other copy of the package can be found.

python .ci/wheel.py

The environment is a venv with the wheel and what it depends on, no extra and no tool: links to the packages of the
environment that runs this script, so that it takes seconds.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("datasketch", "numba", "peft", "sklearn")
MEASURE = f"""
import importlib.util, json, sys, torch, transformers
from pathlib import Path
import memorization
assert Path(memorization.__file__).is_relative_to(sys.prefix), memorization.__file__
assert not any(map(importlib.util.find_spec, {EXTRAS}))
for seed, name in enumerate(("target", "oracle")):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=16, bos_token_id=0)
    transformers.GPT2LMHeadModel(config).save_pretrained(name)
for name, shift in (("data", 0), ("control", 7)):
    rows = [[(i * j + shift) % 31 + 1 for j in range(10)] for i in range(1, 7)]
    Path(name + ".jsonl").write_text("".join(json.dumps(dict(text=row)) + "\\n" for row in rows))
from memorization.cli import main
models = ["--target", "target", "--oracle", "oracle", "--first-token", "0"]
main(["measure", *models, "--data", "data.jsonl", "--control", "control.jsonl", "--output", "out", "--quiet"])
"""
# What would let Python find this checkout is left out where the wheel runs.
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))} | {
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
}


def run(*command: object, cwd: Path, env: dict[str, str] | None = None) -> str:
    """What a command prints; the end of this script if it fails."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))[:200]}\n{done.stdout}{done.stderr}exit code {done.returncode}")
    return done.stdout


def link_dependencies(site: Path) -> int:
    """Links to what the installed wheel needs, and to what that needs; returns how many packages there are."""
    (own,) = metadata.distributions(path=[str(site)])
    waiting, done = [(own, "")], set[str]()
    while waiting:
        package, extra = waiting.pop()
        for line in package.requires or ():
            needed = Requirement(line)
            if needed.marker is not None and not needed.marker.evaluate({"extra": extra}):
                continue
            for asked in ("", *needed.extras):
                if f"{needed.name}[{asked}]" not in done:
                    done.add(f"{needed.name}[{asked}]")
                    waiting.append((metadata.distribution(needed.name), asked))
        if package is own:
            continue
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            place = site / top
            if not place.exists():
                place.symlink_to(Path(str(package.locate_file(top))))
    return len({name.split("[")[0] for name in done})


def main() -> None:
    """Build, install, run."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        build = [sys.executable, "-m", "hatchling", "build", "-d", here / "dist", "-t"]
        run(*build, "sdist", cwd=ROOT)
        (sdist,) = (here / "dist").glob("*.tar.gz")
        with tarfile.open(sdist) as content:
            content.extractall(here, filter="data")
        run(*build, "wheel", cwd=here / sdist.name.removesuffix(".tar.gz"))
        (wheel,) = (here / "dist").glob("*.whl")

        venv.create(here / "venv", with_pip=False)
        python = here / "venv" / "bin" / "python"
        install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--disable-pip-version-check"]
        run(*install, "--no-deps", "--no-index", wheel, cwd=here)
        (site,) = (here / "venv" / "lib").glob("python*/site-packages")
        n_packages = link_dependencies(site)

        empty = here / "empty"
        empty.mkdir()
        command = here / "venv" / "bin" / "memorization"
        print(run(command, "--version", cwd=empty, env=CLEAN).strip())
        assert "measure" in run(command, "--help", cwd=empty, env=CLEAN)
        printed = run(python, "-c", MEASURE, cwd=empty, env=CLEAN)
        assert "Memorization of 6 samples" in printed, printed
        assert (empty / "out" / "summary.json").is_file()
        sizes = ", ".join(f"{file.name} {file.stat().st_size / 1e6:.1f} MB" for file in (sdist, wheel))
        print(f"built, installed beside {n_packages} packages, measured: {sizes}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
