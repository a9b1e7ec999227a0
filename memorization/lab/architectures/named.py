"""Builders by name: of a family, in a file of one's own, in a package."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from memorization.errors import InputError

__all__ = ["builder_named"]


def builder_named(name: str, arguments: Mapping[str, Any]) -> Callable[[int, int], nn.Module]:
    """The builder that `my_file.py:build` or `package.module:Builder` names.

    Args:
        name: a file or a module, a colon, and a function of (vocab_size, seq_len), or a class whose objects are called
            like one.
        arguments: for the builder beside those two, by keyword. A class that is no nn.Module is made with them.

    Raises:
        InputError: the file or module does not import, has no such name, or the arguments are not the builder's.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise InputError(f"a builder is named file.py:function or package.module:Builder; {name!r} came.")
    module = _imported(place)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            there = [each for each in vars(module) if not each.startswith("_") and callable(getattr(module, each))]
            raise InputError(f"{place} has no {attribute}; what can be called there: {', '.join(there) or 'nothing'}.")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{name} is a {type(found).__name__}; a builder is a function of (vocab_size, seq_len).")
    if isinstance(found, type) and not issubclass(found, nn.Module):
        _check_arguments(name, found, (), arguments)
        made: Any = found(**arguments)
        return made
    _check_arguments(name, found, (2, 2), arguments)
    return partial(found, **arguments) if arguments else found


def _imported(place: str) -> Any:
    path = Path(place)
    try:
        if path.suffix != ".py":
            return importlib.import_module(place)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)  # dataclasses look their module up there
        spec.loader.exec_module(module)
    except Exception as error:
        what = str(error).splitlines()[0] if str(error) else "no message"
        raise InputError(f"{place} cannot be imported: {type(error).__name__}: {what.rstrip('.')}.") from error
    return module


def _check_arguments(name: str, found: Any, positions: tuple[int, ...], arguments: Mapping[str, Any]) -> None:
    """Whether it can be called like that, before anything is built."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # built in: it has none to look at
        return
    try:
        signature.bind(*positions, **arguments)
    except TypeError as error:
        given = ", ".join([*(("two numbers",) if positions else ()), *(f"{key}=" for key in arguments)]) or "nothing"
        raise InputError(f"{name} cannot be called with {given}: {error}; it takes {signature}.") from error
