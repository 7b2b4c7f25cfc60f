"""Gradient clipping, and Adam, AdamW, SGD and RMSprop, on one flat parameter vector: pure functions."""

from typing import NamedTuple

import torch
from torch import Tensor

from ppo_cli.optimizers.optimizer import Shapes

ADAM_EPS = 1e-5  # Baselines' value; PyTorch's 1e-8 is not what "PPO" means (37 details, no. 3)


def clip_by_norm(grad: Tensor, max_norm: float | Tensor) -> tuple[Tensor, Tensor]:
    """Gradient scaled so that its 2-norm is at most ``max_norm`` (> 0).

    Args:
        grad: The gradient, [P].
        max_norm: The largest norm; infinity for no clipping.

    Returns:
        The clipped gradient [P] and the norm before clipping, a scalar.
    """
    norm = grad.norm()
    # side by side in memory, or compiled code computes them anew for every few parameters
    norm, scale = torch.stack([norm, torch.clamp((norm + 1e-6).reciprocal() * max_norm, max=1.0)]).unbind()
    return grad * scale, norm


class AdamState(NamedTuple):
    """First and second moments, both [P], and the number of steps taken, a float scalar."""

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor


def adam_init(params: Tensor, shapes: Shapes = ()) -> AdamState:
    """The state before the first step, for parameters [P]."""
    return AdamState(
        torch.zeros_like(params), torch.zeros_like(params), torch.zeros((), device=params.device)
    )


def adam(
    params: Tensor,
    grad: Tensor,
    state: AdamState,
    learning_rate: float | Tensor,
    shapes: Shapes = (),
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = ADAM_EPS,
) -> tuple[Tensor, AdamState]:
    r"""One step of Adam (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1).

        m = β1 m + (1 - β1) g,  v = β2 v + (1 - β2) g²
        θ = θ - α (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + ε)

    Args:
        params: The parameters θ, [P].
        grad: The gradient g, [P].
        state: The moments m and v, and t - 1.
        learning_rate: The learning rate α ≥ 0.
        shapes: The shapes of the parameters; of no influence.
        betas: The decay rates of the two moments.
        eps: The constant ε > 0 of the denominator.

    Returns:
        The new parameters and state.
    """
    beta1, beta2 = betas
    step = state.step + 1
    exp_avg = torch.lerp(state.exp_avg, grad, 1 - beta1)
    exp_avg_sq = state.exp_avg_sq * beta2 + (1 - beta2) * grad * grad
    # side by side, as in `clip_by_norm`
    step_size, correction = torch.stack([learning_rate / (1 - beta1**step), 1 - beta2**step]).unbind()
    denominator = (exp_avg_sq / correction).sqrt() + eps
    return params - step_size * exp_avg / denominator, AdamState(exp_avg, exp_avg_sq, step)


def adamw(
    params: Tensor,
    grad: Tensor,
    state: AdamState,
    learning_rate: float | Tensor,
    shapes: Shapes = (),
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = ADAM_EPS,
    weight_decay: float = 0.01,
) -> tuple[Tensor, AdamState]:
    r"""One step of AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2).

        θ = (1 - α λ) θ, then `adam`

    Args:
        params: The parameters θ, [P].
        grad: The gradient g, [P].
        state: The state of `adam`.
        learning_rate: The learning rate α ≥ 0.
        shapes: The shapes of the parameters; of no influence.
        betas: The decay rates, as for `adam`.
        eps: The constant ε, as for `adam`.
        weight_decay: The weight decay λ ≥ 0.

    Returns:
        The new parameters and state.
    """
    return adam(params * (1 - learning_rate * weight_decay), grad, state, learning_rate, shapes, betas, eps)


class MomentumState(NamedTuple):
    """The running direction, [P]."""

    momentum_buffer: Tensor


def sgd_init(params: Tensor, shapes: Shapes = ()) -> MomentumState:
    """The state before the first step, for parameters [P]."""
    return MomentumState(torch.zeros_like(params))


def sgd(
    params: Tensor,
    grad: Tensor,
    state: MomentumState,
    learning_rate: float | Tensor,
    shapes: Shapes = (),
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> tuple[Tensor, MomentumState]:
    r"""One step of gradient descent with momentum (Sutskever et al. 2013), as `torch.optim.SGD` writes it.

        g = g + λ θ,  b = μ b + g,  θ = θ - α b, or θ - α (g + μ b) with Nesterov's momentum

    Args:
        params: The parameters θ, [P].
        grad: The gradient g, [P].
        state: The running direction b.
        learning_rate: The learning rate α ≥ 0.
        shapes: The shapes of the parameters; of no influence.
        momentum: The momentum μ in [0, 1).
        nesterov: Whether the step looks ahead.
        weight_decay: The weight decay λ ≥ 0.

    Returns:
        The new parameters and state.
    """
    grad = grad + weight_decay * params
    buffer = momentum * state.momentum_buffer + grad
    direction = grad + momentum * buffer if nesterov else buffer
    return params - learning_rate * direction, MomentumState(buffer)


class RMSpropState(NamedTuple):
    """Second moment and running direction, both [P]."""

    square_avg: Tensor
    momentum_buffer: Tensor


def rmsprop_init(params: Tensor, shapes: Shapes = ()) -> RMSpropState:
    """The state before the first step, for parameters [P]."""
    return RMSpropState(torch.zeros_like(params), torch.zeros_like(params))


def rmsprop(
    params: Tensor,
    grad: Tensor,
    state: RMSpropState,
    learning_rate: float | Tensor,
    shapes: Shapes = (),
    alpha: float = 0.99,
    eps: float = 1e-5,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Tensor, RMSpropState]:
    r"""One step of RMSprop (Hinton's lecture 6e), as `torch.optim.RMSprop` writes it.

        g = g + λ θ,  v = a v + (1 - a) g²,  b = μ b + g / (sqrt(v) + ε),  θ = θ - α b

    Args:
        params: The parameters θ, [P].
        grad: The gradient g, [P].
        state: The second moment v and the direction b.
        learning_rate: The learning rate α ≥ 0.
        shapes: The shapes of the parameters; of no influence.
        alpha: The decay rate a of the second moment.
        eps: The constant ε > 0 of the denominator; Baselines' 1e-5.
        momentum: The momentum μ in [0, 1).
        weight_decay: The weight decay λ ≥ 0.

    Returns:
        The new parameters and state.
    """
    grad = grad + weight_decay * params
    square_avg = alpha * state.square_avg + (1 - alpha) * grad * grad
    buffer = momentum * state.momentum_buffer + grad / (square_avg.sqrt() + eps)
    return params - learning_rate * buffer, RMSpropState(square_avg, buffer)
