"""Batches of samples in shuffles: what a trainer reads, step by step."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["Batches"]


class Batches:
    """Batches of all models' samples: each model's own shuffles of its own set, from one generator a model.

    Args:
        data: for each model its int64 samples, (n_samples, S) with one S for all.
        seeds: of the order of the samples, one for each model.
        context: the token id that stands before each sample.
        batch_size: samples a step of each model.
        device: where batches are wanted.
    """

    def __init__(
        self,
        data: Sequence[Int[Tensor, "_ position"]],
        seeds: Sequence[int],
        context: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        together = torch.cat([ids.to(device) for ids in data])
        self._rows = torch.cat([torch.full_like(together[:, :1], context), together], dim=1)
        self._sizes = [len(ids) for ids in data]
        self._firsts = torch.tensor([0, *self._sizes]).cumsum(0)[:-1, None]
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._waiting = [torch.empty(0, dtype=torch.int64) for _ in seeds]
        self._batch_size = batch_size

    def some(self) -> Int[Tensor, "model sample position"]:
        """Inputs for a trial: the first two samples of each model, or its one sample twice."""
        seconds = self._firsts + torch.tensor(self._sizes)[:, None].clamp(max=2) - 1
        return self._rows[torch.cat([self._firsts, seconds], dim=1).to(self._rows.device)][..., :-1]

    def batches(
        self, n_batches: int
    ) -> Iterator[tuple[Int[Tensor, "model sample position"], Int[Tensor, "model sample position"]]]:
        """Inputs and targets of the next batches."""
        for rows in self._chosen(n_batches).split(self._batch_size, dim=1):
            batch = self._rows[rows]
            yield batch[..., :-1], batch[..., 1:]

    def of_one(self, n_batches: int) -> Int[Tensor, "batch position_and_context sample"]:
        """The next batches of a single model, each sample behind its context token."""
        rows = self._rows[self._chosen(n_batches)[0]]
        return rows.unflatten(0, (n_batches, self._batch_size)).transpose(1, 2)

    def _chosen(self, n_batches: int) -> Int[Tensor, "model drawn"]:
        n_drawn = n_batches * self._batch_size
        chosen = torch.stack([self._draw(index, n_drawn) for index in range(len(self._sizes))]) + self._firsts
        return chosen.to(self._rows.device)

    def _draw(self, index: int, n_drawn: int) -> Int[Tensor, " drawn"]:
        n_missing = max(0, n_drawn - len(self._waiting[index]))
        size, generator = self._sizes[index], self._generators[index]
        shuffles = [torch.randperm(size, generator=generator) for _ in range(-(-n_missing // size))]
        waiting = torch.cat([self._waiting[index], *shuffles])
        self._waiting[index] = waiting[n_drawn:]
        return waiting[:n_drawn]
