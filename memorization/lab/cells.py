"""A training run as a cell: what determines it, how it is trained beside others, and its outcome."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from memorization.lab.builders import Builder, build_seeded, stream
from memorization.lab.compiled import can_compile, train_compiled
from memorization.lab.stack import RECIPE, RECIPE_IN_WORDS, StackTraining, train_stack, training_mode
from memorization.lab.vmapped import can_stack
from memorization.measure.opening import DeviceLike

__all__ = [
    "Cell",
    "OnSteps",
    "Outcome",
    "Run",
    "Work",
    "device_of",
    "experiment",
    "measure_each",
    "stackable",
    "train_cells",
    "train_cells_compiled",
]


@dataclass(frozen=True, slots=True)
class Cell:
    """What determines a training run, apart from what all runs of its experiment have in common.

    Attributes:
        model: identity of the builder.
        n_params: of the model.
        n_samples: of its data set.
        seed: of weights, data and the order of samples.
        peak_lr: learning rate at the end of the warm-up.
        steps: optimizer steps.
        batch_size: samples a step.
        part: which part of the experiment the run is of, where it has several: "pilot", "oracle without fold 1 of 2".
    """

    model: str
    n_params: int
    n_samples: int
    seed: int
    peak_lr: float
    steps: int
    batch_size: int
    part: str = "run"

    def record(self) -> dict[str, Any]:
        """The same as JSON: the run's identity in a store."""
        return asdict(self)


Result = Mapping[str, Any]  # as JSON
Run = dict[str, Any]  # a cell and its result, as JSON
Outcome = Result | Exception  # what came of a cell, or the error that its measurement ended with
OnSteps = Callable[[int], object]
Work = Callable[
    [Sequence[Cell], OnSteps], Sequence[Outcome]
]  # trains a stack of cells and measures each; plain data in and out


def device_of(device: DeviceLike | None) -> torch.device:
    """The device that was named; else a GPU if there is one."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def experiment(measures: str, device: torch.device, dtype: str = "float32", **facts: Any) -> dict[str, Any]:
    """What all cells of a store have in common: the facts given, and what every number here depends on.

    Of torch the version counts without its last part, and of this library the recipe, which changes when numbers do:
    patch releases of either leave a store as it is.
    """
    release = ".".join(torch.__version__.split("+")[0].split(".")[:2])
    by = {"dtype": dtype, "device": device.type, "training": RECIPE_IN_WORDS, "recipe": RECIPE, "torch": release}
    return {"measures": measures, **by, **facts}


def stackable(
    build: Builder,
    vocab_size: int,
    seq_len: int,
    device: torch.device,
    weights: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
) -> bool:
    """Whether vmap runs a builder's models; to be asked before any worker starts."""
    models = [build_seeded(build, vocab_size, seq_len, seed).to(device, weights) for seed in (0, 1)]
    inputs = torch.randint(vocab_size, (2, 2, seq_len), generator=torch.Generator().manual_seed(0))
    with training_mode(models):
        return can_stack(models, inputs.to(device), autocast)


def train_cells(
    cells: Sequence[Cell],
    data: Sequence[Int[Tensor, "_ position"]],
    *,
    build: Builder,
    vocab_size: int,
    context: int,
    device: torch.device,
    stacked: bool,
    on_steps: OnSteps | None,
    weights: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
    orders: Sequence[int] | None = None,
    weight_decay: float = 0.0,
    soap: bool = False,
) -> tuple[list[nn.Module], StackTraining]:
    """The models of these cells, of one number of steps and one batch size, trained as one stack on `device`."""
    models = _built(cells, data, build, vocab_size, device, weights)
    done = train_stack(
        models,
        data,
        context=context,
        steps=cells[0].steps,
        batch_size=cells[0].batch_size,
        peak_lrs=[cell.peak_lr for cell in cells],
        seeds=orders or [stream("order", cell.seed) for cell in cells],
        weight_decay=weight_decay,
        soap=soap,
        autocast=autocast,
        stacked=stacked,
        on_steps=on_steps,
    )
    return models, done


def train_cells_compiled(
    cells: Sequence[Cell],
    data: Sequence[Int[Tensor, "_ position"]],
    *,
    build: Builder,
    vocab_size: int,
    context: int,
    on_steps: OnSteps | None,
    weight_decay: float,
) -> tuple[list[nn.Module], list[StackTraining]]:
    """The same in compiled code, which trains one model after another."""
    built = _built(cells, data, build, vocab_size, torch.device("cpu"), torch.float32)
    models = [model for model in built if can_compile(model)]
    assert len(models) == len(built), "to be asked before"
    done = [
        train_compiled(
            model,
            ids,
            context=context,
            steps=cell.steps,
            batch_size=cell.batch_size,
            peak_lr=cell.peak_lr,
            seed=stream("order", cell.seed),
            weight_decay=weight_decay,
            on_steps=on_steps,
        )
        for cell, model, ids in zip(cells, models, data, strict=True)
    ]
    return built, done


def _built(
    cells: Sequence[Cell],
    data: Sequence[Int[Tensor, "_ position"]],
    build: Builder,
    vocab_size: int,
    device: torch.device,
    weights: torch.dtype,
) -> list[nn.Module]:
    seq_len = data[0].shape[1]
    return [build_seeded(build, vocab_size, seq_len, cell.seed).to(device, weights) for cell in cells]


def measure_each(measure: Callable[..., Result], *arguments: Iterable[Any]) -> list[Outcome]:
    """Measure each model, whatever happens to another: an error is returned in place of its result."""
    outcomes: list[Outcome] = []
    for each in zip(*arguments, strict=True):
        try:
            outcomes.append(measure(*each))
        except Exception as error:
            outcomes.append(error)
    return outcomes
