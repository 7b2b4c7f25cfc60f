"""Log-deviations of Box policies: their bounds, and the softplus that deviations may come from."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

# Of deviations that depend on the state, where no others are given: nothing else bounds them.
STATE_RANGE = (-20.0, 2.0)
FLOOR = 1e-3  # of a deviation that comes from a softplus; Brax's min_std


class Bounds(NamedTuple):
    """The least and the largest log-deviation; None for no bound."""

    low: float | None = None
    high: float | None = None


def log_std_bounds(log_std: str, init: float, low: float | None, high: float | None) -> Bounds:
    """The bounds that hold, from the values of the config's ``network``: some have others than none.

    Args:
        log_std: The way to the deviation: ``free``, ``state`` or ``softplus``.
        init: The initial log-deviation.
        low: The bound that is given for the least one.
        high: That for the largest one.

    Raises:
        ValueError: the bounds are no range, or the deviation can't begin within them.
    """
    least, largest = {"state": STATE_RANGE, "softplus": (math.log(FLOOR), None)}.get(log_std, (None, None))
    bounds = Bounds(least if low is None else low, largest if high is None else high)
    shown = " to ".join("no bound" if bound is None else f"{bound:.4g}" for bound in bounds)
    if bounds.low is not None and bounds.high is not None and bounds.low >= bounds.high:
        raise ValueError(
            f"network.log_std={log_std} has log-deviations from {shown}: "
            "expected log_std_min below log_std_max"
        )
    is_low = bounds.low is not None and (init <= bounds.low if log_std == "softplus" else init < bounds.low)
    if is_low or (bounds.high is not None and init > bounds.high):
        raise ValueError(
            f"network.log_std_init={init:g}: network.log_std={log_std} has log-deviations from {shown}; "
            "set log_std_init, log_std_min or log_std_max so that it begins between them"
        )
    return bounds


def bounded(x: Tensor, bounds: Bounds) -> Tensor:
    """Values within the bounds, with a gradient that always leads back to them.

    Between the bounds the gradient passes. Beyond one it passes where a descent along it goes back, and is 0
    where that goes further out. (A clamp passes none: what got there stays for ever.)
    """
    if bounds == Bounds():
        return x
    if not x.requires_grad:
        return x.clamp(*bounds)
    within: Tensor = _Bounded.apply(x, *bounds)  # type: ignore[no-untyped-call]
    return within


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float | None, high: float | None) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (x,) = ctx.saved_tensors
        low, high = ctx.bounds
        if high is not None:
            grad = torch.where(x > high, grad.clamp(min=0), grad)
        if low is not None:
            grad = torch.where(x < low, grad.clamp(max=0), grad)
        return grad, None, None


def softplus_log_std(x: Tensor, log_std_init: float, bounds: Bounds) -> Tensor:
    """The logarithm of σ = σ_min + softplus(x + c), where c makes x = 0 the initial deviation.

    The lower bound is log σ_min: σ comes near it, and the gradient is never 0. An upper bound is that of
    `bounded`. (Brax's NormalTanhDistribution, https://github.com/google/brax, has σ_min = 0.001 and c = 0.)
    """
    least = 0.0 if bounds.low is None else math.exp(bounds.low)
    above = math.exp(log_std_init) - least
    shift = above + math.log(-math.expm1(-above))  # the inverse of softplus
    return bounded(torch.log(least + softplus(x + shift)), Bounds(high=bounds.high))
