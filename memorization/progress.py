"""Progress: named bars on standard error, and the logger `memorization`."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

__all__ = ["Bar", "log", "progress_bar"]

log = logging.getLogger("memorization")
log.addHandler(logging.NullHandler())  # a library is silent until its user asks

# What comes before the first update warms the machine up and compiles, and says nothing of the rest. An estimate waits
# for so many seconds and updates after it.
_SECONDS_BEFORE_AN_ESTIMATE, _UPDATES_BEFORE_AN_ESTIMATE = 3.0, 3


class Bar(tqdm):  # type: ignore[misc, type-arg, unused-ignore]  # with and without types-tqdm
    """A bar of tqdm's that estimates no end before it can, and counts when it is not shown, too."""

    n_updates = 0
    n_done = 0.0
    first = (0.0, 0.0)  # when the first update came, and how much had been done then

    def update(self, n: int | float | None = 1) -> bool | None:
        """Go on by n units."""
        self.n_updates += 1
        self.n_done += n or 0
        if self.n_updates == 1:
            self.first = (time.monotonic(), self.n_done)
        return super().update(n)

    @property
    def format_dict(self) -> Any:
        """What the bar is drawn from: without rate and end at the start."""
        drawn = super().format_dict
        seconds = time.monotonic() - self.first[0] if self.n_updates else 0.0
        early = self.n_updates < _UPDATES_BEFORE_AN_ESTIMATE or seconds < _SECONDS_BEFORE_AN_ESTIMATE
        if early and self.n != self.total:
            drawn["bar_format"] = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
        elif seconds and self.n_done > self.first[1]:
            drawn["rate"] = (self.n_done - self.first[1]) / seconds
        return drawn


@contextmanager
def progress_bar(
    total: int | float, name: str, *, unit: str, shown: bool = True, delay: int | float = 0.0
) -> Iterator[Bar]:
    """A bar on standard error while the block runs; the logger hears of its end.

    Args:
        total: units in all; without any there is no bar.
        name: what is done, in a word or two.
        unit: of what is counted, such as "tok" or "step".
        shown: whether anything is drawn. The environment variable TQDM_DISABLE (1) switches every bar off.
        delay: seconds before the bar appears.
    """
    switched_off = os.environ.get("TQDM_DISABLE", "").lower() not in ("", "0", "false")
    begin = time.perf_counter()
    with Bar(
        total=total,
        desc=name,
        unit=unit,
        unit_scale=True,
        disable=switched_off or not shown or not total,
        file=sys.stderr,
        mininterval=0.5,
        delay=delay,
    ) as bar:
        yield bar
    if total:
        log.info("%s: %s %s in %.1f s", name, f"{bar.n_done:,.0f}", unit, time.perf_counter() - begin)
