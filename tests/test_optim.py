"""The optimizers and gradient clipping on a flat vector against torch.optim and torch.nn.utils."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ppo_cli.optimizers import OPTIMIZERS
from ppo_cli.optimizers.muon import orthogonalize
from ppo_cli.optimizers.optimizer import restored
from ppo_cli.optimizers.rules import adam, adam_init, clip_by_norm

Matrix = npt.NDArray[np.float64]


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


SHAPES = [torch.Size(shape) for shape in ((6, 4), (6,), (3, 6), (2, 3, 2, 2), ())]
SIZES = [shape.numel() for shape in SHAPES]
SETTINGS = [
    ("adamw", torch.optim.AdamW, {"weight_decay": 0.1, "eps": 1e-5}, {"weight_decay": 0.1}),
    ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.9), "eps": 1e-8}, {"betas": (0.8, 0.9), "eps": 1e-8}),
    ("adam", torch.optim.Adam, {"betas": (0.5, 0.9), "eps": 1e-3}, {"betas": [0.5, 0.9], "eps": 1e-3}),
    ("sgd", torch.optim.SGD, {}, {}),
    ("sgd", torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}, {"momentum": 0.9, "weight_decay": 0.1}),
    ("sgd", torch.optim.SGD, {"momentum": 0.8, "nesterov": True}, {"momentum": 0.8, "nesterov": True}),
    ("rmsprop", torch.optim.RMSprop, {"eps": 1e-5}, {}),
    (
        "rmsprop",
        torch.optim.RMSprop,
        {"alpha": 0.9, "eps": 1e-3, "momentum": 0.5, "weight_decay": 0.1},
        {"alpha": 0.9, "eps": 1e-3, "momentum": 0.5, "weight_decay": 0.1},
    ),
]


def flat_gradient(seed: int) -> torch.Tensor:
    return torch.randn(sum(SIZES), generator=torch.Generator().manual_seed(seed))


def steps(name: str, options: dict[str, object], n: int = 30) -> Iterator[torch.Tensor]:
    """The parameters after each of n steps of ours, the learning rate being annealed."""
    rule = OPTIMIZERS[name]
    params = flat_gradient(99)
    state = rule.init(params, SHAPES)
    for step in range(n):
        rate = torch.tensor(1e-2 * (1 - step / n))
        params, state = rule.step(params, flat_gradient(step), state, rate, SHAPES, **options)
        yield params


@pytest.mark.parametrize(("name", "kind", "theirs", "ours"), SETTINGS)
def test_every_optimizer_follows_torch(
    name: str, kind: type[torch.optim.Optimizer], theirs: dict[str, object], ours: dict[str, object]
) -> None:
    pieces = [
        piece.view(shape).clone() for piece, shape in zip(flat_gradient(99).split(SIZES), SHAPES, strict=True)
    ]
    optimizer = kind([piece.requires_grad_() for piece in pieces], lr=1e-2, **theirs)
    for step, params in enumerate(steps(name, ours)):
        for piece, grad in zip(pieces, flat_gradient(step).split(SIZES), strict=True):
            piece.grad = grad.view(piece.shape)
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 30)
        optimizer.step()
        found = torch.cat([piece.detach().flatten() for piece in pieces])
        torch.testing.assert_close(params, found, rtol=1e-5, atol=2e-6)


def numpy_muon(params: Matrix, gradients: list[Matrix], options: dict[str, float]) -> Matrix:
    """Jordan's algorithm for one matrix, in double precision."""
    momentum = np.zeros_like(params)
    for step, grad in enumerate(gradients):
        rate = 1e-2 * (1 - step / 30)
        momentum = options["momentum"] * momentum + (1 - options["momentum"]) * grad
        along = options["momentum"] * momentum + (1 - options["momentum"]) * grad
        x = along / np.linalg.norm(along)
        for _ in range(5):
            square = x @ x.T
            x = 3.4445 * x - 4.7750 * square @ x + 2.0315 * square @ square @ x
        params = params * (1 - rate * options["weight_decay"])
        params = params - 0.2 * np.sqrt(max(params.shape)) * rate * x
    return params


@pytest.mark.parametrize(
    "options", [{"momentum": 0.95, "weight_decay": 0.0}, {"momentum": 0.8, "weight_decay": 0.1}]
)
def test_muon_follows_its_algorithm_on_matrices_and_adamw_on_the_rest(options: dict[str, float]) -> None:
    *_, params = steps("muon", options)
    *_, adamw = steps("adamw", {"weight_decay": options["weight_decay"]})
    starts, ends, others = (vector.split(SIZES) for vector in (flat_gradient(99), params, adamw))
    for number, shape in enumerate(SHAPES):
        if len(shape) < 2:
            torch.testing.assert_close(ends[number], others[number])
            continue
        as_matrix = [piece.view(shape[0], -1).double().numpy() for piece in (starts[number], ends[number])]
        gradients = [
            flat_gradient(step).split(SIZES)[number].view(shape[0], -1).double().numpy() for step in range(30)
        ]
        np.testing.assert_allclose(
            as_matrix[1], numpy_muon(as_matrix[0], gradients, options), rtol=1e-3, atol=1e-5
        )


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_muon_follows_torch_as_far_as_its_half_precision_goes() -> None:
    shape = torch.Size((8, 5))
    theirs = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    optimizer = torch.optim.Muon([theirs], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    ours = theirs.detach().flatten().clone()
    start, state = ours.clone(), OPTIMIZERS["muon"].init(ours, [shape])
    for step in range(20):
        grad = gradient(step, 40)
        theirs.grad = grad.view(shape)
        optimizer.step()
        ours, state = OPTIMIZERS["muon"].step(
            ours, grad, state, torch.tensor(1e-2), [shape], weight_decay=0.1
        )
    moved = (ours - start).norm()
    assert (ours - theirs.detach().flatten()).norm() < 0.02 * moved


@pytest.mark.parametrize("shape", [(5, 5), (3, 9), (9, 3), (1, 4)])
def test_an_orthogonalized_matrix_has_singular_values_near_one_and_the_same_directions(
    shape: tuple[int, int],
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    result = orthogonalize(matrix)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    rotated = left.T @ result @ right.T
    singular = rotated.diagonal()
    assert ((singular > 0.6) & (singular < 1.3)).all()
    torch.testing.assert_close(rotated, torch.diag(singular), rtol=0, atol=1e-4)
    assert (orthogonalize(torch.zeros(shape)) == 0).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_pure_and_its_state_comes_back_by_name(name: str) -> None:
    rule, params = OPTIMIZERS[name], flat_gradient(1)
    state = rule.init(params, SHAPES)
    copies = [tensor.clone() for tensor in (params, *state)]
    moved, after = rule.step(params, flat_gradient(2), state, torch.tensor(1e-3), SHAPES)
    assert all(torch.equal(*pair) for pair in zip((params, *state), copies, strict=True))
    assert not torch.equal(moved, params)
    assert all(torch.equal(*pair) for pair in zip(restored(state, after._asdict()), after, strict=True))
    with pytest.raises(
        RuntimeError, match=f"the optimizer's {after._fields[-1]} is not that of this network"
    ):
        restored(state, dict(list(after._asdict().items())[:-1]))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_learning_rate_of_zero_moves_nothing(name: str) -> None:
    rule, params = OPTIMIZERS[name], flat_gradient(1)
    moved, _ = rule.step(params, flat_gradient(2), rule.init(params, SHAPES), torch.tensor(0.0), SHAPES)
    assert torch.equal(moved, params)
