"""Gradient clipping and the optimizers, on one flat parameter vector: pure functions.

An optimizer is an object with two of them: ``init(params, shapes) -> state``, the state a NamedTuple of
tensors, and ``step(params, grad, state, learning_rate, shapes, **options) -> (params, state)``. ``shapes``
are those of the parameters in the vector, in order.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from typing_extensions import Self

from ppo_cli.import_path import UserCodeError, calling

ADAM_EPS = 1e-5  # Baselines' value; PyTorch's 1e-8 is not what "PPO" means (37 details, no. 3)
# Of the iteration a x + b x³ + c x⁵, which brings the singular values in (0, 1] near 1 (Jordan et al. 2024).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)

Shapes = Sequence[torch.Size]


class OptimizerState(Protocol):
    """What every NamedTuple of tensors is."""

    def __iter__(self) -> Iterator[Tensor]:
        """The tensors."""

    def __len__(self) -> int:
        """Their number."""

    def _asdict(self) -> dict[str, Any]: ...

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self: ...


class Rule(NamedTuple):
    """An optimizer's two functions."""

    init: Callable[[Tensor, Shapes], Any]
    step: Callable[..., tuple[Tensor, Any]]


@dataclass(frozen=True)
class Optimizer:
    """An optimizer with its options.

    Attributes:
        name: as it was typed.
        rule: a `Rule`, or anything else that has an ``init`` and a ``step``.
        options: what a step gets beside the rest.
    """

    name: str
    rule: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    def init(self, params: Tensor, shapes: Shapes) -> OptimizerState:
        """The state before the first step, for parameters [P].

        Raises:
            UserCodeError: it raised, or returned something else.
        """
        with calling(f"{self.name}.init", {}):
            state = self.rule.init(params, shapes)
        if not _is_state(state):
            raise UserCodeError(
                f"{self.name}.init returned {_shown(state)}: expected a NamedTuple of tensors"
            )
        found: OptimizerState = state._make(tensor.clone() for tensor in state)  # none of them is ``params``
        return found

    def step(
        self, params: Tensor, grad: Tensor, state: OptimizerState, learning_rate: Tensor, shapes: Shapes
    ) -> tuple[Tensor, OptimizerState]:
        """The parameters [P] and the state after a step along a gradient [P].

        Raises:
            UserCodeError: it raised, returned something else, or changed a tensor in place.
        """
        with calling(f"{self.name}.step", self.options, [params, grad, *state]):
            result = self.rule.step(params, grad, state, learning_rate, shapes, **self.options)
        is_pair = isinstance(result, tuple) and len(result) == 2
        if not (is_pair and type(result[1]) is type(state) and _alike([params, *state], _flat(result))):
            expected = f"expected (params, state) as given, {_shown((params, state))}"
            raise UserCodeError(f"{self.name}.step returned {_shown(result)}: {expected}")
        new_params, new_state = result
        return new_params, new_state


def restored(state: OptimizerState, stored: Mapping[str, Tensor]) -> OptimizerState:
    """The state that a mapping by name holds, as `_asdict` gave it.

    Args:
        state: of the same optimizer, for the same parameters.
        stored: what was kept.

    Raises:
        RuntimeError: it is that of another network or optimizer.
    """
    for name, place in state._asdict().items():
        if name not in stored or not _alike([place], [stored[name]]):
            raise RuntimeError(f"the optimizer's {name} is not that of this network")
    return state._make(stored[name].to(place.device) for name, place in state._asdict().items())


def _flat(pair: tuple[Tensor, OptimizerState]) -> list[Tensor]:
    return [pair[0], *pair[1]]


def _is_state(value: object) -> bool:
    return (
        hasattr(value, "_asdict") and isinstance(value, tuple) and all(isinstance(t, Tensor) for t in value)
    )


def _alike(places: Iterable[Tensor], values: Iterable[object]) -> bool:
    """Whether tensors have the shapes and dtypes of others."""
    return all(
        isinstance(value, Tensor) and value.shape == place.shape and value.dtype == place.dtype
        for place, value in zip(places, values, strict=True)
    )


def _shown(value: object) -> str:
    """A tensor or a tuple of them in a few words."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, tuple):
        kind = type(value).__name__
        return f"{'' if kind == 'tuple' else kind}({', '.join(map(_shown, value))})"
    return type(value).__name__


def clip_by_norm(grad: Tensor, max_norm: float | Tensor) -> tuple[Tensor, Tensor]:
    """Gradient scaled so that its 2-norm is at most ``max_norm`` (> 0).

    Args:
        grad: [P].
        max_norm: the largest norm; infinity for no clipping.

    Returns:
        The clipped gradient [P] and the norm before clipping, a scalar.
    """
    norm = grad.norm()
    return grad * torch.clamp((norm + 1e-6).reciprocal() * max_norm, max=1.0), norm


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
        params: θ, [P].
        grad: g, [P].
        state: m, v and t - 1.
        learning_rate: α ≥ 0.
        shapes: of the parameters; of no influence.
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
        params: θ, [P].
        grad: g, [P].
        state: as `adam`.
        learning_rate: α ≥ 0.
        shapes: of the parameters; of no influence.
        betas: as `adam`.
        eps: as `adam`.
        weight_decay: λ ≥ 0.

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
        params: θ, [P].
        grad: g, [P].
        state: b.
        learning_rate: α ≥ 0.
        shapes: of the parameters; of no influence.
        momentum: μ in [0, 1).
        nesterov: whether the step looks ahead.
        weight_decay: λ ≥ 0.

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
        params: θ, [P].
        grad: g, [P].
        state: v and b.
        learning_rate: α ≥ 0.
        shapes: of the parameters; of no influence.
        alpha: a, the decay rate of the second moment.
        eps: ε > 0; Baselines' 1e-5.
        momentum: μ in [0, 1).
        weight_decay: λ ≥ 0.

    Returns:
        The new parameters and state.
    """
    grad = grad + weight_decay * params
    square_avg = alpha * state.square_avg + (1 - alpha) * grad * grad
    buffer = momentum * state.momentum_buffer + grad / (square_avg.sqrt() + eps)
    return params - learning_rate * buffer, RMSpropState(square_avg, buffer)


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
        params: θ, [P].
        grad: g, [P].
        state: b, and that of `adam`.
        learning_rate: α ≥ 0.
        shapes: of the parameters, in order.
        momentum: μ in [0, 1).
        nesterov: whether the step looks ahead.
        ns_steps: iterations of `orthogonalize`.
        weight_decay: λ ≥ 0, of all parameters.
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


OPTIMIZERS = {
    "adam": Rule(adam_init, adam),
    "adamw": Rule(adam_init, adamw),
    "sgd": Rule(sgd_init, sgd),
    "rmsprop": Rule(rmsprop_init, rmsprop),
    "muon": Rule(muon_init, muon),
}
ADAM = Optimizer("adam", OPTIMIZERS["adam"])
