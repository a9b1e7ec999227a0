"""Train one causal language model on samples of equal length: the trainer of the lab with a stack of one."""

from jaxtyping import Float32, Float64, Int
from torch import Tensor, nn

from memorization.errors import DivergedError, InputError
from memorization.integers import check_integer
from memorization.lab.options import check_positive
from memorization.lab.stack import trained
from memorization.progress import progress_bar
from memorization.renamed import renamed_keywords

__all__ = ["train"]


@renamed_keywords(betas="", weight_decay="", description="name")
def train(
    model: nn.Module,
    ids: Int[Tensor, "sample position"],
    *,
    context: int,
    steps: int,
    batch_size: int,
    peak_lr: float,
    seed: int,
    warmup_steps: int = 100,
    max_grad_norm: float | None = None,
    progress: bool = True,
    name: str | None = None,
) -> Float64[Tensor, " step"]:
    r"""Train `model` in place to predict every token of `ids`; returns bits per token at each step.

    As `train_stack` trains many: the model reads `[context, x_1, ..., x_(S-1)]` and predicts `x_1, ..., x_S`, so the
    first token is learned like the others, which is what measuring with the same context token as first_token then
    charges for.

    Args:
        model: maps int64 ids (batch, position) to logits (batch, position, vocabulary) or to an object with
            `.logits`. Set its dropout to 0: dropout is noise against memorizing, and draws from torch's global RNG.
        ids: int64 token ids, one row a sample of S tokens; moved to the model's device.
        context: the token id that stands before each sample, read and not predicted.
        steps: optimizer steps.
        batch_size: samples a step, at most the number of samples.
        peak_lr: learning rate at the end of the warm-up.
        seed: of the order of the samples.
        warmup_steps: steps of the linear rise; at most half of `steps` are used.
        max_grad_norm: scale larger gradients down to this norm; None leaves them.
        progress: a bar on stderr with the mean bits per token of the last steps.
        name: of the bar; None: the number of parameters.

    Returns:
        float64, on the CPU: mean bits per token of each step's batch, before that step's update.

    Raises:
        InputError: no steps, no samples, or a batch larger than the set of samples.
        DivergedError: bits per token are no longer finite; names the step.

    Guarantees:
        The train/eval state of each submodule is as it was, gradients are gone, and, for a model without dropout,
        torch's global RNG has not moved.

    Examples:
        A model that is told nothing learns the empirical entropy; three zeros and a one carry 0.811 bits.

        >>> import torch
        >>> class Unigram(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.logits = torch.nn.Parameter(torch.zeros(2))
        ...
        ...     def forward(self, ids):
        ...         return self.logits.expand(*ids.shape, 2)
        >>> ids = torch.tensor([[0, 0], [0, 1]])
        >>> bits = train(Unigram(), ids, context=0, steps=400, batch_size=2, peak_lr=0.1, seed=0, progress=False)
        >>> round(bits[-1].item(), 3)
        0.811
    """
    n_samples, n_positions = ids.shape
    steps, batch_size = check_integer("steps", steps), check_integer("batch_size", batch_size)
    context, seed = check_integer("context", context, at_least=0), check_integer("seed", seed, at_least=None)
    warmup_steps = check_integer("warmup_steps", warmup_steps, at_least=0)
    peak_lr = check_positive("peak_lr", peak_lr)
    if max_grad_norm is not None:
        max_grad_norm = check_positive("max_grad_norm", max_grad_norm, besides="None")
    if n_samples < 1 or n_positions < 1:
        raise InputError(f"training needs a sample and a token; got ids of {tuple(ids.shape)}.")
    if not 1 <= batch_size <= n_samples:
        raise InputError(f"batch_size must lie in [1, {n_samples}], the number of samples; got {batch_size}.")
    n_params = sum(parameter.numel() for parameter in model.parameters())
    with progress_bar(steps, name or f"{n_params:,} parameters", unit="step", shown=progress) as bar:

        def look(n_steps: int, bits: Float32[Tensor, "model looked"]) -> None:
            if progress:
                bar.set_postfix_str(f"{float(bits.mean()):.3f} bits/token", refresh=False)
            bar.update(n_steps)

        done = trained(
            [model],
            [ids],
            context=context,
            steps=steps,
            batch_size=batch_size,
            peak_lrs=[peak_lr],
            seeds=[seed],
            warmup_steps=warmup_steps,
            max_grad_norm=max_grad_norm,
            autocast=None,
            stacked=False,
            look=look,
        )
    first = int(done.diverged_at[0])
    if first >= 0:
        raise DivergedError(
            f"training diverged at step {first} of {steps}: bits per token are {float(done.step_bits[0, first])}; "
            f"try a lower peak_lr than {peak_lr}, or max_grad_norm=1."
        )
    return done.step_bits[0]
