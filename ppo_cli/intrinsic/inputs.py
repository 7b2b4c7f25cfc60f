"""What the networks of an intrinsic reward see of an observation of any kind."""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from ppo_cli.encoders import EncoderChoice, make_encoder
from ppo_cli.normalize import EPSILON, RunningMeanStd
from ppo_cli.spaces import Leaf, PackedObservations, image_layout, leaves_of
from ppo_cli.trunks import MLP, TrunkChoice

CHUNK_NUMBERS = 2**22  # of observations that are turned into floats at a time; they bound the memory


class Inputs:
    """Observations as lists of tensors, one a leaf: Boxes normalised, indices and bits as they are.

    Each number of a Box, and each pixel, is (x - mean) / sqrt(var + 1e-8), clipped, by running statistics of
    its own; images come as [C, H, W]. An action mask is left out.
    """

    def __init__(self, space: spaces.Space[Any], clip: float) -> None:
        """Starts without having seen anything.

        Args:
            space: The space of the observations, a packed one included.
            clip: The largest normalised value.
        """
        self._space, self.clip = space, clip
        found = list(enumerate(leaves_of(space)))
        self._leaves = [(i, leaf) for i, leaf in found if not leaf.is_mask] or found
        self.spaces = [_input_space(leaf, clip) for _, leaf in self._leaves]
        boxes = [leaf for _, leaf in self._leaves if isinstance(leaf.space, spaces.Box)]
        self.statistics = RunningMeanStd((sum(math.prod(leaf.shape) for leaf in boxes),))
        self.chunk = max(1, CHUNK_NUMBERS // max(1, self.statistics.mean.size))

    def update(self, observations: Tensor) -> None:
        """Takes in observations [R, *shape]."""
        if self.statistics.mean.size:
            for rows in observations.split(self.chunk):
                boxes = [
                    values.reshape(len(rows), -1) for values, leaf in self._values(rows) if _is_box(leaf)
                ]
                self.statistics.update(torch.cat([box.double() for box in boxes], 1).numpy())

    def __call__(self, observations: Tensor, device: torch.device) -> list[Tensor]:
        """Observations [R, *shape] as the networks take them, on their device."""
        mean = torch.from_numpy(self.statistics.mean).float()
        deviation = torch.from_numpy(np.sqrt(self.statistics.var + EPSILON)).float()
        found, first = [], 0
        for values, leaf in self._values(observations):
            if _is_box(leaf):
                places = slice(first, first + math.prod(leaf.shape))
                scaled = (values.reshape(len(values), -1).float() - mean[places]) / deviation[places]
                values = scaled.clamp(-self.clip, self.clip).reshape(values.shape)
                first = places.stop
                values = _as_image(values, leaf)
            found.append(values.to(device))
        return found

    def _values(self, observations: Tensor) -> list[tuple[Tensor, Leaf]]:
        """The leaves of observations [R, *shape], each [R, *shape of the leaf]."""
        if not isinstance(self._space, PackedObservations):
            return [(observations, leaf) for _, leaf in self._leaves]
        views = self._space.views(observations.numpy())
        return [(torch.from_numpy(views[i]), leaf) for i, leaf in self._leaves]


class FeatureNetwork(nn.Module):
    """What `Inputs` gives, to features: an encoder a leaf, hidden layers with ReLU, and a linear layer.

    Weights are orthogonal with gain sqrt(2), biases 0.
    """

    def __init__(
        self,
        inputs: Sequence[spaces.Space[Any]],
        hidden_sizes: Sequence[int],
        feature_size: int,
        image_encoder: str = "auto",
    ) -> None:
        super().__init__()
        choice = EncoderChoice(image_encoder)
        self.encoders = nn.ModuleList(make_encoder(space, choice) for space in inputs)
        width = sum(cast("int", encoder.size) for encoder in self.encoders)
        self.trunk = MLP(width, TrunkChoice(hidden_sizes, "relu"))
        self.head = nn.Linear(self.trunk.size, feature_size)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.orthogonal_(module.weight, math.sqrt(2))
                nn.init.zeros_(cast("Tensor", module.bias))

    def forward(self, values: Sequence[Tensor]) -> Tensor:
        """Leaves, each [R, *shape] -> features [R, F]."""
        encoded = [encoder(value) for encoder, value in zip(self.encoders, values, strict=True)]
        features: Tensor = self.head(self.trunk(torch.cat(encoded, 1)))
        return features


def _is_box(leaf: Leaf) -> bool:
    return isinstance(leaf.space, spaces.Box)


def _input_space(leaf: Leaf, clip: float) -> spaces.Space[Any]:
    """The space of a leaf's values as the networks take them."""
    if not _is_box(leaf):
        return leaf.space
    shape = tuple(_as_image(torch.zeros(1, *leaf.shape), leaf).shape[1:])
    return spaces.Box(-clip, clip, shape, np.float32)


def _as_image(values: Tensor, leaf: Leaf) -> Tensor:
    """Values [R, *shape], those of an image as [R, C, H, W]: a stack and its channels are one axis."""
    layout = image_layout(leaf.space)
    if layout is None:
        return values
    ordered = values.permute(0, *(axis + 1 for axis in layout))
    return ordered.reshape(len(values), -1, *ordered.shape[-2:])
