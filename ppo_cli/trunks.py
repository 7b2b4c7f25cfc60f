"""Trunks: the hidden layers between the encoder, or the memory, and a head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


@dataclass(frozen=True)
class TrunkChoice:
    """The hidden layers that the config asks for; names are those of its ``network``.

    Attributes:
        hidden_sizes: The widths of the hidden layers; may be empty.
        activation: A key of `ACTIVATIONS`.
        layer_norm: Whether each hidden layer is normalised before its activation.
    """

    hidden_sizes: Sequence[int] = (64, 64)
    activation: str = "tanh"
    layer_norm: bool = False


DEFAULT_TRUNK = TrunkChoice()


class MLP(nn.Module):
    """Linear layers, with layer norm if that is asked for and an activation behind each.

    `nn.Sequential` without a module's call for each layer, which acting for a few environments would feel.
    """

    def __init__(self, inputs: int, choice: TrunkChoice) -> None:
        super().__init__()
        sizes = [inputs, *choice.hidden_sizes]
        self.layers = nn.ModuleList(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in sizes[1:]) if choice.layer_norm else None
        self.choice, self.size = choice, sizes[-1]
        self.activation = ACTIVATIONS[choice.activation]

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers, typed as what they are."""
        return cast("list[nn.Linear]", list(self.layers))

    def forward(self, x: Tensor) -> Tensor:
        """Inputs [B, inputs] -> features [B, size]."""
        for i, layer in enumerate(cast("list[nn.Linear]", self.layers)):
            x = functional.linear(x, layer.weight, layer.bias)
            x = self.activation(x if self.norms is None else self.norms[i](x))
        return x
