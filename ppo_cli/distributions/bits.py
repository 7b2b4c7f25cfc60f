"""MultiBinary actions."""

import math

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor
from torch.nn.functional import softplus

from ppo_cli.distributions.base import Array, Distribution, ToEnv, gumbel, ties


class Bernoulli(Distribution):
    """MultiBinary(n): ``n`` independent bits, stored as 0.0 and 1.0, [B, n]."""

    space: spaces.MultiBinary
    noise_kind = "logistic"
    action_dtype = torch.float32

    def __init__(self, space: spaces.MultiBinary) -> None:
        self.space = space
        n = math.prod(space.shape)
        self.logits_size = self.noise_size = n  # the log-odds of 1, and one value a bit
        self.action_shape = (n,)

    def noise(self, batch_shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Logistic noise, [B, n]: the difference of two Gumbel draws."""
        shape = (*batch_shape, self.noise_size)
        return gumbel(shape, generator) - gumbel(shape, generator)

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """1 where the perturbed log-odds are positive, [B, n]."""
        return self.mode(logits + noise)

    def mode(self, logits: Tensor) -> Tensor:
        """1 where the log-odds are positive, [B, n]."""
        return (logits > 0).to(self.action_dtype)

    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """Σ a log p + (1 - a) log(1 - p), [B]."""
        return (actions * logits - softplus(logits)).sum(-1)

    def entropy(self, logits: Tensor) -> Tensor:
        """Sum of the bits' entropies, [B]."""
        return (softplus(logits) - torch.sigmoid(logits) * logits).sum(-1)

    def to_env(self, actions: Array) -> Array:
        """Bits in the space's shape, [N, *shape]."""
        return actions.reshape(-1, *self.space.shape).astype(self.space.dtype)

    def to_env_module(self) -> ToEnv:
        """`to_env` as a module."""
        return ToEnv(self.space)

    def tolerance(self, logits: Tensor, noise: Tensor | None, stored: Array, relative: float) -> list[Array]:
        """Either bit where the log-odds are about 0."""
        scores = logits if noise is None else logits + noise
        return [ties(scores.abs().numpy(), np.ones(scores.shape), relative)]

    def numpy_sample(self, logits: Array, noise: Array) -> Array:
        """`sample` in NumPy."""
        drawn: Array = (logits + noise > 0).astype(np.float32)
        return drawn
