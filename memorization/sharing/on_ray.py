"""Tasks of a Ray cluster (extra `ray`): joining one, what is sent to its workers, and what they answer."""

import functools
import pickle
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from memorization.errors import InputError, ModelError
from memorization.sharing.answers import Answer

__all__ = ["answers", "at_once", "join", "pickled", "ray_of", "task_of"]

_joining = threading.Lock()
_sending = threading.Lock()  # what is sent whole is registered for the whole process
_LOOK_SECONDS = 1.0  # between looks at what else has happened


def ray_of() -> ModuleType:
    """Ray.

    Raises:
        InputError: the extra is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError('engine "ray" needs the extra: pip install "lm-memorization[ray]".') from error
    return ray


def join(address: str | None) -> ModuleType:
    """Ray, where this process has joined a cluster; that of the address, if it had not.

    Raises:
        InputError: the extra is not installed, or no cluster answers.
    """
    ray = ray_of()
    with _joining:
        if not ray.is_initialized():
            _init(ray, address)
    return ray


def _init(ray: ModuleType, address: str | None) -> None:
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except Exception as error:  # of Ray's many kinds, some are plain Exception
        why = str(error).strip().splitlines()
        raise InputError(
            f"no Ray cluster answers at {address or 'the default address'} "
            f"({why[0] if why else type(error).__name__}). Start one with `ray start --head` and pass the "
            "address that it prints; without an address, Ray starts on this machine."
        ) from error


def at_once(ray: ModuleType, device: torch.device, cpus_a_task: int = 1, gpus_a_task: float = 1.0) -> int:
    """As many tasks as the cluster has cores, or GPUs, for.

    Args:
        ray: that has joined.
        device: "cpu" or "cuda", without a number.
        cpus_a_task: cores of a task on the CPU.
        gpus_a_task: GPUs of a task on a GPU.

    Returns:
        The number of tasks.

    Raises:
        InputError: the cluster has no such device.
    """
    if device.index is not None:
        raise InputError(f"on a cluster a device has no number, and {device} came: Ray chooses among its GPUs.")
    there = ray.cluster_resources()
    kind, each = ("CPU", cpus_a_task) if device.type == "cpu" else ("GPU", gpus_a_task)
    if there.get(kind, 0) < min(each, 1):
        raise InputError(
            f"the Ray cluster has {there.get(kind, 0):g} {kind}s, and a run on {device} needs {each:g}: start "
            f"workers that have some, or pass another device."
        )
    return max(1, int(there[kind] / each))


def task_of(module: str) -> Callable[..., Answer]:
    """The task, `do` of a module, in a function that Ray sends whole: it can say that the package is missing."""

    def do(*arguments: Any) -> tuple[str, Any]:
        import importlib
        import socket

        here = socket.gethostname()
        try:
            worker = importlib.import_module(module)
        except ImportError as error:
            return "cannot", f"on {here} this package cannot be imported ({error}). Install lm-memorization there."
        found: tuple[str, Any] = worker.do(here, *arguments)
        return found

    return do


def answers(tasks: Sequence[Any], look: Callable[[], object], *, died: str) -> list[Any]:
    """What the workers answered, in the order of the tasks; of the first error all other tasks are ended.

    Args:
        tasks: that were begun.
        look: called each second; raises where this must end.
        died: what to say where workers died too often.

    Raises:
        InputError: a worker cannot do this.
        ModelError: workers died more often than tasks are made again.
    """
    ray = ray_of()
    done, left = dict[Any, Any](), list(tasks)
    try:
        while left:
            ready, left = ray.wait(left, timeout=_LOOK_SECONDS)
            done |= {one: _unpacked(*ray.get(one)) for one in ready}
            if not ready:
                look()
    except BaseException as error:
        for one in tasks:
            ray.cancel(one, force=True)
        if isinstance(error, ray.exceptions.WorkerCrashedError):
            raise ModelError(died) from error
        raise
    return [done[one] for one in tasks]


def _unpacked(kind: str, found: Any) -> Any:
    if kind == "cannot":
        raise InputError(f"a Ray worker cannot do this: {found}")
    if kind == "raised":
        raise pickle.loads(found)
    return pickle.loads(found)


def pickled(arguments: tuple[Any, ...], own: Sequence[Any], named: str, advice: str) -> bytes:
    """Arguments as they are sent.

    Args:
        arguments: of the work.
        own: objects that may be of the user's files: their source is sent along.
        named: what may be at fault, for the message.
        advice: what to try, for the message.

    Raises:
        InputError: they cannot be sent.
    """
    from ray import cloudpickle

    try:
        with _sent_whole([module for one in own for module in _modules_of(one)]):
            found: bytes = cloudpickle.dumps(arguments)  # type: ignore[no-untyped-call, unused-ignore]
    except Exception as error:
        raise InputError(
            f"{named} cannot be sent to Ray's workers ({type(error).__name__}: {error}). {advice}"
        ) from error
    return found


def _modules_of(work: Any) -> list[ModuleType]:
    """The modules of a call and its arguments that no worker is likely to have: files of nobody's package."""
    if isinstance(work, functools.partial):
        return [module for part in (work.func, *work.args, *work.keywords.values()) for module in _modules_of(part)]
    name = getattr(work, "__module__", None) or type(work).__module__
    module = sys.modules.get(name)
    path = getattr(module, "__file__", None)
    installed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sysconfig.get_path("stdlib")]
    own = name.split(".")[0] in ("memorization", "__main__")
    is_local = path is not None and not own and not any(path.startswith(each) for each in installed)
    return [module] if module is not None and is_local else []


@contextmanager
def _sent_whole(modules: Sequence[ModuleType]) -> Iterator[None]:
    from ray import cloudpickle

    with _sending:
        for module in set(modules):
            cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call, unused-ignore]
        try:
            yield
        finally:
            for module in set(modules):
                cloudpickle.unregister_pickle_by_value(module)  # type: ignore[no-untyped-call, unused-ignore]
