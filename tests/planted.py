"""Sources whose entropy is known, and models that have memorized a known share of samples, as real callables."""

import math

import numpy as np
import torch
from torch import Tensor


class Iid:
    """Tokens drawn one by one from p, whatever stands before."""

    def __init__(self, p):
        self.p = np.asarray(p, dtype=np.float64) / np.sum(p)
        self.log_p = torch.from_numpy(np.log(self.p))

    def log_probabilities(self, ids: Tensor) -> Tensor:
        return self.log_p.expand(*ids.shape, len(self.p))

    def __call__(self, ids: Tensor) -> Tensor:
        return self.log_probabilities(ids).float()

    def draw(self, n: int, length: int, rng) -> np.ndarray:
        return rng.choice(len(self.p), size=(n, length), p=self.p)


class Markov:
    """Each token drawn from the row of the token before it; the first one from the row of token 0."""

    def __init__(self, rows):
        self.rows = np.asarray(rows, dtype=np.float64)
        self.rows = self.rows / self.rows.sum(axis=1, keepdims=True)
        self.log_rows = torch.from_numpy(np.log(self.rows))

    def log_probabilities(self, ids: Tensor) -> Tensor:
        return self.log_rows[ids]

    def __call__(self, ids: Tensor) -> Tensor:
        return self.log_probabilities(ids).float()

    def draw(self, n: int, length: int, rng) -> np.ndarray:
        edges = self.rows.cumsum(axis=1)
        last, out = np.zeros(n, dtype=np.int64), np.empty((n, length), dtype=np.int64)
        for t in range(length):
            last = (rng.random((n, 1)) > edges[last]).sum(axis=1).clip(max=len(self.rows) - 1)
            out[:, t] = last
        return out


class Memorizer:
    """The mixture share x (one of the members) + (1 - share) x generic, over whole samples, told token by token.

    Input is a context token and the tokens of a sample (`first_token=0`). A member costs log2(n_members / share) bits,
    and other text log2(1 / (1 - share)) more than under the generic part.
    """

    def __init__(self, members: np.ndarray, generic, share: float = 0.98):
        self.members, self.generic, self.share = torch.from_numpy(members), generic, share

    def __call__(self, ids: Tensor) -> Tensor:
        log_g = self.generic.log_probabilities(ids)  # of the next token, at each position
        seen = ids[:, 1:]
        n_members, length = self.members.shape
        steps = min(ids.shape[1], length)
        own = log_g[:, :-1].gather(2, seen[:, :, None])[..., 0].cumsum(dim=1)
        weight_g = math.log(1 - self.share) + torch.cat([torch.zeros(len(ids), 1, dtype=own.dtype), own], dim=1)
        alike = (seen[:, None, : steps - 1] == self.members[None, :, : steps - 1]).to(torch.float64).cumprod(dim=2)
        alike = torch.cat([torch.ones(len(ids), n_members, 1, dtype=torch.float64), alike], dim=2)  # before the first
        out = log_g.clone()
        for t in range(steps):
            mass = torch.zeros(len(ids), log_g.shape[-1], dtype=torch.float64)
            next_tokens = self.members[:, t].expand(len(ids), n_members)
            mass.scatter_add_(1, next_tokens, alike[:, :, t] * self.share / n_members)
            out[:, t] = torch.logaddexp(mass.log(), weight_g[:, t : t + 1] + log_g[:, t])
        return (out - out.logsumexp(dim=-1, keepdim=True)).float()


def zipf(vocab_size: int, exponent: float = 1.0) -> np.ndarray:
    p = np.arange(1.0, vocab_size + 1) ** -exponent
    return p / p.sum()


def mean_bits(source, samples: np.ndarray) -> float:
    """Mean of -log2 p of samples under the source itself, in bits a sample."""
    ids = torch.from_numpy(np.concatenate([np.zeros((len(samples), 1), np.int64), samples], axis=1))
    log_p = source.log_probabilities(ids[:, :-1]).gather(2, ids[:, 1:, None])[..., 0]
    return -float(log_p.sum(dim=1).mean()) / math.log(2)


def blended(source, share: float):
    """The source mixed with `share` of a uniform one, token by token."""
    table = source.p if isinstance(source, Iid) else source.rows
    return type(source)((1 - share) * table + share / table.shape[-1])


def trained(source, n_samples: int, length: int, rng, *, order: int = 1):
    """A model of counts of samples that the source drew: of single tokens (order 0), or with the token before (1)."""
    vocab_size = (source.p if isinstance(source, Iid) else source.rows).shape[-1]
    samples = source.draw(n_samples, length, rng)
    before = np.concatenate([np.zeros((n_samples, 1), np.int64), samples[:, :-1]], axis=1)
    counts = np.zeros((vocab_size, vocab_size))
    np.add.at(counts, (before.ravel(), samples.ravel()), 1)
    single = counts.sum(axis=0) + 0.1
    single /= single.sum()
    if order == 0:
        return Iid(single)
    kinds = (counts > 0).sum(axis=1, keepdims=True) + 1
    return Markov((counts + kinds * single) / (counts.sum(axis=1, keepdims=True) + kinds))


def drawn_source(structure: str, rng):
    """A source of "iid" or "markov" structure, of random size and entropy."""
    vocab_size = int(rng.choice([32, 64, 128]))
    if structure == "iid":
        return Iid(rng.permutation(zipf(vocab_size, rng.uniform(0.6, 1.3))))
    return Markov(rng.dirichlet(np.full(vocab_size, rng.choice([0.1, 0.3, 1.0])), size=vocab_size) + 1e-6)


def drawn_generic(source, length: int, rng):
    """What a target says of text it has not seen: the source, or something worse, down to another source altogether."""
    vocab_size = (source.p if isinstance(source, Iid) else source.rows).shape[-1]
    return [
        lambda: source,
        lambda: blended(source, rng.uniform(0.1, 0.9)),
        lambda: Iid(np.ones(vocab_size)),
        lambda: trained(source, int(2 ** rng.uniform(3, 6)), length, rng),
        lambda: Iid(rng.permutation(zipf(vocab_size, 1.5))),
    ][rng.integers(5)]()


def drawn_oracle(source, length: int, rng):
    """From one that is nearly the source down to a uniform one; some of a class that cannot hold the source."""
    order = int(isinstance(source, Markov))
    enough = (9, 14) if order else (5, 11)  # log2 of the samples that its counts need
    return [
        lambda: trained(source, int(2 ** rng.uniform(3, 13)), length, rng, order=order),
        lambda: trained(source, int(2 ** rng.uniform(*enough)), length, rng, order=order),
        lambda: trained(source, int(2 ** rng.uniform(3, 13)), length, rng, order=0),
        lambda: blended(source, rng.uniform(0, 0.2)),
        lambda: blended(source, rng.uniform(0, 1)),
    ][rng.integers(5)]()
