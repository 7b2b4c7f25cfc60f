"""Flat Adam and gradient clipping against torch.optim and torch.nn.utils."""

import pytest
import torch

from ppo_cli.optimizers import adam, adam_init, clip_by_norm


def gradient(seed: int, n: int = 200) -> torch.Tensor:
    """Gradients from 1e-6 to 1, so that eps matters for some."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=generator) * torch.logspace(-6, 0, n)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_adam_follows_torch(as_tensor: bool) -> None:
    start = gradient(99)
    theirs = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], eps=1e-5)
    ours, state = start.clone(), adam_init(start)
    for step in range(60):
        learning_rate = 1e-2 * (1 - step / 60)  # annealed
        theirs.grad = gradient(step)
        optimizer.param_groups[0]["lr"] = learning_rate
        optimizer.step()
        ours, state = adam(
            ours, gradient(step), state, torch.tensor(learning_rate) if as_tensor else learning_rate
        )
        # an update is at most about 1e-2: 1e-6 is 1 part in 10 000 of it
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)
    stored = optimizer.state[theirs]
    torch.testing.assert_close(state.exp_avg, stored["exp_avg"])
    torch.testing.assert_close(state.exp_avg_sq, stored["exp_avg_sq"])
    assert state.step == stored["step"] == 60


def test_first_step_moves_every_parameter_by_the_learning_rate() -> None:
    params, grad = torch.zeros(3), torch.tensor([2.0, -300.0, 5e4])
    moved, _ = adam(params, grad, adam_init(params), 0.01)
    assert moved.tolist() == pytest.approx([-0.01, 0.01, -0.01], rel=1e-4)


def test_adam_is_pure() -> None:
    params, grad = gradient(1), gradient(2)
    state = adam_init(params)
    copies = [tensor.clone() for tensor in (params, grad, *state)]
    first, first_state = adam(params, grad, state, 1e-3)
    second, _ = adam(params, grad, state, 1e-3)
    for tensor, copy in zip((params, grad, *state), copies, strict=True):
        assert torch.equal(tensor, copy)
    assert torch.equal(first, second)
    assert first_state.step == 1


def test_learning_rate_zero_leaves_parameters_alone() -> None:
    params = gradient(1)
    moved, state = adam(params, gradient(2), adam_init(params), 0.0)
    assert torch.equal(moved, params)
    assert state.step == 1


def test_zero_gradient_from_the_start_stays_put() -> None:
    params = gradient(1)
    moved, _ = adam(params, torch.zeros_like(params), adam_init(params), 1e-3)
    assert torch.equal(moved, params)


@pytest.mark.parametrize("max_norm", [1e-3, 0.5, 100.0, float("inf")])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e4])
def test_clip_by_norm_matches_torch(max_norm: float, scale: float) -> None:
    grad = gradient(3) * scale
    pieces = [
        torch.zeros_like(piece).requires_grad_() for piece in grad.split([50, 1, 149])
    ]  # several parameters
    for parameter, piece in zip(pieces, grad.split([50, 1, 149]), strict=True):
        parameter.grad = piece.clone()
    their_norm = torch.nn.utils.clip_grad_norm_(pieces, max_norm)
    clipped, norm = clip_by_norm(grad, max_norm)
    torch.testing.assert_close(norm, their_norm)
    torch.testing.assert_close(clipped, torch.cat([parameter.grad for parameter in pieces]))
    assert clipped.norm().item() <= max_norm * (1 + 1e-6)


def test_small_gradients_are_left_as_they_are() -> None:
    grad = torch.tensor([0.03, -0.04])
    clipped, norm = clip_by_norm(grad, 0.5)
    assert torch.equal(clipped, grad)
    assert norm.item() == pytest.approx(0.05)


def test_a_zero_gradient_stays_zero() -> None:
    clipped, norm = clip_by_norm(torch.zeros(4), 0.5)
    assert (clipped == 0).all()
    assert norm == 0
