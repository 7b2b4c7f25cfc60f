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
EXPANSION = 4  # of a residual block's inner layer, over its width


@dataclass(frozen=True)
class TrunkChoice:
    """The hidden layers that the config asks for; names are those of its ``network``.

    Attributes:
        hidden_sizes: The widths of the hidden layers; may be empty.
        activation: A key of `ACTIVATIONS`.
        layer_norm: Whether each hidden layer is normalised before its activation.
        trunk: The kind: ``mlp`` or ``simba``, whose residual blocks have the hidden sizes.
    """

    hidden_sizes: Sequence[int] = (64, 64)
    activation: str = "tanh"
    layer_norm: bool = False
    trunk: str = "mlp"


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


class SimBa(nn.Module):
    """Residual blocks between a linear embedding and layer norm.

    SimBa (Lee et al. 2024, https://arxiv.org/abs/2410.09754, section 4): a block adds to its input what two
    layers, the first one `EXPANSION` times as wide, make of its layer norm. The running normalisation of the
    observations, which belongs to it, is ``normalize.observations``.
    """

    def __init__(self, inputs: int, choice: TrunkChoice) -> None:
        """Builds the blocks.

        Args:
            inputs: The number of inputs.
            choice: The hidden layers; a block for each of the hidden sizes, which are the same.

        Raises:
            ValueError: The hidden sizes differ, or there is none.
        """
        super().__init__()
        if len(set(choice.hidden_sizes)) != 1:
            raise ValueError(
                f"network.trunk=simba: expected hidden_sizes of one width, as many as there are blocks "
                f"([128, 128]), given {list(choice.hidden_sizes)}"
            )
        self.choice, self.size = choice, choice.hidden_sizes[0]
        self.embedding = nn.Linear(inputs, self.size)
        self.blocks = nn.ModuleList(
            _Block(self.size, ACTIVATIONS[choice.activation]) for _ in choice.hidden_sizes
        )
        self.norm = nn.LayerNorm(self.size)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs [B, inputs] -> features [B, size]."""
        x = self.embedding(x)
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.norm(x)
        return features

    def init_published(self) -> None:
        """The published initial weights: an orthogonal embedding, He et al.'s blocks, zero biases."""
        nn.init.orthogonal_(self.embedding.weight)
        nn.init.zeros_(self.embedding.bias)
        for block in self.blocks:
            for layer in (cast("_Block", block).wide, cast("_Block", block).narrow):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)


class _Block(nn.Module):
    """x + W₂ φ(W₁ LN(x)), [B, size] -> [B, size]."""

    def __init__(self, size: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.wide, self.narrow = nn.Linear(size, EXPANSION * size), nn.Linear(EXPANSION * size, size)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.narrow(self.activation(self.wide(self.norm(x))))
        return x + added


Trunk = MLP | SimBa


def make_trunk(inputs: int, choice: TrunkChoice) -> Trunk:
    """The hidden layers behind a number of inputs."""
    return SimBa(inputs, choice) if choice.trunk == "simba" else MLP(inputs, choice)


def count_weights(choice: TrunkChoice) -> int:
    """How many weights are between the hidden layers, roughly."""
    if choice.trunk == "simba":
        return sum(2 * EXPANSION * size**2 for size in choice.hidden_sizes)
    return sum(fan_in * fan_out for fan_in, fan_out in pairwise(choice.hidden_sizes))
