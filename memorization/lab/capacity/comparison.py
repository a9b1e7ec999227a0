"""`compare_capacities`: several architectures, measured by one protocol, beside GPT-2 of equal size."""

from collections.abc import Sequence
from typing import Any

from memorization.capacity import Capacity, CapacityComparison
from memorization.errors import InputError
from memorization.lab.architectures import solve_width
from memorization.lab.builders import Builder, known_builder, list_of_builders, name_of
from memorization.lab.capacity.experiment import capacity_bits_per_param

__all__ = ["compare_capacities"]


def compare_capacities(
    build_models: Sequence[Builder],
    *,
    vocab_size: int,
    seq_len: int,
    names: Sequence[str] | None = None,
    anchor: bool = False,
    **options: Any,
) -> CapacityComparison:
    """Bits per parameter of several architectures, by the same protocol, in one table.

    Compare models of equal size (`solve_width`): bits per parameter after so many steps fall with the number of
    parameters, since larger models need more of them.

    Args:
        build_models: one builder for each architecture, as `capacity_bits_per_param` takes them.
        vocab_size: V, at least 2.
        seq_len: S, tokens of a sample.
        names: one for each architecture, all different; None: what the builders are called.
        anchor: also measure GPT-2 style models with as many parameters as each, and say what share of theirs each
            holds.
        options: all others of `capacity_bits_per_param`: seeds, steps, data_multiples, store, ...

    Returns:
        The capacity of each, in the order given, anchors last.

    Raises:
        InputError: two architectures of one name; an option that cannot be used.
        ModelError: what a builder makes cannot be trained or measured. All are looked at before one is trained.
        ResultError: the store belongs to another experiment.

    Warns:
        NotConvergedWarning: of each architecture whose capacity may still grow.

    Examples:
        Two steps are no training: nothing is held.

        >>> import warnings
        >>> from memorization.lab.architectures import Architecture
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     found = compare_capacities(
        ...         [Architecture("lstm", width=4), Architecture("gru", width=4)], vocab_size=16, seq_len=8,
        ...         names=["lstm", "gru"], n_samples=[100], steps=2, peak_lr=1e-6, progress=False
        ...     )  # fmt: skip
        >>> list(found.capacities), found["gru"].n_params.tolist()
        (['lstm', 'gru'], [176])

    Source: arXiv:2505.24832, section 3, on GPT-2 style models alone.
    """
    given = list_of_builders("build_models", build_models)
    builders = dict(zip(_names(given, names), given, strict=True))
    n_params = {name: _n_params(build, vocab_size, seq_len) for name, build in builders.items()}
    anchors = {}
    for name, wanted in n_params.items() if anchor else ():
        equal = solve_width("gpt2", wanted, vocab_size=vocab_size, seq_len=seq_len)
        known = [other for other, build in builders.items() if build == equal]
        anchors[name] = known[0] if known else f"GPT-2 of {_n_params(equal, vocab_size, seq_len):,} parameters"
        builders.setdefault(anchors[name], equal)
    anchors |= {name: name for name in builders if anchor and name not in anchors}
    capacities: dict[str, Capacity] = {
        name: capacity_bits_per_param(build, vocab_size=vocab_size, seq_len=seq_len, **options)
        for name, build in builders.items()
    }
    return CapacityComparison(capacities, anchors, {"vocab_size": vocab_size, "seq_len": seq_len})


def _n_params(build: Builder, vocab_size: int, seq_len: int) -> int:
    return known_builder(build, vocab_size, seq_len).params.trainable


def _names(builders: Sequence[Builder], names: Sequence[str] | None) -> list[str]:
    found = [name_of(build) for build in builders] if names is None else list(names)
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in found):
        raise InputError(f"names must be a list of one text for each architecture; {names!r} came.")
    if len(found) != len(builders):
        raise InputError(
            f"names must have one name for each of the {len(builders)} architectures; there are {len(found)}."
        )
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise InputError(
            f"two architectures are called {twice[0]}: results could not be told apart. Give each a name of its own: "
            "names=[...]."
        )
    return found
