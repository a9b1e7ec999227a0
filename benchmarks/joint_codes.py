"""What each joint code makes of memU, samples and control beside each other: python benchmarks/joint_codes.py

1. The quickstart's pair on its members. 2. The same models on samples that are memorized in part: the first half of a
member, then the second half of a held-out sample; the control has two halves of held-out samples. 3. `--audit FOLDER`:
what `python examples/audit_smollm2.py` has saved, SmolLM2-135M as the oracle.
"""

import argparse
import json
import tempfile
from pathlib import Path

from memorization import Memorization, load, unintended_memorization
from memorization.lab.quickstart import run_quickstart
from memorization.unintended.result import combined


def row(name: str, found: Memorization) -> None:
    pairs = [(found.target, found.oracle), (found.control.target, found.control.oracle)]
    baseline = found.mem_bits + found.target.bits
    for joint in ("max", "mixture", "switch"):
        one = combined(pairs, {**found.settings, "joint": joint}, baseline, found.other_oracles)
        gained = one.joint_bits.sum() / min(one.target.bits.sum(), one.oracle.bits.sum()) - 1
        net, (low, high) = one.control.net_bits / len(one), (end / len(one) for end in one.control.net_interval)
        print(
            f"{name:<28}{joint:<9}{one.joint_bits.mean():9.2f}{100 * gained:+8.1f} %{one.bits.mean():9.2f}"
            f"{one.control.bits.mean():9.2f}{net:9.2f} [{low:.2f}, {high:.2f}]"
        )
        name = ""


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def joined(first: list[str], second: list[str]) -> list[str]:
    return [f"{a[: len(a) // 2]}{b[len(b) // 2 :]}" for a, b in zip(first, second, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audit", type=Path, help="folder of a saved result, as smollm2-audit/audit")
    options = parser.parse_args()
    print(
        f"{'bits a sample':<28}{'joint':<9}{'joint code':>9}{'over best':>10}{'memU':>9}{'control':>9}{'net':>9} [95 %]"
    )
    with tempfile.TemporaryDirectory() as folder:
        run_quickstart(Path(folder) / "quickstart", progress=False)
        place = Path(folder) / "quickstart"
        members, unseen = texts(place / "members.jsonl"), texts(place / "heldout.jsonl")
        pair = str(place / "target"), str(place / "oracle")
        row("quickstart", unintended_memorization(*pair, members, control=unseen, progress=False))
        n = min(len(members), len(unseen) // 2)
        half, control = joined(members[:n], unseen[:n]), joined(unseen[n : 2 * n], unseen[:n][::-1])
        row("memorized in part", unintended_memorization(*pair, half, control=control, progress=False))
    if options.audit is not None:
        row("SmolLM2-135M", load(options.audit))


if __name__ == "__main__":
    main()
