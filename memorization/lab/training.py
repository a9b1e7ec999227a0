"""Train a causal language model on samples of equal length until it has memorized what it can."""

import math
import sys
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

__all__ = ["train"]


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
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    max_grad_norm: float | None = None,
    progress: bool = True,
    description: str = "train",
) -> Float[Tensor, " step"]:
    r"""Train `model` in place to predict every token of `ids`; returns bits per token at each step.

    The model reads `[context, x_1, ..., x_(S-1)]` and predicts `x_1, ..., x_S`: the first token is learned like the
    others, which is what measuring with the same context token as first_token then charges for. AdamW; the learning
    rate rises linearly over `warmup_steps`, then falls linearly and would be zero one step after the last. Samples come
    in shuffles of the whole set, so each is seen as often as any other, give or take one.

    Args:
        model: maps int64 ids (batch, position) to logits (batch, position, vocabulary) or to an object with
            `.logits`. Set its dropout to 0: dropout is noise against memorizing, and draws from torch's global RNG.
        ids: int64 token ids, one row a sample of S tokens; batches are moved to the model's device.
        context: the token id that stands before each sample, read and not predicted.
        steps: optimizer steps.
        batch_size: samples a step, at most the number of samples.
        peak_lr: learning rate at the end of the warm-up.
        seed: of the order of the samples.
        warmup_steps: steps of the linear rise; at most half of `steps` are used.
        betas: of AdamW.
        weight_decay: of AdamW, per unit of learning rate.
        max_grad_norm: scale larger gradients down to this norm; None leaves them.
        progress: a bar on stderr with the mean bits per token of the last steps.
        description: what the bar calls this training.

    Returns:
        float64, on the CPU: mean bits per token of each step's batch, before that step's update.

    Raises:
        ValueError: no steps, no samples, or a batch larger than the set of samples.
        FloatingPointError: bits per token are no longer finite; names the step.

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
    if steps < 1 or n_samples < 1 or n_positions < 1:
        raise ValueError(f"training needs a step, a sample and a token; got steps={steps}, ids of {tuple(ids.shape)}")
    if not 1 <= batch_size <= n_samples:
        raise ValueError(f"batch_size must lie in [1, {n_samples}], the number of samples; got {batch_size}")
    device = next(model.parameters()).device
    inputs = torch.cat([torch.full_like(ids[:, :1], context), ids[:, :-1]], dim=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, betas=betas, weight_decay=weight_decay, fused=True)
    rise = min(warmup_steps, steps // 2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: fraction_of_peak(step, steps, rise))
    # Kept where the model is and read once at the end: reading a number each step would make a GPU wait for each step.
    bits = torch.empty(steps, dtype=torch.float32, device=device)
    modes = {module: module.training for module in model.modules()}
    model.train()
    try:
        bar = tqdm(range(steps), desc=description, unit="step", disable=not progress, file=sys.stderr, mininterval=0.5)
        for step, chosen in zip(bar, _batches(n_samples, batch_size, seed, ids.device), strict=False):
            output = model(inputs[chosen].to(device))
            logits = getattr(output, "logits", output)
            nats = nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[chosen].to(device).flatten())
            optimizer.zero_grad()
            nats.backward()
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
            optimizer.step()
            schedule.step()
            bits[step] = nats.detach() / math.log(2)
            if step % 50 == 49 or step == steps - 1:
                recent = bits[max(0, step - 49) : step + 1].mean().item()
                bar.set_postfix_str(f"{recent:.3f} bits/token", refresh=False)
                if not math.isfinite(recent):
                    first = int((~torch.isfinite(bits[: step + 1])).nonzero()[0])
                    raise FloatingPointError(
                        f"training diverged at step {first} of {steps}: bits per token are {bits[first].item()}; "
                        f"try a lower peak_lr than {peak_lr}, or max_grad_norm=1"
                    )
    finally:
        optimizer.zero_grad()
        for module, training in modes.items():
            module.training = training
    return bits.cpu().double()


def fraction_of_peak(step: int, steps: int, rise: int) -> float:
    """Learning rate of a step (counted from 0) as a fraction of the peak."""
    return (step + 1) / (rise + 1) if step < rise else (steps - step) / (steps - rise)


def _batches(n_samples: int, batch_size: int, seed: int, device: torch.device) -> Iterator[Int[Tensor, " batch"]]:
    """Endless batches of sample indices, cut from one shuffle of all samples after another."""
    generator = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        if len(waiting) < batch_size:
            waiting = torch.cat([waiting, torch.randperm(n_samples, generator=generator)])
        yield waiting[:batch_size].to(device)
        waiting = waiting[batch_size:]
