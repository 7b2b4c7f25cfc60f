"""What becomes of the network's units and features, on a sample of rows."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.memory import Memory

SATURATED = 0.97  # |tanh| beyond which less than 6 % of a gradient passes
HEADS = ("policy_head", "value_head")
LEFT_OUT = 0.01  # of the singular values' sum that the effective rank does without


class Units(TorchFunctionMode):
    """Notes what activations give while it is entered and `listening`.

    Attributes:
        listening: Whether a part of the network computes whose units are meant.
        features: What the heads are given, [B, F], by the head's name.
        rectified: The outputs of each activation that is, or nearly is, zero on one side.
        bounded: The outputs of each hyperbolic tangent.
    """

    RECTIFIERS = (
        torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_,
        functional.leaky_relu, functional.elu, functional.gelu, functional.silu, functional.mish,
    )  # fmt: skip
    TANHS = (torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_, functional.tanh)

    def __init__(self) -> None:
        super().__init__()
        self.listening = False
        self.features: dict[str, Tensor] = {}
        self.rectified: list[Tensor] = []
        self.bounded: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Calls the function, and notes what it gives if it is an activation."""
        result = func(*args, **(kwargs or {}))
        if self.listening and func in self.RECTIFIERS:
            self.rectified.append(by_unit(result))
        elif self.listening and func in self.TANHS:
            self.bounded.append(by_unit(result))
        return result


@contextmanager
def watching(model: ActorCritic) -> Iterator[Units]:
    """Notes the units of a model's encoders and trunks, and the features of its heads, in forward passes.

    A memory's gates are none of these: they are there to close.
    """
    units = Units()

    def begin(*_: Any) -> None:  # noqa: ANN401
        units.listening = True

    def end(*_: Any) -> None:  # noqa: ANN401
        units.listening = False

    hooks = []
    for name, part in model.named_children():
        if isinstance(part, Memory):
            continue
        hooks += [part.register_forward_pre_hook(begin), part.register_forward_hook(end)]
        if name in HEADS:
            hooks.append(part.register_forward_pre_hook(partial(_note, units.features, name)))
    try:
        with units:
            yield units
    finally:
        for hook in hooks:
            hook.remove()


def _note(features: dict[str, Tensor], name: str, _: Any, inputs: tuple[Tensor, ...]) -> None:  # noqa: ANN401
    features[name] = inputs[0]


def by_unit(outputs: Tensor) -> Tensor:
    """Outputs [rows, units] of a layer's [B, ..., units]; a convolution's unit is a channel, [B, C, H, W]."""
    return outputs.movedim(1 if outputs.dim() == 4 else -1, -1).flatten(0, -2)


def dead_units(layers: Sequence[Tensor]) -> float:
    """Share of the units that are active in no row: max_b h_b ≤ 0, so that hardly a gradient passes.

    (Dormant for τ = 0, Sokar et al. 2023, https://arxiv.org/abs/2302.12902, definition 3.1.)

    Args:
        layers: The outputs of each layer behind an activation such as ReLU, [B, units].

    Returns:
        The share over all layers; NaN where there are none.
    """
    return _share([layer.amax(0) <= 0 for layer in layers])


def saturated_units(layers: Sequence[Tensor]) -> float:
    """Share of the units whose mean |h| over the rows is above `SATURATED`, where tanh has hardly a slope.

    Args:
        layers: The outputs of each layer behind a tanh, [B, units].

    Returns:
        The share over all layers; NaN where there are none.
    """
    return _share([layer.abs().mean(0) > SATURATED for layer in layers])


def _share(units: Sequence[Tensor]) -> float:
    return torch.cat([each.float() for each in units]).mean().item() if units else math.nan


def effective_rank(features: Tensor) -> float:
    """Smallest k with σ_1 + … + σ_k ≥ (1 - δ) Σσ_i, the singular values of features [B, F]; δ = 0.01.

    (srank of Kumar et al. 2021, https://arxiv.org/abs/2010.14498, equation 1.)
    """
    if not torch.isfinite(features).all():
        return math.nan
    values = torch.linalg.svdvals(features)
    sums = values.cumsum(0)
    return float((sums < (1 - LEFT_OUT) * sums[-1]).sum().item() + 1) if sums[-1] > 0 else 0.0
