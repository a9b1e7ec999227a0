"""Old names of modules and keywords: they work for one more version, with a DeprecationWarning."""

import functools
import importlib
import importlib.abc
import importlib.machinery
import inspect
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from memorization.errors import InputError, warn

__all__ = ["MODULES", "old_modules_go_on_working", "renamed_keywords"]

P = ParamSpec("P")
R = TypeVar("R")

# Old module: the modules in which its names are found now. A name that changed itself stands in NAMES.
MODULES: dict[str, tuple[str, ...]] = {
    "memorization.records": ("memorization.results",),
    "memorization.models": (
        "memorization.measure.opening",
        "memorization.measure.tokenizers",
        "memorization.measure.failures",
        "memorization.measure.probe",
    ),
    "memorization.scoring": ("memorization.measure.passes",),
    "memorization.compression": ("memorization.measure.code_lengths", "memorization.measure.context"),
    "memorization.pairing": ("memorization.measure.pair",),
    "memorization.significance": ("memorization.unintended.control", "memorization.stats.means"),
    "memorization.capacity.rows": ("memorization.capacity.runs",),
    "memorization.scaling_law.rows": ("memorization.scaling_law.points",),
    "memorization.lab.sweep": ("memorization.lab.store",),
    "memorization.lab.synthetic": ("memorization.lab.capacity.experiment", "memorization.lab.random_tokens"),
    "memorization.lab.saturation": ("memorization.lab.capacity.runs",),
    "memorization.lab.sizes": (
        "memorization.lab.builders",
        "memorization.lab.random_tokens",
        "memorization.lab.capacity.sizes",
    ),
    "memorization.lab.side_by_side": ("memorization.lab.engines.local", "memorization.lab.engines.runs"),
    "memorization.lab.documents": ("memorization.lab.text.documents",),
    "memorization.lab.text.sweep": ("memorization.lab.text.experiment",),
    "memorization.lab.canaries.dose": ("memorization.lab.canaries.experiment", "memorization.lab.canaries.making"),
    "memorization.lab.canaries.rows": ("memorization.lab.canaries.checks",),
    "memorization.cli.mi_law": ("memorization.cli.law",),
    "memorization.report.plots": (
        *("memorization.report.memorization", "memorization.report.code_lengths", "memorization.report.capacity"),
        *("memorization.report.scaling_law", "memorization.report.membership", "memorization.report.extraction"),
        "memorization.report.quickstart",
    ),
    "memorization.report.sweep": ("memorization.report.text_sweep",),
    "memorization.report.which_samples": ("memorization.report.rarity",),
    "memorization.report.canary_plot": ("memorization.report.canaries",),
}
NAMES = {"opened_model": "open_model", "CausalModel": "OpenModel"}


class _OldModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds old modules after everybody else has failed to: each is made of the new ones, name by name."""

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in MODULES else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        old = module.__name__
        new = [importlib.import_module(name) for name in MODULES[old]]
        warn(f"{old} is now {' and '.join(MODULES[old])}; the old name goes with the next version.", DeprecationWarning)

        def find(name: str) -> Any:
            for place in new:
                for candidate in (name, NAMES.get(name, name)):
                    if hasattr(place, candidate):
                        return getattr(place, candidate)
            raise AttributeError(f"module {old!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = find
        module.__doc__ = f"The old name of {' and '.join(MODULES[old])}."


def old_modules_go_on_working() -> None:
    """Let old modules be imported. Called once, by the package itself."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())


def renamed_keywords(**renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take keywords by their old names, too: `renamed_keywords(heldout="control")`.

    A keyword that is gone is named with the empty string; its value is dropped.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in renamed.items():
                if old not in kwargs:
                    continue
                value = kwargs.pop(old)
                if not new:
                    warn(
                        f"{function.__name__} has no keyword {old} any more: it is ignored, and will be refused.",
                        DeprecationWarning,
                    )
                    continue
                try:
                    taken = new in inspect.signature(function).bind_partial(*args, **kwargs).arguments
                except TypeError:
                    taken = new in kwargs
                if taken:
                    raise InputError(
                        f"{function.__name__} came with {new} and with its old name {old}: pass {new} alone."
                    )
                warn(
                    f"{old} of {function.__name__} is now {new}; the old name goes with the next version.",
                    DeprecationWarning,
                )
                kwargs[new] = value
            return function(*args, **kwargs)

        return call

    return decorate
