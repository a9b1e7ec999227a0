"""Is this installation fit to measure? Versions, devices, threads, and a self-test against closed forms."""

import os
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memorization.measure.compress import compress_bits
from memorization.measure.opening import UniformModel
from memorization.results import versions

_VOCAB_SIZE, _WIDTH = 50_257, 64
_IDEAL_TOLERANCE_BITS, _CODED_TOLERANCE_BITS = 1e-3, 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Examination:
    """What `examine` found.

    Attributes:
        facts: name and finding, in the order of the report.
        checks: name, whether it passed, and the figures behind it.
    """

    facts: list[tuple[str, str]]
    checks: list[tuple[str, bool, str]]

    @property
    def healthy(self) -> bool:
        """Whether every check passed."""
        return all(passed for _, passed, _ in self.checks)

    def __str__(self) -> str:
        lines = [f"{name:<16}{finding}" for name, finding in self.facts]
        lines += [f"{name:<16}{'ok' if passed else 'FAILED'}: {figures}" for name, passed, figures in self.checks]
        return "\n".join(lines)


def examine() -> Examination:
    """Look at the installation and measure two samples whose bits are known. Takes about two seconds.

    Examples:
        >>> examine().healthy
        True
    """
    facts = list(versions().items())
    facts.append(("threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors"))
    for i in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(i)
        facts.append((f"cuda:{i}", f"{device.name}, {device.total_memory / 2**30:.0f} GiB"))
    if not torch.cuda.is_available():
        facts.append(("gpu", "none that torch can use"))

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return Examination(facts, [_uniform(), *(_random_model(device) for device in devices)])


def _uniform() -> tuple[str, bool, str]:
    lengths = compress_bits(UniformModel(2048), [list(range(64))], progress=False)
    coded, ideal = float(lengths.bits[0]), float(lengths.ideal_bits[0])
    passed = ideal == 704 and abs(coded - 704) < _CODED_TOLERANCE_BITS
    return "uniform model", passed, f"64 tokens of 11 bits: ideal {ideal:.6f}, coded {coded:.4f} bits"


class _Bigram(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.head = torch.nn.Parameter(torch.randn(_WIDTH, _VOCAB_SIZE, generator=generator) * 0.5)
        self.table = torch.nn.Parameter(torch.randn(_VOCAB_SIZE, _WIDTH, generator=generator))

    def forward(self, ids: Tensor) -> Tensor:
        return self.table[ids] @ self.head


def _random_model(device: str) -> tuple[str, bool, str]:
    """Bits of random tokens under a random bigram model of GPT-2's vocabulary, against a float64 log-softmax."""
    model = _Bigram().to(device)
    samples = np.random.default_rng(0).integers(0, _VOCAB_SIZE, size=(16, 64))
    started = time.perf_counter()
    lengths = compress_bits(model, samples, first_token=0, progress=False)
    seconds = time.perf_counter() - started
    inputs = torch.from_numpy(np.pad(samples, ((0, 0), (1, 0)))[:, :-1]).to(device)
    with torch.no_grad():
        exact = torch.stack([torch.log_softmax(model(row).double(), dim=-1) for row in inputs])
    log_p = exact.gather(2, torch.from_numpy(samples).to(device)[..., None])[..., 0].sum(dim=1)
    ideal = -(log_p / np.log(2)).cpu().numpy()
    off = float(np.abs(lengths.ideal_bits - ideal).max())
    coded_off = float(np.abs(lengths.bits - ideal).max())
    # What the library promises of the coder: 0.1 % + 0.1 bits + 1e-4 bits a token.
    passed = off < _IDEAL_TOLERANCE_BITS and coded_off < 0.1 + 1e-3 * float(ideal.max()) + 1e-4 * 64
    figures = (
        f"off by {off:.1e} bits (ideal), {coded_off:.3f} (coded); {lengths.n_tokens.sum() / seconds:,.0f} tokens a "
        "second"
    )
    return f"on {device}", passed, figures
