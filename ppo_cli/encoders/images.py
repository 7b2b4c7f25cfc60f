"""Encoders of images: convolutional networks."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from ppo_cli.encoders.simple import checked_size, checked_sizes, float_scale
from ppo_cli.spaces import image_layout
from ppo_cli.text import flat

NATURE_SMALLEST = 36  # pixels a side that its three convolutions need


class ImageInput(nn.Module):
    """Images as float tensors [B, C, H, W]; bytes are scaled to [0, 1] here, on the network's device.

    So are floats with the bounds of bytes.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        layout = image_layout(space)
        if layout is None or not isinstance(space, spaces.Box):
            shown = flat(space)
            raise ValueError(f"an image encoder needs an image, given {shown}")
        self.order = tuple(axis + 1 for axis in layout)
        *channels, self.height, self.width = (space.shape[axis] for axis in layout)
        self.channels = math.prod(channels)
        self.scale = 1 / 255 if space.dtype == "uint8" else 1.0
        self.float_scale = float_scale(space)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] -> [B, C, H, W] float32."""
        images = obs.permute(0, *self.order).to(torch.float32)
        images = images.reshape(obs.shape[0], self.channels, self.height, self.width)
        # channels last in memory: a quarter less time in the convolutions' backward pass
        images = images.contiguous(memory_format=torch.channels_last)
        if self.float_scale is not None:
            images = self.float_scale(images)
        return images * self.scale if self.scale != 1.0 else images


class NatureCNN(nn.Module):
    """Three convolutions and a linear layer (Mnih et al. 2015, https://doi.org/10.1038/nature14236)."""

    def __init__(self, space: spaces.Space[Any], features: int = 512) -> None:
        super().__init__()
        self.size = checked_size("features", features)
        self.input = ImageInput(space)
        smallest = min(self.input.height, self.input.width)
        if smallest < NATURE_SMALLEST:
            raise ValueError(
                f"nature_cnn needs images of at least {NATURE_SMALLEST} pixels a side, given "
                f"{self.input.height} x {self.input.width}; use impala_cnn or flatten"
            )
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(self.input.channels, 32, 8, stride=4),
                nn.Conv2d(32, 64, 4, stride=2),
                nn.Conv2d(64, 64, 3, stride=1),
            ]
        )
        flat = self._flat(torch.zeros(1, self.input.channels, self.input.height, self.input.width))
        self.linear = nn.Linear(flat.shape[1], features)

    def _flat(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = functional.relu(convolution(x))
        return x.flatten(1)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] -> [B, size]."""
        return functional.relu(self.linear(self._flat(self.input(obs))))


class MinAtarCNN(nn.Module):
    """A convolution and a linear layer (Young & Tian 2019, https://arxiv.org/abs/1903.03176, appendix)."""

    def __init__(self, space: spaces.Space[Any], channels: int = 16, features: int = 128) -> None:
        super().__init__()
        self.size = checked_size("features", features)
        self.input = ImageInput(space)
        height, width = self.input.height - 2, self.input.width - 2
        if min(height, width) < 1:
            raise ValueError(
                f"minatar_cnn needs images of at least 3 pixels a side, given {height + 2} x {width + 2}; "
                "use flatten"
            )
        self.convolution = nn.Conv2d(self.input.channels, checked_size("channels", channels), 3)
        self.linear = nn.Linear(channels * height * width, features)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] -> [B, size]."""
        planes = functional.relu(self.convolution(self.input(obs)))
        return functional.relu(self.linear(planes.flatten(1)))


class ImpalaCNN(nn.Module):
    """Residual network of IMPALA (Espeholt et al. 2018, https://arxiv.org/abs/1802.01561, fig. 3)."""

    def __init__(
        self, space: spaces.Space[Any], channels: Sequence[int] = (16, 32, 32), features: int = 256
    ) -> None:
        super().__init__()
        self.size = checked_size("features", features)
        self.input = ImageInput(space)
        widths = [self.input.channels, *checked_sizes("channels", channels)]
        self.entries = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.blocks = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for c in channels for _ in range(4))
        with torch.no_grad():
            shape = (1, self.input.channels, self.input.height, self.input.width)
            flat = self._flat(torch.zeros(shape))
        self.linear = nn.Linear(flat.shape[1], features)

    def _flat(self, x: Tensor) -> Tensor:
        for stage, entry in enumerate(self.entries):
            x = functional.max_pool2d(entry(x), 3, stride=2, padding=1)
            for first in (4 * stage, 4 * stage + 2):  # two residual blocks of two convolutions
                inner = self.blocks[first](functional.relu(x))
                x = x + self.blocks[first + 1](functional.relu(inner))
        return functional.relu(x).flatten(1)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] -> [B, size]."""
        return functional.relu(self.linear(self._flat(self.input(obs))))
