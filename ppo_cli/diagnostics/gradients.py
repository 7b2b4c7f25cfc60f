"""What the parts of the loss want of the weights, and how sure the rows are of it."""

import math
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ppo_cli.distributions import Distribution
from ppo_cli.rollout import Batch, minibatches, sequences
from ppo_cli.update import Forward, Hyperparameters, ppo_loss

SAMPLE = 512  # rows of a rollout that the network is looked at with
CHUNKS = 4  # small batches that they are cut into, for the gradient's noise


class Sample(NamedTuple):
    """Some rows of a batch, in chunks of one size, one after the other.

    Attributes:
        batch: The rows, [B, ...].
        weights: 1 for a row that counts, 0 for padding, [B].
        chunk: The number of rows of a chunk.
    """

    batch: Batch
    weights: Tensor
    chunk: int


def draw_sample(batch: Batch, valid: Tensor, length: int, generator: Generator) -> Sample:
    """At most about `SAMPLE` rows of a batch, drawn without replacement as a minibatch's are.

    Args:
        batch: The batch, [T*N, ...].
        valid: Whether a row is a transition, bool [T, N].
        length: The steps L that a memory is trained through at a time.
        generator: Draws them, on the CPU.
    """
    cut = sequences(valid, length)
    size = max(1, min(SAMPLE, cut.total) // CHUNKS)
    rows, weights = zip(*islice(minibatches(cut, size, generator), CHUNKS), strict=True)
    device = batch.returns.device
    indices = torch.cat(rows).to(device)
    chosen = batch.with_columns(column[indices] for column in batch.columns)
    return Sample(chosen, torch.cat(weights).to(device), len(rows[0]))


class Gradients(NamedTuple):
    """Gradients of the loss and of its parts, each weighted as it is in the loss.

    Attributes:
        total: ∇L over all rows, [P].
        policy: ∇L^policy, [P].
        value: c_1 ∇L^VF, [P].
        entropy: -c_2 ∇S, [P].
        small_squares: The means over the chunks of the squared norms that these four have on one chunk, [4].
        small: The mean number of rows of a chunk that count.
        big: The number of all rows that count.
    """

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    small_squares: Tensor
    small: float
    big: float


def loss_gradients(
    forward: Forward,
    params: Tensor,
    sample: Sample,
    coefs: dict[str, Tensor],
    distribution: Distribution,
    hyper: Hyperparameters,
) -> Gradients:
    """Gradients on a sample, chunk by chunk, and their means weighted by what counts.

    Args:
        forward: What `ppo_cli.update.make_forward` made.
        params: The parameters, [P].
        sample: The rows, their advantages normalised together if that is on.
        coefs: The values of the annealed knobs by name.
        distribution: The distribution of the actions.
        hyper: The constant knobs.
    """
    params = params.detach().requires_grad_()
    sums, squares = params.new_zeros(4, len(params)), []
    chunks = zip(
        *(column.split(sample.chunk) for column in (*sample.batch.columns, sample.weights)), strict=True
    )
    for *columns, weights in chunks:
        chunk = sample.batch.with_columns(columns)
        parts = ppo_loss(forward(params, chunk, weights, coefs), coefs, distribution, hyper)
        losses = (
            parts["total_loss"],
            parts["policy_loss"],
            coefs["vf_coef"] * parts["value_loss"],
            -coefs["ent_coef"] * parts["entropy"],
        )
        gradients = torch.stack([_gradient(loss, params) for loss in losses])
        sums += weights.sum() * gradients
        squares.append(gradients.square().sum(1))
    big = sample.weights.sum()
    rows = big.item()
    total, policy, value, entropy = (sums / big).unbind()
    return Gradients(total, policy, value, entropy, torch.stack(squares).mean(0), rows / len(squares), rows)


def _gradient(loss: Tensor, params: Tensor) -> Tensor:
    """Of one part, zero where it depends on no parameter."""
    if not loss.requires_grad:
        return torch.zeros_like(params)
    (gradient,) = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
    return torch.zeros_like(params) if gradient is None else gradient


def cosine(first: Tensor, second: Tensor) -> float:
    """⟨a, b⟩ / (|a| |b|) of two vectors [P]; NaN where one is zero."""
    return float(first @ second / (first.norm() * second.norm()))


def shared(first: Tensor, second: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Those parameters' entries of two gradients [P] that both reach: a shared encoder's or trunk's.

    Args:
        first: One gradient.
        second: The other.
        sizes: The number of entries of each parameter, in the order of the vector.
    """
    reached = [
        torch.stack([part.any() for part in gradient.split(list(sizes))]) for gradient in (first, second)
    ]
    both = (reached[0] & reached[1]).repeat_interleave(torch.tensor(sizes, device=first.device))
    return first[both], second[both]


def noise_scale(small_square: Tensor, big_square: Tensor, small: float, big: float) -> float:
    """B_simple = tr(Σ) / |G|², the batch size at which noise and gradient are as large as each other.

        |G|² ≈ (B |G_B|² - b |G_b|²) / (B - b)        tr(Σ) ≈ (|G_b|² - |G_B|²) / (1/b - 1/B)

    (McCandlish et al. 2018, https://arxiv.org/abs/1812.06162, appendix A.1.)

    Args:
        small_square: |G_b|², the mean over gradients of b rows each.
        big_square: |G_B|², of the gradient of all B rows.
        small: b.
        big: B.

    Returns:
        The scale in rows; NaN where an estimate is not above 0, and no gradient is seen for noise.
    """
    if not 0 < small < big:
        return math.nan
    square = (big * big_square - small * small_square).item() / (big - small)
    variance = (small_square - big_square).item() / (1 / small - 1 / big)
    return variance / square if square > 0 and variance > 0 else math.nan
