"""Dict and Tuple actions."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor, nn

from ppo_cli.distributions.base import Array, Distribution, HeadChoice
from ppo_cli.distributions.heads import PolicyHead, ProductHead
from ppo_cli.spaces import PackedActions


class Product(Distribution):
    """Dict and Tuple: independent parts, their stored actions side by side as numbers, [B, Σd]."""

    action_dtype = torch.float32

    def __init__(self, space: PackedActions, parts: Sequence[Distribution]) -> None:
        self.space, self._parts = space, tuple(parts)
        self.action_sizes = [math.prod(part.action_shape) for part in parts]  # how many numbers each part has
        self.logits_sizes = [part.logits_size for part in parts]
        self.noise_sizes = [part.noise_size for part in parts]
        self.action_shape = (sum(self.action_sizes),)
        self.logits_size, self.noise_size = sum(self.logits_sizes), sum(self.noise_sizes)
        self.is_squashed = any(part.is_squashed for part in parts)

    @property
    def parts(self) -> tuple[Distribution, ...]:
        """The leaves' distributions, in the order of the space."""
        return self._parts

    @property
    def form(self) -> tuple[object, ...]:
        """The parts' forms."""
        return type(self), *(part.form for part in self.parts)

    def noise(self, batch_shape: tuple[int, ...], generator: Generator) -> Tensor:
        """The parts' noise side by side, [B, noise_size]."""
        return torch.cat([part.noise(batch_shape, generator) for part in self.parts], dim=-1)

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """The parts' actions side by side, [B, Σd]."""
        noises = noise.split(self.noise_sizes, dim=-1)
        drawn = zip(self.parts, self._logits(logits), noises, strict=True)
        return self._join([part.sample(own, noise) for part, own, noise in drawn])

    def mode(self, logits: Tensor) -> Tensor:
        """The parts' most probable actions side by side, [B, Σd]."""
        pairs = zip(self.parts, self._logits(logits), strict=True)
        return self._join([part.mode(own) for part, own in pairs])

    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """Sum of the parts' log-probabilities, [B]."""
        columns = zip(self.parts, self._logits(logits), actions.split(self.action_sizes, -1), strict=True)
        return torch.stack(
            [
                part.log_prob(
                    own, taken.to(part.action_dtype).reshape((*taken.shape[:-1], *part.action_shape))
                )
                for part, own, taken in columns
            ]
        ).sum(0)

    def entropy(self, logits: Tensor) -> Tensor:
        """Sum of the parts' entropies, [B]."""
        pairs = zip(self.parts, self._logits(logits), strict=True)
        return torch.stack([part.entropy(own) for part, own in pairs]).sum(0)

    def to_env(self, actions: Array) -> Array:
        """The parts' actions side by side, float64 [N, size]."""
        columns = zip(self.parts, self._columns(actions), strict=True)
        parts = [part.to_env(column).reshape(len(actions), -1) for part, column in columns]
        return np.concatenate(parts, axis=-1, dtype=np.float64)

    def to_env_module(self) -> nn.Module:
        """`to_env` as a module; in an exported graph each part is an output of its own."""
        return _ToRows(self)

    def tolerance(self, logits: Tensor, noise: Tensor | None, stored: Array, relative: float) -> list[Array]:
        """The parts' tolerances."""
        noises = [None] * len(self.parts) if noise is None else noise.split(self.noise_sizes, dim=-1)
        columns = zip(self.parts, self._logits(logits), noises, self._columns(stored), strict=True)
        return [part.tolerance(own, drawn, taken, relative)[0] for part, own, drawn, taken in columns]

    def make_head(self, features: int, choice: HeadChoice) -> PolicyHead:
        """The parts' heads side by side."""
        return ProductHead([part.make_head(features, choice) for part in self.parts], self)

    def _logits(self, logits: Tensor) -> tuple[Tensor, ...]:
        split: tuple[Tensor, ...] = logits.split(self.logits_sizes, dim=-1)
        return split

    def _columns(self, stored: Array) -> list[Array]:
        return np.split(stored, np.cumsum(self.action_sizes)[:-1], axis=-1)

    def _join(self, actions: list[Tensor]) -> Tensor:
        columns = zip(self.parts, actions, strict=True)
        flat = [taken if part.action_shape else taken.unsqueeze(-1) for part, taken in columns]
        return torch.cat([taken.to(self.action_dtype) for taken in flat], dim=-1)


class _ToRows(nn.Module):
    def __init__(self, distribution: Product) -> None:
        super().__init__()
        self.sizes = distribution.action_sizes
        self.parts = nn.ModuleList(part.to_env_module() for part in distribution.parts)

    def forward(self, stored: Tensor) -> Tensor:
        """The parts' actions side by side, [B, Σd] -> double [B, size]."""
        columns = zip(self.parts, stored.split(self.sizes, dim=-1), strict=True)
        return torch.cat([part(column).reshape(len(stored), -1).double() for part, column in columns], dim=-1)
