"""Shards measured by several processes: those that share the folder, a fixed share here, or tasks of a Ray cluster."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from memorization.errors import InputError, UnfinishedError, warn
from memorization.measure.in_shards import Scoring, measure_share, missing
from memorization.measure.scans import Scan
from memorization.measure.shard_files import ShardRun
from memorization.progress import progress_bar
from memorization.results import Result, versions
from memorization.sharing.answers import Answer, answer
from memorization.sharing.on_ray import answers, at_once, join, pickled, ray_of, task_of
from memorization.sharing.shard import Shard

__all__ = ["Sharing", "do", "score_shards"]

_RETRIES = 3  # of a task whose worker died


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who measures the shards.

    Attributes:
        share: what this process measures, or its tasks.
        by: "local", this process; "ray", tasks.
        address: of the Ray cluster.
    """

    share: Shard
    by: str
    address: str | None

    @classmethod
    def of(cls, shard: str | None, engine: Any, address: str | None, store: Any) -> "Sharing":
        """Who measures, as a caller says it.

        Raises:
            InputError: there is no such share or engine; there is no folder to share; the extra "ray" is not installed.
        """
        if engine not in ("local", "ray"):
            raise InputError(f'engine must be "local" or "ray"; it is {engine!r}.')
        if store is None and (shard is not None or engine == "ray"):
            named = 'engine="ray"' if engine == "ray" else f'shard="{shard}"'
            raise InputError(f"{named} measures into a folder that all processes see: pass store=FOLDER, too.")
        if address is not None and engine != "ray":
            raise InputError('address is of a Ray cluster: pass engine="ray", too.')
        if engine == "ray":
            ray_of()
        return cls(Shard.parse(shard), engine, address)


def score_shards(
    run: ShardRun,
    scans: Sequence[Scan],
    scored: Sequence[Scoring],
    result_of: Callable[[list[list[Any]]], Result],
    *,
    sharing: Sharing,
    progress: bool,
) -> None:
    """Measure each set under each model, and save what comes of it in the run's folder.

    Shards that are finished already are not measured again. Processes that share the folder share the work, and one of
    them saves the result.

    Args:
        run: keeps finished shards.
        scans: the sets.
        scored: the models.
        result_of: the result, of what was measured of each set under each model.
        sharing: who measures.
        progress: a bar a model.

    Raises:
        UnfinishedError: this share is done, and others are missing.
        ResultError: a model is another one than the finished shards were measured with.
    """
    if sharing.by == "ray":
        _by_ray(run, scans, scored, sharing, progress=progress)
    else:
        for one in scored:
            measure_share(run, scans, one, sharing.share, progress=progress)
    n_missing = sum(len(missing(run, scans, one)) for one in scored)
    if n_missing and not run.is_gone():
        share, n = sharing.share, len(scored) * sum(len(scan.digests) for scan in scans)
        raise UnfinishedError(
            f"shard {share.index}/{share.n} has measured its share; {n_missing} of {n} parts of the data are missing. "
            "Run the other shards on the same folder, and the last of them puts the result together; or the same call "
            "without a shard, which measures what is missing."
        )
    run.conclude(lambda: result_of([[one.whole(run, scan) for scan in scans] for one in scored]))


def _by_ray(
    run: ShardRun, scans: Sequence[Scan], scored: Sequence[Scoring], sharing: Sharing, *, progress: bool
) -> None:
    """Tasks, each of which opens the models and measures what nobody else is at."""

    def n_done() -> int:
        return n_parts - sum(len(missing(run, scans, one)) for one in scored)

    n_parts = len(scored) * sum(len(scan.digests) for scan in scans)
    if (done := n_done()) == n_parts:
        return
    ray = join(sharing.address)
    asked = scored[0].opening["device"]
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if asked in (None, "auto") else asked)
    n_tasks = min(at_once(ray, device), n_parts - done)
    quiet = [replace(cast(Any, one), opening={**one.opening, "progress": False}) for one in scored]
    sent = pickled(
        (run, list(scans), quiet, sharing.share, os.getcwd()),
        [one.model for one in scored],
        "the models and samples",
        "Name them, by folders and files that the workers see.",
    )
    task = ray.remote(task_of(__name__)).options(
        num_cpus=1, num_gpus=0 if device.type == "cpu" else 1, max_retries=_RETRIES, name="shards"
    )
    died = (
        f"a Ray worker died {_RETRIES + 1} times while it measured. Often its memory was too small for the model: look "
        "into Ray's logs. Shards that are finished are kept, and the same call goes on from there."
    )
    with progress_bar(n_parts, "shards", unit="shard", shown=progress, delay=1) as bar:

        def look() -> None:
            bar.update(n_done() - bar.n)

        look()
        found = answers([task.remote(sent, _requirements(), 1) for _ in range(n_tasks)], look, died=died)
        look()
    for category, message in {category: message for one in found for category, message in one}.items():
        warn(message, category)


def _requirements() -> dict[str, Any]:
    """What determines the numbers, of this process."""
    own = versions()
    return {name: own.get(name) for name in ("lm-memorization", "torch", "transformers")}


def do(here: str, sent: bytes, needed: dict[str, Any], n_threads: int) -> Answer:
    """What a worker does: measure shards.

    Args:
        here: the name of this machine, for messages.
        sent: the run, the sets, the models, the share, and the folder that paths begin at.
        needed: versions of packages of the process that sent it.
        n_threads: of torch.

    Returns:
        As of `answer`: the kinds of warnings, with one message each.
    """
    return answer(here, sent, needed, _requirements(), n_threads, _measured)


def _measured(
    run: ShardRun, scans: Sequence[Scan], scored: Sequence[Scoring], share: Shard, begin: str
) -> list[tuple[type[Warning], str]]:
    if os.path.isdir(begin):  # where paths that were named begin
        os.chdir(begin)
    if not (run.root / "run.json").is_file():
        raise InputError(
            f"the folder {run.root.parent.absolute()} is not seen by a worker: name one that all machines of the "
            "cluster share."
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for one in scored:
            measure_share(run, scans, one, share, progress=False)
    return [(one.category, str(one.message)) for one in caught]
