"""A share of a common work, by which processes need not speak with each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from memorization.errors import InputError

__all__ = ["Shard"]

Job = TypeVar("Job")


@dataclass(frozen=True, slots=True)
class Shard:
    """A share of a list: the index-th of n, counted from 1. Every n-th job, so that long ones are dealt evenly.

    Examples:
        >>> Shard.parse("2/3").of(["a", "b", "c", "d", "e"])
        ['b', 'e']
    """

    index: int = 1
    n: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "Shard":
        """The share that "k/n" names; None: everything.

        Raises:
            InputError: it names none.
        """
        if text is None:
            return cls()
        index, slash, n = text.partition("/") if isinstance(text, str) else ("", "", "")
        if not (slash and index.isdecimal() and n.isdecimal() and 1 <= int(index) <= int(n)):
            raise InputError(f"shard must be k/n with 1 <= k <= n, as in 2/8; it is {text!r}.")
        return cls(int(index), int(n))

    def of(self, jobs: Sequence[Job]) -> list[Job]:
        """Its jobs, of a list that all shards have."""
        return list(jobs[self.index - 1 :: self.n])
