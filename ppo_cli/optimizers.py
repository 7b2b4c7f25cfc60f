"""Gradient clipping and Adam on one flat parameter vector: pure functions."""

from typing import NamedTuple

import torch
from torch import Tensor

ADAM_EPS = 1e-5  # Baselines' value; PyTorch's 1e-8 is not what "PPO" means (37 details, no. 3)


class AdamState(NamedTuple):
    """First and second moments, both [P], and the number of steps taken, a float scalar."""

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor


def adam_init(params: Tensor) -> AdamState:
    """The state before the first step, for parameters [P]."""
    return AdamState(
        torch.zeros_like(params), torch.zeros_like(params), torch.zeros((), device=params.device)
    )


def clip_by_norm(grad: Tensor, max_norm: float) -> tuple[Tensor, Tensor]:
    """Gradient scaled so that its 2-norm is at most ``max_norm`` (> 0).

    Args:
        grad: [P].
        max_norm: the largest norm; infinity for no clipping.

    Returns:
        The clipped gradient [P] and the norm before clipping, a scalar.
    """
    norm = grad.norm()
    return grad * torch.clamp(max_norm / (norm + 1e-6), max=1.0), norm


def adam(
    params: Tensor,
    grad: Tensor,
    state: AdamState,
    learning_rate: float | Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = ADAM_EPS,
) -> tuple[Tensor, AdamState]:
    r"""One step of Adam (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1).

        m = β1 m + (1 - β1) g,  v = β2 v + (1 - β2) g²
        θ = θ - α (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + ε)

    Args:
        params: θ, [P].
        grad: g, [P].
        state: m, v and t - 1.
        learning_rate: α ≥ 0.
        betas: decay rates of the two moments.
        eps: ε > 0.

    Returns:
        The new parameters and state.
    """
    beta1, beta2 = betas
    step = state.step + 1
    exp_avg = torch.lerp(state.exp_avg, grad, 1 - beta1)
    exp_avg_sq = state.exp_avg_sq * beta2 + (1 - beta2) * grad * grad
    step_size = learning_rate / (1 - beta1**step)
    denominator = (exp_avg_sq / (1 - beta2**step)).sqrt() + eps
    return params - step_size * exp_avg / denominator, AdamState(exp_avg, exp_avg_sq, step)
