"""Bits a byte of plain text: general compressors beside SmolLM2-135M, alone and with an n-gram model that learns on the way.

    pip install pyppmd zstandard brotli
    make smollm2 && python benchmarks/compressors.py [--smollm2 smollm2] [--text FILE] [--bytes 100000]

The text is the beginning of the presidents' annual messages of 1790-1829 that the package carries. SmolLM2, of 2024, has
likely read them on the web: its row is a compressor's, and says nothing of text it has not seen. `--text` takes another file.
SmolLM2's bits are those of one pass in windows (`compress_bits`); a file that can be decoded has a header besides. The weights are
not counted: 93 MB as a 4-bit file.

The mixtures are codes: each expert gives every token a probability from what came before it alone, and the weights of a
mixture are Bayesian with a share that is spread anew at each token (Herbster and Warmuth, Machine Learning 32 (1998)).
"""

import argparse
import importlib
import lzma
import os
import zlib
from collections import Counter, defaultdict
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

from memorization import compress_bits
from memorization.data import addresses

CONTEXT = "<|endoftext|>"  # what separated documents when SmolLM2 was trained
WINDOW = 2048
LONGEST = 6  # tokens of context that an n-gram looks at
SHARE = 0.005  # of the weights that is spread anew at each token


def general(data: bytes) -> list[tuple[str, int]]:
    """Bytes that each compressor of files needs, at its strongest setting; those that are not installed are named."""
    rows = [("zlib -9", len(zlib.compress(data, 9)))]
    rows.append(("xz -9e", len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))))
    calls = {
        "zstandard": ("zstd -22", lambda zstd: zstd.ZstdCompressor(level=22).compress(data)),
        "brotli": ("brotli -11", lambda brotli: brotli.compress(data, quality=11, lgwin=24)),
        "pyppmd": ("PPMd order 16", lambda ppmd: ppmd.compress(data, max_order=16, mem_size=256 << 20)),
    }
    for package, (name, call) in calls.items():
        try:
            module = importlib.import_module(package)
        except ImportError:
            print(f"{name} is left out: {package} is not installed (pip install {package})")
            continue
        rows.append((name, len(call(module))))
    return rows


class Ngrams:
    """Counts of tokens after contexts of 0 to `longest` tokens, that grow as the text is read."""

    def __init__(self, longest: int) -> None:
        self.after: list[defaultdict[tuple[int, ...], Counter[int]]] = [
            defaultdict(Counter) for _ in range(longest + 1)
        ]
        self.totals: Counter[tuple[int, ...]] = Counter()

    def interpolated(self, past: tuple[int, ...], token: int, lowest: float, shortest: int) -> list[float]:
        """Probability of the token by contexts of `shortest` and more tokens, each backed by the next shorter one.

        Witten and Bell's: of n tokens seen after a context, k different ones, the shorter context gets k / (n + k).
        The list ends with the longest context that was seen.
        """
        p, found = lowest, []
        for length in range(shortest, min(len(self.after) - 1, len(past)) + 1):
            context = past[len(past) - length :]
            counts = self.after[length].get(context)
            if counts is None:
                break
            total, kinds = self.totals[context], len(counts)
            p = (counts[token] + kinds * p) / (total + kinds)
            found.append(p)
        return found

    def read(self, past: tuple[int, ...], token: int) -> None:
        for length in range(min(len(self.after) - 1, len(past)) + 1):
            context = past[len(past) - length :]
            self.after[length][context][token] += 1
            self.totals[context] += 1


def mixed(ids: np.ndarray, model_bits: np.ndarray, vocab_size: int) -> dict[str, np.ndarray]:
    """Bits of each token: the n-grams alone, and SmolLM2 mixed with n-grams that fall back on SmolLM2."""
    ngrams = Ngrams(LONGEST)
    weights = {length: np.full(LONGEST + 1, 1 / (LONGEST + 1)) for length in range(LONGEST + 1)}
    alone, both = np.empty(len(ids)), np.empty(len(ids))
    for i, token in enumerate(ids.tolist()):
        past, p_model = tuple(ids[max(0, i - LONGEST) : i].tolist()), 2.0 ** -model_bits[i]
        alone[i] = -np.log2((ngrams.interpolated(past, token, 1 / vocab_size, 0) or [1 / vocab_size])[-1])
        # Contexts of 1 to 6 tokens with SmolLM2 beneath: as far as they were seen, then the longest seen one again.
        found = [p_model, *ngrams.interpolated(past, token, p_model, 1)]
        experts = np.array(found + [found[-1]] * (LONGEST + 1 - len(found)))
        own = weights[len(found) - 1]  # how much an n-gram is to be trusted goes by the length of what was seen
        p = float(own @ experts)
        both[i] = -np.log2(p)
        weights[len(found) - 1] = (1 - SHARE) * own * experts / p + SHARE / (LONGEST + 1)
        ngrams.read(past, token)
    return {"n-grams of tokens": alone, "SmolLM2 + n-grams": both}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", type=Path, default=Path("smollm2"))
    parser.add_argument("--text", type=Path, help="a UTF-8 file in place of the addresses")
    parser.add_argument("--bytes", type=int, default=100_000)
    parser.add_argument("--output", type=Path, help="CSV file for the table")
    options = parser.parse_args()
    whole = (
        options.text.read_bytes()
        if options.text
        else "\n\n".join(p for address in addresses() for p in address).encode()
    )
    data = whole[: options.bytes].decode("utf-8", "ignore").encode()
    rows = [(name, 8.0 * n, 8.0 * n) for name, n in general(data)]
    if (options.smollm2 / "config.json").exists():
        found = compress_bits(
            str(options.smollm2), [data.decode()], first_token=CONTEXT, max_length=WINDOW, stride=WINDOW // 2
        )
        vocab_size = found.settings["model"]["vocab_size"]
        rows.append(("SmolLM2-135M", float(found.ideal_bits.sum()), found.total_bits))
        rows += [
            (name, float(bits.sum()), float("nan"))
            for name, bits in mixed(found.token_ids, found.token_bits, vocab_size).items()
        ]
    else:
        print(f"SmolLM2 is left out: {options.smollm2} is not there (make smollm2)")
    lines = ["compressor,ideal_bits_per_byte,coded_bits_per_byte,coded_bytes"]
    print(f"{len(data):,} bytes\n{'':<20}{'bits a byte':>14}{'coded':>9}{'bytes':>11}")
    for name, ideal, coded in rows:
        figures = [f"{ideal / len(data):.4f}", f"{coded / len(data):.4f}", f"{coded / 8:.0f}"]
        figures[1:] = ["", ""] if np.isnan(coded) else figures[1:]
        print(f"{name:<20}{figures[0]:>14}{figures[1]:>9}{figures[2]:>11}")
        lines.append(",".join([name, *figures]))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
