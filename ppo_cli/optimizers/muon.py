"""Muon, on one flat parameter vector of matrices and the rest: pure functions."""

from typing import NamedTuple

import torch
from torch import Tensor

from ppo_cli.optimizers.optimizer import Shapes
from ppo_cli.optimizers.rules import ADAM_EPS, AdamState, adam_init, adamw

# Of the iteration a x + b x³ + c x⁵, which brings the singular values in (0, 1] near 1 (Jordan et al. 2024).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class MuonState(NamedTuple):
    """Running direction and Adam's two moments, each [P], and the number of steps taken, a float scalar."""

    momentum_buffer: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor


def muon_init(params: Tensor, shapes: Shapes) -> MuonState:
    """The state before the first step, for parameters [P]."""
    return MuonState(torch.zeros_like(params), *adam_init(params))


def muon(
    params: Tensor,
    grad: Tensor,
    state: MuonState,
    learning_rate: float | Tensor,
    shapes: Shapes,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = ADAM_EPS,
) -> tuple[Tensor, MuonState]:
    r"""One step of Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), on every matrix.

        b = μ b + (1 - μ) g,  d = (1 - μ) g + μ b with Nesterov's momentum, else b
        Θ = (1 - α λ) Θ - 0.2 α sqrt(max(rows, columns)) orthogonalize(D)

    What is no matrix takes a step of `adamw`. A kernel [out, ...] is the matrix [out, rest]. The factor gives
    the step of a matrix the size of Adam's, so that one learning rate serves both
    (Liu et al. 2025, https://arxiv.org/abs/2502.16982, eq. 4).

    Args:
        params: The parameters θ, [P].
        grad: The gradient g, [P].
        state: The running direction b, and the state of `adam`.
        learning_rate: The learning rate α ≥ 0.
        shapes: The shapes of the parameters, in order.
        momentum: The momentum μ in [0, 1).
        nesterov: Whether the step looks ahead.
        ns_steps: The number of iterations of `orthogonalize`.
        weight_decay: The weight decay λ ≥ 0, of all parameters.
        betas: Adam's, of what is no matrix.
        eps: Adam's, likewise.

    Returns:
        The new parameters and state.
    """
    buffer = torch.lerp(state.momentum_buffer, grad, 1 - momentum)
    direction = torch.lerp(grad, buffer, momentum) if nesterov else buffer
    adam_state = AdamState(state.exp_avg, state.exp_avg_sq, state.step)
    by_adam, adam_state = adamw(params, grad, adam_state, learning_rate, shapes, betas, eps, weight_decay)
    decayed = params * (1 - learning_rate * weight_decay)
    sizes = [shape.numel() for shape in shapes]
    pieces = zip(shapes, by_adam.split(sizes), decayed.split(sizes), direction.split(sizes), strict=True)
    moved = []
    for shape, vector, old, along in pieces:
        if len(shape) < 2:
            moved.append(vector)
            continue
        matrix = orthogonalize(along.view(shape[0], -1), ns_steps)
        step_size = 0.2 * max(matrix.shape) ** 0.5 * learning_rate
        moved.append(old - step_size * matrix.flatten())
    return torch.cat(moved), MuonState(buffer, *adam_state)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    r"""A matrix [R, C] with its singular values brought near 1, U V^T of U S V^T, by a quintic iteration.

    X = X / |X|, then steps times X = a X + (b X X^T + c (X X^T)²) X (Jordan et al. 2024).
    """
    a, b, c = NEWTON_SCHULZ
    rows, columns = matrix.shape
    x = matrix.T if rows > columns else matrix  # the smaller of the two products
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    orthogonal: Tensor = x.T if rows > columns else x
    return orthogonal
