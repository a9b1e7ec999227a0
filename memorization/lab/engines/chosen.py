"""The engine that a caller names."""

from typing import Any, Literal

from memorization.errors import InputError
from memorization.lab.engines.engine import Engine
from memorization.sharing.shard import Shard

__all__ = ["EngineLike", "engine_of"]

EngineLike = Literal["local", "ray"] | Engine


def engine_of(engine: Any, shard: str | None = None) -> Engine:
    """The engine of this name, or the one that came, for this share of the cells.

    Args:
        engine: "local", "ray", or an Engine.
        shard: "k/n", one share of n; None: all cells, or those of the Engine that came.

    Raises:
        InputError: there is no such engine or share; or the extra "ray" is not installed.
    """
    share = Shard.parse(shard)
    if isinstance(engine, Engine):
        if shard is not None:
            engine.shard = share
        return engine
    if engine == "local":
        return Engine(shard=share)
    if engine == "ray":
        from memorization.lab.engines.ray import RayEngine

        return RayEngine(shard=share)
    raise InputError(f'engine must be "local", "ray" or an Engine; it is {engine!r}.')
