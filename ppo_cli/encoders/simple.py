"""Encoders of vectors, bits and indices: without layers, or with a few of their own."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from ppo_cli.spaces import has_byte_range, image_layout, unsupported


class ByteScale(nn.Module):
    """Values from 0 to 255 to [0, 1], for images whose bytes come as floats.

    The factor is kept with the weights: those of before there was one are used as they were trained.
    """

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(1 / 255))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        state = {f"{prefix}factor": torch.tensor(1.0), **state_dict}
        super()._load_from_state_dict(state, prefix, *args)

    def forward(self, values: Tensor) -> Tensor:
        """[B, ...] -> [B, ...]."""
        return values * self.factor


def float_scale(space: spaces.Space[Any]) -> ByteScale | None:
    """What brings an image of floats from 0 to 255 to [0, 1]; None for any other observation."""
    if not isinstance(space, spaces.Box) or image_layout(space) is None or space.dtype == np.uint8:
        return None
    return ByteScale() if has_byte_range(space) else None


class FlattenEncoder(nn.Module):
    """Box and MultiBinary observations as float vectors; full-range bytes are scaled to [0, 1].

    So are images of floats with the bounds of bytes.
    """

    def __init__(self, space: spaces.Box | spaces.MultiBinary) -> None:
        super().__init__()
        self.size = math.prod(space.shape)
        self.is_vector = len(space.shape) == 1
        self.full_bytes = isinstance(space, spaces.Box) and bool((space.high == 255).all())
        self.float_scale = float_scale(space)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] -> [B, size]."""
        if self.is_vector and obs.dtype == torch.float32:
            return obs
        flat = obs.reshape(obs.shape[0], self.size).to(torch.float32)
        if self.float_scale is not None:
            flat = self.float_scale(flat)
        return flat / 255 if self.full_bytes and obs.dtype == torch.uint8 else flat


class OneHotEncoder(nn.Module):
    """Discrete and MultiDiscrete observations as one-hot vectors, side by side."""

    columns: Tensor  # of an index 0 of each

    def __init__(self, space: spaces.Discrete[Any] | spaces.MultiDiscrete[Any]) -> None:
        super().__init__()
        if isinstance(space, spaces.Discrete):
            self.nvec, starts = [int(space.n)], [int(space.start)]
        else:
            self.nvec, starts = space.nvec.flatten().tolist(), space.start.flatten().tolist()
        firsts = [0, *itertools.accumulate(self.nvec)]
        self.size = firsts.pop()
        columns = torch.tensor(firsts) - torch.tensor(starts)
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] integers -> [B, size]."""
        columns = obs.reshape(obs.shape[0], len(self.nvec)).to(torch.int64) + self.columns
        # not `functional.one_hot`, whose integers take three times the memory of these floats again
        return torch.zeros((obs.shape[0], self.size), device=obs.device).scatter_(1, columns, 1.0)


class MlpEncoder(nn.Module):
    """A vector of its own layers for one leaf, ReLU behind each."""

    def __init__(self, space: spaces.Space[Any], hidden_sizes: Sequence[int] = (64,)) -> None:
        super().__init__()
        self.inner = make_simple_encoder(space)
        sizes = [self.inner.size, *checked_sizes("hidden_sizes", hidden_sizes)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.size = sizes[-1]

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] -> [B, size]."""
        x: Tensor = self.inner(obs)
        for layer in self.layers:
            x = functional.relu(layer(x))
        return x


def checked_sizes(name: str, sizes: Sequence[int]) -> Sequence[int]:
    """Widths of layers, as a config gives them."""
    if not isinstance(sizes, Sequence):
        raise ValueError(f"{name}: expected a list of integers, given {sizes}")
    return [checked_size(name, size) for size in sizes]


def checked_size(name: str, size: int) -> int:
    """The width of a layer, as a config gives it."""
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"{name}: expected integers of at least 1, given {size}")
    return size


def make_simple_encoder(space: spaces.Space[Any]) -> FlattenEncoder | OneHotEncoder:
    """The encoder of a simple space that has no layers.

    Raises:
        ValueError: the space is not Box, Discrete, MultiDiscrete or MultiBinary, or holds no values.
    """
    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        if math.prod(space.shape) == 0:
            raise ValueError(f"the observation space {space} holds no values")
        return FlattenEncoder(space)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return OneHotEncoder(space)
    allowed = ["Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict", "Tuple"]
    raise unsupported(space, "observation", allowed)
